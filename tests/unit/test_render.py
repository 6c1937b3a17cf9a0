"""`talkalong render` makes a video that is complete and in sync, and says in sentences what it cannot do."""

from __future__ import annotations

import argparse
import json
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from client.cli import main
from pipeline.render import WindowCutter
from pipeline.windowing import WindowSpec
from tests.unit.avatar import tiny_pipeline

RATE = 44_100


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    path = tmp_path_factory.mktemp("portrait") / "astronaut.png"
    Image.fromarray(data.astronaut()).save(path)
    return path


def write_clicks(path: Path, seconds: float, every_s: float) -> NDArray[np.int16]:
    """A WAV with a click at every multiple of `every_s`, beginning with the first."""
    pcm = np.random.default_rng(0).normal(0, 20, round(seconds * RATE))
    for start in np.arange(every_s, seconds - 0.01, every_s):
        pcm[round(start * RATE) : round(start * RATE) + 200] = 20_000
    samples = pcm.astype(np.int16)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return samples


def test_video_is_complete_and_its_sound_in_place(model: Path, portrait: Path, tmp_path: Path) -> None:
    seconds = 3.05
    write_clicks(tmp_path / "clicks.wav", seconds, 0.5)
    out, report = tmp_path / "out.mp4", tmp_path / "report.json"
    arguments = ["render", "--portrait", str(portrait), "--audio", str(tmp_path / "clicks.wav"), "--out", str(out)]
    assert main([*arguments, "--model", str(model), "--steps", "1", "--seed", "5", "--report", str(report)]) == 0
    with av.open(str(out)) as container:
        video = container.streams.video[0]
        assert (video.width, video.height, video.average_rate) == (512, 512, 25)
        frames = [frame.pts * frame.time_base for frame in container.decode(video)]
    assert len(frames) == 77  # 3.05 s are 76.25 frames
    assert [float(time) for time in frames] == pytest.approx([i / 25 for i in range(77)], abs=1e-3)
    pieces, times = [], []
    with av.open(str(out)) as container:
        for frame in container.decode(container.streams.audio[0]):
            pieces.append(frame.to_ndarray()[0])
            times.append(float(frame.pts * frame.time_base))
    sound = np.abs(np.concatenate(pieces))
    onsets = [round(t * 48_000) for t in np.arange(0.5, 3.0, 0.5)]
    for onset in onsets:
        position = onset - round(times[0] * 48_000)
        around = sound[position - 2400 : position + 2400]
        found = int(np.argmax(around > 0.5 * around.max())) - 2400
        assert abs(found) < 480, f"the click at {onset / 48:.0f} ms is {found / 48:.1f} ms off"
    figures = json.loads(report.read_text())
    assert figures["frames"] == 77
    assert figures["fps"] == 25
    assert figures["duration_s"] == pytest.approx(seconds, abs=0.01)
    assert (figures["steps"], figures["seed"]) == (1, 5)
    assert figures["step_ms"]["p50"] <= figures["step_ms"]["p95"] <= figures["step_ms"]["p99"]
    assert len(figures["model_sha256"]) == 64
    assert figures["rtf"] > 0
    assert not list(tmp_path.glob("*.unfinished*"))


def test_windows_of_pieces_equal_windows_of_the_whole() -> None:
    spec = WindowSpec(hop_frames=2, left_frames=5, right_frames=2)
    rng = np.random.default_rng(1)
    pcm = rng.normal(size=16_000).astype(np.float32)
    cutter, windows, position = WindowCutter(spec), [], 0
    while position < len(pcm):
        size = int(rng.integers(1, 3000))
        windows += cutter.push(pcm[position : position + size])
        assert len(cutter._kept) < spec.window_samples + 3000  # memory does not grow
        position += size
    windows += cutter.flush()
    assert len(windows) == spec.chunk_count(len(pcm))
    for index, window in enumerate(windows):
        whole = spec.cut(pcm, index)
        assert (window.index, window.start_sample) == (whole.index, whole.start_sample)
        np.testing.assert_array_equal(window.pcm, whole.pcm)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"audio": "missing.wav"}, "There is no sound file"),
        ({"audio": "picture"}, "holds no sound"),
        ({"audio": "text"}, "cannot be read as sound"),
        ({"portrait": "nobody"}, "nor a bundled portrait"),
        ({"portrait": "text"}, "not"),
        ({"model": "none_such"}, "no bundled model named 'none_such'"),
        ({"expressiveness": "7"}, "between 0 and 2"),
    ],
)
def test_what_cannot_be_done_is_said(
    change: dict[str, str], sentence: str, model: Path, portrait: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    write_clicks(tmp_path / "clicks.wav", 0.4, 0.2)
    (tmp_path / "text.bin").write_text("neither picture nor sound")
    known = {"text": str(tmp_path / "text.bin"), "picture": str(portrait)}
    options = {
        "portrait": str(portrait), "audio": str(tmp_path / "clicks.wav"), "out": str(tmp_path / "o.mp4"),
        "model": str(model), "expressiveness": "1",
    } | {key: known.get(value, value) for key, value in change.items()}  # fmt: skip
    assert main(["render", *(part for key, value in options.items() for part in (f"--{key}", value))]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "o.mp4").exists()


def test_arguments_have_defaults() -> None:
    from pipeline import render

    parser = argparse.ArgumentParser()
    render.add_arguments(parser)
    args = parser.parse_args(["--portrait", "p", "--audio", "a", "--out", "o"])
    assert (args.model, args.steps, args.seed, args.report) == ("portrait_256", None, 0, None)
