"""The key loader: PEM (PKCS8, PKCS1, SEC1) and JWK; RSA from 2048 bits, and P-256.

Messages say what was tried and why it failed, and never quote the data: whatever the libraries
put into their own errors is dropped (``from None``).
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections import OrderedDict
from typing import Any

from django_baikal.exceptions import (
    InconsistentKey,
    KeyLoadError,
    PassphraseRequired,
    UnknownFormat,
    UnsupportedKey,
    WeakKey,
    WrongPassphrase,
)
from django_baikal.keys.base import KeyMaterial
from django_baikal.protocol.jwk import (
    ALGORITHMS,
    RSA_BITS,
    b64url_decode,
    b64url_uint,
    public_jwk,
    thumbprint,
)
from django_baikal.protocol.strict_json import loads_object

FORMATS = ("pem", "json")

_PEM_LABEL = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
_PRIVATE_LABELS = {
    b"PRIVATE KEY",
    b"RSA PRIVATE KEY",
    b"EC PRIVATE KEY",
    b"ENCRYPTED PRIVATE KEY",
}
_KID = re.compile(r"[A-Za-z0-9._~-]{1,255}")
_CRT = ("p", "q", "dp", "dq", "qi")

# Parsing an RSA key costs 130 signatures, so each distinct one is parsed once per process.
_MAX_PARSED = 256
_parsed: OrderedDict[bytes, KeyMaterial] = OrderedDict()
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
    """Load one private key from PEM text or a JWK.

    ``format``: "pem" or "json"; None looks at the data. ``kid``: its name, by default the JWK's
    own or else the RFC 7638 thumbprint. ``alg``: by default what the key is for (RS256, ES256).
    Raises a kind of KeyLoadError that never quotes the data.
    """
    raw = _bytes(data) if isinstance(data, str) else bytes(data)
    secret = _bytes(password) if isinstance(password, str) else password
    digest = hashlib.sha256(repr((raw, format, secret, kid, alg)).encode()).digest()
    with _lock:
        if (known := _parsed.get(digest)) is not None:
            _parsed.move_to_end(digest)
            return known
        key = _parsed[digest] = _load(raw, format, secret, kid, alg)
        while len(_parsed) > _MAX_PARSED:
            _parsed.popitem(last=False)
        return key


def _bytes(text: str) -> bytes:
    # The environment's bytes that are not UTF-8 stand in str as lone surrogates.
    return text.encode("utf-8", "surrogatepass")


def _short(text: str) -> str:
    """Quote a name for a message; what is too long for one may be the key, given in its place."""
    return f" {text!r}" if len(text) <= 16 else ""


def _load(
    raw: bytes, format: str | None, password: bytes | None, kid: str | None, alg: str | None
) -> KeyMaterial:
    raw = raw.removeprefix(b"\xef\xbb\xbf").strip()
    looks = "json" if raw.startswith(b"{") else "pem" if _PEM_LABEL.search(raw) else None
    if format is not None and format not in FORMATS:
        raise UnknownFormat(f"Unknown key format{_short(format)}; known are {', '.join(FORMATS)}.")
    if looks is None:
        raise UnknownFormat("The data is neither PEM nor a JWK.", format=format)
    if format not in (None, looks):
        raise UnknownFormat(f"The data is not {format!r}: it looks like {looks!r}.", format=format)
    try:
        if looks == "json":
            return _load_jwk(raw, kid, alg)
        return material(_load_pem(raw, password), kid=kid, alg=alg)
    except KeyLoadError as error:
        error.format = looks
        raise


def _load_pem(raw: bytes, password: bytes | None) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    # A PEM that came through an environment variable often has its line ends escaped.
    raw = raw.replace(b"\\r", b"").replace(b"\\n", b"\n")
    labels = [label for label in _PEM_LABEL.findall(raw) if label != b"EC PARAMETERS"]
    private = [label for label in labels if label in _PRIVATE_LABELS]
    if not private:
        kinds = ", ".join(sorted({label.decode() for label in labels})) or "parameters"
        raise UnsupportedKey(f"The PEM holds no private key (it holds: {kinds}).")
    start = raw.index(b"-----BEGIN " + private[0])
    encrypted = private[0].startswith(b"ENCRYPTED") or b"Proc-Type: 4,ENCRYPTED" in raw[start:]
    if encrypted and not password:
        raise PassphraseRequired("The key is encrypted, and no passphrase is given.")
    try:
        return load_pem_private_key(raw[start:], password if encrypted else None)
    except UnsupportedAlgorithm:
        raise UnsupportedKey("The key, or its encryption, is of a kind not known here.") from None
    except (ValueError, TypeError):
        if encrypted:
            raise WrongPassphrase("The passphrase does not open the key.") from None
        raise InconsistentKey("The PEM is damaged.") from None


def _load_jwk(raw: bytes, kid: str | None, alg: str | None) -> KeyMaterial:
    try:
        jwk = loads_object(raw)
    except ValueError as error:
        raise UnknownFormat(f"The JWK cannot be read: {error}.") from None
    if jwk.get("use", "sig") != "sig":
        raise UnsupportedKey("The JWK is not meant for signatures (its use is not 'sig').")
    if any(not isinstance(value, str) for name, value in jwk.items() if name in _NUMBERS):
        raise InconsistentKey("The JWK has a member that is not a string.")
    private = _jwk_private_key(jwk)
    names = {"kid": kid or jwk.get("kid"), "alg": alg or jwk.get("alg")}
    if any(not isinstance(value, str | None) for value in names.values()):
        raise InconsistentKey("The JWK's kid and alg must be strings.")
    return material(private, **names)


_NUMBERS = ("n", "e", "d", *_CRT, "x", "y", "crv", "kty")


def _jwk_private_key(jwk: dict[str, Any]) -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    kty = jwk.get("kty")
    if kty not in ("RSA", "EC"):
        raise UnsupportedKey("The JWK's kty is neither 'RSA' nor 'EC'.")
    if "d" not in jwk:
        raise UnsupportedKey("The JWK is public: it has no 'd'.")
    try:
        number = {
            name: int.from_bytes(b64url_decode(jwk[name]), "big")
            for name in ("n", "e", "d", *_CRT, "x", "y")
            if name in jwk
        }
        if kty == "EC":
            if jwk.get("crv") != "P-256":
                raise UnsupportedKey("The JWK's curve is not P-256.")
            key = ec.derive_private_key(number["d"], ec.SECP256R1())
            public = key.public_key().public_numbers()
            if (public.x, public.y) != (number["x"], number["y"]):
                raise InconsistentKey("The JWK's x and y do not belong to its d.")
            return key
        _check_rsa(number["n"].bit_length(), number["e"])
        if "oth" in jwk or 0 < sum(name in jwk for name in _CRT) < len(_CRT):
            raise UnsupportedKey(
                "The JWK must have all of p, q, dp, dq and qi, or none, and no oth."
            )
        return _rsa_numbers(rsa, number).private_key()
    except KeyLoadError:
        raise
    except Exception:  # noqa: BLE001 - of many kinds, and some have the key in their text
        raise InconsistentKey("The JWK's members are damaged, or do not belong together.") from None


def _rsa_numbers(rsa: Any, number: dict[str, int]) -> Any:
    n, e, d = number["n"], number["e"], number["d"]
    if "p" not in number:
        p, q = rsa.rsa_recover_prime_factors(n, e, d)
        number |= {"p": p, "q": q, "dp": d % (p - 1), "dq": d % (q - 1), "qi": pow(q, -1, p)}
    return rsa.RSAPrivateNumbers(
        number["p"],
        number["q"],
        d,
        number["dp"],
        number["dq"],
        number["qi"],
        rsa.RSAPublicNumbers(e, n),
    )


def _check_rsa(bits: int, exponent: int) -> None:
    if bits < RSA_BITS[0]:
        raise WeakKey(f"The RSA key has {bits} bits; at least {RSA_BITS[0]} are needed.")
    if bits > RSA_BITS[1]:
        raise UnsupportedKey(f"The RSA key has {bits} bits; at most {RSA_BITS[1]} are read.")
    if exponent < 65537 or exponent % 2 == 0 or exponent.bit_length() > 64:
        raise WeakKey("The RSA key's public exponent must be odd and at least 65537.")


def material(private_key: Any, *, kid: str | None = None, alg: str | None = None) -> KeyMaterial:
    """Wrap a private key of the cryptography library, or refuse it with the reason."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    if isinstance(private_key, rsa.RSAPrivateKey):
        numbers = private_key.public_key().public_numbers()
        _check_rsa(private_key.key_size, numbers.e)
        members = {"kty": "RSA", "n": b64url_uint(numbers.n), "e": b64url_uint(numbers.e)}
        allowed = tuple(name for name, needs in ALGORITHMS.items() if needs.kty == "RSA")
    elif isinstance(private_key, ec.EllipticCurvePrivateKey) and private_key.curve.name == (
        "secp256r1"
    ):
        point = private_key.public_key().public_numbers()
        members = {"kty": "EC", "crv": "P-256"}
        members |= {"x": b64url_uint(point.x, 32), "y": b64url_uint(point.y, 32)}
        allowed = tuple(name for name, needs in ALGORITHMS.items() if needs.crv == "P-256")
    else:
        raise UnsupportedKey("The key is neither RSA nor on the curve P-256.")
    if alg is not None and alg not in allowed:
        raise UnsupportedKey(
            f"The key cannot be used with alg{_short(alg)}; use {', '.join(allowed)}."
        )
    if kid is not None and not _KID.fullmatch(kid):
        raise UnsupportedKey("A kid is 1 to 255 characters out of A-Z a-z 0-9 . _ ~ -")
    kid, alg = kid or thumbprint(members), alg or allowed[0]
    public = public_jwk({**members, "kid": kid, "use": "sig", "alg": alg})
    return KeyMaterial(kid=kid, alg=alg, public_jwk=public, private_key=private_key)
