"""The pages on protected views are true: what they show answers as they say."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest
import test_docs
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.test import Client, override_settings
from test_docs import DOCS, Page, blocks, code, matches, prose, table

from django_baikal import AuthserverUnavailable, clients, principals, signals
from django_baikal.decorators import TokenRequiredMixin, token_required
from django_baikal.testing import fixtures, override_token

HOWTO = DOCS / "howto" / "protect-an-api.md"
NINJA = DOCS / "howto" / "protect-a-ninja-api.md"
DOCUMENTED = DOCS / "howto" / "document-your-api.md"
FRAMEWORK = DOCS / "howto" / "protect-a-rest-framework-api.md"
REFERENCE = DOCS / "reference" / "protection.md"
TESTING = DOCS / "reference" / "testing.md"

page_runner = test_docs.page_runner


def shown(page: Page, path: Any) -> Page:
    for block in blocks(path):
        page.run(block)
    return page


def unknown(info: Any) -> None:
    return None


def sent(url: str, claims: dict[str, Any], method: str = "get", **options: Any) -> Any:
    with override_token(["orders.read"], **claims):
        return getattr(Client(), method)(url, **options)


SITUATIONS: dict[str, list[Callable[[], Any]]] = {
    "has no token": [lambda: Client().get("/orders")],
    "has two credentials": [
        lambda: sent("/orders", {}, headers={"authorization": "Bearer a, Bearer b"}),
        lambda: sent("/orders", {}, headers={"authorization": "Bearer"}),
        lambda: sent("/orders?access_token=x", {}),
        lambda: sent(
            "/orders",
            {},
            "post",
            data="access_token=x",
            content_type="application/x-www-form-urlencoded",
        ),
    ],
    "has a token that is unknown": [
        lambda: sent("/orders", {"active": False}),
        lambda: sent("/orders", {"exp": 1}),
        lambda: sent("/orders", {"aud": "another"}),
        lambda: sent("/orders", {}, headers={"authorization": "Bearer \xe4"}),
    ],
    "has a token without a scope": [lambda: sent("/orders", {"scope": "other"})],
    "has a token without a purpose": [
        lambda: sent("/check", {"scope": "orders.write"}),
    ],
    "has a token of a user whose login": [
        lambda: sent("/strong", {"acr": "2"}),
        lambda: sent("/strong", {}),
    ],
    "has a token that cannot be checked": [
        lambda: sent("/orders", {"error": AuthserverUnavailable()}),
    ],
    "has a token that will do": [lambda: sent("/orders", {})],
}


@pytest.mark.django_db
def test_each_situation_is_answered_as_the_page_says(page_runner: Page) -> None:
    shown(page_runner, HOWTO)
    from urls import urlpatterns  # type: ignore[attr-defined]

    view = token_required(acr="3")(lambda request: None)
    urlpatterns.append(urlpatterns[0].__class__(_route("strong"), view))
    rows = table(HOWTO, "the request")
    found = set()
    for situation, status, header in rows:
        if situation.startswith("has a token whose user is unknown"):
            _deactivated(header)
            continue
        (key,) = [each for each in SITUATIONS if situation.startswith(each)]
        found.add(key)
        for send in SITUATIONS[key]:
            answer = send()
            assert str(answer.status_code) == status.replace("the view's", "200"), situation
            name, _, value = code(header).partition(": ")
            assert matches(value, answer.headers[name]), (situation, answer.headers[name])
            assert ("WWW-Authenticate" in answer.headers) == (name == "WWW-Authenticate")
            if status not in ("the view's", "401"):
                assert set(answer.json()) == {"error", "error_description"}
    assert found == set(SITUATIONS)


def _route(name: str) -> Any:
    from django.urls.resolvers import RoutePattern

    return RoutePattern(name, is_endpoint=True)


def _deactivated(header: str) -> None:
    from django.conf import settings

    for resolver in ("unknown", "gone"):
        entry = {**settings.BAIKAL["default"], "USER_RESOLVER": f"{__name__}.{resolver}"}
        with override_settings(BAIKAL={"default": entry}):
            answer = sent("/orders", {})
        assert answer.status_code == 401
        assert matches(code(header).partition(": ")[2], answer.headers["WWW-Authenticate"])


def gone(info: Any) -> Any:
    return get_user_model()(username="gone", is_active=False)


@pytest.mark.django_db
def test_the_other_views_that_are_shown(page_runner: Page) -> None:
    page = shown(page_runner, HOWTO)
    from django.urls import path
    from myapp.classes import Orders, Payment  # type: ignore[import-not-found]
    from myapp.pages import listing, me  # type: ignore[import-not-found]
    from urls import urlpatterns  # type: ignore[attr-defined]

    urlpatterns += [
        path("class", Orders.as_view()),
        path("payment", Payment.as_view()),
        path("me", me),
        path("listing", listing),
        path("eu", page.namespace["european_orders"]),
    ]
    assert sent("/class", {}).status_code == 200
    assert sent("/payment", {"scope": "payments", "acr": "3"}, "post").status_code == 200
    assert sent("/payment", {"scope": "payments", "acr": "2"}, "post").status_code == 401
    assert re.fullmatch("[0-9a-f]{32}", sent("/me", {}).json()["you"])
    assert Client().get("/me").status_code == 302
    assert sent("/listing", {}).status_code == 200
    assert sent("/listing", {"scope": "other"}).status_code == 403
    assert sent("/check", {"scope": "orders.write", "purpose": "fraud-prevention"}).json() == {
        "checked_for": "user-1"
    }
    with override_token("orders.read", using="eu"):
        # The middleware of the page lets a request pass that has no token of its alias.
        assert Client().get("/eu").status_code == 200
    with override_token(sub="anna"):
        assert page.namespace["user_of"]("any").pk
    with override_token(active=False):
        assert page.namespace["user_of"]("any") is None


@pytest.mark.django_db
def test_a_token_that_is_revoked_is_bad_at_once(page_runner: Page) -> None:
    page = shown(page_runner, HOWTO)
    server = page.servers["https://auth.example.com"]
    options = {"aud": "https://api.example.com", "tenant": "blue"}
    server.add_client("shop", "shop-secret")
    with override_settings(
        BAIKAL={
            "default": {
                "AUTHSERVER_ENDPOINT": "https://auth.example.com",
                "CLIENT_ID": "shop",
                "CLIENT_SECRET": "shop-secret",
                "AUDIENCES": ["https://api.example.com"],
            }
        }
    ):
        token = server.issue_token(client_id="shop", scope="orders.read", **options)
        header = {"authorization": f"Bearer {token}"}
        assert Client().get("/orders", headers=header).status_code == 200
        clients["default"].revoke(token)
        assert Client().get("/orders", headers=header).status_code == 200
        page.namespace["log_out"](token)
        assert Client().get("/orders", headers=header).status_code == 401
    cache.clear()


#: What the page on REST framework claims of its views, in a project of its own: which classes a
#: view has by default is decided when the framework is imported.
FRAMEWORK_TESTS = """
from rest_framework.test import APIRequestFactory

from django_baikal.testing import override_token
from django_baikal.testing.rest_framework import TokenAPIClient
from shop.authentication import European, Fresh
from shop.both import Both
from shop.functions import prices
from shop.payments import Payments

customers, one = "/customers/", "/customers/1/"


def test_scopes():
    client = TokenAPIClient()
    for scope, method, url, status in (
        ("customers.read", "get", customers, 200),
        ("customers.read", "head", customers, 200),
        ("customers.read", "post", customers, 403),
        ("customers.read customers.write", "post", customers, 201),
        ("customers.write", "delete", one, 403),
        ("customers.write audit", "delete", one, 204),
        ("admin", "delete", one, 204),
        ("admin", "options", one, 200),
    ):
        client.force_token(scope)
        assert getattr(client, method)(url).status_code == status, (scope, method, url)


def test_what_a_refusal_says():
    client = TokenAPIClient()
    client.force_token("admin")
    refused = client.get(customers)
    assert 'scope="customers.read"' in refused.headers["WWW-Authenticate"]
    assert set(refused.json()) == {"detail", "code"}
    client.logout()
    refused = client.get(customers)
    assert refused.headers["WWW-Authenticate"] == 'Bearer realm="api"'


def test_permissions_compose():
    view = Payments.as_view()
    for acr, status in (("3", 405), ("2", 401)):
        with override_token("payments", "fraud-prevention", acr=acr):
            assert view(APIRequestFactory().get("/")).status_code == status
    assert (Fresh.fresh, European.using) == (True, "eu")
    assert len(Both.authentication_classes) == 2


def test_a_function_has_scopes():
    with override_token("prices.read"):
        assert prices(APIRequestFactory().get("/")).status_code == 200
        assert prices(APIRequestFactory().post("/")).status_code == 403


def test_the_check_is_content():
    from django.core.management import call_command

    call_command("check")
"""


def write_project(directory: Path, page: Path, **more: str) -> None:
    """Write the files that a page shows, and its other examples as a test."""
    settings = (
        "from pathlib import Path\nBASE_DIR = Path(__file__).parent\nSECRET_KEY = 'x' * 50\n"
        "ROOT_URLCONF = 'urls'\n"
        "INSTALLED_APPS = ['django.contrib.contenttypes', 'django.contrib.auth']\n"
        "SESSION_ENGINE = 'django.contrib.sessions.backends.cache'\n"
        "BAIKAL = {'default': {'AUTHSERVER_ENDPOINT': 'https://auth.example.com',"
        " 'CLIENT_ID': 'my-client', 'CLIENT_SECRET': 'my-secret'}}\n"
    )
    files = {"settings.py": settings, "test_page.py": "pass\n", **more}
    for block in blocks(page):
        if block.language == "python":
            named = test_docs.COMMENT.match(block.text)
            name = named[1] if named else "test_page.py"
            files[name] = files.get(name, "") + block.text
    files["test_page.py"] = f"def test_it():\n{indent(files['test_page.py'], '    ')}"
    for name, text in files.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(text, "utf-8")


def run_project(directory: Path, *command: str) -> str:
    """Run a command in a project of its own, and give what it prints."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-m", *command],
        cwd=directory,
        env={
            **{name: value for name, value in os.environ.items() if "PYTEST" not in name},
            "PYTHONPATH": os.pathsep.join([str(directory), *filter(None, sys.path)]),
            "DJANGO_SETTINGS_MODULE": "settings",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def run_tests_of(directory: Path) -> str:
    options = ("-q", "-s", "-p", "no:cacheprovider", "-W", "error", f"--rootdir={directory}")
    return run_project(directory, "pytest", *options, "--ds", "settings", ".")


def test_the_framework_s_views_that_are_shown(tmp_path: Path) -> None:
    pytest.importorskip("rest_framework")
    write_project(tmp_path, FRAMEWORK, **{"test_claims.py": FRAMEWORK_TESTS})
    run_tests_of(tmp_path)


#: What the page on Ninja claims.
NINJA_TESTS = """
import both
from django.test import Client
from django.urls import path
from urls import urlpatterns

from django_baikal import AuthserverUnavailable
from django_baikal.testing import override_token

both.api.get("/orders")(lambda request: {"by": type(request.auth).__name__})
urlpatterns.append(path("both/", both.api.urls))


def answer(claims, method="get", at="/api/orders", **options):
    with override_token(**claims):
        return getattr(Client(), method)(at, **options)


def test_each_situation_is_answered():
    found = {
        "has no token": Client().get("/api/orders"),
        "has a token that is unknown or has expired": answer({"active": False}),
        "has a token without a scope or a purpose": answer({"scopes": "other"}),
        "has two credentials": answer({}, headers={"authorization": "Bearer a, Bearer b"}),
        "has a token that cannot be checked now": answer({"error": AuthserverUnavailable()}),
    }
    import json

    print("ANSWERS", json.dumps({k: [v.status_code, dict(v.items())] for k, v in found.items()}))


def test_the_operations_that_are_shown():
    found = answer({"scopes": "orders.read", "sub": "anna"}).json()
    assert set(found) == {"orders", "owner", "caller"}
    strong = {"scopes": "orders.write", "purposes": "support", "acr": "3"}
    assert answer(strong, "delete", "/api/orders/7").json() == {"cancelled": 7}
    assert answer({**strong, "acr": "2"}, "delete", "/api/orders/7").status_code == 401
    assert answer({**strong, "purposes": ""}, "delete", "/api/orders/7").status_code == 403
    assert answer({"scopes": "orders.read"}, at="/both/orders").json() == {"by": "TokenInfo"}
    assert answer({"active": False}, at="/both/orders").status_code == 401
"""


def test_the_ninja_s_operations_that_are_shown(tmp_path: Path) -> None:
    pytest.importorskip("ninja")
    write_project(tmp_path, NINJA, **{"test_claims.py": NINJA_TESTS})
    said = run_tests_of(tmp_path)
    answers = json.loads(re.findall("ANSWERS ({.*})", said)[0])
    rows = table(NINJA, "the request")
    assert [row[0] for row in rows] == [*answers]
    for situation, status, header in rows:
        found, headers = answers[situation]
        name, _, value = code(header).partition(": ")
        assert str(found) == status
        assert matches(value, headers[name]), (situation, headers)


def test_the_schema_that_is_shown_is_written(tmp_path: Path) -> None:
    pytest.importorskip("drf_spectacular")
    write_project(tmp_path, DOCUMENTED)
    (shown,) = [block.text for block in blocks(DOCUMENTED) if block.language == "text"]
    found = run_project(tmp_path, "django", "spectacular", "--validate", "--fail-on-warn")
    assert matches(f"...\n{shown}...", found)


def test_the_view_of_the_readme_answers(page_runner: Page) -> None:
    page = shown(page_runner, test_docs.ROOT / "README.md")
    from django.urls import path
    from urls import urlpatterns  # type: ignore[attr-defined]
    from views import orders  # type: ignore[import-not-found]

    urlpatterns.append(path("orders", orders))
    page.namespace["test_orders"](Client())
    assert Client().get("/orders").status_code == 401
    assert sent("/orders", {"scope": "other"}).status_code == 403
    assert set(sent("/orders", {}).json()) == {"orders", "owner", "caller"}


# The reference


def arguments(call: Callable[..., Any]) -> list[str]:
    return [name for name in inspect.signature(call).parameters if name != "self"]


def test_token_required_is_in_the_reference_with_its_signature() -> None:
    (heading,) = re.findall(r"^### `token_required(.*)`$", prose(REFERENCE), re.MULTILINE)
    assert heading == test_docs.shown_signature(token_required)
    for page in (REFERENCE, HOWTO):
        assert [code(row[0]) for row in table(page, "argument")] == arguments(token_required)


def test_the_mixin_s_attributes_are_named() -> None:
    own = {name for name in TokenRequiredMixin.__annotations__ if not name.startswith("_")}
    for page in (REFERENCE, HOWTO):
        assert own <= set(re.findall(r"`(\w+)`", page.read_text("utf-8")))


def test_the_signals_are_in_the_reference() -> None:
    rows = {code(row[0]): re.findall(r"`(\w+)`", row[1]) for row in table(REFERENCE, "signal")}
    keys = {"key_created", "key_revoked", "signing_degraded", "seal_failed", "authserver_called"}
    assert set(rows) | keys == {
        name for name, each in vars(signals).items() if isinstance(each, signals.Signal)
    }
    seen: dict[str, set[str]] = {}

    def note(name: str) -> Callable[..., None]:
        def receive(sender: Any, signal: Any, **named: Any) -> None:
            seen[name] = set(named)

        return receive

    receivers = [(getattr(signals, name), note(name)) for name in rows]
    for signal, receive in receivers:
        signal.connect(receive, weak=False)
    try:
        view = token_required(lambda request: None)
        for options in ({}, {"active": False}, {"error": AuthserverUnavailable()}):
            with override_token(**options):  # type: ignore[arg-type]
                try:
                    view(_request())
                except AttributeError:
                    assert options == {}  # the view gives no response
    finally:
        for signal, receive in receivers:
            signal.disconnect(receive)
    assert {name: set(named) for name, named in rows.items()} == seen


def _request() -> Any:
    from django.test import RequestFactory

    return RequestFactory().get("/")


def test_the_attributes_of_principals_are_those_that_they_have() -> None:
    page = prose(REFERENCE).partition("## `django_baikal.principals`")[2]
    named = set(re.findall(r"`(\w+)(?:\(\))?`", page.partition("## `django_baikal.backends")[0]))
    public = {name for name in dir(principals.Principal) if not name.startswith("_")}
    public -= {f"a{name}" for name in public}
    public -= {"delete", "set_password", "check_password", "get_session_auth_hash"}
    assert public <= named


def test_override_token_is_in_the_reference_with_its_signature() -> None:
    text = prose(TESTING)
    assert f"`override_token{test_docs.shown_signature(override_token.__init__)}`" in text
    named = [name for row in table(TESTING, "argument") for name in re.findall(r"`(\w+)`", row[0])]
    assert named == arguments(override_token.__init__)


def test_the_fixtures_are_in_the_reference() -> None:
    rows = {code(row[0]) for row in table(TESTING, "fixture")}
    assert rows == {
        name
        for name, each in vars(fixtures).items()
        if type(each).__name__ == "FixtureFunctionDefinition"
    }


def test_the_framework_s_classes_are_in_the_reference() -> None:
    pytest.importorskip("rest_framework")
    from django_baikal.contrib import rest_framework
    from django_baikal.testing.rest_framework import TokenAPIClient

    text = (DOCS / "reference" / "rest-framework.md").read_text("utf-8")
    assert set(rest_framework.__all__) <= set(re.findall(r"`(\w+)`", text))
    own = {name for name in vars(TokenAPIClient) if not name.startswith("_")} - {"request"}
    assert {code(row[0]).partition("(")[0] for row in table(TESTING, "method")} == own


def test_the_bearer_of_ninja_is_in_the_reference_with_its_signature() -> None:
    pytest.importorskip("ninja")
    from django_baikal.contrib.ninja import BaikalBearer

    page = DOCS / "reference" / "ninja.md"
    assert f"## `BaikalBearer{test_docs.shown_signature(BaikalBearer)}`" in prose(page)
    named = [name for row in table(page, "argument") for name in re.findall(r"`(\w+)`", row[0])]
    assert named == arguments(BaikalBearer)
