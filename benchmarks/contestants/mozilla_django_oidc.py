"""mozilla-django-oidc's class for Django REST framework, which asks for the userinfo."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from contestants import django_site as site
from contestants.base import Setup

DISTRIBUTIONS = ("mozilla-django-oidc", "Django", "djangorestframework", "requests")

_case = site.of("mozilla")


def over_https() -> AbstractContextManager[Any]:
    """Ask the authserver over https."""
    from django.test import override_settings

    return override_settings(OIDC_OP_USER_ENDPOINT=f"{Setup.of_environment().https}/userinfo")


CASES = {
    "S1": _case(site.warm),
    "S3/http": _case(site.cold),
    "S3/https": _case(site.cold, within=over_https),
    "S4": _case(site.at_once),
    "S5": _case(site.repeated_bad),
}
