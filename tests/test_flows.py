"""The operations of the client, fed by hand."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlsplit

import pytest
from issued import JWKS, id_token, jwks
from world import METADATA, SERVER, World, answer, config, token

from django_baikal.exceptions import (
    AuthserverError,
    AuthserverUnavailable,
    BaikalError,
    ConfigurationError,
    InvalidResponse,
    InvalidSignature,
    OAuthError,
)
from django_baikal.protocol import flows
from django_baikal.protocol.grants import JWT_BEARER

TOKEN = f"{SERVER}/token"
INTROSPECT = f"{SERVER}/introspect"
REVOKE = f"{SERVER}/revoke"


def client_token(world: World, scopes: Any = None, purposes: Any = None, **changes: Any) -> Any:
    return world.run(flows.grant_client(config(**changes), scopes, purposes, None))


def user_token(world: World, *args: Any, extra: Any = None, **changes: Any) -> Any:
    return world.run(flows.grant_user(config(**changes), *args, extra or {}, None))


# -- requests -------------------------------------------------------------------------------------


def test_a_client_token_is_asked_for_with_scope_and_purpose():
    world = World({TOKEN: token()})
    assert client_token(world, ["a", "b"], "p")["access_token"] == "T0ken"
    assert world.form == {"grant_type": "client_credentials", "scope": "a b", "purpose": "p"}
    request = world.requests[-1]
    assert request.method == "POST"
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert request.headers["Accept"] == "application/json"


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("openid", "openid"),
        ("openid profile", "openid profile"),
        (["openid"], "openid"),
        (("b", "a", "b"), "b a"),
        ({"one": 1}, "one"),
        ((name for name in ("a", "b")), "a b"),
        (["a b", "c"], "a b c"),
        (None, None),
        ([], None),
        ("", None),
    ],
)
def test_scopes_are_a_string_or_an_iterable_and_openid_is_one_scope(given, sent):
    world = World({TOKEN: token()})
    client_token(world, given)
    assert world.form.get("scope") == sent


@pytest.mark.parametrize("wrong", [7, ["a", 7], 'a"b', "ä", ["a\\"], [b"a"], "a\x00", True])
def test_scopes_of_another_kind_are_refused_before_anything_is_sent(wrong):
    world = World()
    for call in (
        lambda: client_token(world, wrong),
        lambda: client_token(world, None, wrong),
        lambda: user_token(world, "sub", wrong, None),
        lambda: world.run(flows.refresh(config(), "r", wrong, None)),
        lambda: world.run(flows.authorize(config(), wrong, None, "https://x/cb", {})),
    ):
        with pytest.raises(ConfigurationError, match=r"scopes|purposes"):
            call()
    assert world.requests == []


def test_the_assertion_of_a_user_grant_has_the_claims_of_rfc_7523_and_of_the_platform():
    world = World({TOKEN: token()})
    extra = {
        "authorization_id": "46921050",
        "identifier": {"id": "x", "type": "phone_number"},
        "acr": "2",
        "authentication_context": [{"type": "otp"}],
    }
    user_token(world, "user", ["a", "b"], ["p"], extra=extra)
    assert world.signed == [
        {
            "iss": "https://me.example.com/",
            "sub": "user",
            "aud": SERVER,
            "iat": 1_800_000_000,
            "exp": 1_800_000_300,
            "jti": "random1".ljust(16, "_"),
            "active": True,
            "scope": "a b",
            "purpose": "p",
            **extra,
        }
    ]
    assert world.form["grant_type"] == JWT_BEARER
    assert "scope" not in world.form, "the scope of a user grant travels in the assertion"


def test_what_a_user_grant_leaves_out_is_no_claim():
    world = World({TOKEN: token()})
    user_token(world, "user", None, None, extra={"acr": None})
    assert set(world.signed[0]) == {"iss", "sub", "aud", "iat", "exp", "jti", "active"}


def test_each_assertion_has_a_new_jti_and_the_configured_lifetime():
    world = World({TOKEN: token()})
    for _ in range(20):
        user_token(world, "user", "a", None, assertion_lifetime=60)
    assert len({claims["jti"] for claims in world.signed}) == 20
    assert {claims["exp"] - claims["iat"] for claims in world.signed} == {60}


@pytest.mark.parametrize(
    ("changes", "audience"),
    [
        ({}, SERVER),
        ({"assertion_audience": "token_endpoint"}, TOKEN),
    ],
)
def test_the_audience_of_an_assertion_is_a_single_value(changes, audience):
    world = World({TOKEN: token()})
    user_token(world, "user", "a", None, **changes)
    assert world.signed[0]["aud"] == audience


def test_a_user_grant_without_an_issuer_names_the_setting_and_sends_nothing():
    world = World()
    with pytest.raises(ConfigurationError, match="ISSUER"):
        user_token(world, "user", "a", None, issuer="")
    assert world.requests == []


@pytest.mark.parametrize(
    "extra", [{"identifier": {1, 2}}, {"acr": float("nan")}, {"acr": object()}, {"acr": "\ud800"}]
)
def test_claims_that_are_not_json_are_the_callers_error(extra):
    world = World({TOKEN: token()})
    if extra == {"acr": "\ud800"}:  # JSON can carry it escaped, and so can the assertion
        user_token(world, "user", "a", None, extra=extra)
        return
    with pytest.raises(ConfigurationError, match="JSON"):
        user_token(world, "user", "a", None, extra=extra)


def test_a_code_is_exchanged_with_its_verifier():
    world = World({TOKEN: token(refresh_token="r3fresh")})
    answered = world.run(
        flows.grant_code(config(), "c0de", "https://me/cb?x=1", "v" * 43, None, {})
    )
    assert answered["refresh_token"] == "r3fresh"
    assert world.form == {
        "grant_type": "authorization_code",
        "code": "c0de",
        "redirect_uri": "https://me/cb?x=1",
        "code_verifier": "v" * 43,
    }


def test_a_refresh_may_narrow_the_scope():
    world = World({TOKEN: token()})
    world.run(flows.refresh(config(), "r3fresh", "a", None))
    assert world.form == {"grant_type": "refresh_token", "refresh_token": "r3fresh", "scope": "a"}


def test_introspection_posts_the_token_and_gives_the_answer_whole():
    world = World({INTROSPECT: answer({"active": True, "scope": "a", "x": [1]})})
    answered = world.run(flows.introspect(config(), "T0ken", None))
    assert answered == {"active": True, "scope": "a", "x": [1]}
    assert world.form == {"token": "T0ken"}


@pytest.mark.parametrize("status", [200, 204])
def test_revocation_of_any_token_is_a_success(status):
    world = World({REVOKE: answer(b"", status, "text/plain")})
    assert world.run(flows.revoke(config(), "T0ken", "refresh_token", None)) is None
    assert world.form == {"token": "T0ken", "token_type_hint": "refresh_token"}


@pytest.mark.parametrize(
    "call",
    [
        lambda: flows.grant_user(config(), "", "a", None, {}, None),
        lambda: flows.grant_user(config(), None, "a", None, {}, None),
        lambda: flows.grant_code(config(), "", "https://x", None, None, None),
        lambda: flows.grant_code(config(), "c", "", None, None, None),
        lambda: flows.grant_code(config(), "c", "https://x", "", None, None),
        lambda: flows.refresh(config(), None, None, None),
        lambda: flows.introspect(config(), b"token", None),
        lambda: flows.revoke(config(), "", None, None),
        lambda: flows.revoke(config(), "t", 7, None),
        lambda: flows.authorize(config(), "a", None, None, {}),
    ],
)
def test_an_empty_or_wrong_argument_is_the_callers_error_and_sends_nothing(call):
    world = World()
    with pytest.raises(ConfigurationError, match="must be a string that is not empty"):
        world.run(call())
    assert world.requests == []


def test_text_that_cannot_be_encoded_is_the_callers_error():
    world = World()
    with pytest.raises(ConfigurationError, match="Unicode"):
        world.run(flows.introspect(config(), "\ud800", None))
    with pytest.raises(ConfigurationError, match="Unicode"):
        world.run(flows.authorize(config(), "a", None, "https://x", {"state": "\ud800"}))


# -- headers --------------------------------------------------------------------------------------


def test_a_callers_headers_go_out_with_the_call_and_not_with_the_discovery():
    world = World({TOKEN: token()})
    headers = {"X-Correlator": "1234-5678", "User-Agent": "mine/1"}
    world.run(flows.grant_client(config(), None, None, headers))
    discovery, call = world.requests
    assert call.headers["X-Correlator"] == "1234-5678"
    assert call.headers["User-Agent"] == "mine/1"
    assert [name.lower() for name in call.headers].count("user-agent") == 1
    assert "X-Correlator" not in discovery.headers
    assert headers == {"X-Correlator": "1234-5678", "User-Agent": "mine/1"}


@pytest.mark.parametrize(
    "headers",
    [
        [("X-A", "b")],
        "X-A: b",
        {"Authorization": "Basic x"},
        {"authorization": "Bearer x"},
        {"HOST": "evil"},
        {"Content-Length": "0"},
        {"X-A": "b\r\nX-C: d"},
        {"X-A\n": "b"},
        {"X-A": "ä"},
        {"X-A": 7},
        {"": "b"},
        {7: "b"},
    ],
)
def test_a_header_that_would_change_the_request_is_refused(headers):
    world = World()
    with pytest.raises(ConfigurationError, match="headers"):
        world.run(flows.grant_client(config(), None, None, headers))
    assert world.requests == []


# -- client authentication ------------------------------------------------------------------------


def test_basic_credentials_are_form_encoded_first():
    world = World({TOKEN: token()})
    client_token(world, client_id="weird:app/e", client_secret="p%ss w+rd:n&=€")
    scheme, _, encoded = world.requests[-1].headers["Authorization"].partition(" ")
    assert scheme == "Basic"
    user, _, password = base64.b64decode(encoded).decode("ascii").partition(":")
    assert (unquote_plus(user), unquote_plus(password)) == ("weird:app/e", "p%ss w+rd:n&=€")
    assert set(world.form) == {"grant_type"}


def test_post_credentials_are_in_the_form_alone():
    world = World({TOKEN: token()})
    client_token(world, client_auth_method="client_secret_post", client_secret="€:%")
    assert "Authorization" not in world.requests[-1].headers
    assert world.form == {
        "grant_type": "client_credentials",
        "client_id": "client",
        "client_secret": "€:%",
    }


def test_private_key_jwt_sends_an_assertion_about_the_client_and_no_secret():
    world = World({INTROSPECT: answer({"active": False})})
    settings = config(client_auth_method="private_key_jwt")
    world.run(flows.introspect(settings, "T0ken", None))
    assert "Authorization" not in world.requests[-1].headers
    assert "client_secret" not in world.form
    assert world.form["client_assertion_type"].endswith(":client-assertion-type:jwt-bearer")
    (claims,) = world.signed
    assert set(claims) == {"iss", "sub", "aud", "iat", "exp", "jti"}
    assert (claims["iss"], claims["sub"], claims["aud"]) == ("client", "client", SERVER)


@pytest.mark.parametrize("name", ["token_endpoint", "introspection_endpoint"])
def test_a_method_that_the_authserver_does_not_take_is_not_sent(name):
    offered = {f"{name}_auth_methods_supported": ["client_secret_post", "private_key_jwt", "none"]}
    world = World(**offered)
    with pytest.raises(ConfigurationError) as caught:
        if name == "token_endpoint":
            client_token(world)
        else:
            world.run(flows.introspect(config(), "T0ken", None))
    assert "CLIENT_AUTH_METHOD" in str(caught.value)
    assert "client_secret_post, private_key_jwt" in str(caught.value)
    assert len(world.requests) == 1, "only the discovery went out"


def test_an_authserver_that_takes_no_known_method_is_said_so():
    world = World(token_endpoint_auth_methods_supported=["tls_client_auth"])
    with pytest.raises(ConfigurationError, match="none is known"):
        client_token(world)


@pytest.mark.parametrize("offered", [None, [], "client_secret_post", ["client_secret_basic"]])
def test_metadata_that_does_not_forbid_the_method_lets_it_pass(offered):
    world = World({TOKEN: token()}, token_endpoint_auth_methods_supported=offered)
    assert client_token(world)["access_token"]


# -- token answers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "response",
    [
        token(access_token=None),
        token(access_token=""),
        token(access_token="a b"),
        token(access_token="ä"),
        token(access_token=7),
        token(access_token="a\r\nb"),
        token(token_type=None),
        token(token_type="mac"),
        token(token_type="DPoP"),
        token(token_type=["Bearer"]),
        token(expires_in=-1),
        token(expires_in=True),
        token(expires_in="soon"),
        token(expires_in=[1]),
        token(scope=7),
        token(scope="a\nb"),
        token(refresh_token={"a": 1}),
        token(error="invalid_grant"),
        answer(b"T0ken", content_type="text/plain"),
        answer({"access_token": "T0ken", "token_type": "Bearer"}, content_type="text/html"),
        answer({"access_token": "T0ken", "token_type": "Bearer"}, content_type="text/json"),
        answer(b"[]"),
        answer(b'{"access_token":"a","access_token":"b","token_type":"Bearer"}'),
        answer(b'{"access_token":"a","token_type":"Bearer","expires_in":NaN}'),
        answer(b'{"access_token":"a","token_type":"Bearer","expires_in":1e999}'),
        answer(b"\xff\xfe"),
        answer(b"[" * 100000),
        answer(b'{"a":' * 100000),
        answer(b"{"),
        answer(b"{}", content_type=""),
        answer(b"{}", content_type="application/x-json"),
        token().__class__(201, {"content-type": "application/json"}, token().body),
        answer({}, 302, location="https://evil.example/token"),
        answer({"error": "nope"}, 308),
        answer(b"<html>no", 404, "text/html"),
        answer({"unexpected": 1}, 400),
    ],
)
def test_an_answer_that_breaks_the_protocol_is_used_in_no_part(response):
    world = World({TOKEN: response})
    with pytest.raises(InvalidResponse) as caught:
        client_token(world)
    assert caught.value.retryable is False


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(3600, 3600), (3599.9, 3599), ("300", 300), (0, 0), (10**14, 315360000), (None, None)],
)
def test_expires_in_becomes_a_whole_number_of_seconds(given, seconds):
    world = World({TOKEN: token(expires_in=given)})
    assert client_token(world).get("expires_in") == seconds


@pytest.mark.parametrize("kind", ["Bearer", "bearer", "BEARER"])
def test_the_token_type_is_compared_without_case(kind):
    world = World({TOKEN: token(token_type=kind)})
    assert client_token(world)["token_type"] == kind


def test_a_narrower_scope_is_said_aloud_and_a_missing_one_is_the_requested(caplog):
    world = World({TOKEN: [token(scope="a"), token()]})
    assert client_token(world, "a b c")["scope"] == "a"
    assert "missing scopes: b c" in caplog.text
    caplog.clear()
    assert client_token(world, "a b c")["scope"] == "a b c"
    assert caplog.text == ""


def test_a_content_type_with_parameters_or_a_json_suffix_is_json():
    kinds = ("application/json; charset=utf-8", "application/JSON", "application/token+json")
    for kind in kinds:
        response = answer(json.loads(token().body), content_type=kind)
        assert client_token(World({TOKEN: response}))["access_token"] == "T0ken"


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"error": "invalid_scope", "error_description": "No such scope."},
        {"code": "invalid_scope", "message": "No such scope.", "status": 400},
    ],
    ids=["oauth", "open-gateway"],
)
def test_an_error_has_the_authservers_words_whichever_shape_they_come_in(body):
    world = World({TOKEN: answer(body, 400)})
    with pytest.raises(OAuthError) as caught:
        client_token(world)
    error = caught.value
    assert (error.status, error.error) == (400, "invalid_scope")
    assert error.description == "No such scope."
    assert error.retry_after is None
    assert str(error) == f"{TOKEN} refused (400): invalid_scope: No such scope."
    assert error.code == "oauth_error"


@pytest.mark.parametrize(
    ("status", "retry", "seconds"),
    [
        (429, "30", 30),
        (503, "Sat, 15 Jan 2027 08:01:00 GMT", 60),
        (503, "Sat, 15 Jan 2027 08:01:00", 60),
        (503, "Sat, 15 Jan 2022 08:01:00 GMT", 0),
        (500, "soon", None),
        (500, "-5", None),
        (502, "99999999", 86400),
        (504, "", None),
        (503, "Sat, 99 Foo 99999 99:99:99", None),
    ],
)
def test_an_authserver_that_cannot_answer_is_unavailable(status, retry, seconds):
    response = answer(b"busy", status, "text/html", retry_after=retry)
    with pytest.raises(AuthserverUnavailable) as caught:
        client_token(World({TOKEN: response}))
    assert (caught.value.status, caught.value.retry_after) == (status, seconds)
    assert caught.value.retryable is True


def test_refused_credentials_are_named_even_without_a_body():
    with pytest.raises(OAuthError) as caught:
        client_token(World({TOKEN: answer(b"no", 401, "text/html")}))
    assert (caught.value.status, caught.value.error) == (401, "invalid_client")


def test_a_success_that_holds_only_an_error_is_a_refusal():
    with pytest.raises(OAuthError) as caught:
        client_token(World({TOKEN: answer({"error": "invalid_grant"})}))
    assert (caught.value.status, caught.value.error) == (200, "invalid_grant")


@pytest.mark.parametrize(
    "body",
    [
        {"active": "true"},
        {"active": 1},
        {},
        {"active": None},
        {"error": "x"},
        b'{"active":true,"exp":1e999}',
        b'{"active":true,"exp":-Infinity}',
        b'{"active":false,"active":true}',
    ],
)
def test_an_introspection_answer_that_is_not_clear_is_no_answer(body):
    with pytest.raises(InvalidResponse):
        world = World({INTROSPECT: answer(body)})
        world.run(flows.introspect(config(), "T0ken", None))


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (answer({"error": "invalid_client"}, 401), OAuthError),
        (answer({}, 503), AuthserverUnavailable),
        (answer({}, 429), AuthserverUnavailable),
        (answer(b"<html>", content_type="text/html"), InvalidResponse),
    ],
)
def test_introspection_that_fails_never_looks_like_an_inactive_token(response, error):
    with pytest.raises(error):
        World({INTROSPECT: response}).run(flows.introspect(config(), "T0ken", None))


def test_a_redirect_is_said_to_be_one():
    with pytest.raises(InvalidResponse, match=r"redirect \(307\), which is not followed"):
        client_token(World({TOKEN: answer({}, 307, location="https://evil.example/")}))


def test_revocation_that_is_refused_or_not_possible_raises():
    refused = answer({"error": "unsupported_token_type"}, 400)
    with pytest.raises(OAuthError, match="unsupported_token_type"):
        World({REVOKE: refused}).run(flows.revoke(config(), "T0ken", None, None))
    with pytest.raises(AuthserverUnavailable) as caught:
        busy = answer({}, 503, retry_after="7")
        World({REVOKE: busy}).run(flows.revoke(config(), "T0ken", None, None))
    assert caught.value.retry_after == 7


# -- authorization --------------------------------------------------------------------------------


def url_of(world: World, **extra: Any) -> dict[str, list[str]]:
    url = world.run(flows.authorize(config(), "a b", "p", "https://me/cb?x=1&y=2#z", extra))
    assert url.startswith(f"{SERVER}/authorize?")
    return parse_qs(urlsplit(url).query, strict_parsing=True)


def test_every_parameter_of_the_authorization_url_survives():
    sent = url_of(
        World(),
        login_hint="tel:+34600000000",
        state="st&a=te x",
        max_age=0,
        prompt=["a", "b"],
        n=None,
    )
    assert sent == {
        "response_type": ["code"],
        "client_id": ["client"],
        "scope": ["a b"],
        "purpose": ["p"],
        "redirect_uri": ["https://me/cb?x=1&y=2#z"],
        "login_hint": ["tel:+34600000000"],
        "state": ["st&a=te x"],
        "max_age": ["0"],
        "prompt": ["a b"],
    }


def test_nothing_is_injected_through_redirect_uri_or_the_extras():
    evil = "https://me/cb&client_id=evil&response_type=token#&scope=admin"
    url = World().run(flows.authorize(config(), None, None, evil, {"state": "&client_id=evil"}))
    sent = parse_qs(urlsplit(url).query)
    assert sent["client_id"] == ["client"]
    assert sent["response_type"] == ["code"]
    assert sent["redirect_uri"] == [evil]
    assert "scope" not in sent
    assert urlsplit(url).fragment == ""


@pytest.mark.parametrize("name", ["client_id", "scope", "purpose", "redirect_uri"])
def test_an_extra_cannot_say_again_what_the_client_says(name):
    with pytest.raises(ConfigurationError, match=name):
        World().run(flows.authorize(config(), None, None, "https://me/cb", {name: "evil"}))


@pytest.mark.parametrize("wrong", [3.5, True, object(), [1]])
def test_an_extra_of_another_kind_is_refused(wrong):
    with pytest.raises(ConfigurationError, match="'prompt' must be"):
        World().run(flows.authorize(config(), None, None, "https://me/cb", {"prompt": wrong}))


@pytest.mark.parametrize(
    ("endpoint", "begin"),
    [
        (f"{SERVER}/a?tenant=1", f"{SERVER}/a?tenant=1&response_type=code&"),
        (f"{SERVER}/a?", f"{SERVER}/a?response_type=code&"),
        (f"{SERVER}/a?t=1&", f"{SERVER}/a?t=1&response_type=code&"),
    ],
)
def test_the_endpoints_own_query_is_kept(endpoint, begin):
    world = World(authorization_endpoint=endpoint)
    url = world.run(flows.authorize(config(), None, None, "https://me/cb", {}))
    assert url.startswith(begin)


def test_an_endpoint_whose_query_sets_our_parameters_is_refused():
    world = World(authorization_endpoint=f"{SERVER}/a?client_id=evil")
    with pytest.raises(InvalidResponse):
        world.run(flows.authorize(config(), None, None, "https://me/cb", {}))


def test_an_authorization_that_is_started_has_fresh_state_nonce_and_verifier():
    world = World()
    started = [
        world.run(
            flows.start_authorization(config(), "https://me/cb", "openid", None, {"acr": "2"})
        )
        for _ in range(2)
    ]
    sent = parse_qs(urlsplit(started[0].url).query)
    assert sent["state"] == [started[0].state]
    assert sent["nonce"] == [started[0].nonce]
    assert sent["code_challenge_method"] == ["S256"]
    assert sent["acr"] == ["2"]
    secrets = [value for one in started for value in (one.state, one.nonce, one.code_verifier)]
    assert len(set(secrets)) == 6
    assert all(value not in repr(started) for value in secrets)
    with pytest.raises(ConfigurationError, match="code_challenge, nonce, state"):
        extra = {"state": "x", "nonce": "y", "code_challenge": "z"}
        world.run(flows.start_authorization(config(), "https://me/cb", None, None, extra))


def test_pkce_uses_the_challenge_of_rfc_7636_appendix_b():
    from django_baikal.protocol.authorization import code_challenge

    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert code_challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


# -- id tokens ------------------------------------------------------------------------------------


def code_answer(value: Any, nonce: str | None = "n0nce") -> Any:
    world = World({TOKEN: token(id_token=value), JWKS: jwks()})
    return world.run(flows.grant_code(config(), "c", "https://me/cb", None, nonce, None))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"aud": ["client"]},
        {"aud": ["client", "other"], "azp": "client"},
        {"exp": 1_799_999_941},
        {"iat": 1_800_000_059},
        {"exp": 1_800_000_300.5},
    ],
)
def test_an_id_token_that_fits_passes(changes):
    assert code_answer(id_token(**changes))["id_token"]


def test_an_id_token_without_a_nonce_to_check_passes():
    assert code_answer(id_token(nonce=None), nonce=None)["id_token"]


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://evil.example"},
        {"iss": None},
        {"iss": [SERVER]},
        {"aud": "other"},
        {"aud": None},
        {"aud": ["other"]},
        {"aud": {"client": 1}},
        {"aud": "client2"},
        {"aud": ["client", "other"]},
        {"azp": "other"},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"exp": None},
        {"exp": "1800000300"},
        {"exp": True},
        {"exp": 1_799_999_940},
        {"iat": None},
        {"iat": 1_800_000_061},
        {"nonce": None},
        {"nonce": "other"},
        {"nonce": 7},
        {"nbf": 1_800_000_061},
        {"nbf": "now"},
        {"at_hash": "of-another-token"},
        {"at_hash": 7},
    ],
)
def test_an_id_token_that_does_not_fit_refuses_the_whole_answer(changes):
    with pytest.raises(InvalidResponse) as caught:
        code_answer(id_token(**changes))
    assert caught.value.code == "id_token_refused"


@pytest.mark.parametrize("value", ["", "a.b", "a.b.c.d", "!.!.!", "e30.W10.", "x" * 20000])
def test_an_id_token_that_is_none_refuses_the_whole_answer(value):
    with pytest.raises(InvalidResponse) as caught:
        code_answer(value)
    assert isinstance(caught.value.__cause__, InvalidSignature)


def test_a_nonce_that_has_no_id_token_to_be_in_refuses_the_answer():
    with pytest.raises(InvalidResponse, match="no id token"):
        code_answer(None)


# -- secrets --------------------------------------------------------------------------------------

PHONE = "+34600111222"


def test_what_the_authserver_echoes_does_not_reach_a_message_or_a_log(caplog):
    secret = "s3cret/with=signs"
    echoed = f"{secret} tel:{PHONE} 34600111222 T0ken.x c0de v3rifier eyJhbGciOi.eyJzdWIi.sig"

    def echo(request: Any) -> Any:
        body = (request.body or b"").decode()
        words = f"{echoed} {body} {unquote_plus(body)} {request.headers.get('Authorization')}"
        return answer({"error": words, "error_description": words}, 400)

    world = World(dict.fromkeys((TOKEN, INTROSPECT, REVOKE), echo))
    extra = {"identifier": {"id": PHONE, "type": "phone_number"}}
    calls = [
        flows.grant_user(config(client_secret=secret), f"tel:{PHONE}", "a", None, extra, None),
        flows.grant_code(
            config(client_secret=secret), "c0de", "https://me", "v3rifier", None, None
        ),
        flows.introspect(config(client_secret=secret), "T0ken.x", None),
        flows.refresh(
            config(client_secret=secret, client_auth_method="client_secret_post"),
            "T0ken.x",
            None,
            None,
        ),
    ]
    for number, call in enumerate(calls):
        with pytest.raises(BaikalError) as caught:
            world.run(call)
        error = caught.value
        assert isinstance(error, AuthserverError)
        said = f"{error!s}{error!r}{error.error}{error.description}{caplog.text}"
        sent = ["600111222", "signed", "eyJ", secret]
        sent += [[], ["c0de", "v3rifier"], ["T0ken"], ["T0ken"]][number]
        assert not [value for value in sent if value in said]


def test_other_peoples_words_are_one_printable_line():
    body = {"error": "a\nb\x00\ud800c", "error_description": "x" * 5000}
    with pytest.raises(OAuthError) as caught:
        client_token(World({TOKEN: answer(body, 400)}))
    assert len(str(caught.value)) < 800
    assert str(caught.value).isprintable()


def test_a_repr_of_anything_on_the_way_shows_no_secret():
    world = World({TOKEN: token()})
    client_token(world)
    shown = repr([config(), world.requests, token()])
    assert "'secret'" not in shown
    assert "T0ken" not in shown
    assert base64.b64encode(b"client:secret").decode() not in shown


def test_metadata_is_not_needed_to_hold_more_than_the_endpoint_in_use():
    for endpoint in ("token_endpoint", "introspection_endpoint"):
        document = {"issuer": SERVER, endpoint: METADATA[endpoint]}
        world = World({TOKEN: token(), INTROSPECT: answer({"active": True})})
        world.answers[f"{SERVER}/.well-known/openid-configuration"] = answer(document)
        if endpoint == "token_endpoint":
            assert client_token(world)
        else:
            assert world.run(flows.introspect(config(), "T0ken", None))
