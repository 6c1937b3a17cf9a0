"""What each control does, and what else it changes: expressiveness, head motion and gaze from one end to the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.autoencoder import POSE_SIZE
from pipeline.evaluation import lips
from pipeline.evaluation.material import FPS
from pipeline.evaluation.plots import pyplot_without_screen, save_figure
from pipeline.evaluation.speaking import Manner, speak
from pipeline.evaluation.studies.long_session import minute_of_speech
from pipeline.evaluation.studies.result import Study
from pipeline.evaluation.studies.speakers import Speakers
from pipeline.state import Controls
from pipeline.training.motion_basis import POSE_SCALE

CONTROLS = ("expressiveness", "head_motion", "gaze")
SETTLE_FRAMES = 10 * FPS
"""A gaze needs seconds until the head's rest is known."""
QUICK_HZ = (0.3, 4.0)
MEASURES = {
    "opening_percent": "lip opening, p95 (% of face height)",
    "expression_spread": "spread of the expression",
    "head_speed": "head speed, 0.3 to 4 Hz (degrees / s)",
    "gaze_off": "face turned from the viewer, rms (degrees)",
    "lip_correlation": "lip correlation, reference motion",
}


def head_speed(pose_TP: NDArray[np.float32]) -> float:
    """Root mean square angular speed in the band where heads move, degrees a second."""
    angles = np.degrees(pose_TP[:, :3] * POSE_SCALE[:3])
    spectrum = np.fft.rfft(np.diff(angles, axis=0) * FPS, axis=0)
    frequency = np.fft.rfftfreq(len(angles) - 1, 1 / FPS)
    spectrum[(frequency < QUICK_HZ[0]) | (frequency >= QUICK_HZ[1])] = 0
    speed = np.fft.irfft(spectrum, len(angles) - 1, axis=0)
    return float(np.sqrt((speed**2).sum(1).mean()))


def gaze_off(pose_TP: NDArray[np.float32]) -> float:
    """Root mean square angle by which yaw and pitch turn the face from where the portrait has it, in degrees."""
    angles = np.degrees(pose_TP[:, :2] * POSE_SCALE[:2])
    return float(np.sqrt((angles**2).sum(1).mean()))


def figures(speakers: Speakers, controls: Controls, seed: int) -> dict[str, float]:
    """Means over the portraits, each speaking a minute."""
    pcm, reference = minute_of_speech(speakers)
    count = len(speakers.portraits)
    seeds = [speakers.settings.seed + 1000 * seed + i for i in range(count)]
    made = speak(
        speakers.pipe, speakers.z_refs, np.repeat(pcm[None], count, 0), speakers.window, seeds,
        Manner(controls=controls),
    ).float().cpu().numpy()  # fmt: skip
    scale = speakers.pipe.denoiser.latent_scale.float().cpu().numpy()
    z_refs = speakers.z_refs.float().cpu().numpy()
    apertures = [speakers.reading.aperture(z, ref) for z, ref in zip(made, z_refs, strict=True)]
    poses = made[:, SETTLE_FRAMES:, -POSE_SIZE:]
    spreads = (made[:, SETTLE_FRAMES:] / scale)[..., :-POSE_SIZE].std(1).mean(1)
    return {
        "opening_percent": 100 * float(np.mean([np.percentile(a, 95) for a in apertures])),
        "expression_spread": float(spreads.mean()),
        "head_speed": float(np.mean([head_speed(pose) for pose in poses])),
        "gaze_off": float(np.mean([gaze_off(pose) for pose in poses])),
        "lip_correlation": float(np.mean([lips.correlation(reference, a) for a in apertures])),
    }


def study(speakers: Speakers, out: Path) -> Study:
    """Moves one control at a time, the others in the middle; several seeds each."""
    rows: list[dict[str, Any]] = []
    for control in CONTROLS:
        for value in speakers.settings.slider_values:
            runs = [
                figures(speakers, Controls(**{control: value}), seed)
                for seed in range(speakers.settings.slider_seeds)
            ]
            means = {name: float(np.mean([run[name] for run in runs])) for name in MEASURES}
            rows.append({"control": control, "value": value, **means})
    return Study(
        name="controls",
        title="Controls",
        rows=rows,
        notes=[
            f"{len(speakers.portraits)} portraits speak a minute with each of {speakers.settings.slider_seeds} seeds; "
            "one control moves, the others stay at 1. Spread: of the expression latents, in training spreads.",
            "The eyes do not turn in the head: the motion latent knows lids and brows, but no gaze (moving any latent "
            "by three spreads shifts no iris by more than 2 % of an eye's width). The slider steadies the face.",
        ],
        pictures={plot(rows, out / "controls.png").name: "What each slider changes"},
    )


def plot(rows: Sequence[dict[str, Any]], path: Path) -> Path:
    pyplot = pyplot_without_screen()
    figure, axes = pyplot.subplots(1, len(MEASURES), figsize=(19, 3.6))
    for axis, (measure, title) in zip(axes, MEASURES.items(), strict=True):
        for control in CONTROLS:
            points = [row for row in rows if row["control"] == control]
            axis.plot(
                [p["value"] for p in points],
                [p[measure] for p in points],
                "o-",
                ms=4,
                label=control.replace("_", " "),
            )
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("slider")
        axis.set_ylim(0, None)
        axis.grid(alpha=0.25)
    axes[0].legend(fontsize=8)
    return save_figure(pyplot, figure, path)
