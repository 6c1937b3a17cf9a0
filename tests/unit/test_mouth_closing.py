"""Mouths that are open in the picture: found, closed without a fold, and nothing else touched."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.evaluation.studies import pictures
from pipeline.face_mesh import FaceMesh
from pipeline.mouth_closing import OPEN_GAP, PartedLips, close_lips, find_parted_lips
from pipeline.portrait import crop_face, find_face, prepare_portrait

PORTRAITS = Path(__file__).parents[2] / "pipeline" / "weights" / "portrait_256" / "portraits"


def picture(name: str) -> Image.Image:
    return Image.open(PORTRAITS / f"{name}.jpg").convert("RGB")


def crop_of(image: Image.Image) -> np.ndarray:
    _, square = find_face(np.asarray(image))
    return crop_face(image, square)


@pytest.fixture
def smile() -> np.ndarray:
    return crop_of(picture("astronaut"))


@pytest.mark.parametrize("name", ["mira", "jonas", "ada", "ruth"])
def test_a_portrait_with_closed_lips_stays_as_it_is(name: str) -> None:
    assert find_parted_lips(crop_of(picture(name))) is None


@pytest.mark.parametrize("tilt", [-20, 0, 20])
def test_a_smile_with_teeth_becomes_a_portrait_with_closed_lips(tilt: int) -> None:
    image = picture("astronaut").rotate(tilt, Image.Resampling.BICUBIC)
    assert find_parted_lips(crop_of(image)) is not None
    assert find_parted_lips(prepare_portrait(image).crop) is None


def test_there_are_no_teeth_left(smile: np.ndarray) -> None:
    lips = find_parted_lips(smile)
    closed = close_lips(smile, lips)
    x, y = lips.middle
    line = y + (0.6 * lips.upper + 0.4 * lips.lower)[len(lips.upper) // 2]  # where the lips meet
    mouth = np.s_[round(line) - 4 : round(line) + 5, round(x) - 12 : round(x) + 13]

    def teeth(crop: np.ndarray) -> float:
        """Share of the mouth's pixels that are light and hardly coloured."""
        lightness, a, b = cv2.split(cv2.cvtColor(crop[mouth].astype(np.float32) / 255, cv2.COLOR_RGB2LAB))
        return float(((lightness > 70) & (np.hypot(a, b) < 14)).mean())

    assert teeth(smile) > 0.4
    assert teeth(closed) < 0.1


def test_what_is_away_from_the_mouth_is_the_same_bit_for_bit(smile: np.ndarray) -> None:
    lips = find_parted_lips(smile)
    closed = close_lips(smile, lips)
    changed = np.argwhere((closed != smile).any(2)) - lips.middle[::-1]
    assert np.abs(changed[:, 1]).max() <= lips.half_width + 2
    assert changed[:, 0].min() >= lips.nose - 2
    assert changed[:, 0].max() <= lips.chin + 2


def test_the_same_at_any_size(smile: np.ndarray) -> None:
    lips = find_parted_lips(smile)
    large = cv2.resize(smile, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    closed = close_lips(large, lips.moved(3, 1, 1))
    small = cv2.resize(closed, smile.shape[:2], interpolation=cv2.INTER_AREA)
    difference = np.abs(small.astype(float) - close_lips(smile, lips))
    assert difference.mean() < 1
    assert np.percentile(difference, 99.9) < 24


@pytest.mark.parametrize("gap", [0.05, 0.2, 0.5])
def test_nothing_folds_however_wide_it_is_open(gap: float) -> None:
    """On a picture whose brightness grows downwards it must grow downwards after closing, too."""
    mouth = np.sin(np.linspace(0, np.pi, 97)) * gap * 146
    lips = PartedLips(
        middle=np.array([128.0, 150.0]),
        along=np.array([1.0, 0.0]),
        half_width=26.0,
        upper=-0.3 * mouth,
        lower=0.7 * mouth,
        nose=-24.0,
        chin=46.0,
        face_height=146.0,
    )
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 256, 1).repeat(3, 2)
    closed = close_lips(ramp, lips)[:, 128, 0].astype(int)
    meet = int(np.argmax(np.diff(closed))) + 1  # here what was between the lips is missing
    assert np.diff(closed)[: meet - 4].min() >= 0
    assert np.diff(closed)[meet + 4 :].min() >= 0
    assert np.diff(closed).max() > 0.6 * gap * 146


def test_the_mesh_finds_a_tilted_face_where_it_is(smile: np.ndarray) -> None:
    mesh = FaceMesh.bundled()
    straight = mesh.find(smile)
    turn = cv2.getRotationMatrix2D((127.5, 127.5), 15, 1.0)
    tilted = mesh.find(cv2.warpAffine(smile, turn, (256, 256), borderMode=cv2.BORDER_REPLICATE))
    expected = straight @ turn[:, :2].T + turn[:, 2]
    assert np.linalg.norm(tilted - expected, axis=1).mean() < 2


@pytest.mark.parametrize("name", ["ada", "jonas", "mira", "ruth"])
def test_lines_of_an_ink_drawing_are_no_open_mouth(name: str) -> None:
    drawing = pictures.ink(np.asarray(picture(name)))
    crop = crop_of(Image.fromarray(drawing))
    assert FaceMesh.bundled().find(crop) is not None
    assert find_parted_lips(crop) is None


def test_what_is_no_face_has_no_mouth() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    assert FaceMesh.bundled().find(noise) is None
    assert find_parted_lips(noise) is None


def test_the_limit_lies_between_closed_and_open(smile: np.ndarray) -> None:
    lips = find_parted_lips(smile)
    assert (lips.lower - lips.upper).max() / lips.face_height > 1.3 * OPEN_GAP
