"""Time that only moves when a test says so."""

from __future__ import annotations

import asyncio
import heapq
import itertools

SETTLE_ROUNDS = 20


class VirtualClock:
    """now() and sleep() for PresentationClock; `run_until` wakes sleepers in order."""

    def __init__(self) -> None:
        self._time = 1000.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self._time

    async def sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._time + seconds, next(self._order), future))
        await future

    async def run_until(self, at: float) -> None:
        while True:
            for _ in range(SETTLE_ROUNDS):
                await asyncio.sleep(0)
            if not self._sleepers or self._sleepers[0][0] > at:
                break
            due, _, future = heapq.heappop(self._sleepers)
            self._time = max(self._time, due)
            if not future.done():
                future.set_result(None)
        self._time = at

    def jump(self, seconds: float) -> None:
        """A stall: time passes and nobody is woken."""
        self._time += seconds
