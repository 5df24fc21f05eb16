"""Views of Django's own, which do next to nothing."""

from __future__ import annotations

from django.http import HttpResponse, JsonResponse
from django.urls import path


def plain(request):  # noqa: ARG001 - Django's view
    """Answer."""
    return HttpResponse(b"{}", content_type="application/json")


def hello(request):
    """Say who asks: nobody, unless a middleware has found somebody."""
    return JsonResponse({"user": who(request)})


async def ahello(request):
    """Say the same as a coroutine."""
    return JsonResponse({"user": who(request)})


def who(request):
    """Name the kind of user."""
    user = getattr(request, "user", None)
    return type(user).__name__ if user is not None and user.is_authenticated else "nobody"


urlpatterns = [path("plain", plain), path("hello", hello), path("ahello", ahello)]
