"""The one face of a picture that a portrait can be made of, and the canonical square around it.

The detector takes hands, collars and muzzles for faces, too; so what it finds is shown to the face mesh, which is
trained on faces alone. How sure that is, and whether both see eyes, nose and mouth in the same places, tells people
(in photographs, paintings, drawings) from the rest. The limits were set on 407 synthetic portraits, with and without
things drawn over their faces, and on some 130 pictures of animals; docs/portraits.md says what came of it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.covered_face import CoveredFace
from pipeline.face_detector import Face, FaceDetector, Square
from pipeline.face_mesh import FaceMesh
from pipeline.picture import PortraitError

MIN_FACE_PIXELS = 72
"""Least height of a face, forehead to chin, in the picture as given."""

# Second faces of less than this share of the largest one's width are in the background.
_RIVAL_WIDTH = 0.5
# Two boxes around one face: their squares' middles are nearer than this share of the side.
_SAME_FACE = 0.4
# Faces are looked for in a picture of at most this many pixels a side.
_SEARCH_PIXELS = 1024
# The rough square from the eyes e (their middle), their distance and the mouth m, fitted to the training
# portraits.
_ROUGH_CENTRE, _ROUGH_EYES_MOUTH, _ROUGH_EYE_DISTANCE = 0.60, 1.74, 2.52
FACE_SHARE = 1 / 1.75
"""Height of the face in the canonical square's side."""

# The mesh's logit for a face: beyond doubt; surely one, if both see about the same
# or the detector is as sure; one, if both are and see the same.
_EVIDENT, _SURE, _LIKELY = 12.0, 7.5, 5.5
_LIKELY_COVERED, _COVERED = 2.0, 6.0  # enough where a covered mouth, with this logit, is what the mesh misses
_SCORE_WEIGHT, _USUAL_SCORE = 30.0, 0.75
_NEAR, _APART = 0.25, 0.35  # in eye distances: what both then see may be as far apart
_LOOKED_AT = (1.0, 0.85, 1.2)  # the squares that the mesh is shown, as multiples
_MESH_PIXELS = 192
# Points of the mesh whose means are the detector's: eyes, tip of the nose, mouth.
_MESH_POINTS = ([33, 133], [362, 263], [1], [13, 14])
# From here on a picture lies on its side.
_LYING_DEGREES = 50.0
_CLEARLY = 2.0  # how much more certain a face must be for the picture to be turned
_ROOM = 0.35
"""Black border, as a share of the longer side, that shows faces which fill their picture to the detector."""


class NoFaceError(PortraitError):
    """No face was found."""


class NotHumanError(PortraitError):
    """Something like a face, but no human one."""


class SeveralFacesError(PortraitError):
    """Several faces of similar size."""


class FaceTooSmallError(PortraitError):
    """The face has too few pixels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundFace:
    """turns: by how many quarters, counter-clockwise, the picture is turned so that the face is upright; `face` and
    `square` are in pixels of the turned picture. certainty: the mesh's logit for a face."""

    face: Face
    square: Square
    certainty: float
    believable: bool
    turns: int = 0

    @property
    def lean_degrees(self) -> float:
        """How far the line from the eyes to the mouth is from pointing down, 0..180."""
        x, y = self.face.points[3] - self.face.points[:2].mean(0)
        return abs(float(np.degrees(np.arctan2(x, y))))

    def scaled(self, factor: float) -> FoundFace:
        return FoundFace(
            face=self.face.scaled(factor),
            square=self.square.scaled(factor),
            certainty=self.certainty,
            believable=self.believable,
            turns=self.turns,
        )


class _FaceFinder:
    """The networks, loaded at first use and shared; the detector serves one thread at a time."""

    def __init__(self) -> None:
        from pipeline.crop_refiner import (
            CropRefiner,
        )  # with torch, which the server's own process stays without

        self._lock = threading.Lock()
        self._detector = FaceDetector()
        self.refiner = CropRefiner.bundled()

    def detect(self, picture: NDArray[np.uint8]) -> list[FoundFace]:
        """All that the detector takes for faces, the largest first."""
        with self._lock:
            faces = self._detector.detect(picture)
        return [self._looked_at(picture, face) for face in faces]

    def _looked_at(self, picture: NDArray[np.uint8], face: Face) -> FoundFace:
        rough = rough_square(face)
        refined = self.refiner.refine(picture, rough)
        best, apart = -np.inf, np.inf
        for square in (refined, rough):
            for factor in _LOOKED_AT:
                seen = Square(centre_x=square.centre_x, centre_y=square.centre_y, side=square.side * factor)
                certainty, points = FaceMesh.bundled().look(_cut(picture, seen))
                if certainty > best:
                    best = certainty
                    points = points * (seen.side / _MESH_PIXELS) + [seen.left, seen.top]
                    apart = _distance(points, face)
                if best >= _EVIDENT:
                    return FoundFace(face=face, square=refined, certainty=best, believable=True)
        likely = best + _SCORE_WEIGHT * (face.score - _USUAL_SCORE)
        sure = best >= _SURE and (apart <= _APART or likely >= _SURE)
        believable = sure or (
            apart <= _NEAR
            and (likely >= _LIKELY or (likely >= _LIKELY_COVERED and _mouth_covered(picture, refined)))
        )
        return FoundFace(face=face, square=refined, certainty=best, believable=believable)


@cache
def _finder() -> _FaceFinder:
    return _FaceFinder()


def find_face(picture: NDArray[np.uint8]) -> tuple[Face, Square]:
    """The only large face in `picture` [H,W,3] as it lies, and its canonical square; raises PortraitError."""
    small, factor = _shrunk(picture)
    found = _chosen(_candidates(small))
    return _large_enough(found.scaled(1 / factor))


def find_upright_face(picture: NDArray[np.uint8]) -> tuple[int, Face, Square]:
    """As `find_face`, but where the face lies on its side or upside down, the picture is turned first, by that many
    quarters counter-clockwise (`turned`)."""
    small, factor = _shrunk(picture)
    best = _candidates(small)
    turns, certainty = 0, _uprightness(best)
    if certainty < _EVIDENT:
        for quarter in (1, 3, 2):
            candidates = _finder().detect(np.ascontiguousarray(np.rot90(small, quarter)))
            if _uprightness(candidates) > max(certainty, _SURE) + _CLEARLY:
                best, turns, certainty = candidates, quarter, _uprightness(candidates)
    found = _chosen(best)
    face, square = _large_enough(found.scaled(1 / factor))
    return turns, face, square


def turned(picture: Image.Image, turns: int) -> Image.Image:
    """By quarters, counter-clockwise."""
    ways = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}
    return picture.transpose(ways[turns]) if turns else picture


def rough_square(face: Face) -> Square:
    """A square near the canonical one, from the detector's points."""
    eyes, mouth = face.points[:2].mean(0), face.points[3]
    centre = eyes + _ROUGH_CENTRE * (mouth - eyes)
    eye_distance = float(np.linalg.norm(face.points[1] - face.points[0]))
    side = _ROUGH_EYES_MOUTH * float(np.linalg.norm(mouth - eyes)) + _ROUGH_EYE_DISTANCE * eye_distance
    return Square(centre_x=float(centre[0]), centre_y=float(centre[1]), side=side)


def _candidates(small: NDArray[np.uint8]) -> list[FoundFace]:
    """What is found in the picture; where nothing is, or nothing that is believed, with room around it."""
    found = _finder().detect(small)
    if any(candidate.believable for candidate in found):
        return found
    room = round(_ROOM * max(small.shape[:2]))
    wider = np.pad(small, ((room, room), (room, room), (0, 0)))
    again = [_moved(candidate, -room) for candidate in _finder().detect(wider)]
    return again if any(candidate.believable for candidate in again) else found


def _uprightness(candidates: list[FoundFace]) -> float:
    """How certain the most certain face is among those that are believed and do not lie."""
    upright = (c.certainty for c in candidates if c.believable and c.lean_degrees < _LYING_DEGREES)
    return max(upright, default=-np.inf)


def _moved(found: FoundFace, by: float) -> FoundFace:
    face, square = found.face, found.square
    return FoundFace(
        face=Face(score=face.score, centre=face.centre + by, size=face.size, points=face.points + by),
        square=Square(centre_x=square.centre_x + by, centre_y=square.centre_y + by, side=square.side),
        certainty=found.certainty,
        believable=found.believable,
    )


def _chosen(candidates: list[FoundFace]) -> FoundFace:
    """The one of them; raises PortraitError where there is none, or are several."""
    if not candidates:
        raise NoFaceError(
            "No face was found in the picture. Use a photo of one person looking at the camera, "
            "well lit, with the whole face in the picture."
        )
    faces = [candidate for candidate in candidates if candidate.believable]
    if not faces:
        raise NotHumanError(
            "No human face was found in the picture: what looks like one may be an animal or a thing. Use a picture "
            "of one person, photographed, painted or drawn, looking at the camera, with eyes and mouth to be seen."
        )
    largest, *others = _beside_the_surest(faces)
    rivals = [
        other
        for other in others
        if other.face.width > _RIVAL_WIDTH * largest.face.width and not _same(other.square, largest.square)
    ]
    if rivals:
        raise SeveralFacesError(
            f"There are {1 + len(rivals)} faces of similar size in the picture; "
            "use one with a single person, or cut the others off."
        )
    return largest


def _beside_the_surest(faces: list[FoundFace]) -> list[FoundFace]:
    """Without those that are believed by themselves and not beside one that is far surer: raised hands, a face on a
    shirt."""
    surest = max(face.certainty for face in faces)
    return [face for face in faces if face.certainty >= min(_SURE, surest / 2)]


def _large_enough(found: FoundFace) -> tuple[Face, Square]:
    face_pixels = found.square.side * FACE_SHARE
    if face_pixels < MIN_FACE_PIXELS:
        raise FaceTooSmallError(
            f"The face is only {face_pixels:.0f} pixels high; "
            f"use a larger or closer picture, in which it has at least {MIN_FACE_PIXELS} pixels."
        )
    return found.face, found.square


def _shrunk(picture: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
    """The picture in which faces are looked for, and how much smaller it is."""
    factor = min(1.0, _SEARCH_PIXELS / max(picture.shape[:2]))
    if factor == 1:
        return picture, 1.0
    size = (max(round(picture.shape[1] * factor), 1), max(round(picture.shape[0] * factor), 1))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX)), factor


def _mouth_covered(picture: NDArray[np.uint8], square: Square) -> bool:
    return CoveredFace.bundled().look(_cut(picture, square)).mouth >= _COVERED


def _same(a: Square, b: Square) -> bool:
    return float(np.hypot(a.centre_x - b.centre_x, a.centre_y - b.centre_y)) < _SAME_FACE * max(
        a.side, b.side
    )


def _distance(points: NDArray[np.float64], face: Face) -> float:
    """Between what the mesh and the detector take for eyes, nose and mouth, in eye distances."""
    seen = np.stack([points[group].mean(0) for group in _MESH_POINTS])
    eyes = float(np.linalg.norm(face.points[1] - face.points[0]))
    return float(np.linalg.norm(seen - face.points[:4], axis=1).mean()) / max(eyes, 1e-6)


def _cut(picture: NDArray[np.uint8], square: Square) -> NDArray[np.uint8]:
    """The square as the mesh sees it [192,192,3]; edges are repeated outside the picture."""
    factor = min(1.0, 1.5 * _MESH_PIXELS / square.side)
    size = (max(round(picture.shape[1] * factor), 1), max(round(picture.shape[0] * factor), 1))
    small = picture if factor == 1 else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    square = square.scaled(factor)
    zoom = _MESH_PIXELS / square.side
    matrix = np.array([[zoom, 0, -square.left * zoom], [0, zoom, -square.top * zoom]])
    matrix[:, 2] += (zoom - 1) / 2  # pixel centres
    size = (_MESH_PIXELS, _MESH_PIXELS)
    return np.asarray(cv2.warpAffine(small, matrix, size, borderMode=cv2.BORDER_REPLICATE), np.uint8)
