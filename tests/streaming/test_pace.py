"""A session gets the smallest chunks that the machine keeps up with, and a delay that its steps fit into."""

from __future__ import annotations

import pytest

from stream.config import MediaConfig
from stream.pace import LIVE_FACTOR, Pace

FAST = Pace(MediaConfig(), {1: [14.0] * 9, 2: [15.0] * 9}, {1: [14.0] * 9, 2: [25.0] * 9})
SLOW = Pace(MediaConfig(), {1: [30.0] * 9, 2: [33.0] * 9}, {1: [30.0] * 9, 2: [52.0] * 9})


def test_a_machine_with_time_to_spare_takes_chunks_of_one_frame() -> None:
    assert FAST.hop_frames() == 1
    assert SLOW.hop_frames() == 2


def test_beside_other_sessions_the_same_machine_takes_two() -> None:
    assert FAST.hop_frames(open_sessions=0) == 1
    assert FAST.hop_frames(open_sessions=1) == 2


def test_what_is_asked_for_or_configured_is_given() -> None:
    assert SLOW.hop_frames(1) == 1
    assert FAST.hop_frames(3) == 3
    assert Pace(MediaConfig(hop_frames=2), {2: [5.0]}, {2: [5.0]}).hop_frames() == 2


def test_before_warm_up_nothing_is_promised() -> None:
    unknown = Pace(MediaConfig(), {}, {})
    assert unknown.hop_frames() == 2
    assert (
        unknown.budget(hop_frames=2, right_frames=2).step_allowance_ms == MediaConfig().max_step_allowance_ms
    )


def test_the_allowance_follows_the_step_of_that_chunk_size_within_its_limits() -> None:
    budget = SLOW.budget(hop_frames=1, right_frames=2)
    assert budget.step_allowance_ms == pytest.approx(30.0 * LIVE_FACTOR)
    assert budget.playout_delay_ms == pytest.approx(40 + 80 + 30.0 * LIVE_FACTOR + MediaConfig().margin_ms)
    assert SLOW.budget(hop_frames=2, right_frames=2).step_allowance_ms == pytest.approx(33.0 * LIVE_FACTOR)
    tiny = Pace(MediaConfig(), {1: [1.0]}, {1: [1.0]})
    assert tiny.budget(hop_frames=1, right_frames=1).step_allowance_ms == MediaConfig().min_step_allowance_ms


def test_a_given_allowance_is_not_measured() -> None:
    fixed = Pace(MediaConfig(step_allowance_ms=44.0), {1: [14.0]}, {1: [14.0]})
    assert fixed.budget(hop_frames=1, right_frames=2).step_allowance_ms == 44.0


def test_a_step_may_have_to_wait_for_the_other_sessions() -> None:
    alone = SLOW.budget(hop_frames=2, right_frames=2).step_allowance_ms
    assert SLOW.budget(hop_frames=2, right_frames=2, open_sessions=1).step_allowance_ms == alone + 52.0


def test_as_many_sessions_are_let_in_as_the_cores_have_time_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.pace.cores", lambda: 2)
    for whole_ms, expected in ((5.0, 8), (15.0, 4), (30.0, 2), (60.0, 1), (600.0, 1)):
        pace = Pace(MediaConfig(), {1: [1.0], 2: [1.0]}, {1: [whole_ms], 2: [whole_ms]}, encode_ms=4.0)
        assert pace.sessions == expected
    assert Pace(MediaConfig(), {}, {}).sessions > 100, "what is not measured limits nobody"
