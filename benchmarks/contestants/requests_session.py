"""What one writes by hand: a session of requests that is kept, and PyJWT with a parsed key.

https://requests.readthedocs.io, "Session Objects"; https://pyjwt.readthedocs.io, "Usage Examples".
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from pathlib import Path

import jwt
import requests
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from contestants.base import Case, Setup, connections, times

DISTRIBUTIONS = ("requests", "urllib3", "PyJWT")

TOKEN = "x" * 44


def posting(setup: Setup, url: str) -> Callable[[dict[str, str]], object]:
    session = requests.Session()
    session.auth = (setup.client_id, setup.client_secret)
    session.verify = setup.ca_file

    def post(data: dict[str, str]) -> object:
        answer = session.post(url, data, timeout=15)
        answer.raise_for_status()
        return answer.json()

    return post


def client_grant(setup: Setup, origin: str) -> Callable[[], object]:
    post = posting(setup, f"{origin}/token")
    return lambda: post({"grant_type": "client_credentials", "scope": "read"})


def user_grant(setup: Setup, origin: str) -> Callable[[], object]:
    post = posting(setup, f"{origin}/token")
    key = load_pem_private_key(Path(setup.key_file).read_bytes(), None)

    def call() -> object:
        now = int(time.time())
        claims = {
            "iss": setup.client_id,
            "sub": "tel:+34600000000",
            "aud": origin,
            "iat": now,
            "exp": now + 300,
            "jti": str(uuid.uuid4()),
            "scope": "read",
            "purpose": "bench",
        }
        assertion = jwt.encode(claims, key, "RS256", {"kid": "bench"})  # type: ignore[arg-type]
        grant_type = "urn:ietf:params:oauth:grant-type:jwt-bearer"
        return post({"grant_type": grant_type, "assertion": assertion})

    return call


def introspection(setup: Setup, origin: str) -> Callable[[], object]:
    post = posting(setup, f"{origin}/introspect")
    return lambda: post({"token": TOKEN})


CASES: dict[str, Callable[[Setup], Case]] = {
    "C1/http": lambda s: times(user_grant(s, s.http)),
    "C1/https": lambda s: times(user_grant(s, s.https)),
    "C2/http": lambda s: times(client_grant(s, s.http)),
    "C2/https": lambda s: times(client_grant(s, s.https)),
    "C2/introspect/http": lambda s: times(introspection(s, s.http)),
    "C2/introspect/https": lambda s: times(introspection(s, s.https)),
    "C6/connections": lambda s: connections(s, lambda: client_grant(s, s.https)),
}
