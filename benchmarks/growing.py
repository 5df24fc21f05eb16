"""One size of one thing that grows, in a process of its own: what `growth.py` runs.

    python growing.py THING SIZE

Takes from ``GROWTH``, a JSON object, the origin of the authserver of `loopback.py` (``http``), the
URL of a Redis (``redis``, "" for none) and a prefix for the names in it. Prints a line of JSON when
it is prepared: the figures that are found only once. For each line of its standard input, a number
of seconds, it runs every case for about as long, and prints the CPU seconds of a call in each.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request as Order
from urllib.request import urlopen

from django.conf import settings

TOLD = json.loads(os.environ["GROWTH"])
LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
REDIS = "django.core.cache.backends.redis.RedisCache"
#: As many as there may be tokens, so that nothing but us decides what is kept.
CACHE: dict[str, Any] = {"BACKEND": LOCMEM, "OPTIONS": {"MAX_ENTRIES": 10_000_000}}
if TOLD["redis"]:
    CACHE = {"BACKEND": REDIS, "LOCATION": TOLD["redis"], "KEY_PREFIX": TOLD["prefix"]}
AUTHSERVER = "https://authserver.test"
DAY = 86400
#: No answer and no key grows old while it is measured.
ENTRY: dict[str, Any] = {
    "AUTHSERVER_ENDPOINT": AUTHSERVER,
    "CLIENT_ID": "bench-client",
    "CLIENT_SECRET": "bench-secret",
    "ISSUER": "https://me.example/",
    "INTROSPECTION_TTL": DAY,
    "METADATA_TTL": DAY,
    "JWKS_TTL": DAY,
}
settings.configure(
    ALLOWED_HOSTS=["*"],
    BAIKAL={"default": ENTRY},
    CACHES={"default": CACHE},
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django_baikal"],
    LOGGING_CONFIG=None,
    SECRET_KEY="only-for-benchmarks-" + "x" * 40,
    USE_TZ=True,
)

import django  # noqa: E402 - settings come first

django.setup()

from django.core.cache import caches  # noqa: E402
from django.db import connection  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.test import RequestFactory  # noqa: E402
from django.utils import timezone  # noqa: E402
from loopback import metadata  # noqa: E402

from django_baikal import OpenIDClient, clients  # noqa: E402
from django_baikal.decorators import token_required  # noqa: E402
from django_baikal.exceptions import BaikalError  # noqa: E402
from django_baikal.keys.generate import generate_key, private_pem  # noqa: E402
from django_baikal.keys.operations import keepers  # noqa: E402
from django_baikal.keys.rotation import Ring  # noqa: E402
from django_baikal.models import SigningKey  # noqa: E402
from django_baikal.protocol.effects import Request, Response  # noqa: E402
from django_baikal.transports import base  # noqa: E402
from django_baikal.views import JWKSView  # noqa: E402

#: Runs so many calls; gives the CPU seconds of one.
Case = Callable[[int], float]
Prepared = tuple[dict[str, Case], dict[str, Any]]


def times(call: Callable[[], object]) -> Case:
    def case(n: int) -> float:
        begin = time.process_time()
        for _ in range(n):
            call()
        return (time.process_time() - begin) / n

    return case


def once(call: Callable[[], object]) -> float:
    return times(call)(1)


def resident() -> float:
    """Give the memory of this process, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


class Memory:
    """An authserver in this process, whose answers are made beforehand: only we take time."""

    def __init__(self, **answers: dict[str, Any]) -> None:
        now = int(time.time())
        active = {"active": True, "client_id": "bench-client", "scope": "read", "sub": "ada"}
        known: dict[str, dict[str, Any]] = {
            ".well-known/openid-configuration": metadata(AUTHSERVER),
            "introspect": {**active, "iat": now, "exp": now + DAY},
            "token": {"access_token": "x" * 43, "token_type": "Bearer", "expires_in": DAY},
            **answers,
        }
        self.bodies = {f"/{path}": json.dumps(answer).encode() for path, answer in known.items()}
        self.counts: Counter[str] = Counter()
        base.routes[AUTHSERVER] = self

    def send(self, request: Request, *, timeout: float) -> Response:  # noqa: ARG002 - of no use
        path = urlsplit(request.url).path
        self.counts[path] += 1
        return Response(200, {"content-type": "application/json"}, self.bodies[path])


def bearer(number: int) -> str:
    return f"growing-{number:036d}"


def new_client(**changes: Any) -> OpenIDClient:
    return OpenIDClient(**{name.lower(): value for name, value in {**ENTRY, **changes}.items()})


# -- the things that grow ---------------------------------------------------------------------


def ring(size: int) -> Prepared:
    """Keys of ours that are published, in the database; one of them signs."""
    keys = {"BACKEND": "django_baikal.keys.database.DatabaseKeyStore", "OPTIONS": {"ALG": "ES256"}}
    settings.BAIKAL = {"default": {**ENTRY, "KEYS": keys}}
    with connection.schema_editor() as editor:
        editor.create_model(SigningKey)
    keeper, now = keepers()["default"], timezone.now()
    rows: list[SigningKey] = []
    # Not as the commands do: by the rules there are never so many at a time.
    for number in range(size):
        at = now + timedelta(days=number) - timedelta(minutes=1)
        made = keeper._insert(Ring(rows[-1:]), keeper._generate(None, None), at, "generated")
        rows.append(made)
    view, request = JWKSView.as_view(), RequestFactory().get("/.well-known/jwks.json")
    first: dict[str, list[float]] = {"first hit": [], "first signature": []}
    for number in range(3):
        # Another setting makes another client, which knows nothing.
        for name, call in (("first hit", lambda: view(request)), ("first signature", sign)):
            settings.BAIKAL["default"]["TIMEOUT"] = 5 + number / 10 + len(name) / 1000
            first[name].append(once(call))
    answer = view(request)
    assert len(json.loads(answer.content)["keys"]) == size
    cases = {"JWKS view, again": times(lambda: view(request)), "signature, again": times(sign)}
    return cases, {name: min(found) for name, found in first.items()}


def sign() -> str:
    return clients["default"]._runtime.sign({"sub": "me"})


def jwks(size: int) -> Prepared:
    """Keys of the authserver's, with one of which it signed the tokens that are verified here."""
    keys = [generate_key("ES256") for _ in range(size)]
    Memory(jwks={"keys": [dict(key.public_jwk) for key in keys]})
    now = int(time.time())
    claims: dict[str, Any] = dict.fromkeys(("aud", "client_id"), "bench-client")
    claims |= {"iss": AUTHSERVER, "sub": "ada", "scope": "read", "iat": now, "exp": now + DAY}
    made = iter(range(sys.maxsize))

    def token() -> str:
        return keys[-1].sign({**claims, "jti": str(next(made))}, typ="at+jwt")

    def cold() -> float:
        client, one = new_client(VALIDATION="jwt"), token()
        return once(lambda: client.authenticate(one))

    client, same = new_client(VALIDATION="jwt"), token()
    try:
        first = min(cold() for _ in range(3))
        client.authenticate(same)
    except BaikalError as error:
        return {}, {"first of all": f"refused: {error.code}"}

    def new(n: int) -> float:
        tokens = iter([token() for _ in range(n)])
        return times(lambda: client.authenticate(next(tokens)))(n)

    cases = {"a new token": new, "the same token": times(lambda: client.authenticate(same))}
    return cases, {"first of all": first}


def tokens(size: int) -> Prepared:
    """Distinct tokens that were introspected, and are known."""
    Memory()
    client = new_client()
    client.authenticate("the-first-of-all")
    before, cache_before = resident(), in_cache()
    numbers = iter(range(size))
    new = times(lambda: client.authenticate(bearer(next(numbers))))(min(size, 1000))
    with at_hand():
        for number in numbers:
            client.authenticate(bearer(number))
            if number % 100_000 == 0:
                print(f"tokens: {number} of {size} are known", file=sys.stderr, flush=True)
    told = {"when it was new": new, "memory here, MiB": resident() - before}
    if TOLD["redis"]:
        told["memory in Redis, MiB"] = in_cache() - cache_before
    # So many that what is kept in the process for a moment cannot hold them.
    step = max(1, size // 50_000)
    some = iter(range(sys.maxsize))
    cases = {
        "the same token": times(lambda: client.authenticate(bearer(size - 1))),
        "one after the other": times(lambda: client.authenticate(bearer(next(some) * step % size))),
    }
    return cases, told


@contextmanager
def at_hand() -> Iterator[None]:
    """Let the cache take its entries by the thousand: what is new is not in it yet."""
    cache: Any = caches["default"]
    held: dict[str, Any] = {}

    def keep(key: str, value: Any, *_: Any) -> None:
        if len(held) >= 1000:
            cache.set_many(held, DAY)
            held.clear()
        held[key] = value

    def add(key: str, value: Any, *_: Any) -> bool:
        return held.setdefault(key, value) is value

    instead = {"get": held.get, "set": keep, "add": add, "delete": lambda key: held.pop(key, None)}
    if not TOLD["redis"]:
        instead = {}
    # Of the class: a client has copies of the cache of its own.
    kind: Any = type(cache)
    before = {name: vars(kind)[name] for name in instead}
    for name, function in instead.items():
        setattr(kind, name, staticmethod(function))
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(kind, name, function)
        cache.set_many(held, DAY)


def in_cache() -> float:
    """Give the memory of the Redis, in MiB."""
    if not TOLD["redis"]:
        return 0.0
    found: dict[str, Any] = caches["default"]._cache.get_client().info("memory")  # type: ignore[attr-defined]
    return float(found["used_memory"]) / 2**20


def threads(size: int) -> Prepared:
    """Threads of one process, which call at the same time."""
    authserver = Memory()
    # A second for everybody to come.
    send = authserver.send

    def slow(request: Request, *, timeout: float) -> Response:
        time.sleep(1)
        return send(request, timeout=timeout)

    client = new_client(CLIENT_KEYS=[{"key": private_pem(generate_key("ES256"))}])
    authserver.send = slow  # type: ignore[method-assign]
    together(size, lambda: client.authenticate(bearer(0)))(1)
    together(size, lambda: client.get_token(["read"]))(1)
    authserver.send = send  # type: ignore[method-assign]
    asked = authserver.counts
    told = {
        "discoveries": asked["/.well-known/openid-configuration"],
        "introspections of one new token": asked["/introspect"],
        "requests for one token": asked["/token"],
    }
    cases = {
        "a known token": together(size, lambda: client.authenticate(bearer(0))),
        "a cached token": together(size, lambda: client.get_token(["read"])),
        "a signature": together(size, lambda: client._runtime.sign({"sub": "me"})),
    }
    return cases, told


def together(number: int, call: Callable[[], object]) -> Case:
    """Give a case whose calls are those of so many threads; starting them is not measured."""

    def case(n: int) -> float:
        each = -(-n // number)
        begin, end, leave = (threading.Barrier(number + 1) for _ in range(3))
        failed: list[BaseException] = []

        def run() -> None:
            begin.wait()
            try:
                for _ in range(each):
                    call()
            except BaseException as error:  # noqa: BLE001 - told below
                failed.append(error)
            end.wait()
            leave.wait()

        started = [threading.Thread(target=run) for _ in range(number)]
        for thread in started:
            thread.start()
        before = time.process_time()
        begin.wait()
        end.wait()
        cpu = time.process_time() - before
        leave.wait()
        for thread in started:
            thread.join()
        if failed:
            raise failed[0]
        return cpu / (each * number)

    return case


def processes(size: int) -> Prepared:
    """Processes on one machine that share a Redis, forked as gunicorn does it with preload_app."""
    for module in ("django_baikal.transports.requests", "django_baikal.keys.sealing", "redis"):
        import_module(module)
    names, calls = [f"{TOLD['prefix']}-{size}-{number}" for number in range(10)], 200
    settings.BAIKAL = {"default": {**ENTRY, "AUTHSERVER_ENDPOINT": TOLD["http"]}}
    # A hundred on a few CPUs may have to wait for long.
    settings.BAIKAL["default"] |= {"TIMEOUT": 600, "INTROSPECTION_TIMEOUT": 600}
    control(delay=0.05)
    gate, results = os.pipe(), os.pipe()
    children = []
    for number in range(size):
        if not (pid := os.fork()):
            os.close(gate[1])
            os.read(gate[0], 1)  # until the parent closes its end
            # Each begins with another token, and a little later than the one before: a hundred that
            # wait for one answer leave a few CPUs no time for anything else.
            time.sleep(number / 50)
            own = names[number % 10 :] + names[: number % 10]
            os.write(results[1], json.dumps(at_work(own, calls)).encode() + b"\n")
            os._exit(0)
        children.append(pid)
    for end in (gate[0], gate[1], results[1]):
        os.close(end)
    with os.fdopen(results[0]) as opened:
        found = [json.loads(line) for line in opened]
    for pid in children:
        os.waitpid(pid, 0)
    if len(found) < size:
        raise RuntimeError(f"{size - len(found)} processes failed")
    asked = control(delay=0)
    return {}, {
        "discoveries": asked.get("/.well-known/openid-configuration", 0),
        "introspections of 10 new tokens": asked.get("/introspect", 0),
        "requests for one token": asked.get("/token", 0),
        "a new token": sum(each["new"] for each in found) / size,
        "a known token": sum(each["known"] for each in found) / size,
        "a cached token": sum(each["cached"] for each in found) / size,
    }


def at_work(names: list[str], calls: int) -> dict[str, float]:
    client = clients["default"]
    some = iter(names)
    found = {"new": times(lambda: client.authenticate(next(some)))(len(names))}

    def cached() -> str:
        return client.get_token(["read"], [TOLD["prefix"]])

    cached()
    found["known"] = times(lambda: client.authenticate(names[0]))(calls)
    found["cached"] = times(cached)(calls)
    return found


def control(**order: Any) -> dict[str, int]:
    """Tell the authserver what to do; give what it counted since it was last told."""
    data = json.dumps(order).encode()
    with urlopen(Order(f"{TOLD['http']}/_control", data)) as answer:
        counted: dict[str, int] = json.load(answer)
    return counted


def aliases(size: int) -> Prepared:
    """Entries of ``BAIKAL``, of which each has a client that is used."""
    Memory()
    names = ["default", *(f"alias-{number}" for number in range(1, size))]
    settings.BAIKAL = {name: {**ENTRY, "CLIENT_ID": name, "AUDIENCES": ["*"]} for name in names}
    # What all share is not counted with the first.
    new_client(AUDIENCES=["*"]).authenticate(bearer(0))
    before = resident()
    unused = iter(names)
    first = times(lambda: clients[next(unused)].authenticate(bearer(0)))(size)
    told = {"first use of an alias": first, "memory of all, MiB": resident() - before}
    last = names[-1]
    some = iter(range(sys.maxsize))
    cases = {
        "`clients[alias]`": times(lambda: clients[last]),
        "a known token": times(lambda: clients[last].authenticate(bearer(0))),
        "the same, each alias in turn": times(
            lambda: clients[names[next(some) % size]].authenticate(bearer(0))
        ),
    }
    return cases, told


def scopes(size: int) -> Prepared:
    """Scopes of a token, of which a view asks for one."""
    now = int(time.time())
    given = " ".join(f"scope-{number}" for number in range(size))
    active = {"active": True, "client_id": "bench-client", "sub": "ada", "exp": now + DAY}
    Memory(introspect={**active, "scope": given})
    view = token_required(scopes="scope-0")(lambda _: HttpResponse())
    client = clients["default"]
    made = iter(range(1, sys.maxsize))

    def request(number: int) -> Any:
        return RequestFactory().get("/", headers={"authorization": f"Bearer {bearer(number)}"})

    def views(n: int) -> float:
        requests = iter([request(0) for _ in range(n)])
        return times(lambda: view(next(requests)))(n)

    assert view(request(0)).status_code == 200
    cases = {
        "a new token": times(lambda: client.authenticate(bearer(next(made)))),
        "a known token": times(lambda: client.authenticate(bearer(0))),
        "a known token, with the decorator": views,
    }
    return cases, {}


THINGS = {made.__name__: made for made in (ring, jwks, tokens, threads, processes, aliases, scopes)}


# -- running them -----------------------------------------------------------------------------


@contextmanager
def own_output() -> Iterator[Any]:
    """Keep standard output for the answers."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        yield answers


def main(thing: str, size: int) -> None:
    with own_output() as answers:
        cases, told = THINGS[thing](size)
        print(json.dumps(told), file=answers, flush=True)
        calls = dict.fromkeys(cases, 0)
        for line in sys.stdin:
            seconds, found = float(line), {}
            for name, case in cases.items():
                while not calls[name]:
                    each = case(1)
                    calls[name] = max(1, int(seconds / max(min(each, case(10)), 1e-7)))
                found[name] = case(calls[name])
            print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
