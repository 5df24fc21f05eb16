from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gzip
import itertools
import logging
import os
import socket
import sys
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from hypothesis import given, settings
from hypothesis import strategies as st
from loopback import Connection, Server, answering, proxying, reply, running
from timing import PATIENCE, not_held_up, until

from django_baikal.exceptions import (
    AuthserverError,
    AuthserverUnavailable,
    BaikalError,
    ConfigurationError,
    InvalidResponse,
)
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.effects import Request, Response
from django_baikal.transports.base import Body, Environment, collect_headers, origin, wire
from django_baikal.transports.deadline import DeadlineSocket
from django_baikal.transports.failures import timed_out
from django_baikal.transports.requests import RequestsTransport
from django_baikal.transports.threaded import ThreadedTransport

try:
    import aiohttp  # noqa: F401
except ImportError:
    HAS_AIOHTTP = False
else:
    HAS_AIOHTTP = True
needs_aiohttp = pytest.mark.skipif(not HAS_AIOHTTP, reason="aiohttp is not installed")

Send = Callable[..., Response]
SECRET = "s3cret-value"
HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Authorization": f"Basic {SECRET}",
    "User-Agent": "test",
}


def post(url: str, body: bytes | None = b"token=s3cret-value") -> Request:
    return Request("POST", url, HEADERS, body)


def get(url: str) -> Request:
    return Request("GET", url, HEADERS)


def send_with_requests(request: Request, timeout: float = PATIENCE, **config: Any) -> Response:
    transport = RequestsTransport(ClientConfig(**config))
    try:
        return transport.send(request, timeout=timeout)
    finally:
        transport.close()


def send_with_aiohttp(request: Request, timeout: float = PATIENCE, **config: Any) -> Response:
    from django_baikal.transports.aiohttp import AiohttpTransport

    transport = AiohttpTransport(ClientConfig(**config))
    return asyncio.run(transport.asend(request, timeout=timeout))


def send_with_threads(request: Request, timeout: float = PATIENCE, **config: Any) -> Response:
    transport = ThreadedTransport(RequestsTransport(ClientConfig(**config)))
    try:
        return asyncio.run(transport.asend(request, timeout=timeout))
    finally:
        transport.close()


BOTH = [
    pytest.param(send_with_requests, id="requests"),
    pytest.param(send_with_aiohttp, id="aiohttp", marks=needs_aiohttp),
]
both = pytest.mark.parametrize("send", BOTH)
all_three = pytest.mark.parametrize("send", [*BOTH, pytest.param(send_with_threads, id="threaded")])


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)


# What goes out.


@pytest.mark.parametrize(
    ("method", "path", "headers", "body"),
    [
        ("GET", "", HEADERS, None),
        ("GET", "/.well-known/openid-configuration?a=b&c", HEADERS, None),
        ("POST", "/token", HEADERS | {"Content-Type": "application/x-www-form-urlencoded"}, b"a=b"),
        ("POST", "/token", HEADERS, None),
        ("POST", "/token", {}, b""),
        ("GET", "/", {"accept": "*/*", "X-Last": "a b"}, None),
        ("POST", "/a%2fb/[x]/;p=~!$&'()*+,?q=%c3%a9[]", {"X-Empty": ""}, b"\0\xff" * 40000),
        ("DELETE", "/x/../y//z", HEADERS, None),
    ],
)
@needs_aiohttp
def test_all_transports_put_the_same_bytes_on_the_wire(
    method: str, path: str, headers: dict[str, str], body: bytes | None
) -> None:
    with running(answering()) as server:
        request = Request(method, server.url + path, headers, body)
        for send in (send_with_requests, send_with_aiohttp, send_with_threads):
            assert send(request).status == 200
    assert len(server.requests) == 3
    assert len(set(server.requests)) == 1
    head = server.requests[0].split(b"\r\n\r\n")[0].decode().split("\r\n")
    sent = [line.partition(": ")[0] for line in head[1:]]
    length = [] if body is None and method == "GET" else ["Content-Length"]
    assert sent == ["Host", *headers, *length]


@all_three
def test_an_answer_of_any_status_is_returned_complete(send: Send) -> None:
    answer = reply(b'{"error":1}', status="418 No", headers=("X-A: 1", "x-a:  2 ", "X-B: \xe9"))
    with running(answering(answer)) as server:
        response = send(post(f"{server.url}/t"))
    assert response.status == 418
    assert response.body == b'{"error":1}'
    assert response.headers["x-a"] == "1, 2"
    assert "content-length" in response.headers


@both
@pytest.mark.parametrize(
    "request_",
    [
        get("ftp://127.0.0.1/"),
        get("file:///etc/passwd"),
        get("http://127.0.0.1/\r\nX: y"),
        get("http://user:s3cret-value@127.0.0.1/"),
        get("http://127.0.0.1/%zz"),
        get("/relative"),
        Request("GET", "http://127.0.0.1:1/", {"A": "s3cret-value\r\nX: y"}),
        Request("GET", "http://127.0.0.1:1/", {"A": "s3cret-value\n"}),
        Request("GET", "http://127.0.0.1:1/", {"A\r\nB": "s3cret-value"}),
        Request("GET", "http://127.0.0.1:1/", {"A": "s3cret-value\xe9"}),
        Request("GET", "http://127.0.0.1:1/", {"A": "1", "a": "2"}),
        Request("GET", "http://127.0.0.1:1/", {"Content-Length": "3"}),
        Request("GET\r\n", "http://127.0.0.1:1/", {}),
    ],
)
def test_what_must_not_be_sent_is_refused(send: Send, request_: Request) -> None:
    with pytest.raises(ConfigurationError) as caught:
        send(request_)
    assert SECRET not in str(caught.value)


def test_an_origin_has_no_default_port() -> None:
    assert origin("HTTPS://Example.com:443/a?b") == "https://example.com"
    assert wire(get("http://[::1]:8000/x"))[1]["Host"] == "[::1]:8000"


# Connections.


def test_a_hundred_calls_use_one_connection() -> None:
    with running(answering()) as server:
        transport = RequestsTransport(ClientConfig())
        for _ in range(100):
            transport.send(post(server.url), timeout=PATIENCE)
        transport.close()
    assert (len(server.requests), server.connections) == (100, 1)


@needs_aiohttp
def test_a_hundred_async_calls_use_one_connection() -> None:
    from django_baikal.transports.aiohttp import AiohttpTransport

    transport = AiohttpTransport(ClientConfig())

    async def calls(url: str) -> None:
        for _ in range(100):
            await transport.asend(post(url), timeout=PATIENCE)

    with running(answering()) as server:
        asyncio.run(calls(server.url))
    assert (len(server.requests), server.connections) == (100, 1)


def test_many_threads_share_a_pool_without_noise(caplog: pytest.LogCaptureFixture) -> None:
    def handle(connection: Connection) -> None:
        while raw := connection.request():
            time.sleep(0.01)
            connection.send(reply(raw.rpartition(b"\r\n\r\n")[2]))

    with running(handle) as server, ThreadPoolExecutor(50) as pool:
        transport = RequestsTransport(ClientConfig())
        bodies = [str(number).encode() for number in range(200)]
        sent = [pool.submit(transport.send, post(server.url, b), timeout=PATIENCE) for b in bodies]
        assert [answered.result().body for answered in sent] == bodies
        assert server.connections <= 50
        transport.close()
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


@needs_aiohttp
def test_many_tasks_each_get_their_own_answer() -> None:
    from django_baikal.transports.aiohttp import AiohttpTransport

    def handle(connection: Connection) -> None:
        while raw := connection.request():
            connection.send(reply(raw.rpartition(b"\r\n\r\n")[2]))

    async def calls(url: str) -> list[bytes]:
        transport = AiohttpTransport(ClientConfig(aiohttp_session_size=20))
        requests = [post(url, str(number).encode()) for number in range(50)]
        answers = await asyncio.gather(*(transport.asend(r, timeout=PATIENCE) for r in requests))
        return [answer.body for answer in answers]

    with running(handle) as server:
        assert asyncio.run(calls(server.url)) == [str(number).encode() for number in range(50)]
    assert server.connections <= 20


def test_a_connection_that_the_server_closed_is_replaced() -> None:
    with running(answering(close=True)) as server:
        transport = RequestsTransport(ClientConfig())
        for _ in range(3):
            transport.send(post(server.url), timeout=PATIENCE)
            server.wait_until_idle()
        transport.close()
    assert server.connections == 3


@both
def test_an_early_hint_is_not_the_answer(send: Send) -> None:
    hints = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    with running(answering(hints + reply(b"real"))) as server:
        assert send(post(server.url)).body == b"real"


def test_after_an_early_hint_the_next_answer_is_the_next_one() -> None:
    def handle(connection: Connection) -> None:
        while raw := connection.request():
            connection.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            time.sleep(0.05)
            connection.send(reply(raw.rpartition(b"\r\n\r\n")[2]))

    with running(handle) as server:
        transport = RequestsTransport(ClientConfig())
        assert transport.send(post(server.url, b"one"), timeout=PATIENCE).body == b"one"
        assert transport.send(post(server.url, b"two"), timeout=PATIENCE).body == b"two"
        transport.close()
    assert server.connections == 1


def test_a_closed_transport_hangs_up_and_can_be_used_again() -> None:
    with running(answering()) as server:
        transport = RequestsTransport(ClientConfig())
        for number in (1, 2):
            transport.send(post(server.url), timeout=PATIENCE)
            transport.close()
            server.wait_until_idle()
            assert server.connections == number


def test_a_call_that_has_begun_is_not_broken_by_a_close() -> None:
    with running(answering()) as server:
        transport = RequestsTransport(ClientConfig())
        url = f"{server.url}/token"
        transport.send(post(url), timeout=PATIENCE)
        begun = transport._pools["http", "127.0.0.1", server.port]
        transport.close()
        assert begun.urlopen("POST", "/token", body=b"a=b", timeout=PATIENCE).status == 200


def test_no_more_than_ten_hosts_are_kept() -> None:
    transport = RequestsTransport(ClientConfig())
    for number in range(12):
        transport._pool("https", f"host{number}.test", 443)
    assert [host for _, host, _ in transport._pools] == [f"host{n}.test" for n in range(2, 12)]


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://[2001:db8::5:443]/token", ("2001:db8::5:443", 443)),
        ("https://[2001:db8::1]:443/token", ("2001:db8::1", 443)),
        ("https://[2001:db8::1]:8443/token", ("2001:db8::1", 8443)),
        ("https://[fd00::abcd]/token", ("fd00::abcd", 443)),
        ("http://[::1]/token", ("::1", 80)),
        ("http://[::1:9463]/token", ("::1:9463", 80)),
        ("https://server.test/token", ("server.test", 443)),
    ],
)
def test_a_request_goes_to_the_host_and_port_of_its_url(
    url: str, address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []

    def resolve(host: str, port: int, **_: Any) -> Any:
        asked.append((host, port))
        raise OSError("no such host")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(AuthserverUnavailable):
        send_with_requests(post(url))
    assert asked == [address]


@pytest.mark.parametrize("body", [b"token=s3cret-value", None], ids=["body", "no body"])
def test_a_request_goes_out_in_one_piece(
    body: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces: list[bytes] = []
    sendall = DeadlineSocket.sendall

    def seen(self: DeadlineSocket, data: bytes) -> None:
        pieces.append(bytes(data))
        sendall(self, data)

    monkeypatch.setattr(DeadlineSocket, "sendall", seen)
    with running(answering()) as server:
        send_with_requests(post(server.url, body))
    assert pieces == server.requests


# The deadline.


def drip_head(connection: Connection) -> None:
    connection.request()
    connection.drip(reply(headers=("X: " + "a" * 5000,)))


def drip_lines(connection: Connection) -> None:
    connection.request()
    connection.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.drip(b"A: b\r\n")


def drip_hints(connection: Connection) -> None:
    connection.request()
    while True:
        connection.send(b"HTTP/1.1 103 Hints\r\n\r\n")
        time.sleep(0.05)


def drip_body(connection: Connection) -> None:
    connection.request()
    connection.send(reply(b"a" * 5000)[:-5000])
    connection.drip(b"a" * 5000)


def drip_chunks(connection: Connection) -> None:
    connection.request()
    connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.drip(b"1\r\na\r\n")


def hang(connection: Connection) -> None:
    connection.request()
    connection.hang()


def wait_for_its_end(connection: Connection) -> None:
    connection.request()
    connection.request()


def never_read(connection: Connection) -> None:
    connection.hang()


def read_slowly(connection: Connection) -> None:
    while connection.sock.recv(4096):
        time.sleep(0.05)


@all_three
@pytest.mark.parametrize(
    "handler",
    [drip_head, drip_lines, drip_hints, drip_body, drip_chunks, hang, never_read, read_slowly],
)
def test_an_exchange_ends_at_its_deadline(
    send: Send, handler: Callable[[Connection], None]
) -> None:
    large = handler in (never_read, read_slowly)
    # More than the kernel's buffers take; aiohttp never blocks, and warns above 1 MiB.
    body = b"s3cret-value" * ((80_000 if send is send_with_aiohttp else 1_000_000) if large else 1)
    with running(handler, small_buffer=large) as server:
        with not_held_up(), pytest.raises(AuthserverUnavailable) as caught:
            send(post(f"{server.url}/token?q=s3cret-value", body), timeout=0.3)
        assert caught.value.code == "timeout"
        assert str(caught.value) == (f"POST {server.url}/token: no complete answer within 0.3 s.")
        server.stop()


@all_three
def test_no_time_left_is_a_timeout_and_nothing_is_sent(send: Send) -> None:
    with (
        running(answering()) as server,
        pytest.raises(AuthserverUnavailable, match="no complete answer"),
    ):
        send(post(server.url), timeout=0)
    assert server.requests == []


def test_addresses_that_do_not_answer_share_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(full.getsockname())
        fillers.append(filler)
    blackhole = (socket.AF_INET, socket.SOCK_STREAM, 6, "", full.getsockname())
    try:
        with running(answering()) as server, monkeypatch.context() as patch:
            works = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))
            patch.setattr(socket, "getaddrinfo", lambda *_, **__: [blackhole] * 100)
            with not_held_up(), pytest.raises(AuthserverUnavailable) as caught:
                send_with_requests(post("http://several.test/"), timeout=1)
            assert caught.value.code == "timeout"
            patch.setattr(socket, "getaddrinfo", lambda *_, **__: [blackhole, works])
            # Half of it is left for the one that works.
            assert send_with_requests(post("http://several.test/"), timeout=8).status == 200
    finally:
        for sock in (*fillers, full):
            sock.close()


def test_waiting_for_a_thread_counts_as_time() -> None:
    async def calls(url: str, transport: ThreadedTransport) -> list[Any]:
        requests = (transport.asend(post(url), timeout=1) for _ in range(1280))
        return await asyncio.gather(*requests, return_exceptions=True)

    with running(hang) as server:
        transport = ThreadedTransport(RequestsTransport(ClientConfig()))
        with not_held_up():
            outcomes = asyncio.run(calls(server.url, transport))
        assert {(type(o), o.code) for o in outcomes} == {(AuthserverUnavailable, "timeout")}
        transport.close()


def test_an_answer_too_late_is_told_in_the_callers_own_seconds() -> None:
    class Slow:
        def send(self, request: Request, *, timeout: float) -> Response:
            raise timed_out(request, timeout / 2)

        def close(self) -> None: ...

    class Broken(Slow):
        def send(self, request: Request, *, timeout: float) -> Response:
            raise AuthserverUnavailable("broken", code="connection_failed")

    for transport, words in (Slow(), "no complete answer within 3 s"), (Broken(), "^broken$"):
        with pytest.raises(AuthserverUnavailable, match=words):
            asyncio.run(ThreadedTransport(transport).asend(post("http://a.test/"), timeout=3))


# What comes back.


def test_a_redirect_is_an_answer_and_not_followed() -> None:
    with running(answering()) as other:
        redirect = reply(status="302 Found", headers=(f"Location: {other.url}/",))
        with running(answering(redirect)) as server:
            for send in [send_with_requests] + [send_with_aiohttp] * HAS_AIOHTTP:
                assert send(get(server.url)).status == 302
    assert other.connections == 0


@both
def test_no_cookie_is_kept(send: Send) -> None:
    with running(answering(reply(headers=("Set-Cookie: a=b; Path=/",)))) as server:
        transport = RequestsTransport(ClientConfig())
        for _ in range(2):
            transport.send(get(server.url), timeout=PATIENCE)
        transport.close()
        if send is send_with_aiohttp:
            from django_baikal.transports.aiohttp import AiohttpTransport

            other = AiohttpTransport(ClientConfig())

            async def twice() -> None:
                await other.asend(get(server.url), timeout=PATIENCE)
                await other.asend(get(server.url), timeout=PATIENCE)

            asyncio.run(twice())
    assert b"cookie" not in b"".join(server.requests).lower()


# Without its time, which would be part of the tests' names.
ZIPPED = gzip.compress(b"x", mtime=0)

COMPRESSED = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "Deflate": lambda data: zlib.compress(data, wbits=-15),
}


@both
@pytest.mark.parametrize("coding", COMPRESSED)
def test_a_compressed_body_is_decompressed(send: Send, coding: str) -> None:
    answer = reply(COMPRESSED[coding](b"hello" * 999), headers=(f"Content-Encoding: {coding}",))
    with running(answering(answer)) as server:
        assert send(get(server.url)).body == b"hello" * 999


@both
@pytest.mark.parametrize("coding", [None, "gzip", "deflate"])
def test_a_body_may_have_the_limit_and_not_a_byte_more(send: Send, coding: str | None) -> None:
    pack = COMPRESSED[coding] if coding else bytes
    headers = (f"Content-Encoding: {coding}",) if coding else ()
    with running(answering(reply(pack(b"a" * 5000), headers=headers))) as server:
        assert len(send(get(server.url), max_response_size=5000).body) == 5000
        with pytest.raises(InvalidResponse) as caught:
            send(get(f"{server.url}/x?{SECRET}"), max_response_size=4999)
    assert caught.value.code == "response_too_large"
    assert "MAX_RESPONSE_SIZE" in str(caught.value)
    assert SECRET not in str(caught.value)


@both
def test_reading_stops_once_the_limit_is_passed(send: Send) -> None:
    sent = []

    def endless(connection: Connection) -> None:
        connection.request()
        connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.send(b"a" * 65536)
            sent.append(65536)

    with running(endless) as server:
        with pytest.raises(InvalidResponse):
            send(get(server.url), max_response_size=100_000)
        server.wait_until_idle()
    assert sum(sent) < 30_000_000  # what fits in the kernel's buffers, with room


@both
def test_a_bomb_is_refused_as_soon_as_the_limit_is_passed(
    send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked = []

    class Counting:
        def __init__(self, wbits: int) -> None:
            self._decoder = decompressobj(wbits)

        def decompress(self, *args: Any) -> bytes:
            unpacked.append(len(data := self._decoder.decompress(*args)))
            return data

        def __getattr__(self, name: str) -> Any:
            return getattr(self._decoder, name)

    decompressobj = zlib.decompressobj
    monkeypatch.setattr(zlib, "decompressobj", Counting)
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(b"\0" * 1_000_000) for _ in range(300)) + packer.flush()
    assert len(bomb) < 1_000_000
    answer = answering(reply(bomb, headers=("Content-Encoding: gzip",)))
    with running(answer) as server, pytest.raises(InvalidResponse) as caught:
        send(get(server.url))
    assert caught.value.code == "response_too_large"
    assert 0 < sum(unpacked) <= ClientConfig().max_response_size + 1


def test_a_bomb_is_never_unpacked_beyond_the_limit() -> None:
    packed = zlib.compress(b"\0" * 50_000_000)
    body = Body({"content-encoding": "deflate"}, limit=1_000_000, url="https://a.test/")
    tracemalloc.start()
    try:
        with pytest.raises(InvalidResponse):
            body.feed(packed)
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


def test_a_compressed_body_that_holds_nothing_is_bounded_too() -> None:
    packer = zlib.compressobj(wbits=-15)
    empty = packer.flush(zlib.Z_FULL_FLUSH) * 20_000
    body = Body({"content-encoding": "deflate"}, limit=10, url="https://a.test/")
    with pytest.raises(InvalidResponse) as caught:
        body.feed(empty)
    assert caught.value.code == "response_too_large"


@given(cuts=st.lists(st.integers(0, 4000), max_size=6), coding=st.sampled_from([*COMPRESSED]))
def test_a_body_does_not_depend_on_how_it_arrives(cuts: list[int], coding: str) -> None:
    data = os.urandom(2000) + b"a" * 2000
    packed = COMPRESSED[coding](data)
    body = Body({"content-encoding": coding}, limit=4000, url="https://a.test/")
    edges = [0, *sorted(min(cut, len(packed)) for cut in cuts), len(packed)]
    for start, end in itertools.pairwise(edges):
        body.feed(packed[start:end])
    assert body.finish() == data


@both
@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("br", b"x"),
        ("gzip, gzip", ZIPPED),
        ("gzip", b"not gzip at all"),
        ("gzip", gzip.compress(b"x" * 99, mtime=0)[:-4]),
        ("gzip", ZIPPED + b"more"),
        ("gzip", ZIPPED + ZIPPED),
        ("gzip", b"\x1f"),
        ("deflate", b"\xff\xff\xff"),
    ],
)
def test_a_body_that_is_not_what_it_says_is_refused(send: Send, coding: str, body: bytes) -> None:
    answer = reply(body, headers=(f"Content-Encoding: {coding}",))
    with running(answering(answer)) as server, pytest.raises(InvalidResponse) as caught:
        send(get(server.url))
    assert caught.value.code == "bad_encoding"


@both
@pytest.mark.parametrize("headers", ["Content-Encoding: gzip", "Content-Encoding: identity"])
def test_a_body_may_be_empty(send: Send, headers: str) -> None:
    with running(answering(reply(b"", headers=(headers,)))) as server:
        assert send(get(server.url)).body == b""


CUT_OFF = [
    b"",
    b"HTTP/1.1 200",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
]
MALFORMED = [
    b"220 smtp ready\r\n\r\n",
    b"HTTP/9.9 x\r\n\r\n",
    b"HTTP/1.1 abc OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
    b"HTTP/1.1 200 OK\r\nA: " + b"b" * 1_000_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 " + b"b" * 1_000_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nno colon here\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}}",
    b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
]


def once(answer: bytes) -> Callable[[Connection], None]:
    def handle(connection: Connection) -> None:
        connection.request()
        connection.send(answer)
        connection.sock.shutdown(socket.SHUT_WR)
        connection.sock.settimeout(5)
        while connection.sock.recv(4096):
            pass

    return handle


@both
@pytest.mark.parametrize("answer", CUT_OFF, ids=range(len(CUT_OFF)))
def test_an_incomplete_answer_is_no_answer(send: Send, answer: bytes) -> None:
    with running(once(answer)) as server, pytest.raises(AuthserverError) as caught:
        send(post(server.url))
    assert isinstance(caught.value, AuthserverUnavailable)
    assert caught.value.code == "connection_failed"


@both
def test_a_broken_chunk_is_no_answer(send: Send) -> None:
    def handle(connection: Connection) -> None:
        connection.request()
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        time.sleep(0.1)
        connection.send(b"zz\r\nabc\r\n0\r\n\r\n")

    # aiohttp waits for more of it.
    with running(handle) as server, pytest.raises(AuthserverUnavailable):
        send(post(server.url), timeout=5)


@both
@pytest.mark.parametrize("answer", MALFORMED, ids=range(len(MALFORMED)))
def test_what_is_not_http_is_an_invalid_response(send: Send, answer: bytes) -> None:
    with running(once(answer)) as server, pytest.raises(AuthserverError) as caught:
        send(post(server.url))
    assert (type(caught.value), caught.value.code) == (InvalidResponse, "malformed_http")


@both
def test_any_garbage_ends_in_an_answer_or_our_error(send: Send) -> None:
    pieces = st.sampled_from(
        [
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.0 204 \r\n",
            b"\r\n",
            b"Content-Length: 3\r\n",
            b":",
            b"\x00",
            b"Transfer-Encoding: chunked\r\n",
            b"3\r\nabc\r\n",
            b"0\r\n\r\n",
            b"Content-Encoding: gzip",
        ]
    )
    answers = st.lists(pieces | st.binary(max_size=20), max_size=8).map(b"".join)

    @settings(max_examples=40, deadline=None)
    @given(answer=answers)
    def check(answer: bytes) -> None:
        with running(once(answer)) as server, contextlib.suppress(BaikalError):
            assert isinstance(send(post(server.url)), Response)

    check()


@both
def test_refused_and_reset_connections_are_no_answer(send: Send) -> None:
    def reset(connection: Connection) -> None:
        connection.request()
        linger = b"\1\0\0\0\0\0\0\0"
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    with running(reset) as server:
        with pytest.raises(AuthserverUnavailable) as caught:
            send(post(server.url))
        assert caught.value.code == "connection_failed"
    with pytest.raises(AuthserverUnavailable, match="refused") as caught:
        send(post(server.url))
    assert caught.value.code == "connection_failed"


@all_three
def test_an_error_holds_nothing_of_the_request(send: Send) -> None:
    with running(once(b"")) as server, pytest.raises(AuthserverUnavailable) as caught:
        send(post(f"{server.url}/token?{SECRET}"))
    error = caught.value
    assert f"{server.url}/token" in str(error)
    assert SECRET not in str(error) + repr(error) + repr(error.args)
    assert (error.__cause__, error.__context__) == (None, None)


@both
def test_an_error_does_not_depend_on_what_the_caller_is_handling(send: Send) -> None:
    with running(once(b"")) as server:
        try:
            raise TimeoutError("of somebody else")
        except TimeoutError:
            with pytest.raises(AuthserverUnavailable) as caught:
                send(post(server.url))
    assert caught.value.code == "connection_failed"


@pytest.mark.parametrize("value", ["1 2", "+1", "\u0661", "", "1, 1"])
def test_a_length_that_is_not_a_number_is_refused(value: str) -> None:
    with pytest.raises(InvalidResponse):
        collect_headers([("Content-Length", value)], "https://a.test/")


# The environment.


@both
def test_a_netrc_is_not_read(send: Send, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("default login leaked password leaked\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    with running(answering()) as server:
        send(Request("GET", server.url, {"Accept-Encoding": "identity"}))
    assert b"uthorization" not in server.requests[0]


@both
def test_a_proxy_of_the_environment_is_used(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    with running(answering()) as server, running(proxying(seen)) as proxy:
        monkeypatch.setenv("http_proxy", f"user:pass@127.0.0.1:{proxy.port}")
        url = f"http://authserver.example:{server.port}/x?y"
        assert send(get(url)).status == 200
        assert proxy.requests[0].startswith(f"GET {url} HTTP/1.1\r\n".encode())
        assert seen == ["Basic dXNlcjpwYXNz"]
        # Plain http to this machine does not leave it.
        for config in ({"trust_env": False}, {}):
            assert send(get(server.url), **config).status == 200
        assert len(proxy.requests) == 1


@both
def test_a_proxy_that_refuses_is_no_answer(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(answering(reply(status="407 Who?"))) as proxy:
        monkeypatch.setenv("https_proxy", f"http://user:{SECRET}@127.0.0.1:{proxy.port}")
        with pytest.raises(AuthserverUnavailable) as caught:
            send(get("https://127.0.0.1:1/x"))
    assert caught.value.code == "connection_failed"
    assert "through the proxy 127.0.0.1" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_the_environment_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(answering()) as server:
        transport = RequestsTransport(ClientConfig())
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        assert transport.send(get(server.url), timeout=PATIENCE).status == 200
        transport.close()


@pytest.mark.parametrize(
    ("no_proxy", "bypassed"),
    [
        ("", False),
        ("*", True),
        ("api.example.com", True),
        ("example.com", True),
        (".example.com", True),
        ("api.example.com:8443", True),
        ("api.example.com:1", False),
        ("ample.com", False),
        ("other.com , API.example.com", True),
    ],
)
def test_no_proxy_names_hosts_domains_and_ports(
    monkeypatch: pytest.MonkeyPatch, no_proxy: str, bypassed: bool
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://p.test:1")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    proxy = Environment.read(ClientConfig()).proxy_for("https://api.example.com:8443/")
    assert proxy == (None if bypassed else "http://p.test:1")


def test_a_proxy_that_is_not_http_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", f"socks5://user:{SECRET}@127.0.0.1:1")
    with pytest.raises(ConfigurationError, match="TRUST_ENV") as caught:
        RequestsTransport(ClientConfig())
    assert SECRET not in str(caught.value)


# Event loops and threads.


@pytest.fixture
def transport() -> Any:
    pytest.importorskip("aiohttp")
    from django_baikal.transports.aiohttp import AiohttpTransport

    return AiohttpTransport(ClientConfig())


def test_one_transport_serves_two_loops_one_after_the_other(transport: Any) -> None:
    with running(answering()) as server:
        for _ in range(2):
            assert asyncio.run(transport.asend(post(server.url), timeout=PATIENCE)).status == 200
            server.wait_until_idle()


def test_a_loop_per_request_leaves_nothing_open(transport: Any) -> None:
    with running(answering()) as server:
        for _ in range(20):
            send = async_to_sync(transport.asend)
            assert send(post(server.url), timeout=PATIENCE).status == 200
        server.wait_until_idle()
        assert server.connections == 20
        assert len(transport._owners) == 1


def test_loops_in_many_threads_do_not_meet(transport: Any) -> None:
    async def calls(url: str) -> set[int]:
        return {(await transport.asend(post(url), timeout=PATIENCE)).status for _ in range(5)}

    with running(answering()) as server, ThreadPoolExecutor(8) as pool:
        outcomes = pool.map(lambda _: asyncio.run(calls(server.url)), range(16))
        assert list(outcomes) == [{200}] * 16
        server.wait_until_idle()
    assert server.connections == 16


def test_a_session_can_be_closed_and_is_made_again(transport: Any) -> None:
    async def calls(server: Server) -> None:
        for _ in range(2):
            await transport.asend(post(server.url), timeout=PATIENCE)
            await transport.aclose()
            await transport.aclose()

    with running(answering()) as server:
        asyncio.run(calls(server))
    assert server.connections == 2


def test_a_cancelled_call_is_cancelled_and_its_connection_closed(transport: Any) -> None:
    async def cancelled(url: str) -> None:
        task = asyncio.create_task(transport.asend(post(url), timeout=PATIENCE))
        await asyncio.to_thread(until, lambda: server.requests, "the request is there")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with running(wait_for_its_end) as server:
        asyncio.run(cancelled(server.url))
        server.wait_until_idle()


def test_a_cancelled_threaded_call_is_cancelled_at_once() -> None:
    async def cancelled(transport: ThreadedTransport, url: str) -> None:
        task = asyncio.create_task(transport.asend(post(url), timeout=2 * PATIENCE))
        await asyncio.to_thread(until, lambda: server.requests, "the request is there")
        task.cancel()
        with not_held_up(), pytest.raises(asyncio.CancelledError):
            await task

    with running(hang) as server:
        transport = ThreadedTransport(RequestsTransport(ClientConfig()))
        asyncio.run(cancelled(transport, server.url))
        transport.close()


def test_threads_are_named_and_see_the_callers_context() -> None:
    variable = contextvars.ContextVar("variable", default="none")
    seen = []

    class Spy:
        def send(self, request: Request, *, timeout: float) -> Response:
            seen.append((threading.current_thread().name, variable.get(), timeout <= PATIENCE))
            return Response(200, {}, b"")

        def close(self) -> None:
            seen.append(("closed", "", True))

    variable.set("mine")
    transport = ThreadedTransport(Spy())
    asyncio.run(transport.asend(post("http://a.test/"), timeout=PATIENCE))
    transport.close()
    assert seen == [("django-baikal_0", "mine", True), ("closed", "", True)]


def test_without_aiohttp_only_its_own_module_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delitem(sys.modules, "django_baikal.transports.aiohttp", raising=False)
    import django_baikal.transports.base
    import django_baikal.transports.threaded

    with pytest.raises(ImportError):
        import django_baikal.transports.aiohttp  # noqa: F401
