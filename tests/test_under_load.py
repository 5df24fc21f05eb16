"""Protected views under load, while the authserver goes away and comes back, and keys rotate.

Each server that Django projects run on, as a process: none ever answers 500, lets in who must
not come in, dies, or keeps a connection that it does not need.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from load_measured import Asked, Asking, wrk, wrong
from load_stage import (  # noqa: F401 - some are fixtures
    ALLOWED,
    COMMANDS,
    KNOWN_FOR,
    POOLED,
    connections_of,
    database,
    empty_database,
    until,
    world,
)


@pytest.mark.slow
@pytest.mark.programs
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors are counted in /proc")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", COMMANDS)
def test_under_load_nothing_breaks_when_the_authserver_does(
    name: str,
    database: str,  # noqa: F811 - the fixture
    scale: Callable[[Any, Any], Any],
) -> None:
    pytest.importorskip(COMMANDS[name][0])
    with world(COMMANDS[name], database) as made:
        made.well()
        site, before = made.site, made.site.processes()
        # The first time, what is kept for later is made: pools, threads, keys.
        loads = [made.storm(0, 120)]
        assert loads[0].number(503) == 0, loads[0].counts
        descriptors = len(site.descriptors())
        made.tokens["revoked-later"] = made.issue()
        assert site.ask("/sync", made.tokens["revoked-later"]) == 200
        made.authserver.revoke_token(made.tokens["revoked-later"])
        time.sleep(KNOWN_FOR)  # What is awaited is the time.
        with ExitStack() as stack:
            faster: Asked | None = None
            if scale(None, "wrk") and shutil.which("wrk"):
                known = [Asking("known", "/sync", made.tokens["known"])]
                faster = stack.enter_context(wrk(site, known, connections=8))
            elif scale(None, "wrk"):
                print("wrk is not installed: the callers of this file are the only ones.")  # noqa: T201
            loads.append(made.storm(scale(1, 10), scale(25, 200)))

        for load in loads:
            assert wrong(load.counts) == {}, "".join(site.told)
        if faster is not None:
            assert wrong(faster.counts) == {}, "".join(site.told)
            assert faster.errors == 0
            assert faster.counts["known", 200]
        assert {kind for kind, _ in loads[1].counts} == set(ALLOWED)
        assert site.processes() == before
        until(
            lambda: len(site.descriptors()) <= descriptors + POOLED,
            f"of the descriptors {descriptors} are left: {site.descriptors()}",
        )
        until(lambda: connections_of(site) == 0, "no connection to the database is left")
        assert "Traceback" not in "".join(site.told), "".join(site.told)
