"""When a portrait blinks: how far its lids are closed in every frame, from the session's seed alone.

A blink is a rare event with no cause in the sound, which few denoising steps would average away. So its time is
drawn here and given to the denoiser, which makes the motion of lids and brows around it.

People blink about 17 times a minute at rest and 26 in conversation (Bentivoglio et al., Movement Disorders 12, 1997),
at irregular times: the gaps are skewed, many short and few long ones, much as a log-normal distribution has them.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

FPS = 25
BLOCK_FRAMES = 60 * FPS
"""Blinks are drawn minute by minute, so that any frame's lids can be had without those of the hours before."""
LIDS = np.array([0.45, 1.0, 0.9, 0.45, 0.12], np.float32)
"""How far the lids are closed, frame by frame."""
REST_FRAMES = 12
"""No blink begins in the last frames of a block, nor in the first of a session."""
LEAST_GAP_FRAMES = 2 * REST_FRAMES
MEDIAN_GAP_FRAMES = 1.45 * FPS
GAP_SPREAD = 0.77
"""What goes beyond the least gap is log-normal: 2.9 s between two blinks in the mean, 21 a minute."""


@lru_cache(maxsize=256)
def _blinks(seed: int, block: int) -> tuple[int, ...]:
    """First frames of the blinks of one block, counted from the start of the session."""
    key = hashlib.blake2b(f"blink {seed} {block}".encode(), digest_size=8).digest()
    rng = np.random.default_rng(int.from_bytes(key, "little"))
    # A block begins somewhere within a gap, as if there had been blinks before it.
    place, found = REST_FRAMES + rng.random() * MEDIAN_GAP_FRAMES, []
    while place < BLOCK_FRAMES - REST_FRAMES:
        found.append(block * BLOCK_FRAMES + int(place))
        place += LEAST_GAP_FRAMES + 1 + math.exp(rng.normal(math.log(MEDIAN_GAP_FRAMES), GAP_SPREAD))
    return tuple(found)


def lids_closed(seed: int, frames: range) -> npt.NDArray[np.float32]:
    """[T] 0 open to 1 closed for these frames; depends on the seed and the frame numbers only."""
    out = np.zeros(len(frames), np.float32)
    first_block = max(frames.start - len(LIDS), 0) // BLOCK_FRAMES
    for block in range(first_block, frames[-1] // BLOCK_FRAMES + 1):
        for first in _blinks(seed, block):
            start, stop = max(first, frames.start), min(first + len(LIDS), frames.stop)
            if start < stop:
                out[start - frames.start : stop - frames.start] = LIDS[start - first : stop - first]
    return out
