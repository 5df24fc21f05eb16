"""The doctor finds each fault that is planted, and nothing else, and names its cure."""

from __future__ import annotations

import base64
import datetime as dt
import json
import logging
import re
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import environ
import pytest
from conftest import ROOT
from django.db import OperationalError, connection
from django.test import override_settings
from doctor_stage import JWKS, METADATA, SECRET, Patient, well
from keys_stage import keeper, rows
from loopback import answering, reply, running
from material import assert_tells_nothing, ec_key, jwk, pem, public

from django_baikal.doctor import FAILED, NAMES, PASSED, SKIPPED, examine
from django_baikal.models import SigningKey

pytestmark = pytest.mark.django_db
KEK = base64.b64encode(bytes(range(32))).decode()
OTHER = base64.b64encode(bytes(range(32, 64))).decode()


@pytest.fixture
def patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Patient]:
    with well(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the other process, which takes time, where it is not what a test is about."""
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE")


def assert_nothing_secret(patient: Patient, findings: Any) -> None:
    told = repr(findings)
    pair = base64.b64encode(f"doctors-client:{SECRET}".encode()).decode()
    for secret in (SECRET, pair, KEK, OTHER, *patient.authserver._state.tokens):
        assert secret not in told
    # A kid may begin as a JWT does.
    assert not re.search(r"eyJ[\w-]+\.[\w-]+\.", told)
    assert_tells_nothing(told, ec_key())


def test_nothing_is_found_where_nothing_is_wrong(patient: Patient) -> None:
    before = list(SigningKey.objects.values())
    found = patient.examine()
    assert tuple(found) == NAMES
    # Loopback has no TLS; see below for one that has.
    assert {name: each.status for name, each in found.items()} == {
        **dict.fromkeys(NAMES, PASSED),
        "TLS": SKIPPED,
    }
    assert not any(each.cure for each in found.values())
    assert list(SigningKey.objects.values()) == before
    # The entry is gone, and nothing else was kept.
    assert list((patient.path / "cache").iterdir()) == []
    active, standby = rows()
    assert found["signing key"].what == (
        f"{active.kid} signs (ES256), and {standby.kid} comes next."
    )
    token = found["token"].what
    assert token.startswith("It is accepted: a client's own, for doctors-client, with no scope")
    assert_nothing_secret(patient, found)


# -- the faults ------------------------------------------------------------------------------------


def a_typo_in_the_settings(patient: Patient) -> None:
    patient.entry["CLIENT_IDD"] = patient.entry.pop("CLIENT_ID")


def a_cache_that_is_not_there(patient: Patient) -> None:
    patient.entry["CACHE"] = "elsewhere"


def an_insecure_setting(patient: Patient) -> None:
    patient.entry["AUDIENCES"] = ["*"]


def an_option_of_keys_that_is_unknown(patient: Patient) -> None:
    patient.options["PROPAGATE"] = 60


def middleware_in_the_wrong_order(patient: Patient) -> None:
    patient.settings["MIDDLEWARE"] = [
        "django_baikal.middleware.IntrospectionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ]


def an_authserver_that_is_down(patient: Patient) -> None:
    patient.server.stop()


def an_authserver_with_another_name(patient: Patient) -> None:
    patient.entry["AUTHSERVER_ISSUER"] = patient.entry["AUTHSERVER_ENDPOINT"] + "/"


def an_endpoint_that_is_wrong(patient: Patient) -> None:
    patient.entry["AUTHSERVER_ENDPOINT"] += "/realms/mine"


def an_endpoint_elsewhere(patient: Patient) -> None:
    patient.entry["ENDPOINT_ORIGINS"] = ["https://auth.example.com"]


def metadata_that_redirects(patient: Patient) -> None:
    patient.authserver.fail("discovery", status=302, body="")


def a_clock_that_is_ahead(patient: Patient) -> None:
    patient.tell_time(300)


def a_clock_that_is_behind(patient: Patient) -> None:
    patient.tell_time(-300)


def a_secret_that_is_wrong(patient: Patient) -> None:
    patient.entry["CLIENT_SECRET"] = OTHER


def a_method_that_is_not_taken(patient: Patient) -> None:
    patient.entry["CLIENT_AUTH_METHOD"] = "private_key_jwt"


def a_method_that_the_metadata_does_not_list(patient: Patient) -> None:
    _metadata(patient, token_endpoint_auth_methods_supported=["client_secret_post"])


def a_token_endpoint_that_fails(patient: Patient) -> None:
    patient.authserver.fail("token", status=503)


def a_token_endpoint_that_wants_more(patient: Patient) -> None:
    patient.authserver.fail("token", status=400, body={"error": "invalid_request"})


def a_refresh_token_for_a_token(patient: Patient) -> None:
    answer = {"access_token": "abc", "token_type": "refresh_token"}
    patient.authserver.fail("token", status=200, body=answer)


def no_introspection(patient: Patient) -> None:
    _without(patient, "introspection_endpoint")


def introspection_that_is_forbidden(patient: Patient) -> None:
    patient.authserver.fail("introspection", status=403, body={"error": "access_denied"})


def introspection_that_is_down(patient: Patient) -> None:
    patient.authserver.fail("introspection", status=502)


def introspection_by_another_method(patient: Patient) -> None:
    _metadata(patient, introspection_endpoint_auth_methods_supported=["private_key_jwt"])


def a_token_of_our_own_that_is_called_inactive(patient: Patient) -> None:
    patient.authserver.fail("introspection", status=200, body={"active": False})


def a_token_that_was_revoked(patient: Patient) -> None:
    patient.token = patient.authserver.issue_token(sub="tel:+34600000000")
    patient.authserver.revoke_token(patient.token)


def a_refresh_token(patient: Patient) -> None:
    patient.token = patient.authserver.issue_token(token_type="refresh_token")


def a_token_that_has_expired(patient: Patient) -> None:
    patient.token = "abc"
    body = {"active": True, "client_id": "x", "exp": 1000}
    patient.authserver.fail("introspection", status=200, body=body)


def a_token_for_another_api(patient: Patient) -> None:
    patient.token = patient.authserver.issue_token(aud=["billing", "tel:+34600000000"])


def a_token_of_another_issuer(patient: Patient) -> None:
    patient.token = patient.authserver.issue_token(iss="https://other.example.com")


def a_token_of_a_client_that_is_not_allowed(patient: Patient) -> None:
    patient.entry["ALLOWED_CLIENTS"] = ["somebody"]
    patient.token = patient.authserver.issue_token()


def a_token_without_a_claim(patient: Patient) -> None:
    patient.entry["REQUIRED_CLAIMS"] = {"tenant": "blue"}
    patient.token = patient.authserver.issue_token()


def an_opaque_token_where_it_has_to_be_signed(patient: Patient) -> None:
    patient.entry["VALIDATION"] = "jwt"


def a_token_of_a_type_that_is_not_admitted(patient: Patient) -> None:
    patient.entry.update(VALIDATION="hybrid", JWT_TYPES=["JWT"])
    patient.token = patient.authserver.issue_token(token_format="jwt")


def keys_that_cannot_be_had(patient: Patient) -> None:
    patient.entry["VALIDATION"] = "jwt"
    patient.token = patient.authserver.issue_token(token_format="jwt")
    patient.authserver.fail("jwks")


def keys_that_make_no_sense(patient: Patient) -> None:
    patient.entry["VALIDATION"] = "jwt"
    patient.token = patient.authserver.issue_token(token_format="jwt")
    patient.authserver.fail("jwks", body={"keys": None})


def no_token_at_all(patient: Patient) -> None:
    patient.token = "Bearer eyJhbGciOiJub25lIn0.e30."


def an_answer_that_makes_no_sense(patient: Patient) -> None:
    body = {"active": True, "client_id": "x", "exp": "tomorrow"}
    patient.authserver.fail("introspection", status=200, body=body)


def no_key_at_all(patient: Patient) -> None:
    del patient.entry["KEYS"]


def no_key_to_authenticate_with(patient: Patient) -> None:
    del patient.entry["KEYS"], patient.entry["ISSUER"]
    patient.entry["CLIENT_AUTH_METHOD"] = "private_key_jwt"


def a_database_that_is_down(patient: Patient) -> None:
    def failing(*_: Any) -> Any:
        raise OperationalError("the server at 10.0.0.7 is gone")

    patient.within(connection.execute_wrapper(failing))


def a_row_of_nonsense(patient: Patient) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("only SQLite keeps in a column whatever it is given")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE baikal_signingkey SET activates_at = '2030-13-45 00:00:00'")


def a_directory_without_keys(patient: Patient) -> None:
    (patient.path / "keys").mkdir()
    patient.entry["PRIVATE_CERTS_PATH"] = str(patient.path / "keys")


def a_directory_that_is_not_there(patient: Patient) -> None:
    patient.entry["PRIVATE_CERTS_PATH"] = str(patient.path / "keys")


def an_encryption_key_that_is_lost(patient: Patient) -> None:
    patient.options["ENCRYPTION_KEYS"] = [OTHER]


def a_row_that_was_changed(patient: Patient) -> None:
    SigningKey.objects.filter(sequence=1).update(retention=1)


def a_row_that_was_deleted(patient: Patient) -> None:
    patient.clock.pass_(days=7)
    with patient.configured():
        keeper().rotate()
    SigningKey.objects.filter(sequence=2).delete()


def a_private_half_that_was_changed(patient: Patient) -> None:
    row = rows()[1]
    row.private_envelope = row.envelope[:-1] + bytes([row.envelope[-1] ^ 1])
    row.save()


def no_key_in_the_ring(patient: Patient) -> None:
    SigningKey.objects.all().delete()
    patient.says(JWKS, {"keys": []})


def a_private_half_that_is_gone(patient: Patient) -> None:
    row = rows()[0]
    row.private_envelope = None
    row.save()


def only_public_keys(patient: Patient) -> None:
    del patient.entry["KEYS"]
    patient.entry["CLIENT_KEYS"] = [{"key": json.dumps(public(ec_key()))}]


def times_that_break_a_rule(patient: Patient) -> None:
    patient.options["PROPAGATION"] = 60


def a_retention_that_is_too_short(patient: Patient) -> None:
    patient.options["RETENTION"] = 60


def rotations_that_are_too_frequent(patient: Patient) -> None:
    patient.options["ROTATE_EVERY"] = 100_000


def cron_that_does_not_run(patient: Patient) -> None:
    patient.clock.pass_(days=40)


def cron_that_has_just_stopped(patient: Patient) -> None:
    # The standby has taken over two days ago, and there is still time.
    patient.clock.pass_(days=7)


def cron_that_wipes_nothing(patient: Patient) -> None:
    for _ in range(3):
        patient.clock.pass_(days=7)
        with patient.configured():
            keeper().rotate()
    patient.publish()


def our_metadata_is_missing(patient: Patient) -> None:
    del patient.answers[METADATA]


def two_slashes_are_not_passed_on(patient: Patient) -> None:
    patient.says(f"/{METADATA}", b"", "301 Moved Permanently", "Location: /")


def another_issuer_in_our_metadata(patient: Patient) -> None:
    issuer = patient.site.url
    patient.says(METADATA, {"issuer": issuer, "jwks_uri": issuer + JWKS})


def another_jwks_uri(patient: Patient) -> None:
    issuer = patient.entry["ISSUER"]
    patient.says(METADATA, {"issuer": issuer, "jwks_uri": "https://evil.example.com/jwks"})


def no_jwks_uri(patient: Patient) -> None:
    patient.says(METADATA, {"issuer": patient.entry["ISSUER"]})


def a_login_before_our_metadata(patient: Patient) -> None:
    patient.says(METADATA, b"<html>", "200 OK", "Content-Type: text/html")


def our_site_is_down(patient: Patient) -> None:
    patient.site.stop()


def our_site_is_plain_http(patient: Patient) -> None:
    patient.entry["ISSUER"] = "http://me.example.com/"


def our_keys_are_missing(patient: Patient) -> None:
    del patient.answers[JWKS]


def our_keys_redirect(patient: Patient) -> None:
    patient.says(JWKS, b"", "302 Found", "Location: https://me.example.com/")


def our_keys_are_unavailable(patient: Patient) -> None:
    patient.says(JWKS, {"error": "temporarily_unavailable"}, "503 Service Unavailable")


def our_host_is_not_allowed(patient: Patient) -> None:
    patient.says(JWKS, b"", "400 Bad Request")


def our_keys_are_in_an_error_page(patient: Patient) -> None:
    patient.says(JWKS, b"<html>", "500 Internal Server Error", "Content-Type: text/html")


def our_keys_are_text(patient: Patient) -> None:
    patient.answers[JWKS] = reply(b'{"keys": []}', headers=("Content-Type: text/plain",))


def our_keys_are_no_list(patient: Patient) -> None:
    patient.says(JWKS, {"keys": {"kid": "x"}})


def our_keys_are_none(patient: Patient) -> None:
    patient.says(JWKS, {"keys": []})


def our_keys_are_private(patient: Patient) -> None:
    patient.says(JWKS, {"keys": [jwk(ec_key())]})


def our_keys_are_kept_for_too_long(patient: Patient) -> None:
    body = patient.answers[JWKS].partition(b"\r\n\r\n")[2]
    kept = "Cache-Control: public, max-age=60, s-maxage=14400"
    patient.says(JWKS, body, "200 OK", "Content-Type: application/json", kept)


def the_keys_of_another_ring(patient: Patient) -> None:
    patient.says(JWKS, {"keys": [{**public(ec_key()), "kid": "another-rings"}]})


def the_standby_alone_is_missing(patient: Patient) -> None:
    _, standby = rows()
    document = json.loads(patient.answers[JWKS].partition(b"\r\n\r\n")[2])
    document["keys"] = [key for key in document["keys"] if key["kid"] != standby.kid]
    patient.says(JWKS, document)


def another_key_under_our_kid(patient: Patient) -> None:
    active, standby = rows()
    keys = [{**public(ec_key(i)), "kid": row.kid} for i, row in enumerate((active, standby))]
    patient.says(JWKS, {"keys": keys})


def a_cache_in_each_process(patient: Patient) -> None:
    backend = "django.core.cache.backends.locmem.LocMemCache"
    patient.settings["CACHES"] = {"default": {"BACKEND": backend}}


def a_cache_that_keeps_nothing(patient: Patient) -> None:
    patient.settings["CACHES"] = {"default": {"BACKEND": "test_doctor.Forgetful"}}


def a_cache_that_is_down(patient: Patient) -> None:
    patient.settings["CACHES"] = {"default": {"BACKEND": "test_doctor.Broken"}}


def _metadata(patient: Patient, **changes: Any) -> None:
    from django_baikal.testing.endpoints import metadata

    document = {**metadata(patient.authserver._state), **changes}
    patient.authserver.fail("discovery", status=200, body=document)


def _without(patient: Patient, name: str) -> None:
    _metadata(patient, **{name: None})


class Forgetful:
    """A cache that is there, and full."""

    def __init__(self, *_: Any) -> None:
        pass

    def set(self, *_: Any) -> None:
        pass

    def get(self, *_: Any) -> Any:
        return None

    def close(self, **_: Any) -> None:
        pass


class Broken(Forgetful):
    """A cache whose server does not answer."""

    def set(self, *_: Any) -> None:
        raise ConnectionError("redis://:a-password@10.0.0.7")


Plant = Callable[[Patient], None]
#: What is planted: the examination that fails, and words of what it says and of the cure.
FAULTS: dict[Plant, tuple[str, str, str]] = {
    a_typo_in_the_settings: ("settings", "Did you mean 'CLIENT_ID'?", "Correct that"),
    a_cache_that_is_not_there: ("settings", "'elsewhere', which is not in CACHES", "Correct"),
    an_insecure_setting: ("settings", "AUDIENCES is ['*']", "Name whom tokens"),
    an_option_of_keys_that_is_unknown: ("settings", "PROPAGATE", "Correct that"),
    middleware_in_the_wrong_order: ("settings", "must come after", "Correct that"),
    an_authserver_that_is_down: ("discovery", "connection was refused", "AUTHSERVER_ENDPOINT"),
    an_authserver_with_another_name: ("discovery", "is expected", "Set AUTHSERVER_ISSUER"),
    an_endpoint_that_is_wrong: ("discovery", "no metadata", "Correct AUTHSERVER_ENDPOINT"),
    an_endpoint_elsewhere: ("discovery", "is not in ENDPOINT_ORIGINS", "ENDPOINT_ORIGINS"),
    metadata_that_redirects: ("discovery", "a redirect (302)", "See what is at"),
    a_clock_that_is_ahead: ("clock", "s ahead of ours", "Run NTP"),
    a_clock_that_is_behind: ("clock", "s behind ours", "Run NTP"),
    a_secret_that_is_wrong: ("client authentication", "invalid_client", "CLIENT_SECRET"),
    a_method_that_is_not_taken: ("client authentication", "invalid_client", "knows our keys"),
    a_method_that_the_metadata_does_not_list: (
        "client authentication",
        "does not take 'client_secret_basic'",
        "Set CLIENT_AUTH_METHOD",
    ),
    a_token_endpoint_that_fails: ("client authentication", "answered 503", "try again"),
    a_token_endpoint_that_wants_more: ("client authentication", "invalid_request", "its own log"),
    a_refresh_token_for_a_token: ("client authentication", "token_type", "its own log"),
    no_introspection: ("introspection", "no introspection_endpoint", "offer introspection"),
    introspection_that_is_forbidden: ("introspection", "refused (403)", "allow this client"),
    introspection_that_is_down: ("introspection", "answered 502", "try again"),
    introspection_by_another_method: ("introspection", "does not take", "must authenticate"),
    a_token_of_our_own_that_is_called_inactive: ("token", "not active", "allow this client"),
    a_token_that_was_revoked: ("token", "not active", "Get a new one"),
    a_refresh_token: ("token", "not a bearer token", "not the refresh token"),
    a_token_that_has_expired: ("token", "has expired", "the clocks"),
    a_token_for_another_api: ("token", "It is for billing tel:***.", "AUDIENCES"),
    a_token_of_another_issuer: ("token", "another issuer", "AUTHSERVER_ISSUER"),
    a_token_of_a_client_that_is_not_allowed: ("token", "not allowed", "ALLOWED_CLIENTS"),
    a_token_without_a_claim: ("token", "tenant", "REQUIRED_CLAIMS"),
    no_token_at_all: ("token", "malformed", "without the word Bearer"),
    an_opaque_token_where_it_has_to_be_signed: ("token", "three parts", '"introspection"'),
    a_token_of_a_type_that_is_not_admitted: ("token", "not an access token", "JWT_TYPES"),
    keys_that_cannot_be_had: ("token", "answered 503", "publishes its keys"),
    keys_that_make_no_sense: ("token", "not a JWK Set", "publishes its keys"),
    an_answer_that_makes_no_sense: ("token", "its exp is not", "RFC 7662"),
    no_key_at_all: ("keys", "ISSUER is set, and there is no key", "Set KEYS"),
    no_key_to_authenticate_with: ("keys", "private_key_jwt, and there is no key", "Set KEYS"),
    a_database_that_is_down: ("keys", "failed (OperationalError)", "manage.py migrate"),
    a_row_of_nonsense: ("keys", "cannot be in its column", "tampered"),
    a_directory_without_keys: ("keys", "no key that can be used", "Put a private key there"),
    a_directory_that_is_not_there: ("keys", "keys", "Correct that path"),
    an_encryption_key_that_is_lost: ("encryption keys", "which is not set", "ENCRYPTION_KEYS"),
    a_row_that_was_changed: ("seals", "was tampered with", "When a row was tampered with"),
    a_row_that_was_deleted: ("seals", "was deleted", "When a row was tampered with"),
    a_private_half_that_was_changed: ("seals", "The private half", "was tampered with"),
    no_key_in_the_ring: ("signing key", "no key signs now", "manage.py rotate_keys"),
    a_private_half_that_is_gone: ("signing key", "cannot do so here", "rotate_keys --emergency"),
    only_public_keys: ("signing key", "no private key", "Put a private key there"),
    times_that_break_a_rule: ("timing", "rule R1: PROPAGATION is 60 s", "Raise PROPAGATION"),
    a_retention_that_is_too_short: ("timing", "R2", "Raise RETENTION"),
    rotations_that_are_too_frequent: ("timing", "R3", "Raise ROTATE_EVERY"),
    cron_that_does_not_run: ("rotation", "It is too late", "Let cron run manage.py rotate_keys"),
    cron_that_has_just_stopped: ("rotation", "for more than a day", "Let cron run"),
    cron_that_wipes_nothing: ("rotation", "should have been wiped", "Let cron run"),
    our_metadata_is_missing: ("our metadata", "answered 404", "include("),
    two_slashes_are_not_passed_on: ("our metadata", "answered 301", "without a redirect"),
    another_issuer_in_our_metadata: ("our metadata", "the issuer is", "character by character"),
    another_jwks_uri: ("our metadata", "evil.example.com", "Something else answers"),
    no_jwks_uri: ("our metadata", "the jwks_uri is none", "Something else answers"),
    a_login_before_our_metadata: ("our metadata", "Content-Type", "Something else answers"),
    our_site_is_down: ("our metadata", "connection was refused", "one worker"),
    our_site_is_plain_http: ("our metadata", "plain http", "over https"),
    our_keys_are_missing: ("our JWK Set", "answered 404", "include("),
    our_keys_redirect: ("our JWK Set", "answered 302", "without a redirect"),
    our_keys_are_unavailable: ("our JWK Set", "answered 503", "the site's log"),
    our_host_is_not_allowed: ("our JWK Set", "answered 400", "ALLOWED_HOSTS"),
    our_keys_are_in_an_error_page: ("our JWK Set", "answered 500", "log of the site"),
    our_keys_are_text: ("our JWK Set", "Content-Type", "Something else answers"),
    our_keys_are_no_list: ("our JWK Set", "not a JWK Set", "Something else answers"),
    our_keys_are_none: ("our JWK Set", "is empty", "every process that answers"),
    our_keys_are_private: ("our JWK Set", "a private half", "revoke that key"),
    our_keys_are_kept_for_too_long: ("our JWK Set", "for 14400 s, and", "its Cache-Control"),
    the_keys_of_another_ring: ("published keys", "another-rings", "RING and database"),
    the_standby_alone_is_missing: ("published keys", "which comes next", "RING and database"),
    another_key_under_our_kid: ("published keys", "which signs", "RING and database"),
    a_cache_in_each_process: ("cache", "is not shared", "a cache server"),
    a_cache_that_keeps_nothing: ("cache", "does not keep", "cache server runs"),
    a_cache_that_is_down: ("cache", "failed (ConnectionError)", "cache server runs"),
}


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found_and_its_cure_is_named(patient: Patient, plant: Plant) -> None:
    name, what, cure = FAULTS[plant]
    plant(patient)
    everything = patient.examine()
    (found,) = (each for each in everything.values() if each.status == FAILED)
    assert found.name == name
    assert what in found.what
    assert cure in found.cure
    assert all(each.cure == "" for each in everything.values() if each.status != FAILED)
    assert_nothing_secret(patient, everything)
    for private in ("10.0.0.7", "34600000000"):
        assert private not in repr(everything)


def test_a_cache_that_another_process_does_not_see_is_found(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHE_URL", f"filecache://{patient.path}/another")
    found = patient.ill()
    assert (found.name, found.cure[:15]) == ("cache", "Let CACHE name ")
    assert "Another process does not find" in found.what
    assert list((patient.path / "cache").iterdir()) == []


def test_a_cache_server_is_shared(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    redis = pytest.importorskip("redis", reason="the redis library is not installed")
    location = "redis://127.0.0.1:6379/12"
    with redis.Redis.from_url(location) as server:
        try:
            server.ping()
        except redis.exceptions.ConnectionError:
            pytest.skip("no Redis at 127.0.0.1:6379")
        url = f"{location.replace('redis:', 'rediscache:')}?key_prefix={patient.path.name}"
        monkeypatch.setenv("CACHE_URL", url)
        cache = {name.upper(): value for name, value in environ.Env.cache_url_config(url).items()}
        patient.settings["CACHES"] = {"default": cache}
        assert patient.examine()["cache"].status == PASSED
        assert list(server.scan_iter(f"{patient.path.name}:*")) == []


# -- TLS -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ca() -> Any:
    return pytest.importorskip("trustme").CA()


def certificate(ca: Any, days: float = 60, begun: float = 30, host: str = "127.0.0.1") -> Any:
    """Give the TLS context of a server; its certificate ends in so many days."""
    now = dt.datetime.now(dt.UTC)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(
        host,
        not_before=now - dt.timedelta(days=begun),
        not_after=now + dt.timedelta(days=days, minutes=5),
    ).configure_cert(context)
    return context


@pytest.fixture
def secured(ca: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give what makes a patient whose authserver has that certificate."""
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    entry = {"VERIFY_CERTS": str(tmp_path / "ca.pem")}
    return lambda context: well(tmp_path, monkeypatch, context, **entry)


@pytest.mark.usefixtures("alone")
def test_a_good_certificate_passes(ca: Any, secured: Any) -> None:
    with secured(certificate(ca)) as patient:
        found = patient.examine()
    assert [name for name, each in found.items() if each.status != PASSED] == ["cache"]
    assert found["TLS"].what.endswith("for 60 days.")


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("days", "begun", "status"),
    [
        (10, 80, FAILED),
        (15, 75, PASSED),
        # One that lives for six days is renewed later.
        (5, 1, PASSED),
        (1, 5, FAILED),
    ],
)
def test_a_certificate_that_ends_soon_is_found(
    ca: Any, secured: Any, days: int, begun: int, status: str
) -> None:
    with secured(certificate(ca, days, begun)) as patient:
        found = patient.examine()
    assert found["TLS"].status == status
    assert ("Have it renewed" in found["TLS"].cure) == (status == FAILED)
    # Nothing else suffers from it yet.
    assert {each.status for name, each in found.items() if name not in ("TLS", "cache")} == {PASSED}


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("fault", ["expired", "unknown CA", "another host"])
def test_a_certificate_that_is_not_good_is_found(ca: Any, secured: Any, fault: str) -> None:
    trustme = pytest.importorskip("trustme")
    context, what = {
        "expired": lambda: (certificate(ca, days=-1), "has expired"),
        "unknown CA": lambda: (certificate(trustme.CA()), "a CA that is not known here"),
        "another host": lambda: (certificate(ca, host="other.test"), "for another"),
    }[fault]()
    with secured(context) as patient:
        everything = patient.examine()
    (found,) = (each for each in everything.values() if each.status == FAILED)
    assert found.name == "TLS"
    assert what in found.what
    assert "let VERIFY_CERTS be the path" in found.cure
    for name in ("discovery", "clock", "client authentication", "introspection", "token"):
        assert everything[name][1:] == (SKIPPED, "'TLS' failed, and this needs it.", "")


@pytest.mark.usefixtures("alone")
def test_a_server_without_tls_is_found(patient: Patient) -> None:
    # It speaks first, as it would about a request that makes no sense.
    with running(lambda connection: connection.send(reply())) as server:
        patient.entry["AUTHSERVER_ENDPOINT"] = server.url.replace("http", "https")
        found = patient.ill()
    assert found.name == "TLS"
    assert "may speak plain http on this port" in found.what


@pytest.mark.usefixtures("alone")
def test_where_nobody_answers_there_is_no_certificate_to_blame(patient: Patient) -> None:
    patient.server.stop()
    patient.entry["AUTHSERVER_ENDPOINT"] = patient.server.url.replace("http", "https")
    found = patient.ill()
    assert found.name == "discovery"
    assert "the connection was refused" in found.what


@pytest.mark.usefixtures("alone")
def test_a_certificate_that_is_not_checked_is_found(ca: Any, secured: Any) -> None:
    with secured(certificate(ca, days=-1)) as patient:
        patient.entry["VERIFY_CERTS"] = False
        found = patient.ill()
    assert (found.name, found.cure[:9]) == ("TLS", "Remove it")


@pytest.mark.usefixtures("alone")
def test_a_ca_bundle_that_cannot_be_read_is_found(patient: Patient) -> None:
    patient.entry["AUTHSERVER_ENDPOINT"] = patient.server.url.replace("http", "https")
    (patient.path / "ca.pem").write_text("no certificate")
    patient.entry["VERIFY_CERTS"] = str(patient.path / "ca.pem")
    del patient.entry["ISSUER"]
    found = patient.ill()
    assert (found.name, found.cure[:17]) == ("TLS", "Correct what that")


@pytest.mark.usefixtures("alone")
def test_behind_a_proxy_the_certificate_is_left_to_the_discovery(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient.entry["AUTHSERVER_ENDPOINT"] = "https://auth.example.com"
    monkeypatch.setenv("HTTPS_PROXY", f"{patient.site.url}")
    everything = patient.examine()
    assert everything["TLS"].status == SKIPPED
    assert everything["discovery"].status == FAILED
    assert "through the proxy 127.0.0.1" in everything["discovery"].what


@pytest.mark.usefixtures("alone")
def test_our_own_certificate_is_looked_at_as_well(ca: Any, secured: Any, patient: Patient) -> None:
    with running(answering(), certificate(ca, days=-1)) as site:
        patient.entry["ISSUER"] = f"{site.url}/"
        found = patient.ill()
    assert found.name == "our metadata"
    assert "TLS certificate" in found.what
    assert "the authserver checks it as well" in found.cure


@pytest.mark.usefixtures("alone")
def test_plain_http_to_another_machine_is_found(patient: Patient) -> None:
    patient.entry |= {"AUTHSERVER_ENDPOINT": "http://0.0.0.0:1", "ALLOW_HTTP": True}
    patient.settings["SILENCED_SYSTEM_CHECKS"] = ["django_baikal.W011"]
    everything = patient.examine()
    failed = [name for name, each in everything.items() if each.status == FAILED]
    assert failed == ["TLS", "discovery"]
    assert "remove ALLOW_HTTP" in everything["TLS"].cure


# -- what is well, and looks different -------------------------------------------------------------


@pytest.mark.usefixtures("alone")
def test_an_authserver_in_memory_has_no_tls_and_no_clock(patient: Patient) -> None:
    from django_baikal.testing import FakeAuthserver

    with FakeAuthserver(endpoint="https://as.test").in_memory() as authserver:
        patient.entry |= authserver.settings()
        everything = patient.examine()
    assert not [each for each in everything.values() if each.status == FAILED]
    skipped = [name for name, each in everything.items() if each.status == SKIPPED]
    assert skipped == ["TLS", "clock", "cache"]


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("error", ["invalid_scope", "unauthorized_client"])
def test_a_client_that_gets_no_token_without_a_scope_is_known(patient: Patient, error: str) -> None:
    patient.authserver.fail("token", status=400, body={"error": error})
    everything = patient.examine()
    assert not [each for each in everything.values() if each.status == FAILED]
    assert error in everything["client authentication"].what
    for name in ("introspection", "token"):
        assert everything[name].status == SKIPPED
        assert everything[name].what == "There is no token to look at; give one with --token -."


@pytest.mark.usefixtures("alone")
def test_a_client_that_is_called_unauthorized_with_401_is_not_known(patient: Patient) -> None:
    patient.authserver.fail("token", status=401, body={"error": "unauthorized_client"})
    found = patient.ill()
    assert (found.name, found.cure[:17]) == ("client authentication", "Correct CLIENT_ID")


@pytest.mark.usefixtures("alone")
def test_a_token_of_our_own_that_is_for_another_api_is_no_fault(patient: Patient) -> None:
    patient.entry["AUDIENCES"] = ["this-api"]
    everything = patient.examine()
    assert not [each for each in everything.values() if each.status == FAILED]
    assert everything["token"].status == SKIPPED
    assert "give one that is for this one" in everything["token"].what


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("validation", ["jwt", "hybrid"])
def test_a_signed_token_is_verified_as_the_settings_say(patient: Patient, validation: str) -> None:
    patient.entry["VALIDATION"] = validation
    patient.token = patient.authserver.issue_token(token_format="jwt", scope="read")
    found = patient.examine()
    assert found["token"].status == PASSED
    assert found["introspection"].status == (SKIPPED if validation == "jwt" else PASSED)
    asked = patient.authserver.requests.count("introspection")
    assert asked == (validation == "hybrid")


def test_a_token_that_is_given_is_described_without_what_is_personal(patient: Patient) -> None:
    patient.token = patient.authserver.issue_token(
        sub="tel:+34600000000", scope="read write", username="anna", lifetime=7200, aud=None
    )
    everything = patient.examine()
    assert everything["token"].what == (
        "It is accepted: a user's, for nobody in particular, with read write, for another 2 hours."
    )
    assert "34600000000" not in repr(everything)
    assert "anna" not in repr(everything)
    assert_nothing_secret(patient, everything)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("end", [{"exp": 10**12}, {}])
def test_a_token_may_end_in_a_long_time_or_never(patient: Patient, end: Any) -> None:
    body = {"active": True, "client_id": "x", **end}
    patient.authserver.fail("introspection", status=200, body=body)
    assert patient.examine()["token"].status == PASSED


@pytest.mark.usefixtures("alone")
def test_a_project_without_keys_and_issuer_needs_none(patient: Patient) -> None:
    del patient.entry["KEYS"], patient.entry["ISSUER"]
    everything = patient.examine()
    skipped = [name for name, each in everything.items() if each.status == SKIPPED]
    assert skipped == ["TLS", *NAMES[NAMES.index("keys") :]]


@pytest.mark.usefixtures("alone")
def test_an_issuer_that_is_no_url_publishes_nothing(patient: Patient) -> None:
    for issuer in ("urn:me", "https://me.example.com/?a=b"):
        patient.entry["ISSUER"] = issuer
        found = patient.examine()["our metadata"]
        assert found.status == SKIPPED
        assert found.what.startswith("ISSUER is not the URL of a site")


@pytest.mark.usefixtures("alone")
def test_keys_of_a_directory_are_examined_as_well(patient: Patient) -> None:
    directory = patient.path / "keys"
    directory.mkdir()
    (directory / "key.pem").write_text(pem(ec_key()))
    del patient.entry["KEYS"]
    patient.entry["PRIVATE_CERTS_PATH"] = str(directory)
    patient.publish()
    everything = patient.examine()
    assert not [each for each in everything.values() if each.status == FAILED]
    for name in ("encryption keys", "seals", "timing", "rotation"):
        assert everything[name].what == "The keys of this alias are not in the database."
    patient.says(JWKS, {"keys": [public(ec_key(1))]})
    assert patient.ill().name == "published keys"


@pytest.mark.usefixtures("alone")
def test_until_a_ring_has_begun_another_key_signs(patient: Patient) -> None:
    SigningKey.objects.all().delete()
    patient.entry["CLIENT_KEYS"] = [{"key": pem(ec_key())}]
    patient.publish()
    everything = patient.examine()
    failed = [each for each in everything.values() if each.status == FAILED]
    # That it has no key at all is what cron is for.
    assert [(each.name, each.what) for each in failed] == [("rotation", "The ring has no key.")]
    with patient.configured():
        keeper().rotate()
    patient.publish()
    everything = patient.examine()
    assert not [each for each in everything.values() if each.status == FAILED]
    assert "signs (ES256)." in everything["signing key"].what


@pytest.mark.usefixtures("alone")
def test_a_new_key_may_not_be_seen_yet(patient: Patient) -> None:
    patient.clock.pass_(days=7)
    with patient.configured():
        keeper().rotate()
        keeper().prune()
    everything = patient.examine()
    assert not [each for each in everything.values() if each.status == FAILED]
    newest = rows()[2].kid
    assert f"{newest} is so new" in everything["published keys"].what
    patient.clock.pass_(hours=1)
    assert patient.ill().name == "published keys"


@pytest.mark.usefixtures("alone")
def test_what_the_next_run_of_cron_will_do_is_no_fault(patient: Patient) -> None:
    patient.clock.pass_(days=5, hours=1)
    found = patient.examine()["rotation"]
    assert found[1:3] == (PASSED, "A standby is to be made, at the next run of rotate_keys.")


@pytest.mark.usefixtures("alone")
def test_the_last_key_may_sign_alone_for_a_while(patient: Patient) -> None:
    patient.clock.pass_(days=5, hours=1)
    found = patient.examine()["signing key"]
    assert found[1:3] == (PASSED, f"{rows()[1].kid} signs (ES256).")


@pytest.mark.usefixtures("alone")
def test_keys_under_an_older_encryption_key_are_told(patient: Patient) -> None:
    patient.options["ENCRYPTION_KEYS"] = [KEK, "SECRET_KEY"]
    everything = patient.examine()
    assert not [each for each in everything.values() if each.status == FAILED]
    assert everything["encryption keys"].what == (
        "There is one for everything that is kept. Under an older one: 2 of 2; see baikal_keys "
        "reencrypt."
    )


@pytest.mark.usefixtures("alone")
def test_warnings_that_may_be_meant_so_are_told_and_do_not_fail(patient: Patient) -> None:
    patient.entry["CLIENT_KEYS"] = [{"key": pem(ec_key(i))} for i in range(2)]
    found = patient.examine()["settings"]
    assert found.status == PASSED
    assert "2 private keys" in found.what


@pytest.mark.usefixtures("alone")
def test_what_is_silenced_is_not_told(patient: Patient) -> None:
    patient.entry["AUDIENCES"] = ["*"]
    patient.settings["SILENCED_SYSTEM_CHECKS"] = ["django_baikal.W012"]
    assert patient.examine()["settings"].status == PASSED


@pytest.mark.usefixtures("alone")
def test_what_is_wrong_with_another_alias_is_its_own_affair(patient: Patient) -> None:
    other = {**patient.entry, "AUDIENCES": ["*"], "KEYS": None}
    with override_settings(BAIKAL={"default": patient.entry, "eu": other}, **patient.settings):
        found = {alias: {f.name: f for f in examine(alias)} for alias in ("default", "eu")}
    assert found["default"]["settings"].status == PASSED
    assert found["eu"]["settings"].status == FAILED
    assert found["eu"]["keys"].status == FAILED


@pytest.mark.usefixtures("alone")
def test_an_authserver_that_does_not_tell_its_time_is_no_fault(patient: Patient) -> None:
    for date in ("", "yesterday"):
        patient.told = lambda date=date: {"date": date}
        found = patient.examine()["clock"]
        assert found[1:3] == (SKIPPED, "The authserver's answer does not tell its time.")


@pytest.mark.usefixtures("alone")
def test_the_time_that_a_cache_has_kept_an_answer_counts(patient: Patient) -> None:
    patient.tell_time(-300, age="300")
    assert patient.examine()["clock"].status == PASSED


# -- its own limits --------------------------------------------------------------------------------


class Store:
    """A store of somebody else's that fails in a way of its own."""

    source = "my store"
    in_database = False

    def __init__(self, *_: Any) -> None:
        pass

    def keys(self) -> Any:
        raise LookupError(SECRET)

    signing_key = keys


@pytest.mark.usefixtures("alone")
def test_no_examination_raises(patient: Patient, caplog: pytest.LogCaptureFixture) -> None:
    patient.entry["KEYS"] = {"BACKEND": "test_doctor.Store", "OPTIONS": {}}
    with caplog.at_level(logging.ERROR, "django_baikal.doctor"):
        everything = patient.examine()
    assert set(everything) == {*NAMES}
    assert everything["keys"].what == "The examination itself failed (LookupError)."
    assert "django_baikal.doctor" in everything["keys"].cure
    assert "in keys" in caplog.text
    assert SECRET not in caplog.text + repr(everything)


@pytest.mark.usefixtures("alone")
def test_it_ends_in_the_time_that_it_is_given(patient: Patient) -> None:
    with patient.configured():
        everything = {each.name: each for each in examine("default", seconds=0)}
    assert not [each for each in everything.values() if each.status == FAILED]
    for name in ("discovery", "our metadata"):
        assert "There was no time left for it" in everything[name].what
    assert everything["seals"].status == PASSED


@pytest.mark.usefixtures("alone")
def test_a_site_that_hangs_is_waited_for_as_long_as_the_settings_say(patient: Patient) -> None:
    patient.entry["TIMEOUT"] = 1
    patient.authserver.fail("discovery", hang=True)
    found = patient.ill()
    assert found.name == "discovery"
    assert "within" in found.what


@pytest.mark.parametrize("executable", ["", "/usr/bin/uwsgi"])
def test_inside_of_another_program_no_process_is_started(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, executable: str
) -> None:
    monkeypatch.setattr("sys.executable", executable)
    found = patient.examine()["cache"]
    assert found.status == SKIPPED
    assert "manage.py baikal_doctor can" in found.what


def test_another_process_that_does_not_begin_tells_nothing(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", str(patient.path / "python3"))
    found = patient.examine()["cache"]
    assert found.status == SKIPPED
    assert "did not get so far" in found.what
    assert list((patient.path / "cache").iterdir()) == []


def test_each_examination_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference" / "commands.md").read_text("utf-8")
    table = text.partition("| examination | ")[2].partition("\n\n")[0]
    listed = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
    assert listed == [*NAMES]
