"""The sound server of Linux desktops, PulseAudio or PipeWire in its place: devices by `pactl`, streams by libpulse.

libpulse-simple is called directly because it takes a device by name and says when a sample will be heard; through
PortAudio a sound server is one nameless device.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from client.errors import DeviceError
from stream.protocol import SAMPLE_RATE

TIMEOUT_S = 5.0
APPLICATION = b"Talkalong"
PLAYBACK, RECORD = 1, 2  # pa_stream_direction_t
S16LE = 3  # pa_sample_format_t
SERVER_CHOOSES = 0xFFFFFFFF
BYTES = 2  # a sample


class _Format(ctypes.Structure):
    _fields_ = (("format", ctypes.c_int), ("rate", ctypes.c_uint32), ("channels", ctypes.c_uint8))


class _Buffer(ctypes.Structure):
    """pa_buffer_attr, all in bytes."""

    _fields_ = tuple(
        (name, ctypes.c_uint32) for name in ("maxlength", "tlength", "prebuf", "minreq", "fragsize")
    )


@dataclass(frozen=True, kw_only=True)
class PulseDevice:
    """A source or a sink. virtual: made by software; monitor: a source that hears what a sink plays."""

    name: str
    description: str
    virtual: bool
    monitor: bool


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libpulse-simple.so.0")
    except OSError as error:
        raise DeviceError(
            "libpulse is missing, which speaks to PulseAudio and PipeWire. On Debian or Ubuntu: "
            "`apt install libpulse0 pulseaudio-utils`."
        ) from error
    failure = ctypes.POINTER(ctypes.c_int)
    library.pa_simple_new.restype = ctypes.c_void_p
    library.pa_simple_new.argtypes = [
        ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p,
        ctypes.POINTER(_Format), ctypes.c_void_p, ctypes.POINTER(_Buffer), failure,
    ]  # fmt: skip
    for name in ("pa_simple_write", "pa_simple_read"):
        getattr(library, name).argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, failure]
    library.pa_simple_get_latency.restype = ctypes.c_uint64
    library.pa_simple_get_latency.argtypes = [ctypes.c_void_p, failure]
    library.pa_simple_free.argtypes = [ctypes.c_void_p]
    return library


class _Stream:
    """One connection for 48 kHz mono; `buffer_ms` is what the server is asked to hold."""

    def __init__(
        self, direction: int, device: str | None, *, what: str, buffer_ms: int, block_ms: int
    ) -> None:
        self._what = what
        size, block = (ms * SAMPLE_RATE // 1000 * BYTES for ms in (buffer_ms, block_ms))
        buffer = _Buffer(SERVER_CHOOSES, size, 0, block, block)
        self._error = ctypes.c_int()
        self._stream: int | None = _library().pa_simple_new(
            None, APPLICATION, direction, device.encode() if device else None, what.encode(),
            _Format(S16LE, SAMPLE_RATE, 1), None, buffer, self._error,
        )  # fmt: skip
        if not self._stream:
            self._stream = None
            raise self._failure(f"could not be opened{f' on {device}' if device else ''}")

    def _failure(self, how: str) -> DeviceError:
        library = ctypes.CDLL("libpulse.so.0")
        library.pa_strerror.restype = ctypes.c_char_p
        reason = (library.pa_strerror(self._error) or b"unknown reason").decode()
        return DeviceError(f"The {self._what} {how}: {reason}. Is PulseAudio or PipeWire running?")

    def close(self) -> None:
        """Not while another thread reads or writes."""
        if self._stream is not None:
            _library().pa_simple_free(self._stream)
            self._stream = None


class PulsePlayback(_Stream):
    """Plays into a sink. `write` blocks while the server has `buffer_ms` already."""

    def __init__(self, sink: str | None, *, buffer_ms: int = 40, block_ms: int = 10) -> None:
        super().__init__(PLAYBACK, sink, what="voice of Talkalong", buffer_ms=buffer_ms, block_ms=block_ms)

    def write(self, pcm: npt.NDArray[np.int16]) -> None:
        """int16 [N]; raises `DeviceError` when the sound server is gone."""
        data = pcm.astype("<i2", copy=False).tobytes()
        if _library().pa_simple_write(self._stream, data, len(data), self._error) < 0:
            raise self._failure("broke off")

    def delay_s(self) -> float:
        """From now until the next sample written will be heard."""
        return float(_library().pa_simple_get_latency(self._stream, self._error)) / 1e6


class PulseRecording(_Stream):
    """Records from a source."""

    def __init__(self, source: str | None, *, block_ms: int = 20) -> None:
        super().__init__(RECORD, source, what="microphone", buffer_ms=block_ms, block_ms=block_ms)

    def read(self, samples: int) -> npt.NDArray[np.int16]:
        """int16 [samples]; blocks until they were heard."""
        data = ctypes.create_string_buffer(samples * BYTES)
        if _library().pa_simple_read(self._stream, data, len(data), self._error) < 0:
            raise self._failure("broke off")
        return np.frombuffer(data.raw, "<i2").astype(np.int16)


def available() -> bool:
    """Whether a sound server answers."""
    if shutil.which("pactl") is None:
        return False
    try:
        pactl("info")
        _library()
    except DeviceError:
        return False
    return True


def pactl(*words: str) -> str:
    """What `pactl` prints, in English; raises `DeviceError`."""
    try:
        done = subprocess.run(
            ["pactl", *words],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env=os.environ | {"LC_ALL": "C.UTF-8"},
        )
    except FileNotFoundError as error:
        raise DeviceError(
            "`pactl` is missing, which makes virtual microphones. On Debian or Ubuntu: `apt install "
            "pulseaudio-utils` (it works with PipeWire too)."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise DeviceError(
            "The sound server does not answer `pactl`; restart PulseAudio or PipeWire."
        ) from error
    if done.returncode:
        reason = done.stderr.strip() or "no reason given"
        raise DeviceError(f"The sound server refused `pactl {' '.join(words)}`: {reason}.")
    return done.stdout


def devices(kind: str) -> list[PulseDevice]:
    """kind: "sources" or "sinks"."""
    found: list[PulseDevice] = []
    for block in pactl("list", kind).split("\n\n"):
        fields = dict(
            line.strip().split(": ", 1)
            for line in block.splitlines()
            if line.startswith("\t") and ": " in line
        )
        if name := fields.get("Name"):
            found.append(
                PulseDevice(
                    name=name,
                    description=fields.get("Description", name),
                    virtual="HARDWARE" not in fields.get("Flags", "").split(),
                    monitor=fields.get("Monitor of Sink", "n/a") != "n/a",
                )
            )
    return found


def default_device(kind: str) -> str | None:
    """The name of the default source or sink."""
    title = {"sources": "Default Source", "sinks": "Default Sink"}[kind]
    for line in pactl("info").splitlines():
        key, _, value = line.partition(": ")
        if key == title:
            return value.strip() or None
    return None


def find(kind: str, wanted: str) -> PulseDevice | None:
    """The device of this name, or the first whose name or description holds the words."""
    found = devices(kind)
    exact = [device for device in found if wanted in (device.name, device.description)]
    part = [device for device in found if wanted.lower() in f"{device.name}\n{device.description}".lower()]
    part.sort(key=lambda device: device.monitor)
    return next(iter([*exact, *part]), None)
