"""Who has read our published documents: the proof that the authserver came and looked."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import count
from typing import NamedTuple

from django.http import HttpRequest, HttpResponse


class Visit(NamedTuple):
    """One request that was answered; each has the next number."""

    number: int
    path: str


_numbers = count(1)
_seen: deque[Visit] = deque([Visit(0, "")], maxlen=100)


def record_visits(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Keep in mind who asks for ``/.well-known/...``; a middleware."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        if "/.well-known/" in request.path and response.status_code == 200:
            _seen.append(Visit(next(_numbers), request.path))
        return response

    return middleware


def latest() -> Visit:
    """Give the latest visit of all."""
    return _seen[-1]


def since(visit: Visit) -> list[str]:
    """Give the paths that this process has given out since ``visit``, in their order."""
    return [each.path for each in _seen.copy() if each.number > visit.number]
