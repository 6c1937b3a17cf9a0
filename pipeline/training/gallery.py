"""Makes the bundled gallery: portraits that may be shipped, with `portraits.json` beside them.

The people are own renders: each is blended from several synthetic portraits (SFHQ-T2I, MIT) and looks like
none of them. Their faces are brought to the mean of their shapes by dense landmarks, light and colour are
averaged in the low frequencies, pores and lashes come from a single source (an average of details would be a
blur), hair and clothes from another one, mirrored. The astronaut is NASA's public-domain picture of Eileen
Collins that scikit-image carries.

    python -m pipeline.training.gallery --data DATA --landmarks runs/landmarks/portraits.npz
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.interpolate import LinearNDInterpolator
from skimage import data as pictures

from pipeline.training.portrait_fit import canonical_square

logger = logging.getLogger(__name__)

PIXELS = 512
MAX_FILE_BYTES = 150_000

# MediaPipe contours: face, lips and eyes, in order around them.
_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
    148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
_EYES = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
)
_LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)


@dataclass(frozen=True, kw_only=True)
class Person:
    """A blended person: portrait numbers of the training split.

    `body` gives hair, clothes and background, `detail` the fine texture of the face, `faces` the light and
    colour.
    """

    name: str
    title: str
    body: str
    detail: str
    faces: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Source:
    """`pixels` [512,512,3] f32 in 0..1 and its `landmarks` [478,2] in pixels."""

    pixels: NDArray[np.float32]
    landmarks: NDArray[np.float64]


PEOPLE = (
    Person(
        name="mira",
        title="Mira",
        body="0477",
        detail="0121",
        faces=("0477", "0466", "0462", "0471", "0001"),
    ),
    Person(
        name="jonas",
        title="Jonas",
        body="0056",
        detail="0059",
        faces=("0056", "0055", "0057", "0052", "0123"),
    ),
    Person(
        name="ada",
        title="Ada",
        body="0298",
        detail="0004",
        faces=("0298", "0004", "0102", "0297", "0459"),
    ),
    Person(
        name="ruth",
        title="Ruth",
        body="0127",
        detail="0001",
        faces=("0127", "0508", "0541", "0415", "0082"),
    ),
)
_CROP_SHARE = 0.74
"""Share of the picture that the models' square around the face takes, where the body's picture allows."""


_EDGE = 12
"""Pixels left out at the border of a body's picture, where a neighbouring tile may show."""


class Sources:
    """The training portraits and their landmarks."""

    def __init__(self, data: Path, landmarks: Path) -> None:
        self._folder = data / "portraits" / "train"
        self._landmarks = np.load(landmarks)
        self._pairs = self._mirror_pairs()

    def _mirror_pairs(self) -> NDArray[np.int64]:
        """[478] for each landmark the one on the other side of the face, from the mean (symmetric) face."""
        keys = [key for key in self._landmarks.files if key.startswith("train/")][::8]
        shapes = [self._landmarks[key][0, :, :2].astype(np.float64) for key in keys]
        mean = np.mean([align(shape, shapes[0]) for shape in shapes], axis=0)
        upright = align(mean, np.stack([mean[:, 0] - mean[:, 0].mean(), mean[:, 1]], 1))
        middle = upright[[10, 152, 1, 0, 17], 0].mean()
        centred = upright - (middle, 0)
        distances = np.linalg.norm(centred[:, None] * (-1, 1) - centred[None], axis=-1)
        return np.asarray(np.argmin(distances, axis=1), np.int64)

    def face(self, number: str) -> Source:
        """A portrait, whole."""
        picture, points = self._read(number)
        return self._cut(picture, points, (0.0, 0.0, float(picture.width), float(picture.height)))

    def body(self, number: str) -> Source:
        """A portrait mirrored and framed for the gallery."""
        picture, points = self._read(number)
        left, top, square = canonical_square(points.astype(np.float32))
        width, height = picture.width - 2 * _EDGE, picture.height - 2 * _EDGE
        side = min(square / _CROP_SHARE, width, height)
        x = min(max(left + square / 2 - side / 2, _EDGE), _EDGE + width - side)
        y = min(max(top + square * 0.47 - side / 2, _EDGE), _EDGE + height - side)
        source = self._cut(picture, points, (x, y, x + side, y + side))
        mirrored = source.landmarks * (-1, 1) + (PIXELS, 0)
        return Source(pixels=np.ascontiguousarray(source.pixels[:, ::-1]), landmarks=mirrored[self._pairs])

    def _read(self, number: str) -> tuple[Image.Image, NDArray[np.float64]]:
        picture = Image.open(self._folder / f"{number}.jpg").convert("RGB")
        return picture, self._landmarks[f"train/{number}"][0, :, :2].astype(np.float64)

    @staticmethod
    def _cut(
        picture: Image.Image, points: NDArray[np.float64], box: tuple[float, float, float, float]
    ) -> Source:
        left, top, right, bottom = box
        resized = picture.resize((PIXELS, PIXELS), Image.Resampling.LANCZOS, box=box)
        pixels = np.asarray(resized, np.float32) / np.float32(255)
        scale = np.array([PIXELS / (right - left), PIXELS / (bottom - top)])
        return Source(pixels=pixels, landmarks=(points - (left, top)) * scale)


def align(shape: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """`shape` [N,2] moved, turned and scaled onto `target` by least squares (Umeyama 1991)."""
    middle, goal = shape.mean(0), target.mean(0)
    a, b = shape - middle, target - goal
    numbers, goals = a[:, 0] + 1j * a[:, 1], b[:, 0] + 1j * b[:, 1]
    turn = np.vdot(numbers, goals) / np.vdot(numbers, numbers)
    moved = numbers * turn
    return np.asarray(np.stack([moved.real, moved.imag], 1) + goal, np.float64)


def warp(source: Source, target: NDArray[np.float64], *, whole: bool) -> NDArray[np.float32]:
    """The source's pixels with its landmarks at `target`; a `whole` picture keeps its border."""
    here, there = target, source.landmarks
    if whole:
        steps = np.linspace(0, PIXELS, 9)
        border = np.array([(x, y) for x in steps for y in steps if x in (0, PIXELS) or y in (0, PIXELS)])
    else:
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        border = target.mean(0) + PIXELS * np.stack([np.cos(angles), np.sin(angles)], 1)
    shifts = np.concatenate([there - here, np.zeros_like(border)])
    field = LinearNDInterpolator(np.concatenate([here, border]), shifts, fill_value=0.0)
    y, x = np.mgrid[0:PIXELS:4, 0:PIXELS:4] + 0.5
    coarse = field(x, y).astype(np.float32)
    coarse = cv2.GaussianBlur(coarse, (0, 0), 1.0)  # rounds the kinks at triangle edges
    shift = cv2.resize(coarse, (PIXELS, PIXELS), interpolation=cv2.INTER_CUBIC)
    rows, columns = np.mgrid[0:PIXELS, 0:PIXELS].astype(np.float32)
    moved = cv2.remap(
        source.pixels,
        columns + shift[..., 0],
        rows + shift[..., 1],
        cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REFLECT,
    )
    return np.clip(np.asarray(moved, np.float32), 0, 1)


def region(
    points: NDArray[np.float64], contour: tuple[int, ...], grow: float, feather: float
) -> NDArray[np.float32]:
    """[512,512] soft mask of a contour, scaled by `grow` about its middle."""
    outline = points[list(contour)]
    outline = outline.mean(0) + grow * (outline - outline.mean(0))
    mask = np.zeros((PIXELS, PIXELS), np.float32)
    cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], 1.0, cv2.LINE_AA, shift=4)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), feather), np.float32)


def recolour(
    pixels: NDArray[np.float32], model: NDArray[np.float32], weight: NDArray[np.float32]
) -> NDArray[np.float32]:
    """`pixels` with the mean and spread of the model's Lab colours under `weight` [512,512]."""
    lab, goal = (np.asarray(cv2.cvtColor(each, cv2.COLOR_RGB2LAB), np.float32) for each in (pixels, model))
    share = (weight / weight.sum())[..., None]
    means = [(each * share).sum((0, 1)) for each in (lab, goal)]
    spreads = [
        np.sqrt((share * (each - mean) ** 2).sum((0, 1)))
        for each, mean in zip((lab, goal), means, strict=True)
    ]
    gain = np.clip(spreads[1] / np.maximum(spreads[0], 1e-3), 0.6, 1.6)
    moved = ((lab - means[0]) * gain + means[1]).astype(np.float32)
    return np.clip(np.asarray(cv2.cvtColor(moved, cv2.COLOR_LAB2RGB), np.float32), 0, 1)


def blend(person: Person, portraits: Sources) -> NDArray[np.uint8]:
    """The person [512,512,3]."""
    body = portraits.body(person.body)
    sources = {number: portraits.face(number) for number in {*person.faces, person.detail}}
    shape = np.mean([align(source.landmarks, body.landmarks) for source in sources.values()], axis=0)
    picture = warp(body, shape, whole=True)
    face = region(shape, _OVAL, 0.84, PIXELS / 40)
    features = np.maximum.reduce([region(shape, contour, 1.5, 5) for contour in (*_EYES, _LIPS)])
    skin = face * (1 - features)
    warped = {
        number: recolour(warp(source, shape, whole=False), picture, skin)
        for number, source in sources.items()
    }
    mean = _lab(np.mean([warped[number] for number in person.faces], axis=0))
    blended = mean.copy()
    blended[..., 0] = _mix_bands(mean[..., 0], _lab(warped[person.detail])[..., 0], features)
    merged = np.asarray(cv2.cvtColor(blended, cv2.COLOR_LAB2RGB), np.float32)
    out = picture + face[..., None] * (merged - picture)
    return np.asarray(np.clip(out * 255 + 0.5, 0, 255), np.uint8)


def _lab(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.cvtColor(pixels.astype(np.float32), cv2.COLOR_RGB2LAB), np.float32)


def _mix_bands(
    mean: NDArray[np.float32], detail: NDArray[np.float32], features: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Lightness [H,W]: fine bands from `detail`, coarse ones from `mean`; features keep more detail."""
    mixed = np.zeros_like(mean)
    for sigma, own in ((2.0, 1.0), (5.0, 0.75), (11.0, 0.35)):
        low_mean, low_detail = (
            np.asarray(cv2.GaussianBlur(band, (0, 0), sigma), np.float32) for band in (mean, detail)
        )
        share = own + (1 - own) * 0.7 * features
        mixed += share * (detail - low_detail) + (1 - share) * (mean - low_mean)
        mean, detail = low_mean, low_detail
    return mixed + mean


def astronaut() -> NDArray[np.uint8]:
    """[512,512,3]: the head and shoulders of scikit-image's astronaut."""
    photo: NDArray[np.uint8] = pictures.astronaut()
    picture = Image.fromarray(photo)
    return np.asarray(picture.resize((PIXELS, PIXELS), Image.Resampling.LANCZOS, box=(68, 0, 388, 320)))


def save(pixels: NDArray[np.uint8], path: Path) -> None:
    """A JPEG of the best quality that fits the gallery's limit."""
    for quality in range(94, 60, -2):
        Image.fromarray(pixels).save(path, quality=quality, optimize=True)
        if path.stat().st_size <= MAX_FILE_BYTES:
            return
    raise ValueError(f"{path.name} does not fit into {MAX_FILE_BYTES} bytes.")


def main() -> None:
    """Writes the pictures and `portraits.json`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--landmarks", type=Path, default=Path("runs/landmarks/portraits.npz"))
    parser.add_argument("--out", type=Path, default=Path("pipeline/weights/portrait_256/portraits"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments.out.mkdir(parents=True, exist_ok=True)
    credits = {}
    portraits = Sources(arguments.data, arguments.landmarks)
    for person in PEOPLE:
        save(blend(person, portraits), arguments.out / f"{person.name}.jpg")
        credits[person.name] = {
            "name": person.title,
            "credit": "A blend of several synthetic portraits; no real person.",
            "origin": "Own render by pipeline.training.gallery from SFHQ-T2I portraits (MIT).",
            "licence": "Apache-2.0",
        }
        logger.info("%s", person.name)
    save(astronaut(), arguments.out / "astronaut.jpg")
    credits["astronaut"] = {
        "name": "Eileen Collins",
        "credit": "NASA, public domain.",
        "origin": "NASA portrait of Eileen Collins, a sample picture of scikit-image; head and shoulders.",
        "licence": "Public domain",
    }
    (arguments.out / "portraits.json").write_text(json.dumps(credits, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
