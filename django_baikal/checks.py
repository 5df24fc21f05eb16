"""System checks: what is wrong with an entry of ``BAIKAL``, in one sentence each; no network."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any

from django.core import checks

from django_baikal import conf
from django_baikal.exceptions import ConfigurationError, StoreUnavailable
from django_baikal.keys.base import KeyMaterial, KeyStore
from django_baikal.performers import key_stores
from django_baikal.protocol.config import ClientConfig

#: Each check's id, and what it says; the reference of the checks is tested against this.
IDS = {
    "django_baikal.E001": "An entry of BAIKAL has a key that is unknown, missing or wrong.",
    "django_baikal.E002": "A configured source of keys has no key that can sign.",
    "django_baikal.E003": "The cache alias of CACHE is not in CACHES.",
    "django_baikal.W001": "A key file, or an entry of CLIENT_KEYS, cannot be used.",
    "django_baikal.W002": "Several keys of one source could sign, and one does.",
    "django_baikal.W003": "ISSUER or private_key_jwt is set, and there is no key to sign with.",
    "django_baikal.W004": "Two keys have the same kid, and only one is published.",
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
        aliases = [
            alias
            for alias in conf.aliases()
            if alias in found or set(conf.environment(alias)).difference(conf.UNPREFIXED)
        ]
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
    keys: list[KeyMaterial] = []
    for store in stores:
        keys += yield from _store(config.alias, store)
    kids = [kid for kid, _ in {(key.kid, key.thumbprint) for key in keys}]
    for kid in sorted({kid for kid in kids if kids.count(kid) > 1}):
        yield checks.Warning(
            f"BAIKAL[{config.alias!r}]: two keys have the kid {kid!r}, and only one of them is "
            "published.",
            id="django_baikal.W004",
        )
    private_key_jwt = config.client_auth_method == "private_key_jwt"
    if not stores and (config.issuer or private_key_jwt):
        name = "CLIENT_AUTH_METHOD is 'private_key_jwt'" if private_key_jwt else "ISSUER is set"
        yield checks.Warning(
            f"BAIKAL[{config.alias!r}]: {name}, and there is no key to sign with.",
            hint="Set PRIVATE_CERTS_PATH or CLIENT_KEYS.",
            id="django_baikal.W003",
        )


def _store(
    alias: str, store: KeyStore
) -> Generator[checks.CheckMessage, None, Sequence[KeyMaterial]]:
    """Give what is wrong with a store; return its keys."""
    where = f"BAIKAL[{alias!r}]"
    try:
        keys = store.keys()
    except StoreUnavailable as error:
        yield checks.Error(f"{where}: {error}", id="django_baikal.E002")
        return []
    for problem in store.problems():
        yield checks.Warning(f"{where}: this key is not used: {problem}", id="django_baikal.W001")
    if not keys:
        yield checks.Error(
            f"{where}: {store.source} has no key that can sign.", id="django_baikal.E002"
        )
    several = len({key.thumbprint for key in keys})
    if several > 1 and (signing := store.signing_key()) is not None:
        yield checks.Warning(
            f"{where}: {store.source} has {several} private keys; {signing.kid!r} signs, the "
            "others are only published.",
            id="django_baikal.W002",
        )
    return keys


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
