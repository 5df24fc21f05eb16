"""The middleware that binds the correlator: under WSGI and ASGI, and what must not pass it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from asgiref.sync import async_to_sync
from django.core.signals import request_finished
from django.db import close_old_connections
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path
from doors_stage import OURS, needs_rest_framework, rest_framework_view, standing, urls
from loopback import Server
from programs import Program
from programs import running as program
from stage import counted

from django_baikal.correlation import CorrelatorFilter, bound, current
from django_baikal.decorators import token_required
from django_baikal.middleware import CorrelatorMiddleware
from django_baikal.testing import FakeAuthserver

CORRELATOR = "django_baikal.middleware.CorrelatorMiddleware"
HERE = Path(__file__).resolve().parent

both_servers = pytest.mark.parametrize(
    "asgi", [pytest.param(False, id="wsgi"), pytest.param(True, id="asgi")]
)


def is_new(correlator: str | None) -> bool:
    return correlator is not None and str(uuid.UUID(correlator)) == correlator


def show(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(current()))


async def ashow(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(current()))


def ask(asgi: bool, at: str, **headers: str) -> Any:
    """Send one request in this process; ``x_correlator`` is a header."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if not asgi:
        return Client(raise_request_exception=False).get(at, headers=named)
    return async_to_sync(AsyncClient(raise_request_exception=False).get)(at, headers=named)


@pytest.fixture
def site() -> Iterator[Callable[..., None]]:
    """Give what sets the views of a site behind the middleware, and of a fake authserver."""
    overrides: list[Any] = []

    def standing(*patterns: Any, middleware: Any = (CORRELATOR,)) -> None:
        override = override_settings(ROOT_URLCONF=urls(*patterns), MIDDLEWARE=[*middleware])
        override.enable()
        overrides.append(override)

    yield standing
    for override in reversed(overrides):
        override.disable()


# -- in this process --------------------------------------------------------------------------


@both_servers
@pytest.mark.parametrize("view", [show, ashow])
def test_a_good_one_is_bound_and_echoed(site: Any, asgi: bool, view: Any) -> None:
    site(path("", view))
    answer = ask(asgi, "/", x_correlator="c-1")
    assert (answer.content, answer.headers["X-Correlator"]) == (b"c-1", "c-1")
    assert current() is None


@both_servers
@pytest.mark.parametrize(
    "bad",
    [None, "", "x" * 257, "x" * (1 << 20), "a b", "ä", "a,b", "a\r\nSet-Cookie: b=c", "<a b=c>"],
)
def test_without_a_good_one_a_new_one_is_made_and_the_bad_one_is_nowhere(
    site: Any, asgi: bool, bad: str | None, caplog: Any
) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        logging.getLogger("site").warning("seen")
        return show(request)

    site(path("", view))
    caplog.handler.addFilter(CorrelatorFilter())
    answers = [ask(asgi, "/", **({} if bad is None else {"x_correlator": bad})) for _ in range(2)]
    for answer in answers:
        echoed = answer.headers["X-Correlator"]
        assert is_new(echoed)
        assert answer.content.decode() == echoed
        assert "Set-Cookie" not in answer.headers
    assert answers[0].content != answers[1].content
    assert [vars(each)["correlator"] for each in caplog.records] == [
        answer.content.decode() for answer in answers
    ]


@both_servers
def test_the_request_has_it_and_a_views_own_header_does_not_hide_it(site: Any, asgi: bool) -> None:
    def view(request: Any) -> HttpResponse:
        return HttpResponse(request.correlator, headers={"X-Correlator": "other"})

    site(path("", view))
    answer = ask(asgi, "/", x_correlator="c-1")
    assert (answer.content, answer.headers["X-Correlator"]) == (b"c-1", "c-1")


@both_servers
@pytest.mark.parametrize("kind", [RuntimeError, asyncio.CancelledError])
def test_nothing_stays_bound_after_an_error(site: Any, asgi: bool, kind: Any) -> None:
    def fails(request: HttpRequest) -> HttpResponse:
        raise kind

    seen: list[str | None] = []

    def look(request: HttpRequest) -> HttpResponse:
        seen.append(current())
        raise kind

    handler = CorrelatorMiddleware(look)
    with pytest.raises(kind):
        handler(HttpRequest())
    assert is_new(seen[0])
    assert current() is None
    if kind is RuntimeError:
        site(path("", fails))
        answer = ask(asgi, "/", x_correlator="c-1")
        assert (answer.status_code, answer.headers["X-Correlator"]) == (500, "c-1")
        assert current() is None


def test_nothing_stays_bound_in_a_task_that_is_cancelled() -> None:
    async def main() -> None:
        began = asyncio.Event()

        async def hang(request: HttpRequest) -> HttpResponse:
            began.set()
            await asyncio.Event().wait()
            raise AssertionError

        async def serve() -> None:
            try:
                await CorrelatorMiddleware(hang)(HttpRequest())
            finally:
                assert current() is None

        task = asyncio.create_task(serve())
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_a_coroutine_view_needs_no_thread_under_asgi(site: Any) -> None:
    async def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(threading.get_ident()))

    async def main() -> bool:
        answer = await AsyncClient().get("/")
        return bool(answer.content.decode() == str(threading.get_ident()))

    site(path("", view), middleware=[CORRELATOR, OURS])
    assert asyncio.run(main())


def hopping(get_response: Any) -> Any:
    """Make a middleware that is sync only, for which Django changes the thread under ASGI."""

    def middleware(request: HttpRequest) -> Any:
        response = get_response(request)
        response.headers["Seen"] = str(current())
        return response

    return middleware


@both_servers
@pytest.mark.parametrize("view", [show, ashow])
@pytest.mark.parametrize("inside", [True, False])
def test_it_reaches_code_in_other_threads(site: Any, asgi: bool, view: Any, inside: bool) -> None:
    order = [CORRELATOR, f"{__name__}.hopping"]
    site(path("", view), middleware=order if inside else order[::-1])
    answer = ask(asgi, "/", x_correlator="c-1")
    assert answer.content == b"c-1"
    assert answer.headers["Seen"] == ("c-1" if inside else "None")
    assert current() is None


@both_servers
@pytest.mark.parametrize(
    ("view", "said"),
    [("missing", "Not Found"), ("refused", "Unauthorized"), ("broken", "Internal Server Error")],
)
def test_what_django_logs_of_an_answer_has_it(
    site: Any, asgi: bool, view: str, said: str, caplog: Any
) -> None:
    """Also what it logs when all the middleware is done."""

    def broken(request: HttpRequest) -> HttpResponse:
        raise ZeroDivisionError

    site(path("broken", broken), path("refused", lambda request: HttpResponse(status=401)))
    caplog.handler.addFilter(CorrelatorFilter())
    ask(asgi, f"/{view}", x_correlator="c-1")
    (record,) = [each for each in caplog.records if each.name == "django.request"]
    assert said in record.getMessage()
    assert vars(record)["correlator"] == "c-1"


# -- the doors --------------------------------------------------------------------------------


def doors() -> list[Any]:
    return [
        pytest.param(lambda: token_required(show), (CORRELATOR,), id="decorator"),
        pytest.param(lambda: token_required(ashow), (CORRELATOR,), id="async-decorator"),
        pytest.param(lambda: show, (CORRELATOR, OURS), id="middleware"),
        pytest.param(lambda: ashow, (CORRELATOR, OURS), id="async-middleware"),
        pytest.param(
            lambda: rest_framework_view({}, handler=True),
            (CORRELATOR,),
            id="framework",
            marks=needs_rest_framework,
        ),
    ]


@both_servers
@pytest.mark.parametrize(("view", "middleware"), doors())
def test_every_door_logs_and_asks_with_it(
    asgi: bool, view: Any, middleware: Any, caplog: Any
) -> None:
    caplog.handler.addFilter(CorrelatorFilter())
    caplog.set_level(logging.INFO, "django_baikal")
    with standing([*middleware], ROOT_URLCONF=urls(path("", view()))) as server:
        answer = ask(asgi, "/", x_correlator="c-1", authorization="Bearer unknown")
    assert (answer.status_code, answer.headers["X-Correlator"]) == (401, "c-1")
    assert {each.headers.get("x-correlator") for each in server.requests} == {"c-1"}
    ours = [each for each in caplog.records if each.name == "django_baikal.bearer"]
    assert ours
    assert {vars(each)["correlator"] for each in caplog.records} == {"c-1"}


# -- streams ----------------------------------------------------------------------------------


def parts() -> Iterator[str]:
    for _ in range(3):
        yield f"{current()} "


async def aparts() -> AsyncIterator[str]:
    for _ in range(3):
        await asyncio.sleep(0)
        yield f"{current()} "


@pytest.mark.parametrize(
    ("asgi", "made"),
    [
        pytest.param(False, parts, id="wsgi"),
        pytest.param(True, aparts, id="asgi"),
    ],
)
def test_each_part_of_a_stream_is_made_with_it(site: Any, asgi: bool, made: Any) -> None:
    def view(request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(made())

    async def aread(response: Any) -> bytes:
        found = []
        async for part in response:
            assert current() is None
            found.append(part)
        return b"".join(found)

    site(path("", view))
    answer = ask(asgi, "/", x_correlator="c-1")
    assert answer.headers["X-Correlator"] == "c-1"
    if asgi:
        content = async_to_sync(aread)(answer)
    else:
        found = []
        for part in answer:
            assert current() is None
            found.append(part)
        content = b"".join(found)
    assert content == b"c-1 c-1 c-1 "
    assert current() is None


def test_two_streams_that_are_read_in_turn_keep_each_its_own(site: Any) -> None:
    site(path("", lambda request: StreamingHttpResponse(parts())))
    streams = [iter(ask(False, "/", x_correlator=f"c-{number}")) for number in range(2)]
    with bound("reader"):
        seen = [next(stream) for _ in range(3) for stream in streams]
        assert current() == "reader"
    assert seen == [b"c-0 ", b"c-1 "] * 3


def test_a_stream_that_breaks_leaves_nothing_bound(site: Any) -> None:
    def breaking() -> Iterator[str]:
        yield "a"
        raise ZeroDivisionError

    site(path("", lambda request: StreamingHttpResponse(breaking())))
    with pytest.raises(ZeroDivisionError):
        list(ask(False, "/"))
    assert current() is None


def test_a_stream_that_is_not_read_to_its_end_is_closed_all_the_same() -> None:
    closed = []

    def endless() -> Iterator[str]:
        try:
            while True:
                yield "a"
        finally:
            closed.append(True)

    stream = StreamingHttpResponse(endless())
    answer = CorrelatorMiddleware(lambda request: stream)(HttpRequest())
    assert next(iter(answer)) == b"a"
    # As the test client does when it closes an answer: this would look for a database.
    request_finished.disconnect(close_old_connections)
    try:
        answer.close()
    finally:
        request_finished.connect(close_old_connections)
    assert closed == [True]


def test_a_file_is_left_to_the_server() -> None:
    with open(__file__, "rb") as opened:
        answer = CorrelatorMiddleware(lambda request: FileResponse(opened))(HttpRequest())
        assert is_new(answer.headers["X-Correlator"])
        assert answer.file_to_stream is opened
        assert b"".join(answer) == Path(__file__).read_bytes()


# -- servers ----------------------------------------------------------------------------------


SERVERS = {
    "gunicorn": [
        *["gunicorn", "--bind=127.0.0.1:0", "--workers=1", "--threads=8"],
        "django.core.wsgi:get_wsgi_application()",
    ],
    "uvicorn": ["uvicorn", "--port=0", "--factory", "django.core.asgi:get_asgi_application"],
}


@pytest.fixture(params=SERVERS)
def served(request: Any) -> Iterator[tuple[Program, Server, FakeAuthserver]]:
    """Serve the site, with an authserver that keeps the bytes it gets."""
    pytest.importorskip(request.param)
    with counted() as (fake, authserver):
        found = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
        environment = {
            **os.environ,
            "PYTHONPATH": found.strip(os.pathsep),
            "DJANGO_SETTINGS_MODULE": "correlated_site",
            "SITE_BAIKAL": json.dumps({"default": fake.settings()}),
            "PYTHONUNBUFFERED": "1",
        }
        command = [sys.executable, "-m", *SERVERS[request.param]]
        with program(command, environment) as site:
            yield site, authserver, fake


def carried(authserver: Server) -> list[bytes]:
    """Give the correlator of each request that the authserver has got."""
    found = []
    for raw in authserver.requests:
        lines = raw.partition(b"\r\n\r\n")[0].split(b"\r\n")
        found += [line[14:] for line in lines if line.startswith(b"X-Correlator: ")] or [b"-"]
    return found


def lines(site: Program, word: str, count: int) -> list[str]:
    """Wait for the lines with ``word`` that the site has logged."""
    end = time.monotonic() + 60
    while len(found := [line.strip() for line in site.said if word in line]) < count:
        assert time.monotonic() < end, "".join(site.said)
        time.sleep(0.05)
    return found


@pytest.mark.programs
def test_a_real_server_binds_sends_on_logs_and_echoes(served: Any) -> None:
    site, authserver, _ = served
    for at in ("/", "/async"):
        del authserver.requests[:]
        answer = requests.get(site.url + at, headers={"x-CORRELATOR": "c-1"}, timeout=60)
        assert answer.headers["X-Correlator"] == "c-1"
        found = answer.json()
        assert {found["correlator"], found["of_request"], found["after"]} == {"c-1"}
        assert set(carried(authserver)) == {b"c-1"}
    assert lines(site, "seen at", 2) == [f"[c-1] site INFO seen at {at}" for at in ("/", "/async")]
    refused = requests.get(
        f"{site.url}/protected",
        headers={"X-Correlator": "c-2", "Authorization": "Bearer unknown"},
        timeout=60,
    )
    assert (refused.status_code, refused.headers["X-Correlator"]) == (401, "c-2")
    assert set(carried(authserver)[-1:]) == {b"c-2"}
    (said,) = lines(site, "is refused", 1)
    assert said.startswith("[c-2] django_baikal.bearer INFO ")
    (said,) = lines(site, "Unauthorized: ", 1)
    assert said.startswith("[c-2] django.request WARNING ")
    broken = requests.get(f"{site.url}/broken", headers={"X-Correlator": "c-3"}, timeout=60)
    assert (broken.status_code, broken.headers["X-Correlator"]) == (500, "c-3")
    (said,) = lines(site, "Internal Server Error: /broken", 1)
    assert said.startswith("[c-3] django.request ERROR ")


@pytest.mark.programs
def test_many_requests_at_once_keep_each_its_own(served: Any) -> None:
    site, authserver, _ = served
    requests.get(site.url, timeout=60)
    del authserver.requests[:]

    def one(number: int) -> tuple[str, str, str]:
        at = ("/", "/async", "/stream", "/async-stream")[number % 4]
        kwargs: dict[str, Any] = {"headers": {"X-Correlator": f"c-{number}"}, "timeout": 120}
        answer = requests.get(f"{site.url}{at}?seconds=0.05", **kwargs)
        if "stream" in at:
            seen = set(answer.text.split())
        else:
            found = answer.json()
            seen = {found["correlator"], found["after"], found["of_request"]}
        return f"c-{number}", answer.headers["X-Correlator"], " ".join(seen)

    with ThreadPoolExecutor(16) as pool:
        for sent, echoed, seen in pool.map(one, range(64)):
            assert sent == echoed == seen
    counted_ = {name: carried(authserver).count(name) for name in set(carried(authserver))}
    assert counted_ == {f"c-{number}".encode(): 3 if number % 4 > 1 else 1 for number in range(64)}


@pytest.mark.programs
@pytest.mark.parametrize("bad", [b"a b", b"x" * 257, b"x" * 6000, b"\xc3\xa4", b"a,b", b"a\tb"])
def test_a_bad_one_on_the_wire_is_replaced(served: Any, bad: bytes) -> None:
    site, authserver, _ = served
    raw = exchange(site.port, b"X-Correlator: " + bad)
    assert raw.startswith(b"HTTP/1.1 200 ")
    (echoed,) = [
        line.partition(b": ")[2]
        for line in raw.partition(b"\r\n\r\n")[0].split(b"\r\n")
        if line.lower().startswith(b"x-correlator:")
    ]
    assert is_new(echoed.decode())
    assert set(carried(authserver)) == {echoed}
    (said,) = lines(site, "seen at", 1)
    assert said == f"[{echoed.decode()}] site INFO seen at /"


@pytest.mark.programs
@pytest.mark.parametrize(
    "head",
    [
        b"X-Correlator: one\r\nX-Correlator: two",
        b"X-Correlator: one\rInjected: yes",
        b"X-Correlator: one\nInjected: yes",
        b"X-Correlator: one\r\n two",
        b"X-Correlator: one\x00two",
        b"X-Correlator: " + b"x" * (1 << 20),
    ],
)
def test_what_tries_to_break_the_line_is_in_no_answer_request_or_log(
    served: Any, head: bytes
) -> None:
    """The servers refuse some of it themselves; what they let pass is replaced."""
    site, authserver, _ = served
    raw = exchange(site.port, head)
    assert b"Injected" not in raw
    status = raw.split(b" ", 2)[1] if raw else b""
    if status == b"200":
        echoed = {
            line.partition(b": ")[2]
            for line in raw.partition(b"\r\n\r\n")[0].split(b"\r\n")
            if line.lower().startswith(b"x-correlator:")
        }
        # A lone line feed ends a line for some servers: the correlator is good then.
        assert len(echoed) == 1
        assert echoed == {b"one"} or is_new(next(iter(echoed)).decode())
        assert set(carried(authserver)) == echoed
    assert all(b"Injected" not in each for each in authserver.requests)
    assert not any("two" in line or "xxxx" in line for line in site.said)


def exchange(port: int, head: bytes) -> bytes:
    """Send raw bytes, and read what comes; a server may hang up before all is sent."""
    with socket.create_connection(("127.0.0.1", port), 60) as sock:
        try:
            sock.sendall(
                b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n" + head + b"\r\n\r\n"
            )
            received = b""
            while data := sock.recv(65536):
                received += data
        except ConnectionError:
            pass
        return received


def test_the_module_needs_no_settings_and_loads_nothing_heavy() -> None:
    """``LOGGING`` names it, and is read before any app."""
    environment = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    script = "import sys, django_baikal.correlation; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert loaded.isdisjoint({"requests", "aiohttp", "jwt", "django.db", "django_baikal.client"})
