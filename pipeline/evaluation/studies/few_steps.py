"""How many denoising steps are enough: lips, distribution of motion, seams and time, for student and teacher."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.avatar_pipeline import AvatarPipeline
from pipeline.denoiser import Denoiser
from pipeline.evaluation.latent_motion import frechet_distance
from pipeline.evaluation.plots import pyplot_without_screen, save_figure
from pipeline.evaluation.speaking import Manner
from pipeline.evaluation.studies.result import Study
from pipeline.evaluation.studies.speakers import Speakers, Speech
from pipeline.sampler import denoise_motion, frame_noise

TIMED = 15


def latent_seam_ratio(
    latents: Sequence[NDArray[np.float32]], scale_D: NDArray[np.float32], hop: int
) -> float:
    """Mean change of scaled latents at chunk borders over that inside chunks; 1 is seamless."""
    border, inside = [], []
    for z_TD in latents:
        change = np.abs(np.diff(z_TD / scale_D, axis=0)).mean(1)
        at_border = np.arange(1, len(z_TD)) % hop == 0
        border.append(change[at_border])
        inside.append(change[~at_border])
    if hop < 2:
        raise ValueError("The seam ratio needs chunks of at least two frames.")
    return float(np.concatenate(border).mean() / np.concatenate(inside).mean())


def distance(made: Speech, reference: Speech) -> float:
    """Frechet distance of motion between two runs over the same clips, in units of the reference's spread."""
    many = np.concatenate(reference.latents)
    scale = many.std(axis=0) + 1e-6
    return frechet_distance(np.concatenate(made.latents) / scale, many / scale)


def halves_distance(speech: Speech) -> float:
    """The same between two halves of one run: what such a distance is by chance."""
    many = np.concatenate(speech.latents)
    scale, half = many.std(axis=0) + 1e-6, len(many) // 2
    return frechet_distance(many[:half] / scale, many[half:] / scale)


@torch.inference_mode()
def step_ms(speakers: Speakers, steps: int) -> float:
    """Median time of the denoising of one chunk of a single session whose ring is full."""
    pipe, window = speakers.pipe, speakers.window
    denoiser, hop = pipe.denoiser, speakers.window.hop_frames
    z_ref = speakers.z_refs[:1]
    session = denoiser.embed_session(z_ref, z_ref.new_tensor([[1.0, 1.0]]))
    heard = z_ref.new_zeros(1, 2 + hop + window.right_frames, denoiser.config.audio_size)
    audio = denoiser.embed_audio(heard, window.right_frames)
    filled = denoiser.context_frames
    past = denoiser.embed_audio(
        z_ref.new_zeros(1, 2 + filled + window.right_frames, denoiser.config.audio_size), window.right_frames
    )
    ring = denoiser.encode_sequence(z_ref[:, None].expand(-1, filled, -1), past, session, hop)
    noise = frame_noise(0, range(hop), denoiser.latent_size)[None].to(z_ref)
    spans = []
    for _ in range(TIMED + 3):
        started = time.perf_counter()
        denoise_motion(
            denoiser, pipe.scheduler, ring, audio_BTC=audio, session_BC=session, noise_BTD=noise,
            num_inference_steps=steps,
        )  # fmt: skip
        spans.append(1000 * (time.perf_counter() - started))
    return float(np.median(spans[3:]))


def actors(speakers: Speakers) -> Iterator[tuple[str, Speakers]]:
    """The model itself, and the same with a teacher's denoiser where one was named."""
    yield "student", speakers
    if speakers.teacher is not None:
        denoiser = Denoiser.from_pretrained(speakers.teacher, low_cpu_mem_usage=False).eval()
        pipe = AvatarPipeline(**(speakers.pipe.components | {"denoiser": denoiser}))
        yield "teacher", replace(speakers, pipe=pipe)


def study(speakers: Speakers, out: Path) -> Study:
    """Speaks all clips with every number of steps, most steps first: the last actor's are the reference."""
    steps = sorted(speakers.settings.steps, reverse=True)
    spoken = {
        (name, count): (who, who.speak(Manner(steps=count)))
        for name, who in actors(speakers)
        for count in steps
    }
    names = list(dict.fromkeys(name for name, _ in spoken))
    reference = spoken[names[-1], steps[0]][1]
    rows: list[dict[str, Any]] = []
    for name in names:
        for count in reversed(steps):
            who, speech = spoken[name, count]
            rows.append(
                {
                    "actor": name,
                    "steps": count,
                    **who.figures(speech),
                    "frechet": distance(speech, reference),
                    "seam_ratio": latent_seam_ratio(
                        speech.latents,
                        who.pipe.denoiser.latent_scale.float().cpu().numpy(),
                        who.window.hop_frames,
                    ),
                    "denoise_ms": step_ms(who, count),
                    "ms_per_step": step_ms(who, count) / count,
                }
            )
    notes = [
        f"Frechet distance of motion latents to the {names[-1]} with {steps[0]} steps; between two halves of that run "
        f"it is {halves_distance(reference):.2f}. The seam ratio is one of motion latents, not of pictures.",
        "denoise_ms is for one session and one chunk, without the pass that remembers it.",
    ]
    if len(names) == 1:
        notes.append(
            "Only the student is shown: the bundle holds no teacher. --teacher FOLDER adds the teacher's curve, and "
            "then the distance is to the teacher."
        )
    picture = plot(rows, out / "few_steps.png")
    return Study(
        name="few_steps",
        title="Denoising steps",
        rows=rows,
        notes=notes,
        pictures={picture.name: "Lips, motion, seams and time over the number of steps"},
    )


def plot(rows: Sequence[dict[str, Any]], path: Path) -> Path:
    pyplot = pyplot_without_screen()
    panels = (
        ("lip correlation", ("correlation_grid", "correlation_kokoro", "closure_recall")),
        ("Frechet distance of motion", ("frechet",)),
        ("seam ratio", ("seam_ratio",)),
        ("denoising of a chunk (ms)", ("denoise_ms",)),
    )
    figure, axes = pyplot.subplots(1, len(panels), figsize=(16, 3.6))
    for axis, (title, keys) in zip(axes, panels, strict=True):
        for name, style in (("student", "o-"), ("teacher", "s--")):
            points = [row for row in rows if row["actor"] == name]
            for key in keys if points else ():
                label = name if len(keys) == 1 else f"{name}, {key.replace('_', ' ')}"
                axis.plot([r["steps"] for r in points], [r[key] for r in points], style, ms=4, label=label)
        axis.set_xscale("log", base=2)
        axis.set(title=title, xlabel="steps")
        axis.grid(alpha=0.25)
        axis.legend(fontsize=7)
    axes[3].set_yscale("log")
    return save_figure(pyplot, figure, path)
