"""The coroutines of every client, and the async client under the SDK's names.

``OpenIDClient`` here has ``grant_user`` (and ``async_grant_user``, as the SDK's page writes) as a
coroutine; it is for code that comes from ``clients.aio.baikal_client``. New code has the same
coroutines at ``clients["default"].agrant_user`` and so on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NoReturn, Self, TypeVar

from django_baikal import conf
from django_baikal.exceptions import BaikalError, ConfigurationError
from django_baikal.performers import Performer, Runtime, and_disconnect
from django_baikal.protocol import flows, token_cache
from django_baikal.protocol.authenticate import authenticate, invalidate, known
from django_baikal.protocol.authorization import AuthorizationRequest
from django_baikal.protocol.bearer import TokenInfo
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.driver import arun, run
from django_baikal.protocol.effects import Flow
from django_baikal.protocol.id_token import verify_id_token
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
            raise ConfigurationError(
                "timeout must be a number of seconds, more than 0 and less than a year."
            )
        return Performer(self._runtime, timeout)

    def _run(self, flow: Flow[T], timeout: Timeout = None, default: Timeout = None) -> T:
        try:
            return run(flow, self._performer(timeout, default).perform)
        except BaikalError as error:
            raise _bare(error) from error.__cause__

    async def _arun(self, flow: Flow[T], timeout: Timeout = None, default: Timeout = None) -> T:
        try:
            return await arun(flow, self._performer(timeout, default).aperform)
        except BaikalError as error:
            raise _bare(error) from error.__cause__

    def _known(self, token: Any) -> TokenInfo | None:
        return known(self.config, self._runtime.recent, token, time.time())

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: Any) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("A client is not pickled: it holds secrets and connections.")

    def get_jwk_set(self, dump_json: bool = True) -> str | dict[str, Any]:
        """Give our public keys (RFC 7517 section 5): a JSON string, or with False the dict.

        The authserver reads the same from ``/.well-known/jwks.json``. Raises KeyStoreError.
        """
        jwk_set = self._runtime.keyring.jwk_set()
        return json.dumps(jwk_set) if dump_json else jwk_set

    async def aget_jwk_set(self, dump_json: bool = True) -> str | dict[str, Any]:
        """``get_jwk_set`` without holding up the event loop."""
        import asyncio

        return await asyncio.to_thread(and_disconnect, self.get_jwk_set, dump_json)

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
        return part(await self._arun(flow, timeout), full_authserver_response)

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
        extra = extra_claims(authorization_id, identifier, acr, authentication_context)
        flow = flows.grant_user(self.config, sub, scopes, purposes, extra, headers)
        return part(await self._arun(flow, timeout), full_authserver_response)

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
        return part(await self._arun(flow, timeout), full_authserver_response)

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
        return part(await self._arun(flow, timeout), full_authserver_response)

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
        *,
        headers: Headers = None,  # noqa: ARG002 - every method takes it, and this sends nothing
        timeout: Timeout = None,
        **extra: Any,
    ) -> str:
        """``OpenIDClient.authorize`` as a coroutine."""
        flow = flows.authorize(self.config, scopes, purposes, redirect_uri, extra)
        return await self._arun(flow, timeout)

    async def astart_authorization(
        self,
        redirect_uri: str,
        scopes: Names = None,
        purposes: Names = None,
        *,
        headers: Headers = None,  # noqa: ARG002 - every method takes it, and this sends nothing
        timeout: Timeout = None,
        **extra: Any,
    ) -> AuthorizationRequest:
        """``OpenIDClient.start_authorization`` as a coroutine."""
        flow = flows.start_authorization(self.config, redirect_uri, scopes, purposes, extra)
        return await self._arun(flow, timeout)

    async def aintrospect(
        self, access_token: str, *, headers: Headers = None, timeout: Timeout = None
    ) -> dict[str, Any]:
        """``OpenIDClient.introspect`` as a coroutine."""
        flow = flows.introspect(self.config, access_token, headers)
        return await self._arun(flow, timeout, self.config.introspection_timeout)

    async def aauthenticate(
        self,
        token: str,
        *,
        fresh: bool = False,
        headers: Headers = None,
        timeout: Timeout = None,
    ) -> TokenInfo:
        """``OpenIDClient.authenticate`` as a coroutine."""
        plain = headers is None and timeout is None and not fresh
        if plain and (found := self._known(token)) is not None:
            return found
        flow = authenticate(self.config, token, headers, fresh=fresh, recent=self._runtime.recent)
        return await self._arun(flow, timeout, self.config.introspection_timeout)

    async def ainvalidate(
        self,
        token: str,
        *,
        headers: Headers = None,  # noqa: ARG002 - every method takes it, and this sends nothing
        timeout: Timeout = None,
    ) -> None:
        """``OpenIDClient.invalidate`` as a coroutine."""
        await self._arun(invalidate(self.config, token, recent=self._runtime.recent), timeout)

    async def averify_id_token(
        self,
        id_token: str,
        *,
        nonce: str | None = None,
        max_age: float | None = None,
        headers: Headers = None,  # noqa: ARG002 - every method takes it, and the keys need none
        timeout: Timeout = None,
    ) -> dict[str, Any]:
        """``OpenIDClient.verify_id_token`` as a coroutine."""
        flow = verify_id_token(self.config, id_token, nonce, max_age)
        return await self._arun(flow, timeout)

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
        key = token_key(scopes, purposes, sub, authorization_id, identifier, acr)
        if headers is None and timeout is None:
            found: str | None = self._runtime.recent.get(key, time.time())
            if found is not None:
                return found
        want = wanted(scopes, purposes, sub, authorization_id, identifier, acr)
        flow = token_cache.get_token(self.config, want, headers, self._runtime.recent, key)
        return await self._arun(flow, timeout)

    async def aforget_token(
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
        """``OpenIDClient.forget_token`` as a coroutine."""
        want = wanted(scopes, purposes, sub, authorization_id, identifier, acr)
        flow = token_cache.forget_token(self.config, want, token, self._runtime.recent)
        await self._arun(flow, timeout)


class OpenIDClient(BaseClient):
    """An async client of one authserver; see ``django_baikal.OpenIDClient`` for each method."""

    grant_client = async_grant_client = BaseClient.agrant_client
    grant_user = async_grant_user = BaseClient.agrant_user
    grant_code = BaseClient.agrant_code
    refresh = BaseClient.arefresh
    revoke = BaseClient.arevoke
    authorize = BaseClient.aauthorize
    start_authorization = BaseClient.astart_authorization
    introspect = async_introspect = BaseClient.aintrospect
    authenticate = BaseClient.aauthenticate
    invalidate = BaseClient.ainvalidate
    verify_id_token = BaseClient.averify_id_token
    get_token = BaseClient.aget_token
    forget_token = BaseClient.aforget_token


def _bare(error: BaikalError) -> BaikalError:
    """Cut the frames below this off an error: reports show their variables, which hold secrets."""
    if isinstance(error.__cause__, BaikalError):
        _bare(error.__cause__)
    error.__context__ = None
    return error.with_traceback(None)


def part(answer: dict[str, Any], whole: bool) -> Any:
    """Give the whole answer, or the access token in it."""
    return answer if whole else answer["access_token"]


def extra_claims(
    authorization_id: str | None,
    identifier: Mapping[str, Any] | None,
    acr: str | None,
    authentication_context: Any = None,
) -> dict[str, Any]:
    """Name the optional claims of a user's assertion."""
    return {
        "authorization_id": authorization_id,
        "identifier": identifier,
        "acr": acr,
        "authentication_context": authentication_context,
    }


def token_key(
    scopes: Names,
    purposes: Names,
    sub: str | None,
    authorization_id: str | None,
    identifier: Mapping[str, Any] | None,
    acr: str | None,
) -> Hashable:
    """Give what is cheap to know a caller's arguments by; another object each time, if nothing."""
    if isinstance(scopes, list):
        scopes = tuple(scopes)
    if isinstance(purposes, list):
        purposes = tuple(purposes)
    if identifier is not None:
        return object()
    return scopes, purposes, sub, authorization_id, acr


def wanted(
    scopes: Names,
    purposes: Names,
    sub: str | None,
    authorization_id: str | None,
    identifier: Mapping[str, Any] | None,
    acr: str | None,
) -> token_cache.Wanted:
    """Make what ``get_token`` and ``forget_token`` are about."""
    return token_cache.wanted(
        scopes, purposes, sub, extra_claims(authorization_id, identifier, acr)
    )
