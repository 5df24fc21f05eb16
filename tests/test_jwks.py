"""The authserver's keys: fetched when they are needed, renewed aside, never lost to a failure."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from issued import HEADER, JWKS, id_token, jwk, jwks, signed
from stage import both_ways
from timing import PATIENCE, not_held_up, until
from world import METADATA, OAUTH, OPENID, SERVER, World, answer, config, token

from django_baikal import OpenIDClient
from django_baikal.exceptions import (
    AuthserverError,
    AuthserverUnavailable,
    InvalidResponse,
    InvalidSignature,
)
from django_baikal.protocol import flows
from django_baikal.protocol.effects import Fetch, Now, Response, Share
from django_baikal.protocol.id_token import verify_id_token
from django_baikal.protocol.jwks import verified_jwt
from django_baikal.testing import FakeAuthserver

DOWN = AuthserverUnavailable("down", code="connection_failed")


def verify(world: World, value: str | None = None, **changes: Any) -> Any:
    value = id_token(exp=2e9) if value is None else value
    return world.run(verify_id_token(config(**changes), value, None, None))


def look_aside(world: World) -> None:
    verify(world)
    world.finish_asides()


# -- fresh, then renewed aside, then waited for ----------------------------------------------------


def test_keys_are_used_without_another_look_for_most_of_their_lifetime():
    world = World({JWKS: jwks()})
    verify(world)
    world.pass_time(479)
    verify(world)
    assert world.calls(JWKS) == 1
    assert world.asides == []


def test_near_the_end_of_their_lifetime_keys_are_renewed_aside_once_and_nobody_waits():
    world = World({JWKS: jwks()})
    verify(world)
    world.pass_time(480)
    world.answers[JWKS] = jwks(jwk(number=1))
    for _ in range(3):
        verify(world)
    assert world.calls(JWKS) == 1
    world.finish_asides()
    assert world.calls(JWKS) == 2
    assert verify(world, id_token(number=1, exp=2e9))
    assert world.calls(JWKS) == 2


def test_a_process_that_was_idle_waits_for_the_keys_and_a_removed_one_verifies_nothing():
    world = World({JWKS: jwks()})
    verify(world)
    world.answers[JWKS] = jwks(jwk(number=1))
    world.pass_time(600)
    with pytest.raises(InvalidSignature):
        verify(world)
    assert world.calls(JWKS) == 2


@pytest.mark.parametrize("ttl", [100, 800])
def test_the_lifetime_is_a_setting(ttl):
    world = World({JWKS: jwks()})
    verify(world, jwks_ttl=ttl)
    world.pass_time(0.8 * ttl - 1)
    verify(world, jwks_ttl=ttl)
    assert world.asides == []
    world.pass_time(1)
    verify(world, jwks_ttl=ttl)
    assert len(world.asides) == 1
    world.pass_time(0.2 * ttl)
    verify(world, jwks_ttl=ttl)
    assert world.calls(JWKS) == 2


@pytest.mark.parametrize(
    ("said", "lifetime"),
    [
        ("max-age=300", 300),
        ("public, MAX-AGE=300, must-revalidate", 300),
        ('max-age="300"', 300),
        ("max-age=300,max-age=60", 60),
        ("max-age=100000", 600),
        (f"max-age={'9' * 5000}", 600),
        ("max-age=1", 30),
        ("max-age=0", 30),
        ("no-cache", 30),
        ("no-store, max-age=300", 30),
        ('no-cache="set-cookie"', 30),
        ("max-age", 30),
        ("max-age=-1", 30),
        ("max-age=1e3", 30),
        ("max-age=\u0663\u0660\u0660", 30),
        ("max-age = 300", 300),
        ("\tmax-age=300 ;x", 30),
        ("max-age=300, ,no-transform,", 300),
        ("s-maxage=60, private", 600),
        ("x-max-age=60", 600),
        ("", 600),
    ],
)
def test_the_answer_may_shorten_the_lifetime_but_not_below_the_cooldown(said, lifetime):
    world = World({JWKS: jwks(cache_control=said)})
    verify(world)
    world.pass_time(0.8 * lifetime - 1)
    verify(world)
    assert (world.calls(JWKS), world.asides) == (1, [])
    world.pass_time(1)
    verify(world)
    assert (world.calls(JWKS), len(world.asides)) == (1, 1)
    world.pass_time(0.2 * lifetime)
    verify(world)
    assert world.calls(JWKS) == 2


@pytest.mark.parametrize(
    ("age", "lifetime"),
    [
        ("0", 300),
        ("100", 200),
        ("299", 30),
        ("9" * 5000, 30),
        ("-1", 300),
        ("x", 300),
        ("1, 2", 300),
    ],
)
def test_what_a_cache_on_the_way_has_kept_is_as_old_as_it_says(age, lifetime):
    world = World({JWKS: jwks(cache_control="max-age=300", age=age)})
    verify(world)
    world.pass_time(lifetime - 0.5)
    verify(world)
    assert world.calls(JWKS) == 1
    world.pass_time(0.5)
    verify(world)
    assert world.calls(JWKS) == 2


def test_keys_are_as_old_as_the_request_for_them():
    world = World()

    def slow(_: Any) -> Response:
        world.pass_time(14)
        return jwks()

    world.answers[JWKS] = slow
    verify(world)
    world.pass_time(480 - 14)
    verify(world)
    assert len(world.asides) == 1


# -- looks that fail -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [
        AuthserverUnavailable("down", code="timeout"),
        answer({}, 500),
        answer({"error": "denied"}, 403),
        answer({}, 302, location="https://evil.example/jwks"),
        answer({"keys": "none"}),
        answer({"keys": [1]}),
        answer({}),
        answer({"keys": [{}] * 101}),
        answer(b'{"keys": [], "keys": []}'),
        answer({"keys": []}, content_type="text/html"),
    ],
)
def test_a_look_that_fails_loses_no_key_and_is_an_error_only_without_one(failure, caplog):
    world = World({JWKS: jwks()})
    verify(world)
    world.answers[JWKS] = failure
    world.pass_time(601)
    with caplog.at_level(logging.WARNING, "django_baikal.client"):
        assert verify(world)["sub"] == "user"
        assert verify(world)["sub"] == "user"
    assert world.calls(JWKS) == 2
    assert caplog.text.count("keys cannot be renewed") == 1
    with pytest.raises(AuthserverError):
        verify(World({JWKS: failure}))


def test_while_looks_fail_nobody_waits_and_one_is_made_aside_in_each_cooldown():
    world = World({JWKS: jwks()})
    verify(world)
    world.answers[JWKS] = DOWN
    world.pass_time(480)
    look_aside(world)
    assert world.calls(JWKS) == 2
    for _ in range(10):
        world.pass_time(29.5)
        for _ in range(5):
            look_aside(world)
        calls = world.calls(JWKS)
        world.pass_time(0.5)
        verify(world)
        assert world.calls(JWKS) == calls, "the caller has not waited"
        world.finish_asides()
        assert world.calls(JWKS) == calls + 1
    world.answers[JWKS] = jwks()
    world.pass_time(30)
    look_aside(world)
    world.pass_time(479)
    look_aside(world)
    assert world.calls(JWKS) == 13, "and after a good one all is as before"


def test_a_failed_look_for_an_unknown_kid_does_not_bring_the_renewal_of_others_forward():
    world = World({JWKS: [jwks(), DOWN]})
    verify(world)
    world.pass_time(30)
    with pytest.raises(AuthserverUnavailable):
        verify(world, id_token(number=1, exp=2e9))
    world.pass_time(449)
    verify(world)
    assert world.asides == []
    world.pass_time(1)
    verify(world)
    assert len(world.asides) == 1


def test_keys_are_used_for_a_day_when_the_authserver_fails_and_no_longer():
    world = World({JWKS: jwks()})
    verify(world)
    world.answers[JWKS] = DOWN
    for _ in range(23):
        world.pass_time(3600)
        look_aside(world)
    world.pass_time(3599)
    look_aside(world)
    world.pass_time(1)
    calls = world.calls(JWKS)
    with pytest.raises(AuthserverUnavailable):
        verify(world)
    with pytest.raises(AuthserverUnavailable):
        verify(world)
    assert world.calls(JWKS) == calls + 2
    world.answers[JWKS] = jwks()
    assert verify(world)


def test_the_end_of_their_use_is_a_setting():
    world = World({JWKS: [jwks(), DOWN, DOWN]})
    verify(world, jwks_stale=700)
    world.pass_time(699)
    verify(world, jwks_stale=700)
    world.pass_time(1)
    with pytest.raises(AuthserverUnavailable):
        verify(world, jwks_stale=700)


def test_a_renewal_aside_that_fails_without_usable_keys_raises_nowhere():
    world = World({JWKS: [jwks(), DOWN]})
    verify(world, jwks_stale=600)
    world.pass_time(599)
    verify(world, jwks_stale=600)
    world.pass_time(1)
    world.finish_asides()
    assert world.calls(JWKS) == 2


def test_what_is_kept_of_a_failure_holds_no_frame():
    world = World({JWKS: [jwks(), DOWN]})
    verify(world)
    world.pass_time(600)
    verify(world)
    kept = world.memory["jwks"].failure
    assert str(kept) == "down"
    assert (kept.code, kept.__traceback__, kept.__context__) == ("connection_failed", None, None)


@pytest.mark.parametrize("outcome", [DOWN, jwks()])
def test_a_look_does_not_undo_one_that_was_begun_later(outcome):
    # Threads and coroutines line up separately, so two looks may be under way at once.
    world = World({JWKS: jwks()})
    verify(world)
    world.pass_time(600)

    def overtaken(_: Any) -> Any:
        world.pass_time(1)
        world.answers[JWKS] = jwks(jwk(number=1))
        assert verify(world, id_token(number=1, exp=2e9))
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    world.answers[JWKS] = overtaken
    with pytest.raises(InvalidSignature):
        verify(world)
    assert verify(world, id_token(number=1, exp=2e9))
    assert world.memory["jwks"].failure is None
    assert world.calls(JWKS) == 3


def test_keys_of_another_place_that_somebody_got_later_undo_nothing():
    world = World({JWKS: jwks()})
    verify(world)
    foreign = replace(world.memory.pop("jwks"), url=f"{SERVER}/elsewhere", good_at=9e9)

    def overtaken(_: Any) -> Response:
        world.memory["jwks"] = foreign
        return jwks()

    world.answers[JWKS] = overtaken
    assert verify(world)
    assert world.memory["jwks"].url == JWKS


def in_a_hurry(world: World, left: float) -> None:
    """Leave the callers from now on as many seconds."""
    performed = world.perform

    def perform(effect: Any) -> Any:
        result = performed(effect)
        return result._replace(left=left) if isinstance(effect, Now) else result

    world.perform = perform  # type: ignore[method-assign]


TIMEOUT = AuthserverUnavailable("no complete answer", code="timeout")


@pytest.mark.parametrize("passed", [30, 600])
@pytest.mark.parametrize("aside", [True, False])
def test_a_caller_in_a_hurry_does_not_say_for_all_that_the_authserver_fails(passed, aside):
    world = World({JWKS: jwks()})
    verify(world)
    world.answers[JWKS] = TIMEOUT
    world.pass_time(passed)
    patient = world.perform
    in_a_hurry(world, 7.499)
    new = id_token(number=1, exp=2e9)
    with pytest.raises(AuthserverUnavailable, match="no complete answer"):
        verify(world, new)
    assert verify(world), "who has its key needs no answer"
    assert world.memory["jwks"].failure is None
    world.perform = patient  # type: ignore[method-assign]
    world.answers[JWKS] = jwks(jwk(), jwk(number=1))
    calls = world.calls(JWKS)
    if aside:
        world.finish_asides()
        assert world.calls(JWKS) == calls + 1
    assert verify(world, new)
    assert world.calls(JWKS) == calls + 1


def test_a_look_aside_for_a_caller_in_a_hurry_may_be_in_vain():
    world = World({JWKS: jwks()})
    verify(world)
    world.answers[JWKS] = TIMEOUT
    patient = world.perform
    in_a_hurry(world, 1)
    unknown = id_token(number=1, exp=2e9)
    with pytest.raises(AuthserverUnavailable):
        verify(world, unknown)
    world.perform = patient  # type: ignore[method-assign]
    world.answers[JWKS] = jwks()
    world.finish_asides()
    with pytest.raises(InvalidSignature):
        verify(world, unknown)
    assert world.calls(JWKS) == 3


def test_a_caller_in_a_hurry_leaves_the_look_to_a_thread_that_has_time():
    world = World({JWKS: TIMEOUT})
    patient = world.perform
    in_a_hurry(world, 0.01)
    with pytest.raises(AuthserverUnavailable):
        verify(world)
    world.perform = patient  # type: ignore[method-assign]
    world.answers[JWKS] = jwks()
    world.finish_asides()
    assert world.calls(JWKS) == 2
    assert verify(world)
    assert world.calls(JWKS) == 2


@pytest.mark.parametrize("failure", [TIMEOUT, DOWN])
def test_a_look_that_had_half_of_the_time_or_failed_at_once_counts_for_all(failure):
    world = World({JWKS: jwks()})
    verify(world)
    world.answers[JWKS] = failure
    world.pass_time(600)
    in_a_hurry(world, 7.5 if failure is TIMEOUT else 0.1)
    for _ in range(3):
        verify(world)
    assert world.memory["jwks"].failure is not None
    assert (world.calls(JWKS), world.asides) == (2, [])


def test_a_look_that_fails_does_not_take_away_what_was_got_meanwhile():
    # As above, and at the same moment.
    world = World({JWKS: jwks()})
    verify(world)
    world.pass_time(600)
    performed = world.perform

    def perform(effect: Any) -> Any:
        if isinstance(effect, Fetch):
            world.perform = performed  # type: ignore[method-assign]
            world.answers[JWKS] = jwks(jwk(number=1))
            with pytest.raises(InvalidSignature):
                verify(world)
            raise DOWN
        return performed(effect)

    world.perform = perform  # type: ignore[method-assign]
    with pytest.raises(AuthserverUnavailable):
        verify(world)
    assert world.calls(JWKS) == 2
    assert verify(world, id_token(number=1, exp=2e9))


# -- an unknown kid --------------------------------------------------------------------------------


def test_an_unknown_kid_makes_it_look_again_but_not_within_thirty_seconds_of_one_in_vain():
    world = World({JWKS: jwks()})
    verify(world)
    new = id_token(number=1, exp=2e9)
    for passed in (0, 29):
        world.pass_time(passed)
        for _ in range(20):
            with pytest.raises(InvalidSignature):
                verify(world, new)
        assert world.calls(JWKS) == 2
        world.answers[JWKS] = jwks(jwk(), jwk(number=1))
    world.pass_time(1)
    assert verify(world, new)["sub"] == "user"
    assert world.calls(JWKS) == 3


def test_new_keys_are_believed_at_once_however_fast_they_follow_each_other():
    world = World()
    for number in range(4):
        world.answers[JWKS] = jwks(jwk(number=number))
        assert verify(world, id_token(number=number, exp=2e9))
        assert verify(world, id_token(number=number, exp=2e9))
    assert world.calls(JWKS) == 4


@pytest.mark.parametrize("said", ["", "no-store"])
def test_a_renewal_does_not_end_the_rest_after_a_look_in_vain(said):
    world = World({JWKS: jwks(cache_control=said)})
    verify(world)
    world.pass_time(465 if not said else 10)
    unknown = id_token(number=1, exp=2e9)
    with pytest.raises(InvalidSignature):
        verify(world, unknown)
    world.pass_time(29)
    look_aside(world)
    calls = world.calls(JWKS)
    with pytest.raises(InvalidSignature):
        verify(world, unknown)
    assert world.calls(JWKS) == calls
    world.pass_time(1)
    with pytest.raises(InvalidSignature):
        verify(world, unknown)
    assert world.calls(JWKS) == calls + 1


def test_the_cooldown_is_a_setting():
    world = World({JWKS: jwks()})
    for passed, calls in ((0, 1), (99, 1), (1, 2)):
        world.pass_time(passed)
        with pytest.raises(InvalidSignature):
            verify(world, id_token(number=1, exp=2e9), jwks_cooldown=100)
        assert world.calls(JWKS) == calls


def test_a_kid_that_nobody_could_look_for_is_not_the_bearers_fault():
    world = World({JWKS: [jwks(), DOWN]})
    verify(world)
    new = id_token(number=1, exp=2e9)
    world.pass_time(30)
    raised = []
    for _ in range(3):
        with pytest.raises(AuthserverUnavailable, match="down") as caught:
            verify(world, new)
        assert caught.value.code == "connection_failed"
        raised.append(caught.value)
        world.pass_time(9)
    assert len({*map(id, raised)}) == 3, "each caller has an error of its own"
    assert world.calls(JWKS) == 2
    assert verify(world), "and a known key is as good as before"
    world.answers[JWKS] = jwks()
    world.pass_time(3)
    with pytest.raises(InvalidSignature):
        verify(world, new)
    world.answers[JWKS] = DOWN
    with pytest.raises(InvalidSignature):
        verify(world, new)
    assert world.calls(JWKS) == 3


def test_a_token_without_kid_looks_for_nothing():
    world = World({JWKS: jwks(jwk(), jwk(number=1))})
    for _ in range(3):
        with pytest.raises(InvalidSignature):
            verify(world, signed({"alg": "RS256"}))
        world.pass_time(40)
    assert world.calls(JWKS) == 1


def late_for_the_keys(world: World) -> None:
    """Let the time of whoever waits for the keys run out."""
    performed = world.perform

    def perform(effect: Any) -> Any:
        if isinstance(effect, Share) and effect.name[0] == "jwks":
            raise AuthserverUnavailable("no answer within 1 seconds", code="timeout")
        return performed(effect)

    world.perform = perform  # type: ignore[method-assign]


def test_a_caller_whose_time_runs_out_uses_the_key_that_it_knows():
    world = World({JWKS: jwks()})
    verify(world)
    late_for_the_keys(world)
    world.pass_time(600)
    assert verify(world)
    with pytest.raises(AuthserverUnavailable):
        verify(world, id_token(number=1, exp=2e9))
    world.pass_time(86400)
    with pytest.raises(AuthserverUnavailable):
        verify(world)


def test_who_comes_second_does_not_fetch_again():
    # Two callers saw no keys; the second one's turn comes when the first one has finished.
    world = World({JWKS: jwks()})
    flow = verify_id_token(config(), id_token(), None, None)
    performed = world.perform

    def perform(effect: Any) -> Any:
        if isinstance(effect, Share) and effect.name[0] == "jwks":
            world.perform = performed  # type: ignore[method-assign]
            verify(world)
        return performed(effect)

    world.perform = perform  # type: ignore[method-assign]
    assert world.run(flow)["sub"] == "user"
    assert world.calls(JWKS) == 1


def test_keys_of_another_place_that_somebody_else_got_meanwhile_are_not_taken():
    world = World({JWKS: jwks()})
    verify(world)
    foreign = replace(world.memory.pop("jwks"), url=f"{SERVER}/elsewhere")
    performed = world.perform

    def perform(effect: Any) -> Any:
        if isinstance(effect, Share) and effect.name[0] == "jwks":
            world.memory["jwks"] = foreign
        return performed(effect)

    world.perform = perform  # type: ignore[method-assign]
    assert verify(world)
    assert (world.calls(JWKS), world.memory["jwks"].url) == (2, JWKS)


# -- where they are, and what they look like -------------------------------------------------------


def test_a_hundred_keys_are_read():
    assert verify(World({JWKS: jwks(*[jwk(kid=f"k{n}") for n in range(99)], jwk())}))


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/jwk-set+json"])
def test_both_media_types_of_a_set_are_read(kind):
    assert verify(World({JWKS: answer({"keys": [jwk()]}, content_type=kind)}))


def test_an_answer_that_is_no_json_is_an_error_of_the_authserver():
    html = Response(200, {"content-type": "application/json"}, b"<html>")
    with pytest.raises(InvalidResponse):
        verify(World({JWKS: html}))


@pytest.mark.parametrize("key_ops", [["sign"], [], "verify", None, {"verify": 1}, ["VERIFY"]])
def test_a_key_that_is_for_other_operations_verifies_nothing(key_ops):
    with pytest.raises(InvalidSignature):
        verify(World({JWKS: jwks({**jwk(), "key_ops": key_ops})}))


@pytest.mark.parametrize("key_ops", [["verify"], ["sign", "verify"], [7, "verify"]])
def test_a_key_that_is_for_verifying_verifies(key_ops):
    assert verify(World({JWKS: jwks({**jwk(), "key_ops": key_ops})}))


def test_a_set_that_has_moved_is_read_at_its_new_place_and_the_old_keys_are_gone():
    world = World({JWKS: jwks()})
    verify(world)
    moved = f"{SERVER}/moved"
    world.answers |= {OPENID: answer({**METADATA, "jwks_uri": moved}), moved: answer({}, 503)}
    world.pass_time(901)
    verify(world)
    world.finish_asides()
    with pytest.raises(AuthserverUnavailable):
        verify(world)
    world.answers[moved] = jwks(jwk(number=1))
    with pytest.raises(InvalidSignature):
        verify(world)
    assert verify(world, id_token(number=1, exp=2e9))


def test_metadata_that_names_no_keys_is_the_authservers_mistake():
    without = {name: value for name, value in METADATA.items() if name != "jwks_uri"}
    with pytest.raises(InvalidResponse) as caught:
        verify(World({OPENID: answer(without)}))
    assert caught.value.code == "endpoint_missing"
    assert verify(World({OPENID: answer(without), OAUTH: answer(METADATA), JWKS: jwks()}))


@pytest.mark.parametrize("uri", ["http://auth.example.com/jwks", "https://e@x/", 7, "data:,"])
def test_keys_are_fetched_from_no_place_that_is_not_safe(uri):
    world = World({"http://auth.example.com/jwks": jwks()}, jwks_uri=uri)
    with pytest.raises(InvalidResponse) as caught:
        verify(world)
    assert caught.value.code == "endpoint_refused"


def test_who_needs_no_keys_fetches_none():
    world = World({f"{SERVER}/token": token()})
    world.run(flows.grant_client(config(), "a", None, None))
    world.run(flows.grant_code(config(), "c", "https://me/cb", None, None, None))
    assert world.calls(JWKS) == 0


@pytest.mark.parametrize(
    "hopeless",
    [
        "a.b.c",
        "x",
        "",
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": ["RS256"]},
        {"alg": None},
        {"crit": ["exp"]},
        {"b64": True},
        {"kid": None},
        {"kid": 7},
        {"kid": ["k"]},
    ],
)
def test_nothing_is_fetched_for_a_token_that_no_key_could_verify(hopeless):
    world = World({JWKS: jwks()})
    value = hopeless if isinstance(hopeless, str) else signed({**HEADER, **hopeless})
    with pytest.raises(InvalidSignature):
        verify(world, value)
    assert world.requests == []


def test_no_key_is_fetched_for_an_algorithm_that_is_not_announced():
    world = World({JWKS: jwks()}, id_token_signing_alg_values_supported=["ES256"])
    with pytest.raises(InvalidSignature):
        verify(world)
    assert world.calls(JWKS) == 0


def test_which_metadata_narrows_the_algorithms_is_the_callers_choice():
    world = World(
        {JWKS: jwks()},
        id_token_signing_alg_values_supported=["ES256"],
        access_tokens_are_signed_with=["RS256"],
    )
    flow = verified_jwt(config(), id_token(), announced="access_tokens_are_signed_with")
    assert world.run(flow).claims["sub"] == "user"


# -- many at once ----------------------------------------------------------------------------------


@contextmanager
def serving() -> Iterator[tuple[FakeAuthserver, OpenIDClient, str]]:
    """Serve an authserver; gives a cold client of it, and an id token that it has signed."""
    back_to = "https://me.example/cb"
    with FakeAuthserver().serve() as server:
        entry = {name.lower(): value for name, value in server.settings(TIMEOUT=PATIENCE).items()}
        issuing = OpenIDClient(**entry)
        started = issuing.start_authorization(back_to, "openid")
        back = parse_qs(urlsplit(server.authorize(started.url)).query)
        answered = issuing.grant_code(
            back["code"][0],
            back_to,
            code_verifier=started.code_verifier,
            nonce=started.nonce,
            full_authserver_response=True,
        )
        server.requests.clear()
        yield server, OpenIDClient(**entry), answered["id_token"]


def test_fifty_cold_threads_make_one_fetch():
    with serving() as (server, client, value):
        server.fail("jwks", delay=0.3)
        with ThreadPoolExecutor(50) as pool:
            found = list(pool.map(client.verify_id_token, [value] * 50))
        assert len(found) == 50
        assert server.requests.count("jwks") == 1


def test_fifty_cold_tasks_make_one_fetch():
    with serving() as (server, client, value):
        server.fail("jwks", delay=0.3)

        async def all_at_once() -> list[Any]:
            return await asyncio.gather(*[client.averify_id_token(value) for _ in range(50)])

        assert len(asyncio.run(all_at_once())) == 50
        assert server.requests.count("jwks") == 1


def test_fifty_threads_that_know_the_key_do_not_wait_for_a_renewal_that_hangs():
    with serving() as (server, client, value):
        client.verify_id_token(value)
        # The keys grow old at once, for nobody wants to wait 480 s for it.
        memory = client._runtime.memory
        memory["jwks"] = replace(memory["jwks"], good_at=memory["jwks"].good_at - 500)
        then = memory["jwks"].good_at
        fault = server.fail("jwks", hang=True)
        with not_held_up(), ThreadPoolExecutor(50) as pool:
            assert len(list(pool.map(client.verify_id_token, [value] * 200))) == 200
        until(lambda: fault.hits, "the renewal begins")
        assert memory["jwks"].good_at == then, "all were done before the renewal was"
        fault.lift()
        until(lambda: memory["jwks"].good_at > then, "the renewal is done")
        assert (fault.hits, server.requests.count("jwks")) == (1, 2)


def test_an_unknown_kid_joins_the_renewal_that_is_under_way():
    with serving() as (server, client, value):
        client.verify_id_token(value)
        memory = client._runtime.memory
        then = memory["jwks"].good_at - 500
        memory["jwks"] = replace(memory["jwks"], good_at=then)
        fault = server.fail("jwks", hang=True)
        client.verify_id_token(value)
        until(lambda: fault.hits, "the renewal begins")
        flights = client._runtime.process.flights

        def joined() -> bool:
            return any(run._condition._waiters for run in list(flights._futures.values()))

        with ThreadPoolExecutor(1) as pool:
            unknown = pool.submit(client.verify_id_token, signed({**HEADER, "kid": "unknown"}))
            until(lambda: joined() or fault.hits > 1, "it joins, or asks itself")
            fault.lift()
            assert isinstance(unknown.exception(), InvalidSignature)
        assert fault.hits == 1


@both_ways
def test_whoever_comes_after_a_caller_in_a_hurry_gets_the_keys(call):
    with serving() as (server, client, value):
        call(client, "authorize", "openid", None, "https://me.example/cb")  # gets the metadata
        with server.fail("jwks", hang=True):
            with pytest.raises(AuthserverUnavailable) as caught:
                call(client, "verify_id_token", value, timeout=0.5)
            assert caught.value.code == "timeout"
        until(lambda: "jwks" in client._runtime.memory, "somebody else has the keys")
        server.fail("jwks", status=503)
        assert call(client, "verify_id_token", value)["sub"]


def test_a_task_that_is_cancelled_while_it_looks_for_all_leaves_that_to_another():
    with serving() as (server, client, value):
        fault = server.fail("jwks", hang=True)

        async def all_at_once() -> list[Any]:
            first = asyncio.create_task(client.averify_id_token(value))
            others = [asyncio.create_task(client.averify_id_token(value)) for _ in range(10)]
            await asyncio.to_thread(until, lambda: fault.hits, "the first one asks")
            first.cancel()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(others.pop(), 0.05)
            fault.lift()
            found = await asyncio.gather(*others)
            assert first.cancelled()
            return found

        assert len(asyncio.run(all_at_once())) == 9
        assert server.requests.count("jwks") == 2
