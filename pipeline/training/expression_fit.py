"""Expression weights of a tracked face: a quadratic programme per frame, then exactly the tracked lip gap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

UNUSED = ("Pupil", "eye", "jawForward", "cheek", "noseSneer")
"""Shapes that 68 landmarks cannot tell: left at 0 (blinks are measured at the lids)."""


@dataclass(frozen=True, kw_only=True)
class ExpressionFit:
    """Expression weights from landmark displacements (cm, in the image plane), for all frames at once."""

    basis: Floats  # [57,68,3] cm
    names: tuple[str, ...]
    sparsity: float = 0.05
    damping: float = 0.06
    symmetry: float = 0.3
    sweeps: int = 60

    def solve(self, displacement: Floats, turn: Floats) -> Floats:
        """displacement [N,68,2] from the rest, turn [N,3,3] -> weights [N,57] in [0,1]."""
        used = np.array([i for i, name in enumerate(self.names) if not name.startswith(UNUSED)])
        weight = np.full(68, 0.5, np.float32)
        weight[:5], weight[12:17], weight[5:12], weight[27:48], weight[60:] = 0.0, 0.0, 0.7, 0.0, 4.0
        seen = np.einsum("nij,kvj->nkvi", turn[:, :2], self.basis[used]).reshape(len(turn), len(used), -1)
        weighted = seen * np.repeat(weight, 2)
        hessian = weighted @ seen.transpose(0, 2, 1)
        linear = (weighted @ displacement.reshape(len(turn), -1, 1))[..., 0] - self.sparsity
        hessian += self._priors(used)
        diagonal = np.einsum("nkk->nk", hessian).copy()
        solution = np.zeros_like(linear)
        for _ in range(self.sweeps):  # coordinate descent
            for k in range(len(used)):
                slope = linear[:, k] - np.einsum("nj,nj->n", hessian[:, k], solution)
                solution[:, k] = np.clip(solution[:, k] + slope / diagonal[:, k], 0, 1)
        expression = np.zeros((len(turn), len(self.names)), np.float32)
        expression[:, used] = solution
        return expression

    def _priors(self, used: NDArray[np.int64]) -> Floats:
        """[K,K] damping (sideways shapes are rare) and the wish that left equals right."""
        sideways = [self.names[i] in ("jawLeft", "jawRight", "mouthLeft", "mouthRight") for i in used]
        rare = [
            self.names[i].startswith(("mouthFrown", "mouthShrug", "mouthDimple", "mouthRoll")) for i in used
        ]
        prior = np.diag(np.where(sideways, 20.0, np.where(rare, 4.0, 1.0)) * self.damping)
        place = {self.names[i]: k for k, i in enumerate(used)}
        for name, k in place.items():
            if name.endswith("_L"):
                pair = np.ix_([k, place[name[:-1] + "R"]], [k, place[name[:-1] + "R"]])
                prior[pair] += self.symmetry * np.array([[1, -1], [-1, 1]])
        return prior.astype(np.float32)


def match_gap(expression: Floats, wanted: Floats, opening: Floats, names: tuple[str, ...]) -> Floats:
    """Makes the rig's lips [T,57] open by exactly `wanted` [T] cm; `opening` [57] is cm per weight.

    Lips that should be closer are drawn together as far as the jaw is open, then the jaw closes; lips that
    should be wider apart let go first, then the jaw opens.
    """
    result = expression.copy()
    jaw, close = names.index("jawOpen"), names.index("mouthClose")
    for column, low, high in ((close, 0.0, 0.7), (jaw, 0.0, 1.0), (close, 0.0, 1.0)):
        missing = (wanted - result @ opening) / opening[column]
        limit = (
            high if column == jaw else np.minimum(high, np.maximum(high * result[:, jaw], result[:, close]))
        )
        result[:, column] = np.clip(result[:, column] + missing, low, limit)
    return result
