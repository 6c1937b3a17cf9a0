"""The diffusion network: a small transformer over motion latents of successive video frames.

Shape legend: B batch, T frames, N frames held by the ring, D motion latent (z in the decoder's units, x
normalised), F audio feature, C channels, H heads, E channels per head, L layers, K style numbers.

A chunk's frames see each other and the clean frames before them, whose keys and values lie in a `KVRing`.
Clean frames see their own chunk only, so a ring entry depends on nothing older than itself: the memory is
exactly `context_frames` long, and errors cannot pile up inside it over a session of hours. Keys are stored
before rotation and rotated by their place in the ring, so positions never grow.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from pipeline.onnx_graph import OnnxGraph

THETA = 1000.0  # of the rotary places
LEFT_SLOTS = 2  # frame t also reads the features of t-2 and t-1
CLEAN = 0.0  # the noise level at which context frames are read
UNSEEN = -1e9  # added to the scores of what a frame does not see


@dataclass(frozen=True, eq=False)
class KVRing:
    """Unrotated keys and values of the last clean frames, oldest first: [L, B, H, N, E], N <= capacity."""

    keys: torch.Tensor
    values: torch.Tensor
    capacity: int

    @property
    def frames(self) -> int:
        return self.keys.shape[3]

    @cached_property
    def placed(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys rotated by their places 0 .. N - 1, and values: what attention reads, the same in every step."""
        return rotate(self.keys, rotation(self.frames, self.keys.shape[4], like=self.keys)), self.values

    def append(self, keys: torch.Tensor, values: torch.Tensor) -> KVRing:
        """A new ring with [L, B, H, T, E] added and the oldest frames beyond the capacity left out."""
        drop = max(0, self.frames + keys.shape[3] - self.capacity)
        return KVRing(
            keys=torch.cat([self.keys[:, :, :, drop:], keys], dim=3)[:, :, :, -self.capacity :],
            values=torch.cat([self.values[:, :, :, drop:], values], dim=3)[:, :, :, -self.capacity :],
            capacity=self.capacity,
        )


def rotation(frames: int, channels: int, *, like: torch.Tensor) -> torch.Tensor:
    """Rotary cosines and signed sines [2, frames, channels] for the places 0 .. frames - 1 (arXiv 2104.09864).

    Made on the device of `like`: a copy from the host could not be part of a CUDA graph.
    """
    make = _kept_rotation if like.device.type == "cpu" else _rotation
    return make(frames, channels, like.device, like.dtype)


def _rotation(frames: int, channels: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    frequency = THETA ** (-torch.arange(0, channels, 2, dtype=torch.float32, device=device) / channels)
    angle = torch.arange(frames, dtype=torch.float32, device=device)[:, None] * frequency[None]
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)]).to(dtype)


@lru_cache(maxsize=256)
def _kept_rotation(frames: int, channels: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    with torch.inference_mode(False):  # training may be the next to use it
        return _rotation(frames, channels, device, dtype)


def rotate(x_HTE: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """[..., T, E] with the first and second half of each E turned against each other by [2, T, E]."""
    return torch.addcmul(x_HTE * table[0], x_HTE.roll(x_HTE.shape[-1] // 2, -1), table[1])


def own_chunk_mask(frames: int, hop_frames: int, device: torch.device | None = None) -> torch.Tensor:
    """[T, T] bool: which frames lie in the same chunk."""
    chunk = torch.arange(frames, device=device) // hop_frames
    return chunk[:, None] == chunk[None]


def context_mask(
    frames: int, hop_frames: int, context_frames: int, device: torch.device | None = None
) -> torch.Tensor:
    """[T, T] bool: which earlier frames a frame's chunk still finds in the ring."""
    place = torch.arange(frames, device=device)
    start = (place // hop_frames * hop_frames)[:, None]
    return (place[None] < start) & (place[None] >= start - context_frames)


def _normed(x: torch.Tensor, norm: nn.RMSNorm) -> torch.Tensor:
    """`norm(x)` in the type of x: in mixed precision a weight of another type would rule out the fused kernel."""
    weight = cast(torch.Tensor, norm.weight).to(x.dtype)
    return functional.rms_norm(x, tuple(norm.normalized_shape), weight, norm.eps)


class Block(nn.Module):
    """Attention and MLP, both modulated by noise level, style and reference."""

    def __init__(self, channels: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(channels * mlp_ratio)
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.query_norm = nn.RMSNorm(channels // heads, eps=1e-6)
        self.key_norm = nn.RMSNorm(channels // heads, eps=1e-6)
        self.out = nn.Linear(channels, channels)
        self.up = nn.Linear(channels, hidden)
        self.down = nn.Linear(hidden, channels)
        self.modulation = nn.Parameter(torch.zeros(6, channels))

    def forward(
        self,
        h_BTC: torch.Tensor,
        modulation_6BTC: torch.Tensor,
        past: tuple[torch.Tensor, torch.Tensor] | None,
        table: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """New h, and the unrotated keys and values [B, H, T, E] of these frames.

        modulation_6BTC: shift, scale (around 1) and gate of attention and MLP. past: rotated keys, and values.
        table: `rotation` of these frames' places.
        """
        batch, frames, channels = h_BTC.shape
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation_6BTC.unbind(0)

        x = torch.addcmul(shift_a, functional.layer_norm(h_BTC, (channels,)), scale_a)
        q, k, v = self.qkv(x).view(batch, frames, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k = _normed(q, self.query_norm), _normed(k, self.key_norm)
        all_k, all_v = rotate(k, table), v
        if past is not None:
            all_k, all_v = torch.cat([past[0], all_k], 2), torch.cat([past[1], all_v], 2)
        attended = functional.scaled_dot_product_attention(rotate(q, table), all_k, all_v, attn_mask=mask)
        attended = self.out(attended.transpose(1, 2).reshape(batch, frames, channels))
        h_BTC = torch.addcmul(h_BTC, gate_a, attended)

        x = torch.addcmul(shift_m, functional.layer_norm(h_BTC, (channels,)), scale_m)
        h_BTC = torch.addcmul(h_BTC, gate_m, self.down(functional.gelu(self.up(x), approximate="tanh")))
        return h_BTC, k, v


class Denoiser(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Predicts clean motion latents from noisy ones, audio features, context, reference and style.

    latent_size: D. audio_size: F. max_right_frames: audio slots after the present frame; those that a session
    does not wait for are filled with a learned token, so one set of weights serves every latency.
    context_frames: motion frames that the ring holds.
    """

    @register_to_config
    def __init__(
        self,
        latent_size: int = 40,
        audio_size: int = 256,
        channels: int = 256,
        layers: int = 6,
        heads: int = 4,
        mlp_ratio: float = 4.0,
        context_frames: int = 40,
        max_right_frames: int = 2,
        style_size: int = 2,
    ) -> None:
        super().__init__()
        if channels % heads or (channels // heads) % 2:
            raise ValueError(
                f"{channels} channels do not split into {heads} heads of even size; choose other numbers."
            )
        self.latent_size, self.heads, self.channels = latent_size, heads, channels
        self.context_frames, self.max_right_frames = context_frames, max_right_frames
        slots = LEFT_SLOTS + 1 + max_right_frames
        self.missing_audio = nn.Parameter(torch.zeros(audio_size))
        self.audio_in = nn.Sequential(
            nn.Linear(slots * audio_size, channels), nn.SiLU(), nn.Linear(channels, channels)
        )
        self.lids_in = nn.Linear(2, channels)
        self.latent_in = nn.Linear(latent_size, channels)
        self.reference_in = nn.Linear(latent_size, channels)
        self.style_in = nn.Sequential(
            nn.Linear(2 * style_size, channels), nn.SiLU(), nn.Linear(channels, channels)
        )
        self.sigma_in = nn.Sequential(nn.Linear(64, channels), nn.SiLU(), nn.Linear(channels, channels))
        self.modulation = nn.Linear(channels, 6 * channels)
        self.blocks = nn.ModuleList(Block(channels, heads, mlp_ratio) for _ in range(layers))
        self.out_modulation = nn.Linear(channels, 2 * channels)
        self.latent_out = nn.Linear(channels, latent_size)
        self.register_buffer("sigma_frequencies", torch.logspace(0, 2, 32), persistent=False)
        self.register_buffer("unscaled", torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0, 0.0]), persistent=False)
        self.register_buffer("latent_mean", torch.zeros(latent_size))
        self.register_buffer("latent_scale", torch.ones(latent_size))
        self.graph: OnnxGraph | None = None
        self._levels: dict[float, torch.Tensor] = {}
        nn.init.zeros_(self.lids_in.weight)
        nn.init.zeros_(self.lids_in.bias)
        for start_small in (self.modulation, self.out_modulation):
            nn.init.normal_(start_small.weight, std=0.02)
            nn.init.zeros_(start_small.bias)
        with torch.no_grad():
            for block in self.blocks:
                cast(Block, block).modulation[2::3] = 0.5  # gates: every layer takes part from the start
            self.latent_out.weight.mul_(0.1)
            self.latent_out.bias.zero_()

    def new_ring(self, batch: int = 1) -> KVRing:
        """A ring that holds nothing yet."""
        shape = (len(self.blocks), batch, self.heads, 0, self.channels // self.heads)
        empty = torch.zeros(shape, device=self.device, dtype=self.dtype)
        return KVRing(keys=empty, values=empty, capacity=self.context_frames)

    def normalize(self, z: torch.Tensor) -> torch.Tensor:
        """Motion latents [..., D] to the unit-variance numbers that are noised and predicted."""
        x: torch.Tensor = (z - self.latent_mean) / self.latent_scale
        return x

    def denormalize(self, x: torch.Tensor) -> torch.Tensor:
        z: torch.Tensor = x * self.latent_scale + self.latent_mean
        return z

    def embed_audio(
        self, features_BTF: torch.Tensor, right_frames: int, lids_BT: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Tokens [B, T, C] from features of the frames -2 .. T - 1 + right_frames around the chunk.

        Frame t reads the features t-2 .. t+right_frames, so nothing is heard beyond the stated right context.
        lids_BT says how far the lids are closed, 0 to 1 (negative or None: not stated, the model may choose).
        """
        if not 0 <= right_frames <= self.max_right_frames:
            raise ValueError(
                f"right_frames is {right_frames}, but this model reads 0 to "
                f"{self.max_right_frames} frames ahead."
            )
        frames = features_BTF.shape[1] - LEFT_SLOTS - right_frames
        features_BTF = functional.layer_norm(features_BTF, features_BTF.shape[-1:])
        heard = [features_BTF[:, s : s + frames] for s in range(LEFT_SLOTS + 1 + right_frames)]
        missing = self.missing_audio.expand(features_BTF.shape[0], frames, -1)
        slots = heard + [missing] * (self.max_right_frames - right_frames)
        if lids_BT is None:
            lids_BT = features_BTF.new_full((features_BTF.shape[0], frames), -1.0)
        lids = torch.stack([lids_BT.clamp_min(0.0), (lids_BT >= 0).to(lids_BT.dtype)], dim=-1)
        return cast(torch.Tensor, self.audio_in(torch.cat(slots, dim=-1)) + self.lids_in(lids))

    def embed_session(self, z_ref_BD: torch.Tensor, style_BK: torch.Tensor) -> torch.Tensor:
        """What stays the same over a chunk, [B, C]: reference latent and style (negative: not stated)."""
        stated = style_BK >= 0
        style = torch.cat([style_BK.clamp_min(0.0), stated.to(style_BK.dtype)], dim=-1)
        return cast(torch.Tensor, self.reference_in(self.normalize(z_ref_BD)) + self.style_in(style))

    def forward(
        self,
        x_BTD: torch.Tensor,
        sigma_BT: torch.Tensor,
        audio_BTC: torch.Tensor,
        session_BC: torch.Tensor,
        ring: KVRing | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """One chunk. Returns the predicted clean x0 [B, T, D] and the keys and values [L, B, H, T, E].

        sigma_BT may be [B, 1] or [1, 1]. Frames see each other and all frames of the ring.
        """
        past_frames = 0 if ring is None else ring.frames
        table = self._rotation(past_frames + x_BTD.shape[1], x_BTD)[:, past_frames:]
        past = None if ring is None else ring.placed
        return self._run(x_BTD, sigma_BT, audio_BTC, session_BC[:, None], past, table, None)

    def after_memory(
        self,
        memory: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        x_BTD: torch.Tensor,
        sigma_BT: torch.Tensor,
        audio_BTC: torch.Tensor,
        session_BC: torch.Tensor,
        ring: KVRing,
    ) -> tuple[torch.Tensor, KVRing]:
        """The predicted x0 [B, T, D] of a chunk, and the ring with the chunk before it, both in one pass.

        memory: that chunk, clean and normalised [B, S, D], with its audio [B, S, C] and session [B, C]. The same as
        first to `remember` it and then to predict, for half the time: it is reading the weights that takes it.
        """
        clean_BSD, heard_BSC, held_BC = memory
        held, clean, noisy = ring.frames, clean_BSD.shape[1], x_BTD.shape[1]
        place = torch.arange(held + clean + noisy, device=x_BTD.device)
        # Clean frames see their own chunk; the noisy ones what the ring will hold, and each other.
        dropped = max(0, held + clean - ring.capacity)
        own = (place >= held) & (place < held + clean)
        mask = torch.cat([own.expand(clean, -1), (place >= dropped).expand(noisy, -1)])
        sigma = torch.cat([sigma_BT.new_full((1, clean), CLEAN), sigma_BT.expand(-1, noisy)], 1)
        session = torch.cat(
            [held_BC[:, None].expand(-1, clean, -1), session_BC[:, None].expand(-1, noisy, -1)], 1
        )
        table = self._rotation(held + clean + noisy, x_BTD)[:, held:]
        x0, keys, values = self._run(
            torch.cat([clean_BSD, x_BTD], 1), sigma, torch.cat([heard_BSC, audio_BTC], 1), session, ring.placed,
            table, mask,
        )  # fmt: skip
        return x0[:, clean:], ring.append(keys[:, :, :, :clean], values[:, :, :, :clean])

    def encode_sequence(
        self, clean_BTD: torch.Tensor, audio_BTC: torch.Tensor, session_BC: torch.Tensor, hop_frames: int
    ) -> KVRing:
        """What `remember` would have put into the ring, for all chunks of a sequence at once (training)."""
        frames = clean_BTD.shape[1]
        table = self._rotation(frames, clean_BTD)
        mask = own_chunk_mask(frames, hop_frames, clean_BTD.device)
        sigma = clean_BTD.new_full((1, 1), CLEAN)
        _, keys, values = self._run(clean_BTD, sigma, audio_BTC, session_BC[:, None], None, table, mask)
        return KVRing(keys=keys, values=values, capacity=frames)

    def predict_sequence(
        self,
        x_BTD: torch.Tensor,
        sigma_BT: torch.Tensor,
        audio_BTC: torch.Tensor,
        session_BC: torch.Tensor,
        context: KVRing,
        hop_frames: int,
    ) -> torch.Tensor:
        """x0 [B, T, D] for all chunks at once, each seeing what of `encode_sequence` its ring would hold."""
        frames = x_BTD.shape[1]
        table = self._rotation(frames, x_BTD)
        past = context_mask(frames, hop_frames, self.context_frames, x_BTD.device)
        mask = torch.cat([past, own_chunk_mask(frames, hop_frames, x_BTD.device)], 1)
        x0, _, _ = self._run(x_BTD, sigma_BT, audio_BTC, session_BC[:, None], context.placed, table, mask)
        return x0

    def _rotation(self, frames: int, like: torch.Tensor) -> torch.Tensor:
        return rotation(frames, self.channels // self.heads, like=like)

    def _run(
        self,
        x_BTD: torch.Tensor,
        sigma_BT: torch.Tensor,
        audio_BTC: torch.Tensor,
        session_BTC: torch.Tensor,
        past: tuple[torch.Tensor, torch.Tensor] | None,
        table: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if self.graph is not None and not torch.is_grad_enabled():
            return self._run_graph(self.graph, x_BTD, sigma_BT, audio_BTC, session_BTC, past, table, mask)
        condition = functional.silu(self._level(sigma_BT) + session_BTC)
        modulation_6BTC = self.modulation(condition).unflatten(-1, (6, self.channels)).permute(2, 0, 1, 3)
        own_L6C = torch.stack([cast(Block, block).modulation for block in self.blocks])
        modulation_L6BTC = modulation_6BTC + (own_L6C + self.unscaled[:, None])[:, :, None, None]
        h = self.latent_in(x_BTD) + audio_BTC
        keys, values = [], []
        for layer, block in enumerate(self.blocks):
            before = None if past is None else (past[0][layer], past[1][layer])
            h, k, v = block(h, modulation_L6BTC[layer], before, table, mask)
            keys.append(k)
            values.append(v)
        shift, scale = self.out_modulation(condition).chunk(2, dim=-1)
        h = functional.layer_norm(h, (self.channels,)) * (1 + scale) + shift
        return self.latent_out(h), torch.stack(keys), torch.stack(values)

    def _level(self, sigma_BT: torch.Tensor) -> torch.Tensor:
        """The embedding [B, T, C] of noise levels."""
        angle = sigma_BT[..., None] * self.sigma_frequencies
        return cast(torch.Tensor, self.sigma_in(torch.cat([angle.cos(), angle.sin()], dim=-1)))

    def _run_graph(
        self,
        graph: OnnxGraph,
        x_BTD: torch.Tensor,
        sigma_BT: torch.Tensor,
        audio_BTC: torch.Tensor,
        session_BTC: torch.Tensor,
        past: tuple[torch.Tensor, torch.Tensor] | None,
        table: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What `_run` makes, in ONNX Runtime (`pipeline.training.export_onnx`)."""
        batch, rows = x_BTD.shape[:2]
        keys, values = self.new_ring(batch).placed if past is None else past
        levels = []
        for sigma in sigma_BT.expand(1, rows)[0].tolist():  # few different ones, again and again
            if sigma not in self._levels:
                self._levels[sigma] = self._level(sigma_BT.new_tensor([[sigma]]))
            levels.append(self._levels[sigma])
        bias = x_BTD.new_zeros(rows, keys.shape[3] + rows)
        if mask is not None:
            bias.masked_fill_(~mask, UNSEEN)
        x0, new_keys, new_values = graph(
            {
                "x": x_BTD,
                "level": torch.cat(levels, 1).expand(batch, rows, -1),
                "audio": audio_BTC,
                "session": session_BTC.expand(batch, rows, -1),
                "keys": keys,
                "values": values,
                "table": table,
                "bias": bias,
            }
        )
        return x0, new_keys, new_values
