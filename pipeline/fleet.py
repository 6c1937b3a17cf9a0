"""Many sessions as one batch: the whole step of B sessions with static shapes, as a GPU wants it.

Only the benchmark uses it (`pipeline/capacity.py`); the server steps one window after another.

A fleet takes B session states that stand at the same chunk, and moves them together: hear, denoise, show and remember,
with what each session carries kept in tensors of the device. It makes what `AvatarPipeline.move` makes for each of
them. Once the motion ring is full all shapes stay, and on a GPU the step is then captured as a CUDA graph: one launch
instead of some thousand. Drawing is not part of it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pipeline.audio_encoder import Heard
from pipeline.avatar_pipeline import AvatarPipeline
from pipeline.blinks import lids_closed
from pipeline.denoiser import LEFT_SLOTS, KVRing
from pipeline.hearing import Hearing
from pipeline.sampler import denoise_chunk, frame_noise
from pipeline.shown_motion import ShownMotion
from pipeline.state import StreamState
from pipeline.windowing import AudioWindow

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Carried:
    """What goes from chunk to chunk on the device: features [B,T,F], the encoder's memory, the ring, what was shown."""

    features_BTF: Tensor
    heard: Heard
    ring: KVRing
    shown: ShownMotion

    def tensors(self) -> list[Tensor]:
        return [
            self.features_BTF, self.heard.pcm_BN, *self.heard.steps, self.ring.keys, self.ring.values,
            self.shown.last_BD, self.shown.made_BD, self.shown.centre_BP, self.shown.head_2BP,
        ]  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Chunk:
    """What is new in a chunk: samples [B,N], how far lids are closed [B,T], noise [B,T,D]."""

    pcm_BN: Tensor
    lids_BT: Tensor
    noise_BTD: Tensor

    def tensors(self) -> list[Tensor]:
        return [self.pcm_BN, self.lids_BT, self.noise_BTD]


class Fleet:
    """B sessions of one pipeline that are stepped together; holds their state (the given states stay valid).

    graphs: capture the step as a CUDA graph where there is a GPU. bfloat16: compute in it where there is a GPU.
    """

    def __init__(
        self,
        pipe: AvatarPipeline,
        states: Sequence[StreamState],
        *,
        num_inference_steps: int | None = None,
        graphs: bool = True,
        bfloat16: bool = True,
    ) -> None:
        first = states[0]
        if any(state.window != first.window or state.chunk_index != 0 for state in states):
            raise ValueError("A fleet's sessions begin together and hear windows of one size.")
        if len({state.controls.gaze for state in states}) > 1:
            raise ValueError("A fleet's sessions share one gaze; it decides how the head's rest is kept.")
        self.pipe, self.window, self._steps = pipe, first.window, num_inference_steps
        self._seeds = [state.seed for state in states]
        self._hearings = [Hearing() for _ in states]
        self._gaze, self._index = first.controls.gaze, 0
        on_gpu = pipe.device.type == "cuda"
        self._graphs, self._bfloat16 = graphs and on_gpu, bfloat16 and on_gpu
        with torch.inference_mode():
            self._z_ref = torch.cat([state.z_ref_1D for state in states])
            style = [[state.controls.expressiveness, state.controls.head_motion] for state in states]
            self._session = pipe.denoiser.embed_session(self._z_ref, self._z_ref.new_tensor(style))
        self._ring, self._shown = pipe.denoiser.new_ring(len(states)), ShownMotion.start(self._z_ref)
        self._carried: _Carried | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: _Chunk | None = None
        self._outputs: Tensor | None = None

    def __len__(self) -> int:
        return len(self._seeds)

    @property
    def settled(self) -> bool:
        """Whether the ring is full, so that shapes no longer change."""
        return self._carried is not None and self._carried.ring.frames == self._carried.ring.capacity

    @torch.inference_mode()
    def step(self, windows: Sequence[AudioWindow]) -> Tensor:
        """The motion latents [B,T,D] of the next chunk of every session, as shown. On a GPU the next step overwrites
        them."""
        if len(windows) != len(self) or any(window.index != self._index for window in windows):
            raise ValueError(
                f"The fleet's {len(self)} sessions are at chunk {self._index}; give each that window."
            )
        chunk = self._chunk(windows)
        self._index += 1
        if self._carried is None or not self.settled or not self._graphs:
            made, self._carried = self._advance(chunk, self._carried, windows)
            return made
        if self._graph is None:
            self._capture(chunk, self._carried)
        assert self._graph is not None
        assert self._inputs is not None
        assert self._outputs is not None
        for held, new in zip(self._inputs.tensors(), chunk.tensors(), strict=True):
            held.copy_(new)
        self._graph.replay()
        return self._outputs

    def _chunk(self, windows: Sequence[AudioWindow]) -> _Chunk:
        pipe, frames = self.pipe, self.window.frames(self._index)
        pcm = []
        for place, window in enumerate(windows):
            fresh = self.window.fresh(window)
            self._hearings[place] = self._hearings[place].after(fresh)
            heard = window.pcm if self._index == 0 else fresh
            pcm.append(heard * np.float32(self._hearings[place].gain))
        lids = np.stack([lids_closed(seed, frames) for seed in self._seeds])
        noise = torch.stack([frame_noise(seed, frames, pipe.denoiser.latent_size) for seed in self._seeds])
        return _Chunk(
            *(x.to(pipe.device) for x in (torch.from_numpy(np.stack(pcm)), torch.from_numpy(lids), noise))
        )

    def _advance(
        self, chunk: _Chunk, carried: _Carried | None, windows: Sequence[AudioWindow] = ()
    ) -> tuple[Tensor, _Carried]:
        pipe, spec = self.pipe, self.window
        wanted = LEFT_SLOTS + spec.hop_frames + spec.right_frames
        if carried is None:
            features, heard = pipe.audio_encoder.hear(chunk.pcm_BN, wanted, None)
            ring, shown = self._ring, self._shown
        else:
            new, heard = pipe.audio_encoder.hear(chunk.pcm_BN, spec.hop_frames, carried.heard)
            features = torch.cat([carried.features_BTF, new], 1)[:, -wanted:]
            ring, shown = carried.ring, carried.shown
        with self._precision():
            z, ring = denoise_chunk(
                pipe.denoiser,
                pipe.scheduler,
                ring,
                audio_BTC=pipe.denoiser.embed_audio(features, spec.right_frames, chunk.lids_BT),
                session_BC=self._session,
                noise_BTD=chunk.noise_BTD,
                num_inference_steps=self._steps,
            )
            seen, shown = shown.then(z.float(), spec.right_frames, self._gaze)
        if self._bfloat16:  # the ring keeps the type that it began with, so shapes and types stay
            ring = replace(ring, keys=ring.keys.to(self._ring.keys), values=ring.values.to(self._ring.values))
        return seen, _Carried(features, heard, ring, shown)

    def _precision(self) -> contextlib.AbstractContextManager[object]:
        return torch.autocast("cuda", torch.bfloat16) if self._bfloat16 else contextlib.nullcontext()

    def _capture(self, chunk: _Chunk, carried: _Carried) -> None:
        """Records the step as a CUDA graph that reads the inputs and writes the carried state in place."""
        self._inputs = _Chunk(*(x.clone() for x in chunk.tensors()))
        before = [x.clone() for x in carried.tensors()]
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # libraries set themselves up outside of the capture
            for _ in range(3):
                self._advance(self._inputs, carried)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs, after = self._advance(self._inputs, carried)
            for held, new in zip(carried.tensors(), after.tensors(), strict=True):
                held.copy_(new)
        for held, value in zip(carried.tensors(), before, strict=True):
            held.copy_(value)
        logger.info("The step of %d sessions is captured as a CUDA graph.", len(self))
