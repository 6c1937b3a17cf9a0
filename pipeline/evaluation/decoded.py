"""Frames as the decoder itself makes them, motion by motion: what drawing from directions is measured against."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.avatar_pipeline import AvatarPipeline
from pipeline.drawing import PreparedPortrait
from pipeline.drawing.compositor import Compositor
from pipeline.drawing.geometry import MOUTH_BOTTOM, MOUTH_LEFT, MOUTH_RIGHT, MOUTH_TOP
from pipeline.face_preparation import crop_tensor

_WINDOW = (slice(MOUTH_TOP, MOUTH_BOTTOM), slice(MOUTH_LEFT, MOUTH_RIGHT))


@torch.inference_mode()
def decoded_frames(
    pipe: AvatarPipeline, portrait: PreparedPortrait, z_TD: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """Frames [T,H,W,3] of motion latents [T,D]."""
    features = pipe.portrait_encoder(crop_tensor(portrait, pipe.device))
    z_ref_1D = torch.from_numpy(portrait.z_ref)[None].to(pipe.device)
    compositor, frames = Compositor(portrait), []
    for z_1D in torch.from_numpy(z_TD).to(pipe.device).split(1):
        made = pipe.frame_decoder(z_1D, z_ref_1D, features)
        mask_HW1 = made.mask_B1HW[0].permute(1, 2, 0).cpu().numpy()[_WINDOW]
        paint_HW3 = made.paint_B3HW[0].permute(1, 2, 0).cpu().numpy()[_WINDOW]
        mouth_HW4 = np.ascontiguousarray(np.concatenate([mask_HW1, mask_HW1 * paint_HW3], -1))
        frames.append(compositor.composite(made.grid_BHW2[0].cpu().numpy(), mouth_HW4))
    return np.stack(frames)


def psnr(frames: NDArray[np.uint8], others: NDArray[np.uint8]) -> float:
    """Peak signal to noise of frames of one shape, in dB; infinite where they are the same."""
    error = float(np.square(frames.astype(np.float32) - others).mean())
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))
