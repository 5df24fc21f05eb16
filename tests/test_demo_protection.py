"""The demo's API: what its steps and the page's buttons show, and that each step can fail."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from example import outage, steps
from example.serving import serving
from example.views import CallView
from test_example_project import NUMBER, become_the_example

from django_baikal import clients
from django_baikal.keys.generate import generate_key, private_pem
from django_baikal.testing import FakeAuthserver

TITLES = [step.title for step in (*steps.STEPS[-1:], *steps.OUTAGE)]


class World:
    def __init__(self, url: str, authserver: FakeAuthserver) -> None:
        self.url, self.authserver = url, authserver

    def press(self, **fields: str) -> requests.Response:
        with requests.Session() as session:
            form = session.get(self.url, timeout=60).text
            token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', form)
            assert token
            fields["csrfmiddlewaretoken"] = token[1]
            return session.post(f"{self.url}call", fields, timeout=60)

    def shown(self, kind: str) -> str:
        """Press a button, and give the text of what the page tells of the call."""
        page = self.press(call=kind).text
        text = re.sub(r"<[^>]+>", " ", page.split('<div role="status">')[1].split("</div>")[0])
        return " ".join(text.replace("&quot;", '"').split())


@pytest.fixture
def world(settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[World]:
    become_the_example(settings)
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            "LOCATION": str(tmp_path),
        }
    }
    (tmp_path / "key.pem").write_text(private_pem(generate_key("ES256")))
    authserver = FakeAuthserver(clients={"site": "secret"})
    with outage.switchable(authserver), serving() as url:
        variables = authserver.settings(ISSUER=url, PRIVATE_CERTS_PATH=str(tmp_path))
        for name, value in variables.items():
            monkeypatch.setenv(f"BAIKAL_{name}", value)
        yield World(url, authserver)
    steps.latest = CallView.latest = None


def outcomes() -> dict[str, steps.Outcome]:
    found = {outcome.step.title: outcome for outcome in steps.begin()}
    return {title: found[title] for title in TITLES if title in found}


def test_the_steps_show_every_answer(world: World) -> None:
    api, away = outcomes().values()
    assert [(name, text.split(",")[0]) for name, text in api.answers] == [
        ("none", "401 Unauthorized"),
        ("forged", "401 Unauthorized"),
        ("no scope", "403 Forbidden"),
        ("good", "200 OK"),
    ]
    assert dict(api.answers)["no scope"].endswith(
        'error="insufficient_scope", scope="profile:read"'
    )
    assert [(name, text.split(",")[0]) for name, text in away.answers] == [
        ("before", "200 OK"),
        ("stopped", "a new token: 503 Service Unavailable"),
        ("", "the known one: 200 OK"),
        ("started", "the new token: 200 OK"),
    ]
    assert not outage.off()


def test_an_api_that_lets_everybody_in_fails(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("example.protection.USER_SCOPE", steps.SCOPE)
    [api] = outcomes().values()
    assert api.problem == "The API answered 403 Forbidden in place of 200."


def test_an_authserver_that_cannot_be_stopped_fails(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "switch_off", lambda: None)
    _, away = outcomes().values()
    assert away.problem == "The API answered 200 OK in place of 503."
    assert not outage.off()


def test_a_site_that_answers_nobody_fails(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("example.protection.reverse", lambda _name: ":1/api")
    [api] = outcomes().values()
    assert api.problem.startswith("GET http://127.0.0.1")
    assert re.search(r"failed: \w+\.$", api.problem)


def test_the_buttons_call_the_api(world: World) -> None:
    assert "status 401 Unauthorized header WWW-Authenticate: Bearer realm=" in world.shown("none")
    assert 'error="invalid_token"' in world.shown("forged")
    assert 'status 403 Forbidden header WWW-Authenticate: Bearer realm="api"' in world.shown("weak")
    good = world.shown("good")
    assert "status 200 OK" in good
    assert "Vary: Authorization" in good
    assert clients["default"].config.client_secret not in good
    assert NUMBER not in good


def test_the_authserver_is_stopped_and_started_by_a_button(world: World) -> None:
    assert "is running" in world.press(call="start").text
    assert "is stopped" in world.press(call="stop").text
    assert outage.off()
    for kind in ("good", "forged"):
        assert "status 503 Service Unavailable header Retry-After: 5" in world.shown(kind)
    assert "status 401 Unauthorized" in world.shown("none")
    assert "is running" in world.press(call="start").text
    assert "status 200 OK" in world.shown("good")


def test_a_call_that_cannot_be_made_is_told_in_a_sentence(world: World) -> None:
    world.authserver.fail("token", status=503)
    page = world.press(call="good").text
    assert re.search(r"http://127\.0\.0\.1:\d+/token answered 503", page)


def test_there_is_no_other_button(world: World) -> None:
    answer = world.press(call="launch")
    assert (answer.status_code, answer.text) == (400, "There is no such button.")
    assert requests.post(f"{world.url}call", {"call": "none"}, timeout=60).status_code == 403


def test_an_authserver_of_another_process_has_no_switch(settings: Any) -> None:
    become_the_example(settings)
    assert not outage.possible()
    assert not outage.off()
    assert steps.known() == steps.STEPS
    outage.switch_on()
    assert not outage.possible()
