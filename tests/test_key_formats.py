"""Every kind of key in every format, declared as every format: it loads, or says why not."""

from __future__ import annotations

import logging
import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st
from material import assert_tells_nothing, numbers, told_by

from django_baikal.exceptions import (
    KeyLoadError,
    PassphraseRequired,
    UnknownFormat,
    WrongPassphrase,
)
from django_baikal.keys import containers, load_key
from django_baikal.keys.base import KeyMaterial
from django_baikal.keys.directory import DirectoryKeyStore
from django_baikal.keys.formats import FORMATS, load_keys
from django_baikal.protocol import jws

if not shutil.which("openssl"):
    pytest.skip("there is no openssl command to make keys with", allow_module_level=True)

from key_files import PASSPHRASE, KeyFile, expected, key_files, openssl

FILES = {file.name: file for file in key_files()}
CLAIMS = {"iss": "https://me.example.com/", "exp": 2_000_000_000}


def secret_keys(file: KeyFile) -> list[Any]:
    return [file.key] if file.key is not None else []


@pytest.mark.parametrize("name", FILES)
def test_each_file_loads_or_is_refused_with_the_right_error(name, caplog):
    file = FILES[name]
    with caplog.at_level(logging.DEBUG):
        for declared in (None, *FORMATS):
            for password in (None, PASSPHRASE, "wr0ng-phrase"):
                error = check(file, declared, password)
                if error is not None:
                    told = told_by(error) + repr(vars(error))
                    assert_tells_nothing(told, *secret_keys(file))
                    assert PASSPHRASE not in told
                    assert "wr0ng" not in told
    assert_tells_nothing(caplog.text, *secret_keys(file))


def check(file: KeyFile, format: str | None, password: str | None) -> KeyLoadError | None:
    """Load the file, and compare what comes of it; give the error."""
    wanted = expected(file, password is not None)
    if file.encrypted and password not in (None, PASSPHRASE):
        wanted = WrongPassphrase
    if format is not None and format not in file.formats:
        wanted = UnknownFormat
    if wanted is not None:
        with pytest.raises(KeyLoadError) as caught:
            load_key(file.data, format=format, password=password)
        assert type(caught.value) is wanted, (format, password)
        return caught.value
    key = load_key(file.data, format=format, password=password)
    assert key.alg == file.alg
    assert (key.private_key is not None) == file.signs
    assert set(key.public_jwk) <= {"kty", "crv", "n", "e", "x", "y", "kid", "use", "alg"}
    assert key.kid == key.thumbprint
    if file.signs:
        assert numbers(key.private_key) == numbers(file.key)
        assert (
            jws.verify(key.sign(CLAIMS), [key.public_jwk], algorithms=[file.alg]).claims == CLAIMS
        )
    return None


def test_there_is_a_file_of_every_kind_and_format():
    assert len(FILES) > 150
    assert {name for file in FILES.values() for name in file.formats} == {*FORMATS}
    assert sum(file.error is None for file in FILES.values()) > 100


def test_a_key_whose_passphrase_is_empty_is_not_opened_without_one():
    locked = openssl("pkcs8 -topk8 -passout pass:", input=FILES["p256-pkcs8.pem"].data)
    assert b"ENCRYPTED" in locked
    for password in (None, "", b""):
        with pytest.raises(PassphraseRequired):
            load_key(locked, password=password)


@pytest.mark.parametrize("how", ["-v2 des3", "-v1 PBE-SHA1-3DES"])
def test_a_key_that_is_encrypted_in_an_older_way_is_opened(how):
    secret = f"-passout pass:{PASSPHRASE}"
    file = FILES["p256-pkcs8.pem"]
    locked = openssl(f"pkcs8 -topk8 {how} {secret}", input=file.data)
    assert numbers(load_key(locked, password=PASSPHRASE).private_key) == numbers(file.key)
    with pytest.raises(WrongPassphrase):
        load_key(locked, password="wr0ng-phrase")
    with pytest.raises(PassphraseRequired):
        load_key(locked)


def test_a_certificate_request_is_no_certificate():
    key = FILES["p256-pkcs8.pem"].data
    for form in ("PEM", "DER"):
        request = openssl(f"req -new -key /dev/stdin -subj /CN=me -outform {form}", input=key)
        with pytest.raises(KeyLoadError):
            load_key(request)


def test_an_archive_of_keys_is_named_as_what_it_is():
    # The outside of PKCS#12: version 3, then what it holds.
    data = bytes.fromhex("3009020103300406022a03")
    with pytest.raises(UnknownFormat, match="PKCS#12, which is not a known format"):
        load_key(data)


def test_a_panic_of_a_library_is_a_damaged_key():
    """That of cryptography, for an IV that is too short, is no Exception at all."""
    locked = load_pem_private_key(FILES["p256-pkcs8.pem"].data, None).private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"s3cret-phrase")
    )
    cut = re.sub(rb"(DEK-Info: [^,]+,[0-9A-F]{30})..", rb"\1", locked)
    assert len(cut) == len(locked) - 2
    with pytest.raises(KeyLoadError):
        load_key(cut, password="s3cret-phrase")


def test_what_stops_a_program_stops_it_also_while_a_key_is_read():
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        containers._parsed(interrupted)


# -- damaged ---------------------------------------------------------------------------------------


def refuse_or_load(file: KeyFile, data: bytes, format: str | None) -> list[KeyMaterial]:
    """Load what may be damaged: nothing is raised, and nothing is told of the key."""
    parts = load_keys(data, format=format, password=PASSPHRASE)
    assert parts
    for part in parts:
        if isinstance(part, KeyLoadError):
            told = told_by(part) + repr(vars(part))
            assert_tells_nothing(told, *secret_keys(file))
            assert PASSPHRASE not in told
    return [part for part in parts if isinstance(part, KeyMaterial)]


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_cut_anywhere_is_refused_or_whole(name, scale, caplog):
    file = FILES[name]
    ends = range(len(file.data))
    if (most := scale(40, 400)) < len(ends):
        ends = random.Random(name).sample(ends, most)
    with caplog.at_level(logging.DEBUG):
        for end in ends:
            for key in refuse_or_load(file, file.data[:end], random.choice([None, *file.formats])):
                # What was cut off was not of the key: a line end, or what stood after it.
                if file.error is not None:
                    continue
                assert key.alg == file.alg
                assert key.thumbprint == load_key(file.data, password=PASSPHRASE).thumbprint
    assert_tells_nothing(caplog.text, *secret_keys(file))


@pytest.mark.slow
@given(
    st.sampled_from(sorted(FILES)),
    st.floats(0, 1, exclude_max=True),
    st.binary(max_size=4),
    st.integers(0, 4),
)
def test_a_file_in_which_anything_was_replaced_is_refused_or_loaded(name, place, new, length):
    file = FILES[name]
    start = int(place * len(file.data))
    data = file.data[:start] + new + file.data[start + length :]
    for declared in (None, *file.formats):
        refuse_or_load(file, data, declared)


@given(st.binary(max_size=400), st.sampled_from([None, *FORMATS]))
def test_any_bytes_are_refused(data, format):
    with pytest.raises(KeyLoadError):
        load_key(data, format=format, password="x")


@given(st.integers(0, 255), st.integers(0, 2**40), st.binary(max_size=64))
def test_any_beginning_of_der_is_refused(tag, length, rest):
    size = (length.bit_length() + 7) // 8
    data = bytes([tag, 0x80 + size]) + length.to_bytes(size, "big") + rest
    for declared in ("private", "pkcs8", "spki", "x509", None):
        with pytest.raises(KeyLoadError):
            load_key(data, format=declared, password="x")


# -- a directory of them ---------------------------------------------------------------------------


def test_a_directory_of_all_of_them_uses_each_file_or_says_why_not(tmp_path, caplog):
    written: dict[str, KeyFile] = {}
    for file in FILES.values():
        for extension in file.formats:
            name = f"{Path(file.name).stem}.{extension}"
            (tmp_path / name).write_bytes(file.data)
            written[name] = file
    store = DirectoryKeyStore(str(tmp_path))
    with caplog.at_level(logging.DEBUG):
        used = {Path(place).name for place, part in store.parts() if isinstance(part, KeyMaterial)}
        problems = {Path(problem.path or "").name: problem for problem in store.problems()}
    assert used | {*problems} == {*written}
    assert not used & {*problems}
    for name, file in written.items():
        wanted = expected(file, unlocked=False)
        assert type(problems[name]) is wanted if wanted else name in used
    told = caplog.text + "".join(map(str, problems.values()))
    for file in FILES.values():
        assert_tells_nothing(told, *secret_keys(file))


def test_an_extension_that_does_not_tell_the_format_is_found_out(tmp_path):
    for extension, form in (
        ("key", "p256-pkcs8.der"),
        ("crt", "rsa-x509.der"),
        ("PEM", "rsa-jwk.json"),
    ):
        (tmp_path / f"a.{extension}").write_bytes(FILES[form].data)
    store = DirectoryKeyStore(str(tmp_path))
    assert len(store.keys()) == 3
    (tmp_path / "b.SPKI").write_bytes(FILES["p384-pkcs8.der"].data)
    (problem,) = store.problems()
    assert str(problem) == (
        f"{tmp_path}/b.SPKI (read as spki): The data is not 'spki': it looks like 'pkcs8'."
    )
