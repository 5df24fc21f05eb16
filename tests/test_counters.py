"""What a call costs that can be counted: connections, requests, queries, parses, modules loaded.

Exact numbers, the same on every machine; how long things take is for ``benchmarks``.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from django.test import Client, override_settings
from doors_stage import OURS, introspections, knock, standing
from stage import counted, pem
from test_bearer_faults import PATIENT, Clock, at_once
from test_doors import DOORS, both_servers, every_door, good
from test_ring_views import JWKS, entry, kids, ring

from django_baikal import OpenIDClient, clients
from django_baikal.keys import load_key
from django_baikal.protocol.effects import Request, Response
from django_baikal.testing import FakeAuthserver

ISSUER = "https://me.example/"


@pytest.fixture(autouse=True)
def _cache_of_its_own(settings: Any) -> None:
    backend = "django.core.cache.backends.locmem.LocMemCache"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": str(uuid.uuid4())}}


# -- TCP connections --------------------------------------------------------------------------


def publish(request: Request) -> Response:
    """Answer as the issuer of our assertions does."""
    keys = [dict(load_key(pem()).public_jwk)]
    document = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}jwks", "keys": keys}
    return Response(200, {"content-type": "application/json"}, json.dumps(document).encode())


@pytest.fixture(params=["http", "https"])
def tls(request: Any, tmp_path: Path) -> tuple[ssl.SSLContext | None, dict[str, Any]]:
    """Give what a server needs, and a client of it."""
    if request.param == "http":
        return None, {}
    trustme = pytest.importorskip("trustme")
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return context, {"verify_certs": str(tmp_path / "ca.pem")}


#: What is asked of the authserver each time: the arguments of the n-th call.
CALLS: dict[str, Callable[[FakeAuthserver, int], tuple[Any, ...]]] = {
    "grant_client": lambda server, n: ("a", "p"),
    "grant_user": lambda server, n: ("user", "a", "p"),
    "get_token": lambda server, n: (f"scope-{n}", "p"),
    "introspect": lambda server, n: (server.issue_token(),),
    "authenticate": lambda server, n: (server.issue_token(sub="anna"),),
    "revoke": lambda server, n: (server.issue_token(),),
}


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_hundred_calls_of_each_kind_use_one_connection(way: str, tls: Any) -> None:
    context, trusting = tls
    with counted(context, fetch=publish) as (server, listener):
        entry = {name.lower(): value for name, value in server.settings(**PATIENT).items()}
        keys = {"issuer": ISSUER, "client_keys": [{"key": pem()}]}
        client = OpenIDClient(**entry, **keys, **trusting)

        async def main() -> None:
            for name, arguments in CALLS.items():
                for number in range(100):
                    await getattr(client, f"a{name}")(*arguments(server, number))

        if way == "async":
            asyncio.run(main())
        else:
            for name, arguments in CALLS.items():
                for number in range(100):
                    getattr(client, name)(*arguments(server, number))
        client._runtime.process.transport.close()
    endpoints = ("discovery", "token", "introspection", "revocation")
    assert [server.requests.count(each) for each in endpoints] == [1, 300, 200, 100]
    assert listener.connections == 1


# -- requests to the authserver ---------------------------------------------------------------


@pytest.fixture
def jwts() -> Iterator[FakeAuthserver]:
    """Let an authserver run whose tokens are verified here."""
    server = FakeAuthserver(token_format="jwt", access_token_lifetime=86400)
    with (
        server.serve(),
        override_settings(BAIKAL={"default": server.settings(VALIDATION="jwt", **PATIENT)}),
    ):
        yield server


@at_once
def test_fifty_that_start_cold_make_one_discovery_and_fetch_the_keys_once(
    at_once: Any, jwts: FakeAuthserver
) -> None:
    tokens = [jwts.issue_token(sub=str(number)) for number in range(50)]
    jwts.fail("*", delay=0.3)
    assert at_once(OpenIDClient(), tokens) == ["good"] * 50
    assert [request.endpoint for request in jwts.requests] == ["discovery", "jwks"]


@at_once
@pytest.mark.parametrize(("what", "age"), [("jwks", 500), ("discovery", 901)])
def test_while_the_authserver_hangs_in_a_renewal_all_are_served_from_the_old_copy(
    what: str, age: float, at_once: Any, jwts: FakeAuthserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of the two, the other one stays young.
    client = OpenIDClient(**({"jwks_ttl": 86400} if what == "discovery" else {}))
    clock = Clock(monkeypatch)
    tokens = [jwts.issue_token(sub=str(number)) for number in range(51)]
    client.authenticate(tokens.pop())
    clock.pass_time(age)
    fault = jwts.fail(what, hang=True)
    assert at_once(client, tokens) == ["good"] * 50
    renewing = [each for each in threading.enumerate() if each.name == "django-baikal"]
    assert len(renewing) == 1, "it has no answer yet, and everybody else has one"
    while not fault.hits:
        time.sleep(0.01)
    jwts.recover()
    renewing[0].join()
    assert at_once(client, tokens) == ["good"] * 50
    assert fault.hits == 1
    assert [request.endpoint for request in jwts.requests] == ["discovery", "jwks", what]


def test_fifty_threads_with_one_new_token_at_a_view_ask_once() -> None:
    with standing([OURS], PATIENT) as server:
        header = good(server)
        server.fail("introspection", delay=0.3)
        barrier = threading.Barrier(50)

        def one(_: int) -> int:
            barrier.wait()
            return knock(DOORS["middleware"].url("any"), header).status

        with ThreadPoolExecutor(50) as pool:
            assert list(pool.map(one, range(50))) == [200] * 50
        assert introspections(server) == 1


@both_servers
@every_door
def test_a_bad_token_that_is_repeated_is_asked_about_once(name: str, asgi: bool) -> None:
    door = DOORS[name]
    with standing([*door.middleware]) as server:
        assert [knock(door.url("any"), "Bearer nope", asgi=asgi).status for _ in range(20)] == (
            [401] * 20
        )
        assert introspections(server) == 1


@both_servers
@every_door
def test_a_good_token_is_asked_about_once_and_then_costs_no_request_and_no_query(
    name: str, asgi: bool
) -> None:
    door = DOORS[name]
    # Without the mark django_db a query is an error, in each thread.
    with standing([*door.middleware]) as server:
        header = good(server)
        assert [knock(door.url("any"), header, asgi=asgi).status for _ in range(10)] == [200] * 10
        assert [request.endpoint for request in server.requests] == ["discovery", "introspection"]


# -- queries, and private keys parsed ---------------------------------------------------------


@pytest.fixture
def parses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect each call of the library that parses a private key."""
    seen: list[str] = []

    def count(module: Any, name: str) -> None:
        original = getattr(module, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            seen.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, call)

    for name in ("load_der_private_key", "load_pem_private_key", "load_ssh_private_key"):
        count(serialization, name)
    count(rsa, "RSAPrivateNumbers")
    count(ec, "derive_private_key")
    return seen


@pytest.mark.django_db
def test_signing_asks_and_parses_nothing_after_the_first_time(
    parses: list[str], django_assert_num_queries: Any
) -> None:
    with ring() as keeper:
        keeper.rotate()
        runtime = clients["default"]._runtime
        with django_assert_num_queries(1):
            runtime.sign({"sub": "me"})
        assert parses == ["load_der_private_key"]
        with django_assert_num_queries(0):
            for _ in range(50):
                runtime.sign({"sub": "me"})
    assert parses == ["load_der_private_key"]


@pytest.mark.django_db
def test_the_first_hit_parses_no_private_key_and_the_next_asks_nothing(
    parses: list[str], django_assert_num_queries: Any
) -> None:
    with ring() as keeper:
        keeper.rotate()
        with django_assert_num_queries(1):
            first = Client().get(JWKS)
        with django_assert_num_queries(0):
            for _ in range(50):
                assert Client().get(JWKS).content == first.content
    assert len(kids(first)) == 2
    assert parses == []


@pytest.mark.parametrize("setting", ["CLIENT_KEYS", "PRIVATE_CERTS_PATH"])
def test_a_key_that_is_given_is_parsed_once_in_a_process(
    setting: str, parses: list[str], tmp_path: Path
) -> None:
    # One that nobody has seen: what was parsed is kept for the whole process.
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (tmp_path / "key.pem").write_bytes(key)
    given: Any = [{"key": key}] if setting == "CLIENT_KEYS" else str(tmp_path)
    for _ in range(3):
        # Another client each time.
        with override_settings(BAIKAL={"default": {**entry(), "KEYS": None, setting: given}}):
            for _ in range(20):
                clients["default"]._runtime.sign({"sub": "me"})
                assert Client().get(JWKS).status_code == 200
    assert parses == ["load_der_private_key"]


# -- modules loaded ---------------------------------------------------------------------------

#: What ``django.setup()`` may load of ours: with nothing else, and with each app beside it.
OWN = {"", ".apps", ".checks", ".exceptions", ".models"}
BESIDE = {
    "": set(),
    "django.contrib.admin": {".admin"},
    "rest_framework": {
        ".contrib",
        ".contrib.rest_framework",
        ".contrib.rest_framework.checks",
    },
}
PROGRAM = """
import sys, django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=sys.argv[1:],
    SECRET_KEY="x",
    BAIKAL={"default": {"AUTHSERVER_ENDPOINT": "https://auth.example.com", "CLIENT_ID": "me",
        "CLIENT_SECRET": "secret", "ISSUER": "https://me.example/",
        "KEYS": {"BACKEND": "django_baikal.keys.database.DatabaseKeyStore"}}},
)
django.setup()
print(*sys.modules)
"""


def loaded(*apps: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *apps], check=True, capture_output=True, text=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("beside", BESIDE)
def test_the_app_loads_nothing_of_others_and_little_of_its_own(beside: str) -> None:
    pytest.importorskip(beside or "django")
    others = ["contenttypes", "auth", "messages", "sessions"]
    apps = [*(f"django.contrib.{name}" for name in others), *filter(None, [beside])]
    added = loaded(*apps, "django_baikal") - loaded(*apps)
    ours = {name.removeprefix("django_baikal") for name in added if "django_baikal" in name}
    assert ours == OWN | BESIDE[beside]
    packages = {name.partition(".")[0] for name in added} - sys.stdlib_module_names
    assert packages - {"django"} == {"django_baikal"}
