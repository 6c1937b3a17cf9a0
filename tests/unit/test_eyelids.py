"""Blinks are read off the latent and close the eyes by geometry; skin, lashes and brows go where they should."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor

from pipeline import checkpoint
from pipeline.autoencoder import FrameDecoder, identity_grid
from pipeline.eyelids import EYE_COLUMNS, EYE_ROWS, FULL, OVERLAP, STILL, Eyelids
from pipeline.training.lids import lid_curves

LATENTS = 6
FOLD, UPPER, LOWER = -0.42, -0.33, -0.26
"""Heights at the average face's eye, half crop widths."""


@pytest.fixture
def lids() -> Eyelids:
    """One eye in the middle of the face; the third latent blinks, and the fourth a little as well."""
    lids = Eyelids(LATENTS)
    with torch.no_grad():
        lids.curves_3X[0] = FOLD
        lids.curves_3X[1:] = UPPER
        lids.curves_3X[2, 48:80] = LOWER
        lids.read_D[2], lids.write_D[2], lids.write_D[3] = 0.5, 2.0, 0.3
    return lids


def still(batch: int = 1) -> Tensor:
    return identity_grid(128, torch.zeros(1)).repeat(batch, 1, 1, 1)


def row(y: float) -> int:
    return round((y + 1) * 64 - 0.5)


def shown_y(lids: Eyelids, closed: float, grid: Tensor | None = None) -> Tensor:
    """From which height the middle column takes its pixels [128]."""
    with torch.inference_mode():
        return lids.close(still() if grid is None else grid, torch.tensor([closed]), still())[0, :, 64, 1]


def test_a_blink_is_taken_out_of_the_motion(lids: Eyelids) -> None:
    change = torch.zeros(3, LATENTS)
    change[:, 0] = 0.7
    change[1] += lids.write_D * (STILL + FULL) / 2
    change[2] += lids.write_D
    rest, closed = lids.take_out(change)
    torch.testing.assert_close(rest, change[:1].expand(3, -1))
    assert closed[0] == 0
    assert closed[1].item() == pytest.approx(0.5, abs=0.01)
    assert closed[2] == 1


def test_without_lids_nothing_changes() -> None:
    lids, change = Eyelids(LATENTS), torch.randn(2, LATENTS)
    rest, closed = lids.take_out(change)
    assert torch.equal(rest, change)
    assert torch.equal(lids.close(still(2), closed, still()), still(2))


def test_open_eyes_stay_as_they_are(lids: Eyelids) -> None:
    torch.testing.assert_close(shown_y(lids, 0.0), still()[0, :, 64, 1], atol=1e-5, rtol=0)


def test_closed_lids_show_skin_and_lashes_where_the_eye_was(lids: Eyelids) -> None:
    closed, open_y = shown_y(lids, 1.0), still()[0, :, 64, 1]
    inside = slice(row(UPPER) + 1, row(LOWER))
    assert (closed[inside] < UPPER).all(), "no part of the eye is seen"
    assert (closed[inside].diff() > 0).all(), "skin is stretched, not folded"
    below, above = row(LOWER) + 2, row(FOLD) - 1
    torch.testing.assert_close(closed[below:], open_y[below:])
    torch.testing.assert_close(closed[: above + 1], open_y[: above + 1])
    # The lashes come down to the lower lid as they are.
    assert closed[row(LOWER) - 1].item() == pytest.approx(
        open_y[row(LOWER) - 1].item() - (LOWER - UPPER) - OVERLAP, abs=0.004
    )


def test_half_closed_lids_cover_half_of_the_eye(lids: Eyelids) -> None:
    half, open_y = shown_y(lids, 0.5), still()[0, :, 64, 1]
    eye = (half[row(UPPER) : row(LOWER) + 1] - open_y[row(UPPER) : row(LOWER) + 1]).abs() < 1e-4
    assert 0.3 < eye.float().mean() < 0.7
    assert eye[-1]
    assert not eye[0]


def test_beside_the_eye_nothing_moves(lids: Eyelids) -> None:
    with torch.inference_mode():
        moved = (lids.close(still(), torch.ones(1), still()) - still())[0].abs().amax(-1)
    assert moved[:, 52:76].max() > 0.02
    assert moved[:, :46].max() < 1e-6
    assert moved[:, 82:].max() < 1e-6


def test_lids_follow_the_head(lids: Eyelids) -> None:
    head = still()
    head[..., 1] -= 4 / 64  # the face is four rows lower than on the portrait
    plain, lower = shown_y(lids, 1.0), shown_y(lids, 1.0, head)
    torch.testing.assert_close(lower[40:60], plain[36:56], atol=1e-5, rtol=0)


def test_frames_of_two_portraits_keep_to_their_own_eyes(lids: Eyelids) -> None:
    where = still(2)
    where[1, ..., 1] += 0.1  # this portrait's eyes are higher up
    closed = torch.tensor([1.0, 0.3, 1.0, 0.3])
    with torch.inference_mode():
        together = lids.close(still(4), closed, where)
        for frame in range(4):
            own = where[frame // 2 : frame // 2 + 1]
            torch.testing.assert_close(
                together[frame], lids.close(still(), closed[frame : frame + 1], own)[0]
            )
    assert not torch.equal(together[0], together[2])


def test_curves_of_a_mean_face_open_between_the_corners_only() -> None:
    faces = np.zeros((2, 478, 3), np.float32)
    right = ((33, 133), (246, 161, 160, 159, 158, 157, 173), (7, 163, 144, 145, 153, 154, 155))
    left = ((362, 263), (398, 384, 385, 386, 387, 388, 466), (382, 381, 380, 374, 373, 390, 249))
    brows = ((46, 53, 52, 65, 55), (285, 295, 282, 283, 276))
    for (corners, lids_up, lids_down), brow, x in ((right, brows[0], -0.3), (left, brows[1], 0.3)):
        faces[:, corners[0]], faces[:, corners[1]] = (x - 0.15, 0.30, 0), (x + 0.15, 0.30, 0)
        for line, y in ((lids_up, 0.34), (lids_down, 0.26)):
            for index, place in zip(line, np.linspace(x - 0.1, x + 0.1, len(line)), strict=True):
                faces[:, index] = (place, y, 0)
        for index, place in zip(brow, np.linspace(x - 0.15, x + 0.15, len(brow)), strict=True):
            faces[:, index] = (place, 0.5, 0)
    fold, upper, lower = lid_curves(faces)
    x = (np.arange(128) + 0.5) / 64 - 1
    between = np.abs(np.abs(x) - 0.3) < 0.1
    np.testing.assert_allclose(upper[between], -0.34, atol=1e-3)
    np.testing.assert_allclose(lower[between], -0.26, atol=1e-3)
    outside = np.abs(np.abs(x) - 0.3) > 0.15
    np.testing.assert_allclose(upper[outside], lower[outside])
    assert (fold < upper).all()


def test_the_bundled_decoder_closes_its_eyes() -> None:
    folder = checkpoint.resolve("portrait_256")
    lids = FrameDecoder.from_pretrained(folder / "frame_decoder", low_cpu_mem_usage=False).upper_lids.float()
    basis = load_file(folder / "motion_basis.safetensors")
    blink = torch.from_numpy(basis["encode"][14:16].sum(0))[None]  # eyeBlink_L and eyeBlink_R
    jaw = torch.from_numpy(basis["encode"][30:31])
    rest, closed = lids.take_out(torch.cat([blink, jaw]))
    assert closed.tolist() == [1.0, 0.0]
    assert rest[0].norm() < 0.02 * blink.norm()
    assert (rest[1] - jaw[0]).norm() < 0.1 * jaw.norm()
    moved = (lids.close(still(), torch.ones(1), still()) - still())[0, ..., 1]
    assert moved.min() < -0.05
    assert moved[EYE_ROWS, EYE_COLUMNS].abs().sum() == moved.abs().sum()
