"""Teeth and gums behind the lips: two pictures that are moved, not painted anew for every frame.

What a closed mouth hides cannot be warped from the portrait, and a network that paints it from scratch paints the
mean of teeth, tongue and dark. So the decoder carries one picture of the upper and one of the lower jaw, drawn once for
the average face. The upper one follows the skull (nose and cheeks), the lower one the chin, and the lips' mask uncovers
them. They are sharp and do not flicker because they only move.

Shapes: B frames of P portraits (B / P consecutive frames each), grid_sample coordinates as in `autoencoder.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.drawing.geometry import CROP_PIXELS, MOUTH_BOTTOM, MOUTH_LEFT, MOUTH_RIGHT, MOUTH_TOP
from pipeline.drawing.jaws import (
    ABOVE,
    BELOW,
    BESIDE,
    CENTRES,
    FOLLOWS,
    LEAST_LIGHT,
    LIGHT_GAIN,
    LIGHT_LOST,
    PLACES,
)

LAYER_ROWS, LAYER_COLUMNS = 60, 80
LAYER_CENTRE, LAYER_REACH = (0.0, 0.199), (0.222, 0.1665)
"""The part of the average face, (x, y), that the pictures of the jaws cover: centre and half sizes."""
SEAT_SIZE = 9

_LIPS_REACH = (0.5, 0.25)
"""Around the lips, in half sizes of a picture, the alignment is taken as a straight map."""
_LINE_ROWS = 97
_LINE_BIAS = 0.0285
"""The darkest place is the upper lip's shadow, a little above the line where the lips meet."""


def mouth_seat(where_PHW2: Tensor, crop_P3HW: Tensor) -> Tensor:
    """Where a portrait's jaws are and how they are lit, once per portrait: [P,9].

    The first six numbers map the crop to the pictures of the jaws (2 x 3, rows x and y); the last three are the light.

    Args:
        where_PHW2: where in the average face each place of the crop lies.
        crop_P3HW: the portrait's crop, 0..1.
    """
    axis = (torch.arange(where_PHW2.shape[1], device=where_PHW2.device) + 0.5) * (2 / where_PHW2.shape[1]) - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    place_N3 = torch.stack([x.flatten(), y.flatten(), torch.ones_like(x).flatten()], 1)
    centre, reach = place_N3.new_tensor(LAYER_CENTRE), place_N3.new_tensor(LAYER_REACH)
    layer_PN2 = (where_PHW2.float().flatten(1, 2) - centre) / reach
    near_PN1 = torch.exp(-0.5 * (layer_PN2 / layer_PN2.new_tensor(_LIPS_REACH)).square().sum(2, keepdim=True))
    weighted_P3N = (near_PN1 * place_N3).transpose(1, 2)
    affine_P23 = torch.linalg.solve(weighted_P3N @ place_N3, weighted_P3N @ layer_PN2).transpose(1, 2)
    crop_P3HW = crop_P3HW.float()
    affine_P23[:, 1, 2] -= lip_line(crop_P3HW, affine_P23)  # the aligner is a pixel out, at times two
    # Teeth are lit by what falls on the face, but they are whiter than any skin.
    skin_P3 = crop_P3HW[:, :, MOUTH_TOP:MOUTH_BOTTOM, MOUTH_LEFT:MOUTH_RIGHT].mean((2, 3)) + 1e-3
    level_P1 = skin_P3.mean(1, keepdim=True)
    light_P3 = (1.25 * level_P1.sqrt() * (skin_P3 / level_P1) ** 0.35).clamp(max=1.0)
    return torch.cat([affine_P23.flatten(1), light_P3], 1).to(where_PHW2)


def lip_line(crop_P3HW: Tensor, crop_to_layer_P23: Tensor) -> Tensor:
    """How far below the middle of the jaws' picture the lips meet [P], in its half heights: a dark line across.

    On 136 portraits 0.4 crop pixels from the landmarks on average and 1.2 at most in 99 of 100, where the aligner alone
    is at 0.6 and 2.3.
    """
    rows = torch.linspace(-0.5, 0.5, _LINE_ROWS, device=crop_P3HW.device)
    y, x = torch.meshgrid(rows, torch.linspace(-0.34, 0.34, 17, device=crop_P3HW.device), indexing="ij")
    to_crop_P22 = torch.linalg.inv(crop_to_layer_P23[:, :, :2])
    strip_PHW2 = (torch.stack([x, y], -1) - crop_to_layer_P23[:, None, None, :, 2]) @ to_crop_P22[
        :, None
    ].transpose(2, 3)
    grey_PHW = functional.grid_sample(crop_P3HW, strip_PHW2, align_corners=False).mean(1)
    log_PHW = (grey_PHW + 0.03).log()[:, None]
    taps = torch.exp(-torch.arange(-9.0, 10.0, device=rows.device).square() / 18)
    log_PHW = functional.conv2d(_repeat_ends(log_PHW, 9), (taps / taps.sum()).view(1, 1, -1, 1))
    around_PHW = functional.avg_pool2d(_repeat_ends(log_PHW, 12), (25, 1), 1)
    darker_PH = (around_PHW - log_PHW)[:, 0].median(2).values
    found: Tensor = rows[(6 * darker_PH - 4 * rows.square()).argmax(1)] + _LINE_BIAS
    return found


def _repeat_ends(x_BCHW: Tensor, rows: int) -> Tensor:
    return functional.pad(x_BCHW, (0, 0, rows, rows), mode="replicate")


class MouthInterior(nn.Module):
    """Lays the jaws over what the decoder painted, in the mouth window of the crop.

    `layers` [2,4,60,80]: colour and opacity, 0..1, of the upper and the lower jaw, drawn by `pipeline.training.jaws`.
    Zeros, as at first, show nothing.
    """

    window_3N: Tensor
    centres_42: Tensor
    follows_24: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Parameter(torch.zeros(2, 4, LAYER_ROWS, LAYER_COLUMNS), requires_grad=False)
        rows = (torch.arange(MOUTH_TOP, MOUTH_BOTTOM) + 0.5) * (2 / CROP_PIXELS) - 1
        columns = (torch.arange(MOUTH_LEFT, MOUTH_RIGHT) + 0.5) * (2 / CROP_PIXELS) - 1
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        self.register_buffer(
            "window_3N", torch.stack([x, y, torch.ones_like(x)]).flatten(1), persistent=False
        )
        self.register_buffer("centres_42", torch.from_numpy(CENTRES).float(), persistent=False)
        self.register_buffer("follows_24", torch.tensor(FOLLOWS), persistent=False)

    def forward(self, paint_B3HW: Tensor, mask_B1HW: Tensor, grid_BHW2: Tensor, seat_P9: Tensor) -> Tensor:
        """Paint and mask of the window [B,.,96,112], the frame's sampling grid [B,h,w,2] -> paint with teeth."""
        batch, _, height, width = paint_B3HW.shape
        # The network's maps are laid out channels last, which pooling of a single channel and blending take ill.
        paint_B3HW, mask_B1HW = paint_B3HW.contiguous(), mask_B1HW.contiguous()
        seat_B9 = seat_P9[:, None].expand(-1, batch // len(seat_P9), -1).reshape(batch, SEAT_SIZE)
        places = self._jaws(grid_BHW2, seat_B9[:, :6].view(batch, 2, 3)) @ self.window_3N
        places = places.transpose(2, 3).reshape(2 * batch, height, width, 2)
        jaws = functional.grid_sample(
            self.layers.contiguous().repeat(batch, 1, 1, 1), places, align_corners=False
        )
        jaws = jaws.view(batch, 2, 4, height, width)
        around = functional.pad(mask_B1HW, (BESIDE, BESIDE, ABOVE, BELOW))
        lit = functional.avg_pool2d(around, (1, 2 * BESIDE + 1), 1)
        lit = functional.avg_pool2d(lit, (ABOVE + BELOW + 1, 1), 1)
        lit = (LIGHT_GAIN * lit - LIGHT_LOST).clamp(LEAST_LIGHT, 1.0) * seat_B9[:, 6:, None, None]
        for jaw in (1, 0):  # upper teeth stand before lower ones
            paint_B3HW = torch.lerp(paint_B3HW, jaws[:, jaw, :3] * lit, jaws[:, jaw, 3:])
        return paint_B3HW

    def _jaws(self, grid_BHW2: Tensor, crop_to_layer_B23: Tensor) -> Tensor:
        """Maps of the frame to the pictures of the upper and the lower jaw: [B,2,2,3].

        The grid says from where in the portrait nose, chin and cheeks have come; cheeks also tell how the head leans.
        """
        scale = grid_BHW2.shape[1] / CROP_PIXELS
        boxes = [[slice(round(s.start * scale), round(s.stop * scale)) for s in place] for place in PLACES]
        came_B42 = torch.stack([grid_BHW2[:, rows, columns].mean((1, 2)) for rows, columns in boxes], 1)
        across = self.centres_42[3, 0] - self.centres_42[2, 0]
        lean_B = (came_B42[:, 3, 1] - came_B42[:, 2, 1]) / across
        straight = torch.ones_like(lean_B)
        turn_B122 = torch.stack([straight, -lean_B, lean_B, straight], 1).view(-1, 1, 2, 2)
        came_B22, centres_22 = self.follows_24 @ came_B42, self.follows_24 @ self.centres_42
        come_B22 = came_B22 - (turn_B122 @ centres_22[:, :, None])[..., 0]
        turn_B222 = turn_B122.expand(-1, 2, -1, -1)
        to_crop_B223 = torch.cat([turn_B222, come_B22[..., None]], 3)
        to_layer_B123 = crop_to_layer_B23[:, None]
        moved: Tensor = to_layer_B123[..., :2] @ to_crop_B223
        return moved + functional.pad(to_layer_B123[..., 2:], (2, 0))
