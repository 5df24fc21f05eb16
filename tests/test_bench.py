"""The timing bench runs, tells what it finds, and how it ends; no time is judged here."""

from __future__ import annotations

import http.client
import json
import os
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

import jwt
import pytest
from conftest import ROOT

pytest.importorskip("aiohttp")
pytest.importorskip("certifi")
pytestmark = pytest.mark.programs

SCRIPT = ROOT / "benchmarks" / "bench.py"


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    """The module; those that it imports have common names, and go out again."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)
        import bench

        yield bench
    for name in set(sys.modules) - before:
        if str(SCRIPT.parent) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


def run(*arguments: str | Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the script, and have Python look for modules in ``path`` first."""
    paths = [str(path)] if path else []
    paths += filter(None, [os.environ.get("PYTHONPATH")])
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Any:
    place = tmp_path_factory.mktemp("bench")
    files = "--json", place / "found.json", "--plot", place / "chart.svg"
    rows = "--only", "C2/http", "--only", "K1", "--only", "C4/50/http"
    done = run("--quick", "--here", "--peer", "none", *rows, "--profile", *files)
    assert done.returncode == 0, done.stderr
    return done, json.loads(files[1].read_text("utf-8")), files[3].read_text("utf-8")


def test_the_table_has_a_line_for_each_that_ran(done: Any) -> None:
    lines = [line.split(" | ") for line in done[0].stdout.splitlines() if line.startswith("|")]
    assert [line[1].strip() for line in lines[2:4]] == ["floor", "django-baikal"]
    assert lines[2][0].startswith("| C2/http: client grant over http")
    assert done[0].stdout.count("\ndjango-baikal: django-baikal ") == 1
    assert "round 1 of 3" in done[0].stderr


def test_what_was_found_is_kept(done: Any) -> None:
    _, found, _ = done
    assert set(found) == {"measured", "versions", "rows", "rounds", "parts"}
    row = found["rows"]["C2/http"]
    assert set(row) == {"title", "unit", "figures", "missed", "not near"}
    for name in ("floor", "django-baikal"):
        rounds = found["rounds"][name]["C2/http"]
        assert {"cpu", "wall", "n"} <= set(rounds[0])
        least = min(r["cpu"] / r["n"] for r in rounds)
        assert row["figures"][name]["minimum"] == pytest.approx(least)
        assert row["figures"][name]["median"] >= least > 0
    assert found["versions"]["django-baikal"]["Django"]


def test_a_row_that_is_not_near_the_limit_says_where_its_time_goes(done: Any) -> None:
    said, found, _ = done
    parts = found["parts"]["C4/50/http"]  # nobody does all the work in next to no time
    assert parts["django_baikal/transports/aiohttp.py"] > 0
    assert any(name.startswith("aiohttp/") for name in parts)
    (line,) = [line for line in said.stdout.splitlines() if line.startswith("C4/50/http: ")]
    assert "django_baikal/performers.py" in line and line.endswith("%.")


def test_signing_with_a_key_of_the_database_asks_it_nothing(done: Any) -> None:
    rows = done[1]["rows"]
    for name, expected in {"again": 0, "first": 1}.items():
        for figure in ("queries", "parses"):
            found = rows[f"K1/{name}/{figure}"]["figures"]["django-baikal"]
            assert found == {"minimum": expected, "median": expected}, (name, figure)


def test_the_chart_has_a_bar_for_each(done: Any) -> None:
    svg = ET.fromstring(done[2])
    assert svg.tag == "{http://www.w3.org/2000/svg}svg"
    texts = [element.text or "" for element in svg.iter("{http://www.w3.org/2000/svg}text")]
    # C2/http, K1 and C4: the counters are no bars.
    assert texts.count("floor") == texts.count("django-baikal") == 3
    assert "C2/http: client grant over http" in texts
    bars = [e for e in svg.iter("{http://www.w3.org/2000/svg}rect") if e.get("stroke")]
    assert [bar.get("fill") for bar in bars] == ["#fff", "#000"] * 3
    assert all(0 < float(bar.get("width", "")) < float(svg.get("width", "")) for bar in bars)


def test_the_page_has_each_row_and_each_thing_that_grows(bench: Any) -> None:
    page = (ROOT / "docs" / "performance.md").read_text("utf-8")
    assert re.findall(r"^\| ([A-Z]\d\S*): ", page, re.MULTILINE) == [row.id for row in bench.ROWS]
    import growth

    heads = re.findall(r"^\| +([a-z][a-z ]+?) \|", page, re.MULTILINE)
    grows = [head for head in heads if head != "row"]
    assert grows == [thing.head for thing in growth.THINGS.values()]
    chart = (ROOT / "docs" / "performance.svg").read_text("utf-8")
    for row in bench.ROWS:
        assert (f">{row.id}: " in chart) == (row.figure == "cpu"), row.id


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--only", "S99"), "there is no row 'S99', but C1, C2,"),
        (("--only", "C"), "there is no row 'C', but C1, C2,"),
        (("--peer", "nobody"), "invalid choice: 'nobody'"),
        (("--fast",), "unrecognized arguments: --fast"),
    ],
)
def test_bad_arguments_are_said_in_one_line(arguments: tuple[str, ...], said: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr


def test_a_package_that_cannot_be_installed_is_told_and_left_out(tmp_path: Path) -> None:
    file = tmp_path / "a-file"
    file.touch()
    peer = "requests-oauth2client"
    done = run("--quick", "--here", "--only", "C1/http", "--peer", peer, "--cache", file)
    assert f"{peer} could not be installed, and is left out: " in done.stderr
    assert f"| {peer}" not in done.stdout
    assert "| django-baikal" in done.stdout
    assert done.returncode == 2


def test_an_authserver_that_does_not_start_is_told(tmp_path: Path) -> None:
    (tmp_path / "certifi.py").write_text("raise ImportError", "utf-8")
    done = run("--quick", "--here", "--only", "C3", "--peer", "none", path=tmp_path)
    said = "The authserver did not start, see its error above."
    assert (done.returncode, done.stdout, done.stderr.splitlines()[-1]) == (1, "", said)


# -- canned figures -------------------------------------------------------------------------------


def canned(bench: Any, ours: float) -> Any:
    """A bench of one row, in which the floor takes 1 ms, and a peer 4 ms."""
    row = bench.Row(
        "X1",
        "a call",
        {"floor": "x", "django-baikal": "x", "peer/more": "x"},
        base={"peer/more": "nothing"},
        limits={"peer": 0.5, "absent": 1, "": 0.01},
        aims={"floor": 1.5},
    )
    found = bench.Bench([row], [])

    def rounds(*seconds: float) -> list[dict[str, float]]:
        return [{"cpu": 10 * each, "wall": 99.0, "n": 10} for each in seconds]

    found.raw["floor"]["x"] = rounds(0.002, 0.001, 0.003)
    found.raw["django-baikal"]["x"] = rounds(ours, 3 * ours, 2 * ours)
    found.raw["peer/more"]["x"] = rounds(0.006, 0.005, 0.007)
    found.raw["peer/more"]["nothing"] = rounds(0.001, 0.002, 0.002)
    return found


def test_the_table_shows_times_ratios_and_verdicts(bench: Any) -> None:
    found = canned(bench, 0.0018)
    lines = bench.table.markdown(found.rows, found.raw).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    verdicts = ["0.5 x peer: ok, 10 ms: ok", "1.5 x floor: missed"]
    assert cells == [
        ["row", "", "minimum", "median", "x floor", "x django-baikal", "at most", "near the limit"],
        [cell for cell in cells[1] if set(cell) <= {"-", ":"}],
        ["X1: a call", "floor", "1 ms", "2 ms", "1", "0.556", "", ""],
        ["", "django-baikal", "1.8 ms", "3.6 ms", "1.8", "1", *verdicts],
        ["", "peer", "4 ms", "4 ms", "4", "2.22", "", ""],
    ]
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize(
    ("ours", "problems", "missed", "status"),
    [
        (0.0019, [], {}, 0),
        (0.0021, [], {"X1": ["0.5 x peer"]}, 1),
        (0.011, [], {"X1": ["0.5 x peer", "10 ms"]}, 1),
        (0.0019, ["peer"], {}, 2),
        (0.0019, ["peer", "django-baikal"], {}, 1),
        (0.0021, ["peer"], {"X1": ["0.5 x peer"]}, 1),
    ],
)
def test_a_target_that_is_missed_is_told(
    bench: Any, ours: float, problems: list[str], missed: dict[str, list[str]], status: int
) -> None:
    found = canned(bench, ours)
    found.problems += problems
    assert (found.missed(), found.status()) == (missed, status)


def test_a_difference_to_what_could_not_be_measured_is_none(bench: Any) -> None:
    found = canned(bench, 0.001)
    del found.raw["peer/more"]["nothing"]
    assert set(bench.table.figures(found.rows[0], found.raw)) == {"floor", "django-baikal"}


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (2.5, "s", "2.5 s"),
        (0.0345, "s", "34.5 ms"),
        (0.000178, "s", "178 us"),
        (8.14e-8, "s", "81 ns"),
        (-0.002, "s", "-2 ms"),
        (3, "", "3"),
        (2.468, "MiB", "2.47 MiB"),
    ],
)
def test_values_are_shown_with_their_unit(bench: Any, value: float, unit: str, shown: str) -> None:
    assert bench.table.show(value, unit) == shown


def test_each_client_case_is_one_that_its_contestant_has(bench: Any) -> None:
    import rows

    assert len({row.id for row in rows.ROWS}) == len(rows.ROWS)
    for row in rows.CLIENT_ROWS:
        for name, case in [*row.cases.items(), *row.base.items()]:
            module = SCRIPT.parent / "contestants" / f"{rows.CONTESTANTS[name].module}.py"
            assert f'"{case}": ' in module.read_text("utf-8"), (row.id, name)
        assert {*row.limits, *row.aims} <= {"", *map(bench.shown, row.cases)}, row.id


def test_the_readme_explains_each_row(bench: Any) -> None:
    import rows

    readme = (SCRIPT.parent / "README.md").read_text("utf-8")
    for row in rows.ROWS:
        assert f"\n| {row.id.partition('/')[0]} | " in readme, row.id


# -- the parts ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def setup(bench: Any) -> Iterator[Any]:
    with bench.authserver() as setup:
        yield setup


def test_a_contestant_that_fails_is_told(bench: Any, setup: Any) -> None:
    worker = bench.Worker("floor", sys.executable, setup)
    try:
        assert set(worker.ask(versions=True)) == {"cryptography", "urllib3", "aiohttp"}
        with pytest.raises(bench.NotMeasuredError, match="floor: no such case could not be run: "):
            worker.ask(prepare="no such case")
        worker.prepare("signature", 3, 0.0)
        assert worker.calls == {"signature": 3}
        assert worker.ask(case="signature", n=3)["n"] == 3
    finally:
        worker.close()


def test_a_contestant_that_ends_is_told(bench: Any, setup: Any) -> None:
    worker = bench.Worker("floor", sys.executable, {"directory": setup["directory"]})
    with pytest.raises(bench.NotMeasuredError, match="floor: it could not be run: TypeError: "):
        worker.ask(versions=True)
    worker.close()


def asked(origin: str, path: str, body: Any = None, **options: Any) -> Any:
    kind = http.client.HTTPSConnection if options else http.client.HTTPConnection
    with closing(kind(urlsplit(origin).netloc, timeout=60, **options)) as connection:
        connection.request("POST" if body else "GET", path, body)
        return json.load(connection.getresponse())


def test_the_authserver_counts_calls_and_connections(setup: Any) -> None:
    asked(setup["http"], "/_control", "{}")
    asked(setup["http"], "/jwks")
    assert asked(setup["http"], "/_control", "{}")["/jwks"] == 1
    assert asked(setup["http"], "/_control", "{}") == {}
    with closing(http.client.HTTPConnection(urlsplit(setup["http"]).netloc)) as connection:
        for _ in range(3):
            connection.request("POST", "/token?x=1", "grant_type=client_credentials")
            assert json.load(connection.getresponse())["token_type"] == "Bearer"
    context = ssl.create_default_context(cafile=setup["ca_file"])
    metadata = asked(setup["https"], "/.well-known/openid-configuration", context=context)
    assert metadata["issuer"] == setup["https"]
    assert asked(setup["http"], "/_control", "{}") == {
        "connections": 2,
        "/token": 3,
        "/.well-known/openid-configuration": 1,
    }


def test_the_authserver_is_told_which_tokens_are_bad(setup: Any) -> None:
    def told(token: str) -> tuple[int, str | None]:
        with closing(http.client.HTTPConnection(urlsplit(setup["http"]).netloc)) as connection:
            connection.request("GET", "/userinfo", headers={"Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            return answer.status, answer.headers["WWW-Authenticate"]

    asked(setup["http"], "/_control", json.dumps({"inactive": ["bad"]}))
    assert asked(setup["http"], "/introspect", "token=good")["active"] is True
    assert asked(setup["http"], "/introspect", "token=bad") == {"active": False}
    assert told("good") == (200, None)
    assert told("bad") == (401, 'Bearer error="invalid_token"')
    asked(setup["http"], "/_control", json.dumps({"inactive": []}))
    assert asked(setup["http"], "/introspect", "token=bad")["active"] is True


def test_the_authserver_tells_of_the_key_that_signs_its_tokens(setup: Any) -> None:
    key = Path(setup["token_key_file"]).read_text("utf-8")
    token = jwt.encode({"sub": "ada"}, key, "RS256", {"kid": setup["token_kid"]})
    (published,) = jwt.PyJWKSet.from_dict(asked(setup["http"], "/jwks")).keys
    assert published.key_id == setup["token_kid"]
    assert jwt.decode(token, published, ["RS256"]) == {"sub": "ada"}
