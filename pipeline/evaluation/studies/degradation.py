"""How well the lips follow a voice as it gets worse: noise of four kinds, level and clipping, codec, rooms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.material import Clip
from pipeline.evaluation.plots import pyplot_without_screen, save_figure
from pipeline.evaluation.speaking import Manner
from pipeline.evaluation.studies import sounds
from pipeline.evaluation.studies.result import Study
from pipeline.evaluation.studies.settings import StudySettings
from pipeline.evaluation.studies.speakers import Change, Speakers

NOISES = ("white", "pink", "babble", "hum")
UNRAISED = "peak level, not raised"
"""The same sound to a model that hears it as it comes: what pipeline.hearing is worth."""


def noise_for(kind: str, clips: Sequence[Clip], index: int, settings: StudySettings) -> sounds.Sound:
    """Noise as long as clip `index`; babble is of other speakers' clips only. The same on every call."""
    clip = clips[index]
    rng = np.random.default_rng([settings.seed, NOISES.index(kind), index])
    if kind != "babble":
        return {"white": sounds.white, "pink": sounds.pink, "hum": sounds.hum}[kind](len(clip.pcm), rng)
    others = [other.pcm for other in clips if other.corpus == "kokoro" and speaker(other) != speaker(clip)]
    if not others:
        raise ValueError("Babble needs clips of another speaker; raise kokoro_clips.")
    chosen = rng.permutation(len(others))[: settings.babble_voices]
    return sounds.babble([others[i] for i in chosen], len(clip.pcm), rng)


def speaker(clip: Clip) -> str:
    """Kokoro clips carry the voice's name behind their number; GRID's are all of one speaker."""
    return clip.name.partition("_")[2] if clip.corpus == "kokoro" else clip.corpus


def conditions(
    clips: Sequence[Clip], settings: StudySettings
) -> Iterator[tuple[dict[str, Any], Change | None]]:
    """Every point of every curve: what it is called, and what is heard."""
    yield {"kind": "clean", "amount": "clean"}, None
    for kind in NOISES:
        for snr_db in settings.snrs_db:

            def noisy(clip: Clip, index: int, kind: str = kind, snr_db: float = snr_db) -> sounds.Sound:
                return sounds.with_noise(clip.pcm, noise_for(kind, clips, index, settings), snr_db)

            yield {"kind": kind, "amount": snr_db}, noisy
    for peak in settings.peaks_dbfs:

        def levelled(clip: Clip, index: int, peak: float = peak) -> sounds.Sound:
            return sounds.at_level(clip.pcm, peak)

        yield {"kind": "peak level", "amount": peak}, levelled
        yield {"kind": UNRAISED, "amount": peak}, levelled
    for rate in settings.bit_rates:

        def coded(clip: Clip, index: int, rate: int = rate) -> sounds.Sound:
            return sounds.through_opus(clip.pcm, rate)

        yield {"kind": "opus", "amount": rate / 1000}, coded
    for rt60_s, direct_db in settings.rooms:

        def reverberant(
            clip: Clip, index: int, rt60_s: float = rt60_s, direct_db: float = direct_db
        ) -> NDArray[np.float32]:
            rng = np.random.default_rng([settings.seed, 9, index])
            return sounds.in_room(clip.pcm, sounds.room_response(rt60_s, direct_db, rng))

        yield {"kind": "room", "amount": rt60_s, "direct_db": direct_db}, reverberant


def study(speakers: Speakers, out: Path) -> Study:
    """Speaks all clips under every condition."""
    rows: list[dict[str, Any]] = []
    for point, change in conditions(speakers.clips, speakers.settings):
        rows.append(
            point | speakers.figures(speakers.speak(Manner(raised=point["kind"] != UNRAISED), change))
        )
    return Study(
        name="degradation",
        title="Noise, level, codec and rooms",
        rows=rows,
        notes=[
            "The reference motion is that of the clean recording. Lips are read off motion latents; the reading "
            f"correlates with the judge's apertures at {speakers.reading.agreement:.2f} on takes it was not fitted to.",
            "SNR counts the voice where it speaks. amount: dB of SNR, dBFS of the highest sample (above 0 it is "
            "clipped), kbit/s, seconds of reverberation.",
        ],
        pictures={plot(rows, out / "degradation.png").name: "Lips against what happens to the voice"},
    )


def plot(rows: Sequence[dict[str, Any]], path: Path) -> Path:
    """Correlation with real lips and reference motion, and closure recall, over each amount."""
    pyplot = pyplot_without_screen()
    measures = (
        ("correlation_grid", "correlation, real lips"),
        ("correlation_kokoro", "correlation, reference motion"),
        ("closure_recall", "closure recall"),
    )
    figure, axes = pyplot.subplots(len(measures), 4, figsize=(15, 8), sharey="row")
    clean = rows[0]
    for line, (key, label) in enumerate(measures):
        for column, (kinds, name) in enumerate(
            (
                (NOISES, "SNR (dB)"),
                (("peak level", UNRAISED), "peak level (dBFS)"),
                (("opus",), "Opus (kbit/s)"),
                (("room",), "reverberation (s)"),
            )
        ):
            axis = axes[line, column]
            for kind in kinds:
                points = [row for row in rows if row["kind"] == kind]
                error = [row.get(f"{key}_error", 0.0) for row in points]
                axis.errorbar(
                    [row["amount"] for row in points], [row[key] for row in points], yerr=error, marker="o", ms=3,
                    lw=1.3, elinewidth=0.6, label=kind,
                )  # fmt: skip
            axis.axhline(clean[key], color="k", lw=0.8, ls="--", label="clean")
            axis.set_ylim(0, 1)
            axis.grid(alpha=0.25)
            if name.startswith("SNR"):
                axis.invert_xaxis()
                axis.set_ylabel(label)
            if line == len(measures) - 1:
                axis.set_xlabel(name)
            if line == 0:
                axis.legend(fontsize=7)
    return save_figure(pyplot, figure, path)
