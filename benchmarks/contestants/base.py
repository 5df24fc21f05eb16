"""What a contestant is told: where the authserver is, and who the client is."""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import metadata
from typing import Any
from urllib.parse import urlsplit

#: Runs a case so many times. What it gives is added to the figures, or takes their place: ``cpu``
#: and ``wall`` in seconds, ``n`` the number of calls that there were.
Case = Callable[[int], "dict[str, float] | None"]


@dataclasses.dataclass(frozen=True)
class Setup:
    """What `loopback.py` prints.

    ``http`` and ``https`` are origins of the same authserver. ``ca_file`` is a bundle with which
    the second is trusted. ``key_file`` has the client's RSA key (PKCS #8, unencrypted), alone in
    its directory. ``token_key_file`` has the RSA key of which the authserver's JWK Set tells under
    ``token_kid``. ``directory`` may be written to.
    """

    http: str
    https: str
    ca_file: str
    client_id: str
    client_secret: str
    key_file: str
    token_key_file: str
    token_kid: str
    directory: str

    @classmethod
    def of_environment(cls) -> Setup:
        """Read ``BENCH_SETUP``, for settings that must be known when a module is imported."""
        return cls(**json.loads(os.environ["BENCH_SETUP"]))

    def control(self, **order: Any) -> dict[str, int]:
        """Tell the authserver what to do; give what it counted since it was last told.

        These are the calls per path, and the ``connections``; what is 0 is missing.
        """
        connection = http.client.HTTPConnection(urlsplit(self.http).netloc, timeout=30)
        connection.request("POST", "/_control", json.dumps(order))
        counted: dict[str, int] = json.load(connection.getresponse())
        connection.close()
        return counted


def installed(*names: str) -> tuple[str, ...]:
    """Give those of these distributions that there are."""
    found = []
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            metadata.version(name)
            found.append(name)
    return tuple(found)


def times(call: Callable[[], object]) -> Case:
    """Give a case that makes this call again and again."""

    def case(n: int) -> None:
        for _ in range(n):
            call()

    return case


def connections(setup: Setup, make: Callable[[], Callable[[], object]]) -> Case:
    """Give a case that tells how many ``connections`` the calls of a new client take."""

    def case(n: int) -> dict[str, float]:
        call = make()
        setup.control()
        times(call)(n)
        return {"connections": setup.control().get("connections", 0)}

    return case


def cold(setup: Setup, make: Callable[[], Callable[[], object]]) -> Case:
    """Give a case that tells what n threads ask for that call a new client at once."""

    def case(n: int) -> dict[str, float]:
        call = make()
        setup.control(delay=0.05)
        with ThreadPoolExecutor(n) as pool:
            for done in [pool.submit(call) for _ in range(n)]:
                done.result()
        counts = setup.control(delay=0)
        asked = {"discovery": "/.well-known/openid-configuration", "jwks": "/jwks"}
        return {name: counts.get(path, 0) for name, path in asked.items()}

    return case
