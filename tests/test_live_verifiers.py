"""Who verifies our assertions for long follows our keys, through a rotation and an emergency."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import jwt
import pytest
import requests
from live_stage import (
    JWKS,
    SHORT,
    Authserver,
    kid_of,
    project,
    rotate,
    until,
)
from programs import node, npm_packages
from verifying import LEEWAY, Cache, Verify, by_joserfc, by_jwcrypto, by_pyjwt, fetched

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.programs]

#: ``accepts(token)``; it keeps the JWK Set for a second, and may look again for an unknown kid.
Accepts: TypeAlias = Callable[[str], bool]


def pyjwk_client(url: str, audience: str) -> Accepts:
    """As PyJWT's users verify; an unknown kid makes it look again."""
    client = jwt.PyJWKClient(url, lifespan=1)

    def accepts(token: str) -> bool:
        try:
            key = client.get_signing_key_from_jwt(token)
            jwt.decode(token, key, ["ES256"], audience=audience, leeway=LEEWAY)
        except jwt.PyJWTError:
            return False
        return True

    return accepts


def refetching(verify: Verify, url: str, audience: str) -> Accepts:
    """As the users of a library do that fetches nothing; what is refused makes it look again."""
    cache = Cache(lambda: fetched(url))

    def accepts(token: str) -> bool:
        def accepted() -> bool:
            return verify(token, cache().jwks, ["ES256"], audience) is not None

        if accepted():
            return True
        cache.forget()
        return accepted()

    return accepts


@contextmanager
def python_verifiers(url: str, audience: str) -> Iterator[Mapping[str, Accepts]]:
    yield {
        "PyJWKClient": pyjwk_client(url, audience),
        "joserfc": refetching(by_joserfc, url, audience),
        "jwcrypto": refetching(by_jwcrypto, url, audience),
    }


@contextmanager
def node_verifiers(url: str, audience: str) -> Iterator[Mapping[str, Accepts]]:
    command, environment = node(npm_packages(), "follow.mjs", url, audience)
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def accepts(token: str) -> bool:
            assert process.stdin and process.stdout
            process.stdin.write(json.dumps({"token": token}) + "\n")
            process.stdin.flush()
            told = json.loads(process.stdout.readline())
            assert told.get("kid") == kid_of(token) or told["error"] == "ERR_JWKS_NO_MATCHING_KEY"
            return "kid" in told

        # Leaving the block closes its input, and so ends it.
        yield {"jose": accepts}


_SOON = replace(SHORT, jwks_max_age=1, process_max_stale=0)
#: A key stays published for so long after its turn that only a revocation ends it sooner.
TIMING = replace(_SOON, propagation=_SOON.shortest_propagation, retention=300, rotate_every=400)


@pytest.mark.parametrize("verifiers", [python_verifiers, node_verifiers])
def test_verifiers_follow_a_rotation_and_an_emergency(
    tmp_path: Path, verifiers: Callable[[str, str], Any]
) -> None:
    with ExitStack() as stack:
        authserver = stack.enter_context(Authserver(lambda *_: True).served())
        made = project(tmp_path, TIMING, {"default": authserver.url})
        site = stack.enter_context(made.served("--workers=2", "--threads=2"))
        jwks = site.url + JWKS
        known = stack.enter_context(verifiers(jwks, authserver.url))

        def signed() -> str:
            answer = requests.get(f"{site.url}/grant/default", timeout=60)
            assert answer.status_code == 200, answer.text
            return answer.text

        def refusing(token: str) -> list[str]:
            return [name for name, accepts in known.items() if not accepts(token)]

        assert fetched(jwks).jwks == {"keys": []}
        began = time.monotonic()
        rotate(made, "--check", may=(3,))
        # Later on a slow machine, so that it is the first key that signs first.
        later = 5 + 5 * (time.monotonic() - began)
        first = rotate(made, f"--activate-in={later:.0f}")["signs"]
        old = signed()
        assert (kid_of(old), refusing(old)) == (first, [])
        # Nothing has to run for the standby to take over.
        while kid_of(new := signed()) == first:
            assert refusing(new) == []
        kept_until = time.monotonic() + TIMING.jwks_max_age
        assert refusing(new) == refusing(old) == []
        until(lambda: time.monotonic() > kept_until)
        assert refusing(old) == refusing(signed()) == []

        second = kid_of(new)
        rotate(made)
        until(lambda: rotate(made, "--now", "--dry-run", may=(0, 4))["status"] == 0)
        before, stolen = fetched(jwks).jwks, signed()
        assert (kid_of(stolen), refusing(stolen)) == (second, [])
        rotate(made, "--emergency", f"--kid={second}")
        fresh = until(lambda: kid_of(token := signed()) != second and token)
        assert refusing(fresh) == []
        until(lambda: refusing(stolen) == list(known), seconds=60)
        assert refusing(fresh) == refusing(signed()) == refusing(old) == []
        # It is the key that they refuse, and not its age.
        assert by_pyjwt(stolen, before, ["ES256"], authserver.url)
