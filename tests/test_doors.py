"""The table of answers: the same situation gets the same answer at every door, sync and async."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib import auth
from django.test import RequestFactory
from doors_stage import (
    BACKEND,
    DECORATORS,
    OURS,
    Answer,
    introspections,
    knock,
    needs_ninja,
    needs_rest_framework,
    standing,
)

from django_baikal.exceptions import AuthserverError, BaikalError, KeyStoreError
from django_baikal.principals import ServicePrincipal, TokenUser
from django_baikal.testing import FakeAuthserver

REALM = 'Bearer realm="api"'


# -- doors ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Door:
    """``at``: the path, up to the kind of view. ``requires``: whether it asks for a token."""

    at: str
    middleware: tuple[str, ...] = ()
    requires: bool = True

    def url(self, kind: str) -> str:
        return f"/{self.at}/{kind}" if self.requires else f"/{self.at}"


DOORS = {
    "middleware": Door("open", (OURS,), requires=False),
    "middleware-async-view": Door("async-open", (OURS,), requires=False),
    **{name: Door(name) for name in DECORATORS},
    "middleware-and-function": Door("function", (OURS,)),
    "middleware-and-async-function": Door("async-function", (OURS,)),
    "framework": Door("framework"),
    "bare-framework": Door("bare-framework"),
    "middleware-and-framework": Door("framework", (OURS,)),
    "middleware-and-session-framework": Door("session-framework", (OURS,)),
    "ninja": Door("ninja"),
    "async-ninja": Door("async-ninja"),
    "middleware-and-ninja": Door("ninja", (OURS,)),
    "middleware-and-async-ninja": Door("async-ninja", (OURS,)),
}


#: Doors that add nothing to a view's own response.
BARE = ("ninja", "async-ninja")


def marks_of(name: str) -> Any:
    if "ninja" in name:
        return needs_ninja
    return needs_rest_framework if "framework" in name else ()


every_door = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=marks_of(name)) for name in DOORS]
)
both_servers = pytest.mark.parametrize(
    "asgi", [pytest.param(False, id="wsgi"), pytest.param(True, id="asgi")]
)


# -- situations -------------------------------------------------------------------------------


def deactivated(token: Any) -> Any:
    return SimpleNamespace(is_active=False)


def unknown(token: Any) -> Any:
    return None


def nobody(request: Any, issuer: str | None) -> Any:
    return None


@dataclass(frozen=True)
class Situation:
    """``header``: what is sent, by the authserver's leave. ``kinds``: the views that it is for."""

    status: int
    header: Callable[[FakeAuthserver], str | None]
    error: str = ""
    extra: str = ""
    retry_after: str = ""
    kinds: tuple[str, ...] = ("any",)
    query: str = ""
    form: str = ""
    asked: int | None = None
    entry: dict[str, Any] = field(default_factory=dict)
    fault: dict[str, Any] | None = None


def good(server: FakeAuthserver, **claims: Any) -> str:
    lifetime = claims.pop("lifetime", None)
    claims = {"sub": "anna", "scope": "read", **claims}
    return f"Bearer {server.issue_token(lifetime=lifetime, **claims)}"


def of(**claims: Any) -> Callable[[FakeAuthserver], str]:
    return lambda server: good(server, **claims)


def says(text: str | None) -> Callable[[FakeAuthserver], str | None]:
    return lambda server: text


def revoked(server: FakeAuthserver) -> str:
    header = good(server)
    server.revoke_token(header.removeprefix("Bearer "))
    return header


def expired_here_only(server: FakeAuthserver) -> str:
    server.move_clock(-3600)
    return good(server, lifetime=60)


def of_another_client(server: FakeAuthserver) -> str:
    return good(server, client_id="somebody-else")


def malformed(header: str, **options: Any) -> Situation:
    return Situation(401, says(header), "invalid_token", asked=0, **options)


def twice(header: Any, **options: Any) -> Situation:
    return Situation(400, header, "invalid_request", asked=0, **options)


def bad(header: Any, **options: Any) -> Situation:
    return Situation(401, header, "invalid_token", **options)


def outage(retry_after: str = "5", kinds: tuple[str, ...] = ("any",), **fault: Any) -> Situation:
    return Situation(
        503,
        good,
        "temporarily_unavailable",
        retry_after=retry_after,
        kinds=kinds,
        fault=fault or {"status": 503},
    )


def as_jwt(forged: bool = False, **claims: Any) -> Callable[[FakeAuthserver], str]:
    def header(server: FakeAuthserver) -> str:
        made = good(server, token_format="jwt", **claims)
        return made[:-4] + "AAAA" if forged else made

    return header


JWT, HYBRID = {"VALIDATION": "jwt"}, {"VALIDATION": "hybrid"}
ALSO_OPEN = ("any", "open")
REQUIRING = ("any", "scopes", "any_of", "purposes", "acr")
SITUATIONS = {
    "nothing": Situation(401, says(None), "unauthorized", kinds=REQUIRING, asked=0),
    "empty-header": Situation(401, says(""), "unauthorized", kinds=("any",), asked=0),
    "basic": Situation(401, says("Token abc"), "unauthorized", kinds=REQUIRING, asked=0),
    "bearertoken": Situation(401, says("Bearertoken"), "unauthorized", kinds=("any",), asked=0),
    "query-only": Situation(
        401, says(None), "unauthorized", kinds=("any",), query="?access_token=x", asked=0
    ),
    "form-only": Situation(
        401, says(None), "unauthorized", kinds=("any",), form="access_token=x", asked=0
    ),
    "bearer-alone": twice(says("Bearer"), kinds=ALSO_OPEN),
    "bearer-and-blanks": twice(says("bearer   ")),
    "two-tokens": twice(lambda server: f"{good(server)}, {good(server)}"),
    "two-schemes": twice(lambda server: f"Basic dXNlcg==, {good(server)}"),
    "query-too": twice(good, query="?access_token=x", kinds=ALSO_OPEN),
    "form-too": twice(good, form="a=b&access_token=x", kinds=ALSO_OPEN),
    "blank-within": malformed("Bearer a b", kinds=ALSO_OPEN),
    "quotes": malformed('Bearer "abc"'),
    "not-ascii": malformed("Bearer t\xf6ken"),
    "too-long": malformed("Bearer " + "a" * 8193),
    "longer-than-set": malformed("Bearer abcd", entry={"MAX_TOKEN_LENGTH": 3}),
    "unknown": bad(says("Bearer nope"), asked=1, kinds=ALSO_OPEN),
    "id-token": bad(says("Bearer eyJhbGciOiJub25lIn0.e30.c2ln"), asked=1),
    "expired": bad(of(lifetime=-10), asked=1),
    "expired-here-only": bad(expired_here_only, asked=1),
    "not-yet": bad(of(nbf=time.time() + 3600), asked=1),
    "revoked": bad(revoked, asked=1),
    "refresh-token": bad(of(token_type="refresh_token"), asked=1, kinds=ALSO_OPEN),
    "bound-to-a-key": bad(of(cnf={"jkt": "x"}), asked=1),
    "dpop": bad(of(token_type="DPoP"), asked=1),
    "another-audience": bad(of(aud=["https://other.example"]), asked=1),
    "another-issuer": bad(of(iss="https://evil.example"), asked=1),
    "another-client": bad(of_another_client, asked=1),
    "client-not-allowed": bad(good, asked=1, entry={"ALLOWED_CLIENTS": ["others"]}),
    "deactivated": bad(
        good, asked=1, entry={"USER_RESOLVER": "test_doors.deactivated"}, kinds=ALSO_OPEN
    ),
    "unknown-user": bad(good, asked=1, entry={"USER_RESOLVER": "test_doors.unknown"}),
    "lacks-scopes": Situation(
        403, good, "insufficient_scope", ', scope="write admin"', kinds=("scopes",)
    ),
    "lacks-one-scope": Situation(
        403,
        of(scope="write"),
        "insufficient_scope",
        ', scope="write admin"',
        kinds=("scopes",),
    ),
    "lacks-any-scope": Situation(
        403, of(scope="admin"), "insufficient_scope", ', scope="write"', kinds=("any_of",)
    ),
    "lacks-purpose": Situation(
        403,
        of(purpose="marketing"),
        "insufficient_scope",
        ', purpose="fraud"',
        kinds=("purposes",),
    ),
    "acr-too-low": Situation(
        401,
        of(acr="2"),
        "insufficient_user_authentication",
        ', acr_values="3"',
        kinds=("acr",),
    ),
    "no-acr": Situation(
        401, good, "insufficient_user_authentication", ', acr_values="3"', kinds=("acr",)
    ),
    "503": outage(kinds=ALSO_OPEN),
    "503-later": outage("30", status=503, headers={"Retry-After": "30"}),
    "429": outage("7", status=429, headers={"Retry-After": "7"}),
    "500": outage(status=500),
    "hangs": outage(hang=True),
    "html": outage(garbage="html"),
    "not-json": outage(garbage="not-json"),
    "truncated": outage(garbage="truncated"),
    "error-with-200": outage(body={"error": "server_error"}),
    "active-as-text": outage(body={"active": "true"}),
    "redirect": outage(status=302, headers={"Location": "https://evil.example/"}),
    "our-client-401": outage(status=401),
    "our-client-403": outage(status=403),
    "no-metadata": outage(endpoint="discovery"),
    "no-key-of-our-own": Situation(
        503,
        good,
        "temporarily_unavailable",
        retry_after="5",
        entry={
            "CLIENT_AUTH_METHOD": "private_key_jwt",
            "CLIENT_KEYS": [{"key": "/nowhere/key.pem"}],
        },
    ),
    "jwt-forged": bad(as_jwt(forged=True), asked=0, entry=JWT, kinds=ALSO_OPEN),
    "jwt-opaque": bad(good, asked=0, entry=JWT),
    "jwt-id-token": bad(as_jwt(nonce="n0nce"), asked=0, entry={**JWT, "JWT_TYPES": ["JWT", None]}),
    "jwt-expired": bad(as_jwt(lifetime=-10), asked=0, entry=JWT),
    "jwt-without-keys": Situation(
        503,
        as_jwt(),
        "temporarily_unavailable",
        retry_after="5",
        entry=JWT,
        fault={"endpoint": "jwks"},
        kinds=ALSO_OPEN,
    ),
    "hybrid-forged": bad(as_jwt(forged=True), asked=0, entry=HYBRID),
    "hybrid-503": Situation(
        503,
        as_jwt(),
        "temporarily_unavailable",
        retry_after="5",
        entry=HYBRID,
        fault={"status": 503},
    ),
    "jwt-good": Situation(200, as_jwt(), asked=0, entry=JWT, kinds=ALSO_OPEN),
    "hybrid-good": Situation(200, as_jwt(), asked=1, entry=HYBRID),
    "no-authserver": bad(good, asked=0, entry={"AUTHSERVER_RESOLVER": "test_doors.nobody"}),
    "good": Situation(200, good, asked=1, kinds=ALSO_OPEN),
    "good-in-capitals": Situation(200, lambda s: good(s).replace("Bearer", "BEARER"), asked=1),
    "good-of-a-client": Situation(200, of(sub=None), asked=1, kinds=ALSO_OPEN),
    "enough-scopes": Situation(200, of(scope="admin x write"), kinds=("scopes",)),
    "enough-of-any": Situation(200, of(scope="audit admin"), kinds=("any_of",)),
    "enough-purpose": Situation(
        200, of(scope="dpv:FraudPrevention fraud", purpose="fraud"), kinds=("purposes",)
    ),
    "enough-acr": Situation(200, of(acr="4"), kinds=("acr",)),
}
#: The middleware alone asks nothing of a token, and is not asked what it does to too weak ones.
cases = pytest.mark.parametrize(
    ("name", "situation", "kind"),
    [
        pytest.param(name, situation, kind, id=f"{name}-{row}-{kind}", marks=marks_of(name))
        for name, door in DOORS.items()
        for row, situation in SITUATIONS.items()
        for kind in situation.kinds
        if door.requires or kind in ALSO_OPEN
    ],
)


def faulty(server: FakeAuthserver, situation: Situation) -> AbstractContextManager[Any]:
    if situation.fault is None:
        return nullcontext()
    return server.fail(**{"endpoint": "introspection", **situation.fault})


SENTENCES = {
    "unauthorized": "A bearer token is needed.",
    "invalid_request": "The request must carry exactly one token, in the Authorization header.",
    "invalid_token": "The access token is invalid or has expired.",
    "insufficient_scope": "The access token does not reach this far.",
    "insufficient_user_authentication": "The user has to authenticate more strongly.",
    "temporarily_unavailable": "The access token cannot be checked now; try again later.",
}


def expected_headers(situation: Situation) -> dict[str, str]:
    if situation.status == 200:
        return {}
    if situation.status == 503:
        return {"Retry-After": situation.retry_after, "Cache-Control": "no-store"}
    if situation.error == "unauthorized":
        return {"WWW-Authenticate": REALM}
    said = f'error="{situation.error}", error_description="{SENTENCES[situation.error]}"'
    return {"WWW-Authenticate": f"{REALM}, {said}{situation.extra}"}


def assert_is_the_answer(answer: Answer, situation: Situation, door: str) -> None:
    assert answer.status == situation.status
    assert answer.told == expected_headers(situation)
    # An operation of Ninja is answered by it alone: see test_ninja.py.
    assert "Authorization" in answer.vary or (door in BARE and answer.status == 200)
    if situation.status == 200:
        assert answer.body["authenticated"] is True
        assert answer.body["scopes"] is not None
    elif "framework" in door and answer.body.keys() != {"error", "error_description"}:
        told = {"detail": SENTENCES[situation.error], "code": situation.error}
        assert answer.body == told
    else:
        # The middleware's own, also before the framework.
        assert door.startswith("middleware") or "framework" not in door
        told = {"error": situation.error, "error_description": SENTENCES[situation.error]}
        assert answer.body == told


# -- the table --------------------------------------------------------------------------------


@both_servers
@cases
def test_every_situation_has_one_answer(
    name: str, asgi: bool, situation: Situation, kind: str
) -> None:
    door = DOORS[name]
    with standing([*door.middleware], situation.entry) as server:
        options: dict[str, Any] = {"asgi": asgi}
        if situation.form:
            kind_of_form = "application/x-www-form-urlencoded"
            options |= {"method": "post", "data": situation.form, "content_type": kind_of_form}
        header = situation.header(server)
        with faulty(server, situation):
            answer = knock(door.url(kind) + situation.query, header, **options)
        asked = introspections(server)
    if situation.error == "unauthorized" and (not door.requires or "session-" in name):
        assert_is_left_alone(answer, door)
    elif name == "bare-framework" and situation.error.startswith("insufficient"):
        # What the framework says by itself of a permission that is not given.
        assert (answer.status, answer.told) == (403, {})
        assert answer.body == {"detail": "You do not have permission to perform this action."}
    elif name == "bare-framework" and situation.error == "unauthorized":
        assert (answer.status, answer.told) == (401, {"WWW-Authenticate": REALM})
        assert answer.body == {"detail": "Authentication credentials were not provided."}
        assert "Authorization" in answer.vary
    else:
        assert_is_the_answer(answer, situation, name)
    if situation.asked is not None:
        assert asked == situation.asked


def assert_is_left_alone(answer: Answer, door: Door) -> None:
    """Without a bearer's header the middleware does nothing, and the view answers as it likes."""
    assert answer.told == ({} if not door.requires else answer.told)
    assert REALM not in answer.told.values()
    assert "Authorization" not in answer.vary
    if not door.requires:
        assert answer.status == 200
        assert answer.body["authenticated"] is False
    else:
        assert answer.status == 403


@both_servers
@every_door
def test_an_optional_token_may_be_missing_and_not_be_wrong(name: str, asgi: bool) -> None:
    door = DOORS[name]
    with standing([*door.middleware]) as server:
        without = knock(door.url("open"), asgi=asgi)
        assert (without.status, without.told) == (200, {})
        assert without.body["authenticated"] is False
        assert knock(door.url("open"), "Bearer nope", asgi=asgi).status == 401
        found = knock(door.url("open"), good(server), asgi=asgi)
        assert (found.status, found.body["authenticated"]) == (200, True)


# -- the backend ------------------------------------------------------------------------------


def ask_sync(**credentials: Any) -> Any:
    return auth.authenticate(RequestFactory().get("/"), **credentials)


def ask_async(**credentials: Any) -> Any:
    return asyncio.run(auth.aauthenticate(RequestFactory().get("/"), **credentials))


@pytest.fixture
def _backend(settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = [BACKEND]


@pytest.mark.usefixtures("_backend")
@pytest.mark.parametrize("ask", [ask_sync, ask_async])
@pytest.mark.parametrize(
    "name",
    [
        name
        for name, situation in SITUATIONS.items()
        if "any" in situation.kinds and situation.error not in ("unauthorized", "invalid_request")
    ],
)
def test_the_backend_gives_a_principal_or_nobody_or_an_outage(name: str, ask: Any) -> None:
    situation = SITUATIONS[name]
    with standing(entry=situation.entry) as server:
        header = situation.header(server)
        assert header is not None
        with faulty(server, situation):
            token = header[len("Bearer ") :]
            if situation.status == 503:
                with pytest.raises(BaikalError) as caught:
                    ask(token=token)
                assert isinstance(caught.value, AuthserverError | KeyStoreError)
                return
            found = ask(token=token)
    if situation.status == 401:
        assert found is None
    else:
        kind = ServicePrincipal if name == "good-of-a-client" else TokenUser
        assert type(found) is kind
        assert found.backend == BACKEND
    if situation.asked is not None:
        assert introspections(server) == situation.asked
