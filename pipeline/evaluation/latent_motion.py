"""Measures on motion latents [T,D]: distance of distributions, and the direction that opens the mouth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.lips import Floats


def frechet_distance(first: Floats, second: Floats) -> float:
    """Frechet distance between Gaussians fitted to two sets of latents [N,D] (the formula behind FID)."""
    covariances = [np.atleast_2d(np.cov(x, rowvar=False)) for x in (first, second)]
    values, vectors = np.linalg.eigh(covariances[0])
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ covariances[1] @ root), 0, None)).sum()
    apart = first.mean(0) - second.mean(0)
    return float(apart @ apart + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * cross)


@dataclass(frozen=True, kw_only=True)
class MouthOpening:
    """The straight line in latent space along which a model's mouth opens.

    `direction` [D]: mean change of the latent per unit of aperture. `rest`: aperture where the line starts.
    `wide`: an aperture that the model reaches with its mouth wide open. `fit`: share of the aperture's
    variance that is linear in the latent.
    """

    direction: NDArray[np.float64]
    rest: float
    wide: float
    fit: float


def find_mouth_opening(latents: Floats, apertures: Floats, pose_size: int) -> MouthOpening:
    """Regresses latents [N,D] on the judged apertures [N]; the pose (last `pose_size` numbers) stays out."""
    centred = apertures - apertures.mean()
    variance = float(np.mean(centred**2))
    if variance < 1e-12:
        raise ValueError(
            "The mouth never moves in these takes, so the direction that opens it cannot be found."
        )
    direction = (latents - latents.mean(0)).T @ centred / len(centred) / variance
    direction[len(direction) - pose_size :] = 0.0
    design = np.concatenate([latents, np.ones((len(latents), 1))], axis=1)
    predicted = design @ np.linalg.lstsq(design, apertures, rcond=None)[0]
    fit = 1 - float(np.mean((apertures - predicted) ** 2)) / variance
    rest, wide = np.percentile(apertures, [5, 97])
    return MouthOpening(direction=direction, rest=float(rest), wide=float(wide), fit=fit)


def loudness(pcm: NDArray[np.float32], samples_per_frame: int) -> NDArray[np.float64]:
    """How loud each video frame is [T], 0 (40 dB below the loudest, or silent) to 1."""
    frames = pcm[: len(pcm) // samples_per_frame * samples_per_frame].reshape(-1, samples_per_frame)
    level_db = 20 * np.log10(np.sqrt((frames.astype(np.float64) ** 2).mean(1)) + 1e-6)
    loudest = max(float(np.percentile(level_db, 98)), -50.0)
    return np.asarray(np.clip(1 + (level_db - loudest) / 40, 0, 1), np.float64)
