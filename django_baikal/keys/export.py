"""Public keys in the formats that other programs read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django_baikal.protocol.jwk import verification_key


def public_pem(jwk: Mapping[str, Any], alg: str) -> str:
    """Give a public JWK as SPKI in PEM; raise InvalidSignature if it is none for ``alg``."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    spki = PublicFormat.SubjectPublicKeyInfo
    pem: bytes = verification_key(jwk, alg).public_bytes(Encoding.PEM, spki)
    return pem.decode("ascii")


def public_der(jwk: Mapping[str, Any], alg: str) -> bytes:
    """Give a public JWK as SPKI in DER; raise InvalidSignature if it is none for ``alg``."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    spki = PublicFormat.SubjectPublicKeyInfo
    return bytes(verification_key(jwk, alg).public_bytes(Encoding.DER, spki))
