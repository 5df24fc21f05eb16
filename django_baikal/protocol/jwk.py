"""JSON Web Keys: public members, thumbprints, and keys to verify with (RFC 7517, 7518, 7638)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from django_baikal.exceptions import InvalidSignature

#: What a public key of each type consists of; nothing else of a JWK's material is ever published.
PUBLIC_MEMBERS = {"RSA": ("e", "n"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}

#: Smaller moduli can be factored; larger ones cost an attacker nothing and the verifier a lot.
RSA_BITS = (2048, 8192)

_B64URL = re.compile(r"[A-Za-z0-9_-]*")


class Algorithm(NamedTuple):
    """What a JWS algorithm demands of its key: ``kty``, and ``crv`` where there is one."""

    kty: str
    crv: str | None = None


#: The asymmetric algorithms of RFC 7518 section 3.1 and RFC 8037; there is no other here.
ALGORITHMS = {
    **{f"{family}{size}": Algorithm("RSA") for family in ("RS", "PS") for size in (256, 384, 512)},
    "ES256": Algorithm("EC", "P-256"),
    "ES384": Algorithm("EC", "P-384"),
    "ES512": Algorithm("EC", "P-521"),
    "EdDSA": Algorithm("OKP", "Ed25519"),
}


def b64url_encode(data: bytes) -> str:
    """Encode as base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def b64url_decode(text: str) -> bytes:
    """Decode base64url strictly: no padding, no other character, no stray bits; or ValueError."""
    if not _B64URL.fullmatch(text):
        raise ValueError("not base64url")
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        raise ValueError("not base64url") from None
    if b64url_encode(data) != text:
        raise ValueError("not canonical base64url")
    return data


def b64url_uint(number: int, length: int | None = None) -> str:
    """Encode a number as Base64urlUInt (RFC 7518 section 2), in ``length`` bytes if given."""
    return b64url_encode(number.to_bytes(length or (number.bit_length() + 7) // 8 or 1, "big"))


def public_jwk(jwk: Mapping[str, Any]) -> dict[str, Any]:
    """Give ``jwk`` reduced to what may be published: allow-listed members only."""
    allowed = ("kty", "kid", "use", "alg", *PUBLIC_MEMBERS[jwk["kty"]])
    return {name: jwk[name] for name in allowed if name in jwk}


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """Give the SHA-256 thumbprint of a key, 43 characters (RFC 7638)."""
    members = {name: jwk[name] for name in ("kty", *PUBLIC_MEMBERS[jwk["kty"]])}
    canonical = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return b64url_encode(hashlib.sha256(canonical.encode()).digest())


def verification_key(jwk: Mapping[str, Any], alg: str) -> Any:
    """Make the public key that verifies ``alg``, or raise InvalidSignature with the reason.

    The key's type, curve, ``alg``, ``use`` and size must all fit (RFC 8725 sections 3.1 and 3.2).
    """
    wanted = ALGORITHMS[alg]
    if jwk.get("kty") != wanted.kty or (wanted.crv and jwk.get("crv") != wanted.crv):
        raise InvalidSignature(f"The key is not of the type that {alg} needs.")
    if jwk.get("alg", alg) != alg or jwk.get("use", "sig") != "sig":
        raise InvalidSignature(f"The key is not meant for signatures with {alg}.")
    members = public_jwk(jwk)
    if not all(isinstance(value, str) for value in members.values()):
        raise InvalidSignature("The key has a member that is not a string.")
    try:
        if wanted.kty == "RSA":
            modulus = int.from_bytes(b64url_decode(members["n"]), "big")
            exponent = int.from_bytes(b64url_decode(members["e"]), "big")
            if not RSA_BITS[0] <= modulus.bit_length() <= RSA_BITS[1] or modulus % 2 == 0:
                raise InvalidSignature(f"An RSA key must have {RSA_BITS[0]} to {RSA_BITS[1]} bits.")
            if exponent < 65537 or exponent % 2 == 0 or exponent.bit_length() > 64:
                raise InvalidSignature("The RSA key's exponent is not acceptable.")
        from jwt.api_jwk import PyJWK

        return PyJWK(members, algorithm=alg).key
    except InvalidSignature:
        raise
    except Exception:  # noqa: BLE001 - of many kinds, and some have the key in their text
        raise InvalidSignature("The key is not well formed.") from None
