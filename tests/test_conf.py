from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings
from material import assert_tells_nothing, ec_key, jwk_text, pem

import django_baikal
from django_baikal import OpenIDClient, conf, values
from django_baikal.aio import OpenIDClient as AsyncOpenIDClient
from django_baikal.exceptions import ConfigurationError
from django_baikal.protocol.config import ClientConfig

ENDPOINT = "https://auth.example.com"
ENTRY = {"AUTHSERVER_ENDPOINT": ENDPOINT, "CLIENT_ID": "client", "CLIENT_SECRET": "secret"}
#: The SDK's own variables.
SDK = {f"BAIKAL_{name}": value for name, value in ENTRY.items()}


def made(**changes: Any) -> ClientConfig:
    """Give the configuration of an entry; a key that is changed to ``...`` is left out."""
    entry = {name: value for name, value in {**ENTRY, **changes}.items() if value is not ...}
    with override_settings(BAIKAL={"default": entry}):
        return conf.client_config("default")


def complaint(**changes: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        made(**changes)
    start = "BAIKAL['default']: "
    assert str(caught.value).startswith(start)
    return str(caught.value).removeprefix(start)


@pytest.fixture
def environment(monkeypatch) -> Any:
    def give(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return give


# -- each key --------------------------------------------------------------------------------------


def test_an_entry_needs_three_keys_and_the_others_have_defaults():
    assert made() == ClientConfig(
        authserver_endpoint=ENDPOINT, client_id="client", client_secret="secret"
    )


def test_every_field_is_a_key_and_every_key_a_field():
    fields = {field.name.upper() for field in dataclasses.fields(ClientConfig)}
    assert set(values.KNOWN) == fields - {"ALIAS"} | {"ENV_PREFIX"}


def test_every_field_says_what_it_means():
    for field in dataclasses.fields(ClientConfig):
        assert field.name == "alias" or field.metadata["meaning"].endswith(".")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("AUTHSERVER_ENDPOINT", "https://auth.example.com/path/", ...),
        ("AUTHSERVER_ENDPOINT", "http://localhost:8000", ...),
        ("AUTHSERVER_ENDPOINT", "http://127.0.0.1:8000", ...),
        ("AUTHSERVER_ENDPOINT", "http://[::1]:8000", ...),
        ("AUTHSERVER_ISSUER", ENDPOINT + "/", ...),
        ("CLIENT_ID", "weird:app/ñ", ...),
        ("CLIENT_SECRET", "p%ss w+rd:n&=€", ...),
        ("CLIENT_AUTH_METHOD", "client_secret_post", ...),
        ("ISSUER", "https://me.example.com/", ...),
        ("PRIVATE_CERTS_PATH", "/keys", ...),
        ("PRIVATE_CERTS_PATH", Path("/keys"), "/keys"),
        ("CLIENT_KEYS", [], ()),
        ("CLIENT_KEYS", ({"key": b"x", "passphrase": None},), ...),
        ("CLIENT_KEYS", [{"key": "x", "kid": "k", "alg": "a", "format": "pem"}], ...),
        ("ASSERTION_LIFETIME", 3600, ...),
        ("ASSERTION_AUDIENCE", "token_endpoint", ...),
        ("VERIFY_CERTS", False, ...),
        ("VERIFY_CERTS", "OFF", False),
        ("VERIFY_CERTS", "yes", True),
        ("VERIFY_CERTS", __file__, ...),
        ("VERIFY_CERTS", Path(__file__), __file__),
        ("CLIENT_CERT", None, ...),
        ("CLIENT_CERT", [Path("/cert"), "/key"], ("/cert", "/key")),
        ("TRUST_ENV", False, ...),
        ("ALLOW_HTTP", True, ...),
        ("TIMEOUT", 0.5, ...),
        ("TIMEOUT", "2.5", 2.5),
        ("INTROSPECTION_TIMEOUT", "2", 2),
        ("MAX_RESPONSE_SIZE", 1, ...),
        ("ENDPOINT_ORIGINS", None, ...),
        ("ENDPOINT_ORIGINS", ["https://A.example:443", "https://b:8443"], ...),
        ("METADATA_TTL", 0, ...),
        ("METADATA_STALE", 10**6, ...),
        ("JWKS_TTL", 30, ...),
        ("JWKS_TTL", 86400, ...),
        ("JWKS_COOLDOWN", 30, ...),
        ("JWKS_COOLDOWN", "60.5", 60.5),
        ("JWKS_COOLDOWN", 600, ...),
        ("JWKS_STALE", 600, ...),
        ("CACHE", "tokens", ...),
        ("PROCESS_TTL", 0, ...),
        ("TOKEN_LEEWAY", 0, ...),
        ("INTROSPECTION_TTL", 0, ...),
        ("INTROSPECTION_NEGATIVE_TTL", 0, ...),
        ("STALE_IF_ERROR", "600", 600),
        ("AUDIENCES", None, ...),
        ("AUDIENCES", ["api", "client"], ("api", "client")),
        ("AUDIENCES", {"b", "a", "d", "c"}, ("a", "b", "c", "d")),
        ("ALLOWED_CLIENTS", frozenset("badc"), ("a", "b", "c", "d")),
        ("AUDIENCES", ("*",), ...),
        ("ALLOWED_CLIENTS", {"a"}, ("a",)),
        ("REQUIRED_CLAIMS", {}, ...),
        ("REQUIRED_CLAIMS", {"a": 1, "b": ("x", True, None)}, {"a": 1, "b": ["x", True, None]}),
        ("BEARER_LEEWAY", 0, ...),
        ("MAX_TOKEN_LENGTH", 100, ...),
        ("REALM", "", ...),
        ("REALM", 'a "b" \\c', ...),
        ("USER_RESOLVER", "app.users.resolve", ...),
        ("SCOPE_PERMISSIONS", {}, ...),
        ("SCOPE_PERMISSIONS", {"a": ["app.view_x"], "b": ()}, {"a": ("app.view_x",), "b": ()}),
        ("CLOCK_SKEW", 0, ...),
        ("AIOHTTP_SESSION_SIZE", "7", 7),
        ("AIOHTTP_SESSION_DNS_CACHE", 0, ...),
        ("AIOHTTP_SESSION_LIMIT", 7, ...),
    ],
)
def test_a_good_value_is_taken(name, value, expected):
    expected = value if expected is ... else expected
    if name == "CLIENT_KEYS":
        expected = tuple(expected)
    if name == "ENDPOINT_ORIGINS" and value:
        expected = ("https://a.example", "https://b:8443")
    found = getattr(made(**{name: value}), name.lower())
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("AUTHSERVER_ENDPOINT", 5, "must be a string (it is 5)."),
        ("AUTHSERVER_ENDPOINT", "auth.example.com", "not an absolute http or https URL"),
        ("AUTHSERVER_ENDPOINT", "ftp://auth.example.com", "not an absolute http or https URL"),
        ("AUTHSERVER_ENDPOINT", "https://", "not an absolute http or https URL"),
        ("AUTHSERVER_ENDPOINT", "https://a b", "a character that a URL must not have"),
        ("AUTHSERVER_ENDPOINT", "https://a\\@b", "a character that a URL must not have"),
        ("AUTHSERVER_ENDPOINT", "https://ñ.example", "a character that a URL must not have"),
        ("AUTHSERVER_ENDPOINT", "https://a\n", "cannot be printed"),
        ("AUTHSERVER_ENDPOINT", "https://a:99999", "it is not a URL"),
        ("AUTHSERVER_ENDPOINT", "https://[::1", "it is not a URL"),
        ("AUTHSERVER_ENDPOINT", "https://a/?b=c", "it has a query"),
        ("AUTHSERVER_ENDPOINT", "https://a/?", "it has a query"),
        ("AUTHSERVER_ENDPOINT", "https://a/#", "it has a fragment"),
        ("AUTHSERVER_ENDPOINT", "http://auth.example.com", "must be https"),
        ("AUTHSERVER_ENDPOINT", "HTTP://auth.example.com", "must be https"),
        ("AUTHSERVER_ENDPOINT", "http://localhost.example.com", "must be https"),
        ("AUTHSERVER_ENDPOINT", "http://127.0.0.1.example.com", "must be https"),
        ("AUTHSERVER_ENDPOINT", "http://10.0.0.1", "must be https"),
        ("AUTHSERVER_ENDPOINT", "", "is not the base URL"),
        (
            "AUTHSERVER_ENDPOINT",
            "https://a.example/.well-known/openid-configuration",
            "leave out what begins with /.well-known/",
        ),
        ("AUTHSERVER_ISSUER", None, "must be a string"),
        ("CLIENT_ID", 5, "must be a string (it is 5)."),
        ("CLIENT_ID", "", "CLIENT_ID is missing (or the variable BAIKAL_CLIENT_ID)."),
        ("CLIENT_SECRET", None, "must be a string"),
        ("CLIENT_SECRET", "", "CLIENT_SECRET is missing (or the variable BAIKAL_CLIENT_SECRET)."),
        ("CLIENT_SECRET", "a\nb", "cannot be printed"),
        ("CLIENT_AUTH_METHOD", "tls_client_auth", "'client_secret_post' or 'private_key_jwt'"),
        ("ISSUER", 5, "must be a string"),
        ("PRIVATE_CERTS_PATH", 5, "must be a path (it is 5)."),
        ("PRIVATE_CERTS_PATH", b"/keys", "must be a path"),
        ("CLIENT_KEYS", None, "must be a list"),
        ("CLIENT_KEYS", {"key": "x"}, "must be a list"),
        ("CLIENT_KEYS", ["x"], 'entry 0 has no "key"'),
        ("CLIENT_KEYS", [{"key": "x"}, {"format": "pem"}], 'entry 1 has no "key"'),
        ("CLIENT_KEYS", [{"key": {"kty": "RSA"}}], 'entry 0 has no "key"'),
        ("CLIENT_KEYS", [{"key": "x", "fromat": "p"}], "Did you mean 'format'?"),
        ("CLIENT_KEYS", [{"key": "x", "password": "p"}], "Unknown key 'password'."),
        ("CLIENT_KEYS", [{"key": "x", "kid": 5}], "'kid' must be a string"),
        ("CLIENT_KEYS", [{"key": "x", "kid": b"k"}], "'kid' must be a string"),
        ("CLIENT_KEYS", [{"key": "x", "passphrase": 5}], "'passphrase' must be a string"),
        ("ASSERTION_LIFETIME", 3601, "must be at most 3600 seconds (it is 3601)."),
        ("ASSERTION_LIFETIME", 0, "must be more than 0"),
        ("ASSERTION_AUDIENCE", ["issuer"], "must be 'issuer' or 'token_endpoint'"),
        ("VERIFY_CERTS", "/no/such/file", "a CA bundle that exists"),
        ("VERIFY_CERTS", None, "must be a path"),
        ("VERIFY_CERTS", 0, "must be a path"),
        ("CLIENT_CERT", "/cert", "must be two paths"),
        ("CLIENT_CERT", ("/cert",), "must be two paths"),
        ("CLIENT_CERT", ("/cert", None), "must be a path"),
        ("TRUST_ENV", "False", "must be True or False (it is 'False')."),
        ("ALLOW_HTTP", 1, "must be True or False"),
        ("TIMEOUT", 0, "must be more than 0"),
        ("TIMEOUT", -1, "must be a number that is not negative"),
        ("TIMEOUT", True, "must be a number"),
        ("TIMEOUT", None, "must be a number"),
        ("TIMEOUT", float("nan"), "must be a number"),
        ("TIMEOUT", float("inf"), "must be a number"),
        ("TIMEOUT", "soon", "must be a number"),
        ("TIMEOUT", "1.2.3", "must be a number"),
        ("MAX_RESPONSE_SIZE", 1.5, "must be a whole number"),
        ("MAX_RESPONSE_SIZE", 0, "must be more than 0"),
        ("ENDPOINT_ORIGINS", "https://a", "must be a list of origins"),
        ("ENDPOINT_ORIGINS", ["a"], "an origin that is not one"),
        ("ENDPOINT_ORIGINS", [5], "an origin that is not one"),
        ("METADATA_STALE", 899, "METADATA_STALE must not be less than METADATA_TTL."),
        ("METADATA_TTL", 10**6, "METADATA_STALE must not be less than METADATA_TTL."),
        ("JWKS_STALE", 599, "JWKS_STALE must not be less than JWKS_TTL."),
        ("JWKS_TTL", 10**6, "JWKS_STALE must not be less than JWKS_TTL."),
        ("JWKS_TTL", 29, "JWKS_TTL must not be less than JWKS_COOLDOWN."),
        ("JWKS_TTL", 0, "JWKS_TTL must not be less than JWKS_COOLDOWN."),
        ("JWKS_TTL", "long", "must be a number"),
        ("JWKS_COOLDOWN", 29.9, "at least 30 seconds, for a lower one lets each forged token cost"),
        ("JWKS_COOLDOWN", 0, "must be at least 30 seconds"),
        ("JWKS_COOLDOWN", -30, "must be a number that is not negative"),
        ("JWKS_STALE", None, "must be a number"),
        ("CACHE", None, "must be a string"),
        ("INTROSPECTION_TTL", -1, "must be a number that is not negative"),
        ("INTROSPECTION_NEGATIVE_TTL", "long", "must be a number"),
        ("STALE_IF_ERROR", None, "must be a number"),
        *(
            (name, value, "must be a list of strings that are not empty")
            for name in ("AUDIENCES", "ALLOWED_CLIENTS")
            for value in ("api", 7, [7], [""], {"a": 1})
        ),
        ("AUDIENCES", [], "must not be empty, for then no token would do"),
        ("ALLOWED_CLIENTS", (), "must not be empty"),
        ("REQUIRED_CLAIMS", ["a"], "must be a dict of claims and their values"),
        ("REQUIRED_CLAIMS", {7: 1}, "must be a dict of claims and their values"),
        ("REQUIRED_CLAIMS", {"a": {1}}, "has a value that is not JSON"),
        ("REQUIRED_CLAIMS", {"a": float("nan")}, "has a value that is not JSON"),
        ("REQUIRED_CLAIMS", {"a": object}, "has a value that is not JSON"),
        ("REQUIRED_CLAIMS", {"a": []}, "has an empty list, and then no token would do"),
        ("BEARER_LEEWAY", -5, "must be a number that is not negative"),
        ("MAX_TOKEN_LENGTH", 0, "must be more than 0"),
        ("MAX_TOKEN_LENGTH", 1.5, "must be a whole number"),
        ("REALM", "ñ", "must be ASCII, for it stands in a header"),
        ("REALM", "a\r\nX: y", "a character that cannot be printed"),
        ("REALM", 7, "must be a string"),
        ("USER_RESOLVER", len, "must be a string"),
        ("SCOPE_PERMISSIONS", ["a"], "must be a dict of scopes and lists of permissions"),
        ("SCOPE_PERMISSIONS", {7: ["app.x"]}, "must be a dict of scopes and lists of permissions"),
        ("SCOPE_PERMISSIONS", {"a": "app.x"}, "must be a list of strings"),
        ("SCOPE_PERMISSIONS", {"a": ["view_x"]}, "a permission that is not named 'app.codename'"),
        ("SCOPE_PERMISSIONS", {"a": ["a.b.c"]}, "a permission that is not named 'app.codename'"),
        ("AIOHTTP_SESSION_LIMIT", "many", "must be a number"),
        ("ENV_PREFIX", 5, "must be a string (it is 5)."),
    ],
)
def test_a_wrong_value_is_named_with_the_reason_in_one_sentence(name, value, said):
    sentence = complaint(**{name: value})
    assert said in sentence
    assert name in sentence
    assert sentence.endswith((".", "?"))
    assert "\n" not in sentence


@pytest.mark.parametrize("host", ["auth.example.com", "localhost.example.com", "10.0.0.1"])
def test_plain_http_to_others_is_an_explicit_choice(host):
    assert made(AUTHSERVER_ENDPOINT=f"http://{host}", ALLOW_HTTP=True).allow_http


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("CLIENT_IDD", "CLIENT_ID"),
        ("client_id", "CLIENT_ID"),
        ("CLIENT-SECRET", "CLIENT_SECRET"),
        ("TIME_OUT", "TIMEOUT"),
        ("AUTHSERVER_ENDPIONT", "AUTHSERVER_ENDPOINT"),
        ("ENVPREFIX", "ENV_PREFIX"),
    ],
)
def test_an_unknown_key_brings_the_one_that_was_probably_meant(name, meant):
    assert complaint(**{name: "x"}) == f"Unknown key {name!r}. Did you mean {meant!r}?"


@pytest.mark.parametrize("name", ["XYZ", "", 5, None, ("a",)])
def test_a_key_like_no_other_brings_no_guess(name):
    with (
        override_settings(BAIKAL={"default": {**ENTRY, name: "x"}}),
        pytest.raises(ConfigurationError) as caught,
    ):
        conf.client_config("default")
    assert str(caught.value) == f"BAIKAL['default']: Unknown key {name!r}."


def test_all_that_is_wrong_is_reported_and_nothing_twice():
    entry = {"AUTHSERVER_ENDPOINT": "x", "CLIENT_SECRET": 5, "TIMEOUT": 0, "CLIENTID": "x"}
    _, wrong = conf.problems("eu", entry)
    assert [name for name, _ in wrong] == [
        "AUTHSERVER_ENDPOINT",
        "CLIENT_SECRET",
        "TIMEOUT",
        "CLIENTID",
        "CLIENT_ID",
    ]


def test_private_key_jwt_needs_no_secret():
    assert made(CLIENT_AUTH_METHOD="private_key_jwt", CLIENT_SECRET=...).client_secret == ""


# -- secrets ---------------------------------------------------------------------------------------

SECRET = "s3cret-of-the-client"


@pytest.mark.parametrize(
    "changes",
    [
        {"CLIENT_SECRET": [SECRET]},
        {"CLIENT_SECRET": SECRET + "\n"},
        {"CLIENT_KEYS": SECRET.encode()},
        {"CLIENT_KEYS": [SECRET]},
        {"CLIENT_KEYS": [{"kye": SECRET}]},
        {"CLIENT_KEYS": [{"key": "x", "passphrase": [SECRET]}]},
        {"CLIENT_KEYS": [{"key": "x", "password": SECRET}]},
        {"CLIENT_KEYS": f'["{SECRET}"'},
        {"AUTHSERVER_ENDPOINT": f"https://user:{SECRET}@auth.example.com"},
        {"ENDPOINT_ORIGINS": [f"https://user:{SECRET}@auth.example.com"]},
        {"ENDPOINT_ORIGINS": f"https://user:{SECRET}@auth.example.com"},
        {"CLIENT_ID": "", "CLIENT_SECRET": SECRET},
        {"CLIENT_SCRET": SECRET},
    ],
)
def test_no_message_quotes_a_secret(changes):
    assert SECRET not in complaint(**changes)


@pytest.mark.parametrize("write", [pem, lambda key: pem(key).replace("\n", "\\n")])
@pytest.mark.parametrize("name", ["PRIVATE_CERTS_PATH", "VERIFY_CERTS", "CLIENT_CERT"])
def test_a_key_in_the_place_of_a_path_is_refused_and_not_quoted(name, write):
    value = write(ec_key())
    given = ("/cert", value) if name == "CLIENT_CERT" else value
    sentence = complaint(**{name: given})
    assert sentence == f"{name} must be a path."
    assert_tells_nothing(sentence, ec_key())


def test_neither_the_configuration_nor_a_client_shows_a_secret():
    keys = [{"key": pem(ec_key()), "passphrase": SECRET}]
    config = made(CLIENT_SECRET=SECRET, CLIENT_KEYS=keys)
    for shown in (repr(config), str(config), f"{config}", repr(OpenIDClient.of(config))):
        assert SECRET not in shown
        assert_tells_nothing(shown, ec_key())
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.timeout = 1  # type: ignore[misc]


# -- sources ---------------------------------------------------------------------------------------


@override_settings(BAIKAL=None)
def test_a_project_with_the_sdks_variables_alone_works(environment, tmp_path):
    environment(
        **SDK,
        BAIKAL_ISSUER="https://me.example.com/",
        BAIKAL_PRIVATE_CERTS_PATH=str(tmp_path),
        BAIKAL_VERIFY_CERTS="FALSE",
        AIOHTTP_SESSION_SIZE="7",
        AIOHTTP_SESSION_DNS_CACHE="8",
        AIOHTTP_SESSION_LIMIT="9",
    )
    assert conf.aliases() == ["default"]
    assert conf.client_config("default") == ClientConfig(
        authserver_endpoint=ENDPOINT,
        client_id="client",
        client_secret="secret",
        issuer="https://me.example.com/",
        private_certs_path=str(tmp_path),
        verify_certs=False,
        aiohttp_session_size=7,
        aiohttp_session_dns_cache=8,
        aiohttp_session_limit=9,
    )


def test_the_argument_wins_over_the_setting_and_that_over_the_environment(environment):
    environment(BAIKAL_CLIENT_ID="of-environment", BAIKAL_ISSUER="of-environment")
    with override_settings(BAIKAL={"default": {**ENTRY, "CLIENT_ID": "of-settings"}}):
        config = conf.client_config("default")
        assert (config.client_id, config.issuer) == ("of-settings", "of-environment")
        config = conf.client_config("default", {"CLIENT_ID": "explicit", "ISSUER": None})
        assert (config.client_id, config.issuer) == ("explicit", "of-environment")


@pytest.mark.parametrize("cls", [OpenIDClient, AsyncOpenIDClient])
def test_the_arguments_are_the_sdks_and_the_settings_in_lower_case(cls):
    keys = [{"key": pem(ec_key()), "format": "pem"}]
    with override_settings(BAIKAL={}):
        client = cls(ENDPOINT, "client", "secret", keys, "me", "/keys", timeout=3)
        assert client.config == ClientConfig(
            authserver_endpoint=ENDPOINT,
            client_id="client",
            client_secret="secret",
            client_keys=tuple(keys),
            issuer="me",
            private_certs_path="/keys",
            timeout=3,
        )
        with pytest.raises(ConfigurationError, match=r"Unknown key 'CLIENT_IDD'\. Did you mean"):
            cls(ENDPOINT, "client", "secret", client_idd="x")


@override_settings(BAIKAL={"eu": ENTRY})
def test_a_client_made_by_hand_needs_no_alias_default():
    assert OpenIDClient(ENDPOINT, "by-hand", "secret").config.client_id == "by-hand"
    with pytest.raises(ConfigurationError, match="no alias 'default'"):
        OpenIDClient()


def test_an_empty_variable_counts_as_not_there(environment):
    environment(BAIKAL_CLIENT_ID="")
    assert complaint(CLIENT_ID=...) == "CLIENT_ID is missing (or the variable BAIKAL_CLIENT_ID)."


def test_other_aliases_read_the_environment_under_their_prefix_only(environment):
    environment(**SDK, EU_CLIENT_SECRET="of-eu", AIOHTTP_SESSION_LIMIT="9")
    entry = {"AUTHSERVER_ENDPOINT": ENDPOINT, "CLIENT_ID": "client"}
    with override_settings(BAIKAL={"eu": {**entry, "ENV_PREFIX": "EU_"}, "us": entry}):
        assert conf.client_config("eu").client_secret == "of-eu"
        assert conf.client_config("eu").aiohttp_session_limit == 9
        with pytest.raises(ConfigurationError, match=r"'us'\]: CLIENT_SECRET is missing\."):
            conf.client_config("us")


def test_a_missing_key_names_the_variable_under_the_prefix_of_the_entry():
    assert complaint(ENV_PREFIX="MY_", CLIENT_ID=...) == (
        "CLIENT_ID is missing (or the variable MY_CLIENT_ID)."
    )
    assert made(ENV_PREFIX=None) == made()


def test_the_prefix_may_be_an_argument(environment):
    environment(MY_ISSUER="of-mine", BAIKAL_ISSUER="of-baikal")
    assert OpenIDClient(ENDPOINT, "client", "secret", env_prefix="MY_").config.issuer == "of-mine"
    assert OpenIDClient(ENDPOINT, "client", "secret").config.issuer == "of-baikal"


@pytest.mark.parametrize(
    ("secret", "others", "expected"),
    [
        ("$ecret", {}, "$ecret"),
        ("$$ecret", {}, "$$ecret"),
        ("$", {}, "$"),
        ("$BAIKAL_CLIENT_SECRET", {}, "$BAIKAL_CLIENT_SECRET"),
        ("$OTHER", {"OTHER": "the-other"}, "the-other"),
        ("$OTHER", {"OTHER": "$OTHER"}, "$OTHER"),
        ("$OTHER", {"OTHER": ""}, "$OTHER"),
        ("a$b\\n", {}, "a$b\\n"),
    ],
)
def test_a_secret_that_begins_with_a_dollar_is_not_lost_and_not_logged(
    environment, caplog, secret, others, expected
):
    environment(BAIKAL_CLIENT_SECRET=secret, **others)
    with caplog.at_level("DEBUG"):
        assert made(CLIENT_SECRET=...).client_secret == expected
    assert "ecret'" not in caplog.text.replace("CLIENT_SECRET", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (pem(ec_key()), ({"key": pem(ec_key())},)),
        (jwk_text(ec_key()), ({"key": jwk_text(ec_key())},)),
        ('[{"key": "x", "kid": "k"}]', ({"key": "x", "kid": "k"},)),
        (" []", ()),
    ],
)
def test_keys_in_the_environment_are_a_list_in_json_or_one_key(environment, text, expected):
    environment(BAIKAL_CLIENT_KEYS=text)
    assert made().client_keys == expected


def test_keys_in_the_environment_that_are_no_json_are_not_quoted(environment):
    environment(BAIKAL_CLIENT_KEYS="[" + pem(ec_key()))
    assert complaint() == "CLIENT_KEYS is not valid JSON."


# -- aliases ---------------------------------------------------------------------------------------


def test_default_is_an_alias_where_the_environment_names_it_or_nothing_else_is(environment):
    with override_settings(BAIKAL={}):
        assert conf.aliases() == ["default"]
    with override_settings(BAIKAL={"eu": {}}):
        assert conf.aliases() == ["eu"]
        environment(**SDK)
        assert conf.aliases() == ["default", "eu"]
        assert conf.client_config("default").client_id == "client"


@override_settings(BAIKAL={"europe": ENTRY, "default": ENTRY})
def test_an_unknown_alias_brings_the_one_that_was_probably_meant():
    with pytest.raises(ConfigurationError, match=r"no alias 'eurpoe'\. Did you mean 'europe'\?"):
        conf.entry("eurpoe")
    with pytest.raises(ConfigurationError, match=r"no alias 'x'\.$"):
        conf.entry("x")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ([ENTRY], "BAIKAL must be a dict of aliases"),
        ("default", "BAIKAL must be a dict of aliases"),
        ({1: ENTRY}, "BAIKAL must be a dict of aliases"),
        ({None: ENTRY, "default": ENTRY}, "BAIKAL must be a dict of aliases"),
        (
            ENTRY,
            r"BAIKAL must be a dict of aliases: put AUTHSERVER_ENDPOINT into",
        ),
        ({"default": None}, r"BAIKAL\['default'\] must be a dict\."),
        ({"default": [ENTRY]}, r"BAIKAL\['default'\] must be a dict\."),
    ],
)
def test_a_setting_of_the_wrong_shape_says_so(setting, said):
    with override_settings(BAIKAL=setting), pytest.raises(ConfigurationError, match=said):
        conf.client_config("default")


# -- without Django --------------------------------------------------------------------------------


def python(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    root = str(Path(django_baikal.__file__).resolve().parent.parent)
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        env=environment | {"PYTHONPATH": root} | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_script_without_settings_has_arguments_and_environment():
    script = """
        from django_baikal import OpenIDClient, clients
        print(OpenIDClient(client_id="explicit"), clients["default"], list(clients))
    """
    done = python(script, **SDK)
    assert done.stderr == ""
    assert done.stdout == (
        "<OpenIDClient 'default': 'explicit' at 'https://auth.example.com'> "
        "<OpenIDClient 'default': 'client' at 'https://auth.example.com'> ['default']\n"
    )


def test_settings_that_were_named_and_cannot_be_read_are_not_passed_over():
    script = "from django_baikal import OpenIDClient; OpenIDClient()"
    done = python(script, **SDK, DJANGO_SETTINGS_MODULE="no_such_settings")
    assert "No module named 'no_such_settings'" in done.stderr


def test_settings_that_are_incomplete_are_not_passed_over(tmp_path):
    (tmp_path / "broken_settings.py").write_text(
        "from django.core.exceptions import ImproperlyConfigured\n"
        "raise ImproperlyConfigured('set the variable X')\n"
    )
    script = f"""
        import sys
        sys.path.append({str(tmp_path)!r})
        from django_baikal import OpenIDClient
        OpenIDClient()
    """
    done = python(script, **SDK, DJANGO_SETTINGS_MODULE="broken_settings")
    assert "set the variable X" in done.stderr


def test_an_issuer_where_the_sdk_had_it_is_not_taken_for_a_key():
    with pytest.raises(ConfigurationError, match="CLIENT_KEYS must be a list") as caught:
        OpenIDClient("https://auth.example.com", "id", "secret", "https://me.example.com/")
    assert "me.example.com" not in str(caught.value), "it might be a key all the same"
