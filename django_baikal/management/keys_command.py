"""What the commands that keep keys have in common: rings, times, and exit statuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, ClassVar, NamedTuple

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import Error, connections, router, transaction
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from django_baikal.exceptions import (
    BaikalError,
    EncryptionKeyMissing,
    LostRace,
    Refused,
    Tampered,
)
from django_baikal.keys.operations import Keeper, keepers
from django_baikal.management.keys_output import parse_duration, plain, printable
from django_baikal.models import SigningKey
from django_baikal.protocol.jwk import ALGORITHMS, RSA_BITS

#: Exit statuses.
FAILED, USAGE, DUE, REFUSED, UNAVAILABLE, NOT_VISIBLE = 1, 2, 3, 4, 5, 6
#: The end of the calendar would stop every sum of times.
FARTHEST = timedelta(days=3660)
#: How often a command begins again because another process was faster.
ATTEMPTS = 5


class Problem(NamedTuple):
    """An error: its exit status, what a program calls it, and a sentence."""

    status: int
    action: str
    sentence: str


def problem(error: Exception) -> Problem:
    """Say what is wrong in one sentence."""
    match error:
        case LostRace():
            return Problem(0, "lost_race", str(error))
        case Refused():
            return Problem(REFUSED, "refused", str(error))
        case EncryptionKeyMissing():
            hint = (
                "Put it back, behind the first one: an old SECRET_KEY into SECRET_KEY_FALLBACKS, "
                "any other into ENCRYPTION_KEYS."
            )
            return Problem(UNAVAILABLE, "unavailable", f"{error} {hint}")
        case Tampered():
            hint = 'See "When a row was tampered with" in the guide "Rotate your keys".'
            return Problem(UNAVAILABLE, "unavailable", f"{error} {hint}")
        case Error():
            return Problem(UNAVAILABLE, "unavailable", _of_database(error))
    return Problem(FAILED, "failed", str(error))


def _of_database(error: Error) -> str:
    table = SigningKey._meta.db_table
    try:
        tables = connections[database()].introspection.table_names()
    except Error:
        tables = [table]
    if table not in tables:
        return f"The database has no table {table}: run manage.py migrate."
    # The last, for MariaDB's have a number before it.
    said = str(error.args[-1]) if error.args else ""
    reason = printable(next(iter(said.strip().splitlines()), ""))
    return f"The database failed ({type(error).__name__}){f': {reason}' if reason else '.'}"


def database() -> str:
    """Give the alias of the database that keys are written to."""
    return router.db_for_write(SigningKey)


@contextmanager
def explained() -> Iterator[None]:
    """Turn every error that is to be expected into a CommandError."""
    try:
        yield
    except (BaikalError, ImproperlyConfigured, Error) as error:
        found = problem(error)
        # Whoever has lost a race to the end has not done what it was to do.
        raise CommandError(found.sentence, returncode=found.status or FAILED) from error


@contextmanager
def rehearsal() -> Iterator[None]:
    """Undo whatever the block writes."""
    with transaction.atomic(using=database()):
        yield
        transaction.set_rollback(True, using=database())


class KeysCommand(BaseCommand):
    """A command that keeps keys."""

    # A mistake elsewhere in the project must not keep keys from rotating, or from being revoked.
    requires_system_checks: ClassVar[list[str]] = []  # type: ignore[misc]

    @property
    def encoding(self) -> str | None:
        """The encoding of standard output; None if it takes any character."""
        found: str | None = getattr(self.stdout, "encoding", None)
        return found

    def output(self, lines: list[str]) -> str:
        """Make text out of lines, in characters that the terminal has."""
        return plain("\n".join(lines), self.encoding)

    def rings(
        self, ring: str | None, *, every: bool = False, by: str | None = None
    ) -> dict[str, Keeper]:
        """Give the ring that is named, or else the only one, or "default"; or ``every`` one."""
        with explained():
            found = keepers(by=by or self.name)
        if not found:
            raise CommandError(
                "No alias of BAIKAL keeps keys in the database: give one of them "
                'KEYS = {"BACKEND": "django_baikal.keys.database.DatabaseKeyStore"}.'
            )
        if every and ring is None:
            return found
        names = ", ".join(sorted(found))
        if ring is not None and ring not in found:
            raise CommandError(f"No alias of BAIKAL has the ring {ring!r}; there are: {names}.")
        if ring is None and len(found) > 1 and "default" not in found:
            raise usage(f"Say with --ring which one is meant: {names}.")
        chosen = ring or (next(iter(found)) if len(found) == 1 else "default")
        return {chosen: found[chosen]}

    @property
    def name(self) -> str:
        """The command's name."""
        return type(self).__module__.rpartition(".")[2]


def usage(sentence: str) -> CommandError:
    """Make the error for options that make no sense."""
    return CommandError(sentence, returncode=USAGE)


def moment(option: str, given: str | datetime) -> datetime:
    """Read a time to come, with its offset from UTC."""
    example = "2026-12-01T03:00:00Z"
    try:
        value = given if isinstance(given, datetime) else parse_datetime(given)
    except ValueError:
        value = None
    if value is None:
        raise usage(f"{option} {given!r} is not a time; write it as {example}.")
    if value.tzinfo is None:
        raise usage(f"{option} {given!r} does not say its offset from UTC; write {example}.")
    now = timezone.now()
    value = value if settings.USE_TZ else timezone.make_naive(value)
    if value <= now:
        raise usage(f"{option} {given!r} is in the past.")
    if value > now + FARTHEST:
        raise usage(f"{option} {given!r} is more than ten years away.")
    return value


def activation(options: dict[str, Any]) -> datetime | None:
    """Read --activate-at or --activate-in."""
    at, later = options["activate_at"], options["activate_in"]
    if at is not None and later is not None:
        raise usage("--activate-at and --activate-in exclude each other.")
    if at is not None:
        return moment("--activate-at", at)
    if later is None:
        return None
    length = later if isinstance(later, timedelta) else parse_duration(str(later))
    if not length or length < timedelta(0):
        raise usage(f"--activate-in {later!r} is not a length of time; write 90m, 36h or 7d.")
    if length > FARTHEST:
        raise usage(f"--activate-in {later!r} is more than ten years.")
    return timezone.now() + length


def check_kind(alg: str | None, bits: int | None, default: str) -> None:
    """Refuse a kind of key that there is not."""
    if alg is not None and alg not in ALGORITHMS:
        raise usage(f"--alg {alg!r} is not known; use {', '.join(ALGORITHMS)}.")
    if bits is None:
        return
    if ALGORITHMS[alg or default].kty != "RSA":
        raise usage(f"--bits is for RSA keys, and the alg is {alg or default}.")
    if not RSA_BITS[0] <= bits <= RSA_BITS[1]:
        raise usage(f"--bits must be {RSA_BITS[0]} to {RSA_BITS[1]}.")
