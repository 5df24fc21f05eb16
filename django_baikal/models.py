"""``SigningKey``: one of our keys, as the database keeps it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, ClassVar

from django.core.validators import MinValueValidator, RegexValidator
from django.db import models

#: What the name of a ring may consist of; it stands in URLs.
RING = r"^[A-Za-z0-9_-]{1,64}$"


class SigningKey(models.Model):
    """One key of a ring; its state follows from its times and those of the rows after it.

    Rows are written by ``django_baikal.keys`` alone, which seals them: one that was written by
    anybody else is not used. They are never deleted, so that no key comes back.
    """

    ring = models.CharField(max_length=64, default="default", validators=[RegexValidator(RING)])
    sequence = models.PositiveIntegerField()
    kid = models.CharField(max_length=255, unique=True)
    thumbprint = models.CharField(max_length=43, unique=True)
    alg = models.CharField(max_length=16)
    #: JSON. As a JSONField it would make ``manage.py check`` ask the database what it can do.
    public_jwk = models.TextField()
    private_envelope = models.BinaryField(null=True)
    seal = models.BinaryField(max_length=37)
    origin = models.CharField(
        max_length=16, choices=[("generated", "generated"), ("imported", "imported")]
    )
    created_at = models.DateTimeField()
    created_by = models.CharField(max_length=150, blank=True)
    note = models.CharField(max_length=255, blank=True)
    activates_at = models.DateTimeField()
    retention = models.PositiveIntegerField(validators=[MinValueValidator(1)])
    revoked_at = models.DateTimeField(null=True)
    revoke_reason = models.CharField(max_length=255, blank=True)
    destroyed_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "baikal_signingkey"
        ordering: ClassVar[list[str]] = ["ring", "-sequence"]
        permissions: ClassVar[tuple[tuple[str, str], ...]] = (
            ("rotate_signingkey", "Can rotate signing keys"),
            ("revoke_signingkey", "Can revoke signing keys"),
        )
        # None of these is conditional: MariaDB would silently not create it.
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["ring", "sequence"], name="baikal_signingkey_ring_sequence"
            ),
            models.CheckConstraint(
                condition=models.Q(retention__gt=0), name="baikal_signingkey_retention"
            ),
            models.CheckConstraint(
                condition=models.Q(revoked_at__isnull=True)
                | models.Q(private_envelope__isnull=True),
                name="baikal_signingkey_revoked_is_wiped",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kid} ({self.ring})"

    @property
    def envelope(self) -> bytes:
        """``private_envelope`` as bytes, empty if there is none."""
        return as_bytes(self.private_envelope)

    @property
    def jwk(self) -> dict[str, str]:
        """The public members of the key, without kid, use and alg."""
        found: dict[str, str] = json.loads(self.public_jwk)
        return found

    def sealed(self) -> dict[str, Any]:
        """Give what the seal covers: everything that decides what is published and trusted."""
        times = ("created_at", "activates_at", "revoked_at", "destroyed_at")
        return {
            "ring": self.ring,
            "sequence": self.sequence,
            "kid": self.kid,
            "alg": self.alg,
            "public_jwk": self.public_jwk,
            "retention": self.retention,
            **{name: _moment(getattr(self, name)) for name in times},
        }


def as_bytes(kept: Any) -> bytes:
    """Give what a BinaryField holds; SQLite may give the text that somebody else put there."""
    return kept.encode() if isinstance(kept, str) else bytes(kept or b"")


def _moment(value: datetime | None) -> str | None:
    if value is None:
        return None
    if value.tzinfo is None:
        # Without USE_TZ the database does not keep which of the two hours in autumn it was.
        value = value.replace(fold=0)
    return value.astimezone(UTC).isoformat(timespec="microseconds")
