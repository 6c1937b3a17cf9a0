"""Writes moments into a fragmented MP4: what was written is playable even if the program dies."""

from __future__ import annotations

import fractions
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np

from client.timeline import SAMPLES_PER_FRAME, Moment
from stream.protocol import FPS, SAMPLE_RATE

FRAGMENT_FRAMES = FPS  # a fragment each second: at most this much is lost in a crash
AUDIO_BIT_RATE = 96_000
CONTAINER_OPTIONS = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}


class Recorder:
    """H.264 and AAC on one timeline that begins with the first moment written; a context manager.

    Moments must come in order; a hole in their indices is filled by repeating the last picture in silence,
    so that sound and picture cannot drift apart.
    """

    def __init__(self, path: Path, *, crf: int = 20) -> None:
        self.path = path
        self.frames_written = 0
        self._crf = crf
        self._first = 0
        self._container: av.container.OutputContainer | None = av.open(
            str(path), "w", format="mp4", options=CONTAINER_OPTIONS
        )
        self._video: av.VideoStream | None = None
        self._audio: av.AudioStream | None = None
        self._last: Moment | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, moment: Moment) -> None:
        if self._video is None:
            self._open(moment)
        if self._last is not None:
            silence = np.zeros(SAMPLES_PER_FRAME, np.int16)
            for index in range(self._last.index + 1, moment.index):
                self._encode(Moment(index=index, picture=self._last.picture, pcm=silence, repeated=True))
        self._encode(moment)
        self._last = moment

    def close(self) -> None:
        """Flushes and closes; may be called more than once."""
        if self._container is None:
            return
        for stream in (self._video, self._audio):
            if stream is not None:
                self._container.mux(stream.encode(None))
        self._container.close()
        self._container = None

    def _open(self, moment: Moment) -> None:
        assert self._container is not None
        height, width = moment.picture.shape[:2]
        video = self._container.add_stream("libx264", rate=FPS)
        video.width, video.height = width - width % 2, height - height % 2
        video.pix_fmt = "yuv420p"
        video.time_base = fractions.Fraction(1, FPS)
        video.gop_size = FRAGMENT_FRAMES
        video.thread_count = 1
        video.options = {"preset": "superfast", "crf": str(self._crf), "bf": "0"}
        audio = self._container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        audio.bit_rate = AUDIO_BIT_RATE
        audio.time_base = fractions.Fraction(1, SAMPLE_RATE)
        self._video, self._audio = video, audio
        self._first = moment.index

    def _encode(self, moment: Moment) -> None:
        assert self._container is not None
        assert self._video is not None
        assert self._audio is not None
        count = moment.index - self._first
        picture = moment.picture[: self._video.height, : self._video.width]
        image = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        image.pts, image.time_base = count, fractions.Fraction(1, FPS)
        sound = av.AudioFrame.from_ndarray(moment.pcm[None, :], format="s16", layout="mono")
        sound.sample_rate = SAMPLE_RATE
        sound.pts, sound.time_base = count * SAMPLES_PER_FRAME, fractions.Fraction(1, SAMPLE_RATE)
        self._container.mux(self._video.encode(image))
        self._container.mux(self._audio.encode(sound))
        self.frames_written += 1
