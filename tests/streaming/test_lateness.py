"""A delay that the model cannot keep grows once, by what is missing; a slow moment changes nothing."""

from __future__ import annotations

import asyncio

import pytest

from stream.clock import SLOT_SAMPLES, PresentationClock
from stream.lateness import FEWEST, FULL_S, Lateness
from stream.protocol import FPS, SAMPLE_RATE
from tests.streaming.virtual_clock import VirtualClock


def tell(lateness: Lateness, values_s: list[float], start_s: float = 0.0) -> list[int]:
    return [lateness.made(value, start_s + number / FPS) for number, value in enumerate(values_s)]


def test_a_slow_moment_changes_nothing() -> None:
    assert not any(tell(Lateness(), ([-0.01] * 40 + [0.05] * 5) * 8))


def test_chunks_that_are_always_a_little_late_cost_one_frame_once() -> None:
    lateness = Lateness()
    answers = tell(lateness, [0.012] * (FEWEST + 10))
    assert [answer for answer in answers if answer] == [1]
    assert answers.index(1) == FEWEST - 1
    assert not any(tell(lateness, [0.012 - 1 / FPS] * 200, start_s=10.0))


def test_the_delay_grows_by_what_is_missing() -> None:
    assert max(tell(Lateness(), [0.095] * FEWEST)) == 3


def test_it_never_grows_without_end() -> None:
    lateness = Lateness()
    assert sum(tell(lateness, [1.0] * 1000)) == lateness.raised_frames == int(FULL_S * FPS)


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
