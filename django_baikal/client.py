"""``OpenIDClient``: each operation as a method; its coroutine twin comes from ``aio``."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django_baikal.aio import BaseClient, Headers, Timeout, extra_claims, part, token_key, wanted
from django_baikal.protocol import flows, token_cache
from django_baikal.protocol.authenticate import authenticate, invalidate
from django_baikal.protocol.authorization import AuthorizationRequest
from django_baikal.protocol.bearer import TokenInfo
from django_baikal.protocol.id_token import verify_id_token
from django_baikal.protocol.messages import Names

if TYPE_CHECKING:
    from django_baikal.bearer_session import BearerSession


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

        An id token in the answer is verified as ``verify_id_token`` does it, with ``nonce`` if it
        is given and ``at_hash`` if it is there; when it is not good, the whole answer is refused
        with InvalidResponse. Gives what ``grant_client`` gives.
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

    def authenticate(
        self,
        token: str,
        *,
        fresh: bool = False,
        headers: Headers = None,
        timeout: Timeout = None,
    ) -> TokenInfo:
        """Decide on a bearer token that somebody presented, by introspection (RFC 7662).

        An answer is used for INTROSPECTION_TTL (INTROSPECTION_NEGATIVE_TTL if the token was not
        active), and all threads, tasks and processes that share the cache ask once; with ``fresh``
        this call asks by itself. Raises a TokenError if the token is not good, AuthserverError if
        that cannot be found out. ``timeout`` is INTROSPECTION_TIMEOUT if omitted.
        """
        plain = headers is None and timeout is None and not fresh
        if plain and (found := self._known(token)) is not None:
            return found
        flow = authenticate(self.config, token, headers, fresh=fresh, recent=self._runtime.recent)
        return self._run(flow, timeout, self.config.introspection_timeout)

    def invalidate(
        self,
        token: str,
        *,
        headers: Headers = None,  # noqa: ARG002 - every method takes it, and this sends nothing
        timeout: Timeout = None,
    ) -> None:
        """Forget what ``authenticate`` knows of a token: the next one asks again.

        At once in this process and in the cache, for other processes within PROCESS_TTL. Raises a
        TokenError for what is no token.
        """
        self._run(invalidate(self.config, token, recent=self._runtime.recent), timeout)

    def verify_id_token(
        self,
        id_token: str,
        *,
        nonce: str | None = None,
        max_age: float | None = None,
        headers: Headers = None,  # noqa: ARG002 - every method takes it, and the keys need none
        timeout: Timeout = None,
    ) -> dict[str, Any]:
        """Verify an id token and give its claims (OpenID Connect Core 1.0 section 3.1.3.7).

        Signature (with the authserver's keys, which are kept for JWKS_TTL), type, issuer, audience,
        times, and if given ``nonce`` and ``max_age``: how long ago the user may have logged in, in
        seconds. Raises a TokenError for a token that is not good; InsufficientAuthentication for a
        login that is too old. ``headers`` play no part.
        """
        return self._run(verify_id_token(self.config, id_token, nonce, max_age), timeout)

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
        key = token_key(scopes, purposes, sub, authorization_id, identifier, acr)
        if headers is None and timeout is None:
            found: str | None = self._runtime.recent.get(key, time.time())
            if found is not None:
                return found
        want = wanted(scopes, purposes, sub, authorization_id, identifier, acr)
        flow = token_cache.get_token(self.config, want, headers, self._runtime.recent, key)
        return self._run(flow, timeout)

    def forget_token(
        self,
        scopes: Names = None,
        purposes: Names = None,
        *,
        sub: str | None = None,
        authorization_id: str | None = None,
        identifier: Mapping[str, Any] | None = None,
        acr: str | None = None,
        token: str | None = None,
        headers: Headers = None,  # noqa: ARG002 - the arguments of get_token fit here
        timeout: Timeout = None,
    ) -> None:
        """Drop exactly this token from the cache, for instance after an API answered 401.

        The arguments are those of ``get_token``; ``headers`` play no part. ``token``: drop it only
        if it is still this one, and not what somebody else has put in its place meanwhile.
        """
        want = wanted(scopes, purposes, sub, authorization_id, identifier, acr)
        flow = token_cache.forget_token(self.config, want, token, self._runtime.recent)
        self._run(flow, timeout)

    def session(
        self,
        scopes: Names = None,
        purposes: Names = None,
        *,
        origin: str,
        sub: str | None = None,
        authorization_id: str | None = None,
        identifier: Mapping[str, Any] | None = None,
        acr: str | None = None,
    ) -> BearerSession:
        """Make a session of requests for the API at ``origin`` (``https://host[:port]``).

        It adds the token that ``get_token`` gives for these arguments, and the correlator. It has
        no coroutine twin, because requests has none. Raises ConfigurationError, also for an origin
        with plain http that is neither loopback nor allowed by ALLOW_HTTP.
        """
        from django_baikal.bearer_session import BearerSession

        # A copy: it says whose token it is, and the session may live long.
        want = wanted(scopes, purposes, sub, authorization_id, copy.deepcopy(identifier), acr)

        recent, key = self._runtime.recent, object()

        def forget(token: str) -> None:
            self._run(token_cache.forget_token(self.config, want, token, recent))

        def get() -> str:
            return recent.get(key, time.time()) or self._run(
                token_cache.get_token(self.config, want, None, recent, key)
            )

        return BearerSession(self.config, origin, get_token=get, forget_token=forget)
