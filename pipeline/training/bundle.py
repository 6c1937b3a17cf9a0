"""Puts the trained parts together into one model folder, half precision on disk.

    python -m pipeline.training.bundle --out runs/portrait_256
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from pipeline.audio_encoder import AudioEncoder
from pipeline.autoencoder import FrameDecoder, MotionEncoder, PortraitEncoder
from pipeline.avatar_pipeline import AvatarPipeline
from pipeline.denoiser import Denoiser
from pipeline.scheduler import FlowMatchScheduler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--denoiser", default="student", help="folder under runs/: student or teacher")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/portrait_256"))
    arguments = parser.parse_args()
    runs = arguments.runs

    def load(kind: type, folder: str) -> torch.nn.Module:
        return kind.from_pretrained(runs / folder, low_cpu_mem_usage=False).to(torch.float16)  # type: ignore[attr-defined,no-any-return]

    pipe = AvatarPipeline(
        audio_encoder=load(AudioEncoder, "audio_encoder"),
        denoiser=load(Denoiser, arguments.denoiser),
        portrait_encoder=load(PortraitEncoder, "autoencoder/portrait_encoder"),
        motion_encoder=load(MotionEncoder, "motion_encoder/motion_encoder"),
        frame_decoder=load(FrameDecoder, "autoencoder/frame_decoder"),
        scheduler=FlowMatchScheduler(num_inference_steps=arguments.steps),
    )
    pipe.save_pretrained(arguments.out)
    size = sum(path.stat().st_size for path in arguments.out.rglob("*.safetensors"))
    print(f"{arguments.out}: {size / 1e6:.1f} MB of weights")


if __name__ == "__main__":
    main()
