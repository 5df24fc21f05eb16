from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, InterfaceError, OperationalError, connection, connections
from django.test import override_settings
from django.utils import timezone
from keys_stage import (
    DAY,
    START,
    Clock,
    Project,
    aliases,
    database_in,
    everything,
    keeper,
    refused,
    ring,
    rows,
    run,
    text,
)

from django_baikal import signals
from django_baikal.exceptions import AuthserverUnavailable, LostRace
from django_baikal.keys.envelope import EncryptionKeys
from django_baikal.keys.operations import Keeper, Outcome
from django_baikal.management.commands.rotate_keys import LONGEST_REASON
from django_baikal.models import SigningKey
from django_baikal.protocol.effects import Request, Response
from django_baikal.transports.base import routes

URL = "https://me.example.com/.well-known/jwks.json"
UNSEEN = (
    "Ring default: Until TIME UTC somebody may hold a JWK Set without the key, and would refuse "
    "what it signs."
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def kept(db: None, clock: Clock) -> Iterator[Clock]:
    """Keep the keys of the alias default in the database, at a time that stands still."""
    with ring():
        yield clock


def rotated(*arguments: str, **options: Any) -> dict[str, Any]:
    found = json.loads(run("rotate_keys", *arguments, format="json", **options))
    assert isinstance(found, dict)
    return found


def states() -> list[str]:
    found = keeper().read()
    return [found.state(row, timezone.now()) for row in found.rows]


# Rotating


def test_the_first_run_makes_a_key_that_signs_and_its_standby(kept: Clock) -> None:
    printed = run("rotate_keys")
    first, standby = rows()
    assert printed == text(
        """\
Ring default:
  Made a key, which signs from now on, and its standby.
  signs now   FIRST (ES256)
              since 2030-01-01 11:58:00 UTC
              until 2030-01-08 11:58:00 UTC (in 7 days)
  comes next  STANDBY (ES256)
              from 2030-01-08 11:58:00 UTC (in 7 days)
""",
        FIRST=first.kid,
        STANDBY=standby.kid,
    )
    assert {row.created_by for row in rows()} == {"rotate_keys"}


def test_a_second_run_changes_nothing(kept: Clock) -> None:
    run("rotate_keys")
    before = everything()
    kept.pass_(minutes=5)
    printed = run("rotate_keys")
    assert printed.splitlines()[1] == "  Nothing to make: there is a standby."
    assert everything() == before


def test_what_a_program_reads(kept: Clock) -> None:
    assert rotated() == {
        "schema": 1,
        "action": "created",
        "ring": "default",
        "kid": rows()[1].kid,
        "activates_at": "2030-01-08T11:58:00Z",
        "signs": rows()[0].kid,
        "unpublish_at": {rows()[0].kid: "2030-01-09T11:58:00Z"},
        "revoked": [],
        "pruned": [],
        "dry_run": False,
        "warnings": [],
    }
    again = rotated()
    assert (again["action"], again["kid"]) == ("noop", rows()[1].kid)


def test_call_command_gives_the_text(kept: Clock) -> None:
    found = call_command("rotate_keys", format="json", stdout=io.StringIO())
    assert json.loads(found)["action"] == "created"


def test_after_a_takeover_a_new_standby_is_made_and_old_keys_are_wiped(kept: Clock) -> None:
    run("rotate_keys")
    kept.pass_(days=7, minutes=5)
    assert run("rotate_keys") == text(
        """\
Ring default:
  Made a new standby.
  signs now   ACTIVE (ES256)
              since 2030-01-08 11:58:00 UTC
              until 2030-01-15 11:58:00 UTC (in 7 days)
  comes next  STANDBY (ES256)
              from 2030-01-15 11:58:00 UTC (in 7 days)
  retiring    RETIRING (ES256)
              signed until 2030-01-08 11:58:00 UTC
              last trusted 2030-01-09 13:13:00 UTC (in 1 day 1 hour)
""",
        RETIRING=rows()[0].kid,
        ACTIVE=rows()[1].kid,
        STANDBY=rows()[2].kid,
    )
    kept.pass_(days=1)
    assert run("rotate_keys").splitlines()[2] == "  Wiped the private half of an old key."
    assert "  retired     " in run("rotate_keys")
    kept.pass_(days=15)
    run("rotate_keys", "--no-prune")
    assert rows()[1].private_envelope is not None
    assert rotated()["pruned"] == [row.kid for row in rows()[1:2]]
    assert [row.private_envelope is None for row in rows()] == [True, True, False, False]
    assert "retire" not in run("rotate_keys")


def test_a_new_key_is_as_it_was_asked_for(kept: Clock) -> None:
    run("rotate_keys", alg="RS256", bits=3072, activate_at="2030-01-02T00:00:00+01:00")
    first, standby = rows()
    assert (first.alg, standby.alg) == ("RS256", "RS256")
    assert len(standby.jwk["n"]) == 512
    assert standby.activates_at == START + timedelta(hours=11)


def test_times_may_be_objects_for_a_caller_in_python(kept: Clock) -> None:
    run("rotate_keys", activate_in=timedelta(days=2))
    assert rows()[-1].activates_at == START + 2 * DAY
    kept.pass_(days=3)
    run("rotate_keys", activate_at=START + 9 * DAY)
    assert rows()[-1].activates_at == START + 9 * DAY


@pytest.mark.parametrize(
    ("given", "seconds"), [("86400", 86400), ("1440m", 86400), ("36h", 129600), ("2w", 1209600)]
)
def test_how_long_a_time_is_can_be_said_in_units(kept: Clock, given: str, seconds: int) -> None:
    run("rotate_keys", "--activate-in", given)
    assert rows()[-1].activates_at == START + timedelta(seconds=seconds)


def test_options_of_a_new_key_that_was_not_made_are_warned_of(kept: Clock) -> None:
    run("rotate_keys")
    found = rotated("--activate-in", "3d", "--alg", "ES256")
    assert found["warnings"] == [
        "--alg changed nothing: it is for a new key, and none was made.",
        "--activate-in changed nothing: it is for a new key, and none was made.",
    ]


def test_times_without_zones_are_kept_in_a_project_that_has_none(
    kept: Clock, settings: Any
) -> None:
    settings.USE_TZ = False
    kept.now = datetime(2030, 1, 1, 12)  # noqa: DTZ001 - as Django gives it then
    run("rotate_keys", activate_at="2030-01-05T00:00:00Z")
    assert rows()[-1].activates_at == timezone.make_naive(START + timedelta(days=3, hours=12))


def test_with_verbosity_0_only_what_is_wrong_is_printed(kept: Clock) -> None:
    assert run("rotate_keys", verbosity=0) == ""
    printed = run("rotate_keys", verbosity=0, alg="ES256")
    assert printed == (
        "Ring default:\n  Warning: --alg changed nothing: it is for a new key, and none was made.\n"
    )


def test_another_source_signs_until_the_first_key_does(db: None, clock: Clock) -> None:
    with ring(alone=False):
        printed = run("rotate_keys")
        (only,) = rows()
        assert printed == text(
            """\
Ring default:
  Made a new standby.
  comes next  KID (ES256)
              from 2030-01-02 12:00:00 UTC (in 1 day)
  Warning: Until the ring's first key signs, a key of CLIENT_KEYS or
  PRIVATE_CERTS_PATH does.
""",
            KID=only.kid,
        )
        assert run("rotate_keys", "--check").startswith("Ring default:\n  Nothing is due.\n")
        clock.pass_(days=1, minutes=1)
        assert rotated()["warnings"] == []


# --now


def test_the_standby_can_be_made_to_sign_when_it_has_been_seen(kept: Clock) -> None:
    run("rotate_keys")
    kept.pass_(hours=4)
    found = rotated("--now")
    _, second, third = rows()
    assert (found["action"], found["kid"], found["signs"]) == ("promoted", second.kid, second.kid)
    assert found["activates_at"] == "2030-01-01T16:00:00Z"
    assert found["warnings"] == []
    assert third.activates_at == START + timedelta(days=7, hours=4)
    assert states() == ["retiring", "active", "pending"]
    assert refused("rotate_keys", "--now") == (4, UNSEEN.replace("TIME", "2030-01-01 19:35:30"), "")


def test_now_is_refused_while_somebody_may_not_have_seen_the_standby(kept: Clock) -> None:
    run("rotate_keys")
    before = everything()
    assert refused("rotate_keys", "--now")[0] == 4
    assert everything() == before
    printed = run("rotate_keys", "--now", "--force")
    assert printed == text(
        """\
Ring default:
  The standby signs from now on.
  Made a new standby.
  signs now   SECOND (ES256)
              since 2030-01-01 12:00:00 UTC
              until 2030-01-08 12:00:00 UTC (in 7 days)
  comes next  THIRD (ES256)
              from 2030-01-08 12:00:00 UTC (in 7 days)
  retiring    FIRST (ES256)
              signed until 2030-01-01 12:00:00 UTC
              last trusted 2030-01-02 13:15:00 UTC (in 1 day 1 hour)
""",
        FIRST=rows()[0].kid,
        SECOND=rows()[1].kid,
        THIRD=rows()[2].kid,
    ) + "".join(
        f"  {line}\n"
        for line in (
            f"Warning: Others may refuse what {rows()[1].kid}",
            "signs until 2030-01-01 15:35:30 UTC (in 3 hours 36 minutes): they may still",
            "hold a JWK Set without it, most of them until 2030-01-01 12:17:30 UTC (in 18",
            "minutes).",
        )
    )
    kept.pass_(minutes=30)
    assert rotated()["warnings"] == [
        (
            f"Others may refuse what {rows()[1].kid} signs until 2030-01-01 15:35:30 UTC (in 3 "
            "hours 6 minutes): they may still hold a JWK Set without it."
        )
    ]
    kept.pass_(hours=4)
    assert rotated()["warnings"] == []


def test_a_set_that_is_kept_for_a_short_time_is_soon_forgotten(db: None, clock: Clock) -> None:
    with ring(JWKS_MAX_AGE=30):
        run("rotate_keys")
        (warning,) = rotated("--now", "--force")["warnings"]
    assert warning == (
        f"Others may refuse what {rows()[1].kid} signs until 2030-01-01 15:05:30 UTC (in 3 hours "
        "6 minutes): they may still hold a JWK Set without it, most of them until 2030-01-01 "
        "12:02:30 UTC (in 2 minutes)."
    )


def test_now_without_a_standby_is_refused(kept: Clock) -> None:
    assert refused("rotate_keys", "--now") == (
        4,
        "Ring default: There is no standby that could take over; run rotate_keys first.",
        "",
    )
    assert rows() == []


# --emergency


def test_in_an_emergency_the_standby_signs_and_the_active_key_is_revoked(kept: Clock) -> None:
    run("rotate_keys")
    kept.pass_(days=1)
    told: list[str] = []

    def listen(key: SigningKey, **_: Any) -> None:
        told.append(key.revoke_reason)

    signals.key_revoked.connect(listen)
    try:
        printed = run("rotate_keys", "--emergency", "--reason", "the laptop\nwas stolen")
    finally:
        signals.key_revoked.disconnect(listen)
    first, second, third = rows()
    assert printed == text(
        """\
Ring default:
  Revoked the key that signed; the standby signs from now on.
  Made a new standby.
  signs now   SECOND (ES256)
              since 2030-01-02 11:58:00 UTC
              until 2030-01-09 11:58:00 UTC (in 7 days)
  comes next  THIRD (ES256)
              from 2030-01-09 11:58:00 UTC (in 7 days)
  revoked     FIRST (ES256)
              on 2030-01-02 12:00:00 UTC, the laptop was stolen
              last trusted 2030-01-02 13:16:30 UTC (in 1 hour 16 minutes)
""",
        FIRST=first.kid,
        SECOND=second.kid,
        THIRD=third.kid,
    )
    assert (first.private_envelope, first.revoke_reason) == (None, "the laptop\nwas stolen")
    assert states() == ["revoked", "active", "pending"]


def test_what_a_program_reads_of_an_emergency(kept: Clock) -> None:
    run("rotate_keys")
    kept.pass_(days=1)
    found = rotated("--emergency")
    first, second, _ = rows()
    assert (found["action"], found["kid"]) == ("promoted", second.kid)
    assert (found["signs"], found["revoked"]) == (second.kid, [first.kid])


def test_a_second_emergency_at_once_is_refused(kept: Clock) -> None:
    run("rotate_keys")
    kept.pass_(days=1)
    run("rotate_keys", "--emergency")
    before = everything()
    assert refused("rotate_keys", "--emergency") == (
        4,
        (
            "Ring default: The ring has just changed; say with --kid which key is to be revoked, "
            "or wait until 2030-01-02 15:35:30 UTC."
        ),
        "",
    )
    assert everything() == before


def test_a_key_that_was_revoked_before_is_not_revoked_again(kept: Clock) -> None:
    run("rotate_keys")
    kept.pass_(days=1)
    first = rows()[0].kid
    run("rotate_keys", "--emergency", f"--kid={first}")
    before = everything()
    kept.pass_(days=1)
    found = rotated("--emergency", f"--kid={first}", "--no-prune")
    assert (found["action"], found["kid"], found["revoked"]) == ("noop", first, [])
    assert everything() == before
    printed = run("rotate_keys", "--emergency", f"--kid={first}")
    assert f"  Key {first} had been revoked already.\n" in printed


def test_an_emergency_without_a_standby_says_how_long_the_outage_may_be(kept: Clock) -> None:
    run("rotate_keys")
    kept.pass_(days=8)
    printed = run("rotate_keys", "--emergency")
    _, old, new, standby = rows()
    assert printed.splitlines()[1:4] == [
        "  Revoked the key that signed; there was no standby, so that a key signs now",
        "  that nobody has seen before.",
        "  Made a new standby.",
    ]
    assert " ".join(printed.split("Warning: ")[1].split()) == (
        f"Others may refuse what {new.kid} signs until 2030-01-09 15:35:30 UTC (in 3 hours 36 "
        "minutes): they may still hold a JWK Set without it, most of them until 2030-01-09 "
        "12:17:30 UTC (in 18 minutes)."
    )
    assert states() == ["retired", "revoked", "active", "pending"]
    assert standby.activates_at == new.activates_at + 7 * DAY
    assert old.private_envelope is None


def test_what_a_program_reads_of_an_emergency_without_a_standby(kept: Clock) -> None:
    run("rotate_keys")
    kept.pass_(days=8)
    found = rotated("--emergency")
    assert (found["action"], found["kid"]) == ("created", rows()[2].kid)


def test_a_standby_that_is_revoked_gets_a_successor(kept: Clock) -> None:
    run("rotate_keys")
    standby = rows()[1].kid
    found = rotated("--emergency", f"--kid={standby}")
    assert (found["action"], found["kid"], found["revoked"]) == ("revoked", standby, [standby])
    assert found["signs"] == rows()[0].kid
    assert states() == ["active", "revoked", "pending"]


def test_an_old_key_that_is_revoked_changes_nothing_else(kept: Clock) -> None:
    run("rotate_keys")
    kept.pass_(days=7, hours=1)
    run("rotate_keys")
    printed = run("rotate_keys", "--emergency", f"--kid={rows()[0].kid}")
    assert printed.startswith("Ring default:\n  Revoked a key that did not sign.\n  signs now")
    assert states() == ["revoked", "active", "pending"]


def test_an_unknown_key_cannot_be_revoked(kept: Clock) -> None:
    run("rotate_keys")
    before = everything()
    assert refused("rotate_keys", "--emergency", "--kid", "nobody") == (
        1,
        "Ring default: The ring 'default' has no key 'nobody'.",
        "",
    )
    assert everything() == before


def test_an_emergency_of_an_empty_ring_is_refused(kept: Clock) -> None:
    status, sentence, _ = refused("rotate_keys", "--emergency")
    assert (status, sentence) == (4, "Ring default: There is no active key to revoke.")


# --check


def check(*arguments: str) -> tuple[int, str, str]:
    """Run --check on a ring where something is due: status, sentence and action."""
    before = everything()
    status, sentence, printed = refused("rotate_keys", "--check", *arguments, format="json")
    assert everything() == before
    found = json.loads(printed)
    assert sentence == f"Ring default: {found['error']}"
    return status, sentence.removeprefix("Ring default: "), found["action"]


def test_check_finds_nothing_where_nothing_is_due(kept: Clock) -> None:
    run("rotate_keys")
    kept.pass_(days=3)
    before = everything()
    assert run("rotate_keys", "--check").splitlines()[:2] == ["Ring default:", "  Nothing is due."]
    found = rotated("--check")
    assert (found["action"], found["kid"]) == ("noop", rows()[1].kid)
    assert everything() == before


def test_check_finds_an_empty_ring(kept: Clock) -> None:
    assert check() == (3, "The ring has no key. Run rotate_keys.", "overdue")


def test_check_finds_that_a_standby_is_to_be_made_and_then_that_it_is_late(kept: Clock) -> None:
    run("rotate_keys")
    kept.pass_(days=7)
    assert check() == (3, "A standby is to be made. Run rotate_keys.", "due")
    kept.pass_(days=6)
    status, sentence, action = check("--no-prune")
    assert (status, action) == (3, "overdue")
    assert sentence == (
        "It is too late for the next key to take over on time, at 2030-01-15 11:58:00 UTC. "
        "A standby is to be made. Run rotate_keys."
    )


def test_check_finds_that_no_key_is_to_sign(kept: Clock) -> None:
    run("rotate_keys")
    keeper()._revoke(rows()[0], kept.now, "")
    assert check() == (3, "No key of the ring is to sign now. Run rotate_keys.", "overdue")


def test_check_finds_private_halves_that_should_be_gone(kept: Clock) -> None:
    run("rotate_keys")
    kept.pass_(days=7)
    run("rotate_keys")
    kept.pass_(days=1, hours=1)
    run("rotate_keys", "--check")  # Not at once: a cron job may run once a day.
    kept.pass_(days=1)
    assert check() == (3, "To be wiped: the private half of an old key. Run rotate_keys.", "due")
    assert run("rotate_keys", "--check", "--no-prune")
    kept.pass_(days=8)
    run("rotate_keys", "--no-prune")
    assert check()[1] == "To be wiped: the private halves of 2 keys. Run rotate_keys."
    run("rotate_keys")
    run("rotate_keys", "--check")


# --dry-run


@pytest.mark.parametrize("arguments", [(), ("--now", "--force"), ("--emergency",)])
def test_a_dry_run_writes_nothing(
    kept: Clock, arguments: tuple[str, ...], django_capture_on_commit_callbacks: Any
) -> None:
    run("rotate_keys")
    kept.pass_(days=8)
    if arguments:
        run("rotate_keys")
    before = everything()
    kept.pass_(days=1)
    with django_capture_on_commit_callbacks() as told:
        printed = run("rotate_keys", "--dry-run", *arguments)
        found = rotated("--dry-run", *arguments)
    assert everything() == before
    assert told == []
    assert printed.startswith("Ring default (nothing is written: this is a dry run):\n")
    assert "(a new key) (ES256)" in printed
    assert found["dry_run"]
    known = {row.kid for row in rows()}
    assert {found["kid"], found["signs"], *found["unpublish_at"]} <= {None, *known}


def test_a_dry_run_of_an_empty_ring(kept: Clock) -> None:
    found = rotated("--dry-run")
    assert (found["action"], found["kid"], found["signs"]) == ("created", None, None)
    assert found["unpublish_at"] == {}
    assert found["activates_at"] == "2030-01-08T11:58:00Z"
    assert rows() == []


def test_a_dry_run_of_an_emergency_warns_of_the_outage_by_a_key_that_there_is_not(
    kept: Clock,
) -> None:
    run("rotate_keys")
    kept.pass_(days=8)
    (warning,) = rotated("--dry-run", "--emergency")["warnings"]
    assert warning.startswith("Others may refuse what the new key signs until ")


def test_a_dry_run_is_refused_as_the_run_itself_would_be(kept: Clock) -> None:
    assert refused("rotate_keys", "--dry-run", "--now")[0] == 4


# --verify-url


class World:
    """The outside world, which fetches our JWK Set."""

    def __init__(self) -> None:
        self.keys: Any = []
        self.status = 200
        self.error: Exception | None = None
        self.asked: list[Request] = []

    def send(self, request: Request, *, timeout: float) -> Response:
        assert 0 < timeout <= 15
        self.asked.append(request)
        if self.error:
            raise self.error
        body = json.dumps({"keys": self.keys}).encode()
        return Response(self.status, {"content-type": "application/json"}, body)

    def sees(self, *found: SigningKey) -> None:
        self.keys = [{**row.jwk, "kid": row.kid, "use": "sig"} for row in found]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    found = World()
    monkeypatch.setitem(routes, "https://me.example.com", found)
    return found


def test_keys_that_can_be_seen_are_left_as_they_are(kept: Clock, world: World) -> None:
    run("rotate_keys")
    kept.pass_(minutes=5)
    world.sees(*rows())
    assert rotated("--verify-url", URL)["action"] == "noop"
    assert [request.url for request in world.asked] == [URL]
    # Others' keys, and what is no key, do not matter.
    world.keys += [{"kid": "x"}, "x"]
    assert rotated("--verify-url", URL, "--check")["action"] == "noop"


def test_a_key_that_was_just_made_need_not_be_seen_yet(kept: Clock, world: World) -> None:
    assert rotated("--verify-url", URL)["action"] == "created"
    kept.pass_(seconds=60)
    assert rotated("--verify-url", URL)["action"] == "noop"


def test_a_standby_that_cannot_be_seen_is_put_off(kept: Clock, world: World) -> None:
    run("rotate_keys")
    first, standby = rows()
    world.sees(first)
    kept.pass_(days=6, hours=12)
    status, sentence, printed = refused("rotate_keys", "--verify-url", f"{URL}?a=b")
    assert (status, sentence) == (6, f"Ring default: At {URL} there is no key {standby.kid}.")
    assert (
        " ".join(printed.splitlines()[1:3]).split()
        == (f"Put off {standby.kid}: it signs from 2030-01-09 00:00:00 UTC (in 1 day).").split()
    )
    assert rows()[1].activates_at == START + timedelta(days=7, hours=12)
    kept.pass_(minutes=1)
    found = json.loads(refused("rotate_keys", "--verify-url", URL, format="json")[2])
    assert (found["action"], found["kid"]) == ("postponed", standby.kid)
    assert found["activates_at"] == "2030-01-09T00:01:00Z"
    assert found["error"] == f"At {URL} there is no key {standby.kid}."


def test_a_standby_that_has_time_to_be_seen_is_not_put_off(kept: Clock, world: World) -> None:
    run("rotate_keys")
    kept.pass_(days=1)
    before = everything()
    status, sentence, printed = refused("rotate_keys", "--verify-url", URL, format="json")
    first, standby = (row.kid for row in rows())
    assert (status, json.loads(printed)["action"]) == (6, "not_visible")
    assert sentence == f"Ring default: At {URL} there is no key {first}, {standby}."
    assert everything() == before


def test_another_key_of_the_same_name_is_not_the_key(kept: Clock, world: World) -> None:
    run("rotate_keys")
    kept.pass_(days=1)
    world.sees(*rows())
    world.keys[0]["x"] = world.keys[1]["x"]
    assert rows()[0].kid in refused("rotate_keys", "--verify-url", URL)[1]


@pytest.mark.parametrize("arguments", [("--check",), ("--dry-run",)])
def test_nothing_is_put_off_where_nothing_may_be_written(
    kept: Clock, world: World, arguments: tuple[str, ...]
) -> None:
    run("rotate_keys")
    kept.pass_(days=6, hours=12)
    world.sees(rows()[0])
    before = everything()
    assert refused("rotate_keys", "--verify-url", URL, *arguments)[0] == 6
    assert everything() == before


def test_what_is_due_is_a_warning_where_a_key_cannot_be_seen(kept: Clock, world: World) -> None:
    run("rotate_keys")
    kept.pass_(days=7)
    printed = refused("rotate_keys", "--verify-url", URL, "--check", format="json")[2]
    assert json.loads(printed)["warnings"] == ["A standby is to be made."]


def test_a_standby_that_cannot_be_seen_does_not_sign_now(kept: Clock, world: World) -> None:
    run("rotate_keys")
    kept.pass_(days=1)
    world.sees(rows()[0])
    before = everything()
    assert refused("rotate_keys", "--now", "--verify-url", URL)[0] == 6
    assert everything() == before
    world.sees(*rows())
    assert rotated("--now", "--verify-url", URL)["action"] == "promoted"


def test_a_jwk_set_that_cannot_be_read_puts_nothing_off(kept: Clock, world: World) -> None:
    run("rotate_keys")
    kept.pass_(days=6, hours=12)
    before = everything()
    world.error = AuthserverUnavailable("refused.")
    said = f"Ring default: The JWK Set at {URL} cannot be read: "
    assert refused("rotate_keys", "--verify-url", URL)[:2] == (6, f"{said}refused.")
    world.error, world.status = None, 404
    assert refused("rotate_keys", "--verify-url", URL)[:2] == (6, f"{said}the status is 404.")
    world.status, world.keys = 200, 7
    assert refused("rotate_keys", "--verify-url", URL)[:2] == (6, f"{said}it has no list of keys.")
    assert everything() == before


def test_a_key_that_changes_while_it_is_put_off_is_left_to_whoever_changed_it(
    kept: Clock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("rotate_keys")
    kept.pass_(days=6, hours=12)
    world.sees(rows()[0])
    race(monkeypatch, "postpone", 99)
    printed = refused("rotate_keys", "--verify-url", URL, format="json")[2]
    assert json.loads(printed)["action"] == "not_visible"


def test_the_jwk_set_is_fetched_with_the_settings_of_the_alias_that_has_the_ring(
    db: None, clock: Clock, world: World
) -> None:
    found = aliases(default={}, eu={"RING": "eu"})
    found["none"] = {name: v for name, v in found["default"].items() if name != "KEYS"}
    with override_settings(BAIKAL={"none": found.pop("none"), **found}):
        run("rotate_keys", "--all-rings")
        clock.pass_(minutes=5)
        world.sees(*rows("eu"))
        assert rotated("--ring", "eu", "--verify-url", URL)["action"] == "noop"


# Races


def race(patch: pytest.MonkeyPatch, name: str, times: int = 1) -> None:
    """Let another process be faster at an operation, so many times."""
    left, real = [times], getattr(Keeper, name)

    def operation(self: Keeper, *args: Any, **kwargs: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise LostRace("Another process was faster.")
        return real(self, *args, **kwargs)

    patch.setattr(Keeper, name, operation)


def test_who_loses_a_race_has_nothing_to_do(kept: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        race(patch, "rotate")
        found = rotated()
        assert (found["action"], found["kid"]) == ("lost_race", None)
    run("rotate_keys")
    kept.pass_(days=1)
    with monkeypatch.context() as patch:
        race(patch, "promote")
        race(patch, "prune")
        found = run("rotate_keys", "--now")
        assert "  Another process was faster. Nothing was left to do.\n" in found
        race(patch, "promote")
        race(patch, "rotate")
        found = rotated("--now")
        assert (found["action"], found["kid"]) == ("lost_race", rows()[1].kid)


def test_who_loses_both_races_has_nothing_to_do_either(
    kept: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("rotate_keys")
    kept.pass_(days=1)
    real = Keeper.promote

    def beaten(self: Keeper, **kwargs: Any) -> Outcome:
        real(self, **kwargs)
        raise LostRace("Another process was faster.")

    monkeypatch.setattr(Keeper, "promote", beaten)
    race(monkeypatch, "rotate")
    assert rotated("--now")["action"] == "lost_race"
    assert states() == ["retiring", "active"]


def test_a_standby_that_somebody_else_has_made_meanwhile_is_reported(
    kept: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("rotate_keys")
    kept.pass_(days=7)

    monkeypatch.setattr(Keeper, "rotate", lambda *_, **__: Outcome("noop"))
    assert rotated()["action"] == "noop"


def test_an_emergency_does_not_end_before_the_key_is_revoked(
    kept: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("rotate_keys")
    kept.pass_(days=1)
    race(monkeypatch, "emergency", 2)
    assert rotated("--emergency")["action"] == "promoted"
    assert states()[0] == "revoked"


def test_an_emergency_that_somebody_else_has_answered_is_over(
    kept: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("rotate_keys")
    kept.pass_(days=1)
    real = Keeper.emergency

    def beaten(self: Keeper, **kwargs: Any) -> Outcome:
        real(self, **kwargs)
        raise LostRace("Another process was faster.")

    monkeypatch.setattr(Keeper, "emergency", beaten)
    assert rotated("--emergency")["action"] == "lost_race"
    assert states() == ["revoked", "active", "pending"]


def test_an_emergency_that_loses_every_race_says_so(
    kept: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("rotate_keys")
    kept.pass_(days=1)
    race(monkeypatch, "emergency", 99)
    assert refused("rotate_keys", "--emergency") == (
        1,
        "Ring default: Other processes kept changing the ring, nothing was revoked: try again.",
        "",
    )


# What is refused


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--kid x", "--kid belongs to --emergency."),
        ("--reason x", "--reason belongs to --emergency."),
        ("--emergency --now", "--emergency and --now exclude each other."),
        ("--emergency --alg ES256", "--emergency and --alg exclude each other."),
        (f"--emergency --verify-url {URL}", "--emergency and --verify-url exclude each other."),
        (f"--emergency --reason {'x' * 256}", "--reason is longer than 255 characters."),
        ("--check --dry-run", "--check and --dry-run exclude each other."),
        ("--check --now", "--check and --now exclude each other."),
        ("--all-rings --ring x", "--all-rings and --ring exclude each other."),
        (
            "--activate-at 2030-02-01T00:00:00Z --activate-in 2d",
            "--activate-at and --activate-in exclude each other.",
        ),
        (
            "--activate-at 2030-02-01T00:00:00",
            (
                "--activate-at '2030-02-01T00:00:00' does not say its offset from UTC; write "
                "2026-12-01T03:00:00Z."
            ),
        ),
        (
            "--activate-at 2029-12-31T23:59:59Z",
            "--activate-at '2029-12-31T23:59:59Z' is in the past.",
        ),
        (
            "--activate-at 2050-01-01T00:00:00Z",
            "--activate-at '2050-01-01T00:00:00Z' is more than ten years away.",
        ),
        (
            "--activate-at tomorrow",
            "--activate-at 'tomorrow' is not a time; write it as 2026-12-01T03:00:00Z.",
        ),
        (
            "--activate-at 2030-02-30T00:00:00Z",
            "--activate-at '2030-02-30T00:00:00Z' is not a time; write it as 2026-12-01T03:00:00Z.",
        ),
        (
            "--activate-in soon",
            "--activate-in 'soon' is not a length of time; write 90m, 36h or 7d.",
        ),
        ("--activate-in 0", "--activate-in '0' is not a length of time; write 90m, 36h or 7d."),
        ("--activate-in 600w", "--activate-in '600w' is more than ten years."),
        (
            "--alg HS256",
            (
                "--alg 'HS256' is not known; use RS256, RS384, RS512, PS256, PS384, PS512, ES256, "
                "ES384, ES512, EdDSA."
            ),
        ),
        ("--bits 4096", "--bits is for RSA keys, and the alg is ES256."),
        ("--alg RS256 --bits 1024", "--bits must be 2048 to 8192."),
        (
            "--verify-url me",
            "--verify-url cannot be used: it is not an absolute http or https URL.",
        ),
        (
            "--verify-url http://me.example.com/",
            "--verify-url must be https: anybody on the way could answer otherwise.",
        ),
    ],
)
def test_options_that_make_no_sense(kept: Clock, arguments: str, sentence: str) -> None:
    assert refused("rotate_keys", *arguments.split()) == (2, sentence, "")
    assert rows() == []


def test_a_reason_may_be_as_long_as_the_row_has_room(kept: Clock) -> None:
    assert SigningKey._meta.get_field("revoke_reason").max_length == LONGEST_REASON
    run("rotate_keys")
    kept.pass_(days=1)
    run("rotate_keys", "--emergency", "--reason", "x" * LONGEST_REASON)
    assert rows()[0].revoke_reason == "x" * LONGEST_REASON


def test_plain_http_is_good_enough_on_this_machine(
    kept: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(routes, "http://127.0.0.1:8000", World())
    assert run("rotate_keys", "--verify-url", "http://127.0.0.1:8000/.well-known/jwks.json")


@pytest.mark.parametrize("option", [{"activate_in": "1h"}, {"activate_at": "2030-01-01T15:35:29Z"}])
def test_a_key_that_not_everybody_can_have_seen_is_refused_unless_forced(
    kept: Clock, option: dict[str, Any]
) -> None:
    status, sentence, _ = refused("rotate_keys", **option)
    assert (status, sentence) == (4, UNSEEN.replace("TIME", "2030-01-01 15:35:30"))
    assert rows() == []
    run("rotate_keys", "--force", **option)
    assert len(rows()) == 2


def test_options_that_break_a_rule_are_refused_unless_forced(db: None, clock: Clock) -> None:
    for options, sentence in (
        ({"PROPAGATION": 600}, "R1: PROPAGATION is 600 s, and must be at least 12930 s."),
        ({"RETENTION": 600}, "R2: RETENTION is 600 s, and must be at least 5190 s."),
        ({"ROTATE_EVERY": 86400}, "R3: ROTATE_EVERY is 86400 s, and must be at least 172800 s."),
    ):
        with ring(**options):
            status, said, _ = refused("rotate_keys")
            assert (status, said) == (
                4,
                f"Ring default: The times of the ring break rule {sentence}",
            )
            assert rows() == []
            assert rotated("--force", "--dry-run")["warnings"] == [sentence.partition(": ")[2]]


def test_an_unknown_ring(kept: Clock) -> None:
    assert refused("rotate_keys", "--ring", "nope") == (
        1,
        "No alias of BAIKAL has the ring 'nope'; there are: default.",
        "",
    )


def test_a_project_without_a_store(db: None) -> None:
    assert refused("rotate_keys") == (
        1,
        (
            "No alias of BAIKAL keeps keys in the database: give one of them "
            'KEYS = {"BACKEND": "django_baikal.keys.database.DatabaseKeyStore"}.'
        ),
        "",
    )


def test_a_store_that_is_configured_wrongly(db: None) -> None:
    with ring(ROTATE_EVERY="weekly"):
        assert refused("rotate_keys")[:2] == (
            1,
            "BAIKAL['default']: KEYS OPTIONS: ROTATE_EVERY must be a number of seconds.",
        )
    found = aliases()
    found["default"]["KEYS"]["BACKEND"] = "nowhere.Store"
    with override_settings(BAIKAL=found):
        assert refused("rotate_keys")[:2] == (
            1,
            "BAIKAL['default']: KEYS: BACKEND cannot be imported: No module named 'nowhere'",
        )


def test_a_missing_table(kept: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OperationalError("no such table: baikal_signingkey")

    monkeypatch.setattr(Keeper, "read", fail)
    with monkeypatch.context() as patch:
        patch.setattr(connection.introspection, "table_names", lambda *_: ["others"])
        assert refused("rotate_keys") == (
            5,
            "Ring default: The database has no table baikal_signingkey: run manage.py migrate.",
            "",
        )


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OperationalError("gone\x1b away\nfor ever"), "(OperationalError): gone  away"),
        (InterfaceError(), "(InterfaceError)."),
    ],
)
def test_a_database_that_fails(
    kept: Clock, monkeypatch: pytest.MonkeyPatch, error: Exception, sentence: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(Keeper, "read", fail)
    monkeypatch.setattr(connections["default"].introspection, "table_names", fail)
    status, said, printed = refused("rotate_keys", format="json")
    assert (status, said) == (5, f"Ring default: The database failed {sentence}")
    assert json.loads(printed)["action"] == "unavailable"
    assert isinstance(error, DatabaseError | InterfaceError)


def test_a_missing_key_encryption_key(kept: Clock, settings: Any) -> None:
    run("rotate_keys")
    before, old = everything(), settings.SECRET_KEY
    settings.SECRET_KEY = "another one"
    status, sentence, printed = refused("rotate_keys")
    assert (status, printed) == (5, "")
    assert "needs the key-encryption key " in sentence
    assert sentence.endswith(
        "Put it back, behind the first one: an old SECRET_KEY into SECRET_KEY_FALLBACKS, any "
        "other into ENCRYPTION_KEYS."
    )
    assert old not in sentence
    assert everything() == before
    settings.SECRET_KEY_FALLBACKS = [old]
    run("rotate_keys")


def test_a_row_that_was_tampered_with(kept: Clock) -> None:
    run("rotate_keys")
    SigningKey.objects.filter(sequence=2).update(activates_at=START)
    sentence = (
        f"Ring default: The row of key {rows()[1].kid!r} was tampered with. "
        'See "When a row was tampered with" in the guide "Rotate your keys".'
    )
    assert refused("rotate_keys") == (5, sentence, "")


def lock(row: Any) -> str:
    """Put a private half under a key-encryption key that is not set; give its name."""
    lost = EncryptionKeys([b"lost"])
    binding = {"ring": row.ring, "kid": row.kid, "alg": row.alg}
    SigningKey.objects.filter(pk=row.pk).update(private_envelope=lost.encrypt(b"x", **binding))
    return lost.current.name


def test_a_standby_that_cannot_sign_is_told_and_not_promoted(kept: Clock) -> None:
    run("rotate_keys")
    kept.pass_(days=1)
    standby = rows()[1]
    lost, set_ = lock(standby), keeper().options.encryption_keys.current.name
    why = (
        f"The private half of key '{standby.kid}' needs the key-encryption key {lost}, which is "
        f"not set (set are {set_})."
    )
    before = everything()
    assert refused("rotate_keys", "--check")[:2] == (
        5,
        f"Ring default: Key {standby.kid} cannot sign here: {why}",
    )
    status, sentence, printed = refused("rotate_keys", "--now")
    assert (status, printed) == (5, "")
    assert sentence.startswith(f"Ring default: {why} Put it back, behind the first one: ")
    assert everything() == before
    assert rotated()["warnings"] == [f"Key {standby.kid} cannot sign here: {why}"]
    assert everything() == before


def test_an_emergency_says_that_the_standby_could_not_sign(kept: Clock) -> None:
    run("rotate_keys")
    kept.pass_(days=1)
    _, second = rows()
    lock(second)
    printed = run("rotate_keys", "--emergency", "--reason", "leaked")
    *_, new, _ = rows()
    assert states() == ["revoked", "revoked", "active", "pending"]
    words = " ".join(printed.split())
    assert (
        f"Revoked the key that signed; the standby {second.kid} could not, so that a key signs now "
        f"that nobody has seen before. Revoked {second.kid}, which could not sign. Made a new "
        "standby."
    ) in words
    assert f"Others may refuse what {new.kid} signs until" in words


def test_a_ring_whose_active_key_is_gone_gets_its_standby_to_sign(kept: Clock) -> None:
    run("rotate_keys")
    kept.pass_(days=1)
    first, second = rows()
    keeper()._revoke(first, kept.now, "")
    done = rotated()
    assert (done["action"], done["kid"], done["signs"]) == ("promoted", second.kid, second.kid)
    assert (done["revoked"], states()) == ([], ["revoked", "active", "pending"])
    keeper()._revoke(rows()[1], kept.now, "")
    kept.pass_(hours=1)
    assert "No key signed; the standby signs from now on." in run("rotate_keys")


# Several rings


@pytest.fixture
def two(db: None, clock: Clock) -> Iterator[Clock]:
    with override_settings(BAIKAL=aliases(eu={"RING": "eu"}, us={"RING": "us"})):
        yield clock


def test_of_several_rings_one_is_to_be_named(two: Clock) -> None:
    assert refused("rotate_keys") == (2, "Say with --ring which one is meant: eu, us.", "")
    assert rotated("--ring", "us")["ring"] == "us"
    assert (len(rows("us")), len(rows("eu"))) == (2, 0)


def test_of_several_rings_default_is_the_default(db: None) -> None:
    with override_settings(BAIKAL=aliases(eu={"RING": "eu"}, default={})):
        assert rotated()["ring"] == "default"


def test_all_rings_one_after_the_other(two: Clock) -> None:
    printed = run("rotate_keys", "--all-rings")
    assert [line for line in printed.splitlines() if not line.startswith(" ")] == [
        "Ring eu:",
        "",
        "Ring us:",
    ]
    found = json.loads(run("rotate_keys", "--all-rings", format="json"))
    assert [(each["ring"], each["action"]) for each in found] == [("eu", "noop"), ("us", "noop")]


def test_a_ring_that_fails_does_not_hold_up_the_others(two: Clock) -> None:
    run("rotate_keys", "--all-rings")
    SigningKey.objects.filter(ring="eu").update(activates_at=START)
    two.pass_(days=7)
    status, sentence, printed = refused("rotate_keys", "--all-rings", format="json")
    assert status == 5
    assert sentence.startswith("Ring eu: The row of key ")
    assert [each["action"] for each in json.loads(printed)] == ["unavailable", "created"]
    SigningKey.objects.filter(ring="us").update(activates_at=START)
    status, sentence, _ = refused("rotate_keys", "--all-rings")
    # The second on standard error already, the first by Django.
    assert [line.partition(": ")[0] for line in sentence.splitlines()] == ["Ring us", "Ring eu"]


# In processes of their own


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))


def test_the_exit_statuses(project: Project) -> None:
    assert project("rotate_keys", "--check") == (
        3,
        "",
        "CommandError: Ring default: The ring has no key. Run rotate_keys.\n",
    )
    status, printed, wrong = project("rotate_keys")
    assert (status, wrong) == (0, "")
    assert printed.startswith("Ring default:\n  Made a key, which signs from now on, and its ")
    status, printed, wrong = project("rotate_keys", "--format", "json")
    assert (status, json.loads(printed)["action"], wrong) == (0, "noop", "")
    assert project("rotate_keys", "--check")[0] == 0
    assert project("rotate_keys", "--ring", "nope")[0] == 1
    assert project("rotate_keys", "--bits", "many")[0] == 2
    assert project("rotate_keys", "--kid", "x")[0] == 2
    assert project("rotate_keys", "--unknown")[0] == 2
    assert project("rotate_keys", "--now")[0] == 4
    status, printed, wrong = project("rotate_keys", KEYS_SECRET="another")
    assert (status, printed) == (5, "")
    assert "needs the key-encryption key" in wrong
    nobody = "http://127.0.0.1:9/.well-known/jwks.json"
    status, printed, wrong = project("rotate_keys", "--verify-url", nobody, "--format", "json")
    assert (status, json.loads(printed)["action"]) == (6, "not_visible")
    assert f"CommandError: Ring default: The JWK Set at {nobody} cannot be read: " in wrong


def test_a_project_that_was_not_migrated(tmp_path: Path) -> None:
    assert Project(tmp_path, migrate=False)("rotate_keys") == (
        5,
        "",
        (
            "CommandError: Ring default: The database has no table baikal_signingkey: run "
            "manage.py migrate.\n"
        ),
    )


def test_a_database_that_cannot_be_opened(project: Project, tmp_path: Path) -> None:
    status, _, wrong = project("rotate_keys", KEYS_DATABASE=database_in(tmp_path / "nowhere"))
    assert (status, wrong) == (
        5,
        (
            "CommandError: Ring default: The database failed (OperationalError): unable to open "
            "database file\n"
        ),
    )


def test_a_terminal_that_has_few_characters_gets_no_others(kept: Clock) -> None:
    run("rotate_keys")
    kept.pass_(days=1)
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    call_command("rotate_keys", "--emergency", "--reason", "¡ya!", stdout=out)
    out.flush()
    assert rb"on 2030-01-02 12:00:00 UTC, \xa1ya!" in raw.getvalue()


def test_whatever_is_done_the_json_is_an_object_and_no_private_half_is_shown(kept: Clock) -> None:
    chance, statuses = random.Random(7), {0}
    choices = ["", "--now", "--now --force", "--emergency", "--check", "--dry-run", "--no-prune"]
    for _ in range(60):
        kept.pass_(hours=chance.choice((1, 5, 30, 200)))
        out = io.StringIO()
        try:
            call_command("rotate_keys", *chance.choice(choices).split(), format="json", stdout=out)
        except CommandError as error:
            statuses.add(error.returncode)
        found = json.loads(out.getvalue())
        assert {"schema", "action", "ring", "kid", "unpublish_at", "warnings"} <= set(found)
        assert found["signs"] is None or not {'"d"', "PRIVATE"} & set(out.getvalue().split())
    assert statuses == {0, 3, 4}
