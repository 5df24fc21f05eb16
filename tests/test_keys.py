"""Keys: the loader, the stores, the choice of the one that signs, and what verifies a JWS."""

from __future__ import annotations

import base64
import contextlib
import copy
import hmac
import json
import logging
import os
import pickle
import string
import subprocess
import sys
import textwrap
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.exceptions import InvalidSignature as InvalidSignatureError
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa, x25519
from django.test import RequestFactory
from django.views.debug import ExceptionReporter
from hypothesis import given
from hypothesis import strategies as st
from material import (
    assert_tells_nothing,
    certificate,
    der,
    ec_key,
    integers,
    jwk,
    jwk_text,
    numbers,
    pem,
    public,
    public_pem,
    rsa_key,
    tlv,
    told_by,
)

import django_baikal
from django_baikal.exceptions import (
    InconsistentKey,
    InvalidSignature,
    KeyLoadError,
    NotPrivate,
    NoUsableSigningKey,
    PassphraseRequired,
    StoreUnavailable,
    UnknownFormat,
    UnsupportedKey,
    WeakKey,
    WrongPassphrase,
)
from django_baikal.keys import containers, load_key
from django_baikal.keys.base import Caching, KeyMaterial, Keyring, Published, StaticKeyStore
from django_baikal.keys.containers import MAX_SIZE
from django_baikal.keys.der import cost as cost_of
from django_baikal.keys.directory import MAX_FILE_SIZE, DirectoryKeyStore
from django_baikal.keys.generate import generate_key, private_pem
from django_baikal.keys.settings import SettingsKeyStore
from django_baikal.protocol import jws
from django_baikal.protocol.jwk import (
    ALGORITHMS,
    b64url_decode,
    b64url_encode,
    b64url_uint,
    public_jwk,
    thumbprint,
    verification_key,
)

P256 = 2**256 - 2**224 + 2**192 + 2**96 - 1  # the field's prime
CRT = ("p", "q", "dp", "dq", "qi")
CLAIMS = {"iss": "https://me.example.com/", "sub": "alice", "exp": 2_000_000_000}
FAMILIES = ["RSA", "EC"]
LATER = datetime(2120, 1, 1, tzinfo=UTC)


def key_of(family: str, number: int = 0) -> Any:
    return {"RSA": rsa_key, "EC": ec_key}[family](number)


def refusal(data: str | bytes, **how: Any) -> KeyLoadError:
    with pytest.raises(KeyLoadError) as caught:
        load_key(data, **how)
    return caught.value


@pytest.fixture
def parses(monkeypatch) -> list[str]:
    """Count how often the library parses a private key, by any of its ways."""
    seen: list[str] = []

    def counted(module: Any, name: str) -> None:
        original = getattr(module, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            seen.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, call)

    counted(serialization, "load_der_private_key")
    counted(rsa, "RSAPrivateNumbers")
    counted(ec, "derive_private_key")
    return seen


# -- the loader: what it reads ---------------------------------------------------------------------


def damaged_bits(text: str) -> str:
    return text.replace("-----END", "!!!!-----END")


def in_pem(data: bytes, label: str = "PRIVATE KEY") -> str:
    body = base64.encodebytes(data).decode()
    return f"-----BEGIN {label}-----\n{body}-----END {label}-----\n"


def ssh(*parts: bytes) -> bytes:
    """Give strings as OpenSSH writes them."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


WAYS: dict[str, Callable[[Any], str | bytes]] = {
    "PKCS8": pem,
    "PKCS1 or SEC1": lambda key: pem(key, "traditional"),
    "JWK": jwk_text,
    "bytes": lambda key: pem(key).encode(),
    "BOM": lambda key: "\ufeff" + pem(key),
    "CRLF": lambda key: pem(key).replace("\n", "\r\n"),
    "escaped line ends": lambda key: pem(key).replace("\n", "\\n"),
    "escaped CRLF": lambda key: pem(key).replace("\n", "\\r\\n"),
    "indented": lambda key: textwrap.indent(pem(key), "    "),
    "bag attributes": lambda key: "Bag Attributes\n    friendlyName: x\n" + pem(key),
    "public half first": lambda key: public_pem(key) + pem(key),
    "public half last": lambda key: pem(key) + public_pem(key),
    "spaced JWK": lambda key: "\n " + json.dumps(jwk(key), indent=2) + "\n",
    "JWK for signatures": lambda key: jwk_text(key, use="sig", key_ops=["sign"], x5t="ignored"),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("write", WAYS.values(), ids=WAYS)
def test_each_way_to_write_a_key_gives_the_same_key(family, write):
    key = key_of(family)
    loaded = load_key(write(key))
    assert loaded.public_jwk == public(
        key, kid=loaded.thumbprint, use="sig", alg={"RSA": "RS256", "EC": "ES256"}[family]
    )
    assert loaded.private_key.private_numbers() == key.private_numbers()
    assert loaded.kid == loaded.thumbprint == thumbprint(public(key))


def test_a_certificate_of_the_chain_may_be_of_a_kind_that_is_not_used_here():
    later = datetime(2120, 1, 1, tzinfo=UTC)
    chain = certificate(ec_key(), later) + certificate(rsa_key(bits=1024), later)
    loaded = load_key(pem(ec_key()) + chain)
    assert loaded.thumbprint == thumbprint(public(ec_key()))
    assert loaded.not_after == later
    assert load_key(chain).private_key is None


def test_der_may_come_as_base64_text_in_lines():
    text = base64.encodebytes(der(ec_key())).decode()
    assert "\n" in text.strip()
    assert load_key(text).thumbprint == load_key(text, format="pkcs8").thumbprint
    assert load_key(text).thumbprint == thumbprint(public(ec_key()))


@pytest.mark.parametrize(
    ("n", "e"), [(2**8192 - 1, 65537), (2**2047 + 1, 65537), (2**2048 - 1, 2**64 - 1)]
)
def test_an_rsa_key_at_the_bounds_is_read(n, e):
    for data in (
        json.dumps({"kty": "RSA", "n": b64url_uint(n), "e": b64url_uint(e)}),
        tlv(0x30, integers(n, e)),
    ):
        assert load_key(data).public_jwk["n"] == b64url_uint(n)


def test_a_certificates_end_is_the_keys():
    cert = certificate(ec_key(), LATER)
    assert load_key(cert).not_after == LATER
    assert load_key(pem(ec_key())).not_after is None
    older = certificate(ec_key(), datetime(2030, 1, 1, tzinfo=UTC))
    others = certificate(rsa_key(), datetime(2200, 1, 1, tzinfo=UTC), subject="root")
    for text in (pem(ec_key()) + older + cert + others, older + pem(ec_key()) + cert, cert + older):
        assert load_key(text).not_after == LATER


def test_a_public_jwk_for_verifying_is_read():
    assert load_key(json.dumps(public(ec_key(), key_ops=["verify"]))).private_key is None


def test_a_jwk_with_a_member_that_is_named_keys_is_a_jwk():
    assert load_key(jwk_text(ec_key(), keys=[])).private_key is not None


def test_an_ec_key_may_have_its_parameters_first():
    preamble = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    assert load_key(preamble + pem(ec_key(), "traditional")).alg == "ES256"


def test_an_rsa_jwk_needs_no_more_than_its_private_exponent():
    bare = load_key(jwk_text(rsa_key(), **dict.fromkeys(CRT)))
    assert bare.private_key.private_numbers().d == numbers(rsa_key())["d"]
    jws.verify(bare.sign(CLAIMS), [bare.public_jwk], algorithms=["RS256"])


@pytest.mark.parametrize("form", ["PKCS8", "traditional"])
@pytest.mark.parametrize("passphrase", ["pässword", "pässword".encode()])
def test_an_encrypted_key_is_opened_by_its_passphrase(form, passphrase):
    data = pem(rsa_key(), form, "pässword")
    assert load_key(data, password=passphrase).thumbprint == thumbprint(public(rsa_key()))


def test_a_passphrase_for_a_key_that_needs_none_does_no_harm():
    assert load_key(pem(ec_key()), password="x").alg == "ES256"


def test_kid_and_alg_are_the_callers_or_the_jwks_or_follow_from_the_key():
    named = jwk_text(rsa_key(), kid="its.own", alg="PS256")
    assert (load_key(named).kid, load_key(named).alg) == ("its.own", "PS256")
    given = load_key(named, kid="mine", alg="RS512")
    assert (given.kid, given.alg) == ("mine", "RS512")
    assert given.public_jwk["kid"] == "mine"
    assert given.public_jwk["alg"] == "RS512"


@pytest.mark.parametrize("alg", [name for name, needs in ALGORITHMS.items() if needs.kty == "RSA"])
def test_an_rsa_key_signs_with_each_algorithm_of_its_kind(alg):
    key = load_key(pem(rsa_key()), alg=alg)
    verified = jws.verify(key.sign(CLAIMS), [key.public_jwk], algorithms=[alg])
    assert verified.header == {"alg": alg, "typ": "JWT", "kid": key.kid}
    assert verified.claims == CLAIMS


# -- the loader: what it refuses -------------------------------------------------------------------

ED25519 = [ed25519.Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2)]
UNHEARD_OF = (
    der(ed25519.Ed25519PrivateKey.generate()).replace(b"\x06\x03+e", b"\x06\x03+f"),
    der(ec_key(curve=ec.SECP256K1)).replace(b"\x81\x04\0\n", b"\x81\x04\0\t"),
)


def told_of(data: bytes) -> tuple[type[KeyLoadError], str]:
    """Give what comes of a kind that the library does not know: older ones call it damaged."""
    with pytest.raises((UnsupportedAlgorithm, ValueError)) as caught:
        serialization.load_der_private_key(data, None)
    told = caught.type is UnsupportedAlgorithm
    return (UnsupportedKey, "of a kind not known here") if told else (InconsistentKey, "damaged")


UNLOADABLE: dict[str, tuple[Callable[[], str | bytes], type[KeyLoadError], str]] = {
    "nothing": (lambda: "", UnknownFormat, "no key in a known format"),
    "text": (lambda: "hello", UnknownFormat, "no key in a known format"),
    "UTF-16": (lambda: pem(rsa_key()).encode("utf-16"), UnknownFormat, "no key in a known format"),
    "parameters": (
        lambda: "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----",
        UnsupportedKey,
        "it holds: parameters",
    ),
    "cut": (lambda: pem(rsa_key())[:-100], InconsistentKey, "damaged"),
    "not base64": (lambda: damaged_bits(pem(rsa_key())), InconsistentKey, "damaged"),
    "RSA-1024": (lambda: pem(rsa_key(bits=1024)), WeakKey, "1024 bits; at least 2048"),
    "RSA-2047": (lambda: pem(rsa_key(bits=2047)), WeakKey, "2047 bits"),
    "RSA, e=3": (lambda: pem(rsa_key(exponent=3)), WeakKey, "exponent"),
    "secp256k1": (lambda: pem(ec_key(curve=ec.SECP256K1)), UnsupportedKey, "curve secp256k1"),
    "Ed448": (
        lambda: pem(ed448.Ed448PrivateKey.generate()),
        UnsupportedKey,
        "Ed448, which is not used",
    ),
    "X25519": (lambda: pem(x25519.X25519PrivateKey.generate()), UnsupportedKey, "key agreement"),
    "DSA": (lambda: pem(dsa.generate_private_key(1024)), UnsupportedKey, "is DSA"),
    "a kind never heard of": (lambda: in_pem(UNHEARD_OF[0]), *told_of(UNHEARD_OF[0])),
    "a curve never heard of": (lambda: in_pem(UNHEARD_OF[1]), *told_of(UNHEARD_OF[1])),
    "PKCS1 of primes that are far too large": (
        lambda: tlv(
            0x30,
            integers(0, *(numbers(rsa_key())[m] for m in "ned"), 2**300_000 + 1, 3)
            + integers(5, 5, 5),
        ),
        InconsistentKey,
        "product of its primes",
    ),
    "PKCS1 that is far too large": (
        lambda: tlv(
            0x30,
            integers(0, 3**6400, 65537, 5, 3**3200, 3**3200, 5, 5, 5),
        ),
        UnsupportedKey,
        "at most 8192",
    ),
    "PEM with the label of something else": (
        lambda: pem(ec_key()).replace("PRIVATE KEY", "PUBLIC KEY"),
        InconsistentKey,
        "what it holds is no PUBLIC KEY",
    ),
    "PKCS8 of too few numbers": (
        lambda: tlv(
            0x30,
            integers(0),
            tlv(0x30, tlv(6, bytes.fromhex("2a864886f70d010101")), b"\5\0"),
            tlv(4, tlv(0x30, integers(0, 5))),
        ),
        InconsistentKey,
        "damaged",
    ),
    "a damaged OpenSSH file": (
        lambda: pem(ec_key(), "OpenSSH").replace("b3BlbnNzaC1rZXktdjE", "b3BlbnNzaC1rZXktdjI"),
        InconsistentKey,
        "damaged",
    ),
    "an encrypted OpenSSH file": (
        lambda: in_pem(
            b"openssh-key-v1\0"
            + ssh(b"aes256-ctr", b"bcrypt", ssh(b"salt" * 4) + b"\0\0\0\x10")
            + b"\0\0\0\1"
            + ssh(ssh(b"ssh-ed25519", b"x" * 32), b"y" * 64),
            "OPENSSH PRIVATE KEY",
        ),
        UnsupportedKey,
        "ssh-keygen -p -m PKCS8",
    ),
    "an even modulus": (
        lambda: jwk_text(rsa_key(), n=b64url_uint(numbers(rsa_key())["n"] * 2)),
        WeakKey,
        "modulus is even",
    ),
    "a public key with an even modulus": (
        lambda: tlv(0x30, integers(numbers(rsa_key())["n"] * 2, 65537)),
        WeakKey,
        "modulus is even",
    ),
    "keys that are no list": (lambda: '{"keys": {}}', UnknownFormat, "no list of JWKs"),
    "keys that are no JWKs": (lambda: '{"keys": [{}, "x"]}', UnknownFormat, "no list of JWKs"),
    "another one's x on Ed25519": (
        lambda: json.dumps(jwk(ED25519[0], x=jwk(ED25519[1])["x"])),
        InconsistentKey,
        "x does not belong",
    ),
    "a short x on Ed25519": (
        lambda: json.dumps(public(ED25519[0], x="AAAA")),
        InconsistentKey,
        "32 bytes",
    ),
    "a long d on Ed25519": (
        lambda: json.dumps(jwk(ED25519[0], d="A" * 86)),
        InconsistentKey,
        "32 bytes",
    ),
    "a long x on P-256": (
        lambda: json.dumps(public(ec_key(), x=b64url_uint(numbers(ec_key())["x"], 33))),
        InconsistentKey,
        "32 bytes",
    ),
    "a long d on P-256": (
        lambda: jwk_text(ec_key(), d=b64url_uint(numbers(ec_key())["d"], 33)),
        InconsistentKey,
        "32 bytes",
    ),
    "a large OpenSSH file": (
        lambda: pem(ec_key(), "OpenSSH").replace("-----END", "A" * 7000 + "\n-----END"),
        UnsupportedKey,
        "larger than any",
    ),
    "a large encrypted PEM": (
        lambda: pem(rsa_key(), "traditional", "x").replace("-----END", "A" * 7000 + "\n-----END"),
        UnsupportedKey,
        "larger than any",
    ),
    "a large encrypted PKCS8": (
        lambda: tlv(0x30, tlv(0x30, tlv(6, b"*")), tlv(4, b"x" * MAX_SIZE)),
        UnsupportedKey,
        "larger than any",
    ),
    "a certificate of the year 0": (
        lambda: certificate(ec_key(), LATER, serialization.Encoding.DER).replace(b"2120", b"0000"),
        InconsistentKey,
        "damaged",
    ),
    "no JSON": (lambda: jwk_text(rsa_key())[:-1], UnknownFormat, "not JSON"),
    "JWK twice": (
        lambda: jwk_text(rsa_key())[:-1] + ', "d": "AQAB"}',
        UnknownFormat,
        "stands twice",
    ),
    "JWK in latin-1": (
        lambda: jwk_text(rsa_key(), kid="x").replace('"x"', '"ñ"').encode("latin-1"),
        UnknownFormat,
        "not UTF-8",
    ),
    "a number of 5000 digits": (lambda: '{"kty": ' + "9" * 5000 + "}", UnknownFormat, "read"),
    "too deep": (lambda: '{"kty": ' + "[" * 100_000, UnknownFormat, "nested too deeply"),
    "oct": (lambda: '{"kty": "oct", "k": "AAAA"}', UnsupportedKey, "shared secret"),
    "no kty": (lambda: jwk_text(rsa_key(), kty=None), UnsupportedKey, "kty"),
    "use enc": (lambda: jwk_text(rsa_key(), use="enc"), UnsupportedKey, "signatures"),
    "use list": (lambda: jwk_text(rsa_key(), use=["sig"]), UnsupportedKey, "signatures"),
    "alg RSA-OAEP": (lambda: jwk_text(rsa_key(), alg="RSA-OAEP"), UnsupportedKey, "'RSA-OAEP'"),
    "alg Ed25519": (lambda: jwk_text(rsa_key(), alg="Ed25519"), UnsupportedKey, "'Ed25519'"),
    "alg HS256": (lambda: jwk_text(rsa_key(), alg="HS256"), UnsupportedKey, "'HS256'"),
    "alg of EC": (lambda: jwk_text(rsa_key(), alg="ES256"), UnsupportedKey, "'ES256'"),
    "alg of RSA": (lambda: jwk_text(ec_key(), alg="RS256"), UnsupportedKey, "use ES256"),
    "alg of P-384": (lambda: jwk_text(ec_key(), alg="ES384"), UnsupportedKey, "use ES256"),
    "alg list": (lambda: jwk_text(rsa_key(), alg=["RS256"]), InconsistentKey, "strings"),
    "kid number": (lambda: jwk_text(rsa_key(), kid=5), InconsistentKey, "strings"),
    "kid with space": (lambda: jwk_text(rsa_key(), kid="a b"), UnsupportedKey, "kid"),
    "kid with line end": (lambda: jwk_text(rsa_key(), kid="a\n"), UnsupportedKey, "kid"),
    "kid too long": (lambda: jwk_text(rsa_key(), kid="a" * 256), UnsupportedKey, "kid"),
    "e=3 JWK": (lambda: jwk_text(rsa_key(exponent=3)), WeakKey, "exponent"),
    "even e": (lambda: jwk_text(rsa_key(), e="AQAC"), WeakKey, "exponent"),
    "huge e": (lambda: jwk_text(rsa_key(), e=b64url_uint(2**64 + 1)), WeakKey, "exponent"),
    "RSA-1024 JWK": (lambda: jwk_text(rsa_key(bits=1024)), WeakKey, "1024 bits"),
    "RSA-8193 JWK": (
        lambda: jwk_text(rsa_key(), n=b64url_uint(2**8192 + 1)),
        UnsupportedKey,
        "8193",
    ),
    "bare, d as large as n": (
        lambda: jwk_text(rsa_key(), **dict.fromkeys(CRT), d=jwk(rsa_key())["n"]),
        InconsistentKey,
        "d is larger",
    ),
    "oth": (lambda: jwk_text(rsa_key(), oth=[]), UnsupportedKey, "oth"),
    "other curve": (lambda: jwk_text(ec_key(), crv="P-384"), InconsistentKey, "48 bytes"),
    "unknown curve": (lambda: jwk_text(ec_key(), crv="secp256k1"), UnsupportedKey, "curve"),
    "x and y swapped": (
        lambda: jwk_text(ec_key(), x=jwk(ec_key())["y"], y=jwk(ec_key())["x"]),
        InconsistentKey,
        "x and y",
    ),
    "another one's x and y": (
        lambda: jwk_text(ec_key(), d=jwk(ec_key(1))["d"]),
        InconsistentKey,
        "x and y",
    ),
    "mirrored y": (
        lambda: jwk_text(ec_key(), y=b64url_uint(P256 - numbers(ec_key())["y"], 32)),
        InconsistentKey,
        "x and y",
    ),
    "d of nothing": (lambda: jwk_text(ec_key(), d="A" * 43), InconsistentKey, "damaged"),
    "d too short": (lambda: jwk_text(ec_key(), d="AA"), InconsistentKey, "32 bytes"),
    "d off the curve": (lambda: jwk_text(ec_key(), d="_" * 43), InconsistentKey, "damaged"),
    "no x": (lambda: jwk_text(ec_key(), x=None), InconsistentKey, "damaged"),
    "no n": (lambda: jwk_text(rsa_key(), n=None), InconsistentKey, "damaged"),
    "padded": (lambda: jwk_text(rsa_key(), e="AQAB===="), InconsistentKey, "damaged"),
    "base64": (
        lambda: jwk_text(rsa_key(), n="+/" + jwk(rsa_key())["n"]),
        InconsistentKey,
        "damaged",
    ),
    "another one's d": (
        lambda: jwk_text(rsa_key(), d=jwk(rsa_key(1))["d"]),
        InconsistentKey,
        "belong together",
    ),
    "bare, another one's d": (
        lambda: jwk_text(rsa_key(), **dict.fromkeys(CRT), d=jwk(rsa_key(1))["d"]),
        InconsistentKey,
        "belong together",
    ),
    **{
        f"without {name}": (
            lambda name=name: jwk_text(rsa_key(), **{name: None}),
            UnsupportedKey,
            "all of p, q, dp, dq and qi",
        )
        for name in CRT
    },
    **{
        f"wrong {name}": (
            lambda name=name: jwk_text(
                rsa_key(), **{name: b64url_uint(numbers(rsa_key())[name] + 2)}
            ),
            InconsistentKey,
            "belong together",
        )
        for name in (*CRT, "d", "n")
    },
    **{
        f"{name} is {value!r}": (
            lambda name=name, value=value: jwk_text(rsa_key(), **{name: value}),
            InconsistentKey,
            "not a string",
        )
        for name in ("d", "n", "e", "qi", "kty")
        for value in (5, ["x"], {}, True)
    },
    **{
        f"{name} of EC is a number": (
            lambda name=name: jwk_text(ec_key(), **{name: 5}),
            InconsistentKey,
            "not a string",
        )
        for name in ("crv", "x", "y", "d")
    },
    **{
        f"key_ops {operations!r}": (
            lambda operations=operations, write=write: json.dumps(
                write(ec_key(), key_ops=operations)
            ),
            UnsupportedKey,
            "not meant to sign" if write is jwk else "not meant to verify",
        )
        for write, operations in (
            (jwk, "sign"),
            (jwk, ["verify"]),
            (jwk, []),
            (public, ["sign"]),
            (public, "verify"),
            (public, ["encrypt"]),
        )
    },
}


@pytest.mark.parametrize(("data", "kind", "said"), UNLOADABLE.values(), ids=UNLOADABLE)
def test_what_cannot_be_used_is_refused_with_the_reason_and_without_its_bytes(data, kind, said):
    error = refusal(data())
    assert type(error) is kind
    assert said in str(error)
    assert_tells_nothing(told_by(error), rsa_key(), rsa_key(1), ec_key(), ec_key(1))
    assert_tells_nothing(repr(vars(error)), rsa_key(), rsa_key(1), ec_key(), ec_key(1))


def encrypted(scheme: str, parameters: bytes) -> bytes:
    """Give what a PKCS8 key looks like that is encrypted by this scheme, with nothing in it."""
    algorithm = tlv(0x30, tlv(6, bytes.fromhex(scheme)), parameters)
    return tlv(0x30, algorithm, tlv(4, b"x" * 64))


def pbes2(derivation: str, *numbers: int, cipher: str = "60864801650304012a") -> bytes:
    derived = tlv(0x30, tlv(4, b"salt" * 4), integers(*numbers))
    ways = ((derivation, derived), (cipher, tlv(4, b"0" * (8 if cipher.endswith("0307") else 16))))
    made = (tlv(0x30, tlv(6, bytes.fromhex(way)), parameters) for way, parameters in ways)
    return encrypted("2a864886f70d01050d", tlv(0x30, *made))


def pbes1(scheme: str, iterations: int) -> bytes:
    return encrypted(scheme, tlv(0x30, tlv(4, b"saltsalt"), integers(iterations)))


def test_an_encrypted_key_that_is_damaged_is_not_blamed_on_the_passphrase():
    error = refusal(tlv(0x30, tlv(0x30, tlv(6, b"*")), tlv(4, b"x")), password="wr0ng-phrase")
    assert type(error) is InconsistentKey


def test_a_key_that_is_encrypted_in_a_way_never_heard_of_is_refused():
    error = refusal(pbes2("2a864886f70d01057f", 1), password="wr0ng-phrase")
    assert type(error) in (UnsupportedKey, WrongPassphrase)


PBKDF2, SCRYPT = "2a864886f70d01050c", "2b06010401da47040b"


@pytest.mark.parametrize(
    ("data", "cost"),
    [
        (pbes2(PBKDF2, 2**31 - 1), 2**31 - 1),
        (pbes2(PBKDF2, 2**40), 2**40),
        (pbes2(PBKDF2, 2**31 - 1, 32), 2**31 - 1),
        (pbes2(PBKDF2, 2**40, cipher="2a864886f70d0307"), 2**40),
        (pbes2(SCRYPT, 2**14, 8, 1000), 2**17 * 1000),
        (pbes2(SCRYPT, 2**30, 8, 1, 32), 2**33),
        (pbes1("2a864886f70d010503", 2**31 - 1), 2**31 - 1),
        (pbes1("2a864886f70d010c0103", 2**63), 2**63),
    ],
)
def test_a_key_that_would_take_hours_to_open_is_refused_at_once(data, cost):
    error = refusal(data, password="wr0ng-phrase")
    assert type(error) is UnsupportedKey
    assert "more than 10000000 iterations" in str(error)
    assert type(refusal(data)) is PassphraseRequired
    assert cost_of(data) == cost


def test_a_key_that_takes_as_long_to_open_as_is_allowed_is_opened(monkeypatch):
    data = base64.b64decode("".join(pem(ec_key(), password="x").splitlines()[1:-1]))
    monkeypatch.setattr(containers, "MAX_COST", cost_of(data))
    assert load_key(data, password="x").alg == "ES256"
    monkeypatch.setattr(containers, "MAX_COST", cost_of(data) - 1)
    assert type(refusal(data, password="x", kid="not-seen-before")) is UnsupportedKey


def test_the_largest_key_that_is_used_is_no_larger_than_what_is_read():
    n, p = 2**8192 - 1, 2**4096 - 1
    assert len(integers(0, n, 65537, n, p, p, p, p, p)) + 200 < MAX_SIZE < 5500


@pytest.mark.parametrize("form", ["PKCS8", "traditional"])
@pytest.mark.parametrize("password", [None, "", b""])
def test_an_encrypted_key_without_a_passphrase_says_so(form, password):
    error = refusal(pem(rsa_key(), form, "secret"), password=password)
    assert type(error) is PassphraseRequired


@pytest.mark.parametrize("form", ["PKCS8", "traditional"])
@pytest.mark.parametrize("password", ["wr0ng-phrase", b"wr0ng-phrase", "wr0ng-phrase\udce9"])
def test_a_wrong_passphrase_is_not_quoted(form, password):
    error = refusal(pem(rsa_key(), form, "secret"), password=password)
    assert type(error) is WrongPassphrase
    assert "wr0ng" not in told_by(error)


def test_a_pem_that_holds_something_else_is_named_shortly():
    labels = "".join(f"-----BEGIN X{n}-----\n-----END X{n}-----\n" for n in range(1000))
    error = refusal(labels)
    assert "it holds: X0, X1, X10, X100" in str(error)
    assert len(str(error)) < 150


LOW_ORDER = [
    *(0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18),
    2**255 - 19 - 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
]


@pytest.mark.parametrize("y", LOW_ORDER)
@pytest.mark.parametrize("sign", [0, 1])
def test_an_ed25519_key_that_anybody_can_sign_for_is_refused(y, sign):
    raw = (y + (sign << 255)).to_bytes(32, "little")
    anybodys = (1).to_bytes(32, "little") + bytes(32)
    key = ed25519.Ed25519PublicKey.from_public_bytes(raw)
    forged = 0
    for number in range(200):
        with contextlib.suppress(InvalidSignatureError):
            key.verify(anybodys, b"%d" % number)
            forged += 1
    assert forged or y >= 2**255 - 19  # those that are spelled oddly verify nothing in openssl
    error = refusal(json.dumps({"kty": "OKP", "crv": "Ed25519", "x": b64url_encode(raw)}))
    assert type(error) is WeakKey


def test_an_ed25519_key_next_to_one_of_low_order_is_read():
    text = json.dumps({"kty": "OKP", "crv": "Ed25519", "x": b64url_encode(bytes([3] + [0] * 31))})
    assert load_key(text).alg == "EdDSA"


def test_an_ec_key_as_certificates_of_version_1_and_3_have_it_is_found():
    data = certificate(ec_key(), LATER, serialization.Encoding.DER)
    version = bytes.fromhex("a003020102")
    body, signature = data[4:].split(version, 1)
    inner = signature[: int.from_bytes(body[2:4], "big") - len(version)]
    old = tlv(0x30, tlv(0x30, inner), signature[len(inner) :])
    for written in (data, old):
        assert load_key(written, format="x509").thumbprint == thumbprint(public(ec_key()))


def test_of_a_chain_the_key_of_an_issuer_is_never_taken():
    root = certificate(rsa_key(), LATER, subject="root")
    middle = certificate(ec_key(1), LATER, subject="ca", issuer="root", issuing=rsa_key())
    mine = certificate(ec_key(), LATER, issuer="ca", issuing=ec_key(1))
    for chain in (mine, mine + middle, mine + middle + root, mine + root + middle):
        assert load_key(chain).thumbprint == thumbprint(public(ec_key()))
        assert load_key(pem(ec_key()) + chain).private_key is not None
        assert load_key(chain + public_pem(ec_key())).thumbprint == thumbprint(public(ec_key()))
    for chain in (root + middle + mine, middle + mine + root, middle + mine, root + middle):
        error = refusal(chain)
        assert type(error) is UnsupportedKey
        assert "a CA's key" in str(error)
    for chain in (root + mine + middle + pem(ec_key()), middle + root + mine + pem(ec_key())):
        assert load_key(chain).private_key is not None


def test_a_certificate_may_have_the_label_of_old():
    text = certificate(ec_key(), LATER).replace(" CERTIFICATE-", " X509 CERTIFICATE-")
    assert load_key(text).not_after == LATER


def test_of_certificates_that_nobody_else_has_issued_the_first_is_taken():
    old, new = certificate(rsa_key(), LATER), certificate(ec_key(), LATER)
    assert load_key(old + new).alg == "RS256"
    assert load_key(new + old).alg == "ES256"
    assert load_key(new + new).alg == "ES256"


REPORTED: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "a key that is cut": (lambda: pem(rsa_key())[:-100], {}),
    "a JWK": (lambda: jwk_text(rsa_key()), {"alg": "ES256"}),
    "a JWK Set": (lambda: json.dumps({"keys": [jwk(rsa_key()), jwk(ec_key())]}), {}),
    "a passphrase": (lambda: pem(rsa_key(), password="secret"), {"password": "wr0ng-phrase"}),
    "the kid": (lambda: pem(rsa_key()), {"kid": jwk(rsa_key())["d"]}),
}


@pytest.mark.parametrize(("data", "how"), REPORTED.values(), ids=REPORTED)
def test_an_error_report_has_no_key_among_our_variables(data, how):
    """Whatever makes it: Django's page for DEBUG, or a service that collects errors."""
    with pytest.raises(KeyLoadError) as caught:
        load_key(data(), **how)
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    assert len(frames) > 1
    shown = "".join(repr(frame.f_locals) for frame in frames[1:])
    assert_tells_nothing(shown, rsa_key(), ec_key())
    assert "wr0ng" not in shown


def test_a_report_of_an_error_that_nobody_foresaw_has_no_key_either():
    with pytest.raises(TypeError) as caught:
        load_key([pem(rsa_key())], password="wr0ng-phrase")
    request = RequestFactory().get("/")
    reporter = ExceptionReporter(request, caught.type, caught.value, caught.tb)
    frames = reporter.get_traceback_data()["frames"]
    assert len(frames) > 2
    shown = repr([frame["vars"] for frame in frames[1:]])
    assert_tells_nothing(shown, rsa_key())
    assert "wr0ng" not in shown


def test_an_error_says_how_the_data_was_read():
    several = json.dumps({"keys": [jwk(ec_key(0)), jwk(ec_key(1))]})
    assert str(refusal(several)) == "Read as json: The JWK Set has 2 keys: say by kid which one."
    assert str(refusal(several, kid="x")) == "Read as json: The JWK Set has no key of that kid."
    cut = refusal(pem(rsa_key())[:-100])
    assert str(cut) == "Read as pem: The PEM is damaged: a block has no end."
    assert (cut.format, cut.path) == ("pem", None)
    weak = refusal(der(rsa_key(bits=1024)), format="pkcs8")
    assert str(weak).startswith("Read as pkcs8: The RSA key has 1024 bits")
    unknown = refusal("x", format="p12")
    assert unknown.format is None


def test_a_declared_format_must_be_the_right_one():
    assert load_key(pem(ec_key()), format="pem").alg == "ES256"
    assert load_key(jwk_text(ec_key()), format="json").alg == "ES256"
    assert "looks like 'json'" in str(refusal(jwk_text(ec_key()), format="pem"))
    assert "looks like 'pem'" in str(refusal(pem(ec_key()), format="json"))
    said = str(refusal("x", format="p12"))
    assert said.startswith("Unknown key format 'p12'; known are pem, json, private, pkcs8, public,")


@pytest.mark.parametrize("place", ["format", "alg", "kid"])
@pytest.mark.parametrize("write", [pem, jwk_text])
def test_a_key_given_in_the_place_of_something_else_is_not_quoted(place, write):
    error = refusal(pem(rsa_key()), **{place: write(rsa_key())})
    assert_tells_nothing(told_by(error) + repr(vars(error)), rsa_key())


def test_a_key_that_is_given_as_its_own_alg_is_not_quoted():
    error = refusal(jwk_text(rsa_key(), alg=jwk(rsa_key())["d"]))
    assert_tells_nothing(told_by(error), rsa_key())


@pytest.mark.parametrize("data", [pem(ec_key()), jwk_text(ec_key())])
def test_a_key_that_was_cut_anywhere_is_a_key_load_error(data):
    for end in range(len(data.strip())):
        error = refusal(data[:end])
        assert_tells_nothing(told_by(error), ec_key())


@given(st.binary(max_size=300), st.sampled_from([b"", b"{", b"-----BEGIN PRIVATE KEY-----\n"]))
def test_any_bytes_are_refused_as_a_key_load_error(data, start):
    with pytest.raises(KeyLoadError):
        load_key(start + data)


@given(
    st.sampled_from([*CRT, "n", "e", "d", "kty", "use", "kid", "alg", "oth"]),
    st.none()
    | st.integers()
    | st.floats()
    | st.text()
    | st.lists(st.text())
    | st.dictionaries(st.text(), st.text()),
)
def test_a_jwk_with_any_member_replaced_is_loaded_or_refused_and_never_quoted(name, value):
    text = json.dumps({**jwk(rsa_key()), name: value})
    try:
        load_key(text)
    except KeyLoadError as error:
        assert_tells_nothing(told_by(error), rsa_key())


# -- the loader: once per process ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "parser"),
    [
        (lambda: pem(rsa.generate_private_key(65537, 2048)), "load_der_private_key"),
        (lambda: jwk_text(rsa.generate_private_key(65537, 2048)), "RSAPrivateNumbers"),
        (lambda: jwk_text(ec.generate_private_key(ec.SECP256R1())), "derive_private_key"),
    ],
)
def test_fifty_threads_that_want_a_new_key_parse_it_once(write, parser, parses):
    data = write()
    parses.clear()
    gate = threading.Barrier(50)

    def load() -> KeyMaterial:
        gate.wait()
        return load_key(data)

    with ThreadPoolExecutor(50) as pool:
        loaded = [job.result() for job in [pool.submit(load) for _ in range(50)]]
    assert parses == [parser]
    assert len({id(key) for key in loaded}) == 1


def test_a_key_of_several_sources_and_stores_is_parsed_once(tmp_path, parses):
    data = pem(ec.generate_private_key(ec.SECP256R1()))
    for name in ("a.pem", "b.pem"):
        (tmp_path / name).write_text(data)
    for _ in range(3):
        stores = [SettingsKeyStore([{"key": data}]), DirectoryKeyStore(str(tmp_path))]
        ring = Keyring(stores)
        ring.signing_key().sign(CLAIMS)
        assert len(ring.jwk_set()["keys"]) == 1
    assert parses == ["load_der_private_key"]


def test_what_was_said_about_a_key_is_part_of_its_identity():
    data = pem(rsa_key())
    assert load_key(data, kid="a").kid == "a"
    assert load_key(data, kid="b").kid == "b"
    assert load_key(data, alg="PS256").alg == "PS256"
    assert load_key(data).alg == "RS256"


def test_a_passphrase_that_opened_a_key_does_not_open_it_for_another():
    data = pem(rsa_key(), password="right")
    load_key(data, password="right")
    assert type(refusal(data, password="wrong")) is WrongPassphrase
    assert type(refusal(data)) is PassphraseRequired


def test_keys_without_end_do_not_fill_the_memory(parses):
    data = pem(ec_key())
    first = load_key(data, kid="first")
    for number in range(300):
        load_key(data, kid=f"k{number}")
    parses.clear()
    assert load_key(data, kid="first") is not first
    assert load_key(data, kid="k299").kid == "k299"
    assert parses == ["load_der_private_key"]


def test_what_is_no_key_takes_no_room_from_those_that_are():
    data = pem(ec_key())
    first = load_key(data, kid="stays")
    for number in range(300):
        refusal(f"nonsense {number}")
    assert load_key(data, kid="stays") is first


def test_a_child_of_a_fork_loads_keys_although_the_lock_was_held():
    script = """
        import os, signal, sys, threading, time
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from django_baikal.keys import load_key
        from django_baikal.keys.generate import generate_key, private_pem
        one, two = private_pem(generate_key("ES256")), private_pem(generate_key("ES256"))
        original, inside = serialization.load_der_private_key, threading.Event()
        def slow(*args):
            inside.set()
            time.sleep(240)
            return original(*args)
        serialization.load_der_private_key = slow
        threading.Thread(target=load_key, args=(one,), daemon=True).start()
        inside.wait()
        serialization.load_der_private_key = original
        pid = os.fork()
        if not pid:
            signal.alarm(60)
            os._exit(0 if load_key(two).alg == "ES256" else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    done = python(script)
    assert (done.stdout.strip(), done.stderr) == ("0", "")


def python(script: str) -> subprocess.CompletedProcess[str]:
    root = str(Path(django_baikal.__file__).resolve().parent.parent)
    environment = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    return subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(script)],
        env=environment | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# -- a key -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("show", [repr, str, lambda key: f"{key}", lambda key: f"{[key]!r}"])
def test_a_key_shows_no_private_half(family, show):
    key = load_key(pem(key_of(family)))
    assert key.kid in show(key)
    assert_tells_nothing(show(key), key_of(family))
    assert "private" not in show(key)


@pytest.mark.parametrize("again", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_key_is_neither_pickled_nor_copied(again):
    with pytest.raises(TypeError, match="must not leave this process"):
        again(load_key(pem(ec_key())))
    with pytest.raises(TypeError, match="must not leave this process"):
        again(
            {"nested": [load_key(pem(ec_key()))]}
            if again is not copy.copy
            else load_key(pem(ec_key()))
        )


def test_a_public_key_cannot_sign():
    key = KeyMaterial(kid="k", alg="ES256", public_jwk=public(ec_key()))
    with pytest.raises(NotPrivate, match="'k' is public"):
        key.sign(CLAIMS)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_published_are_listed_public_members_only(family):
    members = {"RSA": {"n", "e"}, "EC": {"crv", "x", "y"}}[family]
    key = load_key(jwk_text(key_of(family), x5c=["AAAA"], key_ops=["sign"], ext=True, iat=5))
    assert key.public_jwk.keys() == {"kty", "kid", "use", "alg"} | members
    assert public_jwk({**jwk(key_of(family)), "k": "x", "secret": "y"}).keys() == members | {"kty"}


def test_the_thumbprint_is_that_of_rfc_7638():
    n = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECP"
        "ebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY"
        "368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0f"
        "M4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    )
    example = {"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"}
    assert thumbprint(example) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_new_key_is_for_the_algorithm_asked_for(alg):
    key = generate_key(alg, kid="new")
    assert (key.kid, key.alg) == ("new", alg)
    again = load_key(private_pem(key), kid="new", alg=alg)
    assert again.public_jwk == key.public_jwk


def test_new_keys_differ():
    assert generate_key("ES256").kid != generate_key("ES256").kid
    assert generate_key().public_jwk["n"] != generate_key().public_jwk["n"]


@pytest.mark.parametrize(
    ("alg", "bits", "kind"),
    [
        ("RS256", 1024, WeakKey),
        ("PS256", 16, WeakKey),
        ("PS256", 1_000_000, UnsupportedKey),
        ("HS256", 2048, UnsupportedKey),
        ("none", 2048, UnsupportedKey),
    ],
)
def test_a_new_key_of_a_bad_kind_is_refused(alg, bits, kind):
    with pytest.raises(kind):
        generate_key(alg, bits=bits)


# -- CLIENT_KEYS -----------------------------------------------------------------------------------


def test_the_first_key_of_the_list_that_can_be_used_signs_and_all_are_published():
    store = SettingsKeyStore(
        [
            {"key": "nonsense"},
            {"key": pem(rsa_key()), "kid": "one", "alg": "PS256"},
            {"key": pem(ec_key(), password="secret"), "passphrase": "secret", "format": "pem"},
        ]
    )
    signing = store.signing_key()
    assert signing is not None
    assert (signing.kid, signing.alg) == ("one", "PS256")
    assert [key.alg for key in list(store.keys())] == ["PS256", "ES256"]
    assert [str(problem) for problem in store.problems()] == [
        (
            "CLIENT_KEYS[0]: The data is no key in a known format (pem, json, private, pkcs8, "
            "public, spki, pkix, x509)."
        )
    ]
    assert store.problems()[0].path == "CLIENT_KEYS[0]"


def test_a_list_without_a_key_that_can_be_used_has_no_signing_key():
    store = SettingsKeyStore([{"key": "nonsense"}])
    assert store.signing_key() is None
    assert list(store.keys()) == []


# -- PRIVATE_CERTS_PATH ----------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path) -> DirectoryKeyStore:
    return DirectoryKeyStore(str(tmp_path))


def place(directory: Path, name: str, data: str) -> Path:
    """Put a file in its place the way that is documented: written apart, then renamed."""
    apart = directory / f".{name}.new"
    apart.write_text(data)
    return apart.rename(directory / name)


def signer(store: DirectoryKeyStore) -> str | None:
    key = store.signing_key()
    return key and key.thumbprint


def test_the_last_file_by_name_signs_and_all_are_published(store, tmp_path):
    for name, number in (("2026-11.pem", 1), ("2026-02.pem", 0), ("2027-01.json", 2)):
        write = jwk_text if name.endswith("json") else pem
        place(tmp_path, name, write(ec_key(number)))
    expected = [thumbprint(public(ec_key(number))) for number in (2, 1, 0)]
    assert [key.thumbprint for key in list(store.keys())] == expected
    assert signer(store) == expected[0]
    assert list(store.problems()) == []


def test_the_choice_is_the_same_in_every_process_and_at_every_time(tmp_path):
    for number in range(5):
        place(tmp_path, f"{number}.pem", pem(ec_key(number)))
    assert {signer(DirectoryKeyStore(str(tmp_path))) for _ in range(20)} == {
        thumbprint(public(ec_key(4)))
    }


def test_a_directory_that_changes_is_read_again(store, tmp_path):
    first = place(tmp_path, "a.pem", pem(ec_key(0)))
    assert signer(store) == thumbprint(public(ec_key(0)))
    place(tmp_path, "b.pem", pem(ec_key(1)))
    assert signer(store) == thumbprint(public(ec_key(1)))
    place(tmp_path, "b.pem", pem(ec_key(2)))
    assert signer(store) == thumbprint(public(ec_key(2)))
    (tmp_path / "b.pem").unlink()
    assert signer(store) == thumbprint(public(ec_key(0)))
    first.unlink()
    assert signer(store) is None


def test_only_the_files_that_changed_are_read_again(store, tmp_path, parses):
    data = pem(ec.generate_private_key(ec.SECP256R1()))
    place(tmp_path, "a.pem", data)
    place(tmp_path, "bad.pem", in_pem(der(ec_key())[:-1] + b"x"))
    store.keys()
    assert len(parses) == 2
    place(tmp_path, "c.pem", pem(ec.generate_private_key(ec.SECP256R1())))
    for _ in range(5):
        store.keys()
        store.problems()
    assert len(parses) == 3


def test_a_file_written_over_is_read_again(store, tmp_path):
    path = place(tmp_path, "a.pem", pem(ec_key(0)))
    store.keys()
    path.write_text(pem(ec_key(1)))
    os.utime(path, ns=(5, 5))
    assert signer(store) == thumbprint(public(ec_key(1)))


def test_a_file_written_over_with_all_that_a_listing_shows_unchanged_is_read_again(store, tmp_path):
    path = place(tmp_path, "a.pem", pem(ec_key(0)))
    assert signer(store) == thumbprint(public(ec_key(0)))
    before = path.stat()
    time.sleep(0.05)  # the clock of the file system is a coarse one
    path.write_text(pem(ec_key(1)))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_ino) == (before.st_size, before.st_ino)
    assert signer(store) == thumbprint(public(ec_key(1)))


def test_a_mounted_secret_that_is_swapped_is_read_again(store, tmp_path):
    """Kubernetes: names are links through ``..data``, which is replaced as a whole."""
    for number in (0, 1):
        (tmp_path / f"..{number}").mkdir()
        (tmp_path / f"..{number}" / "key.pem").write_text(pem(ec_key(number)))
    (tmp_path / "..data").symlink_to("..0")
    (tmp_path / "key.pem").symlink_to("..data/key.pem")
    assert signer(store) == thumbprint(public(ec_key(0)))
    (tmp_path / "..tmp").symlink_to("..1")
    (tmp_path / "..tmp").rename(tmp_path / "..data")
    assert signer(store) == thumbprint(public(ec_key(1)))
    assert len(store.keys()) == 1


def test_what_is_no_key_file_is_passed_over(store, tmp_path):
    place(tmp_path, "a.pem", pem(ec_key()))
    (tmp_path / ".hidden").write_text("nonsense")
    (tmp_path / "directory.pem").mkdir()
    assert len(store.keys()) == 1
    assert list(store.problems()) == []
    (tmp_path / "dangling.pem").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.pem")
    assert len(store.keys()) == 1
    assert [problem.path for problem in store.problems()] == [
        str(tmp_path / "dangling.pem"),
        str(tmp_path / "pipe.pem"),
    ]
    assert all("no file, or a link that leads nowhere" in str(one) for one in store.problems())


def test_a_link_in_a_circle_is_no_key_and_leaves_the_others_alone(store, tmp_path):
    place(tmp_path, "a.pem", pem(ec_key()))
    (tmp_path / "circle.pem").symlink_to("circle.pem")
    (tmp_path / "through-a-file.pem").symlink_to("a.pem/b.pem")
    assert signer(store) == thumbprint(public(ec_key()))
    assert [Path(problem.path or "").stem for problem in store.problems()] == [
        "circle",
        "through-a-file",
    ]


def test_a_file_that_becomes_a_pipe_before_it_is_opened_does_not_block(
    store, tmp_path, monkeypatch
):
    path = place(tmp_path, "a.pem", pem(ec_key()))
    original = open

    def late(*args: Any, **kwargs: Any) -> Any:
        path.unlink()
        os.mkfifo(path)
        return original(*args, **kwargs)

    monkeypatch.setattr("builtins.open", late)
    thread = threading.Thread(target=store.keys, daemon=True)
    thread.start()
    thread.join(5)
    monkeypatch.undo()
    assert not thread.is_alive()


class Entry:
    """A file of a directory whose status cannot be had."""

    name = "a.pem"

    def __init__(self, error: OSError) -> None:
        self.error = error

    def stat(self) -> None:
        raise self.error

    def is_symlink(self) -> bool:
        return False


def test_a_file_that_vanishes_while_the_directory_is_read_was_never_there(store, monkeypatch):
    entry = Entry(FileNotFoundError(2, "No such file or directory"))
    monkeypatch.setattr(os, "scandir", lambda _: contextlib.nullcontext([entry]))
    assert list(store.keys()) == list(store.problems()) == []


def test_the_last_keys_stay_while_a_file_system_fails(store, tmp_path, monkeypatch):
    place(tmp_path, "a.pem", pem(ec_key()))
    store.keys()
    entry = Entry(OSError(5, "Input/output error"))
    monkeypatch.setattr(os, "scandir", lambda _: contextlib.nullcontext([entry]))
    assert signer(store) == thumbprint(public(ec_key()))
    with pytest.raises(StoreUnavailable, match="Input/output error"):
        DirectoryKeyStore(str(tmp_path)).keys()


def test_a_directory_that_is_gone_is_read_by_nobody(tmp_path):
    directory = tmp_path / "keys"
    directory.mkdir()
    place(directory, "a.pem", pem(ec_key())).chmod(0o644)
    directory.chmod(0o755)
    store = DirectoryKeyStore(str(directory))
    assert [caution.code for caution in store.cautions()] == ["readable"]
    directory.rename(tmp_path / "gone")
    assert list(store.cautions()) == []


def test_a_file_of_the_largest_size_is_read(store, tmp_path):
    for name, size in (("a.pem", MAX_FILE_SIZE), ("b.pem", MAX_FILE_SIZE + 1)):
        place(tmp_path, name, pem(ec_key()).ljust(size))
    assert MAX_FILE_SIZE == 65536
    assert [Path(problem.path or "").name for problem in store.problems()] == ["b.pem"]
    assert len(store.keys()) == 1


@pytest.mark.parametrize("what", ["mode", "time", "size", "file"])
def test_a_file_of_which_anything_changed_is_read_again(store, tmp_path, what, parses):
    path = place(tmp_path, "a.pem", pem(ec_key(), "OpenSSH") + pem(ec_key()))
    assert "several keys" in str(store.problems()[0])
    before = store._scan()
    if what == "mode":
        path.chmod(0o600 if path.stat().st_mode & 0o077 else 0o644)
    elif what == "time":
        os.utime(path, ns=(5, 5))
    elif what == "size":
        path.write_text(pem(ec_key()))
        os.utime(path, ns=(before[0].modified, before[0].modified))
    else:
        path.unlink()
        place(tmp_path, "a.pem", pem(ec_key()))
    assert store._scan() != before
    assert (signer(store) is None) == (what in ("mode", "time"))


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2Jb", "a\udcffb", "a\u202eb"])
def test_a_name_that_cannot_be_printed_is_quoted(tmp_path, name, caplog):
    directory = tmp_path / name
    directory.mkdir()
    (directory / name).write_text("nonsense")
    store = DirectoryKeyStore(str(directory))
    (problem,) = store.problems()
    directory.rename(tmp_path / "gone")
    with caplog.at_level(logging.ERROR, "django_baikal.keys"):
        store.keys()
    for text in (str(problem), problem.path or "", store.source, caplog.records[0].getMessage()):
        assert text.isprintable()
        assert ascii(name)[1:-1] in text


@pytest.mark.parametrize("path", ["a\0b", "\ud800"])
def test_what_is_no_path_at_all_is_a_store_that_cannot_be_read(path):
    with pytest.raises(StoreUnavailable, match="cannot be read: it is no path"):
        DirectoryKeyStore(path).keys()


def test_an_editors_copy_of_the_old_key_does_not_sign_though_its_name_is_the_last(store, tmp_path):
    place(tmp_path, "key.pem", pem(ec_key(1)))
    place(tmp_path, "key.pem~", pem(ec_key(0)))
    assert signer(store) == thumbprint(public(ec_key(1)))
    assert len(store.keys()) == 1
    (problem,) = store.problems()
    assert str(problem) == f"{tmp_path}/key.pem~: It is an editor's copy of the file before."


def test_each_file_that_is_not_used_is_named_with_its_reason(store, tmp_path):
    place(tmp_path, "good.pem", pem(ec_key()))
    place(tmp_path, "README.txt", "These are our keys.")
    place(tmp_path, "cut.pem", pem(rsa_key())[:-100])
    place(tmp_path, "large.pem", pem(ec_key()) + " " * MAX_FILE_SIZE)
    place(tmp_path, "locked.pem", pem(rsa_key(), password="x"))
    place(tmp_path, "weak.pem", pem(rsa_key(bits=1024)))
    problems = store.problems()
    assert [Path(problem.path or "").name for problem in problems] == [
        "README.txt",
        "cut.pem",
        "large.pem",
        "locked.pem",
        "weak.pem",
    ]
    for problem in problems:
        assert str(problem).startswith((f"{problem.path}: ", f"{problem.path} (read as pem): "))
        assert_tells_nothing(told_by(problem), rsa_key(), ec_key(), rsa_key(bits=1024))
    assert len(store.keys()) == 1


@pytest.fixture
def unreadable(monkeypatch) -> Iterator[set[str]]:
    """Names of files that cannot be opened: root, as whom tests may run, can read anything."""
    names: set[str] = set()
    original = open

    def guarded(path: Any, *args: Any, **kwargs: Any) -> Any:
        if Path(str(path)).name in names:
            raise PermissionError(13, "Permission denied", path)
        return original(path, *args, **kwargs)

    monkeypatch.setattr("builtins.open", guarded)
    yield names
    monkeypatch.undo()


def test_a_file_that_cannot_be_opened_is_tried_again_although_nothing_changed(
    store, tmp_path, unreadable
):
    place(tmp_path, "a.pem", pem(ec_key()))
    unreadable.add("a.pem")
    assert signer(store) is None
    assert str(store.problems()[0]).endswith("a.pem: The file cannot be read: Permission denied.")
    unreadable.clear()
    assert signer(store) == thumbprint(public(ec_key()))
    assert list(store.problems()) == []


def test_a_key_that_was_read_stays_while_its_file_cannot_be_opened(store, tmp_path, unreadable):
    place(tmp_path, "a.pem", pem(ec_key()))
    store.keys()
    unreadable.add("a.pem")
    place(tmp_path, "0.pem", pem(ec_key(1)))
    assert signer(store) == thumbprint(public(ec_key()))
    assert len(store.keys()) == 2


def test_a_directory_that_was_never_there_is_an_error(tmp_path):
    store = DirectoryKeyStore(str(tmp_path / "missing"))
    for ask in (store.keys, store.signing_key, store.problems):
        with pytest.raises(StoreUnavailable, match=r"PRIVATE_CERTS_PATH .*No such file"):
            ask()


def test_the_last_keys_stay_when_the_directory_goes_away(tmp_path, caplog):
    directory = tmp_path / "keys"
    directory.mkdir()
    place(directory, "a.pem", pem(ec_key()))
    store = DirectoryKeyStore(str(directory))
    store.keys()
    directory.rename(tmp_path / "gone")
    with caplog.at_level(logging.ERROR, "django_baikal.keys"):
        assert signer(store) == thumbprint(public(ec_key()))
    assert "its last keys stay" in caplog.text
    assert_tells_nothing(caplog.text, ec_key())
    (tmp_path / "gone").rename(directory)
    place(directory, "b.pem", pem(ec_key(1)))
    assert signer(store) == thumbprint(public(ec_key(1)))


def test_a_directory_that_changes_under_many_threads_never_lacks_a_key(store, tmp_path):
    place(tmp_path, "a.pem", pem(ec_key(0)))
    stop = threading.Event()
    wrong: list[object] = []

    def look() -> None:
        while not stop.is_set():
            try:
                found = {key.thumbprint for key in list(store.keys())}
            except StoreUnavailable:  # a file went away between two looks
                continue
            if thumbprint(public(ec_key(0))) not in found:
                wrong.append(found)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(50):
        path = place(tmp_path, "b.pem", pem(ec_key(1 + turn % 2)))
        if turn % 5 == 0:
            path.unlink()
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


# -- several stores as one -------------------------------------------------------------------------


def listed(*keys: Any, **more: Any) -> SettingsKeyStore:
    return SettingsKeyStore([{"key": pem(key), **more} for key in keys])


def test_the_first_store_that_has_a_key_signs_and_all_are_published_once():
    empty = SettingsKeyStore([{"key": "nonsense"}])
    ring = Keyring([empty, listed(ec_key(1), ec_key(0)), listed(ec_key(0), ec_key(2))])
    assert ring.signing_key().thumbprint == thumbprint(public(ec_key(1)))
    assert [key["kid"] for key in ring.jwk_set()["keys"]] == [
        thumbprint(public(ec_key(number))) for number in (1, 0, 2)
    ]


def test_of_two_keys_under_one_kid_the_one_that_signs_is_published_alone():
    ring = Keyring([listed(ec_key(0), ec_key(1), kid="same")])
    assert ring.jwk_set() == {"keys": [dict(ring.signing_key().public_jwk)]}
    jws.verify(ring.signing_key().sign(CLAIMS), ring.jwk_set()["keys"], algorithms=["ES256"])


def test_the_key_that_signs_is_published_whatever_an_earlier_store_holds(tmp_path):
    place(tmp_path, "key.pem", pem(ec_key()))
    directory = DirectoryKeyStore(str(tmp_path))
    kid = thumbprint(public(ec_key()))
    twin = SettingsKeyStore([{"key": public_pem(ec_key()), "kid": "twin"}])
    namesake = SettingsKeyStore([{"key": public_pem(rsa_key()), "kid": kid}])
    for earlier in (twin, namesake):
        ring = Keyring([earlier, directory])
        assert ring.jwk_set() == {"keys": [dict(ring.signing_key().public_jwk)]}
        jws.verify(ring.signing_key().sign(CLAIMS), ring.jwk_set()["keys"], algorithms=["ES256"])


def test_the_published_set_is_no_way_into_the_keys():
    ring = Keyring([listed(ec_key())])
    ring.jwk_set()["keys"][0]["d"] = "x"
    assert "d" not in ring.jwk_set()["keys"][0]


def test_without_a_key_to_sign_with_the_settings_are_named(tmp_path):
    with pytest.raises(NoUsableSigningKey, match="set KEYS, PRIVATE_CERTS_PATH or CLIENT_KEYS"):
        Keyring([]).signing_key()
    ring = Keyring([SettingsKeyStore([{"key": "x"}]), DirectoryKeyStore(str(tmp_path))])
    with pytest.raises(NoUsableSigningKey, match=r"in CLIENT_KEYS or PRIVATE_CERTS_PATH \("):
        ring.signing_key()


def test_keys_none_of_which_can_be_used_are_not_an_empty_set(tmp_path):
    ring = Keyring([SettingsKeyStore([{"key": "x"}]), DirectoryKeyStore(str(tmp_path))])
    with pytest.raises(StoreUnavailable, match="None of the keys in CLIENT_KEYS or PRIVATE_CERTS"):
        ring.jwk_set()
    assert Keyring([DirectoryKeyStore(str(tmp_path))]).jwk_set() == {"keys": []}
    assert Keyring([]).jwk_set() == {"keys": []}


# -- JWS, from the attacker's side -----------------------------------------------------------------

ALL = tuple(ALGORITHMS)


def b64(data: bytes | dict[str, Any]) -> str:
    return b64url_encode(data if isinstance(data, bytes) else json.dumps(data).encode())


def forge(
    header: Any, sign: Callable[[bytes], bytes] = lambda _: b"sig", claims: Any = CLAIMS
) -> str:
    head = f"{b64(header)}.{b64(claims)}"
    return f"{head}.{b64(sign(head.encode()))}"


def signed_by(key: Any) -> Callable[[bytes], bytes]:
    """Sign as RS256 or ES256 without any of the checks of a library."""

    def sign(data: bytes) -> bytes:
        if isinstance(key, rsa.RSAPrivateKey):
            return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        from jwt.utils import der_to_raw_signature

        return der_to_raw_signature(key.sign(data, ec.ECDSA(hashes.SHA256())), key.curve)

    return sign


def published(family: str = "RSA", number: int = 0, **changes: Any) -> dict[str, Any]:
    return public(key_of(family, number), **({"kid": "k"} | changes))


def refused(token: str, *keys: Any, algorithms: Any = ALL) -> str:
    with pytest.raises(InvalidSignature) as caught:
        jws.verify(token, keys or (published(), published("EC", kid="ec")), algorithms=algorithms)
    return str(caught.value)


HEADER = {"alg": "RS256", "kid": "k", "typ": "JWT"}
GOOD = forge(HEADER, signed_by(rsa_key()))


@pytest.mark.parametrize(("family", "alg"), [("RSA", "RS256"), ("EC", "ES256")])
def test_a_good_signature_verifies(family, alg):
    header = {"alg": alg, "kid": "k"}
    token = forge(header, signed_by(key_of(family)))
    verified = jws.verify(token, [published(family)], algorithms=ALL)
    assert verified == (header, CLAIMS)


@pytest.mark.parametrize("crv", ["P-384", "P-521", "Ed25519"])
def test_keys_of_other_kinds_verify_as_well(crv):
    alg = {"P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA"}[crv]
    key: Any
    if crv == "Ed25519":
        key = ed25519.Ed25519PrivateKey.generate()
        algorithm: Any = jwt.algorithms.OKPAlgorithm
    else:
        key = ec_key(curve={"P-384": ec.SECP384R1, "P-521": ec.SECP521R1}[crv])
        algorithm = jwt.algorithms.ECAlgorithm
    jwk = {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": "k"}
    token = jws.sign(CLAIMS, key, alg=alg, kid="k", typ="at+jwt")
    assert jws.verify(token, [jwk], algorithms=[alg]).header["typ"] == "at+jwt"
    assert refused(token, jwk, algorithms=["RS256"])


@pytest.mark.parametrize(
    "alg", ["none", "None", "NONE", "nOnE", "", " none", None, [], {}, 0, True]
)
@pytest.mark.parametrize("signature", [b"", b"sig"])
def test_a_token_that_is_not_signed_is_refused_however_none_is_spelled(alg, signature):
    token = forge({"alg": alg, "kid": "k"}, lambda _: signature)
    assert "algorithm" in refused(token)
    assert "algorithm" in refused(token, algorithms=(*ALL, "none", "None", ""))


def test_a_token_without_an_algorithm_is_refused():
    assert "algorithm" in refused(forge({"kid": "k"}, signed_by(rsa_key())))


def public_forms() -> dict[str, bytes]:
    key = rsa_key().public_key()
    enc, fmt = serialization.Encoding, serialization.PublicFormat
    spki = key.public_bytes(enc.PEM, fmt.SubjectPublicKeyInfo)
    return {
        "SPKI PEM": spki,
        "SPKI PEM, stripped": spki.strip(),
        "SPKI PEM, CRLF": spki.replace(b"\n", b"\r\n"),
        "PKCS1 PEM": key.public_bytes(enc.PEM, fmt.PKCS1),
        "SPKI DER": key.public_bytes(enc.DER, fmt.SubjectPublicKeyInfo),
        "PKCS1 DER": key.public_bytes(enc.DER, fmt.PKCS1),
        "SSH": key.public_bytes(enc.OpenSSH, fmt.OpenSSH),
        "modulus": b64url_decode(public(rsa_key())["n"]),
        "modulus in base64url": public(rsa_key())["n"].encode(),
        "JWK": json.dumps(published()).encode(),
        "nothing": b"",
    }


@pytest.mark.parametrize("secret", public_forms().values(), ids=public_forms())
@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
def test_a_public_key_is_never_the_secret_of_an_hmac(secret, alg):
    digest = f"sha{alg[2:]}"
    token = forge({"alg": alg, "kid": "k"}, lambda data: hmac.digest(secret, data, digest))
    assert "algorithm" in refused(token)
    assert "algorithm" in refused(token, algorithms=(*ALL, alg))


def test_a_shared_secret_in_the_set_verifies_nothing():
    secret = {"kty": "oct", "k": b64(b"s" * 32), "kid": "k"}
    token = forge({"alg": "HS256", "kid": "k"}, lambda d: hmac.digest(b"s" * 32, d, "sha256"))
    assert refused(token, secret, algorithms=("HS256", *ALL))
    assert "not of the type" in refused(GOOD, secret)


def test_an_algorithm_that_was_not_asked_for_is_refused():
    assert "algorithm" in refused(GOOD, algorithms=["ES256"])
    assert "algorithm" in refused(GOOD, algorithms=[])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"alg": "RS512"}, "not meant"),
        ({"alg": "PS256"}, "not meant"),
        ({"alg": None, "use": "enc"}, "not meant"),
        ({"use": 5}, "not meant"),
        ({"kty": "oct"}, "not of the type"),
        ({"kty": "EC"}, "not of the type"),
        ({"kty": None}, "not of the type"),
        ({"kty": ["RSA"]}, "not of the type"),
        ({"n": None}, "not well formed"),
        ({"n": 5}, "not a string"),
        ({"e": ["AQAB"]}, "not a string"),
        ({"n": "!!!"}, "not well formed"),
        ({"n": public(rsa_key())["n"] + "="}, "not well formed"),
        ({"n": b64url_uint(numbers(rsa_key())["n"] - 1)}, "even"),
        ({"n": b64url_uint(numbers(rsa_key(bits=1024))["n"])}, "bits"),
        ({"n": b64url_uint(2**8192 + 1)}, "bits"),
        ({"e": "Aw"}, "exponent"),
        ({"e": "AQ"}, "exponent"),
        ({"e": "AQAC"}, "exponent"),
        ({"e": b64url_uint(2**64 + 1)}, "exponent"),
        ({"kid": "other"}, "names no key"),
        ({"kid": None}, "names no key"),
    ],
)
def test_a_published_key_that_does_not_fit_is_not_used(changes, why):
    assert why in refused(GOOD, published(**changes))


@pytest.mark.parametrize("point", [b"\1" + bytes(31), bytes(32), bytes(31) + b"\x80"])
def test_a_key_that_anybody_can_sign_for_verifies_nothing(point):
    low = {"kty": "OKP", "crv": "Ed25519", "x": b64url_encode(point), "kid": "k"}
    # For the point of order 1, R = 1 and S = 0 fit every message.
    token = forge({"alg": "EdDSA", "kid": "k"}, lambda _: b"\1" + bytes(63))
    assert "low order" in refused(token, low)


@pytest.mark.parametrize("name", ["x", "y"])
@pytest.mark.parametrize("value", [None, "", "AAAA", "_" * 43, 5])
def test_an_ec_key_that_is_no_point_of_its_curve_is_not_used(name, value):
    token = forge({"alg": "ES256", "kid": "k"}, signed_by(ec_key()))
    assert refused(token, published("EC", **{name: value}))


def test_a_curve_of_the_same_length_is_not_the_same_curve():
    token = forge({"alg": "ES256", "kid": "k"}, signed_by(ec_key()))
    assert "not of the type" in refused(token, published("EC", crv="secp256k1"))
    assert "not of the type" in refused(token, published("EC", crv=None))


def test_a_weak_key_verifies_nothing_although_its_signature_is_right():
    small = rsa_key(bits=1024)
    assert "bits" in refused(forge(HEADER, signed_by(small)), public(small, kid="k"))
    cubed = rsa_key(exponent=3)
    assert "exponent" in refused(forge(HEADER, signed_by(cubed)), public(cubed, kid="k"))


def test_another_ones_signature_is_refused():
    assert "signature is wrong" in refused(forge(HEADER, signed_by(rsa_key(1))))


def test_a_changed_claim_is_found():
    head, _, signature = GOOD.split(".")
    assert "signature is wrong" in refused(f"{head}.{b64({**CLAIMS, 'sub': 'admin'})}.{signature}")


@pytest.mark.parametrize("signature", [b"", b"\0" * 64, b"\0" * 256, b"\xff" * 256])
def test_a_signature_of_nothing_is_refused(signature):
    assert refused(forge(HEADER, lambda _: signature))
    assert refused(forge({"alg": "ES256", "kid": "ec"}, lambda _: signature))


def test_an_ec_signature_in_der_is_refused():
    der = lambda data: ec_key().sign(data, ec.ECDSA(hashes.SHA256()))  # noqa: E731
    assert refused(forge({"alg": "ES256", "kid": "ec"}, der))


@pytest.mark.parametrize("kid", ["", "K", "k ", "../k", "k\0"])
def test_a_kid_that_names_no_key_falls_back_to_none(kid):
    assert "names no key" in refused(forge({**HEADER, "kid": kid}, signed_by(rsa_key())))


@pytest.mark.parametrize("kid", [None, 5, ["k"], {"k": 1}])
def test_a_kid_that_is_no_string_names_nothing(kid):
    token = forge({**HEADER, "kid": kid}, signed_by(rsa_key()))
    assert "not a string" in refused(token, published(), published(kid=kid))


def test_a_kid_that_names_two_keys_is_refused():
    assert "more than one" in refused(GOOD, published(), published(number=1))
    assert "more than one" in refused(GOOD, published(), published())


def test_without_a_kid_exactly_one_key_must_fit():
    token = forge({"alg": "RS256"}, signed_by(rsa_key()))
    ours, theirs = published(kid="a"), published(number=1, kid="b")
    elliptic, weak = published("EC"), published(e="Aw")
    jws.verify(token, [elliptic, ours, weak], algorithms=ALL)
    jws.verify(token, [published(number=1, use="enc"), ours], algorithms=ALL)
    assert "not exactly one" in refused(token, ours, theirs)
    assert "not exactly one" in refused(token, elliptic)


@pytest.mark.parametrize(
    "more",
    [
        {"jwk": public(rsa_key(1))},
        {"jku": "https://evil.example/jwks.json"},
        {"x5u": "https://evil.example/cert.pem"},
        {"x5c": [base64.b64encode(b"certificate").decode()]},
        {"x5t#S256": "AAAA"},
    ],
    ids=lambda more: next(iter(more)),
)
def test_a_key_that_the_token_brings_along_is_not_believed(more):
    header = HEADER | more
    assert "signature is wrong" in refused(forge(header, signed_by(rsa_key(1))))
    assert jws.verify(forge(header, signed_by(rsa_key())), [published()], algorithms=ALL)


@pytest.mark.parametrize(
    "more",
    [
        {"crit": ["exp"]},
        {"crit": []},
        {"crit": None},
        {"b64": False},
        {"b64": True},
        {"crit": ["b64"], "b64": False},
    ],
)
def test_an_extension_that_is_not_understood_is_refused(more):
    assert "extension" in refused(forge(HEADER | more, signed_by(rsa_key())))


MALFORMED = {
    "nothing": "",
    "one part": "abc",
    "two parts": GOOD.rpartition(".")[0],
    "four parts": GOOD + ".e30",
    "five parts": GOOD + ".e30.e30",
    "a thousand parts": "." * 1000,
    "a dot before": "." + GOOD,
    "a space after": GOOD + " ",
    "a line end after": GOOD + "\n",
    "padding": GOOD + "=",
    "padding of the header": GOOD.replace(".", "==.", 1),
    "base64 proper": GOOD.replace("-", "+").replace("_", "/") + "+",
    "one letter": GOOD.rpartition(".")[0] + ".A",
    "another letter, the same bytes": GOOD[:-1] + chr(ord(GOOD[-1]) + 1),
    "not ASCII": GOOD + "é",
    "digits that are not ASCII": GOOD.rpartition(".")[0] + ".٣٣٣٣",
    "a header that is a list": f"{b64(b'[]')}.{b64(CLAIMS)}.c2ln",
    "a header that is null": f"{b64(b'null')}.{b64(CLAIMS)}.c2ln",
    "a header in latin-1": forge(b'{"a": "' + bytes([0xE9]) + b'"}'),
    "a header that is no JSON": f"{b64(b'{')}.{b64(CLAIMS)}.c2ln",
    "a header with a name twice": forge(
        b'{"alg": "none", "alg": "RS256", "kid": "k"}', signed_by(rsa_key())
    ),
    "a header with a BOM": forge(b"\xef\xbb\xbf" + json.dumps(HEADER).encode()),
    "a header too deep": forge(b'{"alg": ' + b"[" * 9000),
    "claims that are a list": forge(HEADER, signed_by(rsa_key()), b"[]"),
    "claims with a name twice": forge(HEADER, signed_by(rsa_key()), b'{"sub": "a", "sub": "b"}'),
    "claims with a name twice inside": forge(
        HEADER, signed_by(rsa_key()), b'{"a": {"sub": "a", "sub": "b"}}'
    ),
    "claims with NaN": forge(HEADER, signed_by(rsa_key()), b'{"exp": NaN}'),
    "claims with Infinity": forge(HEADER, signed_by(rsa_key()), b'{"exp": Infinity}'),
    "claims out of range": forge(HEADER, signed_by(rsa_key()), b'{"exp": 1e999}'),
    "a number of 5000 digits": forge(HEADER, signed_by(rsa_key()), b'{"e":' + b"9" * 5000 + b"}"),
    "too long": forge(HEADER, signed_by(rsa_key()), {"x": "a" * 16384}),
}


@pytest.mark.parametrize("token", MALFORMED.values(), ids=MALFORMED)
def test_what_is_not_a_jwt_is_refused_even_if_its_signature_were_right(token):
    refused(token)
    with pytest.raises(InvalidSignature):
        jws.decode(token)


def test_a_jwt_as_long_as_allowed_is_read():
    room = jws.MAX_LENGTH - len(GOOD)
    token = forge(HEADER, signed_by(rsa_key()), {**CLAIMS, "x": "a" * (room * 3 // 4 - 20)})
    assert jws.MAX_LENGTH - 40 < len(token) <= jws.MAX_LENGTH
    assert jws.verify(token, [published()], algorithms=ALL)


@given(
    st.text(max_size=200) | st.builds(lambda a, b, c: f"{a}.{b}.{c}", *[st.text(max_size=50)] * 3)
)
def test_any_text_is_refused_as_an_invalid_signature(text):
    refused(text)


@given(st.integers(0, len(GOOD) - 1), st.characters())
def test_any_other_letter_anywhere_breaks_the_signature(position, letter):
    token = GOOD[:position] + letter + GOOD[position + 1 :]
    if token != GOOD:
        refused(token)


def test_a_refusal_tells_nothing_of_a_private_key_that_was_published_by_mistake():
    with pytest.raises(InvalidSignature) as caught:
        jws.verify(GOOD, [jwk(rsa_key(), kid="k", n="AQAB")], algorithms=ALL)
    assert_tells_nothing(told_by(caught.value), rsa_key())
    with pytest.raises(InvalidSignature) as caught:
        verification_key(jwk(ec_key(), x="AAAA"), "ES256")
    assert_tells_nothing(told_by(caught.value), ec_key())


def test_signing_with_a_weak_key_is_refused_and_not_warned_about():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(jwt.exceptions.InvalidKeyError):
            jws.sign(CLAIMS, rsa_key(bits=1024), alg="RS256", kid="k")


@pytest.mark.parametrize("data", [b"", b"\0", b"\xff" * 3, bytes(range(256))])
def test_base64url_has_one_spelling_only(data):
    text = b64url_encode(data)
    assert b64url_decode(text) == data
    assert "=" not in text
    for wrong in (text + "=", text + "A", text + " ", "+" + text, "é" + text):
        if len(wrong) % 4 == 1 or not wrong.isascii() or set(wrong) & set("= +"):
            with pytest.raises(ValueError, match="base64url"):
                b64url_decode(wrong)


def test_a_store_that_changes_its_own_list_is_published_as_it_is_now():
    first, second = load_key(pem(rsa_key())), load_key(pem(ec_key()))
    kept = [first, second]
    placed = [("one", first), ("two", second)]

    class Own(StaticKeyStore):
        source = "ours"

        def published(self, *, wait: bool = True) -> Published:
            return Published(kept, kept[0], Caching())

    class Static(StaticKeyStore):
        source = "ours"

        def parts(self):
            return placed

    for store, drop in ((Own(), kept.pop), (Static(), placed.pop)):
        ring = Keyring([store])
        assert [key["kid"] for key in ring.jwk_set()["keys"]] == [first.kid, second.kid]
        drop()
        assert [key["kid"] for key in ring.jwk_set()["keys"]] == [first.kid]


def test_no_bit_of_base64url_is_ignored():
    """Two texts of one value would be two tokens with one signature."""
    alphabet = string.ascii_letters + string.digits + "-_"
    for begin in ("", "Zm9v", "Zm9vZm9v"):
        for rest in ("A", "-", "x", "AB", "-_", "xy"):
            for last in alphabet:
                text = begin + rest + last
                data = base64.urlsafe_b64decode(text + "==")
                if b64url_encode(data) == text:
                    assert b64url_decode(text) == data
                else:
                    with pytest.raises(ValueError, match="not canonical"):
                        b64url_decode(text)


def test_what_the_published_key_verifies_other_libraries_verify_too():
    key = load_key(pem(rsa_key()))
    other = jwt.PyJWK(dict(key.public_jwk))
    assert jwt.decode(key.sign(CLAIMS), other, algorithms=["RS256"]) == CLAIMS
