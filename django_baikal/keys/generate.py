"""New keys."""

from __future__ import annotations

from django_baikal.exceptions import UnsupportedKey
from django_baikal.keys.base import KeyMaterial
from django_baikal.keys.formats import material


def generate_key(alg: str = "RS256", *, bits: int = 2048, kid: str | None = None) -> KeyMaterial:
    """Make a new private key for ``alg`` (RS256, PS256 or ES256), ``bits`` long if it is RSA.

    Raises UnsupportedKey for another algorithm, and WeakKey for an RSA key under 2048 bits.
    """
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    if alg in ("RS256", "PS256"):
        return material(rsa.generate_private_key(65537, bits), kid=kid, alg=alg)
    if alg == "ES256":
        return material(ec.generate_private_key(ec.SECP256R1()), kid=kid, alg=alg)
    raise UnsupportedKey(f"A key for {alg!r} cannot be made; use 'RS256', 'PS256' or 'ES256'.")


def private_pem(key: KeyMaterial) -> str:
    """Give the key as an unencrypted PKCS8 PEM, for a file that only its owner can read."""
    from cryptography.hazmat.primitives import serialization

    pem: bytes = key.private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem.decode("ascii")
