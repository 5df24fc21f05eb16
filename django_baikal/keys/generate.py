"""New keys."""

from __future__ import annotations

from django_baikal.exceptions import UnsupportedKey
from django_baikal.keys.base import KeyMaterial
from django_baikal.keys.policy import CURVES, check_rsa, material
from django_baikal.protocol.jwk import ALGORITHMS


def generate_key(alg: str = "RS256", *, bits: int = 2048, kid: str | None = None) -> KeyMaterial:
    """Make a new private key for ``alg``, one of the JWS algorithms that are used here.

    ``bits``: its length, if it is RSA. Raises UnsupportedKey for another algorithm or an RSA key
    over 8192 bits, and WeakKey for one under 2048.
    """
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if alg not in ALGORITHMS:
        raise UnsupportedKey(f"A key for {alg!r} cannot be made; use {', '.join(ALGORITHMS)}.")
    needs = ALGORITHMS[alg]
    if needs.kty == "RSA":
        # Before it is made, which may take hours.
        check_rsa(2**bits - 1, 65537)
        return material(rsa.generate_private_key(65537, bits), kid=kid, alg=alg)
    if needs.kty == "OKP":
        return material(ed25519.Ed25519PrivateKey.generate(), kid=kid, alg=alg)
    name = next(name for name, crv in CURVES.items() if crv == needs.crv)
    return material(ec.generate_private_key(getattr(ec, name.upper())()), kid=kid, alg=alg)


def private_pem(key: KeyMaterial) -> str:
    """Give the key as an unencrypted PKCS8 PEM, for a file that only its owner can read."""
    from cryptography.hazmat.primitives import serialization

    pem: bytes = key.private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem.decode("ascii")
