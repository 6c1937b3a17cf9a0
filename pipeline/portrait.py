"""From a picture to a portrait that can talk: finds the face, closes its lips, frames it, crops it (once per portrait).

The crop is the canonical square the models are trained on: with the top of the forehead f and the tip of the
chin c of the face, its middle is 0.42 f + 0.58 c and its side 1.75 |f - c|, upright, 256x256 pixels.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.covered_face import MOUTH_LIMIT, CoveredFace
from pipeline.drawing.geometry import CROP_PIXELS, freedom
from pipeline.face_detector import Square
from pipeline.face_search import (
    FaceTooSmallError,
    NoFaceError,
    NotHumanError,
    SeveralFacesError,
    find_face,
    find_upright_face,
    rough_square,
    turned,
)
from pipeline.mouth_closing import close_lips, find_parted_lips
from pipeline.picture import (
    NotAnImageError,
    PictureTooLargeError,
    PictureTooSmallError,
    PortraitError,
    opaque,
    pixels_of,
    too_many_bytes,
    upright,
)
from pipeline.picture_limits import LIMITS

__all__ = [
    "CROP_PIXELS",
    "FaceTooSmallError",
    "NoFaceError",
    "NotAnImageError",
    "NotHumanError",
    "PictureTooLargeError",
    "PictureTooSmallError",
    "Portrait",
    "PortraitError",
    "SeveralFacesError",
    "crop_face",
    "find_face",
    "frame_portrait",
    "prepare_portrait",
    "rough_square",
]

# The canvas shows at most this many crop sides of the picture, so that the face stays worth looking at.
_MAX_FRAME_SIDES = 3.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Portrait:
    """A picture ready to talk.

    `canvas` [H,W,3] u8: the output picture, even sides. `matrix` [2,3] f64: canvas pixel (x, y, 1) to crop
    pixel, whole numbers being pixel centres. `crop` [256,256,3] u8. `alpha` [H,W] f32: how freely a pixel may
    move, 1 inside the crop, falling to 0 at its border and at the canvas's. `opacity` [H,W] u8: of the picture
    as given, where parts of it are transparent: there the canvas shows one shade of grey. `sha256` of the file,
    or of the pixels if there was none.
    """

    name: str
    canvas: NDArray[np.uint8]
    matrix: NDArray[np.float64]
    crop: NDArray[np.uint8]
    alpha: NDArray[np.float32]
    sha256: str
    opacity: NDArray[np.uint8] | None = None


def prepare_portrait(
    image: str | Path | bytes | NDArray[np.uint8] | Image.Image,
    *,
    name: str = "portrait",
    max_side: int = 512,
) -> Portrait:
    """Finds the one face in a picture and makes a portrait of it.

    Args:
        image: the path of a JPEG, PNG or WebP file, or its bytes, RGB pixels [H,W,3] u8, or an opened picture.
        name: what the portrait is called.
        max_side: longest side of the canvas in pixels; smaller pictures are not enlarged.

    Raises:
        PortraitError: one of its subclasses, with a sentence for the person who gave the picture.
    """
    picture, sha256 = _read(image)
    turns, _, square = find_upright_face(np.asarray(opaque(picture)))
    return frame_portrait(turned(picture, turns), square, name=name, sha256=sha256, max_side=max_side)


def frame_portrait(
    picture: Image.Image, square: Square, *, name: str, sha256: str, max_side: int = 512
) -> Portrait:
    """The portrait of the face in `square` of an upright RGB or RGBA picture; see `prepare_portrait`."""
    opacity = picture.getchannel("A") if picture.mode == "RGBA" else None
    picture = _with_closed_lips(opaque(picture), square)
    left, top, right, bottom, scale = _frame(picture, square, max_side)
    size = (round((right - left) * scale), round((bottom - top) * scale))
    box = (left, top, right, bottom)
    canvas = picture.resize(size, Image.Resampling.LANCZOS, box=box)
    if opacity is not None:
        opacity = opacity.resize(size, Image.Resampling.LANCZOS, box=box)
    # The crop's edges lie on pixel edges of the canvas, so that paste-back is a plain resize.
    side, first_x, first_y = (
        round(length * scale) for length in (square.side, square.left - left, square.top - top)
    )
    square = Square(
        centre_x=left + (first_x + side / 2) / scale,
        centre_y=top + (first_y + side / 2) / scale,
        side=side / scale,
    )
    zoom = CROP_PIXELS / side
    matrix = np.array([[zoom, 0.0, -first_x * zoom], [0.0, zoom, -first_y * zoom]])
    matrix[:, 2] += (zoom - 1) / 2  # pixel centres
    return Portrait(
        name=name,
        canvas=np.array(canvas),
        matrix=matrix,
        crop=crop_face(picture, square),
        alpha=freedom(*size, matrix),
        sha256=sha256,
        opacity=None if opacity is None else np.array(opacity),
    )


def _read(image: str | Path | bytes | NDArray[np.uint8] | Image.Image) -> tuple[Image.Image, str]:
    """An upright RGB or RGBA picture without metadata, and the SHA-256 of what was given."""
    if isinstance(image, Image.Image):
        picture = upright(image)
        return picture, hashlib.sha256(picture.tobytes()).hexdigest()
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise NotAnImageError(
                f"The array is {image.dtype} {list(image.shape)}; "
                "give RGB pixels as uint8 [height, width, 3]."
            )
        return upright(Image.fromarray(image)), hashlib.sha256(image.tobytes()).hexdigest()
    if isinstance(image, str):
        image = Path(image)
    if isinstance(image, Path):
        if not image.is_file():
            raise NotAnImageError(f"There is no file {image}; check the path of the portrait.")
        if image.stat().st_size > LIMITS.bytes:
            raise too_many_bytes(image.stat().st_size)
        image = image.read_bytes()
    return pixels_of(image), hashlib.sha256(image).hexdigest()


def _frame(picture: Image.Image, square: Square, max_side: int) -> tuple[float, float, float, float, float]:
    """The part of the picture on the canvas (left, top, right, bottom) and its scale; sides are even."""
    longest = _MAX_FRAME_SIDES * square.side
    width, height = min(float(picture.width), longest), min(float(picture.height), longest)
    scale = min(1.0, max_side / max(width, height))
    width, height = (2 * max(int(length * scale / 2 + 1e-6), 1) / scale for length in (width, height))
    left = min(max(square.centre_x - width / 2, 0.0), picture.width - width)
    top = min(max(square.centre_y - height / 2, 0.0), picture.height - height)
    if scale == 1:
        left, top = float(round(left)), float(round(top))
    return left, top, left + width, top + height, scale


def _with_closed_lips(picture: Image.Image, square: Square) -> Image.Image:
    crop = crop_face(picture, square)
    lips = find_parted_lips(crop)
    if lips is None or CoveredFace.bundled().look(crop).mouth > MOUTH_LIMIT:
        return picture
    zoom = square.side / CROP_PIXELS
    offset = (zoom - 1) / 2  # pixel centres
    return Image.fromarray(
        close_lips(np.asarray(picture), lips.moved(zoom, square.left + offset, square.top + offset))
    )


def crop_face(picture: Image.Image, square: Square) -> NDArray[np.uint8]:
    """The square of an RGB picture as [256,256,3]; where it leaves the picture, edge pixels are repeated."""
    left, top, side = square.left, square.top, square.side
    pad = int(max(0.0, -left, -top, left + side - picture.width, top + side - picture.height)) + 2
    padded = Image.fromarray(np.pad(np.asarray(picture), ((pad, pad), (pad, pad), (0, 0)), mode="edge"))
    box = (left + pad, top + pad, left + pad + side, top + pad + side)
    return np.array(padded.resize((CROP_PIXELS, CROP_PIXELS), Image.Resampling.LANCZOS, box=box))
