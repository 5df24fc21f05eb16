"""Servers on loopback for the tests of the transports: scripted HTTP, TLS, and a small proxy."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

from timing import PATIENCE, until

Handler = Callable[["Connection"], None]


def reply(body: bytes = b"{}", *, status: str = "200 OK", headers: tuple[str, ...] = ()) -> bytes:
    """Give the bytes of a response with a Content-Length."""
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


class Connection:
    """One accepted connection; ``request`` reads the next request, ``send`` writes bytes."""

    def __init__(self, sock: socket.socket, server: Server) -> None:
        self.sock = sock
        self.server = server
        self._buffer = b""

    def request(self) -> bytes:
        """Read and record the raw bytes of one request; empty at the end of the connection."""
        while b"\r\n\r\n" not in self._buffer:
            if not self._more():
                return b""
        head, _, _ = self._buffer.partition(b"\r\n\r\n")
        found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        size = len(head) + 4 + (int(found[1]) if found else 0)
        while len(self._buffer) < size:
            if not self._more():
                return b""
        raw, self._buffer = self._buffer[:size], self._buffer[size:]
        self.server.requests.append(raw)
        return raw

    def _more(self) -> bool:
        data = self.sock.recv(65536)
        self._buffer += data
        return bool(data)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def drip(self, data: bytes, pause: float = 0.05) -> None:
        """Send one byte at a time."""
        for byte in data:
            self.send(bytes([byte]))
            time.sleep(pause)

    def hang(self) -> None:
        """Send nothing until the other side gives up or the server stops."""
        self.server.stopping.wait(2 * PATIENCE)


class Server:
    """Runs ``handler`` for each connection, in a thread; counts connections."""

    def __init__(
        self, handler: Handler, tls: ssl.SSLContext | None = None, *, small_buffer: bool = False
    ) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.open: set[socket.socket] = set()
        self.stopping = threading.Event()
        self._handler = handler
        self._tls = tls
        self._listener = socket.socket()
        if small_buffer:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(256)
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            if self.stopping.is_set():
                sock.close()
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        self.open.add(sock)
        plain = sock
        try:
            if self._tls is not None:
                self.open.discard(sock)
                sock.settimeout(PATIENCE)
                sock = self._tls.wrap_socket(sock, server_side=True)
                sock.settimeout(None)
                self.open.add(sock)
            self._handler(Connection(sock, self))
        except (OSError, ValueError):
            pass
        finally:
            sock.close()
            plain.close()
            self.open.discard(sock)

    def wait_until_idle(self) -> None:
        """Wait until no client is connected."""
        until(lambda: not self.open, "no connection is open any more")

    def stop(self) -> None:
        self.stopping.set()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), PATIENCE).close()
        self._accepting.join(PATIENCE)
        self._listener.close()
        for sock in list(self.open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)


@contextlib.contextmanager
def running(
    handler: Handler, tls: ssl.SSLContext | None = None, *, small_buffer: bool = False
) -> Iterator[Server]:
    """Run a server whose ``handler`` gets each connection."""
    server = Server(handler, tls, small_buffer=small_buffer)
    try:
        yield server
    finally:
        server.stop()


_reserved: list[socket.socket] = []


def free_port() -> int:
    """Give a port that nobody listens on, and that nobody else is given from now on.

    It stays bound here. A server that sets SO_REUSEADDR, as all do, can listen on it even so.
    """
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    _reserved.append(sock)
    port: int = sock.getsockname()[1]
    return port


def answering(answer: bytes = reply(), *, close: bool = False) -> Handler:
    """Make a handler that answers each request with ``answer``, and then closes if asked to."""

    def handle(connection: Connection) -> None:
        while connection.request():
            connection.send(answer)
            if close:
                return

    return handle


def proxying(authorization: list[str] | None = None) -> Handler:
    """Make a handler for a proxy: CONNECT and absolute-form requests, to loopback ports only."""

    def handle(connection: Connection) -> None:
        raw = connection.request()
        if not raw:
            return
        found = re.search(rb"(?i)proxy-authorization: *([^\r]*)", raw)
        if found and authorization is not None:
            authorization.append(found[1].decode())
        line = raw.split(b"\r\n", 1)[0]
        port = re.search(rb":(\d+)", line.replace(b"http:", b"").replace(b"CONNECT", b""))
        assert port
        with socket.create_connection(("127.0.0.1", int(port[1])), PATIENCE) as upstream:
            if line.startswith(b"CONNECT"):
                connection.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                upstream.sendall(raw)
            back = threading.Thread(target=_pump, args=(upstream, connection.sock))
            back.start()
            _pump(connection.sock, upstream)
            back.join(PATIENCE)

    return handle


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
