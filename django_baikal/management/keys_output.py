"""How the commands that keep keys show times and rings to a person, and to a program."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django_baikal.keys.rotation import ACTIVE, PENDING, Ring, Timing
from django_baikal.keys.timeline import bar, last_trusted, span, window
from django_baikal.models import SigningKey

WIDTH = 80
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def parse_duration(text: str) -> timedelta | None:
    """Read seconds, or a number with one of s, m, h, d and w; None if it is neither."""
    found = re.fullmatch(r"(\d{1,9})([smhdw]?)", text.strip(), re.ASCII)
    return found and timedelta(seconds=int(found[1]) * _UNITS[found[2] or "s"])


def utc(moment: datetime) -> str:
    """Write a time for a person."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def iso(moment: datetime | None) -> str | None:
    """Write a time for a program (RFC 3339)."""
    return None if moment is None else f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def when(moment: datetime, now: datetime) -> str:
    """Write a time for a person, and how far away it is."""
    away = span(moment - now)
    return f"{utc(moment)} ({f'in {away}' if moment > now else f'{away} ago'})"


def plain(text: str, encoding: str | None) -> str:
    """Make ``text`` fit for a terminal that may not have all of its characters."""
    return text.encode(encoding, "backslashreplace").decode(encoding) if encoding else text


# The timeline: a line for each key, a character for each part of time.


@dataclass(frozen=True)
class Marks:
    """The characters of a timeline; each says by itself what it means, without colour."""

    published: str
    signs: str
    retiring: str
    cached: str
    now: str
    head: str
    cut: str


BOXES = Marks("░", "█", "▒", "·", "│", "▼", "…")
ASCII = Marks("-", "#", "=", ".", "|", "v", "~")
_LABEL = 22


def marks_for(encoding: str | None) -> Marks:
    """Give the characters that a terminal of this encoding can show."""
    try:
        "".join(vars(BOXES).values()).encode(encoding or "utf-8")
    except UnicodeEncodeError:
        return ASCII
    return BOXES


def cut(text: str, width: int, marks: Marks) -> str:
    """Shorten ``text`` to ``width`` characters."""
    return text if len(text) <= width else text[: width - 1] + marks.cut


def timeline(
    ring: Ring[SigningKey],
    rows: Sequence[SigningKey],
    timing: Timing,
    now: datetime,
    marks: Marks,
) -> list[str]:
    """Draw when each of ``rows`` is published, signs, retires and is trusted last."""
    start, horizon = window(ring, rows, timing, now)
    columns = WIDTH - _LABEL - 1
    step = (horizon - start) / columns
    today = min(int((now - start) / step), columns - 1)
    head = f"{marks.head} now" if today <= columns - 5 else f"now {marks.head}"
    offset = today if today <= columns - 5 else today - 4
    lines = [" " * (_LABEL + offset) + head]
    for row in rows:
        times = bar(ring, row, timing, horizon)
        phases = [times.phase(start + step * (i + 0.5)) for i in range(columns)]
        drawn = [" " if phase is None else getattr(marks, phase) for phase in phases]
        if drawn[today] == " ":
            drawn[today] = marks.now
        label = f"  {cut(row.kid, 9, marks):<9}  {ring.state(row, now):<8} "
        lines.append(f"{label:<{_LABEL}}{''.join(drawn)}".rstrip())
    first, last = (f"{moment.astimezone(UTC):%Y-%m-%d}" for moment in (start, horizon))
    lines.append(f"{'':<{_LABEL}}{first}{last:>{columns - len(first)}}")
    lines.append(
        f"  {marks.published} published  {marks.signs} signs  {marks.retiring} retiring  "
        f"{marks.cached} out of the JWK Set, but still in caches"
    )
    return lines


def life(ring: Ring[SigningKey], row: SigningKey, timing: Timing, now: datetime) -> list[str]:
    """Say when ``row`` signs and until when it is trusted, a clause each, after its state."""
    state, superseded = ring.state(row, now), ring.superseded_at(row)
    if state == PENDING:
        return [f"from {when(row.activates_at, now)}"]
    words = []
    if row.revoked_at is not None:
        reason = f", {printable(row.revoke_reason)}" if row.revoke_reason else ""
        words.append(f"on {utc(row.revoked_at)}{reason}")
    elif state == ACTIVE:
        words.append(f"since {utc(row.activates_at)}")
        return words if superseded is None else [*words, f"until {when(superseded, now)}"]
    else:
        words.append(f"signed until {utc(superseded or now)}")
    trusted = last_trusted(ring, row, timing) or now
    return [*words, f"last trusted {when(trusted, now)}"]


def printable(text: str) -> str:
    """Leave nothing in ``text`` that moves a terminal's cursor."""
    return "".join(char if char.isprintable() else " " for char in text)


def wrapped(text: str, indent: str) -> list[str]:
    """Break ``text`` into lines that fit."""
    return textwrap.wrap(
        text,
        WIDTH - 1,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )


def summary(
    ring: Ring[SigningKey], timing: Timing, now: datetime, *, new: Sequence[str] = ()
) -> list[str]:
    """Say which key signs, which comes next, and until when the old ones are trusted.

    ``new``: kids that are only supposed, and are not shown.
    """
    active, lines = ring.active(now), []
    told: list[tuple[str, SigningKey]] = [("signs now", active)] if active else []
    told += [("comes next", row) for row in ring.rows if ring.state(row, now) == PENDING]
    for row in reversed(ring.rows):
        state, trusted = ring.state(row, now), last_trusted(ring, row, timing)
        # Whoever never saw a key does not trust it: a supposed one was never published.
        if state not in (PENDING, ACTIVE) and trusted and trusted > now and row.kid not in new:
            told.append((state, row))
    for title, row in told:
        name = "(a new key)" if row.kid in new else row.kid
        lines.append(f"  {title:<12}{name} ({row.alg})")
        for clause in life(ring, row, timing, now):
            lines += wrapped(clause, " " * 14)
    return lines


def fields(
    ring: Ring[SigningKey], row: SigningKey, timing: Timing, now: datetime
) -> dict[str, Any]:
    """Give what there is to know about a key, for a program."""
    return {
        "kid": row.kid,
        "ring": row.ring,
        "sequence": row.sequence,
        "state": ring.state(row, now),
        "alg": row.alg,
        "thumbprint": row.thumbprint,
        "origin": row.origin,
        "created_at": iso(row.created_at),
        "created_by": row.created_by,
        "activates_at": iso(row.activates_at),
        "superseded_at": iso(ring.superseded_at(row)),
        "unpublish_at": iso(ring.unpublish_at(row)),
        "last_trusted": iso(last_trusted(ring, row, timing)),
        "revoked_at": iso(row.revoked_at),
        "revoke_reason": row.revoke_reason,
        "destroyed_at": iso(row.destroyed_at),
    }
