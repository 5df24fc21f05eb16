"""Faults on purpose: errors, garbage, delays and silence."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any, Self

from django_baikal.protocol.effects import Response
from django_baikal.testing.state import PATHS

ENDPOINT_NAMES = (*PATHS, "*")
GARBAGE = ("html", "not-json", "truncated", "empty")

_HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Proxy login</body></html>"
_ERRORS = {400: "invalid_request", 401: "invalid_client", 403: "access_denied"}
_JSON = {"content-type": "application/json"}


class Fault:
    """One fault; ``lift()`` ends it, and so does the end of a ``with`` block.

    ``hits`` counts the requests that it has met.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        status: int | None,
        body: Mapping[str, Any] | str | bytes | None,
        headers: Mapping[str, str] | None,
        delay: float | None,
        hang: bool,
        garbage: bool | str,
        times: int | None,
    ) -> None:
        if endpoint not in ENDPOINT_NAMES:
            raise ValueError(f"Unknown endpoint {endpoint!r}; use {', '.join(ENDPOINT_NAMES)}.")
        kind = "html" if garbage is True else garbage
        if kind and kind not in GARBAGE:
            raise ValueError(f"Unknown garbage {garbage!r}; use {', '.join(GARBAGE)} or True.")
        if times is not None and times < 1:
            raise ValueError("times must be at least 1.")
        if not (status or delay or hang or kind or headers) and body is None:
            status = 503
        self.endpoint = endpoint
        self.status = status
        self.body = body
        self.headers = {name.lower(): value for name, value in (headers or {}).items()}
        self.delay = delay or 0.0
        self.hang = hang
        self.garbage = kind
        self.hits = 0
        self._left = times
        self._lifted = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.lift()

    def lift(self) -> None:
        """End the fault; requests that hang are answered now."""
        self._lifted.set()

    @property
    def over(self) -> bool:
        """Whether it meets no request any more."""
        return self._lifted.is_set() or self._left == 0

    def take(self, endpoint: str) -> bool:
        """Tell whether the fault meets a request to ``endpoint``, and count it."""
        with self._lock:
            if self.endpoint not in (endpoint, "*") or self.over:
                return False
            self.hits += 1
            if self._left is not None:
                self._left -= 1
            return True

    def wait(self, stop: threading.Event | None = None) -> bool:
        """Wait for as long as the fault says; False if ``stop`` was set meanwhile."""
        never = stop or threading.Event()
        if never.wait(self.delay):
            return False
        while self.hang and not self._lifted.wait(0.02):
            if never.is_set():
                return False
        return True

    def replaces(self) -> bool:
        """Tell whether the endpoint is not asked at all."""
        whole = self.garbage and self.garbage != "truncated"
        return bool(self.status is not None or self.body is not None or whole)

    def response(self, genuine: Response | None) -> Response:
        """Give the answer to send, made of the ``genuine`` one if the endpoint was asked."""
        if self.garbage == "truncated" and genuine is not None:
            body = genuine.body[: len(genuine.body) // 2]
            return Response(genuine.status, {**genuine.headers, **self.headers}, body)
        if genuine is not None:
            return Response(genuine.status, {**genuine.headers, **self.headers}, genuine.body)
        status = self.status or 200
        if self.garbage:
            headers, body = self._garbage()
        elif isinstance(self.body, str | bytes):
            headers = {"content-type": "text/plain; charset=utf-8"}
            body = self.body.encode() if isinstance(self.body, str) else self.body
        else:
            headers, body = _JSON, json.dumps(self._json(status)).encode()
        return Response(status, {**headers, **self.headers}, body)

    def _garbage(self) -> tuple[dict[str, str], bytes]:
        if self.garbage == "html":
            return {"content-type": "text/html; charset=utf-8"}, _HTML
        return _JSON, b"" if self.garbage == "empty" else b"{'access_token': nope"

    def _json(self, status: int) -> Mapping[str, Any]:
        if isinstance(self.body, Mapping):
            return self.body
        if status < 400:
            return {}
        error = _ERRORS.get(status, "temporarily_unavailable" if status >= 429 else "error")
        return {"error": error, "error_description": f"A fault on purpose ({status})."}


class Faults:
    """The faults there are; of several that fit, the newest meets the request."""

    def __init__(self) -> None:
        self._all: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        """Add one."""
        with self._lock:
            self._all = [each for each in self._all if not each.over]
            self._all.append(fault)

    def take(self, endpoint: str) -> Fault | None:
        """Give the fault that a request to ``endpoint`` meets."""
        with self._lock:
            return next((fault for fault in reversed(self._all) if fault.take(endpoint)), None)

    def recover(self) -> None:
        """Lift all of them."""
        with self._lock:
            for fault in self._all:
                fault.lift()
            self._all.clear()
