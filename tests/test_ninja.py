"""Django Ninja: ``BaikalBearer`` in operations, routers and APIs, alone and before others.

That each situation is answered as at the other doors is in test_doors.py.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from importlib.util import find_spec
from typing import Any

import pytest

pytest.importorskip("ninja", reason="django-ninja is not installed")

from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.urls import path
from django.views.decorators.cache import cache_control, cache_page
from doors_stage import (
    AUTHENTICATION,
    CSRF,
    LOGIN_REQUIRED,
    OURS,
    SESSION,
    introspections,
    knock,
    standing,
    urls,
)
from ninja import NinjaAPI, Router
from ninja.decorators import decorate_view
from ninja.security import APIKeyHeader, SessionAuth
from ninja.testing import TestAsyncClient, TestClient

from django_baikal.contrib.ninja import BaikalBearer, BearerError
from django_baikal.exceptions import ConfigurationError
from django_baikal.protocol.bearer import TokenInfo
from django_baikal.testing import FakeAuthserver, override_token

REALM = 'Bearer realm="api"'
SITE_CACHE = [
    "django.middleware.cache.UpdateCacheMiddleware",
    "django.middleware.cache.FetchFromCacheMiddleware",
]
both_servers = pytest.mark.parametrize(
    "asgi", [pytest.param(False, id="wsgi"), pytest.param(True, id="asgi")]
)


def bearer(server: FakeAuthserver, scope: str = "read", **claims: Any) -> str:
    return f"Bearer {server.issue_token(**{'sub': 'anna', 'scope': scope, **claims})}"


def told(request: Any) -> dict[str, Any]:
    kind = type(request.auth).__name__
    return {"auth": kind, "user": str(getattr(request, "user", None))}


def sync_operation(request: Any) -> dict[str, Any]:
    return told(request)


async def async_operation(request: Any) -> dict[str, Any]:
    return told(request)


both_kinds = pytest.mark.parametrize("operation", [sync_operation, async_operation])


def api_of(operation: Any, auth: Any, **options: Any) -> NinjaAPI:
    api = NinjaAPI(docs_url=None, **options)
    api.api_operation(["GET", "POST"], "/", auth=auth)(operation)
    return api


def site(api: NinjaAPI) -> Any:
    return urls(path("", api.urls))


class Key(APIKeyHeader):
    param_name = "X-Key"

    def authenticate(self, request: Any, key: str | None) -> str | None:
        return key


# -- what an operation finds ------------------------------------------------------------------


@both_servers
@both_kinds
def test_an_operation_finds_the_principal_and_the_token(operation: Any, asgi: bool) -> None:
    with standing(ROOT_URLCONF=site(api_of(operation, BaikalBearer("read")))) as server:
        found = knock("/", bearer(server), asgi=asgi).body
        assert found["auth"] == "TokenInfo"
        assert found["user"].startswith("TokenUser ")


@both_servers
def test_one_path_may_have_sync_and_async_operations(asgi: bool) -> None:
    api, auth = NinjaAPI(docs_url=None, auth=BaikalBearer("read")), BaikalBearer("write")
    api.get("/")(sync_operation)
    api.post("/", auth=auth)(async_operation)
    with standing(ROOT_URLCONF=site(api)) as server:
        header = bearer(server)
        assert knock("/", header, asgi=asgi).status == 200
        answer = knock("/", header, asgi=asgi, method="post")
        assert (answer.status, answer.body["error"]) == (403, "insufficient_scope")
        assert 'scope="write"' in answer.told["WWW-Authenticate"]
        assert knock("/", bearer(server, "write"), asgi=asgi, method="post").status == 200
        assert introspections(server) == 2


def test_it_is_for_whole_apis_and_routers_too() -> None:
    api, router = NinjaAPI(docs_url=None, auth=BaikalBearer("read")), Router()
    router.get("/inner")(sync_operation)
    api.get("/own")(async_operation)
    api.get("/open", auth=None)(lambda request: {})
    api.add_router("/router", router, auth=BaikalBearer("admin"))
    with standing(ROOT_URLCONF=site(api)) as server:
        header = bearer(server)
        assert knock("/own", header).status == 200
        assert knock("/router/inner", header).status == 403
        assert [knock(at).status for at in ("/own", "/router/inner", "/open")] == [401, 401, 200]


def test_what_is_awaited_is_awaited_in_the_loop_of_the_request() -> None:
    """A resolver that waits for another task would else wait for ever."""

    async def meanwhile() -> Any:
        global _begun, _ready
        _begun, _ready = asyncio.Event(), asyncio.Event()
        client = AsyncClient()
        asking = asyncio.create_task(client.get("/", headers={"authorization": header}))
        await asyncio.wait_for(_begun.wait(), 60)
        _ready.set()
        return await asyncio.wait_for(asking, 60)

    with standing(
        entry={"USER_RESOLVER": f"{__name__}.resolver"},
        ROOT_URLCONF=site(api_of(async_operation, BaikalBearer())),
    ) as server:
        header = bearer(server)
        assert async_to_sync(meanwhile)().status_code == 200


_begun, _ready = asyncio.Event(), asyncio.Event()


async def resolver(info: TokenInfo) -> Any:
    _begun.set()
    await _ready.wait()
    return User(username="anna")


def test_another_alias_and_fresh_answers_are_arguments() -> None:
    auth = BaikalBearer(using="other", fresh=True)
    with standing(ROOT_URLCONF=site(api_of(sync_operation, auth))) as server:
        other = FakeAuthserver(endpoint=f"https://{uuid.uuid4()}.test")
        both = {"default": server.settings(), "other": other.settings(REALM="other")}
        with other.in_memory(), override_settings(BAIKAL=both):
            header = bearer(other)
            assert [knock("/", header).status for _ in range(3)] == [200] * 3
            assert introspections(other) == 3
            assert knock("/", bearer(server)).status == 401
            assert knock("/").told["WWW-Authenticate"] == 'Bearer realm="other"'


@pytest.mark.parametrize("options", [{"any_of": [""]}, {"scopes": 'say "a"'}, {"acr": 5}])
def test_what_cannot_be_asked_of_a_token_is_refused_at_once(options: Any) -> None:
    with pytest.raises(ConfigurationError):
        BaikalBearer(**options)


# -- others beside it -------------------------------------------------------------------------


@both_servers
@both_kinds
def test_without_a_token_the_next_is_asked_and_with_a_bad_one_nobody(
    operation: Any, asgi: bool
) -> None:
    with standing(ROOT_URLCONF=site(api_of(operation, [BaikalBearer("read"), Key()]))) as server:
        for header, status in (
            (None, 200),
            ("Basic abc", 200),
            (bearer(server), 200),
            ("Bearer nope", 401),
            ("Bearer", 400),
            (bearer(server, "other"), 403),
        ):
            answer = knock("/", header, asgi=asgi, headers={"x-key": "key"})
            assert answer.status == status, header
            if status != 200:
                assert answer.told["WWW-Authenticate"].startswith(f"{REALM}, error=")
            elif header is None:
                assert answer.body["auth"] == "str"
        with server.fail("introspection"):
            answer = knock("/", bearer(server), asgi=asgi, headers={"x-key": "key"})
            assert answer.status == 503
        # The last one has nothing: what Ninja says.
        assert knock("/", asgi=asgi).body == {"detail": "Unauthorized"}


@pytest.mark.django_db
def test_a_session_is_taken_away_and_checked_for_those_without_a_token(settings: Any) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
    api = api_of(sync_operation, [BaikalBearer(), SessionAuth()])
    client = Client(enforce_csrf_checks=True)
    with standing([SESSION, CSRF, AUTHENTICATION], ROOT_URLCONF=site(api)) as server:
        client.force_login(User.objects.create_superuser("eva"))
        assert client.get("/").json() == {"auth": "SimpleLazyObject", "user": "eva"}
        assert client.post("/").status_code == 403
        for method in (client.get, client.post):
            found = method("/", headers={"authorization": bearer(server)}).json()
            assert found["auth"] == "TokenInfo"
            assert found["user"].startswith("TokenUser ")
        assert client.get("/").json()["user"] == "eva"


inner = BaikalBearer("read")


def outer(request: Any) -> Any:
    return inner(request)


async def aouter(request: Any) -> Any:
    return await inner(request)


class Subclass(BaikalBearer):
    def __call__(self, request: Any) -> Any:
        return super().__call__(request)


@both_servers
@both_kinds
@pytest.mark.parametrize("auth", [outer, aouter, Subclass("read")])
def test_a_function_of_the_project_may_ask_it(operation: Any, auth: Any, asgi: bool) -> None:
    with standing(ROOT_URLCONF=site(api_of(operation, auth))) as server:
        assert knock("/", bearer(server), asgi=asgi).body["auth"] == "TokenInfo"
        assert knock("/", "Bearer nope", asgi=asgi).status == 401
        assert knock("/", bearer(server, "other"), asgi=asgi).status == 403
        answer = knock("/", asgi=asgi)
        if not isinstance(auth, Subclass):
            # It is not the last of the operation's: that one may yet know better.
            assert answer.body == {"detail": "Unauthorized"}
        assert answer.status == 401


async def forgetful(request: Any) -> Any:
    return inner(request)


@both_servers
@both_kinds
def test_who_forgets_to_await_lets_nobody_in(operation: Any, asgi: bool) -> None:
    with standing(ROOT_URLCONF=site(api_of(operation, forgetful))) as server:
        for header in (None, "Bearer nope", bearer(server)):
            with pytest.raises(TypeError, match="has to await it"):
                knock("/", header, asgi=asgi)


@pytest.mark.parametrize("asked", [outer, inner])
def test_asked_by_hand_it_gives_what_it_gives_or_raises(asked: Any) -> None:
    def request_with(header: str) -> Any:
        return RequestFactory().get("/", headers={"authorization": header} if header else None)

    async def aask(header: str) -> Any:
        return await asked(request_with(header))

    def ask(header: str) -> Any:
        return asked(request_with(header))

    with standing() as server:
        for call in (ask, async_to_sync(aask)):
            assert isinstance(call(bearer(server)), TokenInfo)
            assert call("") is None
            with pytest.raises(BearerError) as caught:
                call(bearer(server, "other"))
            assert caught.value.status_code == 403
            assert str(caught.value) == "The access token does not reach this far."
            assert caught.value.response.headers["WWW-Authenticate"].startswith(REALM)
            assert caught.value.__cause__ is None


def _run_authentication(request: Any) -> Any:
    return inner(request)


def test_an_api_that_is_not_found_words_the_answer_itself() -> None:
    """As one of a Ninja that does it in another way would: no token, and no bad one, gets in."""
    api = api_of(sync_operation, _run_authentication)
    with standing(ROOT_URLCONF=site(api)) as server:
        assert knock("/", bearer(server)).status == 200
        answer = knock("/", "Bearer nope")
        told = {"detail": "The access token is invalid or has expired."}
        assert (answer.status, answer.body) == (401, told)
        assert knock("/").status == 401


@both_kinds
def test_the_middleware_lets_it_through_where_a_login_is_required(
    operation: Any, settings: Any
) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
    settings.LOGIN_URL = "/login"
    view = site(api_of(operation, BaikalBearer("read")))
    for middleware, status in (([OURS], 200), ([], 302)):
        chain = [SESSION, AUTHENTICATION, *middleware, LOGIN_REQUIRED]
        with standing(chain, ROOT_URLCONF=view) as server:
            answer = knock("/", bearer(server))
            assert answer.status == status
            assert ("Authorization" in answer.vary) == (status == 200)


# -- how it answers ---------------------------------------------------------------------------


@both_kinds
def test_an_api_may_word_its_answers_itself(operation: Any) -> None:
    api = api_of(operation, BaikalBearer())

    @api.exception_handler(BearerError)
    def handle(request: Any, error: BearerError) -> Any:
        return api.create_response(request, {"own": str(error)}, status=error.status_code)

    with standing(ROOT_URLCONF=site(api)):
        answer = knock("/")
        assert (answer.status, answer.body) == (401, {"own": "A bearer token is needed."})


def test_a_handler_for_every_error_of_http_is_for_others() -> None:
    api = api_of(sync_operation, BaikalBearer())
    api.exception_handler(Exception)(lambda request, error: HttpResponse(status=500))
    with standing(ROOT_URLCONF=site(api)):
        assert knock("/").told == {"WWW-Authenticate": REALM}


@both_servers
@both_kinds
@pytest.mark.parametrize("public", [False, True])
def test_django_keeps_no_answer_for_somebody_else(operation: Any, asgi: bool, public: bool) -> None:
    decorators = [cache_control(public=True)] if public else []
    for middleware, more in ((SITE_CACHE, []), ([], [cache_page(600)])):
        view = decorate_view(*decorators, *more)(renewed(operation))
        with standing(middleware, ROOT_URLCONF=site(api_of(view, BaikalBearer()))) as server:
            users = [
                knock("/", bearer(server, sub=sub), asgi=asgi).body["user"]
                for sub in ("anna", "ben")
            ]
            assert len(set(users)) == 2
            assert knock("/", asgi=asgi).status == 401


def renewed(operation: Any) -> Any:
    """Make a new function, for a decorator that writes on it."""

    def made(request: Any) -> dict[str, Any]:
        return told(request)

    async def amade(request: Any) -> dict[str, Any]:
        return told(request)

    return made if operation is sync_operation else amade


# -- tests of projects ------------------------------------------------------------------------


@both_kinds
def test_ninjas_own_clients_work_also_inside_of_a_loop(operation: Any) -> None:
    api = api_of(operation, BaikalBearer("read"))

    async def in_a_loop(**options: Any) -> Any:
        if operation is async_operation:
            return await TestAsyncClient(api).get("/", **options)
        return TestClient(api).get("/", **options)

    def sent(**options: Any) -> Any:
        return async_to_sync(in_a_loop)(**options)

    with standing() as server:
        with override_token("read"):
            assert sent().json()["auth"] == "TokenInfo"
        assert sent()["WWW-Authenticate"] == REALM
        for name in ("Authorization", "authorization", "AUTHORIZATION"):
            assert sent(headers={name: bearer(server)}).json()["auth"] == "TokenInfo"
            assert sent(headers={name: "Bearer nope"}).status_code == 401


# -- OpenAPI ----------------------------------------------------------------------------------


class European(BaikalBearer):
    """For another alias, so with a name of its own."""


def test_the_schema_names_the_authservers_and_needs_no_network() -> None:
    api = NinjaAPI(docs_url=None, auth=BaikalBearer("read"))
    api.get("/a")(sync_operation)
    api.get("/b", auth=European(using="other"))(async_operation)
    with standing(ROOT_URLCONF=site(api)) as server:
        other = {**server.settings(), "AUTHSERVER_ENDPOINT": "https://other.test/tenant/"}
        with override_settings(BAIKAL={"default": server.settings(), "other": other}):
            schema = json.loads(Client().get("/openapi.json").content)
        assert server.requests.count("discovery") == 0
    where = "/.well-known/openid-configuration"
    assert schema["components"]["securitySchemes"] == {
        "BaikalBearer": {"type": "openIdConnect", "openIdConnectUrl": server.endpoint + where},
        "European": {
            "type": "openIdConnect",
            "openIdConnectUrl": f"https://other.test/tenant{where}",
        },
    }
    assert schema["paths"]["/a"]["get"]["security"] == [{"BaikalBearer": []}]
    if find_spec("openapi_spec_validator"):
        from openapi_spec_validator import validate

        validate(schema)
