"""The figures of the last seconds forget what was before them."""

from __future__ import annotations

import pytest

from stream.figures import RECENT_S, Figures, Moment


def second(number: int, missed: int) -> Moment:
    return Moment(
        at=float(number),
        frames_sent=25 * number,
        due_frames=25 * number,
        missed_frames=missed,
        packets_received=50 * number,
        packets_lost=0,
    )


def test_the_share_of_missed_pictures_is_that_of_the_last_seconds() -> None:
    figures = Figures()
    assert figures.miss_ratio() == 0
    missed = 0
    for number in range(60):  # ten of 25 pictures late, a minute long
        figures.moment(second(number, missed := 10 * number))
    assert figures.miss_ratio() == pytest.approx(0.4)
    for number in range(60, 60 + RECENT_S // 2):
        figures.moment(second(number, missed))
    assert 0.15 < figures.miss_ratio() < 0.25
    for number in range(60 + RECENT_S // 2, 60 + RECENT_S + 1):
        figures.moment(second(number, missed))
    assert figures.miss_ratio() == 0
    assert figures.fps_sent() == pytest.approx(25)
