"""What a key and a store of keys are, whatever keeps them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple, NoReturn, Protocol, TypeAlias

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
    ``not_after``: when the certificate that it comes from ends; None if there is none.
    """

    kid: str
    alg: str
    public_jwk: Mapping[str, Any]
    private_key: Any = field(default=None, repr=False)
    not_after: datetime | None = field(default=None, repr=False)

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


#: What a piece of data is: a key, or why it is none that can be used.
Part: TypeAlias = KeyMaterial | KeyLoadError


class Caution(NamedTuple):
    """Something about a key that is used nevertheless; ``code``: "expired" or "readable"."""

    code: str
    message: str


class Caching(NamedTuple):
    """How long others may keep the JWK Set, in seconds.

    ``stale_if_error``: and if they cannot get a new one; ``stale_while_revalidate``: and while they
    get it.
    """

    max_age: float = 900
    stale_if_error: float = 3600
    stale_while_revalidate: float = 60


#: For as long as the platform itself keeps an issuer's keys.
CACHING = Caching()


class Published(NamedTuple):
    """What a store publishes at one moment; ``first``: the key that signs, to be published first.

    A key whose material is the same is the same object, as long as it is kept.
    """

    keys: Sequence[KeyMaterial]
    first: KeyMaterial | None
    caching: Caching


class WouldWait(Exception):
    """What is asked for has to be read first, and whoever asks must not wait for that."""


class KeyStore(Protocol):
    """A place where keys are kept. Safe to call from many threads."""

    #: Where the keys come from, in words for messages: the setting's name, and never a secret.
    source: str
    #: Whether looking at the keys opens a connection, which a plain check must not do.
    in_database: bool

    def keys(self) -> Sequence[KeyMaterial]:
        """Give every key to publish; raise StoreUnavailable if that cannot be known."""
        ...

    def signing_key(self) -> KeyMaterial | None:
        """Give the key that signs now, a private one, or None if this store has none."""
        ...

    def published(self, *, wait: bool = True) -> Published:
        """Give what to publish, and for how long others may keep it; no private half is needed.

        Raises StoreUnavailable; and with ``wait=False`` WouldWait, if it would take reading.
        """
        ...

    def problems(self) -> Sequence[KeyLoadError]:
        """Give what is there but cannot be used."""
        ...

    def cautions(self) -> Sequence[Caution]:
        """Give what is used, and deserves a look."""
        ...


class StaticKeyStore:
    """A store whose keys were put there by somebody: all are published, the first private signs."""

    source: str
    in_database = False
    _said: tuple[tuple[tuple[str, Part], ...], Published] | None = None

    def parts(self) -> Sequence[tuple[str, Part]]:
        """Give each key, or why it is none, with its place; the one that signs before others."""
        raise NotImplementedError  # pragma: no cover: each store has its own

    def _keys(self) -> Iterator[tuple[str, KeyMaterial]]:
        return ((place, part) for place, part in self.parts() if isinstance(part, KeyMaterial))

    def keys(self) -> Sequence[KeyMaterial]:
        """Give every key that can be used, in the order of preference."""
        return [key for _, key in self._keys()]

    def signing_key(self) -> KeyMaterial | None:
        """Give the first key that can sign."""
        return next((key for _, key in self._keys() if key.private_key is not None), None)

    def _at_hand(self) -> bool:
        """Tell whether the keys can be given without reading or parsing anything."""
        return False

    def published(self, *, wait: bool = True) -> Published:
        """Give all keys, to be kept for ``CACHING``."""
        if not (wait or self._at_hand()):
            raise WouldWait
        parts, said = tuple(self.parts()), self._said
        if said is None or said[0] != parts:
            keys = [part for _, part in parts if isinstance(part, KeyMaterial)]
            first = next((key for key in keys if key.private_key is not None), None)
            said = self._said = parts, Published(keys, first, CACHING)
        return said[1]

    def problems(self) -> Sequence[KeyLoadError]:
        """Give an error for each key that cannot be used, in the order of places."""
        parts = sorted(self.parts(), key=lambda part: part[0])
        return [part.at(place) for place, part in parts if isinstance(part, KeyLoadError)]

    def cautions(self) -> Sequence[Caution]:
        """Warn of certificates that have expired; their keys are as good as before."""
        return [
            Caution("expired", f"{place}: the certificate expired on {key.not_after:%Y-%m-%d}.")
            for place, key in self._keys()
            if key.not_after is not None and key.not_after < datetime.now(UTC)
        ]


class Document(NamedTuple):
    """A JWK Set, as it is sent (RFC 7517 section 5)."""

    keys: Sequence[KeyMaterial]
    body: bytes


class Keyring:
    """Several stores as one: all are published, the first that has a signing key signs."""

    def __init__(self, stores: Sequence[KeyStore]) -> None:
        self.stores = stores
        self._document: tuple[list[KeyMaterial], Document] | None = None
        self._published: tuple[list[Published], tuple[Document, Caching]] | None = None

    def signing_key(self) -> KeyMaterial:
        """Give the key that signs now; raise NoUsableSigningKey naming the settings."""
        for store in self.stores:
            if (key := store.signing_key()) is not None:
                return key
        if not self.stores:
            raise NoUsableSigningKey(
                "There is no key to sign with: set KEYS, PRIVATE_CERTS_PATH or CLIENT_KEYS."
            )
        raise NoUsableSigningKey(f"There is no private key that can be used in {self._sources}.")

    @property
    def _sources(self) -> str:
        return " or ".join(store.source for store in self.stores)

    def document(self, *, wait: bool = True) -> tuple[Document, Caching]:
        """Give the JWK Set, and for how long others may keep it: the shortest that a store says.

        It is written out once for the same keys. Raises StoreUnavailable, and with ``wait=False``
        WouldWait.
        """
        each = [store.published(wait=wait) for store in self.stores]
        # A copy of each: a store may change the list that it gives.
        now, said = [found._replace(keys=tuple(found.keys)) for found in each], self._published
        if said is None or said[0] != now:
            said = self._published = now, self._together(now)
        return said[1]

    def _together(self, each: Sequence[Published]) -> tuple[Document, Caching]:
        keys = [found.first for found in each if found.first is not None][:1]
        for found in each:
            keys.extend(found.keys)
        known = self._document
        if known is None or known[0] != keys:
            known = self._document = keys, self._written(keys)
        times = zip(*(found.caching for found in each), strict=True)
        return known[1], Caching(*map(min, times)) if each else CACHING

    def _written(self, keys: Sequence[KeyMaterial]) -> Document:
        """Write the set: the signing key first, each material and each kid once.

        Raises StoreUnavailable when there are keys and none can be used: an empty set would make
        others drop the keys that they have.
        """
        found: dict[str, KeyMaterial] = {}
        kids: set[str] = set()
        for key in keys:
            # Of two keys under one kid a verifier may take the wrong one, or neither.
            if key.thumbprint not in found and key.kid not in kids:
                found[key.thumbprint] = key
                kids.add(key.kid)
        if not found and any(store.problems() for store in self.stores):
            raise StoreUnavailable(f"None of the keys in {self._sources} can be used.")
        shown = {"keys": [dict(key.public_jwk) for key in found.values()]}
        return Document(tuple(found.values()), json.dumps(shown, separators=(",", ":")).encode())

    def jwk_set(self) -> dict[str, Any]:
        """Give the JWK Set as a dict of the caller's own."""
        document, _ = self.document()
        return {"keys": [dict(key.public_jwk) for key in document.keys]}
