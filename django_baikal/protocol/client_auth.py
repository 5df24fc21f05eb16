"""Client authentication: exactly one method is sent (RFC 6749 section 2.3, RFC 7523 2.2)."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from urllib.parse import quote_plus

from django_baikal.exceptions import ConfigurationError, InvalidResponse
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.effects import Flow, Now, RandomToken, Sign
from django_baikal.protocol.metadata import Metadata
from django_baikal.protocol.urls import origin

METHODS = ("client_secret_basic", "client_secret_post", "private_key_jwt")
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request carries: ``headers`` or form ``fields``, and what of it must stay secret."""

    headers: dict[str, str] = field(repr=False)
    fields: list[tuple[str, str]] = field(repr=False)
    sensitive: tuple[str, ...] = field(repr=False)


def basic_credentials(client_id: str, client_secret: str) -> str:
    """Give the value of the Authorization header, both parts form-encoded (section 2.3.1)."""
    pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
    return base64.b64encode(pair.encode("ascii")).decode("ascii")


def assertion_audience(config: ClientConfig, metadata: Metadata) -> str:
    """Give the single ``aud`` of an assertion, never one that nobody verified.

    Metadata may name the token endpoint of another authserver beside endpoints of its own, and so
    get assertions that are good there. Hence only an endpoint on the authserver's own origin, or
    on one in ENDPOINT_ORIGINS, is an audience; raises InvalidResponse for another one.
    """
    if config.assertion_audience == "issuer":
        return config.expected_issuer
    url = metadata.endpoint(config, "token_endpoint")
    if config.endpoint_origins is None and origin(url) != origin(config.authserver_endpoint):
        raise InvalidResponse(
            f"The authserver's metadata names a token_endpoint at {origin(url)!r}, which is not "
            "made the audience of an assertion: list that origin in ENDPOINT_ORIGINS if it is the "
            "authserver's, or set ASSERTION_AUDIENCE to 'issuer'.",
            code="endpoint_refused",
        )
    return url


def credentials(config: ClientConfig, metadata: Metadata, endpoint: str) -> Flow[Credentials]:
    """Authenticate for ``endpoint`` with the configured method.

    Raises ConfigurationError if the metadata lists the methods of that endpoint and this is not
    one of them: a credential is not sent where it is not wanted.
    """
    method = config.client_auth_method
    offered = metadata.document.get(f"{endpoint}_auth_methods_supported")
    if isinstance(offered, list) and offered and method not in offered:
        usable = [name for name in METHODS if name in offered]
        raise ConfigurationError(
            f"BAIKAL[{config.alias!r}]: the authserver's {endpoint} does not take {method!r}; "
            f"set CLIENT_AUTH_METHOD to one that it takes ({', '.join(usable) or 'none is known'})."
        )
    if method == "client_secret_basic":
        value = basic_credentials(config.client_id, config.client_secret)
        return Credentials({"Authorization": f"Basic {value}"}, [], (value, config.client_secret))
    fields = [("client_id", config.client_id)]
    if method == "client_secret_post":
        fields.append(("client_secret", config.client_secret))
        return Credentials({}, fields, (config.client_secret,))
    now = yield Now()
    jti = yield RandomToken(16)
    assertion = yield Sign(
        {
            "iss": config.client_id,
            "sub": config.client_id,
            "aud": assertion_audience(config, metadata),
            "iat": int(now.wall),
            "exp": int(now.wall + config.assertion_lifetime),
            "jti": jti,
        }
    )
    fields += [("client_assertion_type", ASSERTION_TYPE), ("client_assertion", assertion)]
    return Credentials({}, fields, (assertion,))
