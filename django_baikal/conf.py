"""One entry of ``BAIKAL``, completed from the environment and checked: a ``ClientConfig``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.views.decorators.debug import sensitive_variables

from django_baikal.exceptions import ConfigurationError
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.urls import is_loopback
from django_baikal.values import KNOWN, VALIDATORS, shown, unknown

#: Settings that the environment may give, under ENV_PREFIX: the SDK's names.
ENVIRONMENT = (
    "AUTHSERVER_ENDPOINT",
    "CLIENT_ID",
    "CLIENT_SECRET",
    "ISSUER",
    "PRIVATE_CERTS_PATH",
    "CLIENT_KEYS",
    "VERIFY_CERTS",
)
#: These have the same names for every alias, as they had in the SDK.
UNPREFIXED = ("AIOHTTP_SESSION_SIZE", "AIOHTTP_SESSION_DNS_CACHE", "AIOHTTP_SESSION_LIMIT")

_KEYS_FILE = "KEY_ENCRYPTION_KEYS_FILE"

#: The first of each pair must not be less than the second.
ORDERED = (
    ("METADATA_STALE", "METADATA_TTL"),
    ("JWKS_STALE", "JWKS_TTL"),
    ("JWKS_TTL", "JWKS_COOLDOWN"),
)


def aliases() -> list[str]:
    """Give the aliases of ``BAIKAL``; ``default`` is one too where the environment names it."""
    found = list(entries())
    if "default" not in found and (not found or os.environ.get("BAIKAL_AUTHSERVER_ENDPOINT")):
        found.insert(0, "default")
    return found


def entries() -> Mapping[str, Any]:
    """Give the setting ``BAIKAL``, empty where there is none or no settings at all."""
    try:
        value = getattr(settings, "BAIKAL", None)
    except ImproperlyConfigured:
        # A script without Django's settings; the environment and arguments are enough for it.
        if os.environ.get("DJANGO_SETTINGS_MODULE"):
            raise
        value = None
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ConfigurationError('BAIKAL must be a dict of aliases: {"default": {...}}.')
    if flat := [name for name in value if name in KNOWN and not isinstance(value[name], Mapping)]:
        raise ConfigurationError(
            f'BAIKAL must be a dict of aliases: put {flat[0]} into BAIKAL["default"].'
        )
    return value


def entry(alias: str) -> Mapping[str, Any]:
    """Give ``BAIKAL[alias]``, or raise ConfigurationError if there is no such alias."""
    found = entries()
    if alias not in found and alias not in aliases():
        close = get_close_matches(str(alias), aliases(), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigurationError(f"BAIKAL has no alias {alias!r}.{hint}")
    value = found.get(alias, {})
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"BAIKAL[{alias!r}] must be a dict.")
    return value


def environment(alias: str, prefix: object = None) -> dict[str, str]:
    """Give what the environment says for ``alias``: names of settings, and their texts."""
    names = {name: name for name in UNPREFIXED}
    prefix = _env_prefix(alias, prefix)
    if prefix is not None:
        names |= {name: f"{prefix}{name}" for name in ENVIRONMENT}
    return {name: _read(variable) for name, variable in names.items() if os.environ.get(variable)}


def origins(alias: str) -> tuple[Any, ...]:
    """Give what ``merged`` is made from now: as long as this is equal, so is that.

    It is quick, for every request asks. Not of what ``is_settled`` denies.
    """
    try:
        found = getattr(settings, "BAIKAL", None)
    except ImproperlyConfigured:
        found = None
    # Nothing of the other aliases: one without an entry is made of the environment, or not at all.
    own = found.get(alias) if isinstance(found, dict) else found
    prefix = _env_prefix(alias, own.get("ENV_PREFIX") if isinstance(own, dict) else None)
    variables = _encoded(prefix)
    values = () if _RAW.keys().isdisjoint(variables) else tuple(map(_RAW.get, variables))
    return values, own, _version(values[-1]) if values and prefix is not None else None


def is_settled(origins: tuple[Any, ...]) -> bool:
    """Tell whether ``origins`` says it all: "$NAME" is the value of another variable."""
    return not any(value and value[:1] in ("$", b"$") for value in origins[0])


#: What os.environ keeps inside: not public, and ten times as fast for what is not there.
_RAW: Any = vars(os.environ)["_data"]


@lru_cache(maxsize=64)
def _encoded(prefix: str | None) -> tuple[Any, ...]:
    prefixed = () if prefix is None else (*ENVIRONMENT, "KEY_ENCRYPTION_KEYS", _KEYS_FILE)
    names = (*UNPREFIXED, *(f"{prefix}{name}" for name in prefixed))
    return tuple(os.environ.encodekey(name) for name in names)


def _version(path: Any) -> tuple[int, ...] | None:
    """Tell the versions of a file apart, if there is one."""
    try:
        found = os.stat(path) if path else None
    except OSError:
        found = None
    return found and (found.st_mtime_ns, found.st_size, found.st_ino)


def _env_prefix(alias: str, given: object) -> str | None:
    if given is None and alias == "default":
        return "BAIKAL_"
    return given if isinstance(given, str) else None


def _read(variable: str) -> str:
    from environ import Env

    text = os.environ[variable]
    if text.startswith("$"):
        # django-environ takes the rest for the name of another variable, and logs it; it may as
        # well be a secret that begins so.
        other = os.environ.get(text.lstrip("$"), "")
        if not other or other.startswith("$"):
            return text
    return str(Env().str(variable))


def problems(alias: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Check what is given for ``alias``: good values by field, and (key, sentence) of the bad."""
    values: dict[str, Any] = {}
    wrong: list[tuple[str, str]] = []
    for name, value in given.items():
        if name not in KNOWN:
            wrong.append((str(name), unknown(name, KNOWN)))
        else:
            try:
                values[name.lower()] = VALIDATORS[name](value)
            except ValueError as error:
                wrong.append((name, f"{name} {error}{shown(name, value)}."))
    prefix = _env_prefix(alias, values.pop("env_prefix", None))
    wrong.extend(_together(values, {name for name, _ in wrong}, prefix))
    return values, wrong


def _together(
    values: Mapping[str, Any], wrong: set[str], prefix: str | None
) -> Iterator[tuple[str, str]]:
    """Give what is wrong with the values as a whole; keys in ``wrong`` were reported before."""
    required = ["AUTHSERVER_ENDPOINT", "CLIENT_ID"]
    if values.get("client_auth_method") != "private_key_jwt":
        required.append("CLIENT_SECRET")
    for name in required:
        if not values.get(name.lower()) and name not in wrong:
            variable = "" if prefix is None else f" (or the variable {prefix}{name})"
            yield name, f"{name} is missing{variable}."
    endpoint = values.get("authserver_endpoint", "")
    if endpoint.lower().startswith("http:") and not (
        values.get("allow_http") or is_loopback(endpoint)
    ):
        sentence = (
            f"AUTHSERVER_ENDPOINT must be https (it is {endpoint!r}); ALLOW_HTTP lets plain http "
            "pass, for development only."
        )
        yield "AUTHSERVER_ENDPOINT", sentence
    defaults = ClientConfig()
    for pair in ORDERED:
        larger, smaller = (
            values.get(name.lower(), getattr(defaults, name.lower())) for name in pair
        )
        if larger < smaller:
            yield pair[0], f"{pair[0]} must not be less than {pair[1]}."


@sensitive_variables()
def client_config(alias: str, explicit: Mapping[str, Any] | None = None) -> ClientConfig:
    """Make the ``ClientConfig`` of ``alias``: explicit values, over ``BAIKAL``, over environment.

    ``explicit``: settings by name in capitals; None means omitted. Raises ConfigurationError
    with the first thing that is wrong, in the words of ``manage.py check``.
    """
    values, wrong = problems(alias, merged(alias, explicit))
    if wrong:
        raise ConfigurationError(f"BAIKAL[{alias!r}]: {wrong[0][1]}")
    return ClientConfig(alias=alias, **values)


def merged(alias: str, explicit: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Give all that is said about ``alias``, unchecked, the strongest source last."""
    own = {name: value for name, value in (explicit or {}).items() if value is not None}
    base = entry(alias) if alias in aliases() or not own else {}
    prefix = own.get("ENV_PREFIX", base.get("ENV_PREFIX"))
    found = {**environment(alias, prefix), **base, **own}
    if isinstance(found.get("KEYS"), Mapping):
        found["KEYS"] = _with_encryption_keys(found["KEYS"], _env_prefix(alias, prefix))
    return found


def _with_encryption_keys(keys: Mapping[str, Any], prefix: str | None) -> Mapping[str, Any]:
    """Complete KEYS with the environment's KEY_ENCRYPTION_KEYS, or those of the _FILE it names."""
    options = keys.get("OPTIONS", {})
    variable = f"{prefix}KEY_ENCRYPTION_KEYS"
    if prefix is None or not isinstance(options, Mapping) or "ENCRYPTION_KEYS" in options:
        return keys
    text = os.environ.get(variable, "")
    if not text and (path := os.environ.get(f"{prefix}{_KEYS_FILE}")):
        try:
            with open(path, encoding="ascii") as opened:
                text = opened.read()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", "it is not ASCII")
            raise ConfigurationError(f"{variable}_FILE cannot be read: {why}.") from None
    given = [part.strip() for part in text.replace("\n", ",").split(",") if part.strip()]
    return {**keys, "OPTIONS": {**options, "ENCRYPTION_KEYS": given}} if given else keys
