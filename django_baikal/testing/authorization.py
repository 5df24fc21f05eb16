"""The authorization endpoint and a user who decides at once (RFC 6749 4.1, RFC 7636, RFC 9207)."""

from __future__ import annotations

import re
import secrets
from urllib.parse import urlencode, urlsplit

from django_baikal.testing.state import Client, Code, State
from django_baikal.testing.wire import RecordedRequest, Refused, scope_tokens, unique_pairs

_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")


def decide(state: State, call: RecordedRequest, *, sub: str, approve: bool = True) -> str:
    """Give the URL that the user's browser is sent to, with ``code`` or ``error`` in it.

    Raises Refused where it must not be sent anywhere: an unknown client or redirect_uri.
    """
    if call.method not in ("GET", "HEAD"):
        raise Refused(
            "invalid_request", f"{call.method} is not for here.", status=405, headers=_ALLOW
        )
    asked = unique_pairs(urlsplit(call.url).query)
    client = state.clients.get(asked.get("client_id", ""))
    if client is None:
        raise Refused("invalid_request", "The client_id is missing or unknown.")
    call.client_id = client.client_id
    redirect_uri = asked.get("redirect_uri", "")
    _check_redirect_uri(client, redirect_uri)
    try:
        answer = {"code": _code(state, client, asked, sub=sub, approve=approve)}
    except Refused as error:
        call.error, call.description = error.error, error.description
        answer = {"error": error.error, "error_description": error.description}
    if "state" in asked:
        answer["state"] = asked["state"]
    answer["iss"] = state.issuer
    return redirect_uri + ("&" if "?" in redirect_uri else "?") + urlencode(answer)


_ALLOW = {"allow": "GET, HEAD"}


def _check_redirect_uri(client: Client, redirect_uri: str) -> None:
    try:
        parts = urlsplit(redirect_uri)
    except ValueError:
        raise Refused("invalid_request", "The redirect_uri is no URI.") from None
    printable = redirect_uri.isascii() and redirect_uri.isprintable() and " " not in redirect_uri
    if not parts.scheme or not (parts.netloc or parts.path) or parts.fragment or not printable:
        raise Refused("invalid_request", "The redirect_uri must be absolute, with no fragment.")
    if client.redirect_uris and redirect_uri not in client.redirect_uris:
        raise Refused("invalid_request", "The redirect_uri is not registered for the client.")


def _code(state: State, client: Client, asked: dict[str, str], *, sub: str, approve: bool) -> str:
    if asked.get("response_type") != "code":
        raise Refused("unsupported_response_type", "The response_type must be code.")
    scope = asked.get("scope", "")
    scope_tokens(scope)
    challenge = asked.get("code_challenge")
    method = asked.get("code_challenge_method", "plain")
    if challenge is None and "code_challenge_method" in asked:
        raise Refused("invalid_request", "The code_challenge is missing.")
    if challenge is not None and method != "S256":
        raise Refused("invalid_request", "The code_challenge_method must be S256.")
    if challenge is not None and not _CHALLENGE.fullmatch(challenge):
        raise Refused("invalid_request", "The code_challenge is no SHA-256 in base64url.")
    if not approve:
        raise Refused("access_denied", "The user said no.")
    now = state.now()
    claims = {
        "sub": sub,
        "purpose": asked.get("purpose"),
        "acr": asked.get("acr_values", "").partition(" ")[0] or None,
    }
    code = Code(
        client_id=client.client_id,
        redirect_uri=asked["redirect_uri"],
        scope=scope,
        challenge=challenge,
        nonce=asked.get("nonce"),
        claims={name: value for name, value in claims.items() if value is not None},
        auth_time=int(now),
        expires_at=now + state.rules.code_lifetime,
    )
    value = secrets.token_urlsafe(32)
    with state.lock:
        state.forget_expired()
        state.codes[value] = code
    return value
