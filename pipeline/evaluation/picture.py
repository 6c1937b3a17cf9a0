"""Picture measures: sharpness, seams between chunks, colour, identity. Frames are uint8 [T,H,W,3] RGB."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.lips import Floats

# FaceMesh's face oval, in order.
_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip


# FaceMesh's outer lips, in order.
_LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)


def face_mask(landmarks: Floats, height: int, width: int) -> NDArray[np.bool_]:
    """The face [H,W] inside the oval of landmarks [478,2+] in pixels, without the mouth.

    Teeth and the dark behind them are edges that the portrait's closed mouth does not have; they would pass a
    blurred face off as a sharp one, and an open mouth for a change of colour.
    """
    mask, mouth = np.zeros((2, height, width), np.uint8)
    cv2.fillPoly(mask, [np.round(landmarks[list(_OVAL), :2]).astype(np.int32)], 1)
    cv2.fillPoly(mouth, [np.round(landmarks[list(_LIPS), :2]).astype(np.int32)], 1)
    margin = 1 + 2 * round(0.015 * float(np.ptp(landmarks[list(_OVAL), 1])))
    return (mask > cv2.dilate(mouth, np.ones((margin, margin), np.uint8))).astype(bool)


def laplacian_energy(frame: NDArray[np.uint8], mask: NDArray[np.bool_]) -> float:
    """Mean squared Laplacian of the luma inside the mask: fine detail, gone when a picture is blurred."""
    luma = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return float((cv2.Laplacian(luma, cv2.CV_32F)[mask] ** 2).mean())


def face_colour(frame: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean colour [3] inside the mask, 0..255."""
    return np.asarray(frame[mask].mean(0), np.float64)


def colour_drift(first: Floats, last: Floats) -> float:
    """Relative change between the mean colours [N,3] of two stretches of a take: 0.02 is two percent."""
    start, end = np.mean(first, axis=0), np.mean(last, axis=0)
    return float(np.linalg.norm(end - start) / np.linalg.norm(start))


def frame_changes(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean absolute change [T-1] from each frame to the next, in grey levels."""
    return np.array([float(cv2.absdiff(before, after).mean()) for before, after in pairwise(frames)])


def seam_ratio(changes: Floats, hop_frames: int) -> float:
    """Mean change at chunk borders over that inside chunks; 1 is seamless. `changes` [T-1] start at frame 0.

    With a hop of one frame every change is a border, and there is no inside to compare with: ValueError.
    """
    if hop_frames < 2:
        raise ValueError("The seam ratio needs chunks of at least two frames.")
    border = np.arange(1, len(changes) + 1) % hop_frames == 0
    inside = float(np.mean(changes[~border]))
    return float(np.mean(changes[border])) / inside if inside > 0 else 1.0


def identity_distances(embeddings: Floats, reference: Floats) -> NDArray[np.float64]:
    """Euclidean distances [N] of face embeddings [N,128] to the portrait's [128], lost faces left out."""
    found = embeddings[np.isfinite(embeddings).all(1)]
    return np.asarray(np.linalg.norm(found - reference, axis=1), np.float64)
