"""The Django app: registers checks and extensions; reads no setting, opens nothing."""

from __future__ import annotations

from django.apps import AppConfig


class BaikalConfig(AppConfig):
    """``django_baikal`` in INSTALLED_APPS."""

    name = "django_baikal"
    verbose_name = "Baikal"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks, and what other installed apps know of us by."""
        from importlib import import_module

        from django.apps import apps

        import_module("django_baikal.checks")
        if apps.is_installed("rest_framework"):
            import_module("django_baikal.contrib.rest_framework.checks")
            if apps.is_installed("drf_spectacular"):
                import_module("django_baikal.contrib.spectacular")
