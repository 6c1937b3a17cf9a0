"""Trains PortraitEncoder and FrameDecoder: ground-truth flow first and always, pixels beside it.

Learning flow from pictures alone is slow; the rig gives the exact flow, so the decoder is taught that, the mask of the
mouth interior, the interior's pixels, and last the composed picture.

    python -m pipeline.training.autoencoder --config configs/train/autoencoder.yaml
"""

from __future__ import annotations

import argparse
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from pipeline.autoencoder import (
    BASIS_PIXELS,
    FLOW_UNIT,
    DecodedFrames,
    FrameDecoder,
    PortraitEncoder,
    identity_grid,
)
from pipeline.drawing.geometry import (
    CROP_PIXELS,
    GRID_PIXELS,
    MOUTH_BOTTOM,
    MOUTH_LEFT,
    MOUTH_RIGHT,
    MOUTH_TOP,
)
from pipeline.training.alignment import align
from pipeline.training.curves import Curves
from pipeline.training.motion_file import expression_names
from pipeline.training.settings import MODEL, load_settings, model_part

logger = logging.getLogger(__name__)

MOUTH = (slice(None), slice(None), slice(MOUTH_TOP, MOUTH_BOTTOM), slice(MOUTH_LEFT, MOUTH_RIGHT))


@dataclass(frozen=True, kw_only=True)
class AutoencoderSettings:
    """configs/train/autoencoder.yaml."""

    minutes: float
    portraits_per_batch: int
    motions_per_portrait: int
    learning_rate: float
    flow_weight: float
    mouth_flow_weight: float
    eye_flow_weight: float
    mask_weight: float
    paint_weight: float
    pixel_weight: float
    detail_weight: float
    reference_noise: float
    seed: int
    threads: int


@dataclass(frozen=True)
class Batch:
    """P portraits with K motions each, B = P * K frames."""

    crop_P3HW: Tensor
    frame_B3HW: Tensor
    grid_BHW2: Tensor
    interior_B1HW: Tensor
    z_BD: Tensor


def mirror_indices(names: tuple[str, ...]) -> NDArray[np.int64]:
    """For each expression the index of its mirror image."""
    swap = {"_L": "_R", "_R": "_L"}
    out = []
    for name in names:
        mirrored = name[:-2] + swap[name[-2:]] if name[-2:] in swap else name
        for one, other in (("Left", "Right"), ("Right", "Left")):
            if name.endswith(one):
                mirrored = name.removesuffix(one) + other
        out.append(names.index(mirrored))
    return np.asarray(out)


class RenderedFaces:
    """Batches from `runs/renders`, augmented: mirror, colour and crop position."""

    def __init__(self, folder: Path, basis: Path, names: tuple[str, ...], seed: int) -> None:
        self._rgb = np.load(folder / "rgb.npy", mmap_mode="r")
        self._grid = np.load(folder / "grid.npy", mmap_mode="r")
        self._interior = np.load(folder / "interior.npy", mmap_mode="r")
        self._motion = np.load(folder / "motion.npy")
        self._encode = torch.from_numpy(np.load(basis)["encode"])
        portraits = [str(name) for name in np.load(folder / "names.npy")]
        self.train = [i for i, name in enumerate(portraits) if not name.startswith("val/")]
        self.held_out = [i for i, name in enumerate(portraits) if name.startswith("val/")]
        self._mirror = mirror_indices(names)
        self._rng = np.random.default_rng(seed)
        with np.load(folder.parent / "portraits.npz") as archive:
            self._alignment = align(archive["landmarks"], folder.parent / "alignment.npz")

    @property
    def latent_size(self) -> int:
        return self._encode.shape[1]

    def draw(self, indices: list[int], portraits: int, motions: int, augment: bool) -> Batch:
        """A random batch from the given portraits."""
        rng = self._rng
        chosen = rng.choice(indices, portraits, replace=False)
        crops, frames, grids, interiors, latents = [], [], [], [], []
        for portrait in chosen:
            frame_ids = np.sort(rng.choice(np.arange(1, self._rgb.shape[1]), motions, replace=False))
            crop = _image(self._rgb[portrait, :1])
            frame = _image(self._rgb[portrait, frame_ids])
            grid = torch.from_numpy(self._grid[portrait, frame_ids].astype(np.float32))
            interior = torch.from_numpy(self._interior[portrait, frame_ids].astype(np.float32) / 255)[:, None]
            motion = self._motion[portrait, frame_ids].copy()
            if augment:
                if rng.random() < 0.5:
                    crop, frame, interior = crop.flip(-1), frame.flip(-1), interior.flip(-1)
                    grid = grid.flip(2) * torch.tensor([-1.0, 1.0])
                    motion[:, :57] = motion[:, self._mirror]
                    motion[:, [57, 59, 60]] *= -1
                gain = torch.from_numpy(rng.normal(1, (0.16,) * 3).astype(np.float32)).view(1, 3, 1, 1)
                gain = gain * float(rng.uniform(0.75, 1.2))
                gamma = float(np.exp(rng.normal(0, 0.15)))
                crop, frame = (_tone(crop, gain, gamma), _tone(frame, gain, gamma))
                crop, frame, grid, interior = _reframe(crop, frame, grid, interior, rng)
            crops.append(crop)
            frames.append(frame)
            grids.append(grid)
            interiors.append(interior)
            latents.append(torch.from_numpy(motion) @ self._encode)
        return Batch(*(torch.cat(part) for part in (crops, frames, grids, interiors, latents)))

    def in_average_face(
        self, portrait: int, rng: np.random.Generator, motions: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Latents [K,D], displacements [K,2,128,128] and interiors [K,1,128,128] of a portrait, on the average face."""
        ids = np.sort(rng.choice(np.arange(1, self._rgb.shape[1]), motions, replace=False))
        grid = torch.from_numpy(self._grid[portrait, ids].astype(np.float32)).permute(0, 3, 1, 2)
        interior = torch.from_numpy(self._interior[portrait, ids].astype(np.float32) / 255)[:, None]
        still = identity_grid(GRID_PIXELS, grid).permute(0, 3, 1, 2)
        maps = torch.cat([(grid - still) * (interior < 0.02), interior], 1)
        place = torch.from_numpy(self._alignment.place[portrait])[None].permute(0, 3, 1, 2)
        place = functional.interpolate(place, BASIS_PIXELS, mode="bilinear").permute(0, 2, 3, 1)
        place = place.expand(motions, -1, -1, -1)
        maps = functional.grid_sample(maps, place, padding_mode="border", align_corners=False)
        return torch.from_numpy(self._motion[portrait, ids]) @ self._encode, maps[:, :2], maps[:, 2:]


def _image(rgb: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.array(rgb)).permute(0, 3, 1, 2).float() / 255


def _tone(image: Tensor, gain: Tensor, gamma: float) -> Tensor:
    return (image * gain).clamp(1e-3, 1) ** gamma


def _reframe(
    crop: Tensor, frame: Tensor, grid: Tensor, interior: Tensor, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Shifts and scales the crop a little, as a face detector's error would; the flow follows."""
    scale = float(np.exp(rng.normal(0, 0.03)))
    shift = torch.from_numpy(rng.normal(0, 0.02, 2).astype(np.float32))
    full = identity_grid(CROP_PIXELS, crop) * scale + shift
    half = identity_grid(GRID_PIXELS, crop) * scale + shift

    def sample(image: Tensor, where: Tensor) -> Tensor:
        where = where.expand(len(image), -1, -1, -1)
        return functional.grid_sample(image, where, padding_mode="border", align_corners=False)

    moved = sample(grid.permute(0, 3, 1, 2), half).permute(0, 2, 3, 1)
    return sample(crop, full), sample(frame, full), (moved - shift) / scale, sample(interior, half)


def fit_basis(encoder: PortraitEncoder, faces: RenderedFaces, motions: int) -> None:
    """Sets the average face's basis: flow by ridge regression on the latents, opening by logistic regression.

    Gradient descent through the decoder would take thousands of steps to find these averages.
    """
    rng = np.random.default_rng(0)
    drawn = [faces.in_average_face(p, rng, motions) for p in tqdm(faces.train, desc="average face's motion")]
    z, flow, interior = (torch.cat(part) for part in zip(*drawn, strict=True))
    latents = z.shape[1]
    gram = z.T @ z + 0.0005 * len(z) * torch.eye(latents)
    fields = torch.linalg.solve(gram, z.T @ flow.flatten(1)).view(latents, 2, BASIS_PIXELS, BASIS_PIXELS)
    inside = interior.flatten(1)
    seen = inside.mean(0) > 1e-4
    weight = torch.zeros(latents + 1, int(seen.sum()), requires_grad=True)
    with torch.no_grad():
        weight[-1] = -4.0
    inputs = torch.cat([z, torch.ones(len(z), 1)], 1)
    optimiser = torch.optim.Adam([weight], 0.1)
    for _ in tqdm(range(200), desc="mouth opening"):
        loss = (
            functional.binary_cross_entropy_with_logits(inputs @ weight, inside[:, seen])
            + 1e-4 * weight[:-1].square().mean()
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    opening = torch.zeros(latents + 1, inside.shape[1])
    opening[-1] = -8.0
    opening[:, seen] = weight.detach()
    motions = encoder.opening_basis.shape[0] - 1
    with torch.no_grad():
        encoder.flow_basis[:latents] = fields[:, 0] / FLOW_UNIT
        encoder.flow_basis[motions : motions + latents] = fields[:, 1] / FLOW_UNIT
        opening = opening.view(-1, BASIS_PIXELS, BASIS_PIXELS)
        encoder.opening_basis[:latents], encoder.opening_basis[-1] = opening[:-1], opening[-1]


def losses(
    decoded: DecodedFrames, batch: Batch, crops: Tensor, settings: AutoencoderSettings
) -> tuple[Tensor, dict[str, float]]:
    """The training loss and its parts; flow errors are mean absolute errors in half crop widths."""
    known = (batch.interior_B1HW[:, 0] < 0.02).float()
    error = (decoded.grid_BHW2 - batch.grid_BHW2).abs().sum(-1)
    still = (identity_grid(GRID_PIXELS, error) - batch.grid_BHW2).abs().sum(-1)

    def region(value: Tensor, rows: slice, columns: slice) -> Tensor:
        return (value[:, rows, columns] * known[:, rows, columns]).sum() / (known[:, rows, columns].sum() + 1)

    everywhere, mouth_box = (slice(None), slice(None)), (slice(60, 108), slice(36, 92))
    eye_box = (slice(44, 64), slice(36, 92))
    flow, mouth_flow, eye_flow = (region(error, *box) for box in (everywhere, mouth_box, eye_box))
    interior = functional.interpolate(batch.interior_B1HW, CROP_PIXELS, mode="bilinear")[MOUTH]
    mask = decoded.mask_B1HW[MOUTH]
    # Likelihood alone leaves a haze where the lips might part; overlap asks for a decision.
    shared, either = (2 * mask * interior).sum((1, 2, 3)), (mask + interior).sum((1, 2, 3))
    overlap = ((shared + 40) / (either + 40)).mean()
    mask_loss = functional.binary_cross_entropy(mask.clamp(1e-4, 1 - 1e-4), interior) + 0.1 * (1 - overlap)
    paint = ((decoded.paint_B3HW[MOUTH] - batch.frame_B3HW[MOUTH]).abs() * interior).sum() / (
        3 * interior.sum() + 10
    )
    # Pixels train the flow only: else a soft mask would hide the flow's mistakes under a smear of lip colour.
    composed = DecodedFrames(
        decoded.grid_BHW2, decoded.mask_B1HW.detach(), decoded.paint_B3HW.detach()
    ).compose(crops)
    pixel = (composed - batch.frame_B3HW).abs()
    mouth_pixel = pixel[MOUTH].mean()
    detail = torch.zeros(())
    if settings.detail_weight:
        made, true = composed[MOUTH], batch.frame_B3HW[MOUTH]
        for axis in (-1, -2):
            detail = detail + (made.diff(dim=axis) - true.diff(dim=axis)).abs().mean()
    loss = (
        settings.flow_weight * flow
        + settings.mouth_flow_weight * mouth_flow
        + settings.eye_flow_weight * eye_flow
        + settings.mask_weight * mask_loss
        + settings.paint_weight * paint
        + settings.pixel_weight * (pixel.mean() + mouth_pixel)
        + settings.detail_weight * detail
    )
    parts = {
        "flow": flow, "mouth_flow": mouth_flow, "eye_flow": eye_flow, "still_flow": region(still, *everywhere),
        "still_mouth_flow": region(still, *mouth_box), "still_eye_flow": region(still, *eye_box),
        "mask": mask_loss, "paint": paint, "pixel": pixel.mean(), "mouth_pixel": mouth_pixel,
    }  # fmt: skip
    return loss, {name: float(value.detach()) for name, value in parts.items()}


def train(settings: AutoencoderSettings, runs: Path, names: tuple[str, ...], model: Path = MODEL) -> None:
    """Runs for `settings.minutes` in total over all resumed calls; writes runs/autoencoder/."""
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    out = runs / "autoencoder"
    out.mkdir(parents=True, exist_ok=True)
    faces = RenderedFaces(runs / "renders", runs / "basis.npz", names, settings.seed + int(time.time()))
    encoder = PortraitEncoder(**model_part(model, "portrait_encoder", latent_size=faces.latent_size))
    decoder = FrameDecoder(**model_part(model, "frame_decoder", latent_size=faces.latent_size))
    nets = torch.nn.ModuleList([encoder, decoder]).to(device=device)
    nets.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(
        nets.parameters(), settings.learning_rate, weight_decay=1e-3, betas=(0.9, 0.98)
    )
    curves = Curves(out / "curves.json", title="Autoencoder")
    step, spent = 0, 0.0
    state_file = out / "state.pt"
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        nets.load_state_dict(state["nets"])
        if "optimiser" in state:  # absent when weights were carried over into a changed network
            optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]
    else:
        encoder.aligner.load_state_dict(load_file(runs / "face_aligner.safetensors"))
        fit_basis(encoder, faces, 12)
    average = torch.optim.swa_utils.AveragedModel(
        nets, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
    )
    if state_file.exists() and "average" in state:
        average.load_state_dict(state["average"])
    smoothed = cast(torch.nn.ModuleList, average.module)
    budget = settings.minutes * 60
    started = time.monotonic() - spent
    progress = curves.progress(budget, initial=spent)

    def forward(nets: torch.nn.ModuleList, batch: Batch, noise: float) -> tuple[Tensor, dict[str, float]]:
        repeats = len(batch.z_BD) // len(batch.crop_P3HW)
        features = nets[0](batch.crop_P3HW).for_frames(repeats)
        z_ref = noise * torch.randn_like(batch.z_BD)
        decoded = nets[1](batch.z_BD, z_ref, features)
        return losses(decoded, batch, batch.crop_P3HW.repeat_interleave(repeats, 0), settings)

    def to_device(batch: Batch) -> Batch:
        return Batch(*(getattr(batch, f).to(device) for f in batch.__dataclass_fields__))

    def save() -> None:
        torch.save(
            {"nets": nets.state_dict(), "average": average.state_dict(), "optimiser": optimiser.state_dict(),
             "step": step, "spent": time.monotonic() - started},
            state_file.with_suffix(".new"),
        )  # fmt: skip
        state_file.with_suffix(".new").replace(state_file)
        cast(PortraitEncoder, smoothed[0]).save_pretrained(out / "portrait_encoder")
        cast(FrameDecoder, smoothed[1]).save_pretrained(out / "frame_decoder")
        curves.save()

    while (elapsed := time.monotonic() - started) < budget:
        fraction = elapsed / budget
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * min(1.0, (step + 1) / 100) * max(0.02, 1 - fraction)
        batch = to_device(
            faces.draw(faces.train, settings.portraits_per_batch, settings.motions_per_portrait, True)
        )
        loss, parts = forward(nets, batch, settings.reference_noise)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(nets.parameters(), 1.0)
        optimiser.step()
        average.update_parameters(nets)
        step += 1
        curves.add("train", step, parts)
        progress.update_to(time.monotonic() - started, step=step, **parts)
        if step % 150 == 0:
            average.eval()
            with torch.inference_mode():
                checks = [
                    forward(smoothed, to_device(faces.draw(faces.held_out, 6, 4, False)), 0.0)[1]
                    for _ in range(4)
                ]
            mean = {key: float(np.mean([check[key] for check in checks])) for key in checks[0]}
            curves.add("held_out", step, mean)
            progress.note(f"step {step}: " + ", ".join(f"{k} {v:.4f}" for k, v in mean.items()))
            save()
    save()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=Path("configs/train/autoencoder.yaml"))
    parser.add_argument("--model", type=Path, default=MODEL, help="another network: configs/model/*.yaml")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    names = tuple(expression_names(arguments.data))
    train(load_settings(AutoencoderSettings, arguments.config), arguments.runs, names, arguments.model)


if __name__ == "__main__":
    main()
