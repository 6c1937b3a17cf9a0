"""Run the model before anyone waits for it, and measure its steps: chunk size and latency budget come from here."""

from __future__ import annotations

import asyncio
import logging
import time

import av
import numpy as np
import numpy.typing as npt

from pipeline.drawing import PreparedPortrait
from pipeline.windowing import AudioWindow, WindowSpec
from stream.aiortc_patches import TunedH264Encoder
from stream.config import MediaConfig
from stream.engine import ModelEngine
from stream.engine_session import EngineFrames
from stream.errors import EngineError
from stream.pace import HOPS, Pace
from stream.protocol import ControlValues
from stream.tracks import VIDEO_TICKS, VIDEO_TIME_BASE, yuv

logger = logging.getLogger(__name__)

FIRST_WINDOWS_IGNORED = 3
WINDOW_TIMEOUT_S = 60.0
ENCODED_PICTURES = 12
REST_S = 0.015  # in which a live session's model brings its memory up to date


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
    engine: ModelEngine, portrait: PreparedPortrait, media: MediaConfig, *, windows: int
) -> Pace:
    """Step the model on silence, one window at a time, with every chunk size that a session may get."""
    times_ms, whole_times_ms = {}, {}
    for hop in HOPS if media.hop_frames is None else (media.hop_frames,):
        spec = engine.window_spec(hop_frames=hop, right_frames=media.right_frames)
        times_ms[hop], whole_times_ms[hop] = await _measure(engine, portrait, spec, windows=windows)
    encode_ms = await asyncio.to_thread(_encode_ms, portrait.canvas, media)
    return Pace(media, times_ms, whole_times_ms, encode_ms)


def _encode_ms(canvas: npt.NDArray[np.uint8], media: MediaConfig) -> float:
    """What converting and encoding a picture takes, one that differs a little from the one before."""
    encoder = TunedH264Encoder(
        bit_rate=1000 * media.video_bitrate_kbps, max_bit_rate=1000 * media.max_video_bitrate_kbps
    )
    times_ms = []
    for number in range(ENCODED_PICTURES):
        started = time.perf_counter()
        frame = av.VideoFrame.from_ndarray(yuv(np.roll(canvas, number % 3, 1)), format="yuv420p")
        frame.pts, frame.time_base = number * VIDEO_TICKS, VIDEO_TIME_BASE
        encoder.encode(frame, force_keyframe=False)
        times_ms.append(1000 * (time.perf_counter() - started))
    return float(np.median(times_ms))


async def _measure(
    engine: ModelEngine, portrait: PreparedPortrait, spec: WindowSpec, *, windows: int
) -> tuple[list[float], list[float]]:
    """Wall time of each step in ms, from submission to the chunk's first frame in hand, and to its last."""
    probe = _Probe()
    session = engine.open(portrait, spec=spec, seed=0, controls=ControlValues(), listener=probe)
    times_ms, whole_times_ms = [], []
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
                taken_ms = 1000 * (time.monotonic() - started)
                if answer.cost is not None:
                    times_ms.append(taken_ms)
                if answer.last:
                    whole_times_ms.append(taken_ms)
                    break
            await asyncio.sleep(REST_S)
    except TimeoutError as error:
        raise EngineError(f"The model gave no frames within {WINDOW_TIMEOUT_S:.0f} s of warm-up.") from error
    finally:
        session.close()
    return times_ms[FIRST_WINDOWS_IGNORED:], whole_times_ms[FIRST_WINDOWS_IGNORED:]
