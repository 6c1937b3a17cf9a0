"""Puts a moved and repainted face back into the full picture (OpenCV and NumPy only).

The picture's own pixels move, at the canvas's resolution; what the network paints (the inside of the mouth)
is laid over them. Movement fades out towards the crop's border instead of blending two pictures, so there is
neither a seam nor a ghost, and pixels outside are the portrait's, bit for bit.
"""

from __future__ import annotations

from functools import cache
from weakref import WeakKeyDictionary

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.portrait import CROP_PIXELS, Portrait

_VISIBLE = 1 / 512
"""Repaint weights below this change no pixel by a level."""
_EMPHASIS = 0.07
"""Cubic interpolation keeps 0.85 to 0.88 of a portrait's Laplacian energy, averaged over all places between pixels
(Lanczos 0.91, for five times the time). What is moved is sharpened by as much before, once per portrait: 0.97."""


class Compositor:
    """Frames of one portrait; what no frame changes is computed once. Safe for several threads."""

    def __init__(self, portrait: Portrait) -> None:
        self._canvas = portrait.canvas
        self._matrix = portrait.matrix
        left, top, width, height = cv2.boundingRect((portrait.alpha > 0).astype(np.uint8))
        self._left, self._top, self._size = left, top, (width, height)
        self._rows, self._columns = slice(top, top + height), slice(left, left + width)
        self._alpha = np.ascontiguousarray(portrait.alpha[self._rows, self._columns])
        self._source = _emphasised(portrait.canvas, portrait.alpha)
        # The crop on the canvas, and the moving rectangle in it.
        self._crop_size = tuple(round(CROP_PIXELS / portrait.matrix[axis, axis]) for axis in (0, 1))
        (_, _), (start_x, start_y) = self._sampling(self._crop_size[1], self._crop_size[0])
        self._in_crop = (
            slice(round(start_y), round(start_y) + height),
            slice(round(start_x), round(start_x) + width),
        )
        rows, columns = np.mgrid[self._rows, self._columns].astype(np.float32)
        self._places = (np.ascontiguousarray(columns), np.ascontiguousarray(rows))
        # One unit of the grid is half a crop.
        self._reaches = tuple(self._alpha * np.float32(size / 2) for size in self._crop_size)

    def composite(
        self, grid: NDArray[np.float32], mask: NDArray[np.float32], paint: NDArray[np.float32]
    ) -> NDArray[np.uint8]:
        """Renders one frame [H,W,3] u8.

        Args:
            grid: [h,w,2] where in the crop each place takes its pixel from, -1..1, x first,
            align_corners=False. mask: [h,w] weight 0..1 of the painted pixels. paint: [h,w,3] painted pixels,
            0..1. The three may differ in size from each other.
        """
        frame = self._canvas.copy()
        shifts = cv2.split(grid - _identity(grid.shape[0], grid.shape[1]))
        sources = []
        for shift, reach, place in zip(shifts, self._reaches, self._places, strict=True):
            on_canvas = np.asarray(cv2.resize(shift, self._crop_size, interpolation=cv2.INTER_LINEAR))
            sources.append(cv2.add(cv2.multiply(on_canvas[self._in_crop], reach), place))
        inside = frame[self._rows, self._columns]
        cv2.remap(
            self._source,
            sources[0],
            sources[1],
            cv2.INTER_CUBIC,
            dst=inside,
            borderMode=cv2.BORDER_REPLICATE,
        )
        self._repaint(inside, mask, paint)
        return frame

    def _repaint(
        self, inside: NDArray[np.uint8], mask: NDArray[np.float32], paint: NDArray[np.float32]
    ) -> None:
        """Lays paint over `inside`, the moving rectangle, where the mask is not zero."""
        left, top, width, height = cv2.boundingRect((mask > _VISIBLE).astype(np.uint8))
        if width == 0:
            return
        (zoom_x, zoom_y), (offset_x, offset_y) = self._sampling(mask.shape[0], mask.shape[1])
        # One sample more on every side: that far the interpolation spreads the mask's edge.
        first_x = max(int(np.floor((left - 1 - offset_x) / zoom_x)), 0)
        first_y = max(int(np.floor((top - 1 - offset_y) / zoom_y)), 0)
        last_x = min(int(np.ceil((left + width - offset_x) / zoom_x)) + 1, self._size[0])
        last_y = min(int(np.ceil((top + height - offset_y) / zoom_y)) + 1, self._size[1])
        if last_x <= first_x or last_y <= first_y:
            return
        size = (last_x - first_x, last_y - first_y)
        rows, columns = slice(first_y, last_y), slice(first_x, last_x)
        weight = self._on_canvas(mask, first_x, first_y, size) * self._alpha[rows, columns]
        colours = self._on_canvas(paint, first_x, first_y, size) * np.float32(255)
        part = inside[rows, columns]
        mixed = cv2.blendLinear(colours, part.astype(np.float32), weight, 1 - weight)
        np.copyto(part, np.asarray(cv2.convertScaleAbs(mixed), np.uint8))

    def _sampling(self, rows: int, columns: int) -> tuple[tuple[float, float], tuple[float, float]]:
        """Step (x, y) of one canvas pixel in an array over the crop, and where the rectangle starts in it."""
        steps, starts = [], []
        for axis, (first, samples) in enumerate(((self._left, columns), (self._top, rows))):
            per_crop_pixel = samples / CROP_PIXELS
            crop_place = self._matrix[axis, axis] * first + self._matrix[axis, 2]
            steps.append(float(self._matrix[axis, axis] * per_crop_pixel))
            starts.append(float((crop_place + 0.5) * per_crop_pixel - 0.5))
        return (steps[0], steps[1]), (starts[0], starts[1])

    def _on_canvas(
        self, values: NDArray[np.float32], first_x: int, first_y: int, size: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Samples an array over the crop at the canvas pixels of a rectangle inside the moving one."""
        (zoom_x, zoom_y), (start_x, start_y) = self._sampling(values.shape[0], values.shape[1])
        to_values = np.array(
            [[zoom_x, 0, start_x + first_x * zoom_x], [0, zoom_y, start_y + first_y * zoom_y]]
        )
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        sampled = cv2.warpAffine(values, to_values, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(sampled, np.float32)


def _emphasised(canvas: NDArray[np.uint8], alpha: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The canvas [H,W,3] a little sharper where alpha [H,W] lets it move."""
    sharp = canvas.astype(np.float32)
    sharp += (_EMPHASIS * alpha[..., None]) * (sharp - np.asarray(cv2.GaussianBlur(sharp, (3, 3), 0)))
    return np.clip(np.rint(sharp), 0, 255).astype(np.uint8)


def composite(
    portrait: Portrait, grid: NDArray[np.float32], mask: NDArray[np.float32], paint: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """One frame [H,W,3] u8; see `Compositor.composite`. A portrait's maps are kept while it lives."""
    compositor = _compositors.get(portrait)
    if compositor is None:
        compositor = _compositors[portrait] = Compositor(portrait)
    return compositor.composite(grid, mask, paint)


_compositors: WeakKeyDictionary[Portrait, Compositor] = WeakKeyDictionary()


@cache
def _identity(rows: int, columns: int) -> NDArray[np.float32]:
    """[rows,columns,2] grid that moves nothing."""
    x = (np.arange(columns, dtype=np.float32) + 0.5) * (2 / columns) - 1
    y = (np.arange(rows, dtype=np.float32) + 0.5) * (2 / rows) - 1
    return np.stack(np.meshgrid(x, y), -1).astype(np.float32)
