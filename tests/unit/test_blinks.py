"""When a portrait blinks: often enough, never in bursts, and the same however the session is cut into chunks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.blinks import REST_FRAMES, lids_closed

FPS = 25


def onsets(lids: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    return np.flatnonzero((lids[1:] > 0) & (lids[:-1] == 0)) + 1


@pytest.mark.parametrize("seed", [0, 3, 12])
def test_people_blink_about_twenty_times_a_minute_and_never_in_bursts(seed: int) -> None:
    lids = lids_closed(seed, range(60 * 60 * FPS))
    starts = onsets(lids)
    assert 18 <= len(starts) / 60 <= 24
    assert np.diff(starts).min() >= 2 * REST_FRAMES
    assert starts[0] >= REST_FRAMES
    assert lids.min() == 0
    assert lids.max() == 1
    gaps = np.diff(starts) / FPS
    assert gaps.std() > 1, "blinks come at regular times"
    assert 0.4 < gaps.std() / gaps.mean() < 0.9, "not as irregular as people's"
    assert np.median(gaps) < 0.9 * gaps.mean(), "the gaps are not skewed"
    assert np.percentile(gaps, 99) < 15, "nobody stares for so long"


def test_no_minute_is_without_blinks_and_none_is_full_of_them() -> None:
    starts = np.concatenate(
        [onsets(lids_closed(seed, range(10 * 60 * FPS))) // (60 * FPS) for seed in range(5)]
    )
    counts = np.array([(starts == minute).sum() / 5 for minute in range(10)])
    assert counts.min() > 15
    assert counts.max() < 27


def test_any_cut_into_chunks_gives_the_same_blinks() -> None:
    whole = lids_closed(11, range(4000))
    for hop in (1, 2, 7, 90):
        parts = [lids_closed(11, range(t, min(t + hop, 4000))) for t in range(0, 4000, hop)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_every_seed_blinks_at_its_own_times() -> None:
    assert not np.array_equal(lids_closed(1, range(500)), lids_closed(2, range(500)))
    np.testing.assert_array_equal(lids_closed(1, range(500)), lids_closed(1, range(500)))
