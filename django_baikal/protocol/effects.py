"""What a flow may ask of the world, one class each; a driver performs them.

A flow is a generator that yields effects and receives their results: ``Flow[T]`` returns ``T``.
An error of an effect is thrown into the flow at the ``yield``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. ``headers`` go out in their order; the body and they may hold secrets."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP response; header names are lower case, ``body`` is complete and decompressed."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class Instant(NamedTuple):
    """``wall``: seconds since the epoch. ``monotonic``: seconds that never step back.

    ``left``: seconds that this call has left.
    """

    wall: float
    monotonic: float
    left: float


@dataclass(frozen=True, slots=True)
class Fetch:
    """Send ``request``; the result is a ``Response``.

    ``endpoint``: which of the authserver's it goes to ("discovery", "jwks", "token",
    "introspection", "revocation"); None if it goes somewhere else.
    """

    request: Request
    endpoint: str | None = None


@dataclass(frozen=True, slots=True)
class Now:
    """The time; the result is an ``Instant``."""


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait ``seconds``."""

    seconds: float


@dataclass(frozen=True, slots=True)
class RandomToken:
    """A fresh random string of ``size`` bytes, base64url without padding."""

    size: int = 32


@dataclass(frozen=True, slots=True)
class Sign:
    """Sign ``claims`` with the key that signs now; the result is a compact JWS (RFC 7515)."""

    claims: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Recall:
    """What this process remembers of this client under ``name``, or None."""

    name: str


@dataclass(frozen=True, slots=True)
class Remember:
    """Keep ``value`` in this process for this client; never written anywhere."""

    name: str
    value: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class CacheGet:
    """The shared cache's JSON value under ``name``, or None. ``name`` decides all of the key."""

    name: tuple[Any, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class CacheSet:
    """Keep a JSON ``value`` in the shared cache, sealed, for ``ttl`` seconds."""

    name: tuple[Any, ...] = field(repr=False)
    value: Any = field(repr=False)
    ttl: float


@dataclass(frozen=True, slots=True)
class CacheAdd:
    """Take ``name`` in the shared cache for ``ttl`` seconds; False if somebody else has it."""

    name: tuple[Any, ...] = field(repr=False)
    value: Any
    ttl: float


@dataclass(frozen=True, slots=True)
class CacheDelete:
    """Drop ``name`` from the shared cache."""

    name: tuple[Any, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Share:
    """Run the flow that ``work`` makes once for all callers that ask under ``name`` meanwhile.

    The others wait and get the same result, or a copy of the same error.
    """

    name: tuple[Any, ...] = field(repr=False)
    work: Callable[[], Flow[Any]] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Background:
    """Run the flow that ``work`` makes aside, unless one under ``name`` runs; nobody waits."""

    name: tuple[Any, ...] = field(repr=False)
    work: Callable[[], Flow[Any]] = field(repr=False)


Effect: TypeAlias = (
    Fetch
    | Now
    | Sleep
    | RandomToken
    | Sign
    | Recall
    | Remember
    | CacheGet
    | CacheSet
    | CacheAdd
    | CacheDelete
    | Share
    | Background
)
Flow: TypeAlias = Generator[Effect, Any, T]
