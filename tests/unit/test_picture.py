"""Pictures of every kind become upright 8-bit sRGB without metadata, or a sentence."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from pipeline.picture import (
    CleanPicture,
    NotAnImageError,
    PictureTooLargeError,
    PictureTooSmallError,
    PortraitError,
    clean_picture,
    stored_picture,
)


def gradient(width: int = 60, height: int = 40) -> Image.Image:
    rows, columns = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([columns * 4, rows * 6, 255 - columns * 4], -1).astype(np.uint8))


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def close(cleaned: CleanPicture, expected: Image.Image, *, within: float = 4) -> bool:
    kept = np.asarray(stored_picture(cleaned.data).convert("RGB")).astype(float)
    return float(np.abs(kept - np.asarray(expected.convert("RGB"))).mean()) < within


def test_metadata_are_applied_and_gone() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "A camera that knows where you live"
    exif.get_ifd(0x8825)[1] = "N"
    data = saved(
        gradient().transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, comment=b"secret", quality=95
    )
    cleaned = clean_picture(data)
    assert cleaned.pixels.size == (60, 40)
    assert close(cleaned, gradient())
    for secret in (b"camera", b"Exif", b"secret"):
        assert secret in data
        assert secret not in cleaned.data
    assert len(Image.open(io.BytesIO(cleaned.data)).getexif()) == 0
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", "somebody")
    assert b"somebody" not in clean_picture(saved(gradient(), "PNG", pnginfo=info)).data


def test_cmyk_palette_grey_and_16_bits() -> None:
    assert close(clean_picture(saved(gradient().convert("CMYK"), "JPEG", quality=95)), gradient(), within=8)
    assert close(clean_picture(saved(gradient().quantize(200), "PNG")), gradient(), within=8)
    grey = gradient().convert("L")
    assert close(clean_picture(saved(grey, "PNG")), grey)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    assert deep.mode.startswith("I")
    assert close(clean_picture(saved(deep, "PNG")), grey)
    assert close(clean_picture(saved(gradient().convert("1"), "PNG")), gradient().convert("1"))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparency_is_kept(kind: str) -> None:
    picture = gradient()
    picture.putalpha(Image.fromarray((np.arange(60 * 40).reshape(40, 60) % 256).astype(np.uint8)))
    cleaned = clean_picture(saved(picture, kind, lossless=True, exact=True))
    assert (cleaned.has_alpha, cleaned.media_type) == (True, "image/png")
    assert np.array_equal(np.asarray(stored_picture(cleaned.data)), np.asarray(picture))
    picture.putalpha(255)
    assert clean_picture(saved(picture, kind)).media_type == "image/jpeg"  # it hides nothing


def test_a_transparent_palette_colour_is_transparency() -> None:
    picture = gradient().quantize(16)
    cleaned = clean_picture(saved(picture, "PNG", transparency=0))
    assert cleaned.has_alpha
    assert (np.asarray(cleaned.pixels)[..., 3] == 0).any()


def test_an_animation_is_its_first_frame() -> None:
    frames = [gradient(), Image.new("RGB", (60, 40), "red"), Image.new("RGB", (60, 40), "blue")]
    for kind in ("WEBP", "PNG"):
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, quality=90)
        cleaned = clean_picture(data)
        assert cleaned.frames == 3
        assert close(cleaned, gradient(), within=8)


def test_colours_survive_the_loss_of_their_profile() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert close(clean_picture(saved(gradient(), "JPEG", icc_profile=srgb, quality=95)), gradient())
    swapped = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for profile in (b"not a profile", swapped):  # one that cannot be used is left out
        assert close(clean_picture(saved(gradient(), "JPEG", icc_profile=profile, quality=95)), gradient())


def png_of(width: int, height: int, *chunks: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


TEXT_BOMB = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000)))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", NotAnImageError),
        (saved(gradient(), "JPEG")[:400], NotAnImageError),
        (saved(gradient(600, 400), "PNG")[:500], NotAnImageError),
        (saved(gradient(), "WEBP")[:60], NotAnImageError),
        (saved(gradient(), "GIF"), NotAnImageError),
        (saved(gradient(), "TIFF"), NotAnImageError),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", NotAnImageError),
        (png_of(20_000, 20_000, chunk(b"IDAT", zlib.compress(bytes(1000)))), PictureTooLargeError),
        (png_of(8_001, 8_000, chunk(b"IDAT", b"")), PictureTooLargeError),
        (png_of(60, 40, TEXT_BOMB, chunk(b"IDAT", b"")), NotAnImageError),
        (png_of(16_000_000, 1, chunk(b"IDAT", b"")), PictureTooSmallError),
        (png_of(60, 40, chunk(b"IDAT", zlib.compress(bytes(10)))), NotAnImageError),
    ],
    ids=[
        "empty",
        "jpeg cut",
        "png cut",
        "webp cut",
        "gif",
        "tiff",
        "svg",
        "bomb",
        "64 MP",
        "text bomb",
        "one row",
        "no pixels",
    ],
)
def test_what_cannot_be_taken_is_refused_in_a_sentence(data: bytes, error: type[PortraitError]) -> None:
    with pytest.raises(error, match=r"^[A-Z].*[.)]$"):
        clean_picture(data)
