"""A project to examine, well until a test makes it ill: its authserver and its site on loopback."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from email.utils import formatdate
from pathlib import Path
from ssl import SSLContext
from typing import Any

import pytest
from django.test import override_settings
from keys_stage import STORE, Clock, keeper
from loopback import Connection, Server, reply, running
from stage import relaying

from django_baikal import clients
from django_baikal.doctor import FAILED, Finding, examine
from django_baikal.protocol.effects import Request, Response
from django_baikal.testing import FakeAuthserver

METADATA = "/.well-known/openid-configuration"
JWKS = "/.well-known/jwks.json"
SECRET = "a-secret-that-nobody-prints"
JSON = ("Content-Type: application/json",)


class Patient:
    """A project: its entry of BAIKAL, what its site answers by path, and its authserver."""

    #: What the keys' times are compared with.
    clock: Clock

    def __init__(self, path: Path, tls: SSLContext | None = None) -> None:
        self._stack = ExitStack()
        self._tls = tls
        self.path = path
        self.answers: dict[str, bytes] = {}
        #: Further settings of Django's.
        self.settings: dict[str, Any] = {"CACHES": file_cache(path)}
        self.token: str | None = None
        #: The headers that say when the authserver has answered.
        self.told: Callable[[], dict[str, str]]
        self.tell_time(0)

    def __enter__(self) -> Patient:
        enter = self._stack.enter_context
        dated: Any = self
        self.server: Server = enter(running(relaying(lambda: dated), self._tls))
        known = {"doctors-client": SECRET}
        self.authserver = FakeAuthserver(endpoint=self.server.url, clients=known)
        self.site: Server = enter(running(self._answer))
        self.entry = self.authserver.settings(
            ISSUER=f"{self.site.url}/",
            KEYS={"BACKEND": STORE, "OPTIONS": {"ALG": "ES256"}},
            # A machine may be slow.
            TIMEOUT=60,
            INTROSPECTION_TIMEOUT=60,
        )
        return self

    def __exit__(self, *_: object) -> None:
        # What hangs would hang for ever, in a thread of the server.
        self.authserver.recover()
        self._stack.close()

    def handle(self, request: Request) -> Response:
        """Answer as the authserver does, and tell the time in the answer."""
        answer = self.authserver.handle(request)
        return Response(answer.status, {**answer.headers, **self.told()}, answer.body)

    def tell_time(self, ahead: float, **headers: str) -> None:
        """Let the authserver tell a time that is so many seconds ahead."""
        self.told = lambda: {"date": formatdate(time.time() + ahead, usegmt=True), **headers}

    def publish(self) -> None:
        """Publish what the project has now."""
        # Each is a client of its own, which knows nothing of before.
        self.entry["REALM"] = secrets.token_hex(8)
        with self.configured():
            document = json.loads(clients["default"].get_jwk_set())
        issuer = self.entry["ISSUER"]
        self.says(METADATA, {"issuer": issuer, "jwks_uri": issuer.rstrip("/") + JWKS})
        self.says(f"/{METADATA}", {"issuer": issuer, "jwks_uri": issuer.rstrip("/") + JWKS})
        self.says(JWKS, document)

    def says(self, path: str, body: Any, status: str = "200 OK", *headers: str) -> None:
        """Let the site answer with that."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.answers[path] = reply(data, status=status, headers=headers or JSON)

    def _answer(self, connection: Connection) -> None:
        while raw := connection.request():
            path = raw.split(b" ", 2)[1].decode()
            connection.send(self.answers.get(path, reply(b"", status="404 Not Found")))

    @property
    def options(self) -> dict[str, Any]:
        """The options of its ring."""
        found: dict[str, Any] = self.entry["KEYS"]["OPTIONS"]
        return found

    @contextmanager
    def configured(self) -> Iterator[None]:
        with override_settings(BAIKAL={"default": self.entry}, **self.settings):
            yield

    def examine(self) -> dict[str, Finding]:
        """Examine it; give each finding by its name."""
        with self.configured():
            return {each.name: each for each in examine("default", token=self.token)}

    def within(self, context: Any) -> None:
        """Be in that context to the end."""
        self._stack.enter_context(context)

    def ill(self) -> Finding:
        """Give the one examination that fails; nothing else may."""
        (found,) = (each for each in self.examine().values() if each.status == FAILED)
        return found


def file_cache(path: Path) -> dict[str, Any]:
    backend = "django.core.cache.backends.filebased.FileBasedCache"
    return {"default": {"BACKEND": backend, "LOCATION": str(path / "cache")}}


@contextmanager
def well(
    path: Path, patch: pytest.MonkeyPatch, tls: SSLContext | None = None, **entry: Any
) -> Iterator[Patient]:
    """Be a project with which nothing is wrong; its keys are two days old."""
    clock = Clock(patch)
    patch.setenv("CACHE_URL", f"filecache://{path}/cache")
    with Patient(path, tls) as patient:
        patient.clock = clock
        patient.entry |= entry
        with patient.configured():
            keeper().rotate()
        clock.pass_(days=2)
        patient.publish()
        yield patient
