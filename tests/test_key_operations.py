"""What is done to the keys of a ring: when it is refused, and that of two who do it one does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.dispatch import Signal
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from material import ec_key, public_pem
from ring_stage import (
    KEKS,
    START,
    TABLE,
    Clock,
    edit,
    everything,
    keeper,
    meanwhile,
    rows,
    store,
    watching,
)

from django_baikal import signals
from django_baikal.exceptions import (
    ConfigurationError,
    EncryptionKeyMissing,
    KeyStoreError,
    LostRace,
    NoUsableSigningKey,
    Refused,
    Tampered,
    UnsupportedKey,
)
from django_baikal.keys import load_key
from django_baikal.keys.operations import Keeper, Outcome, keepers
from django_baikal.keys.policy import material
from django_baikal.keys.rotation import Timing
from django_baikal.models import SigningKey

pytestmark = pytest.mark.django_db
DAY, WEEK = timedelta(days=1), timedelta(days=7)
R1 = timedelta(seconds=12930)
SKEW = timedelta(seconds=60)
TICK = timedelta(milliseconds=1)


@pytest.fixture(autouse=True)
def clock(monkeypatch) -> Clock:
    return Clock(monkeypatch)


def states(ring: str = "default") -> list[str]:
    found = store(RING=ring).read()
    return [found.state(row, clock_now()) for row in found.rows]


def clock_now() -> datetime:
    from django.utils import timezone

    return timezone.now()


def kids() -> list[str]:
    return [row.kid for row in rows()]


def a_ring(clock: Clock) -> list[SigningKey]:
    """Give a ring with a retiring key, an active one, and a standby that everybody knows."""
    keeper().rotate()
    clock.now = rows()[1].activates_at
    keeper().rotate()
    clock.now += R1
    assert states() == ["retiring", "active", "pending"]
    return rows()


def lose(row: SigningKey) -> None:
    """Revoke a key although it signs, as no operation does any more."""
    keeper()._revoke(row, clock_now(), "lost")


@contextmanager
def changes_nothing() -> Iterator[None]:
    before = everything()
    yield
    assert everything() == before


@contextmanager
def received(signal: Signal) -> Iterator[list[str]]:
    """Collect the kids that a signal tells, by a receiver that then fails."""
    seen: list[str] = []

    def receive(key: SigningKey, **_: Any) -> None:
        seen.append(key.kid)
        raise RuntimeError("a receiver of the project is broken")

    signal.connect(receive)
    try:
        yield seen
    finally:
        signal.disconnect(receive)


# -- rotating --------------------------------------------------------------------------------------


def test_the_first_rotation_makes_a_key_that_signs_at_once_and_its_standby():
    outcome = keeper(by="cron").rotate()
    first, second = outcome.created
    assert (outcome.action, outcome.changed, outcome.pruned) == ("created", [], [])
    assert states() == ["active", "pending"]
    assert [row.kid for row in rows()] == [first.kid, second.kid]
    assert (first.sequence, second.sequence) == (1, 2)
    # In force long enough for a clock that is slow.
    assert first.activates_at == START - 2 * SKEW
    assert second.activates_at == first.activates_at + WEEK
    for row in rows():
        assert (row.created_at, row.retention, row.created_by) == (START, 86400, "cron")
        assert (row.origin, row.alg, row.kid) == ("generated", "ES256", row.thumbprint)
        assert (row.note, row.revoke_reason, row.revoked_at, row.destroyed_at) == (
            "",
            "",
            None,
            None,
        )
        assert set(json.loads(row.public_jwk)) == {"kty", "crv", "x", "y"}


def test_rotating_again_changes_nothing_while_there_is_a_standby():
    keeper().rotate()
    for _ in range(3):
        with changes_nothing():
            assert keeper().rotate() == Outcome("noop")


def test_a_ring_goes_on_turning_on_schedule(clock):
    keeper().rotate()
    for turn in range(2, 6):
        clock.now = rows()[-1].activates_at
        created = keeper().rotate().created
        assert [row.sequence for row in created] == [turn + 1]
        assert created[0].activates_at == rows()[-2].activates_at + WEEK
    assert states() == ["retired"] * 3 + ["retiring", "active", "pending"]


def test_a_late_rotation_gives_the_new_key_time_to_be_known(clock):
    keeper().rotate()
    clock.forward(days=100)
    assert states() == ["retired", "active"]
    assert keeper().rotate().created[0].activates_at == clock.now + DAY


def test_where_another_source_publishes_keys_the_first_key_waits_its_time():
    outcome = keeper(alone=False).rotate()
    assert [row.activates_at for row in outcome.created] == [START + DAY]
    assert states() == ["pending"]
    used = store()
    assert (used.signing_key(), used.published().first) == (None, None)
    assert [key.kid for key in used.keys()] == kids()  # noqa: SIM118
    with changes_nothing():
        assert keeper(alone=False).rotate().action == "noop"


def test_a_ring_whose_keys_were_all_revoked_has_one_again_at_once(clock):
    keeper().rotate()
    keeper().revoke(kids()[1])
    lose(rows()[0])
    clock.forward(days=1)
    keeper(alone=False).rotate()
    assert states() == ["revoked", "revoked", "active", "pending"]
    assert rows()[2].activates_at == clock.now - 2 * SKEW


@pytest.mark.parametrize(("alg", "bits"), [("ES384", None), ("RS256", 2304), ("EdDSA", None)])
def test_a_key_of_another_kind_may_be_asked_for(alg, bits):
    keeper().rotate(alg=alg, bits=bits)
    assert {row.alg for row in rows()} == {alg}
    key = store().signing_key()
    assert (key.alg, getattr(key.private_key, "key_size", None)) == (
        alg,
        {"ES384": 384, "RS256": 2304}.get(alg),
    )


def test_a_kind_of_key_that_there_is_not_changes_nothing():
    with changes_nothing(), pytest.raises(UnsupportedKey):
        keeper().rotate(alg="HS256")


def test_a_time_may_be_given_when_everybody_will_have_seen_the_key():
    with changes_nothing(), pytest.raises(Refused) as caught:
        keeper().rotate(activates_at=START + R1 - TICK)
    assert str(caught.value) == (
        "Until 2030-01-01 15:35:30 UTC somebody may hold a JWK Set without the key, and would "
        "refuse what it signs."
    )
    keeper().rotate(activates_at=START + R1)
    assert rows()[1].activates_at == START + R1


def test_by_force_a_key_takes_over_at_any_time_after_the_last():
    keeper().rotate(activates_at=START + timedelta(seconds=1), force=True)
    assert rows()[1].activates_at == START + timedelta(seconds=1)
    keeper().revoke(kids()[1])
    first = rows()[0]
    for wrong in (first.activates_at, first.activates_at - DAY):
        with changes_nothing(), pytest.raises(Refused, match="only after 2030-01-01 11:58:00 UTC"):
            keeper().rotate(activates_at=wrong, force=True)


def test_the_first_key_is_not_made_if_its_standby_is_refused():
    for force in (False, True):
        with changes_nothing(), pytest.raises(Refused):
            keeper().rotate(activates_at=START - DAY, force=force)


# -- the rules -------------------------------------------------------------------------------------

BROKEN = [
    ({"PROPAGATION": 12929}, "R1: PROPAGATION is 12929 s, and must be at least 12930 s."),
    ({"RETENTION": 5189}, "R2: RETENTION is 5189 s, and must be at least 5190 s."),
    ({"ROTATE_EVERY": 172799}, "R3: ROTATE_EVERY is 172799 s, and must be at least 172800 s."),
]


@pytest.mark.parametrize(("options", "said"), BROKEN)
def test_no_key_is_made_or_promoted_where_the_times_break_a_rule(options, said, clock):
    a_ring(clock)
    wrong = keeper(**options)
    with changes_nothing(), pytest.raises(Refused) as caught:
        wrong.promote()
    assert str(caught.value) == f"The times of the ring break rule {said}"
    with changes_nothing():
        assert wrong.rotate().action == "noop"
    keeper().promote()
    for write in (wrong.rotate, lambda: wrong.import_key(material(ec_key()))):
        with changes_nothing(), pytest.raises(Refused) as caught:
            write()
        assert str(caught.value) == f"The times of the ring break rule {said}"
    assert wrong.rotate(force=True).action == "created"


@pytest.mark.parametrize(("options", "said"), BROKEN)
def test_a_leaked_key_is_revoked_whatever_the_rules_say(options, said, clock):
    first, *_ = a_ring(clock)
    keeper(**options).emergency()
    assert states() == ["retiring", "revoked", "active", "pending"]
    keeper(**options).revoke(first.kid)
    assert states()[0] == "revoked"


def test_a_retention_of_part_of_a_second_is_rounded_up():
    assert Timing(retention=86400).shortest_retention < 86400
    keeper(RETENTION=86399.5).rotate()
    assert {row.retention for row in rows()} == {86400}


# -- promoting -------------------------------------------------------------------------------------


def test_a_standby_that_everybody_knows_takes_over_at_once(clock):
    _, second, third = a_ring(clock)
    outcome = keeper().promote()
    assert (outcome.action, [row.kid for row in outcome.changed]) == ("promoted", [third.kid])
    assert states() == ["retiring", "retiring", "active"]
    assert store().signing_key().kid == third.kid
    assert rows()[2].activates_at == clock.now
    assert rows()[1].activates_at == second.activates_at


def test_a_standby_that_somebody_may_not_have_seen_is_not_promoted(clock):
    keeper().rotate()
    clock.now = START + R1 - TICK
    with changes_nothing(), pytest.raises(Refused, match="Until 2030-01-01 15:35:30 UTC somebody"):
        keeper().promote()
    clock.now += TICK
    keeper().promote()
    assert states() == ["retiring", "active"]


def test_by_force_any_standby_is_promoted():
    keeper().rotate()
    assert keeper(PROPAGATION=0).promote(force=True).action == "promoted"
    assert states() == ["retiring", "active"]


def test_promoting_twice_does_not_promote_a_key_that_was_just_made(clock):
    a_ring(clock)
    keeper().promote()
    with changes_nothing(), pytest.raises(Refused, match=r"no standby .*; run rotate_keys first"):
        keeper().promote()
    keeper().rotate()
    with changes_nothing(), pytest.raises(Refused, match="somebody may hold a JWK Set without"):
        keeper().promote()


# -- emergencies -----------------------------------------------------------------------------------


def test_an_emergency_revokes_the_active_key_and_the_standby_signs(clock):
    first, second, third = a_ring(clock)
    outcome = keeper(by="me").emergency(reason="it was in a log")
    assert outcome.action == "promoted"
    assert [row.kid for row in outcome.changed] == [third.kid, second.kid]
    assert states() == ["retiring", "revoked", "active", "pending"]
    revoked, promoted, new = rows()[1:]
    assert (revoked.revoked_at, revoked.revoke_reason) == (clock.now, "it was in a log")
    assert revoked.private_envelope is None
    assert promoted.activates_at == clock.now - 2 * SKEW
    assert [row.kid for row in outcome.created] == [new.kid]
    assert (new.created_by, new.activates_at) == ("me", promoted.activates_at + WEEK)
    assert store().signing_key().kid == third.kid
    assert sorted(key.kid for key in store().keys()) == sorted([first.kid, third.kid, new.kid])  # noqa: SIM118


@pytest.mark.parametrize("seconds", [-60, 0, 60])
def test_right_after_an_emergency_a_process_with_another_clock_signs_too(seconds, clock):
    _, _, third = a_ring(clock)
    keeper().emergency()
    clock.forward(seconds=seconds)
    assert store().signing_key().kid == third.kid


def test_an_emergency_without_a_standby_makes_a_key_that_signs_at_once(clock):
    *_, third = a_ring(clock)
    keeper().promote()
    clock.now += R1
    outcome = keeper().emergency()
    assert outcome.action == "promoted"
    assert [row.kid for row in outcome.changed] == [third.kid]
    assert states() == ["retiring", "retiring", "revoked", "active", "pending"]
    assert kids()[3:] == [row.kid for row in outcome.created]
    assert rows()[3].activates_at == clock.now - 2 * SKEW


def test_a_key_that_follows_one_that_just_took_over_does_not_begin_before_it(clock):
    keeper().rotate()
    clock.now = rows()[1].activates_at
    keeper().emergency(kid=kids()[1])
    clock.now += TICK
    assert states() == ["retiring", "revoked", "active", "pending"]
    assert rows()[2].activates_at == clock.now


def test_an_emergency_of_the_standby_replaces_it(clock):
    _, second, third = a_ring(clock)
    outcome = keeper().emergency(kid=third.kid)
    assert outcome.action == "revoked"
    assert [row.kid for row in outcome.changed] == [third.kid]
    assert states() == ["retiring", "active", "revoked", "pending"]
    assert rows()[3].activates_at == second.activates_at + WEEK
    assert store().signing_key().kid == second.kid


def test_an_emergency_of_a_retiring_key_revokes_just_that_one(clock):
    first, *_ = a_ring(clock)
    outcome = keeper().emergency(kid=first.kid)
    assert (outcome.action, outcome.created) == ("revoked", [])
    assert states() == ["revoked", "active", "pending"]


def test_an_emergency_of_a_retired_key_revokes_just_that_one(clock):
    first, *_ = a_ring(clock)
    clock.forward(days=1)
    assert states()[0] == "retired"
    assert keeper().emergency(kid=first.kid).action == "revoked"
    assert states() == ["revoked", "active", "pending"]


def test_a_revoked_key_is_not_revoked_again(clock):
    """Else one revoked as a standby would count as having been active."""
    *_, third = a_ring(clock)
    keeper().emergency(kid=third.kid)
    clock.forward(days=7)
    with changes_nothing():
        with pytest.raises(LostRace, match=f"Key '{third.kid}' has been revoked already"):
            keeper().emergency(kid=third.kid)
        assert keeper().revoke(third.kid) == Outcome("noop")
    assert states() == ["retired", "retiring", "revoked", "active"]


@pytest.mark.parametrize("operation", ["emergency", "revoke", "postpone"])
@pytest.mark.parametrize(
    "spell", [str.swapcase, str.lower, lambda kid: kid + " ", lambda kid: "no"]
)
def test_a_kid_is_taken_as_it_is_spelled(operation, spell, clock):
    _, second, _ = a_ring(clock)
    kid = spell(second.kid)
    how: dict[str, Callable[[], Any]] = {
        "emergency": lambda: keeper().emergency(kid=kid),
        "revoke": lambda: keeper().revoke(kid),
        "postpone": lambda: keeper().postpone(kid, clock.now + 9 * WEEK),
    }
    with changes_nothing(), pytest.raises(KeyStoreError) as caught:
        how[operation]()
    assert str(caught.value) == f"The ring 'default' has no key {kid!r}."


def test_two_who_answer_one_alarm_do_not_revoke_each_other_s_key(clock):
    a_ring(clock)
    keeper().emergency()
    clock.now += R1 - TICK
    with changes_nothing(), pytest.raises(Refused, match="say with --kid which key is to be revo"):
        keeper().emergency()
    keeper().emergency(kid=kids()[2])
    clock.now += R1
    keeper().emergency()
    assert states() == ["retiring", "revoked", "revoked", "revoked", "active", "pending"]


@pytest.mark.parametrize("change", ["promote", "revoke", "turn"])
def test_a_ring_that_has_just_changed_is_not_changed_by_an_emergency_without_kid(change, clock):
    first, _, third = a_ring(clock)
    if change == "promote":
        keeper().promote()
    elif change == "revoke":
        keeper().revoke(first.kid)
    else:
        clock.now = third.activates_at
    clock.now += R1 - TICK
    with changes_nothing(), pytest.raises(Refused, match="The ring has just changed"):
        keeper().emergency()
    clock.now += TICK
    keeper().emergency()


@pytest.mark.parametrize("alone", [True, False])
def test_without_an_active_key_there_is_no_emergency(alone):
    if not alone:
        keeper(alone=False).rotate()
    with changes_nothing(), pytest.raises(Refused, match="There is no active key to revoke"):
        keeper().emergency()


STATEMENTS = ("UPDATE", "INSERT")


@pytest.mark.parametrize("standby", [True, False])
@pytest.mark.parametrize("number", range(4))
def test_an_emergency_that_fails_anywhere_has_changed_nothing(standby, number, clock):
    a_ring(clock)
    if not standby:
        keeper().promote()
    writes = 0

    def fail(sql: str) -> None:
        nonlocal writes
        if sql.startswith(STATEMENTS):
            if writes == number:
                raise OperationalError("disk full")
            writes += 1

    signing = store().signing_key().kid
    with received(signals.key_revoked) as revoked, received(signals.key_created) as created:
        if number < 3:
            with changes_nothing(), watching(fail), pytest.raises(OperationalError):
                keeper().emergency(kid=signing)
        else:
            with watching(fail):
                keeper().emergency(kid=signing)
            assert writes == 3
    assert revoked == created == []  # Not before the transaction of this test is committed.


# -- keys that cannot sign -------------------------------------------------------------------------


def lock(row: SigningKey) -> None:
    """Put a private half under a key-encryption key that is lost; the seal does not cover it."""
    keys = store(ENCRYPTION_KEYS=KEKS[2:]).options.encryption_keys
    edit(row, private_envelope=keys.encrypt(b"x", ring=row.ring, kid=row.kid, alg=row.alg))


@pytest.mark.parametrize("force", [True, False])
def test_a_standby_that_is_locked_is_not_promoted(force, clock):
    *_, third = a_ring(clock)
    lock(third)
    lost = store(ENCRYPTION_KEYS=KEKS[2:]).options.encryption_keys.current.name
    said = f"The private half of key '{third.kid}' needs the key-encryption key {lost}, which is"
    with changes_nothing(), pytest.raises(EncryptionKeyMissing, match=re.escape(said)):
        keeper().promote(force=force)


def test_a_standby_that_was_tampered_with_or_has_no_private_half_is_not_promoted(clock):
    *_, second, third = a_ring(clock)
    edit(third, private_envelope=second.envelope)
    with changes_nothing(), pytest.raises(Tampered, match=third.kid):
        keeper().promote()
    edit(third, private_envelope=None)
    said = f"The standby '{third.kid}' cannot sign here: It has no private half."
    with changes_nothing(), pytest.raises(Refused, match=re.escape(said)):
        keeper().promote()


def test_in_an_emergency_a_new_key_signs_where_the_standby_cannot(clock):
    _, second, third = a_ring(clock)
    lock(third)
    outcome = keeper().emergency(reason="leaked")
    assert states() == ["retiring", "revoked", "revoked", "active", "pending"]
    *_, new, standby = rows()
    assert outcome.action == "promoted"
    assert [row.kid for row in outcome.created] == [new.kid, standby.kid]
    assert [row.kid for row in outcome.changed] == [third.kid, second.kid]
    assert [row.revoke_reason for row in rows()[1:3]] == ["leaked", "It could not sign."]
    assert store().signing_key().kid == new.kid
    clock.forward(days=7)
    assert store().signing_key().kid == standby.kid


def test_an_emergency_of_another_key_leaves_a_locked_standby_alone(clock):
    first, _, third = a_ring(clock)
    lock(third)
    keeper().emergency(kid=first.kid)
    assert states() == ["revoked", "active", "pending"]


# -- a ring whose active key is gone ---------------------------------------------------------------


def test_the_active_key_is_not_revoked_without_a_successor(clock):
    _, second, _ = a_ring(clock)
    said = f"Key {second.kid} signs; rotate_keys --emergency --kid={second.kid} revokes it"
    with changes_nothing(), pytest.raises(Refused, match=re.escape(said)):
        keeper().revoke(second.kid)


def test_where_no_key_is_active_any_more_the_standby_signs_after_a_rotation(clock):
    first, second, third = a_ring(clock)
    lose(second)
    assert store().signing_key().kid == first.kid, "in its place, as long as it is published"
    outcome = keeper().rotate()
    assert (outcome.action, outcome.changed[0].kid) == ("promoted", third.kid)
    assert states() == ["retiring", "revoked", "active", "pending"]
    assert store().signing_key().kid == third.kid
    assert keeper().rotate().action == "noop"


def test_where_no_key_is_active_and_the_standby_cannot_sign_a_new_key_does(clock):
    _, second, third = a_ring(clock)
    lose(second)
    lock(third)
    outcome = keeper().rotate()
    assert states() == ["retiring", "revoked", "revoked", "active", "pending"]
    assert [row.kid for row in outcome.changed] == [third.kid]
    assert store().signing_key().kid == rows()[3].kid


# -- revoking, postponing, pruning -----------------------------------------------------------------


def test_a_revoked_key_leaves_the_set_and_its_private_half_is_gone(clock):
    first, second, third = a_ring(clock)
    outcome = keeper().revoke(third.kid, reason="a test")
    assert (outcome.action, [row.kid for row in outcome.changed]) == ("revoked", [third.kid])
    assert [key.kid for key in store().keys()] == [second.kid, first.kid]  # noqa: SIM118
    row = rows()[2]
    assert (row.private_envelope, row.revoked_at, row.revoke_reason) == (None, clock.now, "a test")


def test_a_standby_is_postponed_and_takes_over_then(clock):
    _, second, third = a_ring(clock)
    until = third.activates_at + DAY
    outcome = keeper().postpone(third.kid, until)
    assert (outcome.action, outcome.changed[0].activates_at) == ("postponed", until)
    clock.now = until - TICK
    assert store().signing_key().kid == second.kid
    clock.now = until
    assert store().signing_key().kid == third.kid


def test_only_a_standby_is_postponed_and_only_to_later(clock):
    first, second, third = a_ring(clock)
    for row, state in ((first, "retiring"), (second, "active")):
        with (
            changes_nothing(),
            pytest.raises(Refused, match=f"is {state}, and no standby any more"),
        ):
            keeper().postpone(row.kid, clock.now + 9 * WEEK)
    for until in (third.activates_at, clock.now):
        with changes_nothing(), pytest.raises(Refused, match="takes over at 2030-01-15 11:58:00"):
            keeper().postpone(third.kid, until)


def test_a_standby_is_not_postponed_past_the_one_that_follows_it(clock):
    keeper().rotate()
    second = rows()[1]
    clock.now = second.activates_at
    keeper().rotate()
    clock.now = second.activates_at - timedelta(hours=1)  # The clock was wrong.
    third = rows()[2]
    with changes_nothing(), pytest.raises(Refused, match="has to take over before the one that"):
        keeper().postpone(second.kid, third.activates_at)
    keeper().postpone(second.kid, third.activates_at - TICK)


def test_the_private_halves_of_keys_that_are_not_published_are_wiped_for_good(clock):
    first, second, third = a_ring(clock)
    keeper().revoke(third.kid)
    clock.now = second.activates_at + DAY - TICK
    assert [row.kid for row in keeper().prune().pruned] == [third.kid]
    clock.now += TICK
    outcome = keeper().prune()
    assert (outcome.action, [row.kid for row in outcome.pruned]) == ("pruned", [first.kid])
    assert [row.private_envelope is None for row in rows()] == [True, False, True]
    assert [row.destroyed_at for row in rows()] == [clock.now, None, clock.now - TICK]
    with changes_nothing():
        assert keeper().prune().pruned == []
    keeper().emergency(kid=second.kid)
    assert first.kid not in [key.kid for key in store().keys()]  # noqa: SIM118


# -- importing -------------------------------------------------------------------------------------


def test_an_imported_key_is_the_standby_and_signs_under_its_own_kid(clock):
    keeper().rotate()
    clock.now = rows()[1].activates_at
    outcome = keeper().import_key(material(ec_key(), kid="mine.2030"))
    assert (outcome.action, [row.kid for row in outcome.created]) == ("created", ["mine.2030"])
    row = rows()[2]
    assert (row.origin, row.activates_at) == ("imported", rows()[1].activates_at + WEEK)
    clock.now = row.activates_at
    signing = store().signing_key()
    assert (signing.kid, signing.thumbprint) == ("mine.2030", row.thumbprint)
    assert row.thumbprint != row.kid


def test_an_imported_key_that_is_the_first_of_its_ring_signs_at_once():
    keeper().import_key(material(ec_key()))
    assert states() == ["active"]
    keeper(RING="other", alone=False).import_key(material(ec_key(1)))
    assert states("other") == ["pending"]
    assert rows("other")[0].activates_at == START + DAY


def test_an_imported_key_may_take_over_when_everybody_will_have_seen_it(clock):
    keeper().rotate()
    clock.now = rows()[1].activates_at
    with changes_nothing(), pytest.raises(Refused, match="somebody may hold a JWK Set without"):
        keeper().import_key(material(ec_key()), activates_at=clock.now + R1 - TICK)
    keeper().import_key(material(ec_key()), activates_at=clock.now + R1)
    assert rows()[2].activates_at == clock.now + R1


def test_a_key_that_is_there_is_not_imported_again_under_any_name(clock):
    keeper().import_key(material(ec_key(), kid="one"))
    for kid in ("one", "two"):
        with changes_nothing():
            assert keeper().import_key(material(ec_key(), kid=kid)) == Outcome("noop")


@pytest.mark.parametrize("ended", ["revoked", "retired"])
def test_a_key_whose_time_is_over_is_not_imported_again(ended, clock):
    keeper().import_key(material(ec_key(), kid="one"))
    keeper().rotate()
    if ended == "revoked":
        lose(rows()[0])
    clock.forward(days=9)
    with (
        changes_nothing(),
        pytest.raises(Refused, match=f"Key 'one' is {ended}, and does not come"),
    ):
        keeper().import_key(material(ec_key(), kid="two"))


def test_a_key_or_kid_that_another_ring_has_is_refused_and_that_is_no_lost_race(clock):
    keeper(RING="other").import_key(material(ec_key(), kid="one"))
    for key in (material(ec_key(), kid="two"), material(ec_key(1), kid="one")):
        with (
            changes_nothing(),
            pytest.raises(Refused, match="The ring 'other' has that key already"),
        ):
            keeper().import_key(key)
    with changes_nothing(), pytest.raises(Refused, match="The ring 'other' has that key already"):
        keeper(RING="other").import_key(material(ec_key(1), kid="one"))


def test_a_second_standby_and_a_public_key_are_not_imported():
    keeper().rotate()
    with changes_nothing():
        with pytest.raises(
            Refused, match="The ring has a standby already; revoke it first, or wait"
        ):
            keeper().import_key(material(ec_key()))
        with pytest.raises(Refused, match="The key is public"):
            keeper().import_key(load_key(public_pem(ec_key())))


# -- another key-encryption key --------------------------------------------------------------------


def test_every_row_is_put_under_the_first_key_encryption_key(clock):
    first, *_ = a_ring(clock)
    keeper().revoke(first.kid)
    both = keeper(ENCRYPTION_KEYS=[KEKS[1], KEKS[0]])
    published = [key.public_jwk for key in store().keys()]  # noqa: SIM118
    outcome = both.reencrypt()
    assert (outcome.action, len(outcome.changed)) == ("reencrypted", 3)
    with changes_nothing():
        assert both.reencrypt().changed == []
    new = store(ENCRYPTION_KEYS=KEKS[1:2])
    assert [key.public_jwk for key in new.keys()] == published  # noqa: SIM118
    assert new.signing_key().kid == rows()[1].kid
    with pytest.raises(EncryptionKeyMissing):
        store().read()


def test_what_was_put_under_another_key_before_a_failure_stays_and_the_rest_follows(clock):
    a_ring(clock)
    both = keeper(ENCRYPTION_KEYS=[KEKS[1], KEKS[0]])
    done = 0

    def fail(sql: str) -> None:
        nonlocal done
        if sql.startswith("UPDATE"):
            done += 1
            if done == 2:
                raise OperationalError("disk full")

    with watching(fail), pytest.raises(OperationalError):
        both.reencrypt()
    assert len(both.read().rows) == 3
    assert [row.kid for row in both.reencrypt().changed] == kids()[1:]
    store(ENCRYPTION_KEYS=KEKS[1:2]).read()


def test_an_envelope_is_put_under_another_key_even_if_the_seal_is_already(clock):
    keeper().rotate()
    both = keeper(ENCRYPTION_KEYS=[KEKS[1], KEKS[0]])
    for row in rows():
        edit(row, seal=both.options.encryption_keys.seal(row.sealed()))
    assert len(both.reencrypt().changed) == 2
    assert store(ENCRYPTION_KEYS=KEKS[1:2]).signing_key().kid == kids()[0]


def test_an_envelope_that_was_tampered_with_is_not_put_under_another_key(clock):
    keeper().rotate()
    edit(rows()[0], private_envelope=rows()[1].envelope)
    before = rows()[0].private_envelope
    outcome = keeper(ENCRYPTION_KEYS=[KEKS[1], KEKS[0]]).reencrypt()
    assert [type(error) for _, error in outcome.failed] == [Tampered]
    assert rows()[0].private_envelope == before
    assert [row.kid for row in outcome.changed] == kids(), "the seals, and the other one"
    signing = store(ENCRYPTION_KEYS=KEKS[1:2])
    with pytest.raises(NoUsableSigningKey):
        signing.signing_key()
    clock.now = rows()[1].activates_at
    assert signing.signing_key().kid == kids()[1]


# -- lost races ------------------------------------------------------------------------------------

OPERATIONS: dict[str, Callable[[SigningKey], Any]] = {
    "promote": lambda standby: keeper().promote(),
    "emergency": lambda standby: keeper().emergency(),
    "revoke": lambda standby: keeper().revoke(standby.kid),
    "postpone": lambda standby: keeper().postpone(standby.kid, standby.activates_at + WEEK),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("other", ["revoke", "postpone"])
def test_whoever_changes_a_key_that_was_changed_since_it_was_read_loses(operation, other, clock):
    standby = a_ring(clock)[2]
    done: list[list[dict[str, Any]]] = []

    def first() -> None:
        if other == "revoke":
            keeper().revoke(standby.kid)
        else:
            keeper().postpone(standby.kid, standby.activates_at + DAY)
        done.append(everything())

    with meanwhile(first), pytest.raises(LostRace) as caught:
        OPERATIONS[operation](standby)
    assert str(caught.value) == f"Another process has just changed key '{standby.kid}'."
    assert everything() == done[0]


def test_whoever_puts_a_key_under_another_one_that_was_changed_since_it_was_read_loses(clock):
    first, second, third = a_ring(clock)
    both = keeper(ENCRYPTION_KEYS=[KEKS[1], KEKS[0]])
    with meanwhile(lambda: keeper().revoke(first.kid)), pytest.raises(LostRace, match=first.kid):
        both.reencrypt()
    assert rows()[0].private_envelope is None
    assert [row.kid for row in both.reencrypt().changed] == [first.kid, second.kid, third.kid]


def test_whoever_prunes_a_key_that_was_just_revoked_loses(clock):
    first, second, _ = a_ring(clock)
    clock.now = second.activates_at + DAY
    with meanwhile(lambda: keeper().revoke(first.kid)), pytest.raises(LostRace):
        keeper().prune()
    assert rows()[0].destroyed_at is None
    assert [row.kid for row in keeper().prune().pruned] == [first.kid]


@pytest.mark.parametrize(
    "act", [lambda: keeper().rotate(), lambda: keeper().import_key(material(ec_key()))]
)
@pytest.mark.parametrize("started", [True, False])
def test_whoever_adds_a_key_after_another_was_added_loses(act, started, clock):
    if started:
        keeper().rotate()
        clock.now = rows()[1].activates_at
    done: list[list[dict[str, Any]]] = []
    with (
        meanwhile(lambda: (keeper().rotate(), done.append(everything()))),
        pytest.raises(LostRace, match="Another process has just added a key to the ring"),
    ):
        act()
    assert everything() == done[0]


def test_whoever_imports_a_key_that_another_imported_this_moment_loses():
    reads = 0

    def before(sql: str) -> None:
        nonlocal reads
        reads += 1
        if reads == 2:
            keeper().import_key(material(ec_key()))

    with watching(before), pytest.raises(LostRace):
        keeper().import_key(material(ec_key()))
    assert len(rows()) == 1


class Gave(Exception):
    """What a database's library raises."""

    sqlstate = sqlite_errorname = None


@pytest.mark.parametrize(
    ("sqlstate", "name", "args", "lost"),
    [
        ("40001", None, ("could not serialize access",), True),
        ("40P01", None, ("deadlock detected",), True),
        (None, "SQLITE_BUSY", ("database is locked",), True),
        (None, "SQLITE_BUSY_SNAPSHOT", ("database is locked",), True),
        (None, None, (1213, "Deadlock found when trying to get lock"), True),
        (None, None, (1020, "Record has changed since last read"), True),
        ("53100", None, ("disk full",), False),
        (None, "SQLITE_FULL", ("database or disk is full",), False),
        (None, None, (2006, "Server has gone away"), False),
        (None, None, (), False),
    ],
)
def test_a_transaction_that_had_to_give_way_is_a_lost_race(sqlstate, name, args, lost):
    cause = Gave(*args)
    cause.sqlstate, cause.sqlite_errorname = sqlstate, name  # type: ignore[assignment]

    def fail(sql: str) -> None:
        if sql.startswith("INSERT"):
            raise OperationalError(*args) from cause

    with changes_nothing(), watching(fail), pytest.raises((LostRace, OperationalError)) as caught:
        keeper().rotate()
    assert (type(caught.value) is LostRace) is lost


# -- in somebody's transaction, and who is told ----------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_what_is_done_in_a_transaction_that_is_undone_is_told_to_nobody(clock):
    with received(signals.key_created) as created, received(signals.key_revoked) as revoked:
        with transaction.atomic():
            keeper().rotate()
            keeper().emergency(kid=kids()[0])
            transaction.set_rollback(True)
        assert (created, revoked, rows()) == ([], [], [])
        keeper().rotate()
        assert created == kids()
        keeper().emergency(kid=kids()[0], reason="a test")
        assert (created, revoked) == (kids(), kids()[:1])


@pytest.mark.django_db(transaction=True)
def test_a_lost_race_leaves_the_caller_s_transaction_usable(clock):
    keeper().rotate()
    clock.now = rows()[1].activates_at
    with transaction.atomic():
        with meanwhile(lambda: keeper().rotate()), pytest.raises(LostRace):
            keeper().rotate()
        assert len(rows()) == 3


def test_no_key_is_made_while_a_transaction_is_open(clock, monkeypatch):
    """It takes a second for a large one, in which nobody could write."""
    from cryptography.hazmat.primitives.asymmetric import ec

    a_ring(clock)
    original, open_at = ec.generate_private_key, []
    depth = len(connection.savepoint_ids)

    def generate(*args: Any) -> Any:
        open_at.append(len(connection.savepoint_ids) - depth)
        return original(*args)

    monkeypatch.setattr(ec, "generate_private_key", generate)
    keeper().emergency()
    keeper().promote(force=True)
    keeper().emergency(kid=kids()[-1])
    keeper(RING="other").rotate()
    assert {*open_at} == {0}
    assert len(open_at) >= 5, "and one in 64 is made again, for its kid"


def test_a_rotation_is_few_queries(clock):
    with CaptureQueriesContext(connection) as asked:
        keeper().rotate()
    assert len([query for query in asked if TABLE in query["sql"]]) == 3
    with CaptureQueriesContext(connection) as asked:
        keeper().rotate()
    assert len(asked) == 1


# -- the rings of the settings ---------------------------------------------------------------------

ENTRY = {
    "AUTHSERVER_ENDPOINT": "https://auth.example.com",
    "CLIENT_ID": "client",
    "CLIENT_SECRET": "secret",
}
BACKEND = "django_baikal.keys.database.DatabaseKeyStore"


def entry(backend: str = BACKEND, extra: Any = None, **options: Any) -> dict[str, Any]:
    return {**ENTRY, **(extra or {}), "KEYS": {"BACKEND": backend, "OPTIONS": options}}


def test_each_ring_of_the_settings_has_a_keeper(tmp_path):
    other = {"PRIVATE_CERTS_PATH": str(tmp_path)}
    aliases = {
        "default": entry(),
        "plain": ENTRY,
        "eu": entry(RING="eu"),
        "eu2": entry(RING="eu", extra=other),
        "others": entry("django_baikal.keys.directory.DirectoryKeyStore"),
        "function": entry("os.path.join"),
    }
    with override_settings(BAIKAL=aliases):
        found = keepers(by="me")
    assert {name: keeper.alone for name, keeper in found.items()} == {"default": True, "eu": False}
    assert {keeper.by for keeper in found.values()} == {"me"}
    assert all(isinstance(each, Keeper) for each in found.values())
    found["eu"].rotate(alg="ES256")
    assert [row.created_by for row in rows("eu")] == ["me"]


def test_a_backend_that_is_not_there_is_the_project_s_mistake():
    with (
        override_settings(BAIKAL={"default": entry("nowhere.Store")}),
        pytest.raises(ConfigurationError, match=r"^BAIKAL\['default'\]: KEYS: BACKEND cannot be"),
    ):
        keepers()


def test_no_new_kid_looks_like_an_option_of_a_command():
    made = [keeper()._generate(None, None).kid for _ in range(800)]
    assert not [kid for kid in made if kid.startswith("-")]
