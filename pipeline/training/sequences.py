"""Excerpts of speech features and motion latents, as the teacher and the student train on them.

The sound of an excerpt is cut from its recording, made worse as microphones and rooms do, played faster or slower
together with its motion, and heard by the trained audio encoder: two excerpts are never alike. Every clip is
extended on both sides by listening: silence in the ear, the mouth at rest, eyes and head going on as in the clip
played backwards. So the model also learns to be quiet, and to come and go between both.

Shape legend: B excerpts, T frames, N samples, D motion latent, F audio feature, C clips.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.audio_encoder import SAMPLES_PER_FRAME, AudioEncoder
from pipeline.denoiser import LEFT_SLOTS
from pipeline.training.augmentation import augment

logger = logging.getLogger(__name__)

MAX_RIGHT_FRAMES = 2
POSE = slice(57, 62)
MOUTH_PREFIXES = ("mouth", "jaw", "cheekPuff", "noseSneer")
RAMP_FRAMES = 4  # the mouth comes to rest over this long where listening begins
SPEEDS = (0.85, 1.2)
"""A third of the excerpts is played at another speed, pitch and formants with it: other voices, other hurry."""
SPEED_SHARE = 1 / 3
ROOM_NOISE = (0.0, 1e-4, 5e-4, 2e-3)
"""RMS of what is heard outside of a clip; noise at the level of a quiet room counts as silence, too."""


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

    def mouth_part(self, motion: NDArray[np.float32], names: Sequence[str]) -> NDArray[np.float32]:
        """What the mouth of rig motions [..., 62] adds to the latent [..., D]; `names` are those of the expressions."""
        return np.asarray(((motion - self.mean) * mouth_weights(names)) @ self.encode, np.float32)


def mouth_weights(names: Sequence[str]) -> NDArray[np.float32]:
    """[62]: 1 for what the mouth does, 0 for eyes, brows and head."""
    weights = np.zeros(62, np.float32)
    for index, name in enumerate(names):
        weights[index] = name.startswith(MOUTH_PREFIXES)
    return weights


@dataclass(frozen=True)
class Excerpts:
    """A batch. Features reach from frame -2 to T + 1; style holds expressiveness and head motion (0..2)."""

    features_BTF: Tensor
    z_BTD: Tensor
    valid_BT: Tensor
    z_ref_BD: Tensor
    style_BK: Tensor
    lids_BT: Tensor  # how far the lids are closed, 0 to 1


@dataclass(frozen=True)
class Clips:
    """All clips one after the other; latents are split into the mouth and what listening keeps (eyes, brows, head).

    begins_C, lengths_C: of each clip, in frames.
    """

    audio_N: Tensor
    kept_TD: Tensor
    mouth_TD: Tensor
    lids_T: Tensor
    valid_T: Tensor
    begins_C: Tensor
    lengths_C: Tensor
    rest_CD: Tensor
    z_ref_CD: Tensor
    style_CK: Tensor


class Sequences:
    """Random excerpts of several corpora, on the audio encoder's device.

    worse: make the sound worse and vary its speed, as for training; else it is heard as it was recorded.
    """

    def __init__(
        self,
        corpora: Sequence[str],
        *,
        runs: Path,
        encoder: AudioEncoder,
        expression_names: Sequence[str],
        worse: bool,
    ) -> None:
        self.basis = Basis.load(runs / "basis.npz")
        self._encoder, self._worse = encoder, worse
        self._mouth_weights = mouth_weights(expression_names)
        self.clips = self._load(corpora, runs, expression_names)
        logger.info(
            "%d clips, %.1f minutes", len(self.clips.begins_C), float(self.clips.lengths_C.sum()) / 1500
        )

    def _load(self, corpora: Sequence[str], runs: Path, names: Sequence[str]) -> Clips:
        blinks = [i for i, name in enumerate(names) if name.startswith("eyeBlink")]
        audio, kept, mouth, lids, valid = [], [], [], [], []
        begins, lengths, rests, z_refs, liveliness, head_speed = [], [], [], [], [], []
        before = 0
        for corpus in corpora:
            with np.load(runs / "motion" / f"{corpus}.npz") as file:
                motion, good, offsets = file["motion"].astype(np.float32), file["valid"], file["offsets"]
            with np.load(runs / "speech" / f"{corpus}.npz") as file:
                audio.append(file["audio"][: offsets[-1] * SAMPLES_PER_FRAME])
            motion = np.nan_to_num(motion)
            lids.append(motion[:, blinks].mean(1) if blinks else np.zeros(len(motion), np.float32))
            mouth.append(self.basis.mouth_part(motion, names))
            kept.append((motion - self.basis.mean) @ self.basis.encode - mouth[-1])
            valid.append(good)
            for a, b in itertools.pairwise(offsets.tolist()):
                if b - a < 16 or good[a:b].mean() < 0.8:
                    continue
                still = np.argsort(np.linalg.norm(mouth[-1][a:b], axis=1) + 1e3 * ~good[a:b])[:5]
                rests.append(mouth[-1][a:b][still].mean(0))
                z_refs.append(rests[-1] + np.median(kept[-1][a:b][good[a:b]], axis=0))
                z_refs[-1][self.basis.n_expression :] = 0.0
                gap = ((mouth[-1][a:b] + kept[-1][a:b]) @ self.basis.aperture)[good[a:b]]
                liveliness.append(float(np.percentile(gap, 90) - np.percentile(gap, 10)))
                head_speed.append(float(np.abs(np.diff(motion[a:b, POSE], axis=0)).mean()))
                begins.append(before + a)
                lengths.append(b - a)
            before += int(offsets[-1])
        if not begins:
            raise ValueError(f"None of the corpora {', '.join(corpora)} holds a usable clip below {runs}.")
        device = next(self._encoder.parameters()).device

        def tensor(values: NDArray[np.generic]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(device)

        style = np.stack([_percentile(liveliness), _percentile(head_speed)], 1).astype(np.float32)
        return Clips(
            audio_N=tensor(np.concatenate(audio)),
            kept_TD=tensor(np.concatenate(kept).astype(np.float32)),
            mouth_TD=tensor(np.concatenate(mouth)),
            lids_T=tensor(np.concatenate(lids).astype(np.float32)),
            valid_T=tensor(np.concatenate(valid)),
            begins_C=tensor(np.array(begins)),
            lengths_C=tensor(np.array(lengths)),
            rest_CD=tensor(np.stack(rests)),
            z_ref_CD=tensor(np.stack(z_refs)),
            style_CK=tensor(style),
        )

    def mouth_projection(self) -> NDArray[np.float32]:
        """[D, D]: (a difference of latents) @ this is the mouth's part of that difference."""
        return np.asarray((self.basis.decode * self._mouth_weights) @ self.basis.encode, np.float32)

    def latents(self) -> NDArray[np.float32]:
        """All valid latents [N, D], for their mean and spread."""
        clips = self.clips
        return np.asarray((clips.kept_TD + clips.mouth_TD)[clips.valid_T].cpu())

    def draw(self, count: int, frames: int, *, listening: float = 0.2) -> Excerpts:
        """`count` random excerpts; a share of about `listening` of them lies mostly outside of the speech."""
        clips = self.clips
        device = clips.lengths_C.device
        clip_B = torch.multinomial(clips.lengths_C.float(), count, replacement=True)
        lengths_B = clips.lengths_C[clip_B]
        anywhere = torch.rand(count, device=device) < listening
        low_B = torch.where(anywhere, -frames, -8)
        high_B = torch.where(anywhere, lengths_B, (lengths_B - frames + 8).clamp_min(-7))
        start_B = low_B + (torch.rand(count, device=device) * (high_B - low_B)).long()
        speed_B = torch.ones(count, device=device)
        if self._worse:
            slow, fast = (float(np.log(speed)) for speed in SPEEDS)
            other = torch.empty_like(speed_B).uniform_(slow, fast).exp()
            speed_B = torch.where(torch.rand(count, device=device) < SPEED_SHARE, other, speed_B)
        return self.cut(clip_B, start_B, speed_B, frames)

    @torch.no_grad()
    def cut(self, clip_B: Tensor, start_B: Tensor, speed_B: Tensor, frames: int) -> Excerpts:
        """Excerpts of clips from frames on, which may lie outside of the clip, played at speeds (1: as recorded)."""
        # A frame stands for the middle of its 40 ms; so do the places between two frames.
        place_BT = (
            start_B[:, None] + (torch.arange(frames, device=start_B.device) + 0.5) * speed_B[:, None] - 0.5
        )
        whole = place_BT.floor()
        between = place_BT - whole
        z, lids, valid = self._motion(clip_B, whole.long())
        z_next, lids_next, valid_next = self._motion(clip_B, whole.long() + 1)
        pcm_BN = self._sound(clip_B, start_B, speed_B, frames)
        if self._worse:
            pcm_BN = augment(pcm_BN)
        features = self._encoder(pcm_BN)[:, self._encoder.left_context_frames :]
        return Excerpts(
            features_BTF=features,
            z_BTD=torch.lerp(z, z_next, between[..., None]),
            valid_BT=valid & (valid_next | (between == 0)),
            z_ref_BD=self.clips.z_ref_CD[clip_B],
            style_BK=self.clips.style_CK[clip_B],
            lids_BT=torch.lerp(lids, lids_next, between),
        )

    def _motion(self, clip_B: Tensor, place_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Latents [B,T,D], lids and validity [B,T] at frames of clips, listening included."""
        clips = self.clips
        length, begin = clips.lengths_C[clip_B][:, None], clips.begins_C[clip_B][:, None]
        inside = (place_BT >= 0) & (place_BT < length)
        period = (torch.remainder(place_BT + length, 2 * length) - length).abs()  # back and forth
        source = begin + torch.minimum(period, length - 1)
        nearest = begin + torch.minimum(place_BT.clamp_min(0), length - 1)
        distance = torch.maximum(-place_BT, place_BT - (length - 1)).clamp_min(0)
        speaking = (1 - distance / RAMP_FRAMES).clamp(0, 1)[..., None]
        rest = clips.rest_CD[clip_B][:, None]
        z = clips.kept_TD[source] + torch.lerp(rest, clips.mouth_TD[nearest], speaking)
        return z, clips.lids_T[source], clips.valid_T[source] | ~inside

    def _sound(self, clip_B: Tensor, start_B: Tensor, speed_B: Tensor, frames: int) -> Tensor:
        """Samples [B,N] from the encoder's left context before frame -2 to MAX_RIGHT_FRAMES after the last one."""
        clips = self.clips
        before = self._encoder.left_context_frames + LEFT_SLOTS
        count = (before + frames + MAX_RIGHT_FRAMES) * SAMPLES_PER_FRAME
        # float64: a third of a sample in an hour of sound is more than float32 tells apart.
        step = torch.arange(count, device=start_B.device, dtype=torch.float64) - before * SAMPLES_PER_FRAME
        place = start_B[:, None] * SAMPLES_PER_FRAME + step * speed_B.double()[:, None]
        whole = place.floor()
        between = (place - whole).float()
        last = clips.lengths_C[clip_B][:, None] * SAMPLES_PER_FRAME - 1
        begin = clips.begins_C[clip_B][:, None] * SAMPLES_PER_FRAME
        here = begin + torch.minimum(whole.long().clamp_min(0), last)
        there = torch.minimum(here + 1, begin + last)
        pcm = torch.lerp(clips.audio_N[here].float(), clips.audio_N[there].float(), between) / 32768
        levels = torch.tensor(ROOM_NOISE, device=pcm.device)
        level = levels[torch.randint(len(levels), (len(clip_B), 1), device=pcm.device)]
        return torch.where((whole >= 0) & (whole <= last), pcm, level * torch.randn_like(pcm))


def _percentile(values: Sequence[float]) -> NDArray[np.float64]:
    """Rank of every value as a number from 0 (lowest) over 1 (median) to 2 (highest)."""
    ranks = np.argsort(np.argsort(np.asarray(values)))
    return 2.0 * (ranks + 0.5) / len(values)
