"""Django REST framework: permissions by token, how they compose, and what the handler says."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("rest_framework", reason="djangorestframework is not installed")

from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.http import Http404
from django.test import Client, RequestFactory, override_settings
from django.urls import include, path
from doors_stage import (
    AUTHENTICATION,
    CSRF,
    SESSION,
    introspections,
    knock,
    standing,
    urls,
)
from rest_framework import exceptions
from rest_framework.authentication import (
    BaseAuthentication,
    BasicAuthentication,
    SessionAuthentication,
)
from rest_framework.decorators import action, api_view, authentication_classes, permission_classes
from rest_framework.permissions import AllowAny, BasePermission, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter
from rest_framework.test import APIClient
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from django_baikal.contrib.rest_framework import (
    BearerError,
    IntrospectionAuthentication,
    TokenHasAcr,
    TokenHasPurpose,
    TokenHasReadWriteScope,
    TokenHasScope,
    exception_handler,
)
from django_baikal.exceptions import ConfigurationError
from django_baikal.testing import FakeAuthserver

METHODS = ("get", "head", "options", "post", "put", "patch", "delete")


def bearer(server: FakeAuthserver, scope: str = "read", **claims: Any) -> str:
    return f"Bearer {server.issue_token(**{'sub': 'anna', 'scope': scope, **claims})}"


class Ours(APIView):
    authentication_classes = (IntrospectionAuthentication,)
    permission_classes: Any = (TokenHasScope,)

    def get_exception_handler(self) -> Any:
        return exception_handler

    def get(self, request: Request, **_: Any) -> Response:
        return Response({"user": str(request.user)})

    post = put = patch = delete = get


def made(**attributes: Any) -> Any:
    permissions = attributes.pop("permissions", None)
    if permissions is not None:
        attributes["permission_classes"] = permissions
    base = attributes.pop("base", Ours)
    return urls(path("", type("Made", (base,), attributes).as_view()))


def statuses(view: Any, *scopes: str, method: str = "get", **claims: Any) -> list[int]:
    with standing(ROOT_URLCONF=view) as server:
        return [
            knock("/", bearer(server, scope, **claims), method=method).status for scope in scopes
        ]


def challenge(view: Any, scope: str, **claims: Any) -> str:
    with standing(ROOT_URLCONF=view) as server:
        return knock("/", bearer(server, scope, **claims)).told.get("WWW-Authenticate", "")


# -- TokenHasScope ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "enough", "too_little"),
    [
        ("a", ["a", "b a"], ["", "b", "ab", "A"]),
        ("a b", ["a b", "b c a"], ["a", "b"]),
        (["a", "b"], ["a b"], ["a", "b", ""]),
        (("a", "b"), ["b a"], ["a"]),
        ({"a", "b"}, ["a b"], ["b"]),
        (frozenset({"a"}), ["a"], ["b"]),
        ([["a"], ["b", "c"]], ["a", "c b"], ["b", "c", ""]),
        ([("a", "b"), {"c"}], ["c", "a b"], ["a", "b"]),
        ([], ["", "x"], []),
        ("", ["", "x"], []),
    ],
)
def test_scopes_may_be_a_string_a_list_or_alternatives(
    wanted: Any, enough: list[str], too_little: list[str]
) -> None:
    view = made(required_scopes=wanted)
    assert set(statuses(view, *enough)) == {200}
    assert set(statuses(view, *too_little)) <= {403}


@pytest.mark.parametrize(
    "wanted",
    [
        None,
        5,
        b"read",
        (each for each in ["a"]),
        ["a", ["b"]],
        ["a", 5],
        [[]],
        [["a"], []],
        [None],
        'say "a"',
        {"get": "a"},
        {"GET": None},
        {"GET": 5},
        {},
    ],
)
@pytest.mark.parametrize("header", ["", "Bearer {}"])
def test_scopes_that_say_nothing_clear_are_an_error_and_no_permission(
    wanted: Any, header: str
) -> None:
    with standing(ROOT_URLCONF=made(required_scopes=wanted)) as server:
        token = server.issue_token(sub="anna", scope="a b")
        with pytest.raises(ConfigurationError):
            knock("/", header.format(token))


@pytest.mark.parametrize(
    ("permission", "name"),
    [
        (TokenHasScope, "required_scopes"),
        (TokenHasPurpose, "required_purposes"),
        (TokenHasAcr, "required_acr"),
    ],
)
def test_a_view_that_says_nothing_is_told_what_it_needs(permission: Any, name: str) -> None:
    view, said = made(permissions=[permission]), f"Made needs {name}"
    with standing(ROOT_URLCONF=view) as server, pytest.raises(ConfigurationError, match=said):
        knock("/", bearer(server))


def by_method(view: Any, scope: str) -> dict[str, int]:
    with standing(ROOT_URLCONF=view) as server:
        header = bearer(server, scope)
        return {method: knock("/", header, method=method).status for method in METHODS}


def test_scopes_may_be_said_by_method() -> None:
    view = made(
        required_scopes={
            "GET": "read",
            "POST": ["write", "x"],
            "PUT": [["a"], ["write"]],
            "PATCH": "",
            "DELETE": "admin",
        }
    )
    forbidden = dict.fromkeys(METHODS, 403)
    always = {"options": 200, "patch": 200}
    assert by_method(view, "") == {**forbidden, **always}
    assert by_method(view, "read") == {**forbidden, **always, "get": 200, "head": 200}
    assert by_method(view, "write") == {**forbidden, **always, "put": 200}
    assert by_method(view, "write x") == {**forbidden, **always, "put": 200, "post": 200}
    assert by_method(view, "admin")["delete"] == 200


def test_head_and_options_may_be_said_too() -> None:
    view = made(required_scopes={"GET": "read", "HEAD": "head", "OPTIONS": "options"}, base=OnlyGet)
    found = by_method(view, "head")
    assert (found["get"], found["head"], found["options"]) == (403, 200, 403)
    assert by_method(view, "options")["options"] == 200


class OnlyGet(APIView):
    authentication_classes = (IntrospectionAuthentication,)
    permission_classes = (TokenHasScope,)

    def get_exception_handler(self) -> Any:
        return exception_handler

    def get(self, request: Request) -> Response:
        return Response({})


def test_a_method_that_a_view_does_not_have_is_405_and_no_error() -> None:
    found = by_method(made(required_scopes={"GET": "read"}, base=OnlyGet), "read")
    assert found == {
        **dict.fromkeys(METHODS, 405),
        "get": 200,
        "head": 200,
        "options": 200,
    }
    with standing(ROOT_URLCONF=made(required_scopes={"GET": "read"}, base=OnlyGet)):
        assert knock("/", method="post").status == 401
        assert knock("/", "Bearer nope", method="delete").status == 401
        assert knock("/", method="options").status == 401


def test_a_method_that_a_view_has_and_says_nothing_of_is_an_error() -> None:
    view, said = made(required_scopes={"GET": "read"}), "says nothing of POST"
    with standing(ROOT_URLCONF=view) as server, pytest.raises(ConfigurationError, match=said):
        knock("/", bearer(server), method="post")


class Things(ViewSet):
    authentication_classes = (IntrospectionAuthentication,)
    permission_classes = (TokenHasScope,)
    required_scopes = {  # noqa: RUF012
        "list": "list",
        "create": "create",
        "ship": [["ship"], ["admin"]],
        "GET": "read",
        "POST": "write",
        "DELETE": "",
    }

    def get_exception_handler(self) -> Any:
        return exception_handler

    def list(self, request: Request) -> Response:
        return Response({"action": self.action})

    def create(self, request: Request) -> Response:
        return Response({"action": self.action})

    def retrieve(self, request: Request, pk: str) -> Response:
        return Response({"action": self.action})

    def destroy(self, request: Request, pk: str) -> Response:
        return Response({"action": self.action})

    @action(detail=True, methods=["post"])
    def ship(self, request: Request, pk: str) -> Response:
        return Response({"action": self.action})

    @action(detail=False, methods=["get", "post"])
    def report(self, request: Request) -> Response:
        return Response({"action": self.action})

    @action(detail=False, methods=["get"], required_scopes="own")
    def named(self, request: Request) -> Response:
        return Response({"action": self.action})


@pytest.mark.parametrize(
    ("method", "at", "enough", "too_little"),
    [
        ("get", "/things/", "list", "read"),
        ("head", "/things/", "list", "read"),
        ("post", "/things/", "create", "write"),
        ("get", "/things/1/", "read", "list"),
        ("head", "/things/1/", "read", "list"),
        ("delete", "/things/1/", "", None),
        ("post", "/things/1/ship/", "ship", "write"),
        ("post", "/things/1/ship/", "admin", "read"),
        ("get", "/things/report/", "read", "write"),
        ("post", "/things/report/", "write", "read"),
        ("get", "/things/named/", "own", "read"),
        ("options", "/things/", "", None),
    ],
)
def test_scopes_may_be_said_by_action(
    method: str, at: str, enough: str, too_little: str | None
) -> None:
    router = SimpleRouter()
    router.register("things", Things, basename="thing")
    with standing(ROOT_URLCONF=urls(path("", include(router.urls)))) as server:
        assert knock(at, bearer(server, enough), method=method).status == 200
        if too_little is not None:
            assert knock(at, bearer(server, too_little), method=method).status == 403
        assert knock(at, method=method).status == 401
        assert knock(at, bearer(server, enough), method="patch").status == 405


def test_a_view_of_a_function_may_say_them_too() -> None:
    @api_view(["GET", "POST"])
    @authentication_classes([IntrospectionAuthentication])
    @permission_classes([TokenHasScope])
    def thing(request: Request) -> Response:
        return Response({})

    thing.cls.required_scopes = {"GET": "read", "POST": "write"}
    found = by_method(urls(path("", thing)), "read")
    assert (found["get"], found["post"], found["put"]) == (200, 403, 405)


# -- the other permissions --------------------------------------------------------------------


def test_reading_and_writing_have_a_scope_each() -> None:
    view = made(permissions=[TokenHasReadWriteScope])
    safe = ("get", "head", "options")
    reading = {method: 200 if method in safe else 403 for method in METHODS}
    assert by_method(view, "read") == reading
    assert by_method(view, "write") == {m: 403 if m in safe else 200 for m in METHODS}
    assert by_method(view, "read write") == dict.fromkeys(METHODS, 200)


def test_their_names_and_more_may_be_said() -> None:
    named = {"read_scope": "see", "write_scope": ["change", "sign"]}
    view = made(permissions=[TokenHasReadWriteScope], **named)
    assert statuses(view, "see", "read", "change sign") == [200, 403, 403]
    assert statuses(view, "change sign", "change", "see", method="post") == [200, 403, 403]
    more = made(permissions=[TokenHasReadWriteScope], required_scopes=[["a"], ["b"]], **named)
    assert statuses(more, "see a", "see b", "see", "a b") == [200, 200, 403, 403]
    more = made(permissions=[TokenHasReadWriteScope], required_scopes="a b")
    assert statuses(more, "read a b", "read a", "a b") == [200, 403, 403]
    assert 'scope="read a b"' in challenge(more, "read")


def test_purposes_and_acr_are_asked_for() -> None:
    view = made(permissions=[TokenHasPurpose], required_purposes=["x", "y"])
    assert statuses(view, "", purpose="y x z") == [200]
    assert statuses(view, "x y", purpose="x") == [403]
    assert 'purpose="x y"' in challenge(view, "")
    view = made(permissions=[TokenHasAcr], required_acr="2")
    assert statuses(view, "", acr="3") == [200]
    assert statuses(view, "", acr="1") == [401]
    assert 'acr_values="2"' in challenge(view, "")


# -- how they compose -------------------------------------------------------------------------


class Yes(BasePermission):
    def has_object_permission(self, request: Any, view: Any, obj: Any) -> bool:
        return True


class No(BasePermission):
    message = "No is no."

    def has_permission(self, request: Any, view: Any) -> bool:
        return False


class NotThis(BasePermission):
    """Of objects only."""

    message = "Not this one."

    def has_object_permission(self, request: Any, view: Any, obj: Any) -> bool:
        return False


class OfObject(Ours):
    def get(self, request: Request, **_: Any) -> Response:
        self.check_object_permissions(request, object())
        return Response({})


COMPOSED = [
    # permissions, then the answers with the scope "a" and without it: None is no challenge
    ([TokenHasScope & Yes], 200, "a"),
    ([Yes & TokenHasScope], 200, "a"),
    ([TokenHasScope & No], None, "a"),
    ([No & TokenHasScope], None, None),
    ([TokenHasScope | Yes], 200, 200),
    ([Yes | TokenHasScope], 200, 200),
    ([TokenHasScope | No], 200, "a"),
    ([No | TokenHasScope], 200, "a"),
    ([~TokenHasScope], None, 200),
    ([~~TokenHasScope], 200, None),
    ([~TokenHasScope, No], None, None),
    ([~TokenHasScope & No], None, None),
    ([(TokenHasScope | Yes) & No], None, "a"),
    ([TokenHasScope | Yes, No], None, None),
    ([Yes, TokenHasScope], 200, "a"),
    ([TokenHasScope, TokenHasPurpose], "p", "a"),
    ([TokenHasScope | TokenHasPurpose], 200, "a"),
    ([TokenHasScope & (No | Yes)], 200, "a"),
    ([IsAuthenticated & TokenHasScope], 200, "a"),
]


@pytest.mark.parametrize("base", [Ours, OfObject], ids=["view", "object"])
@pytest.mark.parametrize(("permissions", "with_it", "without"), COMPOSED)
def test_they_compose(base: Any, permissions: Any, with_it: Any, without: Any) -> None:
    view = made(base=base, permissions=permissions, required_scopes="a", required_purposes="p")
    with standing(ROOT_URLCONF=view) as server:
        for scope, expected in (("a", with_it), ("b", without)):
            answer = knock("/", bearer(server, scope))
            if expected == 200:
                assert answer.status == 200
            elif expected is None:
                assert (answer.status, answer.told) == (403, {})
                assert answer.body.keys() == {"detail"}
            else:
                kind = "purpose" if expected == "p" else "scope"
                assert answer.status == 403
                assert f'{kind}="{expected}"' in answer.told["WWW-Authenticate"]
                assert answer.body["code"] == "insufficient_scope"
        assert knock("/").status in (200, 401)


@pytest.mark.parametrize(
    ("permissions", "with_it", "without"),
    [
        ([TokenHasScope & NotThis], None, "a"),
        ([TokenHasScope | NotThis], 200, "a"),
        ([NotThis | TokenHasScope], 200, "a"),
        ([~TokenHasScope | NotThis], None, 200),
        ([NotThis], None, None),
    ],
)
def test_they_compose_for_objects(permissions: Any, with_it: Any, without: Any) -> None:
    test_they_compose(OfObject, permissions, with_it, without)


def test_the_words_of_another_permission_are_kept() -> None:
    view = made(permissions=[TokenHasScope | Yes, No], required_scopes="a")
    with standing(ROOT_URLCONF=view) as server:
        assert knock("/", bearer(server, "b")).body == {"detail": "No is no."}


class Refusing(Ours):
    def get(self, request: Request, **_: Any) -> Response:
        raise self.raised


@pytest.mark.parametrize(
    ("raised", "status", "detail"),
    [
        (exceptions.PermissionDenied("Not today."), 403, "Not today."),
        (DjangoPermissionDenied("Not today."), 403, "Not today."),
        (Http404("Nowhere."), 404, "Nowhere."),
        (exceptions.NotFound("Nowhere."), 404, "Nowhere."),
        (exceptions.Throttled(7), 429, None),
        (exceptions.AuthenticationFailed("Wrong."), 401, "Wrong."),
    ],
)
def test_what_a_view_refuses_is_not_said_to_be_the_tokens_fault(
    raised: Exception, status: int, detail: str | None
) -> None:
    """Although a permission of ours has said no: another one had said yes."""
    view = made(
        base=Refusing, raised=raised, permissions=[TokenHasScope | Yes], required_scopes="a"
    )
    with standing(ROOT_URLCONF=view) as server:
        answer = knock("/", bearer(server, "b"))
        assert answer.status == status
        assert detail is None or answer.body == {"detail": detail}
        assert "insufficient_scope" not in answer.told.get("WWW-Authenticate", "")


def test_the_handler_leaves_what_is_no_answer_to_the_framework() -> None:
    assert exception_handler(ValueError(), {}) is None
    view = made(base=Refusing, raised=LookupError("defect"), permissions=[AllowAny])
    with standing(ROOT_URLCONF=view), pytest.raises(LookupError, match="defect"):
        knock("/")


def test_a_refusal_from_nowhere_is_the_frameworks() -> None:
    response = exception_handler(exceptions.PermissionDenied(), {"request": None, "view": None})
    assert response is not None
    assert response.status_code == 403
    assert not response.headers.get("WWW-Authenticate")


# -- other classes, before and after ----------------------------------------------------------


class Never(BaseAuthentication):
    """Has no challenge: what the framework turns a 401 into a 403 for."""

    def authenticate(self, request: Any) -> None:
        return None


class Always(BaseAuthentication):
    def authenticate(self, request: Any) -> Any:
        return User(username="eva"), "auth of its own"


@pytest.mark.parametrize("first", [SessionAuthentication, Never, BasicAuthentication])
@pytest.mark.parametrize("handler", [True, False])
def test_a_class_before_ours_makes_no_bare_403_of_a_bad_token(first: Any, handler: bool) -> None:
    classes = (first, IntrospectionAuthentication)
    base = Ours if handler else OnlyBare
    view = made(base=base, authentication_classes=classes, required_scopes="a")
    with standing(ROOT_URLCONF=view) as server:
        for header, status in (("Bearer nope", 401), ("Bearer", 400), ("Bearer a, Basic x", 400)):
            answer = knock("/", header)
            assert answer.status == status
            assert answer.told["WWW-Authenticate"].startswith('Bearer realm="api", error=')
        with server.fail("introspection"):
            answer = knock("/", bearer(server, "a"))
            assert answer.status == 503
            assert answer.told == {"Retry-After": "5", "Cache-Control": "no-store"}
        assert knock("/", bearer(server, "a")).status == 200


class OnlyBare(APIView):
    authentication_classes = (IntrospectionAuthentication,)
    permission_classes: Any = (TokenHasScope,)

    def get(self, request: Request) -> Response:
        return Response({"user": str(request.user)})


@pytest.mark.parametrize(
    ("classes", "status", "said"),
    [
        ([IntrospectionAuthentication], 401, 'Bearer realm="api"'),
        ([IntrospectionAuthentication, SessionAuthentication], 401, 'Bearer realm="api"'),
        ([SessionAuthentication, IntrospectionAuthentication], 401, 'Bearer realm="api"'),
        ([BasicAuthentication, IntrospectionAuthentication], 401, 'Basic realm="api"'),
        ([BasicAuthentication], 401, 'Basic realm="api"'),
        ([SessionAuthentication], 403, None),
        ([], 403, None),
    ],
)
def test_who_has_nothing_is_told_what_the_first_class_wants(
    classes: Any, status: int, said: str | None
) -> None:
    view = made(authentication_classes=classes, required_scopes="a")
    with standing(ROOT_URLCONF=view):
        answer = knock("/")
        assert (answer.status, answer.told.get("WWW-Authenticate")) == (status, said)
        assert answer.told.keys() <= {"WWW-Authenticate"}


def test_another_alias_is_that_of_a_subclass() -> None:
    class OfOther(IntrospectionAuthentication):
        using = "other"

    view = made(authentication_classes=[OfOther], required_scopes="a")
    with standing(ROOT_URLCONF=view) as server:
        other = FakeAuthserver(endpoint="https://other.test")
        both = {"default": server.settings(), "other": other.settings(REALM="other")}
        with other.in_memory(), override_settings(BAIKAL=both):
            assert knock("/").told["WWW-Authenticate"] == 'Bearer realm="other"'
            assert knock("/", bearer(server, "a")).status == 401
            assert knock("/", bearer(other, "a")).status == 200
            assert (
                'realm="other", error="insufficient_scope"'
                in knock("/", bearer(other, "b")).told["WWW-Authenticate"]
            )


def test_fresh_asks_for_each_request() -> None:
    class Fresh(IntrospectionAuthentication):
        fresh = True

    view = made(authentication_classes=[Fresh], required_scopes="read")
    with standing(ROOT_URLCONF=view) as server:
        header = bearer(server)
        for number in (1, 2, 3):
            assert knock("/", header).status == 200
            assert introspections(server) == number
        server.revoke_token(header.removeprefix("Bearer "))
        assert knock("/", header).status == 401


@pytest.mark.django_db
@pytest.mark.parametrize("permission", [TokenHasScope, TokenHasReadWriteScope])
def test_a_session_has_no_scopes(permission: Any, settings: Any) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
    classes = (IntrospectionAuthentication, SessionAuthentication)
    view = made(authentication_classes=classes, permissions=[permission], required_scopes="read")
    client = Client(enforce_csrf_checks=True)
    with standing([SESSION, CSRF, AUTHENTICATION], ROOT_URLCONF=view) as server:
        client.force_login(User.objects.create_superuser("eva"))
        answer = client.get("/")
        assert answer.status_code == 403
        assert "WWW-Authenticate" not in answer.headers
        sent = {"authorization": bearer(server)}
        assert client.get("/", headers=sent).json()["user"].startswith("TokenUser ")
        assert client.post("/").status_code == 403
        assert len(server.requests.to("introspection")) == 1


def test_the_auth_of_another_class_is_no_token() -> None:
    view = made(authentication_classes=[Always], required_scopes="")
    with standing(ROOT_URLCONF=view):
        answer = knock("/")
        assert (answer.status, answer.told) == (403, {})


# -- what a request knows, and what a test may force -------------------------------------------


def test_the_request_knows_the_principal_inside_and_outside() -> None:
    found: list[Any] = []

    def outside(get_response: Any) -> Any:
        def middleware(request: Any) -> Any:
            response = get_response(request)
            found.append((request.user, request.auth))
            return response

        return middleware

    class Looking(Ours):
        def get(self, request: Request, **_: Any) -> Response:
            assert request.auth is request.user.token  # type: ignore[union-attr]
            assert request._request.user is request.user
            return Response({})

    global _outside
    _outside = outside
    view = made(base=Looking, required_scopes="read")
    with standing([f"{__name__}.through"], ROOT_URLCONF=view) as server:
        assert knock("/", bearer(server)).status == 200
    [(user, token)] = found
    assert user.token is token


_outside: Any = None


def through(get_response: Any) -> Any:
    return _outside(get_response)


def test_a_user_of_the_projects_tests_may_be_forced() -> None:
    """As the framework's own client does it, with the principal of a token."""
    from django_baikal.authentication import authenticate

    view = made(required_scopes="read")
    with standing(ROOT_URLCONF=view) as server:
        user = authenticate(server.issue_token(sub="anna", scope="read"))
        client = APIClient()
        client.force_authenticate(user, user.token)
        assert client.get("/").status_code == 200
        client.force_authenticate(user)
        assert client.get("/").status_code == 200
        client.force_authenticate(User(username="eva"), user.token)
        assert client.get("/").status_code == 200
        client.force_authenticate(User(username="eva"))
        assert client.get("/").status_code == 403


def test_a_request_without_a_view_can_be_authenticated() -> None:
    with standing() as server:
        plain = RequestFactory().get("/", headers={"authorization": bearer(server)})
        request = Request(plain, authenticators=[IntrospectionAuthentication()])
        assert str(request.user).startswith("TokenUser ")
        plain = RequestFactory().get("/", headers={"authorization": "Bearer nope"})
        with pytest.raises(BearerError) as caught:
            assert Request(plain, authenticators=[IntrospectionAuthentication()]).user
        assert caught.value.get_codes() == {"detail": "invalid_token", "code": "invalid_token"}
        assert str(caught.value.detail["detail"]) == "The access token is invalid or has expired."


def test_a_page_in_html_says_the_same() -> None:
    """The browsable API asks the permissions once more, for its forms."""
    apps = ["django.contrib.contenttypes", "django.contrib.auth", "django_baikal", "rest_framework"]
    templates = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
    view = made(
        required_scopes={"GET": "read", "POST": "write", "PUT": "", "PATCH": "x", "DELETE": "admin"}
    )
    options = {"INSTALLED_APPS": apps, "TEMPLATES": templates, "STATIC_URL": "/static/"}
    with standing(ROOT_URLCONF=view, **options) as server:
        html = {"headers": {"accept": "text/html"}}
        answer = knock("/", bearer(server), **html)
        assert answer.status == 200
        assert b"TokenUser " in answer.content
        html = {"headers": {"accept": "text/html"}}
        answer = knock("/", bearer(server, "x"), **html)
        assert answer.status == 403
        assert 'scope="read"' in answer.told["WWW-Authenticate"]
        html = {"headers": {"accept": "text/html"}}
        assert knock("/", "Bearer nope", **html).status == 401
