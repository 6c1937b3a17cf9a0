"""The model as the sessions see it: windows in, frames out, whatever happens to its process.

The process is spawned (never forked), with OMP_WAIT_POLICY=PASSIVE before torch is imported, and supervised:
when it dies or hangs it is started anew and every session is opened again in it. Meanwhile windows are
counted as skipped; the sessions' tracks repeat the last picture.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import socket
import sys
import tempfile
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from pipeline.portrait import Portrait
from pipeline.windowing import AudioWindow, WindowSpec
from stream.arena import Arena
from stream.config import ModelConfig
from stream.errors import EngineError, PictureRefusedError
from stream.preparation import read_portrait
from stream.protocol import ControlValues
from stream.schedule import NO_AUDIO
from stream.wire import Unpacker, pack

logger = logging.getLogger(__name__)

SLOTS = 8  # windows on their way per session: 640 ms at hop 2
PENDING_WINDOWS = 8
READ_BYTES = 1 << 16
MAX_DESCRIPTORS = 8
PREPARE_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 2.0
RESTART_PAUSE_S = 0.2


@dataclass(frozen=True, kw_only=True)
class EngineChunk:
    """The frames of one chunk, uint8 [hop, H, W, 3], and what they cost."""

    first_frame: int
    frames: npt.NDArray[np.uint8]
    steps: int
    step_ms: float
    timings_ms: dict[str, float]


class EngineListener(Protocol):
    """What a session hears from the engine, always on the event loop and never blocking."""

    def on_chunk(self, chunk: EngineChunk) -> None: ...

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
        engine: ModelEngine,
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
        elif kind == "chunk":
            frames = self._arena.frames[message["slot"]].copy()
            self._release(message)
            self.listener.on_chunk(
                EngineChunk(
                    first_frame=message["first_frame"],
                    frames=frames,
                    steps=message["steps"],
                    step_ms=message["step_ms"],
                    timings_ms=message["timings_ms"],
                )
            )

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


class ModelEngine:
    """Owns the model process. `async with ModelEngine(config)`; ready when entered."""

    def __init__(self, config: ModelConfig) -> None:
        self._config = config
        self._sessions: dict[str, EngineSession] = {}
        self._names = itertools.count(1)
        self._control: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._unpacker = Unpacker()
        self._descriptors: list[int] = []
        self._preparing: dict[int, asyncio.Future[Portrait]] = {}
        self._gone = asyncio.Event()
        self._first_ready: asyncio.Future[None] | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._heard_at = 0.0
        self._starts: deque[float] = deque()
        self._left_frames = 0
        self.device = ""
        self.live = False
        self.failed = False  # given up for good
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Start the process and wait until it has loaded the model; raises EngineError."""
        self._first_ready = asyncio.get_running_loop().create_future()
        self._supervisor = asyncio.create_task(self._supervise(), name="engine-supervisor")
        await self._first_ready

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every session and end the process. Idempotent."""
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is None:
            return
        supervisor.cancel()
        await asyncio.gather(supervisor, return_exceptions=True)
        for session in list(self._sessions.values()):
            session.close()

    def window_spec(self, *, hop_frames: int, right_frames: int) -> WindowSpec:
        return WindowSpec(hop_frames=hop_frames, left_frames=self._left_frames, right_frames=right_frames)

    def open(
        self,
        portrait: Portrait,
        *,
        spec: WindowSpec,
        seed: int,
        controls: ControlValues,
        listener: EngineListener,
    ) -> EngineSession:
        """A new session; its first windows may be submitted at once."""
        name = str(next(self._names))
        session = EngineSession(
            self, name, portrait=portrait, spec=spec, seed=seed, controls=controls, listener=listener
        )
        self._sessions[name] = session
        if self.live:
            session.open()
        return session

    async def prepare(self, picture: bytes, *, name: str) -> Portrait:
        """A portrait from a JPEG, PNG or WebP file; raises PictureRefusedError or EngineError."""
        number = next(self._names)
        future: asyncio.Future[Portrait] = asyncio.get_running_loop().create_future()
        self._preparing[number] = future
        try:
            with tempfile.TemporaryFile() as file:
                file.write(picture)
                file.seek(0)
                self.send({"type": "prepare", "number": number, "name": name}, descriptors=[file.fileno()])
            async with asyncio.timeout(PREPARE_TIMEOUT_S):
                return await future
        except TimeoutError as error:
            raise EngineError("The picture took too long to prepare; please try again.") from error
        finally:
            del self._preparing[number]

    def _prepared(self, message: dict[str, Any]) -> None:
        portrait = None
        if "code" not in message:
            descriptor = self._descriptors.pop(0)
            portrait = read_portrait(descriptor, name=message["name"], sha256=message["sha256"])
        future = self._preparing.get(message["number"])
        if future is None or future.done():
            return
        if portrait is not None:
            future.set_result(portrait)
        else:
            future.set_exception(PictureRefusedError(message["message"], code=message["code"]))

    def forget(self, name: str) -> None:
        self._sessions.pop(name, None)

    def send(self, message: dict[str, Any], *, descriptors: list[int] | None = None) -> None:
        """Send to the process; a process that does not read any more is ended (and started anew)."""
        if self._control is None:
            return
        data = pack(message)
        try:
            if descriptors:
                sent = socket.send_fds(self._control, [data], descriptors)
            else:
                sent = self._control.send(data)
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            sent = 0
        if sent != len(data):
            logger.error("the model process does not take messages any more")
            self._gone.set()

    # --- supervision ---

    async def _supervise(self) -> None:
        try:
            while True:
                try:
                    await self._run_once()
                except EngineError as error:
                    if self._first_ready is not None and not self._first_ready.done():
                        self._first_ready.set_exception(error)
                        return
                    logger.error("%s", error)
                self._limit_restarts()
                self.restarts += 1
                logger.warning("the model process went away; starting it again")
                await asyncio.sleep(RESTART_PAUSE_S)
        except EngineError as error:
            logger.critical("%s", error)
            self.failed = True
            for session in list(self._sessions.values()):
                session.listener.on_failure(str(error))

    def _limit_restarts(self) -> None:
        now = time.monotonic()
        self._starts.append(now)
        while self._starts and now - self._starts[0] > 60:
            self._starts.popleft()
        if len(self._starts) > self._config.max_restarts_per_minute:
            raise EngineError(
                f"The model process ended {len(self._starts)} times within a minute, so it is not "
                "started again; see the log for its last error."
            )

    async def _run_once(self) -> None:
        """One life of the process: start, serve until it goes away, clean up."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        settings = asdict(self._config) | {"log_level": logging.getLogger().getEffectiveLevel()}
        command = [sys.executable, "-m", "stream.model_process", str(theirs.fileno()), json.dumps(settings)]
        environment = os.environ | {
            "OMP_WAIT_POLICY": "PASSIVE",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        self._gone.clear()
        self._unpacker = Unpacker()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command, pass_fds=[theirs.fileno()], env=environment
            )
            theirs.close()
            self._control = ours
            self._heard_at = time.monotonic()
            loop.add_reader(ours.fileno(), self._read)
            await self._watch()
        finally:
            was_live, self.live = self.live, False
            loop.remove_reader(ours.fileno())
            self._control = None
            ours.close()
            theirs.close()
            if self._process is not None:
                await asyncio.shield(_end(self._process))
            if was_live:
                for session in list(self._sessions.values()):
                    session.process_gone()
            for future in self._preparing.values():
                if not future.done():
                    future.set_exception(
                        EngineError("The model process stopped; please try again in a moment.")
                    )
            for descriptor in self._descriptors:
                os.close(descriptor)
            self._descriptors.clear()

    async def _watch(self) -> None:
        """Until the process is gone, does not start, or hangs with work waiting."""
        while not self._gone.is_set():
            try:
                async with asyncio.timeout(0.5):
                    await self._gone.wait()
            except TimeoutError:
                busy = any(session.queued for session in self._sessions.values())
                if self.live and not busy:
                    self._heard_at = time.monotonic()
                quiet_s = time.monotonic() - self._heard_at
                if not self.live and quiet_s > self._config.start_timeout_s:
                    raise EngineError(
                        f"The model process was not ready within {quiet_s:.0f} s; is the machine overloaded?"
                    ) from None
                if self.live and quiet_s > self._config.hang_timeout_s:
                    raise EngineError(f"The model process gave no answer for {quiet_s:.0f} s.") from None
        if not self.live:
            raise EngineError("The model process ended before it was ready; its error is in the log above.")

    def _read(self) -> None:
        """Wake-up from the control socket; everything here is on the event loop and short."""
        if self._control is None:
            return
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, READ_BYTES, MAX_DESCRIPTORS)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data, descriptors = b"", []
        self._descriptors += descriptors
        if not data:
            self._gone.set()
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            return
        self._heard_at = time.monotonic()
        for message in self._unpacker.push(data):
            if message["type"] == "ready":
                self._ready(message)
            elif message["type"] == "prepared":
                self._prepared(message)
            elif (session := self._sessions.get(message["session"])) is not None:
                session.handle(message)

    def _ready(self, message: dict[str, Any]) -> None:
        self._left_frames = message["left_frames"]
        self.device = message["device"]
        self.live = True
        for session in list(self._sessions.values()):
            session.open()
            session.listener.on_engine(True)
        if self._first_ready is not None and not self._first_ready.done():
            self._first_ready.set_result(None)


async def _end(process: asyncio.subprocess.Process) -> None:
    """The process sees the end of its socket and exits; if not, it is killed. Always reaped."""
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
