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
        self._lock = threading.Lock()
        self._futures: dict[object, Future[Any]] = {}

    def join(self, name: object) -> tuple[Future[Any], bool]:
        """Give the run under ``name``, and whether the caller is the one who has to run it."""
        with self._lock:
            future = self._futures.get(name)
            if future is not None:
                return future, False
            future = self._futures[name] = Future()
            return future, True

    def leave(self, name: object, future: Future[Any]) -> None:
        """Let the next caller under ``name`` run anew."""
        with self._lock:
            if self._futures.get(name) is future:
                del self._futures[name]

    def land(self, name: object, future: Future[Any], result: Any) -> None:
        """Give ``result`` to all who wait."""
        self.leave(name, future)
        future.set_result(result)

    def fail(self, name: object, future: Future[Any], error: BaseException) -> None:
        """Give ``error`` to all who wait; if it was meant for the runner alone, let them run."""
        self.leave(name, future)
        future.set_exception(error if isinstance(error, Exception) else Abandoned())
