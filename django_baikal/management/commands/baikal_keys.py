"""``manage.py baikal_keys``: look at the keys of the rings, and do single things to them."""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from django_baikal.exceptions import EncryptionKeyMissing, KeyStoreError, LostRace, Refused
from django_baikal.keys import load_key
from django_baikal.keys.database import opened
from django_baikal.keys.directory import MAX_FILE_SIZE
from django_baikal.keys.envelope import EncryptionKeys
from django_baikal.keys.export import public_der, public_pem
from django_baikal.keys.formats import FORMATS
from django_baikal.keys.operations import Keeper, Outcome
from django_baikal.keys.rotation import PENDING, PUBLISHED, Ring
from django_baikal.keys.timeline import last_trusted
from django_baikal.management.keys_command import (
    ATTEMPTS,
    DUE,
    UNAVAILABLE,
    KeysCommand,
    activation,
    check_kind,
    database,
    explained,
    moment,
    usage,
)
from django_baikal.management.keys_output import (
    WIDTH,
    Marks,
    cut,
    fields,
    life,
    marks_for,
    printable,
    summary,
    timeline,
    utc,
    when,
    wrapped,
)
from django_baikal.models import SigningKey, as_bytes
from django_baikal.protocol.jwk import public_jwk

REASONS = ("compromise", "superseded", "test")


class Command(KeysCommand):
    """Show the keys of each ring; import, export, postpone, revoke, wipe and encrypt them anew."""

    help = (
        "Shows the keys that the database keeps, and does single things to them. Private halves "
        "are never shown. What has to be done each day is rotate_keys."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the subcommands and their options."""
        subcommands = parser.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")

        def add(name: str, help: str, *options: Callable[[ArgumentParser], Any]) -> ArgumentParser:
            made: ArgumentParser = subcommands.add_parser(name, help=help, description=help)
            for option in options:
                option(made)
            return made

        made = add("list", "Draws when each key signs, and tells its state.", _ring, _format)
        made.add_argument("--all", action="store_true", help="Also keys that nobody trusts.")
        add("show", "Shows all about one key.", _kid, _ring, _format)
        made = add("generate", "Makes a standby, if there is none.", _one_ring, _times, _format)
        made.add_argument("--alg", help="The algorithm of the key, by default that of KEYS.")
        made.add_argument("--bits", type=int, help="The length of an RSA key.")
        _force(made)
        made = add("import", "Makes a private key from elsewhere the standby.", _one_ring, _times)
        made.add_argument("path", metavar="PATH", help="A key file, or - for standard input.")
        made.add_argument("--format", choices=tuple(FORMATS), help="By default found out.")
        made.add_argument("--password-file", help="A file with the passphrase of the key.")
        made.add_argument("--password-env", help="The variable that has the passphrase.")
        made.add_argument("--kid", help="By default the key's own, or its thumbprint.")
        made.add_argument("--alg", help="By default what the key is for.")
        made = add("export", "Prints the public half of a key.", _kid, _ring)
        made.add_argument(
            "--as",
            dest="form",
            choices=("jwk", "jwks", "pem", "der"),
            default="jwk",
            help="The format, %(default)s by default.",
        )
        made = add("postpone", "Lets a standby sign later than planned.", _kid, _ring, _format)
        made.add_argument("--until", required=True, help="When, as in 2026-12-01T03:00:00Z.")
        made = add(
            "revoke",
            "Takes a key that does not sign out of the JWK Set for good. The one that signs is "
            "revoked by rotate_keys --emergency.",
            _kid,
            _ring,
            _format,
        )
        made.add_argument("--reason", choices=REASONS, required=True, help="For the record.")
        add("prune", "Wipes the private halves of keys that are out of use.", _one_ring, _format)
        made = add(
            "reencrypt",
            "Puts all keys under the first key-encryption key.",
            _one_ring,
            _format,
        )
        made.add_argument(
            "--check",
            action="store_true",
            help="Change nothing; the exit status is 3 if a key is under another one.",
        )

    def handle(self, *_args: Any, **options: Any) -> str:
        """Do it."""
        method = getattr(self, f"{options['subcommand']}_")
        with explained():
            result: str = method(options)
        return result

    # -- looking ----------------------------------------------------------------------------------

    def list_(self, options: dict[str, Any]) -> str:
        """Show the rings."""
        now, marks = timezone.now(), marks_for(self.encoding)
        texts, programs, bad = [], [], []
        for name, keeper in self.rings(options["ring"], every=True).items():
            ring = _unchecked(name)
            texts.append(_drawn(name, keeper, ring, marks, everything=options["all"]))
            timing, keys = keeper.options.timing, keeper.options.encryption_keys
            told = [{**fields(ring, row, timing, now), **_rest(row, keys)} for row in ring.rows]
            programs.append({"schema": 1, "ring": name, "keys": told})
            if any(row["seal"]["state"] != "good" for row in told):
                bad.append(f"The ring {name} is not used while a seal in it is not good.")
            elif gap := ring.gap():
                bad.append(f"The ring {name} is not used: {gap}")
        output = self._formatted(
            programs, ["\n\n".join("\n".join(text) for text in texts)], options
        )
        if bad:
            self.stdout.write(output)
            raise CommandError(bad[0], returncode=UNAVAILABLE)
        return output

    def show_(self, options: dict[str, Any]) -> str:
        """Show one key."""
        keeper, ring, row = self._find(options)
        now, keys = timezone.now(), keeper.options.encryption_keys
        found = {**fields(ring, row, keeper.options.timing, now), **_rest(row, keys)}
        lines = [f"Key {row.kid}:"]
        for name, value in found.items():
            shown = _worded(value) if isinstance(value, dict) else printable(str(value or ""))
            if shown and name != "kid":
                lines.append(f"  {name.replace('_', ' '):<16}{shown}")
        return self._formatted({"schema": 1, **found, "public_jwk": _jwk(row)}, lines, options)

    def export_(self, options: dict[str, Any]) -> str:
        """Print a public key."""
        keeper, ring, row = self._find(options)
        keeper.options.encryption_keys.check(as_bytes(row.seal), row.sealed())
        if (state := ring.state(row, timezone.now())) not in PUBLISHED:
            self.stderr.write(f"Warning: key {row.kid} is {state}; nobody should trust it.")
        if options["form"] == "der":
            if (binary := getattr(self.stdout, "buffer", None)) is None:
                raise usage("DER is no text, and standard output takes only text here.")
            binary.write(public_der(_jwk(row), row.alg))
            binary.flush()
            return ""
        if options["form"] == "pem":
            return public_pem(_jwk(row), row.alg)
        found = _jwk(row) if options["form"] == "jwk" else {"keys": [_jwk(row)]}
        return json.dumps(found, indent=2)

    # -- doing ------------------------------------------------------------------------------------

    def generate_(self, options: dict[str, Any]) -> str:
        """Make a standby."""
        at = activation(options)
        (keeper,) = self.rings(options["ring"], by="baikal_keys generate").values()
        check_kind(options["alg"], options["bits"], keeper.options.alg)
        outcome = _tried(
            lambda: keeper.rotate(
                alg=options["alg"], bits=options["bits"], activates_at=at, force=options["force"]
            )
        )
        made = [f"Made {row.kid}." for row in outcome.created]
        return self._told(
            keeper, outcome, made or ["Nothing to make: there is a standby."], options
        )

    @sensitive_variables()
    def import_(self, options: dict[str, Any]) -> str:
        """Add a key that was made elsewhere."""
        at = activation(options)
        (keeper,) = self.rings(options["ring"], by="baikal_keys import").values()
        key = load_key(
            _contents(options["path"]),
            format=options["format"],
            password=_password(options),
            kid=options["kid"],
            alg=options["alg"],
        )
        outcome = _tried(lambda: keeper.import_key(key, activates_at=at))
        done = f"Imported {key.kid}." if outcome.created else f"Key {key.kid} is there already."
        return self._told(keeper, outcome, [done], {"format": "text"})

    def postpone_(self, options: dict[str, Any]) -> str:
        """Let a standby sign later."""
        until = moment("--until", options["until"])
        keeper, _, row = self._find(options)
        outcome = _tried(lambda: keeper.postpone(row.kid, until))
        done = [f"Put off {row.kid}: it signs from {when(until, timezone.now())}."]
        return self._told(keeper, outcome, done, options)

    def revoke_(self, options: dict[str, Any]) -> str:
        """Revoke a key that does not sign."""
        keeper, ring, row = self._find(options)
        state = ring.state(row, timezone.now())
        outcome = _tried(lambda: keeper.revoke(row.kid, reason=options["reason"]))
        done = [f"Revoked {row.kid}." if outcome.changed else f"{row.kid} was revoked before."]
        if state == PENDING and outcome.changed:
            try:
                done += [f"Made {new.kid} in its place." for new in keeper.rotate().created]
            except (LostRace, Refused) as error:
                done.append(f"There is no other standby: {error}")
        return self._told(keeper, outcome, done, options)

    def prune_(self, options: dict[str, Any]) -> str:
        """Wipe private halves."""
        (keeper,) = self.rings(options["ring"]).values()
        outcome = _tried(keeper.prune)
        done = [f"{row.kid} has no private half any more." for row in outcome.pruned]
        return self._told(keeper, outcome, done or ["Nothing to wipe."], options)

    def reencrypt_(self, options: dict[str, Any]) -> str:
        """Put all keys under the first key-encryption key, or see which are not."""
        (keeper,) = self.rings(options["ring"]).values()
        keys, outcome = keeper.options.encryption_keys, Outcome("noop")
        if not options["check"]:
            outcome = _tried(keeper.reencrypt)
            outcome.action = outcome.action if outcome.changed else "noop"
        name = keys.current.name
        counts = Counter(
            each
            for row in keeper.read().rows
            for each in {keys.name_of(kept) for kept in (row.envelope, as_bytes(row.seal)) if kept}
        )
        others = {each: count for each, count in counts.items() if each != name}
        done = [f"Under {name}, the first key-encryption key: {_keys(counts[name])}."]
        done += [f"Under {each}: {_keys(count)}." for each, count in sorted(others.items())]
        if not others:
            done.append("This ring needs no other key-encryption key.")
        program = {
            "schema": 1,
            "action": outcome.action,
            "ring": keeper.options.ring,
            "changed": [row.kid for row in outcome.changed],
            "failed": [row.kid for row, _ in outcome.failed],
            "encryption_keys": dict(counts),
        }
        lines = [f"Ring {keeper.options.ring}:"]
        for text in done:
            lines += wrapped(text, "  ")
        output = self._formatted(program, lines, options)
        if outcome.failed:
            self.stdout.write(output)
            errors = " ".join(str(error) for _, error in outcome.failed)
            raise CommandError(f"Not encrypted anew: {errors}", returncode=UNAVAILABLE)
        if options["check"] and others:
            self.stdout.write(output)
            raise CommandError("Run baikal_keys reencrypt.", returncode=DUE)
        return output

    # -- helpers ----------------------------------------------------------------------------------

    def _find(self, options: dict[str, Any]) -> tuple[Keeper, Ring[SigningKey], SigningKey]:
        """Find a key by its kid, as its row is."""
        found = self.rings(options["ring"], every=True, by=f"baikal_keys {options['subcommand']}")
        for name, keeper in found.items():
            ring = _unchecked(name)
            # Compared here: MariaDB does not tell capitals apart.
            for row in ring.rows:
                if row.kid == options["key"]:
                    return keeper, ring, row
        names = ", ".join(sorted(found))
        raise KeyStoreError(f"There is no key {options['key']!r}; the rings are: {names}.")

    def _told(
        self, keeper: Keeper, outcome: Outcome, done: Sequence[str], options: dict[str, Any]
    ) -> str:
        """Report what was done."""
        ring, now, timing = keeper.read(), timezone.now(), keeper.options.timing
        touched = {row.kid for row in (*outcome.created, *outcome.changed, *outcome.pruned)}
        program = {
            "schema": 1,
            "action": outcome.action,
            "ring": keeper.options.ring,
            "keys": [fields(ring, row, timing, now) for row in ring.rows if row.kid in touched],
        }
        lines = [f"Ring {keeper.options.ring}:"]
        for text in done:
            lines += wrapped(text, "  ")
        return self._formatted(program, [*lines, *summary(ring, timing, now)], options)

    def _formatted(self, program: Any, lines: list[str], options: dict[str, Any]) -> str:
        if options["format"] == "json":
            return json.dumps(program, indent=2)
        return self.output(lines)


def _kid(parser: ArgumentParser) -> None:
    # Not "kid", which is an option of import: call_command() would take the one for the other.
    parser.add_argument("key", metavar="KID", help="Its kid; put -- before one that begins with -.")


def _ring(parser: ArgumentParser) -> None:
    parser.add_argument("--ring", help="By default every ring.")


def _one_ring(parser: ArgumentParser) -> None:
    parser.add_argument("--ring", help="By default the only one, or 'default'.")


def _format(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--format",
        choices=("text", "json"),
        default="text",
        help="What is printed, %(default)s by default.",
    )


def _times(parser: ArgumentParser) -> None:
    parser.add_argument("--activate-at", help="When it is to sign, as in 2026-12-01T03:00:00Z.")
    parser.add_argument("--activate-in", help="In how long it is to sign, as in 36h or 7d.")


def _force(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--force", action="store_true", help="Also if somebody may not have seen it by then."
    )


def _tried(operation: Callable[[], Outcome]) -> Outcome:
    """Do it, and again while other processes are faster."""
    for _ in range(ATTEMPTS - 1):
        try:
            return operation()
        except LostRace:
            continue
    return operation()


def _keys(count: int) -> str:
    return f"{count} key{'s' if count != 1 else ''}"


def _unchecked(ring: str) -> Ring[SigningKey]:
    """Read a ring whatever its seals say: whoever looks for what is wrong has to see it."""
    return Ring(SigningKey.objects.using(database()).filter(ring=ring))


def _jwk(row: SigningKey) -> dict[str, Any]:
    return public_jwk({**row.jwk, "kid": row.kid, "use": "sig", "alg": row.alg})


def _rest(row: SigningKey, keys: EncryptionKeys) -> dict[str, Any]:
    """Tell the states of a row's seal and private half, and what they were made with."""

    def state(kept: bytes, check: Callable[[], Any]) -> dict[str, str | None]:
        if not kept:
            return {"encryption_key": None, "state": "wiped"}
        try:
            check()
        except EncryptionKeyMissing:
            found = "missing"
        except (KeyStoreError, ValueError, KeyError):
            found = "tampered"
        else:
            found = "good"
        return {"encryption_key": keys.name_of(kept), "state": found}

    seal = as_bytes(row.seal)
    return {
        "seal": state(seal or b"?", lambda: keys.check(seal, row.sealed())),
        "private_half": state(row.envelope, lambda: opened(row, keys)),
    }


def _drawn(
    name: str, keeper: Keeper, ring: Ring[SigningKey], marks: Marks, *, everything: bool
) -> list[str]:
    now, timing = timezone.now(), keeper.options.timing
    if not ring.rows:
        return [f"Ring {name}: no key yet; rotate_keys makes one."]
    shown = [
        row
        for row in ring.rows
        if everything
        or ring.state(row, now) in PUBLISHED
        or ((end := last_trusted(ring, row, timing)) is not None and end > now)
    ]
    lines = [f"Ring {name}, {utc(now)}:", *timeline(ring, shown, timing, now, marks)]
    for row in shown:
        rest = _rest(row, keeper.options.encryption_keys)
        first, *more = life(ring, row, timing, now)
        lines += ["", f"  {cut(row.kid, WIDTH - 3, marks)}"]
        for words in (f"{ring.state(row, now)}, {row.alg}, {first}", *more):
            lines += wrapped(words, "    ")
        for title, each in (("seal", rest["seal"]), ("private half", rest["private_half"])):
            lines += wrapped(f"{title}: {_worded(each)}", "    ")
    if hidden := len(ring.rows) - len(shown):
        lines += ["", f"  {_keys(hidden)} that nobody trusts any more: see --all."]
    return lines


def _worded(found: dict[str, str | None]) -> str:
    """Say how a seal or a private half is."""
    under = f"the key-encryption key {found['encryption_key']}"
    return {
        "good": f"good, under {under}",
        "missing": f"needs {under}, which is not set",
        "tampered": "TAMPERED WITH",
        "wiped": "wiped",
    }[str(found["state"])]


def _contents(path: str) -> bytes:
    """Read a key file."""
    try:
        if path == "-":
            data = sys.stdin.buffer.read(MAX_FILE_SIZE + 1)
        else:
            with Path(path).open("rb") as file:
                data = file.read(MAX_FILE_SIZE + 1)
    except OSError as error:
        raise CommandError(f"{path!r} cannot be read: {error.strerror}.") from None
    if len(data) > MAX_FILE_SIZE:
        raise CommandError(f"{path!r} is larger than {MAX_FILE_SIZE} bytes, and no key.")
    return data


@sensitive_variables()
def _password(options: dict[str, Any]) -> str | bytes | None:
    file, variable = options["password_file"], options["password_env"]
    if file is not None and variable is not None:
        raise usage("--password-file and --password-env exclude each other.")
    if file is not None:
        try:
            return Path(file).read_bytes().rstrip(b"\r\n")
        except OSError as error:
            raise CommandError(f"{file!r} cannot be read: {error.strerror}.") from None
    if variable is None:
        return None
    if variable not in os.environ:
        raise usage(f"--password-env: there is no variable {variable}.")
    return os.environ[variable]
