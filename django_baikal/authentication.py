"""The engine behind every door: from a token, or a request, to a principal or an answer."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import BadRequest, SuspiciousOperation
from django.http import HttpRequest, JsonResponse, QueryDict, RawPostDataException
from django.http.request import UnreadablePostError
from django.http.response import HttpResponseBase
from django.utils.cache import patch_vary_headers
from django.utils.log import log_response
from django.utils.module_loading import import_string
from django.views.decorators.debug import sensitive_variables

from django_baikal import signals
from django_baikal.client import OpenIDClient
from django_baikal.exceptions import (
    AuthserverError,
    BaikalError,
    ConfigurationError,
    InvalidRequest,
    KeyStoreError,
    TokenError,
)
from django_baikal.handler import clients
from django_baikal.principals import principal_of
from django_baikal.protocol import bearer
from django_baikal.protocol.access_token import claimed_issuer
from django_baikal.protocol.authenticate import overrides
from django_baikal.protocol.bearer import TokenInfo

R = TypeVar("R", bound=HttpResponseBase)

logger = logging.getLogger("django_baikal.bearer")

#: How often the same trouble with our own keys is logged, in seconds.
REPEAT = 60.0
_logged_at: dict[str, float] = {}

#: The errors that a door answers: the bearer's, and those for which no token can be checked now.
#: All others are the project's own.
ANSWERED = (TokenError, AuthserverError, KeyStoreError)


class _Token(str):
    """A token that no page for DEBUG shows among the variables."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


@sensitive_variables()
def authenticate(
    token: str, *, using: str = "default", fresh: bool = False, request: Any = None
) -> Any:
    """Give the principal that a bearer token speaks for.

    A ``TokenUser`` or ``ServicePrincipal``, or a copy of what USER_RESOLVER gives; the
    ``TokenInfo`` is its ``baikal_token``. ``fresh``: see ``OpenIDClient.authenticate``. ``request``
    goes to the receivers of the signals. Raises a TokenError for a token that is not good,
    AuthserverError or KeyStoreError if that cannot be found out, and ConfigurationError.
    """
    return _authenticated(token, using, fresh, request)


def _authenticated(token: str, using: str, fresh: bool, request: Any) -> Any:
    # Whoever calls this is marked with sensitive_variables, which covers all that is called.
    try:
        client = clients[using]
        if (pick := _authserver_resolver(client)) is not None:
            using = _picked(_sync(pick)(request, claimed_issuer(token)), using)
            client = clients[using]
        info = client.authenticate(token, fresh=fresh)
        if (resolve := _user_resolver(client, info)) is None:
            user: Any = principal_of(info)
        else:
            user = _mapped(_sync(resolve)(info), info)
    except ANSWERED as error:
        for signal, named in _told(error, token, using):
            signal.send_robust(OpenIDClient, request=request, **named)
        raise
    if signals.token_validated.receivers:
        signals.token_validated.send_robust(OpenIDClient, request=request, token=info)
    return user


@sensitive_variables()
async def aauthenticate(
    token: str, *, using: str = "default", fresh: bool = False, request: Any = None
) -> Any:
    """``authenticate`` as a coroutine."""
    try:
        client = clients[using]
        if (pick := _authserver_resolver(client)) is not None:
            using = _picked(await _async(pick)(request, claimed_issuer(token)), using)
            client = clients[using]
        info = await client.aauthenticate(token, fresh=fresh)
        if (resolve := _user_resolver(client, info)) is None:
            user: Any = principal_of(info)
        else:
            user = _mapped(await _async(resolve)(info), info)
    except ANSWERED as error:
        for signal, named in _told(error, token, using):
            await signal.asend_robust(OpenIDClient, request=request, **named)
        raise
    if signals.token_validated.receivers:
        await signals.token_validated.asend_robust(OpenIDClient, request=request, token=info)
    return user


def _authserver_resolver(client: OpenIDClient) -> Callable[..., Any] | None:
    """Give what picks the authserver of a request, if there is such a choice."""
    config = client.config
    if not config.authserver_resolver or config.alias in overrides:
        return None
    return _imported(config.authserver_resolver, config.alias, "AUTHSERVER_RESOLVER")


def _picked(alias: Any, using: str) -> str:
    """Give the alias that was picked, if it is one: what a token says of itself picks no other."""
    if alias is None:
        raise TokenError("No authserver is for this token.", code="unknown_authserver")
    if alias not in list(clients):
        logger.error("BAIKAL[%r]: AUTHSERVER_RESOLVER gave what is no alias of BAIKAL.", using)
        raise TokenError("No authserver is for this token.", code="unknown_authserver")
    return str(alias)


def _user_resolver(client: OpenIDClient, info: TokenInfo) -> Callable[..., Any] | None:
    """Give what finds the Django user of a token; nothing else than its subject names one."""
    path = client.config.user_resolver
    if not path or info.subject in (None, info.client_id):
        return None
    return _imported(path, info.alias, "USER_RESOLVER")


def _imported(path: str, alias: str, name: str) -> Callable[..., Any]:
    try:
        found: Callable[..., Any] = import_string(path)
    except ImportError as error:
        raise ConfigurationError(f"BAIKAL[{alias!r}]: {name} cannot be imported: {error}") from None
    return found


def _sync(function: Callable[..., Any]) -> Callable[..., Any]:
    return async_to_sync(function) if iscoroutinefunction(function) else function


def _async(function: Callable[..., Any]) -> Callable[..., Any]:
    return function if iscoroutinefunction(function) else sync_to_async(function)


def _mapped(user: Any, info: TokenInfo) -> Any:
    if user is None:
        raise TokenError("The token's user is not known here.", code="unknown_user")
    if not hasattr(user, "is_active"):
        raise ConfigurationError(
            f"BAIKAL[{info.alias!r}]: USER_RESOLVER must give a user or None, and has given a "
            f"{type(user).__name__}."
        )
    if not user.is_active:
        raise TokenError("The token's user is deactivated.", code="inactive_user")
    # A resolver may give the same object to two requests, and their tokens may differ.
    user = copy.copy(user)
    user.baikal_token = info
    return user


def _told(error: BaikalError, token: str, using: str) -> list[tuple[Any, dict[str, Any]]]:
    """Log an error; give the signal for it with its arguments."""
    fingerprint = bearer.fingerprint(token)
    named = {"error": error, "fingerprint": fingerprint, "using": using}
    if isinstance(error, TokenError):
        logger.info("BAIKAL[%r]: token %s is refused: %s", using, fingerprint, error)
        return [(signals.token_rejected, named)]
    logger.info("BAIKAL[%r]: token %s cannot be checked: %s", using, fingerprint, error)
    now = time.monotonic()
    if isinstance(error, KeyStoreError) and now - _logged_at.get(using, -REPEAT) >= REPEAT:
        _logged_at[using] = now
        logger.error("BAIKAL[%r]: no bearer token can be checked: %s", using, error)
    return [(signals.authserver_unavailable, named)]


# -- requests -------------------------------------------------------------------------------------


@sensitive_variables()
def token_of(request: HttpRequest, using: str = "default") -> str | None:
    """Give the bearer token of a request, from its one place (RFC 6750 section 2.1), unchecked.

    None without one. Raises InvalidRequest if there are two, or one somewhere else too. ``using``:
    the alias, for tests with ``override_token``.
    """
    return _token_of(request, using)


def _token_of(request: HttpRequest, using: str) -> str | None:
    # As above.
    token = bearer.bearer_token(request.META.get("HTTP_AUTHORIZATION") or _assumed(using))
    if token is None:
        return None
    # Most requests have no query, and taking none apart costs as much as all the rest here.
    asked = request.META.get("QUERY_STRING") and "access_token" in request.GET
    if asked or _in_form(request):
        raise InvalidRequest("The request has a token in more than one place.")
    return _Token(token)


def _assumed(using: str) -> str:
    """Give the header of a request without one: none, but for ``override_token``."""
    return f"Bearer {overrides[using].token}" if using in overrides else ""


def _in_form(request: HttpRequest) -> bool:
    # Only such a form may carry one (section 2.2), and of others nothing is read before the view.
    if request.content_type != "application/x-www-form-urlencoded":
        return False
    try:
        form = request.POST if request.method == "POST" else QueryDict(request.body)
    except (SuspiciousOperation, BadRequest, RawPostDataException, UnreadablePostError):
        # Too large, or read by somebody else: the view meets that as well, if it wants the form.
        return False
    return "access_token" in form


@sensitive_variables()
def authenticate_request(
    request: HttpRequest, *, using: str = "default", fresh: bool = False
) -> Any:
    """Give the principal of a request's bearer token, or None if it carries none.

    Asked again for the same request it gives the same, unless ``fresh``.
    """
    known = _known(request, using, fresh)
    if known is None and (token := _token_of(request, using)) is not None:
        known = _authenticated(token, using, fresh, request)
        _remember(request, using, known)
    return known


@sensitive_variables()
async def aauthenticate_request(
    request: HttpRequest, *, using: str = "default", fresh: bool = False
) -> Any:
    """``authenticate_request`` as a coroutine."""
    known = _known(request, using, fresh)
    if known is None and (token := token_of(request, using)) is not None:
        known = await aauthenticate(token, using=using, fresh=fresh, request=request)
        _remember(request, using, known)
    return known


def _known(request: HttpRequest, using: str, fresh: bool) -> Any:
    header, principal = getattr(request, "_baikal", {}).get(using, (None, None))
    # A view may have made one request of another: the copy shares all this, and has its own token.
    same = not fresh and header == request.META.get("HTTP_AUTHORIZATION")
    return principal if same else None


def _remember(request: HttpRequest, using: str, principal: Any) -> None:
    found = request.META.get("HTTP_AUTHORIZATION"), principal
    request.__dict__.setdefault("_baikal", {})[using] = found


def attach(request: Any, principal: Any) -> None:
    """Let ``request.user`` be the principal, and take the session away.

    A session belongs to whoever has the cookie, who need not be whoever has the token. CSRF is no
    danger, for no browser adds a token by itself.
    """

    async def auser() -> Any:
        return principal

    request.user, request.auser, request.auth = principal, auser, principal.baikal_token
    # A method of REST framework's views has a request around that of the middleware.
    inner = getattr(request, "_request", request)
    inner._dont_enforce_csrf_checks = True
    # SessionMiddleware would take the cookie, with no session to it, for that of a logout.
    if "HTTP_COOKIE" in inner.META or "COOKIES" in vars(inner):
        inner.COOKIES.pop(settings.SESSION_COOKIE_NAME, None)
    if hasattr(inner, "session") and not isinstance(inner.session, _NoSession):
        inner.session = _NoSession()


class _NoSession(SessionBase):
    """A session that begins without a key, so that nothing is loaded, and ends with the request."""

    def is_empty(self) -> bool:
        """Tell SessionMiddleware, always, that there is nothing to save."""
        return True

    def save(self, must_create: bool = False) -> None:  # noqa: ARG002 - Django's name
        if self.session_key is None:
            self.create()

    def create(self) -> None:
        # Who makes one asks for its key then: None would be the same for all bearers.
        this: Any = self  # the stubs leave out what backends are made of
        this._get_session(no_load=True)
        this._session_key = this._get_new_session_key()

    def delete(self, session_key: str | None = None) -> None:
        pass

    def exists(self, session_key: str) -> bool:  # noqa: ARG002 - Django's name
        return False


def respond(
    request: HttpRequest, error: BaikalError | None, using: str = "default"
) -> JsonResponse:
    """Answer a request whose token ``error`` is about, or None if it has none (RFC 6750)."""
    found = bearer.answer(error, clients[using].config.realm)
    response = JsonResponse(found.body, status=found.status, headers=found.headers)
    log_outage(request, response)
    return vary(response)


def log_outage(request: HttpRequest, response: Any) -> None:
    """Make of a 503 a warning: Django would mail an error to the admins for each."""
    if response.status_code == 503:
        words = response.reason_phrase, request.path
        log_response("%s: %s", *words, response=response, request=request, level="warning")


def vary(response: R) -> R:
    """Let no cache give the response to a request with another token."""
    if "Vary" in response.headers:
        patch_vary_headers(response, ["Authorization"])
    else:
        response.headers["Vary"] = "Authorization"
    return response


def is_async(view: Any) -> bool:
    """Tell whether calling ``view`` gives a coroutine, also if it is a view's bound dispatch.

    Other decorators may be around that one, and say nothing of coroutines.
    """
    if iscoroutinefunction(view):
        return True
    while view is not None:
        owner = getattr(getattr(view, "func", view), "__self__", None)
        if getattr(owner, "view_is_async", False):
            return True
        view = getattr(view, "__wrapped__", None)
    return False
