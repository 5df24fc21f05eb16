"""When each key of a ring is published, signs, retires and is trusted last, to be drawn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from django_baikal.keys.rotation import Ring, Timing

R = TypeVar("R", bound=Any)

PUBLISHED, SIGNS, RETIRING, CACHED = "published", "signs", "retiring", "cached"


def span(length: timedelta) -> str:
    """Write a length of time in its two largest units: "6 days 23 hours"."""
    minutes = round(abs(length).total_seconds() / 60)
    if minutes >= 24 * 60:
        days, hours = divmod(round(minutes / 60), 24)
        counts = [(days, "day"), (hours, "hour")]
    else:
        hours, minutes = divmod(minutes, 60)
        counts = [(hours, "hour"), (minutes, "minute")]
    words = [f"{n} {unit}{'s' if n != 1 else ''}" for n, unit in counts if n]
    return " ".join(words) or "less than a minute"


def last_trusted(ring: Ring[R], row: R, timing: Timing) -> datetime | None:
    """Give when the last cache forgets ``row``; None if that has no date yet."""
    cached = timing.jwks_max_age + timing.jwks_stale_if_error
    ends = []
    if (unpublished := ring.unpublish_at(row)) is not None:
        ends.append(unpublished)
    if row.revoked_at is not None:
        own = timing.process_cache_ttl + timing.replica_lag
        ends.append(row.revoked_at + timedelta(seconds=own))
    return min(ends) + timedelta(seconds=cached) if ends else None


@dataclass(frozen=True)
class Bar:
    """The times of one key; those that are not known yet are those of the horizon."""

    start: datetime
    signs: datetime
    retires: datetime
    leaves: datetime
    ends: datetime

    def phases(self) -> list[tuple[str, datetime, datetime]]:
        """Give what the key is, since when and until when, one after the other."""
        bounds = [
            self.start,
            min(self.signs, self.leaves),
            min(self.retires, self.leaves),
            self.leaves,
            self.ends,
        ]
        names = (PUBLISHED, SIGNS, RETIRING, CACHED)
        each = zip(names, bounds, bounds[1:], strict=False)
        return [(name, start, end) for name, start, end in each if start < end]

    def phase(self, moment: datetime) -> str | None:
        """Give what the key is at one moment; None if it is not published, or not any more."""
        found = (name for name, start, end in self.phases() if start <= moment < end)
        return next(found, None)


def window(
    ring: Ring[R], rows: Iterable[R], timing: Timing, now: datetime
) -> tuple[datetime, datetime]:
    """Give from when to when ``rows`` are drawn: all that is known of them, and a little more."""
    rows = list(rows)
    known = [now, *(row.activates_at for row in rows)]
    known += [end for row in rows if (end := last_trusted(ring, row, timing)) is not None]
    later = max(timedelta(seconds=timing.rotate_every) / 4, timedelta(hours=1))
    return min([now, *(row.created_at for row in rows)]), max(known) + later


def bar(ring: Ring[R], row: R, timing: Timing, horizon: datetime) -> Bar:
    """Give the times of ``row``, as far as they are before ``horizon``."""
    ends = last_trusted(ring, row, timing) or horizon
    leaves = row.revoked_at or ring.unpublish_at(row) or horizon
    return Bar(
        start=row.created_at,
        signs=row.activates_at,
        retires=ring.superseded_at(row) or horizon,
        leaves=min(leaves, ends),
        ends=ends,
    )
