"""One presentation clock for both tracks of a session.

The outgoing stream is a row of 40 ms slots, counted from the start of the session and never interrupted:
    due(position) = origin + position / 48000            position in 48 kHz samples, 1920 to a slot
and each slot shows one frame of media time:
    media frame = slot - lag                             None while holding (before speech, at a re-anchor)
`anchor` chooses lag and nudges the origin by at most 20 ms so that media time 0 is due exactly one playout
delay after it was heard. A re-anchor raises the lag: both tracks hold for the same slots; so does a longer
delay, and a shorter one leaves out the same frames of both.
`slew` follows the speaker's sound card, whose crystal differs from ours. Not thread-safe: used on the event loop only.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

from stream.protocol import FPS, SAMPLE_RATE

SLOT_SAMPLES = SAMPLE_RATE // FPS


class PresentationClock:
    """Maps slots to wall time and media time.

    playout_delay_ms: from the moment a sample was heard to its release.
    now: a monotonic clock in seconds; sleep: waits for seconds (both injected, so tests run in virtual time).
    """

    def __init__(
        self,
        *,
        playout_delay_ms: float,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.playout_delay_ms = playout_delay_ms
        self.reanchors = 0
        self._now = now
        self._sleep = sleep
        self._origin = now()
        self._frontier = -1  # the last slot that either track has asked for
        self._lags: list[tuple[int, int, int]] = []  # (from slot, slots held there, lag), ascending

    @property
    def anchored(self) -> bool:
        return bool(self._lags)

    def now(self) -> float:
        return self._now()

    def anchor(self, heard_at: float) -> None:
        """Media sample 0 was heard at `heard_at`; called once."""
        if self._lags:
            raise RuntimeError("The clock is anchored already; use reanchor to shift it.")
        due = heard_at + self.playout_delay_ms / 1000
        slot = max(round((due - self._origin) * FPS), self._frontier + 1)
        self._origin = due - slot / FPS
        self._lags.append((slot, 0, slot))

    def reanchor(self, frames: int) -> None:
        """Shift everything that has not been released yet `frames` slots later, once, for both tracks."""
        if frames < 1:
            raise ValueError(f"A re-anchor of {frames} frames does not exist; it shifts by at least one.")
        slot = self._frontier + 1
        self._lags.append((slot, frames, self._lags[-1][2] + frames))
        del self._lags[:-4]
        self.reanchors += 1

    def lengthen(self, frames: int) -> None:
        """A longer playout delay from here on: everything shifts as in a re-anchor, but nothing was heard later."""
        self.reanchor(frames)
        self.reanchors -= 1
        self.playout_delay_ms += 1000 * frames / FPS

    def shorten(self, frames: int) -> None:
        """A shorter playout delay from here on: both tracks leave out what is due in the next `frames` slots."""
        self._lags.append((self._frontier + 1, 0, self._lags[-1][2] - frames))
        del self._lags[:-4]
        self.playout_delay_ms -= 1000 * frames / FPS

    def slew(self, seconds: float) -> None:
        """Move every due time by a small amount (later if positive)."""
        self._origin += seconds

    def due(self, position: int) -> float:
        return self._origin + position / SAMPLE_RATE

    def media_frame(self, slot: int) -> int | None:
        """The frame of media time shown in `slot`, or None where the stream holds."""
        for start, held, lag in reversed(self._lags):
            if slot >= start:
                return None if slot < start + held else slot - lag
        return None

    def heard(self, media_samples: int) -> float:
        """When sample `media_samples` (48 kHz) is expected to be heard; only once anchored."""
        return (
            self._origin
            + self._lags[-1][2] / FPS
            + (media_samples / SAMPLE_RATE)
            - self.playout_delay_ms / 1000
        )

    def released(self, media_samples: int) -> float:
        """When sample `media_samples` (48 kHz) is due; only once anchored."""
        return self.heard(media_samples) + self.playout_delay_ms / 1000

    def media_heard(self, at: float) -> int:
        """How many samples of the stream should have been heard at wall time `at`."""
        return math.floor((at - self.heard(0)) * SAMPLE_RATE)

    async def wait(self, position: int, *, catch_up_samples: int, lead_s: float = 0.0) -> int:
        """Wait until `lead_s` before `position` is due and return it.

        After a stall of more than `catch_up_samples` the missed slots are given up: the position that is due
        now is returned instead, on the same grid, so that a stall never becomes a lasting delay.
        """
        delay = self.due(position) - lead_s - self._now()
        if delay > 0:
            await self._sleep(delay)
        elif -delay * SAMPLE_RATE > catch_up_samples:
            behind = math.floor(-delay * FPS)
            position += behind * SLOT_SAMPLES
        self._frontier = max(self._frontier, position // SLOT_SAMPLES)
        return position
