"""Sound in an array, as other libraries give it, as the mono samples that the model hears."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.downmix import Downmix
from pipeline.resampler import HIGHEST_RATE, LOWEST_RATE, Resampler
from pipeline.samples import SCALES, to_float

# Of floats of 16-bit size, where [-1, 1] is meant, the median is beyond what even a very loud recording has.
UNSCALED = 10.0


class SoundArrayError(ValueError):
    """An array that cannot be taken for sound; the message says why and what to do."""


def mono_sound(pcm: ArrayLike, sample_rate: float, rate: int) -> NDArray[np.float32]:
    """float32 [N] in [-1, 1] at `rate` of sound at `sample_rate`, mixed and cleaned as a file's is.

    pcm: [samples], or several channels as [samples, channels] or [channels, samples], whose shorter side is the
    channels; float in [-1, 1], or int16, int32 or uint8 by their own scale. Raises SoundArrayError.
    """
    sound_CN = _channels(pcm)
    given_rate = _whole_rate(sample_rate)
    resampler = Resampler(rate)
    mono = Downmix().push(to_float(sound_CN), given_rate)
    return np.concatenate([resampler.push(mono, given_rate), resampler.flush()])


def _channels(pcm: ArrayLike) -> NDArray[Any]:
    """[C, N] of a type that has a scale."""
    try:
        sound = np.asarray(pcm)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists; tensors on another device
        raise SoundArrayError(f"The sound cannot be read as an array: {error}") from error
    if not (np.issubdtype(sound.dtype, np.floating) or sound.dtype.name in SCALES):
        raise SoundArrayError(
            f"The sound has the type {sound.dtype}, whose scale is not known; give floats in [-1, 1], or "
            f"{', '.join(SCALES)}."
        )
    if sound.ndim == 1:
        sound = sound[None]
    elif sound.ndim != 2:
        raise SoundArrayError(
            f"The sound has the shape {list(sound.shape)}; give [samples], [samples, channels] or [channels, samples]."
        )
    elif sound.shape[0] > sound.shape[1]:
        sound = sound.T
    if not sound.shape[0]:
        raise SoundArrayError("The sound has no channel.")
    if np.issubdtype(sound.dtype, np.floating) and sound.size:
        finite = np.isfinite(sound)
        level = np.median(np.abs(sound[finite])) if finite.any() else 0.0
        if level > UNSCALED:
            raise SoundArrayError(
                f"Half of the sound's floats are beyond {level:.0f}, but full scale is 1. Divide them by 32768 "
                "if they were 16-bit samples, or give those as int16."
            )
    return sound


def _whole_rate(sample_rate: float) -> int:
    try:
        rate = int(sample_rate)
    except (TypeError, ValueError, OverflowError):
        rate = 0
    if rate != sample_rate or not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise SoundArrayError(
            f"sample_rate is {sample_rate!r}; give the array's samples a second, a whole number from {LOWEST_RATE} to "
            f"{HIGHEST_RATE}."
        )
    return rate
