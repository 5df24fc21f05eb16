"""Keys that stand in the settings: ``CLIENT_KEYS``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django_baikal.keys.base import Part, StaticKeyStore
from django_baikal.keys.formats import load_keys


class SettingsKeyStore(StaticKeyStore):
    """The keys of ``CLIENT_KEYS``: all are published, the first that can sign does."""

    source = "CLIENT_KEYS"

    def __init__(self, entries: Sequence[Mapping[str, Any]]) -> None:
        self._entries = entries
        self._loaded: list[tuple[str, Part]] | None = None

    def _at_hand(self) -> bool:
        return self._loaded is not None

    def parts(self) -> Sequence[tuple[str, Part]]:
        """Give the keys of the list, in its order."""
        if self._loaded is None:
            self._loaded = [
                (f"CLIENT_KEYS[{index}]", part)
                for index, entry in enumerate(self._entries)
                for part in load_keys(
                    entry["key"],
                    format=entry.get("format"),
                    password=entry.get("passphrase"),
                    kid=entry.get("kid"),
                    alg=entry.get("alg"),
                )
            ]
        return self._loaded
