"""The example's REST API: its OpenAPI document is accepted by others, and a client made of it."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("drf_spectacular", reason="drf-spectacular is not installed")

import requests
from conftest import ROOT
from programs import running

from django_baikal import OpenIDClient
from django_baikal.testing import FakeAuthserver

PROJECT = ROOT / "example_project"
SITE = """
import os
import django
django.setup()
from example.serving import serving
with serving() as url:
    print("running at", url, flush=True)
    while True:
        __import__("time").sleep(3600)
"""
PURPOSE = "customer-self-service"
CALLS = """
import django
django.setup()
from django.test import Client
from django.test.utils import setup_test_environment
from django_baikal.testing import override_token
setup_test_environment()
purpose = "customer-self-service"
for scopes, method, at, sent in (
    ("profile:read", "get", "profile", None),
    ("profile:read", "put", "profile", {"language": "es"}),
    ("profile:read profile:write", "put", "profile", {"language": "es"}),
    ("profile:read profile:write", "put", "profile", {"language": "xx"}),
    ("catalogue:read", "get", "catalogue/tea", None),
    ("profile:read", "get", "catalogue/coal", None),
):
    with override_token(scopes, purpose, sub="anna"):
        options = {} if sent is None else {"data": sent, "content_type": "application/json"}
        answer = getattr(Client(), method)(f"/api/rest/{at}", **options)
    print(answer.status_code, *sorted(answer.json()))
"""


def environment(server: FakeAuthserver) -> dict[str, str]:
    """Give the variables of the example as a site of its own."""
    kept = {n: v for n, v in os.environ.items() if n not in ("SECRET_KEY", "CACHE_URL")}
    return {
        **kept,
        "DEBUG": "true",
        "DJANGO_SETTINGS_MODULE": "example.settings",
        "PYTHONPATH": os.pathsep.join([str(PROJECT), *filter(None, sys.path)]),
        **{f"BAIKAL_{name}": str(value) for name, value in server.settings().items()},
    }


def document(directory: Path, server: FakeAuthserver) -> Path:
    """Write the document as a developer does: a warning is an error, and so is a network."""
    target = directory / "schema.json"
    command = ["spectacular", "--validate", "--fail-on-warn", "--format", "openapi-json"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "django", *command, "--file", str(target)],
        env=environment(server),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return target


@pytest.fixture
def authserver() -> Iterator[FakeAuthserver]:
    with FakeAuthserver(clients={"site": "secret"}).serve() as server:
        yield server


def test_drf_spectacular_accepts_the_document_and_nobody_is_asked(
    tmp_path: Path, authserver: FakeAuthserver
) -> None:
    schema = json.loads(document(tmp_path, authserver).read_text("utf-8"))
    assert {path.removeprefix("/api/rest/"): [*each] for path, each in schema["paths"].items()} == {
        "profile": ["get", "put"],
        "catalogue/{name}": ["get"],
    }
    profile = schema["paths"]["/api/rest/profile"]
    assert profile["put"]["security"] == [{"baikal": ["profile:read", "profile:write"]}]
    assert f"`{PURPOSE}`" in profile["put"]["description"]
    assert authserver.requests.count("discovery") == 0


def test_openapi_spec_validator_accepts_the_document(
    tmp_path: Path, authserver: FakeAuthserver
) -> None:
    pytest.importorskip("openapi_spec_validator", reason="openapi-spec-validator is not installed")
    from openapi_spec_validator import OpenAPIV30SpecValidator

    schema = json.loads(document(tmp_path, authserver).read_text("utf-8"))
    assert [*OpenAPIV30SpecValidator(schema).iter_errors()] == []


def test_the_views_answer_as_they_should(authserver: FakeAuthserver) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CALLS],
        env=environment(authserver),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "200 language you",
        "403 code detail",
        "200 language you",
        "400 language",
        "200 cents name",
        "404 detail",
    ]


@pytest.fixture
def site(authserver: FakeAuthserver) -> Iterator[str]:
    command = [sys.executable, "-W", "error", "-c", SITE]
    with running(command, environment(authserver), cwd=PROJECT) as program:
        yield program.url


@pytest.fixture
def generated(
    tmp_path: Path, authserver: FakeAuthserver, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Generate a client, and give the name of its package."""
    if find_spec("openapi_python_client") is None:
        pytest.skip("openapi-python-client is not installed")
    (tmp_path / "config.yaml").write_text("post_hooks: []\n")
    options = ["--meta", "none", "--fail-on-warning", "--config", "config.yaml"]
    options += ["--path", str(document(tmp_path, authserver))]
    options += ["--output-path", "client_of_the_example"]
    done = subprocess.run(
        [sys.executable, "-m", "openapi_python_client", "generate", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "client_of_the_example"
    for name in [*sys.modules]:
        if name.partition(".")[0] == "client_of_the_example":
            del sys.modules[name]


class Caller:
    """A generated client with one token."""

    def __init__(self, package: str, url: str, token: str) -> None:
        self.package = package
        self.client = self.load("client").AuthenticatedClient(base_url=url, token=token)

    def load(self, name: str) -> Any:
        return importlib.import_module(f"{self.package}.{name}")

    def call(self, operation: str, *args: Any, **options: Any) -> tuple[int, Any]:
        answer = self.load(f"api.{operation}").sync_detailed(*args, client=self.client, **options)
        return int(answer.status_code), answer.parsed


@pytest.mark.programs
def test_a_generated_client_calls_the_example(
    generated: str, site: str, authserver: FakeAuthserver
) -> None:
    of_site = OpenIDClient(**{k.lower(): v for k, v in authserver.settings().items()})
    token = of_site.grant_client("catalogue:read")
    caller = Caller(generated, site, str(token))
    status, tea = caller.call("catalogue.catalogue_retrieve", "tea")
    assert (status, tea.name, tea.cents) == (200, "tea", 250)
    status, refused = caller.call("profile.profile_retrieve")
    assert (status, refused.code) == (403, "insufficient_scope")

    user = {"sub": "tel:+999000000001", "purpose": PURPOSE}
    token = authserver.issue_token(scope="profile:read profile:write", **user)
    caller = Caller(generated, site, token)
    status, profile = caller.call("profile.profile_retrieve")
    assert (status, profile.language.value) == (200, "en")
    models = caller.load("models")
    body = models.Profile(you="", language=models.LanguageEnum.PT)
    status, changed = caller.call("profile.profile_update", body=body)
    assert (status, changed.you, changed.language.value) == (200, profile.you, "pt")
    assert "999000000001" not in profile.you

    body.language = type("Unknown", (str,), {"value": "xx"})("xx")
    status, wrong = caller.call("profile.profile_update", body=body)
    assert (status, [*wrong.to_dict()]) == (400, ["language"])
    status, refused = Caller(generated, site, "nope").call("catalogue.catalogue_retrieve", "tea")
    assert (status, refused.code) == (401, "invalid_token")
    assert refused.detail == "The access token is invalid or has expired."
    with authserver.fail("introspection"):
        new = authserver.issue_token(scope="catalogue:read")
        status, away = Caller(generated, site, new).call("catalogue.catalogue_retrieve", "tea")
    assert (status, away.code) == (503, "temporarily_unavailable")


@pytest.mark.programs
def test_the_site_serves_the_document_to_everybody(site: str) -> None:
    answer = requests.get(f"{site}/api/rest/schema", timeout=60)
    assert answer.status_code == 200
    assert "openIdConnectUrl" in answer.text
    missing = requests.get(f"{site}/api/rest/catalogue/coal", timeout=60)
    assert (missing.status_code, missing.headers["WWW-Authenticate"]) == (401, 'Bearer realm="api"')
