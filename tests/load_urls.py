"""The views of ``load_project``: protected ones, which ask the database as well, and the keys."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.db import connection
from django.http import HttpResponse
from django.urls import include, path

from django_baikal.decorators import token_required


def query() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


@token_required("read")
def view(request: Any) -> HttpResponse:
    query()
    return HttpResponse(request.user.pk)


@token_required("read")
async def aview(request: Any) -> HttpResponse:
    await sync_to_async(query)()
    return HttpResponse(request.user.pk)


urlpatterns = [
    path("sync", view),
    path("async", aview),
    path("", include("django_baikal.urls")),
]
