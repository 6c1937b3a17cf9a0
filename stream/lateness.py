"""Whether the model's pictures come too late for the playout delay, so that it should be longer.

The delay is chosen at the start of a session, from steps that the machine made in warm-up. Where more runs on it later
(other sessions, a browser, a slow phase), a picture that is always a little late would stand in the wrong slot for the
rest of the session: better one pause of a frame, and then every picture in its own.
"""

from __future__ import annotations

from collections import deque

SETTLING_S = 5.0
"""At first, while a connection comes up and codecs and browsers warm up, chunks are late that will not be later."""
WINDOW_S = 8.0
FEWEST = 90  # chunks
TOO_MANY = 0.5
"""Share of late chunks from which a longer delay is better. A stall, too, makes chunks late until the model has caught
up, but that passes, and a longer delay would stay."""
MOST_FRAMES = 4
"""No more than this altogether: a machine that is later still has no time for the session, whatever the delay."""


class Lateness:
    """Told of every chunk; says when the delay should grow by a frame. Event loop only."""

    def __init__(self) -> None:
        self._late: deque[tuple[float, bool]] = deque()  # (when, whether too late)
        self._settled_s: float | None = None
        self.raised_frames = 0

    def made(self, late_s: float, at: float) -> bool:
        """A chunk's first frame was there `late_s` after it was due (negative: before). True: the delay is to grow by
        one frame, which is then counted as done."""
        if self._settled_s is None:
            self._settled_s = at + SETTLING_S
        if at < self._settled_s or self.raised_frames == MOST_FRAMES:
            return False
        self._late.append((at, late_s > 0))
        while at - self._late[0][0] > WINDOW_S:
            self._late.popleft()
        if len(self._late) < FEWEST or sum(late for _, late in self._late) < TOO_MANY * len(self._late):
            return False
        self._late.clear()
        self.raised_frames += 1
        return True
