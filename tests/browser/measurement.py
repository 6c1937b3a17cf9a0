"""What the browser saw and heard, and what follows from it: frame rate, lip activity, delays by content."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

GRID_MS = 5.0
WINDOW_MS = 6_000.0
STEP_MS = 1_000.0
LOWEST_CORRELATION = 0.4
QUIET = 0.006  # RMS; the sample voice speaks at 0.05 to 0.2
DRIFT_FRAMES = 14
SETTLING_MS = 250.0  # after speech ends, the lips may close
MOUTH_ROWS, MOUTH_COLUMNS = (0.36, 0.80), (0.28, 0.72)  # of the picture

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Measurement:
    """frame_ms [T] on the page's clock; gray [T, S, S] 0..255; sent, heard [N, 2]: time in ms, RMS."""

    frame_ms: Array
    presented: Array
    gray: Array
    sent: Array
    heard: Array
    size: tuple[int, int]

    @classmethod
    def of(cls, taken: Mapping[str, Any]) -> Measurement:
        side = int(taken["side"])
        frames = taken["frames"]
        gray = [np.frombuffer(base64.b64decode(frame["gray"]), np.uint8) for frame in frames]
        return cls(
            frame_ms=np.array([frame["time"] for frame in frames], float),
            presented=np.array([frame["presented"] for frame in frames], float),
            gray=np.array(gray, float).reshape(-1, side, side),
            sent=_levels(taken["sent"]),
            heard=_levels(taken["heard"]),
            size=(int(taken["width"]), int(taken["height"])),
        )

    @property
    def fps(self) -> float:
        """Pictures shown each second, those between two callbacks included."""
        return float(
            1_000 * (self.presented[-1] - self.presented[0]) / (self.frame_ms[-1] - self.frame_ms[0])
        )

    @property
    def longest_gap_ms(self) -> float:
        return float(np.diff(self.frame_ms).max())

    def mouth(self) -> Array:
        """[T, h, w]: the middle of the picture's lower half, where a portrait's mouth is."""
        side = self.gray.shape[1]
        rows, columns = (
            slice(int(low * side), int(high * side)) for low, high in (MOUTH_ROWS, MOUTH_COLUMNS)
        )
        return self.gray[:, rows, columns]

    def lip_motion(self) -> Array:
        """[T]: how far the mouth is open, in units of its own: what most of the change in the mouth region is.

        The first principal component of the region's pixels, less their average over a second (heads move too, but
        slower than lips), with the sign that goes with the voice heard. A distance from the average would not do: it
        is as large for a mouth shut as for one wide open.
        """
        mouth = self.mouth().reshape(len(self.gray), -1)
        change = mouth - _local_mean(mouth, DRIFT_FRAMES)
        _, _, directions = np.linalg.svd(change, full_matrices=False)
        opening = np.asarray(change @ directions[0])
        return opening * _sign_with(self.heard[:, 0], self.heard[:, 1], self.frame_ms, opening)

    def speech_to_silence(self) -> float:
        """Picture-to-picture change around the mouth while the returned voice speaks, over its pauses."""
        mouth = self.mouth().reshape(len(self.gray), -1)
        change = np.abs(np.diff(mouth, axis=0))
        moving = np.argsort(change.std(axis=0))[-max(1, change.shape[1] // 20) :]
        change_t = change[:, moving].mean(axis=1)
        times = self.frame_ms[1:]
        loud_ms = self.heard[self.heard[:, 1] > QUIET, 0]
        before = np.array([_distance(loud_ms, time) for time in times])
        speaking, resting = before < 60, before > SETTLING_MS
        if not speaking.any() or not resting.any():
            return float("nan")
        return float(change_t[speaking].mean() / max(change_t[resting].mean(), 1e-6))

    def mouth_to_ear_ms(self) -> Array:
        """[K]: from the microphone to the own voice heard again, window by window."""
        return delays_ms(self.sent[:, 0], self.sent[:, 1], self.heard[:, 0], self.heard[:, 1])

    def mouth_to_photon_ms(self) -> Array:
        """[K]: from the microphone to the lips shown, window by window. The model's own lag is inside."""
        return delays_ms(self.sent[:, 0], self.sent[:, 1], self.frame_ms, self.lip_motion())

    def picture_after_sound_ms(self) -> Array:
        """[K]: the lips against the voice that is heard with them; positive when the picture is behind."""
        return delays_ms(self.heard[:, 0], self.heard[:, 1], self.frame_ms, self.lip_motion(), lowest_ms=-400)


def _local_mean(values: Array, reach: int) -> Array:
    """[T, N]: mean over the `reach` rows before and after each row, fewer at the ends."""
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    index = np.arange(len(values))
    first, last = np.maximum(index - reach, 0), np.minimum(index + reach + 1, len(values))
    return np.asarray((sums[last] - sums[first]) / (last - first)[:, None])


def _sign_with(cause_ms: Array, cause: Array, effect_ms: Array, effect: Array) -> float:
    """1 or -1: the sign of the strongest correlation within 400 ms."""
    grid = np.arange(max(cause_ms[0], effect_ms[0]), min(cause_ms[-1], effect_ms[-1]), GRID_MS)
    reach = round(400 / GRID_MS)
    if len(grid) <= 2 * reach:
        return 1.0
    loudness = _normalised(_smooth(np.interp(grid, cause_ms, np.log1p(100 * cause)))[reach:-reach])
    answer = _smooth(np.interp(grid, effect_ms, effect))
    scores = [loudness @ _normalised(answer[lag : lag + len(loudness)]) for lag in range(2 * reach + 1)]
    return float(np.sign(max(scores, key=abs)))


def delays_ms(
    cause_ms: Array,
    cause: Array,
    effect_ms: Array,
    effect: Array,
    *,
    lowest_ms: float = 0.0,
    highest_ms: float = 1_200.0,
) -> Array:
    """[K] delays of `effect` behind `cause`: the peak of their normalised correlation in windows of 6 s, one
    each second; windows that hardly correlate (silence, a still mouth) are left out."""
    grid = np.arange(max(cause_ms[0], effect_ms[0]), min(cause_ms[-1], effect_ms[-1]), GRID_MS)
    if len(grid) == 0:
        return np.zeros(0)
    loudness = _smooth(np.interp(grid, cause_ms, np.log1p(100 * cause)))
    answer = _smooth(np.interp(grid, effect_ms, effect))
    window, step = round(WINDOW_MS / GRID_MS), round(STEP_MS / GRID_MS)
    low, high = round(lowest_ms / GRID_MS), round(highest_ms / GRID_MS)
    found: list[float] = []
    for start in range(max(0, -low), len(grid) - window - high, step):
        part = _normalised(loudness[start : start + window])
        scores = [
            float(part @ _normalised(answer[start + lag : start + lag + window])) for lag in range(low, high)
        ]
        best = int(np.argmax(scores))
        if scores[best] >= LOWEST_CORRELATION:
            found.append((low + best) * GRID_MS)
    return np.array(found)


def summary(values: Sequence[float] | Array) -> dict[str, float]:
    """p50, p95 and the number of values; NaN where there are none."""
    if len(values) == 0:
        return {"p50": float("nan"), "p95": float("nan"), "count": 0}
    p50, p95 = np.percentile(np.asarray(values, float), [50, 95])
    return {"p50": round(float(p50), 1), "p95": round(float(p95), 1), "count": len(values)}


def _levels(pairs: Sequence[Sequence[float]]) -> Array:
    return np.array(pairs, float).reshape(-1, 2)


def _distance(events_ms: Array, time_ms: float) -> float:
    """How long before `time_ms` the last event was; events just after it count too."""
    before = events_ms[events_ms <= time_ms + 20]
    return float(time_ms - before[-1]) if len(before) else float("inf")


def _smooth(values: Array, width_ms: float = 80.0) -> Array:
    kernel = np.hanning(round(width_ms / GRID_MS) + 2)
    return np.convolve(values, kernel / kernel.sum(), mode="same")


def _normalised(values: Array) -> Array:
    centred = values - values.mean()
    norm = float(np.linalg.norm(centred))
    return centred / norm if norm > 1e-9 else np.zeros_like(centred)
