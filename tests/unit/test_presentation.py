"""Lips and voice meet at the devices in virtual time, whatever clocks, networks and buffers do."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import numpy as np
import pytest

from client.presentation import FADE_SAMPLES, Presentation, SoundRing
from client.timeline import SAMPLES_PER_FRAME, Moment
from stream.protocol import FPS, SAMPLE_RATE

BLOCK = SAMPLE_RATE // 50
RAMP = 30_000
SETTLED_S = 3.0
SENDING_S = 0.004  # that a camera takes for a picture


def moment(index: int) -> Moment:
    """Its sound says at which sample of the stream it is (modulo RAMP), its picture which frame it is."""
    at = np.arange(index * SAMPLES_PER_FRAME, (index + 1) * SAMPLES_PER_FRAME) % RAMP + 1
    return Moment(index=index, picture=np.array([[[index % 251] * 3]], np.uint8), pcm=at.astype(np.int16))


@dataclass
class Played:
    """heard: (wall time, position in the stream) of the middle of each block, None in silence. seen: (wall time,
    frame) of each new picture."""

    heard: list[tuple[float, float | None]] = field(default_factory=list)
    seen: list[tuple[float, int]] = field(default_factory=list)

    def skew_ms(self, *, after_s: float = SETTLED_S) -> np.ndarray:
        """[K]: picture after sound, for each new picture."""
        at = np.array([time for time, position in self.heard if position is not None])
        positions = np.array([position for _, position in self.heard if position is not None])
        whole = np.unwrap(positions, period=RAMP)
        whole += (
            round((self.seen[0][1] * SAMPLES_PER_FRAME - np.interp(self.seen[0][0], at, whole)) / RAMP) * RAMP
        )
        seen = [(time, frame) for time, frame in self.seen if time > after_s]
        found = np.array([np.interp(time, at, whole) - frame * SAMPLES_PER_FRAME for time, frame in seen])
        found -= np.rint(found / RAMP) * RAMP  # a silence longer than the ramp leaves its turns unknown
        return 1000 * found / SAMPLE_RATE


def play(
    presentation: Presentation,
    seconds: float,
    *,
    server_ppm: float = 0.0,
    device_ppm: float = 0.0,
    jitter_s: float = 0.004,
    noise_s: float = 0.001,
    late: dict[int, float] | None = None,
    device_s: float = 0.04,
    fps: float = FPS,
    bunch: int = 1,
    block: int = BLOCK,
) -> Played:
    """Moments come by the server's clock, blocks are pulled by the sound device's, pictures by the wall's.

    late: seconds by which single moments come late, and all after them that would overtake them.
    """
    rng = np.random.default_rng(0)
    late = late or {}
    events: list[tuple[float, int, int]] = []
    newest = 0.0
    for index in range(int((seconds + 1) * FPS)):
        at = (
            max(index, bunch - 1) / FPS * (1 + server_ppm * 1e-6)
            + rng.uniform(0, jitter_s)
            + late.get(index, 0.0)
        )
        newest = max(newest, at)
        heapq.heappush(events, (newest, 0, index))
    period = block / SAMPLE_RATE / (1 + device_ppm * 1e-6)
    for number in range(int(seconds / period)):
        heapq.heappush(events, (number * period, 1, number))
    heapq.heappush(events, (0.01, 2, 0))
    played = Played()
    last = -1
    while events:
        now, kind, number = heapq.heappop(events)
        if now > seconds:
            break
        if kind == 0:
            presentation.push(moment(number), now)
        elif kind == 1:
            heard_at = number * period + device_s
            pcm = presentation.pull_sound(block, now, heard_at + rng.normal(0, noise_s))
            middle = pcm[block // 2 - 20 : block // 2 + 20].astype(int)
            straight = np.abs(np.diff(middle) - 1).max() <= 1 and middle.min() > 0
            place = float(middle[20] - 1) if straight else None
            played.heard.append((heard_at + block / 2 / SAMPLE_RATE, place if pcm.any() else None))
        else:
            picture = presentation.take_picture(now)
            if picture is not None:
                value = int(picture[0, 0, 0])
                frame = value if last < 0 else last + (value - last) % 251
                played.seen.append((now, frame))
                last = frame
            heapq.heappush(events, (presentation.next_picture(now + SENDING_S, fps), 2, 0))
    return played


def test_picture_and_sound_of_one_moment_are_seen_and_heard_together() -> None:
    presentation = Presentation()
    played = play(presentation, 20)
    assert np.abs(played.skew_ms()).max() < 2
    assert presentation.missed_pictures == 0
    assert presentation.sound_jumps == 0
    assert presentation.silent_samples == 0


@pytest.mark.parametrize(("server_ppm", "device_ppm"), [(600, -600), (-600, 600), (600, 600)])
def test_drift_of_an_hour_in_minutes_never_accumulates(server_ppm: float, device_ppm: float) -> None:
    """Five minutes at 600 millionths are an hour at 50: 180 ms, twice what is buffered."""
    presentation = Presentation()
    played = play(presentation, 300, server_ppm=server_ppm, device_ppm=device_ppm)
    skew_ms = played.skew_ms(after_s=5)
    assert np.abs(skew_ms).max() < 8
    assert abs(np.median(skew_ms[-500:]) - np.median(skew_ms[:500])) < 4
    assert 50 < presentation.hold_ms < 110
    assert presentation.missed_pictures == 0
    assert presentation.sound_jumps == 0
    assert presentation.reanchors == 0
    assert presentation.silent_samples == 0
    assert (
        presentation.corrected_samples
        > 0.5 * 300 * abs(device_ppm - server_ppm * (server_ppm != device_ppm)) * 1e-6
    )


def test_moments_that_come_in_a_bunch_at_first_do_not_stay_late() -> None:
    """A client calibrates before it hands on: the first moments are old by then."""
    presentation = Presentation()
    play(presentation, 10, bunch=16)
    assert presentation.hold_ms < 140


def test_a_stall_is_silence_and_then_all_is_as_before() -> None:
    presentation = Presentation()
    played = play(presentation, 30, late={200: 0.5})
    assert np.abs(played.skew_ms(after_s=9)).max() < 3
    assert presentation.reanchors == 0
    assert presentation.hold_ms < 110, "the delay is what it was"
    quiet = [time for time, position in played.heard if position is None and 5 < time < 25]
    assert 0.3 < len(quiet) * 0.02 < 0.6
    assert presentation.missed_pictures > 5


def test_a_network_that_becomes_slower_shifts_both_once() -> None:
    presentation = Presentation()
    played = play(presentation, 30, late=dict.fromkeys(range(300, 750), 0.2))
    assert 1 <= presentation.reanchors <= 3
    assert np.abs(played.skew_ms(after_s=14)).max() < 3
    assert presentation.silent_samples < 0.4 * SAMPLE_RATE
    missed = presentation.missed_pictures
    assert missed < 12


def test_sound_never_goes_back_in_time() -> None:
    """A shift to later waits in silence; what was heard is not heard again."""
    presentation = Presentation()
    played = play(presentation, 30, late=dict.fromkeys(range(300, 750), 0.2))
    positions = np.array([position for _, position in played.heard if position is not None])
    assert (np.diff(np.unwrap(positions, period=RAMP)) > 0).all()
    frames = [frame for _, frame in played.seen]
    assert frames == sorted(set(frames))


def test_pictures_alone_need_little_waiting() -> None:
    presentation = Presentation()
    for index in range(700):
        presentation.push(moment(index), index / FPS)
    assert presentation.hold_ms < 80


def test_without_a_connection_there_is_silence_and_no_old_sound() -> None:
    presentation = Presentation()
    for index in range(20):
        presentation.push(moment(index), index / FPS)
    assert presentation.pull_sound(BLOCK, 0.8, 0.84).any()
    presentation.lose()
    assert not presentation.pull_sound(BLOCK, 0.82, 0.86).any()
    assert presentation.take_picture(0.9) is None
    for index in range(3):
        presentation.push(moment(index), 5 + index / FPS)
    assert not presentation.pull_sound(BLOCK, 4.9, 4.94).any(), "the new session's sound has its own time"


def test_sound_can_be_held_back_for_an_app_that_shows_its_camera_late() -> None:
    for later_ms in (60.0, -10.0):
        played = play(Presentation(sound_later_s=later_ms / 1000), 12)
        assert np.median(played.skew_ms(after_s=8)) == pytest.approx(-later_ms, abs=3)


def test_a_camera_of_another_rate_shows_each_frame_in_its_time() -> None:
    for fps in (30.0, 15.0):
        played = play(Presentation(), 12, fps=fps)
        skew_ms = played.skew_ms(after_s=5)
        assert skew_ms.min() > -3
        assert skew_ms.max() < 1000 / fps + 3


def test_the_ring_forgets_what_is_old_and_is_silent_where_nothing_was_written() -> None:
    ring = SoundRing(1_000)
    ring.write(5_000, np.full(300, 1, np.int16))
    ring.write(5_400, np.full(300, 2, np.int16))
    assert ring.read(5_250, 200).tolist() == [1] * 50 + [0] * 100 + [2] * 50
    ring.write(5_700, np.full(600, 3, np.int16))
    assert not ring.read(5_000, 300).any()
    assert ring.read(6_290, 20).tolist() == [3] * 10 + [0] * 10
    ring.write(90_000, np.full(10, 4, np.int16))
    assert not ring.read(5_700, 600).any()


def test_a_jump_does_not_click() -> None:
    presentation = Presentation()
    for index in range(60):
        flat = Moment(index=index, picture=np.zeros((1, 1, 3), np.uint8), pcm=np.full(1_920, 8_000, np.int16))
        presentation.push(flat, index / FPS if index < 40 else 2.2 + index / FPS)
    out = [presentation.pull_sound(BLOCK, 3.8, 3.84), presentation.pull_sound(BLOCK, 3.9, 3.94)]
    steps = np.abs(np.diff(np.concatenate(out).astype(int)))
    assert steps.max() <= 2 * 8_000 / FADE_SAMPLES
