"""The baikal-sdk as its page says, https://pypi.org/project/baikal-sdk/: a client, made once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contestants.base import Case, Setup, cold, connections, times
from contestants.together import Together

# It can be told of no bundle: requests and OpenSSL are.
os.environ["REQUESTS_CA_BUNDLE"] = os.environ["SSL_CERT_FILE"] = Setup.of_environment().ca_file

from clients import baikal_client
from clients.aio import aiohttp_client
from clients.aio import baikal_client as aio

DISTRIBUTIONS = ("baikal-sdk", "requests", "urllib3", "aiohttp", "python-jose")

TOKEN = "x" * 44
USER: dict[str, Any] = {"sub": "tel:+34600000000", "scopes": ["read"], "purposes": ["bench"]}


def client(setup: Setup, origin: str, kind: Any = baikal_client.OpenIDClient) -> Any:
    return kind(
        authserver_endpoint=origin,
        client_id=setup.client_id,
        client_secret=setup.client_secret,
        issuer=setup.client_id,
        private_certs_path=str(Path(setup.key_file).parent),
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


def clients_at_once(at_once: int, setup: Setup, origin: str) -> Together:
    made = client(setup, origin, aio.OpenIDClient)
    return Together(at_once, lambda: lambda: made.grant_client(["read"]), aiohttp_client.close)


def users_at_once(at_once: int, setup: Setup) -> Together:
    made = client(setup, setup.http, aio.OpenIDClient)
    return Together(at_once, lambda: lambda: made.grant_user(**USER), aiohttp_client.close)


def forgetful(setup: Setup) -> Callable[[], object]:
    """Give the call of a client that is new: what it knows of the authserver is its module's."""
    baikal_client.get_authserver_config.cache_clear()
    return client_grant(setup, setup.http)


CASES: dict[str, Callable[[Setup], Case]] = {
    "C1/http": lambda s: times(user_grant(s, s.http)),
    "C1/https": lambda s: times(user_grant(s, s.https)),
    "C2/http": lambda s: times(client_grant(s, s.http)),
    "C2/https": lambda s: times(client_grant(s, s.https)),
    "C2/introspect/http": lambda s: times(introspection(s, s.http)),
    "C2/introspect/https": lambda s: times(introspection(s, s.https)),
    "C4/50/http": lambda s: clients_at_once(50, s, s.http),
    "C4/50/https": lambda s: clients_at_once(50, s, s.https),
    "C4/500/http": lambda s: clients_at_once(500, s, s.http),
    "C4/500/https": lambda s: clients_at_once(500, s, s.https),
    "C5/50/stall": lambda s: users_at_once(50, s).stall,
    "C6/connections": lambda s: connections(s, lambda: client_grant(s, s.https)),
    "C6/cold": lambda s: cold(s, lambda: forgetful(s)),
}
