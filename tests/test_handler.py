from __future__ import annotations

import base64
import copy
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import override_settings
from django.views.debug import ExceptionReporter
from material import ec_key, pem

import django_baikal
from django_baikal import OpenIDClient, clients, handler
from django_baikal.exceptions import ConfigurationError

ENTRY = {"AUTHSERVER_ENDPOINT": "https://auth.example.com", "CLIENT_ID": "a", "CLIENT_SECRET": "s"}


@pytest.fixture
def baikal() -> Any:
    """Give the project's setting, free to be changed in place."""
    mine: dict[str, Any] = {"default": dict(ENTRY), "eu": {**ENTRY, "CLIENT_ID": "eu"}}
    with override_settings(BAIKAL=mine):
        yield mine


def test_the_package_has_the_handler_and_the_client():
    assert django_baikal.clients is handler.clients
    assert django_baikal.OpenIDClient is OpenIDClient


def test_an_alias_has_one_client_however_it_is_asked_for(baikal):
    assert clients["default"] is clients["default"] is clients.default
    assert clients["eu"] is clients.eu
    assert clients["eu"] is not clients["default"]
    assert (clients["eu"].config.alias, clients["eu"].config.client_id) == ("eu", "eu")


def test_the_aliases_can_be_listed_and_looked_for(baikal):
    assert list(clients) == ["default", "eu"]
    assert "eu" in clients
    assert "us" not in clients
    assert [] not in clients


def test_an_unknown_alias_is_an_error_and_as_an_attribute_an_attribute_error(baikal):
    with pytest.raises(ConfigurationError, match="BAIKAL has no alias 'us'"):
        clients["us"]
    with pytest.raises(AttributeError, match="BAIKAL has no alias 'us'"):
        _ = clients.us
    assert not hasattr(clients, "us")
    assert not hasattr(clients, "_repr_html_")


def test_an_alias_that_is_wrong_says_so_as_an_attribute_too(baikal):
    baikal["eu"]["TIMEOUT"] = 0
    for ask in (lambda: clients.eu, lambda: clients["eu"], lambda: hasattr(clients, "eu")):
        with pytest.raises(ConfigurationError, match=r"BAIKAL\['eu'\]: TIMEOUT must be more"):
            ask()
    assert clients["default"]


def test_an_entry_that_is_put_right_works_at_once(baikal):
    baikal["default"]["TIMEOUT"] = 0
    with pytest.raises(ConfigurationError):
        clients["default"]
    baikal["default"]["TIMEOUT"] = 1
    assert clients["default"].config.timeout == 1


def change_override(baikal: Any, monkeypatch: Any) -> Any:
    return override_settings(BAIKAL={"default": {**ENTRY, "CLIENT_ID": "b"}})


def change_by_assignment(baikal: Any, monkeypatch: Any) -> None:
    # It ends with the override of the fixture; what monkeypatch put back would outlive that.
    settings.BAIKAL = {"default": {**ENTRY, "CLIENT_ID": "b"}}


def change_the_entry(baikal: Any, monkeypatch: Any) -> None:
    baikal["default"] = {**ENTRY, "CLIENT_ID": "b"}


def change_in_place(baikal: Any, monkeypatch: Any) -> None:
    baikal["default"]["CLIENT_ID"] = "b"


def change_the_environment(baikal: Any, monkeypatch: Any) -> None:
    del baikal["default"]["CLIENT_ID"]
    monkeypatch.setenv("BAIKAL_CLIENT_ID", "b")


@pytest.mark.parametrize(
    "change",
    [
        change_override,
        change_by_assignment,
        change_the_entry,
        change_in_place,
        change_the_environment,
    ],
)
def test_a_change_is_seen_however_it_is_made(baikal, monkeypatch, change):
    before, other = clients["default"], clients["eu"]
    manager = change(baikal, monkeypatch)
    if manager is not None:
        with manager:
            after = clients["default"]
            assert after.config.client_id == "b"
        assert clients["default"].config.client_id == "a"
    else:
        after = clients["default"]
        assert after is clients["default"]
        assert after.config.client_id == "b"
        if change is not change_by_assignment:
            assert clients["eu"] is other
    assert after is not before
    assert before.config.client_id == "a"


def test_a_fixture_in_the_manner_of_pytest_django_is_seen(settings):
    settings.BAIKAL = {"default": {**ENTRY, "CLIENT_ID": "by-fixture"}}
    assert clients["default"].config.client_id == "by-fixture"
    del settings.BAIKAL
    with pytest.raises(ConfigurationError, match="AUTHSERVER_ENDPOINT is missing"):
        clients["default"]


def test_a_change_of_the_environment_alone_is_seen(baikal, monkeypatch):
    before = clients["default"]
    monkeypatch.setenv("BAIKAL_ISSUER", "https://me.example.com/")
    assert clients["default"].config.issuer == "https://me.example.com/"
    monkeypatch.delenv("BAIKAL_ISSUER")
    assert clients["default"].config == before.config


def test_other_aliases_that_come_and_go_change_nothing(baikal):
    client = clients["default"]
    baikal["us"] = dict(baikal["eu"])
    assert (clients["default"], clients["us"].config.alias) == (client, "us")
    del baikal["us"], baikal["eu"]
    assert clients["default"] is client
    for gone in ("us", "eu"):
        with pytest.raises(ConfigurationError, match="BAIKAL has no alias"):
            clients[gone]


def test_a_change_of_a_variable_that_another_one_names_is_seen(baikal, monkeypatch):
    del baikal["default"]["CLIENT_ID"]
    monkeypatch.setenv("BAIKAL_CLIENT_ID", "$OTHER_ID")
    for client_id in ("one", "two"):
        monkeypatch.setenv("OTHER_ID", client_id)
        assert clients["default"].config.client_id == client_id
    assert clients["default"] is clients["default"]


def test_a_file_of_key_encryption_keys_that_is_written_anew_is_seen(baikal, monkeypatch, tmp_path):
    backend = "django_baikal.keys.database.DatabaseKeyStore"
    baikal["default"]["KEYS"] = {"BACKEND": backend}
    monkeypatch.setenv("BAIKAL_KEY_ENCRYPTION_KEYS_FILE", str(tmp_path / "keys"))
    with pytest.raises(ConfigurationError, match="KEY_ENCRYPTION_KEYS_FILE cannot be read"):
        clients["default"]
    first, second = (base64.b64encode(letter * 32).decode() for letter in (b"a", b"b"))
    for text in (first, f"{second}\n{first}"):
        (tmp_path / "keys").write_text(text)
        options = clients["default"].config.keys["OPTIONS"]
        assert list(options["ENCRYPTION_KEYS"]) == text.split()
        assert clients["default"] is clients["default"]


def test_a_key_added_to_a_nested_list_is_seen(baikal):
    keys = baikal["default"]["CLIENT_KEYS"] = [{"key": pem(ec_key(0))}]
    first = clients["default"]
    assert len(first.get_jwk_set(dump_json=False)["keys"]) == 1
    keys.append({"key": pem(ec_key(1))})
    assert len(clients["default"].get_jwk_set(dump_json=False)["keys"]) == 2
    keys[0]["kid"] = "renamed"
    assert clients["default"].get_jwk_set(dump_json=False)["keys"][0]["kid"] == "renamed"
    keys[:] = []
    assert clients["default"].get_jwk_set(dump_json=False) == {"keys": []}
    assert len(first.get_jwk_set(dump_json=False)["keys"]) == 1


def test_an_error_report_shows_neither_the_old_settings_nor_the_new_ones(baikal):
    baikal["default"]["CLIENT_SECRET"] = "the-old-secret"
    assert clients["default"]
    baikal["default"] |= {"CLIENT_SECRET": "the-new-secret", "CLIENT_ID": 1}
    with pytest.raises(ConfigurationError) as caught:
        clients["default"]
    report = ExceptionReporter(None, caught.type, caught.value, caught.tb.tb_next)
    html = report.get_traceback_html()
    assert "made" in html and "-secret" not in html


def test_a_client_that_somebody_holds_does_not_change(baikal):
    keys = baikal["default"]["CLIENT_KEYS"] = [{"key": pem(ec_key()), "kid": "old"}]
    held = clients["default"]
    baikal["default"]["CLIENT_ID"] = "b"
    keys[0]["kid"] = "new"
    assert held.config.client_id == "a"
    assert held.get_jwk_set(dump_json=False)["keys"][0]["kid"] == "old"


def test_twenty_threads_that_ask_first_get_the_same_client():
    class Slow(float):
        """Makes the others arrive while the first one is at work."""

        def __deepcopy__(self, memo: Any) -> Slow:
            time.sleep(0.2)
            return self

    with override_settings(BAIKAL={"default": {**ENTRY, "TIMEOUT": Slow(5)}}):
        gate = threading.Barrier(20)

        def ask(_: int) -> OpenIDClient:
            gate.wait()
            return clients["default"]

        with ThreadPoolExecutor(20) as pool:
            assert len({id(client) for client in list(pool.map(ask, range(20)))}) == 1


def test_a_script_without_settings_has_the_client_of_the_environment():
    script = """
        from django_baikal import clients
        print(clients["default"].config.client_id, clients["default"] is clients["default"])
    """
    env = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**env, **{f"BAIKAL_{name}": value for name, value in ENTRY.items()}},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.stdout, done.stderr) == ("a True\n", "")


def test_copying_or_pickling_does_not_ask_for_an_alias(baikal):
    assert list(copy.copy(clients)) == ["default", "eu"]
    # What stops it depends on the clients that were made so far.
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        pickle.dumps(clients)


def test_a_child_of_a_fork_gets_a_client_although_the_lock_was_held():
    script = """
        import copy, os, signal, threading, time
        from django.conf import settings

        inside = threading.Event()

        class Slow(float):
            def __deepcopy__(self, memo):
                if not inside.is_set():
                    inside.set()
                    time.sleep(240)
                return self

        settings.configure(BAIKAL={"default": {
            "AUTHSERVER_ENDPOINT": "https://auth.example.com", "CLIENT_ID": "a",
            "CLIENT_SECRET": "s", "TIMEOUT": Slow(5),
        }})
        from django_baikal import clients
        threading.Thread(target=lambda: clients["default"], daemon=True).start()
        inside.wait()
        pid = os.fork()
        if not pid:
            signal.alarm(60)
            os._exit(0 if clients["default"].config.timeout == 5 else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    root = str(Path(django_baikal.__file__).resolve().parent.parent)
    environment = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(script)],
        env=environment | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == ("0", "")
