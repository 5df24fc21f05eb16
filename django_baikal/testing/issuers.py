"""Where the fake authserver finds the keys of those who sign assertions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django_baikal.exceptions import BaikalError
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.effects import Request, Response
from django_baikal.protocol.strict_json import loads_object
from django_baikal.protocol.urls import origin, split_http_url
from django_baikal.testing.state import ISSUER_TTL, Client, IssuerKeys, State
from django_baikal.testing.wire import mask
from django_baikal.transports import base

if TYPE_CHECKING:
    from django_baikal.transports.requests import RequestsTransport

WELL_KNOWN = "/.well-known/openid-configuration"
_TIMEOUT = 5.0
_MAX_KEYS = 100
_ACCEPT = {"accept": "application/json"}


class Unacceptable(Exception):
    """An assertion is refused; the text says why, and is safe to print."""


def client_keys(state: State, client: Client, kid: str | None) -> list[dict[str, Any]]:
    """Give the keys a client has registered, those of its ``jwks_uri`` included."""
    known = [dict(jwk) for jwk in client.keys]
    if client.jwks_uri is not None:
        known += _current(state, f"keys at {client.jwks_uri}", client.jwks_uri, kid)
    if not known:
        raise Unacceptable("the client has registered no keys")
    return known


def issuer_keys(state: State, iss: str, kid: str | None) -> list[dict[str, Any]]:
    """Give the keys an issuer publishes, found through its metadata.

    The metadata is at the issuer followed by "/.well-known/openid-configuration", with nothing
    removed: an issuer that ends in "/" has two slashes there. Both documents are kept for 15
    minutes; a ``kid`` that is not among the keys makes it look again, after the cool-down.
    """
    with state.lock:
        known = state.issuers.get(iss)
    if known is None or state.now() - known.found_at >= ISSUER_TTL:
        jwks_uri = _jwks_uri(state, iss)
    else:
        jwks_uri = known.jwks_uri
    return _current(state, iss, jwks_uri, kid)


def _jwks_uri(state: State, iss: str) -> str:
    url = iss + WELL_KNOWN
    metadata = _get(state, url)
    if metadata.get("issuer") != iss:
        found = mask(repr(metadata.get("issuer")))[:200]
        raise Unacceptable(f"the metadata at {url} names the issuer {found}, not {iss!r}")
    jwks_uri = metadata.get("jwks_uri")
    if not isinstance(jwks_uri, str) or not is_url(jwks_uri):
        raise Unacceptable(f"the metadata at {url} has no jwks_uri that is a URL")
    with state.lock:
        known = state.issuers.get(iss)
        if known is not None and known.jwks_uri == jwks_uri:
            known.found_at = state.now()
        else:
            state.issuers[iss] = IssuerKeys(jwks_uri, state.now())
    return jwks_uri


def _current(state: State, name: str, jwks_uri: str, kid: str | None) -> list[dict[str, Any]]:
    with state.lock:
        known = state.issuers.setdefault(name, IssuerKeys(jwks_uri, state.now()))
        age = state.now() - known.keys_at
        missing = kid is not None and all(jwk.get("kid") != kid for jwk in known.keys)
        if age < ISSUER_TTL and not (missing and age >= state.rules.jwks_cooldown):
            return known.keys
    jwks = _get(state, jwks_uri).get("keys")
    if not isinstance(jwks, list) or not all(isinstance(jwk, dict) for jwk in jwks):
        raise Unacceptable(f"what is at {jwks_uri} is not a JWK Set")
    if len(jwks) > _MAX_KEYS:
        raise Unacceptable(f"the JWK Set at {jwks_uri} has more than {_MAX_KEYS} keys")
    with state.lock:
        known.keys, known.keys_at = jwks, state.now()
    return jwks


def _get(state: State, url: str) -> dict[str, Any]:
    try:
        response = state.fetch(Request("GET", url, _ACCEPT))
    except BaikalError as error:
        raise Unacceptable(f"GET {url} failed: {mask(str(error))[:300].rstrip('.')}") from None
    except Exception as error:  # noqa: BLE001 - a fetch of the user's own may raise anything
        raise Unacceptable(f"GET {url} failed with {type(error).__name__}") from None
    if response.status != 200:
        raise Unacceptable(f"GET {url} answered {response.status}{_hint(url)}")
    try:
        return loads_object(response.body)
    except ValueError as error:
        raise Unacceptable(f"what is at {url} cannot be used: {error}") from None


def _hint(url: str) -> str:
    slashes = ""
    if urlsplit(url).path.startswith("//"):
        slashes = "; the issuer ends in '/', so the path has two slashes and must be served so"
    return f"; include('django_baikal.urls') belongs at the root of the issuer{slashes}"


def is_url(text: str) -> bool:
    """Tell whether ``text`` is an absolute http or https URL without credentials or fragment."""
    try:
        split_http_url(text)
    except ValueError:
        return False
    return True


def _routed(request: Request) -> Response | None:
    transport: base.Transport | None = base.routes.get(origin(request.url))
    return None if transport is None else transport.send(request, timeout=_TIMEOUT)


def fetch_in_process(request: Request) -> Response:
    """Fetch from another fake in memory, or else from this project's own URLconf."""
    if (routed := _routed(request)) is not None:
        return routed
    from django.test import Client as DjangoClient

    # The whole URL: of a path that begins with two slashes the first part would become a host.
    secure = request.url.startswith("https:")
    answer: Any = DjangoClient(raise_request_exception=False).get(
        request.url, headers=dict(request.headers), secure=secure
    )
    body = answer.getvalue()
    headers = {name.lower(): value for name, value in answer.items()}
    return Response(answer.status_code, headers, body)


class HTTPFetch:
    """Fetch over HTTP; close it afterwards."""

    def __init__(self) -> None:
        self._transport: RequestsTransport | None = None

    def __call__(self, request: Request) -> Response:
        if (routed := _routed(request)) is not None:
            return routed
        if self._transport is None:
            from django_baikal.transports.requests import RequestsTransport

            config = ClientConfig(
                alias="fake-authserver", allow_http=True, trust_env=False, timeout=_TIMEOUT
            )
            self._transport = RequestsTransport(config)
        return self._transport.send(request, timeout=_TIMEOUT)

    def close(self) -> None:
        """Close its connections."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None
