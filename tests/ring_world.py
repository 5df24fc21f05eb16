"""A ring without a database: what the commands write, and who reads it late, by another clock."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property

from django_baikal.keys.rotation import RETIRED, REVOKED, Ring, Signer, Timing

START = datetime(2030, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """Give the time that many seconds after the start of this world."""
    return START + timedelta(seconds=seconds)


@dataclass(frozen=True, kw_only=True)
class Key:
    sequence: int
    activates_at: datetime
    created_at: datetime = START
    retention: int = 86400
    revoked_at: datetime | None = None
    destroyed_at: datetime | None = None
    #: It signs, by somebody's wish, before everybody can have seen it.
    hurried: bool = False
    #: Its turn is not the schedule's: promoted, or one standby more than the ring needs.
    unplanned: bool = False

    @property
    def kid(self) -> str:
        return f"k{self.sequence}"


class Commands:
    """Do to a list of rows what the commands do to the table; each write is of single rows."""

    def __init__(self, timing: Timing) -> None:
        self.timing = timing
        self.keys: list[Key] = []
        #: When somebody promoted or revoked last.
        self.disturbed: datetime | None = None

    @property
    def ring(self) -> Ring[Key]:
        return Ring(self.keys)

    def get(self, row: Key) -> Key:
        return self.keys[row.sequence - 1]

    def add(self, now: datetime, activates_at: datetime, *, hurried: bool = False) -> Key:
        key = Key(
            sequence=len(self.keys) + 1,
            created_at=now,
            activates_at=activates_at,
            retention=self.timing.retention,
            hurried=hurried,
            unplanned=hurried or self.ring.standby(now) is not None,
        )
        self.keys.append(key)
        return key

    def change(self, row: Key, **changes: object) -> None:
        self.keys[row.sequence - 1] = replace(self.get(row), **changes)

    def create(self, now: datetime) -> Key:
        return self.add(now, self.ring.next_activation(now, self.timing))

    def rotate(self, now: datetime) -> None:
        if self.ring.standby(now) is None:
            if self.ring.active(now) is None:
                self.add(now, now, hurried=True)
            self.create(now)
        self.prune(now)

    def young(self, key: Key, now: datetime) -> bool:
        return (now - key.created_at).total_seconds() < self.timing.shortest_propagation

    def promote(self, now: datetime, *, force: bool = False) -> bool:
        standby, active = self.ring.standby(now), self.ring.active(now)
        if standby is None or (active is not None and active.activates_at == now):
            return False
        hurried = self.young(standby, now)
        if hurried and not force:
            return False
        self.change(standby, activates_at=now, hurried=hurried, unplanned=True)
        self.disturbed = now
        return True

    def postpone(self, row: Key, until: datetime, now: datetime) -> bool:
        """Put a pending key off; not to after the one that follows it."""
        later = [key for key in self.keys if key.sequence > row.sequence and key.revoked_at is None]
        if not now < row.activates_at < until or any(until >= key.activates_at for key in later):
            return False
        self.change(row, activates_at=until)
        return True

    def revoke(self, row: Key, now: datetime) -> bool:
        if row.revoked_at is not None:
            return False
        self.change(row, revoked_at=now)
        self.disturbed = now
        return True

    def emergency(self, now: datetime, earlier: float = 0) -> bool:
        """Promote first, revoke the active key then, and make a new standby.

        The new key signs at once, also where the clock is slow by up to ``earlier`` seconds.
        """
        shortest = timedelta(seconds=self.timing.shortest_propagation)
        if self.disturbed is not None and now - self.disturbed < shortest:
            return False
        since = now - timedelta(seconds=earlier)
        old, standby = self.ring.active(now), self.ring.standby(now)
        if old is None or old.activates_at >= since:
            return False
        if standby is None:
            self.add(now, since, hurried=True)
        else:
            hurried = self.young(standby, since)
            self.change(standby, activates_at=since, hurried=hurried, unplanned=True)
        self.revoke(old, now)
        if self.ring.standby(now) is None:
            self.create(now)
        return True

    def prune(self, now: datetime) -> None:
        ring = self.ring
        for key in ring.rows:
            if key.destroyed_at is None and ring.state(key, now) in (RETIRED, REVOKED):
                self.change(key, destroyed_at=now)


class History:
    """Every state that the table was in, and since when."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.rings: list[Ring[Key]] = []

    def write(self, time: float, keys: Sequence[Key]) -> None:
        self.times.append(time)
        # An older row bears on nothing that a newer one does; only later rows supersede.
        self.rings.append(Ring(keys[-8:]))

    def read(self, time: float) -> Ring[Key]:
        return self.rings[max(0, bisect_right(self.times, time) - 1)]


@dataclass
class Refresher:
    """Who asks anew every ``period`` seconds, except in outages, and as soon as one is over."""

    phase: float
    period: float
    outages: Sequence[tuple[float, float]] = ()

    @cached_property
    def starts(self) -> list[float]:
        return [start for start, _ in self.outages]

    def asked(self, time: float) -> float:
        """Give when what it has at ``time`` was asked for."""
        tick = time - (time - self.phase) % self.period
        last = bisect_right(self.starts, tick) - 1
        if last < 0 or tick >= self.outages[last][1]:
            return tick
        start, end = self.outages[last]
        return end if time >= end else start - (start - self.phase) % self.period


@dataclass
class Process:
    """One of ours: its rows are old, and its clock is wrong by ``offset``."""

    history: History
    rows: Refresher
    offset: float = 0
    lag: float = 0
    unusable: frozenset[str] = frozenset()

    def ring(self, time: float) -> Ring[Key]:
        return self.history.read(self.rows.asked(time) - self.lag)

    def published(self, time: float) -> frozenset[str]:
        return frozenset(row.kid for row in self.ring(time).published(at(time + self.offset)))

    def sign(self, time: float, timing: Timing) -> Signer[Key] | None:
        return self.ring(time).signer(
            at(time + self.offset), timing.assertion_lifetime, timing.clock_skew, self.usable
        )

    def usable(self, row: Key) -> bool:
        return row.kid not in self.unusable


@dataclass
class Cache:
    """It keeps what one of ``origins`` told it: a proxy before our processes, or a verifier.

    It looks at no Age, and asks no sooner because it does not know a kid.
    """

    origins: Sequence[Process | Cache]
    document: Refresher
    offset: float = 0
    kept: dict[float, frozenset[str]] = field(default_factory=dict)

    def published(self, time: float) -> frozenset[str]:
        asked = self.document.asked(time)
        if asked not in self.kept:
            origin = self.origins[int(asked) % len(self.origins)]
            self.kept[asked] = origin.published(asked)
        return self.kept[asked]


def outages(
    moments: Iterable[float], length: float, gap: float, rng: random.Random
) -> list[tuple[float, float]]:
    """Give outages of up to ``length`` about some of ``moments``, more than ``gap`` apart."""
    found = [(-1e9, -1e9)]
    for moment in sorted(moments):
        start = moment - rng.uniform(0, 1200)
        if rng.random() < 0.6 and start > found[-1][1] + gap + 1:
            found.append((start, start + length * rng.uniform(0.3, 1)))
    return found


@dataclass
class Outcome:
    verified: int = 0
    #: The verifier did not find the key.
    rejected: int = 0
    #: Nothing signed, though every key could be used.
    refused: int = 0
    degraded: int = 0

    @property
    def failures(self) -> int:
        return self.rejected + self.refused


class Simulation:
    """A ring for weeks, with those who sign, publish, cache and verify."""

    def __init__(self, timing: Timing, plan: Sequence[str], seed: int) -> None:
        self.timing, self.rng = timing, random.Random(seed)
        self.commands, self.history = Commands(timing), History()
        #: When a key took over.
        self.turns: list[float] = []
        self.live(plan)
        self.people()

    def skew(self) -> float:
        """Give an error that a clock may have; as often as not the largest."""
        skew = self.timing.clock_skew
        return self.rng.choice((-skew, skew, self.rng.uniform(-skew, skew)))

    def run(self, command: str, time: float, *args: float) -> None:
        assert getattr(self.commands, command)(at(time + self.skew()), *args) is not False, command
        self.history.write(time, self.commands.keys)

    def turn(self) -> float:
        """Give when the last key takes over."""
        return (self.commands.keys[-1].activates_at - START).total_seconds()

    def live(self, plan: Sequence[str]) -> None:
        timing, rng = self.timing, self.rng
        self.run("rotate", 0)
        self.turns.append(self.turn())
        for step in plan:
            last = self.turns[-1]
            if step == "late":  # nobody ran the command for weeks
                self.run("rotate", last + timing.rotate_every + rng.uniform(0, 7200))
                self.turns.append(self.turn())
                continue
            if step != "emergency without standby":
                last += 120 + rng.uniform(0, 3600)
                self.run("rotate", last)
            last += timing.shortest_propagation + 2 * timing.clock_skew
            last += rng.uniform(0, self.turns[-1] + timing.rotate_every - 120 - last)
            if step == "promote":
                self.run("promote", last)
                self.turns.append(last)
            else:
                earlier = 2 * timing.clock_skew if step == "emergency for slow clocks" else 0
                self.run("emergency", last, earlier)
                self.turns += (last, self.turn())

    def people(self) -> None:
        timing, rng, skew = self.timing, self.rng, self.skew
        moments = {*self.history.times, *self.turns}
        ttl = timing.process_cache_ttl

        def process(unusable: frozenset[str] = frozenset()) -> Process:
            down = outages(moments, timing.process_max_stale, ttl, rng)
            rows = Refresher(rng.uniform(0, ttl), ttl, down)
            lag = rng.uniform(0, timing.replica_lag)
            return Process(self.history, rows, skew(), lag, unusable)

        def cache(origins: Sequence[Process | Cache], *, stale: bool) -> Cache:
            period = timing.jwks_max_age + rng.uniform(0, timing.stale_while_revalidate) * stale
            down = outages(moments, timing.jwks_stale_if_error, period, rng) if stale else ()
            return Cache(origins, Refresher(rng.uniform(0, period), period, down), skew())

        every_third = frozenset(key.kid for key in self.commands.keys if key.sequence % 3 == 0)
        self.signers = [process() for _ in range(7)] + [process(every_third)]
        origins = [process() for _ in range(4)]
        proxies = [cache(origins, stale=True) for _ in range(2)]
        self.verifiers = [
            cache(sources, stale=stale)
            for sources in (origins, proxies[:1], proxies[1:])
            for stale in (False, True)
            for _ in range(4)
        ]

    def moment(self) -> float:
        """Give when to sign: mostly when a key takes over, or leaves."""
        turn, kind = self.rng.choice(self.turns), self.rng.random()
        if kind < 0.6:
            return turn + self.rng.uniform(-900, 9000)
        if kind < 0.85:
            return turn + self.timing.retention + self.rng.uniform(-1800, 600)
        return turn + self.rng.uniform(0, self.timing.rotate_every)

    def verify(self, times: int) -> Outcome:
        timing, rng, outcome = self.timing, self.rng, Outcome()
        skew = timing.clock_skew
        while outcome.verified < times:
            time, signer = self.moment(), rng.choice(self.signers)
            outcome.verified += 1
            signed = signer.sign(time, timing)
            if signed is None:
                outcome.refused += not signer.unusable
                continue
            outcome.degraded += signed.degraded
            verifier = rng.choice(self.verifiers)
            expires = time + signer.offset + timing.assertion_lifetime
            # The last verifier that takes it has a slow clock, and allows for a fast one.
            last = expires - verifier.offset + skew
            then = rng.choice((time, last, rng.uniform(time, last)))
            revoked = self.commands.get(signed.row).revoked_at
            if revoked is not None and revoked <= at(then + skew):
                continue
            outcome.rejected += signed.row.kid not in verifier.published(then)
        return outcome
