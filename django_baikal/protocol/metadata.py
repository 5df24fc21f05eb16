"""The authserver's metadata (OpenID Connect Discovery 1.0 section 4, RFC 8414)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from django_baikal.exceptions import InvalidResponse
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.effects import Request, Response
from django_baikal.protocol.messages import default_headers, json_answer, printable
from django_baikal.protocol.urls import is_loopback, origin, split_http_url, without_query


@dataclass(frozen=True, slots=True)
class Metadata:
    """A verified metadata document: its issuer is the expected one. ``source``: its URL."""

    document: Mapping[str, Any]
    source: str

    def endpoint(self, config: ClientConfig, name: str) -> str:
        """Give the URL of the endpoint ``name``, checked; raise InvalidResponse.

        Over plain http only on the metadata's own origin; over https anywhere, unless
        ENDPOINT_ORIGINS narrows it.
        """
        if self.document.get(name) is None:
            raise InvalidResponse(
                f"The authserver's metadata names no {name}, which this call needs.",
                code="endpoint_missing",
            )
        url = self.document[name]
        try:
            parts = split_http_url(url)
            where = origin(url)
            plain = "http" in (parts.scheme, urlsplit(self.source).scheme)
            if plain and where != origin(self.source):
                raise ValueError("over plain http it may only be on the metadata's own origin")
            if parts.scheme == "http" and not (config.allow_http or is_loopback(url)):
                raise ValueError("plain http is not allowed (ALLOW_HTTP)")
            if config.endpoint_origins is not None and where not in config.endpoint_origins:
                raise ValueError(f"its origin {where!r} is not in ENDPOINT_ORIGINS")
        except ValueError as error:
            raise InvalidResponse(
                f"The authserver's metadata names a {name} that is not used: {error}.",
                code="endpoint_refused",
            ) from None
        return str(url)


def openid_configuration_url(config: ClientConfig) -> str:
    """Give the URL of the OpenID document (Discovery 1.0 section 4.1)."""
    return config.authserver_endpoint.rstrip("/") + "/.well-known/openid-configuration"


def oauth_metadata_url(config: ClientConfig) -> str:
    """Give the URL of the OAuth document, its well-known part before the path (RFC 8414 3.1)."""
    parts = split_http_url(config.authserver_endpoint)
    path = parts.path.rstrip("/")
    return f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{path}"


def metadata_request(url: str) -> Request:
    """Make the request for a metadata document."""
    return Request("GET", url, default_headers())


def is_missing(response: Response) -> bool:
    """Tell whether the answer says that the document does not exist, so that another may."""
    return 400 <= response.status < 500 and response.status not in (401, 403, 408, 429)


def process_metadata_response(response: Response, url: str, config: ClientConfig) -> Metadata:
    """Check a 200 answer: JSON, and ``issuer`` equal to the expected one (RFC 8414 section 3.3)."""
    document = json_answer(response, url)
    issuer = document.get("issuer")
    if issuer != config.expected_issuer:
        shown = repr(printable(issuer)) if isinstance(issuer, str) else "no issuer"
        raise InvalidResponse(
            f"{without_query(url)} is the metadata of {shown}, but {config.expected_issuer!r} is "
            f"expected; if the former is right, set AUTHSERVER_ISSUER to it.",
            code="issuer_mismatch",
            status=response.status,
        )
    return Metadata(document, url)
