"""django-baikal's client, made by hand, with the default settings: docs/howto/get-tokens.md."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
from django.conf import settings

from contestants.base import Case, Setup, cold, connections, times
from contestants.together import Together

settings.configure(
    CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
    SECRET_KEY="only-for-benchmarks-" + "x" * 40,
    LOGGING_CONFIG=None,
)

from django_baikal import OpenIDClient  # noqa: E402 - settings come first

DISTRIBUTIONS = ("django-baikal", "Django", "requests", "urllib3", "aiohttp", "PyJWT")

TOKEN = "x" * 44
USER: dict[str, Any] = {"sub": "tel:+34600000000", "scopes": ["read"], "purposes": ["bench"]}


def client(setup: Setup, origin: str) -> OpenIDClient:
    return OpenIDClient(
        authserver_endpoint=origin,
        client_id=setup.client_id,
        client_secret=setup.client_secret,
        issuer=setup.client_id,
        private_certs_path=str(Path(setup.key_file).parent),
        verify_certs=setup.ca_file,
    )


def client_grant(setup: Setup, origin: str) -> Callable[[], object]:
    made = client(setup, origin)
    return lambda: made.grant_client(["read"])


def user_grant(setup: Setup, origin: str) -> Callable[[], object]:
    made = client(setup, origin)
    return lambda: made.grant_user(**USER)


def introspection(setup: Setup, origin: str) -> Callable[[], object]:
    made = client(setup, origin)
    return lambda: made.introspect(TOKEN)


def cached(setup: Setup) -> Callable[[], object]:
    made = client(setup, setup.http)
    return lambda: made.get_token(["read"])


def clients_at_once(at_once: int, setup: Setup, origin: str) -> Together:
    made = client(setup, origin)
    return Together(at_once, lambda: lambda: made.agrant_client(["read"]))


def users_at_once(at_once: int, setup: Setup) -> Together:
    made = client(setup, setup.http)
    return Together(at_once, lambda: lambda: made.agrant_user(**USER))


def id_token(setup: Setup) -> str:
    now = int(time.time())
    claims = {"iss": setup.http, "aud": setup.client_id, "sub": "ada", "iat": now, "exp": now + 600}
    key = Path(setup.token_key_file).read_text("utf-8")
    return jwt.encode(claims, key, "RS256", {"kid": setup.token_kid})


def verification(setup: Setup) -> Callable[[], object]:
    """Verify an id token: it takes both the metadata and the keys."""
    made, token = client(setup, setup.http), id_token(setup)
    return lambda: made.verify_id_token(token)


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
    "C5/500": lambda s: users_at_once(500, s),
    "C5/50/stall": lambda s: users_at_once(50, s).stall,
    "C5/500/stall": lambda s: users_at_once(500, s).stall,
    "C6/connections": lambda s: connections(s, lambda: client_grant(s, s.https)),
    "C6/cold": lambda s: cold(s, lambda: verification(s)),
}
