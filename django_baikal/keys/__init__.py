"""Our signing keys: loading them, keeping them, choosing the one that signs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_baikal.keys.base import KeyMaterial, KeyStore
from django_baikal.keys.formats import load_key

if TYPE_CHECKING:
    from django_baikal.keys.operations import Keeper

__all__ = ["KeyMaterial", "KeyStore", "keepers", "load_key"]


def keepers(*, by: str = "") -> dict[str, Keeper]:
    """Give who rotates and revokes the keys of each ring that an alias of ``BAIKAL`` has in KEYS.

    ``by``: who does it, for the record. Raises ConfigurationError.
    """
    from django_baikal.keys import operations

    return operations.keepers(by=by)
