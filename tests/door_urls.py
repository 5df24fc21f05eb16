"""The URLs of ``door_project``."""

from __future__ import annotations

import os
from typing import Any

from django.http import JsonResponse
from django.urls import path
from door_project import lags

from django_baikal.decorators import token_required


def view(request: Any) -> JsonResponse:
    user = getattr(request, "user", None)
    subject = None if user is None else user.token.subject
    return JsonResponse({"subject": subject, "pid": os.getpid()})


async def aview(request: Any) -> JsonResponse:
    return view(request)


async def lag(request: Any) -> JsonResponse:
    return JsonResponse({"lags": await lags(float(request.GET["seconds"]))})


urlpatterns = [
    path("", view),
    path("async", aview),
    path("protected", token_required(view)),
    path("async-protected", token_required(aview)),
    path("lag", lag),
]
