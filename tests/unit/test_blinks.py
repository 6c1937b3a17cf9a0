"""When a portrait blinks: often enough, never in bursts, and the same however the session is cut into chunks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.blinks import REST_FRAMES, lids_closed

FPS = 25


def onsets(lids: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    return np.flatnonzero((lids[1:] > 0) & (lids[:-1] == 0)) + 1


def test_people_blink_about_fifteen_times_a_minute_and_never_in_bursts() -> None:
    lids = lids_closed(3, range(60 * 60 * FPS))
    starts = onsets(lids)
    assert 13 <= len(starts) / 60 <= 17
    assert np.diff(starts).min() >= 2 * REST_FRAMES
    assert starts[0] >= REST_FRAMES
    assert lids.min() == 0
    assert lids.max() == 1
    assert np.diff(starts).std() > FPS, "blinks come at regular times"


def test_any_cut_into_chunks_gives_the_same_blinks() -> None:
    whole = lids_closed(11, range(1000))
    for hop in (1, 2, 7, 90):
        parts = [lids_closed(11, range(t, min(t + hop, 1000))) for t in range(0, 1000, hop)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_every_seed_blinks_at_its_own_times() -> None:
    assert not np.array_equal(lids_closed(1, range(500)), lids_closed(2, range(500)))
    np.testing.assert_array_equal(lids_closed(1, range(500)), lids_closed(1, range(500)))
