"""What there is to see of each ring, for a page: also of one that cannot be used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.utils import timezone

from django_baikal.exceptions import (
    ConfigurationError,
    EncryptionKeyMissing,
    KeyStoreError,
    Tampered,
)
from django_baikal.keys import timeline
from django_baikal.keys.operations import Keeper, keepers
from django_baikal.keys.rotation import ACTIVE, PENDING, PUBLISHED, RETIRED, RETIRING, Ring, Timing
from django_baikal.keys.timeline import last_trusted, span
from django_baikal.models import SigningKey, as_bytes

#: What SQLite makes of a column that holds what it was never given by Django.
NOT_A_ROW = (AttributeError, TypeError, ValueError, OverflowError)
GOOD, MISSING, TAMPERED, UNCHECKED = "good", "missing", "tampered", "unchecked"

_PHASES = {
    timeline.PUBLISHED: "published",
    timeline.SIGNS: "signs",
    timeline.RETIRING: "retiring",
    timeline.CACHED: "out of the JWK Set, and maybe still in caches",
}
# Of the picture, in pixels.
_LABEL, _LINE = 22, 44


def told(moment: datetime) -> str:
    """Write a time in the current time zone, with its name."""
    local = timezone.localtime(moment) if timezone.is_aware(moment) else moment
    return f"{local:%Y-%m-%d %H:%M %Z}".rstrip()


def when(moment: datetime, now: datetime) -> str:
    """Write a time, and how far away it is."""
    away = span(moment - now)
    return f"{told(moment)} ({f'in {away}' if moment > now else f'{away} ago'})"


class Seal(NamedTuple):
    """Whether a row is as this project wrote it, and the name of the key that says so."""

    state: str
    encryption_key: str = ""


class Told(NamedTuple):
    """What follows from a row and those after it: its state, and what comes next."""

    state: str = "unknown"
    age: str = ""
    events: tuple[str, ...] = ()
    seal: Seal = Seal(UNCHECKED)


class Overviews(NamedTuple):
    """Every ring by its name, and what is wrong with the settings, if anything."""

    rings: dict[str, Overview]
    trouble: str


def overviews(rows: Iterable[SigningKey]) -> Overviews:
    """Tell of the rings that ``rows`` belong to, and of those that the settings name.

    Raises Tampered if they cannot even be read, and an Error of ``django.db``.
    """
    now, trouble = timezone.now(), ""
    found: dict[str, list[SigningKey]] = {}
    try:
        for row in rows:
            found.setdefault(row.ring, []).append(row)
    except NOT_A_ROW:
        raise Tampered("A row of a signing key holds what cannot be in its column.") from None
    try:
        kept = keepers()
    except ConfigurationError as error:
        kept, trouble = {}, str(error)
    names = sorted({*found, *kept})
    return Overviews(
        {name: Overview(name, found.get(name, []), kept.get(name), now) for name in names}, trouble
    )


class Overview:
    """One ring; ``keeper``: None if no alias of ``BAIKAL`` keeps it."""

    def __init__(
        self, name: str, rows: list[SigningKey], keeper: Keeper | None, now: datetime
    ) -> None:
        self.name, self.keeper, self.now = name, keeper, now
        self.timing = keeper.options.timing if keeper else Timing()
        #: Why the ring cannot be used, in sentences.
        self.broken: list[str] = []
        self._ring: Ring[SigningKey] = Ring([])
        self._told: dict[Any, Told] = {}
        #: What is drawn of the keys that somebody may trust; None if there are none.
        self.picture: dict[str, Any] | None = None
        seals = {row.pk: self._seal(row) for row in rows}
        try:
            self._ring = Ring(rows)
            if gap := self._ring.gap():
                self.broken.append(gap)
            for row in rows:
                state, age = self._ring.state(row, now), span(now - row.created_at)
                self._told[row.pk] = Told(state, age, tuple(self._events(row)), seals[row.pk])
            self.picture = self._picture()
        except NOT_A_ROW:
            self.broken.append("A row holds what cannot be in its column.")
            self._ring, self.picture = Ring([]), None
            self._told = {row.pk: Told(seal=seals[row.pk]) for row in rows}

    def of(self, row: SigningKey) -> Told:
        """Give what there is to tell of one row."""
        return self._told.get(row.pk, Told())

    def _seal(self, row: SigningKey) -> Seal:
        if self.keeper is None:
            return Seal(UNCHECKED)
        keys, seal = self.keeper.options.encryption_keys, as_bytes(row.seal)
        try:
            keys.check(seal, row.sealed())
        except EncryptionKeyMissing as error:
            self.broken.append(str(error))
            return Seal(MISSING, keys.name_of(seal))
        except (KeyStoreError, *NOT_A_ROW):
            self.broken.append(f"The row of key {row.kid!r} was tampered with.")
            return Seal(TAMPERED)
        return Seal(GOOD, keys.name_of(seal))

    # -- in words ---------------------------------------------------------------------------------

    def cautions(self) -> list[str]:
        """Give what deserves attention, though the ring can be used."""
        if self.keeper is None:
            nobody = "No alias of BAIKAL keeps this ring: nothing of it is published or signs here."
            return [f"{nobody} Its seals are not checked, and its times are the defaults."]
        return [f"The times break rule {rule}: {why}" for rule, why in self.timing.broken()]

    def _events(self, row: SigningKey) -> Iterator[str]:
        state, now = self._ring.state(row, self.now), self.now
        superseded, unpublish = self._ring.superseded_at(row), self._ring.unpublish_at(row)
        if state == PENDING:
            yield f"signs from {when(row.activates_at, now)}"
        elif state == ACTIVE and superseded is None:
            yield "signs until another key follows, and none is there"
        elif state == ACTIVE and superseded is not None:
            yield f"signs until {when(superseded, now)}"
        elif state == RETIRING and unpublish is not None:
            yield f"leaves the JWK Set {when(unpublish, now)}"
        elif row.revoked_at is not None:
            yield f"revoked {when(row.revoked_at, now)}"
        trusted = last_trusted(self._ring, row, self.timing)
        if state != PENDING and trusted is not None:
            yield f"last trusted {when(trusted, now)}"

    def times(self, row: SigningKey) -> dict[str, datetime | None]:
        """Give the times of a row that follow from others."""
        if self.of(row).state == "unknown":
            return {}
        return {
            "superseded_at": self._ring.superseded_at(row),
            "unpublish_at": self._ring.unpublish_at(row),
            "last_trusted": last_trusted(self._ring, row, self.timing),
        }

    # -- what may be done -------------------------------------------------------------------------

    def _unusable(self) -> Iterator[str]:
        if self.broken:
            yield "The ring cannot be read."
        for _, sentence in self.timing.broken():
            yield sentence

    def no_rotation(self) -> str:
        """Say why no rotation can be scheduled; nothing if it can."""
        if (trouble := next(self._unusable(), "")) != "":
            return trouble
        if self._ring.bereft(self.now):
            return ""
        if (standby := self._ring.standby(self.now)) is not None:
            return f"The standby is there: it signs from {when(standby.activates_at, self.now)}."
        return ""

    def no_promotion(self) -> str:
        """Say why the standby cannot sign now; nothing if it can."""
        if (trouble := next(self._unusable(), "")) != "":
            return trouble
        if (standby := self._ring.standby(self.now)) is None:
            return "There is no standby: schedule a rotation first."
        least = timedelta(seconds=self.timing.shortest_propagation)
        if (possible := standby.created_at + least) > self.now:
            return (
                f"Possible from {when(possible, self.now)}: until then somebody may hold a JWK Set "
                "without it."
            )
        return ""

    def no_revocation(self, row: SigningKey) -> str:
        """Say why ``row`` cannot be revoked; nothing if it can."""
        if row.revoked_at is not None:
            return "It is revoked already."
        if self.keeper is None:
            return "No alias of BAIKAL keeps its ring, and its row cannot be sealed."
        return "The ring cannot be read." if self.broken else ""

    def consequences(self, row: SigningKey) -> Iterator[str]:
        """Say what happens when ``row`` is revoked now."""
        state, timing, standby = self.of(row).state, self.timing, self._ring.standby(self.now)
        if state == ACTIVE:
            yield "It signs now. What it has signed is refused wherever its revocation is known."
            yield self._afterwards(standby)
        elif row == standby:
            yield "It has signed nothing yet. A new standby is made, and takes over in its turn."
        elif state == RETIRED:
            yield "It has left the JWK Set already; another key signs, and goes on."
        else:
            yield (
                "It does not sign any more; another key does, and goes on. What it has signed is "
                "refused wherever its revocation is known."
            )
        if state in PUBLISHED:
            own = timing.process_cache_ttl + timing.replica_lag
            most = timedelta(seconds=own + timing.jwks_max_age + timing.jwks_stale_if_error)
            yield (
                f"It leaves the JWK Set within {span(timedelta(seconds=own))}, or "
                f"{span(timedelta(seconds=own + timing.process_max_stale))} where the database "
                f"cannot be reached. Others may hold it, and trust it, for {span(most)}: until "
                f"{told(self.now + most)}."
            )
        yield "Its private half is wiped. A revoked key never comes back."

    def _afterwards(self, standby: SigningKey | None) -> str:
        timing = self.timing
        if standby is None:
            seen = self.now + timedelta(seconds=timing.shortest_propagation)
            return (
                "There is no standby. A new key is made and signs at once; whoever holds an older "
                f"JWK Set refuses what it signs, until {when(seen, self.now)} at most."
            )
        seen = standby.created_at + timedelta(seconds=timing.shortest_propagation)
        if seen <= self.now:
            return (
                f"The standby {standby.kid} signs from then on. It has been published for "
                f"{span(self.now - standby.created_at)}, so that everybody knows it."
            )
        return (
            f"The standby {standby.kid} signs from then on. It is so new that whoever holds an "
            f"older JWK Set refuses what it signs, until {when(seen, self.now)} at most."
        )

    # -- as a picture -----------------------------------------------------------------------------

    def _picture(self) -> dict[str, Any] | None:
        ring, now, timing = self._ring, self.now, self.timing
        rows = [
            row
            for row in reversed(ring.rows)
            if ring.state(row, now) in PUBLISHED
            or ((end := last_trusted(ring, row, timing)) is not None and end > now)
        ]
        if not rows:
            return None
        start, horizon = timeline.window(ring, rows, timing, now)
        today = _share(now, start, horizon)
        return {
            "bars": [
                self._bar(row, start, horizon, n * _LINE + _LABEL) for n, row in enumerate(rows)
            ],
            "today": f"{today:.2f}%",
            "anchor": "end" if today > 80 else "start",
            "height": len(rows) * _LINE + _LABEL,
            "now": told(now),
            "start": told(start),
            "end": told(horizon),
        }

    def _bar(self, row: SigningKey, start: datetime, horizon: datetime, top: int) -> dict[str, Any]:
        phases = []
        for name, since, until in timeline.bar(self._ring, row, self.timing, horizon).phases():
            left, right = (_share(moment, start, horizon) for moment in (since, until))
            end = f"until {told(until)}" if until < horizon else "with no end yet"
            phases.append(
                {
                    "name": name,
                    "x": f"{left:.2f}%",
                    "end": f"{right:.2f}%",
                    "width": f"{right - left:.2f}%",
                    "words": f"{_PHASES[name]} from {told(since)} {end}",
                }
            )
        kid = row.kid if len(row.kid) <= 16 else f"{row.kid[:12]}…"
        return {
            "kid": row.kid,
            "label": f"{kid} {self.of(row).state}, {row.alg}",
            "phases": phases,
            "text": top + 14,
            "top": top + 21,
            "middle": top + 28,
            "bottom": top + 35,
        }


def _share(moment: datetime, start: datetime, end: datetime) -> float:
    return (moment - start) / (end - start) * 100
