"""Every operation of the client, written once; policy for caches and retries lives here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from django_baikal.exceptions import ConfigurationError, InvalidResponse, TokenError
from django_baikal.protocol import client_auth, grants, introspection
from django_baikal.protocol.authorization import (
    AuthorizationRequest,
    authorization_parameters,
    authorization_url,
    code_challenge,
)
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.discovery import metadata
from django_baikal.protocol.effects import Fetch, Flow, Now, RandomToken, Response, Sign
from django_baikal.protocol.id_token import verify_id_token
from django_baikal.protocol.messages import (
    SENSITIVE_FIELDS,
    Names,
    extra_headers,
    form_request,
    names,
    text,
)

logger = logging.getLogger("django_baikal.client")

Headers = Mapping[str, str] | None


def _post(
    config: ClientConfig,
    endpoint: str,
    form: list[tuple[str, str]],
    headers: Headers,
    process: Callable[..., Any],
    *,
    sensitive: tuple[str, ...] = (),
    **expected: Any,
) -> Flow[Any]:
    """Post ``form`` to ``endpoint`` as this client; give what ``process`` makes of the answer."""
    checked = extra_headers(headers)
    server = yield from metadata(config, endpoint)
    url = server.endpoint(config, endpoint)
    who = yield from client_auth.credentials(config, server, endpoint)
    response: Response = yield Fetch(
        form_request(url, form + who.fields, {**checked, **who.headers}),
        endpoint.removesuffix("_endpoint"),
    )
    now = yield Now()
    secrets = tuple(value for name, value in form if name in SENSITIVE_FIELDS)
    return process(
        response, url, wall=now.wall, sensitive=secrets + who.sensitive + sensitive, **expected
    )


def _grant(
    config: ClientConfig,
    form: list[tuple[str, str]],
    headers: Headers,
    *,
    scopes: tuple[str, ...] = (),
    sensitive: tuple[str, ...] = (),
) -> Flow[dict[str, Any]]:
    answer: dict[str, Any] = yield from _post(
        config,
        "token_endpoint",
        form,
        headers,
        grants.process_token_response,
        sensitive=sensitive,
        scopes=scopes,
    )
    missing = set(scopes).difference((answer.get("scope") or "").split())
    if missing:
        logger.warning(
            "BAIKAL[%r]: the authserver granted less than was asked for; missing scopes: %s",
            config.alias,
            " ".join(sorted(missing)),
        )
    return answer


def _scope_fields(scopes: tuple[str, ...], purposes: tuple[str, ...]) -> list[tuple[str, str]]:
    fields = (("scope", scopes), ("purpose", purposes))
    return [(name, " ".join(value)) for name, value in fields if value]


def grant_client(
    config: ClientConfig, scopes: Names, purposes: Names, headers: Headers
) -> Flow[dict[str, Any]]:
    """Get a token for the client itself (RFC 6749 section 4.4)."""
    wanted = names(scopes, "scopes")
    form = [("grant_type", "client_credentials")]
    form += _scope_fields(wanted, names(purposes, "purposes"))
    return (yield from _grant(config, form, headers, scopes=wanted))


def grant_user(
    config: ClientConfig,
    sub: str,
    scopes: Names,
    purposes: Names,
    extra: Mapping[str, Any],
    headers: Headers,
) -> Flow[dict[str, Any]]:
    """Get a token for the user ``sub`` with an assertion that we sign (RFC 7523 section 2.1)."""
    text(sub, "sub")
    if not config.issuer:
        raise ConfigurationError(
            f"BAIKAL[{config.alias!r}]: set ISSUER; it is who signs the assertion of a user grant."
        )
    wanted = names(scopes, "scopes")
    extra_headers(headers)
    server = yield from metadata(config, "token_endpoint")
    now = yield Now()
    jti = yield RandomToken(16)
    claims = grants.assertion_claims(
        config,
        audience=client_auth.assertion_audience(config, server),
        now=now,
        jti=jti,
        subject=sub,
        scopes=wanted,
        purposes=names(purposes, "purposes"),
        extra=extra,
    )
    assertion = yield Sign(claims)
    form = [("grant_type", grants.JWT_BEARER), ("assertion", assertion)]
    sensitive = grants.sensitive_values(sub, extra)
    return (yield from _grant(config, form, headers, scopes=wanted, sensitive=sensitive))


def grant_code(
    config: ClientConfig,
    code: str,
    redirect_uri: str,
    code_verifier: str | None,
    nonce: str | None,
    headers: Headers,
) -> Flow[dict[str, Any]]:
    """Get a token for an authorization code (RFC 6749 section 4.1.3, RFC 7636 section 4.5)."""
    form = [
        ("grant_type", "authorization_code"),
        ("code", text(code, "code")),
        ("redirect_uri", text(redirect_uri, "redirect_uri")),
    ]
    if code_verifier is not None:
        form.append(("code_verifier", text(code_verifier, "code_verifier")))
    if nonce is not None:
        text(nonce, "nonce")
    answer = yield from _grant(config, form, headers)
    id_token = answer.get("id_token")
    if id_token is None and nonce is not None:
        raise InvalidResponse("The authserver sent no id token, and a nonce has to be checked.")
    if id_token is not None:
        try:
            yield from verify_id_token(config, id_token, nonce, None, answer["access_token"])
        except TokenError as error:
            raise InvalidResponse(
                f"The authserver's answer is refused for its id token: {error}",
                code="id_token_refused",
            ) from error
    return answer


def refresh(
    config: ClientConfig, refresh_token: str, scopes: Names, headers: Headers
) -> Flow[dict[str, Any]]:
    """Get a new token for a refresh token (RFC 6749 section 6)."""
    wanted = names(scopes, "scopes")
    form = [
        ("grant_type", "refresh_token"),
        ("refresh_token", text(refresh_token, "refresh_token")),
    ]
    return (yield from _grant(config, form + _scope_fields(wanted, ()), headers, scopes=wanted))


def introspect(config: ClientConfig, access_token: str, headers: Headers) -> Flow[dict[str, Any]]:
    """Ask the authserver about a token (RFC 7662 section 2)."""
    form = [("token", text(access_token, "access_token"))]
    answer: dict[str, Any] = yield from _post(
        config,
        "introspection_endpoint",
        form,
        headers,
        introspection.process_introspection_response,
    )
    return answer


def revoke(
    config: ClientConfig, token: str, token_type_hint: str | None, headers: Headers
) -> Flow[None]:
    """Tell the authserver that a token is not needed any more (RFC 7009 section 2.1)."""
    form = [("token", text(token, "token"))]
    if token_type_hint is not None:
        form.append(("token_type_hint", text(token_type_hint, "token_type_hint")))
    yield from _post(
        config, "revocation_endpoint", form, headers, introspection.process_revocation_response
    )


def authorize(
    config: ClientConfig,
    scopes: Names,
    purposes: Names,
    redirect_uri: str | None,
    extra: Mapping[str, Any],
) -> Flow[str]:
    """Make the URL of an authorization request (RFC 6749 section 4.1.1)."""
    parameters = authorization_parameters(config, scopes, purposes, redirect_uri, extra)
    server = yield from metadata(config, "authorization_endpoint")
    return authorization_url(server.endpoint(config, "authorization_endpoint"), parameters)


def start_authorization(
    config: ClientConfig,
    redirect_uri: str,
    scopes: Names,
    purposes: Names,
    extra: Mapping[str, Any],
) -> Flow[AuthorizationRequest]:
    """Make an authorization request with fresh state, nonce and PKCE verifier, 256 bits each."""
    own = {"state", "nonce", "code_challenge", "code_challenge_method"} & {*extra}
    if own:
        raise ConfigurationError(f"start_authorization makes {', '.join(sorted(own))} itself.")
    state = yield RandomToken()
    nonce = yield RandomToken()
    verifier = yield RandomToken()
    made = {
        "state": state,
        "nonce": nonce,
        "code_challenge": code_challenge(verifier),
        "code_challenge_method": "S256",
    }
    url = yield from authorize(config, scopes, purposes, redirect_uri, {**extra, **made})
    return AuthorizationRequest(url, state, nonce, verifier)
