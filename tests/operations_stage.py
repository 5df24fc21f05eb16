"""A project in processes of its own, with what it depends on, for the tests of the runbook.

Whatever is stopped here is a process that was started here: the authserver, the cache, the
database, and the project's own server.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from programs import Program, running
from test_docs import PACKAGE, Typed, free_ports, matches, reachable

TESTS = Path(__file__).resolve().parent
MANAGE = """import os, sys

os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
from django.core.management import execute_from_command_line

execute_from_command_line(sys.argv)
"""
#: Makes the first keys of the ring as if it had been done some days ago.
EARLIER = """import datetime, os, sys

os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
import django
from django.utils import timezone

django.setup()
from django.core.management import call_command

made = timezone.now() - datetime.timedelta(days=float(sys.argv[1]))
timezone.now = lambda: made
call_command("rotate_keys", verbosity=0)
"""
#: For a machine that is slow and busy, in seconds.
PATIENCE = 60


def until(condition: Callable[[], Any], why: Callable[[], Any] = lambda: "") -> Any:
    """Wait until there is something, and give it."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, why()
        time.sleep(0.05)
    return found


class Service:
    """A program that says where it listens; it can be stopped, and started again."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], cwd: Path) -> None:
        self.command, self.environ, self.cwd = command, environ, cwd
        self.before: list[str] = []
        self._program: Program | None = None
        self._stack = ExitStack()

    def start(self) -> None:
        block = running(self.command, {**self.environ}, cwd=self.cwd)
        self._program = self._stack.enter_context(block)

    def stop(self) -> None:
        self._stack.close()
        if self._program is not None:
            self.before += self._program.said
        self._program = None

    def restart(self) -> None:
        self.stop()
        self.start()

    @property
    def said(self) -> list[str]:
        """What it has printed, also before it was started again."""
        return self.before + (self._program.said if self._program else [])


@contextmanager
def program_at(port: int, command: Sequence[str], user: str | None = None) -> Iterator[None]:
    """Run a server until the block is left, once it listens on that port."""
    with subprocess.Popen(
        command,
        user=user,
        group=user,
        extra_groups=[] if user else None,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            until(lambda: process.poll() is not None or reachable(port))
            assert process.poll() is None, command
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE)


class Server:
    """What ``program_at`` runs; it can be stopped, and started again."""

    def __init__(self, port: str, command: Sequence[str], user: str | None = None) -> None:
        self.port, self.command, self.user = port, command, user
        self._stack = ExitStack()

    def start(self) -> None:
        self._stack.enter_context(program_at(int(self.port), self.command, self.user))

    def stop(self) -> None:
        self._stack.close()


def redis_server() -> Server:
    """Give a Redis that keeps nothing on disk; skip where there is none."""
    pytest.importorskip("redis", reason="the redis library is not installed")
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not on this machine")
    (port,) = free_ports(1)
    return Server(port, [program, "--port", port, "--bind", "127.0.0.1", "--save", ""])


def postgresql(stack: ExitStack) -> Server:
    """Give an empty PostgreSQL, whose files end with the stack; skip where there is none."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    places = [*Path("/usr/lib/postgresql").glob("*/bin"), *os.environ["PATH"].split(os.pathsep)]
    path = os.pathsep.join(map(str, places))
    initdb, program = (shutil.which(name, path=path) for name in ("initdb", "postgres"))
    if initdb is None or program is None:
        pytest.skip("PostgreSQL is not on this machine")
    user = None
    if os.geteuid() == 0:  # which PostgreSQL does not run as
        import pwd  # not on Windows

        user = "postgres"
        try:
            pwd.getpwnam(user)
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    directory = stack.enter_context(tempfile.TemporaryDirectory())
    if user:
        shutil.chown(directory, user, user)
    data = str(Path(directory) / "data")
    subprocess.run(
        [initdb, "-D", data, "-U", "postgres", "-A", "trust", "--no-sync"],
        user=user,
        group=user,
        extra_groups=[] if user else None,
        check=True,
        capture_output=True,
        cwd=directory,
    )
    (port,) = free_ports(1)
    options = ["-h", "127.0.0.1", "-p", port, "-k", "", "-F"]
    return Server(port, [program, "-D", data, *options], user)


class Project:
    """The project: its shell, its server and its authserver; its ring is ``age`` days old.

    ``site``: where it answers. A command that ends with another status than 0 is an error: a page
    whose command fails has to say so.
    """

    def __init__(
        self,
        base: Path,
        stack: ExitStack,
        *,
        database: str = "",
        cache: str = "locmemcache://",
        age: float = 2,
    ) -> None:
        self.base = base
        site, authserver = free_ports(2)
        self.site, self.issuer = f"http://127.0.0.1:{site}", f"http://127.0.0.1:{authserver}"
        binaries = base / "bin"
        binaries.mkdir()
        (binaries / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        (binaries / "python").chmod(0o755)
        (base / "manage.py").write_text(MANAGE)
        (base / "settings.py").write_text("from operations_site import *  # noqa: F403\n")
        self.environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("DJANGO_", "PYTEST_"))},
            "PATH": os.pathsep.join([str(binaries), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join([str(base), str(TESTS), str(PACKAGE.parent)]),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "DJANGO_SETTINGS_MODULE": "settings",
            "SITE": self.site,
            "SITE_CLIENT_SECRET": "shop-secret",
            "SITE_SECRET_KEY": "only-for-the-tests-" + "x" * 40,
            "SITE_AUTHSERVER": self.issuer,
            "SITE_DATABASE": database or f"sqlite:///{base}/db.sqlite3",
            "SITE_CACHE": cache,
        }
        manage = [sys.executable, "manage.py"]
        #: What a page's `export` of that name is here.
        self.given = {
            "SITE": self.site,
            "API": f"{self.site}/orders",
            "AUTHSERVER": self.issuer,
        }
        self.authserver = Service(
            [*manage, "baikal_authserver", "--port", authserver], self.environ, base
        )
        application = "django.core.wsgi:get_wsgi_application()"
        serve = ["--bind", f"127.0.0.1:{site}", "--threads", "4", application]
        self.server = Service([sys.executable, "-m", "gunicorn", *serve], self.environ, base)
        stack.callback(self.server.stop)
        stack.callback(self.authserver.stop)
        self.shell("python manage.py migrate --verbosity 0")
        (base / "earlier.py").write_text(EARLIER)
        self.shell(f"python earlier.py {age}")

    # -- typing -----------------------------------------------------------------------------------

    def type(self, line: Typed) -> None:
        """Type one command of a page, and compare what it prints."""
        if line.command.startswith("export "):
            name = line.command.split()[1].split("=")[0]
            script = f'{line.command}; printf %s "${name}"'
            self.environ[name] = self.given.get(name) or self.shell(script)
        elif line.command == "systemctl restart my-project":
            self.server.restart()
        else:
            got = self.shell(line.command).replace("\r\n", "\n")
            assert matches(line.output, got), f"$ {line.command}\n{line.output}\n--\n{got}"

    def shell(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.base,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, (command, done.stdout)
        return done.stdout

    # -- asking -----------------------------------------------------------------------------------

    def get(self, path: str, token: str = "", **form: str) -> requests.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        call = requests.post if form else requests.get
        return call(f"{self.site}/{path}", headers=headers, data=form or None, timeout=PATIENCE)

    def jwks(self) -> requests.Response:
        return self.get(".well-known/jwks.json")

    def kids(self) -> list[str]:
        return [key["kid"] for key in self.jwks().json()["keys"]]

    def token(self) -> str:
        """Get a token as a caller of the API does."""
        form = {"grant_type": "client_credentials", "scope": "orders.read"}
        return str(self._granted(form)["access_token"])

    def id_token(self) -> str:
        """Log a user in at the authserver."""
        cb = "https://me.example.com/cb"
        wanted = {"response_type": "code", "scope": "openid", "client_id": "shop", "state": "s"}
        answer = requests.get(
            self._metadata()["authorization_endpoint"],
            {**wanted, "redirect_uri": cb},
            allow_redirects=False,
            timeout=PATIENCE,
        )
        (code,) = parse_qs(urlsplit(answer.headers["Location"]).query)["code"]
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": cb}
        return str(self._granted(form)["id_token"])

    def _granted(self, form: dict[str, str]) -> Any:
        url, auth = self._metadata()["token_endpoint"], ("shop", self.environ["SITE_CLIENT_SECRET"])
        answer = requests.post(url, form, auth=auth, timeout=PATIENCE)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def _metadata(self) -> Any:
        url = f"{self.issuer}/.well-known/openid-configuration"
        return requests.get(url, timeout=PATIENCE).json()
