"""The baikal-sdk, as its page on the package index says: a client that is made once."""

from __future__ import annotations

import os

from contestants.base import Case, Setup

DISTRIBUTIONS = ("baikal-sdk", "requests", "aiohttp", "python-jose")

# It can be told of no bundle: requests and OpenSSL are.
os.environ["REQUESTS_CA_BUNDLE"] = os.environ["SSL_CERT_FILE"] = Setup.of_environment().ca_file

from clients.baikal_client import OpenIDClient  # noqa: E402


def made(setup: Setup, origin: str) -> OpenIDClient:
    return OpenIDClient(
        authserver_endpoint=origin,
        client_id=setup.client_id,
        client_secret=setup.client_secret,
        issuer=setup.client_id,
        private_certs_path=os.path.dirname(setup.key_file),
    )


def client_grant(setup: Setup, origin: str) -> Case:
    client = made(setup, origin)

    def case(n: int) -> None:
        for _ in range(n):
            client.grant_client(["read"])

    return case


CASES = {
    "C2/http": lambda setup: client_grant(setup, setup.http),
    "C2/https": lambda setup: client_grant(setup, setup.https),
}
