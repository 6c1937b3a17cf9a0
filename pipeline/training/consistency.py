"""The other way to few steps: consistency distillation (arXiv 2303.01469), on the student's own rollouts.

A student that is consistent says the same clean motion from every place of the teacher's path. So it is taught to say
at one noise level what its own average says at the next, one teacher's step further; at the last step that is the
teacher's own word. No path is walked to its end, so an update costs one step of the teacher instead of all.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from pipeline.denoiser import LEFT_SLOTS, Denoiser
from pipeline.scheduler import FlowMatchScheduler
from pipeline.training.losses import MotionLoss
from pipeline.training.sequences import Excerpts
from pipeline.training.teacher import Profile

Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def chunk_predictor(
    denoiser: Denoiser, excerpts: Excerpts, past_BTD: torch.Tensor, profile: Profile
) -> Predict:
    """What `denoise_chunk` calls in each chunk, for all chunks at once, had the session gone as `past` says."""
    hop, frames = profile.hop_frames, past_BTD.shape[1]
    heard = excerpts.features_BTF[:, : LEFT_SLOTS + frames + profile.right_frames]
    audio = denoiser.embed_audio(heard, profile.right_frames, excerpts.lids_BT[:, :frames])
    session = denoiser.embed_session(excerpts.z_ref_BD, excerpts.style_BK)
    context = denoiser.encode_sequence(denoiser.normalize(past_BTD), audio, session, hop)

    def predict(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return denoiser.predict_sequence(x, sigma, audio, session, context, hop)

    return predict


def consistency_loss(
    student: Denoiser,
    averaged: Denoiser,
    teacher: Denoiser,
    scheduler: FlowMatchScheduler,
    excerpts: Excerpts,
    past_BTD: torch.Tensor,
    profile: Profile,
    measure: MotionLoss,
    levels: int,
    interval: int | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """At one of `levels` noise levels (drawn, unless `interval` names it): the student against its average one step on.

    past_BTD: the student's own rollout. Where a recording is not valid, the rollout stands in for it.
    """
    sigmas = scheduler.sigmas(levels)
    place = int(torch.randint(levels, ())) if interval is None else interval
    sigma, sigma_next = sigmas[place], sigmas[place + 1]
    valid = excerpts.valid_BT[:, : past_BTD.shape[1], None]
    recorded = torch.where(valid, excerpts.z_BTD[:, : past_BTD.shape[1]], past_BTD)
    x0 = teacher.normalize(recorded)
    level = x0.new_full((1, 1), sigma)
    x = scheduler.add_noise(x0, torch.randn_like(x0), level[..., None])
    with torch.no_grad():
        said = chunk_predictor(teacher, excerpts, past_BTD, profile)(x, level)
        goal = said
        if sigma_next > 0:
            further = scheduler.step(said, sigma, sigma_next, x)
            average = chunk_predictor(averaged, excerpts, past_BTD, profile)
            goal = average(further, x0.new_full((1, 1), sigma_next))
    made = chunk_predictor(student, excerpts, past_BTD, profile)(x, level)
    return measure(made, goal, torch.ones_like(goal[..., 0]))
