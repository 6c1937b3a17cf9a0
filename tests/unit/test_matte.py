"""Transparent portraits: their opacity is kept, what is behind is one grey, and the matte says where to trust which."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from pipeline.drawing import PreparedPortrait
from pipeline.portrait import Portrait, prepare_portrait
from stream.portraits.matte import matte, matte_png
from tests.streaming.portraits import prepared


def cut_out(picture: Path, *, rim: tuple[int, int, int] | None = None) -> bytes:
    """The picture with a soft ellipse of it left; rim: colour of the ellipse's border."""
    opened = Image.open(picture).convert("RGB")
    width, height = opened.size
    box = (0.15 * width, 0.05 * height, 0.85 * width, 0.95 * height)
    if rim is not None:
        ImageDraw.Draw(opened).ellipse(box, outline=rim, width=24)
    opacity = Image.new("L", opened.size, 0)
    ImageDraw.Draw(opacity).ellipse(box, fill=255)
    opened.putalpha(opacity.filter(ImageFilter.GaussianBlur(1.5)))
    out = io.BytesIO()
    opened.save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def portrait(gallery_portrait: Path) -> Portrait:
    return prepare_portrait(cut_out(gallery_portrait))


def grey_of(portrait: Portrait) -> float:
    assert portrait.opacity is not None
    behind = portrait.canvas[portrait.opacity == 0].astype(float)
    assert np.ptp(behind) == 0
    return float(behind[0, 0])


def test_opacity_is_kept_beside_the_canvas(portrait: Portrait, gallery_portrait: Path) -> None:
    assert portrait.opacity is not None
    assert portrait.opacity.shape == portrait.canvas.shape[:2]
    assert portrait.opacity[0, 0] == 0
    assert portrait.opacity[tuple(side // 2 for side in portrait.opacity.shape)] == 255
    assert grey_of(portrait) in (208, 24, 120)
    assert prepare_portrait(gallery_portrait).opacity is None


def test_the_backdrop_is_not_as_light_as_the_edge(gallery_portrait: Path) -> None:
    assert grey_of(prepare_portrait(cut_out(gallery_portrait, rim=(214, 206, 200)))) == 24
    assert grey_of(prepare_portrait(cut_out(gallery_portrait, rim=(40, 30, 30)))) == 208


def test_it_travels_between_the_processes(portrait: Portrait) -> None:
    assert portrait.opacity is not None
    for sent in (portrait, dataclasses.replace(portrait, opacity=None)):
        got = PreparedPortrait.from_bytes(prepared(sent).to_bytes())
        assert np.array_equal(got.canvas, sent.canvas)
        assert (got.opacity is None) == (sent.opacity is None)
        assert got.opacity is None or np.array_equal(got.opacity, portrait.opacity)


def test_the_matte_trusts_the_still_portrait_away_from_moving_edges(portrait: Portrait) -> None:
    assert portrait.opacity is not None
    height, width = portrait.opacity.shape
    made = matte(portrait)
    assert made.shape == (2 * height, width, 3)
    colour, still, trust = made[:height].astype(int), made[height:, :, 0], made[height:, :, 1] / 255
    assert np.array_equal(still, portrait.opacity)
    assert np.all(made[height:, :, 2] == grey_of(portrait))
    edge = (portrait.opacity > 30) & (portrait.opacity < 225)
    moves = portrait.alpha > 0.5
    assert trust[edge & moves].mean() < 0.25  # here the colour decides
    assert trust[portrait.alpha == 0].min() > 0.95  # nothing moves there
    assert trust[height // 2, width // 2] == 1.0
    assert trust[0, 0] == 1.0
    # Just outside the edge, the colour of what is just inside.
    rows, columns = np.nonzero(edge & moves)
    inside = portrait.canvas[rows, np.where(columns < width // 2, columns + 8, columns - 8)].astype(int)
    assert np.median(np.abs(colour[rows, columns] - inside)) < 25


def test_what_cannot_be_told_from_the_backdrop_by_colour_stays_still(portrait: Portrait) -> None:
    assert portrait.opacity is not None
    grey = np.uint8(grey_of(portrait))
    pale = dataclasses.replace(portrait, canvas=np.full_like(portrait.canvas, grey))
    assert matte(pale)[portrait.canvas.shape[0] :, :, 1].min() == 255


def test_the_matte_is_a_picture_file(portrait: Portrait) -> None:
    opened = Image.open(io.BytesIO(matte_png(portrait)))
    assert opened.format == "PNG"
    assert np.array_equal(np.asarray(opened), matte(portrait))
