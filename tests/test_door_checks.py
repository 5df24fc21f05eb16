"""What ``manage.py check`` says of the doors for bearer tokens."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.core.checks import run_checks
from django.test import override_settings
from django.urls import include, path
from test_checks import ENTRY

from django_baikal.backends import IntrospectionBackend
from django_baikal.middleware import IntrospectionMiddleware

OURS = "django_baikal.middleware.IntrospectionMiddleware"
CORRELATOR = "django_baikal.middleware.CorrelatorMiddleware"
SESSION = "django.contrib.sessions.middleware.SessionMiddleware"
AUTHENTICATION = "django.contrib.auth.middleware.AuthenticationMiddleware"
BACKEND = "django_baikal.backends.IntrospectionBackend"
MODEL_BACKEND = "django.contrib.auth.backends.ModelBackend"
LINKED = "django_baikal.contrib.identities.linked_user"
REDIS = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "x"}}

not_callable = "text"


def found(deploy: bool = False, entry: Any = None, **settings: Any) -> list[tuple[str, str]]:
    baikal = {"default": {**ENTRY, **(entry or {})}}
    with override_settings(BAIKAL=baikal, **settings):
        messages = run_checks(include_deployment_checks=deploy)
    return [
        (one.id.partition(".")[2], f"{one.msg} {one.hint or ''}".strip())
        for one in messages
        if str(one.id).startswith("django_baikal.")
    ]


def ids(*args: Any, **options: Any) -> list[str]:
    return [name for name, _ in found(*args, **options)]


def test_the_middleware_has_its_place_after_the_one_of_sessions() -> None:
    [(name, text)] = found(MIDDLEWARE=[SESSION, OURS, AUTHENTICATION])
    assert name == "E007"
    assert f"{OURS} must come after {AUTHENTICATION}" in text
    assert found(MIDDLEWARE=[SESSION, AUTHENTICATION, OURS]) == []
    assert found(MIDDLEWARE=[OURS]) == []
    assert found(MIDDLEWARE=[SESSION, AUTHENTICATION]) == []


class OfAnother(IntrospectionMiddleware):
    using = "default"


class OfTheProject(AuthenticationMiddleware):
    pass


def test_so_has_a_subclass_of_it_and_so_have_others_than_classes() -> None:
    of_another, of_the_project = f"{__name__}.OfAnother", f"{__name__}.OfTheProject"
    for ours in (OURS, of_another):
        for theirs in (AUTHENTICATION, of_the_project):
            [(name, text)] = found(MIDDLEWARE=[SESSION, ours, theirs])
            assert name == "E007"
            assert f"{ours} must come after {theirs}" in text
            assert found(MIDDLEWARE=[SESSION, theirs, ours]) == []
    assert found(MIDDLEWARE=["nowhere.At_all", f"{__name__}.found", OURS]) == []


def test_the_correlator_has_its_place_before_the_middleware() -> None:
    [(name, text)] = found(MIDDLEWARE=[OURS, SESSION, CORRELATOR])
    assert name == "W018"
    assert f"{CORRELATOR} is after {OURS}" in text
    assert found(MIDDLEWARE=[CORRELATOR, SESSION, OURS]) == []
    assert found(MIDDLEWARE=[CORRELATOR]) == []


@pytest.mark.parametrize(
    ("path_", "said"),
    [
        ("nowhere.at_all", "cannot be imported: "),
        ("test_door_checks.nothing", "cannot be imported: "),
        ("test_door_checks.not_callable", "'test_door_checks.not_callable', which cannot be call"),
    ],
)
@pytest.mark.parametrize("setting", ["USER_RESOLVER", "AUTHSERVER_RESOLVER"])
def test_a_resolver_that_cannot_be_used_is_an_error(setting: str, path_: str, said: str) -> None:
    [(name, text)] = found(entry={setting: path_})
    assert name == "E008"
    assert f"{setting} " in text
    assert said in text


def test_the_identities_need_their_app() -> None:
    assert found(entry={"USER_RESOLVER": LINKED}) == []
    apps = ["django.contrib.contenttypes", "django.contrib.auth", "django_baikal"]
    [(name, text)] = found(entry={"USER_RESOLVER": LINKED}, INSTALLED_APPS=apps)
    assert name == "E008"
    assert text.endswith("needs django_baikal.contrib.identities in INSTALLED_APPS.")


class OurBackend(IntrospectionBackend):
    pass


def test_permissions_of_django_users_need_the_backend() -> None:
    entry = {"USER_RESOLVER": LINKED, "SCOPE_PERMISSIONS": {"read": ["app.view_thing"]}}
    [(name, text)] = found(entry=entry)
    assert name == "W015"
    assert f"Add {BACKEND} to AUTHENTICATION_BACKENDS." in text
    for backend in (BACKEND, f"{__name__}.OurBackend"):
        assert found(entry=entry, AUTHENTICATION_BACKENDS=[backend]) == []
    assert ids(entry=entry, AUTHENTICATION_BACKENDS=[MODEL_BACKEND]) == ["W015"]
    assert found(entry={"SCOPE_PERMISSIONS": entry["SCOPE_PERMISSIONS"]}) == []


def test_an_audience_that_is_not_checked_is_visible() -> None:
    assert ids(entry={"AUDIENCES": ["*"]}) == ["W012"]
    assert ids(entry={"AUDIENCES": ["me"]}) == []


@pytest.mark.parametrize("backend", ["locmem.LocMemCache", "dummy.DummyCache"])
def test_a_cache_of_one_process_is_not_for_production(backend: str) -> None:
    caches = {"default": {"BACKEND": f"django.core.cache.backends.{backend}"}}
    [(name, text)] = found(deploy=True, CACHES=caches)
    assert name == "W013"
    assert text.endswith("Let the alias name a cache server.")
    assert found(deploy=False, CACHES=caches) == []
    assert found(deploy=True, CACHES=REDIS) == []


def test_plain_http_is_not_for_production() -> None:
    entry = {"AUTHSERVER_ENDPOINT": "http://localhost:8000"}
    assert ids(deploy=True, entry=entry, CACHES=REDIS) == ["W014"]
    assert ids(deploy=False, entry=entry) == []
    assert ids(deploy=True, entry={**entry, "ALLOW_HTTP": True}, CACHES=REDIS) == ["W011"]


def test_a_wrong_entry_is_said_once() -> None:
    assert ids(deploy=True, entry={"AUDIENCES": []}, CACHES=REDIS) == ["E001"]


# Django REST framework.


class Project:
    """A project with Django REST framework; ``views`` are all that it has."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from rest_framework.authentication import SessionAuthentication
        from rest_framework.permissions import IsAuthenticated

        from django_baikal.contrib import rest_framework

        self.ours = rest_framework
        self.session, self.logged_in = SessionAuthentication, IsAuthenticated
        self.views: list[Any] = []
        self.monkeypatch = monkeypatch

    def make(self, name: str, **body: Any) -> None:
        from rest_framework.views import APIView

        self.views.append(type(name, (APIView,), body))

    def check(self, **framework: Any) -> list[tuple[str, str]]:
        urls: Any = ModuleType("urls_of_the_checks")
        routes = [path(view.__name__, view.as_view()) for view in self.views]
        nested = path("more/", include((routes[1:], "more")))
        urls.urlpatterns = [*routes[:1], nested, path("plain", lambda _request: None)]
        self.monkeypatch.setitem(sys.modules, urls.__name__, urls)
        handler = f"{self.ours.__name__}.exception_handler"
        apps = ["contenttypes", "auth"]
        with override_settings(
            ROOT_URLCONF=urls.__name__,
            REST_FRAMEWORK={"EXCEPTION_HANDLER": handler, **framework},
            INSTALLED_APPS=[
                *(f"django.contrib.{name}" for name in apps),
                "rest_framework",
                "django_baikal",
            ],
        ):
            return found()


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch) -> Project:
    pytest.importorskip("rest_framework", reason="Django REST framework is not installed")
    return Project(monkeypatch)


def test_every_view_that_needs_scopes_says_them(project: Project) -> None:
    scope, logged_in = project.ours.TokenHasScope, project.logged_in
    project.make("Missing", permission_classes=[logged_in & (scope | ~scope)])
    project.make("Said", permission_classes=[scope], required_scopes="read")
    project.make("Purpose", permission_classes=[project.ours.TokenHasPurpose])
    project.make("Acr", permission_classes=[project.ours.TokenHasAcr])
    project.make("Other", permission_classes=[logged_in])
    messages = project.check()
    assert {name for name, _ in messages} == {"E009"}
    texts = {text for _, text in messages}
    assert texts == {
        "test_door_checks.Missing has the permission TokenHasScope, and no required_scopes.",
        "test_door_checks.Purpose has the permission TokenHasPurpose, and no required_purposes.",
        "test_door_checks.Acr has the permission TokenHasAcr, and no required_acr.",
    }


def test_ours_is_the_first_of_the_classes(project: Project) -> None:
    ours, session = project.ours.IntrospectionAuthentication, project.session
    project.make("Late", authentication_classes=[session, ours])
    project.make("First", authentication_classes=[ours, session])
    project.make("Without", authentication_classes=[session])
    [(name, text)] = project.check()
    assert name == "W016"
    assert text.startswith("Late: IntrospectionAuthentication is not the first")
    defaults = [f"{kind.__module__}.{kind.__name__}" for kind in (session, ours)]
    messages = project.check(DEFAULT_AUTHENTICATION_CLASSES=defaults)
    assert [name for name, _ in messages] == ["W016", "W016"]
    assert messages[0][1].startswith("REST_FRAMEWORK['DEFAULT_AUTHENTICATION_CLASSES']: ")


def test_the_handler_that_says_what_a_token_lacks_is_set(project: Project) -> None:
    default = "rest_framework.views.exception_handler"
    assert project.check(EXCEPTION_HANDLER=default) == []
    project.make("Ours", authentication_classes=[project.ours.IntrospectionAuthentication])
    [(name, text)] = project.check(EXCEPTION_HANDLER=default)
    assert name == "W017"
    assert "Set it to 'django_baikal.contrib.rest_framework.exception_handler'" in text
    assert project.check() == []


def test_urls_that_cannot_be_read_are_for_djangos_checks(project: Project) -> None:
    checks = import_module("django_baikal.contrib.rest_framework.checks")
    with override_settings(ROOT_URLCONF="nowhere.at_all"):
        assert checks._views() == []


def test_what_is_not_there_is_no_name_of_the_package(project: Project) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        getattr(project.ours, "Nothing")  # noqa: B009 - it is what "from ... import" does
