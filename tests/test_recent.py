"""What a process knows of tokens without the cache: for seconds, and never longer."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from loopback import free_port
from world import SERVER, World, answer, config

from django_baikal import OpenIDClient, clients
from django_baikal.aio import token_key
from django_baikal.exceptions import ConfigurationError, InactiveToken, TokenError
from django_baikal.protocol import effects
from django_baikal.protocol.authenticate import authenticate, invalidate, known
from django_baikal.protocol.recent import Recent
from django_baikal.protocol.recent import token_key as bearer_key
from django_baikal.testing import FakeAuthserver

TESTS = Path(__file__).resolve().parent
NOW = 1_800_000_000.0


def test_it_is_good_from_when_it_was_learned_until_it_ends() -> None:
    recent = Recent()
    recent.keep("a", 1, since=NOW, until=NOW + 5, era=recent.era)
    assert recent.get("a", NOW) == recent.get("a", NOW + 4.9) == 1
    assert recent.get("a", NOW + 5) is None
    assert recent.get("a", NOW - 0.1) is None, "the clock was put back"
    assert recent.get("b", NOW) is None


def test_those_that_were_used_last_stay() -> None:
    recent = Recent(2)
    for key in "ab":
        recent.keep(key, key, since=NOW, until=NOW + 5, era=recent.era)
    recent.get("a", NOW)
    recent.keep("c", "c", since=NOW, until=NOW + 5, era=recent.era)
    assert [recent.get(key, NOW) for key in "abc"] == ["a", None, "c"]


def test_nothing_from_before_the_end_of_an_era_counts_in_any_client_of_the_process() -> None:
    one, other = Recent(), Recent()
    era = one.era
    one.keep("a", 1, since=NOW, until=NOW + 5, era=era)
    other.end_era()
    assert one.get("a", NOW) is None
    one.keep("a", 1, since=NOW, until=NOW + 5, era=era)
    assert one.get("a", NOW) is None, "it was learned in the era that has ended"


def test_a_token_is_not_in_the_key() -> None:
    assert b"T0ken" not in bearer_key("T0ken")
    assert bearer_key("T0ken") != bearer_key("t0ken")
    assert bearer_key("\ud800"), "whatever it is"


# -- flows ----------------------------------------------------------------------------------------


class Stopping(World):
    """Does something else when an effect of that kind has been performed."""

    def __init__(self, kind: Any, meanwhile: Any) -> None:
        super().__init__({f"{SERVER}/introspect": answer({"active": True, "sub": "anna"})})
        self.kind, self.meanwhile = kind, meanwhile

    def perform(self, effect: effects.Effect) -> Any:
        found = super().perform(effect)
        if isinstance(effect, self.kind) and self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile(self)
        return found


@pytest.mark.parametrize("fresh", [False, True], ids=["invalidate", "found by a fresh question"])
def test_what_was_read_before_a_revocation_was_known_is_not_kept(fresh: bool) -> None:
    recent, settings = Recent(), config()

    def meanwhile(world: World) -> None:
        world.answers[f"{SERVER}/introspect"] = answer({"active": False})
        if not fresh:
            world.run(invalidate(settings, "T0ken", recent=recent))
            return
        with pytest.raises(InactiveToken):
            world.run(authenticate(settings, "T0ken", fresh=True, recent=recent))

    world = Stopping(effects.CacheGet, None)
    world.run(authenticate(settings, "T0ken", recent=Recent()))
    world.meanwhile = meanwhile
    # It has looked into the cache, and found that the token was good.
    assert world.run(authenticate(settings, "T0ken", recent=recent)).subject == "anna"
    assert known(settings, recent, "T0ken", world.wall) is None


def said(world: World, recent: Recent, **settings: Any) -> list[float]:
    """Give how many seconds after the question the token is known without another look."""
    changed = config(**settings)
    world.run(authenticate(changed, "T0ken", recent=recent))
    begun = world.wall
    steps = [0.0, 1, 2, 4, 6, 9, 11, 59, 61]
    return [step for step in steps if known(changed, recent, "T0ken", begun + step) is not None]


@pytest.mark.parametrize(
    ("settings", "claims", "seconds"),
    [
        ({}, {}, [0, 1, 2, 4]),
        ({"process_ttl": 10}, {}, [0, 1, 2, 4, 6, 9]),
        ({"process_ttl": 3600}, {}, [0, 1, 2, 4, 6, 9, 11, 59]),
        ({"process_ttl": 0}, {}, []),
        ({"introspection_ttl": 0}, {}, []),
        ({"introspection_ttl": 2}, {}, [0, 1]),
        ({"process_ttl": 10}, {"exp": 5}, [0, 1, 2, 4]),
        ({"process_ttl": 10}, {"exp": -2}, []),
    ],
    ids=str,
)
def test_it_is_used_no_longer_than_each_of_the_settings_and_the_token_say(
    settings: dict[str, Any], claims: dict[str, float], seconds: list[float]
) -> None:
    world = World()
    times = {name: world.wall + value for name, value in claims.items()}
    world.answers[f"{SERVER}/introspect"] = answer({"active": True, "sub": "anna", **times})
    assert said(world, Recent(), **settings) == seconds


def test_an_answer_that_is_old_already_is_used_for_what_is_left_of_it() -> None:
    world, recent = World(), Recent()
    world.answers[f"{SERVER}/introspect"] = answer({"active": True, "sub": "anna"})
    world.run(authenticate(config(stale_if_error=100), "T0ken", recent=Recent()))
    world.pass_time(58)
    assert said(world, recent) == [0, 1]
    world.pass_time(3)
    world.answers[f"{SERVER}/introspect"] = answer({}, 503)
    # Let pass by STALE_IF_ERROR, and looked at anew each time.
    assert said(world, recent, stale_if_error=100) == []


# -- clients --------------------------------------------------------------------------------------


class Counting(LocMemCache):
    """Counts what it is asked for."""

    gets: ClassVar[list[str]] = []

    def get(self, key: str, *args: Any, **kwargs: Any) -> Any:
        Counting.gets.append(key)
        return super().get(key, *args, **kwargs)


@pytest.fixture
def authserver(settings: Any) -> Any:
    with FakeAuthserver().in_memory() as server:
        cache = {"BACKEND": f"{__name__}.Counting", "LOCATION": f"recent-{id(server)}"}
        settings.CACHES = {"default": cache}
        settings.BAIKAL = {"default": server.settings()}
        yield server


def looks(call: Any, times: int = 3) -> list[int]:
    """Call, and give how often the cache was read each time."""
    found = []
    for _ in range(times):
        Counting.gets.clear()
        call()
        found.append(len(Counting.gets))
    return found


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Any:
    wall, moved = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: wall() + moved[0])

    def later(seconds: float) -> None:
        moved[0] += seconds

    return later


BOTH = {
    "sync": lambda client, name, *args, **named: getattr(client, name)(*args, **named),
    "async": lambda client, name, *args, **named: asyncio.run(
        getattr(client, f"a{name}")(*args, **named)
    ),
}
both = pytest.mark.parametrize("call", BOTH.values(), ids=BOTH.keys())


@both
def test_a_bearer_is_known_without_the_cache_for_process_ttl(call, authserver, later) -> None:
    client, token = clients["default"], authserver.issue_token(sub="anna", scope="a")
    call(client, "authenticate", token)
    assert looks(lambda: call(client, "authenticate", token)) == [0, 0, 0]
    later(6)
    assert looks(lambda: call(client, "authenticate", token), 2) == [1, 0]
    off = OpenIDClient(process_ttl=0)
    assert looks(lambda: call(off, "authenticate", token)) == [1, 1, 1]
    assert not off._runtime.recent._entries
    assert authserver.requests.count("introspection") == 1


@both
@pytest.mark.parametrize("how", ["fresh", "INTROSPECTION_TTL"])
def test_who_asks_each_time_is_told_each_time(call, how, authserver) -> None:
    token = authserver.issue_token(sub="anna")
    client = OpenIDClient(introspection_ttl=0) if how != "fresh" else OpenIDClient()
    named = {"fresh": True} if how == "fresh" else {}
    client.authenticate(token)
    for calls in (2, 3):
        call(client, "authenticate", token, **named)
        assert authserver.requests.count("introspection") == calls
    authserver.revoke_token(token)
    with pytest.raises(InactiveToken):
        call(client, "authenticate", token, **named)


@both
def test_invalidate_holds_at_once_for_every_client_of_the_process(call, authserver) -> None:
    one, other = clients["default"], OpenIDClient()
    token = authserver.issue_token(sub="anna")
    for client in (one, other):
        client.authenticate(token)
    authserver.revoke_token(token)
    call(one, "invalidate", token)
    for client in (one, other):
        with pytest.raises(InactiveToken):
            call(client, "authenticate", token)


@both
def test_a_token_found_revoked_by_one_is_good_for_no_client_of_the_process(
    call, authserver
) -> None:
    one, other = clients["default"], OpenIDClient()
    token = authserver.issue_token(sub="anna")
    for client in (one, other):
        client.authenticate(token)
    authserver.revoke_token(token)
    with pytest.raises(InactiveToken):
        call(one, "authenticate", token, fresh=True)
    with pytest.raises(InactiveToken):
        call(other, "authenticate", token)


@both
def test_a_token_found_revoked_by_any_question_is_not_known_any_more(call, authserver) -> None:
    client, token = clients["default"], authserver.issue_token(sub="anna")
    call(client, "authenticate", token)
    authserver.revoke_token(token)
    caches["default"].clear()
    assert call(client, "authenticate", token).subject == "anna"
    with pytest.raises(InactiveToken):
        call(client, "authenticate", token, timeout=60)
    with pytest.raises(InactiveToken):
        call(client, "authenticate", token)


def test_bad_tokens_take_no_room(authserver) -> None:
    client = OpenIDClient()
    for number in range(20):
        with pytest.raises(TokenError):
            client.authenticate(f"bad-{number}")
    assert not client._runtime.recent._entries


def test_what_a_caller_does_to_its_claims_is_nobody_elses(authserver) -> None:
    client = clients["default"]
    token = authserver.issue_token(sub="anna", aud=["test-client"], details={"of": ["a"]})
    for _ in range(3):
        claims: Any = client.authenticate(token).claims
        assert (claims["aud"], claims["details"]) == (["test-client"], {"of": ["a"]})
        claims["aud"].append("evil")
        claims["details"]["of"].append("b")
        claims["sub"] = "admin"
    assert client.authenticate(token).subject == "anna"


def test_the_token_is_nowhere_in_the_memory_of_it(authserver) -> None:
    client, token = OpenIDClient(), authserver.issue_token(sub="anna")
    client.authenticate(token)
    (entry,) = client._runtime.recent._entries.items()
    assert token not in repr(entry)
    info, _ = entry[1].value
    assert token not in str(vars(info))


@both
def test_arguments_that_are_wrong_are_refused_for_a_token_that_is_known(call, authserver) -> None:
    client, token = clients["default"], authserver.issue_token(sub="anna")
    client.authenticate(token)
    client.get_token(["a"])
    client.get_token(["a"])
    for wrong in ({"timeout": 0}, {"headers": {"Authorization": "x"}}):
        for name, argument in (("authenticate", token), ("get_token", ["a"])):
            with pytest.raises(Exception, match=r"timeout|[Hh]eader"):
                call(client, name, argument, **wrong)


@both
def test_a_token_of_ours_is_known_without_the_cache_for_process_ttl(
    call, authserver, later
) -> None:
    client = clients["default"]
    first = call(client, "get_token", ["a", "b"], sub=None)
    call(client, "get_token", ["a", "b"])
    assert looks(lambda: call(client, "get_token", ["a", "b"])) == [0, 0, 0]
    assert looks(lambda: call(client, "get_token", ("a", "b"))) == [0, 0, 0]
    assert call(client, "get_token", ["a"]) != first
    later(6)
    assert looks(lambda: call(client, "get_token", ["a", "b"]), 2) == [1, 0]
    assert call(client, "get_token", ["a", "b"]) == first
    assert looks(lambda: call(client, "get_token", iter(["a", "b"])), 2) == [1, 1]
    assert looks(lambda: call(client, "get_token", {"a", "b"}), 2) == [1, 1]
    with pytest.raises(ConfigurationError):
        call(client, "get_token", [["a"]])


def test_no_token_is_given_for_other_arguments_than_its_own() -> None:
    plain = (["a"], ["p"], "anna", None, None, None)
    others = [
        (["b"], ["p"], "anna", None, None, None),
        (["a"], ["q"], "anna", None, None, None),
        (["a"], ["p"], "bert", None, None, None),
        (["a"], ["p"], None, None, None, None),
        (["a"], ["p"], "anna", "id", None, None),
        (["a"], ["p"], "anna", None, {"ip": "1"}, None),
        (["a"], ["p"], "anna", None, {"ip": "2"}, None),
        (["a"], ["p"], "anna", None, None, "2"),
    ]
    assert token_key(*plain) == token_key(*plain)
    assert len({token_key(*each) for each in [plain, *others]}) == 9


@pytest.mark.parametrize("way", ["in_memory", "serve"])
def test_what_one_fake_authserver_has_said_is_nothing_to_the_next(settings, way) -> None:
    seen = set()
    port = free_port()
    for _ in range(2):
        server = FakeAuthserver()
        with server.in_memory() if way == "in_memory" else server.serve(port=port):
            settings.BAIKAL = {"default": server.settings()}
            caches["default"].clear()
            seen.update(clients["default"].get_token(["a"]) for _ in range(2))
            assert len(seen) <= 2
    assert len(seen) == 2


@both
def test_a_forgotten_token_is_given_to_nobody_of_the_process(call, authserver) -> None:
    client, session = clients["default"], clients["default"]
    first = call(client, "get_token", ["a"])
    call(client, "get_token", ["a"])
    call(client, "forget_token", ["a"], token="another")
    assert call(session, "get_token", ["a"]) == first
    call(client, "get_token", ["a"])
    call(client, "forget_token", ["a"], token=first)
    second = call(session, "get_token", ["a"])
    assert second != first
    call(client, "get_token", ["a"])
    call(client, "forget_token", ["a"])
    assert call(session, "get_token", ["a"]) not in (first, second)


def test_a_token_is_not_given_when_it_is_due_to_be_renewed(settings, later) -> None:
    with FakeAuthserver(access_token_lifetime=8).in_memory() as server:
        settings.BAIKAL = {"default": server.settings(PROCESS_TTL=60)}
        caches["default"].clear()
        client = clients["default"]
        first = client.get_token(["a"])
        assert client.get_token(["a"]) == first
        later(5)  # more than half of its life
        assert client.get_token(["a"]) != first


def test_elsewhere_invalidate_holds_after_process_ttl(settings, tmp_path, later) -> None:
    cache = {
        "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
        "LOCATION": str(tmp_path),
    }
    settings.CACHES = {"default": cache}
    with FakeAuthserver().serve() as server:
        entry = server.settings(PROCESS_TTL=3600, INTROSPECTION_TTL=3600)
        settings.BAIKAL = {"default": entry}
        token = server.issue_token(sub="anna")
        clients["default"].authenticate(token)
        server.revoke_token(token)
        script = f"""
            import sys
            from django.conf import settings
            settings.configure(
                SECRET_KEY={settings.SECRET_KEY!r}, CACHES={settings.CACHES!r},
                BAIKAL={settings.BAIKAL!r},
            )
            from django_baikal import clients
            clients["default"].invalidate(sys.stdin.read())
        """
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            input=token, text=True, check=True, timeout=120, cwd=TESTS, env=dict(os.environ),
        )  # fmt: skip
        assert clients["default"].authenticate(token).subject == "anna", "nobody has told this one"
        later(3600)
        with pytest.raises(InactiveToken):
            clients["default"].authenticate(token)


def test_a_python_without_blake2_knows_tokens_too() -> None:
    program = (
        "import sys; sys.modules['_blake2'] = None\n"
        "from django_baikal.protocol.recent import token_key\n"
        "print(len(token_key('T0ken')), token_key('T0ken') == token_key('T0ken'))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["32", "True"], done.stderr
