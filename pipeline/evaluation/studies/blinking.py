"""How often portraits blink: when the schedule says so, and what of that a judge sees on the drawn frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.blinks import lids_closed
from pipeline.evaluation import head
from pipeline.evaluation.material import FPS
from pipeline.evaluation.plots import pyplot_without_screen, save_figure
from pipeline.evaluation.speaking import speak
from pipeline.evaluation.studies.long_session import MINUTE, minute_of_speech
from pipeline.evaluation.studies.result import Study
from pipeline.evaluation.studies.speakers import Speakers

DRAWN_BLINKS = 8
BEFORE, AFTER = 4, 10
CLOSED = 0.6
"""As `head.blinks` has it: lids below this share of their usual opening."""


def onsets(seed: int, frames: int) -> NDArray[np.int64]:
    """Frames at which a blink begins."""
    lids = lids_closed(seed, range(frames))
    return np.flatnonzero((lids[1:] > 0) & (lids[:-1] == 0)) + 1


def study(speakers: Speakers, out: Path) -> Study:
    """The schedule over an hour, and the first blinks of a minute as each portrait shows them."""
    frames = round(speakers.settings.blink_minutes * MINUTE)
    seeds = [speakers.settings.seed + i for i in range(len(speakers.portraits))]
    pcm, _ = minute_of_speech(speakers)
    made = speak(speakers.pipe, speakers.z_refs, np.repeat(pcm[None], len(seeds), 0), speakers.window, seeds)
    rows: list[dict[str, Any]] = []
    gaps = []
    for portrait, seed, z_TD in zip(speakers.portraits, seeds, made.float().cpu().numpy(), strict=True):
        starts = onsets(seed, frames)
        gaps.append(np.diff(starts) / FPS)
        shown = [s for s in onsets(seed, MINUTE) if BEFORE <= s < MINUTE - AFTER][:DRAWN_BLINKS]
        openness = _openness(speakers, len(rows), z_TD, shown)
        rate = 60 * FPS * len(starts) / frames
        seen = float((openness.min(1) < CLOSED).mean())
        rows.append(
            {
                "portrait": portrait.name,
                "scheduled_per_minute": rate,
                "seen_share": seen,
                "seen_per_minute": rate * seen,
                "least_opening": float(openness.min(1).mean()),
            }
        )
    everything = np.concatenate(gaps)
    return Study(
        name="blinks",
        title="Blinks",
        rows=rows,
        notes=[
            f"Scheduled gaps: mean {everything.mean():.2f} s, median {np.median(everything):.2f} s, from "
            f"{everything.min():.2f} to {everything.max():.1f} s.",
            f"seen: the judge has the lids below {CLOSED} of their usual opening in that blink; least_opening is the "
            "mean of the blinks' lowest.",
        ],
        pictures={
            plot(everything, rows, out / "blinks.png").name: "Gaps between blinks, and what is seen of them"
        },
    )


def _openness(
    speakers: Speakers, index: int, z_TD: NDArray[np.float32], starts: Sequence[int]
) -> NDArray[np.float64]:
    """[blinks, frames around each] opening of the lids over the usual one."""
    state = speakers.pipe.init_state(speakers.portraits[index], window=speakers.window)
    stretches = np.concatenate([z_TD[start - BEFORE : start + AFTER] for start in starts])
    frames, _ = speakers.pipe.draw(state, stretches)
    openness = head.eye_openness(speakers.judge.observe(frames).landmarks)
    return openness.reshape(len(starts), BEFORE + AFTER)


def plot(gaps_s: NDArray[np.float64], rows: Sequence[dict[str, Any]], path: Path) -> Path:
    pyplot = pyplot_without_screen()
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 3.6))
    axes[0].hist(gaps_s, bins=np.arange(0, 12.5, 0.25), color="#4c86c6")
    axes[0].set(title="gaps between scheduled blinks", xlabel="seconds")
    places = range(len(rows))
    for name, colour, label in (
        ("scheduled_per_minute", "#d4d4d8", "scheduled"),
        ("seen_per_minute", "#d1495b", "seen by the judge"),
    ):
        axes[1].bar(places, [row[name] for row in rows], color=colour, label=label)
    axes[1].set_xticks(places, [row["portrait"] for row in rows])
    axes[1].axhspan(10, 25, color="#2e7d6b", alpha=0.12, lw=0, label="target")
    axes[1].set(title="blinks per minute", xlabel="portrait")
    axes[1].legend(fontsize=7)
    return save_figure(pyplot, figure, path)
