"""django-pyoidc, as "Configuring django_rest_framework" in its docs/tutorial.rst says."""

from __future__ import annotations

from authserver import CLIENT_ID, CLIENT_SECRET

from projects.base import *

INSTALLED_APPS = [*INSTALLED_APPS, "django.contrib.sessions", "django_pyoidc"]
MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware"]
DJANGO_PYOIDC = {
    "drf": {
        "provider_class": "django_pyoidc.providers.Provider",
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
        "provider_discovery_uri": AUTHSERVER,
        "oidc_cache_provider_metadata": True,
    },
}
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["django_pyoidc.drf.authentication.OIDCBearerAuthentication"],
}
