"""What others wrote agrees with us: two authservers and three JOSE libraries."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from stage import both_ways, pem, publishing

from django_baikal import OAuthError, OpenIDClient
from django_baikal.keys import load_key
from django_baikal.keys.generate import generate_key, private_pem

OTHERS = Path(__file__).resolve().parent / "others"
CALLBACK = "https://me.example/callback"
RUNNING = re.compile(r"running at (http://127\.0\.0\.1:\d+)")
ALGORITHMS = ["RS256", "ES256"]


def python_package(name: str) -> Any:
    return pytest.importorskip(name, reason=f"{name} is not installed")


@pytest.fixture(scope="module")
def packages() -> Path:
    """The directory that npm has installed the others' packages into; kept for the next time."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("npm is not here, and with it neither oidc-provider nor jose")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True)
    if int(version.stdout[1:].partition(".")[0]) < 20:
        pytest.skip(f"oidc-provider needs Node.js 20, and this is {version.stdout.strip()}")
    caches = os.environ.get("TOX_WORK_DIR") or Path.home() / ".cache" / "django-baikal"
    directory = Path(caches) / "npm"
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other workers may want to install the same
        if not (directory / "node_modules" / "oidc-provider").exists():
            shutil.copy(OTHERS / "package.json", directory)
            done = subprocess.run(
                [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts"],
                cwd=directory,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            if done.returncode and not os.environ.get("CI"):
                pytest.skip(f"npm installs nothing: {done.stderr[-300:]}")
            assert not done.returncode, done.stderr[-2000:]
    return directory


def node(packages: Path, program: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    command = [shutil.which("node") or "node", str(OTHERS / program), *arguments]
    return command, {**os.environ, "PACKAGES": str(packages)}


def running(command: list[str], environment: dict[str, str]) -> Iterator[str]:
    """Run a program, give the address that it prints, and end it."""
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        said = []
        try:
            for line in process.stdout:
                said.append(line)
                if found := RUNNING.search(line):
                    break
            else:
                pytest.fail("".join(said))
            yield found[1]
        finally:
            process.terminate()
            process.communicate(timeout=20)


# -- oidc-provider ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def provider(packages: Path) -> Iterator[str]:
    known = {
        "grant_types": ["client_credentials", "authorization_code", "refresh_token"],
        "redirect_uris": [CALLBACK],
        "scope": "openid offline_access read",
    }
    clients = [
        {**known, "client_id": "by:basic/auth", "client_secret": "s3cr%t: +w&="},
        {
            **known,
            "client_id": "by-post",
            "client_secret": "p%ss w+rd:n&=",
            "token_endpoint_auth_method": "client_secret_post",
        },
        {
            **known,
            "client_id": "by-key",
            "token_endpoint_auth_method": "private_key_jwt",
            "jwks": {"keys": [load_key(pem(alg)).public_jwk for alg in ALGORITHMS]},
        },
    ]
    yield from running(*node(packages, "provider.mjs", json.dumps({"clients": clients})))


CLIENTS: dict[str, dict[str, Any]] = {
    "client_secret_basic": {"client_id": "by:basic/auth", "client_secret": "s3cr%t: +w&="},
    "client_secret_post": {
        "client_id": "by-post",
        "client_secret": "p%ss w+rd:n&=",
        "client_auth_method": "client_secret_post",
    },
    **{
        f"private_key_jwt {alg}": {
            "client_id": "by-key",
            "client_auth_method": "private_key_jwt",
            "client_keys": [{"key": pem(alg)}],
        }
        for alg in ALGORITHMS
    },
}


@pytest.fixture(params=CLIENTS)
def client(provider: str, request: pytest.FixtureRequest) -> OpenIDClient:
    return OpenIDClient(authserver_endpoint=provider, **CLIENTS[request.param])


def come_back(url: str) -> dict[str, list[str]]:
    """Be the browser, until it is sent back to us; give the parameters that it brings."""
    with requests.Session() as browser:
        for _ in range(10):
            answer = browser.get(url, allow_redirects=False, timeout=10)
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
    body = answer["id_token"].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    assert claims["sub"] == "anna"
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
        client_id="by-key",
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
        server = running(
            [sys.executable, str(OTHERS / "authlib_server.py"), issuer], {**os.environ}
        )
        endpoint = next(server)
        client = OpenIDClient(
            authserver_endpoint=endpoint,
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
                authserver_endpoint=endpoint,
                client_id="client",
                client_secret="secret",
                client_keys=[{"key": pem(alg, 7)}],
            ).get_jwk_set()
        )
        with pytest.raises(OAuthError, match="invalid_grant"):
            call(client, "grant_user", "tel:+34600000000", "read", "my-purpose")
        server.close()


# -- our keys and assertions, read by others -------------------------------------------------------


class Signed:
    """An assertion of ours, and the JWK Set that we publish."""

    def __init__(self, *algorithms: str) -> None:
        from django.test import override_settings

        from django_baikal.testing import FakeAuthserver

        keys = [{"key": pem(alg, 3)} for alg in algorithms]
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


@pytest.fixture(params=[("RS256",), ("ES256",), ("ES256", "RS256")], ids="+".join)
def signed(request: pytest.FixtureRequest) -> Signed:
    return Signed(*request.param)


def by_joserfc(signed: Signed, jwks: dict[str, Any]) -> Any:
    jwk, jwt = python_package("joserfc.jwk"), python_package("joserfc.jwt")
    from joserfc.errors import JoseError

    try:
        return jwt.decode(signed.token, jwk.KeySet.import_key_set(jwks)).claims
    except (JoseError, ValueError):
        return None


def by_jwcrypto(signed: Signed, jwks: dict[str, Any]) -> Any:
    jwk, jwt = python_package("jwcrypto.jwk"), python_package("jwcrypto.jwt")
    from jwcrypto.common import JWException

    try:
        key_set = jwk.JWKSet.from_json(json.dumps(jwks))
        return json.loads(jwt.JWT(jwt=signed.token, key=key_set).claims)
    except JWException:
        return None


@pytest.mark.parametrize("read", [by_joserfc, by_jwcrypto])
def test_a_library_of_python_verifies_our_assertions(
    read: Callable[[Signed, dict[str, Any]], Any], signed: Signed
) -> None:
    assert read(signed, signed.jwks)["sub"] == "anna"
    assert read(signed, {"keys": [load_key(pem(signed.alg, 8)).public_jwk]}) is None


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
    foreign = {"keys": [load_key(pem(signed.alg, 8)).public_jwk]}
    assert verify(foreign).returncode == 1
