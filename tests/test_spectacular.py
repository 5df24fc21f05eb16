"""drf-spectacular: what a schema says of views with bearer tokens, and that it is true."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("drf_spectacular", reason="drf-spectacular is not installed")

from django.test import override_settings
from django.urls import include, path
from doors_stage import introspections, knock, standing, urls
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.settings import spectacular_settings
from drf_spectacular.utils import OpenApiResponse, extend_schema
from drf_spectacular.validation import validate_schema
from drf_spectacular.views import SpectacularJSONAPIView
from rest_framework.authentication import BasicAuthentication
from rest_framework.decorators import action
from rest_framework.permissions import AllowAny, IsAdminUser, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter
from rest_framework.serializers import CharField, Serializer
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet
from test_rest_framework import COMPOSED

from django_baikal.contrib import spectacular
from django_baikal.contrib.rest_framework import (
    IntrospectionAuthentication,
    TokenHasAcr,
    TokenHasPurpose,
    TokenHasReadWriteScope,
    TokenHasScope,
    exception_handler,
)
from django_baikal.testing import FakeAuthserver

WHERE = "/.well-known/openid-configuration"
ANY = [{"baikal": []}]


@pytest.fixture(autouse=True)
def _schema_class(settings: Any) -> None:
    settings.REST_FRAMEWORK = {"DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema"}


class Thing(Serializer[Any]):
    name = CharField()


class Base(APIView):
    authentication_classes: Any = (IntrospectionAuthentication,)
    permission_classes: Any = (TokenHasScope,)
    serializer_class = Thing
    schema = AutoSchema()

    def get_exception_handler(self) -> Any:
        return exception_handler

    def get(self, request: Request) -> Response:
        return Response({})


class Writing(Base):
    def post(self, request: Request) -> Response:
        return Response({})


def made(base: type = Base, **attributes: Any) -> Any:
    if "permissions" in attributes:
        attributes["permission_classes"] = attributes.pop("permissions")
    return type("Made", (base,), attributes).as_view()


def schema_of(*patterns: Any) -> dict[str, Any]:
    found: dict[str, Any] = SchemaGenerator(patterns=list(patterns)).get_schema(public=True)
    validate_schema(found)
    return found


def operation_of(view: Any, method: str = "get") -> dict[str, Any]:
    with standing():
        found: dict[str, Any] = schema_of(path("x", view))["paths"]["/x"][method]
        return found


# -- scopes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("a", [["a"]]),
        ("a b a", [["a", "b"]]),
        (["a", "b"], [["a", "b"]]),
        ([["a", "b"], ["c"]], [["a", "b"], ["c"]]),
        ([], [[]]),
        ({"GET": "a", "POST": "b"}, [["a"]]),
    ],
)
def test_scopes_are_those_that_the_view_requires(wanted: Any, expected: list[list[str]]) -> None:
    operation = operation_of(made(required_scopes=wanted))
    assert operation["security"] == [{"baikal": each} for each in expected]
    assert "description" not in operation


def test_reading_and_writing_have_a_scope_each() -> None:
    view = made(Writing, permissions=[TokenHasReadWriteScope], required_scopes=[["a"], ["b"]])
    assert operation_of(view)["security"] == [{"baikal": ["read", "a"]}, {"baikal": ["read", "b"]}]
    view = made(Writing, permissions=[TokenHasReadWriteScope])
    assert operation_of(view, "post")["security"] == [{"baikal": ["write"]}]


class Things(ViewSet):
    authentication_classes = (IntrospectionAuthentication,)
    permission_classes = (TokenHasScope,)
    serializer_class = Thing
    schema = AutoSchema()
    required_scopes = {  # noqa: RUF012
        "list": "list",
        "ship": [["ship"], ["admin"]],
        "GET": "read",
        "POST": "write",
    }

    def list(self, request: Request) -> Response:
        return Response([])

    def create(self, request: Request) -> Response:
        return Response({})

    @action(detail=False, methods=["post"])
    def ship(self, request: Request) -> Response:
        return Response({})

    @action(detail=False, methods=["get"], required_scopes="own")
    def named(self, request: Request) -> Response:
        return Response({})


def test_scopes_are_those_of_the_action() -> None:
    router = SimpleRouter()
    router.register("things", Things, basename="thing")
    with standing():
        paths = schema_of(path("", include(router.urls)))["paths"]
    found = {
        (at, method): [scopes for each in operation["security"] for scopes in each.values()]
        for at, methods in paths.items()
        for method, operation in methods.items()
    }
    assert found == {
        ("/things/", "get"): [["list"]],
        ("/things/", "post"): [["write"]],
        ("/things/ship/", "post"): [["ship"], ["admin"]],
        ("/things/named/", "get"): [["own"]],
    }


@pytest.mark.parametrize(
    ("permissions", "expected"),
    [
        ([TokenHasScope & IsAdminUser], [["a"]]),
        ([TokenHasScope | IsAdminUser], [["a"], []]),
        ([TokenHasScope | TokenHasReadWriteScope], [["a"], ["read", "a"]]),
        ([TokenHasScope | TokenHasScope], [["a"]]),
        ([(TokenHasScope | IsAdminUser) & TokenHasReadWriteScope], [["a", "read"], ["read", "a"]]),
        ([TokenHasScope, TokenHasReadWriteScope], [["a", "read"]]),
        ([~TokenHasScope], [[]]),
        ([IsAuthenticated], [[]]),
        ([IsAuthenticated & TokenHasScope], [["a"]]),
    ],
)
def test_composed_permissions_say_what_can_be_said(permissions: Any, expected: Any) -> None:
    operation = operation_of(made(permissions=permissions, required_scopes="a"))
    assert operation["security"] == [{"baikal": each} for each in expected]


@pytest.mark.parametrize(("permissions", "_with", "_without"), COMPOSED)
def test_every_composition_has_a_schema(permissions: Any, _with: Any, _without: Any) -> None:
    view = made(permissions=permissions, required_scopes="a", required_purposes="p")
    assert {"400", "401", "503"} <= operation_of(view)["responses"].keys()


def test_a_view_that_says_nothing_is_warned_about_and_no_error(capsys: Any) -> None:
    assert operation_of(made())["security"] == ANY
    assert "Made needs required_scopes, for its permissions." in capsys.readouterr().err


def test_purposes_and_acr_are_in_the_description() -> None:
    class Described(Base):
        @extend_schema(description="Hello.")
        def get(self, request: Request) -> Response:
            return Response({})

    strong = TokenHasScope & TokenHasPurpose & TokenHasAcr
    options = {"required_scopes": "a b", "required_purposes": ["p", "q"], "required_acr": "3"}
    view = made(Described, permissions=[strong | IsAdminUser], **options)
    assert operation_of(view)["description"] == (
        "Hello.\n\nA token with the scopes `a`, `b` needs the purposes `p`, `q` and an "
        "authentication of the user that reaches acr `3`."
    )
    view = made(permissions=[TokenHasPurpose], required_purposes="p")
    assert operation_of(view)["description"] == "A token needs the purposes `p`."


# -- answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("permissions", "statuses", "security"),
    [
        ([TokenHasScope], ["400", "401", "403", "503"], [{"baikal": ["a"]}]),
        ([IsAdminUser], ["400", "401", "403", "503"], ANY),
        ([~IsAuthenticated], ["400", "401", "403", "503"], ANY),
        ([TokenHasScope | AllowAny], ["400", "401", "403", "503"], [{"baikal": ["a"]}, *ANY]),
        ([IsAuthenticated], ["400", "401", "503"], ANY),
        # Who sends a bad token is refused here, too.
        ([AllowAny], ["400", "401", "503"], [*ANY, {}]),
        ([], ["400", "401", "503"], ANY),
    ],
)
def test_each_operation_with_a_token_has_the_answers(
    permissions: Any, statuses: list[str], security: Any
) -> None:
    operation = operation_of(made(permissions=permissions, required_scopes="a"))
    assert operation["responses"].keys() == {"200", *statuses}
    assert operation["security"] == security


def test_the_answers_are_what_is_answered() -> None:
    with standing(ROOT_URLCONF=urls(path("x", made(required_scopes="a")))) as server:
        components = schema_of(path("x", made(required_scopes="a")))["components"]
        weak = f"Bearer {server.issue_token(sub='anna', scope='b')}"
        for header, status in (("Bearer", 400), (None, 401), ("Bearer nope", 401), (weak, 403)):
            assert_is_as_described(knock("/x", header), status, components)
        with server.fail("introspection"):
            header = f"Bearer {server.issue_token(sub='anna', scope='a')}"
            assert_is_as_described(knock("/x", header), 503, components)


def assert_is_as_described(answer: Any, status: int, components: dict[str, Any]) -> None:
    assert answer.status == status
    described = components["responses"][spectacular.ANSWERS[str(status)][0]]
    assert described["headers"].keys() == answer.told.keys() - {"Cache-Control"}
    body = components["schemas"]["BearerError"]
    assert answer.body.keys() == body["properties"].keys()
    assert [type(each) for each in answer.body.values()] == [str, str]


def test_what_a_view_declares_is_kept() -> None:
    class Declared(Base):
        @extend_schema(
            responses={
                200: Thing,
                401: OpenApiResponse(Thing, description="Own."),
                503: OpenApiResponse(description="Own."),
            }
        )
        def get(self, request: Request) -> Response:
            return Response({})

    responses = operation_of(made(Declared, required_scopes="a"))["responses"]
    assert responses["401"]["description"] == responses["503"]["description"] == "Own."
    assert responses["403"] == {"$ref": "#/components/responses/BearerForbidden"}


def test_a_schema_whose_views_declare_all_has_nothing_added() -> None:
    class Declared(Base):
        @extend_schema(responses=dict.fromkeys((200, 400, 401, 403, 503), Thing))
        def get(self, request: Request) -> Response:
            return Response({})

    with standing():
        components = schema_of(path("x", made(Declared, required_scopes="a")))["components"]
    assert components.keys() == {"schemas", "securitySchemes"}
    assert components["schemas"].keys() == {"Thing"}


def test_views_of_others_are_left_alone() -> None:
    other = made(authentication_classes=[BasicAuthentication], permissions=[IsAuthenticated])
    with standing():
        paths = schema_of(path("a", made(required_scopes="a")), path("b", other))["paths"]
    assert paths["/b"]["get"]["responses"].keys() == {"200"}
    assert paths["/b"]["get"]["security"] == [{"basicAuth": []}]
    assert "403" in paths["/a"]["get"]["responses"]


def test_another_class_beside_ours_is_an_alternative() -> None:
    classes = [IntrospectionAuthentication, BasicAuthentication]
    operation = operation_of(made(authentication_classes=classes, required_scopes="a"))
    assert operation["security"] == [{"baikal": ["a"]}, {"basicAuth": []}]
    assert "503" in operation["responses"]


# -- the scheme -------------------------------------------------------------------------------


def test_each_alias_has_a_scheme_with_its_own_authserver(capsys: Any) -> None:
    class Fresh(IntrospectionAuthentication):
        fresh = True

    class European(IntrospectionAuthentication):
        using = "eu west"

    with standing() as server:
        other = {**server.settings(), "AUTHSERVER_ENDPOINT": "https://other.test/tenant/"}
        views = [
            made(authentication_classes=[each], required_scopes="a")
            for each in (IntrospectionAuthentication, Fresh, European)
        ]
        patterns = [path(f"x{number}", view) for number, view in enumerate(views)]
        with override_settings(BAIKAL={"default": server.settings(), "eu west": other}):
            schema = schema_of(*patterns)
        assert introspections(server) == server.requests.count("discovery") == 0
    names = [next(iter(schema["paths"][f"/x{n}"]["get"]["security"][0])) for n in range(3)]
    assert names == ["baikal", "baikal", "baikal_eu_west"]
    schemes = schema["components"]["securitySchemes"]
    assert {name: each["openIdConnectUrl"] for name, each in schemes.items()} == {
        "baikal": server.endpoint + WHERE,
        "baikal_eu_west": f"https://other.test/tenant{WHERE}",
    }
    assert {each["type"] for each in schemes.values()} == {"openIdConnect"}
    # Two classes with one scheme are no collision.
    assert capsys.readouterr().err == ""


def test_the_metadata_is_where_the_scheme_says() -> None:
    with FakeAuthserver().serve() as server:
        import requests

        with override_settings(BAIKAL={"default": server.settings()}):
            schema = schema_of(path("x", made(required_scopes="a")))
        url = schema["components"]["securitySchemes"]["baikal"]["openIdConnectUrl"]
        assert requests.get(url, timeout=60).json()["token_endpoint"]


def test_a_schema_with_settings_of_its_own_is_complete_too() -> None:
    view = SpectacularJSONAPIView.as_view(
        authentication_classes=[],
        permission_classes=[],
        urlconf=urls(path("x", made(required_scopes="a"))),
        custom_settings={"POSTPROCESSING_HOOKS": [], "TITLE": "Own"},
    )
    with standing(ROOT_URLCONF=urls(path("schema", view))):
        for _ in range(2):
            found = json.loads(knock("/schema").content)
            assert found["info"]["title"] == "Own"
            assert "503" in found["paths"]["/x"]["get"]["responses"]
    assert spectacular_settings.POSTPROCESSING_HOOKS.count(spectacular.complete) <= 1


# -- how it is registered ---------------------------------------------------------------------

PROJECT = """
import sys
from django.conf import settings
package = "django_baikal.contrib.rest_framework"
settings.configure(
    SECRET_KEY="x" * 50,
    ROOT_URLCONF="project",
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", *sys.argv[1:]],
    REST_FRAMEWORK={
        "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
        "DEFAULT_AUTHENTICATION_CLASSES": [f"{package}.IntrospectionAuthentication"],
        "DEFAULT_PERMISSION_CLASSES": [f"{package}.TokenHasScope"],
        "DEFAULT_THROTTLE_CLASSES": [f"{package}.TokenClientRateThrottle"],
        "EXCEPTION_HANDLER": f"{package}.exception_handler",
    },
    BAIKAL={
        "default": {
            "AUTHSERVER_ENDPOINT": "https://auth.example.com",
            "CLIENT_ID": "client",
            "CLIENT_SECRET": "secret",
        }
    },
)
import django
django.setup()
loaded = [name for name in ("rest_framework", "drf_spectacular", "ninja") if name in sys.modules]
print("loaded:", *loaded)
"""
GENERATION = """
from types import ModuleType
from django.urls import path
from rest_framework.response import Response
from rest_framework.serializers import CharField, Serializer
from rest_framework.views import APIView
class Thing(Serializer):
    name = CharField()
class View(APIView):
    required_scopes = "a"
    serializer_class = Thing
    def get(self, request):
        return Response({})
sys.modules["project"] = ModuleType("project")
sys.modules["project"].urlpatterns = [path("x", View.as_view())]
from django.core.management import call_command
call_command("spectacular", "--validate", "--fail-on-warn")
"""


def project(*apps: str, program: str = "") -> str:
    environment = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROJECT + program, *apps],
        cwd=Path(__file__).parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("backwards", [False, True])
def test_it_is_registered_by_itself(backwards: bool) -> None:
    apps = ["rest_framework", "drf_spectacular", "django_baikal"]
    said = project(*(reversed(apps) if backwards else apps), program=GENERATION)
    assert "openIdConnectUrl: https://auth.example.com/.well-known" in said
    assert "- baikal:\n        - a\n" in said
    assert "BearerUnavailable" in said


@pytest.mark.parametrize(
    ("apps", "loaded"),
    [
        (["django_baikal"], ""),
        (["django_baikal", "rest_framework"], " rest_framework"),
        (["django_baikal", "drf_spectacular"], " rest_framework drf_spectacular"),
    ],
)
def test_what_a_project_does_not_use_is_not_loaded(apps: list[str], loaded: str) -> None:
    before = set(project(*apps[1:]).removeprefix("loaded:").split())
    found = set(project(*apps).removeprefix("loaded:").split())
    assert found == before
    assert found <= set(loaded.split())
