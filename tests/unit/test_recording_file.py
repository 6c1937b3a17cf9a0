"""The MP4 that survives: in step, within its limits, and playable whatever happens to the program or the disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from stream.fragment_file import RecordingError, trim
from stream.protocol import FPS, SAMPLE_RATE
from stream.recording_file import (
    SLOT_SAMPLES,
    RecordingFile,
    RecordingLimits,
)
from tests.unit.played import Played

ROOT = Path(__file__).parents[2]
SIDE = 32


def picture(level: int) -> np.ndarray:
    """I420, grey."""
    plane = np.full((SIDE * 3 // 2, SIDE), 128, np.uint8)
    plane[:SIDE] = level
    return plane


def noise(seed: int, side: int = 256) -> np.ndarray:
    """A picture that takes room."""
    return np.random.default_rng(seed).integers(0, 255, (side * 3 // 2, side), dtype=np.uint8)


def click() -> np.ndarray:
    """A slot of sound that begins with 20 ms of tone."""
    pcm = np.zeros(SLOT_SAMPLES, np.int16)
    pcm[:960] = 12_000 * np.sin(2 * np.pi * 1_000 * np.arange(960) / SAMPLE_RATE)
    return pcm


SILENCE = np.zeros(SLOT_SAMPLES, np.int16)


def write(file: RecordingFile, slots: range, *, bright: set[int] | frozenset[int] = frozenset()) -> None:
    for slot in slots:
        file.add_sound(slot * SLOT_SAMPLES, click() if slot in bright else SILENCE)
        file.add_picture(slot, picture(220 if slot in bright else 20))


def test_a_closed_file_is_an_ordinary_mp4_in_step_with_its_metadata(tmp_path: Path) -> None:
    path = tmp_path / "o.mp4"
    tags = {"title": "Über uns", "artist": "Mira", "date": "2026-11-26"}
    with RecordingFile(path, tags=tags) as file:
        write(file, range(200), bright={10, 60, 125})
    played = Played(path)
    assert played.flashes_s() == [0.4, 2.4, 5.0]
    assert np.abs(played.skews_s()).max() < 0.003
    assert len(played.light) == 200
    assert file.repeated_pictures == file.silent_samples == 0
    assert file.bytes == path.stat().st_size
    with av.open(str(path)) as container:
        assert container.metadata["title"] == "Über uns"
        assert container.metadata["artist"] == "Mira"
        assert container.metadata["comment"].startswith("AI generated")
        assert container.streams.video[0].frames == 200  # an index, not fragments
        assert abs(container.streams.audio[0].duration / SAMPLE_RATE - 8.0) < 0.022
        container.seek(4_500_000, backward=True)
        assert 2.0 <= next(container.decode(video=0)).time <= 4.5


def test_holes_become_repeated_pictures_and_silence_and_nothing_shifts(tmp_path: Path) -> None:
    path = tmp_path / "o.mp4"
    with RecordingFile(path) as file:
        write(file, range(30))
        for slot in range(30, 90):  # pictures are missing
            file.add_sound(slot * SLOT_SAMPLES, SILENCE)
        write(file, range(90, 120), bright={100})
        for slot in range(120, 180):  # sound is missing
            file.add_picture(slot, picture(20))
        write(file, range(180, 250), bright={200})
        file.add_picture(10, picture(255))  # too late
        file.add_sound(0, click())
    played = Played(path)
    assert played.flashes_s() == [4.0, 8.0]
    assert np.abs(played.skews_s()).max() < 0.003
    assert file.repeated_pictures == 60
    assert file.silent_samples == 60 * SLOT_SAMPLES
    assert len(played.light) == 250


@pytest.mark.parametrize("sound_first", [True, False])
def test_a_hole_of_minutes_is_filled_in_small_pieces(tmp_path: Path, sound_first: bool) -> None:
    """As after a program that was stopped for a while."""
    path, slot = tmp_path / "o.mp4", 5 * 60 * FPS
    with RecordingFile(path) as file:
        write(file, range(50), bright={10})
        for add in (
            (
                lambda: file.add_sound(slot * SLOT_SAMPLES, click()),
                lambda: file.add_picture(slot, picture(220)),
            )
            if sound_first
            else (
                lambda: file.add_picture(slot, picture(220)),
                lambda: file.add_sound(slot * SLOT_SAMPLES, click()),
            )
        ):
            add()
            assert len(file.rest()) <= 2 * SAMPLE_RATE
        write(file, range(slot + 1, slot + 30))
    played = Played(path)
    assert played.flashes_s() == [0.4, 300.0]
    assert np.abs(played.skews_s()).max() < 0.003


def test_both_tracks_end_together_and_early_sound_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "o.mp4"
    with RecordingFile(path) as file:
        for slot in range(50):
            file.add_sound((slot + 10) * SLOT_SAMPLES, click())
            file.add_picture(slot, picture(20))
        assert len(file.rest()) == 10 * SLOT_SAMPLES
    assert len(Played(path).pcm) == pytest.approx(50 * SLOT_SAMPLES, abs=1024)
    assert len(file.rest()) == 10 * SLOT_SAMPLES


def test_rgb_keeps_its_colours(tmp_path: Path) -> None:
    path, colour = tmp_path / "o.mp4", (200, 60, 90)
    with RecordingFile(path, pixels="rgb24") as file:
        for slot in range(5):
            file.add_picture(slot, np.full((33, 35, 3), colour, np.uint8))
    with av.open(str(path)) as container:
        last = list(container.decode(video=0))[-1].to_ndarray(format="rgb24")
    assert last.shape == (32, 34, 3)
    assert np.abs(last.reshape(-1, 3).mean(axis=0) - colour).max() < 6


def test_nothing_is_overwritten_and_an_impossible_place_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "o.mp4"
    path.write_bytes(b"mine")
    with pytest.raises(RecordingError, match="exists already"):
        RecordingFile(path)
    assert path.read_bytes() == b"mine"
    with pytest.raises(RecordingError, match="is its folder there"):
        RecordingFile(tmp_path / "no" / "o.mp4")
    empty = RecordingFile(tmp_path / "empty.mp4")
    empty.close()
    empty.close()
    assert not empty.path.exists()


def test_it_ends_at_its_time(tmp_path: Path) -> None:
    path = tmp_path / "o.mp4"
    with RecordingFile(path, limits=RecordingLimits(max_seconds=3.0)) as file:
        write(file, range(100), bright={70})
        assert file.ended is not None
    assert file.ended.code == "time_limit"
    assert "3 s" in file.ended.message
    played = Played(path)
    assert len(played.light) == 75
    assert played.flashes_s() == [2.8]


def test_it_never_grows_past_its_size(tmp_path: Path) -> None:
    path, limit = tmp_path / "o.mp4", 3_000_000
    with RecordingFile(path, limits=RecordingLimits(max_bytes=limit)) as file:
        for slot in range(400):
            file.add_sound(slot * SLOT_SAMPLES, click())
            file.add_picture(slot, noise(slot))
            if file.ended is not None:
                break
    assert file.ended is not None
    assert file.ended.code == "size_limit"
    assert "3 MB" in file.ended.message
    assert 0.6 * limit < path.stat().st_size <= limit
    assert abs(len(Played(path).light) / FPS - file.seconds) < 1e-6


def test_it_leaves_room_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "o.mp4"
    with RecordingFile(path, limits=RecordingLimits(min_free_bytes=1 << 60)) as file:
        write(file, range(100))
    assert file.ended is not None
    assert file.ended.code == "disk_full"
    assert "MB left" in file.ended.message
    assert len(Played(path).light) == FPS


FILL = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.unit.test_recording_file import *
limit = 2_000_000
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
file = RecordingFile(Path(sys.argv[1]))
for slot in range(400):
    file.add_sound(slot * SLOT_SAMPLES, click())
    file.add_picture(slot, noise(slot))
    if file.ended is not None:
        break
file.close()
print(file.ended.code, "|", file.ended.message)
"""


def test_a_full_disk_ends_it_with_a_sentence_and_keeps_what_is_there(tmp_path: Path) -> None:
    """The kernel refuses to let the file grow, as a full disk would."""
    path = tmp_path / "o.mp4"
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(path), str(ROOT)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    code, message = done.stdout.strip().split(" | ")
    assert code == "disk_full"
    assert "File too large" in message
    assert "kept" in message
    played = Played(path)
    assert 1.0 <= len(played.light) / FPS <= 10
    assert abs(len(played.pcm) / SAMPLE_RATE - len(played.light) / FPS) < 1.2
    size = path.stat().st_size
    with path.open("r+b") as file:
        trim(file)
    assert path.stat().st_size == size, "it ended with a whole fragment"


CRASH = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.unit.test_recording_file import *
file = RecordingFile(Path(sys.argv[1]), tags={"title": "before the crash"})
write(file, range(int(sys.argv[3])), bright={10, 50, 125})
print("written", flush=True)
time.sleep(60)
"""


def killed(path: Path, slots: int) -> None:
    """A program that records so much, and is killed in the middle."""
    arguments = [sys.executable, "-c", CRASH, str(path), str(ROOT), str(slots)]
    child = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "written\n"
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()


def test_a_killed_program_leaves_a_playable_file_that_lacks_two_seconds_at_most(tmp_path: Path) -> None:
    path = tmp_path / "o.mp4"
    killed(path, 220)
    played = Played(path)
    assert len(played.light) / FPS >= 220 / FPS - 2.0
    assert len(played.pcm) / SAMPLE_RATE >= 220 / FPS - 2.0
    assert played.flashes_s() == [0.4, 2.0, 5.0]
    assert np.abs(played.skews_s()).max() < 0.003
    with av.open(str(path)) as container:
        assert container.metadata["title"] == "before the crash"


def test_a_crash_while_it_is_closed_leaves_a_playable_file_as_well(tmp_path: Path) -> None:
    """The index is there, but the eight bytes that hide the fragments are not written yet."""
    path = tmp_path / "o.mp4"
    with RecordingFile(path) as file:
        write(file, range(100), bright={30})
        head = path.read_bytes()[:64]
    closed = path.read_bytes()
    assert closed[:64] != head
    path.write_bytes(head + closed[64:])
    assert len(Played(path).light) == 100
    with path.open("r+b") as opened:
        trim(opened)
    played = Played(path)
    assert len(played.light) == 100
    assert np.abs(played.skews_s()).max() < 0.003


def test_a_torn_fragment_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "o.mp4"
    killed(path, 220)
    whole = path.read_bytes()
    for lost in (1, 100, len(whole) // 3):
        path.write_bytes(whole[:-lost])
        with path.open("r+b") as file:
            trim(file)
        assert path.stat().st_size < len(whole) - lost + 1
        assert len(Played(path).light) >= FPS
    path.write_bytes(b"")
    with path.open("r+b") as file:
        trim(file)
