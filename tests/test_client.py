"""The client as users hold it: names, signatures, twins, timeouts, sharing."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.test import override_settings
from timing import PATIENCE, Clock, not_held_up, until
from world import config

from django_baikal import OpenIDClient, aio, clients
from django_baikal.exceptions import (
    AuthserverUnavailable,
    ConfigurationError,
    InvalidResponse,
    NoUsableSigningKey,
    OAuthError,
)
from django_baikal.keys.generate import generate_key, private_pem
from django_baikal.performers import Performer, Runtime
from django_baikal.protocol.effects import RandomToken, Share
from django_baikal.testing import FakeAuthserver

METHODS = [
    name
    for name, _ in inspect.getmembers(OpenIDClient, inspect.isfunction)
    if not name.startswith("_") and f"a{name}" in dir(OpenIDClient)
]


@pytest.fixture(scope="module")
def pem() -> str:
    return private_pem(generate_key("ES256"))


@pytest.fixture
def authserver() -> Iterator[FakeAuthserver]:
    with (
        FakeAuthserver().serve() as server,
        override_settings(BAIKAL={"default": server.settings(TIMEOUT=PATIENCE)}),
    ):
        yield server


def test_every_method_of_the_design_is_there():
    assert set(METHODS) == {
        "authenticate",
        "authorize",
        "forget_token",
        "get_jwk_set",
        "get_token",
        "grant_client",
        "grant_code",
        "grant_user",
        "introspect",
        "invalidate",
        "refresh",
        "revoke",
        "start_authorization",
        "verify_id_token",
    }


@pytest.mark.parametrize("name", METHODS)
def test_each_method_has_a_coroutine_twin_with_the_same_signature(name):
    method, twin = getattr(OpenIDClient, name), getattr(OpenIDClient, f"a{name}")
    assert inspect.iscoroutinefunction(twin)
    assert not inspect.iscoroutinefunction(method)
    assert inspect.signature(method) == inspect.signature(twin)
    assert method.__doc__
    assert twin.__doc__


@pytest.mark.parametrize("name", [name for name in METHODS if name != "get_jwk_set"])
def test_the_async_client_has_the_sdks_names_as_coroutines(name):
    coroutine = getattr(aio.OpenIDClient, name)
    assert inspect.iscoroutinefunction(coroutine)
    assert inspect.signature(coroutine) == inspect.signature(getattr(OpenIDClient, name))


def test_the_async_client_has_the_names_of_the_sdks_page():
    for name in ("grant_user", "grant_client", "introspect"):
        assert getattr(aio.OpenIDClient, f"async_{name}") is getattr(aio.OpenIDClient, name)
    assert not inspect.iscoroutinefunction(aio.OpenIDClient.get_jwk_set)


def test_the_constructor_takes_the_sdks_arguments_in_the_order_of_its_page():
    names = list(inspect.signature(OpenIDClient.__init__).parameters)[1:]
    assert names[:6] == [
        "authserver_endpoint",
        "client_id",
        "client_secret",
        "client_keys",
        "issuer",
        "private_certs_path",
    ]
    assert inspect.signature(OpenIDClient.__init__) == inspect.signature(aio.OpenIDClient.__init__)


def test_get_token_forget_token_and_session_are_about_the_same():
    get, forget, session = (
        dict(inspect.signature(getattr(OpenIDClient, name)).parameters)
        for name in ("get_token", "forget_token", "session")
    )
    assert forget.pop("token").default is None
    assert get == forget
    # The API may get the token at one place only, which has to be named.
    assert session.pop("origin").default is inspect.Parameter.empty
    assert session == {k: v for k, v in get.items() if k not in ("headers", "timeout")}


def test_only_session_has_no_twin():
    """It is one of requests, which has no coroutines."""
    public = {name for name in vars(OpenIDClient) if not name.startswith("_")}
    assert public - set(METHODS) == {"session"}


def test_headers_and_timeout_are_on_every_method_that_calls():
    for name in set(METHODS) - {"get_jwk_set"}:
        assert {"headers", "timeout"} <= set(
            inspect.signature(getattr(OpenIDClient, name)).parameters
        )


@pytest.mark.parametrize("whole", [False, True])
def test_a_client_token_comes_bare_or_as_the_whole_answer(authserver, whole):
    client = clients["default"]
    for answer in (
        client.grant_client("a", full_authserver_response=whole),
        asyncio.run(client.agrant_client("a", full_authserver_response=whole)),
    ):
        token = answer["access_token"] if whole else answer
        assert client.introspect(token)["active"] is True
    assert isinstance(answer, dict if whole else str)


def test_a_code_is_exchanged_refreshed_and_revoked(authserver):
    client = clients["default"]
    started = client.start_authorization("https://app.example/cb", "openid offline_access")
    location = authserver.authorize(started.url)
    assert f"state={started.state}" in location
    code = location.partition("code=")[2].partition("&")[0]
    answer = client.grant_code(
        code,
        "https://app.example/cb",
        code_verifier=started.code_verifier,
        nonce=started.nonce,
        full_authserver_response=True,
    )
    assert answer["id_token"]
    renewed = client.refresh(answer["refresh_token"], full_authserver_response=True)
    client.revoke(renewed["refresh_token"], "refresh_token")
    with pytest.raises(OAuthError) as caught:
        client.refresh(renewed["refresh_token"])
    assert caught.value.error == "invalid_grant"


def test_the_same_by_coroutines(authserver):
    async def main() -> None:
        client = aio.OpenIDClient()
        started = await client.start_authorization(
            "https://app.example/cb", "openid offline_access"
        )
        url = await client.authorize("a", None, "https://app.example/cb")
        assert url.startswith(authserver.endpoint)
        code = authserver.authorize(started.url).partition("code=")[2].partition("&")[0]
        answer = await client.grant_code(
            code,
            "https://app.example/cb",
            code_verifier=started.code_verifier,
            nonce=started.nonce,
            full_authserver_response=True,
        )
        token = await client.refresh(answer["refresh_token"])
        await client.revoke(token)
        assert (await client.introspect(token))["active"] is False

    asyncio.run(main())


def test_a_nonce_of_another_login_refuses_the_answer(authserver):
    client = clients["default"]
    started = client.start_authorization("https://app.example/cb", "openid")
    code = authserver.authorize(started.url).partition("code=")[2].partition("&")[0]
    with pytest.raises(InvalidResponse, match="nonce"):
        client.grant_code(
            code,
            "https://app.example/cb",
            code_verifier=started.code_verifier,
            nonce="of-another-login",
        )


def test_a_user_token_needs_a_key_and_names_the_settings(authserver):
    client = OpenIDClient(issuer="https://me.example/")
    for call in (
        lambda: client.grant_user("u", "a", None),
        lambda: asyncio.run(client.agrant_user("u", "a", None)),
    ):
        with pytest.raises(NoUsableSigningKey, match="PRIVATE_CERTS_PATH or CLIENT_KEYS"):
            call()


def test_our_keys_come_as_a_string_or_a_dict(authserver, pem):
    client = OpenIDClient(client_keys=[{"key": pem}])
    both = client.get_jwk_set(), asyncio.run(client.aget_jwk_set())
    assert both[0] == both[1]
    assert isinstance(both[0], str)
    (key,) = client.get_jwk_set(dump_json=False)["keys"]
    assert key["alg"] == "ES256"


@pytest.mark.parametrize("timeout", [0, -1, True, "5", float("nan"), float("inf"), 1e12])
def test_a_timeout_that_is_none_is_refused(authserver, timeout):
    client = clients["default"]
    for call in (client.introspect, client.grant_client, client.revoke):
        with pytest.raises(ConfigurationError, match="timeout"):
            call("a", timeout=timeout)
    assert len(authserver.requests) == 0


@pytest.mark.parametrize("method", ["grant_client", "introspect", "revoke", "refresh", "get_token"])
def test_the_timeout_of_a_call_bounds_it_with_its_discovery(authserver, method):
    # Either of them ends in time by itself, and they do not together.
    authserver.fail("*", delay=0.6)
    for name in (method, f"a{method}"):
        call = getattr(OpenIDClient(), name)
        with pytest.raises(AuthserverUnavailable) as caught:
            made = call("a", timeout=0.9)
            asyncio.run(made)
        assert caught.value.code == "timeout"
    authserver.recover()
    authserver.fail("*", hang=True)
    for name in (method, f"a{method}"):
        with not_held_up(), pytest.raises(AuthserverUnavailable):
            made = getattr(OpenIDClient(), name)("a", timeout=0.3)
            asyncio.run(made)


@pytest.mark.parametrize("method", ["authorize", "start_authorization"])
def test_headers_and_timeout_do_not_get_into_the_authorization_url(authserver, method):
    where = {"redirect_uri": "https://app.example/cb"}
    with authserver.fail("discovery", hang=True):
        for name in (method, f"a{method}"):
            with pytest.raises(AuthserverUnavailable):
                asyncio.run(getattr(OpenIDClient(), name)(**where, timeout=0.2))
    started = getattr(OpenIDClient(), method)(**where, timeout=PATIENCE, headers={"X-A": "b"})
    url = started if method == "authorize" else started.url
    assert "timeout" not in url
    assert "X-A" not in url


def test_introspection_has_a_timeout_of_its_own(authserver):
    authserver.fail("introspection", hang=True)
    client = OpenIDClient(introspection_timeout=0.3)
    with not_held_up(), pytest.raises(AuthserverUnavailable):
        client.introspect("a")
    with not_held_up(), pytest.raises(AuthserverUnavailable):
        asyncio.run(client.aintrospect("a"))


def test_a_repr_names_the_client_and_no_secret():
    client = OpenIDClient("https://auth.example.com", "me", "s3cret")
    assert repr(client) == "<OpenIDClient 'default': 'me' at 'https://auth.example.com'>"
    assert "s3cret" not in repr(client.config)


# -- threads, tasks, loops, forks -----------------------------------------------------------------


def test_twenty_threads_that_start_cold_cause_one_discovery(authserver):
    authserver.fail("discovery", delay=0.2)
    client = OpenIDClient()
    barrier = threading.Barrier(20)

    def call(_: int) -> str:
        barrier.wait()
        return str(client.grant_client("a"))

    with ThreadPoolExecutor(20) as pool:
        assert len(set(pool.map(call, range(20)))) == 20
    assert authserver.requests.count("discovery") == 1
    assert authserver.requests.count("jwks") == 0, "nobody needs the authserver's keys"


def test_a_waiter_in_less_hurry_than_the_runner_tries_for_itself(authserver):
    client = OpenIDClient()
    with authserver.fail("discovery", hang=True) as hanging, ThreadPoolExecutor(2) as pool:
        hurried = pool.submit(client.grant_client, "a", timeout=1)
        until(lambda: hanging.hits or hurried.done(), "the first one asks")
        patient = pool.submit(client.grant_client, "a", timeout=PATIENCE)
        assert isinstance(hurried.exception(), AuthserverUnavailable)
        hanging.lift()
        assert patient.result()

    hanging = authserver.fail("discovery", hang=True)

    async def main() -> None:
        other = OpenIDClient()
        hurried = asyncio.ensure_future(other.agrant_client("a", timeout=1))
        patient = asyncio.ensure_future(other.agrant_client("a", timeout=PATIENCE))
        with pytest.raises(AuthserverUnavailable):
            await hurried
        hanging.lift()
        assert await patient

    asyncio.run(main())


def test_a_waiter_gives_up_at_its_own_deadline(authserver):
    client = OpenIDClient()
    with ThreadPoolExecutor(1) as pool, authserver.fail("discovery", hang=True) as hanging:
        patient = pool.submit(client.grant_client, "a", timeout=2 * PATIENCE)
        until(lambda: hanging.hits, "the first one asks")
        with not_held_up(), pytest.raises(AuthserverUnavailable):
            client.grant_client("a", timeout=0.2)
        hanging.lift()
        assert patient.result()

    hanging = authserver.fail("discovery", hang=True)

    async def main() -> None:
        other = OpenIDClient()
        patient = asyncio.ensure_future(other.agrant_client("a", timeout=2 * PATIENCE))
        await asyncio.to_thread(until, lambda: hanging.hits, "the first one asks")
        with not_held_up(), pytest.raises(AuthserverUnavailable):
            await other.agrant_client("a", timeout=0.2)
        hanging.lift()
        assert await patient

    asyncio.run(main())


def test_a_runner_that_is_cancelled_leaves_the_run_to_a_waiter(authserver):
    hanging = authserver.fail("discovery", hang=True)

    async def main() -> None:
        client = OpenIDClient()
        tasks = [asyncio.create_task(client.agrant_client("a")) for _ in range(5)]
        await asyncio.to_thread(until, lambda: hanging.hits, "one asks for all")
        tasks[0].cancel()
        tasks[3].cancel()
        hanging.lift()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        kinds = [type(result).__name__ for result in results]
        assert kinds == ["CancelledError", "str", "str", "CancelledError", "str"]

    asyncio.run(main())


def test_a_runner_that_is_interrupted_leaves_the_run_to_a_waiter():
    runtime = Runtime(config())
    gate = threading.Event()
    seen: list[Any] = []

    def interrupted() -> Any:
        yield RandomToken()
        gate.wait(PATIENCE)
        raise KeyboardInterrupt

    def fine() -> Any:
        yield RandomToken()
        return "fine"

    def first() -> None:
        with pytest.raises(KeyboardInterrupt):
            Performer(runtime, PATIENCE).perform(Share(("name",), interrupted))

    def second() -> None:
        seen.append(Performer(runtime, PATIENCE).perform(Share(("name",), fine)))

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    until(lambda: runtime.process.flights._futures, "the first one runs")
    (shared,) = runtime.process.flights._futures.values()
    threads[1].start()
    until(lambda: shared._condition._waiters, "the second one waits for it")
    gate.set()
    for thread in threads:
        thread.join()
    assert seen == ["fine"]


def test_nobody_waits_for_a_renewal_in_the_background(authserver, monkeypatch):
    clock = Clock(monkeypatch)
    client = OpenIDClient(metadata_ttl=600)
    client.grant_client("a")
    clock.pass_time(600)
    with authserver.fail("discovery", hang=True), not_held_up():
        for _ in range(5):
            client.grant_client("a")
        asyncio.run(client.agrant_client("a"))
    for thread in threading.enumerate():
        if thread.name == "django-baikal":
            thread.join()
    assert authserver.requests.count("discovery") == 2


def test_a_renewal_that_breaks_is_logged_and_does_not_block_the_next(caplog):
    runtime = Runtime(config())
    performer = Performer(runtime, 5)

    def broken() -> Any:
        yield RandomToken()
        raise ZeroDivisionError

    performer._aside(("x",), broken)
    for thread in threading.enumerate():
        if thread.name == "django-baikal":
            thread.join()
    assert "a renewal failed" in caplog.text
    assert not runtime.process.flights._futures


def test_a_process_without_a_thread_to_spare_keeps_the_old_copy(caplog):
    script = textwrap.dedent(
        """
        import resource, threading
        from django_baikal.performers import Performer, Runtime
        from django_baikal.protocol.config import ClientConfig
        runtime = Runtime(ClientConfig())
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (300 << 20, 300 << 20))
        threading.stack_size(1 << 30)
        def work():
            yield
        Performer(runtime, 1)._aside(("x",), work)
        assert not runtime.process.flights._futures
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "no thread for a renewal" in done.stderr


def test_a_client_works_in_one_event_loop_after_the_other(authserver):
    client = clients["default"]
    for _ in range(3):
        assert asyncio.run(client.agrant_client("a"))
        assert async_to_sync(client.agrant_client)("a")


def test_tasks_of_several_event_loops_at_once_share_one_discovery(authserver):
    authserver.fail("discovery", delay=0.3)
    client = OpenIDClient()

    async def main() -> set[Any]:
        return set(await asyncio.gather(*(client.agrant_client("a") for _ in range(5))))

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: asyncio.run(main()), range(4)))
    assert len(set.union(*made)) == 20
    assert authserver.requests.count("discovery") == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_makes_connections_of_its_own_after_a_fork(authserver):
    script = textwrap.dedent(
        f"""
        import os, sys
        from django_baikal import OpenIDClient
        client = OpenIDClient({authserver.endpoint!r}, "test-client", "test-secret")
        def own(scope):
            # On a connection that two processes use, one reads the other's answer.
            return client.grant_client(scope, full_authserver_response=True)["scope"] == scope
        assert own("first")
        children = []
        for child in range(3):
            pid = os.fork()
            if pid == 0:
                ok = all(own(f"{{child}}-{{number}}") for number in range(20))
                os._exit(0 if ok else 1)
            children.append(pid)
        assert all(own(f"parent-{{number}}") for number in range(20))
        for pid in children:
            assert os.waitpid(pid, 0)[1] == 0
        """
    )
    environment = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert authserver.requests.count("token") == 81
    assert authserver.requests.count("discovery") == 1


def test_signing_and_parsing_do_not_hold_up_the_event_loop(authserver, pem, monkeypatch):
    from cryptography.hazmat.primitives import serialization
    from jwt.algorithms import ECAlgorithm

    threads = []

    def watched(original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            threads.append(threading.get_ident())
            return original(*args, **kwargs)

        return call

    monkeypatch.setattr(ECAlgorithm, "sign", watched(ECAlgorithm.sign))
    loader = watched(serialization.load_der_private_key)
    monkeypatch.setattr(serialization, "load_der_private_key", loader)
    fresh = private_pem(generate_key("ES256"))
    client = OpenIDClient(
        issuer="https://me.example/",
        client_keys=[{"key": fresh}],
        client_auth_method="private_key_jwt",
    )
    with pytest.raises(OAuthError):  # the authserver does not know this key
        asyncio.run(client.agrant_client("a"))
    assert len(threads) == 2
    assert threading.get_ident() not in threads
