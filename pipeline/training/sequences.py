"""Excerpts of speech features and motion latents, as the teacher and the student train on them.

Features come from the trained audio encoder, are computed once per corpus and kept in `runs/features/`. Every
clip is extended on both sides by listening: silence in the ear, the mouth at rest, eyes and head going on as
in the clip played backwards. So the model also learns to be quiet, and to come and go between both.

Shape legend: B excerpts, T frames, D motion latent, F audio feature.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.audio_encoder import AudioEncoder
from pipeline.denoiser import LEFT_SLOTS

logger = logging.getLogger(__name__)

SAMPLES_PER_FRAME = 640
MAX_RIGHT_FRAMES = 2
POSE = slice(57, 62)
MOUTH_PREFIXES = ("mouth", "jaw", "cheekPuff", "noseSneer")
RAMP_FRAMES = 4  # the mouth comes to rest over this long where listening begins


@dataclass(frozen=True)
class Basis:
    """`runs/basis.npz`: z = (motion - mean) @ encode; lip and eye gap (over face height) are linear in z."""

    encode: NDArray[np.float32]
    decode: NDArray[np.float32]
    mean: NDArray[np.float32]
    aperture: NDArray[np.float32]
    eye_gap: NDArray[np.float32]
    aperture_bias: float
    n_expression: int

    @staticmethod
    def load(path: Path) -> Basis:
        with np.load(path) as file:
            return Basis(
                encode=file["encode"].astype(np.float32),
                decode=file["decode"].astype(np.float32),
                mean=file["mean"].astype(np.float32),
                aperture=file["aperture"].astype(np.float32),
                eye_gap=file["eye_gap"].astype(np.float32),
                aperture_bias=float(file["aperture_bias"]),
                n_expression=int(file["n_expression"]),
            )


@dataclass(frozen=True)
class Excerpts:
    """A batch. Features reach from frame -2 to T + 1; style holds expressiveness and head motion (0..2)."""

    features_BTF: torch.Tensor
    z_BTD: torch.Tensor
    valid_BT: torch.Tensor
    z_ref_BD: torch.Tensor
    style_BK: torch.Tensor
    lids_BT: torch.Tensor  # how far the lids are closed, 0 to 1

    def to(self, device: torch.device) -> Excerpts:
        return Excerpts(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


@torch.inference_mode()
def encode_clip(encoder: AudioEncoder, pcm: NDArray[np.float32]) -> NDArray[np.float16]:
    """Features as a session would hear them, from frame -LEFT_SLOTS to MAX_RIGHT_FRAMES after the end."""
    before = (encoder.left_context_frames + LEFT_SLOTS) * SAMPLES_PER_FRAME
    padded = np.pad(pcm, (before, MAX_RIGHT_FRAMES * SAMPLES_PER_FRAME))
    device = next(encoder.parameters()).device
    features = encoder(torch.from_numpy(padded)[None].to(device))[0, encoder.left_context_frames :]
    return features.half().cpu().numpy()


def corpus_features(corpus: str, runs: Path, encoder: AudioEncoder) -> NDArray[np.float16]:
    """`encode_clip` of every clip, concatenated; computed once for each state of the encoder."""
    cache = runs / "features" / f"{corpus}.npz"
    digest = hashlib.sha256()
    for parameter in encoder.parameters():
        digest.update(parameter.detach().float().cpu().numpy().tobytes())
    fingerprint = digest.hexdigest()
    if cache.is_file():
        with np.load(cache) as file:
            if str(file["encoder"]) == fingerprint:
                return file["features"]
    with np.load(runs / "speech" / f"{corpus}.npz") as file:
        audio, offsets = file["audio"], file["offsets"]
    spans = itertools.pairwise(offsets)
    features = np.concatenate(
        [
            encode_clip(
                encoder, audio[a * SAMPLES_PER_FRAME : b * SAMPLES_PER_FRAME].astype(np.float32) / 32768
            )
            for a, b in tqdm(list(spans), desc=f"features of {corpus}", mininterval=5)
        ]
    )
    cache.parent.mkdir(parents=True, exist_ok=True)
    np.savez(cache, features=features, encoder=fingerprint)
    return features


@dataclass(frozen=True)
class _Clip:
    """One clip: latents split into what listening keeps (eyes, brows, head) and the mouth."""

    features: NDArray[np.float16]  # [LEFT_SLOTS + n + MAX_RIGHT_FRAMES, F]
    kept: NDArray[np.float32]  # [n, D]
    mouth: NDArray[np.float32]  # [n, D]
    lids: NDArray[np.float32]  # [n]
    valid: NDArray[np.bool_]
    mouth_rest: NDArray[np.float32]
    z_ref: NDArray[np.float32]
    liveliness: float
    head_speed: float


class Sequences:
    """Random excerpts of several corpora."""

    def __init__(
        self,
        corpora: Sequence[str],
        *,
        runs: Path,
        encoder: AudioEncoder,
        expression_names: Sequence[str],
        seed: int,
    ) -> None:
        self.basis = Basis.load(runs / "basis.npz")
        self._rng = np.random.default_rng(seed)
        self._mouth_weights = np.zeros(62, np.float32)
        for index, name in enumerate(expression_names):
            self._mouth_weights[index] = name.startswith(MOUTH_PREFIXES)
        self._blinks = [i for i, name in enumerate(expression_names) if name.startswith("eyeBlink")]
        self._clips: list[_Clip] = []
        for corpus in corpora:
            self._load(corpus, runs, encoder)
        if not self._clips:
            raise ValueError(f"None of the corpora {', '.join(corpora)} holds a usable clip below {runs}.")
        lengths = np.array([len(clip.kept) for clip in self._clips], np.float64)
        self._share = lengths / lengths.sum()
        self._style = np.stack(
            [
                _percentile([clip.liveliness for clip in self._clips]),
                _percentile([clip.head_speed for clip in self._clips]),
            ],
            axis=1,
        ).astype(np.float32)
        # Noise at the level of a quiet room counts as silence, too.
        rng = np.random.default_rng(0)
        self._silences = [
            encode_clip(encoder, (level * rng.standard_normal(400 * SAMPLES_PER_FRAME)).astype(np.float32))
            for level in (0.0, 1e-4, 5e-4, 2e-3)
        ]
        logger.info("%d clips, %.1f minutes", len(self._clips), lengths.sum() / 1500)

    def _load(self, corpus: str, runs: Path, encoder: AudioEncoder) -> None:
        features = corpus_features(corpus, runs, encoder)
        with np.load(runs / "motion" / f"{corpus}.npz") as file:
            motion, valid, offsets = file["motion"].astype(np.float32), file["valid"], file["offsets"]
        motion = np.nan_to_num(motion)
        lids = motion[:, self._blinks].mean(1) if self._blinks else np.zeros(len(motion), np.float32)
        motion = motion - self.basis.mean
        mouth = (motion * self._mouth_weights) @ self.basis.encode
        kept = (motion * (1 - self._mouth_weights)) @ self.basis.encode
        extra = LEFT_SLOTS + MAX_RIGHT_FRAMES
        for index, (a, b) in enumerate(itertools.pairwise(offsets)):
            good = valid[a:b]
            if b - a < 16 or good.mean() < 0.8:
                continue
            still = np.argsort(np.linalg.norm(mouth[a:b], axis=1) + 1e3 * ~good)[:5]
            rest = mouth[a:b][still].mean(0)
            z_ref = rest + np.median(kept[a:b][good], axis=0)
            z_ref[self.basis.n_expression :] = 0.0
            gap = (mouth[a:b] + kept[a:b]) @ self.basis.aperture
            self._clips.append(
                _Clip(
                    features=features[a + extra * index : b + extra * (index + 1)],
                    kept=kept[a:b],
                    mouth=mouth[a:b],
                    lids=lids[a:b],
                    valid=good,
                    mouth_rest=rest,
                    z_ref=z_ref,
                    liveliness=float(np.percentile(gap[good], 90) - np.percentile(gap[good], 10)),
                    head_speed=float(np.abs(np.diff(motion[a:b, POSE], axis=0)).mean()),
                )
            )

    def mouth_projection(self) -> NDArray[np.float32]:
        """[D, D]: (a difference of latents) @ this is the mouth's part of that difference."""
        return np.asarray((self.basis.decode * self._mouth_weights) @ self.basis.encode, np.float32)

    def latents(self) -> NDArray[np.float32]:
        """All valid latents [N, D], for their mean and spread."""
        return np.concatenate([(clip.kept + clip.mouth)[clip.valid] for clip in self._clips])

    def draw(self, count: int, frames: int, *, listening: float = 0.2) -> Excerpts:
        """`count` random excerpts; a share of about `listening` of them lies mostly outside of the speech."""
        chosen = self._rng.choice(len(self._clips), count, p=self._share)
        parts = [self._excerpt(self._clips[i], frames, listening) for i in chosen]
        features, z, valid, z_ref, lids = (np.stack(column) for column in zip(*parts, strict=True))
        return Excerpts(
            features_BTF=torch.from_numpy(features),
            z_BTD=torch.from_numpy(z),
            valid_BT=torch.from_numpy(valid),
            z_ref_BD=torch.from_numpy(z_ref),
            style_BK=torch.from_numpy(self._style[chosen]),
            lids_BT=torch.from_numpy(lids),
        )

    def _excerpt(
        self, clip: _Clip, frames: int, listening: float
    ) -> tuple[
        NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32], NDArray[np.float32]
    ]:
        length = len(clip.kept)
        if self._rng.random() < listening:
            start = int(self._rng.integers(-frames, length))
        else:
            start = int(self._rng.integers(-8, max(length - frames + 8, -7)))
        place = np.arange(start, start + frames)
        inside = (place >= 0) & (place < length)
        period = np.abs((place + length) % (2 * length) - length)  # back and forth through the clip
        source = np.minimum(period, length - 1)
        distance = np.maximum(np.maximum(-place, place - (length - 1)), 0)
        speaking = np.clip(1 - distance / RAMP_FRAMES, 0, 1)[:, None].astype(np.float32)
        nearest = np.clip(place, 0, length - 1)
        z = clip.kept[source] + speaking * clip.mouth[nearest] + (1 - speaking) * clip.mouth_rest

        silence = self._silences[self._rng.integers(len(self._silences))]
        begin = int(self._rng.integers(0, len(silence) - frames - LEFT_SLOTS - MAX_RIGHT_FRAMES))
        features = silence[begin : begin + frames + LEFT_SLOTS + MAX_RIGHT_FRAMES].astype(np.float32)
        first = start  # clip.features[0] describes frame -LEFT_SLOTS, as does features[0] for frame `start`
        low, high = max(first, 0), min(first + len(features), len(clip.features))
        if low < high:
            features[low - first : high - first] = clip.features[low:high]
        valid = clip.valid[source] | ~inside
        return features, z.astype(np.float32), valid, clip.z_ref.copy(), clip.lids[source].astype(np.float32)


def _percentile(values: Sequence[float]) -> NDArray[np.float64]:
    """Rank of every value as a number from 0 (lowest) over 1 (median) to 2 (highest)."""
    ranks = np.argsort(np.argsort(np.asarray(values)))
    return 2.0 * (ranks + 0.5) / len(values)
