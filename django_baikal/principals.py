"""Whom a bearer token speaks for: a user or a client of the authserver, with no row anywhere."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from django_baikal.handler import clients
from django_baikal.protocol.bearer import TokenInfo

if TYPE_CHECKING:
    from django.db.models.manager import EmptyManager


def scope_permissions(token: TokenInfo) -> set[str]:
    """Give the permissions that SCOPE_PERMISSIONS maps the scopes of ``token`` to."""
    granted = clients[token.alias].config.scope_permissions
    return {name for scope in token.scopes for name in granted.get(scope, ())}


class Principal:
    """Looks like a user of Django's, and is never saved; ``token`` says all that is known.

    The token is its ``baikal_token`` too, which is what that of a Django user is called.

    ``pk`` is 32 hex digits, always the same for the same user (or client) of the same issuer: good
    to own rows and to count requests by, and no phone number can be read from it.
    """

    is_active = True
    is_staff = False
    is_superuser = False
    is_anonymous = False
    is_authenticated = True

    def __init__(self, token: TokenInfo) -> None:
        self.token = self.baikal_token = token

    @cached_property
    def pk(self) -> str:
        """The name of the user or client, here and in every process."""
        return self.token.identity

    @property
    def id(self) -> str:
        """The same as ``pk``."""
        return self.pk

    @property
    def username(self) -> str:
        """The same as ``pk``: what the authserver calls the user may be a phone number."""
        return self.pk

    def get_username(self) -> str:
        """Give ``username``."""
        return self.pk

    def __str__(self) -> str:
        return f"{type(self).__name__} {self.pk}"

    def __repr__(self) -> str:
        return f"<{self}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Principal) and other.pk == self.pk

    def __hash__(self) -> int:
        return hash(self.pk)

    # -- permissions ------------------------------------------------------------------------------

    def get_user_permissions(self, obj: Any = None) -> set[str]:
        """Give what SCOPE_PERMISSIONS maps the token's scopes to; for single objects, nothing."""
        return set() if obj is not None else scope_permissions(self.token)

    def get_group_permissions(self, obj: Any = None) -> set[str]:  # noqa: ARG002 - Django's name
        """Give nothing: there are no groups."""
        return set()

    get_all_permissions = get_user_permissions

    def has_perm(self, perm: str, obj: Any = None) -> bool:
        """Tell whether the token's scopes give ``perm``."""
        return perm in self.get_all_permissions(obj)

    def has_perms(self, perm_list: Iterable[str], obj: Any = None) -> bool:
        """Tell whether the token's scopes give all of ``perm_list``."""
        if isinstance(perm_list, str):
            raise ValueError("perm_list must be an iterable of permissions.")
        return self.get_all_permissions(obj).issuperset(perm_list)

    def has_module_perms(self, module: str) -> bool:
        """Tell whether the token's scopes give a permission of the app ``module``."""
        return any(perm.startswith(f"{module}.") for perm in self.get_all_permissions())

    async def aget_user_permissions(self, obj: Any = None) -> set[str]:
        """``get_user_permissions`` for coroutines; no database is asked."""
        return self.get_user_permissions(obj)

    async def aget_group_permissions(self, obj: Any = None) -> set[str]:
        """``get_group_permissions`` for coroutines."""
        return self.get_group_permissions(obj)

    async def aget_all_permissions(self, obj: Any = None) -> set[str]:
        """``get_all_permissions`` for coroutines."""
        return self.get_all_permissions(obj)

    async def ahas_perm(self, perm: str, obj: Any = None) -> bool:
        """``has_perm`` for coroutines."""
        return self.has_perm(perm, obj)

    async def ahas_perms(self, perm_list: Iterable[str], obj: Any = None) -> bool:
        """``has_perms`` for coroutines."""
        return self.has_perms(perm_list, obj)

    async def ahas_module_perms(self, module: str) -> bool:
        """``has_module_perms`` for coroutines."""
        return self.has_module_perms(module)

    @property
    def groups(self) -> EmptyManager[Any]:
        """No groups."""
        from django.contrib.auth.models import Group
        from django.db.models.manager import EmptyManager

        return EmptyManager(Group)

    @property
    def user_permissions(self) -> EmptyManager[Any]:
        """No permissions of its own in the database."""
        from django.contrib.auth.models import Permission
        from django.db.models.manager import EmptyManager

        return EmptyManager(Permission)

    def _no_row(self, *_args: Any, **_options: Any) -> NoReturn:
        raise NotImplementedError(f"{type(self).__name__} has no row in the database.")

    save = delete = set_password = check_password = get_session_auth_hash = _no_row
    asave = adelete = acheck_password = _no_row


class TokenUser(Principal):
    """A user of the authserver, by a token of theirs."""


class ServicePrincipal(Principal):
    """A client of the authserver, by a token of its own (client_credentials)."""


def principal_of(token: TokenInfo) -> Principal:
    """Give the stateless principal of ``token``."""
    return (TokenUser if token.is_user else ServicePrincipal)(token)
