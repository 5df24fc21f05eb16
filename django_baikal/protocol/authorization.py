"""The authorization request (RFC 6749 section 4.1.1, PKCE RFC 7636)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from django_baikal.exceptions import ConfigurationError, InvalidResponse
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.jwk import b64url_encode
from django_baikal.protocol.messages import Names, names, text

#: What the client itself says; an extra parameter of that name would say it twice.
_OWN = ("client_id", "redirect_uri", "scope", "purpose")


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """Where to send the user, and what to keep in the session until the answer comes.

    ``url``: the redirect's target. ``state``: must come back equal. ``nonce`` and
    ``code_verifier``: for ``grant_code``. All of it is secret to this user's session.
    """

    url: str = field(repr=False)
    state: str = field(repr=False)
    nonce: str = field(repr=False)
    code_verifier: str = field(repr=False)


def code_challenge(code_verifier: str) -> str:
    """Give the S256 challenge of a verifier (RFC 7636 section 4.2)."""
    return b64url_encode(hashlib.sha256(code_verifier.encode("ascii")).digest())


def authorization_parameters(
    config: ClientConfig,
    scopes: Names,
    purposes: Names,
    redirect_uri: str | None,
    extra: Mapping[str, Any],
) -> list[tuple[str, str]]:
    """Give the parameters of the request in order; raise ConfigurationError for a wrong argument.

    ``extra`` values may be strings, numbers, or iterables of strings (joined by spaces); None
    leaves a parameter out.
    """
    parameters = {"response_type": "code", "client_id": config.client_id}
    for name, value in (
        ("scope", names(scopes, "scopes")),
        ("purpose", names(purposes, "purposes")),
    ):
        if value:
            parameters[name] = " ".join(value)
    parameters["redirect_uri"] = text(redirect_uri, "redirect_uri")
    for name, value in extra.items():
        if name in _OWN:
            raise ConfigurationError(f"{name!r} is not an extra parameter: the client sets it.")
        if value is not None:
            parameters[name] = _extra_value(name, value)
    return list(parameters.items())


def _extra_value(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, Iterable) and not isinstance(value, Mapping):
        items = [*value]
        if all(isinstance(item, str) for item in items):
            return " ".join(items)
    raise ConfigurationError(f"{name!r} must be a string, a number or an iterable of strings.")


def authorization_url(endpoint: str, parameters: list[tuple[str, str]]) -> str:
    """Put ``parameters`` after the query that ``endpoint`` may have, each encoded (section 3.1)."""
    query = urlsplit(endpoint).query
    ours = {name for name, _ in parameters}
    if any(name in ours for name, _ in parse_qsl(query, keep_blank_values=True)):
        raise InvalidResponse(
            "The authorization_endpoint already has a parameter that the request must set."
        )
    try:
        encoded = urlencode(parameters)
    except UnicodeEncodeError:
        raise ConfigurationError("An argument is not valid Unicode text.") from None
    separator = "" if endpoint.endswith(("?", "&")) else "&" if query else "?"
    return f"{endpoint}{separator}{encoded}"
