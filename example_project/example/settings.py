"""The site's settings, all of them from the environment.

There is hardly a ``BAIKAL`` here: django_baikal reads the alias ``default`` from the environment by
itself. These variables say the same as the dict would::

    BAIKAL_AUTHSERVER_ENDPOINT   "AUTHSERVER_ENDPOINT": "https://auth.example.com"
    BAIKAL_CLIENT_ID             "CLIENT_ID": ...
    BAIKAL_CLIENT_SECRET         "CLIENT_SECRET": ...
    BAIKAL_ISSUER                "ISSUER": "https://this-site.example.com/"
    BAIKAL_PRIVATE_CERTS_PATH    "PRIVATE_CERTS_PATH": a directory of key files
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import environ
from django.core.exceptions import ImproperlyConfigured
from django.core.management.utils import get_random_secret_key

env = environ.Env(
    DEBUG=(bool, False),
    SECRET_KEY=(str, ""),
    ALLOWED_HOSTS=(list, ["127.0.0.1", "localhost", "[::1]"]),
    CACHE_URL=(str, "locmemcache://"),
)

DEBUG: bool = env.bool("DEBUG")

# django-environ takes a value that begins with "$" for the name of another variable.
SECRET_KEY: str = env.str("SECRET_KEY") or os.environ.get("SECRET_KEY", "")
if not SECRET_KEY:
    if not DEBUG:
        raise ImproperlyConfigured(
            "SECRET_KEY is not set. Set it to 50 random characters, or set DEBUG=true on a "
            "machine that only you can reach."
        )
    SECRET_KEY = get_random_secret_key()

ALLOWED_HOSTS: list[str] = env.list("ALLOWED_HOSTS")

INSTALLED_APPS = ["django_baikal", "example"]
if find_spec("drf_spectacular"):  # pragma: no branch: it is installed where lines are counted
    INSTALLED_APPS += ["rest_framework", "drf_spectacular"]

# For the API with Django REST framework and its OpenAPI document, where those are installed.
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "django_baikal.contrib.rest_framework.IntrospectionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["django_baikal.contrib.rest_framework.TokenHasScope"],
    "EXCEPTION_HANDLER": "django_baikal.contrib.rest_framework.exception_handler",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    # There are no users here but those of tokens, and no app for others.
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "The example site",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
}

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "example.visits.record_visits",
]
ROOT_URLCONF = "example.urls"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]

# Tokens are cached here, sealed; several processes share them if they share the cache.
CACHES = {"default": env.cache_url("CACHE_URL")}

# The demo brings a database along, a file that is gone when it ends: the keys rotate there.
if _database := os.environ.get("DEMO_DATABASE"):
    DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": _database}}
    BAIKAL = {"default": {"KEYS": {"BACKEND": "django_baikal.keys.database.DatabaseKeyStore"}}}

TIME_ZONE = "UTC"

SECURE_SSL_REDIRECT: bool = env.bool("SECURE_SSL_REDIRECT", default=not DEBUG)
SECURE_HSTS_SECONDS: int = env.int("SECURE_HSTS_SECONDS", default=0 if DEBUG else 3600)
CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT
CSRF_COOKIE_HTTPONLY = True
# HSTS for the other names of the domain is not for this site to decide.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
