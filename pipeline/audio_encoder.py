"""Causal speech encoder: 16 kHz audio to one feature vector per 40 ms video frame.

Shapes: B batch, N samples, T frames of 640 samples, M mel bands, F feature size. Feature t depends on the
samples before (t + 1) * 640 only, and on no more than `left_context_frames` frames before frame t, so the
features of a window with enough left context equal those of the whole recording. It is trained to describe
the speech of frames t - 2 to t; who reads it two frames late has 80 ms of look-ahead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from pipeline.onnx_graph import OnnxGraph

SAMPLES_PER_FRAME = 640
_FFT, _HOP = 400, 160


def mel_filters(bands: int, fft: int, top_hz: float) -> Tensor:
    """Slaney mel filter bank [bands, fft / 2 + 1] for 16 kHz (the scale of librosa and Whisper)."""
    log_step = torch.log(torch.tensor(6.4)) / 27

    def to_mel(hz: Tensor) -> Tensor:
        return torch.where(hz < 1000, hz * 3 / 200, 15 + torch.log(hz.clamp_min(1) / 1000) / log_step)

    def to_hz(mel: Tensor) -> Tensor:
        return torch.where(mel < 15, mel * 200 / 3, 1000 * torch.exp((mel - 15) * log_step))

    edges = to_hz(torch.linspace(0, float(to_mel(torch.tensor(top_hz))), bands + 2))
    bins = torch.linspace(0, 8000, fft // 2 + 1)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp_min(0) * (2 / (edges[2:] - edges[:-2]))[:, None]


@dataclass(frozen=True, eq=False)
class Heard:
    """What the encoder keeps of a stream, so that only new sound has to be computed: the end of every layer's input.

    pcm_BN: the last samples. steps: what each layer has seen last, [B, T, C], the log-mel bands first.
    """

    pcm_BN: Tensor
    steps: tuple[Tensor, ...]


def extend_back(x_BTC: Tensor, steps: int) -> Tensor:
    """Repeat the first step `steps` times in front: [B, T, C] -> [B, steps + T, C]."""
    return torch.cat([x_BTC[:, :1].expand(-1, steps, -1), x_BTC], 1)


class CausalBlock(nn.Module):
    """Depthwise causal convolution over time, then a pointwise network (ConvNeXt, arXiv 2201.03545)."""

    def __init__(self, channels: int, kernel: int, dilation: int, expansion: int) -> None:
        super().__init__()
        self.kernel, self.dilation = kernel, dilation
        self.taps = nn.Parameter(torch.randn(kernel, channels) * kernel**-0.5)
        self.norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, channels * expansion)
        self.project = nn.Linear(channels * expansion, channels)

    @property
    def left(self) -> int:
        """How many steps before step t are read for it."""
        return (self.kernel - 1) * self.dilation

    def forward(self, x_BTC: Tensor, steps: int) -> Tensor:
        """The last `steps` steps; [B, T, C] -> [B, steps, C]."""
        # A few shifted products are many times faster on a CPU than a depthwise Conv1d.
        padded = extend_back(x_BTC, self.left)[:, -(self.left + steps) :]
        h = padded[:, :steps] * self.taps[0]
        for tap in range(1, self.kernel):
            h = h + padded[:, tap * self.dilation : tap * self.dilation + steps] * self.taps[tap]
        out: Tensor = x_BTC[:, -steps:] + self.project(functional.gelu(self.expand(self.norm(h))))
        return out


class AudioEncoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Log-mel front-end and causal convolutions at 100, 50 and 25 Hz."""

    @register_to_config
    def __init__(
        self,
        feature_size: int = 256,
        mel_bands: int = 80,
        channels: int = 256,
        blocks_50hz: int = 3,
        blocks_25hz: int = 3,
        expansion: int = 3,
    ) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(_FFT), persistent=False)
        self.register_buffer("filters", mel_filters(mel_bands, _FFT, 8000.0), persistent=False)
        self.enter = nn.Linear(4 * mel_bands, channels)
        self.at_50hz = nn.ModuleList(CausalBlock(channels, 5, 1, expansion) for _ in range(blocks_50hz))
        self.down = nn.Linear(2 * channels, channels)
        dilations = [1 + index % 2 for index in range(blocks_25hz)]
        self.at_25hz = nn.ModuleList(CausalBlock(channels, 3, dilation, expansion) for dilation in dilations)
        self.leave = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, feature_size))
        self.graph: OnnxGraph | None = None
        # In frames: 25 Hz blocks, 50 Hz blocks (two steps a frame), and less than one frame each for the
        # strided convolution and the analysis window.
        self._left_context_frames = sum(2 * d for d in dilations) + 2 * blocks_50hz + 2

    @property
    def left_context_frames(self) -> int:
        """How many frames before frame t can change feature t."""
        return self._left_context_frames

    def log_mel(self, pcm_BN: Tensor) -> Tensor:
        """[B, N] -> [B, (N - 400) / 160 + 1, M] log band powers of every 25 ms window."""
        frames = pcm_BN.unfold(-1, _FFT, _HOP) * self.window
        power = torch.fft.rfft(frames).abs().square()
        mel: Tensor = (power @ self.filters.T).clamp_min(1e-7).log()
        return (mel + 5.0) / 5.0

    def forward(self, pcm_BN: Tensor, last_frames: int | None = None) -> Tensor:
        """Samples [B, N] in -1..1 -> features [B, N / 640, F]; before the first sample there was silence.

        last_frames: how many features are wanted, from the end (None: all); no more than these need is computed.

        Raises:
            ValueError: N is not a multiple of 640.
        """
        if pcm_BN.ndim != 2 or pcm_BN.shape[1] % SAMPLES_PER_FRAME or not pcm_BN.shape[1]:
            raise ValueError(
                f"The audio has shape {tuple(pcm_BN.shape)}; it must be [batch, samples] with a positive "
                f"multiple of {SAMPLES_PER_FRAME} samples (40 ms)."
            )
        frames = pcm_BN.shape[1] // SAMPLES_PER_FRAME
        wanted = frames if last_frames is None else min(last_frames, frames)
        return self.hear(pcm_BN, wanted, None)[0]

    def hear(self, pcm_BN: Tensor, frames: int, heard: Heard | None) -> tuple[Tensor, Heard]:
        """The last `frames` features [B, frames, F] of a stream, and what to keep for the next call.

        pcm_BN: if `heard` is None the stream's end with at least its left context, else the samples that are new
        since then: they give exactly N / 640 features more, and those must be `frames`.
        """
        if heard is None:
            return self._encode(functional.pad(pcm_BN, (SAMPLES_PER_FRAME + _FFT - _HOP, 0)), frames)
        return self._encode(torch.cat([heard.pcm_BN, pcm_BN], 1), frames, heard.steps)

    def _encode(self, pcm_BN: Tensor, frames: int, past: tuple[Tensor, ...] = ()) -> tuple[Tensor, Heard]:
        """The last `frames` features. past: every layer's input before these samples; without it they begin with a
        frame of silence: each layer repeats its first step backwards, which then stands for endless silence, as
        silence gives the same activation at every step."""
        mel = self.log_mel(pcm_BN)
        mel = torch.cat([past[0], mel], 1) if past else extend_back(mel, 2)
        if past and self.graph is not None and not torch.is_grad_enabled():
            before = {f"past_{index}": step for index, step in enumerate(past[1:])}
            features, *kept = self.graph({"mel": mel} | before)
            return features, Heard(pcm_BN[:, -(_FFT - _HOP) :], (mel[:, -2:], *kept))
        steps = mel.unfold(1, 4, 2)  # four windows, every 20 ms
        if past:
            counts = [2 * frames] * len(self.at_50hz) + [frames] * len(self.at_25hz)
            entered = 2 * frames
        else:
            counts_25hz, entered = _needed(self.at_25hz, frames, steps.shape[1] // 2)
            counts_50hz, entered = _needed(self.at_50hz, 2 * entered, steps.shape[1])
            counts = counts_50hz + counts_25hz
        x = functional.gelu(self.enter(steps[:, -entered:].flatten(2)))
        kept = [mel[:, -2:]]
        for index, block in enumerate([*self.at_50hz, *self.at_25hz]):
            if index == len(self.at_50hz):
                x = self.down(x.unflatten(1, (-1, 2)).flatten(2))
            if past:
                x = torch.cat([past[1 + index], x], 1)
            left = cast(CausalBlock, block).left
            kept.append(extend_back(x, left)[:, -left:])
            x = block(x, counts[index])
        features = self.leave(x)
        return features, Heard(pcm_BN[:, -(_FFT - _HOP) :], tuple(kept))


def _needed(blocks: nn.ModuleList, wanted: int, available: int) -> tuple[list[int], int]:
    """How many last steps each block has to give, for `wanted` after all of them; and how many go in."""
    counts: list[int] = []
    for block in reversed(blocks):
        counts.insert(0, wanted)
        wanted = min(wanted + cast(CausalBlock, block).left, available)
    return counts, wanted
