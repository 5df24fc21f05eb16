"""The steps that call this site's own API, as anybody could, and what it answers."""

from __future__ import annotations

import re
from typing import NamedTuple

import requests
from django.urls import reverse

from django_baikal import OpenIDClient
from example import outage
from example.telling import PURPOSE, SCOPE, TIMEOUT, USER, USER_SCOPE, Answers, Unexpected

FORGED = "forged-by-somebody-who-has-no-idea"
_SHOWN = ("WWW-Authenticate", "Retry-After", "Cache-Control", "Vary")
_DESCRIPTION = re.compile(r' error_description="[^"]*",?')


class Call(NamedTuple):
    """What the API answered: the status, the headers that matter, and the body."""

    status: str
    headers: tuple[tuple[str, str], ...]
    body: str

    @property
    def brief(self) -> str:
        """The answer in a line."""
        said = dict(self.headers)
        challenge = _DESCRIPTION.sub("", said.get("WWW-Authenticate", "")).rstrip(",")
        wait = said.get("Retry-After")
        return f"{self.status}, {challenge or (wait and f'Retry-After: {wait}') or self.body}"


def call(client: OpenIDClient, token: str | None) -> Call:
    """GET the API with ``token``, or without one."""
    url = client.config.issuer.rstrip("/") + reverse("me")
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        answer = requests.get(url, headers=headers, timeout=TIMEOUT, allow_redirects=False)
    except requests.RequestException as error:
        raise Unexpected(f"GET {url} failed: {type(error).__name__}.") from None
    shown = tuple((name, answer.headers[name]) for name in _SHOWN if name in answer.headers)
    return Call(f"{answer.status_code} {answer.reason}", shown, answer.text)


def _expect(status: int, answer: Call) -> str:
    if not answer.status.startswith(str(status)):
        raise Unexpected(f"The API answered {answer.status} in place of {status}.")
    return answer.brief


def user_token(client: OpenIDClient) -> str:
    """Get a token of the user's, with the scope that the API needs."""
    return client.get_token(USER_SCOPE, PURPOSE, sub=USER)


def get_ready(client: OpenIDClient) -> None:
    """Get all tokens that ``press`` may need, for nobody gives one without an authserver."""
    user_token(client)
    client.get_token(SCOPE)


def every_answer(client: OpenIDClient) -> Answers:
    """Call the API with tokens of every kind."""
    yield "none", _expect(401, call(client, None))
    yield "forged", _expect(401, call(client, FORGED))
    yield "no scope", _expect(403, call(client, client.get_token(SCOPE)))
    yield "good", _expect(200, call(client, user_token(client)))


def without_authserver(client: OpenIDClient) -> Answers:
    """Call the API while the authserver is away, and when it is there again."""
    known = user_token(client)
    yield "before", _expect(200, call(client, known))
    new = client.grant_user(USER, USER_SCOPE, PURPOSE)
    outage.switch_off()
    try:
        yield "stopped", f"a new token: {_expect(503, call(client, new))}"
        yield "", f"the known one: {_expect(200, call(client, known))}"
    finally:
        outage.switch_on()
    yield "started", f"the new token: {_expect(200, call(client, new))}"


#: What the buttons of the page do, by their names.
KINDS = {
    "none": "without a token",
    "forged": "with a forged token",
    "weak": "with a token without the scope",
    "good": "with a good token",
}


def press(client: OpenIDClient, kind: str) -> Call:
    """Call the API as a button says; nothing is known of the token but what is found out now."""
    tokens = {"forged": lambda: FORGED, "weak": lambda: client.get_token(SCOPE)}
    token = None if kind == "none" else tokens.get(kind, lambda: user_token(client))()
    if token is not None:
        client.invalidate(token)
    return call(client, token)
