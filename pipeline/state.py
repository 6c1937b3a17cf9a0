"""What a session carries from chunk to chunk, as values (no torch at import).

`AvatarPipeline.step` takes a state and returns a new one; the old one stays valid. Weights are shared, so
any number of sessions can be stepped in any order.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.hearing import Hearing
from pipeline.windowing import WindowSpec

if TYPE_CHECKING:
    import torch

    from pipeline.audio_encoder import Heard
    from pipeline.denoiser import KVRing
    from pipeline.drawing import Painter
    from pipeline.shown_motion import ShownMotion


@dataclass(frozen=True, kw_only=True)
class Controls:
    """Style of a session, each 0..2.

    expressiveness, head_motion: conditions of the denoiser; 0 the calmest of the training clips, 1 the median, 2 the
    liveliest. gaze: how firmly the face stays turned to the viewer; 0 lets it wander, 2 brings it back within a second.
    """

    expressiveness: float = 1.0
    head_motion: float = 1.0
    gaze: float = 1.0

    def __post_init__(self) -> None:
        for name in ("expressiveness", "head_motion", "gaze"):
            value = getattr(self, name)
            if not 0.0 <= value <= 2.0:
                raise ValueError(f"{name} is {value}; it must lie between 0 and 2.")


@dataclass(frozen=True, eq=False)
class Memory:
    """A chunk that the ring does not hold yet: its motion latents [B, T, D] and what they were made from."""

    z_BTD: torch.Tensor
    audio_BTC: torch.Tensor
    session_BC: torch.Tensor


@dataclass(frozen=True, eq=False)
class Speech:
    """What was heard up to the end of the last window: features [1, T, F] that the next chunk reads again, and the
    encoder's memory."""

    features_1TF: torch.Tensor
    heard: Heard


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamState:
    """Everything a session remembers.

    painter: draws the portrait, None where that is done elsewhere. z_ref_1D: the portrait's own motion latent.
    shown: the last frame shown and the head's rest. ring: keys and values of the last generated frames.
    memory: the last chunk, which the ring does not hold yet: the next step puts it there.
    speech: what was heard so far; None before the first window. unheard_frames: left out since then.
    hearing: how loud the speaker is. chunk_index: the chunk that comes next.
    Noise depends on `seed` and the frame number only, so no generator is carried.
    """

    window: WindowSpec
    z_ref_1D: torch.Tensor
    ring: KVRing
    shown: ShownMotion
    painter: Painter | None = None
    memory: Memory | None = None
    speech: Speech | None = None
    unheard_frames: int = 0
    seed: int = 0
    chunk_index: int = 0
    controls: Controls = field(default_factory=Controls)
    hearing: Hearing = field(default_factory=Hearing)

    @property
    def frame_index(self) -> int:
        """The first video frame of the next chunk."""
        return self.chunk_index * self.window.hop_frames

    def with_controls(self, controls: Controls) -> StreamState:
        """The same state with another style, used from the next chunk on."""
        return replace(self, controls=controls)

    def skip(self) -> StreamState:
        """The state after leaving out the next chunk (overload): time goes on, motion resumes later."""
        unheard = self.unheard_frames + self.window.hop_frames
        return replace(self, chunk_index=self.chunk_index + 1, unheard_frames=unheard)


@dataclass(frozen=True, eq=False)
class ChunkMotion:
    """How the face moves during one chunk, not drawn yet.

    z_TD: float32 motion latents, one row a frame; timings_ms: wall time of the stages features and denoise.
    """

    first_frame: int
    z_TD: npt.NDArray[np.float32]
    timings_ms: dict[str, float]


@dataclass(frozen=True, eq=False)
class FrameChunk:
    """Frames of one chunk.

    frames: uint8 [hop, H, W, 3] RGB; latents: float32 [hop, D];
    timings_ms: wall time of the stages features, denoise, draw.
    """

    first_frame: int
    frames: npt.NDArray[np.uint8]
    latents: npt.NDArray[np.float32]
    timings_ms: dict[str, float]
