"""Token requests and their answers (RFC 6749 sections 4.1.3, 4.4, 5 and 6; RFC 7523)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from django_baikal.exceptions import ConfigurationError, InvalidResponse, OAuthError
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.effects import Instant, Response
from django_baikal.protocol.messages import json_answer, mask, raise_for_error
from django_baikal.protocol.strict_json import canonical, is_number
from django_baikal.protocol.urls import without_query

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
MAX_EXPIRES_IN = 10 * 365 * 86400

_VSCHAR = re.compile(r"[\x20-\x7e]+")
# What a token may consist of where it is used, in the Authorization header (RFC 6750 section 2.1).
_ACCESS_TOKEN = re.compile(r"[\x21-\x7e]+")


def assertion_claims(
    config: ClientConfig,
    *,
    audience: str,
    now: Instant,
    jti: str,
    subject: str,
    scopes: tuple[str, ...],
    purposes: tuple[str, ...],
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """Give the claims of a user's assertion (RFC 7523 section 3), with the platform's own.

    ``extra``: authorization_id, identifier, acr, authentication_context; None leaves one out.
    """
    claims: dict[str, Any] = {
        "iss": config.issuer,
        "sub": subject,
        "aud": audience,
        "iat": int(now.wall),
        "exp": int(now.wall + config.assertion_lifetime),
        "jti": jti,
        "active": True,
    }
    if scopes:
        claims["scope"] = " ".join(scopes)
    if purposes:
        claims["purpose"] = " ".join(purposes)
    claims |= {name: value for name, value in extra.items() if value is not None}
    as_json(claims, "grant_user")
    return claims


def as_json(value: Any, method: str) -> str:
    """Give ``value`` as canonical JSON, or raise ConfigurationError naming the method called."""
    try:
        written = canonical(value)
        written.encode()
    except (TypeError, ValueError, RecursionError):
        raise ConfigurationError(f"The arguments of {method} must be JSON values.") from None
    return written


def sensitive_values(subject: str, extra: Mapping[str, Any]) -> tuple[str, ...]:
    """Give the values of a user grant that identify a person, to be masked in messages."""
    identifier = extra.get("identifier")
    values = identifier.values() if isinstance(identifier, Mapping) else (identifier,)
    found = [value for value in (subject, *values) if isinstance(value, str)]
    return tuple(found + [value.removeprefix("tel:") for value in found])


def process_token_response(
    response: Response,
    url: str,
    *,
    wall: float,
    sensitive: tuple[str, ...],
    scopes: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Check the token endpoint's answer and give it whole (RFC 6749 section 5.1).

    ``expires_in`` becomes a whole number of seconds; a missing ``scope`` the requested one.
    Raises InvalidResponse, OAuthError or AuthserverUnavailable.
    """
    raise_for_error(response, url, wall=wall, sensitive=sensitive)
    answer = json_answer(response, url)
    where = without_query(url)
    token = answer.get("access_token")
    error = answer.get("error")
    if token is None and isinstance(error, str):
        said = mask(error, sensitive)
        raise OAuthError(f"{where} refused: {said}", status=response.status, error=said)
    if "error" in answer:
        raise _invalid(where, "it holds an error beside a token", response)
    if not isinstance(token, str) or not _ACCESS_TOKEN.fullmatch(token):
        raise _invalid(where, "it has no access_token that could be used", response)
    token_type = answer.get("token_type")
    if not isinstance(token_type, str) or token_type.lower() != "bearer":
        raise _invalid(where, "its token_type is not Bearer", response)
    if answer.get("expires_in") is not None:
        answer["expires_in"] = _expires_in(answer["expires_in"], where, response)
    for name in ("scope", "refresh_token", "id_token"):
        value = answer.get(name)
        if value is not None and not (isinstance(value, str) and _VSCHAR.fullmatch(value or " ")):
            raise _invalid(where, f"its {name} is not a string of printable characters", response)
    if answer.get("scope") is None and scopes:
        answer["scope"] = " ".join(scopes)
    return answer


def _expires_in(value: Any, where: str, response: Response) -> int:
    # Numbers in strings are sent by real servers, and cannot be misread.
    number = int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}", value) else value
    if not is_number(number) or number < 0:
        raise _invalid(where, "its expires_in is not a number of seconds", response)
    return min(int(number), MAX_EXPIRES_IN)


def _invalid(where: str, reason: str, response: Response) -> InvalidResponse:
    return InvalidResponse(
        f"{where} sent an answer that cannot be used: {reason}.", status=response.status
    )
