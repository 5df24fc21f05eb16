"""What happens to the keys of a ring, to bearer tokens and at the authserver, for who watches.

Those of keys are sent once the change is written.
"""

from __future__ import annotations

from typing import Any

from asgiref.sync import iscoroutinefunction
from django.dispatch import Signal


class Inline(Signal):
    """A signal whose receivers are called at once, also in an event loop, which they hold up."""

    def connect(self, receiver: Any, *args: Any, **kwargs: Any) -> None:
        """Connect a function; raise TypeError for a coroutine function."""
        if iscoroutinefunction(receiver):
            raise TypeError("No coroutine function can receive it: nobody would wait for it.")
        super().connect(receiver, *args, **kwargs)


#: A key was made or imported. ``key``: its row.
key_created = Signal()
#: A key was revoked. ``key``: its row, with ``revoke_reason``.
key_revoked = Signal()
#: The active key cannot be used in this process. ``key``: the row of the one that stands in.
signing_degraded = Signal()
#: A row was changed by somebody else, or needs a key that is missing. ``ring``; ``reason``: text.
seal_failed = Signal()
#: A bearer token was accepted. ``token``: its TokenInfo. ``request``: an HttpRequest, or None.
token_validated = Signal()
#: A bearer token was refused. ``error``: a TokenError. ``fingerprint``: 8 hex digits of the token.
#: ``using``: the alias. ``request``: as above.
token_rejected = Signal()
#: A bearer token could not be checked. ``error``: an AuthserverError, or a KeyStoreError where our
#: own key is missing. The rest as above.
authserver_unavailable = Signal()
#: The authserver answered a request, or did not. ``using``: the alias. ``endpoint``: as in
#: ``effects.Fetch``. ``status``: of its answer, or None. ``error``: why there is no answer that can
#: be read, a BaikalError, or None. ``seconds``: how long it took.
authserver_called = Inline()
