"""What the compared projects share: each imports this, and adds what its package's docs say."""

from __future__ import annotations

import os

#: Where the authserver is.
AUTHSERVER = os.environ["BENCH_AUTHSERVER"]

SECRET_KEY = "only-for-benchmarks-" + "x" * 40
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "projects.urls"
MIDDLEWARE: list[str] = []
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["BENCH_DATABASE"],
        "CONN_MAX_AGE": None,  # else each of the peers' requests would pay for a connection
    }
}
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
LOGGING_CONFIG = None
