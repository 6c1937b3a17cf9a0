"""Whose face it is: one person's, upright, and neither a hand's nor a cat's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.face_detector import Face, FaceDetector
from pipeline.face_search import NotHumanError, _finder, find_face, find_upright_face, turned
from pipeline.portrait import NoFaceError, PortraitError, SeveralFacesError, prepare_portrait
from stream.portraits.preparation import error_code

PORTRAITS = Path(__file__).parents[2] / "pipeline" / "weights" / "portrait_256" / "portraits"


def portrait(name: str) -> Image.Image:
    return Image.open(PORTRAITS / f"{name}.jpg").convert("RGB")


@pytest.mark.parametrize("quarters", [1, 2, 3])
@pytest.mark.parametrize("name", ["mira", "jonas"])
def test_a_picture_that_lies_is_turned_upright(name: str, quarters: int) -> None:
    upright = portrait(name)
    lying = turned(upright, quarters)
    turns, face, square = find_upright_face(np.asarray(lying))
    assert (turns + quarters) % 4 == 0
    _, expected = find_face(np.asarray(upright))
    assert abs(square.centre_x - expected.centre_x) < 5
    assert abs(square.centre_y - expected.centre_y) < 5
    assert face.points[3, 1] > face.points[:2, 1].max()
    assert np.abs(prepare_portrait(lying).crop.astype(int) - prepare_portrait(upright).crop).mean() < 3


@pytest.mark.parametrize("name", ["mira", "jonas", "ada", "ruth", "astronaut"])
@pytest.mark.parametrize("degrees", [0, 25, -25])
def test_an_upright_or_tilted_head_stays_as_it_is(name: str, degrees: int) -> None:
    picture = portrait(name).rotate(degrees, fillcolor=(120, 120, 120), resample=Image.Resampling.BICUBIC)
    assert find_upright_face(np.asarray(picture))[0] == 0


def animal(kind: str) -> Image.Image:
    """A face drawn of an animal that the detector takes for one, on grass."""
    picture = Image.new("RGB", (512, 512), (110, 150, 90))
    draw = ImageDraw.Draw(picture)
    fur, dark, inner = {
        "cat": ((200, 150, 90), (60, 40, 20), (230, 200, 160)),
        "dog": ((120, 80, 50), (20, 15, 10), (220, 200, 180)),
        "alpaca": ((225, 215, 195), (50, 40, 35), (240, 235, 225)),
    }[kind]
    ears = {"cat": [(150, 90, 40), (362, 90, 40)], "dog": [(120, 210, 75), (392, 210, 75)]}.get(
        kind, [(190, 60, 30), (322, 60, 30)]
    )
    for x, y, r in ears:
        draw.ellipse([x - r, y - 1.8 * r, x + r, y + 1.8 * r], fill=fur if kind == "cat" else dark)
    draw.ellipse([120, 90, 392, 420], fill=fur)
    draw.ellipse([186, 250, 326, 410], fill=inner)
    for x in (196, 316):
        draw.ellipse([x - 26, 190, x + 26, 236], fill=(180, 190, 70) if kind == "cat" else dark)
        draw.ellipse([x - 9, 194, x + 9, 232], fill=(5, 5, 5))
    draw.polygon([(230, 290), (282, 290), (256, 322)], fill=dark)
    draw.arc([206, 310, 256, 370], 0, 150, fill=dark, width=5)
    draw.arc([256, 310, 306, 370], 30, 180, fill=dark, width=5)
    return picture


@pytest.mark.parametrize("kind", ["cat", "dog"])
def test_an_animal_is_refused_in_words(kind: str) -> None:
    with pytest.raises((NotHumanError, NoFaceError), match=r"face was found.*Use a"):
        prepare_portrait(animal(kind))


def test_what_the_detector_takes_for_a_face_is_no_person_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A muzzle with the highest score: the mesh is asked."""
    picture = np.asarray(animal("cat"))
    points = np.array([[196, 213], [316, 213], [256, 300], [256, 350], [120, 220], [392, 220]], float)
    face = Face(score=0.8, centre=np.array([256.0, 280]), size=np.array([240.0, 240]), points=points)
    monkeypatch.setattr(FaceDetector, "detect", lambda *_: [face])
    with pytest.raises(NotHumanError, match="may be an animal") as refusal:
        find_face(picture)
    assert error_code(refusal.value) == "not_human"
    assert isinstance(refusal.value, PortraitError)


def test_a_weaker_face_has_to_look_like_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hand beside the face, which the detector takes for another, even for a larger one."""
    picture = Image.new("RGB", (1024, 512), (90, 90, 100))
    picture.paste(portrait("mira"), (0, 0))
    draw = ImageDraw.Draw(picture)
    for finger in range(5):
        draw.rounded_rectangle(
            [640 + finger * 60, 120, 690 + finger * 60, 420], radius=25, fill=(205, 160, 135)
        )
    hand = Face(
        score=0.9,
        centre=np.array([780.0, 280]),
        size=np.array([280.0, 280]),
        points=np.array([[700, 230], [850, 230], [780, 290], [780, 350], [650, 240], [910, 240]], float),
    )
    detect = FaceDetector.detect
    monkeypatch.setattr(FaceDetector, "detect", lambda self, pixels: [hand, *detect(self, pixels)])
    face, _ = find_face(np.asarray(picture))
    assert face.centre[0] < 512


def test_raised_hands_that_look_like_faces_are_none_beside_one() -> None:
    """Hands with something like eyes and a mouth on the palms, half-body: by themselves each would be believed."""
    picture = Image.new("RGB", (1024, 1024), (150, 160, 150))
    draw = ImageDraw.Draw(picture)
    draw.rounded_rectangle([256, 560, 768, 1100], 96, fill=(60, 80, 120))
    picture.paste(portrait("jonas").resize((300, 300)), (362, 275))
    skin, line = (205, 150, 130), (102, 75, 65)
    for x in (269, 704):
        draw.rounded_rectangle([x, 358, x + 70, 576], 32, fill=(60, 80, 120))
        draw.ellipse([x - 10, 269, x + 80, 371], fill=skin)
        for finger in range(5):
            left, top = x - 10 + finger * 18, 205 + abs(finger - 2) * 10
            draw.rounded_rectangle([left, top, left + 16, 307], 8, fill=skin)
        for eye in (13, 51):
            draw.ellipse([x + eye, 300, x + eye + 9, 306], fill=line)
        draw.line([x + 19, 339, x + 54, 342], fill=line, width=4)
    pixels = np.asarray(picture)
    assert sum(found.believable for found in _finder().detect(pixels)) > 1
    face, _ = find_face(pixels)
    assert 362 < face.centre[0] < 662


def test_two_people_are_still_two() -> None:
    both = Image.new("RGB", (1024, 512))
    both.paste(portrait("mira"), (0, 0))
    both.paste(portrait("jonas"), (512, 0))
    with pytest.raises(SeveralFacesError, match="2 faces"):
        find_face(np.asarray(both))


def test_half_a_face_is_refused_or_said(recwarn: pytest.WarningsRecorder) -> None:
    mira = portrait("mira")
    with pytest.raises(PortraitError, match="face was found"):
        find_face(np.asarray(mira.crop((250, 0, 512, 512))))


def test_the_networks_are_loaded_once() -> None:
    assert _finder() is _finder()
