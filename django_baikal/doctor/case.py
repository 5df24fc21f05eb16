"""The alias that is examined, and what the examinations have found of it so far."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from django_baikal.doctor.findings import Skipped
from django_baikal.exceptions import AuthserverError, ConfigurationError
from django_baikal.performers import Performer, Runtime
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.driver import run
from django_baikal.protocol.effects import Effect, Fetch, Flow, Request, Response
from django_baikal.protocol.messages import default_headers
from django_baikal.protocol.metadata import Metadata

if TYPE_CHECKING:
    from datetime import datetime

    from django_baikal.keys.base import KeyStore
    from django_baikal.keys.rotation import Ring
    from django_baikal.models import SigningKey

T = TypeVar("T")


class Exchange(NamedTuple):
    """An answer, and between which seconds since the epoch it was on its way."""

    response: Response
    begun: float
    ended: float


class Wanted(NamedTuple):
    """A key that others have to see: its role and public members; ``by``: when at the latest."""

    role: str
    jwk: Mapping[str, Any]
    by: datetime | None = None


class _Watched(Performer):
    """Performs effects, and keeps the first answer."""

    first: Exchange | None = None

    def perform(self, effect: Effect) -> Any:
        begun = time.time()
        result = super().perform(effect)
        if isinstance(effect, Fetch) and self.first is None:
            self.first = Exchange(result, begun, time.time())
        return result


@dataclass(repr=False)
class Case:
    """What is known of ``alias``; what is None was not found.

    ``given``: a token that somebody wants to know about. ``deadline``: the monotonic time at which
    all of it ends, or None; beside it every call has the time that the settings give it.
    """

    alias: str
    given: str | None = None
    deadline: float | None = None

    config: ClientConfig | None = None
    runtime: Runtime | None = None
    #: Why nobody answers at the authserver's address.
    unreachable: AuthserverError | None = None
    connected: bool | None = None
    server: Metadata | None = None
    discovered: Exchange | None = None
    token: str | None = None
    claims: Mapping[str, Any] | None = None
    stores: list[KeyStore] | None = None
    rows: list[SigningKey] | None = None
    opened: bool | None = None
    ring: Ring[SigningKey] | None = None
    wanted: list[Wanted] | None = None
    issuer: str | None = None
    answered: bool | None = None
    jwks: list[Any] | None = None

    def need(self, found: T | None, examination: str) -> T:
        """Give what that examination has found; raise Skipped if it has not."""
        if found is None:
            raise Skipped(needs=examination)
        return found

    @property
    def settings(self) -> ClientConfig:
        """The configuration."""
        return self.need(self.config, "settings")

    def left(self, seconds: float) -> float:
        """Give how much of ``seconds`` there is time for; raise Skipped if for none."""
        left = seconds if self.deadline is None else min(seconds, self.deadline - time.monotonic())
        if left <= 0:
            raise Skipped("There was no time left for it; manage.py baikal_doctor takes it.")
        return left

    def watch(self, flow: Flow[T], timeout: float) -> tuple[T, Exchange | None]:
        """Run ``flow``, and give also its first answer; nothing that a client remembers is used."""
        performer = _Watched(self.need(self.runtime, "settings"), self.left(timeout))
        return run(flow, performer.perform), performer.first

    def ask(self, flow: Flow[T], timeout: float) -> T:
        """Run ``flow``."""
        return self.watch(flow, timeout)[0]

    def fetch(self, url: str) -> Response:
        """Get what is at ``url``, of any status; no redirect is followed."""
        return self.ask(_fetched(url), self.settings.timeout)

    def close(self) -> None:
        """Close the connections."""
        if self.runtime is not None:
            # Where a CA bundle cannot be read there is no transport to close.
            with suppress(ConfigurationError):
                self.runtime.process.transport.close()


def _fetched(url: str) -> Flow[Response]:
    response: Response = yield Fetch(Request("GET", url, default_headers()))
    return response
