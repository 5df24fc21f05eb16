"""Whatever happened before: no token is accepted that everybody could know to be bad.

Random histories of one token, on machines that share a cache and whose clocks differ.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from world import SERVER, World, answer, config

from django_baikal.exceptions import AuthserverError, AuthserverUnavailable, TokenError
from django_baikal.protocol import effects
from django_baikal.protocol.authenticate import authenticate, invalidate, known
from django_baikal.protocol.breaker import REST
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.recent import Recent

START = 1_800_000_000.0
LEEWAY = 5.0
#: An answer may take as long; a revocation meanwhile is not noticed by it.
SLOW = 2.0


@dataclass
class Shared:
    """What the machines have in common: true time, in seconds, and a cache that goes by it."""

    now: float = 0.0
    cache: dict[str, tuple[Any, float]] = field(default_factory=dict)
    marks: int = 0


class Machine(World):
    """A process, whose clock is ``ahead`` of true time."""

    def __init__(self, shared: Shared, ahead: float, answers: Any) -> None:
        super().__init__(answers)
        self.shared, self.ahead = shared, ahead
        # A class of its own, for what ends an era is the class's.
        self.recent = type("Own", (Recent,), {})()

    def authenticate(self, config: ClientConfig, *, fresh: bool) -> None:
        """Do what a client does."""
        wall = START + self.shared.now + self.ahead
        if fresh or known(config, self.recent, "T0ken", wall) is None:
            self.run(authenticate(config, "T0ken", fresh=fresh, recent=self.recent))

    def perform(self, effect: effects.Effect) -> Any:
        shared = self.shared
        self.wall, self.monotonic = START + shared.now + self.ahead, shared.now
        match effect:
            case effects.Sleep(seconds):
                shared.now += seconds
                return None
            case effects.RandomToken():
                shared.marks += 1
                return f"mark-{shared.marks}"
            case effects.CacheGet(name):
                value, until = shared.cache.get(json.dumps(name), (None, 0.0))
                return value if shared.now < until else None
            case effects.CacheSet(name, value, ttl):
                shared.cache[json.dumps(name)] = json.loads(json.dumps(value)), shared.now + ttl
                return None
            case effects.CacheAdd(name, value, ttl):
                if shared.now < shared.cache.get(json.dumps(name), (None, 0.0))[1]:
                    return False
                shared.cache[json.dumps(name)] = value, shared.now + ttl
                return True
            case effects.CacheDelete(name):
                shared.cache.pop(json.dumps(name), None)
                return None
        return super().perform(effect)


class History:
    """One token's life, and what the machines answer in the course of it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        choice, uniform = self.chance.choice, self.chance.uniform
        self.shared = Shared()
        self.end = choice([None, None, uniform(5, 200)])
        self.revoked_at: float | None = None
        self.known_at: float | None = None
        self.knowing: list[Machine] = []
        self.down = False
        self.down_until = -REST
        apart = choice([0.0, 0.0, 5.0, 30.0])
        self.machines = [
            Machine(self.shared, uniform(-apart, apart), {f"{SERVER}/introspect": self.say})
            for _ in range(choice([1, 2, 3]))
        ]
        self.config = config(
            introspection_ttl=choice([0, 5, 60]),
            introspection_negative_ttl=choice([0, 3, 10]),
            stale_if_error=choice([0, 0, 100]),
            process_ttl=choice([0, 0, 5, 20]),
        )
        self.told: list[Any] = [self.config, [machine.ahead for machine in self.machines]]

    def say(self, _: Any) -> Any:
        """Answer as the authserver, at once or not."""
        self.shared.now += self.chance.choice([0.0] * 4 + [self.chance.uniform(0, SLOW)])
        if self.down:
            raise AuthserverUnavailable("down", code="connection_failed")
        over = self.end is not None and self.shared.now >= self.end
        if self.revoked_at is not None or (over and self.chance.random() < 0.7):
            return answer({"active": False})
        end = {} if self.end is None else {"exp": START + self.end}
        return answer({"active": True, "sub": "anna", **end})

    def go_on(self) -> None:
        """Let one thing happen."""
        now = self.shared.now
        happens: Callable[[], None] = self.chance.choice(
            [self.ask] * 6 + [self.ask_fresh] * 2 + [self.pass_time] * 3
            + [self.revoke, self.forget, self.fail, self.recover]
        )  # fmt: skip
        self.told.append((round(now, 2), happens.__name__))
        happens()

    def pass_time(self) -> None:
        self.shared.now += self.chance.choice([0.1, 1, 4, 11, 30, 61])

    def revoke(self) -> None:
        if self.revoked_at is None:
            self.revoked_at = self.shared.now

    def forget(self) -> None:
        machine = self.chance.choice(self.machines)
        machine.run(invalidate(self.config, "T0ken", recent=machine.recent))
        self.learn(machine)

    def learn(self, machine: Machine) -> None:
        """Note that the machine knows that the token is revoked, if it is."""
        if self.revoked_at is not None:
            self.known_at = self.shared.now if self.known_at is None else self.known_at
            self.knowing.append(machine)

    def fail(self) -> None:
        self.down = True

    def recover(self) -> None:
        if self.down:
            self.down, self.down_until = False, self.shared.now

    def ask_fresh(self) -> None:
        self.ask(fresh=True)

    def ask(self, *, fresh: bool = False) -> None:
        machine, begun = self.chance.choice(self.machines), self.shared.now
        try:
            machine.authenticate(self.config, fresh=fresh)
        except AuthserverError:
            return
        except TokenError:
            self.learn(machine)
            return
        self.check(machine, begun, fresh=fresh)

    def check(self, machine: Machine, begun: float, *, fresh: bool) -> None:
        """Check that the token may be accepted now."""
        if self.end is not None:
            assert self.shared.now + machine.ahead <= self.end + LEEWAY, self.told
        if self.revoked_at is None:
            return
        assert machine not in self.knowing, self.told
        elsewhere = self.known_at is None or begun - self.known_at < self.config.process_ttl
        assert elsewhere, self.told
        assert not fresh or begun <= self.revoked_at, self.told
        clocks = [each.ahead for each in self.machines]
        most = self.config.introspection_ttl + SLOW + max(clocks) - min(clocks)
        if self.down or begun < self.down_until + REST:
            most += self.config.stale_if_error
        assert begun - self.revoked_at <= most, self.told


def test_no_history_lets_a_token_in_that_is_known_to_be_revoked_or_over(scale: Any) -> None:
    for seed in range(scale(400, 50_000)):
        history = History(seed)
        for _ in range(history.chance.randint(5, 40)):
            history.go_on()
