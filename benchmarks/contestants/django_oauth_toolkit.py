"""django-oauth-toolkit as a resource server, and as what publishes keys."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from contestants import django_site as site
from contestants.base import Case, Setup

DISTRIBUTIONS = ("django-oauth-toolkit", "Django", "djangorestframework", "requests")

_case = site.of("oauth_toolkit_site")
_MIDDLEWARE = "oauth2_provider.middleware.OAuth2TokenMiddleware"


def with_settings(**changed: Any) -> AbstractContextManager[Any]:
    """Have other settings for a while."""
    from django.conf import settings
    from django.test import override_settings

    return override_settings(OAUTH2_PROVIDER={**settings.OAUTH2_PROVIDER, **changed})


def over_https() -> AbstractContextManager[Any]:
    """Ask the authserver over https."""
    origin = Setup.of_environment().https
    return with_settings(RESOURCE_SERVER_INTROSPECTION_URL=f"{origin}/introspect")


def with_keys(number: int) -> AbstractContextManager[Any]:
    """Have so many keys."""
    from django.conf import settings

    return with_settings(OIDC_RSA_PRIVATE_KEYS_INACTIVE=settings.KEYS[1:number])


def jwks(setup: Setup, number: int) -> Case:
    """Publish so many keys."""
    return site.jwk_set(setup, "/jwks", number, within=lambda: with_keys(number))


def first_hit(_: Setup, number: int) -> Case:
    """Publish so many keys, of which none has been parsed."""

    def forgotten() -> AbstractContextManager[Any]:
        from oauth2_provider.utils import jwk_from_pem

        jwk_from_pem.cache_clear()
        return with_keys(number)

    return site.first_hit("/jwks", forgotten)


CASES = {
    "S1": _case(site.warm),
    "S2/wsgi": _case(site.middleware, _MIDDLEWARE),
    "S2/asgi": _case(site.async_middleware, _MIDDLEWARE),
    "S3/http": _case(site.cold),
    "S3/https": _case(site.cold, within=over_https),
    "S4": _case(site.at_once),
    "S5": _case(site.repeated_bad),
    "S7/1": _case(jwks, 1),
    "S7/10": _case(jwks, 10),
    "S7/first/1": _case(first_hit, 1),
    "S7/first/10": _case(first_hit, 10),
}
