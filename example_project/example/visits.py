"""Who has read our published documents: the proof that the authserver came and looked."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from django.http import HttpRequest, HttpResponse


class Visit(NamedTuple):
    """One request that was answered; ``at`` is on the clock of ``time.monotonic``."""

    at: float
    path: str


_seen: deque[Visit] = deque(maxlen=100)


def record_visits(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Keep in mind who asks for ``/.well-known/...``; a middleware."""

    def middleware(request: HttpRequest) -> HttpResponse:
        at, response = time.monotonic(), get_response(request)
        if "/.well-known/" in request.path and response.status_code == 200:
            _seen.append(Visit(at, request.path))
        return response

    return middleware


def since(at: float) -> list[str]:
    """Give the paths that this process has given out since ``at``, in their order."""
    return [visit.path for visit in _seen.copy() if visit.at >= at]
