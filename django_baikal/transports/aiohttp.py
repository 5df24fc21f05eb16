"""``AiohttpTransport``: one aiohttp session per event loop, closed together with the loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import weakref
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
from yarl import URL

from django_baikal.exceptions import InvalidResponse
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.effects import Request, Response
from django_baikal.protocol.urls import without_query

from .base import Body, Environment, collect_headers, warn_if_unverified, wire
from .failures import failure, timed_out
from .requests import tls_context

#: What http.client allows too, so that both transports read the same answers.
_MAX_LINE = 65536

#: ValueError: yarl and aiohttp have it for some host names and headers.
_FAILURES = (aiohttp.ClientError, aiohttp.http.HttpProcessingError, OSError, ValueError)

#: Those of them that wrap, or are, an error of parsing, and yet mean that no answer came.
_NO_ANSWER = (aiohttp.ClientPayloadError, aiohttp.ClientHttpProxyError)

_Owner = AsyncGenerator[aiohttp.ClientSession, None]

_Sockets = weakref.WeakSet[socket.socket]

_all_sockets: _Sockets = weakref.WeakSet()


def _new_socket(of_session: _Sockets, address: Any) -> socket.socket:
    family, kind, protocol = address[:3]
    sock = socket.socket(family, kind, protocol)
    of_session.add(sock)
    _all_sockets.add(sock)
    return sock


async def _hang_up(sockets: _Sockets) -> None:
    """End the connections that a closed session left behind.

    A TLS connection that was given up in the middle waits for the peer's goodbye; when the loop
    ends before it comes, asyncio warns of an unclosed transport.
    """
    for _ in range(100):  # pragma: no branch: so many turns are never needed
        left = [sock for sock in sockets if sock.fileno() >= 0]
        if not left:
            return
        for sock in left:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        await asyncio.sleep(0)


def _leave_to_the_parent() -> None:  # pragma: no cover: runs in a child, which os._exit() ends
    """Cut this process, which was just forked, off the connections of its parent.

    When the child drops a session, asyncio says goodbye over TLS, on the connection that the
    parent uses, and takes it out of the epoll that both share. After this it talks to nobody.
    """
    with socket.socket() as nobody:
        for sock in list(_all_sockets):
            if sock.fileno() >= 0:
                os.dup2(nobody.fileno(), sock.fileno(), inheritable=False)
    _all_sockets.clear()


if hasattr(os, "register_at_fork"):  # pragma: no branch: there is no fork on Windows
    os.register_at_fork(after_in_child=_leave_to_the_parent)


class AiohttpTransport:
    """Sends from coroutines; each event loop has its own pool of keep-alive connections.

    A loop's session ends with ``loop.shutdown_asyncgens()``, which ``asyncio.run``, asgiref and
    the servers call. Raises ``ConfigurationError`` when a CA bundle, client certificate or proxy
    cannot be used.
    """

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self._environment = Environment.read(config)
        self._context = tls_context(config, self._environment)
        self._owners: dict[asyncio.AbstractEventLoop, tuple[_Owner, aiohttp.ClientSession]] = {}
        warn_if_unverified(config)

    async def asend(self, request: Request, *, timeout: float) -> Response:
        """Send ``request`` and read the whole answer within ``timeout`` seconds.

        Raises ``AuthserverUnavailable``, ``InvalidResponse`` or ``ConfigurationError``.
        """
        url, headers = wire(request)
        if timeout <= 0:
            raise timed_out(request, timeout)
        proxy = self._environment.proxy_for(url)
        try:
            # Not aiohttp's own timeout: above 5 s it rounds up to whole seconds.
            async with asyncio.timeout(timeout):
                return await self._send(request, url, headers, proxy)
        except _NO_ANSWER as error:
            problem = failure(error, request, timeout=timeout, proxy=proxy)
        except _FAILURES as error:
            problem = failure(
                error,
                request,
                timeout=timeout,
                proxy=proxy,
                malformed=(aiohttp.ClientResponseError, aiohttp.http.HttpProcessingError),
            )
        raise problem

    async def _send(
        self, request: Request, url: str, headers: dict[str, str], proxy: str | None
    ) -> Response:
        session = await self._session()
        answer = await session.request(
            request.method,
            URL(url, encoded=True),
            headers=headers,
            data=request.body,
            allow_redirects=False,
            proxy=proxy,
        )
        try:
            if answer.status < 200:
                raise InvalidResponse(
                    f"{without_query(url)}: the answer is not valid HTTP.", code="malformed_http"
                )
            pairs = ((k.decode("latin-1"), v.decode("latin-1")) for k, v in answer.raw_headers)
            received = collect_headers(pairs, url)
            body = Body(received, limit=self._config.max_response_size, url=url)
            while data := await answer.content.readany():
                body.feed(data)
            return Response(answer.status, received, body.finish())
        finally:
            # Closes the connection, unless the body was read to its end.
            answer.close()

    async def aclose(self) -> None:
        """Close the session of the running loop; the transport can still be used."""
        held = self._owners.pop(asyncio.get_running_loop(), None)
        if held is not None:
            await held[0].aclose()

    async def _session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        held = self._owners.get(loop)
        if held is None or held[1].closed:
            for other in [other for other in list(self._owners) if other.is_closed()]:
                self._owners.pop(other, None)
            owner = self._own_session()
            held = self._owners[loop] = owner, await anext(owner)
        return held[1]

    async def _own_session(self) -> _Owner:
        """Yield a session, and close it when the loop ends: it ends its asynchronous generators."""
        config = self._config
        sockets: _Sockets = weakref.WeakSet()
        connector = aiohttp.TCPConnector(
            ssl=self._context,
            limit=config.aiohttp_session_limit,
            limit_per_host=config.aiohttp_session_size,
            ttl_dns_cache=int(config.aiohttp_session_dns_cache),
            socket_factory=functools.partial(_new_socket, sockets),
        )
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            # False also keeps it off .netrc.
            trust_env=False,
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            timeout=aiohttp.ClientTimeout(total=None),
            max_line_size=_MAX_LINE,
            max_field_size=_MAX_LINE,
        )
        try:
            yield session
        finally:
            await session.close()
            await _hang_up(sockets)
