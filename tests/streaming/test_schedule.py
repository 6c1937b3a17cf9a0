"""Earliest deadline first; under overload fewer steps, then counted skips; nothing lost or out of order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stream.schedule import RETRY_AFTER, Decision, Job, Schedule


def job(session: str, index: int, deadline: float, pcm: bytes = b"sound") -> Job:
    return Job(session=session, index=index, deadline=deadline, pcm=pcm)


def test_the_most_urgent_session_comes_first_and_each_stays_in_order() -> None:
    schedule = Schedule(full_steps=2, min_steps=1)
    for item in (job("a", 0, 5.0), job("a", 1, 5.1), job("b", 0, 4.0), job("b", 1, 6.0)):
        schedule.add(item)
    order = [(d.job.session, d.job.index) for d in iter(lambda: schedule.next(0.0), None)]
    assert order == [("b", 0), ("a", 0), ("a", 1), ("b", 1)]


def learned(once_s: float, pass_s: float, *, full: int = 2) -> Schedule:
    """A schedule that knows what steps take."""
    schedule = Schedule(full_steps=full, min_steps=1)
    for _ in range(200):
        schedule.observe(full, once_s, full * pass_s)
    return schedule


def test_little_time_left_means_fewer_steps() -> None:
    schedule = learned(0.0, 0.01, full=4)
    for left_s, expected in ((1.0, 4), (0.041, 4), (0.035, 3), (0.025, 2), (0.011, 1)):
        schedule.add(job("a", 0, left_s))
        assert schedule.next(0.0) == Decision(job("a", 0, left_s), expected)


def test_what_cannot_be_done_in_time_is_not_begun() -> None:
    schedule = learned(0.005, 0.005)
    schedule.add(job("a", 0, 0.009))
    schedule.add(job("a", 1, 0.089))
    assert schedule.next(0.0) == Decision(job("a", 0, 0.009), 0)
    assert schedule.next(0.0) == Decision(job("a", 1, 0.089), 2)


def test_a_slow_moment_costs_no_more_than_what_nobody_would_see() -> None:
    """There is time for a window every 80 ms: one that will be late catches up, as long as a frame of it is seen."""
    schedule = learned(0.010, 0.010)
    late = [replace(job("a", index, 0.08 * index), useful_s=0.08) for index in range(4)]
    for item in late:
        schedule.add(item)
    assert schedule.next(0.070) == Decision(late[0], 0), "all of it would come too late"
    assert schedule.next(0.070) == Decision(late[1], 1), "late by 10 ms"
    assert schedule.next(0.150) == Decision(late[2], 1)
    slow = learned(0.040, 0.040)
    for item in late:
        slow.add(item)
    assert slow.next(-0.070) == Decision(late[0], 0), "but not where there is more to do than time"


def test_nobody_is_made_late_for_the_sake_of_more_steps() -> None:
    schedule = learned(0.002, 0.008)
    schedule.add(job("a", 0, 0.019))
    schedule.add(job("b", 0, 0.021))
    assert schedule.next(0.0) == Decision(job("a", 0, 0.019), 1)
    assert schedule.next(0.010) == Decision(job("b", 0, 0.021), 1)


def test_a_window_is_made_late_now_and_then_or_nothing_would_be_learnt() -> None:
    schedule = learned(0.25, 0.25)
    taken = []
    for index in range(3 * (RETRY_AFTER + 1)):
        schedule.add(job("a", index, 0.1))
        decision = schedule.next(0.0)
        assert decision is not None
        taken.append(decision.steps)
    assert taken == 3 * ([0] * RETRY_AFTER + [1])


def test_one_stall_among_many_steps_changes_nothing() -> None:
    schedule = learned(0.005, 0.005)
    schedule.observe(2, 1.0, 2.0)
    schedule.add(job("a", 0, 0.05))
    assert schedule.next(0.0) == Decision(job("a", 0, 0.05), 2)


def test_a_window_without_audio_only_advances() -> None:
    schedule = Schedule(full_steps=2, min_steps=1)
    schedule.add(job("a", 7, 99.0, pcm=b""))
    decision = schedule.next(0.0)
    assert decision is not None
    assert decision.steps == 0


def test_full_quality_comes_back_after_a_slow_spell() -> None:
    schedule = learned(0.005, 0.005)
    for _ in range(30):
        schedule.observe(1, 0.02, 0.02)
    schedule.add(job("a", 0, 0.05))
    assert schedule.next(0.0) == Decision(job("a", 0, 0.05), 1)
    for _ in range(30):
        schedule.observe(1, 0.005, 0.005)
    schedule.add(job("a", 1, 0.05))
    assert schedule.next(0.0) == Decision(job("a", 1, 0.05), 2)


def test_a_closed_session_is_forgotten() -> None:
    schedule = Schedule(full_steps=2, min_steps=1)
    schedule.add(job("a", 0, 1.0))
    schedule.forget("a")
    assert schedule.next(0.0) is None
    assert len(schedule) == 0


def run_live(
    sessions: int,
    *,
    hop_s: float,
    allowance_s: float,
    step_s: float,
    seconds: float = 40.0,
    wobble: float = 0.0,
) -> list[float]:
    """In virtual time, with steps of one kind: of each session, what share of its windows was done in time."""
    rng = np.random.default_rng(0)
    schedule = Schedule(full_steps=1, min_steps=1)
    count = int(seconds / hop_s)
    arrivals = sorted(
        (hop_s * (index + place / sessions), str(place), index)
        for place in range(sessions)
        for index in range(count)
    )
    now, good = 0.0, dict.fromkeys(map(str, range(sessions)), 0)
    while arrivals or len(schedule):
        while arrivals and arrivals[0][0] <= now:
            at, who, index = arrivals.pop(0)
            schedule.add(job(who, index, at + allowance_s))
        decision = schedule.next(now)
        if decision is None:
            now = arrivals[0][0]
        elif decision.steps:
            took = step_s * (1 + wobble * rng.uniform(-1, 1))
            schedule.observe(1, 0.0, took)
            now += took
            good[decision.job.session] += now <= decision.job.deadline
    return [done / count for done in good.values()]


def best_share(
    sessions: int, *, hop_s: float, allowance_s: float, step_s: float, seconds: float = 40.0
) -> float:
    """The largest share that anybody could do in time: equal windows, taken in the order of their deadlines, and those
    that cannot be done left out."""
    now, done, count = 0.0, 0, 0
    for index in range(int(seconds / hop_s) * sessions):
        at = hop_s * index / sessions
        count += 1
        if max(now, at) + step_s <= at + allowance_s:
            now, done = max(now, at) + step_s, done + 1
    return done / count


@pytest.mark.parametrize("sessions", [1, 2, 4])
@pytest.mark.parametrize("allowance_ms", [60, 110, 230])
@pytest.mark.parametrize("step_ms", [10, 30, 55, 75, 85, 100, 120, 158])
def test_whatever_a_step_costs_nearly_all_that_can_be_in_time_is(
    sessions: int, allowance_ms: int, step_ms: int
) -> None:
    case = {"hop_s": 0.08, "allowance_s": allowance_ms / 1000, "step_s": step_ms / 1000}
    best = best_share(sessions, **case)
    shares = run_live(sessions, **case)
    assert np.mean(shares) >= 0.9 * best
    if best:
        assert min(shares) >= 0.3 * max(shares), "nobody is left out for the others"
    wobbling = run_live(sessions, **case, wobble=0.15)
    if step_ms * 1.15 <= allowance_ms:
        assert np.mean(wobbling) >= 0.75 * best
