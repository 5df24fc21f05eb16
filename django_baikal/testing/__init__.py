"""Testing and developing without an authserver."""

from __future__ import annotations

from django_baikal.testing.authserver import FakeAuthserver
from django_baikal.testing.override import override_token

__all__ = ["FakeAuthserver", "override_token"]
