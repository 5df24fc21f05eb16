"""Keys that stand in a directory of files: ``PRIVATE_CERTS_PATH``."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

from django_baikal.exceptions import KeyLoadError, StoreUnavailable
from django_baikal.keys.base import Caution, KeyMaterial, Part, StaticKeyStore
from django_baikal.keys.formats import FORMATS, load_keys

logger = logging.getLogger("django_baikal.keys")

#: A key file is far smaller; nothing larger is read.
MAX_FILE_SIZE = 64 * 1024


class _File(NamedTuple):
    name: str
    mode: int = 0
    modified: int = 0
    changed: int = 0
    size: int = 0
    inode: int = 0


def _shown(path: str) -> str:
    """Give a path for a message: in quotes if it could break lines, or stop a terminal."""
    return path if path.isprintable() else ascii(path)


def _opener(path: str, flags: int) -> int:
    # What was a file a moment ago may be a pipe now, and opening one waits for a writer.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


class _Unreadable(KeyLoadError):
    """The file may be readable the next time, with nothing about it changed."""


class DirectoryKeyStore(StaticKeyStore):
    """The key files of a directory: all are published, the last by name that can sign does.

    Dated names (``2026-11-24.pem``) therefore rotate by adding a file. The extension tells the
    format; with ``.pem`` and those that name none, the content does. Sub-directories and names that
    begin with a dot are passed over. The directory is looked at on each use, and a file is read
    again only when it changed. Write a file under another name and rename it into place.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.source = f"PRIVATE_CERTS_PATH ({_shown(path)})"
        self._known: dict[_File, Sequence[Part]] | None = None

    def _scan(self) -> list[_File]:
        found = []
        with os.scandir(self.path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                try:
                    status = entry.stat()
                except OSError as error:
                    if entry.is_symlink():
                        found.append(_File(entry.name))
                    elif not isinstance(error, FileNotFoundError):
                        raise
                    continue
                if not stat.S_ISDIR(status.st_mode):
                    found.append(
                        _File(
                            entry.name,
                            status.st_mode,
                            status.st_mtime_ns,
                            status.st_ctime_ns,
                            status.st_size,
                            status.st_ino,
                        )
                    )
        return sorted(found, reverse=True)

    def _read(self) -> dict[_File, Sequence[Part]]:
        """Give what each file holds, the last name first; or raise StoreUnavailable."""
        known = self._known
        try:
            files = self._scan()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", "it is no path")
            if known is not None:
                logger.error(  # noqa: TRY400 - a traceback each time would say nothing more
                    "%s cannot be read (%s); its last keys stay.", self.source, why
                )
                return known
            raise StoreUnavailable(f"{self.source} cannot be read: {why}.") from None
        found = {file: (known or {}).get(file) or self._load(file) for file in files}
        self._known = {
            file: parts
            for file, parts in found.items()
            if not any(isinstance(part, _Unreadable) for part in parts)
        }
        return found

    def _load(self, file: _File) -> Sequence[Part]:
        if file.name.endswith("~"):
            return [KeyLoadError("It is an editor's copy of the file before.")]
        if not stat.S_ISREG(file.mode):
            return [KeyLoadError("It is no file, or a link that leads nowhere.")]
        if file.size > MAX_FILE_SIZE:
            return [KeyLoadError(f"The file has more than {MAX_FILE_SIZE} bytes.")]
        extension = os.path.splitext(file.name)[1][1:].lower()
        declared = extension if extension in FORMATS and extension != "pem" else None
        try:
            with open(os.path.join(self.path, file.name), "rb", opener=_opener) as opened:
                return load_keys(opened.read(MAX_FILE_SIZE), format=declared)
        except OSError as error:
            return [_Unreadable(f"The file cannot be read: {error.strerror}.")]

    def _place(self, file: _File) -> str:
        return _shown(os.path.join(self.path, file.name))

    def parts(self) -> Sequence[tuple[str, Part]]:
        """Give the keys of all files, the last name first; raise StoreUnavailable if never read."""
        return [(self._place(file), part) for file, parts in self._read().items() for part in parts]

    def cautions(self) -> Sequence[Caution]:
        """Warn of expired certificates, and of private keys that others can read."""
        return [*super().cautions(), *self._readable()]

    def _readable(self) -> list[Caution]:
        try:
            closed = os.name != "posix" or not os.stat(self.path).st_mode & stat.S_IXOTH
        except OSError:
            closed = True
        return [
            Caution("readable", f"{self._place(file)}: every user of this machine can read it.")
            for file, parts in self._read().items()
            if not closed and file.mode & stat.S_IROTH
            if any(isinstance(part, KeyMaterial) and part.private_key for part in parts)
        ]
