"""django-oauth-toolkit, as its docs/resource_server.rst says."""

from __future__ import annotations

from authserver import CLIENT_ID, CLIENT_SECRET

from projects.base import *

INSTALLED_APPS = [*INSTALLED_APPS, "oauth2_provider"]
OAUTH2_PROVIDER = {
    "RESOURCE_SERVER_INTROSPECTION_URL": f"{AUTHSERVER}/introspect",
    "RESOURCE_SERVER_INTROSPECTION_CREDENTIALS": (CLIENT_ID, CLIENT_SECRET),
    # With the default, an aud that is no URL prefix of this site refuses every token.
    "RESOURCE_SERVER_TOKEN_RESOURCE_VALIDATOR": None,
}
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "oauth2_provider.contrib.rest_framework.OAuth2Authentication"
    ],
}
