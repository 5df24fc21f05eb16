"""What a row is, what was found for it, and the table that shows it."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

FLOOR, OURS = "floor", "django-baikal"
#: Contestant -> case -> what `contestant.py` told of each round.
Raw = Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]


@dataclasses.dataclass(frozen=True)
class Contestant:
    """Who takes part: its module in `contestants`, and what pip installs for it.

    One that needs several processes has several names, "Authlib" and "Authlib/django", of which
    only what is before the slash is shown. ``python`` is the one version that it needs ("3.11"),
    or any. Contestants with the same ``environment`` share one, so they must have the same
    requirements; by default each has its own, under its name.
    """

    module: str
    requirements: tuple[str, ...]
    python: str = ""
    environment: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """A line for each contestant: the case that each runs, what is shown, and the target.

    ``cases`` maps a contestant to its case. ``figure`` is what is shown of it: ``cpu``, in seconds
    per call, or the name of something else that the case tells, of which ``unit`` is the unit.
    ``base`` maps a contestant to a case of its own whose figure is taken away. ``n`` is the number
    of calls in a round; by default as many as make a good one.

    ``limits`` is the target, and ``aims`` what is near the limit of what can be done: at most so
    many times the figure of that contestant, or with "" at most so much, in the row's unit.
    """

    id: str
    title: str
    cases: Mapping[str, str]
    figure: str = "cpu"
    unit: str = "s"
    base: Mapping[str, str] = dataclasses.field(default_factory=dict)
    n: int | None = None
    limits: Mapping[str, float] = dataclasses.field(default_factory=dict)
    aims: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Figure:
    """What was found for a contestant in a row, in the row's unit."""

    minimum: float
    median: float


def shown(name: str) -> str:
    """Give the name under which a contestant is shown."""
    return name.partition("/")[0]


def figures(row: Row, raw: Raw) -> dict[str, Figure]:
    """Give what was found for each contestant that ran, by its shown name."""

    def series(name: str, case: str) -> list[float]:
        rounds = raw[name][case]
        return [r["cpu"] / r["n"] if row.figure == "cpu" else r[row.figure] for r in rounds]

    found = {}
    for name, case in row.cases.items():
        if not {case, row.base.get(name, case)} <= set(raw.get(name, ())):
            continue
        values = series(name, case)
        minimum, median = min(values), statistics.median(values)
        if name in row.base:
            values = series(name, row.base[name])
            minimum, median = minimum - min(values), median - statistics.median(values)
        found[shown(name)] = Figure(minimum, median)
    return found


def missed(row: Row, limits: Mapping[str, float], found: Mapping[str, Figure]) -> list[str]:
    """Say which of the limits ours is beyond, by the minimum, which is nobody else's work."""
    ours = found[OURS].minimum if OURS in found else 0.0
    return [
        limit_text(row, name, limit)
        for name, limit in limits.items()
        if (not name or name in found) and ours > limit * (found[name].minimum if name else 1)
    ]


def limit_text(row: Row, name: str, limit: float) -> str:
    """Show a limit."""
    if not name:
        return show(limit, row.unit)
    return f"1/{1 / limit:.3g} x {name}" if limit < 0.1 else f"{limit:.3g} x {name}"


def show(value: float, unit: str) -> str:
    """Show a value with its unit, seconds in a smaller one."""
    if unit != "s":
        return f"{value:.3g} {unit}".rstrip()
    for factor, name in ((1, "s"), (1e-3, "ms"), (1e-6, "us")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {name}"
    return f"{value / 1e-9:.0f} ns"


def ratio(value: float, to: Figure | None) -> str:
    """Show how many times the other's minimum this is."""
    return f"{value / to.minimum:.3g}" if to and to.minimum > 0 <= value else ""


def verdict(row: Row, limits: Mapping[str, float], found: Mapping[str, Figure]) -> str:
    """Show the limits that can be judged, and whether all are kept."""
    over = missed(row, limits, found)
    judged = {name: limit for name, limit in limits.items() if not name or name in found}
    texts = [limit_text(row, *limit) for limit in judged.items()]
    return ", ".join(f"{text}: {'missed' if text in over else 'ok'}" for text in texts)


def markdown(rows: Iterable[Row], raw: Raw) -> str:
    """Give the table."""
    lines: list[Sequence[str]] = [
        ("row", "", "minimum", "median", f"x {FLOOR}", f"x {OURS}", "at most", "near the limit")
    ]
    for row in rows:
        found = figures(row, raw)
        about = f"{row.id}: {row.title}"
        for name, figure in found.items():
            limits = (row.limits, row.aims) if name == OURS else ({}, {})
            lines.append(
                [
                    about,
                    name,
                    show(figure.minimum, row.unit),
                    show(figure.median, row.unit),
                    ratio(figure.minimum, found.get(FLOOR)),
                    ratio(figure.minimum, found.get(OURS)),
                    *(verdict(row, each, found) for each in limits),
                ]
            )
            about = ""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * (width - 1) + (":" if 2 <= at < 6 else "-") for at, width in enumerate(widths)]
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
        for line in [lines[0], rule, *lines[1:]]
    )


def shares(parts: Mapping[str, float]) -> str:
    """Show what takes a fiftieth of the time, or more, the most first."""
    total = sum(parts.values())
    most = sorted(parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {t / total:.0%}" for name, t in most if t >= total / 50) + "."


def as_data(rows: Iterable[Row], raw: Raw) -> dict[str, Any]:
    """Give all that was found, for JSON."""
    return {
        row.id: {
            "title": row.title,
            "unit": row.unit,
            "figures": {n: dataclasses.asdict(f) for n, f in figures(row, raw).items()},
            "missed": missed(row, row.limits, figures(row, raw)),
            "not near": missed(row, row.aims, figures(row, raw)),
        }
        for row in rows
    }
