"""The demo's steps about keys that rotate: what they show, and that each of them can fail."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from html import unescape
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import requests
from django.core.management import CommandError, call_command
from django.utils import timezone
from example import clock, steps
from example.management.commands.demo import Command
from example.serving import serving
from test_example_project import PROJECT, World, become_the_example

from django_baikal.keys import keepers
from django_baikal.keys.database import DatabaseKeyStore
from django_baikal.keys.rotation import PENDING, RETIRED, RETIRING, REVOKED, Ring, Signer
from django_baikal.models import SigningKey
from django_baikal.protocol import jws
from django_baikal.protocol.effects import Request, Response
from django_baikal.testing import FakeAuthserver
from django_baikal.testing.issuers import HTTPFetch


class Fetch(HTTPFetch):
    """Fetches over HTTP; once ``deaf`` it gives what it had fetched before."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, Response] = {}
        self.deaf = False

    def __call__(self, request: Request) -> Response:
        if not self.deaf:
            self.known[request.url] = super().__call__(request)
        return self.known[request.url]


@pytest.fixture(autouse=True)
def _example(settings: Any, own_database: None) -> Iterator[None]:
    become_the_example(settings, DEMO_DATABASE="own_database")
    steps.latest = None
    yield
    steps.latest = None


@pytest.fixture
def fetch() -> Iterator[Fetch]:
    fetch = Fetch()
    yield fetch
    fetch.close()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fetch: Fetch) -> Iterator[World]:
    authserver = FakeAuthserver(clients={"site": "secret"}, fetch=fetch)
    with authserver.serve(), serving() as url, clock.movable():
        for name, value in authserver.settings(ISSUER=url).items():
            monkeypatch.setenv(f"BAIKAL_{name}", value)
        call_command("migrate", verbosity=0)
        yield World(url, authserver, tmp_path)


def taken(outcomes: Iterator[steps.Outcome], number: int) -> steps.Outcome:
    """Take the steps up to ``number``; those before it have to succeed."""
    for outcome in outcomes:
        if outcome.number == number:
            return outcome
        assert not outcome.problem
    raise AssertionError(number)


def brief(row: SigningKey) -> str:
    return f"{row.kid[:6]}..."


def signers(authserver: FakeAuthserver) -> list[tuple[str, str]]:
    """Give which key has signed each assertion, and what the authserver said."""
    return [
        (jws.decode(call.form["assertion"]).header["kid"], call.outcome)
        for call in authserver.requests.to("token")
        if "assertion" in call.form
    ]


# -- the clock -------------------------------------------------------------------------------------


def test_the_clocks_of_a_process_move_together_and_are_right_again_afterwards() -> None:
    ours = (time.time, time.monotonic, timezone.now)
    before = time.time(), time.monotonic(), timezone.now().timestamp()
    with pytest.raises(KeyError), clock.movable():
        assert clock.ahead() == timedelta()
        clock.forward(timedelta(days=7))
        clock.forward(timedelta(hours=1))
        assert clock.ahead() == timedelta(days=7, hours=1)
        after = time.time(), time.monotonic(), timezone.now().timestamp()
        for was, now in zip(before, after, strict=True):
            assert 0 <= now - was - 7 * 86400 - 3600 < 600
        raise KeyError
    assert (time.time, time.monotonic, timezone.now) == ours
    assert clock.ahead() is None


def test_the_clock_of_another_process_is_nobodys_to_move() -> None:
    with pytest.raises(RuntimeError, match="cannot be moved"):
        clock.forward(timedelta(days=1))
    assert steps.known() == steps.STEPS


# -- what is shown ---------------------------------------------------------------------------------


def test_what_is_signed_before_during_and_after_a_rotation_is_accepted(world: World) -> None:
    outcome = taken(iter(steps.begin()), 9)
    assert not outcome.problem
    first, second, third = SigningKey.objects.order_by("sequence")
    # Of the third step, the forgery under the name of the key, and for the API; then before and
    # during the turn, what was kept back, and after it.
    assert signers(world.authserver) == [
        (first.kid, "ok"),
        (first.kid, "invalid_grant"),
        (first.kid, "ok"),
        (first.kid, "ok"),
        (second.kid, "ok"),
        (first.kid, "ok"),
        (second.kid, "ok"),
    ]
    assert outcome.answers == (
        ("the clock", "moved on by 6 days and 23 hours, towards the turn"),
        ("- 13 min", f"{brief(first)} signs: accepted, with our keys as of now"),
        ("- 1 min", f"{brief(first)} signs, and this assertion is kept back"),
        ("the turn", f"{brief(second)} signs: accepted, for it was known already"),
        ("+ 2 min", "our keys are read anew; what was kept back: accepted"),
        ("+ 1 day", f"{brief(second)} signs: accepted"),
        ("", f"{brief(first)} has left, and {brief(third)} comes next"),
    )
    # The last two really were a day apart, on the authserver's clock too.
    *_, kept_back, after = world.authserver.requests.to("token")
    assert 86000 < after.at - kept_back.at < 86400 + 600


def test_a_leaked_key_is_good_for_nothing_and_the_standby_signs_at_once(world: World) -> None:
    outcomes = iter(steps.begin())
    taken(outcomes, 9)
    before = len(signers(world.authserver))
    outcome = taken(outcomes, 10)
    assert not outcome.problem
    _, leaked, standby, next_one = SigningKey.objects.order_by("sequence")
    assert signers(world.authserver)[before:] == [
        (leaked.kid, "ok"),
        (standby.kid, "ok"),
        (leaked.kid, "invalid_grant"),
    ]
    assert outcome.answers == (
        ("leaked", f"{brief(leaked)}: a thief signs with it, and is accepted"),
        ("revoked", f"{brief(leaked)}, and its private half is wiped"),
        ("+ 1 min", f"our JWK Set: {brief(standby)}, {brief(next_one)}"),
        ("", f"{brief(standby)} signs: accepted, for it was known already"),
        ("+ 16 min", "our keys are read anew"),
        ("", "the thief: refused, 400 invalid_grant"),
    )
    assert leaked.private_envelope is None
    assert leaked.revoke_reason == "It was in a backup that anybody could read."
    published = requests.get(f"{world.url}.well-known/jwks.json", timeout=60).json()["keys"]
    assert [key["kid"] for key in published] == [standby.kid, next_one.kid]


def test_the_page_takes_these_steps_too_and_again(world: World) -> None:
    page = world.page()
    assert page.count("It will prove:") == len(steps.STEPS) + 2
    assert "days ahead" not in page
    assert ">not set<" not in page
    assert '<code>"KEYS" in BAIKAL</code>' in page
    assert "django_baikal.keys.database.DatabaseKeyStore" in page
    for days in (8, 16):
        page = world.press()
        assert f"all {len(steps.STEPS) + 2} succeeded" in page
        assert f"it is {days} days ahead now" in page
        assert page.count("by manage.py rotate_keys: one that signs, and the next") == (days == 8)
        published = requests.get(f"{world.url}.well-known/jwks.json", timeout=60).json()["keys"]
        for key in published:
            assert f"<code>{key['kid']}</code>" in unescape(page)


def test_the_readme_shows_what_is_printed() -> None:
    def general(text: str) -> str:
        return re.sub(
            r" +\d+(\.\d)? m?s$", "", re.sub(r"[\w-]{6}\.\.\.", "<kid>", text), flags=re.MULTILINE
        )

    out = StringIO()
    call_command(Command(), exit=True, port=0, stdout=out)
    shown = (PROJECT / "README.md").read_text("utf-8").split("demo --exit\n...\n")[1]
    parts = re.findall(r"^\d+\. (?:.+\n)+?(?=\.\.\.$)", shown.partition("```")[0], re.MULTILINE)
    assert len(parts) == len(steps.ROTATION)
    for part in parts:
        assert general(part) in general(out.getvalue())


# -- what is wrong fails ---------------------------------------------------------------------------


class Late(Ring[SigningKey]):
    """Publishes a key only when its turn has come."""

    def published(self, now: datetime) -> list[SigningKey]:
        return [row for row in super().published(now) if self.state(row, now) != PENDING]


class Hasty(Ring[SigningKey]):
    """Withdraws a key as soon as the next one signs."""

    def published(self, now: datetime) -> list[SigningKey]:
        return [row for row in super().published(now) if self.state(row, now) != RETIRING]


class Hoarding(Ring[SigningKey]):
    """Withdraws nothing that has retired."""

    leaves = RETIRED

    def published(self, now: datetime) -> list[SigningKey]:
        kept = [row for row in self.rows if self.state(row, now) == self.leaves]
        return [*super().published(now), *kept]


class Forgiving(Hoarding):
    """Withdraws nothing that was revoked."""

    leaves = REVOKED


class Stuck(Ring[SigningKey]):
    """Signs with the first key for ever."""

    def active(self, now: datetime) -> SigningKey:
        return self.rows[0]

    def published(self, now: datetime) -> list[SigningKey]:
        return sorted(super().published(now), key=lambda row: row.sequence)

    def signer(self, *_: Any) -> Signer[SigningKey]:
        return Signer(self.rows[0], False)


class Broken(DatabaseKeyStore):
    """Keeps its keys as ``kind`` does."""

    kind: type[Ring[SigningKey]]

    def ring(self, **options: bool) -> Ring[SigningKey]:
        return self.kind(super().ring(**options).rows)


@pytest.mark.parametrize(
    ("kind", "number", "told"),
    [
        (Late, 10, "The authserver had to read our keys, for it did not know "),
        (Hasty, 10, " had signed before the turn was refused, 400 invalid_grant."),
        (Hoarding, 10, " is still published."),
        (Stuck, 10, " has come, and "),
        (Forgiving, 11, " is still published."),
    ],
)
def test_a_store_that_breaks_a_rule_ends_the_demo_with_exit_status_1(
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[Ring[SigningKey]],
    number: int,
    told: str,
) -> None:
    monkeypatch.setattr(Broken, "kind", kind, raising=False)
    settings.BAIKAL = {"default": {"KEYS": {"BACKEND": f"{__name__}.Broken"}}}
    with pytest.raises(CommandError) as caught:
        call_command(Command(), exit=True, port=0, stdout=StringIO())
    assert caught.value.returncode == 1
    assert str(caught.value).startswith(f"Step {number} failed (")
    assert told in str(caught.value)


def test_an_emergency_without_a_standby_that_is_known_fails(world: World) -> None:
    outcomes = iter(steps.begin())
    taken(outcomes, 9)
    *_, standby = SigningKey.objects.order_by("sequence")
    keepers()["default"].revoke(standby.kid)
    # Without it no emergency is refused: the ring has been as it is for long enough.
    clock.forward(timedelta(days=1))
    assert "for it did not know " in taken(outcomes, 10).problem


def test_an_authserver_that_goes_on_believing_the_thief_fails(world: World, fetch: Fetch) -> None:
    outcomes = iter(steps.begin())
    taken(outcomes, 9)
    fetch.deaf = True
    assert taken(outcomes, 10).problem == "The authserver still believes the thief."


def test_a_key_that_was_of_no_use_before_it_leaked_fails(world: World) -> None:
    outcomes = iter(steps.begin())
    taken(outcomes, 9)
    world.authserver.fail("token", status=400, body={"error": "invalid_scope"})
    assert (
        taken(outcomes, 10).problem == "The key that signs for us was refused, 400 invalid_scope."
    )


def test_an_authserver_that_answers_nothing_to_the_thief_is_told_in_a_sentence(
    world: World,
) -> None:
    outcomes = iter(steps.begin())
    taken(outcomes, 9)
    world.authserver.fail("token", garbage="html")
    said = taken(outcomes, 10).problem
    assert said == f"POST {world.authserver.endpoint}/token failed: JSONDecodeError."


def test_a_command_that_refuses_is_told_in_a_sentence(world: World, settings: Any) -> None:
    outcomes = iter(steps.begin())
    taken(outcomes, 7)
    options = {"PROPAGATION": 60}
    settings.BAIKAL = {
        "default": {"KEYS": {**settings.BAIKAL["default"]["KEYS"], "OPTIONS": options}}
    }
    assert "PROPAGATION is 60 s" in taken(outcomes, 9).problem
