"""Authentication by bearer token, and the handler that words what permissions refuse."""

from __future__ import annotations

from traceback import walk_tb
from typing import Any

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import APIException, ErrorDetail, NotAuthenticated, PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response

from django_baikal.authentication import ANSWERED, attach, authenticate_request, log_outage
from django_baikal.contrib.rest_framework.permissions import Lack, lack_of
from django_baikal.exceptions import BaikalError
from django_baikal.handler import clients
from django_baikal.protocol.bearer import TokenInfo, answer


class BearerError(APIException):
    """Answers a request whose token ``error`` is about, or None if it has none.

    It brings its own status and header: those of the first class of the view are for others.
    """

    def __init__(self, error: BaikalError | None, using: str) -> None:
        found = answer(error, clients[using].config.realm)
        self.status_code = found.status
        self.headers = found.headers
        self.auth_header = found.headers.get("WWW-Authenticate")
        error_code = found.body["error"]
        self.detail = {
            "detail": ErrorDetail(found.body["error_description"], error_code),
            "code": ErrorDetail(error_code, error_code),
        }


class IntrospectionAuthentication(BaseAuthentication):
    """Authenticates requests with ``Authorization: Bearer``; name it first of the classes.

    ``request.user`` is the token's user, and ``request.auth`` its ``TokenInfo``. ``using``: the
    alias of BAIKAL; ``fresh``: ask the authserver for each request.
    """

    using = "default"
    fresh = False

    def authenticate(self, request: Request) -> tuple[Any, TokenInfo] | None:
        """Give the principal and what is known of the token; None for other credentials."""
        inner = request._request
        headers = _headers_of(request)
        try:
            principal = authenticate_request(inner, using=self.using, fresh=self.fresh)
        except ANSWERED as error:
            problem = BearerError(error, self.using)
            headers.update(problem.headers)
        else:
            if principal is None:
                return None
            attach(inner, principal)
            return principal, principal.baikal_token
        raise problem

    def authenticate_header(self, request: Request) -> str:  # noqa: ARG002 - the framework's name
        """Give the challenge for a request without credentials, which makes its answer a 401."""
        return answer(None, clients[self.using].config.realm).headers["WWW-Authenticate"]


def _headers_of(request: Request) -> dict[str, str]:
    """Give the headers that the view adds to its response, and let no cache mix up tokens."""
    view = (request.parser_context or {}).get("view")
    headers: dict[str, str] = getattr(view, "headers", {})
    names = [name.strip() for name in headers.get("Vary", "").split(",")]
    headers["Vary"] = ", ".join(dict.fromkeys([*filter(None, names), "Authorization"]))
    return headers


def exception_handler(exc: Exception, context: dict[str, Any]) -> Response | None:
    """Answer for ``REST_FRAMEWORK["EXCEPTION_HANDLER"]``: what a permission of ours has refused.

    It says what the token lacks (RFC 6750 section 3.1, RFC 9470), or that there is none; all else
    is the framework's.
    """
    # Not before: it imports the classes that the settings name, and they are in this module.
    from rest_framework.views import exception_handler as default_handler

    if isinstance(exc, PermissionDenied):
        lack = _lack(exc)
        exc = exc if lack is None else BearerError(*lack)
    elif isinstance(exc, NotAuthenticated):
        request = context["request"]
        for ours in request.authenticators:
            if isinstance(ours, IntrospectionAuthentication):
                # Another challenge is that of another class, which is named first.
                if getattr(exc, "auth_header", None) in (None, ours.authenticate_header(request)):
                    exc = BearerError(None, ours.using)
                break
    response = default_handler(exc, context)
    if isinstance(exc, BearerError):
        log_outage(context["request"], response)
    return response


def _lack(exc: PermissionDenied) -> Lack | None:
    """Give what the token lacks for the permission that was denied, if that is one of ours.

    The framework tells nobody which one it was: only its own loop over them knows.
    """
    for frame, _ in walk_tb(exc.__traceback__):
        # The first of that name may be a view's own, which has called the framework's.
        if frame.f_code.co_name in ("check_permissions", "check_object_permissions"):
            lack = lack_of(frame.f_locals.get("permission"))
            if lack is not None:
                return lack
    return None
