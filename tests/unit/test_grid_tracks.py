"""Tracks of made-up faces: head pose comes back, lips open exactly as they were seen, blinks are blinks."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.training.expression_fit import ExpressionFit, match_gap
from pipeline.training.grid_tracks import CLIP_FRAMES, blink_weights, without_speech
from pipeline.training.head_pose import STABLE, Camera, RigidHead

NAMES = ("jawOpen", "mouthClose", "mouthSmile_L", "mouthSmile_R", "eyeBlink_L", "eyeBlink_R")
OPENING = np.array([3.0, -3.5, 0.0, 0.0, 0.0, 0.0], np.float32)


def test_head_pose_is_recovered_from_projected_points() -> None:
    rng = np.random.default_rng(0)
    camera = Camera(distance=80.0)
    points = (rng.normal(size=(49, 3)) * (5, 6, 3)).astype(np.float32)
    head = RigidHead(camera=camera, points=points, start=np.zeros(6, np.float32))
    truth = (rng.normal(size=(20, 6)) * (0.15, 0.1, 0.1, 1.0, 1.0, 0.03)).astype(np.float32)
    units = np.zeros((20, 478, 3), np.float32)
    units[:, list(STABLE), :2] = camera.project(points, truth)
    np.testing.assert_allclose(head.poses(units), truth, atol=2e-3)


def test_unproject_moves_points_onto_what_is_seen() -> None:
    rng = np.random.default_rng(1)
    camera = Camera(distance=80.0)
    points = rng.normal(size=(9, 3)).astype(np.float32)
    pose = (0.05 * rng.normal(size=(4, 6))).astype(np.float32)
    seen = camera.project(points, pose) + 0.01
    moved = points + camera.unproject(seen, points, pose)
    np.testing.assert_allclose(camera.project(moved, pose), seen, atol=1e-5)


def test_expression_is_recovered_within_its_box() -> None:
    rng = np.random.default_rng(2)
    basis = rng.normal(size=(6, 68, 3)).astype(np.float32)
    truth = np.array([[0.5, 0.1, 0.3, 0.3, 0, 0], [0.0, 0.0, 0.8, 0.8, 0, 0]], np.float32)
    turn = np.repeat(np.eye(3, dtype=np.float32)[None], 2, 0)
    displacement = np.einsum("nk,kvc->nvc", truth, basis)[..., :2]
    found = ExpressionFit(basis=basis, names=NAMES).solve(displacement, turn)
    np.testing.assert_allclose(found, truth, atol=0.02)
    pushed = ExpressionFit(basis=basis, names=NAMES).solve(-displacement, turn)
    assert pushed.min() >= 0
    assert (pushed[:, 4:] == 0).all()


@pytest.mark.parametrize("wanted", [0.0, 0.3, 1.2])
def test_lips_open_exactly_as_seen(wanted: float) -> None:
    expression = np.array(
        [[0.2, 0.0, 0.1, 0.1, 0, 0], [0.0, 0.0, 0, 0, 0, 0], [0.3, 0.2, 0, 0, 0, 0]], np.float32
    )
    fitted = match_gap(expression, np.full(3, wanted, np.float32), OPENING, NAMES)
    np.testing.assert_allclose(fitted @ OPENING, wanted, atol=1e-5)
    assert fitted.min() >= 0
    if wanted == 0.0:
        assert fitted[0, 1] > 0.1  # the lips close over a jaw that stays open


def test_a_blink_is_kept_whole_and_a_glance_down_is_none() -> None:
    openness = np.full(CLIP_FRAMES, 0.3, np.float32)
    openness[20:27] = 0.3 * np.array([0.9, 0.3, 0.25, 0.5, 0.7, 0.8, 0.88])
    openness[50:60] = 0.3 * 0.75
    rng = np.random.default_rng(0)
    runs = [blink_weights(openness, rng) for _ in range(60)]
    kept = [run for run in runs if run.max() > 0]
    assert 0.2 < len(kept) / len(runs) < 0.6
    assert kept[0][22] == pytest.approx(1.0)
    assert kept[0][25] > 0.2
    assert all(run[50:60].max() == 0 for run in runs)


def test_pose_loses_what_follows_the_jaw_and_keeps_the_rest() -> None:
    rng = np.random.default_rng(0)
    gap = np.abs(rng.normal(size=2 * CLIP_FRAMES)).astype(np.float32)
    own = np.repeat(np.sin(np.arange(2 * CLIP_FRAMES) / 20)[:, None], 6, 1).astype(np.float32)
    cleaned = without_speech(own + 0.2 * gap[:, None], gap)
    assert np.abs(cleaned - own).max() < 0.1
