"""Id tokens (OpenID Connect Core 1.0 section 3.1.3.7)."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from django_baikal.exceptions import (
    ConfigurationError,
    InsufficientAuthentication,
    TokenError,
    WrongAudience,
)
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.effects import Flow, Now
from django_baikal.protocol.jwk import b64url_encode
from django_baikal.protocol.jwks import verified_jwt
from django_baikal.protocol.jws import Verified, check_claims
from django_baikal.protocol.messages import text
from django_baikal.protocol.strict_json import is_number


def verify_id_token(
    config: ClientConfig,
    id_token: str,
    nonce: str | None,
    max_age: float | None,
    access_token: str | None = None,
) -> Flow[dict[str, Any]]:
    """Verify an id token and give its claims; raise a TokenError.

    ``max_age``: how long ago the user may have logged in, in seconds. ``access_token``: the one
    that came with it, for ``at_hash``.
    """
    if nonce is not None:
        text(nonce, "nonce")
    if max_age is not None and not (is_number(max_age) and max_age >= 0):
        raise ConfigurationError("max_age must be a number of seconds, 0 or more.")
    if not isinstance(id_token, str):
        raise ConfigurationError("id_token must be a string.")
    verified = yield from verified_jwt(
        config, id_token, announced="id_token_signing_alg_values_supported"
    )
    _check_type(verified)
    claims = verified.claims
    now = yield Now()
    check_claims(
        claims,
        issuer=config.expected_issuer,
        audiences=(config.client_id,),
        wall=now.wall,
        skew=config.clock_skew,
    )
    party = claims.get("azp")
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if party != config.client_id and (party is not None or several):
        raise WrongAudience("The token was issued to another client.")
    if not isinstance(claims.get("sub"), str) or not claims["sub"]:
        raise TokenError("The id token names no subject.")
    if nonce is not None and not _same(claims.get("nonce"), nonce):
        raise TokenError("The id token's nonce is not the one of this login.")
    if access_token is not None and "at_hash" in claims:
        expected = _half_hash(verified.header["alg"], access_token)
        if not _same(claims["at_hash"], expected):
            raise TokenError("The id token belongs to another access token.")
    if max_age is not None:
        _check_login(claims.get("auth_time"), max_age, wall=now.wall, skew=config.clock_skew)
    return claims


def _check_type(verified: Verified) -> None:
    """Refuse a JWT of another kind that the authserver signs with the same keys (RFC 8725 3.11)."""
    header, claims = verified
    typ = header.get("typ", "JWT")
    if not isinstance(typ, str) or typ.lower() not in ("jwt", "application/jwt"):
        raise TokenError("The token's typ is not that of an id token.")
    if "events" in claims:
        # RFC 8417; a logout token has everything else that an id token needs, and often no typ.
        raise TokenError("The token tells of an event, such as a logout, and is no id token.")
    # The platform's access tokens have no typ, and the audience of an id token.
    scoped = "client_id" in claims and ("scope" in claims or "scopes" in claims)
    if scoped and claims.get("nonce") is None and claims.get("at_hash") is None:
        raise TokenError("The token is an access token, and no id token.")


def _check_login(auth_time: object, max_age: float, *, wall: float, skew: float) -> None:
    if not is_number(auth_time):
        raise TokenError("The id token does not say when the user logged in.")
    if auth_time > wall + skew:
        raise TokenError("The id token says that the user logged in in the future.")
    if auth_time < wall - skew - max_age:
        raise InsufficientAuthentication("The user logged in too long ago.")


def _same(given: object, expected: str) -> bool:
    # "surrogatepass": JSON may hold half a surrogate pair, and it only has to be unequal.
    return isinstance(given, str) and hmac.compare_digest(
        given.encode("utf-8", "surrogatepass"), expected.encode("utf-8", "surrogatepass")
    )


def _half_hash(alg: str, access_token: str) -> str:
    """Give the ``at_hash`` of an access token (OpenID Connect Core 3.1.3.6)."""
    # EdDSA is Ed25519 here, which hashes with SHA-512 (RFC 8032).
    digest = hashlib.new(f"sha{alg[2:] if alg[2:].isdigit() else 512}", access_token.encode())
    return b64url_encode(digest.digest()[: digest.digest_size // 2])
