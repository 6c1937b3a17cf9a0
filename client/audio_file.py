"""Audio files: any as 48 kHz mono PCM in pieces, and PCM as WAV."""

from __future__ import annotations

import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from client.errors import ClientError
from pipeline.samples import to_int16
from pipeline.sound_file import SoundFile, SoundFileError
from stream.protocol import SAMPLE_RATE


def read_pcm(path: Path, say: Callable[[str], None] = lambda _: None) -> Iterator[npt.NDArray[np.int16]]:
    """int16 [N] pieces; `ClientError` if there is no such file, or no sound in it.

    say: told at the end, in a sentence each, what was wrong with the file.
    """
    try:
        with SoundFile(path) as sound:
            for (piece,) in sound.at(SAMPLE_RATE):
                yield to_int16(piece)
            for notice in sound.notices:
                say(notice)
    except SoundFileError as error:
        raise ClientError(str(error)) from error


def write_wav(path: Path, pcm: npt.NDArray[np.int16]) -> None:
    """int16 [N] at 48 kHz as a mono WAV file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(pcm.tobytes())
