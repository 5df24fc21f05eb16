"""drf-oidc-auth: its class for bearers, which asks for the userinfo, and its class for JWTs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from contestants import django_site as site
from contestants.base import Setup

DISTRIBUTIONS = ("drf-oidc-auth", "Django", "djangorestframework", "requests", "joserfc")

_case = site.of("drf_oidc_auth_site")


@contextmanager
def over_https() -> Iterator[None]:
    """Ask the authserver over https; what the cache has of the other origin is dropped."""
    from django.core.cache import cache
    from oidc_auth.settings import api_settings

    before = api_settings.OIDC_ENDPOINT
    cache.clear()
    api_settings.OIDC_ENDPOINT = Setup.of_environment().https
    try:
        yield
    finally:
        api_settings.OIDC_ENDPOINT = before
        cache.clear()


CASES = {
    "S1": _case(site.warm),
    "S3/http": _case(site.cold),
    "S3/https": _case(site.cold, within=over_https),
    "S4": _case(site.at_once),
    "S5": _case(site.repeated_bad),
    "S6/first": _case(site.signed, scheme="JWT"),
    "S6/again": _case(site.signed, scheme="JWT", again=True),
}
