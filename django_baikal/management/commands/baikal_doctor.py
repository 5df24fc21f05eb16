"""``manage.py baikal_doctor``: find what is wrong, and say what to do about it."""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.core.management.color import no_style
from django.views.decorators.debug import sensitive_variables

from django_baikal import conf
from django_baikal.doctor import FAILED, PASSED, SKIPPED, Finding, examine
from django_baikal.management.keys_output import plain, wrapped

#: Exit statuses.
WRONG, NOT_EXAMINED = 1, 2
#: No token is longer; the rest of standard input is not read.
LONGEST = 1024 * 1024
_INDENT = " " * 11


class Command(BaseCommand):
    """Examine each alias of ``BAIKAL``; exit status 1 if an examination failed."""

    help = (
        "Tries what django-baikal needs to work, changes nothing, and names the cure of whatever "
        "is wrong: settings, the authserver, its certificate and clock, the client, a token, our "
        "own keys and how others see them, the cache. The exit status is 0 if all is well, 1 if "
        "something is wrong, 2 if that could not be found out."
    )
    # What the checks would stop at is what is to be examined.
    requires_system_checks: ClassVar[list[str]] = []  # type: ignore[misc]

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options."""
        parser.add_argument("--using", metavar="ALIAS", help="By default every alias of BAIKAL.")
        parser.add_argument(
            "--format",
            choices=("text", "json"),
            default="text",
            help="What is printed, %(default)s by default.",
        )
        parser.add_argument(
            "--token",
            metavar="-",
            help="Examine the bearer token on standard input, which must be written as '-': what "
            "stands on a command line is seen by others. By default the client gets itself one.",
        )

    @sensitive_variables("token")
    def handle(self, *_args: Any, **options: Any) -> None:
        """Examine, and report."""
        aliases = _aliases(options["using"])
        token = _token(options["token"], aliases)
        counts: Counter[str] = Counter()
        try:
            if options["format"] == "json":
                self._json(aliases, token, counts)
            else:
                self._text(aliases, token, counts, options)
        except KeyboardInterrupt:
            raise CommandError("Interrupted.", returncode=NOT_EXAMINED) from None
        if failed := counts[FAILED]:
            what = "1 examination" if failed == 1 else f"{failed} examinations"
            raise CommandError(f"{what} failed.", returncode=WRONG)

    def _json(self, aliases: list[str], token: str | None, counts: Counter[str]) -> None:
        found = []
        for alias in aliases:
            findings = list(_counted(alias, token, counts))
            shown = [{**each._asdict(), "cure": each.cure or None} for each in findings]
            found.append({"alias": alias, "findings": shown})
        totals = {status: counts[status] for status in (PASSED, FAILED, SKIPPED)}
        self.stdout.write(json.dumps({"schema": 1, **totals, "aliases": found}, indent=2))

    def _text(
        self, aliases: list[str], token: str | None, counts: Counter[str], options: dict[str, Any]
    ) -> None:
        plainly = not self.stdout.isatty() or os.environ.get("NO_COLOR")
        if plainly and not options["force_color"]:
            self.style = no_style()
        quiet = options["verbosity"] == 0
        for alias in aliases:
            heading = f"BAIKAL[{alias!r}]:"
            for finding in _counted(alias, token, counts):
                if quiet and finding.status != FAILED:
                    continue
                if heading:
                    self._write(heading)
                    heading = ""
                self._finding(finding)
            if not quiet:
                self._write("")
        if not quiet:
            totals = (f"{counts[status]} {status}" for status in (PASSED, FAILED, SKIPPED))
            self._write(f"{', '.join(totals)}.")

    def _finding(self, finding: Finding) -> None:
        """Print one, and the cure below it; the status is a word, for whoever sees no colours."""
        style = {PASSED: self.style.SUCCESS, FAILED: self.style.ERROR, SKIPPED: self.style.WARNING}
        first, *rest = wrapped(f"{finding.name}: {finding.what}", _INDENT)
        self._write(f"  {style[finding.status](f'{finding.status:<7}')}  {first.lstrip()}")
        for line in [*rest, *wrapped(f"Cure: {finding.cure}" if finding.cure else "", _INDENT)]:
            self._write(line)

    def _write(self, line: str) -> None:
        self.stdout.write(plain(line, getattr(self.stdout, "encoding", None)))
        # One examination may take a while, and whoever waits is to see which.
        self.stdout.flush()


def _counted(alias: str, token: str | None, counts: Counter[str]) -> Iterator[Finding]:
    for finding in examine(alias, token=token):
        counts[finding.status] += 1
        yield finding


def _aliases(using: str | None) -> list[str]:
    try:
        found = conf.aliases()
    except ImproperlyConfigured as error:
        raise CommandError(str(error), returncode=NOT_EXAMINED) from None
    if using is not None and using not in found:
        raise CommandError(
            f"BAIKAL has no alias {using!r}; there are: {', '.join(found)}.",
            returncode=NOT_EXAMINED,
        )
    return found if using is None else [using]


@sensitive_variables()
def _token(given: str | None, aliases: list[str]) -> str | None:
    if given is None:
        return None
    if given != "-":
        raise CommandError(
            "--token takes '-' alone, and the token on standard input: what stands on a command "
            "line is seen by others.",
            returncode=NOT_EXAMINED,
        )
    if len(aliases) > 1:
        # Each authserver would be told a token of the others.
        raise CommandError(
            f"Say with --using whose token it is: {', '.join(aliases)}.", returncode=NOT_EXAMINED
        )
    read = b"" if sys.stdin is None else sys.stdin.buffer.read(LONGEST)
    # Whatever it is, it is looked at as a header would be.
    if not (token := read.decode("latin-1").strip()):
        raise CommandError("--token: there is nothing on standard input.", returncode=NOT_EXAMINED)
    return token
