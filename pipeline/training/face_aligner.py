"""Trains the FaceAligner: principal deformations, then one ridge regression per stage of the cascade.

python -m pipeline.training.face_aligner
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from pipeline.autoencoder import identity_grid
from pipeline.drawing.geometry import CROP_PIXELS
from pipeline.face_aligner import OFFSET_PIXELS, SPACINGS, FaceAligner, orientation_maps
from pipeline.training.alignment import FEATURES, align

logger = logging.getLogger(__name__)

# Brows, nose and the outline of the face, beside lips and eyes (MediaPipe's numbering).
OUTLINE = (10, 338, 297, 284, 389, 454, 361, 397, 378, 152, 149, 172, 132, 234, 162, 54, 67, 109)
BROWS_NOSE = (70, 105, 107, 336, 334, 300, 168, 4, 98, 327)


class Views:
    """Portraits as a face detector might crop them: mirrored, shifted, scaled; with what the aligner must find."""

    def __init__(self, runs: Path) -> None:
        self.rgb = np.load(runs / "renders" / "rgb.npy", mmap_mode="r")
        names = [str(name) for name in np.load(runs / "renders" / "names.npy")]
        self.train = [i for i, name in enumerate(names) if not name.startswith("val/")]
        self.held_out = [i for i, name in enumerate(names) if name.startswith("val/")]
        with np.load(runs / "portraits.npz") as archive:
            landmarks = archive["landmarks"]
        self.offset = torch.from_numpy(align(landmarks, runs / "alignment.npz").offset)
        chosen = [*FEATURES, *BROWS_NOSE, *OUTLINE]
        self.points = torch.from_numpy((landmarks[:, chosen] * (1, -1)).astype(np.float32))
        mirrored = self.points.mean(0) * torch.tensor([-1.0, 1.0])
        self.mirror = torch.cdist(mirrored, self.points.mean(0)).argmin(1)

    def view(self, portrait: int, rng: np.random.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        """Crop [1,3,256,256], points [1,S,2] and offset [1,64,64,2]; as it is without a generator."""
        crop = torch.from_numpy(np.array(self.rgb[portrait, :1])).permute(0, 3, 1, 2).float() / 255
        points, offset = self.points[portrait : portrait + 1], self.offset[portrait : portrait + 1]
        if rng is None:
            return crop, points, offset
        flip = torch.tensor([-1.0, 1.0])
        if rng.random() < 0.5:
            crop, offset, points = crop.flip(-1), offset.flip(2) * flip, points[:, self.mirror] * flip
        scale, shift = (
            float(np.exp(rng.normal(0, 0.04))),
            torch.from_numpy(rng.normal(0, 0.03, 2).astype(np.float32)),
        )
        crop = functional.grid_sample(
            crop, identity_grid(CROP_PIXELS, crop) * scale + shift, padding_mode="border", align_corners=False
        )
        new = identity_grid(OFFSET_PIXELS, crop)
        old = new * scale + shift
        moved = functional.grid_sample(
            offset.permute(0, 3, 1, 2), old, padding_mode="border", align_corners=False
        )
        return crop, (points - shift) / scale, old + moved.permute(0, 2, 3, 1) - new


def train(runs: Path, views_per_portrait: int, coefficients: int) -> FaceAligner:
    """The trained aligner; logs the held-out error before and after every stage."""
    views, rng = Views(runs), np.random.default_rng(0)
    aligner = FaceAligner(views.points.shape[1], coefficients)

    def gather(portraits: list[int], count: int) -> tuple[Tensor, Tensor, Tensor]:
        maps, points, offsets = [], [], []
        for portrait in tqdm(portraits, desc="views"):
            for index in range(count):
                crop, point, offset = views.view(portrait, None if index == 0 else rng)
                maps.append(orientation_maps(crop).half())
                points.append(point)
                offsets.append(offset)
        return torch.cat(maps), torch.cat(points), torch.cat(offsets)

    maps, points, offsets = gather(views.train, views_per_portrait)
    held_maps, held_points, held_offsets = gather(views.held_out, 4)
    joint = torch.cat([3 * points.flatten(1), offsets.flatten(1)], 1)
    mean = joint.mean(0)
    _, scales, directions = torch.pca_lowrank(joint - mean, q=coefficients, center=False)
    deviation = scales / len(joint) ** 0.5
    basis = (directions * deviation).T  # coefficients of unit variance
    size = points[0].numel()
    aligner.points.copy_(mean[:size].view(-1, 2) / 3)
    aligner.point_basis.copy_(basis[:, :size] / 3)
    aligner.offset.copy_(mean[size:].view(OFFSET_PIXELS, OFFSET_PIXELS, 2))
    aligner.offset_basis.copy_(basis[:, size:])
    wanted = (joint - mean) @ directions / deviation
    found, held = torch.zeros_like(wanted), torch.zeros(len(held_maps), coefficients)

    def features(source: Tensor, at: Tensor, stage: int) -> Tensor:
        parts = [
            aligner.features(source[i : i + 256].float(), at[i : i + 256], stage)
            for i in range(0, len(source), 256)
        ]
        return torch.cat(parts)

    def error_pixels(at: Tensor) -> float:
        made = aligner.points + (at @ aligner.point_basis).view(len(at), -1, 2)
        return float((made - held_points).norm(dim=-1).mean() * 128)

    truth = torch.cat([3 * held_points.flatten(1), held_offsets.flatten(1)], 1)
    best = (truth - mean) @ directions / deviation
    logger.info("held-out error: %.2f px without, %.2f px at best", error_pixels(held), error_pixels(best))
    for stage in range(len(SPACINGS)):
        x = features(maps, found, stage)
        ridge = 0.02 * len(x) * x[:, :-1].var(0).mean() * torch.eye(x.shape[1])
        weights = torch.linalg.solve(x.T @ x + ridge, x.T @ (wanted - found))
        aligner.stages[stage].copy_(weights)
        found = found + x @ weights
        held = held + features(held_maps, held, stage) @ weights
        logger.info("stage %d: held-out error %.2f px", stage + 1, error_pixels(held))
    return aligner


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--views", type=int, default=7, help="views per portrait")
    parser.add_argument("--coefficients", type=int, default=28)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with torch.inference_mode():
        aligner = train(arguments.runs, arguments.views, arguments.coefficients)
    save_file(aligner.state_dict(), arguments.runs / "face_aligner.safetensors")


if __name__ == "__main__":
    main()
