"""Lip measures: opening of the mouth, its agreement in time with a reference, closures, rest in silence.

Apertures are series [T] at 25 fps: the gap between the inner lips over the height of the face (a fraction).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

UPPER_LIP, LOWER_LIP = 13, 14
FOREHEAD, CHIN = 10, 152
CLOSED_SHARE = 0.15
"""Lips count as closed below this share of the range from closed to wide open."""
LEAST_RANGE = 0.01
"""A mouth whose aperture spans less than this hardly moves; its closures mean nothing."""
LEAST_PEAK = 0.2
"""Below this correlation at every lag there is no lag to speak of."""


def face_height(landmarks: Floats) -> float:
    """Median height in pixels, forehead to chin, of FaceMesh landmarks [T,478,2+]; NaN is left out."""
    return float(np.nanmedian(np.linalg.norm(landmarks[:, FOREHEAD, :2] - landmarks[:, CHIN, :2], axis=-1)))


def aperture(landmarks: Floats) -> NDArray[np.float64]:
    """Inner-lip gap over face height [T] from landmarks [T,478,2+]; frames without a face are interpolated.

    One height serves the whole series: the chin goes down with the jaw, which would hide some of the opening.
    """
    gap = np.linalg.norm(landmarks[:, UPPER_LIP, :2] - landmarks[:, LOWER_LIP, :2], axis=-1)
    return fill_gaps(gap / face_height(landmarks))


def fill_gaps(series: Floats) -> NDArray[np.float64]:
    """The series [T] with NaN replaced by linear interpolation (by its nearest value at the ends)."""
    known = np.isfinite(series)
    if not known.any():
        raise ValueError("No frame of this take shows a face to the judge, so nothing can be measured on it.")
    frames = np.arange(len(series))
    return np.interp(frames, frames[known], series[known])


def correlation(first: Floats, second: Floats) -> float:
    """Pearson correlation of two series of one length; 0 when one of them does not move."""
    a, b = first - np.mean(first), second - np.mean(second)
    # Below a thousandth of a pixel there is no movement to correlate, only rounding.
    if np.std(a) < 1e-7 or np.std(b) < 1e-7:
        return 0.0
    return float(np.mean(a * b) / (np.std(a) * np.std(b)))


def correlation_over_lags(reference: Floats, measured: Floats, max_lag_frames: int) -> NDArray[np.float64]:
    """Correlation [2 * max_lag + 1] for lags -max..max; a positive lag means that `measured` comes late."""
    frames = min(len(reference), len(measured))
    if frames <= 2 * max_lag_frames:
        raise ValueError(f"{frames} frames are too few to look for a lag of up to {max_lag_frames} frames.")
    reference, measured = reference[:frames], measured[:frames]
    values = []
    for lag in range(-max_lag_frames, max_lag_frames + 1):
        late, early = (
            measured[max(lag, 0) : frames + min(lag, 0)],
            reference[max(-lag, 0) : frames - max(lag, 0)],
        )
        values.append(correlation(early, late))
    return np.array(values)


@dataclass(frozen=True, kw_only=True)
class LipSync:
    """How lips follow a reference: `lag_frames` (> 0: late), correlation `at_zero` lag and at its `peak`.

    The lag is NaN where the lips do not follow the reference at any lag.
    """

    lag_frames: float
    at_zero: float
    peak: float
    clips: int


def lip_sync(curves: Sequence[Floats]) -> LipSync:
    """From the correlation curves of several clips: the peak of their mean."""
    mean = np.mean(np.stack(curves), axis=0)
    centre = len(mean) // 2
    best = int(np.argmax(mean))
    return LipSync(
        lag_frames=_summit(mean) - centre if mean[best] >= LEAST_PEAK else np.nan,
        at_zero=float(mean[centre]),
        peak=float(mean[best]),
        clips=len(curves),
    )


def _summit(curve: Floats) -> float:
    """Where a curve is highest, between its values by a parabola through the highest one and its neighbours."""
    best = int(np.argmax(curve))
    if not 0 < best < len(curve) - 1:
        return float(best)
    left, top, right = curve[best - 1 : best + 2]
    bend = left - 2 * top + right
    return float(best + (0.5 * (left - right) / bend if bend < 0 else 0.0))


def hardly_moves(series: Floats) -> bool:
    """Whether the aperture stays within what is the tracker's noise more than a movement."""
    return float(np.ptp(np.percentile(series, [5, 95]))) < LEAST_RANGE / 3


def closed_threshold(series: Floats, rest: float) -> float:
    """The aperture below which lips count as closed.

    The closed end of the range is the portrait's own closed mouth `rest` (or lower, if the series is), so a
    mouth that never closes does not get its smallest opening counted as closed. Minus infinity for a
    mouth that hardly moves: it makes no closures.
    """
    closed, wide = min(rest, float(np.percentile(series, 5))), float(np.percentile(series, 95))
    return closed + CLOSED_SHARE * (wide - closed) if wide - closed >= LEAST_RANGE else -np.inf


def closures(
    series: Floats, intervals: Sequence[tuple[int, int]], threshold: float, tolerance_frames: int = 1
) -> NDArray[np.bool_]:
    """For each interval of frames [first, last) whether the lips close in it, give or take the tolerance."""
    hits = []
    for first, last in intervals:
        window = series[max(first - tolerance_frames, 0) : last + tolerance_frames]
        hits.append(len(window) > 0 and float(window.min()) < threshold)
    return np.array(hits, bool)


def closed_intervals(series: Floats, threshold: float, speech: tuple[int, int]) -> list[tuple[int, int]]:
    """Runs of frames [first, last) inside `speech` where the lips are closed; used on a real speaker's."""
    first, last = speech
    below = np.zeros(len(series) + 2, bool)
    below[1 + first : 1 + last] = series[first:last] < threshold
    edges = np.flatnonzero(below[1:] != below[:-1])
    return [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def stillness(series: Floats, settle_frames: int = 15) -> float:
    """Standard deviation of the aperture, after the first `settle_frames`; the series is one of silence."""
    return float(np.std(series[settle_frames:]))
