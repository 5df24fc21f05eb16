"""What is shipped, what is promised about it, and what holds for the suite itself."""

from __future__ import annotations

import ast
import configparser
import importlib.util
import itertools
import os
import re
import socket
import subprocess
import sys
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import django
import pytest
from conftest import ROOT

import django_baikal

DISTRIBUTIONS = os.environ.get("DISTRIBUTIONS")
ENVIRONMENT = set(os.environ.get("TOX_ENV_NAME", "").split("-"))
# Where somebody works says nothing to a reader, and does not work on his machine.
WORKPLACE = re.compile(
    r"(?<![\w.])/(?:home|root|Users)/\w|[A-Z]:\\Users|(?:extra-)?index-url|find-links"
    r"|\.(?:corp|intranet)\b"
)


def configuration(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / name, "utf-8")
    return parser


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def expand(pattern: str) -> list[str]:
    """Expand tox's braces: ``py{311,312}-x`` is ``py311-x`` and ``py312-x``."""
    parts = re.split(r"\{([^}]*)\}", pattern)
    choices = [part.split(",") if at % 2 else [part] for at, part in enumerate(parts)]
    return ["".join(choice) for choice in itertools.product(*choices)]


def classified(prefix: str) -> set[str]:
    classifiers = lines(configuration("setup.cfg")["metadata"]["classifiers"])
    found = (re.fullmatch(rf"{re.escape(prefix)} :: (\d+\.\d+)", line) for line in classifiers)
    return {match[1] for match in found if match}


def source_files() -> list[str]:
    """Give the files of the repository, without those that git ignores."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_the_matrix_runs_what_the_classifiers_promise() -> None:
    tox = configuration("tox.ini")["tox"]
    names = [name for line in lines(tox["env_list"]) for name in expand(line)]
    matrix = [
        found for name in names if (found := re.fullmatch(r"py(\d)(\d+)-dj(\d)(\d)-(\w+)", name))
    ]
    pythons = {f"{found[1]}.{found[2]}" for found in matrix}
    assert pythons == classified("Programming Language :: Python")
    assert {f"{found[3]}.{found[4]}" for found in matrix} == classified("Framework :: Django")
    # Each pair, but Django 6 needs Python 3.12; and each with and without the extras.
    pairs = {(found[1] + found[2], found[3] + found[4], found[5]) for found in matrix}
    every = itertools.product(["311", "312", "313"], ["52", "60", "61"], ["plain", "extras"])
    assert pairs == {(py, dj, kind) for py, dj, kind in every if (py, dj[0]) != ("311", "6")}


def test_the_lowest_python_is_the_one_that_is_required() -> None:
    lowest = min(classified("Programming Language :: Python"), key=lambda v: int(v.split(".")[1]))
    assert configuration("setup.cfg")["options"]["python_requires"] == f">={lowest}"


def test_the_extras_are_those_that_tox_installs() -> None:
    promised = set(configuration("setup.cfg")["options.extras_require"])
    tox = configuration("tox.ini")
    for section in ("testenv", "testenv:py", "testenv:coverage", "testenv:types"):
        extras = {line.removeprefix("extras: ") for line in lines(tox[section]["extras"])}
        assert extras == promised, section


def test_each_dependency_has_a_reason() -> None:
    setup = configuration("setup.cfg")
    tox = configuration("tox.ini")
    wanted = lines(setup["options"]["install_requires"])
    wanted += [line for extra in setup["options.extras_require"].values() for line in lines(extra)]
    for section in tox.sections():
        for line in lines(tox[section].get("deps", "")):
            if not line.startswith("{"):
                wanted.append(line.rpartition(": ")[2])
    names = {re.split(r"[\[<>=~! ]", line)[0] for line in wanted}
    reasons = (ROOT / "docs/decisions/0001-dependencies.md").read_text("utf-8")
    assert {name for name in names if f"| {name} |" not in reasons} == set()


@pytest.mark.skipif("TOX_ENV_NAME" not in os.environ, reason="for tox's environments")
def test_this_environment_is_what_its_name_says() -> None:
    for factor in ENVIRONMENT:
        if found := re.fullmatch(r"py(\d)(\d+)", factor):
            assert sys.version_info[:2] == (int(found[1]), int(found[2]))
        if found := re.fullmatch(r"dj(\d)(\d)", factor):
            assert django.VERSION[:2] == (int(found[1]), int(found[2]))
    modules = ("aiohttp", "rest_framework", "drf_spectacular", "ninja")
    modules += ("opentelemetry", "prometheus_client")
    extras = [importlib.util.find_spec(name) for name in modules]
    if "plain" in ENVIRONMENT:
        assert not any(extras)
    if ENVIRONMENT & {"extras", "py", "coverage", "soak"}:
        assert all(extras)


def test_the_version_is_in_the_changelog() -> None:
    headings = re.findall(
        r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE
    )
    assert django_baikal.__version__ in headings


def test_the_licence_is_there() -> None:
    assert configuration("setup.cfg")["metadata"]["license_files"] == "LICENSE"
    assert "Apache License" in (ROOT / "LICENSE").read_text("utf-8")


def test_every_module_annotates_lazily() -> None:
    future = "from __future__ import annotations"
    for name in source_files():
        if name.endswith(".py") and "/migrations/" not in name:
            source = (ROOT / name).read_text("utf-8")
            assert future in source or not any(
                isinstance(node, (ast.FunctionDef, ast.ClassDef)) for node in ast.parse(source).body
            ), name


def test_no_file_tells_where_it_was_written() -> None:
    told = []
    for name in source_files():
        try:
            text = (ROOT / name).read_text("utf-8")
        except UnicodeDecodeError:
            continue
        told += [f"{name}: {found[0]}" for found in WORKPLACE.finditer(text)]
    assert [line for line in told if not line.startswith("tests/test_packaging.py: ")] == []


@pytest.mark.skipif("DJANGO_BAIKAL_TEST_INSTALLED" not in os.environ, reason="nothing is installed")
def test_the_installed_package_is_complete() -> None:
    distribution = metadata.distribution("django-baikal")
    assert distribution.version == django_baikal.__version__
    assert distribution.metadata["Requires-Python"] == ">=3.11"
    assert distribution.metadata["License-Expression"] == "Apache-2.0"
    assert set(distribution.metadata.get_all("Provides-Extra") or ()) == {
        "aiohttp",
        "rest-framework",
        "spectacular",
        "ninja",
        "opentelemetry",
        "prometheus",
    }
    installed = {path.as_posix() for path in distribution.files or () if path.suffix != ".pyc"}
    assert "django_baikal/py.typed" in installed
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in installed)


@pytest.mark.skipif(DISTRIBUTIONS is None, reason="run by `tox run -e package`, which builds them")
def test_the_wheel_holds_the_package_and_nothing_else() -> None:
    (wheel,) = Path(DISTRIBUTIONS or "").glob("*.whl")
    held = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert sorted(held) == sorted(n for n in source_files() if n.startswith("django_baikal/"))


@pytest.mark.skipif(DISTRIBUTIONS is None, reason="run by `tox run -e package`, which builds them")
def test_the_source_distribution_holds_what_its_tests_need() -> None:
    (archive,) = Path(DISTRIBUTIONS or "").glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        held = {member.name.partition("/")[2] for member in tar.getmembers()}
    assert {name for name in source_files() if name != ".gitignore"} <= held


@pytest.mark.parametrize("address", [("192.0.2.1", 443), ("2001:db8::1", 443), ("example.com", 80)])
def test_no_test_reaches_the_network(address: tuple[str, int]) -> None:
    def connect() -> None:
        socket.create_connection(address, timeout=0.1)

    def connect_bare() -> None:
        with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as sock:
            sock.connect(address)

    for attempt in (connect, connect_bare):
        with pytest.raises(pytest.fail.Exception, match="loopback only"):
            attempt()
        with ThreadPoolExecutor(1) as pool, pytest.raises(pytest.fail.Exception):
            pool.submit(attempt).result()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_is_within_reach(host: str) -> None:
    with socket.create_server((host, 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()


def test_the_environment_says_nothing_to_the_tests() -> None:
    assert [n for n in os.environ if n.startswith(("BAIKAL_", "AIOHTTP_SESSION_"))] == []
