"""Calls of coroutines that run at once, in an event loop that is kept.

There is one for the whole process: the baikal-sdk's sessions belong to the first that uses them.
"""

from __future__ import annotations

import asyncio
import atexit
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

RUNNER = asyncio.Runner()
atexit.register(RUNNER.close)


class Together:
    """A case that calls ``make()`` once, in the loop, and awaits what that gives many times.

    ``close`` is awaited at the end. ``stall`` is another case: it runs each call once, and gives
    the longest time that nothing else could run in the loop, in seconds.
    """

    #: How often the loop is asked whether it still runs, in seconds.
    TICK = 0.001

    def __init__(
        self,
        at_once: int,
        make: Callable[[], Callable[[], Awaitable[object]]],
        close: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self.at_once = at_once
        self.call = RUNNER.run(within(make))
        if close:
            atexit.register(lambda: RUNNER.run(awaited(close)))

    async def batches(self, number: int) -> None:
        for _ in range(number):
            await asyncio.gather(*(self.call() for _ in range(self.at_once)))

    def __call__(self, n: int) -> dict[str, float]:
        number = max(1, round(n / self.at_once))
        RUNNER.run(self.batches(number))
        return {"n": number * self.at_once}

    def stall(self, _n: int) -> dict[str, float]:
        return {"n": self.at_once, "stall": RUNNER.run(self.watched())}

    async def watched(self) -> float:
        worst = 0.0

        async def watch() -> None:
            nonlocal worst
            while True:
                before = time.perf_counter()
                await asyncio.sleep(self.TICK)
                worst = max(worst, time.perf_counter() - before - self.TICK)

        task = asyncio.create_task(watch())
        await asyncio.sleep(0)
        await self.batches(1)
        await asyncio.sleep(0)
        task.cancel()
        return worst


async def within(make: Callable[[], T]) -> T:
    """Call this with the loop running."""
    return make()


async def awaited(call: Callable[[], Awaitable[object]]) -> None:
    """Await what this gives."""
    await call()
