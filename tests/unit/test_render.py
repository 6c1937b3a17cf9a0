"""`talkalong render` makes a video that is complete and in sync, and says in sentences what it cannot do."""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import signal

from client.cli import main
from pipeline.video_file import VideoFile
from pipeline.window_cutter import WindowCutter
from pipeline.windowing import AudioWindow, WindowSpec
from tests.unit.sounds import tone, wav, write

RATE = 44_100
ROOT = Path(__file__).parents[2]


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


def heard_in(path: Path) -> NDArray[np.float32]:
    """float32 [n]: the sound at 48 kHz from time 0 of the file on, as a player plays it."""
    pieces: list[NDArray[np.float32]] = []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            assert frame.pts is not None
            assert frame.time_base is not None
            start = round(frame.pts * frame.time_base * 48_000)
            pieces.append(frame.to_ndarray()[0][max(0, -start) :])
    return np.concatenate(pieces)


def test_video_is_complete_and_its_sound_in_place(
    tiny_model: Path, gallery_portrait: Path, tmp_path: Path
) -> None:
    seconds = 3.05
    clicks = write_clicks(tmp_path / "clicks.wav", seconds, 0.5)
    out, report = tmp_path / "out.mp4", tmp_path / "report.json"
    command = ["render", "--portrait", str(gallery_portrait), "--audio", str(tmp_path / "clicks.wav")]
    command += ["--out", str(out), "--model", str(tiny_model), "--steps", "1", "--seed", "5"]
    assert main([*command, "--report", str(report)]) == 0
    with av.open(str(out)) as container:
        video = container.streams.video[0]
        assert video.average_rate == 25
        height, width = video.height, video.width
        times = [frame.time for frame in container.decode(video)]
    assert times == pytest.approx([i / 25 for i in range(77)], abs=1e-3)  # 3.05 s are 76.25 frames

    heard = heard_in(out)
    wanted = np.interp(np.arange(round(seconds * 48_000)) / 48_000, np.arange(len(clicks)) / RATE, clicks)
    assert len(heard) == pytest.approx(len(wanted), abs=1024)  # the last AAC frame is filled up
    score = signal.correlate(heard[: len(wanted)], wanted, method="fft")
    lag = int(np.argmax(score)) - (len(wanted) - 1)
    assert abs(lag) <= 2, "sound is not in its place to the sample"

    figures = json.loads(report.read_text())
    assert figures["canvas"] == [height, width]
    assert (figures["frames"], figures["fps"]) == (77, 25)
    assert figures["duration_s"] == pytest.approx(seconds, abs=0.01)
    assert (figures["steps"], figures["seed"]) == (1, 5)
    assert figures["step_ms"]["p50"] <= figures["step_ms"]["p95"] <= figures["step_ms"]["p99"]
    assert len(figures["model_sha256"]) == 64
    assert figures["rtf"] > 0
    assert not list(tmp_path.glob(".*unfinished*"))


def test_picture_and_sound_have_one_origin(tmp_path: Path) -> None:
    """A white frame and a click of the same moment come out together."""
    path = tmp_path / "clap.mp4"
    with VideoFile(path, 64, 64, 25) as video:
        for index in range(50):
            pcm = np.zeros(1920, np.int16)
            if index == 30:
                pcm[:100] = 20_000
            video.add_sound(pcm)
            video.add_frame(np.full((64, 64, 3), 255 if index == 30 else 0, np.uint8))
    with av.open(str(path)) as container:
        bright = [
            frame.time for frame in container.decode(video=0) if frame.to_ndarray(format="gray").mean() > 128
        ]
    sound = np.abs(heard_in(path))
    assert bright == [pytest.approx(1.2)]
    assert int(np.argmax(sound > 0.5 * sound.max())) / 48_000 == pytest.approx(1.2, abs=0.001)


def test_a_video_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "half.mp4"
    path.write_bytes(b"an older video")

    def interrupted() -> None:
        with VideoFile(path, 64, 64, 25) as video:
            video.add_frame(np.zeros((64, 64, 3), np.uint8))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [file.name for file in tmp_path.iterdir()] == ["half.mp4"]
    assert path.read_bytes() == b"an older video"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_duration(
    tiny_model: Path, gallery_portrait: Path, tmp_path: Path
) -> None:
    """A quarter of a minute more sound, with 74 MB of frames, costs less than 24 MB."""
    small = tmp_path / "small.png"
    with Image.open(gallery_portrait) as picture:
        picture.resize((256, 256 * picture.height // picture.width)).save(small)
    code = "import resource, sys, client.cli\nstatus = client.cli.main(sys.argv[1:])\n"
    code += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\nsys.exit(status)"
    peaks_kb = []
    for seconds in (3, 18):
        write_clicks(tmp_path / "long.wav", seconds, 0.5)
        command = ["render", "--portrait", str(small), "--audio", str(tmp_path / "long.wav")]
        command += ["--out", str(tmp_path / "long.mp4"), "--model", str(tiny_model), "--steps", "1"]
        done = subprocess.run(
            [sys.executable, "-c", code, *command], capture_output=True, text=True, cwd=ROOT
        )
        assert done.returncode == 0, done.stderr
        peaks_kb.append(int(done.stdout.splitlines()[-1]))
    assert peaks_kb[1] - peaks_kb[0] < 24_000


def test_windows_of_pieces_equal_windows_of_the_whole() -> None:
    spec = WindowSpec(hop_frames=2, left_frames=5, right_frames=2)
    rng = np.random.default_rng(1)
    pcm = rng.normal(size=16_000).astype(np.float32)
    windows: list[AudioWindow] = []
    cutter, position = WindowCutter(spec), 0
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
        ({"audio": "empty"}, "decodes to no sound"),
        ({"portrait": "nobody"}, "nor a bundled portrait of that name (ada, astronaut"),
        ({"portrait": "text"}, "not"),
        ({"portrait": "grey"}, "face"),
        ({"model": "none_such"}, "no bundled model named 'none_such'"),
        ({"expressiveness": "7"}, "between 0 and 2"),
        ({"gaze": "-1"}, "between 0 and 2"),
        ({"steps": "0"}, "at least one denoising step"),
        ({"out": "o.avi"}, "ends in .mp4"),
        ({"out": "nowhere/o.mp4"}, "cannot be written"),
        ({"out": "folder.mp4"}, "is a folder"),
        ({"out": "x" * 300 + ".mp4"}, "name too long"),
        ({"audio": "x" * 300 + ".wav"}, "name too long"),
        ({"portrait": "x" * 300 + ".png"}, "name too long"),
        ({"audio": "folder.mp4"}, "is a folder"),
        ({"audio": "one"}, "too short"),
    ],
)
def test_what_cannot_be_done_is_said(
    change: dict[str, str],
    sentence: str,
    tiny_model: Path,
    gallery_portrait: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_clicks(Path("clicks.wav"), 0.4, 0.2)
    write_clicks(Path("empty"), 0.0, 0.2)
    Path("folder.mp4").mkdir()
    Path("one").write_bytes(wav(np.full(1, 0.5), 48_000))
    Path("text").write_text("neither picture nor sound")
    Image.new("RGB", (400, 400), "grey").save("grey", "png")
    Path("picture").write_bytes(gallery_portrait.read_bytes())
    before = sorted(path.name for path in tmp_path.iterdir())
    options = {
        "portrait": str(gallery_portrait),
        "audio": "clicks.wav",
        "out": "o.mp4",
        "model": str(tiny_model),
    } | change
    assert main(["render", *(part for key, value in options.items() for part in (f"--{key}", value))]) == 2
    said = capsys.readouterr().err
    assert sentence in said.replace("Name", "name")
    assert "Errno" not in said
    assert "Traceback" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def rendered(portrait: Path, model: Path, audio: str, out: str) -> int:
    command = ["render", "--portrait", str(portrait), "--model", str(model), "--steps", "1"]
    return main([*command, "--audio", audio, "--out", out])


@pytest.fixture
def small_portrait(gallery_portrait: Path, tmp_path: Path) -> Path:
    with Image.open(gallery_portrait) as picture:
        picture.resize((256, 256 * picture.height // picture.width)).save(tmp_path / "small.png")
    return tmp_path / "small.png"


def frames_of(path: Path) -> NDArray[np.uint8]:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_numbers_that_are_none_draw_nothing(
    tiny_model: Path, small_portrait: Path, tmp_path: Path, rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The video is the same as with silence in their place."""
    monkeypatch.chdir(tmp_path)
    sound = tone(0.5, rate)
    sound[-40:] = np.nan
    Path("bad.wav").write_bytes(wav(sound, rate, "f32"))
    Path("silent.wav").write_bytes(wav(np.nan_to_num(sound), rate, "f32"))
    for name in ("bad", "silent"):
        assert rendered(small_portrait, tiny_model, f"{name}.wav", f"{name}.mp4") == 0
    frames, wanted = frames_of(Path("bad.mp4")), frames_of(Path("silent.mp4"))
    assert len(frames) == 13
    assert np.array_equal(frames, wanted)


@pytest.mark.parametrize(
    ("audio", "out"),
    [
        ("12:30.wav", "12:30.mp4"),
        ("-x.wav", "-x.mp4"),
        ("100%d.wav", "%03d.mp4"),
        ("with space 語.wav", "with space 語.mp4"),
        (os.fsdecode(b"caf\xe9.wav"), os.fsdecode(b"caf\xe9.mp4")),
        ("a:b/c.wav", "a:b/c.MP4"),
        ("x" * 251 + ".wav", "x" * 251 + ".mp4"),
    ],
    ids=lambda name: ascii(name)[:20],
)
def test_file_names_are_file_names(
    tiny_model: Path,
    small_portrait: Path,
    tmp_path: Path,
    audio: str,
    out: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a:b").mkdir()
    Path(audio).write_bytes(wav(tone(0.2, 48_000), 48_000))
    before = set(tmp_path.rglob("*"))
    assert rendered(small_portrait, tiny_model, audio, out) == 0
    assert len(frames_of(tmp_path / out)) == 5
    assert set(tmp_path.rglob("*")) - before == {tmp_path / out}
    assert "5 frames" in capsys.readouterr().out


def test_what_was_wrong_with_the_sound_is_said_beside_the_video(
    tiny_model: Path, small_portrait: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = write(tmp_path / "a.mp3", "libmp3lame", tone(1.0, 48_000), 48_000).read_bytes()
    middle = len(content) // 3
    flipped = bytes(byte ^ 0x5A for byte in content[middle : middle + 600])
    (tmp_path / "a.mp3").write_bytes(content[:middle] + flipped + content[middle + 600 :])
    report = tmp_path / "report.json"
    command = ["render", "--portrait", str(small_portrait), "--model", str(tiny_model), "--steps", "1"]
    command += ["--audio", str(tmp_path / "a.mp3"), "--out", str(tmp_path / "a.mp4")]
    assert main([*command, "--report", str(report)]) == 0
    said, figures = capsys.readouterr().err, json.loads(report.read_text())
    assert figures["damaged_packets"] >= 1
    assert figures["notices"]
    assert "talkalong render: " + figures["notices"][0] in said
    assert len(frames_of(tmp_path / "a.mp4")) >= 20


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_is_drawn_on_a_terminal_only(
    tiny_model: Path,
    small_portrait: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "a.wav").write_bytes(wav(tone(0.5, 48_000), 48_000))
    assert rendered(small_portrait, tiny_model, str(tmp_path / "a.wav"), str(tmp_path / "a.mp4")) == 0
    assert not capsys.readouterr().err
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    assert rendered(small_portrait, tiny_model, str(tmp_path / "a.wav"), str(tmp_path / "a.mp4")) == 0
    assert "a.mp4: 100%" in screen.getvalue()
    assert "13/13" in screen.getvalue()


def test_an_input_is_never_overwritten(
    tiny_model: Path, gallery_portrait: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "talk.mp4"
    source.write_bytes(b"precious")
    command = ["render", "--portrait", str(gallery_portrait), "--audio", str(source), "--out", str(source)]
    assert main([*command, "--model", str(tiny_model)]) == 2
    assert "one of the inputs" in capsys.readouterr().err
    assert source.read_bytes() == b"precious"


def test_arguments_have_defaults() -> None:
    from pipeline import render

    parser = argparse.ArgumentParser()
    render.add_arguments(parser)
    args = parser.parse_args(["--portrait", "p", "--audio", "a", "--out", "o"])
    assert (args.model, args.steps, args.seed, args.report) == ("portrait_256", None, 0, None)
