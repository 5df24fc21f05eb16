"""The suite's settings: DATABASE_URL and CACHE_URL may choose other servers."""

from __future__ import annotations

import environ

env = environ.Env()

SECRET_KEY = "only-for-the-tests-" + "x" * 40
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "urls"

INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django_baikal",
    "django_baikal.contrib.identities",
]
DATABASES = {"default": env.db_url("DATABASE_URL", default="sqlite://:memory:")}
# django-environ 0.14 writes what Django calls KEY_PREFIX in lower case for Django's Redis.
CACHES = {
    "default": {
        name.upper(): value
        for name, value in env.cache_url("CACHE_URL", default="locmemcache://").items()
    }
}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

BAIKAL = {
    "default": {
        "AUTHSERVER_ENDPOINT": "https://auth.example.com",
        "CLIENT_ID": "client",
        "CLIENT_SECRET": "secret",
    },
}
