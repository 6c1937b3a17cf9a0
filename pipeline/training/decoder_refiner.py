"""Teaches a bundled model's FrameDecoder flow and mask again; everything else stays as it is.

Bundling strengthens lids and jaw by fixed factors, because the decoder learned averages that move them half of their
way. This stage goes on from there with the exact flow of the rig, for the motion that a latent stands for, so that lips
and lids end where they should on each portrait. The portraits' features do not change any more, so each is encoded
once, as it is and mirrored, and a step costs a quarter of one of `pipeline.training.autoencoder`. What lies behind
teeth and gums (`pipeline.mouth_interior`) is taught to be dark.

    python -m pipeline.training.decoder_refiner --data ../shared/data --model runs/portrait_256 --out runs/refined
"""

from __future__ import annotations

import argparse
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from torch import Tensor
from torch.nn import functional

from pipeline import checkpoint
from pipeline.autoencoder import CROP_PIXELS, GRID_PIXELS, DecodedFrames, PortraitEncoder
from pipeline.avatar_pipeline import AvatarPipeline
from pipeline.training.autoencoder import MOUTH, mirror_indices
from pipeline.training.curves import Curves
from pipeline.training.settings import load_settings

logger = logging.getLogger(__name__)

CAVITY = (0.17, 0.055, 0.05)
"""Colour of the inside of a mouth where there is neither tooth nor gum, under full light."""
MOUTH_BOX = (slice(60, 108), slice(36, 92))
EYE_BOX = (slice(44, 64), slice(36, 92))
CHECK_EVERY = 100


@dataclass(frozen=True, kw_only=True)
class RefinerSettings:
    """configs/train/decoder_refiner.yaml."""

    minutes: float
    portraits_per_batch: int
    motions_per_portrait: int
    learning_rate: float
    average_decay: float
    flow_weight: float
    mouth_flow_weight: float
    eye_flow_weight: float
    mask_weight: float
    overlap_weight: float
    cavity_weight: float
    reference_noise: float
    seed: int
    threads: int


@dataclass(frozen=True)
class Moves:
    """Frames of one portrait: latents, true sampling grids and interiors of the mouth (1 where it is seen)."""

    z_BD: Tensor
    grid_BHW2: Tensor
    interior_BHW: Tensor


class RenderedMoves:
    """`runs/renders` without its pictures of moved faces: rest, flow, interior and motion of each portrait."""

    def __init__(self, folder: Path, encode: NDArray[np.float32], names: tuple[str, ...]) -> None:
        self._rest, self._grid, self._interior = (
            np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("rgb", "grid", "interior")
        )
        self._motion, self._encode = np.load(folder / "motion.npy"), encode
        self._mirror = mirror_indices(names)
        portraits = [str(name) for name in np.load(folder / "names.npy")]
        self.train = [i for i, name in enumerate(portraits) if not name.startswith("val/")]
        self.held_out = [i for i, name in enumerate(portraits) if name.startswith("val/")]
        self.motions = np.arange(1, self._motion.shape[1])

    def crop(self, portrait: int, mirrored: bool) -> Tensor:
        """The portrait at rest [1,3,256,256]."""
        crop = torch.from_numpy(np.array(self._rest[portrait, :1])).permute(0, 3, 1, 2).float() / 255
        return crop.flip(-1) if mirrored else crop

    def moves(self, portrait: int, chosen: NDArray[np.int64], mirrored: bool) -> Moves:
        grid = torch.from_numpy(self._grid[portrait, chosen].astype(np.float32))
        interior = torch.from_numpy(self._interior[portrait, chosen].astype(np.float32) / 255)
        motion = self._motion[portrait, chosen].copy()
        if mirrored:
            grid, interior = grid.flip(2) * torch.tensor([-1.0, 1.0]), interior.flip(2)
            motion[:, :57] = motion[:, self._mirror]
            motion[:, [57, 59, 60]] *= -1
        return Moves(torch.from_numpy(motion @ self._encode), grid, interior)


class FeatureStore:
    """What the frozen PortraitEncoder says of each portrait; the basis, which is large, is made anew every time."""

    def __init__(self, encoder: PortraitEncoder, rendered: RenderedMoves) -> None:
        self._encoder, self._rendered = encoder, rendered
        self._kept: dict[tuple[int, bool], tuple[list[Tensor], Tensor, Tensor]] = {}

    @torch.no_grad()
    def __call__(self, portrait: int, mirrored: bool) -> tuple[Tensor, ...]:
        key = (portrait, mirrored)
        if key not in self._kept:
            crop = self._rendered.crop(portrait, mirrored)
            *pyramid, _, seat = self._encoder(crop)
            self._kept[key] = ([part.half() for part in pyramid], self._encoder.places(crop), seat)
        pyramid, where, seat = self._kept[key]
        return (*(part.float() for part in pyramid), self._encoder.basis_at(where), seat)


def losses(
    decoded: DecodedFrames, moves: Moves, light_13: Tensor, settings: RefinerSettings
) -> dict[str, Tensor]:
    """Parts of the loss and, as `loss`, their sum. Flow errors are in half crop widths."""
    known = (moves.interior_BHW < 0.02).float()
    error = (decoded.grid_BHW2 - moves.grid_BHW2).abs().sum(-1) * known

    def region(rows: slice, columns: slice) -> Tensor:
        return error[:, rows, columns].sum() / (known[:, rows, columns].sum() + 1)

    interior = functional.interpolate(moves.interior_BHW[:, None], CROP_PIXELS, mode="bilinear")[MOUTH]
    mask = decoded.mask_B1HW[MOUTH].clamp(1e-4, 1 - 1e-4)
    shared, either = (2 * mask * interior).sum((1, 2, 3)), (mask + interior).sum((1, 2, 3))
    cavity = (light_13 * light_13.new_tensor(CAVITY)).view(1, 3, 1, 1)
    parts = {
        "flow": region(slice(0, GRID_PIXELS), slice(0, GRID_PIXELS)),
        "mouth_flow": region(*MOUTH_BOX),
        "eye_flow": region(*EYE_BOX),
        "mask": functional.binary_cross_entropy(mask, interior),
        "missed": 1 - ((shared + 40) / (either + 40)).mean(),
        "cavity": (decoded.paint_B3HW[MOUTH] - cavity).abs().mean(),
    }
    weights = {
        "flow": settings.flow_weight, "mouth_flow": settings.mouth_flow_weight, "eye_flow": settings.eye_flow_weight,
        "mask": settings.mask_weight, "missed": settings.overlap_weight, "cavity": settings.cavity_weight,
    }  # fmt: skip
    return parts | {"loss": torch.stack([weight * parts[name] for name, weight in weights.items()]).sum()}


def refine(pipe: AvatarPipeline, rendered: RenderedMoves, settings: RefinerSettings, out: Path) -> None:
    """Trains `pipe.frame_decoder` in place for `settings.minutes` over all resumed calls; curves go to `out`."""
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.threads)
    rng = np.random.default_rng(settings.seed + int(time.time()))
    decoder, features = pipe.frame_decoder, FeatureStore(pipe.portrait_encoder, rendered)
    jaws = decoder.interior.layers.clone()
    decoder.interior.layers.zero_()  # only what lies behind the teeth is painted by the network
    decoder.requires_grad_(True)
    decoder.interior.requires_grad_(False)
    trained = [parameter for parameter in decoder.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, settings.learning_rate, weight_decay=1e-3, betas=(0.9, 0.98))
    average = {name: value.clone() for name, value in decoder.state_dict().items()}
    curves, state_file = Curves(out / "curves.json", title="Decoder, refined"), out / "state.pt"
    step, spent = 0, 0.0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        decoder.load_state_dict(state["decoder"])
        optimiser.load_state_dict(state["optimiser"])
        average, step, spent = state["average"], state["step"], state["spent"]

    def run(portrait: int, chosen: NDArray[np.int64], mirrored: bool, noise: float) -> dict[str, Tensor]:
        known, moves = features(portrait, mirrored), rendered.moves(portrait, chosen, mirrored)
        decoded = decoder(moves.z_BD, noise * torch.randn_like(moves.z_BD), known)
        return losses(decoded, moves, known[-1][:, 6:], settings)

    def check() -> dict[str, float]:
        """Held-out portraits with the averaged weights."""
        current = {name: value.clone() for name, value in decoder.state_dict().items()}
        decoder.load_state_dict(average)
        with torch.no_grad():
            seen = [run(p, rendered.motions[::2], False, 0.0) for p in rendered.held_out[::2]]
        decoder.load_state_dict(current)
        return {name: float(np.mean([float(parts[name]) for parts in seen])) for name in seen[0]}

    budget, started = 60 * settings.minutes, time.monotonic() - spent
    progress = curves.progress(budget, initial=spent)
    curves.add("held_out", step, check())
    while (elapsed := time.monotonic() - started) < budget:
        for group in optimiser.param_groups:
            rate = min(1.0, (step + 1) / 50) * max(0.03, 1 - elapsed / budget)
            group["lr"] = settings.learning_rate * rate
        optimiser.zero_grad()
        for portrait in rng.choice(rendered.train, settings.portraits_per_batch, replace=False):
            chosen = np.sort(rng.choice(rendered.motions, settings.motions_per_portrait, replace=False))
            parts = run(portrait, chosen, bool(rng.random() < 0.5), settings.reference_noise)
            (parts["loss"] / settings.portraits_per_batch).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        step += 1
        for name, value in decoder.state_dict().items():
            average[name].lerp_(value, max(1 - settings.average_decay, 1 / (step + 1)))
        shown = {name: float(value.detach()) for name, value in parts.items()}
        curves.add("train", step, shown)
        progress.update_to(elapsed, step=step, **shown)
        if step % CHECK_EVERY == 0:
            curves.add("held_out", step, check())
            curves.save()
            state = {"decoder": decoder.state_dict(), "optimiser": optimiser.state_dict(), "average": average}
            torch.save({**state, "step": step, "spent": time.monotonic() - started}, state_file)
    curves.add("held_out", step, check())
    curves.save()
    decoder.load_state_dict(average)
    decoder.interior.layers.copy_(jaws)
    decoder.requires_grad_(False)


def motion_basis(folder: Path) -> NDArray[np.float32]:
    """[62,40]: what one unit of each rig motion adds to the latent, as it was when the model was trained."""
    encode: Any = load_file(folder / "motion_basis.safetensors")["encode"]
    return np.asarray(encode, np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=Path("configs/train/decoder_refiner.yaml"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--model", default="portrait_256", help="a bundled model's name or a model folder")
    parser.add_argument("--out", type=Path, default=Path("runs/refined"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    names = tuple(str(name) for name in np.load(arguments.data / "ict_facekit.npz")["names"])
    source = checkpoint.resolve(arguments.model)
    rendered = RenderedMoves(arguments.runs / "renders", motion_basis(source), names)
    pipe = AvatarPipeline.from_pretrained(source)
    work = arguments.runs / "decoder_refiner"
    work.mkdir(parents=True, exist_ok=True)
    refine(pipe, rendered, load_settings(RefinerSettings, arguments.config), work)
    pipe.to(torch.float16)
    shutil.copytree(source, arguments.out, dirs_exist_ok=True)  # portraits, basis and card as well
    pipe.save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
