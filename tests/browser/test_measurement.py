"""The harness itself: delays that were put in come out again, and nothing comes out of noise."""

from __future__ import annotations

import numpy as np
import pytest
from measurement import Measurement, delays_ms, summary

RNG = np.random.default_rng(7)
SIDE = 64


def speech(times_ms: np.ndarray) -> np.ndarray:
    """RMS of syllables of 200 ms at random loudness, with a pause in every fourth second."""
    loudness = np.random.default_rng(3).uniform(0.02, 0.2, 1_000)
    syllable = loudness[(times_ms // 200).astype(int) % 1_000] * np.sin(np.pi * (times_ms % 200) / 200) ** 2
    return np.where((times_ms // 1_000) % 4 == 3, 0.0, syllable)


def measured(*, voice_ms: float, lips_ms: float, moving: bool = True) -> Measurement:
    """A mouth that opens with the voice, seen `lips_ms` and heard `voice_ms` after it was spoken."""
    sound_ms, frame_ms = np.arange(0, 30_000, 10.0), np.arange(0, 30_000, 40.0)
    gray = 100 + RNG.normal(0, 0.5, (len(frame_ms), SIDE, SIDE))
    if moving:
        opened = speech(np.maximum(frame_ms - lips_ms, 0))
        gray[:, 36:42, 26:38] -= 300 * opened[:, None, None]
    return Measurement(
        frame_ms=frame_ms,
        presented=np.arange(len(frame_ms), dtype=float),
        gray=gray,
        sent=np.stack([sound_ms, speech(sound_ms)], 1),
        heard=np.stack([sound_ms, speech(np.maximum(sound_ms - voice_ms, 0))], 1),
        size=(512, 512),
    )


@pytest.mark.parametrize(("voice_ms", "lips_ms"), [(250, 250), (300, 220), (180, 330)])
def test_injected_delays_come_out(voice_ms: float, lips_ms: float) -> None:
    taken = measured(voice_ms=voice_ms, lips_ms=lips_ms)
    assert summary(taken.mouth_to_ear_ms())["p50"] == pytest.approx(voice_ms, abs=6)
    assert summary(taken.mouth_to_photon_ms())["p50"] == pytest.approx(lips_ms, abs=12)
    assert summary(taken.picture_after_sound_ms())["p50"] == pytest.approx(lips_ms - voice_ms, abs=12)


def test_lips_in_speech_and_at_rest() -> None:
    assert measured(voice_ms=250, lips_ms=250).speech_to_silence() > 5
    assert measured(voice_ms=250, lips_ms=250, moving=False).speech_to_silence() < 1.3


def test_frame_rate_counts_what_was_shown() -> None:
    assert measured(voice_ms=250, lips_ms=250).fps == pytest.approx(25)


def test_noise_has_no_delay() -> None:
    times = np.arange(0, 30_000, 10.0)
    found = delays_ms(times, speech(times), times, RNG.normal(0, 1, len(times)))
    assert len(found) < 5


def test_nothing_measured_is_not_a_number() -> None:
    assert np.isnan(summary([])["p50"])
