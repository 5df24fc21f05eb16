from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import ROOT
from django.core.exceptions import ImproperlyConfigured
from django.test import Client
from example import steps, telling, views
from example.serving import serving
from loopback import Connection, Server, free_port, reply

from django_baikal.keys.generate import generate_key, private_pem
from django_baikal.testing import FakeAuthserver

PROJECT = ROOT / "example_project"
VARIABLES = (
    "DEBUG",
    "SECRET_KEY",
    "ALLOWED_HOSTS",
    "CACHE_URL",
    "SECURE_SSL_REDIRECT",
    "SECURE_HSTS_SECONDS",
)
SECRET = "the-secret-of-this-client"
NUMBER = "999000000001"


def settings_of(**environment: str) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.delenv(name, raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        found = runpy.run_path(str(PROJECT / "example" / "settings.py"))
    return {name: value for name, value in found.items() if name.isupper()}


def become_the_example(settings: Any, **environment: str) -> None:
    del settings.BAIKAL
    found = settings_of(DEBUG="true", **environment)
    # REST framework keeps the settings that it is imported with: its API is tested in processes
    # of its own.
    found["INSTALLED_APPS"] = ["django_baikal", "example"]
    for name, value in found.items():
        if name not in ("DATABASES", "REST_FRAMEWORK", "SPECTACULAR_SETTINGS"):
            setattr(settings, name, value)


@pytest.fixture
def example(settings: Any) -> Iterator[None]:
    become_the_example(settings)
    steps.latest = None
    yield
    steps.latest = None


class World:
    """The site and an authserver on loopback, and the environment that says so."""

    def __init__(self, url: str, authserver: FakeAuthserver, keys: Path) -> None:
        self.url, self.authserver, self.keys = url, authserver, keys

    def page(self) -> str:
        answer = requests.get(self.url, timeout=60)
        assert answer.status_code == 200
        return unescape(answer.text)

    def press(self) -> str:
        with requests.Session() as session:
            form = session.get(self.url, timeout=60).text
            token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', form)
            assert token
            answer = session.post(self.url, {"csrfmiddlewaretoken": token[1]}, timeout=60)
        assert [each.status_code for each in (*answer.history, answer)] == [302, 200]
        return unescape(answer.text)


@pytest.fixture
def world(example: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[World]:
    authserver = FakeAuthserver(clients={"site": SECRET})
    (tmp_path / "1.pem").write_text(private_pem(generate_key("RS256")), "utf-8")
    with authserver.serve(), serving() as url:
        entry = authserver.settings(ISSUER=url, PRIVATE_CERTS_PATH=str(tmp_path))
        for name, value in entry.items():
            monkeypatch.setenv(f"BAIKAL_{name}", value)
        yield World(url, authserver, tmp_path)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    inherited.pop("DJANGO_SETTINGS_MODULE", None)
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=PROJECT,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_without_debug_the_site_wants_a_secret_key() -> None:
    for debug in ({}, {"DEBUG": "false"}):
        with pytest.raises(ImproperlyConfigured, match="SECRET_KEY is not set"):
            settings_of(**debug)
    # A key that begins with "$" is a key, and not the name of another variable.
    for key in ("long-and-random", "$long-and-random"):
        assert settings_of(SECRET_KEY=key)["SECRET_KEY"] == key


def test_with_debug_each_start_has_a_secret_key_of_its_own() -> None:
    first, second = (settings_of(DEBUG="true")["SECRET_KEY"] for _ in range(2))
    assert first != second
    assert len(first) == 50
    assert settings_of(DEBUG="true", SECRET_KEY="mine")["SECRET_KEY"] == "mine"


def test_the_settings_come_from_the_environment() -> None:
    safe, open_ = settings_of(SECRET_KEY="k"), settings_of(DEBUG="1")
    assert (safe["DEBUG"], open_["DEBUG"]) == (False, True)
    assert safe["ALLOWED_HOSTS"] == open_["ALLOWED_HOSTS"] == ["127.0.0.1", "localhost", "[::1]"]
    for name, on, off in (
        ("SECURE_SSL_REDIRECT", True, False),
        ("SECURE_HSTS_SECONDS", 3600, 0),
        ("CSRF_COOKIE_SECURE", True, False),
    ):
        assert (safe[name], open_[name]) == (on, off)
    changed = settings_of(
        SECRET_KEY="k", ALLOWED_HOSTS="a.example,b.example", SECURE_HSTS_SECONDS="7"
    )
    assert changed["ALLOWED_HOSTS"] == ["a.example", "b.example"]
    assert changed["SECURE_HSTS_SECONDS"] == 7
    assert "BAIKAL" not in changed
    assert "DATABASES" not in changed


def test_every_variable_of_the_settings_is_in_the_readme() -> None:
    readme = (PROJECT / "README.md").read_text("utf-8")
    assert [name for name in VARIABLES if f"`{name}`" not in readme] == []
    assert [name for name, _ in views.VARIABLES if f"`{name}`" not in readme] == []


def test_djangos_deployment_checks_find_nothing() -> None:
    ended = run(
        "manage.py",
        *["check", "--deploy", "--tag", "security", "--fail-level", "WARNING"],
        DEBUG="false",
        SECRET_KEY="abcdefghijklmnopqrstuvwxyz-0123456789-ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    )
    assert ended.returncode == 0, ended.stderr


def test_manage_py_is_for_development_unless_told_otherwise() -> None:
    assert run("manage.py", "diffsettings").returncode == 0
    ended = run("manage.py", "diffsettings", DEBUG="false")
    assert ended.returncode == 1
    assert "SECRET_KEY is not set" in ended.stderr
    before = dict(os.environ)
    runpy.run_path(str(PROJECT / "manage.py"))  # imported, it does nothing
    assert dict(os.environ) == before


def test_the_site_starts_under_wsgi_and_asgi() -> None:
    program = "from example.{0} import application as it; print(type(it).__name__)"
    for name in ("wsgi", "asgi"):
        ended = run("-c", program.format(name), SECRET_KEY="k")
        assert (ended.stdout, ended.stderr) == (f"{name.upper()}Handler\n", "")


@pytest.mark.usefixtures("example")
def test_with_nothing_configured_the_page_says_what_is_missing() -> None:
    client = Client()
    answer = client.get("/")
    page = unescape(answer.content.decode())
    assert answer.status_code == 200
    assert "This site is not configured yet." in page
    assert "AUTHSERVER_ENDPOINT is missing (or the variable BAIKAL_AUTHSERVER_ENDPOINT)." in page
    assert page.count(">not set<") == 5
    assert page.count("It will prove:") == len(steps.STEPS)
    assert "<form" not in page
    assert client.post("/").status_code == 302
    page = client.get("/").content.decode()
    assert "stopped at step 1" in page


def test_variables_that_are_set_are_told_from_those_that_are_not(
    example: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BAIKAL_CLIENT_SECRET", SECRET)
    monkeypatch.setenv("BAIKAL_AUTHSERVER_ENDPOINT", "https://user:password@auth.example.com")
    page = Client().get("/").content.decode()
    assert page.count(">not set<") == 3
    assert page.count("set, and never shown") == 2
    assert SECRET not in page
    assert "password" not in page


def test_the_page_shows_the_keys_and_the_configuration(world: World) -> None:
    page = world.page()
    (key,) = requests.get(f"{world.url}.well-known/jwks.json", timeout=60).json()["keys"]
    assert f"<code>{key['kid']}</code></td><td>RS256</td>" in page
    assert 'href="/.well-known/jwks.json"' in page
    assert 'href="/.well-known/openid-configuration"' in page
    for value in (world.url, world.authserver.endpoint, str(world.keys), ">site<"):
        assert value in page
    assert "They have not been run yet." in page
    assert world.authserver.requests.count() == 0


def test_a_further_key_is_published_but_does_not_sign(world: World) -> None:
    (world.keys / "0.pem").write_text(private_pem(generate_key("ES256")), "utf-8")
    states = re.findall(r"<td>(RS256|ES256)</td><td><span[^>]*>(\w+)<", world.page())
    assert states == [("RS256", "signs"), ("ES256", "published")]


def test_the_button_takes_the_steps_and_the_page_shows_what_each_answered(world: World) -> None:
    page = world.press()
    assert f"all {len(steps.STEPS)} succeeded" in page
    assert page.count("It proves:") == len(steps.STEPS)
    assert page.count(">ok, ") == len(steps.STEPS)
    for step in steps.STEPS:
        for text in (step.title, step.code, step.proves):
            assert text in page
    for text in ("400 invalid_grant", "tel:***", '<dd class="mono">false</dd>'):
        assert text in page
    assert world.page().count(">ok, ") == len(steps.STEPS)


def test_the_authserver_reads_the_keys_once_and_keeps_them(world: World) -> None:
    assert (
        "the authserver read /.well-known/openid-configuration and /.well-known/jwks.json here"
    ) in world.press()
    assert "the authserver read nothing here: it still had our keys" in world.press()


def test_the_cached_token_costs_one_request(world: World) -> None:
    world.press()
    asked = [call for call in world.authserver.requests.to("token") if call.status == 200]
    assert [call.form["grant_type"].rpartition(":")[2] for call in asked] == [
        "client_credentials",
        "jwt-bearer",
        "client_credentials",
        "jwt-bearer",
    ]


def test_nothing_secret_is_on_the_page(world: World) -> None:
    page = world.press()
    secret = [SECRET, NUMBER, "PRIVATE KEY"]
    with world.authserver._state.lock:
        secret += list(world.authserver._state.tokens)
    secret += [
        call.form["assertion"] for call in world.authserver.requests if "assertion" in call.form
    ]
    assert len(secret) == 3 + 4 + 3
    assert [value for value in secret if value in page] == []


def test_the_page_needs_no_script_and_allows_none(world: World) -> None:
    answer = requests.get(world.url, timeout=60)
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'nonce-")
    nonces = re.findall(r'<style nonce="([\w-]+)">', answer.text)
    assert re.findall(r"'nonce-([\w-]+)'", policy) == nonces
    assert requests.get(world.url, timeout=60).headers["Content-Security-Policy"] != policy
    assert not re.search(r"<script|\sstyle=|\son\w+=", answer.text)
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Frame-Options"] == "DENY"


def test_the_button_is_protected_against_other_sites(world: World) -> None:
    assert requests.post(world.url, timeout=60).status_code == 403
    assert steps.latest is None


def test_one_run_at_a_time(world: World) -> None:
    with views._running:
        assert "They have not been run yet." in world.press()


def test_a_run_that_goes_on_is_shown_as_far_as_it_has_come(world: World) -> None:
    beginning = iter(steps.begin())
    next(beginning)
    page = world.page()
    assert ">running<" in page
    assert page.count(">ok, ") == 1
    assert page.count(">not run<") == len(steps.STEPS) - 1


def test_an_authserver_that_is_down_is_told_in_a_sentence(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("BAIKAL_AUTHSERVER_ENDPOINT", endpoint)
    page = world.press()
    assert "stopped at step 2" in page
    assert re.search(rf'note bad"><p>[^<]*{endpoint}[^<]*</p>', page)
    assert page.count(">not run<") == len(steps.STEPS) - 2


def test_a_directory_that_is_not_there_is_told_on_the_page(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BAIKAL_PRIVATE_CERTS_PATH", str(world.keys / "nowhere"))
    page = world.page()
    assert "Something is wrong with the keys." in page
    assert "cannot be read: No such file or directory." in page
    assert "GET " in world.press()


def test_without_a_key_the_first_step_says_where_to_put_one(world: World) -> None:
    for file in world.keys.iterdir():
        file.unlink()
    assert "No key is published: put one in the directory" in world.press()


def test_without_an_issuer_the_first_step_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BAIKAL_ISSUER")
    assert "ISSUER is missing (the variable BAIKAL_ISSUER)." in world.press()


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ('[{"kty": "RSA", "kid": "1", "d": "AQAB"}]', "A private key is published!"),
        ('[{"kty": "RSA", "kid": "1"}]', "gives other keys than ours: is ISSUER this site's URL?"),
        ("[5]", "gives other keys than ours: is ISSUER this site's URL?"),
        ("null", "gives other keys than ours: is ISSUER this site's URL?"),
    ],
)
def test_keys_that_should_not_be_published_fail_the_first_step(
    world: World, monkeypatch: pytest.MonkeyPatch, keys: str, told: str
) -> None:
    def other(connection: Connection) -> None:
        while connection.request():
            body = f'{{"jwks_uri": "{connection.server.url}/jwks", "keys": {keys}}}'
            connection.send(reply(body.encode()))

    server = Server(other)
    monkeypatch.setenv("BAIKAL_ISSUER", server.url)
    try:
        assert told in world.press()
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (reply(status="404 Not Found"), "answered 404."),
        (reply(status="302 Found", headers=("Location: https://example.com/",)), "answered 302."),
        (reply(b"<html>"), "failed: JSONDecodeError."),
        (reply(b"[]"), "is not a JSON object."),
        (b"", "failed: ConnectionError."),
    ],
)
def test_a_document_that_cannot_be_used_is_told_in_a_sentence(answer: bytes, told: str) -> None:
    def once(connection: Connection) -> None:
        connection.request()
        connection.send(answer)

    server = Server(once)
    try:
        with pytest.raises(telling.Unexpected) as caught:
            telling.read(f"{server.url}/x")
    finally:
        server.stop()
    assert f"{server.url}/x" in str(caught.value)
    assert str(caught.value).endswith(told)


def _inactive(authserver: FakeAuthserver, settings: Any) -> None:
    authserver.fail("introspection", status=200, body={"active": False})


def _never_revoked(authserver: FakeAuthserver, settings: Any) -> None:
    authserver.fail("introspection", status=200, body={"active": True})


def _credulous(authserver: FakeAuthserver, settings: Any) -> None:
    token = {"access_token": "any", "token_type": "Bearer"}
    authserver.fail("token", status=200, body=token)
    _never_revoked(authserver, settings)


def _forgetful(authserver: FakeAuthserver, settings: Any) -> None:
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}


def _talkative(authserver: FakeAuthserver, settings: Any) -> None:
    body = {"error": "invalid_scope", "error_description": "Not for +34600000001."}
    authserver.fail("token", status=400, body=body)


@pytest.mark.parametrize(
    ("disturb", "number", "told"),
    [
        (_talkative, 2, "invalid_scope"),
        (_inactive, 4, "The authserver says that the token it has just given is not active."),
        (_credulous, 5, "The authserver has accepted a signature that is not ours!"),
        (_forgetful, 6, "The three tokens are not the same one: nothing was cached."),
        (_never_revoked, 7, "The authserver still says that the revoked token is active."),
    ],
)
def test_a_step_that_does_not_come_out_as_it_has_to_is_the_last(
    world: World,
    settings: Any,
    disturb: Callable[[FakeAuthserver, Any], None],
    number: int,
    told: str,
) -> None:
    disturb(world.authserver, settings)
    page = world.press()
    assert f"stopped at step {number}" in page
    assert told in page
    assert "600000001" not in page
    assert page.count(">ok, ") == number - 1


def test_times_are_in_units_that_can_be_read() -> None:
    assert [telling.in_words(seconds) for seconds in (0.0004, 0.0126, 0.5, 1.26)] == [
        "0.4 ms",
        "13 ms",
        "500 ms",
        "1.3 s",
    ]


def test_what_an_authserver_tells_is_shown_as_far_as_it_can_be_read() -> None:
    claims = {"active": True, "sub": "+34600000001", "exp": "soon", "phone": "+34600000001"}
    assert dict(telling.told(claims)) == {"active": "true", "sub": "***"}
