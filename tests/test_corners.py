"""What happens at the edges: a library that is absent, a second thread, a server that ends."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import http.client
import os
import socket
import ssl
import sys
import threading
import time
from typing import Any

import pytest
from loopback import answering, reply, running
from timing import PATIENCE, not_held_up, until
from world import config

from django_baikal.exceptions import (
    AuthserverUnavailable,
    ConfigurationError,
    InvalidResponse,
    OAuthError,
)
from django_baikal.management.commands import baikal_authserver
from django_baikal.performers import Performer, Process, Runtime
from django_baikal.protocol.effects import Fetch, Request, Sleep
from django_baikal.testing import FakeAuthserver
from django_baikal.testing.server import is_loopback
from django_baikal.transports import deadline
from django_baikal.transports.base import Body
from django_baikal.transports.failures import failure
from django_baikal.transports.requests import RequestsTransport
from django_baikal.transports.threaded import ThreadedTransport

REQUEST = Request("POST", "https://auth.example.com/token", {}, b"token=x")


def test_without_aiohttp_coroutines_work_through_threads(monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delitem(sys.modules, "django_baikal.transports.aiohttp", raising=False)
    process = Process(config())
    assert isinstance(process.async_transport, ThreadedTransport)
    assert process.async_transport is process.async_transport
    with FakeAuthserver().serve() as server:
        settings = config(
            authserver_endpoint=server.endpoint,
            client_id="test-client",
            client_secret="test-secret",
        )
        from django_baikal import OpenIDClient

        client = OpenIDClient.of(settings)
        for _ in range(2):
            assert asyncio.run(client.agrant_client("a"))
        assert server.requests.count("discovery") == 1


def test_no_effect_is_begun_after_the_deadline():
    performer = Performer(Runtime(config()), 0.001)
    time.sleep(0.01)
    for perform in (performer.perform, lambda one: asyncio.run(performer.aperform(one))):
        for effect in (Fetch(REQUEST), Sleep(1)):
            with pytest.raises(AuthserverUnavailable, match=r"no answer within 0\.001 seconds"):
                perform(effect)


def test_a_sleep_is_no_longer_than_what_is_left():
    with not_held_up():
        asyncio.run(Performer(Runtime(config()), 0.05).aperform(Sleep(PATIENCE)))
    with not_held_up():
        Performer(Runtime(config()), 0.05).perform(Sleep(PATIENCE))


# -- the development authserver -------------------------------------------------------------------


def test_an_address_that_cannot_be_had_is_said_in_words():
    denied = OSError(errno.EACCES, "Permission denied")
    assert "Permission denied" in baikal_authserver._cannot_serve(denied, "127.0.0.1", 80)


def test_signals_are_left_alone_outside_of_the_main_thread():
    seen = []

    def run() -> None:
        with baikal_authserver._stopped_by_signal():
            seen.append("ran")

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == ["ran"]


@pytest.mark.parametrize(
    ("host", "local"),
    [("authserver.example", False), ("", False), ("10.0.0.1", False), ("localhost", True)],
)
def test_only_this_machine_is_loopback(host, local):
    assert is_loopback(host) is local


def test_an_assertion_that_cannot_be_read_is_refused_in_words():
    server = FakeAuthserver()
    body = (
        b"grant_type=client_credentials&client_id=test-client&client_assertion=e30.e30.x&"
        b"client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer"
    )
    for assertion in (b"e30.e30.x", b"nonsense", b"e30.!.x"):
        request = Request(
            "POST",
            f"{server.endpoint}/token",
            {"content-type": "application/x-www-form-urlencoded"},
            body.replace(b"e30.e30.x", assertion),
        )
        assert server.handle(request).status == 401
    grant = b"grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=nonsense"
    basic = {"authorization": "Basic dGVzdC1jbGllbnQ6dGVzdC1zZWNyZXQ="}
    answer = server.handle(Request("POST", request.url, {**request.headers, **basic}, grant))
    assert answer.status == 400
    assert b"it cannot be read" in answer.body


def test_a_fault_may_say_how_long_its_body_is():
    server = FakeAuthserver()
    server.fail("token", status=503, body="busy", headers={"Content-Length": "4"})
    with server.serve(), pytest.raises(AuthserverUnavailable) as caught:
        _client(server).grant_client()
    assert caught.value.status == 503


def test_a_caller_that_goes_away_is_no_event(caplog):
    with FakeAuthserver().serve() as server:
        server.fail("token", delay=0.2)
        host, _, port = server.endpoint.removeprefix("http://").partition(":")
        for _ in range(3):
            with socket.create_connection((host, int(port))) as caller:
                caller.sendall(b"POST /token HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
                # A reset, and not a polite end.
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        time.sleep(0.5)
    assert "could not be answered" not in caplog.text


def test_a_fault_whose_body_is_no_json_is_recorded_without_an_error():
    server = FakeAuthserver()
    server.fail("token", status=500, body="out of order")
    with server.in_memory(), pytest.raises(AuthserverUnavailable):
        _client(server).grant_client()
    assert server.requests[-1].error is None


def test_an_issuer_of_a_fake_in_memory_is_found_while_serving():
    key_server = FakeAuthserver(endpoint="https://issuer.test/")
    with key_server.in_memory(), FakeAuthserver().serve() as server:
        server.add_client("robot", jwks_uri="https://issuer.test/jwks")
        pytest.importorskip("jwt")
        from django_baikal.keys.generate import generate_key, private_pem

        client = _client(
            server,
            client_id="robot",
            client_auth_method="private_key_jwt",
            client_keys=({"key": private_pem(generate_key("ES256"))},),
        )
        with pytest.raises(OAuthError) as caught:
            client.grant_client()
        assert "is not published" in str(caught.value)
        with running(answering(reply(b"", status="404 Not Found"))) as nothing:
            with pytest.raises(OAuthError) as caught:
                _user(server, f"{nothing.url}/")
            assert "two slashes" in str(caught.value)


def _client(server: FakeAuthserver, **changes: Any) -> Any:
    from django_baikal import OpenIDClient

    values = {"client_id": "test-client", "client_secret": "test-secret", **changes}
    return OpenIDClient.of(config(authserver_endpoint=server.endpoint, **values))


def _user(server: FakeAuthserver, issuer: str) -> Any:
    from django_baikal.keys.generate import generate_key, private_pem

    keys = ({"key": private_pem(generate_key("ES256"))},)
    return _client(server, issuer=issuer, client_keys=keys).grant_user("u", "a", None)


def test_what_is_over_is_forgotten_once_there_is_much_of_it():
    server = FakeAuthserver(access_token_lifetime=1)
    state = server._state
    state.jtis = {("i", str(number)): 0.0 for number in range(10_001)}
    assert state.use_jti("i", "new")
    assert len(state.jtis) == 1
    token = server.issue_token(scope="a")
    (issued,) = state.tokens.values()
    state.tokens |= {str(number): issued for number in range(10_001)}
    server.move_clock(10)
    server.issue_token(scope="a")
    assert len(state.tokens) < 10
    assert token not in state.tokens


def test_a_request_that_breaks_the_fake_itself_is_logged(caplog):
    with FakeAuthserver().serve() as server:
        server._state.clients = None  # type: ignore[assignment]
        host, _, port = server.endpoint.removeprefix("http://").partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
        with contextlib.suppress(http.client.HTTPException, OSError):
            connection.request(
                "POST",
                "/token",
                b"grant_type=client_credentials&client_id=a&client_secret=b",
                {"Content-Type": "application/x-www-form-urlencoded"},
            )
            connection.getresponse()
        connection.close()
        until(lambda: caplog.text, "something is logged")
    assert "could not be answered" in caplog.text


# -- transports -----------------------------------------------------------------------------------


def test_a_socket_outside_of_an_exchange_has_no_deadline():
    left, right = socket.socketpair()
    with left, right:
        ours = deadline.DeadlineSocket(
            left.family, left.type, left.proto, fileno=os.dup(left.fileno())
        )
        with ours:
            right.sendall(b"x")
            assert ours.recv_into(bytearray(1)) == 1
            deadline.exchange.deadline = time.monotonic() - 1
            try:
                with pytest.raises(TimeoutError, match="took too long"):
                    ours.recv_into(bytearray(1))
            finally:
                deadline.exchange.deadline = None


def test_an_interruption_while_connecting_leaves_no_socket_open(monkeypatch):
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(socket.socket, "connect", interrupted)
    with pytest.raises(KeyboardInterrupt):
        deadline.connect("127.0.0.1", 9, None)


def test_an_empty_piece_of_a_body_changes_nothing():
    body = Body({"content-encoding": "gzip"}, limit=100, url="https://x/")
    import gzip

    packed = gzip.compress(b"text", mtime=0)
    for piece in (packed[:12], b"", packed[12:]):
        body.feed(piece)
    assert body.finish() == b"text"
    with pytest.raises(InvalidResponse, match="something after the end"):
        body.feed(b"more")


def test_a_proxy_gets_no_client_certificate(monkeypatch, tmp_path):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    missing = (str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    with pytest.raises(ConfigurationError, match="CLIENT_CERT"):
        RequestsTransport(config(client_cert=missing))
    trustme = pytest.importorskip("trustme")
    issued = trustme.CA().issue_cert("client.example")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.write_bytes(issued.cert_chain_pems[0].bytes())
    key.write_bytes(issued.private_key_pem.bytes())
    transport = RequestsTransport(config(client_cert=(str(certificate), str(key))))
    adapter = transport._adapter
    assert adapter._context is not adapter._proxy_context
    transport.close()


def test_threads_that_were_never_needed_are_closed_all_the_same():
    with running(answering()) as server:
        transport = ThreadedTransport(RequestsTransport(config()))
        transport.close()
        url = Request("GET", f"{server.url}/", {"Accept-Encoding": "identity"})
        assert asyncio.run(transport.asend(url, timeout=PATIENCE)).status == 200
        transport.close()


def test_errors_of_tls_are_told_apart():
    class Wrapped(ssl.SSLError):
        """As aiohttp wraps the library's own."""

    expired = ssl.SSLCertVerificationError(1, "expired")
    expired.verify_code = 10
    wrapped = Wrapped("outer")
    wrapped.__cause__ = expired
    said = str(failure(wrapped, REQUEST, timeout=1))
    assert "has expired" in said
    assert failure(ssl.SSLEOFError(8, "EOF"), REQUEST, timeout=1).code == "connection_failed"
    assert "resolved" in str(failure(socket.gaierror(-2, "x"), REQUEST, timeout=1))
    plain = ssl.SSLError(1, "x")
    assert failure(plain, REQUEST, timeout=1).code == "tls_failed"
    alert = ssl.SSLError(1, "alert")
    alert.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    assert "see CLIENT_CERT" in str(failure(alert, REQUEST, timeout=1))
