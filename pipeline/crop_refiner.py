"""Moves a rough square around a face onto the canonical square that the models are trained on.

The canonical square is defined by the top of the forehead and the tip of the chin, which the face detector
does not give; this small network reads them off the picture.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.face_detector import Square

INPUT_PIXELS = 96
ANALYSED_SIDE_PIXELS = 144
"""Larger faces are shrunk to this side first, so that sampling does not alias."""
_PASSES = 3


class CropRefiner(nn.Module):
    """[B,3,96,96] in 0..1 -> [B,3]: shift right and down in sides, and the log of the side's ratio."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 48, 64, 64)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in widths:
            layers += [
                nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False),
                nn.GroupNorm(8, width),
                nn.SiLU(),
                nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
                nn.Conv2d(width, width, 1, bias=False),
                nn.GroupNorm(8, width),
                nn.SiLU(),
            ]
            channels = width
        cells = INPUT_PIXELS // 2 ** len(widths)
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(channels * cells**2, 64), nn.SiLU(), nn.Linear(64, 3)
        )

    def forward(self, crop_B3HW: Tensor) -> Tensor:
        """Correction [B,3]."""
        correction: Tensor = self.head(self.trunk(crop_B3HW - 0.5))
        return correction

    @classmethod
    def bundled(cls) -> CropRefiner:
        """The network with the weights that ship with the package."""
        with resources.as_file(
            resources.files("pipeline") / "weights" / "face" / "crop_refiner.safetensors"
        ) as file:
            return cls.from_file(file)

    @classmethod
    def from_file(cls, file: Path) -> CropRefiner:
        """The network with weights read from a safetensors file."""
        refiner = cls()
        refiner.load_state_dict(load_file(file))
        return refiner.eval()

    @torch.inference_mode()
    def refine(self, picture: NDArray[np.uint8], rough: Square) -> Square:
        """The canonical square of the face that `rough` frames in `picture` [H,W,3] RGB."""
        shrink = min(1.0, ANALYSED_SIDE_PIXELS / rough.side)
        small = shrunk(picture, shrink)
        square = rough.scaled(shrink)
        for _ in range(_PASSES):
            crop = torch.from_numpy(cut_square(small, square)).permute(2, 0, 1)[None].float() / 255
            seen, mirrored = self(torch.cat([crop, crop.flip(-1)])).double()
            right, down, growth = ((seen + mirrored * mirrored.new_tensor([-1.0, 1.0, 1.0])) / 2).tolist()
            square = Square(
                centre_x=square.centre_x + right * square.side,
                centre_y=square.centre_y + down * square.side,
                side=square.side * float(np.exp(growth)),
            )
        return square.scaled(1 / shrink)


def shrunk(picture: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """`picture` [H,W,3] resized by a factor of at most 1."""
    if factor >= 1:
        return picture
    height, width = picture.shape[:2]
    size = (max(round(width * factor), 1), max(round(height * factor), 1))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def cut_square(picture: NDArray[np.uint8], square: Square) -> NDArray[np.uint8]:
    """The square as [96,96,3], edges repeated outside the picture."""
    scale = INPUT_PIXELS / square.side
    matrix = np.array([[scale, 0, -square.left * scale], [0, scale, -square.top * scale]])
    matrix[:, 2] += (scale - 1) / 2  # pixel centres
    size = (INPUT_PIXELS, INPUT_PIXELS)
    return np.asarray(cv2.warpAffine(picture, matrix, size, borderMode=cv2.BORDER_REPLICATE), np.uint8)
