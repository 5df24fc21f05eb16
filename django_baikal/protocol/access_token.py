"""Bearer tokens that are JWTs: checked by signature and claims, with no question (RFC 9068)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from django_baikal.exceptions import InvalidSignature, TokenError, WrongAudience
from django_baikal.protocol import jws
from django_baikal.protocol.bearer import check_validity, misshapen
from django_baikal.protocol.breaker import guarded
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.effects import Flow, Instant, Now
from django_baikal.protocol.jwks import at_hand, verified_jwt

#: What an introspection says of scopes replaces what the token says, under whichever name.
_SCOPES = ("scope", "scopes")


def verify_access_token(config: ClientConfig, token: str) -> Flow[dict[str, Any]]:
    """Verify a JWT access token and give its claims (RFC 9068 section 4, RFC 8725).

    The claims are looked at first, so that nothing is fetched for a token that is not for us.
    ALLOWED_CLIENTS and REQUIRED_CLAIMS are not looked at. Raises a TokenError, or AuthserverError
    if the authserver's keys cannot be had.
    """
    decoded = jws.decode(token)
    _check_type(config, decoded)
    now: Instant = yield Now()
    claims = _check_claims(config, decoded.claims, now)
    verifying = verified_jwt(config, token, allowed=config.jwt_algorithms, decoded=decoded)
    if (yield from at_hand(config)):
        yield from verifying
    else:
        yield from guarded(config, verifying)
    return claims


def _check_type(config: ClientConfig, decoded: jws.Verified) -> None:
    """Refuse a JWT of another kind that is signed with the same keys (RFC 8725 section 3.11)."""
    typ = decoded.header.get("typ")
    if typ is not None and not isinstance(typ, str):
        raise InvalidSignature("The JWT's typ is not a string.")
    # RFC 7515 section 4.1.9: the "application/" may be left out, and case says nothing.
    short = None if typ is None else typ.lower().removeprefix("application/")
    if short not in [name and name.lower() for name in config.jwt_types]:
        raise TokenError("The JWT is not an access token.", code="not_an_access_token")
    claims = decoded.claims
    if short != "at+jwt" and (
        # An id token has the same audience, and others (of a logout, say) have no typ either.
        any(name in claims for name in ("nonce", "at_hash", "events"))
        or "client_id" not in claims
        or not any(name in claims for name in _SCOPES)
    ):
        raise TokenError("The JWT is not an access token.", code="not_an_access_token")


def _check_claims(config: ClientConfig, given: Mapping[str, Any], now: Instant) -> dict[str, Any]:
    claims = {"active": True, **given}
    if (wrong := misshapen(claims)) is not None:
        raise TokenError(f"The JWT's {wrong} is not what it should be.", code="malformed_token")
    if claims.get("iss") is None or claims.get("exp") is None:
        raise TokenError(
            "The JWT does not say who made it, or when it ends.", code="malformed_token"
        )
    if not claims.get("aud"):
        raise WrongAudience("The JWT does not say whom it is for.")
    return check_validity(config, claims, now.wall)


def both_say(claims: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    """Give what a JWT and an introspection say of it together; the introspection's word is last.

    Raises TokenError if they speak of different tokens.
    """
    said = {name: value for name, value in answer.items() if value is not None}
    if claims and said["active"]:
        for name in ("iss", "sub", "client_id"):
            if name in claims and said.get(name, claims[name]) != claims[name]:
                raise TokenError(
                    f"The authserver says another {name} of the token than the token itself.",
                    code="wrong_claim",
                )
        if any(name in said for name in _SCOPES):
            claims = {name: value for name, value in claims.items() if name not in _SCOPES}
    return {**claims, **said}


def claimed_issuer(token: str) -> str | None:
    """Give the ``iss`` of what may be a JWT, which nobody has verified; None without one."""
    with suppress(InvalidSignature):
        issuer = jws.decode(token).claims.get("iss")
        return issuer if isinstance(issuer, str) else None
    return None
