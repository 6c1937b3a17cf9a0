"""From a motion to the weights with which a portrait's directions are added up; the same for every portrait.

Two small networks, one for the sampling grid and one for the mouth, each an MLP beside a straight line. What the
weights multiply is found once per portrait (`pipeline.face_preparation`).

Shapes: T frames, D motion latent, K weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Perceptron:
    """layers: weights [outputs, inputs] and biases of an MLP with SiLU between; the last pair is the straight line."""

    layers: tuple[tuple[Floats, Floats], ...]

    @classmethod
    def of(cls, weights: Mapping[str, Floats], name: str) -> Self:
        """Its layers among named arrays: `NAME.0.weight`, `NAME.0.bias` and so on."""
        count = sum(key.startswith(f"{name}.") and key.endswith(".weight") for key in weights)
        layers = ((weights[f"{name}.{i}.weight"], weights[f"{name}.{i}.bias"]) for i in range(count))
        return cls(tuple((np.asarray(w, np.float32), np.asarray(b, np.float32)) for w, b in layers))

    def __call__(self, x_TD: Floats) -> Floats:
        """[T,D] -> [T,K]."""
        *bent, (last, offset), (straight, base) = self.layers
        h = x_TD
        for weight, bias in bent:
            h = h @ weight.T + bias
            h = h * (0.5 + 0.5 * np.tanh(0.5 * h))  # SiLU, for any h
        out: Floats = h @ last.T + x_TD @ straight.T + (offset + base)
        return out


@dataclass(frozen=True, eq=False)
class MotionWeights:
    """mean_D, spread_D: of changes of the latent, by which they are scaled. limit: how many spreads from the mean a
    change may be; what is further away was never learned, so it is drawn as if it were there."""

    mean_D: Floats
    spread_D: Floats
    limit: float
    grid: Perceptron
    mouth: Perceptron

    @classmethod
    def of(cls, weights: Mapping[str, Floats]) -> Self:
        return cls(
            np.asarray(weights["mean"], np.float32),
            np.asarray(weights["spread"], np.float32),
            float(weights["limit"]),
            Perceptron.of(weights, "grid"),
            Perceptron.of(weights, "mouth"),
        )

    def __call__(self, change_TD: Floats) -> tuple[Floats, Floats]:
        """Weights [T,K] of the directions of grid and mouth, for changes of the latent without their blink."""
        x_TD = np.clip((change_TD - self.mean_D) / self.spread_D, -self.limit, self.limit)
        return self.grid(x_TD), self.mouth(x_TD)
