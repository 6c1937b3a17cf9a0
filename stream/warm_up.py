"""Run the model before anyone waits for it, and measure a step: the latency budget comes from here."""

from __future__ import annotations

import asyncio
import logging
import time

import numpy as np

from pipeline.portrait import Portrait
from pipeline.windowing import AudioWindow
from stream.config import MediaConfig
from stream.engine import ModelEngine
from stream.engine_session import EngineFrames
from stream.errors import EngineError
from stream.protocol import FPS, ControlValues, LatencyBudget

logger = logging.getLogger(__name__)

FIRST_WINDOWS_IGNORED = 3
WINDOW_TIMEOUT_S = 60.0
REST_S = 0.015  # in which a live session's model brings its memory up to date
# A live session shares the cores with codecs, network and often the browser, which the warm-up does not: with all of
# them on two cores, a step that took 36 ms in warm-up took 63 ms.
LIVE_FACTOR = 1.3


class _Probe:
    """Listens to one warm-up session."""

    def __init__(self) -> None:
        self.answers: asyncio.Queue[EngineFrames | str] = asyncio.Queue()

    def on_frames(self, made: EngineFrames) -> None:
        self.answers.put_nowait(made)

    def on_skip(self, index: int) -> None:
        self.answers.put_nowait(f"The model left out warm-up chunk {index}.")

    def on_engine(self, live: bool) -> None:
        if not live:
            self.answers.put_nowait("The model process ended during warm-up.")

    def on_failure(self, message: str) -> None:
        self.answers.put_nowait(message)


async def warm_up(
    engine: ModelEngine, portrait: Portrait, media: MediaConfig, *, windows: int
) -> list[float]:
    """Wall time of each measured step in ms, from submission to the chunk's first frame in hand, one at a time, on
    silence."""
    probe = _Probe()
    spec = engine.window_spec(hop_frames=media.hop_frames, right_frames=media.right_frames)
    session = engine.open(portrait, spec=spec, seed=0, controls=ControlValues(), listener=probe)
    times_ms = []
    silence = np.zeros(spec.window_samples, np.float32)
    try:
        for index in range(windows):
            started = time.monotonic()
            session.submit(AudioWindow(index, spec.start_sample(index), silence), started + WINDOW_TIMEOUT_S)
            while True:
                async with asyncio.timeout(WINDOW_TIMEOUT_S):
                    answer = await probe.answers.get()
                if isinstance(answer, str):
                    raise EngineError(answer)
                if answer.cost is not None:
                    times_ms.append(1000 * (time.monotonic() - started))
                if answer.last:
                    break
            await asyncio.sleep(REST_S)
    except TimeoutError as error:
        raise EngineError(f"The model gave no frames within {WINDOW_TIMEOUT_S:.0f} s of warm-up.") from error
    finally:
        session.close()
    return times_ms[FIRST_WINDOWS_IGNORED:]


def latency_budget(
    media: MediaConfig, times_ms: list[float], *, hop_frames: int, right_frames: int
) -> LatencyBudget:
    """The budget of a session with this hop and look-ahead; the step allowance is given or measured."""
    allowance_ms = media.step_allowance_ms
    if allowance_ms is None:
        measured = (
            LIVE_FACTOR * float(np.percentile(times_ms, 95)) if times_ms else media.max_step_allowance_ms
        )
        allowance_ms = float(np.clip(measured, media.min_step_allowance_ms, media.max_step_allowance_ms))
    return LatencyBudget(
        hop_ms=1000 * hop_frames / FPS,
        right_context_ms=1000 * right_frames / FPS,
        step_allowance_ms=allowance_ms,
        margin_ms=media.margin_ms,
        floor_ms=media.floor_ms,
    )
