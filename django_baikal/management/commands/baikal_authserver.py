"""``manage.py baikal_authserver``: an authserver for development, on this machine only."""

from __future__ import annotations

import errno
import pprint
import shlex
import signal
import threading
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any, ClassVar
from urllib.parse import urlsplit

from django.core.management.base import BaseCommand, CommandError

from django_baikal import conf
from django_baikal.exceptions import ConfigurationError
from django_baikal.testing.authserver import FakeAuthserver
from django_baikal.testing.server import is_loopback
from django_baikal.testing.wire import RecordedRequest, digest, mask

DEMO = ("demo-client", "demo-secret")
#: Where `manage.py runserver` is, if the project does not say who it is.
ISSUER = "http://127.0.0.1:8000"

#: Parameters that hold a token or the like, and what to call it in a line of the log.
_TOKENS = {
    "token": "token",
    "refresh_token": "refresh token",
    "assertion": "assertion",
    "client_assertion": "client assertion",
    "code": "code",
}


class Command(BaseCommand):
    """Serve a fake authserver until Ctrl-C or SIGTERM; exit status 0 then."""

    help = (
        "Runs a strict OAuth 2.0 authserver for development, on loopback and in memory: what it "
        "has issued is forgotten when it stops."
    )
    requires_system_checks: ClassVar[list[str]] = []  # type: ignore[misc]

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options."""
        parser.add_argument(
            "--port", type=int, default=8089, help="By default %(default)s; 0 takes a free one."
        )
        parser.add_argument(
            "--host", default="127.0.0.1", help="A loopback address, %(default)s by default."
        )
        parser.add_argument(
            "--client-id", help="By default the one of BAIKAL['default'], or demo-client."
        )
        parser.add_argument(
            "--client-secret", help="By default the one of BAIKAL['default'], or demo-secret."
        )
        parser.add_argument(
            "--lenient",
            action="store_true",
            help="Accept assertions without kid and jti, as the baikal-sdk makes them.",
        )
        parser.add_argument(
            "--token-format",
            choices=("opaque", "jwt"),
            default="opaque",
            help="What access tokens look like, %(default)s by default.",
        )
        parser.add_argument("--quiet", action="store_true", help="Print no line for each request.")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Serve."""
        host, port = options["host"], options["port"]
        if not is_loopback(host):
            raise CommandError(
                f"This authserver believes everybody, so it is served on loopback only, not on "
                f"{host!r}."
            )
        if not 0 <= port <= 65535:
            raise CommandError(f"{port} is no port: it must be between 0 and 65535.")
        for option in ("client_id", "client_secret"):
            if options[option] == "":
                raise CommandError(f"--{option.replace('_', '-')} is empty.")
        try:
            own = conf.merged("default")
        except ConfigurationError:
            own = {}
        issuer = own.get("ISSUER") or ISSUER
        client_id, client_secret, secret_is_known = self._client(options, own)
        self._lock = threading.Lock()
        server = FakeAuthserver(
            clients={
                client_id: {
                    "client_secret": client_secret,
                    "jwks_uri": f"{issuer.rstrip('/')}/.well-known/jwks.json",
                }
            },
            token_format=options["token_format"],
            lenient=options["lenient"],
            on_request=None if options["quiet"] else self._report,
        )
        with _stopped_by_signal(), ExitStack() as stack:
            try:
                stack.enter_context(server.serve(port, host))
            except OSError as error:
                raise CommandError(_cannot_serve(error, host, port)) from None
            self._banner(server, issuer, show_secret=not secret_is_known)
            # Not for ever at once: a signal that another thread receives wakes nobody.
            while not threading.Event().wait(0.5):  # pragma: no branch: a signal ends it
                pass
        self._write("Stopped.")

    def _client(self, options: dict[str, Any], own: dict[str, Any]) -> tuple[str, str, bool]:
        """Give id, secret, and whether the secret is one of the project's own."""
        client_id = options["client_id"] or own.get("CLIENT_ID") or DEMO[0]
        if options["client_secret"]:
            return client_id, options["client_secret"], False
        if own.get("CLIENT_SECRET") and client_id == own.get("CLIENT_ID"):
            return client_id, own["CLIENT_SECRET"], True
        return client_id, DEMO[1], False

    def _banner(self, server: FakeAuthserver, issuer: str, *, show_secret: bool) -> None:
        entry = server.settings()
        if not show_secret:
            entry["CLIENT_SECRET"] = "<the one you have configured>"
        entry["ISSUER"] = issuer
        exports = "\n".join(
            f"export BAIKAL_{name}={shlex.quote(value)}" for name, value in entry.items()
        )
        endpoints = "\n".join(f"  {name:<14}{url}" for name, url in server.urls.items())
        settings = pprint.pformat({"default": entry}, sort_dicts=False, width=80)
        self._write(
            f"The development authserver is running at {server.endpoint}/\n"
            f"For development only: nobody has to log in. Stop it with Ctrl-C.\n\n"
            f"Settings:\n\nBAIKAL = {settings}\n\n"
            f"or environment:\n\n{exports}\n\n"
            f"Endpoints:\n\n{endpoints}\n"
        )

    def _report(self, call: RecordedRequest) -> None:
        """Print a line about one request, with nothing secret or personal in it."""
        parts = [
            time.strftime("%H:%M:%S"),
            f"{call.method} {call.endpoint}",
            mask(call.client_id or "-"),
            f"{call.status} {mask(call.outcome)}",
        ]
        if call.endpoint == "unknown":
            parts[1] = f"{call.method} {mask(urlsplit(call.url).path)[:100]}"
        if "grant_type" in call.form:
            parts.append(mask(call.form["grant_type"].rpartition(":")[2])[:40])
        parts += [
            f"{what} sha256:{digest(call.form[name])}"
            for name, what in _TOKENS.items()
            if name in call.form
        ]
        if call.description:
            parts.append(mask(call.description)[:500])
        self._write("  ".join(parts))

    def _write(self, text: str) -> None:
        # Whoever was reading may be gone; that is no reason to answer requests with errors.
        with self._lock, suppress(OSError, ValueError):
            self.stdout.write(text)
            self.stdout.flush()


def _cannot_serve(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} of {host} is in use already; choose another one with --port "
            "(0 takes one that is free)."
        )
    return f"The authserver cannot be served at port {port} of {host}: {error.strerror}."


class _Stop(BaseException):
    """A signal asks the command to end."""


@contextmanager
def _stopped_by_signal() -> Iterator[None]:
    """End the block quietly on SIGINT and SIGTERM; a second one does not disturb the end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)

    def stop(_number: int, _frame: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise _Stop

    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    except _Stop:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
