"""Reads the opening of the lips off motion latents, as the judge would see it on the drawn frames.

A lip reading is linear with a floor, as closed lips cannot close further:

    aperture - rest = max((z - z_ref) @ slopes + bias, floor)

It is fitted to what the judge (MediaPipe) says about frames that the model drew, so studies of motion need no
drawing; how well it agrees with the judge is kept with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.autoencoder import POSE_SIZE
from pipeline.evaluation import lips
from pipeline.evaluation.takes import Take

RIDGE = 1e-3
ROUNDS = 12

Pair = tuple[NDArray[np.float64], NDArray[np.float64]]
Fitted = tuple[NDArray[np.float64], float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class LipReading:
    """slopes [D]: aperture over face height per unit of latent, 0 for the pose. agreement: correlation with the judge's
    aperture on takes it was not fitted to. frames: how many it was fitted to."""

    slopes: NDArray[np.float64]
    bias: float
    floor: float
    agreement: float
    frames: int

    def aperture(self, z_TD: NDArray[np.float32], z_ref_D: NDArray[np.float32]) -> NDArray[np.float64]:
        """[..., T] opening over the portrait's own, in face heights; 0 is the portrait's mouth."""
        return np.maximum((z_TD - z_ref_D) @ self.slopes + self.bias, self.floor)

    @classmethod
    def fit(cls, takes: Sequence[Take], references: Mapping[str, NDArray[np.float32]]) -> LipReading:
        """From judged takes; `references` are the portraits' latents by name. ValueError: too few takes.

        For the agreement each take is held out in turn; the reading itself is then fitted to all.
        """
        pairs: list[Pair] = [
            ((take.latents - references[take.portrait]).astype(np.float64), take.aperture - take.rest)
            for take in takes
            if take.latents is not None and not lips.hardly_moves(take.aperture)
        ]
        if len(pairs) < 2:
            raise ValueError(
                "The lips moved in fewer than two takes, so their opening cannot be read off latents."
            )
        nothing, held_out = np.zeros(pairs[0][0].shape[1], np.float32), []
        for place, (z, gap) in enumerate(pairs):
            others = cls._of(_solve([*pairs[:place], *pairs[place + 1 :]]), 0.0, 0)
            held_out.append(lips.correlation(gap, others.aperture(z.astype(np.float32), nothing)))
        return cls._of(_solve(pairs), float(np.mean(held_out)), sum(len(gap) for _, gap in pairs))

    @classmethod
    def _of(cls, fitted: Fitted, agreement: float, frames: int) -> LipReading:
        slopes, bias, floor = fitted
        return cls(slopes=slopes, bias=bias, floor=floor, agreement=agreement, frames=frames)

    def save(self, path: Path) -> None:
        values = {name: getattr(self, name) for name in ("bias", "floor", "agreement", "frames")}
        path.write_text(json.dumps({"slopes": self.slopes.tolist(), **values}) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> LipReading:
        values = json.loads(path.read_text(encoding="utf-8"))
        return cls(**(values | {"slopes": np.array(values["slopes"])}))


def _solve(pairs: Sequence[Pair]) -> Fitted:
    """Ridge regression, again and again on the frames that the last one sees open, or wrongly closed."""
    z = np.concatenate([z for z, _ in pairs])
    z[:, -POSE_SIZE:] = 0.0
    gap = np.concatenate([gap for _, gap in pairs])
    floor = float(np.percentile(gap, 3))
    design = np.concatenate([z, np.ones((len(z), 1))], 1)
    penalty = RIDGE * float((z**2).sum() / z.shape[1]) * np.eye(design.shape[1])
    penalty[-1, -1] = 0.0
    used = np.ones(len(gap), bool)
    solution = np.zeros(design.shape[1])
    for _ in range(ROUNDS):
        chosen = design[used]
        solution = np.linalg.solve(chosen.T @ chosen + penalty, chosen.T @ gap[used])
        used = (design @ solution > floor) | (gap > floor + 0.1 * float(np.ptp(gap)))
    return solution[:-1], float(solution[-1]), floor
