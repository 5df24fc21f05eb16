"""The site of the runbook's tests: a protected view, and what a project asks its authserver for.

``operations_stage`` writes the settings of a project beside it, and says in the environment where
its authserver, its database and its cache are.
"""

from __future__ import annotations

import os
from typing import Any

import environ
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt

from django_baikal import clients
from django_baikal.decorators import token_required

SECRET_KEY = os.environ["SITE_SECRET_KEY"]
SECRET_KEY_FALLBACKS = os.environ.get("SITE_SECRET_KEY_FALLBACKS", "").split()
ALLOWED_HOSTS = ["127.0.0.1"]
USE_TZ = True
ROOT_URLCONF = __name__
INSTALLED_APPS = ["django.contrib.contenttypes", "django_baikal"]
DATABASES: dict[str, Any] = {"default": environ.Env.db_url_config(os.environ["SITE_DATABASE"])}
CACHES: dict[str, Any] = {"default": environ.Env.cache_url_config(os.environ["SITE_CACHE"])}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
}
BAIKAL: dict[str, Any] = {
    "default": {
        "AUTHSERVER_ENDPOINT": os.environ["SITE_AUTHSERVER"],
        "CLIENT_ID": "shop",
        "CLIENT_SECRET": os.environ["SITE_CLIENT_SECRET"],
        "ISSUER": os.environ["SITE"],
        # Longer than a test takes.
        "INTROSPECTION_TTL": 3600,
        "KEYS": {
            "BACKEND": "django_baikal.keys.database.DatabaseKeyStore",
            # Keys that are quickly made, and rings that are read without much waiting.
            "OPTIONS": {"ALG": "ES256", "PROCESS_CACHE_TTL": 1},
        },
    },
}


@token_required("orders.read")
def orders(request: HttpRequest) -> HttpResponse:
    return HttpResponse("orders\n")


def report(_request: HttpRequest) -> HttpResponse:
    """Use a token of the project's own, which is cached."""
    return HttpResponse(clients["default"].get_token("orders.read") + "\n")


def pay(_request: HttpRequest) -> HttpResponse:
    """Get a token for a user, with an assertion that is signed here."""
    return HttpResponse(clients["default"].grant_user("anna", "pay", "a-purpose") + "\n")


@csrf_exempt
def login(request: HttpRequest) -> HttpResponse:
    claims = clients["default"].verify_id_token(request.POST["id_token"])
    return HttpResponse(claims["sub"] + "\n")


urlpatterns = [
    path("", include("django_baikal.urls")),
    path("orders", orders),
    path("report", report),
    path("pay", pay),
    path("login", login),
]
