"""Measures one project, in its own environment: ``python worker.py MODULE DISTRIBUTION``.

``MODULE`` is one of ``projects``. Requests are made to the project's WSGI application in this
process. What was found is printed as one JSON object, progress goes to stderr.
"""

from __future__ import annotations

import collections
import io
import json
import logging
import math
import os
import pickle
import secrets
import sys
import threading
import time
import warnings
from datetime import timedelta
from importlib import metadata
from typing import Any, NamedTuple

MODULE, DISTRIBUTION = sys.argv[1:]
os.environ["DJANGO_SETTINGS_MODULE"] = f"projects.{MODULE}"
warnings.simplefilter("ignore")
logging.disable()

import django  # noqa: E402

django.setup()

from authserver import CLIENT_ID, control  # noqa: E402
from django.apps import apps  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.cache import cache  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connection, connections  # noqa: E402
from django.db.backends.signals import connection_created  # noqa: E402
from django.urls import Resolver404, resolve  # noqa: E402
from django.utils import timezone  # noqa: E402

AUTHSERVER = os.environ["BENCH_AUTHSERVER"]
REPEATS, CALLERS = 10, 20
#: How long the authserver takes for an answer to the concurrent callers, in seconds.
SLOW = 0.5
#: Lives of a revoked token that are looked for, in seconds: short before each, and short after.
LIVES = (60, 120, 600, 3600, 36000)
#: How long a token lives, in seconds.
LIFETIME = 86400
#: How the warm cost is measured: so many rounds of two batches, each of about so many seconds. The
#: shorter a batch is, the likelier one is left alone by all else that the machine does.
ROUNDS, BATCH = 600, 0.001

application = get_wsgi_application()
queries: list[str] = []


def count(execute: Any, sql: str, *args: Any) -> Any:
    queries.append(sql)
    return execute(sql, *args)


connection_created.connect(
    lambda connection, **_: connection.execute_wrappers.append(count), weak=False
)


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: Any

    def facts(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "challenge": self.headers.get("WWW-Authenticate"),
            "retry_after": self.headers.get("Retry-After"),
            "user": self.body.get("user") if self.status == 200 else None,
        }


def ask(path: str, token: str | None = None) -> Answer:
    """Make a request, as a server would."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
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
    if token is not None:
        environ["HTTP_AUTHORIZATION"] = f"Bearer {token}"
    started: list[Any] = []
    response = application(environ, lambda *args: started.extend(args))
    body = b"".join(response)
    response.close()
    status = int(started[0].split(" ")[0])
    return Answer(status, dict(started[1]), json.loads(body) if status == 200 else None)


def issue(user: str | None) -> str:
    """Have the authserver know a new token: of that user, or of the client itself."""
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": AUTHSERVER,
        "client_id": CLIENT_ID,
        "aud": [CLIENT_ID],
        "token_type": "Bearer",
        "scope": "openid email read",
        "iat": now,
        "exp": now + LIFETIME,
    }
    if user is not None:
        names = {"sub": user, "username": user, "preferred_username": user}
        claims = {**claims, **names, "email": f"{user}@example.com"}
    token = secrets.token_urlsafe(32)
    control(AUTHSERVER, tokens={token: claims})
    return token


def has(path: str) -> bool:
    try:
        resolve(path)
    except Resolver404:
        return False
    return True


#: Where a token makes a user of Django's.
USERS = "/users" if has("/users") else "/protected"


def prepare() -> str:
    """Make the users, and give a token that has been accepted."""
    call_command("migrate", verbosity=0)
    for name in ("alice", "bob"):
        user = User.objects.create_user(name, f"{name}@example.com", is_active=name == "alice")
        if apps.is_installed("django_baikal.contrib.identities"):
            from django_baikal.contrib.identities.models import ExternalIdentity

            ExternalIdentity.objects.link(user, name, using="users")
    token = issue("alice")
    for path in ("/protected", USERS):
        answer = ask(path, token)
        if answer.status != 200:
            raise SystemExit(f"A good token is answered {answer.status}: {answer.headers}.")
    return token


def bad() -> str:
    return secrets.token_urlsafe(32)


def repeated_bad() -> dict[str, Any]:
    token = bad()
    control(AUTHSERVER)
    for _ in range(REPEATS):
        ask("/protected", token)
    return {"calls": control(AUTHSERVER)}


def repeated_good(token: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, name in (("/protected", "queries"), (USERS, "queries_user")):
        ask(path, token)
        control(AUTHSERVER)
        queries.clear()
        for _ in range(REPEATS):
            ask(path, token)
        found[name] = len(queries) / REPEATS
        found["calls"] = max(control(AUTHSERVER), found.get("calls", 0))
    return found


def revoked() -> dict[str, Any]:
    """Revoke a token that is known, and let time pass, as this process sees it."""
    token, other = issue("alice"), issue("alice")
    wall, begun, now = time.time, time.time(), timezone.now
    fresh, accepted = None, 0

    def status(path: str, token: str, later: float) -> int:
        time.time = lambda: begun + later
        timezone.now = lambda: now() + timedelta(seconds=later)
        try:
            return ask(path, token).status
        finally:
            time.time, timezone.now = wall, now

    for each in (token, other):
        status("/protected", each, 0)
    control(AUTHSERVER, tokens={token: None, other: None})
    if has("/fresh"):
        fresh = status("/fresh", other, 0)
    if status("/protected", token, 0) == 200:
        for life in LIVES:
            if status("/protected", token, life - max(1, life // 1000)) != 200:
                break
            accepted = life
            if status("/protected", token, life + max(1, life // 1000)) != 200:
                break
        else:
            accepted = LIFETIME
    return {"accepted": accepted, "fresh": fresh}


def concurrent() -> dict[str, Any]:
    token = issue("alice")
    control(AUTHSERVER, delay=SLOW)
    barrier, statuses = threading.Barrier(CALLERS), collections.Counter()

    def caller() -> None:
        barrier.wait()
        statuses[ask("/protected", token).status] += 1
        connections.close_all()

    threads = [threading.Thread(target=caller) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"calls": control(AUTHSERVER, delay=0), "statuses": dict(statuses)}


def failing() -> dict[str, Any]:
    known, new = issue("alice"), issue("alice")
    ask("/protected", known)
    control(AUTHSERVER, failing=True)
    found = {"known": ask("/protected", known).facts(), "new": ask("/protected", new).facts()}
    control(AUTHSERVER, failing=False)
    return found


def batch(path: str, token: str | None, number: int) -> float:
    begun = time.perf_counter()
    for _ in range(number):
        ask(path, token)
    return (time.perf_counter() - begun) / number


def cost(token: str) -> dict[str, Any]:
    """Give the least that a request takes, in ms: nobody else's work makes one take less."""
    cases = {"open": ("/unauthenticated", None), "protected": ("/protected", token)}
    numbers = {name: max(1, int(BATCH / batch(*case, 10))) for name, case in cases.items()}
    best = dict.fromkeys(cases, math.inf)
    for _ in range(ROUNDS):
        for name, case in cases.items():
            best[name] = min(best[name], 1000 * batch(*case, numbers[name]))
    return best


def at_rest(token: str) -> list[str]:
    """Tell where the token can be read that has just been used."""
    connection.ensure_connection()
    dump = "\n".join(connection.connection.iterdump())
    found = ["database"] if token in dump or token.encode().hex() in dump.lower() else []
    # As much as LocMemCache has inside; its values are pickled.
    if any(token in key for key in cache._cache):
        found.append("cache keys")
    if any(token in repr(pickle.loads(value)) for value in cache._cache.values()):
        found.append("cache values")
    return found


def tables() -> list[str]:
    common = ("auth_", "django_")
    return [name for name in connection.introspection.table_names() if not name.startswith(common)]


def version(name: str) -> str:
    return metadata.version(name)


def measure() -> dict[str, Any]:
    token = prepare()
    bad_token = bad()
    steps: dict[str, Any] = {
        "no_token": lambda: ask("/protected").facts(),
        "bad_token": lambda: ask("/protected", bad_token).facts(),
        "bad_token_anyone": lambda: ask("/anyone", bad()).facts(),
        "bad_repeated": repeated_bad,
        "good_repeated": lambda: repeated_good(token),
        "deactivated": lambda: ask(USERS, issue("bob")).facts(),
        "client": lambda: ask("/protected", issue(None)).facts(),
        "revoked": revoked,
        "concurrent": concurrent,
        "cost": lambda: cost(token),
        "at_rest": lambda: at_rest(token),
        "tables": tables,
        "failing": failing,
    }
    found: dict[str, Any] = {"versions": {n: version(n) for n in (DISTRIBUTION, *COMMON)}}
    for number, (name, step) in enumerate(steps.items(), 1):
        print(f"{DISTRIBUTION}: {number}/{len(steps)} {name}", file=sys.stderr, flush=True)
        found[name] = step()
    return found


COMMON = ("Django", "djangorestframework")

print(json.dumps(measure()))
