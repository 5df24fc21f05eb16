"""System checks for projects with Django REST framework; no network, no database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from django.core import checks

_HERE = "django_baikal.contrib.rest_framework"


@checks.register()
def check_rest_framework(**_: Any) -> list[checks.CheckMessage]:
    """Check the order of the classes, the handler of exceptions, and the scopes of views."""
    from rest_framework.settings import api_settings

    from django_baikal.contrib.rest_framework.authentication import (
        IntrospectionAuthentication,
        exception_handler,
    )

    views = [*_views()]
    messages: list[checks.CheckMessage] = []
    used = False
    defaults = "REST_FRAMEWORK['DEFAULT_AUTHENTICATION_CLASSES']"
    named = {view.__name__: view.authentication_classes for view in views}
    for name, classes in {defaults: api_settings.DEFAULT_AUTHENTICATION_CLASSES, **named}.items():
        ours = [issubclass(each, IntrospectionAuthentication) for each in classes]
        used = used or any(ours)
        if any(ours) and not ours[0]:
            messages.append(
                checks.Warning(
                    f"{name}: IntrospectionAuthentication is not the first of the classes: a "
                    "request without credentials is answered as the first one says, and with a "
                    "session before it, a token beside one is not looked at.",
                    id="django_baikal.W016",
                )
            )
    if used and api_settings.EXCEPTION_HANDLER is not exception_handler:
        messages.append(
            checks.Warning(
                "REST_FRAMEWORK: without EXCEPTION_HANDLER, the answer to a token that does not "
                "reach far enough does not say what it lacks.",
                hint=f"Set it to '{_HERE}.exception_handler', or silence this if yours calls that.",
                id="django_baikal.W017",
            )
        )
    return [*messages, *_scopes(views)]


def _scopes(views: Iterable[Any]) -> Iterator[checks.CheckMessage]:
    from django_baikal.contrib.rest_framework.permissions import NEEDS

    for view in views:
        for permission in _operands(view.permission_classes):
            for kind, name in NEEDS.items():
                if issubclass(permission, kind) and getattr(view, name, None) is None:
                    yield checks.Error(
                        f"{view.__module__}.{view.__name__} has the permission "
                        f"{permission.__name__}, and no {name}.",
                        id="django_baikal.E009",
                    )


def _operands(permissions: Iterable[Any]) -> Iterator[type]:
    for permission in permissions:
        if isinstance(permission, type):
            yield permission
        else:
            # What "&", "|" and "~" make of permissions.
            names = ("op1_class", "op2_class")
            yield from _operands(getattr(permission, n) for n in names if hasattr(permission, n))


def _views() -> list[Any]:
    from django.core.exceptions import ImproperlyConfigured
    from django.urls import get_resolver

    try:
        patterns = get_resolver().url_patterns
    except (ImproperlyConfigured, ImportError):
        return []  # Django's own checks say what is wrong with it
    return [*dict.fromkeys(_of(patterns))]


def _of(patterns: Iterable[Any]) -> Iterator[Any]:
    for pattern in patterns:
        if hasattr(pattern, "url_patterns"):
            yield from _of(pattern.url_patterns)
        else:
            view = getattr(pattern.callback, "cls", None)
            if hasattr(view, "permission_classes"):
                yield view
