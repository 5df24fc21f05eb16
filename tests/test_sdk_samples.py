"""Every code sample of the SDK's page runs with nothing changed but its import.

The samples are as the page has them, comments left out. What a reader has to do to any of them is
done here in the open: ``REPAIRS`` for what is mistyped there, ``IMPORTS`` for the move to this
package, and values for the placeholders.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import shutil
import ssl
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from stage import counted, pem, publishing

from django_baikal import OpenIDClient, aio
from django_baikal.exceptions import AuthserverUnavailable, ConfigurationError
from django_baikal.testing import FakeAuthserver

CONSTRUCTOR = """
from clients.baikal_client import OpenIDClient


oidc_client = OpenIDClient(
    authserver_endpoint='https://auth.xxx.baikalplatform.com',
    client_id='your_oauth_client_id',
    client_secret='your_oauth_client_secret',
    client_keys=[{ 'key': 'stringWithTheKey', format: 'pem' }],
    issuer='http://yourserver.com/',
    private_certs_path='/path/to/certs/directory'
)
"""
ASYNC_CONSTRUCTOR = CONSTRUCTOR.replace("clients.baikal_client", "clients.aio.baikal_client")
GRANT_USER = """
access_token = oidc_client.grant_user(
  'userSUB',
  ['list', 'of', 'scopes'],
  ['list', 'of', 'purposes'],
  authorization_id='46921050-e97c-418b-928c-4158256be92c',
  identifier={'id': 'my-phone-number', 'type': 'phone_number'},
  full_authserver_response=False
)
"""
ASYNC_GRANT_USER = """
access_token = await oidc_client.async_grant_user(
  'userSUB',
  ['list', 'of', 'scopes'],
  ['list', 'of', 'purposes'],
  authorization_id='46921050-e97c-418b-928c-4158256be92c',
  identifier={'id': 'my-phone-number', 'type': 'phone_number'}
)
"""
GRANT_CLIENT = """
access_token = oidc_client.grant_client(
  scopes=['list', 'of', 'scopes']
  purposes=['list', 'of', 'purposes']
)
"""
ASYNC_ANYTHING = """
access_token = await oidc_client.xxxx
"""
INTROSPECT = """
payload = oidc_client.introspect(access_token)
assert 'scope-sep-string' in payload['scope']
"""
JWK_SET = """
oid_client.get_jwk_set()
"""
ENVIRONMENT = """
export BAIKAL_AUTHSERVER_ENDPOINT='https://auth.xxx.baikalplatform.com'
export BAIKAL_CLIENT_ID='your_oauth_client_id'
export BAIKAL_CLIENT_SECRET='your_oauth_client_secret'
export BAIKAL_ISSUER='http://yourserver.com/'
export BAIKAL_PRIVATE_CERTS_PATH='/path/to/certs/directory'
"""
PER_CALL = """
access_token = oid_client.grant_client(
    scopes=["scope1"],
    headers={
        'X-Correlator': '1234-5678-9012-3456-7890'
    },
    timeout=30
)
"""
VERIFY_CERTS = """
export BAIKAL_VERIFY_CERTS=False
"""
PROTECTED_KEY = """
openssl genrsa -des3 -out private-rsa-protected.pem 2048
openssl rsa -in private-rsa-protected.pem -out private-rsa.pem
"""
KEY = """
openssl genpkey -out rsakey.pem -algorithm RSA -pkeyopt rsa_keygen_bits:2048
"""

#: What is mistyped: a name without quotes, a comma that is not there, the name of another object.
REPAIRS = {
    "format: 'pem'": "'format': 'pem'",
    "['list', 'of', 'scopes']\n": "['list', 'of', 'scopes'],\n",
    "oid_client": "oidc_client",
}
IMPORTS = {
    "from clients.baikal_client import": "from django_baikal import",
    "from clients.aio.baikal_client import": "from django_baikal.aio import",
}


def replaced(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


@dataclass
class Reader:
    """Somebody who tries the samples one after the other, in one namespace."""

    placeholders: dict[str, str]
    names: dict[str, Any] = field(default_factory=dict)

    def code(self, sample: str) -> str:
        return replaced(replaced(replaced(sample, REPAIRS), IMPORTS), self.placeholders)

    def run(self, sample: str) -> Any:
        """Run a sample, those with ``await`` too; give the value of a sample of one expression."""
        return asyncio.run(self.arun(sample))

    def run_sync(self, sample: str) -> None:
        exec(self.code(sample), self.names)

    async def arun(self, sample: str) -> None:
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        result = eval(compile(self.code(sample), "sample", "exec", flags), self.names)
        if inspect.isawaitable(result):
            await result


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    directory = tmp_path / "certs"
    directory.mkdir()
    (directory / "one.pem").write_text(pem("RS256"))
    return directory


@pytest.fixture
def reader(certs: Path) -> Iterator[Reader]:
    """A reader, with an authserver and an issuer that publishes what get_jwk_set gives."""
    names: dict[str, Any] = {}

    def published() -> str:
        keys: str = names["oidc_client"].get_jwk_set()
        return keys

    with FakeAuthserver().serve() as server, publishing(published) as issuer:
        placeholders = {
            "https://auth.xxx.baikalplatform.com": server.endpoint,
            "your_oauth_client_id": "test-client",
            "your_oauth_client_secret": "test-secret",
            "'stringWithTheKey'": repr(pem("ES256")),
            "http://yourserver.com/": issuer,
            "/path/to/certs/directory": str(certs),
            "scope-sep-string": "list of scopes",
        }
        names["server"] = server
        yield Reader(placeholders, names)


def test_the_samples_of_the_sync_client_run(reader: Reader) -> None:
    reader.run_sync(CONSTRUCTOR)
    assert type(reader.names["oidc_client"]) is OpenIDClient

    reader.run_sync(GRANT_USER)
    assert isinstance(reader.names["access_token"], str)
    reader.run_sync(INTROSPECT)
    payload = reader.names["payload"]
    assert payload["active"] is True
    assert payload["sub"] == "userSUB"
    assert payload["purpose"] == "list of purposes"
    assert payload["authorization_id"] == "46921050-e97c-418b-928c-4158256be92c"
    assert payload["identifier"] == {"id": "my-phone-number", "type": "phone_number"}

    reader.run_sync(GRANT_CLIENT)
    reader.run_sync(INTROSPECT)
    assert reader.names["payload"]["purpose"] == "list of purposes"
    assert "sub" not in reader.names["payload"]


def test_the_samples_of_the_async_client_run(reader: Reader) -> None:
    async def main() -> None:
        await reader.arun(ASYNC_CONSTRUCTOR)
        assert type(reader.names["oidc_client"]) is aio.OpenIDClient
        await reader.arun(ASYNC_GRANT_USER)
        assert isinstance(reader.names["access_token"], str)
        reader.placeholders["xxxx"] = "async_introspect(access_token)"
        await reader.arun(ASYNC_ANYTHING)

    asyncio.run(main())
    payload = reader.names["access_token"]
    assert payload["sub"] == "userSUB"
    assert payload["scope"] == "list of scopes"
    assert payload["identifier"] == {"id": "my-phone-number", "type": "phone_number"}


@pytest.mark.parametrize("name", ["grant_client", "async_grant_client"])
def test_the_upper_methods_can_be_awaited(reader: Reader, name: str) -> None:
    reader.run(ASYNC_CONSTRUCTOR)
    method = GRANT_CLIENT.partition("oidc_client.grant_client")[2].strip()
    reader.placeholders["xxxx"] = f"{name}{replaced(method, REPAIRS)}"
    reader.run(ASYNC_ANYTHING)
    reader.placeholders["xxxx"] = f"{name.replace('grant_client', 'introspect')}(access_token)"
    reader.run(ASYNC_ANYTHING)
    assert reader.names["access_token"]["scope"] == "list of scopes"


def test_the_sample_of_the_public_keys_runs(reader: Reader) -> None:
    reader.run_sync(CONSTRUCTOR)
    published = eval(reader.code(JWK_SET).strip(), reader.names)
    keys = json.loads(published)["keys"]
    assert [key["kty"] for key in keys] == ["EC", "RSA"], "those of both places, the signer first"
    for key in keys:
        assert {"kid", "use", "alg"} <= key.keys()
        assert "d" not in key


def test_the_sample_of_headers_and_timeout_runs(reader: Reader) -> None:
    reader.run_sync(CONSTRUCTOR)
    reader.run_sync(PER_CALL)
    (call,) = reader.names["server"].requests.to("token")
    assert call.headers["x-correlator"] == "1234-5678-9012-3456-7890"
    assert call.form["scope"] == "scope1"
    reader.names["server"].fail("token", hang=True)
    with pytest.raises(AuthserverUnavailable):
        exec(reader.code(PER_CALL).replace("timeout=30", "timeout=0.2"), reader.names)


def shell(script: str, **environment: str) -> str:
    """Run a script in a shell that knows nothing of this project's settings."""
    unset = ("DJANGO_SETTINGS_MODULE",)
    inherited = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run(
        ["sh", "-e", "-c", script],
        env={**inherited, "PYTHON": sys.executable, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


PROGRAM = """
"$PYTHON" -W error - <<'END'
{}
END
"""


@pytest.mark.parametrize("import_", list(IMPORTS))
def test_the_sample_of_the_environment_runs_without_any_settings(
    reader: Reader, import_: str
) -> None:
    program = f"{import_} OpenIDClient\noidc_client = OpenIDClient()"
    reader.run_sync(CONSTRUCTOR)  # it publishes the keys of the same directory
    if "aio" in import_:
        steps = f"{ASYNC_GRANT_USER}print(access_token)\nprint(oidc_client.config)"
        program += "\nasync def main():\n" + textwrap.indent(steps, "    ")
        program += "\nimport asyncio; asyncio.run(main())"
    else:
        program += GRANT_USER + "print(access_token)\nprint(oidc_client.config)"
    script = reader.code(ENVIRONMENT + PROGRAM.format(program))
    token, shown = shell(script, AIOHTTP_SESSION_SIZE="7", AIOHTTP_SESSION_LIMIT="9").splitlines()
    assert reader.names["oidc_client"].introspect(token)["sub"] == "userSUB"
    assert "aiohttp_session_size=7" in shown
    assert "aiohttp_session_limit=9" in shown
    assert "test-secret" not in shown


def test_the_sample_of_self_signed_certificates_runs_and_is_said_aloud(certs: Path) -> None:
    trustme = pytest.importorskip("trustme")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    program = textwrap.dedent(
        """
        from clients.baikal_client import OpenIDClient
        oidc_client = OpenIDClient()
        try:
            print(oidc_client.grant_client())
            print(oidc_client.introspect(oidc_client.grant_client())["active"])
        except Exception as error:
            print(error.code)
        """
    )
    with counted(context, clients={"me": "secret"}) as (server, _):
        placeholders = {
            "https://auth.xxx.baikalplatform.com": server.endpoint,
            "your_oauth_client_id": "me",
            "your_oauth_client_secret": "secret",
            "/path/to/certs/directory": str(certs),
        }
        run = Reader(placeholders).code
        assert shell(run(ENVIRONMENT + PROGRAM.format(program))) == "tls_failed\n"
        assert server.requests.count() == 0
        said = shell("exec 2>&1" + run(ENVIRONMENT + VERIFY_CERTS + PROGRAM.format(program)))
        assert said.splitlines()[-1] == "True"
        assert "VERIFY_CERTS is False" in said


@pytest.mark.skipif(not shutil.which("openssl"), reason="there is no openssl command")
def test_the_keys_that_the_samples_of_openssl_make_can_be_used(reader: Reader, certs: Path) -> None:
    (certs / "one.pem").unlink()
    generate, decrypt = PROTECTED_KEY.strip().splitlines()
    # The passphrase, which openssl asks for otherwise.
    generate = generate.replace("-des3", "-des3 -passout pass:phrase")
    decrypt = decrypt.replace("-in", "-passin pass:phrase -in")
    shell(f"cd '{certs}'\n{generate}\n{decrypt}\n{KEY}")
    client = OpenIDClient(
        reader.placeholders["https://auth.xxx.baikalplatform.com"],
        "test-client",
        "test-secret",
        issuer=reader.placeholders["http://yourserver.com/"],
        private_certs_path=str(certs),
    )
    reader.names["oidc_client"] = client
    assert len(client.get_jwk_set(dump_json=False)["keys"]) == 2, "the protected one cannot be read"
    reader.run_sync(GRANT_USER)
    reader.run_sync(INTROSPECT)


@pytest.mark.parametrize("sample", [GRANT_CLIENT, JWK_SET, PER_CALL, CONSTRUCTOR])
def test_what_is_repaired_is_mistyped(reader: Reader, sample: str) -> None:
    reader.run_sync(CONSTRUCTOR)
    code = replaced(replaced(sample, IMPORTS), reader.placeholders)
    with pytest.raises((SyntaxError, NameError, ConfigurationError)):
        exec(code, reader.names)
