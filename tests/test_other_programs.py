"""What others wrote agrees with us: two authservers and three JOSE libraries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from material import jwk as private_jwk
from programs import OTHERS, node, npm_packages, running
from stage import both_ways, pem, publishing
from verifying import Verify, by_joserfc, by_jwcrypto, python_package

from django_baikal import InvalidSignature, OAuthError, OpenIDClient
from django_baikal.exceptions import TokenError
from django_baikal.keys import load_key
from django_baikal.keys.generate import generate_key, private_pem
from django_baikal.protocol import jws
from django_baikal.protocol.jwk import ALGORITHMS as EVERY_ALGORITHM

CALLBACK = "https://me.example/callback"
ALGORITHMS = ["RS256", "ES256"]
#: What oidc-provider takes for client assertions, and signs id tokens with, if it is asked to.
PROVIDER_ALGORITHMS = ["RS256", "PS256", "ES256", "EdDSA"]


@pytest.fixture(scope="module")
def packages() -> Path:
    return npm_packages()


# -- oidc-provider ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def provider(packages: Path) -> Iterator[str]:
    known = {
        "grant_types": ["client_credentials", "authorization_code", "refresh_token"],
        "redirect_uris": [CALLBACK],
        "scope": "openid offline_access read",
        "default_max_age": 3600,  # so that its id tokens say when the user logged in
    }
    clients = [
        {**known, "client_id": "by:basic/auth", "client_secret": "s3cr%t: +w&="},
        {
            **known,
            "client_id": "by-post",
            "client_secret": "p%ss w+rd:n&=",
            "token_endpoint_auth_method": "client_secret_post",
        },
        *(
            {
                **known,
                "client_id": f"by-key-{alg}",
                "token_endpoint_auth_method": "private_key_jwt",
                "id_token_signed_response_alg": alg,
                "jwks": {"keys": [load_key(pem(alg), alg=alg).public_jwk]},
            }
            for alg in PROVIDER_ALGORITHMS
        ),
    ]
    keys = [
        {
            **private_jwk(load_key(pem(alg, 5), alg=alg).private_key),
            "kid": f"theirs-{alg}",
            "alg": alg,
        }
        for alg in PROVIDER_ALGORITHMS
    ]
    question = json.dumps({"clients": clients, "jwks": {"keys": keys}})
    with running(*node(packages, "provider.mjs", question)) as program:
        yield program.url


CLIENTS: dict[str, dict[str, Any]] = {
    "client_secret_basic": {"client_id": "by:basic/auth", "client_secret": "s3cr%t: +w&="},
    "client_secret_post": {
        "client_id": "by-post",
        "client_secret": "p%ss w+rd:n&=",
        "client_auth_method": "client_secret_post",
    },
    **{
        f"private_key_jwt {alg}": {
            "client_id": f"by-key-{alg}",
            "client_auth_method": "private_key_jwt",
            "client_keys": [{"key": pem(alg), "alg": alg}],
        }
        for alg in PROVIDER_ALGORITHMS
    },
}


@pytest.fixture(params=CLIENTS)
def client(provider: str, request: pytest.FixtureRequest) -> OpenIDClient:
    return OpenIDClient(authserver_endpoint=provider, **CLIENTS[request.param])


def come_back(url: str) -> dict[str, list[str]]:
    """Be the browser, until it is sent back to us; give the parameters that it brings."""
    with requests.Session() as browser:
        for _ in range(10):
            answer = browser.get(url, allow_redirects=False, timeout=60)
            url = requests.compat.urljoin(url, answer.headers["Location"])
            if url.startswith(CALLBACK):
                return parse_qs(urlsplit(url).query)
    raise AssertionError(url)


@both_ways
def test_oidc_provider_gives_and_introspects_and_revokes_tokens_of_the_application(call, client):
    token = call(client, "grant_client", ["read"])
    told = call(client, "introspect", token)
    assert told["active"] is True
    assert told["client_id"] == client.config.client_id
    call(client, "revoke", token)
    assert call(client, "introspect", token) == {"active": False}


@both_ways
def test_oidc_provider_logs_a_user_in(call, client):
    started = call(client, "start_authorization", CALLBACK, ["openid", "offline_access", "read"])
    back = come_back(started.url)
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
    claims = call(client, "verify_id_token", answer["id_token"], nonce=started.nonce, max_age=60)
    assert claims["sub"] == "anna"
    alg = client.config.client_id.removeprefix("by-key-")
    used = jws.decode(answer["id_token"]).header
    assert used["alg"] == (alg if alg in PROVIDER_ALGORITHMS else "RS256")
    for wrong in (answer["access_token"], answer["id_token"][:-4] + "AAAA"):
        with pytest.raises(InvalidSignature):
            call(client, "verify_id_token", wrong)
    with pytest.raises(TokenError, match="nonce"):
        call(client, "verify_id_token", answer["id_token"], nonce="of another login")
    assert call(client, "introspect", answer["access_token"])["sub"] == "anna"
    renewed = call(client, "refresh", answer["refresh_token"], full_authserver_response=True)
    assert call(client, "introspect", renewed["access_token"])["sub"] == "anna"


def test_oidc_provider_refuses_another_code_verifier(client):
    started = client.start_authorization(CALLBACK, ["openid"])
    code = come_back(started.url)["code"][0]
    with pytest.raises(OAuthError) as caught:
        client.grant_code(code, CALLBACK, code_verifier="v" * 43, nonce=started.nonce)
    assert caught.value.error == "invalid_grant"


def test_oidc_provider_refuses_a_key_that_it_does_not_know(provider):
    keys = [{"key": private_pem(generate_key("ES256"))}]
    client = OpenIDClient(
        authserver_endpoint=provider,
        client_id="by-key-ES256",
        client_auth_method="private_key_jwt",
        client_keys=keys,
    )
    with pytest.raises(OAuthError) as caught:
        client.grant_client(["read"])
    assert (caught.value.status, caught.value.error) == (401, "invalid_client")


# -- Authlib ---------------------------------------------------------------------------------------


@both_ways
@pytest.mark.parametrize("alg", ALGORITHMS)
@pytest.mark.parametrize("published", [1, 2])
def test_authlib_grants_a_token_for_an_assertion(call, alg, published):
    python_package("authlib")
    python_package("flask")
    pems = [pem(alg, number) for number in range(published)]
    documents: list[str] = []
    with publishing(lambda: documents[-1], slash="") as issuer:
        keys = [{"key": text} for text in pems]
        command = [sys.executable, str(OTHERS / "authlib_server.py"), issuer]
        with running(command, os.environ) as authserver:
            client = OpenIDClient(
                authserver_endpoint=authserver.url,
                client_id="client",
                client_secret="secret",
                issuer=issuer,
                client_keys=keys,
            )
            documents.append(client.get_jwk_set())
            assert len(json.loads(documents[-1])["keys"]) == published
            assert call(client, "grant_user", "tel:+34600000000", "read", "my-purpose")
            documents.append(
                OpenIDClient(
                    authserver_endpoint=authserver.url,
                    client_id="client",
                    client_secret="secret",
                    client_keys=[{"key": pem(alg, 7)}],
                ).get_jwk_set()
            )
            with pytest.raises(OAuthError, match="invalid_grant"):
                call(client, "grant_user", "tel:+34600000000", "read", "my-purpose")


# -- our keys and assertions, read by others -------------------------------------------------------


class Signed:
    """An assertion of ours, and the JWK Set that we publish."""

    def __init__(self, *algorithms: str) -> None:
        from django.test import override_settings

        from django_baikal.testing import FakeAuthserver

        keys = [{"key": pem(alg, 3), "alg": alg} for alg in algorithms]
        self.server = FakeAuthserver(fetch=self._unread)
        entry = self.server.settings(ISSUER="https://me.example/", CLIENT_KEYS=keys)
        with self.server.in_memory(), override_settings(BAIKAL={"default": entry}):
            client = OpenIDClient()
            self.jwks = json.loads(client.get_jwk_set())
            with pytest.raises(OAuthError):
                client.grant_user("anna", ["read"], ["my-purpose"])
        self.token = self.server.requests[-1].form["assertion"]
        self.alg = algorithms[0]

    def _unread(self, _request: Any) -> Any:
        raise OSError


@pytest.fixture(
    params=[*((alg,) for alg in EVERY_ALGORITHM), ("ES256", "RS256")],
    ids="+".join,
)
def signed(request: pytest.FixtureRequest) -> Signed:
    return Signed(*request.param)


# joserfc knows EdDSA, and says that RFC 9864 has a name for each of its curves now.
@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
@pytest.mark.parametrize("verify", [by_joserfc, by_jwcrypto])
def test_a_library_of_python_verifies_our_assertions(verify: Verify, signed: Signed) -> None:
    claims = verify(signed.token, signed.jwks, [signed.alg], signed.server.endpoint)
    assert claims is not None and claims["sub"] == "anna"
    assert verify(signed.token, signed.jwks, [signed.alg], "https://another.example") is None
    foreign = {"keys": [load_key(pem(signed.alg, 8), alg=signed.alg).public_jwk]}
    assert verify(signed.token, foreign, [signed.alg], signed.server.endpoint) is None


def test_jose_verifies_our_assertions(packages: Path, signed: Signed) -> None:
    command, environment = node(packages, "verify.mjs")

    def verify(jwks: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        question = {
            "jwks": jwks,
            "token": signed.token,
            "issuer": "https://me.example/",
            "audience": signed.server.endpoint,
        }
        return subprocess.run(
            command,
            env=environment,
            input=json.dumps(question),
            capture_output=True,
            text=True,
            check=False,
        )

    done = verify(signed.jwks)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["protectedHeader"]["alg"] == signed.alg
    foreign = {"keys": [load_key(pem(signed.alg, 8), alg=signed.alg).public_jwk]}
    assert verify(foreign).returncode == 1
