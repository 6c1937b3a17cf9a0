"""One channel out of several: no voice is lost, whichever side it is on, and nothing clicks."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.downmix import Downmix
from tests.unit.sounds import level_db, tone

RATE = 48_000


def mixed(sound_CN: NDArray[np.generic], packet: int = 960, rate: int = RATE) -> NDArray[np.float32]:
    downmix, sound_CN = Downmix(), sound_CN.astype(np.float32)
    parts = [downmix.push(sound_CN[:, at : at + packet], rate) for at in range(0, sound_CN.shape[1], packet)]
    return np.concatenate(parts)


def noise(seed: int, amplitude: float, samples: int = RATE) -> NDArray[np.float64]:
    return amplitude * np.random.default_rng(seed).standard_normal(samples)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 8, 60])
def test_equal_channels_stay_what_they_are_to_the_bit(channels: int) -> None:
    pcm = np.round(tone(0.5, RATE) * 32768) / 32768
    assert (mixed(np.tile(pcm, (channels, 1))) == pcm.astype(np.float32)).all()


@pytest.mark.parametrize(
    "sides", [(1, -1), (-1, 1), (1, 0), (0, 1), (1, -0.9), (1, 0.01), (1, -1, 0), (1, -1, 1, -1)]
)
def test_a_voice_keeps_its_level(sides: tuple[float, ...]) -> None:
    voice = tone(1.0, RATE)
    got = mixed(np.array(sides)[:, None] * voice)
    assert level_db(got) == pytest.approx(level_db(voice), abs=0.5)
    assert abs(np.corrcoef(got, voice)[0, 1]) > 0.999


def test_noise_beside_a_voice_on_one_side_does_not_count() -> None:
    voice = tone(1.0, RATE)
    got = mixed(np.stack([noise(0, 0.001), voice]))
    assert level_db(got - voice) < level_db(voice) - 40


def test_a_constant_offset_is_no_voice() -> None:
    """A broken input is often not at zero."""
    voice = tone(1.0, RATE)
    got = mixed(np.stack([voice, np.full(RATE, 0.5)]))
    assert np.corrcoef(got, voice)[0, 1] > 0.999
    assert level_db(got) == pytest.approx(level_db(voice), abs=0.5)


def test_two_voices_on_two_sides_are_both_heard() -> None:
    low, high = tone(1.0, RATE, 220), tone(1.0, RATE, 937)
    got = mixed(np.stack([low, high]))
    spectrum = np.abs(np.fft.rfft(got))
    assert 0.5 < spectrum[220] / spectrum[937] < 2


def test_speakers_who_take_turns_are_heard_from_their_first_word() -> None:
    """An interview with a microphone for each side."""
    voice = tone(1.0, RATE)
    silent = np.zeros(RATE)
    got = mixed(np.stack([np.r_[voice, silent], np.r_[silent, voice]]))
    for start in (0, RATE):
        for part in (slice(start, start + 4_800), slice(start + 4_800, start + RATE)):
            assert level_db(got[part]) > level_db(np.r_[voice, voice][part]) - 6.5
        assert level_db(got[start : start + RATE]) > level_db(voice) - 1.5


@pytest.mark.parametrize("packet", [480, 960, 1_920, 4_096, 48_000])
def test_nothing_clicks_where_the_sides_change(packet: int) -> None:
    hum = 0.3 * np.sin(2 * np.pi * 110 * np.arange(3 * RATE) / RATE)
    right = np.concatenate([hum[:RATE], -hum[RATE : 2 * RATE], np.zeros(RATE)])
    got = mixed(np.stack([hum, right]), packet)
    steps = np.abs(np.diff(got, n=2))
    steps[RATE - 3 : RATE + 3] = 0  # where the right side itself leaps
    steps[2 * RATE - 3 : 2 * RATE + 3] = 0
    assert steps.max() < 3 * np.abs(np.diff(hum, n=2)).max() + 1e-3
    assert level_db(got[RATE + 9_600 : 2 * RATE]) == pytest.approx(level_db(hum), abs=0.5)


def test_packets_of_other_sizes_are_mixed_alike() -> None:
    sound = np.stack([tone(1.0, RATE), noise(1, 0.1)])
    whole = mixed(sound, RATE)
    assert level_db(mixed(sound, 480) - whole) < level_db(whole) - 15


def test_silence_and_single_samples_are_fine() -> None:
    assert not mixed(np.zeros((2, 5_000))).any()
    assert mixed(np.array([[0.5], [0.25]])).tolist() == [0.375]
    assert len(Downmix().push(np.zeros((3, 0), np.float32), RATE)) == 0


def test_another_number_of_channels_begins_anew() -> None:
    downmix, voice = Downmix(), tone(0.1, RATE).astype(np.float32)
    for sides in ([1.0], [1.0, -1.0], [0.0, 0.0, 1.0], [1.0]):
        got = downmix.push(np.array(sides, np.float32)[:, None] * voice, RATE)
        assert level_db(got) == pytest.approx(level_db(voice), abs=0.5)
