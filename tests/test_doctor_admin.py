"""The doctor's page in the admin: who may see it, that it asks first, and what it shows."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from admin_stage import project, user
from django.test import Client, override_settings
from doctor_stage import SECRET, Patient, well
from keys_stage import everything

from django_baikal.doctor import NAMES

pytestmark = pytest.mark.django_db
LIST = "/admin/django_baikal/signingkey/"
DOCTOR = f"{LIST}doctor/"


@pytest.fixture(scope="module", autouse=True)
def _project(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock(), project():
        yield


@pytest.fixture
def patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Patient]:
    with well(tmp_path, monkeypatch) as found:
        monkeypatch.delenv("DJANGO_SETTINGS_MODULE")
        with found.configured():
            yield found


def client(*permissions: str, strict: bool = False) -> Client:
    made = Client(enforce_csrf_checks=strict)
    made.force_login(user(*permissions))
    return made


def words(answer: Any) -> str:
    """Give what a reader sees of a page, or hears."""
    assert answer.status_code == 200
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", answer.content.decode())).split())


def results(answer: Any) -> dict[str, str]:
    """Give each result by the name of the examination."""
    found = re.findall(
        r'</span> (\w+)</span></td>\s*<th scope="row">([\w ]+)</th>', answer.content.decode()
    )
    return {name: status for status, name in found}


@pytest.mark.parametrize("permissions", [(), ("add", "delete")])
def test_whoever_may_not_see_the_keys_may_not_examine_them(
    patient: Patient, permissions: tuple[str, ...]
) -> None:
    visitor = client(*permissions)
    assert visitor.get(DOCTOR).status_code == visitor.post(DOCTOR).status_code == 403
    for answer in (Client().get(DOCTOR), Client().post(DOCTOR)):
        assert answer["Location"].startswith("/admin/login/")
    assert list(patient.authserver.requests) == patient.site.requests == []


@pytest.mark.parametrize("permission", ["view", "rotate", "revoke"])
def test_whoever_may_see_the_keys_is_led_there(patient: Patient, permission: str) -> None:
    visitor = client(permission)
    assert f'href="{DOCTOR}"' in visitor.get(LIST).content.decode()
    assert "It changes nothing, and takes 20 seconds at most." in words(visitor.get(DOCTOR))
    # Nobody was asked anything yet.
    assert list(patient.authserver.requests) == patient.site.requests == []


def test_nobody_can_make_somebody_elses_browser_examine(patient: Patient) -> None:
    visitor = client("view", strict=True)
    assert visitor.post(DOCTOR).status_code == 403
    assert list(patient.authserver.requests) == []
    # The page's own button can.
    form = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', str(visitor.get(DOCTOR).content))
    assert form
    assert results(visitor.post(DOCTOR, {"csrfmiddlewaretoken": form[1]}))


def test_the_button_shows_what_the_command_says(patient: Patient) -> None:
    before = everything()
    patient.tell_time(300)
    answer = client("view").post(DOCTOR)
    found = patient.examine()
    assert results(answer) == {name: each.status for name, each in found.items()}
    assert [*results(answer)] == [*NAMES]
    text = words(answer)
    for each in found.values():
        # What has numbers in it that pass is left out.
        if each.name not in ("clock", "token"):
            assert " ".join(each.what.split()) in text
    assert "Cure: Run NTP on this machine" in text
    assert "14 passed, 1 failed, 2 skipped." in text
    assert "Examine again" in text
    assert SECRET not in answer.content.decode()
    assert everything() == before


def test_what_others_say_is_shown_as_text(patient: Patient) -> None:
    body = {"error": "<script>alert(1)</script>"}
    patient.authserver.fail("token", status=400, body=body)
    answer = client("view").post(DOCTOR)
    assert b"<script>alert" not in answer.content
    assert "<script>alert(1)</script>" in words(answer)


def test_a_ring_that_cannot_be_read_can_be_examined(patient: Patient) -> None:
    patient.options["ENCRYPTION_KEYS"] = ["eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg="]
    answer = client("view").post(DOCTOR)
    assert results(answer)["encryption keys"] == "failed"
    assert results(answer)["seals"] == "skipped"


def test_settings_that_name_no_alias_are_told(patient: Patient) -> None:
    visitor = client("view")
    with override_settings(BAIKAL=[]):
        text = words(visitor.post(DOCTOR))
    assert "Nothing can be examined: " in text
    assert results(visitor.get(DOCTOR)) == {}


def test_each_alias_has_its_own_table(patient: Patient) -> None:
    with override_settings(BAIKAL={"default": patient.entry, "eu": patient.entry}):
        text = words(client("view").post(DOCTOR))
    assert "BAIKAL['default']" in text
    assert "BAIKAL['eu']" in text


@pytest.mark.programs
def test_the_page_comes_before_a_server_would_end_the_request(patient: Patient) -> None:
    patient.entry["TIMEOUT"] = 600
    with patient.authserver.fail("discovery", hang=True):
        answer = client("view").post(DOCTOR)
    assert results(answer)["discovery"] == "failed"
    assert results(answer)["our metadata"] == "skipped"
    assert "There was no time left for it; manage.py baikal_doctor takes it." in words(answer)
