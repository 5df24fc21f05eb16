"""How clients prove who they are at the back-channel endpoints (RFC 6749 2.3, OIDC Core 9)."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from urllib.parse import unquote_plus

from django_baikal.testing.assertions import client_assertion, unverified_issuer
from django_baikal.testing.issuers import Unacceptable
from django_baikal.testing.state import Client, State
from django_baikal.testing.wire import RecordedRequest, Refused

METHODS = ("client_secret_basic", "client_secret_post", "private_key_jwt")
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def authenticate(state: State, call: RecordedRequest, form: Mapping[str, str]) -> Client:
    """Give the client that sent ``call``, or raise Refused.

    Exactly one mechanism, and one that the client is registered for; a ``client_id`` that stands
    in the form besides must be the same.
    """
    used = [
        method
        for method, there in (
            ("client_secret_basic", "authorization" in call.headers),
            ("client_secret_post", "client_secret" in form),
            ("private_key_jwt", "client_assertion" in form or "client_assertion_type" in form),
        )
        if there
    ]
    if len(used) > 1:
        raise Refused(
            "invalid_request", f"The client authenticates in {len(used)} ways: {', '.join(used)}."
        )
    if not used:
        raise _refused("The client does not authenticate.")
    method = used[0]
    if method == "client_secret_basic":
        client = _basic(state, call.headers["authorization"])
    elif method == "client_secret_post":
        client = _post(state, form)
    else:
        client = _private_key_jwt(state, form)
    if method not in client.auth_methods:
        raise _refused(f"The client is not registered for {method}.")
    if form.get("client_id", client.client_id) != client.client_id:
        raise Refused("invalid_request", "The form names another client than the one it is from.")
    call.client_id, call.client_auth_method = client.client_id, method
    return client


def _basic(state: State, authorization: str) -> Client:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        raise _refused("Authorization must be Basic.")
    try:
        pair = base64.b64decode(encoded.strip(" "), validate=True).decode()
        raw_id, colon, raw_secret = pair.partition(":")
        client_id = unquote_plus(raw_id, errors="strict")
        client_secret = unquote_plus(raw_secret, errors="strict")
    except ValueError:
        raise _refused(
            "The Basic credentials cannot be decoded (RFC 6749 section 2.3.1)."
        ) from None
    if not colon:
        raise _refused("The Basic credentials have no colon.")
    client = state.clients.get(client_id)
    if client is not None and _same(client.client_secret, client_secret):
        return client
    plain = state.clients.get(raw_id)
    if plain is not None and _same(plain.client_secret, raw_secret):
        if state.rules.lenient:
            return plain
        raise _refused("Id and secret must be form-encoded before Basic (RFC 6749 section 2.3.1).")
    raise _refused("The client's id or secret is wrong.")


def _post(state: State, form: Mapping[str, str]) -> Client:
    client = state.clients.get(form.get("client_id", ""))
    if client is None or not _same(client.client_secret, form["client_secret"]):
        raise _refused("The client's id or secret is wrong.")
    return client


def _private_key_jwt(state: State, form: Mapping[str, str]) -> Client:
    if form.get("client_assertion_type") != ASSERTION_TYPE:
        raise Refused("invalid_request", f"client_assertion_type must be {ASSERTION_TYPE}.")
    assertion = form.get("client_assertion", "")
    client = state.clients.get(unverified_issuer(assertion) or "")
    if client is None:
        raise _refused("The client assertion is from nobody that is known here.")
    try:
        client_assertion(state, assertion, client)
    except Unacceptable as error:
        raise _refused(f"The client assertion is refused: {error}.") from None
    return client


def _same(registered: str | None, given: str) -> bool:
    return registered is not None and hmac.compare_digest(registered.encode(), given.encode())


def _refused(description: str) -> Refused:
    return Refused(
        "invalid_client",
        description,
        status=401,
        headers={"www-authenticate": 'Basic realm="authserver"'},
    )
