"""Festival's speech becomes clips with times, and closures count only where they are more than chance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.evaluation import festival
from pipeline.evaluation.material import Clip, MaterialError, Sound
from pipeline.evaluation.studies import languages
from tests.unit.spoken import SEGMENTS, put_festival, put_speaking_festival


def test_segments_become_sounds_in_frames() -> None:
    sounds = festival.read_sounds("separator ;\n" + SEGMENTS)
    assert [sound.label for sound in sounds] == ["sil", "b", "aa", "p", "m", "sh", "sil"]
    assert [(sound.first, sound.last) for sound in sounds[:3]] == [(0, 5), (5, 7), (7, 10)]
    clip = Clip(name="x", corpus="festival", pcm=np.zeros(640 * 20, np.float32), sounds=sounds)
    assert len(clip.closing_sounds) == 3
    assert clip.speech == (5, 18)


@pytest.mark.parametrize("name", ["p:", "pp", "bh", "m1", "b"])
def test_long_soft_and_breathed_sounds_close_the_lips(name: str) -> None:
    (sound,) = festival.read_sounds(f"#\n0.1 100 {name}\n")
    assert sound.label == name[0]


def test_every_text_can_be_written_as_its_voice_reads_it() -> None:
    for voice in festival.VOICES:
        assert voice.texts or voice.songs
        for text in voice.texts:
            assert text.encode(voice.encoding)
            assert '"' not in text  # it would end the string in Festival's command
        for pitches, beats, _ in (note for song in voice.songs for note in song):
            assert len(pitches.split(",")) == len(beats.split(","))


needs_festival = pytest.mark.skipif(
    not festival.available(festival.VOICES[0]), reason="no Festival: apt install festival festvox-kallpc16k"
)


@needs_festival
def test_festival_speaks_and_says_when_each_sound_is() -> None:
    clip = festival.clips(festival.VOICES[0])[0]
    first, last = clip.speech
    assert 2.5 < (last - first) / 25 < 6, "one sentence"
    loud = np.abs(clip.pcm).reshape(-1, 640).mean(1)
    assert loud[first:last].mean() > 20 * loud[last + 5 :].mean()
    # Please bring my brother a bottle of plum jam from the market.
    assert [sound.label for sound in clip.sounds if sound.label in "pbm"] == list("pbmbbpmmmm")


def test_clips_are_equally_long_and_keep_their_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_speaking_festival(tmp_path, monkeypatch)
    clips = festival.clips(festival.VOICES[0])
    assert len(clips) == len(festival.VOICES[0].texts)
    assert len({len(clip.pcm) for clip in clips}) == 1
    assert len(clips[0].pcm) % 640 == 0
    assert np.abs(clips[0].pcm[:12_800]).max() > 0.2
    assert not clips[0].pcm[12_800:].any()
    assert len(clips[0].closing_sounds) == 3


def test_a_voice_that_says_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_festival(tmp_path, monkeypatch, "import sys\nsys.exit('SIOD ERROR: no such voice')\n")
    with pytest.raises(MaterialError, match=r"kal_diphone \(English\) says nothing: SIOD ERROR"):
        festival.clips(festival.VOICES[0])
    assert not festival.available(festival.VOICES[0])


def test_without_festival_the_study_says_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MaterialError, match="needs Festival"):
        languages.study(None, tmp_path)


def spoken(*, follows: bool) -> list[tuple[Clip, np.ndarray]]:
    """Lips that close in every closing sound and nowhere else, or in others than those."""
    sounds = tuple(
        Sound(label="b" if i % 2 == 0 else "a", first=8 * i + 4, last=8 * i + (6 if i % 2 == 0 else 12))
        for i in range(10)
    )
    clip = Clip(name="x", corpus="festival", pcm=np.zeros(640 * 100, np.float32), sounds=sounds)
    aperture = np.full(100, 0.05)
    for first, last in clip.closing_sounds:
        shift = 0 if follows else 8
        aperture[first + shift : last + shift] = 0.0
    return [(clip, aperture)]


def test_lips_that_close_in_time_are_told_from_lips_that_close() -> None:
    right = languages.figures(spoken(follows=True), 0)
    wrong = languages.figures(spoken(follows=False), 0)
    assert right["closure_recall"] == 1.0
    assert wrong["closure_recall"] < 0.2
    assert right["by_chance"] < 0.5
    assert right["closures"] == 5
    assert right["opening_in_closures_percent"] == pytest.approx(0.0)
    assert right["opening_in_vowels_percent"] == pytest.approx(5.0)


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    said = spoken(follows=True)
    rows = [{"voice": "nobody", **languages.figures(said, 0)}]
    assert languages.plot(rows, {"nobody": said[0]}, tmp_path / "languages.png").stat().st_size > 10_000
