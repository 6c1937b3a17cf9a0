"""What a picture file says about itself: its kind by content, its size, how it lies. Nothing is decoded.

Kinds that are not taken are told by name. Of metadata only what matters is read, by code that survives any bytes: an
orientation that cannot be read is none. `PictureFile.pixels_only` is the file without all of it, for a decoder that
would stumble over what a camera, an editor or an attacker wrote beside the pixels.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["JPEG", "PNG", "WEBP"]

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_MAX_PROFILE_BYTES = 16 * 2**20
_MAX_PARTS = 100_000  # chunks, segments; a picture of 64 MB has some thousands
_EXIF = b"Exif\0"
_ORIENTATION = 0x0112
# Bytes of a TIFF value by its type: BYTE, SHORT, LONG and their signed forms; texts and fractions are no orientation.
_TIFF_SIZES = {1: 1, 3: 2, 4: 4, 6: 1, 8: 2, 9: 4}
# JPEG: frame headers (4, 8 and 12 are other things); those of progressive and of lossless ones.
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SOF_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_SOF_LOSSLESS = frozenset((0xC3, 0xC7, 0xCB, 0xCF))
_SOI, _EOI, _SOS, _APP1, _APP2, _APP13, _COM = 0xD8, 0xD9, 0xDA, 0xE1, 0xE2, 0xED, 0xFE
_STANDALONE = frozenset((0x01, *range(0xD0, 0xD9)))


class PortraitError(ValueError):
    """A picture that cannot become a portrait; the message says why and what to do."""


class NotAnImageError(PortraitError):
    """Not a picture, a broken one, or one of a kind that is not taken."""


class DamagedError(NotAnImageError):
    """A picture whose file is not whole."""

    def __init__(self) -> None:
        super().__init__("The picture is damaged or incomplete; save it again or use another one.")


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureFile:
    """width, height: as stored, before it is turned. orientation: EXIF's, 1 (upright) to 8. shrinkable: it can be
    decoded small. profile: of a PNG, which decoders limit; of others it is still in the file. frames: of a PNG."""

    kind: Kind
    width: int
    height: int
    orientation: int
    shrinkable: bool
    pixels_only: bytes
    profile: bytes | None = None
    frames: int = 1

    @property
    def pixels(self) -> int:
        return self.width * self.height


def read_picture_file(data: bytes) -> PictureFile:
    """Raises NotAnImageError for any other file than a JPEG, PNG or WebP one; says what it is, where that is known."""
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return _read_jpeg(data)
        if data.startswith(_PNG_SIGNATURE):
            return _read_png(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _read_webp(data)
    except (struct.error, IndexError) as error:
        raise DamagedError from error
    raise NotAnImageError(_refusal(data))


def _read_jpeg(data: bytes) -> PictureFile:
    kept = bytearray(data[:2])
    orientation = size = None
    one_pass = True
    scan = 0
    for at, marker, whole in _jpeg_segments(data):
        body = whole[4:]
        if marker in _SOF_LOSSLESS:
            raise NotAnImageError(
                "This is a lossless JPEG, as medical devices make them; save it as an ordinary JPEG, or as PNG."
            )
        if marker in _SOF and size is None:
            _, height, width, components = struct.unpack_from(">BHHB", body)
            size, one_pass = (width, height), marker not in _SOF_PROGRESSIVE
        if marker == _SOS:
            scan = at
            one_pass = one_pass and body[0] == components
            break
        if marker == _APP1 and body.startswith(_EXIF) and orientation is None:
            orientation = orientation_of(body)
        private = marker in (_APP1, _APP13, _COM) or (
            marker == _APP2 and not body.startswith(b"ICC_PROFILE\0")
        )
        if not private:
            kept += whole
    if size is None or 0 in size:
        raise DamagedError
    return PictureFile(
        kind="JPEG",
        width=size[0],
        height=size[1],
        orientation=orientation or 1,
        shrinkable=one_pass,
        pixels_only=bytes(kept) + data[scan:],
    )


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Place, marker and bytes of each segment up to the first scan's; raises DamagedError if there is none."""
    at = 2
    for _ in range(_MAX_PARTS):
        at = data.find(b"\xff", at)  # over stray bytes between segments
        marker = data[at + 1]
        if at < 0 or marker == _EOI:
            break
        if marker == 0xFF:
            at += 1
        elif marker == 0 or marker in _STANDALONE:
            at += 2
        else:
            (length,) = struct.unpack_from(">H", data, at + 2)
            yield at, marker, data[at : at + 2 + length]
            at += 2 + max(length, 2)
    raise DamagedError


def _read_png(data: bytes) -> PictureFile:
    kept = bytearray(_PNG_SIGNATURE)
    orientation = profile = None
    frames = 1
    width, height = struct.unpack_from(">II", data, 16)
    if data[12:16] != b"IHDR" or 0 in (width, height):
        raise DamagedError
    for name, whole, body in _png_chunks(data):
        if name in _PNG_NEEDED:
            kept += whole
        elif name == b"eXIf":
            orientation = orientation or orientation_of(body)
        elif name == b"iCCP":
            profile = profile or _png_profile(body)
        elif name == b"acTL" and len(body) >= 4:
            frames = max(struct.unpack_from(">I", body)[0], 1)
    return PictureFile(
        kind="PNG",
        width=width,
        height=height,
        orientation=orientation or 1,
        shrinkable=False,
        pixels_only=bytes(kept),
        profile=profile,
        frames=frames,
    )


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, bytes]]:
    """Name, the chunk as a whole, and what is in it where it is no pixels; a cut chunk as far as it goes."""
    view, at = memoryview(data), len(_PNG_SIGNATURE)
    for _ in range(_MAX_PARTS):
        if at + 8 > len(data):
            return
        length, name = struct.unpack_from(">I4s", data, at)
        yield name, view[at : at + 12 + length], b"" if name == b"IDAT" else data[at + 8 : at + 8 + length]
        if name == b"IEND":
            return
        at += 12 + length


def _png_profile(body: bytes) -> bytes | None:
    _, _, packed = body.partition(b"\0")
    try:
        return zlib.decompressobj().decompress(packed[1:], _MAX_PROFILE_BYTES) or None
    except zlib.error:
        return None


def _read_webp(data: bytes) -> PictureFile:
    orientation = size = None
    at = 12
    for _ in range(_MAX_PARTS):
        if at + 8 > len(data):
            break
        name, (length,) = data[at : at + 4], struct.unpack_from("<I", data, at + 4)
        body = data[at + 8 : at + 8 + (length if name == b"EXIF" else 16)]
        if name == b"EXIF":
            orientation = orientation or orientation_of(body)
        elif size is None:
            size = _webp_size(name, body)
        at += 8 + length + length % 2
    if size is None or 0 in size:
        raise DamagedError
    return PictureFile(
        kind="WEBP",
        width=size[0],
        height=size[1],
        orientation=orientation or 1,
        shrinkable=False,
        pixels_only=data,
    )


def _webp_size(name: bytes, body: bytes) -> tuple[int, int] | None:
    """Of a canvas, a lossy or a lossless picture."""
    if name == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if name == b"VP8 ":
        width, height = struct.unpack_from("<HH", body, 6)
        return width & 0x3FFF, height & 0x3FFF
    if name == b"VP8L":
        (bits,) = struct.unpack_from("<I", body, 1)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return None


def orientation_of(exif: bytes) -> int | None:
    """1 to 8 from a block of EXIF, whatever else is wrong with it; None if it has none that can be read."""
    while exif.startswith(_EXIF):  # some programs write the header twice
        exif = exif[len(_EXIF) + 1 :]
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return None
    try:
        (first,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, first)
        for entry in range(first + 2, first + 2 + 12 * count, 12):
            tag, kind, values = struct.unpack_from(f"{order}HHI", exif, entry)
            if tag == _ORIENTATION and kind in _TIFF_SIZES and values:
                size = _TIFF_SIZES[kind]
                place = entry + 8
                if size * values > 4:
                    (place,) = struct.unpack_from(f"{order}I", exif, place)
                value = int.from_bytes(exif[place : place + size], "little" if order == "<" else "big")
                return value if 1 <= value <= 8 else None
    except struct.error:
        pass
    return None


def _refusal(data: bytes) -> str:
    if not data:
        return "The file is empty; use a JPEG, PNG or WebP file."
    known = _kind_not_taken(data[:64])
    if known is None:
        return "This file is not a picture we can read; use a JPEG, PNG or WebP file."
    what, instead = known
    return f"This is {what}; {instead or 'save it as JPEG, PNG or WebP and use that'}."


def _kind_not_taken(head: bytes) -> tuple[str, str] | None:
    """What a file is by its first bytes, and what to do with it where there is more to say than to save it anew."""
    if head[4:8] == b"ftyp":
        return _box_file(head[8:12], head[16:])
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<svg", b"<?xml")):
        return "an SVG drawing", "export it as PNG and use that"
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page", "save the picture itself, not the page it is on"
    if head.startswith(b"RIFF"):
        return (
            "an AVI video" if head[8:12] == b"AVI " else "a sound file"
        ), "use a JPEG, PNG or WebP picture"
    for signatures, what, instead in (
        ((b"GIF87a", b"GIF89a"), "a GIF picture", ""),
        ((b"BM",), "a BMP picture", ""),
        ((b"II\x2b\0", b"MM\0\x2b"), "a TIFF picture", ""),
        ((b"II*\0", b"MM\0*"), "a TIFF picture, or a camera's raw file", ""),
        ((b"\0\0\0\x0cJXL ", b"\xff\x0a"), "a JPEG XL picture", ""),
        ((b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"), "a JPEG 2000 picture", ""),
        ((b"\0\0\x01\0", b"\0\0\x02\0"), "an icon file", ""),
        ((b"8BPS",), "a Photoshop file", ""),
        ((b"gimp xcf",), "a GIMP file", ""),
        ((b"%PDF",), "a PDF document", "save the picture in it as JPEG or PNG and use that"),
        ((b"\x1aE\xdf\xa3",), "a video", "take a single picture of it, as JPEG or PNG"),
        ((b"PK\x03\x04",), "a ZIP archive", "unpack it and use the picture in it"),
    ):
        if head.startswith(signatures):
            return what, instead
    return None


def _box_file(brand: bytes, others: bytes) -> tuple[str, str]:
    """HEIF's family, and videos, which have the same boxes."""
    if b"avif" in (brand, others[:4]) or brand == b"avis":
        return "an AVIF picture", ""
    if brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"):
        how = "export it as JPEG (on an iPhone: Settings, Camera, Formats, Most Compatible)"
        return "a HEIC photo, as iPhones take them", how
    if brand in (b"crx ",):
        return "a camera's raw file", ""
    return "a video", "take a single picture of it, as JPEG or PNG"
