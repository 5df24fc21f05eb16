"""What the steps share: asking as anybody could, and telling what was answered."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import requests

Answers = Iterator[tuple[str, str]]

# No telephone has the country code 999.
USER = "tel:+999000000001"
SCOPE, USER_SCOPE, PURPOSE = "catalogue:read", "profile:read", "customer-self-service"
TIMEOUT = 5


class Unexpected(Exception):
    """A step did not come out as it has to; the text says how."""


def read(url: str) -> dict[str, Any]:
    """Fetch a JSON object over HTTP, as anybody could."""
    try:
        response = requests.get(url, timeout=TIMEOUT, allow_redirects=False)
        if response.status_code != 200:
            raise Unexpected(f"GET {url} answered {response.status_code}.")
        document = response.json()
    except requests.RequestException as error:
        raise Unexpected(f"GET {url} failed: {type(error).__name__}.") from None
    if not isinstance(document, dict):
        raise Unexpected(f"What is at {url} is not a JSON object.")
    return document


def told(claims: dict[str, Any]) -> Answers:
    """Show of an authserver's answer what a reader needs, and nothing that is secret."""
    if "access_token" in claims:
        yield "token", brief(claims["access_token"])
    for name in ("active", "sub", "client_id", "scope", "purpose", "token_type"):
        if name in claims:
            yield name, hidden(json.dumps(claims[name]).strip('"'))
    until = claims.get("exp")
    left = until - time.time() if isinstance(until, int | float) else claims.get("expires_in")
    if left is not None:
        yield "expires in", f"{left:.0f} s"


def brief(value: Any) -> str:
    """Shorten a token, or a number in a key, to what tells it from another."""
    text = str(value)
    return text if len(text) < 12 else f"{text[:6]}..."


def hidden(text: str) -> str:
    """Hide what looks like a telephone number."""
    return re.sub(r"\+?\d{7,}", "***", text)


def since(start: float) -> str:
    """Say how long ago ``time.perf_counter()`` was ``start``."""
    return in_words(time.perf_counter() - start)


def in_words(seconds: float) -> str:
    """Give a duration in a unit that can be read."""
    if seconds >= 1:
        return f"{seconds:.1f} s"
    milliseconds = seconds * 1000
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"
