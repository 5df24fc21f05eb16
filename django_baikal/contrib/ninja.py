"""Bearer tokens for Django Ninja: ``BaikalBearer``, for its operations, routers and whole APIs."""

from __future__ import annotations

import sys
from collections.abc import Coroutine, Generator, Iterable
from inspect import CO_COROUTINE
from types import FrameType
from typing import Any

from django.http import HttpRequest, HttpResponse
from ninja.errors import HttpError
from ninja.operation import Operation
from ninja.security.base import AuthBase, SecuritySchema

from django_baikal.authentication import (
    ANSWERED,
    aauthenticate_request,
    attach,
    authenticate_request,
    respond,
)
from django_baikal.exceptions import BaikalError
from django_baikal.handler import clients
from django_baikal.protocol.bearer import Requirement, TokenInfo, answer
from django_baikal.protocol.messages import Names
from django_baikal.protocol.metadata import openid_configuration_url


class BearerError(HttpError):
    """Answers a request whose token ``error`` is about, or None if it has none.

    ``response``: as the other doors answer it. An API that has no handler for this class gets one.
    """

    def __init__(self, request: HttpRequest, error: BaikalError | None, using: str) -> None:
        self.response: HttpResponse = respond(request, error, using)
        found = answer(error, clients[using].config.realm)
        super().__init__(found.status, found.body["error_description"])


class BaikalBearer(AuthBase):
    """Lets requests with a good bearer token in: for ``auth=``, of sync and async operations.

    The arguments are those of ``token_required``. ``request.user`` is the token's user, and
    ``request.auth`` its ``TokenInfo``. A request without a token is for the next of a list; one
    whose token is not good is answered, and no other is asked. Name it first: what comes before it
    may let in whoever has a cookie. Raises ConfigurationError for what cannot be asked of a token.
    """

    #: For Ninja, which then calls this in an event loop: see ``__call__``.
    is_async = True

    def __init__(  # Ninja's own would read the settings, to describe itself
        self,
        scopes: Names = (),
        purposes: Names = (),
        *,
        any_of: Iterable[Names] | None = None,
        acr: Names = None,
        fresh: bool = False,
        using: str = "default",
    ) -> None:
        self.requirement = Requirement.of(scopes, purposes, any_of, acr)
        self.fresh, self.using = fresh, using

    @property
    def openapi_security_schema(self) -> SecuritySchema:  # type: ignore[override]
        """Describe it by the authserver's metadata, which has all its URLs, without reading them.

        Ninja calls it by the class: give each alias a subclass, if there are several in one API.
        """
        url = openid_configuration_url(clients[self.using].config)
        return SecuritySchema("openIdConnect", openIdConnectUrl=url)

    def __call__(self, request: HttpRequest) -> Any:
        """Give the ``TokenInfo``, or None; to a coroutine something to await instead.

        Raises BearerError.
        """
        if "HTTP_AUTHORIZATION" not in request.META and "Authorization" in request.headers:
            # Ninja's test client spells the name as the test does.
            request.META["HTTP_AUTHORIZATION"] = request.headers["Authorization"]
        awaits, operation = _caller()
        if awaits:
            return _Pending(self._acall(request, operation))
        try:
            principal = authenticate_request(request, using=self.using, fresh=self.fresh)
            return self._admitted(request, principal, operation)
        except ANSWERED as error:
            raise _refusal(request, error, self.using, operation) from None

    async def _acall(self, request: HttpRequest, operation: Operation | None) -> TokenInfo | None:
        try:
            principal = await aauthenticate_request(request, using=self.using, fresh=self.fresh)
            return self._admitted(request, principal, operation)
        except ANSWERED as error:
            raise _refusal(request, error, self.using, operation) from None

    def _admitted(
        self, request: HttpRequest, principal: Any, operation: Operation | None
    ) -> TokenInfo | None:
        if principal is None:
            if operation is not None and operation.auth_callbacks[-1] is self:
                raise _refusal(request, None, self.using, operation)
            return None
        token: TokenInfo = principal.baikal_token
        self.requirement.check(token)
        attach(request, principal)
        # The response is not ours, to say in it whom it is for: Django keeps it for nobody.
        request._cache_update_cache = False  # type: ignore[attr-defined]  # of UpdateCacheMiddleware
        return token


class _Pending:
    """What a coroutine awaits. A bare coroutine would be true, and let in whom nobody has asked."""

    def __init__(self, coroutine: Coroutine[Any, Any, TokenInfo | None]) -> None:
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, TokenInfo | None]:
        return self._coroutine.__await__()

    def __bool__(self) -> bool:
        self._coroutine.close()
        raise TypeError("BaikalBearer is called by a coroutine, which has to await it.")


def _caller() -> tuple[bool, Operation | None]:
    """Tell whether a coroutine asks, and for which operation, which Ninja passes to nobody."""
    frame: FrameType | None = sys._getframe(2)
    awaits = False
    while frame is not None:
        awaits = awaits or bool(frame.f_code.co_flags & CO_COROUTINE)
        if frame.f_code.co_name == "_run_authentication":
            found = frame.f_locals.get("self")
            return awaits, found if isinstance(found, Operation) else None
        frame = frame.f_back
    return awaits, None


def _refusal(
    request: HttpRequest, error: BaikalError | None, using: str, operation: Operation | None
) -> BearerError:
    """Make the error, and let the API of the operation know how to answer it."""
    if operation is not None and BearerError not in operation.api._exception_handlers:
        operation.api.add_exception_handler(BearerError, _answered)
    return BearerError(request, error, using)


def _answered(request: HttpRequest, error: Any) -> HttpResponse:  # noqa: ARG001 - Ninja's
    response: HttpResponse = error.response
    return response
