"""Cached tokens: made once for everybody who wants the same one, renewed before they expire."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from django_baikal.exceptions import AuthserverUnavailable, ConfigurationError
from django_baikal.protocol import flows, grants
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.effects import (
    CacheAdd,
    CacheDelete,
    CacheGet,
    CacheSet,
    Flow,
    Instant,
    Now,
    Share,
)
from django_baikal.protocol.messages import Names, extra_headers, names, text
from django_baikal.protocol.once import once
from django_baikal.protocol.recent import NOTHING, Recent

logger = logging.getLogger("django_baikal.client")

#: No token is kept longer, whatever it says of itself; in seconds.
MAX_KEPT = 86400.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What makes a token the one it is. Without ``sub`` it is the client's own."""

    scopes: tuple[str, ...]
    purposes: tuple[str, ...]
    sub: str | None = field(repr=False)
    extra: Mapping[str, Any] = field(repr=False)

    def cache_name(self, config: ClientConfig) -> tuple[str | None, ...]:
        """Give the name that the token is cached under; the order of scopes does not matter."""
        return (
            "token",
            config.alias,
            config.authserver_endpoint,
            config.expected_issuer,
            config.client_id,
            config.issuer,
            "client_credentials" if self.sub is None else "jwt-bearer",
            self.sub,
            " ".join(sorted(self.scopes)),
            " ".join(sorted(self.purposes)),
            grants.as_json(self.extra, "get_token"),
        )


def wanted(scopes: Names, purposes: Names, sub: str | None, extra: Mapping[str, Any]) -> Wanted:
    """Make a ``Wanted`` of a caller's arguments; raise ConfigurationError for a wrong one."""
    given = {name: value for name, value in extra.items() if value is not None}
    if sub is None and given:
        raise ConfigurationError(f"{', '.join(given)}: only a user's token has that; give sub too.")
    if sub is not None:
        text(sub, "sub")
    return Wanted(names(scopes, "scopes"), names(purposes, "purposes"), sub, given)


def get_token(
    config: ClientConfig,
    want: Wanted,
    headers: flows.Headers,
    recent: Recent = NOTHING,
    key: Hashable = None,
) -> Flow[str]:
    """Give a token that lasts for another TOKEN_LEEWAY, cached or new; keep it in ``recent``.

    While the leeway runs one caller renews and the others keep the old token; if the authserver
    fails then, it is used until it expires.
    """
    extra_headers(headers)  # before they could fail a request that others wait for too
    name = want.cache_name(config)
    era = recent.era
    entry = yield CacheGet(name)
    now: Instant = yield Now()
    if _usable(config, entry, "renew_at", now):
        until = min(now.wall + config.process_ttl, entry["renew_at"])
        with suppress(TypeError):  # it cannot be hashed
            recent.keep(key, str(entry["token"]), since=now.wall, until=until, era=era)
        return str(entry["token"])
    if not _usable(config, entry, "expires_at", now):

        def good(entry: Any, now: Instant) -> str | None:
            return str(entry["token"]) if _usable(config, entry, "renew_at", now) else None

        def make() -> Flow[str]:
            return _make(config, want, headers, name)

        token: str = yield Share(name, lambda: once(name, config.timeout, good, make))
        return token
    # The lock is left to expire by itself when the renewal fails, so that it is not tried at once
    # by the next caller.
    if (yield CacheAdd(("renewal", *name), "renewal", config.timeout)):
        try:
            token = yield from _make(config, want, headers, name)
        except AuthserverUnavailable as error:
            logger.warning(
                "BAIKAL[%r]: a token cannot be renewed, the old one stays in use: %s",
                config.alias,
                error,
            )
        else:
            yield CacheDelete(("renewal", *name))
            return token
    return str(entry["token"])


def forget_token(
    config: ClientConfig, want: Wanted, token: str | None = None, recent: Recent = NOTHING
) -> Flow[None]:
    """Drop exactly this token from the cache; if ``token`` is given, unless there is another."""
    name = want.cache_name(config)
    entry = None if token is None else (yield CacheGet(name))
    if token is None or (entry and entry["token"] == token):
        yield CacheDelete(name)
    recent.end_era()


def _usable(config: ClientConfig, entry: Any, until: str, now: Instant) -> bool:
    """Tell whether an entry is good until that time of it, and not from a clock that was wrong."""
    if not entry or entry["made_at"] > now.wall + config.clock_skew:
        return False
    return bool(now.wall < entry[until])


def _make(
    config: ClientConfig, want: Wanted, headers: flows.Headers, name: tuple[Any, ...]
) -> Flow[str]:
    now: Instant = yield Now()
    if want.sub is None:
        answer = yield from flows.grant_client(config, want.scopes, want.purposes, headers)
    else:
        answer = yield from flows.grant_user(
            config, want.sub, want.scopes, want.purposes, want.extra, headers
        )
    token: str = answer["access_token"]
    # Without expires_in nobody knows how long it lasts, so it is not kept.
    life = min(answer.get("expires_in") or 0, MAX_KEPT)
    if life > 0:
        leeway = min(config.token_leeway, life / 2)
        entry = {
            "token": token,
            "made_at": now.wall,
            "expires_at": now.wall + life,
            "renew_at": now.wall + life - leeway,
        }
        yield CacheSet(name, entry, life)
    return token
