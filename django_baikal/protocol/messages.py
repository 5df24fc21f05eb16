"""What all back-channel messages share: forms out, JSON in, errors in words (RFC 6749)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, TypeAlias
from urllib.parse import quote_plus, urlencode

from django_baikal.exceptions import (
    AuthserverUnavailable,
    ConfigurationError,
    InvalidResponse,
    OAuthError,
)
from django_baikal.protocol.effects import Request, Response
from django_baikal.protocol.strict_json import loads_object
from django_baikal.protocol.urls import without_query

USER_AGENT = "django-baikal"
MAX_RETRY_AFTER = 86400.0

Names: TypeAlias = str | Iterable[str] | None
Form: TypeAlias = Sequence[tuple[str, str]]

#: Form fields whose values are credentials; a server that echoes one must not put it in a log.
SENSITIVE_FIELDS = frozenset(
    {
        "assertion",
        "client_assertion",
        "client_secret",
        "code",
        "code_verifier",
        "refresh_token",
        "token",
    }
)
_OWN_HEADERS = frozenset(
    {
        "accept",
        "accept-encoding",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?")
SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]{6,}[A-Za-z0-9_.=-]*")
_PHONE = re.compile(r"\+?\d(?:[ ().-]?\d){7,}")


def names(value: Names, what: str) -> tuple[str, ...]:
    """Give scopes or purposes as a tuple: a string is split at spaces, an iterable taken as it is.

    ``what`` names the argument in the ConfigurationError that a wrong value raises.
    """
    if value is None:
        return ()
    try:
        items = value.split() if isinstance(value, str) else [*value]
        found = [token for item in items for token in item.split()]
        if all(SCOPE_TOKEN.fullmatch(token) for token in found):
            return tuple(dict.fromkeys(found))
    except (TypeError, AttributeError):
        pass
    raise ConfigurationError(
        f"{what} must be a string or an iterable of strings of printable ASCII characters "
        'without quotes (" and \\).'
    )


def text(value: object, what: str) -> str:
    """Give ``value`` if it is a string with something in it, or raise ConfigurationError."""
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"{what} must be a string that is not empty.")
    return value


def extra_headers(headers: Any) -> dict[str, str]:
    """Check a caller's headers: none that the client itself sets, nothing that ends a line."""
    if headers is not None and not isinstance(headers, Mapping):
        raise ConfigurationError("headers must be a mapping of names to values.")
    seen = set()
    for name, value in (headers or {}).items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise ConfigurationError(f"headers: {name!r} is not a header name.")
        if name.lower() in _OWN_HEADERS:
            raise ConfigurationError(f"headers: {name!r} is set by the client itself.")
        if name.lower() in seen:
            raise ConfigurationError(f"headers: {name!r} stands there twice.")
        seen.add(name.lower())
        if not isinstance(value, str) or (value and not _HEADER_VALUE.fullmatch(value)):
            raise ConfigurationError(
                f"headers: the value of {name!r} must be printable ASCII without line breaks."
            )
    return dict(headers or {})


def form_request(url: str, form: Form, headers: Mapping[str, str]) -> Request:
    """Make a POST of ``form``, application/x-www-form-urlencoded in UTF-8."""
    try:
        body = urlencode(form).encode("ascii")
    except UnicodeEncodeError:
        raise ConfigurationError("An argument is not valid Unicode text.") from None
    return Request(
        "POST",
        url,
        {**default_headers(headers), "Content-Type": "application/x-www-form-urlencoded"},
        body,
    )


def default_headers(headers: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give the headers of every request; a caller's User-Agent replaces ours."""
    own = {"Accept": "application/json", "Accept-Encoding": "identity"}
    given = headers or {}
    if not any(name.lower() == "user-agent" for name in given):
        own["User-Agent"] = USER_AGENT
    return {**own, **given}


def json_body(response: Response) -> dict[str, Any]:
    """Give the JSON object in the body, or raise ValueError with the reason."""
    kind = response.headers.get("content-type", "").split(";", 1)[0].strip().lower()
    if kind != "application/json" and not (
        kind.startswith("application/") and kind.endswith("+json")
    ):
        raise ValueError("its Content-Type is not application/json")
    return loads_object(response.body)


def json_answer(response: Response, url: str) -> dict[str, Any]:
    """Give the JSON object of a good answer from ``url``, or raise InvalidResponse."""
    try:
        return json_body(response)
    except ValueError as error:
        raise InvalidResponse(
            f"{without_query(url)} sent an answer that cannot be used: {error}.",
            status=response.status,
        ) from None


def mask(words: str, sensitive: Iterable[str]) -> str:
    """Take what must not reach a log out of somebody else's words: credentials, phone numbers."""
    for value in sorted({*sensitive}, key=len, reverse=True):
        if len(value) >= 3:
            words = words.replace(value, "***").replace(quote_plus(value, errors="replace"), "***")
    return printable(_PHONE.sub("***", _JWT.sub("***", words)))


def printable(words: str) -> str:
    """Make somebody else's words fit for one line of a message."""
    words = "".join(char if char.isprintable() else " " for char in words)
    return words if len(words) <= 300 else f"{words[:299]}…"


def retry_after(response: Response, wall: float) -> float | None:
    """Give Retry-After in seconds from ``wall`` (RFC 9110 section 10.2.3), at most a day."""
    value = response.headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return min(float(value), MAX_RETRY_AFTER)
    try:
        date = parsedate_to_datetime(value)
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        return min(max(math.ceil(date.timestamp() - wall), 0.0), MAX_RETRY_AFTER)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def raise_for_error(
    response: Response, url: str, *, wall: float, sensitive: Iterable[str] = ()
) -> None:
    """Raise what a status other than 200 means; ``sensitive`` values are masked in the words."""
    status = response.status
    if status == 200:
        return
    try:
        body = json_body(response)
    except ValueError:
        body = {}
    sensitive = tuple(sensitive)
    error, description = (
        mask(str(value), sensitive) if isinstance(value, str | int) else None
        for value in (
            body.get("error", body.get("code")),
            body.get("error_description", body.get("message")),
        )
    )
    where = without_query(url)
    said = ": ".join(part for part in (error, description) if part)
    details: dict[str, Any] = {
        "status": status,
        "error": error,
        "description": description,
        "retry_after": retry_after(response, wall),
    }
    if status == 429 or status >= 500:
        raise AuthserverUnavailable(f"{where} answered {status}{said and f' ({said})'}.", **details)
    if 300 <= status < 400:
        raise InvalidResponse(
            f"{where} answered with a redirect ({status}), which is not followed.", **details
        )
    if status == 401 and not error:
        details["error"] = said = "invalid_client"
    if status >= 400 and details["error"]:
        raise OAuthError(f"{where} refused ({status}): {said}", **details)
    raise InvalidResponse(f"{where} answered {status}, which is not expected.", **details)
