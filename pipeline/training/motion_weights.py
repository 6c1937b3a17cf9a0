"""Learns with which weights anchor frames add up to any frame, from the products that `anchors` has kept.

The squared error of any weights w, over all pixels of a frame, is |out(z)|^2 - 2 w.<out(z), anchors> + w'<anchors,
anchors>w: so no picture is needed. Weights are learned in coordinates in which the anchors of the mean portrait stand
at right angles (whitened), where that is nearly a plain regression. One small network for the grid, one for the mouth.

Writes `drawing.safetensors` into the model's folder and prints how far off it is, on portraits and sounds that nothing
was fitted to, beside the least that any weights of these anchors could reach (`floor`).

    python -m pipeline.training.motion_weights
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import trange

from pipeline import checkpoint
from pipeline.autoencoder import FrameDecoder
from pipeline.drawing import DrawingModel
from pipeline.face_preparation import laid_on
from pipeline.training.settings import load_settings

logger = logging.getLogger(__name__)

UNITS = {"grid": "pixels of the grid", "mouth": "levels of 255"}


@dataclass(frozen=True)
class MotionWeightsSettings:
    """configs/train/motion_weights.yaml.

    anchors: how many of the first ones are used. average: how much of the averaged weights a step keeps. width: of the
    hidden layers. kept: eigenvalues of the anchors' products above this share of the largest.
    """

    anchors: int
    steps: int
    portraits_per_batch: int
    motions_per_portrait: int
    learning_rate: float
    weight_decay: float
    average: float
    width_grid: int
    width_mouth: int
    kept_grid: float
    kept_mouth: float
    limit: float
    seed: int
    threads: int


@dataclass(frozen=True, eq=False)
class Products:
    """Of P portraits with N motions each, one part, whitened: changes [P,N,D], b [P,N,K] of motions with anchors, a
    [P,K,K] of anchors with each other, sizes [P,N] of motions with themselves."""

    changes_PND: Tensor
    b_PNK: Tensor
    a_PKK: Tensor
    sizes_PN: Tensor

    def error(self, c_PNK: Tensor, portraits: Tensor | slice, motions: Tensor | slice) -> Tensor:
        """Mean squared error [P,N] over all pixels of these weights."""
        cross = (c_PNK * _pick(self.b_PNK, portraits, motions)).sum(-1)
        own = ((c_PNK @ self.a_PKK[portraits]) * c_PNK).sum(-1)
        return _pick(self.sizes_PN, portraits, motions) - 2 * cross + own

    def floor(self) -> Tensor:
        """The least error [P,N] that any weights reach, each portrait and motion with its own."""
        eye = 1e-5 * torch.eye(self.a_PKK.shape[1])
        # One by one: with several threads, MKL fails at batches of these.
        inverse = torch.stack([torch.linalg.inv((a_KK + eye).double()) for a_KK in self.a_PKK])
        best = self.b_PNK @ inverse.float()
        return self.error(best, slice(None), slice(None))


def _pick(x: Tensor, portraits: Tensor | slice, motions: Tensor | slice) -> Tensor:
    if isinstance(portraits, Tensor) and isinstance(motions, Tensor):
        return x[portraits[:, None], motions]
    return x[portraits, motions]


def whitening(gram_MM: Tensor, kept: float) -> Tensor:
    """[M,K]: mixtures of the anchors that stand at right angles and show 1 each."""
    values, vectors = torch.linalg.eigh(gram_MM.double())
    keep = values > values.max() * kept
    return (vectors[:, keep] / values[keep].sqrt()).flip(1).float()


def load(folder: Path, part: str, anchors: int, kept: float) -> tuple[Products, Products, Tensor]:
    """Of the portraits to learn from, of the held-out ones, and the whitening [M,K] of the first `anchors`."""
    files = {split: sorted((folder / "portraits").glob(f"{split}-*.npz")) for split in ("train", "val")}
    found: dict[str, list[tuple[Tensor, ...]]] = {}
    for split, paths in files.items():
        for path in paths:
            with np.load(path) as file:
                names = ("changes", f"{part}_az", f"{part}_aa", f"{part}_zz")
                changes, az, aa, zz = (torch.from_numpy(file[name]) for name in names)
                found.setdefault(split, []).append((changes, az[:, :anchors], aa[:anchors, :anchors], zz))
    whiten_MK = whitening(torch.stack([aa for _, _, aa, _ in found["train"]]).mean(0), kept)

    def gathered(split: str) -> Products:
        changes, az, aa, zz = (torch.stack(values) for values in zip(*found[split], strict=True))
        return Products(changes, az @ whiten_MK, whiten_MK.T @ aa @ whiten_MK, zz)

    return gathered("train"), gathered("val"), whiten_MK


class Weights(nn.Module):
    """Scaled change of the latent [...,D] to whitened weights [...,K]: an MLP beside a straight line."""

    def __init__(self, inputs: int, outputs: int, width: int) -> None:
        super().__init__()
        self.enter, self.bend = nn.Linear(inputs, width), nn.Linear(width, width)
        self.leave, self.straight = nn.Linear(width, outputs), nn.Linear(inputs, outputs)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.silu(self.bend(nn.functional.silu(self.enter(x))))
        out: Tensor = self.leave(h) + self.straight(x)
        return out

    def tensors(self, part: str) -> dict[str, Tensor]:
        """As `pipeline.drawing.motion_weights.Perceptron` reads them."""
        found: dict[str, Tensor] = {}
        for index, layer in enumerate((self.enter, self.bend, self.leave, self.straight)):
            found |= {f"{part}.{index}.weight": layer.weight, f"{part}.{index}.bias": layer.bias}
        return {name: value.detach() for name, value in found.items()}


@dataclass(frozen=True, eq=False)
class Scaling:
    mean_D: Tensor
    spread_D: Tensor
    limit: float

    def __call__(self, changes: Tensor) -> Tensor:
        return ((changes - self.mean_D) / self.spread_D).clamp(-self.limit, self.limit)


def learn(
    part: str,
    known: Products,
    held_out: Products,
    scaling: Scaling,
    width: int,
    settings: MotionWeightsSettings,
) -> Weights:
    """The averaged network."""
    torch.manual_seed(settings.seed)
    sizes = known.changes_PND.shape[-1], known.b_PNK.shape[-1], width
    network, averaged = Weights(*sizes), Weights(*sizes)
    averaged.load_state_dict(network.state_dict())
    optimiser = torch.optim.AdamW(
        network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.steps, pct_start=0.1
    )
    unit = known.sizes_PN.mean()
    count, motions = known.sizes_PN.shape
    for step in trange(settings.steps, desc=part, mininterval=10):
        portraits = torch.randint(count, (settings.portraits_per_batch,))
        chosen = torch.randint(motions, (settings.portraits_per_batch, settings.motions_per_portrait))
        c = network(scaling(known.changes_PND[portraits[:, None], chosen]))
        loss = known.error(c, portraits, chosen).mean() / unit
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            for kept, new in zip(averaged.parameters(), network.parameters(), strict=True):
                kept.lerp_(new, 1 - settings.average)
        if (step + 1) % max(settings.steps // 5, 1) == 0:
            report(part, averaged, {"known": known, "held out": held_out}, scaling)
    return averaged


@torch.no_grad()
def report(part: str, network: Weights, data: dict[str, Products], scaling: Scaling) -> None:
    for name, products in data.items():
        error_PN = products.error(network(scaling(products.changes_PND)), slice(None), slice(None))
        worst = error_PN.clamp_min(0).flatten().quantile(0.999).sqrt()
        logger.info(
            "%s, %s: off by %.4f (of 1000 frames the worst: %.4f), floor %.4f, of %.3f %s",
            part, name, error_PN.mean().clamp_min(0).sqrt(), worst,
            products.floor().mean().clamp_min(0).sqrt(), products.sizes_PN.mean().sqrt(), UNITS[part],
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--config", type=Path, default=Path("configs/train/motion_weights.yaml"))
    parser.add_argument("--model", default="portrait_256", help="a bundled model's name or a model folder")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = load_settings(MotionWeightsSettings, arguments.config)
    torch.set_num_threads(settings.threads)
    gathered, folder = arguments.runs / "anchors", checkpoint.resolve(arguments.model)
    with np.load(gathered / "motions.npz") as file:
        changes = torch.from_numpy(file["train"])
    scaling = Scaling(changes.mean(0), changes.std(0) + 1e-3, settings.limit)
    with np.load(gathered / "anchors.npz") as file:
        tensors = {"anchors": torch.from_numpy(file["anchors"][: settings.anchors])}
    tensors |= {"mean": scaling.mean_D, "spread": scaling.spread_D, "limit": torch.tensor(scaling.limit)}
    for part in ("grid", "mouth"):
        kept = getattr(settings, f"kept_{part}")
        known, held_out, tensors[f"{part}.whiten"] = load(gathered, part, settings.anchors, kept)
        width = getattr(settings, f"width_{part}")
        tensors |= learn(part, known, held_out, scaling, width, settings).tensors(part)
    found = {name: tensor.numpy() for name, tensor in tensors.items()}
    decoder = FrameDecoder.from_pretrained(folder / "frame_decoder", low_cpu_mem_usage=False)
    DrawingModel(found | laid_on(decoder)).save(folder)
    checkpoint.write_sums(folder)


if __name__ == "__main__":
    main()
