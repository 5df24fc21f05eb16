"""``IntrospectionBackend``: bearer tokens for ``django.contrib.auth``."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth.backends import BaseBackend
from django.views.decorators.debug import sensitive_variables

from django_baikal import authentication
from django_baikal.exceptions import TokenError
from django_baikal.principals import scope_permissions


class IntrospectionBackend(BaseBackend):
    """``django.contrib.auth.authenticate(request, token=...)`` by introspection.

    It also gives the permissions of SCOPE_PERMISSIONS to a Django user that came with a token.
    """

    @sensitive_variables()
    def authenticate(
        self,
        request: Any,
        token: str | None = None,
        *,
        using: str = "default",
        fresh: bool = False,
        **_others: Any,
    ) -> Any:
        """Give the token's principal, or None if it is not good.

        Raises AuthserverError if that cannot be found out: it is nobody's wrong password.
        """
        if token is None:
            return None
        try:
            return authentication.authenticate(token, using=using, fresh=fresh, request=request)
        except TokenError:
            return None

    @sensitive_variables()
    async def aauthenticate(
        self,
        request: Any,
        token: str | None = None,
        *,
        using: str = "default",
        fresh: bool = False,
        **_others: Any,
    ) -> Any:
        """``authenticate`` as a coroutine."""
        if token is None:
            return None
        try:
            return await authentication.aauthenticate(
                token, using=using, fresh=fresh, request=request
            )
        except TokenError:
            return None

    def get_user(self, user_id: Any) -> Any:
        """Give the Django user of a session, if still active; a stateless principal has none."""
        from django.contrib.auth import get_user_model

        model = get_user_model()
        try:
            user = model._default_manager.get(pk=user_id)
        except (model.DoesNotExist, TypeError, ValueError):
            return None
        return user if user.is_active else None

    async def aget_user(self, user_id: Any) -> Any:
        """``get_user`` as a coroutine."""
        return await sync_to_async(self.get_user)(user_id)

    def get_user_permissions(self, user_obj: Any, obj: Any = None) -> set[str]:
        """Give what SCOPE_PERMISSIONS maps the scopes of the token to that ``user_obj`` came with.

        For single objects, nothing.
        """
        token = getattr(user_obj, "baikal_token", None)
        if token is None or obj is not None or not user_obj.is_active:
            return set()
        return scope_permissions(token)

    async def aget_user_permissions(self, user_obj: Any, obj: Any = None) -> set[str]:
        """``get_user_permissions`` for coroutines; no database is asked."""
        return self.get_user_permissions(user_obj, obj)

    def has_module_perms(self, user_obj: Any, app_label: str) -> bool:
        """Tell whether the scopes of the token that came with ``user_obj`` give one of that app."""
        permissions = self.get_user_permissions(user_obj)
        return any(name.startswith(f"{app_label}.") for name in permissions)

    async def ahas_module_perms(self, user_obj: Any, app_label: str) -> bool:
        """``has_module_perms`` for coroutines; no database is asked."""
        return self.has_module_perms(user_obj, app_label)
