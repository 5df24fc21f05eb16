"""What is measured of a site under load: answers by ``wrk``, faults, memory and descriptors."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from load_stage import ALLOWED, HERE, Site

#: How much more memory all processes of a site may take after the first quarter, in MiB.
GROWTH = 24

Counts = Counter[tuple[str, int]]


class Asking(NamedTuple):
    """A request of a kind."""

    kind: str
    path: str
    token: str | None


@dataclass
class Asked:
    """How often each kind of request was answered with which status; ``p99`` and so on: seconds."""

    counts: Counts = field(default_factory=Counter)
    errors: int = 0
    p50: float = math.nan
    p99: float = math.nan
    longest: float = math.nan

    def __str__(self) -> str:
        return f"p50 {self.p50:.4f} s, p99 {self.p99:.4f} s, at most {self.longest:.4f} s"


def needs_wrk() -> None:
    """Skip where ``wrk`` is not installed."""
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")


@contextmanager
def wrk(
    site: Site, requests: Sequence[Asking], *, connections: int, rate: float = math.inf
) -> Iterator[Asked]:
    """Let ``wrk`` make these requests, again and again; give what it was answered, at the end.

    ``rate``: how many in a second, about. wrk has no such option, and Debian no wrk2, which has:
    each connection rests before each request for as long as the rate and their number demand, if
    answers took no time. So a site that is slow is asked less often, and not by a crowd later; how
    long it takes for an answer is counted without the rest.
    """
    asked = Asked()
    repeated = [*requests] * math.ceil(connections / len(requests))
    with tempfile.NamedTemporaryFile("w", suffix=".requests") as file:
        file.writelines(f"{kind} {path} {token or ''}\n" for kind, path, token in repeated)
        file.flush()
        command = ["wrk", f"--threads={connections}", f"--connections={connections}"]
        command += ["--duration=1h", "--timeout=60s"]
        command += ["--script", str(HERE / "others" / "statuses.lua")]
        command += [f"http://127.0.0.1:{site.port}", "--"]
        command += [file.name, str(connections), str(1000 * connections / rate)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield asked
            finally:
                process.send_signal(signal.SIGINT)
                printed, _ = process.communicate()
    found = json.loads(printed.splitlines()[-1])
    for name, number in found["counts"].items():
        kind, status = name.split()
        asked.counts[kind, int(status)] = number
    asked.errors = found["errors"]
    asked.p50, asked.p99, asked.longest = (found[name] / 1e6 for name in ("p50", "p99", "max"))


def wrong(counts: Counts) -> dict[tuple[str, int], int]:
    """Give the answers that must not be given to those who got them."""
    return {
        (kind, status): number
        for (kind, status), number in counts.items()
        if status not in ALLOWED[kind]
    }


class Faults:
    """Lets each ``every``-th question to the authserver fail: by a 500, or a broken answer."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.questions = self.made = 0
        self.authserver: Any = None
        self._lock = threading.Lock()

    def __call__(self, request: Any) -> None:
        if request.endpoint != "introspection":
            return
        with self._lock:
            self.questions += 1
            turn, rest = divmod(self.questions, self.every)
        if rest == 0 and self.authserver is not None:
            self.made += 1
            kind: dict[str, Any] = {"status": 500} if turn % 2 else {"garbage": "truncated"}
            self.authserver.fail("introspection", times=1, **kind)


class Size(NamedTuple):
    """What all processes of a site have: memory to themselves (MiB), and descriptors."""

    memory: float
    descriptors: float


def size_of(site: Site) -> Size:
    kilobytes = 0
    for pid in site.processes():
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                kilobytes += int(line.split()[1])
    return Size(kilobytes / 1024, len(site.descriptors()))


def seconds_of(site: Site) -> float:
    """Give the processor time that all processes of a site have spent, in seconds."""
    ticks = 0
    for pid in site.processes():
        # The name of the program, in parentheses, may have spaces in it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # utime and stime
    return ticks / os.sysconf("SC_CLK_TCK")


def quarters(sizes: Sequence[Size]) -> tuple[Size, Size]:
    """Give the medians of the second quarter of a run, and of the last."""
    length = len(sizes) // 4
    parts = sizes[length : 2 * length], sizes[-length:]
    first, last = (Size(*map(statistics.median, zip(*part, strict=True))) for part in parts)
    return first, last
