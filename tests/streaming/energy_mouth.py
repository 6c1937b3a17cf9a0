"""A stand-in for the model in tests of transport and timing: the picture's brightness is its loudness.

It has the pipeline's interface, so what is heard can be compared with what is seen, frame by frame. The
session's seed tints the picture, so frames of two sessions can be told apart.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from pipeline.drawing import PreparedPortrait
from pipeline.portrait import Portrait
from pipeline.state import ChunkMotion, Controls, FrameChunk
from pipeline.windowing import AudioWindow, WindowSpec
from tests.streaming.portraits import prepared

LEFT_FRAMES = 6
FULL_SCALE_RMS = 0.25


@dataclass(frozen=True)
class EnergyState:
    window: WindowSpec
    seed: int
    controls: Controls
    chunk_index: int = 0
    unheard_frames: int = 0
    portrait: PreparedPortrait | None = None

    def with_controls(self, controls: Controls) -> EnergyState:
        return replace(self, controls=controls)

    def skip(self) -> EnergyState:
        return replace(self, chunk_index=self.chunk_index + 1)


class EnergyMouth:
    """A step takes ENERGY_MOUTH_STEP_S seconds (environment), for tests of overload."""

    scheduler = SimpleNamespace(config=SimpleNamespace(num_inference_steps=2))
    device = "cpu"
    face_sha256 = "energy mouth"

    def __init__(self) -> None:
        self._step_s = float(os.environ.get("ENERGY_MOUTH_STEP_S", "0"))

    def window_spec(self, hop_frames: int = 2, right_frames: int = 2) -> WindowSpec:
        return WindowSpec(hop_frames=hop_frames, left_frames=LEFT_FRAMES, right_frames=right_frames)

    def prepare(self, portrait: Portrait, progress: Callable[[float], None]) -> PreparedPortrait:
        progress(1.0)
        return prepared(portrait, model=self.face_sha256)

    def start(self, z_ref_D: np.ndarray, *, window: WindowSpec, seed: int, controls: Controls) -> EnergyState:
        return EnergyState(window, seed, controls)

    def init_state(
        self, portrait: PreparedPortrait, *, window: WindowSpec, seed: int, controls: Controls
    ) -> EnergyState:
        return replace(
            self.start(portrait.z_ref, window=window, seed=seed, controls=controls), portrait=portrait
        )

    def step(self, state: EnergyState, window: AudioWindow) -> tuple[EnergyState, FrameChunk]:
        state, motion = self.move(state, window)
        assert state.portrait is not None
        frames = EnergyPainter(state.portrait).draw(motion.z_TD)
        return state, FrameChunk(motion.first_frame, frames, motion.z_TD, {})

    def move(
        self, state: EnergyState, window: AudioWindow, *, num_inference_steps: int | None = None
    ) -> tuple[EnergyState, ChunkMotion]:
        if window.index != state.chunk_index:
            raise ValueError(f"window {window.index} came where {state.chunk_index} was due")
        step_s = self._step_s * (num_inference_steps or 2) / 2
        time.sleep(step_s)
        spec = state.window
        hop = window.pcm[spec.left_samples : spec.left_samples + spec.hop_samples]
        rms = np.sqrt(np.mean(np.square(hop.reshape(spec.hop_frames, -1)), axis=1))
        levels = np.clip(rms / FULL_SCALE_RMS, 0, 1) * state.controls.expressiveness
        z_TD = np.stack([levels, np.full_like(levels, state.seed)], 1).astype(np.float32)
        return state.skip(), ChunkMotion(window.index * spec.hop_frames, z_TD, {"denoise": 1000 * step_s})


class EnergyPainter:
    """Motion here is how loud it is, and the session's seed."""

    def __init__(self, portrait: PreparedPortrait) -> None:
        self.portrait = portrait

    def draw(self, z_TD: np.ndarray) -> np.ndarray:
        height, width = self.portrait.canvas.shape[:2]
        frames = np.zeros((len(z_TD), height, width, 3), np.uint8)
        frames[..., :] = np.clip(z_TD[:, :1] * 200 + 20, 0, 255).astype(np.uint8)[:, :, None, None]
        frames[:, : height // 4] = (z_TD[:, 1].astype(int) * 40 % 256)[:, None, None, None]
        return frames


def painters(config: object) -> type[EnergyPainter]:
    return EnergyPainter


def load(settings: dict[str, Any]) -> EnergyMouth:
    """Takes ENERGY_MOUTH_LOAD_S seconds (environment), for tests of an end before the beginning."""
    time.sleep(float(os.environ.get("ENERGY_MOUTH_LOAD_S", "0")))
    return EnergyMouth()
