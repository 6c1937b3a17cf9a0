"""Sets the lids of a model (`pipeline.eyelids`): their curves on the average face, and the latent's reading of blinks.

python -m pipeline.training.lids --model portrait_256 --out runs/portrait_256
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from pipeline import checkpoint
from pipeline.autoencoder import FrameDecoder
from pipeline.avatar_pipeline import AvatarPipeline
from pipeline.eyelids import CURVE_POINTS
from pipeline.training.motion_file import expression_names

# MediaPipe's upper and lower lid of each eye, and the lower edge of its brow.
_EYES = (
    (
        (33, 246, 161, 160, 159, 158, 157, 173, 133),
        (33, 7, 163, 144, 145, 153, 154, 155, 133),
        (46, 53, 52, 65, 55),
    ),
    (
        (362, 398, 384, 385, 386, 387, 388, 466, 263),
        (362, 382, 381, 380, 374, 373, 390, 249, 263),
        (285, 295, 282, 283, 276),
    ),
)
FOLD = 0.7
"""Where the skin begins to move, on the way from the upper lid to the brow."""


def lid_curves(landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """[3,128] fold, upper and lower lid of the mean of faces [P,478,2+] (crop units, y up), sampling coordinates."""
    average = landmarks[..., :2].mean(0) * (1, -1)
    x = (np.arange(CURVE_POINTS) + 0.5) * (2 / CURVE_POINTS) - 1
    curves = np.zeros((3, CURVE_POINTS))
    for upper, lower, brow in _EYES:
        points = [average[list(line)] for line in (upper, lower, brow)]
        points = [line[np.argsort(line[:, 0])] for line in points]
        above, below, ridge = (np.interp(x, line[:, 0], line[:, 1]) for line in points)
        # Beyond its corners an eye has no opening; each half of the face has one eye.
        own = np.sign(x) == np.sign(points[0][:, 0].mean())
        curves[:, own] = np.stack([above + FOLD * (ridge - above), above, np.maximum(above, below)])[:, own]
    return curves.astype(np.float32)


def set_lids(
    decoder: FrameDecoder,
    landmarks: NDArray[np.float32],
    basis: dict[str, NDArray[np.float32]],
    names: list[str],
) -> None:
    """Gives the decoder its lids; `basis` is the motion basis that the latents were made with."""
    lids = [index for index, name in enumerate(names) if name.startswith("eyeBlink")]
    with torch.no_grad():
        decoder.upper_lids.read_D.copy_(torch.from_numpy(basis["decode"][:, lids].mean(1)))
        decoder.upper_lids.write_D.copy_(torch.from_numpy(basis["encode"][lids].sum(0)))
        decoder.upper_lids.curves_3X.copy_(torch.from_numpy(lid_curves(landmarks)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--portraits", type=Path, default=Path("runs/portraits.npz"))
    parser.add_argument("--model", default="portrait_256", help="the model whose lids are set")
    parser.add_argument("--out", type=Path, default=Path("runs/portrait_256"))
    arguments = parser.parse_args()
    source = checkpoint.resolve(arguments.model)
    pipe = AvatarPipeline.from_pretrained(source)
    names = expression_names(arguments.data)
    landmarks = np.load(arguments.portraits)["landmarks"]
    set_lids(pipe.frame_decoder, landmarks, load_file(source / "motion_basis.safetensors"), names)
    pipe.to(torch.float16)
    shutil.copytree(source, arguments.out, dirs_exist_ok=True)  # portraits, basis and card as well
    pipe.save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
