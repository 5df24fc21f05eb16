"""``TokenAPIClient``: REST framework's test client, with a token of its own."""

from __future__ import annotations

from typing import Any

from rest_framework.test import APIClient

from django_baikal.testing.override import override_token


class TokenAPIClient(APIClient):
    """An ``APIClient`` whose requests can bear a token, as ``override_token`` makes one.

    Where ``force_authenticate`` goes around the authentication of the view, ``force_token`` goes
    through it. Two clients can have two tokens; of the two methods, the later call counts.
    """

    _token: override_token | None = None

    def force_token(self, *args: Any, **options: Any) -> None:
        """Let each request from now on bear a token, until ``logout()``.

        The arguments and errors are those of ``override_token``.
        """
        self._token = override_token(*args, **options)
        # Else the views would not look for a token at all.
        handler: Any = self.handler
        handler._force_user = handler._force_token = None

    def force_authenticate(self, user: Any = None, token: Any = None) -> None:
        """Authenticate as REST framework's own client does, and with no token."""
        self._token = None
        super().force_authenticate(user, token)

    def logout(self) -> None:
        """Forget the token and whatever else authenticates this client."""
        self._token = None
        super().logout()

    def request(self, **kwargs: Any) -> Any:
        """Send a request, with the token if there is one."""
        if self._token is None:
            return super().request(**kwargs)
        with self._token:
            return super().request(**kwargs)
