"""``token_required`` and its mixin: what they ask, what they leave alone, and what they refuse."""

from __future__ import annotations

import functools
import uuid
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.template.backends.django import DjangoTemplates
from django.template.response import SimpleTemplateResponse
from django.test import Client, override_settings
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from doors_stage import (
    DECORATORS,
    OURS,
    OfAsyncClass,
    OfClass,
    aview,
    introspections,
    knock,
    standing,
    urls,
    view,
)

from django_baikal.decorators import TokenRequiredMixin, token_required
from django_baikal.exceptions import ConfigurationError
from django_baikal.testing import FakeAuthserver

both_servers = pytest.mark.parametrize(
    "asgi", [pytest.param(False, id="wsgi"), pytest.param(True, id="asgi")]
)
with_and_without = pytest.mark.parametrize(
    "middleware", [pytest.param([], id="alone"), pytest.param([OURS], id="with-the-middleware")]
)
both_views = pytest.mark.parametrize("plain", [view, aview])


def bearer(server: FakeAuthserver, **claims: Any) -> str:
    return f"Bearer {server.issue_token(**{'sub': 'anna', 'scope': 'read', **claims})}"


# -- at import --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scopes": 5}, "scopes must be"),
        ({"scopes": ["read", 5]}, "scopes must be"),
        ({"scopes": 'say "yes"'}, "scopes must be"),
        ({"scopes": b"read"}, "scopes must be"),
        ({"purposes": 5}, "purposes must be"),
        ({"purposes": ["ä"]}, "purposes must be"),
        ({"acr": 3}, "acr must be"),
        ({"acr": [3]}, "acr must be"),
        ({"any_of": "read write"}, "any_of must be"),
        ({"any_of": []}, "any_of must be"),
        ({"any_of": ["read", ""]}, "any_of must be"),
        ({"any_of": [[]]}, "any_of must be"),
        ({"any_of": 5}, "any_of must be"),
        ({"any_of": [5]}, "any_of must be"),
    ],
)
def test_what_cannot_be_asked_is_refused_at_import(options: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        token_required(**options)
    attributes = {f"required_{name}": value for name, value in options.items()}
    made = type("Made", (TokenRequiredMixin, OfClass), attributes)
    with pytest.raises(ConfigurationError, match=said):
        made.as_view()


@pytest.mark.parametrize("wrong", [OfClass, None, "view", object()])
def test_what_is_no_view_is_refused_at_import(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="token_required needs a view"):
        token_required("read")(wrong)


def test_a_class_is_refused_without_parentheses_too() -> None:
    with pytest.raises(ConfigurationError, match="for a class there is TokenRequiredMixin"):

        @token_required
        class Mine(View):
            pass


def test_the_mixin_has_to_come_first() -> None:
    with pytest.raises(ConfigurationError, match=r"Late: TokenRequiredMixin must come before View"):

        class Late(View, TokenRequiredMixin):
            pass

    with pytest.raises(ConfigurationError, match=r"must come before OfClass|before View"):

        class Later(OfClass, TokenRequiredMixin):
            pass


def test_a_view_may_have_an_as_view_of_its_own() -> None:
    class Mine(TokenRequiredMixin, OfClass):
        @classmethod
        def as_view(cls, **options: Any) -> Any:
            return super().as_view(**options)

    class More(Mine):
        required_scopes = "admin"

    class OfMixins(TokenRequiredMixin):
        required_scopes = "admin"

    class Most(OfMixins, OfClass):
        pass

    patterns = [path(made.__name__, made.as_view()) for made in (Mine, More, Most)]
    with standing(ROOT_URLCONF=urls(*patterns)) as server:
        header = bearer(server)
        assert [knock(f"/{name}", header).status for name in ("Mine", "More", "Most")] == [
            200,
            403,
            403,
        ]


# -- what becomes of the view -----------------------------------------------------------------


@both_views
def test_the_view_keeps_its_name_and_attributes(plain: Any) -> None:
    made = token_required(plain)
    assert (made.__name__, made.__wrapped__) == (plain.__name__, plain)
    assert (made.login_required, made.csrf_exempt) == (False, True)
    assert not hasattr(plain, "login_required")
    assert not hasattr(plain, "csrf_exempt")


@both_views
def test_an_optional_view_is_exempt_from_csrf_only_if_it_was_before(plain: Any) -> None:
    made = token_required(optional=True)(plain)
    assert made.login_required is False
    assert not hasattr(made, "csrf_exempt")
    assert token_required(optional=True)(csrf_exempt(plain)).csrf_exempt is True
    assert csrf_exempt(token_required(optional=True)(plain)).csrf_exempt is True


@pytest.mark.parametrize("base", [OfClass, OfAsyncClass])
@pytest.mark.parametrize("optional", [False, True])
def test_a_class_gets_the_attributes_too(base: Any, optional: bool) -> None:
    mixed = type("M", (TokenRequiredMixin, base), {"optional": optional}).as_view()
    made = type("D", (base,), {})
    decorated = method_decorator(token_required(optional=optional), name="dispatch")(made).as_view()
    for each in (mixed, decorated):
        assert each.login_required is False
        assert getattr(each, "csrf_exempt", False) is not optional
    assert mixed.view_class.optional is optional


@both_servers
@both_views
def test_it_may_stand_there_without_parentheses(asgi: bool, plain: Any) -> None:
    patterns = urls(path("bare", token_required(plain)), path("called", token_required()(plain)))
    with standing(ROOT_URLCONF=patterns) as server:
        for at in ("/bare", "/called"):
            assert knock(at, asgi=asgi).status == 401
            assert knock(at, bearer(server, scope=""), asgi=asgi).body["scopes"] == []


@both_servers
def test_arguments_reach_the_view_and_the_view_finds_the_token(asgi: bool) -> None:
    @token_required
    def shown(request: HttpRequest, name: str, *, number: int) -> JsonResponse:
        token = request.auth  # type: ignore[attr-defined]
        return JsonResponse([name, number, token.subject, token is request.user.token], safe=False)  # type: ignore[union-attr]

    patterns = urls(path("<str:name>/<int:number>", shown))
    with standing(ROOT_URLCONF=patterns) as server:
        answer = knock("/x/5", bearer(server), asgi=asgi)
        assert answer.body == ["x", 5, "anna", True]


@both_servers
def test_a_coroutine_in_a_partial_is_one_too(asgi: bool) -> None:
    patterns = urls(path("", token_required(functools.partial(aview, extra=1))))
    with standing(ROOT_URLCONF=patterns) as server:
        assert knock("/", bearer(server), asgi=asgi).body["authenticated"] is True


@both_servers
@pytest.mark.parametrize("base", [OfClass, OfAsyncClass])
def test_one_method_of_a_class_may_be_behind_it(asgi: bool, base: Any) -> None:
    made = method_decorator(token_required("write"), name="post")(type("D", (base,), {}))
    with standing(ROOT_URLCONF=urls(path("", made.as_view()))) as server:
        assert knock("/", asgi=asgi).status == 200
        assert knock("/", method="post", asgi=asgi).status == 401
        assert knock("/", bearer(server), method="post", asgi=asgi).status == 403
        assert knock("/", bearer(server, scope="write"), method="post", asgi=asgi).status == 200


def late(request: HttpRequest) -> HttpResponse:
    engine = DjangoTemplates({"NAME": "django", "DIRS": [], "APP_DIRS": False, "OPTIONS": {}})
    return SimpleTemplateResponse(engine.from_string("x"))  # type: ignore[arg-type]


def streaming(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse([b"x"])


@pytest.mark.parametrize("middleware", [[], [OURS]])
@pytest.mark.parametrize("plain", [late, streaming])
def test_vary_is_there_whatever_the_view_gives(plain: Any, middleware: list[str]) -> None:
    with standing(middleware, ROOT_URLCONF=urls(path("", token_required(plain)))) as server:
        sent = Client().get("/", headers={"authorization": bearer(server)})
        assert sent.headers["Vary"] == "Authorization"


# -- what it asks -----------------------------------------------------------------------------


@both_servers
@with_and_without
@both_views
@pytest.mark.parametrize(
    ("options", "claims", "status"),
    [
        ({"scopes": "a b"}, {"scope": "b a c"}, 200),
        ({"scopes": ["a", "b"]}, {"scope": "a"}, 403),
        ({"scopes": ("a b", "c")}, {"scope": "a b"}, 403),
        ({"scopes": "a"}, {"scope": "ab A"}, 403),
        ({"scopes": ""}, {"scope": ""}, 200),
        ({"scopes": None}, {"scope": ""}, 200),
        ({"purposes": "x y"}, {"purpose": "y x"}, 200),
        ({"purposes": "x y"}, {"purpose": ["x"]}, 403),
        ({"purposes": "dpv:FraudPrevention"}, {"scope": "dpv:FraudPrevention#check"}, 200),
        ({"any_of": ["a", "b c"]}, {"scope": "a"}, 200),
        ({"any_of": [["a"], ["b", "c"]]}, {"scope": "c b"}, 200),
        ({"any_of": ["a", "b c"]}, {"scope": "b"}, 403),
        ({"scopes": "x", "any_of": ["a", "b"]}, {"scope": "x b"}, 200),
        ({"scopes": "x", "any_of": ["a", "b"]}, {"scope": "a b"}, 403),
        ({"acr": "2"}, {"acr": "2"}, 200),
        ({"acr": "2"}, {"acr": 3}, 200),
        ({"acr": "10"}, {"acr": "9"}, 401),
        ({"acr": ["urn:a", "urn:b"]}, {"acr": "urn:b"}, 200),
        ({"acr": "urn:a"}, {"acr": "urn:b"}, 401),
        ({"scopes": "a", "purposes": "p", "acr": "1"}, {"scope": "a", "acr": "1"}, 403),
    ],
)
def test_what_is_asked_has_to_be_there(
    asgi: bool, middleware: list[str], plain: Any, options: Any, claims: Any, status: int
) -> None:
    patterns = urls(path("", token_required(**options)(plain)))
    with standing(middleware, ROOT_URLCONF=patterns) as server:
        assert knock("/", bearer(server, **claims), asgi=asgi).status == status
        assert introspections(server) == 1


def test_scopes_and_purposes_may_be_named_by_their_place() -> None:
    patterns = urls(path("", token_required("a", "p")(view)))
    with standing(ROOT_URLCONF=patterns) as server:
        assert knock("/", bearer(server, scope="a", purpose="p")).status == 200
        assert knock("/", bearer(server, scope="a")).status == 403
        assert knock("/", bearer(server, scope="b", purpose="p")).status == 403


@both_servers
@both_views
def test_two_of_them_ask_once_and_both_have_to_be_content(asgi: bool, plain: Any) -> None:
    patterns = urls(path("", token_required("a")(token_required("b")(plain))))
    with standing(ROOT_URLCONF=patterns) as server:
        for scope, status in (("a", 403), ("b", 403), ("a b", 200)):
            before = introspections(server)
            assert knock("/", bearer(server, scope=scope), asgi=asgi).status == status
            assert introspections(server) == before + 1


@both_servers
@with_and_without
@pytest.mark.parametrize("door", DECORATORS)
def test_fresh_asks_for_each_request(asgi: bool, middleware: list[str], door: str) -> None:
    options = {"fresh": True}
    made: Any
    if "mixin" in door:
        base = OfAsyncClass if "async" in door else OfClass
        made = type("M", (TokenRequiredMixin, base), options).as_view()
    else:
        made = DECORATORS[door](options)
    with standing(middleware, ROOT_URLCONF=urls(path("", made))) as server:
        header = bearer(server)
        for number in (1, 2, 3):
            assert knock("/", header, asgi=asgi).status == 200
            assert introspections(server) == number + bool(middleware)
        server.revoke_token(header.removeprefix("Bearer "))
        assert knock("/", header, asgi=asgi).status == 401


@both_servers
@with_and_without
@both_views
def test_without_fresh_a_revoked_token_is_good_until_the_answer_is_old(
    asgi: bool, middleware: list[str], plain: Any
) -> None:
    with standing(middleware, ROOT_URLCONF=urls(path("", token_required(plain)))) as server:
        header = bearer(server)
        assert knock("/", header, asgi=asgi).status == 200
        server.revoke_token(header.removeprefix("Bearer "))
        assert knock("/", header, asgi=asgi).status == 200


@both_servers
@pytest.mark.parametrize("door", DECORATORS)
def test_another_alias_has_its_own_tokens_and_realm(asgi: bool, door: str) -> None:
    options = {"using": "other"}
    if "mixin" in door:
        base = OfAsyncClass if "async" in door else OfClass
        made = type("M", (TokenRequiredMixin, base), options).as_view()
    else:
        made = DECORATORS[door](options)
    other = FakeAuthserver(endpoint=f"https://{uuid.uuid4()}.test")
    with standing(ROOT_URLCONF=urls(path("", made))) as server, other.in_memory():
        both = {"default": server.settings(), "other": other.settings(REALM="other")}
        with override_settings(BAIKAL=both):
            challenge = knock("/", asgi=asgi).told["WWW-Authenticate"]
            assert challenge == 'Bearer realm="other"'
            assert knock("/", bearer(server), asgi=asgi).status == 401
            assert knock("/", bearer(other), asgi=asgi).status == 200
        with pytest.raises(ConfigurationError, match="no alias 'other'"):
            knock("/", bearer(other), asgi=asgi)


@both_servers
def test_two_aliases_on_one_request_are_kept_apart(asgi: bool) -> None:
    """The second gate does not take the principal of the first one's authserver."""
    made = token_required(token_required(using="other")(view))
    other = FakeAuthserver(endpoint=f"https://{uuid.uuid4()}.test")
    with standing(ROOT_URLCONF=urls(path("", made))) as server, other.in_memory():
        both = {"default": server.settings(), "other": other.settings()}
        with override_settings(BAIKAL=both):
            assert knock("/", bearer(server), asgi=asgi).status == 401
            assert introspections(server) == introspections(other) == 1
