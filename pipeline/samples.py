"""Samples of any scale as float32 in [-1, 1], and back to 16 bits. What is not a number is silence."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SCALES = {"uint8": (128, 128), "int16": (0, 2**15), "int32": (0, 2**31)}
"""By type: the value that means silence, and the one that means 1."""


def to_float(samples: NDArray[Any]) -> NDArray[np.float32]:
    """Any shape, floats or one of `SCALES`; NaN and Inf become 0, what is too loud is clipped.

    Raises TypeError for other types, whose scale nobody knows.
    """
    if np.issubdtype(samples.dtype, np.floating):
        finite = np.where(np.isfinite(samples), samples, 0)
        return np.asarray(np.clip(finite, -1.0, 1.0), np.float32)
    if samples.dtype.name not in SCALES:
        raise TypeError(f"Samples of the type {samples.dtype} have no usual scale.")
    silence, full = SCALES[samples.dtype.name]
    return (samples.astype(np.float32) - np.float32(silence)) / np.float32(full)


def to_int16(samples: NDArray[Any]) -> NDArray[np.int16]:
    """Floats in [-1, 1], or what `to_float` takes, as int16 of the same shape; int16 stays as it is to the bit."""
    scaled = np.round(to_float(samples) * np.float32(32768.0))
    return np.asarray(np.clip(scaled, -32768, 32767), np.int16)
