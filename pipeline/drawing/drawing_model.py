"""What every portrait is drawn with: weights of the motion, lids and jaws; one file of a model's folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from pipeline.drawing.jaws import Jaws
from pipeline.drawing.lids import Lids
from pipeline.drawing.motion_weights import MotionWeights

FILE = "drawing.safetensors"


@dataclass(frozen=True, eq=False)
class DrawingModel:
    """tensors: as they are in the file.

    `anchors` [M,D] and `grid.whiten`, `mouth.whiten` [M,K] say of which motions a portrait is drawn, once, and how the
    directions are made of that; `mean`, `spread`, `limit`, `grid.*` and `mouth.*` are `MotionWeights`, `lids.*` and
    `jaws` say what they are named after.
    """

    tensors: dict[str, NDArray[np.float32]]

    @classmethod
    def first_order(cls, latent_size: int, step: float = 0.1) -> Self:
        """What needs no training: one anchor for each number of the latent, and weights in proportion to them. Right
        for small motions; its lids never close, and it has no teeth."""
        eye = np.eye(latent_size, dtype=np.float32)
        zero = np.zeros((latent_size, latent_size), np.float32)
        tensors = {
            "anchors": step * eye,
            "mean": zero[0],
            "spread": np.full(latent_size, step, np.float32),
            "limit": np.array(1e6, np.float32),
            "lids.read": zero[0],
            "lids.write": zero[0],
            "lids.curves": np.zeros((3, 2), np.float32),
            "jaws": np.zeros((2, 4, 1, 1), np.float32),
        }
        for part in ("grid", "mouth"):
            tensors |= {f"{part}.whiten": eye, f"{part}.0.weight": zero, f"{part}.1.weight": eye}
            tensors |= {f"{part}.{i}.bias": zero[0] for i in range(2)}
        return cls(tensors)

    @classmethod
    def load(cls, folder: Path) -> Self:
        return cls({name: np.asarray(t, np.float32) for name, t in load_file(folder / FILE).items()})

    def save(self, folder: Path) -> None:
        save_file({name: np.array(t, order="C") for name, t in self.tensors.items()}, folder / FILE)

    @property
    def weights(self) -> MotionWeights:
        return MotionWeights.of(self.tensors)

    @property
    def lids(self) -> Lids:
        return Lids.of(self.tensors)

    @property
    def jaws(self) -> Jaws:
        return Jaws.of(self.tensors)
