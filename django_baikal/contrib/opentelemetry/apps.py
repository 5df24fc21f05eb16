"""The app of the spans."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.exceptions import ImproperlyConfigured


class OpenTelemetryConfig(AppConfig):
    """``django_baikal.contrib.opentelemetry`` in INSTALLED_APPS: from then on there are spans."""

    name = "django_baikal.contrib.opentelemetry"
    label = "baikal_opentelemetry"
    verbose_name = "Baikal spans"

    def ready(self) -> None:
        """Begin; raise ImproperlyConfigured if opentelemetry-api is not installed."""
        try:
            from django_baikal.contrib.opentelemetry import spans
        except ImportError as error:
            raise ImproperlyConfigured(
                f"{self.name} needs opentelemetry-api ({error}): "
                "pip install 'django-baikal[opentelemetry]'."
            ) from None
        spans.connect()
