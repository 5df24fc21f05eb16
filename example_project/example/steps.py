"""The steps that the page and ``manage.py demo`` show: what is done, answered and proved."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
from asgiref.sync import async_to_sync

from django_baikal import BaikalError, OAuthError, OpenIDClient, clients
from django_baikal.keys.generate import generate_key, private_pem
from example import visits

Answers = Iterator[tuple[str, str]]

# No telephone has the country code 999.
USER = "tel:+999000000001"
SCOPE, USER_SCOPE, PURPOSE = "catalogue:read", "profile:read", "customer-self-service"
_PUBLIC_MEMBERS = ("alg", "use", "kty", "crv", "n", "e", "x", "y")
_PRIVATE_MEMBERS = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth", "k"))
_TIMEOUT = 5


class Unexpected(Exception):
    """A step did not come out as it has to; the text says how."""


@dataclass
class Journey:
    """What one run of the steps carries from step to step."""

    new_key_in: Path | None = None
    user_token: str = ""
    published: list[dict[str, Any]] = field(default_factory=list)

    @property
    def client(self) -> OpenIDClient:
        """The client of the settings."""
        return clients["default"]

    def publish(self) -> Answers:
        """Make a key, if this run is to have one, and read what the world can read of it."""
        if self.new_key_in is not None:
            start = time.perf_counter()
            name = make_key(self.new_key_in)
            yield "made", f"{name}, readable by its owner only, in {since(start)}"
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
        start = time.monotonic()
        answer = self.client.grant_user(USER, USER_SCOPE, PURPOSE, full_authserver_response=True)
        self.user_token = answer["access_token"]
        yield from told(answer)
        read_here = " and ".join(visits.since(start))
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
        forger = OpenIDClient(client_keys=[false_key])
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
        "OpenIDClient(client_keys=[{another key, with the kid of ours}]).grant_user(...)",
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

    journey: Journey
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    outcomes: list[Outcome] = field(default_factory=list)
    took: str = ""

    @property
    def succeeded(self) -> bool:
        """Whether every step came out as it has to."""
        return len(self.outcomes) == len(STEPS) and not self.outcomes[-1].problem

    def __iter__(self) -> Iterator[Outcome]:
        """Take the steps one by one."""
        beginning = time.perf_counter()
        for number, step in enumerate(STEPS, 1):
            start, problem = time.perf_counter(), ""
            answers: list[tuple[str, str]] = []
            try:
                answers.extend(step.perform(self.journey))
            except (BaikalError, Unexpected) as error:
                problem = hidden(str(error))
            outcome = Outcome(step, number, tuple(answers), since(start), problem)
            self.outcomes.append(outcome)
            self.took = since(beginning)
            yield outcome
            if problem:
                return


#: The latest run in this process, for the page.
latest: Run | None = None


def begin(*, new_key_in: Path | None = None) -> Run:
    """Begin a run, which is the latest one then; with ``new_key_in`` it makes a key there."""
    global latest
    latest = Run(Journey(new_key_in))
    return latest


def make_key(directory: Path) -> str:
    """Make a signing key in ``directory`` and give the name of its file."""
    name = f"{datetime.now(UTC):%Y-%m-%d}.pem"
    # Written under a name that nobody reads, so that nobody reads half a key.
    draft = directory / f".{name}"
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(private_pem(generate_key("RS256")))
    draft.rename(directory / name)
    return name


def read(url: str) -> dict[str, Any]:
    """Fetch a JSON object over HTTP, as anybody could."""
    try:
        response = requests.get(url, timeout=_TIMEOUT, allow_redirects=False)
        if response.status_code != 200:
            raise Unexpected(f"GET {url} answered {response.status_code}.")
        document = response.json()
    except requests.RequestException as error:
        raise Unexpected(f"GET {url} failed: {type(error).__name__}.") from None
    if not isinstance(document, dict):
        raise Unexpected(f"What is at {url} is not a JSON object.")
    return document


def told(claims: dict[str, Any]) -> Answers:
    """Show of an authserver's answer what a reader needs, and nothing that is secret."""
    if "access_token" in claims:
        yield "token", brief(claims["access_token"])
    for name in ("active", "sub", "client_id", "scope", "purpose", "token_type"):
        if name in claims:
            yield name, hidden(json.dumps(claims[name]).strip('"'))
    until = claims.get("exp")
    left = until - time.time() if isinstance(until, int | float) else claims.get("expires_in")
    if left is not None:
        yield "expires in", f"{left:.0f} s"


def brief(value: Any) -> str:
    """Shorten a token, or a number in a key, to what tells it from another."""
    text = str(value)
    return text if len(text) < 12 else f"{text[:6]}..."


def hidden(text: str) -> str:
    """Hide what looks like a telephone number."""
    return re.sub(r"\+?\d{7,}", "***", text)


def since(start: float) -> str:
    """Say how long ago ``time.perf_counter()`` was ``start``."""
    return in_words(time.perf_counter() - start)


def in_words(seconds: float) -> str:
    """Give a duration in a unit that can be read."""
    if seconds >= 1:
        return f"{seconds:.1f} s"
    milliseconds = seconds * 1000
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"
