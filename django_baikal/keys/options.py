"""``OPTIONS`` of ``KEYS``, for the store in the database."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.views.decorators.debug import sensitive_variables

from django_baikal.exceptions import ConfigurationError
from django_baikal.keys.envelope import EncryptionKeys, encryption_keys
from django_baikal.keys.rotation import Timing
from django_baikal.models import RING
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.jwk import ALGORITHMS, RSA_BITS
from django_baikal.values import unknown

_TIMES = (
    "ROTATE_EVERY",
    "PROPAGATION",
    "RETENTION",
    "JWKS_MAX_AGE",
    "JWKS_STALE_IF_ERROR",
    "PROCESS_CACHE_TTL",
    "PROCESS_MAX_STALE",
    "REPLICA_LAG",
)
#: Every key that OPTIONS may have.
OPTIONS = ("RING", "ALG", "BITS", "ENCRYPTION_KEYS", *_TIMES)


@dataclass(frozen=True, kw_only=True)
class Options:
    """``OPTIONS`` of ``KEYS``, checked; ``dedicated``: ENCRYPTION_KEYS are set."""

    ring: str = "default"
    alg: str = "RS256"
    bits: int = 2048
    timing: Timing = field(default_factory=Timing)
    encryption_keys: EncryptionKeys = field(repr=False)
    dedicated: bool = False


@sensitive_variables()
def options_of(config: ClientConfig, given: Mapping[str, Any]) -> Options:
    """Check ``OPTIONS``; raise ConfigurationError in one sentence."""
    where = f"BAIKAL[{config.alias!r}]: KEYS OPTIONS:"
    for name in given:
        if name not in OPTIONS:
            raise ConfigurationError(f"{where} {unknown(name, OPTIONS)}")
    for name in _TIMES:
        value, least = given.get(name, 1), int(name == "RETENTION")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not least <= value < 1e9:
            raise ConfigurationError(f"{where} {name} must be a number of seconds.")
    ring, alg, bits = (
        given.get("RING", "default"),
        given.get("ALG", "RS256"),
        given.get("BITS", 2048),
    )
    if not isinstance(ring, str) or not re.fullmatch(RING, ring):
        raise ConfigurationError(f"{where} RING must be 1 to 64 of A-Z a-z 0-9 _ -.")
    if not isinstance(alg, str) or alg not in ALGORITHMS:
        raise ConfigurationError(f"{where} ALG must be one of {', '.join(ALGORITHMS)}.")
    if not isinstance(bits, int) or not RSA_BITS[0] <= bits <= RSA_BITS[1]:
        raise ConfigurationError(f"{where} BITS must be 2048 to 8192.")
    own: dict[str, Any] = {name.lower(): given[name] for name in _TIMES if name in given}
    own |= {"assertion_lifetime": config.assertion_lifetime, "clock_skew": config.clock_skew}
    try:
        keys = encryption_keys(given.get("ENCRYPTION_KEYS"))
    except ImproperlyConfigured as error:
        raise ConfigurationError(f"{where} {error}") from None
    return Options(
        ring=ring,
        alg=alg,
        bits=bits,
        timing=Timing(**own),
        encryption_keys=keys,
        dedicated=given.get("ENCRYPTION_KEYS") is not None,
    )
