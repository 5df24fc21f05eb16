"""A span for each request to the authserver, within whatever span it was made in.

It holds no URL, header, token or name of a user, and nothing about it is sent to the authserver:
that is somebody else's system, and a trace is nothing that it asked for.
"""

from __future__ import annotations

import time
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from django_baikal import __version__, signals


def called(
    *, using: str, endpoint: str, status: int | None, error: Any, seconds: float, **_: Any
) -> None:
    """Make the span of a request that is over."""
    now = time.time_ns()
    attributes: dict[str, str | int] = {"baikal.alias": using, "baikal.endpoint": endpoint}
    if status is not None:
        attributes["http.response.status_code"] = status
    failure = error.code if error is not None else str(status) if (status or 0) >= 400 else ""
    if failure:
        attributes["error.type"] = failure
    tracer = trace.get_tracer("django_baikal", __version__)
    span = tracer.start_span(
        f"authserver {endpoint}",
        kind=SpanKind.CLIENT,
        attributes=attributes,
        start_time=now - int(seconds * 1e9),
    )
    if failure:
        span.set_status(Status(StatusCode.ERROR))
    span.end(now)


def connect() -> None:
    """Begin to make spans."""
    signals.authserver_called.connect(called)
