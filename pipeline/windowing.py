"""Overlapping audio windows with exact sample indices (no torch here).

Time is counted in samples and frames from one origin, the first sample of the stream. Chunk `i` holds the
video frames `i*hop .. i*hop + hop - 1`; its window holds the audio of those frames, `left_frames` before
them and `right_frames` after them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class AudioWindow:
    """The audio one chunk may see: `pcm` is float32 [left + hop + right] in samples, 16 kHz, in [-1, 1].

    `start_sample` is the stream position of `pcm[0]`; it is negative while the left context reaches back
    beyond the start of the stream, where the audio is zero.
    """

    index: int
    start_sample: int
    pcm: npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class WindowSpec:
    """How a stream is cut: sizes in video frames, one frame being `sample_rate / fps` samples."""

    hop_frames: int = 2
    left_frames: int = 18
    right_frames: int = 2
    fps: int = 25
    sample_rate: int = 16_000

    def __post_init__(self) -> None:
        if self.hop_frames < 1:
            raise ValueError(f"hop_frames is {self.hop_frames}, but a chunk needs at least one frame.")
        if self.left_frames < 0 or self.right_frames < 0:
            raise ValueError(
                f"left_frames is {self.left_frames} and right_frames is {self.right_frames}; "
                "context cannot be negative."
            )
        if self.fps < 1 or self.sample_rate % self.fps:
            raise ValueError(
                f"{self.sample_rate} Hz gives no whole number of samples per frame at {self.fps} fps; "
                "choose rates that divide evenly."
            )

    @property
    def samples_per_frame(self) -> int:
        return self.sample_rate // self.fps

    @property
    def hop_samples(self) -> int:
        return self.hop_frames * self.samples_per_frame

    @property
    def left_samples(self) -> int:
        return self.left_frames * self.samples_per_frame

    @property
    def right_samples(self) -> int:
        return self.right_frames * self.samples_per_frame

    @property
    def window_samples(self) -> int:
        return self.left_samples + self.hop_samples + self.right_samples

    @property
    def latency_ms(self) -> float:
        """Audio that must be heard before the first frame of a chunk can be made: hop + right context."""
        return 1000.0 * (self.hop_samples + self.right_samples) / self.sample_rate

    def start_sample(self, index: int) -> int:
        """Stream position of the first sample of window `index`; negative near the start."""
        return index * self.hop_samples - self.left_samples

    def end_sample(self, index: int) -> int:
        """One past the last sample of window `index`: the chunk can be made once this much was heard."""
        return self.start_sample(index) + self.window_samples

    def frames(self, index: int) -> range:
        """The video frames that chunk `index` makes."""
        return range(index * self.hop_frames, (index + 1) * self.hop_frames)

    def fresh(self, window: AudioWindow, unheard_frames: int = 0) -> npt.NDArray[np.float32]:
        """The samples of a window that no window before it held; of those before, so many frames do not count."""
        heard = self.hop_samples if window.index else self.hop_samples + self.right_samples
        return window.pcm[-(heard + unheard_frames * self.samples_per_frame) :]

    def chunk_count(self, samples: int) -> int:
        """Chunks needed so that `samples` of audio are covered by video."""
        return -(-samples // self.hop_samples)

    def cut(self, pcm: npt.NDArray[np.float32], index: int) -> AudioWindow:
        """Window `index` of a whole recording `pcm` [N]; zeros before its start and after its end."""
        if index < 0:
            raise ValueError(f"Window {index} does not exist; the first one is window 0.")
        if pcm.ndim != 1:
            raise ValueError(f"pcm must be mono with shape [samples], but has shape {list(pcm.shape)}.")
        start, end = self.start_sample(index), self.end_sample(index)
        out = np.zeros(self.window_samples, np.float32)
        first, last = max(start, 0), min(end, len(pcm))
        if first < last:
            out[first - start : last - start] = pcm[first:last]
        return AudioWindow(index=index, start_sample=start, pcm=out)
