"""Trains the small network that finds the canonical square around a face (`pipeline.crop_refiner`).

The truth comes from MediaPipe landmarks of the portraits. Every sample is a portrait rolled, stretched,
mirrored, recoloured and partly covered, framed by a square that misses the canonical one by as much as the
detector may. Prints the error on the validation portraits, starting from the detector's own squares.

    python -m pipeline.training.crop_refiner --data DATA --landmarks runs/landmarks/portraits.npz
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional
from tqdm import trange

from pipeline.crop_refiner import ANALYSED_SIDE_PIXELS, INPUT_PIXELS, CropRefiner, shrunk
from pipeline.face_detector import FaceDetector, Square
from pipeline.portrait import rough_square
from pipeline.training.portrait_fit import canonical_square

logger = logging.getLogger(__name__)

FOREHEAD, CHIN = 10, 152


@dataclass(frozen=True, kw_only=True)
class LabelledPortrait:
    """`picture` [H,W,3] u8 and MediaPipe `landmarks` [478,2] in its pixels."""

    picture: NDArray[np.uint8]
    landmarks: NDArray[np.float32]

    @property
    def square(self) -> Square:
        """The canonical square."""
        left, top, side = canonical_square(self.landmarks)
        return Square(centre_x=left + side / 2, centre_y=top + side / 2, side=side)

    def shrunk(self) -> LabelledPortrait:
        """At the size at which the refiner looks at it."""
        factor = min(1.0, ANALYSED_SIDE_PIXELS / self.square.side)
        return LabelledPortrait(
            picture=shrunk(self.picture, factor), landmarks=self.landmarks * np.float32(factor)
        )


def load(data: Path, landmarks: Path, split: str) -> list[LabelledPortrait]:
    """Portraits of a split (train, val) that have landmarks."""
    archive = np.load(landmarks)
    portraits = []
    for key in sorted(key for key in archive.files if key.startswith(f"{split}/")):
        points = archive[key][0, :, :2].astype(np.float32)
        if np.isfinite(points).all():
            picture = np.asarray(Image.open(data / "portraits" / f"{key}.jpg").convert("RGB"))
            portraits.append(LabelledPortrait(picture=picture, landmarks=points))
    return portraits


def _recolour(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """Light, contrast, white balance, grey, blur, noise and covered parts; [H,W,3] u8 -> 0..1."""
    light = rng.uniform(0.7, 1.2) * rng.uniform(0.85, 1.15, 3)
    levels = (np.arange(256, dtype=np.float32) / 255) ** np.float32(rng.uniform(0.6, 1.6))
    crop = np.asarray(levels[pixels] * light, np.float32)
    if rng.random() < 0.2:
        crop = np.repeat(np.asarray(crop.mean(-1, keepdims=True), np.float32), 3, -1)
    if rng.random() < 0.3:
        crop = np.asarray(cv2.GaussianBlur(crop, (0, 0), rng.uniform(0.5, 2)), np.float32)
    if rng.random() < 0.3:
        crop = crop + rng.standard_normal(crop.shape, np.float32) * np.float32(rng.uniform(0.01, 0.06))
    if rng.random() < 0.3:  # hair, hands, hats
        y, x = rng.integers(0, INPUT_PIXELS, 2)
        height, width = rng.integers(8, 36, 2)
        crop[y : y + height, x : x + width] = rng.uniform(0, 1, 3)
    return np.clip(crop, 0, 1)


def draw(
    portrait: LabelledPortrait, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A crop [96,96,3] in 0..1 and the correction [3] that leads from its square to the canonical one."""
    roll, stretch = rng.normal(0, 0.13), rng.normal(0, 0.06)
    forehead, chin = portrait.landmarks[FOREHEAD, :2], portrait.landmarks[CHIN, :2]
    turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]]) @ np.diag(
        [np.exp(stretch) * (1 if rng.random() < 0.5 else -1), np.exp(-stretch)]
    )
    points = np.stack([forehead, chin]) @ turn.T
    side = 1.75 * np.linalg.norm(points[0] - points[1])
    centre = 0.42 * points[0] + 0.58 * points[1]
    growth = rng.normal(0, 0.1) if rng.random() < 0.8 else rng.normal(0, 0.02)
    spread = 0.05 if rng.random() < 0.8 else 0.01
    shift = rng.normal(0, spread, 2)
    seen_side = side / np.exp(growth)
    seen_centre = centre - shift * seen_side
    scale = INPUT_PIXELS / seen_side
    offset = (seen_side / 2 - seen_centre) * scale + turn.sum(1) * scale / 2 - 0.5  # pixel centres
    matrix = np.concatenate([turn * scale, offset[:, None]], 1)
    size = (INPUT_PIXELS, INPUT_PIXELS)
    pixels = cv2.warpAffine(portrait.picture, matrix, size, borderMode=cv2.BORDER_REPLICATE)
    return _recolour(np.asarray(pixels, np.uint8), rng), np.array([*shift, growth], np.float32)


def evaluate(refiner: CropRefiner, portraits: list[LabelledPortrait]) -> dict[str, float]:
    """Errors in percent of the side, from the detector's squares on whole portraits."""
    detector = FaceDetector()
    shifts, scales, overlaps = [], [], []
    for portrait in portraits:
        truth = portrait.square
        faces = detector.detect(portrait.picture)
        if not faces:
            logger.warning("The detector misses a validation face.")
            continue
        found = refiner.refine(portrait.picture, rough_square(faces[0]))
        shifts.append(
            float(np.hypot(found.centre_x - truth.centre_x, found.centre_y - truth.centre_y)) / truth.side
        )
        scales.append(abs(found.side / truth.side - 1))
        overlaps.append(_intersection_over_union(found, truth))
    return {
        "shift_percent": 100 * float(np.mean(shifts)),
        "shift_p95_percent": 100 * float(np.percentile(shifts, 95)),
        "scale_percent": 100 * float(np.mean(scales)),
        "scale_p95_percent": 100 * float(np.percentile(scales, 95)),
        "iou": float(np.mean(overlaps)),
        "iou_min": float(np.min(overlaps)),
    }


def _intersection_over_union(a: Square, b: Square) -> float:
    width = min(a.left + a.side, b.left + b.side) - max(a.left, b.left)
    height = min(a.top + a.side, b.top + b.side) - max(a.top, b.top)
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (a.side**2 + b.side**2 - shared)


def train(portraits: list[LabelledPortrait], steps: int, batch: int, seed: int) -> CropRefiner:
    """Adam with a cosine schedule on freshly drawn samples."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    refiner = CropRefiner()
    optimiser = torch.optim.AdamW(refiner.parameters(), lr=2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps, pct_start=0.1)
    progress = trange(steps, desc="crop refiner", mininterval=5)
    for step in progress:
        drawn = [draw(portraits[index], rng) for index in rng.integers(0, len(portraits), batch)]
        crops = torch.from_numpy(np.stack([crop for crop, _ in drawn])).permute(0, 3, 1, 2)
        truth = torch.from_numpy(np.stack([correction for _, correction in drawn]))
        loss = functional.smooth_l1_loss(refiner(crops), truth, beta=0.02)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 50 == 0:
            progress.set_postfix(loss=f"{loss.item():.4f}")
    return refiner.eval()


def main() -> None:
    """Trains, prints the validation error, writes the weights."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--landmarks", type=Path, default=Path("runs/landmarks/portraits.npz"))
    parser.add_argument("--out", type=Path, default=Path("pipeline/weights/face/crop_refiner.safetensors"))
    parser.add_argument("--steps", type=int, default=3500)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    portraits = [portrait.shrunk() for portrait in load(arguments.data, arguments.landmarks, "train")]
    refiner = train(portraits, arguments.steps, arguments.batch, arguments.seed)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(refiner.state_dict(), arguments.out)
    errors = evaluate(refiner, load(arguments.data, arguments.landmarks, "val"))
    logger.info("%s", ", ".join(f"{name} {value:.3f}" for name, value in errors.items()))


if __name__ == "__main__":
    main()
