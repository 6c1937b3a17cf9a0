"""Audio files: any as 48 kHz mono PCM in pieces, and PCM as WAV."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from client.errors import ClientError
from stream.protocol import SAMPLE_RATE


def read_pcm(path: Path) -> Iterator[npt.NDArray[np.int16]]:
    """int16 [N] pieces; raises `ClientError` if the file is missing or holds no sound."""
    try:
        container = av.open(str(path))
    except FileNotFoundError as error:
        raise ClientError(f"There is no audio file {path}.") from error
    except av.FFmpegError as error:
        raise ClientError(f"{path} cannot be read as audio ({error}). Try WAV, FLAC or MP3.") from error
    with container:
        if not container.streams.audio:
            raise ClientError(f"{path} holds no sound.")
        resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        for frame in container.decode(audio=0):
            for piece in resampler.resample(frame):
                yield piece.to_ndarray()[0]
        for piece in resampler.resample(None):
            yield piece.to_ndarray()[0]


def write_wav(path: Path, pcm: npt.NDArray[np.int16]) -> None:
    """int16 [N] at 48 kHz as a mono WAV file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(pcm.tobytes())
