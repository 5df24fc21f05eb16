"""What is counted: by alias, ring, endpoint and code, of which there are few, and by nothing else.

In prometheus_client's own registry, so that whatever a project serves shows them.
"""

from __future__ import annotations

from typing import Any

from prometheus_client import Counter, Histogram

from django_baikal import signals

TOKENS_VALIDATED = Counter(
    "baikal_tokens_validated", "Bearer tokens that were accepted.", ["alias"]
)
TOKENS_REJECTED = Counter(
    "baikal_tokens_rejected", "Bearer tokens that were refused.", ["alias", "code"]
)
AUTHSERVER_UNAVAILABLE = Counter(
    "baikal_authserver_unavailable", "Bearer tokens that could not be checked.", ["alias", "code"]
)
AUTHSERVER_REQUEST_SECONDS = Histogram(
    "baikal_authserver_request_seconds",
    "Requests to the authserver.",
    ["alias", "endpoint", "outcome"],
)
KEYS_CREATED = Counter("baikal_keys_created", "Keys that were made or imported.", ["ring"])
KEYS_REVOKED = Counter("baikal_keys_revoked", "Keys that were revoked.", ["ring"])
SIGNING_DEGRADED = Counter(
    "baikal_signing_degraded", "Times that another key signed in the active one's place.", ["ring"]
)
SEALS_FAILED = Counter("baikal_seals_failed", "Times that a ring could not be read.", ["ring"])


def validated(*, token: Any, **_: Any) -> None:
    """Count an accepted token."""
    TOKENS_VALIDATED.labels(token.alias).inc()


def rejected(*, using: str, error: Any, **_: Any) -> None:
    """Count a refused token."""
    TOKENS_REJECTED.labels(using, error.code).inc()


def unavailable(*, using: str, error: Any, **_: Any) -> None:
    """Count a token that could not be checked."""
    AUTHSERVER_UNAVAILABLE.labels(using, error.code).inc()


def called(
    *, using: str, endpoint: str, status: int | None, error: Any, seconds: float, **_: Any
) -> None:
    """Observe a request to the authserver; ``outcome``: "2xx" and so on, or the error's code."""
    outcome = f"{status // 100}xx" if status is not None else error.code
    AUTHSERVER_REQUEST_SECONDS.labels(using, endpoint, outcome).observe(seconds)


def created(*, key: Any, **_: Any) -> None:
    """Count a new key."""
    KEYS_CREATED.labels(key.ring).inc()


def revoked(*, key: Any, **_: Any) -> None:
    """Count a revoked key."""
    KEYS_REVOKED.labels(key.ring).inc()


def degraded(*, key: Any, **_: Any) -> None:
    """Count that the active key cannot be used here."""
    SIGNING_DEGRADED.labels(key.ring).inc()


def seal_failed(*, ring: str, **_: Any) -> None:
    """Count that a ring cannot be read."""
    SEALS_FAILED.labels(ring).inc()


def connect() -> None:
    """Begin to count."""
    for signal, receiver in (
        (signals.token_validated, validated),
        (signals.token_rejected, rejected),
        (signals.authserver_unavailable, unavailable),
        (signals.authserver_called, called),
        (signals.key_created, created),
        (signals.key_revoked, revoked),
        (signals.signing_degraded, degraded),
        (signals.seal_failed, seal_failed),
    ):
        signal.connect(receiver)
