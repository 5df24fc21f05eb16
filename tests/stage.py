"""What several tests need around a client: both ways to call, an issuer, an authserver to count."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from loopback import Connection, Handler, Server, reply, running

from django_baikal.keys.generate import generate_key, private_pem
from django_baikal.protocol.effects import Request
from django_baikal.testing import FakeAuthserver


def call_sync(client: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    return getattr(client, name)(*args, **kwargs)


def call_async(client: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    return asyncio.run(getattr(client, f"a{name}")(*args, **kwargs))


#: ``call(client, "grant_client", ...)`` by the method, and by its coroutine.
both_ways = pytest.mark.parametrize(
    "call", [pytest.param(call_sync, id="sync"), pytest.param(call_async, id="async")]
)


def pem(alg: str = "ES256", number: int = 0) -> str:
    """Give a private key, the same one each time."""
    return _pem(alg, number)


@functools.cache
def _pem(alg: str, number: int) -> str:
    return private_pem(generate_key(alg))


@contextlib.contextmanager
def publishing(jwks: Callable[[], str | bytes], *, slash: str = "/") -> Iterator[str]:
    """Run an issuer that publishes metadata and ``jwks()``; gives its name, with the slash."""

    def handle(connection: Connection) -> None:
        issuer = connection.server.url + slash
        while raw := connection.request():
            target = raw.split(b" ", 2)[1].decode()
            if target == f"{slash}/.well-known/openid-configuration":
                body = json.dumps({"issuer": issuer, "jwks_uri": f"{connection.server.url}/jwks"})
                connection.send(reply(body.encode(), headers=("Content-Type: application/json",)))
            elif target == "/jwks":
                keys = jwks()
                body_bytes = keys.encode() if isinstance(keys, str) else keys
                connection.send(reply(body_bytes, headers=("Content-Type: application/json",)))
            else:
                connection.send(reply(b"", status="404 Not Found"))

    with running(handle) as server:
        yield server.url + slash


def relaying(authserver: Callable[[], FakeAuthserver]) -> Handler:
    """Make a handler that answers as the fake authserver does."""

    def handle(connection: Connection) -> None:
        while raw := connection.request():
            head, _, body = raw.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            method, target, _ = first.split(" ")
            headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
            request = Request(method, connection.server.url + target, headers, body or None)
            answer = authserver().handle(request)
            named = tuple(f"{name}: {value}" for name, value in answer.headers.items())
            connection.send(reply(answer.body, status=f"{answer.status} -", headers=named))

    return handle


@contextlib.contextmanager
def counted(
    tls: ssl.SSLContext | None = None, **options: Any
) -> Iterator[tuple[FakeAuthserver, Server]]:
    """Serve a fake authserver, over TLS if asked to, by a server that counts its connections."""
    made: list[FakeAuthserver] = []
    with running(relaying(lambda: made[0]), tls) as server:
        made.append(FakeAuthserver(endpoint=server.url, **options))
        yield made[0], server
