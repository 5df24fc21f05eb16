"""Keys that rotate under traffic: sites, commands and authservers, each a program that runs."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from keys_stage import Project
from live_stage import JWKS, SHORT, Authserver, Traffic, just_long_enough, project, rotate, until
from programs import Program
from verifying import Cache, Verify, by_joserfc, by_jwcrypto, by_pyjwt, fetched, python_package

from django_baikal.keys.rotation import Timing

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.programs]

#: Nothing lags behind here, but an answer may be under way for so long on a machine that is loaded.
UNHURRIED = replace(SHORT, replica_lag=5)
#: With SCALE=full: what F11 of the list of faults asks for.
FULL = replace(
    SHORT,
    assertion_lifetime=10,
    clock_skew=1,
    jwks_max_age=5,
    process_cache_ttl=1,
    replica_lag=1,
)
#: How gunicorn runs each of the sites that share the ring. An authserver asks a site for its keys
#: while the site waits for it, so that there has to be one more worker or thread than waits.
SITES = [
    ["--workers=3"],
    ["--workers=2", "--threads=4"],
    ["--workers=2", "--threads=4", "--preload"],
]


class Strict(Authserver):
    """Knows only the keys of the JWK Set that it keeps, and wants to be told which one signed.

    An unknown kid makes it ask no sooner: it may ask for that every 30 s, and keeps nothing so
    long. It is told by each site in turn.
    """

    def __init__(self, verify: Verify, *, stale: bool = False, proxy: bool = False) -> None:
        super().__init__(self.verified)
        self.verify = verify
        self.sites: Iterator[str] = iter(())
        source = Cache(self.asked) if proxy else self.asked
        self.jwks = Cache(source, stale=stale)

    def asked(self) -> Any:
        return fetched(next(self.sites) + JWKS)

    def verified(self, assertion: str, audience: str) -> bool:
        return self.verify(assertion, self.jwks().jwks, ["ES256"], audience) is not None


@dataclass
class World:
    """Three sites with one ring, three authservers, and cron, which is whoever calls it."""

    project: Project
    authservers: list[Strict]
    sites: list[Program]
    traffic: Traffic

    def known(self) -> set[str]:
        """Give the kids by which each authserver has accepted something."""
        return set.intersection(*(set(each.granted) for each in self.authservers))

    def cron(self, *options: str, **may: Any) -> dict[str, Any]:
        """Run the command, if nothing was refused so far."""
        assert self.traffic.failures == []
        return rotate(self.project, *options, **may)

    def promoted(self) -> bool:
        """Let the standby sign, if everybody knows it by now; else see that there is one."""
        if not self.cron("--now", may=(0, 4))["status"]:
            return True
        self.cron()
        return False


@contextmanager
def world(path: Path, timing: Timing, pause: float = 0.1) -> Iterator[World]:
    for name in ("joserfc", "jwcrypto"):
        python_package(name)
    authservers = {
        "default": Strict(by_pyjwt),
        "stale": Strict(by_joserfc, stale=True),
        "behind-a-proxy": Strict(by_jwcrypto, proxy=True),
    }
    with ExitStack() as stack:
        urls = {a: stack.enter_context(each.served()).url for a, each in authservers.items()}
        made = project(path, timing, urls)
        assert rotate(made)["action"] == "created"
        sites = [stack.enter_context(made.served(*options)) for options in SITES]
        for number, each in enumerate(authservers.values()):
            each.sites = itertools.cycle([s.url for s in sites[number:] + sites[:number]])
        with Traffic(sites, list(authservers), pause) as traffic:
            yield World(made, list(authservers.values()), sites, traffic)


@pytest.mark.slow
def test_fault_11_rotation_under_traffic_refuses_nothing(
    tmp_path: Path, scale: Callable[[Any, Any], Any]
) -> None:
    """Each turn by the clock is followed by one by hand, as soon as the command allows it."""
    with world(tmp_path, just_long_enough(scale(UNHURRIED, FULL)), scale(0.1, 0.02)) as live:
        until(live.known)
        first, began, turns = live.cron()["signs"], time.monotonic(), 0
        while not turns or time.monotonic() < began + scale(0, 300):
            signs = live.cron()["signs"]
            until(lambda before=signs: live.cron()["signs"] != before, pause=0.5)
            until(live.promoted, pause=0.5)
            turns += 2
        last = live.cron()["signs"]
        until(lambda: last in live.known())
        until(lambda: first not in str(fetched(live.sites[0].url + JWKS).jwks))
    assert live.traffic.failures == []
    assert [each.refused for each in live.authservers] == [{}, {}, {}]
    assert len(live.known()) > turns
    assert sum(each.granted.total() for each in live.authservers) == live.traffic.ok > 100


def test_a_rotation_that_breaks_the_rules_is_noticed(tmp_path: Path) -> None:
    """The same as above, but a key signs that was published a moment ago.

    The JWK Set is kept for longer, for on a slow machine the moment is a long one.
    """
    with world(tmp_path, just_long_enough(replace(SHORT, jwks_max_age=30))) as live:
        until(live.known)
        live.cron()

        def everybody_has_refused() -> bool:
            rotate(live.project, "--now", "--force")
            return all(each.refused for each in live.authservers)

        until(everybody_has_refused)
    assert all("invalid_grant" in failure for failure in live.traffic.failures)
    assert sum(each.refused.total() for each in live.authservers) == len(live.traffic.failures)
