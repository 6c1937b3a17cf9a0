"""Bounded buffers by media time."""

from __future__ import annotations

import numpy as np

from stream.playout import AudioPlayout, VideoPlayout


def ramp(start: int, samples: int) -> np.ndarray:
    return (np.arange(start, start + samples) % 30_000).astype(np.int16)


def picture(value: int, count: int = 1) -> np.ndarray:
    return np.full((count, 2, 2, 3), value, np.uint8)


def test_audio_comes_out_where_it_was_put_in_over_many_turns_of_the_ring() -> None:
    playout = AudioPlayout(capacity_ms=100)
    for position in range(0, 48_000, 960):
        playout.write(position, ramp(position, 960))
        np.testing.assert_array_equal(playout.read(position, 960), ramp(position, 960))
    assert playout.underrun_samples == 0


def test_what_is_missing_is_silence_and_counted() -> None:
    playout = AudioPlayout()
    playout.write(0, ramp(1, 500))
    out = playout.read(0, 960)
    np.testing.assert_array_equal(out[:500], ramp(1, 500))
    assert not out[500:].any()
    assert playout.underrun_samples == 460


def test_a_late_packet_repairs_what_was_not_played() -> None:
    playout = AudioPlayout()
    playout.write(0, np.zeros(2_880, np.int16))
    playout.read(0, 960)
    playout.write(480, ramp(480, 1_440))  # its first half has been played
    np.testing.assert_array_equal(playout.read(960, 960), ramp(960, 960))
    assert playout.end == 2_880


def test_audio_is_bounded() -> None:
    playout = AudioPlayout(capacity_ms=100)
    playout.write(0, ramp(0, 48_000))
    assert playout.buffered_ms == 1000
    np.testing.assert_array_equal(playout.read(48_000 - 960, 960), ramp(47_040, 960))


def test_video_shows_the_newest_frame_up_to_its_slot_and_never_runs_backwards() -> None:
    video = VideoPlayout()
    video.push(0, picture(1, 2))
    assert video.take(0)[1] is True
    frame, exact = video.take(3)
    assert frame is not None
    assert not exact
    video.push(0, picture(9))  # very late, older than what is on the screen
    assert video.take(4) == (None, False)
    assert video.late_frames == 1


def test_a_late_frame_that_is_newer_than_the_picture_is_shown() -> None:
    video = VideoPlayout()
    video.push(0, picture(0))
    video.take(0)
    video.take(1)
    video.take(2)
    video.push(1, picture(7, 2))
    frame, exact = video.take(3)
    assert frame is not None
    assert frame[0, 0, 0] == 7
    assert not exact
    assert video.late_frames == 2


def test_video_is_bounded_and_counts_what_it_drops() -> None:
    video = VideoPlayout(capacity_ms=400)
    video.push(0, picture(0, 25))
    assert video.buffered_ms == 400
    assert video.dropped_frames == 15
