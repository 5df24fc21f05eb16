"""The authserver's public keys: kept, renewed aside, and looked for again when one is missing."""

from __future__ import annotations

import copy
import logging
import math
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from django_baikal.exceptions import AuthserverError, BaikalError, InvalidResponse
from django_baikal.protocol import discovery, jws
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.discovery import metadata
from django_baikal.protocol.effects import (
    Background,
    Fetch,
    Flow,
    Instant,
    Now,
    Recall,
    Remember,
    Response,
    Share,
)
from django_baikal.protocol.jwk import ALGORITHMS
from django_baikal.protocol.messages import json_answer, raise_for_error
from django_baikal.protocol.metadata import Metadata, metadata_request
from django_baikal.protocol.urls import without_query

logger = logging.getLogger("django_baikal.client")

#: From this part of their lifetime on, the keys are renewed aside.
RENEW = 0.8
#: More than these are no set of keys that somebody rotates.
MAX_KEYS = 100
#: A look that had less than this part of TIMEOUT says nothing of the authserver if it ran out.
ENOUGH = 0.5


@dataclass(frozen=True, slots=True)
class Copy:
    """The keys as this process keeps them; ``lifetime`` is seconds, the times monotonic seconds.

    ``good_at``: when they were asked for. ``missed_at``: when they were last asked for in vain,
    because a ``kid`` was not among them, or because that failed; then ``failure`` says why.
    """

    keys: tuple[Mapping[str, Any], ...]
    url: str
    lifetime: float
    good_at: float
    missed_at: float = -math.inf
    failure: BaikalError | None = None

    def has(self, kid: str | None) -> bool:
        """Tell whether a key is named ``kid``; a token that names none may fit any."""
        return kid is None or any(jwk.get("kid") == kid for jwk in self.keys)


def verified_jwt(
    config: ClientConfig,
    token: str,
    *,
    allowed: Collection[str] = ALGORITHMS,
    announced: str | None = None,
    decoded: jws.Verified | None = None,
) -> Flow[jws.Verified]:
    """Verify a JWT with the authserver's keys (RFC 8725 section 3.1); its claims are not checked.

    ``allowed``: the algorithms; ``announced``: the member of the metadata that narrows them, if it
    is there; ``decoded``: the token, if it is decoded already. Nothing is fetched for a token that
    no key could verify. Raises InvalidSignature, or AuthserverError if the keys cannot be had.
    """
    decoded = decoded or jws.decode(token)
    header = decoded.header
    jws.check_header(header, allowed)
    server = yield from metadata(config, "jwks_uri")
    algorithms = _algorithms(server, announced, allowed)
    jws.check_header(header, algorithms)
    keys = yield from signing_keys(config, server, header.get("kid"))
    return jws.verify(token, keys, algorithms=algorithms, decoded=decoded)


def _algorithms(
    server: Metadata, announced: str | None, allowed: Collection[str]
) -> Collection[str]:
    listed = server.document.get(announced) if announced else None
    if not isinstance(listed, list):
        return allowed
    return {alg for alg in listed if isinstance(alg, str)}.intersection(allowed)


def at_hand(config: ClientConfig) -> Flow[bool]:
    """Tell whether keys are known that may be used while the authserver does not answer."""
    server: discovery.Copy | None = yield Recall("metadata")
    known: Copy | None = yield Recall("jwks")
    now: Instant = yield Now()
    return (
        server is not None
        and discovery.usable(config, server, now)
        and known is not None
        and now.monotonic - known.good_at < config.jwks_stale
    )


def signing_keys(
    config: ClientConfig, server: Metadata, kid: str | None
) -> Flow[tuple[Mapping[str, Any], ...]]:
    """Give the authserver's JWKs, those for encryption too (OpenID Connect Core 10.1.1).

    They are renewed aside from 80 % of their lifetime on, and waited for after all of it; then,
    and while looks fail, the old ones are used for up to JWKS_STALE. For a ``kid`` that is not
    among them another look is made, JWKS_COOLDOWN after the last one in vain. Raises
    AuthserverError if there are no keys, or if ``kid`` is missing and the last look failed.
    """
    url = server.endpoint(config, "jwks_uri")
    known: Copy | None = yield Recall("jwks")
    now: Instant = yield Now()
    look = _shared(config, url, kid, known)
    found: Copy
    if known is None or not _usable(config, known, url, now):
        found = yield look
    else:
        found = known
        age = now.monotonic - known.good_at
        rested = now.monotonic - known.missed_at >= config.jwks_cooldown
        if not known.has(kid):
            if rested:
                found = yield look
        elif age >= known.lifetime and known.failure is None:
            with suppress(AuthserverError):  # this caller's time ran out, and it has its key
                found = yield look
        elif age >= RENEW * known.lifetime and (known.failure is None or rested):
            yield Background(("jwks", url), lambda: _aside(look))
    if found.failure is not None and not found.has(kid):
        # The key may be one that we could not see: that is not the bearer's fault.
        raise copy.copy(found.failure)
    return found.keys


def _usable(config: ClientConfig, known: Copy, url: str, now: Instant) -> bool:
    return known.url == url and now.monotonic - known.good_at < config.jwks_stale


def _aside(look: Share) -> Flow[None]:
    # Whoever runs the look has warned of its failure.
    with suppress(BaikalError):
        yield look


def _shared(config: ClientConfig, url: str, kid: str | None, seen: Copy | None) -> Share:
    return Share(("jwks", url), lambda: _look(config, url, kid, seen))


def _look(config: ClientConfig, url: str, kid: str | None, seen: Copy | None) -> Flow[Copy]:
    """Ask for the keys; if that fails, give the usable ones that are known, or raise."""
    known: Copy | None = yield Recall("jwks")
    if known is not None and known is not seen and known.url == url:
        # The caller before finished between our look at the memory and our turn.
        return known
    begun: Instant = yield Now()
    try:
        response: Response = yield Fetch(metadata_request(url), "jwks")
        raise_for_error(response, url, wall=begun.wall)
        keys = _process(response, url)
        missed_at = known.missed_at if known is not None else -math.inf
        found = Copy(keys, url, _lifetime(config, response), begun.monotonic, missed_at)
        if not found.has(kid):
            found = replace(found, missed_at=begun.monotonic)
    except BaikalError as error:
        if error.code == "timeout" and begun.left < ENOUGH * config.timeout:
            # It was this caller's time that ran out. Somebody aside has all of it.
            again = _shared(config, url, kid, known)
            yield Background(("jwks", url), lambda: _aside(again))
            raise
        # Recalled anew: a coroutine and a thread may look at the same time, and only one may fail.
        known = yield Recall("jwks")
        now: Instant = yield Now()
        if known is None or not _usable(config, known, url, now):
            raise
        # A copy of the error: its own frames hold what belongs to this call.
        found = replace(known, missed_at=now.monotonic, failure=copy.copy(error))
        logger.warning(
            "BAIKAL[%r]: the authserver's keys cannot be renewed, the last ones stay in use: %s",
            config.alias,
            error,
        )
    latest: Copy | None = yield Recall("jwks")
    if latest is not None and latest.url == url and latest.good_at > begun.monotonic:
        return latest  # somebody has asked later, and knows more
    yield Remember("jwks", found)
    return found


def _lifetime(config: ClientConfig, response: Response) -> float:
    """Give how long the keys are fresh: JWKS_TTL, or less by Cache-Control (RFC 9111 5.2.2)."""
    seconds = config.jwks_ttl
    for directive in response.headers.get("cache-control", "").lower().split(","):
        name, _, value = (part.strip() for part in directive.partition("="))
        if name in ("no-cache", "no-store"):
            seconds = 0
        elif name == "max-age":
            # It counts from where the answer was made; a cache on the way may have kept it.
            age = _seconds(response.headers.get("age", ""))
            seconds = min(seconds, _seconds(value.strip('"')) - age)
    return max(seconds, config.jwks_cooldown)


def _seconds(text: str) -> float:
    # RFC 9111 4.2.1: a max-age that cannot be read counts as stale; and such an Age is ignored.
    return float(text) if re.fullmatch("[0-9]+", text) else 0


def _process(response: Response, url: str) -> tuple[Mapping[str, Any], ...]:
    keys = json_answer(response, url).get("keys")
    if not isinstance(keys, list) or not all(isinstance(jwk, dict) for jwk in keys):
        problem = "is not a JWK Set"
    elif len(keys) > MAX_KEYS:
        problem = f"has more than {MAX_KEYS} keys"
    else:
        return tuple(keys)
    raise InvalidResponse(
        f"What is at {without_query(url)} {problem}.", status=response.status, code="invalid_jwks"
    )
