"""Trains the denoiser as a many-step flow-matching teacher on recorded motion.

Every frame is there twice: clean, as the context that later chunks see, and noisy, to be restored. A mask
gives each noisy chunk the clean frames that a session's ring would hold at that moment, so one pass trains
all chunks. Hop and right context vary from batch to batch, so one set of weights serves every latency profile.

    python -m pipeline.training.teacher --config configs/train/teacher.yaml
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from pipeline.audio_encoder import AudioEncoder
from pipeline.denoiser import LEFT_SLOTS, Denoiser
from pipeline.scheduler import FlowMatchScheduler
from pipeline.training.curves import Curves
from pipeline.training.losses import MotionLoss, noise_level_weight
from pipeline.training.motion_file import expression_names
from pipeline.training.rollout import MotionFigures, mixed_precision, rollout
from pipeline.training.sequences import Basis, Excerpts, Sequences
from pipeline.training.settings import load_settings
from pipeline.training.trainee import Trainee

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """configs/train/teacher.yaml."""

    minutes: float
    model: str
    train_corpora: list[str]
    held_out_corpora: list[str]
    batch: int
    frames: int
    learning_rate: float
    weight_decay: float
    average_decay: float
    context_noise: float
    reference_noise: float
    reference_shift: float
    style_dropout: float
    audio_dropout: float
    aperture_weight: float
    eye_weight: float
    sampling_steps: int
    check_every_s: float
    seed: int
    threads: int


@dataclass(frozen=True)
class Profile:
    """Hop and right context of one batch, as a session would choose them."""

    hop_frames: int
    right_frames: int

    @staticmethod
    def draw(rng: np.random.Generator) -> Profile:
        return Profile(1 + int(rng.random() < 0.5), 1 + int(rng.random() < 0.65))


class ReferenceShift:
    """Moves whole excerpts, reference included, along directions that leave lip and lid gap alone.

    So the model learns that a portrait's resting expression is where its motion starts from.
    """

    def __init__(self, basis: Basis, scale_D: torch.Tensor, amount: float) -> None:
        gaps = torch.from_numpy(np.stack([basis.aperture, basis.eye_gap], 1)).to(scale_D)
        orthonormal, _ = torch.linalg.qr(gaps)
        self._project = torch.eye(len(scale_D), device=scale_D.device) - orthonormal @ orthonormal.T
        self._spread = amount * scale_D.clone()
        self._spread[basis.n_expression :] = 0.0

    def __call__(self, excerpts: Excerpts) -> Excerpts:
        shift = (torch.randn_like(excerpts.z_ref_BD) * self._spread) @ self._project
        return replace(excerpts, z_BTD=excerpts.z_BTD + shift[:, None], z_ref_BD=excerpts.z_ref_BD + shift)


def teacher_loss(
    denoiser: Denoiser,
    scheduler: FlowMatchScheduler,
    excerpts: Excerpts,
    profile: Profile,
    measure: MotionLoss,
    settings: TeacherSettings,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Flow matching on all chunks of the excerpts at once; one noise level per chunk."""
    batch, frames, _ = excerpts.z_BTD.shape
    device, hop = excerpts.z_BTD.device, profile.hop_frames
    x0 = denoiser.normalize(excerpts.z_BTD)
    style = excerpts.style_BK
    style = torch.where(torch.rand(style.shape, device=device) < settings.style_dropout, -1.0, style)
    reference = excerpts.z_ref_BD
    reference = reference + settings.reference_noise * denoiser.latent_scale * torch.randn_like(reference)
    session = denoiser.embed_session(reference, style)
    heard = excerpts.features_BTF[:, : LEFT_SLOTS + frames + profile.right_frames]
    deaf = torch.rand(batch, 1, 1, device=device) < settings.audio_dropout
    unstated = torch.rand(batch, 1, device=device) < settings.style_dropout
    lids = torch.where(unstated, -1.0, excerpts.lids_BT)
    audio = denoiser.embed_audio(torch.where(deaf, 0.0, heard), profile.right_frames, lids)

    # What the model reads back in a session are its own frames: not quite as clean as recorded ones.
    dirt = settings.context_noise * torch.rand(batch, 1, 1, device=device)
    clean = x0 + dirt * torch.randn_like(x0)
    # A quarter of the chunks starts from noise alone, where few-step sampling decides most.
    chunks = -(-frames // hop)
    level = torch.sigmoid(torch.randn(batch, chunks, device=device))
    level = torch.where(torch.rand(batch, chunks, device=device) < 0.25, 1.0, level)
    sigma = level.repeat_interleave(hop, 1)[:, :frames]
    noisy = scheduler.add_noise(x0, torch.randn_like(x0), sigma[..., None])

    context = denoiser.encode_sequence(clean, audio, session, hop)
    made = denoiser.predict_sequence(noisy, sigma, audio, session, context, hop)
    return measure(made, x0, noise_level_weight(sigma) * excerpts.valid_BT)


@torch.no_grad()
def free_running_figures(
    denoiser: Denoiser,
    scheduler: FlowMatchScheduler,
    held_out: Excerpts,
    basis: Basis,
    *,
    steps: int,
    profile: Profile,
) -> dict[str, float]:
    """Figures of a rollout on held-out speech, with noise that is the same every time."""
    generator = torch.Generator().manual_seed(0)
    frames = held_out.z_BTD.shape[1] // profile.hop_frames * profile.hop_frames
    noise = torch.randn(len(held_out.z_BTD), frames, denoiser.latent_size, generator=generator)
    made = rollout(
        denoiser,
        scheduler,
        held_out,
        noise_BTD=noise.to(held_out.z_BTD.device),
        hop_frames=profile.hop_frames,
        right_frames=profile.right_frames,
        num_inference_steps=steps,
    )
    return asdict(MotionFigures.of(made, held_out, basis))


def open_sequences(settings: Any, runs: Path, data: Path) -> tuple[Sequences, Sequences]:
    """Training and held-out excerpts of the corpora that exist, heard by the trained audio encoder."""
    torch.set_float32_matmul_precision("high")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = AudioEncoder.from_pretrained(runs / "audio_encoder", low_cpu_mem_usage=False).eval().to(device)
    names = expression_names(data)
    opened = []
    for corpora in (settings.train_corpora, settings.held_out_corpora):
        present = [name for name in corpora if (runs / "motion" / f"{name}.npz").is_file()]
        if missing := set(corpora) - set(present):
            logger.warning("No motion for %s below %s: left out.", ", ".join(sorted(missing)), runs)
        opened.append(
            Sequences(
                present, runs=runs, encoder=encoder, expression_names=names,
                worse=corpora == settings.train_corpora,
            )
        )  # fmt: skip
    return opened[0], opened[1]


def held_out_excerpts(sequences: Sequences) -> Excerpts:
    """The same 2.5 s of 128 held-out clips in every run, whatever was drawn before."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return sequences.draw(128, 64, listening=0.0)


def new_denoiser(model: Path, latents_ND: np.ndarray[Any, np.dtype[np.float32]]) -> Denoiser:
    """An untrained denoiser as the model config says, normalising with these latents' mean and spread."""
    denoiser = Denoiser(**yaml.safe_load(model.read_text())["denoiser"])
    spread = latents_ND.std(0)
    denoiser.latent_mean.copy_(torch.from_numpy(latents_ND.mean(0)))
    denoiser.latent_scale.copy_(torch.from_numpy(np.maximum(spread, 0.05 * spread.max())))
    return denoiser


def train(settings: TeacherSettings, runs: Path, data: Path) -> None:
    """Runs for `settings.minutes` in total over all resumed calls; writes runs/teacher/."""
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    out = runs / "teacher"
    sequences, held_out_sequences = open_sequences(settings, runs, data)
    basis, latents = sequences.basis, sequences.latents()
    held_out = held_out_excerpts(held_out_sequences)

    trainee = Trainee(
        new_denoiser(Path(settings.model), latents).to(device),
        out,
        budget_s=settings.minutes * 60,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        average_decay=settings.average_decay,
    )
    denoiser, scheduler = trainee.denoiser, FlowMatchScheduler()
    measure = MotionLoss.of(
        basis, denoiser, torch.from_numpy(latents),
        aperture_weight=settings.aperture_weight, eye_weight=settings.eye_weight,
    )  # fmt: skip
    shift = ReferenceShift(basis, denoiser.latent_scale, settings.reference_shift)
    torch.manual_seed(settings.seed + trainee.step)
    rng = np.random.default_rng(settings.seed + trainee.step)
    curves = Curves(out / "curves.json", title="Teacher")
    progress, checked_s = curves.progress(trainee.budget_s, initial=trainee.elapsed_s), trainee.elapsed_s

    def check() -> None:
        many, few = (
            free_running_figures(
                trainee.averaged, scheduler, held_out, basis, steps=steps, profile=Profile(2, 2)
            )
            for steps in (settings.sampling_steps, 2)
        )
        curves.add("held_out", trainee.step, many)
        curves.add("held_out_2_steps", trainee.step, few)
        figures = ", ".join(f"{name} {many[name]:.3f} ({few[name]:.3f})" for name in many)
        progress.note(f"step {trainee.step}, {settings.sampling_steps} steps (2 steps): {figures}")
        trainee.save()
        curves.save()

    while (elapsed_s := trainee.elapsed_s) < trainee.budget_s:
        excerpts = shift(sequences.draw(settings.batch, settings.frames))
        with mixed_precision(device):
            loss, parts = teacher_loss(denoiser, scheduler, excerpts, Profile.draw(rng), measure, settings)
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
    parser.add_argument("--config", type=Path, default=Path("configs/train/teacher.yaml"))
    parser.add_argument("--model", type=Path, help="a wider network: configs/model/*.yaml")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = load_settings(TeacherSettings, arguments.config)
    if arguments.model:
        settings = replace(settings, model=str(arguments.model))
    train(settings, arguments.runs, arguments.data)


if __name__ == "__main__":
    main()
