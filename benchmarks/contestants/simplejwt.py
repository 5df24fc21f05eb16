"""djangorestframework-simplejwt, without users, with the tokens that it makes itself (HS256)."""

from __future__ import annotations

from contestants import django_site as site
from contestants.base import Case, Setup

DISTRIBUTIONS = ("djangorestframework-simplejwt", "Django", "djangorestframework", "PyJWT")

_case = site.of("simplejwt")


def warm(setup: Setup) -> Case:
    """S1."""
    from rest_framework_simplejwt.tokens import AccessToken

    token = AccessToken()
    token["user_id"] = "bench-user"
    return site.warm(setup, good=f"Bearer {token}")


CASES = {"S1": _case(warm)}
