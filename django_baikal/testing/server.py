"""The fake authserver over HTTP/1.1, on loopback."""

from __future__ import annotations

import ipaddress
import logging
import socket
import socketserver
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, cast

from django_baikal.protocol.effects import Request, Response

if TYPE_CHECKING:
    from django_baikal.testing.authserver import FakeAuthserver

logger = logging.getLogger("django_baikal.testing")

_MAX_BODY = 1024 * 1024


def is_loopback(host: str) -> bool:
    """Tell whether ``host`` means this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = False  # so that server_close() waits for them: no thread outlives it
    block_on_close = True
    allow_reuse_address = True  # a restart need not wait for old connections to time out
    request_queue_size = 128

    def __init__(self, host: str, port: int, authserver: FakeAuthserver) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.authserver = authserver
        self.closing = threading.Event()
        self.origin = ""
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Log what should not have happened; a client that goes away is no event here."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            logger.error("A request could not be answered.", exc_info=error)

    def close(self) -> None:
        """Stop accepting, end every connection and wait for the threads."""
        self.closing.set()
        self.shutdown()
        with self._open_lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave in one write, at the flush after each request

    @property
    def _server(self) -> _Server:
        return cast("_Server", self.server)

    def answer(self) -> None:
        """Read a whole request and answer it."""
        if problem := self._problem():
            self.close_connection = True
            self._send(Response(problem, {"connection": "close"}, b""))
            return
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        headers: dict[str, str] = {}
        for name, value in self.headers.items():
            key = name.lower()
            headers[key] = f"{headers[key]}, {value}" if key in headers else value
        # The target as it came: http.server makes one slash of two at its beginning.
        target = self.requestline.split()[1]
        request = Request(self.command, self._server.origin + target, headers, body or None)
        response = self._server.authserver.respond(request, stop=self._server.closing)
        if response is None:
            self.close_connection = True
            return
        self._send(response)

    do_GET = do_POST = do_HEAD = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = answer

    def _problem(self) -> int | None:
        """Give the status that refuses a request whose body cannot be read, or None."""
        length = self.headers.get("content-length", "0")
        if "transfer-encoding" in self.headers:
            return 411
        if not length.isascii() or not length.isdigit():
            return 400
        return 413 if len(length) > 9 or int(length) > _MAX_BODY else None

    def _send(self, response: Response) -> None:
        self.send_response_only(response.status)
        self.send_header("date", self.date_time_string())
        for name, value in response.headers.items():
            self.send_header(name, value)
        if "content-length" not in response.headers:
            self.send_header("content-length", str(len(response.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the authserver keeps its own record."""


@contextmanager
def serving(authserver: FakeAuthserver, host: str, port: int) -> Iterator[str]:
    """Serve on ``host``, which must be loopback; gives the origin, ``http://host:port``."""
    if not is_loopback(host):
        raise ValueError(f"A fake authserver is served on loopback only, not on {host!r}.")
    server = _Server(host, port, authserver)
    shown = f"[{host}]" if ":" in host else host
    server.origin = f"http://{shown}:{server.server_address[1]}"
    thread = threading.Thread(
        target=server.serve_forever, args=(0.05,), name="fake-authserver", daemon=True
    )
    thread.start()
    try:
        yield server.origin
    finally:
        server.close()
        thread.join()
