"""What waits for its slot: the speaker's own sound and the frames, both by media time, both bounded."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stream.protocol import FPS, SAMPLE_RATE

AUDIO_CAPACITY_MS = 4_000
VIDEO_CAPACITY_MS = 1_200
QUIET = 100.0
"""RMS of what nobody hears, int16."""
PAUSE = 0.25
"""RMS of a pause in speech, against that of the last seconds."""

Pcm = npt.NDArray[np.int16]
Frame = npt.NDArray[np.uint8]


class AudioPlayout:
    """A ring of 48 kHz int16 mono, addressed by stream position; the oldest samples are overwritten.

    A later write to the same position replaces what is there: a packet that comes after its gap was
    concealed still repairs the sound if it has not been played.
    """

    def __init__(self, capacity_ms: int = AUDIO_CAPACITY_MS) -> None:
        self._ring: Pcm = np.zeros(capacity_ms * SAMPLE_RATE // 1000, np.int16)
        self._end = 0
        self._read_end = 0
        self.underrun_samples = 0

    @property
    def end(self) -> int:
        """One past the last position written."""
        return self._end

    @property
    def buffered_ms(self) -> float:
        return max(self._end - self._read_end, 0) * 1000 / SAMPLE_RATE

    def write(self, position: int, pcm: Pcm) -> None:
        size = len(self._ring)
        if len(pcm) > size:
            position, pcm = position + len(pcm) - size, pcm[-size:]
        first = max(self._read_end, self._end - size, 0)
        if position < first:
            position, pcm = first, pcm[first - position :]
        at = position % size
        head = min(len(pcm), size - at)
        self._ring[at : at + head] = pcm[:head]
        self._ring[: len(pcm) - head] = pcm[head:]
        self._end = max(self._end, position + len(pcm))

    def read(self, position: int, samples: int) -> Pcm:
        """int16 [samples]; zeros, counted, where nothing was written."""
        out = np.zeros(samples, np.int16)
        size = len(self._ring)
        first = max(position, self._end - size, 0)
        last = min(position + samples, self._end)
        if first < last:
            out[first - position : last - position] = self._ring[np.arange(first, last) % size]
        self.underrun_samples += samples - max(last - first, 0)
        self._read_end = max(self._read_end, position + samples)
        return out

    def is_quiet(self, position: int, samples: int) -> bool:
        """Whether these samples, not played yet, are a pause in what is there."""
        first, last = max(position, self._end - len(self._ring), 0), min(position + samples, self._end)
        if first >= last:
            return False
        pause = self._ring[np.arange(first, last) % len(self._ring)].astype(np.float32)
        level = np.sqrt(np.square(self._ring.astype(np.float32)).mean())
        return bool(np.sqrt(np.square(pause).mean()) <= max(QUIET, PAUSE * level))


class VideoPlayout:
    """Frames by index, at most `capacity_ms` of them; when full the oldest goes, counted."""

    def __init__(self, capacity_ms: int = VIDEO_CAPACITY_MS) -> None:
        self._capacity = capacity_ms * FPS // 1000
        self._frames: dict[int, Frame] = {}
        self._slot = -1  # the last slot that was served
        self._shown = -1  # the frame it showed: pictures never run backwards
        self.late_frames = 0
        self.dropped_frames = 0

    @property
    def buffered_ms(self) -> float:
        return len(self._frames) * 1000 / FPS

    def push(self, first_frame: int, frames: Frame) -> None:
        """frames: uint8 [n, H, W, 3]. A frame whose slot has passed is late; it is still shown if it is newer
        than the picture on the screen."""
        for index, frame in enumerate(frames, first_frame):
            self.late_frames += index <= self._slot
            if index > self._shown:
                self._frames[index] = frame
        while len(self._frames) > self._capacity:
            del self._frames[min(self._frames)]
            self.dropped_frames += 1

    def take(self, index: int) -> tuple[Frame | None, bool]:
        """The newest frame up to `index` that was not taken before (None: repeat the last), and whether it
        is the very frame of this slot."""
        self._slot = index
        due = [key for key in self._frames if key <= index]
        if not due:
            return None, False
        newest = self._shown = max(due)
        frame = self._frames[newest]
        for key in due:
            del self._frames[key]
        return frame, newest == index
