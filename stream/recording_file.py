"""One MP4 of pictures and sound that can be played at every moment, whatever happens to the program or the disk.

H.264 and AAC on one grid: picture k is shown from k / 25 s on, sample n is heard at n / 48000 s. While it grows the
file is a row of fragments (ISO/IEC 14496-12, 8.8), one a second. Closing appends an ordinary index and then hides the
fragments by overwriting eight bytes (FFmpeg's `hybrid_fragmented`), so that every player and editor can seek in it.
Until those eight bytes are written the fragments are valid: a crash at any point leaves a playable file.

Server and client both write with it: of `stream` it imports the protocol and `fragment_file` only. Used by one
thread at a time.
"""

from __future__ import annotations

import contextlib
import fractions
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np
import numpy.typing as npt

from stream.fragment_file import FragmentFile
from stream.protocol import FPS, SAMPLE_RATE

Picture = npt.NDArray[np.uint8]
Pcm = npt.NDArray[np.int16]

SLOT_SAMPLES = SAMPLE_RATE // FPS
FRAGMENT_S = 1.0
KEY_FRAMES = 2 * FPS  # a player can seek to every second second
AUDIO_BIT_RATE = 96_000
MAX_VIDEO_BIT_RATE = 8_000_000
MAX_APART_SLOTS = FPS  # a track that is this far behind the other is filled
INDEX_BYTES = 24  # of the final index, for one coded picture or piece of sound; 13 were measured
HEADER_BYTES = 16_384
AI_GENERATED = "AI generated: a portrait that was animated by a speaker's voice (Talkalong)"


@dataclass(frozen=True, kw_only=True)
class RecordingLimits:
    """Where a recording ends by itself; None: nowhere. min_free_bytes: what it leaves free on the disk."""

    max_seconds: float | None = None
    max_bytes: int | None = None
    min_free_bytes: int = 0


@dataclass(frozen=True)
class Ended:
    """Why a recording ended by itself. code: time_limit, size_limit, disk_full, write_failed; message: a sentence."""

    code: str
    message: str


class RecordingFile:
    """Takes pictures and sound by position, in order each, and never raises after it was opened.

    A hole between pictures repeats the last one, a hole in the sound is silence: nothing shifts. Where a limit or the
    disk ends the recording, `ended` says so, what was recorded is kept and everything after it is ignored.

    path: must not exist yet. tags: MP4 metadata (title, artist, date, comment, ...). pixels: "yuv420p" for I420
    [H * 3/2, W], "rgb24" for [H, W, 3]; odd sides lose a line.
    """

    def __init__(
        self,
        path: Path,
        *,
        tags: Mapping[str, str] | None = None,
        limits: RecordingLimits | None = None,
        pixels: str = "yuv420p",
        crf: int = 20,
    ) -> None:
        self.path = path
        self.ended: Ended | None = None
        self.pictures = 0  # slots written
        self.repeated_pictures = 0  # of these, holes
        self.silent_samples = 0  # holes in the sound
        self._limits = limits or RecordingLimits()
        self._tags = {"comment": AI_GENERATED} | dict(tags or {})
        self._pixels = pixels
        self._crf = crf
        self._output = FragmentFile(path)
        self._container: av.container.OutputContainer | None = None
        self._video: av.VideoStream
        self._audio: av.AudioStream
        self._last: Picture | None = None
        self._samples = 0  # given to the sound's encoder
        self._waiting: Pcm = np.zeros(0, np.int16)  # sound whose picture has not come yet, from `_samples` on
        self._primed = False
        self._coded_bytes = 0
        self._coded_packets = 0
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def seconds(self) -> float:
        return self.pictures / FPS

    @property
    def bytes(self) -> int:
        """What the file has or will have when it is closed now, a little more rather than less."""
        if self._closed:
            return self._output.size
        return HEADER_BYTES + self._coded_bytes + INDEX_BYTES * self._coded_packets

    def add_picture(self, slot: int, picture: Picture) -> None:
        """The picture of this slot; slots count from 0. One that has been filled already is ignored."""
        if self._closed or slot < self.pictures:
            return
        try:
            if self._container is None:
                self._open(picture)
            self._repeat(slot, self._last if self._last is not None else picture)
            self._last = picture
            self._encode_picture(picture)
            self._encode_sound()
        except (av.FFmpegError, OSError, ValueError) as error:
            self.end("write_failed", f"The recording ended: it could not be written ({error}).")
        self._check()

    def add_sound(self, sample: int, pcm: Pcm) -> None:
        """int16 [N] at 48 kHz from this sample on; it is written once its picture is there."""
        if self._closed:
            return
        while (end := self._samples + len(self._waiting)) + SAMPLE_RATE < sample and not self._closed:
            self.silent_samples += SAMPLE_RATE
            self.add_sound(end, np.zeros(SAMPLE_RATE, np.int16))
        if self._closed:
            return
        if sample < end:
            pcm = pcm[end - sample :]
        elif sample > end:
            self.silent_samples += sample - end
            pcm = np.concatenate([np.zeros(sample - end, np.int16), pcm])
        self._waiting = np.concatenate([self._waiting, pcm])
        ahead = (self._samples + len(self._waiting)) // SLOT_SAMPLES - MAX_APART_SLOTS
        if self._last is not None and ahead > self.pictures:
            try:
                self._repeat(ahead, self._last)
                self._encode_sound()
            except (av.FFmpegError, OSError, ValueError) as error:
                self.end("write_failed", f"The recording ended: it could not be written ({error}).")
            self._check()

    def end(self, code: str, message: str) -> None:
        """Closes, for this reason."""
        if not self._closed:
            self.ended = Ended(code, message)
            self.close()

    def rest(self) -> Pcm:
        """After closing: the sound that came already of pictures that had not, from the end of the last one on."""
        return self._waiting

    def close(self) -> None:
        """Both tracks end with the last picture. May be called more than once."""
        if self._closed:
            return
        self._closed = True
        if self._container is None:
            self._output.close()
            self.path.unlink(missing_ok=True)  # nothing was recorded
            return
        with contextlib.suppress(av.FFmpegError, OSError, ValueError):  # what can still be coded
            self._encode_sound(to_the_end=True)
            self._mux(self._video.encode(None))
            self._mux(self._audio.encode(None))
        try:
            self._container.close()
        except (av.FFmpegError, OSError) as error:
            self._output.fail(error)
        self._output.close()
        if self._output.error is not None:
            self.ended = _disk_full(self._output.error, kept=self._output.playable)
            if not self._output.playable:
                self.path.unlink(missing_ok=True)

    # --- encoding ---

    def _open(self, picture: Picture) -> None:
        height, width = picture.shape[:2]
        if self._pixels == "yuv420p":
            height = height * 2 // 3
        container = av.open(
            self._output,
            "w",
            format="mp4",
            options={
                "movflags": "hybrid_fragmented+empty_moov+default_base_moof",
                "frag_duration": str(round(FRAGMENT_S * 1e6)),
            },
            buffer_size=1 << 20,
        )
        container.metadata.update(self._tags)
        video = container.add_stream("libx264", rate=FPS)
        video.width, video.height = width - width % 2, height - height % 2
        video.pix_fmt = "yuv420p"
        video.time_base = fractions.Fraction(1, FPS)
        video.gop_size = KEY_FRAMES
        video.thread_count = 1
        video.options = {
            "preset": "superfast",
            "tune": "zerolatency",
            "crf": str(self._crf),
            "maxrate": str(MAX_VIDEO_BIT_RATE),
            "bufsize": str(2 * MAX_VIDEO_BIT_RATE),
            # what cv2 and swscale make of RGB
            "x264-params": "colorprim=smpte170m:transfer=smpte170m:colormatrix=smpte170m:fullrange=off",
        }
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        audio.bit_rate = AUDIO_BIT_RATE
        audio.time_base = fractions.Fraction(1, SAMPLE_RATE)
        self._container, self._video, self._audio = container, video, audio

    def _repeat(self, slot: int, picture: Picture) -> None:
        """Up to this slot."""
        self.repeated_pictures += max(slot - self.pictures, 0)
        while self.pictures < slot:
            self._encode_picture(picture)
            if self.pictures % MAX_APART_SLOTS == 0:
                self._encode_sound()  # a hole of an hour is filled second by second

    def _encode_picture(self, picture: Picture) -> None:
        if self._pixels == "rgb24":
            picture = np.ascontiguousarray(picture[: self._video.height, : self._video.width])
        frame = av.VideoFrame.from_ndarray(picture, format=self._pixels)
        frame.pts, frame.time_base = self.pictures, fractions.Fraction(1, FPS)
        self.pictures += 1
        self._mux(self._video.encode(frame))

    def _encode_sound(self, *, to_the_end: bool = False) -> None:
        """The sound of the pictures that are there."""
        end = self.pictures * SLOT_SAMPLES
        ready = self._waiting[: max(end - self._samples, 0)]
        self._waiting = self._waiting[len(ready) :]
        missing = end - self._samples - len(ready) - (0 if to_the_end else MAX_APART_SLOTS * SLOT_SAMPLES)
        if missing > 0:  # then nothing is waiting
            self.silent_samples += missing
            ready = np.concatenate([ready, np.zeros(missing, np.int16)])
        if not len(ready):
            return
        frame = av.AudioFrame.from_ndarray(ready[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, self._samples
        frame.time_base = fractions.Fraction(1, SAMPLE_RATE)
        self._samples += len(ready)
        packets = self._audio.encode(frame)
        if packets and not self._primed:
            # AAC begins with a packet of what was before the first sample. Without it the next one begins at zero (its
            # first 10 ms fade in), and sound and picture are in step in players that pass over edit lists as well.
            self._primed = True
            packets = packets[1:]
        self._mux(packets)

    def _mux(self, packets: list[Any]) -> None:
        assert self._container is not None
        for packet in packets:
            self._coded_bytes += packet.size
            self._coded_packets += 1
            self._container.mux(packet)

    # --- ends ---

    def _check(self) -> None:
        limits = self._limits
        if self._closed:
            return
        if self._output.error is not None:
            self.close()
        elif limits.max_seconds is not None and self.seconds >= limits.max_seconds:
            self.end(
                "time_limit",
                f"The recording ended at its limit of {_minutes(limits.max_seconds)}; it is kept.",
            )
        elif limits.max_bytes is not None and self.bytes + self._second_bytes >= limits.max_bytes:
            size = (
                f"{limits.max_bytes / 1e6:.0f} MB" if limits.max_bytes >= 1e6 else f"{limits.max_bytes} bytes"
            )
            self.end("size_limit", f"The recording ended at its limit of {size}; it is kept.")
        elif limits.min_free_bytes and self.pictures % FPS == 0:
            free = shutil.disk_usage(self.path.parent).free
            if free < limits.min_free_bytes:
                text = f"The recording ended because the disk has only {free / 1e6:.0f} MB left; it is kept."
                self.end("disk_full", text)

    @property
    def _second_bytes(self) -> float:
        """Of an average second so far: a limit is never passed."""
        return self._coded_bytes / max(self.seconds, 1.0)


def _disk_full(error: BaseException, *, kept: bool) -> Ended:
    reason = getattr(error, "strerror", None) or str(error)
    rest = "what was recorded is kept" if kept else "there was nothing to keep yet"
    return Ended("disk_full", f"The recording ended because it could not be written ({reason}); {rest}.")


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"
