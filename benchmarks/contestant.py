"""Runs the cases of one contestant, in the interpreter of its own environment.

    BENCH_SETUP='{...}' python contestant.py MODULE

``MODULE`` is in `contestants`, and has ``CASES``, which maps a case's name to a function that
prepares it and gives what runs it n times, and ``DISTRIBUTIONS``, whose versions are told. Each
line of standard input is a JSON object, and is answered by a line of standard output:
``{"versions": true}``, ``{"prepare": "C2/http"}``, or ``{"case": "C2/http", "n": 200}``. The
figures are those of the n calls: ``cpu`` (user and system time of this process) and ``wall`` in
seconds, ``n``, and what the case adds, or puts in their place; ``busy`` is ``cpu`` in any case. A
case is prepared, and run once, before it is measured.
"""

from __future__ import annotations

import cProfile
import gc
import importlib
import json
import os
import pstats
import sys
import time
from collections import defaultdict
from importlib import metadata
from typing import Any

from contestants.base import Case, Setup


def figures(case: Case, n: int) -> dict[str, float]:
    """Run the case n times."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    told = case(n)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu": cpu, "busy": cpu, "wall": wall, "n": n, **(told or {})}


def parts(case: Case, n: int) -> dict[str, float]:
    """Say in which module how much time was spent in n calls, in seconds, with what it calls in C.

    cryptography is a part of its own. A profiler makes functions of Python slower than those of C.
    """
    profile = cProfile.Profile()
    profile.runcall(case, n)
    spent: dict[str, float] = defaultdict(float)
    stats: Any = pstats.Stats(profile)
    for (file, _, name), (*_, own, _, callers) in stats.stats.items():
        if file != "~" or "cryptography" in name:
            spent["cryptography" if file == "~" else part(file)] += own
        else:
            for caller, times in callers.items():
                spent[part(caller[0])] += times[2]
    return dict(spent)


def part(file: str) -> str:
    """Name the module of a file: two levels of a package, and all of ours."""
    path = file.replace(os.sep, "/")
    if "/django_baikal/" in path:
        return "django_baikal/" + path.rpartition("/django_baikal/")[2]
    if "/site-packages/" in path:
        return "/".join(path.rpartition("/site-packages/")[2].split("/")[:2])
    return path.rpartition("/")[2]


def main(name: str) -> None:
    # What a package prints must not come between the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    contestant = importlib.import_module(f"contestants.{name}")
    setup = Setup.of_environment()
    prepared: dict[str, Case] = {}

    def obey(order: dict[str, Any]) -> Any:
        if "versions" in order:
            return {name: metadata.version(name) for name in contestant.DISTRIBUTIONS}
        if "prepare" in order:
            case = prepared[order["prepare"]] = contestant.CASES[order["prepare"]](setup)
            return case(1) or {}
        return (parts if order.get("profile") else figures)(prepared[order["case"]], order["n"])

    for line in sys.stdin:
        try:
            answer = obey(json.loads(line))
        except BaseException as error:
            # The baikal-sdk's errors are no Exceptions.
            if isinstance(error, KeyboardInterrupt):
                raise
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    os.chdir(json.loads(os.environ["BENCH_SETUP"])["directory"])
    main(sys.argv[1])
