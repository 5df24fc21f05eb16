"""Who takes part in the rows of the server, and these: see README.md for what each means."""

from __future__ import annotations

import sys

from environments import HERE
from table import FLOOR, OURS, Contestant, Row, shown

DOT, MOZILLA, OIDC_AUTH = "django-oauth-toolkit", "mozilla-django-oidc", "drf-oidc-auth"
SIMPLEJWT, DRF_TOKEN, PROTECTOR = "simplejwt", "DRF TokenAuthentication", "Authlib/django"
_FLOOR, _OURS, _RS256 = f"{FLOOR}/django", f"{OURS}/django", f"{SIMPLEJWT}/rs256"

DJANGO = "Django>=6.1,<6.2" if sys.version_info >= (3, 12) else "Django>=5.2,<6"
_BOTH = (DJANGO, "djangorestframework>=3.16.1,<4")
_REQUESTS = (*_BOTH, "requests", "cryptography")

_SIMPLEJWT = (*_BOTH, "djangorestframework-simplejwt[crypto]>=5.5,<6")
_BENCH = ("-e", f"{HERE.parent}[rest-framework,aiohttp]", DJANGO)

DJANGO_CONTESTANTS = {
    _FLOOR: Contestant("django_floor", _BENCH, environment="bench"),
    _OURS: Contestant("django_baikal_site", _BENCH, environment="bench"),
    SIMPLEJWT: Contestant("simplejwt", _SIMPLEJWT, environment="simplejwt"),
    _RS256: Contestant("simplejwt_rs256", _SIMPLEJWT, environment="simplejwt"),
    DRF_TOKEN: Contestant("drf_token", _BENCH, environment="bench"),
    OIDC_AUTH: Contestant("drf_oidc_auth", (*_REQUESTS, "drf-oidc-auth>=4,<5")),
    DOT: Contestant("django_oauth_toolkit", (*_REQUESTS, "django-oauth-toolkit>=3.4,<4")),
    MOZILLA: Contestant("mozilla_django_oidc", (*_REQUESTS, "mozilla-django-oidc>=5,<6")),
    PROTECTOR: Contestant("authlib_django", (*_REQUESTS, "Authlib>=1.6,<2")),
}
#: Those that ask an authserver.
_ASK = (OIDC_AUTH, DOT, MOZILLA, PROTECTOR)


def _all(case: str, *names: str) -> dict[str, str]:
    return dict.fromkeys((_FLOOR, _OURS, *names), case)


def _ours(case: str, *names: str) -> dict[str, str]:
    return dict.fromkeys((_OURS, *names), case)


# The targets were set on one machine, where simplejwt added 75 us to a view, django-oauth-toolkit
# 919 under WSGI, and its view of keys 49 with one and 193 with ten. Both have to be kept: the
# microseconds, and what they were of that.
_WARM = (
    Row(
        "S1",
        "a protected view, the token is known: added to a view that wants none",
        _all("S1", SIMPLEJWT, DRF_TOKEN, *_ASK),
        limits={"": 35e-6, SIMPLEJWT: 35 / 75},
        aims={"": 20e-6, SIMPLEJWT: 20 / 75},
    ),
    Row(
        "S1/fraction",
        "what that is of the other view's own time",
        _all("S1", SIMPLEJWT, DRF_TOKEN, *_ASK),
        figure="fraction",
        unit="",
    ),
    Row(
        "S1/queries",
        "queries of such a request",
        _ours("S1", SIMPLEJWT, DRF_TOKEN, *_ASK),
        figure="queries",
        unit="",
        limits={"": 0},
    ),
    Row(
        "S1/upstream",
        "calls to the authserver of such a request",
        _ours("S1", *_ASK),
        figure="upstream",
        unit="",
        limits={"": 0},
    ),
    *(
        Row(
            f"S2/{kind}",
            f"a middleware under {kind.upper()}, the token is known: added to none",
            _all(f"S2/{kind}", DOT),
            limits={"": 15e-6} | ({DOT: 15 / 919} if kind == "wsgi" else {}),
            aims={"": 5e-6},
        )
        for kind in ("wsgi", "asgi")
    ),
    Row(
        "S2/hops",
        "changes to a thread that the middleware causes under ASGI",
        _all("S2/asgi", DOT),
        figure="hops",
        unit="",
        limits={"": 0},
    ),
)

_COLD = (
    *(
        Row(
            f"S3/{scheme}",
            f"a protected view, a new token, over {scheme}: added to a view that wants none",
            _all(f"S3/{scheme}", *_ASK),
            limits=limits,
            aims={FLOOR: 1.2},
        )
        for scheme, limits in (
            ("http", {shown(PROTECTOR): 0.7, OIDC_AUTH: 0.4, DOT: 1 / 8}),
            ("https", dict.fromkeys(map(shown, _ASK), 1 / 25)),
        )
    ),
    Row(
        "S4",
        "50 threads with one new token: calls to the authserver",
        _ours("S4", *_ASK),
        figure="upstream",
        unit="",
        n=1,
        limits={"": 1},
    ),
    Row(
        "S4/errors",
        "those of them that are not answered 200",
        _ours("S4", *_ASK),
        figure="errors",
        unit="",
        n=1,
        limits={"": 0},
    ),
    Row(
        "S5",
        "one bad token 20 times: calls to the authserver",
        _ours("S5", *_ASK),
        figure="upstream",
        unit="",
        n=1,
        limits={"": 1},
    ),
)

_SIGNED = (
    Row(
        "S6/first",
        "a protected view, a new JWT (RS256): added to a view that wants none",
        _all("S6/first", _RS256, OIDC_AUTH),
        limits={SIMPLEJWT: 1.15},
        aims={FLOOR: 1.1},
    ),
    Row(
        "S6/again",
        "the same with a JWT that is known; the floor is a look into a dict",
        _all("S6/again", _RS256, OIDC_AUTH),
        limits={"": 35e-6},
        aims={"": 20e-6},
    ),
)


def _jwks(number: int) -> tuple[Row, ...]:
    keys = "1 key" if number == 1 else f"{number} keys"
    limits = {"": 12e-6, DOT: 12 / (49 if number == 1 else 193)}
    return (
        Row(
            f"S7/{number}",
            f"a JWK Set of {keys} in the settings: added to a plain view",
            _all(f"S7/{number}", DOT),
            limits=limits,
            aims={FLOOR: 1.5},
        ),
        *(
            Row(
                f"S7/{where}/{number}",
                f"a JWK Set of {keys} in {what}: added to a plain view",
                {_FLOOR: f"S7/{number}", _OURS: f"S7/{where}/{number}", DOT: f"S7/{number}"},
                limits=limits,
                aims={FLOOR: 1.5},
            )
            for where, what in (("files", "files"), ("database", "the database"))
        ),
        Row(
            f"S7/first/{number}",
            f"the first request for a JWK Set of {keys} in the settings",
            _ours(f"S7/first/{number}", DOT),
            aims={"": 2e-3},
        ),
    )


DJANGO_ROWS = (*_WARM, *_COLD, *_SIGNED, *_jwks(1), *_jwks(10))
