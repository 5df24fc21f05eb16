"""``ExternalIdentity``: a user of an authserver, and the Django user that is the same person."""

from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.utils import timezone


class ExternalIdentityManager(models.Manager["ExternalIdentity"]):
    """Links users."""

    def link(self, user: Any, subject: str, *, using: str = "default") -> ExternalIdentity:
        """Link ``user`` to whom the authserver of alias ``using`` calls ``subject`` (its ``sub``).

        Nothing is changed if it is done already. Raises ValueError if that subject is somebody
        else's, or none.
        """
        from django_baikal.handler import clients
        from django_baikal.protocol.bearer import identity

        given: Any = subject
        if not isinstance(given, str) or not given:
            raise ValueError("The subject must be a string that is not empty.")
        issuer = clients[using].config.expected_issuer
        found, _ = self.get_or_create(
            identity=identity(issuer, "sub", subject), defaults={"user": user, "issuer": issuer}
        )
        if found.user != user:
            raise ValueError("Another user is linked to that subject.")
        return found


class ExternalIdentity(models.Model):
    """One user of one authserver. A user may have several, and each belongs to one user.

    ``identity``: a hash of issuer and subject, for a subject may be a phone number. It is also the
    ``pk`` of the ``TokenUser``.
    """

    identity = models.CharField(max_length=32, unique=True)
    issuer = models.CharField(max_length=255)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="external_identities"
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects: ClassVar[ExternalIdentityManager] = ExternalIdentityManager()

    class Meta:
        db_table = "baikal_externalidentity"
        verbose_name_plural = "external identities"

    def __str__(self) -> str:
        return f"{self.identity} ({self.issuer})"
