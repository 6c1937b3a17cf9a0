"""Any sound or video file as samples, decoded once for two listeners: people and the model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np
from numpy.typing import NDArray

HEARD_RATE = 48_000


class SoundFileError(ValueError):
    """A file that gives no sound; the message says why and what to do."""


class SoundFile:
    """A file's first audio stream. SoundFileError if there is no such file, or no sound in it."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise SoundFileError(f"There is no sound file {path}.")
        self.path = path
        try:
            self._container = av.open(str(path))
        except (av.FFmpegError, OSError) as error:
            raise SoundFileError(
                f"{path} cannot be read as sound ({error}). Try WAV, FLAC or MP3."
            ) from error
        if not self._container.streams.audio:
            self._container.close()
            raise SoundFileError(f"{path} holds no sound; give a file with an audio stream.")

    @property
    def expected_s(self) -> float | None:
        """Duration that the file claims, in seconds; None when it does not say."""
        duration = self._container.duration
        return duration / av.time_base if duration else None

    def pieces(self, rate: int) -> Iterator[tuple[NDArray[np.int16], NDArray[np.float32]]]:
        """Stretches of the sound, mono, each as int16 [n] at 48 kHz and as float32 [m] in [-1, 1] at `rate`.

        Both begin with the file's first sample. SoundFileError where the file is damaged.
        """
        heard = _Resampler("s16", HEARD_RATE, np.int16)
        modelled = _Resampler("flt", rate, np.float32)
        seconds = 0.0
        try:
            for frame in self._container.decode(audio=0):
                seconds += frame.samples / frame.sample_rate
                frame.pts = None  # the samples' own number is the clock
                yield heard.push(frame), np.clip(np.nan_to_num(modelled.push(frame)), -1.0, 1.0)
        except (av.FFmpegError, ValueError) as error:
            raise SoundFileError(f"{self.path} is damaged after {seconds:.1f} s ({error}).") from error
        yield heard.push(None), np.clip(modelled.push(None), -1.0, 1.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()


class _Resampler:
    """Frames in, mono samples out; None flushes."""

    def __init__(self, sample_format: str, rate: int, kind: type[np.generic]) -> None:
        self._resampler = av.AudioResampler(format=sample_format, layout="mono", rate=rate)
        self._kind = kind

    def push(self, frame: av.AudioFrame | None) -> NDArray[Any]:
        parts = [piece.to_ndarray()[0] for piece in self._resampler.resample(frame)]
        return np.concatenate(parts) if parts else np.zeros(0, self._kind)
