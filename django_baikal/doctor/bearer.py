"""A bearer token, as the doors would see it: what the authserver says of it, and our verdict."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django_baikal.doctor.case import Case
from django_baikal.doctor.findings import Failed, Skipped
from django_baikal.exceptions import (
    AuthserverError,
    AuthserverUnavailable,
    BaikalError,
    ExpiredToken,
    InactiveToken,
    InvalidResponse,
    InvalidSignature,
    TokenError,
    WrongAudience,
)
from django_baikal.keys.timeline import span
from django_baikal.protocol import flows
from django_baikal.protocol.access_token import both_say, verify_access_token
from django_baikal.protocol.bearer import TokenInfo, check_answer, check_token, judge
from django_baikal.protocol.messages import mask

_NONE = "There is no token to look at; give one with --token -."
_INTROSPECTION = {
    "endpoint_missing": "Bearer tokens cannot be checked without it: have the authserver offer "
    "introspection, or protect no API with this alias.",
    "endpoint_refused": "If that endpoint is the authserver's, add its origin to ENDPOINT_ORIGINS.",
}
_TOKEN = {
    "malformed_token": "Give the access token alone, without the word Bearer; one that is longer "
    "than MAX_TOKEN_LENGTH is never looked at.",
    "not_a_bearer_token": "Use the access token and not the refresh token; one that is bound to a "
    "key (DPoP, mutual TLS) cannot be used here.",
    "wrong_issuer": "Use the alias of that issuer, or correct AUTHSERVER_ISSUER.",
    "wrong_client": "Add the token's client to ALLOWED_CLIENTS, if it may call this API.",
    "wrong_claim": "Look at REQUIRED_CLAIMS, and at whether the caller asked for the right token.",
    "not_an_access_token": "Use the access token; if it is one, let JWT_TYPES name its typ.",
    InvalidSignature.code: "See whether it comes from this authserver, and whether its access "
    'tokens are signed, with one of JWT_ALGORITHMS; else let VALIDATION be "introspection".',
    WrongAudience.code: "Let AUDIENCES name whom the tokens for this API are for.",
    ExpiredToken.code: "Get a new one; if it is new, see what the clocks say.",
}
_INACTIVE = "Get a new one; if it is new, see whether it comes from this authserver."
_NOT_TOLD = "Have the authserver allow this client to introspect: it called a new token inactive."
_KEYS = "See whether the authserver publishes its keys (jwks_uri in its metadata), and try again."
#: More seconds than these are not counted.
_LONG = 10 * 365 * 86400
#: Why a token of our own may be refused with nothing being wrong: it is for another API.
_NOT_FOR_US = (WrongAudience.code, "wrong_client", "wrong_claim")


def introspection(case: Case) -> str:
    """Ask the authserver about the token that was given, or else the one just obtained."""
    config, token = case.settings, _token(case)
    server = case.need(case.server, "discovery")
    if config.validation == "jwt":
        raise Skipped(
            'VALIDATION is "jwt": nobody is asked about a token, unless it is to be fresh.'
        )
    try:
        check_token(token, config.max_token_length)
    except TokenError:
        raise Skipped("What was given cannot be a token, so nobody is asked.") from None
    try:
        case.claims = case.ask(flows.introspect(config, token, None), config.introspection_timeout)
        return f"{server.endpoint(config, 'introspection_endpoint')} answers as it should."
    except AuthserverUnavailable as error:
        cure = "See whether the authserver's introspection endpoint works, and try again."
        raise Failed(str(error), cure) from None
    except AuthserverError as error:
        refused = "Have the authserver allow this client to introspect; without that, none of its "
        refused += "callers' tokens can be checked."
        raise Failed(str(error), _INTROSPECTION.get(error.code, refused)) from None
    except BaikalError as error:
        cure = "The client must authenticate at the introspection endpoint; do what that says."
        raise Failed(str(error), cure) from None


def token(case: Case) -> str:
    """Decide on the token as the middleware, the backend and the decorators do."""
    config, own, claims = case.settings, case.given is None, dict[str, Any]()
    try:
        check_token(_token(case), config.max_token_length)
        if config.validation != "introspection":
            verifying = verify_access_token(config, _token(case))
            claims = case.ask(verifying, config.introspection_timeout)
        if config.validation != "jwt":
            answer = case.need(case.claims, "introspection")
            if answer["active"]:
                check_answer(answer, "The authserver")
            claims = both_say(claims, answer)
        info = judge(config, claims, time.time())
    except AuthserverUnavailable as error:
        raise Failed(str(error), _KEYS) from None
    except InvalidResponse as error:
        if error.code == "invalid_jwks":
            raise Failed(str(error), _KEYS) from None
        cure = "Tell whoever runs the authserver: RFC 7662 section 2.2 says how it should answer."
        raise Failed(str(error), cure) from None
    except InactiveToken as error:
        raise Failed(str(error), _NOT_TOLD if own else _INACTIVE) from None
    except TokenError as error:
        if own and error.code in _NOT_FOR_US:
            raise Skipped(
                f"The token just obtained is for another API ({error}); give one that is for this "
                "one with --token -."
            ) from None
        aud = (
            f" It is{_audience(case, claims).removeprefix(',')}."
            if error.code == WrongAudience.code
            else ""
        )
        raise Failed(f"{error}{aud}", _TOKEN[error.code]) from None
    return f"It is accepted: {_described(case, info)}."


def _token(case: Case) -> str:
    token = case.token if case.given is None else case.given
    if token is None:
        # Where the client is known and gets no token, nothing has failed.
        raise Skipped(_NONE, needs="client authentication")
    return token


def _described(case: Case, info: TokenInfo) -> str:
    """Describe a token without what is personal: of a user, nothing."""
    whose = "a user's" if info.is_user else "a client's own"
    scopes = _shown(case, " ".join(sorted(info.scopes))) if info.scopes else "no scope"
    until = ""
    if info.expires_at is not None:
        left = timedelta(seconds=min(info.expires_at - time.time(), _LONG))
        until = f", for another {span(left)}"
    return f"{whose}{_audience(case, info.claims)}, with {scopes}{until}"


def _audience(case: Case, claims: Mapping[str, Any]) -> str:
    aud = claims.get("aud")
    if aud is None:
        return ", for nobody in particular"
    return f", for {_shown(case, aud if isinstance(aud, str) else ' '.join(aud))}"


def _shown(case: Case, words: str) -> str:
    return mask(words, [_token(case)])
