"""Whether the model's pictures come too late for the playout delay, and how much longer it would have to be.

The delay is chosen at the start of a session, from steps that the machine made in warm-up. Where more runs on it later
(other sessions, a browser, a slow phase), a picture that is always a little late would stand in the wrong slot for the
rest of the session: better one pause of a frame or two, and then every picture in its own.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from stream.protocol import FPS

WINDOW_S = 3.0
FEWEST = 25  # chunks
TOO_MANY = 0.15
"""Share of late chunks from which a longer delay is better: a few late ones are a slow moment, which passes."""
FULL_S = 0.3
"""No longer than this altogether: a machine that is later still has no time for the session, whatever the delay."""


class Lateness:
    """Told of every chunk; says by how many frames the delay should grow. Event loop only."""

    def __init__(self) -> None:
        self._late_s: deque[tuple[float, float]] = deque()  # (when, by how much; negative: in time)
        self.raised_frames = 0

    def made(self, late_s: float, at: float) -> int:
        """A chunk's first frame was there `late_s` after it was due. Returns 0, or the frames that the delay is to grow
        by, which are then counted as given."""
        self._late_s.append((at, late_s))
        while at - self._late_s[0][0] > WINDOW_S:
            self._late_s.popleft()
        values = np.array([late for _, late in self._late_s])
        if len(values) < FEWEST or np.mean(values > 0) < TOO_MANY:
            return 0
        wanted = max(math.ceil(float(np.percentile(values, 90)) * FPS), 1)
        frames = min(wanted, math.floor(FULL_S * FPS) - self.raised_frames)
        self._late_s.clear()
        self.raised_frames += max(frames, 0)
        return max(frames, 0)
