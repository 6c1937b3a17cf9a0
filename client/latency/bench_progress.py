"""Where a long run is: one line a part, and on a terminal a bar with the time that is left."""

from __future__ import annotations

import asyncio
import sys
import time
from types import TracebackType
from typing import Self

WIDTH = 24
TICK_S = 0.5


class Progress:
    """Async context manager around the run; `begin` names the part that begins. Writes to standard error.

    expected_s: of the whole run; the bar goes by it and by what the parts say they will take.
    """

    def __init__(self, expected_s: float) -> None:
        self._expected_s = max(expected_s, 1.0)
        self._before_s = 0.0  # expected time of the parts that are over
        self._part_s = 0.0
        self._what = ""
        self._begun_s = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._ticking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._terminal:
            self._ticking = asyncio.create_task(self._tick())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
            print(f"\r{'':78}\r", end="", file=sys.stderr, flush=True)

    def begin(self, what: str, expected_s: float) -> None:
        self._before_s += self._part_s
        self._what, self._part_s, self._begun_s = what, expected_s, time.monotonic()
        if not self._terminal:
            print(f"[{self.share():4.0%}] {what}", file=sys.stderr, flush=True)

    def say(self, sentence: str) -> None:
        """Something to know beside the bar."""
        print(f"\r{sentence:<78}" if self._terminal else sentence, file=sys.stderr, flush=True)

    def share(self) -> float:
        """0..1; a part that takes longer than it should waits at its end."""
        passed_s = min(time.monotonic() - self._begun_s, self._part_s)
        return min((self._before_s + passed_s) / self._expected_s, 1.0)

    async def _tick(self) -> None:
        while True:
            done = round(WIDTH * self.share())
            left_s = self._expected_s * (1 - self.share())
            line = f"[{'#' * done}{'.' * (WIDTH - done)}] about {left_s:3.0f} s left: {self._what}"
            print(f"\r{line[:78]:<78}", end="", file=sys.stderr, flush=True)
            await asyncio.sleep(TICK_S)
