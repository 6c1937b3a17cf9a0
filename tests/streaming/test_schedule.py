"""Earliest deadline first; under overload fewer steps, then counted skips; nothing lost or out of order."""

from __future__ import annotations

from stream.schedule import NO_AUDIO, Decision, Job, Schedule


def job(session: str, index: int, deadline: float, slot: int = 0) -> Job:
    return Job(session=session, index=index, slot=slot, deadline=deadline)


def test_the_most_urgent_session_comes_first_and_each_stays_in_order() -> None:
    schedule = Schedule(full_steps=2, min_steps=1)
    for item in (job("a", 0, 5.0), job("a", 1, 5.1), job("b", 0, 4.0), job("b", 1, 6.0)):
        schedule.add(item)
    order = [(d.job.session, d.job.index) for d in iter(lambda: schedule.next(0.0), None)]
    assert order == [("b", 0), ("a", 0), ("a", 1), ("b", 1)]


def test_little_time_left_means_fewer_steps() -> None:
    schedule = Schedule(full_steps=4, min_steps=1)
    for steps in range(1, 5):
        schedule.observe(steps, 0.01 * steps)
    for left_s, expected in ((1.0, 4), (0.041, 4), (0.035, 3), (0.025, 2), (0.001, 1), (-0.05, 1)):
        schedule.add(job("a", 0, left_s))
        assert schedule.next(0.0) == Decision(job("a", 0, left_s), expected)


def test_hopelessly_late_windows_are_skipped_only_if_another_waits() -> None:
    schedule = Schedule(full_steps=2, min_steps=1)
    schedule.add(job("a", 0, 0.0))
    schedule.add(job("a", 1, 0.08))
    assert schedule.next(1.0) == Decision(job("a", 0, 0.0), 0)
    assert schedule.next(1.0) == Decision(job("a", 1, 0.08), 2 if not schedule else 1)


def test_a_window_without_audio_only_advances() -> None:
    schedule = Schedule(full_steps=2, min_steps=1)
    schedule.add(job("a", 7, 99.0, slot=NO_AUDIO))
    decision = schedule.next(0.0)
    assert decision is not None
    assert decision.steps == 0


def test_full_quality_comes_back_after_a_slow_spell() -> None:
    schedule = Schedule(full_steps=2, min_steps=1)
    schedule.observe(2, 10.0)
    taken = []
    for index in range(400):
        schedule.add(job("a", index, 0.05))
        decision = schedule.next(0.0)
        assert decision is not None
        taken.append(decision.steps)
    assert taken[0] == 1
    assert taken[-1] == 2


def test_a_closed_session_is_forgotten() -> None:
    schedule = Schedule(full_steps=2, min_steps=1)
    schedule.add(job("a", 0, 1.0))
    schedule.forget("a")
    assert schedule.next(0.0) is None
    assert len(schedule) == 0
