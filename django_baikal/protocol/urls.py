"""URLs that may be called, and the same origin (RFC 6454)."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from urllib.parse import SplitResult, urlsplit

_PORTS = {"http": 80, "https": 443}
_FORBIDDEN = re.compile(r"[^\x21-\x7e]|[\\<>\"{}|^`]|%(?![0-9A-Fa-f]{2})")


def split_http_url(url: object) -> SplitResult:
    """Split an absolute http(s) URL, or raise ValueError with what is wrong with it."""
    if not isinstance(url, str) or not url:
        raise ValueError("it is not a URL")
    return _split(url)


@lru_cache(maxsize=128)
def _split(url: str) -> SplitResult:
    if _FORBIDDEN.search(url):
        raise ValueError("it has a character that a URL must not have")
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it is what checks it
    except ValueError:
        raise ValueError("it is not a URL") from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError("it is not an absolute http or https URL")
    if "@" in parts.netloc:
        raise ValueError("it holds credentials")
    if "#" in url:
        raise ValueError("it has a fragment")
    return parts


@lru_cache(maxsize=128)
def origin(url: str) -> str:
    """Give ``scheme://host[:port]`` of an http(s) URL, in lower case, without a default port."""
    parts = split_http_url(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = "" if parts.port in (None, _PORTS[parts.scheme]) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


@lru_cache(maxsize=128)
def is_loopback(url: str) -> bool:
    """Tell whether the URL's host is this machine, by name or address."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def without_query(url: str) -> str:
    """Give the URL as it may stand in a message: no query, which may hold anything."""
    return url.split("?", 1)[0].split("#", 1)[0]
