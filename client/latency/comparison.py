"""`talkalong latency compare A.json B.json`: what changed, and whether it is noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from client.latency.figures import CONFIDENCE, START_UP_S
from client.latency.report import ROWS

Array = npt.NDArray[np.float64]

RESAMPLES = 4_000
SHARES = {"p50": 50.0, "p95": 95.0}


@dataclass(frozen=True, kw_only=True)
class Change:
    """B less A of one percentile, with its 95 % interval from resampling both runs; a change whose interval holds 0
    cannot be told from noise."""

    figure: str
    percentile: str
    before: float
    after: float
    low: float
    high: float

    @property
    def is_noise(self) -> bool:
        return self.low <= 0 <= self.high

    def sentence(self) -> str:
        difference = self.after - self.before
        what = f"{self.figure} {self.percentile}: {self.before:.0f} to {self.after:.0f} ms ({difference:+.0f}"
        interval = f"95 % interval {self.low:+.0f} to {self.high:+.0f})"
        if self.is_noise:
            return f"{what}, {interval}: noise"
        return f"{what}, {interval}: {'more' if difference > 0 else 'less'}"


def compare(before: dict[str, Any], after: dict[str, Any], *, seed: int = 0) -> list[Change]:
    """Of two reports, in steady state."""
    rng = np.random.default_rng(seed)
    found = []
    for key, name in ROWS.items():
        first, second = _values(before, key), _values(after, key)
        if not len(first) or not len(second):
            continue
        drawn = [rng.choice(values, (RESAMPLES, len(values))) for values in (first, second)]
        for percentile, share in SHARES.items():
            a, b = (np.percentile(values, share, axis=1) for values in drawn)
            low, high = np.percentile(b - a, CONFIDENCE)
            found.append(
                Change(
                    figure=name, percentile=percentile, before=float(np.percentile(first, share)),
                    after=float(np.percentile(second, share)), low=float(low), high=float(high),
                )
            )  # fmt: skip
    return found


def settings_changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What else differs between the two runs, as sentences: a change of latency may come from it."""
    said = []
    for part in ("settings", "machine"):
        for key in sorted({*before[part], *after[part]} - {"load_1min", "out"}):
            old, new = before[part].get(key), after[part].get(key)
            if old != new:
                said.append(f"{key}: {old} to {new}")
    return said


def _values(report: dict[str, Any], key: str) -> Array:
    single = report["single"]
    spoken, seen, heard = (
        np.array([np.nan if value is None else value for value in single[name]], float)
        for name in ("spoken_s", "seen_s", "heard_s")
    )
    start, end = {
        "mouth_to_photon_ms": (spoken, seen),
        "mouth_to_ear_ms": (spoken, heard),
        "picture_after_sound_ms": (heard, seen),
    }[key]
    steady = spoken >= (single["frame_s"][0] if single["frame_s"] else 0.0) + START_UP_S
    values = 1_000 * (end - start)[steady]
    return np.asarray(values[np.isfinite(values)])
