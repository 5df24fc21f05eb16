"""djangorestframework-simplejwt, as "Stateless User Authentication" in its docs says."""

from __future__ import annotations

from datetime import timedelta

from projects.base import *

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework_simplejwt.authentication.JWTStatelessUserAuthentication",
    ],
}
SIMPLE_JWT = {"ACCESS_TOKEN_LIFETIME": timedelta(days=1)}
