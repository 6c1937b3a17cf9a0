"""One clock: exact delay, one shift for both tracks, no lasting delay after a stall."""

from __future__ import annotations

import pytest

from stream.clock import SLOT_SAMPLES, PresentationClock
from stream.protocol import FPS, SAMPLE_RATE
from tests.streaming.virtual_clock import VirtualClock

DELAY_MS = 195.0


def make_clock(time: VirtualClock) -> PresentationClock:
    return PresentationClock(playout_delay_ms=DELAY_MS, now=time.now, sleep=time.sleep)


@pytest.mark.parametrize("heard_after", [0.0, 0.0137, 0.5, 3.333])
def test_media_is_due_exactly_one_delay_after_it_was_heard(heard_after: float) -> None:
    time = VirtualClock()
    clock = make_clock(time)
    heard_at = time.now() + heard_after
    clock.anchor(heard_at)
    slot = next(
        slot for slot in range(200) if (clock.media_frame(slot) or -1) >= 0 or clock.media_frame(slot) == 0
    )
    assert clock.media_frame(slot) == 0
    assert clock.due(slot * SLOT_SAMPLES) == pytest.approx(heard_at + DELAY_MS / 1000, abs=1e-9)
    assert clock.heard(SAMPLE_RATE) == pytest.approx(heard_at + 1, abs=1e-9)


def test_the_nudge_of_the_grid_is_at_most_half_a_slot() -> None:
    for step in range(50):
        time = VirtualClock()
        clock = make_clock(time)
        before = clock.due(0)
        clock.anchor(time.now() + 1 + step / 1000)
        assert abs(clock.due(0) - before) <= 0.5 / FPS + 1e-9


async def test_reanchor_holds_the_same_slots_for_both_tracks() -> None:
    time = VirtualClock()
    clock = make_clock(time)
    clock.anchor(time.now())
    time.jump(2.0)
    position = await clock.wait(40 * SLOT_SAMPLES, catch_up_samples=10**9)
    shown = clock.media_frame(position // SLOT_SAMPLES)
    clock.reanchor(3)
    frames = [clock.media_frame(41 + slot) for slot in range(5)]
    assert shown is not None
    assert frames == [None, None, None, shown + 1, shown + 2]
    assert clock.media_frame(40) == shown
    assert clock.reanchors == 1


async def test_waiting_is_until_due() -> None:
    time = VirtualClock()
    clock = make_clock(time)
    start = time.now()

    async def wait() -> float:
        await clock.wait(5 * SLOT_SAMPLES, catch_up_samples=0)
        return time.now()

    import asyncio

    task = asyncio.create_task(wait())
    await time.run_until(start + 1)
    assert await task == pytest.approx(start + 0.2)


async def test_a_stall_gives_up_slots_instead_of_delaying_everything() -> None:
    time = VirtualClock()
    clock = make_clock(time)
    await clock.wait(0, catch_up_samples=SLOT_SAMPLES)
    time.jump(1.005)
    position = await clock.wait(SLOT_SAMPLES, catch_up_samples=SLOT_SAMPLES)
    assert position == 25 * SLOT_SAMPLES  # the slot that is due now, on the same grid
    assert 0 <= time.now() - clock.due(position) < 1 / FPS


def test_a_second_anchor_is_refused() -> None:
    clock = make_clock(VirtualClock())
    clock.anchor(1000.0)
    with pytest.raises(RuntimeError, match="reanchor"):
        clock.anchor(1001.0)
