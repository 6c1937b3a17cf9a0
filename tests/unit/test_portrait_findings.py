"""What is said about a picture: nothing about good ones, the right thing about others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.portrait import find_face, frame_portrait
from pipeline.portrait_findings import Findings, find
from tests.unit import covered

PORTRAITS = Path(__file__).parents[2] / "pipeline" / "weights" / "portrait_256" / "portraits"


def findings(picture: Image.Image, **options: int) -> Findings:
    face, square = find_face(np.asarray(picture))
    portrait = frame_portrait(picture, square, name="x", sha256="0" * 64)
    return find(np.asarray(picture), face, square, portrait, transparent=False, **options)


def codes(picture: Image.Image) -> set[str]:
    return {remark.code for remark in findings(picture).warnings}


@pytest.fixture
def mira() -> Image.Image:
    return Image.open(PORTRAITS / "mira.jpg").convert("RGB")


@pytest.mark.parametrize("name", ["mira", "jonas", "ada", "ruth"])
def test_good_portraits_need_no_advice(name: str) -> None:
    assert codes(Image.open(PORTRAITS / f"{name}.jpg").convert("RGB")) == set()


def test_where_the_face_is(mira: Image.Image) -> None:
    wide = Image.new("RGB", (900, 600), (150, 120, 130))
    wide.paste(mira, (300, 88))
    found = findings(wide)
    here = findings(mira)
    assert np.abs(np.subtract(found.face_box, np.add(here.face_box, (300, 88, 300, 88)))).max() < 25
    left, top, right, bottom = found.crop_box
    assert left < found.face_box[0] < found.face_box[2] < right
    assert top < found.face_box[1] < found.face_box[3] < bottom
    assert abs(found.face_pixels - (right - left) / 1.75) < 2
    assert [remark["code"] for remark in found.to_dict()["warnings"]] == ["far_away"]


def test_light(mira: Image.Image) -> None:
    assert "dark" in codes(mira.point(lambda value: value * 0.35))
    assert "bright" in codes(mira.point(lambda value: 200 + value * 0.2))
    assert "flat" in codes(mira.point(lambda value: 100 + value * 0.15))
    shade = np.asarray(mira).astype(float)
    shade[:, 244:] *= 0.25
    assert "one_sided_light" in codes(Image.fromarray(shade.astype(np.uint8)))


def test_place(mira: Image.Image) -> None:
    assert "small" in codes(mira.resize((260, 260)))
    assert "tilted" in codes(mira.rotate(20, fillcolor=(190, 130, 140), resample=Image.Resampling.BICUBIC))
    assert "cut_off" in codes(mira.crop((110, 0, 512, 512)))


def test_sharpness(mira: Image.Image) -> None:
    assert "blurred" in codes(mira.resize((40, 40), Image.Resampling.BOX).resize((512, 512)))


def test_a_smile_with_teeth_is_an_open_mouth() -> None:
    assert codes(Image.open(PORTRAITS / "astronaut.jpg").convert("RGB")) == {"mouth_open"}


def test_an_animation_is_mentioned(mira: Image.Image) -> None:
    (remark,) = findings(mira, frames=3).warnings
    assert (remark.code, "3 pictures" in remark.text) == ("animated", True)


@pytest.mark.parametrize("name", ["mira", "jonas", "ada", "ruth"])
@pytest.mark.parametrize(
    ("thing", "code"),
    [
        (covered.mask, "mouth_covered"),
        (covered.hand, "mouth_covered"),
        (covered.microphone, "mouth_covered"),
        (covered.sunglasses, "eyes_covered"),
    ],
)
def test_what_covers_the_face_is_said(name: str, thing: Callable[..., None], code: str) -> None:
    picture = Image.open(PORTRAITS / f"{name}.jpg").convert("RGB")
    said = codes(covered.drawn(picture, thing))
    assert code in said
    assert "mouth_open" not in said


def test_a_small_face_in_a_large_picture_is_far_away(mira: Image.Image) -> None:
    half_body = Image.new("RGB", (2000, 2600), (140, 120, 110))
    half_body.paste(mira.resize((800, 800)), (600, 200))
    found = findings(half_body)
    (remark,) = [remark for remark in found.warnings if remark.code == "far_away"]
    assert found.face_pixels > 300
    assert 90 <= found.streamed_face_pixels <= 110
    assert f"only {found.streamed_face_pixels} pixels" in remark.text
    assert "Cut the picture" in remark.text
    assert findings(mira).streamed_face_pixels == findings(mira).face_pixels
