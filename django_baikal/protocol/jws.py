"""Signed JWTs: make one, and verify one without believing its header (RFC 7515, 7519, 8725)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple

from django_baikal.exceptions import ExpiredToken, InvalidSignature, TokenError, WrongAudience
from django_baikal.protocol.jwk import ALGORITHMS, b64url_decode, verification_key
from django_baikal.protocol.strict_json import is_number, loads_object

MAX_LENGTH = 16384


class Verified(NamedTuple):
    """A JWT whose signature is good; its claims are not checked yet."""

    header: dict[str, Any]
    claims: dict[str, Any]


def sign(claims: Mapping[str, Any], key: Any, *, alg: str, kid: str, typ: str = "JWT") -> str:
    """Make a compact JWS of ``claims``, with ``alg``, ``typ`` and ``kid`` in its header."""
    signed: str = _encoder().encode(
        dict(claims), key, algorithm=alg, headers={"typ": typ, "kid": kid}
    )
    return signed


def decode(token: str) -> Verified:
    """Read header and claims without verifying anything; raise InvalidSignature if malformed."""
    if len(token) > MAX_LENGTH:
        raise InvalidSignature("The JWT is too long.")
    parts = token.split(".", 5)
    if len(parts) != 3:
        raise InvalidSignature("A signed JWT has three parts.")
    try:
        header, claims = (loads_object(b64url_decode(part)) for part in parts[:2])
        b64url_decode(parts[2])
    except ValueError:
        raise InvalidSignature("The JWT is not well formed.") from None
    return Verified(header, claims)


def check_header(header: Mapping[str, Any], algorithms: Collection[str]) -> str:
    """Give a header's ``alg`` if a key could verify the JWT; raise InvalidSignature if none could.

    ``alg`` must be one of ``algorithms``, no extension may be demanded (RFC 7515 section 4.1.11,
    RFC 7797), and ``kid``, where there is one, must be a string.
    """
    alg = header.get("alg")
    if not isinstance(alg, str) or alg not in ALGORITHMS or alg not in algorithms:
        raise InvalidSignature("The JWT's algorithm is not acceptable.")
    if "crit" in header or "b64" in header:
        raise InvalidSignature("The JWT demands an extension that is not understood.")
    if not isinstance(header.get("kid", ""), str):
        raise InvalidSignature("The JWT's kid is not a string.")
    return alg


def verify(
    token: str,
    keys: Iterable[Mapping[str, Any]],
    *,
    algorithms: Collection[str],
    decoded: Verified | None = None,
) -> Verified:
    """Verify the signature of ``token`` with one of the JWKs ``keys``; ``decoded``: if it is so.

    The algorithm must be among ``algorithms`` and fit the key; the key is the only one that fits
    of those that the header's ``kid`` names, or without ``kid`` of all. Raises InvalidSignature.
    """
    verified = decoded or decode(token)
    alg = check_header(verified.header, algorithms)
    key = _select(verified.header, alg, keys)
    signed, _, signature = token.rpartition(".")
    try:
        good = _algorithm(alg).verify(signed.encode("ascii"), key, b64url_decode(signature))
    except Exception:  # noqa: BLE001  # pragma: no cover: an OpenSSL without the algorithm, say
        good = False
    if good is not True:
        raise InvalidSignature("The JWT's signature is wrong.")
    return verified


@cache
def _algorithm(alg: str) -> Any:
    """Give PyJWT's way to verify ``alg``: its decode would take the token apart again."""
    from jwt import PyJWS

    return PyJWS().get_algorithm_by_name(alg)


@cache
def _encoder() -> Any:
    from jwt import PyJWT

    return PyJWT(options={"enforce_minimum_key_length": True})


def check_claims(
    claims: Mapping[str, Any],
    *,
    issuer: str,
    audiences: Collection[str],
    wall: float,
    skew: float,
) -> None:
    """Check who made a JWT, for whom, and when (RFC 7519 section 4.1); raise a TokenError.

    ``iss`` is compared character by character; any of ``audiences`` will do. ``wall`` and ``skew``
    are seconds.
    """
    if claims.get("iss") != issuer:
        raise TokenError("The token is from another issuer.")
    aud = claims.get("aud")
    found = aud if isinstance(aud, list) else [aud]
    if not all(isinstance(name, str) for name in found) or {*found}.isdisjoint(audiences):
        raise WrongAudience("The token is for somebody else.")
    times = [claims.get("exp"), claims.get("iat"), claims.get("nbf", 0)]
    if not all(map(is_number, times)):
        raise TokenError("The token does not say when it was made and when it ends.")
    end, *begins = times
    if end <= wall - skew or max(begins) > wall + skew:
        raise ExpiredToken("The token is expired, or from the future.")


def _select(header: Mapping[str, Any], alg: str, keys: Iterable[Mapping[str, Any]]) -> Any:
    wrong = "The JWT has no kid, and not exactly one key fits."
    if "kid" in header:
        keys = [jwk for jwk in keys if jwk.get("kid") == header["kid"]]
        if len(keys) == 1:
            return verification_key(keys[0], alg)
        wrong = "The JWT's kid names no key, or more than one."
    fitting = []
    for jwk in keys:  # keys of one name are, for instance, one to sign and one to encrypt
        with suppress(InvalidSignature):
            fitting.append(verification_key(jwk, alg))
    if len(fitting) != 1:
        raise InvalidSignature(wrong)
    return fitting[0]
