"""Which Django user is whom at an authserver: by issuer and subject, and by nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core import serializers
from django.db import connection

from django_baikal import authentication, clients
from django_baikal.contrib.identities import linked_user
from django_baikal.contrib.identities.models import ExternalIdentity
from django_baikal.exceptions import TokenError
from django_baikal.principals import TokenUser
from django_baikal.protocol.bearer import TokenInfo
from django_baikal.testing import FakeAuthserver

pytestmark = pytest.mark.django_db

ISSUER = "https://auth.example.com"
RESOLVER = "django_baikal.contrib.identities.linked_user"


def token(**claims: Any) -> TokenInfo:
    return TokenInfo("default", ISSUER, {"active": True, "client_id": "app", **claims})


@pytest.fixture
def anna() -> Any:
    return get_user_model().objects.create_user("anna")


@pytest.fixture
def authserver(settings: Any) -> Any:
    server = FakeAuthserver()
    settings.BAIKAL = {"default": server.settings(USER_RESOLVER=RESOLVER)}
    with server.in_memory():
        yield server


def test_a_user_is_found_by_issuer_and_subject(anna: Any) -> None:
    ExternalIdentity.objects.link(anna, "subject-1")
    assert linked_user(token(sub="subject-1")) == anna
    assert linked_user(token(sub="SUBJECT-1")) is None
    assert linked_user(token(sub="subject-1 ")) is None
    assert linked_user(TokenInfo("default", f"{ISSUER}/", {"sub": "subject-1"})) is None


@pytest.mark.parametrize("name", ["username", "email", "preferred_username", "phone_number"])
def test_no_other_claim_makes_a_user_of_a_stranger(anna: Any, name: str) -> None:
    ExternalIdentity.objects.link(anna, "anna")
    assert linked_user(token(sub="stranger", **{name: "anna"})) is None
    assert linked_user(token(username="anna")) is None
    assert linked_user(TokenInfo("default", ISSUER, {"client_id": "anna"})) is None


def test_linking_twice_is_linking_once(anna: Any) -> None:
    first = ExternalIdentity.objects.link(anna, "subject-1")
    assert ExternalIdentity.objects.link(anna, "subject-1") == first
    assert ExternalIdentity.objects.link(anna, "subject-2") != first
    assert anna.external_identities.count() == 2


def test_somebody_elses_subject_is_not_taken(anna: Any) -> None:
    ExternalIdentity.objects.link(anna, "subject-1")
    other = get_user_model().objects.create_user("berta")
    with pytest.raises(ValueError, match="Another user is linked"):
        ExternalIdentity.objects.link(other, "subject-1")
    assert linked_user(token(sub="subject-1")) == anna


@pytest.mark.parametrize("subject", ["", None, 7, b"anna"])
def test_nobody_is_linked_to_what_no_token_has(anna: Any, subject: Any) -> None:
    with pytest.raises(ValueError, match="must be a string"):
        ExternalIdentity.objects.link(anna, subject)
    assert anna.external_identities.count() == 0


def test_an_identity_is_the_pk_of_the_tokens_user(anna: Any) -> None:
    row = ExternalIdentity.objects.link(anna, "tel:+34600000001")
    assert row.identity == TokenUser(token(sub="tel:+34600000001")).pk
    assert str(row) == f"{row.identity} ({ISSUER})"


def test_no_phone_number_is_kept(anna: Any) -> None:
    ExternalIdentity.objects.link(anna, "tel:+34600000001")
    assert "600000001" not in serializers.serialize("json", ExternalIdentity.objects.all())
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM baikal_externalidentity")
        assert "600000001" not in repr(cursor.fetchall())


def test_the_issuer_is_that_of_the_alias(anna: Any, settings: Any) -> None:
    other = {**settings.BAIKAL["default"], "AUTHSERVER_ENDPOINT": "https://other.example.com"}
    settings.BAIKAL = {**settings.BAIKAL, "other": other}
    row = ExternalIdentity.objects.link(anna, "subject-1", using="other")
    assert row.issuer == "https://other.example.com"
    assert linked_user(token(sub="subject-1")) is None


def test_a_bearer_is_the_user_that_was_linked(anna: Any, authserver: FakeAuthserver) -> None:
    bearer = authserver.issue_token(sub="subject-1", username="admin")
    with pytest.raises(TokenError) as caught:
        authentication.authenticate(bearer)
    assert caught.value.code == "unknown_user"
    ExternalIdentity.objects.link(anna, "subject-1")
    user = authentication.authenticate(bearer)
    assert (user, user.baikal_token.subject) == (anna, "subject-1")
    anna.is_active = False
    anna.save()
    with pytest.raises(TokenError) as caught:
        authentication.authenticate(bearer)
    assert caught.value.code == "inactive_user"
    assert clients["default"].authenticate(bearer).subject == "subject-1"


def test_whoever_is_deleted_is_linked_no_more(anna: Any) -> None:
    ExternalIdentity.objects.link(anna, "subject-1")
    anna.delete()
    assert not ExternalIdentity.objects.exists()
