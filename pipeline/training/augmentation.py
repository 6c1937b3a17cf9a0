"""What microphones and rooms do to a voice: reverberation, noise, other voices, band limits, level, clipping.

Everything is drawn clip by clip, so that one batch holds good and bad recordings, and nothing moves a sound in time.
Shapes: B clips, N samples at 16 kHz; works on the device of its input, with torch's generator there.
"""

from __future__ import annotations

import torch
from torch import Tensor

RATE = 16_000
TAIL_SAMPLES = 8_000
DIRECT_SAMPLES = 32  # reflections arrive from 2 ms on
BLOCK = 320
QUIET_VOICE = 0.01
"""A clip in which nobody speaks gets noise as if this (RMS) were its voice: a noisy room is no reason to speak."""


def augment(clean_BN: Tensor, share: float = 0.85) -> Tensor:
    """Clips [B,N] in -1..1 as a worse microphone hears them; a `share` of them is changed at all."""
    out = torch.where(_chance(clean_BN, 0.4), in_a_room(clean_BN), clean_BN)
    voice = voice_level(out).clamp_min(QUIET_VOICE)
    noise = torch.where(_chance(out, 0.35), babble(out), coloured_noise(out))
    noise = noise / _level(noise).clamp_min(1e-5)
    ratio_db = _uniform(out, 0.0, 36.0)
    out = out + torch.where(_chance(out, 0.7), noise * voice * 10 ** (-ratio_db / 20), 0.0)
    out = torch.where(_chance(out, 0.25), band_limited(out), out)
    out = (out * 10 ** (_uniform(out, -26.0, 8.0) / 20)).clamp(-1, 1)
    return torch.where(_chance(out, share), out, clean_BN)


def voice_level(pcm_BN: Tensor) -> Tensor:
    """[B,1] RMS of the loudest quarter of each clip, pauses left out."""
    blocks = pcm_BN[:, : pcm_BN.shape[1] // BLOCK * BLOCK].unflatten(1, (-1, BLOCK)).square().mean(-1)
    return blocks.topk(max(1, blocks.shape[1] // 4), dim=1).values.mean(1, keepdim=True).sqrt()


def in_a_room(pcm_BN: Tensor) -> Tensor:
    """The direct sound and a decaying tail: 0.1 to 0.7 s of reverberation, -15 to +3 dB of the direct sound."""
    time = torch.arange(TAIL_SAMPLES, device=pcm_BN.device) / RATE
    decay = torch.exp(-6.9 * time / _uniform(pcm_BN, 0.1, 0.7))
    tail = torch.randn(len(pcm_BN), TAIL_SAMPLES, device=pcm_BN.device) * decay
    tail[:, :DIRECT_SAMPLES] = 0.0
    tail = tail / tail.norm(dim=1, keepdim=True) * 10 ** (_uniform(pcm_BN, -15.0, 3.0) / 20)
    tail[:, 0] = 1.0
    size = _fft_size(pcm_BN.shape[1] + TAIL_SAMPLES)
    spectrum = torch.fft.rfft(pcm_BN, size) * torch.fft.rfft(tail, size)
    return torch.fft.irfft(spectrum, size)[:, : pcm_BN.shape[1]]


def coloured_noise(pcm_BN: Tensor) -> Tensor:
    """Noise between white and brown, another colour in every clip."""
    size = _fft_size(pcm_BN.shape[1])
    spectrum = torch.fft.rfft(torch.randn(len(pcm_BN), size, device=pcm_BN.device))
    bins = torch.arange(1, spectrum.shape[1] + 1, device=pcm_BN.device)
    return torch.fft.irfft(spectrum * bins ** (-_uniform(pcm_BN, 0.0, 1.0)), size)[:, : pcm_BN.shape[1]]


def babble(pcm_BN: Tensor, voices: int = 5) -> Tensor:
    """One to `voices` other clips of the batch at once, each at a place of its own."""
    total = torch.zeros_like(pcm_BN)
    for voice in range(1, voices + 1):
        other = pcm_BN.roll((voice, int(torch.randint(pcm_BN.shape[1], ()))), (0, 1))
        other = other / voice_level(other).clamp_min(1e-3)
        total = total + torch.where(_chance(pcm_BN, 1.0 if voice == 1 else 0.6), other, 0.0)
    return total


def band_limited(pcm_BN: Tensor) -> Tensor:
    """Between 20 to 300 and 3000 to 8000 Hz, as small or old microphones and telephones."""
    size = _fft_size(pcm_BN.shape[1] + BLOCK)  # silence behind, so that the end does not ring into the start
    spectrum = torch.fft.rfft(pcm_BN, size)
    hertz = torch.linspace(0, RATE / 2, spectrum.shape[1], device=pcm_BN.device)
    low, high = _uniform(pcm_BN, 20.0, 300.0), _uniform(pcm_BN, 3000.0, 8000.0)
    passed = torch.sigmoid((hertz - low) / 30) * torch.sigmoid((high - hertz) / 200)
    return torch.fft.irfft(spectrum * passed, size)[:, : pcm_BN.shape[1]]


def _fft_size(samples: int) -> int:
    """The next power of two: other lengths can take a GPU many times as long."""
    return 1 << (samples - 1).bit_length()


def _level(pcm_BN: Tensor) -> Tensor:
    return pcm_BN.square().mean(1, keepdim=True).sqrt()


def _uniform(like_BN: Tensor, low: float, high: float) -> Tensor:
    return torch.empty(len(like_BN), 1, device=like_BN.device).uniform_(low, high)


def _chance(like_BN: Tensor, share: float) -> Tensor:
    return torch.rand(len(like_BN), 1, device=like_BN.device) < share
