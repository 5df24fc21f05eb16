"""What a user's suite has beside ``override_token``: fixtures, and a client for REST framework."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.http import JsonResponse
from django.test import Client, SimpleTestCase, override_settings
from django.urls import path

from django_baikal import clients
from django_baikal.decorators import token_required
from django_baikal.protocol.authenticate import overrides
from django_baikal.testing import FakeAuthserver, fixtures

# As if this were the conftest.py of a project that names the module in pytest_plugins.
baikal_authserver = fixtures.baikal_authserver
baikal_token = fixtures.baikal_token


def told(request: Any) -> JsonResponse:
    return JsonResponse({"sub": request.auth.subject if request.auth else None})


urlpatterns = [path("plain", token_required("read")(told))]

try:
    from rest_framework.permissions import AllowAny
    from rest_framework.views import APIView

    from django_baikal.testing.rest_framework import TokenAPIClient
except ImportError:
    TokenAPIClient = None  # type: ignore[assignment, misc]
else:
    from django_baikal.contrib.rest_framework import IntrospectionAuthentication, TokenHasScope

    class Framed(APIView):
        authentication_classes = (IntrospectionAuthentication,)
        permission_classes: Any = (TokenHasScope,)
        required_scopes = "read"

        def get(self, request: Any) -> JsonResponse:
            return told(request)

    class Anybody(Framed):
        permission_classes = (AllowAny,)

    urlpatterns += [path("framed", Framed.as_view()), path("anybody", Anybody.as_view())]

needs_framework = pytest.mark.skipif(TokenAPIClient is None, reason="no REST framework")


@pytest.fixture(autouse=True)
def _project() -> Iterator[None]:
    sessions = "django.contrib.sessions.backends.cache"
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[], SESSION_ENGINE=sessions):
        yield


# baikal_token


def test_the_token_counts_from_its_call_on(
    client: Client, baikal_token: Callable[..., str]
) -> None:
    assert client.get("/plain").status_code == 401
    token = baikal_token("read", sub="anna")
    assert client.get("/plain").json()["sub"] == "anna"
    assert clients["default"].authenticate(token).subject == "anna"
    baikal_token(["write"])
    assert client.get("/plain").status_code == 403


def test_the_token_ends_with_the_test(pytester_like: Callable[..., str]) -> None:
    said = pytester_like(
        """
        from django_baikal.protocol.authenticate import overrides

        def test_one(baikal_token):
            baikal_token("read")
            baikal_token("write")
            assert overrides

        def test_two():
            assert overrides == {}

        def test_three(baikal_authserver):
            assert baikal_authserver.requests.count() == 0
        """
    )
    assert "3 passed" in said


@pytest.fixture
def pytester_like(tmp_path: Path) -> Callable[..., str]:
    """Run the text of a test module as a user's project does, in their order."""

    def run(text: str) -> str:
        lines = text.strip("\n").splitlines()
        (tmp_path / "test_it.py").write_text("\n".join(line[8:] for line in lines), "utf-8")
        (tmp_path / "conftest.py").write_text(
            'pytest_plugins = ["django_baikal.testing.fixtures"]\n', "utf-8"
        )
        (tmp_path / "project_settings.py").write_text(
            "SECRET_KEY = 'x' * 50\nINSTALLED_APPS = ['django_baikal']\n"
            "BAIKAL = {'default': {'AUTHSERVER_ENDPOINT': 'https://auth.example.com',"
            " 'CLIENT_ID': 'client', 'CLIENT_SECRET': 'secret'}}\n",
            "utf-8",
        )
        ended = subprocess.run(
            [
                *(sys.executable, "-W", "error", "-m", "pytest", "-W", "error", "-q"),
                *("-p", "no:cacheprovider", "-p", "no:randomly", "--ds", "project_settings"),
                *(f"--rootdir={tmp_path}", "."),
            ],
            cwd=tmp_path,
            env={
                **{name: value for name, value in os.environ.items() if "PYTEST" not in name},
                "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)]),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    return run


# baikal_authserver


def test_the_fake_stands_in_for_the_alias(
    client: Client, baikal_authserver: FakeAuthserver
) -> None:
    token = baikal_authserver.issue_token(sub="anna", scope="read")
    header = {"authorization": f"Bearer {token}"}
    assert client.get("/plain", headers=header).json()["sub"] == "anna"
    assert client.get("/plain").status_code == 401
    assert baikal_authserver.requests.count("introspection") == 1
    assert clients["default"].config.client_id == "client"


STRANGE = {
    "AUTHSERVER_ENDPOINT": "https://auth.example.com",
    "AUTHSERVER_ISSUER": "https://auth.example.com/issuer",
    "ENDPOINT_ORIGINS": ["https://auth.example.com"],
    "CLIENT_ID": "our-client",
    "CLIENT_AUTH_METHOD": "private_key_jwt",
    "AUDIENCES": ["our-api"],
    "SCOPE_PERMISSIONS": {"read": ["shop.view_item"]},
}


@pytest.fixture
def strange() -> Iterator[None]:
    eu = {**STRANGE, "CLIENT_ID": "eu-client"}
    with override_settings(BAIKAL={"default": STRANGE, "eu": eu}):
        yield


def test_the_other_settings_stay(strange: None, request: pytest.FixtureRequest) -> None:
    server: FakeAuthserver = request.getfixturevalue("baikal_authserver")
    found = clients["default"].authenticate(server.issue_token(aud=["our-api"], sub="anna"))
    assert found.client_id == "our-client"
    config = clients["default"].config
    assert config.scope_permissions == {"read": ("shop.view_item",)}
    assert config.expected_issuer == server.endpoint
    assert clients["eu"].config.client_id == "eu-client"
    assert clients["eu"].config.authserver_endpoint == "https://auth.example.com"


@pytest.mark.parametrize("settings", [{}, {"eu": STRANGE}])
def test_a_project_may_have_no_settings_yet(
    settings: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    with override_settings(BAIKAL=settings):
        server: FakeAuthserver = request.getfixturevalue("baikal_authserver")
        assert clients["default"].config.client_id == "test-client"
        assert clients["default"].authenticate(server.issue_token()).client_id == "test-client"


def test_no_test_has_the_tokens_of_another(request: pytest.FixtureRequest) -> None:
    seen = set()
    for _ in range(2):
        made = fixtures.baikal_authserver.__wrapped__()  # type: ignore[attr-defined]
        server = next(made)
        token = clients["default"].get_token(["read"])
        assert clients["default"].authenticate(token).scopes == {"read"}
        assert server.requests.count("token") == 1
        seen.add(token)
        made.close()
    assert len(seen) == 2


# TokenAPIClient


@needs_framework
def test_the_client_s_requests_bear_the_token() -> None:
    client = TokenAPIClient()
    for url in ("/framed", "/plain"):
        assert client.get(url).status_code == 401
        client.force_token(["read"], sub="anna")
        assert client.get(url).json()["sub"] == "anna"
        assert overrides == {}
        client.force_token("write")
        assert client.get(url).status_code == 403
        client.logout()
        assert client.get(url).status_code == 401


@needs_framework
def test_two_clients_have_two_tokens() -> None:
    anna, bert, nobody = TokenAPIClient(), TokenAPIClient(), TokenAPIClient()
    anna.force_token("read", sub="anna")
    bert.force_token("read", sub="bert")
    for _ in range(2):
        assert anna.get("/framed").json()["sub"] == "anna"
        assert bert.get("/framed").json()["sub"] == "bert"
        assert nobody.get("/framed").status_code == 401


class Somebody:
    is_authenticated = is_active = True
    pk = 1


@needs_framework
def test_the_later_call_counts() -> None:
    client = TokenAPIClient()
    client.force_authenticate(Somebody())
    assert client.get("/anybody").json()["sub"] is None
    client.force_token("read", sub="anna")
    assert client.get("/anybody").json()["sub"] == "anna"
    client.force_authenticate(Somebody())
    assert client.get("/anybody").json()["sub"] is None
    assert client.get("/plain").status_code == 401
    client.force_token("read", sub="anna")
    client.force_authenticate()
    assert client.get("/framed").status_code == 401


@needs_framework
def test_the_arguments_are_looked_at_at_once() -> None:
    client = TokenAPIClient()
    with pytest.raises(ValueError, match="exp"):
        client.force_token("read", exp="tomorrow")
    assert client.get("/framed").status_code == 401


if TokenAPIClient is not None:

    class WithClientClass(SimpleTestCase):
        client_class = TokenAPIClient

        def test_it(self) -> None:
            self.client.force_token("read")
            assert self.client.get("/framed").status_code == 200


def test_importing_the_helpers_needs_neither_pytest_nor_the_framework() -> None:
    code = (
        "import sys; sys.modules['pytest'] = sys.modules['rest_framework'] = None;"
        "from django_baikal.testing import FakeAuthserver, override_token;"
        "override_token('read')"
    )
    environment = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    found = os.pathsep.join(filter(None, sys.path))
    subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        check=True,
        env={**environment, "PYTHONPATH": found},
    )
