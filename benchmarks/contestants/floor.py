"""What nobody can do without: the request itself, the signature itself, a look into a dict."""

from __future__ import annotations

import base64

import urllib3

from contestants.base import Case, Setup

DISTRIBUTIONS = ("urllib3",)


def pooled(setup: Setup, origin: str, path: str, body: bytes) -> Case:
    """POST the same bytes over a connection that is kept."""
    pool = urllib3.PoolManager(ca_certs=setup.ca_file)
    credentials = base64.b64encode(f"{setup.client_id}:{setup.client_secret}".encode()).decode()
    headers = {
        "Authorization": f"Basic {credentials}",
        "Content-Type": "application/x-www-form-urlencoded",
        "Accept": "application/json",
    }

    def case(n: int) -> None:
        for _ in range(n):
            answer = pool.request("POST", origin + path, body=body, headers=headers)
            if answer.status != 200:
                raise RuntimeError(f"The authserver answered {answer.status}.")

    return case


GRANT = b"grant_type=client_credentials&scope=read"

CASES = {
    "C2/http": lambda setup: pooled(setup, setup.http, "/token", GRANT),
    "C2/https": lambda setup: pooled(setup, setup.https, "/token", GRANT),
}
