"""What no Django site can do without: a look into a dict, a question, a signature, some bytes."""

from __future__ import annotations

import json
import math
from typing import Any

from contestants import django_site as site
from contestants.base import Case, Setup

DISTRIBUTIONS = ("Django", "djangorestframework", "urllib3", "PyJWT", "cryptography")

_case = site.of("floor")
_MIDDLEWARE = "projects.floor_urls.Middleware"


def known() -> str:
    """Give credentials that are in the dict."""
    from projects.floor_urls import KNOWN

    token = site.new_token()
    KNOWN[token] = math.inf
    return f"Bearer {token}"


def looks(setup: Setup) -> Case:
    """S1: a class of Django REST framework's that looks into a dict."""
    return site.warm(setup, "/looks", good=known())


def middleware(setup: Setup, make: Any) -> Case:
    """S2: a middleware that looks into a dict."""
    return make(setup, _MIDDLEWARE, good=known())  # type: ignore[no-any-return]


def static(setup: Setup, number: int) -> Case:
    """S7: bytes that were made beforehand."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from loopback import jwk
    from projects.floor_urls import JWKS

    files = site.key_files(setup, number)
    keys: list[Any] = [load_pem_private_key(file.read_bytes(), None) for file in files]
    jwks = {"keys": [jwk(key.public_key()) for key in keys]}
    JWKS[f"/jwks/{number}"] = json.dumps(jwks).encode()
    return site.jwk_set(setup, f"/jwks/{number}", number)


CASES = {
    "S1": _case(looks),
    "S2/wsgi": _case(middleware, site.middleware),
    "S2/asgi": _case(middleware, site.async_middleware),
    "S3/http": _case(site.cold, "/asks"),
    "S3/https": _case(site.cold, "/tls"),
    "S6/first": _case(site.signed, "/verifies"),
    "S6/again": _case(looks),
    "S7/1": _case(static, 1),
    "S7/10": _case(static, 10),
}
