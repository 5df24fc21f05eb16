from __future__ import annotations

import copy
import pickle
import re

import pytest
from django.core.exceptions import ImproperlyConfigured

import django_baikal
from django_baikal import exceptions
from django_baikal.exceptions import AuthserverError, BaikalError, KeyLoadError

CLASSES = {
    name: cls
    for name, cls in vars(exceptions).items()
    if isinstance(cls, type) and issubclass(cls, BaikalError)
}
# As drawn in the module's docstring: each line's last indentation says whose child it is.
TREE = """
BaikalError: ConfigurationError AuthserverError TokenError KeyStoreError
AuthserverError: AuthserverUnavailable InvalidResponse OAuthError
TokenError: InactiveToken ExpiredToken InvalidSignature WrongAudience InsufficientAuthentication \
InsufficientScope InvalidRequest
KeyStoreError: NoUsableSigningKey StoreUnavailable KeyLoadError EncryptionKeyMissing Tampered \
Refused LostRace
KeyLoadError: UnknownFormat PassphraseRequired WrongPassphrase UnsupportedKey WeakKey \
InconsistentKey NotPrivate
"""


def make(cls: type[BaikalError]) -> BaikalError:
    if issubclass(cls, AuthserverError):
        return cls(
            "What and where.",
            code="special",
            status=429,
            error="slow_down",
            description="not so fast",
            retry_after=7,
        )
    if issubclass(cls, KeyLoadError):
        return cls("What and where.", code="special", path="/keys/a.pem", format="pem")
    return cls("What and where.", code="special")


def test_the_tree_is_the_documented_one():
    found = {
        name: {child for child, cls in CLASSES.items() if cls.__bases__[0] is parent}
        for name, parent in CLASSES.items()
    }
    drawn = {}
    for line in TREE.strip().splitlines():
        parent, _, children = line.partition(": ")
        drawn[parent] = set(children.split())
    assert {name: children for name, children in found.items() if children} == drawn


def test_the_docstring_draws_every_class():
    drawn = set(re.findall(r"\b[A-Z][A-Za-z]+\b", exceptions.__doc__ or ""))
    assert CLASSES.keys() <= drawn


def test_every_error_can_be_imported_from_the_package():
    for name, cls in CLASSES.items():
        assert getattr(django_baikal, name) is cls
        assert name in django_baikal.__all__


def test_every_name_that_the_package_promises_is_there_and_no_other():
    assert all(hasattr(django_baikal, name) for name in django_baikal.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = django_baikal.nothing


def test_every_class_has_a_code_of_its_own():
    codes = [cls.code for cls in CLASSES.values()]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z_]+", code) for code in codes)


@pytest.mark.parametrize("cls", CLASSES.values(), ids=CLASSES)
@pytest.mark.parametrize(
    "again",
    [
        copy.copy,
        copy.deepcopy,
        *(
            lambda error, protocol=protocol: pickle.loads(pickle.dumps(error, protocol))
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
        ),
    ],
)
def test_an_error_survives_being_copied_and_pickled(cls, again):
    error = make(cls)
    twin = again(error)
    assert type(twin) is cls
    assert twin is not error
    assert str(twin) == "What and where."
    assert twin.args == error.args
    assert vars(twin) == vars(error)
    assert twin.code == "special"


@pytest.mark.parametrize("cls", CLASSES.values(), ids=CLASSES)
def test_an_error_without_details_has_the_code_of_its_class(cls):
    assert cls("x").code == cls.code
    assert str(cls()) == ""
    assert vars(make(cls)) != {}


def test_an_existing_except_clause_still_catches():
    with pytest.raises(ImproperlyConfigured):
        raise django_baikal.ConfigurationError("x")
    with pytest.raises(AuthserverError):
        raise django_baikal.AuthserverUnavailable("x")
    with pytest.raises(Exception, match="x"):
        raise django_baikal.InvalidSignature("x")


def test_you_the_authserver_and_the_bearer_are_never_mixed_up():
    families = [exceptions.ConfigurationError, AuthserverError, exceptions.TokenError]
    families.append(exceptions.KeyStoreError)
    for cls in CLASSES.values():
        assert sum(issubclass(cls, family) for family in families) == (cls is not BaikalError)


def test_only_an_authserver_that_is_unavailable_is_worth_another_try():
    assert {name for name, cls in CLASSES.items() if getattr(cls, "retryable", False)} == {
        "AuthserverUnavailable"
    }


@pytest.mark.parametrize(
    ("path", "format", "said"),
    [
        ("/keys/a.pem", "pem", "/keys/a.pem (read as pem): Too weak."),
        ("/keys/a.pem", None, "/keys/a.pem: Too weak."),
        (None, "pem", "Read as pem: Too weak."),
        (None, None, "Too weak."),
    ],
)
def test_an_error_about_a_key_says_where_it_was_and_how_it_was_read(path, format, said):
    error = exceptions.WeakKey("Too weak.", code="x", format=format).at(path)
    assert str(error) == said
    assert (error.path, error.format) == (path, format)


def test_an_error_about_a_key_stays_what_it_is_at_its_place():
    error = exceptions.WeakKey("Too weak.", code="x", format="pem").at("/keys/a.pem")
    assert (type(error), error.code, error.path, error.format) == (
        exceptions.WeakKey,
        "x",
        "/keys/a.pem",
        "pem",
    )
