"""Keys that stand in the settings: ``CLIENT_KEYS``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django_baikal.exceptions import KeyLoadError
from django_baikal.keys.base import KeyMaterial
from django_baikal.keys.formats import load_key


class SettingsKeyStore:
    """The keys of ``CLIENT_KEYS``: all are published, the first that can be used signs."""

    def __init__(self, entries: Sequence[Mapping[str, Any]]) -> None:
        self.source = "CLIENT_KEYS"
        self._entries = entries
        self._loaded: tuple[list[KeyMaterial], list[KeyLoadError]] | None = None

    def _load(self) -> tuple[list[KeyMaterial], list[KeyLoadError]]:
        if self._loaded is None:
            keys: list[KeyMaterial] = []
            problems: list[KeyLoadError] = []
            for index, entry in enumerate(self._entries):
                try:
                    keys.append(
                        load_key(
                            entry["key"],
                            format=entry.get("format"),
                            password=entry.get("passphrase"),
                            kid=entry.get("kid"),
                            alg=entry.get("alg"),
                        )
                    )
                except KeyLoadError as error:
                    name = f"CLIENT_KEYS[{index}]"
                    problems.append(error.at(name))
            self._loaded = keys, problems
        return self._loaded

    def keys(self) -> Sequence[KeyMaterial]:
        """Give every key of the list that can be used, in its order."""
        return self._load()[0]

    def signing_key(self) -> KeyMaterial | None:
        """Give the first key of the list that can be used."""
        return next(iter(self.keys()), None)

    def problems(self) -> Sequence[KeyLoadError]:
        """Give an error for each entry that cannot be used."""
        return self._load()[1]
