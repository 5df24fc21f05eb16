"""Hours in minutes: a steady rate of requests, an authserver that fails now and then, a rotation.

What is measured is printed as a table at the end of the run.
"""

from __future__ import annotations

import http.client
import itertools
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from load_measured import GROWTH, Faults, Size, quarters, size_of, wrong
from load_stage import (  # noqa: F401 - some are fixtures
    COMMANDS,
    JWKS,
    PATIENCE,
    POOLED,
    World,
    bearer,
    database,
    empty_database,
    world,
)

from django_baikal import OpenIDClient
from django_baikal.keys import load_key
from django_baikal.keys.generate import generate_key, private_pem

#: Who asks, of 20 requests: mostly tokens that are known, as it is with real callers.
MIX = [*["known"] * 12, *["new"] * 3, "revoked", "expired", "forged", "none", "keys"]
#: Of a hundred answers of the authserver one is a 500, and one breaks off in the middle.
EVERY = 50
THREADS = 8


@dataclass
class Report:
    """``waits``: seconds, of known tokens; ``sizes``: over time."""

    counts: Counter[tuple[str, int]] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)
    sizes: list[Size] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    questions: int = 0
    faults: int = 0

    def complete(self) -> bool:
        """Tell whether there are quarters, and an answer to each kind of token."""
        return len(self.sizes) >= 8 and {kind for kind, _ in [*self.counts]} == {*MIX}

    def table(self, seconds: float) -> str:
        total = sum(self.counts.values())
        (memory, files), (memory_end, files_end) = quarters(self.sizes)
        cuts = statistics.quantiles(self.waits, n=100)
        by_status = Counter[int]()
        for (_, status), number in self.counts.items():
            by_status[status] += number
        rows = [
            ("requests", f"{total} in {seconds:.0f} s, {total / seconds:.0f} a second"),
            ("answers", ", ".join(f"{n} x {status}" for status, n in sorted(by_status.items()))),
            ("wrong answers", str(sum(wrong(self.counts).values()) + len(self.problems))),
            ("questions to the authserver", f"{self.questions}, of which {self.faults} failed"),
            ("a known token, as the caller waits", f"p50 {cuts[49]:.4f} s, p99 {cuts[98]:.4f} s"),
            ("memory of all processes", f"{memory:.1f} MiB, at the end {memory_end:.1f} MiB"),
            ("descriptors", f"{files:.0f}, at the end {files_end:.0f}"),
        ]
        return "\n".join(f"{name:36}{value}" for name, value in rows)


class Pace:
    """Callers that ask at a steady rate, each on a connection that it keeps."""

    def __init__(self, made: World, report: Report, rate: float) -> None:
        self.made, self.report = made, report
        self.pause = THREADS / rate
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(number,)) for number in range(THREADS)
        ]

    def __enter__(self) -> Pace:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        kinds = itertools.islice(itertools.cycle(MIX), number * 7, None)
        connection = None
        due = time.monotonic() + number * self.pause / THREADS
        for kind, path in zip(kinds, itertools.cycle(["/sync", "/async"]), strict=False):
            # A machine that is too slow has fewer requests, and not all of them at once later.
            due = max(due + self.pause, time.monotonic())
            if self._stop.wait(due - time.monotonic()):
                break
            token = self.made.token(kind)
            headers = {} if token is None else bearer(token)
            begun = time.monotonic()
            try:
                if connection is None:
                    port = self.made.site.port
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
                connection.request("GET", JWKS if kind == "keys" else path, headers=headers)
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException) as error:
                if connection is not None:
                    connection.close()
                connection = None
                if not isinstance(error, ConnectionResetError | BrokenPipeError):
                    self.report.problems.append(f"{kind}: {error!r}")
                continue  # a server may close a connection that was idle
            with self._lock:
                self.report.counts[kind, response.status] += 1
                if kind == "known":
                    self.report.waits.append(time.monotonic() - begun)
        if connection is not None:
            connection.close()


@pytest.mark.slow
@pytest.mark.programs
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read in /proc")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", ["gunicorn-preload", "uvicorn"])
def test_fault_17_a_long_day_leaves_no_trace(
    name: str,
    database: str,  # noqa: F811 - the fixture
    scale: Callable[[Any, Any], Any],
    record_property: Callable[[str, str], None],
) -> None:
    seconds, rate = scale(8, 600), scale(50, 200)
    faults, report = Faults(EVERY), Report()
    with world(COMMANDS[name], database, ttl=5, on_request=faults) as made:
        made.well()
        faults.authserver = made.authserver
        begun = time.monotonic()
        with Pace(made, report, rate):
            rotated = False
            # Longer on a machine that is slow.
            while (passed := time.monotonic() - begun) < seconds or not (
                rotated and report.complete()
            ):
                assert passed < seconds + 4 * PATIENCE, report.counts
                time.sleep(min(1.0, seconds / 16))
                report.sizes.append(size_of(made.site))
                if passed > seconds / 2 and not rotated:
                    made.rotate("--now", "--force")
                    rotated = True
        elapsed = time.monotonic() - begun
        report.questions, report.faults = faults.questions, faults.made
        record_property("table", f"{name}\n{report.table(elapsed)}")
        told = "".join(made.site.told)

    assert wrong(report.counts) == {}, told
    assert report.problems == []
    assert "Traceback" not in told, told
    assert rotated
    assert {kind for kind, _ in report.counts} == {*MIX}
    (memory, files), (memory_end, files_end) = quarters(report.sizes)
    # A few seconds are the time in which a server comes to its size.
    assert memory_end - memory < scale(10 * GROWTH, GROWTH), report.table(elapsed)
    assert files_end - files <= POOLED, report.table(elapsed)
    failed = sum(number for (_, status), number in report.counts.items() if status == 503)
    # Whoever asked together with another one is told the same.
    assert failed <= 2 + faults.made * THREADS, report.table(elapsed)
    assert not scale(False, True) or report.faults > 0


@pytest.mark.slow
def test_fault_21_keys_are_replaced_while_they_are_served(
    tmp_path: Path, scale: Callable[[Any, Any], Any]
) -> None:
    """Many files, and each is whole at any time: the old one or the new one, and never none."""
    number = scale(40, 1000)
    # Beside the directory: what is written there would be a key of its own for a moment.
    (directory := tmp_path / "keys").mkdir()
    pems = [[private_pem(generate_key("ES256")) for _ in range(number)] for _ in range(2)]
    for at, pem in enumerate(pems[0]):
        (directory / f"{at:05}.pem").write_text(pem)
    client = OpenIDClient(
        "https://authserver.test",
        "client",
        "secret",
        issuer="https://me.example.com",
        private_certs_path=str(directory),
    )
    kids = [[load_key(pem).kid for pem in half] for half in pems]
    done, problems, seen = threading.Event(), [], Counter[bool]()

    def read() -> None:
        while not done.is_set():
            found = [jwk["kid"] for jwk in client.get_jwk_set(dump_json=False)["keys"]]
            # By name, the last one first; each is of one half or of the other.
            places = zip(reversed(found), *kids, strict=False)
            if len(found) != number or any(kid not in (a, b) for kid, a, b in places):
                problems.append(found)
            seen[found[0] in (kids[0][-1], kids[1][-1])] += 1

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(1, scale(4, 6)):
            for at, pem in enumerate(pems[turn % 2]):
                (tmp_path / "new").write_text(pem)
                (tmp_path / "new").replace(directory / f"{at:05}.pem")
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert problems == []
    assert seen[True] > 0
    assert seen[False] == 0
    last = kids[(scale(4, 6) - 1) % 2]
    assert [jwk["kid"] for jwk in client.get_jwk_set(dump_json=False)["keys"]] == last[::-1]
