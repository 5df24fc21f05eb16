"""What ``manage.py check`` says of rings of keys, and what the settings may say of them."""

from __future__ import annotations

import base64
import os
from datetime import timedelta
from typing import Any

import pytest
from django.core import checks
from django.core.checks import run_checks
from django.db import OperationalError, connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from material import ec_key, public_pem

from django_baikal import conf
from django_baikal.keys.operations import keepers
from django_baikal.keys.options import options_of
from django_baikal.models import SigningKey

ENTRY = {
    "AUTHSERVER_ENDPOINT": "https://auth.example.com",
    "CLIENT_ID": "client",
    "CLIENT_SECRET": "secret",
}
BACKEND = "django_baikal.keys.database.DatabaseKeyStore"
KEK = base64.b64encode(b"k" * 32).decode()


def entry(*, entry: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    return {**ENTRY, **(entry or {}), "KEYS": {"BACKEND": BACKEND, "OPTIONS": options}}


def found(baikal: dict[str, Any], **how: Any) -> list[tuple[str, str]]:
    with override_settings(BAIKAL=baikal):
        messages = [m for m in run_checks(**how) if str(m.id).startswith("django_baikal.")]
    return [(str(m.id).removeprefix("django_baikal."), m.msg) for m in messages]


@pytest.mark.django_db
def test_a_ring_with_the_defaults_is_fine_and_no_plain_check_reads_it():
    with CaptureQueriesContext(connection) as asked:
        assert found({"default": entry(entry={"ISSUER": "https://me"})}) == []
    assert not [query for query in asked if "signingkey" in query["sql"]]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"PROPAGATION": 3600}, "R1: PROPAGATION is 3600 s, and must be at least 12930 s."),
        ({"RETENTION": 60}, "R2: RETENTION is 60 s, and must be at least 5190 s."),
        ({"ROTATE_EVERY": 86400}, "R3: ROTATE_EVERY is 86400 s, and must be at least 172800 s."),
    ],
)
def test_times_that_break_a_rule_are_errors(options, said):
    assert found({"default": entry(**options)}) == [("E004", f"BAIKAL['default']: KEYS: {said}")]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("x", 'KEYS must be {"BACKEND": dotted path, "OPTIONS": {...}}.'),
        ({"OPTIONS": {}}, 'KEYS must be {"BACKEND": dotted path, "OPTIONS": {...}}.'),
        ({"BACKEND": BACKEND, "OPTION": {}}, "KEYS Unknown key 'OPTION'. Did you mean 'OPTIONS'?."),
        ({"BACKEND": BACKEND, "OPTIONS": 7}, "KEYS has OPTIONS that are no dict."),
    ],
)
def test_keys_of_another_shape_are_an_error(keys, said):
    assert found({"default": {**ENTRY, "KEYS": keys}}) == [("E001", f"BAIKAL['default']: {said}")]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ROTATE_EVRY": 1}, "Unknown key 'ROTATE_EVRY'. Did you mean 'ROTATE_EVERY'?"),
        ({"RETENTION": "x"}, "RETENTION must be a number of seconds."),
        ({"RETENTION": True}, "RETENTION must be a number of seconds."),
        ({"RETENTION": -1}, "RETENTION must be a number of seconds."),
        ({"RING": "a b"}, "RING must be 1 to 64 of A-Z a-z 0-9 _ -."),
        ({"RING": 7}, "RING must be 1 to 64 of A-Z a-z 0-9 _ -."),
        ({"ALG": "HS256"}, "ALG must be one of RS256, RS384,"),
        ({"BITS": 1024}, "BITS must be 2048 to 8192."),
        ({"BITS": "2048"}, "BITS must be 2048 to 8192."),
        ({"ENCRYPTION_KEYS": ["s3cr3t"]}, "ENCRYPTION_KEYS must be a list of 32 bytes each, in"),
        ({"ENCRYPTION_KEYS": []}, "ENCRYPTION_KEYS must be a list of 32 bytes each, in base64."),
        ({"ENCRYPTION_KEYS": [7]}, "ENCRYPTION_KEYS must be a list of 32 bytes each, in base64."),
    ],
)
def test_an_option_that_is_unknown_or_wrong_is_an_error_and_a_secret_is_not_quoted(options, said):
    ((ident, message),) = found({"default": entry(**options)})
    assert ident == "E001"
    assert message.startswith(f"BAIKAL['default']: KEYS OPTIONS: {said}")
    assert "s3cr3t" not in message


def test_a_store_that_cannot_be_imported_is_an_error():
    ((ident, message),) = found({"default": {**ENTRY, "KEYS": {"BACKEND": "no.such.Store"}}})
    assert ident == "E001"
    assert message.startswith("BAIKAL['default']: KEYS: BACKEND cannot be imported: ")


def test_two_aliases_on_one_ring_must_agree():
    same = {"default": entry(RING="one"), "eu": entry(RING="one")}
    assert found(same) == []
    other = {"default": entry(RING="one"), "eu": entry(RING="one", ROTATE_EVERY=10**6)}
    said = "BAIKAL['eu']: another alias keeps the ring 'one' with other options."
    assert found(other) == [("E006", said)]
    assert found({"default": entry(), "eu": entry(RING="two", ROTATE_EVERY=10**6)}) == []


def test_keys_that_hang_on_secret_key_are_a_warning_for_production():
    def said(**options: Any) -> list[tuple[str, str]]:
        messages = found({"default": entry(**options)}, include_deployment_checks=True)
        return [each for each in messages if each[0] != "W013"]  # of the cache of the tests

    ((ident, message),) = said()
    assert ident == "W007"
    assert "SECRET_KEY_FALLBACKS" in message
    assert said(ENCRYPTION_KEYS=[KEK]) == []


def test_public_keys_alone_are_no_error_beside_a_ring(tmp_path):
    (tmp_path / "old.pem").write_text(public_pem(ec_key()))
    assert found({"default": entry(entry={"PRIVATE_CERTS_PATH": str(tmp_path)})}) == []


# -- with the database -----------------------------------------------------------------------------

DATABASE: dict[str, Any] = {"databases": ["default"], "tags": [checks.Tags.database]}


@pytest.mark.django_db
def test_a_ring_without_keys_or_standby_is_a_warning():
    baikal = {"default": entry()}
    where = "BAIKAL['default']: the ring 'default' of the database"
    assert found(baikal, **DATABASE) == [("W008", f"{where} has no key.")]
    with override_settings(BAIKAL=baikal):
        keepers()["default"].rotate()
    assert found(baikal, **DATABASE) == []
    with override_settings(BAIKAL=baikal):
        keepers()["default"].promote(force=True)
    assert found(baikal, **DATABASE) == [("W008", f"{where} has no standby.")]
    assert found(baikal, tags=[checks.Tags.database], databases=[]) == []


@pytest.mark.django_db
def test_a_row_that_was_changed_is_an_error():
    baikal = {"default": entry()}
    with override_settings(BAIKAL=baikal):
        keepers()["default"].rotate()
    row = SigningKey.objects.order_by("sequence")[0]
    SigningKey.objects.filter(pk=row.pk).update(activates_at=row.activates_at - timedelta(1))
    said = f"BAIKAL['default']: The row of key {row.kid!r} was tampered with."
    assert found(baikal, **DATABASE) == [("E005", said)]


def test_a_table_that_is_not_there_yet_is_nothing_to_tell(django_db_blocker):
    def missing(execute: Any, sql: str, *more: Any) -> Any:
        if "signingkey" in sql:
            raise OperationalError("no such table: baikal_signingkey")
        return execute(sql, *more)  # MariaDB's own checks

    with django_db_blocker.unblock(), connection.execute_wrapper(missing):
        assert found({"default": entry()}, **DATABASE) == []


@pytest.mark.django_db
def test_what_is_wrong_with_the_configuration_is_told_by_others():
    assert found({"default": entry(BITS=7)}, **DATABASE) == []


# -- the environment -------------------------------------------------------------------------------


def names(baikal: dict[str, Any], alias: str = "default") -> list[str]:
    with override_settings(BAIKAL=baikal):
        config = conf.client_config(alias)
        keys = options_of(config, (config.keys or {})["OPTIONS"]).encryption_keys
    return [key.name for key in keys._keys]


def test_the_environment_may_hold_the_key_encryption_keys(monkeypatch, tmp_path):
    other = base64.b64encode(b"o" * 32).decode()
    wanted = names({"default": entry(ENCRYPTION_KEYS=[KEK, other])})
    monkeypatch.setenv("BAIKAL_KEY_ENCRYPTION_KEYS", f"{KEK}, {other}")
    assert names({"default": entry()}) == wanted
    assert names({"default": entry(ENCRYPTION_KEYS=[other])}) == wanted[1:], "settings are stronger"
    monkeypatch.delenv("BAIKAL_KEY_ENCRYPTION_KEYS")
    (tmp_path / "keys").write_text(f"{KEK}\n{other}\n")
    monkeypatch.setenv("BAIKAL_KEY_ENCRYPTION_KEYS_FILE", str(tmp_path / "keys"))
    assert names({"default": entry()}) == wanted
    assert names({"eu": entry()}, "eu") != wanted, "the environment is for default"
    assert names({"eu": entry(entry={"ENV_PREFIX": "BAIKAL_"})}, "eu") == wanted


def test_a_file_of_key_encryption_keys_that_cannot_be_read_is_an_error(monkeypatch, tmp_path):
    variable = "BAIKAL_KEY_ENCRYPTION_KEYS_FILE"
    monkeypatch.setenv(variable, str(tmp_path / "missing"))
    assert found({"default": entry()}) == [
        ("E001", f"{variable} cannot be read: No such file or directory.")
    ]
    (tmp_path / "binary").write_bytes(os.urandom(8) + b"\xff")
    monkeypatch.setenv(variable, str(tmp_path / "binary"))
    assert found({"default": entry()}) == [("E001", f"{variable} cannot be read: it is not ASCII.")]
