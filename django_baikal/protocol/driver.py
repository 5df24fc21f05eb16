"""The two drivers: the same flow, waited for in two ways."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from django_baikal.protocol.effects import Effect, Flow

T = TypeVar("T")


def run(flow: Flow[T], perform: Callable[[Effect], Any]) -> T:
    """Drive ``flow`` to its end; what ``perform`` raises is thrown into the flow."""
    try:
        effect = next(flow)
        while True:
            try:
                result = perform(effect)
            except BaseException as error:  # noqa: BLE001 - the flow gives back its lock whatever came
                effect = flow.throw(error)
            else:
                effect = flow.send(result)
    except StopIteration as stop:
        value: T = stop.value
        return value


async def arun(flow: Flow[T], perform: Callable[[Effect], Awaitable[Any]]) -> T:
    """``run``, awaiting each effect; a cancellation is thrown into the flow as well."""
    try:
        effect = next(flow)
        while True:
            try:
                result = await perform(effect)
            except GeneratorExit:
                # The coroutine is closed: nothing can be awaited any more, not even to clean up.
                flow.close()
                raise
            except BaseException as error:  # noqa: BLE001 - as above, and a cancellation
                effect = flow.throw(error)
            else:
                effect = flow.send(result)
    except StopIteration as stop:
        value: T = stop.value
        return value
