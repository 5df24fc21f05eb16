"""``ThreadedTransport``: a blocking transport for coroutines, where aiohttp is not installed."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from django_baikal.exceptions import AuthserverUnavailable
from django_baikal.protocol.effects import Request, Response

from .base import Transport
from .failures import timed_out

_WORKERS = 32


class ThreadedTransport:
    """Sends from coroutines with ``transport``, in up to 32 threads of its own.

    Waiting for a thread counts as time. A cancelled call leaves its thread busy until the
    exchange ends, at the latest after its timeout.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None

    async def asend(self, request: Request, *, timeout: float) -> Response:
        """Send ``request`` and read the whole answer within ``timeout`` seconds.

        Raises ``AuthserverUnavailable``, ``InvalidResponse`` or ``ConfigurationError``.
        """
        deadline = time.monotonic() + timeout
        context = contextvars.copy_context()

        def send() -> Response:
            return self._transport.send(request, timeout=deadline - time.monotonic())

        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                return await loop.run_in_executor(self._pool(), context.run, send)
        except TimeoutError:
            pass
        except AuthserverUnavailable as error:
            if error.code != "timeout":
                raise
        # Also for the blocking transport, which knows only what was left when its thread began.
        raise timed_out(request, timeout)

    def _pool(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(_WORKERS, thread_name_prefix="django-baikal")
            return self._executor

    def close(self) -> None:
        """Close idle connections and let the threads end; the transport can still be used."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)
        self._transport.close()
