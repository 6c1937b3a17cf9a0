"""Two clocks that never agree: how far sound has drifted from where it should be, and the tiny resampling that
brings it back.

Crystals of sound cards, servers and computers differ by up to some hundred parts in a million: 50 of them are 180 ms
an hour. Sound is therefore read a little faster or slower than it was recorded, by far less than can be heard.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from stream.protocol import SAMPLE_RATE

TAPS = 16  # a windowed sinc; 16 taps keep speech's whole band
PHASES = 512
MAX_RATE = 0.004  # seven hundredths of a semitone
SETTLE_S = 4.0  # an error is worked off over about so long
SMOOTHING_S = 0.5  # devices report their delay with some noise
JUMP_S = 0.012  # sound this far off is seen: mend it at once
WILD_S = 0.060  # and this far off is not noise


def _kernels() -> npt.NDArray[np.float32]:
    """[PHASES + 1, TAPS]: a sinc under a Kaiser window for each fraction of a sample, each summing to one."""
    fraction = np.arange(PHASES + 1)[:, None] / PHASES
    at = np.arange(TAPS)[None, :] - (TAPS // 2 - 1) - fraction
    window = np.i0(8.0 * np.sqrt(np.clip(1 - (at / (TAPS / 2)) ** 2, 0, None))) / np.i0(8.0)
    kernels = np.sinc(at) * window
    return np.asarray(kernels / kernels.sum(axis=1, keepdims=True), np.float32)


KERNELS = _kernels()
BEFORE = TAPS // 2 - 1  # samples that a position needs before it
AFTER = TAPS // 2  # and after it, its own included


def interpolate(
    pcm: npt.NDArray[np.int16], first: int, positions: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """float32 [N], the sound at fractional `positions`. pcm: its samples from `first` on, BEFORE ahead of the
    first position to AFTER beyond the last."""
    whole = np.floor(positions).astype(np.int64)
    phase = np.rint((positions - whole) * PHASES).astype(np.int64)
    index = (whole - BEFORE - first)[:, None] + np.arange(TAPS)[None, :]
    return np.asarray(np.einsum("nt,nt->n", pcm[index].astype(np.float32), KERNELS[phase]), np.float32)


def to_pcm16(sound: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    return np.clip(np.rint(sound), -32_768, 32_767).astype(np.int16)


class DriftFollower:
    """Turns measured errors into a rate of reading, or into a jump where no rate can mend it in time.

    error: where sound is read less where it should be read, in samples; positive is heard too early. jumps: whether
    to ask for them.
    """

    def __init__(self, *, jumps: bool = True) -> None:
        self._jumps = jumps
        self._error: float | None = None
        self.rate = 0.0

    @property
    def error_ms(self) -> float:
        """The smoothed error."""
        return (self._error or 0.0) * 1000 / SAMPLE_RATE

    def reset(self) -> None:
        self._error = None
        self.rate = 0.0

    def follow(self, error: float, samples: int, *, expected_rate: float = 0.0) -> bool:
        """Take an error measured before the next `samples` are read; True asks for a jump, otherwise `rate` is how
        much faster than recorded they are to be read. expected_rate: what is known to be needed."""
        if self._error is None:
            self._error = error
        else:
            weight = 1 - math.exp(-samples / (SMOOTHING_S * SAMPLE_RATE))
            self._error += weight * (error - self._error)
        far = abs(self._error) > JUMP_S * SAMPLE_RATE or abs(error) > WILD_S * SAMPLE_RATE
        if far and self._jumps:
            self.reset()
            return True
        wanted = expected_rate - self._error / (SETTLE_S * SAMPLE_RATE)
        self.rate = max(-MAX_RATE, min(wanted, MAX_RATE))
        return False


class ElasticInput:
    """A live microphone's blocks, stretched a little so that the queue that they go into neither grows nor empties.

    target_samples: what the queue should hold when a block comes, counted as if it emptied evenly.
    """

    def __init__(self, target_samples: int) -> None:
        self._target = target_samples
        self._follower = DriftFollower(jumps=False)  # the queue's own limits mend what is wildly off
        self._pcm = np.zeros(TAPS, np.int16)
        self._position = float(BEFORE)  # in _pcm, where the next sample is read
        self.corrected_samples = 0.0

    @property
    def rate(self) -> float:
        return self._follower.rate

    def push(self, pcm: npt.NDArray[np.int16], level_samples: float) -> npt.NDArray[np.int16]:
        """int16 [N] in, about as many out; `level_samples` are in the queue now."""
        self._follower.follow(self._target - level_samples, len(pcm))
        self._pcm = np.concatenate([self._pcm, pcm])
        step = 1.0 + self._follower.rate
        count = max(0, math.floor((len(self._pcm) - AFTER - 1 - self._position) / step) + 1)
        if not count:
            return np.zeros(0, np.int16)
        positions = self._position + step * np.arange(count, dtype=np.float64)
        out = to_pcm16(interpolate(self._pcm, 0, positions))
        self._position += step * count
        self.corrected_samples += abs(self._follower.rate) * count
        used = max(0, math.floor(self._position) - BEFORE)
        self._pcm = self._pcm[used:]
        self._position -= used
        return out
