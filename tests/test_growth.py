"""The script that shows how costs grow runs at a small scale; what it finds is looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

pytestmark = pytest.mark.programs

SCRIPT = ROOT / "benchmarks" / "growth.py"
NOBODY = "redis://127.0.0.1:1/0"
REDIS = "redis://127.0.0.1:6379/13"
#: Thing -> what its table has beside the sizes; "processes" and some columns need a Redis.
COLUMNS = {
    "ring": {"first hit", "first signature", "JWKS view, again", "signature, again"},
    "jwks": {"first of all", "a new token", "the same token"},
    "tokens": {"when it was new", "memory here, MiB", "the same token", "one after the other"},
    "threads": {
        "discoveries",
        "introspections of one new token",
        "requests for one token",
        "a known token",
        "a cached token",
        "a signature",
    },
    "aliases": {
        "first use of an alias",
        "memory of all, MiB",
        "`clients[alias]`",
        "a known token",
        "the same, each alias in turn",
    },
    "scopes": {"a new token", "a known token", "a known token, with the decorator"},
}


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def found(tmp_path: Path, *arguments: str) -> tuple[Any, subprocess.CompletedProcess[str]]:
    file = tmp_path / "found.json"
    done = run("--quick", "--json", file, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text("utf-8")), done


def test_without_the_library_of_redis_the_cache_is_in_local_memory(tmp_path: Path) -> None:
    (tmp_path / "redis.py").write_text("raise ImportError", "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        told, done = found(tmp_path, "--sizes", "1", "--only", "scopes")
    assert told["cache"] == "local memory"
    assert "There is no Redis at redis://127.0.0.1:6379/14 (ImportError)" in done.stderr


def test_each_thing_grows_and_is_shown(tmp_path: Path) -> None:
    told, done = found(tmp_path, "--sizes", "1,2", "--redis", NOBODY)
    assert told["cache"] == "local memory"
    assert {thing: {*each["2"]} for thing, each in told["found"].items()} == COLUMNS
    assert "processes: they need a Redis" in done.stderr
    numbers = [n for each in told["found"].values() for row in each.values() for n in row.values()]
    assert all(isinstance(one, int | float) for several in numbers for one in several)
    tables = done.stdout.split("\n\n")
    assert len(tables) == len(COLUMNS) + 1
    heads = [[cell.strip() for cell in table.splitlines()[0].split("|")[2:-1]] for table in tables]
    assert [{*head} for head in heads[:-1]] == [*COLUMNS.values()]
    assert tables[-1].startswith("Measured on ")


def test_processes_share_what_one_has_asked(tmp_path: Path) -> None:
    redis = pytest.importorskip("redis", reason="the redis library is not installed")
    server = redis.Redis.from_url(REDIS)
    try:
        server.ping()
    except redis.exceptions.ConnectionError:
        server.close()
        pytest.skip("no Redis at 127.0.0.1:6379")
    wanted = ("--only", "processes", "--only", "tokens", "--sizes", "1,3", "--redis", REDIS)
    told, _ = found(tmp_path, *wanted)
    asked = [told["found"]["processes"][size] for size in "13"]
    assert [each["introspections of 10 new tokens"] for each in asked] == [[10], [10]]
    assert [each["requests for one token"] for each in asked] == [[1], [1]]
    assert "memory in Redis, MiB" in told["found"]["tokens"]["3"]
    left = [*server.scan_iter(f"{told['prefix']}*")]
    server.close()
    assert left == []


def test_a_set_of_too_many_keys_is_shown_as_refused(tmp_path: Path) -> None:
    told, _ = found(tmp_path, "--only", "jwks", "--sizes", "101", "--redis", NOBODY)
    assert told["found"]["jwks"]["101"] == {"first of all": ["refused: invalid_jwks"]}


def test_what_cannot_be_measured_is_told() -> None:
    done = run("--quick", "--only", "threads", "--sizes", "0", "--redis", NOBODY)
    assert done.returncode == 1
    assert "threads: 0 could not be measured, see above." in done.stderr
