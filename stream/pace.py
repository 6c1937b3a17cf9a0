"""What this machine can keep up with: the chunk size of a new session, its latency budget, and how many sessions.

Small chunks cost latency least and work most: audio features and denoising run once per chunk. So a session gets chunks
of one frame where the machine has time for them beside the sessions that are open already, else of two.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pipeline.machine import cores
from stream.config import MediaConfig
from stream.protocol import FPS, LatencyBudget

HOPS = (1, 2)
BUSIEST = 0.45
"""Share of a chunk's time that the steps of all sessions may take, for chunks of one frame: beside codecs, network and
a browser on the same cores a step takes up to twice as long as alone."""
FULL = 0.9
"""Share of all cores' time that sessions may take: the rest is for network and the page."""
MOST_SESSIONS = 1000
# A live step shares the cores with codecs, network and often the browser, which a step in warm-up does not; the margin
# and `stream.lateness` see to the rest.
LIVE_FACTOR = 1.3


class Pace:
    """Made from warm-up: `times_ms` holds the wall times of a step until its first frame is in hand, and
    `whole_times_ms` until all of it is done, by hop; `encode_ms` is what sending a picture takes."""

    def __init__(
        self,
        media: MediaConfig,
        times_ms: Mapping[int, list[float]],
        whole_times_ms: Mapping[int, list[float]],
        encode_ms: float = 0.0,
    ) -> None:
        self._media = media
        self._p95_ms = {hop: float(np.percentile(times, 95)) for hop, times in times_ms.items() if times}
        self._whole_ms = {hop: float(np.median(times)) for hop, times in whole_times_ms.items() if times}

        self._encode_ms = encode_ms

    @property
    def sessions(self) -> int:
        """How many this machine carries at a time: one always, and as many as its cores have time for in the largest
        chunks, which cost least. What is not measured yet limits nobody."""
        whole_ms = self._whole_ms.get(max(self._whole_ms, default=0))
        if whole_ms is None:
            return MOST_SESSIONS
        hop_ms = 1000 * max(self._whole_ms) / FPS
        share = LIVE_FACTOR * (whole_ms / hop_ms + self._encode_ms * FPS / 1000)
        return max(1, min(int(FULL * cores() / share), MOST_SESSIONS))

    def hop_frames(self, wanted: int | None = None, *, open_sessions: int = 0) -> int:
        """What a session asks for, else the configuration's, else the smallest that leaves time enough."""
        fixed = wanted or self._media.hop_frames
        if fixed is not None:
            return fixed
        for hop in HOPS[:-1]:
            busy = (open_sessions + 1) * self._whole_ms.get(hop, float("inf")) * FPS / (1000 * hop)
            if busy <= BUSIEST:
                return hop
        return HOPS[-1]

    def budget(self, *, hop_frames: int, right_frames: int, open_sessions: int = 0) -> LatencyBudget:
        """The budget of a session with this hop and look-ahead; the step allowance is given or measured. A step may
        have to wait for one of every other session."""
        media = self._media
        allowance_ms = media.step_allowance_ms
        if allowance_ms is None:
            nearest = min(self._p95_ms, key=lambda hop: abs(hop - hop_frames), default=None)
            if nearest is None:
                measured = media.max_step_allowance_ms
            else:
                measured = LIVE_FACTOR * self._p95_ms[nearest] + open_sessions * self._whole_ms.get(
                    nearest, 0.0
                )
            allowance_ms = float(np.clip(measured, media.min_step_allowance_ms, media.max_step_allowance_ms))
        return LatencyBudget(
            hop_ms=1000 * hop_frames / FPS,
            right_context_ms=1000 * right_frames / FPS,
            step_allowance_ms=allowance_ms,
            margin_ms=media.margin_ms,
            floor_ms=media.floor_ms,
        )
