"""Cached tokens: the policy fed by hand, then the client against an authserver on loopback."""

from __future__ import annotations

import asyncio
import contextvars
import json
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.locmem import LocMemCache
from django.test import override_settings
from timing import PATIENCE, until
from world import SERVER, World, answer, config, token

from django_baikal import OpenIDClient, clients
from django_baikal.exceptions import AuthserverUnavailable, ConfigurationError, OAuthError
from django_baikal.performers import COPIES
from django_baikal.protocol.token_cache import forget_token, get_token, wanted
from django_baikal.testing import FakeAuthserver

TOKEN = f"{SERVER}/token"
DOWN = AuthserverUnavailable("down", code="connection_failed")


def numbered(expires_in: Any = 3600) -> Callable[[Any], Any]:
    count = iter(range(1, 1000))
    return lambda _: token(access_token=f"T{next(count)}", expires_in=expires_in)


def want(scopes: Any = "a", purposes: Any = None, sub: str | None = None, **extra: Any) -> Any:
    return wanted(scopes, purposes, sub, extra)


def get(world: World, wish: Any = None, **changes: Any) -> str:
    return str(world.run(get_token(config(**changes), wish or want(), None)))


def test_a_token_is_made_once_and_renewed_a_minute_before_it_expires():
    world = World({TOKEN: numbered()})
    assert get(world) == "T1"
    world.pass_time(3539)
    assert get(world) == "T1"
    world.pass_time(1)
    assert get(world) == "T2"
    assert get(world) == "T2"
    assert world.calls(TOKEN) == 2


def test_the_leeway_is_a_setting():
    world = World({TOKEN: numbered()})
    get(world, token_leeway=600)
    world.pass_time(2999)
    assert get(world, token_leeway=600) == "T1"
    world.pass_time(1)
    assert get(world, token_leeway=600) == "T2"


def test_a_token_that_lives_shortly_is_kept_for_half_of_its_life():
    world = World({TOKEN: numbered(60)})
    get(world)
    world.pass_time(29)
    assert get(world) == "T1"
    world.pass_time(1)
    assert get(world) == "T2"


@pytest.mark.parametrize("expires_in", [None, 0])
def test_a_token_of_unknown_life_is_not_kept(expires_in):
    world = World({TOKEN: numbered(expires_in)})
    assert [get(world), get(world)] == ["T1", "T2"]
    assert world.cache == {}


def test_no_token_is_kept_longer_than_a_day():
    world = World({TOKEN: numbered(10**9)})
    get(world)
    world.pass_time(86400)
    assert get(world) == "T2"


def test_the_old_token_is_used_to_its_end_while_the_authserver_fails(caplog):
    world = World({TOKEN: numbered()})
    get(world)
    world.answers[TOKEN] = DOWN
    world.pass_time(3541)
    assert get(world) == "T1"
    assert "the old one stays in use" in caplog.text
    assert get(world) == "T1"
    assert world.calls(TOKEN) == 2, "the next caller does not try again at once"
    world.pass_time(16)
    assert get(world) == "T1"
    assert world.calls(TOKEN) == 3
    world.pass_time(43)
    with pytest.raises(AuthserverUnavailable):
        get(world)


def test_a_renewal_that_is_refused_is_not_hidden():
    world = World({TOKEN: numbered()})
    get(world)
    world.answers[TOKEN] = answer({"error": "invalid_client"}, 401)
    world.pass_time(3541)
    with pytest.raises(OAuthError):
        get(world)


def test_while_one_renews_the_others_keep_the_old_token():
    world = World({TOKEN: numbered()})
    get(world)
    world.pass_time(3541)
    first = get_token(config(), want(), None)
    effect = next(first)
    while type(effect).__name__ != "Fetch":
        effect = first.send(world.perform(effect))
    assert get(world) == "T1"
    assert world.calls(TOKEN) == 1


def test_a_process_waits_for_the_token_that_another_one_makes():
    world = World({TOKEN: numbered()})
    name = want().cache_name(config())
    world.cache[json.dumps(("lock", *name))] = "somebody", world.wall + 15
    flow = get_token(config(), want(), None)
    effect = next(flow)
    while type(effect).__name__ != "Share":
        effect = flow.send(world.perform(effect))
    work = effect.work()
    effect = next(work)
    while type(effect).__name__ != "Sleep":
        effect = work.send(world.perform(effect))
    entry = {
        "token": "theirs",
        "made_at": world.wall,
        "expires_at": world.wall + 99,
        "renew_at": world.wall + 50,
    }
    world.cache[json.dumps(name)] = entry, world.wall + 99
    with pytest.raises(StopIteration) as stop:
        while True:
            effect = work.send(world.perform(effect))
    assert stop.value.value == "theirs"
    assert world.calls(TOKEN) == 0
    assert json.dumps(("lock", *name)) in world.cache, "the lock stays with who took it"


def test_a_process_that_died_with_the_lock_is_not_waited_for_for_ever():
    world = World({TOKEN: numbered()})
    lock = json.dumps(("lock", *want().cache_name(config())))
    world.cache[lock] = "the dead", world.wall + 15
    start = world.wall
    assert get(world) == "T1"
    assert world.wall - start == pytest.approx(7.5, abs=0.2)
    assert world.cache[lock][0] == "the dead", "a lock of somebody else is left alone"


def test_a_lock_that_somebody_else_took_meanwhile_is_left_alone():
    world = World()
    lock = json.dumps(("lock", *want().cache_name(config())))

    def slow(_: Any) -> Any:
        world.cache[lock] = "the next", world.wall + 15
        return token()

    world.answers[TOKEN] = slow
    get(world)
    assert world.cache[lock][0] == "the next"


def test_a_failure_and_an_interruption_give_the_lock_back():
    for error in (DOWN, KeyboardInterrupt()):
        world = World({TOKEN: error})
        with pytest.raises(type(error)):
            get(world)
        assert world.cache == {}


def test_who_takes_the_lock_right_after_the_token_was_made_uses_it():
    world = World({TOKEN: numbered()})
    name = want().cache_name(config())
    entry = {
        "token": "theirs",
        "made_at": world.wall,
        "expires_at": world.wall + 99,
        "renew_at": world.wall + 50,
    }
    flow = get_token(config(), want(), None)
    effect = next(flow)
    while type(effect).__name__ != "Share":
        effect = flow.send(world.perform(effect))
    world.cache[json.dumps(name)] = entry, world.wall + 99
    assert world.run(effect.work()) == "theirs"
    assert list(world.cache) == [json.dumps(name)]


DIFFERENT = [
    want(),
    want("b"),
    want("a b"),
    want(None),
    want("a", "p"),
    want(None, "a"),
    want(sub="u"),
    want(sub="u2"),
    want(sub="u", purposes="p"),
    want(sub="u", authorization_id="1"),
    want(sub="u", identifier={"id": "1"}),
    want(sub="u", identifier={"id": "2"}),
    want(sub="u", identifier="1"),
    want(sub="u", acr="1"),
    want(sub="u", acr="2"),
]


def test_everything_that_makes_a_token_what_it_is_is_in_its_cache_key():
    configs = [
        config(),
        config(alias="eu"),
        config(client_id="c2"),
        config(authserver_endpoint="https://other.example"),
        config(authserver_issuer="https://other.example"),
        config(issuer="https://we.example"),
    ]
    names = {json.dumps(wish.cache_name(one)) for wish in DIFFERENT for one in configs}
    assert len(names) == len(DIFFERENT) * len(configs)


def test_the_order_of_scopes_is_not_in_the_cache_key():
    assert want("b a", ["q", "p"]).cache_name(config()) == want("a b", "p q").cache_name(config())


def test_forget_token_drops_exactly_one():
    world = World({TOKEN: numbered()})
    made = {wish.scopes: get(world, wish) for wish in DIFFERENT[:4]}
    world.run(forget_token(config(), DIFFERENT[1]))
    again = {wish.scopes: get(world, wish) for wish in DIFFERENT[:4]}
    assert {scopes for scopes in made if made[scopes] != again[scopes]} == {("b",)}


def test_what_only_a_users_token_has_needs_a_user():
    with pytest.raises(ConfigurationError, match="acr: only a user's token"):
        want(acr="2")


def test_an_argument_that_is_not_json_is_the_callers_error():
    with pytest.raises(ConfigurationError, match="JSON"):
        get(World(), want(sub="u", identifier={1, 2}))


# -- with an authserver on loopback ---------------------------------------------------------------


@pytest.fixture
def authserver(settings_of_a_test: Any) -> Iterator[FakeAuthserver]:
    with FakeAuthserver().serve() as server:
        settings_of_a_test.BAIKAL = {"default": server.settings()}
        yield server


@pytest.fixture
def settings_of_a_test() -> Iterator[Any]:
    from django.conf import settings

    with override_settings(BAIKAL={}):
        caches["default"].clear()
        yield settings
        caches["default"].clear()


@pytest.mark.slow
def test_fifty_threads_that_start_cold_make_one_discovery_and_one_token_request(authserver, scale):
    for _ in range(scale(2, 100)):
        barrier = threading.Barrier(50)
        client = OpenIDClient()

        def call(_: int, client: Any = client, barrier: Any = barrier) -> str:
            barrier.wait()
            return str(client.get_token("a"))

        with ThreadPoolExecutor(50) as pool:
            assert len(set(pool.map(call, range(50)))) == 1
        assert [request.endpoint for request in authserver.requests] == ["discovery", "token"]
        client.forget_token("a")
        authserver.requests.clear()


@pytest.mark.slow
def test_fifty_tasks_that_start_cold_make_one_discovery_and_one_token_request(authserver, scale):
    async def main(client: OpenIDClient) -> set[str]:
        return set(await asyncio.gather(*(client.aget_token("a") for _ in range(50))))

    for _ in range(scale(2, 100)):
        client = OpenIDClient()
        assert len(asyncio.run(main(client))) == 1
        assert [request.endpoint for request in authserver.requests] == ["discovery", "token"]
        client.forget_token("a")
        authserver.requests.clear()


def test_sync_and_async_share_the_cached_token(authserver):
    first = clients["default"].get_token("a")
    assert asyncio.run(clients["default"].aget_token("a")) == first
    clients["default"].forget_token("a")
    second = asyncio.run(clients["default"].aget_token("a"))
    assert second != first
    asyncio.run(clients["default"].aforget_token("a"))
    assert clients["default"].get_token("a") != second
    assert authserver.requests.count("token") == 3


def test_a_failure_reaches_every_waiter_as_its_own_error(authserver):
    fault = authserver.fail("token", status=400, hang=True, body={"error": "invalid_scope"})
    client = clients["default"]

    def together() -> bool:
        process = client._runtime.process
        runs = [*process.flights._futures.values(), *process.async_flights._futures.values()]
        waiting = sum(len(run._condition._waiters) + len(run._done_callbacks) for run in runs)
        return bool(fault.hits) and fault.hits + waiting == 20

    with ThreadPoolExecutor(20) as pool:
        calls = [pool.submit(client.get_token, "a") for _ in range(20)]
        until(together, "one asks and 19 wait")
        fault.lift()
        errors = [call.exception() for call in calls]
    assert all(isinstance(error, OAuthError) for error in errors)
    assert {str(error) for error in errors} == {str(errors[0])}
    assert len({id(error) for error in errors}) == 20
    assert authserver.requests.count("token") == 1

    fault = authserver.fail("token", status=400, hang=True, body={"error": "invalid_scope"})

    async def main() -> list[Any]:
        calls = [asyncio.ensure_future(client.aget_token("a")) for _ in range(20)]
        await asyncio.to_thread(until, together, "one asks and 19 wait")
        fault.lift()
        return await asyncio.gather(*calls, return_exceptions=True)

    errors = asyncio.run(main())
    assert len({id(error) for error in errors if isinstance(error, OAuthError)}) == 20
    assert authserver.requests.count("token") == 2


def test_a_token_in_the_cache_is_sealed_and_its_key_says_nothing(authserver):
    made = clients["default"].get_token("secret-scope", sub=None)
    store = caches["default"]
    assert hasattr(store, "_cache"), "this test looks into local memory"
    contents = repr(store._cache)
    assert made not in contents
    assert "secret-scope" not in contents
    assert "test-client" not in contents


def test_a_cache_that_was_tampered_with_or_filled_by_others_is_as_good_as_empty(authserver):
    made = clients["default"].get_token("a")
    clients["default"].get_token("b")
    store = caches["default"]
    keys = [key.split(":", 2)[2] for key in store._cache]
    values = [store.get(key) for key in keys]
    store.set(keys[0], values[1])
    store.set(keys[1], b"\x01" + values[0][1:-1] + b"x")
    assert clients["default"].get_token("a") != made
    assert authserver.requests.count("token") == 3
    for junk in ("text", b"", {"token": "evil"}, None):
        for key in keys:
            store.set(key, junk)
        assert clients["default"].get_token("a") != "evil"


class BrokenCache(BaseCache):
    """A cache whose server is gone."""

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)

    def get(self, *args: Any, **kwargs: Any) -> Any:
        raise ConnectionError("cache is gone")

    add = set = delete = get


def test_without_its_cache_a_token_is_made_each_time(authserver, caplog):
    with override_settings(CACHES={"default": {"BACKEND": f"{__name__}.BrokenCache"}}):
        assert clients["default"].get_token("a")
        assert asyncio.run(clients["default"].aget_token("a"))
    assert authserver.requests.count("token") == 2
    assert "ConnectionError" in caplog.text
    assert "cache is gone" not in caplog.text, "another library's words may hold a password"


class Copies(LocMemCache):
    """Local memory of which the copies are counted; each is for one caller at a time."""

    made: ClassVar[list[Copies]] = []
    shared: ClassVar[list[Copies]] = []

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.made.append(self)
        self.in_use = threading.Lock()
        self.used = 0

    def get(self, *args: Any, **kwargs: Any) -> Any:
        self.used += 1
        if not self.in_use.acquire(blocking=False):
            self.shared.append(self)
            self.in_use.acquire()
        try:
            time.sleep(0.001)  # so that others want one meanwhile
            return super().get(*args, **kwargs)
        finally:
            self.in_use.release()


@pytest.mark.parametrize("how", ["threads", "tasks", "requests"])
def test_no_more_copies_of_the_cache_are_made_than_are_used_at_once(how, authserver):
    """In async code Django makes one for each request, which for Redis is a new connection."""
    with override_settings(CACHES={"default": {"BACKEND": f"{__name__}.Copies"}}):
        own, client = caches["default"], OpenIDClient(process_ttl=0)
        Copies.made.clear()
        Copies.shared.clear()
        client.get_token("a")

        async def tasks() -> None:
            for _ in range(10):
                await asyncio.gather(*(client.aget_token("a") for _ in range(4)))

        def in_threads() -> None:
            for _ in range(10):
                with ThreadPoolExecutor(4) as pool:
                    list(pool.map(client.get_token, "aaaa"))

        if how == "threads":
            in_threads()
        elif how == "tasks":
            asyncio.run(tasks())
        else:
            for _ in range(40):
                contextvars.Context().run(client.get_token, "a")
        assert Copies.shared == []
        assert 1 <= len(Copies.made) <= (1 if how == "requests" else 4)
        assert own.used == 0, "the project's own may be in use by another thread"  # type: ignore[attr-defined]
        before = len(Copies.made)
        with override_settings(CACHES={"default": {"BACKEND": f"{__name__}.BrokenCache"}}):
            client.get_token("a")
        client.get_token("a")
        assert len(Copies.made) == before + 1, "one of other settings is not used any more"


def test_no_more_copies_of_the_cache_are_kept_than_a_busy_process_needs(authserver):
    copies = OpenIDClient()._runtime.process.caches
    taken = [copies.take() for _ in range(COPIES + 1)]
    for each in taken:
        copies.give_back(each)
    assert [copies.take() for _ in range(COPIES)] == taken[COPIES - 1 :: -1]
    assert copies.take() not in taken


def test_a_cache_alias_that_does_not_exist_names_the_setting(settings_of_a_test):
    settings_of_a_test.BAIKAL = {"default": {**FakeAuthserver().settings(), "CACHE": "nope"}}
    with pytest.raises(ConfigurationError, match="nope"):
        clients["default"].get_token("a")


def test_a_client_without_settings_says_what_a_cached_token_needs(authserver):
    script = textwrap.dedent(
        f"""
        import os
        os.environ.pop("DJANGO_SETTINGS_MODULE", None)
        from django_baikal import ConfigurationError, OpenIDClient
        client = OpenIDClient({authserver.endpoint!r}, "test-client", "test-secret")
        assert client.grant_client("a")
        try:
            client.get_token("a")
        except ConfigurationError as error:
            print(error)
        """
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    )
    assert "cached tokens need Django's cache" in done.stdout


def _in_another_process(entry: dict[str, Any], gate: Any, found: Any) -> None:
    import django

    django.setup()
    with override_settings(BAIKAL={"default": entry}):
        gate.wait()
        found.put(clients["default"].get_token("a"))


def test_four_processes_that_share_a_database_cache_make_one_token_request(
    authserver, tmp_path, monkeypatch
):
    url = f"sqlite:///{tmp_path}/db.sqlite3?transaction_mode=IMMEDIATE&timeout=60"
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("CACHE_URL", "dbcache://cache_table")
    create = [sys.executable, "-m", "django", "createcachetable"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(create, check=True, capture_output=True, env=environment)
    _four_processes(authserver)


@pytest.mark.slow
def test_four_processes_that_share_redis_make_one_token_request(authserver, monkeypatch, scale):
    redis = pytest.importorskip("redis", reason="the redis library is not installed")
    location = "redis://127.0.0.1:6379/9"
    server = redis.Redis.from_url(location)
    try:
        server.ping()
    except redis.exceptions.ConnectionError:
        server.close()
        pytest.skip("no Redis at 127.0.0.1:6379")
    for _ in range(scale(1, 20)):
        # Others may be at it at the same time.
        prefix = f"test-{uuid.uuid4().hex}"
        monkeypatch.setenv("CACHE_URL", f"{location}?key_prefix={prefix}")
        try:
            _four_processes(authserver)
        finally:
            if keys := server.keys(f"{prefix}*"):
                server.delete(*keys)
        authserver.requests.clear()
    server.close()


def _four_processes(authserver: FakeAuthserver) -> None:
    authserver.fail("token", delay=0.3)
    context = multiprocessing.get_context("spawn")
    gate, found = context.Barrier(4), context.Queue()
    # Whoever holds the lock is waited for during half of the timeout.
    arguments = (authserver.settings(TIMEOUT=4 * PATIENCE), gate, found)
    processes = [context.Process(target=_in_another_process, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    made = {found.get(timeout=4 * PATIENCE) for _ in processes}
    for process in processes:
        process.join(60)
        process.close()
    found.close()
    found.join_thread()
    assert len(made) == 1
    assert authserver.requests.count("token") == 1
