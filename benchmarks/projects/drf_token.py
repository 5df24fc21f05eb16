"""Django REST framework's own tokens, as "TokenAuthentication" in its API guide says."""

from __future__ import annotations

from projects.base import *

INSTALLED_APPS = [*INSTALLED_APPS, "rest_framework", "rest_framework.authtoken"]
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.TokenAuthentication"],
}
