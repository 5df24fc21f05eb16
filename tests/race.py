"""Processes that change one ring at the same time, or are killed while they do.

``python race.py race OPERATION ROUNDS`` prints a line of JSON for each round, and
``python race.py kill OPERATION`` one for each statement before which the process is killed. The
database is that of DATABASE_URL, and its table is made if it is not there.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
django.setup()

from datetime import timedelta  # noqa: E402

from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from django.utils import timezone  # noqa: E402

from django_baikal.exceptions import KeyStoreError  # noqa: E402
from django_baikal.keys.database import DatabaseKeyStore  # noqa: E402
from django_baikal.keys.generate import generate_key  # noqa: E402
from django_baikal.keys.operations import Keeper, Outcome  # noqa: E402
from django_baikal.models import SigningKey  # noqa: E402
from django_baikal.protocol.config import ClientConfig  # noqa: E402

PROCESSES = 8
IMPORTED = generate_key("ES256")
WEEK = timedelta(days=7)


def keeper() -> Keeper:
    return Keeper(DatabaseKeyStore(ClientConfig(), {"ALG": "ES256"}))


def begin(kind: str) -> None:
    """Make the ring that the race begins with."""
    SigningKey.objects.all().delete()
    if kind in ("empty", "import"):
        return
    rotate_before(2 * WEEK)  # of which the standby has taken over since
    if not kind.endswith("rotate"):
        # Long enough ago for everybody to know the standby.
        rotate_before(timedelta(hours=6))
    if kind == "emergency-alone":
        standby = SigningKey.objects.order_by("-sequence")[0]
        keeper().revoke(standby.kid)
        SigningKey.objects.filter(pk=standby.pk).delete()


def rotate_before(length: timedelta) -> None:
    then, now = timezone.now() - length, timezone.now
    timezone.now = lambda: then  # type: ignore[assignment]
    try:
        keeper().rotate()
    finally:
        timezone.now = now


def operation(kind: str) -> Callable[[], Outcome]:
    ring, now = keeper().read(), timezone.now()
    found = ring.standby(now) if kind == "revoke" else ring.active(now)
    kid = "" if found is None else found.kid
    if kind.startswith("admin-"):
        return in_admin(kind.removeprefix("admin-"), found)
    return lambda: OPERATIONS[kind](kid)


def in_admin(verb: str, row: SigningKey | None) -> Callable[[], Outcome]:
    """Press a button of the admin; the outcome is the level of the message that it shows."""
    from admin_stage import user
    from django.contrib.auth.models import User
    from django.test import Client

    User.objects.all().delete()
    visitor = Client()
    visitor.force_login(user("rotate", "revoke"))
    path, data = f"rings/default/{verb}", {}
    if verb == "revoke" and row is not None:
        path, data = f"{row.pk}/revoke", {"kid": row.kid, "reason": "a race"}

    def press() -> Outcome:
        answer = visitor.post(f"/admin/django_baikal/signingkey/{path}/", data, follow=True)
        return Outcome(",".join({message.level_tag for message in answer.context["messages"]}))

    return press


OPERATIONS: dict[str, Callable[[str], Outcome]] = {
    "empty": lambda _: keeper().rotate(),
    "rotate": lambda _: keeper().rotate(),
    "emergency": lambda _: keeper().emergency(),
    "emergency-alone": lambda _: keeper().emergency(),
    "emergency-kid": lambda kid: keeper().emergency(kid=kid),
    "import": lambda _: keeper().import_key(IMPORTED),
    "promote": lambda _: keeper().promote(force=True),
    "revoke": lambda kid: keeper().revoke(kid),
    "prune": lambda _: keeper().prune(),
}


def state() -> dict[str, Any]:
    ring, now = keeper().read(), timezone.now()
    return {
        "states": [ring.state(row, now) for row in ring.rows],
        "kids": [row.kid for row in ring.rows],
        "wiped": [row.private_envelope is None for row in ring.rows],
        "published": len(ring.published(now)),
    }


def attempt(act: Callable[[], Outcome]) -> str:
    """Do it; give what came of it in a word, or a traceback."""
    try:
        return act().action
    except KeyStoreError as error:
        return error.code
    except Exception:  # noqa: BLE001 - whatever it is, it is to be told
        return traceback.format_exc()


def child(act: Callable[[], None]) -> int:
    """Run ``act`` in another process; give its number."""
    pid = os.fork()
    if pid:
        return pid
    try:
        act()
        connection.close()
    finally:
        os._exit(0)


def race(kind: str) -> dict[str, Any]:
    begin(kind)
    act, before = operation(kind), state()
    connection.close()
    gate, answers = os.pipe(), os.pipe()

    def run() -> None:
        keeper().read()  # The connection is there.
        os.write(answers[1], b"\n")
        os.read(gate[0], 1)
        os.write(answers[1], json.dumps(attempt(act)).encode() + b"\n")

    children = [child(run) for _ in range(PROCESSES)]
    with os.fdopen(answers[0]) as told:
        for _ in children:
            told.readline()
        os.write(gate[1], b"x" * PROCESSES)
        results = [json.loads(told.readline()) for _ in children]
    for pid in children:
        os.waitpid(pid, 0)
    for fd in (*gate, answers[1]):
        os.close(fd)
    return {"results": sorted(results), "before": before, "after": state()}


def kill(kind: str, number: int) -> dict[str, Any]:
    """Kill a process before it sends the statement of that number, then try again."""
    begin(kind)
    act, before = operation(kind), state()
    connection.close()
    counted = iter(range(number))

    def before_each(execute: Any, *args: Any) -> Any:
        if next(counted, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return execute(*args)

    def run() -> None:
        with connection.execute_wrapper(before_each):
            act()

    _, status = os.waitpid(child(run), 0)
    killed, left = os.WIFSIGNALED(status), state()
    return {
        "killed": killed,
        "before": before,
        "left": left,
        "again": attempt(act),
        "after": state(),
    }


def main(what: str, kind: str, rounds: str = "1") -> None:
    call_command("migrate", verbosity=0)
    if what == "race":
        from admin_stage import project
        from django.test.utils import setup_test_environment

        setup_test_environment()  # Answers tell what their pages were made of.
        with project() if kind.startswith("admin-") else nullcontext():
            for _ in range(int(rounds)):
                print(json.dumps(race(kind)), flush=True)  # noqa: T201
        return
    killed, number = True, 0
    while killed:
        found = kill(kind, number)
        print(json.dumps(found), flush=True)  # noqa: T201
        killed, number = found["killed"], number + 1


if __name__ == "__main__":
    main(*sys.argv[1:])
