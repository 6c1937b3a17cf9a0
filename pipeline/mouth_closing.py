"""A mouth that is open in the picture is closed, once, before the portrait talks.

The model moves faces whose lips are together at rest: what a smile shows of the teeth would stay on the lower lip, and
a mouth caught while speaking would never close. So the lips are drawn to the line between them, at the picture's own
resolution, and what was between them is left out; the teeth that are seen later are those of `mouth_interior`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.face_mesh import FaceMesh

OPEN_GAP = 0.04
"""Between the lips, as a share of the face's height. Of 406 synthetic portraits with closed lips, or nearly so, one is
above it, a head that leans far back (the next: 0.037); open vowels of a real speaker are at 0.04 to 0.1."""

CERTAINTY = 15.0
"""Of the mesh. Ink drawings, whose lines it takes for open mouths, reach 14; paintings, cartoons and photographs are
above."""

# Points of the mesh: edges of the lips from corner to corner, below the nose, the chin, the top of the forehead.
_UPPER = [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308]
_LOWER = [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308]
_NOSE, _CHIN, _FOREHEAD = 2, 152, 10

_UPPER_SHARE = 0.4
"""Of the gap, that the upper lip comes down; the lower one comes up by the rest."""
_UPPER_EDGE, _LOWER_EDGE = 0.018, 0.008
"""How much of the lips' edges is left out with what is between them, in face heights: the mesh sees the upper lip reach
a little over the teeth."""
_REACH = 2.2
"""The skin around gives way over at least so many times what a lip moves, so that nothing folds."""
_SHADOW, _SHADOW_HEIGHT = (0.25, 0.4, 0.4), 0.0045
"""Where lips meet there is less light, and what there is is red: what is taken of RGB, and over what height."""
_SAMPLES = 97


@dataclass(frozen=True, kw_only=True, eq=False)
class PartedLips:
    """An open mouth, in pixels of the picture it was found in.

    middle [2]: between the corners. along [2]: of length 1, to the corner on the right. half_width. upper, lower
    [97]: heights of the lips' edges from corner to corner, positive is down. nose, chin, face_height: the first two
    are heights, too.
    """

    middle: NDArray[np.float64]
    along: NDArray[np.float64]
    half_width: float
    upper: NDArray[np.float64]
    lower: NDArray[np.float64]
    nose: float
    chin: float
    face_height: float

    def moved(self, zoom: float, left: float, top: float) -> PartedLips:
        """The same lips in a picture that shows this one `zoom` times as large, its corner at (left, top)."""
        return PartedLips(
            middle=self.middle * zoom + np.array([left, top]),
            along=self.along,
            half_width=self.half_width * zoom,
            upper=self.upper * zoom,
            lower=self.lower * zoom,
            nose=self.nose * zoom,
            chin=self.chin * zoom,
            face_height=self.face_height * zoom,
        )


def find_parted_lips(crop: NDArray[np.uint8]) -> PartedLips | None:
    """The open mouth in a canonical crop [S,S,3] RGB; None if it is closed, or nothing sure can be said."""
    points = FaceMesh.bundled().find(crop, certainty=CERTAINTY)
    if points is None:
        return None
    face_height = float(np.linalg.norm(points[_CHIN] - points[_FOREHEAD]))
    left, right = points[_UPPER[0]], points[_UPPER[-1]]
    middle, half_width = (left + right) / 2, float(np.linalg.norm(right - left)) / 2
    if half_width < 1 or face_height < 1:
        return None
    along = (right - left) / (2 * half_width)
    axes = np.stack([along, [-along[1], along[0]]], 1)
    places = np.linspace(-half_width, half_width, _SAMPLES)
    upper, lower = (_edge((points[lip] - middle) @ axes, places) for lip in (_UPPER, _LOWER))
    if (lower - upper).max() < OPEN_GAP * face_height:
        return None
    nose, chin = ((points[[_NOSE, _CHIN]] - middle) @ axes)[:, 1]
    return PartedLips(
        middle=middle,
        along=along,
        half_width=half_width,
        upper=upper,
        lower=lower,
        nose=float(nose),
        chin=float(chin),
        face_height=face_height,
    )


def _edge(points: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Heights of a lip's edge at `places` along the mouth: through its points, without their corners."""
    order = np.argsort(points[:, 0])
    heights = np.interp(places, points[order, 0], points[order, 1])
    taps = np.hanning(13)[1:-1]
    return np.convolve(
        np.pad(heights, len(taps) // 2, mode="reflect", reflect_type="odd"), taps / taps.sum(), "valid"
    )


def close_lips(picture: NDArray[np.uint8], lips: PartedLips) -> NDArray[np.uint8]:
    """`picture` [H,W,3] with its lips together; pixels further away than nose and chin stay as they are."""
    gap = np.maximum(lips.lower - lips.upper, 0)
    opened = np.minimum(1, gap / (OPEN_GAP * lips.face_height))
    upper = lips.upper - _UPPER_EDGE * lips.face_height * opened
    lower = lips.upper + gap + _LOWER_EDGE * lips.face_height * opened
    meet = upper + _UPPER_SHARE * (lower - upper)
    rows, columns = _around(lips, float((lower - meet).max()), picture.shape)
    y, x = np.mgrid[rows, columns].astype(np.float64)
    x, y = x - lips.middle[0], y - lips.middle[1]
    (right_x, right_y) = lips.along
    across, height = x * right_x + y * right_y, y * right_x - x * right_y
    # Beyond the corners there is nothing to close.
    places = np.linspace(-lips.half_width, lips.half_width, _SAMPLES)
    meets = np.interp(across, places, meet)
    down, up = (
        np.interp(across, places, distance, left=0.0, right=0.0) for distance in (meet - upper, lower - meet)
    )
    shift = np.where(
        height <= meets,
        -down * _fading((meets - height) / np.maximum(meets - lips.nose, _REACH * down)),
        up * _fading((height - meets) / np.maximum(lips.chin - meets, _REACH * up)),
    )
    map_x = (columns.start + x - x[0, 0] - shift * right_y).astype(np.float32)
    map_y = (rows.start + y - y[0, 0] + shift * right_x).astype(np.float32)
    moved = cv2.remap(picture, map_x, map_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    line = np.exp(-0.5 * ((height - meets) / (_SHADOW_HEIGHT * lips.face_height)) ** 2)
    line *= np.interp(across, places, opened, left=0.0, right=0.0)
    lit = np.rint(moved * (1 - line[..., None] * np.array(_SHADOW)))
    closed = picture.copy()
    closed[rows, columns] = np.where((shift != 0)[..., None], lit, closed[rows, columns])
    return closed


def _around(lips: PartedLips, lift: float, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of all that moves."""
    reach = max(lips.half_width, -lips.nose, lips.chin, _REACH * lift + lips.lower.max()) * 1.1
    slices = []
    for centre, length in ((lips.middle[1], shape[0]), (lips.middle[0], shape[1])):
        slices.append(slice(max(int(centre - reach), 0), min(int(centre + reach) + 2, length)))
    return slices[0], slices[1]


def _fading(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 at 0, 0 from 1 on, smooth at both ends."""
    left = 1 - np.clip(distance, 0, 1)
    return left * left * (3 - 2 * left)
