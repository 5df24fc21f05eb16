"""This site over HTTP in a thread, on this machine only."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.handlers.wsgi import WSGIHandler
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler

HOST = "127.0.0.1"


class _Handler(WSGIRequestHandler):
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal belongs to the steps."""


@contextmanager
def serving(port: int = 0) -> Iterator[str]:
    """Serve on loopback, with ``port`` 0 on a free port; gives the URL, which ends in a slash.

    Raises OSError if the port is taken.
    """
    # Threads, for the authserver reads our keys while we wait for its answer.
    server = ThreadedWSGIServer((HOST, port), _Handler)
    server.set_app(WSGIHandler())
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="site", daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
