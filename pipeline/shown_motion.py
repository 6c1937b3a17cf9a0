"""From the motion that the denoiser makes chunk by chunk to the motion that is shown: no borders, and a head at rest.

What is shown is not fed back: the denoiser remembers its own frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pipeline.autoencoder import POSE_SIZE

LEAN = 0.1
"""How far the first frame of a chunk leans back to the frame before it."""
CENTRING_FRAMES = 100
"""The head's mean position over about the last 4 s counts as its rest, so that it moves around the portrait's own."""


def centring_frames(gaze: float) -> float:
    """Over how many frames, for a gaze of 0 (wandering) to 2 (steady): 16 s, 4 s, 1 s.

    The latent knows no eyes that turn in the head, so where somebody looks is where the face points. A shorter memory
    leaves nods and takes drifts.
    """
    return float(CENTRING_FRAMES * 4 ** (1 - gaze))


@dataclass(frozen=True, eq=False)
class ShownMotion:
    """last_BD: the last frame shown, centre_BP: where the head has been of late (B sessions, P numbers of pose)."""

    last_BD: torch.Tensor
    centre_BP: torch.Tensor

    @staticmethod
    def start(z_ref_BD: torch.Tensor) -> ShownMotion:
        """Before the first frame there is the portrait itself."""
        return ShownMotion(z_ref_BD, torch.zeros_like(z_ref_BD[:, -POSE_SIZE:]))

    def then(self, z_BTD: torch.Tensor, gaze: float = 1.0) -> tuple[torch.Tensor, ShownMotion]:
        """What is shown of a new chunk [B,T,D], and the value for the chunk after it.

        With few steps the frames of one chunk agree with each other better than with the chunk before: motion across a
        border was 1.15 of that inside, and is 0.99 with the lean; lips follow the voice as well as without.
        """
        shown, centre, weight = [], self.centre_BP, 1 / centring_frames(gaze)
        for z_BD in z_BTD.unbind(1):
            pose = z_BD[:, -POSE_SIZE:]
            centre = torch.lerp(centre, pose, weight)
            shown.append(torch.cat([z_BD[:, :-POSE_SIZE], pose - centre], 1))
        shown[0] = torch.lerp(shown[0], self.last_BD, LEAN)
        return torch.stack(shown, 1), ShownMotion(shown[-1], centre)
