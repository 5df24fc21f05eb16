"""``manage.py baikal_doctor``: what it prints, its exit status, and how it behaves in a shell."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command, load_command_class
from django.test import override_settings
from doctor_stage import SECRET, Patient, well
from keys_stage import TESTS, Project, refused
from loopback import free_port
from timing import until

from django_baikal.doctor import NAMES
from django_baikal.testing import FakeAuthserver

WRONG, NOT_EXAMINED = 1, 2


@pytest.fixture
def patient(db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Patient]:
    with well(tmp_path, monkeypatch) as found:
        # The other process has its own tests, and takes time.
        monkeypatch.delenv("DJANGO_SETTINGS_MODULE")
        with found.configured():
            yield found


def give(patch: pytest.MonkeyPatch, token: bytes) -> None:
    """Put that on standard input."""
    patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(token)))


def printed(*options: str) -> str:
    out = io.StringIO()
    call_command("baikal_doctor", *options, stdout=out)
    return out.getvalue()


def test_each_examination_has_a_line_that_begins_with_what_came_of_it(patient: Patient) -> None:
    first, *lines = printed().splitlines()
    assert first == "BAIKAL['default']:"
    assert lines[-2:] == ["", "15 passed, 0 failed, 2 skipped."]
    heads = [line for line in lines[:-2] if not line.startswith(" " * 11)]
    for name, line in zip(NAMES, heads, strict=True):
        assert line[:11] in ("  passed   ", "  skipped  ")
        assert line[11:].startswith(f"{name}: ")
    assert all(len(line) < 80 or " " not in line.strip() for line in lines)
    assert "\x1b" not in "".join(lines)


def test_a_failure_is_followed_by_its_cure_and_the_status_is_one(patient: Patient) -> None:
    patient.authserver.fail("introspection", status=403)
    status, said, text = refused("baikal_doctor")
    assert (status, said) == (WRONG, "1 examination failed.")
    lines = text.splitlines()
    (at,) = (i for i, line in enumerate(lines) if line.startswith("  failed   introspection: "))
    rest = " ".join(line.strip() for line in lines[at : at + 8])
    assert "Cure: Have the authserver allow this client to introspect" in rest
    assert "  skipped  token: 'introspection' failed, and this needs it." in lines
    assert lines[-1] == "13 passed, 1 failed, 3 skipped."


def test_with_verbosity_0_only_what_is_wrong_is_printed(patient: Patient) -> None:
    assert printed("-v0") == ""
    patient.tell_time(300)
    patient.authserver.fail("introspection", status=403)
    status, said, text = refused("baikal_doctor", "-v0")
    assert (status, said) == (WRONG, "2 examinations failed.")
    heads = [line for line in text.splitlines() if not line.startswith(" " * 11)]
    assert heads[0] == "BAIKAL['default']:"
    assert [head[:9] for head in heads[1:]] == ["  failed "] * 2


def test_json_has_every_finding(patient: Patient) -> None:
    patient.tell_time(300)
    status, _, text = refused("baikal_doctor", "--format=json")
    assert status == WRONG
    found = json.loads(text)
    assert {name: found[name] for name in ("schema", "passed", "failed", "skipped")} == {
        "schema": 1,
        "passed": 14,
        "failed": 1,
        "skipped": 2,
    }
    (alias,) = found["aliases"]
    assert {*found} == {"schema", "passed", "failed", "skipped", "aliases"}
    assert {*alias} == {"alias", "findings"}
    assert alias["alias"] == "default"
    assert [each["name"] for each in alias["findings"]] == [*NAMES]
    for each in alias["findings"]:
        assert {*each} == {"name", "status", "what", "cure"}
        assert isinstance(each["what"], str)
        assert (each["cure"] is None) == (each["status"] != "failed")


def test_colours_are_for_terminals_and_for_who_asks_for_them(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def shown(**options: Any) -> str:
        out = Terminal()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            call_command("baikal_doctor", stdout=out, **options)
        return out.getvalue()

    for variable in ("NO_COLOR", "DJANGO_COLORS"):
        monkeypatch.delenv(variable, raising=False)
    assert "\x1b[32;1mpassed \x1b[0m  settings: " in shown()
    assert "\x1b" not in shown(no_color=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in shown()
    assert "\x1b[32;1mpassed " in printed("--force-color")


@pytest.mark.usefixtures("patient")
def test_an_alias_that_there_is_not_cannot_be_examined() -> None:
    status, said, text = refused("baikal_doctor", "--using=eu")
    assert (status, text) == (NOT_EXAMINED, "")
    assert said == "BAIKAL has no alias 'eu'; there are: default."


@override_settings(BAIKAL=["default"])
def test_settings_without_any_alias_cannot_be_examined() -> None:
    status, said, text = refused("baikal_doctor")
    assert (status, text) == (NOT_EXAMINED, "")
    assert said.startswith("BAIKAL")


def test_every_alias_is_examined_unless_one_is_named(patient: Patient) -> None:
    other = {**patient.entry, "ISSUER": "urn:me"}
    with override_settings(BAIKAL={"default": patient.entry, "eu": other}):
        text = printed()
        assert [line for line in text.splitlines() if line.startswith("BAIKAL")] == [
            "BAIKAL['default']:",
            "BAIKAL['eu']:",
        ]
        assert text.endswith("\n27 passed, 0 failed, 7 skipped.\n")
        assert "default" not in printed("--using=eu").splitlines()[0]


def test_a_token_on_standard_input_is_examined_and_not_shown(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = patient.authserver.issue_token(scope="orders.read")
    give(monkeypatch, f"{token}\r\n".encode())
    text = printed("--token", "-")
    assert "orders.read" in text
    assert token not in text


@pytest.mark.parametrize("given", [b"", b" \n"])
def test_a_token_that_is_not_there_is_asked_for(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, given: bytes
) -> None:
    give(monkeypatch, given)
    assert refused("baikal_doctor", "--token=-")[:2] == (
        NOT_EXAMINED,
        "--token: there is nothing on standard input.",
    )
    monkeypatch.setattr(sys, "stdin", None)
    assert refused("baikal_doctor", "--token=-")[0] == NOT_EXAMINED


def test_what_is_no_token_is_a_finding_and_goes_to_nobody(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(monkeypatch, b"Authorization: Bearer \xff\x00" + b"x" * 100_000)
    status, _, text = refused("baikal_doctor", "--token=-")
    assert status == WRONG
    assert "  failed   token: The token is malformed or too long." in text
    assert patient.authserver.requests.to("introspection") == []


@pytest.mark.usefixtures("patient")
def test_a_token_on_the_command_line_is_refused_and_not_repeated() -> None:
    status, said, text = refused("baikal_doctor", "--token=abcdefgh")
    assert (status, text) == (NOT_EXAMINED, "")
    assert said.startswith("--token takes '-' alone")
    assert "abcdefgh" not in said


def test_a_token_is_told_to_its_own_authserver_alone(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(monkeypatch, b"a-token")
    with override_settings(BAIKAL={"default": patient.entry, "eu": patient.entry}):
        status, said, text = refused("baikal_doctor", "--token=-")
    assert (status, text) == (NOT_EXAMINED, "")
    assert said == "Say with --using whose token it is: default, eu."
    assert list(patient.authserver.requests) == []


def test_the_help_says_what_it_does_and_what_its_status_means() -> None:
    text = " ".join(
        load_command_class("django_baikal", "baikal_doctor")
        .create_parser("manage.py", "baikal_doctor")
        .format_help()
        .split()
    )
    assert "changes nothing, and names the cure" in text
    assert "0 if all is well, 1 if something is wrong, 2 if that could not be found out" in text


# -- in processes of their own ---------------------------------------------------------------------


def project(path: Path, authserver: FakeAuthserver, **entry: Any) -> Project:
    aliases = {"default": authserver.settings(**entry)}
    return Project(
        path,
        DJANGO_SETTINGS_MODULE="doctor_project",
        DOCTOR_CACHE=f"filecache://{path}/cache",
        KEYS_ALIASES=json.dumps(aliases),
    )


@pytest.mark.programs
def test_a_project_with_a_real_site_is_well_and_then_the_site_is_stopped(tmp_path: Path) -> None:
    clients = {"doctors-client": SECRET}
    with FakeAuthserver(clients=clients).serve() as authserver:
        port = free_port()
        there = project(tmp_path, authserver, ISSUER=f"http://127.0.0.1:{port}/")
        assert there("rotate_keys")[0] == 0
        with there.served(f"--bind=127.0.0.1:{port}"):
            status, out, err = there("baikal_doctor", "--format=json")
            assert (status, err) == (0, "")
            found = json.loads(out)
            assert (found["passed"], found["failed"], found["skipped"]) == (16, 0, 1)
            assert there("baikal_doctor")[0] == 0
        status, out, err = there("baikal_doctor", "-v0")
        assert (status, err) == (WRONG, "CommandError: 1 examination failed.\n")
        assert "  failed   our metadata: " in out
        assert SECRET not in out


# What runs in the background of a shell is given a SIGINT that is ignored, and hands it on.
INTERRUPTIBLE = """
import signal
from django.core.management import execute_from_command_line
signal.signal(signal.SIGINT, signal.default_int_handler)
execute_from_command_line(["manage.py", "baikal_doctor"])
"""


def waits(process: subprocess.Popen[str]) -> bool:
    """Tell whether it sleeps; a signal from before wakes nobody who falls asleep."""
    stat = Path(f"/proc/{process.pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(") ")[2].startswith("S")


def test_it_can_be_interrupted(tmp_path: Path) -> None:
    with FakeAuthserver().serve() as authserver:
        there = project(tmp_path, authserver, TIMEOUT=600)
        fault = authserver.fail("discovery", hang=True)
        with (
            fault,
            subprocess.Popen(
                [sys.executable, "-c", INTERRUPTIBLE],
                cwd=TESTS,
                env={**os.environ, **there.environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                # What starts the tests in the background may have let them ignore it.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
            ) as process,
        ):
            until(lambda: fault.hits or process.poll() is not None, "it asks the authserver")
            until(lambda: waits(process), "it waits for the answer")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=120)
    assert process.returncode == NOT_EXAMINED
    assert err == "CommandError: Interrupted.\n"
    # What was found before was told at once.
    assert out.startswith("BAIKAL['default']:\n  passed   settings: ")
