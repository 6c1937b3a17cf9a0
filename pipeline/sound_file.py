"""Any sound or video file as mono samples, decoded once for two listeners: people and the model.

The one reader of audio files, for rendering and for the client; no torch here. Damage inside a file costs what is
damaged, not the rest, and is counted and said (`notices`).
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from numpy.typing import NDArray

from pipeline.downmix import Downmix
from pipeline.resampler import HIGHEST_RATE, LOWEST_RATE, Resampler
from pipeline.samples import to_float, to_int16

HEARD_RATE = 48_000
# Timestamps that leave out so much are a pause in which nothing was recorded, or a lost frame of FLAC (93 ms); less is
LEAST_PAUSE_S, LONGEST_PAUSE_S = 0.09, 600.0
# A file that ends so much earlier than it says has lost something; kinds whose duration is guessed by their size.
MISSING_S = 0.5
GUESSED = ("aac", "ac3", "amr", "dts", "eac3", "mp3", "mpeg", "mpegts")
# So many failures of the container in a row, with no packet between them, are its end.
MAX_FAILURES = 100
TAGS = (b"TAG", b"ID3", b"APETAGEX")


class SoundFileError(ValueError):
    """A file that gives no sound; the message says why and what to do."""


class SoundFile:
    """A file's first audio stream. SoundFileError if there is no such file, or no sound in it.

    expected_s: duration that the file claims, roughly; None when it does not say.
    damaged: packets that could not be decoded, so far. changes: how often rate or channels have changed, so far.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            _check(path)
            self._wrong_length = _has_wrong_length(path)
        except OSError as error:  # a name that is too long, a file that may not be read
            raise SoundFileError(f"{path} cannot be opened: {_reason(error)}.") from error
        self.damaged = self.changes = 0
        self._damaged_at_s = self._changed_at_s = self._silent_s = self._seconds = 0.0
        self._ended = False
        self._kind: tuple[int, int] | None = None  # rate, channels
        try:
            # "file:", or the part of a name that comes before a colon were taken for a protocol
            self._container = av.open(
                f"file:{path}",
                options={"ignore_length": "1"} if self._wrong_length else {},
                metadata_errors="replace",  # titles need not be UTF-8
            )
        except (av.FFmpegError, OSError, ValueError) as error:
            raise SoundFileError(
                f"{path} cannot be read as sound ({_reason(error)}). Try WAV, FLAC or MP3."
            ) from error
        if not self._container.streams.audio:
            self._container.close()
            raise SoundFileError(f"{path} holds no sound; give a file with an audio stream.")
        self._stream = self._container.streams.audio[0]
        if self._stream.codec_context is None:
            self._container.close()
            raise SoundFileError(
                f"The kind of sound in {path} is unknown to this decoder. Save it as WAV, FLAC or MP3."
            )
        duration = self._container.duration
        self.expected_s = duration / av.time_base if duration and not self._wrong_length else None
        self._claimed_s = self._read_claim()

    @property
    def notices(self) -> list[str]:
        """Sentences about what was wrong with the file as far as it was read."""
        said = []
        if self._wrong_length:
            said.append(f"{self.path} has a wrong length in its header; it is read to its end.")
        if self.damaged:
            packets = (
                "One damaged packet was" if self.damaged == 1 else f"{self.damaged} damaged packets were"
            )
            said.append(f"{packets} left out of {self.path}, the first at {self._damaged_at_s:.1f} s.")
        if self._silent_s:
            said.append(f"{self.path} leaves out {self._silent_s:.1f} s between its parts; they are silent.")
        claimed_s = self._claimed_s
        if self._ended and claimed_s is not None and self._seconds < claimed_s - MISSING_S:
            said.append(
                f"{self.path} ends after {self._seconds:.1f} s, but should last {claimed_s:.1f} s: it is damaged."
            )
        if self.changes and self._kind is not None:
            times = "once" if self.changes == 1 else f"{self.changes} times"
            rate, channels = self._kind
            said.append(
                f"{self.path} changes its sample rate or channels {times}, first at {self._changed_at_s:.1f} s; "
                f"its end has {rate} Hz and {channels} channel{'s' * (channels != 1)}. It was followed."
            )
        return said

    def _read_claim(self) -> float | None:
        """Duration of the sound by the file's own word; None where that is guessed, or a picture's."""
        if self._container.format.name in GUESSED:
            return None
        if self._stream.duration is not None and self._stream.time_base is not None:
            return float(self._stream.duration * self._stream.time_base)
        return None if self._container.streams.video else self.expected_s

    def pieces(self, rate: int) -> Iterator[tuple[NDArray[np.int16], NDArray[np.float32]]]:
        """Stretches of the sound, mono, each as int16 [n] at 48 kHz and as float32 [m] in [-1, 1] at `rate`.

        Both begin with the file's first sample. SoundFileError where nothing at all can be decoded.
        """
        for heard, modelled in self.at(HEARD_RATE, rate):
            yield to_int16(heard), modelled

    def at(self, *rates: int) -> Iterator[tuple[NDArray[np.float32], ...]]:
        """As `pieces`: float32 [n] for each of these rates."""
        resamplers = [Resampler(rate) for rate in rates]
        for sound, sound_rate in self._mono():
            yield tuple(resampler.push(sound, sound_rate) for resampler in resamplers)
        yield tuple(resampler.flush() for resampler in resamplers)

    def _mono(self) -> Iterator[tuple[NDArray[np.float32], int]]:
        """Samples and their rate, frame by frame, with silence where nothing was recorded."""
        downmix = Downmix()
        expected_s: float | None = None
        damaged = 0
        for frame in self._frames():
            rate = frame.sample_rate
            sound_CN = channels_of(frame)
            if not self._follows(rate, len(sound_CN)):
                continue
            if frame.time is not None and expected_s is not None and self.damaged == damaged:
                pause_s = frame.time - expected_s
                if LEAST_PAUSE_S < pause_s < LONGEST_PAUSE_S:
                    self._seconds += pause_s
                    self._silent_s += pause_s
                    yield np.zeros(round(pause_s * rate), np.float32), rate
            duration_s = sound_CN.shape[1] / rate
            expected_s = None if frame.time is None else frame.time + duration_s
            damaged = self.damaged
            self._seconds += duration_s
            yield downmix.push(sound_CN, rate), rate
        self._ended = True
        if self.damaged and not self._seconds:
            raise SoundFileError(f"Nothing in {self.path} can be decoded: it is damaged, or no sound file.")

    def _follows(self, rate: int, channels: int) -> bool:
        """Whether a frame of this kind can be taken after those before."""
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            if self._kind is None:
                raise SoundFileError(
                    f"{self.path} says that it has {rate} samples a second; {LOWEST_RATE} to {HIGHEST_RATE} "
                    "can be read. Is its header damaged?"
                )
            self._note_damage()
            return False
        if self._kind not in (None, (rate, channels)):
            self._changed_at_s = self._changed_at_s if self.changes else self._seconds
            self.changes += 1
        self._kind = (rate, channels)
        return True

    def _frames(self) -> Iterator[av.AudioFrame]:
        """What can be decoded; the rest is counted."""
        for packet in self._packets():
            try:
                frames = packet.decode()
            except (av.FFmpegError, ValueError):
                self._note_damage()
            else:
                yield from frames

    def _packets(self) -> Iterator[av.Packet[av.AudioStream]]:
        failures = 0
        while failures < MAX_FAILURES:
            try:
                for packet in self._container.demux(self._stream):
                    failures = 0
                    yield packet
                return
            except (av.FFmpegError, ValueError):
                failures += 1
                self._note_damage()

    def _note_damage(self) -> None:
        self._damaged_at_s = self._damaged_at_s if self.damaged else self._seconds
        self.damaged += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()


def channels_of(frame: av.AudioFrame) -> NDArray[np.float32]:
    """float32 [C, N]; a channel that only carries the rumble of a cinema is left out."""
    if frame.format.name.startswith("s64"):  # which numpy is not given by PyAV
        (frame,) = av.AudioResampler(format="dbl", layout=frame.layout, rate=frame.sample_rate).resample(
            frame
        )
    sound = to_float(frame.to_ndarray())
    channels = frame.layout.nb_channels
    sound_CN = sound if frame.format.is_planar else sound.reshape(-1, channels).T
    if channels < 3:
        return sound_CN
    names = [channel.name for channel in frame.layout.channels]
    spoken = [index for index, name in enumerate(names) if not name.startswith("LFE")]
    return sound_CN[spoken] if 0 < len(spoken) < channels == len(names) else sound_CN


def _check(path: Path) -> None:
    try:
        found = path.stat()
    except FileNotFoundError as error:
        raise SoundFileError(f"There is no sound file {path}.") from error
    if stat.S_ISDIR(found.st_mode):
        raise SoundFileError(f"{path} is a folder; give a sound file in it.")
    if not stat.S_ISREG(found.st_mode):
        raise SoundFileError(f"{path} is no file but a device or a pipe; save the sound as a file first.")
    if not found.st_size:
        raise SoundFileError(f"{path} is empty: it has no bytes at all.")


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).removesuffix(".")


def _has_wrong_length(path: Path) -> bool:
    """Whether a WAV's header ends its sound where only more sound can follow: a recorder that did not finish, or
    more than 4 GB. (A length beyond the file's end, or of 0, the decoder sees through.)"""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return False
        data_ended = False
        while len(chunk := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", chunk)
            end = file.tell() + length + length % 2
            if data_ended and not (name.isascii() and name.decode("ascii").isprintable() and end <= size + 1):
                return not chunk.startswith(TAGS)
            if name == b"data":
                if length == 0:
                    return False
                data_ended = True
            file.seek(end)
    return False
