"""Who takes part, and the rows: see README.md for what each means."""

from __future__ import annotations

import sys

from environments import HERE
from table import FLOOR, OURS, Contestant, Row

SDK, RO2C, AUTHLIB, SESSION = "baikal-sdk", "requests-oauth2client", "Authlib", "requests.Session"

_DJANGO = "Django>=6.1,<6.2" if sys.version_info >= (3, 12) else "Django>=5.2,<6"
_OURS = ("-e", f"{HERE.parent}[rest-framework,aiohttp]", _DJANGO)

CONTESTANTS = {
    FLOOR: Contestant("floor", _OURS, environment="bench"),
    OURS: Contestant("baikal", _OURS, environment="bench"),
    SDK: Contestant("baikal_sdk", ("baikal-sdk==1.2.5",), python="3.11"),
}


def everybody(case: str, *names: str) -> dict[str, str]:
    """Have these run the case of the same name."""
    return dict.fromkeys(names, case)


CLIENT_ROWS = tuple(
    Row(
        f"C2/{scheme}",
        f"client grant over {scheme}",
        everybody(f"C2/{scheme}", FLOOR, OURS, SDK),
        limits={SDK: at_most},
        aims={FLOOR: near},
    )
    for scheme, at_most, near in (("http", 0.45, 1.25), ("https", 1 / 60, 1.3))
)

ROWS = CLIENT_ROWS
