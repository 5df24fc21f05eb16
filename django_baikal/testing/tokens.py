"""The tokens of the fake authserver: issued, looked up, introspected and revoked."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import Any

from django_baikal.protocol.jwk import b64url_encode
from django_baikal.testing.state import Code, Issued, State, TokenFormat

#: What of an introspection answer is no claim of a JWT access token.
_NOT_IN_JWT = ("token_type", "username")


def issue_access(
    state: State,
    client_id: str,
    *,
    scope: str = "",
    claims: Mapping[str, Any] | None = None,
    lifetime: float | None = None,
    family: str | None = None,
    token_format: TokenFormat | None = None,
) -> str:
    """Issue an access token; a claim that is None is left out of the standard ones."""
    full, expires_at = _claims(
        state,
        client_id,
        scope,
        claims or {},
        state.rules.access_token_lifetime if lifetime is None else lifetime,
    )
    token = secrets.token_urlsafe(32)
    if (token_format or state.rules.token_format) == "jwt":
        payload = {"sub": client_id, "jti": secrets.token_urlsafe(16), **full}
        payload = {name: value for name, value in payload.items() if name not in _NOT_IN_JWT}
        token = state.own_keys()[0].sign(payload, typ="at+jwt")
    _keep(state, token, Issued(client_id, "access", family or token, scope, full, expires_at))
    return token


def issue_refresh(
    state: State, client_id: str, *, scope: str, claims: Mapping[str, Any], family: str
) -> str:
    """Issue a refresh token, always opaque."""
    lifetime = state.rules.refresh_token_lifetime
    full, expires_at = _claims(state, client_id, scope, claims, lifetime)
    token = secrets.token_urlsafe(32)
    _keep(state, token, Issued(client_id, "refresh", family, scope, full, expires_at))
    return token


def _claims(
    state: State, client_id: str, scope: str, claims: Mapping[str, Any], lifetime: float
) -> tuple[dict[str, Any], float]:
    now = state.now()
    full: dict[str, Any] = {
        "iss": state.issuer,
        "client_id": client_id,
        "token_type": "Bearer",
        "aud": [client_id],
        "iat": int(now),
        "exp": int(now + lifetime),
        "scope": scope or None,
        **claims,
    }
    if full.get("sub") is not None:
        full.setdefault("username", full["sub"])
    end = claims.get("exp")
    expires_at = float(end) if isinstance(end, int | float) else now + lifetime
    return {name: value for name, value in full.items() if value is not None}, expires_at


def _keep(state: State, token: str, issued: Issued) -> None:
    with state.lock:
        state.forget_expired()
        state.tokens[token] = issued


def find(state: State, token: str) -> Issued | None:
    """Give what was issued under ``token`` if it is still good."""
    with state.lock:
        issued = state.tokens.get(token)
    if issued is None or issued.revoked or issued.expires_at <= state.now():
        return None
    return issued


def revoke(state: State, token: str) -> None:
    """Revoke a token, and with a refresh token everything from the same grant (RFC 7009 2.1)."""
    with state.lock:
        issued = state.tokens.get(token)
        if issued is None:
            return
        issued.revoked = True
        if issued.kind == "refresh":
            revoke_family(state, issued.family)


def revoke_family(state: State, family: str) -> None:
    """Revoke everything that came from one grant."""
    with state.lock:
        for issued in state.tokens.values():
            if issued.family == family:
                issued.revoked = True


def id_token(state: State, code: Code, access_token: str) -> str:
    """Sign an id token for a code (OpenID Connect Core sections 2 and 3.1.3.6)."""
    now = int(state.now())
    half = hashlib.sha256(access_token.encode()).digest()[:16]
    claims = {
        "iss": state.issuer,
        "sub": code.claims["sub"],
        "aud": code.client_id,
        "exp": now + int(state.rules.access_token_lifetime),
        "iat": now,
        "auth_time": code.auth_time,
        "at_hash": b64url_encode(half),
        "nonce": code.nonce,
        "acr": code.claims.get("acr"),
    }
    present = {name: value for name, value in claims.items() if value is not None}
    return state.own_keys()[0].sign(present)
