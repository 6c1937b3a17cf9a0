"""Puts the trained parts together into one model folder, half precision on disk.

    python -m pipeline.training.bundle --out runs/portrait_256
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.audio_encoder import AudioEncoder
from pipeline.autoencoder import FrameDecoder, MotionEncoder, PortraitEncoder
from pipeline.avatar_pipeline import AvatarPipeline
from pipeline.denoiser import Denoiser
from pipeline.scheduler import FlowMatchScheduler


LID_GAIN = 1.9


def close_lids(encoder: PortraitEncoder, motion_basis: Path, names: list[str], gain: float) -> None:
    """Makes a blink of 1 close the eye: an average over many faces moves the lids only half as far as each did.

    The part of a latent that is a blink is found with the motion basis; its flow is scaled, nothing else changes.
    """
    with np.load(motion_basis) as archive:
        encode, decode = torch.from_numpy(archive["encode"]), torch.from_numpy(archive["decode"])
    both = [names.index(f"eyeBlink_{side}") for side in "LR"]
    latents = encode.shape[1]
    direction = encode[both].sum(0)
    amount = decode[:, both].mean(1)  # how much of a blink a latent is
    amount = amount / (amount @ direction)
    with torch.no_grad():
        flow = encoder.basis[: 2 * latents].unflatten(0, (2, latents))
        blink = torch.einsum("d,cdhw->chw", direction, flow)
        flow += (gain - 1) * amount.view(1, -1, 1, 1) * blink[:, None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--denoiser", default="student", help="folder under runs/: student or teacher")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/portrait_256"))
    arguments = parser.parse_args()
    runs = arguments.runs

    def load(kind: Any, folder: str) -> Any:
        return kind.from_pretrained(runs / folder, low_cpu_mem_usage=False)

    portrait_encoder = load(PortraitEncoder, "autoencoder/portrait_encoder")
    names = [str(name) for name in np.load(arguments.data / "ict_facekit.npz")["names"]]
    close_lids(portrait_encoder, runs / "basis.npz", names, LID_GAIN)
    pipe = AvatarPipeline(
        audio_encoder=load(AudioEncoder, "audio_encoder"),
        denoiser=load(Denoiser, arguments.denoiser),
        portrait_encoder=portrait_encoder,
        motion_encoder=load(MotionEncoder, "motion_encoder/motion_encoder"),
        frame_decoder=load(FrameDecoder, "autoencoder/frame_decoder"),
        scheduler=FlowMatchScheduler(num_inference_steps=arguments.steps),
    )
    pipe.to(torch.float16)
    pipe.save_pretrained(arguments.out)
    size = sum(path.stat().st_size for path in arguments.out.rglob("*.safetensors"))
    print(f"{arguments.out}: {size / 1e6:.1f} MB of weights")


if __name__ == "__main__":
    main()
