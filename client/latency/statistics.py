"""Percentiles with what a reader needs to trust them: how many values, and how far chance may have moved them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

RESAMPLES = 1_000
PERCENTILES = (50, 95, 99)

Array = npt.NDArray[np.float64]


def summary(values: Array, *, seed: int = 0) -> dict[str, Any]:
    """count, mean, min, max and p50, p95, p99, each with its 95 % bootstrap interval: {"count", "p50",
    "p50_interval": [low, high], ...}; only {"count": 0} where there are no values."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return {"count": 0}
    rng = np.random.default_rng(seed)
    resamples = RESAMPLES if len(values) <= 5_000 else 200
    drawn = values[rng.integers(0, len(values), (resamples, len(values)))]
    result: dict[str, Any] = {
        "count": len(values),
        "mean": _round(values.mean()),
        "min": _round(values.min()),
        "max": _round(values.max()),
    }
    spread = np.percentile(drawn, PERCENTILES, axis=1)
    for percentile, value, resampled in zip(
        PERCENTILES, np.percentile(values, PERCENTILES), spread, strict=True
    ):
        low, high = np.percentile(resampled, (2.5, 97.5))
        result[f"p{percentile}"] = _round(value)
        result[f"p{percentile}_interval"] = [_round(low), _round(high)]
    return result


def slope(times: Array, values: Array, *, seed: int = 0) -> dict[str, Any]:
    """Robust slope (Theil and Sen) of values over times with its 95 % bootstrap interval; {"count": n} below 8
    values."""
    good = np.isfinite(values)
    times, values = times[good], values[good]
    if len(values) < 8:
        return {"count": len(values)}
    rng = np.random.default_rng(seed)
    pairs = rng.integers(0, len(values), (20_000, 2))
    apart = times[pairs[:, 1]] - times[pairs[:, 0]]
    pairs = pairs[np.abs(apart) > 0.1 * np.ptp(times)]
    slopes = (values[pairs[:, 1]] - values[pairs[:, 0]]) / (times[pairs[:, 1]] - times[pairs[:, 0]])
    resampled = []
    for _ in range(200):
        drawn = rng.integers(0, len(values), len(values))
        centred = times[drawn] - times[drawn].mean()
        resampled.append(float(centred @ values[drawn] / max(centred @ centred, 1e-9)))
    low, high = np.percentile(resampled, (2.5, 97.5))
    return {"count": len(values), "slope": _round(np.median(slopes)), "interval": [_round(low), _round(high)]}


def permutation_p(
    first: Array, second: Array, *, percentile: float = 50, seed: int = 0, rounds: int = 2_000
) -> float:
    """How often chance alone would move a percentile as far as it differs between the two: a permutation test."""
    rng = np.random.default_rng(seed)
    observed = abs(np.percentile(second, percentile) - np.percentile(first, percentile))
    both = np.concatenate([first, second])
    further = 0
    for _ in range(rounds):
        mixed = rng.permutation(both)
        apart = np.percentile(mixed[: len(first)], percentile) - np.percentile(
            mixed[len(first) :], percentile
        )
        further += abs(apart) >= observed
    return (further + 1) / (rounds + 1)


def _round(value: float | np.floating[Any]) -> float:
    return round(float(value), 2)
