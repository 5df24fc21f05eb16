"""The identities in the admin: to look at, and to unlink."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.http import HttpRequest

from django_baikal.contrib.identities.models import ExternalIdentity

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[ExternalIdentity]
else:
    _ModelAdmin = admin.ModelAdmin


@admin.register(ExternalIdentity)
class ExternalIdentityAdmin(_ModelAdmin):
    """No identity is typed in: it is a hash."""

    list_display = ("user", "issuer", "identity", "created_at")
    list_select_related = ("user",)
    search_fields = ("identity", "issuer")

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002 - Django's name
        """Never: ``ExternalIdentity.objects.link`` adds one."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        """Never: one is unlinked by deleting it."""
        return False
