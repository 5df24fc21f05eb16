"""An authserver that can be switched off and on again, as the demo's can."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

from django_baikal.testing import FakeAuthserver

_lock = threading.RLock()
_authserver: FakeAuthserver | None = None
_port = 0
_serving = ExitStack()


def possible() -> bool:
    """Tell whether this process has such an authserver."""
    return _authserver is not None


def off() -> bool:
    """Tell whether it is switched off."""
    return possible() and not _port_is_served()


def _port_is_served() -> bool:
    return _authserver is not None and urlsplit(_authserver.endpoint).port == _port


def switch_off() -> None:
    """Let the authserver answer nobody any more."""
    with _lock:
        _serving.close()


def switch_on() -> None:
    """Let the authserver answer again, where it did before, and with what it knew."""
    with _lock:
        if off() and _authserver is not None:
            _serving.enter_context(_authserver.serve(_port))


@contextmanager
def switchable(authserver: FakeAuthserver) -> Iterator[FakeAuthserver]:
    """Serve ``authserver`` until the block ends, with a switch."""
    global _authserver, _port
    _serving.enter_context(authserver.serve())
    _authserver, _port = authserver, urlsplit(authserver.endpoint).port or 0
    try:
        yield authserver
    finally:
        switch_off()
        _authserver = None
