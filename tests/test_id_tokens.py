"""Id tokens that are forged, borrowed, old, or meant for somebody else are refused.

What has been forged in earnest elsewhere is in test_incidents.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from issued import (
    HEADER,
    JWKS,
    KEY,
    TOKEN,
    claims,
    encoded,
    id_token,
    jwk,
    jwks,
    refused,
    signed,
)
from stage import both_ways
from world import World, answer, config

from django_baikal import OpenIDClient
from django_baikal.exceptions import (
    AuthserverUnavailable,
    ConfigurationError,
    ExpiredToken,
    InsufficientAuthentication,
    InvalidResponse,
    InvalidSignature,
    TokenError,
    WrongAudience,
)
from django_baikal.protocol import flows, jws
from django_baikal.protocol.id_token import verify_id_token
from django_baikal.protocol.jwk import b64url_encode
from django_baikal.testing import FakeAuthserver


def verify(
    value: Any,
    *keys: dict[str, Any],
    nonce: str | None = None,
    max_age: Any = None,
    **documents: Any,
) -> Any:
    world = World({JWKS: jwks(*keys)}, **documents)
    return world.run(verify_id_token(config(), value, nonce, max_age))


@pytest.mark.parametrize("alg", ["RS256", "ES256"])
def test_a_good_one_gives_its_claims(alg):
    assert verify(id_token(alg), jwk(alg)) == claims()
    assert verify(signed(HEADER)) == claims()


def test_without_kid_the_only_key_that_fits_is_taken():
    assert verify(signed({"alg": "RS256"}))
    assert verify(signed({"alg": "RS256"}), jwk(), jwk("ES256"))
    assert verify(signed({"alg": "RS256"}), jwk(), jwk(number=1, use="enc"))
    refused(signed({"alg": "RS256"}), jwk(), jwk(number=1))
    refused(signed({"alg": "RS256"}), jwk("ES256"))


# -- forged ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        {**HEADER, "crit": ["exp"], "exp": 1},
        {**HEADER, "crit": []},
        {**HEADER, "crit": None},
        {**HEADER, "b64": False, "crit": ["b64"]},
        {**HEADER, "b64": False},
        {**HEADER, "b64": True},
        {**HEADER, "kid": "another"},
        {**HEADER, "kid": ""},
        {**HEADER, "kid": "k" * 5000},
        {**HEADER, "kid": "../../dev/null"},
        {**HEADER, "kid": None},
        {**HEADER, "kid": 7},
        {**HEADER, "kid": ["x"]},
        {**HEADER, "alg": "RS512"},
        {**HEADER, "alg": "PS256"},
        {**HEADER, "alg": "ES256"},
        {**HEADER, "alg": "EdDSA"},
        {**HEADER, "alg": "rs256"},
        {**HEADER, "alg": "RS256 "},
        {**HEADER, "alg": ["RS256"]},
        {**HEADER, "alg": {"RS256": 1}},
        {"kid": KEY.kid},
        b'{"alg": "RS256", "alg": "none"}',
        b'{"alg": "none", "alg": "RS256"}',
        b'{"alg": "RS256", "x": {"y": 1, "y": 2}}',
        b'\xef\xbb\xbf{"alg": "RS256"}',
        '{"alg": "RS256"}'.encode("utf-16"),
        b'{"alg": "RS256"} ["alg", "none"]',
        b"[]",
        b"null",
        b"",
    ],
)
def test_a_header_that_asks_for_something_else_is_refused(header):
    refused(signed(header))


def test_a_header_that_says_something_else_about_the_key_or_the_payload_is_not_believed():
    # The signature is the authserver's own, so these words change nothing.
    for member in (
        {"zip": "DEF"},
        {"cty": "JWT"},
        {"x5t": "AAAA"},
        {"jku": "https://evil.example"},
    ):
        world = World({JWKS: jwks()})
        value = signed({**HEADER, **member})
        assert world.run(verify_id_token(config(), value, None, None)) == claims()
        assert {urlsplit(request.url).hostname for request in world.requests} == {
            "auth.example.com"
        }


@pytest.mark.parametrize(
    "changes",
    [
        {"use": "enc"},
        {"use": None, "key_ops": ["encrypt"]},
        {"key_ops": "verify"},
        {"alg": "RS512"},
        {"alg": "RSA-OAEP"},
        {"kty": "EC"},
        {"kty": "oct"},
        {"kty": None},
        {"e": "Aw"},
        {"e": "AQAA"},
        {"n": "AQAB"},
        {"n": None},
        {"n": 7},
        {"kid": "another"},
        {"kid": None},
        {"kid": 7},
    ],
)
def test_a_key_that_is_not_for_this_verifies_nothing(changes):
    refused(signed(HEADER), jwk(**changes))


def test_two_keys_of_one_name_verify_nothing_unless_only_one_is_for_this():
    # RFC 7517 section 4.5: keys of different types may have the same name.
    refused(signed(HEADER), jwk(), jwk(number=1, kid=KEY.kid))
    refused(signed(HEADER), jwk(), jwk())
    refused(signed(HEADER), jwk(use="enc"), jwk("ES256", kid=KEY.kid))
    for other in (jwk(number=1, kid=KEY.kid, use="enc"), jwk("ES256", kid=KEY.kid), {}):
        assert verify(signed(HEADER), jwk(), other)
        assert verify(signed(HEADER), other, jwk())


def test_an_algorithm_that_the_authserver_does_not_announce_is_refused():
    announced = "id_token_signing_alg_values_supported"
    assert verify(signed(HEADER), **{announced: ["RS256", "none", 7]})
    assert verify(signed(HEADER), **{announced: "RS256"})
    for others in ([], ["ES256"], ["HS256", "none"]):
        refused(signed(HEADER), **{announced: others})


def test_what_is_no_compact_jws_is_refused():
    token = signed(HEADER)
    head, body, signature = token.split(".")
    broken = [
        "",
        ".",
        "..",
        f"{head}.{body}",
        f"{head}.{body}.",
        f"{head}..{signature}",
        f".{body}.{signature}",
        f"{head}.{body}.{signature}.",
        f".{head}.{body}.{signature}",
        f"{head}.{body}.{signature}.x.y",
        f"{head}.{body}.{signature}=",
        f"{head}=.{body}.{signature}",
        f"{head}.{body}==.{signature}",
        f"{head}.{body}.{signature[:-4]}AAAA",
        f"{head}.{body}.{signature[:-1]}{'B' if signature[-1] == 'A' else chr(ord('A'))}",
        f"{head}.{encoded(claims(sub='admin'))}.{signature}",
        f" {token}",
        f"{token}\n",
        f"{token}\0",
        f"Bearer {token}",
        f"{head}.{body[:9]}\n{body[9:]}.{signature}",
        f"{head}.{body}.!{signature}",
        f"{head}.{body}.{signature}!!!!",
        token.replace("-", "+").replace("_", "/") + "/",
        "é.é.é",
    ]
    for forged in broken:
        refused(forged)


@pytest.mark.parametrize(
    "body",
    [
        b'{"iss": "https://evil.example", "iss": "https://auth.example.com"}',
        json.dumps(claims()).encode()[:-1] + b', "sub": "admin"}',
        json.dumps(claims()).encode()[:-1] + b', "a": {"b": 1, "b": 2}}',
        json.dumps(claims()).encode() + b"{}",
        b"[]",
        b"7",
        b"{",
        b'{"exp": NaN}',
        b'{"exp": 1e999}',
        b'{"exp": ' + b"9" * 5000 + b"}",
        b"[" * 5000,
    ],
    ids=range(11),
)
def test_claims_that_can_be_read_in_two_ways_are_refused(body):
    refused(signed(HEADER, body))


def test_a_signed_token_within_another_is_not_unpacked():
    inner = signed(HEADER)
    for header in (HEADER, {**HEADER, "cty": "JWT"}):
        refused(signed(header, inner.encode()))
        refused(signed(header, json.dumps(inner).encode()))
    refused(signed({**HEADER, "cty": "JWT"}, {"jwt": inner}), because=TokenError)


# -- of another kind -------------------------------------------------------------------------------


@pytest.mark.parametrize("typ", ["JWT", "jwt", "Jwt", "application/jwt", "Application/JWT"])
def test_a_type_that_an_id_token_may_have_passes(typ):
    assert verify(signed({**HEADER, "typ": typ}))


@pytest.mark.parametrize(
    "typ",
    [
        "at+jwt",
        "application/at+jwt",
        "logout+jwt",
        "dpop+jwt",
        "token-introspection+jwt",
        "JOSE",
        " JWT",
        "",
        None,
        7,
        ["JWT"],
    ],
)
def test_a_token_of_another_type_is_no_id_token(typ):
    refused(signed({**HEADER, "typ": typ}), because=TokenError)


@pytest.mark.parametrize("names", [{"scope": "a"}, {"scopes": ["a"]}, {"scope": "", "scopes": []}])
def test_an_access_token_without_a_type_is_no_id_token(names):
    body = claims(nonce=None, client_id="client", **names)
    for nothing in ({}, {"nonce": None}, {"at_hash": None}):
        with pytest.raises(TokenError, match="access token") as caught:
            verify(signed(HEADER, {**body, **nothing}))
        assert type(caught.value) is TokenError
    refused(signed(HEADER, body), because=TokenError)


@pytest.mark.parametrize(
    "body",
    [
        {"client_id": "client", "scope": "a"},
        {"client_id": "client", "scope": "a", "nonce": None, "at_hash": "x"},
        {"client_id": "client", "nonce": None},
        {"scope": "a", "scopes": ["a"], "nonce": None},
    ],
)
def test_an_id_token_may_have_some_claims_of_an_access_token(body):
    assert verify(signed(HEADER, claims(**body)))


LOGOUT = "http://schemas.openid.net/event/backchannel-logout"


@pytest.mark.parametrize("events", [{LOGOUT: {}}, {}, None, "x"])
@pytest.mark.parametrize("header", [HEADER, {**HEADER, "typ": "JWT"}])
def test_a_logout_token_without_a_type_is_no_id_token(header, events):
    body = {**claims(nonce=None), "jti": "1", "sid": "s", "events": events}
    with pytest.raises(TokenError, match="event") as caught:
        verify(signed(header, body))
    assert type(caught.value) is TokenError


def test_our_own_assertion_is_no_id_token_though_the_key_were_published():
    ours = {
        "iss": "https://me.example.com/",
        "sub": "client",
        "aud": claims()["iss"],
        "jti": "1",
        "active": True,
    }
    for changes in (ours, {**ours, "iss": "client"}):
        refused(id_token(**changes, nonce=None), because=TokenError)
    refused(id_token(**{**ours, "iss": claims()["iss"]}, nonce=None), because=WrongAudience)


@pytest.mark.parametrize("sent", [{}, {"id_token": None}])
def test_a_nonce_cannot_be_left_unchecked_by_sending_no_id_token(sent):
    body = {"access_token": "T0ken", "token_type": "Bearer", **sent}
    world = World({TOKEN: answer(body)})
    with pytest.raises(InvalidResponse, match="no id token"):
        world.run(flows.grant_code(config(), "c", "https://me/cb", None, "n0nce", None))
    assert world.run(flows.grant_code(config(), "c", "https://me/cb", None, None, None))


# -- claims ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"aud": "other"}, WrongAudience),
        ({"aud": "clien"}, WrongAudience),
        ({"aud": "client2"}, WrongAudience),
        ({"aud": "c"}, WrongAudience),
        ({"aud": []}, WrongAudience),
        ({"aud": None}, WrongAudience),
        ({"aud": {"client": 1}}, WrongAudience),
        ({"aud": ["client", 7], "azp": "client"}, WrongAudience),
        ({"aud": ["client", None], "azp": "client"}, WrongAudience),
        ({"aud": ["client", ["client"]], "azp": "client"}, WrongAudience),
        ({"aud": [["client"]]}, WrongAudience),
        ({"aud": ["client", "other"]}, WrongAudience),
        ({"azp": "other"}, WrongAudience),
        ({"azp": ["client"]}, WrongAudience),
        ({"exp": 1_799_999_940}, ExpiredToken),
        ({"iat": 1_800_000_061}, ExpiredToken),
        ({"nbf": 1_800_000_061}, ExpiredToken),
        ({"exp": True}, TokenError),
        ({"exp": 10**30}, TokenError),
        ({"nbf": "1"}, TokenError),
        ({"nonce": "other"}, TokenError),
        ({"nonce": None}, TokenError),
        ({"nonce": ["n0nce"]}, TokenError),
        ({"nonce": "n0nce\ud800"}, TokenError),
        ({"sub": ""}, TokenError),
    ],
)
def test_a_claim_that_does_not_fit_is_refused_with_its_error(changes, error):
    refused(id_token(**changes), because=error)


def test_any_of_several_audiences_will_do():
    def check(aud: Any, *audiences: str) -> None:
        jws.check_claims(
            claims(aud=aud), issuer=claims()["iss"], audiences=audiences, wall=1.8e9, skew=0
        )

    check("api", "client", "api")
    check(["other", "api"], "client", "api")
    for aud in ("other", ["other"], []):
        with pytest.raises(WrongAudience):
            check(aud, "client", "api")
    with pytest.raises(WrongAudience):
        check("api")


def test_a_login_that_is_too_old_is_told_apart():
    assert verify(id_token(auth_time=1_799_999_000), max_age=940)
    for max_age in (939, 0):
        with pytest.raises(InsufficientAuthentication):
            verify(id_token(auth_time=1_799_999_000), max_age=max_age)
    for auth_time in (None, "1800000000", True):
        with pytest.raises(TokenError, match="logged in"):
            verify(id_token(auth_time=auth_time), max_age=60)


@pytest.mark.parametrize("max_age", [0, 3600, 10**9])
def test_a_login_in_the_future_is_none(max_age):
    assert verify(id_token(auth_time=1_800_000_060), max_age=max_age)
    late = id_token(auth_time=1_800_000_061)
    with pytest.raises(TokenError, match="future") as caught:
        verify(late, max_age=max_age)
    assert type(caught.value) is TokenError
    assert verify(late), "who asks for no age is told nothing about it"


@pytest.mark.parametrize("max_age", [-1, "60", True, float("inf"), float("nan")])
def test_an_age_that_is_none_is_your_error(max_age):
    with pytest.raises(ConfigurationError, match="max_age"):
        verify(id_token(), max_age=max_age)


@pytest.mark.parametrize("value", [None, b"a.b.c", 7])
def test_an_id_token_that_is_no_string_is_your_error(value):
    with pytest.raises(ConfigurationError, match="id_token"):
        verify(value)


@pytest.mark.parametrize(("alg", "name"), [("RS256", "sha256"), ("ES256", "sha256")])
def test_at_hash_binds_the_access_token(alg, name):
    digest = hashlib.new(name, b"T0ken").digest()
    token = id_token(alg, at_hash=b64url_encode(digest[: len(digest) // 2]))

    def check(access_token: str) -> Any:
        world = World({JWKS: jwks(jwk(alg))})
        return world.run(verify_id_token(config(), token, None, None, access_token))

    assert check("T0ken")
    with pytest.raises(TokenError, match="another access token"):
        check("an0ther")


def test_the_hash_of_at_hash_is_the_one_of_the_algorithm():
    from django_baikal.protocol.id_token import _half_hash

    lengths = {alg: len(_half_hash(alg, "T")) for alg in ("RS256", "PS384", "ES512", "EdDSA")}
    assert lengths == {"RS256": 22, "PS384": 32, "ES512": 43, "EdDSA": 43}


# -- by the client ---------------------------------------------------------------------------------


@both_ways
def test_the_client_verifies_what_the_authserver_signed(call):
    callback = "https://me.example/cb"
    with FakeAuthserver().in_memory() as server:
        entry = server.settings()
        client = OpenIDClient(**{name.lower(): value for name, value in entry.items()})
        started = call(client, "start_authorization", callback, "openid")
        back = parse_qs(urlsplit(server.authorize(started.url, sub="anna")).query)
        answered = call(
            client,
            "grant_code",
            back["code"][0],
            callback,
            code_verifier=started.code_verifier,
            nonce=started.nonce,
            full_authserver_response=True,
        )
        found = call(
            client, "verify_id_token", answered["id_token"], nonce=started.nonce, max_age=60
        )
        assert found["sub"] == "anna"
        with pytest.raises(TokenError):
            call(client, "verify_id_token", answered["id_token"], nonce="other")
        server.move_clock(10_000)
        forged = answered["id_token"][:-8] + "AAAAAAAA"
        with pytest.raises(InvalidSignature) as caught:
            call(client, "verify_id_token", forged)
        assert answered["id_token"].split(".")[1] not in str(caught.value)


def test_an_authserver_that_gives_no_keys_does_not_make_the_token_bad():
    world = World({JWKS: answer({}, 503)})
    with pytest.raises(AuthserverUnavailable):
        world.run(verify_id_token(config(), id_token(), None, None))
