"""Clocks that disagree are followed by resampling that cannot be heard."""

from __future__ import annotations

import math

import numpy as np
import pytest

from client.drift import AFTER, BEFORE, MAX_RATE, DriftFollower, ElasticInput, interpolate
from stream.protocol import SAMPLE_RATE

BLOCK = SAMPLE_RATE // 50


def tone(hz: float, positions: np.ndarray) -> np.ndarray:
    return 10_000 * np.sin(2 * np.pi * hz * positions / SAMPLE_RATE)


@pytest.mark.parametrize("hz", [200, 3_000, 10_000])
def test_sound_between_samples_is_what_it_would_have_been(hz: float) -> None:
    pcm = np.rint(tone(hz, np.arange(4_000))).astype(np.int16)
    positions = 100.3 + np.arange(3_000) * 1.0007
    found = interpolate(pcm, 0, positions)
    error = np.sqrt(np.mean((found - tone(hz, positions)) ** 2))
    assert 20 * np.log10(error / (10_000 / math.sqrt(2))) < -50


def test_whole_positions_are_the_samples_themselves() -> None:
    pcm = np.random.default_rng(0).integers(-20_000, 20_000, 500).astype(np.int16)
    positions = np.arange(BEFORE, 500 - AFTER, dtype=float)
    assert np.abs(interpolate(pcm, 0, positions) - pcm[BEFORE : 500 - AFTER]).max() < 0.01


def test_the_follower_asks_for_tiny_rates_and_for_jumps_only_when_it_is_seen() -> None:
    follower = DriftFollower()
    assert not follower.follow(0.005 * SAMPLE_RATE, BLOCK)
    assert -MAX_RATE <= follower.rate < 0, "heard too early: read slower"
    assert follower.follow(0.1 * SAMPLE_RATE, BLOCK), "100 ms off cannot be waited for"
    follower = DriftFollower()
    assert not any(follower.follow(0.01 * SAMPLE_RATE * (-1) ** n, BLOCK) for n in range(500)), (
        "noise is no error"
    )
    assert any(follower.follow(0.02 * SAMPLE_RATE, BLOCK) for _ in range(100)), "a lasting error is"


@pytest.mark.parametrize("parts_per_million", [-300, 300])
def test_a_microphone_of_another_speed_neither_fills_nor_empties_the_queue(parts_per_million: float) -> None:
    """The queue gives 960 samples each 20 ms; the microphone's blocks come a little faster or slower."""
    elastic, waiting, fills = ElasticInput(3 * BLOCK // 2), 0, []
    blocks_at = np.arange(30_000) * 0.02 / (1 + parts_per_million * 1e-6)
    rng = np.random.default_rng(1)
    taken = underruns = 0
    for at in blocks_at + rng.uniform(0, 0.004, len(blocks_at)):
        while taken * 0.02 < at:
            underruns += waiting < BLOCK and taken > 500
            waiting = max(0, waiting - BLOCK)
            taken += 1
        fills.append(waiting)
        level = waiting + (taken * 0.02 - at) * SAMPLE_RATE
        waiting += len(elastic.push(np.zeros(BLOCK, np.int16), level))
    assert underruns == 0
    late = np.array(fills[1_000:]) / SAMPLE_RATE * 1000
    assert late.max() < 45, "ten minutes would have filled it by 180 ms"
    assert abs(1e6 * elastic.rate - parts_per_million) < 150


def test_no_sample_of_the_microphone_is_lost_or_said_twice() -> None:
    elastic = ElasticInput(BLOCK)
    ramp = np.arange(50 * BLOCK, dtype=np.int64) % 30_000
    out = np.concatenate(
        [elastic.push(ramp[n * BLOCK : (n + 1) * BLOCK].astype(np.int16), BLOCK) for n in range(50)]
    )
    assert abs(len(out) - 50 * BLOCK) < 20
    steps = np.diff(out[20:].astype(int))
    assert ((steps == 1) | (np.abs(steps) > 100)).mean() > 0.99
