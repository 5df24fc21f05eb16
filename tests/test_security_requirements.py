"""What a trusted token client must do, requirement by requirement, from the attacker's side."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.core.checks import run_checks
from django.core.checks.registry import registry
from django.test import override_settings
from loopback import Connection, answering, reply, running
from stage import both_ways, counted, pem

from django_baikal import OpenIDClient, clients
from django_baikal.exceptions import (
    AuthserverError,
    AuthserverUnavailable,
    ConfigurationError,
    InvalidResponse,
    OAuthError,
)
from django_baikal.keys import load_key
from django_baikal.protocol import jws
from django_baikal.protocol.effects import Request, Response
from django_baikal.protocol.grants import JWT_BEARER
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
    values = {"client_id": "client", "client_secret": SECRET, "timeout": 5, **changes}
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
def test_requirement_08_a_token_is_renewed_before_it_expires(call: Any) -> None:
    with (
        FakeAuthserver(access_token_lifetime=2).serve() as server,
        override_settings(BAIKAL={"default": server.settings()}),
    ):
        client = clients["default"]
        first = call(client, "get_token", "before its end")
        assert call(client, "get_token", "before its end") == first
        time.sleep(1.1)
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
