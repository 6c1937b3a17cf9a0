"""An MP4 with H.264 and AAC that is there only when it is complete."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from numpy.typing import NDArray

from pipeline.sound_file import HEARD_RATE


class VideoFileError(ValueError):
    """A video that cannot be written; the message says why and what to do."""


class VideoFile:
    """Written under a temporary name beside `path`; leaving the `with` block without an error renames it.

    Frame k is shown from k / fps on, sample n heard at n / 48000: one origin for both. (The AAC encoder's
    1024 samples of lead-in get negative times, and the file tells players to skip them.)
    """

    def __init__(self, path: Path, width: int, height: int, fps: int) -> None:
        if path.suffix.lower() != ".mp4":
            raise VideoFileError(f"The video {path} must have a name that ends in .mp4.")
        self._path = path
        # Never longer than a name may be, and made of letters that no decoder takes for a protocol or a pattern.
        digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]
        self._unfinished = path.with_name(f".{digest}.unfinished.mp4")
        try:
            # A folder, or a name that is too long, is an error now and not when all is done.
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISDIR(path.stat().st_mode):
                    raise VideoFileError(f"{path} is a folder; give the name of a file in it.")
            self._unfinished.touch()  # PyAV opens it no sooner than the first packet comes
            self._container = av.open(f"file:{self._unfinished}", "w", format="mp4")
        except (av.FFmpegError, OSError) as error:
            raise VideoFileError(
                f"{path} cannot be written ({error.strerror}); is its folder there and writable?"
            ) from error
        self._video = self._container.add_stream(
            "libx264", rate=fps, options={"crf": "17", "preset": "veryfast"}
        )
        self._video.width, self._video.height, self._video.pix_fmt = width, height, "yuv420p"
        self._sound = self._container.add_stream("aac", rate=HEARD_RATE, layout="mono", bit_rate=128_000)
        self._fps, self._samples = fps, 0
        self.frames = 0

    def add_sound(self, pcm: NDArray[np.int16]) -> None:
        """int16 [n] at 48 kHz."""
        if not len(pcm):
            return
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = HEARD_RATE, self._samples, Fraction(1, HEARD_RATE)
        self._samples += len(pcm)
        self._container.mux(self._sound.encode(frame))

    def add_frame(self, picture: NDArray[np.uint8]) -> None:
        """uint8 [H, W, 3] RGB."""
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = self.frames, Fraction(1, self._fps)
        self.frames += 1
        self._container.mux(self._video.encode(frame))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._container.mux(self._video.encode(None))
                self._container.mux(self._sound.encode(None))
            self._container.close()
            if error is None:
                self._unfinished.replace(self._path)
        finally:
            self._unfinished.unlink(missing_ok=True)
