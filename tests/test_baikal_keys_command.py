from __future__ import annotations

import argparse
import base64
import io
import json
import re
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from cryptography.hazmat.primitives import serialization
from django.core.management import call_command, load_command_class
from django.test import override_settings
from django.utils import timezone
from keys_stage import (
    DAY,
    START,
    Clock,
    Project,
    aliases,
    everything,
    keeper,
    refused,
    ring,
    rows,
    run,
    text,
)

from django_baikal.exceptions import LostRace
from django_baikal.keys import load_key
from django_baikal.keys.generate import generate_key, private_pem
from django_baikal.keys.operations import Keeper, Outcome
from django_baikal.keys.timeline import span
from django_baikal.management.keys_output import ASCII, BOXES, cut, marks_for, parse_duration
from django_baikal.models import SigningKey

NOT_VISIBLE = ("PRIVATE", '"d"', '"p"')


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def kept(db: None, clock: Clock) -> Iterator[Clock]:
    """Keep the keys of the alias default in the database, at a time that stands still."""
    with ring():
        yield clock


def keys(*arguments: str, **options: Any) -> str:
    return run("baikal_keys", *arguments, **options)


def program(*arguments: str, **options: Any) -> Any:
    return json.loads(keys(*arguments, format="json", **options))


def wrong(*arguments: str, **options: Any) -> tuple[int, str]:
    status, sentence, printed = refused("baikal_keys", *arguments, **options)
    assert printed == ""
    return status, sentence


def states() -> list[str]:
    found = keeper().read()
    return [found.state(row, timezone.now()) for row in found.rows]


def lived(kept: Clock) -> list[SigningKey]:
    """Let a ring live for a while: one key has retired, one was revoked."""
    run("rotate_keys")
    kept.pass_(days=7, hours=1)
    run("rotate_keys")
    kept.pass_(days=3)
    run("rotate_keys", "--emergency", "--reason", "lost")
    return rows()


# list


def test_the_list_draws_when_each_key_signs(kept: Clock) -> None:
    lived(kept)
    printed = keys("list")
    _, revoked, active, pending = rows()
    kek = keeper().options.encryption_keys.current.name
    assert printed == text(
        """\
Ring default, 2030-01-11 13:00:00 UTC:
                                                  ▼ now
  REVOKEDX…  revoked  ░░░░░░░░░░░░░░░░░░░░█████████
  ACTIVEKI…  active                       ░░░░░░░░░████████████████████▒▒▒
  PENDINGK…  pending                              │░░░░░░░░░░░░░░░░░░░░████████
                      2030-01-01                                     2030-01-21
  ░ published  █ signs  ▒ retiring  · out of the JWK Set, but still in caches

  REVOKED
    revoked, ES256, on 2030-01-11 13:00:00 UTC, lost
    last trusted 2030-01-11 14:16:30 UTC (in 1 hour 16 minutes)
    seal: good, under the key-encryption key KEK
    private half: wiped

  ACTIVE
    active, ES256, since 2030-01-11 12:58:00 UTC
    until 2030-01-18 12:58:00 UTC (in 7 days)
    seal: good, under the key-encryption key KEK
    private half: good, under the key-encryption key KEK

  PENDING
    pending, ES256, from 2030-01-18 12:58:00 UTC (in 7 days)
    seal: good, under the key-encryption key KEK
    private half: good, under the key-encryption key KEK

  1 key that nobody trusts any more: see --all.
""",
        REVOKEDX=revoked.kid[:8],
        ACTIVEKI=active.kid[:8],
        PENDINGK=pending.kid[:8],
        REVOKED=revoked.kid,
        ACTIVE=active.kid,
        PENDING=pending.kid,
        KEK=kek,
    )
    assert max(map(len, printed.splitlines())) < 80


def test_the_list_has_all_keys_if_it_is_asked(kept: Clock) -> None:
    lived(kept)
    printed = keys("list", "--all")
    assert all(row.kid in printed for row in rows())
    assert "--all" not in printed
    assert "    retired, ES256, signed until 2030-01-08 11:58:00 UTC\n" in printed


def test_a_key_that_was_just_revoked_is_drawn_while_caches_have_it(db: None, clock: Clock) -> None:
    with ring(JWKS_MAX_AGE=40000, PROPAGATION=200000, RETENTION=90000, ROTATE_EVERY=300000):
        run("rotate_keys")
        clock.pass_(days=4)
        run("rotate_keys")
        run("rotate_keys", "--emergency", f"--kid={rows()[1].kid}")
        clock.pass_(hours=2)
        (line,) = [line for line in keys("list").splitlines() if "revoked  " in line]
        assert re.search(r"░+█+·+$", line)


def test_a_terminal_without_the_characters_gets_others(kept: Clock) -> None:
    lived(kept)
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    call_command("baikal_keys", "list", stdout=out)
    out.flush()
    drawn = raw.getvalue().decode("ascii").splitlines()
    assert drawn[1].split() == ["v", "now"]
    assert re.search(r"~  revoked  -+#+$", drawn[2])
    assert re.search(r"~  active    +-+#+=+$", drawn[3])
    assert drawn[6] == (
        "  - published  # signs  = retiring  . out of the JWK Set, but still in caches"
    )


def test_the_characters_are_chosen_by_the_encoding() -> None:
    assert marks_for(None) is marks_for("utf-8") is BOXES
    assert marks_for("ascii") is marks_for("latin-1") is ASCII
    assert (cut("abcdef", 4, ASCII), cut("abcd", 4, ASCII)) == ("abc~", "abcd")


def test_today_at_the_end_of_the_line_is_marked_to_the_left(db: None, clock: Clock) -> None:
    with ring(ROTATE_EVERY=172800):
        run("rotate_keys")
        clock.pass_(days=300)
        lines = keys("list").splitlines()
    assert lines[1].endswith("now ▼")
    assert len(lines[1]) < 80
    # The key that signs reaches to the end, and so past today.
    assert lines[2].endswith("█")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "less than a minute"),
        (60, "1 minute"),
        (3599, "1 hour"),
        (3660, "1 hour 1 minute"),
        (86399, "1 day"),
        (90000, "1 day 1 hour"),
        (-172800, "2 days"),
        (604700, "7 days"),
    ],
)
def test_lengths_of_time_are_said_in_two_units(seconds: int, words: str) -> None:
    assert span(timedelta(seconds=seconds)) == words


def test_lengths_of_time_are_read() -> None:
    assert parse_duration(" 5m ") == timedelta(minutes=5)
    for bad in ("", "5 m", "-5", "5y", "1e3", "\u0665"):
        assert parse_duration(bad) is None


def test_the_list_of_an_empty_ring(kept: Clock) -> None:
    assert keys("list") == "Ring default: no key yet; rotate_keys makes one.\n"


def test_the_list_has_every_ring(db: None, clock: Clock) -> None:
    with override_settings(BAIKAL=aliases(eu={"RING": "eu"}, us={"RING": "us"})):
        run("rotate_keys", "--all-rings")
        assert re.findall(r"^Ring (\w+),", keys("list"), re.MULTILINE) == ["eu", "us"]
        assert [each["ring"] for each in program("list")] == ["eu", "us"]
        assert [each["ring"] for each in program("list", "--ring", "us")] == ["us"]


def test_what_a_program_reads_of_a_list(kept: Clock) -> None:
    lived(kept)
    (found,) = program("list")
    assert (found["schema"], found["ring"]) == (1, "default")
    assert [each["state"] for each in found["keys"]] == ["retired", "revoked", "active", "pending"]
    row, kek = rows()[1], keeper().options.encryption_keys.current.name
    assert found["keys"][1] == {
        "kid": row.kid,
        "ring": "default",
        "sequence": 2,
        "state": "revoked",
        "alg": "ES256",
        "thumbprint": row.kid,
        "origin": "generated",
        "created_at": "2030-01-01T12:00:00Z",
        "created_by": "rotate_keys",
        "activates_at": "2030-01-08T11:58:00Z",
        "superseded_at": "2030-01-11T12:58:00Z",
        "unpublish_at": "2030-01-12T12:58:00Z",
        "last_trusted": "2030-01-11T14:16:30Z",
        "revoked_at": "2030-01-11T13:00:00Z",
        "revoke_reason": "lost",
        "destroyed_at": "2030-01-11T13:00:00Z",
        "seal": {"encryption_key": kek, "state": "good"},
        "private_half": {"encryption_key": None, "state": "wiped"},
    }
    assert found["keys"][2]["private_half"] == {"encryption_key": kek, "state": "good"}


def test_a_row_that_is_not_good_is_shown_as_such(kept: Clock) -> None:
    run("rotate_keys")
    first, second = rows()
    SigningKey.objects.filter(pk=first.pk).update(note="x", retention=7)
    SigningKey.objects.filter(pk=second.pk).update(private_envelope=first.private_envelope)
    status, sentence, printed = refused("baikal_keys", "list")
    assert (status, sentence) == (
        5,
        "The ring default is not used while a seal in it is not good.",
    )
    assert printed.count("seal: TAMPERED WITH") == 1
    assert printed.count("private half: TAMPERED WITH") == 1
    status, _, printed = refused("baikal_keys", "list", format="json")
    seals = [each["seal"]["state"] for each in json.loads(printed)[0]["keys"]]
    assert (status, seals) == (5, ["tampered", "good"])
    SigningKey.objects.filter(pk=first.pk).update(seal=b"")
    assert "seal: TAMPERED WITH" in refused("baikal_keys", "list")[2]


def test_a_missing_key_encryption_key_is_named(kept: Clock, settings: Any) -> None:
    run("rotate_keys")
    kek = keeper().options.encryption_keys.current.name
    settings.SECRET_KEY = "another one"
    status, _, printed = refused("baikal_keys", "list")
    assert status == 5
    assert f"seal: needs the key-encryption key {kek}, which is not set\n" in printed
    assert f"private half: needs the key-encryption key {kek}, which is not set\n" in printed
    assert f"needs the key-encryption key {kek}, which is not set" in keys(
        "show", "--", rows()[0].kid
    )
    assert wrong("export", "--", rows()[0].kid)[0] == 5


# show and export


def test_one_key_is_shown(kept: Clock) -> None:
    lived(kept)
    row, kek = rows()[1], keeper().options.encryption_keys.current.name
    assert keys("show", "--", row.kid) == text(
        """\
Key KID:
  ring            default
  sequence        2
  state           revoked
  alg             ES256
  thumbprint      KID
  origin          generated
  created at      2030-01-01T12:00:00Z
  created by      rotate_keys
  activates at    2030-01-08T11:58:00Z
  superseded at   2030-01-11T12:58:00Z
  unpublish at    2030-01-12T12:58:00Z
  last trusted    2030-01-11T14:16:30Z
  revoked at      2030-01-11T13:00:00Z
  revoke reason   lost
  destroyed at    2030-01-11T13:00:00Z
  seal            good, under the key-encryption key KEK
  private half    wiped
""",
        KID=row.kid,
        KEK=kek,
    )
    found = program("show", "--", row.kid)
    assert (found["schema"], found["public_jwk"]["kid"]) == (1, row.kid)
    assert set(found["public_jwk"]) == {"kty", "kid", "use", "alg", "crv", "x", "y"}


@pytest.mark.parametrize("command", ["show", "export", "postpone", "revoke"])
def test_an_unknown_key(kept: Clock, command: str) -> None:
    more = {"postpone": ["--until", "2030-01-20T00:00Z"], "revoke": ["--reason", "test"]}
    found = wrong(command, "nobody", *more.get(command, []))
    assert found == (1, "There is no key 'nobody'; the rings are: default.")


def test_an_unknown_ring(kept: Clock) -> None:
    assert wrong("list", "--ring", "nope")[0] == 1


@pytest.mark.parametrize("alg", ["ES256", "RS256", "EdDSA"])
def test_the_public_half_is_exported_in_every_format(kept: Clock, alg: str) -> None:
    run("rotate_keys", alg=alg)
    row = rows()[0]
    jwk = json.loads(keys("export", "--", row.kid))
    assert jwk == json.loads(keys("export", "--as", "jwk", "--", row.kid))
    assert json.loads(keys("export", "--as", "jwks", "--", row.kid)) == {"keys": [jwk]}
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    call_command("baikal_keys", "export", "--as", "der", "--", row.kid, stdout=out)
    pem = run("baikal_keys", "export", "--as", "pem", "--", row.kid).encode()
    for data, form in ((json.dumps(jwk).encode(), "json"), (pem, "pem"), (raw.getvalue(), "spki")):
        found = load_key(data, format=form, alg=alg)
        assert (found.thumbprint, found.private_key) == (row.thumbprint, None)


def test_der_is_not_written_where_only_text_can_be(kept: Clock) -> None:
    run("rotate_keys")
    assert wrong("export", "--as", "der", "--", rows()[0].kid) == (
        2,
        "DER is no text, and standard output takes only text here.",
    )


def test_a_key_that_nobody_should_trust_is_exported_with_a_warning(kept: Clock) -> None:
    row, err = lived(kept)[1], io.StringIO()
    assert json.loads(keys("export", "--", row.kid, stderr=err))["kid"] == row.kid
    assert err.getvalue() == f"Warning: key {row.kid} is revoked; nobody should trust it.\n"


# generate


def test_a_standby_is_made_if_there_is_none(kept: Clock) -> None:
    printed = keys("generate", "--alg", "EdDSA", "--activate-in", "2d")
    first, standby = rows()
    assert printed.startswith(f"Ring default:\n  Made {first.kid}.\n  Made {standby.kid}.\n  signs")
    assert (standby.alg, standby.activates_at) == ("EdDSA", START + 2 * DAY)
    assert first.created_by == "baikal_keys generate"
    before = everything()
    assert "  Nothing to make: there is a standby.\n" in keys("generate")
    assert program("generate") == {"schema": 1, "action": "noop", "ring": "default", "keys": []}
    assert everything() == before


def test_a_standby_that_not_everybody_can_have_seen_is_refused(kept: Clock) -> None:
    assert wrong("generate", "--activate-in", "1h")[0] == 4
    assert rows() == []
    found = program("generate", "--activate-in", "1h", "--force")
    assert [each["state"] for each in found["keys"]] == ["active", "pending"]
    assert wrong("generate", "--bits", "4096") == (
        2,
        "--bits is for RSA keys, and the alg is ES256.",
    )


# import


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    path = tmp_path / "key.pem"
    path.write_text(private_pem(generate_key("ES256", kid="mine")))
    return path


def encrypted(path: Path, passphrase: str) -> Path:
    private = generate_key("ES256").private_key
    path.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(passphrase.encode()),
        )
    )
    return path


def test_a_key_file_becomes_the_standby(kept: Clock, pem: Path) -> None:
    run("rotate_keys")
    kept.pass_(days=7)
    printed = keys("import", str(pem), kid="mine", alg="ES256", format="pem", activate_in="3d")
    assert printed.startswith("Ring default:\n  Imported mine.\n  signs now ")
    row = rows()[-1]
    assert (row.kid, row.origin, row.created_by) == ("mine", "imported", "baikal_keys import")
    assert row.activates_at == kept.now + 3 * DAY
    before = everything()
    assert "  Key mine is there already.\n" in keys("import", str(pem), kid="mine")
    assert everything() == before


def test_a_key_may_come_from_standard_input(
    kept: Clock, pem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(pem.read_bytes())))
    keys("import", "-", "--kid", "mine")
    # The first key of a ring signs at once.
    assert (rows()[0].kid, states()) == ("mine", ["active"])


def test_an_encrypted_key_is_opened_by_its_passphrase(
    kept: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encrypted(tmp_path / "key.pem", "open sesame")
    (tmp_path / "passphrase").write_text("open sesame\n")
    monkeypatch.setenv("PASSPHRASE", "open sesame")
    assert wrong("import", str(path))[0] == 1
    by_file = ("--password-file", str(tmp_path / "passphrase"))
    by_name = ("--password-env", "PASSPHRASE")
    assert wrong("import", str(path), *by_file, *by_name) == (
        2,
        "--password-file and --password-env exclude each other.",
    )
    assert "Imported" in keys("import", str(path), *by_file)
    assert "is there already" in keys("import", str(path), *by_name)
    assert wrong("import", str(path), "--password-env", "NOBODY") == (
        2,
        "--password-env: there is no variable NOBODY.",
    )
    nowhere = str(tmp_path / "nowhere")
    assert wrong("import", str(path), "--password-file", nowhere) == (
        1,
        f"{nowhere!r} cannot be read: No such file or directory.",
    )


def test_what_cannot_be_imported(kept: Clock, tmp_path: Path, pem: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert wrong("import", str(nowhere)) == (
        1,
        f"{str(nowhere)!r} cannot be read: No such file or directory.",
    )
    large = tmp_path / "large"
    large.write_bytes(b"x" * 65537)
    assert wrong("import", str(large)) == (
        1,
        f"{str(large)!r} is larger than 65536 bytes, and no key.",
    )
    large.write_bytes(b"x")
    assert wrong("import", str(large))[0] == 1
    assert wrong("import", str(pem), "--kid", "ä")[0] == 1
    assert wrong("import", str(pem), "--activate-at", "2029-01-01T00:00:00Z")[0] == 2
    public = tmp_path / "public.pem"
    private = generate_key("ES256").private_key
    public.write_bytes(
        private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    assert wrong("import", str(public)) == (
        4,
        "The key is public; publish it from PRIVATE_CERTS_PATH or CLIENT_KEYS.",
    )
    assert rows() == []
    run("rotate_keys")
    assert wrong("import", str(pem))[0] == 4
    assert len(rows()) == 2


# postpone, revoke, prune


def test_a_standby_is_put_off(kept: Clock) -> None:
    run("rotate_keys")
    first, standby = rows()
    printed = keys("postpone", "--until", "2030-01-10T02:00:00+02:00", "--", standby.kid)
    assert printed.splitlines()[:3] == [
        "Ring default:",
        f"  Put off {standby.kid}: it signs from 2030-01-10",
        "  00:00:00 UTC (in 8 days 12 hours).",
    ]
    assert rows()[1].activates_at == datetime.fromisoformat("2030-01-10T00:00:00Z")
    until = ("--until", "2030-01-09T00:00:00Z")
    assert wrong("postpone", *until, "--", standby.kid)[0] == 4
    assert wrong("postpone", *until, "--", first.kid) == (
        4,
        f"Key {first.kid!r} is active, and no standby any more.",
    )
    assert wrong("postpone", "--until", "later", "--", standby.kid)[0] == 2
    assert program("postpone", "--until", "2030-01-12T00:00Z", "--", standby.kid)["keys"][0][
        "activates_at"
    ] == ("2030-01-12T00:00:00Z")


def test_a_standby_that_is_revoked_is_replaced(kept: Clock) -> None:
    run("rotate_keys")
    standby = rows()[1]
    found = keys("revoke", "--reason", "compromise", "--", standby.kid)
    new = rows()[2]
    assert found.splitlines()[:3] == [
        "Ring default:",
        f"  Revoked {standby.kid}.",
        f"  Made {new.kid} in its place.",
    ]
    assert rows()[1].revoke_reason == "compromise"
    assert states() == ["active", "revoked", "pending"]
    before = everything()
    found = program("revoke", "--reason", "test", "--", standby.kid)
    assert (found["action"], found["keys"]) == ("noop", [])
    assert f"  {standby.kid} was revoked before.\n" in keys(
        "revoke", "--reason", "test", "--", standby.kid
    )
    assert everything() == before


def test_a_standby_that_cannot_be_replaced_is_revoked_all_the_same(db: None, clock: Clock) -> None:
    with ring(PROPAGATION=600):
        run("rotate_keys", "--force")
        printed = keys("revoke", "--reason", "test", "--", rows()[1].kid)
        assert "  There is no other standby: The times of the ring break rule R1: " in printed
        assert states() == ["active", "revoked"]


def test_the_key_that_signs_is_not_revoked(kept: Clock) -> None:
    run("rotate_keys")
    kid, before = rows()[0].kid, everything()
    assert wrong("revoke", "--reason", "test", "--", kid) == (
        4,
        (
            f"Key {kid} signs; rotate_keys --emergency --kid={kid} revokes it and lets another "
            "one sign."
        ),
    )
    assert everything() == before


def test_old_private_halves_are_wiped(kept: Clock) -> None:
    run("rotate_keys")
    kept.pass_(days=9)
    assert f"  {rows()[0].kid} has no private half any more.\n" in keys("prune")
    assert "  Nothing to wipe.\n" in keys("prune")
    assert rows()[0].private_envelope is None


def test_an_operation_is_tried_again_while_others_are_faster(
    kept: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, real = [4], Keeper.prune

    def prune(self: Keeper) -> Outcome:
        if left[0]:
            left[0] -= 1
            raise LostRace("Another process was faster.")
        return real(self)

    monkeypatch.setattr(Keeper, "prune", prune)
    assert keys("prune")
    left[0] = 5
    assert wrong("prune") == (1, "Another process was faster.")


# reencrypt


def secret(number: int) -> str:
    return base64.b64encode(bytes([number]) * 32).decode()


def test_keys_are_put_under_a_new_key_encryption_key(db: None, clock: Clock) -> None:
    with ring(ENCRYPTION_KEYS=[secret(1)]):
        run("rotate_keys")
        old = keeper().options.encryption_keys.current.name
        assert keys("reencrypt", "--check")
        assert program("reencrypt")["action"] == "noop"
    with ring(ENCRYPTION_KEYS=[secret(2), secret(1)]):
        new = keeper().options.encryption_keys.current.name
        before = everything()
        assert refused("baikal_keys", "reencrypt", "--check") == (
            3,
            "Run baikal_keys reencrypt.",
            (
                f"Ring default:\n  Under {new}, the first key-encryption key: 0 keys.\n"
                f"  Under {old}: 2 keys.\n"
            ),
        )
        assert everything() == before
        assert keys("reencrypt") == (
            f"Ring default:\n  Under {new}, the first key-encryption key: 2 keys.\n"
            "  This ring needs no other key-encryption key.\n"
        )
    with ring(ENCRYPTION_KEYS=[secret(2)]):
        assert keys("reencrypt", "--check")
        assert program("reencrypt") == {
            "schema": 1,
            "action": "noop",
            "ring": "default",
            "changed": [],
            "failed": [],
            "encryption_keys": {new: 2},
        }
    with ring(ENCRYPTION_KEYS=[secret(3), secret(2)]):
        assert program("reencrypt")["changed"] == [row.kid for row in rows()]


def test_what_cannot_be_opened_is_named_and_holds_nothing_up(db: None, clock: Clock) -> None:
    with ring(ENCRYPTION_KEYS=[secret(9)]):
        lost = keeper().options.encryption_keys
    with ring(ENCRYPTION_KEYS=[secret(1)]):
        run("rotate_keys")
    first, second = rows()
    binding = {"ring": first.ring, "kid": first.kid, "alg": first.alg}
    locked = lost.encrypt(b"x", **binding)
    SigningKey.objects.filter(pk=first.pk).update(private_envelope=locked)
    with ring(ENCRYPTION_KEYS=[secret(2), secret(1)]):
        new = keeper().options.encryption_keys.current.name
        for _ in range(2):
            status, sentence, printed = refused("baikal_keys", "reencrypt")
            assert status == 5
            assert sentence.startswith(
                f"Not encrypted anew: The private half of key '{first.kid}' needs the "
                f"key-encryption key {lost.current.name}, which is not set (set are {new}, "
            )
            assert f"Under {new}, the first key-encryption key: 2 keys.\n" in printed
            assert f"Under {lost.current.name}: 1 key.\n" in printed
        done = json.loads(refused("baikal_keys", "reencrypt", format="json")[2])
        assert (done["action"], done["changed"], done["failed"]) == ("noop", [], [first.kid])
    # What could be put under the new key was; the old one can go.
    with ring(ENCRYPTION_KEYS=[secret(2)]):
        clock.now = second.activates_at
        assert keeper().store.signing_key().kid == second.kid  # type: ignore[union-attr]


def test_keys_move_from_the_secret_key_to_one_of_their_own(db: None, clock: Clock) -> None:
    """As the guide has it: at no step is there a process that cannot read."""
    with ring():
        run("rotate_keys")
    for step in (["SECRET_KEY", secret(1)], [secret(1), "SECRET_KEY"]):
        with ring(ENCRYPTION_KEYS=step):
            keeper().read()
    with ring(ENCRYPTION_KEYS=[secret(1), "SECRET_KEY"]):
        keys("reencrypt")
    with ring(ENCRYPTION_KEYS=["SECRET_KEY", secret(1)]):
        keeper().read()
    with ring(ENCRYPTION_KEYS=[secret(1)]):
        assert keys("reencrypt", "--check")


@pytest.mark.parametrize("given", [["SECRET_KEY", "x"], [base64.b64encode(b"x").decode()], [], 7])
def test_key_encryption_keys_that_are_none(db: None, given: Any) -> None:
    with ring(ENCRYPTION_KEYS=given):
        status, sentence = wrong("list")
        assert status == 1
        assert sentence.endswith("ENCRYPTION_KEYS must be a list of 32 bytes each, in base64.")


# All of them


def every_option() -> Iterator[tuple[str, str, Any, bool]]:
    """Give each option of each subcommand: its default, and whether it has to be given."""
    parser = load_command_class("django_baikal", "baikal_keys").create_parser("manage.py", "x")
    (subcommands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    for name, each in subcommands.choices.items():
        for action in each._actions:
            for option in action.option_strings:
                if option not in ("-h", "--help"):
                    yield name, option, action.default, action.required


def test_every_subcommand_and_option_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "commands.md").read_text("utf-8")
    section = page.partition("## `baikal_keys`")[2].partition("\n## ")[0]
    shown = {
        (command, option): default.strip("`")
        for command, option, default in re.findall(
            r"^\| `(\w+)` \| `(--[\w-]+)` \| (.*?) \|", section, re.MULTILINE
        )
    }
    options = list(every_option())
    assert set(shown) == {(name, option) for name, option, _, _ in options}
    commands = re.findall(r"^\| `(\w+)(?: KID| PATH)?` \| [^`]", section, re.MULTILINE)
    assert set(commands) == {name for name, _, _, _ in options}
    for name, option, default, required in options:
        if required:
            assert shown[name, option] == "required"
        elif default is not None:
            expected = "off" if default is False else str(default)
            assert shown[name, option] == expected, (name, option)


def test_no_private_half_is_ever_printed(kept: Clock) -> None:
    lived(kept)
    active = rows()[2]
    private = keeper().store._opened(active).private_key.private_numbers().private_value
    shown = [keys("list", "--all"), keys("list", "--all", format="json")]
    ways = (["show"], ["show", "--format", "json"], ["export"], ["export", "--as", "pem"])
    shown += [keys(*arguments, "--", active.kid) for arguments in ways]
    secrets = {str(private), f"{private:x}"}
    secrets.add(base64.urlsafe_b64encode(private.to_bytes(32, "big")).decode().rstrip("="))
    assert not any(each in printed for printed in shown for each in (*secrets, *NOT_VISIBLE))


def test_commands_in_processes_of_their_own(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert project("baikal_keys")[0] == 2
    assert project("baikal_keys", "list") == (
        0,
        "Ring default: no key yet; rotate_keys makes one.\n",
        "",
    )
    assert project("baikal_keys", "show", "nobody") == (
        1,
        "",
        "CommandError: There is no key 'nobody'; the rings are: default.\n",
    )
    key = private_pem(generate_key("ES256"))
    status, printed, said = project("baikal_keys", "import", "-", "--kid=-x", input=key.encode())
    assert (status, said) == (0, "")
    assert "  Imported -x.\n" in printed
    assert project("baikal_keys", "show", "-x")[0] == 2
    assert project("baikal_keys", "show", "--", "-x")[0] == 0
    status, printed, _ = project("baikal_keys", "list", PYTHONIOENCODING="ascii")
    assert (status, "v now" in printed) == (0, True)
    status, printed, _ = project("baikal_keys", "list", PYTHONIOENCODING="utf-8")
    assert (status, "▼ now" in printed) == (0, True)
    assert project("baikal_keys", "revoke", "--reason", "test", "--", "-x")[0] == 4
    assert project("baikal_keys", "revoke", "--reason", "fun", "--", "-x")[0] == 2
    assert project("baikal_keys", "list", KEYS_SECRET="another")[0] == 5
    options = json.dumps({"ENCRYPTION_KEYS": [secret(1), "SECRET_KEY"]})
    assert project("baikal_keys", "reencrypt", "--check", KEYS_OPTIONS=options)[0] == 3
