"""Puts a moved and repainted face back into the full picture (OpenCV and NumPy only).

The picture's own pixels move, at the canvas's resolution; what the network paints (the inside of the mouth)
is laid over them. Movement fades out towards the crop's border instead of blending two pictures, so there is
neither a seam nor a ghost, and pixels outside are the portrait's, bit for bit.
"""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.drawing.geometry import CROP_PIXELS, MOUTH_LEFT, MOUTH_TOP, still_grid

_VISIBLE = 1 / 512
"""Repaint weights below this change no pixel by a level."""
_EMPHASIS = 0.05
_BETWEEN = (6 / 256, -40 / 256, 162 / 256, 162 / 256, -40 / 256, 6 / 256)
"""What is moved is sharpened once per portrait, by these two, so that it keeps 0.9 to 1.15 of its Laplacian energy
wherever between two pixels it is sampled, and 1.0 on average (cubic interpolation: 0.85 to 0.88)."""


class Still(Protocol):
    """A portrait at rest. `canvas` [H,W,3] u8, `matrix` [2,3] canvas pixel to crop pixel, `alpha` [H,W] how freely
    pixels may move (`geometry.freedom`)."""

    @property
    def canvas(self) -> NDArray[np.uint8]: ...
    @property
    def matrix(self) -> NDArray[np.float64]: ...
    @property
    def alpha(self) -> NDArray[np.float32]: ...


class Compositor:
    """Frames of one portrait; what no frame changes is computed once. Safe for several threads."""

    def __init__(self, portrait: Still) -> None:
        self._canvas = portrait.canvas
        left, top, width, height = cv2.boundingRect((portrait.alpha > 0).astype(np.uint8))
        self._size = (width, height)
        self._rows, self._columns = slice(top, top + height), slice(left, left + width)
        self._alpha = np.ascontiguousarray(portrait.alpha[self._rows, self._columns])
        # Four channels are sampled twice as fast as three.
        self._source = cv2.cvtColor(
            _doubled(_emphasised(portrait.canvas, portrait.alpha)), cv2.COLOR_RGB2RGBA
        )
        # Where the moving rectangle starts on the crop, and how many crop pixels a pixel of the canvas is, x first.
        zoom = portrait.matrix[[0, 1], [0, 1]]
        start = zoom * (left, top) + portrait.matrix[:, 2]
        self._zoom, self._start = zoom, start - (MOUTH_LEFT, MOUTH_TOP)
        self._crop_size = (round(CROP_PIXELS / zoom[0]), round(CROP_PIXELS / zoom[1]))
        first_x, first_y = (round(x) for x in ((start + 0.5) * self._crop_size / CROP_PIXELS - 0.5).tolist())
        self._in_crop = (slice(first_y, first_y + height), slice(first_x, first_x + width))
        rows, columns = 2 * np.mgrid[self._rows, self._columns].astype(np.float32)  # pixels of the source
        self._places = (np.ascontiguousarray(columns), np.ascontiguousarray(rows))
        # One unit of the grid is half a crop, and the source has two pixels for one.
        self._reaches = tuple(self._alpha * np.float32(size) for size in self._crop_size)

    def composite(
        self, grid: NDArray[np.float32], mouth: NDArray[np.float32], place: tuple[int, int] = (0, 0)
    ) -> NDArray[np.uint8]:
        """Renders one frame [H,W,3] u8.

        Args:
            grid: [h,w,2] where in the crop each place takes its pixel from (`geometry.still_grid`).
            mouth: [rows,columns,4] of the mouth window, or of a part of it: weight 0..1 of the painted pixels, and
            these in RGB, 0..1, times the weight.
            place: first row and column of that part.
        """
        frame = self._canvas.copy()
        shifts = cv2.split(grid - still_grid(*grid.shape[:2]))
        sources = []
        for shift, reach, still in zip(shifts, self._reaches, self._places, strict=True):
            on_canvas = np.asarray(cv2.resize(shift, self._crop_size, interpolation=cv2.INTER_LINEAR))
            sources.append(cv2.add(cv2.multiply(on_canvas[self._in_crop], reach), still))
        inside = frame[self._rows, self._columns]
        moved = cv2.remap(
            self._source, sources[0], sources[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        cv2.cvtColor(moved, cv2.COLOR_RGBA2RGB, dst=inside)
        self._repaint(inside, mouth, place)
        return frame

    def _repaint(self, inside: NDArray[np.uint8], mouth: NDArray[np.float32], place: tuple[int, int]) -> None:
        """Lays the mouth over `inside`, the moving rectangle, where its weight is not zero."""
        left, top, width, height = cv2.boundingRect((mouth[..., 0] > _VISIBLE).astype(np.uint8))
        if width == 0:
            return
        # One sample more on every side: that far the interpolation spreads the mask's edge.
        start = self._start - place[::-1]
        nearest = (np.array([left, top]) - 1 - start) / self._zoom
        farthest = (np.array([left + width, top + height]) - start) / self._zoom
        first = np.maximum(np.floor(nearest).astype(int), 0)
        last = np.minimum(np.ceil(farthest).astype(int) + 1, self._size)
        if (last <= first).any():
            return
        size = (int(last[0] - first[0]), int(last[1] - first[1]))
        to_window = np.column_stack([np.diag(self._zoom), start + first * self._zoom])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        layer = np.asarray(cv2.warpAffine(mouth, to_window, size, flags=flags), np.float32)
        rows, columns = slice(first[1], last[1]), slice(first[0], last[0])
        layer *= self._alpha[rows, columns, None]
        part = inside[rows, columns]
        mixed = part * (1 - layer[..., :1]) + 255 * layer[..., 1:]
        np.copyto(part, np.asarray(cv2.convertScaleAbs(mixed), np.uint8))


def _emphasised(canvas: NDArray[np.uint8], alpha: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The canvas [H,W,3] a little sharper where alpha [H,W] lets it move."""
    sharp = canvas.astype(np.float32)
    sharp += (_EMPHASIS * alpha[..., None]) * (sharp - np.asarray(cv2.GaussianBlur(sharp, (3, 3), 0)))
    return np.clip(np.rint(sharp), 0, 255).astype(np.uint8)


def _doubled(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[2H,2W,3]: the picture's pixels, and between them what is interpolated of six, a little too sharp.

    Sampled linearly it is as sharp as the picture, for a third of the time that sampling it cubically takes; and where
    nothing moves it is the picture.
    """
    half = np.array(_BETWEEN, np.float32)
    doubled = picture.astype(np.float32)
    for axis in (0, 1):
        kernel = half[:, None] if axis == 0 else half[None]
        anchor = (0, 2) if axis == 0 else (2, 0)
        between = cv2.filter2D(doubled, -1, kernel, anchor=anchor, borderType=cv2.BORDER_REPLICATE)
        doubled = np.stack([doubled, np.asarray(between)], axis + 1).reshape(
            (2 * doubled.shape[0], *doubled.shape[1:]) if axis == 0 else (len(doubled), -1, 3)
        )
    return np.clip(np.rint(doubled), 0, 255).astype(np.uint8)
