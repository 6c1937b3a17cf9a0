"""`talkalong camera` as other people in a call get it: pictures at the camera's driver, sound at the microphone's
source, a real server in between, and all of it measured by what is seen and heard."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from client.virtual_microphone import SINK, SOURCE
from stream.protocol import SAMPLE_RATE
from tests.browser.served import ROOT, RunningServer
from tests.loopback.real_time import require_real_time
from tests.loopback.sound_server import MICROPHONE, Ear, SoundServer, missing_programs

pytest.importorskip("pyvirtualcam")
pytestmark = pytest.mark.skipif(
    bool(missing_programs()), reason=f"PulseAudio is not installed ({', '.join(missing_programs())})"
)

SKEW_MS = 20.0
FRAME_S = 0.04
LIVE_TIMEOUT_S = 40.0


@pytest.fixture
def sound_server() -> Iterator[SoundServer]:
    with SoundServer() as server:
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = RunningServer(tmp_path_factory.mktemp("server"), stand_in=True)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.close()


class CameraProcess:
    """A context manager around the command; killed on exit if it did not end."""

    def __init__(self, folder: Path, sound: SoundServer, url: str, *options: str) -> None:
        self._pictures = folder / "pictures.txt"
        self._out = (folder / "out.txt").open("w+")
        self._process = subprocess.Popen(
            [
                sys.executable, str(Path(__file__).with_name("camera_process.py")), str(self._pictures),
                "--server", url, "--size", "320x180", *options,
            ],
            cwd=ROOT,
            env=sound.environment | {"PYTHONPATH": str(ROOT)},
            stdout=self._out,
            stderr=subprocess.STDOUT,
        )  # fmt: skip

    def __enter__(self) -> CameraProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._out.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def said(self) -> str:
        return Path(self._out.name).read_text()

    def wait_for(self, sentence: str, timeout_s: float = LIVE_TIMEOUT_S) -> None:
        end = time.monotonic() + timeout_s
        while sentence not in self.said():
            assert self._process.poll() is None, f"it ended: {self.said()}"
            assert time.monotonic() < end, f"{sentence!r} did not come: {self.said()}"
            time.sleep(0.05)

    def end(self, how: signal.Signals) -> int:
        self._process.send_signal(how)
        return self._process.wait(15)

    def pictures(self) -> np.ndarray:
        """[K, 2]: wall time, light."""
        lines = [
            line.split()
            for line in self._pictures.read_text().splitlines(keepends=True)
            if line.endswith("\n")
        ]
        return np.array(lines, float).reshape(-1, 2)


def sentences(seconds: float) -> np.ndarray:
    """int16 [N]: a tone, loud and silent by turns, at times that no grid of frames knows."""
    rng = np.random.default_rng(5)
    pcm = np.zeros(round(seconds * SAMPLE_RATE), np.int16)
    at = SAMPLE_RATE // 2
    while at < len(pcm) - SAMPLE_RATE // 2:
        long = round(rng.uniform(0.2, 0.4) * SAMPLE_RATE)
        n = np.arange(long)
        pcm[at : at + long] = (9_000 * np.sin(2 * np.pi * 220 * n / SAMPLE_RATE)).astype(np.int16)
        at += long + round(rng.uniform(0.3, 0.6) * SAMPLE_RATE)
    return pcm


def openings(pictures: np.ndarray) -> np.ndarray:
    """When the mouth began to open, wall times: the stand-in model's light is the loudness of a frame's own 40 ms, so
    the first lit frame also says at which moment within it sound set in."""
    at, light = pictures.T
    low, high = np.percentile(light, 2), np.percentile(light, 97)
    filled = np.clip((light - low) / (high - low), 0, 1) ** 2
    first = [
        k
        for k in range(2, len(at) - 1)
        if filled[k] > 0.03 > max(filled[k - 1], filled[k - 2]) and filled[k + 1] > 0.8
    ]
    return np.array([at[k] + FRAME_S * (1 - filled[k]) for k in first])


def lags_ms(cause: np.ndarray, effect: np.ndarray, *, between: tuple[float, float]) -> np.ndarray:
    """[K]: how long after its cause each effect came, in ms; only lags between these seconds count."""
    found = [effect_at - cause for effect_at in effect]
    return np.array([1000 * lag for lags in found for lag in lags if between[0] <= lag <= between[1]])


@pytest.mark.slow
def test_lips_and_voice_are_together_at_the_devices_and_nothing_is_left_behind(
    sound_server: SoundServer, server: RunningServer, tmp_path: Path
) -> None:
    modules = sound_server.pactl("list", "short", "modules")
    with CameraProcess(tmp_path, sound_server, server.url) as camera:
        camera.wait_for("Live.")
        assert f"Default Source: {MICROPHONE}" in sound_server.pactl("info"), "the default stays what it was"
        with Ear(sound_server, SOURCE) as call, Ear(sound_server, MICROPHONE) as mouth:
            time.sleep(2)
            begun = time.monotonic()
            assert sound_server.say(sentences(12)).wait(30) == 0
            time.sleep(1)
            ended = time.monotonic()
        assert camera.end(signal.SIGINT) == 0
        pictures, said = camera.pictures(), camera.said()
    require_real_time(media_s=12, wall_s=ended - begun - 1)
    assert sound_server.pactl("list", "short", "modules") == modules

    heard, seen = call.onsets(), openings(pictures[pictures[:, 0] > begun])
    skew_ms = lags_ms(heard, seen, between=(-0.1, 0.1))
    assert len(heard) >= 10
    assert len(skew_ms) >= 0.8 * len(heard)
    assert abs(np.median(skew_ms)) < SKEW_MS / 2
    assert np.percentile(np.abs(skew_ms), 90) < SKEW_MS
    gaps = np.diff(pictures[pictures[:, 0] > begun, 0])
    assert np.median(gaps) == pytest.approx(FRAME_S, abs=0.002)

    delay_ms = np.median(lags_ms(mouth.onsets(), heard, between=(0.15, 0.7)))
    shown = [float(value) for value in re.findall(r"delay (\d+) ms", said)]
    assert shown, said
    assert shown[-1] == pytest.approx(delay_ms, abs=30), (
        "the delay on the status line is the one that is heard"
    )


@pytest.mark.slow
def test_a_server_that_goes_away_leaves_a_picture_and_silence_until_it_is_back(
    sound_server: SoundServer, tmp_path: Path
) -> None:
    (tmp_path / "server").mkdir()
    server = RunningServer(tmp_path / "server", stand_in=True)
    try:
        with CameraProcess(tmp_path, sound_server, server.url) as camera:
            waiting = time.monotonic()
            server.wait_until_ready()
            camera.wait_for("Live.")
            live = time.monotonic()
            sound_server.say(np.tile(sentences(4), 20))
            with Ear(sound_server, SOURCE) as call:
                time.sleep(4)
                assert call.loudest(live + 2, time.monotonic()) > 3_000
                server.close()
                gone = time.monotonic()
                camera.wait_for("trying again")
                time.sleep(3)
                away = time.monotonic()
                assert call.loudest(gone + 1.5, away) == 0, "not one undelayed sample of the voice"
                server = RunningServer(tmp_path / "server", stand_in=True, port=server.port)
                server.wait_until_ready()
                camera.wait_for("Live again.")
                back = time.monotonic()
                time.sleep(4)
                assert call.loudest(back + 1.5, time.monotonic()) > 3_000
            at = camera.pictures()[:, 0]
            for start, end in ((waiting + 3, live), (gone, away)):
                shown = ((at > start) & (at < end)).sum()
                assert shown > 20 * (end - start), "a camera shows pictures, with or without a server"
            assert camera.end(signal.SIGTERM) == 0
    finally:
        server.close()
    assert SINK not in sound_server.pactl("list", "short", "sinks")


@pytest.mark.slow
def test_what_a_killed_run_left_is_removed_and_a_running_one_is_respected(
    sound_server: SoundServer, server: RunningServer, tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    with CameraProcess(folders[0], sound_server, server.url) as first:
        first.wait_for("Live.")
        assert first.end(signal.SIGKILL) == -signal.SIGKILL
    assert SINK in sound_server.pactl("list", "short", "sinks"), "nobody could clean up"
    with CameraProcess(folders[1], sound_server, server.url, "--no-camera") as second:
        second.wait_for("Live.")
        assert sound_server.pactl("list", "short", "sinks").count(SINK) == 1
        with CameraProcess(folders[2], sound_server, server.url) as third:
            assert third._process.wait(20) == 1
            assert f"process {second.pid}" in third.said()
        os.kill(second.pid, signal.SIGHUP)  # the terminal's window was closed
        assert second._process.wait(15) == 0
    assert SINK not in sound_server.pactl("list", "short", "sinks")
