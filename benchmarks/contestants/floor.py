"""What nobody can do without: the signature, the request with a kept connection, a look-up."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import urllib3
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from contestants.base import Case, Setup, connections, times
from contestants.together import Together

DISTRIBUTIONS = ("cryptography", "urllib3", "aiohttp")

CLIENT_GRANT = b"grant_type=client_credentials&scope=read"
INTROSPECTION = b"token=" + b"x" * 44
JWT_BEARER = b"grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion="


def headers(setup: Setup) -> dict[str, str]:
    credentials = base64.b64encode(f"{setup.client_id}:{setup.client_secret}".encode()).decode()
    return {
        "Authorization": f"Basic {credentials}",
        "Content-Type": "application/x-www-form-urlencoded",
        "Accept": "application/json",
    }


def posting(setup: Setup, url: str, body: bytes) -> Callable[[], object]:
    """POST the same bytes over a connection that is kept."""
    pool = urllib3.PoolManager(ca_certs=setup.ca_file)
    sent = headers(setup)

    def call() -> None:
        answer = pool.request("POST", url, body=body, headers=sent)
        if answer.status != 200:
            raise RuntimeError(f"The authserver answered {answer.status}.")

    return call


def signing(setup: Setup) -> Callable[[], bytes]:
    """Sign as many bytes as an assertion has, RS256 with a key of 2048 bits."""
    loaded = serialization.load_pem_private_key(Path(setup.key_file).read_bytes(), None)
    key: Any = loaded
    scheme, digest, message = padding.PKCS1v15(), hashes.SHA256(), b"x" * 450
    return lambda: key.sign(message, scheme, digest)


def looking_up(n: int) -> None:
    """Look into a dict by a name of two parts that are made anew."""
    tokens = {("default", "read"): "token"}
    alias, scope = "default", "read"
    for _ in range(n):
        tokens[alias, scope]


def together(at_once: int, setup: Setup, origin: str, body: bytes, sign: bool = False) -> Together:
    """POST many at once, in a session of aiohttp's."""
    session: aiohttp.ClientSession

    def make() -> Callable[[], Awaitable[object]]:
        nonlocal session
        context = ssl.create_default_context(cafile=setup.ca_file)
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))
        signature = signing(setup)
        sent = headers(setup)

        async def call() -> None:
            data = body + base64.urlsafe_b64encode(signature()) if sign else body
            async with session.post(f"{origin}/token", data=data, headers=sent) as answer:
                answer.raise_for_status()
                await answer.read()

        return call

    async def close() -> None:
        await session.close()

    return Together(at_once, make, close)


CASES: dict[str, Callable[[Setup], Case]] = {
    "signature": lambda s: times(signing(s)),
    "C2/http": lambda s: times(posting(s, f"{s.http}/token", CLIENT_GRANT)),
    "C2/https": lambda s: times(posting(s, f"{s.https}/token", CLIENT_GRANT)),
    "C2/introspect/http": lambda s: times(posting(s, f"{s.http}/introspect", INTROSPECTION)),
    "C2/introspect/https": lambda s: times(posting(s, f"{s.https}/introspect", INTROSPECTION)),
    "C3": lambda _: looking_up,
    "C4/50/http": lambda s: together(50, s, s.http, CLIENT_GRANT),
    "C4/50/https": lambda s: together(50, s, s.https, CLIENT_GRANT),
    "C4/500/http": lambda s: together(500, s, s.http, CLIENT_GRANT),
    "C4/500/https": lambda s: together(500, s, s.https, CLIENT_GRANT),
    "C5/50": lambda s: together(50, s, s.http, JWT_BEARER, sign=True),
    "C5/500": lambda s: together(500, s, s.http, JWT_BEARER, sign=True),
    "C5/50/stall": lambda s: together(50, s, s.http, JWT_BEARER, sign=True).stall,
    "C5/500/stall": lambda s: together(500, s, s.http, JWT_BEARER, sign=True).stall,
    "C6/connections": lambda s: connections(
        s, lambda: posting(s, f"{s.https}/token", CLIENT_GRANT)
    ),
}
