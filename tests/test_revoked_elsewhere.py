"""A key that is revoked in one process is used no more by another one in time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from keys_stage import TESTS, Project, database_of_the_tests

pytestmark = pytest.mark.django_db(transaction=True)

#: PROCESS_CACHE_TTL, and how much of it no machine is too slow for, in seconds.
TTL, MARGIN = 10_000, 1_000
#: Moves its clock by so many seconds as each line says, and prints its keys: the one that signs, as
#: an authserver sees it, and those of its JWK Set.
PROGRAM = """
import json, sys, time

ahead, real = 0.0, time.monotonic
time.monotonic = lambda: real() + ahead

import django
import jwt

django.setup()

from django.test import Client

from django_baikal import clients
from django_baikal.testing import FakeAuthserver

authserver = FakeAuthserver(endpoint="https://auth.example.com", clients={"client": "secret"})
site = Client(SERVER_NAME="127.0.0.1")
with authserver.in_memory():
    for line in sys.stdin:
        ahead += float(line)
        clients["default"].grant_user("anna", ["read"], ["a-purpose"])
        assertion = authserver.requests.to("token")[-1].form["assertion"]
        keys = site.get("/.well-known/jwks.json").json()["keys"]
        found = jwt.get_unverified_header(assertion)["kid"], [key["kid"] for key in keys]
        print(json.dumps(found), flush=True)
"""


def test_a_revoked_key_is_used_in_another_process_until_its_reading_is_old_and_no_longer(
    tmp_path: Path,
) -> None:
    project = Project(
        tmp_path,
        database=database_of_the_tests(tmp_path),
        KEYS_OPTIONS=json.dumps({"PROCESS_CACHE_TTL": TTL}),
        KEYS_ALIASES=json.dumps({"default": {"ISSUER": "https://127.0.0.1/"}}),
    )
    assert project("rotate_keys")[0] == 0
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        cwd=TESTS,
        env=project.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def after(seconds: float) -> Any:
            assert process.stdin
            assert process.stdout
            print(seconds, file=process.stdin, flush=True)
            return json.loads(process.stdout.readline())

        signs, (first, standby) = after(0)
        assert signs == first
        status, _, wrong = project("rotate_keys", "--emergency", "--kid", first)
        assert status == 0, wrong
        assert after(TTL - MARGIN) == [first, [first, standby]]
        signs, published = after(MARGIN)
        assert signs == standby
        assert first not in published
    assert process.returncode == 0
