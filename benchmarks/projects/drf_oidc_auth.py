"""drf-oidc-auth, as its README says: both of its classes, of which the second is for bearers."""

from __future__ import annotations

from projects.base import *

OIDC_AUTH = {"OIDC_ENDPOINT": AUTHSERVER}
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "oidc_auth.authentication.JSONWebTokenAuthentication",
        "oidc_auth.authentication.BearerTokenAuthentication",
    ],
}
