"""The model's own process: `python -m stream.model_process FD SETTINGS`, started by `stream.engine` only.

Its main thread reads what arrived, takes the most urgent window, steps and answers with the chunk's first frame; a
painter's thread draws the frames that are due later. States live here, one per session; pictures and audio in the
sessions' arenas; another thread prepares new portraits. The end of
the control socket means that the server is gone: exit.
"""

from __future__ import annotations

import gc
import importlib
import json
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline import checkpoint
from pipeline.state import Controls, StreamState
from pipeline.windowing import AudioWindow, WindowSpec
from stream.arena import Arena, ArenaLayout
from stream.engine_session import StepCost
from stream.portraits.preparation import Preparation
from stream.schedule import Job, Schedule
from stream.wire import Unpacker, pack

logger = logging.getLogger("stream.model_process")

READ_BYTES = 1 << 16
MAX_DESCRIPTORS = 8
REASON_CHARACTERS = 300


def load_pipeline(settings: dict[str, Any]) -> Any:
    """The `AvatarPipeline` that the configuration names: bundled, a saved folder, or a model YAML."""
    name, device = settings["name"], settings["device"]
    is_yaml = name.endswith((".yaml", ".yml"))
    folder = None if is_yaml else checkpoint.resolve(name)  # before the slow imports: it may not exist

    from pipeline.avatar_pipeline import AvatarPipeline
    from pipeline.runtime import RuntimeConfig, prepare

    pipe = checkpoint.build(Path(name)) if folder is None else AvatarPipeline.from_pretrained(folder)
    return prepare(pipe, RuntimeConfig(device=device, threads=settings["threads"], int8=settings["int8"]))


@dataclass
class _Session:
    """One session's place here: its arena, and its state after the last chunk."""

    arena: Arena
    state: StreamState
    spec: WindowSpec
    drawing: list[Future[None]] = field(default_factory=list)

    def finish(self) -> None:
        """Wait for the last chunk's later frames: they are sent in order. Raises what went wrong with them."""
        drawing, self.drawing = self.drawing, []
        for frame in drawing:
            frame.result()


class ModelProcess:
    """Owns the pipeline and every session's state."""

    def __init__(self, control: socket.socket, settings: dict[str, Any]) -> None:
        self._control = control
        self._settings = settings
        self._sending = threading.Lock()
        self._unpacker = Unpacker()
        self._descriptors: list[int] = []
        self._sessions: dict[str, _Session] = {}
        module, _, function = settings["factory"].partition(":")
        self._pipe = getattr(importlib.import_module(module), function)(settings)
        full = settings["steps"] or self._pipe.scheduler.config.num_inference_steps
        self._preparation = Preparation(self._send, self._pipe)
        self._painter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="painter")
        self._schedule = Schedule(full_steps=full, min_steps=settings["min_steps"])
        gc.collect()
        gc.freeze()
        left_frames = self._pipe.window_spec().left_frames
        self._send(
            {"type": "ready", "left_frames": left_frames, "device": str(getattr(self._pipe, "device", "cpu"))}
        )

    def run(self) -> None:
        while self._receive(wait=not len(self._schedule)):
            decision = self._schedule.next(time.monotonic())
            if decision is not None:
                self._step(decision.job, decision.steps)

    def _receive(self, *, wait: bool) -> bool:
        """Handle what arrived; False at the end of the control socket."""
        ready, _, _ = select.select([self._control], [], [], None if wait else 0)
        if not ready:
            return True
        data, descriptors, _, _ = socket.recv_fds(self._control, READ_BYTES, MAX_DESCRIPTORS)
        if not data:
            return False
        self._descriptors += descriptors
        for message in self._unpacker.push(data):
            self._handle(message)
        return True

    def _handle(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "prepare":
            self._preparation.add(
                message["number"], message["name"], message["want"], self._descriptors.pop(0)
            )
            return
        name = message["session"]
        if kind == "open":
            self._open(name, message, self._descriptors.pop(0))
        elif name not in self._sessions:
            logger.debug("a %s message for session %s, which is gone", kind, name)
        elif kind == "window":
            job = Job(
                session=name, index=message["index"], slot=message["slot"], deadline=message["deadline"]
            )
            self._schedule.add(job)
        elif kind == "controls":
            session = self._sessions[name]
            session.state = session.state.with_controls(Controls(**message["controls"]))
        elif kind == "close":
            self._close(name)

    def _open(self, name: str, message: dict[str, Any], descriptor: int) -> None:
        arena = Arena(ArenaLayout(**message["layout"]), descriptor)
        try:
            spec = self._pipe.window_spec(message["hop_frames"], message["right_frames"])
            portrait = arena.portrait(name=message["portrait"], sha256=message["sha256"])
            controls = Controls(**message["controls"])
            state = self._pipe.init_state(portrait, window=spec, seed=message["seed"], controls=controls)
        except Exception as error:
            logger.exception("session %s could not be opened", name)
            arena.close()
            self._send(
                {"type": "failed", "session": name, "message": f"The model refused the session: {error}"}
            )
            return
        self._sessions[name] = _Session(arena, replace(state, chunk_index=message["chunk_index"]), spec)
        self._send({"type": "opened", "session": name})

    def _close(self, name: str) -> None:
        self._schedule.forget(name)
        session = self._sessions.pop(name)
        wait(session.drawing)
        session.arena.close()

    def _step(self, job: Job, steps: int) -> None:
        session = self._sessions[job.session]
        answer = {"session": job.session, "index": job.index, "slot": job.slot}
        if steps == 0:
            session.state = session.state.skip()
            self._send(answer | {"type": "skipped"})
            return
        window = AudioWindow(
            job.index, session.spec.start_sample(job.index), session.arena.windows[job.slot].copy()
        )
        started = time.monotonic()
        try:
            session.finish()
            state, motion = self._pipe.move(session.state, window, num_inference_steps=steps)
            answer |= {"type": "frames", "first_frame": motion.first_frame}
            hop = len(motion.z_TD)
            begin = self._pipe.first_frames(hop)
            pictures, drawn_ms = self._pipe.draw(state, motion.z_TD[:begin])
        except Exception as error:
            logger.exception("session %s failed at chunk %d", job.session, job.index)
            self._close(job.session)
            self._send(answer | {"type": "failed", "message": f"The model failed: {error}"})
            return
        session.arena.frames[job.slot, :begin] = pictures
        took_s = time.monotonic() - started
        stages_ms = {name: round(value, 3) for name, value in (motion.timings_ms | drawn_ms).items()}
        cost = StepCost(denoising_steps=steps, started_s=started, step_ms=1000 * took_s, stages_ms=stages_ms)
        self._send(answer | {"begin": 0, "end": begin, "cost": asdict(cost)})
        self._schedule.observe(steps, took_s)
        session.drawing = [
            self._painter.submit(self._draw, session, state, motion.z_TD[k : k + 1], answer, k)
            for k in range(begin, hop)
        ]
        session.state = self._pipe.remember(state)  # while nobody waits for it

    def _draw(
        self, session: _Session, state: StreamState, z_1D: Any, answer: dict[str, Any], frame: int
    ) -> None:
        """One of a chunk's later frames, in the painter's thread."""
        pictures, _ = self._pipe.draw(state, z_1D)
        session.arena.frames[answer["slot"], frame] = pictures[0]
        self._send(answer | {"begin": frame, "end": frame + 1, "cost": None})

    def _send(self, message: dict[str, Any], descriptors: list[int] | None = None) -> None:
        """Whole messages, from either thread; descriptors travel with the first byte."""
        data = pack(message)
        with self._sending:
            sent = socket.send_fds(self._control, [data], descriptors) if descriptors else 0
            self._control.sendall(data[sent:])


def main() -> int:
    control = socket.socket(fileno=int(sys.argv[1]))
    settings = json.loads(sys.argv[2])
    logging.basicConfig(level=settings["log_level"], format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for number in (signal.SIGINT, signal.SIGTERM):  # the server's to handle, which ends this process in order
        signal.signal(number, signal.SIG_IGN)
    try:
        try:
            os.nice(settings["nice"])
            process = ModelProcess(control, settings)
        except Exception as error:
            logger.debug("the model could not be loaded", exc_info=True)
            control.sendall(pack({"type": "refused", "message": refusal(settings, error)}))
            return 1
        process.run()
    except (BrokenPipeError, ConnectionResetError):
        logger.info("the server is gone; the model process ends")
    return 0


def refusal(settings: dict[str, Any], error: Exception) -> str:
    """Why the model could not be loaded, as a sentence."""
    if isinstance(error, checkpoint.CheckpointError):
        return str(error)
    reason = (str(error).strip().splitlines() or [""])[0].rstrip(".")[:REASON_CHARACTERS]
    return (
        f"The model '{settings['name']}' could not be loaded: {reason} ({type(error).__name__}). `--log-level debug` "
        "shows where it stopped."
    )


if __name__ == "__main__":
    raise SystemExit(main())
