from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import hypothesis
import pytest
from asgiref.local import Local
from django.core.cache.backends.redis import RedisCacheClient
from django.db import connections
from django.db.backends.signals import connection_created

import django_baikal

T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent
FULL_SCALE = os.environ.get("SCALE", "small") == "full"

if os.environ.get("DJANGO_BAIKAL_TEST_INSTALLED") == "1":
    _tested = Path(django_baikal.__file__).resolve()
    if "site-packages" not in _tested.parts:
        raise pytest.UsageError(f"The installed wheel is to be tested, but this was: {_tested}")

# At the end, and not the checkout's root: django_baikal must not be found beside it.
sys.path.append(str(ROOT / "example_project"))

for _name in list(os.environ):
    if _name.startswith(("BAIKAL_", "AIOHTTP_SESSION_")):
        del os.environ[_name]

# No deadline: a loaded machine is slow, not wrong.
hypothesis.settings.register_profile("small", max_examples=50, deadline=None)
hypothesis.settings.register_profile("full", max_examples=2000, deadline=None)
hypothesis.settings.load_profile("full" if FULL_SCALE else "small")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have measured: ``record_property("table", text)``."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, text in getattr(report, "user_properties", ()):
                if name == "table" and getattr(report, "when", "") == "call":
                    terminalreporter.write_sep("-", report.nodeid.rpartition("::")[2])
                    terminalreporter.write_line(str(text))


@pytest.fixture(scope="session")
def scale() -> Callable[[T, T], T]:
    """Choose: ``scale(200, 100_000)`` is the second with SCALE=full, else the first."""

    def choose(small: T, full: T) -> T:
        return full if FULL_SCALE else small

    return choose


_redis: list[RedisCacheClient] = []


@pytest.fixture(scope="session", autouse=True)
def _known_connections_to_redis() -> Iterator[None]:
    """Let no socket of Redis's library be left to the garbage collection.

    That may come to the socket before it comes to the connection, which would close it.
    """
    init = RedisCacheClient.__init__

    def known(self: RedisCacheClient, *args: Any, **options: Any) -> None:
        _redis.append(self)
        init(self, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RedisCacheClient, "__init__", known)
        yield


def pytest_runtest_logfinish() -> None:
    """Close those of the test that has just ended; what is still used connects anew."""
    while _redis:
        for pool in vars(_redis.pop()).get("_pools", {}).values():
            pool.disconnect()


def _is_local(host: object) -> bool:
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if not isinstance(host, str):
        return host is None
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host in {"", socket.gethostname()} or f".{host}".endswith(".localhost")
    return address.is_loopback or address.is_unspecified


@pytest.fixture(scope="session", autouse=True)
def _no_network_but_loopback() -> Iterator[None]:
    """Fail whoever leaves this machine, in any thread.

    By an exception that ``except Exception`` does not catch: code that turns errors into its own
    (as a client does with those of the network) cannot hide the attempt.
    """

    def guarded(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(sock: socket.socket, address: Any, *args: Any) -> Any:
            if isinstance(address, tuple) and not _is_local(address[0]):
                pytest.fail(f"Tests may reach loopback only, this one went to {address!r}.")
            return original(sock, address, *args)

        return call

    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_local(host):
            pytest.fail(f"Tests may reach loopback only, this one looked up {host!r}.")
        return resolve(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, guarded(getattr(socket.socket, name)))
        yield


@pytest.fixture
def own_database(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, django_db_blocker: Any
) -> Iterator[None]:
    """Give the test an empty SQLite file instead of the database of the suite, in any thread."""
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "own.sqlite3")}
    monkeypatch.setattr(
        connections, "settings", connections.configure_settings({"default": database})
    )
    monkeypatch.setattr(connections, "_connections", Local(connections.thread_critical))
    made: list[Any] = []

    def note(connection: Any, **_: Any) -> None:
        made.append(connection)

    connection_created.connect(note)
    with django_db_blocker.unblock():
        yield
    connection_created.disconnect(note)
    for each in made:
        # A thread that is about to end would not find it any more.
        each.inc_thread_sharing()
        each.close()


@pytest.fixture(scope="session", autouse=True)
def _server_is_known(request: pytest.FixtureRequest) -> None:
    """Let MariaDB say once what it is: Django's checks ask that, also without a test database."""
    from django.db import connection

    if connection.vendor == "mysql":
        request.getfixturevalue("django_db_setup")
        with request.getfixturevalue("django_db_blocker").unblock():
            assert connection.data_types
