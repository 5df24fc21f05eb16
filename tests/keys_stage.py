"""What the tests of the commands that keep keys share: settings, clocks, and how to run them."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import override_settings
from django.utils import timezone
from programs import Program, running

from django_baikal.keys.operations import Keeper, keepers
from django_baikal.models import SigningKey

TESTS = Path(__file__).resolve().parent
STORE = "django_baikal.keys.database.DatabaseKeyStore"
#: A Tuesday.
START = datetime(2030, 1, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def aliases(**rings: dict[str, Any]) -> dict[str, Any]:
    """Give BAIKAL with a ring of ES256 keys, which are quickly made, for each alias."""
    return {
        alias: {
            **settings.BAIKAL["default"],
            "KEYS": {"BACKEND": STORE, "OPTIONS": {"ALG": "ES256", **options}},
        }
        for alias, options in (rings or {"default": {}}).items()
    }


@contextmanager
def ring(alone: bool = True, **options: Any) -> Iterator[None]:
    """Keep the keys of the alias default in a ring of the database."""
    found = aliases(default=options)
    if not alone:
        found["default"]["PRIVATE_CERTS_PATH"] = str(TESTS)
    with override_settings(BAIKAL=found):
        yield


class Clock:
    """The time, as the commands see it."""

    def __init__(self, patch: Any) -> None:
        self.now = START
        patch.setattr(timezone, "now", lambda: self.now)

    def pass_(self, **length: float) -> None:
        self.now += timedelta(**length)


def keeper(ring: str = "default") -> Keeper:
    return keepers(by="a test")[ring]


def rows(ring: str = "default") -> list[SigningKey]:
    return list(SigningKey.objects.filter(ring=ring).order_by("sequence"))


def everything() -> list[dict[str, Any]]:
    """Give all that the table holds, to see that nothing has changed."""
    found = SigningKey.objects.order_by("pk").values()
    return [{k: bytes(v) if isinstance(v, memoryview) else v for k, v in r.items()} for r in found]


def run(*arguments: str, **options: Any) -> str:
    """Run a command that succeeds; give what it prints."""
    out = io.StringIO()
    returned = call_command(*arguments, stdout=out, **options)
    printed = out.getvalue()
    assert printed == (f"{returned.rstrip()}\n" if returned else "")
    return printed


def refused(*arguments: str, **options: Any) -> tuple[int, str, str]:
    """Run a command that fails: give its exit status, its sentence, and what it prints."""
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command(*arguments, stdout=out, stderr=err, **options)
    except CommandError as error:
        return error.returncode, err.getvalue() + str(error), out.getvalue()
    raise AssertionError(f"It succeeded: {out.getvalue()}")


def text(text: str, **names: str) -> str:
    """Put kids into an expected text; all at once, for a kid may look like a name."""
    return re.sub("|".join(names), lambda found: names[found[0]], text)


def database_in(path: Path) -> str:
    """Give the URL of a SQLite file there."""
    return f"sqlite:///{path}/keys.sqlite3"


def database_of_the_tests(path: Path) -> str:
    """Give the URL of the database of the tests, or of a file if theirs is in memory."""
    if connection.vendor == "sqlite":
        return database_in(path)
    return f"{os.environ['DATABASE_URL'].rpartition('/')[0]}/{connection.settings_dict['NAME']}"


class Project:
    """A project in processes of its own, with a database in a file, or the one at ``database``."""

    def __init__(
        self, path: Path, *, migrate: bool = True, database: str = "", **environment: str
    ) -> None:
        self.environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "keys_project",
            "KEYS_DATABASE": database or database_in(path),
            **environment,
        }
        if migrate:
            assert self("migrate", "--verbosity", "0")[0] == 0

    def __call__(self, *arguments: str, input: bytes = b"", **environment: str) -> Any:
        """Run a command: its exit status, what it prints, and what it says is wrong."""
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "django", *arguments],
            cwd=TESTS,
            env={**self.environment, **environment},
            input=input,
            capture_output=True,
            check=False,
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def served(self, *options: str) -> AbstractContextManager[Program]:
        """Serve the project with gunicorn."""
        command = [sys.executable, "-m", "gunicorn", "--bind=127.0.0.1:0"]
        return running([*command, *options, "keys_wsgi"], self.environment, cwd=TESTS)
