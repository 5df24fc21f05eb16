"""Throttles of Django REST framework by who sends tokens: per client, and per subject."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest

pytest.importorskip("rest_framework", reason="djangorestframework is not installed")

from django.core.exceptions import ImproperlyConfigured
from django.test import RequestFactory, override_settings
from django.urls import path
from doors_stage import AUTHENTICATION, OURS, PHONE, SESSION, knock, standing, urls
from rest_framework.authentication import BasicAuthentication, SessionAuthentication
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import SimpleRateThrottle
from rest_framework.views import APIView

from django_baikal.contrib.rest_framework import (
    IntrospectionAuthentication,
    TokenClientRateThrottle,
    TokenSubjectRateThrottle,
    exception_handler,
)
from django_baikal.testing import FakeAuthserver

THROTTLES = [TokenClientRateThrottle, TokenSubjectRateThrottle]


class Other(IntrospectionAuthentication):
    using = "other"


@pytest.fixture(autouse=True)
def _rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``DEFAULT_THROTTLE_RATES`` would set them, which the framework reads when imported."""
    rates = {"token_client": "2/day", "token_subject": "2/day"}
    monkeypatch.setattr(SimpleRateThrottle, "THROTTLE_RATES", rates)


def view(throttle: Any, **attributes: Any) -> Any:
    class Throttled(APIView):
        authentication_classes = (IntrospectionAuthentication,)
        permission_classes = ()
        throttle_classes = (throttle,)

        def get_exception_handler(self) -> Any:
            return exception_handler

        def get(self, request: Request) -> Response:
            return Response({})

    return path("", type("Made", (Throttled,), attributes).as_view())


def bearer(server: FakeAuthserver, **claims: Any) -> str:
    return f"Bearer {server.issue_token(**{'sub': 'anna', 'scope': 'read', **claims})}"


def statuses(*headers: str | None) -> list[int]:
    return [knock("/", header).status for header in headers]


@pytest.mark.parametrize("throttle", THROTTLES)
def test_who_comes_too_often_is_told_when_to_come_again(throttle: Any) -> None:
    with standing(ROOT_URLCONF=urls(view(throttle))) as server:
        header = bearer(server)
        assert statuses(header, header) == [200, 200]
        answer = knock("/", header)
        assert answer.status == 429
        assert 0 < int(answer.told["Retry-After"]) <= 86400
        assert "throttled" in answer.body["detail"]
        # Another token changes nothing.
        assert statuses(bearer(server)) == [429]


def answered(server: FakeAuthserver, *tokens: dict[str, Any]) -> list[int]:
    """Send a new token for each of what an authserver says, which tells of others' tokens too."""
    found = []
    for claims in tokens:
        said = {"active": True, "aud": server.settings()["CLIENT_ID"], **claims}
        with server.fail("introspection", status=200, body=said):
            found += statuses(f"Bearer {uuid.uuid4().hex}")
    return found


def test_a_client_is_limited_whomever_it_speaks_for() -> None:
    with standing(ROOT_URLCONF=urls(view(TokenClientRateThrottle))) as server:
        subjects = [{"client_id": "shop", "sub": sub} for sub in ("anna", "shop", "eva", None)]
        assert answered(server, *subjects) == [200, 200, 429, 429]
        assert answered(server, {"client_id": "another", "sub": "anna"}) == [200]


def test_a_subject_is_limited_whichever_client_it_uses() -> None:
    with standing(ROOT_URLCONF=urls(view(TokenSubjectRateThrottle))) as server:
        clients = [{"client_id": name, "sub": "anna"} for name in ("a", "b", "c", None)]
        assert answered(server, *clients) == [200, 200, 429, 429]
        assert answered(server, {"client_id": "a", "sub": "ben"}) == [200]


def test_a_client_that_speaks_for_itself_is_its_own_subject() -> None:
    with standing(ROOT_URLCONF=urls(view(TokenSubjectRateThrottle))) as server:
        own = {"client_id": "shop"}
        assert answered(server, own, {**own, "sub": "shop"}, own) == [200, 200, 429]
        assert answered(server, {"client_id": "another"}) == [200]
        # A user who is called as the client is somebody else.
        assert answered(server, {"client_id": "another", "sub": "shop"}) == [200]


def test_a_token_of_no_client_counts_for_its_subject() -> None:
    with standing(ROOT_URLCONF=urls(view(TokenClientRateThrottle))) as server:
        assert answered(server, *[{"sub": "anna"}] * 3) == [200, 200, 429]
        assert answered(server, {"sub": "ben"}) == [200]


@pytest.mark.parametrize("throttle", THROTTLES)
def test_two_issuers_do_not_share_a_name(throttle: Any) -> None:
    patterns = (
        view(throttle),
        path("other", view(throttle, authentication_classes=[Other]).callback),
    )
    with standing(ROOT_URLCONF=urls(*patterns)) as server:
        other = FakeAuthserver(endpoint=f"https://{uuid.uuid4()}.test")
        both = {"default": server.settings(), "other": other.settings()}
        with other.in_memory(), override_settings(BAIKAL=both):
            assert statuses(*[bearer(server)] * 3) == [200, 200, 429]
            assert knock("/other", bearer(other)).status == 200


@pytest.mark.parametrize("throttle", THROTTLES)
def test_who_has_no_token_is_not_limited(throttle: Any) -> None:
    classes = [IntrospectionAuthentication, BasicAuthentication]
    with standing(ROOT_URLCONF=urls(view(throttle, authentication_classes=classes))):
        assert statuses(*[None] * 4) == [200] * 4


@pytest.mark.parametrize("throttle", THROTTLES)
def test_whom_the_middleware_let_in_is_limited_too(throttle: Any, settings: Any) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
    patterns = view(throttle, authentication_classes=[SessionAuthentication])
    with standing([SESSION, AUTHENTICATION, OURS], ROOT_URLCONF=urls(patterns)) as server:
        assert statuses(*[bearer(server)] * 3) == [200, 200, 429]


@pytest.mark.parametrize("throttle", THROTTLES)
def test_no_cache_key_shows_whom_it_is_for(throttle: Any) -> None:
    with standing() as server:
        own = server.settings()["CLIENT_ID"]
        for claims in ({"sub": PHONE}, {"sub": f"tel:{PHONE}"}, {"sub": None}):
            sent = {"authorization": bearer(server, **claims)}
            plain = RequestFactory().get("/", headers=sent)
            request = Request(plain, authenticators=[IntrospectionAuthentication()])
            key = throttle().get_cache_key(request, APIView())
            assert re.fullmatch(rf"throttle_{throttle.scope}_[0-9a-f]{{32}}", key)
            assert PHONE not in key
            assert own not in key


@pytest.mark.parametrize("throttle", THROTTLES)
def test_a_rate_that_is_not_set_is_an_error(throttle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimpleRateThrottle, "THROTTLE_RATES", {})
    with pytest.raises(ImproperlyConfigured, match=throttle.scope):
        throttle()
