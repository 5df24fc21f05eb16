"""What others see of us: our metadata and our keys, fetched through our public URL."""

from __future__ import annotations

import re
from typing import Any

from django.utils import timezone

from django_baikal.doctor.case import Case
from django_baikal.doctor.findings import Failed, Skipped
from django_baikal.exceptions import AuthserverError, ConfigurationError, InvalidResponse
from django_baikal.keys.database import DatabaseKeyStore
from django_baikal.protocol.effects import Response
from django_baikal.protocol.messages import json_answer, mask
from django_baikal.protocol.urls import is_loopback, split_http_url

_SITE = 'path("", include("django_baikal.urls"))'
_ELSEWHERE = (
    f"Something else answers there: let the host of ISSUER lead to this project, with {_SITE} in "
    "its URLs, and let no proxy answer in its place."
)
_REACH = (
    "See that the host of ISSUER leads to this project, also from outside: DNS, a proxy, a "
    "firewall; and that the site runs. A site with one worker alone cannot answer while that is "
    "busy with this examination: run manage.py baikal_doctor."
)
_STATUS = {
    400: "Add the host of ISSUER to ALLOWED_HOSTS.",
    401: "Let nobody have to log in for it: see the proxy.",
    403: "Let nobody have to log in for it: see the proxy.",
    404: f"Put {_SITE} into the URLs of the project, and let the proxy pass on what begins with "
    "/.well-known/ and with //.well-known/.",
    503: "See the site's log: it cannot read its keys.",
}
_OTHERS = (
    "Let every process that answers there have the same KEYS, RING and database as this one, and "
    "no cache keep the set for longer than its Cache-Control says."
)
_REDIRECT = (
    "Let it be answered without a redirect: with SECURE_SSL_REDIRECT the proxy has to say that a "
    "request came over https (SECURE_PROXY_SSL_HEADER)."
)
#: Members of a JWK that are the private half itself.
_PRIVATE = {"d", "p", "q", "k", "priv"}


def our_metadata(case: Case) -> str:
    """Fetch our metadata as an authserver does that is shown an assertion of ours."""
    issuer = case.issuer = _issuer(case)
    expected = {"issuer": issuer, "jwks_uri": _jwks_uri(issuer)}
    path = "/.well-known/openid-configuration"
    # Where ISSUER ends in a slash, the platform asks with two of them, and others with one.
    urls = dict.fromkeys((issuer.rstrip("/") + path, issuer + path))
    for url in urls:
        document, _ = _document(case, url)
        for name, value in expected.items():
            if document.get(name) != value:
                there = document.get(name)
                shown = repr(mask(there, ())) if isinstance(there, str) else "none"
                cure = "Let ISSUER be the same, character by character, wherever the project runs."
                raise Failed(
                    f"At {url} the {name} is {shown}, and it should be {value!r}.",
                    f"{cure} {_ELSEWHERE}" if name == "issuer" else _ELSEWHERE,
                )
    return f"It can be fetched: {' and '.join(urls)}."


def our_jwks(case: Case) -> str:
    """Fetch our JWK Set."""
    url = _jwks_uri(case.need(case.issuer, "our metadata"))
    case.need(case.answered, "our metadata")
    document, response = _document(case, url)
    keys = document.get("keys")
    if not isinstance(keys, list) or not all(isinstance(jwk, dict) for jwk in keys):
        raise Failed(f"What is at {url} is not a JWK Set.", _ELSEWHERE)
    if not keys:
        case.need(case.wanted, "signing key")
        raise Failed(f"The JWK Set at {url} is empty.", _OTHERS)
    if any(_PRIVATE.intersection(jwk) for jwk in keys):
        raise Failed(
            f"The JWK Set at {url} shows a private half.",
            "Take it down, and revoke that key: rotate_keys --emergency. This project shows none: "
            "let its own URL answer.",
        )
    case.jwks = keys
    times = [s.options.timing for s in case.stores or () if isinstance(s, DatabaseKeyStore)]
    if times and (kept := _kept_for(response)) > times[0].jwks_max_age:
        raise Failed(
            f"Others may keep the JWK Set at {url} for {kept} s, and JWKS_MAX_AGE is "
            f"{times[0].jwks_max_age:g} s: they may not see a new key in time.",
            "Let the proxy or CDN before the site pass on its Cache-Control as it is.",
        )
    return f"It can be fetched: {url} has {len(keys)} key{'' if len(keys) == 1 else 's'}."


def published_keys(case: Case) -> str:
    """See that others find the key that signs in our JWK Set, and the one that comes next."""
    wanted = case.need(case.wanted, "signing key")
    url = _jwks_uri(case.need(case.issuer, "our metadata"))
    there = case.need(case.jwks, "our JWK Set")
    young = []
    for key in wanted:
        if any(key.jwk.items() <= jwk.items() for jwk in there):
            continue
        if key.by is None or key.by < timezone.now():
            kids = mask(", ".join(str(jwk.get("kid")) for jwk in there), ())
            raise Failed(
                f"Key {key.jwk['kid']}, which {key.role}, is not in the JWK Set at {url}, which "
                f"has {kids}.",
                _OTHERS,
            )
        young.append(f" {key.jwk['kid']} is so new that it may not be there yet.")
    seen = [f"{key.jwk['kid']} {key.role}" for key in wanted]
    return f"Others see what this process has: {', '.join(seen)}.{''.join(young)}"


def _issuer(case: Case) -> str:
    config = case.settings
    if not config.issuer:
        raise Skipped("ISSUER is not set: nothing of ours has to be public.")
    try:
        parts = split_http_url(config.issuer)
        if "?" in config.issuer:
            raise ValueError("it has a query")
    except ValueError as error:
        raise Skipped(f"ISSUER is not the URL of a site: {error}.") from None
    if parts.scheme == "http" and not (is_loopback(config.issuer) or config.allow_http):
        raise Failed(
            f"ISSUER is plain http ({config.issuer}): whoever is on the way to it can put keys of "
            "their own there.",
            "Let the site answer over https, and ISSUER say so, here and at the authserver.",
        )
    return config.issuer


def _jwks_uri(issuer: str) -> str:
    return issuer.rstrip("/") + "/.well-known/jwks.json"


def _kept_for(response: Response) -> int:
    """Give for how long anybody may keep an answer, in seconds (RFC 9111 section 5.2.2)."""
    said = response.headers.get("cache-control", "").lower()
    return max(map(int, re.findall(r"\b(?:s-maxage|max-age)=\"?(\d{1,9})", said)), default=0)


def _document(case: Case, url: str) -> tuple[dict[str, Any], Response]:
    """Fetch a public JSON document of ours."""
    try:
        response = case.fetch(url)
    except (AuthserverError, ConfigurationError) as error:
        tls = (
            "Have the certificate of that host renewed or corrected: the authserver checks it as "
            "well. If a private CA issued it, add that CA to the bundle of VERIFY_CERTS."
        )
        raise Failed(str(error), tls if error.code == "tls_failed" else _REACH) from None
    case.answered = True
    if response.status != 200:
        raise Failed(f"{url} answered {response.status}.", _cure(response))
    try:
        return json_answer(response, url), response
    except InvalidResponse as error:
        raise Failed(str(error), _ELSEWHERE) from None


def _cure(response: Response) -> str:
    if 300 <= response.status < 400:
        return _REDIRECT
    return _STATUS.get(response.status, "See the log of the site, and of the proxy before it.")
