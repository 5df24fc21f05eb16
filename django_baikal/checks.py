"""System checks: what is wrong with an entry of ``BAIKAL``, in one sentence each; no network."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from django.core import checks

from django_baikal.exceptions import (
    ConfigurationError,
    KeyStoreError,
    PassphraseRequired,
    StoreUnavailable,
    Tampered,
)

# django.setup() loads this module, in every process; what the checks need is loaded when they run.
if TYPE_CHECKING:
    from django_baikal.keys.base import KeyMaterial, KeyStore
    from django_baikal.keys.database import DatabaseKeyStore
    from django_baikal.protocol.config import ClientConfig

#: Each check's id, and what it says; the reference of the checks is tested against this.
IDS = {
    "django_baikal.E001": "An entry of BAIKAL has a key that is unknown, missing or wrong.",
    "django_baikal.E002": "A configured source of keys has no key that can sign.",
    "django_baikal.E003": "The cache alias of CACHE is not in CACHES.",
    "django_baikal.E004": "The times of a ring of keys break a rule.",
    "django_baikal.E005": "A ring of keys cannot be read: a row was changed, or a key is missing.",
    "django_baikal.E006": "Two aliases keep one ring of keys with different options.",
    "django_baikal.E007": "IntrospectionMiddleware is before AuthenticationMiddleware.",
    "django_baikal.E008": "USER_RESOLVER or AUTHSERVER_RESOLVER cannot be used.",
    "django_baikal.E009": "A view's permission needs required_scopes, and it has none.",
    "django_baikal.W001": "A key file, or an entry of CLIENT_KEYS, is not used.",
    "django_baikal.W002": "Several keys of one source could sign, and one does.",
    "django_baikal.W003": "ISSUER or private_key_jwt is set, and there is no key to sign with.",
    "django_baikal.W004": "Two keys have the same kid, and only one is published.",
    "django_baikal.W005": "A certificate has expired; its key is published all the same.",
    "django_baikal.W006": "A private key's file can be read by every user of the machine.",
    "django_baikal.W007": "ENCRYPTION_KEYS is not set, and the keys at rest hang on SECRET_KEY.",
    "django_baikal.W008": "A ring of keys has no key, or no standby: rotate_keys has not run.",
    "django_baikal.W010": "VERIFY_CERTS is False.",
    "django_baikal.W011": "ALLOW_HTTP is True.",
    "django_baikal.W012": "AUDIENCES accepts tokens that are for anybody.",
    "django_baikal.W013": "The cache of CACHE is not shared between processes.",
    "django_baikal.W014": "AUTHSERVER_ENDPOINT is plain http.",
    "django_baikal.W015": "SCOPE_PERMISSIONS are not given to Django users.",
    "django_baikal.W016": "IntrospectionAuthentication is not the first of the classes.",
    "django_baikal.W017": "EXCEPTION_HANDLER does not say what a token lacks.",
    "django_baikal.W018": "CorrelatorMiddleware is after IntrospectionMiddleware.",
}
_MIDDLEWARE = "django_baikal.middleware.IntrospectionMiddleware"
_CORRELATOR = "django_baikal.middleware.CorrelatorMiddleware"
_AUTHENTICATION = "django.contrib.auth.middleware.AuthenticationMiddleware"
_BACKEND = "django_baikal.backends.IntrospectionBackend"
_CAUTIONS = {"expired": "django_baikal.W005", "readable": "django_baikal.W006"}


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


@checks.register()
def check_rings(**_: Any) -> list[checks.CheckMessage]:
    """Check the times of each ring, and that the aliases on one ring agree."""
    seen: dict[str, DatabaseKeyStore] = {}
    messages: list[checks.CheckMessage] = []
    for alias, store in _rings():
        messages += [
            checks.Error(f"BAIKAL[{alias!r}]: KEYS: {rule}: {sentence}", id="django_baikal.E004")
            for rule, sentence in store.options.timing.broken()
        ]
        if seen.setdefault(store.options.ring, store).options.timing != store.options.timing:
            messages.append(
                checks.Error(
                    f"BAIKAL[{alias!r}]: another alias keeps the ring {store.options.ring!r} with "
                    "other options.",
                    id="django_baikal.E006",
                )
            )
    return messages


@checks.register(checks.Tags.security, deploy=True)
def check_encryption_keys(**_: Any) -> list[checks.CheckMessage]:
    """Make visible what a change of SECRET_KEY would do."""
    return [
        checks.Warning(
            f"BAIKAL[{alias!r}]: KEYS: ENCRYPTION_KEYS is not set: whoever changes SECRET_KEY "
            "without SECRET_KEY_FALLBACKS makes the keys of the ring unusable.",
            id="django_baikal.W007",
        )
        for alias, store in _rings()
        if not store.options.dedicated
    ]


@checks.register(checks.Tags.database)
def check_rows(databases: Sequence[str] | None = None, **_: Any) -> list[checks.CheckMessage]:
    """Check the rows of each ring, where the database may be asked."""
    from django.db import DatabaseError, router
    from django.utils import timezone

    from django_baikal.models import SigningKey

    messages: list[checks.CheckMessage] = []
    for alias, store in _rings():
        if router.db_for_read(SigningKey) not in (databases or ()):
            continue
        try:
            ring = store.read()
        except KeyStoreError as error:
            hint = 'See "When a row was tampered with" in the guide "Rotate your keys".'
            messages.append(
                checks.Error(
                    f"BAIKAL[{alias!r}]: {error}",
                    hint=hint if isinstance(error, Tampered) else None,
                    id="django_baikal.E005",
                )
            )
            continue
        except DatabaseError:
            continue  # migrate is about to make the table
        if ring.standby(timezone.now()) is None:
            what = "no standby" if ring.rows else "no key"
            messages.append(
                checks.Warning(
                    f"BAIKAL[{alias!r}]: {store.source} has {what}.",
                    hint="Run manage.py rotate_keys, daily.",
                    id="django_baikal.W008",
                )
            )
    return messages


@checks.register(checks.Tags.security, deploy=True)
def check_for_production(**_: Any) -> list[checks.CheckMessage]:
    """Make visible what is fine on one's own machine, and not in production."""
    from django.conf import settings

    messages: list[checks.CheckMessage] = []
    for config, _found in _entries():
        if config is None:
            continue
        where = f"BAIKAL[{config.alias!r}]"
        backend = settings.CACHES.get(config.cache, {}).get("BACKEND", "")
        if backend.endswith((".LocMemCache", ".DummyCache")):
            messages.append(
                checks.Warning(
                    f"{where}: CACHE is {config.cache!r}, which each process has for itself: each "
                    "asks the authserver for its own tokens and about every token.",
                    hint="Let the alias name a cache server.",
                    id="django_baikal.W013",
                )
            )
        if config.authserver_endpoint.lower().startswith("http:") and not config.allow_http:
            messages.append(
                checks.Warning(
                    f"{where}: AUTHSERVER_ENDPOINT is plain http, which is for development.",
                    id="django_baikal.W014",
                )
            )
    return messages


@checks.register()
def check_doors(**_: Any) -> list[checks.CheckMessage]:
    """Check what bearer tokens pass through: the middleware, the resolver, the permissions."""
    from django.conf import settings

    messages = _order(settings.MIDDLEWARE)
    for config, _found in _entries():
        if config is None:
            continue
        where = f"BAIKAL[{config.alias!r}]"
        messages += [
            checks.Error(f"{where}: {name} {problem}", id="django_baikal.E008")
            for name in ("AUTHSERVER_RESOLVER", "USER_RESOLVER")
            if (problem := _resolver_problem(getattr(config, name.lower())))
        ]
        given = config.user_resolver and config.scope_permissions
        backends = (_kinds(path) for path in settings.AUTHENTICATION_BACKENDS)
        if given and not any(_BACKEND in kinds for kinds in backends):
            messages.append(
                checks.Warning(
                    f"{where}: USER_RESOLVER gives Django users, to whom SCOPE_PERMISSIONS mean "
                    "nothing.",
                    hint=f"Add {_BACKEND} to AUTHENTICATION_BACKENDS.",
                    id="django_baikal.W015",
                )
            )
    return messages


def _order(middleware: Sequence[str]) -> list[checks.CheckMessage]:
    messages: list[checks.CheckMessage] = []
    ours = ""
    for path in middleware:
        kinds = _kinds(path)
        if _MIDDLEWARE in kinds:
            ours = ours or path
        elif ours and _AUTHENTICATION in kinds:
            messages.append(
                checks.Error(
                    f"MIDDLEWARE: {ours} must come after {path}, which makes the session's user "
                    "of the token's.",
                    id="django_baikal.E007",
                )
            )
        elif ours and _CORRELATOR in kinds:
            messages.append(
                checks.Warning(
                    f"MIDDLEWARE: {path} is after {ours}, whose log lines, answers and requests "
                    "have no correlator.",
                    hint="Put it first.",
                    id="django_baikal.W018",
                )
            )
    return messages


def _kinds(path: str) -> set[str]:
    """Give the names of a class and its bases: a subclass is as good, and has the same place."""
    from django.utils.module_loading import import_string

    found = None
    with suppress(ImportError):  # Django says it when it loads it
        found = import_string(path)
    return {path, *(f"{each.__module__}.{each.__name__}" for each in getattr(found, "__mro__", ()))}


def _resolver_problem(path: str) -> str:
    from django.apps import apps
    from django.utils.module_loading import import_string

    app = "django_baikal.contrib.identities"
    if not path:
        return ""
    try:
        resolver = import_string(path)
    except ImportError as error:
        return f"cannot be imported: {error}"
    if not callable(resolver):
        return f"is {path!r}, which cannot be called."
    if path.startswith(f"{app}.") and not apps.is_installed(app):
        return f"needs {app} in INSTALLED_APPS."
    return ""


def _rings() -> Iterator[tuple[str, DatabaseKeyStore]]:
    """Give the store of each alias that keeps its keys in the database."""
    from django_baikal.performers import key_stores

    for config, _ in _entries():
        if config is None or not config.keys:
            continue
        # The other checks say what is wrong with a configuration.
        with suppress(ConfigurationError):
            for store in key_stores(config):
                if store.in_database:
                    yield config.alias, cast("DatabaseKeyStore", store)


def _entries() -> Iterator[tuple[ClientConfig | None, list[checks.CheckMessage]]]:
    """Give the configuration of each alias, or None and what is wrong with it."""
    from django_baikal import conf
    from django_baikal.protocol.config import ClientConfig

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
    from django_baikal.performers import key_stores

    if config is None:
        return
    try:
        stores = key_stores(config)
    except ConfigurationError as error:
        yield checks.Error(str(error), id="django_baikal.E001")
        return
    held: dict[str, Sequence[KeyMaterial]] = {}
    for store in stores:
        if store.in_database:
            continue
        try:
            held[store.source] = yield from _store(config.alias, store)
        except StoreUnavailable as error:
            yield checks.Error(f"BAIKAL[{config.alias!r}]: {error}", id="django_baikal.E002")
    keys = [key for found in held.values() for key in found]
    signs = any(key.private_key for key in keys) or any(store.in_database for store in stores)
    for source, found in held.items():
        # One that has only public keys is as it should be, if another one signs.
        if not found or not signs:
            yield checks.Error(
                f"BAIKAL[{config.alias!r}]: {source} has no key that can sign.",
                id="django_baikal.E002",
            )
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
            hint="Set KEYS, PRIVATE_CERTS_PATH or CLIENT_KEYS.",
            id="django_baikal.W003",
        )


def _store(
    alias: str, store: KeyStore
) -> Generator[checks.CheckMessage, None, Sequence[KeyMaterial]]:
    """Give what is wrong with a store; return its keys, or raise StoreUnavailable."""
    where = f"BAIKAL[{alias!r}]"
    keys = store.keys()
    for problem in store.problems():
        locked = isinstance(problem, PassphraseRequired)
        yield checks.Warning(
            f"{where}: this key is not used: {problem}",
            hint="CLIENT_KEYS has a place for the passphrase." if locked else None,
            id="django_baikal.W001",
        )
    for caution in store.cautions():
        yield checks.Warning(f"{where}: {caution.message}", id=_CAUTIONS[caution.code])
    several = len({key.thumbprint for key in keys if key.private_key})
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
    if "*" in (config.audiences or ()):
        yield checks.Warning(
            f"{where}: AUDIENCES is ['*']: a token that was made for another API is good here.",
            hint="Name whom tokens for this API are for.",
            id="django_baikal.W012",
        )
