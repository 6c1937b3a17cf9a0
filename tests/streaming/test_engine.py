"""The supervised model process: order, separation, crash, hang, overload, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from typing import NamedTuple

import numpy as np
import pytest

from pipeline.drawing import PreparedPortrait
from pipeline.windowing import AudioWindow, WindowSpec
from stream.config import ModelConfig
from stream.engine import ModelEngine
from stream.engine_session import EngineFrames, EngineSession
from stream.errors import EngineError
from stream.protocol import ControlValues

ENERGY_MOUTH = "tests.streaming.energy_mouth"
TIMEOUT_S = 30.0


class Chunk(NamedTuple):
    first_frame: int
    frames: np.ndarray  # [hop, H, W, 3]
    steps: int


class Listener:
    """Keeps everything the engine says."""

    def __init__(self) -> None:
        self.made: list[EngineFrames] = []
        self.skipped: list[int] = []
        self.live: list[bool] = []
        self.failures: list[str] = []

    @property
    def chunks(self) -> list[Chunk]:
        whole: list[Chunk] = []
        parts: list[EngineFrames] = []
        for made in self.made:
            parts = [made] if made.cost is not None else [*parts, made]
            if made.last:
                assert parts[0].cost is not None
                frames = np.concatenate([part.frames for part in parts])
                whole.append(Chunk(parts[0].first_frame, frames, parts[0].cost.denoising_steps))
        return whole

    def on_frames(self, made: EngineFrames) -> None:
        self.made.append(made)

    def on_skip(self, index: int) -> None:
        self.skipped.append(index)

    def on_engine(self, live: bool) -> None:
        self.live.append(live)

    def on_failure(self, message: str) -> None:
        self.failures.append(message)


async def until(condition: object, timeout_s: float = TIMEOUT_S) -> None:
    assert callable(condition)
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - a test polls
            await asyncio.sleep(0.01)


def open_session(
    engine: ModelEngine, portrait: PreparedPortrait, seed: int = 0
) -> tuple[EngineSession, Listener, WindowSpec]:
    listener = Listener()
    spec = engine.window_spec(hop_frames=2, right_frames=2)
    session = engine.open(portrait, spec=spec, seed=seed, controls=ControlValues(), listener=listener)
    return session, listener, spec


def window(spec: WindowSpec, index: int, level: float) -> AudioWindow:
    return AudioWindow(index, spec.start_sample(index), np.full(spec.window_samples, level, np.float32))


def soon() -> float:
    return time.monotonic() + 5.0


async def test_two_sessions_never_mix(engine: ModelEngine, portrait: PreparedPortrait) -> None:
    a, heard_a, spec = open_session(engine, portrait, seed=1)
    b, heard_b, _ = open_session(engine, portrait, seed=5)
    for index in range(40):
        await a.room()
        a.submit(window(spec, index, 0.1), soon())
        await b.room()
        b.submit(window(spec, index, 0.2), soon())
    await until(lambda: len(heard_a.chunks) == len(heard_b.chunks) == 40)
    for heard, tint, level in ((heard_a, 40, 0.1), (heard_b, 200, 0.2)):
        assert [chunk.first_frame for chunk in heard.chunks] == list(range(0, 80, 2))
        for chunk in heard.chunks:
            assert np.all(chunk.frames[:, 0, 0, 0] == tint)
            assert abs(int(chunk.frames[0, -1, 0, 0]) - (level / 0.25 * 200 + 20)) <= 1
    a.close()
    b.close()


async def test_a_killed_process_comes_back_and_the_session_goes_on(
    engine: ModelEngine, portrait: PreparedPortrait
) -> None:
    session, heard, spec = open_session(engine, portrait, seed=3)
    for index in range(4):
        session.submit(window(spec, index, 0.1), soon())
    await until(lambda: len(heard.chunks) == 4)
    first = engine.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    index = 4
    while len(heard.chunks) < 8:
        session.submit(window(spec, index, 0.1), soon())
        index += 1
        await asyncio.sleep(0.02)
        assert index < 1_000
    assert engine.pid != first
    assert engine.restarts == 1
    assert heard.live == [False, True]
    assert not heard.failures
    await until(lambda: session.queued == 0)
    made = [chunk.first_frame // 2 for chunk in heard.chunks]
    assert sorted(made + heard.skipped) == list(range(index))  # every window made or counted, none twice
    assert np.all(heard.chunks[-1].frames[:, 0, 0, 0] == 120)  # the same session as before
    session.close()


async def test_a_process_that_hangs_is_replaced(portrait: PreparedPortrait) -> None:
    config = ModelConfig(factory=ENERGY_MOUTH, nice=0, hang_timeout_s=2.0)
    async with ModelEngine(config) as engine:
        session, heard, spec = open_session(engine, portrait)
        pid = engine.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        session.submit(window(spec, 0, 0.1), soon())
        await until(lambda: engine.restarts == 1 and engine.live)
        session.submit(window(spec, 1, 0.1), soon())
        await until(lambda: heard.chunks)
        assert heard.chunks[0].first_frame == 2
        session.close()


async def test_overload_skips_counted_and_stays_on_time(
    monkeypatch: pytest.MonkeyPatch, portrait: PreparedPortrait
) -> None:
    monkeypatch.setenv("ENERGY_MOUTH_STEP_S", "0.2")  # 80 ms of frames take 100 ms even with one step of two
    async with ModelEngine(ModelConfig(factory=ENERGY_MOUTH, nice=0)) as engine:
        session, heard, spec = open_session(engine, portrait)
        start, queued = time.monotonic(), []
        for index in range(50):
            await asyncio.sleep(max(0.0, start + 0.08 * index - time.monotonic()))
            session.submit(window(spec, index, 0.1), time.monotonic() + 0.05)
            queued.append(session.queued)
        await until(lambda: session.queued == 0)
        made = [chunk.first_frame // 2 for chunk in heard.chunks]
        assert sorted(made + heard.skipped) == list(range(50))
        assert 5 < len(made) < 48
        assert min(chunk.steps for chunk in heard.chunks) == 1  # first fewer steps, then skips
        assert max(queued[25:]) <= max(queued[:25]) + 1  # no growing queue
        session.close()


async def test_a_flood_is_bounded(monkeypatch: pytest.MonkeyPatch, portrait: PreparedPortrait) -> None:
    monkeypatch.setenv("ENERGY_MOUTH_STEP_S", "0.02")
    async with ModelEngine(ModelConfig(factory=ENERGY_MOUTH, nice=0)) as engine:
        session, heard, spec = open_session(engine, portrait)
        for index in range(200):
            session.submit(window(spec, index, 0.1), soon())
        await until(lambda: session.queued == 0)
        made = [chunk.first_frame // 2 for chunk in heard.chunks]
        await until(lambda: sorted(made + heard.skipped) == list(range(200)))
        session.close()


async def test_controls_reach_the_next_chunk(engine: ModelEngine, portrait: PreparedPortrait) -> None:
    session, heard, spec = open_session(engine, portrait)
    session.submit(window(spec, 0, 0.2), soon())
    await until(lambda: len(heard.chunks) == 1)
    session.set_controls(ControlValues(expressiveness=0.0))
    session.submit(window(spec, 1, 0.2), soon())
    await until(lambda: len(heard.chunks) == 2)
    assert heard.chunks[0].frames[0, -1, 0, 0] > 150
    assert heard.chunks[1].frames[0, -1, 0, 0] == 20
    session.close()


async def test_a_model_that_cannot_be_loaded_is_an_error_with_a_sentence() -> None:
    engine = ModelEngine(ModelConfig(name="no_such_model"))
    with pytest.raises(EngineError, match="no bundled model named 'no_such_model'"):
        await engine.start()
    await engine.aclose()


async def test_nothing_is_left_behind(portrait: PreparedPortrait) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors(), set(os.listdir("/dev/shm")), threading.active_count()
    async with ModelEngine(ModelConfig(factory=ENERGY_MOUTH, nice=0)) as engine:
        pid = engine.pid
        for seed in range(5):
            session, heard, spec = open_session(engine, portrait, seed)
            for index in range(3):
                session.submit(window(spec, index, 0.1), soon())
            await until(lambda heard=heard: len(heard.chunks) == 3)
            session.close()
            session.close()
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    await until(lambda: threading.active_count() <= before[2], 5)
    assert descriptors() <= before[0]
    assert set(os.listdir("/dev/shm")) <= before[1]
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
