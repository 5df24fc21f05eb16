"""Key files of every kind in every format, made with openssl and cryptography: what must load."""

from __future__ import annotations

import functools
import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, x448, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from material import certificate, ec_key, jwk, public, rsa_key

from django_baikal.exceptions import (
    InconsistentKey,
    KeyLoadError,
    PassphraseRequired,
    UnsupportedKey,
    WeakKey,
)

PASSPHRASE = "corr3ct-horse"
LATER = datetime(2120, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class KeyFile:
    """One file: what is in it, the formats that it may be declared as, and what comes of it."""

    name: str
    data: bytes
    formats: tuple[str, ...]
    alg: str = ""
    signs: bool = False
    error: type[KeyLoadError] | None = None
    encrypted: bool = False
    key: Any = field(default=None, repr=False)


@dataclass(frozen=True)
class Kind:
    """A kind of key: how it is made, and the algorithm that it is for, or why it is refused."""

    make: Callable[[], Any]
    alg: str = ""
    error: type[KeyLoadError] | None = None


@functools.cache
def dsa_key() -> Any:
    return dsa.generate_private_key(2048)


@functools.cache
def raw_key(kind: Any) -> Any:
    return kind.generate()


#: Those that the cryptography library makes.
KINDS = {
    "rsa": Kind(rsa_key, "RS256"),
    "p256": Kind(ec_key, "ES256"),
    "p384": Kind(lambda: ec_key(curve=ec.SECP384R1), "ES384"),
    "p521": Kind(lambda: ec_key(curve=ec.SECP521R1), "ES512"),
    "ed25519": Kind(lambda: raw_key(ed25519.Ed25519PrivateKey), "EdDSA"),
    "rsa1024": Kind(lambda: rsa_key(bits=1024), error=WeakKey),
    "rsa-e3": Kind(lambda: rsa_key(exponent=3), error=WeakKey),
    "secp256k1": Kind(lambda: ec_key(curve=ec.SECP256K1), error=UnsupportedKey),
    "brainpool": Kind(lambda: ec_key(curve=ec.BrainpoolP256R1), error=UnsupportedKey),
    "ed448": Kind(lambda: raw_key(ed448.Ed448PrivateKey), error=UnsupportedKey),
    "x25519": Kind(lambda: raw_key(x25519.X25519PrivateKey), error=UnsupportedKey),
    "x448": Kind(lambda: raw_key(x448.X448PrivateKey), error=UnsupportedKey),
    "dsa": Kind(dsa_key, error=UnsupportedKey),
}
#: What openssl alone makes: RSA-PSS keys keep their OID there, and others are out of the ordinary.
OPENSSL_KINDS = {
    "rsa-pss": ("-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048", "PS256", None),
    "rsa-pss-384": (
        (
            "-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_pss_keygen_md:sha384 "
            "-pkeyopt rsa_pss_keygen_mgf1_md:sha384 -pkeyopt rsa_pss_keygen_saltlen:48"
        ),
        "PS384",
        None,
    ),
    "rsa-pss-512": (
        (
            "-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_pss_keygen_md:sha512 "
            "-pkeyopt rsa_pss_keygen_mgf1_md:sha512 -pkeyopt rsa_pss_keygen_saltlen:64"
        ),
        "PS512",
        None,
    ),
    "rsa-pss-sha1": (
        "-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_pss_keygen_md:sha1",
        "",
        UnsupportedKey,
    ),
    "rsa-pss-sha224": (
        "-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_pss_keygen_md:sha224",
        "",
        UnsupportedKey,
    ),
    "rsa-3-primes": (
        "-algorithm RSA -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_keygen_primes:3",
        "",
        UnsupportedKey,
    ),
}


def private_bytes(key: Any, encoding: Encoding, form: PrivateFormat, secret: bool = False) -> bytes:
    lock = BestAvailableEncryption(PASSPHRASE.encode()) if secret else NoEncryption()
    return bytes(key.private_bytes(encoding, form, lock))


def by_cryptography(name: str, kind: Kind) -> Iterator[KeyFile]:
    key = kind.make()
    spki, pkcs1 = PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1
    pkcs8, traditional = PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL
    is_rsa, is_ec = name.startswith("rsa"), isinstance(key, ec.EllipticCurvePrivateKey)

    def made(form: str, data: bytes, formats: str, **how: Any) -> KeyFile:
        what = {"alg": kind.alg, "signs": True, "error": kind.error, "key": key, **how}
        return KeyFile(f"{name}-{form}", data, tuple(formats.split()), **what)

    def public_file(form: str, data: bytes, formats: str) -> KeyFile:
        return made(form, data, formats, signs=False)

    pem = private_bytes(key, Encoding.PEM, pkcs8)
    yield made("pkcs8.pem", pem, "pem")
    yield made("pkcs8.der", private_bytes(key, Encoding.DER, pkcs8), "pkcs8")
    for end, formats, encoding in (("pem", "pem", Encoding.PEM), ("der", "pkcs8", Encoding.DER)):
        data = private_bytes(key, encoding, pkcs8, secret=True)
        yield made(f"encrypted.{end}", data, formats, encrypted=True)
    if is_rsa or is_ec or name == "dsa":
        yield made("traditional.pem", private_bytes(key, Encoding.PEM, traditional), "pem")
        yield made("traditional.der", private_bytes(key, Encoding.DER, traditional), "private")
        data = private_bytes(key, Encoding.PEM, traditional, secret=True)
        yield made("traditional-encrypted.pem", data, "pem", encrypted=True)
    half = key.public_key()
    yield public_file("spki.pem", half.public_bytes(Encoding.PEM, spki), "pem")
    yield public_file("spki.der", half.public_bytes(Encoding.DER, spki), "public spki")
    if is_rsa:
        yield public_file("pkcs1-public.pem", half.public_bytes(Encoding.PEM, pkcs1), "pem")
        data = half.public_bytes(Encoding.DER, pkcs1)
        yield public_file("pkcs1-public.der", data, "public spki")
    if name not in ("x25519", "x448", "ed448"):
        cert = certificate(key, LATER).encode()
        yield public_file("x509.pem", cert, "pem")
        yield public_file("x509.der", certificate(key, LATER, Encoding.DER), "pkix x509")
        yield made("certificate-and-key.pem", cert + pem, "pem")
        yield made("key-and-certificate.pem", pem + cert, "pem")
    if name in ("rsa", "p256", "p384", "p521", "ed25519"):
        ssh = private_bytes(key, Encoding.PEM, PrivateFormat.OpenSSH)
        yield made("openssh.pem", ssh, "pem")
        private_jwk, public_jwk = jwk(key), public(key)
        text = json.dumps(private_jwk).encode()
        yield made("jwk.json", text, "json")
        yield public_file("public-jwk.json", json.dumps(public_jwk).encode(), "json")
        yield made("jwks.json", json.dumps({"keys": [private_jwk]}).encode(), "json")
        yield made("bom.json", b"\xef\xbb\xbf" + text, "json")
        yield made("bom.pem", b"\xef\xbb\xbf" + pem, "pem")
        yield made("crlf.pem", pem.replace(b"\n", b"\r\n"), "pem")
        yield made("one-line.pem", pem.replace(b"\n", b"\\n"), "pem")
        yield made("spaces.pem", pem.replace(b"\n", b" "), "pem")


def openssl(command: str, **data: Any) -> bytes:
    done = subprocess.run(
        ["openssl", *command.split()], capture_output=True, check=True, timeout=60, **data
    )
    return done.stdout


def by_openssl(name: str, how: str, alg: str, error: Any) -> Iterator[KeyFile]:
    pem = openssl(f"genpkey {how}")
    try:
        key = load_pem_private_key(pem, None)
    except ValueError:
        key = None
    secret = f"-passout pass:{PASSPHRASE}"
    forms = {
        "pkcs8.pem": ("pem", "pkey"),
        "pkcs8.der": ("pkcs8", "pkcs8 -topk8 -nocrypt -outform DER"),
        "encrypted.pem": ("pem", f"pkcs8 -topk8 {secret}"),
        "encrypted.der": ("pkcs8", f"pkcs8 -topk8 {secret} -outform DER"),
        "scrypt.pem": ("pem", f"pkcs8 -topk8 -scrypt {secret}"),
        "sha1-aes128.pem": ("pem", f"pkcs8 -topk8 -v2 aes-128-cbc -v2prf hmacWithSHA1 {secret}"),
        "sha384-aes192.pem": (
            "pem",
            f"pkcs8 -topk8 -v2 aes-192-cbc -v2prf hmacWithSHA384 {secret}",
        ),
        "sha512.pem": ("pem", f"pkcs8 -topk8 -v2prf hmacWithSHA512 {secret}"),
        "spki.pem": ("pem", "pkey -pubout"),
        "spki.der": ("public spki", "pkey -pubout -outform DER"),
        "x509.pem": ("pem", "req -x509 -key /dev/stdin -subj /CN=me -days 9"),
        "x509.der": ("pkix x509", "req -x509 -key /dev/stdin -subj /CN=me -days 9 -outform DER"),
    }
    for form, (formats, command) in forms.items():
        public_only = form.startswith(("spki", "x509"))
        if public_only and name in ("rsa-3-primes", "rsa-pss-sha1", "rsa-pss-sha224"):
            continue  # its public half is an ordinary one, or openssl makes no certificate of it
        yield KeyFile(
            f"{name}-{form}",
            openssl(command, input=pem),
            tuple(formats.split()),
            alg=alg,
            signs=not public_only,
            error=error,
            encrypted="encrypted" in form or "-passout" in command,
            key=key,
        )


def other_files() -> Iterator[KeyFile]:
    """Give what stands on the SDK's page, and what people have by mistake."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        secret = f"-passout pass:{PASSPHRASE}"
        openssl(f"genrsa -des3 {secret} -out {path}/protected.pem 2048")
        openssl(f"rsa -in {path}/protected.pem -passin pass:{PASSPHRASE} -out {path}/private.pem")
        openssl(f"genrsa -traditional -des3 {secret} -out {path}/old.pem 2048")
        openssl(f"genpkey -out {path}/one.pem -algorithm RSA -pkeyopt rsa_keygen_bits:2048")
        made = {name: (path / f"{name}.pem").read_bytes() for name in ("protected", "private")}
        made |= {name: (path / f"{name}.pem").read_bytes() for name in ("old", "one")}
    key = load_pem_private_key(made["private"], None)
    old = load_pem_private_key(made["old"], PASSPHRASE.encode())
    how: dict[str, Any]
    keys = {"protected": key, "private": key, "old": old}
    keys["one"] = load_pem_private_key(made["one"], None)
    for name, data in made.items():
        locked = name in ("protected", "old")
        how = {"signs": True, "encrypted": locked, "key": keys[name]}
        yield KeyFile(f"sdk-{name}.pem", data, ("pem",), "RS256", **how)
    parameters = openssl("ecparam -name prime256v1 -genkey")
    key = load_pem_private_key(parameters, None)
    yield KeyFile("ec-parameters.pem", parameters, ("pem",), "ES256", signs=True, key=key)
    explicit = openssl("ecparam -name prime256v1 -genkey -noout -param_enc explicit")
    try:
        how = {"signs": True, "key": load_pem_private_key(explicit, None)}
    except ValueError:  # older versions of the library
        how = {"error": InconsistentKey}
    yield KeyFile("ec-explicit.pem", explicit, ("pem",), "ES256", **how)
    p256, rsa = (
        private_bytes(ec_key(), Encoding.PEM, PrivateFormat.PKCS8),
        certificate(rsa_key(), LATER),
    )
    refused: dict[str, tuple[bytes, str, type[KeyLoadError]]] = {
        "foreign-certificate.pem": (p256 + rsa.encode(), "pem", InconsistentKey),
        "two-keys.pem": (p256 + p256, "pem", UnsupportedKey),
        "parameters.pem": (openssl("ecparam -name prime256v1"), "pem", UnsupportedKey),
        "oct.json": (b'{"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQ"}', "json", UnsupportedKey),
        "x25519.json": (_okp("X25519"), "json", UnsupportedKey),
        "ed448.json": (_okp("Ed448"), "json", UnsupportedKey),
        "enc.json": (json.dumps(jwk(rsa_key(), use="enc")).encode(), "json", UnsupportedKey),
        "weak.json": (json.dumps(jwk(rsa_key(bits=1024))).encode(), "json", WeakKey),
        "empty.json": (b'{"keys": []}', "json", UnsupportedKey),
    }
    for name, (data, formats, error) in refused.items():
        yield KeyFile(name, data, tuple(formats.split()), error=error, key=ec_key())


def _okp(crv: str) -> bytes:
    return json.dumps({"kty": "OKP", "crv": crv, "x": "A" * 43, "d": "B" * 43}).encode()


@functools.cache
def key_files() -> tuple[KeyFile, ...]:
    """Give all of them, the same ones each time."""
    found = [file for name, kind in KINDS.items() for file in by_cryptography(name, kind)]
    found += [file for name, how in OPENSSL_KINDS.items() for file in by_openssl(name, *how)]
    return (*found, *other_files())


def expected(file: KeyFile, unlocked: bool) -> type[KeyLoadError] | None:
    """Tell which error the file gives when it is declared rightly, or None if it loads."""
    if file.encrypted and not unlocked:
        return PassphraseRequired
    return file.error
