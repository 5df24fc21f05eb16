from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core import checks
from django.core.checks import run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import override_settings
from material import assert_tells_nothing, certificate, ec_key, jwk_text, pem, public_pem, rsa_key

import django_baikal
from django_baikal.checks import IDS

ENTRY = {
    "AUTHSERVER_ENDPOINT": "https://auth.example.com",
    "CLIENT_ID": "client",
    "CLIENT_SECRET": "secret",
}
HERE = Path(__file__).resolve().parent


def found(tags: list[str] | None = None, **changes: Any) -> list[tuple[str, str]]:
    """Give the ids (without the app's name) and messages for an entry with ``changes``."""
    return found_in({"default": {**ENTRY, **changes}}, tags)


def found_in(setting: Any, tags: list[str] | None = None) -> list[tuple[str, str]]:
    with override_settings(BAIKAL=setting):
        messages = run_checks(tags=tags)
    ours = [one for one in messages if str(one.id).startswith("django_baikal.")]
    for one in ours:
        assert one.id in IDS
        assert one.is_serious() == one.id.startswith("django_baikal.E")
        assert "\n" not in one.msg
        assert_tells_nothing(f"{one.msg} {one.hint} {one.obj}", rsa_key(), ec_key())
    return [(str(one.id).partition(".")[2], one.msg) for one in ours]


def test_a_good_entry_has_nothing_to_report():
    assert found() == []
    assert found(CLIENT_KEYS=[{"key": pem(ec_key())}], ISSUER="https://me.example.com/") == []


@pytest.mark.parametrize("setting", [None, {}])
def test_a_project_that_has_the_app_and_no_client_has_nothing_to_report(setting):
    assert found_in(setting) == []


def test_a_wrong_key_is_said_in_one_sentence_with_the_one_that_was_meant():
    assert found(CLIENT_IDD="x") == [
        ("E001", "BAIKAL['default']: Unknown key 'CLIENT_IDD'. Did you mean 'CLIENT_ID'?")
    ]


def test_all_that_is_wrong_with_all_entries_is_reported_once():
    messages = found_in(
        {
            "default": {**ENTRY, "TIMEOUT": 0, "CLIENTS": 1},
            "eu": {**ENTRY, "CLIENT_ID": 5},
            "us": None,
            "good": ENTRY,
        }
    )
    assert [ident for ident, _ in messages] == ["E001"] * 4
    assert [message.partition(":")[0] for _, message in messages] == [
        "BAIKAL['default']",
        "BAIKAL['default']",
        "BAIKAL['eu']",
        "BAIKAL['us'] must be a dict.",
    ]


def test_a_setting_of_the_wrong_shape_is_reported_once():
    assert found_in([ENTRY]) == [("E001", 'BAIKAL must be a dict of aliases: {"default": {...}}.')]


def test_what_is_missing_names_the_variable():
    assert found(CLIENT_SECRET="") == [
        (
            "E001",
            "BAIKAL['default']: CLIENT_SECRET is missing (or the variable BAIKAL_CLIENT_SECRET).",
        )
    ]


def test_a_project_configured_by_the_environment_is_checked(monkeypatch):
    monkeypatch.setenv("BAIKAL_AUTHSERVER_ENDPOINT", "https://auth.example.com")
    ((ident, message), (_, other)) = found_in({})
    assert ident == "E001"
    assert "CLIENT_ID is missing" in message
    assert "CLIENT_SECRET is missing" in other
    monkeypatch.setenv("BAIKAL_CLIENT_ID", "client")
    monkeypatch.setenv("BAIKAL_CLIENT_SECRET", "secret")
    assert found_in({}) == []


def test_manage_py_check_fails_with_the_same_words():
    with (
        override_settings(BAIKAL={"default": {**ENTRY, "CLIENT_IDD": "x"}}),
        pytest.raises(SystemCheckError, match="Did you mean 'CLIENT_ID'"),
    ):
        call_command("check")


def test_a_warning_does_not_fail_manage_py_check(tmp_path):
    (tmp_path / "README").write_text("nonsense")
    (tmp_path / "key.pem").write_text(pem(ec_key()))
    errors = StringIO()
    with override_settings(BAIKAL={"default": {**ENTRY, "PRIVATE_CERTS_PATH": str(tmp_path)}}):
        call_command("check", stderr=errors)
    assert f"{tmp_path}/README: The data is no key in a known format (" in errors.getvalue()


# -- keys ------------------------------------------------------------------------------------------


def test_each_file_that_cannot_be_used_is_a_warning_with_its_name(tmp_path):
    (tmp_path / "bad.json").write_text(jwk_text(rsa_key(), alg="RSA-OAEP"))
    (tmp_path / "cut.pem").write_text(pem(rsa_key())[:-100])
    (tmp_path / "good.pem").write_text(pem(ec_key()))
    (tmp_path / "public.pem").write_text(public_pem(rsa_key()))
    (tmp_path / "text.private").write_text(pem(ec_key()))
    messages = found(PRIVATE_CERTS_PATH=str(tmp_path))
    where = f"BAIKAL['default']: this key is not used: {tmp_path}"
    assert messages == [
        (
            "W001",
            (
                f"{where}/bad.json (read as json): The key cannot be used with alg 'RSA-OAEP'; use "
                "RS256, RS384, RS512, PS256, PS384, PS512."
            ),
        ),
        ("W001", f"{where}/cut.pem (read as pem): The PEM is damaged: a block has no end."),
        (
            "W001",
            (
                f"{where}/text.private (read as private): The data is not 'private': it looks like "
                "'pem'."
            ),
        ),
    ]


def test_an_encrypted_file_is_told_where_its_passphrase_could_be(tmp_path):
    (tmp_path / "key.pem").write_text(pem(ec_key()))
    (tmp_path / "locked.pem").write_text(pem(rsa_key(), password="secret"))
    baikal = {"default": {**ENTRY, "PRIVATE_CERTS_PATH": str(tmp_path)}}
    with override_settings(BAIKAL=baikal):
        (message,) = (m for m in run_checks() if m.id == "django_baikal.W001")
    assert message.hint == "CLIENT_KEYS has a place for the passphrase."


def test_a_certificate_that_has_expired_is_a_warning_that_names_the_date(tmp_path):
    (tmp_path / "key.pem").write_text(pem(ec_key()))
    (tmp_path / "old.pem").write_text(certificate(rsa_key(), datetime(2020, 2, 29, tzinfo=UTC)))
    (tmp_path / "young.pem").write_text(certificate(ec_key(1), datetime(2120, 2, 29, tzinfo=UTC)))
    said = f"{tmp_path}/old.pem: the certificate expired on 2020-02-29."
    assert found(PRIVATE_CERTS_PATH=str(tmp_path)) == [("W005", f"BAIKAL['default']: {said}")]


def test_a_private_key_that_others_can_read_is_a_warning(tmp_path):
    for name, data, mode in (
        ("closed.pem", pem(ec_key()), 0o640),
        ("open.pem", pem(ec_key()), 0o604),
        ("public.pem", public_pem(rsa_key()), 0o644),
    ):
        (tmp_path / name).write_text(data)
        (tmp_path / name).chmod(mode)
    tmp_path.chmod(0o755)
    said = f"BAIKAL['default']: {tmp_path}/open.pem: every user of this machine can read it."
    assert found(PRIVATE_CERTS_PATH=str(tmp_path)) == [("W006", said)]
    for mode in (0o750, 0o754):
        tmp_path.chmod(mode)
        assert found(PRIVATE_CERTS_PATH=str(tmp_path)) == []
    tmp_path.chmod(0o711)
    assert found(PRIVATE_CERTS_PATH=str(tmp_path)) == [("W006", said)]


def test_public_keys_alone_are_no_error_where_another_source_signs(tmp_path):
    (tmp_path / "old.pem").write_text(public_pem(rsa_key()))
    assert found(PRIVATE_CERTS_PATH=str(tmp_path), CLIENT_KEYS=[{"key": pem(ec_key())}]) == []


def test_each_entry_that_cannot_be_used_is_a_warning_with_its_place():
    keys = [{"key": pem(ec_key())}, {"key": pem(rsa_key()), "alg": "ES256"}]
    ((ident, message),) = found(CLIENT_KEYS=keys)
    assert ident == "W001"
    assert "this key is not used: CLIENT_KEYS[1] (read as pem): The key cannot be used" in message


@pytest.mark.parametrize(
    "files", [{}, {"bad.pem": "nonsense"}, {"public.pem": public_pem(ec_key())}]
)
def test_a_directory_without_a_key_that_can_be_used_is_an_error(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    messages = found(PRIVATE_CERTS_PATH=str(tmp_path))
    assert [ident for ident, _ in messages] == ["W001"] * ("bad.pem" in files) + ["E002"]
    assert messages[-1][1] == (
        f"BAIKAL['default']: PRIVATE_CERTS_PATH ({tmp_path}) has no key that can sign."
    )


def test_a_directory_that_is_not_there_is_an_error(tmp_path):
    ((ident, message),) = found(PRIVATE_CERTS_PATH=str(tmp_path / "missing"))
    assert ident == "E002"
    assert "cannot be read: No such file or directory." in message


def test_client_keys_without_one_that_can_be_used_is_an_error_although_the_directory_has_one(
    tmp_path,
):
    (tmp_path / "good.pem").write_text(pem(ec_key()))
    messages = found(PRIVATE_CERTS_PATH=str(tmp_path), CLIENT_KEYS=[{"key": "nonsense"}])
    assert [ident for ident, _ in messages] == ["W001", "E002"]
    assert messages[1][1] == "BAIKAL['default']: CLIENT_KEYS has no key that can sign."


def test_several_keys_are_a_warning_that_names_the_one_that_signs(tmp_path):
    (tmp_path / "1.pem").write_text(pem(rsa_key()))
    (tmp_path / "2.json").write_text(jwk_text(ec_key(), kid="the-last"))
    ((ident, message),) = found(PRIVATE_CERTS_PATH=str(tmp_path))
    assert ident == "W002"
    assert "has 2 private keys; 'the-last' signs" in message
    (tmp_path / "1.pem").write_text(pem(ec_key()))
    assert found(PRIVATE_CERTS_PATH=str(tmp_path)) == []


def test_two_keys_under_one_kid_are_a_warning(tmp_path):
    (tmp_path / "key.json").write_text(jwk_text(ec_key(), kid="same"))
    other = {"key": pem(rsa_key()), "kid": "same"}
    messages = found(PRIVATE_CERTS_PATH=str(tmp_path), CLIENT_KEYS=[other])
    assert messages == [
        (
            "W004",
            "BAIKAL['default']: two keys have the kid 'same', and only one of them is published.",
        )
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ISSUER": "https://me.example.com/"}, "ISSUER is set"),
        ({"CLIENT_AUTH_METHOD": "private_key_jwt"}, "CLIENT_AUTH_METHOD is 'private_key_jwt'"),
    ],
)
def test_something_to_sign_and_no_key_is_a_warning(changes, said):
    assert found(**changes) == [
        ("W003", f"BAIKAL['default']: {said}, and there is no key to sign with.")
    ]


# -- the cache, and choices that are not safe ------------------------------------------------------


def test_a_cache_that_is_not_there_is_an_error():
    assert found(CACHE="tokens") == [
        ("E003", "BAIKAL['default']: CACHE is 'tokens', which is not in CACHES.")
    ]
    assert found([checks.Tags.caches], CACHE="tokens", CLIENT_IDD="x") == []


@pytest.mark.parametrize(
    ("changes", "ident"), [({"VERIFY_CERTS": False}, "W010"), ({"ALLOW_HTTP": True}, "W011")]
)
def test_a_choice_that_is_not_safe_is_a_security_warning(changes, ident):
    assert [one for one, _ in found([checks.Tags.security], **changes)] == [ident]
    assert [one for one, _ in found(**changes)] == [ident]
    assert found([checks.Tags.security], **changes, CLIENT_IDD="x") == []


def test_every_check_has_an_id_that_says_what_it_is_about():
    assert all(text.endswith(".") for text in IDS.values())
    assert len(set(IDS.values())) == len(IDS)


# -- what starting costs ---------------------------------------------------------------------------


def run(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    root = Path(django_baikal.__file__).resolve().parent.parent
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([str(root), str(HERE)])}
        | {"DJANGO_SETTINGS_MODULE": "settings"}
        | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


NO_SOCKETS = """
    import sys

    def forbid(event, arguments):
        if event.startswith("socket."):
            raise RuntimeError(f"{event} {arguments}")

    sys.addaudithook(forbid)
"""


def test_starting_and_checking_open_no_socket(tmp_path):
    (tmp_path / "key.pem").write_text(pem(rsa_key()))
    script = f"""
        {textwrap.indent(textwrap.dedent(NO_SOCKETS), " " * 8)}
        import django
        django.setup()
        import django_baikal, django_baikal.urls
        from django.core.management import call_command
        assert "requests" not in sys.modules and "aiohttp" not in sys.modules
        call_command("check")
        assert "requests" not in sys.modules and "aiohttp" not in sys.modules
        print(django_baikal.clients["default"].get_jwk_set())
    """
    done = run(script, BAIKAL_PRIVATE_CERTS_PATH=str(tmp_path), BAIKAL_ISSUER="https://me")
    assert done.stderr == ""
    assert '"RS256"' in done.stdout


def test_the_guard_of_the_test_above_bites():
    done = run(NO_SOCKETS + "    import socket; socket.socket()")
    assert "RuntimeError: socket.__new__" in done.stderr


def test_setting_up_reads_no_setting_of_ours_and_logs_nothing():
    script = """
        import logging, django
        from django.conf import settings
        settings.LOGGING_CONFIG  # the test settings log what they read from the environment
        logging.basicConfig(level=0)
        django.setup()
        print("ready")
    """
    done = run(script, BAIKAL_TIMEOUT="nonsense", BAIKAL_AUTHSERVER_ENDPOINT="nonsense")
    assert (done.stdout, done.stderr) == ("ready\n", "")
