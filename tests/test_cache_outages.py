"""A real Redis that is full, and one that is stopped and started while tokens are checked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from operations_stage import Server, redis_server

import django_baikal
from django_baikal.testing import FakeAuthserver

pytestmark = pytest.mark.programs

#: A process of its own: Django keeps connections to Redis for as long as a thread lives.
PROGRAM = """
import asyncio, json, sys, threading
from collections import Counter
from django.conf import settings

redis, entry, tokens = json.loads(sys.argv[1])
backend = "django.core.cache.backends.redis.RedisCache"
settings.configure(
    SECRET_KEY="x" * 50,
    # What this process knows by itself would hide what the cache does.
    BAIKAL={
        "default": {
            **entry, "PROCESS_TTL": 0, "INTROSPECTION_TTL": 1, "INTROSPECTION_NEGATIVE_TTL": 1
        }
    },
    CACHES={"default": {"BACKEND": backend, "LOCATION": redis}},
)
from django_baikal import BaikalError, clients

client, counts, lock, stop = clients["default"], Counter(), threading.Lock(), threading.Event()


def ask(name, asynchronous):
    while not stop.is_set():
        try:
            if asynchronous:
                said = asyncio.run(client.aauthenticate(tokens[name])).subject
            else:
                said = client.authenticate(tokens[name]).subject
        except BaikalError as error:
            said = error.code
        with lock:
            counts[f"{name}: {said}"] += 1


asking = [
    threading.Thread(target=ask, args=(name, asynchronous))
    for name in tokens
    for asynchronous in (False, True)
]
for thread in asking:
    thread.start()
for line in sys.stdin:
    # As many more answers, and then a line about all of them.
    enough = counts.total() + int(line)
    while counts.total() < enough and any(thread.is_alive() for thread in asking):
        stop.wait(0.01)
    with lock:
        print(json.dumps(counts), flush=True)
stop.set()
for thread in asking:
    thread.join()
"""


class Asking:
    """A process that goes on asking whether each of some tokens is good."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def go_on(self, answers: int = 60) -> dict[str, int]:
        """Wait for so many more answers; give how often each was given, from the beginning."""
        assert self._process.stdin
        assert self._process.stdout
        print(answers, file=self._process.stdin, flush=True)
        counts: dict[str, int] = json.loads(self._process.stdout.readline())
        return counts


@contextmanager
def asking(redis: Server, authserver: FakeAuthserver, **tokens: str) -> Iterator[Asking]:
    location = f"redis://127.0.0.1:{redis.port}/0"
    given = json.dumps(
        [location, authserver.settings(TIMEOUT=60, INTROSPECTION_TIMEOUT=60), tokens]
    )
    root = str(Path(django_baikal.__file__).resolve().parent.parent)
    environment = {**os.environ, "PYTHONPATH": root}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-c", PROGRAM, given]
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
        yield Asking(process)
    assert process.returncode == 0


def fill(server: Server) -> None:
    """Let others have taken all the memory; nothing is evicted, and what is new is refused."""
    import redis

    connection = redis.Redis(port=int(server.port))
    connection.set("others", b"x" * 3_000_000)
    connection.config_set("maxmemory-policy", "noeviction")
    connection.config_set("maxmemory", 1_000_000)
    with pytest.raises(redis.exceptions.ResponseError):
        connection.set("new", b"x")
    connection.close()


def test_a_full_cache_lets_each_question_be_asked_and_nobody_else_in() -> None:
    redis = redis_server()
    redis.start()
    try:
        with FakeAuthserver().serve() as authserver:
            good = authserver.issue_token(sub="anna")
            fill(redis)
            with asking(redis, authserver, good=good, bad="unknown") as process:
                counts = process.go_on()
                assert set(counts) == {"good: anna", "bad: inactive_token"}
                # With a cache that keeps something, there were one or two in a second.
                assert authserver.requests.count("introspection") > 10
                authserver.revoke_token(good)
                process.go_on(10)  # what was on its way
                counts = process.go_on()
                assert process.go_on()["good: anna"] == counts["good: anna"]
    finally:
        redis.stop()


def test_a_cache_that_goes_away_and_comes_back_changes_no_answer() -> None:
    redis = redis_server()
    redis.start()
    try:
        with FakeAuthserver().serve() as authserver:
            good = authserver.issue_token(sub="anna")
            with asking(redis, authserver, good=good, bad="unknown") as process:
                process.go_on()
                for _ in range(2):
                    redis.stop()
                    asked = authserver.requests.count("introspection")
                    process.go_on()
                    assert authserver.requests.count("introspection") > asked
                    redis.start()
                    process.go_on()
                assert set(process.go_on()) == {"good: anna", "bad: inactive_token"}
    finally:
        redis.stop()
