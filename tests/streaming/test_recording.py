"""Recording a session: what was released, in step for hours, in a thread that never holds the session up."""

from __future__ import annotations

import asyncio
import heapq
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from stream.clock import SLOT_SAMPLES, PresentationClock
from stream.ingest import Ingest
from stream.playout import AudioPlayout, VideoPlayout
from stream.protocol import AUDIO_LEAD_S, FPS, SAMPLE_RATE
from stream.recordings.fragment_file import RecordingError
from stream.recordings.recording import PICTURES_QUEUED_MS, Recording
from stream.recordings.recording_file import Ended, RecordingFile, RecordingLimits
from stream.released import Released
from stream.tracks import AudioOut, VideoOut
from tests.unit.played import Played

PACKET = 960
MODEL_SAMPLES = 640  # a frame at 16 kHz
DARK, BRIGHT = np.full((2, 16, 16, 3), [[[[20]]], [[[230]]]], np.uint8)
CLICK_PACKETS = 6
TONE = (12_000 * np.sin(2 * np.pi * 1_000 * np.arange(PACKET) / SAMPLE_RATE)).astype(np.int16)
SILENCE = np.zeros(PACKET, np.int16)
TICK_S = 0.02


def no_error(error: Exception) -> None:
    raise error


@dataclass
class Presenter:
    """Everything of a session between the speaker's packets and what is released, in virtual time.

    Each minute the speaker clicks for 120 ms; the stand-in for the model lights the frames that are loud, 30 ms after
    it has heard them and 80 ms more. drift: of the speaker's sound card; network_s: how long packets travel.
    """

    drift: float = 0.0
    loss: float = 0.0
    late_frames: float = 0.0
    seed: int = 0
    now_s: float = 1_000.0
    released: Released = field(default_factory=Released)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.clock = PresentationClock(playout_delay_ms=230, now=lambda: self.now_s)
        self.audio, self.video = AudioPlayout(), VideoPlayout()
        self.ingest = Ingest(
            clock=self.clock,
            playout=self.audio,
            on_model_pcm=self._hear,
            conceal_after_ms=60,
            margin_ms=15,
        )
        both = {"clock": self.clock, "on_error": no_error, "released": self.released}
        self.audio_out = AudioOut(playout=self.audio, **both)  # type: ignore[arg-type]
        self.video_out = VideoOut(playout=self.video, picture=DARK, **both)  # type: ignore[arg-type]
        self._start_s = self.now_s
        self._packet = 0
        self._coming: list[tuple[float, int]] = []  # packets on their way
        self._model: npt.NDArray[np.float32] = np.zeros(0, np.float32)
        self._frame = 0
        self._made: list[tuple[float, int, npt.NDArray[np.uint8]]] = []
        self.network_s = 0.01

    async def run(self, seconds: float, *, stall: bool = False) -> None:
        """stall: the event loop does nothing meanwhile."""
        end_s = self.now_s + seconds
        while self.now_s < end_s - 1e-9:
            tick_s = self.now_s + TICK_S
            self._speak(tick_s)
            if stall:
                self.now_s = tick_s
                continue
            while self._coming and self._coming[0][0] <= tick_s:
                at_s, number = heapq.heappop(self._coming)
                pcm = TONE if number % 3_000 < CLICK_PACKETS else SILENCE
                self.ingest.push(number * PACKET, pcm, at_s)
            self.ingest.tick(tick_s)
            while self._made and self._made[0][0] <= tick_s:
                _, first, frames = heapq.heappop(self._made)
                self.video.push(first, frames)
            await self._release(tick_s)
            self.now_s = tick_s

    def _speak(self, until_s: float) -> None:
        while (said_s := self._start_s + (self._packet + 1) * TICK_S * (1 + self.drift)) <= until_s:
            number, self._packet = self._packet, self._packet + 1
            precious = number % 3_000 < CLICK_PACKETS + 10 or number % 3_000 > 2_990
            if precious or self.rng.random() >= self.loss:
                jitter_s = 0.0 if precious else abs(self.rng.normal(0, 0.003))
                heapq.heappush(self._coming, (said_s + self.network_s + jitter_s, number))

    def _hear(self, pcm: npt.NDArray[np.float32]) -> None:
        self._model = np.concatenate([self._model, pcm])
        while len(self._model) >= 4 * MODEL_SAMPLES:  # two frames, and two ahead
            loud = np.abs(self._model[: 2 * MODEL_SAMPLES]).reshape(2, -1).mean(axis=1) > 0.1
            self._model = self._model[2 * MODEL_SAMPLES :]
            frames = np.stack([BRIGHT if on else DARK for on in loud])
            late_s = 0.2 if self.rng.random() < self.late_frames and not loud.any() else 0.03
            heapq.heappush(self._made, (self.now_s + late_s, self._frame, frames))
            self._frame += 2

    async def _release(self, until_s: float) -> None:
        """Both tracks, in the order in which they are due."""
        while True:
            sound_s = self.clock.due(self.audio_out._position) - AUDIO_LEAD_S
            picture_s = self.clock.due(self.video_out._position)
            if min(sound_s, picture_s) > until_s:
                return
            self.now_s = max(self.now_s, min(sound_s, picture_s))
            await (self.audio_out if sound_s <= picture_s else self.video_out).recv()


def begin(path: Path, presenter: Presenter, **options: object) -> tuple[Recording, asyncio.Future[Recording]]:
    over: asyncio.Future[Recording] = asyncio.get_running_loop().create_future()
    recording = Recording(RecordingFile(path), on_over=over.set_result, **options)  # type: ignore[arg-type]
    presenter.released.add(recording)
    return recording, over


async def run_unhurried(presenter: Presenter, recording: Recording, seconds: int) -> None:
    """Faster than real time, but not than the thread can write."""
    for _ in range(seconds):
        await presenter.run(1.0)
        while recording._thread.is_alive() and recording.behind_ms > PICTURES_QUEUED_MS / 2 - 1_000 / FPS:
            time.sleep(0.001)  # noqa: ASYNC251 - nothing else runs here


def check_sync(path: Path, *, clicks: int) -> np.ndarray:
    """All skews in ms: none above 20, and no growth."""
    skews_ms = 1000 * Played(path).skews_s()
    assert len(skews_ms) >= clicks
    assert np.abs(skews_ms).max() <= 20.0
    assert abs(np.polyfit(np.arange(len(skews_ms)), skews_ms, 1)[0]) * len(skews_ms) < 5.0, "it grows"
    return skews_ms


@pytest.mark.slow
@pytest.mark.timeout(600)  # ten seconds on a machine of its own
async def test_the_drift_of_an_hour_stays_in_step(tmp_path: Path) -> None:
    """In 20 minutes: a sound card that is off by 240 ppm, three times what they are, lost packets, late frames,
    two re-anchors, and two stalls of the loop."""
    path = tmp_path / "hour.mp4"
    presenter = Presenter(drift=240e-6, loss=0.01, late_frames=0.01)
    recording, over = begin(path, presenter)
    file = recording._file
    for quarter in range(4):
        await run_unhurried(presenter, recording, 295)
        if quarter % 2:
            presenter.network_s += 0.15  # the way becomes longer for good: the clock shifts both tracks
        else:
            await presenter.run(2.5, stall=True)
            await run_unhurried(presenter, recording, 3)
    recording.stop()
    await over
    skews_ms = check_sync(path, clicks=18)
    assert np.abs(skews_ms).max() < 2.0, "what is released together is recorded together"
    assert presenter.clock.reanchors >= 1
    assert presenter.ingest.concealed_samples > SAMPLE_RATE
    assert presenter.video.late_frames > 30
    assert recording.dropped_pictures == recording.dropped_sound_ms == 0
    assert file.repeated_pictures > 2 * 2 * FPS, "the stalls are holes"
    assert recording.ended is None
    assert recording.seconds == pytest.approx(1_190, abs=5)


async def test_it_begins_and_ends_in_the_middle_with_what_is_released(tmp_path: Path) -> None:
    path, presenter = tmp_path / "o.mp4", Presenter()
    await presenter.run(55.0)
    recording, over = begin(path, presenter)
    await run_unhurried(presenter, recording, 10)
    recording.stop()
    await over
    played = Played(path)
    assert np.abs(played.skews_s()).max() < 0.002
    assert 9.8 < len(played.light) / FPS <= 10.0
    assert len(played.pcm) / SAMPLE_RATE == pytest.approx(len(played.light) / FPS, abs=0.022)
    assert played.flashes_s()[0] == pytest.approx(5.24, abs=0.1)


class Stuck(RecordingFile):
    """A disk that takes no picture until it is freed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.freed = threading.Event()

    def add_picture(self, slot: int, picture: npt.NDArray[np.uint8]) -> None:
        self.freed.wait()
        super().add_picture(slot, picture)


async def test_a_stuck_disk_costs_pictures_but_neither_sync_nor_the_session(tmp_path: Path) -> None:
    path, presenter = tmp_path / "o.mp4", Presenter()
    over: asyncio.Future[Recording] = asyncio.get_running_loop().create_future()
    file = Stuck(path)
    recording = Recording(file, on_over=over.set_result)
    presenter.released.add(recording)
    await presenter.run(50.0)  # a session that waited for the disk would never come back
    assert recording.behind_ms <= PICTURES_QUEUED_MS
    dropped = recording.dropped_pictures
    assert dropped > 20 * FPS
    assert recording.dropped_sound_ms > 0
    file.freed.set()
    while recording.behind_ms > 0:
        time.sleep(0.01)  # noqa: ASYNC251 - nothing else runs here
    await run_unhurried(presenter, recording, 75)
    recording.stop()
    await over
    assert recording.dropped_pictures == dropped
    assert file.repeated_pictures == pytest.approx(dropped, abs=2)
    played = Played(path)
    assert len(played.light) / FPS == pytest.approx(125, abs=0.2)
    assert np.abs(played.clicks_s()[-2:] - played.flashes_s()[-2:]).max() < 0.002


async def test_a_limit_can_go_on_in_another_file_without_a_gap(tmp_path: Path) -> None:
    presenter, closed = Presenter(), []
    over: asyncio.Future[Recording] = asyncio.get_running_loop().create_future()

    def part(number: int) -> RecordingFile:
        if number > 3:
            raise RecordingError("the folder is full")
        return RecordingFile(tmp_path / f"{number}.mp4", limits=RecordingLimits(max_seconds=30.0))

    recording = Recording(part(1), on_over=over.set_result, next_file=part, on_closed=closed.append)
    presenter.released.add(recording)
    await run_unhurried(presenter, recording, 70)
    presenter.released.end()
    await over
    assert (
        [path.name for path in recording.paths]
        == [path.name for path in closed]
        == ["1.mp4", "2.mp4", "3.mp4"]
    )
    parts = [Played(path) for path in recording.paths]
    assert [len(played.light) for played in parts[:2]] == [750, 750]
    assert sum(len(played.light) for played in parts) / FPS == pytest.approx(70, abs=0.2)
    assert np.abs(parts[2].skews_s()).max() < 0.002
    joined = np.concatenate([played.pcm[: len(played.light) * SLOT_SAMPLES] for played in parts])
    light = np.concatenate([played.light for played in parts])
    flashes = np.flatnonzero((light > 120) & (np.roll(light, 1) < 120))
    loud = np.flatnonzero(np.abs(joined) > 0.03)
    assert loud[loud > 30 * SAMPLE_RATE][0] / SLOT_SAMPLES == pytest.approx(flashes[-1], abs=0.1)


async def test_an_outer_limit_ends_it_and_a_fault_is_told(tmp_path: Path) -> None:
    presenter = Presenter()
    full = Ended("folder_full", "The folder is full.")
    recording, over = begin(tmp_path / "o.mp4", presenter, check=lambda: full)
    await run_unhurried(presenter, recording, 7)
    assert (await over).ended == full
    assert len(Played(tmp_path / "o.mp4").light) == 5 * FPS

    def broken() -> Ended | None:
        raise KeyError("a bug")

    recording, over = begin(tmp_path / "p.mp4", presenter, check=broken)
    await run_unhurried(presenter, recording, 7)
    await over
    assert recording.ended is not None
    assert recording.ended.code == "write_failed"
    assert len(Played(tmp_path / "p.mp4").light) == 5 * FPS
    await presenter.run(1.0)  # the session goes on
    assert not [thread for thread in threading.enumerate() if thread.name == "recording"]
