"""How loud a speaker is taken to be: usual voices are left alone, low ones raised, and silence is nobody's voice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.hearing import BLOCK_SAMPLES, LEAST_DB, MOST_GAIN_DB, Hearing
from pipeline.windowing import WindowSpec
from tests.unit.avatar import plain_portrait, tiny_pipeline

RATE = 16_000


def voice(seconds: float, peak_dbfs: float, noise_dbfs: float = -90.0) -> np.ndarray:
    """Syllables: noise that comes and goes five times a second, with a pause each second, over a noise floor."""
    rng, time = np.random.default_rng(0), np.arange(round(seconds * RATE)) / RATE
    loud = np.clip(np.sin(2 * np.pi * 2.5 * time), 0, 1) * ((time % 1.0) < 0.8)
    pcm = loud * np.clip(rng.standard_normal(len(time)) / 3, -1, 1) * 10 ** (peak_dbfs / 20)
    return (pcm + 10 ** (noise_dbfs / 20) * rng.standard_normal(len(time))).astype(np.float32)


def heard(pcm: np.ndarray, hop: int = 2 * 640) -> list[Hearing]:
    states, state = [], Hearing()
    for first in range(0, len(pcm), hop):
        state = state.after(pcm[first : first + hop])
        states.append(state)
    return states


@pytest.mark.parametrize("peak_dbfs", [-6.0, 0.0])
def test_a_voice_at_usual_levels_is_not_touched_at_all(peak_dbfs: float) -> None:
    assert {state.gain for state in heard(voice(8, peak_dbfs))} == {1.0}


@pytest.mark.parametrize("peak_dbfs", [-30.0, -40.0])
def test_a_low_voice_is_raised_within_seconds_and_let_go_at_once(peak_dbfs: float) -> None:
    low = voice(8, peak_dbfs)
    states = heard(np.concatenate([low, voice(1, 0.0)]))
    raised_db = 20 * np.log10(states[-1 - 13].gain)
    loudest_db = 10 * np.log10(np.square(low.reshape(-1, BLOCK_SAMPLES)).mean(1).max())
    assert abs(min(LEAST_DB - loudest_db, MOST_GAIN_DB) - raised_db) < 3
    assert states[4 * RATE // 1280].gain > 2, "it takes longer than four seconds"
    assert states[-1].gain == 1.0


@pytest.mark.parametrize("level_dbfs", [-90.0, -60.0, -45.0])
def test_a_steady_noise_is_nobody_s_voice(level_dbfs: float) -> None:
    noise = 10 ** (level_dbfs / 20) * np.random.default_rng(1).standard_normal(20 * RATE)
    assert {state.gain for state in heard(noise.astype(np.float32))} == {1.0}


def test_any_cut_into_chunks_hears_the_same() -> None:
    pcm = voice(4, -35.0, -70.0)
    assert heard(pcm, 640)[-1] == heard(pcm, 1280)[-1] == heard(pcm, len(pcm))[-1]


def test_windows_hand_over_every_sample_once() -> None:
    spec, pcm = WindowSpec(hop_frames=2, right_frames=1), np.arange(6400, dtype=np.float32)
    pieces = [spec.fresh(spec.cut(pcm, index)) for index in range(4)]
    np.testing.assert_array_equal(np.concatenate(pieces), pcm[: 3 * 640 + 3 * 1280])


def test_a_session_raises_what_is_new_by_what_it_knows_then() -> None:
    pipe = tiny_pipeline()
    window, pcm = pipe.window_spec(), voice(6, -40.0)
    raised, hearing = pcm.copy(), Hearing()
    for index, first in enumerate([0, *range(window.end_sample(0), len(pcm), window.hop_samples)]):
        end = window.end_sample(index)
        hearing = hearing.after(pcm[first:end])
        raised[first:end] *= np.float32(hearing.gain)
    assert hearing.gain > 4
    low, loud = (pipe.init_state(plain_portrait(), window=window) for _ in range(2))
    for index in range(window.chunk_count(len(pcm)) - 1):
        low, made = pipe.move(low, window.cut(pcm, index))
        loud = replace(loud, hearing=Hearing())  # raised by hand already
        loud, expected = pipe.move(loud, window.cut(raised, index))
        np.testing.assert_allclose(made.z_TD, expected.z_TD, atol=1e-5)
