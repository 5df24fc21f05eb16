"""How bearer tokens are asked about: the cache, invalidate, stale answers and the breaker, by hand.

What of it needs threads, processes and a network is in test_bearer_faults.py.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import combinations
from typing import Any

import pytest
from django.core.cache import caches
from django.test import override_settings
from world import OPENID, SERVER, World, answer, config

from django_baikal import OpenIDClient, clients
from django_baikal.exceptions import (
    AuthserverError,
    AuthserverUnavailable,
    ConfigurationError,
    ExpiredToken,
    InactiveToken,
    InvalidResponse,
    OAuthError,
    TokenError,
    WrongAudience,
)
from django_baikal.performers import Performer
from django_baikal.protocol import authenticate as module
from django_baikal.protocol.authenticate import authenticate, invalidate
from django_baikal.protocol.bearer import TokenInfo
from django_baikal.protocol.effects import (
    CacheAdd,
    CacheGet,
    CacheSet,
    Effect,
    Instant,
    Now,
    Remember,
    Share,
)
from django_baikal.testing import FakeAuthserver

ASKED = f"{SERVER}/introspect"
DOWN = AuthserverUnavailable("down", code="connection_failed")
INACTIVE = answer({"active": False})
NOW = 1_800_000_000.0


def says(**claims: Any) -> Any:
    return answer({"active": True, "sub": "anna", "client_id": "client", **claims})


def world_of(*answers: Any, **documents: Any) -> World:
    """Give a world where introspection answers one after the other; one alone for ever."""
    return World({ASKED: [*answers] if len(answers) > 1 else answers[0]}, **documents)


def decide(world: World, token: str = "T0ken", *, fresh: bool = False, **changes: Any) -> TokenInfo:
    found: TokenInfo = world.run(authenticate(config(**changes), token, fresh=fresh))
    return found


def forget(world: World, token: str = "T0ken", **changes: Any) -> None:
    world.run(invalidate(config(**changes), token))


def outcome(world: World, token: str = "T0ken", **options: Any) -> str:
    """Give "good", or the code of the error."""
    try:
        decide(world, token, **options)
    except (TokenError, AuthserverError) as error:
        return error.code
    return "good"


# -- what is kept, and for how long ------------------------------------------------------------


def test_a_token_is_asked_about_once_in_a_minute():
    world = world_of(says(scope="a"))
    assert decide(world).scopes == {"a"}
    world.pass_time(59.9)
    assert decide(world).scopes == {"a"}
    assert world.calls(ASKED) == 1
    world.pass_time(0.1)
    assert decide(world).scopes == {"a"}
    assert world.calls(ASKED) == 2
    assert world.form == {"token": "T0ken"}


def test_how_long_an_answer_is_used_is_a_setting():
    world = world_of(says())
    for passed, calls in ((0, 1), (599, 1), (1, 2)):
        world.pass_time(passed)
        decide(world, introspection_ttl=600)
        assert world.calls(ASKED) == calls


def test_a_setting_that_became_smaller_counts_at_once():
    world = world_of(says())
    decide(world, introspection_ttl=600)
    world.pass_time(61)
    decide(world, introspection_ttl=60)
    assert world.calls(ASKED) == 2


def test_an_answer_counts_from_when_it_was_asked_for():
    def slow(_: Any) -> Any:
        world.pass_time(30)
        return says()

    world = world_of(slow)
    decide(world)
    world.pass_time(29.9)
    decide(world)
    assert world.calls(ASKED) == 1
    world.pass_time(0.1)
    decide(world)
    assert world.calls(ASKED) == 2


def test_a_token_that_ended_while_it_was_asked_about_is_refused():
    def slow(_: Any) -> Any:
        world.pass_time(30)
        return says(exp=NOW + 20)

    world = world_of(slow)
    assert outcome(world) == "expired_token"


def test_an_inactive_token_is_asked_about_once_in_ten_seconds():
    world = world_of(INACTIVE)
    for _ in range(100):
        assert outcome(world) == "inactive_token"
        world.pass_time(0.0999)
    assert world.calls(ASKED) == 1
    world.pass_time(0.1)
    assert outcome(world) == "inactive_token"
    assert world.calls(ASKED) == 2


def test_how_long_inactive_is_believed_is_a_setting():
    world = world_of(INACTIVE)
    for passed, calls in ((0, 1), (2.9, 1), (0.1, 2)):
        world.pass_time(passed)
        outcome(world, introspection_negative_ttl=3)
        assert world.calls(ASKED) == calls
    world = world_of(INACTIVE)
    for _ in range(3):
        outcome(world, introspection_negative_ttl=0)
    assert world.calls(ASKED) == 3
    assert world.cache == {}


def test_nothing_of_an_inactive_answer_is_kept():
    world = world_of(answer({"active": False, "sub": "tel:+34600123456", "exp": 1}))
    assert outcome(world) == "inactive_token"
    assert outcome(world) == "inactive_token"
    ((entry, _),) = world.cache.values()
    assert entry["answer"] == {"active": False}


def test_no_answer_is_kept_past_the_end_of_its_token():
    world = world_of(says(exp=NOW + 20))
    assert outcome(world) == "good"
    ((_, until),) = world.cache.values()
    assert until == NOW + 20
    world.pass_time(19.9)
    assert outcome(world) == "good"
    assert world.calls(ASKED) == 1
    world.answers[ASKED] = INACTIVE
    world.pass_time(0.1)
    assert outcome(world) == "inactive_token"
    assert world.calls(ASKED) == 2


def test_the_end_is_looked_at_though_a_cache_keeps_too_long():
    world = world_of(says(exp=NOW + 20), INACTIVE)
    decide(world)
    world.cache = {name: (value, NOW + 9999) for name, (value, _) in world.cache.items()}
    world.pass_time(20)
    assert outcome(world) == "inactive_token"


def test_an_end_far_away_or_none_keeps_an_answer_no_longer():
    for exp in (4e9, 1e14, None):
        world = world_of(says(exp=exp))
        decide(world)
        ((_, until),) = world.cache.values()
        assert until == NOW + 60


@pytest.mark.parametrize("exp", [0, -5, NOW - 3, NOW])
def test_a_token_at_its_end_is_never_kept(exp):
    world = world_of(says(exp=exp))
    for _ in range(2):
        assert outcome(world) == ("good" if exp > NOW - 5 else "expired_token")
    assert world.calls(ASKED) == 2
    assert world.cache == {}


def test_what_decides_is_looked_at_on_each_use():
    world = world_of(says(aud=["client"], exp=NOW + 50, nbf=NOW + 3, iss=SERVER, azp="x"))
    name = json.dumps(module._cache_name(config(), "T0ken"))
    assert outcome(world) == "good"
    ((entry, until),) = world.cache.values()
    for changed, code in (
        ({"aud": "other"}, "wrong_audience"),
        ({"iss": "https://evil.example"}, "wrong_issuer"),
        ({"nbf": NOW + 60}, "expired_token"),
        ({"token_type": "DPoP"}, "not_a_bearer_token"),
        ({"cnf": {"jkt": "x"}}, "not_a_bearer_token"),
    ):
        world.cache[name] = {**entry, "answer": {**entry["answer"], **changed}}, until
        assert outcome(world) == code
    assert world.calls(ASKED) == 1


def test_an_answer_from_a_clock_that_was_wrong_is_not_used():
    world = world_of(says())
    decide(world)
    world.wall -= 60
    decide(world)
    assert world.calls(ASKED) == 1, "within CLOCK_SKEW"
    world.wall -= 0.1
    decide(world)
    assert world.calls(ASKED) == 2
    decide(world)
    assert world.calls(ASKED) == 2, "and it gives way to a new one"


def test_with_a_ttl_of_0_each_call_asks_but_inactive_is_believed():
    world = world_of(says(), says(), INACTIVE, says())
    options = {"introspection_ttl": 0}
    assert outcome(world, **options) == outcome(world, **options) == "good"
    assert world.cache == {}
    assert outcome(world, **options) == outcome(world, **options) == "inactive_token"
    assert world.calls(ASKED) == 3
    world.pass_time(10)
    assert outcome(world, **options) == "good"


@pytest.mark.parametrize(
    "failure",
    [
        DOWN,
        answer({"error": "x"}, 503),
        answer({"error": "x"}, 429),
        answer({"error": "invalid_client"}, 401),
        answer({"error": "invalid_request"}, 400),
        answer({}, 302),
        answer(b"<html>", content_type="text/html"),
        answer({"active": "true"}),
        says(exp="soon"),
        says(sub=None, client_id=None),
    ],
)
def test_an_error_is_never_kept(failure):
    world = world_of(failure, says())
    with pytest.raises(AuthserverError):
        decide(world)
    assert world.cache == {}
    assert outcome(world) == "good"


def test_what_cannot_be_a_token_costs_nothing():
    world = World()
    for token in ("", "a b", "ñ", "x" * 8193, None, b"x"):
        for flow in (authenticate, invalidate):
            with pytest.raises(TokenError) as caught:
                world.run(flow(config(), token))
            assert caught.value.code == "malformed_token"
    assert (world.requests, world.cache) == ([], {})
    assert outcome(world, "x" * 11, max_token_length=10) == "malformed_token"
    assert world.requests == []


def test_headers_are_sent_and_wrong_ones_are_the_callers_error_before_anything():
    world = world_of(says())
    world.run(authenticate(config(), "T0ken", {"X-Correlator": "c"}))
    assert world.requests[-1].headers["X-Correlator"] == "c"
    with pytest.raises(ConfigurationError):
        world.run(authenticate(config(), "T0ken", {"Authorization": "x"}))


def test_a_token_that_is_refused_for_itself_is_asked_about_once_too():
    world = world_of(says(aud="other"))
    for _ in range(5):
        with pytest.raises(WrongAudience):
            decide(world)
    assert world.calls(ASKED) == 1


# -- fresh -------------------------------------------------------------------------------------


def test_fresh_asks_and_what_it_learns_is_for_all():
    world = world_of(says(scope="a"), says(scope="b"), says(scope="c"))
    assert decide(world).scopes == {"a"}
    assert decide(world, fresh=True).scopes == {"b"}
    world.pass_time(1)
    assert decide(world, fresh=True).scopes == {"c"}
    assert decide(world).scopes == {"c"}
    assert world.calls(ASKED) == 3


def test_fresh_finds_a_token_revoked_and_then_nobody_asks_for_a_while():
    world = world_of(says(), INACTIVE)
    assert outcome(world) == "good"
    assert outcome(world, fresh=True) == "inactive_token"
    assert outcome(world) == outcome(world, fresh=True) == "inactive_token"
    assert world.calls(ASKED) == 2


def test_fresh_does_not_fall_back_to_what_is_known():
    world = world_of(says(), DOWN)
    decide(world, stale_if_error=600)
    assert outcome(world, fresh=True, stale_if_error=600) == "connection_failed"
    assert outcome(world) == "good"


@pytest.mark.parametrize(
    "options", [{"fresh": True}, {"introspection_ttl": 0, "stale_if_error": 600}]
)
def test_who_has_to_ask_does_so_though_the_answer_is_from_a_clock_ahead(options):
    world = world_of(says(), INACTIVE)
    decide(world, stale_if_error=600)
    world.wall -= 1
    assert outcome(world, **options) == "inactive_token"
    assert world.calls(ASKED) == 2


@pytest.mark.parametrize("negative_ttl", [0, 10])
@pytest.mark.parametrize("ahead", [0, 30])
def test_a_token_that_was_found_revoked_is_good_nowhere(negative_ttl, ahead):
    world = world_of(says(), INACTIVE, INACTIVE)
    options = {"introspection_negative_ttl": negative_ttl, "stale_if_error": 600}
    decide(world, **options)
    world.wall -= ahead
    assert outcome(world, fresh=True, **options) == "inactive_token"
    assert outcome(world, **options) == "inactive_token"
    world.answers[ASKED] = DOWN
    world.pass_time(11)
    assert outcome(world, **options) == "connection_failed", "nor is it served stale"


def test_a_token_that_was_found_over_is_good_nowhere():
    world = world_of(says(), says(exp=NOW - 6), DOWN)
    assert outcome(world) == "good"
    assert outcome(world, fresh=True) == "expired_token"
    assert outcome(world) == "connection_failed"


def test_fresh_shares_nothing():
    class Alone(World):
        def perform(self, effect: Effect) -> Any:
            assert not isinstance(effect, Share | CacheAdd)
            return super().perform(effect)

    world = Alone({ASKED: says()})
    world.memory["metadata"] = warm().memory["metadata"]
    decide(world, fresh=True)
    decide(world, introspection_ttl=0)
    assert world.calls(ASKED) == 2


def warm() -> World:
    world = world_of(says())
    decide(world)
    return world


def test_an_older_answer_does_not_replace_a_newer_one():
    def slow(_: Any) -> Any:
        # While it is on its way, somebody else asks and learns that the token is revoked.
        world.answers[ASKED] = INACTIVE
        world.pass_time(1)
        assert outcome(world, fresh=True) == "inactive_token"
        return says()

    world = world_of(slow)
    assert outcome(world) == "good", "this one has asked before"
    assert outcome(world) == "inactive_token"
    assert world.calls(ASKED) == 2


# -- invalidate --------------------------------------------------------------------------------


def test_after_invalidate_the_next_one_asks():
    world = world_of(says(), INACTIVE)
    assert outcome(world) == "good"
    forget(world)
    assert outcome(world) == "inactive_token"
    assert world.calls(ASKED) == 2


def test_after_invalidate_a_new_answer_is_kept_as_any_other():
    world = world_of(says(scope="a"), says(scope="b"))
    decide(world)
    forget(world)
    for _ in range(3):
        assert decide(world).scopes == {"b"}
    assert world.calls(ASKED) == 2


def test_invalidate_is_for_one_token_and_one_alias():
    world = world_of(says())
    for token in ("one", "two"):
        decide(world, token)
        decide(world, token, alias="eu")
    forget(world, "one")
    for token in ("one", "two"):
        decide(world, token)
        decide(world, token, alias="eu")
    assert world.calls(ASKED) == 5


def test_invalidate_ends_a_negative_answer_and_a_stale_one_too():
    world = world_of(INACTIVE, says(), DOWN, DOWN)
    options = {"stale_if_error": 600}
    assert outcome(world, **options) == "inactive_token"
    forget(world, **options)
    assert outcome(world, **options) == "good"
    forget(world, **options)
    assert outcome(world, **options) == "connection_failed"


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("ttl", [60, 0])
def test_an_answer_that_was_on_its_way_is_neither_used_nor_kept(fresh, ttl):
    def revoked_meanwhile(_: Any) -> Any:
        forget(world, introspection_ttl=ttl)
        world.answers[ASKED] = INACTIVE
        return says()

    world = world_of(revoked_meanwhile)
    assert outcome(world, fresh=fresh, introspection_ttl=ttl) == "inactive_token"
    assert outcome(world, introspection_ttl=ttl) == "inactive_token"
    assert world.calls(ASKED) == 2


def test_an_answer_from_before_is_in_the_cache_not_even_for_a_moment():
    class Keeping(World):
        def perform(self, effect: Effect) -> Any:
            if isinstance(effect, CacheSet) and effect.name[0] == "bearer":
                kept.append(effect.value["answer"].get("scope"))
            return super().perform(effect)

    def invalidated_meanwhile(_: Any) -> Any:
        forget(world)
        return says(scope="old")

    kept: list[Any] = []
    world = Keeping({ASKED: [invalidated_meanwhile, says(scope="new")]})
    assert decide(world).scopes == {"new"}
    assert kept == ["new"]


def test_each_invalidate_counts():
    def again(_: Any) -> Any:
        forget(world)
        return says(scope="old")

    world = world_of(again, again, again, says(scope="new"))
    assert decide(world).scopes == {"new"}
    assert world.calls(ASKED) == 4


def test_an_error_that_was_on_its_way_is_not_covered_by_what_is_forgotten():
    def revoked_meanwhile(_: Any) -> Any:
        forget(world, stale_if_error=600)
        raise DOWN

    world = world_of(says(), revoked_meanwhile)
    decide(world, stale_if_error=600)
    world.pass_time(61)
    assert outcome(world, stale_if_error=600) == "connection_failed"


class Interrupted(World):
    """Does something once, right before the first effect that fits."""

    fits: Callable[[Effect], bool] = staticmethod(lambda _: False)
    then: Callable[[], None] = staticmethod(lambda: None)

    def perform(self, effect: Effect) -> Any:
        if self.fits(effect):
            self.fits = lambda _: False
            self.then()
        return super().perform(effect)


def test_an_invalidate_right_before_an_answer_is_kept_is_noticed():
    world = Interrupted({ASKED: [says(), INACTIVE]})
    world.fits = lambda effect: isinstance(effect, CacheSet) and effect.name[0] == "bearer"
    world.then = lambda: forget(world)
    assert outcome(world) == "inactive_token"
    assert outcome(world) == "inactive_token"
    assert world.calls(ASKED) == 2


def test_an_invalidate_right_after_an_answer_was_kept_drops_it():
    def interrupted(*answers: Any) -> Interrupted:
        world = Interrupted({ASKED: [*answers]})
        looks = iter(range(10))
        world.fits = lambda effect: (
            isinstance(effect, CacheGet) and effect.name[0] == "invalidated" and next(looks) == 2
        )
        # Only the mark: the invalidate dropped what was there right before the answer was kept.
        mark = json.dumps(module._mark_name(module._cache_name(config(), "T0ken")))
        world.then = lambda: world.cache.update({mark: ("mark", NOW + 3600)})
        return world

    world = interrupted(says(), says(scope="new"))
    assert decide(world).scopes == {"new"}
    assert decide(world).scopes == {"new"}
    assert world.calls(ASKED) == 2
    world = interrupted(says(), DOWN, DOWN)
    assert outcome(world) == "connection_failed"
    assert outcome(world) == "connection_failed", "nothing is left of the old answer"


class Sharing(World):
    """Keeps under which names something was shared."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.shared: list[Any] = []

    def perform(self, effect: Effect) -> Any:
        if isinstance(effect, Share) and effect.name != ("metadata",):
            self.shared.append(effect.name)
        return super().perform(effect)


def test_whoever_comes_after_an_invalidate_waits_for_nobody_from_before():
    world = Sharing({ASKED: says(exp=NOW)})  # which is never kept
    for _ in range(2):
        decide(world)
    forget(world)
    for _ in range(2):
        decide(world)
    forget(world)
    decide(world)
    one, two, three, four, five = world.shared
    assert one == two
    assert three == four
    assert len({one, three, five}) == 3
    hash(one)


def test_whoever_comes_after_an_invalidate_waits_for_no_process_from_before():
    world = world_of(says())
    _, lock = locked()
    world.cache[lock] = "another process", world.wall + 50
    forget(world)
    start = world.wall
    assert outcome(world) == "good"
    assert world.wall == start
    assert world.cache[lock][0] == "another process"


def test_a_mark_lasts_longer_than_any_question():
    world = world_of(says())
    forget(world)
    ((_, until),) = world.cache.values()
    assert until == NOW + 3600


def test_an_answer_is_not_kept_where_the_cache_lost_the_mark_meanwhile():
    def lost(_: Any) -> Any:
        world.cache.clear()
        return says(scope="one")

    world = world_of(lost, says(scope="two"))
    forget(world)
    assert decide(world).scopes == {"one"}
    assert decide(world).scopes == {"two"}
    assert decide(world).scopes == {"two"}
    assert world.calls(ASKED) == 2


def test_a_mark_that_comes_and_goes_does_not_make_a_call_ask_for_ever():
    class Flaky(World):
        looks = parity = 0

        def perform(self, effect: Effect) -> Any:
            if isinstance(effect, CacheGet) and effect.name[0] == "invalidated":
                self.looks += 1
                return "mark" if self.looks % 2 == self.parity else None
            return super().perform(effect)

    for parity in (0, 1):
        world = Flaky({ASKED: says()})
        world.parity = parity
        assert outcome(world) == "good"
        assert world.calls(ASKED) <= 2


# -- while the authserver fails ----------------------------------------------------------------


def test_a_known_token_outlives_a_failure_only_within_its_ttl():
    world = world_of(says())
    decide(world)
    world.answers[ASKED] = DOWN
    world.pass_time(59)
    assert outcome(world) == "good"
    assert outcome(world, "other") == "connection_failed"
    world.pass_time(1)
    assert outcome(world) == "connection_failed", "without STALE_IF_ERROR"


@pytest.mark.parametrize(
    "failure",
    [
        DOWN,
        answer({}, 500),
        answer({}, 429),
        answer({"error": "invalid_client"}, 401),
        answer(b"nonsense"),
        says(exp="soon"),
    ],
)
def test_with_stale_if_error_a_known_token_is_good_for_longer(failure, caplog):
    world = world_of(says(sub="tel:+34600123456"))
    decide(world, stale_if_error=600)
    world.answers[ASKED] = failure
    world.pass_time(61)
    assert outcome(world, stale_if_error=600) == "good"
    assert world.calls(ASKED) == 2
    assert "accepted by what was said of it 61 s ago" in caplog.text
    assert "600123456" not in caplog.text
    assert "T0ken" not in caplog.text
    world.pass_time(598.9)
    assert outcome(world, stale_if_error=600) == "good"
    world.pass_time(0.1)
    assert outcome(world, stale_if_error=600) not in ("good", "inactive_token")


def test_stale_is_said_once_in_a_minute_at_most(caplog):
    world = world_of(says())
    decide(world, stale_if_error=600)
    world.answers[ASKED] = DOWN
    world.pass_time(61)
    for _ in range(59):
        assert outcome(world, stale_if_error=600) == "good"
        world.pass_time(1)
    assert caplog.text.count("accepted by what was said") == 1
    world.pass_time(2)
    assert outcome(world, stale_if_error=600) == "good"
    assert caplog.text.count("accepted by what was said") == 2


def test_stale_never_goes_past_the_end_of_a_token():
    world = world_of(says(exp=NOW + 100))
    decide(world, stale_if_error=600)
    ((_, until),) = world.cache.values()
    assert until == NOW + 100
    world.cache = {name: (value, NOW + 9999) for name, (value, _) in world.cache.items()}
    world.answers[ASKED] = DOWN
    world.pass_time(99)
    assert outcome(world, stale_if_error=600) == "good"
    world.pass_time(1)
    assert outcome(world, stale_if_error=600) == "connection_failed"


def test_stale_is_judged_as_anything_else():
    world = world_of(says(aud="client"))
    decide(world, stale_if_error=600)
    ((entry, until),) = world.cache.values()
    name = json.dumps(module._cache_name(config(), "T0ken"))
    world.cache[name] = {**entry, "answer": {**entry["answer"], "nbf": NOW + 9999}}, until
    world.answers[ASKED] = DOWN
    world.pass_time(61)
    with pytest.raises(ExpiredToken):
        decide(world, stale_if_error=600)


def test_stale_works_with_a_ttl_of_0_and_while_the_breaker_is_open():
    world = world_of(says())
    options = {"introspection_ttl": 0, "stale_if_error": 60}
    decide(world, **options)
    world.answers[ASKED] = DOWN
    for _ in range(20):
        assert outcome(world, **options) == "good"
    assert world.calls(ASKED) == 6
    world.pass_time(61)
    assert outcome(world, **options) == "connection_failed"


def test_an_inactive_answer_is_never_used_stale():
    world = world_of(INACTIVE)
    assert outcome(world, stale_if_error=600) == "inactive_token"
    world.cache = {name: (value, NOW + 9999) for name, (value, _) in world.cache.items()}
    world.answers[ASKED] = DOWN
    world.pass_time(10)
    assert outcome(world, stale_if_error=600) == "connection_failed"


def test_stale_is_only_for_who_was_known():
    world = world_of(DOWN)
    assert outcome(world, stale_if_error=600) == "connection_failed"


# -- the breaker -------------------------------------------------------------------------------


def ask(world: World, times: int, **options: Any) -> list[str]:
    """Ask about that many tokens that nobody has seen."""
    numbers = world.__dict__.setdefault("numbers", iter(range(10**6)))
    return [outcome(world, f"token-{next(numbers)}", **options) for _ in range(times)]


def test_after_five_failures_in_a_row_nobody_is_asked_for_five_seconds():
    world = world_of(DOWN)
    assert ask(world, 8) == ["connection_failed"] * 5 + ["circuit_open"] * 3
    assert world.calls(ASKED) == 5
    world.pass_time(4.9)
    with pytest.raises(AuthserverUnavailable, match=r"not asked for 0\.1 s") as caught:
        decide(world)
    assert caught.value.retry_after == pytest.approx(0.1)
    world.pass_time(0.1)
    assert ask(world, 2) == ["connection_failed", "circuit_open"], "one tries"
    assert world.calls(ASKED) == 6
    world.pass_time(5)
    world.answers[ASKED] = says()
    assert ask(world, 20) == ["good"] * 20
    world.answers[ASKED] = DOWN
    assert ask(world, 6) == ["connection_failed"] * 5 + ["circuit_open"], "all anew"


def test_only_failures_in_a_row_count():
    world = world_of(says())
    for _ in range(5):
        world.answers[ASKED] = DOWN
        assert ask(world, 4) == ["connection_failed"] * 4
        world.answers[ASKED] = says()
        assert ask(world, 1) == ["good"]


def test_while_one_tries_the_others_do_not():
    def slow(_: Any) -> Any:
        assert ask(world, 3) == ["circuit_open"] * 3
        world.pass_time(4.9)
        assert ask(world, 1) == ["circuit_open"]
        return says()

    world = world_of(DOWN)
    ask(world, 5)
    world.pass_time(5)
    world.answers[ASKED] = [slow, says()]
    assert ask(world, 2) == ["good", "good"]
    assert world.calls(ASKED) == 7


def test_one_that_tries_and_never_comes_back_is_followed_by_another():
    class Dead(BaseException):
        pass

    world = world_of(DOWN)
    ask(world, 5)
    world.pass_time(5)
    world.answers[ASKED] = Dead()
    with pytest.raises(Dead):
        ask(world, 1)
    world.answers[ASKED] = says()
    assert ask(world, 1) == ["circuit_open"]
    world.pass_time(5)
    assert ask(world, 1) == ["good"]


@pytest.mark.parametrize(
    ("said", "rest"), [("30", 30), ("60", 60), ("3600", 60), ("2", 5), (None, 0), ("0", 0)]
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_opens_at_once_for_a_minute_at_most(said, rest, status):
    headers = {} if said is None else {"retry_after": said}
    world = world_of(answer({}, status, **headers))
    assert ask(world, 1) == ["authserver_unavailable"]
    world.answers[ASKED] = says()
    if rest:
        world.pass_time(rest - 0.1)
        assert ask(world, 3) == ["circuit_open"] * 3
        world.pass_time(0.1)
    assert ask(world, 2) == ["good"] * 2


def test_after_retry_after_only_one_tries():
    world = world_of(answer({}, 429, retry_after="30"))
    assert ask(world, 100) == ["authserver_unavailable"] + ["circuit_open"] * 99
    world.pass_time(30)
    assert ask(world, 100) == ["authserver_unavailable"] + ["circuit_open"] * 99
    assert world.calls(ASKED) == 2


def test_a_later_failure_does_not_shorten_what_retry_after_said():
    def slow(_: Any) -> Any:
        world.answers[ASKED] = answer({}, 429, retry_after="30")
        ask(world, 1)
        raise DOWN

    world = world_of(slow)
    ask(world, 1)
    world.answers[ASKED] = says()
    world.pass_time(29)
    assert ask(world, 1) == ["circuit_open"]


def test_a_success_that_was_on_its_way_does_not_end_what_retry_after_said():
    def slow(_: Any) -> Any:
        world.answers[ASKED] = answer({}, 429, retry_after="30")
        ask(world, 1)
        return says()

    for before in (0, 2):
        world = world_of(DOWN)
        ask(world, before)
        world.answers[ASKED] = slow
        assert ask(world, 1) == ["good"]
        assert ask(world, 1) == ["circuit_open"]


def test_a_success_that_was_on_its_way_ends_the_count():
    def slow(_: Any) -> Any:
        world.answers[ASKED] = DOWN
        ask(world, 4)
        return says()

    world = world_of(slow)
    assert ask(world, 1) == ["good"]
    world.answers[ASKED] = DOWN
    assert ask(world, 4) == ["connection_failed"] * 4


PROVOKED = [
    INACTIVE,
    answer({"error": "invalid_request"}, 400),
    answer({"error": "x"}, 400),
    answer(b"", 400),
    says(exp="soon"),
    says(sub=None, client_id=None),
    says(aud="other"),
    says(exp=1),
]


@pytest.mark.parametrize("provoked", PROVOKED)
def test_what_a_caller_can_bring_about_never_counts(provoked):
    world = world_of(provoked)
    outcomes = ask(world, 20)
    assert "circuit_open" not in outcomes
    assert world.calls(ASKED) == 20


@pytest.mark.parametrize("provoked", PROVOKED)
def test_what_a_caller_can_bring_about_does_not_keep_it_open(provoked):
    world = world_of(DOWN)
    ask(world, 5)
    world.pass_time(5)
    world.answers[ASKED] = provoked
    ask(world, 1)
    world.answers[ASKED] = says()
    assert ask(world, 1) == ["good"], "the authserver has answered"


@pytest.mark.parametrize(
    "failure",
    [
        DOWN,
        AuthserverUnavailable("slow", code="timeout"),
        answer({}, 500),
        answer({}, 429),
        answer({"error": "invalid_client"}, 401),
        answer(b"", 401),
        answer({"error": "access_denied"}, 403),
        answer({"error": "invalid_client"}, 400),
        answer({"error": "unauthorized_client"}, 400),
        answer({}, 302),
        answer({}, 404),
        answer(b"<html>", content_type="text/html"),
        answer({"active": "true"}),
        answer({"error": "x"}),
        answer(b"eyJhbGciOiJSUzI1NiJ9.e30.c2ln", content_type="application/jwt"),
    ],
)
def test_what_keeps_every_token_from_being_checked_counts(failure):
    world = world_of(failure)
    assert ask(world, 6)[-1] == "circuit_open"
    assert world.calls(ASKED) == 5


def test_metadata_that_cannot_be_had_counts_as_well():
    world = World({OPENID: DOWN})
    assert ask(world, 6)[-1] == "circuit_open"
    assert world.calls(OPENID) == 5


class Hurried(World):
    left = 60.0

    def perform(self, effect: Effect) -> Any:
        if isinstance(effect, Now):
            return Instant(self.wall, self.monotonic, self.left)
        return super().perform(effect)


@pytest.mark.parametrize(("left", "opens"), [(0.3, False), (2.4, False), (2.5, True), (5, True)])
def test_a_timeout_of_somebody_in_a_hurry_says_nothing(left, opens):
    world = Hurried({ASKED: AuthserverUnavailable("slow", code="timeout")})
    world.left = left
    assert (ask(world, 6)[-1] == "circuit_open") is opens
    # Whoever is in a hurry and is refused has seen all that there is to see.
    world = Hurried({ASKED: DOWN})
    world.left = left
    assert ask(world, 6)[-1] == "circuit_open"


def test_the_breaker_does_not_matter_to_who_is_known():
    world = world_of(says())
    decide(world, "known")
    world.answers[ASKED] = DOWN
    ask(world, 6)
    assert outcome(world, "known") == "good"
    assert outcome(world, "known", fresh=True) == "circuit_open"


def test_what_opens_it_is_said_once_a_minute_without_tokens(caplog):
    world = world_of(DOWN)
    for _ in range(6):
        ask(world, 10)
        world.pass_time(9)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "asked again in 5 s: down" in caplog.text
    world.pass_time(10)
    ask(world, 1)
    assert len(caplog.records) == 2
    assert "token-" not in caplog.text
    assert {record.name for record in caplog.records} == {"django_baikal.bearer"}


def test_a_few_failures_are_not_said(caplog):
    world = world_of(DOWN)
    ask(world, 4)
    assert caplog.text == ""


@pytest.mark.parametrize(
    "refusal",
    [
        answer({"error": "invalid_client"}, 401),
        answer(b"", 401),
        answer({"error": "access_denied"}, 403),
        answer(b"", 403),
        answer({"error": "invalid_client"}, 400),
    ],
)
def test_a_client_that_is_refused_is_an_error_once_a_minute(refusal, caplog):
    world = world_of(refusal)
    for _ in range(6):
        ask(world, 10)
        world.pass_time(9)
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert "no bearer token can be checked" in record.getMessage()
    world.pass_time(10)
    ask(world, 1)
    assert len([each for each in caplog.records if each.levelno == logging.ERROR]) == 2


def test_two_that_fail_at_once_lose_nothing_that_matters():
    # The breaker is remembered without a lock: whoever writes last wins, and it still opens.
    world = world_of(DOWN)
    flows = [authenticate(config(), f"t{number}", fresh=True) for number in range(20)]
    waiting = []
    for flow in flows:
        effect = next(flow)
        while not isinstance(effect, Remember) or effect.name != "breaker":
            try:
                result = world.perform(effect)
            except AuthserverUnavailable as error:
                effect = flow.throw(error)
            else:
                effect = flow.send(result)
        waiting.append((flow, effect))
    for flow, effect in waiting:
        with suppress(AuthserverUnavailable):
            result = world.perform(effect)
            while True:
                result = world.perform(flow.send(result))
    assert ask(world, 5)[-1] == "circuit_open"


# -- once --------------------------------------------------------------------------------------


def locked(token: str = "T0ken", **changes: Any) -> tuple[str, str]:
    name = module._cache_name(config(**changes), token)
    return json.dumps(name), json.dumps(("lock", *name))


def test_the_answer_that_another_process_gets_is_waited_for():
    class Elsewhere(World):
        def pass_time(self, seconds: float) -> None:
            super().pass_time(seconds)
            if self.monotonic >= 1001:
                entry = {"answer": {"active": True, "sub": "anna"}, "made_at": self.wall}
                self.cache[name] = entry, self.wall + 60

    name, lock = locked()
    world = Elsewhere({ASKED: says()})
    world.cache[lock] = "another process", world.wall + 5
    assert decide(world).subject == "anna"
    assert world.calls(ASKED) == 0
    assert lock in world.cache, "the lock stays with who took it"


def test_another_process_is_waited_for_half_of_the_time():
    world = world_of(says())
    name, lock = locked()
    world.cache[lock] = "the dead", world.wall + 50
    start = world.wall
    assert outcome(world) == "good"
    assert world.wall - start == pytest.approx(2.5, abs=0.1)
    assert world.cache[lock][0] == "the dead", "a lock of somebody else is left alone"
    assert name in world.cache


def test_who_has_little_time_waits_for_half_of_that():
    world = Hurried({ASKED: says()})
    world.left = 1.0
    _, lock = locked()
    world.cache[lock] = "the dead", world.wall + 50
    start = world.wall
    assert outcome(world) == "good"
    assert world.wall - start == pytest.approx(0.5, abs=0.1)


def test_the_lock_is_given_back_whatever_came():
    class Dead(BaseException):
        pass

    for answered in (says(exp=NOW), INACTIVE, DOWN, says(exp="soon"), Dead()):
        world = world_of(answered)
        with suppress(AuthserverError, TokenError, Dead):
            decide(world, introspection_negative_ttl=0)
        assert world.cache == {}


def test_a_lock_lasts_whole_seconds_for_caches_that_know_no_others():
    kept = []

    class Counting(World):
        def perform(self, effect: Effect) -> Any:
            if isinstance(effect, CacheAdd):
                kept.append(effect.ttl)
            return super().perform(effect)

    for timeout in (0.3, 5, 5.5):
        world = Counting({ASKED: says()})
        decide(world, introspection_timeout=timeout)
    assert kept == [1, 5, 6]


def test_a_cache_that_keeps_nothing_holds_nobody_up():
    class Forgetful(World):
        def perform(self, effect: Effect) -> Any:
            if isinstance(effect, CacheAdd):
                return False
            return None if isinstance(effect, CacheSet) else super().perform(effect)

    world = Forgetful({ASKED: says()})
    start = world.wall
    assert outcome(world) == "good"
    assert world.wall == start


def test_who_is_closed_in_the_middle_performs_nothing_more():
    world = world_of(says())
    flow = authenticate(config(), "T0ken")
    effect = next(flow)
    while not isinstance(effect, Share):
        effect = flow.send(world.perform(effect))
    work = effect.work()
    effect = next(work)
    while not isinstance(effect, CacheAdd):
        effect = work.send(world.perform(effect))
    work.send(world.perform(effect))
    work.close()
    flow.close()


# -- whose answer it is ------------------------------------------------------------------------

DIFFERENT = [
    {},
    {"alias": "eu"},
    {"authserver_endpoint": "https://other.example"},
    {"authserver_issuer": "https://other.example"},
    {"client_id": "another"},
    {"audiences": ("api",)},
    {"audiences": ("api", "other")},
    {"audiences": ("*",)},
    {"allowed_clients": ("api",)},
    {"required_claims": {"a": 1}},
    {"required_claims": {"a": True}},
    {"required_claims": {"a": "1"}},
    {"required_claims": {"b": 1}},
]


def test_all_that_decides_is_in_the_name_of_an_answer():
    tokens = ["a", "b", "ab", "a" * 100, "a" * 99 + "b", "b" + "a" * 99]
    names = {
        json.dumps(module._cache_name(config(**changes), token))
        for changes in DIFFERENT
        for token in tokens
    }
    assert len(names) == len(DIFFERENT) * len(tokens)


def test_the_order_of_required_claims_does_not_matter():
    one, other = ({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert module._cache_name(config(required_claims=one), "a") == module._cache_name(
        config(required_claims=other), "a"
    )


def test_an_answer_to_one_is_none_to_another():
    for pair in combinations(DIFFERENT, 2):
        world = World()
        for changes in pair:
            endpoint = changes.get("authserver_endpoint", SERVER)
            issuer = changes.get("authserver_issuer", endpoint)
            document = {"issuer": issuer, "introspection_endpoint": f"{endpoint}/introspect"}
            world.answers[f"{endpoint}/.well-known/openid-configuration"] = answer(document)
            world.answers[f"{endpoint}/introspect"] = says(aud=["api", "other", "client"])
            world.memory.clear()
            calls = len(world.requests)
            outcome(world, **changes)
            assert world.requests[calls:][-1].url == f"{endpoint}/introspect", pair


# -- at rest -----------------------------------------------------------------------------------

TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbm5hIn0.c2lnbmF0dXJl-at-rest"
SECRETS = (TOKEN, TOKEN[:20], TOKEN[-20:], "tel:+34600", "600123456", "read:secret", "the-tenant")


@pytest.fixture
def authserver(settings: Any) -> Iterator[FakeAuthserver]:
    with FakeAuthserver().in_memory() as server:
        settings.BAIKAL = {"default": server.settings()}
        yield server


def use(client: Any) -> None:
    """Leave in the cache all that a bearer token leaves there."""
    body = {
        "active": True,
        "sub": "tel:+34600123456",
        "username": "tel:+34600123456",
        "scope": "read:secret",
        "tenant": "the-tenant",
    }
    assert client.authenticate(TOKEN).claims == body
    client.invalidate(TOKEN)
    client.authenticate(TOKEN)
    # And a lock that nobody gives back.
    name = ("lock", *module._cache_name(client.config, TOKEN))
    Performer(client._runtime, 5).perform(CacheAdd(name, "owner", 60))


def answered(authserver: FakeAuthserver) -> None:
    body = {
        "active": True,
        "sub": "tel:+34600123456",
        "username": "tel:+34600123456",
        "scope": "read:secret",
        "tenant": "the-tenant",
    }
    authserver.fail("introspection", status=200, body=body)


def test_neither_a_token_nor_a_claim_is_in_local_memory_in_clear(authserver, settings):
    backend = "django.core.cache.backends.locmem.LocMemCache"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": "at-rest"}}
    answered(authserver)
    use(clients["default"])
    store = caches["default"]
    raw = b"\n".join(
        part
        for key, value in store._cache.items()  # type: ignore[attr-defined]
        for part in (key.encode(), value)
    )
    assert len(store._cache) == 3  # type: ignore[attr-defined]
    for secret in SECRETS:
        assert secret.encode() not in raw
        assert json.dumps(secret).encode() not in raw
    assert b"active" not in raw


def test_neither_a_token_nor_a_claim_is_in_redis_in_clear(authserver, settings):
    redis = pytest.importorskip("redis", reason="the redis library is not installed")
    location = "redis://127.0.0.1:6379/12"
    server = redis.Redis.from_url(location)
    try:
        server.ping()
    except redis.exceptions.ConnectionError:
        server.close()
        pytest.skip("no Redis at 127.0.0.1:6379")
    prefix = "test-at-rest"
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": location,
            "KEY_PREFIX": prefix,
        }
    }
    answered(authserver)
    keys = []
    try:
        use(clients["default"])
        keys = server.keys(f"{prefix}*")
        raw = b"\n".join(part for key in keys for part in (key, server.get(key)))
    finally:
        server.delete(*keys)
        server.close()
        caches["default"].close()
    assert len(keys) == 3
    for secret in SECRETS:
        assert secret.encode() not in raw
    assert b"active" not in raw


def test_a_key_is_made_with_the_secret_key_and_an_entry_opens_in_its_own_place_only(
    authserver, settings
):
    backend = "django.core.cache.backends.locmem.LocMemCache"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": "own-place"}}
    client = OpenIDClient(process_ttl=0)
    good, bad = authserver.issue_token(sub="anna"), "revoked-token"
    store = caches["default"]
    client.authenticate(good)
    (good_key,) = (key.split(":", 2)[2] for key in store._cache)  # type: ignore[attr-defined]
    with pytest.raises(InactiveToken):
        client.authenticate(bad)
    keys = [key.split(":", 2)[2] for key in store._cache]  # type: ignore[attr-defined]
    (bad_key,) = set(keys) - {good_key}
    store.set(bad_key, store.get(good_key))
    with pytest.raises(InactiveToken):
        client.authenticate(bad)
    assert authserver.requests.count("introspection") == 3, "the moved entry did not open"
    with override_settings(SECRET_KEY="another" * 10):
        client.authenticate(good)
        assert len(store._cache) == 3, "another key, another name"  # type: ignore[attr-defined]


def test_the_twins_decide_alike(authserver):
    import asyncio

    client = OpenIDClient()
    token = authserver.issue_token(sub="anna", scope="a")
    assert client.authenticate(token) == asyncio.run(client.aauthenticate(token))
    assert authserver.requests.count("introspection") == 1
    asyncio.run(client.ainvalidate(token))
    assert client.authenticate(token).scopes == {"a"}
    client.invalidate(token)
    assert asyncio.run(client.aauthenticate(token, fresh=True)).scopes == {"a"}
    assert authserver.requests.count("introspection") == 3
    with pytest.raises(TokenError):
        client.authenticate("a b")
    authserver.fail("introspection", status=401)
    with pytest.raises(OAuthError):
        client.authenticate("another")
    authserver.fail("introspection", garbage=True)
    with pytest.raises(InvalidResponse):
        asyncio.run(client.aauthenticate("another"))
