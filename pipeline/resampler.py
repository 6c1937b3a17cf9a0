"""Mono sound at one rate, from pieces of any rate."""

from __future__ import annotations

import av
import numpy as np
from numpy.typing import NDArray

LOWEST_RATE, HIGHEST_RATE = 1_000, 1_000_000
"""In Hz; below and above nobody records speech."""


class Resampler:
    """push(float32 [n], its rate) -> float32 [m] in [-1, 1] at `rate`; what the filter still holds comes later.

    A rate that changes is followed, and sound that has the right one passes as it is.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._from = rate
        self._resampler: av.AudioResampler | None = None

    def push(self, sound: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
        rest = np.zeros(0, np.float32)
        if rate != self._from:
            rest = self.flush()
            self._from = rate
            if rate != self.rate:
                self._resampler = av.AudioResampler(format="flt", layout="mono", rate=self.rate)
        passed = sound if self._resampler is None else self._resample(_frame(sound, rate))
        return np.concatenate([rest, passed])

    def flush(self) -> NDArray[np.float32]:
        """What is left; the next piece begins anew."""
        rest = np.zeros(0, np.float32) if self._resampler is None else self._resample(None)
        self._resampler, self._from = None, self.rate
        return rest

    def _resample(self, frame: av.AudioFrame | None) -> NDArray[np.float32]:
        if self._resampler is None or (frame is not None and not frame.samples):
            return np.zeros(0, np.float32)
        parts = [piece.to_ndarray()[0] for piece in self._resampler.resample(frame)]
        sound = np.concatenate([np.zeros(0, np.float32), *parts])
        return np.asarray(np.clip(sound, -1.0, 1.0), np.float32)


def _frame(sound: NDArray[np.float32], rate: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound)[None], format="flt", layout="mono")
    frame.sample_rate = rate
    return frame
