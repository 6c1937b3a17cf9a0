"""Where each place of a portrait lies in the average face, from landmarks: what the alignment learns from.

Coordinates are grid_sample's (x right, y down, half crop widths). Training time only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator
from tqdm import tqdm

from pipeline.autoencoder import BASIS_PIXELS

LANDMARK_STRIDE = 4
# Lips and eyes (MediaPipe's numbering) are always kept: that is where alignment matters.
FEATURES = (
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
)  # fmt: skip


@dataclass(frozen=True)
class Alignment:
    """Per portrait: `offset` [P,64,64,2] to the average face, `place` [P,64,64,2] of the average face's grid."""

    offset: NDArray[np.float32]
    place: NDArray[np.float32]


def _grid() -> NDArray[np.float32]:
    axis = (np.arange(BASIS_PIXELS, dtype=np.float32) + 0.5) * (2 / BASIS_PIXELS) - 1
    return np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)


def _warp(
    source: NDArray[np.float32], target: NDArray[np.float32], points: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Moves points as the landmarks move from source to target; the crop's border stays."""
    axis = np.linspace(-1, 1, 9)
    border = np.array([(x, y) for x in axis for y in axis if max(abs(x), abs(y)) == 1], np.float32)
    sources = np.concatenate([source, border])
    shift = np.concatenate([target - source, np.zeros_like(border)])
    interpolate = RBFInterpolator(sources, shift, kernel="linear", smoothing=1e-3)
    return (points + interpolate(points)).astype(np.float32)


def align(landmarks: NDArray[np.float32], cache: Path) -> Alignment:
    """From landmarks [P,478,2] (crop units, y up); computed once and kept in `cache`."""
    if cache.exists():
        with np.load(cache) as archive:
            return Alignment(archive["offset"], archive["place"])
    chosen = np.unique(np.concatenate([np.arange(0, 468, LANDMARK_STRIDE), FEATURES]))
    faces = (landmarks[:, chosen] * (1, -1)).astype(np.float32)
    average = faces.mean(0)
    grid = _grid()
    shape = (BASIS_PIXELS, BASIS_PIXELS, 2)
    offsets = [(_warp(face, average, grid) - grid).reshape(shape) for face in tqdm(faces, desc="alignment")]
    places = [_warp(average, face, grid).reshape(shape) for face in tqdm(faces, desc="average face")]
    result = Alignment(np.stack(offsets), np.stack(places))
    np.savez(cache, offset=result.offset, place=result.place)
    return result
