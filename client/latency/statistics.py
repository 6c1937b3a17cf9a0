"""Percentiles with what a reader needs to trust them: how many values, and how far chance may have moved them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

RESAMPLES = 1_000
PERCENTILES = (50, 95, 99)
MOST_IN_PAIRS = 2_000
Z95 = 1.96
"""Standard normal distribution: 95 % lie within so many standard deviations."""

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
    """Slope of values over times by Theil and Sen, with its 95 % interval; {"count": n} below 8 different times.

    The slope is the median of the slopes between all pairs. The interval is Sen's, of the same slopes: as far to both
    sides of their middle rank as Kendall's statistic strays by chance (P. K. Sen, J. Am. Stat. Assoc. 63, 1968, with
    ties in the values). It takes what is left beside the slope for independent. Of more than MOST_IN_PAIRS values as
    many are drawn.
    """
    good = np.isfinite(values)
    times, values = times[good], values[good]
    count = len(values)
    if len(np.unique(times)) < 8:
        return {"count": count}
    if count > MOST_IN_PAIRS:
        drawn = np.random.default_rng(seed).choice(count, MOST_IN_PAIRS, replace=False)
        times, values = times[drawn], values[drawn]
    one, other = np.triu_indices(len(values), 1)
    apart = times[other] - times[one]
    slopes = np.sort((values[other] - values[one])[apart != 0] / apart[apart != 0])
    spread = np.sqrt(_untied(len(values)) - sum(_untied(n) for x in (times, values) for n in _repeats(x)))
    low, high = (round((len(slopes) + side * Z95 * spread) / 2) for side in (-1, 1))
    return {
        "count": count,
        "slope": _round(np.median(slopes)),
        "interval": [_round(slopes[max(low - 1, 0)]), _round(slopes[min(high, len(slopes) - 1)])],
    }


def _untied(count: int) -> float:
    """Variance of Kendall's statistic of so many values without ties, and what as many tied ones take from it."""
    return count * (count - 1) * (2 * count + 5) / 18


def _repeats(values: Array) -> list[int]:
    """How often each value is there."""
    return [int(n) for n in np.unique(values, return_counts=True)[1]]


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
