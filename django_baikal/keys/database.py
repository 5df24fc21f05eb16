"""Keys that the database keeps, and that rotate: ``SigningKey`` rows as a store."""

from __future__ import annotations

import logging
import math
import os
import random
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.utils import timezone

from django_baikal import signals
from django_baikal.exceptions import (
    KeyLoadError,
    KeyStoreError,
    NoUsableSigningKey,
    StoreUnavailable,
    Tampered,
    UnsupportedKey,
)
from django_baikal.keys.base import Caching, Caution, KeyMaterial, Published, WouldWait
from django_baikal.keys.envelope import EncryptionKeys
from django_baikal.keys.options import options_of
from django_baikal.keys.policy import material
from django_baikal.keys.rotation import ACTIVE, Ring
from django_baikal.models import SigningKey, as_bytes
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.jwk import ALGORITHMS, PUBLIC_MEMBERS, public_jwk, thumbprint

logger = logging.getLogger("django_baikal.keys")

#: Nobody has to ask for the JWK Set more often, in seconds.
MIN_AGE = 60.0
#: How often the same trouble is logged, in seconds.
REPEAT = 60.0
#: How long after a failure the database is asked again where nothing is known, in seconds.
RETRY = 1.0
#: Members of private JWKs of any type (RFC 7518 section 6, RFC 9964).
_PRIVATE = ("d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv")


class _Span(NamedTuple):
    """What a ring publishes from ``since`` until ``until``; ``leaves``: when one of it ends."""

    ring: Ring[SigningKey]
    since: datetime
    until: datetime
    keys: Sequence[KeyMaterial]
    first: KeyMaterial | None
    leaves: datetime | None


class DatabaseKeyStore:
    """The keys of a ring in the database: one query a minute, and none to sign.

    While the database is down, or a row in it was tampered with, the last good reading is used
    for PROCESS_MAX_STALE longer; then, or without one, StoreUnavailable is raised.
    """

    in_database = True

    def __init__(self, config: ClientConfig, options: Mapping[str, Any]) -> None:
        self.options = options_of(config, options)
        self.source = f"the ring {self.options.ring!r} of the database"
        self._ring: Ring[SigningKey] | None = None
        self._good_at = self._tried_at = -math.inf  # monotonic seconds
        self._failure = ""
        self._loaded: dict[tuple[str, str, bytes], KeyMaterial] = {}
        self._shown: dict[bytes, KeyMaterial] = {}
        self._span: _Span | None = None
        self._logged_at: dict[str, float] = {}
        self.renew_lock()
        _stores.add(self)

    def renew_lock(self) -> None:
        """Take a new lock: after a fork, a thread of the parent may hold the old one."""
        self._lock = threading.Lock()

    # -- reading ----------------------------------------------------------------------------------

    def read(self, database: str | None = None) -> Ring[SigningKey]:
        """Read every row of the ring now; raise a KeyStoreError if a seal is not good.

        Without that row, or one that was deleted, an older key might come back, so there is no ring
        then. Raises an Error of ``django.db`` if the database fails.
        """
        from django.db import router

        database, name = database or router.db_for_read(SigningKey), self.options.ring
        try:
            rows = list(SigningKey.objects.using(database).filter(ring=name))
            for row in rows:
                self._check(row)
        except (AttributeError, TypeError, ValueError):
            # SQLite keeps in a column whatever it is given.
            raise Tampered("A row holds what cannot be in its column.") from None
        ring = Ring(rows)
        if gap := ring.gap():
            raise Tampered(gap)
        return ring

    def _check(self, row: SigningKey) -> None:
        if row.ring != self.options.ring:
            # MariaDB does not tell capitals apart.
            raise KeyStoreError(f"The database does not tell it from the ring {row.ring!r}.")
        self.options.encryption_keys.check(as_bytes(row.seal), row.sealed())

    def ring(self, *, wait: bool = True) -> Ring[SigningKey]:
        """Give the ring as it was read last, at most PROCESS_CACHE_TTL ago; or read it.

        Raises StoreUnavailable; and with ``wait=False`` WouldWait, if it has to be read.
        """
        # A busy machine may let time pass between any two of these lines: one time for all of them.
        begun, seen = time.monotonic(), self._tried_at
        if self._rested(begun):
            return self._known(begun)
        if not wait:
            if self._lock.locked() and self._is_good(begun):
                return self._known(begun)
            raise WouldWait
        # One thread reads. The others go on with what is known, or wait if that is of no use.
        if not self._lock.acquire(blocking=not self._is_good(begun)):
            return self._known(begun)
        try:
            if seen != self._tried_at:
                # What another thread has found while this one waited is good for both.
                return self._known(begun)
            found = self._read()
        finally:
            self._lock.release()
        return self._known(time.monotonic()) if found is None else found

    def _is_good(self, now: float) -> bool:
        timing, age = self.options.timing, now - self._good_at
        return self._ring is not None and age < timing.process_cache_ttl + timing.process_max_stale

    def _rested(self, now: float) -> bool:
        rest = self.options.timing.process_cache_ttl
        return now - self._tried_at < (rest if self._is_good(now) else min(rest, RETRY))

    def _read(self) -> Ring[SigningKey] | None:
        """Read the ring and remember it, unless it is empty; give None if that fails."""
        from django.db import Error

        found: Ring[SigningKey] | None = None
        try:
            read = self.read()
            found = None if self._is_behind(read) else read
        except KeyStoreError as error:
            self._failure = str(error)
            if text := self._news(f"{self._source} cannot be read: {error}"):
                logger.critical("%s", text)
            signals.seal_failed.send_robust(
                DatabaseKeyStore, ring=self.options.ring, reason=str(error)
            )
        except Error as error:
            self._failure = f"The database failed ({type(error).__name__})."
            if text := self._news(f"{self._source} cannot be read: {self._failure}"):
                logger.error("%s", text)  # noqa: TRY400 - its frames say nothing more
            self._reconnect()
        if found is None or found.rows:
            self._tried_at = time.monotonic()
        if found is not None and found.rows:
            self._ring, self._good_at = found, self._tried_at
        return found

    def _is_behind(self, found: Ring[SigningKey]) -> bool:
        """Tell whether ``found`` comes from a replica that lacks what is known already.

        What was done to keys is never undone. If it is nevertheless, and was not done just now,
        raises Tampered.
        """
        known = self._ring if self._is_good(time.monotonic()) else None
        undone = list(_undone(known, found)) if known else []
        timing = self.options.timing
        lag = timedelta(seconds=timing.replica_lag + 2 * timing.clock_skew)
        for kid, done_at in undone:
            if done_at < timezone.now() - lag:
                raise Tampered(f"Key {kid!r} was deleted, or what ended it was undone.")
        return bool(undone)

    def _reconnect(self) -> None:
        """Drop a connection that broke: outside of requests nobody else does."""
        from django.db import Error, connections, router

        connection = connections[router.db_for_read(SigningKey)]
        # In somebody's transaction it would be closed even if nothing is wrong with it.
        if not connection.in_atomic_block:
            with suppress(Error):
                connection.close_if_unusable_or_obsolete()

    def _known(self, now: float) -> Ring[SigningKey]:
        ring = self._ring
        if ring is None or not self._is_good(now):
            raise StoreUnavailable(f"{self._source} cannot be read: {self._failure}")
        return ring

    @property
    def _source(self) -> str:
        return self.source.replace("the", "The", 1)

    def _news(self, text: str) -> str | None:
        """Give ``text`` to be logged, if it was not within the last minute."""
        now = time.monotonic()
        if now - self._logged_at.get(text, -math.inf) < REPEAT:
            return None
        recent = {k: v for k, v in self._logged_at.items() if v > now - REPEAT}
        self._logged_at = {**recent, text: now}
        return text

    # -- the interface of every store -------------------------------------------------------------

    def keys(self) -> Sequence[KeyMaterial]:
        """Give the keys of the JWK Set: the active one, the standby, the retiring ones."""
        return self._public(self.ring().published(timezone.now()))

    def published(self, *, wait: bool = True) -> Published:
        """Give the same, the active key first.

        Others may keep it until a little past the next key that leaves it, each a little
        differently, so that they do not all come back at once; and for a minute at most while the
        ring cannot be read. Raises StoreUnavailable or WouldWait.
        """
        ring, now, timing = self.ring(wait=wait), timezone.now(), self.options.timing
        span = self._span
        if span is None or span.ring is not ring or not span.since <= now < span.until:
            span = self._span = self._spanned(ring, now)
        age = timing.jwks_max_age
        if span.leaves is not None:
            left = (span.leaves - now).total_seconds()
            age = min(age, max(left, MIN_AGE) * random.uniform(1, 1.1))  # noqa: S311 - no secret
        if self._tried_at > self._good_at:
            age = min(age, MIN_AGE)
        caching = Caching(age, timing.jwks_stale_if_error, timing.stale_while_revalidate)
        return Published(span.keys, span.first, caching)

    def _spanned(self, ring: Ring[SigningKey], now: datetime) -> _Span:
        """Work out what is published now, and until when that is so."""
        shown = ring.published(now)
        keys = self._public(shown)
        active = shown and ring.state(shown[0], now) == ACTIVE
        ends = [end for row in shown if (end := ring.unpublish_at(row)) is not None]
        return _Span(
            ring,
            now,
            ring.changes_at(now),
            keys,
            keys[0] if active else None,
            min(ends, default=None),
        )

    def _public(self, rows: Sequence[SigningKey]) -> list[KeyMaterial]:
        """Give the public halves; of a row that has not changed, the one that was given before."""
        known = self._shown
        seals = [bytes(row.seal) for row in rows]
        shown = {
            seal: known.get(seal) or _public(row) for seal, row in zip(seals, rows, strict=True)
        }
        self._shown = shown
        return list(shown.values())

    def signing_key(self) -> KeyMaterial | None:
        """Give the key that signs now; None if no key of the ring has been active yet.

        When the active key cannot be used here, the newest that is still published stands in for
        it, and that is logged. Raises NoUsableSigningKey or StoreUnavailable.
        """
        ring, now, timing = self.ring(), timezone.now(), self.options.timing
        if not ring.started(now):
            return None
        signer = ring.signer(now, timing.assertion_lifetime, timing.clock_skew, self._usable)
        if signer is None:
            raise NoUsableSigningKey(f"No key of {self.source} can be used to sign.")
        if signer.degraded and (
            text := self._news(
                f"{self._source}: the active key cannot be used, and {signer.row.kid!r} signs in "
                "its place."
            )
        ):
            logger.error("%s", text)
            signals.signing_degraded.send_robust(DatabaseKeyStore, key=signer.row)
        return self._opened(signer.row)

    def problems(self) -> Sequence[KeyLoadError]:
        """Give nothing: what is wrong with rows is found by the checks of the database."""
        return []

    def cautions(self) -> Sequence[Caution]:
        """Give nothing, for the same reason."""
        return []

    def _usable(self, row: SigningKey) -> bool:
        try:
            self._opened(row)
        except KeyStoreError as error:
            if text := self._news(f"{self._source}: key {row.kid!r}: {error}"):
                logger.error("%s", text)  # noqa: TRY400 - its frames say nothing more
            return False
        return True

    def _opened(self, row: SigningKey) -> KeyMaterial:
        """Give a row's key, which is opened and parsed once; raise a KeyStoreError."""
        # An envelope that was moved to another row is another one.
        name = (row.kid, row.alg, row.envelope)
        if (known := self._loaded.get(name)) is None:
            known = opened(row, self.options.encryption_keys)
            # Of those that are of no use any more, none is kept.
            rows = self._ring.rows if self._ring else []
            names = {(each.kid, each.alg, each.envelope) for each in rows}
            self._loaded = {n: k for n, k in self._loaded.items() if n in names} | {name: known}
        return known


_stores: weakref.WeakSet[DatabaseKeyStore] = weakref.WeakSet()


def _after_fork() -> None:
    for store in _stores:
        store.renew_lock()


if hasattr(os, "register_at_fork"):  # pragma: no branch: there is no fork on Windows
    os.register_at_fork(after_in_child=_after_fork)


def opened(row: SigningKey, keys: EncryptionKeys) -> KeyMaterial:
    """Open the private half of a row and parse it; raise a KeyStoreError that says why not."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    if not row.envelope:
        raise NoUsableSigningKey("It has no private half.")
    if row.alg not in ALGORITHMS:
        raise UnsupportedKey(f"The algorithm {row.alg!r} is not known here.")
    try:
        # In no variable, which a report of an error might show. Its parts were checked when it was
        # made or imported, and the envelope vouches for them.
        parsed = load_der_private_key(
            keys.decrypt(row.envelope, ring=row.ring, kid=row.kid, alg=row.alg),
            None,
            unsafe_skip_rsa_key_validation=True,
        )
    except (TypeError, ValueError, UnsupportedAlgorithm):
        raise UnsupportedKey("Its private half is of a kind that is not known here.") from None
    key = material(parsed, kid=row.kid, alg=row.alg)
    if key.thumbprint != thumbprint(row.jwk):
        raise Tampered(f"The private half of key {row.kid!r} is another key's.")
    return key


def _undone(known: Ring[SigningKey], found: Ring[SigningKey]) -> Iterator[tuple[str, datetime]]:
    """Give what was done according to ``known`` but not to ``found``: to which key, and when."""
    rows = {row.kid: row for row in found.rows}
    for row in known.rows:
        if (new := rows.get(row.kid)) is None:
            yield row.kid, row.created_at
        elif row.revoked_at is not None and new.revoked_at is None:
            yield row.kid, row.revoked_at
        elif row.destroyed_at is not None and new.destroyed_at is None:
            yield row.kid, row.destroyed_at


def _public(row: SigningKey) -> KeyMaterial:
    published = {**row.jwk, "kid": row.kid, "use": "sig", "alg": row.alg}
    if published["kty"] in PUBLIC_MEMBERS:
        published = public_jwk(published)
    else:
        # Of a newer version of this package, which vouches for it.
        published = {name: value for name, value in published.items() if name not in _PRIVATE}
    return KeyMaterial(kid=row.kid, alg=row.alg, public_jwk=published)
