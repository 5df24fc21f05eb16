"""What is wrong with what a command is given, or finds: one sentence, its status, and no change."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from django.db import OperationalError, connection
from every_command import attempt, commands
from keys_stage import TESTS, everything, rows, run
from keys_stage import ring as kept_ring
from material import assert_tells_nothing, ec_key, pem

from django_baikal.testing import FakeAuthserver

KEK = base64.b64encode(bytes(range(32))).decode()
OTHER = base64.b64encode(bytes(range(32, 64))).decode()
PASSPHRASE = "open-sesame-and-more"
#: Exit statuses, as the reference has them.
DONE, FAILED, REFUSED, UNAVAILABLE = 0, 1, 4, 5


def assert_one_sentence(status: int, said: str, printed: str) -> None:
    """The sentence is for a person; nothing in it, or beside it, is secret."""
    assert status in (FAILED, REFUSED, UNAVAILABLE)
    assert said and "\n" not in said and "Traceback" not in said
    assert said[0].isupper() or said[0] == "'", said
    for secret in (KEK, OTHER, PASSPHRASE):
        assert secret not in said + printed
    assert_tells_nothing(said + printed, ec_key())


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "key.pem").write_text(pem(ec_key()))
    return str(tmp_path / "key.pem")


def failing(*_: Any) -> Any:
    raise OperationalError("the server is gone\nand said more")


@contextmanager
def database_down() -> Iterator[None]:
    with connection.execute_wrapper(failing):
        yield


@contextmanager
def another_key() -> Iterator[None]:
    with kept_ring(ENCRYPTION_KEYS=[OTHER]):
        yield


@contextmanager
def not_migrated() -> Iterator[None]:
    from django_baikal.models import SigningKey

    with connection.schema_editor() as editor:
        editor.delete_model(SigningKey)
    try:
        yield
    finally:
        with connection.schema_editor() as editor:
            editor.create_model(SigningKey)


@contextmanager
def tampered() -> Iterator[None]:
    from django_baikal.models import SigningKey

    row = SigningKey.objects.get(sequence=2)
    SigningKey.objects.filter(pk=row.pk).update(retention=1)
    yield
    SigningKey.objects.filter(pk=row.pk).update(retention=row.retention)


#: For each trouble: what is said of it, and the commands that have an answer all the same.
TROUBLES: dict[str, tuple[Any, str, dict[str, int]]] = {
    "down": (database_down, "The database failed (OperationalError): the server is gone", {}),
    "key": (another_key, "needs the key-encryption key", {"show": DONE, "list": UNAVAILABLE}),
    "tampered": (
        tampered,
        "was tampered with",
        {"show": DONE, "list": UNAVAILABLE, "export": DONE},
    ),
}


@pytest.mark.django_db
@pytest.mark.parametrize("trouble", TROUBLES)
def test_whatever_is_wrong_with_the_database_each_command_says_so(trouble: str, path: str) -> None:
    begin, expected, answers = TROUBLES[trouble]
    with kept_ring(ENCRYPTION_KEYS=[KEK]):
        run("rotate_keys")
        kid, before = rows()[0].kid, everything()
        with begin():
            for command in commands(kid, path):
                status, said, printed = attempt(command)
                special = answers.get(command[1]) if len(command) > 1 else None
                if special is DONE:
                    assert status == 0, command
                    continue
                assert status == UNAVAILABLE, command
                assert_one_sentence(status, said, printed)
                assert special or expected in said, command
        assert everything() == before


@pytest.mark.django_db(transaction=True)
def test_without_the_table_each_command_names_the_one_that_makes_it(path: str) -> None:
    with kept_ring(ENCRYPTION_KEYS=[KEK]), not_migrated():
        for command in commands("a-kid", path):
            status, said, printed = attempt(command)
            assert status == UNAVAILABLE, command
            assert_one_sentence(status, said, printed)
            assert "The database has no table baikal_signingkey: run manage.py migrate." in said


@pytest.mark.django_db
def test_an_unknown_ring_is_an_error_of_each_command(path: str) -> None:
    with kept_ring(ENCRYPTION_KEYS=[KEK]):
        run("rotate_keys")
        kid, before = rows()[0].kid, everything()
        for command in commands(kid, path):
            status, said, printed = attempt(command, "--ring=nobodys")
            assert (status, printed) == (FAILED, ""), command
            assert_one_sentence(status, said, printed)
            assert said == "No alias of BAIKAL has the ring 'nobodys'; there are: default."
        assert everything() == before


@pytest.mark.django_db
def test_an_unknown_key_is_an_error_of_each_command_that_names_one(path: str) -> None:
    with kept_ring(ENCRYPTION_KEYS=[KEK]):
        run("rotate_keys")
        before = everything()
        named = [each for each in commands("a-kid", path) if "a-kid" in " ".join(each)]
        assert len(named) == 5
        for command in named:
            status, said, printed = attempt(command)
            assert (status, "'a-kid'" in said) == (FAILED, True), command
            assert_one_sentence(status, said, printed)
        assert everything() == before


@pytest.mark.django_db
def test_times_that_break_a_rule_are_refused_by_each_command_that_makes_a_key(path: str) -> None:
    with kept_ring(ENCRYPTION_KEYS=[KEK]):
        run("rotate_keys", "--no-prune")
        rows()[1].delete()
    with kept_ring(ENCRYPTION_KEYS=[KEK], PROPAGATION=60):
        before = everything()
        for command in (
            ["rotate_keys"],
            ["rotate_keys", "--dry-run"],
            ["rotate_keys", "--now"],
            ["baikal_keys", "generate"],
            ["baikal_keys", "import", path],
        ):
            status, said, printed = attempt(command)
            assert status == REFUSED, command
            assert_one_sentence(status, said, printed)
        assert everything() == before
        # Nobody has to correct the times before a key that has leaked is revoked.
        assert attempt(["rotate_keys", "--emergency", f"--kid={rows()[0].kid}"])[0] == DONE


def _weak(path: Path) -> list[str]:
    key = rsa.generate_private_key(65537, 1024)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return [str(path)]


def _locked(path: Path) -> list[str]:
    path.write_bytes(
        ec_key().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"another"),
        )
    )
    return [str(path)]


def _wrong_passphrase(path: Path) -> list[str]:
    passphrase = path.with_name("passphrase")
    passphrase.write_text(PASSPHRASE)
    return [*_locked(path), f"--password-file={passphrase}"]


def _a_directory(path: Path) -> list[str]:
    path.mkdir()
    return [str(path)]


def _no_key(path: Path) -> list[str]:
    path.write_text("no key")
    return [str(path)]


def _public(path: Path) -> list[str]:
    path.write_bytes(
        ec_key()
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return [str(path)]


FILES: dict[str, tuple[Any, int, str]] = {
    "weak": (_weak, FAILED, "1024"),
    "locked": (_locked, FAILED, "encrypted"),
    "wrong passphrase": (_wrong_passphrase, FAILED, "passphrase"),
    "directory": (_a_directory, FAILED, "cannot be read: Is a directory."),
    "missing": (lambda path: [str(path)], FAILED, "cannot be read: No such file or directory."),
    "no passphrase": (
        lambda path: [*_locked(path), f"--password-file={path}.none"],
        FAILED,
        "cannot be read: No such file or directory.",
    ),
    "no key": (_no_key, FAILED, ""),
    "public": (_public, REFUSED, "The key is public"),
}


@pytest.mark.django_db
@pytest.mark.parametrize("what", FILES)
def test_a_file_that_cannot_be_imported(what: str, tmp_path: Path) -> None:
    make, expected, part = FILES[what]
    with kept_ring(ENCRYPTION_KEYS=[KEK]):
        status, said, printed = attempt(["baikal_keys", "import", *make(tmp_path / "key")])
        assert (status, printed) == (expected, "")
        assert_one_sentence(status, said, printed)
        assert part in said
        assert everything() == []


# -- databases that are not there ------------------------------------------------------------------

CLIENT = {"AUTHSERVER_ENDPOINT": "https://as.test", "CLIENT_ID": "c", "CLIENT_SECRET": KEK}
SCHEMES = {"postgres": "psycopg", "mysql": "MySQLdb", "sqlite": "sqlite3"}


@contextmanager
def nobody_at(scheme: str, path: Path) -> Iterator[str]:
    """Give the URL of a database at which there is nobody."""
    pytest.importorskip(SCHEMES[scheme])
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        # It is bound, and nobody listens.
        url = f"{scheme}://baikal:{PASSPHRASE}@127.0.0.1:{port}/keys"
        yield f"sqlite:///{path}/no-such-directory/keys.sqlite3" if scheme == "sqlite" else url


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_database_that_is_not_there_is_a_sentence_of_each_command(
    scheme: str, tmp_path: Path, path: str
) -> None:
    with nobody_at(scheme, tmp_path) as url:
        done = subprocess.run(
            [sys.executable, "-W", "error", str(TESTS / "every_command.py"), "a-kid", path],
            env={
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "ring_site",
                "DATABASE_URL": url,
                "SITE_CLIENT": json.dumps(
                    {
                        "AUTHSERVER_ENDPOINT": "https://a.test",
                        "CLIENT_ID": "c",
                        "CLIENT_SECRET": KEK,
                    }
                ),
                "PYTHONPATH": os.pathsep.join(each for each in sys.path if each),
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(commands("", ""))
    for status, said, printed in lines:
        assert status == UNAVAILABLE
        assert_one_sentence(status, said, printed)
        assert re.search(r"The database failed \(OperationalError\): [a-zA-Z]", said)


# -- the doctor, to whom all of that is something to find ------------------------------------------


@contextmanager
def authserver_there() -> Iterator[None]:
    known = {"client": "secret"}
    with FakeAuthserver(endpoint="https://auth.example.com", clients=known).in_memory():
        yield


def assert_found(name: str, words: str, answer: tuple[int, str, str]) -> None:
    status, said, printed = answer
    assert status == FAILED
    assert said.endswith(("examination failed.", "examinations failed."))
    assert_tells_nothing(printed, ec_key())
    for secret in (KEK, OTHER, PASSPHRASE):
        assert secret not in printed
    found = {each["name"]: each for each in json.loads(printed)["aliases"][0]["findings"]}
    failed = [name for name, each in found.items() if each["status"] == "failed"]
    # The tests' cache is each process's own, unless CACHE_URL says otherwise.
    assert [each for each in failed if each != "cache"] == [name]
    assert words in found[name]["what"]
    assert found[name]["cure"]


DOCTOR = ["baikal_doctor", "--format=json"]
#: For each trouble of above: the examination that finds it.
FOUND_BY = {"down": "keys", "key": "encryption keys", "tampered": "seals"}


@pytest.mark.django_db
@pytest.mark.parametrize("trouble", TROUBLES)
def test_whatever_is_wrong_with_the_database_the_doctor_finds_it(trouble: str) -> None:
    begin, words, _ = TROUBLES[trouble]
    with kept_ring(ENCRYPTION_KEYS=[KEK]), authserver_there():
        run("rotate_keys")
        before = everything()
        with begin():
            answer = attempt(DOCTOR)
        # What the database says may tell where it is.
        words = "failed (OperationalError)" if trouble == "down" else words
        assert_found(FOUND_BY[trouble], words, answer)
        assert "gone" not in answer[2]
        assert everything() == before


@pytest.mark.django_db(transaction=True)
def test_without_the_table_the_doctor_names_the_command_that_makes_it() -> None:
    with kept_ring(ENCRYPTION_KEYS=[KEK]), not_migrated(), authserver_there():
        answer = attempt(DOCTOR)
    assert_found("keys", "the database failed", answer)
    assert "manage.py migrate" in answer[2]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_database_that_is_not_there_is_found_by_the_doctor(scheme: str, tmp_path: Path) -> None:
    known = FakeAuthserver(clients={"c": KEK})
    with nobody_at(scheme, tmp_path) as url, known.serve() as authserver:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "django", *DOCTOR],
            env={
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "ring_site",
                "DATABASE_URL": url,
                "SITE_CLIENT": json.dumps(authserver.settings()),
                "PYTHONPATH": os.pathsep.join(each for each in sys.path if each),
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.stderr == "CommandError: 2 examinations failed.\n"
    answer = done.returncode, done.stderr.strip(), done.stdout
    assert_found("keys", "the database failed (OperationalError)", answer)


def test_each_command_is_in_the_table() -> None:
    from django_baikal.management.commands.baikal_keys import Command

    subcommands = {name[:-1] for name in vars(Command) if name.endswith("_") and name[0] != "_"}
    assert {each[1] for each in commands("", "") if each[0] == "baikal_keys"} == subcommands
