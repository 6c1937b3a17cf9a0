"""One channel from several, as they come, for one listener who must not miss a word.

The mean alone makes a recording with a dead channel 6 dB too quiet, and one with an inverted side silent. Here a
channel counts by its power, so a dead one does not count at all; and where more than 6 dB of the loudest channel would
still be cancelled, that channel is taken alone. Equal channels give what each of them holds, to the bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PIECE_S = 0.02
"""The weights change once in such a piece, and gradually over it."""
HALF_LIFE_S = 0.2
"""How fast a channel's power is forgotten once it is quiet; a louder moment counts at once."""
SHARE_HALF_LIFE_S = 0.05
CANCELLED = 0.25
"""Share of the loudest channel's energy below which the sum does not speak for it; back at twice that."""
LEAD = 4.0
"""A channel that is taken alone stays until another has so many times its power."""


class Downmix:
    """push(float32 [C, N], rate) -> float32 [N], without delay. Remembers how loud the channels were."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._power_C: NDArray[np.float32] = np.zeros(0, np.float32)
        self._mixed = self._loudest = 0.0  # energy of late
        self._weights_C: NDArray[np.float32] | None = None
        self._alone: int | None = None

    def push(self, sound_CN: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
        """The number of channels may change; what was remembered is then forgotten."""
        channels, samples = sound_CN.shape
        if channels != len(self._power_C):
            self._forget()
            self._power_C = np.zeros(channels, np.float32)
        if channels == 1 or (sound_CN == sound_CN[0]).all():  # a mono voice on both sides: most live ones
            return np.asarray(sound_CN[0])
        sound_CN = np.ascontiguousarray(sound_CN)
        step = max(round(PIECE_S * rate), 1)
        mixed = [self._mix(sound_CN[:, at : at + step], rate) for at in range(0, samples, step)]
        return np.concatenate(mixed) if mixed else np.zeros(0, np.float32)

    def _mix(self, sound_CN: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
        samples = sound_CN.shape[1]
        moving_CN = sound_CN - sound_CN.mean(axis=1, keepdims=True)  # a constant offset is no voice
        power_CC = moving_CN @ moving_CN.T / samples
        kept = 0.5 ** (samples / (HALF_LIFE_S * rate))
        self._power_C = np.maximum(power_CC.diagonal(), kept * self._power_C)
        if not self._power_C.any():
            return np.asarray(sound_CN.mean(axis=0), np.float32)
        before_C, now_C = self._weights_C, self._weigh(power_CC, samples / rate)
        self._weights_C = now_C
        if before_C is None or np.array_equal(before_C, now_C):
            return np.asarray(now_C @ sound_CN)
        share_N = np.arange(1, samples + 1, dtype=np.float32) / samples
        faded_N = (before_C @ sound_CN) * (1 - share_N) + (now_C @ sound_CN) * share_N
        return np.asarray(faded_N, np.float32)

    def _weigh(self, power_CC: NDArray[np.float32], seconds: float) -> NDArray[np.float32]:
        """What each channel counts; the sum is 1."""
        weights_C = self._power_C / self._power_C.sum()
        kept = 0.5 ** (seconds / SHARE_HALF_LIFE_S)
        self._mixed = kept * self._mixed + seconds * float(weights_C @ power_CC @ weights_C)
        self._loudest = kept * self._loudest + seconds * float(power_CC.diagonal().max())
        loudest = int(np.argmax(self._power_C))
        if self._mixed >= self._loudest * (CANCELLED if self._alone is None else 2 * CANCELLED):
            self._alone = None
            return np.asarray(weights_C)
        if self._alone is None or self._power_C[loudest] > LEAD * self._power_C[self._alone]:
            self._alone = loudest
        return np.asarray(np.eye(len(weights_C), dtype=np.float32)[self._alone])
