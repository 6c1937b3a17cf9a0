"""Everything that an evaluation measured, before it is summed up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation import lips
from pipeline.evaluation.references import Reference
from pipeline.evaluation.takes import Take


@dataclass(frozen=True, kw_only=True)
class Engineering:
    """Figures of the pipeline itself: streaming against offline, and time per frame."""

    streaming_difference: float
    ms_per_frame_p50: float
    ms_per_frame_p95: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """Everything that was measured; `max_lag_frames` and `hop_frames` are those of the settings."""

    takes: Sequence[Take]
    references: Mapping[str, Reference]
    engineering: Engineering
    max_lag_frames: int
    hop_frames: int

    def of(self, actor: str, *corpora: str) -> list[Take]:
        return [take for take in self.takes if take.actor == actor and take.clip.corpus in corpora]

    def lag_curve(self, take: Take) -> NDArray[np.float64] | None:
        """Correlation with the reference over lags, 0 for still lips; None for a clip without a reference."""
        reference = self.references.get(take.clip.name)
        if reference is None:
            return None
        if lips.hardly_moves(take.aperture):
            return np.zeros(2 * self.max_lag_frames + 1)
        return lips.correlation_over_lags(reference.aperture, take.aperture, self.max_lag_frames)

    def lip_sync(self, takes: Sequence[Take]) -> lips.LipSync | None:
        curves = [curve for curve in map(self.lag_curve, takes) if curve is not None]
        return lips.lip_sync(curves) if curves else None
