"""One session's line to the model process: windows out, motion back and drawn, none unaccounted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from pipeline.drawing import PreparedPortrait
from pipeline.windowing import AudioWindow, WindowSpec
from stream.engine_messages import (
    Close,
    Failed,
    FromModel,
    Motion,
    Open,
    SetControls,
    Skipped,
    StepCost,
    ToModel,
    Window,
)
from stream.protocol import FPS, ControlValues

logger = logging.getLogger(__name__)

IN_FLIGHT = 8  # windows on their way per session: 640 ms at hop 2
PENDING_WINDOWS = 8
DRAWING_SMOOTHING = 0.1

Floats = npt.NDArray[np.float32]


class Draws(Protocol):
    """Pictures of one portrait: `pipeline.drawing.Painter`, or what stands in for it in tests."""

    def draw(self, z_TD: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]: ...


class Wire(Protocol):
    """What a line needs of the engine that owns the process."""

    live: bool

    def send(self, message: ToModel) -> None: ...

    def forget(self, name: str) -> None: ...


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
    """One session's line to the model. Not to be shared between tasks; event loop only.

    painter: draws the portrait, in a thread of `threads`.
    """

    def __init__(
        self,
        engine: Wire,
        name: str,
        *,
        portrait: PreparedPortrait,
        painter: Draws,
        threads: Executor,
        spec: WindowSpec,
        seed: int,
        controls: ControlValues,
        listener: EngineListener,
    ) -> None:
        self.name = name
        self.spec = spec
        self.listener = listener
        self._engine = engine
        self._z_ref = portrait.z_ref.astype(np.float32).tobytes()
        self._painter = painter
        self._threads = threads
        self._seed = seed
        self._controls = controls
        self._pending: deque[tuple[AudioWindow, float]] = deque()
        self._in_flight: dict[int, float] = {}  # windows that are not drawn yet, and when they are due
        self._motions: deque[Motion] = deque()  # that are not drawn yet, the first of them being drawn
        self._drawing: asyncio.Task[None] | None = None
        self._drawing_s = 0.0
        self._shown: tuple[int, Floats] = (
            -1,
            np.zeros(0, np.float32),
        )  # the last frame that was drawn, its motion
        self._sent_index: int | None = None  # of the last window whose sound the process has
        self._next_index = 0
        self._opened = False
        self._closed = False
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

        Bounded: beyond IN_FLIGHT + PENDING_WINDOWS the oldest waiting window is skipped, counted.
        """
        if self._closed:
            return
        if not self._engine.live or not self._opened:
            self._next_index = window.index + 1
            self._skipped(window.index)
            return
        self._pending.append((window, deadline))
        if len(self._pending) > PENDING_WINDOWS:
            self._hand_over(self._pending.popleft()[0], 0.0, passed_over=True)
        self._pump()

    def set_controls(self, controls: ControlValues) -> None:
        """Used from the next chunk on."""
        self._controls = controls
        if self._opened and self._engine.live:
            self._engine.send(SetControls(session=self.name, controls=controls))

    def close(self) -> None:
        """Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._opened and self._engine.live:
            self._engine.send(Close(session=self.name))
        if self._drawing is not None:
            self._drawing.cancel()
        self._pending.clear()
        self._room.set()
        self._engine.forget(self.name)

    # --- called by the engine ---

    def open(self) -> None:
        """Open in the process, from the next window on (again, after a restart)."""
        self._opened = True
        self._sent_index = None
        self._room.set()
        self._engine.send(
            Open(
                session=self.name,
                z_ref=self._z_ref,
                hop_frames=self.spec.hop_frames,
                right_frames=self.spec.right_frames,
                seed=self._seed,
                controls=self._controls,
                chunk_index=self._next_index,
            )
        )
        self._pump()

    def process_gone(self) -> None:
        """Everything on its way is lost, and counted; what is being drawn is not."""
        self._opened = False
        here = {motion.index for motion in self._motions}
        lost = sorted([*(self._in_flight.keys() - here), *(window.index for window, _ in self._pending)])
        self._in_flight = {index: due_s for index, due_s in self._in_flight.items() if index in here}
        self._pending.clear()
        for index in lost:
            self._next_index = max(self._next_index, index + 1)
            self._skipped(index)
        self.listener.on_engine(False)

    def handle(self, message: FromModel) -> None:
        if isinstance(message, Failed):
            self.listener.on_failure(message.message)
        elif isinstance(message, Skipped):
            self._release(message.index)
            self._skipped(message.index)
        elif isinstance(message, Motion):
            self._motions.append(message)
            if self._drawing is None or self._drawing.done():
                self._drawing = asyncio.create_task(self._draw_all(), name=f"drawing-{self.name}")

    # --- drawing ---

    async def _draw_all(self) -> None:
        """Chunk after chunk and frame after frame: the first is due first."""
        try:
            while self._motions:
                await self._draw(self._motions[0])
        except Exception as error:
            logger.exception("session %s cannot be drawn", self.name)
            self.listener.on_failure(f"The portrait could not be drawn ({type(error).__name__}: {error}).")

    async def _draw(self, motion: Motion) -> None:
        z_TD = np.frombuffer(motion.z, np.float32).reshape(motion.frames, -1)
        due_s = self._in_flight[motion.index]
        await self._draw_between(motion.first_frame, z_TD[0], due_s)
        began, told = time.monotonic(), False
        for frame in range(motion.frames):
            last = frame == motion.frames - 1
            if not last and time.monotonic() > due_s + (frame + 1) / FPS:
                continue  # the one after it is due already
            pictures = await self._painted(z_TD[frame])
            cost = None if told else self._whole_cost(motion.cost, time.monotonic() - began)
            told = True
            if last:
                self._motions.popleft()
                self._release(motion.index)
            first = motion.first_frame + frame
            self.listener.on_frames(EngineFrames(first_frame=first, frames=pictures, cost=cost, last=last))
        self._shown = (motion.first_frame + motion.frames - 1, z_TD[-1])

    async def _draw_between(self, first_frame: int, z_D: Floats, due_s: float) -> None:
        """The frames of windows that were left out, as far as they are in time and make none late that comes after
        them: the face goes straight from the last motion to the next."""
        last, last_z_D = self._shown
        missing = list(range(last + 1, first_frame)) if last >= 0 else []
        while missing:
            ready_s = time.monotonic() + self._drawing_s
            if ready_s > due_s - (first_frame - missing[0]) / FPS:
                missing.pop(0)
                continue
            if ready_s + len(missing) * self._drawing_s > due_s:
                return
            frame = missing.pop(0)
            share = (frame - last) / (first_frame - last)
            pictures = await self._painted(last_z_D + np.float32(share) * (z_D - last_z_D))
            self.listener.on_frames(EngineFrames(first_frame=frame, frames=pictures, cost=None, last=False))

    async def _painted(self, z_D: Floats) -> npt.NDArray[np.uint8]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._painter.draw, z_D[None])

    def _whole_cost(self, cost: StepCost, drawing_s: float) -> StepCost:
        self._drawing_s += DRAWING_SMOOTHING * (drawing_s - self._drawing_s)
        drawing_ms = round(1000 * drawing_s, 3)
        return msgspec.structs.replace(
            cost, step_ms=cost.step_ms + drawing_ms, stages_ms=cost.stages_ms | {"draw": drawing_ms}
        )

    # --- windows ---

    def _release(self, index: int) -> None:
        self._in_flight.pop(index, None)
        self._pump()

    def _hand_over(self, window: AudioWindow, deadline: float, *, passed_over: bool = False) -> None:
        index = window.index
        if passed_over:
            pcm = b""
        elif self._sent_index == index - 1:
            pcm = self.spec.fresh(window).tobytes()
        else:
            pcm = window.pcm.tobytes()
        if not passed_over:
            self._sent_index = index
        self._next_index = index + 1
        self._in_flight[index] = deadline
        self._engine.send(
            Window(session=self.name, index=index, deadline=deadline - self._drawing_s, pcm=pcm)
        )

    def _skipped(self, index: int) -> None:
        self.skipped_chunks += 1
        self.listener.on_skip(index)

    def _pump(self) -> None:
        while self._pending and len(self._in_flight) < IN_FLIGHT and self._opened:
            self._hand_over(*self._pending.popleft())
        if len(self._pending) < PENDING_WINDOWS // 2:
            self._room.set()
        else:
            self._room.clear()
