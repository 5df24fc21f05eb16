"""``OpenIDClient``: each operation as a method; its coroutine twin comes from ``aio``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django_baikal.aio import BaseClient, Headers, Timeout, extra_claims, part, wanted
from django_baikal.protocol import flows, token_cache
from django_baikal.protocol.authorization import AuthorizationRequest
from django_baikal.protocol.messages import Names


class OpenIDClient(BaseClient):
    """A client of one authserver, safe to share between threads, event loops and forks.

    ``clients["default"]`` is the usual way to one; made by hand it takes the SDK's arguments.
    Every method has a coroutine twin (``agrant_client``). ``headers`` go out with this request
    alone; ``timeout`` bounds the whole call, in seconds. Every method raises ConfigurationError
    for a wrong argument, AuthserverUnavailable, InvalidResponse or OAuthError.
    """

    def grant_client(
        self,
        scopes: Names = None,
        purposes: Names = None,
        *,
        headers: Headers = None,
        timeout: Timeout = None,
        full_authserver_response: bool = False,
    ) -> Any:
        """Get a token for this client itself (client_credentials, RFC 6749 section 4.4).

        Gives the access token, or with ``full_authserver_response`` the whole answer as a dict.
        """
        flow = flows.grant_client(self.config, scopes, purposes, headers)
        return part(self._run(flow, timeout), full_authserver_response)

    def grant_user(
        self,
        sub: str,
        scopes: Names,
        purposes: Names,
        authorization_id: str | None = None,
        identifier: Mapping[str, Any] | None = None,
        acr: str | None = None,
        authentication_context: Any = None,
        *,
        headers: Headers = None,
        timeout: Timeout = None,
        full_authserver_response: bool = False,
    ) -> Any:
        """Get a token for the user ``sub`` with an assertion that our key signs (RFC 7523).

        Needs ISSUER and a key; raises KeyStoreError without one that can be used. Gives what
        ``grant_client`` gives.
        """
        extra = extra_claims(authorization_id, identifier, acr, authentication_context)
        flow = flows.grant_user(self.config, sub, scopes, purposes, extra, headers)
        return part(self._run(flow, timeout), full_authserver_response)

    def grant_code(
        self,
        code: str,
        redirect_uri: str,
        *,
        code_verifier: str | None = None,
        nonce: str | None = None,
        headers: Headers = None,
        timeout: Timeout = None,
        full_authserver_response: bool = False,
    ) -> Any:
        """Get a token for an authorization code (RFC 6749 section 4.1.3, PKCE RFC 7636).

        The claims of an id token in the answer are checked, ``nonce`` too if it is given; when one
        is wrong, the whole answer is refused with InvalidResponse. Gives what ``grant_client``
        gives.
        """
        flow = flows.grant_code(self.config, code, redirect_uri, code_verifier, nonce, headers)
        return part(self._run(flow, timeout), full_authserver_response)

    def refresh(
        self,
        refresh_token: str,
        scopes: Names = None,
        *,
        headers: Headers = None,
        timeout: Timeout = None,
        full_authserver_response: bool = False,
    ) -> Any:
        """Get a new token for a refresh token (RFC 6749 section 6).

        The whole answer may hold a new refresh token that replaces the old one. Gives what
        ``grant_client`` gives.
        """
        flow = flows.refresh(self.config, refresh_token, scopes, headers)
        return part(self._run(flow, timeout), full_authserver_response)

    def revoke(
        self,
        token: str,
        token_type_hint: str | None = None,
        *,
        headers: Headers = None,
        timeout: Timeout = None,
    ) -> None:
        """Tell the authserver that ``token`` is not needed any more (RFC 7009).

        A token that it does not know is a success as well.
        """
        self._run(flows.revoke(self.config, token, token_type_hint, headers), timeout)

    def authorize(
        self,
        scopes: Names = None,
        purposes: Names = None,
        redirect_uri: str | None = None,
        *,
        headers: Headers = None,  # noqa: ARG002 - every method takes it, and this sends nothing
        timeout: Timeout = None,
        **extra: Any,
    ) -> str:
        """Give the URL where the user authorizes this client (RFC 6749 section 4.1.1).

        ``extra``: further parameters, such as ``state`` or ``login_hint``: strings, numbers, or
        iterables of strings. Every value is encoded. ``headers`` play no part: the user's browser
        makes this request.
        """
        flow = flows.authorize(self.config, scopes, purposes, redirect_uri, extra)
        return self._run(flow, timeout)

    def start_authorization(
        self,
        redirect_uri: str,
        scopes: Names = None,
        purposes: Names = None,
        *,
        headers: Headers = None,  # noqa: ARG002 - every method takes it, and this sends nothing
        timeout: Timeout = None,
        **extra: Any,
    ) -> AuthorizationRequest:
        """Give such a URL with fresh ``state``, ``nonce`` and PKCE S256 ``code_verifier``.

        Keep the three in the user's session; ``grant_code`` takes the last two.
        """
        flow = flows.start_authorization(self.config, redirect_uri, scopes, purposes, extra)
        return self._run(flow, timeout)

    def introspect(
        self, access_token: str, *, headers: Headers = None, timeout: Timeout = None
    ) -> dict[str, Any]:
        """Ask the authserver about a token and give its answer (RFC 7662); nothing is cached.

        ``active`` is a bool. ``timeout`` is INTROSPECTION_TIMEOUT if omitted.
        """
        flow = flows.introspect(self.config, access_token, headers)
        return self._run(flow, timeout, self.config.introspection_timeout)

    def get_token(
        self,
        scopes: Names = None,
        purposes: Names = None,
        *,
        sub: str | None = None,
        authorization_id: str | None = None,
        identifier: Mapping[str, Any] | None = None,
        acr: str | None = None,
        headers: Headers = None,
        timeout: Timeout = None,
    ) -> str:
        """Give an access token, cached or new: this client's own, or with ``sub`` a user's.

        It is renewed TOKEN_LEEWAY seconds before it expires; callers in all threads, tasks and
        processes that share the cache make one request between them.
        """
        want = wanted(scopes, purposes, sub, authorization_id, identifier, acr)
        return self._run(token_cache.get_token(self.config, want, headers), timeout)

    def forget_token(
        self,
        scopes: Names = None,
        purposes: Names = None,
        *,
        sub: str | None = None,
        authorization_id: str | None = None,
        identifier: Mapping[str, Any] | None = None,
        acr: str | None = None,
        headers: Headers = None,  # noqa: ARG002 - the arguments of get_token fit here
        timeout: Timeout = None,
    ) -> None:
        """Drop exactly this token from the cache, for instance after an API answered 401.

        The arguments are those of ``get_token``; ``headers`` play no part.
        """
        want = wanted(scopes, purposes, sub, authorization_id, identifier, acr)
        self._run(token_cache.forget_token(self.config, want), timeout)
