"""Keys that stand in a directory of files: ``PRIVATE_CERTS_PATH``."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import NamedTuple

from django_baikal.exceptions import KeyLoadError, StoreUnavailable
from django_baikal.keys.base import KeyMaterial
from django_baikal.keys.formats import load_key

logger = logging.getLogger("django_baikal.keys")

#: A key file is far smaller; nothing larger is read.
MAX_FILE_SIZE = 64 * 1024


class _Listing(NamedTuple):
    signature: tuple[tuple[str, int, int, int], ...]
    keys: tuple[KeyMaterial, ...]
    problems: tuple[KeyLoadError, ...]


class DirectoryKeyStore:
    """The key files of a directory: all are published, the last by name that can be used signs.

    Dated names (``2026-11-24.pem``) therefore rotate by adding a file. Sub-directories and names
    that begin with a dot are passed over. The directory is looked at on each use, and a file is
    read again only when it changed. Write a file under another name and rename it into place.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.source = f"PRIVATE_CERTS_PATH ({path})"
        self._listing: _Listing | None = None

    def _signature(self) -> tuple[tuple[str, int, int, int], ...]:
        found = []
        with os.scandir(self.path) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.is_file():
                    stat = entry.stat()
                    found.append((entry.name, stat.st_mtime_ns, stat.st_size, stat.st_ino))
        return tuple(sorted(found))

    def _read(self) -> _Listing:
        try:
            signature = self._signature()
        except OSError as error:
            if self._listing is not None:
                logger.error(  # noqa: TRY400 - a traceback each time would say nothing more
                    "%s cannot be read (%s); its last keys stay.", self.source, error.strerror
                )
                return self._listing
            raise StoreUnavailable(f"{self.source} cannot be read: {error.strerror}.") from None
        if self._listing is None or self._listing.signature != signature:
            keys: list[KeyMaterial] = []
            problems: list[KeyLoadError] = []
            for name, _, size, _ in signature:
                try:
                    keys.append(self._load(name, size))
                except KeyLoadError as error:
                    problems.append(error.at(os.path.join(self.path, name)))
            self._listing = _Listing(signature, tuple(keys), tuple(problems))
        return self._listing

    def _load(self, name: str, size: int) -> KeyMaterial:
        if size > MAX_FILE_SIZE:
            raise KeyLoadError(f"The file has more than {MAX_FILE_SIZE} bytes.")
        try:
            with open(os.path.join(self.path, name), "rb") as file:
                data = file.read(MAX_FILE_SIZE)
        except OSError as error:
            raise KeyLoadError(f"The file cannot be read: {error.strerror}.") from None
        return load_key(data)

    def keys(self) -> Sequence[KeyMaterial]:
        """Give every key that can be used, the newest name first; or raise StoreUnavailable."""
        return self._read().keys[::-1]

    def signing_key(self) -> KeyMaterial | None:
        """Give the key of the last name; raise StoreUnavailable if there was never a listing."""
        return next(iter(self.keys()), None)

    def problems(self) -> Sequence[KeyLoadError]:
        """Give an error for each file that is not used; or raise StoreUnavailable."""
        return self._read().problems
