"""Waiting and moving clocks, so that no verdict depends on how fast or how busy a machine is."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest

#: How long what must happen may take, in seconds.
PATIENCE = 60


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until ``condition()`` is true; fail, with ``what`` is awaited, after PATIENCE."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"It took too long until {what}."
        time.sleep(0.01)


@contextlib.contextmanager
def not_held_up() -> Iterator[None]:
    """Assert that the block did not wait for what hangs: that lasts for PATIENCE at least."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < PATIENCE / 2


class Clock:
    """Moves the clocks of this process forward; if ``stopped``, nothing else does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, stopped: bool = False) -> None:
        self.passed = 0.0
        for name in ("time", "monotonic"):
            real = getattr(time, name)
            if stopped:
                now = real()
                monkeypatch.setattr(time, name, lambda now=now: now + self.passed)
            else:
                monkeypatch.setattr(time, name, lambda real=real: real() + self.passed)

    def pass_time(self, seconds: float) -> None:
        self.passed += seconds
