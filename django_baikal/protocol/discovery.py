"""Keeping the authserver's metadata: fresh, then stale while it is renewed, then not at all."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from django_baikal.exceptions import BaikalError, InvalidResponse
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.effects import (
    Background,
    Fetch,
    Flow,
    Instant,
    Now,
    Recall,
    Remember,
    Response,
    Share,
)
from django_baikal.protocol.messages import raise_for_error
from django_baikal.protocol.metadata import (
    Metadata,
    is_missing,
    metadata_request,
    oauth_metadata_url,
    openid_configuration_url,
    process_metadata_response,
)

logger = logging.getLogger("django_baikal.client")

#: How long after a failed renewal the next one is tried, in seconds.
COOLDOWN = 30.0


@dataclass(frozen=True, slots=True)
class Copy:
    """Metadata as this process keeps it; the times are monotonic seconds.

    ``complete``: the OAuth document (RFC 8414) was looked at too.
    """

    metadata: Metadata
    fetched_at: float
    retry_at: float
    complete: bool


def metadata(config: ClientConfig, endpoint: str) -> Flow[Metadata]:
    """Give the authserver's metadata, with ``endpoint`` in it if any document names it.

    Fresh for METADATA_TTL. Then, up to METADATA_STALE, the old copy is given at once and one
    renewal runs aside. Callers that start cold share one discovery.
    """
    known: Copy | None = yield Recall("metadata")
    now = yield Now()
    copy: Copy
    if known is None or not usable(config, known, now):
        copy = yield Share(("metadata",), lambda: _cold(config))
    else:
        copy = known
        if now.monotonic >= copy.retry_at:
            yield Background(("metadata",), lambda: _renew(config))
    if copy.metadata.document.get(endpoint) is None and not copy.complete:
        copy = yield Share(("metadata", "complete"), lambda: _complete(config))
    return copy.metadata


def usable(config: ClientConfig, copy: Copy, now: Instant) -> bool:
    """Tell whether a copy of the metadata is not too old to be used."""
    return now.monotonic - copy.fetched_at < config.metadata_stale


def _cold(config: ClientConfig) -> Flow[Copy]:
    copy: Copy | None = yield Recall("metadata")
    now = yield Now()
    if copy is None or not usable(config, copy, now):
        # The caller before may have finished between our look and our turn; this one did not.
        copy = yield from _discover(config)
        yield Remember("metadata", copy)
    return copy


def _renew(config: ClientConfig) -> Flow[None]:
    old: Copy = yield Recall("metadata")
    now = yield Now()
    if now.monotonic < old.retry_at:
        return
    try:
        copy = yield from _discover(config)
        if old.complete and not copy.complete:
            copy = yield from _with_oauth_document(config, copy)
    except BaikalError as error:
        now = yield Now()
        copy = replace(old, retry_at=now.monotonic + COOLDOWN)
        logger.warning(
            "BAIKAL[%r]: the authserver's metadata cannot be renewed, the last copy stays in use: "
            "%s",
            config.alias,
            error,
        )
    yield Remember("metadata", copy)


def _complete(config: ClientConfig) -> Flow[Copy]:
    copy: Copy = yield Recall("metadata")
    if not copy.complete:
        copy = yield from _with_oauth_document(config, copy)
        yield Remember("metadata", copy)
    return copy


def _discover(config: ClientConfig) -> Flow[Copy]:
    url = openid_configuration_url(config)
    response: Response = yield Fetch(metadata_request(url), "discovery")
    now = yield Now()
    if is_missing(response):
        document = yield from _oauth_document(config)
        if document is None:
            raise InvalidResponse(
                f"There is no metadata at {url} ({response.status}), nor at "
                f"{oauth_metadata_url(config)}; look at AUTHSERVER_ENDPOINT.",
                code="metadata_missing",
                status=response.status,
            )
        found, complete = document, True
    else:
        raise_for_error(response, url, wall=now.wall)
        found, complete = process_metadata_response(response, url, config), False
    return Copy(found, now.monotonic, now.monotonic + config.metadata_ttl, complete)


def _with_oauth_document(config: ClientConfig, copy: Copy) -> Flow[Copy]:
    """Add what only the OAuth document says; where both speak, the OpenID document wins."""
    document = yield from _oauth_document(config)
    merged = copy.metadata
    if document is not None:
        added = {
            name: value
            for endpoint, url in document.document.items()
            if endpoint.endswith(("_endpoint", "jwks_uri"))
            and merged.document.get(endpoint) is None
            # What is said of an endpoint comes with it, and nothing else: what the OpenID
            # document leaves out has a default.
            for name, value in (
                (endpoint, url),
                (
                    f"{endpoint}_auth_methods_supported",
                    document.document.get(f"{endpoint}_auth_methods_supported"),
                ),
            )
        }
        merged = replace(merged, document={**merged.document, **added})
    return replace(copy, metadata=merged, complete=True)


def _oauth_document(config: ClientConfig) -> Flow[Metadata | None]:
    url = oauth_metadata_url(config)
    response: Response = yield Fetch(metadata_request(url), "discovery")
    now = yield Now()
    if is_missing(response):
        return None
    raise_for_error(response, url, wall=now.wall)
    return process_metadata_response(response, url, config)
