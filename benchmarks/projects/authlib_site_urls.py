"""Authlib, as docs/django/2/resource-server.rst says, with the validator for introspection.

That one is as its own docstring says, with the client's credentials; whoever follows it keeps no
answer.
"""

from __future__ import annotations

import requests
from authlib.integrations.django_oauth2 import ResourceProtector
from authlib.oauth2.rfc7662 import IntrospectTokenValidator
from contestants.base import Setup
from django.urls import path

from projects.hello import plain
from projects.hello import urlpatterns as hello

SETUP = Setup.of_environment()


class Validator(IntrospectTokenValidator):
    """Asks about each token."""

    origin = SETUP.http

    def introspect_token(self, token_string):
        """Give what the authserver says."""
        response = requests.post(
            f"{self.origin}/introspect",
            data={"token": token_string},
            auth=(SETUP.client_id, SETUP.client_secret),
        )
        response.raise_for_status()
        return response.json()


class OverTls(Validator):
    """Asks over https."""

    origin = SETUP.https


def protected(validator):
    """Protect a view."""
    require_oauth = ResourceProtector()
    require_oauth.register_token_validator(validator)
    return require_oauth("read")(plain)


urlpatterns = [*hello, path("protected", protected(Validator())), path("tls", protected(OverTls()))]
