"""Settings of a project that is served under load, by a server in a process of its own.

Its client proves who it is with the keys of its ring, so that each question to the authserver is
signed with a key that rotates, and checked with what the site publishes.
"""

from __future__ import annotations

import os

import environ

SECRET_KEY = "only-for-the-tests-" + "x" * 40
USE_TZ = True
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "load_urls"
# It tells the length of each answer, without which runserver ends the connection after each.
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django_baikal"]
DATABASES = {"default": environ.Env().db_url("LOAD_DATABASE")}
CACHES = {"default": environ.Env().cache_url("LOAD_CACHE")}
BAIKAL = {
    "default": {
        "AUTHSERVER_ENDPOINT": os.environ["LOAD_AUTHSERVER"],
        "CLIENT_ID": "site",
        "CLIENT_AUTH_METHOD": "private_key_jwt",
        # Short, so that a few seconds see many questions; and long, for a slow machine.
        "INTROSPECTION_TTL": float(os.environ["LOAD_TTL"]),
        "INTROSPECTION_TIMEOUT": 30,
        "KEYS": {
            "BACKEND": "django_baikal.keys.database.DatabaseKeyStore",
            "OPTIONS": {"ALG": "ES256", "PROCESS_CACHE_TTL": 0.5},
        },
    },
}
