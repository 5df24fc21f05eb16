"""Keys to test with, made once, the ways to write them down, and what must never be quoted."""

from __future__ import annotations

import json
import traceback
from datetime import UTC, datetime
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from django_baikal.protocol.jwk import b64url_uint

FORMATS = {
    "PKCS8": PrivateFormat.PKCS8,
    "traditional": PrivateFormat.TraditionalOpenSSL,
    "OpenSSH": PrivateFormat.OpenSSH,
}
PRIVATE_MEMBERS = ("d", "p", "q", "dp", "dq", "qi")


@cache
def _rsa_key(number: int, bits: int, exponent: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(exponent, bits)


@cache
def _ec_key(number: int, curve: type[ec.EllipticCurve]) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve())


def rsa_key(number: int = 0, bits: int = 2048, exponent: int = 65537) -> rsa.RSAPrivateKey:
    """Give an RSA key, the same one for the same arguments."""
    return _rsa_key(number, bits, exponent)


def ec_key(
    number: int = 0, curve: type[ec.EllipticCurve] = ec.SECP256R1
) -> ec.EllipticCurvePrivateKey:
    """Give an EC key, the same one for the same arguments."""
    return _ec_key(number, curve)


def pem(key: Any, form: str = "PKCS8", password: str | None = None) -> str:
    how = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    return str(key.private_bytes(Encoding.PEM, FORMATS[form], how).decode())


def der(key: Any) -> bytes:
    return bytes(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))


def tlv(tag: int, *parts: bytes) -> bytes:
    """Give a value in DER."""
    content = b"".join(parts)
    size = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    length = bytes([len(content)]) if len(content) < 128 else bytes([128 + len(size)]) + size
    return bytes([tag]) + length + content


def integers(*values: int) -> bytes:
    """Give INTEGERs in DER, one after the other."""
    return b"".join(tlv(2, value.to_bytes(value.bit_length() // 8 + 1, "big")) for value in values)


def public_pem(key: Any) -> str:
    public = key.public_key()
    return str(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def certificate(
    key: Any,
    not_after: datetime,
    form: Encoding = Encoding.PEM,
    *,
    subject: str = "me.example.com",
    issuer: str | None = None,
    issuing: Any = None,
) -> Any:
    """Give a certificate, PEM text or DER; ``issuing``: the issuer's key, by default its own."""
    named = (subject, issuer or subject)
    about, by = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in named)
    builder = x509.CertificateBuilder(by, about, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(datetime(2019, 1, 1, tzinfo=UTC)).not_valid_after(not_after)
    issuing = issuing or key
    digest = None if isinstance(issuing, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    made = builder.sign(issuing, digest).public_bytes(form)
    return made.decode() if form is Encoding.PEM else made


def numbers(key: Any) -> dict[str, int]:
    """Give the members of a private JWK as numbers."""
    if hasattr(key, "private_bytes_raw"):
        raw, half = key.private_bytes_raw(), key.public_key().public_bytes_raw()
        return {"x": int.from_bytes(half, "big"), "d": int.from_bytes(raw, "big")}
    private = key.private_numbers()
    public = private.public_numbers
    if isinstance(key, rsa.RSAPrivateKey):
        crt = {"dp": private.dmp1, "dq": private.dmq1, "qi": private.iqmp}
        return {"n": public.n, "e": public.e, "d": private.d, "p": private.p, "q": private.q} | crt
    if isinstance(key, dsa.DSAPrivateKey):
        return {"d": private.x}
    return {"x": public.x, "y": public.y, "d": private.private_value}


CRV = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


def jwk(key: Any, **changes: Any) -> dict[str, Any]:
    """Give the private JWK of a key; a member that is changed to None is left out."""
    size, kind = None, {"kty": "RSA"}
    if isinstance(key, ed25519.Ed25519PrivateKey):
        size, kind = 32, {"kty": "OKP", "crv": "Ed25519"}
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        size, kind = (key.key_size + 7) // 8, {"kty": "EC", "crv": CRV[key.curve.name]}
    members: dict[str, Any] = {n: b64url_uint(v, size) for n, v in numbers(key).items()}
    return {n: v for n, v in {**members, **kind, **changes}.items() if v is not None}


def jwk_text(key: Any, **changes: Any) -> str:
    return json.dumps(jwk(key, **changes))


def public(key: Any, **changes: Any) -> dict[str, Any]:
    """Give the public JWK of a key."""
    return jwk(key, **(dict.fromkeys(PRIVATE_MEMBERS) | changes))


def assert_tells_nothing(text: str, *keys: Any) -> None:
    """Fail if any part of a private key stands in ``text``, in any of the usual spellings."""
    assert "-----BEGIN" not in text
    for key in keys:
        for name in PRIVATE_MEMBERS:
            number = numbers(key).get(name)
            if number is not None:
                for spelled in (b64url_uint(number), f"{number:x}", f"{number:X}", str(number)):
                    assert spelled[:20] not in text, name
                    assert spelled[-20:] not in text, name
        body = "".join(pem(key).splitlines()[1:-1])
        for start in range(48, len(body) - 24, 24):
            assert body[start : start + 24] not in text


def told_by(error: BaseException) -> str:
    """Give all that an error report would print: traceback, causes, even suppressed contexts."""
    seen: list[str] = ["".join(traceback.format_exception(error))]
    chain: list[BaseException | None] = [error]
    while chain:
        if (one := chain.pop()) is not None:
            seen += [str(one), repr(one), repr(getattr(one, "__notes__", ""))]
            chain += [one.__cause__, one.__context__]
    return "\n".join(seen)
