"""Sound and picture meet again although each track counts from its own zero."""

from __future__ import annotations

import numpy as np
import pytest

from client.timeline import AUDIO_HELD_S, SAMPLES_PER_FRAME, VIDEO_HELD_S, Moment, Timeline
from stream.protocol import AUDIO_LEAD_S, FPS, SAMPLE_RATE

PACKET = SAMPLE_RATE // 50


def sound(start: int, samples: int) -> np.ndarray:
    """The media time itself as sound: every sample says in which video frame it belongs."""
    return (np.arange(start, start + samples) // SAMPLES_PER_FRAME).astype(np.int16)


def picture(index: int) -> np.ndarray:
    return np.full((4, 4, 3), index, np.uint8)


def play(
    frames: int,
    *,
    audio_zero_frames: int = 0,
    video_zero_frames: int = 0,
    lost_frames: frozenset[int] = frozenset(),
    lost_packets: frozenset[int] = frozenset(),
    jitter_s: float = 0.0,
    slow_start_s: float = 0.0,
) -> list[Moment]:
    """Picture t is released at second t, sound t a lead earlier; receivers count from their own zero and hold back."""
    rng = np.random.default_rng(0)
    events: list[tuple[float, str, int]] = []
    for index in range(video_zero_frames, frames):
        if index not in lost_frames:
            events.append((index / FPS + VIDEO_HELD_S + rng.uniform(0, jitter_s), "video", index))
    for number in range(audio_zero_frames * 2, frames * 2):
        if number not in lost_packets:
            late_s = slow_start_s if number < 40 else 0.0
            events.append(
                (
                    number * 0.02 - AUDIO_LEAD_S + AUDIO_HELD_S + late_s + rng.uniform(0, jitter_s),
                    "audio",
                    number,
                )
            )
    timeline, moments = Timeline(), []
    for arrival_s, kind, number in sorted(events):
        if kind == "video":
            time_s = (number - video_zero_frames) / FPS
            timeline.add_video(time_s, picture(number), arrival_s=arrival_s)
        else:
            start = (number - audio_zero_frames * 2) * PACKET
            timeline.add_audio(start, sound(number * PACKET, PACKET), arrival_s=arrival_s)
        moments += timeline.pop()
    return moments


@pytest.mark.parametrize(("audio_zero", "video_zero"), [(0, 0), (0, 5), (7, 0)])
def test_picture_and_sound_of_one_media_time_meet(audio_zero: int, video_zero: int) -> None:
    moments = play(60, audio_zero_frames=audio_zero, video_zero_frames=video_zero)
    assert len(moments) > 40
    for moment in moments[audio_zero:]:
        assert (moment.pcm == moment.picture[0, 0, 0]).all()
    assert [moment.index for moment in moments] == list(range(len(moments)))


def test_jitter_costs_at_most_a_few_milliseconds() -> None:
    moments = play(60, jitter_s=0.012)
    off_samples = [int((moment.pcm != moment.picture[0, 0, 0]).sum()) for moment in moments]
    assert max(off_samples) <= 0.006 * SAMPLE_RATE


def test_a_slow_start_is_made_good() -> None:
    moments = play(80, slow_start_s=0.25)
    assert (moments[5].pcm != moments[5].picture[0, 0, 0]).any()
    assert all((moment.pcm == moment.picture[0, 0, 0]).all() for moment in moments[40:])


def test_pictures_that_come_seconds_late_at_first_do_not_silence_the_rest() -> None:
    timeline, moments = Timeline(), []
    for number in range(400):
        now_s = number * 0.02
        arrival_s = now_s - AUDIO_LEAD_S + AUDIO_HELD_S
        timeline.add_audio(number * PACKET, sound(number * PACKET, PACKET), arrival_s=arrival_s)
        index, late_s = number // 2, max(0.0, 2.0 - number * 0.02)
        if number % 2 == 0:
            timeline.add_video(index / FPS, picture(index), arrival_s=now_s + VIDEO_HELD_S + late_s)
        moments += timeline.pop()
    assert all((moment.pcm == moment.index).all() for moment in moments[120:])


def test_a_lost_picture_is_repeated_and_said_so() -> None:
    moments = play(60, lost_frames=frozenset({30, 31}))
    repeated = [moment for moment in moments if moment.repeated]
    assert [moment.index for moment in repeated] == [30, 31]
    assert all(moment.picture[0, 0, 0] == 29 for moment in repeated)
    assert all((moment.pcm == moment.index).all() for moment in moments)


def test_lost_sound_becomes_silence_in_its_place() -> None:
    moments = play(60, lost_packets=frozenset({60, 61}))
    assert (moments[30].pcm == 0).all()
    assert (moments[31].pcm == 31).all()


def test_pictures_go_on_without_any_sound_behind_them() -> None:
    moments = play(80, lost_packets=frozenset(range(60, 160)))
    assert moments[-1].index > 60
    assert (moments[-1].pcm == 0).all()
