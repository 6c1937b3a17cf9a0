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

# How much further a motion goes than the basis learned it: averages over many faces hold lids and jaws back.
# Expression: gain of its flow, gain of its part in opening the mouth.
GAINS = {"eyeBlink": (2.4, 1.0), "jawOpen": (2.4, 1.7)}


def strengthen(
    encoder: PortraitEncoder, motion_basis: Path, names: list[str], stem: str, gains: tuple[float, float]
) -> None:
    """Scales what one expression does in the portraits' basis; every other direction of the latent stays as it is.

    The part of a latent that is this expression is found with the motion basis.
    """
    with np.load(motion_basis) as archive:
        encode, decode = torch.from_numpy(archive["encode"]), torch.from_numpy(archive["decode"])
    indices = [index for index, name in enumerate(names) if name.split("_")[0] == stem]
    latents = encode.shape[1]
    direction = encode[indices].sum(0)
    amount = decode[:, indices].mean(1)
    amount = amount / (amount @ direction)
    with torch.no_grad():
        fields = encoder.basis[: 3 * latents].unflatten(0, (3, latents))
        effect = torch.einsum("d,cdhw->chw", direction, fields)
        more = torch.tensor([gains[0], gains[0], gains[1]]).view(3, 1, 1, 1) - 1
        fields += more * amount.view(1, -1, 1, 1) * effect[:, None]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    for stem, gains in GAINS.items():
        strengthen(portrait_encoder, runs / "basis.npz", names, stem, gains)
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
