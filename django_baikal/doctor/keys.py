"""Our own keys: whether they can be read, are as they were written, sign, and go on rotating."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta

from django.db import Error, router
from django.utils import timezone

from django_baikal.doctor.case import Case, Wanted
from django_baikal.doctor.findings import Failed, Skipped
from django_baikal.exceptions import (
    EncryptionKeyMissing,
    KeyLoadError,
    KeyStoreError,
    NoUsableSigningKey,
    StoreUnavailable,
)
from django_baikal.keys.base import Keyring
from django_baikal.keys.database import DatabaseKeyStore, opened
from django_baikal.keys.due import WIPE_WITHIN, lacks_standby, overdue, unwiped
from django_baikal.keys.overview import NOT_A_ROW
from django_baikal.keys.rotation import Ring
from django_baikal.models import SigningKey, as_bytes

_CRON = "Let cron run manage.py rotate_keys, each hour or each day; once by hand until then."
_DATABASE = "See that the database answers, and that manage.py migrate has run."
_TAMPERED = 'See "When a row was tampered with" in the guide "Rotate your keys".'
_ENCRYPTION_KEY = (
    "Put that key back, behind the first one: an old SECRET_KEY into SECRET_KEY_FALLBACKS, any "
    "other one into ENCRYPTION_KEYS, of every process."
)
_TIMES = {"R1": "PROPAGATION", "R2": "RETENTION", "R3": "ROTATE_EVERY"}


def sources(case: Case) -> str:
    """Read each source of our keys."""
    found = []
    if not case.need(case.stores, "settings"):
        _nothing(case)
    for store in case.need(case.stores, "settings"):
        if isinstance(store, DatabaseKeyStore):
            case.rows = _rows(store)
            count = len(case.rows)
        else:
            try:
                count = len(store.keys())
            except StoreUnavailable as error:
                cure = "Correct that path, or let the user that this runs as read it."
                raise Failed(str(error), cure) from None
            if not count:
                cure = "Put a private key there, or remove that setting."
                raise Failed(f"{store.source} has no key that can be used.", cure)
        found.append(f"{store.source} ({count} key{'' if count == 1 else 's'})")
    return f"They can be read: {', '.join(found)}."


def _nothing(case: Case) -> None:
    config = case.settings
    name = "ISSUER is set" if config.issuer else ""
    if config.client_auth_method == "private_key_jwt":
        name = "CLIENT_AUTH_METHOD is private_key_jwt"
    if not name:
        raise Skipped("No keys are set, and nothing here needs any.")
    raise Failed(
        f"{name}, and there is no key to sign with.",
        "Set KEYS, PRIVATE_CERTS_PATH or CLIENT_KEYS.",
    )


def _rows(store: DatabaseKeyStore) -> list[SigningKey]:
    rows = SigningKey.objects.using(router.db_for_read(SigningKey))
    try:
        return list(rows.filter(ring=store.options.ring))
    except Error as error:
        # What the database says may tell where it is.
        what = f"{store.source} cannot be read: the database failed ({type(error).__name__})."
        raise Failed(what, _DATABASE) from None
    except NOT_A_ROW:
        raise Failed("A row holds what cannot be in its column.", _TAMPERED) from None


def _database(case: Case) -> DatabaseKeyStore:
    stores = case.need(case.stores, "settings")
    for store in stores:
        if isinstance(store, DatabaseKeyStore):
            return store
    raise Skipped(
        "The keys of this alias are not in the database." if stores else "No keys are set."
    )


def encryption_keys(case: Case) -> str:
    """See that there is a key-encryption key for whatever is kept."""
    options = _database(case).options
    keys, rows = options.encryption_keys, case.need(case.rows, "keys")
    older = 0
    for row in rows:
        kept = [as_bytes(row.seal), *([row.envelope] if row.envelope else [])]
        older += {keys.name_of(each) for each in kept} != {keys.current.name}
        try:
            keys.check(kept[0], row.sealed())
            if row.envelope:
                opened(row, keys)
        except EncryptionKeyMissing as error:
            raise Failed(str(error), _ENCRYPTION_KEY) from None
        except (KeyStoreError, *NOT_A_ROW):
            continue  # the seals tell it
    case.opened = True
    secret = (
        ""
        if options.dedicated
        else (
            " They come from SECRET_KEY: who changes that has to keep the old one in "
            "SECRET_KEY_FALLBACKS."
        )
    )
    left = (
        f" Under an older one: {older} of {len(rows)}; see baikal_keys reencrypt." if older else ""
    )
    return f"There is one for everything that is kept.{left}{secret}"


def seals(case: Case) -> str:
    """See that every row is as this project wrote it, and that the private halves are its own."""
    store = _database(case)
    case.need(case.opened, "encryption keys")
    try:
        ring, now = store.read(), timezone.now()
        for row in ring.published(now):
            # Whether it can sign is another question.
            with suppress(NoUsableSigningKey, KeyLoadError):
                opened(row, store.options.encryption_keys)
    except KeyStoreError as error:
        raise Failed(str(error), _TAMPERED) from None
    case.ring = ring
    return "Every row is as it was written."


def signing_key(case: Case) -> str:
    """See that there is a key that signs, here, and one that comes next."""
    stores = case.need(case.stores, "settings")
    if not stores:
        raise Skipped("No keys are set.", needs="keys")
    others = [store for store in stores if not isinstance(store, DatabaseKeyStore)]
    if len(others) < len(stores) and (found := _of_ring(case)):
        return found
    try:
        key = Keyring(others).signing_key()
    except KeyStoreError as error:
        raise Failed(str(error), "Put a private key there.") from None
    case.wanted = [Wanted("signs", key.public_jwk)]
    return f"{key.kid} signs ({key.alg})."


def _of_ring(case: Case) -> str:
    """Look at the ring's keys; give nothing if it has not begun, and other keys sign."""
    store, ring, now = _database(case), case.need(case.ring, "seals"), timezone.now()
    active, standby = ring.active(now), ring.standby(now)
    if active is None and not _alone(case) and not ring.started(now):
        return ""
    if active is None:
        raise Failed(f"In {store.source} no key signs now.", _CRON)
    for row, when in ((active, "is to sign now"), (standby, "is to sign next")):
        if row is None:
            continue
        try:
            opened(row, store.options.encryption_keys)
        except KeyStoreError as error:
            raise Failed(
                f"Key {row.kid} {when}, and cannot do so here: {error}",
                "Let this process run the version of django-baikal that made it; if that does not "
                f"help, rotate_keys --emergency --kid={row.kid} lets another one sign.",
            ) from None
    times = store.options.timing
    # Until then a process or a cache may hold a set from before.
    kept = timedelta(
        seconds=times.process_cache_ttl
        + times.replica_lag
        + times.jwks_max_age
        + times.stale_while_revalidate
    )
    case.wanted = [
        Wanted(role, {**row.jwk, "kid": row.kid}, row.created_at + kept)
        for row, role in ((active, "signs"), (standby, "comes next"))
        if row
    ]
    then = "" if standby is None else f", and {standby.kid} comes next"
    return f"{active.kid} signs ({active.alg}){then}."


def _alone(case: Case) -> bool:
    """Tell whether nobody else publishes keys beside the ring."""
    return not (case.settings.client_keys or case.settings.private_certs_path)


def timing(case: Case) -> str:
    """See that the times of the ring keep the rules."""
    for rule, sentence in _database(case).options.timing.broken():
        raise Failed(
            f"The times break rule {rule}: {sentence}",
            f"Raise {_TIMES[rule]} in the OPTIONS of KEYS, or remove what sets it.",
        )
    return "The times keep every rule."


def rotation(case: Case) -> str:
    """See that the keys go on rotating: that cron runs rotate_keys."""
    timing, ring, now = (
        _database(case).options.timing,
        case.need(case.ring, "seals"),
        timezone.now(),
    )
    case.need(case.wanted, "signing key")
    if late := overdue(ring, timing, now, alone=_alone(case)):
        raise Failed(late[0], _CRON)
    waits = lacks_standby(ring, now)
    if waits and _without_standby(ring, now) < now - WIPE_WITHIN:
        raise Failed("There has been no standby for more than a day.", _CRON)
    if count := len(unwiped(ring, now)):
        raise Failed(
            f"{count} old private half{'' if count == 1 else 's'} should have been wiped.", _CRON
        )
    due = "A standby is to be made, at the next run of rotate_keys."
    return due if waits else "Nothing is due."


def _without_standby(ring: Ring[SigningKey], now: datetime) -> datetime:
    """Give since when there is no standby: the last one signs, or was revoked."""
    times = [row.activates_at for row in ring.rows if row.activates_at <= now]
    return max([*times, *(row.revoked_at for row in ring.rows if row.revoked_at)])
