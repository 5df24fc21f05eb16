"""Requests and answers of the fake authserver: forms, JSON, refusals and the record of them all."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload
from urllib.parse import parse_qsl, urlsplit

from django_baikal.protocol.effects import Request, Response

_MAX_FIELDS = 100
_SECRET_FIELDS = frozenset(
    [
        "client_secret",
        "client_assertion",
        "assertion",
        "code",
        "code_verifier",
        "refresh_token",
        "token",
        "sub",
        "login_hint",
        "identifier",
        "state",
        "nonce",
    ]
)
_NOT_IN_DESCRIPTION = re.compile(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]")
_LONG_NUMBER = re.compile(r"\+?\d{7,}")
_FORM = "application/x-www-form-urlencoded"


class Refused(Exception):
    """The authserver says no: ``status`` and ``error`` (RFC 6749 section 5.2), and why in words."""

    def __init__(
        self,
        error: str,
        description: str,
        *,
        status: int = 400,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(description)
        self.error = error
        self.description = _NOT_IN_DESCRIPTION.sub("'", description)
        self.status = status
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """Give the answer that says so."""
        body = {"error": self.error, "error_description": self.description}
        return json_response(body, status=self.status, headers=self.headers)


def json_response(
    body: Mapping[str, Any], *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer with JSON that nobody may keep (RFC 6749 section 5.1)."""
    every = {"content-type": "application/json", "cache-control": "no-store", "pragma": "no-cache"}
    every |= {name.lower(): value for name, value in (headers or {}).items()}
    return Response(status, every, json.dumps(body).encode())


def digest(text: str) -> str:
    """Give the 8 hex digits of the SHA-256 by which a token may be named."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def mask(text: str) -> str:
    """Give ``text`` printable, on one line, and with everything like a phone number masked."""
    visible = "".join(char if char.isprintable() else "?" for char in text)
    return _LONG_NUMBER.sub("***", visible)


def unique_pairs(text: str) -> dict[str, str]:
    """Parse form-encoded ``text``; raise Refused if malformed or if a name stands twice.

    A parameter without a value counts as omitted (RFC 6749 section 3.1).
    """
    try:
        pairs = parse_qsl(
            text,
            keep_blank_values=True,
            strict_parsing=bool(text),
            errors="strict",
            max_num_fields=_MAX_FIELDS,
        )
    except ValueError:
        raise Refused("invalid_request", "The parameters are not form-encoded UTF-8.") from None
    for name, times in Counter(name for name, _ in pairs).items():
        if times > 1:
            raise Refused(
                "invalid_request", f"The parameter {mask(name)[:40]!r} stands {times} times."
            )
    return {name: value for name, value in pairs if value}


def read_form(call: RecordedRequest) -> dict[str, str]:
    """Give the form of a POST, or raise Refused if it is not exactly that."""
    if call.method != "POST":
        raise Refused(
            "invalid_request", f"{call.method} is not for here.", status=405, headers=_ALLOW_POST
        )
    if urlsplit(call.url).query:
        raise Refused("invalid_request", "Parameters belong in the body, not in the URL.")
    media_type = call.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != _FORM:
        raise Refused("invalid_request", f"The content type must be {_FORM}.")
    try:
        text = (call.body or b"").decode("ascii")
    except UnicodeDecodeError:
        raise Refused("invalid_request", "The parameters are not form-encoded UTF-8.") from None
    return unique_pairs(text)


_ALLOW_POST = {"allow": "POST"}


@dataclass(slots=True)
class RecordedRequest:
    """One request that arrived, and what became of it; the repr shows no secret.

    ``endpoint``: "discovery", "jwks", "token", "introspection", "revocation", "authorization" or
    "unknown". ``form``: the parameters, of the body or else of the URL. ``headers``: names in
    lower case. ``client_id``, ``client_auth_method``: who has proved to be the sender, and how.
    ``status``: of the answer, None while there is none. ``error``, ``description``: why it was
    refused. ``fault``: whether ``fail()`` made the answer. ``at``: the authserver's time.
    """

    endpoint: str
    method: str
    url: str
    headers: dict[str, str] = field(repr=False)
    form: dict[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)
    at: float
    client_id: str | None = None
    client_auth_method: str | None = None
    status: int | None = None
    error: str | None = None
    description: str = ""
    fault: bool = False

    @classmethod
    def of(cls, endpoint: str, request: Request, *, at: float) -> RecordedRequest:
        """Record ``request``, whatever it looks like."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        query = urlsplit(request.url).query
        raw = request.body.decode("utf-8", "replace") if request.body else query
        form = dict(parse_qsl(raw, keep_blank_values=True))
        return cls(endpoint, request.method, request.url, headers, form, request.body, at)

    @property
    def outcome(self) -> str:
        """What became of it: "ok", the OAuth error, "http_503" or the like, or "pending"."""
        if self.status is None:
            return "pending"
        return self.error or ("ok" if self.status < 400 else f"http_{self.status}")

    def __repr__(self) -> str:
        path = urlsplit(self.url).path
        shown = {
            name: f"sha256:{digest(value)}" if name in _SECRET_FIELDS else mask(value)
            for name, value in self.form.items()
        }
        return f"<{self.method} {mask(path)} {shown} {self.outcome} {mask(self.description)!r}>"


class RequestLog(Sequence[RecordedRequest]):
    """The requests that arrived, in their order; of very many only the newest are kept."""

    def __init__(self, size: int = 10_000) -> None:
        self._kept: deque[RecordedRequest] = deque(maxlen=size)
        self._totals: Counter[str] = Counter()
        self._lock = threading.Lock()

    def append(self, call: RecordedRequest) -> None:
        """Record one more."""
        with self._lock:
            self._kept.append(call)
            self._totals[call.endpoint] += 1

    def clear(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._kept.clear()
            self._totals.clear()

    def count(self, value: Any = None) -> int:
        """Count the requests to the endpoint of this name, or all of them."""
        with self._lock:
            return self._totals.total() if value is None else self._totals[value]

    def to(self, endpoint: str) -> list[RecordedRequest]:
        """Give the requests to the endpoint of this name."""
        return [call for call in self._snapshot() if call.endpoint == endpoint]

    def _snapshot(self) -> list[RecordedRequest]:
        with self._lock:
            return list(self._kept)

    @overload
    def __getitem__(self, index: int) -> RecordedRequest: ...

    @overload
    def __getitem__(self, index: slice) -> list[RecordedRequest]: ...

    def __getitem__(self, index: int | slice) -> RecordedRequest | list[RecordedRequest]:
        return self._snapshot()[index]

    def __len__(self) -> int:
        return len(self._kept)

    def __repr__(self) -> str:
        return f"<{len(self)} requests: {self._snapshot()!r}>"


def scope_tokens(text: str) -> list[str]:
    """Split a scope as RFC 6749 section 3.3 spells it, or raise Refused."""
    tokens = text.split(" ") if text else []
    if not all(_SCOPE_TOKEN.fullmatch(token) for token in tokens):
        raise Refused("invalid_scope", "A scope is words with one space between them.")
    return tokens


_SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


def strings(value: str | Iterable[str]) -> tuple[str, ...]:
    """Give one string or several as a tuple."""
    return (value,) if isinstance(value, str) else tuple(value)
