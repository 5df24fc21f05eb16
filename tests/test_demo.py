from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import requests
from django.core.management import CommandError, call_command
from example import clock, steps
from example.management.commands.demo import PORT, Command
from test_example_project import NUMBER, PROJECT, VARIABLES, become_the_example

from django_baikal.testing import FakeAuthserver

RUNNING = re.compile(r"running at (http://127\.0\.0\.1:(\d+)/)$")
SECRET = "example-secret"
STEPS = (*steps.STEPS, *steps.OUTAGE, *steps.ROTATION)
TITLES = [f"{number}. {step.title}" for number, step in enumerate(STEPS, 1)]


class Observed(Command):
    """The demo, with its authserver within reach; ``fault``: arguments of its ``fail``."""

    fault: dict[str, Any] | None = None

    def authserver(self) -> FakeAuthserver:
        self.made = super().authserver()
        if self.fault is not None:
            self.made.fail(**self.fault)
        return self.made


@pytest.fixture(autouse=True)
def _example(settings: Any, own_database: None) -> Iterator[None]:
    become_the_example(settings, DEMO_DATABASE="own_database")
    steps.latest = None
    yield
    steps.latest = None


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def run(
        *options: str, program: tuple[str, ...] = ("manage.py", "demo"), **environment: str
    ) -> Any:
        inherited = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        inherited.pop("DJANGO_SETTINGS_MODULE", None)
        started.append(
            subprocess.Popen(
                [sys.executable, "-W", "error", *program, *options],
                cwd=PROJECT,
                env={**inherited, **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield run
    for each in started:
        if each.poll() is None:
            each.kill()
        each.communicate()


def demo(command: Command | None = None, **options: Any) -> str:
    out = StringIO()
    call_command(command or Command(), stdout=out, **{"exit": True, "port": 0, **options})
    return out.getvalue()


def test_the_demo_takes_every_step_in_order_and_ends() -> None:
    out = demo()
    found = re.findall(r"^(\d+\. .+?) {2,}ok +\d+(?:\.\d)? m?s$", out, re.MULTILINE)
    assert found == TITLES
    assert out.count("   we did     ") == out.count("   answer     ") == len(TITLES)
    assert out.count("   it proves  ") == len(TITLES)
    assert re.search(rf"^All {len(TITLES)} steps succeeded, in \d", out, re.MULTILINE)
    assert "running at" not in out
    assert steps.latest is not None
    assert steps.latest.succeeded


def test_the_demo_shows_what_the_authserver_did() -> None:
    command = Observed()
    out = " ".join(demo(command).split())
    assert (
        "the authserver read /.well-known/openid-configuration and /.well-known/jwks.json here"
    ) in out
    assert "refused 400 invalid_grant" in out
    assert [(call.endpoint, call.outcome) for call in command.made.requests] == [
        ("discovery", "ok"),
        ("token", "ok"),
        ("token", "ok"),
        ("introspection", "ok"),
        ("discovery", "ok"),
        ("token", "invalid_grant"),
        ("token", "ok"),
        ("revocation", "ok"),
        ("introspection", "ok"),
        # The API: a forged token, the site's own from before, and the user's.
        ("introspection", "ok"),
        ("introspection", "ok"),
        ("token", "ok"),
        ("introspection", "ok"),
        # Another one, that is asked about in vain, and again.
        ("token", "ok"),
        ("introspection", "ok"),
        # 6 days and 23 hours later the client looks for the endpoints anew.
        ("discovery", "ok"),
        *[("token", "ok")] * 3,
        ("discovery", "ok"),
        ("token", "ok"),
        *[("token", "ok")] * 2,
        ("token", "invalid_grant"),
    ]


def test_nothing_secret_is_printed() -> None:
    command = Observed()
    out = demo(command)
    secret = [SECRET, NUMBER, "PRIVATE KEY"]
    with command.made._state.lock:
        secret += list(command.made._state.tokens)
    secret += [call.form["assertion"] for call in command.made.requests if "assertion" in call.form]
    assert len(secret) == 3 + (5 + 6) + (4 + 7)
    assert [value for value in secret if value in out] == []


def test_the_demo_names_all_that_had_to_be_configured() -> None:
    out = demo()
    names = ["AUTHSERVER_ENDPOINT", "CLIENT_ID", "CLIENT_SECRET", "ISSUER"]
    assert re.findall(r"^  BAIKAL_(\w+) ", out, re.MULTILINE) == names
    assert '\n  "KEYS": {"BACKEND": "django_baikal.keys.database.DatabaseKeyStore"}\n' in out


def test_the_demo_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    # What the environment says already is not asked, and is there again afterwards.
    monkeypatch.setenv("BAIKAL_CLIENT_KEYS", "no key at all")
    monkeypatch.setenv("BAIKAL_CLIENT_ID", "somebody")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "intranet.example")
    before = dict(os.environ)
    handler = signal.getsignal(signal.SIGTERM)
    out = demo()
    assert dict(os.environ) == before
    assert signal.getsignal(signal.SIGTERM) is handler
    assert "step by step" in out
    assert clock.ahead() is None
    assert [path.name for path in tmp_path.iterdir()] == ["own.sqlite3"]


@pytest.mark.parametrize(("columns", "widest"), [("80", 80), ("200", 80)])
def test_the_demo_fits_into_a_terminal(
    monkeypatch: pytest.MonkeyPatch, columns: str, widest: int
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    lines = demo().splitlines()
    assert max(map(len, lines)) <= widest


@pytest.mark.parametrize(
    ("options", "coloured"),
    [({}, False), ({"no_color": True}, False), ({"force_color": True}, True)],
)
def test_there_is_colour_only_where_it_is_wanted(options: dict[str, bool], coloured: bool) -> None:
    assert ("\x1b[" in demo(**options)) == coloured


def test_an_authserver_that_fails_ends_the_demo_with_a_sentence() -> None:
    command = Observed()
    command.fault = {"endpoint": "token", "status": 503}
    out = StringIO()
    with pytest.raises(CommandError) as caught:
        call_command(command, exit=True, port=0, stdout=out)
    assert caught.value.returncode == 1
    assert re.match(
        r"Step 2 failed \(A token for this site itself\): .*http://127\.0\.0\.1:\d+/token.*503",
        str(caught.value),
    )
    text = out.getvalue()
    assert re.search(r"^2\. A token for this site itself +FAILED +\d", text, re.MULTILINE)
    assert text.count("   it proves  ") == 1


def test_the_demo_heeds_nothing_that_the_shell_exports_for_another_project(
    start: Callable[..., Any],
) -> None:
    exported = {
        "DJANGO_SETTINGS_MODULE": "mysite.settings",
        "DEBUG": "false",
        "SECURE_SSL_REDIRECT": "true",
        "CACHE_URL": "rediscache://127.0.0.1:1",
    }
    ended = start("--exit", "--port", "0", **exported)
    _, errors = ended.communicate(timeout=240)
    assert ended.returncode == 0, errors


def test_a_demo_that_fails_is_exit_status_1(start: Callable[..., Any], tmp_path: Path) -> None:
    program = (
        "from django.core.management import execute_from_command_line; import django, os\n"
        "os.environ.update(DJANGO_SETTINGS_MODULE='example.settings', DEBUG='true')\n"
        "django.setup()\n"
        "from example.management.commands.demo import Command\n"
        "class Broken(Command):\n"
        "    def authserver(self):\n"
        "        made = super().authserver()\n"
        "        made.fail('introspection', garbage='html')\n"
        "        return made\n"
        "Broken().run_from_argv(['manage.py', 'demo', '--port', '0'])\n"
    )
    process = start(program=("-c", program), DEMO_DATABASE=str(tmp_path / "keys.sqlite3"))
    out, err = process.communicate(timeout=240)
    assert process.returncode == 1
    assert err.startswith("CommandError: Step 4 failed (What that token is worth): ")
    assert err.count("\n") == 1
    assert "running at" not in out


def test_without_the_database_that_manage_py_brings_along_it_says_so(
    start: Callable[..., Any],
) -> None:
    process = start(
        program=("-m", "django", "demo"), DJANGO_SETTINGS_MODULE="example.settings", DEBUG="1"
    )
    said = "CommandError: Start it as `manage.py demo`, which brings a database along.\n"
    assert (*process.communicate(timeout=240), process.returncode) == ("", said, 1)


def test_a_port_that_is_asked_for_must_be_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match=f"^Port {port} of 127.0.0.1 cannot be used"):
            demo(port=port)
    with pytest.raises(CommandError, match="Port 65536 of"):
        demo(port=65536)


def test_without_one_a_free_port_replaces_the_usual_one() -> None:
    with ExitStack() as stack:
        with suppress(OSError):  # then somebody else has it, which is as good
            stack.enter_context(socket.create_server(("127.0.0.1", PORT)))
        out = demo(port=None)
    found = re.search(r"^  site +http://127\.0\.0\.1:(\d+)/$", out, re.MULTILINE)
    assert found
    assert int(found[1]) not in (0, PORT)


def test_the_command_ends_with_0_in_ci(start: Callable[..., Any], tmp_path: Path) -> None:
    process = start("--exit", "--port", "0", TMPDIR=str(tmp_path))
    out, err = process.communicate(timeout=240)
    assert (process.returncode, err) == (0, "")
    assert list(tmp_path.iterdir()) == []
    assert re.findall(r"^\d+\. .*?(?=  )", out, re.MULTILINE) == TITLES


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_site_stays_until_a_signal_ends_it_with_0(
    start: Callable[..., Any], number: int, tmp_path: Path
) -> None:
    process = start("--port", "0", TMPDIR=str(tmp_path))
    url = ""
    for line in process.stdout:
        if found := RUNNING.search(line):
            url = found[1]
            break
    with requests.Session() as session:
        page = session.get(url, timeout=60)
        assert page.status_code == 200
        assert page.text.count("It proves:") == len(TITLES)
        for key in session.get(f"{url}.well-known/jwks.json", timeout=60).json()["keys"]:
            assert key["kid"] in page.text
        (directory,) = tmp_path.iterdir()
        assert [path.name for path in directory.iterdir()] == ["keys.sqlite3"]
        # The connection stays open: it must not keep the command from ending.
        process.send_signal(number)
        out, err = process.communicate(timeout=240)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines()[-1] == "Stopped; the keys are deleted."
    assert list(tmp_path.iterdir()) == []
