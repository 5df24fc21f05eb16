"""What is done to the keys of a ring: each is one write to one row, decided on what was just read.

Whoever loses a race changes nothing: a new row needs the next number of its ring, which is unique,
and a change needs the seal that was read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.dispatch import Signal
from django.utils import timezone

from django_baikal import conf, signals
from django_baikal.exceptions import (
    ConfigurationError,
    KeyStoreError,
    LostRace,
    NoUsableSigningKey,
    Refused,
    UnsupportedKey,
)
from django_baikal.keys.base import KeyMaterial
from django_baikal.keys.database import DatabaseKeyStore, opened
from django_baikal.keys.generate import generate_key
from django_baikal.keys.rotation import ACTIVE, PENDING, RETIRED, REVOKED, Ring
from django_baikal.models import SigningKey

#: Why a standby is revoked when it should take over at once.
CANNOT_SIGN = "It could not sign."
_TICK = timedelta(milliseconds=1)
#: How databases say that a transaction had to give way to another: PostgreSQL's SQLSTATE, MariaDB's
#: number, and the beginning of SQLite's name.
_GAVE_WAY = ("40001", "40P01", "1020", "1213", "SQLITE_BUSY")


@dataclass
class Outcome:
    """What was done: ``action``, the keys that it was done to, and where it failed, with why."""

    action: str
    created: list[SigningKey] = field(default_factory=list)
    changed: list[SigningKey] = field(default_factory=list)
    pruned: list[SigningKey] = field(default_factory=list)
    failed: list[tuple[SigningKey, KeyStoreError]] = field(default_factory=list)


def keepers(*, by: str = "") -> dict[str, Keeper]:
    """Give the keeper of each ring that an alias of ``BAIKAL`` names in KEYS.

    Raises ConfigurationError.
    """
    from django.utils.module_loading import import_string

    found: dict[str, Keeper] = {}
    for alias in conf.aliases():
        if not conf.merged(alias).get("KEYS"):
            continue
        config = conf.client_config(alias)
        try:
            backend = import_string((config.keys or {})["BACKEND"])
        except ImportError as error:
            raise ConfigurationError(
                f"BAIKAL[{alias!r}]: KEYS: BACKEND cannot be imported: {error}"
            ) from None
        if isinstance(backend, type) and issubclass(backend, DatabaseKeyStore):
            store = backend(config, (config.keys or {})["OPTIONS"])
            # Whoever has other keys under the same issuer is known to others already.
            alone = not (config.client_keys or config.private_certs_path)
            keeper = found.setdefault(store.options.ring, Keeper(store, by=by))
            keeper.alone = keeper.alone and alone
    return found


class Keeper:
    """Changes the keys of one ring.

    ``alone``: no other source publishes keys for it. ``by``: who does it, for the record. What the
    database itself raises is not turned into an error of this package, but for a lost race.
    """

    def __init__(self, store: DatabaseKeyStore, *, alone: bool = True, by: str = "") -> None:
        from django.db import router

        self.store = store
        self.options = store.options
        self.alone = alone
        self.by = by
        self._database = router.db_for_write(SigningKey)

    def read(self) -> Ring[SigningKey]:
        """Read the ring where it is written, past every replica and cache."""
        return self.store.read(self._database)

    # -- rotating ---------------------------------------------------------------------------------

    def rotate(
        self,
        *,
        alg: str | None = None,
        bits: int | None = None,
        activates_at: datetime | None = None,
        force: bool = False,
    ) -> Outcome:
        """See that a standby is there: "created", or "noop" if it is. Raises LostRace, Refused.

        The first key of a ring is active at once, if nobody else publishes keys under this issuer,
        so that nobody knows an older set. So is the standby, or a new key, where none is active
        any more. ``force``: whatever the rules about times say.
        """
        ring, now = self.read(), timezone.now()
        bereft = ring.bereft(now)
        if (there := ring.standby(now) is not None) and not bereft:
            return Outcome("noop")
        if not force:
            self._check_rules()
        if there:
            return self._succeed(ring, now)
        missing = ring.active(now) is None and (self.alone or bereft)
        keys = [self._generate(alg, bits) for _ in range(1 + missing)]
        outcome, now = Outcome("created"), timezone.now()
        with self._writing():
            if missing:
                first = self._insert(ring, keys.pop(), self._at_once(ring, now), "generated")
                outcome.created.append(first)
                ring = Ring([*ring.rows, first])
            at = activates_at or ring.next_activation(now, self.options.timing)
            if not force:
                self._check_propagation(at, now)
            self._check_order(ring, at)
            outcome.created.append(self._insert(ring, keys.pop(), at, "generated"))
        return outcome

    def promote(self, *, force: bool = False) -> Outcome:
        """Let the standby sign from now on; Refused while somebody may not have seen it yet.

        And Refused, EncryptionKeyMissing or Tampered if it cannot sign here.
        """
        ring, now = self.read(), timezone.now()
        standby = ring.standby(now)
        if standby is None:
            raise Refused("There is no standby that could take over; run rotate_keys first.")
        if not force:
            self._check_rules()
            self._check_propagation(now, standby.created_at)
        try:
            opened(standby, self.options.encryption_keys)
        except (NoUsableSigningKey, UnsupportedKey) as error:
            raise Refused(f"The standby {standby.kid!r} cannot sign here: {error}") from None
        with self._writing():
            return Outcome("promoted", changed=[self._change(standby, activates_at=now)])

    def _check_rules(self) -> None:
        for rule, sentence in self.options.timing.broken():
            raise Refused(f"The times of the ring break rule {rule}: {sentence}")

    def _check_order(self, ring: Ring[SigningKey], at: datetime) -> None:
        last = max((row.activates_at for row in ring.rows if row.revoked_at is None), default=at)
        if ring.rows and at <= last:
            raise Refused(f"A key may take over only after {last:%Y-%m-%d %H:%M:%S} UTC.")

    def _at_once(self, ring: Ring[SigningKey], now: datetime) -> datetime:
        """Give since when a key is active that is to sign now, also where the clock is slow.

        But not since before the key that it follows.
        """
        since = now - timedelta(seconds=2 * self.options.timing.clock_skew)
        before = [row.activates_at + _TICK for row in ring.rows if row.activates_at <= now]
        return max([since, *before])

    def _check_propagation(self, activates_at: datetime, published_at: datetime) -> None:
        least = timedelta(seconds=self.options.timing.shortest_propagation)
        if activates_at - published_at < least:
            raise Refused(
                f"Until {published_at + least:%Y-%m-%d %H:%M:%S} UTC somebody may hold a JWK Set "
                "without the key, and would refuse what it signs."
            )

    def emergency(self, *, kid: str | None = None, reason: str = "") -> Outcome:
        """Revoke a key, by default the active one, and let the standby sign; make a new standby.

        All of it or nothing, whatever the rules about times say. A standby that cannot sign is
        revoked as well, and a new key signs. Without ``kid`` it is Refused when the ring has just
        changed: two people who answer one alarm would revoke the first one's new key. Raises
        LostRace if ``kid`` has been revoked already.
        """
        ring, now = self.read(), timezone.now()
        target = ring.active(now) if kid is None else self._named(ring, kid)
        if target is None:
            raise Refused("There is no active key to revoke.")
        if kid is None:
            self._check_calm(ring, now)
        if target.revoked_at is not None:
            raise LostRace(f"Key {target.kid!r} has been revoked already.")
        return self._succeed(ring, now, target, reason)

    def _succeed(
        self, ring: Ring[SigningKey], now: datetime, target: SigningKey | None = None, why: str = ""
    ) -> Outcome:
        """Revoke ``target``; let the standby, or a new key, sign if none does then."""
        signs = target is None or ring.state(target, now) == ACTIVE
        others = [row for row in ring.rows if ring.state(row, now) == PENDING and row != target]
        useless = [row for row in others if signs and not self._can_sign(row)]
        others = [row for row in others if row not in useless]
        successor = others.pop(0) if signs and others else None
        # Before anything is locked.
        missing = (signs and successor is None) + (not others)
        keys = [self._generate(None, None) for _ in range(missing)]
        outcome, now = Outcome("promoted" if signs else "revoked"), timezone.now()
        with self._writing():
            # First the new key, then the revocation: at no moment is there none.
            since = self._at_once(ring, now)
            if successor is not None:
                outcome.changed.append(self._change(successor, activates_at=since))
            elif signs:
                outcome.created.append(self._insert(ring, keys.pop(), since, "generated"))
            for row in useless:
                outcome.changed.append(self._revoke(row, now, CANNOT_SIGN))
            if target is not None:
                outcome.changed.append(self._revoke(target, now, why))
            if keys:
                ring = Ring([*ring.rows, *outcome.created])
                at = ring.next_activation(now, self.options.timing)
                outcome.created.append(self._insert(ring, keys.pop(), at, "generated"))
        return outcome

    def _can_sign(self, row: SigningKey) -> bool:
        try:
            opened(row, self.options.encryption_keys)
        except KeyStoreError:
            return False
        return True

    def _check_calm(self, ring: Ring[SigningKey], now: datetime) -> None:
        changes = [row.revoked_at for row in ring.rows if row.revoked_at is not None]
        changes += [row.activates_at for row in ring.rows if row.activates_at <= now]
        calm_at = max(changes) + timedelta(seconds=self.options.timing.shortest_propagation)
        if now < calm_at:
            raise Refused(
                "The ring has just changed; say with --kid which key is to be revoked, or wait "
                f"until {calm_at:%Y-%m-%d %H:%M:%S} UTC."
            )

    def revoke(self, kid: str, *, reason: str = "") -> Outcome:
        """Take a key out of the JWK Set for good, and wipe its private half; "noop" if it is out.

        Refused for the one that signs, which needs a successor: see ``emergency``.
        """
        ring, now = self.read(), timezone.now()
        row = self._named(ring, kid)
        if row.revoked_at is not None:
            return Outcome("noop")
        if ring.state(row, now) == ACTIVE:
            raise Refused(
                f"Key {row.kid} signs; rotate_keys --emergency --kid={row.kid} revokes it and lets "
                "another one sign."
            )
        with self._writing():
            return Outcome("revoked", changed=[self._revoke(row, now, reason)])

    def _revoke(self, row: SigningKey, now: datetime, reason: str) -> SigningKey:
        self._change(row, revoked_at=now, revoke_reason=reason, private_envelope=None)
        self._tell(signals.key_revoked, row)
        return row

    def _tell(self, signal: Signal, row: SigningKey) -> None:
        from django.db import transaction

        transaction.on_commit(
            lambda: signal.send_robust(SigningKey, key=row) and None, using=self._database
        )

    def postpone(self, kid: str, until: datetime) -> Outcome:
        """Let a standby take over later than planned."""
        ring, now = self.read(), timezone.now()
        row = self._named(ring, kid)
        if ring.state(row, now) != PENDING:
            raise Refused(f"Key {kid!r} is {ring.state(row, now)}, and no standby any more.")
        if until <= row.activates_at:
            raise Refused(f"Key {kid!r} takes over at {row.activates_at:%Y-%m-%d %H:%M:%S} UTC.")
        later = [r for r in ring.rows if r.sequence > row.sequence and r.revoked_at is None]
        if any(until >= other.activates_at for other in later):
            raise Refused(f"Key {kid!r} has to take over before the one that follows it.")
        with self._writing():
            return Outcome("postponed", changed=[self._change(row, activates_at=until)])

    def prune(self) -> Outcome:
        """Wipe the private halves of the keys that are not published any more."""
        ring, now = self.read(), timezone.now()
        gone = [row for row in ring.rows if ring.state(row, now) in (RETIRED, REVOKED)]
        outcome = Outcome("pruned")
        for row in gone:
            if row.destroyed_at is None:
                with self._writing():
                    outcome.pruned.append(
                        self._change(row, destroyed_at=now, private_envelope=None)
                    )
        return outcome

    def import_key(self, key: KeyMaterial, *, activates_at: datetime | None = None) -> Outcome:
        """Add a private key that was made elsewhere, as the standby; "noop" if it is there.

        As the first key of a ring it is active at once, as in ``rotate``.
        """
        from django.db.models import Q

        if key.private_key is None:
            raise Refused("The key is public; publish it from PRIVATE_CERTS_PATH or CLIENT_KEYS.")
        ring, now = self.read(), timezone.now()
        known = next((row for row in ring.rows if row.thumbprint == key.thumbprint), None)
        if known is not None and (state := ring.state(known, now)) in (RETIRED, REVOKED):
            raise Refused(f"Key {known.kid!r} is {state}, and does not come back.")
        if known is not None:
            return Outcome("noop")
        taken = Q(kid=key.kid) | Q(thumbprint=key.thumbprint)
        if (other := SigningKey.objects.using(self._database).filter(taken).first()) is not None:
            if other.ring == self.options.ring and other not in ring.rows:
                raise LostRace("Another process has just added a key to the ring.")
            raise Refused(f"The ring {other.ring!r} has that key already, or that kid.")
        if ring.standby(now) is not None:
            raise Refused("The ring has a standby already; revoke it first, or wait.")
        self._check_rules()
        if activates_at is None and self.alone and not ring.started(now):
            at = self._at_once(ring, now)
        else:
            at = activates_at or ring.next_activation(now, self.options.timing)
            self._check_propagation(at, now)
        with self._writing():
            return Outcome("created", created=[self._insert(ring, key, at, "imported")])

    def reencrypt(self) -> Outcome:
        """Put every row under the first key-encryption key; what was done stays done.

        A private half that cannot be opened stays as it is, and is told in ``failed``.
        """
        current, outcome = self.options.encryption_keys, Outcome("reencrypted")
        for row in self.read().rows:
            values: dict[str, Any] = {}
            names = {current.name_of(kept) for kept in (row.envelope, bytes(row.seal)) if kept}
            if names == {current.current.name}:
                continue
            if row.envelope:
                binding = {"ring": row.ring, "kid": row.kid, "alg": row.alg}
                try:
                    values["private_envelope"] = current.encrypt(
                        current.decrypt(row.envelope, **binding), **binding
                    )
                except KeyStoreError as error:
                    outcome.failed.append((row, error))
            if values or current.name_of(bytes(row.seal)) != current.current.name:
                with self._writing():
                    outcome.changed.append(self._change(row, **values))
        return outcome

    def _named(self, ring: Ring[SigningKey], kid: str) -> SigningKey:
        # Compared here: MariaDB does not tell capitals apart.
        row = next((row for row in ring.rows if row.kid == kid), None)
        if row is None:
            raise KeyStoreError(f"The ring {self.options.ring!r} has no key {kid!r}.")
        return row

    # -- single keys ------------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Make a transaction: all or nothing, and LostRace if it had to give way to another."""
        from django.db import Error, IntegrityError, transaction

        try:
            # A savepoint for a caller that is in a transaction of its own.
            with transaction.atomic(using=self._database):
                yield
        except IntegrityError:
            raise LostRace("Another process has just added a key to the ring.") from None
        except Error as error:
            if not _reason(error).startswith(_GAVE_WAY):
                raise
            raise LostRace("Another process is just writing to the database.") from None

    def _generate(self, alg: str | None, bits: int | None) -> KeyMaterial:
        key = generate_key(alg or self.options.alg, bits=bits or self.options.bits)
        # One kid in 64 begins so, and on a command line it would be taken for an option.
        return self._generate(alg, bits) if key.kid.startswith("-") else key

    def _insert(
        self, ring: Ring[SigningKey], key: KeyMaterial, activates_at: datetime, origin: str
    ) -> SigningKey:
        from cryptography.hazmat.primitives import serialization

        public = {n: v for n, v in key.public_jwk.items() if n not in ("kid", "use", "alg")}
        row = SigningKey(
            ring=self.options.ring,
            sequence=max((row.sequence for row in ring.rows), default=0) + 1,
            kid=key.kid,
            thumbprint=key.thumbprint,
            alg=key.alg,
            public_jwk=json.dumps(public, sort_keys=True),
            origin=origin,
            created_at=_written(timezone.now()),
            created_by=self.by,
            activates_at=_written(activates_at),
            retention=math.ceil(self.options.timing.retention),
        )
        # The private half in clear is in no variable, which a report of an error might show.
        row.private_envelope = self.options.encryption_keys.encrypt(
            key.private_key.private_bytes(
                serialization.Encoding.DER,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
            ring=row.ring,
            kid=row.kid,
            alg=row.alg,
        )
        row.seal = self.options.encryption_keys.seal(row.sealed())
        row.save(using=self._database, force_insert=True)
        self._tell(signals.key_created, row)
        return row

    def _change(self, row: SigningKey, **values: Any) -> SigningKey:
        old = bytes(row.seal)
        for name, value in values.items():
            values[name] = _written(value)
            setattr(row, name, values[name])
        row.seal = values["seal"] = self.options.encryption_keys.seal(row.sealed())
        found = SigningKey.objects.using(self._database).filter(pk=row.pk, seal=old)
        if not found.update(**values):
            raise LostRace(f"Another process has just changed key {row.kid!r}.")
        return row


def _written(value: Any) -> Any:
    """Leave of a time what ``dumpdata`` writes: its seal has to be good when it is loaded again."""
    if not isinstance(value, datetime):
        return value
    return value.replace(microsecond=value.microsecond // 1000 * 1000)


def _reason(error: BaseException) -> str:
    """Give the code by which the database names its error, or nothing."""
    cause = error.__cause__
    code = getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None)
    return str(code or next(iter(error.args), ""))
