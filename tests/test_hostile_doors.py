"""Doors in odd but legal company: other decorators and middleware, caches, views of all kinds."""

from __future__ import annotations

import copy
import json
from typing import Any, ClassVar

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.models import User
from django.contrib.sessions.backends.cache import SessionStore
from django.http import HttpRequest, JsonResponse
from django.test import Client, RequestFactory, override_settings
from django.urls import path
from django.utils.decorators import method_decorator
from django.views.debug import ExceptionReporter
from django.views.decorators.cache import cache_page
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers
from doors_stage import (
    AUTHENTICATION,
    CSRF,
    OURS,
    PHONE,
    SESSION,
    OfAsyncClass,
    OfClass,
    knock,
    needs_rest_framework,
    standing,
    urls,
    view,
)

from django_baikal.authentication import (
    aauthenticate_request,
    authenticate,
    authenticate_request,
    token_of,
)
from django_baikal.decorators import TokenRequiredMixin, token_required
from django_baikal.testing import FakeAuthserver

UPDATE = "django.middleware.cache.UpdateCacheMiddleware"
FETCH = "django.middleware.cache.FetchFromCacheMiddleware"

both_servers = pytest.mark.parametrize(
    "asgi", [pytest.param(False, id="wsgi"), pytest.param(True, id="asgi")]
)


def bearer(server: FakeAuthserver, **claims: Any) -> str:
    return f"Bearer {server.issue_token(**{'sub': 'anna', 'scope': 'read', **claims})}"


# -- other decorators -------------------------------------------------------------------------


@both_servers
@pytest.mark.parametrize("base", [OfClass, OfAsyncClass])
@pytest.mark.parametrize("inner", [csrf_exempt, login_not_required, require_safe])
def test_other_decorators_may_be_on_the_same_dispatch(asgi: bool, base: Any, inner: Any) -> None:
    """They let the coroutine of an async class through, without being coroutine functions."""
    gate = token_required("read")
    for order in ([gate, inner], [inner, gate], [gate, inner, gate]):
        made = method_decorator(order, name="dispatch")(type("Made", (base,), {}))
        with standing(ROOT_URLCONF=urls(path("", made.as_view()))) as server:
            assert knock("/", bearer(server), asgi=asgi).status == 200
            assert knock("/", bearer(server, scope="x"), asgi=asgi).status == 403
            assert knock("/", asgi=asgi).status == 401


# -- sessions ---------------------------------------------------------------------------------


def keyed(request: Any) -> JsonResponse:
    """Do what shops do: keep a basket under the session's key."""
    keys = [request.session.session_key]
    request.session["basket"] = "of the bearer"
    for make in (request.session.create, request.session.cycle_key):
        make()
        keys.append(request.session.session_key)
        assert request.session["basket"] == "of the bearer"
    request.session.flush()
    keys.append(request.session.session_key)
    assert "basket" not in request.session
    for _ in range(2):
        request.session.save()
        keys.append(request.session.session_key)
    assert keys.pop() == keys[-1]
    return JsonResponse({"keys": keys})


@both_servers
def test_a_session_that_a_view_makes_has_a_key_of_its_own_and_is_kept_nowhere(asgi: bool) -> None:
    options: dict[str, Any] = {
        "ROOT_URLCONF": urls(path("", keyed)),
        "SESSION_ENGINE": "django.contrib.sessions.backends.cache",
    }
    with standing([SESSION, OURS], **options) as server:
        answers = [knock("/", bearer(server), asgi=asgi) for _ in range(2)]
        assert not any("Set-Cookie" in answer.headers for answer in answers)
        found = [answer.body["keys"] for answer in answers]
        assert [(keys[0], keys[3]) for keys in found] == [(None, None)] * 2
        made = [key for keys in found for key in (*keys[1:3], keys[4])]
        assert len({*made}) == 6
        assert all(len(key) == 32 and not SessionStore().exists(key) for key in made)


# -- caches -----------------------------------------------------------------------------------


@both_servers
@pytest.mark.parametrize("site", [True, False], ids=["of-the-site", "of-the-view"])
def test_a_page_for_nobody_is_no_bearers_where_the_view_varies(asgi: bool, site: bool) -> None:
    """As the guide says it: without a token, the middleware leaves a response as it is."""
    varying = vary_on_headers("Authorization")(view)
    page = varying if site else cache_page(60)(varying)
    middleware = [UPDATE, OURS, FETCH] if site else [OURS]
    with standing(middleware, ROOT_URLCONF=urls(path(f"{site}/{asgi}", page))) as server:
        anna, berta = bearer(server), bearer(server, sub="berta")
        at = f"/{site}/{asgi}"
        users = [knock(at, who, asgi=asgi).body["user"] for who in (None, anna, berta, None, anna)]
        assert users[0] == users[3] == "None"
        assert users[1] == users[4] != users[2]
        assert users[1].startswith("TokenUser")


@both_servers
@pytest.mark.parametrize("optional", [False, True])
def test_a_page_in_a_cache_behind_the_gate_is_for_one_token(asgi: bool, optional: bool) -> None:
    gate = token_required("read", optional=optional)
    page = gate(cache_page(60)(vary_on_headers("Authorization")(view)))
    at = f"{optional}/{asgi}"
    with standing(ROOT_URLCONF=urls(path(at, page)), entry={"INTROSPECTION_TTL": 0}) as server:
        anna, berta = bearer(server), bearer(server, sub="berta")
        assert knock(f"/{at}", asgi=asgi).status == (200 if optional else 401)
        users = [knock(f"/{at}", who, asgi=asgi).body["user"] for who in (anna, berta, anna)]
        assert users[0] == users[2] != users[1]
        assert knock(f"/{at}", bearer(server, scope="x"), asgi=asgi).status == 403
        server.revoke_token(anna.removeprefix("Bearer "))
        assert knock(f"/{at}", anna, asgi=asgi).status == 401


@both_servers
def test_a_page_in_a_cache_before_the_gate_is_for_one_token(asgi: bool) -> None:
    page = cache_page(60)(token_required("read", optional=True)(view))
    with standing(ROOT_URLCONF=urls(path(f"before/{asgi}", page))) as server:
        anna, berta = bearer(server), bearer(server, sub="berta")
        order = (None, anna, berta, None)
        users = [knock(f"/before/{asgi}", who, asgi=asgi).body["user"] for who in order]
        assert users[0] == users[3] == "None"
        assert len({*users}) == 3


# -- REST framework ---------------------------------------------------------------------------


def framework_view(**attributes: Any) -> Any:
    from rest_framework.response import Response
    from rest_framework.views import APIView

    from django_baikal.contrib import rest_framework as ours

    class Made(APIView):
        authentication_classes = (ours.IntrospectionAuthentication,)
        permission_classes: Any = (ours.TokenHasScope,)
        required_scopes = "write"

        def get_exception_handler(self) -> Any:
            return ours.exception_handler

        def get(self, request: Any) -> Any:
            return Response({"user": str(request.user)})

    return type("View", (Made,), attributes)


@needs_rest_framework
def test_a_view_may_wrap_what_the_framework_checks() -> None:
    def check_permissions(self: Any, request: Any) -> None:
        permission = "not one of the framework's"
        super(made, self).check_permissions(request)
        assert permission

    made = framework_view(check_permissions=check_permissions)
    with standing(ROOT_URLCONF=urls(path("", made.as_view()))) as server:
        refused = knock("/", bearer(server))
        assert refused.status == 403
        assert 'scope="write"' in refused.told["WWW-Authenticate"]
        assert knock("/", bearer(server, scope="write")).status == 200


@pytest.mark.django_db
@needs_rest_framework
def test_a_session_beats_a_token_only_where_it_is_named_before_it() -> None:
    """The guide and a check say so: the framework asks no further class."""
    from rest_framework.authentication import SessionAuthentication
    from rest_framework.permissions import IsAuthenticated

    from django_baikal.contrib.rest_framework import IntrospectionAuthentication, TokenHasScope

    classes = [IntrospectionAuthentication, SessionAuthentication]
    views = {
        "ours": framework_view(
            authentication_classes=classes, permission_classes=[IsAuthenticated & ~TokenHasScope]
        ),
        "session": framework_view(
            authentication_classes=classes[::-1], permission_classes=[IsAuthenticated]
        ),
        "open": framework_view(authentication_classes=classes, permission_classes=[~TokenHasScope]),
    }
    routes = urls(*[path(name, each.as_view()) for name, each in views.items()])
    options = {
        "ROOT_URLCONF": routes,
        "SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies",
    }
    with standing([SESSION, CSRF, AUTHENTICATION], **options) as server:
        browser = Client()
        browser.force_login(User.objects.create_user("eva"))

        def user(at: str, header: str) -> Any:
            answer = browser.get(f"/{at}", headers={"authorization": header})
            return answer.json()["user"] if answer.status_code == 200 else answer.status_code

        assert user("ours", bearer(server)).startswith("TokenUser")
        assert user("ours", bearer(server, scope="write")) == 403
        assert user("ours", "Bearer nope") == 401
        assert user("session", bearer(server)) == user("session", "Bearer nope") == "eva"
        assert knock("/ours").status == 401
        assert knock("/open").status == 200, "~ turns around that there is no token as well"


@pytest.mark.django_db
@needs_rest_framework
@pytest.mark.parametrize("every", [False, True], ids=["", "save-every-request"])
def test_a_method_of_the_framework_behind_the_gate_has_no_session_either(every: bool) -> None:
    from rest_framework.response import Response

    @method_decorator(token_required("read"))
    def get(self: Any, request: Any) -> Any:
        for each in (request, request._request):
            assert each.user.token is request.auth
            assert each.session.get("_auth_user_id") is None
            each.session["secret"] = "of the bearer"
        return Response("fine")

    made = framework_view(authentication_classes=(), permission_classes=(), get=get)
    options = {
        "ROOT_URLCONF": urls(path("", made.as_view())),
        "SESSION_ENGINE": "django.contrib.sessions.backends.cache",
        "SESSION_SAVE_EVERY_REQUEST": every,
    }
    with standing([SESSION, CSRF, AUTHENTICATION], **options) as server:
        browser = Client()
        browser.force_login(User.objects.create_user("eva"))
        before = dict(browser.session.items())
        answer = browser.get("/", headers={"authorization": bearer(server)})
        assert (answer.status_code, {*answer.cookies}) == (200, set())
        assert dict(browser.session.items()) == before
        assert browser.get("/").status_code == 401


@needs_rest_framework
def test_a_set_of_views_may_have_the_mixin() -> None:
    from rest_framework.response import Response
    from rest_framework.routers import SimpleRouter
    from rest_framework.viewsets import ViewSet

    class Things(TokenRequiredMixin, ViewSet):
        required_scopes = "write"
        authentication_classes = ()
        permission_classes = ()

        def list(self, request: Any) -> Any:
            return Response([])

    router = SimpleRouter()
    router.register("things", Things, basename="thing")
    with standing(ROOT_URLCONF=urls(*router.urls)) as server:
        assert knock("/things/", bearer(server, scope="write")).status == 200
        assert knock("/things/", bearer(server)).status == 403
        assert knock("/things/").status == 401


@needs_rest_framework
def test_options_tells_what_the_token_may_do_by_action() -> None:
    """The framework asks the permissions about PUT and POST, with the action of OPTIONS."""
    from rest_framework import mixins, serializers
    from rest_framework.routers import SimpleRouter
    from rest_framework.viewsets import GenericViewSet

    from django_baikal.contrib import rest_framework as ours

    class Form(serializers.Serializer):
        name = serializers.CharField()

    class Things(mixins.CreateModelMixin, mixins.UpdateModelMixin, GenericViewSet):
        serializer_class = Form
        authentication_classes = (ours.IntrospectionAuthentication,)
        permission_classes = (ours.TokenHasScope,)
        required_scopes: ClassVar[Any] = {
            "create": "write",
            "update": "admin",
            "partial_update": "admin",
        }

        def get_object(self) -> Any:
            return {"name": "a thing"}

    router = SimpleRouter()
    router.register("things", Things, basename="thing")
    with standing(ROOT_URLCONF=urls(*router.urls)) as server:

        def told(at: str, scope: str) -> list[str]:
            answer = knock(at, bearer(server, scope=scope), method="options")
            assert answer.status == 200
            return [*answer.body.get("actions", {})]

        assert told("/things/", "read") == []
        assert told("/things/", "write") == ["POST"]
        assert told("/things/1/", "write") == []
        assert told("/things/1/", "admin") == ["PUT"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Things, "required_scopes", {"metadata": "any", "POST": "write"})
            assert knock("/things/", bearer(server), method="options").status == 403
            assert told("/things/", "any") == []
            assert told("/things/", "any write") == ["POST"]


# -- requests that are made of others, and reports ----------------------------------------------


@token_required()
def whoami(request: Any) -> JsonResponse:
    return JsonResponse({"sub": request.auth.subject})


def batch(request: Any) -> JsonResponse:
    """Do what batch endpoints do: answer several requests in one."""
    answers = []
    for token in json.loads(request.body):
        for copied in (copy.copy(request), HttpRequest()):
            vars(copied).update(vars(request))
            copied.META = {**request.META, "HTTP_AUTHORIZATION": f"Bearer {token}"}
            answers.append(json.loads(whoami(copied).content))
    return JsonResponse([answer.get("sub", answer.get("error")) for answer in answers], safe=False)


@pytest.mark.parametrize("outer", [True, False], ids=["with a token", "without"])
@pytest.mark.parametrize("middleware", [[OURS], []], ids=["middleware", "none"])
def test_a_request_that_is_made_of_another_has_its_own_token(
    outer: bool, middleware: list[str]
) -> None:
    with standing(middleware, ROOT_URLCONF=urls(path("", batch))) as server:
        tokens = [server.issue_token(sub=name) for name in ("anna", "bob")]
        sent = [*tokens, "no.such.token", tokens[0]]
        headers = {"authorization": bearer(server, sub="carol")} if outer else {}
        answer = Client().post("/", json.dumps(sent), "application/json", headers=headers)
        expected = ["anna", "bob", "invalid_token", "anna"]
        assert answer.json() == [name for name in expected for _ in range(2)]


def careless(info: Any) -> Any:
    number = str(info.claims["uid"])
    raise LookupError(f"the database is down for somebody with {len(number)} digits")


def reports(call: Any) -> str:
    """Give what is mailed to the admins, without the frame of the test."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - all of them are looked at
        call()
    frames = caught.tb
    while frames.tb_frame.f_code.co_filename == __file__:
        assert frames.tb_next is not None
        frames = frames.tb_next
    reporter = ExceptionReporter(None, caught.type, caught.value, frames)
    return reporter.get_traceback_text() + reporter.get_traceback_html()


@override_settings(DEBUG=False)
def test_a_report_shows_nothing_of_what_was_called_for_a_token() -> None:
    with standing([], {"USER_RESOLVER": f"{__name__}.careless"}) as server:
        header = bearer(server, sub=PHONE, uid=PHONE)
        token = header.removeprefix("Bearer ")
        request = RequestFactory().get("/", headers={"authorization": header})
        twice = RequestFactory().get("/", headers={"authorization": f"{header}, {header}"})
        found = [
            reports(lambda: authenticate(token)),
            reports(lambda: authenticate_request(request)),
            reports(lambda: authenticate_request(twice)),
            reports(lambda: token_of(twice)),
            reports(lambda: async_to_sync(aauthenticate_request)(twice)),
        ]
    for report in found:
        assert "the database is down" in report or "more than one credential" in report
        assert token not in report
        assert PHONE.lstrip("+") not in report
