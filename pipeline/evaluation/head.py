"""Head motion and blinks from FaceMesh landmarks [T,478,2+] at 25 fps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.lips import Floats, face_height, fill_gaps

FPS = 25
SEGMENT_FRAMES = 75
"""Spectra are taken over 3 s, the length of a GRID clip."""
HEAD_BAND_HZ = (0.3, 4.0)
"""Where heads move; above it the tracker's jitter rules."""

# Eye corners and the ridge of the nose: they move with the head, hardly with speech.
_RIGID = (33, 133, 362, 263, 168, 6, 197, 195, 5, 4)
_EYES = (((159, 145), (158, 153), (33, 133)), ((386, 374), (385, 380), (362, 263)))


def head_path(landmarks: Floats) -> NDArray[np.float64]:
    """Place of the head [T,2] in face heights."""
    centre = landmarks[:, list(_RIGID), :2].mean(1) / face_height(landmarks)
    return np.stack([fill_gaps(centre[:, axis]) for axis in range(2)], axis=1)


def velocity_spectrum(paths: Sequence[Floats]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean spectrum of head velocity, (face heights / s)^2 per bin, over all 3 s segments of paths [T,2].

    Returns frequencies in Hz and power. Shorter paths are left out; ValueError if all are too short.
    """
    window = np.hanning(SEGMENT_FRAMES - 1)
    powers = []
    for path in paths:
        for start in range(0, len(path) - SEGMENT_FRAMES + 1, SEGMENT_FRAMES):
            velocity = np.diff(path[start : start + SEGMENT_FRAMES], axis=0) * FPS
            transform = np.fft.rfft((velocity - velocity.mean(0)) * window[:, None], axis=0)
            powers.append((np.abs(transform) ** 2).sum(1) * 2 / (window**2).sum() / len(window))
    if not powers:
        raise ValueError(
            f"A velocity spectrum needs a take of at least {SEGMENT_FRAMES} frames; all are shorter."
        )
    frequencies = np.asarray(np.fft.rfftfreq(SEGMENT_FRAMES - 1, 1 / FPS), np.float64)
    return frequencies, np.asarray(np.mean(powers, axis=0), np.float64)


def band_speed(frequencies: Floats, power: Floats, band_hz: tuple[float, float] = HEAD_BAND_HZ) -> float:
    """Root mean square head speed in a band, in face heights per second."""
    inside = (frequencies >= band_hz[0]) & (frequencies < band_hz[1])
    return float(np.sqrt(power[inside].sum()))


def eye_openness(landmarks: Floats) -> NDArray[np.float64]:
    """Opening of the lids [T], mean of both eyes, 1 = the usual opening of this take."""
    points = landmarks[..., :2]

    def span(first: int, second: int) -> Floats:
        length: Floats = np.linalg.norm(points[:, first] - points[:, second], axis=-1)
        return length

    ratios = [(span(*inner) + span(*outer)) / (2 * span(*width)) for inner, outer, width in _EYES]
    openness = fill_gaps(np.mean(ratios, axis=0))
    return openness / np.percentile(openness, 75)


def blinks(
    openness: Floats, *, closed: float = 0.6, reopened: float = 0.75, longest_frames: int = 15
) -> list[int]:
    """Frames at which lids are most closed: dips below `closed` that come back above `reopened` in time."""
    found, start = [], None
    for frame, value in enumerate(openness):
        if start is None and value < closed:
            start = frame
        elif start is not None and value > reopened:
            if frame - start <= longest_frames:
                found.append(start + int(np.argmin(openness[start:frame])))
            start = None
    return found
