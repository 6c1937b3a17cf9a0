"""What a session draws of the motion that comes: all frames in order, those in between, none that nobody would see."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.windowing import AudioWindow, WindowSpec
from stream.engine_messages import FromModel, Motion, Skipped, StepCost, ToModel
from stream.engine_session import EngineFrames, EngineSession
from stream.protocol import FPS, ControlValues
from tests.streaming.portraits import plain_prepared

SPEC = WindowSpec(hop_frames=2, left_frames=6, right_frames=2)


class Wire:
    live = True

    def send(self, message: ToModel) -> None: ...

    def forget(self, name: str) -> None: ...


class Painter:
    """A picture is the motion's number; one takes `each_s`."""

    def __init__(self) -> None:
        self.each_s = 0.0

    def draw(self, z_TD: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        time.sleep(self.each_s * len(z_TD))
        return np.rint(z_TD[:, :1, None, None]).astype(np.uint8).repeat(3, -1)


class Shown:
    """Frame by frame what was drawn."""

    def __init__(self) -> None:
        self.frames: dict[int, int] = {}
        self.costs: list[StepCost] = []
        self.ends = 0
        self.skipped: list[int] = []

    def on_frames(self, made: EngineFrames) -> None:
        assert list(self.frames) == sorted(self.frames)
        self.frames[made.first_frame] = int(made.frames[0, 0, 0, 0])
        self.costs += [made.cost] if made.cost is not None else []
        self.ends += made.last

    def on_skip(self, index: int) -> None:
        self.skipped.append(index)

    def on_engine(self, live: bool) -> None: ...

    def on_failure(self, message: str) -> None:
        raise AssertionError(message)


class Case:
    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self.painter, self.shown = Painter(), Shown()
        self.session = EngineSession(
            Wire(), "a", portrait=plain_prepared(), painter=self.painter, threads=threads, spec=SPEC, seed=0,
            controls=ControlValues(), listener=self.shown,
        )  # fmt: skip
        self.session.open()

    def ask(self, index: int, due_s: float) -> None:
        silence = np.zeros(SPEC.window_samples, np.float32)
        self.session.submit(AudioWindow(index, SPEC.start_sample(index), silence), due_s)

    def hear(self, message: FromModel) -> None:
        self.session.handle(message)

    async def drawn(self, chunks: int) -> dict[int, int]:
        async with asyncio.timeout(10):
            while self.shown.ends < chunks:  # noqa: ASYNC110 - a test polls
                await asyncio.sleep(0.005)
        return self.shown.frames


def moved(index: int, *values: float) -> Motion:
    z_TD = np.array(values, np.float32)[:, None]
    return Motion(
        session="a",
        index=index,
        first_frame=2 * index,
        frames=len(values),
        z=z_TD.tobytes(),
        cost=StepCost(denoising_steps=2, started_s=0.0, step_ms=1.0, stages_ms={}),
    )


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as running:
        yield running


async def test_between_windows_the_face_goes_straight_from_one_motion_to_the_next(
    threads: ThreadPoolExecutor,
) -> None:
    case, due_s = Case(threads), time.monotonic() + 5.0
    for index in range(3):
        case.ask(index, due_s + index * 2 / FPS)
    case.hear(moved(0, 10, 20))
    case.hear(Skipped(session="a", index=1))
    case.hear(moved(2, 50, 60))
    assert await case.drawn(2) == {0: 10, 1: 20, 2: 30, 3: 40, 4: 50, 5: 60}
    assert len(case.shown.costs) == 2
    assert case.shown.skipped == [1]


async def test_what_would_come_too_late_is_not_drawn(threads: ThreadPoolExecutor) -> None:
    case = Case(threads)
    now = time.monotonic()
    case.ask(0, now + 5.0)
    case.hear(moved(0, 10, 20))
    await case.drawn(1)
    case.ask(1, now - 3 / FPS)
    case.ask(2, now - 1.2 / FPS)
    case.hear(Skipped(session="a", index=1))
    case.hear(moved(2, 50, 60))
    frames = await case.drawn(2)
    assert frames == {0: 10, 1: 20, 5: 60}, "the last of a chunk is always shown"
    assert len(case.shown.costs) == 2


async def test_frames_between_make_none_late_that_comes_after_them(threads: ThreadPoolExecutor) -> None:
    case = Case(threads)
    case.ask(0, time.monotonic() + 5.0)
    case.painter.each_s = 0.05
    for _ in range(20):  # until it is known how long drawing takes
        case.session._whole_cost(moved(0, 0).cost, 0.05)
    case.hear(moved(0, 10, 20))
    await case.drawn(1)
    due_s = time.monotonic() + 0.13
    case.ask(1, due_s - 2 / FPS)
    case.ask(2, due_s)
    case.hear(Skipped(session="a", index=1))
    case.hear(moved(2, 50, 60))
    frames = await case.drawn(2)
    assert 4 in frames
    assert 2 not in frames


async def test_what_was_made_before_the_process_went_is_drawn_whole(threads: ThreadPoolExecutor) -> None:
    case, due_s = Case(threads), time.monotonic() + 5.0
    case.painter.each_s = 0.02
    for index in range(3):
        case.ask(index, due_s + index * 2 / FPS)
    case.hear(moved(0, 10, 20))
    case.hear(moved(1, 30, 40))
    case.session.process_gone()
    assert await case.drawn(2) == {0: 10, 1: 20, 2: 30, 3: 40}
    assert case.shown.skipped == [2]
