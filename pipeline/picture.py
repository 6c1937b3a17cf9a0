"""Foreign picture files, opened with care: upright, in sRGB, 8 bits, without what a camera wrote beside the pixels.

Kind and size are judged by the header, before a pixel is decoded; more pixels than a portrait can use are not kept: a
JPEG is decoded small, others are shrunk at once. An animation is its first frame.
"""

from __future__ import annotations

import hashlib
import io
import struct
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from pipeline.picture_file import (
    DamagedError,
    NotAnImageError,
    PictureFile,
    PortraitError,
    orientation_of,
    read_picture_file,
)
from pipeline.picture_limits import LIMITS, PictureLimits

__all__ = [
    "CleanPicture",
    "NotAnImageError",
    "PictureTooLargeError",
    "PortraitError",
    "clean_picture",
    "judged",
    "opaque",
    "pixels_of",
    "stored_picture",
    "upright",
]

KEPT_PIXELS = 4096**2
"""Of larger pictures only a half, a quarter or an eighth of each side is kept."""
LEAST_SIDE_PIXELS = 32
BACKDROPS = (208, 24, 120)
"""Greys that transparency is put onto, the preferred one first."""

# Decoders by kind, without the judgement of sizes that `Image.open` adds: that has been given by then.
_DECODERS: dict[str, type[ImageFile]] = {"JPEG": JpegImageFile, "PNG": PngImageFile, "WEBP": WebPImageFile}
_COMPLAINTS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error, Image.DecompressionBombError,
)  # fmt: skip
_JPEG_QUALITY = 95
_PNG_LEVEL = 3  # 16 megapixels in about a second
# What EXIF's orientations 2 to 8 ask for.
_TURNS = dict(
    enumerate(
        (
            Image.Transpose.FLIP_LEFT_RIGHT,
            Image.Transpose.ROTATE_180,
            Image.Transpose.FLIP_TOP_BOTTOM,
            Image.Transpose.TRANSPOSE,
            Image.Transpose.ROTATE_270,
            Image.Transpose.TRANSVERSE,
            Image.Transpose.ROTATE_90,
        ),
        start=2,
    )
)
# How far in RGB the preferred backdrop must be from the edge before it; at how many pixels a side that is looked at.
_CLEAR_OF_EDGE = 60.0
_EDGE_SEARCH_PIXELS = 1024


class PictureTooLargeError(PortraitError):
    """More bytes or pixels than are taken."""


class PictureTooSmallError(PortraitError):
    """Too few pixels for any face."""


@dataclass(frozen=True, kw_only=True)
class CleanPicture:
    """A picture as it may be kept: the pixels upright (RGB or RGBA), and a file of them without metadata.

    data: JPEG, or PNG where there is transparency to keep. sha256: of data. frames: of the file as given; more than
    one is an animation.
    """

    pixels: Image.Image
    data: bytes
    media_type: str
    sha256: str
    frames: int

    @property
    def has_alpha(self) -> bool:
        return self.pixels.mode == "RGBA"


def judged(data: bytes, limits: PictureLimits | None = LIMITS) -> PictureFile:
    """The file's header, if it is one of a picture that is taken; raises PortraitError. limits: None: of any size."""
    if limits is not None and len(data) > limits.bytes:
        raise too_many_bytes(len(data), limits)
    file = read_picture_file(data)
    size = f"{file.width} x {file.height} pixels"
    if limits is not None:
        most = limits.pixels if file.shrinkable else min(limits.pixels, limits.whole_pixels)
        if file.pixels > most:
            kind = "" if file.shrinkable else f" as {file.kind.replace('WEBP', 'WebP')}"
            kind = " as a progressive JPEG" if kind == " as JPEG" else kind
            raise PictureTooLargeError(
                f"The picture has {size}; at most {most / 1e6:.0f} megapixels are taken{kind}. Make it smaller."
            )
    if min(file.width, file.height) < LEAST_SIDE_PIXELS:
        raise PictureTooSmallError(
            f"The picture has only {size}; a face needs at least {LEAST_SIDE_PIXELS} each way, and better 300."
        )
    return file


def clean_picture(data: bytes, limits: PictureLimits | None = LIMITS) -> CleanPicture:
    """The picture in a JPEG, PNG or WebP file; raises PortraitError."""
    pixels, frames = _decoded(judged(data, limits))
    return cleaned(pixels, frames=frames)


def cleaned(pixels: Image.Image, *, frames: int = 1) -> CleanPicture:
    """RGB or RGBA pixels as they may be kept."""
    out = io.BytesIO()
    if pixels.mode == "RGBA":
        pixels.save(out, "PNG", compress_level=_PNG_LEVEL)
    else:
        pixels.save(out, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    kept = out.getvalue()
    media_type = "image/png" if pixels.mode == "RGBA" else "image/jpeg"
    digest = hashlib.sha256(kept).hexdigest()
    return CleanPicture(pixels=pixels, data=kept, media_type=media_type, sha256=digest, frames=frames)


def stored_picture(data: bytes) -> Image.Image:
    """The pixels of `CleanPicture.data`, whatever its length."""
    return pixels_of(data, limits=None)


def pixels_of(data: bytes, limits: PictureLimits | None = LIMITS) -> Image.Image:
    """The pixels of a JPEG, PNG or WebP file, upright, RGB or RGBA; raises PortraitError."""
    pixels, _ = _decoded(judged(data, limits))
    return pixels


def upright(image: Image.Image) -> Image.Image:
    """An opened picture as new RGB or RGBA pixels, turned as its EXIF says; raises PortraitError."""
    if min(image.size) < LEAST_SIDE_PIXELS:
        width, height = image.size
        raise PictureTooSmallError(
            f"The picture has only {width} x {height} pixels; a face needs at least {LEAST_SIDE_PIXELS} each way, "
            "and better 300."
        )
    exif = image.info.get("exif")
    orientation = orientation_of(exif) if isinstance(exif, bytes) else None
    return _plain(image, orientation or 1, image.info.get("icc_profile"))


def _decoded(file: PictureFile) -> tuple[Image.Image, int]:
    """Pixels and number of frames; what the decoder has to complain about becomes a PortraitError."""
    try:
        with _DECODERS[file.kind](io.BytesIO(file.pixels_only)) as image:
            return _pixels(image, file)
    except PortraitError:
        raise
    except _COMPLAINTS as error:
        if file.kind == "JPEG":
            return _decoded_to_its_corner(file)
        raise DamagedError from error


def _decoded_to_its_corner(file: PictureFile) -> tuple[Image.Image, int]:
    """A JPEG that lacks its end mark, or a few bytes more: as long as its last block holds more than one shade."""
    try:
        with JpegImageFile(io.BytesIO(file.pixels_only + b"\xff\xd9")) as image:
            pixels = _pixels(image, file)
            if not np.ptp(np.asarray(image)[-8:, -8:], axis=(0, 1)).any():
                raise DamagedError
            return pixels
    except _COMPLAINTS as error:
        raise DamagedError from error


def _pixels(image: ImageFile, file: PictureFile) -> tuple[Image.Image, int]:
    frames = int(getattr(image, "n_frames", 1)) if file.kind == "WEBP" else file.frames
    if image.size != (file.width, file.height):
        raise DamagedError  # a second header that says something else
    parts = 1
    while file.pixels > KEPT_PIXELS * parts**2:
        parts *= 2
    image.draft(None, (max(file.width // parts, 1), max(file.height // parts, 1)))  # of a JPEG; others stay
    return _plain(image, file.orientation, file.profile or image.info.get("icc_profile")), frames


def _plain(picture: Image.Image, orientation: int, profile: bytes | None) -> Image.Image:
    """New pixels, RGB or RGBA, in sRGB, upright, no more than are kept."""
    mode = "RGBA" if picture.has_transparency_data else "RGB"
    picture = _eight_bits(picture)
    if picture.width * picture.height > KEPT_PIXELS:
        if picture.mode in ("1", "P", "PA"):
            picture = picture.convert(mode)
        while picture.width * picture.height > KEPT_PIXELS:
            picture = picture.reduce(2)
    picture = _in_srgb(picture, profile, mode)
    if orientation in _TURNS:
        picture = picture.transpose(_TURNS[orientation])
    if mode == "RGBA" and picture.getchannel("A").getextrema() == (255, 255):
        picture = picture.convert("RGB")  # an alpha channel that hides nothing
    return Image.fromarray(np.asarray(picture))


def opaque(picture: Image.Image) -> Image.Image:
    """RGB; transparency lies on grey, a light one unless the edge of what is to be seen is about as light: who takes
    the backdrop away again (`stream.portraits.matte`) tells the two apart by colour."""
    if picture.mode != "RGBA":
        return picture
    grey = _backdrop(np.asarray(picture))
    return Image.alpha_composite(Image.new("RGBA", picture.size, (grey, grey, grey, 255)), picture).convert(
        "RGB"
    )


def _backdrop(pixels: NDArray[np.uint8]) -> int:
    """One of BACKDROPS for a partly transparent picture [H,W,4]."""
    step = max(1, max(pixels.shape[:2]) // _EDGE_SEARCH_PIXELS)
    small = pixels[::step, ::step]
    clear = cv2.dilate((small[..., 3] < 128).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    edge = small[clear & (small[..., 3] >= 200)][:, :3].astype(np.float32)
    if not len(edge):
        return BACKDROPS[0]
    # How far the nearest tenth of the edge's colours is from each grey.
    away = [float(np.percentile(np.linalg.norm(edge - grey, axis=1), 10)) for grey in BACKDROPS]
    return BACKDROPS[0] if away[0] >= _CLEAR_OF_EDGE else BACKDROPS[int(np.argmax(away))]


def too_many_bytes(count: int, limits: PictureLimits = LIMITS) -> PictureTooLargeError:
    return PictureTooLargeError(
        f"The file has {count / 1e6:.1f} MB; at most {limits.bytes / 1e6:.3g} MB are taken. "
        "Save it smaller, or with more compression."
    )


def _eight_bits(picture: Image.Image) -> Image.Image:
    """16-bit grey scaled, not clipped, to 8 bits."""
    if picture.mode not in ("I", "F") and not picture.mode.startswith("I;16"):
        return picture
    return Image.fromarray(np.asarray(cv2.convertScaleAbs(np.asarray(picture), alpha=1 / 257), np.uint8))


def _in_srgb(picture: Image.Image, profile: bytes | None, mode: str) -> Image.Image:
    """Colours as sRGB, so that they stay what they are when the profile is stripped; a bad profile is ignored."""
    if profile is not None and picture.mode in ("RGB", "RGBA", "CMYK"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(
                picture, source, ImageCms.createProfile("sRGB"), outputMode=None if mode == "RGBA" else "RGB"
            )
            if converted is not None:
                return converted.convert(mode)
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass
    return picture.convert(mode)
