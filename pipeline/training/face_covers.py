"""Things that people hold or wear before a face, drawn over a canonical crop: masks, sunglasses, hands, microphones.

Each is drawn around the points of the face mesh, in colours and textures at random, so that what a network learns of
them is that they cover something and not what they look like. Some cover nothing that matters: clear glasses, hats,
scarves below the chin, so that it does not learn "there is something".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

# Points of the mesh: outlines of lips and eyes (the one on the picture's left first), skin of a hand's colour.
LIPS = [61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91]
EYES = ([33, 160, 158, 133, 153, 144], [362, 385, 387, 263, 373, 380])
NOSE_BRIDGE, NOSE_TIP, CHIN, FOREHEAD = 6, 1, 152, 10
_CHEEKS = (50, 280)
_JAW = [234, 132, 172, 136, 150, 152, 379, 365, 397, 361, 454]


@dataclass(frozen=True, kw_only=True, eq=False)
class Cover:
    """shape [S,S] f32: how much of a pixel it covers, 0..1. paint [S,S,3] f32, 0..255."""

    shape: NDArray[np.float32]
    paint: NDArray[np.float32]

    def over(self, crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
        mixed = crop + self.shape[..., None] * (self.paint - crop)
        return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)

    def share_of(self, outline: NDArray[np.float64]) -> float:
        """How much of a polygon [N,2] it covers, 0..1."""
        inside = _filled(outline, len(self.shape)) > 0.5
        return float(self.shape[inside].mean()) if inside.any() else 0.0


def draw_cover(
    crop: NDArray[np.uint8], points: NDArray[np.float64], texture: NDArray[np.uint8], rng: np.random.Generator
) -> Cover:
    """Something over, or near, the face in `crop` [S,S,3] with mesh `points` [468,2]. texture: any picture [S,S,3]."""
    kinds: tuple[Callable[..., NDArray[np.float32]], ...] = (_mask, _glasses, _bar, _blob, _ball, _scarf)
    if rng.random() < 0.3:
        shape, paint = _hand(crop, points, rng)
    else:
        shape = kinds[rng.choice(len(kinds), p=[0.3, 0.25, 0.1, 0.15, 0.15, 0.05])](points, len(crop), rng)
        paint = _painted(texture, rng)
    soft = cv2.GaussianBlur(shape, (0, 0), rng.uniform(0.4, 1.2))
    return Cover(shape=np.asarray(soft, np.float32), paint=np.asarray(paint, np.float32))


def draw_clear_glasses(
    points: NDArray[np.float64], size: int, texture: NDArray[np.uint8], rng: np.random.Generator
) -> Cover:
    """Frames whose lenses one looks through."""
    rims = _lenses(points, size, rng, thickness=int(rng.integers(2, 6)))
    tint = _lenses(points, size, rng) * rng.uniform(0, 0.2)
    return Cover(shape=np.maximum(rims, tint), paint=_painted(texture, rng))


def _mask(points: NDArray[np.float64], size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """From the nose to below the chin, or slipped down to the nostrils."""
    jaw = points[_JAW]
    middle = points[NOSE_TIP]
    jaw = middle + (jaw - middle) * rng.uniform(0.75, 1.12)
    top = points[NOSE_TIP] + rng.uniform(-0.1, 0.95) * (points[NOSE_BRIDGE] - points[NOSE_TIP])
    drop = rng.uniform(-0.1, 0.6) * (points[CHIN] - points[NOSE_BRIDGE])[1] * 0.5
    jaw[[0, -1], 1] = np.maximum(jaw[[0, -1], 1], top[1]) + max(drop, 0) * 0.4
    jaw[1:-1, 1] = np.maximum(jaw[1:-1, 1], top[1])
    return _filled(np.concatenate([jaw, top[None]]), size, rounded=bool(rng.random() < 0.5))


def _lenses(
    points: NDArray[np.float64], size: int, rng: np.random.Generator, thickness: int = -1
) -> NDArray[np.float32]:
    shape = np.zeros((size, size), np.float32)
    eyes = [points[eye].mean(0) for eye in EYES]
    apart = float(np.linalg.norm(eyes[1] - eyes[0]))
    turn = float(np.degrees(np.arctan2(*(eyes[1] - eyes[0])[::-1])))
    width, height = apart * rng.uniform(0.3, 0.5), apart * rng.uniform(0.2, 0.45)
    lower = apart * rng.uniform(-0.05, 0.1)
    round_ones = rng.random() < 0.6
    for eye in eyes:
        centre = (float(eye[0]), float(eye[1] + lower))
        if round_ones:
            cv2.ellipse(shape, (centre, (2 * width, 2 * height), turn), 1.0, thickness, cv2.LINE_AA)
        else:
            box = cv2.boxPoints((centre, (1.8 * width, 1.8 * height), turn))
            cv2.polylines(shape, [np.round(box).astype(np.int32)], True, 1.0, max(thickness, 1), cv2.LINE_AA)
            if thickness < 0:
                cv2.fillConvexPoly(shape, np.round(box).astype(np.int32), 1.0, cv2.LINE_AA)
    ends = [tuple(int(number) for number in eye) for eye in eyes]
    if thickness < 0:
        cv2.line(shape, ends[0], ends[1], 1.0, max(int(0.07 * apart), 2), cv2.LINE_AA)
    return shape


def _glasses(points: NDArray[np.float64], size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Sunglasses: dark enough that no eye is seen."""
    return _lenses(points, size, rng) * np.float32(rng.uniform(0.85, 1.0))


def _bar(points: NDArray[np.float64], size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A bar or a visor over both eyes, or a band over the forehead only."""
    eyes = np.stack([points[eye].mean(0) for eye in EYES])
    apart = float(np.linalg.norm(eyes[1] - eyes[0]))
    middle = eyes.mean(0) + (points[FOREHEAD] - eyes.mean(0)) * (
        rng.uniform(0.6, 1.1) if rng.random() < 0.4 else 0
    )
    turn = float(np.degrees(np.arctan2(*(eyes[1] - eyes[0])[::-1])))
    box = cv2.boxPoints(
        (tuple(map(float, middle)), (apart * rng.uniform(1.7, 2.8), apart * rng.uniform(0.35, 0.8)), turn)
    )
    return _filled(np.asarray(box, np.float64), size)


def _ball(points: NDArray[np.float64], size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A microphone, a cup, a telephone: something round or square before mouth, chin or an eye, often with a stick."""
    shape = np.zeros((size, size), np.float32)
    apart = float(np.linalg.norm(points[263] - points[33]))
    places = [
        points[LIPS].mean(0),
        points[LIPS].mean(0),
        points[CHIN],
        points[EYES[0]].mean(0),
        points[EYES[1]].mean(0),
    ]
    x, y = places[rng.integers(len(places))] + rng.normal(0, 0.08 * apart, 2)
    width, height = apart * rng.uniform(0.3, 0.9), apart * rng.uniform(0.3, 0.9)
    turn = rng.uniform(-40, 40)
    if rng.random() < 0.6:
        cv2.ellipse(shape, ((x, y), (width, height), turn), 1.0, -1, cv2.LINE_AA)
    else:
        box = np.round(cv2.boxPoints(((x, y), (width, height), turn))).astype(np.int32)
        cv2.fillConvexPoly(shape, box, 1.0, cv2.LINE_AA)
    if rng.random() < 0.6:
        end = (int(x + rng.uniform(-0.8, 0.8) * apart), size)
        cv2.line(shape, (int(x), int(y)), end, 1.0, max(int(apart * rng.uniform(0.08, 0.3)), 2), cv2.LINE_AA)
    return shape


def _blob(points: NDArray[np.float64], size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Anything anywhere."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(5, 10)))
    radius = size * rng.uniform(0.06, 0.24) * rng.uniform(0.6, 1.2, len(angles))
    centre = points[rng.integers(len(points))] + rng.normal(0, 0.05 * size, 2)
    outline = centre + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    return _filled(outline, size, rounded=True)


def _scarf(points: NDArray[np.float64], size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """All below a line: at the nose, or at the chin."""
    height = points[NOSE_TIP, 1] if rng.random() < 0.5 else points[CHIN, 1]
    height += rng.uniform(-0.03, 0.06) * size
    left, right = height + rng.uniform(-0.06, 0.06, 2) * size
    return _filled(np.array([[-1, left], [size / 2, height], [size, right], [size, size], [-1, size]]), size)


def _hand(
    crop: NDArray[np.uint8], points: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fingers side by side, shaded at their edges, in the face's own colour or about it."""
    size = len(crop)
    apart = float(np.linalg.norm(points[263] - points[33]))
    mouth = points[LIPS].mean(0)
    places = [
        mouth,
        mouth,
        mouth,
        points[CHIN],
        points[EYES[0]].mean(0),
        points[EYES[1]].mean(0),
        points[NOSE_BRIDGE],
    ]
    tip = places[rng.integers(len(places))] + rng.normal(0, 0.12 * apart, 2)
    turn = rng.uniform(-1.4, 1.4) if rng.random() < 0.7 else rng.uniform(-0.3, 0.3)
    along = np.array([np.sin(turn), np.cos(turn)])
    across = np.array([along[1], -along[0]])
    width = apart * rng.uniform(0.16, 0.27)
    cheek = np.clip(points[_CHEEKS[rng.integers(2)]], 2, size - 3).astype(int)
    skin = crop[cheek[1] - 2 : cheek[1] + 3, cheek[0] - 2 : cheek[0] + 3].reshape(-1, 3).mean(0)
    skin = np.clip(skin * rng.uniform(0.75, 1.2) + rng.normal(0, 10, 3), 0, 255)
    shape = np.zeros((size, size), np.float32)
    paint = np.tile(np.asarray(skin, np.float32), (size, size, 1))
    count = int(rng.integers(2, 6))
    for finger in rng.permutation(count):
        begin = tip + across * width * 1.05 * (finger - (count - 1) / 2) - along * width * rng.uniform(0, 1.2)
        one = np.zeros((size, size), np.float32)
        end = begin + along * apart * rng.uniform(1.2, 3)
        ends = [tuple(int(number) for number in end_) for end_ in (begin, end)]
        cv2.line(one, ends[0], ends[1], 1.0, max(int(width), 2), cv2.LINE_AA)
        depth = cv2.GaussianBlur(one, (0, 0), max(width / 4, 0.5))
        light = (0.6 + 0.5 * np.clip(depth, 0, 1)) * rng.uniform(0.92, 1.08)
        paint = np.asarray(np.where(one[..., None] > 0.5, light[..., None] * skin, paint), np.float32)
        shape = np.maximum(shape, one)
    noisy = paint + rng.normal(0, rng.uniform(0, 5), (size, size, 1))
    return shape, np.asarray(np.clip(noisy, 0, 255), np.float32)


def _painted(texture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """A plain colour, stripes, another picture; lit from one side, noisy."""
    size = len(texture)
    colour = (
        rng.uniform(0, 255, 3)
        if rng.random() < 0.5
        else np.full(3, rng.choice([10, 30, 60, 200, 245])) + rng.normal(0, 8, 3)
    )
    paint = np.tile(np.asarray(colour, np.float32), (size, size, 1))
    y, x = np.mgrid[0:size, 0:size] / size
    kind = rng.random()
    if kind < 0.2:
        zoom = int(rng.integers(24, size // 2))
        left, top = rng.integers(0, size - zoom, 2)
        part = cv2.resize(texture[top : top + zoom, left : left + zoom], (size, size))
        paint = np.asarray(part, np.float32)
    elif kind < 0.45:
        angle = rng.uniform(0, np.pi)
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * rng.uniform(20, 200))
        paint = np.asarray(paint * (1 + rng.uniform(0.03, 0.3) * wave[..., None]), np.float32)
    slope = rng.uniform(-0.5, 0.5, 2)
    light = (1 + slope[0] * (x - 0.5) + slope[1] * (y - 0.5))[..., None]
    return np.asarray(paint * light + rng.normal(0, rng.uniform(0, 8), (size, size, 1)), np.float32)


def _filled(outline: NDArray[np.floating], size: int, *, rounded: bool = False) -> NDArray[np.float32]:
    """A polygon [N,2] in a picture of `size`, its corners rounded."""
    shape = np.zeros((size, size), np.float32)
    cv2.fillPoly(shape, [np.round(outline * 16).astype(np.int32)], 1.0, cv2.LINE_AA, 4)
    if rounded:
        blurred = cv2.GaussianBlur(shape, (0, 0), size / 40)
        return np.asarray(np.clip((blurred - 0.5) * 8 + 0.5, 0, 1), np.float32)
    return shape
