"""Reads the opening of the lips off motion latents, as the judge would see it on the drawn frames.

A lip reading is linear: aperture - rest = (z - z_ref) @ slopes. It is fitted to what the judge (MediaPipe) says about
frames that the model drew, so studies of motion need no drawing; how well it agrees is kept with it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.autoencoder import POSE_SIZE
from pipeline.evaluation import lips
from pipeline.evaluation.takes import Take

RIDGE = 1e-3


@dataclass(frozen=True, kw_only=True, eq=False)
class LipReading:
    """slopes [D]: aperture over face height per unit of latent, 0 for the pose. agreement: correlation with the judge's
    aperture on frames it was not fitted to. frames: how many it was fitted to."""

    slopes: NDArray[np.float64]
    agreement: float
    frames: int

    def aperture(self, z_TD: NDArray[np.float32], z_ref_D: NDArray[np.float32]) -> NDArray[np.float64]:
        """[..., T] opening over the portrait's own, in face heights; 0 is as closed as the portrait's mouth."""
        return np.asarray((z_TD - z_ref_D) @ self.slopes, np.float64)

    @classmethod
    def fit(cls, takes: Sequence[Take], references: dict[str, NDArray[np.float32]]) -> LipReading:
        """From judged takes; `references` are the portraits' latents by name. Every second take is held out for the
        agreement, then all are used. ValueError if too few takes carry latents."""
        pairs = [
            ((take.latents - references[take.portrait])[:, :-POSE_SIZE], take.aperture - take.rest)
            for take in takes
            if take.latents is not None and not lips.hardly_moves(take.aperture)
        ]
        if len(pairs) < 2:
            raise ValueError(
                "The lips moved in fewer than two takes, so their opening cannot be read off latents."
            )
        slopes = _solve(pairs[::2])
        agreement = np.mean([lips.correlation(gap, z @ slopes) for z, gap in pairs[1::2]])
        slopes = _solve(pairs)
        whole = np.concatenate([slopes, np.zeros(POSE_SIZE)])
        return cls(slopes=whole, agreement=float(agreement), frames=sum(len(gap) for _, gap in pairs))

    def save(self, path: Path) -> None:
        values = {"slopes": self.slopes.tolist(), "agreement": self.agreement, "frames": self.frames}
        path.write_text(json.dumps(values) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> LipReading:
        values = json.loads(path.read_text(encoding="utf-8"))
        return cls(slopes=np.array(values["slopes"]), agreement=values["agreement"], frames=values["frames"])


def _solve(pairs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> NDArray[np.float64]:
    """Ridge regression without a constant: the portrait itself reads 0."""
    z = np.concatenate([z for z, _ in pairs]).astype(np.float64)
    gap = np.concatenate([gap for _, gap in pairs])
    gram = z.T @ z
    gram += RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    return np.asarray(np.linalg.solve(gram, z.T @ gap), np.float64)
