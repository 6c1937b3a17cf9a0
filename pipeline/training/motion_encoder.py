"""Trains the MotionEncoder: rendered frames in, the motion latent that made them out.

The product uses it once per session, for the portrait's own expression (z_ref).

    python -m pipeline.training.motion_encoder --config configs/train/motion_encoder.yaml
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.autoencoder import POSE_SIZE, MotionEncoder
from pipeline.training.autoencoder import RenderedFaces
from pipeline.training.curves import Curves
from pipeline.training.motion_file import expression_names
from pipeline.training.settings import MODEL, load_settings, model_part


@dataclass(frozen=True, kw_only=True)
class MotionEncoderSettings:
    """configs/train/motion_encoder.yaml."""

    minutes: float
    portraits_per_batch: int
    motions_per_portrait: int
    learning_rate: float
    seed: int
    threads: int


def explained(found: Tensor, true: Tensor) -> dict[str, float]:
    """Share of the latents' variance that is found, for expression and pose."""
    error, power = (found - true).square().mean(0), true.var(0) + 1e-6
    split = true.shape[1] - POSE_SIZE
    return {
        "expression_r2": float(1 - error[:split].sum() / power[:split].sum()),
        "pose_r2": float(1 - error[split:].sum() / power[split:].sum()),
    }


def train(settings: MotionEncoderSettings, runs: Path, names: tuple[str, ...], model: Path = MODEL) -> None:
    """Trains for `settings.minutes` over all resumed calls; writes runs/motion_encoder/."""
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    out = runs / "motion_encoder"
    out.mkdir(parents=True, exist_ok=True)
    faces = RenderedFaces(runs / "renders", runs / "basis.npz", names, settings.seed + int(time.time()))
    net = MotionEncoder(**model_part(model, "motion_encoder", latent_size=faces.latent_size)).to(
        device=device, memory_format=torch.channels_last
    )
    optimiser = torch.optim.AdamW(net.parameters(), settings.learning_rate, weight_decay=1e-2)
    curves = Curves(out / "curves.json", title="Motion encoder")
    state_file, step, spent = out / "state.pt", 0, 0.0
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]
    budget, started = settings.minutes * 60, time.monotonic() - spent
    progress = curves.progress(budget, initial=spent)

    def save() -> None:
        state = {"net": net.state_dict(), "optimiser": optimiser.state_dict()}
        torch.save({**state, "step": step, "spent": time.monotonic() - started}, state_file)
        net.save_pretrained(out / "motion_encoder")
        curves.save()

    while (elapsed := time.monotonic() - started) < budget:
        for group in optimiser.param_groups:
            group["lr"] = (
                settings.learning_rate * min(1.0, (step + 1) / 100) * max(0.02, 1 - elapsed / budget)
            )
        batch = faces.draw(faces.train, settings.portraits_per_batch, settings.motions_per_portrait, True)
        z = batch.z_BD.to(device)
        # Every portrait is also a frame of its own, at rest.
        rest = batch.crop_P3HW.to(device)
        found = net(torch.cat([batch.frame_B3HW.to(device), rest]))
        target = torch.cat([z, torch.zeros(len(rest), z.shape[1], device=device)])
        loss = functional.smooth_l1_loss(found, target, beta=0.5)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        step += 1
        parts = {"loss": float(loss.detach()), **explained(found.detach(), target)}
        curves.add("train", step, parts)
        progress.update_to(time.monotonic() - started, step=step, **parts)
        if step % 100 == 0:
            net.eval()
            with torch.inference_mode():
                check = faces.draw(faces.held_out, 20, 4, False)
                parts = explained(net(check.frame_B3HW.to(device)).cpu(), check.z_BD)
            net.train()
            curves.add("held_out", step, parts)
            progress.note(f"step {step}: " + ", ".join(f"{key} {value:.3f}" for key, value in parts.items()))
            save()
    save()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=Path("configs/train/motion_encoder.yaml"))
    parser.add_argument("--model", type=Path, default=MODEL, help="another network: configs/model/*.yaml")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    names = tuple(expression_names(arguments.data))
    train(load_settings(MotionEncoderSettings, arguments.config), arguments.runs, names, arguments.model)


if __name__ == "__main__":
    main()
