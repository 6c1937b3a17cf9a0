"""Free-running motion: the model goes on from its own past, exactly as in a session."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from pipeline.denoiser import LEFT_SLOTS, Denoiser
from pipeline.sampler import denoise_chunk
from pipeline.scheduler import FlowMatchScheduler
from pipeline.training.sequences import Basis, Excerpts


def mixed_precision(device: torch.device) -> torch.autocast:
    """bfloat16 products on a GPU; on a CPU everything stays as it is."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


@torch.no_grad()
def rollout(
    denoiser: Denoiser,
    scheduler: FlowMatchScheduler,
    excerpts: Excerpts,
    *,
    noise_BTD: torch.Tensor,
    hop_frames: int,
    right_frames: int,
    num_inference_steps: int | None = None,
) -> torch.Tensor:
    """Motion latents z float32 [B, T, D] for the excerpts' audio, T a multiple of the hop; in mixed precision."""
    with mixed_precision(noise_BTD.device):
        ring = denoiser.new_ring(len(noise_BTD))
        session_BC = denoiser.embed_session(excerpts.z_ref_BD, excerpts.style_BK)
        chunks = []
        for first in range(0, noise_BTD.shape[1], hop_frames):
            heard = excerpts.features_BTF[:, first : first + LEFT_SLOTS + hop_frames + right_frames]
            z_BTD, ring = denoise_chunk(
                denoiser,
                scheduler,
                ring,
                audio_BTC=denoiser.embed_audio(
                    heard, right_frames, excerpts.lids_BT[:, first : first + hop_frames]
                ),
                session_BC=session_BC,
                noise_BTD=noise_BTD[:, first : first + hop_frames],
                num_inference_steps=num_inference_steps,
            )
            chunks.append(z_BTD)
    return torch.cat(chunks, 1).float()


@dataclass(frozen=True)
class MotionFigures:
    """How free-running motion compares with the recorded one."""

    lip_correlation: float
    closure_recall: float
    lip_spread_ratio: float
    eye_spread_ratio: float
    pose_spread_ratio: float
    jitter_ratio: float

    @staticmethod
    def of(made_BTD: torch.Tensor, excerpts: Excerpts, basis: Basis) -> MotionFigures:
        """Correlation is the mean over excerpts with moving lips; ratios are made / recorded; closures see `recall`."""
        true_BTD = excerpts.z_BTD[:, : made_BTD.shape[1]]
        aperture = torch.from_numpy(basis.aperture).to(made_BTD.device)
        eye_gap = torch.from_numpy(basis.eye_gap).to(made_BTD.device)

        def spread(x: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
            return (x @ row).std(1).mean()

        made, true = (x @ aperture - (x @ aperture).mean(1, keepdim=True) for x in (made_BTD, true_BTD))
        speaking = true.std(1) > 0.5 * true.std()
        correlation = (made * true).sum(1) / (made.norm(dim=1) * true.norm(dim=1) + 1e-9)
        pose = [x[..., basis.n_expression :].std(1).mean() for x in (made_BTD, true_BTD)]
        jitter = [x.diff(n=2, dim=1).square().mean().sqrt() for x in (made_BTD, true_BTD)]
        return MotionFigures(
            lip_correlation=float(correlation[speaking].mean()) if bool(speaking.any()) else 0.0,
            closure_recall=recall(
                *((x - excerpts.z_ref_BD[:, None]) @ aperture for x in (made_BTD, true_BTD))
            ),
            lip_spread_ratio=float(spread(made_BTD, aperture) / spread(true_BTD, aperture)),
            eye_spread_ratio=float(spread(made_BTD, eye_gap) / spread(true_BTD, eye_gap)),
            pose_spread_ratio=float(pose[0] / pose[1]),
            jitter_ratio=float(jitter[0] / jitter[1]),
        )


def recall(made_BT: torch.Tensor, true_BT: torch.Tensor) -> float:
    """Share of the closures between two openings that are made within a frame; from lip gaps relative to rest.

    Open lips are those half as far apart as the 95th percentile of the recorded, closed ones 15 %.
    """
    widest = torch.quantile(true_BT.flatten()[:100_000].float(), 0.95)
    lowest = -functional.max_pool1d(-true_BT[:, None], 3, 1, 1)[:, 0]
    around = functional.max_pool1d(true_BT[:, None], 13, 1, 6)[:, 0]
    closing = (true_BT == lowest) & (true_BT < 0.15 * widest) & (around > 0.5 * widest)
    reached = -functional.max_pool1d(-made_BT[:, None], 3, 1, 1)[:, 0]
    return float((reached < 0.15 * widest)[closing].float().mean()) if bool(closing.any()) else 0.0
