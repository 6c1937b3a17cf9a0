"""Tests of timing mean nothing while the machine gives their process no time. Whether it does is told by a metronome,
never by what a test measures: a failure counts unless the metronome was held up as well."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import ParamSpec, Self

import numpy as np
import pytest

P = ParamSpec("P")

ALLOWED_S = 0.2
TICK_S = 0.01
HELD_UP_S = (
    0.05  # a jitter buffer takes two or three packets without a trace; a quiet machine shows 5 ms at most
)


def require_real_time(*, media_s: float, wall_s: float) -> None:
    """Skips the test if `media_s` of sound and picture took clearly longer than that to come."""
    if wall_s > media_s + ALLOWED_S:
        pytest.skip(f"this machine is too busy: {media_s:.1f} s of media took {wall_s:.1f} s")


class Metronome:
    """`async with Metronome() as metronome`: for how long others held this event loop up, and when. What its own
    thread computes in that time is not counted: a server that blocks its loop fails its tests."""

    def __init__(self) -> None:
        self._ticks: list[tuple[float, float]] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._tick(), name="metronome")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _tick(self) -> None:
        while True:
            began_s, computed_s = time.monotonic(), time.thread_time()
            await asyncio.sleep(TICK_S)
            now_s = time.monotonic()
            self._ticks.append((now_s, now_s - began_s - TICK_S - (time.thread_time() - computed_s)))

    def held_up(self, start: float = 0.0, end: float = np.inf) -> np.ndarray:
        """[K] seconds taken by others, of the ticks between these wall times."""
        return np.array([taken for at, taken in self._ticks if start <= at <= end] or [0.0])


def in_real_time(test: Callable[P, Awaitable[None]]) -> Callable[P, Awaitable[None]]:
    """A test that fails while others held its process up has measured nothing: it is skipped, by name."""

    @functools.wraps(test)
    async def watched(*args: P.args, **options: P.kwargs) -> None:
        async with Metronome() as metronome:
            try:
                await test(*args, **options)
            except (AssertionError, TimeoutError):
                worst_s = metronome.held_up().max()
                if worst_s < HELD_UP_S:
                    raise
                pytest.skip(f"this machine is too busy: it held the test up for {1_000 * worst_s:.0f} ms")

    return watched
