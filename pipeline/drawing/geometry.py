"""Where things are on the crop, the square of 256 pixels around a face that models see and drawing works in."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

CROP_PIXELS = 256
GRID_PIXELS = 128
"""Of the sampling grid over the crop."""
MOUTH_TOP, MOUTH_BOTTOM, MOUTH_LEFT, MOUTH_RIGHT = 120, 216, 72, 184
"""The window of the crop (rows, columns) in which the mouth is repainted, in crop pixels."""
FEATHER = 0.08
"""Width of the blend at the crop's border, as a share of its side."""


@cache
def still_grid(rows: int, columns: int) -> NDArray[np.float32]:
    """[rows,columns,2] sampling grid that moves nothing: -1..1, x first, as torch's grid_sample reads it
    (align_corners=False)."""
    x = (np.arange(columns, dtype=np.float32) + 0.5) * (2 / columns) - 1
    y = (np.arange(rows, dtype=np.float32) + 0.5) * (2 / rows) - 1
    grid = np.stack(np.meshgrid(x, y), -1)
    grid.flags.writeable = False  # it is one for all
    return grid


def freedom(width: int, height: int, matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    """[height,width]: how freely a pixel of the canvas may move, 1 inside the crop, falling smoothly to 0 at its
    border and at the canvas's.

    matrix: [2,3] canvas pixel (x, y, 1) to crop pixel, whole numbers being pixel centres.
    """
    ramps = []
    for pixels, zoom, offset in ((width, matrix[0, 0], matrix[0, 2]), (height, matrix[1, 1], matrix[1, 2])):
        place = np.arange(pixels) * zoom + offset + 0.5
        first, last = max(place[0], 0.0), min(place[-1], float(CROP_PIXELS))
        ramp = np.clip(np.minimum(place - first, last - place) / (FEATHER * CROP_PIXELS), 0, 1)
        ramps.append(ramp * ramp * (3 - 2 * ramp))
    return np.outer(ramps[1], ramps[0]).astype(np.float32)
