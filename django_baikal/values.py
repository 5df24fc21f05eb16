"""What the value of each setting may be, and the sentence for one that may not."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from django_baikal.protocol.client_auth import METHODS
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.jwk import ALGORITHMS
from django_baikal.protocol.urls import origin, split_http_url

MAX_ASSERTION_LIFETIME = 3600  # seconds, as the SDK's
MIN_JWKS_COOLDOWN = 30  # seconds
KEY_FIELDS = ("key", "format", "passphrase", "kid", "alg")

#: How the environment writes True and False, in any case.
BOOLEANS = {
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
        if "/.well-known/" in value:
            raise ValueError("leave out what begins with /.well-known/")
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
    if path.lower() in BOOLEANS:
        return BOOLEANS[path.lower()]
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


def _cooldown(value: Any) -> float:
    number = _number(value)
    if number < MIN_JWKS_COOLDOWN:
        raise ValueError(
            f"must be at least {MIN_JWKS_COOLDOWN} seconds, for a lower one lets each forged token "
            "cost a request"
        )
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


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple | set | frozenset) or not all(
        isinstance(item, str) and item for item in value
    ):
        raise ValueError("must be a list of strings that are not empty")
    # A set has another order in each process, and the processes share what is named by it.
    return tuple(sorted(value)) if isinstance(value, set | frozenset) else tuple(value)


def _some_names(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not (found := _names(value)):
        raise ValueError("must not be empty, for then no token would do")
    return found


def _each_of(*choices: str | None) -> Callable[[Any], tuple[Any, ...]]:
    def check(value: Any) -> tuple[Any, ...]:
        listed = isinstance(value, list | tuple | set | frozenset)
        if not listed or not value or not all(item in choices for item in value):
            raise ValueError(f"must be a list of some of {', '.join(map(repr, choices))}")
        return tuple(value)

    return check


def _required_claims(value: Any) -> Mapping[str, Any]:
    import json

    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ValueError("must be a dict of claims and their values")
    try:
        # As an answer would bring them: tuples are lists there.
        found: Mapping[str, Any] = json.loads(json.dumps(dict(value), allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        raise ValueError("has a value that is not JSON") from None
    if [] in found.values():
        raise ValueError("has an empty list, and then no token would do")
    return found


def _scope_permissions(value: Any) -> Mapping[str, tuple[str, ...]]:
    if not isinstance(value, Mapping) or not all(isinstance(scope, str) for scope in value):
        raise ValueError("must be a dict of scopes and lists of permissions")
    found = {scope: _names(permissions) for scope, permissions in value.items()}
    if any(name.count(".") != 1 for permissions in found.values() for name in permissions):
        raise ValueError("has a permission that is not named 'app.codename'")
    return found


def _realm(value: Any) -> str:
    if not _text(value).isascii():
        raise ValueError("must be ASCII, for it stands in a header")
    return str(value)


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
                raise ValueError(f"entry {index}: {unknown(name, KEY_FIELDS)}")
            kinds = str | bytes | None if name in ("key", "passphrase") else str | None
            if not isinstance(entry[name], kinds):
                raise ValueError(f"entry {index}: {name!r} must be a string")
    return tuple(dict(entry) for entry in value)


def _keys(value: Any) -> Mapping[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping) or not isinstance(value.get("BACKEND"), str):
        raise ValueError('must be {"BACKEND": dotted path, "OPTIONS": {...}}')
    for name in value:
        if name not in ("BACKEND", "OPTIONS"):
            raise ValueError(unknown(name, ("BACKEND", "OPTIONS")))
    options = value.get("OPTIONS", {})
    if not isinstance(options, Mapping):
        raise ValueError("has OPTIONS that are no dict")
    return {"BACKEND": value["BACKEND"], "OPTIONS": dict(options)}


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


VALIDATORS: dict[str, Callable[[Any], Any]] = {
    "AUTHSERVER_ENDPOINT": _endpoint,
    "AUTHSERVER_ISSUER": _text,
    "CLIENT_ID": _text,
    "CLIENT_SECRET": _text,
    "CLIENT_AUTH_METHOD": _choice(*METHODS),
    "ISSUER": _text,
    "PRIVATE_CERTS_PATH": _path,
    "CLIENT_KEYS": _client_keys,
    "KEYS": _keys,
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
    "JWKS_TTL": _number,
    "JWKS_COOLDOWN": _cooldown,
    "JWKS_STALE": _number,
    "CACHE": _text,
    "PROCESS_TTL": _number,
    "TOKEN_LEEWAY": _number,
    "CLOCK_SKEW": _number,
    "VALIDATION": _choice("introspection", "jwt", "hybrid"),
    "JWT_TYPES": _each_of("at+jwt", "JWT", None),
    "JWT_ALGORITHMS": _each_of(*ALGORITHMS),
    "INTROSPECTION_TTL": _number,
    "INTROSPECTION_NEGATIVE_TTL": _number,
    "STALE_IF_ERROR": _number,
    "AUDIENCES": _some_names,
    "ALLOWED_CLIENTS": _some_names,
    "REQUIRED_CLAIMS": _required_claims,
    "BEARER_LEEWAY": _number,
    "MAX_TOKEN_LENGTH": _positive_int,
    "REALM": _realm,
    "AUTHSERVER_RESOLVER": _text,
    "USER_RESOLVER": _text,
    "SCOPE_PERMISSIONS": _scope_permissions,
    "AIOHTTP_SESSION_SIZE": _positive_int,
    "AIOHTTP_SESSION_DNS_CACHE": _number,
    "AIOHTTP_SESSION_LIMIT": _positive_int,
    "ENV_PREFIX": _prefix,
}
#: Every key that an entry of BAIKAL may have.
KNOWN = tuple(VALIDATORS)
_SECRET = {field.name.upper() for field in fields(ClientConfig) if field.metadata.get("secret")}


def unknown(name: object, known: tuple[str, ...]) -> str:
    """Say that ``name`` is none of ``known``, and which one was probably meant."""
    shown = name if isinstance(name, str) else repr(name)
    close = get_close_matches(shown.upper(), [key.upper() for key in known], n=1)
    hint = next((f" Did you mean {key!r}?" for key in known if close == [key.upper()]), "")
    return f"Unknown key {name!r}.{hint}"


def shown(name: str, value: Any) -> str:
    """Quote a wrong value, unless it is a secret or may hold one (a key, a URL's password)."""
    text = repr(value)
    hidden = name in _SECRET or "-----BEGIN" in text or "@" in text
    return "" if hidden else f" (it is {text})"
