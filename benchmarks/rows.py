"""Who takes part, and the rows: see README.md for what each means, and what it does not."""

from __future__ import annotations

from collections.abc import Iterable

from environments import HERE
from rows_django import DJANGO, DJANGO_CONTESTANTS, DJANGO_ROWS
from table import FLOOR, OURS, Contestant, Row

SDK, RO2C, AUTHLIB, SESSION = "baikal-sdk", "requests-oauth2client", "Authlib", "requests.Session"
# Authlib calls httpx deprecated; it is what most have, and what the target is about.
ON_HTTPX = "Authlib on httpx"
DOT = "django-oauth-toolkit"
KEYS, LOADING, DOT_LOADING = f"{OURS}/keys", f"{OURS}/loading", f"{DOT}/loading"

_OURS = ("-e", f"{HERE.parent}[rest-framework,aiohttp]", DJANGO)

CONTESTANTS = {
    FLOOR: Contestant("floor", _OURS, environment="bench"),
    OURS: Contestant("baikal", _OURS, environment="bench"),
    KEYS: Contestant("baikal_keys", _OURS, environment="bench"),
    LOADING: Contestant("loading", _OURS, environment="bench"),
    SESSION: Contestant("requests_session", _OURS, environment="bench"),
    SDK: Contestant("baikal_sdk", ("baikal-sdk==1.2.5",), python="3.11"),
    RO2C: Contestant("requests_oauth2client", ("requests-oauth2client>=1.8,<2",)),
    AUTHLIB: Contestant("authlib_client", ("Authlib>=1.9,<2", "httpx2")),
    ON_HTTPX: Contestant("authlib_client", ("Authlib>=1.9,<2", "httpx>=0.28,<1")),
    DOT_LOADING: Contestant("loading", (DJANGO, DOT)),
    **DJANGO_CONTESTANTS,
}


def everybody(case: str, names: Iterable[str]) -> dict[str, str]:
    """Have these run the case of the same name."""
    return dict.fromkeys(names, case)


def _user_grant() -> Iterable[Row]:
    for scheme, sdk, near in (("http", 54, 2.0), ("https", 80, 2.4)):
        yield Row(
            f"C1/{scheme}",
            f"user grant over {scheme}; the floor is the signature alone",
            {FLOOR: "signature"} | everybody(f"C1/{scheme}", (OURS, SESSION, SDK, RO2C, AUTHLIB)),
            limits={RO2C: 0.6, SDK: 1 / sdk},
            aims={FLOOR: near},
        )


def _client_grant() -> Iterable[Row]:
    for what, title in (("", "client grant"), ("introspect/", "introspection, not cached,")):
        for scheme, sdk, near in (("http", 0.45, 1.25), ("https", 1 / 60, 1.3)):
            case = f"C2/{what}{scheme}"
            yield Row(
                case,
                f"{title} over {scheme}",
                everybody(case, (FLOOR, OURS, SESSION, SDK, RO2C, AUTHLIB, ON_HTTPX)),
                limits={SDK: sdk, ON_HTTPX: 0.7},
                aims={FLOOR: near},
            )


def _at_once() -> Iterable[Row]:
    for number in (50, 500):
        for scheme, sdk in (("http", 0.55), ("https", 0.2)):
            case = f"C4/{number}/{scheme}"
            yield Row(
                case,
                f"async client grant over {scheme}, {number} at once",
                everybody(case, (FLOOR, OURS, SDK, AUTHLIB)),
                limits={SDK: sdk},
                aims={FLOOR: 1.15},
            )
    # The baikal-sdk holds up the loop for so long that one batch is enough, and 500 are too many.
    peers = {AUTHLIB: "C5/50", SDK: "C5/50/stall"}
    stalls = everybody("C5/50/stall", (AUTHLIB, SDK))
    for number, stall in ((50, 0.015), (500, 0.025)):
        few = number == 50
        yield Row(
            f"C5/{number}",
            f"async user grant, {number} at once",
            everybody(f"C5/{number}", (FLOOR, OURS)) | (peers if few else {}),
            limits={SDK: 1 / 40} if few else {},
            aims={FLOOR: 1.1},
        )
        yield Row(
            f"C5/{number}/stall",
            f"how long nothing else runs in the loop, {number} at once",
            everybody(f"C5/{number}/stall", (FLOOR, OURS)) | (stalls if few else {}),
            figure="stall",
            n=number,
            limits={SDK: 1 / 50} if few else {},
            aims={"": stall},
        )


CLIENT_ROWS = (
    *_user_grant(),
    *_client_grant(),
    Row(
        "C3",
        "token from the cache",
        everybody("C3", (FLOOR, OURS, RO2C, AUTHLIB)),
        limits={"": 1e-6, FLOOR: 10},
        aims={FLOOR: 5},
    ),
    *_at_once(),
    Row(
        "C6/connections",
        "connections of 100 client grants over https",
        everybody("C6/connections", (FLOOR, OURS, SESSION, SDK, RO2C, AUTHLIB)),
        figure="connections",
        unit="",
        n=100,
        limits={"": 2},
    ),
    *(
        Row(
            f"C6/{figure}",
            f"requests for the {what} of 50 threads with one new client",
            everybody("C6/cold", (OURS, SDK)),
            figure=figure,
            unit="",
            n=50,
            limits={"": 1},
        )
        for figure, what in (("discovery", "metadata"), ("jwks", "keys"))
    ),
    Row(
        "K1",
        "signing with a key that is in the database",
        {FLOOR: "signature", KEYS: "K1"},
    ),
    *(
        Row(
            f"K1/{case}/{figure}",
            f"{what} in {when}",
            {KEYS: f"K1/{case}"},
            figure=figure,
            unit="",
            n=n,
            limits=limits,
            aims=aims,
        )
        for case, when, n, limits, aims in (
            ("again", "100 signatures after the first", 100, {"": 0}, {}),
            ("first", "the first signature", 1, {}, {"": 1}),
        )
        for figure, what in (("queries", "queries"), ("parses", "private keys parsed"))
    ),
    *(
        Row(
            f"I1/{name}",
            f"{what} that an app adds to django.setup()",
            {LOADING: "I1/baikal", DOT_LOADING: "I1/oauth2_provider"},
            figure=figure,
            unit=unit,
            n=1,
            base=everybody("I1/nothing", (LOADING, DOT_LOADING)),
            limits=limits,
            aims=aims,
        )
        for name, what, figure, unit, limits, aims in (
            ("cpu", "CPU time", "cpu", "s", {"": 0.02}, {"": 0.005}),
            ("memory", "memory", "mib", "MiB", {"": 3}, {}),
            ("modules", "modules", "modules", "", {}, {}),
        )
    ),
)

ROWS = (*CLIENT_ROWS, *DJANGO_ROWS)
