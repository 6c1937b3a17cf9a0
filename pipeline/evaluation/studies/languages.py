"""Voices that the training never heard the like of: other languages, and singing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation import festival, lips
from pipeline.evaluation.material import Clip, MaterialError
from pipeline.evaluation.plots import pyplot_without_screen, save_figure
from pipeline.evaluation.studies.result import Study
from pipeline.evaluation.studies.speakers import Speakers, recall

logger = logging.getLogger(__name__)

DRAWS = 50
OPEN_VOWEL = "a"

Spoken = Sequence[tuple[Clip, NDArray[np.float64]]]


def study(speakers: Speakers, out: Path) -> Study:
    """Every voice of Festival that is installed; raises MaterialError if there is none."""
    rows: list[dict[str, Any]] = []
    shown: dict[str, tuple[Clip, NDArray[np.float64]]] = {}
    for voice in festival.VOICES:
        if not festival.available(voice):
            logger.warning("Festival's voice %s (%s) is not installed", voice.name, voice.language)
            continue
        clips = festival.clips(voice)
        spoken = replace(speakers, clips=clips).speak().of("festival")
        rows.append({"voice": voice.language, **figures(spoken, speakers.settings.seed)})
        shown[voice.language] = spoken[0]
    if not rows:
        raise MaterialError(
            "The study of languages needs Festival and voices of it; pipeline/evaluation/festival.py names them."
        )
    return Study(
        name="languages",
        title="Other languages, and singing",
        rows=rows,
        notes=[
            "Voices are Festival's: pieces of recorded speech, joined, with the time of every sound. by_chance: the "
            "same closures, looked for at other times. Openings, in percent of the face height: the least in p, b, m, "
            "and in the middle of vowels written a (aa, a1, ...).",
        ],
        pictures={plot(rows, shown, out / "languages.png").name: "Closures found, and lips over time"},
    )


def figures(spoken: Spoken, seed: int) -> dict[str, float]:
    """Closure recall, what it would be by chance, and how far lips part in open vowels and in closures."""
    rng = np.random.default_rng(seed)
    by_chance = [recall([(_shifted(clip, rng), aperture) for clip, aperture in spoken]) for _ in range(DRAWS)]
    vowels, closures = [], []
    for clip, aperture in spoken:
        for sound in clip.sounds:
            if sound.label.startswith(OPEN_VOWEL):
                vowels.append(aperture[min((sound.first + sound.last) // 2, len(aperture) - 1)])
        closures += [aperture[max(first - 1, 0) : last + 1].min() for first, last in clip.closing_sounds]
    return {
        "closure_recall": recall(spoken),
        "by_chance": float(np.mean(by_chance)),
        "closures": len(closures),
        "opening_in_closures_percent": 100 * float(np.mean(closures)),
        "opening_in_vowels_percent": 100 * float(np.mean(vowels)) if vowels else float("nan"),
    }


def _shifted(clip: Clip, rng: np.random.Generator) -> Clip:
    """The clip with its sounds at other times, all moved alike around the speech."""
    first, last = clip.speech
    length = max(last - first, 2)
    by = int(rng.integers(1, length))
    moved = []
    for sound in clip.sounds:
        start = first + (sound.first - first + by) % length
        moved.append(replace(sound, first=start, last=start + sound.last - sound.first))
    return replace(clip, sounds=tuple(moved))


def plot(
    rows: Sequence[dict[str, Any]], shown: dict[str, tuple[Clip, NDArray[np.float64]]], path: Path
) -> Path:
    """Recall of every voice beside chance, and one clip's lips of each with its closures marked."""
    pyplot = pyplot_without_screen()
    figure = pyplot.figure(figsize=(13, 1.3 * len(rows) + 1.5))
    grid = figure.add_gridspec(len(rows), 2, width_ratios=[1, 2.4])
    bars, places = figure.add_subplot(grid[:, 0]), np.arange(len(rows))
    bars.barh(places, [row["closure_recall"] for row in rows], color="#2e7d6b", label="closure recall")
    bars.barh(places, [row["by_chance"] for row in rows], color="#d4d4d8", height=0.4, label="by chance")
    bars.set_yticks(places, [row["voice"] for row in rows])
    bars.invert_yaxis()
    bars.set(xlim=(0, 1), xlabel="share of p, b, m with closed lips")
    bars.legend(fontsize=7, loc="lower left")
    for line, (voice, (clip, aperture)) in enumerate(shown.items()):
        axis = figure.add_subplot(grid[line, 1])
        axis.plot(100 * aperture, lw=1.1, color="#d1495b")
        axis.axhline(100 * lips.closed_threshold(aperture, 0.0), color="k", lw=0.6, ls=":")
        for first, last in clip.closing_sounds:
            axis.axvspan(first, last, color="#2e7d6b", alpha=0.18, lw=0)
        axis.set_xlim(0, len(aperture))
        axis.set_ylabel(voice, fontsize=6)
        axis.tick_params(labelsize=6)
    axis.set_xlabel(
        "frames; lips in percent of the face height, p b m shaded, closed below the dots", fontsize=7
    )
    return save_figure(pyplot, figure, path)
