"""Sounds are made as bad as they are said to be; readings, seams and figures say what is put into them; studies run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.denoiser import KVRing
from pipeline.evaluation import lips
from pipeline.evaluation.material import Clip, Sound
from pipeline.evaluation.page import write_page
from pipeline.evaluation.references import Reference
from pipeline.evaluation.studies import (
    blinking,
    context,
    degradation,
    few_steps,
    long_session,
    pictures,
    portraits,
    running,
    sliders,
    sounds,
)
from pipeline.evaluation.studies.reading import LipReading
from pipeline.evaluation.studies.result import Study, table
from pipeline.evaluation.studies.settings import StudySettings
from pipeline.evaluation.studies.speakers import Speakers, recall
from pipeline.evaluation.takes import Take
from tests.unit.avatar import plain_portrait, tiny_pipeline
from tests.unit.spoken import put_speaking_festival
from tests.unit.test_evaluation import KnowingJudge

RATE = 16_000
RNG = np.random.default_rng(0)


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """Syllables of coloured noise between pauses."""
    rng, time = np.random.default_rng(seed), np.arange(round(seconds * RATE)) / RATE
    loud = np.clip(np.sin(2 * np.pi * 2.5 * time), 0, 1) * ((time % 1.0) < 0.8)
    smooth = np.convolve(rng.standard_normal(len(time)), np.ones(6) / 6, "same")
    return (0.3 * loud * smooth).astype(np.float32)


def test_noise_is_as_far_below_the_voice_as_is_said() -> None:
    voice = speech(4)
    for kind in (sounds.white, sounds.pink, sounds.hum):
        noise = kind(len(voice), RNG)
        for snr_db in (20.0, 0.0):
            added = (sounds.with_noise(voice, noise, snr_db) - voice).astype(np.float64)
            found = 20 * np.log10(sounds.active_rms(voice) / np.sqrt(np.mean(added**2)))
            assert found == pytest.approx(snr_db, abs=0.1)
    with pytest.raises(ValueError, match="no sound in this clip"):
        sounds.with_noise(np.zeros(RATE, np.float32), noise, 10)


def test_noises_have_their_colours() -> None:
    def slope(noise: np.ndarray) -> float:
        power = np.abs(np.fft.rfft(noise)) ** 2
        low, high = (
            power[(f := np.fft.rfftfreq(len(noise), 1 / RATE)) > a][: int(3 * len(noise) * a / RATE)]
            for a in (200, 1600)
        )
        assert len(f)
        return float(10 * np.log10(low.mean() / high.mean()))

    assert slope(sounds.white(8 * RATE, RNG)) == pytest.approx(0, abs=1)
    assert slope(sounds.pink(8 * RATE, RNG)) == pytest.approx(9, abs=1), "3 dB an octave over three octaves"
    spectrum = np.abs(np.fft.rfft(sounds.hum(RATE, RNG)))
    assert set(np.flatnonzero(spectrum > 0.01 * spectrum.max())) == set(range(50, 1001, 50))


def test_babble_is_of_other_speakers_and_the_same_every_time() -> None:
    clips = [
        Clip(name=name, corpus="kokoro", pcm=speech(2, seed))
        for seed, name in enumerate(["1_ann", "2_bob", "3_ann", "4_cid"])
    ]
    settings = quick()
    first, again = (degradation.noise_for("babble", clips, 0, settings) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    alone = [
        degradation.noise_for("babble", [clips[0], other], 0, settings) for other in (clips[1], clips[3])
    ]
    assert not np.allclose(alone[0], alone[1])
    with pytest.raises(ValueError, match="another speaker"):
        degradation.noise_for("babble", [clips[0], clips[2]], 0, settings)


def test_level_and_clipping() -> None:
    voice = speech(2)
    assert np.abs(sounds.at_level(voice, -40)).max() == pytest.approx(0.01, rel=1e-3)
    loud = sounds.at_level(voice, 12)
    assert np.abs(loud).max() == 1.0
    assert (np.abs(loud) == 1.0).mean() > 0.001


@pytest.mark.parametrize("bit_rate", [6000, 24000])
def test_the_codec_keeps_length_and_time(bit_rate: int) -> None:
    voice = speech(3)
    heard = sounds.through_opus(voice, bit_rate)
    assert heard.shape == voice.shape
    envelopes = [np.abs(x).reshape(-1, 160).mean(1) for x in (voice, heard)]
    lags = lips.correlation_over_lags(*envelopes, 10)
    assert int(np.argmax(lags)) - 10 == 0, "10 ms or more late"
    assert lags.max() > 0.9
    assert not np.allclose(voice, heard, atol=1e-3)


def test_a_room_adds_what_decays_and_keeps_the_level() -> None:
    response = sounds.room_response(0.5, 0.0, RNG)
    tail = response[1:] ** 2
    assert tail.sum() == pytest.approx(1.0), "as much reverberation as direct sound"
    fifths = np.array_split(tail[80:], 5)
    fall = 10 * np.log10(fifths[0].mean() / fifths[-1].mean())
    assert fall == pytest.approx(48, abs=3), "60 dB in all"
    voice = speech(3)
    wet = sounds.in_room(voice, response)
    assert wet.shape == voice.shape
    assert sounds.active_rms(wet) == pytest.approx(sounds.active_rms(voice), rel=0.2)


def take(latents: np.ndarray, aperture: np.ndarray, rest: float = 0.002) -> Take:
    clip = Clip(name="c", corpus="grid", pcm=np.zeros(len(aperture) * 640, np.float32))
    nothing = np.zeros(0)
    return Take(
        actor="model", portrait="p", clip=clip, first_frame=0, found=1.0, rest=rest, aperture=aperture,
        openness=nothing, head_path=nothing, changes=nothing, identity=nothing, sharpness=nothing, colours=nothing,
        latents=latents.astype(np.float32), step_ms=(), stills=(),
    )  # fmt: skip


def test_a_lip_reading_finds_the_directions_that_open_the_mouth(tmp_path: Path) -> None:
    """Lips open with two of the latents, stay shut below a threshold, and the head's pose plays no part."""
    z_ref = RNG.standard_normal(12).astype(np.float32)
    takes = []
    for _ in range(4):
        change = RNG.standard_normal((300, 12))
        gap = np.maximum(0.03 * change[:, 0] - 0.02 * change[:, 1] + 0.005, 0.0)
        takes.append(take(z_ref + change, gap + 0.002))
    reading = LipReading.fit(takes, {"p": z_ref})
    assert reading.agreement > 0.99
    np.testing.assert_allclose(reading.slopes[:2], [0.03, -0.02], atol=2e-3)
    assert np.abs(reading.slopes[2:]).max() < 2e-3
    assert not reading.slopes[-5:].any()
    kept = tmp_path / "reading.json"
    reading.save(kept)
    again = LipReading.load(kept)
    np.testing.assert_array_equal(
        again.aperture(takes[0].latents, z_ref), reading.aperture(takes[0].latents, z_ref)
    )
    with pytest.raises(ValueError, match="fewer than two takes"):
        LipReading.fit([take(np.zeros((50, 12)), np.full(50, 0.01))], {"p": np.zeros(12, np.float32)})


def test_recall_counts_closures_where_lips_close() -> None:
    aperture = np.full(60, 0.05)
    aperture[20:23] = aperture[40:42] = 0.0
    said = [("p", 20, 23), ("m", 30, 33), ("b", 40, 42), ("a", 50, 55)]
    marks = tuple(Sound(label=label, first=first, last=last) for label, first, last in said)
    clip = Clip(name="k", corpus="kokoro", pcm=np.zeros(60 * 640, np.float32), sounds=marks)
    assert recall([(clip, aperture)]) == pytest.approx(2 / 3)


def test_seams_of_latents() -> None:
    steps = np.where(np.arange(1, 100) % 2 == 0, 3.0, 1.0)
    z = np.concatenate([[0.0], np.cumsum(steps)])[:, None].repeat(4, 1).astype(np.float32)
    assert few_steps.latent_seam_ratio([z], np.ones(4, np.float32), 2) == pytest.approx(3.0)
    with pytest.raises(ValueError, match="at least two frames"):
        few_steps.latent_seam_ratio([z], np.ones(4, np.float32), 1)


def test_head_measures_have_their_units() -> None:
    """Yaw of 0.085 rad a unit, nodding once a second by one unit: amplitude, speed and band are known."""
    seconds = np.arange(1500) / 25
    pose = np.zeros((1500, 5), np.float32)
    pose[:, 0] = np.sin(2 * np.pi * seconds)
    degrees = np.degrees(0.085)
    assert sliders.gaze_off(pose) == pytest.approx(degrees / np.sqrt(2), rel=0.01)
    assert sliders.head_speed(pose) == pytest.approx(2 * np.pi * degrees / np.sqrt(2), rel=0.02)
    pose[:, 0] = np.sin(2 * np.pi * 0.05 * seconds)
    assert sliders.head_speed(pose) < 0.05 * degrees, "below the band"


@pytest.mark.parametrize("name", list(pictures.CHANGES))
def test_picture_changes_keep_the_size_and_do_something(name: str) -> None:
    rows, columns = np.mgrid[:90, :120]
    picture = np.stack([(rows * 2) % 256, (columns * 2) % 256, (rows + columns) % 256], -1).astype(np.uint8)
    made = pictures.CHANGES[name](picture)
    assert (made.shape, made.dtype) == (picture.shape, np.uint8)
    assert np.array_equal(made, picture) == (name == "as it is")
    if name.startswith("dark"):
        assert made.mean() < 0.7 * picture.mean()
    if name.startswith("pale"):
        assert made.mean() > 1.2 * picture.mean()
    if name in ("pencil", "ink", "grey"):
        assert np.array_equal(made[..., 0], made[..., 2])


def test_spectacles_are_on_the_eyes_and_nowhere_else() -> None:
    picture = np.full((200, 200, 3), 180, np.uint8)
    made = pictures.glasses(picture, np.array([[70, 90], [130, 90]], np.float32))
    changed = (made != picture).any(-1)
    assert changed[60:130, 40:160].any()
    assert not changed[:60].any()
    assert not changed[130:].any()


def quick() -> StudySettings:
    return StudySettings(
        portraits=2, grid_clips=1, kokoro_clips=2, clip_seconds=3.0, reading_portraits=1, babble_voices=2,
        snrs_db=[10.0], peaks_dbfs=[-40.0], bit_rates=[12000], rooms=[[0.3, 3.0]], steps=[1, 2],
        context_frames=[0, 4], long_minutes=1.0, slider_values=[0.0, 2.0], slider_seeds=1, blink_minutes=2.0,
        hop_frames=2, right_frames=2, max_lag_frames=8, threads=1, seed=0,
    )  # fmt: skip


@pytest.fixture
def speakers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Speakers:
    """Two tiny portraits, two clips of each corpus, a reading along one latent, and a minute of two seconds."""
    for module in (long_session, sliders, blinking):
        if hasattr(module, "MINUTE"):
            monkeypatch.setattr(module, "MINUTE", 200)
    monkeypatch.setattr(long_session, "DRAWN_PER_MINUTE", 3)
    monkeypatch.setattr(sliders, "SETTLE_FRAMES", 20)
    monkeypatch.setattr(blinking, "DRAWN_BLINKS", 1)
    monkeypatch.setattr(few_steps, "TIMED", 2)
    pipe = tiny_pipeline()
    window = pipe.window_spec()
    people = [pipe.prepare(plain_portrait(seed=seed)) for seed in range(2)]
    said = (Sound(label="p", first=5, last=8), Sound(label="a", first=10, last=20))
    clips = [
        Clip(name=name, corpus=corpus, pcm=speech(2, seed), sounds=said)
        for seed, (name, corpus) in enumerate(
            [("g1", "grid"), ("1_ann", "kokoro"), ("2_bob", "kokoro"), ("3_cid", "kokoro")]
        )
    ]
    slopes = np.zeros(pipe.denoiser.latent_size)
    slopes[0] = 1.0
    return Speakers(
        pipe=pipe, window=window, portraits=people,
        z_refs=torch.from_numpy(np.stack([p.z_ref for p in people])),
        clips=clips,
        found={clip.name: Reference(aperture=RNG.random(50), closures=()) for clip in clips},
        reading=LipReading(slopes=slopes, bias=0.0, floor=-9.0, agreement=0.9, frames=9),
        settings=quick(), judge=KnowingJudge(), gallery=tmp_path / "none",
    )  # fmt: skip


@pytest.mark.parametrize("name", [name for name in running.STUDIES if name != "portraits"])
def test_a_study_writes_figures_and_pictures(
    name: str, speakers: Speakers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "languages":
        put_speaking_festival(tmp_path, monkeypatch)
    study = running.STUDIES[name](speakers, tmp_path)
    written = json.loads(study.write(tmp_path, {"model": "tiny"}).read_text())
    assert written["rows"]
    assert study.name == name
    for picture in written["pictures"]:
        assert np.asarray(Image.open(tmp_path / picture)).std() > 5
    header, lines = table(study.rows)
    assert all(len(line) == len(header) for line in lines)


def test_conditions_differ_and_the_clean_one_comes_first(speakers: Speakers) -> None:
    points = list(degradation.conditions(speakers.clips, speakers.settings))
    assert points[0] == ({"kind": "clean", "amount": "clean"}, None)
    heard = [change(speakers.clips[1], 1) for _, change in points[1:] if change is not None]
    kinds = [point["kind"] for point, _ in points[1:]]
    assert len(kinds) == len(heard) == 4 + 2 + 1 + 1
    for place, sound in enumerate(heard):
        assert sound.dtype == np.float32
        assert not np.array_equal(sound, speakers.clips[1].pcm), kinds[place]


def test_an_emptied_ring_shows_in_the_motion(speakers: Speakers, tmp_path: Path) -> None:
    rows = {row["ring_frames"]: row for row in context.study(speakers, tmp_path).rows}
    assert rows[0]["frechet"] > rows[8]["frechet"] - 1e-6
    assert rows[8]["frechet"] == pytest.approx(0, abs=1e-3)
    assert context.streaming_difference(speakers, 1, 1) < 1e-4


def test_a_teacher_is_shown_beside_the_student_and_is_the_reference(
    speakers: Speakers, tmp_path: Path
) -> None:
    speakers.pipe.denoiser.save_pretrained(tmp_path / "teacher")
    study = few_steps.study(replace(speakers, teacher=tmp_path / "teacher"), tmp_path)
    assert [(row["actor"], row["steps"]) for row in study.rows] == [
        ("student", 1), ("student", 2), ("teacher", 1), ("teacher", 2)
    ]  # fmt: skip
    assert study.rows[3]["frechet"] == pytest.approx(0, abs=1e-3)
    assert study.rows[1]["frechet"] == pytest.approx(0, abs=1e-3), "the same weights make the same motion"
    assert not any("holds no teacher" in note for note in study.notes)


def test_a_refused_portrait_is_a_row_of_its_own(
    speakers: Speakers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(plain_portrait().canvas).save(tmp_path / "noise.png")
    monkeypatch.setattr(
        portraits,
        "candidates",
        lambda *_: iter([("noise", "as it is", tmp_path / "noise.png"), ("a", "b", _photo(tmp_path))]),
    )
    rows = portraits.study(speakers, tmp_path).rows
    assert "face" in rows[0]["refused"].lower()
    assert rows[1]["found"] == 1.0
    assert rows[1]["outside"] == 0.0
    assert (tmp_path / "portraits.png").is_file()


def _photo(folder: Path) -> Path:
    from pipeline.render import find_portrait

    path = folder / "copy.png"
    Image.open(find_portrait("mira")).save(path)
    return path


def test_the_page_shows_the_studies_that_lie_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    study = Study(
        name="noise", title="Noise & level", rows=[{"kind": "white", "amount": 1.5}], notes=["a < b"],
        pictures={"noise.png": "Curves"},
    )  # fmt: skip
    study.write(tmp_path / "studies", {"model": "some model"})
    (tmp_path / "studies" / "reading_x.json").write_text("{}")
    page = write_page(tmp_path).read_text()
    assert "Noise &amp; level" in page
    assert "a &lt; b" in page
    assert 'src="studies/noise.png"' in page
    assert "<td" in page
    assert "some model" in page


def test_a_study_that_there_is_not_is_named() -> None:
    assert running.chosen_studies(["all"]) == list(running.STUDIES)
    with pytest.raises(ValueError, match=r"no study 'weather'; the studies are degradation"):
        running.chosen_studies(["weather"])


def test_rings_are_values() -> None:
    ring = KVRing(keys=torch.zeros(1, 1, 1, 4, 2), values=torch.zeros(1, 1, 1, 4, 2), capacity=4)
    from pipeline.evaluation.speaking import shortened

    assert shortened(ring, 1).frames == 1
    assert ring.frames == 4
