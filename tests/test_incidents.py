"""What has broken others' JWT and JWKS code breaks nothing here: one test for each incident.

Each forged token is tried as an id token, at ``verify_id_token`` and ``grant_code``, and as a
bearer with VALIDATION "jwt". Covered:

- the algorithm is the attacker's choice: jwt-simple CVE-2016-10555, PyJWT CVE-2017-11424,
  CVE-2022-29217 and CVE-2026-48526, python-jose CVE-2024-33663, Authlib CVE-2024-37568, oic
  CVE-2020-26244
- no algorithm at all: jsonwebtoken CVE-2015-9235, Authlib CVE-2026-28802, python-jose
  CVE-2025-61152
- a key that the token brings: Authlib CVE-2026-27962, node-jose CVE-2018-0114
- demands that are overlooked: Authlib CVE-2025-59420, PyJWT CVE-2026-32597
- an allow-list that is passed by: PyJWT CVE-2026-48523
- work without bounds: PyJWT CVE-2026-48525, Authlib CVE-2025-61920, oauthlib CVE-2022-36087
- encrypted tokens that cost much to open: python-jose CVE-2024-33664, jwcrypto CVE-2023-6681 and
  CVE-2024-28102, joserfc CVE-2026-27932, jose CVE-2022-36083
- an issuer that is nearly right: PyJWT CVE-2024-53861
- keys from the wrong place, asked for too often, or lost: PyJWT CVE-2026-48522 and CVE-2026-48524
- a token that is two: python-jwt CVE-2022-39227
- what mozilla-django-oidc leaves out: the audience, the issuer, keys that are kept, tokens
  without kid, timeouts
"""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from issued import (
    HEADER,
    JWKS,
    KEY,
    checked,
    claims,
    encoded,
    id_token,
    jwk,
    jwks,
    of_kind,
    refused,
    signed,
    with_hmac,
)
from stage import both_ways, pem
from timing import not_held_up
from world import SERVER, World, answer

from django_baikal import OpenIDClient
from django_baikal.exceptions import (
    AuthserverUnavailable,
    InvalidResponse,
    InvalidSignature,
    TokenError,
    WrongAudience,
)
from django_baikal.keys import load_key
from django_baikal.protocol import jws
from django_baikal.testing import FakeAuthserver

INCIDENTS = (
    "CVE-2015-9235",
    "CVE-2016-10555",
    "CVE-2017-11424",
    "CVE-2018-0114",
    "CVE-2020-26244",
    "CVE-2022-29217",
    "CVE-2022-36083",
    "CVE-2022-36087",
    "CVE-2022-39227",
    "CVE-2023-6681",
    "CVE-2024-28102",
    "CVE-2024-33663",
    "CVE-2024-33664",
    "CVE-2024-37568",
    "CVE-2024-53861",
    "CVE-2025-59420",
    "CVE-2025-61152",
    "CVE-2025-61920",
    "CVE-2026-27932",
    "CVE-2026-27962",
    "CVE-2026-28802",
    "CVE-2026-32597",
    "CVE-2026-48522",
    "CVE-2026-48523",
    "CVE-2026-48524",
    "CVE-2026-48525",
    "CVE-2026-48526",
    "mozilla-django-oidc audience",
    "mozilla-django-oidc issuer",
    "mozilla-django-oidc keys",
    "mozilla-django-oidc kid",
    "mozilla-django-oidc timeout",
)


@pytest.fixture(params=["id", "access"], autouse=True)
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """Try everything with both kinds of tokens."""
    with of_kind(request.param):
        yield request.param


PUBLIC = KEY.private_key.public_key()
ELLIPTIC = load_key(pem("ES256"))
ELLIPTIC_PUBLIC = ELLIPTIC.private_key.public_key()


def test_every_incident_has_a_test_and_is_told_above():
    tests = [name for name in globals() if name.startswith("test_")]
    for incident in INCIDENTS:
        words = incident.lower().replace("-", "_").replace(" ", "_")
        assert [name for name in tests if f"_{words}_" in name], incident
        assert incident.rpartition(" ")[2] in (__doc__ or ""), incident


def as_secret(secret: bytes, kid: str = KEY.kid) -> dict[str, Any]:
    """Give what a verifier would have to be mad to publish: the public key as a secret."""
    return {"kty": "oct", "kid": kid, "k": encoded(secret), "alg": "HS256"}


def no_secret(*forms: bytes, key: dict[str, Any] | None = None) -> None:
    """Assert that no form of the public key ``key`` is taken for a secret."""
    published = key or jwk()
    kid = published["kid"]
    for form in forms:
        for secret in (form, form.strip(), form + b"\n"):
            for bits in (256, 384, 512):
                refused(with_hmac(secret, bits, kid=kid), published)
            refused(with_hmac(secret, kid=kid), published, as_secret(secret, kid))
            refused(with_hmac(secret, kid=kid), as_secret(secret, kid))


# -- the algorithm is the attacker's choice --------------------------------------------------------


def test_jwt_simple_cve_2016_10555_the_header_does_not_turn_a_public_key_into_a_secret():
    no_secret(PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def test_pyjwt_cve_2017_11424_no_form_of_pem_is_a_secret():
    no_secret(
        PUBLIC.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
    )


def test_pyjwt_cve_2022_29217_no_form_of_openssh_is_a_secret():
    no_secret(PUBLIC.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))


def test_python_jose_cve_2024_33663_an_elliptic_key_is_no_secret_either():
    no_secret(
        ELLIPTIC_PUBLIC.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        ELLIPTIC_PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        ELLIPTIC_PUBLIC.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
        key=jwk("ES256"),
    )


def test_authlib_cve_2024_37568_a_key_that_names_no_algorithm_is_no_secret():
    no_secret(
        PUBLIC.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        PUBLIC.public_bytes(Encoding.DER, PublicFormat.PKCS1),
        key=jwk(alg=None, use=None),
    )


def test_pyjwt_cve_2026_48526_a_jwk_in_json_is_no_secret():
    published = jwk()
    no_secret(
        json.dumps(published).encode(),
        json.dumps(published, separators=(",", ":")).encode(),
        json.dumps({"keys": [published]}).encode(),
        published["n"].encode(),
    )
    refused(with_hmac(b""), published)
    # Nor where a caller of ours were so careless as to allow it.
    with pytest.raises(InvalidSignature, match="algorithm"):
        jws.verify(with_hmac(b"secret"), [as_secret(b"secret")], algorithms=["HS256", "RS256"])


def test_oic_cve_2020_26244_the_algorithm_is_checked_though_nobody_asks_for_it(kind):
    # Announced or not, by a key of another kind or with none: each says so by itself.
    refused(id_token("ES256"), jwk("ES256"), id_token_signing_alg_values_supported=["RS256"])
    refused(signed({**HEADER, "alg": "none"}), id_token_signing_alg_values_supported=["none"])
    refused(signed({**HEADER, "alg": "HS256"}), id_token_signing_alg_values_supported=["HS256"])
    if kind == "id":
        refused(id_token(iat=None), because=TokenError)
        refused(id_token(nonce="an0ther"), because=TokenError)


# -- no algorithm at all ---------------------------------------------------------------------------


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", None, 7, ["none"], "none "])
@pytest.mark.parametrize("signature", ["", "c2ln"])
def test_jsonwebtoken_cve_2015_9235_an_algorithm_that_is_none_of_ours_verifies_nothing(
    alg, signature
):
    refused(f"{encoded({'alg': alg, 'kid': KEY.kid})}.{encoded(claims())}.{signature}")


def test_authlib_cve_2026_28802_a_token_without_signature_is_none_whatever_its_header_says():
    for header in ({"alg": "none"}, {"typ": "JWT", "alg": "none"}, {}, HEADER, {"alg": "RS256"}):
        refused(f"{encoded(header)}.{encoded(claims())}.")


def test_python_jose_cve_2025_61152_no_published_key_makes_none_an_algorithm():
    forged = f"{encoded({'alg': 'none', 'kid': 'k'})}.{encoded(claims())}."
    for key in ({"kty": "oct", "k": ""}, {"kty": "oct", "k": "", "alg": "none"}, {}, {"kty": ""}):
        refused(forged, {"kid": "k", **key})
    refused(forged, {"kid": "k"}, id_token_signing_alg_values_supported=["none"])


# -- a key that the token brings -------------------------------------------------------------------


def brought(**members: Any) -> None:
    """Assert that a token signed with its own key is refused, and that nobody looks elsewhere."""
    foreign = load_key(pem("RS256", 5))
    for named in ({"kid": foreign.kid}, {"kid": KEY.kid}, {}):
        world = refused(signed({"alg": "RS256", **named, **members}, key=foreign))
        assert {request.url.split("/")[2] for request in world.requests} == {SERVER.split("/")[2]}


def test_authlib_cve_2026_27962_a_jwk_in_the_header_is_not_used():
    foreign = load_key(pem("RS256", 5)).public_jwk
    brought(jwk=foreign)
    brought(jwk={**foreign, "kid": KEY.kid})
    brought(jwk=None)


def test_node_jose_cve_2018_0114_no_other_way_to_bring_a_key_is_used():
    brought(jku="https://evil.example/jwks")
    brought(x5u="https://evil.example/cert.pem")
    brought(x5c=[base64.b64encode(b"certificate").decode()])
    brought(x5t=encoded(b"thumbprint-of-sha1__"))
    brought(**{"x5t#S256": encoded(b"t" * 32)})


# -- demands that are overlooked -------------------------------------------------------------------


def test_authlib_cve_2025_59420_an_unknown_demand_is_not_overlooked():
    refused(signed({**HEADER, "crit": ["cnf"], "cnf": {"jkt": "x"}}))
    refused(signed({**HEADER, "crit": ["bork"], "bork": "x"}))


@pytest.mark.parametrize("crit", [["x-tenant"], ["kid"], [], "kid", None, {}, [7], ["b64", "x"]])
def test_pyjwt_cve_2026_32597_no_demand_is_understood_and_so_none_passes(crit):
    refused(signed({**HEADER, "crit": crit, "x-tenant": 1}))


# -- an allow-list that is passed by ---------------------------------------------------------------


def signed_pss(header: dict[str, Any]) -> str:
    said = f"{encoded(header)}.{encoded(claims())}"
    made = KEY.private_key.sign(said.encode(), PSS(MGF1(SHA256()), 32), SHA256())
    return f"{said}.{encoded(made)}"


def test_pyjwt_cve_2026_48523_the_algorithm_is_the_one_of_header_and_key_and_signature():
    ours = {**HEADER, "alg": "PS256"}
    world = World({JWKS: jwks(jwk(alg="PS256"))})
    assert checked(world, signed_pss(ours))
    for alg in ("RS256", "PS256", "RS512", "PS512", "ES256"):
        for key in (jwk(alg=alg), jwk(alg=None)):
            if alg != "PS256":
                refused(signed_pss({**HEADER, "alg": alg}), key)
            if alg != "RS256":
                refused(signed({**HEADER, "alg": alg}), key)
    refused(signed_pss(ours), jwk(alg="RS256"))
    refused(signed_pss(ours), jwk(alg="PS256"), id_token_signing_alg_values_supported=["RS256"])
    # The header says what is announced, and the key is bound to something that is not.
    refused(signed(HEADER), jwk(alg="PS256"), id_token_signing_alg_values_supported=["RS256"])


# -- work without bounds ---------------------------------------------------------------------------


@contextmanager
def at_once() -> Iterator[None]:
    """Assert that it is no work to speak of; on a machine that is busy it takes longer."""
    begun = time.thread_time()
    yield
    assert time.thread_time() - begun < 0.5


def test_pyjwt_cve_2026_48525_a_payload_that_is_not_encoded_is_not_read():
    header = {**HEADER, "b64": False, "crit": ["b64"]}
    head, body, signature = signed(header).split(".")
    for payload in ("", body, json.dumps(claims()), "$.02", "A" * 10_000, "A" * 10**7):
        with at_once():
            refused(f"{head}.{payload}.{signature}")
    for b64 in (False, True, None, "false", 0):
        refused(signed({**HEADER, "b64": b64}))


def test_authlib_cve_2025_61920_no_segment_is_too_large_to_be_refused():
    head, body, signature = signed(HEADER).split(".")
    large = "A" * 10**6
    for forged in (
        f"{encoded({**HEADER, 'x': large})}.{body}.{signature}",
        f"{head}.{encoded(claims(x=large))}.{signature}",
        f"{head}.{body}.{large}",
        f"{large}.{large}.{large}",
        f"{encoded({**HEADER, 'kid': large})}.{body}.{signature}",
    ):
        with at_once():
            refused(forged)
    with at_once():
        refused(signed({**HEADER, "kid": "k" * 8000}))
    world = World({JWKS: jwks()})
    assert checked(world, signed(HEADER, claims(x="A" * 11_000)))
    refused(signed(HEADER, claims(x="A" * 12_000)))


def test_oauthlib_cve_2022_36087_what_is_read_step_by_step_is_read_in_one_pass():
    head, body, signature = signed(HEADER).split(".")
    for forged in (
        "." * 10**6,
        "a." * 10**6,
        f"{head}{'.' * 10**6}{signature}",
        f"{' ' * 10**6}{head}.{body}.{signature}",
        f"{head}.{body}.{'-_' * 500_000}!",
        f"{head}.{body}.{'=' * 10**6}",
        signed(HEADER, b'{"a":' * 2000),
        signed(HEADER, b"[" * 10_000),
        signed(HEADER, b'{"exp": ' + b"9" * 8000 + b"}"),
        signed(HEADER, b'{"exp": 0.' + b"9" * 8000 + b"e"),
        signed(HEADER, b'"' + b"\\" * 8000),
    ):
        with at_once():
            refused(forged)


# -- encrypted tokens that cost much to open -------------------------------------------------------


def five_parts(**header: Any) -> str:
    """Make an encrypted token whose parts would be expensive, and are never looked at."""
    bomb = zlib.compress(b"0" * 10**7)[2:-4]
    parts = [{"enc": "A256GCM", "kid": KEY.kid, **header}, b"k" * 40, b"i" * 12, bomb, b"t" * 16]
    return ".".join(encoded(part) for part in parts)


def unopened(**header: Any) -> None:
    with at_once():
        world = refused(five_parts(**header), jwk(), {"kty": "oct", "kid": KEY.kid, "k": "AAAA"})
    assert world.calls(JWKS) == 0


def test_python_jose_cve_2024_33664_a_compressed_token_is_not_inflated():
    unopened(alg="dir", zip="DEF")
    # A signed one is not inflated either: zip means nothing there, and this payload is no JSON.
    bomb = zlib.compress(json.dumps(claims()).encode())[2:-4]
    refused(signed({**HEADER, "zip": "DEF"}, bomb))


@pytest.mark.parametrize("count", [1, 1000, 2**31 - 1, 10**18, -1, "x"])
def test_jwcrypto_cve_2023_6681_no_number_of_iterations_is_obeyed(count):
    unopened(alg="PBES2-HS256+A128KW", p2s="c2FsdA", p2c=count)


def test_jwcrypto_cve_2024_28102_a_bomb_is_not_unpacked():
    unopened(alg="RSA-OAEP-256", zip="DEF")


def test_joserfc_cve_2026_27932_iterations_in_a_signed_header_mean_nothing():
    with at_once():
        refused(signed({"alg": "PBES2-HS512+A256KW", "p2c": 10**9, "p2s": "c2FsdA"}))
    unopened(alg="PBES2-HS512+A256KW", p2s="c2FsdA", p2c=10**9)


def test_jose_cve_2022_36083_the_parts_of_an_encrypted_token_are_not_even_decoded():
    for forged in ("....", "a.b.c.d.e", "!.!.!.!.!", f"{signed(HEADER)}.x.y", five_parts(alg=None)):
        assert refused(forged).calls(JWKS) == 0


# -- an issuer that is nearly right ----------------------------------------------------------------


@pytest.mark.parametrize(
    "iss",
    [
        SERVER[:-1],
        SERVER[1:],
        SERVER[8:],
        "https",
        "h",
        f"{SERVER}/",
        f"{SERVER}.evil.example",
        f"https://evil.example/{SERVER}",
        SERVER.upper(),
        SERVER.replace("https", "http"),
        f"{SERVER}:443",
        f" {SERVER}",
        f"{SERVER}\0",
        [SERVER],
        [SERVER, "https://evil.example"],
        [*SERVER],
        {SERVER: 1},
        [],
        "",
        None,
        True,
        0,
    ],
)
def test_pyjwt_cve_2024_53861_an_issuer_that_is_nearly_ours_is_refused(iss):
    refused(id_token(iss=iss), because=TokenError)
    refused(signed(HEADER, {**claims(), "iss": iss}), because=TokenError)


# -- keys from the wrong place, asked for too often, or lost ---------------------------------------


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc/passwd",
        "FILE:/etc/passwd",
        "ftp://auth.example.com/jwks",
        "data:application/json,{}",
        "gopher://127.0.0.1:6379/_FLUSHALL",
        "http://169.254.169.254/latest/meta-data",
        "//auth.example.com/jwks",
        "/jwks",
        "",
        ["https://auth.example.com/jwks"],
    ],
)
def test_pyjwt_cve_2026_48522_keys_come_from_no_file_and_no_network_of_ours(uri):
    world = World(jwks_uri=uri)
    for _ in range(3):
        with pytest.raises(InvalidResponse) as caught:
            checked(world, id_token())
        assert caught.value.code == "endpoint_refused"
    assert world.calls(f"{SERVER}/.well-known/openid-configuration") == len(world.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_pyjwt_cve_2026_48522_no_redirect_leads_to_other_keys(status):
    elsewhere = "https://evil.example/jwks"
    foreign = load_key(pem("RS256", 5))
    body = {"keys": [foreign.public_jwk]}
    world = World({JWKS: answer(body, status, location=elsewhere), elsewhere: answer(body)})
    with pytest.raises(InvalidResponse, match="redirect"):
        checked(world, id_token("RS256", 5))
    assert world.calls(elsewhere) == 0


def test_pyjwt_cve_2026_48524_a_flood_of_unknown_kids_costs_no_flood_of_requests():
    world = World({JWKS: jwks()})
    for number in range(300):
        with pytest.raises(InvalidSignature):
            checked(world, signed({**HEADER, "kid": str(number)}, claims(exp=2e9)))
        world.pass_time(0.25)
    assert world.calls(JWKS) == 3, "in 75 s: at 0, 30 and 60"
    checked(world, id_token())
    for number in range(1200):
        with pytest.raises(InvalidSignature):
            checked(world, signed({**HEADER, "kid": str(number)}, claims(exp=2e9)))
        world.pass_time(0.5)
        world.finish_asides()
    assert world.calls(JWKS) == 3 + 20, "in 600 s"


def test_pyjwt_cve_2026_48524_a_failed_request_takes_no_key_away():
    world = World({JWKS: jwks()})
    good = id_token(exp=2e9)
    checked(world, good)
    world.answers[JWKS] = AuthserverUnavailable("down")
    for number in range(100):
        world.pass_time(30)
        with pytest.raises(AuthserverUnavailable):
            unknown = signed({**HEADER, "kid": str(number)}, claims(exp=2e9))
            checked(world, unknown)
        assert checked(world, good)
        world.finish_asides()
    assert world.calls(JWKS) <= 101


# -- a token that is two ---------------------------------------------------------------------------


def test_python_jwt_cve_2022_39227_nothing_but_the_compact_form_is_read():
    token = signed(HEADER)
    head, body, signature = token.split(".")
    other = encoded(claims(sub="admin"))
    parts = {"protected": head, "payload": body, "signature": signature}
    for forged in (
        json.dumps(parts),
        json.dumps({"payload": body, "signatures": [parts]}),
        json.dumps({**parts, "payload": other}),
        # The one of the incident: one parser sees JSON, and another one three parts.
        json.dumps({f"  {head}.{other}.": "", **parts}),
        f'{{"protected":"{head}.{body}.{signature}"}}',
        f'{head}.{other}.{{"payload":"{body}","signature":"{signature}"}}',
        f"{token} {head}.{other}.{signature}",
        f"{token},{token}",
        f'"{token}"',
        f'["{token}"]',
    ):
        refused(forged)


# -- what mozilla-django-oidc leaves out -----------------------------------------------------------


def test_mozilla_django_oidc_audience_a_token_for_another_client_is_refused(kind):
    for changes in ({"aud": "another"}, {"aud": ["another"]}, {"aud": None}):
        refused(id_token(**changes), because=WrongAudience)
    if kind == "id":
        refused(id_token(azp="another"), because=WrongAudience)


def test_mozilla_django_oidc_issuer_a_token_of_another_issuer_is_refused_though_the_key_fits():
    refused(id_token(iss="https://another.example"), because=TokenError)


def test_mozilla_django_oidc_kid_a_token_or_key_without_kid_is_no_surprise():
    world = World({JWKS: jwks(jwk(kid=None))})
    assert checked(world, signed({"alg": "RS256"}))
    refused(signed(HEADER), jwk(kid=None))
    refused(signed({"alg": "RS256"}), jwk(kid=None), jwk(number=1, kid=None))
    refused(signed({"alg": "RS256"}), {})


def client_of(server: FakeAuthserver, **changes: Any) -> OpenIDClient:
    entry = {name.lower(): value for name, value in server.settings().items()}
    rules = {"validation": "jwt", "jwt_types": [None]}
    return OpenIDClient(**{**entry, **rules, **changes})


#: What checks a token of each kind.
METHODS = {"id": "verify_id_token", "access": "authenticate"}


@both_ways
def test_mozilla_django_oidc_keys_are_not_fetched_at_every_login(call, kind):
    with FakeAuthserver().in_memory() as server:
        client = client_of(server)
        now = int(time.time())
        body = claims(iss=server.endpoint, aud=client.config.client_id, iat=now, exp=now + 3600)
        server.fail("jwks", body={"keys": [jwk()]})
        for _ in range(20):
            assert call(client, METHODS[kind], signed(HEADER, body))
        for forged in (
            with_hmac(json.dumps(jwk()).encode(), body=body),
            signed({**HEADER, "alg": "none"}, body),
            signed({**HEADER, "kid": "another"}, body),
            signed(HEADER, body, key=load_key(pem("RS256", 5))),
        ):
            with pytest.raises(InvalidSignature):
                call(client, METHODS[kind], forged)
        # One of the forged ones names a key that might have been new.
        assert (server.requests.count("jwks"), server.requests.count("discovery")) == (2, 1)


@both_ways
def test_mozilla_django_oidc_timeout_keys_that_never_come_hold_nobody_up_for_ever(call, kind):
    with FakeAuthserver().serve() as server:
        client = client_of(server, timeout=0.5, introspection_timeout=0.5)
        now = int(time.time())
        body = claims(iss=server.endpoint, aud=client.config.client_id, iat=now, exp=now + 3600)
        with server.fail("jwks", hang=True):
            with not_held_up(), pytest.raises(AuthserverUnavailable) as caught:
                call(client, METHODS[kind], signed(HEADER, body))
            assert caught.value.code == "timeout"
