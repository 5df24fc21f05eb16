"""The errors of django-baikal: no other exception crosses its public API.

::

    BaikalError                                 .code
    ├── ConfigurationError                      you erred (also an ImproperlyConfigured)
    ├── AuthserverError                         the authserver erred
    │   │                                       .status .error .description .retry_after .retryable
    │   ├── AuthserverUnavailable               no usable answer: refused, timeout, 429, 5xx
    │   ├── InvalidResponse                     an answer that breaks the protocol
    │   └── OAuthError                          it said no (RFC 6749 section 5.2)
    ├── TokenError                              the bearer erred (401)
    │   ├── InactiveToken  ExpiredToken  InvalidSignature  WrongAudience
    │   ├── InsufficientAuthentication          (401, RFC 9470) .acr_values
    │   ├── InsufficientScope                   (403) .scopes .purposes
    │   └── InvalidRequest                      (400)
    └── KeyStoreError                           our own keys
        ├── NoUsableSigningKey  StoreUnavailable
        ├── EncryptionKeyMissing  Tampered      what the database keeps cannot be used
        ├── Refused  LostRace                   a change was not made
        └── KeyLoadError                        .path .format
            └── UnknownFormat  PassphraseRequired  WrongPassphrase
                UnsupportedKey  WeakKey  InconsistentKey  NotPrivate

Messages hold no secret, token, assertion, key bytes or phone number. Every error can be copied
and pickled, so that it survives a task queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from django.core.exceptions import ImproperlyConfigured


class BaikalError(Exception):
    """Base of every error that django-baikal raises; ``code`` is stable and documented."""

    code: str = "error"

    def __init__(self, message: str = "", *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class ConfigurationError(BaikalError, ImproperlyConfigured):
    """A setting or an argument is missing or wrong: the project has to change something."""

    code = "configuration"


class AuthserverError(BaikalError):
    """The authserver gave no answer, a wrong one, or said no.

    ``status``: HTTP status, or None without an answer. ``error`` and ``description``: the
    authserver's own words, from ``{error, error_description}`` (RFC 6749 section 5.2) or from
    Open Gateway's ``{code, message}``, with credentials and phone numbers masked.
    ``retry_after``: seconds, when it said so (RFC 9110 section 10.2.3). ``retryable``: whether
    the same call may succeed later with nothing changed.
    """

    code = "authserver"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        status: int | None = None,
        error: str | None = None,
        description: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.status = status
        self.error = error
        self.description = description
        self.retry_after = retry_after


class AuthserverUnavailable(AuthserverError):
    """No usable answer: refused, reset, timed out, TLS failed, or the status was 429 or 5xx."""

    code = "authserver_unavailable"
    retryable = True


class InvalidResponse(AuthserverError):
    """An answer that breaks the protocol, and is therefore not used in any part."""

    code = "invalid_response"


class OAuthError(AuthserverError):
    """The authserver understood and said no (RFC 6749 section 5.2); see ``error``."""

    code = "oauth_error"


class TokenError(BaikalError):
    """The token that somebody presented is not good: HTTP 401."""

    code = "invalid_token"


class InactiveToken(TokenError):
    """The authserver says that the token is not active (RFC 7662 section 2.2)."""

    code = "inactive_token"


class ExpiredToken(TokenError):
    """The token's time is over, or has not come yet."""

    code = "expired_token"


class InvalidSignature(TokenError):
    """The signature, its algorithm or its key is not acceptable (RFC 8725)."""

    code = "invalid_signature"


class WrongAudience(TokenError):
    """The token was made for somebody else."""

    code = "wrong_audience"


class InsufficientAuthentication(TokenError):
    """The user has to authenticate more strongly: HTTP 401 (RFC 9470).

    ``acr_values``: what would do, where that is known.
    """

    code = "insufficient_user_authentication"

    def __init__(
        self, message: str = "", *, code: str | None = None, acr_values: Sequence[str] = ()
    ) -> None:
        super().__init__(message, code=code)
        self.acr_values = tuple(acr_values)


class InsufficientScope(TokenError):
    """The token is good but does not reach this far: HTTP 403 (RFC 6750 section 3.1).

    ``scopes`` and ``purposes``: all that it needs.
    """

    code = "insufficient_scope"

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        scopes: Sequence[str] = (),
        purposes: Sequence[str] = (),
    ) -> None:
        super().__init__(message, code=code)
        self.scopes = tuple(scopes)
        self.purposes = tuple(purposes)


class InvalidRequest(TokenError):
    """The request carries its credentials in a way that is not allowed: HTTP 400."""

    code = "invalid_request"


class KeyStoreError(BaikalError):
    """Something is wrong with our own keys."""

    code = "key_store"


class NoUsableSigningKey(KeyStoreError):
    """There is no key that may sign now."""

    code = "no_usable_signing_key"


class StoreUnavailable(KeyStoreError):
    """The place where the keys are kept cannot be read."""

    code = "store_unavailable"


class EncryptionKeyMissing(KeyStoreError):
    """What is kept cannot be opened: its key-encryption key is not among those that are set."""

    code = "encryption_key_missing"


class Tampered(KeyStoreError):
    """What is kept is not what was put there."""

    code = "tampered"


class Refused(KeyStoreError):
    """What was asked for is not safe now, and was not done; the message says why."""

    code = "refused"


class LostRace(KeyStoreError):
    """Another process was faster, and nothing was changed."""

    code = "lost_race"


class KeyLoadError(KeyStoreError):
    """A key cannot be loaded; ``path`` and ``format`` say what was tried (None when unknown)."""

    code = "key_load"

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        path: str | None = None,
        format: str | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.path = path
        self.format = format

    def at(self, path: str | None) -> KeyLoadError:
        """Give the same error with ``path`` and ``format`` at the head of its message."""
        read = self.format and f"read as {self.format}"
        head = f"{path} ({read})" if path and read else path or (read and read.capitalize())
        message = f"{head}: {self}" if head else str(self)
        return type(self)(message, code=self.code, path=path, format=self.format)


class UnknownFormat(KeyLoadError):
    """The data is not a key in any format that is read here."""

    code = "unknown_format"


class PassphraseRequired(KeyLoadError):
    """The key is encrypted and no passphrase was given."""

    code = "passphrase_required"


class WrongPassphrase(KeyLoadError):
    """The passphrase does not open the key."""

    code = "wrong_passphrase"


class UnsupportedKey(KeyLoadError):
    """The key is well formed, but of a kind that is not used here."""

    code = "unsupported_key"


class WeakKey(KeyLoadError):
    """The key is too weak to be trusted (RFC 7518 section 3.3)."""

    code = "weak_key"


class InconsistentKey(KeyLoadError):
    """The parts of the key do not belong together."""

    code = "inconsistent_key"


class NotPrivate(KeyLoadError):
    """The key is public, and cannot sign."""

    code = "not_private"
