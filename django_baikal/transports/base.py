"""What a transport is, and what all transports share: same bytes out, same limits, same errors.

No HTTP library is imported here.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import quote, urlsplit
from urllib.request import getproxies_environment

from django_baikal.exceptions import ConfigurationError, InvalidResponse
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.effects import Request, Response
from django_baikal.protocol.urls import is_loopback, origin, split_http_url, without_query

__all__ = [
    "AsyncTransport",
    "Body",
    "Environment",
    "Transport",
    "collect_headers",
    "origin",
    "routes",
    "warn_if_unverified",
    "wire",
]

logger = logging.getLogger("django_baikal.transport")

#: Origin (``https://host[:port]``, as ``origin`` gives it) -> an object with ``send`` and
#: ``asend`` that answers in memory. Clients look here first; the fake authserver registers here.
routes: dict[str, Any] = {}

#: Bytes that are asked of a response at once.
CHUNK = 65536


class Transport(Protocol):
    """Sends from a thread; safe to share between threads."""

    def send(self, request: Request, *, timeout: float) -> Response:
        """Send ``request`` and read the whole answer, of any status, within ``timeout`` seconds.

        Raises ``AuthserverUnavailable``, ``InvalidResponse`` or ``ConfigurationError``.
        """
        ...

    def close(self) -> None:
        """Close idle connections."""
        ...


class AsyncTransport(Protocol):
    """Sends from a coroutine; safe to share between event loops and threads."""

    async def asend(self, request: Request, *, timeout: float) -> Response:
        """Send ``request`` and read the whole answer, of any status, within ``timeout`` seconds.

        Raises ``AuthserverUnavailable``, ``InvalidResponse`` or ``ConfigurationError``.
        """
        ...


_METHOD = re.compile(r"[A-Z]+")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")
_PERCENT = re.compile(r"%[0-9a-fA-F]{2}")
_FRAMING = frozenset({"host", "content-length", "transfer-encoding", "connection", "expect"})


def wire(request: Request) -> tuple[str, dict[str, str]]:
    """Give the URL and all headers, in order, exactly as they have to go out.

    Raises ``ConfigurationError`` for what must not be sent (RFC 9110 sections 5.1 and 5.5).
    """
    url, host = _canonical(request.url)
    if not _METHOD.fullmatch(request.method):
        raise ConfigurationError(
            f"{request.method!r} is not an HTTP method.", code="unsendable_request"
        )
    headers = {"Host": host}
    seen = set(_FRAMING)
    for name, value in request.headers.items():
        lower = _lower(name)
        if lower is None or lower in seen or not _VALUE.fullmatch(value):
            raise ConfigurationError(
                f"The header {name!r} cannot be sent: it is repeated, has characters that "
                "are not allowed, or is set by the transport.",
                code="unsendable_request",
            )
        seen.add(lower)
        headers[name] = value
    # Left to the libraries, they would put it at different places.
    if request.body is not None or request.method not in ("GET", "HEAD", "OPTIONS"):
        headers["Content-Length"] = str(len(request.body or b""))
    return url, headers


@lru_cache(maxsize=256)
def _lower(name: str) -> str | None:
    """Give the name of a header in lower case, or None if it is none."""
    return name.lower() if _NAME.fullmatch(name) else None


@lru_cache(maxsize=64)
def _canonical(url: str) -> tuple[str, str]:
    """Give the URL in the one spelling that no HTTP library changes, and its Host header."""
    try:
        parts = split_http_url(url)
        base = origin(url)
    except ValueError as error:
        shown = "The URL" if "@" in url else without_query(url)
        raise ConfigurationError(f"{shown!r}: {error}.", code="invalid_url") from None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    target = quote(target, safe="%-._~!$&'()*+,;=:@/?")
    target = _PERCENT.sub(lambda found: found[0].upper(), target)
    return base + target, base.partition("://")[2]


@dataclass(frozen=True, slots=True)
class Environment:
    """What the environment said when the transport was made; empty without ``TRUST_ENV``."""

    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca_bundle: str | None = None
    ca_variable: str = ""

    @classmethod
    def read(cls, config: ClientConfig) -> Environment:
        """Read proxies and the CA bundle, once; a .netrc is never read.

        Raises ``ConfigurationError`` for a proxy that is not http or https.
        """
        if not config.trust_env:
            return cls()
        proxies = getproxies_environment()
        for scheme in ("http", "https", "all"):
            if scheme in proxies:
                proxy = proxies[scheme]
                proxies[scheme] = proxy = proxy if "://" in proxy else f"http://{proxy}"
                if not proxy.lower().startswith(("http://", "https://")):
                    raise ConfigurationError(
                        f"BAIKAL[{config.alias!r}]: the environment's proxy for {scheme!r} is not "
                        "an http or https one; set TRUST_ENV to False, or no_proxy.",
                        code="unsupported_proxy",
                    )
        for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            if bundle := os.environ.get(variable):
                return cls(proxies, bundle, variable)
        return cls(proxies)

    def proxy_for(self, url: str) -> str | None:
        """Give the proxy to use for ``url``, or None."""
        # Plain http is allowed to loopback because it does not leave this machine.
        if not self.proxies or (url.startswith("http://") and is_loopback(url)):
            return None
        parts = urlsplit(url)
        proxy = self.proxies.get(parts.scheme) or self.proxies.get("all")
        if not proxy or _listed(parts.hostname or "", parts.port, self.proxies.get("no", "")):
            return None
        return proxy


def _listed(host: str, port: int | None, no_proxy: str) -> bool:
    """Tell whether ``no_proxy`` names the host: by name, domain, network, with port, or ``*``."""
    for entry in no_proxy.lower().split(","):
        name = entry.strip().lstrip(".")
        if name == "*" or (name and (host == name or host.endswith(f".{name}"))):
            return True
        if (port and name == f"{host}:{port}") or _contains(name, host):
            return True
    return False


def _contains(network: str, host: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def warn_if_unverified(config: ClientConfig) -> None:
    """Log a warning if TLS certificates are not checked."""
    if config.verify_certs is False:
        logger.warning(
            "BAIKAL[%r]: VERIFY_CERTS is False: anybody between here and the authserver can read "
            "and change what is sent. Give the path of a CA bundle instead.",
            config.alias,
        )


def collect_headers(pairs: Iterable[tuple[str, str]], url: str) -> dict[str, str]:
    """Give headers with lower-case names and duplicates joined by ``", "``.

    Raises ``InvalidResponse`` if they leave in doubt where the body ends (RFC 9112 section 6.3).
    """
    headers: dict[str, str] = {}
    for name, value in pairs:
        key, text = name.lower(), value.strip(" \t\r\n")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    length = headers.get("content-length")
    coding = headers.get("transfer-encoding")
    if (length is not None and not (length.isascii() and length.isdigit())) or (
        coding is not None and (length is not None or coding.lower() != "chunked")
    ):
        raise InvalidResponse(
            f"{without_query(url)}: the answer does not say clearly where it ends.",
            code="malformed_http",
        )
    return headers


class Body:
    """Collects a response body, decompressed, of at most ``limit`` bytes.

    ``feed`` and ``finish`` raise ``InvalidResponse`` (code ``response_too_large`` or
    ``bad_encoding``).
    """

    def __init__(self, headers: Mapping[str, str], *, limit: int, url: str) -> None:
        self._limit = limit
        self._url = without_query(url)
        self._coding = headers.get("content-encoding", "").strip().lower() or "identity"
        if self._coding not in ("identity", "gzip", "x-gzip", "deflate"):
            raise self._bad("the body has a Content-Encoding that was not asked for")
        self._decoder: zlib._Decompress | None = None
        self._head = b""
        self._received = 0
        self._size = 0
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """Take the next bytes from the wire."""
        self._received += len(data)
        # What is compressed is seldom larger than what it holds: one chunk of slack.
        if self._received > self._limit + (0 if self._coding == "identity" else CHUNK):
            raise self._too_large()
        if self._coding != "identity":
            data = self._decompress(data)
        self._size += len(data)
        if self._size > self._limit:
            raise self._too_large()
        self._parts.append(data)

    def finish(self) -> bytes:
        """Give the whole body."""
        complete = self._decoder is not None and self._decoder.eof
        if self._received and self._coding != "identity" and not complete:
            raise self._bad("the compressed body is cut off")
        return b"".join(self._parts)

    def _decompress(self, data: bytes) -> bytes:
        if self._decoder is None:
            data = self._head = self._head + data
            if len(data) < 2:
                return b""
            self._decoder = zlib.decompressobj(_window(self._coding, data))
        if not data:
            return b""
        if self._decoder.eof:
            raise self._bad("there is something after the end of the compressed body")
        try:
            data = self._decoder.decompress(data, self._limit - self._size + 1)
        except zlib.error:
            raise self._bad("the body is not what its Content-Encoding says") from None
        if self._decoder.unused_data:
            raise self._bad("there is something after the end of the compressed body")
        return data

    def _bad(self, problem: str) -> InvalidResponse:
        return InvalidResponse(f"{self._url}: {problem}.", code="bad_encoding")

    def _too_large(self) -> InvalidResponse:
        return InvalidResponse(
            f"{self._url}: the answer is larger than MAX_RESPONSE_SIZE ({self._limit} bytes).",
            code="response_too_large",
        )


def _window(coding: str, head: bytes) -> int:
    """Give zlib's wbits: gzip or zlib by its header, or the raw deflate that some servers send."""
    zlib_header = head[0] & 0x0F == 8 and (head[0] << 8 | head[1]) % 31 == 0
    return 47 if coding != "deflate" or zlib_header or head[:2] == b"\x1f\x8b" else -15
