"""A fast authserver on loopback that counts its calls and does what it is told.

It serves what the compared packages ask for: discovery, a JWK Set, introspection and userinfo. Its
state is set with ``control``, over HTTP, by the process that measures.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

CLIENT_ID, CLIENT_SECRET = "bench-client", "bench-secret"
JSON = "application/json"


class Authserver:
    """Answers by ``tokens``, which maps a good token to the claims of its answer."""

    def __init__(self) -> None:
        self.origin = ""
        self.tokens: dict[str, dict[str, Any]] = {}
        self.calls: Counter[str] = Counter()
        self.failing = False
        self.delay = 0.0

    def control(self, order: dict[str, Any]) -> dict[str, int]:
        """Obey, and give the calls since the last order."""
        for token, claims in order.get("tokens", {}).items():
            if claims is None:
                self.tokens.pop(token, None)
            else:
                self.tokens[token] = claims
        self.failing = order.get("failing", self.failing)
        self.delay = order.get("delay", self.delay)
        counted, self.calls = dict(self.calls), Counter()
        return counted

    async def answer(self, target: str, authorization: str, body: bytes) -> bytes:
        """Give the bytes of the response."""
        if target == "/control":
            return response(200, self.control(json.loads(body)))
        name = NAMES.get(target.partition("?")[0], "unknown")
        self.calls[name] += 1
        if self.failing:
            return response(503, {"error": "temporarily_unavailable"})
        if name in ("introspection", "userinfo"):
            await asyncio.sleep(self.delay)
        if name == "discovery":
            return response(200, metadata(self.origin))
        if name == "jwks":
            return response(200, {"keys": []})
        if name == "introspection":
            token = parse_qs(body.decode()).get("token", [""])[0]
            claims = self.tokens.get(token)
            return response(200, {"active": True, **claims} if claims else {"active": False})
        if name == "userinfo":
            claims = self.tokens.get(authorization.removeprefix("Bearer "), {})
            if "sub" not in claims:
                challenge = 'Bearer error="invalid_token", error_description="The token is bad."'
                return response(401, {"error": "invalid_token"}, f"WWW-Authenticate: {challenge}")
            names = ("sub", "preferred_username", "email")
            return response(200, {name: claims[name] for name in names})
        return response(404, {"error": "not_found"})

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, kept alive."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.rstrip().split("\r\n")
                headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                target = first.split(" ")[1]
                writer.write(await self.answer(target, headers.get("authorization", ""), body))
                await writer.drain()
        writer.close()


NAMES = {
    "/.well-known/openid-configuration": "discovery",
    "/jwks": "jwks",
    "/introspect": "introspection",
    "/userinfo": "userinfo",
}


def metadata(origin: str) -> dict[str, Any]:
    """Describe the authserver (OpenID Connect Discovery section 3)."""
    return {
        "issuer": origin,
        "authorization_endpoint": f"{origin}/authorize",
        "token_endpoint": f"{origin}/token",
        "introspection_endpoint": f"{origin}/introspect",
        "userinfo_endpoint": f"{origin}/userinfo",
        "jwks_uri": f"{origin}/jwks",
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    }


def response(status: int, body: dict[str, Any], *headers: str) -> bytes:
    """Give the bytes of a JSON response."""
    raw = json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} -", f"Content-Type: {JSON}", f"Content-Length: {len(raw)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + raw


@contextlib.contextmanager
def running() -> Iterator[str]:
    """Run an authserver on loopback, in a thread; gives its origin."""
    server, loop, started = Authserver(), asyncio.new_event_loop(), threading.Event()

    async def main() -> None:
        listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, backlog=256)
        server.origin = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        started.set()
        await stopped.wait()
        listener.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    stopped = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    started.wait()
    try:
        yield server.origin
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join()
        loop.close()


def control(origin: str, **order: Any) -> int:
    """Tell the authserver at ``origin`` what to do; give the number of calls since last time."""
    connection = http.client.HTTPConnection(urlsplit(origin).netloc, timeout=30)
    connection.request("POST", "/control", json.dumps(order))
    counted: dict[str, int] = json.load(connection.getresponse())
    connection.close()
    return sum(counted.values())
