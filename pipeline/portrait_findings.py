"""What a picture will be like as a portrait, in sentences: how large the face is, how it is lit, where it looks.

Nothing here refuses a picture; it says what a better one would have. The limits were set by eye on 40 held-out
synthetic portraits; when a mouth counts as open is `pipeline.mouth_closing`'s to say.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.covered_face import EYES_LIMIT, MOUTH_LIMIT, CoveredFace
from pipeline.face_detector import Face, Square
from pipeline.face_search import FACE_SHARE
from pipeline.mouth_closing import find_parted_lips
from pipeline.portrait import CROP_PIXELS, Portrait, crop_face

SMALL_FACE_PIXELS = 150
"""In the picture, and on the canvas that is streamed."""
DARK_LEVEL, BRIGHT_LEVEL = 55.0, 205.0
FLAT_RANGE = 60.0
ONE_SIDED = 0.45
BLURRED_VARIANCE = 18.0
TILT_DEGREES = 12.0
TURN = 0.15

_FACE = (slice(48, 216), slice(64, 192))  # rows and columns of the crop that show nothing but face
_SHARPNESS_SIDE = 300.0  # a face enlarged to the crop looks soft because it is small, which is said already


@dataclass(frozen=True, kw_only=True)
class Remark:
    """code: stable. text: what is the matter and what would be better."""

    code: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Pixels are those of the picture, upright. face_box, crop_box: left, top, right, bottom. streamed_face_pixels: the
    face's height on the canvas. tilt: degrees, the picture's right eye lower is positive. turn: of the nose from the
    middle of the eyes, in eye distances."""

    width: int
    height: int
    face_box: tuple[int, int, int, int]
    crop_box: tuple[int, int, int, int]
    face_pixels: int
    streamed_face_pixels: int
    brightness: float
    tilt_degrees: float
    turn: float
    transparent: bool
    warnings: tuple[Remark, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def find(
    picture: NDArray[np.uint8],
    face: Face,
    square: Square,
    portrait: Portrait,
    *,
    transparent: bool,
    frames: int = 1,
    turns: int = 0,
) -> Findings:
    """What there is to say about the face found in `picture` [H,W,3] u8, of which `portrait` was made.

    frames: of the file as given. turns: by how many quarters the picture was turned to have the face upright."""
    height, width = picture.shape[:2]
    grey = cv2.cvtColor(portrait.crop, cv2.COLOR_RGB2GRAY)[_FACE].astype(np.float32)
    eyes = face.points[1] - face.points[0]
    tilt = float(np.degrees(np.arctan2(eyes[1], eyes[0])))
    turn = float((face.points[2] - face.points[:2].mean(0)) @ eyes / max(float(eyes @ eyes), 1e-6))
    face_pixels = round(square.side * FACE_SHARE)
    streamed = round(FACE_SHARE * CROP_PIXELS / float(portrait.matrix[0, 0]))
    corner = face.centre - face.size / 2
    warnings = [
        *_about_light(grey),
        *_about_size(face_pixels, streamed),
        *_about_place(tilt, turn, square, width, height),
    ]
    sharpness = float(np.var(cv2.Laplacian(grey, cv2.CV_32F)))
    if square.side >= _SHARPNESS_SIDE and sharpness < BLURRED_VARIANCE:
        warnings.append(
            Remark(
                code="blurred", text="The face is not sharp. A picture in focus gives a livelier portrait."
            )
        )
    warnings += _about_mouth_and_eyes(crop_face(Image.fromarray(picture), square))
    if turns:
        how = "upside down" if turns == 2 else "on its side"
        warnings.append(
            Remark(
                code="turned_upright",
                text=f"The picture lay {how}; it was turned so that the face is upright.",
            )
        )
    if frames > 1:
        warnings.append(
            Remark(
                code="animated", text=f"The file is an animation of {frames} pictures; the first one is used."
            )
        )
    return Findings(
        width=width,
        height=height,
        face_box=_box(corner[0], corner[1], corner[0] + face.size[0], corner[1] + face.size[1]),
        crop_box=_box(square.left, square.top, square.left + square.side, square.top + square.side),
        face_pixels=face_pixels,
        streamed_face_pixels=streamed,
        brightness=round(float(grey.mean()), 1),
        tilt_degrees=round(tilt, 1),
        turn=round(turn, 2),
        transparent=transparent,
        warnings=tuple(warnings),
    )


def _about_light(grey: NDArray[np.float32]) -> list[Remark]:
    level = float(grey.mean())
    low, high = np.percentile(grey, [5, 95])
    half = grey.shape[1] // 2
    left, right = float(grey[:, :half].mean()), float(grey[:, half:].mean())
    found = []
    if level < DARK_LEVEL:
        found.append(Remark(code="dark", text="The face is dark. More light on it, from the front, helps."))
    elif level > BRIGHT_LEVEL:
        found.append(
            Remark(code="bright", text="The face is overexposed. Softer light keeps its features visible.")
        )
    elif high - low < FLAT_RANGE:
        found.append(
            Remark(code="flat", text="The picture has little contrast; the face may look washed out.")
        )
    if abs(left - right) > ONE_SIDED * (left + right):
        found.append(
            Remark(
                code="one_sided_light", text="One half of the face lies in shadow. Even light looks better."
            )
        )
    return found


def _about_mouth_and_eyes(crop: NDArray[np.uint8]) -> list[Remark]:
    """crop: of the picture as given, whose lips may be open."""
    covered = CoveredFace.bundled().look(crop)
    found = []
    if covered.mouth > MOUTH_LIMIT:
        text = (
            "Something covers the mouth, a mask, a hand or a microphone; it would stand still or smear while the "
            "portrait talks. Use a picture in which the whole mouth is seen."
        )
        found.append(Remark(code="mouth_covered", text=text))
    elif find_parted_lips(crop) is not None:
        text = (
            "The mouth is open; the portrait will close it. A picture with closed lips looks more like you."
        )
        found.append(Remark(code="mouth_open", text=text))
    if covered.eyes > EYES_LIMIT:
        text = (
            "Something covers the eyes, sunglasses, a hand or hair; the portrait will not be seen to blink or look. "
            "Use a picture in which both eyes are seen."
        )
        found.append(Remark(code="eyes_covered", text=text))
    return found


def _about_size(face_pixels: int, streamed: int) -> list[Remark]:
    if face_pixels < SMALL_FACE_PIXELS:
        text = (
            f"The face is only {face_pixels} pixels high and will look soft; "
            f"with {SMALL_FACE_PIXELS} or more it is crisp."
        )
        return [Remark(code="small", text=text)]
    if streamed < SMALL_FACE_PIXELS:
        text = (
            f"The face is a small part of the picture: when streamed it is only {streamed} pixels high. Cut the "
            f"picture to head and shoulders, so that it has {SMALL_FACE_PIXELS} or more."
        )
        return [Remark(code="far_away", text=text)]
    return []


def _about_place(tilt: float, turn: float, square: Square, width: int, height: int) -> list[Remark]:
    found = []
    if abs(tilt) > TILT_DEGREES:
        text = f"The head is tilted by {abs(tilt):.0f} degrees. An upright head moves more naturally."
        found.append(Remark(code="tilted", text=text))
    if abs(turn) > TURN:
        found.append(
            Remark(code="turned", text="The face looks aside. One that looks into the camera moves better.")
        )
    outside = 0.12 * square.side
    if (
        square.left < -outside
        or square.top < -outside
        or square.left + square.side > width + outside
        or square.top + square.side > height + outside
    ):
        found.append(
            Remark(
                code="cut_off",
                text="The face is close to the picture's edge. Leave some room around the head.",
            )
        )
    return found


def _box(left: float, top: float, right: float, bottom: float) -> tuple[int, int, int, int]:
    return round(left), round(top), round(right), round(bottom)
