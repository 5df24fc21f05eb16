"""Middleware: who a request's bearer is, and by which correlator all that it causes is found."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest

from django_baikal.authentication import (
    ANSWERED,
    aauthenticate_request,
    attach,
    authenticate_request,
    respond,
    vary,
)
from django_baikal.correlation import HEADER, bound


class _Middleware:
    """Is a coroutine function where what it wraps is one, so that Django needs no thread for it."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        """Answer ``request``, or let the view answer it."""
        return self._acall(request) if self._is_async else self._call(request)

    def _call(self, request: HttpRequest) -> Any: ...

    async def _acall(self, request: HttpRequest) -> Any: ...


class IntrospectionMiddleware(_Middleware):
    """Authenticates a request that carries ``Authorization: Bearer``, and does nothing else.

    ``request.user`` is then the token's user and ``request.auth`` its ``TokenInfo``; there is no
    session, and CSRF is not checked. A token that is not good is answered 401 (or 400), and one
    that cannot be checked 503, whatever the view. Put it after AuthenticationMiddleware.
    ``using``, for a subclass: the alias of BAIKAL.
    """

    using = "default"

    def _call(self, request: HttpRequest) -> Any:
        try:
            principal = authenticate_request(request, using=self.using)
        except ANSWERED as error:
            return respond(request, error, self.using)
        if principal is None:
            return self.get_response(request)
        attach(request, principal)
        return vary(self.get_response(request))

    async def _acall(self, request: HttpRequest) -> Any:
        try:
            principal = await aauthenticate_request(request, using=self.using)
        except ANSWERED as error:
            return respond(request, error, self.using)
        if principal is None:
            return await self.get_response(request)
        attach(request, principal)
        return vary(await self.get_response(request))


class CorrelatorMiddleware(_Middleware):
    """Binds the correlator of a request while it is answered, and echoes it: ``X-Correlator``.

    The request's own is taken if CAMARA's format allows it; else, and without one, a new one is
    made. It is ``request.correlator``, too. Put it first, or at least before every middleware whose
    log lines and requests to the authserver are to have it.
    """

    def _call(self, request: HttpRequest) -> Any:
        with bound(request.headers.get(HEADER)) as correlator:
            request.correlator = correlator  # type: ignore[attr-defined]
            return _echoing(self.get_response(request), correlator)

    async def _acall(self, request: HttpRequest) -> Any:
        with bound(request.headers.get(HEADER)) as correlator:
            request.correlator = correlator  # type: ignore[attr-defined]
            return _echoing(await self.get_response(request), correlator)


def _echoing(response: Any, correlator: str) -> Any:
    response.headers[HEADER] = correlator
    # A file is left to the server, which may have a faster way for it.
    if response.streaming and getattr(response, "file_to_stream", None) is None:
        stream = _astream if response.is_async else _stream
        response.streaming_content = stream(response.streaming_content, correlator)
    return response


def _stream(content: Iterator[bytes], correlator: str) -> Iterator[bytes]:
    """Bind the correlator while each part is made, and not while the server sends it."""
    while True:
        with bound(correlator):
            try:
                part = next(content)
            except StopIteration:
                return
        yield part


async def _astream(content: AsyncIterator[bytes], correlator: str) -> AsyncIterator[bytes]:
    while True:
        with bound(correlator):
            try:
                part = await anext(content)
            except StopAsyncIteration:
                return
        yield part
