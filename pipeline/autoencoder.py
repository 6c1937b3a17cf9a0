"""Motion autoencoder: portrait and motion latent to frame, frame to motion latent.

The decoder does not paint a face, it moves the portrait's own pixels: for every frame it predicts a backward flow
(where in the portrait each pixel comes from) and repaints only what the portrait does not show, the inside of the
mouth. So identity and sharpness are the portrait's, at any output resolution (First Order Motion Model,
arXiv 2003.00196; LIA, arXiv 2203.09043).

Shapes: B frames, D motion latent, H W pixels, C channels. Crops are 256x256 RGB in 0..1. Latents are relative to the
portrait at rest: its expression part and its head pose part (the last POSE_SIZE numbers) are 0 for the portrait as
photographed, if its mouth is closed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional

from pipeline.drawing.geometry import (
    CROP_PIXELS,
    GRID_PIXELS,
    MOUTH_BOTTOM,
    MOUTH_LEFT,
    MOUTH_RIGHT,
    MOUTH_TOP,
)
from pipeline.eyelids import Eyelids
from pipeline.face_aligner import FaceAligner
from pipeline.mouth_interior import MouthInterior, mouth_seat
from pipeline.portrait_features import PortraitFeatures

BASIS_PIXELS = GRID_PIXELS
FLOW_UNIT = 0.05
"""Flow (half crop widths) of 1 in the basis, so that flow and opening learn at the same rate."""
MOUTH_ROWS, MOUTH_COLUMNS = slice(MOUTH_TOP // 2, MOUTH_BOTTOM // 2), slice(MOUTH_LEFT // 2, MOUTH_RIGHT // 2)
"""The mouth window on the sampling grid."""
POSE_SIZE = 5
"""Yaw, pitch, roll, shift x, shift y: the last numbers of a motion latent."""


@dataclass(frozen=True)
class DecodedFrames:
    """What a frame is composed from.

    `grid_BHW2` [B,128,128,2]: backward sampling coordinates over the crop (grid_sample convention, -1..1,
    align_corners=False). `mask_B1HW` [B,1,256,256]: weight of the repainted pixels, 0 outside the mouth window.
    `paint_B3HW` [B,3,256,256]: repainted pixels, 0..1.
    """

    grid_BHW2: Tensor
    mask_B1HW: Tensor
    paint_B3HW: Tensor

    def compose(self, crop_B3HW: Tensor) -> Tensor:
        """Frames [B,3,256,256] from the portrait's crop, differentiable; the compositor does the same on full size."""
        grid = functional.interpolate(self.grid_BHW2.permute(0, 3, 1, 2), CROP_PIXELS, mode="bilinear")
        warped = functional.grid_sample(
            crop_B3HW, grid.permute(0, 2, 3, 1), padding_mode="border", align_corners=False
        )
        return warped + self.mask_B1HW * (self.paint_B3HW - warped)


def identity_grid(size: int, like: Tensor) -> Tensor:
    """[1,size,size,2] sampling coordinates that leave a picture as it is."""
    axis = (torch.arange(size, device=like.device, dtype=like.dtype) + 0.5) * (2 / size) - 1
    return torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)[None]


def _with_coordinates(x_BCHW: Tensor) -> Tensor:
    grid = identity_grid(x_BCHW.shape[-1], x_BCHW).permute(0, 3, 1, 2)
    return torch.cat([x_BCHW, grid.expand(len(x_BCHW), -1, -1, -1)], 1)


def _downsample(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, 1), nn.GroupNorm(8, outputs), nn.SiLU())


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions; with `condition` the motion scales and shifts the normalised features (FiLM)."""

    def __init__(self, channels: int, condition: int = 0) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.first = nn.Conv2d(channels, channels, 3, 1, 1)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1)
        self.film = nn.Linear(condition, 2 * channels) if condition else None
        nn.init.normal_(self.second.weight, std=0.01)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x_BCHW: Tensor, condition_BE: Tensor | None = None) -> Tensor:
        live = not torch.is_grad_enabled()  # then nobody needs what is overwritten
        h = functional.silu(self._normalised(x_BCHW, condition_BE), inplace=live)
        h = functional.silu(self.first(h), inplace=live)
        out: Tensor = self.second(h).add_(x_BCHW) if live else x_BCHW + self.second(h)
        return out

    def _normalised(self, x_BCHW: Tensor, condition_BE: Tensor | None) -> Tensor:
        if self.film is None or condition_BE is None:
            return cast(Tensor, self.norm(x_BCHW))
        scale_BC, shift_BC = self.film(condition_BE).chunk(2, 1)
        if len(x_BCHW) > 1:
            h = self.norm(x_BCHW)
            return cast(Tensor, h * (1 + scale_BC[:, :, None, None]) + shift_BC[:, :, None, None])
        # One frame: scale and shift go into the normalisation's own, which saves two passes over the map.
        norm, gain = self.norm, 1 + scale_BC[0]
        return functional.group_norm(
            x_BCHW, norm.num_groups, norm.weight * gain, norm.bias * gain + shift_BC[0], norm.eps
        )


class PortraitEncoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """What is computed once per portrait: a feature pyramid, and the portrait's own basis of motion.

    The basis says what each motion does to a face: a flow field, and how it opens the mouth. Motions are the latents
    and some functions of them that the decoder learns, because lids and lips do not move in proportion to a latent.
    The basis is learned for the average face; the aligner finds where in it each place of this portrait lies.
    """

    @register_to_config
    def __init__(
        self,
        widths: tuple[int, int, int, int] = (16, 32, 64, 128),
        latent_size: int = 40,
        extra_motions: int = 24,
    ) -> None:
        super().__init__()
        w128, w64, w32, w16 = widths
        self.stage128 = _downsample(5, w128)
        self.stage64 = nn.Sequential(_downsample(w128, w64), ResidualBlock(w64))
        self.stage32 = nn.Sequential(_downsample(w64, w32), ResidualBlock(w32), ResidualBlock(w32))
        self.stage16 = nn.Sequential(_downsample(w32, w16), ResidualBlock(w16), ResidualBlock(w16))
        # Back up again: fine maps that know which part of the face they show.
        self.up32, self.rise32 = nn.Conv2d(w16, w32, 1), ResidualBlock(w32)
        self.up64, self.rise64 = nn.Conv2d(w32, w64, 1), ResidualBlock(w64)
        self.up128, self.rise128 = nn.Conv2d(w64, w128, 1), ResidualBlock(w128)
        self.aligner = FaceAligner()
        motions = latent_size + extra_motions
        self.flow_basis = nn.Parameter(torch.zeros(2 * motions, BASIS_PIXELS, BASIS_PIXELS))
        # The last map is the mouth at rest.
        self.opening_basis = nn.Parameter(torch.zeros(motions + 1, BASIS_PIXELS, BASIS_PIXELS))

    def pyramid(self, crop_B3HW: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Maps of 128, 64, 32 and 16 pixels."""
        x128 = self.stage128(_with_coordinates(crop_B3HW * 2 - 1))
        x64 = self.stage64(x128)
        x32 = self.stage32(x64)
        x16 = self.stage16(x32)
        x32 = self.rise32(x32 + _double(self.up32(x16)))
        x64 = self.rise64(x64 + _double(self.up64(x32)))
        return self.rise128(x128 + _double(self.up128(x64))), x64, x32, x16

    def forward(self, crop_P3HW: Tensor) -> PortraitFeatures:
        """Crops [P,3,256,256] -> the features of these P portraits."""
        where = self.places(crop_P3HW)
        seat = mouth_seat(where, crop_P3HW)
        return PortraitFeatures(*self.pyramid(crop_P3HW), self.basis_at(where), where, seat)

    def places(self, crop_B3HW: Tensor) -> Tensor:
        """Where in the average face each place of the crop lies [B,128,128,2], sampling coordinates."""
        offset = _double(self.aligner(crop_B3HW).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return identity_grid(BASIS_PIXELS, offset) + offset

    def basis_at(self, where_BHW2: Tensor) -> Tensor:
        """The average face's basis at these places: [B,3M+1,128,128]."""
        basis = torch.cat([FLOW_UNIT * self.flow_basis, self.opening_basis])
        basis = basis.expand(len(where_BHW2), -1, -1, -1)
        return functional.grid_sample(basis, where_BHW2, padding_mode="border", align_corners=False)


class MotionEncoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Motion latent of a frame, independent of who is in it: crop [B,3,256,256] -> z [B,D]."""

    @register_to_config
    def __init__(self, latent_size: int = 40, widths: tuple[int, ...] = (16, 32, 64, 96, 128)) -> None:
        super().__init__()
        inputs = (5, *widths[:-1])
        stages: list[nn.Module] = []
        for index, (i, o) in enumerate(zip(inputs, widths, strict=True)):
            stages.append(_downsample(i, o))
            if index >= 2:
                stages.append(ResidualBlock(o))
        self.stages = nn.Sequential(*stages)
        cells = (CROP_PIXELS // 2 ** len(widths)) ** 2
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(widths[-1] * cells, 192), nn.SiLU(), nn.Linear(192, latent_size)
        )

    def forward(self, crop_B3HW: Tensor) -> Tensor:
        z_BD: Tensor = self.head(self.stages(_with_coordinates(crop_B3HW * 2 - 1)))
        return z_BD


class FrameDecoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Motion latent and portrait features to flow, mask and repainted pixels. About 1 GFLOP per frame."""

    still_HW2: Tensor
    freedom_HW1: Tensor

    @register_to_config
    def __init__(
        self,
        latent_size: int = 40,
        widths: tuple[int, int, int, int] = (16, 32, 64, 128),
        blocks: int = 1,
        condition_size: int = 192,
        extra_motions: int = 24,
    ) -> None:
        super().__init__()
        w128, w64, w32, w16 = widths
        self.condition = nn.Sequential(
            nn.Linear(2 * latent_size, condition_size), nn.SiLU(), nn.Linear(condition_size, condition_size)
        )
        self.affine = nn.Linear(condition_size, 6)
        self.extra = nn.Sequential(nn.Linear(2 * latent_size, 96), nn.SiLU(), nn.Linear(96, extra_motions))
        self.enter16 = nn.Conv2d(w16 + 2, w16, 1)
        self.blocks16 = nn.ModuleList(ResidualBlock(w16, condition_size) for _ in range(blocks))
        self.flow16 = nn.Conv2d(w16, 2, 3, 1, 1)
        self.up32 = nn.Conv2d(w16, w32, 1)
        self.block32 = ResidualBlock(w32, condition_size)
        self.flow32 = nn.Conv2d(w32, 2, 3, 1, 1)
        self.up64 = nn.Conv2d(w32, w64, 1)
        self.block64 = ResidualBlock(w64, condition_size)
        self.flow64 = nn.Conv2d(w64, 2, 3, 1, 1)
        self.up128 = nn.Conv2d(w64, w128, 1)
        self.block128 = ResidualBlock(w128, condition_size)
        self.flow128 = nn.Conv2d(w128, 2, 3, 1, 1)
        self.mouth = nn.Sequential(
            nn.Conv2d(2 * w128 + w64 + 3, 48, 3, 1, 1), nn.SiLU(), nn.Conv2d(48, 48, 3, 1, 3, dilation=3), nn.SiLU(),
            nn.PixelShuffle(2), nn.Conv2d(12, 24, 3, 1, 1), nn.SiLU(), nn.Conv2d(24, 4, 3, 1, 1),
        )  # fmt: skip
        self.interior = MouthInterior()
        self.upper_lids = Eyelids(latent_size)
        still_HW2 = identity_grid(GRID_PIXELS, torch.zeros(1))[0]
        self.register_buffer("still_HW2", still_HW2, persistent=False)
        # The border of the crop never moves, so the paste-back has no seam.
        edge = ((1 - still_HW2.abs()) / 0.2).clamp(0, 1)
        freedom_HW1 = (edge * edge * (3 - 2 * edge)).prod(-1, keepdim=True)
        self.register_buffer("freedom_HW1", freedom_HW1, persistent=False)
        for head in (self.affine, self.flow16, self.flow32, self.flow64, self.flow128):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.mouth[-1].weight[:1])  # type: ignore[index]
        nn.init.zeros_(self.mouth[-1].bias[:1])  # type: ignore[index]

    def forward(self, z_BD: Tensor, z_ref_BD: Tensor, features: PortraitFeatures) -> DecodedFrames:
        """z [B,D] is the frame's motion, z_ref [B,D] the portrait's own.

        The features are of one portrait, or of P portraits with B / P consecutive frames each, and then their maps
        repeated (`PortraitFeatures.for_frames`).
        """
        change, closed = self.upper_lids.take_out(z_BD - z_ref_BD)
        displacement, logits = self.fields(change, z_ref_BD, features)
        grid = self.upper_lids.close(self.still_HW2 + displacement, closed, features.places_PHW2)
        mouth = torch.sigmoid(logits)
        margin = (MOUTH_LEFT, CROP_PIXELS - MOUTH_RIGHT, MOUTH_TOP, CROP_PIXELS - MOUTH_BOTTOM)
        mask, paint = mouth[:, :1], self.interior(mouth[:, 1:], mouth[:, :1], grid, features.seat_P9)
        return DecodedFrames(grid, functional.pad(mask, margin), functional.pad(paint, margin))

    def fields(
        self, change_BD: Tensor, z_ref_BD: Tensor, features: PortraitFeatures
    ) -> tuple[Tensor, Tensor]:
        """What the network itself makes of a change of the latent without its blink; lids and jaws come after it.

        Displacement of the sampling grid [B,128,128,2]; mask and colours of the mouth window [B,4,96,112], logits.
        """
        f128, f64, f32, f16, basis = features[:5]
        batch = len(change_BD)
        both = torch.cat([change_BD, z_ref_BD], 1)
        condition = self.condition(both)
        motions_BM = torch.cat([change_BD, self.extra(both)], 1)
        moved, opening = _combine(motions_BM, basis)
        x = self.enter16(_with_coordinates(f16.expand(batch, -1, -1, -1)))
        for block in self.blocks16:
            x = block(x, condition)
        flow = _double(0.2 * self.flow16(x))
        x = self.block32(_double(self.up32(x)) + f32, condition)
        flow = _double(flow + 0.1 * self.flow32(x))
        x64 = self.block64(_double(self.up64(x)) + f64, condition)
        flow = _double(flow + 0.1 * self.flow64(x64))
        x = self.block128(_double(self.up128(x64)) + f128, condition)
        flow = flow + 0.1 * self.flow128(x) + moved
        still = self.still_HW2
        affine = 0.1 * self.affine(condition).view(batch, 2, 3)
        linear = still.view(1, -1, 2) @ affine[:, :, :2].transpose(1, 2) + affine[:, None, :, 2]
        displacement = linear.view(batch, GRID_PIXELS, GRID_PIXELS, 2) + flow.permute(0, 2, 3, 1)
        displacement = displacement * self.freedom_HW1

        # The mouth opens where the moved lips part, so the head that draws it sees the portrait as moved.
        rows, columns = MOUTH_ROWS, MOUTH_COLUMNS
        x64 = _double(x64[:, :, MOUTH_TOP // 4 : MOUTH_BOTTOM // 4, MOUTH_LEFT // 4 : MOUTH_RIGHT // 4])
        settled = (still + displacement)[:, rows, columns].detach()
        lips = functional.grid_sample(f128.expand(batch, -1, -1, -1), settled, align_corners=False)
        stretch = (8 * (settled - settled.mean((1, 2), keepdim=True))).permute(0, 3, 1, 2)
        mouth = self.mouth(torch.cat([x[:, :, rows, columns], x64, lips, stretch, 0.2 * opening], 1))
        return displacement, torch.cat([mouth[:, :1] + _double(opening), mouth[:, 1:]], 1)


def _combine(motions_BM: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of the basis weighted by the motions: flow [B,2,128,128], and opening of the mouth window [B,1,48,56].

    basis [P,3M+1,128,128]; each of the P portraits has B / P consecutive frames. Reading the basis is what takes the
    time, so of the opening only the window is read.
    """
    (portraits, _, height, width), motions = basis.shape, motions_BM.shape[1]
    motions_P1KM = motions_BM.view(portraits, 1, -1, motions)
    flow = motions_P1KM @ basis[:, : 2 * motions].reshape(portraits, 2, motions, height * width)
    window = basis[:, 2 * motions :, MOUTH_ROWS, MOUTH_COLUMNS]
    opening = motions_P1KM @ window[:, None, :motions].flatten(3) + window[:, None, motions:].flatten(3)
    return (
        flow.transpose(1, 2).reshape(-1, 2, height, width),
        opening.reshape(len(motions_BM), 1, *window.shape[2:]),
    )


def _double(x_BCHW: Tensor) -> Tensor:
    return functional.interpolate(x_BCHW, scale_factor=2, mode="bilinear")
