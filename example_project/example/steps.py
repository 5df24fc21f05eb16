"""The steps that the page and ``manage.py demo`` show: what is done, answered and proved."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from asgiref.sync import async_to_sync
from django.core.management import CommandError

from django_baikal import BaikalError, OAuthError, OpenIDClient, clients
from django_baikal.keys.generate import generate_key, private_pem
from example import clock, outage, protection, rotation, visits
from example.telling import (
    PURPOSE,
    SCOPE,
    USER,
    USER_SCOPE,
    Answers,
    Unexpected,
    brief,
    hidden,
    read,
    since,
    told,
)

_PUBLIC_MEMBERS = ("alg", "use", "kty", "crv", "n", "e", "x", "y")
_PRIVATE_MEMBERS = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth", "k"))


@dataclass
class Journey:
    """What one run of the steps carries from step to step."""

    user_token: str = ""
    published: list[dict[str, Any]] = field(default_factory=list)

    @property
    def client(self) -> OpenIDClient:
        """The client of the settings."""
        return clients["default"]

    def publish(self) -> Answers:
        """Make keys, if they are kept in the database, and read what the world can read of them."""
        if self.client.config.keys and rotation.rotate()["action"] == "created":
            yield "made", "by manage.py rotate_keys: one that signs, and the next"
        issuer = self.client.config.issuer
        if not issuer:
            raise Unexpected("ISSUER is missing (the variable BAIKAL_ISSUER).")
        metadata = read(issuer.rstrip("/") + "/.well-known/openid-configuration")
        yield "issuer", str(metadata.get("issuer"))
        jwks_uri = str(metadata.get("jwks_uri"))
        yield "its keys", jwks_uri
        found = read(jwks_uri).get("keys")
        for jwk in found if isinstance(found, list) else ():
            if isinstance(jwk, dict) and _PRIVATE_MEMBERS & jwk.keys():
                raise Unexpected("A private key is published!")
        ours = self.client.get_jwk_set(dump_json=False)
        if {"keys": found} != ours:
            raise Unexpected(f"{jwks_uri} gives other keys than ours: is ISSUER this site's URL?")
        if not found:
            raise Unexpected(
                "No key is published: put one in the directory that BAIKAL_PRIVATE_CERTS_PATH "
                "names."
            )
        self.published = found
        for jwk in self.published:
            shown = ((name, jwk[name]) for name in _PUBLIC_MEMBERS if name in jwk)
            numbers = ", ".join(f"{name} {brief(value)}" for name, value in shown)
            yield "public key", f"kid {jwk['kid']}, {numbers}"

    def own_token(self) -> Answers:
        """Get a token for the site."""
        answer = self.client.grant_client(SCOPE, full_authserver_response=True)
        yield from told(answer)

    def token_of_user(self) -> Answers:
        """Get a token for the user, on the strength of our signature."""
        before = visits.latest()
        answer = self.client.grant_user(USER, USER_SCOPE, PURPOSE, full_authserver_response=True)
        self.user_token = answer["access_token"]
        yield from told(answer)
        read_here = " and ".join(visits.since(before))
        yield (
            "meanwhile",
            f"the authserver read {read_here} here"
            if read_here
            else "the authserver read nothing here: it still had our keys",
        )

    def introspection(self) -> Answers:
        """Ask the authserver about the user's token."""
        claims = self.client.introspect(self.user_token)
        if claims["active"] is not True:
            raise Unexpected("The authserver says that the token it has just given is not active.")
        yield from told(claims)

    def forgery(self) -> Answers:
        """Do as before with a key that is not ours, under the name of ours."""
        ours = self.published[0]
        alg = ours["alg"] if ours.get("alg") in ("PS256", "ES256") else "RS256"
        false_key = {"key": private_pem(generate_key(alg)), "kid": ours["kid"]}
        config = replace(self.client.config, keys=None, client_keys=(false_key,))
        forger = OpenIDClient.of(config)
        try:
            forger.grant_user(USER, USER_SCOPE, PURPOSE)
        except OAuthError as error:
            yield "refused", f"{error.status} {error.error}"
            yield "its words", hidden(error.description or "(none)")
        else:
            raise Unexpected("The authserver has accepted a signature that is not ours!")

    def again(self) -> Answers:
        """Ask for one token three times."""
        client = self.client
        client.forget_token(SCOPE)
        tokens = []
        for name, get_token in (
            ("first", client.get_token),
            ("second", client.get_token),
            ("async", async_to_sync(client.aget_token)),
        ):
            start = time.perf_counter()
            tokens.append(get_token(SCOPE))
            yield name, f"{brief(tokens[-1])} in {since(start)}"
        if len(set(tokens)) > 1:
            raise Unexpected("The three tokens are not the same one: nothing was cached.")

    def revocation(self) -> Answers:
        """Give the user's token back."""
        self.client.revoke(self.user_token)
        claims = self.client.introspect(self.user_token)
        if claims["active"] is not False:
            raise Unexpected("The authserver still says that the revoked token is active.")
        yield from told(claims)

    def protection(self) -> Answers:
        """Call an API of ours with tokens of every kind."""
        yield from protection.every_answer(self.client)

    def outage(self) -> Answers:
        """Call it while nobody can be asked."""
        yield from protection.without_authserver(self.client)

    def rotation(self) -> Answers:
        """Let days pass, and the keys change."""
        yield from rotation.on_schedule(self.client)

    def emergency(self) -> Answers:
        """Lose a key to a thief."""
        yield from rotation.in_an_emergency(self.client)


@dataclass(frozen=True, slots=True)
class Step:
    """One step: its ``code`` as a project would write it, and what its success ``proves``."""

    title: str
    code: str
    proves: str
    perform: Callable[[Journey], Answers]


STEPS = (
    Step(
        "Our keys are made and published",
        "GET /.well-known/openid-configuration, then the jwks_uri that it names",
        "Whoever knows our ISSUER finds our public keys, and can check what we sign. The private "
        "half is not there, so nobody else can sign for us.",
        Journey.publish,
    ),
    Step(
        "A token for this site itself",
        f'clients["default"].grant_client("{SCOPE}")',
        "The authserver knows us by CLIENT_ID and CLIENT_SECRET. Such a token acts for the site "
        "and for no user.",
        Journey.own_token,
    ),
    Step(
        "A token for a user, on our signature",
        f'clients["default"].grant_user("tel:...", "{USER_SCOPE}", "{PURPOSE}")',
        "We signed an assertion that names the user. The authserver went from its issuer to our "
        "published keys and verified it; nobody had handed it a key.",
        Journey.token_of_user,
    ),
    Step(
        "What that token is worth",
        'clients["default"].introspect(token)',
        "An API that receives this token learns from the authserver, and not from the token, "
        "whom it stands for, what it allows and until when.",
        Journey.introspection,
    ),
    Step(
        "A forged signature is refused",
        "the same grant_user(...), with another key that has the kid of ours",
        "The forger had our CLIENT_ID, our CLIENT_SECRET and the name of our key, and still got "
        "nothing: only our private key speaks for our users.",
        Journey.forgery,
    ),
    Step(
        "Asked for again, a token costs nothing",
        f'clients["default"].get_token("{SCOPE}"), twice, then await ...aget_token(...)',
        "The first call asked the authserver; the others, sync and async alike, found the token "
        "in the cache, where it is kept sealed until shortly before it expires.",
        Journey.again,
    ),
    Step(
        "Revoked, a token is worth nothing",
        'clients["default"].revoke(token), then introspect(token)',
        "A token that is given back is refused from that moment by everybody who asks.",
        Journey.revocation,
    ),
    Step(
        "An API of ours asks for a token",
        f'GET /api/me, a view with @token_required(scopes="{USER_SCOPE}")',
        "Nobody gets in without a token that the authserver vouches for and that reaches far "
        "enough, and everybody is told what was missing, as RFC 6750 says.",
        Journey.protection,
    ),
)
#: A step of a process whose authserver can be switched off.
OUTAGE = (
    Step(
        "The authserver is away, and nobody gets in by that",
        "the authserver is stopped, GET /api/me, and it is started again",
        "A token that nobody can check is neither good nor bad: the caller may come back. One "
        "that was checked within the last minute still works, and afterwards all is well again.",
        Journey.outage,
    ),
)
#: The further steps of a process whose clock can be moved on, with the authserver's.
ROTATION = (
    Step(
        "On schedule the next key takes over",
        "manage.py rotate_keys, and the clock moved on past the next turn",
        "The next key was published a week before it signed, and the last one for a day after: "
        "nothing that either of them signed was refused, and nobody had to be told.",
        Journey.rotation,
    ),
    Step(
        "A key that has leaked is replaced at once",
        'manage.py rotate_keys --emergency --reason "..."',
        "The standby signs at once, for everybody knows it already. Whoever has the leaked key is "
        "believed no longer than an authserver keeps our keys, here for 15 minutes.",
        Journey.emergency,
    ),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step answered, as pairs of a name and a text; ``problem`` says why it failed."""

    step: Step
    number: int
    answers: tuple[tuple[str, str], ...]
    took: str
    problem: str = ""


@dataclass
class Run:
    """One run of the steps, as far as it has come; a step that fails is its last."""

    steps: tuple[Step, ...]
    journey: Journey = field(default_factory=Journey)
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    outcomes: list[Outcome] = field(default_factory=list)
    took: str = ""

    @property
    def succeeded(self) -> bool:
        """Whether every step came out as it has to."""
        return len(self.outcomes) == len(self.steps) and not self.outcomes[-1].problem

    def __iter__(self) -> Iterator[Outcome]:
        """Take the steps one by one."""
        beginning = time.perf_counter()
        for number, step in enumerate(self.steps, 1):
            start, problem = time.perf_counter(), ""
            answers: list[tuple[str, str]] = []
            try:
                answers.extend(step.perform(self.journey))
            except (BaikalError, CommandError, Unexpected) as error:
                problem = hidden(str(error))
            outcome = Outcome(step, number, tuple(answers), since(start), problem)
            self.outcomes.append(outcome)
            self.took = since(beginning)
            yield outcome
            if problem:
                return


#: The latest run in this process, for the page.
latest: Run | None = None


def known() -> tuple[Step, ...]:
    """Give the steps that can be taken in this process."""
    found = (*STEPS, *OUTAGE) if outage.possible() else STEPS
    return found if clock.ahead() is None else (*found, *ROTATION)


def begin() -> Run:
    """Begin a run, which is the latest one then."""
    global latest
    latest = Run(known())
    return latest
