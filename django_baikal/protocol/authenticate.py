"""Who holds a bearer token: by its signature, the cache, or one question for all who ask."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from django_baikal.exceptions import AuthserverError, TokenError
from django_baikal.protocol import flows
from django_baikal.protocol.access_token import both_say, verify_access_token
from django_baikal.protocol.bearer import TokenInfo, check_answer, check_token, judge
from django_baikal.protocol.breaker import guarded, said_long_ago
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.effects import (
    CacheDelete,
    CacheGet,
    CacheSet,
    Flow,
    Instant,
    Now,
    RandomToken,
    Share,
)
from django_baikal.protocol.messages import extra_headers
from django_baikal.protocol.once import once
from django_baikal.protocol.recent import NOTHING, Recent, token_key
from django_baikal.protocol.strict_json import canonical

logger = logging.getLogger("django_baikal.bearer")

#: How long it is known that a token was invalidated, in seconds; no question takes longer.
MARK_KEPT = 3600.0
_CONTAINERS = (list, dict)

Answer = Mapping[str, Any]
#: ``answer``, and ``made_at``: when it was asked for, in seconds since the epoch.
Entry = Mapping[str, Any]
Name = tuple[Any, ...]


class Override(NamedTuple):
    """What takes the place of an authserver in tests: ``answer`` says of any token what it is.

    ``token``: the one of requests without credentials.
    """

    token: str
    answer: Callable[[ClientConfig], Answer]


#: By alias; empty but for ``django_baikal.testing.override_token``.
overrides: dict[str, Override] = {}


def known(config: ClientConfig, recent: Recent, token: Any, wall: float) -> TokenInfo | None:
    """Give what this process decided on a bearer token in the last PROCESS_TTL seconds, or None.

    ``wall`` is the time, in seconds since the epoch. No verdict is kept longer than the token's
    ``exp`` and what was said of it are good for.
    """
    if not isinstance(token, str) or config.alias in overrides:
        return None
    found: tuple[TokenInfo, list[str]] | None = recent.get(token_key(token), wall)
    if found is None:
        return None
    info, containers = found
    claims = dict(info.claims)
    for name in containers:
        claims[name] = _own(claims[name])
    return TokenInfo(info.alias, info.issuer, claims)


def _own(value: Any) -> Any:
    """Copy an object or array of JSON: no caller changes what the next one gets."""
    if isinstance(value, list):
        return [_own(item) if isinstance(item, _CONTAINERS) else item for item in value]
    return {
        name: _own(item) if isinstance(item, _CONTAINERS) else item for name, item in value.items()
    }


def authenticate(
    config: ClientConfig,
    token: object,
    headers: flows.Headers = None,
    *,
    fresh: bool = False,
    recent: Recent = NOTHING,
) -> Flow[TokenInfo]:
    """Decide on a bearer token: by its signature, by what was said of it not long ago, by asking.

    VALIDATION says which. ``fresh``: ask, whatever it says, unless the token was inactive just now.
    What is found is kept in ``recent``. Raises a TokenError if it is not good, and an
    AuthserverError if that cannot be found out.
    """
    extra_headers(headers)  # before they could fail a question that others wait for too
    checked = check_token(token, config.max_token_length)
    now: Instant
    if (override := overrides.get(config.alias)) is not None:
        now = yield Now()
        return judge(config, override.answer(config), now.wall)
    era, key = recent.era, token_key(checked)
    claims: Answer = {}
    said: Answer = {"active": True}
    until = math.inf
    if config.validation != "introspection":
        claims = yield from verify_access_token(config, checked)
    if config.validation != "jwt" or fresh:
        entry = yield from _introspected(config, checked, headers, fresh=fresh)
        said, until = entry["answer"], entry["made_at"] + config.introspection_ttl
    now = yield Now()
    try:
        claims = both_say(claims, said)
        info = judge(config, claims, now.wall)
    except TokenError:
        # With ``fresh`` others may be learning just now what the cache said before.
        if fresh or recent.get(key, now.wall) is not None:
            recent.end_era()
        raise
    until = min(until, now.wall + config.process_ttl, _end(claims))
    kept = TokenInfo(info.alias, info.issuer, _own(info.claims))
    containers = [name for name, item in kept.claims.items() if isinstance(item, _CONTAINERS)]
    recent.keep(key, (kept, containers), since=now.wall, until=until, era=era)
    return info


def _introspected(
    config: ClientConfig, token: str, headers: flows.Headers, *, fresh: bool
) -> Flow[Entry]:
    """Give what the authserver says of a token, or said of it not long ago."""
    name = _cache_name(config, token)
    entry = yield CacheGet(name)
    now: Instant = yield Now()
    found = _known(config, entry, now, fresh=fresh)
    if found is None:
        try:
            found = yield from _asked(config, token, headers, name, fresh=fresh)
        except AuthserverError as error:
            found = None if fresh else (yield from _stale(config, name, error))
            if found is None:
                raise
    return found


def invalidate(config: ClientConfig, token: object, *, recent: Recent = NOTHING) -> Flow[None]:
    """Forget what was said of a token, and what is just being said."""
    name = _cache_name(config, check_token(token, config.max_token_length))
    mark = yield RandomToken(8)
    # In this order: whoever keeps an answer looks for the mark afterwards.
    yield CacheSet(_mark_name(name), mark, MARK_KEPT)
    yield CacheDelete(name)
    # After the shared cache: nobody in this process can have learned it from there since.
    recent.end_era()


def _cache_name(config: ClientConfig, token: str) -> Name:
    """Give the name of what is known of a token; all that decides on it is in there."""
    return (
        "bearer",
        config.alias,
        config.authserver_endpoint,
        config.expected_issuer,
        config.client_id,
        config.audiences,
        config.allowed_clients,
        canonical(config.required_claims),
        token,
    )


def _mark_name(name: Name) -> Name:
    return ("invalidated", *name)


def _known(config: ClientConfig, entry: Any, now: Instant, *, fresh: bool) -> Entry | None:
    """Give an entry if it may be used now: an answer, and not from a wrong clock."""
    if not entry:
        return None
    if not entry["answer"]["active"]:
        return _kept(config, entry, now, config.introspection_negative_ttl)
    # An answer from a clock that is ahead of ours is less than no seconds old.
    use = config.introspection_ttl and not fresh
    return _kept(config, entry, now, config.introspection_ttl) if use else None


def _kept(config: ClientConfig, entry: Entry, now: Instant, seconds: float) -> Entry | None:
    age = now.wall - entry["made_at"]
    in_time = -config.clock_skew <= age < seconds and now.wall < _end(entry["answer"])
    return entry if in_time else None


def _end(answer: Answer) -> float:
    exp = answer.get("exp")
    return math.inf if exp is None else float(exp)


def _stale(config: ClientConfig, name: Name, error: AuthserverError) -> Flow[Entry | None]:
    """Give what was said of a token not very long ago, if the settings let that do meanwhile."""
    entry = yield CacheGet(name)
    if not entry or not entry["answer"]["active"]:
        return None
    now: Instant = yield Now()
    found = _kept(config, entry, now, config.introspection_ttl + config.stale_if_error)
    if found is not None and (yield from said_long_ago("stale")):
        logger.warning(
            "BAIKAL[%r]: a token is accepted by what was said of it %.0f s ago: %s",
            config.alias,
            now.wall - entry["made_at"],
            error,
        )
    return found


def _asked(
    config: ClientConfig, token: str, headers: flows.Headers, name: Name, *, fresh: bool
) -> Flow[Entry]:
    mark = yield CacheGet(_mark_name(name))

    def make() -> Flow[Entry]:
        return _ask(config, token, headers, name, mark)

    if fresh or not config.introspection_ttl:
        # Not even an answer to somebody who asked a moment before.
        return (yield from make())

    def good(entry: Any, now: Instant) -> Entry | None:
        return _known(config, entry, now, fresh=False)

    # Whoever comes after an invalidate does not wait for the answers from before.
    timeout = config.introspection_timeout
    entry: Entry = yield Share((*name, mark), lambda: once(name, timeout, good, make, apart=mark))
    return entry


def _ask(
    config: ClientConfig, token: str, headers: flows.Headers, name: Name, mark: Any
) -> Flow[Entry]:
    """Ask the authserver, and keep its answer; ask again if the token was invalidated meanwhile."""
    while True:
        begun: Instant = yield Now()
        answer = yield from _introspect(config, token, headers)
        entry = {"answer": answer, "made_at": begun.wall}
        latest = yield CacheGet(_mark_name(name))
        if latest == mark:
            yield from _keep(config, name, answer, begun)
            latest = yield CacheGet(_mark_name(name))
            if latest == mark:
                return entry
            yield CacheDelete(name)
        if latest is None:
            # A cache that loses its marks cannot tell, and each look into it may end otherwise.
            return entry
        mark = latest


def _keep(config: ClientConfig, name: Name, answer: Answer, begun: Instant) -> Flow[None]:
    """Keep an answer to a question of that time, unless a later one is there by now.

    A no counts in any case: the later one may be from a clock that is ahead of ours.
    """
    latest = yield CacheGet(name)
    if answer["active"]:
        if latest and 0 < latest["made_at"] - begun.wall <= config.clock_skew:
            return
        keep = config.introspection_ttl + config.stale_if_error
        keep = min(keep, _end(answer) - begun.wall)
    else:
        # Nothing else of such an answer has a meaning (RFC 7662 section 2.2).
        answer, keep = {"active": False}, config.introspection_negative_ttl
    if keep > 0:
        yield CacheSet(name, {"answer": answer, "made_at": begun.wall}, keep)
    elif latest:
        yield CacheDelete(name)  # what was said before is so no more


def _introspect(config: ClientConfig, token: str, headers: flows.Headers) -> Flow[Answer]:
    asking = flows.introspect(config, token, headers)
    answer: Answer = yield from guarded(config, asking, caller_may_err=True)
    if answer["active"]:
        # That one answer cannot be used is no reason not to ask about other tokens.
        check_answer(answer, f"BAIKAL[{config.alias!r}]: the authserver")
    return answer
