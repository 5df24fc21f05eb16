"""The JWK Set of a ring under ASGI: no thread while it is known, and never a loop that waits."""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction
from django.db import connection
from django.db.backends.signals import connection_created
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.urls import resolve
from keys_stage import database_of_the_tests
from material import ec_key, pem
from programs import running
from ring_stage import TABLE
from test_ring_views import JWKS, entry, kids, ring

from django_baikal import clients
from django_baikal.exceptions import StoreUnavailable
from django_baikal.keys.base import WouldWait
from django_baikal.performers import Performer
from django_baikal.protocol.effects import Request, Response, Sign
from django_baikal.testing import FakeAuthserver
from django_baikal.views import Either, JWKSView

TESTS = Path(__file__).resolve().parent


# -- one view for both -----------------------------------------------------------------------------


def at_once(view: Any) -> Any:
    """Give what a view in an event loop answers without waiting for anything; None if it waits."""

    async def main() -> Any:
        answer = view(RequestFactory().get(JWKS))
        try:
            answer.send(None)
        except StopIteration as done:
            return done.value
        answer.close()
        return None

    return async_to_sync(main)()


def test_a_view_is_a_coroutine_function_in_a_loop_and_a_function_elsewhere():
    view = resolve(JWKS).func
    assert isinstance(view, Either)
    assert not iscoroutinefunction(view)

    async def main() -> bool:
        return iscoroutinefunction(view)

    assert asyncio.run(main())
    assert not hasattr(view, "other")
    assert view.view_class is JWKSView
    assert (view.csrf_exempt, view.login_required) == (True, False)


@pytest.mark.django_db
def test_in_a_loop_a_known_ring_is_answered_without_a_thread_or_a_query(
    django_assert_num_queries,
):
    view = JWKSView.as_view()
    with ring() as keeper:
        keeper.rotate()
        assert at_once(view) is None, "it has to be read first"
        known = Client().get(JWKS)
        with django_assert_num_queries(0):
            answer = at_once(view)
        assert (answer.status_code, answer.content) == (200, known.content)
        assert answer.headers == known.headers


@pytest.mark.django_db
def test_in_a_loop_a_ring_is_read_in_the_thread_that_may(django_assert_num_queries):
    with ring() as keeper:
        keeper.rotate()
        with django_assert_num_queries(1):
            found = [async_to_sync(AsyncClient().get)(JWKS) for _ in range(3)]
        assert [len(kids(answer)) for answer in found] == [2, 2, 2]


@pytest.mark.django_db
def test_while_another_thread_reads_the_ring_a_loop_serves_what_is_known():
    with ring(PROCESS_CACHE_TTL=0) as keeper:
        keeper.rotate()
        view, known = JWKSView.as_view(), Client().get(JWKS)
        (store,) = clients["default"]._runtime.keyring.stores
        assert at_once(view) is None
        with store._lock:
            assert at_once(view).content == known.content


@pytest.mark.django_db
def test_a_loop_does_not_wait_for_a_thread_that_reads_what_nobody_knows():
    with ring() as keeper:
        keeper.rotate()
        (store,) = clients["default"]._runtime.keyring.stores
        with store._lock, pytest.raises(WouldWait):
            store.published(wait=False)


@pytest.mark.django_db
def test_in_a_loop_a_ring_that_could_not_be_read_just_now_is_503_without_a_thread():
    with ring() as keeper:
        keeper.rotate()
        with connection.execute_wrapper(_down):
            assert Client().get(JWKS).status_code == 503
        answer = at_once(JWKSView.as_view())
        assert (answer.status_code, answer["Retry-After"]) == (503, "30")
        (store,) = clients["default"]._runtime.keyring.stores
        with pytest.raises(StoreUnavailable):
            store.published(wait=False)


def _down(*_: Any) -> Any:
    from django.db import OperationalError

    raise OperationalError("gone")


def test_in_a_loop_files_are_read_in_a_thread_and_keys_of_the_settings_once(tmp_path):
    (tmp_path / "key.pem").write_text(pem(ec_key()))
    static = {**entry(), "KEYS": None}
    view = JWKSView.as_view()
    with override_settings(BAIKAL={"default": {**static, "PRIVATE_CERTS_PATH": str(tmp_path)}}):
        assert len(kids(async_to_sync(AsyncClient().get)(JWKS))) == 1
        assert at_once(view) is None
    with override_settings(BAIKAL={"default": {**static, "CLIENT_KEYS": [{"key": pem(ec_key())}]}}):
        assert at_once(view) is None
        assert len(kids(async_to_sync(AsyncClient().get)(JWKS))) == 1
        assert at_once(view).status_code == 200


@pytest.mark.django_db
def test_a_known_ring_is_answered_from_the_same_bytes_until_its_keys_change():
    with ring(PROCESS_CACHE_TTL=0) as keeper:
        keeper.rotate()
        keyring = clients["default"]._runtime.keyring
        first = keyring.document()[0]
        assert keyring.document()[0] is first, "although it was read anew"
        keeper.promote(force=True)
        assert keyring.document()[0].body != first.body


# -- the database is down, and requests are in transactions ----------------------------------------


def answers(factory: Any) -> list[Any]:
    """Give what the handlers of WSGI and ASGI answer, whole."""
    return [factory.get(JWKS), async_to_sync(AsyncClient().get)(JWKS)]


@pytest.mark.django_db
@pytest.mark.parametrize("known", [True, False])
def test_a_database_that_is_down_is_no_matter_with_requests_in_transactions(known, monkeypatch):
    """ATOMIC_REQUESTS would begin each answer with a query."""
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    with ring(PROCESS_CACHE_TTL=0 if known else 60) as keeper:
        keeper.rotate()
        if known:
            assert {answer.status_code for answer in answers(Client())} == {200}
        with connection.execute_wrapper(_down):
            expected = 200 if known else 503
            assert [answer.status_code for answer in answers(Client())] == [expected] * 2


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("max_age", [0, None])
def test_a_coroutine_that_signs_leaves_no_connection_in_its_thread(max_age, monkeypatch):
    """Nobody else would ever close it, however long connections may live."""
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", max_age)
    opened: list[str] = []
    closed: list[str] = []

    def connected(connection: Any, **_: Any) -> None:
        def close() -> None:
            closed.append(threading.current_thread().name)
            # Django leaves those of SQLite in memory open.
            connection.connection.close()
            connection.connection = None

        opened.append(threading.current_thread().name)
        connection.close = close

    async def sign() -> str:
        performer = Performer(clients["default"]._runtime, 30)
        return str(await performer.aperform(Sign({"sub": "me"})))

    with ring(PROCESS_CACHE_TTL=0) as keeper:
        keeper.rotate()
        connection_created.connect(connected)
        try:
            tokens = [asyncio.run(sign()) for _ in range(2)]
        finally:
            connection_created.disconnect(connected)
    assert all(tokens)
    assert opened, "the ring was read in the client's own threads"
    assert {name.rpartition("_")[0] for name in opened} == {"django-baikal-aside"}
    assert set(closed) == set(opened)


# -- a real server, and a database that hangs ------------------------------------------------------


@contextmanager
def _sqlite_locked(path: str) -> Iterator[None]:
    import sqlite3

    other = sqlite3.connect(path, isolation_level=None, timeout=60)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


@contextmanager
def _table_locked() -> Iterator[None]:
    from django.db import transaction

    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(f"LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE")
            yield
        else:
            cursor.execute(f"LOCK TABLES {TABLE} WRITE")
            try:
                yield
            finally:
                cursor.execute("UNLOCK TABLES")


class Site:
    """The site in a process of its own; ``hanging()``: no query to its keys is answered."""

    def __init__(self, tmp_path: Path) -> None:
        url = database_of_the_tests(tmp_path)
        self._file = url.removeprefix("sqlite:///")
        self.environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "ring_site",
            "DATABASE_URL": url,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        self.port = 0

    def hanging(self) -> Any:
        return _sqlite_locked(self._file) if connection.vendor == "sqlite" else _table_locked()

    def asked(self, path: str) -> socket.socket:
        """Ask for a path, and do not wait for the answer."""
        asked = socket.create_connection(("127.0.0.1", self.port), 60)
        asked.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        return asked

    def ask(self, path: str) -> tuple[int, bytes]:
        """Ask for a path; give the status and the body."""
        return answer(self.asked(path))

    def fetch(self, request: Request) -> Response:
        """Fetch what the authserver wants of https://me.test/."""
        status, body = self.ask(request.url.removeprefix("https://me.test"))
        return Response(status, {"content-type": "application/json"}, body)

    @contextmanager
    def served(self, **ring: Any) -> Iterator[Site]:
        with FakeAuthserver(fetch=self.fetch).serve() as authserver:
            client = authserver.settings(ISSUER="https://me.test/", TIMEOUT=120)
            self.environment["SITE_CLIENT"] = json.dumps(client)
            self.environment["SITE_RING"] = json.dumps(ring)
            for command in ("migrate", "rotate_keys"):
                subprocess.run(
                    [sys.executable, "-m", "django", command, "--verbosity=0"],
                    env=self.environment,
                    cwd=TESTS,
                    check=True,
                )
            server = ["uvicorn", "--port=0", "--factory", "django.core.asgi:get_asgi_application"]
            with running([sys.executable, "-m", *server], self.environment, cwd=TESTS) as program:
                self.port = program.port
                yield self


@pytest.fixture
def site(tmp_path) -> Site:
    pytest.importorskip("uvicorn")
    return Site(tmp_path)


def answer(asked: socket.socket) -> tuple[int, bytes]:
    with asked:
        raw = b"".join(iter(lambda: asked.recv(65536), b""))
    head, _, body = raw.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


def hung(site: Site, path: str) -> socket.socket:
    """Ask until a request is not answered, and those after it are: it found the ring to be old."""
    end = time.monotonic() + 60
    asked, overtaken = site.asked(path), 0
    while overtaken < 5:
        assert time.monotonic() < end, "No request waits for the database."
        time.sleep(0.05)
        later = site.asked(path)
        answered, _, _ = select.select([asked, later], [], [], 60)
        if asked in answered:
            assert answer(asked)[0] == 200
            asked, overtaken = later, 0
        else:
            assert answer(later)[0] == 200
            overtaken += 1
    return asked


@pytest.mark.programs
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", [JWKS, "/grant"])
def test_while_the_database_hangs_one_request_waits_and_the_loop_does_not(path, site):
    with site.served(PROCESS_CACHE_TTL=0.5) as found:
        known = found.ask(JWKS)
        assert known[0] == found.ask("/grant")[0] == 200
        with found.hanging():
            waiting = hung(found, path)
            for _ in range(10):
                assert found.ask("/beat") == (200, b"alive")
                assert found.ask(JWKS) == known
                assert found.ask("/grant")[0] == 200
        assert answer(waiting)[0] == 200
        assert found.ask(JWKS) == known


@pytest.mark.programs
@pytest.mark.django_db(transaction=True)
def test_a_site_that_starts_while_the_database_hangs_lives_and_recovers(site):
    with site.served() as found:
        with found.hanging():
            waiting = [found.asked(path) for path in (JWKS, "/grant") * 3]
            for _ in range(10):
                assert found.ask("/beat") == (200, b"alive")
        assert [answer(asked)[0] for asked in waiting] == [200] * 6
