"""What the authserver reads from us: our public keys, and where they are."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any, ClassVar

from django.contrib.auth.decorators import login_not_required
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt

from django_baikal.exceptions import KeyStoreError
from django_baikal.handler import clients
from django_baikal.protocol.jwk import b64url_encode
from django_baikal.protocol.urls import split_http_url

logger = logging.getLogger("django_baikal.views")

#: How long others may keep a document, in seconds: as long as the platform keeps an issuer's.
MAX_AGE = 900
CACHE_CONTROL = f"public, max-age={MAX_AGE}, stale-while-revalidate=60, stale-if-error=3600"
RETRY_AFTER = 30


# Exempt, so that what is not GET is answered 405 and not with a page about a missing cookie.
@method_decorator([login_not_required, csrf_exempt], name="dispatch")
class PublicDocumentView(View):
    """A JSON document that anybody may read and keep for a while: no session, no cookie.

    ``using``: the alias whose document it is.
    """

    http_method_names: ClassVar[list[str]] = ["get", "head", "options"]  # type: ignore[misc]  # Django has it as an instance's
    using = "default"

    def document(self) -> dict[str, Any]:
        """Give the document; raise KeyStoreError if that is not possible now."""
        raise NotImplementedError  # pragma: no cover: each view below has its own

    def cache_control(self, _document: dict[str, Any]) -> str:
        """Give the Cache-Control of the document."""
        return CACHE_CONTROL

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

    def get(self, request: HttpRequest) -> HttpResponseBase:
        """Answer 200, 304 for an ETag that the caller has, or 503, never an empty 200."""
        try:
            document = self.document()
        except KeyStoreError as error:
            logger.error("BAIKAL[%r]: %s", self.using, error)  # noqa: TRY400 - it is no bug
            response = HttpResponse(
                b'{"error":"temporarily_unavailable"}', status=503, content_type="application/json"
            )
            response.headers["Retry-After"] = str(RETRY_AFTER)
            response.headers["Cache-Control"] = "no-store"
            return response
        body = json.dumps(document, separators=(",", ":")).encode()
        response = HttpResponse(body, content_type="application/json")
        response.headers["Content-Length"] = str(len(body))
        response.headers["Cache-Control"] = self.cache_control(document)
        etag = f'"{b64url_encode(hashlib.sha256(body).digest()[:18])}"'
        response.headers["ETag"] = etag
        answer = get_conditional_response(request, etag, response=response)
        return answer or response


class JWKSView(PublicDocumentView):
    """Our public keys as a JWK Set (RFC 7517 section 5)."""

    def document(self) -> dict[str, Any]:
        """Give the JWK Set of the alias."""
        jwk_set: Any = clients[self.using].get_jwk_set(dump_json=False)
        return dict(jwk_set)

    def cache_control(self, _document: dict[str, Any]) -> str:
        """Let nobody keep an empty set: the first key has to be usable at once."""
        return CACHE_CONTROL if _document["keys"] else "no-store"


class IssuerMetadataView(PublicDocumentView):
    """Our metadata as an issuer of assertions: ``issuer`` and ``jwks_uri`` (Discovery section 3).

    Both come from ISSUER and never from the Host header; 404 unless ISSUER is an http(s) URL
    without a query.
    """

    def document(self) -> dict[str, Any]:
        """Give the metadata of the alias."""
        issuer = clients[self.using].config.issuer
        try:
            split_http_url(issuer)
            if "?" in issuer:
                raise ValueError("it has a query")
        except ValueError as error:
            raise Http404(f"ISSUER cannot have metadata: {error}.") from None
        return {"issuer": issuer, "jwks_uri": issuer.rstrip("/") + "/.well-known/jwks.json"}
