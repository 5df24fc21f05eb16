"""The key loader: every format that the baikal-sdk documents, declared or found out.

Messages say what was tried and why it failed, and never quote the data: whatever the libraries
put into their own errors is dropped (``from None``).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from django.views.decorators.debug import sensitive_variables

from django_baikal.exceptions import KeyLoadError, UnknownFormat, UnsupportedKey
from django_baikal.keys import der
from django_baikal.keys.base import KeyMaterial, Part
from django_baikal.keys.containers import load_der, load_pem
from django_baikal.keys.jwk_reader import key_of_jwk
from django_baikal.keys.policy import material, short
from django_baikal.protocol.strict_json import loads_object

#: What each format may hold, in the words of ``der.kind``; the names are the SDK's.
FORMATS = {
    "pem": ("pem",),
    "json": ("json",),
    "private": ("pkcs1", "sec1", "dsa"),
    "pkcs8": ("pkcs8", "encrypted"),
    "public": ("spki", "pkcs1-public"),
    "spki": ("spki", "pkcs1-public"),
    "pkix": ("x509",),
    "x509": ("x509",),
}
_NAMES = ", ".join(FORMATS)
_FORMAT_OF = {kind: name for name, kinds in FORMATS.items() for kind in kinds}

# Parsing an RSA key costs 130 signatures, so each distinct one is parsed once per process.
_MAX_PARSED = 256
_parsed: OrderedDict[bytes, Sequence[Part]] = OrderedDict()
_lock: threading.Lock


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


_renew_lock()
# Another thread of the parent may hold the lock at the moment of the fork.
if hasattr(os, "register_at_fork"):  # pragma: no branch: there is no fork on Windows
    os.register_at_fork(after_in_child=_renew_lock)


def load_key(
    data: str | bytes,
    *,
    format: str | None = None,
    password: str | bytes | None = None,
    kid: str | None = None,
    alg: str | None = None,
) -> KeyMaterial:
    """Load one key, private or public, from text or bytes.

    ``format``: "json" (a JWK or a JWK Set), "private" (PKCS1 or SEC1 in DER), "pkcs8" (DER),
    "public" or "spki" (SPKI in DER), "pkix" or "x509" (a certificate in DER), or "pem" (any of
    them); None looks at the data. DER may also come as base64 text. ``password`` opens an encrypted
    key. ``kid``: the key's name, by default the JWK's own or else the RFC 7638 thumbprint; of a JWK
    Set with several keys, it says which. ``alg``: by default what the key is for.

    Raises a kind of KeyLoadError that never quotes the data.
    """
    try:
        parts = load_keys(data, format=format, password=password, kid=kid, alg=alg)
    finally:
        # Error reports show the variables of each function that an error has passed through.
        del data, format, password, kid, alg
    keys = [part for part in parts if isinstance(part, KeyMaterial)]
    if len(keys) > 1:
        raise UnsupportedKey(
            f"The JWK Set has {len(keys)} keys: say by kid which one.", format="json"
        ).at(None)
    if not keys:
        raise next(part for part in parts if isinstance(part, KeyLoadError)).at(None)
    return keys[0]


@sensitive_variables()
def load_keys(
    data: str | bytes,
    *,
    format: str | None = None,
    password: str | bytes | None = None,
    kid: str | None = None,
    alg: str | None = None,
) -> Sequence[Part]:
    """Load every key that ``data`` holds, as ``load_key`` does: at least one key, or one error.

    An error says why something in ``data`` is no key that can be used, and is not raised.
    """
    raw = _bytes(data) if isinstance(data, str) else bytes(data)
    secret = _bytes(password) if isinstance(password, str) else password
    digest = hashlib.sha256(repr((raw, format, secret, kid, alg)).encode()).digest()
    with _lock:
        if (known := _parsed.get(digest)) is not None:
            _parsed.move_to_end(digest)
            return known
        parts = _load(raw, format, secret, kid, alg)
        if any(isinstance(part, KeyMaterial) for part in parts):
            _parsed[digest] = parts
        while len(_parsed) > _MAX_PARSED:
            _parsed.popitem(last=False)
        return parts


def _bytes(text: str) -> bytes:
    # The environment's bytes that are not UTF-8 stand in str as lone surrogates.
    return text.encode("utf-8", "surrogatepass")


def _load(
    raw: bytes, format: str | None, password: bytes | None, kid: str | None, alg: str | None
) -> Sequence[Part]:
    kind, raw = _looks_like(raw)
    looks = None if kind is None else _FORMAT_OF.get(kind)

    def load() -> KeyMaterial:
        if format is not None and format not in FORMATS:
            raise UnknownFormat(f"Unknown key format{short(format)}; known are {_NAMES}.")
        if kind is None or looks is None:
            what = "PKCS#12, which is not a" if kind == "pkcs12" else "no key in a"
            raise UnknownFormat(f"The data is {what} known format ({_NAMES}).")
        if format is not None and kind not in FORMATS[format]:
            raise UnknownFormat(f"The data is not {format!r}: it looks like {looks!r}.")
        loaded = load_pem(raw, password) if kind == "pem" else load_der(raw, kind, password)
        return material(loaded.key, kid=kid, alg=alg, only=loaded.only, not_after=loaded.not_after)

    if kind == "json" and format in (None, "json"):
        return list(_load_json(raw, kid, alg))
    return [_part(load, looks if format is None else format if format in FORMATS else None)]


def _looks_like(raw: bytes) -> tuple[str | None, bytes]:
    """Tell what the data is, in the words of ``der.kind``, and give it without its wrapping."""
    if found := der.kind(raw):
        return found, raw
    text = raw.removeprefix(b"\xef\xbb\xbf").strip()
    if text.startswith(b"{"):
        return "json", text
    if b"-----BEGIN " in text:
        return "pem", text
    try:
        unwrapped = base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error:
        return None, text
    return der.kind(unwrapped), unwrapped


def _load_json(raw: bytes, kid: str | None, alg: str | None) -> Iterator[Part]:
    try:
        found = loads_object(raw)
    except ValueError as error:
        yield UnknownFormat(f"The JWK cannot be read: {error}.", format="json")
        return
    if "kty" in found or "keys" not in found:
        yield _part(partial(key_of_jwk, found, kid=kid, alg=alg), "json")
        return
    members = found["keys"]
    if not isinstance(members, list) or not all(isinstance(jwk, dict) for jwk in members):
        yield UnknownFormat("The JWK Set's keys are no list of JWKs.", format="json")
        return
    chosen = [
        (number, jwk)
        for number, jwk in enumerate(members, 1)
        if kid is None or len(members) == 1 or jwk.get("kid") == kid
    ]
    if not chosen:
        what = "no key of that kid" if members else "no keys"
        yield UnsupportedKey(f"The JWK Set has {what}.", format="json")
    for number, jwk in chosen:
        load = partial(key_of_jwk, jwk, kid=kid, alg=alg)
        yield _part(load, "json", f"key {number} of the set: ")


def _part(load: Callable[[], KeyMaterial], format: str | None, where: str = "") -> Part:
    """Load one key, or give the error without the frames below, which hold the key."""
    try:
        return load()
    except KeyLoadError as error:
        return type(error)(f"{where}{error}", format=format)
