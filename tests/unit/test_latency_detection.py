"""Known delays are found by content, in pictures and in sound; what is not there is not found."""

from __future__ import annotations

import numpy as np
import pytest

from client.latency.detection import Detections, detect
from client.latency.probe import Probe, Sound, make_probe
from client.latency.recording import SIDE, Recording
from stream.protocol import FPS, SAMPLE_RATE

START_S = 50.0


def record(
    probe: Probe,
    *,
    seen_after_s: float | None,
    heard_after_s: float,
    whole_picture: bool = False,
    without: frozenset[int] = frozenset(),
    strays_s: tuple[float, ...] = (),
    jitter_s: float = 0.0,
) -> Recording:
    """A receiver of a face that sways, with a dark mouth that opens with the voice, in noise."""
    rng = np.random.default_rng(3)
    recording = Recording(offered_s=START_S - 1, spoken_s=START_S)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    face = 120 + 60 * np.exp(-((rows - 30) ** 2 + (columns - 32) ** 2) / 300)
    times = START_S - 0.5 + np.arange(0, probe.duration_s + 1.5, 1 / FPS)
    for at in times:
        open_ = 0.0
        if seen_after_s is not None:
            since = at - START_S - seen_after_s - probe.onsets_s
            answered = [k for k, value in enumerate(since) if 0 <= value < probe.sound_s and k not in without]
            open_ = float(bool(answered) or any(0 <= at - START_S - stray < 0.2 for stray in strays_s))
        sway = 2 * np.sin(0.7 * at)
        picture = np.roll(face, round(sway), axis=1)
        mouth = (abs(rows - 44) < 4) & (abs(columns - 32 - round(sway)) < 7)
        picture = picture - 80 * open_ * (True if whole_picture else mouth)
        picture = picture + rng.normal(0, 3, picture.shape)
        recording.frame_s.append(at + rng.uniform(0, jitter_s))
        recording.gray.append(np.clip(picture, 0, 255).astype(np.uint8))
    packet = SAMPLE_RATE // 50
    pcm = np.concatenate([np.zeros(packet * 50, np.float32), probe.pcm])
    pcm = pcm + rng.normal(0, 0.003, len(pcm))
    for number in range(len(pcm) // packet):
        samples = (32_767 * np.clip(pcm[number * packet : (number + 1) * packet], -1, 1)).astype(np.int16)
        arrival = START_S - 1 + heard_after_s + number * 0.02 + rng.uniform(0, jitter_s)
        recording.heard.append((arrival, 777 + number * packet, samples))
    return recording


def run(sound: Sound = "syllables", *, seconds: float = 20.0, **options: object) -> tuple[Probe, Detections]:
    probe = make_probe(seconds, sound=sound, seed=1)
    return probe, detect(record(probe, **options), probe)  # type: ignore[arg-type]


def test_onsets_lie_evenly_over_the_frame_and_gaps_are_random() -> None:
    probe = make_probe(60, seed=4)
    count = len(probe.onsets_s)
    assert count >= 55
    for part in (slice(0, 20), slice(20, 40), slice(None)):
        phases = np.sort(probe.onsets_s[part] % (1 / FPS)) * FPS
        assert np.diff(phases).max() < 2.5 / len(phases)
    assert np.diff(probe.onsets_s).std() > 0.08
    assert np.array_equal(make_probe(60, seed=4).pcm, probe.pcm)
    assert not np.array_equal(make_probe(60, seed=5).onsets_s, probe.onsets_s)


@pytest.mark.parametrize("delay_s", [0.05, 0.2, 0.35, 0.9, 1.6])
@pytest.mark.parametrize("whole_picture", [False, True])
def test_a_known_delay_is_found(delay_s: float, whole_picture: bool) -> None:
    probe, found = run(seen_after_s=delay_s, heard_after_s=delay_s - 0.02, whole_picture=whole_picture)
    assert np.isfinite(found.seen_s).all()
    assert np.isfinite(found.heard_s).all()
    # A change is on the screen with the next frame: 20 ms later on average.
    assert np.mean(found.mouth_to_photon_ms) == pytest.approx(1_000 * delay_s + 20, abs=3)
    assert np.median(found.mouth_to_ear_ms) == pytest.approx(1_000 * delay_s - 20, abs=1)
    assert found.false_openings == 0
    assert len(probe.onsets_s) == len(found.seen_s)


def test_clicks_are_found_too() -> None:
    _, found = run("clicks", seen_after_s=0.12, heard_after_s=0.12, whole_picture=True)
    assert np.mean(found.mouth_to_photon_ms) == pytest.approx(140, abs=4)
    assert np.median(found.mouth_to_ear_ms) == pytest.approx(120, abs=1)


def test_the_mouth_is_where_it_moves() -> None:
    _, found = run(seen_after_s=0.3, heard_after_s=0.3)
    rows, columns = np.nonzero(found.mouth)
    assert 38 <= rows.mean() <= 50
    assert 26 <= columns.mean() <= 38
    assert found.mouth.mean() < 0.1


def test_a_mute_portrait_is_no_response() -> None:
    _, found = run(seen_after_s=None, heard_after_s=0.2)
    assert not np.isfinite(found.seen_s).any()
    assert not found.mouth.any()
    assert np.isfinite(found.heard_s).all()


def test_missing_and_extra_openings_are_counted() -> None:
    probe = make_probe(20, seed=1)
    longest = int(np.argmax(np.diff(probe.onsets_s)))
    stray = float(probe.onsets_s[longest] + 0.9)
    _, found = run(seen_after_s=0.3, heard_after_s=0.3, without=frozenset({3, 11}), strays_s=(stray,))
    assert np.flatnonzero(~np.isfinite(found.seen_s)).tolist() == [3, 11]
    assert found.false_openings == 1


def test_arrival_jitter_of_sound_is_played_out() -> None:
    _, found = run(seen_after_s=0.3, heard_after_s=0.3, jitter_s=0.015)
    assert np.median(found.mouth_to_ear_ms) == pytest.approx(314, abs=2)
    assert np.std(found.mouth_to_ear_ms) < 2


def test_silence_coming_back_is_no_echo() -> None:
    probe = make_probe(10, seed=1)
    recording = record(probe, seen_after_s=0.3, heard_after_s=0.3)
    recording.heard = [(at, position, np.zeros_like(pcm)) for at, position, pcm in recording.heard]
    found = detect(recording, probe)
    assert not np.isfinite(found.heard_s).any()
    assert np.isfinite(found.seen_s).all()
