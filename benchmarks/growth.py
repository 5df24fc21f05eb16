"""How the cost of a call of django-baikal grows: with keys, tokens, threads, processes, and more.

    python benchmarks/growth.py [--quick] [--only THING] [--json FILE]

Prints a Markdown table for each thing that grows, with a line for each size. Each size has a
process of its own (`growing.py`), and all sizes of a thing are measured in turn, round after round;
what is shown is the CPU time of one call, the least of the rounds, unless the column says
otherwise: ``first ...`` was measured once or a few times while the process was prepared, counts and
memory are what they are. Only the figures of one table may be compared, and none with another
machine's.

- ``ring``: keys of ours in the database, of which one signs, ES256. What the JWKS view and a
  signature cost the first time, when the ring is read, and then. By the rules of rotation there
  are three at a time, or a few more.
- ``jwks``: keys in the JWK Set of an authserver whose JWTs (ES256) are verified here. A set of
  more than 100 keys is refused, whoever sends it.
- ``tokens``: distinct tokens that were introspected and are in the shared cache; the same one again
  and again, and one after the other, which no small memory helps with.
- ``threads``: of one process; how long they wait for each other is not in the CPU time, except for
  what the waiting itself costs. One thousand that call at once is more than a server should have.
- ``processes``: forked on this machine, as gunicorn does with preload_app, over one Redis and one
  authserver, with the requests that they send to that, all together. Each begins a fiftieth of a
  second after the one before. Not 1 000: so many at work on a few CPUs measure the scheduler, and
  what all share is asked no more often than by a hundred.
- ``aliases``: entries of ``BAIKAL``, each used.
- ``scopes``: of one token, and of a view that asks for one of them.

The authserver is in the process itself and answers from bytes made beforehand, but for
``processes``, which ask that of `loopback.py`. The cache is the Redis at ``--redis`` if it answers,
else Django's in local memory without a limit, and then there are no ``processes``. What is written
to the Redis has a prefix of its own, and is deleted at the end. A full run takes about a quarter of
an hour, most of it for the million tokens.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import Parser, authserver, outer_environment
from environments import HERE, NotMeasuredError, about, say
from table import show

#: How long a case is run in a round, in seconds, and how many rounds there are.
SECONDS, ROUNDS = 0.2, 7
QUICK_SECONDS, QUICK_ROUNDS = 0.05, 3


@dataclass(frozen=True)
class Thing:
    """What grows; ``head``: of the column of sizes."""

    head: str
    sizes: tuple[int, ...]
    quick: tuple[int, ...] = (1, 10, 100)


THINGS = {
    "ring": Thing("published keys of ours", (1, 10, 100, 1000)),
    "jwks": Thing("keys of the authserver", (1, 10, 100, 1000)),
    "tokens": Thing("tokens known", (1, 10, 100, 1000, 1_000_000), (1, 100, 1000)),
    "threads": Thing("threads", (1, 10, 100, 1000)),
    "processes": Thing("processes", (1, 10, 100), (1, 10)),
    "aliases": Thing("aliases", (1, 10, 100, 1000)),
    "scopes": Thing("scopes of a token", (1, 10, 100, 1000)),
}
#: Thing -> size -> column -> what was found in each round, or once.
Found = dict[str, dict[int, dict[str, list[Any]]]]


class Sized:
    """The process of one size."""

    def __init__(self, thing: str, size: int, told: dict[str, str]) -> None:
        self.thing, self.size = thing, size
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "growing.py"), thing, str(size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**outer_environment(here=True), "GROWTH": json.dumps(told)},
        )

    def read(self) -> dict[str, Any]:
        """Give what it prints next; raises NotMeasuredError."""
        assert self.process.stdout
        if line := self.process.stdout.readline():
            found: dict[str, Any] = json.loads(line)
            return found
        raise NotMeasuredError(f"{self.thing}: {self.size} could not be measured, see above.")

    def round(self, seconds: float) -> dict[str, Any]:
        """Run each case for about so many seconds."""
        assert self.process.stdin
        print(seconds, file=self.process.stdin, flush=True)
        return self.read()

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def measure(thing: str, sizes: Iterable[int], told: dict[str, str], quick: bool) -> Any:
    """Prepare each size, and run them in turn; raises NotMeasuredError."""
    found: dict[int, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    seconds, rounds = (QUICK_SECONDS, QUICK_ROUNDS) if quick else (SECONDS, ROUNDS)
    with contextlib.ExitStack() as stack:
        started = []
        for size in sizes:
            say(f"{thing}: {size} is being prepared")
            sized = Sized(thing, size, {**told, "prefix": f"{told['prefix']}-{thing}-{size}"})
            stack.callback(sized.close)
            for name, value in sized.read().items():
                found[size][name].append(value)
            started.append(sized)
        for number in range(1, rounds + 1):
            say(f"{thing}: round {number} of {rounds}")
            for sized in started:
                for name, value in sized.round(seconds).items():
                    found[sized.size][name].append(value)
    return found


@contextlib.contextmanager
def redis(url: str, prefix: str) -> Iterator[str]:
    """Give the URL if a Redis answers there, else ""; delete what has the prefix at the end."""
    try:
        from redis import Redis

        server = Redis.from_url(url)
        server.ping()
    except Exception as error:  # noqa: BLE001 - the library's own, or there is no library
        say(f"There is no Redis at {url} ({type(error).__name__}): the cache is in local memory.")
        yield ""
        return
    try:
        yield url
    finally:
        # Django puts the version behind the prefix.
        batch: list[Any] = []
        for key in server.scan_iter(f"{prefix}*", count=10_000):
            batch.append(key)
            if len(batch) == 10_000:
                server.unlink(*batch)
                batch.clear()
        if batch:
            server.unlink(*batch)
        server.close()


def cell(column: str, values: list[Any] | None) -> str:
    """Show the least of what was found, seconds in a smaller unit."""
    if values is None:
        return ""
    value = min(values)
    if isinstance(value, float):
        return f"{value:.1f}" if column.endswith("MiB") else show(value, "s")
    return str(value)


def markdown(thing: str, found: dict[int, dict[str, list[Any]]]) -> str:
    """Give the table of one thing."""
    columns = list(dict.fromkeys(column for each in found.values() for column in each))
    lines = [[THINGS[thing].head, *columns]]
    for size, each in found.items():
        cells = [cell(column, each.get(column)) for column in columns]
        lines.append([f"{size:,}".replace(",", " "), *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * (width - 1) + ":" for width in widths]
    return "\n".join(
        "| " + " | ".join(text.rjust(w) for text, w in zip(line, widths, strict=True)) + " |"
        for line in [lines[0], rule, *lines[1:]]
    )


def parsed(arguments: Iterable[str] | None) -> argparse.Namespace:
    """Read the arguments."""
    described, _, more = (__doc__ or "").partition("\n")
    parser = Parser(
        description=described,
        epilog=more.partition("\n\n")[2].partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="smaller sizes and fewer rounds")
    parser.add_argument(
        "--only",
        action="append",
        metavar="THING",
        choices=[*THINGS],
        help=f"one of {', '.join(THINGS)}; may be repeated",
    )
    parser.add_argument(
        "--sizes",
        metavar="N,N",
        type=lambda text: tuple(int(each) for each in text.split(",")),
        help="these sizes, instead of those that are meant",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all that was found")
    parser.add_argument(
        "--redis",
        metavar="URL",
        default="redis://127.0.0.1:6379/14",
        help="the shared cache (%(default)s)",
    )
    return parser.parse_args(None if arguments is None else list(arguments))


def main(arguments: Iterable[str] | None = None) -> int:
    """Measure, print, and give the exit status: 1 if something could not be measured."""
    options = parsed(arguments)
    found: Found = {}
    failed = False
    prefix = f"growth-{uuid.uuid4().hex}"
    with authserver() as setup, redis(options.redis, prefix) as url:
        told = {"http": setup["http"], "redis": url, "prefix": prefix}
        for thing in options.only or THINGS:
            if thing == "processes" and not url:
                say("processes: they need a Redis, and are left out.")
                continue
            meant = THINGS[thing]
            sizes = options.sizes or (meant.quick if options.quick else meant.sizes)
            try:
                found[thing] = measure(thing, sizes, told, options.quick)
            except NotMeasuredError as error:
                say(str(error))
                failed = True
    where = "Redis" if url else "local memory"
    for thing in found:
        print(f"{markdown(thing, found[thing])}\n")
    print(f"Measured on {about()}; the cache was in {where}.")
    if options.json:
        everything = {"measured": about(), "cache": where, "prefix": prefix, "found": found}
        options.json.write_text(json.dumps(everything, indent=2), "utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
