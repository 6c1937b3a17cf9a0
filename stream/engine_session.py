"""One session's line to the model process: windows out through the arena, frames back, none unaccounted."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.portrait import Portrait
from pipeline.windowing import AudioWindow, WindowSpec
from stream.arena import Arena
from stream.protocol import ControlValues
from stream.schedule import NO_AUDIO

SLOTS = 8  # windows on their way per session: 640 ms at hop 2
PENDING_WINDOWS = 8


class Wire(Protocol):
    """What a line needs of the engine that owns the process."""

    live: bool

    def send(self, message: dict[str, Any], *, descriptors: list[int] | None = None) -> None: ...

    def forget(self, name: str) -> None: ...


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """What the model spent until a chunk's first frames were there. started_s: monotonic seconds."""

    denoising_steps: int
    started_s: float
    step_ms: float
    stages_ms: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class EngineFrames:
    """Frames of a chunk, uint8 [n, H, W, 3]; they come in order. cost: with the first ones. last: the chunk is
    whole."""

    first_frame: int
    frames: npt.NDArray[np.uint8]
    cost: StepCost | None
    last: bool


class EngineListener(Protocol):
    """What a session hears from the engine, always on the event loop and never blocking."""

    def on_frames(self, made: EngineFrames) -> None: ...

    def on_skip(self, index: int) -> None:
        """Chunk `index` is left out."""

    def on_engine(self, live: bool) -> None:
        """The model process went away, or came back."""

    def on_failure(self, message: str) -> None:
        """This session cannot go on; the message is a sentence."""


class EngineSession:
    """One session's line to the model. Not to be shared between tasks; event loop only."""

    def __init__(
        self,
        engine: Wire,
        name: str,
        *,
        portrait: Portrait,
        spec: WindowSpec,
        seed: int,
        controls: ControlValues,
        listener: EngineListener,
    ) -> None:
        self.name = name
        self.spec = spec
        self.listener = listener
        self._engine = engine
        self._portrait = portrait
        self._seed = seed
        self._controls = controls
        self._arena = Arena.create(
            portrait, slots=SLOTS, window_samples=spec.window_samples, hop_frames=spec.hop_frames
        )
        self._free: deque[int] = deque(range(SLOTS))
        self._pending: deque[tuple[AudioWindow, float]] = deque()
        self._in_flight: set[int] = set()
        self._next_index = 0
        self._opened = False
        self._room = asyncio.Event()
        self._room.set()
        self.skipped_chunks = 0

    @property
    def queued(self) -> int:
        """Windows that wait or are being worked on."""
        return len(self._pending) + len(self._in_flight)

    async def room(self) -> None:
        """Wait until another window can be submitted without one being skipped (for unpaced sources)."""
        await self._room.wait()

    def submit(self, window: AudioWindow, deadline: float) -> None:
        """Hand over the next window; `deadline` is when its first frame is due (monotonic seconds).

        Bounded: beyond SLOTS + PENDING_WINDOWS the oldest waiting window is skipped, counted.
        """
        if self._arena.descriptor < 0:
            return
        if not self._engine.live or not self._opened:
            self._next_index = window.index + 1
            self._skipped(window.index)
            return
        self._pending.append((window, deadline))
        if len(self._pending) > PENDING_WINDOWS:
            self._hand_over(self._pending.popleft()[0].index, NO_AUDIO, 0.0)
        self._pump()

    def set_controls(self, controls: ControlValues) -> None:
        """Used from the next chunk on."""
        self._controls = controls
        if self._opened and self._engine.live:
            self._send("controls", controls=asdict(controls))

    def close(self) -> None:
        """Idempotent; frees the shared memory."""
        if self._arena.descriptor < 0:
            return
        if self._opened and self._engine.live:
            self._send("close")
        self._arena.close()
        self._pending.clear()
        self._room.set()
        self._engine.forget(self.name)

    # --- called by the engine ---

    def open(self) -> None:
        """Open in the process, from the next window on (again, after a restart)."""
        self._opened = True
        self._room.set()
        self._engine.send(
            {
                "type": "open",
                "session": self.name,
                "layout": self._arena.layout.to_dict(),
                "portrait": self._portrait.name,
                "sha256": self._portrait.sha256,
                "hop_frames": self.spec.hop_frames,
                "right_frames": self.spec.right_frames,
                "seed": self._seed,
                "controls": asdict(self._controls),
                "chunk_index": self._next_index,
            },
            descriptors=[self._arena.descriptor],
        )
        self._pump()

    def process_gone(self) -> None:
        """Everything on its way is lost, and counted."""
        self._opened = False
        lost = sorted([*self._in_flight, *(window.index for window, _ in self._pending)])
        self._in_flight.clear()
        self._pending.clear()
        self._free = deque(range(SLOTS))
        for index in lost:
            self._next_index = max(self._next_index, index + 1)
            self._skipped(index)
        self.listener.on_engine(False)

    def handle(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "failed":
            self.listener.on_failure(message["message"])
        elif kind == "skipped":
            self._release(message)
            self._skipped(message["index"])
        elif kind == "frames":
            begin, end = message["begin"], message["end"]
            made = EngineFrames(
                first_frame=message["first_frame"] + begin,
                frames=self._arena.frames[message["slot"], begin:end].copy(),
                cost=StepCost(**message["cost"]) if message["cost"] else None,
                last=end == self.spec.hop_frames,
            )
            if made.last:
                self._release(message)
            self.listener.on_frames(made)

    def _release(self, message: dict[str, Any]) -> None:
        self._in_flight.discard(message["index"])
        if message["slot"] != NO_AUDIO:
            self._free.append(message["slot"])
        self._pump()

    def _hand_over(self, index: int, slot: int, deadline: float) -> None:
        self._next_index = index + 1
        self._in_flight.add(index)
        self._send("window", index=index, slot=slot, deadline=deadline)

    def _skipped(self, index: int) -> None:
        self.skipped_chunks += 1
        self.listener.on_skip(index)

    def _pump(self) -> None:
        while self._pending and self._free and self._opened:
            window, deadline = self._pending.popleft()
            slot = self._free.popleft()
            self._arena.windows[slot] = window.pcm
            self._hand_over(window.index, slot, deadline)
        if len(self._pending) < PENDING_WINDOWS // 2:
            self._room.set()
        else:
            self._room.clear()

    def _send(self, kind: str, **values: Any) -> None:
        self._engine.send({"type": kind, "session": self.name, **values})
