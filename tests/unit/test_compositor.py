"""Paste-back: what must not move does not move, and what moves goes where the grid says."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from pipeline.drawing.compositor import Compositor
from pipeline.drawing.geometry import MOUTH_BOTTOM, MOUTH_LEFT, MOUTH_RIGHT, MOUTH_TOP
from pipeline.portrait import CROP_PIXELS, Portrait

SIDE = 300


def make_portrait(*, left: float = 40.0, top: float = 30.0, side: float = 210.0) -> Portrait:
    """A smooth colourful canvas with a crop square; no face is needed here."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    canvas = np.stack([columns * 0.8, rows * 0.8, 127 + 100 * np.sin(columns / 9)], -1).astype(np.uint8)
    zoom = CROP_PIXELS / side
    shift = np.array([-left * zoom, -top * zoom]) + (zoom - 1) / 2
    alpha = np.zeros((SIDE, SIDE), np.float32)
    first_x, last_x = max(int(left) + 1, 1), min(int(left + side) - 1, SIDE - 1)
    first_y, last_y = max(int(top) + 1, 1), min(int(top + side) - 1, SIDE - 1)
    alpha[first_y:last_y, first_x:last_x] = 0.5
    alpha[first_y + 12 : last_y - 12, first_x + 12 : last_x - 12] = 1
    return Portrait(
        name="test",
        canvas=canvas,
        matrix=np.array([[zoom, 0, shift[0]], [0, zoom, shift[1]]]),
        crop=np.zeros((CROP_PIXELS, CROP_PIXELS, 3), np.uint8),
        alpha=alpha,
        sha256="",
    )


def identity(size: int) -> np.ndarray:
    axis = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    return np.stack(np.meshgrid(axis, axis), -1).astype(np.float32)


SHUT = np.zeros((MOUTH_BOTTOM - MOUTH_TOP, MOUTH_RIGHT - MOUTH_LEFT, 4), np.float32)


def composite(portrait: Portrait, grid: np.ndarray, mouth: np.ndarray = SHUT) -> np.ndarray:
    return Compositor(portrait).composite(grid, mouth)


@pytest.mark.parametrize("size", [64, 128, 256])
def test_identity_returns_the_canvas(size: int) -> None:
    portrait = make_portrait()
    frame = composite(portrait, identity(size))
    assert frame.dtype == np.uint8
    assert np.array_equal(frame, portrait.canvas), "a smooth picture has nothing to sharpen"


def test_a_moved_picture_is_about_as_sharp_as_the_portrait() -> None:
    """Interpolation between pixels blurs; what moves is sharpened by as much before, and nothing else is."""
    rng = np.random.default_rng(0)
    portrait = make_portrait()
    grain = cv2.GaussianBlur(rng.normal(128, 60, (SIDE, SIDE, 3)), (0, 0), 0.8)
    portrait = replace(portrait, canvas=np.clip(grain, 0, 255).astype(np.uint8))

    def energy(picture: np.ndarray) -> float:
        inner = picture[70:200, 80:210].astype(np.float32)
        return float(np.square(cv2.Laplacian(inner, cv2.CV_32F)).mean())

    ratios = []
    for shift in np.linspace(0, 1, 8, endpoint=False):
        grid = identity(128) + np.float32(2 * (3 + shift) / 210)
        frame = composite(portrait, grid)
        ratios.append(energy(frame) / energy(portrait.canvas))
        assert np.array_equal(frame[portrait.alpha == 0], portrait.canvas[portrait.alpha == 0])
    assert 0.915 < np.mean(ratios) < 1.1


def test_frame_is_a_new_array_every_time() -> None:
    portrait = make_portrait()
    before = portrait.canvas.copy()
    first = composite(portrait, identity(64) + np.float32(0.1))
    second = composite(portrait, identity(64) - np.float32(0.1))
    assert first is not second
    assert not np.array_equal(first, second)
    assert np.array_equal(portrait.canvas, before)


def test_grid_moves_pixels_by_the_stated_distance() -> None:
    portrait = make_portrait()
    grid = identity(128)
    grid[..., 0] += 2 * 10 / 210  # ten canvas pixels from the right
    frame = composite(portrait, grid).astype(int)
    inner = np.s_[80:180, 80:180]
    assert np.abs(frame[80:180, 80:180, :2] - portrait.canvas[80:180, 90:190, :2].astype(int)).max() <= 1
    assert np.abs(frame[inner][..., 0] - portrait.canvas[inner][..., 0].astype(int)).min() >= 7


def test_paint_lands_where_the_mask_says_and_nowhere_else() -> None:
    portrait = make_portrait()
    mouth = SHUT.copy()
    mouth[150 - MOUTH_TOP : 200 - MOUTH_TOP, 100 - MOUTH_LEFT : 160 - MOUTH_LEFT] = (1.0, 1.0, 0.0, 0.25)
    frame = composite(portrait, identity(128), mouth).astype(int)
    # Crop pixel 100..160 is canvas pixel 40 + 100 * 210 / 256 = 122 .. 171, and 150..200 is 153 .. 194.
    assert np.abs(frame[156:191, 125:168] - (255, 0, 64)).max() <= 1
    changed = np.any(frame != portrait.canvas, axis=-1)
    rows, columns = np.nonzero(changed)
    assert rows.min() >= 151
    assert rows.max() <= 196
    assert columns.min() >= 120
    assert columns.max() <= 173


@pytest.mark.parametrize("square", [(40.0, 30.0, 210.0), (-35.5, -20.25, 280.0), (120.0, 150.0, 220.5)])
def test_outside_is_bit_identical_for_any_motion(square: tuple[float, float, float]) -> None:
    left, top, side = square
    portrait = make_portrait(left=left, top=top, side=side)
    rng = np.random.default_rng(1)
    grid = identity(128) + rng.normal(0, 0.3, (128, 128, 2)).astype(np.float32)
    mouth = rng.random(SHUT.shape, np.float32)
    mouth[..., 0] = 1
    frame = composite(portrait, grid, mouth)
    still = portrait.alpha == 0
    assert still[0].all()
    assert still[-1].all()
    assert still[:, 0].all()
    assert still[:, -1].all()
    assert np.array_equal(frame[still], portrait.canvas[still])
    assert not np.array_equal(frame, portrait.canvas)


def test_movement_fades_instead_of_ghosting() -> None:
    """A thin line that moves stays one line where alpha is half, at half the distance."""
    portrait = make_portrait()
    canvas = np.zeros_like(portrait.canvas)
    canvas[:, 150] = 255
    portrait = Portrait(
        name="line",
        canvas=canvas,
        matrix=portrait.matrix,
        crop=portrait.crop,
        alpha=np.where(portrait.alpha > 0, np.float32(0.5), np.float32(0)),
        sha256="",
    )
    grid = identity(64)
    grid[..., 0] += 2 * 20 / 210
    row = composite(portrait, grid)[130, :, 0]
    assert int(row.argmax()) == 140
    assert np.count_nonzero(row) <= 2


def test_half_a_weight_mixes_paint_and_picture() -> None:
    portrait = make_portrait()
    mouth = SHUT.copy()
    mouth[20:80, 20:80] = (0.5, 0.5, 0.5, 0.5)  # white, times the weight
    frame = composite(portrait, identity(128), mouth).astype(float)
    # Window pixels 20..80 are crop pixels 92..152 and 140..200, canvas pixels 115..165 and 145..194.
    inner = np.s_[150:190, 120:160]
    mixed = 0.5 * portrait.canvas[inner].astype(float) + 127.5
    assert np.abs(frame[inner] - mixed).max() <= 1
