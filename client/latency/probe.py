"""What is said into the microphone: sounds with known beginnings, at times that sample a frame's phase evenly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream.protocol import FPS, SAMPLE_RATE

KINDS = ("syllables", "clicks")
LEAD_S = 1.0  # silence first: the receiver learns what rest looks like
CLICK_S = 0.02
CLICK_HZ = 1_000.0
SYLLABLE_S = 0.2
BURST_S = 0.004
PITCH_HZ = 125.0
FORMANTS = (
    (730.0, 90.0),
    (1_090.0, 110.0),
    (2_440.0, 160.0),
    (3_400.0, 250.0),
)  # of /a/: frequency, bandwidth
PEAK = 16_000.0
MATCHED_S = 0.06  # of a sound: its beginning decides
GOLDEN = 0.618033988749895


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """pcm: int16 [N], 48 kHz mono. onsets_s: float64 [K], when each sound begins in it. sound_s: how long each
    lasts."""

    kind: str
    pcm: npt.NDArray[np.int16]
    onsets_s: npt.NDArray[np.float64]
    sound_s: float

    @property
    def seconds(self) -> float:
        return len(self.pcm) / SAMPLE_RATE

    def template(self, index: int = 0) -> npt.NDArray[np.int16]:
        """The sound `index` itself."""
        start = round(self.onsets_s[index] * SAMPLE_RATE)
        return self.pcm[start : start + round(self.sound_s * SAMPLE_RATE)]


def make_probe(
    *,
    seconds: float,
    kind: str = "syllables",
    seed: int = 0,
    shortest_gap_s: float = 0.45,
    longest_gap_s: float = 0.85,
) -> Probe:
    """Sounds that begin `shortest_gap_s` to `longest_gap_s` apart, after a second of silence and with half a second
    of it at the end. The beginnings' phase within a 40 ms frame follows the golden ratio: every stretch of the run
    samples all phases evenly, whatever phase the server's frames have."""
    if kind not in KINDS:
        raise ValueError(f"There is no probe '{kind}'; choose one of {', '.join(KINDS)}.")
    if seconds < LEAD_S + 2 * longest_gap_s:
        raise ValueError(
            f"A probe of {seconds:.1f} s is too short; it needs {LEAD_S + 2 * longest_gap_s:.1f} s."
        )
    rng = np.random.default_rng(seed)
    sound = _click() if kind == "clicks" else _syllable(rng)
    pcm = np.zeros(round(seconds * SAMPLE_RATE), np.int16)
    frame_s = 1 / FPS
    phase = rng.random()
    onsets: list[float] = []
    earliest_s = LEAD_S
    while True:
        phase = (phase + GOLDEN) % 1.0
        wanted_s = earliest_s + rng.uniform(0.0, longest_gap_s - shortest_gap_s)
        onset_s = (np.floor(wanted_s / frame_s) + phase) * frame_s
        start = round(onset_s * SAMPLE_RATE)
        if start + len(sound) > len(pcm) - SAMPLE_RATE // 2:
            break
        pcm[start : start + len(sound)] = sound
        onsets.append(start / SAMPLE_RATE)
        earliest_s = onset_s + shortest_gap_s
    return Probe(kind=kind, pcm=pcm, onsets_s=np.array(onsets), sound_s=len(sound) / SAMPLE_RATE)


def _click() -> npt.NDArray[np.int16]:
    """20 ms of a 1 kHz tone that starts at once and fades: narrow enough for speech codecs."""
    time_s = np.arange(round(CLICK_S * SAMPLE_RATE)) / SAMPLE_RATE
    tone = np.sin(2 * np.pi * CLICK_HZ * time_s) * np.exp(-time_s / (CLICK_S / 3))
    return np.asarray(PEAK * tone, np.int16)


def _syllable(rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """/pa/: a burst of noise, then an open vowel: glottal pulses through four resonances. Closed lips have to open
    for it."""
    samples = round(SYLLABLE_S * SAMPLE_RATE)
    time_s = np.arange(samples) / SAMPLE_RATE
    pulses = np.zeros(samples)
    pulses[:: round(SAMPLE_RATE / PITCH_HZ)] = 1.0
    voice = pulses
    for frequency, bandwidth in FORMANTS:
        voice = _resonance(voice, frequency, bandwidth)
    voice *= np.clip((time_s - BURST_S) / 0.01, 0, 1) * np.clip((SYLLABLE_S - time_s) / 0.06, 0, 1)
    voice /= np.abs(voice).max()
    burst = rng.standard_normal(samples) * np.exp(-time_s / BURST_S)
    return np.asarray(PEAK * np.clip(voice + 0.3 * burst, -1.5, 1.5), np.int16)


def _resonance(
    signal: npt.NDArray[np.float64], frequency_hz: float, bandwidth_hz: float
) -> npt.NDArray[np.float64]:
    """A two-pole resonator, as convolution with its own impulse response."""
    time_s = np.arange(round(0.03 * SAMPLE_RATE)) / SAMPLE_RATE
    response = np.exp(-np.pi * bandwidth_hz * time_s) * np.sin(2 * np.pi * frequency_hz * time_s)
    return np.asarray(np.convolve(signal, response)[: len(signal)])
