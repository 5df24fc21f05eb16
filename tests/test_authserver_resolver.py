"""Several authservers behind one door: AUTHSERVER_RESOLVER picks, and nothing crosses over."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest
from asgiref.sync import async_to_sync
from django.test import RequestFactory, override_settings
from doors_stage import OURS, knock, needs_rest_framework

from django_baikal import clients, signals
from django_baikal.authentication import aauthenticate_request, authenticate_request
from django_baikal.exceptions import AuthserverUnavailable, ConfigurationError, TokenError
from django_baikal.protocol.access_token import claimed_issuer
from django_baikal.testing import FakeAuthserver, override_token

#: By issuer, as a project would have it: those of this test's authservers.
ALIASES: dict[str, str] = {}


def by_issuer(request: Any, issuer: str | None) -> str | None:
    return ALIASES.get(issuer or "")


async def aby_issuer(request: Any, issuer: str | None) -> str | None:
    return ALIASES.get(issuer or "")


def by_host(request: Any, issuer: str | None) -> str | None:
    return {"testserver": "default", "there.example": "there"}.get(request.get_host())


def carelessly(request: Any, issuer: str | None) -> Any:
    return issuer


def ill(request: Any, issuer: str | None) -> Any:
    return ["default"]


class Both(NamedTuple):
    here: FakeAuthserver
    there: FakeAuthserver

    @property
    def introspections(self) -> tuple[int, int]:
        return tuple(server.requests.count("introspection") for server in self)  # type: ignore[return-value]


@pytest.fixture(params=["introspection", "jwt", "hybrid"])
def validation(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def both(validation: str) -> Iterator[Both]:
    with ExitStack() as stack:
        # Of names that no other test has used: a client remembers its authserver.
        names = [f"https://{uuid.uuid4()}.test" for _ in range(2)]
        servers = Both(*(FakeAuthserver(endpoint=name, token_format="jwt") for name in names))
        if validation != "introspection":
            servers.there.rotate_keys()  # to a key that the other one has not
        for server in servers:
            stack.enter_context(server.in_memory())
        ALIASES.clear()
        ALIASES.update({servers.here.endpoint: "default", servers.there.endpoint: "there"})
        yield servers


def standing(both: Both, resolver: str = "by_issuer", **changes: Any) -> override_settings:
    rules = {"VALIDATION": changes.pop("validation", "introspection")}
    path = f"{__name__}.{resolver}" if resolver else ""
    entries = {
        "default": both.here.settings(AUTHSERVER_RESOLVER=path, **rules),
        "there": both.there.settings(**rules, **changes),
    }
    return override_settings(BAIKAL=entries, ROOT_URLCONF="doors_stage", MIDDLEWARE=[])


def call(token: str, *, asgi: bool, host: str = "testserver") -> Any:
    request = RequestFactory(headers={"authorization": f"Bearer {token}"}).get("/", HTTP_HOST=host)
    if asgi:
        return async_to_sync(aauthenticate_request)(request)
    return authenticate_request(request)


both_servers = pytest.mark.parametrize("asgi", [False, True], ids=["wsgi", "asgi"])


@both_servers
@pytest.mark.parametrize("resolver", ["by_issuer", "aby_issuer"])
def test_each_token_goes_to_the_authserver_that_it_is_from(both, validation, resolver, asgi):
    with standing(both, resolver, validation=validation):
        for server, alias in ((both.here, "default"), (both.there, "there")):
            found = call(server.issue_token(sub="anna"), asgi=asgi).baikal_token
            assert (found.alias, found.issuer) == (alias, server.endpoint)
    assert both.introspections == ((0, 0) if validation == "jwt" else (1, 1))


@both_servers
def test_a_request_may_say_it_too(both, validation, asgi):
    with (
        standing(both, "by_host", validation=validation),
        override_settings(ALLOWED_HOSTS=["testserver", "there.example"]),
    ):
        token = both.there.issue_token(sub="anna")
        assert call(token, asgi=asgi, host="there.example").baikal_token.alias == "there"
        with pytest.raises(TokenError):
            call(token, asgi=asgi)


@both_servers
@pytest.mark.parametrize(
    "resolver", ["by_issuer", "carelessly", "ill"], ids=["none", "no-alias", "no-text"]
)
def test_only_an_alias_of_the_settings_can_be_picked(both, resolver, asgi, caplog):
    """The issuer is what the sender of the token has written: it leads nowhere else."""
    with FakeAuthserver(endpoint="https://evil.test", token_format="jwt").in_memory() as evil:
        token = evil.issue_token(sub="admin")
        with standing(both, resolver), pytest.raises(TokenError) as caught:
            call(token, asgi=asgi)
        assert caught.value.code == "unknown_authserver"
        assert evil.requests.count("*") == len(evil.requests) == 0
    assert both.introspections == (0, 0)
    errors = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert len(errors) == (resolver != "by_issuer"), "a mistake of the project is told"
    assert "evil.test" not in caplog.text


@both_servers
def test_a_token_that_claims_another_issuer_is_refused_by_that_one(both, validation, asgi):
    """Signed by one authserver, in the name of the other."""
    with standing(both, validation=validation):
        forged = both.there.issue_token(sub="anna", iss=both.here.endpoint)
        with pytest.raises(TokenError):
            call(forged, asgi=asgi)
        # Nor is it good at its own: it says that it is from elsewhere.
        with pytest.raises(TokenError):
            clients["there"].authenticate(forged)


@pytest.mark.parametrize("validation", ["introspection"], indirect=True)
def test_no_answer_is_shared_though_the_tokens_are_equal(both):
    with standing(both):
        token = both.here.issue_token(sub="anna")
        assert clients["default"].authenticate(token)
        with pytest.raises(TokenError):
            clients["there"].authenticate(token)
        assert clients["default"].authenticate(token), "nor does one's no count for the other"
    assert both.introspections == (1, 1)


def test_no_breaker_is_shared(both, validation):
    fails = "jwks" if validation == "jwt" else "introspection"
    with standing(both, validation=validation), both.there.fail(fails):
        for _ in range(7):
            with pytest.raises(AuthserverUnavailable) as caught:
                call(both.there.issue_token(sub="anna"), asgi=False)
        assert caught.value.code == "circuit_open"
        assert call(both.here.issue_token(sub="anna"), asgi=False)


def test_no_key_is_shared(both, validation):
    """Each of both publishes a key under the kid of the other: it verifies nothing there."""
    with standing(both, validation=validation):
        good = both.here.issue_token(sub="anna")
        foreign = both.there.issue_token(sub="anna")
        assert call(good, asgi=False)
        assert call(foreign, asgi=False)
        with pytest.raises(TokenError):
            clients["default"].authenticate(foreign)
        with pytest.raises(TokenError):
            clients["there"].authenticate(good)


@pytest.mark.parametrize("at", ["function/any", "async-function/any", "open", "framework/any"])
@both_servers
@pytest.mark.parametrize("validation", ["introspection"], indirect=True)
def test_every_door_lets_it_pick(both, at, asgi):
    if at.startswith("framework") and needs_rest_framework.args[0]:
        pytest.skip("djangorestframework is not installed")
    with standing(both), override_settings(MIDDLEWARE=[OURS] if at == "open" else []):
        found = knock(f"/{at}", f"Bearer {both.there.issue_token(sub='anna')}", asgi=asgi)
        assert (found.status, found.body["authenticated"]) == (200, True)
    assert both.introspections == (0, 1)


@pytest.mark.parametrize("validation", ["introspection"], indirect=True)
def test_the_signals_name_the_alias_that_was_asked(both):
    told = []

    def receiver(using: str = "", token: Any = None, **_: Any) -> None:
        told.append(using or token.alias)

    for signal in (signals.token_validated, signals.token_rejected):
        signal.connect(receiver)
    try:
        with standing(both):
            token = both.there.issue_token(sub="anna")
            call(token, asgi=False)
            both.there.revoke_token(token)
            clients["there"].invalidate(token)
            with pytest.raises(TokenError):
                call(token, asgi=False)
            with pytest.raises(TokenError):
                call("opaque", asgi=False)
    finally:
        for signal in (signals.token_validated, signals.token_rejected):
            signal.disconnect(receiver)
    assert told == ["there", "there", "default"]


@pytest.mark.parametrize("validation", ["introspection"], indirect=True)
def test_a_user_s_tests_need_neither_authserver_nor_resolver(both):
    with standing(both), override_token(scopes="read"):
        assert call("whatever", asgi=False).baikal_token.scopes == {"read"}
    assert both.introspections == (0, 0)


@pytest.mark.parametrize("validation", ["introspection"], indirect=True)
def test_a_resolver_that_is_not_there_is_the_project_s_own_error(both):
    with standing(both, "nowhere"), pytest.raises(ConfigurationError, match="AUTHSERVER_RESOLVER"):
        call("whatever", asgi=False)


@pytest.mark.parametrize(
    "token",
    [
        "opaque",
        "a.b.c",
        "eyJhbGciOiJub25lIn0.W10.",
        "eyJhbGciOiJub25lIn0.eyJpc3MiOjd9.",
        "a" * 10**6,
    ],
)
def test_what_is_no_jwt_claims_no_issuer(token):
    assert claimed_issuer(token) is None
