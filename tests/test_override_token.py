"""``override_token``: a suite needs no authserver. Whoever asks one here fails: see conftest.py."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import threading
import time
import unittest
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import aauthenticate as django_aauthenticate
from django.contrib.auth import authenticate as django_authenticate
from django.core.cache import cache
from django.core.handlers.wsgi import WSGIHandler
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.http import HttpRequest, JsonResponse
from django.test import (
    AsyncClient,
    Client,
    RequestFactory,
    SimpleTestCase,
    override_settings,
    utils,
)
from django.urls import path
from django.views import View

import django_baikal
from django_baikal import (
    AuthserverUnavailable,
    ConfigurationError,
    ExpiredToken,
    InactiveToken,
    TokenError,
    WrongAudience,
    clients,
    signals,
)
from django_baikal.decorators import TokenRequiredMixin, token_required
from django_baikal.principals import ServicePrincipal, TokenUser
from django_baikal.protocol.authenticate import overrides
from django_baikal.testing import FakeAuthserver, override_token

PACKAGE = Path(django_baikal.__file__).resolve().parent
BAIKAL = {
    "default": {
        "AUTHSERVER_ENDPOINT": "https://auth.example.com",
        "CLIENT_ID": "client",
        "CLIENT_SECRET": "secret",
    },
    "eu": {
        "AUTHSERVER_ENDPOINT": "https://auth.eu.example.com",
        "CLIENT_ID": "eu-client",
        "CLIENT_SECRET": "eu-secret",
    },
}


def told(request: Any) -> JsonResponse:
    kind = type(request.user).__name__ if hasattr(request, "user") else None
    token = getattr(request, "auth", None)
    return JsonResponse({"user": kind, "sub": token and token.subject})


@token_required("read")
async def async_view(request: HttpRequest) -> JsonResponse:
    return told(request)


class Mixed(TokenRequiredMixin, View):
    required_scopes = "read"

    def get(self, request: HttpRequest) -> JsonResponse:
        return told(request)


class AsyncMixed(TokenRequiredMixin, View):
    required_scopes = "read"

    async def get(self, request: HttpRequest) -> JsonResponse:
        return told(request)


def by_backend(request: HttpRequest) -> JsonResponse:
    user = django_authenticate(request, token="any")
    return JsonResponse({"sub": user.baikal_token.subject if user else None})  # type: ignore[attr-defined]


async def by_async_backend(request: HttpRequest) -> JsonResponse:
    user = await django_aauthenticate(request, token="any")
    return JsonResponse({"sub": user.baikal_token.subject if user else None})  # type: ignore[attr-defined]


def by_client(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"sub": clients["default"].authenticate("any").subject})


async def by_async_client(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"sub": (await clients["default"].aauthenticate("any")).subject})


urlpatterns = [
    path("open", told),
    path("decorator", token_required("read")(told)),
    path("async-decorator", async_view),
    path("optional", token_required(optional=True)(told)),
    path("fresh", token_required("read", fresh=True)(told)),
    path("strong", token_required(acr="3")(told)),
    path("purpose", token_required(purposes="ads")(told)),
    path("eu", token_required("read", using="eu")(told)),
    path("mixin", Mixed.as_view()),
    path("async-mixin", AsyncMixed.as_view()),
    path("backend", by_backend),
    path("async-backend", by_async_backend),
    path("client", by_client),
    path("async-client", by_async_client),
]
GUARDED = ["/decorator", "/async-decorator", "/mixin", "/async-mixin", "/fresh"]
DOORS = [*GUARDED, "/backend", "/async-backend", "/client", "/async-client"]

try:
    from rest_framework.permissions import IsAuthenticated
    from rest_framework.test import APIRequestFactory
    from rest_framework.views import APIView
except ImportError:
    pass
else:
    from django_baikal.contrib.rest_framework import IntrospectionAuthentication, TokenHasScope

    class Framed(APIView):
        authentication_classes = (IntrospectionAuthentication,)
        permission_classes = (TokenHasScope,)
        required_scopes = "read"

        def get(self, request: Any) -> JsonResponse:
            return told(request)

    class Anybody(Framed):
        permission_classes = (IsAuthenticated,)  # type: ignore[assignment]

    urlpatterns += [path("framed", Framed.as_view()), path("anybody", Anybody.as_view())]
    GUARDED.append("/framed")
    DOORS.append("/framed")


@pytest.fixture(autouse=True)
def _project() -> Iterator[None]:
    with override_settings(
        ROOT_URLCONF=__name__,
        BAIKAL=BAIKAL,
        AUTHENTICATION_BACKENDS=["django_baikal.backends.IntrospectionBackend"],
        MIDDLEWARE=[],
    ):
        yield
    assert overrides == {}


def get(url: str, **options: Any) -> Any:
    return Client().get(url, **options)


def aget(url: str, **options: Any) -> Any:
    async def main() -> Any:
        return await AsyncClient().get(url, **options)

    return asyncio.run(main())


@pytest.mark.parametrize("send", [get, aget])
@pytest.mark.parametrize("url", DOORS)
def test_every_door_lets_the_token_in(url: str, send: Callable[..., Any]) -> None:
    with override_token(["read"], sub="anna"):
        assert send(url).json()["sub"] == "anna"
        with_one = send(url, headers={"authorization": "Bearer any-token"})
        assert with_one.json()["sub"] == "anna"


@pytest.mark.parametrize("send", [get, aget])
@pytest.mark.parametrize("url", GUARDED)
def test_a_token_that_is_too_weak_is_refused_as_any_other(
    url: str, send: Callable[..., Any]
) -> None:
    with override_token(["write"]):
        answer = send(url)
    assert answer.status_code == 403
    if url != "/framed":  # where it takes the project's exception handler
        assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("send", [get, aget])
@pytest.mark.parametrize("url", GUARDED)
def test_outside_of_the_block_there_is_no_token(url: str, send: Callable[..., Any]) -> None:
    with override_token(["read"]):
        pass
    answer = send(url)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="api"'


@pytest.mark.parametrize("send", [get, aget])
def test_the_middleware_takes_every_request_for_one_with_the_token(
    send: Callable[..., Any],
) -> None:
    with override_settings(MIDDLEWARE=["django_baikal.middleware.IntrospectionMiddleware"]):
        assert send("/open").json() == {"user": None, "sub": None}
        with override_token(sub="anna"):
            assert send("/open").json() == {"user": "TokenUser", "sub": "anna"}
            assert send("/decorator").status_code == 403
        with override_token(sub=None):
            assert send("/open").json()["user"] == "ServicePrincipal"
        with override_token(active=False):
            assert send("/open").status_code == 401


def test_other_credentials_are_left_alone() -> None:
    with override_token(["read"]):
        assert get("/decorator", headers={"authorization": "Basic YTpi"}).status_code == 401
        assert get("/decorator", headers={"authorization": ""}).status_code == 200


def test_what_is_wrong_with_a_request_is_still_wrong() -> None:
    with override_token(["read"]):
        for header in ("Bearer", "Bearer a, Bearer b"):
            answer = get("/decorator", headers={"authorization": header})
            assert answer.status_code == 400, header
        assert get("/decorator?access_token=x").status_code == 400
        assert get("/decorator", headers={"authorization": "Bearer \xe4"}).status_code == 401
        with pytest.raises(TokenError):
            clients["default"].authenticate("no token")


def test_optional_views_have_the_token() -> None:
    assert get("/optional").json() == {"user": None, "sub": None}
    with override_token():
        assert get("/optional").json() == {"user": "TokenUser", "sub": "user-1"}


def test_purposes_and_acr() -> None:
    with override_token(purposes=["ads"], acr="3"):
        assert get("/purpose").status_code == 200
        assert get("/strong").status_code == 200
    with override_token(acr="2"):
        assert get("/purpose").status_code == 403
        weak = get("/strong")
    assert weak.status_code == 401
    assert 'acr_values="3"' in weak.headers["WWW-Authenticate"]


def test_one_alias_is_not_another() -> None:
    with override_token("read"):
        assert get("/eu").status_code == 401
    with override_token("read", using="eu", sub="anna"):
        assert get("/eu").json()["sub"] == "anna"
        assert get("/decorator").status_code == 401
        with override_token("read", sub="bert"):
            assert get("/eu").json()["sub"] == "anna"
            assert get("/decorator").json()["sub"] == "bert"


def test_the_innermost_counts_and_the_outer_one_comes_back() -> None:
    with override_token("read", sub="anna"):
        with override_token("write", sub="bert"):
            assert get("/decorator").status_code == 403
        assert get("/decorator").json()["sub"] == "anna"
        with pytest.raises(ZeroDivisionError), override_token(sub="bert"):
            raise ZeroDivisionError
        assert get("/decorator").json()["sub"] == "anna"


def test_one_can_be_used_again_and_within_itself() -> None:
    token = override_token("read")
    with token:
        with token:
            assert get("/decorator").status_code == 200
        assert get("/decorator").status_code == 200
    assert get("/decorator").status_code == 401
    with token:
        assert get("/decorator").status_code == 200


def test_none_is_left_whichever_ends_first() -> None:
    anna, bert, carla = (override_token("read", sub=name) for name in ("anna", "bert", "carla"))
    for each in (anna, bert, anna, carla):
        each.enable()
    counts = [(bert, "carla"), (carla, "anna"), (anna, "anna")]
    for each, sub in counts:
        each.disable()
        assert get("/decorator").json()["sub"] == sub
    anna.disable()
    assert get("/decorator").status_code == 401


def test_none_is_left_by_tasks_at_the_same_time() -> None:
    async def both() -> None:
        bert_is_in, anna_is_out = asyncio.Event(), asyncio.Event()

        async def anna() -> None:
            with override_token("read", sub="anna"):
                await bert_is_in.wait()
            anna_is_out.set()

        async def bert() -> None:
            with override_token("read", sub="bert"):
                bert_is_in.set()
                await anna_is_out.wait()

        await asyncio.gather(anna(), bert())

    asyncio.run(both())
    assert get("/decorator").status_code == 401


def test_the_token_that_it_gives_can_be_sent() -> None:
    with override_token("read", sub="anna") as token:
        assert clients["default"].authenticate(token).subject == "anna"
        header = {"authorization": f"Bearer {token}"}
        assert get("/decorator", headers=header).json()["sub"] == "anna"


def test_what_is_said_of_the_token() -> None:
    before = int(time.time())
    with override_token(["read", "dpv:x#y"], "ads", sub="anna", acr="2", tenant="blue") as token:
        info = clients["default"].authenticate(token)
    assert info.alias == "default"
    assert info.issuer == "https://auth.example.com"
    assert info.scopes == {"read", "dpv:x#y"}
    assert info.purposes == {"ads", "dpv:x"}
    assert (info.subject, info.client_id, info.acr) == ("anna", "client", "2")
    assert info.claims["tenant"] == "blue"
    assert before + 3600 <= (info.expires_at or 0) <= time.time() + 3600
    assert info.is_user


def test_it_says_what_the_fake_authserver_says() -> None:
    fake = FakeAuthserver(endpoint="https://auth.example.com", clients={"client": "secret"})
    for sub in ("anna", None):
        with fake.in_memory():
            sent = fake.issue_token(sub=sub, scope="read", purpose="ads", acr="2")
            real = dict(clients["default"].authenticate(sent).claims)
        with override_token("read", "ads", sub=sub, acr="2"):
            claims = dict(clients["default"].authenticate("any").claims)
        for each in (real, claims):
            each.pop("iat"), each.pop("exp")
        assert claims == real


def test_a_token_of_the_client_itself() -> None:
    with override_token("read", sub=None):
        assert get("/decorator").json() == {"user": "ServicePrincipal", "sub": None}
    with override_token("read", sub=None, client_id="robot"):
        assert clients["default"].authenticate("any").client_id == "robot"


def test_the_same_user_has_the_same_identity() -> None:
    keys = []
    for sub in ("anna", "anna", "bert"):
        with override_token(sub=sub):
            keys.append(clients["default"].authenticate("any").identity)
    assert keys[0] == keys[1] != keys[2]


def test_the_settings_are_kept_by_default() -> None:
    entry = {
        **BAIKAL["default"],
        "AUDIENCES": ["*", "the-api", "another"],
        "ALLOWED_CLIENTS": ["one", "two"],
        "REQUIRED_CLAIMS": {"tenant": "blue", "level": [3, 4], "act": None},
    }
    with override_settings(BAIKAL={"default": entry}):
        with override_token("read"):
            claims = clients["default"].authenticate("any").claims
        assert (claims["tenant"], claims["level"]) == ("blue", 3)
        assert (claims["aud"], claims["client_id"]) == (["the-api"], "one")
        for wrong in ({"tenant": "red"}, {"client_id": "three"}, {"level": None}, {"act": "x"}):
            with override_token("read", **wrong):  # type: ignore[arg-type]
                assert get("/decorator").status_code == 401, wrong
    anybody = {"default": {**entry, "AUDIENCES": ["*"]}}
    with override_settings(BAIKAL=anybody), override_token("read"):
        assert get("/decorator").status_code == 200


@pytest.mark.parametrize(
    ("claims", "error"),
    [
        ({"active": False}, InactiveToken),
        ({"exp": 1}, ExpiredToken),
        ({"nbf": 4e9}, ExpiredToken),
        ({"aud": "another"}, WrongAudience),
        ({"iss": "https://another.example.com"}, TokenError),
        ({"token_type": "N_A"}, TokenError),
    ],
)
def test_a_token_that_is_not_good_is_judged(
    claims: dict[str, Any], error: type[TokenError]
) -> None:
    with override_token("read", **claims):
        with pytest.raises(error):
            clients["default"].authenticate("any")
        answer = get("/decorator")
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


def test_an_authserver_that_cannot_be_asked() -> None:
    error = AuthserverUnavailable("down", retry_after=7)
    with override_token("read", error=error):
        for url in GUARDED:
            answer = get(url)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7"), url
        with pytest.raises(AuthserverUnavailable) as caught:
            clients["default"].authenticate("any")
    assert caught.value is not error
    assert error.__traceback__ is None


def test_nothing_is_left_in_the_cache() -> None:
    fake = FakeAuthserver(endpoint="https://auth.example.com", clients={"client": "secret"})
    with override_token("read", sub="anna"):
        assert clients["default"].authenticate("any").subject == "anna"
    with fake.in_memory():
        with pytest.raises(InactiveToken):
            clients["default"].authenticate("any")
        with override_token("read", sub="bert"):
            assert clients["default"].authenticate("any").subject == "bert"
        with pytest.raises(InactiveToken):
            clients["default"].authenticate("any")
    assert fake.requests.count("introspection") == 1
    cache.clear()


def test_signals_are_sent() -> None:
    seen: list[Any] = []

    def accepted(*, token: Any, request: Any, **_: Any) -> None:
        seen.append((token.subject, request.path))

    def refused(*, error: Any, **_: Any) -> None:
        seen.append(type(error))

    signals.token_validated.connect(accepted)
    signals.token_rejected.connect(refused)
    try:
        with override_token("read", sub="anna"):
            get("/decorator")
        with override_token(active=False):
            get("/decorator")
    finally:
        signals.token_validated.disconnect(accepted)
        signals.token_rejected.disconnect(refused)
    assert seen == [("anna", "/decorator"), InactiveToken]


class Resolved:
    is_active = True
    baikal_token: Any = None

    def __init__(self, name: str) -> None:
        self.name = name


def resolve(info: Any) -> Resolved | None:
    return Resolved(info.subject) if info.subject == "anna" else None


def test_the_user_resolver_is_asked() -> None:
    entry = {**BAIKAL["default"], "USER_RESOLVER": f"{__name__}.resolve"}
    with override_settings(BAIKAL={"default": entry}):
        with override_token("read", sub="anna"):
            assert get("/decorator").json() == {"user": "Resolved", "sub": "anna"}
        with override_token("read", sub="bert"):
            assert get("/decorator").status_code == 401


def test_a_request_of_a_factory() -> None:
    seen: list[Any] = []

    @token_required("read")
    def view(request: HttpRequest) -> JsonResponse:
        seen.append(request.user)
        return JsonResponse({})

    with override_token("read"):
        assert view(RequestFactory().get("/")).status_code == 200
    with override_token("read", sub=None):
        assert view(RequestFactory().get("/")).status_code == 200
    assert [type(user) for user in seen] == [TokenUser, ServicePrincipal]


def test_a_request_of_the_framework_s_factory() -> None:
    pytest.importorskip("rest_framework")
    with override_token("read", sub="anna"):
        request = APIRequestFactory().get("/")
        assert json.loads(Framed.as_view()(request).content)["sub"] == "anna"


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def live() -> Iterator[str]:
    server = ThreadedWSGIServer(("127.0.0.1", 0), Quiet)
    server.set_app(WSGIHandler())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_server_in_other_threads() -> None:
    def sub(url: str) -> str:
        with urllib.request.urlopen(url, timeout=60) as answer:
            found: str = json.load(answer)["sub"]
        return found

    with live() as base:
        for name in ("anna", "bert"):
            with override_token("read", sub=name):
                assert sub(f"{base}/decorator") == name
                assert sub(f"{base}/async-decorator") == name
        with pytest.raises(urllib.error.HTTPError) as caught:
            sub(f"{base}/decorator")
        assert caught.value.code == 401
        caught.value.close()


# A decorator


@override_token("read", sub="anna")
def test_it_decorates_a_function() -> None:
    assert get("/decorator").json()["sub"] == "anna"


@override_token("read", sub="anna")
def test_a_decorated_function_still_has_its_fixtures(tmp_path: Path) -> None:
    assert tmp_path.is_dir()
    assert get("/decorator").json()["sub"] == "anna"


def test_it_decorates_a_coroutine_function() -> None:
    @override_token("read", sub="anna")
    async def main() -> Any:
        return (await AsyncClient().get("/async-decorator")).json()["sub"]

    assert inspect.iscoroutinefunction(main)
    made = main()
    assert overrides == {}
    assert asyncio.run(made) == "anna"
    assert overrides == {}


@override_token("read", sub="anna")
class DecoratedClassTests(SimpleTestCase):
    def test_it_holds_for_each_method(self) -> None:
        assert self.client.get("/decorator").json()["sub"] == "anna"

    async def test_it_holds_for_coroutines(self) -> None:
        answer = await self.async_client.get("/async-decorator")
        assert answer.json()["sub"] == "anna"

    @override_token("read", sub="bert")
    def test_a_method_can_have_its_own(self) -> None:
        assert self.client.get("/decorator").json()["sub"] == "bert"

    @override_token("read", sub="bert")
    async def test_a_coroutine_can_have_its_own(self) -> None:
        answer = await self.async_client.get("/async-decorator")
        assert answer.json()["sub"] == "bert"


class SetUpTests(SimpleTestCase):
    def setUp(self) -> None:
        self.token = self.enterContext(override_token("read", sub="anna"))

    def test_it_can_be_entered(self) -> None:
        assert self.client.get("/decorator").json()["sub"] == "anna"


def test_it_ends_with_each_test_of_a_class() -> None:
    for case in (DecoratedClassTests, SetUpTests):
        result = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
        assert result.testsRun > 0
        assert result.wasSuccessful(), result.failures + result.errors
        assert overrides == {}


# What cannot be


@pytest.mark.parametrize(
    "wrong",
    [
        {"exp": "tomorrow"},
        {"aud": 1},
        {"scope": 'a "b"'},
        {"acr": 1.5},
        {"sub": 1},
        {"sub": None, "client_id": ""},
    ],
)
def test_claims_that_no_authserver_could_say(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="override_token sent an answer that cannot be used"):
        override_token(**wrong)


def test_scopes_that_are_none() -> None:
    for wrong in ({"scopes": 'a "b"'}, {"purposes": [1]}):
        with pytest.raises(ConfigurationError, match=re.escape(next(iter(wrong)))):
            override_token(**wrong)  # type: ignore[arg-type]


def test_an_alias_that_is_none() -> None:
    with pytest.raises(ConfigurationError, match=r"no alias 'defautl'\. Did you mean 'default'"):
        override_token(using="defautl").enable()


# Production


def test_it_is_for_tests_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(utils._TestState, "saved_data")
    with pytest.raises(RuntimeError, match="for tests only"), override_token("read"):
        pass
    assert get("/decorator").status_code == 401


def test_nothing_else_switches_it_on() -> None:
    """The engine looks at it; only ``testing`` changes it."""
    looks = {
        "overrides: dict[str, Override] = {}",
        "if (override := overrides.get(config.alias)) is not None:",
        "from django_baikal.protocol.authenticate import overrides",
        "if not config.authserver_resolver or config.alias in overrides:",
        "if not isinstance(token, str) or config.alias in overrides:",
        'return f"Bearer {overrides[using].token}" if using in overrides else ""',
    }
    found = {
        line.strip()
        for file in PACKAGE.rglob("*.py")
        if "testing" not in file.relative_to(PACKAGE).parts
        for line in file.read_text("utf-8").splitlines()
        if re.search(r"\boverrides\b", line)
    }
    assert found == looks
