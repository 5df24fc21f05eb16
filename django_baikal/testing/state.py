"""What the fake authserver knows: its clients, keys, clock, codes and tokens."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from django_baikal.keys.base import KeyMaterial
from django_baikal.keys.generate import generate_key
from django_baikal.protocol.effects import Request, Response

TokenFormat = Literal["opaque", "jwt"]

#: How far the authserver's clock may be from a client's, seconds.
LEEWAY = 5
#: How long a jti is remembered, seconds.
JTI_MEMORY = 7 * 86400
#: The longest time that an assertion may be good for, seconds.
MAX_ASSERTION_LIFETIME = 3600
#: How long an issuer's metadata and keys are kept, seconds.
ISSUER_TTL = 900

PATHS = {
    "discovery": "/.well-known/openid-configuration",
    "jwks": "/jwks",
    "token": "/token",
    "authorization": "/authorize",
    "introspection": "/introspect",
    "revocation": "/revoke",
}
_RFC8414 = "/.well-known/oauth-authorization-server"


@dataclass(frozen=True, slots=True)
class Client:
    """A registered client; ``keys`` or ``jwks_uri`` verify what it signs."""

    client_id: str
    client_secret: str | None = field(default=None, repr=False)
    keys: tuple[Mapping[str, Any], ...] = ()
    jwks_uri: str | None = None
    redirect_uris: tuple[str, ...] = ()
    auth_methods: tuple[str, ...] = ()


@dataclass(slots=True)
class Issued:
    """A token that was issued; ``family``: what came from the same grant is revoked with it."""

    client_id: str
    kind: Literal["access", "refresh"]
    family: str
    scope: str
    claims: dict[str, Any] = field(repr=False)
    expires_at: float
    revoked: bool = False


@dataclass(slots=True)
class Code:
    """An authorization code; ``family`` is set once it was used."""

    client_id: str
    redirect_uri: str
    scope: str
    challenge: str | None
    nonce: str | None
    claims: dict[str, Any] = field(repr=False)
    auth_time: int
    expires_at: float
    family: str | None = None


@dataclass(slots=True)
class IssuerKeys:
    """An issuer's published keys and when they were fetched; ``jwks_uri`` from its metadata."""

    jwks_uri: str
    found_at: float
    keys: list[dict[str, Any]] = field(default_factory=list)
    keys_at: float = float("-inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The choices that do not change; times in seconds."""

    lenient: bool
    token_format: TokenFormat
    access_token_lifetime: float
    refresh_token_lifetime: float
    code_lifetime: float
    jwks_cooldown: float


@functools.cache
def shared_key() -> KeyMaterial:
    """Give the key that every fake authserver of this process starts with; RSA keys are slow."""
    return generate_key("RS256")


class State:
    """Everything that changes, behind ``lock``, which is never held while something is fetched."""

    def __init__(self, endpoint: str, rules: Rules) -> None:
        self.issuer = endpoint
        self.rules = rules
        self.lock = threading.RLock()
        self.clients: dict[str, Client] = {}
        self.tokens: dict[str, Issued] = {}
        self.codes: dict[str, Code] = {}
        self.jtis: dict[tuple[str, str], float] = {}
        self.issuers: dict[str, IssuerKeys] = {}
        self.fetch: Callable[[Request], Response]
        self.clock_offset = 0.0
        self._newer_keys: list[KeyMaterial] = []

    def now(self) -> float:
        """Give the time on the authserver's clock, seconds since the epoch."""
        return time.time() + self.clock_offset

    def url(self, endpoint: str) -> str:
        """Give the URL of one of its endpoints."""
        return self.issuer.rstrip("/") + PATHS[endpoint]

    def own_keys(self) -> list[KeyMaterial]:
        """Give its keys, the one that signs first."""
        return [*self._newer_keys, shared_key()]

    def rotate_keys(self) -> KeyMaterial:
        """Sign with a new key from now on; the old ones stay published."""
        key = generate_key("RS256")
        with self.lock:
            self._newer_keys.insert(0, key)
        return key

    def endpoint_of(self, url: str) -> str:
        """Give the name of the endpoint that ``url`` belongs to, or "unknown"."""
        path = urlsplit(url).path
        base = urlsplit(self.issuer).path.rstrip("/")
        if path in (f"{base}{_RFC8414}", f"{_RFC8414}{base}"):
            return "discovery"
        for name, own in PATHS.items():
            if path == base + own:
                return name
        return "unknown"

    def use_jti(self, issuer: str, jti: str) -> bool:
        """Take a jti; False if the issuer has used it within the memory of the authserver."""
        now = self.now()
        with self.lock:
            if len(self.jtis) > 10_000:
                self.jtis = {name: end for name, end in self.jtis.items() if end > now}
            if self.jtis.get((issuer, jti), now) > now:
                return False
            self.jtis[issuer, jti] = now + JTI_MEMORY
            return True

    def forget_expired(self) -> None:
        """Drop what is over, once there is much of it; call with the lock held."""
        if len(self.tokens) + len(self.codes) > 10_000:
            now = self.now()
            self.tokens = {name: it for name, it in self.tokens.items() if it.expires_at > now}
            self.codes = {name: it for name, it in self.codes.items() if it.expires_at > now}
