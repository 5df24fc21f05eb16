"""What is demanded of JWT access tokens, of the keys that verify them, and of signed answers.

From the attacker's side, at the client that the doors use, sync and async.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from issued import encoded
from stage import both_ways, pem

from django_baikal import OpenIDClient
from django_baikal.exceptions import (
    AuthserverError,
    AuthserverUnavailable,
    InvalidResponse,
    InvalidSignature,
    TokenError,
)
from django_baikal.keys import load_key
from django_baikal.keys.base import KeyMaterial
from django_baikal.protocol.jwks import MAX_KEYS
from django_baikal.testing import FakeAuthserver

KEY = load_key(pem("RS256"))
ELLIPTIC = load_key(pem("ES256"))
FOREIGN = load_key(pem("RS256", 5))


@pytest.fixture
def authserver() -> Iterator[FakeAuthserver]:
    with FakeAuthserver(token_format="jwt").in_memory() as server:
        publish(server, KEY.public_jwk)
        yield server


def publish(server: FakeAuthserver, *keys: dict[str, Any], **options: Any) -> None:
    server.recover()
    server.fail("jwks", body={"keys": [*keys]}, **options)


def client_of(server: FakeAuthserver, **changes: Any) -> OpenIDClient:
    entry = {name.lower(): value for name, value in server.settings().items()}
    return OpenIDClient(**{**entry, "validation": "jwt", **changes})


def claims(server: FakeAuthserver, **changes: Any) -> dict[str, Any]:
    now = int(time.time())
    found = {
        "iss": server.endpoint,
        "sub": "anna",
        "aud": "test-client",
        "client_id": "app",
        "scope": "read",
        "iat": now,
        "exp": now + 300,
        **changes,
    }
    return {name: value for name, value in found.items() if value is not None}


def signed(
    server: FakeAuthserver, key: KeyMaterial = KEY, typ: str = "at+jwt", **changes: Any
) -> str:
    return key.sign(claims(server, **changes), typ=typ)


def rewritten(token: str, part: int, **changes: Any) -> str:
    """Change members of the header or of the claims, and leave the signature as it was."""
    parts = token.split(".")
    padded = parts[part] + "=" * (-len(parts[part]) % 4)
    parts[part] = encoded({**json.loads(base64.urlsafe_b64decode(padded)), **changes})
    return ".".join(parts)


# -- 17: the token -----------------------------------------------------------------------------


@both_ways
def test_requirement_17_a_token_counts_as_it_was_signed_and_not_otherwise(call, authserver):
    client = client_of(authserver)
    good = signed(authserver)
    assert call(client, "authenticate", good).subject == "anna"
    head, body, signature = good.split(".")
    for forged in (
        rewritten(good, 1, sub="admin"),
        rewritten(good, 1, exp=int(time.time()) + 10**6),
        rewritten(good, 1, scope="read admin"),
        rewritten(good, 0, alg="none"),
        rewritten(good, 0, alg="HS256"),
        rewritten(good, 0, alg="RS512"),
        rewritten(good, 0, alg="PS256"),
        rewritten(good, 0, kid=FOREIGN.kid),
        rewritten(good, 0, crit=["exp"]),
        rewritten(good, 0, jwk=FOREIGN.public_jwk),
        f"{head}.{body}.",
        f"{head}.{body}.{signature[:-4]}AAAA",
        f"{head}.{body}.{signature}.",
        f"{head}.{body}",
        f"{head}=.{body}.{signature}",
    ):
        with pytest.raises(TokenError):
            call(client, "authenticate", forged)


@both_ways
@pytest.mark.parametrize(
    "brought",
    [
        {"jwk": FOREIGN.public_jwk},
        {"jku": "https://evil.example/jwks"},
        {"x5u": "https://evil.example/cert"},
        {"x5c": ["AAAA"]},
    ],
    ids=["jwk", "jku", "x5u", "x5c"],
)
def test_requirement_17_no_token_brings_its_own_key(call, authserver, brought):
    client = client_of(authserver)
    forged = signed(authserver, FOREIGN)
    for kid in (FOREIGN.kid, KEY.kid):
        with pytest.raises(TokenError):
            call(client, "authenticate", rewritten(forged, 0, kid=kid, **brought))
    assert {call.url.rpartition("/")[0] for call in authserver.requests} <= {
        authserver.endpoint,
        f"{authserver.endpoint}/.well-known",
    }


@both_ways
@pytest.mark.parametrize(
    "jwk",
    [
        {**KEY.public_jwk, "use": "enc"},
        {**KEY.public_jwk, "alg": "PS256"},
        {**KEY.public_jwk, "alg": "RSA-OAEP"},
        {**KEY.public_jwk, "key_ops": ["encrypt"]},
        {**ELLIPTIC.public_jwk, "kid": KEY.kid},
        {"kty": "oct", "kid": KEY.kid, "k": "c2VjcmV0"},
        {**KEY.public_jwk, "n": KEY.public_jwk["n"][:128]},
    ],
    ids=["enc", "other-alg", "no-jws-alg", "key-ops", "other-kty", "oct", "weak"],
)
def test_requirement_17_the_algorithm_is_the_one_that_the_key_is_for(call, authserver, jwk):
    publish(authserver, jwk)
    with pytest.raises(InvalidSignature):
        call(client_of(authserver), "authenticate", signed(authserver))


@both_ways
@pytest.mark.parametrize("typ", ["JWT", "", "id+jwt", "logout+jwt", "secevent+jwt", "dpop+jwt"])
def test_requirement_17_another_kind_of_jwt_is_no_access_token(call, authserver, typ):
    client = client_of(authserver)
    with pytest.raises(TokenError) as caught:
        call(client, "authenticate", signed(authserver, typ=typ))
    assert caught.value.code == "not_an_access_token"
    assert len(authserver.requests) == 0


@both_ways
def test_requirement_17_a_member_that_is_there_twice_makes_it_unreadable(call, authserver):
    """The first parser sees anna, and the second one admin."""
    said = json.dumps(claims(authserver))[:-1] + ', "sub": "admin"}'
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    head = encoded({"alg": "RS256", "kid": KEY.kid, "typ": "at+jwt"})
    text = f"{head}.{encoded(said.encode())}"
    made = KEY.private_key.sign(text.encode(), PKCS1v15(), SHA256())
    with pytest.raises(InvalidSignature):
        call(client_of(authserver), "authenticate", f"{text}.{encoded(made)}")


@both_ways
def test_requirement_17_a_token_of_our_own_key_is_not_from_the_authserver(call, authserver):
    """What we sign are assertions for the authserver: to our API they say nothing."""
    own = load_key(pem("RS256", 3))
    client = client_of(
        authserver, issuer="https://me.example.com", client_keys=[{"key": pem("RS256", 3)}]
    )
    for forged in (
        own.sign(claims(authserver), typ="at+jwt"),
        own.sign(claims(authserver, iss="https://me.example.com"), typ="at+jwt"),
    ):
        with pytest.raises(TokenError):
            call(client, "authenticate", forged)


# -- 18: the keys ------------------------------------------------------------------------------


@both_ways
def test_requirement_18_a_flood_of_unknown_keys_costs_one_look(call, authserver):
    client = client_of(authserver)
    call(client, "authenticate", signed(authserver))
    for number in range(50):
        with pytest.raises(InvalidSignature):
            forged = rewritten(signed(authserver, FOREIGN), 0, kid=f"unknown-{number}")
            call(client, "authenticate", forged)
    assert authserver.requests.count("jwks") == 2
    assert call(client, "authenticate", signed(authserver))


@both_ways
def test_requirement_18_a_look_that_fails_takes_no_key_away(call, authserver):
    client = client_of(authserver)
    call(client, "authenticate", signed(authserver))
    publish(authserver, status=503)
    # Whether the unknown key exists, nobody can tell now.
    with pytest.raises(AuthserverUnavailable):
        call(client, "authenticate", signed(authserver, FOREIGN))
    assert call(client, "authenticate", signed(authserver))


@both_ways
@pytest.mark.parametrize("count", [MAX_KEYS + 1, 10_000])
def test_requirement_18_a_set_without_bounds_is_refused(call, authserver, count):
    fewer = KEY.public_jwk if count < 1000 else {"kty": "RSA", "kid": "x"}
    publish(authserver, *[{**fewer, "kid": str(number)} for number in range(count)])
    with pytest.raises(InvalidResponse):
        call(client_of(authserver), "authenticate", signed(authserver))


@both_ways
def test_requirement_18_a_key_that_was_taken_away_verifies_nothing_any_more(call, authserver):
    """The authserver says in Cache-Control for how long it may be believed."""
    publish(authserver, KEY.public_jwk, headers={"Cache-Control": "max-age=0"})
    client = client_of(authserver, jwks_ttl=30, process_ttl=0)
    token = signed(authserver, exp=int(time.time()) + 3600)
    assert call(client, "authenticate", token)
    publish(authserver, ELLIPTIC.public_jwk)
    copy = client._runtime.memory["jwks"]
    client._runtime.memory["jwks"] = copy.__class__(
        copy.keys, copy.url, copy.lifetime, copy.good_at - 30
    )
    with pytest.raises(InvalidSignature):
        call(client, "authenticate", token)
    assert call(client, "authenticate", signed(authserver, ELLIPTIC))


# -- 20: signed answers -----------------------------------------------------------------------


@both_ways
@pytest.mark.parametrize("validation", ["introspection", "hybrid"])
@pytest.mark.parametrize(
    "labelled", ["application/token-introspection+jwt", "application/json", "application/jwt"]
)
def test_requirement_20_a_signed_answer_is_not_understood(call, authserver, validation, labelled):
    """RFC 9701 is not offered; who cannot check such an answer must not believe it."""
    inner = {"active": True, "sub": "admin", "client_id": "app"}
    answer = signed(authserver, typ="token-introspection+jwt", token_introspection=inner)
    authserver.fail("introspection", body=answer, headers={"Content-Type": labelled})
    with pytest.raises(AuthserverError) as caught:
        call(client_of(authserver, validation=validation), "authenticate", signed(authserver))
    assert isinstance(caught.value, InvalidResponse)


@both_ways
@pytest.mark.parametrize("types", [["at+jwt"], ["at+jwt", "JWT", None]])
def test_requirement_20_a_signed_answer_is_no_access_token(call, authserver, types):
    inner = {"active": True, "sub": "admin", "client_id": "app"}
    client = client_of(authserver, jwt_types=types)
    answer = signed(authserver, typ="token-introspection+jwt", token_introspection=inner)
    with pytest.raises(TokenError) as caught:
        call(client, "authenticate", answer)
    assert caught.value.code == "not_an_access_token"
