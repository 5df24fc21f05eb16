"""The app of the identities."""

from __future__ import annotations

from django.apps import AppConfig


class IdentitiesConfig(AppConfig):
    """``django_baikal.contrib.identities`` in INSTALLED_APPS."""

    name = "django_baikal.contrib.identities"
    label = "baikal_identities"
    verbose_name = "Baikal identities"
    default_auto_field = "django.db.models.BigAutoField"
