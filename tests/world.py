"""A world to feed flows in by hand: canned answers, a clock that is set, a memory and a cache."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from django_baikal.protocol import effects
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.driver import run
from django_baikal.protocol.effects import Flow, Request, Response

SERVER = "https://auth.example.com"
METADATA = {
    "issuer": SERVER,
    "token_endpoint": f"{SERVER}/token",
    "authorization_endpoint": f"{SERVER}/authorize",
    "introspection_endpoint": f"{SERVER}/introspect",
    "revocation_endpoint": f"{SERVER}/revoke",
    "jwks_uri": f"{SERVER}/jwks",
}
OPENID = f"{SERVER}/.well-known/openid-configuration"
OAUTH = f"{SERVER}/.well-known/oauth-authorization-server"

Answer = Response | Exception | Callable[[Request], Response]


def config(**changes: Any) -> ClientConfig:
    values = {
        "authserver_endpoint": SERVER,
        "client_id": "client",
        "client_secret": "secret",
        "issuer": "https://me.example.com/",
    }
    return ClientConfig(**{**values, **changes})


def answer(
    body: Any, status: int = 200, content_type: str = "application/json", **headers: str
) -> Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, {"content-type": content_type, **named}, raw)


def token(**changes: Any) -> Response:
    body = {"access_token": "T0ken", "token_type": "Bearer", "expires_in": 3600, **changes}
    return answer({name: value for name, value in body.items() if value is not None})


class World:
    """Performs effects. ``answers`` by URL: a response, an error, or a list used one by one."""

    def __init__(self, answers: Mapping[str, Any] | None = None, **documents: Any) -> None:
        self.answers: dict[str, Any] = {
            OPENID: answer({**METADATA, **documents}),
            **(answers or {}),
        }
        self.wall = 1_800_000_000.0
        self.monotonic = 1000.0
        self.memory: dict[str, Any] = {}
        self.cache: dict[str, tuple[Any, float]] = {}
        self.requests: list[Request] = []
        self.signed: list[dict[str, Any]] = []
        self.asides: list[Flow[Any]] = []
        self.randoms = 0

    def run(self, flow: Flow[Any]) -> Any:
        return run(flow, self.perform)

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def finish_asides(self) -> None:
        while self.asides:
            self.run(self.asides.pop())

    def calls(self, url: str) -> int:
        return sum(request.url == url for request in self.requests)

    @property
    def form(self) -> dict[str, str]:
        """The last request's form."""
        pairs = parse_qsl((self.requests[-1].body or b"").decode(), keep_blank_values=True)
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    def perform(self, effect: effects.Effect) -> Any:
        match effect:
            case effects.Fetch(request):
                self.requests.append(request)
                found = self.answers.get(request.url, answer({"error": "not_found"}, 404))
                if isinstance(found, list):
                    found = found.pop(0)
                if callable(found):
                    found = found(request)
                if isinstance(found, BaseException):
                    raise found
                return found
            case effects.Now():
                return effects.Instant(self.wall, self.monotonic, 60.0)
            case effects.Sleep(seconds):
                return self.pass_time(seconds)
            case effects.RandomToken(size):
                self.randoms += 1
                return f"random{self.randoms:x}".ljust(size, "_")
            case effects.Sign(claims):
                self.signed.append(dict(claims))
                return f"eyJhbGciOiJSUzI1NiJ9.signed{len(self.signed)}.c2ln"
            case effects.Recall(name):
                return self.memory.get(name)
            case effects.Remember(name, value):
                self.memory[name] = value
            case effects.Share(_, work):
                return self.run(work())
            case effects.Background(_, work):
                self.asides.append(work())
            case effects.CacheGet(name):
                value, until = self.cache.get(json.dumps(name), (None, 0.0))
                return value if self.wall < until else None
            case effects.CacheSet(name, value, ttl):
                self.cache[json.dumps(name)] = value, self.wall + ttl
            case effects.CacheAdd(name, value, ttl):
                if self.wall < self.cache.get(json.dumps(name), (None, 0.0))[1]:
                    return False
                self.cache[json.dumps(name)] = value, self.wall + ttl
                return True
            case effects.CacheDelete(name):
                self.cache.pop(json.dumps(name), None)
        return None
