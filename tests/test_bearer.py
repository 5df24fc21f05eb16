"""Bearer tokens, the pure part: what is read of a header, what is decided, and what is answered."""

from __future__ import annotations

import copy
import json
import math
import pickle
import re
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from world import SERVER, config

from django_baikal.exceptions import (
    AuthserverError,
    AuthserverUnavailable,
    BaikalError,
    ConfigurationError,
    ExpiredToken,
    InactiveToken,
    InsufficientAuthentication,
    InsufficientScope,
    InvalidRequest,
    InvalidResponse,
    InvalidSignature,
    NoUsableSigningKey,
    OAuthError,
    StoreUnavailable,
    TokenError,
    WrongAudience,
)
from django_baikal.protocol.bearer import (
    Requirement,
    TokenInfo,
    answer,
    bearer_token,
    check_answer,
    check_token,
    fingerprint,
    identity,
    judge,
)

NOW = 1_800_000_000.0
GOOD = {"active": True, "sub": "anna", "client_id": "client"}


# -- the header --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        "Bearer T0ken",
        "bearer T0ken",
        "BEARER T0ken",
        "bEaReR T0ken",
        "Bearer   T0ken",
        "Bearer\tT0ken",
        " \tBearer \t T0ken \t",
    ],
)
def test_the_scheme_is_read_without_case_and_with_blanks_around(header):
    assert bearer_token(header) == "T0ken"


@pytest.mark.parametrize(
    "header",
    [
        "",
        " ",
        ",",
        "Basic T0ken",
        "Token T0ken",
        "DPoP T0ken",
        "Bearerer T0ken",
        "Bearer-x T0ken",
        "Bearer_T0ken",
        "BearerT0ken",
        "XBearer T0ken",
        "Basic Bearer",
        "Bea rer T0ken",
        "Bearar T0ken",
        'Digest username="bearer x", realm="a"',
    ],
)
def test_another_scheme_is_somebody_elses(header):
    assert bearer_token(header) is None


@pytest.mark.parametrize("header", ["Bearer", "bearer ", "Bearer \t ", " Bearer"])
def test_the_scheme_alone_is_an_invalid_request(header):
    with pytest.raises(InvalidRequest, match="no token"):
        bearer_token(header)


@pytest.mark.parametrize(
    "header",
    [
        "Bearer one, Bearer two",
        "Bearer one,Bearer two",
        "Bearer one, bearer one",
        "Basic eDp5, Bearer T0ken",
        "Basic eDp5,\tbearer T0ken",
        "Bearer T0ken, Basic eDp5",
        "Bearer T0ken, ",
        "Bearer T0ken,",
        ", Bearer T0ken",
        "Bearer,",
        "Bearer ,T0ken",
        "Bearer T0,ken",
        'Digest username="a", Bearer',
    ],
)
def test_two_credentials_are_an_invalid_request_as_servers_join_headers_with_commas(header):
    with pytest.raises(InvalidRequest, match="more than one"):
        bearer_token(header)


def test_two_tokens_with_a_blank_between_are_no_token():
    found = bearer_token("Bearer one two")
    assert found == "one two"
    with pytest.raises(TokenError):
        check_token(found, 100)


@given(st.text() | st.text("Bbearer ,\t=x").map(lambda text: f"Bearer{text}"))
def test_no_header_raises_anything_but_our_error(header):
    try:
        found = bearer_token(header)
    except InvalidRequest:
        return
    assert found is None or (found and found in header)


@given(st.from_regex(r"[A-Za-z0-9._~+/-]{1,50}=*", fullmatch=True))
def test_each_token_of_rfc_6750_is_read_as_it_is(token):
    assert bearer_token(f"Bearer {token}") == token
    assert check_token(token, 100) == token


# -- the token ---------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["a", "A-Z._~+/9", "abc==", "eyJ.eyJ.sig", "x" * 8192])
def test_a_token_of_the_right_form_passes(token):
    assert check_token(token, 8192) == token


@pytest.mark.parametrize(
    "token",
    [
        "",
        " ",
        "=",
        "==",
        "a b",
        "a=b",
        "a\n",
        "a\x00",
        "a,b",
        '"a"',
        "tökén",
        "a%20",
        "a:b",
        "\ud800",
        "٣",
        "x" * 8193,
        None,
        7,
        b"T0ken",
        ["T0ken"],
        True,
    ],
)
def test_what_cannot_be_a_token_is_refused(token):
    with pytest.raises(TokenError) as caught:
        check_token(token, 8192)
    assert caught.value.code == "malformed_token"
    assert "x" * 20 not in str(caught.value)


def test_how_long_a_token_may_be_is_the_callers_word():
    assert check_token("x" * 10, 10)
    with pytest.raises(TokenError):
        check_token("x" * 11, 10)


@given(st.text() | st.binary() | st.none() | st.integers())
@example("\ud800")
def test_a_fingerprint_is_8_hex_digits_of_whatever_it_is(token):
    assert re.fullmatch("[0-9a-f]{8}", fingerprint(token))
    assert fingerprint(token) == fingerprint(copy.copy(token))


def test_fingerprints_of_like_tokens_differ():
    assert len({fingerprint(f"T0ken{number}") for number in range(100)}) == 100


# -- the form of an answer ---------------------------------------------------------------------


def checked(**changes: Any) -> None:
    check_answer({**GOOD, **changes}, "The authserver")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"exp": 4e9, "iat": 1, "nbf": 1.5},
        {"exp": -1},
        {"exp": 0},
        {"exp": 1e14},
        {"exp": None, "iat": None, "nbf": None, "aud": None, "scope": None, "acr": None},
        {"aud": "a"},
        {"aud": ["a", "b"]},
        {"aud": []},
        {"scope": ""},
        {"scope": " a  b "},
        {"scope": ["a", "b"]},
        {"scopes": ["a"], "purpose": "p q"},
        {"purpose": ["p"]},
        {"acr": "urn:x"},
        {"acr": 2},
        {"sub": None},
        {"client_id": None},
        {"sub": None, "client_id": None, "username": "anna"},
        {"sub": "", "client_id": "c"},
        {"sub": "ñ 名前", "username": "a b"},
        {"whatever": {"else": [1]}},
    ],
)
def test_an_answer_of_a_form_that_can_be_understood_passes(changes):
    checked(**changes)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("sub", [7, True, ["anna"], {"a": 1}, "a\x00b", "a\nb", "\ud800"]),
        ("client_id", [7, ["c"], {}, "a\r\nX: y"]),
        ("username", [1.5, False, "a\x7f"]),
        ("iss", [7, [SERVER]]),
        ("token_type", [7, ["Bearer"], True]),
        ("jti", [7, {}]),
        ("exp", ["4000000000", "soon", True, [4e9], {}, math.inf, math.nan, 1e15, 10**400]),
        ("iat", ["1", False]),
        ("nbf", ["1", [1]]),
        ("aud", [7, {"a": 1}, [7], [["a"]], [None], True]),
        ("scope", [7, {"a": 1}, [7], ["a b"], [""], 'a"b', "a\\b", "a\nb", "a\u2003b", "ñ"]),
        ("scopes", [True, [None], ["a b"]]),
        ("purpose", [7, [7], "p\tq"]),
        ("acr", [True, False, 1.5, ["1"], {}]),
    ],
)
def test_an_answer_that_cannot_be_understood_is_the_authservers_error(name, values):
    for value in values:
        with pytest.raises(InvalidResponse, match=f"its {name} is not") as caught:
            checked(**{name: value})
        assert caught.value.status == 200
        assert "anna" not in str(caught.value)


@pytest.mark.parametrize("empty", [None, ""])
def test_an_answer_that_names_nobody_is_the_authservers_error(empty):
    with pytest.raises(InvalidResponse, match="sub and client_id"):
        checked(sub=empty, client_id=empty, username=empty)


# -- the decision ------------------------------------------------------------------------------


def judged(said: dict[str, Any] | None = None, wall: float = NOW, **changes: Any) -> TokenInfo:
    return judge(config(**changes), {**GOOD, **(said or {})}, wall)


def test_a_good_token_is_told_with_all_that_was_said():
    found = judged({"scope": "a b", "exp": NOW + 60, "extra": 1, "nothing": None})
    assert found.alias == "default"
    assert found.issuer == SERVER
    assert found.claims == {**GOOD, "scope": "a b", "exp": NOW + 60, "extra": 1}
    assert found.scopes == {"a", "b"}
    assert found.subject == "anna"
    assert found.client_id == "client"
    assert found.expires_at == NOW + 60
    assert found.acr is None


def test_what_is_told_hides_claims_in_its_repr_and_can_be_copied_and_pickled():
    found = judged({"sub": "tel:+34600123456"})
    assert "600123456" not in repr(found)
    for other in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert other == found


@pytest.mark.parametrize("active", [False, "true", 1, "True", [True], None, 0, ""])
def test_active_is_json_true_and_nothing_else(active):
    with pytest.raises(InactiveToken):
        judged({"active": active})


@pytest.mark.parametrize("kind", ["Bearer", "bearer", "BEARER", "access_token", "Access_Token"])
def test_the_type_of_a_bearer_token_may_be_said_or_not(kind):
    assert judged({"token_type": kind})
    assert judged({"token_type": None})


@pytest.mark.parametrize(
    "said",
    [
        {"token_type": "DPoP"},
        {"token_type": "dpop"},
        {"token_type": "refresh_token"},
        {"token_type": "Refresh"},
        {"token_type": "mac"},
        {"token_type": "N_A"},
        {"token_type": ""},
        {"token_type": "Bearer "},
        {"cnf": {"jkt": "x"}},
        {"cnf": {"x5t#S256": "x"}, "token_type": "Bearer"},
        {"cnf": {}},
        {"cnf": "x"},
        {"cnf": False},
    ],
)
def test_a_token_that_is_none_of_a_bearer_is_refused(said):
    with pytest.raises(TokenError) as caught:
        judged(said)
    assert caught.value.code == "not_a_bearer_token"


def test_a_cnf_that_is_null_binds_nothing():
    assert judged({"cnf": None})


@pytest.mark.parametrize("exp", [NOW - 5, NOW - 5.001, NOW - 1e6, 0, -1, -1.5, -1e14])
def test_a_token_whose_time_is_over_is_refused(exp):
    with pytest.raises(ExpiredToken):
        judged({"exp": exp})


@pytest.mark.parametrize("exp", [NOW - 4.9, NOW, NOW + 1, NOW + 0.5, 4e9, 1e14, None])
def test_a_token_whose_time_is_not_over_or_not_told_passes(exp):
    assert judged({"exp": exp})


def test_the_leeway_of_both_times_is_a_setting():
    assert judged({"exp": NOW - 59}, bearer_leeway=60)
    assert judged({"nbf": NOW + 60}, bearer_leeway=60)
    with pytest.raises(ExpiredToken):
        judged({"exp": NOW}, bearer_leeway=0)
    with pytest.raises(ExpiredToken):
        judged({"nbf": NOW + 0.1}, bearer_leeway=0)


def test_a_token_whose_time_has_not_come_is_refused():
    assert judged({"nbf": NOW + 5})
    with pytest.raises(ExpiredToken):
        judged({"nbf": NOW + 5.1})


def test_the_issuer_is_ours_character_by_character_if_it_is_told():
    assert judged({"iss": SERVER})
    assert judged({"iss": "https://other.example"}, authserver_issuer="https://other.example")
    for iss in (f"{SERVER}/", SERVER.upper(), "https://evil.example", "", SERVER[:-1]):
        with pytest.raises(TokenError) as caught:
            judged({"iss": iss})
        assert caught.value.code == "wrong_issuer"
    with pytest.raises(TokenError):
        judged({"iss": SERVER}, authserver_issuer="https://other.example")


ANY = ("*",)


@pytest.mark.parametrize(
    ("audiences", "aud", "passes"),
    [
        (None, None, True),
        (None, [], True),
        (None, "client", True),
        (None, ["client"], True),
        (None, ["other", "client"], True),
        (None, "other", False),
        (None, ["other"], False),
        (None, "", False),
        (None, "clien", False),
        (None, "client client", False),
        (None, "Client", False),
        (("api",), None, False),
        (("api",), [], False),
        (("api",), "api", True),
        (("api",), ["x", "api"], True),
        (("api",), "client", False),
        (("api", "client"), "client", True),
        (ANY, None, True),
        (ANY, [], True),
        (ANY, "whoever", True),
        (("api", "*"), ["whoever"], True),
        (None, "*", False),
        (("api",), "*", False),
    ],
)
def test_whom_a_token_is_for(audiences, aud, passes):
    if passes:
        assert judged({"aud": aud}, audiences=audiences)
    else:
        with pytest.raises(WrongAudience):
            judged({"aud": aud}, audiences=audiences)


def test_only_allowed_clients_where_there_is_a_list():
    assert judged({"client_id": "whoever"})
    assert judged(allowed_clients=("other", "client"))
    for client_id in ("whoever", "clien", None, ""):
        with pytest.raises(TokenError) as caught:
            judged({"client_id": client_id}, allowed_clients=("other", "client"))
        assert caught.value.code == "wrong_client"


@pytest.mark.parametrize(
    ("wanted", "said", "passes"),
    [
        ("x", "x", True),
        ("x", "y", False),
        ("x", None, False),
        (True, True, True),
        (True, 1, False),
        (1, True, False),
        (0, False, False),
        (1, 1, True),
        (1, "1", False),
        ("true", True, False),
        (["x", "y"], "y", True),
        (["x", "y"], "z", False),
        (["x", "y"], ["x", "y"], False),
        ([["x", "y"]], ["x", "y"], True),
        ([1, True], True, True),
        ([1], True, False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": True}, False),
        ("", "", True),
    ],
)
def test_required_claims_are_compared_as_json(wanted, said, passes):
    if passes:
        assert judged({"tenant": said}, required_claims={"tenant": wanted})
    else:
        with pytest.raises(TokenError) as caught:
            judged({"tenant": said}, required_claims={"tenant": wanted})
        assert caught.value.code == "wrong_claim"


def test_all_required_claims_have_to_be_there():
    wanted = {"a": 1, "b": 2}
    assert judged({"a": 1, "b": 2}, required_claims=wanted)
    for said in ({"a": 1}, {"b": 2}, {"a": 1, "b": 1}, {}):
        with pytest.raises(TokenError):
            judged(said, required_claims=wanted)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
members = {
    "sub": st.just("anna") | json_values,
    "client_id": st.just("client") | json_values,
    "username": json_values,
    "iss": st.just(SERVER) | json_values,
    "aud": st.sampled_from(["client", ["client"]]) | json_values,
    "exp": st.just(4e9) | json_values,
    "nbf": json_values,
    "iat": json_values,
    "token_type": st.just("Bearer") | json_values,
    "cnf": json_values,
    "scope": st.sampled_from(["a b", ["a"]]) | json_values,
    "scopes": json_values,
    "purpose": json_values,
    "acr": st.sampled_from(["1", 3, "9" * 5000, "٣"]) | json_values,
}
answers = st.fixed_dictionaries({"active": st.booleans()}, optional=members)


@given(answers)
@example({"active": True, "sub": "", "client_id": "c"})
@example({"active": True, "sub": "a", "acr": "9" * 5000})
def test_whatever_is_said_only_our_errors_come_out(said):
    try:
        if said["active"]:
            check_answer(said, "The authserver")
        found = judge(config(required_claims={"tenant": 1}), {**said, "tenant": 1}, NOW)
    except (TokenError, InvalidResponse):
        return
    assert found.claims["active"] is True
    assert all(isinstance(scope, str) for scope in found.scopes | found.purposes)
    assert re.fullmatch("[0-9a-f]{32}", found.identity)
    assert isinstance(found.is_user, bool)
    assert found.acr is None or isinstance(found.acr, str)
    with suppress(InsufficientScope, InsufficientAuthentication):
        Requirement.of("a", "p", acr="3").check(found)


# -- who it is ---------------------------------------------------------------------------------


def info(**claims: Any) -> TokenInfo:
    return TokenInfo("default", SERVER, claims)


@pytest.mark.parametrize(
    ("claims", "user"),
    [
        ({"sub": "anna"}, True),
        ({"sub": "anna", "client_id": "c"}, True),
        ({"sub": "c", "client_id": "c"}, False),
        ({"client_id": "c"}, False),
        ({"client_id": "c", "username": "tel:+34600123456"}, True),
        ({"sub": "c", "client_id": "c", "username": "anna"}, True),
        ({"sub": "", "client_id": "c"}, False),
        ({"sub": "", "client_id": "c", "username": ""}, False),
        ({"username": "anna"}, True),
    ],
)
def test_who_is_a_user_and_who_a_service(claims, user):
    assert info(**claims).is_user is user
    assert re.fullmatch("[0-9a-f]{32}", info(**claims).identity)


def test_an_empty_name_is_none():
    nobody = info(sub="", client_id="", username="x")
    assert (nobody.subject, nobody.client_id) == (None, None)


def test_identities_of_different_principals_differ():
    different = [
        info(sub="a", client_id="c"),
        info(sub="b", client_id="c"),
        info(client_id="a"),
        info(client_id="b"),
        info(username="a", client_id="c"),
        info(username="b", client_id="c"),
        TokenInfo("default", "https://other.example", {"sub": "a"}),
    ]
    assert len({each.identity for each in different}) == len(different)


def test_an_identity_is_of_issuer_and_subject_and_of_nothing_else():
    first = info(sub="a", client_id="c", username="admin", email="x@example.com")
    again = info(sub="a", client_id="d", username="anna", scope="x")
    assert first.identity == again.identity == identity(SERVER, "sub", "a")
    assert first.identity == TokenInfo("other", SERVER, {"sub": "a"}).identity
    service = info(sub="c", client_id="c")
    assert service.identity == info(client_id="c").identity == identity(SERVER, "client_id", "c")


def test_a_username_tells_users_apart_where_sub_is_the_clients():
    users = [info(sub="c", client_id="c", username=name) for name in ("anna", "bert")]
    assert len({user.identity for user in users} | {info(client_id="c").identity}) == 3


def test_no_other_parts_make_the_same_identity():
    parts = ["a", "b", "ab", "", '","']
    made = {identity(one, two, three) for one in parts for two in parts for three in parts}
    assert len(made) == len(parts) ** 3


def test_an_identity_stays_what_it_is():
    # It may be in somebody's database.
    made = identity("https://auth.example.com", "sub", "anna")
    assert made == "6162dcc3c26594be0e35723efdad73a7"


# -- what it may -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({}, set()),
        ({"scope": ""}, set()),
        ({"scope": "a b a"}, {"a", "b"}),
        ({"scope": ["a", "b"]}, {"a", "b"}),
        ({"scopes": ["a", "b"]}, {"a", "b"}),
        ({"scopes": "a b"}, {"a", "b"}),
        ({"scope": "a", "scopes": ["b"]}, {"a"}),
        ({"scope": "", "scopes": ["b"]}, {"b"}),
        ({"scope": [], "scopes": ["b"]}, {"b"}),
    ],
)
def test_scopes_come_as_a_string_or_a_list(claims, scopes):
    assert info(sub="a", **claims).scopes == scopes


@pytest.mark.parametrize(
    ("claims", "purposes"),
    [
        ({}, set()),
        ({"purpose": "p q"}, {"p", "q"}),
        ({"purpose": ["p"]}, {"p"}),
        ({"scope": "a dpv:FraudPrevention"}, {"dpv:FraudPrevention"}),
        ({"scope": "dpv:Fraud#sim-swap:check"}, {"dpv:Fraud"}),
        ({"scopes": ["dpv:Fraud#a", "dpv:Fraud#b"], "purpose": "p"}, {"dpv:Fraud", "p"}),
        ({"scope": "xdpv:Fraud DPV:Fraud"}, set()),
    ],
)
def test_purposes_come_from_their_claim_and_from_camaras_scopes(claims, purposes):
    assert info(sub="a", **claims).purposes == purposes


@pytest.mark.parametrize(("acr", "told"), [(None, None), ("2", "2"), (2, "2"), (0, "0"), ("", "")])
def test_an_acr_is_told_as_a_string(acr, told):
    claims = {} if acr is None else {"acr": acr}
    assert info(sub="a", **claims).acr == told


def allowed(requirement: Requirement, **claims: Any) -> bool:
    try:
        requirement.check(info(sub="anna", **claims))
    except (InsufficientScope, InsufficientAuthentication):
        return False
    return True


def test_nothing_required_is_always_there():
    assert allowed(Requirement())
    assert Requirement.of() == Requirement()


def test_all_scopes_are_required():
    both = Requirement.of("a b")
    assert allowed(both, scope="b a c")
    assert not allowed(both, scope="a")
    assert not allowed(both, scope="ab")
    assert not allowed(both, scope="A B")
    assert not allowed(both)


def test_all_purposes_are_required():
    both = Requirement.of(purposes=["p", "dpv:Fraud"])
    assert allowed(both, purpose="p", scope="dpv:Fraud")
    assert allowed(both, purpose="p dpv:Fraud")
    assert not allowed(both, purpose="p")
    assert not allowed(both, scope="p dpv:Fraud"), "a scope is no purpose"


def test_one_of_several_sets_of_scopes_has_to_be_complete():
    either = Requirement.of("x", any_of=["a b", ["c"]])
    assert either.any_of == (("a", "b"), ("c",))
    assert allowed(either, scope="x a b")
    assert allowed(either, scope="c x")
    assert not allowed(either, scope="a b")
    assert not allowed(either, scope="x a")
    assert not allowed(either, scope="x")
    assert allowed(Requirement.of(any_of=iter(["a", "c"])), scope="c")


@pytest.mark.parametrize(
    "any_of", ["ab", "a b", "", [], (), ["a", ""], [[]], [None], 7, [7], [["a b", 1]]]
)
def test_alternatives_that_every_token_would_meet_cannot_be_asked(any_of):
    with pytest.raises(ConfigurationError, match="any_of"):
        Requirement.of(any_of=any_of)


@pytest.mark.parametrize("name", ["scopes", "purposes", "acr"])
@pytest.mark.parametrize("value", [7, [7], 'a"b', "ñ", [None]])
def test_what_cannot_be_asked_is_the_projects_error(name, value):
    with pytest.raises(ConfigurationError, match=name):
        Requirement.of(**{name: value})


@pytest.mark.parametrize(
    ("wanted", "acr", "enough"),
    [
        ("2", "2", True),
        ("2", "3", True),
        ("2", 3, True),
        ("2", "10", True),
        ("10", "2", False),
        ("2", "1", False),
        ("2", None, False),
        ("2", "", False),
        ("2", "x", False),
        ("2", "-3", False),
        ("2", "3.0", False),
        ("2", "٣", False),
        ("2", "9" * 5000, False),
        ("0", "0", True),
        ("urn:a", "urn:a", True),
        ("urn:a", "urn:b", False),
        ("urn:a", "5", False),
        ("urn:a urn:b", "urn:b", True),
        ("urn:a 2", "3", True),
    ],
)
def test_an_acr_reaches_a_lower_whole_number_or_itself(wanted, acr, enough):
    claims = {} if acr is None else {"acr": acr}
    assert allowed(Requirement.of(acr=wanted), **claims) is enough


def test_the_errors_say_all_that_is_needed():
    requirement = Requirement.of("a b", "p", any_of=["b c", "d"], acr="2 3")
    with pytest.raises(InsufficientAuthentication) as weak:
        requirement.check(info(sub="anna", acr="1"))
    assert weak.value.acr_values == ("2", "3")
    with pytest.raises(InsufficientScope) as caught:
        requirement.check(info(sub="anna", acr="2", scope="a b", purpose="p"))
    assert caught.value.scopes == ("a", "b", "c"), "an alternative that would do, and nothing twice"
    assert caught.value.purposes == ("p",)
    with pytest.raises(InsufficientScope) as caught:
        requirement.check(info(sub="anna", acr="2", scope="a b d"))
    assert caught.value.scopes == ("a", "b")
    for error in (weak.value, caught.value):
        for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):
            assert (vars(again), str(again), again.code) == (vars(error), str(error), error.code)


# -- the answer --------------------------------------------------------------------------------

REALM = 'Bearer realm="api"'
INVALID = "The access token is invalid or has expired."
INVALID_TOKEN = f'{REALM}, error="invalid_token", error_description="{INVALID}"'
LATER = "The access token cannot be checked now; try again later."


def test_without_a_token_there_is_a_challenge_and_no_error():
    found = answer(None, "api")
    assert found.status == 401
    assert found.headers == {"WWW-Authenticate": REALM}
    assert found.body == {
        "error": "unauthorized",
        "error_description": "A bearer token is needed.",
    }


@pytest.mark.parametrize(
    "error",
    [
        TokenError("why", code="malformed_token"),
        TokenError("why", code="not_a_bearer_token"),
        TokenError("why", code="wrong_issuer"),
        InactiveToken("why"),
        ExpiredToken("why"),
        WrongAudience("why"),
        InvalidSignature("why"),
    ],
    ids=lambda error: error.code,
)
def test_a_token_that_is_not_good_is_answered_the_same_whatever_the_reason(error):
    found = answer(error, "api")
    assert found.status == 401
    assert found.headers == {"WWW-Authenticate": INVALID_TOKEN}
    assert found.body == {"error": "invalid_token", "error_description": INVALID}
    assert "why" not in repr(found)


def test_an_invalid_request_is_400():
    found = answer(InvalidRequest("why"), "api")
    sentence = "The request must carry exactly one token, in the Authorization header."
    assert found.status == 400
    assert found.headers == {
        "WWW-Authenticate": f'{REALM}, error="invalid_request", error_description="{sentence}"'
    }
    assert found.body == {"error": "invalid_request", "error_description": sentence}


@pytest.mark.parametrize(
    ("scopes", "purposes", "more"),
    [
        (("a", "b"), (), ', scope="a b"'),
        ((), ("p", "q"), ', purpose="p q"'),
        (("a",), ("p",), ', scope="a", purpose="p"'),
        ((), (), ""),
    ],
)
def test_a_token_that_does_not_reach_is_403_and_says_what_would(scopes, purposes, more):
    found = answer(InsufficientScope("why", scopes=scopes, purposes=purposes), "api")
    sentence = "The access token does not reach this far."
    told = f'{REALM}, error="insufficient_scope", error_description="{sentence}"'
    assert found.status == 403
    assert found.headers == {"WWW-Authenticate": told + more}
    assert found.body == {"error": "insufficient_scope", "error_description": sentence}


@pytest.mark.parametrize(("values", "more"), [(("3",), ', acr_values="3"'), ((), "")])
def test_a_weak_login_is_401_and_says_what_would_do(values, more):
    found = answer(InsufficientAuthentication("why", acr_values=values), "api")
    code = "insufficient_user_authentication"
    sentence = "The user has to authenticate more strongly."
    told = f'{REALM}, error="{code}", error_description="{sentence}"'
    assert found.status == 401
    assert found.headers == {"WWW-Authenticate": told + more}
    assert found.body == {"error": code, "error_description": sentence}


@pytest.mark.parametrize(
    ("error", "wait"),
    [
        (AuthserverUnavailable("why", code="timeout"), "5"),
        (AuthserverUnavailable("why", retry_after=30.0), "30"),
        (AuthserverUnavailable("why", retry_after=3.2), "4"),
        (AuthserverUnavailable("why", retry_after=0.0), "1"),
        (AuthserverUnavailable("why", retry_after=86400), "86400"),
        (InvalidResponse("why"), "5"),
        (OAuthError("why", status=401, error="invalid_client"), "5"),
        (AuthserverError("why"), "5"),
        # None of these is the bearer's fault either.
        (NoUsableSigningKey("why"), "5"),
        (StoreUnavailable("why"), "5"),
        (ConfigurationError("why"), "5"),
        (BaikalError("why"), "5"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_not_the_bearers_fault_is_503_without_a_challenge(error, wait):
    found = answer(error, "api")
    assert found.status == 503
    assert found.headers == {"Retry-After": wait, "Cache-Control": "no-store"}
    assert found.body == {"error": "temporarily_unavailable", "error_description": LATER}


def test_the_realm_is_quoted():
    assert answer(None, 'a"b\\c').headers["WWW-Authenticate"] == 'Bearer realm="a\\"b\\\\c"'
    assert answer(None, "").headers["WWW-Authenticate"] == 'Bearer realm=""'


CHALLENGE = re.compile(
    r'Bearer (?:[a-z_]+="(?:[^"\\]|\\["\\])*")(?:, [a-z_]+="(?:[^"\\]|\\["\\])*")*'
)
hostile = st.text() | st.sampled_from(['"', "\\", "a\r\nSet-Cookie: x=y", "\x00", 'x", error="y'])


@given(
    realm=hostile,
    names=st.lists(hostile, max_size=3),
    kind=st.sampled_from([None, "scope", "acr", "token", "request", "server"]),
)
def test_a_header_is_one_line_of_visible_ascii_whatever_it_says(realm, names, kind):
    error: BaikalError | None = {
        "scope": InsufficientScope("x", scopes=names, purposes=names),
        "acr": InsufficientAuthentication("x", acr_values=names),
        "token": TokenError(realm),
        "request": InvalidRequest(realm),
        "server": AuthserverUnavailable(realm, description=realm, error=realm),
    }.get(kind or "")
    found = answer(error, realm)
    for name, value in found.headers.items():
        assert re.fullmatch("[ -~]+", value), name
        if name == "WWW-Authenticate":
            assert CHALLENGE.fullmatch(value), value
            assert re.findall(r"(?:^Bearer |, )([a-z_]+)=\"", unquoted(value))[0] == "realm"
            assert unquoted(value).count(" error=") == (0 if error is None else 1)
    json.dumps(found.body)


def unquoted(challenge: str) -> str:
    """Take what is inside of quotes out of a challenge."""
    return re.sub(r'"(?:[^"\\]|\\.)*"', '""', challenge)
