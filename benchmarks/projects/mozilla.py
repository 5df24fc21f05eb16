"""mozilla-django-oidc, as its docs/drf.rst says."""

from __future__ import annotations

from authserver import CLIENT_ID, CLIENT_SECRET

from projects.base import *

INSTALLED_APPS = [*INSTALLED_APPS, "mozilla_django_oidc"]
OIDC_RP_CLIENT_ID = CLIENT_ID
OIDC_RP_CLIENT_SECRET = CLIENT_SECRET
OIDC_OP_AUTHORIZATION_ENDPOINT = f"{AUTHSERVER}/authorize"
OIDC_OP_TOKEN_ENDPOINT = f"{AUTHSERVER}/token"
OIDC_OP_USER_ENDPOINT = f"{AUTHSERVER}/userinfo"
OIDC_DRF_AUTH_BACKEND = "mozilla_django_oidc.auth.OIDCAuthenticationBackend"
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["mozilla_django_oidc.contrib.drf.OIDCAuthentication"],
}
