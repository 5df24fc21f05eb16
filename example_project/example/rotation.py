"""The steps of which the clock is moved on: keys that rotate, on schedule and in an emergency."""

from __future__ import annotations

import io
import json
import secrets
import time
from datetime import datetime, timedelta
from typing import Any

import requests
from django.core.management import call_command
from django.utils import timezone

from django_baikal import OpenIDClient
from django_baikal.keys import KeyMaterial, keepers
from example import clock, visits
from example.telling import PURPOSE, TIMEOUT, USER, USER_SCOPE, Answers, Unexpected, brief, read

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
#: How long the demo's authserver keeps our keys.
KEPT = 15 * MINUTE


def rotate(**options: Any) -> dict[str, Any]:
    """Run ``manage.py rotate_keys``, and give its report."""
    printed = call_command("rotate_keys", format="json", stdout=io.StringIO(), **options)
    report: dict[str, Any] = json.loads(printed)
    return report


def on_schedule(client: OpenIDClient) -> Answers:
    """Let the next key's turn come, and the time of the one before end."""
    report = rotate()
    turn, new = datetime.fromisoformat(report["activates_at"]), report["kid"]
    old = _published(client)[0]
    days, hours = _move_to(turn - 13 * MINUTE)
    yield "the clock", f"moved on by {days} days and {hours} hours, towards the turn"
    _grant(client)
    yield "- 13 min", f"{brief(old)} signs: accepted, with our keys as of now"
    _move_to(turn - MINUTE)
    kept_back = _assertion(client, _signing_key())
    yield "- 1 min", f"{brief(old)} signs, and this assertion is kept back"
    _move_to(turn + SECOND)
    if (signs := _published(client)[0]) != new:
        raise Unexpected(f"The turn of {brief(new)} has come, and {brief(signs)} signs.")
    _grant(client, known=new)
    yield "the turn", f"{brief(new)} signs: accepted, for it was known already"
    _move_to(turn - 13 * MINUTE + KEPT + SECOND)
    before = visits.latest()
    if (said := _present(client, kept_back)) != "accepted":
        raise Unexpected(f"What {brief(old)} had signed before the turn was {said}.")
    yield "+ 2 min", f"{_reading(before)}; what was kept back: {said}"
    report = rotate()
    _move_to(datetime.fromisoformat(report["unpublish_at"][old]) + SECOND)
    _grant(client)
    if old in (kids := _published(client)):
        raise Unexpected(f"{brief(old)} is still published.")
    yield "+ 1 day", f"{brief(new)} signs: accepted"
    yield "", f"{brief(old)} has left, and {brief(kids[1])} comes next"


def in_an_emergency(client: OpenIDClient) -> Answers:
    """Let somebody have our private key, and revoke it."""
    leaked = _signing_key()
    if (said := _present(client, _assertion(client, leaked))) != "accepted":
        raise Unexpected(f"The key that signs for us was {said}.")
    yield "leaked", f"{brief(leaked.kid)}: a thief signs with it, and is accepted"
    rotate(emergency=True, reason="It was in a backup that anybody could read.")
    yield "revoked", f"{brief(leaked.kid)}, and its private half is wiped"
    # Each process has looked at the ring by then.
    clock.forward(MINUTE + SECOND)
    if leaked.kid in (kids := _published(client)):
        raise Unexpected(f"{brief(leaked.kid)} is still published.")
    yield "+ 1 min", f"our JWK Set: {', '.join(map(brief, kids))}"
    _grant(client, known=kids[0])
    yield "", f"{brief(kids[0])} signs: accepted, for it was known already"
    clock.forward(KEPT)
    before = visits.latest()
    if (said := _present(client, _assertion(client, leaked))) == "accepted":
        raise Unexpected("The authserver still believes the thief.")
    yield "+ 16 min", _reading(before)
    yield "", f"the thief: {said}"


def _move_to(moment: datetime) -> tuple[int, int]:
    """Move the clock on to ``moment``; give how far, in days and hours."""
    length = moment - timezone.now()
    clock.forward(length)
    return length.days, length.seconds // 3600


def _published(client: OpenIDClient) -> list[str]:
    """Give the kids that the world can read, the one that signs first."""
    keys = read(client.config.issuer.rstrip("/") + "/.well-known/jwks.json")["keys"]
    return [jwk["kid"] for jwk in keys]


def _grant(client: OpenIDClient, *, known: str = "") -> None:
    """Get a token for the user; the authserver has to know the key ``known`` already."""
    before = visits.latest()
    client.grant_user(USER, USER_SCOPE, PURPOSE)
    if known and visits.since(before):
        raise Unexpected(
            f"The authserver had to read our keys, for it did not know {brief(known)}."
        )


def _reading(before: visits.Visit) -> str:
    return "our keys are read anew" if visits.since(before) else "nothing is read"


def _signing_key() -> KeyMaterial:
    """Take the private key, as we can, and whoever has our database and SECRET_KEY."""
    key = keepers()["default"].store.signing_key()
    assert key is not None  # noqa: S101 - the first step has made one
    return key


def _assertion(client: OpenIDClient, key: KeyMaterial) -> str:
    """Sign what ``grant_user`` would, to be presented later or by somebody else."""
    now = int(time.time())
    return key.sign(
        {
            "iss": client.config.issuer,
            "sub": USER,
            "aud": client.config.authserver_endpoint,
            "iat": now,
            "exp": now + int(client.config.assertion_lifetime),
            "jti": secrets.token_urlsafe(),
            "scope": USER_SCOPE,
            "purpose": PURPOSE,
        }
    )


def _present(client: OpenIDClient, assertion: str) -> str:
    """Ask for a token with an assertion, and say in a few words what came of it."""
    config = client.config
    url = f"{config.authserver_endpoint}/token"
    try:
        response = requests.post(
            url,
            {"grant_type": JWT_BEARER, "assertion": assertion},
            auth=(config.client_id, config.client_secret),
            timeout=TIMEOUT,
        )
        answer = response.json()
    except requests.RequestException as error:
        raise Unexpected(f"POST {url} failed: {type(error).__name__}.") from None
    if response.status_code == 200:
        return "accepted"
    return f"refused, {response.status_code} {answer['error']}"
