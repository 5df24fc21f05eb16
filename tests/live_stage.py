"""A whole system of processes on loopback: sites that share a ring, and authservers of others."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jwt
import pytest
import requests
from keys_stage import Project, database_of_the_tests
from loopback import Connection, Server, reply, running
from programs import Program

from django_baikal.keys.rotation import Timing

JWKS = "/.well-known/jwks.json"
METADATA = "/.well-known/openid-configuration"
ISSUER = "https://me.example.com/"
#: As short as a machine that is loaded can keep up with.
SHORT = Timing(
    assertion_lifetime=2,
    clock_skew=0,
    jwks_max_age=2,
    jwks_stale_if_error=0,
    process_cache_ttl=0.5,
    process_max_stale=0.5,
    replica_lag=0,
)


def just_long_enough(timing: Timing) -> Timing:
    """Give the shortest times that keep the rules."""
    propagation, retention = timing.shortest_propagation, ceil(timing.shortest_retention)
    every = propagation + retention
    found = replace(timing, propagation=propagation, retention=retention, rotate_every=every)
    assert not list(found.broken())
    return found


def project(path: Path, timing: Timing, authservers: Mapping[str, str]) -> Project:
    """Make a project with a ring of such times, and an alias for each authserver."""
    pytest.importorskip("gunicorn")
    times = {
        name.upper(): value
        for name, value in vars(timing).items()
        if name not in ("assertion_lifetime", "clock_skew")
    }
    aliases = {
        alias: {
            "AUTHSERVER_ENDPOINT": endpoint,
            "ISSUER": ISSUER,
            "ASSERTION_LIFETIME": timing.assertion_lifetime,
            "CLOCK_SKEW": timing.clock_skew,
        }
        for alias, endpoint in authservers.items()
    }
    return Project(
        path,
        database=database_of_the_tests(path),
        KEYS_OPTIONS=json.dumps(times),
        KEYS_ALIASES=json.dumps(aliases),
    )


def rotate(project: Project, *options: str, may: Sequence[int] = (0,)) -> dict[str, Any]:
    """Run ``rotate_keys`` as cron does; give what it reports, with its exit status."""
    status, printed, wrong = project("rotate_keys", "--format", "json", *options)
    assert status in may, (status, printed, wrong)
    return {**json.loads(printed), "status": status}


def until(condition: Callable[[], Any], *, seconds: float = 120, pause: float = 0.05) -> Any:
    """Wait until there is something, and give it; fail after so many seconds."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"It was not so within {seconds} s."
        time.sleep(pause)
    return found


def kid_of(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


class Authserver:
    """Grants a token for each assertion that ``accepts(assertion, audience)`` does.

    The token is the assertion. ``granted``: by which keys they were signed; ``refused``: likewise.
    """

    def __init__(self, accepts: Callable[[str, str], Any]) -> None:
        self.accepts = accepts
        self.granted: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self._lock = threading.Lock()

    def handle(self, connection: Connection) -> None:
        own = connection.server.url
        while raw := connection.request():
            status, found = "200 OK", {"issuer": own, "token_endpoint": f"{own}/token"}
            if raw.startswith(b"POST /token "):
                status, found = self._answer(raw.partition(b"\r\n\r\n")[2].decode(), own)
            body = json.dumps(found).encode()
            connection.send(reply(body, status=status, headers=("Content-Type: application/json",)))

    def _answer(self, form: str, own: str) -> tuple[str, dict[str, Any]]:
        (assertion,) = parse_qs(form)["assertion"]
        accepted = self.accepts(assertion, own)
        with self._lock:
            (self.granted if accepted else self.refused)[kid_of(assertion)] += 1
        if not accepted:
            return "400 Bad Request", {"error": "invalid_grant"}
        return "200 OK", {"access_token": assertion, "token_type": "Bearer", "expires_in": 60}

    @contextmanager
    def served(self) -> Iterator[Server]:
        with running(self.handle) as server:
            yield server


class Traffic:
    """Asks each site for a token of each alias, again and again, until its block is left."""

    def __init__(self, sites: Sequence[Program], aliases: Sequence[str], pause: float) -> None:
        self.urls = [f"{site.url}/grant/{alias}" for site in sites for alias in aliases]
        self.pause = pause
        self.ok = 0
        self.failures: list[str] = []
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(2)]

    def _run(self, number: int) -> None:
        while not self._stopping.wait(self.pause):
            number += 1
            try:
                # On a new connection: gunicorn ends one that was idle for 2 s, and it may do so
                # just when a machine that is loaded comes to the next request.
                answer = requests.get(self.urls[number % len(self.urls)], timeout=120)
            except requests.RequestException as error:
                self.failures.append(repr(error))
                continue
            if answer.status_code == 200:
                self.ok += 1
            else:
                self.failures.append(answer.text[:300])

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
