"""The motion latent's basis: the directions in which faces visibly move, most visible first.

A rig motion m [62] is mapped linearly to a latent z [D]: principal components of the vertex displacements that the
motions cause (lips and lids weighted up), then the head pose. Components are partly whitened, so that small but
telling motions are not drowned. z = 0 is the portrait at rest. Training time only: the product gets z from the
denoiser (speech) or from the MotionEncoder (pixels).

    python -m pipeline.training.motion_basis --data DATA
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from pipeline.training.portrait_fit import FaceGeometry
from pipeline.training.render import MotionSampler

logger = logging.getLogger(__name__)

POSE_SCALE = np.array([0.085, 0.06, 0.045, 0.2, 0.2], np.float32)


def expression_metric(geometry: FaceGeometry) -> NDArray[np.float32]:
    """[57, N] displacement of face vertices per unit of expression; lips and lids count fivefold."""
    neutral, landmarks = geometry.neutral, geometry.landmarks
    vertices = np.arange(0, 6706, 3)
    weight = np.ones(len(vertices), np.float32)
    for group, reach in ((landmarks[48:68], 0.9), (landmarks[36:48], 0.7)):
        distance = np.linalg.norm(neutral[vertices][:, None] - neutral[group][None], axis=-1).min(1)
        weight[distance < reach] = 5.0
    # Motion towards the camera is hardly seen.
    delta = (
        geometry.expression[:, vertices] * np.array([1, 1, 0.35], np.float32) * np.sqrt(weight)[None, :, None]
    )
    return (delta.reshape(57, -1) / np.sqrt(weight.sum())).astype(np.float32)


def build_basis(
    geometry: FaceGeometry, motions: NDArray[np.float32], latent_size: int
) -> dict[str, NDArray[np.float32] | int]:
    """The archive `runs/basis.npz` from motions [N,62]; see CONTRIBUTING for its fields."""
    metric = expression_metric(geometry)
    count = latent_size - len(POSE_SIZE_AXES)
    expression = motions[:, :57]
    displacement = metric @ metric.T  # [57,57]
    covariance = expression.T @ expression / len(expression) + 1e-4 * np.eye(57)
    values, vectors = np.linalg.eigh(displacement + 1e-9 * np.eye(57))
    root = vectors @ np.diag(np.sqrt(np.clip(values, 0, None))) @ vectors.T
    power, directions = np.linalg.eigh(root @ covariance @ root)
    order = np.argsort(power)[::-1][:count]
    deviation = np.sqrt(power[order])
    project = root @ directions[:, order]  # [57,count]
    scale = np.sqrt(deviation * deviation[0])
    encode = np.zeros((62, latent_size), np.float32)
    encode[:57, :count] = project / scale
    encode[57:, count:] = np.diag(1 / POSE_SCALE)
    latents = motions @ encode
    # The most likely motion for a latent: least squares over the motions themselves.
    decode = np.zeros((latent_size, 62), np.float32)
    gram = latents[:, :count].T @ latents[:, :count] + 1e-4 * len(latents) * np.eye(count)
    decode[:count, :57] = np.linalg.solve(gram, latents[:, :count].T @ expression)
    decode[count:, 57:] = np.diag(POSE_SCALE)
    explained = power[order].sum() / power.sum()
    logger.info("%d expression components explain %.2f %% of the visible motion", count, 100 * explained)
    return with_gaps(geometry, motions, encode, decode)


def with_gaps(
    geometry: FaceGeometry,
    motions: NDArray[np.float32],
    encode: NDArray[np.float32],
    decode: NDArray[np.float32],
) -> dict[str, NDArray[np.float32] | int]:
    """The archive for a basis that stands already: lip and lid gap as functions of its latents, from motions [N,62]."""
    latent_size = encode.shape[1]
    count = latent_size - len(POSE_SIZE_AXES)
    expression, latents = motions[:, :57], motions @ encode
    height = (
        float(geometry.neutral[geometry.landmarks[27], 1] - geometry.neutral[geometry.landmarks[8], 1]) * 1.45
    )

    def linear_gap(upper: int, lower: int) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
        """Gap between two landmarks over the face height as a linear function of the latent."""
        difference = (
            geometry.expression[:, geometry.landmarks[upper]]
            - geometry.expression[:, geometry.landmarks[lower]]
        )
        gap = expression @ difference[:, 1] / height
        design = np.concatenate([latents[:, :count], np.ones((len(latents), 1), np.float32)], 1)
        solution = np.linalg.lstsq(design, gap, rcond=None)[0]
        row = np.zeros(latent_size, np.float32)
        row[:count] = solution[:count]
        residual = float(np.std(design @ solution - gap) / np.std(gap))
        return row, np.float32(solution[count]), residual  # type: ignore[return-value]

    aperture, aperture_bias, aperture_error = linear_gap(62, 66)
    eye_gap, eye_bias, eye_error = linear_gap(38, 40)
    logger.info("relative error of the linear lip gap %.3f, of the eye gap %.3f", aperture_error, eye_error)
    return {
        "encode": encode, "mean": np.zeros(62, np.float32), "decode": decode, "n_expression": count,
        "aperture": aperture, "aperture_bias": aperture_bias, "eye_gap": eye_gap, "eye_gap_bias": eye_bias,
        "latent_std": latents.std(0),
    }  # fmt: skip


POSE_SIZE_AXES = ("yaw", "pitch", "roll", "shift_x", "shift_y")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/basis.npz"))
    parser.add_argument("--recorded", type=Path, default=Path("runs/motion/grid_train.npz"))
    parser.add_argument("--latent-size", type=int, default=40)
    parser.add_argument(
        "--keep", type=Path, help="a model's motion_basis.safetensors: train parts of that model again"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    geometry = FaceGeometry.load(arguments.data)
    recorded = None
    if arguments.recorded.exists():
        archive = np.load(arguments.recorded)
        recorded = archive["motion"][archive["valid"]]
    sampler, rng = MotionSampler(geometry.names, recorded), np.random.default_rng(0)
    motions = np.stack([sampler.draw(rng) for _ in range(20000)])
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    if arguments.keep:
        kept = load_file(arguments.keep)
        basis = with_gaps(geometry, motions, kept["encode"], kept["decode"])
    else:
        basis = build_basis(geometry, motions, arguments.latent_size)
    np.savez(arguments.out, **basis)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
