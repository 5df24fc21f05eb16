"""What is told of bearer tokens: signals, log lines, error pages; and what is told of none."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pprint import pformat
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib import auth
from django.dispatch import Signal
from django.test import RequestFactory
from django.urls import path
from django.views.debug import ExceptionReporter
from doors_stage import (
    BACKEND,
    DECORATORS,
    OURS,
    PHONE,
    aview,
    guards,
    knock,
    needs_rest_framework,
    standing,
    urls,
    view,
)

from django_baikal import authentication, signals
from django_baikal.client import OpenIDClient
from django_baikal.decorators import token_required
from django_baikal.exceptions import AuthserverUnavailable, InactiveToken, KeyStoreError
from django_baikal.principals import TokenUser
from django_baikal.testing import FakeAuthserver

NAMES = ("token_validated", "token_rejected", "authserver_unavailable")
NO_KEY = {"CLIENT_AUTH_METHOD": "private_key_jwt", "CLIENT_KEYS": [{"key": "/nowhere.pem"}]}

both_servers = pytest.mark.parametrize(
    "asgi", [pytest.param(False, id="wsgi"), pytest.param(True, id="asgi")]
)
PATHS = ["/open", "/async-open", *(f"/{door}/any" for door in DECORATORS)]
OF_FRAMEWORK = ["/framework/any", "/session-framework/any"]
#: Each path alone, where that is a door, and with the middleware before it.
every_door = pytest.mark.parametrize(
    ("at", "middleware"),
    [
        pytest.param(
            at,
            middleware,
            id=f"{at}-with-the-middleware" if middleware else at,
            marks=needs_rest_framework if at in OF_FRAMEWORK else (),
        )
        for at in (*PATHS, *OF_FRAMEWORK)
        for middleware in ([], [OURS])
        if middleware or not guards(at)
    ],
)


def bearer(server: FakeAuthserver, **claims: Any) -> str:
    return f"Bearer {server.issue_token(**{'sub': 'anna', 'scope': 'read', **claims})}"


@contextmanager
def receiving(make: Any = None) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Give what the three signals bring; ``make`` wraps the receiver."""
    got: list[tuple[str, dict[str, Any]]] = []
    receivers: list[tuple[Signal, Any]] = []
    for name in NAMES:

        def receive(_name: str = name, **named: Any) -> None:
            got.append((_name, named))

        receiver = make(receive) if make else receive
        signal = getattr(signals, name)
        signal.connect(receiver, weak=False)
        receivers.append((signal, receiver))
    try:
        yield got
    finally:
        for signal, receiver in receivers:
            assert signal.disconnect(receiver)


def as_coroutine(receive: Any) -> Any:
    async def areceive(**named: Any) -> None:
        receive(**named)

    return areceive


# -- signals ----------------------------------------------------------------------------------


@every_door
@both_servers
@pytest.mark.parametrize("make", [None, as_coroutine], ids=["receiver", "async-receiver"])
def test_each_is_sent_once_with_what_it_says(
    asgi: bool, at: str, middleware: list[str], make: Any
) -> None:
    with standing(middleware) as server, receiving(make) as got:
        header = bearer(server)
        assert knock(at, header, asgi=asgi).status == 200
        [(name, named)] = got
        assert name == "token_validated"
        assert named.pop("signal") is signals.token_validated
        assert named.pop("sender") is OpenIDClient
        assert named.pop("request").path == at
        assert named.pop("token").subject == "anna"
        assert named == {}
        got.clear()

        assert knock(at, "Bearer nope", asgi=asgi).status == 401
        [(name, named)] = got
        assert name == "token_rejected"
        assert type(named["error"]) is InactiveToken
        assert named["fingerprint"] == hashlib.sha256(b"nope").hexdigest()[:8]
        assert (named["using"], named["request"].path) == ("default", at)
        got.clear()

        with server.fail("introspection"):
            assert knock(at, bearer(server), asgi=asgi).status == 503
        [(name, named)] = got
        assert name == "authserver_unavailable"
        assert type(named["error"]) is AuthserverUnavailable
        assert (named["using"], named["request"].path) == ("default", at)
        assert named.keys() == {"signal", "sender", "error", "fingerprint", "using", "request"}
        got.clear()

        for other in (None, "Basic x"):
            knock(at, other, asgi=asgi)
        assert got == []


@both_servers
def test_a_token_that_is_good_and_too_weak_was_validated(asgi: bool) -> None:
    with standing() as server, receiving() as got:
        assert knock("/function/scopes", bearer(server), asgi=asgi).status == 403
        assert [name for name, _ in got] == ["token_validated"]


def test_the_backend_sends_them_too(settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = [BACKEND]
    request = RequestFactory().get("/")
    with standing() as server, receiving() as got:
        token = server.issue_token(sub="anna")
        for ask in (auth.authenticate, async_to_sync(auth.aauthenticate)):
            assert type(ask(request, token=token)) is TokenUser
            assert ask(None, token="nope") is None
        assert [(name, named["request"]) for name, named in got] == [
            ("token_validated", request),
            ("token_rejected", None),
        ] * 2


@both_servers
def test_our_own_missing_key_is_an_outage(asgi: bool) -> None:
    with standing(entry=NO_KEY) as server, receiving() as got:
        assert knock("/function/any", bearer(server), asgi=asgi).status == 503
        [(name, named)] = got
        assert name == "authserver_unavailable"
        assert isinstance(named["error"], KeyStoreError)


def failing(receive: Any) -> Any:
    def fail(**named: Any) -> None:
        receive(**named)
        raise LookupError("a defect of the receiver")

    return fail


def afailing(receive: Any) -> Any:
    async def fail(**named: Any) -> None:
        receive(**named)
        raise LookupError("a defect of the receiver")

    return fail


@every_door
@both_servers
@pytest.mark.parametrize("make", [failing, afailing])
def test_a_receiver_that_raises_breaks_nothing(
    asgi: bool, at: str, middleware: list[str], make: Any, caplog: Any
) -> None:
    with standing(middleware) as server, receiving(make) as got:
        good = bearer(server)
        assert knock(at, good, asgi=asgi).status == 200
        assert knock(at, "Bearer nope", asgi=asgi).status == 401
        with server.fail("introspection"):
            other = bearer(server)
            assert knock(at, other, asgi=asgi).status == 503
    assert [name for name, _ in got] == list(NAMES)
    assert "a defect of the receiver" in caplog.text
    for token in (good, other):
        assert token.removeprefix("Bearer ") not in caplog.text


# -- logs -------------------------------------------------------------------------------------


def told(records: list[logging.LogRecord]) -> str:
    """Give all that handlers may show of records, what they carry beside the line as well."""
    form = logging.Formatter()
    return "\n".join(f"{form.format(record)} {pformat(vars(record))}" for record in records)


def a_bad_day(server: FakeAuthserver, at: str, asgi: bool) -> list[str]:
    """Do all that can be done at a door; give the tokens."""
    headers = [
        bearer(server, sub=PHONE, uid=PHONE, username=PHONE),
        bearer(server, sub=None, phone_number=PHONE),
        bearer(server, lifetime=-5, sub=PHONE),
        bearer(server, aud=[PHONE]),
        bearer(server, iss=f"https://{PHONE}.test"),
        bearer(server, token_type=f"{PHONE}"),
        bearer(server, exp=PHONE, sub=PHONE),
        bearer(server, scopes=[PHONE, 5]),
        "Bearer unknown-" + "t" * 30,
        "Bearer t\xf6ken-that-is-malformed",
        "Bearer " + "long-" * 2000,
    ]
    for header in headers:
        knock(at, header, asgi=asgi)
    words = {"error": "invalid_client", "error_description": f"no {PHONE} for test-secret"}
    for fault in (
        {"status": 500, "body": words},
        {"status": 401, "body": words},
        {"garbage": "html"},
        {"hang": True},
        {"body": {"active": True, "sub": PHONE, "exp": PHONE}},
    ):
        with server.fail("introspection", **fault):
            headers.append(bearer(server, sub=PHONE))
            knock(at, headers[-1], asgi=asgi)
    knock(f"{at}?access_token=in-the-query-{'x' * 9}", headers[0], asgi=asgi)
    return [header.removeprefix("Bearer ") for header in headers]


@every_door
@both_servers
def test_no_line_of_a_log_has_a_token_a_number_or_a_secret(
    asgi: bool, at: str, middleware: list[str], caplog: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    with standing(middleware) as server, receiving() as got:
        tokens = a_bad_day(server, at, asgi)
    text = told(caplog.records)
    errors = [named["error"] for _, named in got if "error" in named]
    text += "".join(f"{error!s} {error!r} {error.args} {pformat(vars(error))}" for error in errors)
    text += pformat([{**named, "request": None} for _, named in got])
    assert len(errors) > 10
    for secret in (*tokens, "test-secret", "600000001"):
        assert secret not in text
    own = [record for record in caplog.records if record.name.startswith("django_baikal")]
    assert "in-the-query-" not in told(own)  # Django's own records have the request, and its URL
    lines = [record.getMessage() for record in own]
    assert any(" is refused: " in line for line in lines)
    assert any(" cannot be checked: " in line for line in lines)


@every_door
@both_servers
def test_that_our_client_is_refused_is_an_error_and_one_line(
    asgi: bool, at: str, middleware: list[str], caplog: Any
) -> None:
    """One among all loggers: Django would log, and mail, an error for each 503."""
    with standing(middleware) as server, server.fail("introspection", status=401):
        for _ in range(12):
            assert knock(at, bearer(server), asgi=asgi).status == 503
    [record] = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert record.name == "django_baikal.bearer"
    assert "BAIKAL['default']: no bearer token can be checked: " in record.getMessage()


@both_servers
@pytest.mark.parametrize("at", ["/open", "/function/any", "/async-function/any"])
def test_that_our_key_is_missing_is_an_error_once_a_minute(
    asgi: bool, at: str, caplog: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(authentication, "_logged_at", {})
    now = [1000.0]
    monkeypatch.setattr(authentication.time, "monotonic", lambda: now[0])

    def errors() -> list[str]:
        records = [r for r in caplog.records if r.levelno >= logging.ERROR]
        return [r.getMessage() for r in records if r.name == "django_baikal.bearer"]

    with standing([OURS], NO_KEY) as server:
        for seconds, lines in ((0, 1), (30, 1), (29.9, 1), (0.1, 2), (59, 2), (1, 3)):
            now[0] += seconds
            assert knock(at, bearer(server), asgi=asgi).status == 503
            assert len(errors()) == lines
    assert "no bearer token can be checked: " in errors()[0]


@every_door
@both_servers
def test_an_outage_is_a_warning_for_each_request_and_no_error(
    asgi: bool, at: str, middleware: list[str], caplog: Any
) -> None:
    with standing(middleware) as server, server.fail("introspection"):
        for _ in range(8):
            assert knock(at, bearer(server), asgi=asgi).status == 503
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []
    said = [r.getMessage() for r in caplog.records if r.name == "django.request"]
    assert said == [f"Service Unavailable: {at}"] * 8
    assert all(r.status_code == 503 for r in caplog.records if r.name == "django.request")


# -- error pages ------------------------------------------------------------------------------


def breaks(request: Any) -> Any:
    user, token = request.user, request.auth
    raise LookupError(f"a defect of the view, met by {user} {token}")


async def abreaks(request: Any) -> Any:
    user, token = request.user, request.auth
    raise LookupError(f"a defect of the view, met by {user} {token}")


def broken(token: Any) -> Any:
    raise LookupError("a defect of the resolver")


async def abroken(token: Any) -> Any:
    raise LookupError("a defect of the resolver")


BROKEN = urls(
    path("open", breaks),
    path("async-open", abreaks),
    path("function", token_required(breaks)),
    path("async-function", token_required(abreaks)),
)
NAMED = urls(
    path("open", view),
    path("async-open", aview),
    path("function", token_required(view)),
    path("async-function", token_required(aview)),
)


@both_servers
@pytest.mark.parametrize("at", ["/open", "/async-open", "/function", "/async-function"])
@pytest.mark.parametrize("resolver", ["", "broken", "abroken", "is_not_there"])
@pytest.mark.parametrize("debug", [True, False])
def test_no_error_page_shows_a_token_a_number_or_a_secret(
    asgi: bool, at: str, resolver: str, debug: bool, caplog: Any
) -> None:
    entry = {"USER_RESOLVER": f"{__name__}.{resolver}"} if resolver else {}
    middleware = [OURS] if "open" in at else []
    options = {"ROOT_URLCONF": NAMED if resolver else BROKEN, "DEBUG": debug}
    with standing(middleware, entry, **options) as server:
        header = bearer(server, sub=PHONE, uid=PHONE)
        page = knock(at, header, asgi=asgi, client={"raise_request_exception": False})
        assert page.status == 500
        [record] = [each for each in caplog.records if each.levelno == logging.ERROR]
        assert record.exc_info is not None
        # What is mailed to the admins, or kept by a service that collects errors.
        reporter = ExceptionReporter(record.request, *record.exc_info)  # type: ignore[attr-defined]
        reports = [reporter.get_traceback_html(), reporter.get_traceback_text()]
    if debug:
        reports.append(page.content.decode())
    for report in (*reports, told(caplog.records)):
        assert "a defect of the" in report or "cannot be imported" in report
        for secret in (header.removeprefix("Bearer "), "600000001", "test-secret"):
            assert secret not in report
