"""An authserver on loopback that is never the bottleneck: bytes made beforehand, and counters.

    python loopback.py DIRECTORY

Serves http and https until its standard input ends. It first writes its keys and certificate into
the directory, and then prints the setup of `contestants/base.py` as a line of JSON. ``POST
/_control`` takes a JSON object, of which every member may be missing: ``inactive``, the bearer
tokens that are not active from now on; ``delay``, the seconds that every answer takes from now on.
It gives the calls per path, and under ``connections`` the TCP connections that had a call, all
since the last such request.
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import ipaddress
import json
import ssl
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import certifi
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

CLIENT_ID, CLIENT_SECRET = "bench-client", "bench-secret"
#: The ``kid`` of the key of which ``/jwks`` tells.
KID = "bench-key"
DAY = 86400


def metadata(origin: str) -> dict[str, Any]:
    """Describe the authserver (OpenID Connect Discovery section 3), as the baikal-sdk needs it."""
    return {
        "issuer": origin,
        "authorization_endpoint": f"{origin}/authorize",
        "token_endpoint": f"{origin}/token",
        "introspection_endpoint": f"{origin}/introspect",
        "introspection_endpoint_auth_methods_supported": ["client_secret_basic"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        "revocation_endpoint": f"{origin}/revoke",
        "userinfo_endpoint": f"{origin}/userinfo",
        "jwks_uri": f"{origin}/jwks",
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    }


def response(status: int, body: dict[str, Any], *headers: str) -> bytes:
    """Give the bytes of a JSON response."""
    raw = json.dumps(body).encode()
    lines = [
        f"HTTP/1.1 {status} -",
        "Content-Type: application/json",
        f"Content-Length: {len(raw)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + raw


class Authserver:
    """What both ports answer, and the counters."""

    def __init__(self, jwks: dict[str, Any]) -> None:
        now = int(time.time())
        user = {"sub": "bench-user", "preferred_username": "ada", "email": "ada@example.com"}
        active = {
            "active": True,
            "token_type": "Bearer",
            "client_id": CLIENT_ID,
            "scope": "read",
            "sub": user["sub"],
            "username": user["preferred_username"],
            "iat": now,
            "exp": now + DAY,
        }
        token = {
            "access_token": "bench-token-" + "x" * 32,
            "token_type": "Bearer",
            "expires_in": DAY,
            "scope": "read",
        }
        self.answers = {
            "/jwks": response(200, jwks),
            "/token": response(200, token, "Cache-Control: no-store"),
            "/introspect": response(200, active),
            "/revoke": response(200, {}),
            "/userinfo": response(200, user),
        }
        self.inactive: frozenset[str] = frozenset()
        self.delay = 0.0
        self.counts: Counter[str] = Counter()

    def control(self, order: dict[str, Any]) -> dict[str, int]:
        """Obey, and give what was counted since the last order."""
        if "inactive" in order:
            self.inactive = frozenset(order["inactive"])
        self.delay = order.get("delay", self.delay)
        counted, self.counts = dict(self.counts), Counter()
        return counted

    def answer(self, path: str, head: bytes, body: bytes) -> bytes:
        """Give the bytes of the response to a call that is counted."""
        self.counts[path] += 1
        if self.inactive:
            token = parse_qs(body.decode()).get("token", [""])[0]
            if path == "/introspect" and token in self.inactive:
                return response(200, {"active": False})
            if path == "/userinfo" and any(t.encode() in head for t in self.inactive):
                challenge = 'WWW-Authenticate: Bearer error="invalid_token"'
                return response(401, {"error": "invalid_token"}, challenge)
        return self.answers.get(path) or response(404, {"error": "not_found"})


class Connection(asyncio.Protocol):
    """One connection, kept alive; no more of a request is read than has to be."""

    def __init__(self, server: Authserver, origin: str) -> None:
        self.server = server
        self.metadata = response(200, metadata(origin))
        self.counted = False
        self.buffer = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while True:
            head, end, rest = self.buffer.partition(b"\r\n\r\n")
            _, found, length = head.lower().partition(b"\r\ncontent-length:")
            size = int(length.partition(b"\r\n")[0]) if found else 0
            if not end or len(rest) < size:
                return
            self.buffer = rest[size:]
            self.handle(head, rest[:size])

    def handle(self, head: bytes, body: bytes) -> None:
        path = head.split(b" ", 2)[1].partition(b"?")[0].decode()
        if path == "/_control":
            self.transport.write(response(200, self.server.control(json.loads(body))))
            return
        if not self.counted:
            self.server.counts["connections"] += 1
            self.counted = True
        answer = self.server.answer(path, head, body)
        if path == "/.well-known/openid-configuration":
            answer = self.metadata
        if self.server.delay:
            asyncio.get_running_loop().call_later(self.server.delay, self.transport.write, answer)
        else:
            self.transport.write(answer)


def pem(key: Any) -> bytes:
    """Give a private key as unencrypted PKCS #8."""
    return key.private_bytes(  # type: ignore[no-any-return]
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def jwk(public: rsa.RSAPublicKey) -> dict[str, str]:
    """Give the public key (RFC 7517 section 4)."""
    numbers = public.public_numbers()

    def number(value: int) -> str:
        raw = value.to_bytes((value.bit_length() + 7) // 8, "big")
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    common = {"kty": "RSA", "kid": KID, "alg": "RS256", "use": "sig"}
    return {**common, "n": number(numbers.n), "e": number(numbers.e)}


def certificate(directory: Path) -> tuple[Path, Path]:
    """Make a certificate for loopback; gives its file with the key, and a bundle to trust.

    The bundle has the usual authorities as well: how long it takes to load is part of a call that
    makes its TLS context anew.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    now = dt.datetime.now(tz=dt.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    own = made.public_bytes(serialization.Encoding.PEM)
    chain, bundle = directory / "server.pem", directory / "ca.pem"
    chain.write_bytes(pem(key) + own)
    bundle.write_bytes(Path(certifi.where()).read_bytes() + own)
    return chain, bundle


async def main(directory: Path) -> None:
    loop = asyncio.get_running_loop()
    token_key, client_key = (rsa.generate_private_key(65537, 2048) for _ in range(2))
    (directory / "token-key.pem").write_bytes(pem(token_key))
    keys = directory / "keys"
    keys.mkdir()
    (keys / "client.pem").write_bytes(pem(client_key))
    chain, bundle = certificate(directory)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain)
    server = Authserver({"keys": [jwk(token_key.public_key())]})
    origins: dict[str, str] = {}
    for scheme, tls in (("http", None), ("https", context)):
        listener = await loop.create_server(
            lambda scheme=scheme: Connection(server, origins[scheme]),
            "127.0.0.1",
            ssl=tls,
            backlog=1024,
        )
        origins[scheme] = f"{scheme}://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    setup = {
        **origins,
        "ca_file": str(bundle),
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
        "key_file": str(keys / "client.pem"),
        "token_key_file": str(directory / "token-key.pem"),
        "token_kid": KID,
        "directory": str(directory),
    }
    print(json.dumps(setup), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
