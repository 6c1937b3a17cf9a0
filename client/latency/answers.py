"""The answers to a probe's sounds: when each came, which are missing, and what nobody had asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

TRACKED = 5  # the delay expected next is the median of so many found last: re-anchored streams are followed
MIN_ANSWERED = 0.5

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """time_s [K]: when the answer to each sound came, NaN where none was found. false: answers to nothing.
    confidence: correlation of the answers with the question, 0..1, on sounds that were not learned from."""

    time_s: Array
    false: int
    confidence: float
    reason: str = ""

    @property
    def found(self) -> npt.NDArray[np.bool_]:
        return np.isfinite(self.time_s)

    @property
    def missed(self) -> int:
        return int((~self.found).sum())

    @property
    def responds(self) -> bool:
        return not self.reason and len(self.time_s) > 0 and self.found.mean() >= MIN_ANSWERED


def silent(sounds: int, reason: str, *, confidence: float = 0.0) -> Answers:
    """No answer at all, and why."""
    return Answers(time_s=np.full(sounds, np.nan), false=0, confidence=confidence, reason=reason)


class DelayTrack:
    """The delay to expect for the next sound, from the ones found before."""

    def __init__(self, first_s: float) -> None:
        self._first_s = first_s
        self._found_s: list[float] = []

    @property
    def expected_s(self) -> float:
        return float(np.median(self._found_s[-TRACKED:])) if self._found_s else self._first_s

    def add(self, delay_s: float) -> None:
        self._found_s.append(delay_s)
