"""Keys at rest: private halves encrypted, rows sealed, under key-encryption keys that have names.

An envelope is AES-256-GCM, bound to the ring, kid and alg of its row. A seal is an HMAC-SHA256 of
everything in the row that decides what is published and trusted. Both begin with a version byte
and the name of their key-encryption key, so that a missing one is named and not guessed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from django.views.decorators.debug import sensitive_variables

from django_baikal.exceptions import ConfigurationError, EncryptionKeyMissing, Tampered

VERSION = b"\x01"
_NAME, _NONCE = 4, 12


class EncryptionKey:
    """One key-encryption key; ``name`` is 8 hex digits that say nothing about it."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.id = hashlib.sha256(self._derive("id")).digest()[:_NAME]
        self.name = self.id.hex()
        self._sealing = self._derive("seal")

    def __repr__(self) -> str:
        return f"<EncryptionKey {self.name}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A key is not pickled: it must not leave this process.")

    def _derive(self, purpose: str) -> bytes:
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        info = f"django-baikal/keys/{purpose}".encode()
        return bytes(HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(self._secret))

    @property
    def cipher(self) -> Any:
        """AES-256-GCM under this key."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self._derive("private"))

    def mac(self, data: bytes) -> bytes:
        """Authenticate ``data``."""
        return hmac.digest(self._sealing, VERSION + self.id + data, "sha256")


class EncryptionKeys:
    """The key-encryption keys of a store: the first encrypts and seals, all open."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._keys = [EncryptionKey(secret) for secret in secrets]
        self._by_id = {key.id: key for key in reversed(self._keys)}

    @property
    def current(self) -> EncryptionKey:
        """The one that encrypts."""
        return self._keys[0]

    def _of(self, kept: bytes, what: str) -> EncryptionKey:
        if kept[:1] != VERSION:
            raise Tampered(f"{what} is of a version that is not known here.")
        found = self._by_id.get(kept[1 : 1 + _NAME])
        if found is None:
            raise EncryptionKeyMissing(
                f"{what} needs the key-encryption key {kept[1 : 1 + _NAME].hex()}, which is not "
                f"set (set are {', '.join(key.name for key in self._keys)})."
            )
        return found

    def encrypt(self, data: bytes, *, ring: str, kid: str, alg: str) -> bytes:
        """Make the envelope of a private key."""
        nonce = os.urandom(_NONCE)
        sealed = self.current.cipher.encrypt(nonce, data, _binding(ring, kid, alg))
        return bytes(VERSION + self.current.id + nonce + sealed)

    def decrypt(self, envelope: bytes, *, ring: str, kid: str, alg: str) -> bytes:
        """Open an envelope; raise Tampered if it is not this row's, or EncryptionKeyMissing."""
        from cryptography.exceptions import InvalidTag

        key = self._of(envelope, f"The private half of key {kid!r}")
        body = envelope[1 + _NAME :]
        try:
            return bytes(key.cipher.decrypt(body[:_NONCE], body[_NONCE:], _binding(ring, kid, alg)))
        except (InvalidTag, ValueError):
            raise Tampered(f"The private half of key {kid!r} was tampered with.") from None

    def seal(self, row: Mapping[str, Any]) -> bytes:
        """Seal what a row says."""
        return VERSION + self.current.id + self.current.mac(_canonical(row))

    def check(self, seal: bytes, row: Mapping[str, Any]) -> None:
        """Raise Tampered if ``row`` is not what was sealed, or EncryptionKeyMissing."""
        key = self._of(seal, f"The row of key {row['kid']!r}")
        if not hmac.compare_digest(key.mac(_canonical(row)), seal[1 + _NAME :]):
            raise Tampered(f"The row of key {row['kid']!r} was tampered with.")

    def name_of(self, kept: bytes) -> str:
        """Give the name of the key-encryption key that ``kept`` needs."""
        return kept[1 : 1 + _NAME].hex()


def _binding(ring: str, kid: str, alg: str) -> bytes:
    return _canonical({"purpose": "baikal/v1/private", "ring": ring, "kid": kid, "alg": alg})


def _canonical(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


@sensitive_variables()
def _of_secret_key() -> list[bytes]:
    from django.conf import settings

    named = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return [secret.encode() if isinstance(secret, str) else secret for secret in named]


@sensitive_variables()
def encryption_keys(given: Sequence[str] | None) -> EncryptionKeys:
    """Make the key-encryption keys of ENCRYPTION_KEYS, or else of SECRET_KEY and its fallbacks.

    "SECRET_KEY" in the list stands for those, while keys are put under another one.
    """
    if given is None:
        return EncryptionKeys(_of_secret_key())
    secrets: list[bytes] = []
    try:
        for text in given:
            if text == "SECRET_KEY":
                secrets += _of_secret_key()
            elif len(secret := base64.b64decode(text, validate=True)) == 32:
                secrets.append(secret)
            else:
                raise ValueError
    except (binascii.Error, ValueError, TypeError):
        secrets = []
    if not secrets:
        raise ConfigurationError("ENCRYPTION_KEYS must be a list of 32 bytes each, in base64.")
    return EncryptionKeys(secrets)
