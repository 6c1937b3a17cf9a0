"""Who speaks the clips: the model, and the baselines it is compared with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.avatar_pipeline import AvatarPipeline
from pipeline.drawing import PreparedPortrait
from pipeline.evaluation.latent_motion import MouthOpening, loudness
from pipeline.evaluation.material import SAMPLES_PER_FRAME, Clip
from pipeline.evaluation.speaking import speak
from pipeline.windowing import WindowSpec

if TYPE_CHECKING:
    from pipeline.training.rig import RigFit, RigRenderer

SEGMENT_FRAMES = 250
"""Longest stretch of frames held at once; a multiple of every hop in use."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Performance:
    """A stretch of rendered frames uint8 [T,H,W,3], and `picture` [H,W,3], the portrait they should be like.

    `latents` [T,D] and `step_ms` (one per chunk) exist where a model made the frames.
    """

    first_frame: int
    frames: NDArray[np.uint8]
    picture: NDArray[np.uint8]
    latents: NDArray[np.float32] | None = None
    step_ms: tuple[float, ...] = ()


class Actor(Protocol):
    """Renders a clip on a portrait, in stretches of at most SEGMENT_FRAMES; yields nothing if it cannot."""

    @property
    def name(self) -> str: ...

    def perform(self, portrait: PreparedPortrait, clip: Clip) -> Iterator[Performance]: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelActor:
    """The pipeline, window by window, as in a session."""

    name: str
    pipe: AvatarPipeline
    window: WindowSpec
    seed: int
    num_inference_steps: int | None = None

    def perform(self, portrait: PreparedPortrait, clip: Clip) -> Iterator[Performance]:
        made = self.pipe(
            portrait,
            clip.pcm,
            sample_rate=self.window.sample_rate,
            window=self.window,
            seed=self.seed,
            num_inference_steps=self.num_inference_steps,
        )
        frames: list[NDArray[np.uint8]] = []
        latents: list[NDArray[np.float32]] = []
        step_ms: list[float] = []
        first = 0
        for chunk in made:
            frames.extend(chunk.frames)
            latents.extend(chunk.latents)
            step_ms.append(sum(chunk.timings_ms.values()))
            end = chunk.first_frame + len(chunk.frames)
            if len(frames) >= SEGMENT_FRAMES or end >= clip.frames:
                kept = min(len(frames), clip.frames - first)  # the last chunk may reach beyond the clip
                yield Performance(
                    first_frame=first,
                    frames=np.stack(frames[:kept]),
                    picture=portrait.canvas,
                    latents=np.stack(latents[:kept]),
                    step_ms=tuple(step_ms),
                )
                first = end
                frames, latents, step_ms = [], [], []


@dataclass(frozen=True, kw_only=True)
class FrozenActor:
    """The portrait, unmoved: what a measure says about nothing at all."""

    name: str = "frozen"

    def perform(self, portrait: PreparedPortrait, clip: Clip) -> Iterator[Performance]:
        for first in range(0, clip.frames, SEGMENT_FRAMES):
            count = min(SEGMENT_FRAMES, clip.frames - first)
            frames = np.broadcast_to(portrait.canvas, (count, *portrait.canvas.shape))
            yield Performance(first_frame=first, frames=frames, picture=portrait.canvas)


@dataclass(frozen=True, kw_only=True, eq=False)
class LoudnessActor:
    """A mouth that opens with the loudness of the audio, drawn alike; it understands no speech."""

    pipe: AvatarPipeline
    window: WindowSpec
    opening: MouthOpening
    name: str = "loudness"

    def perform(self, portrait: PreparedPortrait, clip: Clip) -> Iterator[Performance]:
        state = self.pipe.init_state(portrait, window=self.window)
        gap = (self.opening.wide - self.opening.rest) * loudness(clip.pcm, SAMPLES_PER_FRAME)
        path = portrait.z_ref + (gap[:, None] * self.opening.direction[None]).astype(np.float32)
        for first in range(0, clip.frames, SEGMENT_FRAMES):
            frames, _ = self.pipe.draw(state, path[first : min(first + SEGMENT_FRAMES, clip.frames)])
            yield Performance(first_frame=first, frames=frames, picture=portrait.canvas)


class RigActor:
    """The textured head that made the training pictures, moved by the reference motion: a ceiling."""

    name = "rig"

    def __init__(self, renderer: RigRenderer, fits: dict[str, RigFit]) -> None:
        self._renderer, self._fits = renderer, fits

    @classmethod
    def open(cls, data: Path, runs: Path) -> RigActor | None:
        """The rig, or None when the data engine has not fitted the portraits (runs/portraits.npz)."""
        if not (runs / "portraits.npz").is_file():
            return None
        from pipeline.training.portrait_fit import FaceGeometry
        from pipeline.training.rig import RigRenderer, load_fits

        names, fits = load_fits(str(runs / "portraits.npz"))
        held_out = {
            name.removeprefix("val/"): fit
            for name, fit in zip(names, fits, strict=True)
            if name.startswith("val/")
        }
        return cls(RigRenderer(FaceGeometry.load(data)), held_out)

    def perform(self, portrait: PreparedPortrait, clip: Clip) -> Iterator[Performance]:
        fit = self._fits.get(portrait.name)
        if fit is None or clip.motion is None:
            return
        self._renderer.load(fit)
        picture = self._renderer.render(np.zeros_like(clip.motion[0])).rgb
        motion = clip.motion[: clip.frames]
        for first in range(0, len(motion), SEGMENT_FRAMES):
            frames = [self._renderer.render(m).rgb for m in motion[first : first + SEGMENT_FRAMES]]
            yield Performance(first_frame=first, frames=np.stack(frames), picture=picture)


@torch.inference_mode()
def offline_latents(
    pipe: AvatarPipeline, portrait: PreparedPortrait, clip: Clip, window: WindowSpec, seed: int
) -> torch.Tensor:
    """Latents [T,D] of a clip whose audio is heard as a whole: what streaming must equal."""
    z_ref_1D = pipe.init_state(portrait, window=window, seed=seed).z_ref_1D
    return speak(pipe, z_ref_1D, clip.pcm[None], window, [seed])[0, : clip.frames]
