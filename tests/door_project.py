"""A project behind the doors, for servers in processes of their own: settings, URLs and programs.

``DOOR_BAIKAL`` is its BAIKAL, as JSON. ``DOOR_WARM``, if it is set, is a token that the program
``wsgi`` asks about before its server forks.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import Any

SECRET_KEY = "only-for-the-tests-" + "x" * 40
ALLOWED_HOSTS = ["127.0.0.1", "testserver"]
USE_TZ = True
ROOT_URLCONF = "door_urls"
INSTALLED_APPS = ["django_baikal"]
MIDDLEWARE = ["django_baikal.middleware.IntrospectionMiddleware"]
DATABASES: dict[str, Any] = {}
BAIKAL = json.loads(os.environ.get("DOOR_BAIKAL", "{}"))


def wsgi() -> Any:
    from django.core.wsgi import get_wsgi_application
    from django.test import Client

    application = get_wsgi_application()
    if token := os.environ.get("DOOR_WARM"):
        answer = Client().get("/", headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 200, answer.content
    return application


async def lags(seconds: float, pause: float = 0.005) -> list[float]:
    """Measure how late the event loop comes back, again and again."""
    found, end = [], time.monotonic() + seconds
    while (begun := time.monotonic()) < end:
        await asyncio.sleep(pause)
        found.append(time.monotonic() - begun - pause)
    return sorted(found)
