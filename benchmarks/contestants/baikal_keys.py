"""django-baikal's keys in the database: docs/howto/rotate-keys.md."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import django
from cryptography.hazmat.primitives import serialization
from django.conf import settings

from contestants.base import Case, Setup, times

SETUP = Setup.of_environment()
settings.configure(
    INSTALLED_APPS=["django_baikal"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": f"{SETUP.directory}/keys.sqlite3",
        }
    },
    SECRET_KEY="only-for-benchmarks-" + "x" * 40,
    USE_TZ=True,
    LOGGING_CONFIG=None,
    BAIKAL={
        "default": {
            "AUTHSERVER_ENDPOINT": SETUP.http,
            "CLIENT_ID": SETUP.client_id,
            "CLIENT_SECRET": SETUP.client_secret,
            "ISSUER": SETUP.client_id,
            "KEYS": {"BACKEND": "django_baikal.keys.database.DatabaseKeyStore"},
        }
    },
)
django.setup()

from django.core.management import call_command  # noqa: E402 - Django is set up first
from django.db import connection  # noqa: E402

from django_baikal import clients  # noqa: E402
from django_baikal.keys.database import DatabaseKeyStore  # noqa: E402

DISTRIBUTIONS = ("django-baikal", "Django", "PyJWT", "cryptography")


def store() -> DatabaseKeyStore:
    """Give what reads the ring, without what it has read."""
    config = clients["default"].config
    assert config.keys
    return DatabaseKeyStore(config, config.keys["OPTIONS"])


def signing(made: DatabaseKeyStore) -> Callable[[], object]:
    def call() -> object:
        now = int(time.time())
        key = made.signing_key()
        assert key
        return key.sign({"iss": "bench", "sub": "tel:+34600000000", "iat": now, "exp": now + 300})

    return call


def prepared(_setup: Setup) -> Case:
    call_command("migrate", verbosity=0)
    call_command("rotate_keys", verbosity=0)
    return times(signing(store()))


def counted(call: Callable[[], object], n: int) -> dict[str, float]:
    """Tell the ``queries`` and the ``parses`` of private keys of these calls."""
    queries = parses = 0
    parse = serialization.load_der_private_key

    def query(execute: Any, *args: Any) -> Any:
        nonlocal queries
        queries += 1
        return execute(*args)

    def parsing(*args: Any, **options: Any) -> Any:
        nonlocal parses
        parses += 1
        return parse(*args, **options)

    serialization.load_der_private_key = parsing
    try:
        with connection.execute_wrapper(query):
            times(call)(n)
    finally:
        serialization.load_der_private_key = parse
    return {"queries": queries, "parses": parses}


def again(_setup: Setup) -> Case:
    call = signing(store())

    def case(n: int) -> dict[str, float]:
        call()  # the ring is read again after a minute
        return counted(call, n)

    return case


CASES: dict[str, Callable[[Setup], Case]] = {
    "K1": prepared,
    "K1/again": again,
    "K1/first": lambda _: lambda _n: counted(signing(store()), 1),
}
