"""The harness finds what is there, when it was there, and says so when nothing is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import theilslopes

from client.latency.lips import find_openings
from client.latency.probe import LEAD_S, Probe, make_probe
from client.latency.sounds import find_sounds
from client.latency.statistics import permutation_p, slope, summary
from stream.protocol import FPS
from tests.unit.recorded import recorded

Measured = Callable[[np.random.Generator, np.ndarray], np.ndarray]


@pytest.fixture(scope="module", params=["syllables", "clicks"])
def probe(request: pytest.FixtureRequest) -> Probe:
    return make_probe(seconds=25, kind=request.param, seed=3)


def test_the_probe_says_where_its_sounds_begin(probe: Probe) -> None:
    loud = np.flatnonzero(np.abs(probe.pcm) > 300) / 48_000
    gaps = np.diff(probe.onsets_s)
    assert probe.onsets_s[0] >= LEAD_S
    assert len(probe.onsets_s) > 30
    assert gaps.min() > 0.4
    assert gaps.max() < 0.95
    assert np.ptp(gaps) > 0.25, "regular sounds could be matched one too early"
    for onset_s in probe.onsets_s:
        first = loud[loud >= onset_s - 0.02][0]
        assert 0 <= first - onset_s < 0.002


def test_the_probe_samples_every_phase_of_a_frame_alike(probe: Probe) -> None:
    phases = np.sort(probe.onsets_s * FPS % 1.0)
    even = (np.arange(len(phases)) + 0.5) / len(phases)
    assert np.abs(phases - even).max() < 0.08, "Kolmogorov's distance from an even spread"


def test_the_same_seed_gives_the_same_probe() -> None:
    first, again, other = (make_probe(seconds=8, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.pcm, again.pcm)
    assert not np.array_equal(first.onsets_s, other.onsets_s)


def test_a_probe_too_short_or_unknown_is_refused() -> None:
    with pytest.raises(ValueError, match="too short"):
        make_probe(seconds=1)
    with pytest.raises(ValueError, match="no probe 'song'"):
        make_probe(seconds=10, kind="song")


@pytest.mark.parametrize("delay_s", [0.0, 0.05, 0.3, 1.1])
def test_sounds_are_found_to_the_millisecond(probe: Probe, delay_s: float) -> None:
    found = find_sounds(probe, recording := recorded(probe, ear_s=delay_s))
    assert found.responds
    assert found.missed == 0
    assert found.false == 0
    assert np.allclose(found.time_s - recording.mouth_s - probe.onsets_s, delay_s, atol=0.001)


def test_silence_is_no_answer(probe: Probe) -> None:
    found = find_sounds(probe, recorded(probe, sound=False))
    assert not found.responds
    assert "no sound" in found.reason


def test_another_sound_is_no_answer(probe: Probe) -> None:
    recording = recorded(probe)
    rng = np.random.default_rng(5)
    recording.heard[:] = rng.normal(0, 3_000, len(recording.heard)).astype(np.int16)
    assert not find_sounds(probe, recording).responds


@pytest.mark.parametrize("photon_s", [0.08, 0.25, 0.7, 1.4])
def test_openings_are_found_in_their_frame(probe: Probe, photon_s: float) -> None:
    recording = recorded(probe, photon_s=photon_s)
    found, mouth = find_openings(probe, recording)
    assert found.responds, found.reason
    delay_s = found.time_s - recording.mouth_s - probe.onsets_s
    assert found.missed <= 1
    assert found.false == 0
    # A frame shows what sounds while it begins: between one frame late and not at all.
    assert np.nanmin(delay_s) > photon_s - 0.001
    assert np.nanmax(delay_s) < photon_s + 0.041
    assert abs(np.nanmean(delay_s) - photon_s - 0.02) < 0.003
    assert mouth is not None
    strong = np.argwhere(mouth.weights != 0)
    assert strong[:, 0].min() >= 19
    assert strong[:, 0].max() <= 25
    assert strong[:, 1].min() >= 10
    assert strong[:, 1].max() <= 21


def test_slow_lips_count_from_half_open() -> None:
    probe = make_probe(seconds=25, seed=3)
    recording = recorded(probe, rise_frames=4)
    found, _ = find_openings(probe, recording)
    delay_s = found.time_s - recording.mouth_s - probe.onsets_s
    assert found.missed <= 1
    assert abs(np.nanmean(delay_s) - 0.25 - 0.02 - 0.06) < 0.02


def test_late_frames_are_late_answers() -> None:
    probe = make_probe(seconds=25, seed=3)
    steady, _ = find_openings(probe, recorded(probe))
    shaken, _ = find_openings(probe, recorded(probe, jitter_s=0.03))
    assert np.nanmean(shaken.time_s) - np.nanmean(steady.time_s) > 0.015


def test_sounds_without_an_answer_are_counted() -> None:
    probe = make_probe(seconds=40, seed=3)
    ignored = frozenset({20, 25, 33})
    found, _ = find_openings(probe, recorded(probe, ignored=ignored))
    assert found.responds
    assert ignored <= set(np.flatnonzero(~found.found).tolist())
    assert found.missed <= len(ignored) + 1


@pytest.mark.parametrize("seed", range(12))
def test_a_mouth_that_moves_on_its_own_does_not_respond(seed: int) -> None:
    probe = make_probe(seconds=20, seed=seed)
    found, _ = find_openings(probe, recorded(probe, mute=True, seed=seed))
    assert not found.responds
    assert "not with the sounds" in found.reason


def test_a_picture_that_stands_still_does_not_respond() -> None:
    probe = make_probe(seconds=20)
    recording = recorded(probe)
    recording.gray[:] = recording.gray[0]
    found, _ = find_openings(probe, recording)
    assert "stands still" in found.reason


def test_percentiles_come_with_an_interval_that_holds_the_truth() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for seed in range(40):
        got = summary(rng.normal(250, 20, 80), seed=seed)
        inside += got["p50_interval"][0] <= 250 <= got["p50_interval"][1]
        assert got["count"] == 80
        assert got["p50"] < got["p95"] < got["p99"] <= got["max"]
    assert inside >= 34, "a 95 % interval"
    assert summary(np.array([np.nan])) == {"count": 0}


@pytest.mark.parametrize(
    "measured",
    [
        lambda rng, truth: truth + rng.normal(0, 10, len(truth)),
        lambda rng, truth: truth + 3 * rng.standard_t(1.5, len(truth)),  # outliers
        lambda rng, truth: np.round(truth + rng.normal(0, 100, len(truth)), -2),  # ties
    ],
    ids=["normal", "outliers", "ties"],
)
def test_the_interval_of_the_slope_holds_the_true_slope_as_often_as_it_says(measured: Measured) -> None:
    rng = np.random.default_rng(2)
    times = np.sort(rng.uniform(0, 10, 60))
    inside, rounds = 0, 300
    for _ in range(rounds):
        found = slope(times, measured(rng, 5 + 100 * times))
        low, high = found["interval"]
        assert low <= found["slope"] <= high
        inside += low <= 100 <= high
    assert 0.92 <= inside / rounds <= 0.98


@pytest.mark.parametrize("decimals", [0, 9], ids=["ties", "no_ties"])
def test_slope_and_interval_are_those_of_scipy(decimals: int) -> None:
    rng = np.random.default_rng(4)
    times = np.arange(80.0) // (2 if decimals == 0 else 1)
    values = np.round(30 * times + rng.normal(0, 300, 80), decimals)
    theirs, found = theilslopes(values, times, 0.95), slope(times, values)
    ours = [found["slope"], *found["interval"]]
    assert ours == pytest.approx([theirs.slope, theirs.low_slope, theirs.high_slope], abs=0.01)


def test_the_slope_of_many_values_and_of_too_few() -> None:
    rng = np.random.default_rng(3)
    times = np.arange(30_000.0)
    found = slope(times, 7 - 2 * times + rng.normal(0, 50, len(times)))
    assert found["count"] == 30_000
    assert found["slope"] == pytest.approx(-2, abs=0.01)
    assert slope(times[:7], times[:7]) == {"count": 7}
    assert slope(np.zeros(50), times[:50]) == {"count": 50}, "at one time there is no slope"


def test_drift_is_found_and_chance_is_not_taken_for_a_change() -> None:
    rng = np.random.default_rng(1)
    times = np.arange(0, 600.0, 0.6)
    found = slope(times, 200 + 0.02 * times + rng.normal(0, 10, len(times)))
    assert abs(found["slope"] - 0.02) < 0.01
    same = permutation_p(rng.normal(200, 12, 60), rng.normal(200, 12, 60))
    other = permutation_p(rng.normal(200, 12, 60), rng.normal(215, 12, 60))
    assert other < 0.01 < same
