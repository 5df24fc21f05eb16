"""Keys out of DER and PEM: PKCS1, SEC1, PKCS8, SPKI, X.509 (RFC 8017, 5915, 5958, 5280, 7468)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from django_baikal.exceptions import (
    InconsistentKey,
    KeyLoadError,
    PassphraseRequired,
    UnsupportedKey,
    WrongPassphrase,
)
from django_baikal.keys import der
from django_baikal.keys.policy import check_rsa

#: What a block of PEM consists of, by its label, in the words of ``der.kind``.
PRIVATE = {
    "PRIVATE KEY": "pkcs8",
    "ENCRYPTED PRIVATE KEY": "encrypted",
    "RSA PRIVATE KEY": "pkcs1",
    "EC PRIVATE KEY": "sec1",
    "DSA PRIVATE KEY": "dsa",
    "OPENSSH PRIVATE KEY": "openssh",
}
PUBLIC = {"PUBLIC KEY": "spki", "RSA PUBLIC KEY": "pkcs1-public"}
CERTIFICATE = {"CERTIFICATE": "x509", "X509 CERTIFICATE": "x509"}
_KINDS = PRIVATE | PUBLIC | CERTIFICATE
_BEGIN = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")

#: Of iterations, or scrypt's N * r * p: some seconds. A higher number is an error, or an attack.
MAX_COST = 10_000_000
#: Of the keys that the library alone can look into, in bytes of DER: RSA of 8192 bits has 4.7 KiB.
MAX_SIZE = 5 * 1024


class Loaded(NamedTuple):
    """A key of the cryptography library, and what its container said of it.

    ``only``: the algorithms that an RSA-PSS key is restricted to. ``names``: of a certificate, the
    issuer's and the subject's.
    """

    key: Any
    only: tuple[str, ...] | None = None
    not_after: datetime | None = None
    names: tuple[bytes, bytes] | None = None


class Block(NamedTuple):
    """One block of PEM: its label, and the lines between its ends."""

    label: str
    lines: list[bytes]


def load_der(data: bytes, kind: str, password: bytes | None) -> Loaded:
    """Load what ``der.kind`` says is of this ``kind``, or raise a KeyLoadError."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    if kind == "encrypted":
        _check_size(len(data))
        if password and _parsed(der.cost, data) > MAX_COST:
            raise UnsupportedKey(f"Opening the key takes more than {MAX_COST} iterations.")
        if inner := _decrypted(data, password):
            return load_der(inner, "pkcs8", None)
        return Loaded(_opened(serialization.load_der_private_key, data, password))
    not_after = names = None
    if kind == "x509":
        certificate = _parsed(x509.load_der_x509_certificate, data)
        not_after = _parsed(getattr, certificate, "not_valid_after_utc")
        issuer, subject, data = _parsed(der.parts_of, data)
        names = issuer, subject
        kind = "spki"
    if (rsa := _parsed(der.rsa_numbers, data, kind)) is not None:
        n, e, product, primes = rsa
        check_rsa(n, e)
        if primes > 2:
            raise UnsupportedKey("The RSA key has more than two primes.")
        # The library would first find out whether they are primes, however large they are.
        if product != n:
            raise InconsistentKey("The RSA key's modulus is not the product of its primes.")
    if kind in ("spki", "pkcs1-public"):
        key = _parsed(serialization.load_der_public_key, data)
    else:
        key = _parsed(serialization.load_der_private_key, data, None)
    only = _parsed(der.pss_algorithms, data, kind) if kind in ("spki", "pkcs8") else None
    return Loaded(key, only, not_after, names)


def _check_size(size: int) -> None:
    if size > MAX_SIZE:
        raise UnsupportedKey("The key is larger than any that is used.")


def _decrypted(data: bytes, password: bytes | None) -> bytes | None:
    """Give the PKCS8 in an encrypted one; None if that is for the library to try, or to refuse."""
    if not password:
        return None
    try:
        inner = der.decrypted(data, password)
    except Exception:  # noqa: BLE001 - of many kinds: a wrong passphrase gives any bytes at all
        return None
    return inner if inner is not None and der.kind(inner) == "pkcs8" else None


def _parsed(parse: Callable[..., Any], *args: Any) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return parse(*args)
    except UnsupportedAlgorithm:
        raise UnsupportedKey("The key, or its encryption, is of a kind not known here.") from None
    except BaseException as error:
        # Of many kinds, and some have the key in their text; a panic of Rust's is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InconsistentKey("The key is damaged, or its parts do not belong together.") from None


def _opened(parse: Callable[..., Any], data: bytes, password: bytes | None) -> Any:
    if not password:
        raise PassphraseRequired("The key is encrypted, and no passphrase is given.")
    try:
        return _parsed(parse, data, password)
    except InconsistentKey:
        raise WrongPassphrase("The passphrase does not open the key.") from None


def load_pem(data: bytes, password: bytes | None) -> Loaded:
    """Load the key of a PEM text: the private one, else the public one, else a certificate's.

    What stands beside a private key must belong to it; of several certificates (a chain), the
    first is the one of the key, and never the one that has issued another.
    """
    found = list(_blocks(data))
    private = [block for block in found if block.label in PRIVATE]
    public = [block for block in found if block.label in PUBLIC]
    certificates = [block for block in found if block.label in CERTIFICATE]
    if len(private) > 1 or (not private and len(public) > 1):
        raise UnsupportedKey("The PEM holds several keys; put each into a file of its own.")
    if not private and not public and not certificates:
        labels = ", ".join(sorted({block.label for block in found})) or "parameters"
        raise UnsupportedKey(f"The PEM holds no key (it holds: {labels:.60}).")
    first, *beside = private + public + certificates
    loaded = _load_block(first, password)
    readable = list(_readable(beside))
    fitting = [other for other in readable if _public(other.key) == _public(loaded.key)]
    if readable and not fitting and first.label not in CERTIFICATE:
        raise InconsistentKey(
            "The key does not belong to the certificate or public key that stands beside it."
        )
    subject = loaded.names and loaded.names[1]
    if any(
        subject == names[0] != names[1] for names in (other.names for other in readable) if names
    ):
        raise UnsupportedKey("The first certificate of the PEM has issued another: a CA's key.")
    dates = [other.not_after for other in (loaded, *fitting) if other.not_after]
    return loaded._replace(not_after=max(dates, default=None))


def _blocks(data: bytes) -> Iterator[Block]:
    # A PEM that came through an environment variable often has its line ends escaped.
    data = data.replace(b"\\r", b"").replace(b"\\n", b"\n")
    position = 0
    while begin := _BEGIN.search(data, position):
        end = data.find(b"-----END " + begin[1] + b"-----", begin.end())
        if end < 0:
            raise InconsistentKey("The PEM is damaged: a block has no end.")
        label = begin[1].decode()
        if label != "EC PARAMETERS":
            yield Block(label, [line.strip() for line in data[begin.end() : end].splitlines()])
        position = end


def _readable(blocks: list[Block]) -> Iterator[Loaded]:
    """Give what can be loaded of these; a chain may have certificates of kinds not used here."""
    for block in blocks:
        try:
            yield _load_block(block, None)
        except KeyLoadError:
            continue


def _public(key: Any) -> Any:
    return key.public_key() if hasattr(key, "public_key") else key


def _load_block(block: Block, password: bytes | None) -> Loaded:
    from cryptography.hazmat.primitives import serialization

    kind = _KINDS[block.label]
    if kind == "openssh" or b"Proc-Type: 4,ENCRYPTED" in block.lines:
        label, body = block.label.encode(), b"\n".join(block.lines).strip()
        _check_size(len(body) * 3 // 4)
        text = b"-----BEGIN %b-----\n%b\n-----END %b-----\n" % (label, body, label)
        if kind != "openssh":
            return Loaded(_opened(serialization.load_pem_private_key, text, password))
        return Loaded(_openssh(text))
    try:
        data = base64.b64decode(b"".join(b"".join(block.lines).split()), validate=True)
    except binascii.Error:
        raise InconsistentKey("The PEM is damaged: it is not base64.") from None
    if der.kind(data) != kind:
        raise InconsistentKey(f"The PEM is damaged: what it holds is no {block.label}.")
    return load_der(data, kind, password)


def _openssh(text: bytes) -> Any:
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    try:
        return load_ssh_private_key(text, None)
    except TypeError:
        # Opening it would take another library.
        reason = "is encrypted; write it as PKCS8 (ssh-keygen -p -m PKCS8)"
        raise UnsupportedKey(f"The key is in OpenSSH's own format and {reason}.") from None
    except Exception:  # noqa: BLE001 - as above
        raise InconsistentKey("The key is damaged, or its parts do not belong together.") from None
