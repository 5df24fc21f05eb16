"""When a key is published, when it signs, and when it is trusted last: the pure policy.

A key's state is a function of the times that stand in its row, of the rows after it, and of now;
nothing has to run for a transition to happen. No database, no clock; times are aware datetimes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar

#: How long a proxy may at most serve the JWK Set while it asks for a new one, in seconds.
STALE_WHILE_REVALIDATE = 60

PENDING, ACTIVE, RETIRING, RETIRED, REVOKED = "pending", "active", "retiring", "retired", "revoked"
PUBLISHED = (PENDING, ACTIVE, RETIRING)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The times of a ring, in seconds; the defaults keep every rule."""

    rotate_every: float = 7 * 86400
    propagation: float = 86400
    retention: int = 86400
    assertion_lifetime: float = 300
    clock_skew: float = 60
    jwks_max_age: float = 900
    jwks_stale_if_error: float = 3600
    process_cache_ttl: float = 60
    process_max_stale: float = 3600
    replica_lag: float = 30

    @property
    def stale_while_revalidate(self) -> float:
        """How long a proxy may serve the JWK Set while it asks for a new one.

        A set that is to be kept for a short time is not served for long after it.
        """
        return min(STALE_WHILE_REVALIDATE, self.jwks_max_age)

    @property
    def settling(self) -> float:
        """How long after a change our own processes may do as if it had not happened.

        They may keep what they read, and two clocks may differ.
        """
        own = self.process_cache_ttl + self.process_max_stale + self.replica_lag
        return own + 2 * self.clock_skew

    @property
    def shortest_propagation(self) -> float:
        """R1: how old a published key must be for everybody to have seen it.

        Twice what caches may keep, for a proxy and a client that ignores Age; and what our own
        processes may keep.
        """
        cached = self.jwks_max_age + self.stale_while_revalidate + self.jwks_stale_if_error
        return 2 * cached + self.settling

    @property
    def shortest_retention(self) -> float:
        """R2: how long a key must stay published after another took over.

        A process that has not yet seen that another was promoted still signs with the old one.
        """
        signed = self.assertion_lifetime + 3 * self.clock_skew
        return signed + self.jwks_max_age + self.settling

    def broken(self) -> Iterator[tuple[str, str]]:
        """Give each rule that does not hold: its name, and a sentence."""
        if self.propagation < self.shortest_propagation:
            yield "R1", _less("PROPAGATION", self.propagation, self.shortest_propagation)
        if self.retention < self.shortest_retention:
            yield "R2", _less("RETENTION", self.retention, self.shortest_retention)
        if self.rotate_every < self.propagation + self.retention:
            least = self.propagation + self.retention
            yield "R3", _less("ROTATE_EVERY", self.rotate_every, least)


def _less(name: str, value: float, least: float) -> str:
    return f"{name} is {value:.15g} s, and must be at least {least:.15g} s."


#: A row: ``kid``, ``sequence``, ``activates_at``, ``retention`` (seconds), ``revoked_at`` and
#: ``destroyed_at``. (A protocol of them does not get on with the types of Django's fields.)
R = TypeVar("R", bound=Any)


class Signer(NamedTuple, Generic[R]):
    """The key that signs, and whether it is only a stand-in for one that cannot be used here."""

    row: R
    degraded: bool


class Ring(Generic[R]):
    """The rows of one ring, as they are now or will be; a row that changes takes a new ring."""

    def __init__(self, rows: Iterable[R]) -> None:
        self.rows = sorted(rows, key=lambda row: row.sequence)

    def gap(self) -> str:
        """Say which row is missing between others; nothing if none is."""
        first = self.rows[0].sequence if self.rows else 0
        for number, row in enumerate(self.rows, first):
            if row.sequence != number:
                return f"A row was deleted: the ring has no number {number}."
        return ""

    @cached_property
    def _successions(self) -> tuple[list[int], list[datetime | None]]:
        """The sequence of each row, and when the first of the rows from it on takes over.

        In one pass, for a ring is looked at far more often than it is read.
        """
        soonest: datetime | None = None
        times: list[datetime | None] = [None]
        for row in reversed(self.rows):
            # A key that was revoked before it was active never took over.
            if row.revoked_at is None or row.revoked_at > row.activates_at:
                soonest = row.activates_at if soonest is None else min(soonest, row.activates_at)
            times.append(soonest)
        return [row.sequence for row in self.rows], times[::-1]

    def superseded_at(self, row: R) -> datetime | None:
        """Give when a later key took or takes over from ``row``; None if none does."""
        sequences, times = self._successions
        return times[bisect_right(sequences, row.sequence)]

    def unpublish_at(self, row: R) -> datetime | None:
        """Give when ``row`` leaves the JWK Set on schedule; None if nothing follows it."""
        superseded = self.superseded_at(row)
        return None if superseded is None else superseded + timedelta(seconds=row.retention)

    def state(self, row: R, now: datetime) -> str:
        """Give the state of ``row``; it is one of those above."""
        if row.revoked_at is not None:
            return REVOKED
        if now < row.activates_at:
            return PENDING
        superseded = self.superseded_at(row)
        if superseded is None or now < superseded:
            return ACTIVE
        return RETIRING if now < superseded + timedelta(seconds=row.retention) else RETIRED

    def published(self, now: datetime) -> list[R]:
        """Give what is in the JWK Set: the active key, the standby, the retiring, newest first.

        A destroyed key never comes back, whatever became of those that followed it.
        """
        shown = [
            row
            for row in self.rows
            if row.destroyed_at is None and self.state(row, now) in PUBLISHED
        ]
        order = {ACTIVE: 0, PENDING: 1, RETIRING: 2}
        return sorted(shown, key=lambda row: (order[self.state(row, now)], -row.sequence))

    def changes_at(self, now: datetime) -> datetime:
        """Give when a row has another state next, if none is changed till then."""
        times = [row.activates_at for row in self.rows]
        times += [end for row in self.rows if (end := self.unpublish_at(row)) is not None]
        return min((time for time in times if time > now), default=datetime.max.replace(tzinfo=UTC))

    def standby(self, now: datetime) -> R | None:
        """Give the key that is published and takes over next."""
        return next((row for row in self.rows if self.state(row, now) == PENDING), None)

    def active(self, now: datetime) -> R | None:
        """Give the key whose turn it is."""
        return next((row for row in self.rows if self.state(row, now) == ACTIVE), None)

    def started(self, now: datetime) -> bool:
        """Tell whether the ring has ever had an active key."""
        return any(
            row.activates_at <= now
            and (row.revoked_at is None or row.revoked_at > row.activates_at)
            for row in self.rows
        )

    def bereft(self, now: datetime) -> bool:
        """Tell whether the ring had an active key, which is gone without a successor."""
        return self.started(now) and self.active(now) is None

    def signer(
        self, now: datetime, lifetime: float, skew: float, usable: Callable[[R], bool]
    ) -> Signer[R] | None:
        """Give the key that signs an assertion of ``lifetime`` seconds.

        The newest that is or was active, can be used here, and stays published until the assertion
        has ended for everybody; the assertion must not outlive it.
        """
        end = now + timedelta(seconds=lifetime + 3 * skew)
        for row in reversed(self.rows):
            if row.destroyed_at is not None or self.state(row, now) not in (ACTIVE, RETIRING):
                continue
            unpublished = self.unpublish_at(row)
            if usable(row) and (unpublished is None or end <= unpublished):
                return Signer(row, self.state(row, now) != ACTIVE)
        return None

    def next_activation(self, now: datetime, timing: Timing) -> datetime:
        """Give when a key made now takes over, on schedule."""
        earliest = now + timedelta(seconds=timing.propagation)
        turns = [row.activates_at for row in self.rows if self.state(row, now) in (ACTIVE, PENDING)]
        if not turns:
            return earliest
        due: datetime = max(turns) + timedelta(seconds=timing.rotate_every)
        return max(earliest, due)
