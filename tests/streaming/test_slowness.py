"""A machine that is too slow is told from a stall, and said in words."""

from __future__ import annotations

from stream.slowness import Slowness, sentence


def judged(shares: list[float]) -> list[bool]:
    slowness = Slowness()
    slow = []
    for share in shares:
        slowness.judge(share)
        slow.append(slowness.slow)
    return slow


def test_a_stall_is_no_slow_machine() -> None:
    warming_up = [0.8] * 6
    assert not any(judged([*warming_up, 0.0, 0.3, 0.3, 0.3, 0.0, 0.3]))
    slow = judged([*warming_up, *[0.12] * 6])
    assert slow.index(True) == 9, "the fourth report in a row"


def test_between_the_two_thresholds_it_stays_as_it_was() -> None:
    there_and_back = judged([*[0.8] * 6, *[0.2] * 4, *[0.06] * 10, *[0.01] * 4, *[0.06] * 9])
    assert there_and_back[9:23] == [True] * 14
    assert there_and_back[23:] == [False] * 10


def test_a_change_is_told_once() -> None:
    slowness = Slowness()
    changes = [slowness.judge(share) for share in [0.5] * 30 + [0.0] * 30]
    assert sum(changes) == 2


def test_the_share_is_said_in_steps() -> None:
    assert "40 % of the pictures come late" in sentence(0.42)
    assert "10 % of the pictures come late" in sentence(0.01)
