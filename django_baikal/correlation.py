"""The correlator: one name for all log lines and requests that come from one request."""

from __future__ import annotations

import contextlib
import logging
import re
import uuid
from collections.abc import Iterator
from contextvars import ContextVar

#: The header that carries it, from whoever asks us and to whomever we ask.
HEADER = "X-Correlator"

#: What CAMARA's guidelines allow, and nothing but ASCII that stays within a line of a log.
_FORMAT = re.compile(r"[A-Za-z0-9_:;./<>{}-]{1,256}")

_current: ContextVar[str | None] = ContextVar("django_baikal.correlator", default=None)


def current() -> str | None:
    """Give the correlator that is bound here, or None."""
    return _current.get()


@contextlib.contextmanager
def bound(correlator: object = None) -> Iterator[str]:
    """Bind ``correlator`` for what is done inside, and give it.

    A new one (a UUID4) takes the place of none, and of what CAMARA's format does not allow.
    """
    good = isinstance(correlator, str) and _FORMAT.fullmatch(correlator)
    name = good[0] if good else str(uuid.uuid4())
    before = _current.set(name)
    try:
        yield name
    finally:
        # An abandoned coroutine is closed in somebody else's context, where nothing was bound.
        with contextlib.suppress(ValueError):
            _current.reset(before)


def adopt(correlator: str | None) -> None:
    """Bind the correlator of whoever started this thread, until the thread ends."""
    _current.set(correlator)


class CorrelatorFilter(logging.Filter):
    """Gives each record that a handler gets ``correlator``: the one bound here, or ``-``.

    A record about a request (Django's own, of its answer) has that request's. One that a record
    has already stays.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "correlator"):
            request = getattr(record, "request", None)
            record.correlator = current() or getattr(request, "correlator", "-")
        return True
