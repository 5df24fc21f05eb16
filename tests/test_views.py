"""What is published, by Django's test client and by real servers on loopback."""

from __future__ import annotations

import gzip
import http.client
import itertools
import json
import os
import re
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.handlers.wsgi import WSGIHandler
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.test import AsyncClient, Client, override_settings
from django.urls import include, path, reverse
from material import assert_tells_nothing, ec_key, jwk, jwk_text, pem, rsa_key
from programs import running

import django_baikal
from django_baikal import clients
from django_baikal.views import IssuerMetadataView, JWKSView

HERE = Path(__file__).resolve().parent
JWKS, METADATA = "/.well-known/jwks.json", "/.well-known/openid-configuration"
BOTH = [JWKS, METADATA]
ISSUER = "https://me.example.com/"
CACHED = "public, max-age=900, stale-while-revalidate=60, stale-if-error=3600"
ENTRY = {
    "AUTHSERVER_ENDPOINT": "https://auth.example.com",
    "CLIENT_ID": "client",
    "CLIENT_SECRET": "secret",
    "ISSUER": ISSUER,
    "CLIENT_KEYS": [
        {"key": jwk_text(rsa_key(), kid="rsa", x5c=["AAAA"], key_ops=["sign"])},
        {"key": pem(ec_key()), "kid": "ec"},
    ],
}
DEFAULT_MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
STACKS = {
    "empty": [],
    "default": DEFAULT_MIDDLEWARE,
    "login required": [
        *DEFAULT_MIDDLEWARE,
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
    ],
    "conditional and gzip": [
        "django.middleware.gzip.GZipMiddleware",
        "django.middleware.http.ConditionalGetMiddleware",
        *DEFAULT_MIDDLEWARE,
    ],
}

# A URLconf with other aliases, and one under a prefix.
urlpatterns = [
    path("", include("django_baikal.urls")),
    path("eu/jwks", JWKSView.as_view(using="eu")),
    path("eu/metadata", IssuerMetadataView.as_view(using="eu")),
    path("tenant/", include("django_baikal.urls", namespace="tenant")),
]


def entry(**changes: Any) -> Any:
    return override_settings(BAIKAL={"default": {**ENTRY, **changes}})


@pytest.fixture(autouse=True)
def _configured() -> Iterator[None]:
    with (
        entry(),
        override_settings(
            ROOT_URLCONF=__name__,
            SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        ),
    ):
        yield


@pytest.fixture
def client() -> Client:
    return Client(enforce_csrf_checks=True)


def get(client: Client, url: str, **headers: str) -> Any:
    """Get ``url`` as it is: the test client takes what follows ``//`` for a host."""
    return client.get("/", headers=headers, PATH_INFO=url)


def test_the_public_keys_are_published_and_nothing_else_of_them(client):
    response = client.get(JWKS)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    rsa, ec = jwk(rsa_key()), jwk(ec_key())
    assert response.json() == {
        "keys": [
            {"kty": "RSA", "kid": "rsa", "use": "sig", "alg": "RS256"}
            | {name: rsa[name] for name in ("n", "e")},
            {"kty": "EC", "kid": "ec", "use": "sig", "alg": "ES256", "crv": "P-256"}
            | {name: ec[name] for name in ("x", "y")},
        ]
    }
    assert_tells_nothing(response.text, rsa_key(), ec_key())


def test_the_metadata_names_the_issuer_and_the_keys(client):
    response = client.get(METADATA)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.json() == {"issuer": ISSUER, "jwks_uri": "https://me.example.com" + JWKS}


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
@pytest.mark.parametrize("url", [*BOTH, "/" + JWKS, "/" + METADATA])
@pytest.mark.parametrize("cookies", [False, True])
def test_a_document_is_public_under_any_middleware(client, url, stack, cookies):
    if cookies:
        session = client.session
        session["seen"] = True
        session.save()
        client.cookies["sessionid"] = session.session_key
        client.cookies["csrftoken"] = "c" * 32
    with override_settings(MIDDLEWARE=stack):
        response = get(client, url)
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == CACHED
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in response.headers
    assert response.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert re.fullmatch(r'"[A-Za-z0-9_-]{24}"', response.headers["ETag"])
    assert response.headers["Content-Length"] == str(len(response.content))
    assert not response.cookies
    assert "cookie" not in response.headers.get("Vary", "").lower()
    assert "Last-Modified" not in response.headers


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
@pytest.mark.parametrize("url", BOTH)
def test_head_is_get_without_a_body(client, url, stack):
    with override_settings(MIDDLEWARE=stack):
        head, get = client.head(url), client.get(url)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers == get.headers


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "QUERY"])
@pytest.mark.parametrize("url", BOTH)
def test_other_methods_are_answered_405_with_allow(client, url, method, stack):
    with override_settings(MIDDLEWARE=stack):
        response = client.generic(method, url, b"{}")
    assert response.status_code == 405
    assert response.headers["Allow"] == "GET, HEAD, OPTIONS"
    assert not response.cookies


def test_options_says_what_is_allowed(client):
    response = client.options(JWKS)
    assert response.status_code == 200
    assert response.headers["Allow"] == "GET, HEAD, OPTIONS"
    assert response.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ("{etag}", 304),
        ("W/{etag}", 304),
        ('"other", {etag}', 304),
        ('"other",W/{etag} , "third"', 304),
        ("*", 304),
        ('"other"', 200),
        ('W/"other"', 200),
        ("{bare}", 200),
        ("", 200),
        ("nonsense,,,", 200),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("url", BOTH)
@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
def test_who_has_the_document_is_told_so(client, url, method, sent, status, stack):
    with override_settings(MIDDLEWARE=stack):
        etag = client.get(url).headers["ETag"]
        sent = sent.format(etag=etag, bare=etag.strip('"'))
        response = client.generic(method, url, headers={"if-none-match": sent})
    assert response.status_code == status
    assert response.headers["ETag"] == etag
    assert response.headers["Cache-Control"] == CACHED
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    if status == 304:
        assert response.content == b""
        assert "Content-Type" not in response.headers


def test_a_compressed_document_is_still_recognised(client):
    with override_settings(MIDDLEWARE=STACKS["conditional and gzip"]):
        response = client.get(JWKS, headers={"accept-encoding": "gzip"})
        assert json.loads(gzip.decompress(response.content))["keys"]
        etag = response.headers["ETag"]
        sent = {"accept-encoding": "gzip", "if-none-match": etag}
        assert client.get(JWKS, headers=sent).status_code == 304


def test_the_etag_changes_with_the_keys_and_only_with_them(client):
    first = client.get(JWKS).headers["ETag"]
    assert client.get(JWKS).headers["ETag"] == first
    with entry(CLIENT_KEYS=ENTRY["CLIENT_KEYS"][:1]):
        response = client.get(JWKS, headers={"if-none-match": first})
        assert response.status_code == 200
        assert response.headers["ETag"] != first
    assert client.get(JWKS).headers["ETag"] == first
    assert client.get(METADATA).headers["ETag"] != first


HOSTILE = [
    {"host": "evil.example"},
    {"host": "evil.example:8443"},
    {"x-forwarded-host": "evil.example"},
    {"x-forwarded-host": "evil.example", "x-forwarded-proto": "http", "x-forwarded-port": "81"},
    {"forwarded": "host=evil.example"},
    {"x-original-url": "/evil.example", "x-rewrite-url": "//evil.example"},
]


@pytest.mark.parametrize("headers", HOSTILE)
@pytest.mark.parametrize("trusting", [False, True])
@pytest.mark.parametrize("url", [METADATA, "/" + METADATA])
def test_the_issuer_is_never_what_a_caller_says(client, headers, trusting, url):
    with override_settings(ALLOWED_HOSTS=["*"], USE_X_FORWARDED_HOST=trusting):
        response = get(client, url, **headers)
        assert response.status_code == 200
        assert response.json() == {"issuer": ISSUER, "jwks_uri": "https://me.example.com" + JWKS}
        assert b"evil" not in client.get(JWKS, headers=headers).content


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
def test_a_host_that_is_not_allowed_gets_no_other_answer(client, stack):
    with override_settings(ALLOWED_HOSTS=["me.example.com"], MIDDLEWARE=stack):
        response = client.get(METADATA, headers={"host": "evil.example"})
    assert response.status_code in (200, 400)
    assert b"//evil" not in response.content


@pytest.mark.parametrize(
    ("issuer", "jwks_uri"),
    [
        ("https://me.example.com", "https://me.example.com" + JWKS),
        ("https://me.example.com//", "https://me.example.com" + JWKS),
        ("https://me.example.com/a/b", "https://me.example.com/a/b" + JWKS),
        ("https://me.example.com:8443/a/", "https://me.example.com:8443/a" + JWKS),
        ("http://localhost:8000", "http://localhost:8000" + JWKS),
    ],
)
def test_the_address_of_the_keys_follows_from_the_issuer(client, issuer, jwks_uri):
    with entry(ISSUER=issuer):
        assert client.get(METADATA).json() == {"issuer": issuer, "jwks_uri": jwks_uri}


@pytest.mark.parametrize(
    "issuer",
    ["", "my-service", "urn:me", "https://", "https://me/?a=b", "https://me/?", "https://me/#x"],
)
def test_an_issuer_that_is_no_address_has_no_metadata_but_keys(client, issuer):
    with entry(ISSUER=issuer):
        assert client.get(METADATA).status_code == 404
        assert client.get(JWKS).status_code == 200


@pytest.mark.parametrize(
    "url",
    [
        JWKS + "/",
        JWKS + "x",
        JWKS + "\n",
        "//" + JWKS,
        "/.well-known/jwksxjson",
        "/x" + JWKS,
        METADATA + "/",
        METADATA + "\n",
    ],
)
def test_no_other_address_is_answered(client, url):
    assert get(client, url).status_code == 404


def test_the_addresses_can_be_reversed():
    assert reverse("django_baikal:jwks") == JWKS
    assert reverse("django_baikal:openid-configuration") == METADATA
    assert reverse("tenant:jwks") == "/tenant" + JWKS


@pytest.mark.parametrize("url", ["/tenant" + JWKS, "/tenant/" + JWKS])
def test_an_issuer_with_a_path_has_its_documents_there(client, url):
    assert get(client, url).json() == client.get(JWKS).json()


def test_another_alias_has_documents_of_its_own(client):
    eu = {**ENTRY, "ISSUER": "https://eu.example.com", "CLIENT_KEYS": [{"key": pem(ec_key(1))}]}
    with override_settings(BAIKAL={"default": ENTRY, "eu": eu}):
        assert client.get("/eu/metadata").json()["issuer"] == "https://eu.example.com"
        assert client.get("/eu/jwks").json() == clients["eu"].get_jwk_set(dump_json=False)
        assert client.get("/eu/jwks").json() != client.get(JWKS).json()


# -- when there are no keys ------------------------------------------------------------------------


def test_without_keys_the_set_is_empty_and_nobody_may_keep_it(client, tmp_path):
    for changes in ({"CLIENT_KEYS": []}, {"CLIENT_KEYS": [], "PRIVATE_CERTS_PATH": str(tmp_path)}):
        with entry(**changes):
            response = client.get(JWKS)
            assert (response.status_code, response.json()) == (200, {"keys": []})
            assert response.headers["Cache-Control"] == "no-store"


def broken(name: str, tmp_path: Path) -> dict[str, Any]:
    if name == "missing directory":
        return {"CLIENT_KEYS": [], "PRIVATE_CERTS_PATH": str(tmp_path / "missing")}
    if name == "missing directory beside keys":
        return {"PRIVATE_CERTS_PATH": str(tmp_path / "missing")}
    if name == "no directory":
        (tmp_path / "file").touch()
        return {"CLIENT_KEYS": [], "PRIVATE_CERTS_PATH": str(tmp_path / "file")}
    if name == "files that cannot be used":
        (tmp_path / "a.pem").write_text(pem(rsa_key())[:-50])
        return {"CLIENT_KEYS": [], "PRIVATE_CERTS_PATH": str(tmp_path)}
    return {"CLIENT_KEYS": [{"key": "nonsense"}]}


@pytest.mark.parametrize(
    "name",
    [
        "missing directory",
        "missing directory beside keys",
        "no directory",
        "files that cannot be used",
        "entries that cannot be used",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_store_that_cannot_be_read_is_503_and_never_an_empty_set(
    client, caplog, tmp_path, name, method
):
    with entry(**broken(name, tmp_path)):
        response = client.generic(method, JWKS, headers={"if-none-match": "*"})
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "30"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert "ETag" not in response.headers
    assert b"keys" not in response.content
    assert str(tmp_path) not in response.text
    assert "BAIKAL['default']" in caplog.text
    assert_tells_nothing(caplog.text, rsa_key())


def test_keys_that_were_published_stay_while_their_directory_is_gone(client, tmp_path):
    directory = tmp_path / "keys"
    directory.mkdir()
    (directory / "a.pem").write_text(pem(ec_key()))
    with entry(CLIENT_KEYS=[], PRIVATE_CERTS_PATH=str(directory)):
        before = client.get(JWKS)
        directory.rename(tmp_path / "gone")
        after = client.get(JWKS)
    assert (after.status_code, after.content) == (200, before.content)


def test_a_new_key_is_published_without_a_restart(client, tmp_path):
    with entry(CLIENT_KEYS=[], PRIVATE_CERTS_PATH=str(tmp_path)):
        assert client.get(JWKS).json() == {"keys": []}
        (tmp_path / "a.pem").write_text(pem(ec_key()))
        assert len(client.get(JWKS).json()["keys"]) == 1


# -- real servers ----------------------------------------------------------------------------------


class Reply:
    """An answer as it came over the wire, read to the end of the connection."""

    def __init__(self, port: int, method: str, target: str, **headers: str) -> None:
        lines = [f"{method} {target} HTTP/1.1", "Connection: close"]
        sent = {"host": f"127.0.0.1:{port}"} | headers
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in sent.items()]
        with socket.create_connection(("127.0.0.1", port), 60) as sock:
            sock.sendall("\r\n".join([*lines, "", ""]).encode())
            raw = b"".join(iter(lambda: sock.recv(65536), b""))
        head, _, self.body = raw.partition(b"\r\n\r\n")
        status, *fields = head.decode("latin-1").split("\r\n")
        self.status = int(status.split()[1])
        pairs = [field.split(": ", 1) for field in fields]
        self.headers = {name.lower(): value for name, value in pairs}


ENVIRONMENT = {
    "DJANGO_SETTINGS_MODULE": "settings",
    "BAIKAL_ISSUER": ISSUER,
    "BAIKAL_CLIENT_KEYS": json.dumps(ENTRY["CLIENT_KEYS"]),
}
COMMANDS = {
    "gunicorn": [
        "gunicorn",
        "--bind=127.0.0.1:0",
        "--threads=2",
        "--keep-alive=60",
        "django.core.wsgi:get_wsgi_application()",
    ],
    "uvicorn": [
        "uvicorn",
        "--port=0",
        "--timeout-keep-alive=60",
        "--factory",
        "django.core.asgi:get_asgi_application",
    ],
}


@contextmanager
def started(command: list[str]) -> Iterator[int]:
    root = Path(django_baikal.__file__).resolve().parent.parent
    paths = os.pathsep.join([str(root), str(HERE)])
    environment = os.environ | ENVIRONMENT | {"PYTHONPATH": paths}
    with running([sys.executable, "-m", *command], environment) as program:
        yield program.port


@contextmanager
def runserver() -> Iterator[int]:
    class Quiet(WSGIRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadedWSGIServer(("127.0.0.1", 0), Quiet)
    server.set_app(WSGIHandler())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module", params=["gunicorn", "uvicorn", "runserver"])
def port(request) -> Iterator[int]:
    if request.param == "runserver":
        with (
            override_settings(BAIKAL={"default": ENTRY}, ROOT_URLCONF="urls"),
            runserver() as found,
        ):
            yield found
    else:
        pytest.importorskip(request.param)
        with started(COMMANDS[request.param]) as found:
            yield found


@pytest.mark.parametrize("slashes", ["/", "//"])
def test_a_real_server_publishes_both_documents(port, slashes):
    keys = Reply(port, "GET", slashes + JWKS[1:])
    assert keys.status == 200
    assert [key["kid"] for key in json.loads(keys.body)["keys"]] == ["rsa", "ec"]
    assert keys.headers["content-type"] == "application/json"
    assert keys.headers["content-length"] == str(len(keys.body))
    assert keys.headers["cache-control"] == CACHED
    assert not {"set-cookie", "vary"} & keys.headers.keys()
    assert_tells_nothing(keys.body.decode(), rsa_key(), ec_key())
    metadata = Reply(port, "GET", slashes + METADATA[1:], x_forwarded_host="evil.example")
    assert metadata.status == 200
    expected = {"issuer": ISSUER, "jwks_uri": "https://me.example.com" + JWKS}
    assert json.loads(metadata.body) == expected


def test_a_real_server_never_believes_the_host(port):
    for host in ("evil.example", "evil.example:81", "me.example.com@evil.example", "evil'\"<b>"):
        reply = Reply(port, "GET", METADATA, host=host, x_forwarded_host="evil.example")
        assert b"//evil" not in reply.body
        assert reply.status != 200 or json.loads(reply.body)["issuer"] == ISSUER
    absolute = Reply(port, "GET", f"http://evil.example{METADATA}", host="evil.example")
    assert b"//evil" not in absolute.body


def test_a_real_server_answers_head_304_and_405(port):
    get = Reply(port, "GET", JWKS)
    head = Reply(port, "HEAD", JWKS)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(get.body))
    assert head.headers["etag"] == get.headers["etag"]
    known = Reply(port, "GET", JWKS, if_none_match='"x", W/' + get.headers["etag"])
    assert (known.status, known.body) == (304, b"")
    assert known.headers["etag"] == get.headers["etag"]
    assert known.headers["cache-control"] == CACHED
    post = Reply(port, "POST", JWKS, content_length="0")
    assert post.status == 405
    assert post.headers["allow"] == "GET, HEAD, OPTIONS"


def test_a_connection_can_be_used_again_after_each_kind_of_answer(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    etag = Reply(port, "GET", JWKS).headers["etag"]
    for method, known in itertools.product(["HEAD", "GET", "OPTIONS"], ["", etag]):
        connection.request(method, JWKS, headers={"If-None-Match": known})
        response = connection.getresponse()
        body = response.read()
        assert response.status == (304 if known and method != "OPTIONS" else 200)
        assert bool(body) == (method == "GET" and not known)
    connection.close()


async def answers(*urls: str) -> list[Any]:
    return [await AsyncClient().get(url) for url in urls]


def test_the_views_work_in_an_event_loop():
    import asyncio

    keys, metadata = asyncio.run(answers(JWKS, METADATA))
    assert (keys.status_code, metadata.status_code) == (200, 200)
    assert len(keys.json()["keys"]) == 2


def test_a_mark_that_somebody_sets_is_there_where_no_loop_runs() -> None:
    marked = JWKSView.as_view()
    assert not iscoroutinefunction(marked)
    assert iscoroutinefunction(markcoroutinefunction(marked))
