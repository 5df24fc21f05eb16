"""The Django app: registers the checks; reads no setting, opens nothing, logs nothing."""

from __future__ import annotations

from django.apps import AppConfig


class BaikalConfig(AppConfig):
    """``django_baikal`` in INSTALLED_APPS."""

    name = "django_baikal"
    verbose_name = "Baikal"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks."""
        from django_baikal import checks  # noqa: F401 - importing it registers them
