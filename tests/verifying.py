"""Who verifies our assertions by what others wrote, and keeps our JWK Set as any cache does."""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import pytest
import requests

#: ``verify(token, jwks, algorithms, audience)`` gives the claims, or None if it is refused. Clocks
#: may be LEEWAY apart: these tests are not about the times in an assertion.
Verify: TypeAlias = Callable[[str, dict[str, Any], list[str], str], dict[str, Any] | None]
LEEWAY = 600


def python_package(name: str) -> Any:
    return pytest.importorskip(name, reason=f"{name} is not installed")


def by_pyjwt(
    token: str, jwks: dict[str, Any], algorithms: list[str], audience: str
) -> dict[str, Any] | None:
    import jwt

    try:
        key = jwt.PyJWKSet.from_dict(jwks)[jwt.get_unverified_header(token)["kid"]]
        return jwt.decode(token, key, algorithms, audience=audience, leeway=LEEWAY)
    except (jwt.PyJWTError, KeyError):
        return None


def by_joserfc(
    token: str, jwks: dict[str, Any], algorithms: list[str], audience: str
) -> dict[str, Any] | None:
    jwk, jwt = python_package("joserfc.jwk"), python_package("joserfc.jwt")
    from joserfc.errors import JoseError

    wanted = jwt.JWTClaimsRegistry(
        leeway=LEEWAY, aud={"essential": True, "value": audience}, exp={"essential": True}
    )
    try:
        claims = jwt.decode(token, jwk.KeySet.import_key_set(jwks), algorithms).claims
        wanted.validate(claims)
    except (JoseError, ValueError):
        return None
    return dict(claims)


def by_jwcrypto(
    token: str, jwks: dict[str, Any], algorithms: list[str], audience: str
) -> dict[str, Any] | None:
    jwk, jwt = python_package("jwcrypto.jwk"), python_package("jwcrypto.jwt")
    from jwcrypto.common import JWException

    read = jwt.JWT(algs=algorithms, check_claims={"aud": audience, "exp": None})
    read.leeway = LEEWAY
    try:
        read.deserialize(token, jwk.JWKSet.from_json(json.dumps(jwks)))
    except JWException:
        return None
    return dict(json.loads(read.claims))


class Answer(NamedTuple):
    """A JWK Set, and what its Cache-Control allows, in seconds."""

    jwks: dict[str, Any]
    max_age: float
    stale_while_revalidate: float


def fetched(url: str) -> Answer:
    """Fetch a JWK Set; raise if there is none."""
    answer = requests.get(url, timeout=60)
    answer.raise_for_status()
    said = dict(re.findall(r"([a-z-]+)=(\d+)", answer.headers["Cache-Control"]))
    allowed = [float(said.get(name, 0)) for name in ("max-age", "stale-while-revalidate")]
    return Answer(answer.json(), *allowed)


class Cache:
    """Keeps what ``source`` gives for as long as its Cache-Control allows, and asks no sooner.

    It looks at no Age. ``stale``: also for as long as it may while it asks anew.
    """

    def __init__(self, source: Callable[[], Answer], *, stale: bool = False) -> None:
        self.source, self.stale = source, stale
        self._lock = threading.Lock()
        self._until = -math.inf
        self._kept: Answer | None = None

    def __call__(self) -> Answer:
        with self._lock:
            if self._kept is None or time.monotonic() >= self._until:
                self._kept = self.source()
                allowed = self._kept.max_age + self.stale * self._kept.stale_while_revalidate
                self._until = time.monotonic() + allowed
            return self._kept

    def forget(self) -> None:
        """Ask anew the next time."""
        with self._lock:
            self._kept = None
