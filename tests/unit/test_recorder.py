"""The recording: sound and picture in step, and playable after a crash."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from client.errors import RecorderError
from client.recorder import Recorder
from client.timeline import SAMPLES_PER_FRAME, Moment
from stream.protocol import FPS, SAMPLE_RATE


def moment(index: int, *, bright: bool) -> Moment:
    """A white picture with a tone, or a black one with silence."""
    tone = (8_000 * np.sin(2 * np.pi * 500 * np.arange(SAMPLES_PER_FRAME) / SAMPLE_RATE)).astype(np.int16)
    picture = np.full((64, 48, 3), 255 if bright else 0, np.uint8)
    return Moment(index=index, picture=picture, pcm=tone if bright else np.zeros_like(tone))


def read(path: Path) -> tuple[list[float], np.ndarray]:
    """Mean brightness of each picture, and the sound."""
    with av.open(str(path)) as container:
        light = [float(frame.to_ndarray(format="gray").mean()) for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        pieces = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    return light, np.concatenate(pieces)


def test_sound_and_picture_stay_in_step(tmp_path: Path) -> None:
    path = tmp_path / "o.mp4"
    with Recorder(path) as recorder:
        for index in range(100, 200):
            recorder.write(moment(index, bright=index >= 150))
    light, pcm = read(path)
    assert len(light) == 100
    seen_s = next(index for index, value in enumerate(light) if value > 128) / FPS
    heard_s = int(np.argmax(np.abs(pcm) > 0.05)) / SAMPLE_RATE
    assert seen_s == 2.0
    assert abs(heard_s - seen_s) < 0.03


def test_a_hole_is_filled_so_that_nothing_drifts(tmp_path: Path) -> None:
    path = tmp_path / "o.mp4"
    with Recorder(path) as recorder:
        for index in [*range(20), *range(30, 50)]:
            recorder.write(moment(index, bright=index >= 30))
    light, pcm = read(path)
    assert len(light) == 50
    assert next(index for index, value in enumerate(light) if value > 128) == 30
    assert abs(int(np.argmax(np.abs(pcm) > 0.05)) / SAMPLE_RATE - 1.2) < 0.03


def test_a_limit_ends_it_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "o.mp4"
    with Recorder(path, max_minutes=2 / 60, portrait="mira") as recorder:
        for index in range(100):
            recorder.write(moment(index, bright=False))
        assert recorder.ended is not None
    assert "2 s" in recorder.ended.message
    light, _ = read(path)
    assert len(light) == recorder.frames_written == 50
    with av.open(str(path)) as container:
        assert container.metadata["artist"] == "mira"


def test_a_name_that_is_taken_is_refused_before_anything_begins(tmp_path: Path) -> None:
    path = tmp_path / "o.mp4"
    path.write_bytes(b"an earlier talk")
    with pytest.raises(RecorderError, match="exists already"):
        Recorder(path)
    assert path.read_bytes() == b"an earlier talk"


def test_closing_twice_or_without_a_moment_is_fine(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "o.mp4")
    recorder.close()
    recorder.close()


def test_a_killed_program_leaves_a_playable_file(tmp_path: Path) -> None:
    path = tmp_path / "o.mp4"
    program = (
        "import sys, time; from pathlib import Path; from client.recorder import Recorder\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from test_recorder import moment\n"
        "recorder = Recorder(Path(sys.argv[1]))\n"
        "for index in range(150): recorder.write(moment(index, bright=True))\n"
        "print('written', flush=True); time.sleep(60)\n"
    )
    root = Path(__file__).parents[2]
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(path), str(Path(__file__).parent)],
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "written\n"
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
    light, pcm = read(path)
    assert len(light) >= 100
    assert len(pcm) >= 4 * SAMPLE_RATE
