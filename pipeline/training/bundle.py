"""Puts the trained parts together into one model folder, half precision on disk.

python -m pipeline.training.bundle --out runs/portrait_256
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from pipeline.audio_encoder import AudioEncoder
from pipeline.autoencoder import FrameDecoder, MotionEncoder, PortraitEncoder
from pipeline.avatar_pipeline import AvatarPipeline
from pipeline.denoiser import Denoiser
from pipeline.scheduler import FlowMatchScheduler
from pipeline.training.jaws import draw_jaws
from pipeline.training.lids import set_lids
from pipeline.training.motion_file import expression_names
from pipeline.training.portrait_fit import FaceGeometry

# How far a motion goes, as a multiple of what the basis learned. An average over faces whose lids and lips do not quite
# lie on each other moves them half of their way. Chosen so that held-out portraits just close their eyes and open their
# mouths as far as the real speaker.
GAINS = {"eyeBlink": 2.6, "jawOpen": 1.6}

# Where the lips might part the mask says "perhaps", which looks like a haze; a steeper one decides. Steepness and
# offset of the mask's logit were chosen on held-out portraits for the overlap with the true opening (0.57, then 0.63).
MASK_STEEPNESS, MASK_OFFSET = 2.5, 0.7
# The mean of teeth, tongue and dark is the colour of lips, so an open mouth would look shut: more shade, in logits.
MOUTH_SHADE = 0.8


@torch.no_grad()
def decide(encoder: PortraitEncoder, decoder: FrameDecoder) -> None:
    """Makes the mask of the mouth's interior steeper and the interior darker."""
    first, last = (dict(decoder.mouth[index].named_parameters()) for index in (0, -1))
    encoder.opening_basis.mul_(MASK_STEEPNESS)
    first["weight"][:, -1] /= MASK_STEEPNESS  # the head's own reading of the opening stays the same
    last["weight"][0] *= MASK_STEEPNESS
    last["bias"][0] = MASK_STEEPNESS * (last["bias"][0] + MASK_OFFSET)
    last["bias"][1:] -= MOUTH_SHADE


@torch.no_grad()
def strengthen(
    encoder: PortraitEncoder,
    decoder: FrameDecoder,
    motion_basis: Path,
    names: list[str],
    stem: str,
    gain: float,
) -> None:
    """Scales the flow that one expression causes; every other direction of the latent stays as it is.

    `names` are those of the expressions that `motion_basis` encodes, `stem` the name without its side.
    """
    with np.load(motion_basis) as archive:
        encode, decode = torch.from_numpy(archive["encode"]), torch.from_numpy(archive["decode"])
    indices = [index for index, name in enumerate(names) if name.split("_")[0] == stem]
    direction, amount = encode[indices].sum(0), decode[:, indices].mean(1)
    amount = amount / (amount @ direction)
    still = torch.zeros(1, 2 * len(direction))
    both = torch.cat([direction, torch.zeros_like(direction)])[None]
    motions = torch.cat([direction, (decoder.extra(both) - decoder.extra(still))[0]])
    fields = encoder.flow_basis.unflatten(0, (2, -1))
    effect = torch.einsum("m,cmhw->chw", motions, fields)
    fields[:, : len(direction)] += (gain - 1) * amount.view(1, -1, 1, 1) * effect[:, None]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--denoiser", default="student", help="folder under runs/: student or teacher")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/portrait_256"))
    arguments = parser.parse_args()
    runs = arguments.runs

    def load(kind: Any, folder: str) -> Any:
        return kind.from_pretrained(runs / folder, low_cpu_mem_usage=False)

    portrait_encoder = load(PortraitEncoder, "autoencoder/portrait_encoder")
    names = expression_names(arguments.data)
    frame_decoder = load(FrameDecoder, "autoencoder/frame_decoder")
    for stem, gain in GAINS.items():
        strengthen(portrait_encoder, frame_decoder, runs / "basis.npz", names, stem, gain)
    decide(portrait_encoder, frame_decoder)
    # What the latent means is kept with the model: without it no part could be trained again.
    with np.load(runs / "basis.npz") as archive:
        basis = {key: archive[key] for key in ("encode", "decode")}
    set_lids(frame_decoder, np.load(runs / "portraits.npz")["landmarks"], basis, names)
    jaws = draw_jaws(FaceGeometry.load(arguments.data))
    frame_decoder.interior.layers.copy_(torch.from_numpy(jaws))
    pipe = AvatarPipeline(
        audio_encoder=load(AudioEncoder, "audio_encoder"),
        denoiser=load(Denoiser, arguments.denoiser),
        portrait_encoder=portrait_encoder,
        motion_encoder=load(MotionEncoder, "motion_encoder/motion_encoder"),
        frame_decoder=frame_decoder,
        scheduler=FlowMatchScheduler(num_inference_steps=arguments.steps),
    )
    pipe.to(torch.float16)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with np.load(
        runs / "basis.npz"
    ) as basis:  # what the latent means: without it no part can be trained again
        save_file(
            {key: basis[key] for key in ("encode", "decode")}, arguments.out / "motion_basis.safetensors"
        )
    pipe.save_pretrained(arguments.out)
    size = sum(path.stat().st_size for path in arguments.out.rglob("*.safetensors"))
    print(f"{arguments.out}: {size / 1e6:.1f} MB of weights")


if __name__ == "__main__":
    main()
