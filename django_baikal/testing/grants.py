"""The grants of the token endpoint."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from django_baikal.protocol.jwk import b64url_encode
from django_baikal.testing.assertions import user_assertion
from django_baikal.testing.issuers import Unacceptable
from django_baikal.testing.state import Client, Code, State
from django_baikal.testing.tokens import (
    find,
    id_token,
    issue_access,
    issue_refresh,
    revoke_family,
)
from django_baikal.testing.wire import Refused, scope_tokens

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_CARRIED = ("purpose", "acr", "authorization_id", "identifier", "authentication_context")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")

Form = Mapping[str, str]


def client_credentials(state: State, client: Client, form: Form) -> dict[str, Any]:
    """Give the client a token of its own (RFC 6749 section 4.4)."""
    scope = form.get("scope", "")
    scope_tokens(scope)
    return _answer(state, client, scope, {"purpose": form.get("purpose")})


def jwt_bearer(state: State, client: Client, form: Form) -> dict[str, Any]:
    """Give a token for the user that a signed assertion names (RFC 7523 section 2.1)."""
    try:
        claims = user_assertion(state, _required(form, "assertion"), client)
    except Unacceptable as error:
        raise Refused("invalid_grant", f"The assertion is refused: {error}.") from None
    for name in ("scope", "purpose"):
        if not isinstance(claims.get(name, ""), str):
            raise Refused("invalid_grant", f"The assertion is refused: its {name} is no string.")
        if name in claims and name in form:
            raise Refused(
                "invalid_request", f"The {name} is in the assertion, and also in the form."
            )
    scope = claims.get("scope") or form.get("scope", "")
    scope_tokens(scope)
    carried = {name: claims[name] for name in _CARRIED if claims.get(name)}
    carried.setdefault("purpose", form.get("purpose"))
    return _answer(state, client, scope, {"sub": claims["sub"], **carried})


def authorization_code(state: State, client: Client, form: Form) -> dict[str, Any]:
    """Exchange a code, once (RFC 6749 section 4.1.3, RFC 7636 section 4.5)."""
    value, redirect_uri = _required(form, "code"), _required(form, "redirect_uri")
    with state.lock:
        code = state.codes.get(value)
        if code is None or code.client_id != client.client_id:
            raise Refused("invalid_grant", "The code is unknown, or another client's.")
        if code.family is not None:
            revoke_family(state, code.family)
            raise Refused("invalid_grant", "The code was used before; its tokens are revoked now.")
        if code.expires_at <= state.now():
            raise Refused("invalid_grant", "The code has expired.")
        if code.redirect_uri != redirect_uri:
            raise Refused("invalid_grant", "It is not the redirect_uri of the authorization.")
        _check_verifier(code, form.get("code_verifier"))
        code.family = secrets.token_urlsafe(16)
    answer = _answer(state, client, code.scope, code.claims, family=code.family)
    answer["refresh_token"] = issue_refresh(
        state, client.client_id, scope=code.scope, claims=code.claims, family=code.family
    )
    if "openid" in code.scope.split(" "):
        answer["id_token"] = id_token(state, code, answer["access_token"])
    return answer


def _check_verifier(code: Code, verifier: str | None) -> None:
    if code.challenge is None:
        if verifier is not None:
            # RFC 9700 section 4.8.2: somebody has taken the challenge out on the way.
            raise Refused("invalid_grant", "A code_verifier came, but the code has no challenge.")
        return
    if verifier is None:
        raise Refused("invalid_grant", "The code_verifier is missing.")
    if not _VERIFIER.fullmatch(verifier):
        raise Refused("invalid_grant", "A code_verifier is 43 to 128 characters (RFC 7636 4.1).")
    challenge = b64url_encode(hashlib.sha256(verifier.encode()).digest())
    if not hmac.compare_digest(challenge, code.challenge):
        raise Refused("invalid_grant", "The code_verifier does not fit the code_challenge.")


def refresh_token(state: State, client: Client, form: Form) -> dict[str, Any]:
    """Exchange a refresh token for new tokens, and never twice (RFC 6749 section 6)."""
    value, wanted = _required(form, "refresh_token"), form.get("scope")
    with state.lock:
        issued = state.tokens.get(value)
        known = issued is not None and issued.kind == "refresh"
        if issued is None or not known or issued.client_id != client.client_id:
            raise Refused("invalid_grant", "The refresh token is unknown, or another client's.")
        if find(state, value) is None:
            # RFC 9700 section 4.14.2: either of the two that have used it is a thief.
            revoke_family(state, issued.family)
            raise Refused("invalid_grant", "The refresh token was used, revoked or has expired.")
        scope = issued.scope if wanted is None else wanted
        if not set(scope_tokens(scope)) <= set(issued.scope.split(" ")) | {""}:
            raise Refused("invalid_scope", "A refresh can narrow the scope, not widen it.")
        issued.revoked = True
    own = ("sub", *_CARRIED)
    claims = {name: issued.claims[name] for name in own if name in issued.claims}
    answer = _answer(state, client, scope, claims, family=issued.family)
    answer["refresh_token"] = issue_refresh(
        state, client.client_id, scope=issued.scope, claims=claims, family=issued.family
    )
    return answer


def _answer(
    state: State,
    client: Client,
    scope: str,
    claims: Mapping[str, Any],
    *,
    family: str | None = None,
) -> dict[str, Any]:
    token = issue_access(state, client.client_id, scope=scope, claims=claims, family=family)
    answer = {
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": int(state.rules.access_token_lifetime),
        "scope": scope or None,
        "purpose": claims.get("purpose"),
    }
    return {name: value for name, value in answer.items() if value is not None}


def _required(form: Form, name: str) -> str:
    if name not in form:
        raise Refused("invalid_request", f"The parameter {name} is missing.")
    return form[name]


GRANTS: dict[str, Callable[[State, Client, Form], dict[str, Any]]] = {
    "client_credentials": client_credentials,
    JWT_BEARER: jwt_bearer,
    "authorization_code": authorization_code,
    "refresh_token": refresh_token,
}
