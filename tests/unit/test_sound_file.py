"""Whatever people record is read at its right length and level, and damage costs no more than what is damaged."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from client.audio_file import read_pcm
from client.errors import ClientError
from pipeline.sound_file import SoundFile, SoundFileError
from tests.unit.sounds import level_db, tone, wav, write

FRAME_S = 0.04
MODEL_RATE = 16_000
SECONDS = 1.0


def heard(path: Path) -> tuple[NDArray[np.int16], NDArray[np.float32], list[str]]:
    """What people hear at 48 kHz, what the model hears at 16 kHz, and what is said about the file."""
    with SoundFile(path) as sound:
        people, model = zip(*sound.pieces(MODEL_RATE), strict=True)
    return np.concatenate(people), np.concatenate(model), sound.notices


def saved(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def follows(sound: NDArray[np.generic], wanted: NDArray[np.float64]) -> float:
    """Correlation over what both have; 1 where they are the same but for their loudness."""
    length = min(len(sound), len(wanted))
    return float(np.corrcoef(sound[:length].astype(np.float64), wanted[:length])[0, 1])


@pytest.mark.parametrize("kind", ["s16", "s24", "f32"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000])
def test_wav_of_every_common_kind(tmp_path: Path, rate: int, channels: int, kind: str) -> None:
    sound = np.repeat(tone(SECONDS, rate)[:, None], channels, axis=1)
    people, model, said = heard(saved(tmp_path / "a.wav", wav(sound, rate, kind)))
    assert len(people) == pytest.approx(48_000, abs=2)
    assert len(model) == pytest.approx(16_000, abs=2)
    assert follows(people, tone(SECONDS, 48_000)) > 0.9999
    assert follows(model, tone(SECONDS, MODEL_RATE)) > 0.9999
    assert level_db(people) == pytest.approx(level_db(tone(SECONDS, 48_000)), abs=0.05)
    assert level_db(model) == pytest.approx(level_db(people), abs=0.05)
    assert not said
    assert (np.concatenate(list(read_pcm(tmp_path / "a.wav"))) == people).all()


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.aiff", "pcm_s16be", 48_000),
        ("a.aiff", "pcm_s24be", 44_100),
        ("a.au", "pcm_s16be", 48_000),
        ("a.au", "pcm_mulaw", 8_000),
        ("a.w64", "pcm_s16le", 48_000),
        ("a.avi", "pcm_s16le", 48_000),
        ("a.mkv", "pcm_s16le", 48_000),
        ("a.mkv", "pcm_f32le", 48_000),
        ("a.mov", "pcm_s16le", 48_000),
        ("a.caf", "pcm_s16le", 48_000),
        ("a.wav", "pcm_u8", 48_000),
        ("a.wav", "pcm_s32le", 48_000),
        ("a.wav", "pcm_s64le", 48_000),
        ("a.wav", "pcm_f64le", 48_000),
        ("a.wav", "pcm_alaw", 8_000),
        ("a.flac", "flac", 48_000),
        ("a.flac", "flac", 96_000),
        ("a.mp3", "libmp3lame", 48_000),
        ("a.mp3", "libmp3lame", 22_050),
        ("a.m4a", "aac", 48_000),
        ("a.m4a", "aac", 44_100),
        ("a.mov", "aac", 48_000),
        ("a.mp4", "alac", 44_100),
        ("a.aac", "aac", 48_000),
        ("a.ogg", "libopus", 48_000),
        ("a.webm", "libopus", 48_000),
        ("a.mkv", "libopus", 48_000),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_other_files(tmp_path: Path, name: str, codec: str, rate: int, channels: int) -> None:
    sound = np.repeat(tone(2 * SECONDS, rate)[None], channels, axis=0)
    path = write(tmp_path / name, codec, sound, rate, layout={1: "mono", 2: "stereo"}[channels])
    people, model, said = heard(path)
    assert len(people) / 48_000 == pytest.approx(2 * SECONDS, abs=FRAME_S)
    assert len(model) / MODEL_RATE == pytest.approx(len(people) / 48_000, abs=0.001)
    assert level_db(people) == pytest.approx(level_db(tone(SECONDS, 48_000)), abs=0.5)
    assert not said


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate", [44_100, 48_000])
@pytest.mark.parametrize("where", [slice(0, 20), slice(9_000, 9_010), slice(-30, None)])
@pytest.mark.parametrize("channels", [1, 2])
def test_what_is_no_number_is_silence(
    tmp_path: Path, bad: float, rate: int, where: slice, channels: int
) -> None:
    sound = np.repeat(tone(0.5, rate)[:, None], channels, axis=1)
    silent = sound.copy()
    sound[where], silent[where] = bad, 0.0
    got = heard(saved(tmp_path / "bad.wav", wav(sound, rate, "f32")))
    wanted = heard(saved(tmp_path / "good.wav", wav(silent, rate, "f32")))
    assert np.isfinite(got[1]).all()
    np.testing.assert_array_equal(got[0], wanted[0])
    np.testing.assert_array_equal(got[1], wanted[1])


def test_loud_floats_are_clipped_cleanly(tmp_path: Path) -> None:
    sound = 8 * tone(SECONDS, 48_000)
    sound[7] = 3e38
    people, model, _ = heard(saved(tmp_path / "a.wav", wav(sound, 48_000, "f32")))
    assert people.max() == 32767
    assert people.min() == -32768
    assert np.abs(model).max() == 1.0
    assert follows(people, np.clip(sound, -1, 1)) > 0.9999


def test_an_offset_changes_nothing_but_itself(tmp_path: Path) -> None:
    people, _, _ = heard(saved(tmp_path / "a.wav", wav(0.3 + tone(SECONDS, 48_000), 48_000)))
    assert follows(people, tone(SECONDS, 48_000)) > 0.9999
    assert people.mean() / 32768 == pytest.approx(0.3, abs=0.001)


@pytest.mark.parametrize("channels", [3, 4, 6, 8, 9, 10, 12, 16, 60])
@pytest.mark.parametrize("mask", [None, 0])
def test_any_number_of_channels(tmp_path: Path, channels: int, mask: int | None) -> None:
    sound = np.repeat(tone(SECONDS, 48_000)[:, None], channels, axis=1)
    people, _, _ = heard(saved(tmp_path / "a.wav", wav(sound, 48_000, mask=mask)))
    assert len(people) == 48_000
    assert level_db(people) == pytest.approx(level_db(tone(SECONDS, 48_000)), abs=0.1)


@pytest.mark.parametrize("rate", [44_100, 48_000])
@pytest.mark.parametrize("sides", [(1, -1), (1, 0), (0, 1), (0.7, -1)])
def test_two_sides_cost_nobody_their_voice(tmp_path: Path, rate: int, sides: tuple[float, float]) -> None:
    sound = tone(SECONDS, rate)[:, None] * np.array(sides)
    people, model, _ = heard(saved(tmp_path / "a.wav", wav(sound, rate)))
    for got in (people, model):
        assert level_db(got) == pytest.approx(level_db(tone(SECONDS, rate)), abs=0.5)


def test_the_rumble_of_a_cinema_is_left_out(tmp_path: Path) -> None:
    """Of 5.1, the fourth channel only holds what shakes the floor."""
    sound = np.zeros((6, 48_000))
    sound[2] = tone(SECONDS, 48_000)
    sound[3] = 0.9 * np.sin(2 * np.pi * 40 * np.arange(48_000) / 48_000)
    people, _, _ = heard(write(tmp_path / "a.flac", "flac", sound, 48_000, layout="5.1"))
    assert follows(people, tone(SECONDS, 48_000)) > 0.999


def mp3(tmp_path: Path, rate: int = 48_000, layout: str = "mono") -> bytes:
    sound = np.repeat(tone(2 * SECONDS, rate)[None], 1 + (layout == "stereo"), axis=0)
    return write(tmp_path / "whole.mp3", "libmp3lame", sound, rate, layout=layout).read_bytes()


def test_a_damaged_frame_is_left_out_counted_and_said(tmp_path: Path) -> None:
    content = bytearray(mp3(tmp_path))
    middle = len(content) // 3
    content[middle : middle + 600] = bytes(byte ^ 0x5A for byte in content[middle : middle + 600])
    people, _, said = heard(saved(tmp_path / "damaged.mp3", bytes(content)))
    assert 1.7 < len(people) / 48_000 < 2.05
    assert len(said) == 1
    assert "left out of" in said[0]
    assert "damaged packet" in said[0]

    told: list[str] = []
    assert sum(map(len, read_pcm(tmp_path / "damaged.mp3", told.append))) == len(people)
    assert told == said


def test_junk_in_the_middle_is_left_out(tmp_path: Path) -> None:
    content = mp3(tmp_path, 44_100)
    middle = len(content) // 2
    junk = np.random.default_rng(0).bytes(3_000)
    people, _, said = heard(saved(tmp_path / "junk.mp3", content[:middle] + junk + content[middle:]))
    assert len(people) / 48_000 > 1.2  # the decoder may take long to find its place again
    assert "damaged packet" in said[0]
    people, _, _ = heard(saved(tmp_path / "before.mp3", junk + content))
    assert len(people) / 48_000 == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize(
    ("rate", "layout", "end"),
    [
        (22_050, "stereo", "22050 Hz and 2 channels"),
        (44_100, "mono", "44100 Hz and 1 channel"),
        (48_000, "stereo", "48000 Hz and 2 channels"),
    ],
)
def test_a_change_in_the_middle_is_followed(tmp_path: Path, rate: int, layout: str, end: str) -> None:
    content = mp3(tmp_path) + mp3(tmp_path, rate, layout)
    people, model, said = heard(saved(tmp_path / "mixed.mp3", content))
    assert len(people) / 48_000 == pytest.approx(4.0, abs=0.1)
    assert len(model) / MODEL_RATE == pytest.approx(len(people) / 48_000, abs=0.001)
    (changed,) = (sentence for sentence in said if "changes its sample rate or channels" in sentence)
    assert end in changed
    assert "at 2.0 s" in changed
    seconds = people[-48_000:].astype(np.float64)
    crossings = np.count_nonzero(np.diff(np.signbit(seconds[:24_000])))
    assert crossings == pytest.approx(2 * 220 * 0.5, abs=8), "the second part is not at its pitch"


def test_where_nothing_was_recorded_is_silence(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", "libopus", tone(4.0, 48_000), 48_000, leaving_out=(1.0, 3.0))
    people, _, said = heard(path)
    assert len(people) / 48_000 == pytest.approx(4.0, abs=FRAME_S)
    assert level_db(people[60_000:132_000]) < -80
    assert level_db(people[-40_000:]) > -25
    assert "leaves out 2.0 s" in said[0]


def test_a_file_that_was_cut_says_so(tmp_path: Path) -> None:
    content = write(tmp_path / "a.mkv", "flac", tone(3.0, 48_000), 48_000).read_bytes()
    people, _, said = heard(saved(tmp_path / "cut.mkv", content[: len(content) // 2]))
    assert 0.5 < len(people) / 48_000 < 2.4
    assert "should last 3.0 s" in said[-1]


@pytest.mark.parametrize("size", [0, 1_000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_wrong_length_in_the_header_loses_nothing(tmp_path: Path, size: int) -> None:
    people, _, said = heard(saved(tmp_path / "a.wav", wav(tone(SECONDS, 48_000), 48_000, size=size)))
    assert len(people) == 48_000
    assert [sentence for sentence in said if "wrong length" in sentence] == said
    assert len(said) == (size == 1_000)


@pytest.mark.parametrize(
    "after",
    [b"LIST\x0a\x00\x00\x00INFOabcdef", b"TAG" + bytes(125), b"id3 \x02\x00\x00\x00ab", b"\x00\x01\x02"],
)
def test_what_follows_the_samples_is_not_heard(tmp_path: Path, after: bytes) -> None:
    people, _, said = heard(saved(tmp_path / "a.wav", wav(tone(SECONDS, 48_000), 48_000, after=after)))
    assert len(people) == 48_000
    assert not said


def test_titles_need_no_utf_8(tmp_path: Path) -> None:
    title = b"caf\xe9 \x80\xff\xfe\x00"
    listed = b"INFOINAM" + len(title).to_bytes(4, "little") + title
    after = b"LIST" + len(listed).to_bytes(4, "little") + listed
    people, _, _ = heard(saved(tmp_path / "a.wav", wav(tone(SECONDS, 48_000), 48_000, after=after)))
    assert len(people) == 48_000


@pytest.mark.parametrize("samples", [1, 2, 3, 100])
def test_a_few_samples(tmp_path: Path, samples: int) -> None:
    people, model, said = heard(saved(tmp_path / "a.wav", wav(np.full(samples, 0.5), 48_000)))
    assert len(people) == samples
    assert len(model) <= samples
    assert not said


NAMES = [
    "12:30.wav", "http:a.wav", "100%d.wav", "%03d.wav", "-x.wav", "with space é ü 語.wav", "a'b\"c`$HOME.wav",
    "#1?.wav", "*.wav", "no_ending", os.fsdecode(b"caf\xe9.wav"), "x" * 251 + ".wav", "file:a.wav", "pipe:0",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_is_a_name(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    people, _, _ = heard(saved(Path(name), wav(tone(0.1, 48_000), 48_000)))
    assert len(people) == 4_800


def video_without_sound(path: Path) -> Path:
    import av

    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))))
        file.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("missing.wav", "There is no sound file missing.wav"),
        ("folder.wav", "is a folder"),
        ("/dev/null", "no file but a device"),
        ("nothing.wav", "is empty"),
        ("text.wav", "cannot be read as sound"),
        ("junk.mp3", "Nothing in junk.mp3 can be decoded|cannot be read as sound"),
        ("unknown.wav", "kind of sound in unknown.wav is unknown"),
        ("video.mp4", "holds no sound"),
        ("slow.wav", "says that it has 10 samples a second"),
        ("fast.wav", "says that it has 2000000000 samples a second"),
        ("x" * 300 + ".wav", "name too long"),
    ],
    ids=lambda word: word[:12],
)
def test_what_gives_no_sound_is_said(
    tmp_path: Path, name: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.wav").mkdir()
    saved(Path("nothing.wav"), b"")
    saved(Path("text.wav"), b"neither picture nor sound")
    saved(Path("junk.mp3"), np.random.default_rng(0).bytes(50_000))
    saved(Path("unknown.wav"), wav(tone(0.1, 48_000), 48_000, tag=0x9ABC))
    saved(Path("slow.wav"), wav(tone(0.1, 48_000), 10))
    saved(Path("fast.wav"), wav(tone(0.1, 48_000), 2_000_000_000, size=None))
    video_without_sound(Path("video.mp4"))
    with pytest.raises(SoundFileError, match=f"(?i){sentence}"):
        heard(Path(name))
    with pytest.raises(ClientError, match=f"(?i){sentence}"):
        list(read_pcm(Path(name)))
