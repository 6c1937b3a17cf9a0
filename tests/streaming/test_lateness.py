"""A delay that the model cannot keep grows by a frame; a slow moment changes nothing."""

from __future__ import annotations

import asyncio

import pytest

from stream.clock import SLOT_SAMPLES, PresentationClock
from stream.lateness import FEWEST, MOST_FRAMES, SETTLING_S, Lateness
from stream.protocol import FPS, SAMPLE_RATE
from tests.streaming.virtual_clock import VirtualClock


def settled() -> Lateness:
    """One whose session has gone on for a while, in time."""
    lateness = Lateness()
    assert lateness.made(-0.01, -2 * SETTLING_S) == 0
    return lateness


def tell(lateness: Lateness, values_s: list[float], start_s: float = 0.0) -> list[bool]:
    return [lateness.made(value, start_s + number / FPS) for number, value in enumerate(values_s)]


def test_a_stall_that_the_model_catches_up_with_changes_nothing() -> None:
    caught_up = [-0.01] * 100 + [0.8 - 0.01 * number for number in range(80)] + [-0.01] * 100
    assert not any(tell(settled(), caught_up * 3))


def test_the_first_seconds_are_no_measure() -> None:
    assert not any(tell(Lateness(), [0.2] * round((SETTLING_S - 0.1) * FPS)))


def test_chunks_that_are_always_a_little_late_cost_one_frame_once() -> None:
    lateness = settled()
    answers = tell(lateness, [0.012] * (FEWEST + 10))
    assert sum(answers) == lateness.raised_frames == 1
    assert answers.index(True) == FEWEST - 1
    assert not any(tell(lateness, [0.012 - 1 / FPS] * 300, start_s=10.0))


def test_it_never_grows_without_end() -> None:
    lateness = settled()
    assert sum(tell(lateness, [1.0] * 2000)) == lateness.raised_frames == MOST_FRAMES


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
