"""What the server and the model process say to each other: sound one way, motion the other, a few kB a second.

Arrays travel as their bytes: sound float32 at 16 kHz, motion latents float32 [frames, numbers].
"""

from __future__ import annotations

import msgspec

from stream.protocol import ControlValues


class StepCost(msgspec.Struct, frozen=True, kw_only=True):
    """What was spent until a chunk's first frame was there. started_s: monotonic seconds."""

    denoising_steps: int
    started_s: float
    step_ms: float
    stages_ms: dict[str, float]


# --- to the model process ---


class Open(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A session, from chunk `chunk_index` on; z_ref: its portrait's own motion latent."""

    session: str
    z_ref: bytes
    hop_frames: int
    right_frames: int
    seed: int
    controls: ControlValues
    chunk_index: int


class Window(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The next window of a session, due at `deadline` (monotonic seconds).

    pcm: what is new in it; the whole window where the process does not know the one before; nothing: only pass over it.
    """

    session: str
    index: int
    deadline: float
    pcm: bytes


class SetControls(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    session: str
    controls: ControlValues


class Close(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    session: str


# --- from it ---


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The model is loaded. left_frames: of its windows. face_sha256: of the portraits that it can move."""

    left_frames: int
    device: str
    face_sha256: str


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The model cannot be loaded; why, a sentence."""

    message: str


class Motion(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """How the face moves during chunk `index`."""

    session: str
    index: int
    first_frame: int
    frames: int
    z: bytes
    cost: StepCost


class Skipped(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    session: str
    index: int


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The session cannot go on; why, a sentence."""

    session: str
    message: str


ToModel = Open | Window | SetControls | Close
FromModel = Ready | Refused | Motion | Skipped | Failed
