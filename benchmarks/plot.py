"""The chart of the rows that tell of CPU time: an SVG, which is readable in black and white."""

from __future__ import annotations

import math
from collections.abc import Iterable
from xml.sax.saxutils import escape

from table import FLOOR, OURS, Figure, Raw, Row, figures, show

#: In pixels: where bars begin, how long the longest is, and how high a line of text is.
LEFT, WIDTH, LINE = 190, 560, 16
RIGHT, TOP, GAP = 90, 66, 12
FILLS = {FLOOR: "#fff", OURS: "#000"}
OTHERS = "#aaa"


def text(x: float, y: float, what: str, more: str = "") -> str:
    """Draw a text whose baseline is at ``y``."""
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(what)}</text>'


def box(x: float, y: float, width: float, height: float, more: str) -> str:
    """Draw a rectangle."""
    size = f'width="{width:.1f}" height="{height:.1f}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" {size} {more}/>'


def svg(rows: Iterable[Row], raw: Raw, caption: str) -> str:
    """Draw a bar for the minimum of each contestant in each row, on a logarithmic scale."""
    found = [(row, bars(row, raw)) for row in rows if row.figure == "cpu"]
    values = [f.minimum for _, each in found for f in each.values()] or [1e-6]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)

    def at(value: float) -> float:
        return LEFT + WIDTH * (math.log10(value) - low) / (high - low)

    drawn, y = [], float(TOP)
    for row, each in found:
        if not each:
            continue
        drawn.append(text(8, y + LINE, f"{row.id}: {row.title}", 'font-weight="bold"'))
        y += LINE + 5
        for name, figure in each.items():
            x, fill = at(figure.minimum), FILLS.get(name, OTHERS)
            drawn += [
                text(LEFT - 6, y + 12, name, 'text-anchor="end"'),
                box(LEFT, y + 2, max(x - LEFT, 1), LINE - 4, f'fill="{fill}" stroke="#000"'),
                text(x + 5, y + 12, show(figure.minimum, row.unit)),
            ]
            y += LINE
        y += GAP
    grid = []
    for power in range(low, high + 1):
        x = at(10.0**power)
        grid += [
            f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{y:.1f}" stroke="#ddd"/>',
            text(x, TOP - 6, show(10.0**power, "s"), 'text-anchor="middle"'),
        ]
    width, height = LEFT + WIDTH + RIGHT, y + LINE + 8
    font = f'width="{width}" height="{height:.0f}" font-family="sans-serif" font-size="12"'
    title = "CPU time per call, the least of all rounds (logarithmic: each line is ten times more)"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" {font}>',
            f"<title>{escape(title)}</title>",
            box(0, 0, width, height, 'fill="#fff"'),
            text(8, 20, title, 'font-size="15" font-weight="bold"'),
            text(8, 38, f"White: the floor. Black: {OURS}. Grey: others. Shorter is better."),
            *grid,
            *drawn,
            text(8, height - 8, caption),
            "</svg>\n",
        ]
    )


def bars(row: Row, raw: Raw) -> dict[str, Figure]:
    """Give what can be drawn: no difference that is lost in the noise has a logarithm."""
    return {name: figure for name, figure in figures(row, raw).items() if figure.minimum > 0}
