"""Our signing keys: loading them, keeping them, choosing the one that signs."""

from __future__ import annotations

from django_baikal.keys.base import KeyMaterial, KeyStore
from django_baikal.keys.formats import load_key

__all__ = ["KeyMaterial", "KeyStore", "load_key"]
