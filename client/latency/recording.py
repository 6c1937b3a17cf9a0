"""What a receiver saw and heard, and when, on one monotonic clock."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stream.protocol import SAMPLE_RATE

SIDE = 64
"""Pictures are kept as gray squares of this side: lips move over many pixels, and a minute fits into 6 MB."""


@dataclass(kw_only=True)
class Recording:
    """Times in seconds. offered_s: when the offer was sent; spoken_s: when the probe's first sample was captured."""

    offered_s: float = np.nan
    spoken_s: float = np.nan
    frame_s: list[float] = field(default_factory=list)
    gray: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    heard: list[tuple[float, int, npt.NDArray[np.int16]]] = field(default_factory=list)
    """Arrival, position (48 kHz samples) and int16 samples of each packet of sound."""

    def pictures(self) -> npt.NDArray[np.float64]:
        """[T, SIDE, SIDE], 0..255."""
        return np.array(self.gray, float).reshape(-1, SIDE, SIDE)

    def sound(self) -> tuple[npt.NDArray[np.float32], float]:
        """All that was heard, float32 [N] with gaps as silence, and when its first sample would have been played.

        A loudspeaker plays on and on: the time is that of a player who starts late enough for nearly every packet
        (95 %) to be there in time.
        """
        if not self.heard:
            return np.zeros(0, np.float32), np.nan
        first = self.heard[0][1]
        end = max(position + len(pcm) for _, position, pcm in self.heard)
        samples = np.zeros(end - first, np.float32)
        for _, position, pcm in self.heard:
            if position >= first:
                samples[position - first : position - first + len(pcm)] = pcm / 32768
        starts = [arrival - (position - first) / SAMPLE_RATE for arrival, position, _ in self.heard]
        return samples, float(np.percentile(starts, 95))
