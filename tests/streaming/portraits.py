"""Portraits without a face, for tests of everything around the model."""

from __future__ import annotations

import numpy as np

from pipeline.drawing import PreparedPortrait
from pipeline.drawing.geometry import GRID_PIXELS
from pipeline.portrait import CROP_PIXELS, Portrait


def plain_portrait(size: int = 64, *, name: str = "plain", level: int = 90) -> Portrait:
    """A grey square canvas, all of it the crop."""
    zoom = CROP_PIXELS / size
    return Portrait(
        name=name,
        canvas=np.full((size, size, 3), level, np.uint8),
        matrix=np.array([[zoom, 0.0, (zoom - 1) / 2], [0.0, zoom, (zoom - 1) / 2]]),
        crop=np.full((CROP_PIXELS, CROP_PIXELS, 3), level, np.uint8),
        alpha=np.ones((size, size), np.float32),
        sha256="0" * 64,
    )


def prepared(portrait: Portrait, *, model: str = "none", latent_size: int = 2) -> PreparedPortrait:
    """As it is when nothing can move it."""
    return PreparedPortrait(
        name=portrait.name,
        sha256=portrait.sha256,
        model=model,
        canvas=portrait.canvas,
        matrix=portrait.matrix,
        crop=portrait.crop,
        opacity=portrait.opacity,
        z_ref=np.zeros(latent_size, np.float32),
        seat=np.zeros(9, np.float32),
        places=np.zeros((GRID_PIXELS, GRID_PIXELS, 2), np.float32),
        grid_rest=np.zeros((GRID_PIXELS, GRID_PIXELS, 2), np.float32),
        grid_directions=np.zeros((0, GRID_PIXELS, GRID_PIXELS, 2), np.float16),
        mouth_place=np.zeros(2, np.int32),
        mouth_rest=np.zeros((1, 1, 4), np.float32),
        mouth_directions=np.zeros((0, 1, 1, 4), np.float16),
        mouth_turn=np.zeros((0, 0), np.float32),
    )


def plain_prepared(size: int = 64, *, name: str = "plain", level: int = 90) -> PreparedPortrait:
    return prepared(plain_portrait(size, name=name, level=level))
