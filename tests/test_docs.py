"""The documentation is true: its examples run, its tables are the code's, its links lead somewhere.

How a page is read:

- ``python`` blocks run in their order, in one namespace, with an authserver in memory at each of
  ``ENDPOINTS``. A block whose first line is ``# settings.py`` is settings, from then on; other
  file names make a module (``# urls.py`` becomes ROOT_URLCONF). ``await`` may stand outside of
  functions. A line that ends in ``# not-run: reason`` is left out, and a block about Django's tasks
  where Django has none. Celery is not needed: a stand-in leaves its functions as they are.
- ``pycon`` blocks are doctests in the same namespace.
- ``console`` blocks are typed: ``export`` into the environment, ``manage.py`` and ``curl`` into
  this process, anything else into a shell. What stands below a command is what it prints.
- ``console background`` is for what runs until it is stopped; only the tutorial starts it. There
  every block is for real, and ``text log`` is what the background prints.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import contextlib
import copy
import doctest
import http.server
import importlib
import inspect
import io
import logging
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import django
import pytest
import requests
from conftest import ROOT
from django import urls
from django.conf import settings
from django.core.management import call_command, load_command_class
from django.dispatch import Signal
from django.test import Client, override_settings
from django.utils import timezone
from loopback import free_port
from ring_stage import meanwhile

import django_baikal
from django_baikal import checks, clients, conf, exceptions, signals, values, views
from django_baikal.aio import OpenIDClient as AsyncOpenIDClient
from django_baikal.client import BaseClient, OpenIDClient
from django_baikal.exceptions import (
    AuthserverError,
    BaikalError,
    ConfigurationError,
    InsufficientAuthentication,
    InsufficientScope,
    KeyLoadError,
    StoreUnavailable,
    Tampered,
)
from django_baikal.keys import keepers
from django_baikal.keys import options as key_options
from django_baikal.keys.generate import generate_key, private_pem
from django_baikal.keys.operations import Keeper
from django_baikal.models import SigningKey
from django_baikal.protocol.config import ClientConfig
from django_baikal.testing import FakeAuthserver

DOCS = ROOT / "docs"
PACKAGE = Path(django_baikal.__file__).resolve().parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
EXAMPLE = ROOT / "example_project" / "README.md"
#: Their examples are files of a project, and are run in one: see test_docs_protection.py,
#: test_fake_authserver.py, test_operations.py and test_telemetry.py.
ELSEWHERE = {
    "howto/document-your-api.md",
    "howto/protect-a-ninja-api.md",
    "howto/protect-a-rest-framework-api.md",
    "howto/test-without-an-authserver.md",
    "howto/watch-it.md",
    "operations.md",
    "reference/fake-authserver.md",
}

#: Where examples find an authserver, and whom it knows.
ENDPOINTS = {
    "https://auth.example.com": {"my-client": "my-secret"},
    "https://auth.eu.example.com": {"eu-client": "eu-secret"},
}
DJANGO_HAS_TASKS = django.VERSION >= (6,)
DOCTEST = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL


# Reading pages


@dataclass
class Block:
    """One fenced block: its language, the words after it, and its text."""

    language: str
    words: list[str]
    text: str
    line: int


@dataclass
class Typed:
    """One command of a console block, and what it prints according to the page."""

    command: str
    output: str


FENCE = re.compile(r"^```(\S*)[ \t]*([^\n]*)\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"# (\S+\.py)\n")


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    return [
        Block(found[1], found[2].split(), found[3], text.count("\n", 0, found.start()) + 1)
        for found in FENCE.finditer(text)
    ]


def typed(block: Block) -> list[Typed]:
    """Split a console block at its prompts."""
    parts = re.split(r"^\$ (.*)\n", block.text, flags=re.MULTILINE)
    assert not parts[0], "a console block begins with a prompt"
    return [Typed(*pair) for pair in zip(parts[1::2], parts[2::2], strict=True)]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text("utf-8"))


def table(page: Path, first: str) -> list[list[str]]:
    """Give the rows of the table whose first heading is ``first``."""
    lines = iter(prose(page).splitlines())
    for line in lines:
        if line.startswith(f"| {first} |"):
            break
    else:
        pytest.fail(f"{page.name} has no table that begins with {first!r}")
    assert re.fullmatch(r"\|[-|]+\|", next(lines))
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace(r"\|", "|") for cell in line.strip("|").split(" | ")])
    return rows


def code(cell: str) -> str:
    """Take the backticks off a cell that is code and nothing else."""
    assert re.fullmatch(r"`[^`]+`", cell), cell
    return cell.strip("`")


def matches(expected: str, got: str) -> bool:
    """Compare as doctest does: ``...`` stands for anything."""
    if not expected.strip():
        return True
    checker = doctest.OutputChecker()
    return checker.check_output(expected.strip() + "\n", got.strip() + "\n", DOCTEST)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


# The README


def sections(page: Path) -> dict[str, list[Block]]:
    """Give the blocks under each heading of level 2."""
    text = page.read_text("utf-8")
    found: dict[str, list[Block]] = {}
    parts = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)
    for heading, body in zip(parts[1::2], parts[2::2], strict=True):
        found[heading] = [Block(m[1], m[2].split(), m[3], 0) for m in FENCE.finditer(body)]
    return found


@pytest.mark.parametrize("heading", ["Try it", "Run the tests"])
def test_the_readme_has_one_line_to_paste(heading: str) -> None:
    (block,) = sections(ROOT / "README.md")[heading]
    (line,) = block.text.splitlines()
    # Where the system's Python refuses to install (PEP 668) a venv still works.
    assert line.startswith("python3 -m venv .")
    assert "sudo" not in line and "curl" not in line
    shlex.split(line)


def test_the_line_that_runs_the_tests_names_an_environment_of_tox() -> None:
    (block,) = sections(ROOT / "README.md")["Run the tests"]
    name = block.text.split()[-1]
    assert f"[testenv:{name}]" in (ROOT / "tox.ini").read_text("utf-8")


def test_the_venvs_of_the_readme_are_ignored_by_git() -> None:
    ignored = (ROOT / ".gitignore").read_text("utf-8").split()
    for heading in ("Try it", "Run the tests"):
        (block,) = sections(ROOT / "README.md")[heading]
        assert f"/{block.text.split()[3]}/" in ignored


# Links


def anchors(page: Path) -> set[str]:
    """Give the anchors of a page as Sphinx and as a repository's viewer make them."""
    text = prose(page)
    found = set(re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE))
    for heading in re.findall(r"^#{1,4} (.*)$", text, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(slug)
    return found


@pytest.mark.parametrize("page", [*PAGES, EXAMPLE], ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        there = (page.parent / path).resolve() if path else page
        if not there.is_file() or (anchor and anchor not in anchors(there)):
            dead.append(target)
    assert dead == []


def test_every_page_is_in_the_table_of_contents() -> None:
    index = (DOCS / "index.md").read_text("utf-8")
    named = "\n".join(block.text for block in blocks(DOCS / "index.md"))
    for page in DOCS.rglob("*.md"):
        name = page.relative_to(DOCS).with_suffix("").as_posix()
        folder = page.parent.name
        if name != "index" and "_build" not in page.parts:
            assert re.search(rf"^({name}|{folder}/\*)$", named, re.MULTILINE), name
    assert "tutorial" in index


def test_pages_name_their_languages_and_leave_little_out() -> None:
    left_out = 0
    for page in PAGES:
        for block in blocks(page):
            if not block.language.startswith("{"):
                assert block.language in {"python", "pycon", "console", "sh", "text", "ini"}, page
            assert not block.words or block.words in (["background"], ["log"]), page
        left_out += page.read_text("utf-8").count("# not-run: ")
    assert left_out <= 2


# Examples


class Page:
    """Runs the blocks of one page in this process."""

    def __init__(self, base: Path, stack: ExitStack, patch: pytest.MonkeyPatch) -> None:
        self.base = base
        self.stack = stack
        self.patch = patch
        self.servers = {}
        for endpoint, known in ENDPOINTS.items():
            server = FakeAuthserver(endpoint=endpoint, clients=known)
            self.servers[endpoint] = stack.enter_context(server.in_memory())
        (base / "keys").mkdir()
        (base / "keys" / "2026-11-01.pem").write_text(private_pem(generate_key("ES256")))
        shutil.copy(requests.certs.where(), base / "ca.pem")
        for name in ("SIGNING_KEY", "OLD_SIGNING_KEY"):
            patch.setenv(name, private_pem(generate_key("ES256")))
        patch.setenv("SIGNING_PASSPHRASE", "open sesame")
        celery = types.ModuleType("celery")
        vars(celery)["shared_task"] = lambda function: function
        patch.setitem(sys.modules, "celery", celery)
        self.override(
            {
                "BAIKAL": {
                    "default": {
                        "AUTHSERVER_ENDPOINT": "https://auth.example.com",
                        "CLIENT_ID": "my-client",
                        "CLIENT_SECRET": "my-secret",
                        "ISSUER": "https://me.example.com/",
                        "PRIVATE_CERTS_PATH": base / "keys",
                    }
                },
                "INSTALLED_APPS": ["django.contrib.contenttypes", "django.contrib.auth"],
                "CACHES": {
                    "default": {
                        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
                        "LOCATION": str(base),
                    }
                },
            },
        )
        # What the examples' names stand for, where a page leaves it open.
        self.namespace: dict[str, Any] = {"__name__": "example"}
        self.namespace["CALLBACK"] = "https://me.example.com/callback"

    def override(self, values: Mapping[str, Any]) -> None:
        values = dict(values)
        # The app under test is installed; a fragment that adds it shows how.
        apps = [*values.pop("INSTALLED_APPS", [])]
        if "django_baikal" not in apps and apps:
            apps.append("django_baikal")
        if apps:
            values["INSTALLED_APPS"] = list(dict.fromkeys(apps))
        self.stack.enter_context(override_settings(**values))

    def run(self, block: Block) -> None:
        if block.language == "python":
            self.python(block)
        elif block.language == "pycon":
            run_doctest(block.text, self.namespace)
        elif block.language == "console" and not block.words:
            for line in typed(block):
                self.type(line)

    def python(self, block: Block) -> None:
        text = re.sub(r"^.*# not-run: .+$", "", block.text, flags=re.MULTILINE)
        named = COMMENT.match(text)
        where = f"<line {block.line}>"
        if "django.tasks" in text and not DJANGO_HAS_TASKS:
            return
        if named and named[1] == "settings.py":
            before = {name: copy.deepcopy(getattr(settings, name)) for name in ("BAIKAL",)}
            before["INSTALLED_APPS"] = [*settings.INSTALLED_APPS]
            namespace: dict[str, Any] = {"BASE_DIR": self.base, **before}
            exec(compile(text, where, "exec"), namespace)
            self.override({k: v for k, v in namespace.items() if k.isupper() and k != "BASE_DIR"})
            for alias in clients:
                assert clients[alias]
        elif named:
            self.module(named[1], text, where)
        else:
            self.prepare_code(text)
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            compiled = compile(text, where, "exec", flags=flags)
            result = eval(compiled, self.namespace)
            if inspect.iscoroutine(result):
                asyncio.run(result)

    def prepare_code(self, text: str) -> None:
        """Log a user in, for an example that has a ``code`` to exchange."""
        if re.search(r"\bgrant_code\(code\b", text):
            started = clients["default"].start_authorization(self.namespace["CALLBACK"], "openid")
            # The example has no verifier, so neither has its request.
            plain = clients["default"].authorize("openid", None, self.namespace["CALLBACK"])
            assert started.url.startswith(plain.split("?", 1)[0])
            back = self.servers["https://auth.example.com"].authorize(plain)
            self.namespace["code"] = parse_qs(urlsplit(back).query)["code"][0]

    def module(self, path: str, text: str, where: str) -> None:
        parts = Path(path).with_suffix("").parts
        for depth in range(1, len(parts) + 1):
            made = types.ModuleType(".".join(parts[:depth]))
            made.__path__ = []
            self.patch.setitem(sys.modules, made.__name__, made)
        exec(compile(text, where, "exec"), made.__dict__)
        if parts[-1] == "urls":
            self.override({"ROOT_URLCONF": made.__name__})

    def type(self, line: Typed) -> None:
        if line.command.startswith("export "):
            # The shell reads it: a value may hold $(...).
            name = line.command.split()[1].split("=")[0]
            script = f'{line.command}; printf %s "${name}"'
            self.patch.setenv(name, self.shell(script))
        elif line.command.startswith("python manage.py "):
            out = io.StringIO()
            arguments = shlex.split(line.command)[2:]
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                call_command(*arguments)
            assert matches(line.output, out.getvalue())
        elif line.command.startswith("curl "):
            url = urlsplit(line.command.split()[-1])
            host = {"host": url.netloc}
            answer = Client().get(url.path, secure=url.scheme == "https", headers=host)
            assert answer.status_code == 200
            assert matches(line.output, answer.content.decode())
        else:
            assert matches(line.output, self.shell(line.command))

    def shell(self, command: str) -> str:
        program = command.split(maxsplit=1)[0]
        if program == "openssl" and not shutil.which(program):
            pytest.skip("openssl is not installed")
        done = subprocess.run(
            ["bash", "-c", f"set -e; {command}"],
            cwd=self.base,
            env=dict(os.environ),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout


def run_doctest(text: str, namespace: dict[str, Any]) -> None:
    test = doctest.DocTestParser().get_doctest(text, namespace, "page", None, 0)
    test.globs = namespace
    said: list[str] = []
    runner = doctest.DocTestRunner(verbose=False, optionflags=DOCTEST)
    runner.run(test, out=said.append, clear_globs=False)
    assert runner.failures == 0, "".join(said)


def runnable(page: Path) -> bool:
    if page == DOCS / "tutorial.md" or page.relative_to(ROOT).as_posix()[5:] in ELSEWHERE:
        return False
    return any(block.language in {"python", "pycon", "console"} for block in blocks(page))


@pytest.fixture
def page_runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    logger = logging.getLogger("django_baikal")
    level, handlers = logger.level, [*logger.handlers]
    ours = [each for each in vars(signals).values() if isinstance(each, Signal)]
    receivers = [[*each.receivers] for each in ours]
    with ExitStack() as stack:
        yield Page(tmp_path, stack, monkeypatch)
    # What a page configures and connects ends with it.
    logger.setLevel(level)
    logger.handlers[:] = handlers
    for each, before in zip(ours, receivers, strict=True):
        each.receivers = before


@pytest.mark.django_db
@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)], ids=name_of)
def test_the_examples_run(page: Path, page_runner: Page) -> None:
    for block in blocks(page):
        page_runner.run(block)


def test_the_login_that_is_shown_logs_a_user_in(page_runner: Page) -> None:
    for block in blocks(DOCS / "howto" / "get-tokens.md"):
        if COMMENT.match(block.text):
            page_runner.run(block)
    authserver = page_runner.servers["https://auth.example.com"]
    options = {
        "MIDDLEWARE": ["django.contrib.sessions.middleware.SessionMiddleware"],
        "SESSION_ENGINE": "django.contrib.sessions.backends.cache",
    }
    with override_settings(**options):
        browser = Client()
        url = browser.get("/login").headers["Location"]
        back = urlsplit(authserver.authorize(url))
        forged = browser.get("/callback", {"code": "x", "state": "y"})
        assert forged.status_code == 403
        # The forged answer has used the login up: it is for one answer.
        assert browser.get(f"/callback?{back.query}").status_code == 403
        back = urlsplit(authserver.authorize(browser.get("/login").headers["Location"]))
        done = browser.get(f"/callback?{back.query}")
        assert (done.status_code, done.headers["Location"]) == (302, "/")
        assert browser.session["refresh_token"]
        assert browser.get(f"/callback?{back.query}").status_code == 403
        said_no = urlsplit(
            authserver.authorize(browser.get("/login").headers["Location"], approve=False)
        )
        assert browser.get(f"/callback?{said_no.query}").status_code == 403


def test_the_call_that_is_shown_gets_a_new_token_after_a_401(page_runner: Page) -> None:
    for block in blocks(DOCS / "howto" / "get-tokens.md")[:3]:
        page_runner.run(block)
    tokens: list[str] = []

    class Api(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            tokens.append(self.headers["Authorization"])
            self.send_response(401 if len(tokens) == 1 else 200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api) as api:
        thread = threading.Thread(target=api.serve_forever)
        thread.start()
        answer = page_runner.namespace["call"](f"http://127.0.0.1:{api.server_port}/")
        api.shutdown()
        thread.join()
    assert answer.status_code == 200
    assert len(set(tokens)) == 2


def test_the_async_view_that_is_shown_answers(page_runner: Page) -> None:
    for block in blocks(DOCS / "howto" / "use-async.md"):
        page_runner.run(block)
    answer = asyncio.run(sys.modules["myapp.views"].status(None))
    assert answer.content == b'{"active": true}'


def up_to(page_runner: Page, text: str) -> None:
    """Run the blocks about the rotation of keys up to the one in which ``text`` stands."""
    for block in blocks(DOCS / "howto" / "rotate-keys.md"):
        page_runner.run(block)
        if text in block.text:
            return
    raise AssertionError(text)


@pytest.mark.django_db
def test_the_audit_log_that_is_shown_is_written(
    page_runner: Page, caplog: Any, django_capture_on_commit_callbacks: Any
) -> None:
    up_to(page_runner, "seal_failed")
    first, standby = SigningKey.objects.order_by("sequence")
    with (
        caplog.at_level(logging.INFO, "audit"),
        django_capture_on_commit_callbacks(execute=True),
    ):
        keepers(by="me")["default"].emergency(kid=first.kid, reason="a test")
    newest = SigningKey.objects.order_by("sequence").last()
    assert newest is not None
    keepers()["default"].promote(force=True)
    SigningKey.objects.filter(pk=newest.pk).update(private_envelope=b"cut")
    assert keepers()["default"].store.signing_key()
    SigningKey.objects.filter(pk=first.pk).update(revoked_at=None)
    with pytest.raises(StoreUnavailable):
        keepers()["default"].store.keys()
    *said, last = [each.getMessage() for each in caplog.records if each.name == "audit"]
    assert said == [
        f"ring default: {first.kid} was revoked: a test",
        f"ring default: me made {newest.kid}, to sign from {newest.activates_at}",
        f"ring default: {standby.kid} signs in the place of the active key",
    ]
    assert re.fullmatch(r"ring default: .* was tampered with\.", last)


@pytest.mark.django_db
@pytest.mark.parametrize("by", ["Celery", "Django"])
def test_the_tasks_that_are_shown_rotate_and_prune(page_runner: Page, by: str) -> None:
    if by == "Django" and not DJANGO_HAS_TASKS:
        pytest.skip("Django has no tasks before 6.0")
    up_to(page_runner, "CELERY_BEAT_SCHEDULE" if by == "Celery" else "@task")
    task = sys.modules["myapp.tasks"].rotate_keys
    run = task if by == "Celery" else task.enqueue
    SigningKey.objects.all().delete()
    run()
    first, standby = SigningKey.objects.order_by("sequence")
    assert (first.created_by, standby.created_by) == ("the scheduler", "the scheduler")
    keepers()["default"].revoke(standby.kid)
    run("default")
    _, revoked, made = SigningKey.objects.order_by("sequence")
    assert revoked.destroyed_at is not None
    assert made.activates_at > timezone.now()
    if by == "Celery":
        (entry,) = settings.CELERY_BEAT_SCHEDULE.values()
        assert entry["task"] == f"{task.__module__}.{task.__name__}"
        inspect.signature(task).bind(*entry["args"])


@pytest.mark.django_db
def test_the_tasks_that_are_shown_pass_over_a_race_and_over_nothing_else(
    page_runner: Page,
) -> None:
    up_to(page_runner, "except LostRace")
    rotate = sys.modules["myapp.keys"].rotate
    SigningKey.objects.all().delete()
    with meanwhile(keepers()["default"].rotate):
        rotate("default")
    assert SigningKey.objects.count() == 2
    SigningKey.objects.update(retention=1)
    with pytest.raises(Tampered):
        rotate("default")
    with pytest.raises(KeyError):
        rotate("another")


def test_each_line_of_the_migration_runs(tmp_path: Path) -> None:
    rows = table(DOCS / "howto" / "migrate-from-baikal-sdk.md", "with the baikal-sdk")
    assert len(rows) > 15
    (tmp_path / "2026-11-24.pem").write_text(private_pem(generate_key("RS256")))
    redirect_uri = "https://me.example.com/callback"
    server = FakeAuthserver(clients={"my-client": "my-secret"})
    entry = server.settings(ISSUER="https://me.example.com/", PRIVATE_CERTS_PATH=tmp_path)
    namespace: dict[str, Any] = {
        "endpoint": server.endpoint,
        "issuer": "https://me.example.com/",
        "directory": tmp_path,
        "redirect_uri": redirect_uri,
        "urlpatterns": [],
        "path": urls.path,
        "include": urls.include,
    }
    with server.in_memory(), override_settings(BAIKAL={"default": entry}):
        for old, new in rows:
            for code in re.findall("`([^`]+)`", old):
                ast.parse(code)
            (code,) = re.findall("^`([^`]+)`$", new)
            if "Name(id='code'" in ast.dump(ast.parse(code)):
                back = server.authorize(namespace["login"].url)
                namespace["code"] = parse_qs(urlsplit(back).query)["code"][0]
            compiled = compile(code, new, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            awaited = eval(compiled, namespace)
            if asyncio.iscoroutine(awaited):
                asyncio.run(awaited)


def test_a_key_is_replaced_as_the_page_says(tmp_path: Path) -> None:
    old, new = generate_key("ES256"), generate_key("ES256")
    (tmp_path / "2026-11-24.pem").write_text(private_pem(old))
    entry = {
        "AUTHSERVER_ENDPOINT": "https://auth.example.com",
        "CLIENT_ID": "my-client",
        "CLIENT_SECRET": "my-secret",
        "PRIVATE_CERTS_PATH": tmp_path,
    }

    def kids() -> list[str]:
        return [key["kid"] for key in clients["default"].get_jwk_set(dump_json=False)["keys"]]

    with override_settings(BAIKAL={"default": entry}):
        assert kids() == [old.kid]
        (tmp_path / "0-next.pem").write_text(private_pem(new))
        assert kids() == [old.kid, new.kid]  # the first is the one that signs
        (tmp_path / "0-next.pem").rename(tmp_path / "2026-12-24.pem")
        assert kids() == [new.kid, old.kid]
        (tmp_path / "2026-11-24.pem").unlink()
        assert kids() == [new.kid]


# The tutorial


class Tutorial:
    """Types the tutorial: in a directory of its own, with processes, on free ports."""

    def __init__(self, base: Path) -> None:
        self.here = base
        self.ports = dict(zip(("8089", "8000"), free_ports(2), strict=True))
        self.running: list[tuple[subprocess.Popen[str], Path]] = []
        binaries = base / "bin"
        binaries.mkdir()
        for name, command in (("python", ""), ("django-admin", " -m django")):
            program = binaries / name
            program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)}{command} "$@"\n')
            program.chmod(0o755)
        path = os.pathsep.join([str(binaries), os.environ["PATH"]])
        # The shown commands find django_baikal where this test finds it.
        found = os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
        dropped = ("DJANGO_SETTINGS_MODULE", "PYTEST_")
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
        self.environ |= {"PATH": path, "PYTHONPATH": found.strip(os.pathsep)}
        self.environ |= {"PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "error"}

    def moved(self, text: str) -> str:
        """Put the free ports in the place of the page's."""
        for shown, free in self.ports.items():
            text = text.replace(shown, free)
        return text

    def run(self, block: Block) -> None:
        if block.language == "python":
            named = COMMENT.match(block.text)
            assert named, f"line {block.line}: which file is this?"
            with (self.here / named[1]).open("a") as file:
                file.write(self.moved(block.text))
        elif (block.language, block.words) == ("text", ["log"]):
            self.expect_log(block.text)
        elif block.language == "console":
            for line in typed(block):
                if block.words == ["background"]:
                    self.start(line)
                else:
                    self.type(line)

    def type(self, line: Typed) -> None:
        command = self.moved(line.command)
        if command.startswith("cd "):
            self.here /= command.removeprefix("cd ")
            return
        expected = self.moved(line.output)
        if expected.startswith(">>> "):
            run = f"run_docstring_examples({expected!r}, {{}}, optionflags={DOCTEST})"
            driver = f"import doctest; doctest.{run}"
            command, expected = f"{command} -v 0 -c {shlex.quote(driver)}", ""
            got = self.shell(command)
            assert got == "", got
        elif command.startswith("curl "):
            # The server may be about to notice that a file has changed.
            self.wait(lambda: matches(expected, self.curl(command)))
        else:
            got = self.shell(command)
            assert matches(expected, got), (command, expected, got)

    def curl(self, command: str) -> str:
        """Give what curl prints, or why it fails: a server that starts again is not there."""
        return self.shell(f"{command} || echo failed: $?").replace("\r\n", "\n")

    def shell(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.here,
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def start(self, line: Typed) -> None:
        shown, option = {
            "baikal_authserver": ("8089", "--port "),
            "runserver": ("8000", ""),
        }[line.command.split()[2]]
        command = f"exec {line.command} {option}{self.ports[shown]}"
        output = self.here / f"output-{shown}"
        with output.open("w") as file:
            process = subprocess.Popen(
                ["bash", "-c", command],
                cwd=self.here,
                env=self.environ,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
        self.running.append((process, output))
        self.wait(lambda: process.poll() is not None or reachable(int(self.ports[shown])))
        assert process.poll() is None, output.read_text()
        if line.output:
            self.wait(lambda: matches(self.moved(line.output), output.read_text()))

    def expect_log(self, expected: str) -> None:
        """Find the lines in what runs aside, in their order; times and hashes are others."""

        def general(text: str) -> str:
            text = re.sub(r"\b\d\d:\d\d:\d\d\b", "<time>", text)
            return re.sub(r"\bsha256:[0-9a-f]{8}\b", "<hash>", text)

        def seen() -> bool:
            rest = iter(general(self.running[0][1].read_text()).splitlines())
            wanted = general(expected).splitlines()
            return all(any(line == each for line in rest) for each in wanted)

        self.wait(seen)

    def wait(self, ready: Callable[[], bool]) -> None:
        until = time.monotonic() + 120
        while not ready():
            assert time.monotonic() < until, [path.read_text() for _, path in self.running]
            time.sleep(0.05)

    def stop(self) -> None:
        for process, _ in self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)


def free_ports(number: int) -> list[str]:
    return [str(free_port()) for _ in range(number)]


def reachable(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not shutil.which("openssl") or not shutil.which("curl"), reason="needs both")
def test_the_tutorial_works_as_it_is_written(tmp_path: Path) -> None:
    tutorial = Tutorial(tmp_path)
    try:
        for block in blocks(DOCS / "tutorial.md"):
            tutorial.run(block)
    finally:
        tutorial.stop()


# Reference: settings


def rows_of_settings() -> dict[str, list[str]]:
    return {code(row[0]): row[1:] for row in table(DOCS / "reference" / "settings.md", "key")}


def test_every_setting_is_in_the_reference() -> None:
    assert tuple(rows_of_settings()) == values.KNOWN


def test_the_reference_says_of_each_setting_what_the_code_says() -> None:
    rows = rows_of_settings()
    required = {name for name, _ in conf.problems("other", {})[1]}
    for field in fields(ClientConfig):
        if field.name == "alias":
            continue
        name = field.name.upper()
        _, default, unit, meaning = rows[name]
        own = getattr(ClientConfig(), field.name)
        assert meaning == field.metadata["meaning"], name
        assert unit == (field.metadata["unit"] or "-"), name
        if default in ("none", "required"):
            assert own in ("", (), None, {}), name
            assert (default == "required") == (name in required), name
        else:
            listed = [*own] if isinstance(own, tuple) else own
            assert ast.literal_eval(code(default)) == listed, name


#: A good and a bad value of each type that the table names.
TYPES: dict[str, tuple[Any, Any]] = {
    "URL": ("https://x.example.com", "x.example.com"),
    "string": ("issuer", 1),
    "path": (Path(), 1),
    "store": ({"BACKEND": "a.B"}, {"BACKEND": 7}),
    "list of dicts": ([{"key": "x"}], [1]),
    "dict": ({"a": ["app.view"]}, ["a"]),
    "number": (0.5, "x"),
    "whole number": (7, 0.5),
    "bool": (True, 1),
    "bool or path": (True, 1),
    "pair of paths": (("a", "b"), "a"),
    "list of strings": (["https://x.example.com"], "https://x.example.com"),
}
#: A good value of those for which not every value of their type is one.
FITTING: dict[str, Any] = {
    "CLIENT_AUTH_METHOD": "client_secret_post",
    "METADATA_STALE": 1e6,
    "JWKS_TTL": 60.5,
    "JWKS_COOLDOWN": 60.5,
    "JWKS_STALE": 1e6,
    "VALIDATION": "hybrid",
    "JWT_TYPES": ["JWT", None],
    "JWT_ALGORITHMS": ["ES256"],
}


def test_the_options_of_keys_are_those_that_the_reference_says() -> None:
    rows = {code(row[0]): row for row in table(DOCS / "reference" / "settings.md", "option")}
    config = ClientConfig()
    options_of = key_options.options_of
    given = {
        name: ast.literal_eval(code(row[1]))
        for name, row in rows.items()
        if name != "ENCRYPTION_KEYS"
    }
    assert options_of(config, given).timing == options_of(config, {}).timing
    assert {*given, "ENCRYPTION_KEYS"} == {*key_options.OPTIONS}
    assert (given["RING"], given["ALG"], given["BITS"]) == ("default", "RS256", 2048)
    text = prose(DOCS / "reference" / "settings.md")
    timing = options_of(config, {}).timing
    for least in (timing.shortest_propagation, timing.shortest_retention):
        assert f"{least:,.0f} s with the defaults" in text


def test_each_setting_has_the_type_that_the_reference_says() -> None:
    for name, (kind, *_) in rows_of_settings().items():
        if name == "ENV_PREFIX":
            continue
        good, bad = TYPES[kind]
        good = FITTING.get(name, good)
        assert any(sentence.startswith(name) for _, sentence in conf.problems("x", {name: bad})[1])
        wrong = [sentence for key, sentence in conf.problems("x", {name: good})[1] if key == name]
        assert wrong == [], name


def test_the_spellings_of_verify_certs_are_those_that_are_read() -> None:
    rows = table(DOCS / "reference" / "settings.md", "value")
    given = {"AUTHSERVER_ENDPOINT": "https://x.example.com", "CLIENT_ID": "x", "CLIENT_SECRET": "x"}
    shown = set()
    for (cell, _), expected in zip(rows[:2], (True, False), strict=True):
        for word in re.findall(r"`(\w+)`", cell):
            found, wrong = conf.problems("x", {**given, "VERIFY_CERTS": word.upper()})
            assert (found["verify_certs"], wrong) == (expected, []), word
            shown.add(word.lower())
    assert shown == set(values.BOOLEANS)


def test_the_environment_is_described() -> None:
    text = prose(DOCS / "reference" / "settings.md").partition("## From the environment")[2]
    named = re.findall(r"`([A-Z_]+)`", text.partition("Stronger first")[0])
    unprefixed = [name for name in named if name.startswith("AIOHTTP")]
    assert tuple(unprefixed) == conf.UNPREFIXED
    assert [n for n in named if n not in unprefixed and n != "ENV_PREFIX"] == [
        "BAIKAL_",
        *conf.ENVIRONMENT,
    ]
    page = DOCS / "howto" / "configure-from-the-environment.md"
    variables = [name for row in table(page, "variable") for name in re.findall(r"`(\w+)`", row[0])]
    assert variables == [*(f"BAIKAL_{name}" for name in conf.ENVIRONMENT), *conf.UNPREFIXED]


# Reference: errors


def errors() -> dict[str, type[BaikalError]]:
    found = inspect.getmembers(exceptions, inspect.isclass)
    return {name: each for name, each in found if issubclass(each, BaikalError)}


def test_the_tree_of_errors_is_the_real_one() -> None:
    rows = table(DOCS / "reference" / "errors.md", "class")
    shown = {code(row[0]): (code(row[1]), code(row[2])) for row in rows}
    assert shown == {n: (each.__bases__[0].__name__, each.code) for n, each in errors().items()}
    for row in rows:
        assert all(row), row
        assert getattr(django_baikal, code(row[0])) is errors()[code(row[0])]


def test_the_attributes_of_errors_are_the_real_ones() -> None:
    page = DOCS / "reference" / "errors.md"
    text = prose(page).partition("## Attributes")[2].partition("## More")[0]
    shown = set(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", text, re.MULTILINE))
    real = {("BaikalError", "code")}
    for each in (AuthserverError, InsufficientAuthentication, InsufficientScope, KeyLoadError):
        own = {name for name in vars(each("x")) if name != "code"}
        real |= {(each.__name__, name) for name in own}
    real |= {("AuthserverError", "retryable")}
    assert shown == real
    assert isinstance(AuthserverError.retryable, bool)


def codes_in_the_code() -> set[tuple[str, str]]:
    """Find each ``SomeError(..., code="...")`` of the package, and the ``code, problem = ...``."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        if "testing" in path.relative_to(PACKAGE).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                for keyword in node.keywords:
                    if keyword.arg == "code" and isinstance(keyword.value, ast.Constant):
                        called = node.func.id if isinstance(node.func, ast.Name) else "?"
                        found.add((str(keyword.value.value), called))
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
                names = [getattr(name, "id", "") for name in node.targets[0].elts]
                if names[0] == "code" and isinstance(node.value, ast.Tuple):
                    first = node.value.elts[0]
                    assert isinstance(first, ast.Constant)
                    found.add((str(first.value), "AuthserverUnavailable"))
    return found


def test_every_exact_code_is_in_the_reference() -> None:
    rows = table(DOCS / "reference" / "errors.md", "code")
    assert {(code(row[0]), code(row[1])) for row in rows} == codes_in_the_code()


# Reference: checks, commands, logging


def test_every_check_is_in_the_reference() -> None:
    rows = table(DOCS / "reference" / "checks.md", "id")
    assert {code(row[0]): row[1] for row in rows} == checks.IDS
    assert all(row[2] for row in rows)


def options_of(name: str) -> dict[str, Any]:
    """Give the options that the command has beside those of every command."""
    parser = load_command_class("django_baikal", name).create_parser("manage.py", name)
    common = load_command_class("django.core", "check").create_parser("manage.py", "check")
    ignored = {option for each in common._actions for option in each.option_strings}
    ignored -= {"--tag", "-t", "--list-tags", "--deploy", "--fail-level", "--database"}
    return {
        option: action.default
        for action in parser._actions
        if not isinstance(action, argparse._HelpAction)
        for option in action.option_strings
        if option not in ignored
    }


def test_every_command_and_option_is_in_the_reference() -> None:
    page = DOCS / "reference" / "commands.md"
    folder = PACKAGE / "management" / "commands"
    names = {path.stem for path in folder.glob("*.py") if path.stem != "__init__"}
    assert set(re.findall(r"^## `(\w+)`", prose(page), re.MULTILINE)) == names
    text = page.read_text("utf-8")
    for name in names:
        section = text.partition(f"## `{name}`")[2].split("\n## ")[0]
        shown = dict(re.findall(r"^\| `(--[\w-]+)` \| (.*?) \|", section, re.MULTILINE))
        options = options_of(name)
        assert set(shown) == set(options), name
        for option, default in options.items():
            if default is False:
                assert shown[option] == "off"
            elif default is not None:
                assert code(shown[option]) == str(default)


def test_every_logger_is_in_the_reference() -> None:
    used = set()
    for path in PACKAGE.rglob("*.py"):
        used |= set(re.findall(r'getLogger\("([\w.]+)"\)', path.read_text("utf-8")))
    rows = table(DOCS / "reference" / "logging.md", "logger")
    assert {code(row[0]) for row in rows} == used


def test_every_level_that_is_logged_at_is_in_the_reference() -> None:
    used = set()
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text("utf-8")
        names = dict(re.findall(r'\b(\w*logger) = logging.getLogger\("([\w.]+)"\)', text))
        for logger, method in re.findall(r"\b(\w*logger)\.(\w+)\(", text):
            used.add((names[logger], "ERROR" if method == "exception" else method.upper()))
    rows = table(DOCS / "reference" / "logging.md", "logger")
    assert {(code(row[0]), row[1]) for row in rows} == used


# Reference: the client


def shown_signature(function: Callable[..., Any]) -> str:
    """Write a signature without self and annotations, as the reference does."""
    signature = inspect.signature(function)
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for name, parameter in signature.parameters.items()
        if name != "self"
    ]
    bare = signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)
    return str(bare).replace("'", '"')


def public_methods(cls: type) -> dict[str, Callable[..., Any]]:
    found = inspect.getmembers(cls, inspect.isfunction)
    return {name: each for name, each in found if not name.startswith("_")}


def test_every_method_is_in_the_reference_with_its_signature() -> None:
    headings = re.findall(r"^## `(.*)`$", prose(DOCS / "reference" / "client.md"), re.MULTILINE)
    methods = public_methods(OpenIDClient)
    synchronous = {name for name in methods if f"a{name}" in methods}
    wanted = {f"OpenIDClient{shown_signature(OpenIDClient.__init__)}", "config"}
    # It is one of requests, which has no coroutines.
    alone = {"session"}
    wanted |= {name + shown_signature(methods[name]) for name in synchronous | alone}
    assert set(headings) == wanted
    # Nothing is public beside these and their twins.
    assert set(methods) == synchronous | {f"a{name}" for name in synchronous} | alone


def test_the_second_names_of_the_async_client_are_in_the_reference() -> None:
    text = prose(DOCS / "reference" / "client.md")
    for name in set(vars(AsyncOpenIDClient)) - set(vars(BaseClient)):
        if name.startswith("async_"):
            assert f"`{name}`" in text


def test_which_methods_take_headers_and_timeout_is_as_the_page_says() -> None:
    text = " ".join((DOCS / "howto" / "get-tokens.md").read_text("utf-8").split())
    without = re.search(r"Every method but (.*?) takes `headers`", text)
    assert without
    named = set(re.findall(r"`(\w+)`", without[1]))
    methods = public_methods(OpenIDClient)
    for name in (name for name in methods if f"a{name}" in methods):
        parameters = set(inspect.signature(methods[name]).parameters)
        assert ({"headers", "timeout"} <= parameters) == (name not in named), name


# Reference: keepers and signals


def test_every_method_of_a_keeper_is_in_the_reference_with_its_signature() -> None:
    page = DOCS / "reference" / "keys.md"
    rows = table(page, "method")
    wanted = {name + shown_signature(each) for name, each in public_methods(Keeper).items()}
    assert {code(row[0]) for row in rows} == wanted
    assert f"## `keepers{shown_signature(keepers)}`" in page.read_text("utf-8")
    source = inspect.getsource(Keeper)
    actions = set(re.findall(r'Outcome\("(\w+)"', source)) | {"promoted", "revoked"}
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row[2])} == actions


def test_every_signal_is_in_the_reference_with_its_arguments() -> None:
    rows = table(DOCS / "reference" / "keys.md", "signal")
    bearers = table(DOCS / "reference" / "protection.md", "signal")
    # Its arguments are asked for in test_telemetry.py.
    requests = table(DOCS / "reference" / "client.md", "signal")
    assert [code(row[0]) for row in (*rows, *bearers, *requests)] == [
        name for name, each in vars(signals).items() if isinstance(each, Signal)
    ]
    sent = {}
    for path in (PACKAGE / "keys").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".send_robust"):
                names = [keyword.arg for keyword in node.keywords]
                sent[ast.unparse(node.func)] = (ast.unparse(node.args[0]), names)
    told = sent.pop("signal.send_robust")  # of a keeper: for either of the first two
    wanted = {f"signals.{name}.send_robust": told for name in ("key_created", "key_revoked")}
    assert {
        f"signals.{code(row[0])}.send_robust": (
            code(row[1]),
            re.findall(r"`(\w+)`", row[2]),
        )
        for row in rows
    } == {**sent, **wanted}


# Reference: URLs


def test_the_headers_are_those_that_are_sent(page_runner: Page) -> None:
    page = DOCS / "reference" / "urls-and-views.md"
    shown = {code(row[0]): row[1] for row in table(page, "header")}
    paths = table(page, "path")
    with override_settings(MIDDLEWARE=[]):
        for path, _, view in paths:
            if "<ring>" in path:
                continue  # the page has no ring; test_ring_views.py has some
            answer = Client().get(code(path))
            assert set(answer.headers) - {"Content-Length"} == set(shown)
            for name, value in shown.items():
                if name != "ETag":
                    assert answer.headers[name] == code(value)
            module, _, name = code(view).rpartition(".")
            assert importlib.import_module(module) is views
            assert answer.resolver_match.func.view_class is getattr(views, name)  # type: ignore[attr-defined]
            assert Client().get("/", PATH_INFO=f"/{code(path)}").content == answer.content


def test_the_names_of_the_urls_are_those_that_are_shown() -> None:
    from django.urls import reverse

    for path, name, _ in table(DOCS / "reference" / "urls-and-views.md", "path"):
        given = {"ring": "eu"} if "<ring>" in path else {}
        found = reverse(code(name), kwargs=given).replace("//", "/")
        assert found == code(path).replace("<ring>", "eu")


def test_the_status_codes_are_those_that_are_answered(page_runner: Page) -> None:
    shown = {row[0] for row in table(DOCS / "reference" / "urls-and-views.md", "status")}
    jwks, metadata = "/.well-known/jwks.json", "/.well-known/openid-configuration"
    browser = Client()
    first = browser.get(jwks)
    seen = {first.status_code}
    known = {"If-None-Match": first.headers["ETag"]}
    seen.add(browser.get(jwks, headers=known).status_code)
    seen.add(browser.post(jwks).status_code)
    entry = copy.deepcopy(settings.BAIKAL["default"])
    with override_settings(BAIKAL={"default": {**entry, "ISSUER": "urn:me"}}):
        seen.add(browser.get(metadata).status_code)
    with override_settings(BAIKAL={"default": {**entry, "PRIVATE_CERTS_PATH": "/nowhere"}}):
        broken = browser.get(jwks)
        seen.add(broken.status_code)
        assert broken.headers["Retry-After"] == "30"
        assert broken.headers["Cache-Control"] == "no-store"
    without = {name: value for name, value in entry.items() if name != "PRIVATE_CERTS_PATH"}
    with override_settings(BAIKAL={"default": without}):
        assert browser.get(jwks).headers["Cache-Control"] == "no-store"
    assert {str(status) for status in seen} == shown


# These tests themselves


@pytest.mark.parametrize(
    ("page", "old", "new", "check"),
    [
        ("settings", "| `TIMEOUT` |", "| `TIMEOUTS` |", test_every_setting_is_in_the_reference),
        (
            "settings",
            "| `15` |",
            "| `20` |",
            test_the_reference_says_of_each_setting_what_the_code_says,
        ),
        (
            "settings",
            "Bounds an introspection.",
            "Bounds it.",
            test_the_reference_says_of_each_setting_what_the_code_says,
        ),
        ("errors", "`oauth_error`", "`oauth`", test_the_tree_of_errors_is_the_real_one),
        (
            "errors",
            "| `issuer_mismatch` |",
            "| `mismatch` |",
            test_every_exact_code_is_in_the_reference,
        ),
        ("checks", "E003", "E004", test_every_check_is_in_the_reference),
        ("commands", "`--quiet`", "`--silent`", test_every_command_and_option_is_in_the_reference),
        (
            "logging",
            "django_baikal.cache",
            "django_baikal.x",
            test_every_logger_is_in_the_reference,
        ),
        (
            "keys",
            'reason=""',
            "reason=None",
            test_every_method_of_a_keeper_is_in_the_reference_with_its_signature,
        ),
        (
            "keys",
            "| `ring`, `reason` |",
            "| `ring` |",
            test_every_signal_is_in_the_reference_with_its_arguments,
        ),
        (
            "client",
            "dump_json=True",
            "dump_json=False",
            test_every_method_is_in_the_reference_with_its_signature,
        ),
    ],
)
def test_a_page_that_is_wrong_is_noticed(
    page: str,
    old: str,
    new: str,
    check: Callable[[], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    changed = tmp_path / "docs" / "reference" / f"{page}.md"
    text = changed.read_text("utf-8")
    assert old in text
    changed.write_text(text.replace(old, new), "utf-8")
    monkeypatch.setitem(globals(), "DOCS", tmp_path / "docs")
    with pytest.raises(AssertionError):
        check()


def test_an_example_that_fails_is_noticed(page_runner: Page) -> None:
    good = Block("python", [], "from django_baikal import clients\n", 1)
    page_runner.run(good)
    page_runner.run(Block("pycon", [], ">>> 1 + 1\n2\n", 1))
    for language, text in (
        ("pycon", ">>> 1 + 1\n3\n"),
        ("console", "$ echo a\nb\n"),
        ("console", "$ false\n"),
        ("python", "assert clients['default'].grant_client() is None\n"),
    ):
        with pytest.raises(AssertionError):
            page_runner.run(Block(language, [], text, 1))
    with pytest.raises(ConfigurationError):
        page_runner.run(Block("python", [], "# settings.py\nBAIKAL['default']['X'] = 1\n", 1))
