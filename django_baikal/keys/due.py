"""What is to be done to a ring, and what should have been done: as rotate_keys would find it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django_baikal.keys.rotation import RETIRED, REVOKED, Ring, Timing

#: How long what is to be wiped may wait until somebody finds fault with it.
WIPE_WITHIN = timedelta(days=1)


def overdue(ring: Ring[Any], timing: Timing, now: datetime, *, alone: bool) -> list[str]:
    """Say what is too late, in sentences; ``alone``: no other source publishes keys for it."""
    active = ring.active(now)
    if not ring.published(now):
        return ["The ring has no key."]
    if active is None:
        waits = not alone and not ring.started(now)
        return [] if waits else ["No key of the ring is to sign now."]
    turn = active.activates_at + timedelta(seconds=timing.rotate_every)
    if ring.standby(now) is None and now + timedelta(seconds=timing.propagation) > turn:
        at = f"{turn.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
        return [f"It is too late for the next key to take over on time, at {at}."]
    return []


def lacks_standby(ring: Ring[Any], now: datetime) -> bool:
    """Tell whether a ring that has keys has none that takes over next."""
    return bool(ring.published(now)) and ring.standby(now) is None


def unwiped(ring: Ring[Any], now: datetime) -> list[Any]:
    """Give the rows whose private half should have been wiped more than a day ago."""
    return [
        row
        for row in ring.rows
        if row.destroyed_at is None
        and ring.state(row, now) in (RETIRED, REVOKED)
        and (row.revoked_at or ring.unpublish_at(row) or now) < now - WIPE_WITHIN
    ]
