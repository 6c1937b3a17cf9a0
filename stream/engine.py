"""The model as the sessions see it: windows in, frames out, whatever happens to its process.

The process is spawned (never forked), with OMP_WAIT_POLICY=PASSIVE before torch is imported, and supervised:
when it dies or hangs it is started anew and every session is opened again in it. Meanwhile windows are
counted as skipped; the sessions' tracks repeat the last picture. It is in a session (POSIX) of its own, so that what a
terminal sends to the server and its children reaches the server only, which ends it in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Self

from pipeline.portrait import Portrait
from pipeline.windowing import WindowSpec
from stream.config import ModelConfig
from stream.engine_session import EngineListener, EngineSession
from stream.errors import EngineError, PictureRefusedError
from stream.portraits.preparation import PreparedUpload, Want, read_portrait, read_upload
from stream.protocol import ControlValues
from stream.wire import Unpacker, pack

logger = logging.getLogger(__name__)

READ_BYTES = 1 << 16
MAX_DESCRIPTORS = 8
PREPARE_TIMEOUT_S = 30.0
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
        self._unpacker = Unpacker()
        self._descriptors: list[int] = []
        self._preparing: dict[int, asyncio.Future[tuple[dict[str, Any], int]]] = {}
        self._gone = asyncio.Event()
        self._first_ready: asyncio.Future[None] | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._heard_at = 0.0
        self._refusal: str | None = None
        self._stopping = False
        self._starts: deque[float] = deque()
        self._left_frames = 0
        self.device = ""
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
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

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

    @property
    def open_sessions(self) -> int:
        return len(self._sessions)

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

    async def prepare(self, picture: bytes, *, name: str, kept: bool = False) -> Portrait:
        """A portrait from a JPEG, PNG or WebP file; raises PictureRefusedError or EngineError.

        kept: the file is one that `prepare_upload` made.
        """
        message, descriptor = await self._prepare(picture, name, "kept" if kept else "portrait")
        return await asyncio.to_thread(read_portrait, descriptor, name=name, sha256=message["sha256"])

    async def prepare_upload(self, picture: bytes, *, name: str) -> PreparedUpload:
        """A foreign picture made safe, its portrait and previews of it; raises as `prepare` does."""
        message, descriptor = await self._prepare(picture, name, "upload")
        return await asyncio.to_thread(read_upload, descriptor, message)

    async def _prepare(self, picture: bytes, name: str, want: Want) -> tuple[dict[str, Any], int]:
        """The process's answer, and the descriptor of a file with the rest of it, which is the caller's to close."""
        number = next(self._names)
        future: asyncio.Future[tuple[dict[str, Any], int]] = asyncio.get_running_loop().create_future()
        self._preparing[number] = future
        try:
            with tempfile.TemporaryFile() as file:
                file.write(picture)
                file.seek(0)
                message = {"type": "prepare", "number": number, "name": name, "want": want}
                self.send(message, descriptors=[file.fileno()])
            async with asyncio.timeout(PREPARE_TIMEOUT_S):
                return await future
        except TimeoutError as error:
            raise EngineError("The picture took too long to prepare; please try again.") from error
        finally:
            del self._preparing[number]

    def _prepared(self, message: dict[str, Any]) -> None:
        descriptor = self._descriptors.pop(0) if "code" not in message else -1
        future = self._preparing.get(message["number"])
        if future is None or future.done():
            if descriptor >= 0:
                os.close(descriptor)
        elif descriptor >= 0:
            future.set_result((message, descriptor))
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
            control = self._control
            sent = socket.send_fds(control, [data], descriptors) if descriptors else control.send(data)
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
        settings = asdict(self._config) | {"log_level": logging.getLogger().getEffectiveLevel()}
        command = [sys.executable, "-m", "stream.model_process", str(theirs.fileno()), json.dumps(settings)]
        environment = os.environ | {
            "OMP_WAIT_POLICY": "PASSIVE",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        self._gone.clear()
        self._unpacker = Unpacker()
        self._refusal = None
        try:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *command, pass_fds=[theirs.fileno()], env=environment, start_new_session=True
                )
            except OSError as error:
                raise EngineError(
                    f"The model process cannot be started: {error.strerror or error}."
                ) from error
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
                await asyncio.shield(_end(self._process, STOP_TIMEOUT_S if was_live else 0.0))
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
            elif message["type"] == "refused":
                self._refusal = message["message"]
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


async def _end(process: asyncio.subprocess.Process, patience_s: float) -> None:
    """The process sees the end of its socket and exits; if not, it is killed. Always reaped."""
    try:
        async with asyncio.timeout(patience_s):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
