"""Tokens and signing keys for the 4th Platform, Open Gateway and any OAuth 2.0 authserver.

``clients`` holds the project's clients by alias; ``OpenIDClient`` makes one by hand. Importing
this package reads no setting, opens no socket and loads no HTTP or cryptography library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django_baikal.exceptions import (
    AuthserverError,
    AuthserverUnavailable,
    BaikalError,
    ConfigurationError,
    EncryptionKeyMissing,
    ExpiredToken,
    InactiveToken,
    InconsistentKey,
    InsufficientAuthentication,
    InsufficientScope,
    InvalidRequest,
    InvalidResponse,
    InvalidSignature,
    KeyLoadError,
    KeyStoreError,
    LostRace,
    NotPrivate,
    NoUsableSigningKey,
    OAuthError,
    PassphraseRequired,
    Refused,
    StoreUnavailable,
    Tampered,
    TokenError,
    UnknownFormat,
    UnsupportedKey,
    WeakKey,
    WrongAudience,
    WrongPassphrase,
)

if TYPE_CHECKING:
    from django_baikal.client import OpenIDClient
    from django_baikal.handler import clients

__version__ = "0.1.0"

__all__ = [
    "AuthserverError",
    "AuthserverUnavailable",
    "BaikalError",
    "ConfigurationError",
    "EncryptionKeyMissing",
    "ExpiredToken",
    "InactiveToken",
    "InconsistentKey",
    "InsufficientAuthentication",
    "InsufficientScope",
    "InvalidRequest",
    "InvalidResponse",
    "InvalidSignature",
    "KeyLoadError",
    "KeyStoreError",
    "LostRace",
    "NoUsableSigningKey",
    "NotPrivate",
    "OAuthError",
    "OpenIDClient",
    "PassphraseRequired",
    "Refused",
    "StoreUnavailable",
    "Tampered",
    "TokenError",
    "UnknownFormat",
    "UnsupportedKey",
    "WeakKey",
    "WrongAudience",
    "WrongPassphrase",
    "clients",
]

_LAZY = {"OpenIDClient": "django_baikal.client", "clients": "django_baikal.handler"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
