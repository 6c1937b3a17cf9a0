"""The model as the sessions see it: windows in, frames out, whatever happens to its process.

The process makes motion; pictures are drawn here, in threads that do not hold up the event loop.

The process is spawned (never forked) and supervised: when it dies or hangs it is started anew and every session is
opened again in it. Meanwhile windows are counted as skipped; the sessions' tracks repeat the last picture.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from pipeline.drawing import Painters, PreparedPortrait
from pipeline.windowing import WindowSpec
from stream import child_process
from stream.config import ModelConfig
from stream.engine_messages import FromModel, Ready, Refused, ToModel
from stream.engine_session import Draws, EngineListener, EngineSession
from stream.errors import EngineError
from stream.protocol import ControlValues
from stream.served_model import painters_from, refusal
from stream.wire import Unpacker, pack

logger = logging.getLogger(__name__)

READ_BYTES = 1 << 16
STOP_TIMEOUT_S = 2.0
RESTART_PAUSE_S = 0.2


class ModelEngine:
    """Owns the model process. `async with ModelEngine(config)`; ready when entered.

    on_failure: told, in a sentence, when the process is given up after it had been ready; the log by default.
    on_restart: called each time the process is started again.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        on_failure: Callable[[str], None] = lambda sentence: logger.critical("%s", sentence),
        on_restart: Callable[[], None] = lambda: None,
    ) -> None:
        self._config = config
        self._on_failure, self._on_restart = on_failure, on_restart
        self._sessions: dict[str, EngineSession] = {}
        self._names = itertools.count(1)
        self._control: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._unpacker: Unpacker[FromModel] = Unpacker(FromModel)  # type: ignore[arg-type]
        self._painters: Painters[Draws] | None = None
        self._threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="painter")
        self._gone = asyncio.Event()
        self._first_ready: asyncio.Future[None] | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._heard_at = 0.0
        self._refusal: str | None = None
        self._stopping = False
        self._starts: deque[float] = deque()
        self._left_frames = 0
        self.device = ""
        self.face_sha256 = ""
        self.live = False
        self.failed = False  # given up for good
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def stop_restarting(self) -> None:
        """From now on the process may go away and stay away: everything is about to end."""
        self._stopping = True

    def kill(self) -> None:
        """End the process at once, without a word to anyone. May be called in a signal handler."""
        self._stopping = True
        child_process.kill(self._process)

    async def start(self) -> None:
        """Start the process and wait until it has loaded the model; raises EngineError."""
        self._first_ready = asyncio.get_running_loop().create_future()
        self._supervisor = asyncio.create_task(self._supervise(), name="engine-supervisor")
        await self._first_ready
        # After the process, which has looked at every file of the model.
        try:
            self._painters = Painters(painters_from(self._config.factory, self._config))
        except Exception as error:
            raise EngineError(refusal(self._config.name, error)) from error

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
        self._threads.shutdown(wait=False)

    @property
    def open_sessions(self) -> int:
        return len(self._sessions)

    def window_spec(self, *, hop_frames: int, right_frames: int) -> WindowSpec:
        return WindowSpec(hop_frames=hop_frames, left_frames=self._left_frames, right_frames=right_frames)

    def open(
        self,
        portrait: PreparedPortrait,
        *,
        spec: WindowSpec,
        seed: int,
        controls: ControlValues,
        listener: EngineListener,
    ) -> EngineSession:
        """A new session; its first windows may be submitted at once."""
        assert self._painters is not None  # since it is ready
        name = str(next(self._names))
        session = EngineSession(
            self,
            name,
            portrait=portrait,
            painter=self._painters.of(portrait),
            threads=self._threads,
            spec=spec,
            seed=seed,
            controls=controls,
            listener=listener,
        )
        self._sessions[name] = session
        if self.live:
            session.open()
        return session

    def forget(self, name: str) -> None:
        self._sessions.pop(name, None)

    def send(self, message: ToModel) -> None:
        """Send to the process; a process that does not read any more is ended (and started anew)."""
        if self._control is None:
            return
        data = pack(message)
        try:
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
                    problem = None
                except EngineError as error:
                    problem = error
                # What ends all processes of the server ends this one too: the server hears of it within the pause.
                await asyncio.sleep(RESTART_PAUSE_S)
                if self._stopping:
                    return
                if problem is not None:
                    if self._first_ready is not None and not self._first_ready.done():
                        self._first_ready.set_exception(problem)
                        return
                    logger.error("%s", problem)
                self._limit_restarts()
                self.restarts += 1
                self._on_restart()
                logger.warning("the model process went away; starting it again")
        except EngineError as error:
            self.failed = True
            for session in list(self._sessions.values()):
                session.listener.on_failure(str(error))
            self._on_failure(str(error))

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
        self._gone.clear()
        self._unpacker = Unpacker(FromModel)  # type: ignore[arg-type]
        self._refusal = None
        try:
            self._process = await child_process.spawn(
                "The model process",
                "stream.model_process",
                self._config,
                str(theirs.fileno()),
                pass_fds=[theirs.fileno()],
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
                # While it loads it reads nothing, so it would not see that it is to end.
                await asyncio.shield(child_process.end(self._process, STOP_TIMEOUT_S if was_live else 0.0))
            if was_live:
                for session in list(self._sessions.values()):
                    session.process_gone()

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
            raise EngineError(self._refusal or await self._last_words())

    async def _last_words(self) -> str:
        """Why the process ended before it was ready and without saying why, as far as the system tells."""
        assert self._process is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._process.wait()
        status = self._process.returncode
        if status == -signal.SIGKILL:
            return (
                "The model process was killed before it was ready; perhaps the machine has too little memory."
            )
        how = (
            f"by the signal {signal.Signals(-status).name}"
            if status and status < 0
            else f"with status {status}"
        )
        return f"The model process ended {how} before it was ready; what it said is in the log above."

    def _read(self) -> None:
        """Wake-up from the control socket; everything here is on the event loop and short."""
        if self._control is None:
            return
        try:
            data = self._control.recv(READ_BYTES)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self._gone.set()
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            return
        self._heard_at = time.monotonic()
        for message in self._unpacker.push(data):
            if isinstance(message, Ready):
                self._ready(message)
            elif isinstance(message, Refused):
                self._refusal = message.message
            elif (session := self._sessions.get(message.session)) is not None:
                session.handle(message)

    def _ready(self, message: Ready) -> None:
        self._left_frames, self.device = message.left_frames, message.device
        self.face_sha256 = message.face_sha256
        self.live = True
        for session in list(self._sessions.values()):
            session.open()
            session.listener.on_engine(True)
        if self._first_ready is not None and not self._first_ready.done():
            self._first_ready.set_result(None)
