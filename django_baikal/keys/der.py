"""What a DER structure is, seen from outside (X.690): its format, and what it says of RSA keys.

The libraries read DER, but tell neither which of the formats it was, nor that an RSA key was made
for RSA-PSS alone (RFC 4055). Everything here raises ValueError for what is not DER.
"""

from __future__ import annotations

import math
from typing import NamedTuple

INTEGER, BITS, OCTETS, OID, SEQUENCE, CONTEXT_0 = 0x02, 0x03, 0x04, 0x06, 0x30, 0xA0

RSA = bytes.fromhex("2a864886f70d010101")
PSS = bytes.fromhex("2a864886f70d01010a")
PBES2 = bytes.fromhex("2a864886f70d01050d")
PBKDF2 = bytes.fromhex("2a864886f70d01050c")
SCRYPT = bytes.fromhex("2b06010401da47040b")
AES_CBC = tuple(bytes.fromhex(f"6086480165030401{size}") for size in ("02", "16", "2a"))
#: By the OID of the hash in the parameters (RFC 4055 section 2.1): the JWS algorithm.
PSS_ALGORITHMS = {
    bytes.fromhex(f"60864801650304020{number}"): f"PS{size}"
    for number, size in ((1, 256), (2, 384), (3, 512))
}
#: By the OID of the pseudorandom function (RFC 8018 appendix B.1.2): the hash of its HMAC. SHA-1,
#: the default, is left out in DER.
HMACS = {
    bytes.fromhex(f"2a864886f70d02{number}"): name
    for number, name in (("09", "SHA256"), ("0a", "SHA384"), ("0b", "SHA512"))
}


class Node(NamedTuple):
    """One value: its tag, its content, and all of its bytes."""

    tag: int
    content: bytes
    whole: bytes


def nodes(data: bytes) -> list[Node]:
    """Split ``data`` into the values that stand one after the other in it."""
    found = []
    position = 0
    while position < len(data):
        start, tag = position, data[position]
        # After the end of ``data`` there are no bytes, and the length is one too many.
        length, position = int.from_bytes(data[position + 1 : position + 2], "big"), position + 2
        if length >= 0x80:
            size = length - 0x80
            length = int.from_bytes(data[position : position + size], "big")
            position += size
        end = position + length
        if position > len(data) or end > len(data):
            raise ValueError("cut")
        found.append(Node(tag, data[position:end], data[start:end]))
        position = end
    return found


def children(data: bytes) -> list[Node]:
    """Give what the one SEQUENCE that ``data`` is consists of."""
    found = nodes(data)
    if len(found) != 1 or found[0].tag != SEQUENCE:
        raise ValueError("not one SEQUENCE")
    return nodes(found[0].content)


def kind(data: bytes) -> str | None:
    """Tell what ``data`` is, by the tags of its outermost values.

    "pkcs8", "encrypted" (PKCS8), "pkcs1", "sec1", "dsa" (private keys), "spki", "pkcs1-public",
    "x509", "pkcs12", or None.
    """
    try:
        inner = children(data)
    except ValueError:
        return None
    tags = [node.tag for node in inner]
    version = inner[0].content if tags[:1] == [INTEGER] else b""
    if tags[:2] == [INTEGER, SEQUENCE]:
        return "pkcs12" if version == b"\x03" else "pkcs8"
    if tags[:2] == [INTEGER, OCTETS]:
        return "sec1"
    by_tags = {
        (INTEGER,) * 2: "pkcs1-public",
        (INTEGER,) * 6: "dsa",
        (INTEGER,) * 9: "pkcs1",
        (*(INTEGER,) * 9, SEQUENCE): "pkcs1",
        (SEQUENCE, OCTETS): "encrypted",
        (SEQUENCE, BITS): "spki",
        (SEQUENCE, SEQUENCE, BITS): "x509",
    }
    return by_tags.get(tuple(tags))


def parts_of(certificate: bytes) -> tuple[bytes, bytes, bytes]:
    """Give issuer, subject and SubjectPublicKeyInfo of a certificate (RFC 5280 section 4.1)."""
    fields = [node.whole for node in nodes(children(certificate)[0].content)]
    first = 0 if fields[0][0] == INTEGER else 1  # the version may be left out
    return fields[first + 2], fields[first + 4], fields[first + 5]


def rsa_numbers(data: bytes, kind: str) -> tuple[int, int, int, int] | None:
    """Give an RSA key's modulus, exponent, product and number of primes; None for another key.

    Of a public key, whose primes nobody knows, the product is the modulus.
    """
    inner = children(data)
    if kind == "pkcs8" and _algorithm(inner[1]) in (RSA, PSS):
        return rsa_numbers(inner[2].content, "pkcs1")
    if kind == "spki" and _algorithm(inner[0]) in (RSA, PSS):
        return rsa_numbers(inner[1].content[1:], "pkcs1-public")
    if kind == "pkcs1":
        n, e, _, p, q = (_number(node) for node in inner[1:6])
        return n, e, p * q, 2 + (len(inner) > 9)
    if kind == "pkcs1-public":
        n, e = (_number(node) for node in inner)
        return n, e, n, 2
    return None


def _number(node: Node) -> int:
    return int.from_bytes(node.content, "big")


def _algorithm(identifier: Node) -> bytes:
    return nodes(identifier.content)[0].content


def pss_algorithms(data: bytes, kind: str) -> tuple[str, ...] | None:
    """Give the JWS algorithms of a key that is for RSA-PSS alone; None for every other key.

    Parameters with a hash restrict the key to it, and those without mean SHA-1 (RFC 4055 3.1).
    """
    identifier = nodes(children(data)[1 if kind == "pkcs8" else 0].content)
    if identifier[0].content != PSS:
        return None
    if len(identifier) == 1:
        return tuple(PSS_ALGORITHMS.values())
    first = nodes(identifier[1].content)[:1]
    if not first or first[0].tag != CONTEXT_0:
        return ()
    hashed = nodes(nodes(first[0].content)[0].content)[0].content
    return (PSS_ALGORITHMS[hashed],) if hashed in PSS_ALGORITHMS else ()


def cost(data: bytes) -> int:
    """Give the work of opening an encrypted PKCS8 key: the iterations, or scrypt's N * r * p."""
    scheme, parameters = nodes(children(data)[0].content)
    if scheme.content == PBES2:
        scheme, parameters = nodes(nodes(parameters.content)[0].content)
    # First is the salt.
    numbers = nodes(parameters.content)[1 : 4 if scheme.content == SCRYPT else 2]
    return math.prod(_number(node) for node in numbers)


def decrypted(data: bytes, password: bytes) -> bytes | None:
    """Open an encrypted PKCS8 key of the usual kind, PBES2 with AES-CBC (RFC 8018); else None.

    The library, which opens more kinds, would not tell what is written inside.
    """
    from cryptography.hazmat.primitives import hashes, padding
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    envelope, ciphertext = children(data)
    scheme = nodes(envelope.content)
    if scheme[0].content != PBES2:
        return None
    derivation, encryption = (nodes(node.content) for node in nodes(scheme[1].content))
    if encryption[0].content not in AES_CBC:
        return None
    length = (16, 24, 32)[AES_CBC.index(encryption[0].content)]
    salt, *numbers = nodes(derivation[1].content)
    if derivation[0].content == SCRYPT:
        n, r, p = (_number(node) for node in numbers[:3])
        key = Scrypt(salt.content, length, n, r, p).derive(password)
    elif derivation[0].content == PBKDF2:
        function = HMACS[_algorithm(numbers[-1])] if numbers[-1].tag == SEQUENCE else "SHA1"
        algorithm = getattr(hashes, function)()
        key = PBKDF2HMAC(algorithm, length, salt.content, _number(numbers[0])).derive(password)
    else:
        return None
    opener = Cipher(algorithms.AES(key), modes.CBC(encryption[1].content)).decryptor()
    unpadder = padding.PKCS7(128).unpadder()
    return unpadder.update(opener.update(ciphertext.content)) + unpadder.finalize()
