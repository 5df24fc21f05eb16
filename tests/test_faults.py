"""The faults that the keys have to survive, by their numbers: 9, 10 and 12."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test import Client
from keys_stage import database_of_the_tests, everything, refused, run
from keys_stage import keeper as keeper_of_settings
from ring_stage import Clock, keeper, rows, store, watching
from test_ring_views import JWKS, kids, max_age, ring

from django_baikal import clients
from django_baikal.keys.base import Keyring
from django_baikal.protocol import jws

# -- F9: the database is down ----------------------------------------------------------------------


def down(*_: Any) -> Any:
    raise OperationalError("gone")


@pytest.mark.django_db
def test_fault_09_while_the_database_is_down_the_last_set_is_given_for_a_minute_at_most():
    with ring(PROCESS_CACHE_TTL=0) as keeper:
        keeper.rotate()
        before = Client().get(JWKS)
        with connection.execute_wrapper(down):
            during = Client().get(JWKS)
        assert during.content == before.content
        assert (max_age(before), max_age(during)) == (900, 60)
        assert max_age(Client().get(JWKS)) == 900


@pytest.mark.django_db
def test_fault_09_without_a_set_the_database_that_is_down_is_503_and_never_an_empty_set():
    with ring() as keeper:
        keeper.rotate()
        with connection.execute_wrapper(down):
            answer = Client().get(JWKS)
        assert (answer.status_code, answer["Cache-Control"]) == (503, "no-store")
        assert answer["Retry-After"] == "30"


@pytest.mark.django_db
def test_fault_09_while_the_database_is_down_assertions_are_signed_with_what_is_known():
    with ring(PROCESS_CACHE_TTL=0) as keeper:
        keeper.rotate()
        jwks = Client().get(JWKS).json()["keys"]
        with connection.execute_wrapper(down):
            token = clients["default"]._runtime.sign({"sub": "me"})
        jws.verify(token, jwks, algorithms=["ES256"])


@pytest.mark.django_db
def test_fault_09_a_command_that_finds_no_database_says_so_and_runs_when_it_is_back():
    with ring():
        with connection.execute_wrapper(down):
            status, sentence, printed = refused("rotate_keys")
        said = "Ring default: The database failed (OperationalError): gone"
        assert (status, sentence, printed) == (5, said, "")
        assert everything() == []
        run("rotate_keys")
        assert len(keeper_of_settings().read().rows) == 2


# -- F10: many rotate at once, or are killed while they do -----------------------------------------


@pytest.fixture
def racing(tmp_path) -> Callable[..., list[dict[str, Any]]]:
    """Run ``race.py`` on a file of SQLite, or on the database of the tests where it is another."""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "settings"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    environment["DATABASE_URL"] = database_of_the_tests(tmp_path)
    if connection.vendor == "sqlite":
        environment["DATABASE_URL"] += "?timeout=60"  # for a slow disk

    def run(*arguments: object) -> list[dict[str, Any]]:
        script = Path(__file__).resolve().with_name("race.py")
        done = subprocess.run(
            [sys.executable, "-W", "error", str(script), *map(str, arguments)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
#: For each operation: what the one that does it says, what the others may, and the ring then.
RACES = {
    "empty": ("created", {"lost_race", "noop"}, ["active", "pending"]),
    "rotate": ("created", {"lost_race", "noop"}, ["retired", "active", "pending"]),
    "import": ("created", {"lost_race", "noop"}, ["active"]),
    "promote": ("promoted", {"lost_race", "refused"}, ["retired", "retiring", "active"]),
    "revoke": ("revoked", {"lost_race", "noop"}, ["retired", "active", "revoked"]),
    "emergency": (
        "promoted",
        {"lost_race", "refused"},
        ["retired", "revoked", "active", "pending"],
    ),
    "emergency-alone": (
        "promoted",
        {"lost_race", "refused"},
        ["retired", "revoked", "active", "pending"],
    ),
    "emergency-kid": ("promoted", {"lost_race"}, ["retired", "revoked", "active", "pending"]),
}
#: The same by the buttons of the admin, which show a message of that level.
IN_ADMIN = {
    "admin-rotate": ("success", {"info", "warning"}, ["retired", "active", "pending"]),
    "admin-promote": ("success", {"error", "warning"}, ["retired", "retiring", "active"]),
    "admin-revoke": ("success", {"warning"}, ["retired", "revoked", "active", "pending"]),
}


@needs_fork
@pytest.mark.django_db(transaction=True)
@pytest.mark.slow
@pytest.mark.parametrize("operation", RACES | IN_ADMIN)
def test_fault_10_of_eight_processes_that_do_it_at_once_exactly_one_does(operation, racing, scale):
    does, others, then = (RACES | IN_ADMIN)[operation]
    rounds = scale(5, 100)
    found = racing("race", operation, rounds)
    assert len(found) == rounds
    for race in found:
        results = Counter(race["results"])
        assert results.pop(does, 0) == 1, race
        assert results.total() == 7
        assert set(results) <= others
        assert race["after"]["states"] == then
        before = race["before"]["kids"]
        assert race["after"]["kids"][: len(before)] == before


@needs_fork
@pytest.mark.django_db(transaction=True)
@pytest.mark.slow
@pytest.mark.parametrize("operation", RACES)
def test_fault_10_a_process_that_is_killed_leaves_nothing_half_done(operation, racing):
    does, _, then = RACES[operation]
    *killed, whole = racing("kill", operation)
    assert len(killed) >= 2
    assert not whole["killed"]
    assert whole["left"]["states"] == then
    for each in killed:
        assert each["killed"]
        assert each["left"] == each["before"]
        assert each["again"] == does
        assert each["after"]["states"] == then


# -- F12: clocks that are wrong, or step -----------------------------------------------------------

SKEW = 60


def signed(clock: Clock, seconds: float) -> str:
    """Sign in a process that starts now, and whose clock is wrong by ``seconds``."""
    right, clock.now = clock.now, clock.now + timedelta(seconds=seconds)
    try:
        key = store().signing_key()
        assert key is not None
        return key.sign({"sub": "me"})
    finally:
        clock.now = right


def published(clock: Clock, seconds: float) -> list[dict[str, Any]]:
    right, clock.now = clock.now, clock.now + timedelta(seconds=seconds)
    try:
        found: list[dict[str, Any]] = Keyring([store()]).jwk_set()["keys"]
        return found
    finally:
        clock.now = right


@pytest.mark.django_db
@pytest.mark.parametrize("signer", [-SKEW, 0, SKEW])
@pytest.mark.parametrize("publisher", [-SKEW, 0, SKEW])
def test_fault_12_clocks_that_differ_by_two_minutes_cost_no_assertion(
    signer, publisher, monkeypatch
):
    """From the first second of a ring, across a turn and a key that leaves the set."""
    clock = Clock(monkeypatch)
    keeper().rotate()
    first, second = rows()
    turn = second.activates_at
    leaves = turn + timedelta(seconds=first.retention)
    life = timedelta(seconds=300 + SKEW)
    moments = [clock.now + timedelta(seconds=1)]
    moments += [
        at + timedelta(seconds=s)
        for at in (turn, leaves - life, leaves)
        for s in range(-180, 181, 20)
    ]
    seen = set()
    for moment in moments:
        clock.now = moment
        if moment >= turn and len(rows()) == 2:
            keeper().rotate()
        token = signed(clock, signer)
        seen.add(jws.decode(token).header["kid"])
        for later in (timedelta(0), life):
            clock.now = moment + later
            jws.verify(token, published(clock, publisher), algorithms=["ES256"])
    assert seen == {first.kid, second.kid}


@pytest.mark.django_db
@pytest.mark.parametrize("hours", [-24, -1, 1, 24])
def test_fault_12_a_clock_that_steps_changes_no_reading_and_no_age(hours, monkeypatch):
    """What is kept is kept by a clock that does not step."""
    clock = Clock(monkeypatch)
    with ring() as kept:
        kept.rotate()
        clock.forward(days=8)
        kept.rotate()
        clock.forward(days=1)
        with watching() as watch:
            before = Client().get(JWKS)
            clock.forward(hours=hours)
            after = Client().get(JWKS)
            token = clients["default"]._runtime.sign({"sub": "me"})
        assert watch.asked == ["SELECT"]
        assert 60 <= max_age(after) <= 900
        assert set(kids(after)) >= set(kids(before)[:2])
        jws.verify(token, after.json()["keys"], algorithms=["ES256"])


@pytest.mark.django_db
def test_fault_12_a_step_back_before_a_turn_and_again_signs_with_what_is_published(monkeypatch):
    clock = Clock(monkeypatch)
    keeper().rotate()
    first, second = rows()
    used = store()
    ring = Keyring([used])
    for seconds, kid in ((1, second.kid), (-1, first.kid), (1, second.kid), (-3600, first.kid)):
        clock.now = second.activates_at + timedelta(seconds=seconds)
        token = ring.signing_key().sign({"sub": "me"})
        assert jws.decode(token).header["kid"] == kid
        jws.verify(token, ring.jwk_set()["keys"], algorithms=["ES256"])
