"""django-baikal: the alias default with stateless principals, and users with Django's."""

from __future__ import annotations

from authserver import CLIENT_ID, CLIENT_SECRET

from projects.base import *

ROOT_URLCONF = "projects.baikal_urls"
INSTALLED_APPS = [*INSTALLED_APPS, "django_baikal", "django_baikal.contrib.identities"]
BAIKAL = {
    "default": {
        "AUTHSERVER_ENDPOINT": AUTHSERVER,
        "CLIENT_ID": CLIENT_ID,
        "CLIENT_SECRET": CLIENT_SECRET,
    },
}
BAIKAL["users"] = {
    **BAIKAL["default"],
    "USER_RESOLVER": "django_baikal.contrib.identities.linked_user",
}
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "django_baikal.contrib.rest_framework.IntrospectionAuthentication"
    ],
    "EXCEPTION_HANDLER": "django_baikal.contrib.rest_framework.exception_handler",
}
