"""django-baikal in a Django site: each way to protect a view, and each store of keys."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from contestants import django_site as site
from contestants.base import Case, Setup

DISTRIBUTIONS = ("django-baikal", "Django", "djangorestframework", "PyJWT", "cryptography")

_MIDDLEWARE = "django_baikal.middleware.IntrospectionMiddleware"
_case = site.of("baikal_site")


def kept(setup: Setup, where: str, number: int) -> Case:
    """Publish so many keys that are in the settings, or in files."""
    return site.jwk_set(setup, f"/jwks/{where}-{number}", number)


def database(setup: Setup, number: int) -> Case:
    """Publish keys of the database: one that is imported, or as many as rotations leave."""
    from django_baikal.keys import keepers, load_key

    keeper = keepers()[f"ring-{number}"]
    first = site.key_files(setup, number)[0]
    keeper.import_key(load_key(first.read_bytes()))
    while len(keeper.read().rows) < number:
        keeper.rotate(force=True)
        if len(keeper.read().rows) < number:
            keeper.promote(force=True)
    return site.jwk_set(setup, f"/jwks/database-{number}", number)


def first_hit(_: Setup, number: int) -> Case:
    """Publish keys of the settings with a client that has just been made."""
    alias = f"settings-{number}"

    def forgotten() -> AbstractContextManager[Any]:
        from django.conf import settings
        from django.test import override_settings

        other = {**settings.BAIKAL[alias], "REALM": site.new_token()}
        return override_settings(BAIKAL={**settings.BAIKAL, alias: other})

    return site.first_hit(f"/jwks/{alias}", forgotten)


CASES = {
    "S1": _case(site.warm),
    "S2/wsgi": _case(site.middleware, _MIDDLEWARE),
    "S2/asgi": _case(site.async_middleware, _MIDDLEWARE),
    "S3/http": _case(site.cold),
    "S3/https": _case(site.cold, "/tls"),
    "S4": _case(site.at_once),
    "S5": _case(site.repeated_bad),
    "S6/first": _case(site.signed, "/jwt"),
    "S6/again": _case(site.signed, "/jwt", again=True),
    "S7/1": _case(kept, "settings", 1),
    "S7/10": _case(kept, "settings", 10),
    "S7/files/1": _case(kept, "files", 1),
    "S7/files/10": _case(kept, "files", 10),
    "S7/database/1": _case(database, 1),
    "S7/database/10": _case(database, 10),
    "S7/first/1": _case(first_hit, 1),
    "S7/first/10": _case(first_hit, 10),
}
