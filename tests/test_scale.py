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
from pathlib import Path
from typing import Any

import jwt
import pytest
from load_measured import (
    GROWTH,
    Asking,
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
#: Who the others are.
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
    seconds, warm_rate, others_rate = scale(8, 300), scale(40, 100), scale(20, 40)
    # One answer of the authserver in a hundred fails; in a few seconds there are not so many.
    faults, sizes = Faults(scale(20, 100)), list[Size]()
    with ExitStack() as stack:
        services = Services(stack)
        options: dict[str, Any] = {"cache": services.cache, "ttl": TTL, "on_request": faults}
        made = stack.enter_context(world(MANY[name], services.database, **options))
        made.well()
        site, before = made.site, made.site.processes()
        known = [Asking("known", "/sync", made.issue()) for _ in range(KNOWN)]
        assert {site.ask(each.path, each.token) for each in known} == {200}
        mixed = others(made, others_rate * seconds)
        first, rotated = made.rotate()["signs"], None
        faults.authserver = made.authserver
        spent = seconds_of(site)
        with wrk(site, known, connections=WARM, rate=warm_rate) as alone:
            time.sleep(scale(2, 30))
        each_known = (seconds_of(site) - spent) / max(alone.counts.total(), 1)
        operations, spent, begun = services.operations(), seconds_of(site), time.monotonic()
        with (
            wrk(site, known, connections=WARM, rate=warm_rate) as warm,
            wrk(site, mixed, connections=OTHERS, rate=others_rate) as other,
        ):
            passed = 0.0
            while passed < seconds or not faults.made or rotated is None:
                passed = time.monotonic() - begun
                assert passed < seconds + PATIENCE
                time.sleep(min(1.0, seconds / 16))
                sizes.append(size_of(site))
                if passed > seconds / 2 and rotated is None:
                    rotated = made.rotate("--now", "--force")["signs"]
        elapsed = time.monotonic() - begun
        faults.authserver = None
        operations, spent = services.operations() - operations, seconds_of(site) - spent
        counts, asked = warm.counts + other.counts, faults.questions
        each_other = (spent - each_known * warm.counts.total()) / max(other.counts.total(), 1)
        (memory, files), (memory_end, files_end) = quarters(sizes)
        by_status = Counter[int]()
        for (_, status), number in counts.items():
            by_status[status] += number
        total = counts.total()
        rows = [
            ("requests", f"{total} in {elapsed:.0f} s, {total / elapsed:.0f} a second"),
            ("answers", ", ".join(f"{n} x {status}" for status, n in sorted(by_status.items()))),
            ("wrong answers", str(sum(wrong(counts).values()) + warm.errors + other.errors)),
            ("questions to the authserver", f"{asked}, of which {faults.made} failed"),
            ("a known token, nothing else, by wrk", str(alone)),
            ("a known token, by wrk", str(warm)),
            ("any other request, by wrk", str(other)),
            ("processor time of a known token", f"{1000 * each_known:.2f} ms"),
            ("processor time of any other", f"{1000 * each_other:.2f} ms"),
            ("operations of the cache", f"{operations / total:.2f} a request"),
            ("entries of the cache", "{}, of {:.0f} bytes".format(*services.entries())),
            ("connections to the cache", str(services.connections()[0])),
            ("connections to the authserver", str(connections_to(made.port))),
            ("memory of all processes", f"{memory:.1f} MiB, at the end {memory_end:.1f} MiB"),
            ("descriptors", f"{files:.0f}, at the end {files_end:.0f}"),
        ]
        table = "\n".join(f"{name:36}{value}" for name, value in rows)
        record_property("table", f"{name}\n{table}")

        told = "".join(site.told)
        assert wrong(counts) == {}, told
        assert (warm.errors, other.errors) == (0, 0)
        assert "Traceback" not in told, told
        assert {kind for kind, _ in counts} == {"known", *MIX}
        # Whoever asked together with another one is told the same.
        assert by_status[503] <= faults.made * (WARM + OTHERS), table

        # The authserver knew our key each time, and the new one came into use.
        questions = made.authserver.requests.to("introspection")
        assert {each.error for each in questions if not each.fault} == {None}
        assert {signed_by(each) for each in questions} <= {first, rotated}
        until(lambda: asked_by(made) == rotated, "the new key signs")

        assert site.processes() == before
        # A few seconds are the time in which a server comes to its size.
        assert memory_end - memory < scale(10 * GROWTH, GROWTH), table
        assert files_end - files <= POOLED, table
        until(lambda: services.connections()[1] == 0, "no connection to the database is left")
