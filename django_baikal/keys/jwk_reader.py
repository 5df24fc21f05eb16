"""Our own keys from JWKs, checked before any library sees them (RFC 7517, 7518, 8037).

PyJWT puts a JWK that it refuses into its message, private members and all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django_baikal.exceptions import InconsistentKey, KeyLoadError, UnsupportedKey
from django_baikal.keys.base import KeyMaterial
from django_baikal.keys.policy import CURVES, check_rsa, material
from django_baikal.protocol.jwk import b64url_decode, b64url_to_uint

_CRT = ("p", "q", "dp", "dq", "qi")
_MEMBERS = ("kty", "crv", "n", "e", "d", *_CRT, "x", "y")
_CURVES = {crv: name for name, crv in CURVES.items()}


def key_of_jwk(jwk: Mapping[str, Any], *, kid: str | None, alg: str | None) -> KeyMaterial:
    """Read a private or public JWK; ``kid`` and ``alg`` are by default its own."""
    operation = "sign" if "d" in jwk else "verify"
    operations = jwk.get("key_ops", [operation])
    if jwk.get("use", "sig") != "sig":
        raise UnsupportedKey("The JWK is not meant for signatures (its use is not 'sig').")
    if not isinstance(operations, list) or operation not in operations:
        raise UnsupportedKey(f"The JWK is not meant to {operation} (see its key_ops).")
    if any(not isinstance(jwk[name], str) for name in _MEMBERS if name in jwk):
        raise InconsistentKey("The JWK has a member that is not a string.")
    key = _key(jwk)
    kid, alg = kid or jwk.get("kid"), alg or jwk.get("alg")
    if not isinstance(kid, str | None) or not isinstance(alg, str | None):
        raise InconsistentKey("The JWK's kid and alg must be strings.")
    return material(key, kid=kid, alg=alg)


def _key(jwk: Mapping[str, Any]) -> Any:
    readers = {"RSA": _rsa, "EC": _ec, "OKP": _okp}
    kty = jwk.get("kty")
    if kty == "oct":
        raise UnsupportedKey("The JWK is a shared secret ('oct'), which proves nothing to others.")
    if kty not in readers:
        raise UnsupportedKey("The JWK's kty is none of 'RSA', 'EC' and 'OKP'.")
    try:
        return readers[kty](jwk)
    except KeyLoadError:
        raise
    except Exception:  # noqa: BLE001 - of many kinds, and some have the key in their text
        raise InconsistentKey("The JWK's members are damaged, or do not belong together.") from None


def _exact(jwk: Mapping[str, Any], name: str, length: int) -> bytes:
    data = b64url_decode(jwk[name])
    if len(data) != length:
        raise InconsistentKey(f"The JWK's {name} must have {length} bytes on this curve.")
    return data


def _rsa(jwk: Mapping[str, Any]) -> Any:
    from cryptography.hazmat.primitives.asymmetric import rsa

    n, e = b64url_to_uint(jwk["n"]), b64url_to_uint(jwk["e"])
    check_rsa(n, e)
    public = rsa.RSAPublicNumbers(e, n)
    if "d" not in jwk:
        return public.public_key()
    if "oth" in jwk or 0 < sum(name in jwk for name in _CRT) < len(_CRT):
        raise UnsupportedKey("The JWK must have all of p, q, dp, dq and qi, or none, and no oth.")
    if (d := b64url_to_uint(jwk["d"])) >= n:
        raise InconsistentKey("The JWK's d is larger than its n.")
    if "p" in jwk:
        p, q, dp, dq, qi = (b64url_to_uint(jwk[name]) for name in _CRT)
    else:
        p, q = rsa.rsa_recover_prime_factors(n, e, d)
        dp, dq, qi = d % (p - 1), d % (q - 1), pow(q, -1, p)
    return rsa.RSAPrivateNumbers(p, q, d, dp, dq, qi, public).private_key()


def _ec(jwk: Mapping[str, Any]) -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    if jwk.get("crv") not in _CURVES:
        raise UnsupportedKey("The JWK's curve is none of P-256, P-384 and P-521.")
    curve: ec.EllipticCurve = getattr(ec, _CURVES[jwk["crv"]].upper())()
    length = (curve.key_size + 7) // 8
    x, y = (int.from_bytes(_exact(jwk, name, length), "big") for name in ("x", "y"))
    public = ec.EllipticCurvePublicNumbers(x, y, curve)
    if "d" not in jwk:
        return public.public_key()
    key = ec.derive_private_key(int.from_bytes(_exact(jwk, "d", length), "big"), curve)
    if key.public_key().public_numbers() != public:
        raise InconsistentKey("The JWK's x and y do not belong to its d.")
    return key


def _okp(jwk: Mapping[str, Any]) -> Any:
    from cryptography.hazmat.primitives.asymmetric import ed25519

    if jwk.get("crv") != "Ed25519":
        raise UnsupportedKey("The JWK's curve is not Ed25519, the one of kty 'OKP' that is used.")
    x = _exact(jwk, "x", 32)
    if "d" not in jwk:
        return ed25519.Ed25519PublicKey.from_public_bytes(x)
    key = ed25519.Ed25519PrivateKey.from_private_bytes(_exact(jwk, "d", 32))
    if key.public_key().public_bytes_raw() != x:
        raise InconsistentKey("The JWK's x does not belong to its d.")
    return key
