"""Views that do what nobody can do without: look, ask, verify, or answer with bytes."""

from __future__ import annotations

import base64
import functools
import json
import time
from pathlib import Path
from types import SimpleNamespace

import urllib3
from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from contestants.base import Setup
from django.core.cache import cache
from django.http import HttpResponse
from django.urls import path
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import IsAuthenticated

from projects.hello import urlpatterns as hello
from projects.urls import Hello
from projects.urls import urlpatterns as common

SETUP = Setup.of_environment()
USER = SimpleNamespace(is_authenticated=True)
#: The tokens that are known, and until when, in seconds since the epoch.
KNOWN: dict[str, float] = {}


def token_of(request):
    """Give the bearer token, if there is one."""
    scheme, _, token = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    return token if scheme.lower() == "bearer" else None


class Looks(BaseAuthentication):
    """Looks into a dict, and does nothing else."""

    def authenticate(self, request):
        """Give the user."""
        if (token := token_of(request)) is None:
            return None
        if KNOWN.get(token, 0) < time.time():
            raise AuthenticationFailed
        return USER, token

    def authenticate_header(self, request):  # noqa: ARG002 - the framework's name
        """Make it a 401."""
        return "Bearer"


class Asks(Looks):
    """Looks into Django's cache, and asks over a connection that is kept."""

    origin = SETUP.http
    pool = urllib3.PoolManager(ca_certs=SETUP.ca_file)
    headers = {  # noqa: RUF012 - nobody changes it
        "Authorization": "Basic "
        + base64.b64encode(f"{SETUP.client_id}:{SETUP.client_secret}".encode()).decode(),
        "Content-Type": "application/x-www-form-urlencoded",
        "Accept": "application/json",
    }

    def authenticate(self, request):
        """Give the user, and what the authserver says (RFC 7662)."""
        if (token := token_of(request)) is None:
            return None
        if (said := cache.get(token)) is None:
            url, body = f"{self.origin}/introspect", b"token=" + token.encode()
            answer = self.pool.request("POST", url, body=body, headers=self.headers)
            said = json.loads(answer.data)
            cache.set(token, said, 60)
        if not said["active"]:
            raise AuthenticationFailed
        return USER, said


class AsksOverTls(Asks):
    """Asks over https."""

    origin = SETUP.https


class Verifies(Looks):
    """Verifies a JWT with PyJWT and a key that is kept."""

    def authenticate(self, request):
        """Give the user, and the claims."""
        import jwt

        if (token := token_of(request)) is None:
            return None
        issuer, audience = SETUP.http, SETUP.client_id
        try:
            claims = jwt.decode(token, key(), ["RS256"], audience=audience, issuer=issuer)
        except jwt.InvalidTokenError:
            raise AuthenticationFailed from None
        return USER, claims


@functools.cache
def key():
    """Parse the authserver's public key, once."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    return load_pem_private_key(Path(SETUP.token_key_file).read_bytes(), None).public_key()


class Middleware:
    """Looks into a dict, and does nothing else, without a thread."""

    sync_capable = async_capable = True

    def __init__(self, get_response):
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request):
        """Answer, or let a coroutine answer."""
        token = token_of(request)
        if token is not None and KNOWN.get(token, 0) >= time.time():
            request.user = USER
        return self.get_response(request)


def static(request):
    """Answer with a JWK Set, and its headers, that were made beforehand."""
    response = HttpResponse(JWKS[request.path], content_type="application/json")
    response.headers["Cache-Control"] = "public, max-age=900"
    response.headers["ETag"] = '"made-beforehand"'
    response.headers["Access-Control-Allow-Origin"] = "*"
    return response


#: Path -> JWK Set.
JWKS: dict[str, bytes] = {}


def protected(authentication):
    """Make a view for those whom this class knows."""
    return Hello.as_view(
        authentication_classes=[authentication], permission_classes=[IsAuthenticated]
    )


urlpatterns = [
    *common,
    *hello,
    path("looks", protected(Looks)),
    path("asks", protected(Asks)),
    path("tls", protected(AsksOverTls)),
    path("verifies", protected(Verifies)),
    path("jwks/1", static),
    path("jwks/10", static),
]
