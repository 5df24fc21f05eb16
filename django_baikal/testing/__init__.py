"""Testing and developing without an authserver."""

from __future__ import annotations

from django_baikal.testing.authserver import FakeAuthserver

__all__ = ["FakeAuthserver"]
