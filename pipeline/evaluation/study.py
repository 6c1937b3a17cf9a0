"""The whole evaluation of one model: who performs what, in which order, and what is measured on it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pipeline.autoencoder import POSE_SIZE
from pipeline.avatar_pipeline import AvatarPipeline
from pipeline.denoiser import Denoiser
from pipeline.drawing import PreparedPortrait
from pipeline.evaluation import material
from pipeline.evaluation.actors import (
    Actor,
    FrozenActor,
    LoudnessActor,
    ModelActor,
    RigActor,
    offline_latents,
)
from pipeline.evaluation.evidence import Engineering, Evidence
from pipeline.evaluation.judging import Judge
from pipeline.evaluation.latent_motion import find_mouth_opening
from pipeline.evaluation.material import Clip
from pipeline.evaluation.references import references
from pipeline.evaluation.settings import EvaluationSettings
from pipeline.evaluation.takes import Stage, Take
from pipeline.runtime import RuntimeConfig, prepare
from pipeline.windowing import WindowSpec

logger = logging.getLogger(__name__)

WARM_UP_CHUNKS = 10

Job = tuple[Actor, PreparedPortrait, Clip]


@dataclass(frozen=True, kw_only=True, eq=False)
class Cast:
    """Held-out portraits, and the clips that each of them speaks: one of GRID, one of Kokoro."""

    portraits: Sequence[PreparedPortrait]
    grid: Sequence[Clip]
    kokoro: Sequence[Clip]
    quiet: Clip
    long: Clip

    @classmethod
    def gather(
        cls, pipe: AvatarPipeline, data: Path, runs: Path, gallery: Path, settings: EvaluationSettings
    ) -> Cast:
        """Reads the held-out material; MaterialError or PortraitError say what is missing."""
        found = material.portraits(data, gallery, settings.portraits, settings.gallery_portraits)
        portraits = [pipe.prepare(portrait) for portrait in tqdm(found, desc="portraits", disable=None)]
        kokoro = material.kokoro_clips(data, runs, settings.clip_seconds, len(portraits))
        return cls(
            portraits=portraits,
            grid=material.grid_clips(data, runs, len(portraits)),
            kokoro=kokoro,
            quiet=material.silence(settings.silence_seconds, settings.seed),
            long=material.long_speech(kokoro, settings.long_seconds),
        )

    def speaking(self, count: int | None = None) -> Iterator[tuple[PreparedPortrait, Clip]]:
        """The first `count` (or all) portraits with their clips."""
        for index, portrait in enumerate(self.portraits[:count]):
            yield portrait, self.grid[index % len(self.grid)]
            yield portrait, self.kokoro[index % len(self.kokoro)]


def evaluate(
    pipe: AvatarPipeline,
    cast: Cast,
    judge: Judge,
    settings: EvaluationSettings,
    *,
    data: Path,
    runs: Path,
    teacher: Path | None,
) -> Evidence:
    """Renders and judges everything. ValueError when a portrait shows the judge no face."""
    window = pipe.window_spec(settings.hop_frames, settings.right_frames)
    model = ModelActor(name="model", pipe=pipe, window=window, seed=settings.seed)

    logger.info("Reading the reference lips")
    found = references([*cast.grid, *cast.kokoro], judge, data)
    stage = Stage(judge, settings.identity_every_frames, found)
    jobs: list[Job] = [(model, portrait, clip) for portrait, clip in cast.speaking()]
    jobs += [(model, portrait, cast.quiet) for portrait in cast.portraits[: settings.silence_portraits]]
    jobs += [(model, cast.portraits[0], cast.long)]
    takes = _perform(stage, jobs, "model")

    baselines: list[Job] = []
    actors = [*_loudness(pipe, window, takes), FrozenActor()]
    rig = RigActor.open(data, runs)
    if rig is None:
        logger.info(
            "No ground-truth rig: %s is missing; the training stages make it.", runs / "portraits.npz"
        )
    else:
        actors.append(rig)
    for actor in actors:
        baselines += [
            (actor, portrait, clip) for portrait, clip in cast.speaking(settings.baseline_portraits)
        ]
        if actor is not rig:
            baselines.append((actor, cast.portraits[0], cast.quiet))
    takes += _perform(stage, baselines, "baselines")
    if teacher is not None:
        many = _teacher(pipe, teacher, window, settings)
        takes += _perform(
            stage, [(many, *pair) for pair in list(cast.speaking())[: settings.teacher_clips]], "teacher"
        )

    logger.info("Comparing streaming with offline, and measuring time per frame")
    return Evidence(
        takes=takes,
        references=found,
        engineering=_engineering(pipe, cast, window, settings, takes),
        max_lag_frames=settings.max_lag_frames,
        hop_frames=settings.hop_frames,
    )


def _perform(stage: Stage, jobs: Sequence[Job], title: str) -> list[Take]:
    total = sum(clip.frames for _, _, clip in jobs)
    with tqdm(total=total, desc=title, unit="frame", mininterval=1.0, disable=None) as progress:

        def counted(takes: Iterable[Take]) -> Iterator[Take]:
            for take in takes:
                progress.update(take.frames)
                yield take

        return list(counted(stage.takes(jobs)))


def _loudness(pipe: AvatarPipeline, window: WindowSpec, takes: Sequence[Take]) -> list[Actor]:
    """The mouth driven by loudness, along the direction in which this model's own mouth opens."""
    spoken = [
        (t.latents, t.aperture)
        for t in takes
        if t.latents is not None and t.clip.corpus in ("grid", "kokoro")
    ]
    try:
        opening = find_mouth_opening(
            np.concatenate([latents for latents, _ in spoken]),
            np.concatenate([aperture for _, aperture in spoken]),
            POSE_SIZE,
        )
    except ValueError as error:
        logger.warning("No baseline with a mouth driven by loudness: %s", error)
        return []
    return [LoudnessActor(pipe=pipe, window=window, opening=opening)]


def _teacher(
    pipe: AvatarPipeline, folder: Path, window: WindowSpec, settings: EvaluationSettings
) -> ModelActor:
    denoiser = Denoiser.from_pretrained(folder, low_cpu_mem_usage=False).eval()
    teacher = AvatarPipeline(**(pipe.components | {"denoiser": denoiser}))
    teacher.drawing, teacher.face_sha256 = pipe.drawing, pipe.face_sha256
    return ModelActor(
        name="teacher",
        pipe=teacher,
        window=window,
        seed=settings.seed,
        num_inference_steps=settings.teacher_steps,
    )


def _engineering(
    pipe: AvatarPipeline, cast: Cast, window: WindowSpec, settings: EvaluationSettings, takes: Sequence[Take]
) -> Engineering:
    portrait, clip = next(cast.speaking())
    streamed = next(
        t.latents for t in takes if t.actor == "model" and t.clip is clip and t.latents is not None
    )
    offline = offline_latents(pipe, portrait, clip, window, settings.seed).float().cpu().numpy()
    # Pictures are judged as float32 makes them everywhere; time is what a session takes here.
    live = prepare(deepcopy(pipe), RuntimeConfig(device=pipe.device.type))
    state = live.init_state(portrait, window=window, seed=settings.seed)
    per_frame_ms = []
    for index in range(WARM_UP_CHUNKS + settings.speed_chunks):
        audio = window.cut(cast.long.pcm, index)
        started = time.perf_counter()
        state, _ = live.step(state, audio)
        per_frame_ms.append(1000 * (time.perf_counter() - started) / window.hop_frames)
    p50, p95 = np.percentile(per_frame_ms[WARM_UP_CHUNKS:], [50, 95])
    return Engineering(
        streaming_difference=float(np.abs(streamed - offline[: len(streamed)]).max()),
        ms_per_frame_p50=float(p50),
        ms_per_frame_p95=float(p95),
    )
