from __future__ import annotations

from typing import Any

import pytest
from world import METADATA, OAUTH, OPENID, SERVER, World, answer, config

from django_baikal.exceptions import (
    AuthserverUnavailable,
    InvalidResponse,
    OAuthError,
)
from django_baikal.protocol.discovery import COOLDOWN, metadata

DOWN = AuthserverUnavailable("down", code="connection_failed")


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in METADATA.items() if name not in names}


def get(world: World, endpoint: str = "token_endpoint", **changes: Any) -> str:
    settings = config(**changes)
    return world.run(metadata(settings, endpoint)).endpoint(settings, endpoint)


def test_metadata_is_fetched_once_in_its_time():
    world = World()
    for _ in range(3):
        assert get(world) == f"{SERVER}/token"
        world.pass_time(299)
    assert world.calls(OPENID) == 1


def test_nobody_waits_while_metadata_is_renewed():
    world = World()
    get(world)
    world.pass_time(901)
    world.answers[OPENID] = answer({**METADATA, "token_endpoint": f"{SERVER}/new"})
    assert get(world) == f"{SERVER}/token"
    world.finish_asides()
    assert get(world) == f"{SERVER}/new"
    assert world.calls(OPENID) == 2


@pytest.mark.parametrize(
    "failure",
    [
        DOWN,
        answer({}, 503),
        answer({}, 500),
        answer({}, 429),
        answer(b"<html>", content_type="text/html"),
        answer({**METADATA, "issuer": "https://evil.example"}),
        answer({"error": "gone"}, 404),
        answer({}, 302),
    ],
    ids=["refused", "503", "500", "429", "html", "issuer", "404", "redirect"],
)
def test_a_good_copy_is_served_for_a_day_when_the_authserver_fails(failure):
    world = World()
    get(world)
    world.answers[OPENID] = failure
    for hours in range(23):
        world.pass_time(3600)
        assert get(world) == f"{SERVER}/token", hours
        world.finish_asides()
    world.pass_time(3600)
    with pytest.raises((AuthserverUnavailable, InvalidResponse)):
        get(world)
    world.answers[OPENID] = answer(METADATA)
    assert get(world) == f"{SERVER}/token"


def test_a_failed_renewal_is_not_tried_again_at_once(caplog):
    world = World()
    get(world)
    world.pass_time(901)
    world.answers[OPENID] = DOWN
    get(world)
    world.finish_asides()
    assert "the last copy stays in use" in caplog.text
    for _ in range(5):
        get(world)
        world.finish_asides()
    assert world.calls(OPENID) == 2
    world.pass_time(COOLDOWN + 1)
    get(world)
    world.finish_asides()
    assert world.calls(OPENID) == 3


def test_two_renewals_asked_for_at_once_make_one_request():
    world = World()
    get(world)
    world.pass_time(901)
    get(world)
    get(world)
    world.finish_asides()
    assert world.calls(OPENID) == 2


def test_a_cold_start_that_fails_raises_and_is_tried_again():
    world = World({OPENID: [DOWN, answer(METADATA)]})
    with pytest.raises(AuthserverUnavailable):
        get(world)
    assert get(world) == f"{SERVER}/token"


def test_the_second_of_two_cold_callers_finds_what_the_first_remembered():
    world = World()
    first, second = (metadata(config(), "token_endpoint") for _ in range(2))
    # Both have seen an empty memory before either has discovered anything.
    assert world.perform(next(first)) is None
    assert world.perform(next(second)) is None
    for flow in (first, second):
        effect = flow.send(None)
        effect = flow.send(world.perform(effect))
        with pytest.raises(StopIteration):
            flow.send(world.perform(effect))
    assert world.calls(OPENID) == 1


def test_the_oauth_document_is_used_where_the_openid_one_is_missing():
    world = World({OPENID: answer(b"nothing", 404, "text/plain"), OAUTH: answer(METADATA)})
    assert get(world) == f"{SERVER}/token"
    assert get(world) == f"{SERVER}/token"
    assert (world.calls(OPENID), world.calls(OAUTH)) == (1, 1)


def test_the_oauth_document_completes_an_openid_one_that_lacks_the_endpoint():
    world = World(
        {
            OPENID: answer({**without("revocation_endpoint"), "token_endpoint": f"{SERVER}/oidc"}),
            OAUTH: answer(METADATA),
        }
    )
    assert get(world) == f"{SERVER}/oidc"
    assert world.calls(OAUTH) == 0, "nobody asks for what is not needed"
    assert get(world, "revocation_endpoint") == f"{SERVER}/revoke"
    assert get(world) == f"{SERVER}/oidc", "where both speak, the OpenID document wins"
    assert world.calls(OAUTH) == 1
    world.pass_time(901)
    get(world, "revocation_endpoint")
    world.finish_asides()
    assert get(world, "revocation_endpoint") == f"{SERVER}/revoke"
    assert (world.calls(OPENID), world.calls(OAUTH)) == (2, 2)


def test_a_missing_endpoint_is_looked_for_once():
    world = World({OPENID: answer(without("revocation_endpoint"))})
    for _ in range(2):
        with pytest.raises(InvalidResponse, match="names no revocation_endpoint") as caught:
            get(world, "revocation_endpoint")
        assert caught.value.code == "endpoint_missing"
    assert world.calls(OAUTH) == 1
    assert get(world) == f"{SERVER}/token"


def test_the_second_of_two_callers_that_lack_an_endpoint_asks_nothing_more():
    world = World({OPENID: answer(without("revocation_endpoint")), OAUTH: answer(METADATA)})
    get(world)
    asked = []
    flow = metadata(config(), "revocation_endpoint")
    effect = next(flow)
    while type(effect).__name__ != "Share":
        effect = flow.send(world.perform(effect))
    asked = [world.run(effect.work()), world.run(effect.work())]
    assert asked[0] == asked[1]
    assert world.calls(OAUTH) == 1


def test_no_metadata_at_all_names_both_addresses_and_the_setting():
    world = World({OPENID: answer({}, 404), OAUTH: answer({}, 404)})
    with pytest.raises(InvalidResponse) as caught:
        get(world)
    assert caught.value.code == "metadata_missing"
    for part in (OPENID, OAUTH, "AUTHSERVER_ENDPOINT"):
        assert part in str(caught.value)


def test_metadata_that_needs_a_login_is_not_taken_for_missing():
    world = World({OPENID: answer({"error": "denied"}, 401)})
    with pytest.raises(OAuthError):
        get(world)
    assert world.calls(OAUTH) == 0


def test_an_issuer_with_a_path_is_looked_for_in_both_ways():
    endpoint = f"{SERVER}/tenant/1"
    inserted = f"{SERVER}/.well-known/oauth-authorization-server/tenant/1"
    world = World({inserted: answer({**METADATA, "issuer": endpoint})})
    assert get(world, authserver_endpoint=endpoint) == f"{SERVER}/token"
    assert [request.url for request in world.requests] == [
        f"{endpoint}/.well-known/openid-configuration",
        inserted,
    ]


def test_a_slash_at_the_end_of_the_endpoint_is_part_of_the_issuer_and_not_of_the_address():
    world = World({OPENID: answer({**METADATA, "issuer": f"{SERVER}/"})})
    assert get(world, authserver_endpoint=f"{SERVER}/") == f"{SERVER}/token"


def test_a_renewal_that_finds_the_work_done_does_nothing():
    world = World()
    get(world)
    world.pass_time(901)
    get(world)
    get(world)
    assert len(world.asides) == 2
    world.finish_asides()
    assert world.calls(OPENID) == 2


def test_the_authservers_keys_are_not_fetched():
    world = World()
    get(world)
    assert world.calls(METADATA["jwks_uri"]) == 0


@pytest.mark.parametrize(
    "issuer",
    [
        f"{SERVER}/",
        SERVER.upper(),
        SERVER[:-1],
        f"{SERVER}.evil.example",
        f"{SERVER}:443",
        [SERVER],
        None,
        "",
        {"issuer": SERVER},
    ],
)
def test_an_issuer_that_is_not_the_expected_one_to_the_character_is_refused(issuer):
    world = World(issuer=issuer)
    with pytest.raises(InvalidResponse) as caught:
        get(world)
    assert caught.value.code == "issuer_mismatch"
    for part in (repr(SERVER), "AUTHSERVER_ISSUER", repr(issuer) if issuer == f"{SERVER}/" else ""):
        assert part in str(caught.value)


def test_a_provider_whose_issuer_differs_is_named_by_a_setting():
    world = World(issuer="https://issuer.example/")
    assert get(world, authserver_issuer="https://issuer.example/") == f"{SERVER}/token"


@pytest.mark.parametrize(
    "url",
    [
        "http://auth.example.com/token",
        "//auth.example.com/token",
        "/token",
        "ftp://auth.example.com/token",
        "file:///etc/passwd",
        "https:///token",
        "https://user:secret@auth.example.com/token",
        "https://auth.example.com/token#fragment",
        "https://auth.example.com:99999/token",
        "https://auth.example.com/to ken",
        "https://auth.example.com\\@evil.example/",
        "https://auth.exämple.com/",
        "https://[::1",
        7,
        ["https://auth.example.com/token"],
    ],
)
def test_an_endpoint_that_cannot_be_trusted_is_not_used(url):
    world = World(token_endpoint=url)
    with pytest.raises(InvalidResponse) as caught:
        get(world)
    assert caught.value.code == "endpoint_refused"
    assert "secret" not in str(caught.value)
    assert get(world, "introspection_endpoint"), "only what it names is lost"


def test_an_endpoint_may_be_on_another_https_origin_unless_a_setting_narrows_it():
    elsewhere = "https://tokens.example.com:8443/token"
    world = World(token_endpoint=elsewhere)
    assert get(world) == elsewhere
    assert get(world, endpoint_origins=("https://tokens.example.com:8443",)) == elsewhere
    with pytest.raises(InvalidResponse, match="ENDPOINT_ORIGINS"):
        get(world, endpoint_origins=(SERVER,))


LOOPBACK = "http://127.0.0.1:8089"


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://tokens.example.com/token",
        "http://127.0.0.1:8090/token",
        "http://localhost:8089/token",
        "http://10.0.0.1/token",
    ],
)
def test_metadata_over_plain_http_names_endpoints_of_its_own_origin_only(endpoint):
    document = {"issuer": LOOPBACK, "token_endpoint": endpoint}
    world = World({f"{LOOPBACK}/.well-known/openid-configuration": answer(document)})
    with pytest.raises(InvalidResponse):
        get(world, authserver_endpoint=LOOPBACK, allow_http=True)


def test_plain_http_is_for_this_machine_unless_a_setting_allows_it():
    for server, allowed in ((LOOPBACK, True), ("http://auth.example.com", False)):
        document = {"issuer": server, "token_endpoint": f"{server}/token"}
        world = World({f"{server}/.well-known/openid-configuration": answer(document)})
        if allowed:
            assert get(world, authserver_endpoint=server)
        else:
            with pytest.raises(InvalidResponse, match="ALLOW_HTTP"):
                get(world, authserver_endpoint=server)
        assert get(world, authserver_endpoint=server, allow_http=True)
