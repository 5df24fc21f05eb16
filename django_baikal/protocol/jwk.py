"""JSON Web Keys: public members, thumbprints, and keys to verify with (RFC 7517, 7518, 7638)."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from django_baikal.exceptions import InvalidSignature

#: What a public key of each type consists of; nothing else of a JWK's material is ever published.
PUBLIC_MEMBERS = {"RSA": ("e", "n"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}

#: Smaller moduli can be factored; larger ones cost an attacker nothing and the verifier a lot.
RSA_BITS = (2048, 8192)

#: The field of Ed25519, and the y of its points that any signature at all can be made for: those
#: whose order divides 8 (https://cr.yp.to/ecdh.html#validate).
_FIELD = 2**255 - 19
_Y8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_LOW_ORDER = (0, 1, _FIELD - 1, _Y8, _FIELD - _Y8)

_B64URL = re.compile(r"[A-Za-z0-9_-]*")
#: By how many there are after the last four: what the last character is if no stray bit is set.
_LAST = {2: "AQgw", 3: "AEIMQUYcgkosw048"}


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
    left = len(text) % 4
    if not _B64URL.fullmatch(text) or left == 1:
        raise ValueError("not base64url")
    if left and text[-1] not in _LAST[left]:
        raise ValueError("not canonical base64url")
    return base64.urlsafe_b64decode(text + "=" * (-left % 4))


def b64url_uint(number: int, length: int | None = None) -> str:
    """Encode a number as Base64urlUInt (RFC 7518 section 2), in ``length`` bytes if given."""
    return b64url_encode(number.to_bytes(length or (number.bit_length() + 7) // 8 or 1, "big"))


def b64url_to_uint(text: str) -> int:
    """Decode a Base64urlUInt; or ValueError."""
    return int.from_bytes(b64url_decode(text), "big")


def public_jwk(jwk: Mapping[str, Any]) -> dict[str, Any]:
    """Give ``jwk`` reduced to what may be published: allow-listed members only."""
    allowed = ("kty", "kid", "use", "alg", *PUBLIC_MEMBERS[jwk["kty"]])
    return {name: jwk[name] for name in allowed if name in jwk}


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """Give the SHA-256 thumbprint of a key, 43 characters (RFC 7638).

    Of a type that is not known here all members count, but for those that every type has.
    """
    others = [name for name in jwk if name not in ("kty", "kid", "use", "alg")]
    members = {name: jwk[name] for name in ("kty", *PUBLIC_MEMBERS.get(jwk["kty"], others))}
    canonical = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return b64url_encode(hashlib.sha256(canonical.encode()).digest())


def rsa_fault(n: int, e: int) -> str | None:
    """Say why no RSA key of these numbers is used, or give None (RFC 7518 section 3.3)."""
    bits = n.bit_length()
    if bits < RSA_BITS[0]:
        return f"The RSA key has {bits} bits; at least {RSA_BITS[0]} are needed."
    if bits > RSA_BITS[1]:
        return f"The RSA key has {bits} bits; at most {RSA_BITS[1]} are read."
    if n % 2 == 0:
        return "The RSA key's modulus is even, and no product of two large primes."
    if e < 65537 or e % 2 == 0 or e.bit_length() > 64:
        return "The RSA key's public exponent must be odd, at least 65537, and of 64 bits at most."
    return None


def ed25519_fault(x: bytes) -> str | None:
    """Say why a public key of Ed25519 is not used, or give None."""
    if int.from_bytes(x, "little") % 2**255 % _FIELD in _LOW_ORDER:
        return "The Ed25519 key is of low order: anybody can sign for it."
    return None


def verification_key(jwk: Mapping[str, Any], alg: str) -> Any:
    """Make the public key that verifies ``alg``, or raise InvalidSignature with the reason.

    The key's type, curve, ``alg``, ``use``, ``key_ops`` and size must all fit (RFC 7517 section 4,
    RFC 8725 sections 3.1 and 3.2).
    """
    wanted = ALGORITHMS[alg]
    if jwk.get("kty") != wanted.kty or (wanted.crv and jwk.get("crv") != wanted.crv):
        raise InvalidSignature(f"The key is not of the type that {alg} needs.")
    if jwk.get("alg", alg) != alg or jwk.get("use", "sig") != "sig":
        raise InvalidSignature(f"The key is not meant for signatures with {alg}.")
    if "key_ops" in jwk and not (isinstance(jwk["key_ops"], list) and "verify" in jwk["key_ops"]):
        raise InvalidSignature("The key is not meant for verifying.")
    members = public_jwk(jwk)
    if not all(isinstance(value, str) for value in members.values()):
        raise InvalidSignature("The key has a member that is not a string.")
    return _parsed(alg, tuple(members.items()))


@lru_cache(maxsize=256)
def _parsed(alg: str, public: tuple[tuple[str, str], ...]) -> Any:
    """Make a public key of its members, once for all tokens that it verifies."""
    wanted, members, fault = ALGORITHMS[alg], dict(public), None
    try:
        if wanted.kty == "RSA":
            fault = rsa_fault(*(b64url_to_uint(members[name]) for name in ("n", "e")))
        elif wanted.kty == "OKP":
            fault = ed25519_fault(b64url_decode(members["x"]))
        if fault is not None:
            raise InvalidSignature(fault)
        from jwt.api_jwk import PyJWK

        return PyJWK(members, algorithm=alg).key
    except InvalidSignature:
        raise
    except Exception:  # noqa: BLE001 - of many kinds, and some have the key in their text
        raise InvalidSignature("The key is not well formed.") from None
