"""Files as cameras, programs and attackers write them: taken where there is a picture, refused by name where not."""

from __future__ import annotations

import contextlib
import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from pipeline.picture import (
    KEPT_PIXELS,
    NotAnImageError,
    PictureTooLargeError,
    clean_picture,
    judged,
    stored_picture,
)
from pipeline.picture_file import read_picture_file
from pipeline.picture_limits import LIMITS, PictureLimits


def gradient(width: int = 60, height: int = 40) -> Image.Image:
    rows, columns = np.mgrid[0:height, 0:width]
    levels = np.stack([columns * 240 / width, rows * 240 / height, 240 - columns * 240 / width], -1)
    return Image.fromarray(levels.astype(np.uint8))


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def close(data: bytes, expected: Image.Image, within: float = 5) -> bool:
    kept = np.asarray(clean_picture(data).pixels.convert("RGB")).astype(float)
    return float(np.abs(kept - np.asarray(expected.convert("RGB"))).mean()) < within


JPEG = saved(gradient(), "JPEG", quality=95)


def with_exif(body: bytes) -> bytes:
    return JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + JPEG[2:]


def tiff(*entries: tuple[int, int, int, bytes], order: str = "<") -> bytes:
    """A block of EXIF with entries of (tag, type, count, four bytes), and eight bytes behind, of -1/0."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(entries))
    body = b"".join(struct.pack(f"{order}HHI", *entry[:3]) + entry[3] for entry in entries)
    return head + body + struct.pack(f"{order}Iii", 0, -1, 0)


SIX = (0x112, 3, 1, struct.pack("<HH", 6, 0))
FRACTION = (0x11A, 10, 1, struct.pack("<I", 8 + 2 + 24 + 4))
HEADER = b"Exif\0\0"


@pytest.mark.parametrize(
    ("exif", "turned"),
    [
        (HEADER + tiff(SIX, FRACTION), True),
        (HEADER + HEADER + tiff(SIX, FRACTION), True),
        (HEADER + tiff((0x8825, 4, 1, b"\xff\xff\xff\x7f"), SIX), True),
        (HEADER + tiff(SIX, (0x131, 2, 5000, struct.pack("<I", 40))), True),
        (HEADER + tiff((0x112, 3, 1, struct.pack(">HH", 6, 0)), order=">"), True),
        (HEADER + tiff((0x112, 4, 1, struct.pack("<I", 6))), True),
        (HEADER + tiff((0x112, 3, 2, struct.pack("<HH", 6, 6))), True),
        (HEADER + tiff((0x112, 2, 4, b"6\0\0\0")), False),
        (HEADER + tiff((0x112, 5, 1, struct.pack("<I", 8 + 2 + 12 + 4))), False),
        (HEADER + tiff((0x112, 3, 1, struct.pack("<HH", 77, 0))), False),
        (HEADER + tiff((0x112, 3, 900, struct.pack("<I", 1 << 30))), False),
        (HEADER + b"XXXXgarbage" * 5, False),
        (HEADER + b"II*\0\xff\xff\xff\xff", False),
        (HEADER + b"II*\0\x08\0\0\0\xff\xff", False),
        (HEADER, False),
    ],
)
def test_exif_that_cannot_be_read_is_none_and_the_orientation_is_read_where_it_can(
    exif: bytes, turned: bool
) -> None:
    expected = gradient().transpose(Image.Transpose.ROTATE_270) if turned else gradient()
    assert clean_picture(with_exif(exif)).pixels.size == expected.size
    assert close(with_exif(exif), expected)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_in_every_kind(kind: str, orientation: int) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x112] = orientation
    data = saved(gradient(), kind, exif=exif, **({} if kind == "PNG" else {"quality": 95}))
    assert close(data, ImageOps.exif_transpose(Image.open(io.BytesIO(data))))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_what_editors_write_beside_the_pixels_of_a_png_does_not_matter() -> None:
    png = saved(gradient(), "PNG")
    noise = np.random.default_rng(1).integers(32, 126, 1_600_000, dtype=np.uint8).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = bytearray(srgb + noise)
    profile[:4] = struct.pack(">I", len(profile))
    for extra in (
        chunk(b"tEXt", b"prompt\0" + noise),
        chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000))),
        chunk(b"iCCP", b"big\0\0" + zlib.compress(bytes(profile), 1)),
        chunk(b"iCCP", b"bomb\0\0" + zlib.compress(bytes(80_000_000))),
        chunk(b"iCCP", b"none"),
        chunk(b"eXIf", b"garbage"),
        chunk(b"tEXt", b"x\0y")[:-4] + b"crc?",
    ):
        assert close(png[:33] + extra + png[33:], gradient(), within=1.5)


def test_what_is_missing_or_too_much_at_the_end() -> None:
    large = gradient(512, 512)
    assert close(saved(large, "JPEG", quality=92)[:-2], large)  # without its end mark
    for data in (JPEG + bytes(5000), JPEG + b"\0\0\0\x18ftypmp42" + bytes(9000)):
        assert close(data, gradient())
    png = saved(gradient(), "PNG")
    assert close(png[:-12], gradient(), within=1.5)  # without its end mark
    assert close(png + bytes(99), gradient(), within=1.5)
    out = io.BytesIO()
    gradient().save(out, "MPO", save_all=True, append_images=[gradient(40, 40)])
    assert close(out.getvalue(), gradient())


def test_a_jpeg_that_was_cut_off_is_refused() -> None:
    noisy = np.random.default_rng(2).integers(0, 256, (256, 256, 3)).astype(np.uint8)
    data = saved(Image.fromarray(noisy), "JPEG", quality=90)
    clean_picture(data[:-2])
    for lost in (3_000, len(data) // 2):
        with pytest.raises(NotAnImageError, match="damaged or incomplete"):
            clean_picture(data[:-lost])


def test_cmyk_with_and_without_adobes_mark_grey_with_alpha_and_16_bits() -> None:
    cmyk = saved(gradient().convert("CMYK"), "JPEG", quality=95)
    at = cmyk.index(b"\xff\xee")
    assert close(cmyk, gradient(), within=8)
    assert close(cmyk[:at] + cmyk[at + 16 :], gradient(), within=8)
    assert close(saved(gradient().convert("LA"), "PNG"), gradient().convert("L"))
    deep = np.asarray(gradient().convert("L")).astype(np.uint16) * 257
    assert close(saved(Image.fromarray(deep), "PNG"), gradient().convert("L"), within=1.5)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (saved(gradient(), "GIF"), "GIF"),
        (saved(gradient(), "BMP"), "BMP"),
        (saved(gradient(), "TIFF"), "TIFF"),
        (b"MM\0*" + bytes(40), "TIFF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400), "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(400), "HEIC"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1" + bytes(400), "AVIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0avifmif1" + bytes(400), "AVIF"),
        (b"\0\0\0\x18ftypmp42" + bytes(400), "video"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><svg/>", "SVG"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"%PDF-1.7", "PDF"),
        (b"\xff\x0a" + bytes(40), "JPEG XL"),
        (b"8BPS\0\1", "Photoshop"),
        (b"", "empty"),
    ],
)
def test_other_kinds_are_refused_by_name_with_what_to_do(data: bytes, name: str) -> None:
    with pytest.raises(
        NotAnImageError, match=rf"(?s)^(This is|The file is).*{name}.*(use|take|export|save).*\.$"
    ):
        clean_picture(data)


@pytest.mark.parametrize("size", [(5712, 4284), (8064, 6048)])
def test_photos_of_phones_are_decoded_small(size: tuple[int, int]) -> None:
    data = saved(gradient(*size), "JPEG", quality=60)
    cleaned = clean_picture(data)
    assert cleaned.pixels.size == (size[0] // 2, size[1] // 2)
    assert close(data, gradient(size[0] // 2, size[1] // 2))
    assert stored_picture(cleaned.data).size == cleaned.pixels.size


def test_a_large_png_is_shrunk() -> None:
    cleaned = clean_picture(saved(gradient(5712, 4284), "PNG", compress_level=1))
    assert cleaned.pixels.size == (2856, 2142)
    assert cleaned.pixels.width * cleaned.pixels.height <= KEPT_PIXELS


def sized(kind: str, width: int, height: int) -> bytes:
    """A file whose header claims a size."""
    if kind == "PNG":
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")
    options = {"progressive": True} if kind == "progressive" else {}
    data = bytearray(saved(gradient(), "JPEG", **options))
    at = data.index(b"\xff\xc2" if kind == "progressive" else b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def test_limits_by_kind_can_be_raised_and_lowered() -> None:
    assert judged(sized("JPEG", 16_320, 12_240)).shrinkable
    for kind, words in (("PNG", "52 megapixels are taken as PNG"), ("progressive", "as a progressive JPEG")):
        with pytest.raises(PictureTooLargeError, match=words):
            judged(sized(kind, 12_000, 9_000))
    with pytest.raises(PictureTooLargeError, match="208 megapixels"):
        judged(sized("JPEG", 65_500, 65_500))
    assert judged(sized("PNG", 12_000, 9_000), PictureLimits(whole_pixels=120_000_000)).kind == "PNG"
    assert judged(sized("JPEG", 30_000, 20_000), PictureLimits(pixels=700_000_000)).shrinkable
    with pytest.raises(PictureTooLargeError, match="1 megapixels"):
        judged(sized("JPEG", 2_000, 2_000), PictureLimits(pixels=1_000_000))
    with pytest.raises(PictureTooLargeError, match="MB are taken"):
        judged(JPEG, PictureLimits(bytes=100))
    assert LIMITS.bytes >= 25_000_000


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8\xff" + b"\xd0\xff" * 5_000_000,
        b"\xff\xd8\xff" + bytes(10_000_000),
        b"\xff\xd8" + b"\xff\xe5\0\2" * 2_000_000,
        sized("PNG", 60, 40)[:33] + chunk(b"teXt", b"") * 800_000,
        b"RIFF\0\0\0\0WEBP" + b"JUNK\0\0\0\0" * 1_000_000,
    ],
    ids=["restarts", "zeros", "segments", "chunks", "boxes"],
)
def test_no_header_takes_long(data: bytes) -> None:
    began = time.process_time()
    with contextlib.suppress(NotAnImageError):
        read_picture_file(data)
    assert time.process_time() - began < 2
