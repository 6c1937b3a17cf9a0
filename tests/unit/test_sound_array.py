"""Arrays of sound as people have them: any rate, scale and number of channels, and a sentence for what is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.sound_array import SoundArrayError, mono_sound
from tests.unit.sounds import level_db, tone

RATE = 48_000
SOUND = tone(0.5, RATE)
HEARD = tone(0.5, 16_000)


def same(sound: NDArray[np.float32], accuracy: float = 1e-3) -> bool:
    inner = slice(100, -100)  # a filter needs some samples on either side
    return len(sound) == len(HEARD) and bool(np.abs(sound - HEARD)[inner].max() < accuracy)


def test_the_models_own_sound_passes_to_the_bit() -> None:
    pcm = HEARD.astype(np.float32)
    assert (mono_sound(pcm, 16_000, 16_000) == pcm).all()


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000])
def test_any_rate_is_resampled(rate: int) -> None:
    assert same(mono_sound(tone(0.5, rate), rate, 16_000))


@pytest.mark.parametrize("rate", [48_000, 48_000.0, np.int64(48_000), np.float32(48_000)])
def test_a_rate_is_any_whole_number(rate: Any) -> None:
    assert same(mono_sound(SOUND, rate, 16_000))


@pytest.mark.parametrize(
    ("pcm", "accuracy"),
    [
        (SOUND.astype(np.float32), 1e-3),
        (SOUND.astype(np.float16), 1e-3),
        (np.round(SOUND * 2**15).astype(np.int16), 1e-3),
        (np.round(SOUND * 2**31).astype(np.int32), 1e-3),
        (np.round(SOUND * 2**7 + 2**7).astype(np.uint8), 2e-2),
        (SOUND.tolist(), 1e-3),
        (torch.from_numpy(SOUND), 1e-3),
        (SOUND[:, None], 1e-3),
        (SOUND[None], 1e-3),
        (np.stack([SOUND, SOUND], axis=1), 1e-3),
        (np.stack([SOUND, SOUND]), 1e-3),
        (np.stack([SOUND, -SOUND], axis=1), 1e-3),
        (np.stack([SOUND, 0 * SOUND]), 1e-3),
        (np.round(np.stack([SOUND, SOUND], axis=1) * 2**15).astype(np.int16), 1e-3),
        (np.asfortranarray(np.stack([SOUND] * 6, axis=1)), 1e-3),
        (SOUND[::-1][::-1], 1e-3),
    ],
)
def test_every_scale_and_shape_is_taken_for_what_it_is(pcm: Any, accuracy: float) -> None:
    assert same(mono_sound(pcm, RATE, 16_000), accuracy)


def test_what_is_no_number_is_silence() -> None:
    bad, silent = SOUND.copy(), SOUND.copy()
    bad[::1000], bad[-7:], bad[5], bad[6] = np.nan, np.nan, np.inf, -np.inf
    silent[~np.isfinite(bad)] = 0
    assert (mono_sound(bad, RATE, 16_000) == mono_sound(silent, RATE, 16_000)).all()
    assert not mono_sound(np.full(4_800, np.nan), RATE, 16_000).any()


def test_loud_floats_are_clipped() -> None:
    loud = 8 * SOUND
    loud[3] = 1e30
    got = mono_sound(loud, RATE, 16_000)
    assert np.abs(got).max() == 1.0
    assert level_db(got) < 0


def test_no_samples_are_no_sound() -> None:
    assert mono_sound(np.zeros(0), RATE, 16_000).shape == (0,)


@pytest.mark.parametrize(
    ("pcm", "rate", "sentence"),
    [
        (SOUND, 0, "sample_rate is 0; give"),
        (SOUND, -16_000, "sample_rate is -16000"),
        (SOUND, 16, "whole number from 1000"),
        (SOUND, 10**9, "whole number from 1000"),
        (SOUND, 44_100.5, "sample_rate is 44100.5"),
        (SOUND, float("nan"), "sample_rate is nan"),
        (SOUND, float("inf"), "sample_rate is inf"),
        (SOUND, "48000", "sample_rate is '48000'"),
        (SOUND, None, "sample_rate is None"),
        (np.round(SOUND * 2**15).astype(np.int64), RATE, "the type int64, whose scale is not known"),
        (SOUND > 0, RATE, "the type bool"),
        (SOUND * 1j, RATE, "the type complex128"),
        ("speech.wav", RATE, "the type <U10"),
        (None, RATE, "the type object"),
        ([[0.1, 0.2], [0.3]], RATE, "cannot be read as an array"),
        (torch.zeros(9, requires_grad=True), RATE, "cannot be read as an array"),
        (np.float32(0.5), RATE, r"the shape \[\]"),
        (SOUND[None, None], RATE, r"the shape \[1, 1, 24000\]"),
        (np.zeros((0, 100)), RATE, "no channel"),
        (SOUND * 2**15, RATE, "Divide them by 32768"),
    ],
)
def test_what_cannot_be_sound_is_said(pcm: Any, rate: Any, sentence: str) -> None:
    with pytest.raises(SoundArrayError, match=sentence):
        mono_sound(pcm, rate, 16_000)
