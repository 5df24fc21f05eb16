from __future__ import annotations

import pytest
from django.test import override_settings

from django_baikal.keys.sealing import digest, seal, unseal

DATA = b'{"access_token": "T0ken"}'
OLD, NEW = "old-" + "x" * 50, "new-" + "y" * 50


def sealed(data: bytes = DATA, purpose: str = "p", name: bytes = b"n") -> bytes:
    return seal(data, purpose=purpose, name=name)


def opened(value: object, purpose: str = "p", name: bytes = b"n") -> bytes | None:
    return unseal(value, purpose=purpose, name=name)


@pytest.mark.parametrize("data", [b"", b"x", DATA, bytes(range(256)) * 4096])
def test_what_was_sealed_is_opened(data):
    assert opened(sealed(data)) == data


def test_the_data_cannot_be_read_in_what_was_sealed():
    value = sealed()
    assert b"T0ken" not in value
    assert len(value) == 1 + 12 + len(DATA) + 16


def test_two_seals_of_the_same_data_differ():
    assert len({sealed() for _ in range(100)}) == 100


@pytest.mark.parametrize("position", range(1 + 12 + len(DATA) + 16))
def test_a_changed_byte_is_found_wherever_it_is(position):
    value = bytearray(sealed())
    for bit in range(8):
        value[position] ^= 1 << bit
        assert opened(bytes(value)) is None
        value[position] ^= 1 << bit
    assert opened(bytes(value)) == DATA


@pytest.mark.parametrize("length", [0, 1, 12, 13, 28, 29, -1])
def test_what_was_cut_is_refused(length):
    assert opened(sealed()[:length]) is None


def test_what_was_lengthened_is_refused():
    assert opened(sealed() + b"\0") is None
    assert opened(b"\x01" + sealed()) is None


def test_a_value_moved_to_another_name_is_refused():
    assert opened(sealed(), name=b"m") is None
    assert opened(sealed(), name=b"") is None


def test_a_value_of_another_purpose_is_refused():
    assert opened(sealed(), purpose="q") is None


@pytest.mark.parametrize(
    "value", [None, "", "text", 5, True, {}, [], bytearray(b"\x01" * 40), memoryview(b"\x01" * 40)]
)
def test_what_is_not_bytes_is_refused_and_not_an_error(value):
    assert opened(value) is None


def test_a_value_sealed_under_another_secret_key_is_refused():
    value = sealed()
    with override_settings(SECRET_KEY=NEW):
        assert opened(value) is None


def test_a_fallback_opens_and_only_the_present_key_seals():
    with override_settings(SECRET_KEY=OLD):
        old = sealed()
    with override_settings(SECRET_KEY=NEW, SECRET_KEY_FALLBACKS=["other" * 12, OLD]):
        assert opened(old) == DATA
        new = sealed()
    with override_settings(SECRET_KEY=OLD):
        assert opened(new) is None
    with override_settings(SECRET_KEY=NEW):
        assert opened(new) == DATA


def test_a_fallback_opens_nothing_that_was_tampered_with():
    with override_settings(SECRET_KEY=OLD):
        old = sealed()
    with override_settings(SECRET_KEY=NEW, SECRET_KEY_FALLBACKS=[OLD]):
        assert opened(old[:-1] + bytes([old[-1] ^ 1])) is None
        assert opened(old, name=b"m") is None


def test_a_secret_key_of_bytes_is_the_same_as_its_text():
    with override_settings(SECRET_KEY="ñ" * 50):
        value, hashed = sealed(), digest(b"x", purpose="p")
    with override_settings(SECRET_KEY=("ñ" * 50).encode()):
        assert opened(value) == DATA
        assert digest(b"x", purpose="p") == hashed


def test_a_digest_depends_on_the_data_the_purpose_and_the_secret_key():
    given = {digest(b"x", purpose="p"), digest(b"y", purpose="p"), digest(b"x", purpose="q")}
    with override_settings(SECRET_KEY=NEW):
        given.add(digest(b"x", purpose="p"))
    assert len(given) == 4
    assert all(len(one) == 64 for one in given)
    assert digest(b"x", purpose="p") in given
