"""``FakeAuthserver``: a strict OAuth 2.0 authserver for tests and for development."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from django_baikal.protocol.effects import Request, Response
from django_baikal.protocol.recent import Recent
from django_baikal.protocol.urls import origin
from django_baikal.testing import tokens
from django_baikal.testing.authorization import decide
from django_baikal.testing.client_auth import METHODS
from django_baikal.testing.endpoints import DEFAULT_USER
from django_baikal.testing.exchange import Exchange
from django_baikal.testing.faults import Fault, Faults
from django_baikal.testing.issuers import HTTPFetch, fetch_in_process
from django_baikal.testing.memory import InMemoryTransport
from django_baikal.testing.server import serving
from django_baikal.testing.state import PATHS, Client, Rules, State, TokenFormat
from django_baikal.testing.wire import RecordedRequest, Refused, RequestLog, strings
from django_baikal.transports import base

Clients = Mapping[str, str | Mapping[str, Any]]
Keys = Mapping[str, Any] | Iterable[Mapping[str, Any]]
Body = Mapping[str, Any] | str | bytes


class FakeAuthserver:
    """A strict OAuth 2.0 authserver in this process: in memory, or on loopback.

    ``endpoint``: its base URL and issuer, until ``serve()`` replaces it. ``clients``: id to
    secret, or id to the arguments of ``add_client``; by default "test-client" with
    "test-secret". ``token_format``: "opaque", or "jwt" (RFC 9068). ``lenient``: accept assertions
    without kid or jti, and Basic credentials that are not form-encoded. Lifetimes in seconds.
    ``jwks_cooldown``: how long a set of keys is kept although it lacks a kid, seconds. ``fetch``:
    how issuers' metadata and keys are fetched; by default over HTTP while serving, and else from
    another fake in memory or from this project's own URLs. ``on_request`` is called with each
    ``RecordedRequest`` once it is answered.

    Its methods may be called from any thread.
    """

    def __init__(
        self,
        *,
        endpoint: str = "https://authserver.test",
        clients: Clients | None = None,
        token_format: TokenFormat = "opaque",
        lenient: bool = False,
        access_token_lifetime: float = 3600,
        refresh_token_lifetime: float = 14 * 86400,
        code_lifetime: float = 60,
        jwks_cooldown: float = 30,
        fetch: Callable[[Request], Response] | None = None,
        on_request: Callable[[RecordedRequest], None] | None = None,
    ) -> None:
        if token_format not in ("opaque", "jwt"):
            raise ValueError(f"token_format must be 'opaque' or 'jwt', not {token_format!r}.")
        rules = Rules(
            lenient=lenient,
            token_format=token_format,
            access_token_lifetime=access_token_lifetime,
            refresh_token_lifetime=refresh_token_lifetime,
            code_lifetime=code_lifetime,
            jwks_cooldown=jwks_cooldown,
        )
        self._state = State(endpoint, rules)
        self._own_fetch = fetch
        self._state.fetch = fetch or fetch_in_process
        self._faults = Faults()
        self._serving = False
        self._on_request = on_request
        self.requests = RequestLog()
        for client_id, given in (clients or {"test-client": "test-secret"}).items():
            options = {"client_secret": given} if isinstance(given, str) else given
            self.add_client(client_id, **options)

    def __repr__(self) -> str:
        return f"<FakeAuthserver {self.endpoint} clients={list(self._state.clients)}>"

    @property
    def endpoint(self) -> str:
        """Its base URL, which is also its issuer."""
        return self._state.issuer

    @property
    def urls(self) -> dict[str, str]:
        """The URLs of its endpoints, by the names that ``fail()`` and ``requests`` use."""
        return {name: self._state.url(name) for name in PATHS}

    def settings(self, **overrides: Any) -> dict[str, Any]:
        """Give a ``BAIKAL`` entry for its first client, with ``overrides`` in it."""
        client = next(iter(self._state.clients.values()))
        entry = {"AUTHSERVER_ENDPOINT": self.endpoint, "CLIENT_ID": client.client_id}
        if client.client_secret is not None:
            entry["CLIENT_SECRET"] = client.client_secret
        return {**entry, **overrides}

    def add_client(
        self,
        client_id: str,
        client_secret: str | None = None,
        *,
        jwks: Keys | None = None,
        jwks_uri: str | None = None,
        redirect_uris: str | Iterable[str] = (),
        auth_methods: str | Iterable[str] | None = None,
    ) -> None:
        """Register a client, or replace it.

        ``jwks``: its public keys, a JWK Set or a list of JWKs; ``jwks_uri``: where they are.
        ``redirect_uris``: exactly these are allowed; any, if there are none. ``auth_methods``:
        by default all that its secret and keys allow. Raises ValueError without secret or keys.
        """
        methods: tuple[str, ...] = METHODS[:2] if client_secret is not None else ()
        if jwks is not None or jwks_uri is not None:
            methods += METHODS[2:]
        if not methods:
            raise ValueError(f"The client {client_id!r} needs a client_secret, jwks or jwks_uri.")
        chosen = methods if auth_methods is None else strings(auth_methods)
        if wrong := [method for method in chosen if method not in methods]:
            raise ValueError(f"The client {client_id!r} cannot use {wrong[0]!r}.")
        given: Any = jwks or ()
        keys = given.get("keys", [given]) if isinstance(jwks, Mapping) else given
        client = Client(
            client_id, client_secret, tuple(keys), jwks_uri, strings(redirect_uris), chosen
        )
        with self._state.lock:
            self._state.clients[client_id] = client

    def handle(self, request: Request) -> Response:
        """Answer one request: the whole authserver as a function; faults are waited for."""
        response = self.respond(request)
        if response is None:  # pragma: no cover: only a server that closes gives up
            raise RuntimeError("The request was abandoned.")
        return response

    def respond(self, request: Request, *, stop: Any = None) -> Response | None:
        """Answer as ``handle`` does, or give None if the Event ``stop`` is set while waiting."""
        exchange = self.receive(request)
        if exchange.fault is not None and not exchange.fault.wait(stop):
            return None
        return exchange.answer()

    def receive(self, request: Request) -> Exchange:
        """Record a request, with the fault that it meets; it is not answered yet."""
        name = self._state.endpoint_of(request.url)
        call = RecordedRequest.of(name, request, at=self._state.now())
        self.requests.append(call)
        return Exchange(self._state, call, self._faults.take(name), self._on_request)

    @contextmanager
    def in_memory(self) -> Iterator[FakeAuthserver]:
        """Let every client in this process reach it, sync and async, with no socket."""
        own = origin(self.endpoint)
        Recent.end_era()  # what the one before has said of tokens is nothing to this one
        before = base.routes.get(own)
        base.routes[own] = InMemoryTransport(self)
        try:
            yield self
        finally:
            if before is None:
                del base.routes[own]
            else:
                base.routes[own] = before

    @contextmanager
    def serve(self, port: int = 0, host: str = "127.0.0.1") -> Iterator[FakeAuthserver]:
        """Serve over HTTP on loopback; meanwhile ``endpoint`` is ``http://host:port``.

        ``port`` 0 takes a free one. Raises ValueError for a host that is not loopback, OSError if
        the port is taken, RuntimeError if it is being served already.
        """
        if self._serving:
            raise RuntimeError("This FakeAuthserver is being served already.")
        before, path = self.endpoint, urlsplit(self.endpoint).path
        self._serving = True
        http_fetch = HTTPFetch()
        Recent.end_era()
        try:
            with serving(self, host, port) as origin:
                self._state.issuer = origin + path
                self._state.fetch = self._own_fetch or http_fetch
                yield self
        finally:
            self._serving = False
            self._state.issuer, self._state.fetch = before, self._own_fetch or fetch_in_process
            http_fetch.close()

    def authorize(self, url: str, *, sub: str = DEFAULT_USER, approve: bool = True) -> str:
        """Play the user ``sub`` at the authorization URL; give the URL that the browser is sent to.

        It carries ``code``, ``state`` and ``iss``, or ``error`` if the user does not ``approve``
        or the request is wrong. Raises ValueError where a real authserver would show an error
        page: another endpoint, an unknown client, a redirect_uri that is not its own.
        """
        if self._state.endpoint_of(url) != "authorization":
            shown = urlunsplit(urlsplit(url)._replace(query="", fragment=""))
            raise ValueError(f"{shown!r} is not the authorization endpoint.")
        call = RecordedRequest.of("authorization", Request("GET", url, {}), at=self._state.now())
        self.requests.append(call)
        try:
            target = decide(self._state, call, sub=sub, approve=approve)
        except Refused as error:
            call.status, call.error, call.description = error.status, error.error, str(error)
            raise ValueError(error.description) from None
        call.status = 302
        return target

    def issue_token(
        self,
        *,
        client_id: str | None = None,
        sub: str | None = None,
        scope: str | Iterable[str] = "",
        lifetime: float | None = None,
        token_format: TokenFormat | None = None,
        **claims: Any,
    ) -> str:
        """Issue an access token with no grant, for the tests of a protected API.

        ``client_id``: whose token, by default the first client's; it need not be registered.
        ``sub``: the user, or None for a client's own token. ``lifetime``: seconds, negative for
        one that has expired. ``claims`` are added to the standard ones or replace them; None
        leaves one out.
        """
        return tokens.issue_access(
            self._state,
            client_id or next(iter(self._state.clients)),
            scope=" ".join(strings(scope)),
            claims=claims if sub is None else {"sub": sub, **claims},
            lifetime=lifetime,
            token_format=token_format,
        )

    def revoke_token(self, token: str) -> None:
        """Revoke a token; with a refresh token, all of its grant."""
        tokens.revoke(self._state, token)

    def fail(
        self,
        endpoint: str,
        *,
        status: int | None = None,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        delay: float | None = None,
        hang: bool = False,
        garbage: bool | str = False,
        times: int | None = None,
    ) -> Fault:
        """Make an endpoint fail, until the ``with`` block ends, ``lift()`` or ``recover()``.

        ``endpoint``: "discovery", "jwks", "token", "authorization", "introspection",
        "revocation" or "*". ``status`` and ``body`` (a dict becomes JSON) replace the answer;
        ``headers`` are added to it. ``delay``: seconds. ``hang``: no answer at all. ``garbage``:
        "html" (or True), "not-json", "truncated" or "empty". ``times``: how many requests it
        meets, by default all. With only an endpoint: 503. Raises ValueError for what is unknown.
        """
        fault = Fault(
            endpoint,
            status=status,
            body=body,
            headers=headers,
            delay=delay,
            hang=hang,
            garbage=garbage,
            times=times,
        )
        self._faults.add(fault)
        return fault

    def recover(self) -> None:
        """End every fault."""
        self._faults.recover()

    def move_clock(self, seconds: float) -> None:
        """Move its clock forward, or back if negative; it runs on from there."""
        with self._state.lock:
            self._state.clock_offset += seconds

    def rotate_keys(self) -> None:
        """Sign with a new key from now on; the old ones stay published."""
        self._state.rotate_keys()
