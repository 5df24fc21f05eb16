"""System checks: what is wrong with an entry of ``BAIKAL``, in one sentence each; no network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core import checks

from django_baikal import conf
from django_baikal.exceptions import ConfigurationError, StoreUnavailable
from django_baikal.keys.base import KeyStore
from django_baikal.performers import key_stores
from django_baikal.protocol.config import ClientConfig

#: Each check's id, and what it says; the reference of the checks is tested against this.
IDS = {
    "django_baikal.E001": "An entry of BAIKAL has a key that is unknown, missing or wrong.",
    "django_baikal.E002": "A configured source of keys has no key that can sign.",
    "django_baikal.E003": "The cache alias of CACHE is not in CACHES.",
    "django_baikal.W001": "A key file, or an entry of CLIENT_KEYS, cannot be used.",
    "django_baikal.W002": "Several keys could sign, and the last by name does.",
    "django_baikal.W003": "ISSUER is set, and there is no key to sign with or to publish.",
    "django_baikal.W010": "VERIFY_CERTS is False.",
    "django_baikal.W011": "ALLOW_HTTP is True.",
}


@checks.register()
def check_entries(**_: Any) -> list[checks.CheckMessage]:
    """Check every entry of ``BAIKAL``, and the keys that it names."""
    return [message for config, found in _entries() for message in (*found, *_keys(config))]


@checks.register(checks.Tags.caches)
def check_caches(**_: Any) -> list[checks.CheckMessage]:
    """Check that the cache of each alias is one of ``CACHES``."""
    from django.conf import settings

    return [
        checks.Error(
            f"BAIKAL[{config.alias!r}]: CACHE is {config.cache!r}, which is not in CACHES.",
            id="django_baikal.E003",
        )
        for config, _ in _entries()
        if config is not None and config.cache not in settings.CACHES
    ]


@checks.register(checks.Tags.security)
def check_security(**_: Any) -> list[checks.CheckMessage]:
    """Make choices visible that are not safe."""
    return [message for config, _ in _entries() for message in _insecure(config)]


def _entries() -> Iterator[tuple[ClientConfig | None, list[checks.CheckMessage]]]:
    """Give the configuration of each alias, or None and what is wrong with it."""
    try:
        found = conf.entries()
        # A project may have the app for its urls or commands alone, and no client at all.
        aliases = [alias for alias in conf.aliases() if alias in found or conf.environment(alias)]
    except ConfigurationError as error:
        yield None, [checks.Error(str(error), id="django_baikal.E001")]
        return
    for alias in aliases:
        try:
            values, wrong = conf.problems(alias, conf.merged(alias))
        except ConfigurationError as error:
            yield None, [checks.Error(str(error), id="django_baikal.E001")]
            continue
        messages: list[checks.CheckMessage] = [
            checks.Error(f"BAIKAL[{alias!r}]: {sentence}", id="django_baikal.E001")
            for _, sentence in wrong
        ]
        yield None if wrong else ClientConfig(alias=alias, **values), messages


def _keys(config: ClientConfig | None) -> Iterator[checks.CheckMessage]:
    if config is None:
        return
    stores = key_stores(config)
    for store in stores:
        yield from _store(config.alias, store)
    if config.issuer and not stores:
        yield checks.Warning(
            f"BAIKAL[{config.alias!r}]: ISSUER is set, and there is no key to sign with.",
            hint="Set PRIVATE_CERTS_PATH or CLIENT_KEYS, or leave ISSUER out.",
            id="django_baikal.W003",
        )


def _store(alias: str, store: KeyStore) -> Iterator[checks.CheckMessage]:
    where = f"BAIKAL[{alias!r}]"
    try:
        keys = store.keys()
    except StoreUnavailable as error:
        yield checks.Error(f"{where}: {error}", id="django_baikal.E002")
        return
    for problem in store.problems():
        yield checks.Warning(f"{where}: this key is not used: {problem}", id="django_baikal.W001")
    if not keys:
        yield checks.Error(
            f"{where}: {store.source} has no key that can sign.", id="django_baikal.E002"
        )
    elif len(keys) > 1 and (signing := store.signing_key()) is not None:
        yield checks.Warning(
            f"{where}: {store.source} has {len(keys)} private keys; {signing.kid!r} signs, the "
            "others are only published.",
            id="django_baikal.W002",
        )


def _insecure(config: ClientConfig | None) -> Iterator[checks.CheckMessage]:
    if config is None:
        return
    where = f"BAIKAL[{config.alias!r}]"
    if config.verify_certs is False:
        yield checks.Warning(
            f"{where}: VERIFY_CERTS is False: whoever is on the way can read the client's secret "
            "and make tokens of its own.",
            hint="Give the path of a CA bundle instead.",
            id="django_baikal.W010",
        )
    if config.allow_http:
        yield checks.Warning(
            f"{where}: ALLOW_HTTP is True: secrets and tokens may travel in clear.",
            id="django_baikal.W011",
        )
