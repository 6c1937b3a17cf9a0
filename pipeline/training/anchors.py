"""Runs the decoder on many motions of many portraits and keeps what `motion_weights` learns from.

What the decoder makes of a motion z is, for every portrait, nearly the same weighted sum of what it makes of a few
fixed motions, the anchors: out(z) = out(0) + sum_i w_i(z) (out(z_i) - out(0)). How far off any weights are, over all
pixels, follows from scalar products alone; so of every portrait only those are kept, against its own anchors.

Writes `runs/anchors/motions.npz` (what is spoken, once), `anchors.npz` (the anchors, once) and
`portraits/SPLIT-NAME.npz`, one by one; what is there is not made again, so a run goes on where it was ended, and
several may run side by side (`--share 0/2`, `--share 1/2`).

    python -m pipeline.training.anchors --data DATA
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pipeline import checkpoint
from pipeline.autoencoder import FrameDecoder
from pipeline.avatar_pipeline import AvatarPipeline
from pipeline.drawing.geometry import MOUTH_BOTTOM, MOUTH_LEFT, MOUTH_RIGHT, MOUTH_TOP
from pipeline.face_preparation import crop_tensor, drawn_fields, reference_latent
from pipeline.portrait import Portrait, PortraitError, prepare_portrait
from pipeline.portrait_features import PortraitFeatures
from pipeline.training.settings import load_settings
from pipeline.training.spoken_motion import Sounds, spoken_changes, widened

logger = logging.getLogger(__name__)

PARTS = ("grid", "mouth")
GRID_UNIT = 64
"""Displacements are counted in pixels of the sampling grid."""
MASK_SHARE = 0.3
"""How much a wrong mask costs beyond what it shows: teeth are laid over what is painted, by the same mask."""
_BATCH = 8


@dataclass(frozen=True)
class AnchorsSettings:
    """configs/train/anchors.yaml. excerpts: of sound. candidates: of which the anchors are chosen."""

    excerpts: int
    excerpt_seconds: float
    anchors: int
    candidates: int
    choosing_portraits: int
    portraits: int
    held_out_portraits: int
    motions_per_portrait: int
    seed: int
    threads: int


@dataclass(frozen=True, eq=False)
class Sitter:
    """A portrait as the decoder reads it. colours_3HW: of the mouth window, at rest."""

    z_ref_1D: Tensor
    features: PortraitFeatures
    colours_3HW: Tensor

    @classmethod
    def of(cls, pipe: AvatarPipeline, portrait: Portrait) -> Sitter:
        crop = crop_tensor(portrait, pipe.device)
        window = portrait.crop[MOUTH_TOP:MOUTH_BOTTOM, MOUTH_LEFT:MOUTH_RIGHT]
        colours = torch.from_numpy(window).permute(2, 0, 1).float() / 255
        maps = [
            m.contiguous(memory_format=torch.channels_last) if index < 4 else m
            for index, m in enumerate(pipe.portrait_encoder(crop))
        ]
        return cls(reference_latent(pipe.motion_encoder, crop), PortraitFeatures(*maps), colours)

    def outputs(self, decoder: FrameDecoder, changes_BD: Tensor) -> tuple[Tensor, ...]:
        """What the decoder makes, a row a frame, in the order of `PARTS`: pixels of the grid; levels (of 255) of the
        mask and of what the mouth adds to a picture that has the portrait's colours there."""
        displacement, drawn = drawn_fields(decoder, changes_BD, self.z_ref_1D, self.features)
        mask = drawn[:, :1]
        added = torch.cat([MASK_SHARE * mask, drawn[:, 1:] - mask * self.colours_3HW], 1) * 255
        return displacement.flatten(1) * GRID_UNIT, added.flatten(1)


def outputs_of(decoder: FrameDecoder, sitter: Sitter, changes_ND: Tensor) -> list[Tensor]:
    """`Sitter.outputs` of many motions."""
    made = [sitter.outputs(decoder, part) for part in changes_ND.split(_BATCH)]
    return [torch.cat(part) for part in zip(*made, strict=True)]


def choose(decoder: FrameDecoder, sitters: list[Sitter], candidates_ND: Tensor, count: int) -> Tensor:
    """Anchors by pivoted Cholesky of the mean Gram matrix: each next one is the motion that those before explain
    least, in the grid or in the mouth."""
    gram = torch.zeros(len(candidates_ND), len(candidates_ND), dtype=torch.double)
    for sitter in tqdm(sitters, desc="choosing anchors"):
        rest = sitter.outputs(decoder, torch.zeros_like(candidates_ND[:1]))
        for rows, still in zip(outputs_of(decoder, sitter, candidates_ND), rest, strict=True):
            rows -= still
            gram += (rows @ rows.T / rows.square().mean() / rows.shape[1]).double()
    return candidates_ND[pivots(gram, count)]


def pivots(gram_NN: Tensor, count: int) -> list[int]:
    """The rows that a pivoted Cholesky factorisation takes first."""
    left, factor, chosen = gram_NN.diag().clone(), gram_NN.new_zeros(len(gram_NN), count), list[int]()
    for m in range(count):
        i = int(left.argmax())
        factor[:, m] = (gram_NN[:, i] - factor[:, :m] @ factor[i, :m]) / left[i].sqrt()
        left = left - factor[:, m].square()
        chosen.append(i)
        left[chosen] = -1.0
    return chosen


def products(
    decoder: FrameDecoder, sitter: Sitter, anchors_MD: Tensor, changes_ND: Tensor
) -> dict[str, Tensor]:
    """Means over all pixels of products, of every part: `PART_aa` [M,M] of the anchors with each other, `PART_az`
    [N,M] of motions with anchors, `PART_zz` [N] of motions with themselves; and `changes`."""
    rest = sitter.outputs(decoder, torch.zeros_like(anchors_MD[:1]))
    held = [rows - still for rows, still in zip(outputs_of(decoder, sitter, anchors_MD), rest, strict=True)]
    found: dict[str, Tensor] = {"changes": changes_ND}
    cross: list[list[Tensor]] = [[] for _ in PARTS]
    sizes: list[list[Tensor]] = [[] for _ in PARTS]
    for part in changes_ND.split(_BATCH):
        for j, rows in enumerate(sitter.outputs(decoder, part)):
            rows = rows - rest[j]
            cross[j].append(rows @ held[j].T / rows.shape[1])
            sizes[j].append(rows.square().mean(1))
    for name, anchors, az, zz in zip(PARTS, held, cross, sizes, strict=True):
        found[f"{name}_aa"] = anchors @ anchors.T / anchors.shape[1]
        found[f"{name}_az"], found[f"{name}_zz"] = torch.cat(az), torch.cat(zz)
    return found


def _save(path: Path, **values: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}")
    np.savez(unfinished, **{name: value.numpy() for name, value in values.items()})  # type: ignore[arg-type]
    unfinished.replace(path)


def _load(path: Path) -> dict[str, Tensor]:
    with np.load(path) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


class Gathering:
    """The files of one run, in the order in which they are made."""

    def __init__(self, pipe: AvatarPipeline, data: Path, runs: Path, settings: AnchorsSettings) -> None:
        self._pipe, self._data, self._runs, self._settings = pipe, data, runs, settings
        self._out = runs / "anchors"
        rng = np.random.default_rng(settings.seed)
        self._people = {
            split: [
                Path(path) for path in rng.permutation(sorted((data / "portraits" / split).glob("*.jpg")))
            ]
            for split in ("train", "val")
        }

    def run(self, share: int, shares: int) -> None:
        motions, anchors = self._motions(), self._anchors()
        wanted = [("train", path) for path in self._people["train"][: self._settings.portraits]]
        wanted[4:4] = [("val", path) for path in self._people["val"][: self._settings.held_out_portraits]]
        for place, (split, path) in enumerate(tqdm(wanted, desc="portraits")):
            file = self._out / "portraits" / f"{split}-{path.stem}.npz"
            if place % shares != share or file.exists():
                continue
            try:
                sitter = Sitter.of(self._pipe, prepare_portrait(path))
            except PortraitError as error:
                logger.warning("%s: %s", path.name, error)
                continue
            rng = np.random.default_rng([self._settings.seed, place])
            count = self._settings.motions_per_portrait
            if split == "val":  # judged by what it is asked to do, not by what is easier or harder
                changes = motions["val"][torch.from_numpy(rng.integers(len(motions["val"]), size=count))]
            else:
                changes = widened(motions["train"], count, rng)
            _save(file, **products(self._pipe.frame_decoder, sitter, anchors, changes))

    def _motions(self) -> dict[str, Tensor]:
        """Changes of the latent [N,D] by split: those of `val` are to sounds and by portraits that are held out."""
        file = self._out / "motions.npz"
        if not file.exists():
            settings, rng, made = self._settings, np.random.default_rng(self._settings.seed), {}
            for split, excerpts in (("train", settings.excerpts), ("val", max(settings.excerpts // 12, 1))):
                held_out = split == "val"
                made[split] = spoken_changes(
                    self._pipe,
                    torch.cat([s.z_ref_1D for s in self._sitters(split, 24)]),
                    Sounds.load(self._data, self._runs, held_out=held_out),
                    excerpts=excerpts,
                    seconds=settings.excerpt_seconds,
                    rng=rng,
                    plain=held_out,
                )
            _save(file, **made)
        return _load(file)

    def _anchors(self) -> Tensor:
        file = self._out / "anchors.npz"
        if not file.exists():
            settings = self._settings
            rng = np.random.default_rng([settings.seed, 1])
            candidates = widened(self._motions()["train"], settings.candidates, rng)
            sitters = self._sitters("train", settings.choosing_portraits)
            _save(
                file,
                anchors=choose(self._pipe.frame_decoder, sitters, candidates, settings.anchors),
            )
        return _load(file)["anchors"]

    def _sitters(self, split: str, count: int) -> list[Sitter]:
        """Some that are not among those who are learned from."""
        found = []
        for path in reversed(self._people[split]):
            try:
                found.append(Sitter.of(self._pipe, prepare_portrait(path)))
            except PortraitError as error:
                logger.warning("%s: %s", path.name, error)
            if len(found) == count:
                break
        return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--config", type=Path, default=Path("configs/train/anchors.yaml"))
    parser.add_argument("--model", default="portrait_256", help="a bundled model's name or a model folder")
    parser.add_argument("--share", default="0/1", help="which part of the portraits: K/N, the first is 0/N")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = load_settings(AnchorsSettings, arguments.config)
    torch.set_num_threads(settings.threads)
    share, shares = (int(number) for number in arguments.share.split("/"))
    pipe = AvatarPipeline.from_pretrained(checkpoint.resolve(arguments.model))
    pipe.frame_decoder.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        Gathering(pipe, arguments.data, arguments.runs, settings).run(share, shares)


if __name__ == "__main__":
    main()
