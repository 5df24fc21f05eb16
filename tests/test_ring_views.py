"""The JWK Set of a ring: what is asked of the database for it, and how long others may keep it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client, override_settings
from django.utils import timezone
from material import ec_key, pem

from django_baikal import clients
from django_baikal.keys.operations import keepers
from django_baikal.models import SigningKey
from django_baikal.protocol import jws

pytestmark = pytest.mark.django_db

JWKS = "/.well-known/jwks.json"
BACKEND = "django_baikal.keys.database.DatabaseKeyStore"


def entry(**options: Any) -> dict[str, Any]:
    return {
        "AUTHSERVER_ENDPOINT": "https://auth.example.com",
        "CLIENT_ID": "client",
        "CLIENT_SECRET": "secret",
        "ISSUER": "https://me.example.com/",
        "KEYS": {"BACKEND": BACKEND, "OPTIONS": {"ALG": "ES256", **options}},
        # A client of its own for each test: one that is the same keeps what it has read.
        "TIMEOUT": 5 + next(_numbers) / 1000,
    }


_numbers = itertools.count()


@contextmanager
def ring(**options: Any) -> Iterator[Any]:
    with override_settings(BAIKAL={"default": entry(**options)}):
        yield keepers()["default"]


def max_age(answer: Any) -> float:
    found = re.fullmatch(
        r"public, max-age=(\d+), stale-while-revalidate=60, stale-if-error=3600",
        answer["Cache-Control"],
    )
    assert found, answer["Cache-Control"]
    return float(found[1])


def kids(answer: Any) -> list[str]:
    return [key["kid"] for key in answer.json()["keys"]]


def test_a_hot_ring_costs_no_query(django_assert_num_queries):
    with ring() as keeper:
        keeper.rotate()
        with django_assert_num_queries(1):
            first = Client().get(JWKS)
        with django_assert_num_queries(0):
            again = Client().get(JWKS, headers={"if-none-match": first["ETag"]})
        assert (first.status_code, again.status_code) == (200, 304)
        assert max_age(first) == 900
        rows = SigningKey.objects.order_by("sequence")
        assert kids(first) == [row.kid for row in rows], "the one that signs first"
        token = clients["default"]._runtime.sign({"sub": "me"})
        assert jws.decode(token).header["kid"] == kids(first)[0]
        jws.verify(token, first.json()["keys"], algorithms=["ES256"])


def test_nobody_keeps_a_set_long_after_a_key_leaves_it():
    with ring() as keeper:
        keeper.rotate()
        keeper.promote(force=True)
        at = timezone.now() - timedelta(seconds=86400 - 300)
        standby = keeper.read().active(timezone.now())
        standby.activates_at = at
        seal = keeper.options.encryption_keys.seal(standby.sealed())
        SigningKey.objects.filter(pk=standby.pk).update(activates_at=at, seal=seal)
        answer = Client().get(JWKS)
        assert len(kids(answer)) == 2
        assert 290 < max_age(answer) <= 330


@pytest.mark.parametrize(
    ("max_age", "stale_if_error", "said"),
    [
        (300, 60, "public, max-age=300, stale-while-revalidate=60, stale-if-error=60"),
        (61, 0, "public, max-age=61, stale-while-revalidate=60, stale-if-error=0"),
        (59, 0, "public, max-age=59, stale-while-revalidate=59, stale-if-error=0"),
        (1.9, 2.9, "public, max-age=1, stale-while-revalidate=1, stale-if-error=2"),
        (0, 0, "public, max-age=0, stale-while-revalidate=0, stale-if-error=0"),
    ],
)
def test_the_options_say_how_long_others_may_keep_it(max_age, stale_if_error, said):
    with ring(JWKS_MAX_AGE=max_age, JWKS_STALE_IF_ERROR=stale_if_error) as keeper:
        keeper.rotate()
        assert Client().get(JWKS)["Cache-Control"] == said


def test_a_ring_without_keys_is_kept_by_nobody_and_its_first_key_seen_at_once():
    with ring() as keeper:
        empty = Client().get(JWKS)
        assert (empty.status_code, empty.json(), empty["Cache-Control"]) == (
            200,
            {"keys": []},
            "no-store",
        )
        keeper.rotate()
        assert len(kids(Client().get(JWKS))) == 2


def test_each_ring_has_its_own_address():
    baikal = {"default": entry(), "eu": entry(RING="eu")}
    with override_settings(BAIKAL=baikal):
        for keeper in keepers().values():
            keeper.rotate()
        default, named, eu = (
            Client().get(path)
            for path in (JWKS, "/.well-known/jwks/default.json", "/.well-known/jwks/eu.json")
        )
        assert default.content == named.content
        assert {*default.headers} == {*named.headers}
        assert len(kids(eu)) == 2
        assert not {*kids(eu)} & {*kids(default)}
        assert Client().get("/.well-known/jwks/other.json").status_code == 404


def test_a_ring_that_nobody_keeps_is_not_found_beside_static_keys():
    static = {**entry(), "KEYS": None, "CLIENT_KEYS": [{"key": pem(ec_key())}]}
    with override_settings(BAIKAL={"default": static}):
        assert Client().get("/.well-known/jwks/default.json").status_code == 404
        assert max_age(Client().get(JWKS)) == 900


def test_a_directory_of_keys_is_changed_over_without_a_gap(tmp_path):
    (tmp_path / "old.pem").write_text(pem(ec_key()))
    both = {**entry(), "PRIVATE_CERTS_PATH": str(tmp_path)}
    with override_settings(BAIKAL={"default": both}):
        old = kids(Client().get(JWKS))
        keepers()["default"].rotate()
        clients["default"]._runtime._keyring = None  # an hour later
        answer = Client().get(JWKS)
        assert kids(answer)[0] == old[0], "which still signs"
        assert len(kids(answer)) == 2
        token = clients["default"]._runtime.sign({"sub": "me"})
        assert jws.decode(token).header["kid"] == old[0]
        keepers()["default"].promote(force=True)
        clients["default"]._runtime._keyring = None
        token = clients["default"]._runtime.sign({"sub": "me"})
        new = kids(Client().get(JWKS))
        assert jws.decode(token).header["kid"] == new[0] != old[0]
        assert old[0] in new, "as long as the file is there"
