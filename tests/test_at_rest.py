"""Keys at rest: who can open them, who can change them, and what is told about them."""

from __future__ import annotations

import base64
import copy
import json
import logging
import pickle
import secrets
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.views.debug import ExceptionReporter
from material import assert_tells_nothing, der, ec_key, rsa_key, told_by
from ring_stage import KEKS, START, Clock, edit, keeper, rows, store

from django_baikal.exceptions import (
    ConfigurationError,
    EncryptionKeyMissing,
    KeyStoreError,
    Tampered,
    UnsupportedKey,
)
from django_baikal.keys.base import Keyring
from django_baikal.keys.database import opened
from django_baikal.keys.envelope import EncryptionKey, EncryptionKeys, encryption_keys
from django_baikal.keys.options import options_of
from django_baikal.keys.policy import material
from django_baikal.models import SigningKey
from django_baikal.protocol.config import ClientConfig

SECRETS = [base64.b64decode(kek) for kek in KEKS]
BINDING = {"ring": "default", "kid": "k1", "alg": "ES256"}
ed25519_key = ed25519.Ed25519PrivateKey.generate()
PRIVATE = {"RS256": rsa_key(), "ES256": ec_key(), "EdDSA": ed25519_key}


def keks(*numbers: int) -> EncryptionKeys:
    return EncryptionKeys([SECRETS[n] for n in numbers])


# -- envelopes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("alg", PRIVATE)
def test_an_envelope_gives_back_what_was_put_in_and_shows_none_of_it(alg):
    data = der(PRIVATE[alg])
    envelope = keks(0).encrypt(data, **BINDING)
    assert keks(0).decrypt(envelope, **BINDING) == data
    assert not any(data[n : n + 8] in envelope for n in range(len(data) - 8))


def test_no_two_envelopes_are_the_same():
    assert keks(0).encrypt(b"data", **BINDING) != keks(0).encrypt(b"data", **BINDING)


@pytest.mark.parametrize(
    "other", [{"ring": "other"}, {"ring": "default2"}, {"kid": "k2"}, {"alg": "ES384"}]
)
def test_an_envelope_is_of_use_in_its_own_row_only(other):
    envelope = keks(0).encrypt(b"data", **BINDING)
    with pytest.raises(Tampered, match=r"^The private half of key 'k[12]' was tampered with\.$"):
        keks(0).decrypt(envelope, **BINDING | other)


def test_names_that_join_to_the_same_text_are_not_the_same():
    envelope = keks(0).encrypt(b"data", ring="a", kid="bc", alg="ES256")
    with pytest.raises(Tampered):
        keks(0).decrypt(envelope, ring="ab", kid="c", alg="ES256")


def test_an_envelope_that_was_changed_or_cut_anywhere_is_refused():
    envelope = keks(0).encrypt(b"data", **BINDING)
    flipped = [
        envelope[:n] + bytes([envelope[n] ^ 1]) + envelope[n + 1 :] for n in range(len(envelope))
    ]
    for wrong in (*flipped, *(envelope[:n] for n in range(len(envelope))), envelope + b"\0"):
        with pytest.raises(KeyStoreError):
            keks(0).decrypt(wrong, **BINDING)


@pytest.mark.parametrize("version", [b"", b"\x00", b"\x02", b"\xff"])
def test_an_unknown_version_is_refused(version):
    envelope, seal = keks(0).encrypt(b"data", **BINDING), keks(0).seal({"kid": "k1"})
    with pytest.raises(Tampered, match="The private half of key 'k1' is of a version that is not"):
        keks(0).decrypt(version + envelope[1:] if version else b"", **BINDING)
    with pytest.raises(Tampered, match="The row of key 'k1' is of a version that is not known"):
        keks(0).check(version + seal[1:] if version else b"", {"kid": "k1"})


def test_a_missing_key_encryption_key_is_named_and_so_are_those_that_are_set():
    envelope, seal = keks(2).encrypt(b"data", **BINDING), keks(2).seal({"kid": "k1"})
    missing, there = EncryptionKey(SECRETS[2]).name, [EncryptionKey(s).name for s in SECRETS[:2]]
    assert all(len(bytes.fromhex(name)) == 4 for name in (missing, *there))
    said = f"needs the key-encryption key {missing}, which is not set (set are {there[0]}, "
    for use in (
        lambda: keks(0, 1).decrypt(envelope, **BINDING),
        lambda: keks(0, 1).check(seal, {"kid": "k1"}),
    ):
        with pytest.raises(EncryptionKeyMissing) as caught:
            use()
        assert said + f"{there[1]})." in str(caught.value)


def test_the_first_key_encryption_key_encrypts_and_all_open():
    old = keks(0).encrypt(b"data", **BINDING)
    both = keks(1, 0, 1)
    new = both.encrypt(b"data", **BINDING)
    assert both.decrypt(old, **BINDING) == both.decrypt(new, **BINDING) == b"data"
    assert both.name_of(new) == both.current.name == EncryptionKey(SECRETS[1]).name
    assert both.name_of(old) == EncryptionKey(SECRETS[0]).name
    with pytest.raises(EncryptionKeyMissing):
        keks(0).decrypt(new, **BINDING)


# -- seals -----------------------------------------------------------------------------------------


def a_row(**changes: Any) -> SigningKey:
    known: dict[str, Any] = {
        "ring": "default",
        "sequence": 1,
        "kid": "k1",
        "alg": "ES256",
        "public_jwk": '{"kty": "EC"}',
        "created_at": START,
        "activates_at": START,
        "retention": 86400,
        "revoked_at": None,
        "destroyed_at": None,
    }
    return SigningKey(**known | changes)


CHANGES: dict[str, Any] = {
    "ring": "other",
    "sequence": 2,
    "kid": "k2",
    "alg": "ES384",
    "public_jwk": '{"kty":"EC"}',
    "created_at": datetime(2029, 1, 1, tzinfo=UTC),
    "activates_at": datetime(2030, 1, 1, 12, 0, 0, 1, tzinfo=UTC),
    "retention": 86401,
    "revoked_at": START,
    "destroyed_at": START,
}


def test_the_seal_covers_all_that_decides_what_is_published_and_trusted():
    assert set(a_row().sealed()) == set(CHANGES)
    others = {"id", "thumbprint", "private_envelope", "seal", "origin", "created_by", "note"}
    names = {field.name for field in SigningKey._meta.get_fields()}
    assert names - set(CHANGES) == others | {"revoke_reason"}


@pytest.mark.parametrize("name", CHANGES)
def test_no_sealed_column_can_be_changed(name):
    seal = keks(0).seal(a_row().sealed())
    keks(0).check(seal, a_row().sealed())
    with pytest.raises(Tampered, match=r"The row of key 'k[12]' was tampered with"):
        keks(0).check(seal, a_row(**{name: CHANGES[name]}).sealed())


def test_a_seal_that_was_changed_or_cut_anywhere_is_refused():
    sealed = a_row().sealed()
    seal = keks(0).seal(sealed)
    assert len(seal) == SigningKey._meta.get_field("seal").max_length
    flipped = [seal[:n] + bytes([seal[n] ^ 1]) + seal[n + 1 :] for n in range(len(seal))]
    for wrong in (*flipped, *(seal[:n] for n in range(len(seal))), seal + b"\0"):
        with pytest.raises(KeyStoreError):
            keks(0).check(wrong, sealed)


def test_a_seal_is_the_same_in_every_time_zone_and_in_both_hours_of_autumn():
    later = datetime.fromisoformat("2030-01-01T14:00:00+02:00")
    assert a_row(created_at=later).sealed() == a_row().sealed()
    naive = datetime(2030, 10, 27, 2, 30)  # noqa: DTZ001 - what Django gives without USE_TZ
    again = naive.replace(fold=1)
    assert a_row(created_at=naive).sealed() == a_row(created_at=again).sealed()


# -- where the key-encryption keys come from -------------------------------------------------------


def test_the_keys_of_the_setting_are_32_bytes_each_in_base64():
    assert encryption_keys(KEKS).current.name == EncryptionKey(SECRETS[0]).name
    envelope = keks(2).encrypt(b"data", **BINDING)
    assert encryption_keys(tuple(KEKS)).decrypt(envelope, **BINDING) == b"data"


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        "",
        KEKS[0],
        [KEKS[0], ""],
        [KEKS[0][:-4]],
        [KEKS[0] + KEKS[0]],
        [base64.b64encode(SECRETS[0][:16]).decode()],
        [base64.urlsafe_b64encode(b"\xff" * 32).decode()],
        [SECRETS[0].hex()],
        ["ñ" * 43 + "="],
        [KEKS[0] + "\n!"],
        [7],
        [None],
        7,
    ],
)
def test_a_wrong_key_is_told_in_one_sentence_that_does_not_quote_it(wrong):
    with pytest.raises(ConfigurationError) as caught:
        encryption_keys(wrong)
    assert str(caught.value) == "ENCRYPTION_KEYS must be a list of 32 bytes each, in base64."
    assert KEKS[0][:12] not in told_by(caught.value)
    with pytest.raises(ConfigurationError, match=r"^BAIKAL\['eu'\]: KEYS OPTIONS: ENCRYPTION_KEYS"):
        options_of(ClientConfig(alias="eu"), {"ENCRYPTION_KEYS": wrong})


def test_without_the_setting_secret_key_encrypts_and_its_fallbacks_open(settings):
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "old" * 20, []
    envelope = encryption_keys(None).encrypt(b"data", **BINDING)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = b"new" * 20, ["x" * 60, "old" * 20]
    both = encryption_keys(None)
    assert both.decrypt(envelope, **BINDING) == b"data"
    assert both.name_of(both.encrypt(b"data", **BINDING)) != both.name_of(envelope)
    settings.SECRET_KEY_FALLBACKS = []
    with pytest.raises(EncryptionKeyMissing):
        encryption_keys(None).decrypt(envelope, **BINDING)


def test_secret_key_may_stand_among_the_others_while_keys_move_from_it_or_to_it():
    old = encryption_keys(None).encrypt(b"data", **BINDING)
    moving = encryption_keys([KEKS[0], "SECRET_KEY"])
    assert moving.decrypt(old, **BINDING) == b"data"
    assert moving.current.name == EncryptionKey(SECRETS[0]).name
    back = encryption_keys(["SECRET_KEY", KEKS[0]])
    assert back.current.name == encryption_keys(None).current.name
    assert back.decrypt(moving.encrypt(b"data", **BINDING), **BINDING) == b"data"


@pytest.mark.parametrize("given", [{}, {"ENCRYPTION_KEYS": None}])
def test_it_is_known_whether_the_keys_hang_on_secret_key(given):
    assert not options_of(ClientConfig(), given).dedicated
    assert options_of(ClientConfig(), {"ENCRYPTION_KEYS": KEKS}).dedicated


def test_without_any_secret_the_setting_is_asked_for(settings):
    settings.SECRET_KEY = ""
    with pytest.raises(ConfigurationError, match=r"^BAIKAL\['default'\]: KEYS OPTIONS: .*SECRET_K"):
        options_of(ClientConfig(), {})
    assert options_of(ClientConfig(), {"ENCRYPTION_KEYS": KEKS}).dedicated


# -- what is told ----------------------------------------------------------------------------------


def assert_tells_no_kek(text: str) -> None:
    for secret in SECRETS:
        for spelled in (
            base64.b64encode(secret).decode(),
            secret.hex(),
            str(int.from_bytes(secret, "big")),
            repr(secret)[2:-1],
        ):
            assert spelled[:16] not in text
            assert spelled[-16:] not in text


@pytest.mark.django_db
@pytest.mark.parametrize("alg", ["RS256", "ES256", "EdDSA"])
def test_nothing_that_is_shown_or_logged_or_raised_tells_a_secret(alg, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    Clock(monkeypatch)
    key, keys = PRIVATE[alg], encryption_keys(KEKS)
    own = keeper(ENCRYPTION_KEYS=KEKS)
    outcome = own.import_key(material(key, alg=alg))
    row = rows()[0]
    signing = own.store.signing_key()
    shown: list[Any] = [keys, keys.current, own, own.options, own.store, own.store.ring()]
    shown += [outcome, row, row.sealed(), vars(row), signing, vars(own.store), vars(own.options)]
    text = "\n".join(f"{each!r}\n{each!s}" for each in shown)
    cut = keks(0).encrypt(der(key)[:-9], ring=row.ring, kid=row.kid, alg=row.alg)
    broken = [row.envelope[:-1], b"\2" + row.envelope, cut]
    broken.append(EncryptionKeys([b"?" * 32]).encrypt(b"", **BINDING))
    for envelope in broken:
        wrong = copy.copy(row)
        wrong.private_envelope = envelope
        with pytest.raises(KeyStoreError) as caught:
            opened(wrong, keys)
        reporter = ExceptionReporter(None, type(caught.value), caught.value, caught.tb.tb_next)
        text += told_by(caught.value) + reporter.get_traceback_html()
        edit(row, private_envelope=envelope)
        assert not store(ENCRYPTION_KEYS=KEKS)._usable(rows()[0])
    text += caplog.text
    assert "was tampered with" in text and "of a kind that is not known" in text
    assert_tells_nothing(text, key)
    assert_tells_no_kek(text)


def test_an_envelope_that_holds_no_key_is_refused_and_not_shown():
    row, secret = a_row(), secrets.token_hex()
    row.private_envelope = keks(0).encrypt(secret.encode(), **BINDING)
    with pytest.raises(UnsupportedKey, match="of a kind that is not known here") as caught:
        opened(row, keks(0))
    report = ExceptionReporter(None, type(caught.value), caught.value, caught.tb.tb_next)
    assert secret not in told_by(caught.value) + report.get_traceback_html()


@pytest.mark.parametrize("leave", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_key_encryption_key_does_not_leave_the_process(leave):
    for each in (EncryptionKey(SECRETS[0]), options_of(ClientConfig(), {})):
        if leave is copy.copy and not isinstance(each, EncryptionKey):
            continue
        with pytest.raises(TypeError, match="A key is not pickled") as caught:
            leave(each)
        assert_tells_no_kek(told_by(caught.value))


@pytest.mark.django_db
@pytest.mark.parametrize("alg", PRIVATE)
def test_a_dump_of_the_data_holds_ciphertext_only(alg, capsys, monkeypatch):
    Clock(monkeypatch)
    keeper().import_key(material(PRIVATE[alg], alg=alg))
    call_command("dumpdata", "django_baikal")
    dumped = capsys.readouterr().out
    assert_tells_nothing(dumped, PRIVATE[alg])
    assert_tells_no_kek(dumped)
    fields = json.loads(dumped)[0]["fields"]
    assert base64.b64decode(fields["private_envelope"]) == rows()[0].envelope
    assert base64.b64decode(fields["seal"]) == bytes(rows()[0].seal)


@pytest.mark.django_db
def test_a_dump_that_is_loaded_again_is_as_good_as_before(tmp_path, monkeypatch):
    # JSON has the first three of them alone.
    Clock(monkeypatch).forward(microseconds=123_456)
    keeper().rotate()
    dump = tmp_path / "keys.json"
    with dump.open("w") as file:
        call_command("dumpdata", "django_baikal", stdout=file)
    before, signing = Keyring([store()]).jwk_set(), store().signing_key()
    SigningKey.objects.all().delete()
    call_command("loaddata", str(dump), verbosity=0)
    assert Keyring([store()]).jwk_set() == before
    assert store().signing_key().kid == signing.kid


@pytest.mark.django_db(transaction=True)
def test_the_table_can_be_taken_back_and_made_again(monkeypatch):
    table = SigningKey._meta.db_table
    try:
        for target, there in ((None, False), ("0001_initial", True)):
            executor = MigrationExecutor(connection)
            executor.migrate([("django_baikal", target)])
            assert (table in connection.introspection.table_names()) is there
    finally:
        executor = MigrationExecutor(connection)
        executor.migrate([("django_baikal", "0001_initial")])
    keeper().rotate()
    assert len(store().keys()) == 2
