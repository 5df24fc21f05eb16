"""The script that compares packages runs, sees what is wrong, and is shown as it is."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

pytest.importorskip("rest_framework")
pytestmark = pytest.mark.programs

SCRIPT = ROOT / "benchmarks" / "bearer_table.py"
#: A loaded machine is slow: its time is measured here, and judged where it is looked at.
TIMED = "warm request: ratio to an unauthenticated view; added"


@pytest.fixture(scope="module")
def script() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)
        import bearer_table

        yield bearer_table
        for name in ("bearer_table", "authserver", "environments"):
            del sys.modules[name]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def found() -> Any:
    done = run("--only", "django-baikal", "--here", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == (0 if all(found["ok"].values()) else 1)
    found["stderr"] = done.stderr
    return found


def test_each_row_of_ours_is_at_its_target(script: Any, found: Any) -> None:
    assert set(found["ok"]) == {row.name for row in script.ROWS} == set(found["targets"])
    short = [name for name, ok in found["ok"].items() if not ok]
    assert set(short) <= {TIMED}, found["shown"]
    told = [line for line in found["stderr"].splitlines() if "misses its target" in line]
    assert told == [f"django-baikal misses its target: {name}." for name in short]


BAD_ANSWER = {"status": 403, "challenge": None, "retry_after": None, "user": None}
OPEN = {**BAD_ANSWER, "status": 200, "user": "AnonymousUser"}


@pytest.mark.parametrize(
    ("path", "value", "shown"),
    [
        ("no_token", BAD_ANSWER, "403, no challenge"),
        ("no_token challenge", 'Basic realm="api"', '401 `Basic realm="api"`'),
        ("bad_token challenge", 'Bearer realm="api"', "401, no `error`"),
        ("bad_token_anyone", OPEN, "200 anonymous"),
        ("bad_repeated calls", 2, "2"),
        ("good_repeated calls", 1, "1; 0, 1 with a Django user"),
        ("good_repeated queries", 1.0, "0; 1"),
        ("good_repeated queries_user", 2.0, "0; 0, 2 with a Django user"),
        ("deactivated", {**OPEN, "user": "User"}, "200 User"),
        ("client", {**OPEN, "user": "TokenUser"}, "200 TokenUser"),
        ("revoked accepted", 600, "accepted for 600 s; fresh view: 401"),
        ("revoked accepted", 86400, "accepted until it expires; fresh view: 401"),
        ("revoked fresh", 200, "accepted for 60 s; fresh view: 200"),
        ("failing known status", 503, "503"),
        ("failing new", BAD_ANSWER, "403, no challenge"),
        ("failing new retry_after", None, "503, no Retry-After"),
        ("concurrent calls", 2, "2"),
        ("concurrent statuses", {"200": 19, "500": 1}, "1; 1 x 500"),
        ("at_rest", ["cache keys"], "cache keys"),
        ("cost", {"open": 0.1, "protected": 0.25}, "x 2.50; +0.150 ms"),
        ("tables", ["a", "b", "c"], "3"),
    ],
)
def test_a_row_that_is_short_is_noticed(
    script: Any, found: Any, path: str, value: Any, shown: str
) -> None:
    facts = copy.deepcopy(found["facts"]["django-baikal"])
    facts["cost"] = {"open": 0.1, "protected": 0.2}
    assert all(script.judged(facts).values())
    *way, last = path.split()
    reduce(lambda inner, name: inner[name], way, facts)[last] = value
    short = [row for row in script.ROWS if not row.met(facts)]
    assert shown in [row.show(facts) for row in short]


def test_the_table_marks_ours(script: Any, found: Any) -> None:
    facts = copy.deepcopy(found["facts"]["django-baikal"])
    facts["no_token"] = BAD_ANSWER
    head, rule, first, *_ = script.markdown({"django-baikal": facts}).splitlines()
    assert head == f"| | Target | django-baikal {facts['versions']['django-baikal']} |"
    assert rule == "|---|---|---|"
    assert first == (
        '| no token, protected view | 401 `Bearer realm="api"` | 403, no challenge **short** |'
    )


def test_a_package_that_cannot_be_installed_is_told_and_left_out(tmp_path: Path) -> None:
    file = tmp_path / "a-file"
    file.touch()
    done = run("--only", "drf-oidc-auth", "--only", "django-pyoidc", "--cache", file)
    for name in ("drf-oidc-auth", "django-pyoidc"):
        assert f"{name} could not be installed, and is left out: " in done.stderr
    assert (done.returncode, done.stdout) == (2, "")


def test_the_page_shows_the_rows_and_their_targets(script: Any) -> None:
    page = (ROOT / "docs" / "explanation" / "compared.md").read_text("utf-8")
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[:2] for line in lines[1:]] == [
        [f"| {row.name}", row.target] for row in script.ROWS
    ]
    for name in script.PROJECTS:
        assert f" {name} " in lines[0]
    assert " **short**" not in page
    assert page.count(" **ok** ") == len(script.ROWS)


def test_the_readme_explains_each_row(script: Any) -> None:
    readme = (SCRIPT.parent / "README.md").read_text("utf-8")
    lines = [line.split(" | ")[0].removeprefix("| ") for line in readme.splitlines()]
    for row in script.ROWS:
        assert any(line and row.name.startswith(line) for line in lines if line != "|"), row.name
