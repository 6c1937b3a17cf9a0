"""Audio windows to video frames of one portrait.

    pipe = AvatarPipeline.from_pretrained("portrait_256")
    for chunk in pipe(prepare_portrait("me.jpg"), pcm, sample_rate=48_000):
        show(chunk.frames)

Live, window by window (`pcm` being mono at 16 kHz here):

    window = pipe.window_spec()
    state = pipe.init_state(prepare_portrait("me.jpg"), window=window, seed=1)
    state, chunk = pipe.step(state, window.cut(pcm, 0))

The pipeline itself holds weights only. A session lives in its `StreamState`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import logging

from pipeline import checkpoint
from pipeline.audio_encoder import AudioEncoder
from pipeline.autoencoder import POSE_SIZE, FrameDecoder, MotionEncoder, PortraitEncoder
from pipeline.blinks import lids_closed
from pipeline.compositor import composite
from pipeline.denoiser import LEFT_SLOTS, Denoiser
from pipeline.portrait import Portrait
from pipeline.sampler import denoise_motion, frame_noise, remember
from pipeline.samples import to_float
from pipeline.scheduler import FlowMatchScheduler
from pipeline.shown_motion import ShownMotion
from pipeline.state import ChunkMotion, Controls, FrameChunk, Memory, Speech, StreamState
from pipeline.windowing import AudioWindow, WindowSpec

COMPONENTS: dict[str, type[Any]] = {
    "audio_encoder": AudioEncoder,
    "denoiser": Denoiser,
    "portrait_encoder": PortraitEncoder,
    "motion_encoder": MotionEncoder,
    "frame_decoder": FrameDecoder,
    "scheduler": FlowMatchScheduler,
}

_PAINTERS = ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="painter")


class AvatarPipeline(DiffusionPipeline):  # type: ignore[misc]
    """The talking portrait: `init_state`, `step`, and `__call__` as a loop of `step`. Holds no session."""

    audio_encoder: AudioEncoder
    denoiser: Denoiser
    portrait_encoder: PortraitEncoder
    motion_encoder: MotionEncoder
    frame_decoder: FrameDecoder
    scheduler: FlowMatchScheduler

    def __init__(
        self,
        audio_encoder: AudioEncoder,
        denoiser: Denoiser,
        portrait_encoder: PortraitEncoder,
        motion_encoder: MotionEncoder,
        frame_decoder: FrameDecoder,
        scheduler: FlowMatchScheduler,
    ) -> None:
        super().__init__()
        self.register_modules(
            audio_encoder=audio_encoder,
            denoiser=denoiser,
            portrait_encoder=portrait_encoder,
            motion_encoder=motion_encoder,
            frame_decoder=frame_decoder,
            scheduler=scheduler,
        )
        for name, component in COMPONENTS.items():
            if issubclass(component, torch.nn.Module):
                getattr(self, name).eval().requires_grad_(False)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """Load a model folder, or a bundled model by its name, after checking its SHA256SUMS.

        CheckpointError says what is wrong.
        """
        folder = checkpoint.resolve(pretrained_model_name_or_path)
        checkpoint.verify(folder)
        kwargs = {"local_files_only": True, "low_cpu_mem_usage": False} | kwargs
        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            pipe: Self = super().from_pretrained(str(folder), **kwargs)
        finally:
            if shown:
                logging.enable_progress_bar()
        return pipe

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Write every part as JSON and safetensors, and SHA256SUMS beside them."""
        super().save_pretrained(str(save_directory), **kwargs)
        checkpoint.write_sums(Path(save_directory))

    def window_spec(self, hop_frames: int = 2, right_frames: int = 2) -> WindowSpec:
        """The windows this model reads; the left context is what audio encoder and denoiser look back to."""
        if not 0 <= right_frames <= self.denoiser.max_right_frames:
            raise ValueError(
                f"right_frames is {right_frames}, but this model reads 0 to "
                f"{self.denoiser.max_right_frames} frames ahead."
            )
        left = self.audio_encoder.left_context_frames + LEFT_SLOTS
        return WindowSpec(hop_frames=hop_frames, left_frames=left, right_frames=right_frames)

    @torch.inference_mode()
    def init_state(
        self, portrait: Portrait, *, window: WindowSpec, seed: int = 0, controls: Controls | None = None
    ) -> StreamState:
        """A session's first state. The only place where the portrait is encoded (some 10 ms)."""
        expected = self.window_spec(window.hop_frames, window.right_frames)
        if window != expected:
            raise ValueError(
                f"This model needs windows like {expected}, not {window}; use pipe.window_spec()."
            )
        crop = torch.from_numpy(np.ascontiguousarray(portrait.crop)).to(self.device)
        crop_B3HW = crop.permute(2, 0, 1)[None].float() / 255.0
        z_ref_1D = self.motion_encoder(crop_B3HW).float()
        z_ref_1D[:, -POSE_SIZE:] = 0.0  # head pose is relative to the portrait's own
        return StreamState(
            portrait=portrait,
            window=window,
            z_ref_1D=z_ref_1D,
            features=self.portrait_encoder(crop_B3HW),
            ring=self.denoiser.new_ring(),
            shown=ShownMotion.start(z_ref_1D),
            seed=seed,
            controls=controls or Controls(),
        )

    def step(
        self, state: StreamState, window: AudioWindow, *, num_inference_steps: int | None = None
    ) -> tuple[StreamState, FrameChunk]:
        """The frames of the next chunk and the state after it; the given state stays valid.

        `move`, `draw` and `remember` in one. A live session draws a chunk's first frame first: it is due first.
        """
        state, motion = self.move(state, window, num_inference_steps=num_inference_steps)
        frames, drawn_ms = self.draw(state, motion.z_TD)
        latents = motion.z_TD.float().cpu().numpy()
        chunk = FrameChunk(motion.first_frame, frames, latents, motion.timings_ms | drawn_ms)
        return self.remember(state), chunk

    @torch.inference_mode()
    def move(
        self, state: StreamState, window: AudioWindow, *, num_inference_steps: int | None = None
    ) -> tuple[StreamState, ChunkMotion]:
        """The motion of the next chunk and the state after it, whose ring does not hold the chunk yet."""
        spec = state.window
        if window.index != state.chunk_index:
            raise ValueError(
                f"The session is at chunk {state.chunk_index}, but the window is number {window.index}; "
                "pass windows in order, or state.skip() for one that is left out."
            )
        if window.pcm.shape != (spec.window_samples,):
            raise ValueError(
                f"The window must hold {spec.window_samples} samples, not {list(window.pcm.shape)}."
            )
        window = replace(window, pcm=to_float(window.pcm))  # one NaN would stay in the ring for good
        state = self.remember(state)
        started = time.perf_counter()
        hearing = state.hearing.after(spec.fresh(window))
        speech = self._hear(state, window, hearing.gain)
        heard = time.perf_counter()

        frames = spec.frames(window.index)
        lids_1T = torch.from_numpy(lids_closed(state.seed, frames))[None].to(speech.features_1TF)
        style = [[state.controls.expressiveness, state.controls.head_motion]]
        audio_1TC = self.denoiser.embed_audio(speech.features_1TF, spec.right_frames, lids_1T)
        session_1C = self.denoiser.embed_session(state.z_ref_1D, state.z_ref_1D.new_tensor(style))
        z_1TD = denoise_motion(
            self.denoiser,
            self.scheduler,
            state.ring,
            audio_BTC=audio_1TC,
            session_BC=session_1C,
            noise_BTD=frame_noise(state.seed, frames, self.denoiser.latent_size)[None].to(state.z_ref_1D),
            num_inference_steps=num_inference_steps,
        )
        shown_1TD, shown = state.shown.then(z_1TD, spec.right_frames, state.controls.gaze)
        timings_ms = {"features": 1000 * (heard - started), "denoise": 1000 * (time.perf_counter() - heard)}
        memory = Memory(z_1TD, audio_1TC, session_1C)
        state = replace(
            state,
            memory=memory,
            speech=speech,
            hearing=hearing,
            shown=shown,
            chunk_index=state.chunk_index + 1,
        )
        return state, ChunkMotion(frames.start, shown_1TD[0], timings_ms)

    def _hear(self, state: StreamState, window: AudioWindow, gain: float) -> Speech:
        """The speech features of this window, its new samples raised by `gain`; only what is new in it is computed,
        where the last one was heard."""
        spec, past = state.window, state.speech
        pcm_1N = torch.from_numpy(window.pcm * np.float32(gain))[None].to(self.device)
        wanted = LEFT_SLOTS + spec.hop_frames + spec.right_frames
        if past is None:
            return Speech(*self.audio_encoder.hear(pcm_1N, wanted, None))
        new_1TF, heard = self.audio_encoder.hear(pcm_1N[:, -spec.hop_samples :], spec.hop_frames, past.heard)
        return Speech(torch.cat([past.features_1TF, new_1TF], 1)[:, -wanted:], heard)

    @torch.inference_mode()
    def remember(self, state: StreamState) -> StreamState:
        """The state with its last chunk in the ring. `move` does it first of all, but it can be done before there is
        anything to move, in time that nobody waits for."""
        if (memory := state.memory) is None:
            return state
        ring = remember(
            self.denoiser, state.ring, memory.z_BTD, audio_BTC=memory.audio_BTC, session_BC=memory.session_BC
        )
        return replace(state, ring=ring, memory=None)

    def first_frames(self, count: int) -> int:
        """How many of a chunk's frames to draw before the others: a processor makes one after the other, and the
        first is due first; an accelerator makes all of them at once."""
        return 1 if self.device.type == "cpu" else count

    @torch.inference_mode()
    def draw(self, state: StreamState, z_TD: torch.Tensor) -> tuple[npt.NDArray[np.uint8], dict[str, float]]:
        """Frames uint8 [T,H,W,3] of motion latents, and the ms of the stages decode and composite.

        Needs of the state what stays the same over a session, so frames may be drawn in any order and thread.
        A processor draws them side by side, one thread each: a frame's convolutions are too small to be split.
        """
        started = time.perf_counter()
        if self.device.type != "cpu":
            parts = self._decode(state, z_TD)
            decoded = time.perf_counter()
            drawn = [(composite(state.portrait, *part), decoded) for part in parts]
        else:
            first, *rest = z_TD.split(1)
            others = [_PAINTERS.submit(self._paint, state, z_1D) for z_1D in rest]
            drawn = [self._paint(state, first), *(other.result() for other in others)]
        decoded = max(at for _, at in drawn)
        timings_ms = {
            "decode": 1000 * (decoded - started),
            "composite": 1000 * (time.perf_counter() - decoded),
        }
        return np.stack([picture for picture, _ in drawn]), timings_ms

    def _paint(self, state: StreamState, z_1D: torch.Tensor) -> tuple[npt.NDArray[np.uint8], float]:
        with torch.inference_mode():  # holds for one thread only
            (part,) = self._decode(state, z_1D)
        decoded = time.perf_counter()
        return composite(state.portrait, *part), decoded

    def _decode(self, state: StreamState, z_TD: torch.Tensor) -> list[tuple[npt.NDArray[np.float32], ...]]:
        """What `composite` needs of every frame: grid [h,w,2], mask [h,w], paint [h,w,3]."""
        decoded = self.frame_decoder(z_TD, state.z_ref_1D.expand(len(z_TD), -1), state.features)
        grids = decoded.grid_BHW2.float().cpu().numpy()
        masks = decoded.mask_B1HW[:, 0].float().cpu().numpy()
        paints = decoded.paint_B3HW.permute(0, 2, 3, 1).float().contiguous().cpu().numpy()
        return list(zip(grids, masks, paints, strict=True))

    def __call__(
        self,
        portrait: Portrait,
        pcm: npt.ArrayLike,
        *,
        sample_rate: float,
        window: WindowSpec | None = None,
        seed: int = 0,
        controls: Controls | None = None,
        num_inference_steps: int | None = None,
    ) -> Iterator[FrameChunk]:
        """Frames for a whole recording, chunk by chunk.

        pcm: [samples], [samples, channels] or [channels, samples]; float in [-1, 1], or int16, int32 or uint8.
        sample_rate: of `pcm` in Hz; there is no default, since the wrong one makes lips that follow nothing.

        Raises SoundArrayError, at once, for what cannot be taken for sound.
        """
        from pipeline.sound_array import mono_sound  # a decoder's resampler, which live sessions do not need

        spec = window or self.window_spec()
        sound = mono_sound(pcm, sample_rate, spec.sample_rate)
        state = self.init_state(portrait, window=spec, seed=seed, controls=controls)
        return self._speak(state, sound, num_inference_steps)

    def _speak(
        self, state: StreamState, pcm: npt.NDArray[np.float32], num_inference_steps: int | None
    ) -> Iterator[FrameChunk]:
        for index in range(state.window.chunk_count(len(pcm))):
            window = state.window.cut(pcm, index)
            state, chunk = self.step(state, window, num_inference_steps=num_inference_steps)
            yield chunk
