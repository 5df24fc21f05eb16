"""A ring in the database as a store: how often it asks, and what it does when it gets no answer."""

from __future__ import annotations

import itertools
import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
import timing
from cryptography.hazmat.primitives import serialization
from django.db import connection, models
from django.dispatch import Signal
from material import ec_key, public, rsa_key
from ring_stage import (
    KEKS,
    START,
    TABLE,
    Clock,
    database_down,
    edit,
    keeper,
    rows,
    store,
    watching,
)
from timing import PATIENCE

import django_baikal
from django_baikal import signals
from django_baikal.exceptions import (
    ConfigurationError,
    EncryptionKeyMissing,
    KeyStoreError,
    NoUsableSigningKey,
    StoreUnavailable,
)
from django_baikal.keys import database
from django_baikal.keys.base import Keyring
from django_baikal.keys.database import DatabaseKeyStore
from django_baikal.keys.envelope import EncryptionKeys
from django_baikal.keys.options import options_of
from django_baikal.keys.policy import material
from django_baikal.models import SigningKey
from django_baikal.protocol.config import ClientConfig

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)
CLAIMS = {"iss": "https://me.example.com/"}
sqlite_only = pytest.mark.skipif(
    "sqlite" not in os.environ.get("DATABASE_URL", "sqlite"), reason="only SQLite lets this in"
)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def stopped(monkeypatch) -> timing.Clock:
    """The clocks by which a store sees how old its ring is; they stand until they are moved."""
    return timing.Clock(monkeypatch, stopped=True)


@pytest.fixture
def parses(monkeypatch) -> list[bool]:
    """Count how often the library parses a private key."""
    seen: list[bool] = []
    original = serialization.load_der_private_key

    def call(*args: Any, **kwargs: Any) -> Any:
        seen.append(True)
        return original(*args, **kwargs)

    monkeypatch.setattr(serialization, "load_der_private_key", call)
    return seen


@pytest.fixture
def logged(caplog) -> Callable[[], list[tuple[str, str]]]:
    """Give what was logged: level and message."""
    caplog.set_level(logging.DEBUG, "django_baikal")

    def give() -> list[tuple[str, str]]:
        found = [r for r in caplog.records if r.name.startswith("django_baikal")]
        return [(record.levelname, record.getMessage()) for record in found]

    return give


@contextmanager
def received(signal: Signal) -> Iterator[list[dict[str, Any]]]:
    """Collect what a signal tells, by a receiver that then fails."""
    seen: list[dict[str, Any]] = []

    def receive(**told: Any) -> None:
        seen.append(told)
        raise RuntimeError("a receiver of the project is broken")

    signal.connect(receive)
    try:
        yield seen
    finally:
        signal.disconnect(receive)


def kids(store: DatabaseKeyStore) -> list[str]:
    return [jwk["kid"] for jwk in Keyring([store]).jwk_set()["keys"]]


def signer(store: DatabaseKeyStore) -> str:
    """Give the kid that signs, as a verifier sees it."""
    key = store.signing_key()
    assert key is not None
    token = key.sign(CLAIMS)
    (published,) = (jwk for jwk in Keyring([store]).jwk_set()["keys"] if jwk["kid"] == key.kid)
    jwt.decode(token, jwt.PyJWK(published), algorithms=[key.alg])
    return str(jwt.get_unverified_header(token)["kid"])


def use(store: DatabaseKeyStore) -> None:
    """Ask for all that a store gives."""
    store.keys(), store.published(), store.signing_key()


def two_keys() -> tuple[SigningKey, SigningKey]:
    """Give a ring whose first key is active, and the second its standby."""
    keeper().rotate()
    first, second = rows()
    return first, second


def seal(row: SigningKey) -> SigningKey:
    """Seal a row as this package does, and save it."""
    row.seal = store().options.encryption_keys.seal(row.sealed())
    row.save()
    return row


def add(row: SigningKey, **values: Any) -> SigningKey:
    """Add a copy of ``row``, with other values, sealed as this package does."""
    fields = {f.attname: getattr(row, f.attname) for f in SigningKey._meta.fields}
    new = {"id": None, "sequence": row.sequence + 1, "thumbprint": values["kid"], **values}
    return seal(SigningKey(**fields | new))


# -- the options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"RINGS": "x"}, "Unknown key 'RINGS'. Did you mean 'RING'?"),
        ({"RING": ""}, "RING must be 1 to 64 of A-Z a-z 0-9 _ -."),
        ({"RING": "a/b"}, "RING must be 1 to 64 of A-Z a-z 0-9 _ -."),
        ({"RING": "ring\n"}, "RING must be 1 to 64 of A-Z a-z 0-9 _ -."),
        ({"RING": 1}, "RING must be 1 to 64 of A-Z a-z 0-9 _ -."),
        ({"ALG": "HS256"}, "ALG must be one of RS256, RS384, RS512, PS256, "),
        ({"ALG": ["RS256"]}, "ALG must be one of RS256, RS384, RS512, PS256, "),
        ({"BITS": 2047}, "BITS must be 2048 to 8192."),
        ({"BITS": "2048"}, "BITS must be 2048 to 8192."),
        ({"BITS": True}, "BITS must be 2048 to 8192."),
        ({"PROPAGATION": "1d"}, "PROPAGATION must be a number of seconds."),
        ({"PROPAGATION": True}, "PROPAGATION must be a number of seconds."),
        ({"PROPAGATION": -1}, "PROPAGATION must be a number of seconds."),
        ({"PROPAGATION": float("nan")}, "PROPAGATION must be a number of seconds."),
        ({"PROPAGATION": float("inf")}, "PROPAGATION must be a number of seconds."),
        ({"RETENTION": 0}, "RETENTION must be a number of seconds."),
    ],
)
def test_a_wrong_option_is_told_in_one_sentence(options, said):
    with pytest.raises(ConfigurationError) as caught:
        options_of(ClientConfig(alias="eu"), options)
    assert str(caught.value).startswith(f"BAIKAL['eu']: KEYS OPTIONS: {said}")


def test_the_alias_says_how_long_an_assertion_lives_and_how_wrong_a_clock_is():
    config = ClientConfig(assertion_lifetime=120, clock_skew=7)
    timing = options_of(config, {"RETENTION": 90000}).timing
    assert (timing.assertion_lifetime, timing.clock_skew, timing.retention) == (120, 7, 90000)


def test_a_store_says_where_its_keys_are_and_leaves_problems_to_the_checks():
    found = store(RING="Shop")
    assert found.source == "the ring 'Shop' of the database"
    assert (found.problems(), found.cautions(), found.in_database) == ([], [], True)


# -- how often it asks -----------------------------------------------------------------------------


def test_one_query_reads_a_ring_and_none_signs_or_publishes_until_it_is_old(clock, parses):
    two_keys()
    used = store()
    with watching() as watch:
        use(used)
        assert (watch.asked, len(parses)) == (["SELECT"], 1)
        for _ in range(20):
            use(used)
            signer(used)
        assert (watch.asked, len(parses)) == (["SELECT"], 1)


def test_a_ring_is_read_again_once_it_is_old_and_its_key_is_not_parsed_again(
    clock, stopped, parses
):
    two_keys()
    used = store(PROCESS_CACHE_TTL=30)
    with watching() as watch:
        use(used)
        stopped.pass_time(31)
        for _ in range(5):
            use(used)
    assert watch.asked == ["SELECT"] * 2
    assert len(parses) == 1


def test_a_ring_of_many_keys_is_read_by_one_query(clock):
    first, _ = two_keys()
    for n in range(3, 30):
        add(first, kid=f"k{n}", sequence=n, private_envelope=None)
    with watching() as watch:
        assert len(store().ring().rows) == 29
    assert watch.asked == ["SELECT"]


def test_a_key_takes_over_on_time_without_a_query(clock):
    first, second = two_keys()
    used = store()
    assert signer(used) == first.kid
    with watching() as watch:
        clock.now = second.activates_at - timedelta(microseconds=1)
        assert signer(used) == first.kid
        clock.now = second.activates_at
        assert signer(used) == second.kid
        assert kids(used) == [second.kid, first.kid]
        clock.now += DAY
        assert kids(used) == [second.kid]
    assert watch.asked == []


def test_an_empty_ring_is_never_kept(clock):
    used = store()
    with watching() as watch:
        for _ in range(2):
            assert (used.keys(), used.published()[:2], used.signing_key()) == ([], ([], None), None)
    assert watch.asked == ["SELECT"] * 6
    first, second = two_keys()
    assert kids(used) == [first.kid, second.kid]


def test_rings_are_apart(clock):
    keeper(RING="one").rotate()
    keeper(RING="two").rotate()
    assert kids(store(RING="one")) == [row.kid for row in rows("one")]
    assert kids(store(RING="two")) == [row.kid for row in rows("two")]
    assert kids(store(RING="One-")) == []


@pytest.mark.skipif(
    "postgres" in os.environ.get("DATABASE_URL", ""), reason="it tells all names apart"
)
def test_a_database_that_does_not_tell_capitals_apart_gives_no_key_of_another_ring(clock):
    two_keys()

    def folded(execute: Any, sql: str, *args: Any) -> Any:
        sqlite = connection.vendor == "sqlite"
        return execute(
            sql.replace('"ring" = %s', '"ring" = %s COLLATE NOCASE') if sqlite else sql, *args
        )

    with connection.execute_wrapper(folded):
        with pytest.raises(StoreUnavailable, match="does not tell it from the ring 'default'"):
            store(RING="Default").keys()
        with pytest.raises(KeyStoreError, match="does not tell it from the ring 'default'"):
            keeper(RING="Default").rotate()


def test_what_was_opened_is_forgotten_with_its_row(clock, parses):
    first, second = two_keys()
    used = store(PROCESS_CACHE_TTL=0)
    signer(used)
    keeper().emergency(kid=first.kid)
    assert signer(used) == second.kid
    # The emergency itself has looked whether the standby can sign.
    assert (len(used._loaded), len(parses)) == (1, 3)


# -- threads and forks -----------------------------------------------------------------------------


def hang_up() -> None:
    """Close this thread's connection; Django's own close() leaves one to a database in memory."""
    if connection.connection is not None:
        connection.connection.close()


def at_once(number: int, act: Callable[[], Any]) -> list[Any]:
    """Have threads do the same at the same time; give what each returned or raised."""
    gate = threading.Barrier(number)

    def run() -> Any:
        gate.wait()
        try:
            return act()
        except StoreUnavailable as error:
            return error
        finally:
            hang_up()

    with ThreadPoolExecutor(number) as pool:
        return [job.result() for job in [pool.submit(run) for _ in range(number)]]


@pytest.mark.django_db(transaction=True)
def test_fifty_threads_that_start_cold_make_one_query(clock):
    two_keys()
    used = store()
    with watching(lambda sql: time.sleep(0.1)) as watch:
        found = at_once(50, used.ring)
    assert watch.asked == ["SELECT"]
    assert {len(ring.rows) for ring in found} == {2}


@pytest.mark.django_db(transaction=True)
def test_fifty_threads_that_find_no_database_ask_it_once(clock, stopped):
    used = store()

    with database_down() as watch:
        watch.before, fail = lambda sql: (time.sleep(0.1), fail(sql)), watch.before
        found = at_once(50, used.ring)
    assert {type(error) for error in found} == {StoreUnavailable}
    assert watch.asked == ["SELECT"]


@pytest.mark.django_db(transaction=True)
def test_while_one_thread_reads_again_the_others_are_served(clock):
    first, _ = two_keys()
    used = store(PROCESS_CACHE_TTL=0)
    use(used)
    asking, answer = threading.Event(), threading.Event()

    def held(sql: str) -> None:
        asking.set()
        assert answer.wait(PATIENCE)

    with watching(held) as watch, ThreadPoolExecutor(1) as pool:
        reading = pool.submit(lambda: (used.ring(), hang_up()))
        assert asking.wait(PATIENCE)
        assert signer(used) == first.kid
        assert watch.asked == ["SELECT"]
        answer.set()
        reading.result(PATIENCE)


@pytest.mark.django_db(transaction=True)
def test_where_nothing_may_be_stale_the_others_wait_for_the_one_that_reads(clock, stopped):
    two_keys()
    used = store(PROCESS_CACHE_TTL=30, PROCESS_MAX_STALE=0)
    used.ring()
    stopped.pass_time(31)
    with watching(lambda sql: time.sleep(0.05)) as watch:
        found = at_once(8, used.ring)
    assert {id(ring) for ring in found} == {id(used.ring())}
    assert watch.asked == ["SELECT"]


@pytest.mark.django_db(transaction=True)
def test_who_waited_for_the_one_that_reads_uses_what_it_found_however_late(clock):
    two_keys()
    used = store(PROCESS_CACHE_TTL=0, PROCESS_MAX_STALE=0)
    with watching(lambda sql: time.sleep(0.05)):
        found = at_once(8, used.ring)
    assert {len(ring.rows) for ring in found} == {2}


def test_a_thread_that_comes_to_rest_in_between_has_what_was_good_when_it_asked(clock, monkeypatch):
    two_keys()
    used = store(PROCESS_CACHE_TTL=30, PROCESS_MAX_STALE=30)
    ring, read_at = used.ring(), used._good_at
    told = itertools.chain([read_at + 31] * 3, itertools.repeat(read_at + 61))
    with monkeypatch.context() as patch, used._lock:  # as by a thread that reads
        patch.setattr(time, "monotonic", lambda: next(told))
        assert used.ring() is ring


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_of_a_fork_reads_the_ring_although_the_lock_was_held():
    script = """
        import os, signal, threading, time
        import django
        from django.conf import settings
        settings.configure(
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
            INSTALLED_APPS=["django_baikal"], SECRET_KEY="x" * 50, USE_TZ=True,
        )
        django.setup()
        from django.core.management import call_command
        from django.db import connection
        from django_baikal.keys.database import DatabaseKeyStore
        from django_baikal.keys.operations import Keeper
        from django_baikal.protocol.config import ClientConfig
        call_command("migrate", verbosity=0)
        store = DatabaseKeyStore(ClientConfig(), {"ALG": "ES256"})
        Keeper(store).rotate()
        inside = threading.Event()
        def hold():
            with connection.execute_wrapper(lambda *args: (inside.set(), time.sleep(240))):
                store.ring()
        threading.Thread(target=hold, daemon=True).start()
        inside.wait()
        pid = os.fork()
        if not pid:
            signal.alarm(60)
            os._exit(0 if len(store.keys()) == 2 else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
        os._exit(0)
    """
    root = str(Path(django_baikal.__file__).resolve().parent.parent)
    environment = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(script)],
        env=environment | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == ("0", "")


def test_the_lock_of_every_store_is_a_new_one_in_a_child(clock):
    two_keys()
    used = store()
    with used._lock:  # as by a thread of the parent
        database._after_fork()
        assert len(used.keys()) == 2


# -- the database is down --------------------------------------------------------------------------


def test_without_the_database_the_last_reading_serves_until_it_is_too_old(clock, logged):
    first, second = two_keys()
    used = store()

    def later(seconds: float) -> None:
        """Let time pass, as the store measures it."""
        used._good_at -= seconds
        used._tried_at -= seconds

    use(used)
    with database_down() as watch:
        later(61)
        for _ in range(10):
            assert kids(used) == [first.kid, second.kid]
            assert signer(used) == first.kid
        # It is not asked again at once.
        assert watch.asked == ["SELECT"]
        later(3600)
        for ask in (used.keys, used.signing_key, used.published):
            with pytest.raises(StoreUnavailable) as caught:
                ask()
    said = "The ring 'default' of the database cannot be read: "
    said += "The database failed (OperationalError)."
    assert str(caught.value) == said
    assert logged() == [("ERROR", said)]
    later(1)
    assert signer(used) == first.kid


def test_what_is_not_known_in_time_is_still_the_turn_of_the_next_key(clock):
    first, second = two_keys()
    used = store(PROCESS_CACHE_TTL=0)
    assert signer(used) == first.kid
    clock.now = second.activates_at
    with database_down():
        assert signer(used) == second.kid


def test_a_process_that_starts_without_the_database_says_so_and_recovers(clock, stopped, logged):
    used = store()
    with database_down() as watch:
        for _ in range(20):
            with pytest.raises(StoreUnavailable, match="The database failed"):
                used.keys()
        assert 1 <= len(watch.asked) < 20
    first, _ = two_keys()
    stopped.pass_time(1.1)
    assert signer(used) == first.kid
    assert [level for level, _ in logged()] == ["ERROR"]


def test_a_process_that_knows_nothing_asks_again_after_a_second_at_the_latest(clock, stopped):
    used = store()
    with database_down(), pytest.raises(StoreUnavailable):
        used.keys()
    first, _ = two_keys()
    stopped.pass_time(0.9)
    with pytest.raises(StoreUnavailable):
        used.keys()
    stopped.pass_time(0.2)
    assert signer(used) == first.kid


def test_a_ring_that_may_never_be_stale_is_read_and_used(clock):
    first, _ = two_keys()
    used = store(PROCESS_CACHE_TTL=0, PROCESS_MAX_STALE=0)
    assert signer(used) == first.kid
    with database_down(), pytest.raises(StoreUnavailable):
        used.keys()
    assert signer(used) == first.kid


def test_the_same_trouble_is_logged_once_a_minute(clock, stopped, logged):
    two_keys()
    used = store(PROCESS_CACHE_TTL=0)
    use(used)
    with database_down() as watch:
        use(used)
        use(used)
        assert len(watch.asked) > 5
        assert len(logged()) == 1
        stopped.pass_time(59)
        use(used)
        assert len(logged()) == 1
        stopped.pass_time(2)
        use(used)
    assert len(logged()) == 2


@pytest.mark.django_db(transaction=True)
def test_a_table_that_is_not_there_yet_is_no_ring_and_no_empty_one(clock):
    used = store(PROCESS_CACHE_TTL=0)
    with connection.schema_editor() as editor:
        editor.delete_model(SigningKey)
    try:
        with pytest.raises(StoreUnavailable, match="The database failed"):
            used.keys()
    finally:
        with connection.schema_editor() as editor:
            editor.create_model(SigningKey)
    assert used.keys() == []


@pytest.mark.skipif(
    "sqlite" in os.environ.get("DATABASE_URL", "sqlite"), reason="there is no server to go away"
)
@pytest.mark.django_db(transaction=True)
def test_a_connection_that_broke_is_made_anew_outside_of_requests_too(clock):
    first, _ = two_keys()
    used = store(PROCESS_CACHE_TTL=0)
    use(used)
    own, kill = {
        "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend(%s)"),
        "mysql": ("SELECT CONNECTION_ID()", "KILL %s"),
    }[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(own)
        (number,) = cursor.fetchone()

    def end() -> None:
        with connection.cursor() as cursor:
            cursor.execute(kill, [number])
        hang_up()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(end).result(PATIENCE)
    assert signer(used) == first.kid
    keeper().emergency(kid=first.kid)
    assert signer(used) != first.kid


# -- the active key cannot be used here ------------------------------------------------------------


def second_is_active(clock: Clock) -> tuple[SigningKey, SigningKey]:
    first, second = two_keys()
    clock.now = second.activates_at + timedelta(hours=1)
    return first, second


def under_another_kek(row: SigningKey) -> bytes:
    other = EncryptionKeys([b"?" * 32])
    return other.encrypt(b"secret", ring=row.ring, kid=row.kid, alg=row.alg)


def of_a_newer_version(row: SigningKey) -> bytes:
    return b"\2" + row.envelope[1:]


def cut(row: SigningKey) -> bytes:
    return row.envelope[:-1]


def none(row: SigningKey) -> None:
    return None


def another_keys(row: SigningKey) -> bytes:
    keys = store().options.encryption_keys
    other = ec_key().private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return keys.encrypt(other, ring=row.ring, kid=row.kid, alg=row.alg)


UNUSABLE = [
    pytest.param(under_another_kek, "which is not set", id="missing key"),
    pytest.param(of_a_newer_version, "of a version that is not known here", id="version 2"),
    pytest.param(cut, "was tampered with", id="tampered"),
    pytest.param(none, "It has no private half", id="no envelope"),
    pytest.param(another_keys, "is another key's", id="another key's"),
    pytest.param(lambda row: "text", "of a version", id="text", marks=sqlite_only),
]


@pytest.mark.parametrize(("envelope", "said"), UNUSABLE)
def test_the_newest_key_that_is_published_and_usable_signs_for_one_that_is_not(
    envelope, said, clock, logged
):
    first, second = second_is_active(clock)
    edit(second, private_envelope=models.Value(envelope(second)))
    used = store()
    with received(signals.signing_degraded) as told:
        for _ in range(3):
            assert signer(used) == first.kid
            assert kids(used) == [second.kid, first.kid]
    assert [each["key"].kid for each in told] == [first.kid]
    assert [each["sender"] for each in told] == [DatabaseKeyStore]
    where = "The ring 'default' of the database: "
    cannot, instead = [text for level, text in logged() if level == "ERROR"]
    assert cannot.startswith(f"{where}key {second.kid!r}: ")
    assert said in cannot
    assert instead == f"{where}the active key cannot be used, and {first.kid!r} signs in its place."


@pytest.mark.parametrize(("envelope", "said"), UNUSABLE)
def test_when_no_published_key_can_be_used_none_signs_and_all_are_published(envelope, said, clock):
    first, second = second_is_active(clock)
    for row in (first, second):
        edit(row, private_envelope=models.Value(envelope(row)))
    used = store()
    with pytest.raises(
        NoUsableSigningKey, match="No key of the ring 'default' of the database can"
    ):
        used.signing_key()
    assert kids(used) == [second.kid, first.kid]
    assert len(rows()) == 2


def test_a_key_stands_in_no_longer_than_it_is_published(clock):
    first, second = second_is_active(clock)
    edit(second, private_envelope=cut(second))
    used = store()
    end = second.activates_at + DAY
    clock.now = end - timedelta(seconds=300 + 3 * 60)
    assert signer(used) == first.kid
    clock.forward(microseconds=1)
    with pytest.raises(NoUsableSigningKey):
        used.signing_key()


def test_a_standby_never_stands_in(clock):
    first, _ = two_keys()
    edit(first, private_envelope=cut(first))
    with pytest.raises(NoUsableSigningKey):
        store().signing_key()


def test_swapped_envelopes_are_of_no_use_even_where_they_were_opened_before(clock):
    first, second = two_keys()
    warm = store(PROCESS_CACHE_TTL=0)
    assert signer(warm) == first.kid
    clock.now = second.activates_at + timedelta(hours=1)
    assert signer(warm) == second.kid
    edit(first, private_envelope=second.envelope)
    edit(second, private_envelope=first.envelope)
    for used in (warm, store()):
        with pytest.raises(NoUsableSigningKey):
            used.signing_key()


# -- rows of a newer version of this package -------------------------------------------------------

OTHER = json.dumps(public(ec_key(7)))
NEWER = {"kty": "AKP", "alg": "ML-DSA-44", "pub": "c29tZSBieXRlcw"}


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"alg": "ES256K", "public_jwk": OTHER}, id="an unknown alg"),
        pytest.param({"alg": "ML-DSA-44", "public_jwk": json.dumps(NEWER)}, id="an unknown kty"),
    ],
)
def test_a_key_of_a_newer_version_is_published_and_not_signed_with(values, clock, parses):
    first, second = second_is_active(clock)
    keys = store().options.encryption_keys
    binding = {"ring": "default", "kid": "newer", "alg": values["alg"]}
    envelope = keys.encrypt(b"of some kind", **binding)
    add(
        second,
        kid="newer",
        activates_at=clock.now - timedelta(minutes=1),
        private_envelope=envelope,
        **values,
    )
    used = store()
    assert signer(used) == second.kid
    assert len(parses) == 1
    newer, *others = Keyring([used]).jwk_set()["keys"]
    assert newer == json.loads(values["public_jwk"]) | {
        "kid": "newer",
        "use": "sig",
        "alg": values["alg"],
    }
    assert [jwk["kid"] for jwk in others] == [second.kid, first.kid]


def test_no_private_member_of_any_type_is_published_even_if_a_row_has_it(clock):
    two_keys()
    secret = dict.fromkeys(("d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"), "secret")
    for kty, kid in (("AKP", "one"), ("EC", "two")):
        members = json.loads(OTHER) | {"kty": kty} | secret
        add(rows()[-1], kid=kid, public_jwk=json.dumps(members))
    published = Keyring([store()]).jwk_set()
    assert len(published["keys"]) == 4
    assert "secret" not in json.dumps(published)


# -- tampering -------------------------------------------------------------------------------------

TAMPERED: dict[str, Any] = {
    "sequence": 7,
    "kid": "other",
    "alg": "ES384",
    "public_jwk": OTHER,
    "created_at": START - DAY,
    "activates_at": START - DAY,
    "retention": 10**6,
    "revoked_at": START,
    "destroyed_at": START,
    "seal": b"\1" + bytes(36),
}


def assert_distrusted(warm: DatabaseKeyStore, known: list[str], said: str, logged: Any) -> None:
    """The ring is used as it was known, by nobody new, and nothing is written to it."""
    with received(signals.seal_failed) as told:
        assert kids(warm) == known
        assert signer(warm) == known[0]
    assert {(each["sender"], each["ring"]) for each in told} == {(DatabaseKeyStore, "default")}
    assert [each["reason"] for each in told if said not in each["reason"]] == []
    (critical,) = {text for level, text in logged() if level == "CRITICAL"}
    assert said in critical


def assert_nobody_starts_with_it(said: str) -> None:
    for ask in (store().keys, store().signing_key, store().published):
        with pytest.raises(StoreUnavailable, match=said):
            ask()
    with pytest.raises(KeyStoreError, match=said):
        keeper().rotate()


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("column", TAMPERED)
def test_a_changed_row_is_neither_published_nor_used(column, which, clock, logged):
    row = two_keys()[which]
    warm = store(PROCESS_CACHE_TTL=0)
    known = kids(warm)
    clock.forward(hours=1)
    wiped = {"private_envelope": None} if column == "revoked_at" else {}
    edit(row, **{column: TAMPERED[column]}, **wiped)
    said = "which is not set" if column == "seal" else "was tampered with"
    assert_distrusted(warm, known, said, logged)
    assert_nobody_starts_with_it(said)


def test_a_row_moved_to_another_ring_is_of_use_in_neither(clock, logged):
    _, second = two_keys()
    warm = store(PROCESS_CACHE_TTL=0)
    known = kids(warm)
    clock.forward(hours=1)
    edit(second, ring="other")
    assert_distrusted(warm, known, "was deleted", logged)
    with pytest.raises(StoreUnavailable, match="was tampered with"):
        store(RING="other").keys()


@pytest.mark.parametrize("sealed", [b"", b"\1" + bytes(36), "copied", "by another"])
def test_an_inserted_row_is_neither_published_nor_used(sealed, clock, logged):
    _, second = two_keys()
    warm = store(PROCESS_CACHE_TTL=0)
    known = kids(warm)
    clock.forward(hours=1)
    new = add(second, kid="new", activates_at=START, public_jwk=OTHER)
    other = EncryptionKeys([b"?" * 32]).seal(new.sealed())
    edit(new, seal={"copied": bytes(second.seal), "by another": other}.get(sealed, sealed))
    assert_distrusted(warm, known, "'new'", logged)
    assert_nobody_starts_with_it("'new'")


def test_a_revoked_key_cannot_be_unrevoked(clock, logged):
    first, second = two_keys()
    keeper().revoke(second.kid)
    warm = store(PROCESS_CACHE_TTL=0)
    known = kids(warm)
    edit(second, revoked_at=None, private_envelope=second.envelope)
    assert known == [first.kid]
    assert_distrusted(warm, known, "was tampered with", logged)
    assert_nobody_starts_with_it("was tampered with")


@pytest.mark.parametrize("ended", ["revoked_at", "destroyed_at"])
def test_a_whole_row_put_back_does_not_come_back_where_its_end_is_known(ended, clock, logged):
    """A process that starts then cannot know; that is documented."""
    first, second, third = three_keys(clock)
    if ended == "revoked_at":
        keeper().revoke(first.kid)
    else:
        clock.now = second.activates_at + DAY
        keeper().prune()
    assert getattr(rows()[0], ended) is not None
    warm = store(PROCESS_CACHE_TTL=0)
    known = kids(warm)
    clock.forward(hours=1)
    edit(first, **{f: getattr(first, f) for f in (ended, "private_envelope", "seal")})
    assert known == [second.kid, third.kid]
    assert_distrusted(warm, known, "or what ended it was undone", logged)


@sqlite_only
@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("created_at", "not a time", "row "),
        ("activates_at", "2030-13-45 00:00:00", "cannot be in its column"),
        ("public_jwk", b"bytes", "cannot be in its column"),
        ("retention", "long", "was tampered with"),
        ("sequence", "first", "was tampered with"),
        ("alg", 256, "was tampered with"),
        ("seal", "text", "of a version that is not known"),
    ],
)
def test_what_cannot_be_in_a_column_is_not_believed(column, value, said, clock, logged):
    _, second = two_keys()
    warm = store(PROCESS_CACHE_TTL=0)
    known = kids(warm)
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA ignore_check_constraints = 1")
        cursor.execute(f"UPDATE {TABLE} SET {column} = %s WHERE kid = %s", [value, second.kid])
        cursor.execute("PRAGMA ignore_check_constraints = 0")
    assert_distrusted(warm, known, said, logged)
    assert_nobody_starts_with_it(said)


def test_with_another_key_encryption_key_nothing_is_used_and_the_missing_one_is_named(clock):
    two_keys()
    used = store(ENCRYPTION_KEYS=KEKS[1:])
    name = store().options.encryption_keys.current.name
    for ask in (used.keys, used.signing_key):
        with pytest.raises(StoreUnavailable, match=f"needs the key-encryption key {name}"):
            ask()
    with pytest.raises(EncryptionKeyMissing, match=name):
        keeper(ENCRYPTION_KEYS=KEKS[1:]).rotate()
    assert len(store(ENCRYPTION_KEYS=KEKS[::-1]).keys()) == 2
    assert len(rows()) == 2


# -- rows that are gone ----------------------------------------------------------------------------


def three_keys(clock: Clock) -> list[SigningKey]:
    """Give a ring with a retiring key, an active one, and a standby."""
    _, second = two_keys()
    clock.now = second.activates_at + timedelta(hours=1)
    keeper().rotate()
    clock.forward(hours=1)
    return rows()


@pytest.mark.parametrize(
    "gone", [[1], [2], [1, 2], [0, 1, 2]], ids=["middle", "last", "last two", "all"]
)
def test_a_deleted_row_brings_back_no_older_key(gone, clock, logged):
    found = three_keys(clock)
    warm = store(PROCESS_CACHE_TTL=0)
    known = kids(warm)
    SigningKey.objects.filter(pk__in=[found[n].pk for n in gone]).delete()
    assert_distrusted(warm, known, "was deleted", logged)
    if gone == [1]:
        assert_nobody_starts_with_it("A row was deleted")


def test_a_key_that_was_wiped_is_not_published_though_nothing_follows_it_any_more(clock):
    first, second, third = three_keys(clock)
    clock.now = second.activates_at + timedelta(days=1)
    keeper().prune()
    SigningKey.objects.filter(pk__in=[second.pk, third.pk]).delete()
    assert store().ring().active(clock.now).kid == first.kid
    assert store().published()[:2] == ([], None)
    assert kids(store()) == []


def test_the_oldest_rows_may_be_missing_from_a_ring(clock):
    first, second, third = three_keys(clock)
    first.delete()
    assert kids(store()) == [second.kid, third.kid]


def test_a_replica_that_is_behind_takes_nothing_back_and_alarms_nobody(clock, logged):
    first, second = two_keys()
    old = rows()[1]
    used = store(PROCESS_CACHE_TTL=0)
    keeper().revoke(second.kid)
    keeper().rotate()
    third = rows()[2]
    assert kids(used) == [first.kid, third.kid]
    # The replica has not yet seen the revocation and the third key.
    third.delete()
    edit(old, **{f: getattr(old, f) for f in ("revoked_at", "private_envelope", "seal")})
    clock.forward(seconds=30 + 2 * 60)
    assert kids(used) == [first.kid, third.kid]
    assert [text for level, text in logged() if level != "DEBUG"] == []
    clock.forward(microseconds=1)
    assert kids(used) == [first.kid, third.kid]
    assert [level for level, _ in logged()] == ["CRITICAL"]


def test_a_database_that_was_put_back_is_believed_when_nothing_else_is_known(clock, stopped):
    found = three_keys(clock)
    used = store(PROCESS_CACHE_TTL=0, PROCESS_MAX_STALE=600)
    use(used)
    found[2].delete()
    stopped.pass_time(601)
    assert kids(used) == [found[1].kid, found[0].kid]


# -- with Django's settings ------------------------------------------------------------------------


@pytest.mark.parametrize("use_tz", [True, False])
def test_a_ring_lives_through_its_turns_with_and_without_time_zones(use_tz, settings):
    settings.USE_TZ, settings.TIME_ZONE = use_tz, "Europe/Madrid"
    keeper().rotate()
    first, second = rows()
    assert signer(store()) == first.kid
    keeper().promote(force=True)
    assert signer(store()) == second.kid
    keeper().emergency(kid=second.kid)
    assert kids(store())[-1] == first.kid


def test_an_rsa_key_of_the_size_that_was_asked_for_is_made_by_default(clock):
    made = keeper(ALG="RS256", BITS=2048).import_key(material(rsa_key(), alg="PS384"))
    assert [row.alg for row in made.created] == ["PS384"]
    assert signer(store()) == made.created[0].kid
