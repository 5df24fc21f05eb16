"""Token introspection and revocation (RFC 7662, RFC 7009)."""

from __future__ import annotations

from typing import Any

from django_baikal.exceptions import InvalidResponse
from django_baikal.protocol.effects import Response
from django_baikal.protocol.messages import json_answer, raise_for_error
from django_baikal.protocol.urls import without_query


def process_introspection_response(
    response: Response, url: str, *, wall: float, sensitive: tuple[str, ...]
) -> dict[str, Any]:
    """Give the answer whole, once ``active`` is a JSON boolean (RFC 7662 section 2.2).

    Anything but a well-formed answer raises: that our own credentials are refused, or that the
    authserver fails, never looks like an inactive token (section 2.3).
    """
    raise_for_error(response, url, wall=wall, sensitive=sensitive)
    answer = json_answer(response, url)
    if not isinstance(answer.get("active"), bool):
        raise InvalidResponse(
            f"{without_query(url)} sent an answer that cannot be used: its active is no boolean.",
            status=response.status,
        )
    return answer


def process_revocation_response(
    response: Response, url: str, *, wall: float, sensitive: tuple[str, ...]
) -> None:
    """Accept a success, which an unknown token is as well (RFC 7009 section 2.2)."""
    if response.status != 204:
        raise_for_error(response, url, wall=wall, sensitive=sensitive)
