"""``manage.py rotate_keys``: see that the keys of a ring go on rotating; safe to run by cron."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError
from django.db import Error
from django.utils import timezone

from django_baikal import conf
from django_baikal.exceptions import (
    AuthserverError,
    BaikalError,
    InvalidResponse,
    KeyStoreError,
    LostRace,
    Refused,
)
from django_baikal.keys.database import opened
from django_baikal.keys.due import lacks_standby, overdue, unwiped
from django_baikal.keys.operations import CANNOT_SIGN, Keeper, Outcome
from django_baikal.keys.rotation import PENDING, Ring, Timing
from django_baikal.management.keys_command import (
    ATTEMPTS,
    DUE,
    NOT_VISIBLE,
    UNAVAILABLE,
    KeysCommand,
    activation,
    check_kind,
    problem,
    rehearsal,
    usage,
)
from django_baikal.management.keys_output import iso, summary, when, wrapped
from django_baikal.models import SigningKey
from django_baikal.performers import Performer, Runtime
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.effects import Fetch, Request
from django_baikal.protocol.messages import default_headers, json_answer
from django_baikal.protocol.urls import is_loopback, split_http_url, without_query

#: How many characters the row has for a reason.
LONGEST_REASON = 255


@dataclass
class Report:
    """What was done to one ring."""

    ring: str
    dry_run: bool = False
    action: str = "noop"
    kid: str | None = None
    activates_at: datetime | None = None
    signs: str | None = None
    unpublish_at: dict[str, str] = field(default_factory=dict)
    revoked: list[str] = field(default_factory=list)
    pruned: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    status: int = 0
    error: str = ""
    #: For a person: what was done, and how the ring is then.
    done: list[str] = field(default_factory=list)
    state: list[str] = field(default_factory=list)

    def about(self, action: str, row: SigningKey) -> None:
        """Say what was done to which key."""
        self.action, self.kid, self.activates_at = action, row.kid, row.activates_at

    def fail(self, status: int, action: str, sentence: str) -> None:
        """End with an error; nothing that was reported is taken back."""
        self.status, self.action, self.error = status, action, sentence

    def program(self) -> dict[str, Any]:
        """Give it for a program."""
        found: dict[str, Any] = {
            "schema": 1,
            "action": self.action,
            "ring": self.ring,
            "kid": self.kid,
            "activates_at": iso(self.activates_at),
            "signs": self.signs,
            "unpublish_at": self.unpublish_at,
            "revoked": self.revoked,
            "pruned": self.pruned,
            "dry_run": self.dry_run,
            "warnings": self.warnings,
        }
        return {**found, "error": self.error} if self.error else found

    def person(self, verbosity: int) -> list[str]:
        """Give it for a person; with verbosity 0 only what is wrong."""
        warnings = [line for text in self.warnings for line in wrapped(f"Warning: {text}", " " * 2)]
        if verbosity == 0:
            return [f"Ring {self.ring}:", *warnings] if warnings else []
        if not self.done and not self.state and not warnings:
            return []
        would = " (nothing is written: this is a dry run)" if self.dry_run else ""
        lines = [f"Ring {self.ring}{would}:"]
        for text in self.done:
            lines += wrapped(text, " " * 2)
        return [*lines, *self.state, *warnings]


class Command(KeysCommand):
    """Make, promote and revoke keys, so that one can always sign and the next one is known."""

    help = (
        "Sees that each key of a ring has a successor that everybody knows before it signs, and "
        "wipes the private halves of old keys. Run it by cron, each hour or each day: when there "
        "is nothing to do, it does nothing."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options."""
        parser.add_argument(
            "--now",
            action="store_true",
            help="Let the standby sign at once; refused while somebody may not have seen it yet.",
        )
        parser.add_argument(
            "--emergency",
            action="store_true",
            help="Revoke the key that signs, let the standby sign at once, and make a new standby.",
        )
        parser.add_argument(
            "--kid", help="With --emergency: the key to revoke; --kid=KID if it begins with '-'."
        )
        parser.add_argument("--reason", help="With --emergency: why, for the record.")
        parser.add_argument("--ring", help="By default the only one, or 'default'.")
        parser.add_argument("--all-rings", action="store_true", help="One ring after the other.")
        parser.add_argument("--alg", help="The algorithm of a new key, by default that of KEYS.")
        parser.add_argument("--bits", type=int, help="The length of a new RSA key.")
        parser.add_argument(
            "--activate-at", help="When a new key is to sign, for instance 2026-12-01T03:00:00Z."
        )
        parser.add_argument(
            "--activate-in", help="In how long a new key is to sign, for instance 36h or 7d."
        )
        parser.add_argument(
            "--verify-url",
            help="Fetch the JWK Set here; a standby that is not in it is put off, and the exit "
            "status is 6.",
        )
        parser.add_argument(
            "--check",
            action="store_true",
            help="Change nothing; the exit status is 3 if something is due.",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="Say what would be done, and do nothing."
        )
        parser.add_argument(
            "--no-prune", action="store_true", help="Leave the private halves of old keys alone."
        )
        parser.add_argument(
            "--force",
            action="store_true",
            help="Do also what is refused because somebody may not have seen the key yet.",
        )
        parser.add_argument(
            "--format",
            choices=("text", "json"),
            default="text",
            help="What is printed, %(default)s by default.",
        )

    def handle(self, *_args: Any, **options: Any) -> str:
        """Do what is to be done to each ring, and report."""
        _check_options(options)
        activates_at = activation(options)
        url = options["verify_url"]
        if url is not None:
            _check_url(url)
        found = self.rings(options["ring"], every=options["all_rings"])
        for keeper in found.values():
            check_kind(options["alg"], options["bits"], keeper.options.alg)
        reports = [
            self._ring(name, keeper, options, activates_at) for name, keeper in found.items()
        ]
        output = self._output(reports, options)
        failed = [report for report in reports if report.status]
        if not failed:
            return output
        if output:
            self.stdout.write(output)
        for report in failed[1:]:
            self.stderr.write(f"Ring {report.ring}: {report.error}")
        first = f"Ring {failed[0].ring}: {failed[0].error}"
        raise CommandError(first, returncode=failed[0].status)

    def _output(self, reports: list[Report], options: Mapping[str, Any]) -> str:
        if options["format"] == "json":
            programs = [report.program() for report in reports]
            return json.dumps(programs if options["all_rings"] else programs[0], indent=2)
        texts = ["\n".join(report.person(options["verbosity"])) for report in reports]
        return self.output(["\n\n".join(text for text in texts if text)])

    def _ring(
        self, name: str, keeper: Keeper, options: dict[str, Any], activates_at: datetime | None
    ) -> Report:
        report = Report(ring=name, dry_run=options["dry_run"])
        try:
            with rehearsal() if options["dry_run"] else nullcontext():
                before = {row.kid for row in keeper.read().rows}
                work = _Work(keeper, report, options, activates_at)
                work.check() if options["check"] else work.do()
                work.describe(before)
        except (BaikalError, ImproperlyConfigured, Error) as error:
            report.fail(*problem(error))
        return report


class _Work:
    """What is done to one ring."""

    def __init__(
        self,
        keeper: Keeper,
        report: Report,
        options: Mapping[str, Any],
        activates_at: datetime | None,
    ) -> None:
        self.keeper = keeper
        self.report = report
        self.options = options
        self.activates_at = activates_at
        self.timing: Timing = keeper.options.timing

    def do(self) -> None:
        """Do what the options ask for."""
        if self.options["verify_url"] is not None:
            self.verify()
        if self.options["emergency"]:
            self.emergency()
        elif not self.options["now"]:
            self.rotate()
        elif not self.report.status:
            self.promote()
            self.rotate()
        if not self.options["no_prune"]:
            self.prune()

    # -- one thing each ---------------------------------------------------------------------------

    def rotate(self) -> None:
        """See that there is a standby."""
        given = self.options
        try:
            outcome = self.keeper.rotate(
                alg=given["alg"],
                bits=given["bits"],
                activates_at=self.activates_at,
                force=given["force"],
            )
        except LostRace as error:
            self._lost(error)
            return
        if outcome.action == "noop":
            self._nothing_to_make()
        elif outcome.action == "promoted":
            self._succeeded("No key signed", outcome)
        else:
            *first, standby = outcome.created
            if self.report.action == "noop":
                self.report.about("created", standby)
            both = "Made a key, which signs from now on, and its standby."
            self.report.done.append(both if first else "Made a new standby.")

    def _nothing_to_make(self) -> None:
        if self.report.action == "noop":
            standby = self.keeper.read().standby(timezone.now())
            if standby is not None:
                self.report.about("noop", standby)
            self.report.done.append("Nothing to make: there is a standby.")
        for option in ("alg", "bits", "activate_at", "activate_in"):
            if self.options[option] is not None:
                name = option.replace("_", "-")
                self.report.warnings.append(
                    f"--{name} changed nothing: it is for a new key, and none was made."
                )

    def _lost(self, error: LostRace) -> None:
        if self.report.action == "noop":
            self.report.action = "lost_race"
        self.report.done.append(f"{error} Nothing was left to do.")

    def promote(self) -> None:
        """Let the standby sign from now on."""
        try:
            outcome = self.keeper.promote(force=self.options["force"])
        except LostRace as error:
            self._lost(error)
            return
        self.report.about("promoted", outcome.changed[0])
        self.report.done.append("The standby signs from now on.")

    def emergency(self) -> None:
        """Revoke a key for good, and see that another one signs."""
        named = self.options["kid"]
        for _ in range(ATTEMPTS):
            ring, now = self.keeper.read(), timezone.now()
            kid = named or ((active := ring.active(now)) and active.kid)
            if named and _is_revoked(ring, named):
                self.report.kid = named
                self.report.done.append(f"Key {named} had been revoked already.")
                return
            try:
                outcome = self.keeper.emergency(kid=named, reason=self.options["reason"] or "")
            except LostRace as error:
                if kid and _is_revoked(self.keeper.read(), kid):
                    self._lost(error)
                    return
                continue
            if outcome.action == "promoted":
                self._succeeded("Revoked the key that signed", outcome)
            else:
                (target,) = outcome.changed
                self.report.revoked.append(target.kid)
                self.report.about("revoked", target)
                self.report.done.append("Revoked a key that did not sign.")
                self._and_standby(outcome)
            return
        raise KeyStoreError(
            "Other processes kept changing the ring, nothing was revoked: try again."
        )

    def _succeeded(self, why: str, outcome: Outcome) -> None:
        """Say which key signs now in the place of one that was revoked."""
        report, promoted = self.report, [row for row in outcome.changed if row.revoked_at is None]
        report.revoked += [row.kid for row in outcome.changed if row.revoked_at is not None]
        if promoted:
            report.about("promoted", promoted[0])
            report.done.append(f"{why}; the standby signs from now on.")
        else:
            useless = [row.kid for row in outcome.changed if row.revoke_reason == CANNOT_SIGN]
            report.about("created", outcome.created[0])
            standby = f"the standby {useless[0]} could not" if useless else "there was no standby"
            report.done.append(
                f"{why}; {standby}, so that a key signs now that nobody has seen before."
            )
            report.done += [f"Revoked {kid}, which could not sign." for kid in useless]
        self._and_standby(outcome)

    def _and_standby(self, outcome: Outcome) -> None:
        if outcome.created and self.report.kid != outcome.created[-1].kid:
            self.report.done.append("Made a new standby.")

    def prune(self) -> None:
        """Wipe the private halves of old keys."""
        # A revocation has wiped the half at once; what is left then is to say so in the row.
        kept = {row.kid for row in self.keeper.read().rows if row.private_envelope}
        try:
            pruned = [row.kid for row in self.keeper.prune().pruned if row.kid in kept]
        except LostRace:
            return  # Somebody else is about it.
        self.report.pruned += pruned
        if pruned:
            self.report.done.append(f"Wiped {_halves(len(pruned))}.")

    # -- looking ----------------------------------------------------------------------------------

    def check(self) -> None:
        """Find what is due, and change nothing."""
        ring, now, report = self.keeper.read(), timezone.now(), self.report
        if self.options["verify_url"] is not None:
            self.verify()
        late = overdue(ring, self.timing, now, alone=self.keeper.alone)
        due = self._due(ring, now)
        useless = self._useless(ring, now)
        if (standby := ring.standby(now)) is not None:
            report.kid, report.activates_at = standby.kid, standby.activates_at
        if useless and not report.status:
            report.fail(UNAVAILABLE, "unavailable", " ".join(useless))
        if report.status:
            report.warnings += late + due
        elif late or due:
            sentence = " ".join([*late, *due, "Run rotate_keys."])
            report.fail(DUE, "overdue" if late else "due", sentence)
        else:
            report.done.append("Nothing is due.")

    def _due(self, ring: Ring[SigningKey], now: datetime) -> list[str]:
        found = ["A standby is to be made."] if lacks_standby(ring, now) else []
        gone = unwiped(ring, now)
        if gone and not self.options["no_prune"]:
            found.append(f"To be wiped: {_halves(len(gone))}.")
        return found

    def verify(self) -> None:
        """Look whether the outside world can see the keys; put off a standby that it cannot."""
        ring, now, url = self.keeper.read(), timezone.now(), self.options["verify_url"]
        shown = without_query(url)
        seen = timedelta(seconds=self.timing.process_cache_ttl)
        try:
            there = _fetch(url, self._config())
        except AuthserverError as error:
            sentence = f"The JWK Set at {shown} cannot be read: {error}"
            self.report.fail(NOT_VISIBLE, "not_visible", sentence)
            return
        absent = [
            row
            for row in ring.published(now)
            if row.created_at < now - seen and not _is_among(row, there)
        ]
        if not absent:
            return
        kids = ", ".join(row.kid for row in absent)
        sentence = f"At {shown} there is no key {kids}."
        self.report.kid = absent[0].kid
        self.report.fail(NOT_VISIBLE, "not_visible", sentence)
        for row in absent:
            if ring.state(row, now) == PENDING and not self.options["check"]:
                self._postpone(row, now)

    def _postpone(self, row: SigningKey, now: datetime) -> None:
        """Let a key sign only when it has been seen for long enough."""
        until = now + timedelta(seconds=self.timing.propagation)
        if row.activates_at >= until:
            return
        try:
            outcome = self.keeper.postpone(row.kid, until)
        except (LostRace, Refused):
            return  # It was changed this moment.
        self.report.about("postponed", outcome.changed[0])
        self.report.done.append(f"Put off {row.kid}: it signs from {when(until, now)}.")

    def _config(self) -> ClientConfig:
        """Give the settings of the alias that has this ring."""
        found = (conf.client_config(a) for a in conf.aliases() if conf.merged(a).get("KEYS"))
        return next(
            config
            for config in found
            if (config.keys or {})["OPTIONS"].get("RING", "default") == self.report.ring
        )

    # -- telling ----------------------------------------------------------------------------------

    def describe(self, before: set[str]) -> None:
        """Report how the ring is now; kids that are not in ``before`` are shown if they stay."""
        ring, now, report = self.keeper.read(), timezone.now(), self.report
        supposed = [row.kid for row in ring.rows if row.kid not in before and report.dry_run]
        active = ring.active(now)
        report.signs = None if active is None else active.kid
        if report.action == "lost_race" and (standby := ring.standby(now)) is not None:
            report.about("lost_race", standby)
        for row in ring.published(now):
            if (end := iso(ring.unpublish_at(row))) is not None and row.kid not in supposed:
                report.unpublish_at[row.kid] = end
        if report.signs in supposed:
            report.signs = None
        if report.kid in supposed:
            report.kid = None
        report.state = summary(ring, self.timing, now, new=supposed)
        report.warnings += [sentence for _, sentence in self.timing.broken()]
        report.warnings += [] if self.options["check"] else self._useless(ring, now)
        if active is not None:
            report.warnings += self._unseen(ring, active, now, supposed)
        elif not self.keeper.alone and not ring.started(now):
            report.warnings.append(
                "Until the ring's first key signs, a key of CLIENT_KEYS or PRIVATE_CERTS_PATH does."
            )

    def _useless(self, ring: Ring[SigningKey], now: datetime) -> list[str]:
        """Say which key is to sign, now or next, and cannot here."""
        found = []
        for row in filter(None, (ring.active(now), ring.standby(now))):
            try:
                opened(row, self.keeper.options.encryption_keys)
            except KeyStoreError as error:
                found.append(f"Key {row.kid} cannot sign here: {error}")
        return found

    def _unseen(
        self, ring: Ring[SigningKey], active: SigningKey, now: datetime, supposed: list[str]
    ) -> list[str]:
        """Say until when others may not have seen the key that signs."""
        timing = self.timing
        if active is ring.rows[0] and self.keeper.alone:
            return []  # Nobody has an older set than the first.
        end = active.created_at + timedelta(seconds=timing.shortest_propagation)
        if end <= now:
            return []
        own = timing.process_cache_ttl + timing.replica_lag
        soon = active.created_at + timedelta(
            seconds=own + timing.jwks_max_age + timing.stale_while_revalidate
        )
        name = "the new key" if active.kid in supposed else active.kid
        most = f", most of them until {when(soon, now)}" if soon > now else ""
        trouble = f"Others may refuse what {name} signs until {when(end, now)}"
        return [f"{trouble}: they may still hold a JWK Set without it{most}."]


def _halves(count: int) -> str:
    return "the private half of an old key" if count == 1 else f"the private halves of {count} keys"


def _is_revoked(ring: Ring[SigningKey], kid: str) -> bool:
    return any(row.kid == kid and row.revoked_at is not None for row in ring.rows)


def _is_among(row: SigningKey, jwks: list[Any]) -> bool:
    """Tell whether the key is there: a kid alone may be another key's."""
    wanted = {**row.jwk, "kid": row.kid}
    return any(isinstance(jwk, dict) and wanted.items() <= jwk.items() for jwk in jwks)


def _fetch(url: str, config: ClientConfig) -> list[Any]:
    """Fetch a JWK Set; raise an AuthserverError."""
    runtime = Runtime(config)
    try:
        request = Request("GET", url, default_headers())
        response = Performer(runtime, config.timeout).perform(Fetch(request))
        if response.status != 200:
            raise InvalidResponse(f"the status is {response.status}.", status=response.status)
        keys = json_answer(response, url).get("keys")
        if not isinstance(keys, list):
            raise InvalidResponse("it has no list of keys.")
    finally:
        runtime.process.transport.close()
    return keys


def _check_url(url: str) -> None:
    try:
        parts = split_http_url(url)
    except ValueError as error:
        raise usage(f"--verify-url cannot be used: {error}.") from None
    if parts.scheme != "https" and not is_loopback(url):
        raise usage("--verify-url must be https: anybody on the way could answer otherwise.")


#: Options that make no sense with another one.
_EXCLUDE = {
    "check": (
        "now",
        "emergency",
        "dry_run",
        "force",
        "alg",
        "bits",
        "activate_at",
        "activate_in",
    ),
    "emergency": (
        "now",
        "force",
        "verify_url",
        "alg",
        "bits",
        "activate_at",
        "activate_in",
    ),
    "all_rings": ("ring", "kid"),
}


def _check_options(options: Mapping[str, Any]) -> None:
    def given(name: str) -> bool:
        return options[name] is not None and options[name] is not False

    def option(name: str) -> str:
        return f"--{name.replace('_', '-')}"

    for name, others in _EXCLUDE.items():
        for other in others:
            if given(name) and given(other):
                raise usage(f"{option(name)} and {option(other)} exclude each other.")
    for name in ("kid", "reason"):
        if given(name) and not given("emergency"):
            raise usage(f"{option(name)} belongs to --emergency.")
    if len(options["reason"] or "") > LONGEST_REASON:
        raise usage(f"--reason is longer than {LONGEST_REASON} characters.")
