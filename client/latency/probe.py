"""What the harness says into the microphone: sounds whose onsets are known to the sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from stream.protocol import FPS, SAMPLE_RATE

Sound = Literal["syllables", "clicks"]
FRAME_S = 1 / FPS
LEAD_IN_S = 1.5  # a session needs a moment before its first figure means anything
SYLLABLE_S = 0.20
CLICK_S = 0.06
SHORTEST_GAP_S, LONGEST_GAP_S = 0.75, 1.15
GOLDEN_RATIO = (5**0.5 - 1) / 2
PITCH_HZ = 125.0
FORMANTS_HZ = (
    (730.0, 90.0, 1.0),
    (1_150.0, 110.0, 0.6),
    (2_500.0, 160.0, 0.25),
)  # centre, width, weight: "a"
PEAK = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """pcm: float32 [N] at 48 kHz; onsets_s [K]: where each sound begins; sound_s: how long one lasts."""

    pcm: npt.NDArray[np.float32]
    onsets_s: npt.NDArray[np.float64]
    sound_s: float

    @property
    def duration_s(self) -> float:
        return len(self.pcm) / SAMPLE_RATE

    def pattern(self) -> npt.NDArray[np.float32]:
        """One sound, float32 [M]."""
        first = round(self.onsets_s[0] * SAMPLE_RATE)
        return self.pcm[first : first + round(self.sound_s * SAMPLE_RATE)]

    def loud_at(self, times_s: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """1 where a sound is on at that time of the probe, 0 elsewhere."""
        place = np.searchsorted(self.onsets_s, times_s, side="right") - 1
        since = times_s - self.onsets_s[np.maximum(place, 0)]
        return ((place >= 0) & (since < self.sound_s)).astype(float)


def make_probe(seconds: float, *, sound: Sound = "syllables", seed: int = 0) -> Probe:
    """A probe of about `seconds`; the same seed gives the same probe.

    The gaps are random, so that the whole train matches a delay in one place only. The onsets fall evenly over
    the 40 ms of a frame, in every part of the run (steps of the golden ratio): where an onset lies between two
    frames moves a single figure by up to a frame, and evenly spread it does not move their mean.
    """
    rng = np.random.default_rng(seed)
    count = int((seconds - LEAD_IN_S) / ((SHORTEST_GAP_S + LONGEST_GAP_S) / 2))
    if count < 1:
        raise ValueError(
            f"{seconds:g} s leave no room for a probe; measure for at least {LEAD_IN_S + 1:g} s."
        )
    phases = (rng.uniform() + GOLDEN_RATIO * np.arange(count)) % 1 * FRAME_S
    onsets, at = [], LEAD_IN_S
    for phase in phases:
        onsets.append(np.ceil(at / FRAME_S) * FRAME_S + phase)
        at = onsets[-1] + rng.uniform(SHORTEST_GAP_S, LONGEST_GAP_S) - FRAME_S / 2
    pattern = _syllable() if sound == "syllables" else _click()
    starts = np.round(np.array(onsets) * SAMPLE_RATE).astype(int)
    pcm = np.zeros(starts[-1] + round(LONGEST_GAP_S * SAMPLE_RATE), np.float32)
    for start in starts:
        pcm[start : start + len(pattern)] = pattern
    return Probe(pcm=pcm, onsets_s=starts / SAMPLE_RATE, sound_s=len(pattern) / SAMPLE_RATE)


def _syllable() -> npt.NDArray[np.float32]:
    """Something like "pa": a burst, then a vowel of harmonics under three formants."""
    time_s = np.arange(round(SYLLABLE_S * SAMPLE_RATE)) / SAMPLE_RATE
    harmonics = PITCH_HZ * np.arange(1, int(4_000 / PITCH_HZ))
    peaks = [weight / (1 + ((harmonics - centre) / width) ** 2) for centre, width, weight in FORMANTS_HZ]
    vowel = np.sum(peaks, axis=0) @ np.cos(2 * np.pi * harmonics[:, None] * time_s)
    vowel *= np.clip((time_s - 0.008) / 0.012, 0, 1) * np.clip((SYLLABLE_S - time_s) / 0.06, 0, 1)
    burst = np.random.default_rng(1).standard_normal(len(time_s)) * np.exp(-time_s / 0.004)
    both = vowel / np.abs(vowel).max() + 0.5 * burst / np.abs(burst).max()
    return np.asarray(PEAK * both / np.abs(both).max(), np.float32)


def _click() -> npt.NDArray[np.float32]:
    """A tone burst with a steep edge, for servers that echo or flash."""
    time_s = np.arange(round(CLICK_S * SAMPLE_RATE)) / SAMPLE_RATE
    tone = np.sin(2 * np.pi * 1_000 * time_s + 60 * time_s**2 * 2 * np.pi * 100)
    return np.asarray(PEAK * tone * np.clip((CLICK_S - time_s) / 0.01, 0, 1), np.float32)
