"""requests-oauth2client: one client, whose session is kept, and a key that is made once.

https://github.com/guillp/requests_oauth2client, "Using OAuth2Client as a requests Auth Handler",
"Token Introspection" and "Private Key JWT". ``testing`` lets it take http.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from pathlib import Path

import requests
from jwskate import Jwk, Jwt
from requests_oauth2client import ClientSecretBasic, OAuth2Client, OAuth2ClientCredentialsAuth

from contestants.base import Case, Setup, connections, times

DISTRIBUTIONS = ("requests-oauth2client", "jwskate", "requests", "urllib3")

TOKEN = "x" * 44


def client(setup: Setup, origin: str) -> OAuth2Client:
    session = requests.Session()
    session.verify = setup.ca_file
    return OAuth2Client(
        token_endpoint=f"{origin}/token",
        introspection_endpoint=f"{origin}/introspect",
        auth=ClientSecretBasic(setup.client_id, setup.client_secret),
        session=session,
        testing=True,
    )


def client_grant(setup: Setup, origin: str) -> Callable[[], object]:
    made = client(setup, origin)
    return lambda: made.client_credentials(scope="read")


def user_grant(setup: Setup, origin: str) -> Callable[[], object]:
    made = client(setup, origin)
    key = Jwk.from_pem(Path(setup.key_file).read_bytes()).with_kid_thumbprint()

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
        return made.jwt_bearer(Jwt.sign(claims, key, alg="RS256"))

    return call


def introspection(setup: Setup, origin: str) -> Callable[[], object]:
    made = client(setup, origin)
    return lambda: made.introspect_token(TOKEN)


def cached(setup: Setup) -> Callable[[], object]:
    auth = OAuth2ClientCredentialsAuth(client(setup, setup.http), scope="read")
    request = requests.Request("GET", setup.http).prepare()
    return lambda: auth(request)


CASES: dict[str, Callable[[Setup], Case]] = {
    "C1/http": lambda s: times(user_grant(s, s.http)),
    "C1/https": lambda s: times(user_grant(s, s.https)),
    "C2/http": lambda s: times(client_grant(s, s.http)),
    "C2/https": lambda s: times(client_grant(s, s.https)),
    "C2/introspect/http": lambda s: times(introspection(s, s.http)),
    "C2/introspect/https": lambda s: times(introspection(s, s.https)),
    "C3": lambda s: times(cached(s)),
    "C6/connections": lambda s: connections(s, lambda: client_grant(s, s.https)),
}
