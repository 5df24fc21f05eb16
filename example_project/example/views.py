"""The page: what is configured, what is published, and how the steps came out."""

from __future__ import annotations

import os
import secrets
import threading
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.views import View

from django_baikal import BaikalError, ConfigurationError, clients
from example import steps

VARIABLES = (
    ("BAIKAL_AUTHSERVER_ENDPOINT", "Who issues the tokens"),
    ("BAIKAL_CLIENT_ID", "Who this site is there"),
    ("BAIKAL_CLIENT_SECRET", "How it proves that"),
    ("BAIKAL_ISSUER", "Where others find our keys"),
    ("BAIKAL_PRIVATE_CERTS_PATH", "Where we keep them"),
)
_SECRET = "BAIKAL_CLIENT_SECRET"

#: One run at a time: whoever presses the button meanwhile sees how the other one is getting on.
_running = threading.Lock()


class PageView(View):
    """The page, and on POST another run of the steps."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show everything; nothing is asked of the authserver."""
        nonce = secrets.token_urlsafe(16)
        response = render(request, "example/page.html", {**_context(), "nonce": nonce})
        response.headers["Content-Security-Policy"] = (
            f"default-src 'none'; style-src 'nonce-{nonce}'; img-src data:; form-action 'self'; "
            "base-uri 'none'; frame-ancestors 'none'"
        )
        response.headers["Cache-Control"] = "no-store"
        return response

    def post(self, request: HttpRequest) -> HttpResponse:
        """Take the steps and show the page."""
        if _running.acquire(blocking=False):
            try:
                list(steps.begin())
            finally:
                _running.release()
        return HttpResponseRedirect(f"{request.path}#steps")


def _context() -> dict[str, Any]:
    run = steps.latest
    outcomes = list(run.outcomes) if run else []
    rows: list[dict[str, Any]] = [
        {"number": number, "step": step, "outcome": None}
        for number, step in enumerate(steps.STEPS, 1)
    ]
    for row, outcome in zip(rows, outcomes, strict=False):
        row["outcome"] = outcome
    return {
        "run": run,
        "rows": rows,
        "failed": bool(outcomes and outcomes[-1].problem),
        **_configuration(),
    }


def _configuration() -> dict[str, Any]:
    """Give each variable with its value, or whether it is set; the keys, or what is wrong."""
    found: dict[str, Any] = {"variables": [], "keys": [], "configured": True, "problem": ""}
    config = None
    try:
        config = clients["default"].config
        found |= {"issuer": config.issuer, "authserver": config.authserver_endpoint}
        found["keys"] = clients["default"].get_jwk_set(dump_json=False)["keys"]  # type: ignore[index]
    except ConfigurationError as error:
        found |= {"configured": False, "problem": str(error)}
    except BaikalError as error:
        found["problem"] = str(error)
    for name, meaning in VARIABLES:
        value = ""
        if config is not None and name != _SECRET:
            value = getattr(config, name.removeprefix("BAIKAL_").lower())
        elif os.environ.get(name):
            value = "set, and never shown"
        found["variables"].append({"name": name, "meaning": meaning, "value": value})
    return found
