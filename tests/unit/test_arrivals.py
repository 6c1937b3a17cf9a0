"""An hour of sound and pictures over a network: recorded, they are in step to 20 ms wherever one looks."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from client.arrivals import Arrivals
from client.recorder import Recorder
from client.timeline import AUDIO_HELD_S, SAMPLES_PER_FRAME, VIDEO_HELD_S, Timeline
from stream.protocol import AUDIO_LEAD_S, FPS, SAMPLE_RATE
from tests.unit.played import Played

PACKET = SAMPLE_RATE // 50
HOUR_S = 3_600
FLASH_SLOTS = 3  # long enough that the loss of one picture does not hide it
DARK, BRIGHT = np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)
TONE = (12_000 * np.sin(2 * np.pi * 1_000 * np.arange(PACKET) / SAMPLE_RATE)).astype(np.int16)
SILENCE = np.zeros(PACKET, np.int16)


def network(seconds: int, *, drift: float, seed: int = 0) -> Iterator[tuple[float, str, int]]:
    """(arrival by our clock, track, number of the packet or picture), in the order of arrival.

    Jitter of 6 ms, two losses in a thousand. After a quarter of the time aiortc's buffer of sound waits for a lost
    packet and stays 280 ms behind from then on (aiortc#543); in the middle the whole path becomes 40 ms longer.
    """
    rng = np.random.default_rng(seed)
    waiting: list[tuple[float, int, str, int]] = []
    count = 0
    for number in range(seconds * 50):
        time_s = number / 50
        longer_s = 0.04 if time_s > seconds / 2 else 0.0
        held_s = AUDIO_HELD_S + (0.28 if time_s > seconds / 4 else 0.0)
        events = [("sound", time_s - AUDIO_LEAD_S + held_s)]
        if number % 2 == 0:
            events.append(("picture", time_s + VIDEO_HELD_S))
        for track, at_s in events:
            flash = time_s % 60 < 0.2
            if rng.random() > 0.002 or flash:
                count += 1
                arrival_s = at_s + longer_s + abs(rng.normal(0, 0.006))
                index = number if track == "sound" else number // 2
                heapq.heappush(waiting, (arrival_s * (1 + drift), count, track, index))
        while waiting and waiting[0][0] < (time_s - 0.1) * (1 + drift):
            arrival_s, _, track, index = heapq.heappop(waiting)
            yield arrival_s, track, index


@pytest.mark.parametrize("drift", [-100e-6, 100e-6], ids=["slow", "fast"])
def test_only_what_both_tracks_do_is_drift(drift: float) -> None:
    """Seconds of difference after each minute of an hour; sound is 10 ms ahead of the picture by its time stamps."""
    arrivals, seen = Arrivals(), []
    rng = np.random.default_rng(1)
    for number in range(HOUR_S * 25):
        time_s = number / FPS
        grown_s = 0.28 if time_s > 900 else 0.0
        arrivals.sound(time_s, (time_s + 0.05 + grown_s) * (1 + drift) + abs(rng.normal(0, 0.006)))
        arrivals.picture(time_s, (time_s + 0.06) * (1 + drift) + abs(rng.normal(0, 0.006)))
        if number % 1_500 == 1_499:
            assert arrivals.difference_s is not None
            seen.append(arrivals.difference_s)
    assert np.abs(np.array(seen) - 0.01).max() < 0.010


def test_a_late_start_is_made_good_at_any_time() -> None:
    arrivals = Arrivals()
    assert arrivals.difference_s is None
    for number in range(200):
        arrivals.sound(number / FPS, number / FPS)
        arrivals.picture(number / FPS, number / FPS + (0.5 if number < 150 else 0.02))
    assert arrivals.difference_s == pytest.approx(0.02)


@pytest.mark.slow
@pytest.mark.timeout(600)  # ten seconds on a machine of its own
def test_the_drift_of_an_hour_is_recorded_in_step_whatever_network_and_clocks_do(tmp_path: Path) -> None:
    """In 20 minutes, with a clock that is off by three times what they are."""
    path, timeline = tmp_path / "hour.mp4", Timeline()
    with Recorder(path) as recorder:
        for arrival_s, track, index in network(HOUR_S // 3, drift=-240e-6):
            if track == "sound":
                pcm = TONE if index % 3_000 < 6 else SILENCE
                timeline.add_audio(index * PACKET, pcm, arrival_s=arrival_s)
            else:
                bright = index % 1_500 < FLASH_SLOTS
                timeline.add_video(index / FPS, BRIGHT if bright else DARK, arrival_s=arrival_s)
            for moment in timeline.pop():
                recorder.write(moment)
    played = Played(path)
    skews_ms = 1000 * played.skews_s()
    assert len(skews_ms) >= 19
    assert np.abs(skews_ms[1:]).max() <= 20.0
    assert np.abs(np.polyfit(np.arange(len(skews_ms)), skews_ms, 1)[0] * 60) < 10, "it grows"
    assert abs(len(played.light) / FPS - HOUR_S / 3) < 1.0
    assert SAMPLES_PER_FRAME == 1920
