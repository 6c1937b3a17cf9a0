"""Sound of unknown length, cut into windows as it comes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.windowing import AudioWindow, WindowSpec


class WindowCutter:
    """Turns samples into the windows of a `WindowSpec`, keeping only what later windows need."""

    def __init__(self, spec: WindowSpec) -> None:
        self._spec = spec
        self._kept: NDArray[np.float32] = np.zeros(spec.left_samples, np.float32)
        self._index = 0
        self.samples = 0

    @property
    def frames(self) -> int:
        """Video frames that the samples so far last, the last one begun being counted."""
        return -(-self.samples // self._spec.samples_per_frame)

    def push(self, pcm: NDArray[np.float32]) -> Iterator[AudioWindow]:
        """The windows that these samples complete."""
        self.samples += len(pcm)
        yield from self._add(pcm)

    def flush(self) -> Iterator[AudioWindow]:
        """The windows of the remaining samples, followed by silence."""
        while self._index * self._spec.hop_samples < self.samples:
            yield from self._add(np.zeros(self._spec.hop_samples, np.float32))

    def _add(self, pcm: NDArray[np.float32]) -> Iterator[AudioWindow]:
        spec = self._spec
        self._kept = np.concatenate([self._kept, pcm])
        while len(self._kept) >= spec.window_samples:
            window = self._kept[: spec.window_samples].copy()
            yield AudioWindow(self._index, spec.start_sample(self._index), window)
            self._kept = self._kept[spec.hop_samples :]
            self._index += 1
