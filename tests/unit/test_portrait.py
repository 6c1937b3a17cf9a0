"""Portrait preparation on the bundled gallery and on pictures that must be refused."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zlib
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.picture_limits import LIMITS
from pipeline.portrait import (
    CROP_PIXELS,
    FaceTooSmallError,
    NoFaceError,
    NotAnImageError,
    PictureTooLargeError,
    Portrait,
    PortraitError,
    SeveralFacesError,
    prepare_portrait,
)

GALLERY = Path(str(resources.files("pipeline"))) / "weights" / "portrait_256" / "portraits"
PICTURES = sorted(GALLERY.glob("*.jpg"))
# Middle and side of the square around each face, by dense landmarks, as shares of the picture
SQUARES = json.loads((Path(__file__).parent / "gallery_squares.json").read_text())


def square_on_canvas(portrait: Portrait) -> tuple[float, float, float]:
    """Middle and side of the crop in canvas pixels."""
    side = CROP_PIXELS / portrait.matrix[0, 0]
    x, y = ((CROP_PIXELS - 1) / 2 - portrait.matrix[:, 2]) / np.diag(portrait.matrix[:, :2])
    return float(x), float(y), float(side)


def as_bytes(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def test_gallery_has_at_least_three_credited_portraits() -> None:
    credits = json.loads((GALLERY / "portraits.json").read_text())
    assert len(PICTURES) >= 3
    assert set(credits) == {path.stem for path in PICTURES}
    assert all(entry["name"] and entry["credit"] and entry["licence"] for entry in credits.values())
    assert all(path.stat().st_size <= 150_000 for path in PICTURES)


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_gallery_faces_are_framed_as_in_training(path: Path) -> None:
    portrait = prepare_portrait(path, name=path.stem)
    truth = np.array(SQUARES[path.stem]) * portrait.canvas.shape[0]
    x, y, side = square_on_canvas(portrait)
    assert portrait.name == path.stem
    assert np.hypot(x - truth[0], y - truth[1]) < 0.04 * truth[2]
    assert abs(side / truth[2] - 1) < 0.1
    assert portrait.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_path_may_be_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "me.jpg").write_bytes(PICTURES[0].read_bytes())
    monkeypatch.chdir(tmp_path)
    wanted = prepare_portrait(PICTURES[0])
    for given in ("me.jpg", Path("me.jpg"), PICTURES[0].read_bytes()):
        portrait = prepare_portrait(given)
        assert portrait.sha256 == wanted.sha256
        assert np.array_equal(portrait.canvas, wanted.canvas)
    with pytest.raises(NotAnImageError, match=r"There is no file you\.jpg"):
        prepare_portrait("you.jpg")


def test_crop_shows_the_canvas_where_the_matrix_says() -> None:
    portrait = prepare_portrait(PICTURES[0])
    rows, columns = np.mgrid[80:180:20, 80:180:20]
    scale, offset = np.diag(portrait.matrix[:, :2]), portrait.matrix[:, 2]
    x = np.round((columns - offset[0]) / scale[0]).astype(int)
    y = np.round((rows - offset[1]) / scale[1]).astype(int)
    canvas = portrait.canvas.astype(float)
    nearby = np.mean([canvas[y + i, x + j] for i in (-1, 0, 1) for j in (-1, 0, 1)], axis=0)
    cropped = portrait.crop.astype(float)[rows, columns]
    assert np.abs(nearby - cropped).mean() < 8


def test_alpha_vanishes_at_the_borders_and_fills_the_face() -> None:
    portrait = prepare_portrait(PICTURES[0])
    alpha = portrait.alpha
    x, y, side = (round(number) for number in square_on_canvas(portrait))
    assert alpha.shape == portrait.canvas.shape[:2]
    assert not alpha[0].any()
    assert not alpha[-1].any()
    assert not alpha[:, 0].any()
    assert not alpha[:, -1].any()
    assert (alpha[y - side // 4 : y + side // 4, x - side // 4 : x + side // 4] == 1).all()


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_exif_orientation_is_applied_and_dropped(orientation: int) -> None:
    upright = Image.open(PICTURES[0]).convert("RGB")
    undo = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = prepare_portrait(as_bytes(upright.transpose(undo[orientation]), exif=exif))
    assert np.array_equal(turned.canvas, prepare_portrait(upright).canvas)


def test_odd_and_large_pictures_give_even_sides_within_the_limit() -> None:
    picture = Image.open(PICTURES[0]).convert("RGB").resize((901, 901)).crop((0, 0, 901, 777))
    height, width = prepare_portrait(np.asarray(picture)).canvas.shape[:2]
    assert (width, height % 2) == (512, 0)
    assert abs(height - 512 * 777 / 901) <= 2
    assert max(prepare_portrait(picture, max_side=320).canvas.shape) == 320


def test_face_far_away_is_brought_near_without_distortion() -> None:
    face = Image.open(PICTURES[0]).convert("RGB").resize((300, 300))
    wide = Image.new("RGB", (1600, 900), (90, 110, 130))
    wide.paste(face, (200, 500))
    portrait = prepare_portrait(wide)
    _, _, side = square_on_canvas(portrait)
    assert side > 0.3 * max(portrait.canvas.shape)
    assert portrait.matrix[0, 0] == pytest.approx(portrait.matrix[1, 1], rel=1e-6)


def test_transparent_and_grey_pictures_are_taken() -> None:
    picture = Image.open(PICTURES[0]).convert("RGB")
    picture.putalpha(Image.new("L", picture.size, 255))
    assert np.array_equal(
        prepare_portrait(as_bytes(picture)).canvas, prepare_portrait(picture.convert("RGB")).canvas
    )
    assert prepare_portrait(as_bytes(picture.convert("L"), "WEBP")).crop.shape == (
        CROP_PIXELS,
        CROP_PIXELS,
        3,
    )


def test_two_people_are_refused_and_a_small_one_behind_is_not() -> None:
    first, second = (Image.open(path).convert("RGB").resize((400, 400)) for path in PICTURES[:2])
    both = Image.new("RGB", (800, 400))
    both.paste(first, (0, 0))
    both.paste(second, (400, 0))
    with pytest.raises(SeveralFacesError, match="2 faces"):
        prepare_portrait(both)
    beside = Image.new("RGB", (800, 400), (120, 120, 120))
    beside.paste(first, (0, 0))
    beside.paste(second.resize((130, 130)), (560, 200))
    x, _, _ = square_on_canvas(prepare_portrait(beside))
    assert x < 300


def landscape() -> np.ndarray:
    rows, columns = np.mgrid[0:480, 0:640]
    sky = np.stack([120 + rows * 0.2, 160 + rows * 0.1, 230 - rows * 0.1], -1)
    hills = rows > 300 + 40 * np.sin(columns / 60)
    sky[hills] = (60, 110, 50)
    return sky.astype(np.uint8)


@pytest.mark.parametrize(
    "pixels",
    [
        np.random.default_rng(0).integers(0, 256, (480, 480, 3)).astype(np.uint8),
        landscape(),
        np.zeros((64, 64, 3), np.uint8),
    ],
    ids=["noise", "landscape", "black"],
)
def test_no_face(pixels: np.ndarray) -> None:
    with pytest.raises(NoFaceError, match="Use a photo"):
        prepare_portrait(pixels)


def test_small_face_says_how_many_pixels_are_needed() -> None:
    with pytest.raises(FaceTooSmallError, match=r"only \d\d pixels high.*at least 72"):
        prepare_portrait(Image.open(PICTURES[0]).convert("RGB").resize((96, 96)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"This is a letter, not a picture.",
        b"\xff\xd8\xff\xe0" + bytes(40),
        PICTURES[0].read_bytes()[:2000],
        b"GIF89a" + bytes(60),
    ],
    ids=["empty", "text", "broken header", "cut off", "gif"],
)
def test_files_that_are_no_pictures(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(NotAnImageError, match=r"use a|use another|use that"):
        prepare_portrait(data)
    path = tmp_path / "portrait.jpg"
    path.write_bytes(data)
    with pytest.raises(NotAnImageError):
        prepare_portrait(path)


def test_missing_file_and_wrong_array(tmp_path: Path) -> None:
    with pytest.raises(NotAnImageError, match="no file"):
        prepare_portrait(tmp_path / "nobody.png")
    with pytest.raises(NotAnImageError, match="uint8"):
        prepare_portrait(np.zeros((64, 64), np.uint8))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size without holding its pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    )


@pytest.mark.parametrize("size", [(8001, 8000), (12_000, 9_000), (60_000, 60_000)])
def test_too_many_pixels_are_refused_from_the_header(size: tuple[int, int]) -> None:
    with pytest.raises(PictureTooLargeError, match="52 megapixels are taken as PNG"):
        prepare_portrait(png_header(*size))


def test_too_many_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    with path.open("wb") as file:
        file.truncate(LIMITS.bytes + 1)
    for image in (path, bytes(LIMITS.bytes + 1)):
        with pytest.raises(PictureTooLargeError, match="64 MB"):
            prepare_portrait(image)


def test_every_error_is_a_portrait_error() -> None:
    for error in (FaceTooSmallError, NoFaceError, NotAnImageError, PictureTooLargeError, SeveralFacesError):
        assert issubclass(error, PortraitError)
