"""What the authserver reads from us: our public keys, and where they are."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable
from functools import lru_cache, update_wrapper
from types import SimpleNamespace
from typing import Any, ClassVar, cast

from asgiref.sync import markcoroutinefunction, sync_to_async
from django.contrib.auth.decorators import login_not_required
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response
from django.views import View
from django.views.decorators.csrf import csrf_exempt

from django_baikal.exceptions import KeyStoreError
from django_baikal.handler import clients
from django_baikal.keys.base import CACHING, Caching, WouldWait
from django_baikal.protocol.jwk import b64url_encode
from django_baikal.protocol.urls import split_http_url

logger = logging.getLogger("django_baikal.views")

RETRY_AFTER = 30
#: What makes a request a conditional one (RFC 9110 section 13.1).
_CONDITIONS = frozenset(
    f"HTTP_IF_{name}" for name in ("MATCH", "NONE_MATCH", "MODIFIED_SINCE", "UNMODIFIED_SINCE")
)


@lru_cache(maxsize=32)
def cache_control(caching: Caching) -> str:
    """Give the Cache-Control of a document that others may keep for ``caching``."""
    # Rounded down: the rules about times count on it that nobody is allowed more.
    return (
        f"public, max-age={int(caching.max_age)}, "
        f"stale-while-revalidate={int(caching.stale_while_revalidate)}, "
        f"stale-if-error={int(caching.stale_if_error)}"
    )


@lru_cache(maxsize=32)
def etag(body: bytes) -> str:
    """Give the ETag of a document."""
    return f'"{b64url_encode(hashlib.sha256(body).digest()[:18])}"'


def in_event_loop() -> bool:
    """Tell whether an event loop is running in this thread."""
    # get_running_loop raises where there is none, which takes ten times as long.
    return asyncio._get_running_loop() is not None


class _Every(set[str]):
    """The aliases of all databases, whichever there are."""

    def __contains__(self, alias: object) -> bool:
        return True


class Either:
    """A view that is a coroutine function where an event loop runs, and a function elsewhere.

    So neither WSGI nor ASGI needs a thread to call it. In a loop ``view`` is called as it is; if it
    raises WouldWait, it is called again in a thread that may use the database.
    """

    # Each answer would begin with a query otherwise, and fail with the database.
    _non_atomic_requests = _Every()

    def __init__(self, view: Callable[..., HttpResponseBase]) -> None:
        update_wrapper(self, view)
        self._view = view

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return (self._in_loop if in_event_loop() else self._view)(*args, **kwargs)

    async def _in_loop(self, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            return self._view(*args, **kwargs)
        except WouldWait:
            return await sync_to_async(self._view, thread_sensitive=True)(*args, **kwargs)


class _InLoopOnly:
    """An attribute that is there where an event loop runs; one of the view's own is before it."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __get__(self, instance: object, owner: type | None = None) -> object:
        return self._value if in_event_loop() else None


# What marks a coroutine function; its name differs between versions of Python. No __getattr__: it
# would be asked for all the other attributes as well that tell one, with each request.
for _name, _mark in vars(markcoroutinefunction(cast("Any", SimpleNamespace()))).items():
    setattr(Either, _name, _InLoopOnly(_mark))


class PublicDocumentView(View):
    """A JSON document that anybody may read and keep for a while: no session, no cookie.

    ``using``: the alias whose document it is.
    """

    http_method_names: ClassVar[list[str]] = ["get", "head", "options"]  # type: ignore[misc]  # Django has it as an instance's
    using = "default"

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Any:
        """Make the view, for WSGI and ASGI."""
        view = login_not_required(super().as_view(**initkwargs))
        # So that what is not GET is answered 405, and not with a page about a missing cookie.
        return Either(csrf_exempt(view))

    def document(self, *, wait: bool) -> tuple[bytes, str]:
        """Give the document, and its Cache-Control.

        Raises KeyStoreError if that is not possible now; and without ``wait`` WouldWait, if it
        has to be read.
        """
        raise NotImplementedError  # pragma: no cover: each view below has its own

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Answer, readable from every origin (the document is public)."""
        response = super().dispatch(request, *args, **kwargs)
        response.headers["Access-Control-Allow-Origin"] = "*"
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        response.headers["X-Content-Type-Options"] = "nosniff"
        session = getattr(request, "session", None)
        if session is not None and not session.modified:
            # Django 5.2's LoginRequiredMiddleware has looked at the user, which would add
            # "Vary: Cookie", although nothing here depends on it.
            session.accessed = False
        return response

    def get(self, request: HttpRequest, **_: str) -> HttpResponseBase:
        """Answer 200, 304 for an ETag that the caller has, or 503, never an empty 200."""
        try:
            body, kept = self.document(wait=not in_event_loop())
        except KeyStoreError as error:
            logger.error("BAIKAL[%r]: %s", self.using, error)  # noqa: TRY400 - it is no bug
            response = HttpResponse(
                b'{"error":"temporarily_unavailable"}', status=503, content_type="application/json"
            )
            response.headers["Retry-After"] = str(RETRY_AFTER)
            response.headers["Cache-Control"] = "no-store"
            return response
        response = HttpResponse(body, content_type="application/json")
        response.headers["Content-Length"] = str(len(body))
        response.headers["Cache-Control"] = kept
        response.headers["ETag"] = etag(body)
        if request.META.keys().isdisjoint(_CONDITIONS):
            return response
        answer = get_conditional_response(request, etag(body), response=response)
        return answer or response


class JWKSView(PublicDocumentView):
    """Our public keys as a JWK Set (RFC 7517 section 5).

    With ``ring``, which the URL may say, those of the alias whose KEYS keep that ring.
    """

    ring: str | None = None

    def _alias(self) -> str:
        ring = self.kwargs.get("ring", self.ring)
        if ring is None:
            return self.using
        for alias in clients:
            keys = clients[alias].config.keys
            if keys is not None and keys["OPTIONS"].get("RING", "default") == ring:
                return alias
        raise Http404("There is no ring of that name.")

    def document(self, *, wait: bool) -> tuple[bytes, str]:
        """Give the JWK Set of the alias.

        An empty one is kept by nobody: the first key has to be usable at once.
        """
        found, caching = clients[self._alias()]._runtime.keyring.document(wait=wait)
        return found.body, cache_control(caching) if found.keys else "no-store"


class IssuerMetadataView(PublicDocumentView):
    """Our metadata as an issuer of assertions: ``issuer`` and ``jwks_uri`` (Discovery section 3).

    Both come from ISSUER and never from the Host header; 404 unless ISSUER is an http(s) URL
    without a query.
    """

    def document(self, *, wait: bool) -> tuple[bytes, str]:  # noqa: ARG002 - nothing is read
        """Give the metadata of the alias."""
        issuer = clients[self.using].config.issuer
        try:
            split_http_url(issuer)
            if "?" in issuer:
                raise ValueError("it has a query")
        except ValueError as error:
            raise Http404(f"ISSUER cannot have metadata: {error}.") from None
        shown = {"issuer": issuer, "jwks_uri": issuer.rstrip("/") + "/.well-known/jwks.json"}
        return json.dumps(shown, separators=(",", ":")).encode(), cache_control(CACHING)
