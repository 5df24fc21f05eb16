"""Every examination in its order, and how one is carried out."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterator

from django_baikal.doctor import authserver, bearer, cache, keys, project, public
from django_baikal.doctor.case import Case
from django_baikal.doctor.findings import FAILED, PASSED, SKIPPED, Failed, Finding, Skipped

logger = logging.getLogger("django_baikal.doctor")

EXAMINATIONS: dict[str, Callable[[Case], str]] = {
    "settings": project.settings,
    "TLS": authserver.tls,
    "discovery": authserver.discovery,
    "clock": authserver.clock,
    "client authentication": authserver.client_authentication,
    "introspection": bearer.introspection,
    "token": bearer.token,
    "keys": keys.sources,
    "encryption keys": keys.encryption_keys,
    "seals": keys.seals,
    "signing key": keys.signing_key,
    "timing": keys.timing,
    "rotation": keys.rotation,
    "our metadata": public.our_metadata,
    "our JWK Set": public.our_jwks,
    "published keys": public.published_keys,
    "cache": cache.cache,
}
#: The names of all examinations.
NAMES = tuple(EXAMINATIONS)


def examine(
    alias: str, *, token: str | None = None, seconds: float | None = None
) -> Iterator[Finding]:
    """Give a Finding for each of ``NAMES``, as soon as it is known; none raises.

    ``token``: a bearer token to look at, in place of one that the client gets for itself. Each
    request takes TIMEOUT at most, and with ``seconds`` all of them no longer than that (name
    resolution is not bounded). Nothing is changed, but for an entry of the cache that is deleted
    again.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    case = Case(alias, token, deadline)
    # For each examination that came to nothing: the one that failed.
    because: dict[str, str] = {}
    try:
        for name, examination in EXAMINATIONS.items():
            yield _finding(case, name, examination, because)
    finally:
        case.close()


def _finding(
    case: Case, name: str, examination: Callable[[Case], str], because: dict[str, str]
) -> Finding:
    try:
        return Finding(name, PASSED, examination(case))
    except Failed as failed:
        because[name] = name
        return Finding(name, FAILED, str(failed), failed.cure)
    except Skipped as skipped:
        cause = because.get(skipped.needs, "")
        if cause:
            because[name] = cause
            return Finding(name, SKIPPED, f"{cause!r} failed, and this needs it.")
        why = str(skipped) or f"{skipped.needs!r} was skipped, and this needs it."
        return Finding(name, SKIPPED, why)
    except Exception as error:  # noqa: BLE001 - a cache or a store may be anybody's
        because[name] = name
        kind = type(error).__name__
        # Neither its message nor its frames: both may hold a secret.
        where = "".join(traceback.format_tb(error.__traceback__))
        logger.error(  # noqa: TRY400
            "BAIKAL[%r]: the examination %r itself failed (%s):\n%s", case.alias, name, kind, where
        )
        what = f"The examination itself failed ({kind})."
        return Finding(name, FAILED, what, "See in the log of django_baikal.doctor where.")
