from __future__ import annotations

import asyncio
import base64
import hashlib
import http.client
import inspect
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote_plus, urlencode, urlsplit

import jwt
import pytest
import requests
from django.http import HttpRequest, JsonResponse
from django.test import override_settings
from django.urls import re_path
from hypothesis import given
from hypothesis import strategies as st
from timing import PATIENCE, not_held_up, until

from django_baikal.exceptions import AuthserverUnavailable, ConfigurationError
from django_baikal.keys.base import KeyMaterial
from django_baikal.keys.generate import generate_key
from django_baikal.protocol import jws
from django_baikal.protocol.effects import Request, Response
from django_baikal.protocol.jwk import b64url_encode
from django_baikal.testing import FakeAuthserver
from django_baikal.testing.faults import ENDPOINT_NAMES, GARBAGE
from django_baikal.testing.wire import RecordedRequest
from django_baikal.transports import base

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
CLIENT_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ISSUER = "https://issuer.test"
CALLBACK = "https://me.test/callback"
VERIFIER = "v" * 43
CHALLENGE = b64url_encode(hashlib.sha256(VERIFIER.encode()).digest())
PHONE = "tel:+34600000001"
KEY = generate_key("ES256", kid="key-1")
OTHER_KEY = generate_key("ES256", kid="key-2")
FORM = {"content-type": "application/x-www-form-urlencoded"}

Answer = tuple[int, dict[str, Any]]


class Publisher:
    """An issuer that publishes its metadata and keys, and counts who looks."""

    def __init__(self, *keys: KeyMaterial, iss: str = ISSUER) -> None:
        self.keys = list(keys)
        self.metadata: dict[str, Any] = {"issuer": iss, "jwks_uri": f"{iss}/jwks"}
        self.asked: list[str] = []

    def document(self, url: str) -> dict[str, Any]:
        if url.endswith("/.well-known/openid-configuration"):
            return self.metadata
        return {"keys": [dict(key.public_jwk) for key in self.keys]}

    def __call__(self, request: Request) -> Response:
        self.asked.append(request.url)
        return Response(200, {}, json.dumps(self.document(request.url)).encode())


def basic(client_id: str = "test-client", secret: str = "test-secret") -> dict[str, str]:
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def post(
    server: FakeAuthserver,
    name: str,
    form: dict[str, str] | str,
    headers: dict[str, str] | None = None,
) -> Answer:
    body = form if isinstance(form, str) else urlencode(form)
    sent = FORM | (basic() if headers is None else headers)
    response = server.handle(Request("POST", server.urls[name], sent, body.encode()))
    return response.status, json.loads(response.body) if response.body else {}


def get(server: FakeAuthserver, name: str) -> dict[str, Any]:
    response = server.handle(Request("GET", server.urls[name], {}))
    assert response.status == 200
    return dict(json.loads(response.body))


def claims(server: FakeAuthserver, *without: str, **changed: Any) -> dict[str, Any]:
    now = int(time.time())
    full = {
        "iss": ISSUER,
        "sub": PHONE,
        "aud": server.endpoint,
        "iat": now,
        "exp": now + 300,
        "jti": b64url_encode(hashlib.sha256(str(time.perf_counter_ns()).encode()).digest()),
        "scope": "read",
        **changed,
    }
    return {name: value for name, value in full.items() if name not in without}


def grant_user(server: FakeAuthserver, assertion: str, **more: str) -> Answer:
    return post(server, "token", {"grant_type": JWT_BEARER, "assertion": assertion, **more})


def introspect(server: FakeAuthserver, token: str, **who: str) -> dict[str, Any]:
    status, answer = post(server, "introspection", {"token": token}, basic(**who))
    assert status == 200
    return answer


def authorization_url(server: FakeAuthserver, **changed: str | None) -> str:
    asked: dict[str, str | None] = {
        "response_type": "code",
        "client_id": "test-client",
        "redirect_uri": CALLBACK,
        "scope": "openid read",
        "state": "s t&a=te",
        "nonce": "n-1",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        **changed,
    }
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    return f"{server.urls['authorization']}?{query}"


def query_of(url: str) -> dict[str, str]:
    return {name: value for name, [value] in parse_qs(urlsplit(url).query).items()}


def exchange(server: FakeAuthserver, code: str, **changed: str) -> Answer:
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": CALLBACK,
        "code_verifier": VERIFIER,
        **changed,
    }
    return post(server, "token", {name: value for name, value in form.items() if value})


def new_code(server: FakeAuthserver, **changed: str | None) -> str:
    return query_of(server.authorize(authorization_url(server, **changed), sub="anna"))["code"]


@pytest.fixture
def publisher() -> Publisher:
    return Publisher(KEY)


@pytest.fixture
def server(publisher: Publisher) -> FakeAuthserver:
    return FakeAuthserver(fetch=publisher)


# Discovery


@pytest.mark.parametrize(
    "path", ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"]
)
def test_the_metadata_names_all_that_clients_look_for(server: FakeAuthserver, path: str) -> None:
    response = server.handle(Request("GET", server.endpoint + path, {}))
    metadata = json.loads(response.body)
    assert response.headers["content-type"] == "application/json"
    assert metadata["issuer"] == server.endpoint
    for name in ("token", "authorization", "introspection", "revocation"):
        assert metadata[f"{name}_endpoint"] == server.urls[name]
    assert metadata["jwks_uri"] == server.urls["jwks"]
    assert "client_secret_basic" in metadata["introspection_endpoint_auth_methods_supported"]
    assert "private_key_jwt" in metadata["token_endpoint_auth_methods_supported"]
    assert metadata["code_challenge_methods_supported"] == ["S256"]
    assert metadata["authorization_response_iss_parameter_supported"] is True
    assert JWT_BEARER in metadata["grant_types_supported"]


@pytest.mark.parametrize(
    ("issuer", "url"),
    [
        ("https://a.test/t/1", "https://a.test/t/1/.well-known/openid-configuration"),
        ("https://a.test/t/1", "https://a.test/.well-known/oauth-authorization-server/t/1"),
        ("https://a.test/", "https://a.test/.well-known/openid-configuration"),
    ],
)
def test_an_issuer_may_have_a_path_or_a_slash(issuer: str, url: str) -> None:
    server = FakeAuthserver(endpoint=issuer)
    metadata = json.loads(server.handle(Request("GET", url, {})).body)
    assert metadata["issuer"] == issuer
    assert metadata["token_endpoint"] == issuer.rstrip("/") + "/token"


def test_an_unknown_path_is_404(server: FakeAuthserver) -> None:
    assert server.handle(Request("GET", f"{server.endpoint}/nothing", {})).status == 404


@pytest.mark.parametrize("name", ["token", "introspection", "revocation"])
def test_a_get_at_a_back_channel_endpoint_is_405(server: FakeAuthserver, name: str) -> None:
    response = server.handle(Request("GET", server.urls[name], basic()))
    assert (response.status, response.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("name", ["discovery", "jwks", "authorization"])
def test_a_post_at_a_front_endpoint_is_405(server: FakeAuthserver, name: str) -> None:
    response = server.handle(Request("POST", server.urls[name], FORM, b""))
    assert (response.status, response.headers["allow"]) == (405, "GET, HEAD")


# Client authentication

CREDENTIALS = {"grant_type": "client_credentials"}


def test_a_client_authenticates_by_basic_or_post(server: FakeAuthserver) -> None:
    in_form = {**CREDENTIALS, "client_id": "test-client", "client_secret": "test-secret"}
    assert post(server, "token", CREDENTIALS)[0] == 200
    assert post(server, "token", in_form, {})[0] == 200
    methods = [call.client_auth_method for call in server.requests]
    assert methods == ["client_secret_basic", "client_secret_post"]


def test_basic_credentials_are_form_decoded() -> None:
    server = FakeAuthserver(clients={"weird:app/e": "p%ss w+rd:n&=€"})
    assert post(server, "token", CREDENTIALS, basic("weird:app/e", "p%ss w+rd:n&=€"))[0] == 200


@pytest.mark.parametrize("lenient", [False, True])
def test_basic_credentials_that_are_not_form_encoded_need_a_lenient_server(lenient: bool) -> None:
    server = FakeAuthserver(clients={"app": "a+b%41"}, lenient=lenient)
    raw = {"authorization": "Basic " + base64.b64encode(b"app:a+b%41").decode()}
    status, answer = post(server, "token", CREDENTIALS, raw)
    assert status == (200 if lenient else 401)
    assert lenient or "form-encoded" in answer["error_description"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        basic("nobody"),
        basic(secret="wrong"),
        basic(secret=""),
        basic(secret="test-secret "),
        {"authorization": "Bearer test-secret"},
        {"authorization": basic()["authorization"].replace("Basic", "Bearer")},
        {"authorization": "Basic !!!"},
        {"authorization": "Basic " + base64.b64encode(b"test-client").decode()},
        {"authorization": "Basic " + base64.b64encode(b"\xff\xfe:x").decode()},
    ],
)
@pytest.mark.parametrize("name", ["token", "introspection", "revocation"])
def test_wrong_credentials_are_401(
    server: FakeAuthserver, name: str, headers: dict[str, str]
) -> None:
    body = urlencode({**CREDENTIALS, "token": "t"}).encode()
    response = server.handle(Request("POST", server.urls[name], FORM | headers, body))
    assert response.status == 401
    assert response.headers["www-authenticate"].startswith("Basic")
    assert json.loads(response.body)["error"] == "invalid_client"
    assert server.requests[-1].client_id is None


@pytest.mark.parametrize(
    "more",
    [
        {"client_secret": "test-secret"},
        {"client_assertion": "a.b.c", "client_assertion_type": CLIENT_ASSERTION},
        {"client_assertion_type": CLIENT_ASSERTION},
    ],
)
def test_two_mechanisms_at_once_are_refused(server: FakeAuthserver, more: dict[str, str]) -> None:
    status, answer = post(server, "token", {**CREDENTIALS, "client_id": "test-client", **more})
    assert (status, answer["error"]) == (400, "invalid_request")
    assert "2 ways" in answer["error_description"]


def test_another_client_id_in_the_form_is_refused(server: FakeAuthserver) -> None:
    server.add_client("other", "secret")
    status, answer = post(server, "token", {**CREDENTIALS, "client_id": "other"})
    assert (status, answer["error"]) == (400, "invalid_request")


def test_a_client_is_held_to_its_method() -> None:
    only = {"client_secret": "s", "auth_methods": "client_secret_post"}
    server = FakeAuthserver(clients={"app": only})
    assert post(server, "token", CREDENTIALS, basic("app", "s"))[1]["error"] == "invalid_client"
    in_form = {**CREDENTIALS, "client_id": "app", "client_secret": "s"}
    assert post(server, "token", in_form, {})[0] == 200


def test_a_client_without_secret_or_keys_is_an_error(server: FakeAuthserver) -> None:
    with pytest.raises(ValueError, match="needs a client_secret"):
        server.add_client("app")
    with pytest.raises(ValueError, match="cannot use 'private_key_jwt'"):
        server.add_client("app", "secret", auth_methods=["private_key_jwt"])


def by_assertion(assertion: str, **more: str) -> dict[str, str]:
    return {
        **CREDENTIALS,
        "client_assertion_type": CLIENT_ASSERTION,
        "client_assertion": assertion,
        **more,
    }


def client_claims(server: FakeAuthserver, *without: str, **changed: Any) -> dict[str, Any]:
    return claims(server, "scope", *without, **{"iss": "signer", "sub": "signer", **changed})


@pytest.fixture
def signer(server: FakeAuthserver) -> FakeAuthserver:
    server.add_client("signer", jwks={"keys": [dict(KEY.public_jwk)]})
    return server


@pytest.mark.parametrize("aud", ["https://authserver.test", "https://authserver.test/token"])
def test_a_client_authenticates_by_a_signed_assertion(signer: FakeAuthserver, aud: str) -> None:
    assertion = KEY.sign(client_claims(signer, aud=aud))
    status, _ = post(signer, "token", by_assertion(assertion), {})
    assert status == 200
    assert signer.requests[-1].client_auth_method == "private_key_jwt"
    assert signer.requests[-1].client_id == "signer"


def test_a_clients_keys_may_be_at_a_jwks_uri(server: FakeAuthserver, publisher: Publisher) -> None:
    server.add_client("signer", jwks_uri=f"{ISSUER}/jwks")
    for _ in range(2):
        assertion = KEY.sign(client_claims(server))
        assert post(server, "token", by_assertion(assertion), {})[0] == 200
    assert publisher.asked == [f"{ISSUER}/jwks"]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"aud": "https://evil.test"}, "aud"),
        ({"aud": ["https://authserver.test"]}, "aud must be one string"),
        ({"sub": "test-client"}, "sub"),
        ({"scope": "x"}, "not allowed: scope"),
        ({"jti": ""}, "jti"),
        ({"exp": 1}, "expired"),
        ({"exp": int(time.time()) + 90_000}, "more than"),
    ],
)
def test_a_client_assertion_that_breaks_a_rule_is_401(
    signer: FakeAuthserver, changed: dict[str, Any], why: str
) -> None:
    assertion = KEY.sign(client_claims(signer) | changed)
    status, answer = post(signer, "token", by_assertion(assertion), {})
    assert (status, answer["error"]) == (401, "invalid_client")
    assert why in answer["error_description"]


def test_a_client_assertion_by_somebody_else_is_401(signer: FakeAuthserver) -> None:
    forged = generate_key("ES256", kid=KEY.kid).sign(client_claims(signer))
    unknown = KEY.sign(client_claims(signer, iss="nobody", sub="nobody"))
    for assertion in (forged, unknown, "x", "a.b.c"):
        assert post(signer, "token", by_assertion(assertion), {})[0] == 401


def test_a_client_assertion_serves_once(signer: FakeAuthserver) -> None:
    assertion = KEY.sign(client_claims(signer))
    assert post(signer, "token", by_assertion(assertion), {})[0] == 200
    assert "jti" in post(signer, "token", by_assertion(assertion), {})[1]["error_description"]


def test_the_type_of_a_client_assertion_is_checked(signer: FakeAuthserver) -> None:
    form = by_assertion(KEY.sign(client_claims(signer)), client_assertion_type="saml2")
    assert post(signer, "token", form, {})[1]["error"] == "invalid_request"


# Requests


@pytest.mark.parametrize(
    "body",
    [
        "grant_type=client_credentials&scope=a&scope=b",
        "grant_type=client_credentials&grant_type=client_credentials",
        "grant_type=client_credentials&x=%ff",
        "grant_type=client_credentials&é=1",
        "grant_type",
    ],
)
def test_parameters_twice_or_malformed_are_400(server: FakeAuthserver, body: str) -> None:
    status, answer = post(server, "token", body)
    assert (status, answer["error"]) == (400, "invalid_request")


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "multipart/form-data"])
def test_another_content_type_is_400(server: FakeAuthserver, content_type: str) -> None:
    headers = basic() | {"content-type": content_type}
    status, answer = post(server, "token", CREDENTIALS, headers)
    assert (status, answer["error"]) == (400, "invalid_request")


def test_parameters_in_the_url_are_400(server: FakeAuthserver) -> None:
    url = server.urls["token"] + "?client_secret=test-secret"
    body = urlencode(CREDENTIALS).encode()
    assert server.handle(Request("POST", url, FORM | basic(), body)).status == 400


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"scope": "a"}, "invalid_request"),
        ({"grant_type": ""}, "invalid_request"),
        ({"grant_type": JWT_BEARER}, "invalid_request"),
        ({"grant_type": "authorization_code", "redirect_uri": CALLBACK}, "invalid_request"),
        ({"grant_type": "refresh_token"}, "invalid_request"),
        ({**CREDENTIALS, "scope": "a  b"}, "invalid_scope"),
        ({**CREDENTIALS, "scope": 'a"b'}, "invalid_scope"),
    ],
)
def test_a_token_request_that_makes_no_sense_is_400(
    server: FakeAuthserver, form: dict[str, str], error: str
) -> None:
    status, answer = post(server, "token", form)
    assert (status, answer["error"]) == (400, error)


def test_a_token_answer_is_kept_by_nobody(server: FakeAuthserver) -> None:
    for headers in (basic(), basic(secret="wrong")):
        body = urlencode(CREDENTIALS).encode()
        response = server.handle(Request("POST", server.urls["token"], FORM | headers, body))
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["content-type"] == "application/json"


# client_credentials, introspection, revocation


def test_client_credentials_give_a_token_of_the_clients_own(server: FakeAuthserver) -> None:
    form = {**CREDENTIALS, "scope": "a b", "purpose": "ads"}
    status, answer = post(server, "token", form)
    token = answer.pop("access_token")
    assert status == 200
    assert answer == {
        "token_type": "Bearer",
        "expires_in": 3600,
        "scope": "a b",
        "purpose": "ads",
    }
    told = introspect(server, token)
    assert told.pop("exp") - told.pop("iat") == 3600
    assert told == {
        "active": True,
        "iss": server.endpoint,
        "client_id": "test-client",
        "token_type": "Bearer",
        "aud": ["test-client"],
        "scope": "a b",
        "purpose": "ads",
    }


def test_only_the_callers_own_tokens_are_active(server: FakeAuthserver) -> None:
    server.add_client("other", "secret")
    token = server.issue_token(sub="anna")
    assert introspect(server, token)["active"] is True
    other = {"client_id": "other", "secret": "secret"}
    assert introspect(server, token, **other) == {"active": False}
    assert introspect(server, "unknown") == {"active": False}


def test_a_token_expires_on_the_clock_of_the_authserver(server: FakeAuthserver) -> None:
    token = server.issue_token(lifetime=100)
    server.move_clock(90)
    assert introspect(server, token)["active"] is True
    server.move_clock(11)
    assert introspect(server, token) == {"active": False}
    server.move_clock(-11)
    assert introspect(server, token)["active"] is True


def test_a_token_can_be_revoked_by_its_client_only(server: FakeAuthserver) -> None:
    server.add_client("other", "secret")
    token = server.issue_token()
    status, _ = post(server, "revocation", {"token": token}, basic("other", "secret"))
    assert status == 400
    assert introspect(server, token)["active"] is True
    assert post(server, "revocation", {"token": token, "token_type_hint": "x"}) == (200, {})
    assert introspect(server, token) == {"active": False}
    assert post(server, "revocation", {"token": "unknown"}) == (200, {})


@pytest.mark.parametrize("name", ["introspection", "revocation"])
def test_the_token_must_be_there(server: FakeAuthserver, name: str) -> None:
    assert post(server, name, {"token": ""})[1]["error"] == "invalid_request"


def test_tests_issue_any_token_they_need(server: FakeAuthserver) -> None:
    token = server.issue_token(
        sub="anna", scope=["a", "b"], purpose="ads", acr="3", aud=None, cnf={"jkt": "x"}
    )
    told = introspect(server, token)
    assert told["scope"] == "a b"
    assert told["username"] == told["sub"] == "anna"
    assert (told["purpose"], told["acr"], told["cnf"]) == ("ads", "3", {"jkt": "x"})
    assert "aud" not in told
    assert introspect(server, server.issue_token(lifetime=-1)) == {"active": False}
    assert introspect(server, server.issue_token(exp=1)) == {"active": False}
    assert introspect(server, server.issue_token(client_id="else")) == {"active": False}
    server.revoke_token(token)
    server.revoke_token("unknown")
    assert introspect(server, token) == {"active": False}


def test_a_jwt_access_token_is_as_rfc_9068_says() -> None:
    server = FakeAuthserver(token_format="jwt")
    token = server.issue_token(sub="anna", scope="read")
    verified = jws.verify(token, get(server, "jwks")["keys"], algorithms=["RS256"])
    assert verified.header["typ"] == "at+jwt"
    assert verified.claims["iss"] == server.endpoint
    assert verified.claims["aud"] == ["test-client"]
    assert verified.claims["sub"] == "anna"
    assert {"client_id", "iat", "exp", "jti", "scope"} <= verified.claims.keys()
    assert introspect(server, token)["active"] is True
    own = jws.decode(server.issue_token()).claims
    assert own["sub"] == own["client_id"] == "test-client"
    assert "." not in server.issue_token(token_format="opaque")


def test_a_rotated_key_signs_and_the_old_one_stays_published() -> None:
    server = FakeAuthserver(token_format="jwt")
    old = server.issue_token()
    server.rotate_keys()
    new = server.issue_token()
    published = get(server, "jwks")["keys"]
    assert len({key["kid"] for key in published}) == 2
    assert jws.decode(old).header["kid"] != jws.decode(new).header["kid"]
    for token in (old, new):
        jws.verify(token, published, algorithms=["RS256"])
    assert all(key.keys() == {"kty", "n", "e", "kid", "use", "alg"} for key in published)
    assert len(get(FakeAuthserver(), "jwks")["keys"]) == 1


# jwt-bearer


def test_a_signed_assertion_gives_a_token_for_its_user(server: FakeAuthserver) -> None:
    more = {
        "scope": "read write",
        "purpose": "ads",
        "acr": "2",
        "authorization_id": "auth-1",
        "identifier": {"id": "600000001", "type": "phone_number"},
    }
    status, answer = grant_user(server, KEY.sign(claims(server, **more)))
    assert status == 200, answer
    assert "refresh_token" not in answer
    assert (answer["scope"], answer["purpose"]) == ("read write", "ads")
    told = introspect(server, answer["access_token"])
    assert told["sub"] == told["username"] == PHONE
    assert {name: told[name] for name in more} == more


@pytest.mark.parametrize("alg", ["RS256", "PS256", "ES256"])
def test_any_asymmetric_algorithm_will_do(alg: str) -> None:
    key = generate_key(alg)
    server = FakeAuthserver(fetch=Publisher(key))
    assert grant_user(server, key.sign(claims(server)))[0] == 200


def segment(value: dict[str, Any]) -> str:
    return b64url_encode(json.dumps(value).encode())


def with_header(server: FakeAuthserver, **header: Any) -> str:
    head = {"alg": "ES256", "kid": "key-1", "typ": "JWT", **header}
    present = {name: value for name, value in head.items() if value is not None}
    return f"{segment(present)}.{segment(claims(server))}.{b64url_encode(b's' * 64)}"


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ({"alg": "none"}, "not accepted"),
        ({"alg": "HS256"}, "not accepted"),
        ({"alg": None}, "not accepted"),
        ({"alg": ["ES256"]}, "not accepted"),
        ({"kid": None}, "no kid"),
        ({"kid": 7}, "kid"),
        ({"kid": ""}, "kid"),
        ({"kid": "unknown"}, "'unknown' is not published (published: key-1)"),
        ({}, "does not verify"),
        ({"alg": "RS256"}, "does not verify"),
        ({"crit": ["x"]}, "does not verify"),
    ],
)
def test_an_assertion_with_a_bad_header_or_signature_is_refused(
    server: FakeAuthserver, header: dict[str, Any], why: str
) -> None:
    status, answer = grant_user(server, with_header(server, **header))
    assert (status, answer["error"]) == (400, "invalid_grant")
    assert why in answer["error_description"]


def test_an_assertion_signed_with_another_key_of_that_name_is_refused(
    server: FakeAuthserver,
) -> None:
    forged = generate_key("ES256", kid=KEY.kid).sign(claims(server))
    assert grant_user(server, forged)[1]["error"] == "invalid_grant"


NOW = int(time.time())


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"aud": "https://evil.test"}, "aud must be"),
        ({"aud": "https://authserver.test/"}, "aud must be"),
        ({"aud": ["https://authserver.test"]}, "aud must be one string"),
        ({"aud": None}, "aud must be one string"),
        ({"exp": NOW - 6}, "expired"),
        ({"exp": None}, "exp must be there"),
        ({"exp": "soon"}, "exp must be there"),
        ({"exp": True}, "exp must be there"),
        ({"exp": NOW + 5000, "iat": NOW}, "more than 3600 s"),
        ({"exp": NOW + 5000, "iat": None}, "iat must be there"),
        ({"iat": NOW + 9000, "exp": NOW + 9100}, "iat is"),
        ({"nbf": NOW + 9000}, "nbf is"),
        ({"sub": ""}, "no sub"),
        ({"sub": 7}, "no sub"),
        ({"jti": ""}, "no jti"),
        ({"jti": 7}, "no jti"),
        ({"iss": "somebody"}, "iss is neither"),
        ({"iss": "file:///etc/passwd"}, "iss is neither"),
        ({"iss": "https://u:p@issuer.test"}, "iss is neither"),
        ({"iss": "https://issuer.test/other"}, "names the issuer"),
        ({"scope": ["read"]}, "scope is no string"),
    ],
)
def test_an_assertion_that_breaks_a_rule_is_refused(
    server: FakeAuthserver, changed: dict[str, Any], why: str
) -> None:
    status, answer = grant_user(server, KEY.sign(claims(server) | changed))
    assert (status, answer["error"]) == (400, "invalid_grant")
    assert why in answer["error_description"]


@pytest.mark.parametrize("name", ["aud", "exp", "sub", "jti", "iss"])
def test_an_assertion_that_lacks_a_claim_is_refused(server: FakeAuthserver, name: str) -> None:
    status, answer = grant_user(server, KEY.sign(claims(server, name)))
    assert (status, answer["error"]) == (400, "invalid_grant")
    assert name in answer["error_description"]


def test_an_assertion_may_lack_iat_and_may_be_for_the_token_endpoint(
    server: FakeAuthserver,
) -> None:
    assert grant_user(server, KEY.sign(claims(server, "iat")))[0] == 200
    assert grant_user(server, KEY.sign(claims(server, aud=server.urls["token"])))[0] == 200
    too_long = KEY.sign(claims(server, "iat", exp=int(time.time()) + 3700))
    assert grant_user(server, too_long)[0] == 400


def test_a_clock_that_is_a_little_wrong_is_forgiven(server: FakeAuthserver) -> None:
    now = int(time.time())
    assert grant_user(server, KEY.sign(claims(server, exp=now - 2)))[0] == 200
    assert grant_user(server, KEY.sign(claims(server, iat=now + 3, nbf=now + 3)))[0] == 200


def test_a_jti_is_remembered_for_seven_days(server: FakeAuthserver) -> None:
    assert grant_user(server, KEY.sign(claims(server, jti="one")))[0] == 200
    _, answer = grant_user(server, KEY.sign(claims(server, jti="one", sub="tel:+34600000002")))
    assert "jti was used before" in answer["error_description"]
    server.move_clock(7 * 86400 - 60)
    later = int(time.time()) + 7 * 86400 - 60
    again = KEY.sign(claims(server, jti="one", iat=later, exp=later + 300))
    assert grant_user(server, again)[0] == 400
    server.move_clock(120)
    assert grant_user(server, again)[0] == 200


def test_a_forged_assertion_uses_no_jti_up(server: FakeAuthserver) -> None:
    forger = generate_key("ES256", kid=KEY.kid)
    assert grant_user(server, forger.sign(claims(server, jti="one")))[0] == 400
    assert grant_user(server, KEY.sign(claims(server, jti="one")))[0] == 200


def test_of_many_that_send_one_assertion_at_once_one_succeeds(server: FakeAuthserver) -> None:
    assertion = KEY.sign(claims(server))
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: grant_user(server, assertion)[0], range(24)))
    assert sorted(statuses) == [200] + [400] * 23


def test_a_client_signs_with_its_registered_keys_as_itself(signer: FakeAuthserver) -> None:
    signer.add_client("both", "secret", jwks=[dict(KEY.public_jwk)])
    form = {"grant_type": JWT_BEARER, "assertion": KEY.sign(claims(signer, iss="both"))}
    assert post(signer, "token", form, basic("both", "secret"))[0] == 200
    as_another = KEY.sign(claims(signer, iss="signer"))
    form = {"grant_type": JWT_BEARER, "assertion": as_another}
    assert post(signer, "token", form, basic("both", "secret"))[0] == 400
    assert (
        "no keys"
        in grant_user(signer, KEY.sign(claims(signer, iss="test-client")))[1]["error_description"]
    )


def test_a_scope_stands_in_the_assertion_or_beside_it_but_not_twice(
    server: FakeAuthserver,
) -> None:
    beside = KEY.sign(claims(server, "scope"))
    assert grant_user(server, beside, scope="read")[1]["scope"] == "read"
    assert grant_user(server, KEY.sign(claims(server)), scope="read")[0] == 400


@pytest.mark.parametrize("lenient", [False, True])
def test_only_a_lenient_server_takes_the_old_sdks_assertions(lenient: bool) -> None:
    publisher = Publisher(OTHER_KEY, KEY)
    bare = [{n: v for n, v in k.public_jwk.items() if n != "kid"} for k in publisher.keys]

    def fetch(request: Request) -> Response:
        if request.url.endswith("/jwks"):
            return Response(200, {}, json.dumps({"keys": bare}).encode())
        return publisher(request)

    server = FakeAuthserver(lenient=lenient, fetch=fetch)
    signed = KEY.sign(claims(server, "jti", active=True, exp=int(time.time()) + 3600))
    payload, key = signed.split(".")[1], KEY.private_key
    assertion = unnamed(payload, key)
    status, answer = grant_user(server, assertion)
    assert status == (200 if lenient else 400), answer
    assert lenient or "has no kid" in answer["error_description"]
    forged = unnamed(payload, generate_key("ES256").private_key)
    assert grant_user(server, forged)[0] == 400


def unnamed(payload: str, key: Any) -> str:
    claimed = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return jwt.encode(claimed, key, algorithm="ES256")


# Finding an issuer's keys


def test_metadata_and_keys_are_looked_up_once_in_15_minutes(
    server: FakeAuthserver, publisher: Publisher
) -> None:
    for _ in range(3):
        assert grant_user(server, KEY.sign(claims(server)))[0] == 200
    found = [f"{ISSUER}/.well-known/openid-configuration", f"{ISSUER}/jwks"]
    assert publisher.asked == found
    server.move_clock(901)
    now = int(time.time()) + 901
    assert grant_user(server, KEY.sign(claims(server, iat=now, exp=now + 60)))[0] == 200
    assert publisher.asked == found * 2


def test_a_new_kid_is_looked_for_after_the_cool_down_only(
    server: FakeAuthserver, publisher: Publisher
) -> None:
    assert grant_user(server, KEY.sign(claims(server)))[0] == 200
    publisher.keys.append(OTHER_KEY)
    _, answer = grant_user(server, OTHER_KEY.sign(claims(server)))
    assert "not published (published: key-1)" in answer["error_description"]
    server.move_clock(31)
    assert grant_user(server, OTHER_KEY.sign(claims(server)))[0] == 200
    for _ in range(5):
        grant_user(server, with_header(server, kid="flood"))
    assert publisher.asked.count(f"{ISSUER}/jwks") == 2


def test_a_key_that_is_no_longer_published_stops_working(
    server: FakeAuthserver, publisher: Publisher
) -> None:
    assert grant_user(server, KEY.sign(claims(server)))[0] == 200
    publisher.keys[:] = [OTHER_KEY]
    server.move_clock(901)
    now = int(time.time()) + 901
    assert grant_user(server, KEY.sign(claims(server, iat=now, exp=now + 60)))[0] == 400


def test_the_metadata_is_at_the_issuer_with_nothing_removed() -> None:
    publisher = Publisher(KEY, iss="https://issuer.test/")
    server = FakeAuthserver(fetch=publisher)
    assertion = KEY.sign(claims(server, iss="https://issuer.test/"))
    assert grant_user(server, assertion)[0] == 200
    assert publisher.asked[0] == "https://issuer.test//.well-known/openid-configuration"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Response(404, {}, b""), "answered 404; include('django_baikal.urls') belongs"),
        (Response(302, {"location": "/"}, b""), "answered 302"),
        (Response(200, {}, b"<html>"), "it is not JSON"),
        (Response(200, {}, b"[]"), "it is not a JSON object"),
        (Response(200, {}, b'{"issuer": "https://evil.test"}'), "names the issuer"),
        (Response(200, {}, b'{"issuer": "https://issuer.test"}'), "no jwks_uri"),
        (AuthserverUnavailable("refused"), "failed: refused"),
        (OSError("secret"), "failed with OSError"),
    ],
)
def test_what_went_wrong_at_the_issuer_is_told(answer: Response | Exception, why: str) -> None:
    def fetch(request: Request) -> Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    server = FakeAuthserver(fetch=fetch)
    status, told = grant_user(server, KEY.sign(claims(server)))
    assert (status, told["error"]) == (400, "invalid_grant")
    assert why in told["error_description"]
    assert f"{ISSUER}/.well-known/openid-configuration" in told["error_description"]


@pytest.mark.parametrize("jwks", [{}, {"keys": {}}, {"keys": ["x"]}, {"keys": [{}] * 101}])
def test_what_is_no_jwk_set_is_told(publisher: Publisher, jwks: dict[str, Any]) -> None:
    def fetch(request: Request) -> Response:
        if request.url.endswith("/jwks"):
            return Response(200, {}, json.dumps(jwks).encode())
        return publisher(request)

    server = FakeAuthserver(fetch=fetch)
    _, answer = grant_user(server, KEY.sign(claims(server)))
    assert "JWK Set" in answer["error_description"]


# The project's own URLs


async def own_metadata(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"issuer": "https://me.test/", "jwks_uri": "https://me.test/keys?a=b"})


def own_keys(request: HttpRequest) -> JsonResponse:
    assert request.is_secure()
    assert request.GET["a"] == "b"
    return JsonResponse({"keys": [dict(KEY.public_jwk)]})


urlpatterns = [
    re_path(r"^/\.well-known/openid-configuration$", own_metadata),
    re_path(r"^keys$", own_keys),
]


@override_settings(ROOT_URLCONF=__name__)
def test_in_memory_the_issuer_is_this_project(client: object) -> None:
    with FakeAuthserver().in_memory() as server:
        assertion = KEY.sign(claims(server, iss="https://me.test/"))
        status, answer = grant_user(server, assertion)
        assert status == 200, answer
        _, answer = grant_user(server, KEY.sign(claims(server, iss="https://me.test")))
        assert "answered 404" in answer["error_description"]


def test_in_memory_the_issuer_may_be_another_fake() -> None:
    with FakeAuthserver(endpoint=ISSUER).in_memory() as issuer, FakeAuthserver().in_memory() as us:
        _, answer = grant_user(us, KEY.sign(claims(us)))
        assert "is not published" in answer["error_description"]
        assert issuer.requests.count("discovery") == issuer.requests.count("jwks") == 1


# Authorization code


def test_a_code_gives_tokens_for_the_user_who_approved(server: FakeAuthserver) -> None:
    target = server.authorize(authorization_url(server, acr_values="2 3"), sub="anna")
    back = query_of(target)
    assert target.startswith(f"{CALLBACK}?")
    assert (back["state"], back["iss"]) == ("s t&a=te", server.endpoint)
    status, answer = exchange(server, back["code"])
    assert status == 200, answer
    assert introspect(server, answer["access_token"])["sub"] == "anna"
    keys = get(server, "jwks")["keys"]
    verified = jws.verify(answer["id_token"], keys, algorithms=["RS256"]).claims
    half = hashlib.sha256(answer["access_token"].encode()).digest()[:16]
    assert verified["iss"] == server.endpoint
    assert (verified["sub"], verified["aud"], verified["acr"]) == ("anna", "test-client", "2")
    assert (verified["nonce"], verified["at_hash"]) == ("n-1", b64url_encode(half))
    assert verified["exp"] > verified["iat"] >= verified["auth_time"]


def test_without_openid_there_is_no_id_token(server: FakeAuthserver) -> None:
    assert "id_token" not in exchange(server, new_code(server, scope="read"))[1]


def test_a_get_in_the_browser_is_approved_at_once(server: FakeAuthserver) -> None:
    url = authorization_url(server, login_hint="berta")
    response = server.handle(Request("GET", url, {}))
    assert response.status == 302
    _, answer = exchange(server, query_of(response.headers["location"])["code"])
    assert introspect(server, answer["access_token"])["sub"] == "berta"


def test_a_user_may_say_no(server: FakeAuthserver) -> None:
    back = query_of(server.authorize(authorization_url(server), approve=False))
    assert (back["error"], back["state"], back["iss"]) == (
        "access_denied",
        "s t&a=te",
        server.endpoint,
    )
    assert "code" not in back


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"scope": "a  b"}, "invalid_scope"),
    ],
)
def test_a_wrong_authorization_request_goes_back_with_an_error(
    server: FakeAuthserver, changed: dict[str, str | None], error: str
) -> None:
    back = query_of(server.authorize(authorization_url(server, **changed)))
    assert (back["error"], back["state"]) == (error, "s t&a=te")
    assert "code" not in back


@pytest.mark.parametrize(
    "changed",
    [
        {"client_id": "nobody"},
        {"client_id": None},
        {"redirect_uri": None},
        {"redirect_uri": "/callback"},
        {"redirect_uri": "https://me.test/#x"},
        {"redirect_uri": "https://[me.test/"},
        {"redirect_uri": "https://me.test/\r\nx:y"},
    ],
)
def test_the_browser_is_never_sent_to_where_it_must_not_go(
    server: FakeAuthserver, changed: dict[str, str | None]
) -> None:
    url = authorization_url(server, **changed)
    with pytest.raises(ValueError, match=r"redirect_uri|client_id"):
        server.authorize(url)
    response = server.handle(Request("GET", url, {}))
    assert response.status == 400
    assert "location" not in response.headers


@pytest.mark.parametrize(
    "uri", [CALLBACK + "/", CALLBACK + "?x=1", "https://me.test.evil.test/callback"]
)
def test_a_registered_redirect_uri_is_matched_exactly(uri: str) -> None:
    app = {"client_secret": "test-secret", "redirect_uris": CALLBACK}
    server = FakeAuthserver(clients={"test-client": app})
    assert exchange(server, new_code(server))[0] == 200
    with pytest.raises(ValueError, match="not registered"):
        server.authorize(authorization_url(server, redirect_uri=uri))


def test_another_url_is_not_the_authorization_endpoint(server: FakeAuthserver) -> None:
    with pytest.raises(ValueError, match="not the authorization endpoint"):
        server.authorize(server.urls["token"] + "?secret=1")


def test_a_redirect_uri_keeps_its_own_query(server: FakeAuthserver) -> None:
    target = server.authorize(authorization_url(server, redirect_uri=CALLBACK + "?next=1"))
    assert query_of(target)["next"] == "1"


@pytest.mark.parametrize(
    "changed",
    [
        {"code_verifier": "w" * 43},
        {"code_verifier": ""},
        {"code_verifier": CHALLENGE},
        {"code_verifier": "v" * 42},
        {"redirect_uri": CALLBACK + "/"},
        {"code": "unknown"},
    ],
)
def test_a_code_needs_its_verifier_and_redirect_uri(
    server: FakeAuthserver, changed: dict[str, str]
) -> None:
    form = {"code": new_code(server), **changed}
    status, answer = exchange(server, **form)
    assert (status, answer["error"]) == (400, "invalid_grant")


def test_a_verifier_for_a_code_without_challenge_is_refused(server: FakeAuthserver) -> None:
    without = {"code_challenge": None, "code_challenge_method": None}
    assert exchange(server, new_code(server, **without))[0] == 400
    assert exchange(server, new_code(server, **without), code_verifier="")[0] == 200


def test_a_code_serves_once_and_the_second_use_revokes_its_tokens(server: FakeAuthserver) -> None:
    code = new_code(server)
    _, answer = exchange(server, code)
    assert exchange(server, code)[1]["error"] == "invalid_grant"
    for name in ("access_token", "refresh_token"):
        assert introspect(server, answer[name]) == {"active": False}


def test_a_code_serves_its_own_client_only(server: FakeAuthserver) -> None:
    server.add_client("other", "secret")
    code = new_code(server)
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK}
    form["code_verifier"] = VERIFIER
    assert post(server, "token", form, basic("other", "secret"))[1]["error"] == "invalid_grant"
    assert exchange(server, code)[0] == 200


def test_a_code_expires_after_a_minute(server: FakeAuthserver) -> None:
    code, late = new_code(server), new_code(server)
    server.move_clock(58)
    assert exchange(server, code)[0] == 200
    server.move_clock(3)
    assert "expired" in exchange(server, late)[1]["error_description"]


# Refresh


def refresh(server: FakeAuthserver, token: str, **more: str) -> Answer:
    return post(server, "token", {"grant_type": "refresh_token", "refresh_token": token, **more})


def test_a_refresh_token_is_replaced_when_it_is_used(server: FakeAuthserver) -> None:
    _, first = exchange(server, new_code(server))
    status, second = refresh(server, first["refresh_token"])
    assert status == 200
    assert introspect(server, second["access_token"])["sub"] == "anna"
    assert second["refresh_token"] != first["refresh_token"]
    assert introspect(server, first["access_token"])["active"] is True
    # Whoever comes with the old one again: one of the two is a thief.
    assert refresh(server, first["refresh_token"])[1]["error"] == "invalid_grant"
    assert refresh(server, second["refresh_token"])[1]["error"] == "invalid_grant"
    assert introspect(server, second["access_token"]) == {"active": False}


def test_a_refresh_narrows_the_scope_and_never_widens_it(server: FakeAuthserver) -> None:
    _, first = exchange(server, new_code(server))
    assert refresh(server, first["refresh_token"], scope="read admin")[1]["error"] == (
        "invalid_scope"
    )
    _, narrow = refresh(server, first["refresh_token"], scope="read")
    assert introspect(server, narrow["access_token"])["scope"] == "read"
    assert refresh(server, narrow["refresh_token"])[1]["scope"] == "openid read"


def test_a_refresh_token_serves_its_own_client_only(server: FakeAuthserver) -> None:
    server.add_client("other", "secret")
    _, answer = exchange(server, new_code(server))
    form = {"grant_type": "refresh_token", "refresh_token": answer["refresh_token"]}
    assert post(server, "token", form, basic("other", "secret"))[0] == 400
    assert refresh(server, answer["access_token"])[0] == 400
    assert refresh(server, answer["refresh_token"])[0] == 200


def test_revoking_a_refresh_token_revokes_its_access_tokens(server: FakeAuthserver) -> None:
    _, answer = exchange(server, new_code(server))
    assert post(server, "revocation", {"token": answer["refresh_token"]})[0] == 200
    assert introspect(server, answer["access_token"]) == {"active": False}
    assert refresh(server, answer["refresh_token"])[0] == 400


def test_a_refresh_token_introspects_like_an_access_token_as_on_the_platform(
    server: FakeAuthserver,
) -> None:
    _, answer = exchange(server, new_code(server))
    as_access = introspect(server, answer["access_token"])
    as_refresh = introspect(server, answer["refresh_token"])
    assert as_refresh["active"] is True
    assert as_refresh["token_type"] == "Bearer"
    assert as_refresh.keys() == as_access.keys()
    assert as_refresh["exp"] > as_access["exp"]


# Faults


def test_a_fault_lasts_as_long_as_its_block(server: FakeAuthserver) -> None:
    with server.fail("token", status=503, headers={"Retry-After": "7"}) as fault:
        body = urlencode(CREDENTIALS).encode()
        response = server.handle(Request("POST", server.urls["token"], FORM | basic(), body))
        assert (response.status, response.headers["retry-after"]) == (503, "7")
        assert "error" in json.loads(response.body)
        assert get(server, "jwks")
    assert fault.hits == 1
    assert post(server, "token", CREDENTIALS)[0] == 200


def test_a_fault_meets_as_many_requests_as_it_says(server: FakeAuthserver) -> None:
    server.fail("*", times=2)
    statuses = [post(server, "token", CREDENTIALS)[0] for _ in range(3)]
    assert statuses == [503, 503, 200]
    assert [call.fault for call in server.requests] == [True, True, False]


def test_recover_ends_every_fault(server: FakeAuthserver) -> None:
    server.fail("token")
    server.fail("jwks", garbage=True)
    server.recover()
    assert post(server, "token", CREDENTIALS)[0] == 200
    assert get(server, "jwks")


def test_a_fault_may_answer_as_open_gateway_does(server: FakeAuthserver) -> None:
    body = {"code": "INVALID_ARGUMENT", "message": "No.", "status": 400}
    server.fail("token", status=400, body={}, times=1)
    assert post(server, "token", CREDENTIALS) == (400, {})
    server.fail("token", status=400, body=body)
    assert post(server, "token", CREDENTIALS) == (400, body)
    assert server.requests[-1].outcome == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("garbage", "content_type"),
    [
        (True, "text/html; charset=utf-8"),
        ("html", "text/html; charset=utf-8"),
        ("not-json", "application/json"),
        ("truncated", "application/json"),
        ("empty", "application/json"),
    ],
)
def test_garbage_is_no_json(server: FakeAuthserver, garbage: bool | str, content_type: str) -> None:
    server.fail("discovery", garbage=garbage)
    response = server.handle(Request("GET", server.urls["discovery"], {}))
    assert (response.status, response.headers["content-type"]) == (200, content_type)
    with pytest.raises(ValueError, match=r"Expecting|Unterminated|delimiter|property"):
        json.loads(response.body)


def test_a_delayed_answer_is_genuine(server: FakeAuthserver) -> None:
    server.fail("token", delay=0.1)
    before = time.monotonic()
    assert post(server, "token", CREDENTIALS)[0] == 200
    assert time.monotonic() - before >= 0.1


def test_a_request_that_hangs_is_recorded_and_answered_after_recovery(
    server: FakeAuthserver,
) -> None:
    server.fail("token", hang=True)
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(post, server, "token", CREDENTIALS)
        until(lambda: server.requests, "the request is there")
        assert server.requests[0].outcome == "pending"
        assert not pending.done()
        server.recover()
        assert pending.result(PATIENCE)[0] == 200


@pytest.mark.parametrize(
    "options",
    [
        {"endpoint": "tokens"},
        {"endpoint": "token", "garbage": "xml"},
        {"endpoint": "*", "times": 0},
    ],
)
def test_an_unknown_fault_is_an_error(server: FakeAuthserver, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Unknown|times"):
        server.fail(**options)


def test_an_unknown_token_format_is_an_error() -> None:
    with pytest.raises(ValueError, match="token_format"):
        FakeAuthserver(token_format="jwe")  # type: ignore[arg-type]


# The record


def test_requests_are_recorded_with_their_outcome(server: FakeAuthserver) -> None:
    post(server, "token", {**CREDENTIALS, "scope": "a"}, basic() | {"X-Correlator": "c-1"})
    post(server, "token", {"grant_type": "password"})
    server.authorize(authorization_url(server))
    assert server.requests.count("token") == 2
    assert server.requests.count() == len(server.requests) == 3
    good, bad = server.requests.to("token")
    assert (good.outcome, good.form["scope"], good.headers["x-correlator"]) == ("ok", "a", "c-1")
    assert (bad.outcome, bad.status, bad.client_id) == (
        "unsupported_grant_type",
        400,
        "test-client",
    )
    assert server.requests[-1].endpoint == "authorization"
    assert server.requests[:1] == [good]
    server.requests.clear()
    assert server.requests.count("token") == len(server.requests) == 0


def test_no_secret_stands_in_a_repr(server: FakeAuthserver) -> None:
    assertion = KEY.sign(claims(server))
    grant_user(server, assertion)
    post(server, "introspection", {"token": "t-secret", "client_id": "test-client"})
    post(server, "token", {**CREDENTIALS, "client_secret": "test-secret", "scope": PHONE}, {})
    post(server, "token", {"grant_type": "+34600000001"})
    server.handle(Request("GET", f"{server.endpoint}/34600000001", {}))
    text = repr(server.requests) + repr(server) + repr(server.__dict__)
    for secret in ("test-secret", "t-secret", assertion, "600000001", basic()["authorization"]):
        assert secret not in text
    assert hashlib.sha256(b"t-secret").hexdigest()[:8] in text


def test_each_request_is_reported_once_it_is_answered() -> None:
    seen: list[str] = []
    server = FakeAuthserver(on_request=lambda call: seen.append(call.outcome))
    post(server, "token", CREDENTIALS)
    server.fail("token", status=500, times=1)
    post(server, "token", CREDENTIALS)
    assert seen == ["ok", "temporarily_unavailable"]


def test_settings_are_an_entry_for_the_first_client(server: FakeAuthserver) -> None:
    assert server.settings(ISSUER="https://me.test") == {
        "AUTHSERVER_ENDPOINT": "https://authserver.test",
        "CLIENT_ID": "test-client",
        "CLIENT_SECRET": "test-secret",
        "ISSUER": "https://me.test",
    }
    signs = FakeAuthserver(clients={"app": {"jwks": [dict(KEY.public_jwk)]}})
    assert "CLIENT_SECRET" not in signs.settings()


# In memory


def memory_post(server: FakeAuthserver) -> Request:
    body = urlencode(CREDENTIALS).encode()
    return Request("POST", server.urls["token"], FORM | basic(), body)


def test_in_memory_it_is_reached_by_its_origin_only_meanwhile() -> None:
    server = FakeAuthserver()
    before = dict(base.routes)
    with server.in_memory() as inside:
        assert inside is server
        route = base.routes["https://authserver.test"]
        assert route.send(memory_post(server), timeout=1).status == 200
        assert asyncio.run(route.asend(memory_post(server), timeout=1)).status == 200
        with FakeAuthserver().in_memory():
            assert base.routes["https://authserver.test"] is not route
        assert base.routes["https://authserver.test"] is route
    assert base.routes == before
    assert "https://authserver.test" not in base.routes


@override_settings(ROOT_URLCONF=__name__)
def test_in_memory_an_assertion_is_checked_from_a_coroutine_too() -> None:
    with FakeAuthserver().in_memory() as server:
        form = {"grant_type": JWT_BEARER}
        form["assertion"] = KEY.sign(claims(server, iss="https://me.test/"))
        body = urlencode(form).encode()
        request = Request("POST", server.urls["token"], FORM | basic(), body)
        route = base.routes["https://authserver.test"]
        response = asyncio.run(route.asend(request, timeout=1))
        assert response.status == 200, response.body


@pytest.mark.parametrize("fault", [{"hang": True}, {"delay": 600.0}])
def test_in_memory_what_would_time_out_does_so_at_once(fault: dict[str, Any]) -> None:
    with FakeAuthserver().in_memory() as server:
        server.fail("token", **fault)
        route = base.routes["https://authserver.test"]
        with not_held_up():
            with pytest.raises(AuthserverUnavailable, match="within 60 s") as caught:
                route.send(memory_post(server), timeout=60)
            with pytest.raises(AuthserverUnavailable):
                asyncio.run(route.asend(memory_post(server), timeout=60))
        assert caught.value.code == "timeout"


def test_in_memory_what_could_not_be_sent_is_refused() -> None:
    with FakeAuthserver().in_memory() as server:
        request = Request("GET", server.urls["jwks"], {"X-Correlator": "a\r\nb: c"})
        with pytest.raises(ConfigurationError):
            base.routes["https://authserver.test"].send(request, timeout=1)


def test_in_memory_a_delay_is_waited_for_without_stopping_the_loop() -> None:
    async def many(server: FakeAuthserver) -> list[Response]:
        route = base.routes["https://authserver.test"]
        calls = [route.asend(memory_post(server), timeout=5) for _ in range(600)]
        return list(await asyncio.gather(*calls))

    with FakeAuthserver().in_memory() as server:
        server.fail("token", delay=0.1)
        before = time.monotonic()
        with not_held_up():
            assert [answer.status for answer in asyncio.run(many(server))] == [200] * 600
        assert time.monotonic() - before >= 0.1
        route = base.routes["https://authserver.test"]
        before = time.monotonic()
        assert route.send(memory_post(server), timeout=5).status == 200
        assert time.monotonic() - before >= 0.1


# Over HTTP


@contextmanager
def published(publisher: Publisher) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = publisher(Request("GET", self.requestline.split(" ")[1], {})).body
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as site:
        thread = threading.Thread(target=site.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{site.server_address[1]}"
        finally:
            site.shutdown()
            thread.join()


@pytest.fixture
def served() -> Iterator[FakeAuthserver]:
    with FakeAuthserver().serve() as server:
        yield server


def test_it_is_served_on_loopback_and_is_its_own_issuer(served: FakeAuthserver) -> None:
    assert served.endpoint.startswith("http://127.0.0.1:")
    answer = requests.get(served.urls["discovery"], timeout=PATIENCE)
    assert answer.json()["issuer"] == served.endpoint
    auth = ("test-client", "test-secret")
    answer = requests.post(served.urls["token"], CREDENTIALS, auth=auth, timeout=PATIENCE)
    assert answer.json()["token_type"] == "Bearer"
    told = requests.post(
        served.urls["introspection"],
        {"token": answer.json()["access_token"]},
        auth=auth,
        timeout=PATIENCE,
    )
    assert told.json()["iss"] == served.endpoint


def test_a_browser_is_redirected_at_once(served: FakeAuthserver) -> None:
    answer = requests.get(authorization_url(served), allow_redirects=False, timeout=PATIENCE)
    assert answer.status_code == 302
    assert query_of(answer.headers["location"])["code"]


def test_a_connection_is_kept_for_many_requests(served: FakeAuthserver) -> None:
    connection = http.client.HTTPConnection(urlsplit(served.endpoint).netloc, timeout=PATIENCE)
    connection.connect()
    local = connection.sock.getsockname()
    body, head = urlencode(CREDENTIALS), FORM | basic()
    for method, path in [("POST", "/token"), ("HEAD", "/jwks"), ("GET", "/x"), ("PUT", "/token")]:
        connection.request(method, path, body if method == "POST" else None, head)
        answer = connection.getresponse()
        content = answer.read()
        assert answer.version == 11
        assert int(answer.headers["content-length"]) > 0
        assert bool(content) == (method != "HEAD")
        assert connection.sock is not None and connection.sock.getsockname() == local
    connection.close()


def test_the_answer_to_head_has_no_body(served: FakeAuthserver) -> None:
    address = urlsplit(served.endpoint)
    with socket.create_connection((address.hostname, address.port), timeout=PATIENCE) as connection:
        connection.sendall(b"HEAD /jwks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\n")


def test_the_path_is_taken_as_it_came(served: FakeAuthserver) -> None:
    connection = http.client.HTTPConnection(urlsplit(served.endpoint).netloc, timeout=PATIENCE)
    connection.request("GET", "//jwks")
    assert connection.getresponse().status == 404
    connection.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-length": "x"}, 400),
        ({"content-length": "-1"}, 400),
        ({"content-length": "9999999999"}, 413),
        ({"content-length": "9" * 5000}, 413),
        ({"transfer-encoding": "chunked"}, 411),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(
    served: FakeAuthserver, headers: dict[str, str], status: int
) -> None:
    connection = http.client.HTTPConnection(urlsplit(served.endpoint).netloc, timeout=PATIENCE)
    connection.putrequest("POST", "/token")
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    assert connection.getresponse().status == status
    connection.close()


def test_two_authorization_headers_are_refused(served: FakeAuthserver) -> None:
    connection = http.client.HTTPConnection(urlsplit(served.endpoint).netloc, timeout=PATIENCE)
    body = urlencode(CREDENTIALS).encode()
    connection.putrequest("POST", "/token")
    for value in (basic()["authorization"], "Basic eDp5"):
        connection.putheader("Authorization", value)
    connection.putheader("Content-Type", FORM["content-type"])
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    assert connection.getresponse().status == 401
    connection.close()


@pytest.mark.parametrize("slash", ["", "/"])
def test_while_served_it_asks_issuers_over_http(served: FakeAuthserver, slash: str) -> None:
    publisher = Publisher(KEY)
    with published(publisher) as origin:
        iss = origin + slash
        publisher.metadata = {"issuer": iss, "jwks_uri": f"{origin}/jwks"}
        form = {"grant_type": JWT_BEARER, "assertion": KEY.sign(claims(served, iss=iss))}
        auth = ("test-client", "test-secret")
        answer = requests.post(served.urls["token"], form, auth=auth, timeout=PATIENCE)
    assert answer.status_code == 200, answer.text
    assert publisher.asked == [f"{slash}/.well-known/openid-configuration", "/jwks"]


def test_an_issuer_that_nobody_serves_is_told(served: FakeAuthserver) -> None:
    with published(Publisher(KEY)) as origin:
        pass
    form = {"grant_type": JWT_BEARER, "assertion": KEY.sign(claims(served, iss=origin))}
    status, answer = post(served, "token", form)
    assert (status, answer["error"]) == (400, "invalid_grant")
    assert f"GET {origin}/.well-known/openid-configuration failed" in answer["error_description"]


@pytest.mark.parametrize("fault", [{"hang": True}, {"delay": 3600}], ids=["hang", "delay"])
def test_it_stops_with_connections_open_and_requests_hanging(fault: dict[str, Any]) -> None:
    before = set(threading.enumerate())
    server = FakeAuthserver()
    with ThreadPoolExecutor(1) as pool, requests.Session() as session, ExitStack() as serving:
        serving.enter_context(server.serve())
        session.get(server.urls["jwks"], timeout=PATIENCE)
        server.fail("token", **fault)
        url, auth = server.urls["token"], ("test-client", "test-secret")
        pending = pool.submit(requests.post, url, CREDENTIALS, auth=auth, timeout=2 * PATIENCE)
        until(lambda: server.requests.count("token"), "the request hangs")
        with not_held_up():
            serving.close()
        with pytest.raises(requests.ConnectionError):
            pending.result(PATIENCE)
    assert not set(threading.enumerate()) - before
    assert server.endpoint == "https://authserver.test"
    with server.serve():
        assert requests.get(server.urls["discovery"], timeout=PATIENCE).ok


def test_it_is_served_once_at_a_time_on_a_port_that_is_free(served: FakeAuthserver) -> None:
    with pytest.raises(RuntimeError, match="already"), served.serve():
        pass
    other = FakeAuthserver()
    with (
        pytest.raises(OSError, match="in use"),
        other.serve(port=urlsplit(served.endpoint).port or 0),
    ):
        pass
    with other.serve():
        assert other.endpoint != served.endpoint


@pytest.mark.parametrize("host", ["0.0.0.0", "example.com", "192.0.2.1", ""])
def test_it_is_served_on_loopback_only(host: str) -> None:
    with pytest.raises(ValueError, match="loopback"), FakeAuthserver().serve(host=host):
        pass


def test_it_keeps_its_path_when_served() -> None:
    with FakeAuthserver(endpoint="https://a.test/tenant").serve() as server:
        assert server.endpoint.endswith("/tenant")
        assert requests.get(server.urls["jwks"], timeout=PATIENCE).ok


def test_many_threads_may_use_it_at_once(served: FakeAuthserver) -> None:
    def one(_: int) -> bool:
        auth = ("test-client", "test-secret")
        token = requests.post(served.urls["token"], CREDENTIALS, auth=auth, timeout=PATIENCE).json()
        form = {"token": token["access_token"]}
        told = requests.post(served.urls["introspection"], form, auth=auth, timeout=PATIENCE)
        return bool(told.json()["active"])

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(one, range(100)))
    assert served.requests.count("token") == served.requests.count("introspection") == 100


# Whatever comes

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
REQUEST_TIME = int(time.time())
CLAIMS = st.fixed_dictionaries(
    {},
    optional={
        "iss": st.sampled_from([ISSUER, "test-client", "https://[", "https://x:99999"]) | JSON,
        "aud": st.just("https://authserver.test") | JSON,
        "exp": st.just(REQUEST_TIME + 300) | JSON,
        **dict.fromkeys(("sub", "jti", "scope", "purpose", "iat", "nbf", "identifier"), JSON),
    },
)
FORMS = st.dictionaries(
    st.sampled_from(["grant_type", "code", "token", "scope", "refresh_token", "redirect_uri"])
    | st.sampled_from(["client_id", "client_secret", "client_assertion", "response_type"])
    | st.text(max_size=4),
    st.sampled_from(["authorization_code", "client_credentials", JWT_BEARER, "test-client"])
    | st.sampled_from(["test-secret", "https://[", "code", CALLBACK])
    | st.text(max_size=8),
    max_size=6,
)


@given(claims=CLAIMS, header=st.dictionaries(st.sampled_from(["crit", "typ", "jwk"]), JSON))
def test_no_assertion_makes_it_stumble(claims: dict[str, Any], header: dict[str, Any]) -> None:
    server = FakeAuthserver(fetch=Publisher(KEY))
    head = segment({**header, "alg": "ES256", "kid": KEY.kid})
    signed = f"{head}.{segment(claims)}"
    algorithm = jwt.get_algorithm_by_name("ES256")
    assertion = f"{signed}.{b64url_encode(algorithm.sign(signed.encode(), KEY.private_key))}"
    status, answer = grant_user(server, assertion)
    assert status == 200 or answer["error"].startswith("invalid_")


@given(form=FORMS, name=st.sampled_from(["token", "introspection", "revocation"]), sign=...)
def test_no_form_makes_it_stumble(form: dict[str, str], name: str, sign: bool) -> None:
    server = FakeAuthserver(fetch=Publisher(KEY))
    status, _ = post(server, name, form, basic() if sign else {})
    assert status in (200, 400, 401)
    url = f"{server.urls['authorization']}?{urlencode(form)}"
    assert server.handle(Request("GET", url, {})).status in (302, 400)
    assert repr(server.requests)


# The documentation

DOCS = Path(__file__).resolve().parent.parent / "docs"


def test_the_examples_of_the_howto_run(tmp_path: Path) -> None:
    text = (DOCS / "howto" / "test-without-an-authserver.md").read_text("utf-8")
    files = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(files) == text.count("```python") >= 9
    for name, code in files:
        if "rest_framework" not in code or find_spec("rest_framework"):
            (tmp_path / name).write_text(code, "utf-8")
    (tmp_path / "project_urls.py").write_text(
        "from django.http import JsonResponse\n"
        "from django.urls import include, path\n"
        "from django_baikal.decorators import token_required\n"
        "@token_required('orders.read')\n"
        "def orders(request):\n"
        "    return JsonResponse({'of': request.auth.subject})\n"
        "urlpatterns = [path('', include('django_baikal.urls')), path('orders', orders)]\n",
        "utf-8",
    )
    (tmp_path / "project_settings.py").write_text(
        "SECRET_KEY = 'x' * 50\nROOT_URLCONF = 'project_urls'\n"
        "INSTALLED_APPS = ['django_baikal']\n"
        "BAIKAL = {'default': {'AUTHSERVER_ENDPOINT': 'https://auth.example.com',"
        " 'CLIENT_ID': 'my-client', 'CLIENT_SECRET': 'my-secret'}}\n",
        "utf-8",
    )
    ended = subprocess.run(
        [
            *(sys.executable, "-W", "error", "-m", "pytest", "-W", "error", "-q"),
            *("-p", "no:cacheprovider", "--ds", "project_settings", f"--rootdir={tmp_path}", "."),
        ],
        cwd=tmp_path,
        env={
            **{name: value for name, value in os.environ.items() if "PYTEST" not in name},
            "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_public_name_and_argument_is_in_the_reference() -> None:
    text = (DOCS / "reference" / "fake-authserver.md").read_text("utf-8")
    words = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", text))))
    public = {name for name in dir(FakeAuthserver) if not name.startswith("_")} | {"requests"}
    calls: list[Callable[..., Any]] = [FakeAuthserver]
    calls += [each for name in public if callable(each := getattr(FakeAuthserver, name, None))]
    arguments = {name for call in calls for name in inspect.signature(call).parameters}
    recorded = {field.name for field in fields(RecordedRequest)} | {"outcome"}
    named = {*ENDPOINT_NAMES, *GARBAGE} - {"*", "not-json"}
    assert public | (arguments - {"self", "value"}) | recorded | named <= words
