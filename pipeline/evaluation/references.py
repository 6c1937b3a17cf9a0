"""How a real mouth, or the motion that belongs to a synthetic voice, moved with the audio of a clip."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation import head, lips
from pipeline.evaluation.judging import Judge
from pipeline.evaluation.material import Clip, read_video

EXPRESSIONS = 57
_INNER_LIPS = (62, 66)  # of the 68 landmarks


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """`aperture` [T]; `closures` are frames [first, last) where the lips are closed within speech.

    Of a real speaker also `head_path` [T,2] and lid `openness` [T].
    """

    aperture: NDArray[np.float64]
    closures: tuple[tuple[int, int], ...]
    head_path: NDArray[np.float64] | None = None
    openness: NDArray[np.float64] | None = None


def references(clips: Iterable[Clip], judge: Judge, data: Path) -> dict[str, Reference]:
    """References by clip name; a clip with neither video nor motion has none."""
    gap = lip_gap(data)
    found = {}
    for clip in clips:
        if clip.video is not None:
            seen = judge.observe(read_video(clip.video))
            aperture = lips.aperture(seen.landmarks)
            found[clip.name] = Reference(
                aperture=aperture,
                closures=_closures(aperture, clip),
                head_path=head.head_path(seen.landmarks),
                openness=head.eye_openness(seen.landmarks),
            )
        elif clip.motion is not None:
            aperture = np.asarray(clip.motion[:, :EXPRESSIONS] @ gap, np.float64)
            found[clip.name] = Reference(aperture=aperture, closures=_closures(aperture, clip))
    return found


def _closures(aperture: NDArray[np.float64], clip: Clip) -> tuple[tuple[int, int], ...]:
    threshold = lips.closed_threshold(aperture, rest=float(aperture.min()))
    first, last = clip.speech
    return tuple(lips.closed_intervals(aperture, threshold, (first, min(last, len(aperture)))))


def lip_gap(data: Path) -> NDArray[np.float64]:
    """[57] inner-lip gap over face height per unit of each rig expression, from the head's geometry."""
    with np.load(data / "ict_facekit.npz") as file:
        landmarks = json.loads((data / "landmarks_68.json").read_text(encoding="utf-8"))
        upper, lower = (landmarks[i] for i in _INNER_LIPS)
        height = 1.45 * (file["neutral"][landmarks[27], 1] - file["neutral"][landmarks[8], 1])
        expressions = file["expr"]
        return np.asarray((expressions[:, upper, 1] - expressions[:, lower, 1]) / height, np.float64)
