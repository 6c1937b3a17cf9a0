"""What the model would move to many sounds at once: motion without pictures, many times faster than real time.

Streaming equals offline, so a study of motion needs neither windows nor frames: the whole sound is heard at once and
many sessions are stepped as one batch, by the same `denoise_chunk` that a live session uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.avatar_pipeline import AvatarPipeline
from pipeline.blinks import lids_closed
from pipeline.denoiser import LEFT_SLOTS, KVRing
from pipeline.hearing import Hearing
from pipeline.sampler import denoise_chunk, frame_noise
from pipeline.shown_motion import ShownMotion
from pipeline.state import Controls
from pipeline.windowing import WindowSpec


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How it is spoken: denoising steps (None: the model's own), style, and how many motion frames the ring keeps.

    context_frames: None as trained; 0 empties the ring before every chunk. raised: whether low voices are raised
    before they are heard, as in a session.
    """

    steps: int | None = None
    controls: Controls = field(default_factory=Controls)
    context_frames: int | None = None
    raised: bool = True


@torch.inference_mode()
def speak(
    pipe: AvatarPipeline,
    z_ref_BD: torch.Tensor,
    pcm_BN: NDArray[np.float32],
    window: WindowSpec,
    seeds: Sequence[int],
    manner: Manner | None = None,
) -> torch.Tensor:
    """Shown motion latents [B,T,D] of B sessions of one length, T as many frames as the sound covers.

    z_ref_BD: each session's portrait latent; pcm_BN: sound at 16 kHz; seeds: one a session.
    """
    manner = manner or Manner()
    denoiser = pipe.denoiser
    chunks = window.chunk_count(pcm_BN.shape[1])
    after = chunks * window.hop_samples + window.right_samples - pcm_BN.shape[1]
    if manner.raised:
        pcm_BN = np.stack([raised_as_heard(pcm, window, chunks) for pcm in pcm_BN])
    padded = torch.from_numpy(np.pad(pcm_BN, ((0, 0), (window.left_samples, after)))).to(pipe.device)
    features_BTF = pipe.audio_encoder(padded)[:, window.left_frames - LEFT_SLOTS :]
    style = [[manner.controls.expressiveness, manner.controls.head_motion]] * len(seeds)
    session_BC = denoiser.embed_session(z_ref_BD, z_ref_BD.new_tensor(style))
    ring, shown, made = denoiser.new_ring(len(seeds)), ShownMotion.start(z_ref_BD), []
    for index in range(chunks):
        frames = window.frames(index)
        heard = features_BTF[:, frames.start : frames.stop + LEFT_SLOTS + window.right_frames]
        lids = np.stack([lids_closed(seed, frames) for seed in seeds])
        noise = torch.stack([frame_noise(seed, frames, denoiser.latent_size) for seed in seeds])
        z_BTD, ring = denoise_chunk(
            denoiser,
            pipe.scheduler,
            shortened(ring, manner.context_frames),
            audio_BTC=denoiser.embed_audio(heard, window.right_frames, torch.from_numpy(lids).to(heard)),
            session_BC=session_BC,
            noise_BTD=noise.to(z_ref_BD),
            num_inference_steps=manner.steps,
        )
        z_BTD, shown = shown.then(z_BTD, window.right_frames, manner.controls.gaze)
        made.append(z_BTD)
    return torch.cat(made, 1)


def raised_as_heard(pcm: NDArray[np.float32], window: WindowSpec, chunks: int) -> NDArray[np.float32]:
    """The sound [N] as a session raises it: new samples by the gain that is known when they come."""
    raised, hearing, first = pcm.copy(), Hearing(), 0
    for index in range(chunks):
        hearing, end = hearing.after(window.fresh(window.cut(pcm, index))), window.end_sample(index)
        raised[first:end] *= np.float32(hearing.gain)
        first = end
    return raised


def shortened(ring: KVRing, context_frames: int | None) -> KVRing:
    """The ring with its last `context_frames` frames only (None: all)."""
    if context_frames is None or ring.frames <= context_frames:
        return ring
    first = ring.frames - context_frames
    return replace(ring, keys=ring.keys[:, :, :, first:], values=ring.values[:, :, :, first:])
