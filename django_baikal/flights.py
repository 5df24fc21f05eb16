"""Single flight: callers that want the same thing at the same time share one run of it."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any


class Abandoned(Exception):
    """The one who ran for all was interrupted; somebody else has to run."""


class Flights:
    """The runs under way, by name. No lock is held while one runs."""

    def __init__(self) -> None:
        # Reentrant: a garbage collection inside may end a run that was lost with its event loop.
        self._lock = threading.RLock()
        self._futures: dict[object, Future[Any]] = {}
        self._loops: dict[Future[Any], Any] = {}

    def join(self, name: object, loop: Any = None) -> tuple[Future[Any], bool]:
        """Give the run under ``name``, and whether the caller is the one who has to run it.

        ``loop``: the event loop that the caller would run in; a run whose loop is closed is lost.
        """
        with self._lock:
            future = self._futures.get(name)
            if future is not None:
                lost = self._loops.get(future)
                if lost is None or not lost.is_closed():
                    return future, False
                self.leave(name, future)
                future.set_exception(Abandoned())
            future = self._futures[name] = Future()
            if loop is not None:
                self._loops[future] = loop
            return future, True

    def leave(self, name: object, future: Future[Any]) -> None:
        """Let the next caller under ``name`` run anew."""
        with self._lock:
            self._loops.pop(future, None)
            if self._futures.get(name) is future:
                del self._futures[name]

    def land(self, name: object, future: Future[Any], result: Any) -> None:
        """Give ``result`` to all who wait."""
        self.leave(name, future)
        if not future.done():
            future.set_result(result)

    def fail(self, name: object, future: Future[Any], error: BaseException) -> None:
        """Give ``error`` to all who wait; if it was meant for the runner alone, let them run."""
        self.leave(name, future)
        if not future.done():
            future.set_exception(error if isinstance(error, Exception) else Abandoned())
