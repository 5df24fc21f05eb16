"""What is told of each request to the authserver."""

from __future__ import annotations

import time
from types import TracebackType

from django_baikal import signals
from django_baikal.exceptions import BaikalError
from django_baikal.protocol.effects import Response


class Call:
    """The block in which a request is sent; ``authserver_called`` is sent at its end.

    ``alias``: of BAIKAL. ``endpoint``: as in ``Fetch``; of a request that goes elsewhere nothing is
    told, nor of one that was cancelled.
    """

    def __init__(self, alias: str, endpoint: str | None) -> None:
        self._alias, self._endpoint = alias, endpoint
        self._begun = time.monotonic()
        self._status: int | None = None

    def answered(self, response: Response) -> Response:
        """Note and give the answer."""
        self._status = response.status
        return response

    def __enter__(self) -> Call:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._endpoint is None or not signals.authserver_called.receivers:
            return
        if error is not None and not isinstance(error, BaikalError):
            return
        from django_baikal.client import OpenIDClient

        signals.authserver_called.send_robust(
            OpenIDClient,
            using=self._alias,
            endpoint=self._endpoint,
            status=self._status,
            error=error,
            seconds=time.monotonic() - self._begun,
        )
