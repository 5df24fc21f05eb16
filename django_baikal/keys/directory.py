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


class _File(NamedTuple):
    name: str
    modified: int
    size: int
    inode: int


class _Unreadable(KeyLoadError):
    """The file may be readable the next time, with nothing about it changed."""


class DirectoryKeyStore:
    """The key files of a directory: all are published, the last by name that can be used signs.

    Dated names (``2026-11-24.pem``) therefore rotate by adding a file. Sub-directories and names
    that begin with a dot are passed over. The directory is looked at on each use, and a file is
    read again only when it changed. Write a file under another name and rename it into place.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.source = f"PRIVATE_CERTS_PATH ({path})"
        self._known: dict[_File, KeyMaterial | KeyLoadError] | None = None

    def _scan(self) -> list[_File]:
        found = []
        with os.scandir(self.path) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.is_file():
                    stat = entry.stat()
                    found.append(_File(entry.name, stat.st_mtime_ns, stat.st_size, stat.st_ino))
        return sorted(found)

    def _read(self) -> dict[_File, KeyMaterial | KeyLoadError]:
        """Give the key of each file, or why it has none, in the order of names."""
        known = self._known
        try:
            files = self._scan()
        except OSError as error:
            if known is not None:
                logger.error(  # noqa: TRY400 - a traceback each time would say nothing more
                    "%s cannot be read (%s); its last keys stay.", self.source, error.strerror
                )
                return known
            raise StoreUnavailable(f"{self.source} cannot be read: {error.strerror}.") from None
        found = {file: (known or {}).get(file) or self._load(file) for file in files}
        self._known = {
            file: loaded for file, loaded in found.items() if not isinstance(loaded, _Unreadable)
        }
        return found

    def _load(self, file: _File) -> KeyMaterial | KeyLoadError:
        path = os.path.join(self.path, file.name)
        if file.size > MAX_FILE_SIZE:
            return KeyLoadError(f"The file has more than {MAX_FILE_SIZE} bytes.").at(path)
        try:
            with open(path, "rb") as opened:
                return load_key(opened.read(MAX_FILE_SIZE))
        except OSError as error:
            return _Unreadable(f"The file cannot be read: {error.strerror}.").at(path)
        except KeyLoadError as error:
            return error.at(path)

    def keys(self) -> Sequence[KeyMaterial]:
        """Give every key that can be used, the newest name first; or raise StoreUnavailable."""
        return [key for key in self._read().values() if isinstance(key, KeyMaterial)][::-1]

    def signing_key(self) -> KeyMaterial | None:
        """Give the key of the last name; raise StoreUnavailable if there was never a listing."""
        return next(iter(self.keys()), None)

    def problems(self) -> Sequence[KeyLoadError]:
        """Give an error for each file that is not used; or raise StoreUnavailable."""
        return [error for error in self._read().values() if isinstance(error, KeyLoadError)]
