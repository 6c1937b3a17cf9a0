"""From the motion that the denoiser makes chunk by chunk to the motion that is shown: no borders, a head that rests and
does not quiver, and lips in time.

What is shown is not fed back: the denoiser remembers its own frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pipeline.autoencoder import POSE_SIZE

LEAN = 0.05
"""How far the first frame of a chunk leans back to the frame before it."""
LIPS = slice(0, 3)
"""The most visible directions of the motion basis: jaw and lips. The next one is the lids."""
LIP_LEADS = (1.0, 0.75, 0.25)
"""In frames, by look-ahead, for chunks of one frame: lips run ahead along their own course, because who hears less of
what comes is late. On held-out speech they are then -0.25 (GRID) and -0.07 frames (Kokoro) late with a look-ahead of
two instead of -0.11 and +0.10, -0.48 and -0.19 with one instead of -0.10 and +0.25; a /pa/ out of silence opens them
5 to 10 ms sooner. Correlation falls by 0.01 and 0.04."""
HEAD_GAIN = 1.6
"""How much further from its rest the head goes than the denoiser says: it says 0.6 of the recorded speaker's speed."""
HEAD_SHARE = 0.6
"""Of the way to where the denoiser says, that the head goes in a frame, twice in a row. What few steps leave of the
noise makes heads quiver above 6 Hz, where real ones hardly move (9 to 13 Hz: 28 times the recorded speaker's motion):
this keeps 0.9 of what is slower than 2 Hz and a fifth of that, and the head is 50 ms behind, which nobody sees."""
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
    """last_BD: the last frame shown, made_BD: as it was made, centre_BP: where the head has been of late, head_2BP: how
    far it is from there, smoothed once and twice (B sessions, P numbers of pose)."""

    last_BD: torch.Tensor
    made_BD: torch.Tensor
    centre_BP: torch.Tensor
    head_2BP: torch.Tensor

    @staticmethod
    def start(z_ref_BD: torch.Tensor) -> ShownMotion:
        """Before the first frame there is the portrait itself."""
        rest_BP = torch.zeros_like(z_ref_BD[:, -POSE_SIZE:])
        return ShownMotion(z_ref_BD, z_ref_BD, rest_BP, torch.stack([rest_BP, rest_BP]))

    def then(
        self, z_BTD: torch.Tensor, right_frames: int, gaze: float = 1.0
    ) -> tuple[torch.Tensor, ShownMotion]:
        """What is shown of a new chunk [B,T,D], made with this look-ahead, and the value for the chunk after it.

        With few steps the frames of one chunk agree with each other better than with the chunk before: motion across a
        border was 1.09 of that inside, and is 1.0 with the lean; lips follow the voice as well as without. Chunks of
        one frame have nothing inside to agree with, and their lips run ahead instead.
        """
        made_BD = z_BTD[:, -1]
        if z_BTD.shape[1] == 1:
            z_BTD = self._run_ahead(z_BTD, LIP_LEADS[min(right_frames, len(LIP_LEADS) - 1)])
        shown, centre, weight = [], self.centre_BP, 1 / centring_frames(gaze)
        once, twice = self.head_2BP.unbind()
        for z_BD in z_BTD.unbind(1):
            pose = z_BD[:, -POSE_SIZE:]
            centre = torch.lerp(centre, pose, weight)
            once = torch.lerp(once, pose - centre, HEAD_SHARE)
            twice = torch.lerp(twice, once, HEAD_SHARE)
            shown.append(torch.cat([z_BD[:, :-POSE_SIZE], HEAD_GAIN * twice], 1))
        if len(shown) > 1:
            shown[0] = torch.lerp(shown[0], self.last_BD, LEAN)
        state = ShownMotion(shown[-1], made_BD, centre, torch.stack([once, twice]))
        return torch.stack(shown, 1), state

    def _run_ahead(self, z_B1D: torch.Tensor, frames: float) -> torch.Tensor:
        ahead = z_B1D.clone()
        ahead[..., LIPS] += frames * (z_B1D[..., LIPS] - self.made_BD[:, None, LIPS])
        return ahead
