"""The bench's rows of the server run, and count what they say; no time is judged here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import ROOT

pytest.importorskip("rest_framework")
pytest.importorskip("certifi")
pytestmark = pytest.mark.programs

BENCHMARKS = ROOT / "benchmarks"
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    """The module; those that it imports have common names, and go out again."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        import bench

        yield bench
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


@pytest.fixture(scope="module")
def setup(bench: Any) -> Iterator[Any]:
    with bench.authserver() as setup:
        yield setup


@pytest.fixture(scope="module")
def measured(bench: Any, setup: Any) -> Iterator[Callable[[str, str], Any]]:
    """Have a contestant run a case three times, with this interpreter; gives its figures."""
    workers: dict[str, Any] = {}

    def measured(name: str, case: str) -> Any:
        if name not in workers:
            workers[name] = bench.Worker(name, sys.executable, setup)
        workers[name].ask(prepare=case)
        return workers[name].ask(case=case, n=3)

    yield measured
    for worker in workers.values():
        worker.close()


def cases(module: str) -> list[str]:
    text = (BENCHMARKS / "contestants" / f"{module}.py").read_text("utf-8")
    return re.findall(r'"(S\d[^"]*)": _case', text)


@pytest.mark.parametrize(
    ("name", "case"),
    [
        *(("django-baikal/django", case) for case in cases("django_baikal_site")),
        *(("floor/django", case) for case in cases("django_floor")),
    ],
)
def test_each_case_of_ours_and_of_the_floor_runs(measured: Any, name: str, case: str) -> None:
    found = measured(name, case)
    assert {"cpu", "wall", "n"} <= set(found)
    if case.startswith(("S1", "S3", "S6")):
        assert found["queries"] == 0
        assert found["upstream"] == (1 if case.startswith("S3") else 0)
    if case == "S2/asgi" and name.startswith("floor"):
        assert found["hops"] == 0


def test_each_row_that_counts_is_at_its_target(bench: Any, measured: Any) -> None:
    import rows

    counters = ("queries", "upstream", "errors")
    counting = [row for row in rows.DJANGO_ROWS if row.figure in counters]
    assert [row.id for row in counting] == ["S1/queries", "S1/upstream", "S4", "S4/errors", "S5"]
    for row in counting:
        found = measured("django-baikal/django", row.cases["django-baikal/django"])
        assert found[row.figure] <= row.limits[""], row.id


def test_who_keeps_no_answer_is_counted(measured: Any) -> None:
    pytest.importorskip("authlib")
    found = {case: measured("Authlib/django", case) for case in ("S1", "S3/https", "S4", "S5")}
    assert [each["upstream"] for each in found.values()] == [1, 1, 50, 20]
    assert found["S4"]["errors"] == 0


def test_queries_are_counted(measured: Any) -> None:
    found = measured("DRF TokenAuthentication", "S1")
    assert (found["queries"], found["upstream"]) == (1, 0)


def run(bench: Any, setup: Any, code: str) -> subprocess.CompletedProcess[str]:
    """Run lines of Python where contestants run, with ``site``, ``setup`` and ``case``."""
    lines = f"""
from contestants import django_site as site
from contestants.base import Setup

setup, case = Setup.of_environment(), site.of("floor")
{code}
"""
    return subprocess.run(
        [sys.executable, "-c", lines],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=BENCHMARKS,
        env={**bench.outer_environment(here=True), "BENCH_SETUP": json.dumps(setup)},
    )


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ('case(site.warm, "/nowhere")(setup)', "/nowhere answers 404."),
        ('case(site.cold, "/anyone")(setup)', "/anyone answers 200 to a bad token."),
        ('case(site.warm, "/asks", "/nowhere")(setup)', "/nowhere answers 404."),
        ('case(site.signed, "/asks")(setup)', "/asks answers 200 to a bad token."),
        ('case(site.repeated_bad, "/anyone")(setup)(1)', "/anyone answers 200 to a bad token."),
        ('case(site.jwk_set, "/plain", 1)(setup)', "/plain has 0 keys, and not 1."),
        (
            'case(site.middleware, "django.middleware.common.CommonMiddleware")(setup)',
            """/hello answers b'{"user": "nobody"}' to a good token.""",
        ),
        (
            'case(site.async_middleware, "django.middleware.common.CommonMiddleware")(setup)',
            """/ahello answers b'{"user": "nobody"}' to a good token.""",
        ),
    ],
)
def test_a_contestant_that_does_not_work_is_not_measured(
    bench: Any, setup: Any, code: str, said: str
) -> None:
    done = run(bench, setup, code)
    assert done.stderr.splitlines()[-1:] == [f"RuntimeError: {said}"]


def test_an_answer_that_is_measured_must_be_good(bench: Any, setup: Any) -> None:
    code = """
from contestants import django_floor

measure = django_floor.CASES["S1"](setup)
measure(1)
from projects.floor_urls import KNOWN

KNOWN.clear()
measure(1)
"""
    done = run(bench, setup, code)
    said = "RuntimeError: /looks answers 401 Unauthorized while it is measured."
    assert done.stderr.splitlines()[-1:] == [said]


def test_answers_to_callers_at_once_that_are_not_good_are_counted(bench: Any, setup: Any) -> None:
    code = """
import secrets

tokens = iter(["good", "bad"])
secrets.token_urlsafe = lambda _: next(tokens)
setup.control(inactive=["bad"])
print(case(site.at_once, "/asks")(setup)(1)["errors"])
"""
    assert run(bench, setup, code).stdout.split() == ["50"]


def test_changes_to_a_thread_are_counted(bench: Any, setup: Any) -> None:
    code = """
import asyncio

async def hop():
    await asyncio.to_thread(int)

print(site.hops_of(lambda: [asyncio.run(hop()) for _ in range(3)]), site.hops_of(int))
"""
    assert run(bench, setup, code).stdout.split() == ["3", "0"]


def test_what_is_added_is_the_median_of_the_differences(bench: Any, setup: Any) -> None:
    code = """
times = {"plain": iter([99.0, 4.0, 10.0, 5.0]), "full": iter([5.0, 12.0, 9.0])}
asked = []

def take(name):
    asked.append(name)
    return next(times[name])

site.FEW, site.LONG = 3, float("inf")
found = site.added(1, lambda: take("plain"), lambda: take("full"))
print(found["n"], found["cpu"], found["fraction"], *asked)
"""
    in_turn = "plain full full plain plain full"
    assert run(bench, setup, code).stdout == f"3 6.0 0.4 plain {in_turn}\n"


def test_each_case_is_one_that_its_contestant_has(bench: Any) -> None:
    import rows

    for row in rows.DJANGO_ROWS:
        for name, case in row.cases.items():
            assert case in cases(rows.CONTESTANTS[name].module), (row.id, name)
        assert {*row.limits, *row.aims} <= {"", *map(bench.shown, row.cases)}, row.id
