from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from conftest import ROOT
from django.core.management import CommandError, call_command
from django.test import override_settings
from loopback import free_port
from timing import PATIENCE

from django_baikal.keys.generate import generate_key
from django_baikal.testing import FakeAuthserver

TESTS = Path(__file__).resolve().parent
RUNNING = re.compile(r"running at (http://127\.0\.0\.1:(\d+))/")
# Buffered, as most programs are when somebody else reads what they print.
ENVIRONMENT = {**os.environ, "DJANGO_SETTINGS_MODULE": "settings", "PYTHONUNBUFFERED": ""}
CREDENTIALS = {"grant_type": "client_credentials"}


class Running:
    """The command in a process of its own."""

    def __init__(self, *options: str, **environment: str) -> None:
        program = "from django.core.management import execute_from_command_line as run; import sys"
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-W",
                "error",
                "-c",
                f"{program}; run(['manage.py', 'baikal_authserver', *sys.argv[1:]])",
                *(options or ("--port", "0")),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=TESTS,
            env={**ENVIRONMENT, **environment},
        )
        self.banner = ""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.banner += line
            if line.startswith("  revocation"):
                break
        found = RUNNING.search(self.banner)
        assert found, (self.banner, self.process.stderr and self.process.stderr.read())
        self.endpoint = found[1]

    def stop(self, number: int = signal.SIGINT) -> tuple[int, str, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err


@pytest.fixture
def run() -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(*options: str, **environment: str) -> Running:
        started.append(Running(*options, **environment))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
        each.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_a_signal_and_exits_with_0(
    run: Callable[..., Running], number: int
) -> None:
    command = run()
    with requests.Session() as session:
        metadata = session.get(
            f"{command.endpoint}/.well-known/openid-configuration", timeout=PATIENCE
        )
        assert metadata.json()["issuer"] == command.endpoint
        # The connection stays open: it must not keep the command from ending.
        code, out, err = command.stop(number)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "Stopped."


def test_the_client_is_the_one_of_the_settings_and_its_secret_is_not_shown(
    run: Callable[..., Running],
) -> None:
    command = run()
    url, auth = f"{command.endpoint}/token", ("client", "secret")
    assert requests.post(url, CREDENTIALS, auth=auth, timeout=PATIENCE).status_code == 200
    assert "'CLIENT_ID': 'client'" in command.banner
    assert "'secret'" not in command.banner
    assert "BAIKAL_CLIENT_SECRET=secret" not in command.banner


def test_a_client_may_be_named_and_the_banner_says_what_to_paste(
    run: Callable[..., Running],
) -> None:
    options = ("--port", "0", "--client-id", "me", "--client-secret", "it's")
    command = run(*options, BAIKAL_ISSUER="https://me.example.com/")
    settings: dict[str, object] = {}
    source = command.banner[command.banner.index("BAIKAL =") :].partition("\n\n")[0]
    exec(source, settings)
    assert settings["BAIKAL"] == {
        "default": {
            "AUTHSERVER_ENDPOINT": command.endpoint,
            "CLIENT_ID": "me",
            "CLIENT_SECRET": "it's",
            "ISSUER": "https://me.example.com/",
        }
    }
    exports = re.findall(r"^export .*$", command.banner, re.MULTILINE)
    shown = subprocess.run(
        ["sh", "-c", "\n".join([*exports, 'echo "$BAIKAL_CLIENT_SECRET $BAIKAL_CLIENT_ID"'])],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == "it's me\n"
    for name, url in FakeAuthserver(endpoint=command.endpoint).urls.items():
        assert re.search(rf"^  {name} +{re.escape(url)}$", command.banner, re.MULTILINE)


def test_each_request_is_a_line_without_secrets_or_phone_numbers(
    run: Callable[..., Running],
) -> None:
    command = run()
    url, auth = f"{command.endpoint}/token", ("client", "secret")
    token = requests.post(url, CREDENTIALS, auth=auth, timeout=PATIENCE).json()["access_token"]
    requests.post(f"{command.endpoint}/introspect", {"token": token}, auth=auth, timeout=PATIENCE)
    requests.post(url, CREDENTIALS, auth=("client", "wrong-one"), timeout=PATIENCE)
    form = {"grant_type": "x:jwt-bearer\n12:00:00 tel:+34600000001", "assertion": "a.b.c"}
    requests.post(url, form, auth=auth, timeout=PATIENCE)
    requests.get(f"{command.endpoint}/+34600000001", timeout=PATIENCE)
    code, out, err = command.stop()
    assert (code, err) == (0, "")
    lines = [line for line in out.splitlines() if re.match(r"\d\d:\d\d:\d\d  ", line)]
    assert [re.sub(r"^\S+  |sha256:\w{8}", "", line) for line in lines] == [
        "POST token  client  200 ok  client_credentials",
        "POST introspection  client  200 ok  token ",
        (
            "POST token  -  401 invalid_client  client_credentials  "
            "The client's id or secret is wrong."
        ),
        (
            "POST token  client  400 unsupported_grant_type  ***  assertion   "
            "Known grants: client_credentials, urn:ietf:params:oauth:grant-type:jwt-bearer, "
            "authorization_code, refresh_token."
        ),
        "GET /***  -  404 not_found  There is no such endpoint.",
    ]
    for secret in (token, "wrong-one", "600000001", "a.b.c"):
        assert secret not in out


def test_quiet_prints_no_line_for_a_request(run: Callable[..., Running]) -> None:
    command = run("--port", "0", "--quiet")
    requests.get(f"{command.endpoint}/jwks", timeout=PATIENCE)
    _, out, _ = command.stop()
    assert "jwks" not in out


def test_the_token_format_and_leniency_can_be_chosen(run: Callable[..., Running]) -> None:
    client = ("--client-id", "me", "--client-secret", "a+b")
    command = run("--port", "0", "--lenient", "--token-format", "jwt", *client)
    url = f"{command.endpoint}/token"
    token = requests.post(url, CREDENTIALS, auth=("me", "a+b"), timeout=PATIENCE).json()
    assert token["access_token"].count(".") == 2


def test_it_goes_on_when_nobody_reads_its_lines(run: Callable[..., Running]) -> None:
    command = run()
    assert command.process.stdout is not None
    command.process.stdout.close()
    for _ in range(3):
        assert requests.get(f"{command.endpoint}/jwks", timeout=PATIENCE).status_code == 200
    command.process.send_signal(signal.SIGTERM)
    assert command.process.wait(PATIENCE) in (0, 120)  # 120: Python could not flush its output
    command.process.stdout = None


@pytest.mark.parametrize("command", ["baikal_authserver", "demo"])
def test_a_signal_that_another_thread_receives_ends_it_too(command: str, tmp_path: Path) -> None:
    # The kernel may give a signal to any thread, and then nothing wakes the main one.
    program = f"""
        import os, signal, sys, threading, time
        from django.core.management import execute_from_command_line
        def waits(frame):
            # The main thread waits for the signal, in the command itself.
            while frame and frame.f_code is not threading.Event.wait.__code__:
                frame = frame.f_back
            return frame and frame.f_back.f_code.co_filename.endswith({command + ".py"!r})
        def signals():
            main = threading.main_thread().ident
            while not waits(sys._current_frames()[main]):
                time.sleep(0.05)
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        threading.Thread(target=signals, daemon=True).start()
        execute_from_command_line(["manage.py", {command!r}, "--port", "0"])
    """
    project = {"PYTHONPATH": os.pathsep.join([str(ROOT / "example_project"), *sys.path])}
    if command == "demo":
        project |= {"DJANGO_SETTINGS_MODULE": "example.settings", "DEBUG": "true"}
        project |= {"DEMO_DATABASE": str(tmp_path / "keys.sqlite3")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=TESTS,
        env={**ENVIRONMENT, **project},
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Stopped" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize("option", ["--client-id", "--client-secret"])
def test_an_empty_client_is_refused(option: str) -> None:
    with pytest.raises(CommandError, match=f"^{option} is empty\\.$"):
        call_command("baikal_authserver", f"{option}=")


@override_settings(BAIKAL={})
def test_a_port_in_use_is_told_in_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandError) as caught:
            call_command("baikal_authserver", port=port)
    assert str(caught.value) == (
        f"Port {port} of 127.0.0.1 is in use already; choose another one with --port "
        "(0 takes one that is free)."
    )
    assert caught.value.returncode == 1


def test_a_port_in_use_is_exit_status_1() -> None:
    program = "from django.core.management import execute_from_command_line as run; import sys"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = subprocess.run(
            [
                sys.executable,
                "-c",
                f"{program}; run(['manage.py', 'baikal_authserver', '--port', sys.argv[1]])",
                str(taken.getsockname()[1]),
            ],
            capture_output=True,
            text=True,
            cwd=TESTS,
            env=ENVIRONMENT,
            check=False,
        )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("CommandError: Port ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.com", "::"])
def test_a_host_that_is_not_loopback_is_refused(host: str) -> None:
    with pytest.raises(CommandError, match="loopback only"):
        call_command("baikal_authserver", host=host)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    with pytest.raises(CommandError, match="between 0 and 65535"):
        call_command("baikal_authserver", port=port)


@pytest.mark.parametrize("settings", [{}, {"default": {"CLIENT_ID": ""}}, "wrong"])
def test_without_settings_there_is_a_demo_client(
    settings: object, run: Callable[..., Running], tmp_path: Path
) -> None:
    (tmp_path / "bare.py").write_text(
        f"INSTALLED_APPS = ['django_baikal']\nBAIKAL = {settings!r}\n", "utf-8"
    )
    command = run(
        DJANGO_SETTINGS_MODULE="bare",
        PYTHONPATH=os.pathsep.join([str(tmp_path), *filter(None, sys.path)]),
    )
    assert "'CLIENT_ID': 'demo-client'" in command.banner
    assert "'CLIENT_SECRET': 'demo-secret'" in command.banner
    assert "'ISSUER': 'http://127.0.0.1:8000'" in command.banner
    url, auth = f"{command.endpoint}/token", ("demo-client", "demo-secret")
    assert requests.post(url, CREDENTIALS, auth=auth, timeout=PATIENCE).status_code == 200
    assert command.stop()[0] == 0


def test_a_client_that_signs_is_verified_with_the_keys_that_the_project_publishes(
    run: Callable[..., Running], tmp_path: Path
) -> None:
    issuer = f"http://127.0.0.1:{free_port()}"
    (tmp_path / "signing.py").write_text(
        "INSTALLED_APPS = ['django_baikal']\n"
        f"BAIKAL = {{'default': {{'CLIENT_ID': 'me', 'ISSUER': '{issuer}/'}}}}\n",
        "utf-8",
    )
    command = run(
        DJANGO_SETTINGS_MODULE="signing",
        PYTHONPATH=os.pathsep.join([str(tmp_path), *filter(None, sys.path)]),
    )
    assertion = generate_key("ES256").sign({"iss": "me", "sub": "me"})
    form = {
        **CREDENTIALS,
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": assertion,
    }
    answer = requests.post(f"{command.endpoint}/token", form, timeout=PATIENCE)
    assert answer.status_code == 401
    assert f"GET {issuer}/.well-known/jwks.json failed" in answer.json()["error_description"]
