"""What went wrong on the wire, in our errors and in words that hold no secret."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from django_baikal.exceptions import AuthserverError, AuthserverUnavailable, InvalidResponse
from django_baikal.protocol.effects import Request
from django_baikal.protocol.urls import without_query

_UNKNOWN_CA = (
    "; if it is to be trusted, set VERIFY_CERTS to the path of a bundle with the CA that issued it"
)
_CHECKED = " (it is checked because VERIFY_CERTS is on)"

#: OpenSSL's X509_V_ERR_* -> what is wrong with the server's certificate.
_CERTIFICATE = {
    9: f"is not valid yet{_CHECKED}",
    10: f"has expired{_CHECKED}",
    18: f"is self-signed{_UNKNOWN_CA}",
    19: f"was issued by a self-signed CA that is not known here{_UNKNOWN_CA}",
    20: f"was issued by a CA that is not known here{_UNKNOWN_CA}",
    21: f"was issued by a CA that is not known here{_UNKNOWN_CA}",
    62: f"is for another host name{_CHECKED}",
    64: f"is for another IP address{_CHECKED}",
}


def timed_out(request: Request, timeout: float) -> AuthserverUnavailable:
    """Make the error for an exchange that was not complete within ``timeout`` seconds."""
    return AuthserverUnavailable(
        f"{_where(request, None)}: no complete answer within {max(timeout, 0):.3g} s.",
        code="timeout",
    )


def failure(
    error: BaseException,
    request: Request,
    *,
    timeout: float,
    proxy: str | None = None,
    malformed: tuple[type[BaseException], ...] = (),
) -> AuthserverError:
    """Make our error from a library's, for raising outside of the ``except`` block.

    The library's errors hold the request with its credentials, so they become neither cause nor
    context. ``malformed``: the library's own classes for an answer that is not HTTP.
    """
    where = _where(request, proxy)
    code, problem = "connection_failed", "the connection broke before the answer was complete"
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError) and type(cause).__module__ != "ssl":
            continue  # aiohttp's, without the details; what it wraps is still to come
        if isinstance(cause, ssl.SSLCertVerificationError):
            verdict = _CERTIFICATE.get(cause.verify_code, f"is not trusted{_CHECKED}")
            code, problem = "tls_failed", f"the server's TLS certificate {verdict}"
        elif isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
            continue
        elif isinstance(cause, ssl.SSLError):
            code, problem = "tls_failed", _tls_problem(cause)
        elif isinstance(cause, TimeoutError):
            return timed_out(request, timeout)
        elif isinstance(cause, socket.gaierror):
            problem = "the host name could not be resolved"
        elif isinstance(cause, ConnectionRefusedError):
            problem = "the connection was refused"
        elif isinstance(cause, (http.client.IncompleteRead, http.client.RemoteDisconnected)):
            continue
        elif isinstance(cause, (http.client.HTTPException, *malformed)):
            return InvalidResponse(f"{where}: the answer is not valid HTTP.", code="malformed_http")
        else:
            continue
        break
    return AuthserverUnavailable(f"{where}: {problem}.", code=code)


def _tls_problem(error: ssl.SSLError) -> str:
    reason = (getattr(error, "reason", None) or "unknown reason").replace("_", " ").lower()
    hint = ""
    if "alert" in reason and "cert" in reason:
        hint = "; the server did not accept our certificate, see CLIENT_CERT"
    elif reason == "wrong version number":
        hint = "; the server may speak plain http on this port"
    return f"TLS failed ({reason}{hint}; see also VERIFY_CERTS)"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Give ``error`` and all that it wraps, outermost first.

    Not ``__context__``: there stands also what our caller is handling at the moment.
    """
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting:
        candidate = waiting.pop(0)
        if isinstance(candidate, BaseException) and id(candidate) not in seen:
            seen.add(id(candidate))
            yield candidate
            waiting += [candidate.__cause__, getattr(candidate, "reason", None), *candidate.args]


def _where(request: Request, proxy: str | None) -> str:
    where = f"{request.method} {without_query(request.url)}"
    return f"{where} through the proxy {urlsplit(proxy).hostname}" if proxy else where
