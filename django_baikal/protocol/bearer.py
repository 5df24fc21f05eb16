"""Bearer tokens: read the one of a request, judge what is known of it, and word the answer.

RFC 6750 for requests and answers, RFC 7662 for what the authserver says of a token.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from django_baikal.exceptions import (
    AuthserverError,
    BaikalError,
    ConfigurationError,
    ExpiredToken,
    InactiveToken,
    InsufficientAuthentication,
    InsufficientScope,
    InvalidRequest,
    InvalidResponse,
    TokenError,
    WrongAudience,
)
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.messages import SCOPE_TOKEN, Names, names
from django_baikal.protocol.strict_json import canonical, is_number

#: Without a word of the authserver, a caller may come back after this many seconds.
RETRY_AFTER = 5
#: Where a credential of the scheme begins, in any case, up to where its name ends.
_BEARER = re.compile(r"(?:^|,)[ \t]*bearer(?![!#$%&'*+.^_`|~0-9a-z-])", re.IGNORECASE)
#: RFC 6750 section 2.1: b64token.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
#: What token_type may be where there is one: some authservers name the kind of token instead.
_TYPES = ("bearer", "access_token")
#: What no name has: it would break a line of a log, or a database's text.
_BROKEN = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
#: An acr that can be compared; longer numbers are no levels.
_LEVEL = re.compile(r"[0-9]{1,9}")


def bearer_token(header: str) -> str | None:
    """Give the token of an Authorization header, unchecked; None if it has another scheme.

    Raises InvalidRequest for a scheme without a token, and for more than one credential: servers
    join repeated headers with commas, and no token has one.
    """
    begin = 7
    if not header.startswith("Bearer "):  # as most write it, with no need of a search
        scheme = _BEARER.search(header)
        if scheme is None:
            return None
        begin = scheme.end()
    if "," in header:
        raise InvalidRequest("The request has more than one credential.")
    token = header[begin:].strip(" \t")
    if not token:
        raise InvalidRequest("The request has no token after Bearer.")
    return token


def check_token(token: object, longest: int) -> str:
    """Give ``token`` if it may be one at all; raise a TokenError, before anybody is asked."""
    if not isinstance(token, str) or len(token) > longest or not _TOKEN.fullmatch(token):
        raise TokenError("The token is malformed or too long.", code="malformed_token")
    return token


def fingerprint(token: object) -> str:
    """Give 8 hex digits that tell tokens apart in a log."""
    return hashlib.sha256(str(token).encode("utf-8", "replace")).hexdigest()[:8]


def identity(issuer: str, kind: str, name: str) -> str:
    """Give a stable name for whom ``issuer`` calls ``name``: 32 hex digits.

    It does not show the name; but whoever guesses that (a phone number, say) can tell.
    """
    return hashlib.sha256(json.dumps([issuer, kind, name]).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class TokenInfo:
    """What the authserver says of a bearer token that is good (RFC 7662 section 2.2).

    ``alias``: of BAIKAL. ``issuer``: the authserver's. ``claims``: its whole answer, which may hold
    phone numbers, and is left out of the repr.
    """

    alias: str
    issuer: str
    claims: Mapping[str, Any] = field(repr=False)

    def __init__(self, alias: str, issuer: str, claims: Mapping[str, Any]) -> None:
        # That of a frozen dataclass takes three times as long, and each request has one.
        vars(self).update(alias=alias, issuer=issuer, claims=claims)

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes (RFC 6749 section 3.3), from ``scope`` or else ``scopes``."""
        return frozenset(_words(self.claims.get("scope")) or _words(self.claims.get("scopes")))

    @property
    def purposes(self) -> frozenset[str]:
        """The purposes: of the claim ``purpose``, and CAMARA's ``dpv:`` among the scopes."""
        camara = {scope.partition("#")[0] for scope in self.scopes if scope.startswith("dpv:")}
        return frozenset(camara.union(_words(self.claims.get("purpose"))))

    @property
    def subject(self) -> str | None:
        """Who the token speaks for, as the issuer calls them."""
        return self.claims.get("sub") or None

    @property
    def client_id(self) -> str | None:
        """The client that the token was issued to."""
        return self.claims.get("client_id") or None

    @property
    def acr(self) -> str | None:
        """How the user authenticated."""
        acr = self.claims.get("acr")
        return None if acr is None else str(acr)

    @property
    def expires_at(self) -> float | None:
        """When the token ends, in seconds since the epoch."""
        return self.claims.get("exp")

    @property
    def is_user(self) -> bool:
        """Whether the token is a user's, and not the client's own."""
        said = self.claims.get
        subject = said("sub")
        return bool((subject and subject != said("client_id")) or said("username"))

    @property
    def identity(self) -> str:
        """A stable name of the user or client: 32 hex digits, as ``identity()`` makes them."""
        if self.subject is not None and self.subject != self.client_id:
            return identity(self.issuer, "sub", str(self.subject))
        if self.is_user:
            return identity(self.issuer, "username", self.claims["username"])
        return identity(self.issuer, "client_id", str(self.client_id))


def _words(value: Any) -> list[str]:
    if isinstance(value, str):
        return [word for word in value.split(" ") if word]
    return value or []


def check_answer(answer: Mapping[str, Any], where: str) -> None:
    """Check the form of an introspection's answer that a token is active.

    Raises InvalidResponse: nobody can tell what an authserver means that puts a word where a time
    should be.
    """
    if (wrong := misshapen(answer)) is not None:
        raise InvalidResponse(
            f"{where} sent an answer that cannot be used: its {wrong} is not what it should be.",
            status=200,
        )


def misshapen(answer: Mapping[str, Any]) -> str | None:
    """Name the first member that is not of its type, or None; null is as good as none."""
    for name, value in answer.items():
        fits = _FORMS.get(name)
        if fits is not None and value is not None and not fits(value):
            return name
    named = any(answer.get(name) for name in ("sub", "client_id", "username"))
    return None if named else "sub and client_id"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not _BROKEN.search(value)


def _is_texts(value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    return all(isinstance(item, str) for item in items)


def _is_words(value: Any) -> bool:
    if not _is_texts(value):
        return False
    return all(SCOPE_TOKEN.fullmatch(word) for word in _words(value))


def _is_level(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


_FORMS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("sub", "client_id", "username", "iss", "token_type", "jti"), _is_text),
    **dict.fromkeys(("exp", "iat", "nbf"), is_number),
    **dict.fromkeys(("scope", "scopes", "purpose"), _is_words),
    "aud": _is_texts,
    "acr": _is_level,
}


def judge(config: ClientConfig, answer: Mapping[str, Any], wall: float) -> TokenInfo:
    """Decide on a token by what the authserver said of it, at ``wall`` seconds since the epoch.

    Raises a TokenError. ``answer`` may be an hour old: times are looked at again.
    """
    said = check_validity(config, answer, wall)
    allowed = config.allowed_clients
    if allowed is not None and said.get("client_id") not in allowed:
        raise TokenError("The token is of a client that is not allowed.", code="wrong_client")
    for name, wanted in config.required_claims.items():
        values = wanted if isinstance(wanted, list) else [wanted]
        if not any(_same(said.get(name), value) for value in values):
            raise TokenError(f"The token's {name} is not what is required.", code="wrong_claim")
    return TokenInfo(config.alias, config.expected_issuer, said)


def check_validity(config: ClientConfig, answer: Mapping[str, Any], wall: float) -> dict[str, Any]:
    """Give what is said of a token that is good now and for us, without what is null.

    What the project asks of a good token is not looked at. Raises a TokenError.
    """
    said = {name: value for name, value in answer.items() if value is not None}
    if said.get("active") is not True:
        raise InactiveToken("The authserver says that the token is not active.")
    if said.get("token_type", _TYPES[0]).lower() not in _TYPES or "cnf" in said:
        # A refresh token, or one that is bound to a key whose possession nobody has proved
        # (RFC 9449 section 7.1, RFC 8705 section 3).
        raise TokenError("The token is not a bearer token.", code="not_a_bearer_token")
    if said.get("exp", math.inf) <= wall - config.bearer_leeway:
        raise ExpiredToken("The token has expired.")
    if said.get("nbf", 0) > wall + config.bearer_leeway:
        raise ExpiredToken("The token is not valid yet.")
    if said.get("iss", config.expected_issuer) != config.expected_issuer:
        raise TokenError("The token is from another issuer.", code="wrong_issuer")
    _check_audience(config, said.get("aud"))
    return said


def _check_audience(config: ClientConfig, aud: Any) -> None:
    if config.audiences is not None and "*" in config.audiences:
        return
    wanted = config.audiences or (config.client_id,)
    found = [] if aud is None else aud if isinstance(aud, list) else [aud]
    if (found or config.audiences is not None) and {*wanted}.isdisjoint(found):
        raise WrongAudience("The token is for somebody else.")


def _same(value: Any, wanted: Any) -> bool:
    # As JSON, where true is no 1.
    return canonical(value) == canonical(wanted)


@dataclass(frozen=True)
class Requirement:
    """What a view asks of a token. ``any_of``: sets of scopes, of which one has to be complete.

    ``acr``: values of which one will do; of whole numbers, a higher one as well.
    """

    scopes: tuple[str, ...] = ()
    purposes: tuple[str, ...] = ()
    any_of: tuple[tuple[str, ...], ...] = ()
    acr: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        scopes: Names = None,
        purposes: Names = None,
        any_of: Iterable[Names] | None = None,
        acr: Names = None,
    ) -> Requirement:
        """Make one of what a view says; raise ConfigurationError for what cannot be asked."""
        return cls(
            names(scopes, "scopes"),
            names(purposes, "purposes"),
            () if any_of is None else _alternatives(any_of),
            names(acr, "acr"),
        )

    def check(self, token: TokenInfo) -> None:
        """Raise InsufficientAuthentication or InsufficientScope unless ``token`` will do."""
        if self.acr and not any(_reaches(token.acr, acr) for acr in self.acr):
            raise InsufficientAuthentication(
                "The user has to authenticate more strongly.", acr_values=self.acr
            )
        scopes = self.scopes
        if self.any_of and not any(token.scopes.issuperset(each) for each in self.any_of):
            scopes += tuple(scope for scope in self.any_of[0] if scope not in scopes)
        if not token.scopes.issuperset(scopes) or not token.purposes.issuperset(self.purposes):
            raise InsufficientScope(
                "The token does not reach this far.", scopes=scopes, purposes=self.purposes
            )


def _alternatives(any_of: Any) -> tuple[tuple[str, ...], ...]:
    found: tuple[tuple[str, ...], ...] = ()
    if not isinstance(any_of, str) and isinstance(any_of, Iterable):
        found = tuple(names(each, "any_of") for each in any_of)
    if not found or not all(found):
        # Nothing is asked for by an empty one: every token would do.
        raise ConfigurationError("any_of must be a list of sets of scopes, of which none is empty.")
    return found


def _reaches(acr: str | None, wanted: str) -> bool:
    if acr is not None and _LEVEL.fullmatch(acr) and _LEVEL.fullmatch(wanted):
        return int(acr) >= int(wanted)
    return acr == wanted


class Answer(NamedTuple):
    """How a request is answered: a status, headers, and a JSON body."""

    status: int
    headers: dict[str, str]
    body: dict[str, str]


_INVALID = "The access token is invalid or has expired."
_SENTENCES = {
    "invalid_request": "The request must carry exactly one token, in the Authorization header.",
    "invalid_token": _INVALID,
    "insufficient_scope": "The access token does not reach this far.",
    "insufficient_user_authentication": "The user has to authenticate more strongly.",
}


def answer(error: BaikalError | None, realm: str) -> Answer:
    """Word the answer for ``error``, or for a request without a token (RFC 6750 section 3).

    Why a token is not good is for the log, and not for whoever sent it. What is not the bearer's
    fault is 503.
    """
    if error is None:
        body = {"error": "unauthorized", "error_description": "A bearer token is needed."}
        return Answer(401, {"WWW-Authenticate": _challenge(realm)}, body)
    if not isinstance(error, TokenError):
        said = error.retry_after if isinstance(error, AuthserverError) else None
        wait = RETRY_AFTER if said is None else max(1, math.ceil(said))
        sentence = "The access token cannot be checked now; try again later."
        body = {"error": "temporarily_unavailable", "error_description": sentence}
        return Answer(503, {"Retry-After": str(wait), "Cache-Control": "no-store"}, body)
    status, parameters = 401, {}
    code = "invalid_token"
    if isinstance(error, InvalidRequest):
        status, code = 400, "invalid_request"
    elif isinstance(error, InsufficientScope):
        status, code = 403, "insufficient_scope"
        parameters = {"scope": " ".join(error.scopes), "purpose": " ".join(error.purposes)}
    elif isinstance(error, InsufficientAuthentication):
        code = "insufficient_user_authentication"
        parameters = {"acr_values": " ".join(error.acr_values)}
    body = {"error": code, "error_description": _SENTENCES[code]}
    given = {name: value for name, value in parameters.items() if value}
    return Answer(status, {"WWW-Authenticate": _challenge(realm, **body, **given)}, body)


def _challenge(realm: str, **parameters: str) -> str:
    quoted = (
        f'{name}="{_quoted(value)}"' for name, value in {"realm": realm, **parameters}.items()
    )
    return f"Bearer {', '.join(quoted)}"


def _quoted(value: str) -> str:
    """Give ``value`` as it may stand in a quoted-string of ASCII (RFC 9110 section 5.6.4)."""
    return re.sub(r'(["\\])', r"\\\1", re.sub(r"[^ -~]", "?", value))
