"""The only denoising loop: sessions, evaluation and the student's training all call it."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from typing import cast

import numpy as np
import torch

from pipeline.denoiser import CLEAN, Denoiser, KVRing
from pipeline.scheduler import FlowMatchScheduler
from pipeline.state import Memory


def frame_noise(seed: int, frames: range, latent_size: int) -> torch.Tensor:
    """Standard normal noise [T, D] that depends on the seed and the frame numbers only.

    A counter-based generator per frame: no generator state to carry, and a session gets the same noise
    whatever its hop.
    """
    key = int.from_bytes(hashlib.blake2b(str(seed).encode(), digest_size=8).digest(), "little")
    rows = [
        np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, frame])).standard_normal(
            latent_size, dtype=np.float32
        )
        for frame in frames
    ]
    return torch.from_numpy(np.stack(rows))


def denoise(
    predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    scheduler: FlowMatchScheduler,
    noise_BTD: torch.Tensor,
    num_inference_steps: int | None = None,
) -> torch.Tensor:
    """The denoising loop: noise to normalised x0 [B, T, D]; `predict(x, sigma)` is the network."""
    sigmas = scheduler.sigmas(num_inference_steps)
    x = noise_BTD
    for sigma, sigma_next in itertools.pairwise(sigmas):
        x = scheduler.step(predict(x, x.new_full((1, 1), sigma)), sigma, sigma_next, x)
    return x


def denoise_motion(
    denoiser: Denoiser,
    scheduler: FlowMatchScheduler,
    ring: KVRing,
    *,
    audio_BTC: torch.Tensor,
    session_BC: torch.Tensor,
    noise_BTD: torch.Tensor,
    num_inference_steps: int | None = None,
) -> torch.Tensor:
    """Noise to motion latents z [B, T, D] of one chunk.

    Pure and differentiable. `audio_BTC` comes from `Denoiser.embed_audio`, `session_BC` from
    `Denoiser.embed_session`.
    """

    def predict(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        x0, _, _ = denoiser(x, sigma, audio_BTC, session_BC, ring)
        return cast(torch.Tensor, x0)

    return denoiser.denormalize(denoise(predict, scheduler, noise_BTD, num_inference_steps))


def denoise_after(
    denoiser: Denoiser,
    scheduler: FlowMatchScheduler,
    ring: KVRing,
    memory: Memory | None,
    *,
    audio_BTC: torch.Tensor,
    session_BC: torch.Tensor,
    noise_BTD: torch.Tensor,
    num_inference_steps: int | None = None,
) -> tuple[torch.Tensor, KVRing]:
    """Noise to motion latents z [B, T, D] of one chunk, and the ring with the chunk before it, if that is given.

    What `remember` and `denoise_motion` make one after the other, with a pass less.
    """

    def predict(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        nonlocal ring, memory
        if memory is None:
            return cast(torch.Tensor, denoiser(x, sigma, audio_BTC, session_BC, ring)[0])
        clean = (denoiser.normalize(memory.z_BTD), memory.audio_BTC, memory.session_BC)
        x0, ring = denoiser.after_memory(clean, x, sigma, audio_BTC, session_BC, ring)
        memory = None
        return x0

    z = denoiser.denormalize(denoise(predict, scheduler, noise_BTD, num_inference_steps))
    return z, ring


def denoise_chunk(
    denoiser: Denoiser,
    scheduler: FlowMatchScheduler,
    ring: KVRing,
    *,
    audio_BTC: torch.Tensor,
    session_BC: torch.Tensor,
    noise_BTD: torch.Tensor,
    num_inference_steps: int | None = None,
) -> tuple[torch.Tensor, KVRing]:
    """`denoise_motion`, and the ring with that chunk added; the given ring stays valid."""
    z = denoise_motion(
        denoiser,
        scheduler,
        ring,
        audio_BTC=audio_BTC,
        session_BC=session_BC,
        noise_BTD=noise_BTD,
        num_inference_steps=num_inference_steps,
    )
    return z, remember(denoiser, ring, z, audio_BTC=audio_BTC, session_BC=session_BC)


def remember(
    denoiser: Denoiser,
    ring: KVRing,
    z_BTD: torch.Tensor,
    *,
    audio_BTC: torch.Tensor,
    session_BC: torch.Tensor,
) -> KVRing:
    """The ring with the clean frames of one chunk added: the motion frames that later chunks see."""
    sigma = z_BTD.new_full((1, 1), CLEAN)
    _, keys, values = denoiser(denoiser.normalize(z_BTD), sigma, audio_BTC, session_BC, None)
    return ring.append(keys, values)
