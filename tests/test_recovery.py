"""What the guide says to do when a row was tampered with, done for real; and what verifiers see."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import call_command
from django.test import override_settings
from keys_stage import aliases, everything, refused, rows, run

from django_baikal import OpenIDClient, conf
from django_baikal.exceptions import BaikalError, InvalidSignature, StoreUnavailable
from django_baikal.models import SigningKey
from django_baikal.protocol import jws

pytestmark = pytest.mark.django_db

CLAIMS = {"sub": "me"}
GUIDE = 'See "When a row was tampered with" in the guide "Rotate your keys".'


class Process:
    """One of our processes: it has what it has read, and reads anew each time it may."""

    def __init__(self) -> None:
        self._runtime = OpenIDClient.of(conf.client_config("default"))._runtime

    def jwks(self) -> Any:
        return self._runtime.keyring.jwk_set()["keys"]

    def token(self) -> str:
        return self._runtime.sign(CLAIMS)


def verified(token: str, jwks: Any) -> bool:
    """Tell what somebody says who holds this JWK Set."""
    try:
        jws.verify(token, jwks, algorithms=["ES256"])
    except InvalidSignature:
        return False
    return True


def kids(process: Process) -> list[str]:
    return [jwk["kid"] for jwk in process.jwks()]


def options(**more: Any) -> Any:
    return override_settings(BAIKAL=aliases(default={"PROCESS_CACHE_TTL": 0, **more}))


@pytest.fixture(autouse=True)
def _ring() -> Any:
    with options():
        run("rotate_keys")
        yield


def backup() -> str:
    out = io.StringIO()
    call_command("dumpdata", "django_baikal.signingkey", stdout=out)
    return out.getvalue()


def put_back(dump: str, path: Any) -> None:
    (path / "keys.json").write_text(dump)
    call_command("loaddata", str(path / "keys.json"), verbosity=0)


def changed() -> None:
    assert SigningKey.objects.filter(sequence=2).update(retention=1)


def deleted() -> None:
    assert SigningKey.objects.filter(sequence=2).delete()


def added() -> None:
    new = SigningKey.objects.get(sequence=2)
    new.pk, new.sequence, new.kid, new.thumbprint = None, 3, "evil", "evil"
    new.save(force_insert=True)


def assert_closed(running: Process, before: list[str]) -> None:
    """Whoever runs goes on, nobody begins, and nothing can be done."""
    assert kids(running) == before
    assert verified(running.token(), running.jwks())
    with pytest.raises(StoreUnavailable):
        Process().jwks()
    with pytest.raises(StoreUnavailable):
        Process().token()
    kept = everything()
    for command in (
        ["rotate_keys"],
        ["rotate_keys", "--check"],
        ["rotate_keys", "--now"],
        ["rotate_keys", "--emergency"],
        ["baikal_keys", "prune"],
        ["baikal_keys", "reencrypt"],
        ["baikal_keys", "generate"],
    ):
        status, said, _ = refused(*command)
        assert status == 5, command
        assert said.endswith(GUIDE)
    assert refused("baikal_keys", "list", "--all")[0] == 5
    assert everything() == kept


@pytest.mark.parametrize("harm", [changed, deleted])
def test_a_row_that_is_put_back_from_a_backup_opens_the_ring_and_nobody_notices(
    harm: Callable[[], None], tmp_path: Any
) -> None:
    run("rotate_keys", "--now", "--force")  # of three rows, none is the first or the last
    running = Process()
    before, jwks, dump = kids(running), running.jwks(), backup()
    token, kept = running.token(), everything()
    harm()
    assert_closed(running, before)
    put_back(dump, tmp_path)
    assert everything() == kept
    run("rotate_keys", "--check")
    run("baikal_keys", "list")
    for process in (running, Process()):
        assert process.jwks() == jwks
        assert verified(process.token(), jwks)
        assert verified(token, process.jwks())


def test_a_row_that_was_added_is_deleted_and_nobody_notices() -> None:
    running = Process()
    before, jwks = kids(running), running.jwks()
    added()
    assert_closed(running, before)
    SigningKey.objects.filter(kid="evil").delete()
    run("rotate_keys", "--check")
    for process in (running, Process()):
        assert process.jwks() == jwks
        assert verified(process.token(), jwks)


def test_an_older_row_that_is_put_back_is_noticed_by_who_knows_better(tmp_path: Any) -> None:
    dump, row = backup(), rows()[1]
    with options(REPLICA_LAG=0):
        run("baikal_keys", "revoke", "--reason=compromise", "--", row.kid)
        running = Process()
        before = kids(running)
        put_back(dump, tmp_path)
        assert kids(running) == before
        assert row.kid not in before
        assert row.kid in kids(Process()), "of which the guide warns"


def test_a_new_ring_signs_at_once_for_whoever_asks_again() -> None:
    running = Process()
    before, old, token = kids(running), running.jwks(), running.token()
    changed()
    assert_closed(running, before)
    with options(RING="after-the-incident"):
        said = run("rotate_keys")
        assert said.startswith(
            "Ring after-the-incident:\n  Made a key, which signs from now on, and its standby.\n"
        )
        new = Process()
        assert not set(kids(new)) & set(before)
        assert verified(new.token(), new.jwks())
        # Whoever holds the old set refuses it, and whoever has the new one what is on its way.
        assert not verified(new.token(), old)
        assert not verified(token, new.jwks())
        run("rotate_keys", "--check")
        run("baikal_keys", "list")
        # Processes that have not been started anew go on, and the old rows can go.
        assert verified(running.token(), old)
        SigningKey.objects.filter(ring="default").delete()
        run("rotate_keys", "--check")
        assert verified(Process().token(), new.jwks())


def test_a_ring_that_was_emptied_divides_the_processes() -> None:
    """Why the guide says not to."""
    running = Process()
    old = running.jwks()
    SigningKey.objects.all().delete()
    run("rotate_keys")
    new = Process()
    assert running.jwks() == old
    assert not verified(running.token(), new.jwks())
    assert not verified(new.token(), running.jwks())


def test_a_list_names_the_row_that_is_missing() -> None:
    run("rotate_keys", "--now", "--force")
    SigningKey.objects.filter(sequence=2).delete()
    status, said, _ = refused("baikal_keys", "list")
    expected = "The ring default is not used: A row was deleted: the ring has no number 2."
    assert (status, said) == (5, expected)
    with pytest.raises(BaikalError, match="has no number 2"):
        Process().jwks()
