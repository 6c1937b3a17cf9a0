"""Foreign picture files, opened with care: upright, in sRGB, 8 bits, without what a camera wrote beside the pixels.

Size and kind are judged by the header, before a pixel is decoded. An animation is its first frame.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_FILE_BYTES = 8 * 2**20
MAX_PICTURE_PIXELS = 16_000_000
BACKDROPS = (208, 24, 120)
"""Greys that transparency is put onto, the preferred one first."""

_JPEG_QUALITY = 95
_PNG_LEVEL = 3  # 16 megapixels in about a second
# How far in RGB the preferred backdrop must be from the edge before it; at how many pixels a side that is looked at.
_CLEAR_OF_EDGE = 60.0
_EDGE_SEARCH_PIXELS = 1024


class PortraitError(ValueError):
    """A picture that cannot become a portrait; the message says why and what to do."""


class NotAnImageError(PortraitError):
    """Not a picture, a broken one, or one of a kind that is not taken."""


class PictureTooLargeError(PortraitError):
    """More bytes or pixels than are taken."""


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


def clean_picture(data: bytes) -> CleanPicture:
    """The picture in a JPEG, PNG or WebP file; raises PortraitError."""
    with opened(data) as image:
        frames = int(getattr(image, "n_frames", 1)) if image.format in ("PNG", "WEBP") else 1
        pixels = upright(image)
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
    with opened(data, max_bytes=None) as image:
        return upright(image)


@contextmanager
def opened(data: bytes, *, max_bytes: int | None = MAX_FILE_BYTES) -> Iterator[Any]:
    """The file's header read, its pixels not; what the decoder has to complain about becomes a PortraitError."""
    if max_bytes is not None and len(data) > max_bytes:
        raise too_many_bytes(len(data))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", Image.DecompressionBombWarning
            )  # judged below, with less patience
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                yield image
    except UnidentifiedImageError as error:
        raise NotAnImageError(
            "This file is not a picture we can read; use a JPEG, PNG or WebP file."
        ) from error
    except Image.DecompressionBombError as error:
        raise PictureTooLargeError(
            "The picture has far too many pixels; "
            f"make it smaller than {MAX_PICTURE_PIXELS // 10**6} megapixels."
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, PortraitError):
            raise
        raise NotAnImageError(
            "The picture is damaged or incomplete; save it again or use another one."
        ) from error


def upright(image: Image.Image) -> Image.Image:
    """The first frame as new RGB or RGBA pixels, turned as EXIF says. The header's size is judged first."""
    width, height = image.size
    if width * height > MAX_PICTURE_PIXELS:
        raise PictureTooLargeError(
            f"The picture has {width} x {height} pixels; make it smaller than "
            f"{MAX_PICTURE_PIXELS // 10**6} megapixels (for example 4000 x 4000)."
        )
    picture = ImageOps.exif_transpose(image)
    mode = "RGBA" if picture.has_transparency_data else "RGB"
    picture = _in_srgb(_eight_bits(picture), image.info.get("icc_profile"), mode)
    if mode == "RGBA" and picture.getchannel("A").getextrema() == (255, 255):
        picture = picture.convert("RGB")  # an alpha channel that hides nothing
    return Image.fromarray(np.asarray(picture))


def opaque(picture: Image.Image) -> Image.Image:
    """RGB; transparency lies on grey, a light one unless the edge of what is to be seen is about as light: who takes
    the backdrop away again (`stream.matte`) tells the two apart by colour."""
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


def too_many_bytes(count: int) -> PictureTooLargeError:
    return PictureTooLargeError(
        f"The file has {count / 2**20:.1f} MB; at most {MAX_FILE_BYTES // 2**20} MB are taken. "
        "Save it smaller, or with more compression."
    )


def _eight_bits(picture: Image.Image) -> Image.Image:
    """16-bit grey scaled, not clipped, to 8 bits."""
    if picture.mode not in ("I", "F") and not picture.mode.startswith("I;16"):
        return picture
    values = np.asarray(picture).astype(np.float64) / 257
    return Image.fromarray(np.clip(np.round(values), 0, 255).astype(np.uint8))


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
