"""What changed between two reports, and whether chance would have done it too."""

from __future__ import annotations

from typing import Any

import numpy as np

from client.latency.measurement import STARTUP_S
from client.latency.statistics import permutation_p

SIGNIFICANT = 0.01
FEWEST = 8
SHOWN = (("mouth to photon", "mouth_to_photon_ms"), ("mouth to ear", "mouth_to_ear_ms"))


def compare(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    """One entry a figure: {"figure", "before", "after", "change", "p", "verdict"}; p: of a permutation test."""
    entries = []
    for label, name in SHOWN:
        first, second = _steady(before, name), _steady(after, name)
        for percentile in (50, 95):
            if min(len(first), len(second)) < FEWEST:
                continue
            old, new = (float(np.percentile(values, percentile)) for values in (first, second))
            chance = permutation_p(first, second, percentile=percentile)
            entries.append(_entry(f"{label} p{percentile}, ms", old, new, chance))
    for label, keys in (
        ("first frame, ms", ("first_frame_ms",)),
        ("frames a second", ("frames", "fps")),
        ("frame jitter p95, ms", ("frames", "jitter_ms", "p95")),
        ("freezes", ("frames", "freezes")),
        ("missed deadlines, share", ("deadlines", "ratio")),
    ):
        old_value, new_value = _at(before, keys), _at(after, keys)
        if old_value is not None and new_value is not None:
            entries.append(_entry(label, old_value, new_value, None))
    return entries


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What of the set-up was not the same, as "key: old -> new"."""
    old, new = (_flat(report["provenance"]) for report in (before, after))
    ignored = {"time", "machine.load_1min"}
    return [
        f"{key}: {old.get(key)} -> {new.get(key)}"
        for key in sorted(old.keys() | new.keys())
        if key not in ignored and old.get(key) != new.get(key)
    ]


def table(before: dict[str, Any], after: dict[str, Any]) -> str:
    lines = [f"{'':28}{'before':>10}{'after':>10}{'change':>10}   verdict"]
    for entry in compare(before, after):
        lines.append(
            f"{entry['figure']:28}{entry['before']:10.2f}{entry['after']:10.2f}{entry['change']:+10.2f}"
            f"   {entry['verdict']}"
        )
    changed = differences(before, after)
    lines += (
        ["", "The set-up:", *(f"  {line}" for line in changed)]
        if changed
        else ["", "The set-up is the same."]
    )
    return "\n".join(lines)


def _entry(figure: str, old: float, new: float, chance: float | None) -> dict[str, Any]:
    if chance is None:
        verdict = "the same" if new == old else "a single value: repeat the run to know"
    elif chance >= SIGNIFICANT:
        verdict = f"noise (p = {chance:.2f})"
    else:
        verdict = f"{'slower' if new > old else 'faster'} (p = {chance:.4f})"
    return {
        "figure": figure,
        "before": old,
        "after": new,
        "change": new - old,
        "p": chance,
        "verdict": verdict,
    }


def _steady(report: dict[str, Any], name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    samples = report["figures"]["samples"]
    values = zip(samples["onset_s"], samples[name], strict=True)
    return np.array([value for onset_s, value in values if onset_s >= STARTUP_S and value is not None], float)


def _at(report: dict[str, Any], keys: tuple[str, ...]) -> float | None:
    value: Any = report["figures"]
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return float(value) if isinstance(value, int | float) else None


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
