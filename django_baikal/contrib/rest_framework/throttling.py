"""Throttles by who sends tokens; their rates are in ``DEFAULT_THROTTLE_RATES``, by their scopes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rest_framework.request import Request
from rest_framework.throttling import SimpleRateThrottle

from django_baikal.contrib.rest_framework.permissions import token_of
from django_baikal.protocol.bearer import TokenInfo, identity

if TYPE_CHECKING:
    from rest_framework.views import APIView


class _TokenRateThrottle(SimpleRateThrottle):
    def ident_of(self, token: TokenInfo) -> str:
        raise NotImplementedError  # pragma: no cover: each class below has its own

    def get_cache_key(self, request: Request, view: APIView) -> str | None:  # noqa: ARG002
        """Give the bucket's name, which shows nobody's; None without a token: no throttle."""
        token = token_of(request)
        if token is None:
            return None
        ident = self.ident_of(token)
        return str(self.cache_format % {"scope": self.scope, "ident": ident})


class TokenClientRateThrottle(_TokenRateThrottle):
    """Limits each client of each issuer, whomever its tokens speak for: ``"token_client"``.

    A token whose client the authserver does not tell counts for whom it speaks for.
    """

    scope = "token_client"

    def ident_of(self, token: TokenInfo) -> str:
        """Name the client, by a hash."""
        if token.client_id is None:
            return token.identity
        return identity(token.issuer, "client_id", token.client_id)


class TokenSubjectRateThrottle(_TokenRateThrottle):
    """Limits each subject of each issuer, whichever clients it uses: ``"token_subject"``.

    A client that speaks for itself is its own subject.
    """

    scope = "token_subject"

    def ident_of(self, token: TokenInfo) -> str:
        """Name the subject, by a hash: it may be a phone number."""
        return token.identity
