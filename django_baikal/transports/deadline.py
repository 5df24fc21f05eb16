"""Sockets that keep one deadline for all of an exchange, whatever library drives them."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from typing import Any


class Exchange(threading.local):
    """The exchange that this thread is in; ``deadline`` is a ``time.monotonic`` value."""

    deadline: float | None = None


exchange = Exchange()


def _left() -> float | None:
    """Give the seconds that are left of this thread's exchange, or raise TimeoutError."""
    if exchange.deadline is None:
        return None
    left = exchange.deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the exchange took too long")
    return left


class DeadlineSocket(socket.socket):
    """A socket whose operations together, not each, end at the deadline of the exchange.

    A timeout of urllib3 bounds one ``recv``; a peer that sends a byte now and then, in headers
    or body, is never stopped by it.
    """

    def recv_into(self, *args: Any, **options: Any) -> int:
        self.settimeout(_left())
        return super().recv_into(*args, **options)

    def send(self, *args: Any, **options: Any) -> int:
        self.settimeout(_left())
        return super().send(*args, **options)

    def sendall(self, *args: Any, **options: Any) -> None:
        self.settimeout(_left())
        super().sendall(*args, **options)


class DeadlineTLSSocket(DeadlineSocket, ssl.SSLSocket):
    """The same over TLS; the methods of ``DeadlineSocket`` go on to those of ``SSLSocket``."""

    def do_handshake(self, block: bool = False) -> None:
        self.settimeout(_left())
        super().do_handshake(block)


def connect(host: str, port: int, options: Any) -> socket.socket:
    """Connect to one of the host's addresses, all of them together before the deadline."""
    problem = OSError("the host name has no address")
    addresses = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    for tried, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = DeadlineSocket(family, kind, protocol)
        try:
            for option in options or ():
                sock.setsockopt(*option)
            left = _left()
            # A share for each, so that one that does not answer leaves time for the others.
            sock.settimeout(left and left / (len(addresses) - tried))
            sock.connect(address)
        except OSError as error:
            sock.close()
            problem = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise problem
