"""A site under ASGI whose keys are in the database of DATABASE_URL; settings and URLs of it.

The environment says the authserver and what is special about the ring.
"""

from __future__ import annotations

import json
import os
from typing import Any

import environ
from django.http import HttpRequest, HttpResponse
from django.urls import include, path

SECRET_KEY = "only-for-the-tests-" + "x" * 40
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = __name__
INSTALLED_APPS = ["django.contrib.contenttypes", "django_baikal"]
DATABASES: dict[str, Any] = {"default": environ.Env().db_url("DATABASE_URL")}
if "sqlite" in DATABASES["default"]["ENGINE"]:
    # As long as the other databases wait, which is for ever.
    DATABASES["default"]["OPTIONS"] = {"timeout": 600}
BAIKAL = {
    "default": {
        **json.loads(os.environ["SITE_CLIENT"]),
        "KEYS": {
            "BACKEND": "django_baikal.keys.database.DatabaseKeyStore",
            "OPTIONS": {"ALG": "ES256", **json.loads(os.environ.get("SITE_RING", "{}"))},
        },
    },
}


async def beat(request: HttpRequest) -> HttpResponse:
    """Answer, which shows that the event loop is not held up."""
    return HttpResponse("alive")


async def grant(request: HttpRequest) -> HttpResponse:
    """Get a token for a user, by an assertion that is signed here."""
    from django_baikal import clients

    return HttpResponse(await clients["default"].agrant_user("tel:+34600000000", ["read"], ["x"]))


urlpatterns = [
    path("", include("django_baikal.urls")),
    path("beat", beat),
    path("grant", grant),
]
