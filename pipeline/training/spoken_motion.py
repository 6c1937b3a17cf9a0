"""Motion that the model makes of many sounds, the odd ones too: what faces are asked to do, live.

Speech of every corpus but what is held out, as good and bad microphones hear it, and what is no speech at all (noise,
tones, clipped and silent sound), spoken with controls, windows and steps drawn at random.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import trange

from pipeline.autoencoder import POSE_SIZE
from pipeline.avatar_pipeline import AvatarPipeline
from pipeline.evaluation.speaking import Manner, speak
from pipeline.state import Controls
from pipeline.training.augmentation import augment
from pipeline.training.speech import RATE, decode

_TOGETHER = 16
_ODD_SHARE = 0.06


@dataclass(frozen=True, eq=False)
class Sounds:
    """Recordings at 16 kHz, float32, of any length."""

    recordings: list[NDArray[np.float32]]

    @classmethod
    def load(cls, data: Path, runs: Path, *, held_out: bool) -> Sounds:
        """What `pipeline.training.speech` has written, and EmoDB; or what of it is held out."""
        found = []
        corpora = ("kokoro_val", "grid_val") if held_out else ("kokoro_train", "grid_train", "dc_tts")
        for corpus in corpora:
            with np.load(runs / "speech" / f"{corpus}.npz") as file:
                found += np.split(file["audio"], file["offsets"][1:-1] * (RATE // 25))
        if not held_out:
            found += [decode(path) for path in sorted((data / "emodb").glob("*.opus"))]
        return cls([(recording / 32768).astype(np.float32) for recording in found])

    def excerpts(self, count: int, seconds: float, rng: np.random.Generator) -> NDArray[np.float32]:
        """[count, samples] from anywhere; shorter recordings are followed by silence."""
        samples = round(seconds * 25) * (RATE // 25)
        drawn = np.zeros((count, samples), np.float32)
        for row in drawn:
            if rng.random() < _ODD_SHARE:
                row[:] = odd_sound(samples, rng)
                continue
            recording = self.recordings[rng.integers(len(self.recordings))]
            start = rng.integers(max(len(recording) - samples, 0) + 1)
            part = recording[start : start + samples]
            row[: len(part)] = part
        return drawn


def odd_sound(samples: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Noise, a gliding tone with overtones, pulses, or silence; loud or soft, often clipped."""
    time = np.arange(samples) / RATE
    kind = rng.integers(4)
    if kind == 0:
        sound = rng.standard_normal(samples)
    elif kind == 1:
        hertz = rng.uniform(60, 800) * 2 ** (
            rng.uniform(0, 2) * np.sin(2 * np.pi * rng.uniform(0.1, 4) * time)
        )
        phase = 2 * np.pi * np.cumsum(hertz) / RATE
        sound = np.sum([np.sin(k * phase) * rng.uniform(0, 1) / k for k in range(1, 8)], 0)
    elif kind == 2:
        sound = np.where(
            np.sin(2 * np.pi * rng.uniform(0.5, 12) * time) > 0, rng.standard_normal(samples), 0.0
        )
    else:
        sound = 1e-3 * rng.standard_normal(samples)
    return np.clip(sound * 10 ** rng.uniform(-1.5, 1.0), -1, 1).astype(np.float32)


@torch.inference_mode()
def spoken_changes(
    pipe: AvatarPipeline,
    z_refs_PD: Tensor,
    sounds: Sounds,
    *,
    excerpts: int,
    seconds: float,
    rng: np.random.Generator,
    plain: bool = False,
) -> Tensor:
    """Changes of the latent [N,D] against the portrait's own, blinks taken out, of so many excerpts.

    plain: sounds as they are and usual controls, for what is to be judged rather than learned.
    """
    made = []
    for _ in trange(-(-excerpts // _TOGETHER), desc="motion", mininterval=10):
        pcm = sounds.excerpts(_TOGETHER, seconds, rng)
        if not plain:
            pcm = augment(torch.from_numpy(pcm)).numpy()
        controls = Controls() if plain or rng.random() < 0.3 else _any_controls(rng)
        hop, right = (2, 2) if plain else (int(rng.integers(1, 4)), int(rng.integers(0, 3)))
        manner = Manner(controls=controls, steps=None if plain else int(rng.integers(1, 5)))
        z_refs = z_refs_PD[torch.from_numpy(rng.integers(len(z_refs_PD), size=_TOGETHER))]
        seeds = [int(seed) for seed in rng.integers(1 << 31, size=_TOGETHER)]
        z_BTD = speak(pipe, z_refs, pcm, pipe.window_spec(hop, right), seeds, manner)
        made.append((z_BTD - z_refs[:, None]).flatten(0, 1))
    return pipe.frame_decoder.upper_lids.take_out(torch.cat(made))[0]


def _any_controls(rng: np.random.Generator) -> Controls:
    expressiveness, head_motion, gaze = (float(value) for value in rng.uniform(0, 2, 3))
    return Controls(expressiveness=expressiveness, head_motion=head_motion, gaze=gaze)


def widened(changes_ND: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """`count` of the changes; every second one with another's head, stronger or weaker, or between two moments."""

    def some() -> Tensor:
        return changes_ND[torch.from_numpy(rng.integers(len(changes_ND), size=count))]

    plain, mixed = some(), some()
    mixed = torch.lerp(mixed, some(), torch.from_numpy(rng.uniform(0, 1, (count, 1)) ** 2).float())
    mixed = mixed * torch.from_numpy(rng.uniform(0.4, 1.4, (count, 1))).float()
    mixed[:, -POSE_SIZE:] = (
        some()[:, -POSE_SIZE:] * torch.from_numpy(rng.uniform(0.5, 1.2, (count, 1))).float()
    )
    return torch.where(torch.from_numpy(rng.random((count, 1)) < 0.5), plain, mixed)
