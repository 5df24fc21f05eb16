"""What a call costs: django-baikal, what else one would take, and the floor, in one run.

    python benchmarks/bench.py [--quick]

Installs each package from the package index into an environment of its own, and runs the same
cases in each against one authserver on loopback: see README.md beside this file. Exit status: 0;
1 if a row of django-baikal misses its target or could not be measured; 2 if another package could
not be, which leaves it out, or for arguments that are none.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import plot
import table
from environments import CACHE, HERE, NotMeasuredError, about, environment, interpreter, say
from rows import CONTESTANTS, ROWS
from table import FLOOR, OURS, Row, shown

#: How long a round of a case takes, about, in seconds, and how many rounds there are.
SECONDS, ROUNDS = 0.3, 9
QUICK_SECONDS, QUICK_ROUNDS = 0.05, 3
#: No round is begun that would end later than this, in seconds after the environments are there.
QUICK_END = 160
#: The most calls of a round.
MOST = 200_000
#: Ours must be found where it is installed, settings and authorities come from the cases alone, and
#: no proxy is asked for loopback.
NOT_FOR_THEM = {
    *("PYTHONHOME", "PYTHONWARNINGS", "DJANGO_SETTINGS_MODULE"),
    *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"),
}


def outer_environment(here: bool) -> dict[str, str]:
    """Give the environment variables of a contestant, which is run by this interpreter or not."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in NOT_FOR_THEM
        and not name.upper().endswith("_PROXY")
        and not name.startswith("BAIKAL_")
        and (here or name != "PYTHONPATH")
    }


class Worker:
    """A contestant's process."""

    def __init__(self, name: str, python: str, setup: dict[str, str]) -> None:
        self.name = name
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        self.process = subprocess.Popen(
            [python, str(HERE / "contestant.py"), CONTESTANTS[name].module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**outer_environment(python == sys.executable), "BENCH_SETUP": json.dumps(setup)},
        )
        self.calls: dict[str, int] = {}

    def ask(self, **order: Any) -> Any:
        """Give its answer; raises NotMeasuredError."""
        assert self.process.stdin
        assert self.process.stdout
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(order), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": self.last()}
        if "error" in answer:
            what = order.get("case") or order.get("prepare") or "it"
            raise NotMeasuredError(f"{self.name}: {what} could not be run: {answer['error']}")
        return answer

    def last(self) -> str:
        """Give the last line that it said before it ended."""
        self.process.wait()
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "it ended")

    def prepare(self, case: str, n: int | None, seconds: float) -> None:
        """Prepare a case, and find out how many calls a round of it has."""
        self.ask(prepare=case)
        calls = n or 1
        while not n:
            found = self.ask(case=case, n=calls)
            # Where others have the processor, time on the clock says little.
            took = min(found["wall"], 4 * found["busy"])
            calls = int(found["n"] * seconds / took)
            if took >= seconds / 4 or found["n"] >= MOST:
                break
            calls = min(calls, 8 * int(found["n"]))
        self.calls[case] = max(1, min(calls, MOST))

    def close(self) -> None:
        """End the process."""
        with self.process, self.log:
            pass


@contextlib.contextmanager
def authserver() -> Iterator[dict[str, str]]:
    """Run the authserver in a process of its own; gives the setup that it prints."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, str(HERE / "loopback.py"), directory]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            line = process.stdout.readline()
            if not line:
                raise NotMeasuredError("The authserver did not start, see its error above.")
            yield json.loads(line)


class Bench:
    """A run: what is selected, what was found, and what went wrong."""

    def __init__(self, rows: list[Row], names: list[str]) -> None:
        self.rows = rows
        self.names = names
        self.raw: dict[str, dict[str, list[dict[str, float]]]] = defaultdict(
            lambda: defaultdict(list)
        )
        self.versions: dict[str, dict[str, str]] = {}
        self.problems: list[str] = []
        #: Row -> part of the program -> seconds of a call, of those rows of ours that fall short.
        self.parts: dict[str, dict[str, float]] = {}

    def cases(self, name: str) -> dict[str, int | None]:
        """Give the cases of a contestant, and how many calls a round has if that is fixed."""
        cases: dict[str, int | None] = {}
        for row in self.rows:
            for each in (row.cases, row.base):
                if name in each:
                    cases[each[name]] = row.n or cases.get(each[name])
        return cases

    def problem(self, name: str, error: Exception) -> None:
        """Say it, and go on without."""
        say(str(error))
        self.problems.append(shown(name))

    def run(self, options: argparse.Namespace) -> None:
        """Start everybody, and measure in rounds."""
        with authserver() as setup, contextlib.ExitStack() as stack:
            workers = []
            for name in self.names:
                try:
                    worker = Worker(name, python_of(name, options), setup)
                    stack.callback(worker.close)
                    self.versions.setdefault(shown(name), {}).update(worker.ask(versions=True))
                    workers.append(worker)
                except NotMeasuredError as error:
                    self.problem(name, error)
            start = time.monotonic()
            seconds = QUICK_SECONDS if options.quick else SECONDS
            for worker in workers:
                say(f"{worker.name}: is being prepared")
                for case, n in self.cases(worker.name).items():
                    try:
                        worker.prepare(case, n, seconds)
                    except NotMeasuredError as error:
                        self.problem(worker.name, error)
            rounds = QUICK_ROUNDS if options.quick else ROUNDS
            for number in range(1, rounds + 1):
                say(f"round {number} of {rounds}")
                began = time.monotonic()
                self.round(workers)
                now = time.monotonic()
                if options.quick and now - start + (now - began) > QUICK_END:
                    say("No more rounds fit into the time.")
                    break
            if options.profile:
                self.profile(workers)

    def profile(self, workers: list[Worker]) -> None:
        """See where the time goes in the rows of ours that are not near their limit."""
        for row, worker in itertools.product(self.rows, workers):
            found = table.figures(row, self.raw)
            short = table.missed(row, {**row.limits, **row.aims}, found)
            case = row.cases.get(worker.name)
            if short and row.figure == "cpu" and shown(worker.name) == OURS and case:
                say(f"{row.id}: is being profiled")
                n = worker.calls[case]
                spent = worker.ask(case=case, n=n, profile=True)
                self.parts[row.id] = {name: seconds / n for name, seconds in spent.items()}

    def round(self, workers: list[Worker]) -> None:
        """Run each case once, contestant after contestant."""
        for case in dict.fromkeys(case for worker in workers for case in worker.calls):
            for worker in workers:
                if case not in worker.calls:
                    continue
                try:
                    found = worker.ask(case=case, n=worker.calls[case])
                    self.raw[worker.name][case].append(found)
                except NotMeasuredError as error:
                    self.problem(worker.name, error)
                    del worker.calls[case]
                    self.raw[worker.name].pop(case, None)

    def missed(self) -> dict[str, list[str]]:
        """Give the targets that ours misses, by row."""
        found = {
            row.id: table.missed(row, row.limits, table.figures(row, self.raw)) for row in self.rows
        }
        return {row_id: limits for row_id, limits in found.items() if limits}

    def status(self) -> int:
        """Give the exit status."""
        if self.missed() or OURS in self.problems:
            return 1
        return 2 if self.problems else 0

    def data(self) -> dict[str, Any]:
        """Give all that was found."""
        return {
            "measured": about(),
            "versions": self.versions,
            "rows": table.as_data(self.rows, self.raw),
            "rounds": self.raw,
            "parts": self.parts,
        }


def python_of(name: str, options: argparse.Namespace) -> str:
    """Give the interpreter that runs a contestant; raises NotMeasuredError."""
    contestant = CONTESTANTS[name]
    if options.here and contestant.environment == CONTESTANTS[OURS].environment:
        return sys.executable
    base = interpreter(contestant.python) if contestant.python else sys.executable
    where = contestant.environment or name.replace("/", "-").replace(" ", "-")
    return environment(where, contestant.requirements, options.cache.resolve(), base)


class Parser(argparse.ArgumentParser):
    """Says in one sentence what is wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def parsed(arguments: Iterable[str] | None) -> argparse.Namespace:
    """Read the arguments."""
    parser = Parser(description=(__doc__ or "").partition("\n")[0])
    peers = sorted({shown(name) for name in CONTESTANTS} - {FLOOR, OURS})
    parser.add_argument(
        "--quick", action="store_true", help="at most 3 minutes, once everything is installed"
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="ROW",
        default=[],
        help="a row, or a part of its name, such as C2 or C4/50; may be repeated",
    )
    parser.add_argument(
        "--peer",
        action="append",
        metavar="NAME",
        choices=[*peers, "none"],
        help=f"beside ours and the floor: {', '.join(peers)}, or none; may be repeated",
    )
    parser.add_argument(
        "--here", action="store_true", help=f"take the {OURS} of this interpreter, and the floor"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all that was found")
    parser.add_argument(
        "--profile", action="store_true", help="show where the time goes in rows that fall short"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw an SVG")
    parser.add_argument(
        "--cache",
        type=Path,
        default=CACHE,
        help="where the environments are made, and kept (%(default)s)",
    )
    options = parser.parse_args(None if arguments is None else list(arguments))
    options.rows = [row for row in ROWS if any(named(row, name) for name in options.only or [""])]
    for name in options.only:
        if not any(named(row, name) for row in ROWS):
            ids = ", ".join(dict.fromkeys(row.id.partition("/")[0] for row in ROWS))
            parser.error(f"argument --only: there is no row {name!r}, but {ids} and their parts.")
    return options


def named(row: Row, name: str) -> bool:
    """Tell whether the name is this row's, or one for several."""
    return f"{row.id}/".startswith(f"{name}/" if name else "")


def main(arguments: Iterable[str] | None = None) -> int:
    """Measure, print, and give the exit status."""
    options = parsed(arguments)
    rows: list[Row] = options.rows
    present = {FLOOR, OURS, *(options.peer or map(shown, CONTESTANTS))}
    names = [
        name
        for name in CONTESTANTS
        if shown(name) in present and any(name in row.cases for row in rows)
    ]
    bench = Bench(rows, names)
    try:
        bench.run(options)
    except NotMeasuredError as error:
        say(str(error))
        return 1
    print(table.markdown(rows, bench.raw))
    print(f"\nMeasured on {about()}.")
    for name, versions in bench.versions.items():
        print(f"{name}: {', '.join(f'{n} {v}' for n, v in versions.items())}.")
    for row_id, parts in bench.parts.items():
        print(f"\n{row_id}: {table.shares(parts)}")
    if options.json:
        options.json.write_text(json.dumps(bench.data(), indent=2), "utf-8")
    if options.plot:
        options.plot.write_text(plot.svg(rows, bench.raw, f"Measured on {about()}."), "utf-8")
    for row_id, limits in bench.missed().items():
        say(f"{OURS} misses its target in {row_id}: at most {', '.join(limits)}.")
    return bench.status()


if __name__ == "__main__":
    sys.exit(main())
