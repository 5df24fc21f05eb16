"""Made once: what all threads, tasks and processes that share a cache want at the same time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from django_baikal.protocol.effects import (
    CacheAdd,
    CacheDelete,
    CacheGet,
    Flow,
    Instant,
    Now,
    RandomToken,
    Sleep,
)

T = TypeVar("T")

#: How often a process looks whether another one has made what it waits for, in seconds.
POLL = 0.05


def once(
    name: tuple[Any, ...],
    timeout: float,
    good: Callable[[Any, Instant], T | None],
    make: Callable[[], Flow[T]],
    *,
    apart: str | None = None,
) -> Flow[T]:
    """Give what ``good`` finds in the entry under ``name``, or what ``make`` makes (and caches).

    Another process that makes it is waited for during half of the time that there is, and of
    ``timeout`` seconds; it may have died. Those with another ``apart`` are not waited for. Within
    one process, ``Share`` sees to the same.
    """
    lock = ("lock", *name) if apart is None else ("lock", *name, apart)
    owner = yield RandomToken(8)
    start: Instant = yield Now()
    patience = min(timeout, start.left) / 2
    taken = False
    vanished = 0
    try:
        while True:
            # Whole seconds: some caches drop the rest, and would keep no lock at all.
            taken = yield CacheAdd(lock, owner, math.ceil(timeout))
            entry = yield CacheGet(name)
            now: Instant = yield Now()
            if (found := good(entry, now)) is not None:
                return found
            if taken or vanished > 1 or now.monotonic - start.monotonic >= patience:
                return (yield from make())
            if (yield CacheGet(lock)) is None:
                # Given back just now; or, time after time, the cache keeps nothing at all.
                vanished += 1
            else:
                yield Sleep(POLL)
    except GeneratorExit:
        taken = False  # the call is closed, and no effect is performed any more
        raise
    finally:
        if taken and (yield CacheGet(lock)) == owner:
            yield CacheDelete(lock)
