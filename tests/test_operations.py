"""The runbook is true: each part of it happens, and is done as the page says, in a real project.

Log lines and commands are read from the page, in their order, and every block is used. What stops
is a process that really stops. ``systemctl restart my-project`` starts the project's server anew.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import operations_stage
import pytest
from keys_stage import aliases, refused
from operations_stage import Project, postgresql, redis_server, until
from test_docs import DOCS, Block, Typed, code, matches, prose, sections, table, typed

from django_baikal.keys.rotation import Timing
from django_baikal.models import SigningKey
from django_baikal.protocol.config import ClientConfig

pytest.importorskip("gunicorn", reason="gunicorn is not installed")
pytestmark = [
    pytest.mark.programs,
    pytest.mark.skipif(
        not all(map(shutil.which, ("bash", "curl", "grep", "openssl"))),
        reason="bash, curl, grep or openssl is not on this machine",
    ),
]

PAGE = DOCS / "operations.md"
PRODUCTION = DOCS / "howto" / "go-to-production.md"
#: The parts that tell what to do, each of which has a test of that name below.
PARTS = {
    "The authserver is down",
    "The authserver refuses your client",
    "The authserver changes its keys",
    "The cache is down",
    "The database is down",
    "A private key has leaked",
    "Rotate by hand",
    "A key-encryption key is missing",
    "Move from `SECRET_KEY` to a key of its own",
}


class Part:
    """A part of the page, block by block; at the end of a ``with`` none is left."""

    def __init__(self, heading: str, project: Project) -> None:
        self.left = [*sections(PAGE)[heading]]
        self.project = project
        self.seen = 0
        for line in exports():
            project.type(line)

    def __enter__(self) -> Part:
        self.seen = len(self.project.server.said)
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is None:
            assert [block.text for block in self.left] == []

    def _next(self, language: str, *words: str) -> Block:
        block = self.left.pop(0)
        assert (block.language, *block.words) == (language, *words), block.text
        return block

    def commands(self) -> None:
        """Type the commands of the next block."""
        for line in typed(self._next("console")):
            self.project.type(line)

    def commands_at_last(self) -> None:
        """Type them again and again, until they print what they should."""
        lines = typed(self._next("console"))
        wrong = ""

        def right() -> bool:
            nonlocal wrong
            try:
                for line in lines:
                    self.project.type(line)
            except AssertionError as error:
                wrong = str(error)
                return False
            return True

        until(right, lambda: wrong)

    def settings(self) -> None:
        """Add the next block to the settings."""
        text = self._next("python").text
        assert text.startswith("# settings.py\n")
        with (self.project.base / "settings.py").open("a") as file:
            file.write(text)

    def log(self) -> None:
        """Find the lines of the next block in what the project's server has said meanwhile."""
        for line in self._next("text", "log").text.splitlines():
            until(lambda line=line: self.said(line), lambda line=line: (line, self._log()))

    def said(self, line: str) -> bool:
        return any(matches(line, each) for each in self._log())

    def _log(self) -> list[str]:
        return self.project.server.said[self.seen :]


def exports() -> list[Typed]:
    """Give what the page exports before its first part."""
    first = PAGE.read_text("utf-8").partition("\n## ")[0]
    return [Typed(line[2:], "") for line in re.findall(r"^\$ export .*$", first, re.MULTILINE)]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Project]]:
    """Start a project with its authserver, which has been asked about all that it has."""
    with ExitStack() as stack:

        def start(**options: Any) -> Project:
            project = Project(tmp_path, stack, **options)
            project.authserver.start()
            project.server.start()
            return project

        yield start


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


# The page


def test_each_part_has_a_test() -> None:
    assert {*sections(PAGE)} == {"What the log says", *PARTS}
    for heading in PARTS:
        words = re.sub(r"\W+", "_", heading.lower()).strip("_")
        assert any(name.startswith(f"test_{words}") for name in globals()), heading


def test_each_part_says_the_same_four_things() -> None:
    text = PAGE.read_text("utf-8")
    for heading in PARTS:
        body = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
        for words in ("**It shows**", "**What goes on**", "**Do**", "**It is over**"):
            assert words in body, (heading, words)


def test_the_times_on_the_page_are_the_defaults() -> None:
    timing = {name.upper(): value for name, value in asdict(Timing()).items()}
    found = re.findall(r"`([A-Z_]+)` \((\d+) s\)", " ".join(prose(PAGE).split()))
    assert len(found) > 8
    for name, seconds in found:
        default = getattr(ClientConfig(), name.lower(), None)
        assert int(seconds) == (timing[name] if default is None else default), name


def test_what_the_log_says_is_in_the_part_that_it_leads_to() -> None:
    rows = table(PAGE, "in the log")
    for phrases, link in rows:
        heading = re.findall(r"\[(.*)\]", link)[0]
        if heading not in PARTS:
            continue
        logged = "".join(b.text for b in sections(PAGE)[heading] if b.words == ["log"])
        for phrase in phrases.split(", "):
            assert code(phrase) in logged, phrase
    # The last row leads to another page.
    assert [code(phrase) for phrase in rows[-1][0].split(", ")] == [*TAMPERED]


TAMPERED: dict[str, Callable[[], Any]] = {
    "was tampered with": lambda: SigningKey.objects.filter(sequence=2).update(retention=1),
    "A row was deleted": lambda: SigningKey.objects.filter(sequence=2).delete(),
}


@pytest.mark.django_db
@pytest.mark.parametrize("phrase", TAMPERED)
def test_a_row_that_was_tampered_with_is_said_to_be(phrase: str, settings: Any) -> None:
    from django.core.management import call_command

    settings.BAIKAL = aliases()
    call_command("rotate_keys", verbosity=0)
    call_command("rotate_keys", now=True, force=True, verbosity=0)
    TAMPERED[phrase]()
    status, sentence, _ = refused("rotate_keys", "--check")
    assert status == 5
    assert phrase in sentence


# Its parts


def test_the_authserver_is_down(started: Callable[..., Project]) -> None:
    project = started()
    known, id_token = project.token(), project.id_token()
    own = project.get("report").text
    assert project.get("login", id_token=id_token).text == "user-1\n"
    assert project.get("orders", known).text == "orders\n"
    with Part("The authserver is down", project) as part:
        project.authserver.stop()
        part.commands()
        for _ in range(5):
            assert project.get("orders", "unknown").status_code == 503
        assert project.get("pay").status_code == 500
        part.log()
        goes_on = {
            "a cached token": lambda: project.get("report").text == own,
            # Nobody has to look for it: what is refused is the request itself.
            "the authserver's metadata": lambda: part.said("...POST ...: the connection ..."),
            "verifying id tokens": lambda: project.get("login", id_token=id_token).ok,
            "a caller's token that was good": lambda: project.get("orders", known).ok,
            "a caller's token that is new": lambda: project.get("orders", "new").status_code == 503,
            "a new token, an introspection": lambda: project.get("pay").status_code == 500,
        }
        assert [what for what, _ in table(PRODUCTION, "what")] == [*goes_on]
        for what, check in goes_on.items():
            assert check(), what
        part.commands()
        project.authserver.start()
        part.commands_at_last()
        token = project.token()
        assert project.get("orders", token).ok
        assert project.get("pay").ok
    # Why the page says to restart nothing.
    project.authserver.stop()
    project.server.restart()
    assert project.get("login", id_token=id_token).status_code == 500
    assert project.get("report").status_code == 500


def test_the_authserver_refuses_your_client(started: Callable[..., Project]) -> None:
    project = started()
    known = project.token()
    own = project.get("report").text
    assert project.get("orders", known).ok
    with Part("The authserver refuses your client", project) as part:
        project.environ["SITE_CLIENT_SECRET"] = "a-new-secret"
        project.authserver.restart()
        assert project.get("orders", "unknown").status_code == 503
        assert project.get("pay").status_code == 500
        part.log()
        assert project.get("report").text == own
        assert project.get("orders", known).ok
        project.environ["SITE_CLIENT_SECRET"] = "shop-secret"
        part.commands()
        project.environ["SITE_CLIENT_SECRET"] = "a-new-secret"
        part.commands()
        part.commands()
        assert project.get("orders", project.token()).ok
        assert project.get("pay").ok


def test_the_authserver_changes_its_keys(started: Callable[..., Project]) -> None:
    project = started()
    assert project.get("login", id_token=project.id_token()).ok
    with Part("The authserver changes its keys", project) as part:
        project.authserver.restart()  # it has new keys then, and none of the old ones
        old = project.id_token()
        assert project.get("login", id_token=old).ok, "its key is published"
        assert "InvalidSignature" not in "".join(project.server.said)
        project.authserver.restart()
        assert project.get("login", id_token=old).ok, "for JWKS_TTL"
        logged = part.left.pop(0)
        part.commands()
        part.commands()
        assert project.get("login", id_token=old).status_code == 500
        part.left.insert(0, logged)
        part.log()
        assert project.get("login", id_token=project.id_token()).ok
        # A process has just looked in vain, and looks again when JWKS_COOLDOWN is over.
        project.authserver.restart()
        new = project.id_token()
        until(lambda: project.get("login", id_token=new).ok)


def test_the_cache_is_down(started: Callable[..., Project]) -> None:
    redis = redis_server()
    with ExitStack() as stack:
        stack.callback(redis.stop)
        redis.start()
        project = started(cache=f"rediscache://127.0.0.1:{redis.port}/0")
        token = project.token()
        first = project.get("report").text
        assert project.get("orders", token).ok
        assert project.get("report").text == first
        with Part("The cache is down", project) as part:
            others = [project.token() for _ in range(3)]
            redis.stop()
            # The process has known its own token without the cache, for PROCESS_TTL.
            until(lambda: project.get("report").text != first)
            before = len(project.authserver.said)
            assert project.get("orders", others[0]).ok
            part.log()
            assert project.get("orders", others[1]).ok
            assert project.get("report").text != project.get("report").text
            asked = ["POST introspection", "POST token"] * 2
            until(lambda: sorted(asked) == sorted(posted(project.authserver.said[before:])))
            project.authserver.stop()
            assert project.get("orders", others[2]).status_code == 503
            project.authserver.start()
            part.commands()
            settings = project.base / "settings.py"
            kept = settings.read_text()
            part.settings()
            part.commands()
            assert project.get("report").text == project.get("report").text
            settings.write_text(kept)
            project.server.restart()
            assert project.get("report").ok
            redis.start()
            part.commands()
            assert project.get("report").text == project.get("report").text


def posted(said: list[str]) -> list[str]:
    """Give what the authserver was asked for."""
    return re.findall(r"  (POST \w+)  ", "".join(said))


@pytest.mark.parametrize("kind", ["PostgreSQL", "SQLite"])
def test_the_database_is_down(
    kind: str, started: Callable[..., Project], stack: ExitStack, tmp_path: Path
) -> None:
    file = tmp_path / "db.sqlite3"
    if kind == "PostgreSQL":
        server = postgresql(stack)
        server.start()
        stack.callback(server.stop)
        url = f"postgres://postgres@127.0.0.1:{server.port}/postgres"
        project, stop, start = started(database=url), server.stop, server.start
    else:
        project = started()

        def stop() -> None:
            file.rename(tmp_path / "away")
            file.mkdir()  # which no database can be made in the place of

        def start() -> None:
            file.rmdir()
            (tmp_path / "away").rename(file)

    own, kids = project.get("report").text, project.kids()
    assert project.get("pay").ok
    with Part("The database is down", project) as part:
        stop()
        # Whoever asks now shall ask again soon, and not in JWKS_MAX_AGE.
        until(lambda: "max-age=60," in project.jwks().headers["Cache-Control"])
        part.log()
        part.commands()
        assert project.kids() == kids
        assert project.get("pay").ok
        assert project.get("report").text == own
        assert project.get("orders", project.token()).ok
        project.server.restart()
        part.commands()
        assert project.get("pay").status_code == 500
        assert part.said("django_baikal.exceptions.StoreUnavailable: ...")
        assert project.get("report").ok
        start()
        part.commands()
        part.commands_at_last()
        assert project.kids() == kids
        assert project.get("pay").ok


def test_a_private_key_has_leaked(started: Callable[..., Project]) -> None:
    project = started()
    leaked, standby = project.kids()
    assert project.get("pay").ok
    with Part("A private key has leaked", project) as part:
        part.commands()
        assert project.get("pay").ok, "everybody knows the standby"
        part.commands()
        project.given["KID"] = standby
        until(lambda: standby == project.kids()[0])
        signs = project.kids()[1]
        part.commands()
        until(lambda: signs == project.kids()[0])
        shown = project.shell(typed(part.left[0])[0].command)
        part.commands()
        assert shown.splitlines() == [f'"kid":"{kid}"' for kid in project.kids()]
        assert not {leaked, standby} & {*project.kids()}


def test_rotate_by_hand(started: Callable[..., Project]) -> None:
    project = started(age=8)
    (signs,) = project.kids()[:1]
    with Part("Rotate by hand", project) as part:
        part.commands()
        assert project.get("pay").ok
        part.commands()
        part.commands()
        part.commands_at_last()
        assert project.kids()[0] == signs
        assert project.get("pay").ok


def replaced(project: Project) -> str:
    """Replace SECRET_KEY as somebody does who thinks of nothing; give the old one."""
    old = project.environ["SITE_SECRET_KEY"]
    project.environ["SITE_SECRET_KEY"] = "another-one-" + "y" * 50
    return old


def test_a_key_encryption_key_is_missing_and_is_put_back(started: Callable[..., Project]) -> None:
    project = started()
    kids = project.kids()
    assert project.get("pay").ok
    with Part("A key-encryption key is missing", project) as part:
        old = replaced(project)
        part.commands()
        assert project.get("pay").ok, "it is from before"
        project.server.restart()
        assert project.get("pay").status_code == 500
        assert project.jwks().status_code == 503
        part.log()
        project.environ["SITE_SECRET_KEY_FALLBACKS"] = old
        part.commands()
        assert project.get("pay").ok
        part.commands()
        del project.environ["SITE_SECRET_KEY_FALLBACKS"]
        project.server.restart()
        assert project.get("pay").ok
        assert project.kids() == kids
        # The rest is for those who have lost it.
        del part.left[:2]
        part.commands()


def test_a_key_encryption_key_is_missing_and_nobody_has_it(started: Callable[..., Project]) -> None:
    project = started()
    kids = project.kids()
    replaced(project)
    project.server.restart()
    assert project.jwks().status_code == 503
    with Part("A key-encryption key is missing", project) as part:
        del part.left[:4]
        part.settings()
        part.commands()
        part.commands()
        assert not {*kids} & {*project.kids()}
        assert project.get("pay").ok


def test_move_from_secret_key_to_a_key_of_its_own(started: Callable[..., Project]) -> None:
    project = started()
    kids, warning = project.kids(), "python manage.py check --deploy"
    with Part("Move from `SECRET_KEY` to a key of its own", project) as part:
        part.commands()
        part.commands()
        assert "SECRET_KEY," in project.environ["BAIKAL_KEY_ENCRYPTION_KEYS"]
        assert project.get("pay").ok
        first_step = {**project.environ}
        part.commands()
        assert project.get("pay").ok
        # Processes of the first step read what the second one has written, and lead back.
        last_step, project.environ = project.environ, first_step
        project.shell("python manage.py rotate_keys --check")
        assert 'export BAIKAL_KEY_ENCRYPTION_KEYS="SECRET_KEY,$KEY_OF_KEYS"' in prose(PAGE)
        project.environ = last_step
        part.commands()
        assert project.get("pay").ok
        assert "W007" not in project.shell(warning)
        # Nothing hangs on SECRET_KEY any more.
        replaced(project)
        project.server.restart()
        part.commands()
    assert project.kids() == kids
    assert project.get("pay").ok


# These tests themselves


def test_a_page_that_is_wrong_is_noticed(
    started: Callable[..., Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations_stage, "PATIENCE", 5)
    part = Part("Rotate by hand", started(age=8))
    for block in (
        Block("console", [], "$ python manage.py rotate_keys --chek\n", 0),
        Block("console", [], "$ echo exit status 3\nexit status 4\n", 0),
        Block("text", ["log"], "Listening in vain at: ...\n", 0),
        Block("python", [], "BAIKAL = {}\n", 0),
        Block("console", [], "$ python manage.py rotate_keys --dry-run\nRing another:\n...\n", 0),
    ):
        by = {"text": part.log, "python": part.settings}.get(block.language, part.commands)
        part.left = [block]
        with pytest.raises(AssertionError):
            by()
    with pytest.raises(AssertionError), part:
        part.left = [block]
    with part:
        part.left = [Block("text", ["log"], "...Booting worker...\n", 0)]
        part.seen = 0
        part.log()
