"""Lids that close: the skin above an eye is drawn down over it, along the portrait's own lids.

What `pipeline.eyelids` says in torch, for training, is said here in NumPy, for drawing; a test holds them together.
Blinks are taken out of the motion before the networks see it, and are laid on afterwards by geometry: where the lids'
edges and the fold above them lie is known for the average face, and the alignment says where that is on a portrait.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

EYE_ROWS, EYE_COLUMNS = slice(34, 66), slice(32, 96)
"""The part of the sampling grid (128 x 128) in which lids are moved."""
STILL, FULL = 0.04, 0.8
"""Amounts of blink that move nothing, and that close the eye: a blink of the denoiser reaches 0.9."""
LASHES, OVERLAP = 0.036, 0.014
"""Height of the lashes above the upper lid's edge, and how far they reach beyond the lower lid, half crop widths."""
STEP = 2 / 128
"""Of the sampling grid."""


@dataclass(frozen=True, eq=False)
class Lids:
    """read_D: change of the latent -> amount of blink. write_D: what an amount of 1 adds to the latent.

    curves_3X: of the average face, for x from -1 to 1: y of the fold, the upper and the lower lid's edge; the latter
    two are equal where there is no eye.
    """

    read_D: Floats
    write_D: Floats
    curves_3X: Floats

    @classmethod
    def of(cls, weights: Mapping[str, Floats]) -> Self:
        return cls(weights["lids.read"], weights["lids.write"], weights["lids.curves"])

    def take_out(self, change_TD: Floats) -> tuple[Floats, Floats]:
        """The changes without their blinks, and how far the lids are closed [T], 0..1."""
        blink_T = change_TD @ self.read_D
        closed_T = np.clip((blink_T - STILL) / (FULL - STILL), 0, 1)
        return change_TD - blink_T[:, None] * self.write_D, closed_T

    def close(self, grid_HW2: Floats, closed: float, places_HW2: Floats) -> None:
        """Closes the lids in the sampling grid [128,128,2] in place.

        places_HW2: where in the average face each place of the portrait lies.
        """
        eyes = grid_HW2[EYE_ROWS, EYE_COLUMNS]
        # What a frame's pixel would show, open, lies in the portrait at `eyes` and in the average face at x, y.
        average = _sample(places_HW2, eyes)
        x, y = average[..., 0], average[..., 1]
        fold, upper, lower = self._curves_at(x)
        opening = lower - upper
        lashes = upper - LASHES * np.minimum(opening / LASHES, 1)
        drop = closed * (opening + OVERLAP * np.minimum(opening / LASHES, 1))
        # From above: skin is stretched, the lashes move as they are, and cover the eye.
        skin = fold + (y - fold) * (lashes - fold) / np.maximum(lashes + drop - fold, 1e-4)
        lid = np.where(y < lashes + drop, skin, y - drop)
        # The grid is coarse: a border that moves by less than its step must not jump.
        covered = np.clip(0.5 - (y - upper - drop) / STEP, 0, 1)
        eyes[..., 1] += np.where((y > fold) & (opening > 0), covered * (lid - y), 0)

    def _curves_at(self, x: Floats) -> tuple[Floats, ...]:
        size = self.curves_3X.shape[1]
        place = np.clip((x + 1) * (size / 2) - 0.5, 0, size - 1)
        first = np.minimum(place.astype(np.intp), size - 2)
        share = (place - first).astype(np.float32)
        return tuple(c[first] * (1 - share) + c[first + 1] * share for c in self.curves_3X)


def _sample(maps_HWC: Floats, where_HW2: Floats) -> Floats:
    """Bilinear samples at grid_sample coordinates (-1..1, x first, align_corners=False), borders repeated.

    OpenCV's remap would round places to 1/32 pixel.
    """
    height, width = maps_HWC.shape[:2]
    x = np.clip((where_HW2[..., 0] + 1) * (width / 2) - 0.5, 0, width - 1)
    y = np.clip((where_HW2[..., 1] + 1) * (height / 2) - 0.5, 0, height - 1)
    left, top = np.minimum(x.astype(np.intp), width - 2), np.minimum(y.astype(np.intp), height - 2)
    across, down = (x - left)[..., None].astype(np.float32), (y - top)[..., None].astype(np.float32)
    upper = maps_HWC[top, left] * (1 - across) + maps_HWC[top, left + 1] * across
    lower = maps_HWC[top + 1, left] * (1 - across) + maps_HWC[top + 1, left + 1] * across
    sampled: Floats = upper * (1 - down) + lower * down
    return sampled
