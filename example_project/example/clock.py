"""A clock that can be moved on, so that days pass in no time.

It is the clock of this process: of the site, of its keys, and of the demo's authserver. It goes
forward only, as time does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from unittest.mock import patch

from django.utils import timezone

#: How far it was moved on; None where it cannot be moved.
_ahead: timedelta | None = None


def ahead() -> timedelta | None:
    """Give how far this process is ahead of its time, or None where nobody can move its clock."""
    return _ahead


def forward(length: timedelta) -> None:
    """Let ``length`` pass; raise RuntimeError outside of ``movable()``."""
    global _ahead
    if _ahead is None:
        raise RuntimeError("The clock of this process cannot be moved.")
    _ahead += length


@contextmanager
def movable() -> Iterator[None]:
    """Let ``forward`` move what this process takes for the time, until the block ends."""
    global _ahead
    wall, monotonic, now = time.time, time.monotonic, timezone.now
    with ExitStack() as stack:
        for owner, name, moved in (
            (time, "time", lambda: wall() + _seconds()),
            (time, "monotonic", lambda: monotonic() + _seconds()),
            (timezone, "now", lambda: now() + (_ahead or timedelta())),
        ):
            stack.enter_context(patch.object(owner, name, moved))
        _ahead = timedelta()
        try:
            yield
        finally:
            _ahead = None


def _seconds() -> float:
    return (_ahead or timedelta()).total_seconds()
