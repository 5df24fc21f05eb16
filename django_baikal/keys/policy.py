"""Which keys are used, and for which algorithms."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django_baikal.exceptions import UnsupportedKey, WeakKey
from django_baikal.keys.base import KeyMaterial
from django_baikal.protocol.jwk import (
    ALGORITHMS,
    RSA_BITS,
    b64url_encode,
    b64url_uint,
    ed25519_fault,
    public_jwk,
    rsa_fault,
    thumbprint,
)

#: The curves of JWKs (RFC 7518 section 6.2.1.1) by the names that the library has for them.
CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_KINDS = "RSA, P-256, P-384, P-521 and Ed25519"
_KID = re.compile(r"[A-Za-z0-9._~-]{1,255}")


def check_rsa(n: int, e: int) -> None:
    """Refuse an RSA key that is too weak, or so large that it costs too much to verify with."""
    if fault := rsa_fault(n, e):
        raise UnsupportedKey(fault) if n.bit_length() > RSA_BITS[1] else WeakKey(fault)


def short(text: str) -> str:
    """Quote a name for a message; what is too long for one may be the key, given in its place."""
    return f" {text!r}" if len(text) <= 16 else ""


def material(
    key: Any,
    *,
    kid: str | None = None,
    alg: str | None = None,
    only: Sequence[str] | None = None,
    not_after: datetime | None = None,
) -> KeyMaterial:
    """Wrap a private or public key of the cryptography library, or refuse it with the reason.

    ``kid``: by default the RFC 7638 thumbprint. ``alg``: by default the first that the key is for;
    ``only``: the algorithms that the key restricts itself to.
    """
    private = key if hasattr(key, "public_key") else None
    members = _members(key.public_key() if private else key)
    allowed = [
        name
        for name, needs in ALGORITHMS.items()
        if (needs.kty, needs.crv) == (members["kty"], members.get("crv"))
        and (only is None or name in only)
    ]
    if not allowed:
        raise UnsupportedKey("The RSA-PSS key restricts itself to a hash that is not used here.")
    if alg is not None and alg not in allowed:
        raise UnsupportedKey(
            f"The key cannot be used with alg{short(alg)}; use {', '.join(allowed)}."
        )
    if kid is not None and not _KID.fullmatch(kid):
        raise UnsupportedKey("A kid is 1 to 255 characters out of A-Z a-z 0-9 . _ ~ -")
    kid, alg = kid or thumbprint(members), alg or allowed[0]
    public = public_jwk({**members, "kid": kid, "use": "sig", "alg": alg})
    return KeyMaterial(
        kid=kid, alg=alg, public_jwk=public, private_key=private, not_after=not_after
    )


def _members(key: Any) -> dict[str, str]:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        check_rsa(numbers.n, numbers.e)
        return {"kty": "RSA", "n": b64url_uint(numbers.n), "e": b64url_uint(numbers.e)}
    if isinstance(key, ed25519.Ed25519PublicKey):
        if fault := ed25519_fault(key.public_bytes_raw()):
            raise WeakKey(fault)
        return {"kty": "OKP", "crv": "Ed25519", "x": b64url_encode(key.public_bytes_raw())}
    if not isinstance(key, ec.EllipticCurvePublicKey):
        kind = type(key).__name__.removesuffix("PublicKey")
        agrees = kind in ("X25519", "X448", "DH")
        reason = "for key agreement, not for signatures" if agrees else "not used here"
        raise UnsupportedKey(f"The key is {kind}, which is {reason}; used are {_KINDS}.")
    if key.curve.name not in CURVES:
        raise UnsupportedKey(f"The key is on the curve {key.curve.name}; used are {_KINDS}.")
    point, length = key.public_numbers(), (key.curve.key_size + 7) // 8
    x, y = b64url_uint(point.x, length), b64url_uint(point.y, length)
    return {"kty": "EC", "crv": CURVES[key.curve.name], "x": x, "y": y}
