"""The model's own process: `python -m stream.model_process FD SETTINGS`, started by `stream.engine` only.

It reads what arrived, takes the most urgent window and answers with the chunk's motion; whoever shows it draws it.
States live here, one per session. The end of the control socket means that the server is gone: exit.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import select
import signal
import socket
import sys
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from pipeline.state import Controls, StreamState
from pipeline.windowing import AudioWindow, WindowSpec
from stream.engine_messages import (
    Close,
    Failed,
    Motion,
    Open,
    Ready,
    Refused,
    SetControls,
    Skipped,
    StepCost,
    ToModel,
    Window,
)
from stream.schedule import Job, Schedule
from stream.served_model import load_from, refusal
from stream.wire import Unpacker, pack

logger = logging.getLogger("stream.model_process")

READ_BYTES = 1 << 16


@dataclass
class _Session:
    """One session's place here: its state after the last chunk, and the sound of its last window."""

    state: StreamState
    spec: WindowSpec
    heard: npt.NDArray[np.float32]

    def hear(self, pcm: bytes) -> npt.NDArray[np.float32]:
        """The whole window, of which `pcm` is all or what is new."""
        new = np.frombuffer(pcm, np.float32)
        self.heard = new if len(new) == len(self.heard) else np.concatenate([self.heard[len(new) :], new])
        return self.heard


class ModelProcess:
    """Owns the pipeline and every session's state."""

    def __init__(self, control: socket.socket, settings: dict[str, Any]) -> None:
        self._control = control
        self._unpacker: Unpacker[ToModel] = Unpacker(ToModel)  # type: ignore[arg-type]
        self._sessions: dict[str, _Session] = {}
        self._pipe = load_from(settings["factory"], settings)
        full = settings["steps"] or self._pipe.scheduler.config.num_inference_steps
        self._schedule = Schedule(full_steps=full, min_steps=settings["min_steps"])
        gc.collect()
        gc.freeze()
        self._send(
            Ready(
                left_frames=self._pipe.window_spec().left_frames,
                device=str(self._pipe.device),
                face_sha256=self._pipe.face_sha256,
            )
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
        data = self._control.recv(READ_BYTES)
        if not data:
            return False
        for message in self._unpacker.push(data):
            self._handle(message)
        return True

    def _handle(self, message: ToModel) -> None:
        if isinstance(message, Open):
            self._open(message)
        elif message.session not in self._sessions:
            logger.debug("%s for session %s, which is gone", type(message).__name__, message.session)
        elif isinstance(message, Window):
            spec = self._sessions[message.session].spec
            self._schedule.add(
                Job(
                    session=message.session,
                    index=message.index,
                    deadline=message.deadline,
                    pcm=message.pcm,
                    useful_s=spec.hop_frames / spec.fps,
                )
            )
        elif isinstance(message, SetControls):
            session = self._sessions[message.session]
            session.state = session.state.with_controls(_controls(message))
        elif isinstance(message, Close):
            self._schedule.forget(message.session)
            del self._sessions[message.session]

    def _open(self, message: Open) -> None:
        try:
            spec = self._pipe.window_spec(message.hop_frames, message.right_frames)
            z_ref_D = np.frombuffer(message.z_ref, np.float32)
            state = self._pipe.start(z_ref_D, window=spec, seed=message.seed, controls=_controls(message))
        except Exception as error:
            logger.exception("session %s could not be opened", message.session)
            self._send(Failed(session=message.session, message=f"The model refused the session: {error}"))
            return
        self._sessions[message.session] = _Session(
            replace(state, chunk_index=message.chunk_index), spec, np.zeros(spec.window_samples, np.float32)
        )

    def _step(self, job: Job, steps: int) -> None:
        session = self._sessions[job.session]
        pcm = session.hear(job.pcm)
        if steps == 0:
            session.state = session.state.skip()
            self._send(Skipped(session=job.session, index=job.index))
            return
        window = AudioWindow(job.index, session.spec.start_sample(job.index), pcm)
        started = time.monotonic()
        try:
            state, motion = self._pipe.move(session.state, window, num_inference_steps=steps)
        except Exception as error:
            logger.exception("session %s failed at chunk %d", job.session, job.index)
            self._schedule.forget(job.session)
            del self._sessions[job.session]
            self._send(Failed(session=job.session, message=f"The model failed: {error}"))
            return
        took_s = time.monotonic() - started
        stages_ms = {name: round(value, 3) for name, value in motion.timings_ms.items()}
        self._send(
            Motion(
                session=job.session,
                index=job.index,
                first_frame=motion.first_frame,
                frames=len(motion.z_TD),
                z=motion.z_TD.tobytes(),
                cost=StepCost(
                    denoising_steps=steps, started_s=started, step_ms=1000 * took_s, stages_ms=stages_ms
                ),
            )
        )
        # What windows that were left out add to the hearing is not what a step takes.
        heard = session.spec.hop_frames / (session.spec.hop_frames + session.state.unheard_frames)
        denoising_s = motion.timings_ms["denoise"] / 1000
        self._schedule.observe(steps, (took_s - denoising_s) * heard, denoising_s)
        session.state = state

    def _send(self, message: msgspec.Struct) -> None:
        self._control.sendall(pack(message))


def _controls(message: Open | SetControls) -> Controls:
    return Controls(**asdict(message.controls))


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
            control.sendall(pack(Refused(message=refusal(settings["name"], error))))
            return 1
        process.run()
    except (BrokenPipeError, ConnectionResetError):
        logger.info("the server is gone; the model process ends")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
