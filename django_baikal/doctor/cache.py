"""Whether the cache keeps what is put there, and another process finds it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from django_baikal.doctor.case import Case
from django_baikal.doctor.findings import Failed, Skipped

#: How long the entry stays if nobody is left to delete it, in seconds.
_TTL = 60
_ALONE = (".LocMemCache", ".DummyCache")
_SERVER = "Let CACHE name an alias of CACHES that is a cache server, as Redis or Memcached."
_DOWN = "See that the cache server runs, that its LOCATION is right, and that it has memory."
_CHILD = """
import json, sys
import django
from django.core.cache import caches
django.setup()
alias, key = json.load(sys.stdin)
print(json.dumps(caches[alias].get(key)))
"""


def cache(case: Case) -> str:
    """Put an entry into the cache, let another process read it, and delete it."""
    from django.conf import settings
    from django.core.cache import caches

    alias = case.settings.cache
    given = settings.CACHES.get(alias)
    if given is None:
        raise Skipped(needs="settings")
    if given["BACKEND"].endswith(_ALONE):
        raise Failed(
            f"The cache {alias!r} is not shared: each process gets its own tokens, and asks about "
            "every bearer token itself.",
            _SERVER,
        )
    key, value = f"django_baikal.doctor.{secrets.token_hex(8)}", secrets.token_hex(8)
    shared = caches[alias]
    try:
        shared.set(key, value, _TTL)
        kept = shared.get(key)
    except Exception as error:  # noqa: BLE001 - each cache library raises its own
        what = f"The cache {alias!r} failed ({type(error).__name__})."
        raise Failed(f"{what} All goes on without it, slowly.", _DOWN) from None
    if kept != value:
        raise Failed(f"The cache {alias!r} does not keep what is put there.", _DOWN)
    try:
        found = _read_by_another(case, alias, key)
    finally:
        with suppress(Exception):  # each cache library raises its own
            shared.delete(key)
    if found != value:
        raise Failed(
            f"Another process does not find what is put into the cache {alias!r}.", _SERVER
        )
    return f"What is put into the cache {alias!r} is found by another process."


def _read_by_another(case: Case, alias: str, key: str) -> Any:
    """Give what a process with the same settings finds in the cache."""
    module = os.environ.get("DJANGO_SETTINGS_MODULE")
    # Where Python is inside of a server, what is called its executable is that server.
    if not module or not Path(sys.executable or "").name.startswith(("python", "pypy")):
        raise Skipped("No other process can be started here; manage.py baikal_doctor can.")
    path = os.pathsep.join(each for each in sys.path if each)
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and program
            [sys.executable, "-c", _CHILD],
            env={**os.environ, "PYTHONPATH": path},
            input=json.dumps([alias, key]),
            capture_output=True,
            text=True,
            timeout=case.left(case.settings.timeout),
            check=False,
        )
        return json.loads(done.stdout.strip().rpartition("\n")[2])
    except (OSError, ValueError, subprocess.TimeoutExpired):
        raise Skipped("Another process, which was to read the cache, did not get so far.") from None
