"""djangorestframework-simplejwt, without users, with the authserver's tokens (RS256)."""

from __future__ import annotations

from contestants import django_site as site

DISTRIBUTIONS = ("djangorestframework-simplejwt", "Django", "djangorestframework", "PyJWT")

_case = site.of("simplejwt_rs256")

CASES = {
    "S6/first": _case(site.signed),
    "S6/again": _case(site.signed, again=True),
}
