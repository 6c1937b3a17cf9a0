"""What the training stages make of made-up inputs: crops, bases of motion, augmentation, losses, curves, settings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from pipeline.autoencoder import (
    CROP_PIXELS,
    GRID_PIXELS,
    MOUTH_BOTTOM,
    MOUTH_LEFT,
    MOUTH_RIGHT,
    MOUTH_TOP,
    DecodedFrames,
    identity_grid,
)
from pipeline.training.autoencoder import AutoencoderSettings, Batch, _reframe, losses, mirror_indices
from pipeline.training.curves import Curves
from pipeline.training.grid_tracks import eye_openness, lip_gap
from pipeline.training.motion_basis import POSE_SCALE, build_basis
from pipeline.training.phones import Phone
from pipeline.training.portrait_fit import FaceGeometry, canonical_square, crop_portrait
from pipeline.training.settings import load_settings
from pipeline.training.speech_motion import mouth_curves


@dataclass(frozen=True, kw_only=True)
class StageSettings:
    minutes: float
    steps: int
    name: str = "stage"
    resume: bool = False


def settings_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "stage.yaml"
    path.write_text(text)
    return path


def test_settings_are_read_and_defaults_fill_the_rest(tmp_path: Path) -> None:
    path = settings_file(tmp_path, "minutes: 3\nsteps: 4\nresume: true\n")
    assert load_settings(StageSettings, path) == StageSettings(minutes=3, steps=4, resume=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("minutes: 1.5\nsteps: 4\nstep: 4\n", "unknown key 'step'"),
        ("minutes: 1.5\n", "the key 'steps' is missing"),
        ("", "the key 'minutes' is missing"),
        ("minutes: 1.5\nsteps: four\n", "'steps' should be of type int, found 'four'"),
        ("minutes: 1.5\nsteps: 4.5\n", "'steps' should be of type int, found 4.5"),
        ("minutes: 1.5\nsteps: true\n", "'steps' should be of type int, found True"),
        ("minutes: no\nsteps: 4\n", "'minutes' should be of type float, found False"),
        ("minutes: 1.5\nsteps: 4\nname: 7\n", "'name' should be of type str, found 7"),
        ("- minutes\n- steps\n", "must hold one 'key: value' a line"),
    ],
)
def test_a_mistake_in_settings_names_key_and_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"stage\.yaml") as caught:
        load_settings(StageSettings, settings_file(tmp_path, text))
    assert message in str(caught.value)


def test_curves_average_training_and_keep_every_held_out_value(tmp_path: Path) -> None:
    path = tmp_path / "curves.json"
    curves = Curves(path, title="A stage")
    for step in range(1, 51):
        curves.add("train", step, {"loss": float(step)})
    curves.add("held_out", 50, {"loss": 7.0, "recall": 0.0})
    curves.save()
    saved = json.loads(path.read_text())
    assert saved["train"]["loss"] == [[25, 13.0], [50, 38.0]]
    assert saved["held_out"] == {"loss": [[50, 7.0]], "recall": [[50, 0.0]]}
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 100

    resumed = Curves(path, title="A stage")
    resumed.add("held_out", 60, {"loss": 6.0})
    resumed.save()
    assert json.loads(path.read_text())["held_out"]["loss"] == [[50, 7.0], [60, 6.0]]


def test_the_crop_follows_forehead_and_chin() -> None:
    landmarks = np.zeros((478, 3), np.float32)
    landmarks[10, :2], landmarks[152, :2] = (100, 50), (100, 150)
    left, top, side = canonical_square(landmarks)
    assert side == pytest.approx(175)
    assert left + side / 2 == pytest.approx(100)
    assert top + side / 2 == pytest.approx(0.42 * 50 + 0.58 * 150)
    doubled = canonical_square(2 * landmarks)
    assert doubled == pytest.approx((2 * left, 2 * top, 2 * side))


def test_a_crop_beyond_the_picture_repeats_its_edge() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    picture = Image.fromarray(pixels)
    inside = np.asarray(crop_portrait(picture, 5, 6, 30, 30))
    assert (inside == pixels[6:36, 5:35]).all()
    beyond = np.asarray(crop_portrait(picture, -12, -7, 64, 64))
    assert (beyond[7:47, 12:62] == pixels).all()
    assert (beyond[:7, 12:62] == pixels[0]).all()
    assert (beyond[7:47, :12] == pixels[:, :1]).all()
    assert (beyond[47:, 62:] == pixels[-1, -1]).all()


def made_up_face() -> FaceGeometry:
    """As many vertices as the narrow face of ICT-FaceKit, at random."""
    rng = np.random.default_rng(0)
    return FaceGeometry(
        neutral=rng.normal(size=(6706, 3)).astype(np.float32) * 5,
        identity=np.zeros((1, 1, 3), np.float32),
        expression=rng.normal(size=(57, 6706, 3)).astype(np.float32),
        triangles=np.zeros((0, 3), np.int32),
        names=tuple(f"shape{i}" for i in range(57)),
        landmarks=rng.choice(6706, 68, replace=False),
    )


def test_the_motion_latent_is_zero_at_rest_and_tells_the_lip_gap() -> None:
    face, rng = made_up_face(), np.random.default_rng(1)
    motions = np.abs(rng.normal(size=(400, 62))).astype(np.float32) * 0.3
    basis = build_basis(face, motions, latent_size=62)
    encode, decode, aperture = (np.asarray(basis[key]) for key in ("encode", "decode", "aperture"))
    assert basis["n_expression"] == 57
    assert not np.asarray(basis["mean"]).any()  # so the rest, motion 0, has latent 0

    latents = motions @ encode
    np.testing.assert_allclose(latents @ decode, motions, atol=0.02)
    np.testing.assert_allclose(latents[:, 57:], motions[:, 57:] / POSE_SCALE, rtol=1e-4)
    upper, lower = face.landmarks[62], face.landmarks[66]
    height = (face.neutral[face.landmarks[27], 1] - face.neutral[face.landmarks[8], 1]) * 1.45
    opening = (face.expression[:, upper, 1] - face.expression[:, lower, 1]) / height
    gap = latents @ aperture + float(np.asarray(basis["aperture_bias"]))
    np.testing.assert_allclose(gap, motions[:, :57] @ opening, atol=0.01 * np.abs(opening).max())
    assert not aperture[57:].any(), "turning the head opens no mouth"


def test_fewer_latents_keep_what_moves_most() -> None:
    face, rng = made_up_face(), np.random.default_rng(1)
    motions = np.zeros((400, 62), np.float32)
    motions[:, :3] = np.abs(rng.normal(size=(400, 3)))
    motions[:, 3:57] = 1e-3 * rng.normal(size=(400, 54))
    basis = build_basis(face, motions, latent_size=8)
    back = motions @ np.asarray(basis["encode"]) @ np.asarray(basis["decode"])
    np.testing.assert_allclose(back[:, :3], motions[:, :3], atol=0.05)


def test_the_mirror_of_the_mirror_is_the_expression_itself() -> None:
    names = ("jawOpen", "jawLeft", "jawRight", "eyeBlink_L", "eyeBlink_R", "mouthRight", "mouthLeft")
    mirror = mirror_indices(names)
    assert mirror.tolist() == [0, 2, 1, 4, 3, 6, 5]
    assert mirror[mirror].tolist() == list(range(len(names)))


def smooth_picture(seed: int, size: int) -> Tensor:
    coarse = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(seed))
    return functional.interpolate(coarse, size, mode="bicubic", align_corners=False).clamp(0, 1)


def warp(picture: Tensor, grid: Tensor) -> Tensor:
    fine = functional.interpolate(grid.permute(0, 3, 1, 2), CROP_PIXELS, mode="bilinear").permute(0, 2, 3, 1)
    return functional.grid_sample(picture, fine, padding_mode="border", align_corners=False)


def test_a_reframed_flow_still_leads_from_the_crop_to_the_frame() -> None:
    crop, still = smooth_picture(0, CROP_PIXELS), identity_grid(GRID_PIXELS, torch.zeros(1))
    grid = still + 0.04 * torch.sin(9 * still.flip(-1))
    frame = warp(crop, grid)
    interior = functional.avg_pool2d(frame[:, :1], 2)
    middle = (..., slice(40, -40), slice(40, -40))
    for seed in range(4):
        rng = np.random.default_rng(seed)
        new_crop, new_frame, new_grid, new_interior = _reframe(crop, frame, grid, interior, rng)
        error = (warp(new_crop, new_grid) - new_frame)[middle].abs().mean()
        stale = (warp(new_crop, grid) - new_frame)[middle].abs().mean()
        assert (new_crop - crop).abs().mean() > 0.005, "nothing was moved"
        assert error < 0.005
        assert stale > 2 * error
        half = (..., slice(20, -20), slice(20, -20))
        seen = functional.avg_pool2d(new_frame[:, :1], 2)
        assert (new_interior - seen)[half].abs().mean() < 0.005


def autoencoder_settings() -> AutoencoderSettings:
    return AutoencoderSettings(
        minutes=1, portraits_per_batch=1, motions_per_portrait=2, learning_rate=1e-3, flow_weight=1,
        mouth_flow_weight=1, eye_flow_weight=1, mask_weight=1, paint_weight=1, pixel_weight=1, detail_weight=1,
        reference_noise=0, seed=0, threads=1,
    )  # fmt: skip


@pytest.mark.parametrize("open_mouth", [False, True])
def test_losses_vanish_for_a_perfect_prediction_only(open_mouth: bool) -> None:
    crop, still = smooth_picture(0, CROP_PIXELS), identity_grid(GRID_PIXELS, torch.zeros(1))
    grid = still + 0.03 * torch.sin(3 * still.flip(-1))
    interior, mask = torch.zeros(1, 1, GRID_PIXELS, GRID_PIXELS), torch.zeros(1, 1, CROP_PIXELS, CROP_PIXELS)
    if open_mouth:  # the whole window, and a little more, so that it has no soft edge
        interior[
            :, :, MOUTH_TOP // 2 - 2 : MOUTH_BOTTOM // 2 + 2, MOUTH_LEFT // 2 - 2 : MOUTH_RIGHT // 2 + 2
        ] = 1
        mask[:, :, MOUTH_TOP:MOUTH_BOTTOM, MOUTH_LEFT:MOUTH_RIGHT] = 1
    decoded = DecodedFrames(grid, mask, smooth_picture(1, CROP_PIXELS))
    frame = decoded.compose(crop)
    if not open_mouth:
        decoded = DecodedFrames(grid, mask, frame)
    batch = Batch(crop, frame, grid, interior, torch.zeros(1, 4))
    loss, parts = losses(decoded, batch, crop, autoencoder_settings())
    assert float(loss) < 2e-3
    assert parts["still_flow"] > 0.01, "the face moved, so standing still is wrong"

    def part(wrong: DecodedFrames, name: str) -> float:
        return losses(wrong, batch, crop, autoencoder_settings())[1][name]

    assert part(DecodedFrames(grid + 0.01, mask, decoded.paint_B3HW), "eye_flow") == pytest.approx(
        0.02, rel=0.01
    )
    assert part(DecodedFrames(grid, 1 - mask, decoded.paint_B3HW), "mask") > 5
    assert part(DecodedFrames(still, mask, decoded.paint_B3HW), "pixel") > 0.002
    if open_mouth:
        assert part(DecodedFrames(grid, mask, 1 - decoded.paint_B3HW), "paint") > 0.1


def test_lip_gap_is_a_share_of_the_face_height() -> None:
    landmarks = np.zeros((2, 478, 3), np.float32)
    landmarks[:, 152, 1] = 200
    landmarks[1, [14, 87, 317], 1] = 10
    assert lip_gap(landmarks) == pytest.approx([0.0, 0.05])
    assert lip_gap(3 * landmarks) == pytest.approx([0.0, 0.05])


def test_eye_openness_is_measured_for_each_eye() -> None:
    landmarks = np.zeros((1, 478, 2), np.float32)
    landmarks[0, [133, 263], 0] = 30  # both eyes are 30 wide
    landmarks[0, [145, 153, 144], 1] = 9  # the left one in the image is open by 9
    np.testing.assert_allclose(eye_openness(landmarks), [[0.3, 0.0]], atol=1e-6)


def test_a_stressed_vowel_lowers_the_jaw_further() -> None:
    jaws = [mouth_curves([Phone("ɑ", 0.4, 0.6, stress)], 1.0, 1.0)[:, 1].max() for stress in (0, 1, 2)]
    assert jaws[0] < jaws[1] < jaws[2]
    assert jaws[2] > 1.1 * jaws[0]
