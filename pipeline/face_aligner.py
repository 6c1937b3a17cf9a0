"""Finds where each place of a portrait lies in the average face, once per portrait.

A cascade of linear regressions on gradient orientation histograms (supervised descent: Xiong and De la Torre, CVPR
2013) moves a few coefficients of a learned deformation until the portrait's features look like those of the average
face. Learned in seconds by ridge regression, exact to about a pixel, and needed only when a portrait is prepared.

Shapes: B portraits, S sample points, K coefficients.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

ORIENTATIONS = 8
FEATURE_PIXELS = 128
OFFSET_PIXELS = 64
# Spacing of the 3 x 3 probes around every sample point, in crop pixels, for each stage of the cascade.
SPACINGS = (16.0, 12.0, 8.0, 6.0, 5.0)
PROBES = 9


def orientation_maps(crop_B3HW: Tensor) -> Tensor:
    """Gradient orientation histograms, contrast normalised: [B,3,256,256] -> [B,8,128,128]."""
    grey = crop_B3HW.mean(1, keepdim=True)
    grey = functional.avg_pool2d(functional.pad(grey, (1, 1, 1, 1), mode="replicate"), 3, 1)
    across = functional.pad(grey, (1, 1, 0, 0), mode="replicate")
    down = functional.pad(grey, (0, 0, 1, 1), mode="replicate")
    dx, dy = across[..., 2:] - across[..., :-2], down[..., 2:, :] - down[..., :-2, :]
    angles = torch.arange(ORIENTATIONS, device=grey.device) * (2 * torch.pi / ORIENTATIONS)
    cos, sin = angles.cos().view(1, -1, 1, 1), angles.sin().view(1, -1, 1, 1)
    bins = functional.relu(dx * cos + dy * sin) ** 2 / ((dx**2 + dy**2).sqrt() + 1e-4)
    bins = functional.avg_pool2d(bins, 2)
    bins = functional.avg_pool2d(functional.pad(bins, (2, 2, 2, 2), mode="replicate"), 5, 1)
    energy = functional.avg_pool2d(bins.sum(1, keepdim=True), 17, 1, 8)
    maps: Tensor = bins / (energy + 0.004)
    return maps.sqrt()


class FaceAligner(nn.Module):
    """Crop [B,3,256,256] to offsets [B,64,64,2] (half crop widths); weights are set by training, not by gradients."""

    points: Tensor
    point_basis: Tensor
    offset: Tensor
    offset_basis: Tensor
    stages: Tensor

    def __init__(self, sample_points: int = 60, coefficients: int = 28) -> None:
        super().__init__()
        features = sample_points * PROBES * ORIENTATIONS + 1
        self.register_buffer("points", torch.zeros(sample_points, 2))
        self.register_buffer("point_basis", torch.zeros(coefficients, sample_points * 2))
        self.register_buffer("offset", torch.zeros(OFFSET_PIXELS, OFFSET_PIXELS, 2))
        self.register_buffer("offset_basis", torch.zeros(coefficients, OFFSET_PIXELS * OFFSET_PIXELS * 2))
        self.register_buffer("stages", torch.zeros(len(SPACINGS), features, coefficients))

    def features(self, maps_BCHW: Tensor, coefficients_BK: Tensor, stage: int) -> Tensor:
        """What the cascade's stage sees around the sample points: [B, S * 9 * 8 + 1]."""
        batch = len(maps_BCHW)
        points = self.points + (coefficients_BK @ self.point_basis).view(batch, -1, 2)
        step = SPACINGS[stage] / 128
        axis = torch.tensor([-step, 0.0, step], device=maps_BCHW.device, dtype=maps_BCHW.dtype)
        probes = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).view(1, 1, PROBES, 2)
        where = points[:, :, None] + probes
        seen = functional.grid_sample(maps_BCHW, where, padding_mode="border", align_corners=False)
        return torch.cat([seen.flatten(1), seen.new_ones(batch, 1)], 1)

    def forward(self, crop_B3HW: Tensor) -> Tensor:
        maps = orientation_maps(crop_B3HW)
        coefficients = maps.new_zeros(len(maps), self.stages.shape[2])
        for stage in range(len(SPACINGS)):
            coefficients = coefficients + self.features(maps, coefficients, stage) @ self.stages[stage]
        return self.offset + (coefficients @ self.offset_basis).view(-1, OFFSET_PIXELS, OFFSET_PIXELS, 2)
