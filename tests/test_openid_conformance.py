"""The relying-party modules of the OpenID Foundation's conformance suite, each by its name.

Those that concern a client of the code flow, from the plans oidcc-client-basic-certification,
-config-certification, -dynamic-certification, -test-plan and -refreshtoken-test-plan. Each runs
through the public API over HTTP, by the methods and by their coroutines.

Left out, for there is nothing here that they could look at:

- nonce-unless-code-flow, missing-athash, missing-chash and invalid-chash: for response types other
  than code. In the code flow at_hash is optional; one that is there is checked (invalid-athash).
- userinfo-*, aggregated-claims and distributed-claims: there is no request to a userinfo endpoint.
  Of scope-userinfo-claims only the authorization request is looked at.
- discovery-webfinger-*, dynamic-registration, request-uri-*, 3rd-party-init-login, rp-init-logout,
  rp-backchannel-*, rp-frontchannel-* and session-management.
- refresh-token-invalid-sub: refresh() does not know whose token it is.

client_secret_post is no module of its own but a variant of all; so is private_key_jwt.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from issued import encoded, jwk, with_hmac
from jwt import PyJWS
from loopback import running
from stage import both_ways, pem, relaying

from django_baikal import OpenIDClient
from django_baikal.exceptions import InvalidResponse, InvalidSignature, TokenError, WrongAudience
from django_baikal.keys import load_key
from django_baikal.protocol.effects import Request, Response
from django_baikal.testing import FakeAuthserver

CALLBACK = "https://rp.example/callback"

Claims = dict[str, Any]


class Provider:
    """A strict authserver, but for the id tokens, the keys and what the metadata say of them."""

    def __init__(self, url: str) -> None:
        self.authserver = FakeAuthserver(endpoint=url)
        self.url = url
        self.jwks_path = "/jwks"
        self.keys = [jwk()]
        self.metadata: Claims = {}
        self.id_token: Callable[[Claims], str] = signed
        self.before_signing: Callable[[], None] = lambda: None
        self.asked: list[str] = []
        self.token_request: Request | None = None

    def publish(self, *keys: Claims) -> None:
        self.keys = [*keys]

    def rotate(self, number: int) -> None:
        self.publish(jwk(number=number))
        self.id_token = lambda claims: signed(claims, number=number)

    def handle(self, request: Request) -> Response:
        path = urlsplit(request.url).path
        self.asked.append(path)
        answer = self.authserver.handle(request)
        body: Claims = {}
        if path == "/.well-known/openid-configuration":
            body = {"jwks_uri": self.url + self.jwks_path, **self.metadata}
        elif path == self.jwks_path:
            return replace(answer, status=200, body=json.dumps({"keys": self.keys}).encode())
        elif path == "/token" and answer.status == 200:
            self.token_request = request
            body = {"id_token": self.new_id_token(json.loads(answer.body))}
        return replace(answer, body=json.dumps({**json.loads(answer.body), **body}).encode())

    def new_id_token(self, answer: Claims) -> str:
        if "id_token" in answer:
            said = answer["id_token"].split(".")[1]
            self.claims = json.loads(b64decode(said + "==", b"-_"))
        self.before_signing()
        return self.id_token(self.claims)

    def login(self, call: Any, client: OpenIDClient, scope: str = "openid") -> Any:
        """Let anna log in; gives the id token's claims and the whole answer."""
        started = call(client, "start_authorization", CALLBACK, scope)
        back = parse_qs(urlsplit(self.authserver.authorize(started.url, sub="anna")).query)
        assert back["state"] == [started.state]
        answer = call(
            client,
            "grant_code",
            back["code"][0],
            CALLBACK,
            code_verifier=started.code_verifier,
            nonce=started.nonce,
            full_authserver_response=True,
        )
        claims = call(client, "verify_id_token", answer["id_token"], nonce=started.nonce)
        assert claims["sub"] == "anna"
        return claims, answer


def signed(claims: Claims, alg: str = "RS256", number: int = 0, kid: bool = True) -> str:
    key = load_key(pem(alg, number))
    header = {"alg": alg, **({"kid": key.kid} if kid else {})}
    return str(PyJWS().encode(json.dumps(claims).encode(), key.private_key, alg, header))


def changed(**changes: Any) -> Callable[[Claims], str]:
    """Make id tokens with other claims; None leaves one out."""

    def make(claims: Claims) -> str:
        found = {**claims, **changes}
        return signed({name: value for name, value in found.items() if value is not None})

    return make


def spoiled(token: str) -> str:
    """Give the token with another signature of the same length."""
    said, _, signature = token.rpartition(".")
    return f"{said}.{signature[:9]}{'A' if signature[9] != 'A' else 'B'}{signature[10:]}"


@pytest.fixture
def provider() -> Iterator[Provider]:
    made: list[Any] = []
    with running(relaying(lambda: made[0])) as server:
        made.append(Provider(server.url))
        yield made[0]


def client_of(provider: Provider, **changes: Any) -> OpenIDClient:
    entry = provider.authserver.settings(**changes)
    return OpenIDClient(**{name.lower(): value for name, value in entry.items()})


def refused(call: Any, provider: Provider, because: type[TokenError]) -> None:
    """Assert that nobody is logged in, for this reason, and that nothing more is asked."""
    with pytest.raises(InvalidResponse) as caught:
        provider.login(call, client_of(provider))
    assert caught.value.code == "id_token_refused"
    assert type(caught.value.__cause__) is because
    assert provider.asked[-1] in ("/token", provider.jwks_path)


# -- the login -------------------------------------------------------------------------------------


@both_ways
def test_oidcc_client_test(call, provider):
    claims, answer = provider.login(call, client_of(provider))
    assert claims["iss"] == provider.url
    assert answer["access_token"]
    asked = provider.authserver.requests[1].form
    assert (asked["response_type"], asked["scope"]) == ("code", "openid")
    assert len(asked["nonce"]) >= 22
    assert len(asked["state"]) >= 22
    assert asked["code_challenge_method"] == "S256"


@both_ways
def test_oidcc_client_test_client_secret_basic(call, provider):
    provider.login(call, client_of(provider))
    request = provider.token_request
    assert request.headers["authorization"].startswith("Basic ")
    assert b"client_secret" not in request.body
    assert b"client_assertion" not in request.body


@both_ways
def test_oidcc_client_test_with_the_variant_client_secret_post(call, provider):
    provider.login(call, client_of(provider, CLIENT_AUTH_METHOD="client_secret_post"))
    request = provider.token_request
    assert "authorization" not in request.headers
    assert b"client_secret=test-secret" in request.body


@both_ways
def test_oidcc_client_test_with_the_variant_private_key_jwt(call, provider):
    key = pem("ES256")
    provider.authserver.add_client("test-client", jwks=[load_key(key).public_jwk])
    keys = [{"key": key}]
    client = client_of(provider, CLIENT_AUTH_METHOD="private_key_jwt", CLIENT_KEYS=keys)
    provider.login(call, client)
    request = provider.token_request
    assert "authorization" not in request.headers
    assert b"client_assertion=ey" in request.body


@both_ways
def test_oidcc_client_test_scope_userinfo_claims(call, provider):
    provider.login(call, client_of(provider), "openid profile email phone address")
    asked = provider.authserver.requests[1].form
    assert asked["scope"] == "openid profile email phone address"


# -- the id token's claims -------------------------------------------------------------------------


@both_ways
def test_oidcc_client_test_invalid_iss(call, provider):
    provider.id_token = changed(iss=provider.url + "1")
    refused(call, provider, TokenError)


@both_ways
def test_oidcc_client_test_missing_sub(call, provider):
    provider.id_token = changed(sub=None)
    refused(call, provider, TokenError)


@both_ways
def test_oidcc_client_test_invalid_aud(call, provider):
    provider.id_token = changed(aud="test-client1")
    refused(call, provider, WrongAudience)


@both_ways
def test_oidcc_client_test_missing_aud(call, provider):
    provider.id_token = changed(aud=None)
    refused(call, provider, WrongAudience)


@both_ways
def test_oidcc_client_test_missing_iat(call, provider):
    provider.id_token = changed(iat=None)
    refused(call, provider, TokenError)


@both_ways
@pytest.mark.parametrize("nonce", ["of-another-login", None])
def test_oidcc_client_test_nonce_invalid(call, provider, nonce):
    provider.id_token = changed(nonce=nonce)
    refused(call, provider, TokenError)


@both_ways
def test_oidcc_client_test_invalid_athash(call, provider):
    provider.id_token = changed(at_hash=encoded(b"\0" * 16))
    refused(call, provider, TokenError)


# -- its signature ---------------------------------------------------------------------------------

#: The suite publishes others too, also of kinds that not everybody knows.
BESIDE = (
    jwk("ES256", kid=None, alg=None),
    {
        "kty": "EC",
        "use": "sig",
        "crv": "secp256k1",
        "x": encoded(b"x" * 32),
        "y": encoded(b"y" * 32),
    },
    jwk("RS256", number=3, kid=None, use="enc", alg="RSA-OAEP"),
    jwk("ES256", number=3, kid=None, use="enc", alg="ECDH-ES"),
)


@both_ways
def test_oidcc_client_test_kid_absent_single_jwks(call, provider):
    provider.publish(*BESIDE, jwk(kid=None, alg=None))
    provider.id_token = lambda claims: signed(claims, kid=False)
    provider.login(call, client_of(provider))


@both_ways
def test_oidcc_client_test_kid_absent_multiple_jwks(call, provider):
    # The suite lets a client try each key, or refuse the token; here it is refused.
    provider.publish(*BESIDE, *[jwk(number=number, kid=None, alg=None) for number in (0, 1)])
    provider.id_token = lambda claims: signed(claims, kid=False)
    refused(call, provider, InvalidSignature)


@both_ways
def test_oidcc_client_test_idtoken_sig_rs256(call, provider):
    provider.metadata["id_token_signing_alg_values_supported"] = ["RS256"]
    provider.publish(*BESIDE, jwk(alg=None))
    provider.login(call, client_of(provider))


@both_ways
def test_oidcc_client_test_idtoken_sig_none(call, provider):
    # The suite lets a client take it from the token endpoint; here it is refused.
    provider.metadata["id_token_signing_alg_values_supported"] = ["none", "RS256"]
    provider.id_token = lambda claims: f"{encoded({'alg': 'none'})}.{encoded(claims)}."
    refused(call, provider, InvalidSignature)


@both_ways
def test_oidcc_client_test_invalid_sig_rs256(call, provider):
    provider.id_token = lambda claims: spoiled(signed(claims))
    refused(call, provider, InvalidSignature)


@both_ways
def test_oidcc_client_test_invalid_sig_es256(call, provider):
    provider.metadata["id_token_signing_alg_values_supported"] = ["RS256", "ES256"]
    provider.publish(jwk(), jwk("ES256"))
    client = client_of(provider)
    provider.id_token = lambda claims: signed(claims, "ES256")
    provider.login(call, client)
    provider.id_token = lambda claims: spoiled(signed(claims, "ES256"))
    refused(call, provider, InvalidSignature)


@both_ways
def test_oidcc_client_test_invalid_sig_hs256(call, provider):
    provider.metadata["id_token_signing_alg_values_supported"] = ["RS256", "HS256"]
    for secret in (b"another-secret", b"test-secret"):  # the right one would not do, either
        provider.id_token = lambda claims, secret=secret: with_hmac(secret, body=claims)
        refused(call, provider, InvalidSignature)


# -- discovery and rotation ------------------------------------------------------------------------


@both_ways
def test_oidcc_client_test_discovery_openid_config(call, provider):
    client = client_of(provider)
    url = call(client, "start_authorization", CALLBACK, "openid").url
    assert url.startswith(f"{provider.url}/authorize?")
    assert provider.asked == ["/.well-known/openid-configuration"]


@both_ways
def test_oidcc_client_test_discovery_jwks_uri_keys(call, provider):
    provider.jwks_path = "/keys-KtBxVqWmzP"
    provider.login(call, client_of(provider))
    assert provider.asked == ["/.well-known/openid-configuration", "/token", "/keys-KtBxVqWmzP"]


@both_ways
@pytest.mark.parametrize("issuer", ["{}/", "{}/x", "https://evil.example", None])
def test_oidcc_client_test_discovery_issuer_mismatch(call, provider, issuer):
    provider.metadata["issuer"] = issuer and issuer.format(provider.url)
    with pytest.raises(InvalidResponse) as caught:
        provider.login(call, client_of(provider))
    assert caught.value.code == "issuer_mismatch"
    assert provider.asked == ["/.well-known/openid-configuration"]


@both_ways
def test_oidcc_client_test_signing_key_rotation(call, provider):
    client = client_of(provider)
    provider.login(call, client)
    provider.rotate(1)
    provider.login(call, client)
    assert provider.asked.count("/jwks") == 2


@both_ways
def test_oidcc_client_test_signing_key_rotation_just_before_signing(call, provider):
    client = client_of(provider)
    for number in range(3):
        provider.before_signing = lambda number=number: provider.rotate(number)
        provider.login(call, client)
    assert provider.asked.count("/jwks") == 3


# -- refreshing ------------------------------------------------------------------------------------


def refreshed(call: Any, provider: Provider, client: OpenIDClient) -> Any:
    """Log in and refresh; gives the claims of the first id token, and the second one."""
    claims, answer = provider.login(call, client)
    again = call(client, "refresh", answer["refresh_token"], full_authserver_response=True)
    assert again["access_token"] != answer["access_token"]
    return claims, again["id_token"]


@both_ways
def test_oidcc_client_test_refresh_token(call, provider):
    client = client_of(provider)
    before, token = refreshed(call, provider, client)
    after = call(client, "verify_id_token", token)
    assert [after[name] for name in ("iss", "sub", "aud")] == [
        before[name] for name in ("iss", "sub", "aud")
    ]


@both_ways
def test_oidcc_client_test_refresh_token_invalid_issuer(call, provider):
    client = client_of(provider)

    def then_another(claims: Claims) -> str:
        provider.id_token = changed(iss="https://evil.example")
        return signed(claims)

    provider.id_token = then_another
    _, token = refreshed(call, provider, client)
    with pytest.raises(TokenError, match="another issuer"):
        call(client, "verify_id_token", token)
