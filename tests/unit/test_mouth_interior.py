"""Teeth follow skull and jaw, are lit like the face and shaded by the lips, and sit where the lips meet."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline import checkpoint
from pipeline.autoencoder import FrameDecoder, identity_grid
from pipeline.mouth_interior import (
    CROP_PIXELS,
    LAYER_CENTRE,
    LAYER_REACH,
    MOUTH_BOTTOM,
    MOUTH_LEFT,
    MOUTH_RIGHT,
    MOUTH_TOP,
    SEAT_SIZE,
    MouthInterior,
    mouth_seat,
)

ROWS, COLUMNS = MOUTH_BOTTOM - MOUTH_TOP, MOUTH_RIGHT - MOUTH_LEFT
PIXEL = 2 / CROP_PIXELS
UPPER, LOWER = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)


@pytest.fixture
def interior() -> MouthInterior:
    """The upper jaw is red above the lip line, the lower one green below it."""
    interior = MouthInterior()
    half = interior.layers.shape[2] // 2
    with torch.no_grad():
        interior.layers[0, :3] = torch.tensor(UPPER)[:, None, None]
        interior.layers[1, :3] = torch.tensor(LOWER)[:, None, None]
        interior.layers[0, 3, :half] = 1.0
        interior.layers[1, 3, half:] = 1.0
    return interior


def seat(light: float = 1.0) -> Tensor:
    """Of a portrait that is the average face."""
    (x, y), (width, height) = LAYER_CENTRE, LAYER_REACH
    return torch.tensor([[1 / width, 0, -x / width, 0, 1 / height, -y / height, light, light, light]])


def show(interior: MouthInterior, grid: Tensor, seat_P9: Tensor, mask: float = 1.0) -> Tensor:
    """Paint of a mouth that was blue."""
    batch = len(grid)
    paint = torch.zeros(batch, 3, ROWS, COLUMNS)
    paint[:, 2] = 1.0
    with torch.inference_mode():
        shown: Tensor = interior(paint, torch.full((batch, 1, ROWS, COLUMNS), mask), grid, seat_P9)
    return shown


def still(batch: int = 1) -> Tensor:
    return identity_grid(128, torch.zeros(1)).repeat(batch, 1, 1, 1)


def border_row(paint_3HW: Tensor, channel: int, column: int = COLUMNS // 2) -> int:
    """The row where a jaw's picture meets what is not of it, in the middle of the window."""
    strong = (paint_3HW[channel, :, column] > 0.5).nonzero().flatten()
    return int(strong.max()) + 1 if channel == 0 else int(strong.min())


def test_pictures_not_drawn_yet_show_nothing() -> None:
    paint = show(MouthInterior(), still(), seat())
    assert torch.equal(paint[0, 2], torch.ones(ROWS, COLUMNS))
    assert not paint[0, :2].any()


def test_at_rest_the_jaws_meet_on_the_lip_line(interior: MouthInterior) -> None:
    paint = show(interior, still(), seat())[0]
    expected = (LAYER_CENTRE[1] + 1) / PIXEL - MOUTH_TOP
    assert border_row(paint, 0) == pytest.approx(expected, abs=1)
    assert border_row(paint, 1) == pytest.approx(expected, abs=1)


def test_the_lower_jaw_follows_the_chin_and_the_upper_one_does_not(interior: MouthInterior) -> None:
    opened = still()
    opened[:, 80:, :, 1] -= 8 * PIXEL  # what is seen there was 8 pixels higher
    before, after = show(interior, still(), seat())[0], show(interior, opened, seat())[0]
    assert border_row(after, 1) - border_row(before, 1) == pytest.approx(8, abs=1)
    assert border_row(after, 0) == border_row(before, 0)
    gap = after[:, border_row(after, 0) + 2 : border_row(after, 1) - 2, COLUMNS // 2]
    assert (gap[2] > 0.99).all(), "between the jaws the mouth is as it was painted"


def test_both_follow_the_head(interior: MouthInterior) -> None:
    moved = still()
    moved[..., 1] -= 5 * PIXEL
    before, after = show(interior, still(), seat())[0], show(interior, moved, seat())[0]
    assert [border_row(after, c) - border_row(before, c) for c in (0, 1)] == pytest.approx([5, 5], abs=1)


def test_both_lean_with_the_head(interior: MouthInterior) -> None:
    leant = still()
    leant[..., 1] += 0.1 * still()[..., 0]  # what is right on the picture was lower
    paint = show(interior, leant, seat())[0]
    left, right = 34, COLUMNS - 34
    slope = (border_row(paint, 0, right) - border_row(paint, 0, left)) / (right - left)
    assert slope == pytest.approx(-0.1, abs=0.02)


def test_teeth_show_the_portraits_light(interior: MouthInterior) -> None:
    bright, dark = show(interior, still(), seat())[0], show(interior, still(), seat(0.5))[0]
    torch.testing.assert_close(dark[0, 20], 0.5 * bright[0, 20])
    assert bright[0, 20].max() > 0.9


def test_lips_that_hardly_part_let_little_light_in(interior: MouthInterior) -> None:
    opened, parted = show(interior, still(), seat())[0], show(interior, still(), seat(), mask=0.2)[0]
    assert parted[0, 20].max() < 0.6 * opened[0, 20].max()


def test_frames_of_two_portraits_keep_to_their_own_light(interior: MouthInterior) -> None:
    seats = torch.cat([seat(), seat(0.5)])
    together = show(interior, still(4), seats)
    for frame, own in enumerate((0, 0, 1, 1)):
        alone = show(interior, still(), seats[own : own + 1])
        torch.testing.assert_close(together[frame], alone[0])


@pytest.mark.parametrize("below_px", [-6.0, -2.0, 0.0, 3.0, 7.0])
def test_the_seat_is_put_right_by_the_dark_line_between_the_lips(
    interior: MouthInterior, below_px: float
) -> None:
    line = (LAYER_CENTRE[1] + 1) / PIXEL + below_px
    rows = torch.arange(CROP_PIXELS) + 0.5
    shade = 1 - 0.7 * torch.exp(-((rows - line) ** 2) / 4)
    crop = 0.6 * shade.view(1, 1, -1, 1).expand(1, 3, -1, CROP_PIXELS)
    found = mouth_seat(still(), crop)
    assert found.shape == (1, SEAT_SIZE)
    paint = show(interior, still(), found)[0]
    # The darkest place of real lips is the shadow of the upper one, a little above the line: half a pixel.
    assert border_row(paint, 0) == pytest.approx(line - MOUTH_TOP, abs=1.5)


def test_a_darker_face_has_darker_teeth_but_whiter_than_its_skin() -> None:
    lights = [mouth_seat(still(), torch.full((1, 3, 256, 256), level))[0, 6:] for level in (0.15, 0.5, 0.9)]
    assert (lights[0] < lights[1]).all()
    assert (lights[1] < lights[2]).all()
    assert (lights[0] > 0.15).all()
    assert (lights[2] <= 1).all()


def test_the_bundled_decoder_has_teeth() -> None:
    folder = checkpoint.resolve("portrait_256") / "frame_decoder"
    layers = FrameDecoder.from_pretrained(folder, low_cpu_mem_usage=False).interior.layers.float()
    assert 0 <= layers.min() <= layers.max() <= 1
    brightness = layers[:, :3].mean(1) * (layers[:, 3] > 0.9)
    assert brightness[0].max() > 0.7, "incisors of the upper jaw"
    assert 0.5 < brightness[1].max() < brightness[0].max(), "lower teeth stand in the shade"
    # Mirror images of each other, but for noise.
    assert (layers - layers.flip(3)).abs().mean() < 0.05
