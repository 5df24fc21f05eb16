"""Bearer tokens that are JWTs, checked with no question (VALIDATION "jwt") or before it ("hybrid").

Forged ones of every kind are in test_incidents.py.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from issued import HEADER, JWKS, KEY, encoded, jwk, jwks, signed
from stage import both_ways, pem
from world import OPENID, SERVER, World, answer, config

from django_baikal import OpenIDClient
from django_baikal.exceptions import (
    AuthserverError,
    AuthserverUnavailable,
    ConfigurationError,
    ExpiredToken,
    InactiveToken,
    InvalidSignature,
    TokenError,
    WrongAudience,
)
from django_baikal.keys import load_key
from django_baikal.protocol import breaker
from django_baikal.protocol.authenticate import authenticate
from django_baikal.protocol.bearer import TokenInfo
from django_baikal.testing import FakeAuthserver

ASKED = f"{SERVER}/introspect"
PROFILED = {**HEADER, "typ": "at+jwt"}
#: The platform's access tokens have no typ, scopes in a list, and the user's number.
PLATFORM = {"scopes": ["read", "write"], "scope": None, "uid": "tel:+34600000000"}
NOW = 1_800_000_000


def claims(**changes: Any) -> dict[str, Any]:
    found = {
        "iss": SERVER,
        "sub": "anna",
        "aud": ["client"],
        "client_id": "app",
        "scope": "read write",
        "iat": NOW,
        "exp": NOW + 300,
        "jti": "1",
        **changes,
    }
    return {name: value for name, value in found.items() if value is not None}


def token(header: dict[str, Any] | None = None, **changes: Any) -> str:
    return signed(PROFILED if header is None else header, claims(**changes))


def world_of(*answers: Any, **documents: Any) -> World:
    answered = [answer(each) if isinstance(each, dict) else each for each in answers]
    return World({JWKS: jwks(), ASKED: answered}, **documents)


def decide(world: World, value: str, *, fresh: bool = False, **changes: Any) -> TokenInfo:
    rules = {"validation": "jwt", **changes}
    found: TokenInfo = world.run(authenticate(config(**rules), value, fresh=fresh))
    return found


def refused(value: str, because: type[TokenError] = TokenError, **changes: Any) -> World:
    world = world_of()
    with pytest.raises(because) as caught:
        decide(world, value, **changes)
    assert type(caught.value) is because
    return world


# -- by signature alone ------------------------------------------------------------------------


def test_a_signed_token_is_accepted_with_no_question():
    world = world_of()
    for _ in range(10):
        found = decide(world, token())
    assert (found.subject, found.client_id, found.scopes) == ("anna", "app", {"read", "write"})
    assert (found.alias, found.issuer, found.expires_at) == ("default", SERVER, NOW + 300)
    assert found.is_user
    assert (world.calls(OPENID), world.calls(JWKS), world.calls(ASKED)) == (1, 1, 0)
    assert not world.cache, "and nothing is kept of whom it is about"


def test_a_client_s_own_token_is_its_own():
    found = decide(world_of(), token(sub="app"))
    assert not found.is_user


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/AT+jwt"])
def test_the_type_of_rfc_9068_is_read_as_rfc_7515_says(typ):
    assert decide(world_of(), token({**HEADER, "typ": typ}))


@pytest.mark.parametrize(
    "typ",
    [
        None,
        "JWT",
        "",
        "jwt",
        "id+jwt",
        "logout+jwt",
        "token-introspection+jwt",
        "rt+jwt",
        "application/application/at+jwt",
        "at+jwt ",
        "dpop+jwt",
    ],
)
def test_another_type_is_no_access_token(typ):
    header = HEADER if typ is None else {**HEADER, "typ": typ}
    assert refused(token(header)).requests == [], "and nothing was fetched for it"
    types = ("at+jwt", "JWT", None)
    accepted = typ is None or typ.lower() == "jwt"
    if accepted:
        assert decide(world_of(), token(header), jwt_types=types)
        refused(token(header), jwt_types=("at+jwt", "JWT" if typ is None else None))
    else:
        refused(token(header), jwt_types=types)


@pytest.mark.parametrize("typ", [7, ["at+jwt"], {}, True, 0, False])
def test_a_type_that_is_no_string_is_none(typ):
    refused(token({**HEADER, "typ": typ}), InvalidSignature, jwt_types=("at+jwt", "JWT", None))


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": "n0nce"},
        {"at_hash": "hash"},
        {"client_id": None},
        {"scope": None},
        {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}},
    ],
)
@pytest.mark.parametrize("typ", ["JWT", None])
def test_an_id_token_or_one_of_a_logout_is_no_bearer_though_its_type_is_admitted(typ, changes):
    """Its audience is the same client, and the same key has signed it."""
    header = HEADER if typ is None else {**HEADER, "typ": typ}
    types = {"jwt_types": ("at+jwt", "JWT", None)}
    assert decide(world_of(), token(header), **types)
    assert refused(token(header, **changes), **types).requests == []


def test_the_platform_s_tokens_pass_where_their_type_is_admitted():
    found = decide(world_of(), token(HEADER, **PLATFORM), jwt_types=(None,))
    assert found.scopes == {"read", "write"}
    assert "34600000000" not in repr(found)
    refused(token(HEADER, **PLATFORM))


@pytest.mark.parametrize("kind", ["Refresh", "ID", "refresh_token", "DPoP", "N_A"])
def test_a_token_that_says_it_is_of_another_kind_is_believed(kind):
    refused(token(token_type=kind))
    assert decide(world_of(), token(token_type="Bearer"))


def test_a_token_that_is_bound_to_a_key_is_no_plain_bearer():
    refused(token(cnf={"jkt": "x"}))


@pytest.mark.parametrize(
    ("changes", "because"),
    [
        ({"iss": "https://evil.example"}, TokenError),
        ({"iss": None}, TokenError),
        ({"aud": None}, WrongAudience),
        ({"aud": []}, WrongAudience),
        ({"aud": ""}, WrongAudience),
        ({"aud": "another"}, WrongAudience),
        ({"aud": ["another", "app"]}, WrongAudience),
        ({"exp": None}, TokenError),
        ({"exp": NOW - 5}, ExpiredToken),
        ({"exp": str(NOW + 60)}, TokenError),
        ({"exp": True}, TokenError),
        ({"nbf": NOW + 6}, ExpiredToken),
        ({"nbf": "0"}, TokenError),
        ({"sub": None, "client_id": None}, TokenError),
        ({"sub": ["anna"]}, TokenError),
        ({"sub": "anna\n"}, TokenError),
        ({"client_id": 7}, TokenError),
        ({"scope": {"read": True}}, TokenError),
        ({"scope": "re\tad"}, TokenError),
        ({"scopes": [1]}, TokenError),
        ({"active": False}, InactiveToken),
        ({"active": "true"}, InactiveToken),
    ],
)
def test_its_claims_are_checked_before_anything_is_fetched(changes, because):
    assert refused(token(**changes), because).requests == []


def test_leeway_and_audiences_are_the_settings():
    assert decide(world_of(), token(exp=NOW - 4))
    assert decide(world_of(), token(exp=NOW - 60), bearer_leeway=61)
    assert decide(world_of(), token(aud="api"), audiences=("api", "other"))
    refused(token(), WrongAudience, audiences=("api",))
    assert decide(world_of(), token(aud="anybody"), audiences=("*",))
    refused(token(aud=None), WrongAudience, audiences=("*",))


def test_clients_and_claims_that_the_project_asks_for_are_looked_at():
    assert decide(world_of(), token(), allowed_clients=("app",))
    refused(token(), allowed_clients=("another",))
    assert decide(world_of(), token(acr="2"), required_claims={"acr": ["2", "3"]})
    refused(token(acr="1"), required_claims={"acr": ["2", "3"]})


def test_the_algorithms_are_the_setting_s():
    assert decide(world_of(), token(), jwt_algorithms=("RS256",))
    assert refused(token(), InvalidSignature, jwt_algorithms=("ES256",)).requests == []
    # What the authserver announces for id tokens says nothing of access tokens.
    assert decide(world_of(id_token_signing_alg_values_supported=["ES256"]), token())


def test_a_token_of_a_key_that_is_gone_is_refused_once_the_keys_are_looked_for_again():
    world = world_of()
    rules = {"exp": NOW + 10**6}
    decide(world, token(**rules))
    world.answers[JWKS] = jwks(jwk(number=1))
    world.pass_time(599)
    assert decide(world, token(**rules))
    world.finish_asides()
    with pytest.raises(InvalidSignature):
        decide(world, token(**rules))


def test_a_token_that_is_longer_than_allowed_is_not_looked_at():
    long = token(x="A" * 9000)
    assert refused(long).requests == []
    assert decide(world_of(), long, max_token_length=20_000)


def test_a_refresh_token_that_is_opaque_is_no_bearer():
    assert refused("tGzv3JOkF0XG5Qx2TlKWIA", InvalidSignature).requests == []


# -- the keys cannot be had ----------------------------------------------------------------------


def test_without_keys_nobody_can_tell_and_the_breaker_answers_after_five_tries():
    world = world_of()
    world.answers[JWKS] = AuthserverUnavailable("down", code="connection_failed")
    codes = []
    for _ in range(8):
        with pytest.raises(AuthserverUnavailable) as caught:
            decide(world, token())
        codes.append(caught.value.code)
    assert codes == ["connection_failed"] * breaker.FAILURES + ["circuit_open"] * 3
    assert world.calls(JWKS) == breaker.FAILURES
    world.answers[JWKS] = jwks()
    world.pass_time(breaker.REST)
    assert decide(world, token())


def test_a_400_for_the_keys_is_nothing_that_a_bearer_could_provoke():
    world = world_of()
    world.answers[JWKS] = answer({"error": "invalid_request"}, 400)
    for _ in range(8):
        with pytest.raises(AuthserverError):
            decide(world, token())
    assert world.calls(JWKS) == breaker.FAILURES


def test_a_forged_token_does_not_keep_the_breaker_open():
    world = world_of({"active": True, "client_id": "app"})
    world.answers[JWKS] = AuthserverUnavailable("down")
    for _ in range(breaker.FAILURES):
        with pytest.raises(AuthserverUnavailable):
            decide(world, token())
    world.pass_time(breaker.REST)
    world.answers[JWKS] = jwks()
    with pytest.raises(InvalidSignature):
        decide(world, signed(PROFILED, claims(), key=load_key(pem("RS256", 5))))
    assert decide(world, token())
    assert hybrid(world, token()), "which has the authserver asked, too"


@pytest.mark.parametrize(
    ("url", "rules"),
    [(JWKS, {"jwks_stale": 1000}), (OPENID, {"metadata_stale": 1000})],
    ids=["keys", "metadata"],
)
def test_what_is_too_old_is_asked_for_as_if_it_were_not_known(url, rules):
    world = world_of()
    assert decide(world, token(), **rules)
    world.pass_time(1000)
    world.answers[url] = AuthserverUnavailable("down", code="connection_failed")
    before = world.calls(url)
    for _ in range(8):
        with pytest.raises(AuthserverUnavailable) as caught:
            decide(world, token(exp=NOW + 10**6), **rules)
    assert caught.value.code == "circuit_open"
    assert world.calls(url) == before + breaker.FAILURES


def test_known_keys_are_used_while_the_authserver_fails_whatever_the_breaker_says():
    world = world_of()
    assert decide(world, token())
    world.memory["breaker"] = breaker.Breaker(breaker.FAILURES, world.monotonic + 3600)
    world.answers[JWKS] = AuthserverUnavailable("down")
    world.pass_time(1000)
    assert decide(world, token(exp=NOW + 10**6))
    world.pass_time(86_400)
    with pytest.raises(AuthserverUnavailable):
        decide(world, token(exp=NOW + 10**6))


# -- signature first, then a question ------------------------------------------------------------


def hybrid(world: World, value: str, **changes: Any) -> TokenInfo:
    return decide(world, value, validation="hybrid", **changes)


def test_forged_tokens_cost_no_question():
    world = world_of({"active": True, "client_id": "app", "scope": "read"})
    head, body, signature = token().split(".")
    for forged in (
        "tGzv3JOkF0XG5Qx2TlKWIA",
        token(aud="another"),
        f"{head}.{encoded(claims(sub='admin'))}.{signature}",
        signed(PROFILED, claims(), key=load_key(pem("RS256", 5))),
        token({**PROFILED, "alg": "none"}),
    ):
        with pytest.raises(TokenError):
            hybrid(world, forged)
    assert world.calls(ASKED) == 0
    assert hybrid(world, f"{head}.{body}.{signature}")
    assert world.calls(ASKED) == 1


def test_the_answer_is_kept_and_revocation_is_seen():
    world = world_of({"active": True, "client_id": "app"}, {"active": False})
    for _ in range(5):
        assert hybrid(world, token())
    assert world.calls(ASKED) == 1
    world.pass_time(60)
    with pytest.raises(InactiveToken):
        hybrid(world, token())


def test_the_signature_is_checked_also_when_the_answer_is_known():
    """Two tokens that are one to the cache cannot be: but nothing hangs on that alone."""
    world = world_of({"active": True, "client_id": "app"})
    assert hybrid(world, token())
    world.answers[JWKS] = jwks(jwk(number=1))
    world.pass_time(59)
    world.memory.pop("jwks")
    with pytest.raises(InvalidSignature):
        hybrid(world, token())


def test_what_both_say_is_put_together_and_the_authserver_s_word_is_last():
    said = {"active": True, "client_id": "app", "scope": "read", "username": "tel:+34600000000"}
    found = hybrid(world_of(said), token(HEADER, acr="2", **PLATFORM), jwt_types=(None,))
    assert found.scopes == {"read"}, "under whichever name the token has more"
    assert (found.subject, found.acr) == ("anna", "2")
    said = {"active": True, "client_id": "app", "scopes": ["read"]}
    assert hybrid(world_of(said), token(scope="read write")).scopes == {"read"}
    found = hybrid(world_of({"active": True, "client_id": "app"}), token())
    assert found.scopes == {"read", "write"}


@pytest.mark.parametrize("changes", [{"sub": "berta"}, {"client_id": "another"}, {"iss": "other"}])
def test_an_answer_about_another_token_is_not_believed(changes):
    said = {"active": True, "client_id": "app", **changes}
    with pytest.raises(TokenError):
        hybrid(world_of(said), token())


def test_each_of_both_may_say_what_is_required():
    rules = {"allowed_clients": ("app",), "required_claims": {"acr": "3", "level": 1}}
    said = {"active": True, "client_id": "app", "acr": "3"}
    assert hybrid(world_of(said), token(client_id=None, level=1), **rules)
    with pytest.raises(TokenError):
        hybrid(world_of({**said, "acr": "1"}), token(acr="3", level=1), **rules)


def test_the_times_and_audience_of_both_count():
    ends = {"active": True, "client_id": "app", "exp": NOW - 60}
    with pytest.raises(ExpiredToken):
        hybrid(world_of(ends), token())
    with pytest.raises(WrongAudience):
        hybrid(world_of({"active": True, "client_id": "app", "aud": "another"}), token())


@pytest.mark.parametrize("validation", ["jwt", "hybrid"])
def test_fresh_asks_whatever_the_setting_says(validation):
    world = world_of({"active": True, "client_id": "app"}, {"active": False})
    assert decide(world, token(), fresh=True, validation=validation)
    with pytest.raises(InactiveToken):
        decide(world, token(), fresh=True, validation=validation)
    assert world.calls(ASKED) == 2


# -- with the client --------------------------------------------------------------------------


@pytest.fixture
def authserver() -> Iterator[FakeAuthserver]:
    with FakeAuthserver(token_format="jwt").serve() as server:
        yield server


def client_of(server: FakeAuthserver, **changes: Any) -> OpenIDClient:
    entry = {name.lower(): value for name, value in server.settings().items()}
    return OpenIDClient(**{**entry, **changes})


@both_ways
def test_the_authserver_s_own_tokens_are_accepted_over_the_wire(call, authserver):
    client = client_of(authserver, validation="jwt")
    user = authserver.issue_token(sub="anna", scope="read")
    assert call(client, "authenticate", user).subject == "anna"
    own = call(client, "get_token", ["write"])
    assert not call(client, "authenticate", own).is_user
    assert authserver.requests.count("introspection") == 0
    authserver.revoke_token(user)
    assert call(client, "authenticate", user), "nobody has told us"
    with pytest.raises(InactiveToken):
        call(client, "authenticate", user, fresh=True)


@both_ways
def test_a_new_key_of_the_authserver_is_found(call, authserver):
    client = client_of(authserver, validation="jwt")
    assert call(client, "authenticate", authserver.issue_token(sub="anna"))
    authserver.rotate_keys()
    assert call(client, "authenticate", authserver.issue_token(sub="anna"))
    assert authserver.requests.count("jwks") == 2


@both_ways
def test_an_id_token_of_the_authserver_is_no_bearer(call, authserver):
    for types in (["at+jwt"], ["at+jwt", "JWT", None]):
        client = client_of(authserver, validation="jwt", jwt_types=types)
        request = client.start_authorization("https://me.example.com/cb", ["openid"])
        back = authserver.authorize(request.url, sub="anna")
        code = dict(part.split("=") for part in back.partition("?")[2].split("&"))["code"]
        answered = call(
            client,
            "grant_code",
            code,
            "https://me.example.com/cb",
            code_verifier=request.code_verifier,
            nonce=request.nonce,
            full_authserver_response=True,
        )
        assert call(client, "authenticate", answered["access_token"]).subject == "anna"
        with pytest.raises(TokenError):
            call(client, "authenticate", answered["id_token"])
        if "refresh_token" in answered:
            with pytest.raises(TokenError):
                call(client, "authenticate", answered["refresh_token"])


def test_the_settings_are_checked():
    rules: dict[str, Any]
    for rules, said in (
        ({"validation": "JWT"}, "VALIDATION must be 'introspection', 'jwt' or 'hybrid'"),
        (
            {"jwt_types": ["at+jwt", "id+jwt"]},
            "JWT_TYPES must be a list of some of 'at+jwt', 'JWT'",
        ),
        ({"jwt_types": "at+jwt"}, "JWT_TYPES must be a list"),
        ({"jwt_types": []}, "JWT_TYPES must be a list"),
        ({"jwt_algorithms": ["HS256"]}, "JWT_ALGORITHMS must be a list of some of 'RS256'"),
        ({"jwt_algorithms": ["none"]}, "JWT_ALGORITHMS must be a list"),
        ({"jwt_algorithms": [["RS256"]]}, "JWT_ALGORITHMS must be a list"),
    ):
        with pytest.raises(ConfigurationError, match=re.escape(said)):
            OpenIDClient("https://auth.example.com", "client", "secret", **rules)


def test_no_claim_is_in_a_log_or_an_error(caplog, authserver):
    caplog.set_level(logging.DEBUG)
    client = client_of(authserver, validation="jwt")
    number = "tel:+34600000000"
    for value in (
        authserver.issue_token(sub=number, aud="another"),
        authserver.issue_token(sub=number, lifetime=-60),
        authserver.issue_token(sub=number, scope="read")[:-4],
        signed(PROFILED, {**claims(sub=number), "iss": authserver.endpoint}),
    ):
        with pytest.raises(TokenError) as caught:
            client.authenticate(value)
        assert "34600000000" not in f"{caught.value!r} {caplog.text}"
        assert value not in f"{caught.value!r} {caplog.text}"
    assert json.dumps(KEY.public_jwk)[:40] not in caplog.text
