"""A delay that the model cannot keep grows by a frame; a slow moment changes nothing."""

from __future__ import annotations

import asyncio

import pytest

from stream.clock import SLOT_SAMPLES, PresentationClock
from stream.lateness import LOWER_AFTER_S, MOST_FRAMES, RAISE_AFTER_S, SETTLING_S, Lateness
from stream.protocol import FPS, SAMPLE_RATE
from tests.streaming.virtual_clock import VirtualClock

CHUNK_S = {1: 0.04, 2: 0.08, 3: 0.12}


def settled(hop: int = 1) -> Lateness:
    """One whose session has gone on for a while, in time."""
    lateness = Lateness(CHUNK_S[hop])
    assert lateness.made(-0.01, -2 * SETTLING_S) == 0
    return lateness


def live(
    lateness: Lateness, late_s: list[float], *, hop: int = 1, start_s: float = 0.0
) -> list[tuple[float, int]]:
    """Chunks late by so much at the delay of the beginning: when the delay changed, and by how many frames."""
    changes = []
    for number, value in enumerate(late_s):
        at = start_s + number * CHUNK_S[hop]
        if change := lateness.made(value - lateness.raised_frames / FPS, at):
            lateness.changed(change)
            changes.append((at, change))
    return changes


def test_a_stall_that_the_model_catches_up_with_changes_nothing() -> None:
    caught_up = [-0.01] * 100 + [0.8 - 0.02 * number for number in range(39)] + [-0.01] * 100
    assert live(settled(), caught_up * 3) == []


def test_the_first_seconds_are_no_measure() -> None:
    assert live(Lateness(CHUNK_S[1]), [0.2] * round((SETTLING_S - 0.1) * FPS)) == []


@pytest.mark.parametrize("hop", [1, 2, 3])
def test_chunks_that_are_always_late_make_the_delay_as_long_as_they_need(hop: int) -> None:
    for late_s, frames in ((0.012, 1), (0.07, 2)):
        ((at, change),) = live(settled(hop), [late_s] * 300, hop=hop)
        assert change == frames
        assert at <= RAISE_AFTER_S + CHUNK_S[hop]


def test_half_of_the_chunks_are_enough() -> None:
    assert live(settled(), [-0.01, 0.03] * 200) == [(pytest.approx(2 * RAISE_AFTER_S, abs=0.1), 1)]


def test_chunks_that_are_left_out_are_late() -> None:
    lateness = settled()
    assert sum(lateness.left_out(number / FPS) for number in range(200)) > 0


def test_it_never_grows_without_end() -> None:
    lateness = settled()
    live(lateness, [1.0] * 2000)
    assert lateness.raised_frames == MOST_FRAMES


def test_when_the_machine_has_recovered_the_delay_comes_down_to_what_it_was() -> None:
    lateness = settled()
    live(lateness, [0.07] * 200)
    assert lateness.raised_frames == 2
    changes = live(lateness, [-0.03] * 2000, start_s=8.0)
    assert [change for _, change in changes] == [-1, -1]
    assert changes[0][0] == pytest.approx(8.0 + LOWER_AFTER_S, abs=3.0)
    assert lateness.raised_frames == 0


def test_it_stays_where_a_shorter_one_would_be_too_short() -> None:
    lateness = settled()
    live(lateness, [0.07] * 200)
    assert live(lateness, [0.033, 0.01] * 1000, start_s=8.0) == []


def test_a_machine_that_is_fast_and_slow_by_turns_is_believed_less_and_less() -> None:
    lateness, at, changes = settled(), 0.0, 0
    for _ in range(40):
        for late_s in (0.03, -0.05):
            changes += len(live(lateness, [late_s] * 750, start_s=at))
            at += 750 * CHUNK_S[1]
    assert changes <= 12


async def test_a_longer_delay_moves_what_is_due_but_not_what_was_heard() -> None:
    time = VirtualClock()
    clock = PresentationClock(playout_delay_ms=150, now=time.now, sleep=time.sleep)
    clock.anchor(time.now())
    slot = next(slot for slot in range(100) if clock.media_frame(slot) == 0)
    await asyncio.sleep(0)
    heard, due = clock.heard(SAMPLE_RATE), clock.heard(SAMPLE_RATE) + clock.playout_delay_ms / 1000
    clock.lengthen(2)
    assert clock.heard(SAMPLE_RATE) == pytest.approx(heard, abs=1e-9)
    assert clock.heard(SAMPLE_RATE) + clock.playout_delay_ms / 1000 == pytest.approx(due + 2 / FPS, abs=1e-9)
    assert clock.playout_delay_ms == 230
    later = next(s for s in range(slot, 100) if clock.media_frame(s) == FPS)
    assert clock.due(later * SLOT_SAMPLES) == pytest.approx(due + 2 / FPS, abs=1e-9)
    assert clock.reanchors == 0
    clock.shorten(2)
    assert clock.playout_delay_ms == 150
    assert clock.heard(SAMPLE_RATE) == pytest.approx(heard, abs=1e-9)
    sooner = next(s for s in range(slot, 100) if clock.media_frame(s) == FPS)
    assert clock.due(sooner * SLOT_SAMPLES) == pytest.approx(due, abs=1e-9)
