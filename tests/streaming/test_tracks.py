"""Both tracks on one clock, in virtual time: released in step, never waiting for the model."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError

from stream.clock import SLOT_SAMPLES, PresentationClock
from stream.playout import AudioPlayout, VideoPlayout
from stream.protocol import AUDIO_LEAD_S, FPS
from stream.tracks import AudioOut, VideoOut
from tests.streaming.virtual_clock import VirtualClock

DELAY_MS = 200.0
CANVAS = np.full((32, 32, 3), 40, np.uint8)


@dataclass
class Rig:
    """Two tracks and a recorder of what was released when."""

    time: VirtualClock = field(default_factory=VirtualClock)
    errors: list[Exception] = field(default_factory=list)
    pictures: list[tuple[float, int, int]] = field(default_factory=list)  # when, pts, brightness
    sounds: list[tuple[float, int, int]] = field(default_factory=list)  # when, pts, first sample

    def __post_init__(self) -> None:
        self.clock = PresentationClock(playout_delay_ms=DELAY_MS, now=self.time.now, sleep=self.time.sleep)
        self.audio, self.video = AudioPlayout(), VideoPlayout()
        self.audio_out = AudioOut(clock=self.clock, playout=self.audio, on_error=self.errors.append)
        self.video_out = VideoOut(
            clock=self.clock, playout=self.video, picture=CANVAS, on_error=self.errors.append
        )

    async def play(self, until: float) -> None:
        async def pictures() -> None:
            while True:
                frame = await self.video_out.recv()
                level = round(float(frame.to_ndarray(format="rgb24").mean()))
                self.pictures.append((self.time.now(), frame.pts, level))

        async def sounds() -> None:
            while True:
                frame = await self.audio_out.recv()
                self.sounds.append((self.time.now(), frame.pts, int(frame.to_ndarray()[0, 0])))

        tasks = [asyncio.create_task(pictures()), asyncio.create_task(sounds())]
        await self.time.run_until(until)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def frames(first: int, count: int) -> np.ndarray:
    """Frame k has brightness 60 + 4 k."""
    levels = np.arange(first, first + count) * 4 + 60
    return np.broadcast_to(levels[:, None, None, None], (count, 32, 32, 3)).astype(np.uint8)


def marks(samples: int) -> np.ndarray:
    """Sample n is 1 + n / 960."""
    return (1 + np.arange(samples) // 960).astype(np.int16)


async def test_sound_leaves_a_fixed_time_before_the_picture_of_its_media_time() -> None:
    rig = Rig()
    start = rig.time.now()
    rig.clock.anchor(start + 0.0123)
    rig.audio.write(0, marks(20 * SLOT_SAMPLES))
    rig.video.push(0, frames(0, 20))
    await rig.play(start + 0.9)
    for index in range(5, 15):
        shown = next(at for at, _, level in rig.pictures if abs(level - (60 + 4 * index)) <= 1)
        heard = next(at for at, _, mark in rig.sounds if mark == 1 + 2 * index)
        assert shown == pytest.approx(heard + AUDIO_LEAD_S, abs=1e-6)
        assert shown == pytest.approx(start + 0.0123 + DELAY_MS / 1000 + index / FPS, abs=1e-6)
    assert rig.video_out.missed_frames == 0


async def test_the_portrait_is_there_at_once_and_time_stamps_never_stop() -> None:
    rig = Rig()
    start = rig.time.now()
    await rig.play(start + 1.0)
    assert rig.pictures[0][0] == start
    assert abs(rig.pictures[0][2] - 40) <= 1
    assert np.all(np.diff([pts for _, pts, _ in rig.pictures]) == 3_600)
    assert np.all(np.diff([pts for _, pts, _ in rig.sounds]) == 960)
    assert len(rig.pictures) == pytest.approx(25, abs=1)
    assert len(rig.sounds) == pytest.approx(50 + AUDIO_LEAD_S / 0.02, abs=1)


async def test_a_model_that_stops_never_stops_the_sound() -> None:
    rig = Rig()
    start = rig.time.now()
    rig.clock.anchor(start)
    rig.audio.write(0, marks(50 * SLOT_SAMPLES))
    rig.video.push(0, frames(0, 10))
    await rig.play(start + 1.2)
    assert [mark for _, _, mark in rig.sounds if mark][:40] == list(range(1, 41))
    last = 60 + 4 * 9
    assert abs(rig.pictures[-1][2] - last) <= 1  # the last frame, repeated
    assert rig.video_out.missed_frames >= 10
    assert np.all(np.diff([at for at, _, _ in rig.pictures[6:]]) == pytest.approx(0.04, abs=1e-6))


async def test_a_reanchor_shifts_sound_and_picture_by_the_same_slots() -> None:
    rig = Rig()
    start = rig.time.now()
    rig.clock.anchor(start)
    rig.audio.write(0, marks(50 * SLOT_SAMPLES))
    rig.video.push(0, frames(0, 25))
    await rig.play(start + 0.5)
    rig.clock.reanchor(4)
    await rig.play(start + 1.2)
    index = 20
    shown = next(at for at, _, level in rig.pictures if abs(level - (60 + 4 * index)) <= 1)
    heard = next(at for at, _, mark in rig.sounds if mark == 1 + 2 * index)
    assert shown == pytest.approx(heard + AUDIO_LEAD_S, abs=1e-6)
    assert shown == pytest.approx(start + DELAY_MS / 1000 + (index + 4) / FPS, abs=1e-6)
    played = [mark for _, _, mark in rig.sounds if mark]
    assert played == list(range(1, 1 + len(played)))  # nothing lost, nothing twice


async def test_a_stopped_track_ends_and_an_error_is_told() -> None:
    rig = Rig()
    rig.video_out.stop()
    with pytest.raises(MediaStreamError):
        await rig.video_out.recv()
    broken = Rig()
    broken.clock.anchor(broken.time.now() - 1)
    broken.video.push(0, np.zeros((40, 3, 3, 3), np.uint8))  # odd sides cannot become I420
    await broken.play(broken.time.now() + 1)
    assert "width" in str(broken.errors[0])
