"""Portraits as people have them, made from clean ones by image operations: art, light, quality, things in the way.

Pictures are uint8 [H,W,3] RGB; every operation keeps the size.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]


def pencil(picture: Picture) -> Picture:
    """A grey drawing: the picture divided by its own blur (colour dodge)."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    soft = cv2.GaussianBlur(255 - grey, (0, 0), max(picture.shape) / 80)
    drawn = np.clip(grey * 255 / np.maximum(255 - soft, 1), 0, 255)
    return np.repeat(drawn[:, :, None], 3, 2).astype(np.uint8)


def ink(picture: Picture) -> Picture:
    """Black lines and flat white: what an adaptive threshold leaves."""
    grey = cv2.medianBlur(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), 5)
    block = max(picture.shape) // 40 * 2 + 1
    lines = cv2.adaptiveThreshold(grey, 255, cv2.ADAPTIVE_THRESH_GAUSSIAN_C, cv2.THRESH_BINARY, block, 4)
    return np.repeat(np.asarray(lines, np.uint8)[:, :, None], 3, 2)


def oil(picture: Picture, radius: int = 4, levels: int = 12) -> Picture:
    """Oil paint: each pixel takes the mean colour of the commonest brightness around it (Kuwahara's idea)."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.int32) * levels // 256
    best = np.zeros(grey.shape, np.float32)
    out = np.zeros(picture.shape, np.float32)
    size = (2 * radius + 1, 2 * radius + 1)
    for level in range(levels):
        chosen = (grey == level).astype(np.float32)
        count = cv2.boxFilter(chosen, -1, size, normalize=False)
        total = cv2.boxFilter(picture * chosen[:, :, None], cv2.CV_32F, size, normalize=False)
        wins = count > best
        out[wins] = (total / np.maximum(count, 1)[:, :, None])[wins]
        best = np.maximum(best, count)
    return out.astype(np.uint8)


def cartoon(picture: Picture) -> Picture:
    """Flat colours with dark outlines."""
    flat = picture
    for _ in range(4):
        flat = np.asarray(cv2.bilateralFilter(flat, 9, 40, 9), np.uint8)
    flat = (flat // 32 * 32 + 16).astype(np.uint8)
    return np.where(ink(picture) > 0, flat, flat // 4).astype(np.uint8)


def gamma(picture: Picture, power: float) -> Picture:
    """A power above 1 darkens: 3.3 is what a camera makes of a room without light."""
    return np.asarray(255 * (picture / 255.0) ** power, np.uint8)


def side_light(picture: Picture) -> Picture:
    """Light from the left only: the right side of the face keeps a sixth of it."""
    ramp = 1 / (1 + np.exp((np.linspace(0, 1, picture.shape[1]) - 0.5) * 12))
    return np.asarray(picture * (0.16 + 0.84 * ramp)[None, :, None], np.uint8)


def old_photo(picture: Picture) -> Picture:
    """Grey-brown, low contrast, grain."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    grain = np.random.default_rng(0).normal(0, 12, grey.shape)
    toned = 60 + 0.55 * grey + grain
    return np.asarray(np.clip(toned[:, :, None] * np.array([1.05, 0.95, 0.78]), 0, 255), np.uint8)


def grey(picture: Picture) -> Picture:
    return np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[:, :, None], 3, 2)


def small(picture: Picture) -> Picture:
    """Hardly any pixels: shrunk to a fifth and enlarged again."""
    height, width = picture.shape[:2]
    tiny = cv2.resize(picture, (width // 5, height // 5), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(tiny, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def jpeg(picture: Picture) -> Picture:
    """As a messenger sends it: JPEG at quality 12."""
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 12]
    )
    assert done
    back = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(back[:, :, ::-1], np.uint8)


def tilted(picture: Picture, degrees: float = 15.0) -> Picture:
    """The head, and all with it, leaning to a side."""
    height, width = picture.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    return np.asarray(cv2.warpAffine(picture, turn, (width, height), borderMode=cv2.BORDER_REFLECT), np.uint8)


def glasses(picture: Picture, eyes: NDArray[np.float32]) -> Picture:
    """Dark-rimmed spectacles with a reflection; `eyes` [2,2]: the middle of each eye, x first, in pixels."""
    out, apart = picture.copy(), float(np.linalg.norm(eyes[1] - eyes[0]))
    radius, rim = round(0.36 * apart), max(2, round(0.05 * apart))
    places = [(round(float(x)), round(float(y) + 0.04 * apart)) for x, y in eyes]
    shine = out.copy()
    for x, y in places:
        cv2.circle(shine, (x - radius // 3, y - radius // 3), radius // 2, (255, 255, 255), -1, cv2.LINE_AA)
    out = np.asarray(cv2.addWeighted(out, 0.75, shine, 0.25, 0), np.uint8)
    for x, y in places:
        cv2.circle(out, (x, y), radius, (25, 20, 20), rim, cv2.LINE_AA)
    (x0, y0), (x1, y1) = sorted(places)
    cv2.line(out, (x0 + radius, y0), (x1 - radius, y1), (25, 20, 20), rim, cv2.LINE_AA)
    return out


CHANGES: dict[str, Callable[[Picture], Picture]] = {
    "as it is": lambda picture: picture,
    "pencil": pencil,
    "ink": ink,
    "oil": oil,
    "cartoon": cartoon,
    "dark (gamma 3.3)": lambda picture: gamma(picture, 3.3),
    "pale (gamma 0.3)": lambda picture: gamma(picture, 0.3),
    "side light": side_light,
    "grey": grey,
    "old photo": old_photo,
    "few pixels": small,
    "JPEG 12": jpeg,
    "tilted 15°": tilted,
}
