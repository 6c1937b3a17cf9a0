"""Who speaks what in a study, and how well lips then follow: one batch a corpus, judged by a lip reading."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.avatar_pipeline import AvatarPipeline
from pipeline.drawing import PreparedPortrait
from pipeline.evaluation import lips, material
from pipeline.evaluation.actors import ModelActor
from pipeline.evaluation.judging import Judge
from pipeline.evaluation.material import Clip
from pipeline.evaluation.references import Reference, references
from pipeline.evaluation.speaking import Manner, speak
from pipeline.evaluation.studies.reading import LipReading
from pipeline.evaluation.studies.settings import StudySettings
from pipeline.evaluation.takes import Stage
from pipeline.windowing import WindowSpec

Change = Callable[[Clip, int], NDArray[np.float32]]
"""What is heard instead of a clip's own sound; the number is the clip's place, for reproducible noise."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Speech:
    """Motion latents [T,D] of every clip and the lip apertures [T] read off them, in the order of the clips."""

    clips: Sequence[Clip]
    latents: Sequence[NDArray[np.float32]]
    apertures: Sequence[NDArray[np.float64]]

    def of(self, corpus: str) -> list[tuple[Clip, NDArray[np.float64]]]:
        pairs = zip(self.clips, self.apertures, strict=True)
        return [(clip, aperture) for clip, aperture in pairs if clip.corpus == corpus]

    def opening(self) -> float:
        """Mean over the clips of the 95th percentile of the opening, in percent of the face height."""
        return 100 * float(np.mean([np.percentile(aperture, 95) for aperture in self.apertures]))


@dataclass(frozen=True, kw_only=True, eq=False)
class Speakers:
    """A model, portraits that speak in turn, held-out clips and how lips should move to them."""

    pipe: AvatarPipeline
    window: WindowSpec
    portraits: Sequence[PreparedPortrait]
    z_refs: torch.Tensor
    clips: Sequence[Clip]
    found: Mapping[str, Reference]
    reading: LipReading
    settings: StudySettings
    judge: Judge
    gallery: Path
    teacher: Path | None = None

    @classmethod
    def gather(
        cls,
        pipe: AvatarPipeline,
        judge: Judge,
        settings: StudySettings,
        *,
        data: Path,
        runs: Path,
        gallery: Path,
        kept_reading: Path,
        teacher: Path | None = None,
    ) -> Speakers:
        """Reads the material, and fits the lip reading unless `kept_reading` holds it already."""
        window = pipe.window_spec(settings.hop_frames, settings.right_frames)
        portraits = [pipe.prepare(p) for p in material.portraits(data, gallery, settings.portraits, 0)]
        clips = [
            *material.grid_clips(data, runs, settings.grid_clips),
            *material.kokoro_clips(data, runs, settings.clip_seconds, settings.kokoro_clips),
        ]
        z_refs = torch.from_numpy(np.stack([p.z_ref for p in portraits])).to(pipe.device)
        found = references(clips, judge, data)
        if kept_reading.is_file():
            reading = LipReading.load(kept_reading)
        else:
            reading = _fit_reading(pipe, judge, settings, window, portraits, clips, found, z_refs)
            reading.save(kept_reading)
        return cls(
            pipe=pipe,
            window=window,
            portraits=portraits,
            z_refs=z_refs,
            clips=clips,
            found=found,
            reading=reading,
            settings=settings,
            judge=judge,
            gallery=gallery,
            teacher=teacher,
        )

    def speak(self, manner: Manner | None = None, change: Change | None = None) -> Speech:
        """Every clip, spoken by the portraits in turn, each with its own seed."""
        latents: dict[int, NDArray[np.float32]] = {}
        lengths = sorted({len(clip.pcm) for clip in self.clips})
        for length in lengths:  # one batch for all clips of one length
            chosen = [i for i, clip in enumerate(self.clips) if len(clip.pcm) == length]
            heard = [self.clips[i].pcm if change is None else change(self.clips[i], i) for i in chosen]
            z_refs = self.z_refs[[i % len(self.z_refs) for i in chosen]]
            seeds = [self.settings.seed + i for i in chosen]
            made = speak(self.pipe, z_refs, np.stack(heard), self.window, seeds, manner).float().cpu().numpy()
            for place, i in enumerate(chosen):
                latents[i] = made[place, : self.clips[i].frames]
        ordered = [latents[i] for i in range(len(self.clips))]
        z_refs_ND = self.z_refs.float().cpu().numpy()
        apertures = [
            self.reading.aperture(z_TD, z_refs_ND[i % len(z_refs_ND)]) for i, z_TD in enumerate(ordered)
        ]
        return Speech(clips=self.clips, latents=ordered, apertures=apertures)

    def figures(self, speech: Speech) -> dict[str, float]:
        """Lip correlation with real lips and with reference motion (with standard errors), closure recall, opening."""
        figures: dict[str, float] = {}
        for corpus in ("grid", "kokoro"):
            values = [self._correlation(clip, aperture) for clip, aperture in speech.of(corpus)]
            figures[f"correlation_{corpus}"] = float(np.mean(values))
            figures[f"correlation_{corpus}_error"] = float(np.std(values) / np.sqrt(len(values)))
        figures["closure_recall"] = recall(speech.of("kokoro"))
        figures["opening_percent"] = speech.opening()
        return figures

    def _correlation(self, clip: Clip, aperture: NDArray[np.float64]) -> float:
        """At lag 0, as in the table: lips that hardly move follow nothing."""
        if lips.hardly_moves(aperture):
            return 0.0
        reference = self.found[clip.name].aperture
        frames = min(len(reference), len(aperture))
        return lips.correlation(reference[:frames], aperture[:frames])


def recall(spoken: Sequence[tuple[Clip, NDArray[np.float64]]]) -> float:
    """Share of p, b, m in which the lips close, as in the table; 0 is the portrait's own closed mouth."""
    hits = [
        lips.closures(aperture, clip.closing_sounds, lips.closed_threshold(aperture, 0.0))
        for clip, aperture in spoken
    ]
    return float(np.concatenate(hits).mean()) if sum(map(len, hits)) else float("nan")


def _fit_reading(
    pipe: AvatarPipeline,
    judge: Judge,
    settings: StudySettings,
    window: WindowSpec,
    portraits: Sequence[PreparedPortrait],
    clips: Sequence[Clip],
    found: Mapping[str, Reference],
    z_refs: torch.Tensor,
) -> LipReading:
    """Draws a few clips, lets the judge look, and regresses what it saw on the latents."""
    actor = ModelActor(name="model", pipe=pipe, window=window, seed=settings.seed)
    grid = [clip for clip in clips if clip.corpus == "grid"]
    kokoro = [clip for clip in clips if clip.corpus == "kokoro"]
    jobs = []
    for index, portrait in enumerate(portraits[: settings.reading_portraits]):
        jobs += [(actor, portrait, group[index % len(group)]) for group in (grid, kokoro)]
    takes = list(Stage(judge, 10_000, found).takes(jobs))
    names = [portrait.name for portrait in portraits]
    return LipReading.fit(takes, dict(zip(names, z_refs.float().cpu().numpy(), strict=True)))
