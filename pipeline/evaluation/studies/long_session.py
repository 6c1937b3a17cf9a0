"""Whether errors pile up: one session of minutes, every minute the same speech, measured minute by minute."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.autoencoder import POSE_SIZE
from pipeline.evaluation import lips, picture
from pipeline.evaluation.material import FPS, SAMPLES_PER_FRAME
from pipeline.evaluation.plots import pyplot_without_screen, save_figure
from pipeline.evaluation.speaking import speak
from pipeline.evaluation.studies.result import Study
from pipeline.evaluation.studies.speakers import Speakers

MINUTE = 60 * FPS
DRAWN_PER_MINUTE = 20


def minute_of_speech(speakers: Speakers) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Kokoro clips one after the other, cut to a minute, and the aperture of the motion that belongs to them."""
    clips = [clip for clip in speakers.clips if clip.corpus == "kokoro"]
    gaps = []
    for clip in clips:
        gap = speakers.found[clip.name].aperture[: clip.frames]
        gaps.append(np.pad(gap, (0, clip.frames - len(gap)), mode="edge"))
    pcm = np.resize(np.concatenate([clip.pcm for clip in clips]), MINUTE * SAMPLES_PER_FRAME)
    return pcm, np.resize(np.concatenate(gaps), MINUTE)


def study(speakers: Speakers, out: Path) -> Study:
    """All portraits speak for `long_minutes`; of each minute a few frames are drawn and judged."""
    minutes = max(1, round(speakers.settings.long_minutes))
    pcm, reference = minute_of_speech(speakers)
    count = len(speakers.portraits)
    seeds = [speakers.settings.seed + i for i in range(count)]
    long = np.tile(pcm, minutes)
    z_BTD = speak(speakers.pipe, speakers.z_refs, np.repeat(long[None], count, 0), speakers.window, seeds)
    z_refs = speakers.z_refs.float().cpu().numpy()
    rows: list[dict[str, Any]] = []
    first_colours: list[NDArray[np.float64]] = []
    faces = [_Face(speakers, i) for i in range(count)]
    for minute in range(minutes):
        span = slice(minute * MINUTE, (minute + 1) * MINUTE)
        made = z_BTD[:, span].float().cpu().numpy()
        apertures = [speakers.reading.aperture(z, ref) for z, ref in zip(made, z_refs, strict=True)]
        pose = made[:, :, -POSE_SIZE:]
        seen = [face.look(made[i]) for i, face in enumerate(faces)]
        colours = [colour for _, colour in seen]
        first_colours = first_colours or colours
        rows.append(
            {
                "minute": minute + 1,
                "lip_correlation": float(np.mean([lips.correlation(reference, a) for a in apertures])),
                "opening_percent": 100 * float(np.mean([np.percentile(a, 95) for a in apertures])),
                "head_place": float(np.abs(pose.mean(1)).mean()),
                "head_spread": float(pose.std(1).mean()),
                "identity": float(np.mean([identity for identity, _ in seen])),
                "colour_drift_percent": 100
                * float(
                    np.mean(
                        [
                            picture.colour_drift(a[None], b[None])
                            for a, b in zip(first_colours, colours, strict=True)
                        ]
                    )
                ),
                "latent_spread": float(made[:, :, :-POSE_SIZE].std(1).mean()),
            }
        )
    return Study(
        name="long_session",
        title=f"{minutes} minutes without a break",
        rows=rows,
        notes=[
            f"{count} portraits; every minute is the same minute of held-out speech, so minutes can be compared. "
            f"Identity (dlib distance to the portrait) and colour are of {DRAWN_PER_MINUTE} drawn frames a minute and "
            "portrait; lips are read off latents; the head's place and spread are in units of its latents.",
        ],
        pictures={plot(rows, out / "long_session.png").name: "Minute by minute"},
    )


class _Face:
    """A portrait in front of the judge."""

    def __init__(self, speakers: Speakers, index: int) -> None:
        self._speakers, portrait = speakers, speakers.portraits[index]
        self._state = speakers.pipe.init_state(portrait, window=speakers.window)
        seen = speakers.judge.observe(portrait.canvas[None], embed=[0], still=True)
        if not seen.found:
            raise ValueError(
                f"The judge finds no face in the portrait {portrait.name}; leave that portrait out."
            )
        self._embedding = seen.embeddings[0]

    def look(self, z_TD: NDArray[np.float32]) -> tuple[float, NDArray[np.float64]]:
        """Mean identity distance and mean face colour [3] of frames spread over this stretch."""

        chosen = np.linspace(0, len(z_TD) - 1, DRAWN_PER_MINUTE).round().astype(int)
        frames, _ = self._speakers.pipe.draw(self._state, z_TD[chosen])
        seen = self._speakers.judge.observe(frames, embed=range(len(frames)), still=True)
        found = [i for i in range(len(frames)) if np.isfinite(seen.landmarks[i]).all()]
        colours = [
            picture.face_colour(frames[i], picture.face_mask(seen.landmarks[i], *frames.shape[1:3]))
            for i in found
        ]
        distances = picture.identity_distances(seen.embeddings, self._embedding)
        return float(distances.mean()), np.asarray(np.mean(colours, axis=0), np.float64)


def plot(rows: Sequence[dict[str, Any]], path: Path) -> Path:
    pyplot = pyplot_without_screen()
    panels = (
        ("lip correlation, reference motion", ("lip_correlation",), (0, 1)),
        ("identity distance", ("identity",), (0, 0.5)),
        ("change of face colour since minute 1 (%)", ("colour_drift_percent",), (0, 2)),
        ("head: place and spread", ("head_place", "head_spread"), None),
    )
    figure, axes = pyplot.subplots(1, len(panels), figsize=(16, 3.4))
    for axis, (title, keys, limits) in zip(axes, panels, strict=True):
        for key in keys:
            axis.plot(
                [r["minute"] for r in rows], [r[key] for r in rows], "o-", ms=4, label=key.replace("_", " ")
            )
        axis.set(title=title, xlabel="minute")
        axis.set_ylim(*(limits or (0, None)))
        axis.grid(alpha=0.25)
        axis.legend(fontsize=7)
    return save_figure(pyplot, figure, path)
