"""The fake authserver as a transport: reached by every client of the process, with no socket."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from asgiref.sync import sync_to_async

from django_baikal.protocol.effects import Request, Response
from django_baikal.transports.base import wire
from django_baikal.transports.failures import timed_out

if TYPE_CHECKING:
    from django_baikal.testing.authserver import FakeAuthserver
    from django_baikal.testing.faults import Fault

_NEVER = threading.Event()


class InMemoryTransport:
    """Sends to a FakeAuthserver as ``transports`` do, sync and async.

    A call that could only time out does so at once: no test waits for a server that hangs.
    """

    def __init__(self, server: FakeAuthserver) -> None:
        self._server = server

    def send(self, request: Request, *, timeout: float) -> Response:
        """Give the answer, or raise AuthserverUnavailable if it takes ``timeout`` seconds."""
        wire(request)  # refuses what could not be sent over HTTP either
        exchange = self._server.receive(request)
        delay = self._delay(exchange.fault, request, timeout)
        if delay:
            _NEVER.wait(delay)
        return exchange.answer()

    async def asend(self, request: Request, *, timeout: float) -> Response:
        """Give the answer as ``send`` does; the event loop runs meanwhile."""
        wire(request)  # refuses what could not be sent over HTTP either
        exchange = self._server.receive(request)
        delay = self._delay(exchange.fault, request, timeout)
        await asyncio.sleep(delay)
        if b"assertion" in (request.body or b""):
            # Keys may have to be fetched from the project's own views, and those may block.
            return await sync_to_async(exchange.answer)()
        return exchange.answer()

    @staticmethod
    def _delay(fault: Fault | None, request: Request, timeout: float) -> float:
        if fault is None:
            return 0.0
        if fault.hang or fault.delay >= timeout:
            raise timed_out(request, timeout)
        return fault.delay
