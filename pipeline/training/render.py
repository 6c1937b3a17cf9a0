"""Renders the autoencoder's training set: every rigged portrait in many motions, with exact flow.

Writes `runs/renders/`: rgb [P,K,256,256,3] u8, grid [P,K,128,128,2] f16 (where in the photo each pixel comes from),
interior [P,K,128,128] u8 and motion [P,K,62] f32 as .npy files that are read memory-mapped. Motion 0 of every
portrait is the portrait itself.

    python -m pipeline.training.render --data DATA --motions 22
"""

from __future__ import annotations

import argparse
import multiprocessing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.training.portrait_fit import FaceGeometry
from pipeline.training.rig import FLOW_PIXELS, FRAME_PIXELS, MOTION_SIZE, RigRenderer, load_fits


class MotionSampler:
    """Draws single motions: speech shapes, smiles, blinks, brows and head poses, alone and mixed."""

    def __init__(self, names: tuple[str, ...], recorded: NDArray[np.float32] | None) -> None:
        self._names = names
        self._recorded = recorded
        hidden = ("Pupil", "eyeLook", "jawForward")
        self._visible = [index for index, name in enumerate(names) if not name.startswith(hidden)]

    def _put(self, motion: NDArray[np.float32], stem: str, value: float) -> None:
        for index, name in enumerate(self._names):
            if name == stem or name.startswith(stem + "_"):
                motion[index] += value

    def draw(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """One motion [62]; a third of them come from recorded motion when there is any."""
        motion = np.zeros(MOTION_SIZE, np.float32)
        if self._recorded is not None and rng.random() < 0.4:
            motion[:57] = self._recorded[rng.integers(len(self._recorded)), :57] * rng.uniform(0.8, 1.4)
        else:
            self._speech_shape(motion, rng)
        if rng.random() < 0.35:
            self._put(motion, "eyeBlink", 1.0 if rng.random() < 0.4 else rng.uniform(0.1, 1))
        brow = rng.random()
        if brow < 0.25:
            self._put(motion, "browInnerUp", rng.uniform(0, 0.8))
            self._put(motion, "browOuterUp", rng.uniform(0, 0.6))
        elif brow < 0.4:
            self._put(motion, "browDown", rng.uniform(0, 0.7))
        if rng.random() < 0.15:
            self._put(motion, "eyeWide", rng.uniform(0, 0.5))
        if rng.random() < 0.15:
            self._put(motion, "eyeSquint", rng.uniform(0, 0.5))
        if rng.random() < 0.5:  # faces are not symmetric, and rare shapes matter too
            motion[:57] *= rng.uniform(0.7, 1.2, 57)
            motion[rng.choice(self._visible, 3)] += rng.uniform(0, 0.35, 3)
        motion[:57] = np.clip(motion[:57], 0, 1)
        reach = rng.choice([0.0, 1.0], p=[0.15, 0.85])
        motion[57:60] = rng.normal(0, 1, 3) * (0.085, 0.06, 0.045) * reach
        motion[60:62] = rng.normal(0, 0.18, 2) * reach
        return motion

    def _speech_shape(self, motion: NDArray[np.float32], rng: np.random.Generator) -> None:
        uniform = rng.uniform
        shape = rng.integers(0, 7)
        if shape != 0:
            self._put(motion, "jawOpen", min(abs(rng.normal(0, 0.2)), 0.7))
        if shape == 1:
            self._put(motion, "mouthFunnel", uniform(0, 0.7))
            self._put(motion, "mouthPucker", uniform(0, 0.7))
        elif shape == 2:
            smile = uniform(0, 0.6)
            self._put(motion, "mouthSmile", smile)
            self._put(motion, "mouthUpperUp", uniform(0, 0.4))
            self._put(motion, "cheekSquint", smile * 0.6)
        elif shape == 3:
            self._put(motion, "mouthStretch", uniform(0, 0.6))
            self._put(motion, "mouthLowerDown", uniform(0, 0.5))
            self._put(motion, "mouthUpperUp", uniform(0, 0.4))
        elif shape == 4:
            self._put(motion, "mouthPress", uniform(0, 0.6))
            self._put(motion, "mouthRollLower", uniform(0, 0.5))
            self._put(motion, "mouthRollUpper", uniform(0, 0.5))
            motion[self._names.index("mouthClose")] = motion[self._names.index("jawOpen")] * uniform(0.6, 1.0)
        elif shape == 5:
            self._put(motion, "mouthFrown", uniform(0, 0.5))
            self._put(motion, "mouthShrugLower", uniform(0, 0.5))
        elif shape == 6:
            self._put(motion, "mouthRollLower", uniform(0, 0.7))
            self._put(motion, "mouthUpperUp", uniform(0, 0.4))
            self._put(motion, "mouthDimple", uniform(0, 0.4))


def _open(out: Path, name: str) -> NDArray[np.generic]:
    return np.load(out / f"{name}.npy", mmap_mode="r+")


def render_part(arguments: argparse.Namespace, part: int) -> None:
    """Renders every `workers`-th portrait, beginning with `part`; each has its own random stream."""
    geometry = FaceGeometry.load(arguments.data)
    _, fits = load_fits(str(arguments.portraits))
    recorded = None
    if arguments.recorded.exists():
        archive = np.load(arguments.recorded)
        recorded = archive["motion"][archive["valid"]]
    sampler = MotionSampler(geometry.names, recorded)
    renderer = RigRenderer(geometry)
    rgb, grid, interior, motion = (
        _open(arguments.out, name) for name in ("rgb", "grid", "interior", "motion")
    )
    for portrait in tqdm(range(part, len(fits), arguments.workers), unit="portrait", disable=part > 0):
        rng = np.random.default_rng((arguments.seed, portrait))
        renderer.load(fits[portrait])
        for index in range(arguments.motions):
            drawn = np.zeros(MOTION_SIZE, np.float32) if index == 0 else sampler.draw(rng)
            frame = renderer.render(drawn)
            rgb[portrait, index], grid[portrait, index] = frame.rgb, frame.grid
            interior[portrait, index], motion[portrait, index] = frame.interior * 255, drawn


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--portraits", type=Path, default=Path("runs/portraits.npz"))
    parser.add_argument("--recorded", type=Path, default=Path("runs/motion/grid_train.npz"))
    parser.add_argument("--out", type=Path, default=Path("runs/renders"))
    parser.add_argument("--motions", type=int, default=22)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    names, fits = load_fits(str(arguments.portraits))
    arguments.out.mkdir(parents=True, exist_ok=True)
    shape = (len(fits), arguments.motions)
    fields: tuple[tuple[str, type[np.generic], tuple[int, ...]], ...] = (
        ("rgb", np.uint8, (FRAME_PIXELS, FRAME_PIXELS, 3)),
        ("grid", np.float16, (FLOW_PIXELS, FLOW_PIXELS, 2)),
        ("interior", np.uint8, (FLOW_PIXELS, FLOW_PIXELS)),
        ("motion", np.float32, (MOTION_SIZE,)),
    )
    for name, kind, tail in fields:
        np.lib.format.open_memmap(arguments.out / f"{name}.npy", "w+", kind, (*shape, *tail))
    np.save(arguments.out / "names.npy", np.array(names))
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=render_part, args=(arguments, part)) for part in range(arguments.workers)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit("A render worker failed; its error stands above.")


if __name__ == "__main__":
    main()
