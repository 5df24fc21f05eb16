"""What a trusted token client and a resource server must do, one requirement after the other.

From the attacker's side.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import ssl
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import formatdate
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import timing
from django.contrib.auth.models import User
from django.core.cache import caches
from django.core.checks import run_checks
from django.core.checks.registry import registry
from django.db import OperationalError, connection
from django.test import Client, override_settings
from django.views.debug import ExceptionReporter
from doors_stage import DECORATORS, Answer, guards, knock, needs_rest_framework, standing
from loopback import Connection, answering, reply, running
from material import assert_tells_nothing, der, ec_key, rsa_key
from ring_stage import KEKS, Clock, edit, everything, keeper, rows, store
from stage import both_ways, counted, pem
from timing import PATIENCE

from django_baikal import OpenIDClient, clients
from django_baikal.exceptions import (
    AuthserverError,
    AuthserverUnavailable,
    ConfigurationError,
    InactiveToken,
    InsufficientAuthentication,
    InsufficientScope,
    InvalidRequest,
    InvalidResponse,
    InvalidSignature,
    NoUsableSigningKey,
    OAuthError,
    Refused,
    StoreUnavailable,
    Tampered,
    TokenError,
)
from django_baikal.keys import load_key
from django_baikal.keys.base import Keyring
from django_baikal.keys.database import DatabaseKeyStore
from django_baikal.keys.operations import Keeper, keepers
from django_baikal.keys.policy import material
from django_baikal.protocol import jws
from django_baikal.protocol.bearer import answer, bearer_token
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.effects import Request, Response
from django_baikal.protocol.grants import JWT_BEARER
from django_baikal.protocol.jwk import thumbprint
from django_baikal.testing import FakeAuthserver
from django_baikal.transports.base import routes, wire

SECRET = "the-clients-s3cret"
ME = "https://me.example/"
OPENID = "/.well-known/openid-configuration"
OAUTH = "/.well-known/oauth-authorization-server"
JSON = {"content-type": "application/json"}


@pytest.fixture(autouse=True)
def _cache_of_its_own(settings: Any) -> None:
    # Another test may have had an authserver at the same port, and its tokens are still there.
    backend = "django.core.cache.backends.locmem.LocMemCache"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": str(uuid.uuid4())}}


def client_at(endpoint: str, **changes: Any) -> OpenIDClient:
    values = {"client_id": "client", "client_secret": SECRET, "timeout": PATIENCE, **changes}
    return OpenIDClient(endpoint, **values)


def in_json(document: Any, status: int = 200, **headers: str) -> Response:
    return Response(status, {**JSON, **headers}, json.dumps(document).encode())


@dataclass
class Stranger:
    """A server of somebody else's, in memory: it answers what it likes and keeps what it gets."""

    endpoint: str
    document: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Response] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def send(self, request: Request, *, timeout: float) -> Response:
        wire(request)
        self.requests.append(request)
        path = urlsplit(request.url).path
        if path in self.answers:
            return self.answers[path]
        if path == OPENID:
            return in_json({"issuer": self.endpoint, **self.document})
        if "/.well-known/" in path:
            return Response(404, {}, b"")
        token = {"access_token": "T0ken", "token_type": "Bearer", "active": True}
        return in_json(token)

    async def asend(self, request: Request, *, timeout: float) -> Response:
        return self.send(request, timeout=timeout)

    def forms(self) -> list[dict[str, str]]:
        """Give the forms that it got."""
        got = (parse_qs((request.body or b"").decode()) for request in self.requests)
        return [{name: value[0] for name, value in form.items()} for form in got if form]

    @contextmanager
    def reached(self) -> Iterator[Stranger]:
        routes[self.endpoint] = self
        try:
            yield self
        finally:
            del routes[self.endpoint]


def endpoints(base: str, *names: str) -> dict[str, str]:
    every = names or ("token", "introspection", "revocation", "authorization")
    return {f"{name}_endpoint": f"{base}/{name}" for name in every}


OPERATIONS = {
    "token": ("grant_client", "a"),
    "introspection": ("introspect", "T0ken"),
    "revocation": ("revoke", "T0ken"),
}


# -- 1: whose metadata it is -------------------------------------------------------------------


@both_ways
@pytest.mark.parametrize(
    "issuer",
    [
        "https://as.test/",
        "https://AS.test",
        "https://as.test:443",
        "https://as.test/tenant",
        "https://as.test.evil.test",
        "https://evil.test",
        "http://as.test",
        "https://as.tes",
        "https://as.test ",
        "https://as.test\u200b",
        ["https://as.test"],
        {"https://as.test": 1},
        "",
        None,
        True,
    ],
)
def test_requirement_01_metadata_of_another_issuer_gets_no_credential(
    call: Any, issuer: Any
) -> None:
    document = {"issuer": issuer, **endpoints("https://as.test")}
    with Stranger("https://as.test", document).reached() as server:
        for operation in OPERATIONS.values():
            with pytest.raises(InvalidResponse) as caught:
                call(client_at("https://as.test"), *operation)
            assert caught.value.code == "issuer_mismatch"
            assert "'https://as.test'" in str(caught.value)
            assert "AUTHSERVER_ISSUER" in str(caught.value)
        assert server.forms() == []
        assert not any("Authorization" in request.headers for request in server.requests)


@both_ways
@pytest.mark.parametrize(
    ("expected", "named"),
    [("https://as.test/", "https://as.test"), ("https://as.test", "https://as.test/")],
)
def test_requirement_01_a_slash_at_the_end_makes_another_issuer(
    call: Any, expected: str, named: str
) -> None:
    document = {"issuer": named, **endpoints("https://as.test")}
    with Stranger("https://as.test", document).reached():
        with pytest.raises(InvalidResponse):
            call(client_at(expected), "grant_client")
        known = client_at(expected, authserver_issuer=named)
        assert call(known, "grant_client") == "T0ken"


@both_ways
@pytest.mark.parametrize("path", ["/tenant" + OPENID, OAUTH + "/tenant"])
def test_requirement_01_an_issuer_with_a_path_is_found_in_both_ways(call: Any, path: str) -> None:
    good = in_json({"issuer": "https://as.test/tenant", **endpoints("https://as.test/tenant")})
    other = in_json({"issuer": "https://as.test", **endpoints("https://as.test/evil")})
    with Stranger("https://as.test", answers={path: good}).reached() as server:
        assert call(client_at("https://as.test/tenant"), "grant_client") == "T0ken"
        assert server.requests[-1].url == "https://as.test/tenant/token"
    with Stranger("https://as.test", answers={path: other}).reached() as server:
        with pytest.raises(InvalidResponse):
            call(client_at("https://as.test/tenant"), "grant_client")
        assert server.forms() == []


@both_ways
def test_requirement_01_the_second_document_is_checked_as_the_first(call: Any) -> None:
    more = in_json({"issuer": "https://evil.test", **endpoints("https://evil.test", "revocation")})
    document = endpoints("https://as.test", "token")
    with Stranger("https://as.test", document, {OAUTH: more}).reached() as server:
        client = client_at("https://as.test")
        assert call(client, "grant_client") == "T0ken"
        with pytest.raises(InvalidResponse) as caught:
            call(client, "revoke", "T0ken")
        assert caught.value.code == "issuer_mismatch"
        assert len(server.forms()) == 1


# -- 2: what metadata has to be ----------------------------------------------------------------


GOOD = {"issuer": "https://as.test", **endpoints("https://as.test")}


@both_ways
@pytest.mark.parametrize(
    "response",
    [
        in_json(GOOD, 201),
        in_json(GOOD, 302, location="https://as.test/elsewhere"),
        in_json(GOOD, 401),
        in_json(GOOD, 404),
        in_json(GOOD, 500),
        in_json([GOOD]),
        in_json("https://as.test"),
        in_json(None),
        Response(200, {"content-type": "text/html"}, json.dumps(GOOD).encode()),
        Response(200, {}, json.dumps(GOOD).encode()),
        Response(200, JSON, b""),
        Response(200, JSON, json.dumps(GOOD).encode()[:-1]),
        Response(200, JSON, json.dumps(GOOD).encode("utf-16")),
        Response(200, JSON, json.dumps(GOOD).encode()[:-1] + b', "issuer": "https://as.test"}'),
        Response(200, JSON, json.dumps(GOOD).encode()[:-1] + b', "x": NaN}'),
    ],
)
def test_requirement_02_metadata_is_a_json_object_with_status_200(
    call: Any, response: Response
) -> None:
    with Stranger("https://as.test", answers={OPENID: response}).reached() as server:
        with pytest.raises(AuthserverError):
            call(client_at("https://as.test"), "grant_client")
        assert server.forms() == []


@both_ways
@pytest.mark.parametrize("present", sorted(OPERATIONS))
def test_requirement_02_a_missing_member_breaks_only_what_needs_it(call: Any, present: str) -> None:
    document = endpoints("https://as.test", present)
    with Stranger("https://as.test", document).reached():
        client = client_at("https://as.test")
        for name, operation in OPERATIONS.items():
            if name == present:
                call(client, *operation)
                continue
            with pytest.raises(InvalidResponse) as caught:
                call(client, *operation)
            assert caught.value.code == "endpoint_missing"
            assert f"{name}_endpoint" in str(caught.value)


@both_ways
def test_requirement_02_broken_keys_of_the_authserver_break_no_call(call: Any) -> None:
    with FakeAuthserver().serve() as server:
        server.fail("jwks", garbage=True)
        client = client_at(server.endpoint, client_id="test-client", client_secret="test-secret")
        token = call(client, "grant_client")
        assert call(client, "introspect", token)["active"] is True
        call(client, "revoke", token)
        assert server.requests.count("jwks") == 0


@both_ways
@pytest.mark.parametrize("uri", [7, None, "file:///etc/passwd", "http://127.0.0.1:1/"])
def test_requirement_02_a_wrong_member_that_nobody_asked_for_is_no_matter(
    call: Any, uri: Any
) -> None:
    document = {**endpoints("https://as.test", "token"), "jwks_uri": uri, "scopes_supported": uri}
    with Stranger("https://as.test", document).reached():
        assert call(client_at("https://as.test"), "grant_client") == "T0ken"


# -- 3: https ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ca() -> Any:
    return pytest.importorskip("trustme").CA()


def tls(ca: Any, name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name).configure_cert(context)
    return context


@pytest.fixture
def bundle(ca: Any, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@both_ways
@pytest.mark.usefixtures("_plain_environment")
def test_requirement_03_a_private_ca_is_trusted_by_its_setting_only(
    call: Any, ca: Any, bundle: str
) -> None:
    with counted(tls(ca), clients={"client": SECRET}) as (server, listener):
        with pytest.raises(AuthserverUnavailable) as caught:
            call(client_at(server.endpoint), "grant_client")
        assert caught.value.code == "tls_failed"
        assert listener.requests == [], "nothing is said to somebody who is not known"
        assert call(client_at(server.endpoint, verify_certs=bundle), "grant_client")


@both_ways
@pytest.mark.usefixtures("_plain_environment")
def test_requirement_03_a_certificate_for_another_name_is_refused(
    call: Any, ca: Any, bundle: str
) -> None:
    with counted(tls(ca, "as.example"), clients={"client": SECRET}) as (server, listener):
        with pytest.raises(AuthserverUnavailable) as caught:
            call(client_at(server.endpoint, verify_certs=bundle), "grant_client")
        assert caught.value.code == "tls_failed"
        assert listener.requests == []


@both_ways
@pytest.mark.usefixtures("_plain_environment")
def test_requirement_03_verification_is_never_switched_off_in_silence(
    call: Any, ca: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with counted(tls(ca), clients={"client": SECRET}) as (server, _):
        monkeypatch.setenv("BAIKAL_VERIFY_CERTS", "False")
        with override_settings(BAIKAL={"default": server.settings()}):
            assert call(client_at(server.endpoint), "grant_client")
            assert "VERIFY_CERTS is False" in caplog.text
            found = run_checks(tags=["security"], include_deployment_checks=False)
            assert "django_baikal.W010" in {message.id for message in found}
        assert call(client_at(server.endpoint, verify_certs=False), "grant_client")
        # What the code says is stronger than what the environment says.
        with pytest.raises(AuthserverUnavailable):
            call(client_at(server.endpoint, verify_certs=True), "grant_client")


@both_ways
@pytest.mark.parametrize("variable", ["PYTHONHTTPSVERIFY", "BAIKAL_ALLOW_HTTP", "BAIKAL_TRUST_ENV"])
@pytest.mark.usefixtures("_plain_environment")
def test_requirement_03_no_other_variable_switches_it_off(
    call: Any, ca: Any, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "0")
    with (
        counted(tls(ca), clients={"client": SECRET}) as (server, _),
        pytest.raises(AuthserverUnavailable),
    ):
        call(client_at(server.endpoint), "grant_client")
    with pytest.raises(ConfigurationError, match="ALLOW_HTTP"):
        client_at("http://as.test")


@both_ways
def test_requirement_03_plain_http_needs_a_flag_that_a_check_warns_of(
    call: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert check_entries_is_registered()
    with pytest.raises(ConfigurationError, match="must be https"):
        client_at("http://as.test")
    document = endpoints("http://as.test")
    with Stranger("http://as.test", document).reached():
        assert call(client_at("http://as.test", allow_http=True), "grant_client")
    entry = client_at("http://as.test", allow_http=True)
    with caplog.at_level(logging.WARNING):
        entry._runtime.process  # noqa: B018 - this makes what a process needs
    assert "ALLOW_HTTP is True" in caplog.text
    insecure = {
        "AUTHSERVER_ENDPOINT": "http://as.test",
        "CLIENT_ID": "a",
        "CLIENT_SECRET": "b",
        "ALLOW_HTTP": True,
    }
    with override_settings(BAIKAL={"default": insecure}):
        assert "django_baikal.W011" in {message.id for message in run_checks(tags=["security"])}


def check_entries_is_registered() -> bool:
    return any(check.__module__ == "django_baikal.checks" for check in registry.get_checks())


@both_ways
def test_requirement_03_metadata_over_https_cannot_lead_back_to_plain_http(call: Any) -> None:
    document = endpoints("http://as.test")
    with Stranger("https://as.test", document).reached(), Stranger("http://as.test").reached() as s:
        with pytest.raises(InvalidResponse) as caught:
            call(client_at("https://as.test"), "grant_client")
        assert caught.value.code == "endpoint_refused"
        assert s.requests == []


# -- 4: where a request may go -----------------------------------------------------------------


@both_ways
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("endpoint", ["discovery", *OPERATIONS])
def test_requirement_04_no_redirect_is_followed(call: Any, status: int, endpoint: str) -> None:
    good = answering(reply(b"{}", headers=("Content-Type: application/json",)))
    with (
        running(good) as thief,
        FakeAuthserver(clients={"client": SECRET}).serve() as server,
    ):
        for location in (thief.url, f"{server.endpoint}/elsewhere"):
            client = client_at(server.endpoint)
            name = "token" if endpoint == "discovery" else endpoint
            with server.fail(endpoint, status=status, headers={"location": location}):
                with pytest.raises(InvalidResponse) as caught:
                    call(client, *OPERATIONS[name])
                assert caught.value.status == status
        assert thief.connections == 0
        assert server.requests.to("unknown") == []


@both_ways
@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://as.test/token",
        "gopher://as.test/token",
        "data:application/json,{}",
        "javascript:alert(1)",
        "//evil.test/token",
        "/token",
        "https:///token",
        "https://as.test@evil.test/token",
        "https://evil.test\\@as.test/token",
        "https://as.test/token#@evil.test",
        "https://as.test/\r\nHost: evil.test",
        "http://169.254.169.254/latest/meta-data",
    ],
)
def test_requirement_04_an_endpoint_is_an_https_url_and_nothing_else(call: Any, url: str) -> None:
    for name, operation in OPERATIONS.items():
        with Stranger("https://as.test", {f"{name}_endpoint": url}).reached() as server:
            with pytest.raises(InvalidResponse) as caught:
                call(client_at("https://as.test"), *operation)
            assert caught.value.code == "endpoint_refused"
            assert server.forms() == []


@both_ways
def test_requirement_04_metadata_over_plain_http_cannot_point_into_the_network(call: Any) -> None:
    with running(answering()) as inside, running(hostile_metadata(lambda: inside.url)) as server:
        for operation in OPERATIONS.values():
            with pytest.raises(InvalidResponse) as caught:
                call(client_at(server.url, allow_http=True), *operation)
            assert caught.value.code == "endpoint_refused"
        assert inside.connections == 0


def hostile_metadata(target: Any) -> Any:
    def handle(connection: Connection) -> None:
        while connection.request():
            document = {"issuer": connection.server.url, **endpoints(target())}
            body = json.dumps(document).encode()
            connection.send(reply(body, headers=("Content-Type: application/json",)))

    return handle


@both_ways
def test_requirement_04_the_origins_of_endpoints_can_be_narrowed(call: Any) -> None:
    document = endpoints("https://evil.test")
    with (
        Stranger("https://as.test", document).reached(),
        Stranger("https://evil.test").reached() as other,
    ):
        assert call(client_at("https://as.test"), "grant_client") == "T0ken"
        other.requests.clear()
        narrow = client_at("https://as.test", endpoint_origins=["https://as.test"])
        for operation in OPERATIONS.values():
            with pytest.raises(InvalidResponse, match="ENDPOINT_ORIGINS"):
                call(narrow, *operation)
        assert other.requests == []
        wide = client_at("https://as.test", endpoint_origins=["https://EVIL.test:443"])
        assert call(wide, "grant_client") == "T0ken"


# -- 5: how the client authenticates -----------------------------------------------------------

NAMES = [
    ("weird:app/e", "p%ss w+rd:n&="),
    ("client", "%41"),
    ("a+b c", "=&;"),
    ("ключ", "пароль €"),
    ("a%3Ab", ":"),
]


@both_ways
@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
@pytest.mark.parametrize(("client_id", "secret"), NAMES)
def test_requirement_05_id_and_secret_of_any_kind_arrive_as_they_are(
    call: Any, method: str, client_id: str, secret: str
) -> None:
    with FakeAuthserver(clients={client_id: secret}).serve() as server:
        client = client_at(
            server.endpoint, client_id=client_id, client_secret=secret, client_auth_method=method
        )
        token = call(client, "grant_client", "a")
        assert call(client, "introspect", token)["client_id"] == client_id
        call(client, "revoke", token)
        used = {(r.client_id, r.client_auth_method) for r in server.requests[1:]}
        assert used == {(client_id, method)}


@both_ways
def test_requirement_05_an_assertion_of_the_client_takes_the_place_of_its_secret(call: Any) -> None:
    options = {"client_keys": [{"key": pem()}], "client_auth_method": "private_key_jwt"}
    keys = client_at("https://as.test", **options).get_jwk_set(dump_json=False)
    server = FakeAuthserver(clients={"client": {"jwks": keys}})
    with server.serve():
        client = client_at(server.endpoint, **options, client_secret=None)
        token = call(client, "grant_client", "a")
        assert call(client, "introspect", token)["active"] is True
        for request in server.requests[1:]:
            assert request.client_auth_method == "private_key_jwt"
            assert "authorization" not in request.headers
            assert "client_secret" not in request.form


@both_ways
@pytest.mark.parametrize("endpoint", sorted(OPERATIONS))
@pytest.mark.parametrize(
    ("offered", "method"),
    [
        (["private_key_jwt"], "client_secret_basic"),
        (["client_secret_basic"], "client_secret_post"),
        (["none"], "client_secret_basic"),
        (["client_secret_post", "tls_client_auth"], "client_secret_basic"),
    ],
)
def test_requirement_05_a_secret_is_not_sent_where_it_is_not_taken(
    call: Any, endpoint: str, offered: list[str], method: str
) -> None:
    document = {
        **endpoints("https://as.test"),
        f"{endpoint}_endpoint_auth_methods_supported": offered,
    }
    with Stranger("https://as.test", document).reached() as server:
        client = client_at("https://as.test", client_auth_method=method)
        with pytest.raises(ConfigurationError, match="CLIENT_AUTH_METHOD"):
            call(client, *OPERATIONS[endpoint])
        assert server.forms() == []


# -- 6: whom an assertion is for ---------------------------------------------------------------


@pytest.fixture
def victim() -> Iterator[FakeAuthserver]:
    """An honest authserver, where our client and the attacker's are both registered."""
    key = load_key(pem())
    server = FakeAuthserver(
        endpoint="https://victim.test",
        clients={
            "client": {"client_secret": "another", "jwks": [dict(key.public_jwk)]},
            "attacker": "attacker",
        },
        fetch=lambda request: in_json(
            {"issuer": ME, "jwks_uri": f"{ME}jwks"}
            if request.url.endswith(OPENID)
            else {"keys": [dict(key.public_jwk)]}
        ),
    )
    with server.in_memory():
        yield server


def replayed(victim: FakeAuthserver, form: dict[str, str]) -> list[str]:
    """Let the attacker use at the victim what it got; give the tokens that it receives."""
    attacker = OpenIDClient(victim.endpoint, "attacker", "attacker")
    received = []
    if "assertion" in form:
        # The attacker authenticates as itself, and brings the assertion of somebody else.
        made = attacker_form({"grant_type": JWT_BEARER, "assertion": form["assertion"]})
        received.append(made)
    if "client_assertion" in form:
        # The attacker authenticates as our client.
        stolen = {
            name: form[name] for name in ("client_id", "client_assertion_type", "client_assertion")
        }
        received.append(({"grant_type": "client_credentials", **stolen}, {}))
    tokens = []
    for body, headers in received:
        encoded = "&".join(f"{name}={value}" for name, value in body.items())
        named = {"content-type": "application/x-www-form-urlencoded", **headers}
        answer = victim.handle(
            Request("POST", f"{attacker.config.authserver_endpoint}/token", named, encoded.encode())
        )
        if answer.status == 200:
            tokens.append(json.loads(answer.body)["access_token"])
    return tokens


def attacker_form(form: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    return form, {"authorization": "Basic YXR0YWNrZXI6YXR0YWNrZXI="}


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    own = {"aud": "https://victim.test", "iat": now, "exp": now + 60, "jti": f"{now}{changes}"}
    return {**own, **changes}


def test_requirement_06_the_attack_works_on_a_client_that_believes_metadata(
    victim: FakeAuthserver,
) -> None:
    sign = load_key(pem()).sign
    user = {"assertion": sign(claims(iss=ME, sub="tel:+34600000000"))}
    assert replayed(victim, user), "as the SDK's, whose aud is what the metadata says"
    own = {
        "client_id": "client",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    }
    for aud in ("https://victim.test", "https://victim.test/token"):
        own["client_assertion"] = sign(claims(iss="client", sub="client", aud=aud))
        assert replayed(victim, own)


AS_OUR_CLIENT = {"client_keys": [{"key": pem()}], "issuer": ME}
ATTACKS: dict[str, dict[str, Any]] = {
    "the victim's issuer": {
        "issuer": "https://victim.test",
        **endpoints("https://attacker.test"),
    },
    "both issuers": {
        "issuer": ["https://attacker.test", "https://victim.test"],
        **endpoints("https://attacker.test"),
    },
    "its own issuer": endpoints("https://attacker.test"),
    "the victim's token endpoint": {
        **endpoints("https://attacker.test"),
        "token_endpoint": "https://victim.test/token",
    },
    "the victim's token endpoint on a path that looks like its own": {
        **endpoints("https://attacker.test"),
        "token_endpoint": "https://victim.test:443/token",
    },
}


@both_ways
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("method", ["client_secret_basic", "private_key_jwt"])
@pytest.mark.parametrize("audience", ["issuer", "token_endpoint"])
def test_requirement_06_no_assertion_for_one_authserver_is_usable_at_another(
    call: Any, victim: FakeAuthserver, attack: str, method: str, audience: str
) -> None:
    with Stranger("https://attacker.test", ATTACKS[attack]).reached() as attacker:
        client = client_at(
            attacker.endpoint,
            **AS_OUR_CLIENT,
            client_auth_method=method,
            assertion_audience=audience,
        )
        for operation in (("grant_user", "tel:+34600000000", "a", "p"), *OPERATIONS.values()):
            # Whether it is refused, or sent to the attacker alone, is not the question here.
            with suppress(AuthserverError):
                call(client, *operation)
        for form in attacker.forms():
            assert replayed(victim, form) == []
        granted = [request for request in victim.requests.to("token") if request.status == 200]
        assert granted == [], "nor does the client itself bring it there for the attacker"


@both_ways
def test_requirement_06_an_audience_elsewhere_has_to_be_listed(call: Any) -> None:
    document = endpoints("https://tokens.test")
    with (
        Stranger("https://as.test", document).reached(),
        Stranger("https://tokens.test").reached() as tokens,
    ):
        options = {**AS_OUR_CLIENT, "assertion_audience": "token_endpoint"}
        with pytest.raises(InvalidResponse, match="ENDPOINT_ORIGINS") as caught:
            call(client_at("https://as.test", **options), "grant_user", "u", "a", None)
        assert caught.value.code == "endpoint_refused"
        listed = client_at("https://as.test", **options, endpoint_origins=["https://tokens.test"])
        assert call(listed, "grant_user", "u", "a", None) == "T0ken"
        (form,) = tokens.forms()
        assert jws.decode(form["assertion"]).claims["aud"] == "https://tokens.test/token"


@both_ways
def test_requirement_06_an_assertion_has_all_that_rfc_7523_asks_for(call: Any) -> None:
    with Stranger("https://as.test", endpoints("https://as.test")).reached() as server:
        client = client_at("https://as.test", **AS_OUR_CLIENT, client_auth_method="private_key_jwt")
        for _ in range(5):
            call(client, "grant_user", "tel:+34600000000", "a", "p")
        seen = set()
        for form in server.forms():
            for name, iss in (("assertion", ME), ("client_assertion", "client")):
                header, body = jws.decode(form[name])
                assert header == {
                    "typ": "JWT",
                    "alg": "ES256",
                    "kid": client.get_jwk_set(dump_json=False)["keys"][0]["kid"],
                }
                assert body["iss"] == iss
                assert body["aud"] == "https://as.test", "one value, and no list"
                assert 0 < body["exp"] - body["iat"] <= 300
                assert abs(body["iat"] - time.time()) < 60
                assert len(body["jti"]) >= 16
                seen.add(body["jti"])
        assert len(seen) == 10
        with pytest.raises(ConfigurationError, match="ASSERTION_LIFETIME"):
            client_at("https://as.test", assertion_lifetime=3601)


# -- 7: what a token's answer has to be --------------------------------------------------------

BEARER = {"access_token": "T0ken", "token_type": "Bearer"}


@both_ways
@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"access_token": "T0ken"}, 200),
        ({"token_type": "Bearer"}, 200),
        *(({**BEARER, "access_token": value}, 200) for value in ("", " ", "a b", "a\nb", "ñ", 7)),
        *(({**BEARER, "access_token": value}, 200) for value in (None, ["T0ken"], True, "a\x00")),
        *(({**BEARER, "token_type": value}, 200) for value in ("DPoP", "mac", "", None, 1)),
        *(({**BEARER, "token_type": value}, 200) for value in ("Bearer ", "Bearer,DPoP", ["x"])),
        *(({**BEARER, "expires_in": value}, 200) for value in (-1, "soon", True, [1], "1e3")),
        *(({**BEARER, "scope": value}, 200) for value in (["a"], 7, "a\nb")),
        ({**BEARER, "error": "invalid_grant"}, 200),
        ({"error": "invalid_grant"}, 200),
        (BEARER, 201),
        (BEARER, 202),
        (BEARER, 302),
        (BEARER, 400),
        (BEARER, 401),
        (BEARER, 503),
    ],
)
def test_requirement_07_an_answer_that_is_not_a_bearer_token_is_none(
    call: Any, body: dict[str, Any], status: int
) -> None:
    with FakeAuthserver(clients={"client": SECRET}).serve() as server:
        client = client_at(server.endpoint)
        server.fail("token", status=status, body=body)
        for operation in (
            ("grant_client", "a"),
            ("refresh", "r"),
            ("grant_code", "c", "https://app.example/cb"),
            ("get_token", "a"),
        ):
            with pytest.raises(AuthserverError):
                call(client, *operation)
        server.recover()
        assert call(client, "get_token", "a") != "T0ken", "nothing of it was kept"


@both_ways
@pytest.mark.parametrize("kind", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_requirement_07_the_type_of_a_token_is_compared_without_case(call: Any, kind: str) -> None:
    with FakeAuthserver(clients={"client": SECRET}).serve() as server:
        server.fail("token", status=200, body={**BEARER, "token_type": kind})
        assert call(client_at(server.endpoint), "grant_client") == "T0ken"


@both_ways
@pytest.mark.parametrize(("sent", "given"), [(10**14, 10 * 365 * 86400), (1.5, 1), (0, 0)])
def test_requirement_07_expires_in_is_clamped(call: Any, sent: float, given: int) -> None:
    with FakeAuthserver(clients={"client": SECRET}).serve() as server:
        server.fail("token", status=200, body={**BEARER, "expires_in": sent})
        client = client_at(server.endpoint)
        answer = call(client, "grant_client", full_authserver_response=True)
        assert answer["expires_in"] == given


@both_ways
def test_requirement_07_a_narrower_scope_is_surfaced(
    call: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with FakeAuthserver(clients={"client": SECRET}).serve() as server:
        server.fail("token", status=200, body={**BEARER, "scope": "a"})
        client = client_at(server.endpoint)
        answer = call(client, "grant_client", "a b", full_authserver_response=True)
        assert answer["scope"] == "a"
        assert "missing scopes: b" in caplog.text
        server.recover()
        caplog.clear()
        answer = call(client, "grant_client", "a b", full_authserver_response=True)
        assert answer["scope"] == "a b"
        assert caplog.text == ""


# -- 8: whose cached token it is ---------------------------------------------------------------


@pytest.fixture
def authserver() -> Iterator[FakeAuthserver]:
    names = {"test-client": "test-secret", "other-client": "other-secret"}
    key = dict(load_key(pem()).public_jwk)

    def published(request: Request) -> Response:
        if request.url.endswith("/jwks"):
            return in_json({"keys": [key]})
        issuer = request.url.removesuffix(OPENID)
        return in_json({"issuer": issuer, "jwks_uri": "https://me.example/jwks"})

    server = FakeAuthserver(clients=names, fetch=published)
    with server.serve(), override_settings(BAIKAL={"default": entry_of(server)}):
        yield server


def entry_of(server: FakeAuthserver, **changes: Any) -> dict[str, Any]:
    return server.settings(**{"CLIENT_KEYS": [{"key": pem()}], "ISSUER": ME, **changes})


#: The arguments, and what is changed in the settings of the one alias.
WANTED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"scopes": "a"}, {}),
    ({"scopes": "a b"}, {}),
    ({"scopes": "b"}, {}),
    ({}, {}),
    ({"purposes": "a"}, {}),
    ({"scopes": "a", "purposes": "b"}, {}),
    ({"scopes": "a", "sub": "1"}, {}),
    ({"scopes": "a", "sub": "2"}, {}),
    ({"scopes": "a", "sub": "None"}, {}),
    ({"scopes": "a", "sub": "1", "purposes": "p"}, {}),
    ({"scopes": "a", "sub": "1", "authorization_id": "1"}, {}),
    ({"scopes": "a", "sub": "1", "acr": "1"}, {}),
    ({"scopes": "a", "sub": "1", "identifier": {"id": "1", "type": "x"}}, {}),
    ({"scopes": "a", "sub": "1", "identifier": {"id": "x", "type": "1"}}, {}),
    ({"scopes": "a"}, {"CLIENT_ID": "other-client", "CLIENT_SECRET": "other-secret"}),
    ({"scopes": "a", "sub": "1"}, {"CLIENT_ID": "other-client", "CLIENT_SECRET": "other-secret"}),
    ({"scopes": "a", "sub": "1"}, {"ISSUER": "https://me.example"}),
]


def get(call: Any, server: FakeAuthserver, wanted: tuple[dict[str, Any], dict[str, Any]]) -> str:
    arguments, changes = wanted
    with override_settings(BAIKAL={"default": entry_of(server, **changes)}):
        token: str = call(clients["default"], "get_token", **arguments)
    return token


@both_ways
def test_requirement_08_everything_that_makes_a_token_what_it_is_keeps_it_apart(
    call: Any, authserver: FakeAuthserver
) -> None:
    tokens = [get(call, authserver, wanted) for wanted in WANTED]
    for (one, first), (two, second) in combinations(zip(WANTED, tokens, strict=True), 2):
        assert first != second, (one, two)
    again = [get(call, authserver, wanted) for wanted in WANTED]
    assert again == tokens, "each comes back, and no other"
    assert authserver.requests.count("token") == len(WANTED)
    other_order = ({"scopes": ["b", "a"]}, {})
    assert get(call, authserver, other_order) == tokens[1], "the order does not matter"


@both_ways
def test_requirement_08_a_token_of_another_authserver_is_never_sent_to_this_one(
    call: Any, authserver: FakeAuthserver
) -> None:
    mine = get(call, authserver, WANTED[0])
    with FakeAuthserver(clients={"test-client": "test-secret"}).serve() as second:
        assert get(call, second, WANTED[0]) != mine
        assert second.requests.count("token") == 1
    assert get(call, authserver, WANTED[0]) == mine
    assert authserver.requests.count("token") == 1


@both_ways
def test_requirement_08_a_refusal_by_the_api_drops_exactly_that_token(
    call: Any, authserver: FakeAuthserver
) -> None:
    tokens = [get(call, authserver, wanted) for wanted in WANTED]
    dropped = 6
    call(clients["default"], "forget_token", **WANTED[dropped][0])
    again = [get(call, authserver, wanted) for wanted in WANTED]
    assert [i for i, token in enumerate(again) if token != tokens[i]] == [dropped]


@both_ways
def test_requirement_08_a_token_is_renewed_before_it_expires(
    call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = timing.Clock(monkeypatch)
    with (
        FakeAuthserver(access_token_lifetime=7200).serve() as server,
        override_settings(BAIKAL={"default": server.settings(TOKEN_LEEWAY=3600)}),
    ):
        client = clients["default"]
        first = call(client, "get_token", "before its end")
        assert call(client, "get_token", "before its end") == first
        clock.pass_time(3600)
        assert call(client, "introspect", first)["active"] is True
        assert call(client, "get_token", "before its end") != first
    assert server.requests.count("token") == 2


def test_requirement_08_one_request_is_in_flight_for_one_token(authserver: FakeAuthserver) -> None:
    authserver.fail("token", delay=0.3)
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(clients["default"].get_token("threads")))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1

    async def main() -> set[Any]:
        calls = (clients["default"].aget_token("tasks") for _ in range(20))
        return set(await asyncio.gather(*calls))

    assert len(asyncio.run(main())) == 1
    assert authserver.requests.count("token") == 2


# -- 11: revocation ----------------------------------------------------------------------------


@both_ways
@pytest.mark.parametrize("status", [200, 204])
def test_requirement_11_revoking_a_token_that_nobody_knows_is_a_success(
    call: Any, authserver: FakeAuthserver, status: int
) -> None:
    client = clients["default"]
    call(client, "revoke", "nobody-knows-this")
    token = call(client, "grant_client")
    call(client, "revoke", token, "access_token")
    assert call(client, "introspect", token) == {"active": False}
    call(client, "revoke", token)
    with authserver.fail("revocation", status=status, body=b""):
        call(client, "revoke", token)


@both_ways
@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("as_date", [False, True])
def test_requirement_11_a_revocation_that_has_to_wait_says_how_long(
    call: Any, authserver: FakeAuthserver, status: int, as_date: bool
) -> None:
    client = clients["default"]
    token = call(client, "grant_client")
    after = formatdate(time.time() + 30, usegmt=True) if as_date else "30"
    with (
        authserver.fail("revocation", status=status, headers={"retry-after": after}),
        pytest.raises(AuthserverUnavailable) as caught,
    ):
        call(client, "revoke", token)
    assert 25 <= (caught.value.retry_after or 0) <= 30
    assert caught.value.retryable
    assert call(client, "introspect", token)["active"] is True, "it may not be taken for done"


@both_ways
def test_requirement_11_a_revocation_that_is_refused_is_no_success(
    call: Any, authserver: FakeAuthserver
) -> None:
    token = call(clients["default"], "grant_client")
    somebody_else = OpenIDClient(authserver.endpoint, "other-client", "other-secret")
    with pytest.raises(OAuthError) as caught:
        call(somebody_else, "revoke", token)
    assert caught.value.error == "invalid_grant"
    with (
        authserver.fail("revocation", status=302, headers={"location": "/login"}),
        pytest.raises(InvalidResponse),
    ):
        call(clients["default"], "revoke", token)


# -- 12 to 16 and 19: whose bearer token it is ---------------------------------------------------
# As far as the engine decides: what a view or a middleware answers is tested with those.


def introspected(server: FakeAuthserver, **claims: Any) -> None:
    """Let introspection answer for the token "T0ken", and for whatever else is asked about."""
    body = {"active": True, "sub": "anna", "client_id": "client", **claims}
    server.fail("introspection", status=200, body=body)


@pytest.fixture
def bearer() -> Iterator[FakeAuthserver]:
    with FakeAuthserver(clients={"client": SECRET}).serve() as server:
        yield server


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("Bearer T0ken", "T0ken"),
        ("bearer T0ken", "T0ken"),
        ("BEARER\tT0ken", "T0ken"),
        ("Basic T0ken", None),
        ("X-Bearer T0ken", None),
        ("Bearer", InvalidRequest),
        ("Bearer one, Bearer two", InvalidRequest),
        ("Basic eDp5, Bearer T0ken", InvalidRequest),
    ],
)
def test_requirement_12_one_token_of_one_scheme_in_one_place(header: str, found: Any) -> None:
    if found is InvalidRequest:
        with pytest.raises(InvalidRequest):
            bearer_token(header)
    else:
        assert bearer_token(header) == found


@both_ways
@pytest.mark.parametrize(
    "token",
    [
        "",
        " ",
        "a b",
        "a,b",
        "a\r\nX: y",
        "a\x00",
        "ñ",
        "=",
        "a=b",
        "a" * 8193,
        "\ud800",
        None,
        b"a",
    ],
)
def test_requirement_12_what_is_no_token_is_refused_before_anything_is_sent(
    call: Any, bearer: FakeAuthserver, token: Any
) -> None:
    for fresh in (False, True):
        with pytest.raises(TokenError) as caught:
            call(client_at(bearer.endpoint), "authenticate", token, fresh=fresh)
        assert caught.value.code == "malformed_token"
    assert len(bearer.requests) == 0


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (None, 401, None),
        (InvalidRequest("x"), 400, "invalid_request"),
        (TokenError("x"), 401, "invalid_token"),
        (InactiveToken("x"), 401, "invalid_token"),
        (InsufficientScope("x", scopes=["a"]), 403, "insufficient_scope"),
        (InsufficientAuthentication("x"), 401, "insufficient_user_authentication"),
    ],
)
def test_requirement_13_each_answer_is_that_of_rfc_6750(
    error: Any, status: int, code: str | None
) -> None:
    found = answer(error, "api")
    challenge = found.headers["WWW-Authenticate"]
    assert found.status == status
    assert challenge.startswith('Bearer realm="api"')
    assert (f'error="{code}"' in challenge) if code else ("error" not in challenge)
    assert '"x"' not in challenge


def test_requirement_13_no_value_leaves_its_quotes_or_its_line() -> None:
    evil = 'a", error="b\\\r\nSet-Cookie: c=d\u2028'
    found = answer(InsufficientScope("x", scopes=[evil], purposes=[evil]), evil)
    challenge = found.headers["WWW-Authenticate"]
    assert challenge.isascii()
    assert challenge.isprintable()
    assert challenge.count(' error="') == 1, "the others have a backslash before their quotes"


@both_ways
def test_requirement_14_introspection_is_a_post_of_an_authenticated_client(
    call: Any, bearer: FakeAuthserver
) -> None:
    token = bearer.issue_token(sub="anna")
    call(client_at(bearer.endpoint), "authenticate", token)
    (request,) = bearer.requests.to("introspection")
    assert (request.method, request.client_id, request.status) == ("POST", "client", 200)
    assert token not in request.url


ACCEPTED: list[dict[str, Any]] = [
    {},
    {"exp": 4e9, "nbf": 1, "iat": 1.5, "token_type": "bearer", "aud": ["x", "client"]},
    {"aud": None, "exp": None, "cnf": None},
]
REFUSED: list[dict[str, Any]] = [
    {"active": False},
    {"exp": 1},
    {"exp": -1},
    {"exp": 1.5},
    {"nbf": 4e9},
    {"aud": "other"},
    {"aud": ["other"]},
    {"iss": "https://evil.test"},
    {"token_type": "refresh_token"},
    {"token_type": "DPoP"},
    {"cnf": {"jkt": "x"}},
]


@both_ways
def test_requirement_14_all_that_an_answer_says_is_enforced(
    call: Any, bearer: FakeAuthserver
) -> None:
    client = client_at(bearer.endpoint)
    for number, claims in enumerate(ACCEPTED):
        introspected(bearer, **claims)
        assert call(client, "authenticate", f"good-{number}").subject == "anna"
    for number, claims in enumerate(REFUSED):
        introspected(bearer, **claims)
        for _ in range(2):  # asked about, and from the cache
            with pytest.raises(TokenError):
                call(client, "authenticate", f"bad-{number}")


@both_ways
@pytest.mark.parametrize("active", ["true", "True", 1, 0, [], [True], {}, None])
def test_requirement_14_active_is_a_boolean(call: Any, bearer: FakeAuthserver, active: Any) -> None:
    introspected(bearer, active=active)
    with pytest.raises(InvalidResponse):
        call(client_at(bearer.endpoint), "authenticate", "T0ken")


@both_ways
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 302])
def test_requirement_14_that_we_are_refused_is_not_that_the_token_is_bad(
    call: Any, bearer: FakeAuthserver, status: int
) -> None:
    bearer.fail("introspection", status=status)
    with pytest.raises(AuthserverError) as caught:
        call(client_at(bearer.endpoint), "authenticate", "T0ken")
    assert answer(caught.value, "api").status == 503
    bearer.recover()
    with pytest.raises(AuthserverError):
        call(client_at(bearer.endpoint, client_secret="wrong"), "authenticate", "T0ken")


@both_ways
@pytest.mark.parametrize(
    "claims",
    [
        {"cnf": {"jkt": "x"}},
        {"cnf": {"x5t#S256": "x"}},
        {"cnf": {"jwk": {}}},
        {"cnf": {}},
        {"cnf": "x"},
        {"token_type": "DPoP"},
        {"token_type": "dpop"},
        {"token_type": "DPoP", "cnf": {"jkt": "x"}},
    ],
)
def test_requirement_15_a_token_bound_to_a_key_is_no_plain_bearer(
    call: Any, bearer: FakeAuthserver, claims: dict[str, Any]
) -> None:
    introspected(bearer, **claims)
    with pytest.raises(TokenError) as caught:
        call(client_at(bearer.endpoint, audiences=["*"]), "authenticate", "T0ken")
    assert caught.value.code == "not_a_bearer_token"


@both_ways
def test_requirement_16_who_it_is_are_issuer_and_subject_and_no_other_name(
    call: Any, bearer: FakeAuthserver
) -> None:
    client = client_at(bearer.endpoint)
    found = {}
    for number, claims in enumerate(
        [
            {"sub": "anna"},
            {"sub": "anna", "username": "admin", "preferred_username": "admin", "email": "a@x"},
            {"sub": "bert", "username": "admin", "email": "a@x"},
            {"sub": None, "username": "admin"},
            {"sub": "client", "username": None},
            {"sub": None},
        ]
    ):
        introspected(bearer, **claims)
        found[number] = call(client, "authenticate", f"token-{number}")
    same = found[0].identity
    assert found[1].identity == same
    assert len({each.identity for each in found.values()}) == 4
    assert [each.subject for each in found.values()][:4] == ["anna", "anna", "bert", None]
    assert [each.is_user for each in found.values()] == [True] * 4 + [False] * 2
    assert found[4].identity == found[5].identity
    assert all("admin" not in each.identity for each in found.values())


@both_ways
@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "other", "client_secret": "other"},
        {"audiences": ["api"]},
        {"allowed_clients": ["client"]},
        {"required_claims": {"tenant": 1}},
    ],
)
def test_requirement_19_an_answer_for_one_policy_is_none_for_another(
    call: Any, changes: dict[str, Any]
) -> None:
    with FakeAuthserver(clients={"client": SECRET, "other": "other"}).serve() as server:
        introspected(server, aud=["client", "api", "other"], tenant=1)
        for options in ({}, changes, {}, changes):
            assert call(client_at(server.endpoint, **options), "authenticate", "T0ken")
        assert server.requests.count("introspection") == 2


@both_ways
def test_requirement_19_what_one_authserver_says_is_not_believed_of_another(call: Any) -> None:
    with (
        FakeAuthserver(clients={"client": SECRET}).serve() as one,
        FakeAuthserver(clients={"client": SECRET}).serve() as two,
    ):
        token = one.issue_token(sub="anna")
        assert call(client_at(one.endpoint), "authenticate", token)
        with pytest.raises(InactiveToken):
            call(client_at(two.endpoint), "authenticate", token)
        assert call(client_at(one.endpoint), "authenticate", token)


@both_ways
def test_requirement_19_tokens_that_begin_or_end_alike_are_told_apart(
    call: Any, bearer: FakeAuthserver
) -> None:
    good = "a" * 200
    introspected(bearer)
    client = client_at(bearer.endpoint)
    assert call(client, "authenticate", good)
    bearer.recover()
    others = ["a" * 199, "a" * 201, "a" * 199 + "b", "b" + "a" * 199, "a" * 20, good.upper()]
    for other in [*others, good + "="]:
        with pytest.raises(InactiveToken):
            call(client, "authenticate", other)
    assert call(client, "authenticate", good)


@both_ways
@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_requirement_19_an_error_is_not_kept(
    call: Any, bearer: FakeAuthserver, status: int
) -> None:
    client, token = client_at(bearer.endpoint), bearer.issue_token(sub="anna")
    with bearer.fail("introspection", status=status), pytest.raises(AuthserverError):
        call(client, "authenticate", token)
    assert call(client, "authenticate", token).subject == "anna"


@both_ways
def test_requirement_19_no_answer_outlives_its_token(
    call: Any, bearer: FakeAuthserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = timing.Clock(monkeypatch)
    client = client_at(bearer.endpoint, introspection_ttl=86400, stale_if_error=86400)
    introspected(bearer, exp=time.time() + 3600)
    assert call(client, "authenticate", "T0ken")
    bearer.recover()
    bearer.fail("introspection", status=500)
    clock.pass_time(3600)
    with pytest.raises(AuthserverError):
        call(client, "authenticate", "T0ken")


@both_ways
def test_requirement_19_no_token_is_in_a_log_an_error_or_the_cache(
    call: Any, bearer: FakeAuthserver, caplog: pytest.LogCaptureFixture
) -> None:
    token, phone = "t0ken-that-is-nobodys-business", "+34600123456"
    client = client_at(bearer.endpoint, stale_if_error=3600, introspection_ttl=0)
    introspected(bearer, sub=f"tel:{phone}")
    with caplog.at_level(logging.DEBUG, "django_baikal"):
        found = call(client, "authenticate", token)
        bearer.recover()
        told = {"error": "x", "error_description": f"{token} of {phone}"}
        for status in (500, 401, 400, 429):
            with bearer.fail("introspection", status=status, body=told):
                call(client, "authenticate", token)
                with pytest.raises(AuthserverError) as caught:
                    call(client, "authenticate", token, fresh=True)
                shown = f"{caught.value!r} {vars(caught.value)}"
                assert token not in shown
                assert phone not in shown
    assert "django_baikal.bearer" in {record.name for record in caplog.records}
    kept = repr(caches["default"]._cache)  # type: ignore[attr-defined]
    for text in (caplog.text, kept, repr(found)):
        assert token not in text
        assert phone not in text


# -- 21: private keys at rest ------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


PRIVATE = {"RS256": rsa_key(), "ES256": ec_key()}


@pytest.mark.django_db
@pytest.mark.parametrize("alg", PRIVATE)
def test_requirement_21_who_reads_the_database_cannot_sign(alg: str, clock: Clock) -> None:
    keeper().import_key(material(PRIVATE[alg], alg=alg))
    stolen = everything()[0]
    # Also what is compressed, encoded or cut would hold a part of it in one of its spellings.
    assert_tells_nothing(repr(stolen), PRIVATE[alg])
    assert der(PRIVATE[alg])[-32:] not in stolen["private_envelope"]
    # Somebody who seals the row with a key of their own is believed nowhere but there.
    own = store(ENCRYPTION_KEYS=KEKS[1:2])
    edit(rows()[0], seal=own.options.encryption_keys.seal(rows()[0].sealed()))
    with pytest.raises(NoUsableSigningKey):
        own.signing_key()
    with pytest.raises(StoreUnavailable):
        store().signing_key()


@pytest.mark.django_db
def test_requirement_21_keys_outlive_a_change_of_secret_key_that_has_its_fallback(
    settings: Any, clock: Clock
) -> None:
    def signing() -> Any:
        return DatabaseKeyStore(ClientConfig(), {"ALG": "ES256"}).signing_key()

    Keeper(DatabaseKeyStore(ClientConfig(), {"ALG": "ES256"})).rotate()
    before, old = signing().kid, settings.SECRET_KEY
    settings.SECRET_KEY = "another-" + "y" * 50
    with pytest.raises(StoreUnavailable, match="needs the key-encryption key"):
        signing()
    settings.SECRET_KEY_FALLBACKS = [old]
    assert signing().kid == before


@pytest.mark.django_db
def test_requirement_21_an_error_page_in_debug_shows_no_private_key(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Django's page of an error shows each variable of each frame."""
    keeper().import_key(material(PRIVATE["RS256"]))
    used = store()

    def fail(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("while it signs")

    monkeypatch.setattr("jwt.PyJWS.encode", fail)
    with pytest.raises(ZeroDivisionError) as caught:
        used.signing_key().sign({"sub": "me"})  # type: ignore[union-attr]
    page = ExceptionReporter(None, caught.type, caught.value, caught.tb).get_traceback_html()
    assert "ZeroDivisionError" in page and "private_key" in page
    assert_tells_nothing(page, PRIVATE["RS256"])
    assert KEKS[0] not in page


# -- 22: the states of a key -------------------------------------------------------------------


@pytest.mark.django_db
def test_requirement_22_whoever_fetched_the_keys_at_any_time_knows_who_signs(clock: Clock) -> None:
    """Six weeks: with a JWK Set as old as any cache may keep, and with one of the last moment."""
    timing = keeper().options.timing
    cache = timedelta(seconds=timing.shortest_propagation)
    life = timedelta(seconds=timing.assertion_lifetime + timing.clock_skew)
    old: list[tuple[datetime, Any]] = []
    end, began, signers = clock.now + timedelta(weeks=6), clock.now, []
    while clock.now < end:
        keeper().rotate()
        keeper().prune()
        ring, used = keeper().read(), store()
        assert [ring.state(row, clock.now) for row in ring.rows].count("active") == 1
        key = used.signing_key()
        assert key is not None and key.kid == thumbprint(key.public_jwk)
        token = key.sign({"sub": "me"})
        old = [(at, jwks) for at, jwks in old if at >= clock.now - cache]
        old.append((clock.now, Keyring([used]).jwk_set()["keys"]))
        assert {(jwk["use"], jwk["alg"]) for jwk in old[-1][1]} == {("sig", "ES256")}
        for _, jwks in old:
            jws.verify(token, jwks, algorithms=["ES256"])
        then = clock.now
        clock.now += life
        jws.verify(token, Keyring([store()]).jwk_set()["keys"], algorithms=["ES256"])
        clock.now = then
        signers.append(key.kid)
        clock.forward(hours=2)
    assert len(set(signers)) == 6 and clock.now - began >= timedelta(weeks=6)


@pytest.mark.django_db
def test_requirement_22_a_stolen_key_is_of_no_use_once_it_is_revoked(clock: Clock) -> None:
    keeper().rotate()
    clock.forward(days=1)
    stolen = store().signing_key()
    assert stolen is not None
    keeper().emergency(reason="stolen")
    forged = stolen.sign({"sub": "anybody"})
    for days in (0, 1, 8, 30):
        clock.forward(days=days)
        keeper().rotate()
        with pytest.raises(InvalidSignature):
            jws.verify(forged, Keyring([store()]).jwk_set()["keys"], algorithms=["ES256"])
    # Whoever has the table, too, cannot take it back.
    revoked = next(row for row in rows() if row.kid == stolen.kid)
    edit(revoked, revoked_at=None)
    with pytest.raises(StoreUnavailable, match="was tampered with"):
        store().keys()
    with pytest.raises(Tampered):
        keeper().import_key(stolen)
    edit(revoked, revoked_at=revoked.revoked_at)
    with pytest.raises(Refused, match="does not come back"):
        keeper().import_key(stolen)


# -- 23: the JWK Set ---------------------------------------------------------------------------

#: What each kind of key may show, and nothing else (RFC 7518 section 6, RFC 8037 section 2).
SHOWN = {
    "RSA": {"kty", "kid", "use", "alg", "n", "e"},
    "EC": {"kty", "kid", "use", "alg", "crv", "x", "y"},
    "OKP": {"kty", "kid", "use", "alg", "crv", "x"},
}


@contextmanager
def published(*algs: str, **options: Any) -> Iterator[Client]:
    """Publish a ring that has a key of each algorithm."""
    backend = "django_baikal.keys.database.DatabaseKeyStore"
    keys = {"BACKEND": backend, "OPTIONS": options}
    entry = {"AUTHSERVER_ENDPOINT": "https://as.test", "CLIENT_ID": "c", "CLIENT_SECRET": "s"}
    entry["TIMEOUT"] = 5 + secrets.randbelow(10**6) / 10**6  # type: ignore[assignment]
    with override_settings(BAIKAL={"default": {**entry, "KEYS": keys}}):
        kept = keepers()["default"]
        for alg in algs:
            kept.rotate(alg=alg, force=True)
            kept.promote(force=True)
        yield Client()


JWKS = "/.well-known/jwks.json"


@pytest.mark.django_db
def test_requirement_23_only_public_members_are_shown() -> None:
    with published("RS256", "ES256", "EdDSA") as client:
        answer = client.get(JWKS)
    keys = answer.json()["keys"]
    assert {jwk["kty"] for jwk in keys} == set(SHOWN)
    assert [jwk for jwk in keys if jwk.keys() != SHOWN[jwk["kty"]]] == []
    assert answer["Content-Type"] == "application/json"
    assert not {"Vary", "Set-Cookie"} & answer.headers.keys() and not answer.cookies


@pytest.mark.django_db
@pytest.mark.parametrize("method", ["post", "put", "patch", "delete", "trace"])
def test_requirement_23_nobody_writes_to_it(method: str) -> None:
    with published("ES256") as client:
        before = client.get(JWKS)
        answer = getattr(client, method)(JWKS)
        assert (answer.status_code, answer["Allow"]) == (405, "GET, HEAD, OPTIONS")
        again = client.get(JWKS, headers={"if-none-match": before["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert client.head(JWKS)["ETag"] == before["ETag"]


@pytest.mark.django_db
def test_requirement_23_it_is_kept_for_less_time_than_a_key_is_known_before_it_signs() -> None:
    with published("ES256") as client:
        said = client.get(JWKS)["Cache-Control"]
        lead = keepers()["default"].options.timing.propagation
    kept = dict(part.strip().split("=") for part in said.split(",") if "=" in part)
    assert 2 * sum(map(int, kept.values())) < lead


@pytest.mark.django_db
@pytest.mark.parametrize("known", [True, False])
def test_requirement_23_a_database_that_fails_never_empties_it(known: bool) -> None:
    def down(*_: Any) -> Any:
        raise OperationalError("gone")

    with published("ES256", PROCESS_CACHE_TTL=0) as client:
        before = client.get(JWKS) if known else None
        with connection.execute_wrapper(down):
            answer = client.get(JWKS)
        if before:
            assert answer.content == before.content
        else:
            assert (answer.status_code, answer["Cache-Control"]) == (503, "no-store")
        assert b'"keys":[]' not in answer.content


# -- 12 to 16: as seen through the doors -------------------------------------------------------

every_door = pytest.mark.parametrize(
    "at",
    [
        "/open",
        "/async-open",
        *(f"/{door}/any" for door in DECORATORS),
        pytest.param("/framework/any", marks=needs_rest_framework),
        pytest.param("/bare-framework/any", marks=needs_rest_framework),
    ],
)
both_servers = pytest.mark.parametrize(
    "asgi", [pytest.param(False, id="wsgi"), pytest.param(True, id="asgi")]
)


def in_a_form(fields: str) -> dict[str, Any]:
    return {
        "method": "post",
        "data": fields,
        "content_type": "application/x-www-form-urlencoded",
    }


def challenge(answer: Answer) -> dict[str, str]:
    """Read WWW-Authenticate as RFC 9110 section 11.6.1 has it: one challenge, quoted-strings."""
    scheme, _, rest = answer.headers["WWW-Authenticate"].partition(" ")
    assert scheme == "Bearer"
    parameter = r'([a-z_]+)="((?:[ !#-\[\]-~]|\\[!-~])*)"'
    assert re.fullmatch(rf"{parameter}(?:, {parameter})*", rest)
    found = re.findall(parameter, rest)
    assert len(dict(found)) == len(found)
    return {name: re.sub(r"\\(.)", r"\1", value) for name, value in found}


@every_door
@both_servers
def test_requirement_12_a_door_takes_a_token_from_its_header_alone(asgi: bool, at: str) -> None:
    with standing(guards(at)) as server:
        token = server.issue_token(sub="anna")
        elsewhere: list[tuple[str, dict[str, Any]]] = [
            (f"?access_token={token}", {}),
            (f"?token={token}&bearer_token={token}", {}),
            ("", in_a_form(f"access_token={token}")),
            ("", {"headers": {"x-access-token": token, "cookie": f"access_token={token}"}}),
        ]
        for query, options in elsewhere:
            answer = knock(at + query, asgi=asgi, **options)
            assert answer.status == 401 or answer.body["authenticated"] is False
        for query, options in ((f"?access_token={token}", {}), ("", in_a_form("access_token="))):
            answer = knock(at + query, f"Bearer {token}", asgi=asgi, **options)
            assert answer.status == 400
            assert challenge(answer)["error"] == "invalid_request"
        assert len(server.requests) == 0
        assert knock(at, f"bEARER {token}", asgi=asgi).body["authenticated"] is True


@every_door
@both_servers
def test_requirement_12_a_door_looks_at_the_grammar_before_it_asks(asgi: bool, at: str) -> None:
    with standing(guards(at)) as server:
        for token in ("a" * 8193, "a b", "a=b", "=", "tök", "a\x7f", '"a"', "<a>", "a:b", "{}"):
            answer = knock(at, f"Bearer {token}", asgi=asgi)
            assert answer.status == 401
            assert challenge(answer)["error"] == "invalid_token"
        for header in ("Bearer", "Bearer ", "Bearer\t", "Bearer a, Bearer b", "Bearer a,"):
            assert knock(at, header, asgi=asgi).status == 400
        assert len(server.requests) == 0
        assert knock(at, f"Bearer {'a' * 8192}", asgi=asgi).status == 401
        assert server.requests.count("introspection") == 1


@every_door
@both_servers
@pytest.mark.parametrize("realm", ["api", 'the "inner" one', "back\\slash", "a, error=b"])
def test_requirement_13_a_door_words_its_refusals_as_rfc_6750_does(
    asgi: bool, at: str, realm: str
) -> None:
    with standing(guards(at), {"REALM": realm}) as server:
        if "open" not in at:
            assert challenge(knock(at, asgi=asgi)) == {"realm": realm}
            assert challenge(knock(at, "Digest eDp5", asgi=asgi)) == {"realm": realm}
        found = knock(at, "Bearer nope", asgi=asgi)
        assert found.status == 401
        assert challenge(found).keys() == {"realm", "error", "error_description"}
        reasons = [
            knock(at, f"Bearer {token}", asgi=asgi).content
            for token in (
                server.issue_token(lifetime=-60),
                server.issue_token(aud=["other"]),
                server.issue_token(token_type="refresh_token"),
                "never-issued",
                "no token",
            )
        ]
        assert {*reasons} == {found.content}  # an attacker does not learn which it was


@both_servers
@pytest.mark.parametrize(
    "door", [*DECORATORS, pytest.param("framework", marks=needs_rest_framework)]
)
def test_requirement_13_a_door_says_what_a_token_lacks(asgi: bool, door: str) -> None:
    with standing() as server:
        header = f"Bearer {server.issue_token(sub='anna', scope='write', acr='1')}"
        for kind, status, error, lacks in (
            ("scopes", 403, "insufficient_scope", {"scope": "write admin"}),
            ("purposes", 403, "insufficient_scope", {"purpose": "fraud"}),
            ("acr", 401, "insufficient_user_authentication", {"acr_values": "3"}),
        ):
            answer = knock(f"/{door}/{kind}", header, asgi=asgi)
            assert answer.status == status
            said = challenge(answer)
            assert said["error"] == error
            assert said.keys() == {"realm", "error", "error_description", *lacks}
            assert {name: said[name] for name in lacks} == lacks


@every_door
@both_servers
def test_requirement_14_a_door_asks_by_an_authenticated_post(asgi: bool, at: str) -> None:
    with standing(guards(at)) as server:
        token = server.issue_token(sub="anna")
        assert knock(at, f"Bearer {token}", asgi=asgi).status == 200
        (call,) = server.requests.to("introspection")
        assert (call.method, call.form["token"]) == ("POST", token)
        assert call.client_id == "test-client"
        assert token not in call.url


@every_door
@both_servers
@pytest.mark.parametrize(
    "answer",
    [
        {"body": {"active": "true", "sub": "anna", "client_id": "test-client"}},
        {"body": {"active": 1, "sub": "anna", "client_id": "test-client"}},
        {"body": {"active": [True], "sub": "anna"}},
        {"body": {"sub": "anna"}},
        {"body": b'{"active": true, "active": false, "sub": "anna"}'},
        {"status": 401},
        {"status": 403},
        {"status": 401, "body": {"active": False}},
        {"status": 400, "body": {"error": "invalid_client"}},
    ],
)
def test_requirement_14_a_door_tells_a_bad_token_from_a_broken_answer(
    asgi: bool, at: str, answer: dict[str, Any]
) -> None:
    with standing(guards(at)) as server:
        if isinstance(answer.get("body"), bytes):
            answer = {**answer, "headers": {"Content-Type": "application/json"}}
        with server.fail("introspection", **answer):
            found = knock(at, f"Bearer {server.issue_token(sub='anna')}", asgi=asgi)
        assert found.status == 503
        assert found.told.keys() == {"Retry-After", "Cache-Control"}
        assert knock(at, "Bearer nope", asgi=asgi).status == 401


@every_door
@both_servers
@pytest.mark.parametrize(
    "claims",
    [
        {"cnf": {"jkt": "x"}},
        {"cnf": {"x5t#S256": "x"}},
        {"cnf": {}},
        {"token_type": "DPoP"},
        {"token_type": "dpop", "cnf": {"jkt": "x"}},
        {"token_type": "mac"},
    ],
)
def test_requirement_15_a_door_takes_no_token_that_is_bound_to_a_key(
    asgi: bool, at: str, claims: dict[str, Any]
) -> None:
    with standing(guards(at)) as server:
        token = server.issue_token(sub="anna", **claims)
        answer = knock(at, f"Bearer {token}", asgi=asgi)
        assert answer.status == 401
        assert challenge(answer)["error"] == "invalid_token"
        # Nor is its own scheme one of ours.
        other = knock(at, f"DPoP {token}", asgi=asgi)
        assert other.status == 401 or other.body["authenticated"] is False


@pytest.mark.django_db
@every_door
@both_servers
def test_requirement_16_whom_a_door_lets_in_is_told_by_issuer_and_subject(
    asgi: bool, at: str
) -> None:
    admin = User.objects.create_superuser("admin", "admin@example.com")
    users = []
    for _ in range(2):  # two issuers
        with standing(guards(at)) as server:
            for claims in (
                {"sub": "admin", "username": "admin", "email": admin.email},
                {"sub": "admin", "username": "anna", "preferred_username": "admin"},
                {"sub": "anna", "username": "admin", "email": admin.email},
                {"sub": str(admin.pk), "user_id": admin.pk, "is_superuser": True},
                {"username": "admin"},
            ):
                answer = knock(at, f"Bearer {server.issue_token(**claims)}", asgi=asgi)
                users.append(answer.body["user"])
    first, second = users[:5], users[5:]
    for found in (first, second):
        assert found[0] == found[1]
        assert len({*found}) == 4
        assert all(re.fullmatch(r"TokenUser [0-9a-f]{32}", user) for user in found)
    assert {*first}.isdisjoint(second)
    assert list(User.objects.all()) == [admin]
