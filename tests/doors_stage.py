"""The doors for bearer tokens, each before the same views: their URLs, and how to knock at them."""

from __future__ import annotations

import importlib.util
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.http import HttpRequest, JsonResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View

from django_baikal.decorators import TokenRequiredMixin, token_required
from django_baikal.testing import FakeAuthserver

HAS_REST_FRAMEWORK = importlib.util.find_spec("rest_framework") is not None
needs_rest_framework = pytest.mark.skipif(
    not HAS_REST_FRAMEWORK, reason="djangorestframework is not installed"
)

HAS_NINJA = importlib.util.find_spec("ninja") is not None
needs_ninja = pytest.mark.skipif(not HAS_NINJA, reason="django-ninja is not installed")

SESSION = "django.contrib.sessions.middleware.SessionMiddleware"
CSRF = "django.middleware.csrf.CsrfViewMiddleware"
AUTHENTICATION = "django.contrib.auth.middleware.AuthenticationMiddleware"
LOGIN_REQUIRED = "django.contrib.auth.middleware.LoginRequiredMiddleware"
MESSAGES = "django.contrib.messages.middleware.MessageMiddleware"
OURS = "django_baikal.middleware.IntrospectionMiddleware"
BACKEND = "django_baikal.backends.IntrospectionBackend"

PHONE = "+34600000001"

#: Kinds of views: what they ask of a token.
KINDS: dict[str, dict[str, Any]] = {
    "any": {},
    "scopes": {"scopes": "write admin"},
    "any_of": {"any_of": ["write", "admin audit"]},
    "purposes": {"purposes": "fraud"},
    "acr": {"acr": "3"},
    "open": {"optional": True},
}


def seen(request: Any) -> dict[str, Any]:
    """Tell what a view finds."""
    user = getattr(request, "user", None)
    token = getattr(user, "baikal_token", None)
    return {
        "user": str(user),
        "authenticated": bool(getattr(user, "is_authenticated", False)),
        "scopes": None if token is None else sorted(token.scopes),
    }


def view(request: HttpRequest, **_: Any) -> JsonResponse:
    return JsonResponse(seen(request))


async def aview(request: HttpRequest, **_: Any) -> JsonResponse:
    return JsonResponse(seen(request))


class OfClass(View):
    def get(self, request: HttpRequest) -> JsonResponse:
        return JsonResponse(seen(request))

    post = get


class OfAsyncClass(View):
    async def get(self, request: HttpRequest) -> JsonResponse:
        return JsonResponse(seen(request))

    async def post(self, request: HttpRequest) -> JsonResponse:
        return JsonResponse(seen(request))


class Mixed(TokenRequiredMixin, OfClass):
    pass


class AsyncMixed(TokenRequiredMixin, OfAsyncClass):
    pass


def as_attributes(options: dict[str, Any]) -> dict[str, Any]:
    """Give the arguments of ``token_required`` as the mixin calls them."""
    return {f"required_{k}" if k != "optional" else k: v for k, v in options.items()}


def decorated(base: type, options: dict[str, Any]) -> Any:
    made = type("Decorated", (base,), {})
    return method_decorator(token_required(**options), name="dispatch")(made).as_view()


#: Doors that are decorators: from the options of a kind to a view.
DECORATORS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "function": lambda options: token_required(**options)(view),
    "async-function": lambda options: token_required(**options)(aview),
    "mixin": lambda options: Mixed.as_view(**as_attributes(options)),
    "async-mixin": lambda options: type("M", (AsyncMixed,), as_attributes(options)).as_view(),
    "dispatch": lambda options: decorated(OfClass, options),
    "async-dispatch": lambda options: decorated(OfAsyncClass, options),
}


def rest_framework_view(options: dict[str, Any], *, handler: bool, classes: Any = None) -> Any:
    from rest_framework.authentication import BasicAuthentication
    from rest_framework.permissions import AllowAny
    from rest_framework.response import Response
    from rest_framework.views import APIView

    from django_baikal.contrib import rest_framework as ours

    kinds = {"purposes": ours.TokenHasPurpose, "acr": ours.TokenHasAcr, "optional": AllowAny}
    name = next(iter(options), "")

    class OfFramework(APIView):
        authentication_classes = classes or [ours.IntrospectionAuthentication, BasicAuthentication]
        permission_classes = (kinds.get(name, ours.TokenHasScope),)
        required_scopes = options.get(
            "scopes", [each.split() for each in options.get("any_of", ())]
        )
        required_purposes = options.get("purposes")
        required_acr = options.get("acr")

        if handler:

            def get_exception_handler(self) -> Any:
                return ours.exception_handler

        def get(self, request: Any) -> Any:
            return Response(seen(request))

        post = get

    return OfFramework.as_view()


def ninja_api() -> Any:
    """Make an API of Django Ninja with an operation of each kind, sync and async."""
    from ninja import NinjaAPI

    from django_baikal.contrib.ninja import BaikalBearer

    def anybody(request: Any) -> str:
        return "anybody"

    def operation(request: Any) -> dict[str, Any]:
        return seen(request)

    async def aoperation(request: Any) -> dict[str, Any]:
        return seen(request)

    api = NinjaAPI(docs_url=None, openapi_url=None)
    for kind, options in KINDS.items():
        auth: list[Any] = [BaikalBearer(**{k: v for k, v in options.items() if k != "optional"})]
        if "optional" in options:
            auth.append(anybody)
        for at, view in (("ninja", operation), ("async-ninja", aoperation)):
            api.api_operation(["GET", "POST"], f"/{at}/{kind}", auth=auth)(view)
    return api


def session_first() -> list[Any]:
    """Give the framework's own default: whom the middleware let in goes through the first."""
    from rest_framework.authentication import BasicAuthentication, SessionAuthentication

    return [SessionAuthentication, BasicAuthentication]


urlpatterns = [path("open", view), path("async-open", aview)]
for _kind, _options in KINDS.items():
    urlpatterns += [
        path(f"{door}/{_kind}", made(_options), name=f"{door}-{_kind}")
        for door, made in DECORATORS.items()
    ]
    if HAS_REST_FRAMEWORK:
        urlpatterns += [
            path(f"framework/{_kind}", rest_framework_view(_options, handler=True)),
            path(f"bare-framework/{_kind}", rest_framework_view(_options, handler=False)),
            path(
                f"session-framework/{_kind}",
                rest_framework_view(_options, handler=True, classes=session_first()),
            ),
        ]


if HAS_NINJA:
    urlpatterns += [path("", ninja_api().urls)]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.content)

    @property
    def told(self) -> dict[str, str]:
        """The headers that say how a token was."""
        names = ("WWW-Authenticate", "Retry-After", "Cache-Control")
        return {name: self.headers[name] for name in names if name in self.headers}

    @property
    def vary(self) -> set[str]:
        return {name.strip() for name in self.headers.get("Vary", "").split(",")} - {""}


def _answer(response: Any) -> Answer:
    return Answer(response.status_code, dict(response.headers.items()), response.content)


def knock(
    url: str,
    header: str | None = None,
    *,
    asgi: bool = False,
    method: str = "get",
    client: dict[str, Any] | None = None,
    **options: Any,
) -> Answer:
    """Send one request, with CSRF checked, by WSGI or by ASGI."""
    of_client = {"enforce_csrf_checks": True, **(client or {})}
    if header is not None:
        options.setdefault("headers", {})["authorization"] = header
    if not asgi:
        return _answer(getattr(Client(**of_client), method)(url, **options))
    call = getattr(AsyncClient(**of_client), method)
    return _answer(async_to_sync(call)(url, **options))


@contextmanager
def standing(
    middleware: list[str] | None = None, entry: dict[str, Any] | None = None, **settings: Any
) -> Iterator[FakeAuthserver]:
    """Let the doors stand, with an authserver of their own in memory."""
    server = FakeAuthserver(endpoint=f"https://{uuid.uuid4()}.test")
    options = {"ROOT_URLCONF": "doors_stage", "MIDDLEWARE": middleware or [], **settings}
    with (
        server.in_memory(),
        override_settings(BAIKAL={"default": server.settings(**(entry or {}))}, **options),
    ):
        yield server


def guards(at: str) -> list[str]:
    """Give the middleware that a path needs to be behind a door at all."""
    return [OURS] if "open" in at.split("/")[1] or "session-" in at else []


def urls(*patterns: Any) -> ModuleType:
    """Make a module of URLs, for ROOT_URLCONF."""
    module = ModuleType(f"urls_{uuid.uuid4().hex}")
    module.urlpatterns = [*patterns]  # type: ignore[attr-defined]
    return module


def introspections(server: FakeAuthserver) -> int:
    return server.requests.count("introspection")
