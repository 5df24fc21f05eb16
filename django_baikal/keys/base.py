"""What a key and a store of keys are, whatever keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

from django_baikal.exceptions import (
    KeyLoadError,
    NotPrivate,
    NoUsableSigningKey,
    StoreUnavailable,
)
from django_baikal.protocol import jwk, jws


@dataclass(frozen=True, slots=True, eq=False)
class KeyMaterial:
    """One key, parsed once and kept; public-only if ``private_key`` is None.

    ``kid``: its name (RFC 7517 section 4.5). ``alg``: the one algorithm it is used with.
    ``public_jwk``: what is published. The private half is in no repr, and is never pickled.
    """

    kid: str
    alg: str
    public_jwk: Mapping[str, Any]
    private_key: Any = field(default=None, repr=False)

    @property
    def thumbprint(self) -> str:
        """Its RFC 7638 thumbprint: the same material always has the same one."""
        return jwk.thumbprint(self.public_jwk)

    def sign(self, claims: Mapping[str, Any], *, typ: str = "JWT") -> str:
        """Make a compact JWS of ``claims``; raise NotPrivate for a public-only key."""
        if self.private_key is None:
            raise NotPrivate(f"Key {self.kid!r} is public and cannot sign.")
        return jws.sign(claims, self.private_key, alg=self.alg, kid=self.kid, typ=typ)

    def __reduce__(self) -> NoReturn:
        raise TypeError("A key is not pickled: it must not leave this process.")


class KeyStore(Protocol):
    """A place where keys are kept. Safe to call from many threads."""

    #: Where the keys come from, in words for messages: the setting's name, and never a secret.
    source: str

    def keys(self) -> Sequence[KeyMaterial]:
        """Give every key to publish; raise StoreUnavailable if that cannot be known."""
        ...

    def signing_key(self) -> KeyMaterial | None:
        """Give the key that signs now, or None if this store has none."""
        ...

    def problems(self) -> Sequence[KeyLoadError]:
        """Give what is there but cannot be used."""
        ...


class Keyring:
    """Several stores as one: all are published, the first that has a signing key signs."""

    def __init__(self, stores: Sequence[KeyStore]) -> None:
        self.stores = stores

    def signing_key(self) -> KeyMaterial:
        """Give the key that signs now; raise NoUsableSigningKey naming the settings."""
        for store in self.stores:
            if (key := store.signing_key()) is not None:
                return key
        if not self.stores:
            raise NoUsableSigningKey(
                "There is no key to sign with: set PRIVATE_CERTS_PATH or CLIENT_KEYS."
            )
        raise NoUsableSigningKey(f"There is no private key that can be used in {self._sources}.")

    @property
    def _sources(self) -> str:
        return " or ".join(store.source for store in self.stores)

    def keys(self) -> list[KeyMaterial]:
        """Give all keys to publish, the signing one first, each material and each kid once.

        Raises StoreUnavailable when there are keys and none can be used: an empty set would make
        others drop the keys that they have.
        """
        found: dict[str, KeyMaterial] = {}
        kids: set[str] = set()
        for store in self.stores:
            signing = store.signing_key()
            for key in ([signing] if signing else []) + list(store.keys()):
                # Of two keys under one kid a verifier may take the wrong one, or neither.
                if key.thumbprint not in found and key.kid not in kids:
                    found[key.thumbprint] = key
                    kids.add(key.kid)
        if not found and any(store.problems() for store in self.stores):
            raise StoreUnavailable(f"None of the keys in {self._sources} can be used.")
        return list(found.values())

    def jwk_set(self) -> dict[str, Any]:
        """Give the JWK Set that is published (RFC 7517 section 5)."""
        return {"keys": [dict(key.public_jwk) for key in self.keys()]}
