from __future__ import annotations

import asyncio
import datetime as dt
import logging
import os
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loopback import Connection, answering, proxying, reply, running
from timing import PATIENCE, not_held_up

from django_baikal.exceptions import AuthserverUnavailable, ConfigurationError
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.effects import Request, Response
from django_baikal.transports.requests import RequestsTransport

trustme = pytest.importorskip("trustme")

Send = Callable[..., Response]
CERTIFICATES = {
    "good": "",
    "self-signed": "is self-signed",
    "unknown-ca": "was issued by a CA that is not known here",
    "expired": "has expired",
    "wrong-host": "is for another IP address",
}
HEADERS = {"Accept-Encoding": "identity", "Authorization": "Basic s3cret-value"}


def post(url: str, path: str = "/token?s3cret-value") -> Request:
    return Request("POST", url + path, HEADERS, b"s3cret-value")


def send_with_requests(request: Request, timeout: float = PATIENCE, **config: Any) -> Response:
    transport = RequestsTransport(ClientConfig(**config))
    try:
        return transport.send(request, timeout=timeout)
    finally:
        transport.close()


def send_with_aiohttp(request: Request, timeout: float = PATIENCE, **config: Any) -> Response:
    pytest.importorskip("aiohttp")
    from django_baikal.transports.aiohttp import AiohttpTransport

    transport = AiohttpTransport(ClientConfig(**config))
    return asyncio.run(transport.asend(request, timeout=timeout))


both = pytest.mark.parametrize(
    "send",
    [
        pytest.param(send_with_requests, id="requests"),
        pytest.param(send_with_aiohttp, id="aiohttp"),
    ],
)


@pytest.fixture(scope="module")
def ca() -> Any:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_path(ca: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture(scope="module")
def contexts(ca: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ssl.SSLContext]:
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=3)
    certificates = {
        "good": ca.issue_cert("127.0.0.1", "localhost"),
        "unknown-ca": trustme.CA().issue_cert("127.0.0.1"),
        "expired": ca.issue_cert("127.0.0.1", not_before=past, not_after=past),
        "wrong-host": ca.issue_cert("other.test"),
    }
    result = {name: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for name in CERTIFICATES}
    for name, certificate in certificates.items():
        certificate.configure_cert(result[name])
    alone = tmp_path_factory.mktemp("self-signed") / "both.pem"
    alone.write_bytes(self_signed())
    result["self-signed"].load_cert_chain(alone)
    return result


def self_signed() -> bytes:
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "alone")])
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    kind = serialization.PrivateFormat.PKCS8
    return certificate.public_bytes(pem) + key.private_bytes(
        pem, kind, serialization.NoEncryption()
    )


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@both
@pytest.mark.parametrize("certificate", CERTIFICATES)
def test_a_certificate_is_checked_against_the_given_ca(
    send: Send, certificate: str, contexts: dict[str, ssl.SSLContext], ca_path: str
) -> None:
    with running(answering(), contexts[certificate]) as server:
        if certificate == "good":
            assert send(post(server.url), verify_certs=ca_path).status == 200
            return
        with pytest.raises(AuthserverUnavailable) as caught:
            send(post(server.url), verify_certs=ca_path)
    assert caught.value.code == "tls_failed"
    message = str(caught.value)
    assert message.startswith(f"POST {server.url}/token: the server's TLS certificate ")
    assert CERTIFICATES[certificate] in message
    assert "VERIFY_CERTS" in message
    assert "s3cret" not in message
    assert server.requests == []


@both
@pytest.mark.parametrize("certificate", CERTIFICATES)
def test_a_private_ca_is_not_trusted_by_default(
    send: Send, certificate: str, contexts: dict[str, ssl.SSLContext]
) -> None:
    with (
        running(answering(), contexts[certificate]) as server,
        pytest.raises(AuthserverUnavailable, match="VERIFY_CERTS") as caught,
    ):
        send(post(server.url))
    assert caught.value.code == "tls_failed"
    assert server.requests == []


@both
@pytest.mark.parametrize("certificate", CERTIFICATES)
def test_checking_can_be_switched_off_and_that_is_logged_once(
    send: Send,
    certificate: str,
    contexts: dict[str, ssl.SSLContext],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with running(answering(), contexts[certificate]) as server:
        assert send(post(server.url), alias="eu", verify_certs=False).status == 200
    logged = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert [r.name for r in logged] == ["django_baikal.transport"]
    assert logged[0].getMessage().startswith("BAIKAL['eu']: VERIFY_CERTS is False: ")


@both
@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_ca_bundle_of_the_environment_is_used_when_trusted(
    send: Send,
    variable: str,
    contexts: dict[str, ssl.SSLContext],
    ca_path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, ca_path)
    with running(answering(), contexts["good"]) as server:
        assert send(post(server.url)).status == 200
        with pytest.raises(AuthserverUnavailable):
            send(post(server.url), trust_env=False)
    with running(answering(), contexts["self-signed"]) as server:
        assert send(post(server.url), verify_certs=False).status == 200


def test_a_directory_of_cas_can_be_given(
    contexts: dict[str, ssl.SSLContext], ca_path: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        ["openssl", "x509", "-hash", "-noout", "-in", ca_path],
        capture_output=True,
        text=True,
        check=True,
    )
    (tmp_path / f"{done.stdout.strip()}.0").write_bytes(Path(ca_path).read_bytes())
    with running(answering(), contexts["good"]) as server:
        assert send_with_requests(post(server.url), verify_certs=str(tmp_path)).status == 200


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"verify_certs": "/nowhere/ca.pem"}, "VERIFY_CERTS"),
        ({"verify_certs": __file__}, "VERIFY_CERTS"),
        ({"client_cert": ("/nowhere/c.pem", "/nowhere/k.pem")}, "CLIENT_CERT"),
        ({}, "REQUESTS_CA_BUNDLE"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_by_its_setting(
    config: dict[str, Any], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not config:
        monkeypatch.setenv(named, "/nowhere/ca.pem")
    with pytest.raises(ConfigurationError, match=rf"BAIKAL\['eu'\]: {named} "):
        RequestsTransport(ClientConfig(alias="eu", **config))


@both
def test_a_client_certificate_is_presented(
    send: Send, ca: Any, ca_path: str, tmp_path: Path
) -> None:
    ours = ca.issue_cert("client")
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in ours.cert_chain_pems))
    key.write_bytes(ours.private_key_pem.bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    with running(answering(), context) as server:
        cert = (str(certificate), str(key))
        assert send(post(server.url), verify_certs=ca_path, client_cert=cert).status == 200
        with pytest.raises(AuthserverUnavailable):
            send(post(server.url), verify_certs=ca_path)


@both
def test_plain_http_on_a_tls_port_is_told(send: Send) -> None:
    def complain(connection: Connection) -> None:
        connection.sock.recv(4096)
        connection.send(reply(status="400 Bad Request"))

    with (
        running(complain) as server,
        pytest.raises(AuthserverUnavailable, match="plain http on this port") as caught,
    ):
        send(post(server.url.replace("http:", "https:")))
    assert caught.value.code == "tls_failed"


def hang(connection: Connection) -> None:
    connection.hang()


def drip_head(connection: Connection) -> None:
    connection.request()
    connection.drip(reply(headers=("X: " + "a" * 5000,)))


@both
@pytest.mark.parametrize("handler", [hang, drip_head])
@pytest.mark.parametrize("tunnel", [False, True])
def test_an_exchange_over_tls_ends_at_its_deadline(
    send: Send,
    handler: Callable[[Connection], None],
    tunnel: bool,
    contexts: dict[str, ssl.SSLContext],
    ca_path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with running(proxying()) as proxy, running(handler, contexts["good"]) as server:
        if tunnel:
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        with not_held_up(), pytest.raises(AuthserverUnavailable) as caught:
            send(post(server.url), timeout=0.4, verify_certs=ca_path)
        assert caught.value.code == "timeout"
        server.stop()


@both
def test_a_handshake_and_a_tunnel_that_hang_end_at_the_deadline(
    send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drip_tunnel(connection: Connection) -> None:
        connection.request()
        connection.drip(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000)

    with running(hang) as server, running(drip_tunnel) as proxy:
        for use_proxy in (False, True):
            if use_proxy:
                monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
            with not_held_up(), pytest.raises(AuthserverUnavailable) as caught:
                send(post(server.url.replace("http:", "https:")), timeout=0.4)
            assert caught.value.code == "timeout"
        server.stop()
        proxy.stop()


@both
def test_https_goes_through_a_tunnel_and_is_still_checked(
    send: Send,
    contexts: dict[str, ssl.SSLContext],
    ca_path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with running(proxying()) as proxy, running(answering(), contexts["good"]) as server:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        assert send(post(server.url), verify_certs=ca_path).status == 200
        assert proxy.requests[0].startswith(f"CONNECT 127.0.0.1:{server.port} ".encode())
        assert b"s3cret" not in b"".join(proxy.requests)
        assert b"Proxy" not in server.requests[0]
        with pytest.raises(AuthserverUnavailable) as caught:
            send(post(server.url))
        assert caught.value.code == "tls_failed"


def test_a_connection_through_a_proxy_that_was_closed_is_made_again(
    contexts: dict[str, ssl.SSLContext], ca_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(proxying()) as proxy, running(answering(close=True), contexts["good"]) as server:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        transport = RequestsTransport(ClientConfig(verify_certs=ca_path))
        for _ in range(3):
            assert transport.send(post(server.url), timeout=PATIENCE).status == 200
            server.wait_until_idle()
        transport.close()
    assert server.connections == len(proxy.requests) == 3


@both
def test_a_proxy_may_speak_tls_itself(
    send: Send,
    contexts: dict[str, ssl.SSLContext],
    ca_path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with running(answering(), contexts["good"]) as proxy:
        monkeypatch.setenv("http_proxy", f"https://127.0.0.1:{proxy.port}")
        if send is send_with_requests:
            url = "http://authserver.example:1"
            assert send(post(url), verify_certs=ca_path).status == 200
            assert proxy.requests[0].startswith(b"POST http://authserver.example:1/token")
            with pytest.raises(AuthserverUnavailable):
                send(post(url))


def test_a_new_loop_per_request_leaves_no_tls_connection_open(
    contexts: dict[str, ssl.SSLContext], ca_path: str
) -> None:
    pytest.importorskip("aiohttp")
    from django_baikal.transports.aiohttp import AiohttpTransport

    transport = AiohttpTransport(ClientConfig(verify_certs=ca_path))
    with running(answering(), contexts["good"]) as server:
        for _ in range(20):
            assert asyncio.run(transport.asend(post(server.url), timeout=PATIENCE)).status == 200
        server.wait_until_idle()


def test_the_ca_bundle_is_loaded_once(
    contexts: dict[str, ssl.SSLContext], ca_path: str, tmp_path: Path
) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(Path(ca_path).read_bytes())
    transport = RequestsTransport(ClientConfig(verify_certs=str(bundle)))
    bundle.unlink()

    def one_request(connection: Connection) -> None:
        connection.request()
        connection.send(reply())

    with running(one_request, contexts["good"]) as server:
        for _ in range(3):
            assert transport.send(post(server.url), timeout=PATIENCE).status == 200
            server.wait_until_idle()
        assert server.connections == 3
    # requests would add all public CAs to a context that is to have only ours.
    context = transport._adapter._context  # type: ignore[attr-defined]
    assert context.cert_store_stats()["x509_ca"] == 1
    transport.close()


FORK = """
import asyncio, gc, os, sys
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.effects import Request
from django_baikal.transports.{kind} import {name} as Transport

config = ClientConfig(verify_certs={ca!r})
request = Request("POST", {url!r}, {{"Accept-Encoding": "identity"}}, b"x")
transport = Transport(config)
if {kind!r} == "aiohttp":
    def call(transport):
        return loop.run_until_complete(transport.asend(request, timeout=60)).status
    loop = asyncio.new_event_loop()
else:
    def call(transport):
        return transport.send(request, timeout=60).status
assert call(transport) == 200
child = os.fork()
if not child:
    status = 1
    try:
        if {kind!r} == "aiohttp":
            import warnings
            # Session and loop are the parent's, and in the child nothing can close them.
            warnings.simplefilter("ignore")
            loop.set_exception_handler(lambda *_: None)
            asyncio.set_event_loop(None)
            transport = None
            gc.collect()
            loop = asyncio.new_event_loop()
        transport = None
        gc.collect()
        transport = Transport(config)
        status = 0 if call(transport) == 200 else 2
    finally:
        os._exit(status)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
for _ in range(3):
    assert call(transport) == 200
if {kind!r} == "aiohttp":
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
else:
    transport.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize(
    ("kind", "name"), [("requests", "RequestsTransport"), ("aiohttp", "AiohttpTransport")]
)
def test_after_a_fork_the_parent_keeps_its_connection_and_the_child_makes_its_own(
    kind: str, name: str, contexts: dict[str, ssl.SSLContext], ca_path: str
) -> None:
    pytest.importorskip(kind)
    with running(answering(), contexts["good"]) as server:
        code = FORK.format(kind=kind, name=name, ca=ca_path, url=server.url)
        done = subprocess.run(
            [sys.executable, "-W", "error", "-X", "dev", "-c", code],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=False,
            timeout=4 * PATIENCE,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert (server.connections, len(server.requests)) == (2, 5)
