"""Django REST framework's own TokenAuthentication, which asks nobody but the database."""

from __future__ import annotations

from contestants import django_site as site
from contestants.base import Case, Setup

DISTRIBUTIONS = ("Django", "djangorestframework")

_case = site.of("drf_token")


def warm(setup: Setup) -> Case:
    """S1."""
    from django.contrib.auth.models import User
    from rest_framework.authtoken.models import Token

    token = Token.objects.create(user=User.objects.get(username="bench-user"))
    return site.warm(setup, good=f"Token {token.key}", bad=f"Token {site.new_token()}")


CASES = {"S1": _case(warm)}
