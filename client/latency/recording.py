"""What a receiver saw and heard, on one monotonic clock, before anything is concluded from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from client.latency.trace import Trace
from stream.protocol import SAMPLE_RATE

Array = npt.NDArray[np.float64]

SIDE = 64
"""Of the small pictures that are kept (browser.js has the same)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """All times in seconds of one monotonic clock.

    offered_s: when the offer left; connected_s: when the connection stood; mouth_s: when sample 0 of the probe
    sounded. frame_s [T]: when each decoded picture was there; gray uint8 [T, S, S]: the pictures, small.
    packet_s [P]: when each piece of sound was there; packet_start int [P]: its first sample in `heard`, int16 [N] 48
    kHz. late_s [M]: how late the harness itself handed over each microphone packet. trace: notes for the spans.
    server: the server's last own figures.
    """

    offered_s: float
    connected_s: float
    mouth_s: float
    frame_s: Array
    gray: npt.NDArray[np.uint8]
    packet_s: Array
    packet_start: npt.NDArray[np.int64]
    heard: npt.NDArray[np.int16]
    late_s: Array = field(default_factory=lambda: np.zeros(0))
    trace: Trace = field(default_factory=Trace)
    server: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    size: tuple[int, int] = (0, 0)

    def heard_s(self, sample: Array) -> Array:
        """When sample numbers of `heard` came to the ear: a player that starts each packet as it arrives."""
        index = np.clip(
            np.searchsorted(self.packet_start, sample, side="right") - 1, 0, len(self.packet_s) - 1
        )
        return np.asarray(self.packet_s[index] + (sample - self.packet_start[index]) / SAMPLE_RATE)
