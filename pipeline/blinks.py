"""When a portrait blinks: how far its lids are closed in every frame, from the session's seed alone.

A blink is a rare event with no cause in the sound, which few denoising steps would average away. So its time is
drawn here and given to the denoiser, which makes the motion of lids and brows around it.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

SLOT_FRAMES = 90
"""One blink in most stretches of 3.6 s: about 15 a minute, and never two close together."""
BLINK_CHANCE = 0.92
LIDS = np.array([0.45, 1.0, 0.9, 0.45, 0.12], np.float32)
"""How far the lids are closed, frame by frame."""
REST_FRAMES = 12
"""No blink begins in the last frames of a slot, nor in the first of a session."""


def lids_closed(seed: int, frames: range) -> npt.NDArray[np.float32]:
    """[T] 0 open to 1 closed for these frames; depends on the seed and the frame numbers only."""
    out = np.zeros(len(frames), np.float32)
    for slot in range(max(frames.start - len(LIDS), 0) // SLOT_FRAMES, frames[-1] // SLOT_FRAMES + 1):
        key = hashlib.blake2b(f"blink {seed} {slot}".encode(), digest_size=8).digest()
        rng = np.random.default_rng(int.from_bytes(key, "little"))
        chance, place = rng.random(), int(rng.integers(REST_FRAMES, SLOT_FRAMES - REST_FRAMES))
        if chance > BLINK_CHANCE:
            continue
        first = slot * SLOT_FRAMES + place
        for offset, closed in enumerate(LIDS):
            if first + offset in frames:
                out[first + offset - frames.start] = closed
    return out
