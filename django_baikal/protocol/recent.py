"""What one process has just learned of tokens: used for seconds, without a look into the cache."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, NamedTuple

#: The most that one client keeps. A token that is not good is never among them.
SIZE = 4096


try:
    # OpenSSL's SHA-256 costs three times as much for something as short as a token.
    _digest: Any = hashlib.blake2s
    _digest()
except (AttributeError, ValueError):  # pragma: no cover: some builds have none, or refuse it
    _digest = hashlib.sha256


def token_key(token: str) -> bytes:
    """Give what a token is known by, in this process alone: nobody finds the token in there."""
    found: bytes = _digest(token.encode("utf-8", "surrogatepass")).digest()
    return found


class _Entry(NamedTuple):
    value: Any
    since: float
    until: float
    era: object


class Recent:
    """The entries that were used last, at most ``size``; times are seconds since the epoch.

    An era ends, for all clients of the process, when something is found to be otherwise than it was
    known to be: what was learned in it, or is just being learned, counts no more.
    """

    #: Replaced, never changed: so no lock is needed, and none can be held during a fork.
    era: object = object()

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()

    def get(self, key: Hashable, wall: float) -> Any:
        """Give what is known by ``key`` at ``wall``, or None."""
        try:
            value, since, until, era = self._entries[key]
            # A clock that was put back makes nothing last longer.
            if not since <= wall < until or era is not self.era:
                return None
            self._entries.move_to_end(key)
        except (KeyError, TypeError):
            # Never there, or dropped by another thread just now; or no key that can be hashed.
            return None
        return value

    def keep(self, key: Hashable, value: Any, *, since: float, until: float, era: object) -> None:
        """Keep what was learned in ``era``, from ``since`` until ``until``."""
        if since < until:
            self._entries[key] = _Entry(value, since, until, era)
            while len(self._entries) > self._size:
                self._entries.popitem(last=False)

    @classmethod
    def end_era(cls) -> None:
        """Let nothing count that was known so far."""
        cls.era = object()


#: Keeps nothing.
NOTHING = Recent(0)
