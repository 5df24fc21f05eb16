from __future__ import annotations

import random
from dataclasses import fields, replace
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from ring_world import Cache, Commands, History, Key, Process, Refresher, Simulation, at

from django_baikal.keys.rotation import (
    ACTIVE,
    PENDING,
    PUBLISHED,
    RETIRED,
    RETIRING,
    REVOKED,
    Ring,
    Signer,
    Timing,
)

DAY, WEEK = 86400, 7 * 86400
TICK = timedelta(microseconds=1)
DEFAULTS = Timing()


def ring(*activations: float, **changes: dict[str, object]) -> Ring[Key]:
    """Give a ring whose keys activate at those seconds; ``k2={...}`` changes the second."""
    keys = [Key(sequence=n, activates_at=at(s)) for n, s in enumerate(activations, 1)]
    return Ring([replace(key, **changes.get(key.kid, {})) for key in keys])


def states(ring: Ring[Key], now: float) -> list[str]:
    return [ring.state(row, at(now)) for row in ring.rows]


def kids(rows: list[Key]) -> list[str]:
    return [row.kid for row in rows]


def signer(
    ring: Ring[Key], now: float, lifetime: float = 300, skew: float = 60, lost: str = ""
) -> tuple[str, bool] | None:
    found = ring.signer(at(now), lifetime, skew, lambda row: row.kid not in lost.split())
    return found and (found.row.kid, found.degraded)


# States


def test_a_ring_without_rows_publishes_nothing_and_signs_with_nothing():
    empty: Ring[Key] = Ring([])
    assert empty.published(at(0)) == []
    assert (empty.active(at(0)), empty.standby(at(0)), signer(empty, 0)) == (None, None, None)
    assert not empty.started(at(0))


def test_rows_are_ordered_by_sequence_however_they_come():
    rows = ring(0, WEEK, 2 * WEEK).rows
    assert Ring(reversed(rows)).rows == rows


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (-0.000001, [PENDING, PENDING]),
        (0, [ACTIVE, PENDING]),
        (WEEK - 0.000001, [ACTIVE, PENDING]),
        (WEEK, [RETIRING, ACTIVE]),
        (WEEK + DAY - 0.000001, [RETIRING, ACTIVE]),
        (WEEK + DAY, [RETIRED, ACTIVE]),
        (100 * WEEK, [RETIRED, ACTIVE]),
    ],
)
def test_a_key_changes_state_at_the_microsecond_that_its_ring_says(now, expected):
    assert states(ring(0, WEEK), now) == expected


def test_the_last_key_signs_on_when_nobody_rotates():
    alone = ring(0)
    row = alone.rows[0]
    assert (alone.superseded_at(row), alone.unpublish_at(row)) == (None, None)
    assert states(alone, 1000 * WEEK) == [ACTIVE]
    assert signer(alone, 1000 * WEEK) == ("k1", False)


def test_a_key_is_superseded_by_the_first_that_follows_it():
    three = ring(0, WEEK, 2 * WEEK)
    first, second, third = three.rows
    assert three.superseded_at(first) == at(WEEK)
    assert three.superseded_at(second) == at(2 * WEEK)
    assert three.superseded_at(third) is None
    assert three.unpublish_at(first) == at(WEEK + DAY)
    assert three.unpublish_at(third) is None


def test_only_later_keys_supersede_whatever_their_times():
    two = ring(WEEK, 0)
    assert two.superseded_at(two.rows[0]) == at(0)
    assert two.superseded_at(two.rows[1]) is None
    assert states(two, WEEK) == [RETIRED, ACTIVE]
    three = ring(0, 2 * WEEK, WEEK)
    assert three.superseded_at(three.rows[0]) == at(WEEK), "the soonest, and not the next"


def test_retention_is_the_row_s_own_in_seconds():
    changed = ring(0, WEEK, k1={"retention": 100})
    assert changed.unpublish_at(changed.rows[0]) == at(WEEK + 100)
    assert states(changed, WEEK + 99.999999) == [RETIRING, ACTIVE]
    assert states(changed, WEEK + 100) == [RETIRED, ACTIVE]


@pytest.mark.parametrize("now", [-WEEK, 0, WEEK, 2 * WEEK])
def test_a_revoked_key_is_revoked_at_any_time(now):
    assert states(ring(0, WEEK, k1={"revoked_at": at(WEEK)}), now)[0] == REVOKED


@pytest.mark.parametrize("revoked", [0, WEEK - 1, WEEK])
def test_a_key_revoked_before_it_was_active_never_took_over(revoked):
    two = ring(0, WEEK, k2={"revoked_at": at(revoked)})
    assert two.superseded_at(two.rows[0]) is None
    assert states(two, WEEK + 2 * DAY) == [ACTIVE, REVOKED]
    assert signer(two, WEEK + 2 * DAY) == ("k1", False)


def test_a_key_revoked_after_it_was_active_did_take_over():
    two = ring(0, WEEK, k2={"revoked_at": at(WEEK) + TICK})
    assert two.superseded_at(two.rows[0]) == at(WEEK)
    assert states(two, WEEK + DAY - 1) == [RETIRING, REVOKED]
    assert states(two, WEEK + DAY) == [RETIRED, REVOKED]
    assert two.published(at(WEEK + DAY)) == []


def test_a_revoked_standby_leaves_the_turn_to_the_one_after_it():
    three = ring(0, WEEK, 2 * WEEK, k2={"revoked_at": at(1)})
    assert three.superseded_at(three.rows[0]) == at(2 * WEEK)
    assert states(three, WEEK) == [ACTIVE, REVOKED, PENDING]
    assert three.standby(at(WEEK)) == three.rows[2]


# What is published


def test_the_active_key_comes_first_then_standbys_then_retiring_ones_newest_first():
    five = ring(0, 100, 200, WEEK, 2 * WEEK)
    assert kids(five.published(at(300))) == ["k3", "k5", "k4", "k2", "k1"]


def test_a_key_is_published_until_the_microsecond_that_it_retires():
    two = ring(0, WEEK)
    assert kids(two.published(at(0))) == ["k1", "k2"]
    assert kids(two.published(at(WEEK))) == ["k2", "k1"]
    assert kids(two.published(at(WEEK + DAY) - TICK)) == ["k2", "k1"]
    assert kids(two.published(at(WEEK + DAY))) == ["k2"]


def test_a_revoked_key_is_not_published():
    assert kids(ring(0, WEEK, k1={"revoked_at": at(5)}).published(at(0))) == ["k2"]


@pytest.mark.parametrize("now", [-1, 0, WEEK, WEEK + DAY])
def test_a_destroyed_key_is_neither_published_nor_signs_whatever_the_clock_says(now):
    two = ring(0, WEEK, k1={"destroyed_at": at(WEEK + DAY)})
    assert "k1" not in kids(two.published(at(now)))
    assert signer(two, now, lost="k2") is None


def test_a_destroyed_key_still_supersedes_those_before_it():
    three = ring(0, 100, WEEK, k2={"destroyed_at": at(WEEK), "revoked_at": at(200)})
    assert kids(three.published(at(2 * DAY))) == ["k3"]


# Whose turn it is


def test_standby_and_active_follow_the_clock():
    three = ring(0, WEEK, 2 * WEEK)
    first, second, third = three.rows
    assert (three.active(at(0) - TICK), three.standby(at(0) - TICK)) == (None, first)
    assert (three.active(at(0)), three.standby(at(0))) == (first, second)
    assert (three.active(at(WEEK)), three.standby(at(WEEK))) == (second, third)
    assert (three.active(at(2 * WEEK)), three.standby(at(2 * WEEK))) == (third, None)


def test_no_key_is_active_after_the_active_one_was_revoked():
    two = ring(0, WEEK, k2={"revoked_at": at(WEEK + 1)})
    assert two.active(at(WEEK + 2)) is None
    assert two.standby(at(WEEK + 2)) is None


@pytest.mark.parametrize(
    ("revoked", "now", "started"),
    [
        (None, -0.000001, False),
        (None, 0, True),
        (None, WEEK, True),
        (at(-1), WEEK, False),
        (at(0), WEEK, False),
        (at(0) + TICK, WEEK, True),
    ],
)
def test_a_ring_has_started_when_a_key_was_active_once(revoked, now, started):
    assert ring(0, k1={"revoked_at": revoked}).started(at(now)) is started


# When the next one takes over


def test_a_first_key_takes_over_when_everybody_has_seen_it():
    empty: Ring[Key] = Ring([])
    assert empty.next_activation(at(5), DEFAULTS) == at(5 + DAY)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (0, WEEK),
        (6 * DAY, WEEK),
        (6 * DAY + 1, WEEK + 1),
        (30 * DAY, 31 * DAY),
    ],
)
def test_the_next_key_takes_over_on_schedule_but_never_before_it_was_seen(now, expected):
    assert ring(0).next_activation(at(now), DEFAULTS) == at(expected)


def test_a_key_made_beside_a_standby_takes_over_after_it():
    assert ring(0, WEEK).next_activation(at(0), DEFAULTS) == at(2 * WEEK)
    assert ring(0, 3 * WEEK).next_activation(at(0), DEFAULTS) == at(4 * WEEK)
    assert ring(WEEK).next_activation(at(0), DEFAULTS) == at(2 * WEEK)


def test_a_revoked_key_does_not_put_the_next_one_off():
    two = ring(0, WEEK, k2={"revoked_at": at(WEEK + 1)})
    assert two.next_activation(at(WEEK + 2), DEFAULTS) == at(WEEK + 2 + DAY)


def test_a_retiring_key_does_not_put_the_next_one_off():
    two = ring(0, 100, k2={"revoked_at": at(200)})
    assert two.next_activation(at(300), DEFAULTS) == at(300 + DAY)


# Who signs


def test_the_active_key_signs_from_the_microsecond_that_it_is_active():
    two = ring(0, WEEK)
    assert signer(two, -0.000001) is None
    assert signer(two, 0) == ("k1", False)
    assert signer(two, WEEK - 0.000001) == ("k1", False)
    assert signer(two, WEEK) == ("k2", False)


def test_a_standby_never_signs():
    assert signer(ring(0, WEEK), 0, lost="k1") is None


def test_a_revoked_key_never_signs():
    assert signer(ring(0, k1={"revoked_at": at(9)}), 0) is None


def test_a_retiring_key_stands_in_for_one_that_cannot_be_used_here():
    three = ring(0, 100, 200)
    assert signer(three, 300) == ("k3", False)
    assert signer(three, 300, lost="k3") == ("k2", True)
    assert signer(three, 300, lost="k3 k2") == ("k1", True)
    assert signer(three, 300, lost="k3 k2 k1") is None


def test_a_retiring_key_stands_in_for_one_that_was_revoked():
    assert signer(ring(0, 100, k2={"revoked_at": at(200)}), 300) == ("k1", True)


def test_an_older_key_may_stand_in_when_a_newer_one_leaves_too_soon():
    three = ring(0, 100, 200, k2={"retention": 10})
    assert signer(three, 205, lost="k3") == ("k1", True)


@pytest.mark.parametrize(("lifetime", "skew"), [(300, 60), (3600, 0), (0, 60), (0.5, 0.25)])
def test_a_key_signs_nothing_that_could_outlive_it_to_the_microsecond(lifetime, skew):
    two = ring(0, WEEK)
    last = at(WEEK + DAY) - timedelta(seconds=lifetime + 3 * skew)

    def sign(now):
        return two.signer(now, lifetime, skew, lambda row: row.kid == "k1")

    assert sign(last) == Signer(two.rows[0], True)
    assert sign(last + TICK) is None


def test_a_retired_key_signs_nothing_not_even_what_ends_at_once():
    assert signer(ring(0, WEEK), WEEK + DAY, lifetime=0, skew=0, lost="k2") is None


def test_the_active_key_too_signs_nothing_that_could_outlive_it():
    two = ring(0, WEEK, k1={"retention": 1})
    assert signer(two, WEEK + 1 - 480) == ("k1", False)
    assert signer(two, WEEK + 1 - 479.999999) is None


def test_a_slow_clock_signs_with_nothing_when_everything_before_was_revoked():
    """Why --emergency had better let the new key be active since 2 * CLOCK_SKEW."""
    two = ring(0, WEEK, k1={"revoked_at": at(WEEK)})
    assert signer(two, WEEK - 60) is None
    assert signer(two, WEEK) == ("k2", False)


# The rules


def test_the_defaults_keep_every_rule():
    assert list(DEFAULTS.broken()) == []
    assert DEFAULTS.settling == 60 + 3600 + 30 + 2 * 60
    assert DEFAULTS.shortest_propagation == 12930
    assert DEFAULTS.shortest_retention == 300 + 3 * 60 + 900 + 3810


def test_times_that_are_exactly_long_enough_keep_the_rules():
    exact = Timing(propagation=12930, retention=5190, rotate_every=18120)
    assert list(exact.broken()) == []


@pytest.mark.parametrize(
    ("changes", "name", "sentence"),
    [
        (
            {"propagation": 12929},
            "R1",
            "PROPAGATION is 12929 s, and must be at least 12930 s.",
        ),
        (
            {"propagation": 12929.5},
            "R1",
            "PROPAGATION is 12929.5 s, and must be at least 12930 s.",
        ),
        ({"retention": 5189}, "R2", "RETENTION is 5189 s, and must be at least 5190 s."),
        (
            {"rotate_every": 172799},
            "R3",
            "ROTATE_EVERY is 172799 s, and must be at least 172800 s.",
        ),
        (
            {"rotate_every": 1234567, "retention": 1148168},
            "R3",
            "ROTATE_EVERY is 1234567 s, and must be at least 1234568 s.",
        ),
    ],
)
def test_a_rule_that_is_broken_is_named_and_said_to_the_second(changes, name, sentence):
    assert list(Timing(**changes).broken()) == [(name, sentence)]


def test_every_broken_rule_is_named():
    names = [name for name, _ in Timing(propagation=1, retention=1, rotate_every=1).broken()]
    assert names == ["R1", "R2", "R3"]


@pytest.mark.parametrize(
    ("name", "propagation", "retention"),
    [
        ("assertion_lifetime", 0, 1),
        ("clock_skew", 2, 5),
        ("jwks_max_age", 2, 1),
        ("jwks_stale_if_error", 2, 0),
        ("process_cache_ttl", 1, 1),
        ("process_max_stale", 1, 1),
        ("replica_lag", 1, 1),
        ("rotate_every", 0, 0),
        ("propagation", 0, 0),
        ("retention", 0, 0),
    ],
)
def test_each_time_weighs_in_the_rules_as_often_as_it_can_pass(name, propagation, retention):
    longer = replace(DEFAULTS, **{name: getattr(DEFAULTS, name) + 1})
    assert longer.shortest_propagation - DEFAULTS.shortest_propagation == propagation
    assert longer.shortest_retention - DEFAULTS.shortest_retention == retention


def test_a_set_that_is_kept_for_a_short_time_is_not_served_for_long_after_it():
    for max_age, least in ((61, 2 * 121), (60, 2 * 120), (59, 2 * 118), (1, 4), (0, 0)):
        timing = replace(DEFAULTS, jwks_max_age=max_age, jwks_stale_if_error=0)
        assert timing.shortest_propagation == least + DEFAULTS.settling


def test_every_time_is_weighed():
    assert len(fields(Timing)) == 10


# Histories


@st.composite
def timings(draw):
    """Draw times that keep every rule, often only just."""
    seconds = st.integers(0, 3600)
    timing = Timing(
        assertion_lifetime=draw(st.integers(1, 3600)),
        clock_skew=draw(st.integers(0, 600)),
        jwks_max_age=draw(seconds),
        jwks_stale_if_error=draw(seconds),
        process_cache_ttl=draw(seconds),
        process_max_stale=draw(seconds),
        replica_lag=draw(seconds),
    )
    spare = st.sampled_from((0, 0, 1, 1000, DAY))
    propagation = timing.shortest_propagation + draw(spare)
    retention = int(timing.shortest_retention) + draw(spare)
    every = propagation + retention + draw(spare)
    return replace(timing, propagation=propagation, retention=retention, rotate_every=every)


class Histories(RuleBasedStateMachine):
    """Whatever the commands do, in whatever order: what I1 to I7 of the design promise."""

    @initialize(timing=timings())
    def begin(self, timing):
        assert list(timing.broken()) == []
        self.timing = timing
        self.skew = timing.clock_skew
        self.commands = Commands(timing)
        self.now = at(0)
        self.lost: set[str] = set()
        self.trusted_until: dict[str, datetime] = {}
        self.withdrawn: set[str] = set()
        self.shown: set[str] = set()
        self.shown_since: dict[str, datetime] = {}
        self.rotate()

    @property
    def ring(self):
        return self.commands.ring

    def key(self, data):
        return data.draw(st.sampled_from(self.commands.keys[-6:]))

    @rule()
    def rotate(self):
        self.commands.rotate(self.now)
        assert self.ring.standby(self.now) is not None  # I6
        assert self.ring.active(self.now) is not None or any(
            key.revoked_at for key in self.commands.keys
        )

    @precondition(lambda self: self.ring.rows[-2].activates_at <= self.now)
    @rule()
    def create(self):
        key = self.commands.create(self.now)
        assert key.activates_at >= self.now + timedelta(seconds=self.timing.propagation)
        assert self.ring.state(key, self.now) == PENDING

    @rule(force=st.booleans())
    def promote(self, force):
        standby = self.ring.standby(self.now)
        if self.commands.promote(self.now, force=force):
            assert self.ring.active(self.now) == self.commands.get(standby)

    @rule(data=st.data(), seconds=st.integers(1, 2 * WEEK))
    def postpone(self, data, seconds):
        key = self.key(data)
        self.commands.postpone(key, key.activates_at + timedelta(seconds=seconds), self.now)

    @rule(data=st.data())
    def revoke(self, data):
        key = self.key(data)
        was = self.ring.state(key, self.now)
        self.commands.revoke(key, self.now)
        if was == PENDING:  # as if it had never been
            rest: Ring[Key] = Ring(row for row in self.commands.keys if row.kid != key.kid)
            for row in rest.rows:
                assert self.ring.superseded_at(row) == rest.superseded_at(row)

    @rule(slow=st.booleans())
    def emergency(self, slow):
        old = self.ring.active(self.now)
        if self.commands.emergency(self.now, 2 * self.skew * slow):
            new = self.ring.active(self.now)
            assert new is not None and new.sequence > old.sequence
            assert self.ring.state(self.commands.get(old), self.now) == REVOKED
            assert self.ring.standby(self.now) is not None

    @rule()
    def prune(self):
        before = self.ring.published(self.now)
        self.commands.prune(self.now)
        assert self.ring.published(self.now) == before

    @rule(data=st.data())
    def lose_a_key(self, data):
        self.lost.add(self.key(data).kid)

    @precondition(lambda self: self.lost)
    @rule()
    def find_every_key(self):
        self.lost.clear()

    @rule(seconds=st.integers(0, 2 * WEEK))
    def wait(self, seconds):
        self.move(self.now + timedelta(seconds=seconds))

    @rule(data=st.data(), off=st.sampled_from((-TICK, timedelta(0), TICK)))
    def wait_until_something_happens(self, data, off):
        margin = timedelta(seconds=self.timing.assertion_lifetime + 3 * self.skew)
        times = [key.activates_at for key in self.commands.keys[-6:]]
        leaves = [self.ring.unpublish_at(key) for key in self.commands.keys[-6:]]
        times += [time - less for time in leaves if time for less in (timedelta(0), margin)]
        if times := sorted({time + off for time in times if time + off > self.now}):
            self.move(data.draw(st.sampled_from(times)))

    def move(self, then):
        for key in self.ring.rows:
            if (until := self.trusted_until.get(key.kid)) and until > self.now:
                self.trust(key, min(until, then))
        self.now = then

    def trust(self, key, time):
        """I1: who signed is published until nobody trusts what was signed any more."""
        if key.revoked_at is None:
            assert key.kid in kids(self.ring.published(time))

    def sign(self, ring, clock, usable):
        lifetime = self.timing.assertion_lifetime
        found = ring.signer(clock, lifetime, self.skew, usable)
        active = ring.active(clock)
        if active is not None and usable(active):
            assert found == Signer(active, False)
        if found is None:
            return
        key = found.row
        assert usable(key) and key.destroyed_at is None
        assert found.degraded == (key != active)
        assert ring.state(key, clock) == (RETIRING if found.degraded else ACTIVE)
        assert key.kid in kids(ring.published(clock))
        if not key.hurried:  # I1: everybody had time to see it
            seen_for = (clock - self.shown_since[key.kid]).total_seconds()
            assert seen_for >= self.timing.shortest_propagation
        expires = clock + timedelta(seconds=lifetime)
        leaves = ring.unpublish_at(key)
        assert leaves is None or expires + timedelta(seconds=3 * self.skew) <= leaves  # I5
        # At `exp` itself it is over (RFC 7519, section 4.1.4).
        until = expires + timedelta(seconds=self.skew) - TICK
        self.trusted_until[key.kid] = max(until, self.trusted_until.get(key.kid, until))

    @invariant()
    def whoever_signs_is_trusted(self):
        ring = self.ring
        for off in (-1, 0, 1):
            clock = self.now + timedelta(seconds=off * self.skew)
            self.sign(ring, clock, lambda row: row.kid not in self.lost)
            for only in ring.published(clock):
                self.sign(ring, clock, only.__eq__)

    @invariant()
    def at_most_one_key_is_active(self):  # I2
        found = [self.ring.state(key, self.now) for key in self.commands.keys]
        assert found.count(ACTIVE) <= 1

    @invariant()
    def activations_increase(self):  # I3
        times = [key.activates_at for key in self.ring.rows if key.revoked_at is None]
        assert all(one < other for one, other in pairwise(times))

    @invariant()
    def what_was_withdrawn_never_comes_back(self):  # I4
        shown = set(kids(self.ring.published(self.now)))
        self.withdrawn |= self.shown - shown
        self.shown = shown
        assert not shown & self.withdrawn
        for kid in shown:
            self.shown_since.setdefault(kid, self.now)

    @invariant()
    def what_was_destroyed_never_comes_back_to_a_clock_that_was_put_back(self):
        destroyed = {key.kid for key in self.commands.keys if key.destroyed_at is not None}
        for key in self.commands.keys:
            assert not destroyed & set(kids(self.ring.published(key.activates_at)))

    @invariant()
    def what_was_signed_is_trusted(self):
        for key in self.ring.rows:
            if (until := self.trusted_until.get(key.kid)) and until >= self.now:
                self.trust(key, self.now)

    @invariant()
    def at_most_three_keys_are_published(self):  # I7
        published = self.ring.published(self.now)
        assert sum(not key.unplanned for key in published) <= 3

    @invariant()
    def published_keys_are_in_order(self):
        found = [self.ring.state(key, self.now) for key in self.ring.published(self.now)]
        assert found == sorted(found, key=(ACTIVE, PENDING, RETIRING).index)
        assert set(found) <= set(PUBLISHED)


class TestHistories(Histories.TestCase):
    settings = settings(stateful_step_count=60)


def test_a_ring_that_is_only_rotated_publishes_three_keys_and_signs_at_any_time(scale):
    timing = replace(DEFAULTS, rotate_every=2 * DAY)
    commands = Commands(timing)
    most = 0
    for hour in range(scale(24 * 30, 24 * 365)):
        commands.rotate(at(hour * 3600))
        now = commands.ring
        most = max(most, len(now.published(at(hour * 3600))))
        assert signer(now, hour * 3600) == (now.active(at(hour * 3600)).kid, False)
    assert most == 3


# The rules in the world: late rows, wrong clocks, caches behind caches


def kept_as_long_as_can_be(when: float, period: float, outage: float) -> Refresher:
    """Give one that asked at ``when``, and then for ``period`` + ``outage`` seconds no more."""
    start = when + period - 0.001
    return Refresher(when, period, [(start, start + outage)])


@pytest.mark.parametrize("max_age", [900, 60, 10])
@pytest.mark.parametrize(("short", "seen"), [(0, True), (1, False)])
def test_r1_is_as_long_as_the_slowest_way_to_a_verifier_and_no_second_longer(short, seen, max_age):
    timing = replace(DEFAULTS, jwks_max_age=max_age)
    timing = replace(timing, propagation=timing.shortest_propagation - short)
    history, skew, made = History(), timing.clock_skew, 100_000
    first = Key(sequence=1, activates_at=at(0))
    created = at(made - skew)
    turn = created + timedelta(seconds=timing.propagation)
    second = Key(sequence=2, created_at=created, activates_at=turn)
    history.write(0, [first])
    history.write(made, [first, second])

    read = made + timing.replica_lag - 0.01
    rows = kept_as_long_as_can_be(read, timing.process_cache_ttl, timing.process_max_stale)
    origin = Process(history, rows, skew, timing.replica_lag)
    fresh = timing.jwks_max_age + min(60, max_age)
    asked = rows.outages[0][1] - 0.01
    proxy = Cache([origin], kept_as_long_as_can_be(asked, fresh, timing.jwks_stale_if_error))
    asked = proxy.document.outages[0][1] - 0.01
    verifier = Cache([proxy], kept_as_long_as_can_be(asked, fresh, timing.jwks_stale_if_error))

    # The first to sign with it: at once, and with a fast clock.
    now = made - 2 * skew + timing.propagation
    signing = Process(history, Refresher(0, 1), skew).sign(now, timing)
    assert signing == Signer(second, False)
    assert ("k2" in verifier.published(now)) is seen


@pytest.mark.parametrize(("short", "seen"), [(0, True), (1, False)])
def test_r2_lets_a_process_sign_that_has_not_seen_a_promotion(short, seen):
    retention = int(DEFAULTS.shortest_retention - DEFAULTS.jwks_max_age) - short
    timing = replace(DEFAULTS, retention=retention)
    history, skew, promoted = History(), timing.clock_skew, 100_000
    first = Key(sequence=1, activates_at=at(0), retention=retention)
    standby = Key(sequence=2, activates_at=at(WEEK))
    history.write(0, [first, standby])
    history.write(promoted, [first, replace(standby, activates_at=at(promoted - skew))])

    read = promoted + timing.replica_lag - 0.01
    rows = kept_as_long_as_can_be(read, timing.process_cache_ttl, timing.process_max_stale)
    late = Process(history, rows, skew, timing.replica_lag)
    now = rows.outages[0][1] - 0.01
    assert late.sign(now, timing) == Signer(first, False)
    # Its clock is fast; the verifier's is slow, and it allows for a fast one.
    last = now + skew + timing.assertion_lifetime + 2 * skew
    assert ("k1" in Process(history, Refresher(0, 1), skew).published(last)) is seen


USUAL = ("late", "late", "promote")


def simulate(timing: Timing, plan: tuple[str, ...], turns: int, times: int):
    # pytest-randomly seeds this from the run's own seed.
    seed = random.getrandbits(32)
    outcome = Simulation(timing, plan * turns, seed).verify(times)
    return outcome, f"seed {seed}: {outcome}"


@pytest.mark.slow
def test_no_assertion_is_rejected_over_many_rotations_at_the_defaults(scale):
    turns = scale(1, 34)
    outcome, told = simulate(DEFAULTS, USUAL, turns, scale(20_000, 1_000_000))
    assert outcome.failures == 0, told
    assert outcome.degraded > 0, told  # the hard way too was gone


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "plan"),
    [
        pytest.param({"propagation": DEFAULTS.shortest_propagation}, USUAL, id="R1"),
        pytest.param({"retention": int(DEFAULTS.shortest_retention)}, USUAL, id="R2"),
        pytest.param(
            {"propagation": 12930, "retention": 5190, "rotate_every": 18120}, USUAL, id="R3"
        ),
        pytest.param({}, ("emergency for slow clocks",), id="emergency"),
    ],
)
def test_no_assertion_is_rejected_where_the_rules_are_only_just_kept(changes, plan, scale):
    timing = replace(DEFAULTS, **changes)
    assert list(timing.broken()) == []
    outcome, told = simulate(timing, plan, scale(1, 34), scale(10_000, 200_000))
    assert outcome.failures == 0, told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "plan"),
    [
        pytest.param({"propagation": 900}, USUAL, id="seen for max-age"),
        pytest.param({"propagation": 450}, USUAL, id="seen for max-age / 2"),
        pytest.param({"propagation": 0}, USUAL, id="not seen"),
        pytest.param({"retention": 1380}, ("promote",) * 8, id="our own processes forgotten"),
        pytest.param({"retention": 1}, USUAL, id="not kept"),
        pytest.param({}, ("emergency without standby",), id="no standby"),
    ],
)
def test_assertions_are_rejected_where_one_rule_is_broken(changes, plan, scale):
    outcome, told = simulate(
        replace(DEFAULTS, **changes), plan, scale(1, 8), scale(10_000, 200_000)
    )
    assert outcome.failures > 0, told


@pytest.mark.slow
def test_an_emergency_with_a_standby_rejects_nothing(scale):
    outcome, told = simulate(DEFAULTS, ("emergency",), scale(3, 100), scale(10_000, 200_000))
    assert outcome.rejected == 0, told
