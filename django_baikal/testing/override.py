"""``override_token``: requests in a test count as bearing a token, and no authserver is asked."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from typing import Any

from django.test.utils import TestContextDecorator, _TestState

from django_baikal.exceptions import BaikalError, InvalidResponse
from django_baikal.handler import clients
from django_baikal.protocol import authenticate
from django_baikal.protocol.bearer import check_answer
from django_baikal.protocol.config import ClientConfig
from django_baikal.protocol.messages import Names, names
from django_baikal.testing.endpoints import DEFAULT_USER

#: What stands in for a token, where a request has none of its own.
TOKEN = "overridden-token"
#: How long the token is good for from each request on, in seconds.
LIFETIME = 3600
#: Those that have begun and not ended, in this order.
_begun: list[override_token] = []


class override_token(TestContextDecorator):  # noqa: N801 - like Django's override_settings
    """Let every request of a test bear a token: a context manager, and a decorator.

    Of a function, sync or async, or of a ``unittest.TestCase``. Meanwhile a request without an
    ``Authorization`` header counts as one with this token, and so does any bearer token, at each
    door and for ``clients[using].authenticate``; other credentials are left alone. Nobody is asked
    and nothing is cached; the token is judged as any other. The innermost counts.

    By default it is a user's, and good for the settings of the alias ``using``; ``sub`` None makes
    it the client's own. ``claims`` add to what the authserver would say, or replace it; None leaves
    one out. ``error``: what happens instead, a TokenError or an AuthserverError.

    As a context manager it gives a token to send. Like ``override_settings`` it holds for all
    threads. Raises ValueError for claims that no authserver could say, ConfigurationError for an
    unknown alias, and RuntimeError outside of tests.
    """

    def __init__(
        self,
        scopes: Names = (),
        purposes: Names = (),
        *,
        sub: str | None = DEFAULT_USER,
        client_id: str | None = None,
        acr: str | None = None,
        using: str = "default",
        error: BaikalError | None = None,
        **claims: Any,
    ) -> None:
        super().__init__()
        self._using = using
        self._error = error
        given: dict[str, Any] = {
            "scope": " ".join(names(scopes, "scopes")) or None,
            "purpose": " ".join(names(purposes, "purposes")) or None,
            "client_id": client_id,
            "acr": acr,
        }
        said = {name: value for name, value in given.items() if value is not None}
        self._claims = {**said, "sub": sub, "username": sub, **claims}
        try:
            check_answer({"client_id": "any", **self._claims}, "override_token")
        except InvalidResponse as problem:
            raise ValueError(str(problem)) from None

    def enable(self) -> str:
        """Begin, and give a token to send."""
        if not hasattr(_TestState, "saved_data"):
            raise RuntimeError(
                "override_token is for tests only: Django's runner and pytest-django say that "
                "there are some, with django.test.utils.setup_test_environment()."
            )
        _ = clients[self._using]  # raises for an unknown alias, and before any request does
        _begun.append(self)
        authenticate.overrides[self._using] = authenticate.Override(TOKEN, self._answer)
        return TOKEN

    def disable(self) -> None:
        """End; the innermost of those that have not ended counts again."""
        # Threads and tasks may end theirs in another order than they have begun them.
        del _begun[len(_begun) - 1 - _begun[::-1].index(self)]
        left = [each for each in _begun if each._using == self._using]
        if left:
            authenticate.overrides[self._using] = authenticate.Override(TOKEN, left[-1]._answer)
        else:
            del authenticate.overrides[self._using]

    def _answer(self, config: ClientConfig) -> Mapping[str, Any]:
        if self._error is not None:
            raise copy.copy(self._error)  # each time without the traceback of the last
        now = int(time.time())
        audiences = [each for each in config.audiences or () if each != "*"]
        required = {
            name: wanted[0] if isinstance(wanted, list) else wanted
            for name, wanted in config.required_claims.items()
        }
        said = {
            "active": True,
            "token_type": "Bearer",
            "iss": config.expected_issuer,
            "client_id": (config.allowed_clients or [config.client_id])[0],
            "aud": (audiences or [config.client_id])[:1],
            "iat": now,
            "exp": now + LIFETIME,
            **required,
            **self._claims,
        }
        return {name: value for name, value in said.items() if value is not None}
