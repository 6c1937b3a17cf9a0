"""Finds faces in a picture: boxes and six points each.

The network is BlazeFace short range (Bazarevsky et al. 2019, arXiv 1907.05047; Apache-2.0, 230 KB, see
`weights/face/NOTICE.md`), run by OpenCV. It looks at 128x128 pixels and sees faces of roughly a fifth of them
and more, so it is shown the whole picture and then overlapping parts of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

_INPUT_PIXELS = 128
# (cells per side, anchors per cell) of the network's two output scales.
_ANCHOR_GRIDS = ((16, 2), (8, 6))
_FACE_SCORE = 0.6
_OVERLAP = 0.3


@dataclass(frozen=True, kw_only=True)
class Face:
    """One face, in pixels of the picture.

    `score` 0..1; `centre` [2] and `size` [2] of the box from eyebrows to chin; `points` [6,2]: the eyes (the
    one on the picture's left first), tip of the nose, middle of the mouth, and the two ears.
    """

    score: float
    centre: NDArray[np.float64]
    size: NDArray[np.float64]
    points: NDArray[np.float64]

    @property
    def width(self) -> float:
        """Width of the box."""
        return float(self.size[0])

    def scaled(self, factor: float) -> Face:
        """The same face in a picture resized by `factor`."""
        centre, size, points = self.centre * factor, self.size * factor, self.points * factor
        return Face(score=self.score, centre=centre, size=size, points=points)


@dataclass(frozen=True, kw_only=True)
class Square:
    """An axis-aligned square in pixels of a picture: its middle and its side."""

    centre_x: float
    centre_y: float
    side: float

    @property
    def left(self) -> float:
        """Left edge."""
        return self.centre_x - self.side / 2

    @property
    def top(self) -> float:
        """Upper edge."""
        return self.centre_y - self.side / 2

    def scaled(self, factor: float) -> Square:
        """The same square in a picture resized by `factor`."""
        return Square(
            centre_x=self.centre_x * factor, centre_y=self.centre_y * factor, side=self.side * factor
        )


class FaceDetector:
    """Not for several threads at once: the network keeps its buffers."""

    def __init__(self) -> None:
        self._network = bundled_network("blaze_face_short_range.tflite")
        self._anchors = _anchor_centres()

    def detect(self, picture: NDArray[np.uint8]) -> list[Face]:
        """All faces in `picture` [H,W,3] RGB, the largest first."""
        found = self._search(picture, (1, 2)) or self._search(picture, (4,))
        return sorted(found, key=lambda face: face.width, reverse=True)

    def _search(self, picture: NDArray[np.uint8], parts: tuple[int, ...]) -> list[Face]:
        """Faces seen in square windows of 1/part of the picture's long side, half overlapping."""
        height, width = picture.shape[:2]
        candidates: list[Face] = []
        for part in parts:
            side = max(height, width) / part
            for top in _window_starts(height, side):
                for left in _window_starts(width, side):
                    candidates += self._detect_in_window(picture, left, top, side)
        return _merge(candidates)

    def _detect_in_window(
        self, picture: NDArray[np.uint8], left: float, top: float, side: float
    ) -> list[Face]:
        scale = _INPUT_PIXELS / side
        window = _window(picture, left, top, side)
        blob = cv2.dnn.blobFromImage(window, 1 / 127.5, (_INPUT_PIXELS, _INPUT_PIXELS), (127.5, 127.5, 127.5))
        self._network.setInput(blob)
        regressors, logits = self._network.forward(["regressors", "classificators"])
        scores = 1 / (1 + np.exp(-np.clip(logits.reshape(-1).astype(np.float64), -50, 50)))
        numbers = regressors.reshape(len(scores), 8, 2).astype(np.float64)
        faces = []
        for index in np.flatnonzero(scores > _FACE_SCORE):
            centre, size, *points = numbers[index]
            if size.min() < 1:
                continue
            origin = self._anchors[index] * _INPUT_PIXELS
            corner = np.array([left, top])
            faces.append(
                Face(
                    score=float(scores[index]),
                    centre=(centre + origin) / scale + corner,
                    size=size / scale,
                    points=(np.stack(points) + origin) / scale + corner,
                )
            )
        return faces


def bundled_network(name: str) -> cv2.dnn.Net:
    """A network of `weights/face`, run by OpenCV."""
    file = Path(str(resources.files("pipeline"))) / "weights" / "face" / name
    # OpenCV's new engine gives only one output of networks with two.
    return cv2.dnn.readNetFromTFLite(str(file), engine=cv2.dnn.ENGINE_CLASSIC)


def _anchor_centres() -> NDArray[np.float64]:
    """[896,2] in 0..1, x first."""
    centres = []
    for cells, repeats in _ANCHOR_GRIDS:
        axis = (np.arange(cells) + 0.5) / cells
        grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
        centres.append(np.repeat(grid, repeats, axis=0))
    return np.concatenate(centres)


def _window_starts(length: int, side: float) -> list[float]:
    """Where windows of `side` begin to cover `length`, overlapping by half; centred if one is enough."""
    if side >= length:
        return [(length - side) / 2]
    count = int(np.ceil((length - side) / (side / 2))) + 1
    return list(np.linspace(0, length - side, count))


def _window(picture: NDArray[np.uint8], left: float, top: float, side: float) -> NDArray[np.uint8]:
    """The window as [128,128,3]; black outside the picture."""
    x, y, pixels = round(left), round(top), max(round(side), 1)
    inside = picture[max(y, 0) : y + pixels, max(x, 0) : x + pixels]
    above, before = max(-y, 0), max(-x, 0)
    square = np.zeros((pixels, pixels, 3), np.uint8)
    square[above : above + inside.shape[0], before : before + inside.shape[1]] = inside
    return np.asarray(
        cv2.resize(square, (_INPUT_PIXELS, _INPUT_PIXELS), interpolation=cv2.INTER_AREA), np.uint8
    )


def _overlap(a: Face, b: Face) -> float:
    """Shared area of two boxes over the smaller one's area."""
    low = np.maximum(a.centre - a.size / 2, b.centre - b.size / 2)
    high = np.minimum(a.centre + a.size / 2, b.centre + b.size / 2)
    shared = float(np.prod(np.maximum(high - low, 0)))
    return shared / max(min(float(np.prod(a.size)), float(np.prod(b.size))), 1e-6)


def _merge(candidates: list[Face]) -> list[Face]:
    """One face for every group of overlapping candidates, their mean weighted by score."""
    rest = sorted(candidates, key=lambda face: face.score, reverse=True)
    merged = []
    while rest:
        group = [face for face in rest if _overlap(rest[0], face) > _OVERLAP]
        rest = [face for face in rest if _overlap(rest[0], face) <= _OVERLAP]
        weights = np.array([face.score for face in group])
        merged.append(
            Face(
                score=group[0].score,
                centre=np.average([face.centre for face in group], axis=0, weights=weights),
                size=np.average([face.size for face in group], axis=0, weights=weights),
                points=np.average([face.points for face in group], axis=0, weights=weights),
            )
        )
    return merged
