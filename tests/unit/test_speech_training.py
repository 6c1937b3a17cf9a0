"""Speech corpora keep time, phoneme targets look back, and the encoder's training stage runs and resumes."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipeline.audio_encoder import AudioEncoder
from pipeline.training import augmentation, speech
from pipeline.training.audio_encoder import (
    IGNORED,
    UNITS,
    AudioEncoderSettings,
    Heads,
    evaluate,
    load_speech,
    phoneme_classes,
    targets,
    train,
)

SYMBOLS = ["sil", " ", ".", "a", "m", "p", "ˈ"]


def test_labels_are_moved_to_the_sound_they_name() -> None:
    # The labels change at 0.125 and 0.325 s, the sound at 0.075 and 0.275 s: 20 ms units 4 and 14.
    row = {"phonemes": ["^", "a", "m"], "durations": [5, 8, 8]}
    units = speech.phoneme_units(row, {"^": 0, "a": 1, "m": 2}, 13)
    assert len(units) == 26
    assert list(np.flatnonzero(np.diff(units)) + 1) == [4, 14]
    assert units[-1] == 2


def test_decoding_resamples_and_keeps_the_length(tmp_path: Path) -> None:
    path, seconds = tmp_path / "tone.wav", 0.5
    tone = np.sin(2 * np.pi * 440 * np.arange(int(48000 * seconds)) / 48000) * 20000
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 48000, 0, "NONE", ""))
        file.writeframes(tone.astype(np.int16).tobytes())
    audio = speech.decode(path)
    assert abs(len(audio) - 8000) <= 1
    assert np.abs(np.fft.rfft(audio[:8000])).argmax() == 220  # 2 Hz a bin


def test_clips_are_cut_and_padded_to_whole_frames(tmp_path: Path) -> None:
    clips = [
        speech.Clip("long", np.full(2000, 7, np.int16), 2),
        speech.Clip("short", np.full(700, 9, np.int16), 2),
    ]
    speech.write(tmp_path / "corpus.npz", clips)
    with np.load(tmp_path / "corpus.npz") as corpus:
        assert list(corpus["offsets"]) == [0, 2, 4]
        assert len(corpus["audio"]) == 4 * 640
        assert np.all(corpus["audio"][:1280] == 7)
        assert np.all(corpus["audio"][1280:1980] == 9)
        assert not corpus["audio"][1980:].any()
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.npz"]


def test_classes_leave_marks_out_and_hear_punctuation_as_silence() -> None:
    classes, table = phoneme_classes(SYMBOLS)
    assert classes == ["sil", "a", "m", "p"]
    assert dict(zip(SYMBOLS, table.tolist(), strict=True)) == {
        "sil": 0, " ": IGNORED, ".": 0, "a": 1, "m": 2, "p": 3, "ˈ": IGNORED,
    }  # fmt: skip


def test_targets_are_the_units_of_two_frames_back_until_now() -> None:
    rows = targets(torch.arange(8)[None])[0]
    assert rows.shape == (4, UNITS)
    assert rows[3].tolist() == [2, 3, 4, 5, 6, 7]
    assert rows[0].tolist() == [IGNORED] * 4 + [0, 1]


def test_augmented_audio_stays_finite_in_range_and_in_time() -> None:
    torch.manual_seed(0)
    click = torch.zeros(48, 16000)
    click[:, 8000:8040] = 0.9
    for _ in range(4):
        out = augmentation.augment(click)
        assert out.shape == click.shape
        assert out.isfinite().all()
        assert out.abs().max() <= 1
        energy = out.square().mean(0).unflatten(0, (-1, 160)).mean(1)
        assert energy.argmax() == 50, "the labels would no longer fit"
        assert not torch.equal(out, click)
    assert torch.equal(augmentation.augment(click, share=0.0), click)


def test_rooms_reverberate_and_microphones_limit_the_band() -> None:
    torch.manual_seed(0)
    click = torch.zeros(8, 16000)
    click[:, 4000] = 0.5
    room = augmentation.in_a_room(click)
    torch.testing.assert_close(room[:, 4000], click[:, 4000], atol=1e-3, rtol=0)
    assert room[:, :4000].abs().max() < 1e-4, "nothing is heard before it sounds"
    tail = room[:, 4032:].square().sum(1).div(0.25).log10() * 10
    assert ((tail > -16) & (tail < 4)).all()
    noise = torch.randn(8, 16000)
    band = torch.fft.rfft(augmentation.band_limited(noise)).abs().square()
    assert (band[:, :15].sum(1) < 0.2 * torch.fft.rfft(noise).abs().square()[:, :15].sum(1)).all()


def test_the_voice_is_measured_where_it_speaks() -> None:
    pcm = torch.zeros(1, 16000)
    pcm[:, :8000] = 0.1 * torch.randn(1, 8000)
    assert augmentation.voice_level(pcm).item() == pytest.approx(0.1, rel=0.1)


NAMES = ["jawOpen", *(f"shape{i}" for i in range(56))]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Corpora of noise with two alternating "phonemes", a jaw, and a made-up Whisper cache; the data folder, too."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "ict_facekit.npz", names=np.array(NAMES))
    encode = np.eye(62, 8, dtype=np.float32)
    row = np.eye(8, dtype=np.float32)[0]
    np.savez(
        tmp_path / "basis.npz", encode=encode, decode=encode.T, mean=np.zeros(62), aperture=row, eye_gap=row,
        aperture_bias=0.0, n_expression=3,
    )  # fmt: skip
    (tmp_path / "motion").mkdir()
    (tmp_path / "whisper").mkdir()
    (tmp_path / "speech").mkdir()
    for name in ("kokoro_train", "kokoro_val", "grid_train", "dc_tts"):
        labels = np.repeat(rng.integers(3, 6, 20), 8) if name.startswith("kokoro") else None
        sound = rng.normal(0, 3000, 80 * 640).astype(np.int16)
        clips = [speech.Clip("one", sound, 80, labels)]
        speech.write(tmp_path / "speech" / f"{name}.npz", clips, SYMBOLS if labels is not None else None)
        np.save(tmp_path / "whisper" / f"{name}.npy", rng.normal(size=(80, 384)).astype(np.float16))
    motion = rng.random((80, 62)).astype(np.float32)
    valid = np.arange(80) < 70
    np.savez(tmp_path / "motion" / "kokoro_train.npz", motion=motion, valid=valid, offsets=np.array([0, 80]))
    return tmp_path


def test_a_corpus_says_what_it_knows_and_no_more(runs: Path) -> None:
    _, table = phoneme_classes(SYMBOLS)
    known = load_speech(["kokoro_train", "grid_train"], runs, NAMES, table, torch.device("cpu"))
    assert known.offsets.tolist() == [0, 80, 160]
    audio, whisper, phonemes, mouth = known.cut(torch.tensor([10, 90]), 20)
    with np.load(runs / "speech" / "grid_train.npz") as archive:
        cut = archive["audio"][6400:19200].astype(np.float32) / 32768
    torch.testing.assert_close(audio[1], torch.from_numpy(cut))
    assert whisper[0].isnan().all()
    assert whisper[1].isfinite().all()
    assert (phonemes[0] >= 0).all()
    assert (phonemes[1] == IGNORED).all()
    assert mouth[0].isfinite().all()
    assert mouth[1].isnan().all()
    with np.load(runs / "motion" / "kokoro_train.npz") as archive:
        jaw = archive["motion"][10:30, 0]
    np.testing.assert_allclose(mouth[0, :, 0], jaw)
    np.testing.assert_allclose(mouth[0, :, -1], jaw, err_msg="here the lip gap is the first latent")
    assert known.mouth_TM[70:80].isnan().all(), "frames whose tracking failed teach nothing"


def test_evaluation_counts_every_known_unit(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classes, table = phoneme_classes(SYMBOLS)
    corpus = load_speech(["kokoro_val"], runs, NAMES, table, torch.device("cpu"))
    encoder, heads = AudioEncoder().eval(), Heads(256, len(classes), 9)
    labial = torch.tensor([2, 3])
    truth = targets(corpus.phonemes_U[None]).clamp_min(0)
    perfect = torch.nn.functional.one_hot(truth, len(classes)).float()
    monkeypatch.setattr(heads, "forward", lambda features: (perfect, features))
    assert set(evaluate(encoder, heads, corpus, labial, "").values()) == {1.0}
    monkeypatch.setattr(heads, "forward", lambda features: (perfect.roll(1, -1), features))
    assert evaluate(encoder, heads, corpus, labial, "")["accuracy_80ms"] == 0.0


def test_the_stage_trains_saves_and_resumes(runs: Path) -> None:
    settings = AudioEncoderSettings(
        minutes=0.005, batch_clips=2, clip_frames=24, learning_rate=1e-3, phoneme_weight=1.0,
        whisper_weight=1.0, mouth_weight=1.0, check_every_s=60.0, seed=0, threads=1,
    )  # fmt: skip
    train(settings, runs, runs)
    out = runs / "audio_encoder"
    classes = json.loads((out / "phoneme_classes.json").read_text())
    head = load_file(out / "phoneme_head.safetensors")
    assert head["phonemes.weight"].shape == (UNITS * len(classes), 256)
    trained = AudioEncoder.from_pretrained(out, low_cpu_mem_usage=False)
    assert all(value.isfinite().all() for value in trained.state_dict().values())
    first = torch.load(out / "state.pt", weights_only=True)
    assert first["step"] >= 1
    train(settings, runs, runs)  # the time is spent: nothing more to do
    assert torch.load(out / "state.pt", weights_only=True)["step"] == first["step"]
