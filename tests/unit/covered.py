"""Things drawn over a portrait's face, around what the detector finds: [eye, eye, nose, mouth] and their distance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from pipeline.portrait import find_face


def drawn(picture: Image.Image, thing: Callable[..., None], **colours: object) -> Image.Image:
    face, _ = find_face(np.asarray(picture))
    left, right, nose, mouth = face.points[:4]
    covered = picture.copy()
    thing(ImageDraw.Draw(covered), left, right, nose, mouth, float(np.linalg.norm(right - left)), **colours)
    return covered


def sunglasses(draw, left, right, nose, mouth, apart, colour=(15, 15, 18)) -> None:  # type: ignore[no-untyped-def]
    for x, y in (left, right):
        draw.ellipse([x - 0.42 * apart, y - 0.3 * apart, x + 0.42 * apart, y + 0.38 * apart], fill=colour)
    draw.line([tuple(left), tuple(right)], fill=colour, width=int(0.08 * apart))


def mask(draw, left, right, nose, mouth, apart, colour=(160, 200, 220)) -> None:  # type: ignore[no-untyped-def]
    top, bottom = nose[1] - 0.15 * apart, mouth[1]
    draw.polygon(
        [
            (left[0] - 0.55 * apart, top),
            (nose[0], nose[1] - 0.35 * apart),
            (right[0] + 0.55 * apart, top),
            (right[0] + 0.35 * apart, bottom + 0.6 * apart),
            (mouth[0], bottom + 0.95 * apart),
            (left[0] - 0.35 * apart, bottom + 0.6 * apart),
        ],
        fill=colour,
    )


def microphone(draw, left, right, nose, mouth, apart, colour=(30, 30, 30)) -> None:  # type: ignore[no-untyped-def]
    x, y = mouth
    draw.ellipse([x - 0.45 * apart, y - 0.35 * apart, x + 0.45 * apart, y + 0.6 * apart], fill=colour)
    draw.rectangle([x - 0.15 * apart, y + 0.5 * apart, x + 0.15 * apart, y + 3 * apart], fill=(60, 60, 60))


def hand(draw, left, right, nose, mouth, apart, colour=(205, 160, 135)) -> None:  # type: ignore[no-untyped-def]
    x, y = mouth
    for finger in range(5):
        first = x + (0.35 * finger - 0.9) * apart
        box = [first, y - 0.25 * apart, first + 0.28 * apart, y + 2 * apart]
        draw.rounded_rectangle(box, radius=int(0.14 * apart), fill=colour)
