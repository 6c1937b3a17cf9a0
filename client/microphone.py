"""The track that carries the caller's PCM to the server, paced by a monotonic clock."""

from __future__ import annotations

import asyncio
import fractions
import time

import av
import numpy as np
import numpy.typing as npt
from aiortc import MediaStreamTrack

from pipeline.samples import to_int16
from stream.protocol import SAMPLE_RATE

PACKET_SAMPLES = SAMPLE_RATE // 50
LIVE_LIMIT_SAMPLES = SAMPLE_RATE // 10
PUSH_LIMIT_SAMPLES = SAMPLE_RATE // 2


def as_pcm16(pcm: npt.NDArray[np.generic]) -> npt.NDArray[np.int16]:
    """Mono int16, or float in [-1, 1], as int16 [N]; what is no number is silence."""
    if pcm.ndim != 1:
        raise ValueError(f"PCM has the shape {pcm.shape}; it must be mono, with one dimension.")
    if pcm.dtype == np.int16:
        return np.asarray(pcm, np.int16)
    if np.issubdtype(pcm.dtype, np.floating):
        return to_int16(pcm)
    raise ValueError(f"PCM has the type {pcm.dtype}; it must be int16, or float between -1 and 1.")


def audio_frame(pcm: npt.NDArray[np.int16], position: int) -> av.AudioFrame:
    """int16 [N] at 48 kHz mono as a frame that begins at sample `position` of its track."""
    frame = av.AudioFrame.from_ndarray(pcm[None, :], format="s16", layout="mono")
    frame.sample_rate = SAMPLE_RATE
    frame.time_base = fractions.Fraction(1, SAMPLE_RATE)
    frame.pts = position
    return frame


class MicrophoneTrack(MediaStreamTrack):
    """20 ms packets at 48 kHz mono; silence while nothing was pushed, because the connection must not pause.

    `push` waits for room (a file); `offer` never waits and drops the oldest beyond 100 ms, counted (a live
    microphone, whose clock is never exactly ours).
    """

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._pcm = np.zeros(0, np.int16)
        self._room = asyncio.Event()
        self._position = 0
        self._start_s: float | None = None
        self.dropped_samples = 0

    @property
    def waiting_samples(self) -> int:
        return len(self._pcm)

    @property
    def level_samples(self) -> float:
        """What waits, counted as if it left evenly and not in packets."""
        if self._start_s is None:
            return len(self._pcm)
        until_s = self._start_s + self._position / SAMPLE_RATE - time.monotonic()
        return len(self._pcm) + until_s * SAMPLE_RATE

    async def push(self, pcm: npt.NDArray[np.generic]) -> None:
        samples = as_pcm16(pcm)
        for start in range(0, len(samples), PACKET_SAMPLES):
            while len(self._pcm) >= PUSH_LIMIT_SAMPLES:
                self._room.clear()
                await self._room.wait()
            self._pcm = np.concatenate([self._pcm, samples[start : start + PACKET_SAMPLES]])

    def offer(self, pcm: npt.NDArray[np.generic]) -> None:
        joined = np.concatenate([self._pcm, as_pcm16(pcm)])
        self.dropped_samples += max(0, len(joined) - LIVE_LIMIT_SAMPLES)
        self._pcm = joined[-LIVE_LIMIT_SAMPLES:]

    async def recv(self) -> av.AudioFrame:
        if self._start_s is None:
            self._start_s = time.monotonic()
        ahead_s = self._start_s + self._position / SAMPLE_RATE - time.monotonic()
        if ahead_s > 0:
            await asyncio.sleep(ahead_s)
        packet = np.zeros(PACKET_SAMPLES, np.int16)
        taken, self._pcm = self._pcm[:PACKET_SAMPLES], self._pcm[PACKET_SAMPLES:]
        packet[: len(taken)] = taken
        self._room.set()
        frame = audio_frame(packet, self._position)
        self._position += PACKET_SAMPLES
        return frame
