"""The correlator: what may be one, what carries it, and what it has no part in."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import io
import logging
import queue
import threading
import types
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from logging.handlers import QueueHandler, QueueListener
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st
from loopback import Server
from stage import both_ways, counted, pem, publishing
from world import config

from django_baikal import OpenIDClient, clients, correlation
from django_baikal.client import OpenIDClient as Client
from django_baikal.correlation import CorrelatorFilter, bound, current
from django_baikal.exceptions import InactiveToken, OAuthError
from django_baikal.performers import Performer, Runtime
from django_baikal.protocol.effects import Sign
from django_baikal.testing import FakeAuthserver
from django_baikal.transports.threaded import ThreadedTransport

ALLOWED = "ABCXYZabcxyz0123456789-_:;./<>{}"


@pytest.fixture
def authserver() -> Iterator[tuple[FakeAuthserver, Server]]:
    with (
        publishing(lambda: str(OpenIDClient().get_jwk_set())) as issuer,
        counted() as (fake, server),
        override_settings(
            BAIKAL={"default": fake.settings(ISSUER=issuer, CLIENT_KEYS=[{"key": pem()}])},
            CACHES={
                "default": {
                    "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
                    "LOCATION": str(uuid.uuid4()),
                }
            },
        ),
    ):
        yield fake, server


def correlators(server: Server) -> list[str | None]:
    """Give the header of each request that has arrived, in their order."""
    found = []
    for raw in server.requests:
        head = raw.partition(b"\r\n\r\n")[0].decode()
        named = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
        found.append(named.get("X-Correlator"))
    return found


def is_new(correlator: str | None) -> bool:
    return correlator is not None and str(uuid.UUID(correlator)) == correlator


# -- what may be one --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "good",
    ["a", ALLOWED, "b4333c46-49c0-4f62-80d7-f0ef930f1c46", "{trace}/<1>;2:3.4_5", "x" * 256],
)
def test_what_camara_allows_is_taken_as_it_is(good: str) -> None:
    with bound(good) as correlator:
        assert correlator == current() == good


@pytest.mark.parametrize(
    "bad",
    [
        None,
        "",
        "x" * 257,
        "x" * (1 << 20),
        "a b",
        "a\n",
        "a\r\nSet-Cookie: b=c",
        "a\r\n\r\n<html>",
        "\na",
        "a\x00",
        "a\x1b[31m",
        "a\u2028b",
        "ä",
        "\u0661",  # a digit, and not one of ASCII
        "a,b",
        'a"',
        "a%0d%0a",
        "a=b",
        "${jndi:ldap://x}",
        "a(b)",
        b"abc",
        123,
        ["a"],
    ],
)
def test_whatever_else_is_replaced_by_a_new_one(bad: Any) -> None:
    with bound(bad) as first, bound(bad) as second:
        assert is_new(first)
        assert is_new(second)
        assert first != second


@given(st.text(max_size=300))
def test_nothing_but_camaras_format_is_ever_bound(words: str) -> None:
    with bound(words) as correlator:
        assert 0 < len(correlator) <= 256
        assert correlator.isascii()
        assert all(character.isalnum() or character in "-_:;./<>{}" for character in correlator)


# -- where it is bound ------------------------------------------------------------------------


def test_it_is_bound_inside_and_not_outside_also_after_an_error() -> None:
    assert current() is None
    with bound("outer"):
        with pytest.raises(ZeroDivisionError), bound("inner"):
            assert current() == "inner"
            raise ZeroDivisionError
        assert current() == "outer"
    assert current() is None


def test_each_thread_and_each_task_has_its_own() -> None:
    barrier = threading.Barrier(8)

    def work(number: int) -> bool:
        with bound(f"thread-{number}"):
            barrier.wait(30)
            return current() == f"thread-{number}"

    async def awork(number: int) -> bool:
        with bound(f"task-{number}"):
            await asyncio.sleep(0.01)
            return current() == f"task-{number}"

    async def tasks() -> list[bool]:
        return await asyncio.gather(*(awork(number) for number in range(20)))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
        assert [each.result() for each in [pool.submit(current) for _ in range(8)]] == [None] * 8
    assert all(asyncio.run(tasks()))
    assert current() is None


def test_a_coroutine_that_is_dropped_in_somebody_elses_context_changes_nothing_there() -> None:
    """As when an event loop ends, and the garbage collection closes what was waiting in it."""

    @types.coroutine
    def forever() -> Iterator[None]:
        yield

    async def wait() -> None:
        with bound("dropped"):
            await forever()

    waiting, context = wait(), contextvars.copy_context()
    context.run(waiting.send, None)
    with bound("other"):
        waiting.close()
        assert current() == "other"


# -- log lines --------------------------------------------------------------------------------


def record(**extra: Any) -> logging.LogRecord:
    made = logging.makeLogRecord({"msg": "words", **extra})
    assert CorrelatorFilter().filter(made) is True
    return made


def test_the_filter_adds_the_correlator_or_a_dash() -> None:
    with bound("c-1"):
        assert vars(record())["correlator"] == "c-1"
    assert vars(record())["correlator"] == "-"


def test_a_record_about_a_request_has_the_requests_own() -> None:
    about = SimpleNamespace(correlator="c-2")
    assert vars(record(request=about))["correlator"] == "c-2"
    assert vars(record(request=object()))["correlator"] == "-"
    with bound("c-1"):
        assert vars(record(request=about))["correlator"] == "c-1"


def test_a_record_that_goes_through_a_queue_keeps_the_one_that_it_had() -> None:
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    written = io.StringIO()
    first, last = QueueHandler(waiting), logging.StreamHandler(written)
    last.setFormatter(logging.Formatter("%(correlator)s %(message)s"))
    for handler in (first, last):
        handler.addFilter(CorrelatorFilter())
    listener = QueueListener(waiting, last)
    listener.start()
    with bound("c-1"):
        first.handle(logging.makeLogRecord({"msg": "words"}))
    listener.stop()
    assert written.getvalue() == "c-1 words\n"


# -- requests to the authserver ---------------------------------------------------------------


CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("grant_client", ("read",), {}),
    ("grant_user", ("anna", "read", None), {}),
    ("get_token", ("read",), {}),
    ("get_token", ("read",), {"sub": "anna"}),
    ("refresh", ("refresh-token",), {}),
    ("revoke", ("T0ken",), {}),
    ("introspect", ("T0ken",), {}),
    ("authenticate", ("T0ken",), {}),
    ("authorize", ("openid", None, "https://me.example/callback"), {}),
]


@both_ways
@pytest.mark.parametrize(("name", "args", "kwargs"), CALLS)
def test_every_request_carries_the_correlator_that_is_bound(
    authserver: Any, call: Any, name: str, args: Any, kwargs: Any
) -> None:
    _, server = authserver
    with bound("c-1"):
        attempt(call, name, args, kwargs)
    assert len(server.requests) >= 1
    assert set(correlators(server)) == {"c-1"}
    del server.requests[:]
    attempt(call, name, args, kwargs)  # metadata and some answers are known now
    attempt(call, "grant_client", ("other",), {})
    assert len(server.requests) >= 1
    assert set(correlators(server)) == {None}


def attempt(call: Any, name: str, args: Any, kwargs: Any) -> None:
    """Call it; that the authserver does not know the token is no matter."""
    with contextlib.suppress(OAuthError, InactiveToken):
        call(clients["default"], name, *args, **kwargs)


@both_ways
@pytest.mark.parametrize("header", ["X-Correlator", "x-correlator", "X-CORRELATOR"])
def test_a_header_that_the_caller_gives_stays_alone(
    authserver: Any, call: Any, header: str
) -> None:
    _, server = authserver
    with bound("c-1"):
        call(clients["default"], "grant_client", "read", headers={header: "mine"})
    *discovery, token = server.requests
    assert correlators(server)[: len(discovery)] == ["c-1"] * len(discovery)
    assert token.lower().count(b"\r\nx-correlator: ") == 1
    assert f"\r\n{header}: mine\r\n".encode() in token


def test_all_transports_send_the_same_bytes_and_without_one_what_they_did(
    authserver: Any,
) -> None:
    _, server = authserver
    client = clients["default"]
    process = client._runtime.process
    client.introspect("T0ken")  # metadata is known from here on
    threaded = OpenIDClient()
    threaded._runtime.process._made["async"] = ThreadedTransport(
        threaded._runtime.process.transport
    )
    threaded.introspect("T0ken")
    assert process.async_transport is not threaded._runtime.process.async_transport
    del server.requests[:]

    def all_three() -> list[bytes]:
        client.introspect("T0ken")
        asyncio.run(client.aintrospect("T0ken"))
        asyncio.run(threaded.aintrospect("T0ken"))
        sent = server.requests[:]
        del server.requests[:]
        return sent

    without = all_three()
    with bound("c-1"):
        carrying = all_three()
    assert len(set(without)) == len(set(carrying)) == 1
    assert len(carrying) == 3
    assert carrying[0].replace(b"X-Correlator: c-1\r\n", b"") == without[0]


@both_ways
def test_one_call_carries_its_own_also_when_many_are_under_way(authserver: Any, call: Any) -> None:
    fake, server = authserver
    clients["default"].grant_client("read")
    del server.requests[:]
    fake.fail("token", delay=0.2)

    def one(number: int) -> None:
        with bound(f"c-{number}"):
            call(clients["default"], "grant_client", f"scope-{number}")

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(one, range(10)))
    sent = dict(zip(correlators(server), server.requests, strict=True))
    assert set(sent) == {f"c-{number}" for number in range(10)}
    for correlator, raw in sent.items():
        assert correlator is not None
        assert f"scope={correlator.replace('c', 'scope')}".encode() in raw


def test_tasks_of_one_event_loop_carry_each_its_own(authserver: Any) -> None:
    _, server = authserver

    async def one(number: int) -> None:
        with bound(f"c-{number}"):
            await clients["default"].agrant_client(f"scope-{number}")

    async def main() -> None:
        await clients["default"].agrant_client("read")
        del server.requests[:]
        await asyncio.gather(*(one(number) for number in range(10)))

    asyncio.run(main())
    for correlator, raw in zip(correlators(server), server.requests, strict=True):
        assert correlator is not None
        assert f"scope={correlator.replace('c', 'scope')}".encode() in raw


@both_ways
def test_the_correlator_tells_no_token_and_no_answer_apart(authserver: Any, call: Any) -> None:
    """Neither a name in the cache nor the name of a flight has it: each would be asked for anew."""
    fake, _ = authserver
    token = fake.issue_token(sub="anna")
    seen = set()
    for number in range(3):
        with bound(f"c-{number}"):
            seen.add(call(clients["default"], "get_token", "read"))
            call(clients["default"], "authenticate", token)
    assert len(seen) == 1
    assert fake.requests.count("token") == 1
    assert fake.requests.count("introspection") == 1


def test_whoever_runs_for_all_sends_its_own(authserver: Any) -> None:
    fake, server = authserver
    clients["default"].grant_client("other")
    del server.requests[:]
    fake.fail("token", delay=0.5)
    barrier = threading.Barrier(8)

    def one(number: int) -> Any:
        with bound(f"c-{number}"):
            barrier.wait(30)
            return clients["default"].get_token("read")

    with ThreadPoolExecutor(8) as pool:
        tokens = set(pool.map(one, range(8)))
    assert len(tokens) == 1
    (sent,) = correlators(server)
    assert sent in {f"c-{number}" for number in range(8)}


@both_ways
def test_no_assertion_has_it(authserver: Any, call: Any) -> None:
    fake, server = authserver
    with bound("c-1"):
        call(clients["default"], "grant_user", "anna", "read", None)
    raw = server.requests[-1]
    body = raw.partition(b"\r\n\r\n")[2]
    assert b"assertion=" in body
    assert b"c-1" not in body
    claims = fake.requests[-1].form["assertion"]
    assert "c-1" not in str(jwt.decode(claims, options={"verify_signature": False}))


@both_ways
@pytest.mark.parametrize("correlator", ["c-1", None])
def test_a_renewal_aside_carries_and_logs_that_of_whoever_began_it(
    authserver: Any, call: Any, correlator: str | None, caplog: Any
) -> None:
    fake, server = authserver
    # Longer kept than fresh: the next call after that renews it aside.
    client: Client = OpenIDClient(metadata_ttl=0.01)
    client.introspect("T0ken")
    del server.requests[:]
    caplog.handler.addFilter(CorrelatorFilter())
    for _ in range(100):
        if fake.requests.count("discovery") > 1:
            break
        fake.fail("discovery", status=500, times=1)
        if correlator is None:
            call(client, "introspect", "T0ken")
        else:
            with bound(correlator):
                call(client, "introspect", "T0ken")
        for thread in threading.enumerate():
            if thread.name == "django-baikal":
                thread.join(30)
    assert fake.requests.count("discovery") > 1
    assert set(correlators(server)) == {correlator}
    said = [each for each in caplog.records if "metadata" in each.getMessage()]
    assert said
    assert {vars(each)["correlator"] for each in said} == {correlator or "-"}


def test_a_performers_threads_log_with_it_in_async_code() -> None:
    """The cache and the keys are asked for in threads there."""
    seen: list[str | None] = []

    class Keyring:
        def signing_key(self) -> Any:
            seen.append(current())
            return SimpleNamespace(sign=lambda claims: "signed")

    runtime = Runtime(config())
    runtime._keyring = Keyring()  # type: ignore[assignment]

    async def main() -> str:
        with bound("c-1"):
            signed: str = await Performer(runtime, 30).aperform(Sign({}))
            return signed

    assert asyncio.run(main()) == "signed"
    assert seen == ["c-1"]
    runtime.process.executor.shutdown()


def test_adopting_lasts_until_the_thread_ends() -> None:
    seen: list[str | None] = []

    def work() -> None:
        correlation.adopt("c-1")
        seen.append(current())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert (seen, current()) == (["c-1"], None)
