"""One entry of ``BAIKAL``, completed from the environment and checked: a ``ClientConfig``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from django_baikal.exceptions import ConfigurationError
from django_baikal.protocol.client_auth import METHODS
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.urls import is_loopback, origin, split_http_url

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
MAX_ASSERTION_LIFETIME = 3600
KEY_FIELDS = ("key", "format", "passphrase", "kid", "alg")

_BOOLEANS = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a string")
    if not value.isprintable():
        raise ValueError("has a character that cannot be printed")
    return value


def _endpoint(value: Any) -> str:
    try:
        split_http_url(_text(value))
        if "?" in value:
            raise ValueError("it has a query")
    except ValueError as error:
        raise ValueError(f"is not the base URL of an authserver: {error}") from None
    return str(value)


def _path(value: Any) -> str:
    if not isinstance(value, str | os.PathLike) or "-----BEGIN" in str(value):
        raise ValueError("must be a path")
    return str(os.fspath(value))


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be True or False")
    return value


def _verify_certs(value: Any) -> bool | str:
    if isinstance(value, bool):
        return value
    path = _path(value)
    if path.lower() in _BOOLEANS:
        return _BOOLEANS[path.lower()]
    if not os.path.exists(path):
        raise ValueError("must be True, False, or the path of a CA bundle that exists")
    return path


def _client_cert(value: Any) -> tuple[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError("must be two paths: the certificate's and its key's")
    return _path(value[0]), _path(value[1])


def _number(value: Any) -> float:
    if isinstance(value, str):
        try:
            value = float(value) if "." in value else int(value)
        except ValueError:
            raise ValueError("must be a number") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise ValueError("must be a number that is not negative")
    return value


def _positive(value: Any) -> float:
    number = _number(value)
    if number == 0:
        raise ValueError("must be more than 0")
    return number


def _positive_int(value: Any) -> int:
    number = _positive(value)
    if not isinstance(number, int):
        raise ValueError("must be a whole number")
    return number


def _lifetime(value: Any) -> float:
    number = _positive(value)
    if number > MAX_ASSERTION_LIFETIME:
        raise ValueError(f"must be at most {MAX_ASSERTION_LIFETIME} seconds")
    return number


def _choice(*choices: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"must be {', '.join(map(repr, choices[:-1]))} or {choices[-1]!r}")
        return str(value)

    return check


def _origins(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple | set | frozenset):
        raise ValueError("must be a list of origins such as 'https://auth.example.com'")
    try:
        return tuple(origin(item) for item in value)
    except ValueError as error:
        raise ValueError(f"has an origin that is not one: {error}") from None


def _client_keys(value: Any) -> tuple[Mapping[str, Any], ...]:
    if isinstance(value, str):
        value = _keys_from_environment(value)
    if not isinstance(value, list | tuple):
        raise ValueError('must be a list of {"key": ..., "format": ...}')
    for index, entry in enumerate(value):
        if not isinstance(entry, Mapping) or not isinstance(entry.get("key"), str | bytes):
            raise ValueError(f'must be a list of {{"key": ...}}; entry {index} has no "key"')
        for name in entry:
            if name not in KEY_FIELDS:
                raise ValueError(f"entry {index}: {_unknown(name, KEY_FIELDS)}")
            kinds = str | bytes | None if name in ("key", "passphrase") else str | None
            if not isinstance(entry[name], kinds):
                raise ValueError(f"entry {index}: {name!r} must be a string")
    return tuple(dict(entry) for entry in value)


def _keys_from_environment(value: str) -> Any:
    """Read the list from JSON; anything else is one key by itself."""
    import json

    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError("is not valid JSON") from None
    if "-----BEGIN" not in value and not value.lstrip().startswith("{"):
        # The SDK had the issuer at this place of its arguments.
        raise ValueError("must be a list, or in the environment JSON or PEM")
    return [{"key": value}]


def _prefix(value: Any) -> str | None:
    return None if value is None else _text(value)


_VALIDATORS: dict[str, Callable[[Any], Any]] = {
    "AUTHSERVER_ENDPOINT": _endpoint,
    "AUTHSERVER_ISSUER": _text,
    "CLIENT_ID": _text,
    "CLIENT_SECRET": _text,
    "CLIENT_AUTH_METHOD": _choice(*METHODS),
    "ISSUER": _text,
    "PRIVATE_CERTS_PATH": _path,
    "CLIENT_KEYS": _client_keys,
    "ASSERTION_LIFETIME": _lifetime,
    "ASSERTION_AUDIENCE": _choice("issuer", "token_endpoint"),
    "VERIFY_CERTS": _verify_certs,
    "CLIENT_CERT": _client_cert,
    "TRUST_ENV": _boolean,
    "ALLOW_HTTP": _boolean,
    "TIMEOUT": _positive,
    "INTROSPECTION_TIMEOUT": _positive,
    "MAX_RESPONSE_SIZE": _positive_int,
    "ENDPOINT_ORIGINS": _origins,
    "METADATA_TTL": _number,
    "METADATA_STALE": _number,
    "CACHE": _text,
    "TOKEN_LEEWAY": _number,
    "CLOCK_SKEW": _number,
    "AIOHTTP_SESSION_SIZE": _positive_int,
    "AIOHTTP_SESSION_DNS_CACHE": _number,
    "AIOHTTP_SESSION_LIMIT": _positive_int,
    "ENV_PREFIX": _prefix,
}
#: Every key that an entry of BAIKAL may have.
KNOWN = tuple(_VALIDATORS)
_SECRET = {field.name.upper() for field in fields(ClientConfig) if field.metadata.get("secret")}


def _unknown(name: object, known: tuple[str, ...]) -> str:
    shown = name if isinstance(name, str) else repr(name)
    close = get_close_matches(shown.upper(), [key.upper() for key in known], n=1)
    hint = next((f" Did you mean {key!r}?" for key in known if close == [key.upper()]), "")
    return f"Unknown key {name!r}.{hint}"


def _shown(name: str, value: Any) -> str:
    """Quote a wrong value, unless it is a secret or may hold one (a key, a URL's password)."""
    text = repr(value)
    hidden = name in _SECRET or "-----BEGIN" in text or "@" in text
    return "" if hidden else f" (it is {text})"


def aliases() -> list[str]:
    """Give the aliases of ``BAIKAL``; ``default`` is one too where the environment names it."""
    found = list(entries())
    if "default" not in found and (not found or os.environ.get("BAIKAL_AUTHSERVER_ENDPOINT")):
        found.insert(0, "default")
    return found


def entries() -> Mapping[str, Any]:
    """Give the setting ``BAIKAL``, empty where there is none or no settings at all."""
    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured

    try:
        value = getattr(settings, "BAIKAL", None)
    except ImproperlyConfigured:
        # A script without Django's settings; the environment and arguments are enough for it.
        if os.environ.get("DJANGO_SETTINGS_MODULE"):
            raise
        value = None
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigurationError('BAIKAL must be a dict of aliases: {"default": {...}}.')
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
            wrong.append((str(name), _unknown(name, KNOWN)))
        else:
            try:
                values[name.lower()] = _VALIDATORS[name](value)
            except ValueError as error:
                wrong.append((name, f"{name} {error}{_shown(name, value)}."))
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
    ttl, stale = (
        values.get(name, getattr(defaults, name)) for name in ("metadata_ttl", "metadata_stale")
    )
    if ttl > stale:
        yield "METADATA_STALE", "METADATA_STALE must not be less than METADATA_TTL."


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
    return {**environment(alias, prefix), **base, **own}
