"""Sounds and files of them, made on the spot: WAV by its bytes, the rest by PyAV's encoders."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

TONE_HZ = 220
AMPLITUDE = 0.3


def tone(seconds: float, rate: int, hz: float = TONE_HZ) -> NDArray[np.float64]:
    """A tone [N] that swells three times a second, as syllables do."""
    at = np.arange(round(seconds * rate)) / rate
    return AMPLITUDE * np.sin(2 * np.pi * hz * at) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * at))


def wav(
    sound: NDArray[np.float64],
    rate: int,
    kind: str = "s16",
    *,
    size: int | None = None,
    tag: int | None = None,
    mask: int | None = None,
    after: bytes = b"",
) -> bytes:
    """A WAV file of [N] or [N, C]; kind: s16, s24 or f32.

    size: what the header says instead of the truth. tag: of an unknown codec. mask: an extensible header with this
    channel mask. after: bytes behind the samples.
    """
    sound = sound.reshape(len(sound), -1)
    bits = {"s16": 16, "s24": 24, "f32": 32}[kind]
    if kind == "f32":
        data = sound.astype("<f4").tobytes()
    else:
        whole = np.round(np.clip(sound, -1, 1) * (2 ** (bits - 1) - 1)).astype("<i4")
        data = np.ascontiguousarray(whole).view(np.uint8).reshape(-1, 4)[:, : bits // 8].tobytes()
    channels, width = sound.shape[1], sound.shape[1] * bits // 8
    code = 3 if kind == "f32" else 1
    kept = (channels, rate, rate * width, width, bits)
    if mask is None:
        layout = struct.pack("<HHIIHH", tag or code, *kept)
    else:
        layout = struct.pack("<HHIIHHHHI", 0xFFFE, *kept, 22, bits, mask)
        layout += struct.pack("<H", code) + bytes.fromhex("000000001000800000AA00389B71")
    said = len(data) if size is None else size
    head = b"RIFF" + struct.pack("<I", min(said + 36, 0xFFFFFFFF)) + b"WAVE"
    return (
        head
        + b"fmt "
        + struct.pack("<I", len(layout))
        + layout
        + b"data"
        + struct.pack("<I", said)
        + data
        + after
    )


def write(
    path: Path,
    codec: str,
    sound: NDArray[np.float64],
    rate: int,
    *,
    layout: str = "mono",
    container: str | None = None,
    leaving_out: tuple[float, float] = (0.0, 0.0),
) -> Path:
    """A file of [N] or [C, N] by one of PyAV's encoders.

    leaving_out: seconds from, to, of which nothing is recorded while time goes on.
    """
    sound = np.atleast_2d(sound)
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate, layout=layout)
        for at in range(0, sound.shape[1], 960):
            if leaving_out[0] <= at / rate < leaving_out[1]:
                continue
            piece = np.ascontiguousarray(sound[:, at : at + 960], np.float32)
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, at, Fraction(1, rate)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def level_db(sound: NDArray[np.generic]) -> float:
    """Of floats in [-1, 1], or of int16."""
    scale = 32768 if sound.dtype == np.int16 else 1
    return float(20 * np.log10(np.sqrt(np.mean(np.square(sound.astype(np.float64) / scale))) + 1e-9))
