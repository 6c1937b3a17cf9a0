"""Fits the ICT-FaceKit head to every training portrait: identity, expression, pose and camera in one optimisation.

Training time only. Input: portraits and their MediaPipe landmarks (`pipeline.training.landmarks`). Output
`runs/portraits.npz`: crops [P,384,384,3] u8 and, per portrait, the fit that `pipeline.training.rig` renders from.

    python -m pipeline.training.portrait_fit --data DATA --landmarks runs/landmarks/portraits.npz
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

logger = logging.getLogger(__name__)

CROP_PIXELS = 384
FOCAL = 3.0
"""Focal length in half crop widths (a field of view of about 37 degrees)."""

# MediaPipe FaceMesh vertex for each of the 68 iBUG landmarks.
IBUG_FROM_MEDIAPIPE = (
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,  # jaw
    71, 63, 105, 66, 107, 336, 296, 334, 293, 301,  # brows
    168, 197, 5, 4, 75, 97, 2, 326, 305,  # nose
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,  # eyes
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,  # outer lips
    78, 82, 13, 312, 308, 317, 14, 87,  # inner lips
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FaceGeometry:
    """ICT-FaceKit Light (USC ICT, MIT): `neutral` [V,3] cm, `identity` [100,V,3], `expression` [57,V,3] deltas."""

    neutral: NDArray[np.float32]
    identity: NDArray[np.float32]
    expression: NDArray[np.float32]
    triangles: NDArray[np.int32]
    names: tuple[str, ...]
    landmarks: NDArray[np.int64]

    @classmethod
    def load(cls, data: Path) -> FaceGeometry:
        """Reads `ict_facekit.npz` and `landmarks_68.json` from the data folder."""
        archive = np.load(data / "ict_facekit.npz")
        landmarks = json.loads((data / "landmarks_68.json").read_text())
        return cls(
            neutral=archive["neutral"].astype(np.float32),
            identity=archive["identity"].astype(np.float32),
            expression=archive["expr"].astype(np.float32),
            triangles=archive["tri"].astype(np.int32),
            names=tuple(str(name) for name in archive["names"]),
            landmarks=np.asarray(landmarks, np.int64),
        )


def canonical_square(landmarks: NDArray[np.float32]) -> tuple[float, float, float]:
    """Left, top and side (pixels) of the crop that every model of this project sees; `landmarks` [478,2+]."""
    forehead, chin = landmarks[10, :2], landmarks[152, :2]
    side = 1.75 * float(np.linalg.norm(forehead - chin))
    centre = 0.42 * forehead + 0.58 * chin
    return float(centre[0] - side / 2), float(centre[1] - side / 2), side


def crop_portrait(image: Image.Image, left: float, top: float, side: float, size: int) -> Image.Image:
    """Cuts the square out of the picture; where it leaves the picture, edge pixels are repeated."""
    pad = int(max(0.0, -left, -top, left + side - image.width, top + side - image.height)) + 2
    padded = Image.fromarray(np.pad(np.asarray(image), ((pad, pad), (pad, pad), (0, 0)), mode="edge"))
    box = (left + pad, top + pad, left + pad + side, top + pad + side)
    return padded.resize((size, size), Image.Resampling.LANCZOS, box=box)


def rotation_matrices(angles: Tensor) -> Tensor:
    """[...,3] yaw, pitch, roll in radians -> [...,3,3], applied as roll * pitch * yaw."""
    yaw, pitch, roll = angles.unbind(-1)
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)
    ry = torch.stack([yaw.cos(), zero, yaw.sin(), zero, one, zero, -yaw.sin(), zero, yaw.cos()], -1)
    rx = torch.stack([one, zero, zero, zero, pitch.cos(), -pitch.sin(), zero, pitch.sin(), pitch.cos()], -1)
    rz = torch.stack([roll.cos(), -roll.sin(), zero, roll.sin(), roll.cos(), zero, zero, zero, one], -1)
    shape = (*angles.shape[:-1], 3, 3)
    return rz.view(shape) @ rx.view(shape) @ ry.view(shape)


def fit_heads(
    geometry: FaceGeometry, points: NDArray[np.float32], steps: int = 600
) -> dict[str, NDArray[np.float32]]:
    """Fits all heads at once with Adam.

    Args:
        points: [P,68,2] landmarks in crop units, x right and y up in [-1,1].

    Returns:
        rotation [P,3] rad, shift [P,2] cm, distance [P] cm, identity [P,100], expression [P,57] (0..1) and
        error [P] (mean landmark distance in crop pixels).
    """
    count = len(points)
    neutral = torch.from_numpy(geometry.neutral[geometry.landmarks])
    identity_basis = torch.from_numpy(geometry.identity[:, geometry.landmarks])
    expression_basis = torch.from_numpy(geometry.expression[:, geometry.landmarks])
    target = torch.from_numpy(points)
    weight = torch.ones(68)
    weight[:17], weight[36:] = 0.25, 1.5
    # The portraits have closed mouths: leave what opens them to the identity's lip line.
    opening = torch.tensor(
        [name.startswith(("jaw", "mouthLowerDown", "mouthUpperUp")) for name in geometry.names]
    )
    rotation = torch.zeros(count, 3, requires_grad=True)
    shift = torch.zeros(count, 2, requires_grad=True)
    log_distance = torch.full((count,), float(np.log(75.0)), requires_grad=True)
    identity = torch.zeros(count, 100, requires_grad=True)
    expression = torch.zeros(count, 57, requires_grad=True)
    pose_group = [
        {"params": [rotation], "lr": 0.02},
        {"params": [shift], "lr": 0.3},
        {"params": [log_distance], "lr": 0.02},
    ]
    shape_group = [{"params": [identity], "lr": 0.0}, {"params": [expression], "lr": 0.0}]
    optimiser = torch.optim.Adam(pose_group + shape_group)
    error = torch.zeros(count)
    for step in range(steps):
        if step == 120:  # pose first, shape once it stands
            optimiser.param_groups[3]["lr"], optimiser.param_groups[4]["lr"] = 0.05, 0.02
        active = expression.clamp(0, 1)
        vertices = (
            neutral
            + torch.einsum("pk,kvc->pvc", identity, identity_basis)
            + torch.einsum("pk,kvc->pvc", active, expression_basis)
        )
        turned = torch.einsum("pij,pvj->pvi", rotation_matrices(rotation), vertices)
        depth = log_distance.exp()[:, None] - turned[..., 2]
        projected = FOCAL * (turned[..., :2] + shift[:, None]) / depth[..., None]
        squared = ((projected - target) ** 2).sum(-1)
        loss = (squared * weight).mean(1).sum() * 400 + identity.square().sum() * 0.004
        loss = (
            loss + active.sum() * 0.02 + (expression - active).square().sum() + active[:, opening].sum() * 0.2
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        error = squared.detach().sqrt().mean(1) * CROP_PIXELS / 2
    return {
        "rotation": rotation.detach().numpy(),
        "shift": shift.detach().numpy(),
        "distance": log_distance.detach().exp().numpy(),
        "identity": identity.detach().numpy(),
        "expression": expression.detach().clamp(0, 1).numpy(),
        "error": error.numpy(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--landmarks", type=Path, default=Path("runs/landmarks/portraits.npz"))
    parser.add_argument("--out", type=Path, default=Path("runs/portraits.npz"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    geometry = FaceGeometry.load(arguments.data)
    archive = np.load(arguments.landmarks)
    names, crops, dense = [], [], []
    for key in sorted(archive.keys()):
        landmarks = archive[key][0]
        if not np.isfinite(landmarks).all():
            logger.warning("%s: no face was tracked, left out", key)
            continue
        left, top, side = canonical_square(landmarks)
        image = Image.open(arguments.data / "portraits" / f"{key}.jpg").convert("RGB")
        crops.append(np.asarray(crop_portrait(image, left, top, side, CROP_PIXELS)))
        unit = (landmarks[:, :2] - (left, top)) / side * 2 - 1
        dense.append((unit * (1, -1)).astype(np.float32))
        names.append(key)
    points = np.stack(dense)
    fit = fit_heads(geometry, points[:, IBUG_FROM_MEDIAPIPE])
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(arguments.out, names=np.array(names), crops=np.stack(crops), landmarks=points, **fit)  # type: ignore[arg-type]
    logger.info(
        "%d portraits, mean landmark error %.2f px of %d", len(names), fit["error"].mean(), CROP_PIXELS
    )


if __name__ == "__main__":
    main()
