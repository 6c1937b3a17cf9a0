"""Distils the teacher to few steps, on the student's own rollouts (self-forcing).

The student speaks on from its own past with `denoise_chunk`, as in a session. Then, for every chunk of what
it made, teacher and student start from the same noise and the same past: the student must land in its few
steps where the teacher lands in many. So it learns in exactly the situations that its own errors lead to.

    python -m pipeline.training.student --config configs/train/student.yaml
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from pipeline.denoiser import Denoiser
from pipeline.sampler import denoise
from pipeline.scheduler import FlowMatchScheduler
from pipeline.training.consistency import chunk_predictor, consistency_loss
from pipeline.training.curves import Curves
from pipeline.training.losses import MotionLoss
from pipeline.training.rollout import mixed_precision, rollout
from pipeline.training.sequences import Excerpts
from pipeline.training.settings import load_settings
from pipeline.training.teacher import (
    Profile,
    ReferenceShift,
    free_running_figures,
    held_out_excerpts,
    open_sequences,
)
from pipeline.training.trainee import Trainee

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StudentSettings:
    """configs/train/student.yaml. `method` is a key of METHODS, or CONSISTENCY."""

    minutes: float
    method: str
    train_corpora: list[str]
    held_out_corpora: list[str]
    batch: int
    frames: int
    updates_per_rollout: int
    learning_rate: float
    weight_decay: float
    average_decay: float
    teacher_steps: int
    student_steps: int
    reference_shift: float
    style_dropout: float
    aperture_weight: float
    eye_weight: float
    recorded_share: float
    border_weight: float
    check_every_s: float
    seed: int
    threads: int


def sample_all_chunks(
    denoiser: Denoiser,
    scheduler: FlowMatchScheduler,
    excerpts: Excerpts,
    past_BTD: torch.Tensor,
    noise_BTD: torch.Tensor,
    profile: Profile,
    steps: int,
) -> torch.Tensor:
    """Normalised [B, T, D]: what `denoise_chunk` makes of each chunk, had the session gone as `past` says."""
    return denoise(chunk_predictor(denoiser, excerpts, past_BTD, profile), scheduler, noise_BTD, steps)


def trajectory_goal(
    goal_BTD: torch.Tensor, recorded_BTD: torch.Tensor, mouth_DD: torch.Tensor, share_T: torch.Tensor
) -> torch.Tensor:
    """Where the teacher lands."""
    return goal_BTD


def anchored_goal(
    goal_BTD: torch.Tensor, recorded_BTD: torch.Tensor, mouth_DD: torch.Tensor, share_T: torch.Tensor
) -> torch.Tensor:
    """Where the teacher lands, but the mouth goes a share of the way to the recording.

    Eyes and head may differ from the recording as chance has it; what the lips do is in the audio. So their
    share of chance shrinks, and the sync with the voice grows.
    """
    return goal_BTD + share_T[:, None] * ((recorded_BTD - goal_BTD) @ mouth_DD)


Goal = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
METHODS: dict[str, Goal] = {"trajectory": trajectory_goal, "anchored": anchored_goal}
CONSISTENCY = "consistency"
"""The method that sets no goal at the end of a path: pipeline.training.consistency."""


def student_loss(
    student: Denoiser,
    teacher: Denoiser,
    scheduler: FlowMatchScheduler,
    excerpts: Excerpts,
    past_BTD: torch.Tensor,
    profile: Profile,
    measure: MotionLoss,
    mouth_DD: torch.Tensor,
    settings: StudentSettings,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Same noise, same past: the end of the student's short path against the goal that `method` sets.

    mouth_DD projects differences of normalised latents onto the mouth.
    """
    noise = torch.randn_like(past_BTD)
    # A chunk joins the one before it: its first frame is pulled less and counts more than its last.
    place_T = torch.arange(past_BTD.shape[1], device=past_BTD.device) % profile.hop_frames
    share_T = settings.recorded_share * (place_T + 1) / profile.hop_frames
    weight_T = 1 + (settings.border_weight - 1) * (place_T == 0)
    recorded = teacher.normalize(excerpts.z_BTD[:, : past_BTD.shape[1]])
    with torch.no_grad():
        landed = sample_all_chunks(
            teacher, scheduler, excerpts, past_BTD, noise, profile, settings.teacher_steps
        )
        goal = METHODS[settings.method](landed, recorded, mouth_DD, share_T)
        valid = excerpts.valid_BT[:, : past_BTD.shape[1], None]
        goal = torch.where(valid, goal, landed)
    made = sample_all_chunks(student, scheduler, excerpts, past_BTD, noise, profile, settings.student_steps)
    return measure(made, goal, weight_T.expand_as(goal[..., 0]))


def train(settings: StudentSettings, runs: Path, data: Path, name: str = "student") -> None:
    """Runs for `settings.minutes` in total over all calls; reads runs/teacher/, writes the folder `name` of runs/."""
    if settings.method not in (*METHODS, CONSISTENCY):
        known = ", ".join((*METHODS, CONSISTENCY))
        raise ValueError(f"There is no method '{settings.method}'; the methods are {known}.")
    torch.set_num_threads(settings.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    out = runs / name
    sequences, held_out_sequences = open_sequences(settings, runs, data)
    basis = sequences.basis
    held_out = held_out_excerpts(held_out_sequences)

    teacher, student = (
        Denoiser.from_pretrained(runs / "teacher", low_cpu_mem_usage=False).to(device) for _ in range(2)
    )
    teacher.requires_grad_(False).eval()
    trainee = Trainee(
        student.train(),
        out,
        budget_s=settings.minutes * 60,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        average_decay=settings.average_decay,
    )
    scheduler = FlowMatchScheduler(num_inference_steps=settings.student_steps)
    measure = MotionLoss.of(
        basis, teacher, torch.from_numpy(sequences.latents()),
        aperture_weight=settings.aperture_weight, eye_weight=settings.eye_weight,
    )  # fmt: skip
    shift = ReferenceShift(basis, teacher.latent_scale, settings.reference_shift)
    torch.manual_seed(settings.seed + trainee.step)
    rng = np.random.default_rng(settings.seed + trainee.step)
    curves = Curves(out / "curves.json", title=f"Student ({settings.method})")
    progress, checked_s = curves.progress(trainee.budget_s, initial=trainee.elapsed_s), trainee.elapsed_s
    whole_frames = settings.frames // 2 * 2

    def check() -> None:
        figures = free_running_figures(
            trainee.averaged, scheduler, held_out, basis, steps=settings.student_steps, profile=Profile(2, 2)
        )
        curves.add("held_out", trainee.step, figures)
        progress.note(
            f"step {trainee.step}: " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
        )
        trainee.save()
        curves.save()

    teacher_figures = free_running_figures(
        teacher, scheduler, held_out, basis, steps=settings.teacher_steps, profile=Profile(2, 2)
    )
    curves.add("teacher", trainee.step, teacher_figures)
    progress.note("teacher: " + ", ".join(f"{name} {value:.3f}" for name, value in teacher_figures.items()))
    scale = teacher.latent_scale
    mouth_DD = scale[:, None] * torch.from_numpy(sequences.mouth_projection()).to(device) / scale
    while (elapsed_s := trainee.elapsed_s) < trainee.budget_s:
        excerpts = shift(sequences.draw(settings.batch, whole_frames))
        style = excerpts.style_BK
        style.masked_fill_(torch.rand(style.shape, device=device) < settings.style_dropout, -1.0)
        unstated = torch.rand(len(style), 1, device=device) < settings.style_dropout
        excerpts.lids_BT.masked_fill_(unstated, -1.0)
        profile = Profile.draw(rng)
        past = rollout(
            student, scheduler, excerpts,
            noise_BTD=torch.randn_like(excerpts.z_BTD),
            hop_frames=profile.hop_frames, right_frames=profile.right_frames,
        )  # fmt: skip
        for _ in range(settings.updates_per_rollout):
            with mixed_precision(device):
                if settings.method == CONSISTENCY:
                    loss, parts = consistency_loss(
                        student, trainee.averaged, teacher, scheduler, excerpts, past, profile, measure,
                        settings.teacher_steps,
                    )  # fmt: skip
                else:
                    loss, parts = student_loss(
                        student, teacher, scheduler, excerpts, past, profile, measure, mouth_DD, settings
                    )
            trainee.update(loss)
            curves.add("train", trainee.step, {"loss": loss.detach(), **parts})
        progress.update_to(trainee.elapsed_s, step=trainee.step)
        if elapsed_s - checked_s >= settings.check_every_s:
            checked_s = elapsed_s
            check()
    check()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=Path("configs/train/student.yaml"))
    parser.add_argument("--method", help="another method than the config's, to compare on the same budget")
    parser.add_argument("--name", default="student", help="folder below --runs that is written")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = load_settings(StudentSettings, arguments.config)
    if arguments.method:
        settings = replace(settings, method=arguments.method)
    train(settings, arguments.runs, arguments.data, arguments.name)


if __name__ == "__main__":
    main()
