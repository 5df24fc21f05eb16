"""The endpoints of the fake authserver, each a function of its state and of one request."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from django_baikal.protocol.effects import Response
from django_baikal.protocol.jwk import ALGORITHMS
from django_baikal.testing.authorization import decide
from django_baikal.testing.client_auth import METHODS, authenticate
from django_baikal.testing.grants import GRANTS
from django_baikal.testing.state import State
from django_baikal.testing.tokens import find, revoke
from django_baikal.testing.wire import RecordedRequest, Refused, json_response, read_form

#: Who has logged in where nobody can be asked; ``login_hint`` in the URL names somebody else.
DEFAULT_USER = "user-1"


def metadata(state: State) -> dict[str, Any]:
    """Describe the authserver (RFC 8414 section 2, OpenID Connect Discovery section 3)."""
    document: dict[str, Any] = {
        "issuer": state.issuer,
        **{f"{name}_endpoint": state.url(name) for name in _ENDPOINTS_IN_METADATA},
        "jwks_uri": state.url("jwks"),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": list(GRANTS),
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
        "subject_types_supported": ["public"],
        "scopes_supported": ["openid"],
        "id_token_signing_alg_values_supported": ["RS256"],
    }
    for name in ("token", "introspection", "revocation"):
        document[f"{name}_endpoint_auth_methods_supported"] = list(METHODS)
        document[f"{name}_endpoint_auth_signing_alg_values_supported"] = list(ALGORITHMS)
    return document


_ENDPOINTS_IN_METADATA = ("authorization", "token", "introspection", "revocation")


def discovery(state: State, call: RecordedRequest) -> Response:
    """Answer with the metadata."""
    return _document(call, metadata(state))


def jwks(state: State, call: RecordedRequest) -> Response:
    """Answer with the authserver's own public keys (RFC 7517 section 5)."""
    return _document(call, {"keys": [dict(key.public_jwk) for key in state.own_keys()]})


def _document(call: RecordedRequest, body: dict[str, Any]) -> Response:
    if call.method not in ("GET", "HEAD"):
        raise Refused(
            "invalid_request", f"{call.method} is not for here.", status=405, headers=_ALLOW_GET
        )
    return Response(200, {"content-type": "application/json"}, json.dumps(body).encode())


_ALLOW_GET = {"allow": "GET, HEAD"}


def token(state: State, call: RecordedRequest) -> Response:
    """Grant a token (RFC 6749 section 3.2)."""
    form = read_form(call)
    client = authenticate(state, call, form)
    if "grant_type" not in form:
        raise Refused("invalid_request", "The parameter grant_type is missing.")
    grant = GRANTS.get(form["grant_type"])
    if grant is None:
        raise Refused("unsupported_grant_type", f"Known grants: {', '.join(GRANTS)}.")
    return json_response(grant(state, client, form))


def introspection(state: State, call: RecordedRequest) -> Response:
    """Tell about a token (RFC 7662), as the platform does.

    Only the caller's own tokens are active, and a refresh token looks like an access token.
    """
    form = read_form(call)
    client = authenticate(state, call, form)
    if "token" not in form:
        raise Refused("invalid_request", "The parameter token is missing.")
    issued = find(state, form["token"])
    if issued is None or issued.client_id != client.client_id:
        return json_response({"active": False})
    return json_response({"active": True, **issued.claims})


def revocation(state: State, call: RecordedRequest) -> Response:
    """Revoke a token; one that is not known is no error (RFC 7009 section 2.2)."""
    form = read_form(call)
    client = authenticate(state, call, form)
    if "token" not in form:
        raise Refused("invalid_request", "The parameter token is missing.")
    with state.lock:
        issued = state.tokens.get(form["token"])
        if issued is not None and issued.client_id != client.client_id:
            raise Refused("invalid_grant", "The token was issued to another client.")
        revoke(state, form["token"])
    return Response(200, {"cache-control": "no-store"}, b"")


def authorization(state: State, call: RecordedRequest) -> Response:
    """Send the browser back at once, as if the user had said yes."""
    url = decide(state, call, sub=call.form.get("login_hint", DEFAULT_USER))
    return Response(302, {"location": url, "cache-control": "no-store"}, b"")


def unknown(_state: State, _call: RecordedRequest) -> Response:
    """Answer 404."""
    raise Refused("not_found", "There is no such endpoint.", status=404)


ENDPOINTS: dict[str, Callable[[State, RecordedRequest], Response]] = {
    "discovery": discovery,
    "jwks": jwks,
    "token": token,
    "authorization": authorization,
    "introspection": introspection,
    "revocation": revocation,
    "unknown": unknown,
}
