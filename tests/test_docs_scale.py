"""The page on many machines is true: its settings work on real caches, its costs are counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, ClassVar

import pytest
import test_docs
from django.contrib.auth import get_user_model
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django.db import router
from django.test import override_settings
from django.utils.connection import ConnectionDoesNotExist
from operations_stage import Server, redis_server
from test_docs import DOCS, Page, blocks, prose, table

from django_baikal import OpenIDClient, clients
from django_baikal.exceptions import InactiveToken
from django_baikal.keys import keepers
from django_baikal.keys.rotation import Timing
from django_baikal.models import SigningKey
from django_baikal.performers import THREADS
from django_baikal.protocol.config import ClientConfig
from django_baikal.testing import FakeAuthserver
from django_baikal.transports.requests import _POOL_SIZE

PAGE = DOCS / "howto" / "grow-past-one-machine.md"

page_runner = test_docs.page_runner


def test_the_defaults_that_are_named_are_those_of_the_code() -> None:
    defaults = {
        name.upper(): value
        for each in (ClientConfig(), Timing())
        for name, value in ((name, getattr(each, name)) for name in each.__dataclass_fields__)
    }
    named = re.findall(r"`([A-Z_]+)` \((\d+)(?: s)?\)", prose(PAGE))
    assert {"INTROSPECTION_TTL", "PROCESS_CACHE_TTL", "JWKS_STALE"} <= {name for name, _ in named}
    assert [each for each in named if float(each[1]) != defaults[each[0]]] == []


def test_the_numbers_of_connections_are_those_of_the_code() -> None:
    text = prose(PAGE)
    assert f"in async code {THREADS} and\n" in text
    assert f"up to {_POOL_SIZE} of those" in text


# -- the cache -------------------------------------------------------------------------------------


@pytest.fixture
def redis(page_runner: Page) -> Iterator[dict[str, Server]]:
    """Run a Redis for each host that the page names, and its settings with these."""
    with ExitStack() as stack:
        servers = {}
        for host in ("cache.example.com", "replica.example.com"):
            servers[host] = redis_server()
            servers[host].start()
            stack.callback(servers[host].stop)
        yield servers
        for cache in caches.all(initialized_only=True):
            cache.close()


def settings_of(page: Page, servers: dict[str, Server], number: int) -> None:
    """Make the first settings of the page those of the project, with servers that are there."""
    for block in blocks(PAGE)[:number]:
        for host, server in servers.items():
            block.text = block.text.replace(f"{host}:6379", f"127.0.0.1:{server.port}")
        page.run(block)


def asked(page: Page) -> int:
    return page.servers["https://auth.example.com"].requests.count("introspection")


def reads(server: Server) -> int:
    """Count what was read from a Redis."""
    import redis

    with redis.Redis(port=int(server.port)) as connection:
        found: dict[str, Any] = connection.info("commandstats")
    return int(found.get("cmdstat_get", {"calls": 0})["calls"])


@pytest.mark.programs
def test_the_cache_that_is_shown_is_shared(page_runner: Page, redis: dict[str, Server]) -> None:
    settings_of(page_runner, redis, 1)
    token = page_runner.servers["https://auth.example.com"].issue_token(sub="anna")
    assert {OpenIDClient().authenticate(token).subject for _ in range(3)} == {"anna"}
    assert asked(page_runner) == 1
    assert reads(redis["cache.example.com"]) >= 3
    redis["cache.example.com"].stop()
    assert OpenIDClient().authenticate(token).subject == "anna"
    assert asked(page_runner) == 2


@pytest.mark.programs
def test_of_a_cache_with_replicas_only_the_first_is_asked(
    page_runner: Page, redis: dict[str, Server]
) -> None:
    """The replica here is as far behind as one can be: it gets nothing at all."""
    settings_of(page_runner, redis, 2)
    caches["default"].set("a", "b")
    assert caches["default"].get("a") is None
    before = reads(redis["replica.example.com"])
    token = page_runner.servers["https://auth.example.com"].issue_token(sub="anna")
    for _ in range(3):
        OpenIDClient().authenticate(token)
    assert asked(page_runner) == 1
    assert reads(redis["replica.example.com"]) == before
    for _ in range(3):
        OpenIDClient(cache="default").authenticate(token)
    assert asked(page_runner) == 4
    assert reads(redis["replica.example.com"]) > before


# -- the database ----------------------------------------------------------------------------------


class ReadsElsewhere:
    """A router that reads everything from a database that is not there."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "replica"


@pytest.mark.django_db
def test_processes_read_keys_where_reads_go_and_commands_where_writes_go(
    page_runner: Page,
) -> None:
    page_runner.run(next(block for block in blocks(PAGE) if "REPLICA_LAG" in block.text))
    with override_settings(DATABASE_ROUTERS=[f"{__name__}.ReadsElsewhere"]):
        keepers()["default"].rotate()
        assert keepers()["default"].read().rows
        with pytest.raises(ConnectionDoesNotExist):
            clients["default"].get_jwk_set()


def test_the_router_that_is_shown_reads_keys_where_they_are_written(page_runner: Page) -> None:
    for block in blocks(PAGE):
        page_runner.run(block)
    assert router.db_for_read(SigningKey) == router.db_for_write(SigningKey) == "default"
    assert router.db_for_read(get_user_model()) == "replica"


# -- what it costs ---------------------------------------------------------------------------------


class Counting(LocMemCache):
    """Local memory that counts what it is asked to do; what it does for that does not count."""

    operations: ClassVar[Counter[str]] = Counter()
    _busy = False

    def _counted(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if self._busy:
            return getattr(super(), name)(*args, **kwargs)
        self.operations[name] += 1
        self._busy = True
        try:
            return getattr(super(), name)(*args, **kwargs)
        finally:
            self._busy = False

    def get(self, *args: Any, **kwargs: Any) -> Any:
        return self._counted("get", *args, **kwargs)

    def set(self, *args: Any, **kwargs: Any) -> Any:
        return self._counted("set", *args, **kwargs)

    def add(self, *args: Any, **kwargs: Any) -> Any:
        return self._counted("add", *args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        return self._counted("delete", *args, **kwargs)


def refused(client: OpenIDClient, token: str) -> None:
    with pytest.raises(InactiveToken):
        client.authenticate(token)


def test_the_costs_of_a_call_are_those_that_are_counted() -> None:
    """Each call is of another client, as if in another process, so that none has answers itself."""
    authserver = FakeAuthserver()
    good, another = authserver.issue_token(sub="anna"), authserver.issue_token(sub="bert")
    calls: dict[str, list[Callable[[OpenIDClient], Any]]] = {
        "a new token, good or bad": [
            lambda client: client.authenticate(good),
            lambda client: refused(client, "bad"),
        ],
        "a token that the cache knows": [lambda client: client.authenticate(good)],
        "a bad token that the cache knows": [lambda client: refused(client, "bad")],
        "the same with `fresh=True`": [lambda client: client.authenticate(another, fresh=True)],
        "`invalidate`": [lambda client: client.invalidate(good)],
        "`get_token`, new": [lambda client: client.get_token("read")],
        "`get_token`, kept": [lambda client: client.get_token("read")],
    }
    found = {}
    with (
        authserver.in_memory(),
        override_settings(
            BAIKAL={"default": authserver.settings()},
            CACHES={"default": {"BACKEND": f"{__name__}.Counting", "LOCATION": "costs"}},
        ),
    ):
        for name, each in calls.items():
            costs = set()
            for call in each:
                Counting.operations.clear()
                authserver.requests.clear()
                call(OpenIDClient())
                questions = authserver.requests.count("introspection")
                questions += authserver.requests.count("token")
                costs.add((Counting.operations.total(), questions))
            (found[name],) = costs
    rows = {name: (int(cache), int(questions)) for name, cache, questions in table(PAGE, "call")}
    assert found == rows
