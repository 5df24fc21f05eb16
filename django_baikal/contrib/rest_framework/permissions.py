"""Permissions by what a token may do; they compose with ``&``, ``|`` and ``~``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from rest_framework.permissions import NOT, SAFE_METHODS, BasePermission
from rest_framework.request import Request

from django_baikal.exceptions import ConfigurationError, TokenError
from django_baikal.protocol.bearer import Requirement, TokenInfo

if TYPE_CHECKING:
    from rest_framework.views import APIView

#: What a token lacks, and the alias of the door.
Lack: TypeAlias = tuple[TokenError, str]


def token_of(request: Request) -> TokenInfo | None:
    """Give what is known of the token that a request was let in by; None for other credentials."""
    if isinstance(request.auth, TokenInfo):
        return request.auth
    # The middleware's user, whom SessionAuthentication has passed on.
    token: TokenInfo | None = getattr(request.user, "baikal_token", None)
    return token


class TokenPermission(BasePermission):
    """What the permissions by token have in common."""

    lack: Lack | None = None

    def requirement(self, request: Request, view: Any) -> Requirement:
        """Give what the view asks of a token; raise ConfigurationError if it does not say."""
        raise NotImplementedError  # pragma: no cover: each class below has its own

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Tell whether the token will do; remember what it lacks, for ``exception_handler``."""
        requirement = self.requirement(request, view)
        token = token_of(request)
        if token is None:
            return False
        try:
            requirement.check(token)
        except TokenError as error:
            # In no way raised: then "|" would not ask the other one.
            self.lack = error, getattr(request.successful_authenticator, "using", token.alias)
            return False
        return True

    def has_object_permission(self, request: Request, view: APIView, obj: Any) -> bool:  # noqa: ARG002
        """Tell the same: "~" turns around this answer as well."""
        return self.has_permission(request, view)


class TokenHasScope(TokenPermission):
    """Needs the scopes that the view says in ``required_scopes``.

    A string (``"read write"``) or a list (``["read", "write"]``): all of them. A list of lists:
    one of these. A dict: one of the above by action or by method (``{"list": "read", "POST":
    "write"}``); HEAD is as GET, and OPTIONS needs nothing if it is not named.
    """

    def requirement(self, request: Request, view: Any) -> Requirement:
        """Make it of ``required_scopes``."""
        wanted = _of(view, "required_scopes")
        if isinstance(wanted, Mapping):
            wanted = _by_action(wanted, request, view)
        if isinstance(wanted, str):
            return Requirement.of(wanted)
        if isinstance(wanted, list | tuple | set | frozenset):
            texts = [isinstance(each, str) for each in wanted]
            if all(texts):
                return Requirement.of(wanted)
            if not any(texts):
                return Requirement.of(any_of=wanted)
        raise ConfigurationError(
            f"{type(view).__name__}: required_scopes must be a string, a list of strings, a list "
            "of lists, or a dict of these."
        )


class TokenHasReadWriteScope(TokenPermission):
    """Needs ``read`` for safe methods and ``write`` for others, and ``required_scopes`` if any.

    The view may name other scopes in ``read_scope`` and ``write_scope``.
    """

    def requirement(self, request: Request, view: Any) -> Requirement:
        """Make it of the method."""
        kind = "read" if request.method in SAFE_METHODS else "write"
        scope = getattr(view, f"{kind}_scope", kind)
        if getattr(view, "required_scopes", None) is None:
            return Requirement.of(scope)
        also = TokenHasScope().requirement(request, view)
        return replace(also, scopes=Requirement.of(scope).scopes + also.scopes)


class TokenHasPurpose(TokenPermission):
    """Needs the purposes that the view says in ``required_purposes``: a string or a list."""

    def requirement(self, request: Request, view: Any) -> Requirement:  # noqa: ARG002
        """Make it of ``required_purposes``."""
        return Requirement.of(purposes=_of(view, "required_purposes"))


class TokenHasAcr(TokenPermission):
    """Needs an authentication as strong as the view says in ``required_acr``."""

    def requirement(self, request: Request, view: Any) -> Requirement:  # noqa: ARG002
        """Make it of ``required_acr``."""
        return Requirement.of(acr=_of(view, "required_acr"))


#: What a view with such a permission has to say.
NEEDS: dict[type, str] = {
    TokenHasScope: "required_scopes",
    TokenHasPurpose: "required_purposes",
    TokenHasAcr: "required_acr",
}


def _of(view: Any, name: str) -> Any:
    value = getattr(view, name, None)
    if value is None:
        raise ConfigurationError(f"{type(view).__name__} needs {name}, for its permissions.")
    return value


def _by_action(wanted: Mapping[str, Any], request: Request, view: Any) -> Any:
    method = str(request.method)
    action = getattr(view, "action", None)
    if action == "metadata" and method != "OPTIONS":
        # An answer to OPTIONS asks what else is allowed, and says so by the request alone.
        action = view.action_map.get(method.lower())
    for name in (action, method, "GET" if method == "HEAD" else method):
        if name is not None and name in wanted:
            return wanted[name]
    if method == "OPTIONS" or method not in view.allowed_methods:
        return ()  # for the view to answer 405
    raise ConfigurationError(f"{type(view).__name__}: required_scopes says nothing of {method}.")


def lack_of(permission: Any) -> Lack | None:
    """Give what the token lacks for ``permission``, which was denied, or for an operand of it."""
    if permission is None or isinstance(permission, NOT):
        return None
    operands = (getattr(permission, name, None) for name in ("op1", "op2"))
    return getattr(permission, "lack", None) or next(filter(None, map(lack_of, operands)), None)
