"""``ClientConfig``: every setting of one alias, with its type, default and meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


def setting(meaning: str, default: Any = None, *, secret: bool = False, unit: str = "") -> Any:
    """One key of ``BAIKAL[alias]``; a secret one is left out of every repr."""
    metadata = {"meaning": meaning, "secret": secret, "unit": unit}
    if isinstance(default, dict):
        return field(default_factory=default.copy, repr=not secret, metadata=metadata)
    return field(default=default, repr=not secret, metadata=metadata)


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
    keys: Mapping[str, Any] | None = setting(
        'The store of keys that rotate: {"BACKEND": dotted path, "OPTIONS": {...}}.', secret=True
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
    jwks_ttl: float = setting(
        "How long the authserver's keys count as fresh; its Cache-Control may shorten it.",
        600,
        unit="seconds",
    )
    jwks_cooldown: float = setting(
        "How long after a look for the authserver's keys in vain an unknown kid causes no other; "
        "at least 30.",
        30,
        unit="seconds",
    )
    jwks_stale: float = setting(
        "How long the authserver's keys are used when it fails.", 86400, unit="seconds"
    )
    cache: str = setting(
        "Alias in CACHES of the cache where tokens, and answers about bearer tokens, are kept, "
        "sealed.",
        "default",
    )
    process_ttl: float = setting(
        "How long each process uses what it knows of a token without a look into the cache, so "
        "that what happens elsewhere is noticed as much later; 0 looks every time.",
        5,
        unit="seconds",
    )
    token_leeway: float = setting(
        "A cached token is renewed this long before it expires.", 60, unit="seconds"
    )
    clock_skew: float = setting(
        "How far the authserver's clock may be from ours.", 60, unit="seconds"
    )
    validation: str = setting(
        "How bearer tokens are checked: introspection (the authserver is asked), jwt (by signature "
        "and claims, without a question) or hybrid (both).",
        "introspection",
    )
    jwt_types: tuple[str | None, ...] = setting(
        'The typ of JWTs that are access tokens: "at+jwt", and where the authserver has no such '
        '"JWT", or None for those without typ.',
        ("at+jwt",),
    )
    jwt_algorithms: tuple[str, ...] = setting(
        "The algorithms that access tokens may be signed with.",
        ("RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA"),
    )
    introspection_ttl: float = setting(
        "How long an introspection's answer that a token is active is used; 0 asks every time.",
        60,
        unit="seconds",
    )
    introspection_negative_ttl: float = setting(
        "How long the answer that a token is not active is used.", 10, unit="seconds"
    )
    stale_if_error: float = setting(
        "How much longer than INTROSPECTION_TTL an answer is used while the authserver fails; "
        "never past the token's exp.",
        0,
        unit="seconds",
    )
    audiences: tuple[str, ...] | None = setting(
        "Whom a bearer token may be for. By default CLIENT_ID, or an answer that does not say; if "
        'set, the answer has to say it. ["*"] accepts any.'
    )
    allowed_clients: tuple[str, ...] | None = setting(
        "If set, the only clients whose bearer tokens are accepted."
    )
    required_claims: Mapping[str, Any] = setting(
        "What an answer about a bearer token must say: claim -> value, or list of values.", {}
    )
    bearer_leeway: float = setting(
        "How far the authserver's clock may be from ours in exp and nbf of bearer tokens.",
        5,
        unit="seconds",
    )
    max_token_length: int = setting(
        "The longest bearer token that is looked at.", 8192, unit="characters"
    )
    realm: str = setting("The realm in WWW-Authenticate.", "api")
    authserver_resolver: str = setting(
        "Dotted path of a function or coroutine function that picks, from the request and the iss "
        "that a token claims, the alias of the authserver to ask, or None to refuse it.",
        "",
    )
    user_resolver: str = setting(
        "Dotted path of a function or coroutine function that gives the Django user of a TokenInfo,"
        " or None to refuse it; without it the principal is stateless.",
        "",
    )
    scope_permissions: Mapping[str, tuple[str, ...]] = setting(
        "Permissions that a bearer token's scopes give: scope -> list of permissions.", {}
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
