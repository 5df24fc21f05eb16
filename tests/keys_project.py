"""Settings of a project whose keys are in a database, for commands and servers in other processes.

The environment says where the database is, which aliases there are, and what is to be wrong.
"""

from __future__ import annotations

import json
import os

import environ

SECRET_KEY = os.environ.get("KEYS_SECRET", "only-for-the-tests-" + "x" * 40)
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "keys_site"
USE_TZ = True
INSTALLED_APPS = ["django.contrib.contenttypes", "django_baikal"]
DATABASES = {"default": environ.Env.db_url_config(os.environ["KEYS_DATABASE"])}
BAIKAL = {
    alias: {
        "AUTHSERVER_ENDPOINT": "https://auth.example.com",
        "CLIENT_ID": "client",
        "CLIENT_SECRET": "secret",
        "KEYS": {
            "BACKEND": "django_baikal.keys.database.DatabaseKeyStore",
            "OPTIONS": {"ALG": "ES256", **json.loads(os.environ.get("KEYS_OPTIONS", "{}"))},
        },
        **entry,
    }
    for alias, entry in json.loads(os.environ.get("KEYS_ALIASES", '{"default": {}}')).items()
}
