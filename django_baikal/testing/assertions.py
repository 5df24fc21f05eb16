"""Signed assertions: users' ones (RFC 7523 section 3) and clients' ones (private_key_jwt)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django_baikal.exceptions import InvalidSignature
from django_baikal.protocol import jws
from django_baikal.protocol.jwk import ALGORITHMS
from django_baikal.protocol.strict_json import is_number
from django_baikal.testing.issuers import Unacceptable, client_keys, is_url, issuer_keys
from django_baikal.testing.state import LEEWAY, MAX_ASSERTION_LIFETIME, Client, State

_CLIENT_CLAIMS = frozenset(("iss", "aud", "exp", "iat", "nbf", "sub", "jti"))


def user_assertion(state: State, assertion: str, client: Client) -> dict[str, Any]:
    """Give the claims of an assertion about a user, or raise Unacceptable saying what is wrong.

    It is signed by ``client``, when its ``iss`` is the client's id, or else by the issuer whose
    metadata ``iss`` leads to.
    """
    header, claims = _decode(assertion)
    kid = _header_kid(state, header)
    iss = claims.get("iss")
    if iss == client.client_id:
        keys = client_keys(state, client, kid)
    elif isinstance(iss, str) and is_url(iss):
        keys = issuer_keys(state, iss, kid)
    else:
        raise Unacceptable("its iss is neither the client's id nor the URL of an issuer")
    _verify(assertion, keys, kid)
    _check_claims(state, claims)
    _use_jti(state, claims)
    return claims


def client_assertion(state: State, assertion: str, client: Client) -> None:
    """Accept an assertion by which ``client`` authenticates, or raise Unacceptable."""
    header, claims = _decode(assertion)
    kid = _header_kid(state, header)
    _verify(assertion, client_keys(state, client, kid), kid)
    if claims.get("iss") != client.client_id or claims.get("sub") != client.client_id:
        raise Unacceptable("its iss and sub must both be the client's id")
    if extra := sorted(claims.keys() - _CLIENT_CLAIMS):
        raise Unacceptable(f"it has claims that are not allowed: {', '.join(extra)[:100]}")
    _check_claims(state, claims)
    _use_jti(state, claims)


def unverified_issuer(assertion: str) -> str | None:
    """Give the ``iss`` that an assertion claims, believing nothing, or None."""
    try:
        iss = jws.decode(assertion).claims.get("iss")
    except InvalidSignature:
        return None
    return iss if isinstance(iss, str) else None


def _decode(assertion: str) -> jws.Verified:
    try:
        return jws.decode(assertion)
    except InvalidSignature as error:
        raise Unacceptable(f"it cannot be read: {error}") from None


def _header_kid(state: State, header: dict[str, Any]) -> str | None:
    alg = header.get("alg")
    if not isinstance(alg, str) or alg not in ALGORITHMS:
        raise Unacceptable(
            f"its alg {str(alg)[:20]!r} is not accepted; use one of {', '.join(ALGORITHMS)}"
        )
    kid = header.get("kid")
    if kid is None and state.rules.lenient:
        return None
    if kid is None:
        raise Unacceptable("its header has no kid; it must name the key that signed")
    if not isinstance(kid, str) or not kid:
        raise Unacceptable("its kid is not a string")
    return kid


def _verify(assertion: str, keys: Sequence[dict[str, Any]], kid: str | None) -> None:
    if kid is not None:
        if all(jwk.get("kid") != kid for jwk in keys):
            published = ", ".join(str(jwk.get("kid"))[:60] for jwk in keys[:10]) or "none"
            raise Unacceptable(f"its kid {kid[:60]!r} is not published (published: {published})")
        try:
            jws.verify(assertion, keys, algorithms=ALGORITHMS)
        except InvalidSignature as error:
            raise Unacceptable(f"it does not verify: {str(error).rstrip('.')}") from None
        return
    # Only lenient servers get here: without a kid each key is tried.
    for jwk in keys:
        try:
            jws.verify(assertion, [jwk], algorithms=ALGORITHMS)
        except InvalidSignature:
            continue
        return
    raise Unacceptable("it has no kid, and no published key verifies it")


def _check_claims(state: State, claims: dict[str, Any]) -> None:
    now = state.now()
    audiences = (state.issuer, state.url("token"))
    if not isinstance(claims.get("aud"), str):
        raise Unacceptable("its aud must be one string")
    if claims["aud"] not in audiences:
        raise Unacceptable(f"its aud must be {audiences[0]} or {audiences[1]}")
    for name in ("exp", "iat", "nbf"):
        if (name in claims or name == "exp") and not is_number(claims.get(name)):
            raise Unacceptable(f"its {name} must be there, and a number")
    if claims["exp"] <= now - LEEWAY:
        raise Unacceptable(f"it expired {now - claims['exp']:.0f} s ago")
    if claims.get("iat", now) > now + LEEWAY:
        raise Unacceptable(f"its iat is {claims['iat'] - now:.0f} s in the future")
    if claims.get("nbf", now) > now + LEEWAY:
        raise Unacceptable(f"its nbf is {claims['nbf'] - now:.0f} s in the future")
    if claims["exp"] - claims.get("iat", now) > MAX_ASSERTION_LIFETIME:
        raise Unacceptable(f"it is good for more than {MAX_ASSERTION_LIFETIME} s")
    if not isinstance(claims.get("sub"), str) or not claims["sub"]:
        raise Unacceptable("it has no sub")


def _use_jti(state: State, claims: dict[str, Any]) -> None:
    jti = claims.get("jti")
    if jti is None and state.rules.lenient:
        return
    if not isinstance(jti, str) or not jti:
        raise Unacceptable("it has no jti; each assertion needs one of its own")
    if not state.use_jti(claims["iss"], jti):
        raise Unacceptable("its jti was used before, within 7 days")
