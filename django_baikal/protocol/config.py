"""``ClientConfig``: every setting of one alias, with its type, default and meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


def setting(meaning: str, default: Any = None, *, secret: bool = False, unit: str = "") -> Any:
    """One key of ``BAIKAL[alias]``; a secret one is left out of every repr."""
    return field(
        default=default,
        repr=not secret,
        metadata={"meaning": meaning, "secret": secret, "unit": unit},
    )


@dataclass(frozen=True, kw_only=True)
class ClientConfig:
    """One alias, ready for use; each field but ``alias`` is the setting of that name in capitals.

    Made and checked by ``django_baikal.conf``; times are seconds.
    """

    alias: str = "default"

    authserver_endpoint: str = setting(
        "Base URL of the authserver, and the issuer that its metadata must name.", ""
    )
    authserver_issuer: str = setting(
        "The issuer that the authserver's metadata must name, where it differs from the endpoint.",
        "",
    )
    client_id: str = setting("Who this client is at the authserver.", "")
    client_secret: str = setting(
        "The client's secret; not needed with private_key_jwt.", "", secret=True
    )
    client_auth_method: str = setting(
        "How the client authenticates: client_secret_basic, client_secret_post or private_key_jwt.",
        "client_secret_basic",
    )
    issuer: str = setting(
        "Who we are in the assertions that we sign, and in the metadata that we publish; "
        "needed for user grants.",
        "",
    )
    private_certs_path: str = setting("A directory of key files; read again when it changes.", "")
    client_keys: tuple[Mapping[str, Any], ...] = setting(
        'Keys: a list of {"key", "format", "passphrase", "kid", "alg"}, of which only "key" is '
        "required.",
        (),
        secret=True,
    )
    assertion_lifetime: float = setting(
        "How long an assertion may be used; at most 3600.", 300, unit="seconds"
    )
    assertion_audience: str = setting(
        'The aud of an assertion: "issuer" (the authserver\'s) or "token_endpoint".', "issuer"
    )
    verify_certs: bool | str = setting(
        "Check the authserver's TLS certificate: True, False, or the path of a CA bundle.", True
    )
    client_cert: tuple[str, str] | None = setting(
        "A client certificate for mutual TLS: the paths of the certificate and of its key."
    )
    trust_env: bool = setting(
        "Take proxies and the CA bundle from the environment, once; a .netrc is never read.", True
    )
    allow_http: bool = setting(
        "Allow plain http to hosts other than this one; for development only.", False
    )
    timeout: float = setting("Bounds a whole call, headers and body.", 15, unit="seconds")
    introspection_timeout: float = setting("Bounds an introspection.", 5, unit="seconds")
    max_response_size: int = setting(
        "The largest answer that is read, after decompression.", 1024 * 1024, unit="bytes"
    )
    endpoint_origins: tuple[str, ...] | None = setting(
        "If set, the only origins (https://host[:port]) where endpoints may be."
    )
    metadata_ttl: float = setting(
        "How long the authserver's metadata counts as fresh.", 900, unit="seconds"
    )
    metadata_stale: float = setting(
        "How long a copy of the metadata is used when the authserver fails.", 86400, unit="seconds"
    )
    cache: str = setting("Alias in CACHES of the cache where tokens are kept, sealed.", "default")
    token_leeway: float = setting(
        "A cached token is renewed this long before it expires.", 60, unit="seconds"
    )
    clock_skew: float = setting(
        "How far the authserver's clock may be from ours.", 60, unit="seconds"
    )
    aiohttp_session_size: int = setting(
        "Async: requests in flight at once to one host, further ones wait.", 200
    )
    aiohttp_session_dns_cache: float = setting(
        "Async: how long a resolved host name is kept.", 20, unit="seconds"
    )
    aiohttp_session_limit: int = setting(
        "Async: open connections of one event loop, further ones wait.", 500
    )

    @property
    def expected_issuer(self) -> str:
        """The authserver's issuer, character by character (RFC 8414 section 3.3)."""
        return self.authserver_issuer or self.authserver_endpoint
