"""One request on its way through the fake authserver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from django_baikal.protocol.effects import Response
from django_baikal.protocol.strict_json import loads_object
from django_baikal.testing.endpoints import ENDPOINTS
from django_baikal.testing.faults import Fault
from django_baikal.testing.state import State
from django_baikal.testing.wire import RecordedRequest, Refused


@dataclass(slots=True)
class Exchange:
    """A request that has arrived, and the fault that it meets; ``answer()`` it once."""

    state: State
    call: RecordedRequest
    fault: Fault | None
    on_request: Callable[[RecordedRequest], None] | None

    def answer(self) -> Response:
        """Give the answer, record it and report it."""
        call, fault = self.call, self.fault
        if fault is None:
            response = self._genuine()
        else:
            call.fault = True
            response = fault.response(None if fault.replaces() else self._genuine())
        call.status = response.status
        if fault is not None and response.status >= 400 and call.error is None:
            _read_error(call, response)
        if self.on_request is not None:
            self.on_request(call)
        return response

    def _genuine(self) -> Response:
        call = self.call
        try:
            return ENDPOINTS[call.endpoint](self.state, call)
        except Refused as error:
            call.error, call.description = error.error, error.description
            return error.response()


def _read_error(call: RecordedRequest, response: Response) -> None:
    call.description = "a fault on purpose"
    try:
        body = loads_object(response.body)
    except ValueError:
        return
    error = body.get("error", body.get("code"))
    call.error = error if isinstance(error, str) else None
