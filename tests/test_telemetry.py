"""What is told of requests to the authserver; and the counters and spans that are made of it."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from pprint import pformat
from typing import Any

import pytest
import test_docs
from django.conf import settings
from django.dispatch import Signal
from django.http import HttpResponse
from django.test import AsyncClient, Client, RequestFactory, override_settings
from keys_stage import aliases, refused
from stage import both_ways
from test_docs import DOCS, PACKAGE, Page, blocks, code, free_ports, table

from django_baikal import OpenIDClient, clients, signals
from django_baikal.decorators import token_required
from django_baikal.exceptions import AuthserverUnavailable, BaikalError
from django_baikal.models import SigningKey
from django_baikal.testing import FakeAuthserver, override_token

WATCH = DOCS / "howto" / "watch-it.md"
ENDPOINTS = ["discovery", "jwks", "token", "introspection", "revocation"]

page_runner = test_docs.page_runner


@pytest.fixture
def authserver() -> Iterator[FakeAuthserver]:
    with (
        FakeAuthserver().serve() as server,
        override_settings(BAIKAL={"default": server.settings(TIMEOUT=20)}),
    ):
        yield server


@pytest.fixture
def told() -> Iterator[list[dict[str, Any]]]:
    """Note what is told; by a function that then fails, which must change nothing."""
    seen: list[dict[str, Any]] = []

    def note(sender: Any, signal: Any, **named: Any) -> None:
        assert sender is OpenIDClient
        seen.append(named)
        raise ValueError("a receiver that fails")

    signals.authserver_called.connect(note)
    yield seen
    signals.authserver_called.disconnect(note)


def short(told: list[dict[str, Any]]) -> list[tuple[str, int | None, str | None]]:
    return [
        (each["endpoint"], each["status"], getattr(each["error"], "code", None)) for each in told
    ]


def id_token(server: FakeAuthserver) -> str:
    """Give one, with a client that nobody watches."""
    other = OpenIDClient(timeout=60)
    request = other.start_authorization("https://me.example.com/cb", "openid")
    answered = server.authorize(request.url)
    found = re.search(r"code=([^&]+)", answered)
    assert found
    answer = other.grant_code(
        found[1],
        "https://me.example.com/cb",
        code_verifier=request.code_verifier,
        full_authserver_response=True,
    )
    return str(answer["id_token"])


@both_ways
def test_each_request_is_told_of_once_it_is_answered(call: Any, authserver: Any, told: Any) -> None:
    user = id_token(authserver)
    told.clear()
    client = clients["default"]
    token = call(client, "grant_client", "read")
    call(client, "introspect", token)
    call(client, "verify_id_token", user)
    call(client, "revoke", token)
    assert [each["endpoint"] for each in told] == [
        *("discovery", "token", "introspection", "jwks", "revocation")
    ]
    (row,) = table(DOCS / "reference" / "client.md", "signal")
    for each in told:
        assert [*each] == re.findall(r"`(\w+)`", row[1])
        assert (each["using"], each["status"], each["error"]) == ("default", 200, None)
        assert 0 < each["seconds"] < 600
    assert {each["endpoint"] for each in told} == {*ENDPOINTS}
    text = (DOCS / "reference" / "client.md").read_text("utf-8")
    named = re.search(r"`endpoint` is (.*?)\. `status`", text, re.DOTALL)
    assert named and re.findall(r"`(\w+)`", named[1]) == ENDPOINTS
    for secret in (token, user, "test-secret"):
        assert secret not in pformat(told)


@both_ways
def test_a_request_without_an_answer_is_told_of_with_the_reason(
    call: Any, authserver: Any, told: Any
) -> None:
    client = clients["default"]
    call(client, "grant_client")
    told.clear()
    for fault, status, reason in (
        ({"status": 500}, 500, None),
        ({"status": 400}, 400, None),
        ({"hang": True}, None, "timeout"),
    ):
        with authserver.fail("token", **fault), pytest.raises(BaikalError):
            call(client, "grant_client", timeout=2 if "hang" in fault else None)
        assert short(told) == [("token", status, reason)]
        told.clear()
    (port,) = free_ports(1)
    gone = OpenIDClient(f"http://127.0.0.1:{port}", "a", "b", timeout=60)
    with pytest.raises(AuthserverUnavailable):
        call(gone, "grant_client")
    assert short(told) == [("discovery", None, "connection_failed")]


@both_ways
def test_nothing_is_told_of_what_comes_from_the_cache(
    call: Any, authserver: Any, told: Any
) -> None:
    client = clients["default"]
    token = call(client, "get_token", "read")
    told.clear()
    assert call(client, "get_token", "read") == token
    assert told == []


def test_nothing_is_told_of_a_request_that_was_cancelled(authserver: Any, told: Any) -> None:
    client = clients["default"]
    client.grant_client()
    told.clear()

    async def cancelled() -> None:
        with authserver.fail("token", hang=True) as fault:
            task = asyncio.create_task(client.agrant_client())
            while not fault.hits:  # noqa: ASYNC110 - it is counted in another thread
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancelled())
    assert told == []


@pytest.mark.django_db
def test_nothing_is_told_of_a_look_at_our_own_keys(told: Any) -> None:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}/jwks.json"
    with override_settings(BAIKAL=aliases()):
        status, _, _ = refused("rotate_keys", "--verify-url", url)
    assert status == 6
    assert told == []


def test_a_coroutine_function_cannot_receive_it() -> None:
    async def receive(**_: Any) -> None: ...

    with pytest.raises(TypeError, match="coroutine function"):
        signals.authserver_called.connect(receive)
    assert not signals.authserver_called.has_listeners()


# The apps


@pytest.mark.parametrize(
    ("name", "library"), [("prometheus", "prometheus_client"), ("opentelemetry", "opentelemetry")]
)
def test_an_app_without_its_library_says_what_to_install(name: str, library: str) -> None:
    program = (
        f"import django, sys; sys.modules['{library}'] = None\n"
        "from django.conf import settings\n"
        f"settings.configure(INSTALLED_APPS=['django_baikal.contrib.{name}'])\n"
        "django.setup()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"ImproperlyConfigured: django_baikal.contrib.{name} needs {library}" in done.stderr
    assert f"pip install 'django-baikal[{name}]'" in done.stderr


def test_without_the_apps_nothing_is_loaded_and_nobody_is_told() -> None:
    program = (
        "import django, sys; from django.conf import settings\n"
        "settings.configure(SECRET_KEY='x', INSTALLED_APPS=['django_baikal'])\n"
        "django.setup()\n"
        "import django_baikal.client, django_baikal.performers\n"
        "from django_baikal import signals\n"
        "assert not any(each.receivers for each in vars(signals).values()"
        " if isinstance(each, signals.Signal))\n"
        "print(*sys.modules)\n"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PACKAGE.parent,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert not {"prometheus_client", "opentelemetry"} & {*loaded}


@pytest.fixture
def installed() -> Iterator[Callable[[str], Any]]:
    """Install an app, for as long as the test runs."""
    ours = [each for each in vars(signals).values() if isinstance(each, Signal)]
    before = [[*each.receivers] for each in ours]
    with ExitStack() as stack:

        def install(name: str) -> None:
            named = [*settings.INSTALLED_APPS, f"django_baikal.contrib.{name}"]
            stack.enter_context(override_settings(INSTALLED_APPS=named))

        yield install
    for each, receivers in zip(ours, before, strict=True):
        each.receivers = receivers


# Prometheus


def scraped() -> dict[str, float]:
    """Give each sample of ours that the page's view shows, by name and labels."""
    answer = Client().get("/metrics")
    assert answer.status_code == 200
    lines = re.findall(r"^(baikal_\S+?(?:\{.*\})?) (\S+)$", answer.content.decode(), re.MULTILINE)
    return {name: float(value) for name, value in lines if "_created{" not in name}


def grown(before: dict[str, float]) -> dict[str, float]:
    """Give what was counted since; of a histogram, how often."""
    return {
        name: value - before.get(name, 0)
        for name, value in scraped().items()
        if value != before.get(name, 0) and not re.search(r"_(bucket|sum)\{", name)
    }


@pytest.fixture
def shown(page_runner: Page) -> Page:
    """Give the page with its settings, its view and its URLs."""
    pytest.importorskip("prometheus_client", reason="prometheus_client is not installed")
    pytest.importorskip("opentelemetry", reason="opentelemetry is not installed")
    for block in blocks(WATCH):
        page_runner.run(block)
    return page_runner


def knock(token: str) -> int:
    view = token_required("read")(lambda request: HttpResponse())
    request = RequestFactory().get("/", headers={"authorization": f"Bearer {token}"})
    return int(view(request).status_code)


def test_tokens_and_requests_are_counted(shown: Page) -> None:
    server = shown.servers["https://auth.example.com"]
    good = server.issue_token(client_id="my-client", scope="read")
    before = scraped()
    assert [knock(good), knock(good), knock("unknown")] == [200, 200, 401]
    with server.fail("introspection", status=500):
        assert knock("another") == 503
    labels = 'alias="default"'
    asked = f'baikal_authserver_request_seconds_count{{{labels},endpoint="introspection"'
    discovery = f'baikal_authserver_request_seconds_count{{{labels},endpoint="discovery"'
    assert grown(before) == {
        f"baikal_tokens_validated_total{{{labels}}}": 2,
        f'baikal_tokens_rejected_total{{{labels},code="inactive_token"}}': 1,
        f'baikal_authserver_unavailable_total{{{labels},code="authserver_unavailable"}}': 1,
        f'{asked},outcome="2xx"}}': 2,
        f'{asked},outcome="5xx"}}': 1,
        f'{discovery},outcome="2xx"}}': 1,
    }
    before = scraped()
    with server.fail("introspection", hang=True):
        assert knock("a-third-one") == 503
    assert grown(before) == {
        f'baikal_authserver_unavailable_total{{{labels},code="timeout"}}': 1,
        f'{asked},outcome="timeout"}}': 1,
    }


def test_async_views_are_counted_as_well(shown: Page) -> None:
    from urls import urlpatterns  # type: ignore[attr-defined]

    @token_required("read")
    async def view(request: Any) -> HttpResponse:
        return HttpResponse()

    urlpatterns.append(test_docs.urls.path("aview", view))  # type: ignore[arg-type]
    before = scraped()
    with override_token("read"):
        assert asyncio.run(AsyncClient().get("/aview")).status_code == 200  # type: ignore[arg-type]
    assert grown(before) == {'baikal_tokens_validated_total{alias="default"}': 1}


@pytest.mark.django_db
def test_what_happens_to_keys_is_counted(
    shown: Page, django_capture_on_commit_callbacks: Any
) -> None:
    from django_baikal.keys import keepers

    entries = aliases(default={"RING": "counted", "PROCESS_CACHE_TTL": 0})
    del entries["default"]["PRIVATE_CERTS_PATH"]
    shown.override({"BAIKAL": entries})
    before = scraped()
    keeper = keepers()["counted"]
    with django_capture_on_commit_callbacks(execute=True):
        keeper.rotate()
        keeper.emergency(kid=keeper.read().rows[0].kid)
    ring = '{ring="counted"}'
    assert grown(before) == {
        f"baikal_keys_created_total{ring}": 3,
        f"baikal_keys_revoked_total{ring}": 1,
    }
    # Of the newest, which must not be the only one that can sign.
    newest = SigningKey.objects.order_by("-sequence").first()
    assert newest is not None
    keeper.promote(force=True)
    SigningKey.objects.filter(pk=newest.pk).update(private_envelope=b"cut")
    before = scraped()
    assert keepers()["counted"].store.signing_key()
    SigningKey.objects.filter(pk=newest.pk).update(retention=1)
    with pytest.raises(BaikalError):
        keepers()["counted"].store.keys()
    assert grown(before) == {
        f"baikal_signing_degraded_total{ring}": 1,
        f"baikal_seals_failed_total{ring}": 1,
    }


def test_processes_are_counted_together_in_the_way_of_prometheus_client(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client", reason="prometheus_client is not installed")
    count = (
        "from types import SimpleNamespace\n"
        "from django_baikal.contrib.prometheus import metrics\n"
        "metrics.validated(token=SimpleNamespace(alias='default'))\n"
    )
    collect = (
        "from prometheus_client import CollectorRegistry, generate_latest, multiprocess\n"
        "registry = CollectorRegistry()\n"
        "multiprocess.MultiProcessCollector(registry)\n"
        "print(generate_latest(registry).decode())\n"
    )
    for program in (count, count, collect):
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=PACKAGE.parent,
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
            check=True,
            capture_output=True,
            text=True,
        )
    assert 'baikal_tokens_validated_total{alias="default"} 2.0' in done.stdout


def test_the_metrics_and_their_labels_are_those_on_the_page() -> None:
    pytest.importorskip("prometheus_client", reason="prometheus_client is not installed")
    from django_baikal.contrib.prometheus import metrics

    rows = {code(row[0]): re.findall(r"`(\w+)`", row[1]) for row in table(WATCH, "metric")}
    own = {}
    for each in vars(metrics).values():
        if isinstance(each, metrics.Counter | metrics.Histogram):
            (family,) = each.describe()
            suffix = "_total" if family.type == "counter" else ""
            own[family.name + suffix] = [*each._labelnames]
    assert rows == own
    for expression, _ in table(WATCH, "expression"):
        for name in re.findall(r"baikal_\w+", expression):
            assert name.removesuffix("_bucket") in own
        assert set(re.findall(r'endpoint="(\w+)"', expression)) <= {*ENDPOINTS}


# OpenTelemetry


@pytest.fixture(scope="session")
def exporter() -> Any:
    """Receive every span of this process."""
    pytest.importorskip("opentelemetry.sdk", reason="the SDK of OpenTelemetry is not installed")
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


@both_ways
def test_each_request_is_a_span_within_the_one_that_it_was_made_in(
    call: Any, exporter: Any, authserver: Any, installed: Any
) -> None:
    from opentelemetry import trace
    from opentelemetry.trace import SpanKind

    installed("opentelemetry")
    client = clients["default"]
    exporter.clear()
    with (
        authserver.fail("token", delay=0.3),
        trace.get_tracer("mine").start_as_current_span("view"),
    ):
        token = call(client, "grant_client", "read")
    discovery, granted, mine = exporter.get_finished_spans()
    for span, endpoint in ((discovery, "discovery"), (granted, "token")):
        assert (span.name, span.kind) == (f"authserver {endpoint}", SpanKind.CLIENT)
        assert span.attributes == {
            "baikal.alias": "default",
            "baikal.endpoint": endpoint,
            "http.response.status_code": 200,
        }
        assert span.status.is_unset
        assert span.parent.span_id == mine.context.span_id
        assert mine.start_time <= span.start_time <= span.end_time <= mine.end_time
        assert span.instrumentation_scope.name == "django_baikal"
    assert granted.end_time - granted.start_time >= 0.3e9
    for secret in (token, "test-secret", authserver.endpoint):
        assert secret not in f"{discovery.to_json()}{granted.to_json()}"
    assert not any("traceparent" in request.headers for request in authserver.requests)


@both_ways
def test_a_request_that_fails_is_a_span_that_failed(
    call: Any, exporter: Any, authserver: Any, installed: Any
) -> None:
    installed("opentelemetry")
    client = clients["default"]
    call(client, "grant_client")
    for fault, kind in (({"status": 503}, "503"), ({"hang": True}, "timeout")):
        exporter.clear()
        with authserver.fail("token", **fault), pytest.raises(AuthserverUnavailable):
            call(client, "grant_client", timeout=2 if "hang" in fault else None)
        (span,) = exporter.get_finished_spans()
        assert not span.status.is_ok and not span.status.is_unset
        assert span.attributes["error.type"] == kind
        assert ("http.response.status_code" in span.attributes) == (kind == "503")


def test_the_attributes_of_spans_are_those_on_the_page() -> None:
    text = WATCH.read_text("utf-8").partition("## Trace with")[2]
    source = (PACKAGE / "contrib" / "opentelemetry" / "spans.py").read_text("utf-8")
    own = set(re.findall(r'"([a-z_]+\.[a-z._]+)"', source))
    assert own == set(re.findall(r"`([a-z_]+\.[a-z._]+)`", text))


@pytest.mark.skipif(
    importlib.util.find_spec("opentelemetry") is None, reason="opentelemetry is not installed"
)
def test_without_the_sdk_no_span_is_made() -> None:
    program = (
        "import sys; sys.modules['opentelemetry.sdk'] = None\n"
        "from django_baikal.contrib.opentelemetry import spans\n"
        "spans.called(using='a', endpoint='b', status=200, error=None, seconds=1)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=PACKAGE.parent, check=True)
