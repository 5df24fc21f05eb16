"""Signed JWTs: make one, and verify one without believing its header (RFC 7515, 7519, 8725)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from django_baikal.exceptions import InvalidSignature
from django_baikal.protocol.jwk import ALGORITHMS, b64url_decode, verification_key
from django_baikal.protocol.strict_json import loads_object

MAX_LENGTH = 16384


class Verified(NamedTuple):
    """A JWT whose signature is good; its claims are not checked yet."""

    header: dict[str, Any]
    claims: dict[str, Any]


def sign(claims: Mapping[str, Any], key: Any, *, alg: str, kid: str, typ: str = "JWT") -> str:
    """Make a compact JWS of ``claims``, with ``alg``, ``typ`` and ``kid`` in its header."""
    from jwt import PyJWT

    encoder = PyJWT(options={"enforce_minimum_key_length": True})
    return encoder.encode(dict(claims), key, algorithm=alg, headers={"typ": typ, "kid": kid})


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


def verify(
    token: str, keys: Iterable[Mapping[str, Any]], *, algorithms: Collection[str]
) -> Verified:
    """Verify the signature of ``token`` with one of the JWKs ``keys``.

    The algorithm must be among ``algorithms`` and fit the key; the key is the one the header's
    ``kid`` names, or without ``kid`` the only one that fits. Raises InvalidSignature.
    """
    from jwt import PyJWS

    verified = decode(token)
    header = verified.header
    alg = header.get("alg")
    if not isinstance(alg, str) or alg not in ALGORITHMS or alg not in algorithms:
        raise InvalidSignature("The JWT's algorithm is not acceptable.")
    if "crit" in header or "b64" in header:
        raise InvalidSignature("The JWT demands an extension that is not understood.")
    key = _select(header, alg, keys)
    try:
        PyJWS(options={"enforce_minimum_key_length": True}).decode(token, key, algorithms=[alg])
    except Exception:  # noqa: BLE001 - PyJWT raises many kinds; none of their texts is needed
        raise InvalidSignature("The JWT's signature is wrong.") from None
    return verified


def _select(header: Mapping[str, Any], alg: str, keys: Iterable[Mapping[str, Any]]) -> Any:
    if "kid" in header:
        kid = header["kid"]
        named = [jwk for jwk in keys if jwk.get("kid") == kid]
        if len(named) != 1 or not isinstance(kid, str):
            raise InvalidSignature("The JWT's kid names no key, or more than one.")
        return verification_key(named[0], alg)
    fitting = []
    for jwk in keys:
        try:
            fitting.append(verification_key(jwk, alg))
        except InvalidSignature:
            continue
    if len(fitting) != 1:
        raise InvalidSignature("The JWT has no kid, and not exactly one key fits.")
    return fitting[0]
