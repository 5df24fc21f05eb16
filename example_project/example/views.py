"""The page: what is configured, what is published, and how the steps came out."""

from __future__ import annotations

import os
import secrets
import threading
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views import View

from django_baikal import BaikalError, ConfigurationError, clients
from example import clock, outage, protection, steps
from example.telling import Unexpected, hidden

VARIABLES = (
    ("BAIKAL_AUTHSERVER_ENDPOINT", "Who issues the tokens"),
    ("BAIKAL_CLIENT_ID", "Who this site is there"),
    ("BAIKAL_CLIENT_SECRET", "How it proves that"),
    ("BAIKAL_ISSUER", "Where others find our keys"),
    ("BAIKAL_PRIVATE_CERTS_PATH", "Where we keep them"),
)
_SECRET, _DIRECTORY = "BAIKAL_CLIENT_SECRET", "BAIKAL_PRIVATE_CERTS_PATH"

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


class CallView(View):
    """The buttons that call the API, and those that switch the authserver off and on."""

    #: What came of the latest call in this process: its title, and a Call or a problem.
    latest: tuple[str, protection.Call | None, str] | None = None

    def post(self, request: HttpRequest) -> HttpResponse:
        """Do what the button says and show the page."""
        kind = request.POST.get("call", "")
        if kind == "stop":
            protection.get_ready(clients["default"])
            outage.switch_off()
        elif kind == "start":
            outage.switch_on()
        elif kind in protection.KINDS:
            CallView.latest = self._called(kind)
        else:
            return HttpResponseBadRequest("There is no such button.", content_type="text/plain")
        return HttpResponseRedirect(f"{reverse('page')}#api")

    def _called(self, kind: str) -> tuple[str, protection.Call | None, str]:
        title = f"GET {reverse('me')} {protection.KINDS[kind]}"
        try:
            return title, protection.press(clients["default"], kind), ""
        except (BaikalError, Unexpected) as error:
            return title, None, hidden(str(error))


def _context() -> dict[str, Any]:
    run = steps.latest
    outcomes = list(run.outcomes) if run else []
    rows: list[dict[str, Any]] = [
        {"number": number, "step": step, "outcome": None}
        for number, step in enumerate(steps.known(), 1)
    ]
    for row, outcome in zip(rows, outcomes, strict=False):
        row["outcome"] = outcome
    return {
        "run": run,
        "rows": rows,
        "failed": bool(outcomes and outcomes[-1].problem),
        "ahead": clock.ahead(),
        "kinds": protection.KINDS,
        "call": CallView.latest,
        "switch": outage.possible(),
        "off": outage.off(),
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
        shown, value = name, ""
        if config is not None and config.keys and name == _DIRECTORY:
            shown, value = '"KEYS" in BAIKAL', config.keys["BACKEND"]
        elif config is not None and name != _SECRET:
            value = getattr(config, name.removeprefix("BAIKAL_").lower())
        elif os.environ.get(name):
            value = "set, and never shown"
        found["variables"].append({"name": shown, "meaning": meaning, "value": value})
    return found
