"""The middleware: when it works, what becomes of the session, CSRF, and the request's body."""

from __future__ import annotations

import asyncio
import io
import uuid
from importlib import import_module
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib import auth, messages
from django.contrib.auth.models import AnonymousUser, User
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path
from doors_stage import (
    AUTHENTICATION,
    CSRF,
    DECORATORS,
    LOGIN_REQUIRED,
    MESSAGES,
    OURS,
    SESSION,
    introspections,
    knock,
    needs_rest_framework,
    rest_framework_view,
    seen,
    standing,
    urls,
    view,
)

from django_baikal.decorators import token_required
from django_baikal.exceptions import AuthserverUnavailable, InactiveToken
from django_baikal.middleware import IntrospectionMiddleware
from django_baikal.testing import FakeAuthserver

FULL = [SESSION, CSRF, AUTHENTICATION, MESSAGES, OURS]
#: Where the session of the middleware's own would come back.
MISPLACED = [OURS, SESSION, CSRF, AUTHENTICATION, MESSAGES]
MODEL_BACKEND = "django.contrib.auth.backends.ModelBackend"
FORM = "application/x-www-form-urlencoded"

both_servers = pytest.mark.parametrize(
    "asgi", [pytest.param(False, id="wsgi"), pytest.param(True, id="asgi")]
)


@pytest.fixture(autouse=True)
def _a_cache_and_sessions_of_its_own(settings: Any) -> None:
    backend = "django.core.cache.backends.locmem.LocMemCache"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": str(uuid.uuid4())}}
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"


def bearer(server: FakeAuthserver, **claims: Any) -> str:
    return f"Bearer {server.issue_token(**{'sub': 'anna', 'scope': 'read', **claims})}"


# -- when it works ----------------------------------------------------------------------------


@both_servers
@pytest.mark.parametrize("at", ["/open", "/async-open"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Basic dXNlcjpwYXNzd29yZA=="},
        {"authorization": "Token {token}"},
        {"authorization": "{token}"},
        {"authorization": "Bearer{token}"},
        {"x-authorization": "Bearer {token}"},
        {"x_authorization": "Bearer {token}"},
        {"authorization_": "Bearer {token}"},
        {"proxy-authorization": "Bearer {token}"},
        {"x-forwarded-authorization": "Bearer {token}"},
        {"access-token": "{token}"},
    ],
)
def test_it_does_nothing_without_a_bearers_header(asgi: bool, at: str, headers: Any) -> None:
    with standing([OURS]) as server:
        token = server.issue_token(sub="anna")
        sent = {name: value.format(token=token) for name, value in headers.items()}
        answer = knock(at, asgi=asgi, headers=sent)
        assert answer.body == {"user": "None", "authenticated": False, "scopes": None}
        assert answer.vary == set()
        assert len(server.requests) == 0


@pytest.mark.parametrize("name", ["REDIRECT_HTTP_AUTHORIZATION", "AUTHORIZATION", "HTTP_TOKEN"])
def test_variables_like_the_headers_are_not_looked_at(name: str) -> None:
    with standing([OURS]) as server:
        answer = knock("/open", **{name: bearer(server)})
        assert answer.body["authenticated"] is False


@both_servers
def test_it_gives_the_principal_in_every_way_that_a_view_may_ask(asgi: bool) -> None:
    async def ask(request: Any) -> JsonResponse:
        asked = await request.auser()
        return JsonResponse(
            {
                "same": asked is request.user,
                "auth": request.auth is request.user.token is request.user.baikal_token,
                "scopes": sorted(request.auth.scopes),
            }
        )

    with standing(FULL, ROOT_URLCONF=urls(path("", ask))) as server:
        answer = knock("/", bearer(server, scope="a b"), asgi=asgi)
        assert answer.body == {"same": True, "auth": True, "scopes": ["a", "b"]}


@both_servers
def test_another_alias_is_that_of_a_subclass(asgi: bool) -> None:
    with standing([f"{__name__}.OfAnother"]) as server:
        own = FakeAuthserver(endpoint=f"https://{uuid.uuid4()}.test")
        both = {"default": server.settings(), "other": own.settings(REALM="other")}
        with own.in_memory(), override_settings(BAIKAL=both):
            assert knock("/open", bearer(own), asgi=asgi).body["authenticated"] is True
            refused = knock("/open", bearer(server), asgi=asgi)
            assert refused.status == 401
            assert refused.told["WWW-Authenticate"].startswith('Bearer realm="other", error=')


class OfAnother(IntrospectionMiddleware):
    using = "other"


def of_threads(get_response: Any) -> Any:
    """A middleware that is not for coroutines: Django runs what is in it in a thread."""

    def middleware(request: HttpRequest) -> Any:
        return get_response(request)

    return middleware


of_threads.async_capable = False  # type: ignore[attr-defined]


@both_servers
@pytest.mark.parametrize("at", ["/open", "/async-open"])
@pytest.mark.parametrize("before", [True, False])
def test_it_works_beside_one_that_is_not_for_coroutines(asgi: bool, at: str, before: bool) -> None:
    other = f"{__name__}.of_threads"
    with standing([other, OURS] if before else [OURS, other]) as server:
        assert knock(at, bearer(server), asgi=asgi).body["authenticated"] is True
        assert knock(at, "Bearer nope", asgi=asgi).status == 401


@both_servers
@pytest.mark.parametrize("raised", [InactiveToken("mine"), AuthserverUnavailable("mine")])
def test_what_a_view_raises_is_the_views(asgi: bool, raised: Exception) -> None:
    def fail(request: Any) -> Any:
        raise raised

    async def afail(request: Any) -> Any:
        raise raised

    patterns = [path("s", fail), path("a", afail)]
    patterns += [path("ds", token_required(fail)), path("da", token_required(afail))]
    with standing([OURS], ROOT_URLCONF=urls(*patterns)) as server:
        header = bearer(server)
        for at in ("/s", "/a", "/ds", "/da"):
            with pytest.raises(type(raised), match="mine"):
                knock(at, header, asgi=asgi)


# -- the session ------------------------------------------------------------------------------


def look(request: Any) -> None:
    assert "secret" not in request.session
    assert request.session.get("_auth_user_id") is None
    assert request.session.is_empty()


def write(request: Any) -> None:
    request.session["secret"] = "of the bearer"
    request.session.set_expiry(60)
    assert request.session["secret"] == "of the bearer"


def save(request: Any) -> None:
    write(request)
    request.session.save()
    request.session.cycle_key()
    assert not request.session.exists("any")


def flush(request: Any) -> None:
    request.session.flush()


def log_out(request: Any) -> None:
    auth.logout(request)


def log_in(request: Any) -> None:
    auth.login(
        request, User.objects.get(username="eva"), "django.contrib.auth.backends.ModelBackend"
    )
    assert request.user.username == "eva"


def tell(request: Any) -> None:
    messages.info(request, "x" * 5000)  # too long for a cookie, so it is for the session


def ask_django(request: Any) -> None:
    assert auth.get_user(request) == AnonymousUser()


async def alook(request: Any) -> None:
    assert await request.session.aget("secret") is None


async def awrite(request: Any) -> None:
    await request.session.aset("secret", "of the bearer")
    await request.session.asave()


async def alog_out(request: Any) -> None:
    await auth.alogout(request)


async def alog_in(request: Any) -> None:
    user = await User.objects.aget(username="eva")
    await auth.alogin(request, user, MODEL_BACKEND)
    assert request.user.username == "eva"


SYNC = (look, write, save, flush, log_out, log_in, tell, ask_django)
ASYNC = (alook, awrite, alog_out, alog_in)


def acting(action: Any) -> Any:
    def act(request: Any) -> JsonResponse:
        found = seen(request)
        action(request)
        return JsonResponse(found)

    async def aact(request: Any) -> JsonResponse:
        found = seen(request)
        await action(request)
        return JsonResponse(found)

    return aact if action in ASYNC else act


ACTIONS = urls(*[path(action.__name__, acting(action)) for action in (*SYNC, *ASYNC)])
PROTECTED = urls(
    *[path(action.__name__, token_required(acting(action))) for action in (*SYNC, *ASYNC)]
)


def browser(asgi: bool) -> Any:
    return (AsyncClient if asgi else Client)(enforce_csrf_checks=True)


def send(client: Any, method: str, *args: Any, **options: Any) -> Any:
    call = getattr(client, method)
    # In this thread, whose connection to the database is the test's.
    return (async_to_sync(call) if isinstance(client, AsyncClient) else call)(*args, **options)


def logged_in(client: Any) -> dict[str, Any]:
    """Log the user eva in, with something in the session; give what is stored."""
    client.force_login(User.objects.create_user("eva"))
    session = client.session
    session["secret"] = "of eva"
    session.save()
    return stored(client)


def stored(client: Any) -> dict[str, Any]:
    from django.conf import settings

    store = import_module(settings.SESSION_ENGINE).SessionStore
    return dict(store(client.cookies[settings.SESSION_COOKIE_NAME].value).items())


def who_am_i(request: Any) -> JsonResponse:
    return JsonResponse({"name": request.user.get_username(), "at": request.session.get("secret")})


@pytest.mark.django_db
@pytest.mark.parametrize("every", [False, True], ids=["", "save-every-request"])
@pytest.mark.parametrize("action", [*SYNC, *ASYNC])
@pytest.mark.parametrize(
    ("middleware", "module"),
    [
        pytest.param(FULL, ACTIONS, id="middleware"),
        pytest.param(FULL[:-1], PROTECTED, id="decorator"),
        pytest.param(FULL, PROTECTED, id="both"),
    ],
)
@both_servers
def test_a_session_is_neither_used_nor_changed(
    asgi: bool, middleware: list[str], module: Any, action: Any, every: bool
) -> None:
    client = browser(asgi)
    with standing(middleware, ROOT_URLCONF=module, SESSION_SAVE_EVERY_REQUEST=every) as server:
        before = logged_in(client)
        cookie = client.cookies["sessionid"].value
        answer = send(
            client, "get", f"/{action.__name__}", headers={"authorization": bearer(server)}
        )
        assert answer.status_code == 200
        assert answer.json()["user"].startswith("TokenUser ")
        assert "sessionid" not in answer.cookies
        assert client.cookies["sessionid"].value == cookie
        assert stored(client) == before
        with override_settings(ROOT_URLCONF=urls(path("", who_am_i))):
            assert send(client, "get", "/").json() == {"name": "eva", "at": "of eva"}


@pytest.mark.django_db
@needs_rest_framework
@pytest.mark.parametrize("every", [False, True], ids=["", "save-every-request"])
@pytest.mark.parametrize("action", SYNC)
def test_nor_is_it_by_the_framework(action: Any, every: bool) -> None:
    acts = acting(action)
    made = rest_framework_view({}, handler=True)
    made.cls.get = lambda self, request: acts(request._request)
    client = browser(False)
    options = {"ROOT_URLCONF": urls(path("", made)), "SESSION_SAVE_EVERY_REQUEST": every}
    with standing(FULL[:-1], **options) as server:
        before = logged_in(client)
        answer = send(client, "get", "/", headers={"authorization": bearer(server)})
        assert answer.status_code == 200
        assert answer.json()["user"].startswith("TokenUser ")
        assert "sessionid" not in answer.cookies
        assert stored(client) == before


@pytest.mark.django_db
@pytest.mark.parametrize("engine", ["cache", "signed_cookies"])
@pytest.mark.parametrize("header", ["Bearer nope", "Bearer", "Bearer a, Bearer b", "Bearer ä"])
@both_servers
def test_a_session_does_not_help_a_bad_token(
    asgi: bool, header: str, engine: str, settings: Any
) -> None:
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    client = browser(asgi)
    with standing(FULL, ROOT_URLCONF=urls(path("", who_am_i)), SESSION_SAVE_EVERY_REQUEST=True):
        before = logged_in(client)
        answer = send(client, "get", "/", headers={"authorization": header})
        assert answer.status_code in (400, 401)
        assert b"eva" not in answer.content
        assert stored(client) == before


@pytest.mark.django_db
@both_servers
def test_a_session_does_not_help_while_the_authserver_is_down(asgi: bool) -> None:
    client = browser(asgi)
    with standing(FULL, ROOT_URLCONF=urls(path("", who_am_i))) as server:
        logged_in(client)
        with server.fail("introspection"):
            answer = send(client, "get", "/", headers={"authorization": bearer(server)})
        assert answer.status_code == 503


@pytest.mark.django_db
@pytest.mark.parametrize("csrf_use_sessions", [False, True])
@both_servers
def test_no_session_comes_back_in_the_wrong_order(asgi: bool, csrf_use_sessions: bool) -> None:
    """A check says that the order is wrong; but two are not mixed then either."""
    client = browser(asgi)
    patterns = urls(path("", who_am_i))
    with standing(MISPLACED, ROOT_URLCONF=patterns, CSRF_USE_SESSIONS=csrf_use_sessions) as server:
        before = logged_in(client)
        answer = send(client, "post", "/", headers={"authorization": bearer(server)})
        assert answer.json() == {"name": "", "at": None}
        assert stored(client) == before


@pytest.mark.django_db
@both_servers
def test_csrf_in_the_session_is_left_there(asgi: bool) -> None:
    client = browser(asgi)
    with standing(FULL, ROOT_URLCONF=ACTIONS, CSRF_USE_SESSIONS=True) as server:
        before = logged_in(client)
        for action in ("look", "write"):
            answer = send(client, "post", f"/{action}", headers={"authorization": bearer(server)})
            assert answer.status_code == 200
        assert stored(client) == before


@both_servers
def test_no_session_and_no_user_model_are_needed(asgi: bool) -> None:
    def nothing(request: Any) -> JsonResponse:
        return JsonResponse({"session": hasattr(request, "session"), **seen(request)})

    with standing([OURS], ROOT_URLCONF=urls(path("", nothing))) as server:
        answer = knock("/", bearer(server), asgi=asgi)
        assert answer.body["session"] is False
        assert answer.body["authenticated"] is True


# -- CSRF: from the attacker's side -----------------------------------------------------------


done: list[str] = []


def pay(request: Any) -> HttpResponse:
    done.append(str(request.user))
    return HttpResponse("paid")


async def apay(request: Any) -> HttpResponse:
    done.append(str(await request.auser()))
    return HttpResponse("paid")


PAYMENTS = urls(
    path("open", pay),
    path("async-open", apay),
    path("optional", token_required(optional=True)(pay)),
    path("async-optional", token_required(optional=True)(apay)),
)
FORGED = {
    "no-header": ({}, {}, 403),
    "basic": ({"authorization": "Basic dXNlcjpwYXNz"}, {}, 403),
    "token": ({"authorization": "Token {token}"}, {}, 403),
    "another-header": ({"x-authorization": "Bearer {token}"}, {}, 403),
    "bearer-alone": ({"authorization": "Bearer"}, {}, 400),
    "bad-token": ({"authorization": "Bearer nope"}, {}, 401),
    "expired": ({"authorization": "Bearer {expired}"}, {}, 401),
    "too-long": ({"authorization": "Bearer " + "a" * 9000}, {}, 401),
    "two": ({"authorization": "Bearer {token}, Basic x"}, {}, 400),
    "in-the-form": ({}, {"access_token": "{token}"}, 403),
    "in-both": ({"authorization": "Bearer {token}"}, {"access_token": "x"}, 400),
}


@pytest.mark.django_db
@both_servers
@pytest.mark.parametrize("at", ["/open", "/async-open", "/optional", "/async-optional"])
@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_request_with_a_session_does_nothing(asgi: bool, at: str, forged: str) -> None:
    headers, form, status = FORGED[forged]
    client = browser(asgi)
    done.clear()
    with standing(FULL, ROOT_URLCONF=PAYMENTS) as server:
        logged_in(client)
        tokens = {
            "token": server.issue_token(sub="anna"),
            "expired": server.issue_token(sub="anna", lifetime=-10),
        }
        sent = {name: value.format(**tokens) for name, value in headers.items()}
        fields = "&".join(f"{name}={value.format(**tokens)}" for name, value in form.items())
        answer = send(client, "post", at, fields, content_type=FORM, headers=sent)
        assert (answer.status_code, done) == (status, [])


@pytest.mark.django_db
@both_servers
@pytest.mark.parametrize("at", ["/open", "/async-open", "/optional", "/async-optional"])
def test_a_forged_request_does_nothing_during_an_outage(asgi: bool, at: str) -> None:
    client = browser(asgi)
    done.clear()
    with standing(FULL, ROOT_URLCONF=PAYMENTS) as server:
        logged_in(client)
        with server.fail("introspection"):
            answer = send(client, "post", at, headers={"authorization": bearer(server)})
        assert (answer.status_code, done) == (503, [])


@pytest.mark.django_db
@both_servers
@pytest.mark.parametrize("at", ["/open", "/async-open", "/optional", "/async-optional"])
@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_a_good_token_needs_no_csrf_token(asgi: bool, at: str, method: str) -> None:
    client = browser(asgi)
    done.clear()
    with standing(FULL, ROOT_URLCONF=PAYMENTS) as server:
        logged_in(client)
        answer = send(client, method, at, headers={"authorization": bearer(server)})
        assert answer.status_code == 200
    [user] = done
    assert user.startswith("TokenUser ")


@pytest.mark.django_db
@both_servers
def test_an_optional_view_without_the_middleware_checks_csrf_first(asgi: bool) -> None:
    """As its docstring says: nobody has looked at the token when CSRF is checked."""
    client = browser(asgi)
    done.clear()
    with standing(FULL[:-1], ROOT_URLCONF=PAYMENTS) as server:
        logged_in(client)
        assert send(client, "post", "/optional").status_code == 403
        answer = send(client, "post", "/optional", headers={"authorization": bearer(server)})
        assert (answer.status_code, done) == (403, [])
        answer = send(client, "get", "/optional", headers={"authorization": bearer(server)})
        assert answer.status_code == 200
        assert done[0].startswith("TokenUser ")


@pytest.mark.django_db
@needs_rest_framework
@pytest.mark.parametrize("ours", [True, False], ids=["middleware", "alone"])
def test_a_forged_request_to_the_framework_does_nothing(ours: bool) -> None:
    from rest_framework.authentication import SessionAuthentication

    from django_baikal.contrib.rest_framework import IntrospectionAuthentication

    classes = [IntrospectionAuthentication, SessionAuthentication]
    made = rest_framework_view({"optional": True}, handler=True, classes=classes)
    client = browser(False)
    with standing(FULL if ours else FULL[:-1], ROOT_URLCONF=urls(path("", made))) as server:
        logged_in(client)
        assert send(client, "get", "/").json()["user"] == "eva"
        for header, status in (("", 403), ("Basic x", 403), ("Bearer nope", 401), ("Bearer", 400)):
            sent = {"authorization": header} if header else {}
            assert send(client, "post", "/", headers=sent).status_code == status
        answer = send(client, "post", "/", headers={"authorization": bearer(server)})
        assert answer.status_code == 200
        assert answer.json()["user"].startswith("TokenUser ")


# -- LoginRequiredMiddleware, and caches ------------------------------------------------------


@both_servers
@pytest.mark.parametrize("at", ["/open", "/async-open"])
def test_login_required_sends_no_bearer_to_a_form(asgi: bool, at: str) -> None:
    with standing([SESSION, AUTHENTICATION, OURS, LOGIN_REQUIRED]) as server:
        assert knock(at, asgi=asgi).status == 302
        assert knock(at, "Basic x", asgi=asgi).status == 302
        assert knock(at, "Bearer nope", asgi=asgi).status == 401
        assert knock(at, "Bearer", asgi=asgi).status == 400
        with server.fail("introspection"):
            assert knock(at, bearer(server), asgi=asgi).status == 503
        assert knock(at, bearer(server), asgi=asgi).status == 200
        assert knock(at, bearer(server, sub=None), asgi=asgi).status == 200


@both_servers
@pytest.mark.parametrize("door", DECORATORS)
def test_login_required_leaves_a_protected_view_alone(asgi: bool, door: str) -> None:
    with standing([SESSION, AUTHENTICATION, LOGIN_REQUIRED]) as server:
        assert knock(f"/{door}/any", asgi=asgi).status == 401
        assert knock(f"/{door}/any", bearer(server), asgi=asgi).status == 200


@both_servers
def test_vary_is_added_to_what_a_view_says(asgi: bool) -> None:
    def varying(request: Any) -> HttpResponse:
        return HttpResponse(headers={"Vary": "Accept-Language"})

    with standing([OURS], ROOT_URLCONF=urls(path("", varying))) as server:
        assert knock("/", bearer(server), asgi=asgi).vary == {"Accept-Language", "Authorization"}
        assert knock("/", asgi=asgi).vary == {"Accept-Language"}


@both_servers
def test_a_page_in_the_cache_is_for_one_token_and_no_longer_than_that_is_good(asgi: bool) -> None:
    cached = [
        "django.middleware.cache.UpdateCacheMiddleware",
        OURS,
        "django.middleware.cache.FetchFromCacheMiddleware",
    ]
    with standing(cached, {"INTROSPECTION_TTL": 0}) as server:
        anna, berta = bearer(server), bearer(server, sub="berta")
        first, second = (knock("/open", who, asgi=asgi).body["user"] for who in (anna, berta))
        assert first != second
        assert knock("/open", anna, asgi=asgi).body["user"] == first
        server.revoke_token(anna.removeprefix("Bearer "))
        assert knock("/open", anna, asgi=asgi).status == 401


# -- the body ---------------------------------------------------------------------------------


def streamed(request: Any) -> JsonResponse:
    assert not request._read_started
    return JsonResponse({"first": request.read(4).decode(), "rest": request.read().decode()})


def whole(request: Any) -> JsonResponse:
    return JsonResponse({"body": request.body.decode(), "form": request.POST.dict()})


def by_pieces(request: Any) -> JsonResponse:
    return JsonResponse({"read": request.read().decode()})


def as_form(request: Any) -> JsonResponse:
    return JsonResponse({"form": request.POST.dict()})


BODIES = urls(
    path("streamed", streamed),
    path("whole", whole),
    path("pieces", by_pieces),
    path("form", as_form),
    path("nothing", view),
    path("protected", token_required(as_form)),
)
MULTIPART = "multipart/form-data; boundary=x"
PART = '--x\r\nContent-Disposition: form-data; name="access_token"\r\n\r\nabc\r\n--x--\r\n'


@both_servers
@pytest.mark.parametrize(
    "kind", [MULTIPART, "application/json", "application/octet-stream", "text/plain", ""]
)
def test_a_body_of_another_kind_is_not_read(asgi: bool, kind: str) -> None:
    with standing([OURS], ROOT_URLCONF=BODIES) as server:
        options: Any = {"asgi": asgi, "method": "post", "data": PART, "content_type": kind}
        answer = knock("/streamed", bearer(server), **options)
        assert answer.body == {"first": PART[:4], "rest": PART[4:]}


@both_servers
def test_a_multipart_form_with_such_a_name_is_the_views(asgi: bool) -> None:
    with standing([OURS], ROOT_URLCONF=BODIES) as server:
        options: Any = {"asgi": asgi, "method": "post", "data": PART, "content_type": MULTIPART}
        assert knock("/form", bearer(server), **options).body == {"form": {"access_token": "abc"}}


@both_servers
@pytest.mark.parametrize("method", ["post", "put", "patch"])
def test_a_form_is_still_there_for_the_view(asgi: bool, method: str) -> None:
    with standing([OURS], ROOT_URLCONF=BODIES) as server:
        options: Any = {"asgi": asgi, "method": method, "data": "a=b", "content_type": FORM}
        header = bearer(server)
        form = {"a": "b"} if method == "post" else {}
        assert knock("/whole", header, **options).body == {"body": "a=b", "form": form}
        assert knock("/pieces", header, **options).body == {"read": "a=b"}
        options["data"] += "&access_token=x"
        assert knock("/whole", header, **options).status == 400


@both_servers
@pytest.mark.parametrize(
    "limits", [{"DATA_UPLOAD_MAX_MEMORY_SIZE": 10}, {"DATA_UPLOAD_MAX_NUMBER_FIELDS": 1}]
)
def test_a_form_that_is_too_large_is_the_views_matter(asgi: bool, limits: Any) -> None:
    with standing([OURS], ROOT_URLCONF=BODIES, **limits) as server:
        options: Any = {"asgi": asgi, "method": "post", "data": "a=1&b=2&c=3&d=4"}
        options["content_type"] = FORM
        header = bearer(server)
        assert knock("/nothing", header, **options).status == 200
        assert knock("/pieces", header, **options).body == {"read": options["data"]}
        assert knock("/form", header, **options).status == 400
        assert knock("/protected", header, **options).status == 400
        assert knock("/nothing", **options).status == 200


@both_servers
def test_a_form_in_another_charset_is_the_views_matter(asgi: bool) -> None:
    with standing([OURS], ROOT_URLCONF=BODIES) as server:
        kind = f"{FORM}; charset=latin-1"
        options: Any = {"asgi": asgi, "method": "post", "data": b"a=%E4", "content_type": kind}
        assert knock("/nothing", bearer(server), **options).status == 200


def reader(get_response: Any) -> Any:
    def middleware(request: HttpRequest) -> Any:
        request.read(1)
        return get_response(request)

    return middleware


@both_servers
@pytest.mark.parametrize("method", ["post", "put"])
def test_a_body_that_somebody_has_begun_to_read_is_left_to_them(asgi: bool, method: str) -> None:
    with standing([f"{__name__}.reader", OURS], ROOT_URLCONF=BODIES) as server:
        data = "xaccess_token=abc"
        options: Any = {"asgi": asgi, "method": method, "data": data, "content_type": FORM}
        assert knock("/pieces", bearer(server), **options).body == {"read": data[1:]}


class Broken(io.RawIOBase):
    """The body of a client that has gone."""

    def read(self, size: int = -1) -> bytes:
        raise ConnectionResetError("gone")


def test_a_body_that_breaks_off_is_the_views_matter() -> None:
    with standing([OURS], ROOT_URLCONF=BODIES) as server:
        options: Any = {"method": "post", "data": "a=b", "content_type": FORM}
        assert (
            knock("/nothing", bearer(server), **options, **{"wsgi.input": Broken()}).status == 200
        )


# -- headers as servers hand them over --------------------------------------------------------


def by_asgi(headers: list[tuple[bytes, bytes]]) -> list[Any]:
    sent: list[Any] = []

    async def receive() -> Any:
        if receive.asked:  # type: ignore[attr-defined]
            await asyncio.sleep(60)
        receive.asked = True  # type: ignore[attr-defined]
        return {"type": "http.request", "body": b"", "more_body": False}

    receive.asked = False  # type: ignore[attr-defined]

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "path": "/async-open",
        "query_string": b"",
        "headers": [(b"host", b"testserver"), *headers],
    }
    asyncio.run(ASGIHandler()(scope, receive, send))
    return sent


def test_two_headers_are_two_credentials() -> None:
    with standing([OURS]) as server:
        one, other = (bearer(server).encode() for _ in range(2))
        assert by_asgi([(b"authorization", one)])[0]["status"] == 200
        for pair in ((one, other), (one, one), (one, b"Basic x"), (b"Basic x", one)):
            headers = [(b"authorization", value) for value in pair]
            assert by_asgi(headers)[0]["status"] == 400
        assert introspections(server) == 1


def test_the_name_of_a_header_has_no_twin() -> None:
    with standing([OURS]) as server:
        token = bearer(server).encode()
        for name in (b"x-authorization", b"authorization2", b"http-authorization"):
            [start, body] = by_asgi([(name, token)])[:2]
            assert start["status"] == 200
            assert b'"authenticated": false' in body["body"]
