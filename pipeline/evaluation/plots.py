"""Curves of an evaluation as PNG: apertures over the waveform, lags, head motion, silence, a long session."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.evaluation import head
from pipeline.evaluation.evidence import Evidence
from pipeline.evaluation.material import FPS, SAMPLE_RATE
from pipeline.evaluation.takes import Take

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    "model": "#d1495b",
    "rig": "#2e7d6b",
    "loudness": "#8d6cab",
    "frozen": "#999999",
    "real": "#222222",
}


def pyplot_without_screen() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(
            "Curves need matplotlib: `.venv/bin/pip install -e '.[evaluation]'` in Talkalong's folder."
        ) from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def save_figure(pyplot: Any, figure: Any, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path


def _unit(series: Any) -> Any:
    """Scaled so that 5 % and 95 % become 0 and 1: shapes are compared, not sizes."""
    low, high = np.percentile(series, [5, 95])
    return (series - low) / max(high - low, 1e-4)


def _shade_closures(axis: Axes, take: Take) -> None:
    for first, last in take.clip.closing_sounds:
        axis.axvspan(first / FPS, last / FPS, color="#4c86c6", alpha=0.18, lw=0)


def aperture_curves(evidence: Evidence, takes: Sequence[Take], path: Path) -> Path:
    """Lip opening of the model, the reference and the baselines, over the waveform; p, b, m shaded."""
    pyplot = pyplot_without_screen()
    figure, axes = pyplot.subplots(len(takes), 1, figsize=(12, 2.5 * len(takes)), squeeze=False)
    for axis, take in zip(axes[:, 0], takes, strict=True):
        seconds = np.arange(len(take.clip.pcm)) / SAMPLE_RATE
        loudest = max(float(np.abs(take.clip.pcm).max()), 1e-6)
        axis.plot(seconds[::8], 0.5 + 0.5 * take.clip.pcm[::8] / loudest, color="#d9d9d9", lw=0.5)
        _shade_closures(axis, take)
        reference = evidence.references.get(take.clip.name)
        if reference is not None:
            name = "real lips" if reference.head_path is not None else "reference motion"
            axis.plot(
                np.arange(len(reference.aperture)) / FPS, _unit(reference.aperture), "k", lw=1.6, label=name
            )
        for actor in ("loudness", "rig", "model"):
            same = [
                t for t in evidence.takes
                if (t.actor, t.portrait, t.clip.name) == (actor, take.portrait, take.clip.name)
            ]  # fmt: skip
            for other in same[:1]:
                width = 1.8 if actor == "model" else 0.9
                times = (other.first_frame + np.arange(other.frames)) / FPS
                axis.plot(times, _unit(other.aperture), color=COLOURS[actor], lw=width, label=actor)
        axis.set_ylim(-0.4, 1.6)
        axis.set_xlim(0, take.clip.frames / FPS)
        axis.set_title(
            f"{take.clip.name} spoken by portrait {take.portrait} (5 % and 95 % drawn at 0 and 1)", fontsize=9
        )
        axis.legend(fontsize=7, ncol=5, loc="upper right")
    axes[-1, 0].set_xlabel("seconds")
    return save_figure(pyplot, figure, path)


def overview(evidence: Evidence, path: Path) -> Path:
    """Correlation over lags, head velocity spectra, lips in silence, and a long session's course."""
    pyplot = pyplot_without_screen()
    figure, axes = pyplot.subplots(2, 2, figsize=(12, 7))
    lags = np.arange(-evidence.max_lag_frames, evidence.max_lag_frames + 1)
    for actor in ("loudness", "rig", "model"):
        for corpus, style in (("grid", "-"), ("kokoro", "--")):
            curves = [c for c in map(evidence.lag_curve, evidence.of(actor, corpus)) if c is not None]
            if curves:
                axes[0, 0].plot(
                    lags, np.mean(curves, axis=0), style, color=COLOURS[actor], label=f"{actor}, {corpus}"
                )
    axes[0, 0].axvline(0, color="k", lw=0.5)
    axes[0, 0].set(title="lip correlation over lag (frames, + = late)")

    real = [r.head_path for r in evidence.references.values() if r.head_path is not None]
    paths = {"real": real} | {
        a: [t.head_path for t in evidence.of(a, "grid", "kokoro", "long")] for a in ("model", "rig")
    }
    for name, group in paths.items():
        if any(len(p) >= head.SEGMENT_FRAMES for p in group):
            frequencies, power = head.velocity_spectrum(group)
            axes[0, 1].semilogy(frequencies[1:], power[1:] + 1e-12, color=COLOURS[name], label=name)
    axes[0, 1].axvspan(*head.HEAD_BAND_HZ, color="#4c86c6", alpha=0.1, lw=0)
    axes[0, 1].set(title="head velocity spectrum", xlabel="Hz")

    for take in evidence.of("model", "silence"):
        axes[1, 0].plot(
            np.arange(take.frames) / FPS, 100 * take.aperture, lw=1, label=f"portrait {take.portrait}"
        )
    axes[1, 0].set(title="lips in silence (% of face height)", xlabel="seconds")
    speaking = [100 * np.percentile(t.aperture, 95) for t in evidence.of("model", "grid", "kokoro")]
    axes[1, 0].set_ylim(0, max([5.0, *speaking]))

    long_run = evidence.of("model", "long")
    if long_run:
        course = axes[1, 1]
        identity, sharpness, colours = (
            np.concatenate([getattr(t, name) for t in long_run])
            for name in ("identity", "sharpness", "colours")
        )
        minutes = long_run[-1].first_frame + long_run[-1].frames
        for name, series in (
            ("identity distance", identity), ("sharpness", sharpness),
            ("colour / its start", np.linalg.norm(colours, axis=1) / np.linalg.norm(colours[:5].mean(0))),
        ):  # fmt: skip
            course.plot(np.linspace(0, minutes / FPS / 60, len(series)), series, lw=1, label=name)
        course.set_ylim(0, 1.4)
        course.set(title="one long session", xlabel="minutes")
    for axis in axes.flat:
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=7)
    return save_figure(pyplot, figure, path)
