"""Puts received sound and pictures back on one timeline: moments of one picture and its 40 ms of sound.

An aiortc receiver counts each track's time from that track's own first frame, so the two clocks have to be
set against each other. The server releases sound a fixed time before the picture of its media time: the
earliest arrivals of both, less what aiortc's own buffers hold back, give the shift between them. It is refined as
earlier arrivals come in: a busy start may have delayed all of the first ones. Nothing else changes it, for hours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from client.arrivals import Arrivals
from stream.protocol import AUDIO_LEAD_S, FPS, SAMPLE_RATE

SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
AUDIO_HELD_S = 0.08  # aiortc's audio jitter buffer waits for four more packets of 20 ms
VIDEO_HELD_S = 0.04  # and its video buffer for the next frame's first packet
CALIBRATION_FRAMES = 15
MAX_AUDIO_WAIT_FRAMES = 10
RESYNC_SAMPLES = SAMPLE_RATE // 100  # sound jumps only for an error that could be noticed


@dataclass(frozen=True, kw_only=True, eq=False)
class Moment:
    """One frame's time. picture: uint8 [H, W, 3] RGB; pcm: int16 [1920] at 48 kHz; `repeated` where no new
    picture came for this slot and the last one stands in."""

    index: int
    picture: npt.NDArray[np.uint8]
    pcm: npt.NDArray[np.int16]
    repeated: bool = False

    @property
    def time_s(self) -> float:
        return self.index / FPS


class Timeline:
    """add_audio / add_video / pop; no clock of its own. Times in seconds, arrivals on any monotonic clock."""

    def __init__(self, *, audio_held_s: float = AUDIO_HELD_S, video_held_s: float = VIDEO_HELD_S) -> None:
        self._held_s = audio_held_s - video_held_s - AUDIO_LEAD_S
        self._arrivals = Arrivals()
        self._shift: int | None = None  # audio sample at which picture 0 begins
        self._pictures: dict[int, npt.NDArray[np.uint8]] = {}
        self._pcm = np.zeros(0, np.int16)
        self._pcm_start = 0  # sample index of _pcm[0]
        self._next = 0
        self._newest = -1
        self._received_frames = 0
        self._last: npt.NDArray[np.uint8] | None = None

    def add_audio(self, start_sample: int, pcm: npt.NDArray[np.int16], *, arrival_s: float) -> None:
        """pcm: int16 [N] at 48 kHz; a gap since the last call (lost packets) becomes silence."""
        self._arrivals.sound(start_sample / SAMPLE_RATE, arrival_s)
        end = self._pcm_start + len(self._pcm)
        if start_sample < end:
            pcm = pcm[end - start_sample :]
        elif start_sample > end:
            pcm = np.concatenate([np.zeros(start_sample - end, np.int16), pcm])
        self._pcm = np.concatenate([self._pcm, pcm])

    def add_video(self, time_s: float, picture: npt.NDArray[np.uint8], *, arrival_s: float) -> None:
        index = round(time_s * FPS)
        self._pictures[index] = picture
        self._newest = max(self._newest, index)
        self._received_frames += 1
        self._arrivals.picture(time_s, arrival_s)

    def pop(self) -> list[Moment]:
        """The moments that are complete, in order."""
        difference_s = self._arrivals.difference_s
        if self._received_frames < CALIBRATION_FRAMES or difference_s is None:
            return []
        # A packet of sound leaves the server AUDIO_LEAD_S before its first sample is due, a picture when it is due.
        shift = round((difference_s + self._held_s) * SAMPLE_RATE)
        if self._shift is None:
            self._next = min(self._pictures)
        if self._shift is None or abs(shift - self._shift) > RESYNC_SAMPLES:
            self._shift = shift
        moments: list[Moment] = []
        while self._next <= self._newest:
            start = self._shift + self._next * SAMPLES_PER_FRAME
            missing = start + SAMPLES_PER_FRAME - (self._pcm_start + len(self._pcm))
            if missing > 0 and self._newest - self._next < MAX_AUDIO_WAIT_FRAMES:
                break
            moments.append(self._moment(start))
        return moments

    def _moment(self, start: int) -> Moment:
        picture = self._pictures.pop(self._next, None)
        repeated = picture is None
        if picture is None:
            picture = self._last
        assert picture is not None
        self._last = picture
        for late in [index for index in self._pictures if index < self._next]:
            del self._pictures[late]
        pcm = np.zeros(SAMPLES_PER_FRAME, np.int16)
        first, last = max(start, self._pcm_start), start + SAMPLES_PER_FRAME
        if first < last:
            part = self._pcm[first - self._pcm_start : last - self._pcm_start]
            pcm[first - start : first - start + len(part)] = part
            used = min(last - self._pcm_start, len(self._pcm))
            self._pcm = self._pcm[used:]
            self._pcm_start += used
        moment = Moment(index=self._next, picture=picture, pcm=pcm, repeated=repeated)
        self._next += 1
        return moment
