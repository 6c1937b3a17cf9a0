"""From detections to figures: percentiles with confidence intervals, start-up and steady state apart."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from client.latency.detection import Detections
from client.latency.recording import Recording
from stream.protocol import FPS

Array = npt.NDArray[np.float64]

START_UP_S = 3.0
"""After the first frame; what happens in it is reported apart."""
RESAMPLES = 1_000
CONFIDENCE = (2.5, 97.5)
LEAST_SHARE = 0.7
LEAST_COUNT = 8


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Percentiles of `count` values, each with its 95 % interval from resampling (bootstrap, Efron 1979)."""

    count: int
    p50: float
    p50_low: float
    p50_high: float
    p95: float
    p95_low: float
    p95_high: float
    p99: float
    mean: float

    @classmethod
    def of(cls, values: Array, *, seed: int = 0) -> Spread | None:
        """None if there are no finite values."""
        values = np.asarray(values, float)
        values = values[np.isfinite(values)]
        if not len(values):
            return None
        drawn = np.random.default_rng(seed).choice(values, (RESAMPLES, len(values)))
        (p50_low, p50_high), (p95_low, p95_high) = (
            np.percentile(np.percentile(drawn, rank, axis=1), CONFIDENCE) for rank in (50, 95)
        )
        p50, p95, p99 = np.percentile(values, (50, 95, 99))
        numbers = [p50, p50_low, p50_high, p95, p95_low, p95_high, p99, values.mean()]
        names = ["p50", "p50_low", "p50_high", "p95", "p95_low", "p95_high", "p99", "mean"]
        return cls(count=len(values), **dict(zip(names, (round(float(n), 2) for n in numbers), strict=True)))

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether the run can be trusted, and if not, why not."""

    valid: bool
    message: str


def figures(recording: Recording, found: Detections) -> dict[str, Any]:
    """Everything that is reported of one run, ready for JSON; times in ms."""
    frame_s = np.array(recording.frame_s)
    steady_from_s = frame_s[0] + START_UP_S if len(frame_s) else np.inf
    steady = found.spoken_s >= steady_from_s
    spreads = {
        "mouth_to_photon_ms": found.mouth_to_photon_ms,
        "mouth_to_ear_ms": found.mouth_to_ear_ms,
        "picture_after_sound_ms": found.picture_after_sound_ms,
    }
    steady_frames = frame_s[frame_s >= steady_from_s]
    gaps_ms = 1_000 * np.diff(steady_frames)
    return {
        "steady": {name: _spread(values[steady]) for name, values in spreads.items()},
        "start_up": {name: _spread(values[~steady]) for name, values in spreads.items()}
        | {"first_frame_ms": round(1_000 * (frame_s[0] - recording.offered_s), 1) if len(frame_s) else None},
        "sounds": len(found.spoken_s),
        "seen": int(np.isfinite(found.seen_s).sum()),
        "heard": int(np.isfinite(found.heard_s).sum()),
        "missed": int(np.sum(~np.isfinite(found.seen_s))),
        "false_openings": found.false_openings,
        "fps": round((len(steady_frames) - 1) / float(np.ptp(steady_frames)), 2)
        if len(steady_frames) > 1
        else 0.0,
        "frame_interval_ms": _spread(gaps_ms),
        "frame_jitter_ms": round(float(gaps_ms.std()), 2) if len(gaps_ms) else None,
        "freezes": _freezes(gaps_ms),
        "drift_ms_per_minute": _drift(found.spoken_s[steady], found.mouth_to_photon_ms[steady]),
    }


def verdict(found: Detections) -> Verdict:
    """A run with too few detections says nothing about latency."""
    sounds, seen = len(found.spoken_s), int(np.isfinite(found.seen_s).sum())
    if not found.mouth.any():
        return Verdict(
            valid=False,
            message="No response: nothing in the picture moves with the voice. Is the portrait muted, or its "
            "server not fed by this microphone?",
        )
    if seen < max(LEAST_SHARE * sounds, LEAST_COUNT):
        return Verdict(
            valid=False,
            message=f"Too few detections: {seen} of {sounds} sounds were answered by the lips; at least "
            f"{max(round(LEAST_SHARE * sounds), LEAST_COUNT)} are needed. Measure longer, or with a portrait whose "
            "mouth is large in the picture.",
        )
    return Verdict(valid=True, message=f"{seen} of {sounds} sounds were answered by the lips.")


def _spread(values: Array) -> dict[str, float] | None:
    spread = Spread.of(values)
    return None if spread is None else spread.to_dict()


def _freezes(gaps_ms: Array) -> dict[str, float]:
    """As in webrtc-stats (freezeCount): an interval over max(3 x average, average + 150 ms)."""
    if not len(gaps_ms):
        return {"count": 0, "total_ms": 0.0, "longest_ms": 0.0}
    average = max(float(gaps_ms.mean()), 1_000 / FPS)
    frozen = gaps_ms[gaps_ms > max(3 * average, average + 150)]
    return {
        "count": len(frozen),
        "total_ms": round(float(frozen.sum()), 1),
        "longest_ms": round(float(gaps_ms.max()), 1),
    }


def _drift(spoken_s: Array, delay_ms: Array) -> float | None:
    """Slope of the delay over the run (Theil-Sen: the median of all slopes, so outliers do not count)."""
    good = np.isfinite(delay_ms)
    spoken_s, delay_ms = spoken_s[good], delay_ms[good]
    if len(spoken_s) < LEAST_COUNT:
        return None
    first, second = np.triu_indices(len(spoken_s), 1)
    slopes = (delay_ms[second] - delay_ms[first]) / (spoken_s[second] - spoken_s[first])
    return round(60 * float(np.median(slopes)), 2)
