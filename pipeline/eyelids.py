"""Lids that close: the skin above an eye is drawn down over it, along the portrait's own lids.

Flow that a network predicts is smooth, but at a closing lid it jumps: on this side of the lashes is skin, beyond
them the eye. So blinks are taken out of the motion before the network sees it, and are laid on afterwards by
geometry: where the lids' edges and the fold above them lie is known for the average face, and the alignment says
where that is on a portrait.

Shapes: B frames of P portraits (B / P consecutive frames each), grid_sample coordinates as in `autoencoder.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.drawing.lids import EYE_COLUMNS, EYE_ROWS, FULL, LASHES, OVERLAP, STEP, STILL

CURVE_POINTS = 128


class Eyelids(nn.Module):
    """Reads blinks off the latent and moves the lids; untrained, with zeros, it does nothing.

    `read_D`: change of the latent -> amount of blink. `write_D`: what an amount of 1 adds to the latent.
    `curves_3X`: of the average face, for x from -1 to 1: y of the fold, the upper and the lower lid's edge; the
    latter two are equal where there is no eye. Drawn by `pipeline.training.lids`.
    """

    read_D: Tensor
    write_D: Tensor
    curves_3X: Tensor

    def __init__(self, latent_size: int) -> None:
        super().__init__()
        self.read_D = nn.Parameter(torch.zeros(latent_size), requires_grad=False)
        self.write_D = nn.Parameter(torch.zeros(latent_size), requires_grad=False)
        self.curves_3X = nn.Parameter(torch.zeros(3, CURVE_POINTS), requires_grad=False)

    def take_out(self, change_BD: Tensor) -> tuple[Tensor, Tensor]:
        """The change of the latent without its blink, and how far the lids are closed [B], 0..1."""
        blink_B = change_BD @ self.read_D
        closed_B = ((blink_B - STILL) / (FULL - STILL)).clamp(0, 1)
        return change_BD - blink_B[:, None] * self.write_D, closed_B

    def close(self, grid_BHW2: Tensor, closed_B: Tensor, where_PHW2: Tensor) -> Tensor:
        """The sampling grid with closed lids; `where_PHW2`: where in the average face places of the portrait are."""
        batch = len(grid_BHW2)
        eyes = grid_BHW2[:, EYE_ROWS, EYE_COLUMNS]
        # What a frame's pixel would show, open, lies in the portrait at `eyes` and in the average face at `average`.
        maps = (
            where_PHW2.permute(0, 3, 1, 2)[:, None]
            .expand(-1, batch // len(where_PHW2), -1, -1, -1)
            .flatten(0, 1)
        )
        average = functional.grid_sample(maps, eyes, padding_mode="border", align_corners=False)
        x, y = average[:, 0], average[:, 1]
        places = torch.stack([x, torch.zeros_like(x)], -1)
        curves = self.curves_3X[None, :, None].expand(batch, -1, -1, -1)
        lids = functional.grid_sample(curves, places, padding_mode="border", align_corners=False)
        fold, upper, lower = lids.unbind(1)
        opening = lower - upper
        lashes = upper - LASHES * (opening / LASHES).clamp(max=1)
        drop = closed_B.view(-1, 1, 1) * (opening + OVERLAP * (opening / LASHES).clamp(max=1))
        # From above: skin is stretched, the lashes move as they are, and cover the eye.
        skin = fold + (y - fold) * (lashes - fold) / (lashes + drop - fold).clamp(min=1e-4)
        lid = torch.where(y < lashes + drop, skin, y - drop)
        # The grid is coarse: a border that moves by less than its step must not jump.
        covered = (0.5 - (y - upper - drop) / STEP).clamp(0, 1)
        moved = torch.where((y > fold) & (opening > 0), covered * (lid - y), 0.0)
        shown = grid_BHW2.clone()
        shown[:, EYE_ROWS, EYE_COLUMNS, 1] += moved
        return shown
