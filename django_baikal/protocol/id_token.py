"""The claims of an id token (OpenID Connect Core 1.0 section 3.1.3.7)."""

from __future__ import annotations

import hmac
from typing import Any

from django_baikal.exceptions import ExpiredToken, TokenError, WrongAudience
from django_baikal.protocol import jws
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.strict_json import is_number


def check_id_token(
    id_token: str, config: ClientConfig, *, wall: float, nonce: str | None
) -> dict[str, Any]:
    """Check the claims of an id token that came straight from the token endpoint, and give them.

    There the connection vouches for who sent it (point 6 of the section); so this is for that
    place only: no signature is looked at. Raises a TokenError.
    """
    claims = jws.decode(id_token).claims
    if claims.get("iss") != config.expected_issuer:
        raise TokenError("The id token is from another issuer.")
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or config.client_id not in audiences:
        raise WrongAudience("The id token is for another client.")
    party = claims.get("azp")
    if party != config.client_id and (party is not None or len(audiences) > 1):
        raise WrongAudience("The id token was issued to another client.")
    if not isinstance(claims.get("sub"), str) or not claims["sub"]:
        raise TokenError("The id token names no subject.")
    if not is_number(claims.get("exp")) or not is_number(claims.get("iat")):
        raise TokenError("The id token does not say when it was made and when it ends.")
    if claims["exp"] <= wall - config.clock_skew or claims["iat"] > wall + config.clock_skew:
        raise ExpiredToken("The id token is expired, or from the future.")
    if nonce is not None:
        given = claims.get("nonce")
        # "surrogatepass": JSON may hold half a surrogate pair, and it only has to be unequal.
        if not isinstance(given, str) or not hmac.compare_digest(
            given.encode("utf-8", "surrogatepass"), nonce.encode("utf-8", "surrogatepass")
        ):
            raise TokenError("The id token's nonce is not the one of this login.")
    return claims
