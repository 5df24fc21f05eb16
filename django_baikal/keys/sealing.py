"""Sealing of what this project keeps where others may read: AES-256-GCM under ``SECRET_KEY``.

The key of each purpose is derived with HKDF (RFC 5869); ``SECRET_KEY_FALLBACKS`` still open what
they sealed. The name under which a value is kept is bound to it as associated data.
"""

from __future__ import annotations

import hmac
import os
from functools import lru_cache
from typing import Any

from django.conf import settings

_VERSION = b"\x01"
_NONCE = 12


@lru_cache(maxsize=32)
def _derive(secret: bytes, purpose: str) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    info = b"django-baikal/" + purpose.encode()
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret)


@lru_cache(maxsize=32)
def _cipher(secret: bytes, purpose: str) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(_derive(secret, purpose))


def _bytes(secret: str | bytes) -> bytes:
    return secret.encode() if isinstance(secret, str) else secret


def seal(data: bytes, *, purpose: str, name: bytes) -> bytes:
    """Encrypt and authenticate ``data`` for ``purpose``, bound to ``name``."""
    nonce = os.urandom(_NONCE)
    cipher = _cipher(_bytes(settings.SECRET_KEY), purpose)
    return bytes(_VERSION + nonce + cipher.encrypt(nonce, data, name))


def unseal(sealed: object, *, purpose: str, name: bytes) -> bytes | None:
    """Open what ``seal`` made, or give None if it is anything else or was tampered with."""
    from cryptography.exceptions import InvalidTag

    if not isinstance(sealed, bytes) or sealed[:1] != _VERSION or len(sealed) < 1 + _NONCE + 16:
        return None
    for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
        try:
            opened: bytes = _cipher(_bytes(secret), purpose).decrypt(
                sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :], name
            )
        except InvalidTag:
            continue
        return opened
    return None


def digest(data: bytes, *, purpose: str) -> str:
    """Give an HMAC-SHA256 of ``data`` in hex: nobody without ``SECRET_KEY`` can guess from it."""
    key = _derive(_bytes(settings.SECRET_KEY), purpose)
    return hmac.digest(key, data, "sha256").hex()
