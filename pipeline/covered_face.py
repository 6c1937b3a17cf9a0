"""Whether something covers the mouth or the eyes of a face: a mask, a hand, a microphone, sunglasses.

A small head on top of the face mesh's features (`weights/face/covered_face.safetensors`, 150 KB), trained by
`pipeline.training.covered_face`; looked at once, when a portrait is prepared.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from pipeline.face_mesh import FaceMesh

MOUTH_LIMIT, EYES_LIMIT = 0.0, 1.0
"""Logits from which on it is said. Of 407 portraits as they are, docs/portraits.md says how many that concerns."""


@dataclass(frozen=True, kw_only=True)
class Covered:
    """Logits: 0 is as likely as not."""

    mouth: float
    eyes: float


class CoveredFace:
    """Features [128,12,12] of the mesh -> [2]: a layer on each cell, two on all of them."""

    def __init__(self, weights: dict[str, NDArray[np.float32]]) -> None:
        self._weights = weights

    @staticmethod
    @cache
    def bundled() -> CoveredFace:
        file = Path(str(resources.files("pipeline"))) / "weights" / "face" / "covered_face.safetensors"
        return CoveredFace(load_file(file))

    def look(self, crop: NDArray[np.uint8]) -> Covered:
        """crop: a canonical one [S,S,3] RGB of the picture as given."""
        w = self._weights
        features = (FaceMesh.bundled().features(crop) - w["mean"][:, None, None]) / w["spread"][:, None, None]
        cells = np.maximum(np.einsum("oc,chw->ohw", w["cell"], features) + w["cell_bias"][:, None, None], 0)
        hidden = np.maximum(w["hidden"] @ cells.ravel() + w["hidden_bias"], 0)
        mouth, eyes = w["out"] @ hidden + w["out_bias"]
        return Covered(mouth=float(mouth), eyes=float(eyes))
