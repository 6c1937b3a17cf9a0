"""Loss, lateness, drift and jumps on the uplink, in virtual time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from stream.clock import PresentationClock
from stream.ingest import PACKET_SAMPLES, Ingest, conceal
from stream.playout import AudioPlayout
from stream.protocol import SAMPLE_RATE
from tests.streaming.virtual_clock import VirtualClock

DELAY_MS = 195.0
PACKET_S = 0.02


class Uplink:
    """Packets of a known signal through a scripted network into an Ingest; a tick each 20 ms."""

    def __init__(self, rate: float = 1.0) -> None:
        self.time = VirtualClock()
        self.clock = PresentationClock(playout_delay_ms=DELAY_MS, now=self.time.now, sleep=self.time.sleep)
        self.playout = AudioPlayout(capacity_ms=60_000)
        self.model: list[np.ndarray] = []
        self.ingest = Ingest(
            clock=self.clock,
            playout=self.playout,
            on_model_pcm=self.model.append,
            conceal_after_ms=60.0,
            margin_ms=15.0,
        )
        self.start = self.time.now()
        self.rate = rate

    def signal(self, packet: int) -> np.ndarray:
        n = np.arange(packet * PACKET_SAMPLES, (packet + 1) * PACKET_SAMPLES)
        return (8_000 * np.sin(2 * np.pi * 150 * n / SAMPLE_RATE)).astype(np.int16)

    def run(self, packets: int, delay_s: Callable[[int], float | None], timestamp: int = 0) -> None:
        """delay_s: network delay of packet i, None if it is lost. Spoken at rate * real time."""
        events: list[tuple[float, int]] = []
        for i in range(packets):
            delay = delay_s(i)
            if delay is not None:
                events.append((self.start + (i + 1) * PACKET_S / self.rate + delay, i))
        last = self.start + packets * PACKET_S
        events += [
            (self.start + k * PACKET_S + 0.001, -1) for k in range(int((last - self.start) / PACKET_S))
        ]
        for at, packet in sorted(events):
            self.time.jump(max(at - self.time.now(), 0))
            if packet < 0:
                self.ingest.tick(self.time.now())
            else:
                self.ingest.push(timestamp + packet * PACKET_SAMPLES, self.signal(packet), self.time.now())

    @property
    def model_samples(self) -> int:
        return sum(map(len, self.model))


@pytest.mark.parametrize("loss", [0.01, 0.05])
def test_loss_leaves_no_delay_and_every_sample_in_its_place(loss: float) -> None:
    uplink = Uplink()
    rng = np.random.default_rng(5)
    lost = set(np.flatnonzero(rng.random(1_000) < loss).tolist())
    uplink.run(1_000, lambda i: None if i in lost else 0.01)
    # What was heard last is exactly as late as it was at the start.
    assert uplink.clock.media_heard(uplink.time.now()) - uplink.ingest.end == pytest.approx(
        0, abs=3 * PACKET_SAMPLES
    )
    assert uplink.clock.reanchors == 0
    assert uplink.model_samples == uplink.ingest.end // 3
    received = [i for i in range(100, 990) if i not in lost]
    for i in received:
        np.testing.assert_array_equal(
            uplink.playout.read(i * PACKET_SAMPLES, PACKET_SAMPLES), uplink.signal(i)
        )
    assert uplink.ingest.concealed_samples == pytest.approx(
        len(lost) * PACKET_SAMPLES, abs=3 * PACKET_SAMPLES
    )


def test_a_stall_of_the_network_is_filled_in_time_and_leaves_nothing_behind() -> None:
    uplink = Uplink()
    uplink.run(500, lambda i: max(0.0, (115 - i) * PACKET_S) if 100 <= i < 115 else 0.0)
    assert uplink.ingest.late_packets > 5
    assert uplink.clock.reanchors == 0
    assert uplink.clock.media_heard(uplink.time.now()) - uplink.ingest.end < 3 * PACKET_SAMPLES
    assert uplink.model_samples == uplink.ingest.end // 3


def test_a_late_packet_still_repairs_the_sound() -> None:
    uplink = Uplink()
    uplink.run(200, lambda i: 0.1 if i == 50 else 0.0)
    np.testing.assert_array_equal(uplink.playout.read(50 * PACKET_SAMPLES, PACKET_SAMPLES), uplink.signal(50))
    assert uplink.ingest.late_packets == 1


@pytest.mark.parametrize("rate", [0.9997, 1.0003])
def test_the_clock_follows_a_foreign_crystal(rate: float) -> None:
    uplink = Uplink(rate)
    uplink.run(6_000, lambda i: 0.0)
    drift_s = 6_000 * PACKET_S * abs(1 / rate - 1)
    error_s = (uplink.clock.media_heard(uplink.time.now()) - uplink.ingest.end) / SAMPLE_RATE
    assert drift_s > 0.03
    assert abs(error_s) < 0.03
    assert uplink.clock.reanchors == 0


def test_a_lasting_new_delay_shifts_both_tracks_once() -> None:
    uplink = Uplink()
    uplink.run(800, lambda i: 0.0 if i < 200 else 0.15)
    assert uplink.clock.reanchors == 1
    concealed = uplink.ingest.concealed_samples
    uplink.start += 800 * PACKET_S
    uplink.run(100, lambda i: 0.15, timestamp=800 * PACKET_SAMPLES)
    assert uplink.ingest.concealed_samples - concealed <= 3 * PACKET_SAMPLES


@pytest.mark.parametrize("jump", [-1_000_000, 10_000_000])
def test_a_jump_of_the_timestamps_is_a_new_stream_at_the_same_delay(jump: int) -> None:
    uplink = Uplink()
    uplink.run(100, lambda i: 0.0)
    uplink.start += 100 * PACKET_S
    uplink.run(100, lambda i: 0.0, timestamp=100 * PACKET_SAMPLES + jump)
    assert uplink.ingest.rebases == 1
    assert uplink.ingest.end == pytest.approx(200 * PACKET_SAMPLES, abs=4 * PACKET_SAMPLES)


def test_a_slow_first_packet_costs_no_delay() -> None:
    uplink = Uplink()
    uplink.run(50, lambda i: 0.015 if i == 0 else 0.0)
    assert uplink.clock.heard(0) == pytest.approx(uplink.start, abs=1e-6)


def test_silence_from_the_start_and_speech_joins_in() -> None:
    uplink = Uplink()
    uplink.ingest.start_silent(uplink.time.now())
    for _ in range(50):
        uplink.time.jump(PACKET_S)
        uplink.ingest.tick(uplink.time.now())
    assert uplink.ingest.end == pytest.approx(47 * PACKET_SAMPLES, abs=PACKET_SAMPLES)
    uplink.start = uplink.time.now()
    uplink.run(100, lambda i: 0.0, timestamp=777)
    assert uplink.clock.media_heard(uplink.time.now()) - uplink.ingest.end < 2 * PACKET_SAMPLES


def test_concealment_continues_the_tone_and_fades_out() -> None:
    n = np.arange(9_600)
    tone = (9_000 * np.sin(2 * np.pi * 130 * n / SAMPLE_RATE)).astype(np.int16)
    filled = conceal(tone[:4_800], 4_800)
    jump = abs(int(filled[0]) - int(tone[4_799]))
    assert jump < 600  # the steepest step of the tone itself is 153
    assert np.corrcoef(filled[:960], tone[4_800:5_760])[0, 1] > 0.9
    assert not filled[2_880:].any()
    assert np.abs(filled[2_000:2_880]).max() < 4_000
