"""django-baikal's client, made by hand, with the default settings."""

from __future__ import annotations

from django.conf import settings

from contestants.base import Case, Setup

DISTRIBUTIONS = ("django-baikal", "Django")

settings.configure(
    CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
    SECRET_KEY="only-for-benchmarks",
    LOGGING_CONFIG=None,
)

from django_baikal import OpenIDClient  # noqa: E402


def made(setup: Setup, origin: str) -> OpenIDClient:
    return OpenIDClient(
        authserver_endpoint=origin,
        client_id=setup.client_id,
        client_secret=setup.client_secret,
        verify_certs=setup.ca_file,
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
