"""The site of ``keys_project``: it publishes its keys, and asks for tokens with them."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from django_baikal import clients
from django_baikal.exceptions import BaikalError


def grant(_request: HttpRequest, alias: str) -> HttpResponse:
    """Answer with a token for a user, or with what went wrong."""
    try:
        token = clients[alias].grant_user("anna", ["read"], ["a-purpose"])
    except BaikalError as error:
        return HttpResponse(f"{type(error).__name__}: {error}", status=502)
    return HttpResponse(token)


urlpatterns = [path("", include("django_baikal.urls")), path("grant/<alias>", grant)]
