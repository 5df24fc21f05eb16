"""JWTs as an authserver of the world signs them, and as an attacker would like to.

By default they are id tokens; inside ``of_kind("access")`` they are access tokens without typ.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from jwt import PyJWS
from stage import pem
from world import SERVER, World, answer, config, token

from django_baikal.exceptions import InvalidResponse, InvalidSignature, TokenError
from django_baikal.keys import load_key
from django_baikal.protocol import flows
from django_baikal.protocol.authenticate import authenticate
from django_baikal.protocol.effects import Response
from django_baikal.protocol.id_token import verify_id_token
from django_baikal.protocol.jwk import b64url_encode

JWKS = f"{SERVER}/jwks"
TOKEN = f"{SERVER}/token"
#: The authserver's key, and the header that names it.
KEY = load_key(pem("RS256"))
HEADER = {"alg": "RS256", "kid": KEY.kid}


#: What tells an id token from an access token: the claims that only one of them has.
KINDS: dict[str, dict[str, Any]] = {
    "id": {"nonce": "n0nce"},
    "access": {"client_id": "app", "scope": "read"},
}
_kind = ["id"]


@contextmanager
def of_kind(kind: str) -> Iterator[None]:
    """Sign and check tokens of this kind meanwhile."""
    _kind.append(kind)
    try:
        yield
    finally:
        _kind.pop()


def jwk(kind: str = "RS256", number: int = 0, **changes: Any) -> dict[str, Any]:
    """Give a public key of the authserver; None takes a member away."""
    members = {**load_key(pem(kind, number)).public_jwk, **changes}
    return {name: value for name, value in members.items() if value is not None}


def jwks(*keys: dict[str, Any], **headers: str) -> Response:
    return answer({"keys": [*keys] or [jwk()]}, **headers)


def claims(**changes: Any) -> dict[str, Any]:
    found = {
        "iss": SERVER,
        "sub": "user",
        "aud": "client",
        "exp": 1_800_000_300,
        "iat": 1_800_000_000,
        **KINDS[_kind[-1]],
        **changes,
    }
    return {name: value for name, value in found.items() if value is not None}


def id_token(alg: str = "RS256", number: int = 0, **changes: Any) -> str:
    """Sign an id token of the claims that fit, with these changes."""
    key = load_key(pem(alg, number))
    header = {"alg": alg, "kid": key.kid}
    payload = json.dumps(claims(**changes)).encode()  # some are not what a library would sign
    return str(PyJWS().encode(payload, key.private_key, algorithm=alg, headers=header))


def encoded(value: Any) -> str:
    return b64url_encode(value if isinstance(value, bytes) else json.dumps(value).encode())


def signed(header: Any, body: Any = None, key: Any = KEY) -> str:
    """Sign any header and body, RS256, by default with the authserver's own key."""
    said = f"{encoded(header)}.{encoded(claims() if body is None else body)}"
    return f"{said}.{encoded(key.private_key.sign(said.encode(), PKCS1v15(), SHA256()))}"


def with_hmac(secret: bytes, bits: int = 256, body: Any = None, **header: Any) -> str:
    """Make a token whose secret is something that everybody knows."""
    head = {"alg": f"HS{bits}", "kid": KEY.kid, **header}
    said = f"{encoded(head)}.{encoded(claims() if body is None else body)}"
    return f"{said}.{encoded(hmac.new(secret, said.encode(), f'sha{bits}').digest())}"


def checked(world: World, value: Any, **changes: Any) -> Any:
    """Let the one who takes tokens of this kind check ``value``; give its claims."""
    if _kind[-1] == "id":
        return world.run(verify_id_token(config(), value, "n0nce", None))
    # Whatever may be larger, that the JWT's own limit is seen to hold; and no typ is needed.
    rules = {"validation": "jwt", "jwt_types": (None, "JWT", "at+jwt"), "max_token_length": 10**8}
    return world.run(authenticate(config(**{**rules, **changes}), value)).claims


def refused(
    value: Any,
    *keys: dict[str, Any],
    because: type[TokenError] = InvalidSignature,
    world: World | None = None,
    **documents: Any,
) -> World:
    """Assert that a token is refused at every door for its kind, for exactly this reason."""
    world = world or World({JWKS: jwks(*keys)}, **documents)
    readable = value.isascii() and value.isprintable()  # others are no token of any kind
    if _kind[-1] == "access":
        changes = {}
        if algorithms := documents.get("id_token_signing_alg_values_supported"):
            changes = {"jwt_algorithms": algorithms}
        with pytest.raises(TokenError) as caught:
            checked(world, value, **changes)
        malformed = caught.value.code == "malformed_token"
        assert type(caught.value) is because or malformed, caught.value
        return world
    world.answers[TOKEN] = token(id_token=value)
    with pytest.raises(TokenError) as caught:
        checked(world, value)
    assert type(caught.value) is because, caught.value
    with pytest.raises(InvalidResponse) as answered:
        world.run(flows.grant_code(config(), "c", "https://me/cb", None, "n0nce", None))
    if readable:
        assert answered.value.code == "id_token_refused"
        assert type(answered.value.__cause__) is because
    return world
