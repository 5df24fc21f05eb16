from __future__ import annotations

import asyncio
from typing import Any

import pytest

from django_baikal.protocol.driver import arun, run
from django_baikal.protocol.effects import Flow, Now, RandomToken, Sleep


def drive(flow: Flow[Any], perform: Any) -> Any:
    """Drive the same flow twice, sync and async, and see that both end alike."""

    async def aperform(effect: Any) -> Any:
        return perform(effect)

    outcomes = []
    for driver in (
        lambda: run(flow(), perform),
        lambda: asyncio.run(arun(flow(), aperform)),
    ):
        try:
            outcomes.append(driver())
        except Exception as error:  # noqa: BLE001 - what it is, is compared below
            outcomes.append(repr(error))
    assert outcomes[0] == outcomes[1]
    return outcomes[0]


def test_a_flow_gets_the_result_of_each_effect_in_turn():
    def flow() -> Flow[Any]:
        first = yield Now()
        second = yield RandomToken(3)
        return first, second

    assert drive(flow, lambda effect: type(effect).__name__) == ("Now", "RandomToken")


def test_a_flow_that_asks_for_nothing_ends_at_once():
    def flow() -> Flow[Any]:
        return "done"
        yield Now()

    assert drive(flow, None) == "done"


def test_an_error_of_an_effect_is_thrown_into_the_flow_which_may_go_on():
    def flow() -> Flow[Any]:
        try:
            yield Sleep(1)
        except OSError as error:
            again = yield Now()
            return str(error), again
        return "not reached"

    def perform(effect: Any) -> Any:
        if isinstance(effect, Sleep):
            raise OSError("broken")
        return "time"

    assert drive(flow, perform) == ("broken", "time")


def test_an_error_that_the_flow_does_not_handle_comes_out():
    def flow() -> Flow[Any]:
        yield Now()

    def perform(effect: Any) -> Any:
        raise OSError("broken")

    assert drive(flow, perform) == "OSError('broken')"


def test_a_flow_can_clean_up_with_effects_after_an_interruption_and_a_cancellation():
    done: list[str] = []

    def flow() -> Flow[Any]:
        try:
            yield Sleep(1)
        finally:
            yield Now()
            done.append("cleaned up")

    def perform(effect: Any) -> Any:
        if isinstance(effect, Sleep):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(flow(), perform)

    async def main() -> None:
        async def aperform(effect: Any) -> Any:
            if isinstance(effect, Sleep):
                await asyncio.sleep(30)

        task = asyncio.create_task(arun(flow(), aperform))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert done == ["cleaned up", "cleaned up"]
