"""Portraits without a face, for tests of everything around the model."""

from __future__ import annotations

import numpy as np

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
