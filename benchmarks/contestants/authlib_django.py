"""Authlib's resource protector for Django, with the validator that asks about each token."""

from __future__ import annotations

from contestants import django_site as site

DISTRIBUTIONS = ("Authlib", "Django", "requests")

_case = site.of("authlib_site")

CASES = {
    "S1": _case(site.warm, plain="/plain"),
    "S3/http": _case(site.cold, plain="/plain"),
    "S3/https": _case(site.cold, "/tls", "/plain"),
    "S4": _case(site.at_once),
    "S5": _case(site.repeated_bad),
}
