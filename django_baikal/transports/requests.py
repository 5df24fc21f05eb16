"""``RequestsTransport``: a pool of connections of requests, with a deadline on each exchange."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import time
from email import errors as email_errors
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util import SKIP_HEADER

from django_baikal.exceptions import ConfigurationError
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.effects import Request, Response

from .base import CHUNK, Body, Environment, collect_headers, warn_if_unverified, wire
from .deadline import DeadlineTLSSocket, connect, exchange
from .failures import failure, timed_out

#: Idle connections that are kept to one host: more threads than this are not expected.
_POOL_SIZE = 256
#: Hosts whose connections are kept: an authserver has one, or a few.
_HOSTS = 10

#: Everything that requests, urllib3, http.client and the socket raise for what is outside of us.
#: ValueError: urllib3 has it for some broken chunks and host names.
_FAILURES = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
    ValueError,
)


class _Head:
    """Reads the lines of a response's head; the connection must not end before the head does."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readline(self, limit: int) -> bytes:
        line: bytes = self._stream.readline(limit)
        if not line:
            raise http.client.RemoteDisconnected("the connection ended inside the head")
        return line

    def close(self) -> None:
        self._stream.close()


class _StrictResponse(http.client.HTTPResponse):
    """Reads a response's head, and refuses what http.client lets pass."""

    def begin(self) -> None:
        stream: Any = self.fp
        self.fp = _Head(stream)  # type: ignore[assignment]
        try:
            super().begin()
            # http.client takes 102 and 103 for the answer, and the answer for the next one's.
            while 101 < self.status < 200:
                self.headers = self.msg = None  # type: ignore[assignment]
                super().begin()
        finally:
            if not self.isclosed():  # pragma: no branch: closed only with an error on its way
                self.fp = stream
        broken = (
            email_errors.MissingHeaderBodySeparatorDefect,
            email_errors.FirstHeaderLineIsContinuationDefect,
        )
        if self.status == 101 or any(isinstance(defect, broken) for defect in self.msg.defects):
            raise http.client.HTTPException("malformed head")


class _InOnePiece(HTTPConnection):
    """Sends head and body together: one call, one packet, one record of TLS."""

    response_class = _StrictResponse
    _held: list[bytes] | None = None

    def request(self, *args: Any, **options: Any) -> None:
        held: list[bytes] = []
        self._held = held
        try:
            super().request(*args, **options)
        finally:
            self._held = None
        super().send(b"".join(held))

    def send(self, data: Any) -> None:
        if self._held is None:  # to a proxy, say, while a connection is made
            super().send(data)
        else:
            self._held.append(data)


class _Connection(_InOnePiece):
    # Private, but the one place where urllib3 lets a subclass make the socket: its own SOCKS
    # support does the same.
    def _new_conn(self) -> socket.socket:
        return connect(self._dns_host, self.port or 80, self.socket_options)


class _TLSConnection(_InOnePiece, HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return connect(self._dns_host, self.port or 443, self.socket_options)

    def connect(self) -> None:
        super().connect()
        # Only read to decide on an InsecureRequestWarning at each connection; the transport
        # has logged VERIFY_CERTS once, and warnings may be errors.
        self.is_verified = True


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection  # pyright: ignore[reportAssignmentType]


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection  # pyright: ignore[reportAssignmentType]


_POOLS = {"http": _Pool, "https": _TLSPool}


class _Adapter(HTTPAdapter):
    """requests' adapter with our connections and one TLS context, loaded once."""

    def __init__(self, context: ssl.SSLContext, proxy_context: ssl.SSLContext) -> None:
        self._context = context
        self._proxy_context = proxy_context
        super().__init__(pool_maxsize=_POOL_SIZE)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, proxy_ssl_context=self._proxy_context, **options)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def build_connection_pool_key_attributes(
        self, request: Any, verify: Any, cert: Any = None
    ) -> Any:
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        mode = self._context.verify_mode
        return host, {"ssl_context": self._context, "cert_reqs": mode}

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Do nothing: the context has it all; requests would load the CA bundle again."""

    def build_response(self, req: Any, resp: Any) -> requests.Response:  # noqa: ARG002
        """Give a response that neither parses cookies nor keeps the request's credentials."""
        response = requests.Response()
        response.status_code = resp.status
        response.headers = CaseInsensitiveDict(resp.headers)
        response.raw = resp
        return response


class RequestsTransport:
    """Sends over one pool of keep-alive connections; made once per client, used by all threads.

    Raises ``ConfigurationError`` when a CA bundle, client certificate or proxy cannot be used.
    Name resolution is not bounded by the timeout.
    """

    def __init__(self, config: ClientConfig) -> None:
        self._limit = config.max_response_size
        self._environment = Environment.read(config)
        context = tls_context(config, self._environment)
        # A proxy has no business with our client certificate.
        proxy_context = context
        if config.client_cert and self._environment.proxies:
            proxy_context = tls_context(config, self._environment, client_cert=False)
        self._adapter = _Adapter(context, proxy_context)
        self._tls = {"ssl_context": context, "cert_reqs": context.verify_mode}
        # Not the adapter's: to find one there takes as long as to check an answer.
        self._pools: dict[tuple[str, str, int], HTTPConnectionPool] = {}
        warn_if_unverified(config)

    def send(self, request: Request, *, timeout: float) -> Response:
        """Send ``request`` and read the whole answer within ``timeout`` seconds.

        Raises ``AuthserverUnavailable``, ``InvalidResponse`` or ``ConfigurationError``.
        """
        url, headers = _wire(request)
        if timeout <= 0:
            raise timed_out(request, timeout)
        proxy = self._environment.proxy_for(url)
        exchange.deadline = time.monotonic() + timeout
        try:
            if proxy is None:
                raw = self._direct(request, url, headers, timeout)
            else:
                raw = self._through(proxy, request, url, headers, timeout)
            return self._read(raw, url)
        except _FAILURES as error:
            problem = failure(
                error,
                request,
                timeout=timeout,
                proxy=proxy,
                malformed=(urllib3.exceptions.InvalidHeader,),
            )
        finally:
            exchange.deadline = None
        raise problem

    def _direct(self, request: Request, url: str, headers: dict[str, str], timeout: float) -> Any:
        # Not the adapter's send: to take each URL apart four times costs as much as the exchange.
        scheme, host, port, target = _parts(url)
        pool = self._pools.get((scheme, host, port)) or self._pool(scheme, host, port)
        return pool.urlopen(
            request.method,
            target,
            body=request.body,
            headers=headers,
            redirect=False,
            assert_same_host=False,
            preload_content=False,
            decode_content=False,
            retries=self._adapter.max_retries,
            timeout=timeout,
        )

    def _pool(self, scheme: str, host: str, port: int) -> HTTPConnectionPool:
        for oldest in list(self._pools)[: 1 - _HOSTS]:
            self._pools.pop(oldest, None)
        tls = self._tls if scheme == "https" else {}
        made = _POOLS[scheme](host, port, maxsize=_POOL_SIZE, **tls)
        return self._pools.setdefault((scheme, host, port), made)

    def _through(
        self, proxy: str, request: Request, url: str, headers: dict[str, str], timeout: float
    ) -> Any:
        # Without its own prepare(), which rewrites URL and headers.
        prepared = requests.PreparedRequest()
        prepared.method, prepared.url, prepared.body = request.method, url, request.body
        prepared.headers = CaseInsensitiveDict(headers)
        proxies = {"http": proxy, "https": proxy}
        # Not Session.send: it follows redirects, keeps cookies, and asks the environment again.
        return self._adapter.send(prepared, stream=True, timeout=timeout, proxies=proxies).raw

    def _read(self, raw: Any, url: str) -> Response:
        try:
            headers = collect_headers(raw.headers.items(), url)
            body = Body(headers, limit=self._limit, url=url)
            for data in raw.stream(CHUNK, decode_content=False):
                body.feed(data)
            return Response(raw.status, headers, body.finish())
        finally:
            # Closes the connection, unless the body was read to its end.
            raw.close()

    def close(self) -> None:
        """Close idle connections; the transport can still be used."""
        self._adapter.close()
        # Not closed, but dropped: another thread may be about to take a connection.
        self._pools = {}


def _wire(request: Request) -> tuple[str, dict[str, str]]:
    """Give URL and headers as they go out, and what keeps urllib3 from adding its own."""
    url, headers = wire(request)
    names = {name.lower() for name in headers}
    for name in ("Accept-Encoding", "User-Agent"):
        if name.lower() not in names:
            headers[name] = SKIP_HEADER
    return url, headers


@lru_cache(maxsize=64)
def _parts(url: str) -> tuple[str, str, int, str]:
    """Give scheme, host, port and the rest of a URL that ``wire`` has given."""
    parts = urlsplit(url)
    target = url.removeprefix(f"{parts.scheme}://{parts.netloc}")
    # http.client would take the end of an IPv6 address for the port that is missing.
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    return parts.scheme, parts.hostname or "", port, target


def tls_context(
    config: ClientConfig, environment: Environment, *, client_cert: bool = True
) -> ssl.SSLContext:
    """Make the TLS context of ``VERIFY_CERTS`` and ``CLIENT_CERT``, for every transport.

    Raises ``ConfigurationError`` naming the setting whose file cannot be used.
    """
    where = f"BAIKAL[{config.alias!r}]"
    bundle, setting = DEFAULT_CA_BUNDLE_PATH, "certifi"
    if isinstance(config.verify_certs, (str, os.PathLike)):
        bundle, setting = os.fspath(config.verify_certs), "VERIFY_CERTS"
    elif environment.ca_bundle:
        bundle, setting = environment.ca_bundle, environment.ca_variable
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.sslsocket_class = DeadlineTLSSocket
    if config.verify_certs is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        try:
            directory = os.path.isdir(bundle)
            context.load_verify_locations(
                None if directory else bundle, bundle if directory else None
            )
        except OSError:
            raise ConfigurationError(
                f"{where}: {setting} names {bundle!r}, which is not a readable CA bundle.",
                code="invalid_ca_bundle",
            ) from None
    if config.client_cert and client_cert:
        try:
            context.load_cert_chain(*config.client_cert)
        except OSError:
            raise ConfigurationError(
                f"{where}: CLIENT_CERT does not name a readable certificate and its key.",
                code="invalid_client_cert",
            ) from None
    return context
