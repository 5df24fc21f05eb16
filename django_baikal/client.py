"""``OpenIDClient``: each operation as a method, and as a coroutine whose name begins with ``a``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeVar

from django_baikal import conf
from django_baikal.exceptions import ConfigurationError
from django_baikal.performers import Performer, Runtime
from django_baikal.protocol import flows, token_cache
from django_baikal.protocol.authorization import AuthorizationRequest
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.driver import arun, run
from django_baikal.protocol.effects import Flow
from django_baikal.protocol.messages import Names
from django_baikal.protocol.strict_json import is_number

T = TypeVar("T")
Headers = Mapping[str, str] | None
Timeout = float | None

#: Longer ones are mistakes, and overflow where the system counts them; in seconds.
MAX_TIMEOUT = 86400 * 365


class BaseClient:
    """What the sync and the async client share: the configuration, and every coroutine.

    Each argument that is omitted comes from ``BAIKAL["default"]``, and else from the environment
    (``BAIKAL_CLIENT_ID`` and so on). ``other_settings`` are the further settings in lower case.
    Raises ConfigurationError. No network is used before the first call.
    """

    def __init__(
        self,
        authserver_endpoint: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        client_keys: Sequence[Mapping[str, Any]] | None = None,
        issuer: str | None = None,
        private_certs_path: str | None = None,
        **other_settings: Any,
    ) -> None:
        given = {
            "authserver_endpoint": authserver_endpoint,
            "client_id": client_id,
            "client_secret": client_secret,
            "client_keys": client_keys,
            "issuer": issuer,
            "private_certs_path": private_certs_path,
            **other_settings,
        }
        explicit = {name.upper(): value for name, value in given.items()}
        self._start(conf.client_config("default", explicit))

    @classmethod
    def of(cls, config: ClientConfig) -> Self:
        """Make a client of a finished configuration."""
        client = cls.__new__(cls)
        client._start(config)
        return client

    def _start(self, config: ClientConfig) -> None:
        self.config = config
        self._runtime = Runtime(config)

    def __repr__(self) -> str:
        config = self.config
        return (
            f"<{type(self).__name__} {config.alias!r}: {config.client_id!r} at "
            f"{config.authserver_endpoint!r}>"
        )

    def _performer(self, timeout: Timeout, default: Timeout) -> Performer:
        if timeout is None:
            timeout = default or self.config.timeout
        if not is_number(timeout) or not 0 < timeout < MAX_TIMEOUT:
            raise ConfigurationError("timeout must be a number of seconds, more than 0.")
        return Performer(self._runtime, timeout)

    def _run(self, flow: Flow[T], timeout: Timeout = None, default: Timeout = None) -> T:
        return run(flow, self._performer(timeout, default).perform)

    async def _arun(self, flow: Flow[T], timeout: Timeout = None, default: Timeout = None) -> T:
        return await arun(flow, self._performer(timeout, default).aperform)

    def get_jwk_set(self, dump_json: bool = True) -> str | dict[str, Any]:
        """Give our public keys (RFC 7517 section 5): a JSON string, or with False the dict.

        The authserver reads the same from ``/.well-known/jwks.json``. Raises KeyStoreError.
        """
        jwk_set = self._runtime.keyring.jwk_set()
        return json.dumps(jwk_set) if dump_json else jwk_set

    async def aget_jwk_set(self, dump_json: bool = True) -> str | dict[str, Any]:
        """``get_jwk_set`` without holding up the event loop."""
        import asyncio

        return await asyncio.to_thread(self.get_jwk_set, dump_json)

    async def agrant_client(
        self,
        scopes: Names = None,
        purposes: Names = None,
        *,
        headers: Headers = None,
        timeout: Timeout = None,
        full_authserver_response: bool = False,
    ) -> Any:
        """``OpenIDClient.grant_client`` as a coroutine."""
        flow = flows.grant_client(self.config, scopes, purposes, headers)
        return _part(await self._arun(flow, timeout), full_authserver_response)

    async def agrant_user(
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
        """``OpenIDClient.grant_user`` as a coroutine."""
        extra = _extra(authorization_id, identifier, acr, authentication_context)
        flow = flows.grant_user(self.config, sub, scopes, purposes, extra, headers)
        return _part(await self._arun(flow, timeout), full_authserver_response)

    async def agrant_code(
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
        """``OpenIDClient.grant_code`` as a coroutine."""
        flow = flows.grant_code(self.config, code, redirect_uri, code_verifier, nonce, headers)
        return _part(await self._arun(flow, timeout), full_authserver_response)

    async def arefresh(
        self,
        refresh_token: str,
        scopes: Names = None,
        *,
        headers: Headers = None,
        timeout: Timeout = None,
        full_authserver_response: bool = False,
    ) -> Any:
        """``OpenIDClient.refresh`` as a coroutine."""
        flow = flows.refresh(self.config, refresh_token, scopes, headers)
        return _part(await self._arun(flow, timeout), full_authserver_response)

    async def arevoke(
        self,
        token: str,
        token_type_hint: str | None = None,
        *,
        headers: Headers = None,
        timeout: Timeout = None,
    ) -> None:
        """``OpenIDClient.revoke`` as a coroutine."""
        await self._arun(flows.revoke(self.config, token, token_type_hint, headers), timeout)

    async def aauthorize(
        self,
        scopes: Names = None,
        purposes: Names = None,
        redirect_uri: str | None = None,
        **extra: Any,
    ) -> str:
        """``OpenIDClient.authorize`` as a coroutine."""
        return await self._arun(flows.authorize(self.config, scopes, purposes, redirect_uri, extra))

    async def astart_authorization(
        self, redirect_uri: str, scopes: Names = None, purposes: Names = None, **extra: Any
    ) -> AuthorizationRequest:
        """``OpenIDClient.start_authorization`` as a coroutine."""
        return await self._arun(
            flows.start_authorization(self.config, redirect_uri, scopes, purposes, extra)
        )

    async def aintrospect(
        self, access_token: str, *, headers: Headers = None, timeout: Timeout = None
    ) -> dict[str, Any]:
        """``OpenIDClient.introspect`` as a coroutine."""
        flow = flows.introspect(self.config, access_token, headers)
        return await self._arun(flow, timeout, self.config.introspection_timeout)

    async def aget_token(
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
        """``OpenIDClient.get_token`` as a coroutine."""
        want = _wanted(scopes, purposes, sub, authorization_id, identifier, acr)
        return await self._arun(token_cache.get_token(self.config, want, headers), timeout)

    async def aforget_token(
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
        """``OpenIDClient.forget_token`` as a coroutine."""
        want = _wanted(scopes, purposes, sub, authorization_id, identifier, acr)
        await self._arun(token_cache.forget_token(self.config, want), timeout)


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
        return _part(self._run(flow, timeout), full_authserver_response)

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
        extra = _extra(authorization_id, identifier, acr, authentication_context)
        flow = flows.grant_user(self.config, sub, scopes, purposes, extra, headers)
        return _part(self._run(flow, timeout), full_authserver_response)

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
        return _part(self._run(flow, timeout), full_authserver_response)

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
        return _part(self._run(flow, timeout), full_authserver_response)

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
        **extra: Any,
    ) -> str:
        """Give the URL where the user authorizes this client (RFC 6749 section 4.1.1).

        ``extra``: further parameters, such as ``state`` or ``login_hint``: strings, numbers, or
        iterables of strings. Every value is encoded.
        """
        return self._run(flows.authorize(self.config, scopes, purposes, redirect_uri, extra))

    def start_authorization(
        self, redirect_uri: str, scopes: Names = None, purposes: Names = None, **extra: Any
    ) -> AuthorizationRequest:
        """Give such a URL with fresh ``state``, ``nonce`` and PKCE S256 ``code_verifier``.

        Keep the three in the user's session; ``grant_code`` takes the last two.
        """
        return self._run(
            flows.start_authorization(self.config, redirect_uri, scopes, purposes, extra)
        )

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
        want = _wanted(scopes, purposes, sub, authorization_id, identifier, acr)
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
        want = _wanted(scopes, purposes, sub, authorization_id, identifier, acr)
        self._run(token_cache.forget_token(self.config, want), timeout)


def _part(answer: dict[str, Any], whole: bool) -> Any:
    return answer if whole else answer["access_token"]


def _extra(
    authorization_id: str | None,
    identifier: Mapping[str, Any] | None,
    acr: str | None,
    authentication_context: Any = None,
) -> dict[str, Any]:
    return {
        "authorization_id": authorization_id,
        "identifier": identifier,
        "acr": acr,
        "authentication_context": authentication_context,
    }


def _wanted(
    scopes: Names,
    purposes: Names,
    sub: str | None,
    authorization_id: str | None,
    identifier: Mapping[str, Any] | None,
    acr: str | None,
) -> token_cache.Wanted:
    return token_cache.wanted(scopes, purposes, sub, _extra(authorization_id, identifier, acr))
