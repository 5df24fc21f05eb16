"""Whom a token speaks for: stateless principals, Django users by USER_RESOLVER, the backend."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import re
import uuid
from pprint import pformat
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib import auth
from django.contrib.auth.context_processors import auth as auth_processor
from django.contrib.auth.decorators import login_required, permission_required, user_passes_test
from django.contrib.auth.models import AnonymousUser, Group, User
from django.contrib.sessions.backends.cache import SessionStore
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.template import Context, Template
from django.template.context_processors import request as request_processor
from django.test import RequestFactory, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import path
from doors_stage import (
    AUTHENTICATION,
    BACKEND,
    DECORATORS,
    OURS,
    PHONE,
    SESSION,
    aview,
    introspections,
    knock,
    needs_rest_framework,
    rest_framework_view,
    standing,
    urls,
    view,
)

from django_baikal import authentication
from django_baikal.backends import IntrospectionBackend
from django_baikal.contrib.identities.models import ExternalIdentity
from django_baikal.exceptions import (
    AuthserverUnavailable,
    ConfigurationError,
    InactiveToken,
    TokenError,
)
from django_baikal.principals import Principal, ServicePrincipal, TokenUser, principal_of
from django_baikal.protocol.bearer import TokenInfo
from django_baikal.testing import FakeAuthserver

MODEL_BACKEND = "django.contrib.auth.backends.ModelBackend"
PERMISSIONS = {"SCOPE_PERMISSIONS": {"read": ["app.view_x"], "write": ["app.add_x", "other.y"]}}

both_servers = pytest.mark.parametrize(
    "asgi", [pytest.param(False, id="wsgi"), pytest.param(True, id="asgi")]
)


def sync_authenticate(token: str, **options: Any) -> Any:
    return authentication.authenticate(token, **options)


def async_authenticate(token: str, **options: Any) -> Any:
    return async_to_sync(authentication.aauthenticate)(token, **options)


both_ways = pytest.mark.parametrize("authenticate", [sync_authenticate, async_authenticate])


def bearer(server: FakeAuthserver, **claims: Any) -> str:
    return f"Bearer {server.issue_token(**{'sub': 'anna', 'scope': 'read', **claims})}"


def info(issuer: str = "https://a.test", **claims: Any) -> TokenInfo:
    return TokenInfo("default", issuer, {"active": True, "client_id": "client", **claims})


def principal(**claims: Any) -> Principal:
    return principal_of(info(**claims))


# -- who it is --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "kind"),
    [
        ({"sub": "anna"}, TokenUser),
        ({"sub": "anna", "username": "client"}, TokenUser),
        ({"username": "anna"}, TokenUser),
        ({"sub": "client", "username": "anna"}, TokenUser),
        ({"sub": "client"}, ServicePrincipal),
        ({}, ServicePrincipal),
        ({"sub": None}, ServicePrincipal),
        ({"username": ""}, ServicePrincipal),
    ],
)
def test_a_token_is_a_users_or_a_clients(claims: Any, kind: type) -> None:
    said = {name: value for name, value in claims.items() if value is not None}
    found = principal(**said)
    assert type(found) is kind
    assert re.fullmatch("[0-9a-f]{32}", found.pk)
    assert found.pk == found.id == found.username == found.get_username()
    assert found.is_active is found.is_authenticated is True
    assert found.is_staff is found.is_superuser is found.is_anonymous is False
    assert found.token is found.baikal_token


def test_the_key_is_that_of_the_subject_at_the_issuer_and_of_nothing_else() -> None:
    anna = principal(sub="anna", scope="a", exp=5, jti="1", username="x", aud=["a"])
    assert anna == principal(sub="anna", scope="b", exp=9, jti="2", username="y")
    assert hash(anna) == hash(principal(sub="anna"))
    others = [
        principal(sub="Anna"),
        principal(sub="anna "),
        principal(username="anna"),
        principal(issuer="https://b.test", sub="anna"),
        principal(client_id="anna"),
        principal(),
        principal(client_id="other"),
    ]
    assert len({anna.pk, *(each.pk for each in others)}) == 8
    assert anna not in others
    assert {anna: 1}[principal(sub="anna")] == 1
    assert anna != anna.pk
    assert anna != AnonymousUser()


@pytest.mark.parametrize("claims", [{"sub": f"tel:{PHONE}"}, {"username": PHONE}, {"sub": PHONE}])
def test_nothing_that_is_shown_of_it_is_a_phone_number(claims: Any) -> None:
    found = principal(uid=PHONE, phone_number=PHONE, **claims)
    shown = [f"{found}", f"{found!r}", str(found), pformat(found), pformat(vars(found))]
    shown += [found.pk, found.username, f"{found.token!r}", pformat(found.token), f"{[found]}"]
    assert "600000001" not in " ".join(shown)
    assert "TokenUser" in str(found) and found.pk in str(found)


@pytest.mark.parametrize(
    "leave", [copy.copy, copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))]
)
def test_it_can_be_copied_and_pickled(leave: Any) -> None:
    found = principal(sub="anna", scope="read", nested={"a": [1]})
    other = leave(found)
    assert other is not found
    assert (type(other), other, other.token) == (TokenUser, found, found.token)


# -- what it may do ---------------------------------------------------------------------------


def check_permissions(user: Any) -> None:
    assert user.get_all_permissions() == user.get_user_permissions() == {"app.view_x"}
    assert user.get_group_permissions() == set()
    assert user.has_perm("app.view_x")
    assert not user.has_perm("app.add_x")
    assert user.has_perms(["app.view_x"])
    assert not user.has_perms(["app.view_x", "app.add_x"])
    assert user.has_module_perms("app")
    assert not user.has_module_perms("ap")
    assert not user.has_module_perms("other")
    assert not user.has_perm("app.view_x", object())
    assert user.get_all_permissions(object()) == set()


async def acheck_permissions(user: Any) -> None:
    assert await user.aget_all_permissions() == await user.aget_user_permissions() == {"app.view_x"}
    assert await user.aget_group_permissions() == set()
    assert await user.ahas_perm("app.view_x")
    assert not await user.ahas_perm("app.add_x")
    assert await user.ahas_perms(["app.view_x"])
    assert not await user.ahas_perms(["app.view_x", "app.add_x"])
    assert await user.ahas_module_perms("app")
    assert not await user.ahas_module_perms("other")
    assert not await user.ahas_perm("app.view_x", object())


@pytest.mark.django_db
@both_ways
def test_scopes_give_permissions(authenticate: Any) -> None:
    with standing(entry=PERMISSIONS) as server:
        token = server.issue_token(sub="anna", scope="read unknown")
        with CaptureQueriesContext(connection) as queries:
            user = authenticate(token)
            check_permissions(user)
            asyncio.run(acheck_permissions(user))
            assert not user.groups.all() and not user.user_permissions.filter(codename="x")
            assert user.groups.count() == 0
    assert len(queries) == 0


def test_a_string_is_no_list_of_permissions() -> None:
    with standing(entry=PERMISSIONS), pytest.raises(ValueError, match="iterable"):
        principal(sub="anna").has_perms("app.view_x")


def test_without_a_map_scopes_give_nothing() -> None:
    with standing():
        user = principal(sub="anna", scope="read app.view_x")
        assert user.get_all_permissions() == set()
        assert not user.has_perm("app.view_x")


@both_servers
def test_the_decorators_of_django_go_by_them(asgi: bool) -> None:
    may = permission_required("app.view_x", raise_exception=True)
    may_not = permission_required("app.add_x", raise_exception=True)
    staff = user_passes_test(lambda user: user.is_staff)
    patterns = [
        path(f"{kind}{name}", decorator(plain))
        for kind, plain in (("s-", view), ("a-", aview))
        for name, decorator in {
            "login": login_required,
            "may": may,
            "may-not": may_not,
            "staff": staff,
        }.items()
    ]
    middleware = [SESSION, AUTHENTICATION, OURS]
    engine = "django.contrib.sessions.backends.cache"
    options = {"ROOT_URLCONF": urls(*patterns), "SESSION_ENGINE": engine}
    with standing(middleware, PERMISSIONS, **options) as server:
        header = bearer(server)
        for kind in ("s-", "a-"):
            found = [
                knock(f"/{kind}{name}", header, asgi=asgi).status
                for name in ("login", "may", "may-not", "staff")
            ]
            assert found == [200, 200, 403, 302]


@pytest.mark.django_db
def test_a_template_shows_neither_name_nor_number() -> None:
    text = "{{ user }}|{{ user.username }}|{% if user.is_authenticated %}in{% endif %}|"
    text += "{% if perms.app.view_x %}view{% endif %}|{% if perms.app.add_x %}add{% endif %}|"
    text += "{% if perms.app %}app{% endif %}|{% if 'app.view_x' in perms %}has{% endif %}|"
    text += "{{ user.email }}{{ user.first_name }}|{{ user.groups.count }}|{{ perms }}"

    def page(request: HttpRequest) -> HttpResponse:
        context = Context({**auth_processor(request), **request_processor(request)})
        return HttpResponse(Template(text).render(context))

    templates = [{"BACKEND": "django.template.backends.django.DjangoTemplates"}]
    options = {"ROOT_URLCONF": urls(path("", page)), "TEMPLATES": templates}
    with standing([OURS], PERMISSIONS, **options) as server:
        token = bearer(server, sub=PHONE, username="admin")
        with CaptureQueriesContext(connection) as queries:
            shown = knock("/", token).content.decode()
    user, name, *rest = shown.split("|")
    assert user == f"TokenUser {name}"
    assert rest[:-1] == ["in", "view", "", "app", "has", "", "0"]
    assert PHONE not in shown and "600000001" not in shown
    assert "admin" not in shown
    assert len(queries) == 0


@pytest.mark.parametrize(
    "name",
    [
        "save",
        "delete",
        "asave",
        "adelete",
        "set_password",
        "check_password",
        "acheck_password",
        "get_session_auth_hash",
    ],
)
def test_it_has_no_row_and_says_so(name: str) -> None:
    with pytest.raises(NotImplementedError, match="ServicePrincipal has no row in the database"):
        getattr(principal(), name)("secret")


def test_it_is_not_logged_in() -> None:
    request = RequestFactory().get("/")
    request.session = SessionStore()
    with pytest.raises(NotImplementedError, match="no row"):
        auth.login(request, principal(sub="anna"), MODEL_BACKEND)


@pytest.mark.django_db
def test_its_key_is_good_to_own_rows_by() -> None:
    user = User.objects.create_user("eva")
    anna, berta = principal(sub="anna"), principal(sub="berta")
    ExternalIdentity.objects.create(identity=anna.pk, issuer="x", user=user)
    assert ExternalIdentity.objects.filter(identity=anna.pk).count() == 1
    assert ExternalIdentity.objects.filter(identity=berta.pk).count() == 0
    assert ExternalIdentity.objects.filter(identity=principal().pk).count() == 0


@needs_rest_framework
def test_each_principal_has_its_own_bucket_of_requests() -> None:
    from rest_framework.throttling import UserRateThrottle

    class Twice(UserRateThrottle):
        rate = "2/day"
        scope = uuid.uuid4().hex

    made = rest_framework_view({"optional": True}, handler=True)
    made.cls.throttle_classes = [Twice]
    with standing(ROOT_URLCONF=urls(path("", made))) as server:
        for claims in ({}, {"sub": "berta"}, {"sub": None}, {"sub": None, "username": "x"}):
            answers = [knock("/", bearer(server, **claims)).status for _ in range(3)]
            assert answers == [200, 200, 429]


# -- names are no identities ------------------------------------------------------------------


@pytest.fixture
def admin() -> User:
    return User.objects.create_superuser("admin", email="admin@example.com", password="x")


NAMES = {
    "username": {"username": "admin"},
    "sub": {"sub": "admin"},
    "sub-is-an-email": {"sub": "admin@example.com"},
    "all-of-them": {
        "sub": "admin",
        "username": "admin",
        "preferred_username": "admin",
        "email": "admin@example.com",
        "email_verified": True,
        "is_superuser": True,
        "groups": ["admin"],
    },
    "sub-is-a-key": {"sub": "1", "user_id": 1},
}


@pytest.mark.django_db
@both_servers
@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize(
    "door",
    ["open", *DECORATORS, pytest.param("framework", marks=needs_rest_framework)],
)
def test_a_reply_that_names_a_django_user_does_not_become_that_user(
    asgi: bool, door: str, names: str, admin: User
) -> None:
    at, middleware = ("/open", [OURS]) if door == "open" else (f"/{door}/any", [])
    with standing(middleware, PERMISSIONS) as server:
        header = bearer(server, **{"sub": None, **NAMES[names]})
        with CaptureQueriesContext(connection) as queries:
            answer = knock(at, header, asgi=asgi)
        assert answer.body["user"].startswith("TokenUser ")
        assert "admin" not in answer.content.decode()
    assert len(queries) == 0
    assert list(User.objects.values_list("username", flat=True)) == ["admin"]


@pytest.mark.django_db
@pytest.mark.parametrize("names", NAMES)
def test_the_backend_makes_no_user_of_a_name(names: str, admin: User, settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = [BACKEND, MODEL_BACKEND]
    with standing() as server:
        token = server.issue_token(**{"sub": None, **NAMES[names]})
        for found in (
            auth.authenticate(None, token=token),
            async_to_sync(auth.aauthenticate)(None, token=token),
        ):
            assert type(found) is TokenUser
            assert not found.is_superuser and not found.is_staff
            assert found.pk != admin.pk
    assert User.objects.count() == 1


LINKED = {"USER_RESOLVER": "django_baikal.contrib.identities.linked_user"}


@pytest.mark.django_db
@pytest.mark.parametrize("names", NAMES)
@both_ways
def test_a_name_is_no_link_to_a_django_user(authenticate: Any, names: str, admin: User) -> None:
    with standing(entry=LINKED) as server:
        token = server.issue_token(**{"sub": None, **NAMES[names]})
        if names == "username":  # without a subject there is nothing to link
            assert type(authenticate(token)) is TokenUser
        else:
            with pytest.raises(TokenError, match="not known here"):
                authenticate(token)
        ExternalIdentity.objects.link(admin, "her-subject")
        found = authenticate(server.issue_token(sub="her-subject", username="nobody"))
        assert found == admin
        with pytest.raises(TokenError):
            authenticate(server.issue_token(sub="her-subject2"))


# -- USER_RESOLVER ----------------------------------------------------------------------------


class Person:
    """A user of no database; shared by all who ask."""

    is_active = True
    is_authenticated = True

    def __init__(self, name: str = "Anna") -> None:
        self.name = name

    def __str__(self) -> str:
        return self.name


SHARED = Person()
asked: list[TokenInfo] = []


def by_function(token: TokenInfo) -> Any:
    asked.append(token)
    return SHARED


async def by_coroutine(token: TokenInfo) -> Any:
    await asyncio.sleep(0)
    asked.append(token)
    return SHARED


def nobody(token: TokenInfo) -> Any:
    return None


async def anobody(token: TokenInfo) -> Any:
    return None


def deactivated(token: TokenInfo) -> Any:
    return User(username="eva", is_active=False)


async def adeactivated(token: TokenInfo) -> Any:
    return User(username="eva", is_active=False)


def refuses(token: TokenInfo) -> Any:
    raise TokenError("Not on Sundays.")


async def arefuses(token: TokenInfo) -> Any:
    raise TokenError("Not on Sundays.")


def is_broken(token: TokenInfo) -> Any:
    raise LookupError("a defect of the project")


async def ais_broken(token: TokenInfo) -> Any:
    raise LookupError("a defect of the project")


def in_the_database(token: TokenInfo) -> Any:
    return User.objects.filter(username="eva").first()


async def ain_the_database(token: TokenInfo) -> Any:
    return await User.objects.filter(username="eva").afirst()


def resolving(name: str, **more: Any) -> dict[str, Any]:
    return {"USER_RESOLVER": f"{__name__}.{name}", **more}


every_door = pytest.mark.parametrize(
    "at",
    [
        "/open",
        "/async-open",
        *(f"/{door}/any" for door in DECORATORS),
        pytest.param("/framework/any", marks=needs_rest_framework),
    ],
)


@every_door
@both_servers
@pytest.mark.parametrize("name", ["by_function", "by_coroutine"])
def test_a_resolver_is_asked_once_for_each_request(asgi: bool, name: str, at: str) -> None:
    asked.clear()
    with standing([OURS], resolving(name)) as server:
        header = bearer(server, scope="a b")
        for number in (1, 2):
            answer = knock(at, header, asgi=asgi)
            assert answer.body == {"user": "Anna", "authenticated": True, "scopes": ["a", "b"]}
            assert len(asked) == number
    assert {(token.subject, token.issuer) for token in asked} == {("anna", server.endpoint)}


@every_door
@both_servers
@pytest.mark.parametrize(
    "name", ["nobody", "anobody", "deactivated", "adeactivated", "refuses", "arefuses"]
)
def test_whom_the_resolver_does_not_know_is_refused(asgi: bool, name: str, at: str) -> None:
    with standing([OURS] if "open" in at else [], resolving(name)) as server:
        answer = knock(at, bearer(server), asgi=asgi)
        assert answer.status == 401
        assert 'error="invalid_token"' in answer.told["WWW-Authenticate"]
        assert b"Sunday" not in answer.content and b"deactivated" not in answer.content


@both_servers
@pytest.mark.parametrize("name", ["is_broken", "ais_broken"])
@pytest.mark.parametrize("at", ["/open", "/function/any", "/async-function/any"])
def test_a_broken_resolver_is_the_projects_error(asgi: bool, name: str, at: str) -> None:
    middleware = [OURS] if "open" in at else []
    with standing(middleware, resolving(name)) as server, pytest.raises(LookupError):
        knock(at, bearer(server), asgi=asgi)


@both_ways
@pytest.mark.parametrize("name", ["by_function", "by_coroutine"])
@pytest.mark.parametrize(
    ("claims", "kind"),
    [
        ({}, ServicePrincipal),
        ({"sub": "test-client", "username": None}, ServicePrincipal),
        ({"sub": "test-client", "username": "anna"}, TokenUser),
        ({"username": "anna"}, TokenUser),
    ],
)
def test_without_a_subject_of_its_own_a_token_has_no_django_user(
    authenticate: Any, name: str, claims: Any, kind: type
) -> None:
    asked.clear()
    with standing(entry=resolving(name)) as server:
        found = authenticate(server.issue_token(**claims))
        assert type(found) is kind
    assert asked == []


@both_ways
@pytest.mark.parametrize("missing", ["no_module_of_this_name.f", "test_principals.no_such_thing"])
def test_a_resolver_that_is_not_there_is_a_configuration_error(
    authenticate: Any, missing: str
) -> None:
    with standing(entry={"USER_RESOLVER": missing}) as server:
        token = server.issue_token(sub="anna")
        with pytest.raises(ConfigurationError, match="USER_RESOLVER cannot be imported"):
            authenticate(token)


junk: list[Any] = [None]


def gives_junk(token: TokenInfo) -> Any:
    return junk[0]


@both_ways
@pytest.mark.parametrize("given", ["anna", True, 1, {}, []])
def test_what_is_no_user_is_a_configuration_error(authenticate: Any, given: Any) -> None:
    junk[0] = given
    with standing(entry=resolving("gives_junk")) as server:
        token = server.issue_token(sub="tel:+34600000001")
        said = rf"USER_RESOLVER must give .* and has given a {type(given).__name__}\.$"
        with pytest.raises(ConfigurationError, match=said):
            authenticate(token)


@both_ways
def test_what_a_resolver_shares_is_not_changed(authenticate: Any) -> None:
    """Two requests at once, one with more scopes: each has its own."""
    with standing(entry=resolving("by_function")) as server:
        more = authenticate(server.issue_token(sub="anna", scope="read write"))
        less = authenticate(server.issue_token(sub="anna", scope="read"))
        assert more is not less
        assert (more.baikal_token.scopes, less.baikal_token.scopes) == (
            {"read", "write"},
            {"read"},
        )
    assert not hasattr(SHARED, "baikal_token")


@pytest.mark.django_db
@every_door
@both_servers
@pytest.mark.parametrize("name", ["in_the_database", "ain_the_database"])
def test_a_django_user_costs_what_its_resolver_asks(asgi: bool, name: str, at: str) -> None:
    user = User.objects.create_user("eva")
    with standing([OURS], resolving(name)) as server:
        header = bearer(server)
        with CaptureQueriesContext(connection) as queries:
            assert knock(at, header, asgi=asgi).body["user"] == "eva"
        assert len(queries) == 1
        user.is_active = False
        user.save()
        assert knock(at, header, asgi=asgi).status == 401
        user.delete()
        assert knock(at, header, asgi=asgi).status == 401
        assert introspections(server) == 1


# -- the backend ------------------------------------------------------------------------------


def by_backend(**options: Any) -> Any:
    return IntrospectionBackend().authenticate(None, **options)


def by_abackend(**options: Any) -> Any:
    return async_to_sync(IntrospectionBackend().aauthenticate)(None, **options)


both_backends = pytest.mark.parametrize("ask", [by_backend, by_abackend])


@both_backends
def test_the_backend_takes_what_authenticate_takes(ask: Any) -> None:
    other = FakeAuthserver(endpoint=f"https://{uuid.uuid4()}.test")
    with standing() as server, other.in_memory():
        both = {"default": server.settings(), "other": other.settings()}
        with override_settings(BAIKAL=both):
            token = other.issue_token(sub="anna")
            assert ask(token=token) is None
            for number in (1, 2, 3):
                assert ask(token=token, using="other", fresh=True) == ask(
                    token=token, using="other"
                )
                assert introspections(other) == number
            with pytest.raises(ConfigurationError):
                ask(token=token, using="nowhere")
        with server.fail("introspection"), pytest.raises(AuthserverUnavailable):
            ask(token="new")


@both_backends
def test_the_backend_leaves_other_credentials_to_others(ask: Any) -> None:
    with standing() as server:
        assert ask(username="eva", password="x") is None
        assert ask() is None
        assert ask(token=None, something="else") is None
        for wrong in ("", "a b", 5, b"bytes", ["x"], "x" * 9000):
            assert ask(token=wrong) is None
        assert len(server.requests) == 0


@pytest.mark.django_db
def test_a_password_still_logs_in_beside_it(settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = [BACKEND, MODEL_BACKEND]
    user = User.objects.create_user("eva", password="x")
    with standing() as server:
        assert auth.authenticate(None, username="eva", password="x") == user
        assert async_to_sync(auth.aauthenticate)(None, username="eva", password="x") == user
        assert auth.authenticate(None, username="eva", password="y") is None
        assert len(server.requests) == 0


@pytest.mark.django_db
def test_the_backend_gives_the_user_of_a_session() -> None:
    backend = IntrospectionBackend()
    user = User.objects.create_user("eva")

    def found(pk: Any) -> Any:
        one, other = backend.get_user(pk), async_to_sync(backend.aget_user)(pk)
        assert one == other
        return one

    assert found(user.pk) == user
    for wrong in (user.pk + 1, None, "x", "admin", principal(sub="anna").pk, object()):
        assert found(wrong) is None
    User.objects.update(is_active=False)
    assert found(user.pk) is None


@pytest.mark.django_db
def test_a_django_user_may_do_what_its_token_says(settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = [BACKEND, MODEL_BACKEND]
    User.objects.create_user("eva")
    with standing(entry=resolving("in_the_database", **PERMISSIONS)) as server:
        user = sync_authenticate(server.issue_token(sub="x", scope="read unknown"))
        check_permissions(user)
        async_to_sync(acheck_permissions)(user)
        user.groups.add(Group.objects.create(name="g"))
        user.is_active = False
        assert user.get_all_permissions() == set()
        assert not user.has_perm("app.view_x") and not user.has_module_perms("app")
        assert IntrospectionBackend().get_user_permissions(user) == set()
        without = User.objects.get(username="eva")
        assert without.get_all_permissions() == set()
        assert not without.has_module_perms("app")
        assert IntrospectionBackend().get_user_permissions(AnonymousUser()) == set()


@pytest.mark.django_db
def test_a_session_by_the_backend_lasts_and_has_nothing_of_the_token(settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = [BACKEND]
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
    User.objects.create_user("eva")
    with standing(entry=resolving("in_the_database", **PERMISSIONS)) as server:
        request: Any = RequestFactory().get("/")
        request.session = SessionStore()
        token = server.issue_token(sub="x", scope="read")
        user = auth.authenticate(request, token=token)
        auth.login(request, user)  # type: ignore[arg-type]
        assert token not in json.dumps(dict(request.session.items()))
        later = auth.get_user(request)
        assert later == user
        assert later.get_all_permissions() == set()
        assert async_to_sync(auth.aget_user)(request) == user


@both_ways
def test_the_errors_of_the_engine_come_out(authenticate: Any) -> None:
    with standing() as server:
        with pytest.raises(InactiveToken):
            authenticate("nope")
        with server.fail("introspection"), pytest.raises(AuthserverUnavailable):
            authenticate("other")
