"""``token_required``: a view for bearers of a good token; and a mixin for class-based views."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from typing import Any, ClassVar, TypeVar, cast, overload

from django.http import HttpRequest, HttpResponse

from django_baikal.authentication import (
    ANSWERED,
    aauthenticate_request,
    attach,
    authenticate_request,
    is_async,
    respond,
    vary,
)
from django_baikal.exceptions import ConfigurationError
from django_baikal.protocol.bearer import Requirement
from django_baikal.protocol.messages import Names

V = TypeVar("V", bound=Callable[..., Any])


@overload
def token_required(scopes: V, /) -> V: ...


@overload
def token_required(
    scopes: Names = (),
    purposes: Names = (),
    *,
    any_of: Iterable[Names] | None = None,
    acr: Names = None,
    fresh: bool = False,
    optional: bool = False,
    using: str = "default",
) -> _Gate: ...


def token_required(
    scopes: Names | Callable[..., Any] = (),
    purposes: Names = (),
    *,
    any_of: Iterable[Names] | None = None,
    acr: Names = None,
    fresh: bool = False,
    optional: bool = False,
    using: str = "default",
) -> Any:
    """Let a view, sync or async, be called with a good bearer token only.

    ``scopes``, ``purposes``: all of them are needed. ``any_of``: sets of scopes, of which one has
    to be complete (``["read", "admin audit"]``). ``acr``: how the user must have authenticated; of
    whole numbers, a higher one will do. ``fresh``: the authserver is asked for each request.
    ``optional``: without a token the view is called as well, with ``request.user`` as it was, and
    CSRF is checked as for any view: a POST with a token needs the middleware there.
    ``using``: the alias of BAIKAL. The view finds the token's user as ``request.user``, and its
    ``TokenInfo`` as ``request.auth``.

    What is wrong is answered 400, 401, 403 or 503 (RFC 6750, RFC 9470); works with and without the
    middleware. Raises ConfigurationError for what cannot be asked of a token.
    """
    if callable(scopes):
        return token_required()(scopes)
    return _Gate(Requirement.of(scopes, purposes, any_of, acr), fresh, optional, using)


@dataclass(frozen=True, slots=True)  # no tuple: method_decorator would take it for decorators
class _Gate:
    requirement: Requirement
    fresh: bool
    optional: bool
    using: str

    def __call__(self, view: V) -> V:
        """Give ``view`` behind the gate."""
        if isinstance(view, type) or not callable(view):
            raise ConfigurationError(
                f"token_required needs a view that is a function, and not {view!r}; for a class "
                'there is TokenRequiredMixin, or method_decorator(..., name="dispatch").'
            )
        made: Any = self._async(view) if is_async(view) else self._sync(view)
        # LoginRequiredMiddleware would send a program to a page with a form.
        made.login_required = False
        if not self.optional:
            # No browser adds a token by itself; but without one, a session may be at work.
            made.csrf_exempt = True
        return cast("V", made)

    def _sync(self, view: Any) -> Any:
        @wraps(view)
        def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            try:
                principal = authenticate_request(request, using=self.using, fresh=self.fresh)
                answer = self._admitted(request, principal)
            except ANSWERED as error:
                answer = respond(request, error, self.using)
            return vary(view(request, *args, **kwargs)) if answer is None else answer

        return wrapper

    def _async(self, view: Any) -> Any:
        @wraps(view)
        async def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            try:
                principal = await aauthenticate_request(request, using=self.using, fresh=self.fresh)
                answer = self._admitted(request, principal)
            except ANSWERED as error:
                answer = respond(request, error, self.using)
            return vary(await view(request, *args, **kwargs)) if answer is None else answer

        return wrapper

    def _admitted(self, request: HttpRequest, principal: Any) -> HttpResponse | None:
        """Give the answer to a request without a token; raise a TokenError for one too weak."""
        if principal is not None:
            self.requirement.check(principal.baikal_token)
            attach(request, principal)
        elif not self.optional:
            return respond(request, None, self.using)
        return None


class TokenRequiredMixin:
    """``token_required`` for a view that is a class, sync or async; put it first."""

    required_scopes: ClassVar[Names] = ()
    required_purposes: ClassVar[Names] = ()
    required_any_of: ClassVar[Iterable[Names] | None] = None
    required_acr: ClassVar[Names] = None
    fresh: ClassVar[bool] = False
    optional: ClassVar[bool] = False
    using: ClassVar[str] = "default"

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse a class with a View before the mixin, whose ``as_view`` would protect nothing."""
        super().__init_subclass__(**options)
        before = cls.__mro__[: cls.__mro__.index(TokenRequiredMixin)]
        for base in before:
            if "as_view" in vars(base) and not issubclass(base, TokenRequiredMixin):
                raise ConfigurationError(
                    f"{cls.__name__}: TokenRequiredMixin must come before {base.__name__}."
                )

    @classmethod
    def as_view(cls, *args: Any, **initkwargs: Any) -> Any:
        """Give the view, for bearers of a good token; ``args`` are what a ViewSet takes."""

        def of(name: str) -> Any:
            return initkwargs.get(name, getattr(cls, name))

        view = super().as_view(*args, **initkwargs)  # type: ignore[misc]  # of the View beside it
        return token_required(
            of("required_scopes"),
            of("required_purposes"),
            any_of=of("required_any_of"),
            acr=of("required_acr"),
            fresh=of("fresh"),
            optional=of("optional"),
            using=of("using"),
        )(view)
