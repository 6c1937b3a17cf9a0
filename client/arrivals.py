"""When sound and pictures come, and what that says about their two clocks."""

from __future__ import annotations

import math

WATCH_S = 60.0
MAX_DRIFT = 300e-6  # crystals are off by less than 100 millionths each


class Arrivals:
    """How much later a track of pictures comes than a track of sound, on the network's best days.

    Each track's earliest arrival counts, for all time: a packet can come late for many reasons, and stay so (a jitter
    buffer that once waited for a lost packet), but never early. The server counts both tracks with one clock, so only
    that clock and ours can drift apart, which moves both tracks alike: what both do within a minute is taken for drift
    and left out, what one does alone is not.
    """

    def __init__(self) -> None:
        self._earliest_s = [math.inf, math.inf]  # sound, pictures; without the drift
        self._lately_s = [math.inf, math.inf]
        self._before_s: list[float] | None = None
        self._drift_s = 0.0
        self._watched_until_s: float | None = None

    def sound(self, time_s: float, arrival_s: float) -> None:
        self._note(0, time_s, arrival_s)

    def picture(self, time_s: float, arrival_s: float) -> None:
        self._note(1, time_s, arrival_s)

    @property
    def difference_s(self) -> float | None:
        """None until both tracks have come."""
        difference_s = self._earliest_s[1] - self._earliest_s[0]
        return difference_s if math.isfinite(difference_s) else None

    def _note(self, track: int, time_s: float, arrival_s: float) -> None:
        if self._watched_until_s is None:
            self._watched_until_s = arrival_s + WATCH_S
        elif arrival_s >= self._watched_until_s:
            self._watched_until_s += WATCH_S
            self._follow()
        offset_s = arrival_s - time_s
        self._lately_s[track] = min(self._lately_s[track], offset_s)
        self._earliest_s[track] = min(self._earliest_s[track], offset_s - self._drift_s)

    def _follow(self) -> None:
        """A minute has passed."""
        lately_s, self._lately_s = self._lately_s, [math.inf, math.inf]
        before_s, self._before_s = self._before_s, lately_s
        if before_s is None:
            return
        moved_s = [now - then for now, then in zip(lately_s, before_s, strict=True)]
        drifts_s = [value for value in moved_s if abs(value) <= MAX_DRIFT * WATCH_S]
        if drifts_s:
            self._drift_s += sum(drifts_s) / len(drifts_s)
