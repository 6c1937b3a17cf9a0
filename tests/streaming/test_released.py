"""Those who listen to a session hear every picture and packet on one timeline; one that fails hurts nobody else."""

from __future__ import annotations

import asyncio

import numpy as np
import numpy.typing as npt
import pytest

from stream.clock import SLOT_SAMPLES, PresentationClock
from stream.playout import AudioPlayout, VideoPlayout
from stream.released import Released
from stream.tracks import AudioOut, VideoOut, yuv
from tests.streaming.virtual_clock import VirtualClock

CANVAS = np.full((32, 32, 3), 40, np.uint8)


class Ears:
    """Writes down what it is told; raises at its `fails_at`th picture."""

    def __init__(self, *, fails_at: int = 1_000) -> None:
        self.pictures: list[tuple[int, int, bool]] = []
        self.sounds: list[tuple[int, int]] = []
        self.ends = 0
        self._fails_at = fails_at

    def on_picture(self, position: int, yuv: npt.NDArray[np.uint8], fresh: bool) -> None:
        self.pictures.append((position, int(yuv[0, 0]), fresh))
        if len(self.pictures) >= self._fails_at:
            raise OSError("the disk is full")

    def on_sound(self, position: int, pcm: npt.NDArray[np.int16]) -> None:
        self.sounds.append((position, int(pcm[0])))

    def on_end(self) -> None:
        self.ends += 1


async def test_picture_and_sound_of_one_moment_have_one_position(caplog: pytest.LogCaptureFixture) -> None:
    time, released, ears, broken = VirtualClock(), Released(), Ears(), Ears(fails_at=3)
    released.add(broken)
    released.add(ears)
    clock = PresentationClock(playout_delay_ms=200, now=time.now, sleep=time.sleep)
    audio, video = AudioPlayout(), VideoPlayout()
    errors: list[Exception] = []
    tracks = (
        AudioOut(clock=clock, playout=audio, on_error=errors.append, released=released),
        VideoOut(clock=clock, playout=video, picture=CANVAS, on_error=errors.append, released=released),
    )
    clock.anchor(time.now())
    audio.write(0, np.repeat(np.arange(1, 21, dtype=np.int16), SLOT_SAMPLES))  # slot k sounds 1 + k
    pictures = np.stack([np.full((32, 32, 3), 60 + 5 * index, np.uint8) for index in range(10)])
    video.push(0, pictures)  # ten of twenty: then the last one is repeated

    async def play(track: AudioOut | VideoOut) -> None:
        while True:
            await track.recv()

    tasks = [asyncio.create_task(play(track)) for track in tracks]
    await time.run_until(time.now() + 0.9)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    levels = [int(yuv(picture)[0, 0]) for picture in pictures]
    shown = {position: level for position, level, fresh in ears.pictures if fresh and level in levels}
    heard = {position: sound for position, sound in ears.sounds if sound and not position % SLOT_SAMPLES}
    assert [levels.index(level) for level in shown.values()] == list(range(10))
    assert all(heard[position] == 1 + levels.index(level) for position, level in shown.items())
    assert np.all(np.diff([position for position, *_ in ears.pictures]) == SLOT_SAMPLES)
    assert not any(fresh for *_, fresh in ears.pictures[-5:])
    assert len(broken.pictures) == 3
    assert "OSError" in caplog.text
    assert errors == []


def test_the_end_is_told_once_also_to_those_who_come_late() -> None:
    released, early, late, gone = Released(), Ears(), Ears(), Ears()
    released.add(early)
    released.add(gone)
    released.remove(gone)
    released.remove(gone)
    released.end()
    released.end()
    released.add(late)
    released.picture(0, np.zeros((3, 2), np.uint8), True)
    assert (early.ends, late.ends, gone.ends) == (1, 1, 0)
    assert not early.pictures
    assert not late.pictures
