"""Bearer tokens for Django REST framework, which is imported with the first of these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django_baikal.contrib.rest_framework.authentication import (
        BearerError,
        IntrospectionAuthentication,
        exception_handler,
    )
    from django_baikal.contrib.rest_framework.permissions import (
        TokenHasAcr,
        TokenHasPurpose,
        TokenHasReadWriteScope,
        TokenHasScope,
    )
    from django_baikal.contrib.rest_framework.throttling import (
        TokenClientRateThrottle,
        TokenSubjectRateThrottle,
    )

__all__ = [
    "BearerError",
    "IntrospectionAuthentication",
    "TokenClientRateThrottle",
    "TokenHasAcr",
    "TokenHasPurpose",
    "TokenHasReadWriteScope",
    "TokenHasScope",
    "TokenSubjectRateThrottle",
    "exception_handler",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from importlib import import_module

        module = "throttling" if name.endswith("Throttle") else "authentication"
        module = "permissions" if name.startswith("TokenHas") else module
        return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
