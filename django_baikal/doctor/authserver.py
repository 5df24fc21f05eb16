"""The authserver: whether it can be reached and trusted, what time it has, and whether it knows us.

What it says in an error is quoted as everywhere, with credentials and phone numbers masked.
"""

from __future__ import annotations

import ssl
import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from django_baikal.doctor.case import Case, Exchange
from django_baikal.doctor.findings import Failed, Skipped
from django_baikal.exceptions import (
    AuthserverError,
    AuthserverUnavailable,
    ConfigurationError,
    KeyStoreError,
    OAuthError,
)
from django_baikal.keys.timeline import span
from django_baikal.protocol import flows
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.discovery import metadata
from django_baikal.protocol.effects import Request
from django_baikal.protocol.urls import is_loopback, origin
from django_baikal.transports.base import Environment, routes
from django_baikal.transports.deadline import connect, exchange
from django_baikal.transports.failures import failure

#: A certificate that ends sooner should have been renewed; of a short life, this part of it.
RENEWED_BEFORE, RENEWED_PART = timedelta(days=14), 1 / 4
#: What a client is told that is known, and may not have this token.
_KNOWN = ("invalid_scope", "unauthorized_client", "unsupported_grant_type", "access_denied")

_CERTIFICATE = (
    "If the authserver is the right one, have its certificate renewed or corrected; if a private "
    "CA issued it, let VERIFY_CERTS be the path of a bundle with that CA."
)
_REACH = (
    "See that the authserver runs and AUTHSERVER_ENDPOINT is its address, and that nothing is in "
    "the way of this machine: DNS, a firewall, a proxy."
)
_METADATA = {
    "issuer_mismatch": "Set AUTHSERVER_ISSUER to the issuer that it names, if that is the "
    "authserver that you mean; else correct AUTHSERVER_ENDPOINT.",
    "metadata_missing": "Correct AUTHSERVER_ENDPOINT: it is what comes before /.well-known/.",
    "endpoint_refused": "If that endpoint is the authserver's, add its origin to ENDPOINT_ORIGINS.",
}


def tls(case: Case) -> str:
    """Make a TLS connection as a client does, and look at the certificate."""
    config = case.settings
    url = config.authserver_endpoint
    if origin(url) in routes:
        case.connected = True
        raise Skipped("The authserver is one for tests, in the memory of this process.")
    if urlsplit(url).scheme == "http":
        case.connected = True
        if is_loopback(url):
            raise Skipped("AUTHSERVER_ENDPOINT is plain http to this machine, for development.")
        raise Failed(
            "AUTHSERVER_ENDPOINT is plain http: everybody on the way reads the secret and tokens.",
            "Let it be https, and remove ALLOW_HTTP.",
        )
    if config.verify_certs is False:
        case.connected = True
        raise Failed(
            "VERIFY_CERTS is False: whoever is on the way can read the client's secret.",
            "Remove it, or let it be the path of a bundle with the CA of the authserver.",
        )
    try:
        certificate = _certificate(config, case.left(config.timeout))
    except ConfigurationError as error:
        raise Failed(str(error), "Correct what that names: a file, or a variable.") from None
    except AuthserverError as error:
        if error.code == "tls_failed":
            raise Failed(str(error), _CERTIFICATE) from None
        case.unreachable, case.connected = error, False
        raise Skipped("There was no connection to look at.") from None
    case.connected = True
    if certificate is None:
        raise Skipped("A proxy is between here and the authserver; discovery says if it works.")
    return _ends(certificate)


def _certificate(config: ClientConfig, timeout: float) -> dict[str, str] | None:
    """Give the authserver's verified certificate, or None where a proxy is on the way."""
    from django_baikal.transports.requests import tls_context

    url, environment = config.authserver_endpoint, Environment.read(config)
    context = tls_context(config, environment)
    if environment.proxy_for(url):
        return None
    parts = urlsplit(url)
    exchange.deadline = time.monotonic() + timeout
    try:
        with (
            connect(parts.hostname or "", parts.port or 443, None) as sock,
            context.wrap_socket(sock, server_hostname=parts.hostname) as secured,
        ):
            found: dict[str, str] = secured.getpeercert() or {}  # type: ignore[assignment]
            return found
    except (OSError, ValueError) as error:  # ValueError: a host name that is none
        problem = failure(error, Request("GET", url, {}), timeout=timeout)
    finally:
        exchange.deadline = None
    raise problem


def _ends(certificate: dict[str, str]) -> str:
    begins, ends = (
        datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate[name]), UTC)
        for name in ("notBefore", "notAfter")
    )
    left = ends - datetime.now(UTC)
    what = f"The authserver's certificate is good until {ends:%Y-%m-%d}, for {span(left)}."
    if left < min(RENEWED_BEFORE, (ends - begins) * RENEWED_PART):
        raise Failed(what, "Have it renewed: after that day no call works. See who runs it.")
    return what


def discovery(case: Case) -> str:
    """Fetch the metadata anew."""
    config = case.settings
    case.need(case.connected, "TLS")
    try:
        if case.unreachable is not None:
            raise case.unreachable
        server, case.discovered = case.watch(metadata(config, "token_endpoint"), config.timeout)
        url = server.endpoint(config, "token_endpoint")
    except AuthserverError as error:
        unanswered = isinstance(error, AuthserverUnavailable)
        cure = _CERTIFICATE if error.code == "tls_failed" else _REACH if unanswered else ""
        other = "See what is at AUTHSERVER_ENDPOINT: what answers is not as an authserver should."
        raise Failed(str(error), cure or _METADATA.get(error.code, other)) from None
    case.server = server
    return f"The metadata is that of {config.expected_issuer}; tokens come from {url}."


def clock(case: Case) -> str:
    """Compare the authserver's clock with ours, by the Date of its answer (RFC 9110 6.6.1)."""
    answer = case.need(case.discovered, "discovery")
    allowed = case.settings.bearer_leeway
    ahead, doubt = _ahead(answer)
    seconds = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'}"
    if abs(ahead) - doubt > allowed:
        raise Failed(
            f"The authserver's clock is {seconds} ours, and BEARER_LEEWAY allows {allowed:g} s: "
            "tokens expire too soon or too late, and assertions may be refused.",
            "Run NTP on this machine; if this clock is right, tell whoever runs the authserver.",
        )
    return f"The authserver's clock and ours are the same, give or take {abs(ahead) + doubt:.0f} s."


def _ahead(answer: Exchange) -> tuple[float, float]:
    """Give how far its clock is ahead of ours, and how far that may be wrong, in seconds."""
    response, begun, ended = answer
    try:
        date = parsedate_to_datetime(response.headers.get("date", "")).timestamp()
        # What a cache on the way has kept was made so long ago.
        date += float(response.headers.get("age", "0"))
    except ValueError:
        raise Skipped("The authserver's answer does not tell its time.") from None
    # Date is in whole seconds, rounded down.
    return date + 0.5 - (begun + ended) / 2, 0.5 + (ended - begun) / 2


def client_authentication(case: Case) -> str:
    """Get a token for the client itself."""
    config = case.settings
    case.need(case.server, "discovery")
    try:
        answer = case.ask(flows.grant_client(config, None, None, None), config.timeout)
    except KeyStoreError:
        raise Skipped(needs="signing key") from None
    except ConfigurationError as error:
        raise Failed(
            str(error), "Set CLIENT_AUTH_METHOD to one that the authserver takes."
        ) from None
    except AuthserverError as error:
        if isinstance(error, OAuthError) and error.error in _KNOWN and error.status != 401:
            return f"The client is known; without being asked for a scope it gets no token: {error}"
        raise Failed(str(error), _refused(config, error)) from None
    case.token = answer["access_token"]
    return f"The authserver knows {config.client_id!r}, by {config.client_auth_method}."


def _refused(config: ClientConfig, error: AuthserverError) -> str:
    if isinstance(error, AuthserverUnavailable):
        return "See whether the authserver's token endpoint works, and try again."
    if error.status != 401 and error.error != "invalid_client":
        return "See what the authserver says, in its own log as well."
    if config.client_auth_method == "private_key_jwt":
        return (
            "See that CLIENT_ID is right, and that the authserver knows our keys: it needs the URL "
            "of our JWK Set, and the published keys must be those that sign."
        )
    return (
        "Correct CLIENT_ID and CLIENT_SECRET, or set CLIENT_AUTH_METHOD to the way in which the "
        "authserver expects them."
    )
