"""The app of the counters."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.exceptions import ImproperlyConfigured


class PrometheusConfig(AppConfig):
    """``django_baikal.contrib.prometheus`` in INSTALLED_APPS: from then on it is counted."""

    name = "django_baikal.contrib.prometheus"
    label = "baikal_prometheus"
    verbose_name = "Baikal counters"

    def ready(self) -> None:
        """Begin to count; raise ImproperlyConfigured if prometheus_client is not installed."""
        try:
            from django_baikal.contrib.prometheus import metrics
        except ImportError as error:
            raise ImproperlyConfigured(
                f"{self.name} needs prometheus_client ({error}): "
                "pip install 'django-baikal[prometheus]'."
            ) from None
        metrics.connect()
