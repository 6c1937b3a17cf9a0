"""What a motion latent must get right: the latents themselves, and above all lips and lids.

Shapes: B sequences, T frames, D motion latent. Errors are of normalised latents unless stated otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pipeline.denoiser import Denoiser
from pipeline.training.sequences import Basis


@dataclass(frozen=True)
class MotionLoss:
    """Weighted error between two motions.

    weight_D: how much a normalised latent counts (mean 1); directions that move much of the face count more.
    aperture_D, eye_gap_D: lip and lid gap of normalised latents, in units of their own spread.
    closed_at: lips count as closed below this gap, 15 % of the usual opening.
    """

    weight_D: torch.Tensor
    aperture_D: torch.Tensor
    eye_gap_D: torch.Tensor
    closed_at: float
    aperture_weight: float
    eye_weight: float

    @staticmethod
    def of(
        basis: Basis,
        denoiser: Denoiser,
        latents_ND: torch.Tensor,
        *,
        aperture_weight: float,
        eye_weight: float,
    ) -> MotionLoss:
        """From the corpus' latents (in z units) and a denoiser whose normalisation is set."""
        scale = denoiser.latent_scale
        normalised = denoiser.normalize(latents_ND.to(scale.device))
        rows = []
        for row in (basis.aperture, basis.eye_gap):
            direction = torch.from_numpy(row).to(scale.device) * scale
            rows.append(direction / (normalised @ direction).std())
        weight = scale / scale.mean()
        gaps = (normalised @ rows[0])[:100_000]
        low, high = (float(torch.quantile(gaps, share)) for share in (0.05, 0.95))
        return MotionLoss(
            weight_D=weight,
            aperture_D=rows[0],
            eye_gap_D=rows[1],
            closed_at=low + 0.15 * (high - low),
            aperture_weight=aperture_weight,
            eye_weight=eye_weight,
        )

    def __call__(
        self, made_BTD: torch.Tensor, true_BTD: torch.Tensor, weight_BT: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss (mean over frames, weighted) and its parts."""
        error = made_BTD - true_BTD
        gap = true_BTD @ self.aperture_D
        # Closed lips are rare and the eye notices at once when they stay open: they count up to three times.
        closed = 1 + 2 * torch.sigmoid((self.closed_at - gap) / 0.1)
        total = weight_BT.sum().clamp_min(1e-6)
        latent = (((error.square() * self.weight_D).mean(-1)) * weight_BT).sum() / total
        aperture = ((error @ self.aperture_D).square() * closed * weight_BT).sum() / total
        eye = ((error @ self.eye_gap_D).square() * weight_BT).sum() / total
        loss = latent + self.aperture_weight * aperture + self.eye_weight * eye
        return loss, {"latent": latent.detach(), "aperture": aperture.detach(), "eye": eye.detach()}


def noise_level_weight(sigma: torch.Tensor) -> torch.Tensor:
    """Weight of an x0 error at a noise level: that of the velocity, held back where noise is nearly gone."""
    return 1.0 / (sigma.square() + 0.1)
