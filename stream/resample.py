"""48 kHz to 16 kHz for the model, exact to the sample: one output for each three inputs, at once.

A linear-phase low-pass of 73 taps; its group delay (36 input samples, 0.75 ms) is left in the signal rather
than waited for, since waiting would cost a whole 20 ms packet. The work is done in blocks of 5 ms, so that
the result is bit for bit the same however the stream is packed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FACTOR = 3
TAPS = 73
CUTOFF = 7_200 / 48_000  # of the input rate: full up to 6.5 kHz, silent from 8 kHz on
BLOCK = 240


def _low_pass() -> npt.NDArray[np.float32]:
    """A windowed sinc (Kaiser, beta 6), gain 1 at 0 Hz."""
    n = np.arange(TAPS) - (TAPS - 1) / 2
    taps = 2 * CUTOFF * np.sinc(2 * CUTOFF * n) * np.kaiser(TAPS, 6.0)
    return np.asarray(taps / taps.sum(), np.float32)


class Downsampler:
    """push(int16 at 48 kHz) -> float32 at 16 kHz in [-1, 1]; what does not fill a block waits."""

    def __init__(self) -> None:
        taps = _low_pass()[::-1]
        outputs = BLOCK // FACTOR
        # One block is one product: history and block [TAPS - 1 + BLOCK] times a banded matrix.
        self._band = np.zeros((TAPS - 1 + BLOCK, outputs), np.float32)
        for k in range(outputs):
            self._band[FACTOR * k : FACTOR * k + TAPS, k] = taps
        self._history: npt.NDArray[np.float32] = np.zeros(TAPS - 1, np.float32)
        self._waiting: npt.NDArray[np.int16] = np.zeros(0, np.int16)

    def push(self, pcm: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
        waiting = np.concatenate([self._waiting, pcm])
        used = len(waiting) // BLOCK * BLOCK
        self._waiting = waiting[used:]
        signal = np.concatenate([self._history, waiting[:used].astype(np.float32) / 32768.0])
        self._history = signal[used:]
        starts = range(0, used, BLOCK)
        if not starts:
            return np.zeros(0, np.float32)
        blocks = [signal[start : start + len(self._band)] @ self._band for start in starts]
        return np.clip(np.concatenate(blocks), -1.0, 1.0)

    def flush(self) -> npt.NDArray[np.float32]:
        """The rest of the stream, padded with zeros to a whole block."""
        missing = -len(self._waiting) % BLOCK
        return self.push(np.zeros(missing, np.int16)) if missing else np.zeros(0, np.float32)
