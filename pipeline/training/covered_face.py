"""Trains the few weights that tell a covered mouth or eye from one to be seen (`pipeline.covered_face`).

Every sample is a portrait's crop, moved, turned, mirrored and recoloured, with things of `face_covers` drawn over it;
the truth is how much of mouth and eyes they cover. What is covered by a part is left out. Prints how many of the
validation portraits' drawings are found, and how often it is wrong.

    python -m pipeline.training.covered_face --data ../shared/data
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
from safetensors.numpy import save_file
from torch import Tensor, nn
from torch.nn import functional
from tqdm import trange

from pipeline.face_mesh import FaceMesh
from pipeline.portrait import PortraitError, crop_face, find_face
from pipeline.training.face_covers import EYES, LIPS, draw_clear_glasses, draw_cover

logger = logging.getLogger(__name__)

# Of the portraits: sunglasses, and tinted ones through which eyes are seen a little.
SUNGLASSES = frozenset(
    f"{split}/{number}"
    for split, numbers in (
        (
            "train",
            "0035 0036 0037 0038 0339 0340 0341 0342 0404 0405 0407 0408 0409 0410 0412 0429 0442 0497 0503 0520",
        ),
        ("train", "0532 0557"),
        ("val", "0411 0484"),
    )
    for number in numbers.split()
)
TINTED = frozenset(("train/0088", "train/0406"))
_COVERED = {"mouth": (0.25, 0.6), "eyes": (0.3, 0.7)}
"""Shares: up to the first it is to be seen, from the second on it is covered."""
_CELL, _HIDDEN, _CELLS = 8, 32, 144


@dataclass(frozen=True, kw_only=True, eq=False)
class Faces:
    """names: SPLIT/NUMBER. crops [N,256,256,3] u8, points [N,468,2]."""

    names: NDArray[np.str_]
    crops: NDArray[np.uint8]
    points: NDArray[np.float64]

    def of(self, split: str) -> Faces:
        chosen = np.char.startswith(self.names, split)
        return Faces(names=self.names[chosen], crops=self.crops[chosen], points=self.points[chosen])


def load(data: Path, cache: Path) -> Faces:
    """The portraits' crops; found once, then kept in `cache`."""
    if not cache.exists():
        names, crops, points = [], [], []
        for path in sorted((data / "portraits").glob("*/*.jpg")):
            picture = Image.open(path).convert("RGB")
            try:
                _, square = find_face(np.asarray(picture))
            except PortraitError as error:
                logger.warning("%s: %s", path.name, error)
                continue
            crop = crop_face(picture, square)
            names.append(f"{path.parent.name}/{path.stem}")
            crops.append(crop)
            points.append(FaceMesh.bundled().look(crop)[1])
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.savez(cache, names=np.array(names), crops=np.stack(crops), points=np.stack(points))
    with np.load(cache) as kept:
        return Faces(names=kept["names"], crops=kept["crops"], points=kept["points"].astype(np.float64))


def draw_samples(
    faces: Faces, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.float16], NDArray[np.float32], NDArray[np.float32]]:
    """Features [N,128,12,12], truth [N,2] (mouth, eyes) and its weight [N,2]."""
    features, truths, weights = [], [], []
    for _ in trange(count, desc="samples", mininterval=10):
        index = rng.integers(len(faces.crops))
        crop, points = _moved(faces.crops[index], faces.points[index], rng)
        size, texture = len(crop), faces.crops[rng.integers(len(faces.crops))]
        kind = rng.random()
        covers = []
        if kind > 0.42:
            covers.append(draw_cover(crop, points, texture, rng))
        elif kind > 0.3:
            covers.append(draw_clear_glasses(points, size, texture, rng))
        if kind > 0.92:
            covers.append(draw_cover(crop, points, texture, rng))
        for cover in covers:
            crop = cover.over(crop)
        mouth = max((cover.share_of(points[LIPS]) for cover in covers), default=0.0)
        eyes = max((cover.share_of(points[eye]) for cover in covers for eye in EYES), default=0.0)
        if faces.names[index] in SUNGLASSES:
            eyes = 1.0
        elif faces.names[index] in TINTED:
            eyes = 0.5
        shares = {"mouth": mouth, "eyes": eyes}
        truths.append([share >= _COVERED[part][1] for part, share in shares.items()])
        weights.append([not _COVERED[part][0] < share < _COVERED[part][1] for part, share in shares.items()])
        features.append(FaceMesh.bundled().features(_recoloured(crop, rng)).astype(np.float16))
    return np.stack(features), np.array(truths, np.float32), np.array(weights, np.float32)


def _moved(
    crop: NDArray[np.uint8], points: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    size = len(crop)
    if rng.random() < 0.5:
        crop = np.ascontiguousarray(crop[:, ::-1])
        points = np.stack([size - 1 - points[:, 0], points[:, 1]], 1)
    matrix = cv2.getRotationMatrix2D(((size - 1) / 2,) * 2, rng.normal(0, 6), rng.uniform(0.88, 1.12))
    matrix[0, 2] += rng.normal(0, 6)
    matrix[1, 2] += rng.normal(0, 6)
    moved = cv2.warpAffine(crop, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.uint8), points @ matrix[:, :2].T + matrix[:, 2]


def _recoloured(crop: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Light, white balance, grey, swapped colours, blur, noise, few shades."""
    pixels = (crop.astype(np.float32) / 255) ** rng.uniform(0.6, 1.6) * rng.uniform(0.7, 1.2)
    pixels = pixels * rng.uniform(0.8, 1.2, 3)
    kind = rng.random()
    if kind < 0.15:
        pixels = np.repeat(pixels.mean(-1, keepdims=True), 3, -1)
    elif kind < 0.25:
        pixels = pixels[..., rng.permutation(3)]
    if rng.random() < 0.3:
        pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.5, 2.5)))
    if rng.random() < 0.2:
        pixels = pixels + rng.normal(0, rng.uniform(0.01, 0.06), pixels.shape)
    if rng.random() < 0.1:
        shades = rng.integers(4, 9)
        pixels = np.round(np.clip(pixels, 0, 1) * shades) / shades
    return np.clip(np.rint(pixels * 255), 0, 255).astype(np.uint8)


def build() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(128, _CELL, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(_CELL * _CELLS, _HIDDEN),
        nn.ReLU(),
        nn.Linear(_HIDDEN, 2),
    )


def train(samples: tuple[Tensor, Tensor, Tensor], mean: Tensor, spread: Tensor, epochs: int) -> nn.Sequential:
    features, truth, weight = samples
    network, batch = build(), 64
    steps = len(features) // batch
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=2e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=epochs * steps + 1)
    for _ in trange(epochs, desc="covered face"):
        order = torch.randperm(len(features))
        for step in range(steps):
            chosen = order[step * batch : (step + 1) * batch]
            seen = network((features[chosen].float() - mean) / spread)
            loss = functional.binary_cross_entropy_with_logits(seen, truth[chosen], weight=weight[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return network.eval()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path("runs/covered_face/crops.npz"))
    parser.add_argument("--out", type=Path, default=Path("pipeline/weights/face/covered_face.safetensors"))
    parser.add_argument("--samples", type=int, default=9000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(arguments.seed)
    rng = np.random.default_rng(arguments.seed)
    faces = load(arguments.data, arguments.cache)
    features, truth, weight = map(torch.from_numpy, draw_samples(faces.of("train"), arguments.samples, rng))
    some = features[:1000].float()
    mean, spread = some.mean((0, 2, 3), keepdim=True), some.std((0, 2, 3), keepdim=True) + 1e-3
    network = train((features, truth, weight), mean, spread, arguments.epochs)
    weights = {"mean": mean.ravel(), "spread": spread.ravel()}
    for name, place in (("cell", 0), ("hidden", 4), ("out", 6)):
        weights[name] = network.get_parameter(f"{place}.weight").flatten(1)
        weights[f"{name}_bias"] = network.get_parameter(f"{place}.bias")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: np.ascontiguousarray(value.detach().numpy(), np.float32) for name, value in weights.items()},
        arguments.out,
    )
    features, truth, weight = map(torch.from_numpy, draw_samples(faces.of("val"), 800, rng))
    with torch.inference_mode():
        seen = network((features.float() - mean) / spread)
    for column, part in enumerate(_COVERED):
        sure = weight[:, column] > 0
        covered, bare = (seen[sure & (truth[:, column] == value), column] for value in (1, 0))
        for limit in (0.0, 1.0, 2.0):
            logger.info(
                "%s, limit %.0f: %.1f %% of %d found, %.1f %% of %d wrongly",
                part, limit, 100 * (covered > limit).float().mean(), len(covered),
                100 * (bare > limit).float().mean(), len(bare),
            )  # fmt: skip


if __name__ == "__main__":
    main()
