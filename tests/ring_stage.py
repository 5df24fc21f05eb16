"""What the tests of rings in the database share: stores, a clock, and what is asked of tables."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import OperationalError, connection
from django.db.backends.signals import connection_created
from django.utils import timezone

from django_baikal.keys.database import DatabaseKeyStore
from django_baikal.keys.operations import Keeper
from django_baikal.models import SigningKey
from django_baikal.protocol.config import ClientConfig

START = datetime(2030, 1, 1, 12, tzinfo=UTC)
TABLE = SigningKey._meta.db_table
#: Key-encryption keys.
KEKS = [base64.b64encode(bytes(range(n, n + 32))).decode() for n in (1, 65, 129)]


class Clock:
    """The time of day, as Django tells it; it stands until it is moved."""

    def __init__(self, patch: Any) -> None:
        self.now = START
        patch.setattr(timezone, "now", lambda: self.now)

    def forward(self, **length: float) -> datetime:
        self.now += timedelta(**length)
        return self.now


def store(**options: Any) -> DatabaseKeyStore:
    """Make a store, as each process has one; of ES256, which is quickly made."""
    return DatabaseKeyStore(
        ClientConfig(), {"ALG": "ES256", "ENCRYPTION_KEYS": KEKS[:1], **options}
    )


def keeper(*, alone: bool = True, by: str = "a test", **options: Any) -> Keeper:
    return Keeper(store(**options), alone=alone, by=by)


def rows(ring: str = "default") -> list[SigningKey]:
    return list(SigningKey.objects.filter(ring=ring).order_by("sequence"))


def everything() -> list[dict[str, Any]]:
    """Give all that the table holds, to see that nothing has changed."""
    found = SigningKey.objects.order_by("pk").values()
    return [{k: bytes(v) if isinstance(v, memoryview) else v for k, v in r.items()} for r in found]


def edit(row: SigningKey, **values: Any) -> None:
    """Write to a row as somebody does who has the database but no key."""
    assert SigningKey.objects.filter(pk=row.pk).update(**values)


class Watch:
    """Sees each query to the table of keys, in any thread; ``before`` is called with it first."""

    def __init__(self, before: Callable[[str], Any]) -> None:
        self.asked: list[str] = []
        self.before = before

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if TABLE in sql:
            self.asked.append(sql.split(" ", 1)[0])
            self.before(sql)
        return execute(sql, params, many, context)


@contextmanager
def watching(before: Callable[[str], Any] = lambda sql: None) -> Iterator[Watch]:
    watch = Watch(before)

    def connected(connection: Any, **_: Any) -> None:
        connection.execute_wrappers.append(watch)

    connection_created.connect(connected)
    try:
        with connection.execute_wrapper(watch):
            yield watch
    finally:
        connection_created.disconnect(connected)


@contextmanager
def database_down() -> Iterator[Watch]:
    def fail(sql: str) -> None:
        raise OperationalError("could not connect to db.internal as baikal")

    with watching(fail) as watch:
        yield watch


@contextmanager
def meanwhile(act: Callable[[], Any]) -> Iterator[None]:
    """Have somebody else act between what the next operation reads and what it writes."""
    left = [act]

    def before(execute: Any, sql: str, *args: Any) -> Any:
        if sql.startswith("SAVEPOINT") and left:
            left.pop()()
        return execute(sql, *args)

    with connection.execute_wrapper(before):
        yield
    assert not left
