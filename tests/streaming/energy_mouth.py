"""A stand-in for the model in tests of transport and timing: the picture's brightness is its loudness.

It has the pipeline's interface, so what is heard can be compared with what is seen, frame by frame. The
session's seed tints the picture, so frames of two sessions can be told apart.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from pipeline.portrait import Portrait
from pipeline.state import ChunkMotion, Controls
from pipeline.windowing import AudioWindow, WindowSpec

LEFT_FRAMES = 6
FULL_SCALE_RMS = 0.25


@dataclass(frozen=True)
class EnergyState:
    portrait: Portrait
    window: WindowSpec
    seed: int
    controls: Controls
    chunk_index: int = 0

    def with_controls(self, controls: Controls) -> EnergyState:
        return replace(self, controls=controls)

    def skip(self) -> EnergyState:
        return replace(self, chunk_index=self.chunk_index + 1)


class EnergyMouth:
    """A step takes ENERGY_MOUTH_STEP_S seconds (environment), for tests of overload."""

    scheduler = SimpleNamespace(config=SimpleNamespace(num_inference_steps=2))
    device = "cpu"

    def __init__(self) -> None:
        self._step_s = float(os.environ.get("ENERGY_MOUTH_STEP_S", "0"))

    def window_spec(self, hop_frames: int = 2, right_frames: int = 2) -> WindowSpec:
        return WindowSpec(hop_frames=hop_frames, left_frames=LEFT_FRAMES, right_frames=right_frames)

    def init_state(
        self, portrait: Portrait, *, window: WindowSpec, seed: int, controls: Controls
    ) -> EnergyState:
        return EnergyState(portrait, window, seed, controls)

    def move(
        self, state: EnergyState, window: AudioWindow, *, num_inference_steps: int | None = None
    ) -> tuple[EnergyState, ChunkMotion]:
        if window.index != state.chunk_index:
            raise ValueError(f"window {window.index} came where {state.chunk_index} was due")
        time.sleep(self._step_s * (num_inference_steps or 2) / 2)
        spec = state.window
        hop = window.pcm[spec.left_samples : spec.left_samples + spec.hop_samples]
        rms = np.sqrt(np.mean(np.square(hop.reshape(spec.hop_frames, -1)), axis=1))
        levels = np.clip(rms / FULL_SCALE_RMS, 0, 1) * state.controls.expressiveness
        return state.skip(), ChunkMotion(window.index * spec.hop_frames, levels[:, None], {})  # type: ignore[arg-type]

    def remember(self, state: EnergyState) -> EnergyState:
        return state

    def first_frames(self, count: int) -> int:
        return 1

    def draw(self, state: EnergyState, levels_T1: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
        height, width = state.portrait.canvas.shape[:2]
        frames = np.zeros((len(levels_T1), height, width, 3), np.uint8)
        frames[..., :] = np.clip(levels_T1 * 200 + 20, 0, 255).astype(np.uint8)[:, :, None, None]
        frames[:, : height // 4] = (state.seed * 40) % 256
        return frames, {}


def load(settings: dict[str, Any]) -> EnergyMouth:
    """Takes ENERGY_MOUTH_LOAD_S seconds (environment), for tests of an end before the beginning."""
    time.sleep(float(os.environ.get("ENERGY_MOUTH_LOAD_S", "0")))
    return EnergyMouth()
