"""Many processes on one cache and one database, asked at a steady rate by a compiled program.

The authserver fails now and then, and our keys rotate in the middle. What is measured is printed
as a table at the end of the run.
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import pytest
from load_measured import (
    GROWTH,
    Asked,
    Asking,
    Counts,
    Faults,
    Size,
    needs_wrk,
    quarters,
    seconds_of,
    size_of,
    wrk,
    wrong,
)
from load_stage import JWKS, MANY, PATIENCE, POOLED, World, migrate, until, world
from operations_stage import postgresql, redis_server

#: How many connections to a site there are, for callers who are known and for all others: fewer
#: than it has threads, for the authserver asks it for its keys while it waits for the answer.
WARM, OTHERS = 16, 8
#: Who the others are: the authserver is asked about every second one of them, the new and forged.
MIX = [*["new"] * 4, "forged", "revoked", "expired", "for-another", "none", "keys"]
#: How many tokens are known. With INTROSPECTION_TTL, few enough for 99 of 100 requests with one of
#: them to cause no question.
KNOWN, TTL = 10, 60


class Services:
    """A Redis and a PostgreSQL of the test's own: nobody else's operations are counted."""

    def __init__(self, stack: ExitStack) -> None:
        cache, database = redis_server(), postgresql(stack)
        import psycopg
        import redis

        for server in (cache, database):
            server.start()
            stack.callback(server.stop)
        self.cache = f"redis://127.0.0.1:{cache.port}/0"
        self.database = f"postgres://postgres@127.0.0.1:{database.port}/postgres"
        migrate(self.database)
        self._redis = stack.enter_context(redis.Redis.from_url(self.cache))
        self._postgresql = stack.enter_context(psycopg.connect(self.database, autocommit=True))

    def operations(self) -> int:
        """Count what the cache was asked to do so far."""
        found = self._redis.info("commandstats")
        return sum(
            found.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("get", "set", "del")
        )

    def entries(self) -> tuple[int, float]:
        """Count what is in the cache; give the bytes that an entry takes there, on average."""
        sizes = [self._redis.memory_usage(key) for key in self._redis.scan_iter(count=1000)]
        found = [size for size in sizes if size]  # some have just ended
        return len(found), sum(found) / max(len(found), 1)

    def connections(self) -> tuple[int, int]:
        """Count the connections to the cache and to the database, but for the test's own."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        (number,) = self._postgresql.execute(query).fetchone() or (0,)
        return self._redis.info("clients")["connected_clients"] - 1, number - 1


def others(made: World, number: int) -> list[Asking]:
    """Make requests of all kinds but the known; each new and each forged token is another one."""
    found = []
    for kind, path in zip(
        itertools.islice(itertools.cycle(MIX), number),
        itertools.cycle(["/sync", "/sync", "/async", "/async"]),
        strict=False,
    ):
        token = secrets.token_urlsafe(32) if kind == "forged" else made.token(kind)
        found.append(Asking(kind, JWKS if kind == "keys" else path, token))
    return found


def connections_to(port: int) -> int:
    """Count the connections that are open to a port of this machine."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    ends = [(line.split()[2], line.split()[3]) for line in lines]
    return sum(remote.endswith(f":{port:04X}") and state == "01" for remote, state in ends)


def signed_by(question: Any) -> str:
    """Give the key by which a question to the authserver shows who asks."""
    return str(jwt.get_unverified_header(question.form["client_assertion"])["kid"])


def asked_by(made: World) -> str:
    """Have the site ask the authserver; give the key by which it did."""
    assert made.site.ask("/sync", made.issue()) == 200
    return signed_by(made.authserver.requests.to("introspection")[-1])


@dataclass
class Run:
    """What was seen in ``seconds``; ``spent``: the site's processor time in it, in seconds.

    ``alone``: callers who are known, before there were others; ``each``: processor time of one.
    """

    services: Services
    made: World
    faults: Faults
    seconds: float
    alone: Asked = field(default_factory=Asked)
    known: Asked = field(default_factory=Asked)
    others: Asked = field(default_factory=Asked)
    each: float = 0
    spent: float = 0
    operations: int = 0
    sizes: list[Size] = field(default_factory=list)
    #: Our keys: the one that signed at first, and the one that took over.
    first: str = ""
    second: str = ""

    def ask(self, scale: Callable[[Any, Any], Any]) -> None:
        """Let all ask for so long; in the middle our keys rotate."""
        site, made, rates = self.made.site, self.made, scale((40, 20), (100, 40))
        known = [Asking("known", "/sync", made.issue()) for _ in range(KNOWN)]
        assert {site.ask(each.path, each.token) for each in known} == {200}
        mixed = others(made, int(rates[1] * self.seconds))
        self.first = made.rotate()["signs"]
        spent = seconds_of(site)
        with wrk(site, known, connections=WARM, rate=rates[0]) as self.alone:
            time.sleep(scale(2, 30))
        self.each = (seconds_of(site) - spent) / max(self.alone.counts.total(), 1)
        self.faults.authserver = made.authserver
        operations, spent, begun = self.services.operations(), seconds_of(site), time.monotonic()
        with (
            wrk(site, known, connections=WARM, rate=rates[0]) as self.known,
            wrk(site, mixed, connections=OTHERS, rate=rates[1]) as self.others,
        ):
            passed = 0.0
            while passed < self.seconds or not self.faults.made or not self.second:
                passed = time.monotonic() - begun
                assert passed < self.seconds + PATIENCE
                time.sleep(min(1.0, self.seconds / 16))
                self.sizes.append(size_of(site))
                if passed > self.seconds / 2 and not self.second:
                    self.second = made.rotate("--now", "--force")["signs"]
        self.seconds = time.monotonic() - begun
        self.faults.authserver = None
        self.operations = self.services.operations() - operations
        self.spent = seconds_of(site) - spent

    @property
    def counts(self) -> Counts:
        return self.known.counts + self.others.counts

    @property
    def statuses(self) -> Counter[int]:
        found = Counter[int]()
        for (_, status), number in self.counts.items():
            found[status] += number
        return found

    def table(self) -> str:
        total, errors = self.counts.total(), self.known.errors + self.others.errors
        rest = self.spent - self.each * self.known.counts.total()
        other = rest / max(self.others.counts.total(), 1)
        early, late = quarters(self.sizes)
        statuses = sorted(self.statuses.items())
        rows = [
            ("requests", f"{total} in {self.seconds:.0f} s, {total / self.seconds:.0f} a second"),
            ("answers", ", ".join(f"{number} x {status}" for status, number in statuses)),
            ("wrong answers", str(sum(wrong(self.counts).values()) + errors)),
            ("questions", f"{self.faults.questions}, of which {self.faults.made} failed"),
            ("known tokens before all others", str(self.alone)),
            ("known tokens", str(self.known)),
            ("all others", str(self.others)),
            ("processor time of a known token", f"{1000 * self.each:.2f} ms"),
            ("processor time of any other", f"{1000 * other:.2f} ms"),
            ("operations of the cache", f"{self.operations / total:.2f} a request"),
            ("entries of the cache", "{}, of {:.0f} bytes".format(*self.services.entries())),
            ("connections to the cache", str(self.services.connections()[0])),
            ("connections to the authserver", str(connections_to(self.made.port))),
            ("memory of all processes", f"{early.memory:.1f} MiB, later {late.memory:.1f} MiB"),
            ("descriptors", f"{early.descriptors:.0f}, later {late.descriptors:.0f}"),
        ]
        return "\n".join(f"{name:34}{value}" for name, value in rows)


@pytest.mark.slow
@pytest.mark.programs
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read in /proc")
@pytest.mark.parametrize("name", MANY)
def test_many_processes_answer_right_at_a_steady_rate(
    name: str,
    scale: Callable[[Any, Any], Any],
    record_property: Callable[[str, str], None],
) -> None:
    needs_wrk()
    pytest.importorskip(name)
    # One answer of the authserver in a hundred fails; in a few seconds there are not so many.
    faults = Faults(scale(20, 100))
    with ExitStack() as stack:
        services = Services(stack)
        options: dict[str, Any] = {"cache": services.cache, "ttl": TTL, "on_request": faults}
        made = stack.enter_context(world(MANY[name], services.database, **options))
        made.well()
        before = made.site.processes()
        run = Run(services, made, faults, scale(8, 300))
        run.ask(scale)
        record_property("table", f"{name}\n{run.table()}")

        told = "".join(made.site.told)
        assert wrong(run.counts) == {}, told
        assert (run.known.errors, run.others.errors) == (0, 0)
        assert "Traceback" not in told, told
        assert {kind for kind, _ in run.counts} == {"known", *MIX}
        # Whoever asked together with another one is told the same.
        assert run.statuses[503] <= faults.made * (WARM + OTHERS), run.table()

        # The authserver knew our key each time, and the new one came into use.
        questions = made.authserver.requests.to("introspection")
        assert {each.error for each in questions if not each.fault} == {None}
        assert {signed_by(each) for each in questions} <= {run.first, run.second}
        until(lambda: asked_by(made) == run.second, "the new key signs")

        assert made.site.processes() == before
        early, late = quarters(run.sizes)
        # A few seconds are the time in which a server comes to its size.
        assert late.memory - early.memory < scale(10 * GROWTH, GROWTH), run.table()
        assert late.descriptors - early.descriptors <= scale(2 * POOLED, POOLED), run.table()
        until(lambda: services.connections()[1] == 0, "no connection to the database is left")
