"""Sound between a device's own form, int16 [N, channels] at any rate, and ours: int16 [N], 48 kHz, mono."""

from __future__ import annotations

import fractions

import av
import numpy as np
import numpy.typing as npt

from stream.protocol import SAMPLE_RATE

CANCELS, AGREES = (
    0.35,
    0.5,
)  # power of the mean over that of the loudest channel: 0.25 where all others are dead
MEMORY = 0.9  # of a channel's power, from block to block

Pcm = npt.NDArray[np.int16]


class Mixdown:
    """Channels into one: their mean, or the loudest of them while the mean loses it (a dead side, an inverted one).

    Changes from one to the other are faded over a block.
    """

    def __init__(self, channels: int) -> None:
        self._mean = np.full(channels, 1 / channels, np.float32)
        self._weights = self._mean
        self._power = np.zeros(channels)
        self._mean_power = 0.0

    def push(self, block: Pcm) -> Pcm:
        """[N, channels] in, [N] out."""
        if block.shape[1] == 1 or not len(block):
            return block[:, 0].copy()
        sound = block.astype(np.float32)
        self._power = np.maximum(MEMORY * self._power, np.square(sound).mean(axis=0))
        self._mean_power = max(MEMORY * self._mean_power, float(np.square(sound @ self._mean).mean()))
        before, self._weights = self._weights, self._choose()
        steps = np.linspace(0, 1, len(block), dtype=np.float32)[:, None]
        weights = before + steps * (self._weights - before)
        return np.asarray(np.clip(np.rint((sound * weights).sum(axis=1)), -32768, 32767), np.int16)

    def _choose(self) -> npt.NDArray[np.float32]:
        loudest = int(self._power.argmax())
        share = self._mean_power / self._power[loudest] if self._power[loudest] else 1.0
        mixed = self._weights is self._mean
        if share > (CANCELS if mixed else AGREES):
            return self._mean
        weights = np.zeros_like(self._mean)
        weights[loudest] = 1
        return weights


class Resampler:
    """[N] at one rate in, about as long at another out; what the filter needs ahead waits (under a millisecond)."""

    def __init__(self, rate_in: int, rate_out: int) -> None:
        self._rate_in = rate_in
        self._resampler = av.AudioResampler(format="s16", layout="mono", rate=rate_out)
        self._same = rate_in == rate_out
        self._position = 0

    def push(self, pcm: Pcm) -> Pcm:
        if self._same or not len(pcm):
            return pcm
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(pcm[None]), format="s16", layout="mono")
        frame.sample_rate = self._rate_in
        frame.time_base = fractions.Fraction(1, self._rate_in)
        frame.pts = self._position
        self._position += len(pcm)
        pieces = [piece.to_ndarray()[0] for piece in self._resampler.resample(frame)]
        return np.concatenate([np.zeros(0, np.int16), *pieces])


class FromDevice:
    """A microphone's blocks [N, channels] as 48 kHz mono."""

    def __init__(self, rate: int, channels: int) -> None:
        self._mixdown = Mixdown(channels)
        self._resampler = Resampler(rate, SAMPLE_RATE)

    def push(self, block: Pcm) -> Pcm:
        return self._resampler.push(self._mixdown.push(block))


class ToDevice:
    """48 kHz mono as blocks [N, channels] of a loudspeaker, the same on every channel."""

    def __init__(self, rate: int, channels: int) -> None:
        self._channels = channels
        self._resampler = Resampler(SAMPLE_RATE, rate)

    def push(self, pcm: Pcm) -> Pcm:
        return np.repeat(self._resampler.push(pcm)[:, None], self._channels, axis=1)
