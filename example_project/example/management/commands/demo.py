"""``manage.py demo``: an authserver and this site, talking to each other, step by step."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import textwrap
import threading
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, ClassVar

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connection, connections

from django_baikal import clients
from django_baikal.testing import FakeAuthserver
from example import clock, outage, steps
from example.serving import HOST, serving

PORT = 8000
_MARGIN = " " * 14


class Command(BaseCommand):
    """Show every step; exit status 0, or 1 as soon as one fails."""

    help = (
        "Starts an authserver and this site on this machine, shows step by step how they talk to "
        "each other, and leaves the site running. Needs no account and no network, and brings its "
        "database along."
    )
    # Nothing is configured before it starts.
    requires_system_checks: ClassVar[list[str]] = []  # type: ignore[misc]  # Django has it as an instance's

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options."""
        parser.add_argument(
            "--exit", action="store_true", help="End after the last step, for instance in CI."
        )
        parser.add_argument(
            "--port",
            type=int,
            help=f"The site's port; 0 takes a free one. By default {PORT}, or a free one if "
            "that is taken.",
        )

    def authserver(self) -> FakeAuthserver:
        """Make the authserver."""
        return FakeAuthserver(clients={"example-site": "example-secret"})

    def handle(self, *_args: Any, **options: Any) -> None:
        """Start everything, take the steps, and wait."""
        if connection.vendor == "unknown":
            raise CommandError("Start it as `manage.py demo`, which brings a database along.")
        with _ended_by_signal(), _quiet(), clock.movable(), ExitStack() as stack:
            stack.callback(connections.close_all)
            authserver = stack.enter_context(outage.switchable(self.authserver()))
            site = stack.enter_context(_site(options["port"]))
            call_command("migrate", verbosity=0)
            variables = {
                f"BAIKAL_{name}": value for name, value in authserver.settings(ISSUER=site).items()
            }
            stack.enter_context(_environment(variables))
            self._introduce(authserver.endpoint, site, variables)
            self._take_steps()
            if options["exit"]:
                return
            self._say(
                f"The site is running at {site}",
                "Its page shows the same steps and takes them again. Ctrl-C ends it.",
            )
            # Not for ever at once: a signal that another thread receives wakes nobody.
            while not threading.Event().wait(0.5):  # pragma: no branch: a signal ends it
                ...
        self._say("Stopped; the keys are deleted.")

    def _introduce(self, authserver: str, site: str, variables: dict[str, str]) -> None:
        keys = clients["default"].config.keys or {}
        shown = {**variables, "BAIKAL_CLIENT_SECRET": "(a secret, never printed)"}
        self._say(
            self.style.MIGRATE_HEADING("django-baikal, step by step"),
            "",
            *_wrapped(
                "A site with users and an authserver that issues tokens: both run on this "
                "machine now, and talk over real HTTP. The authserver is the strict one that "
                "django-baikal brings for tests."
            ),
            "",
            f"  authserver  {authserver}/",
            f"  site        {site}",
            "",
            *_wrapped(
                "All that the site has to configure, as variables (or in the setting BAIKAL):"
            ),
            "",
            *(f"  {name:<27} {value}" for name, value in shown.items()),
            "",
            *_wrapped("And, in that setting, where its keys are and rotate; the demo has SQLite:"),
            "",
            f'  "KEYS": {{"BACKEND": "{keys["BACKEND"]}"}}',
            "",
        )

    def _take_steps(self) -> None:
        run = steps.begin()
        for outcome in run:
            self._show(outcome)
            if outcome.problem:
                raise CommandError(
                    f"Step {outcome.number} failed ({outcome.step.title}): {outcome.problem}"
                )
        self._say(
            self.style.SUCCESS(f"All {len(run.outcomes)} steps succeeded, in {run.took}."), ""
        )

    def _show(self, outcome: steps.Outcome) -> None:
        title, ok = f"{outcome.number}. {outcome.step.title}", not outcome.problem
        result, style = ("ok", self.style.SUCCESS) if ok else ("FAILED", self.style.ERROR)
        filling = " " * max(2, _width() - len(title) - len(result) - 9)
        lines = _wrapped(outcome.step.code, "   we did     ")
        for at, (name, text) in enumerate(outcome.answers):
            head = _MARGIN if at else "   answer     "
            lines += _wrapped(text, f"{head}{name:<12}", f"{_MARGIN:<26}")
        if ok:
            lines += _wrapped(outcome.step.proves, "   it proves  ")
        self._say(
            f"{self.style.MIGRATE_HEADING(title)}{filling}{style(result)}{outcome.took:>9}",
            *lines,
            "",
        )

    def _say(self, *lines: str) -> None:
        self.stdout.write("\n".join(lines) + "\n")
        # A pipe would keep it, and whoever waits for the address would wait for ever.
        self.stdout.flush()


def _width() -> int:
    return max(50, min(80, shutil.get_terminal_size().columns))


def _wrapped(text: str, head: str = "", margin: str = _MARGIN) -> list[str]:
    return textwrap.wrap(
        text,
        _width(),
        initial_indent=head,
        subsequent_indent=margin if head else "",
        break_on_hyphens=False,
        break_long_words=False,
    )


@contextmanager
def _site(port: int | None) -> Iterator[str]:
    """Serve the site; only a port that somebody has asked for must be that one."""
    with ExitStack() as stack:
        try:
            site = stack.enter_context(serving(PORT if port is None else port))
        except (OSError, OverflowError) as error:
            if port is not None:
                raise CommandError(
                    f"Port {port} of {HOST} cannot be used ({error}); choose another one with "
                    "--port, or 0 for one that is free."
                ) from None
            site = stack.enter_context(serving())
        yield site


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Let the environment say this of ``BAIKAL``, and nothing else."""
    # Both are on this machine: a proxy has nothing to do with it.
    variables = {**variables, "no_proxy": HOST}
    before = {
        name: os.environ.pop(name)
        for name in list(os.environ)
        if name in variables or name.startswith("BAIKAL_")
    }
    os.environ |= variables
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]
        os.environ |= before


@contextmanager
def _quiet() -> Iterator[None]:
    """Let no log repeat what the steps are there to show: requests that are refused."""
    loggers = [logging.getLogger(name) for name in ("django.request", "django_baikal.bearer")]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


class _Ended(BaseException):
    """A signal asks the command to end."""


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """End the block quietly on Ctrl-C and SIGTERM."""

    numbers = (signal.SIGINT, signal.SIGTERM)

    def end(_number: int, _frame: FrameType | None) -> None:
        # Once is enough: another one must not disturb the tidying up.
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise _Ended

    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    except _Ended:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
