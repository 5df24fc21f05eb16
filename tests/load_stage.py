"""A site under load in a server of its own, an authserver that can fail, and a ring of keys."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from loopback import free_port

import django_baikal
from django_baikal.testing import FakeAuthserver

HERE = Path(__file__).resolve().parent
WSGI = "django.core.wsgi:get_wsgi_application()"
ASGI = "django.core.asgi:get_asgi_application"
JWKS = "/.well-known/jwks.json"
#: More threads than callers: the authserver asks for our keys while callers wait for its answers.
COMMANDS = {
    "gunicorn": ["gunicorn", "--bind=127.0.0.1:0", "--threads=16", WSGI],
    "gunicorn-preload": [
        *["gunicorn", "--bind=127.0.0.1:0", "--workers=2", "--threads=16", "--preload"],
        "load_used:application",
    ],
    "uvicorn": ["uvicorn", "--port=0", "--factory", ASGI],
    "runserver": ["django", "runserver", "--noreload", "127.0.0.1:0"],
}
#: With as many processes as in production.
MANY = {
    "gunicorn": ["gunicorn", "--bind=127.0.0.1:0", "--workers=4", "--threads=8", WSGI],
    "uvicorn": ["uvicorn", "--port=0", "--workers=2", "--factory", ASGI],
}
#: How many ask at the same time, for each kind of token in turn.
CALLERS = 6
#: What may be answered to whom.
GOOD, BAD = {200, 503}, {401, 503}
ALLOWED = {
    "known": GOOD,
    "new": GOOD,
    "revoked": BAD,
    "revoked-later": BAD,
    "expired": BAD,
    "forged": BAD,
    "for-another": BAD,
    "of-another-client": BAD,
    "malformed": {401},
    "none": {401},
    "keys": {200},
}
#: Descriptors that a server may have more of after a run: idle connections in its pools.
POOLED = 24
#: How long a token is accepted after it was revoked: INTROSPECTION_TTL of the site, in seconds.
KNOWN_FOR = 1.1
PATIENCE = 60


def until(condition: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"It took too long until {what}."
        time.sleep(0.02)


class Site:
    """The project behind a server; ``told`` is all that the server has said."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self.told: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-m", *command],
            cwd=HERE,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.port = 0

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self.told.append(line)

    def started(self) -> None:
        until(lambda: self._port() or self._process.poll() is not None, "the server is there")
        self.port = self._port()
        assert self.port, "".join(self.told)
        # uvicorn says it before its processes listen, where they are many.
        until(self._listens, "the server listens")

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), PATIENCE).close()
        except ConnectionRefusedError:
            return False
        return True

    def _port(self) -> int:
        found = re.search(r"http://127\.0\.0\.1:(\d+)", "".join(self.told))
        return int(found[1]) if found else 0

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        assert self._process.stdout
        self._process.stdout.close()

    def ask(self, path: str, token: str | None) -> int:
        """Make a request on a connection of its own; give the status."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            client.request("GET", path, headers={} if token is None else bearer(token))
            response = client.getresponse()
            response.read()
            return response.status
        finally:
            client.close()

    def processes(self) -> list[int]:
        """Give the numbers of its processes, the first one first."""
        own = self._process.pid
        return [own, *sorted(children(own))]

    def descriptors(self) -> list[str]:
        """Give what each open descriptor of its processes leads to."""
        found = []
        for pid in self.processes():
            for link in Path(f"/proc/{pid}/fd").iterdir():
                try:
                    found.append(str(link.readlink()))
                except OSError:
                    continue
        return found


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(each) for each in listed.split()]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


class Load:
    """Callers that go on asking with tokens of each kind, and count what they are answered."""

    def __init__(self, site: Site, token: Callable[[str], str | None]) -> None:
        self.site, self.token = site, token
        self.counts: Counter[tuple[str, int]] = Counter()
        self.problems: list[str] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(CALLERS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        kinds = itertools.cycle(random.Random(number).sample([*ALLOWED], len(ALLOWED)))
        paths = itertools.cycle(["/sync", "/async"])
        while not self._stop.is_set():
            # Half of them with good tokens, or a run would see little of what it is about.
            for kind in (next(kinds), "new", next(kinds), "known"):
                path = JWKS if kind == "keys" else next(paths)
                try:
                    status = self.site.ask(path, self.token(kind))
                except OSError as error:
                    self.problems.append(f"{kind}: {error!r}")
                    self._stop.set()
                    return
                with self._lock:
                    self.counts[kind, status] += 1

    def number(self, *statuses: int) -> int:
        with self._lock:
            return sum(n for (kind, status), n in self.counts.items() if status in statuses)

    def see(self, number: int, status: int) -> None:
        """Wait until that status was answered so many times more."""
        begin = self.number(status)
        until(
            lambda: self.problems or self.number(status) >= begin + number,
            f"{status} was answered {number} times: {self.counts}",
        )
        assert self.problems == []


class World:
    """An authserver that can be stopped and started, a ring of keys, and a site."""

    def __init__(
        self,
        command: Sequence[str],
        database: str,
        stack: ExitStack,
        *,
        ttl: float = 1,
        cache: str = "locmemcache://",
        **options: Any,
    ) -> None:
        self.port = free_port()
        endpoint = f"http://127.0.0.1:{self.port}"
        # A kid that it does not know makes it ask for our keys at once, and not after 30 s.
        self.authserver = FakeAuthserver(
            endpoint=endpoint,
            clients={"site": "only-until-we-have-a-url"},
            jwks_cooldown=0,
            **options,
        )
        root = Path(django_baikal.__file__).resolve().parent.parent
        self.environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "load_project",
            "LOAD_AUTHSERVER": endpoint,
            "LOAD_DATABASE": database,
            "LOAD_CACHE": cache,
            "LOAD_TTL": str(ttl),
            "PYTHONPATH": os.pathsep.join([str(root), str(HERE)]),
        }
        self._serving = ExitStack()
        stack.callback(self.authserver_stops)
        self.authserver_starts()
        self.rotate()
        self.site = Site(command, self.environment)
        stack.callback(self.site.stop)
        self.site.started()
        url = f"http://127.0.0.1:{self.site.port}{JWKS}"
        self.authserver.add_client("site", jwks_uri=url)
        self.tokens = {
            "known": self.issue(),
            "revoked": self.issue(),
            "expired": self.issue(lifetime=-60),
            "forged": "f" * 43,
            "for-another": self.issue(aud=["somebody-else"]),
            "of-another-client": self.issue(client_id="another"),
            "malformed": "m@lformed",
        }
        self.authserver.revoke_token(self.tokens["revoked"])
        self.tokens["revoked-later"] = self.tokens["revoked"]

    def issue(self, **options: Any) -> str:
        return self.authserver.issue_token(sub="user", scope="read", **options)

    def token(self, kind: str) -> str | None:
        return self.issue() if kind == "new" else self.tokens.get(kind)

    def authserver_starts(self) -> None:
        self._serving.enter_context(self.authserver.serve(self.port))

    def authserver_stops(self) -> None:
        self._serving.close()

    def rotate(self, *options: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "django", "rotate_keys", "--format=json", *options],
            cwd=HERE,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def well(self) -> None:
        """Wait until good tokens are accepted by every process, as they are without faults."""
        row = 0
        end = time.monotonic() + PATIENCE
        while row < 8:
            row = row + 1 if self.site.ask("/sync", self.issue()) == 200 else 0
            assert time.monotonic() < end, "It took too long until the site was well again."

    def storm(self, cycles: int, number: int) -> Load:
        """Have callers ask, ``number`` times at least in each state that the world is in."""
        with Load(self.site, self.token) as load:
            load.see(number, 200)
            for _ in range(cycles):
                self.authserver_stops()
                load.see(number, 503)
                self.authserver_starts()
                load.see(number, 200)
                signs = self.rotate("--now", "--force")["signs"]
                load.see(number, 200)
                self.rotate("--emergency", f"--kid={signs}")
                load.see(number, 200)
        self.well()
        return load


def migrate(database: str) -> None:
    """Make the tables in the database at that URL."""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "settings", "DATABASE_URL": database}
    command = [sys.executable, "-m", "django", "migrate", "--verbosity=0"]
    subprocess.run(command, cwd=HERE, env=environment, check=True)


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a file of SQLite with the tables."""
    path: Path = tmp_path_factory.mktemp("load") / "keys.sqlite3"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give a database for the site: a file of SQLite, or the tests' own where it is another."""
    if connection.vendor == "sqlite":
        empty = request.getfixturevalue("empty_database")
        shutil.copy(empty, tmp_path / "keys.sqlite3")
        return f"sqlite:///{tmp_path}/keys.sqlite3"
    server = os.environ["DATABASE_URL"].rpartition("/")[0]
    return f"{server}/{connection.settings_dict['NAME']}"


def connections_of(site: Site) -> int:
    """Count the connections to its database."""
    if connection.vendor == "sqlite":
        return sum("keys.sqlite3" in each for each in site.descriptors())
    query = {
        "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()",
        "mysql": "SELECT count(*) FROM information_schema.processlist WHERE db = DATABASE()",
    }
    with connection.cursor() as cursor:
        cursor.execute(query[connection.vendor])
        return int(cursor.fetchone()[0]) - 1


@contextmanager
def world(command: Sequence[str], database: str, **options: Any) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(command, database, stack, **options)
