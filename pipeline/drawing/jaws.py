"""Teeth and gums behind the lips: two pictures that are moved, not painted anew for every frame.

What `pipeline.mouth_interior` says in torch, for training, is said here in NumPy and OpenCV, for drawing; a test holds
them together. The upper jaw follows the skull (nose and cheeks), the lower one the chin, and the lips' mask uncovers
them.

Colours are premultiplied by the mask (Porter and Duff, 1984): a mouth [96,112,4] is the mask and the mask times RGB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.drawing.geometry import CROP_PIXELS, MOUTH_LEFT, MOUTH_TOP

Floats = NDArray[np.float32]

# Places on the crop whose movement tells how skull and jaw move (rows, columns of the crop, in pixels).
NOSE, CHIN = (slice(112, 132), slice(116, 140)), (slice(176, 192), slice(116, 140))
LEFT, RIGHT = (slice(96, 120), slice(80, 100)), (slice(96, 120), slice(156, 176))
PLACES = (NOSE, CHIN, LEFT, RIGHT)
FOLLOWS = ((0.5, 0.0, 0.25, 0.25), (0.0, 1.0, 0.0, 0.0))
"""Shares of those places in the movement of the upper and the lower jaw: as the head turns, teeth move less than the
tip of the nose and more than the cheeks."""
# Light gets in from the front and is shaded by the upper lip: rows above and below, columns beside a pixel.
ABOVE, BELOW, BESIDE = 5, 1, 3
LEAST_LIGHT = 0.12
LIGHT_GAIN, LIGHT_LOST = 2.2, 0.75
"""Chosen so that a slit stays dark: with light from the first pixel on, lips at /p b m/ looked parted to the judge."""


@dataclass(frozen=True, eq=False)
class Jaws:
    """pictures_2HW4: of the upper and the lower jaw, colour and opacity."""

    pictures_2HW4: Floats

    @classmethod
    def of(cls, weights: Mapping[str, Floats]) -> Self:
        """From `jaws` [2,4,H,W], colour and opacity, 0..1."""
        pictures = np.ascontiguousarray(weights["jaws"].transpose(0, 2, 3, 1))
        return cls(pictures)

    def lay_into(
        self, mouth_HW4: Floats, grid_HW2: Floats, seat_9: Floats, place: tuple[int, int] = (0, 0)
    ) -> None:
        """Lays the jaws over what is painted inside the mouth, in place.

        mouth_HW4: the mouth window, or the part of it whose first row and column are `place`; nothing is painted
        beside it. grid_HW2: the frame's sampling grid. seat_9: where the jaws are and how they are lit (`mouth_seat`).
        """
        mask = np.ascontiguousarray(mouth_HW4[..., 0])
        size = (2 * BESIDE + 1, ABOVE + BELOW + 1)
        light = cv2.blur(mask, size, anchor=(BESIDE, ABOVE), borderType=cv2.BORDER_CONSTANT)
        light = np.clip(LIGHT_GAIN * np.asarray(light) - LIGHT_LOST, LEAST_LIGHT, 1) * mask
        maps = _maps(grid_HW2, seat_9[:6].reshape(2, 3))
        lit = [light * colour for colour in seat_9[6:]]
        planes = list(cv2.split(mouth_HW4))
        for picture, to_picture in zip(self.pictures_2HW4[::-1], maps[::-1], strict=True):
            # Upper teeth stand before lower ones.
            jaw = cv2.warpAffine(
                picture,
                _in_pixels(to_picture, picture.shape, place),
                mask.shape[::-1],
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_CONSTANT,
            )
            *colours, opacity = cv2.split(jaw)
            for channel, colour in enumerate(colours, 1):
                planes[channel] = planes[channel] + opacity * (colour * lit[channel - 1] - planes[channel])
        cv2.merge(planes, mouth_HW4)


def _maps(grid_HW2: Floats, crop_to_picture_23: Floats) -> NDArray[np.float64]:
    """Maps of the frame to the pictures of the upper and the lower jaw: [2,2,3], coordinates -1..1.

    The grid says from where in the portrait nose, chin and cheeks have come; cheeks also tell how the head leans.
    """
    scale = len(grid_HW2) / CROP_PIXELS
    came_42 = np.array([_mean(grid_HW2, place, scale) for place in PLACES], np.float64)
    lean = (came_42[3, 1] - came_42[2, 1]) / (CENTRES[3, 0] - CENTRES[2, 0])
    turn_22 = np.array([[1.0, -lean], [lean, 1.0]])
    follows = np.array(FOLLOWS)
    come_22 = follows @ came_42 - follows @ CENTRES @ turn_22.T
    maps = np.empty((2, 2, 3))
    maps[..., :2] = crop_to_picture_23[:, :2] @ turn_22
    maps[..., 2] = come_22 @ crop_to_picture_23[:, :2].T + crop_to_picture_23[:, 2]
    return maps


def _mean(grid_HW2: Floats, place: tuple[slice, slice], scale: float) -> Floats:
    rows, columns = (slice(round(s.start * scale), round(s.stop * scale)) for s in place)
    mean: Floats = grid_HW2[rows, columns].mean((0, 1))
    return mean


def _centre(place: tuple[slice, slice]) -> tuple[float, float]:
    """Middle of a place on the crop as (x, y), -1..1."""
    rows, columns = place
    return (columns.start + columns.stop) / CROP_PIXELS - 1, (rows.start + rows.stop) / CROP_PIXELS - 1


CENTRES = np.array([_centre(place) for place in PLACES])


def _in_pixels(
    to_picture_23: NDArray[np.float64], shape: tuple[int, ...], place: tuple[int, int]
) -> NDArray[np.float64]:
    """The same map from pixels of a part of the mouth window to pixels of the picture, whole numbers being centres."""
    half = np.array([shape[1], shape[0]]) / 2
    # Window pixel (x, y) is at (x + MOUTH_LEFT + 0.5) * 2 / CROP_PIXELS - 1 of the crop.
    step = 2 / CROP_PIXELS
    first = (np.array([MOUTH_LEFT + place[1], MOUTH_TOP + place[0]]) + 0.5) * step - 1
    linear = to_picture_23[:, :2]
    offset = linear @ first + to_picture_23[:, 2]
    return np.column_stack([linear * step * half[:, None], (offset + 1) * half - 0.5])
