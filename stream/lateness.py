"""Whether a session's playout delay should be longer, because pictures come too late for it, or may be shorter again.

The delay is chosen at the start of a session, from steps that the machine made in warm-up. Where more runs on it later
(other sessions, a browser, a slow phase), pictures that are always late would stand in wrong slots for the rest of the
session: better one pause of a frame or two, and then every picture in its own. When the machine has recovered, the
delay comes down to what it was at first. Judged by the time that chunks cover, however many they are.
"""

from __future__ import annotations

import math
from collections import deque
from itertools import takewhile

from stream.protocol import FPS

SETTLING_S = 2.0
"""At first, while a connection comes up and codecs and browsers warm up, chunks are late that will not be later."""
RAISE_WITHIN_S, RAISE_AFTER_S = 4.0, 1.6
"""So much lateness within so much time, and a longer delay is better. A stall, too, makes chunks late until the model
has caught up, but that passes."""
TYPICAL = 0.75
"""The delay grows by what this share of the late chunks would have needed."""
MOST_FRAMES = 4
"""No more than this altogether: a machine that is later still has no time for the session, whatever the delay."""
LOWER_AFTER_S, MOST_PATIENCE_S = 20.0, 320.0
"""A delay comes down after so much time in which all could have kept the shorter one; twice as much each time that it
had to be raised again."""
RESERVE_S = 0.015
SPARED = 0.01
"""Share of chunks that may be the exception to that."""


class Lateness:
    """Told of every chunk; says by how many frames the delay should change. Event loop only.

    chunk_s: how much time a chunk covers. raised_frames: by how much the delay is longer than at first.
    """

    def __init__(self, chunk_s: float) -> None:
        self._chunk_s = chunk_s
        self._chunks: deque[tuple[float, float]] = deque()  # (when, how late: negative before it was due)
        self._settled_s: float | None = None
        self._patience_s = LOWER_AFTER_S
        self._lowered = False
        self.raised_frames = 0

    def made(self, late_s: float, at: float) -> int:
        """A chunk's first frame was there `late_s` after it was due (negative: before). The frames by which the delay
        should change, 0 for not at all: `changed` says that it did."""
        if self._settled_s is None:
            self._settled_s = at + SETTLING_S
        if at < self._settled_s:
            return 0
        self._chunks.append((at, late_s))
        while at - self._chunks[0][0] > self._patience_s:
            self._chunks.popleft()
        return self._to_raise(at) or -self._to_lower(at)

    def left_out(self, at: float) -> int:
        """A chunk was not made, because it would have been too late: by a frame, if nothing else is known."""
        return self.made(1 / FPS, at)

    def changed(self, frames: int) -> None:
        """The delay is `frames` longer from here on: what was seen before says nothing about it."""
        self.raised_frames += frames
        if frames > 0 and self._lowered:
            self._patience_s = min(2 * self._patience_s, MOST_PATIENCE_S)
        self._lowered = frames < 0
        self._chunks.clear()

    def _to_raise(self, at: float) -> int:
        recent = takewhile(lambda chunk: at - chunk[0] <= RAISE_WITHIN_S, reversed(self._chunks))
        late = sorted(late for _, late in recent if late > 0)
        if len(late) * self._chunk_s < RAISE_AFTER_S:
            return 0
        needed = math.ceil(late[int(TYPICAL * len(late))] * FPS)
        return min(needed, MOST_FRAMES - self.raised_frames)

    def _to_lower(self, at: float) -> int:
        """One frame, if it is to spare."""
        if not self.raised_frames or len(self._chunks) * self._chunk_s < 0.9 * self._patience_s:
            return 0
        exceptions = sum(late > -1 / FPS - RESERVE_S for _, late in self._chunks)
        return int(exceptions <= SPARED * len(self._chunks))
