"""Teacher and student run, resume, and learn what they are shown, on invented speech and motion."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from pipeline.audio_encoder import AudioEncoder
from pipeline.denoiser import LEFT_SLOTS, Denoiser
from pipeline.sampler import denoise_chunk, remember
from pipeline.scheduler import FlowMatchScheduler
from pipeline.training import student, teacher
from pipeline.training.consistency import consistency_loss
from pipeline.training.losses import MotionLoss
from pipeline.training.motion_file import expression_names
from pipeline.training.rollout import recall
from pipeline.training.sequences import Sequences
from pipeline.training.settings import load_settings
from tests.unit.avatar import TINY

TRAIN = TINY.parents[1] / "train"
LATENT = 12


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """`runs` and `data` folders with two corpora of noise whose loudness is the jaw's opening."""
    runs, data = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    names = [f"shape{i}" for i in range(57)]
    names[30] = "jawOpen"
    np.savez(data / "ict_facekit.npz", names=np.array(names))
    aperture = np.zeros(LATENT, np.float32)
    aperture[0] = 0.05
    eye_gap = np.zeros(LATENT, np.float32)
    eye_gap[1] = -0.02
    encode = np.zeros((62, LATENT), np.float32)
    encode[[30, 14, 57, 58, 59, 60, 61], [0, 1, 7, 8, 9, 10, 11]] = 1.0
    np.savez(
        runs / "basis.npz", encode=encode, mean=np.zeros(62, np.float32), decode=encode.T, aperture=aperture,
        aperture_bias=0.0, eye_gap=eye_gap, eye_gap_bias=0.0, n_expression=7,
    )  # fmt: skip
    AudioEncoder(**yaml.safe_load(TINY.read_text())["audio_encoder"]).save_pretrained(runs / "audio_encoder")
    for folder in ("speech", "motion"):
        (runs / folder).mkdir()
    for corpus, clips in (("grid_train", 6), ("grid_val", 3)):
        lengths = rng.integers(85, 100, clips)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        jaw = np.repeat(rng.random(offsets[-1] // 4 + 1), 4)[: offsets[-1]].astype(np.float32)
        audio = 8000 * np.repeat(jaw, 640) * rng.standard_normal(offsets[-1] * 640)
        motion = 0.05 * rng.standard_normal((offsets[-1], 62)).astype(np.float32)
        motion[:, 30] = jaw
        common = {"offsets": offsets, "names": np.arange(clips).astype(str)}
        np.savez(runs / "speech" / f"{corpus}.npz", audio=audio.astype(np.int16), **common)
        np.savez(runs / "motion" / f"{corpus}.npz", motion=motion, valid=np.ones(offsets[-1], bool), **common)
    return runs, data


def open_world(world: tuple[Path, Path], *, worse: bool = True) -> Sequences:
    runs, data = world
    encoder = AudioEncoder.from_pretrained(runs / "audio_encoder", low_cpu_mem_usage=False).eval()
    names = expression_names(data)
    return Sequences(["grid_train"], runs=runs, encoder=encoder, expression_names=names, worse=worse)


def one(value: float) -> torch.Tensor:
    return torch.tensor([value]) if isinstance(value, float) else torch.tensor([value], dtype=torch.long)


def test_excerpts_pair_each_frame_with_its_own_features(world: tuple[Path, Path]) -> None:
    runs, _ = world
    sequences = open_world(world, worse=False)
    clips = sequences.clips
    with np.load(runs / "speech" / "grid_train.npz") as file:
        begin, end = file["offsets"][1:3]
        pcm = file["audio"][begin * 640 : end * 640].astype(np.float32) / 32768
    encoder = AudioEncoder.from_pretrained(runs / "audio_encoder", low_cpu_mem_usage=False).eval()
    with torch.inference_mode():
        whole = encoder(torch.from_numpy(pcm)[None])[0]
    left = encoder.left_context_frames
    got = sequences.cut(one(1), one(left + 2), one(1.0), 32)
    assert got.features_BTF.shape == (1, LEFT_SLOTS + 32 + 2, whole.shape[1])
    torch.testing.assert_close(got.features_BTF[0], whole[left : left + 36], atol=1e-4, rtol=1e-4)
    frames = slice(int(begin) + left + 2, int(begin) + left + 34)
    torch.testing.assert_close(got.z_BTD[0], clips.kept_TD[frames] + clips.mouth_TD[frames])
    torch.testing.assert_close(got.lids_BT[0], clips.lids_T[frames])
    assert got.valid_BT.all()


def test_a_faster_excerpt_is_faster_to_eye_and_ear_alike(world: tuple[Path, Path]) -> None:
    """The jaw is the loudness, so at any speed each frame's loudness must still be its jaw's opening."""
    sequences = open_world(world, worse=False)
    heard: list[torch.Tensor] = []
    sound = sequences._sound

    def listen(*arguments: object) -> torch.Tensor:
        heard.append(sound(*arguments))  # type: ignore[arg-type]
        return heard[-1]

    sequences._sound = listen  # type: ignore[method-assign]
    for speed in (0.85, 1.0, 1.2):
        got = sequences.cut(one(2), one(4), one(speed), 48)
        before = sequences._encoder.left_context_frames + LEFT_SLOTS
        loudness = heard[-1][0].unflatten(0, (-1, 640))[before : before + 48].square().mean(1).sqrt()
        agreement = torch.corrcoef(torch.stack([loudness, got.z_BTD[0, :, 0]]))[0, 1]
        assert agreement > 0.95, speed


def test_listening_rests_the_mouth_and_keeps_the_head_alive(world: tuple[Path, Path]) -> None:
    sequences = open_world(world, worse=False)
    z = sequences.cut(one(0), one(-30), one(1.0), 30).z_BTD[0]
    torch.testing.assert_close(z[:20, 0], sequences.clips.rest_CD[0, 0].expand(20))
    assert z[:20, 8].std() > 0.01


def test_excerpts_for_training_differ_and_stay_usable(world: tuple[Path, Path]) -> None:
    torch.manual_seed(0)
    excerpts = open_world(world).draw(24, 32)
    for name in ("features_BTF", "z_BTD", "z_ref_BD", "style_BK", "lids_BT"):
        assert getattr(excerpts, name).isfinite().all(), name
    same = open_world(world).cut(one(0).repeat(2), one(10).repeat(2), one(1.0).repeat(2), 16).features_BTF
    assert not torch.equal(same[0], same[1]), "the same sound is heard through another microphone each time"


def test_both_stages_run_resume_and_save(world: tuple[Path, Path]) -> None:
    runs, data = world
    quick = {"minutes": 0.05, "batch": 2, "frames": 16, "check_every_s": 100.0, "threads": 1}
    first = replace(load_settings(teacher.TeacherSettings, TRAIN / "teacher.yaml"), model=str(TINY), **quick)
    teacher.train(first, runs, data)
    reached = torch.load(runs / "teacher" / "state.pt", weights_only=True)
    assert reached["step"] >= 2
    # A busy machine may have spent any time; what is left is counted from there.
    teacher.train(replace(first, minutes=reached["spent_s"] / 60 + 0.05), runs, data)
    assert torch.load(runs / "teacher" / "state.pt", weights_only=True)["step"] > reached["step"]
    curves = json.loads((runs / "teacher" / "curves.json").read_text())
    assert "lip_correlation" in curves["held_out"]

    second = replace(load_settings(student.StudentSettings, TRAIN / "student.yaml"), teacher_steps=2, **quick)
    student.train(second, runs, data)
    for stage in ("teacher", "student"):
        model = Denoiser.from_pretrained(runs / stage, low_cpu_mem_usage=False)
        assert model.latent_size == LATENT
        assert all(p.isfinite().all() for p in model.parameters())
    student.train(replace(second, method="consistency"), runs, data, "consistent")
    assert torch.load(runs / "consistent" / "state.pt", weights_only=True)["step"] >= 2
    with pytest.raises(
        ValueError, match="no method 'magic'; the methods are trajectory, anchored, consistency"
    ):
        student.train(replace(second, method="magic"), runs, data)


def test_a_consistent_student_says_what_its_average_says_one_step_on(world: tuple[Path, Path]) -> None:
    """At the last level the goal is the teacher's word; before it, that of the average, which is not trained."""
    torch.manual_seed(0)
    sequences = open_world(world)
    master, average = (teacher.new_denoiser(TINY, sequences.latents()).eval() for _ in range(2))
    pupil = copy.deepcopy(master).train()
    excerpts = sequences.draw(2, 16, listening=0.0)
    measure = MotionLoss.of(
        sequences.basis, master, torch.from_numpy(sequences.latents()), aperture_weight=0.5, eye_weight=0.5
    )

    def loss(interval: int, averaged: Denoiser) -> torch.Tensor:
        profile = teacher.Profile(2, 2)
        value, _ = consistency_loss(
            pupil,
            averaged,
            master,
            FlowMatchScheduler(),
            excerpts,
            excerpts.z_BTD,
            profile,
            measure,
            4,
            interval,
        )
        return value

    assert float(loss(3, average).detach()) < 1e-9, "with the teacher's weights it says the teacher's word"
    assert float(loss(0, average).detach()) > 1e-4
    loss(0, average).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in pupil.parameters())
    assert all(p.grad is None for p in [*master.parameters(), *average.parameters()])


@pytest.mark.parametrize("profile", [teacher.Profile(1, 1), teacher.Profile(2, 2)])
def test_all_chunks_at_once_equal_a_session(world: tuple[Path, Path], profile: teacher.Profile) -> None:
    """What the student is trained on is what `denoise_chunk` makes, ring and all."""
    torch.manual_seed(0)
    model = teacher.new_denoiser(TINY, open_world(world).latents()).eval().requires_grad_(False)
    for block in model.blocks:
        torch.nn.init.normal_(block.modulation, std=0.5)  # type: ignore[union-attr, arg-type]
    excerpts = open_world(world).draw(2, 24)
    scheduler = FlowMatchScheduler()
    past, noise = 0.3 * torch.randn(2, 24, LATENT), torch.randn(2, 24, LATENT)
    whole = student.sample_all_chunks(model, scheduler, excerpts, past, noise, profile, 2)
    session, ring = model.embed_session(excerpts.z_ref_BD, excerpts.style_BK), model.new_ring(2)
    hop, right = profile.hop_frames, profile.right_frames
    for at in range(0, 24, hop):
        audio = model.embed_audio(excerpts.features_BTF[:, at : at + LEFT_SLOTS + hop + right], right)
        z, _ = denoise_chunk(
            model, scheduler, ring, audio_BTC=audio, session_BC=session, noise_BTD=noise[:, at : at + hop]
        )
        torch.testing.assert_close(model.normalize(z), whole[:, at : at + hop], atol=1e-5, rtol=1e-5)
        ring = remember(model, ring, past[:, at : at + hop], audio_BTC=audio, session_BC=session)


def test_a_closure_counts_if_the_lips_meet_within_a_frame_of_it() -> None:
    true = torch.ones(1, 60)
    true[0, [12, 30, 48]] = 0.0
    made = true.roll(1, 1)
    assert recall(made, true) == 1.0
    made[0, 31] = 0.4
    assert recall(made, true) == pytest.approx(2 / 3)
    assert recall(true.roll(3, 1), true) == 0.0
    silence = torch.zeros(1, 60)
    assert recall(silence, silence) == 0.0, "lips that never open close nothing"
