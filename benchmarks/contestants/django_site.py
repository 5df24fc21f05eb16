"""A Django site in this process, and how requests to it are measured.

What is added to a request is the difference between two views of the same site, or two sites, which
are asked in turn: whatever else the machine does slows both, and of many differences the median is
told. The CPU time is that of the whole process, so that what other threads of it do is counted.
"""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
import logging
import os
import secrets
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from contestants.base import Case, Setup

Environ = dict[str, Any]
Requests = Iterator[Environ]

#: Fewer pairs of requests than this are measured only if they take longer than this, in seconds.
FEW, LONG = 100, 0.2
#: Requests of which queries and changes to threads are counted.
COUNTED = 5
#: Callers at once of one new token, and how long the authserver takes then, in seconds.
CALLERS, SLOW = 50, 0.2
#: How often one bad token is sent.
REPEATS = 20

_ENVIRON: Environ = {
    "REQUEST_METHOD": "GET",
    "QUERY_STRING": "",
    "SERVER_NAME": "127.0.0.1",
    "SERVER_PORT": "80",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REMOTE_ADDR": "127.0.0.1",
    "HTTP_HOST": "127.0.0.1",
    "HTTP_ACCEPT": "application/json",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.input": io.BytesIO(),
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": True,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
}


def of(module: str) -> Callable[..., Callable[[Setup], Case]]:
    """Give what makes cases of the site with the settings of `projects.MODULE`.

    It takes one of the functions below, and its arguments; the site is started when a case is first
    asked for.
    """

    def case(make: Callable[..., Case], *args: Any, **options: Any) -> Callable[[Setup], Case]:
        def prepared(setup: Setup) -> Case:
            start(module, setup)
            return make(setup, *args, **options)

        return prepared

    return case


def start(module: str, setup: Setup) -> None:
    """Set Django up, once, with a database of its own.

    The users exist beforehand of whom the authserver speaks: each package finds one of them.
    """
    settings = f"projects.{module}"
    if os.environ.get("DJANGO_SETTINGS_MODULE") == settings:
        return
    os.environ["DJANGO_SETTINGS_MODULE"] = settings
    os.environ["BENCH_AUTHSERVER"] = setup.http
    os.environ["BENCH_DATABASE"] = os.path.join(setup.directory, f"{module}-{os.getpid()}.sqlite3")
    # Most packages can be told of no bundle: requests is.
    os.environ["REQUESTS_CA_BUNDLE"] = setup.ca_file
    logging.disable()
    import django

    django.setup()
    from django.contrib.auth.models import User
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    for name in ("ada", "bench-user"):
        User.objects.create_user(name, f"{name}@example.com")


def new_token() -> str:
    """Give a token that nobody has seen; the authserver calls all good but those that are named."""
    return secrets.token_urlsafe(32)


class Site:
    """The WSGI application of the settings, with other middleware if so wished."""

    def __init__(self, middleware: Sequence[str] | None = None) -> None:
        from django.conf import settings
        from django.core.handlers.wsgi import WSGIHandler
        from django.test import override_settings

        names = settings.MIDDLEWARE if middleware is None else list(middleware)
        with override_settings(MIDDLEWARE=names):
            self.application = WSGIHandler()

    def ask(self, environ: Environ) -> tuple[str, bytes]:
        """Make a request, as a server would; give the status line and the body."""
        started: list[Any] = []
        response = self.application(environ, lambda *args: started.extend(args))
        body = b"".join(response)
        response.close()
        return started[0], body

    def status(self, path: str, credentials: str | None = None) -> int:
        """Give the status that is answered to these credentials, or to none."""
        return int(self.ask(request(path, credentials))[0][:3])


def request(path: str, credentials: str | None = None) -> Environ:
    """Prepare a request; ``credentials`` is the whole Authorization header."""
    environ = {**_ENVIRON, "PATH_INFO": path}
    if credentials is not None:
        environ["HTTP_AUTHORIZATION"] = credentials
    return environ


def the_same(path: str, credentials: str | None = None) -> Requests:
    """Prepare one request again and again."""
    prepared = request(path, credentials)
    return (prepared.copy() for _ in itertools.count())


def with_each(path: str, tokens: Iterator[str], scheme: str = "Bearer") -> Requests:
    """Prepare requests, each with the next token."""
    return (request(path, f"{scheme} {token}") for token in tokens)


def new_tokens() -> Iterator[str]:
    """Give new tokens."""
    return (new_token() for _ in itertools.count())


def see(holds: bool, problem: str) -> None:
    """See that something is as it should be before its figures count."""
    if not holds:
        raise RuntimeError(problem)


def see_that_it_works(site: Site, path: str, good: str, bad: str, plain: str) -> None:
    """See that good credentials are accepted, that bad ones and none are refused."""
    see_accepted(site, path, good)
    for credentials, kind in ((bad, "a bad token"), (None, "no token")):
        status = site.status(path, credentials)
        see(status in (401, 403), f"{path} answers {status} to {kind}.")
    see_accepted(site, plain)


def see_accepted(site: Site, path: str, credentials: str | None = None) -> None:
    """See that the answer is 200."""
    status = site.status(path, credentials)
    see(status == 200, f"{path} answers {status}.")


# -- measuring ------------------------------------------------------------------------------------


def cpu_of(site: Site, environ: Environ) -> float:
    """Give the CPU seconds that a request takes."""
    begun = time.process_time()
    status, _ = site.ask(environ)
    spent = time.process_time() - begun
    see(status[:3] == "200", f"{environ['PATH_INFO']} answers {status} while it is measured.")
    return spent


def added(n: int, plain: Callable[[], float], full: Callable[[], float]) -> dict[str, float]:
    """Give what the second takes more CPU time than the first, by the median of n times in turn.

    ``n`` becomes more where a median of so few says little; ``cpu`` is in seconds, and n times the
    median; ``wall`` is what all took; ``fraction`` is that of the median of the first.
    """
    plain()  # whatever was done before has taken its place in the processor's caches
    begun = time.perf_counter()
    before: list[float] = []
    more: list[float] = []
    while len(more) < n or (len(more) < FEW and time.perf_counter() - begun < LONG):
        # Which comes second takes some microseconds less, whichever it is.
        if len(more) % 2:
            with_it, without = full(), plain()
        else:
            without, with_it = plain(), full()
        before.append(without)
        more.append(with_it - without)
    usual, n = statistics.median(more), len(more)
    return {
        "cpu": usual * n,
        "wall": time.perf_counter() - begun,
        "n": n,
        "fraction": usual / statistics.median(before),
    }


def put_first(*paths: str) -> None:
    """Let these be the first routes: each that is tried before adds to what a request takes."""
    from django.urls import get_resolver

    routes = [path.removeprefix("/") for path in paths]
    rest = len(routes)

    def place(pattern: Any) -> int:
        route = str(pattern.pattern)
        return routes.index(route) if route in routes else rest

    get_resolver().url_patterns.sort(key=place)


def queries_of(work: Callable[[], object]) -> int:
    """Count the queries to the database."""
    from django.db import connection

    seen: list[str] = []

    def count(execute: Any, sql: str, *args: Any) -> Any:
        seen.append(sql)
        return execute(sql, *args)

    with connection.execute_wrapper(count):
        work()
    return len(seen)


def calls_since(setup: Setup) -> int:
    """Count the calls to the authserver since this was last asked."""
    return sum(n for name, n in setup.control().items() if name != "connections")


# -- the cases ------------------------------------------------------------------------------------


def paired(
    setup: Setup,
    plain: tuple[Site, Callable[[], Requests]],
    full: tuple[Site, Callable[[], Requests]],
    within: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Case:
    """Measure two sites in turn, each with its requests: what the second takes more is added.

    ``queries`` and ``upstream``: what one request of the second asks the database and the
    authserver, on average; its first is made before.
    """

    def case(n: int) -> dict[str, float]:
        with within():
            (plain_site, plain_requests), (full_site, full_requests) = plain, full
            before, after = plain_requests(), full_requests()

            def ask() -> float:
                return cpu_of(full_site, next(after))

            put_first(next(before)["PATH_INFO"], next(after)["PATH_INFO"])
            ask()
            calls_since(setup)
            found = added(n, lambda: cpu_of(plain_site, next(before)), ask)
            found["upstream"] = calls_since(setup) / found["n"]
            found["queries"] = queries_of(lambda: [ask() for _ in range(COUNTED)]) / COUNTED
            return found

    return case


def warm(
    setup: Setup,
    path: str = "/protected",
    plain: str = "/unauthenticated",
    *,
    good: str | None = None,
    bad: str | None = None,
) -> Case:
    """S1: a view that wants a token which is known, beside one that wants none.

    ``good`` and ``bad`` are whole Authorization headers, by default of bearer tokens.
    """
    site, good = Site(), good or f"Bearer {new_token()}"
    with bad_token(setup) as token:
        see_that_it_works(site, path, good, bad or f"Bearer {token}", plain)
    return paired(
        setup,
        (site, lambda: the_same(plain, good)),
        (site, lambda: the_same(path, good)),
    )


def cold(
    setup: Setup,
    path: str = "/protected",
    plain: str = "/unauthenticated",
    within: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Case:
    """S3: the same, and each request has another token."""
    site = Site()
    with within(), bad_token(setup) as token:
        see_that_it_works(site, path, f"Bearer {new_token()}", f"Bearer {token}", plain)
    return paired(
        setup,
        (site, lambda: with_each(plain, new_tokens())),
        (site, lambda: with_each(path, new_tokens())),
        within,
    )


class bad_token:  # noqa: N801 - a context manager
    """A token that the authserver calls inactive meanwhile."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup

    def __enter__(self) -> str:
        token = new_token()
        self.setup.control(inactive=[token])
        return token

    def __exit__(self, *_: object) -> None:
        self.setup.control(inactive=[])


def at_once(setup: Setup, path: str = "/protected") -> Case:
    """S4: threads that come at once with one token that is new, while the authserver is slow.

    ``upstream``: the calls for the token, for all that is fetched once is known by then;
    ``errors``: the answers that are not 200.
    """
    from django.db import connections

    site = Site()

    def case(_: int) -> dict[str, float]:
        see_accepted(site, path, f"Bearer {new_token()}")
        credentials = f"Bearer {new_token()}"
        barrier, statuses = threading.Barrier(CALLERS), Counter[int]()

        def caller() -> None:
            barrier.wait()
            statuses[site.status(path, credentials)] += 1
            connections.close_all()

        setup.control(delay=SLOW)
        threads = [threading.Thread(target=caller) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counted = setup.control(delay=0)
        upstream = sum(number for name, number in counted.items() if name != "connections")
        return {"n": 1, "upstream": upstream, "errors": CALLERS - statuses[200]}

    return case


def repeated_bad(setup: Setup, path: str = "/protected") -> Case:
    """S5: one token that is no good, again and again."""
    site = Site()

    def case(_: int) -> dict[str, float]:
        see_accepted(site, path, f"Bearer {new_token()}")
        with bad_token(setup) as token:
            for _ in range(REPEATS):
                status = site.status(path, f"Bearer {token}")
                see(status in (401, 403), f"{path} answers {status} to a bad token.")
            return {"n": 1, "upstream": calls_since(setup)}

    return case


def middleware(setup: Setup, name: str, *, good: str | None = None) -> Case:
    """S2: a middleware, with a token that is known, beside no middleware."""
    path, good = "/hello", good or f"Bearer {new_token()}"
    without, with_it = Site([]), Site([name])
    with bad_token(setup) as token:
        see_who_is_told(with_it.ask, path, good, f"Bearer {token}")
    return paired(
        setup,
        (without, lambda: the_same(path, good)),
        (with_it, lambda: the_same(path, good)),
    )


def see_who_is_told(
    ask: Callable[[Environ], tuple[str, bytes]], path: str, good: str, bad: str
) -> None:
    """See that the view is told of a user with a good token alone."""
    body = ask(request(path, good))[1]
    see(b"nobody" not in body, f"{path} answers {body!r} to a good token.")
    status, body = ask(request(path, bad))
    see(status[:3] == "401" or b"nobody" in body, f"{path} answers {body!r} to a bad token.")


# -- signed tokens, and keys --------------------------------------------------------------------


def signer(setup: Setup) -> Callable[[], str]:
    """Give what signs new access tokens with the authserver's key (RFC 9068)."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    with open(setup.token_key_file, "rb") as file:
        key: Any = load_pem_private_key(file.read(), None)
    header = encoded({"typ": "at+jwt", "alg": "RS256", "kid": setup.token_kid})
    now = int(time.time())
    claims = {
        "iss": setup.http,
        "aud": setup.client_id,
        "sub": "bench-user",
        "client_id": setup.client_id,
        "scope": "read",
        "iat": now,
        "exp": now + 86400,
    }

    def sign() -> str:
        signed = f"{header}.{encoded({**claims, 'jti': secrets.token_hex(8)})}"
        signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{b64url(signature)}"

    return sign


def encoded(value: dict[str, Any]) -> str:
    return b64url(json.dumps(value, separators=(",", ":")).encode())


def b64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(
    setup: Setup,
    path: str = "/protected",
    plain: str = "/unauthenticated",
    *,
    scheme: str = "Bearer",
    again: bool = False,
) -> Case:
    """S6: the cases warm and cold with tokens that are JWTs; ``upstream`` is 0 then."""
    site, sign = Site(), signer(setup)
    good = f"{scheme} {sign()}"
    body, _, signature = good.rpartition(".")
    forged = f"{body}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"
    see_that_it_works(site, path, good, forged, plain)

    def requests(path: str) -> Requests:
        if again:
            return the_same(path, good)
        return with_each(path, (sign() for _ in itertools.count()), scheme)

    return paired(setup, (site, lambda: requests(plain)), (site, lambda: requests(path)))


def key_files(setup: Setup, number: int) -> list[Path]:
    """Give files with so many RSA keys (PKCS #8), alone in their directory, made if need be."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    directory = Path(setup.directory) / f"keys-{number}"
    directory.mkdir(exist_ok=True)
    for at in range(number):
        file = directory / f"{at}.pem"
        if not file.exists():
            key = rsa.generate_private_key(65537, 2048)
            file.write_bytes(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
    return sorted(directory.iterdir())


def jwk_set(
    setup: Setup,
    path: str,
    number: int,
    within: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Case:
    """S7: a view that gives a JWK Set, beside one that gives next to nothing."""
    site = Site()
    with within():
        status, body = site.ask(request(path))
    see(status[:3] == "200", f"{path} answers {status}.")
    found = len(json.loads(body).get("keys", ()))
    see(found == number, f"{path} has {found} keys, and not {number}.")
    see_accepted(site, "/plain")
    return paired(setup, (site, lambda: the_same("/plain")), (site, lambda: the_same(path)), within)


def first_hit(path: str, forgotten: Callable[[], AbstractContextManager[Any]]) -> Case:
    """S7: the first request for a JWK Set; ``forgotten``: within it, nobody has asked before."""
    site = Site()

    def case(n: int) -> dict[str, float]:
        spent = []
        for _ in range(n):
            environ = request(path)
            with forgotten():
                begun = time.process_time()
                status, _ = site.ask(environ)
                spent.append(time.process_time() - begun)
            see(status[:3] == "200", f"{path} answers {status}.")
        return {"cpu": statistics.median(spent) * n}

    return case


# -- ASGI -----------------------------------------------------------------------------------------


class AsyncSite:
    """What is between the ASGI application and the view, with this middleware.

    Around it Django changes to a thread for each request, to close the response and to send its
    signals, and that takes several times as long as all the rest: what a middleware adds would be
    lost in it.
    """

    def __init__(self, middleware: Sequence[str]) -> None:
        from django.core.handlers.asgi import ASGIHandler
        from django.test import override_settings

        with override_settings(MIDDLEWARE=list(middleware)):
            self.application = ASGIHandler()

    async def ask(self, environ: Environ) -> tuple[str, bytes]:
        """Make a request, as the application would; give the status and the body."""
        from asgiref.sync import ThreadSensitiveContext

        headers = [(b"host", b"127.0.0.1"), (b"accept", b"application/json")]
        if "HTTP_AUTHORIZATION" in environ:
            headers.append((b"authorization", environ["HTTP_AUTHORIZATION"].encode()))
        path = environ["PATH_INFO"]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        async with ThreadSensitiveContext():
            made, _ = self.application.create_request(scope, io.BytesIO())
            response: Any = await self.application.get_response_async(made)
        return str(response.status_code), response.content

    async def cpu_of(self, environ: Environ) -> float:
        """Give the CPU seconds that a request takes."""
        begun = time.process_time()
        status, _ = await self.ask(environ)
        spent = time.process_time() - begun
        see(status == "200", f"{environ['PATH_INFO']} answers {status} while it is measured.")
        return spent


def async_middleware(setup: Setup, name: str, *, good: str | None = None) -> Case:
    """S2, under ASGI; ``hops``: the times that a request changes to a thread because of it."""
    path, good = "/ahello", good or f"Bearer {new_token()}"
    without, with_it = AsyncSite([]), AsyncSite([name])
    loop = asyncio.new_event_loop()

    def ask(environ: Environ) -> tuple[str, bytes]:
        return loop.run_until_complete(with_it.ask(environ))

    with bad_token(setup) as token:
        see_who_is_told(ask, path, good, f"Bearer {token}")
    prepared = request(path, good)

    def cpu_of(site: AsyncSite) -> float:
        return loop.run_until_complete(site.cpu_of(prepared))

    def case(n: int) -> dict[str, float]:
        ask(prepared)
        found = added(n, lambda: cpu_of(without), lambda: cpu_of(with_it))
        hops = hops_of(lambda: [cpu_of(with_it) for _ in range(COUNTED)])
        hops -= hops_of(lambda: [cpu_of(without) for _ in range(COUNTED)])
        return {**found, "hops": hops / COUNTED}

    return case


def hops_of(work: Callable[[], object]) -> int:
    """Count what goes to a thread, by whichever way."""
    submitted: list[object] = []
    submit = ThreadPoolExecutor.submit

    def counting(self: Any, *args: Any, **kwargs: Any) -> Any:
        submitted.append(args[0])
        return submit(self, *args, **kwargs)

    ThreadPoolExecutor.submit = counting  # type: ignore[method-assign]
    try:
        work()
    finally:
        ThreadPoolExecutor.submit = submit  # type: ignore[method-assign]
    return len(submitted)
