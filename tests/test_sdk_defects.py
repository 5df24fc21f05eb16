"""Each defect of the SDK that this client could repeat has a test here that bears its name."""

from __future__ import annotations

import asyncio
import base64
import copy
import inspect
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from django.test import override_settings
from loopback import answering, running
from material import certificate, ec_key, jwk, public, rsa_key
from stage import both_ways, call_async, call_sync, counted, pem
from timing import PATIENCE, Clock, not_held_up, until

from django_baikal import OpenIDClient, aio, clients, exceptions
from django_baikal.exceptions import (
    AuthserverError,
    AuthserverUnavailable,
    BaikalError,
    ConfigurationError,
    ExpiredToken,
    InvalidResponse,
    InvalidSignature,
    KeyLoadError,
    NoUsableSigningKey,
    OAuthError,
    StoreUnavailable,
    TokenError,
    UnsupportedKey,
    WrongAudience,
)
from django_baikal.keys import load_key
from django_baikal.protocol import jws
from django_baikal.protocol.effects import Request, Response
from django_baikal.protocol.jwk import thumbprint
from django_baikal.testing import FakeAuthserver

ISSUER = "https://me.example/"
DER, SPKI = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
CALLBACK = "https://app.example/callback"
ENVIRONMENT = {
    "BAIKAL_AUTHSERVER_ENDPOINT": "https://of-the-environment.example",
    "BAIKAL_CLIENT_ID": "of-the-environment",
    "BAIKAL_CLIENT_SECRET": "secret-of-the-environment",
    "BAIKAL_ISSUER": "https://issuer-of-the-environment.example",
    "BAIKAL_PRIVATE_CERTS_PATH": "/certs-of-the-environment",
}


@pytest.fixture(autouse=True)
def _cache_of_its_own(settings: Any) -> None:
    backend = "django.core.cache.backends.locmem.LocMemCache"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": str(uuid.uuid4())}}


def publish(request: Request) -> Response:
    """Answer as the issuer of our assertions, which publishes the keys of ``stage.pem``."""
    keys = [dict(load_key(pem(alg, number)).public_jwk) for alg, number in KEYS]
    document = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}jwks", "keys": keys}
    return Response(200, {"content-type": "application/json"}, json.dumps(document).encode())


KEYS = (("ES256", 0), ("ES256", 1), ("ES256", 2))


@pytest.fixture
def authserver() -> Iterator[FakeAuthserver]:
    with FakeAuthserver(fetch=publish).serve() as server:
        yield server


def client_of(server: FakeAuthserver, **changes: Any) -> OpenIDClient:
    values = {"client_id": "test-client", "client_secret": "test-secret", **changes}
    return OpenIDClient(server.endpoint, **values)


def signing_client_of(server: FakeAuthserver, **changes: Any) -> OpenIDClient:
    return client_of(server, issuer=ISSUER, **{"client_keys": [{"key": pem()}], **changes})


def child(program: str, **environment: str) -> str:
    """Run a program in a fresh interpreter; give what it prints."""
    inherited = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- importing (1.1, 1.5) ----------------------------------------------------------------------


def test_importing_does_not_configure_logging():
    shown = child(
        """
        import logging
        import django_baikal, django_baikal.aio, django_baikal.client, django_baikal.handler
        import django_baikal.transports.requests
        try:
            import django_baikal.transports.aiohttp
        except ImportError:
            pass
        root = logging.getLogger()
        own = [logging.getLogger(name) for name in logging.root.manager.loggerDict
               if name.startswith("django_baikal")]
        print(root.handlers, root.level == logging.WARNING, [l.handlers for l in own if l.handlers])
        """
    )
    assert shown == "[] True []\n"


def test_nothing_is_called_clients_and_the_sync_client_loads_no_async_stack(authserver):
    shown = child(
        f"""
        import sys
        from django_baikal import OpenIDClient
        client = OpenIDClient({authserver.endpoint!r}, "test-client", "test-secret")
        assert client.grant_client()
        print([name for name in ("aiohttp", "aiocache", "jose", "clients") if name in sys.modules])
        """
    )
    assert shown == "[]\n"


def test_importing_reads_no_environment():
    broken = {
        "AIOHTTP_SESSION_SIZE": "many",
        "AIOHTTP_SESSION_LIMIT": "",
        "BAIKAL_VERIFY_CERTS": "perhaps",
        "BAIKAL_CLIENT_KEYS": "[",
    }
    shown = child(
        """
        import django_baikal, django_baikal.aio, django_baikal.client, django_baikal.conf
        try:
            django_baikal.OpenIDClient("https://as.example", "a", "b", [])
        except django_baikal.ConfigurationError as error:
            print(error)
        """,
        **broken,
    )
    assert "AIOHTTP_SESSION_SIZE" in shown or "VERIFY_CERTS" in shown


# -- the constructor and the environment (1.2) -------------------------------------------------


@pytest.mark.parametrize("cls", [OpenIDClient, aio.OpenIDClient])
def test_what_the_code_says_wins_over_the_environment(cls, monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with override_settings(BAIKAL={}):
        explicit = cls("https://as.example", "me", "secret", None, ISSUER, "/certs").config
        assert explicit.authserver_endpoint == "https://as.example"
        assert explicit.client_id == "me"
        assert explicit.client_secret == "secret"
        assert explicit.issuer == ISSUER
        assert explicit.private_certs_path == "/certs"
        omitted = cls().config
        assert omitted.client_id == "of-the-environment"
        assert omitted.client_secret == "secret-of-the-environment"
    with override_settings(BAIKAL={"default": {"CLIENT_ID": "of-the-settings"}}):
        assert cls().config.client_id == "of-the-settings"
        assert cls(client_id="me").config.client_id == "me"


def test_two_clients_live_in_one_process_even_with_the_environment_set(authserver, monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with FakeAuthserver(clients={"second": "other"}).serve() as second:
        one = client_of(authserver, issuer=ISSUER)
        two = OpenIDClient(second.endpoint, "second", "other")
        token = one.grant_client()
        assert one.introspect(token)["active"] is True
        assert two.introspect(token)["active"] is False
        assert two.introspect(two.grant_client())["client_id"] == "second"


@pytest.mark.parametrize("cls", [OpenIDClient, aio.OpenIDClient])
def test_the_constructor_of_the_page_takes_client_keys_and_uses_them(cls):
    client = cls(
        authserver_endpoint="https://as.example",
        client_id="me",
        client_secret="secret",
        client_keys=[{"key": pem(), "format": "pem"}],
        issuer=ISSUER,
    )
    assert len(client.get_jwk_set(dump_json=False)["keys"]) == 1


@both_ways
def test_an_issuer_at_the_fourth_place_is_not_taken_for_something_else(call):
    with pytest.raises(ConfigurationError, match=r"CLIENT_KEYS|ISSUER"):
        client = OpenIDClient("https://as.example", "me", "secret", ISSUER)
        call(client, "grant_user", "u", "a", "p")


@pytest.mark.parametrize("missing", ["authserver_endpoint", "client_id", "client_secret"])
def test_what_is_missing_is_named_with_its_variable(missing):
    given = {"authserver_endpoint": "https://as.example", "client_id": "a", "client_secret": "b"}
    del given[missing]
    with override_settings(BAIKAL={}), pytest.raises(ConfigurationError) as caught:
        OpenIDClient(**given)
    assert f"BAIKAL_{missing.upper()}" in str(caught.value)


@pytest.mark.parametrize(
    ("spelling", "means"),
    [
        *((word, False) for word in ("False", "false", "FALSE", "0", "no", "No", "off", "OFF")),
        *((word, True) for word in ("True", "true", "TRUE", "1", "yes", "on", "")),
    ],
)
def test_verify_certs_understands_every_usual_spelling(spelling, means, monkeypatch):
    monkeypatch.setenv("BAIKAL_VERIFY_CERTS", spelling)
    assert OpenIDClient("https://as.example", "a", "b").config.verify_certs is means


def test_verify_certs_takes_a_ca_and_refuses_what_it_does_not_understand(monkeypatch, tmp_path):
    bundle = tmp_path / "ca.pem"
    bundle.write_text("a CA")
    monkeypatch.setenv("BAIKAL_VERIFY_CERTS", str(bundle))
    assert OpenIDClient("https://as.example", "a", "b").config.verify_certs == str(bundle)
    for wrong in ("perhaps", str(tmp_path / "missing.pem"), "nein"):
        monkeypatch.setenv("BAIKAL_VERIFY_CERTS", wrong)
        with pytest.raises(ConfigurationError, match="VERIFY_CERTS"):
            OpenIDClient("https://as.example", "a", "b")


def test_certificates_that_are_not_checked_mute_nobody_elses_warnings():
    shown = child(
        """
        import warnings
        import requests, urllib3
        before = list(warnings.filters)
        from django_baikal import OpenIDClient
        OpenIDClient("https://as.example", "a", "b", verify_certs=False)._runtime.process.transport
        print(warnings.filters == before)
        """
    )
    assert shown == "True\n"


@pytest.mark.parametrize("name", ["AIOHTTP_SESSION_SIZE", "AIOHTTP_SESSION_DNS_CACHE"])
def test_the_sizes_of_sessions_are_read_late_and_checked(name, monkeypatch):
    monkeypatch.setenv(name, "7")
    config = OpenIDClient("https://as.example", "a", "b").config
    assert getattr(config, name.lower()) == 7
    monkeypatch.setenv(name, "many")
    with pytest.raises(ConfigurationError, match=name):
        OpenIDClient("https://as.example", "a", "b")


# -- names and signatures (1.2) ----------------------------------------------------------------


def test_the_async_names_that_the_page_promises_are_there():
    for name in ("async_grant_user", "async_grant_client", "async_introspect"):
        assert inspect.iscoroutinefunction(getattr(aio.OpenIDClient, name))


def test_sync_and_async_take_the_same_arguments_at_the_same_places():
    for name in ("grant_user", "grant_client", "grant_code", "introspect", "authorize", "refresh"):
        signature = inspect.signature(getattr(OpenIDClient, name))
        assert signature == inspect.signature(getattr(OpenIDClient, f"a{name}"))
        assert signature == inspect.signature(getattr(aio.OpenIDClient, name))


@both_ways
def test_headers_and_timeout_are_never_taken_from_a_position(call, authserver):
    client = signing_client_of(authserver)
    with pytest.raises(TypeError):
        call(client, "grant_user", "u", "a", "p", None, None, None, None, {"X-A": "b"})
    with pytest.raises(TypeError):
        call(client, "grant_client", "a", "p", {"X-A": "b"})


def test_no_default_is_mutable():
    for cls in (OpenIDClient, aio.OpenIDClient):
        for name, method in inspect.getmembers(cls, inspect.isfunction):
            for parameter in inspect.signature(method).parameters.values():
                assert not isinstance(parameter.default, dict | list | set), (name, parameter)


@both_ways
def test_headers_of_one_call_are_neither_changed_nor_kept(call, authserver):
    client, headers = client_of(authserver), {"X-Correlator": "1234"}
    call(client, "grant_client", headers=headers)
    call(client, "grant_client")
    assert headers == {"X-Correlator": "1234"}
    first, second = authserver.requests.to("token")
    assert first.headers["x-correlator"] == "1234"
    assert "x-correlator" not in second.headers


@both_ways
def test_introspection_takes_headers_too(call, authserver):
    call(client_of(authserver), "introspect", "T0ken", headers={"X-Correlator": "1234"})
    (asked,) = authserver.requests.to("introspection")
    assert asked.headers["x-correlator"] == "1234"


def test_every_operation_that_the_sdk_does_not_offer_is_there():
    for name in ("refresh", "revoke", "start_authorization", "get_token", "forget_token"):
        assert hasattr(OpenIDClient, name)


# -- discovery (1.1, 1.2) ----------------------------------------------------------------------


def metadata_of(server: FakeAuthserver, **changes: Any) -> dict[str, Any]:
    document = {"issuer": server.endpoint, "token_endpoint": f"{server.endpoint}/token"}
    return {**document, **changes}


@both_ways
def test_a_client_token_needs_no_optional_member_of_the_metadata_and_no_keys(call, authserver):
    authserver.fail("discovery", status=200, body=metadata_of(authserver))
    authserver.fail("jwks", status=500)
    assert call(client_of(authserver), "grant_client")
    assert authserver.requests.count("jwks") == 0


@both_ways
@pytest.mark.parametrize("status", [201, 302, 400, 401, 404, 500, 503])
def test_the_status_of_the_metadata_is_looked_at(call, authserver, status):
    authserver.fail("discovery", status=status, body=metadata_of(authserver))
    with pytest.raises(AuthserverError):
        call(client_of(authserver), "grant_client")
    assert authserver.requests.count("token") == 0


@both_ways
def test_metadata_of_another_issuer_is_not_believed(call, authserver):
    wrong = metadata_of(authserver, issuer="https://evil.example")
    authserver.fail("discovery", status=200, body=wrong)
    with pytest.raises(InvalidResponse) as caught:
        call(signing_client_of(authserver), "grant_user", "u", "a", "p")
    assert caught.value.code == "issuer_mismatch"
    assert authserver.requests.count("token") == 0


@both_ways
def test_discovery_has_a_timeout_in_both_clients(call, authserver):
    authserver.fail("discovery", hang=True)
    with not_held_up(), pytest.raises(AuthserverUnavailable) as caught:
        call(client_of(authserver), "grant_client", timeout=0.3)
    assert caught.value.code == "timeout"


def test_twenty_cold_threads_make_one_discovery(authserver):
    authserver.fail("discovery", delay=0.2)
    client = client_of(authserver)
    barrier = threading.Barrier(20)

    def cold(_: int) -> str:
        barrier.wait()
        return client.grant_client()

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(cold, range(20)))
    assert authserver.requests.count("discovery") == 1


def test_a_slow_discovery_holds_up_no_other_client(authserver):
    with FakeAuthserver().serve() as slow:
        hanging = slow.fail("discovery", hang=True)
        warm = client_of(authserver)
        warm.grant_client()
        thread = threading.Thread(target=client_of(slow, timeout=2 * PATIENCE).grant_client)
        thread.start()
        until(lambda: slow.requests, "the slow one is asked")
        with not_held_up():
            warm.grant_client()
            asyncio.run(warm.agrant_client())
        hanging.lift()
        thread.join()


@both_ways
def test_metadata_is_not_kept_for_ever_and_its_time_is_a_setting(call, authserver, monkeypatch):
    client, clock = client_of(authserver, metadata_ttl=900), Clock(monkeypatch)
    call(client, "grant_client")
    call(client, "grant_client")
    assert authserver.requests.count("discovery") == 1
    clock.pass_time(900)
    call(client, "grant_client")
    until(lambda: authserver.requests.count("discovery") == 2, "it is renewed")


@both_ways
def test_the_last_good_metadata_is_used_while_the_authserver_fails(call, authserver, caplog):
    client = client_of(authserver, metadata_ttl=0)
    call(client, "grant_client")
    with authserver.fail("discovery", status=503):
        for _ in range(3):
            assert call(client, "grant_client")
        until(lambda: "cannot be renewed" in caplog.text, "its failure is logged")


def test_two_clients_of_one_authserver_share_no_metadata_by_mistake(authserver):
    document = metadata_of(authserver, issuer="https://other.example")
    with authserver.fail("discovery", status=200, body=document):
        other = client_of(authserver, authserver_issuer="https://other.example")
        assert other.grant_client()
    assert client_of(authserver).grant_client()
    assert authserver.requests.count("discovery") == 2


# -- user grants (1.1, 1.2) --------------------------------------------------------------------


def assertion_of(server: FakeAuthserver) -> jws.Verified:
    return jws.decode(server.requests.to("token")[-1].form["assertion"])


@both_ways
def test_an_assertion_has_kid_and_jti_and_a_strict_authserver_takes_it(call, authserver):
    client = signing_client_of(authserver)
    for _ in range(3):
        assert call(client, "grant_user", "tel:+34600000000", ["a"], ["p"])
    header, claims = assertion_of(authserver)
    assert header["kid"] == client.get_jwk_set(dump_json=False)["keys"][0]["kid"]
    assert claims["jti"]


@both_ways
def test_an_assertion_lasts_five_minutes_and_not_an_hour(call, authserver):
    call(signing_client_of(authserver), "grant_user", "u", "a", "p")
    claims = assertion_of(authserver).claims
    assert claims["exp"] - claims["iat"] == 300


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="this system has no tzset")
@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/Los_Angeles"])
def test_the_times_of_an_assertion_do_not_depend_on_the_time_zone(authserver, zone):
    child(
        f"""
        import time
        time.tzset()
        from django_baikal import OpenIDClient
        client = OpenIDClient({authserver.endpoint!r}, "test-client", "test-secret",
                              [{{"key": {pem()!r}}}], {ISSUER!r})
        assert client.grant_user("u", "a", "p")
        """,
        TZ=zone,
    )
    assert abs(assertion_of(authserver).claims["iat"] - time.time()) < 60


@both_ways
def test_acr_and_authentication_context_are_there_in_both_clients(call, authserver):
    client = signing_client_of(authserver)
    context = [{"type": "otp", "value": "1"}]
    token = call(client, "grant_user", "u", "a", "p", acr="2", authentication_context=context)
    claims = assertion_of(authserver).claims
    assert (claims["acr"], claims["authentication_context"]) == ("2", context)
    assert call(client, "introspect", token)["acr"] == "2"


@both_ways
@pytest.mark.parametrize("empty", [None, [], ""])
def test_scopes_and_purposes_may_be_left_out(call, authserver, empty):
    client = signing_client_of(authserver)
    assert call(client, "grant_user", "u", empty, empty)
    assert call(client, "grant_client", empty, empty)
    assert {"scope", "purpose"}.isdisjoint(assertion_of_first(authserver))


def assertion_of_first(server: FakeAuthserver) -> dict[str, Any]:
    return jws.decode(server.requests.to("token")[0].form["assertion"]).claims


@both_ways
def test_a_scope_in_a_string_is_one_scope_and_not_its_letters(call, authserver):
    client = signing_client_of(authserver)
    call(client, "grant_user", "u", "openid", "my-purpose")
    claims = assertion_of(authserver).claims
    assert (claims["scope"], claims["purpose"]) == ("openid", "my-purpose")
    call(client, "grant_client", "openid profile", "my-purpose")
    form = authserver.requests.to("token")[-1].form
    assert (form["scope"], form["purpose"]) == ("openid profile", "my-purpose")


@both_ways
def test_the_key_that_signs_is_not_taken_at_random(call, authserver, tmp_path):
    for number in range(3):
        (tmp_path / f"2030-0{number + 1}.pem").write_text(pem("ES256", number))
    client = signing_client_of(authserver, client_keys=None, private_certs_path=str(tmp_path))
    used = set()
    for _ in range(8):
        call(client, "grant_user", "u", "a", "p")
        used.add(assertion_of(authserver).header["kid"])
    assert used == {load_key(pem("ES256", 2)).kid}, "the last one by name"


@both_ways
def test_no_key_is_an_error_with_a_name_and_no_index_error(call, authserver, tmp_path):
    client = signing_client_of(authserver, client_keys=None, private_certs_path=str(tmp_path))
    with pytest.raises(NoUsableSigningKey, match="PRIVATE_CERTS_PATH"):
        call(client, "grant_user", "u", "a", "p")
    with pytest.raises(ConfigurationError, match="ISSUER"):
        call(client_of(authserver), "grant_user", "u", "a", "p")


# -- client tokens and connections (1.2) -------------------------------------------------------


@both_ways
def test_two_hundred_calls_that_want_one_token_make_one_request(call, authserver):
    with override_settings(BAIKAL={"default": authserver.settings()}):
        client = clients["default"]
        assert len({call(client, "get_token", "a", "p") for _ in range(200)}) == 1
        assert authserver.requests.count("token") == 1
        call(client, "grant_client", "a", "p")
        assert authserver.requests.count("token") == 2, "a grant always asks"


def test_five_grants_use_one_connection():
    with counted() as (server, listener):
        client = client_of(server)
        for _ in range(5):
            client.grant_client()
        assert listener.connections == 1

        async def main() -> None:
            for _ in range(5):
                await client.agrant_client()

        asyncio.run(main())
        # One more for the event loop; none where threads send for it, over the same pool.
        assert listener.connections == (2 if find_spec("aiohttp") else 1)
        client._runtime.process.transport.close()
    assert server.requests.count("token") == 10


def test_an_event_loop_that_has_ended_ends_no_client(authserver):
    client = client_of(authserver)
    for _ in range(3):
        assert asyncio.run(client.agrant_client())

    def in_a_thread(_: int) -> Any:
        return asyncio.run(client.agrant_client())

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(in_a_thread, range(8)))) == 8


@pytest.mark.parametrize("secret", ["€", "ñandú", "p%ss w+rd:n&=", "пароль", "a:b"])
@both_ways
def test_a_secret_may_have_any_character(call, secret):
    with FakeAuthserver(clients={"weird:app/€": secret}).serve() as server:
        client = OpenIDClient(server.endpoint, "weird:app/€", secret)
        token = call(client, "grant_client")
        assert call(client, "introspect", token)["client_id"] == "weird:app/€"


@both_ways
def test_the_methods_that_introspection_takes_are_respected(call, authserver):
    offered = metadata_of(
        authserver,
        introspection_endpoint=f"{authserver.endpoint}/introspect",
        introspection_endpoint_auth_methods_supported=["client_secret_post"],
    )
    authserver.fail("discovery", status=200, body=offered)
    with pytest.raises(ConfigurationError, match="client_secret_post"):
        call(client_of(authserver), "introspect", "T0ken")
    post = client_of(authserver, client_auth_method="client_secret_post")
    assert call(post, "introspect", "T0ken") == {"active": False}
    (asked,) = authserver.requests.to("introspection")
    assert asked.client_auth_method == "client_secret_post"


# -- the authorization request and its code (1.2) ----------------------------------------------


@both_ways
def test_every_value_of_the_authorization_url_is_encoded(call, authserver):
    client = client_of(authserver)
    given = {"state": "st&a=te x", "login_hint": "tel:+34600000000", "prompt": "ñ#?/"}
    url = call(client, "authorize", ["a", "b"], ["p q"], f"{CALLBACK}?x=1&y=2", **given)
    assert " " not in url
    assert not urlsplit(url).fragment
    asked = {name: value[0] for name, value in parse_qs(urlsplit(url).query).items()}
    assert asked == {
        "response_type": "code",
        "client_id": "test-client",
        "scope": "a b",
        "purpose": "p q",
        "redirect_uri": f"{CALLBACK}?x=1&y=2",
        **given,
    }


@both_ways
def test_nothing_can_be_injected_through_a_value(call, authserver):
    evil = "&client_id=evil&redirect_uri=https://evil.example"
    url = call(client_of(authserver), "authorize", "a", None, CALLBACK + evil, state=evil)
    asked = parse_qs(urlsplit(url).query)
    assert asked["client_id"] == ["test-client"]
    assert asked["redirect_uri"] == [CALLBACK + evil]
    for name in ("client_id", "scope", "purpose"):
        with pytest.raises(ConfigurationError):
            call(client_of(authserver), "authorize", "a", None, CALLBACK, **{name: "evil"})


@both_ways
@pytest.mark.parametrize("missing", [None, ""])
def test_a_missing_redirect_uri_is_your_error_and_costs_no_request(call, authserver, missing):
    with pytest.raises(ConfigurationError, match="redirect_uri"):
        call(client_of(authserver), "authorize", "a", None, missing)
    for arguments in (("", CALLBACK), ("code", ""), (None, CALLBACK)):
        with pytest.raises(ConfigurationError):
            call(client_of(authserver), "grant_code", *arguments)
    assert authserver.requests.count() == 0


@both_ways
def test_a_login_has_state_nonce_and_pkce_and_its_id_token_is_checked(call, authserver):
    client = client_of(authserver)
    started = call(client, "start_authorization", CALLBACK, "openid")
    answer = parse_qs(urlsplit(authserver.authorize(started.url)).query)
    assert answer["state"] == [started.state]
    with pytest.raises(OAuthError) as caught:
        call(client, "grant_code", answer["code"][0], CALLBACK, nonce=started.nonce)
    assert caught.value.error == "invalid_grant", "the code is of no use without the verifier"
    keep = {"code_verifier": started.code_verifier}
    with pytest.raises(InvalidResponse) as refused:
        call(client, "grant_code", answer["code"][0], CALLBACK, **keep, nonce="another")
    assert refused.value.code == "id_token_refused"
    again = call(client, "start_authorization", CALLBACK, "openid")
    code = parse_qs(urlsplit(authserver.authorize(again.url)).query)["code"][0]
    verifier = {"code_verifier": again.code_verifier, "nonce": again.nonce}
    assert call(client, "grant_code", code, CALLBACK, **verifier)
    assert {started.state, started.nonce}.isdisjoint({again.state, again.nonce})


# -- errors (1.2, 1.3) -------------------------------------------------------------------------

ERRORS = [
    value
    for value in vars(exceptions).values()
    if isinstance(value, type) and issubclass(value, BaikalError)
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_no_error_gets_past_except_exception(error):
    assert issubclass(error, Exception)
    assert issubclass(error, BaikalError)
    assert {"ConfigurationError", "AuthserverError", "InvalidSignature"} <= {
        known.__name__ for known in ERRORS
    }
    made = error("what and where")
    for other in (copy.copy(made), pickle.loads(pickle.dumps(made))):
        assert str(other) == "what and where"
        assert other.code == error.code


@both_ways
def test_an_error_is_machine_readable_and_keeps_the_authservers_words(call, authserver):
    said = {"error": "invalid_scope", "error_description": "No such scope."}
    authserver.fail("token", status=400, body=said)
    with pytest.raises(OAuthError) as caught:
        call(client_of(authserver), "grant_client", "a")
    error = caught.value
    assert (error.status, error.error, error.description) == (400, *said.values())
    assert (error.retryable, error.retry_after) == (False, None)
    assert "No such scope." in str(error)
    authserver.fail("token", status=503, headers={"retry-after": "7"})
    with pytest.raises(AuthserverUnavailable) as unavailable:
        call(client_of(authserver), "grant_client", "a")
    assert (unavailable.value.retryable, unavailable.value.retry_after) == (True, 7)


@both_ways
def test_the_words_of_a_401_are_not_lost(call, authserver):
    said = {"error": "invalid_client", "error_description": "The client is locked."}
    authserver.fail("token", status=401, body=said)
    with pytest.raises(OAuthError, match=r"The client is locked\.") as caught:
        call(client_of(authserver), "grant_client")
    assert (caught.value.status, caught.value.error) == (401, "invalid_client")
    with pytest.raises(OAuthError, match="invalid_client"):
        authserver.recover()
        call(client_of(authserver, client_secret="wrong"), "introspect", "T0ken")


OPERATIONS = [("grant_client", "a"), ("introspect", "T0ken"), ("revoke", "T0ken")]


@both_ways
@pytest.mark.parametrize("operation", OPERATIONS[:2], ids=lambda each: each[0])
@pytest.mark.parametrize("garbage", ["html", "not-json", "truncated", "empty"])
def test_an_answer_that_is_no_json_is_an_error_of_ours(call, authserver, operation, garbage):
    name = "token" if operation[0] == "grant_client" else "introspection"
    authserver.fail(name, garbage=garbage)
    with pytest.raises(InvalidResponse):
        call(client_of(authserver), *operation)
    authserver.fail("discovery", garbage=garbage)
    with pytest.raises(InvalidResponse):
        call(client_of(authserver), *operation)


@both_ways
def test_an_answer_without_a_token_is_no_key_error(call, authserver):
    for body in ({}, {"token_type": "Bearer"}, {"access_token": None, "token_type": "Bearer"}):
        with authserver.fail("token", status=200, body=body), pytest.raises(InvalidResponse):
            call(client_of(authserver), "grant_client")


@both_ways
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each[0])
def test_no_timeout_or_connection_error_of_a_library_gets_out(call, authserver, operation):
    client = client_of(authserver)
    call(client, "grant_client")
    with authserver.fail("*", hang=True), pytest.raises(AuthserverUnavailable) as caught:
        call(client, *operation, timeout=0.2)
    assert caught.value.code == "timeout"
    with (
        running(lambda connection: connection.request()) as reset,
        pytest.raises(AuthserverUnavailable),
    ):
        call(OpenIDClient(reset.url, "a", "b"), *operation)
    with pytest.raises(AuthserverUnavailable) as refused:
        call(OpenIDClient(reset.url, "a", "b"), *operation)
    assert refused.value.__cause__ is None


@both_ways
@pytest.mark.parametrize(
    "arguments",
    [
        ("grant_user", None, "a", "p"),
        ("grant_user", b"u", "a", "p"),
        ("grant_user", "u", 7, "p"),
        ("grant_user", "u", "a", object()),
        ("grant_user", "u", "a", "p", None, {"id": b"bytes"}),
        ("grant_client", 7),
        ("grant_client", [None]),
        ("introspect", None),
        ("introspect", b"T0ken"),
        ("introspect", "\ud800"),
        ("revoke", 7),
        ("refresh", ""),
        ("get_token", 7),
    ],
)
def test_a_wrong_argument_is_your_error_and_no_type_error(call, authserver, arguments):
    with pytest.raises(ConfigurationError):
        call(signing_client_of(authserver), *arguments)
    assert authserver.requests.count("token") == 0


@both_ways
def test_a_cached_token_of_a_subject_that_is_none_is_your_error(call, authserver):
    for sub in (b"u", 7, "", ["u"]):
        with pytest.raises(ConfigurationError, match="sub"):
            call(signing_client_of(authserver), "get_token", "a", sub=sub)
    with pytest.raises(ConfigurationError, match="nonce"):
        call(client_of(authserver), "grant_code", "c", CALLBACK, nonce=b"bytes")
    assert authserver.requests.count() == 0


def test_what_goes_wrong_is_not_logged_with_the_secret(authserver, caplog):
    with caplog.at_level(logging.DEBUG):
        client = client_of(authserver)
        for call in (call_sync, call_async):
            call(client, "grant_client", "a")
            with authserver.fail("token", status=500), pytest.raises(AuthserverUnavailable):
                call(client, "grant_client", "a")
    for secret in ("test-secret", base64.b64encode(b"test-client:test-secret").decode()):
        assert secret not in caplog.text


# -- signatures of others (1.1) ----------------------------------------------------------------


def forged(header: Any, claims: Any = None, signature: bytes = b"x") -> str:
    parts = (json.dumps(header).encode(), json.dumps(claims or {"sub": "u"}).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


@pytest.mark.parametrize(
    "token",
    [
        forged({}),
        forged({"alg": None}),
        forged({"alg": "none"}, signature=b""),
        forged({"alg": "HS256"}),
        forged({"alg": ["RS256"]}),
        forged({"alg": {"a": 1}}),
        forged({"alg": "RS256"}),
        forged({"alg": "ES256", "kid": 7}),
        "a.b",
        "",
        "....",
        "é.é.é",
    ],
)
def test_the_algorithm_is_not_taken_from_the_token_and_nothing_else_gets_out(token):
    keys = [dict(load_key(pem()).public_jwk), {}, {"kty": "RSA"}, {"kty": "oct", "k": "eA"}]
    with pytest.raises(InvalidSignature):
        jws.verify(token, keys, algorithms=["ES256"])


def log_in(call: Any, authserver: FakeAuthserver) -> tuple[OpenIDClient, Any, dict[str, Any]]:
    client = client_of(authserver)
    started = call(client, "start_authorization", CALLBACK, "openid")
    code = parse_qs(urlsplit(authserver.authorize(started.url)).query)["code"][0]
    answer = call(
        client,
        "grant_code",
        code,
        CALLBACK,
        code_verifier=started.code_verifier,
        nonce=started.nonce,
        full_authserver_response=True,
    )
    return client, started, answer


@both_ways
def test_both_clients_verify_id_tokens_under_one_public_name_and_give_the_claims(call, authserver):
    client, started, answer = log_in(call, authserver)
    claims = call(client, "verify_id_token", answer["id_token"], nonce=started.nonce)
    assert claims["iss"] == authserver.endpoint
    assert claims["aud"] == "test-client"
    assert not hasattr(client, "_verify_signature")


@both_ways
def test_an_id_token_that_is_foreign_or_old_is_not_returned_as_valid(call, authserver):
    client, _, answer = log_in(call, authserver)
    other = client_of(authserver, client_id="another-client")
    with pytest.raises(WrongAudience):
        call(other, "verify_id_token", answer["id_token"])
    with FakeAuthserver().serve() as elsewhere, pytest.raises(TokenError):
        call(client_of(elsewhere), "verify_id_token", answer["id_token"])
    with pytest.raises(TokenError, match="nonce"):
        call(client, "verify_id_token", answer["id_token"], nonce="of another login")
    authserver.move_clock(-7 * 86400)
    with pytest.raises(InvalidResponse) as refused:
        log_in(call, authserver)
    assert isinstance(refused.value.__cause__, ExpiredToken)


@both_ways
@pytest.mark.parametrize("header", [{}, {"alg": "none"}, {"alg": "HS256"}, {"kid": ["x"]}])
def test_no_error_of_a_library_comes_from_an_id_token(call, authserver, header):
    client = client_of(authserver)
    with pytest.raises(InvalidSignature):
        call(client, "verify_id_token", forged(header))


def test_a_key_that_the_authserver_changes_is_looked_for_again(authserver):
    """The SDK kept the keys for as long as the process lived."""
    client, _, answer = log_in(call_sync, authserver)
    assert client.config.jwks_ttl <= 600
    before = authserver.requests.count("jwks")
    client.verify_id_token(answer["id_token"])
    assert authserver.requests.count("jwks") == before, "and they are kept in between"


# -- our keys (1.1, 1.2, 1.4) ------------------------------------------------------------------


def test_published_keys_have_kid_use_and_alg_and_nothing_private(authserver, tmp_path):
    (tmp_path / "rsa.pem").write_text(pem("RS256"))
    client = client_of(authserver, private_certs_path=str(tmp_path), client_keys=[{"key": pem()}])
    published = json.loads(client.get_jwk_set())
    assert published == client.get_jwk_set(dump_json=False)
    for key in published["keys"]:
        assert key["kid"]
        assert key["use"] == "sig"
        assert key["alg"] in ("RS256", "ES256")
        assert {"d", "p", "q", "dp", "dq", "qi"}.isdisjoint(key)


def test_a_directory_that_is_missing_is_an_error_of_ours_when_it_is_needed(authserver, tmp_path):
    client = signing_client_of(
        authserver, client_keys=None, private_certs_path=str(tmp_path / "missing")
    )
    assert client.grant_client(), "it needs no key"
    for use in (client.get_jwk_set, lambda: client.grant_user("u", "a", "p")):
        with pytest.raises(StoreUnavailable, match="missing"):
            use()


def test_new_key_files_are_seen_without_a_restart(authserver, tmp_path):
    (tmp_path / "1.pem").write_text(pem("ES256", 1))
    client = signing_client_of(authserver, client_keys=None, private_certs_path=str(tmp_path))
    client.grant_user("u", "a", "p")
    (tmp_path / "2.pem").write_text(pem("ES256", 2))
    client.grant_user("u", "a", "p")
    assert assertion_of(authserver).header["kid"] == load_key(pem("ES256", 2)).kid
    assert len(client.get_jwk_set(dump_json=False)["keys"]) == 2


def test_what_is_no_key_in_the_directory_disturbs_nobody(authserver, tmp_path, caplog):
    (tmp_path / "key.pem").write_text(pem())
    (tmp_path / "zz-README.md").write_text("These are our keys.")
    (tmp_path / "zz-broken.pem").write_text(
        "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----"
    )
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / "zz-more").mkdir()
    client = signing_client_of(authserver, client_keys=None, private_certs_path=str(tmp_path))
    assert client.grant_user("u", "a", "p")
    assert len(client.get_jwk_set(dump_json=False)["keys"]) == 1


def as_pem(key: Any, passphrase: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


#: What the SDK's page promises, by the extension of the file: of these, ``pem`` alone worked.
DOCUMENTED = {
    "json": lambda key: json.dumps(jwk(key)).encode(),
    "private": lambda key: key.private_bytes(DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
    "pkcs8": lambda key: key.private_bytes(DER, PrivateFormat.PKCS8, NoEncryption()),
    "public": lambda key: key.public_key().public_bytes(DER, SPKI),
    "spki": lambda key: key.public_key().public_bytes(DER, SPKI),
    "pkix": lambda key: certificate(key, datetime(2120, 1, 1, tzinfo=UTC), DER),
    "x509": lambda key: certificate(key, datetime(2120, 1, 1, tzinfo=UTC), DER),
    "pem": lambda key: key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
}


@pytest.mark.parametrize("make", [rsa_key, ec_key])
@pytest.mark.parametrize("extension", DOCUMENTED)
def test_each_documented_format_is_read_from_a_directory(authserver, tmp_path, extension, make):
    (tmp_path / f"key.{extension}").write_bytes(DOCUMENTED[extension](make()))
    client = signing_client_of(authserver, client_keys=None, private_certs_path=str(tmp_path))
    (published,) = client.get_jwk_set(dump_json=False)["keys"]
    assert published["kid"] == thumbprint(public(make()))
    signs = extension in ("json", "private", "pkcs8", "pem")
    with pytest.raises(OAuthError if signs else NoUsableSigningKey):
        client.grant_user("u", "a", "p")
    assert signs == bool(authserver.requests.to("token"))


def test_the_public_half_of_a_retired_key_can_be_published_and_never_signs(authserver, tmp_path):
    (tmp_path / "key.pem").write_text(pem())
    half = rsa_key().public_key().public_bytes(Encoding.PEM, SPKI)
    (tmp_path / "zz-retired.pem").write_bytes(half)
    client = signing_client_of(authserver, client_keys=None, private_certs_path=str(tmp_path))
    client.grant_user("u", "a", "p")
    assert assertion_of(authserver).header["kid"] == load_key(pem()).kid
    kids = [key["kid"] for key in client.get_jwk_set(dump_json=False)["keys"]]
    assert kids == [load_key(pem()).kid, thumbprint(public(rsa_key()))]


@pytest.mark.parametrize(
    ("curve", "alg"),
    [(ec.SECP256R1, "ES256"), (ec.SECP384R1, "ES384"), (ec.SECP521R1, "ES512")],
)
def test_a_curve_is_signed_with_under_its_own_name(curve, alg):
    key = load_key(as_pem(ec_key(curve=curve)))
    token = key.sign({"sub": "u"})
    assert jws.decode(token).header["alg"] == key.alg == key.public_jwk["alg"] == alg
    assert jws.verify(token, [key.public_jwk], algorithms=[alg]).claims == {"sub": "u"}


def test_a_curve_that_no_algorithm_is_for_is_refused_with_the_reason():
    with pytest.raises(UnsupportedKey, match="curve secp256k1"):
        load_key(as_pem(ec_key(curve=ec.SECP256K1)))


def test_an_ed25519_key_signs():
    key = load_key(as_pem(ed25519.Ed25519PrivateKey.generate()))
    token = key.sign({"sub": "u"})
    assert jws.verify(token, [key.public_jwk], algorithms=["EdDSA"]).header["alg"] == "EdDSA"


@pytest.mark.skipif(not shutil.which("openssl"), reason="there is no openssl command")
def test_a_key_for_rsa_pss_alone_does_not_sign_as_something_else():
    made = subprocess.run(
        ["openssl", "genpkey", "-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"],
        capture_output=True,
        check=True,
    )
    assert load_key(made.stdout).alg == "PS256"
    with pytest.raises(UnsupportedKey, match="PS256"):
        load_key(made.stdout, alg="RS256")


def test_a_protected_key_is_opened_by_its_passphrase_and_refused_with_a_reason(authserver):
    data = as_pem(ec.generate_private_key(ec.SECP256R1()), b"passphrase")
    with pytest.raises(KeyLoadError, match="passphrase"):
        load_key(data)
    opened = client_of(authserver, client_keys=[{"key": data, "passphrase": "passphrase"}])
    assert len(opened.get_jwk_set(dump_json=False)["keys"]) == 1


def test_a_key_that_can_be_cracked_is_refused():
    weak = as_pem(rsa.generate_private_key(65537, 1024))
    with pytest.raises(KeyLoadError, match=r"1024|2048"):
        load_key(weak)


# -- packaging (1.5) ---------------------------------------------------------------------------


def test_dependencies_are_ranges_and_few():
    setup = Path(__file__).resolve().parent.parent / "setup.cfg"
    if not setup.exists():
        pytest.skip("the checkout is not here")
    required = setup.read_text().partition("install_requires =")[2].partition("\n\n")[0]
    assert "==" not in required
    for unwanted in ("jose", "aiohttp", "aiocache", "msgpack", "lru-dict"):
        assert unwanted not in required


def test_a_server_that_is_no_authserver_at_all_is_said_to_be_none():
    with running(answering(b"SSH-2.0-OpenSSH_9.6\r\n", close=True)) as server:
        for call in (call_sync, call_async):
            with pytest.raises(AuthserverError):
                call(OpenIDClient(server.url, "a", "b"), "grant_client")
