"""A site behind CorrelatorMiddleware, for servers in processes of their own; ``BAIKAL`` as JSON.

Its log lines go to the standard error output, the correlator first.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.urls import path

from django_baikal import clients
from django_baikal.correlation import current
from django_baikal.decorators import token_required

SECRET_KEY = "only-for-the-tests-" + "x" * 40
ALLOWED_HOSTS = ["127.0.0.1"]
USE_TZ = True
ROOT_URLCONF = "correlated_site"
INSTALLED_APPS = ["django_baikal"]
MIDDLEWARE = [
    "django_baikal.middleware.CorrelatorMiddleware",
    "django_baikal.middleware.IntrospectionMiddleware",
]
DATABASES: dict[str, Any] = {}
BAIKAL = json.loads(os.environ.get("SITE_BAIKAL", "{}"))
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"correlator": {"()": "django_baikal.correlation.CorrelatorFilter"}},
    "formatters": {"plain": {"format": "[%(correlator)s] %(name)s %(levelname)s %(message)s"}},
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "filters": ["correlator"],
            "formatter": "plain",
        }
    },
    "loggers": {
        name: {"handlers": ["console"], "level": "INFO", "propagate": False}
        for name in ("django_baikal", "django.request", "site")
    },
}

logger = logging.getLogger("site")


def seen(request: Any) -> dict[str, Any]:
    logger.info("seen at %s", request.path)
    return {
        "correlator": current(),
        "of_request": request.correlator,
        "thread": threading.current_thread() is threading.main_thread(),
    }


def view(request: HttpRequest) -> JsonResponse:
    found = seen(request)
    time.sleep(float(request.GET.get("seconds", 0)))
    clients["default"].introspect("T0ken")
    return JsonResponse({**found, "after": current()})


async def aview(request: HttpRequest) -> JsonResponse:
    found = seen(request)
    await asyncio.sleep(float(request.GET.get("seconds", 0)))
    await clients["default"].aintrospect("T0ken")
    return JsonResponse({**found, "after": current()})


def stream(request: HttpRequest) -> StreamingHttpResponse:
    def parts() -> Iterator[str]:
        for number in range(3):
            logger.info("part %d", number)
            clients["default"].introspect("T0ken")
            yield f"{current()} "

    return StreamingHttpResponse(parts())


async def astream(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        for number in range(3):
            logger.info("part %d", number)
            await clients["default"].aintrospect("T0ken")
            yield f"{current()} "

    return StreamingHttpResponse(parts())


def broken(request: HttpRequest) -> JsonResponse:
    raise ZeroDivisionError


urlpatterns = [
    path("", view),
    path("async", aview),
    path("stream", stream),
    path("async-stream", astream),
    path("broken", broken),
    path("protected", token_required(view)),
    path("async-protected", token_required(aview)),
]
