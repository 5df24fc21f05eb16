"""A breaker: an authserver that fails is left alone for a while, and no caller waits for it."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TypeVar

from django_baikal.exceptions import AuthserverError, AuthserverUnavailable, TokenError
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.effects import Flow, Instant, Now, Recall, Remember

T = TypeVar("T")

logger = logging.getLogger("django_baikal.bearer")

#: So many failures in a row open the breaker.
FAILURES = 5
#: How long it stays open before one caller tries, in seconds.
REST = 5.0
#: No authserver keeps it open longer with one Retry-After, in seconds.
MAX_REST = 60.0
#: A question that had less than this part of its time says nothing of the authserver.
ENOUGH = 0.5
#: How often the same is said in the log, in seconds.
SAID = 60.0
#: Our own client is not who it should be, whatever the status (RFC 6749 section 5.2).
_REFUSED = ("invalid_client", "unauthorized_client")


@dataclass(frozen=True, slots=True)
class Breaker:
    """``failures`` in a row, and until when (monotonic seconds) nobody asks.

    Two threads may change it at once, and one failure be lost, or one caller more try: it saves
    the authserver and the callers' time, and decides nothing.
    """

    failures: int = 0
    open_until: float = -math.inf


_CLOSED = Breaker()


def guarded(config: ClientConfig, asking: Flow[T], *, caller_may_err: bool = False) -> Flow[T]:
    """Run ``asking`` unless the authserver failed a moment ago, and remember how it went.

    ``caller_may_err``: a 400 may be for what the bearer sent, and says nothing of the authserver.
    Raises AuthserverUnavailable with the code "circuit_open" while nobody asks.
    """
    begun: Instant = yield Now()
    breaker: Breaker = (yield Recall("breaker")) or _CLOSED
    if begun.monotonic < breaker.open_until:
        raise AuthserverUnavailable(
            f"BAIKAL[{config.alias!r}]: the authserver failed, and is not asked for "
            f"{breaker.open_until - begun.monotonic:.1f} s.",
            code="circuit_open",
            retry_after=breaker.open_until - begun.monotonic,
        )
    if breaker.failures >= FAILURES:
        # This caller tries; the others do not meanwhile.
        breaker = Breaker(breaker.failures, begun.monotonic + REST)
        yield Remember("breaker", breaker)
    try:
        found = yield from asking
    except TokenError:
        yield from _answered(breaker)
        raise
    except AuthserverError as error:
        hurried = error.code == "timeout" and begun.left < ENOUGH * config.introspection_timeout
        if caller_may_err and error.status == 400 and error.error not in _REFUSED:
            yield from _answered(breaker)  # the authserver is there, and did not like the token
        elif not hurried:
            yield from _failed(config, error)
        raise
    yield from _answered(breaker)
    return found


def _answered(mine: Breaker) -> Flow[None]:
    """Close the breaker, unless somebody else has opened it since ``mine`` was looked at."""
    now: Instant = yield Now()
    latest: Breaker = (yield Recall("breaker")) or _CLOSED
    if latest is mine or latest.open_until <= now.monotonic:
        yield Remember("breaker", _CLOSED)


def _failed(config: ClientConfig, error: AuthserverError) -> Flow[None]:
    now: Instant = yield Now()
    breaker: Breaker = (yield Recall("breaker")) or _CLOSED
    failures = breaker.failures + 1
    if error.retry_after:
        failures = max(failures, FAILURES)  # and then one caller tries, not all
    rest = REST if failures >= FAILURES else 0.0
    rest = max(rest, min(error.retry_after or 0.0, MAX_REST))
    until = max(breaker.open_until, now.monotonic + rest)
    yield Remember("breaker", Breaker(failures, until))
    if (error.status in (401, 403) or error.error in _REFUSED) and (
        yield from said_long_ago("refused")
    ):
        logger.error("BAIKAL[%r]: no bearer token can be checked: %s", config.alias, error)
    elif until > now.monotonic and (yield from said_long_ago("open")):
        logger.warning(
            "BAIKAL[%r]: bearer tokens cannot be checked, and the authserver is asked again in "
            "%.0f s: %s",
            config.alias,
            until - now.monotonic,
            error,
        )


def said_long_ago(what: str) -> Flow[bool]:
    """Tell whether to say it again now."""
    now: Instant = yield Now()
    last: float = (yield Recall(f"said {what}")) or -math.inf
    if now.monotonic - last < SAID:
        return False
    yield Remember(f"said {what}", now.monotonic)
    return True
