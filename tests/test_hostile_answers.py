"""Whatever the authserver answers, only our errors come out, in time, and hold no secret."""

from __future__ import annotations

import asyncio
import base64
import copy
import gzip
import json
import pickle
import re
import socket
import struct
import time
import tracemalloc
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus, urlsplit

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from loopback import Connection, reply, running
from stage import both_ways, pem
from timing import PATIENCE, not_held_up

from django_baikal import OpenIDClient
from django_baikal.exceptions import (
    AuthserverError,
    BaikalError,
    ConfigurationError,
    TokenError,
)
from django_baikal.protocol.bearer import TokenInfo
from django_baikal.protocol.effects import Request, Response
from django_baikal.protocol.jwk import b64url_encode
from django_baikal.transports.base import routes, wire

#: Values that stand in requests and must never come back out in an error. Random ones: hypothesis
#: reads the constants of a module, and would have the authserver guess them.
# Whole in the soak: there hypothesis makes many times as many answers.
pytestmark = pytest.mark.slow

RANDOM = uuid.uuid4().hex
SECRET = f"s3cret of-the-client+{RANDOM}"
REFRESH = f"refresh-t0ken-{RANDOM}"
CODE = f"authorization-c0de-{RANDOM}"
VERIFIER = f"code-verifier-{RANDOM}"
TOKEN = f"access-t0ken-{RANDOM}"
SUB = "tel:+34600123456"
NONCE = "nonce-of-this-login"
SECRETS = (
    SECRET,
    quote_plus(SECRET),
    base64.b64encode(f"client:{quote_plus(SECRET)}".encode()).decode(),
    REFRESH,
    CODE,
    VERIFIER,
    TOKEN,
    SUB.removeprefix("tel:"),
)

#: What a client can do, and the endpoint that answers it.
CALLS: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "grant_client": ("token", lambda call, client: call(client, "grant_client", "a")),
    "grant_user": ("token", lambda call, client: call(client, "grant_user", SUB, "a", "p")),
    "grant_code": (
        "token",
        lambda call, client: call(
            client,
            "grant_code",
            CODE,
            "https://app.example/cb",
            code_verifier=VERIFIER,
            nonce=NONCE,
            full_authserver_response=True,
        ),
    ),
    "refresh": ("token", lambda call, client: call(client, "refresh", REFRESH, "a")),
    "get_token": ("token", lambda call, client: call(client, "get_token", "a")),
    "introspect": ("introspection", lambda call, client: call(client, "introspect", TOKEN)),
    "authenticate": ("introspection", lambda call, client: call(client, "authenticate", TOKEN)),
    "revoke": ("revocation", lambda call, client: call(client, "revoke", TOKEN)),
    "authorize": (
        "authorization",
        lambda call, client: call(client, "authorize", "a", None, "https://app.example/cb"),
    ),
}
ENDPOINTS = ("token", "introspection", "revocation", "authorization")


def metadata(endpoint: str) -> dict[str, Any]:
    return {"issuer": endpoint, **{f"{name}_endpoint": f"{endpoint}/{name}" for name in ENDPOINTS}}


def client_of(endpoint: str, **changes: Any) -> OpenIDClient:
    return OpenIDClient(
        endpoint,
        "client",
        SECRET,
        [{"key": pem()}],
        "https://me.example/",
        cache="dummy",
        **changes,
    )


@pytest.fixture(autouse=True)
def _no_cache(settings: Any) -> None:
    settings.CACHES = {"dummy": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}


def check_error(error: BaseException, name: str = "", *, discovery: bool = False) -> None:
    """Check that an error is of our tree, blames the right one, and gives nothing away."""
    assert isinstance(error, BaikalError), repr(error)
    if isinstance(error, ConfigurationError):
        assert discovery, repr(error)
        assert "CLIENT_AUTH_METHOD" in str(error), "the one thing in metadata that the user sets"
    elif isinstance(error, TokenError):
        assert name == "authenticate", "nobody else decides on a token"
        assert not discovery
    else:
        assert isinstance(error, AuthserverError)
        assert error.retry_after is None or 0 <= error.retry_after <= 86400
        for words in (error.error, error.description):
            assert words is None or (isinstance(words, str) and words.isprintable())
    assert str(error).isprintable()
    assert len(str(error)) < 2000
    for each in (error, copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(each) is type(error)
        assert str(each) == str(error)
        check_silent(each)


def check_silent(error: BaseException | None) -> None:
    """Check that neither an error nor what it came from holds a secret."""
    while error is not None:
        shown = f"{error!s} {error!r} {vars(error)!r}"
        for secret in SECRETS:
            assert secret not in shown, type(error)
        if error.__suppress_context__ or error.__cause__ is not None:
            error = error.__cause__
        else:
            error = error.__context__


def check_result(name: str, result: Any) -> None:
    """Check that what passed is what its method promises."""
    if name == "revoke":
        assert result is None
    elif name == "authenticate":
        assert isinstance(result, TokenInfo)
        assert result.claims["active"] is True
    elif name == "introspect":
        assert isinstance(result["active"], bool)
    elif name == "authorize":
        assert urlsplit(result).scheme in ("http", "https")
    else:
        token = result["access_token"] if isinstance(result, dict) else result
        assert re.fullmatch(r"[\x21-\x7e]+", token)


# -- answers as values, in memory: many --------------------------------------------------------

surrogates = st.sampled_from(["\ud800", "a\udfff", "\x00", "\u202e", "\r\nX: y", "ñ", "", " "])
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(10**300, 10**310),
    st.floats(),
    st.text(max_size=20),
    surrogates,
    st.sampled_from([f"eyJ{'x' * 60}.eyJ.z", "x" * 100_000, "Bearer", "bearer"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
id_token_claims = st.fixed_dictionaries(
    {},
    optional={
        "iss": st.sampled_from(["https://hostile.test", "https://x"]) | values,
        "aud": st.sampled_from(["client", ["client"], ["client", "x"], [{}]]) | values,
        "azp": st.just("client") | values,
        "sub": st.just("someone") | values,
        "exp": st.just(4e9) | values,
        "iat": st.just(1) | values,
        "nonce": st.just(NONCE) | values,
    },
)


def id_token(header: Any, claims: Any) -> str:
    parts = (b64url_encode(json.dumps(part).encode()) for part in (header, claims))
    return ".".join((*parts, "c2ln"))


token_bodies = st.fixed_dictionaries(
    {},
    optional={
        "access_token": st.just("T0ken") | values,
        "token_type": st.sampled_from(["Bearer", "bEARER", "DPoP", "mac"]) | values,
        "expires_in": st.sampled_from([3600, "3600", -1, 0, 1e308, "٣"]) | values,
        "scope": st.sampled_from(["a", "a b", "b"]) | values,
        "refresh_token": values,
        "id_token": st.builds(id_token, st.just({"alg": "RS256"}) | values, id_token_claims)
        | values,
        "error": st.sampled_from(["invalid_grant", "invalid_client"]) | values,
        "error_description": values,
        "code": values,
        "message": values,
    },
)
introspection_bodies = st.fixed_dictionaries(
    {},
    optional={
        "active": st.booleans() | values,
        "scope": st.just("a b") | values,
        "error": values,
        "sub": st.just("anna") | values,
        "client_id": st.just("client") | values,
        "exp": st.just(4e9) | values,
        "nbf": values,
        "aud": st.just(["client"]) | values,
        "token_type": st.just("Bearer") | values,
        "cnf": values,
        "acr": values,
    },
)
urls = st.sampled_from(
    [
        "https://hostile.test/token",
        "https://hostile.test:99999/",
        "https://hostile.test/%zz",
        "https://hostile.test/?scope=x&client_id=evil",
        "https://[::1",
        "https://user:pass@hostile.test/",
        "http://hostile.test/token",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "//hostile.test/token",
        "https://hostile.test/\r\nX: y",
        "https://hostile.test/#fragment",
        "https://hostile.test\\@evil.test/",
        "https://hostile.test/ñ",
    ]
)
metadata_bodies = st.fixed_dictionaries(
    {"issuer": st.just("https://hostile.test") | values},
    optional={
        **{f"{name}_endpoint": urls | values for name in ENDPOINTS},
        **{
            f"{name}_endpoint_auth_methods_supported": st.just(["client_secret_basic"]) | values
            for name in ENDPOINTS
        },
    },
)
#: Bodies that have broken a parser somewhere.
ODD = [
    b"",
    b"null",
    b"[" * 100_000,
    b'{"a":' * 5_000,
    b'{"active": true, "active": false}',
    b'{"access_token": "T0ken", "token_type": "Bearer", "expires_in": NaN}',
    b'{"access_token": "T0ken", "token_type": "Bearer", "expires_in": 1e999}',
    b'{"expires_in": ' + b"9" * 5_000 + b"}",
    b'{"error": ' + b"9" * 4_000 + b"}",
    b'{"active": Infinity}',
    b'{"error": "\\ud800", "error_description": "\\udfff\\u0000"}',
    b"\xef\xbb\xbf{}",
    b"<html>login</html>",
    b"\xff\xfe{\x00}\x00",
]
encodings = st.sampled_from(["utf-8", "utf-16", "utf-8-sig", "latin-1"])
bodies = st.one_of(
    st.builds(
        lambda body, encoding: json.dumps(body).encode(encoding, "replace"),
        token_bodies | introspection_bodies | metadata_bodies | values,
        encodings,
    ),
    st.binary(max_size=200),
    st.sampled_from(ODD),
)
statuses = st.sampled_from([200] * 6 + [201, 204, 206, 301, 302, 307, 308, 304, 401, 401]) | (
    st.integers(200, 599)
)
content_types = st.sampled_from(
    [
        "application/json",
        "application/json",
        "application/json; charset=utf-16",
        "application/problem+json",
        "text/html",
        "",
        ";",
        "application/jsonx",
    ]
) | st.text(st.characters(max_codepoint=255), max_size=20)
retry_afters = st.sampled_from(
    [
        "5",
        "-1",
        "9" * 400,
        "1e9",
        "Wed, 21 Oct 2015 07:28:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 -2359",
        "Sun, 00 Jan 0000 00:00:00 +9999",
        "Mon, 01 Jan 0001 00:00:00 +2359",
        "1, 1 Jan 1",
        ", , ,",
        "٣",
    ]
) | st.text(max_size=40)
headers = st.fixed_dictionaries(
    {"content-type": content_types},
    optional={"retry-after": retry_afters, "location": urls, "www-authenticate": st.text()},
)
responses = st.builds(Response, statuses, headers, bodies)


@dataclass
class Answering:
    """A route that answers ``response`` at ``target``, and good metadata before that."""

    target: str
    response: Response

    def send(self, request: Request, *, timeout: float) -> Response:
        wire(request)  # what a transport could not send is no answer of the server
        at = urlsplit(request.url).path.strip("/")
        if at.startswith(".well-known") and self.target != "discovery":
            body = json.dumps(metadata("https://hostile.test")).encode()
            return Response(200, {"content-type": "application/json"}, body)
        return self.response

    async def asend(self, request: Request, *, timeout: float) -> Response:
        return self.send(request, timeout=timeout)


@contextmanager
def hostile(target: str, response: Response) -> Iterator[OpenIDClient]:
    routes["https://hostile.test"] = Answering(target, response)
    try:
        yield client_of("https://hostile.test", timeout=1)
    finally:
        del routes["https://hostile.test"]


relaxed = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def unlikely(**claims: Any) -> Response:
    good = {"iss": "https://hostile.test", "aud": "client", "sub": "x", "iat": 1, "exp": 4e9}
    token = id_token({"alg": "RS256"}, {**good, **claims})
    body = {"access_token": "T0ken", "token_type": "Bearer", "id_token": token}
    return Response(200, {"content-type": "application/json"}, json.dumps(body).encode())


def says(document: dict[str, Any], status: int = 200, **named: str) -> Response:
    said = {"content-type": "application/json", **named}
    return Response(status, said, json.dumps(document).encode())


@both_ways
@given(name=st.sampled_from(sorted(set(CALLS) - {"authorize"})), response=responses)
@example(name="grant_code", response=unlikely(nonce="\ud800"))
@example(name="grant_code", response=unlikely(nonce="ñ"))
@example(name="grant_code", response=unlikely(aud=[{}]))
@example(name="grant_client", response=says({"error": 10**4000}, 400))
@relaxed
def test_any_answer_of_an_endpoint_ends_in_a_result_or_an_error_of_ours(
    call: Any, name: str, response: Response
) -> None:
    target, do = CALLS[name]
    with hostile(target, response) as client:
        try:
            result = do(call, client)
        except Exception as error:  # noqa: BLE001 - what it may be is what is tested
            check_error(error, name)
        else:
            assert response.status == 200 or name == "revoke"
            check_result(name, result)


@both_ways
@pytest.mark.parametrize("body", ODD, ids=lambda body: repr(body[:20]))
@pytest.mark.parametrize("status", [200, 400, 503])
def test_a_body_that_has_broken_parsers_breaks_none_here(
    call: Any, body: bytes, status: int
) -> None:
    response = Response(status, {"content-type": "application/json"}, body)
    passed = set()
    for name, (endpoint, do) in CALLS.items():
        for target in ("discovery", endpoint):
            with hostile(target, response) as client:
                try:
                    do(call, client)
                except Exception as error:  # noqa: BLE001 - what it may be is what is tested
                    check_error(error, name)
                else:
                    passed.add((name, target))
    # These two do not look at a body.
    assert passed <= {("revoke", "revocation"), ("authorize", "authorization")}


@both_ways
@given(name=st.sampled_from(sorted(CALLS)), response=responses)
@example(
    name="grant_client",
    response=says({"issuer": "https://hostile.test", "token_endpoint": "https://hostile.test/%zz"}),
)
@relaxed
def test_any_metadata_ends_in_a_result_or_an_error_of_ours(
    call: Any, name: str, response: Response
) -> None:
    with hostile("discovery", response) as client:
        try:
            result = CALLS[name][1](call, client)
        except Exception as error:  # noqa: BLE001 - what it may be is what is tested
            # It is the whole authserver's answer, and introspection says that it is no token.
            check_error(error, name, discovery=not isinstance(error, TokenError))
        else:
            assert json.loads(response.body)["issuer"] == "https://hostile.test"
            check_result(name, result)


# -- answers as bytes, over sockets: fewer -----------------------------------------------------


def chunked(parts: list[bytes], sizes: list[bytes]) -> bytes:
    sizes += [f"{len(part):x}".encode() for part in parts[len(sizes) :]]
    chunks = (size + b"\r\n" + part + b"\r\n" for size, part in zip(sizes, parts, strict=False))
    return b"".join(chunks) + b"0\r\n\r\n"


GOOD = b'{"access_token": "T0ken", "token_type": "Bearer", "active": true}'
framings = st.one_of(
    st.builds(lambda body: (b"", body), bodies),
    st.builds(lambda body: (b"Content-Length: %d\r\n" % len(body), body), bodies),
    st.builds(
        lambda body, length: (b"Content-Length: " + length + b"\r\n", body),
        bodies,
        st.sampled_from([b"-1", b"0", b"1", b"99999", b"1e3", b"+5", b"5, 5", b"5, 6", b"0x10"])
        | st.integers(0, 300).map(lambda number: b"%d" % number),
    ),
    st.builds(
        lambda parts, sizes: (b"Transfer-Encoding: chunked\r\n", chunked(parts, sizes)),
        st.lists(bodies, max_size=3),
        st.lists(
            st.sampled_from(
                [b"", b"-1", b"zz", b"ffffffffffffffffff", b"5;x=" + b"y" * 5000, b"1"]
            ),
            max_size=1,
        ),
    ),
    st.builds(
        lambda coding, body: (b"Content-Encoding: " + coding + b"\r\n", body),
        st.sampled_from([b"gzip", b"deflate", b"br", b"zstd", b"gzip, gzip", b"\xff", b"identity"]),
        st.one_of(
            bodies,
            bodies.map(gzip.compress),
            bodies.map(zlib.compress),
            st.just(gzip.compress(b"\0" * 2**21)),
        ),
    ),
)
raw_headers = st.lists(
    st.sampled_from(
        [
            b"Content-Type: application/json",
            b"Content-Type: application/json",
            b"Content-Type: text/html",
            b"Retry-After: soon",
            b"Retry-After: 99999999999999999999",
            b"Set-Cookie: a=b; Path=/",
            b"Location: http://169.254.169.254/",
            b"Connection: close",
            b"Connection: upgrade",
            b"Transfer-Encoding: gzip",
            b"X: " + b"y" * 70_000,
            b": no name",
            b"no colon",
            b" folded",
            b"X\x00Y: z",
            b"X: \xff\xfe",
        ]
    )
    | st.binary(max_size=20),
    max_size=5,
)
first_lines = st.sampled_from(
    [b"HTTP/1.1 200 OK"] * 6
    + [
        b"HTTP/1.1 401 No",
        b"HTTP/1.1 503 Busy",
        b"HTTP/1.1 302 Found",
        b"HTTP/1.1 204 Nothing",
        b"HTTP/1.1 100 Continue",
        b"HTTP/1.1 101 Switching",
        b"HTTP/1.1 103 Hints",
        b"HTTP/1.1 200",
        b"HTTP/1.1 999 What",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 -1 OK",
        b"HTTP/1.0 200 OK",
        b"HTTP/2 200",
        b"HTTP/9.9 200 OK",
        b"ICY 200 OK",
        b"SSH-2.0-OpenSSH_9.6",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"",
    ]
)
messages = st.one_of(
    st.builds(
        lambda first, named, framing: b"".join(
            (first, b"\r\n", *(line + b"\r\n" for line in named), framing[0], b"\r\n", framing[1])
        ),
        first_lines,
        raw_headers,
        framings,
    ),
    st.binary(max_size=300),
    st.just(b""),
)
#: What comes after the bytes: the end, or nothing at all, or a byte now and then for ever.
endings = st.sampled_from(["close"] * 12 + ["hang", "drip"])
TIMEOUT = 0.4


class Script:
    """What a server answers at ``target``; elsewhere it is the good authserver."""

    target = "token"
    message = b""
    ending = "close"

    def __call__(self, connection: Connection) -> None:
        while raw := connection.request():
            at = raw.split(b" ", 2)[1].decode().strip("/")
            at = "discovery" if at.startswith(".well-known") else at
            if at != self.target:
                document = (
                    metadata(connection.server.url) if at == "discovery" else json.loads(GOOD)
                )
                body = json.dumps(document).encode()
                connection.send(reply(body, headers=("Content-Type: application/json",)))
                continue
            connection.send(self.message)
            if self.ending == "drip":
                while not connection.server.stopping.wait(0.02):
                    connection.send(b"1")
            if self.ending == "hang":
                # Until the client gives up.
                connection.sock.recv(1)
            return


@pytest.fixture(scope="module")
def stage() -> Iterator[tuple[Script, str]]:
    script = Script()
    with running(script) as server:
        yield script, server.url


@both_ways
@given(
    name=st.sampled_from(sorted(CALLS)),
    discovery=st.booleans(),
    message=messages,
    ending=endings,
)
@example(name="grant_client", discovery=False, message=b"HTTP/1.1 200 OK\r\n", ending="drip")
@example(name="introspect", discovery=True, message=b"", ending="hang")
@relaxed
def test_any_bytes_end_in_a_result_or_an_error_of_ours_in_time(
    call: Any, stage: Any, name: str, discovery: bool, message: bytes, ending: str
) -> None:
    script, url = stage
    target, do = CALLS[name]
    script.target = "discovery" if discovery else target
    script.message, script.ending = message, ending
    client = client_of(url, timeout=TIMEOUT, introspection_timeout=TIMEOUT)
    with not_held_up():
        try:
            result = do(call, client)
        except Exception as error:  # noqa: BLE001 - what it may be is what is tested
            check_error(error, name, discovery=discovery and not isinstance(error, TokenError))
        else:
            check_result(name, result)
        finally:
            client._runtime.process.transport.close()


CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
LENGTH = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
BROKEN = [
    b"",
    b"\r\n\r\n",
    b"HTTP/1.1 200 OK",
    b"HTTP/1.1 200 OK\r\n\r\n",
    *(
        CHUNKED + chunk
        for chunk in (b"-1\r\n", b"zz\r\n{}", b"\r\n", b"5\r\n{}", b"f" * 40 + b"\r\n")
    ),
    *(CHUNKED + chunk for chunk in (b"2\r\n{}X", b"0x2\r\n{}\r\n0\r\n\r\n", b"2;" + b"y" * 70_000)),
    *(
        LENGTH + length + b"\r\n\r\n" + GOOD
        for length in (b"-1", b"+5", b"1e3", b"5, 6", b"99999", b"\xb2")
    ),
    CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n") + chunked([GOOD], []),
    LENGTH + b"9\r\nContent-Encoding: gzip\r\n\r\nnot gzip!",
]


@both_ways
@pytest.mark.parametrize("discovery", [False, True])
def test_bytes_that_have_broken_parsers_break_none_here(
    call: Any, stage: Any, discovery: bool
) -> None:
    script, url = stage
    for script.message in BROKEN:
        for name in ("grant_client", "introspect"):
            target, do = CALLS[name]
            script.target, script.ending = "discovery" if discovery else target, "close"
            client = client_of(url, timeout=PATIENCE)
            with pytest.raises(AuthserverError) as caught:
                do(call, client)
            check_error(caught.value)
            client._runtime.process.transport.close()


@both_ways
@pytest.mark.parametrize("host", [f"{'a' * 64}.localhost", "a..localhost", ".localhost"])
def test_a_host_name_that_cannot_be_one_ends_in_an_error_of_ours(call: Any, host: str) -> None:
    with pytest.raises(AuthserverError) as caught:
        call(client_of(f"http://{host}", allow_http=True), "grant_client")
    check_error(caught.value)


# -- answers that repeat what was asked --------------------------------------------------------


#: A token of somebody else, which the authserver should not talk of either.
FOREIGN = id_token({"alg": "RS256"}, {"sub": "somebody else"})


class Echo:
    """Answers with all that came in the request: in a header, in the words of an error, in HTML."""

    status = 400
    kind = "json"

    def send(self, request: Request, *, timeout: float) -> Response:
        if ".well-known" in request.url:
            return says(metadata("https://hostile.test"))
        told = f"{FOREIGN} {dict(request.headers)} {(request.body or b'').decode()} {request.url}"
        if self.kind == "json":
            return says({"error": told, "error_description": told}, self.status)
        if self.kind == "success":
            return says({"access_token": [told], "active": told, "error": told})
        return Response(self.status, {"content-type": "text/html", "x-echo": told}, told.encode())

    async def asend(self, request: Request, *, timeout: float) -> Response:
        return self.send(request, timeout=timeout)


@both_ways
@pytest.mark.parametrize("name", sorted(set(CALLS) - {"authorize"}))
@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "private_key_jwt"])
def test_an_answer_that_repeats_the_request_gives_nothing_away(
    call: Any, name: str, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = client_of("https://hostile.test", client_auth_method=method)
    echo = routes["https://hostile.test"] = Echo()
    try:
        for echo.kind, echo.status in (
            ("json", 400),
            ("json", 401),
            ("json", 503),
            ("html", 500),
            ("html", 302),
            ("success", 200),
        ):
            if (name, echo.kind) == ("revoke", "success"):
                continue
            with pytest.raises(AuthserverError) as caught:
                CALLS[name][1](call, client)
            check_error(caught.value)
            assert not re.search(r"eyJ[A-Za-z0-9_-]+\.eyJ", f"{caught.value} {vars(caught.value)}")
        for secret in SECRETS:
            assert secret not in caplog.text
    finally:
        del routes["https://hostile.test"]


def test_an_event_loop_is_left_clean_by_hostile_answers(stage: Any) -> None:
    script, url = stage
    script.target, script.message, script.ending = "token", b"HTTP/1.1 200 OK\r\nX", "close"

    async def main() -> None:
        client = client_of(url, timeout=TIMEOUT)
        results = await asyncio.gather(
            *(client.agrant_client("a") for _ in range(10)), return_exceptions=True
        )
        for error in results:
            assert isinstance(error, AuthserverError)
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    asyncio.run(main())


# -- what is said of a bearer token, over sockets: each with its outcome -----------------------

JSON_TYPE = "Content-Type: application/json"
GIGABYTE = 2**30
Says = Callable[[Connection], None]


def says_of_it(**claims: Any) -> Says:
    body = {"active": True, "sub": "anna", "client_id": "client", **claims}
    return sends(json.dumps(body).encode())


def sends(
    body: bytes, status: str = "200 OK", kind: str = "application/json", *headers: str
) -> Says:
    raw = reply(body, status=status, headers=(f"Content-Type: {kind}", *headers))
    return lambda connection: connection.send(raw)


def pours(head: str, chunk: bytes) -> Says:
    """Make an answer of a gigabyte; how much of it was taken is counted."""

    def answer(connection: Connection) -> None:
        connection.send(f"HTTP/1.1 200 OK\r\n{JSON_TYPE}\r\n{head}\r\n\r\n".encode())
        for _ in range(GIGABYTE // 65536):
            connection.send(chunk)
            poured.append(len(chunk))

    return answer


poured: list[int] = []


def bomb(kind: str) -> Says:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31 if kind == "gzip" else 15)
    raw = b"".join(packer.compress(b" " * 1_000_000) for _ in range(200)) + packer.flush()
    return sends(raw, "200 OK", "application/json", f"Content-Encoding: {kind}")


def drips(head: str) -> Says:
    def answer(connection: Connection) -> None:
        connection.send(head.encode())
        while not connection.server.stopping.wait(0.05):
            connection.send(b" ")

    return answer


def resets(connection: Connection) -> None:
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.sock.close()


JWT = "eyJhbGciOiJSUzI1NiJ9.eyJhY3RpdmUiOnRydWUsInN1YiI6ImFubmEifQ.c2ln"
ENCODED = b'{"active": true, "sub": "anna"'
SAID: dict[str, tuple[Says, str]] = {
    "good": (says_of_it(), "good"),
    **{
        f"active {active!r}": (says_of_it(active=active), "invalid_response")
        for active in ("true", "false", "", 1, 0, 1.0, None, [True], {})
    },
    "active is missing": (sends(b'{"sub": "anna"}'), "invalid_response"),
    "inactive with more": (says_of_it(active=False, exp=4e9, scope="a"), "inactive_token"),
    "exp a float": (says_of_it(exp=4e9 + 0.5), "good"),
    "exp a float that is over": (says_of_it(exp=1.5), "expired_token"),
    "exp negative": (says_of_it(exp=-1), "expired_token"),
    "exp zero": (says_of_it(exp=0), "expired_token"),
    "exp a string": (says_of_it(exp="4000000000"), "invalid_response"),
    "exp a boolean": (says_of_it(exp=True), "invalid_response"),
    "exp a list": (says_of_it(exp=[4e9]), "invalid_response"),
    "exp beyond all time": (says_of_it(exp=10**400), "invalid_response"),
    "exp far away": (says_of_it(exp=10**14), "good"),
    "exp missing": (says_of_it(), "good"),
    "exp null": (says_of_it(exp=None), "good"),
    **{
        f"exp {exp.decode()}": (sends(ENCODED + b', "exp": ' + exp + b"}"), "invalid_response")
        for exp in (b"Infinity", b"-Infinity", b"NaN", b"1e999", b"0x10", b"04", b"1_0")
    },
    "nbf to come": (says_of_it(nbf=4e9), "expired_token"),
    "nbf a string": (says_of_it(nbf="1"), "invalid_response"),
    "active twice": (sends(b'{"active": false, "active": true}'), "invalid_response"),
    "sub twice": (sends(ENCODED + b', "sub": "admin"}'), "invalid_response"),
    "a name twice inside": (sends(ENCODED + b', "x": {"a": 1, "a": 2}}'), "invalid_response"),
    "scope a list": (says_of_it(scope=["a", "b"]), "good"),
    "scope a number": (says_of_it(scope=7), "invalid_response"),
    "scope a list of lists": (says_of_it(scope=[["a"]]), "invalid_response"),
    "scope an object": (says_of_it(scope={"a": True}), "invalid_response"),
    "sub null": (says_of_it(sub=None), "good"),
    "sub null and nobody else": (says_of_it(sub=None, client_id=None), "invalid_response"),
    "sub a number": (says_of_it(sub=7), "invalid_response"),
    "sub no text": (says_of_it(sub="\ud800"), "invalid_response"),
    "aud a number": (says_of_it(aud=7), "invalid_response"),
    "aud another": (says_of_it(aud="another"), "wrong_audience"),
    "a gigabyte that is announced": (
        pours(f"Content-Length: {GIGABYTE}", b" " * 65536),
        "response_too_large",
    ),
    "a gigabyte in chunks": (
        pours("Transfer-Encoding: chunked", b"10000\r\n" + b" " * 65536 + b"\r\n"),
        "response_too_large",
    ),
    "a gigabyte to the end": (pours("Connection: close", b" " * 65536), "response_too_large"),
    "a gzip bomb": (bomb("gzip"), "response_too_large"),
    "a deflate bomb": (bomb("deflate"), "response_too_large"),
    "a drip of headers": (drips("HTTP/1.1 200 OK\r\nX: "), "timeout"),
    "a drip of body": (drips(f"HTTP/1.1 200 OK\r\n{JSON_TYPE}\r\n\r\n"), "timeout"),
    "silence": (lambda connection: connection.hang(), "timeout"),
    **{
        f"redirect {status}": (
            sends(b"{}", f"{status} There", "application/json", "Location: /other"),
            "invalid_response",
        )
        for status in (301, 302, 303, 307, 308)
    },
    **{
        f"content type {kind!r}": (
            sends(ENCODED + b"}", "200 OK", kind),
            "invalid_response",
        )
        for kind in ("text/html", "text/plain", "", "application/jwt", "application/octet-stream")
    },
    "a reset": (resets, "connection_failed"),
    "nothing at all": (lambda connection: connection.sock.close(), "connection_failed"),
    "a jwt": (
        sends(JWT.encode(), "200 OK", "application/token-introspection+jwt"),
        "invalid_response",
    ),
    "a jwt that says it is json": (sends(JWT.encode()), "invalid_response"),
    "a jwt in a string": (sends(json.dumps(JWT).encode()), "invalid_response"),
    "a list": (sends(b"[" + ENCODED + b"}]"), "invalid_response"),
    "half": (sends(ENCODED), "invalid_response"),
    "utf-16": (sends((ENCODED + b"}").decode().encode("utf-16")), "invalid_response"),
    "200 with an error": (sends(b'{"error": "invalid_token"}'), "invalid_response"),
    "200 with an error, and inactive": (
        sends(b'{"error": "x", "active": false}'),
        "inactive_token",
    ),
    "201": (sends(ENCODED + b"}", "201 Created"), "invalid_response"),
    "400": (sends(b'{"error": "invalid_request"}', "400 No"), "oauth_error"),
    "401": (sends(b'{"error": "invalid_client"}', "401 No"), "oauth_error"),
    "401 without a word": (sends(b"", "401 No", "text/html"), "oauth_error"),
    "403": (sends(b'{"error": "access_denied"}', "403 No"), "oauth_error"),
    "403 without a word": (sends(b"", "403 No", "text/html"), "invalid_response"),
    "401 that says active": (sends(ENCODED + b"}", "401 No"), "oauth_error"),
    "500 that says active": (sends(ENCODED + b"}", "500 No"), "authserver_unavailable"),
    "429": (sends(b"{}", "429 No"), "authserver_unavailable"),
    "204": (lambda connection: connection.send(b"HTTP/1.1 204 -\r\n\r\n"), "invalid_response"),
}


class Saying:
    """An authserver that answers introspection as it is told to."""

    answer: Says = staticmethod(says_of_it())

    def __call__(self, connection: Connection) -> None:
        while raw := connection.request():
            if raw.startswith(b"GET"):
                body = json.dumps(metadata(connection.server.url)).encode()
                connection.send(reply(body, headers=(JSON_TYPE,)))
                continue
            self.answer(connection)


@both_ways
@pytest.mark.parametrize("case", SAID)
def test_what_is_said_of_a_bearer_token_has_the_outcome_that_is_documented(
    call: Any, case: str, settings: Any
) -> None:
    backend = "django.core.cache.backends.locmem.LocMemCache"
    settings.CACHES = {"dummy": {"BACKEND": backend, "LOCATION": uuid.uuid4().hex}}
    script = Saying()
    answer, expected = SAID[case]
    slow = expected == "timeout"
    timeout = 4.0 if slow else PATIENCE
    poured.clear()
    with running(script) as server:
        client = client_of(server.url, introspection_timeout=timeout)
        call(client, "authenticate", "warm")
        script.answer = answer
        tracemalloc.start()
        begun = time.monotonic()
        found = "good"
        try:
            result = call(client, "authenticate", TOKEN)
        except Exception as error:  # noqa: BLE001 - what it may be is what is tested
            check_error(error, "authenticate")
            found = error.code  # type: ignore[attr-defined]
        else:
            check_result("authenticate", result)
        finally:
            took = time.monotonic() - begun
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert found == expected
        assert took < PATIENCE / 2, "what hangs does so for longer"
        assert peak < 32_000_000
        assert sum(poured) < 256_000_000, "the rest of it was not taken"
        # Nobody else suffers, and only of a token is anything kept.
        script.answer = SAID["good"][0]
        assert call(client, "authenticate", "another").subject == "anna"
        if expected in ("good", "inactive_token", "expired_token", "wrong_audience"):
            return
        assert call(client, "authenticate", TOKEN).subject == "anna"
        client._runtime.process.transport.close()
