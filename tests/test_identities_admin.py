"""The identities in the admin: to look at, and to unlink."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from admin_stage import project
from django.contrib.auth.models import User
from django.test import Client

from django_baikal.contrib.identities.models import ExternalIdentity

pytestmark = pytest.mark.django_db
LIST = "/admin/baikal_identities/externalidentity/"


@pytest.fixture(scope="module", autouse=True)
def _project(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock(), project():
        yield


@pytest.fixture
def browser() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("ada"))
    return client


def test_an_identity_is_looked_at_and_not_changed(browser: Client) -> None:
    row = ExternalIdentity.objects.link(User.objects.create_user("anna"), "tel:+34600000001")
    for url in (LIST, f"{LIST}?q={row.identity}", f"{LIST}{row.pk}/change/"):
        page = browser.get(url).content.decode()
        assert row.identity in page
        assert "600000001" not in page
    assert "id_identity" not in browser.get(f"{LIST}{row.pk}/change/").content.decode()
    assert browser.get(f"{LIST}add/").status_code == 403


def test_an_identity_is_unlinked_by_deleting_it(browser: Client) -> None:
    anna = User.objects.create_user("anna")
    row = ExternalIdentity.objects.link(anna, "subject-1")
    assert browser.post(f"{LIST}{row.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not ExternalIdentity.objects.exists()
    assert User.objects.filter(pk=anna.pk).exists()
