"""A tiny, untrained avatar and a portrait that needs no face: shared by tests of the pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline import checkpoint
from pipeline.avatar_pipeline import AvatarPipeline
from pipeline.portrait import Portrait

TINY = Path(__file__).parents[2] / "configs" / "model" / "tiny.yaml"


def tiny_pipeline() -> AvatarPipeline:
    return checkpoint.build(TINY)


def plain_portrait(size: int = 256, seed: int = 0) -> Portrait:
    """A picture of noise, `size` pixels square, all of which is face crop."""
    canvas = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    scale = 256 / size
    return Portrait(
        name="plain",
        canvas=canvas,
        matrix=np.array([[scale, 0.0, 0.0], [0.0, scale, 0.0]]),
        crop=canvas[:256, :256].copy(),
        alpha=np.ones((size, size), np.float32),
        sha256="0" * 64,
    )
