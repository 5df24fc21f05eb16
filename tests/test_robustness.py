"""What goes wrong around a call: threads that are busy, loops that are gone, caches that fail."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import gc
import json
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from pprint import pformat
from types import TracebackType
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.cache.backends.locmem import LocMemCache
from django.test import RequestFactory, override_settings
from django.views.debug import SafeExceptionReporterFilter
from loopback import proxying, running
from stage import pem
from timing import PATIENCE, Clock, not_held_up, until
from world import METADATA, OAUTH, OPENID, SERVER, World, answer, config, token

from django_baikal import OpenIDClient, clients, performers
from django_baikal.aio import _bare
from django_baikal.exceptions import (
    AuthserverUnavailable,
    BaikalError,
    ConfigurationError,
    InvalidResponse,
    TokenError,
)
from django_baikal.flights import Abandoned, Flights
from django_baikal.performers import Performer
from django_baikal.protocol import effects, flows
from django_baikal.protocol.authorization import authorization_parameters
from django_baikal.protocol.token_cache import get_token, wanted
from django_baikal.testing import FakeAuthserver
from django_baikal.transports.base import routes

ROOT = Path(__file__).resolve().parent.parent
TOKEN = f"{SERVER}/token"


@pytest.fixture
def authserver() -> Iterator[FakeAuthserver]:
    with FakeAuthserver().serve() as server, project(server):
        yield server


def project(server: FakeAuthserver, **changes: Any) -> Any:
    return override_settings(
        BAIKAL={"default": server.settings(**{"TIMEOUT": PATIENCE, **changes})}
    )


def elsewhere(script: str) -> str:
    """Run a script in a process of its own, which may hang; give what it wrote."""
    start = """
        import asyncio, os, signal, sys, threading, time
        import django
        from django.conf import settings
        settings.configure(SECRET_KEY="x" * 50, INSTALLED_APPS=["django_baikal"])
        django.setup()
        from asgiref.sync import async_to_sync, sync_to_async
        from django_baikal import clients
        from django_baikal.testing import FakeAuthserver
    """
    code = textwrap.dedent(start) + textwrap.dedent(script)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
        check=False,
    )
    return done.stdout + done.stderr


def take_lock(client: OpenIDClient, scope: str, seconds: float) -> None:
    """Do what a process does that dies right after it took the lock of a token."""
    name = wanted(scope, None, None, {}).cache_name(client.config)
    Performer(client._runtime, 5).perform(effects.CacheAdd(("lock", *name), "the dead", seconds))


# -- hangs ----------------------------------------------------------------------------------------


def test_coroutines_that_the_threads_of_their_loop_wait_for_do_not_hang_for_ever():
    # A sync view or job per thread of the loop's pool, each calling a coroutine that signs.
    said = elsewhere(
        f"""
        from concurrent.futures import ThreadPoolExecutor
        key = {pem()!r}
        with FakeAuthserver().serve() as server:
            settings.BAIKAL = {{"default": server.settings(
                ISSUER="test-client", CLIENT_KEYS=[{{"key": key}}], TIMEOUT=1)}}
            client = clients["default"]

            def job():
                try:
                    async_to_sync(client.agrant_user)("tel:+34600000000", "a", "p")
                except Exception:
                    pass

            async def main():
                asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
                run = sync_to_async(job, thread_sensitive=False)
                _, pending = await asyncio.wait(
                    [asyncio.ensure_future(run()) for _ in range(3)], timeout=60)
                print("pending:", len(pending), flush=True)
                os._exit(0)

            asyncio.run(main())
        """
    )
    assert "pending: 0" in said


def test_a_coroutine_that_signs_ends_at_its_timeout_when_all_threads_of_the_loop_are_busy(
    authserver,
):
    async def main() -> bool:
        loop = asyncio.get_running_loop()
        await clients["default"].agrant_client("warm")
        loop.set_default_executor(ThreadPoolExecutor(1))
        free = threading.Event()
        busy = loop.run_in_executor(None, free.wait, PATIENCE)
        with contextlib.suppress(BaikalError):
            await clients["default"].agrant_user("tel:+34600000000", "a", "p", timeout=0.3)
        free.set()
        return await busy

    with project(authserver, ISSUER="test-client", CLIENT_KEYS=[{"key": pem()}]):
        assert asyncio.run(main()), "it ended while they were busy"


def test_a_garbage_collection_inside_join_does_not_deadlock():
    # A task that was lost with its loop lands its flight when it is collected: anywhere.
    flights = Flights()

    async def lost() -> None:
        future, _ = flights.join("lost")
        try:
            await asyncio.get_running_loop().create_future()
        except BaseException as error:
            flights.fail("lost", future, error)
            raise

    def lose() -> None:
        loop = asyncio.new_event_loop()
        loop.create_task(lost())  # noqa: RUF006 - it is to be lost
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    class Name:
        def __hash__(self) -> int:
            gc.collect()
            return 1

    lose()
    thread = threading.Thread(target=flights.join, args=(Name(),), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_who_comes_after_a_run_that_was_lost_with_its_loop_is_answered():
    # Elsewhere, as what is lost with its loop makes a noise when it is collected.
    said = elsewhere(
        """
        with FakeAuthserver().serve() as server:
            settings.BAIKAL = {"default": server.settings(TIMEOUT=60)}
            client = clients["default"]
            hanging = server.fail("discovery", hang=True, times=1)
            loop = asyncio.new_event_loop()
            task = loop.create_task(client.agrant_client("a"))

            async def until_it_hangs():
                while not hanging.hits:
                    await asyncio.sleep(0.01)

            loop.run_until_complete(until_it_hangs())
            loop.close()
            print("token:", asyncio.run(client.agrant_client("a")), flush=True)
            os._exit(0)
        """
    )
    assert "token: " in said


def test_a_coroutine_that_is_closed_gives_its_lock_back_without_another_error():
    origin = "http://127.0.0.1:1"
    metadata = {"issuer": origin, "token_endpoint": f"{origin}/token"}

    hanging = threading.Event()

    class Hangs:
        async def asend(self, request: effects.Request, *, timeout: float) -> effects.Response:
            if request.method == "POST":
                hanging.set()
                await asyncio.get_running_loop().create_future()
            return answer(metadata)

    routes[origin] = Hangs()
    client = OpenIDClient(origin, "client", "secret")

    async def main() -> None:
        coroutine = client.aget_token("closed", timeout=PATIENCE)
        while not hanging.is_set():
            waited = coroutine.send(None)
            if waited is not None and not hanging.is_set():
                await asyncio.wait([waited])
        coroutine.close()

    try:
        asyncio.run(main())
    finally:
        del routes[origin]


# -- one caller's trouble is another's ----------------------------------------------------------


def test_one_callers_headers_do_not_fail_another_ones_call(authserver):
    client = clients["default"]
    client.grant_client("warm")
    take_lock(client, "a", seconds=1)
    flights = client._runtime.process.flights
    with ThreadPoolExecutor(2) as pool:
        bad = pool.submit(client.get_token, "a", headers={"Authorization": "Bearer x"})
        until(lambda: bad.done() or flights._futures, "the first one runs or is refused")
        good = pool.submit(client.get_token, "a")
        assert isinstance(bad.exception(), ConfigurationError)
        assert good.exception() is None


def test_a_waiters_error_does_not_hold_the_stack_of_whoever_ran_for_it(authserver):
    # Error reports show the locals of every frame: the other caller's request, session, user.
    client = clients["default"]
    client.grant_client("warm")
    refusing = authserver.fail("token", status=400, hang=True, body={"error": "invalid_scope"})

    def view_of_alice(cookie: str) -> None:
        client.get_token("a")

    with ThreadPoolExecutor(2) as pool:
        alice = pool.submit(view_of_alice, "alices-session-cookie")
        until(lambda: refusing.hits, "the first one asks")
        (shared,) = client._runtime.process.flights._futures.values()
        bob = pool.submit(client.get_token, "a")
        until(lambda: shared._condition._waiters, "the other one waits for it")
        refusing.lift()
        alice.exception()
        error = bob.exception()
    assert "view_of_alice" not in {name for name, _ in frames(error)}


# -- locks in the cache -----------------------------------------------------------------------


class Silent(LocMemCache):
    """Redis that is down under django-redis' IGNORE_EXCEPTIONS, memcached under ignore_exc."""

    def get(self, *_: Any, **__: Any) -> None:  # type: ignore[override]
        return None

    def set(self, *_: Any, **__: Any) -> None:
        return None

    def add(self, *_: Any, **__: Any) -> bool:
        return False

    def delete(self, *_: Any, **__: Any) -> bool:
        return False


class Hanging(LocMemCache):
    freed = threading.Event()

    def get(self, *args: Any, **kwargs: Any) -> Any:
        self.freed.wait(PATIENCE)
        return super().get(*args, **kwargs)


def cache_of(kind: type) -> dict[str, Any]:
    return {"default": {"BACKEND": f"{__name__}.{kind.__name__}"}}


def test_a_cache_that_swallows_everything_does_not_hold_up_each_call(authserver):
    # Whoever waits for a lock does so for half of the timeout.
    with override_settings(CACHES=cache_of(Silent)), project(authserver, TIMEOUT=2 * PATIENCE):
        client = clients["default"]
        client.grant_client("warm")
        with not_held_up():
            assert isinstance(client.get_token("a"), str)


def test_a_call_in_a_hurry_does_not_spend_all_its_time_on_the_lock_of_a_dead_process(authserver):
    client = clients["default"]
    client.grant_client("warm")
    take_lock(client, "a", seconds=2 * PATIENCE)
    # Half of it is left for the answer.
    assert isinstance(client.get_token("a", timeout=8), str)


def test_after_a_renewal_that_failed_nobody_waits_for_it_when_the_token_has_expired(
    authserver, monkeypatch
):
    clock = Clock(monkeypatch)
    with project(authserver, TIMEOUT=86400, TOKEN_LEEWAY=1800):
        client = clients["default"]
        body = {"access_token": "T1", "token_type": "Bearer", "expires_in": 3600}
        authserver.fail("token", status=200, body=body, times=1)
        assert client.get_token("a") == "T1"
        clock.pass_time(1900)
        with authserver.fail("token", status=503):
            assert client.get_token("a") == "T1"
        clock.pass_time(1800)
        with not_held_up():
            assert client.get_token("a", timeout=4 * PATIENCE) != "T1"


def test_sync_code_in_a_thread_that_the_cache_needs_does_not_hold_up_a_coroutine(authserver):
    # Both asgiref's thread of sync code: cache.aget() waits for it, and get_token() sleeps in it.
    # Whoever waits for a lock does so for half of the timeout.
    client = OpenIDClient(timeout=2 * PATIENCE)
    client.grant_client("warm")

    async def main() -> None:
        first = asyncio.ensure_future(client.aget_token("a"))
        await asyncio.to_thread(until, lambda: slow.hits, "the first one asks")
        await asyncio.gather(first, sync_to_async(client.get_token)("a"))

    slow = authserver.fail("token", delay=0.5)
    with not_held_up():
        asyncio.run(main())
    assert authserver.requests.count("token") == 2


def test_a_coroutine_ends_at_its_timeout_when_the_cache_hangs(authserver):
    Hanging.freed.clear()
    with override_settings(CACHES=cache_of(Hanging)):
        try:
            with not_held_up(), contextlib.suppress(BaikalError):
                asyncio.run(clients["default"].aget_token("a", timeout=0.3))
        finally:
            Hanging.freed.set()


# -- what is out of sight ---------------------------------------------------------------------


def frames(error: BaseException | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give each frame that an error report shows, with its variables as Django filters them."""
    django_filter = SafeExceptionReporterFilter()
    request = RequestFactory().get("/")
    while error is not None:
        tb: TracebackType | None = error.__traceback__
        while tb is not None:
            shown = django_filter.get_traceback_frame_variables(request, tb.tb_frame)
            yield (
                tb.tb_frame.f_code.co_name,
                {**dict(shown), "__file__": tb.tb_frame.f_code.co_filename},
            )
            tb = tb.tb_next
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def leaks(error: BaseException | None, *secrets: str) -> set[tuple[str, str]]:
    found = set()
    for function, variables in frames(error):
        if f"{os.sep}django_baikal{os.sep}" in variables["__file__"]:
            for name, value in variables.items():
                text = f"{value!r}{pformat(value)}"
                if any(secret in text for secret in secrets):
                    found.add((function, name))
    return found


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("fault", ["refused", "hangs"])
def test_an_error_report_shows_no_secret_in_our_frames(authserver, way, fault):
    client = clients["default"]
    client.grant_client("warm")
    secret = client.config.client_secret
    call = client.refresh if way == "sync" else async_to_sync(client.arefresh)
    if fault == "hangs":
        authserver.fail("token", hang=True)
    with pytest.raises(BaikalError) as caught:
        call("the-refresh-token", timeout=0.5)
    from django_baikal.protocol.client_auth import basic_credentials

    basic = basic_credentials(client.config.client_id, secret)
    assert leaks(caught.value, secret, basic) == set()


def test_an_error_report_about_a_wrong_setting_shows_no_secret(authserver):
    key = pem()
    entry = authserver.settings(TIMEOUT="x", CLIENT_KEYS=[{"key": key, "passphrase": "the-pass"}])
    with override_settings(BAIKAL={"default": entry}):
        with pytest.raises(ConfigurationError) as caught:
            clients["default"]
        middle = key.splitlines()[1]
        assert leaks(caught.value, entry["CLIENT_SECRET"], middle, "the-pass") == set()


def test_credentials_have_no_secret_in_their_repr():
    from django_baikal.protocol.client_auth import Credentials

    assert "s3cr3t" not in repr(Credentials({"Authorization": "Basic s3cr3t"}, [], ("s3cr3t",)))


def test_a_client_is_not_pickled_with_its_secret(authserver):
    client = OpenIDClient()
    for _ in range(2):
        with contextlib.suppress(TypeError, pickle.PicklingError):
            assert client.config.client_secret.encode() not in pickle.dumps(client)
        client.grant_client("a")


def test_a_client_can_be_copied_after_its_first_call(authserver):
    client = OpenIDClient()
    copy.deepcopy(client)
    client.grant_client("a")
    copy.deepcopy(client)


@pytest.mark.parametrize("way", ["sync", "async"])
def test_what_goes_to_loopback_in_clear_does_not_leave_through_a_proxy(
    authserver, monkeypatch, way
):
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with running(proxying()) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        client = OpenIDClient()
        call = client.grant_client if way == "sync" else async_to_sync(client.agrant_client)
        with contextlib.suppress(BaikalError):
            call("a")
        assert proxy.requests == []


# -- metadata ---------------------------------------------------------------------------------


def test_the_oauth_document_does_not_change_what_the_openid_document_left_at_its_default():
    # The same grant works before a revocation and fails after it.
    openid = {name: value for name, value in METADATA.items() if name != "revocation_endpoint"}
    oauth = {**METADATA, "token_endpoint_auth_methods_supported": ["private_key_jwt"]}
    world = World(
        {
            OPENID: answer(openid),
            OAUTH: answer(oauth),
            TOKEN: token(),
            f"{SERVER}/revoke": answer({}),
        }
    )
    assert world.run(flows.grant_client(config(), "a", None, None))
    world.run(flows.revoke(config(), "T0ken", None, None))
    assert world.run(flows.grant_client(config(), "a", None, None))


def test_an_endpoint_that_is_null_counts_as_one_that_is_not_named():
    world = World(
        {
            OPENID: answer({**METADATA, "revocation_endpoint": None}),
            OAUTH: answer(METADATA),
            f"{SERVER}/revoke": answer({}),
        }
    )
    world.run(flows.revoke(config(), "T0ken", None, None))


def test_a_renewal_that_fails_of_our_own_fault_is_not_started_anew_by_each_call():
    world = World({TOKEN: token()})
    world.run(flows.grant_client(config(), "a", None, None))
    world.pass_time(901)
    world.answers[OPENID] = ConfigurationError("the CA bundle is gone", code="invalid_ca_bundle")
    world.run(flows.grant_client(config(), "a", None, None))
    with contextlib.suppress(ConfigurationError):
        world.finish_asides()
    world.run(flows.grant_client(config(), "a", None, None))
    assert world.asides == []


# -- time and platforms -----------------------------------------------------------------------


def test_a_token_from_the_future_of_a_clock_that_was_set_back_is_not_used():
    made = iter(range(100))
    world = World({TOKEN: lambda _: token(access_token=f"T{next(made)}")})
    wish = wanted("a", None, None, {})
    assert world.run(get_token(config(), wish, None)) == "T0"
    world.wall -= 86400  # the clock is set right, and the cache keeps its own time
    world.wall += 4000
    world.monotonic += 4000
    assert world.run(get_token(config(), wish, None)) == "T1"


def test_a_platform_without_fork_can_import_it():
    code = (
        "import asyncio, os, random, threading, logging, concurrent.futures.thread, requests\n"
        "del os.register_at_fork\n"
        "import django_baikal.handler, django_baikal.keys"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-300:]


# -- arguments --------------------------------------------------------------------------------


def test_an_extra_parameter_that_is_a_dict_is_not_sent_as_its_keys():
    claims = {"userinfo": {"email": {"essential": True}}}
    try:
        made = authorization_parameters(
            config(), "a", None, "https://x.example/cb", {"claims": claims}
        )
    except ConfigurationError:
        return
    assert json.loads(dict(made)["claims"]) == claims


def test_wrong_headers_are_refused_whether_or_not_the_token_is_cached(authserver):
    client = clients["default"]
    client.get_token("a")
    with pytest.raises(ConfigurationError):
        client.get_token("a", headers={"Authorization": "Bearer x"})


def test_headers_that_differ_only_in_case_are_refused_before_anything_is_sent(authserver):
    with pytest.raises(ConfigurationError):
        clients["default"].grant_client("a", headers={"X-A": "1", "x-a": "2"})
    assert len(authserver.requests) == 0


# -- calls that share ---------------------------------------------------------------------------

tenant = contextvars.ContextVar("tenant", default="public")


def tenant_key(key: str, key_prefix: str, version: int) -> str:
    return f"{tenant.get()}:{key}"


def test_a_coroutine_that_ran_out_of_time_gives_the_lock_in_the_cache_back(authserver, monkeypatch):
    # It has only so long for it; and whoever waits for a lock does so for half of the timeout.
    monkeypatch.setattr(performers, "CLEANUP", PATIENCE)
    client = OpenIDClient(timeout=2 * PATIENCE)
    asyncio.run(client.agrant_client("warm"))
    with authserver.fail("token", hang=True) as hanging, contextlib.suppress(BaikalError):
        asyncio.run(client.aget_token("a", timeout=2))
    assert hanging.hits, "it had the lock"
    with not_held_up():
        assert isinstance(asyncio.run(client.aget_token("a")), str)


def test_a_cache_key_function_sees_the_context_of_the_coroutine(authserver):
    caches = {
        "default": {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            "KEY_FUNCTION": tenant_key,
        }
    }

    async def main():
        tenant.set("alpha")
        alpha = await clients["default"].aget_token("a")
        tenant.set("beta")
        return alpha, await clients["default"].aget_token("a")

    with override_settings(CACHES=caches):
        alpha, beta = asyncio.run(main())
    assert alpha != beta


def test_a_waiter_with_time_left_tries_for_itself(authserver):
    client = clients["default"]
    client.grant_client("warm")
    hanging = authserver.fail("token", hang=True)
    with ThreadPoolExecutor(2) as pool:
        hurried = pool.submit(client.get_token, "a", timeout=1)
        until(lambda: hanging.hits or hurried.done(), "the first one asks")
        patient = pool.submit(client.get_token, "a")
        assert isinstance(hurried.exception(), AuthserverUnavailable)
        hanging.lift()
    assert patient.exception() is None


def test_the_documented_cause_of_a_refused_id_token_stays():
    error = InvalidResponse("refused", code="id_token_refused")
    error.__cause__ = TokenError("why")
    assert isinstance(_bare(error).__cause__, TokenError)


def test_a_copy_of_a_client_is_the_client(authserver):
    client = clients["default"]
    assert copy.copy(client) is client
    assert copy.deepcopy(client) is client


def test_a_run_is_lost_with_its_loop_and_what_it_still_says_is_not_heard():
    flights = Flights()
    loops = [asyncio.new_event_loop() for _ in range(3)]
    first, runs = flights.join("name", loops[0])
    assert runs
    assert flights.join("name", loops[1]) == (first, False)
    loops[0].close()
    second, runs = flights.join("name", loops[1])
    assert runs
    assert isinstance(first.exception(), Abandoned)
    flights.land("name", first, "too late")
    assert flights.join("name", loops[2]) == (second, False)
    loops[1].close()
    third, _ = flights.join("name", loops[2])
    flights.fail("name", second, OSError())
    assert flights.join("name", loops[2]) == (third, False)
    flights.land("name", third, "in time")
    assert third.result() == "in time"
    loops[2].close()
