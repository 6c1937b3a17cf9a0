"""AudioWindower: a growing stream in, overlapping windows out. Synchronous, and blind to packetisation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.windowing import AudioWindow, WindowSpec


class AudioWindower:
    """Cuts a 16 kHz stream as `WindowSpec.cut` cuts the whole recording.

    push(pcm) returns the windows that became complete; flush() the rest, padded with zeros.
    Memory is bounded by one window plus one push.
    """

    def __init__(self, spec: WindowSpec) -> None:
        self.spec = spec
        self._index = 0
        self._received = 0
        self._origin = spec.start_sample(0)  # stream position of _buffer[0]
        self._buffer: npt.NDArray[np.float32] = np.zeros(spec.left_samples, np.float32)

    @property
    def received_samples(self) -> int:
        return self._received

    @property
    def next_index(self) -> int:
        return self._index

    def push(self, pcm: npt.NDArray[np.float32]) -> list[AudioWindow]:
        """pcm: float32 [samples] in [-1, 1], any length."""
        self._received += len(pcm)
        self._buffer = np.concatenate([self._buffer, pcm])
        windows = []
        while self._origin + len(self._buffer) >= self.spec.end_sample(self._index):
            windows.append(self._take())
        return windows

    def flush(self) -> list[AudioWindow]:
        """The windows still missing to cover every sample received; the stream ends here."""
        windows = []
        while self._index < self.spec.chunk_count(self._received):
            missing = self.spec.end_sample(self._index) - self._origin - len(self._buffer)
            self._buffer = np.concatenate([self._buffer, np.zeros(max(missing, 0), np.float32)])
            windows.append(self._take())
        return windows

    def _take(self) -> AudioWindow:
        start = self.spec.start_sample(self._index)
        first = start - self._origin
        window = AudioWindow(
            self._index, start, self._buffer[first : first + self.spec.window_samples].copy()
        )
        self._index += 1
        drop = self.spec.start_sample(self._index) - self._origin
        self._buffer = self._buffer[drop:]
        self._origin += drop
        return window
