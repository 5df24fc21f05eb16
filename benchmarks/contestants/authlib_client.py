"""Authlib's sessions on httpx2 or httpx, made once: https://docs.authlib.org, "OAuth 2 Session".

The key is one of joserfc's, made once: Authlib warns where it is given a key's text.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from authlib.integrations.httpx_client import (
    AssertionClient,
    AsyncAssertionClient,
    AsyncOAuth2Client,
    OAuth2Client,
)
from joserfc.jwk import RSAKey

from contestants.base import Case, Setup, connections, installed, times
from contestants.together import Together

DISTRIBUTIONS = installed("Authlib", "httpx2", "httpx", "joserfc")

TOKEN = "x" * 44


def client(setup: Setup, origin: str, kind: Any = OAuth2Client) -> Any:
    return kind(
        setup.client_id,
        setup.client_secret,
        scope="read",
        token_endpoint=f"{origin}/token",
        grant_type="client_credentials",
        verify=ssl.create_default_context(cafile=setup.ca_file),
    )


def asserting(setup: Setup, origin: str, kind: Any = AssertionClient) -> Any:
    return kind(
        token_endpoint=f"{origin}/token",
        issuer=setup.client_id,
        subject="tel:+34600000000",
        audience=origin,
        claims={"scope": "read", "purpose": "bench"},
        key=RSAKey.import_key(Path(setup.key_file).read_text("utf-8")),
        header={"alg": "RS256"},
        client_id=setup.client_id,
        verify=ssl.create_default_context(cafile=setup.ca_file),
    )


def client_grant(setup: Setup, origin: str) -> Callable[[], object]:
    made = client(setup, origin)
    return made.fetch_token  # type: ignore[no-any-return]


def user_grant(setup: Setup, origin: str) -> Callable[[], object]:
    made = asserting(setup, origin)
    return made.refresh_token  # type: ignore[no-any-return]


def introspection(setup: Setup, origin: str) -> Callable[[], object]:
    made = client(setup, origin)
    return lambda: made.introspect_token(f"{origin}/introspect", token=TOKEN).json()


def cached(setup: Setup) -> Callable[[], object]:
    made = client(setup, setup.http)
    made.fetch_token()

    def call() -> object:
        made.ensure_active_token()
        return made.token["access_token"]

    return call


def clients_at_once(at_once: int, setup: Setup, origin: str) -> Together:
    made = client(setup, origin, AsyncOAuth2Client)
    return Together(at_once, lambda: made.fetch_token, made.aclose)


def users_at_once(at_once: int, setup: Setup) -> Together:
    made = asserting(setup, setup.http, AsyncAssertionClient)
    return Together(at_once, lambda: made.refresh_token, made.aclose)


CASES: dict[str, Callable[[Setup], Case]] = {
    "C1/http": lambda s: times(user_grant(s, s.http)),
    "C1/https": lambda s: times(user_grant(s, s.https)),
    "C2/http": lambda s: times(client_grant(s, s.http)),
    "C2/https": lambda s: times(client_grant(s, s.https)),
    "C2/introspect/http": lambda s: times(introspection(s, s.http)),
    "C2/introspect/https": lambda s: times(introspection(s, s.https)),
    "C3": lambda s: times(cached(s)),
    "C4/50/http": lambda s: clients_at_once(50, s, s.http),
    "C4/50/https": lambda s: clients_at_once(50, s, s.https),
    "C4/500/http": lambda s: clients_at_once(500, s, s.http),
    "C4/500/https": lambda s: clients_at_once(500, s, s.https),
    "C5/50": lambda s: users_at_once(50, s),
    "C5/50/stall": lambda s: users_at_once(50, s).stall,
    "C6/connections": lambda s: connections(s, lambda: client_grant(s, s.https)),
}
