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

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import logging

from pipeline import checkpoint
from pipeline.audio_encoder import AudioEncoder
from pipeline.autoencoder import FrameDecoder, MotionEncoder, PortraitEncoder
from pipeline.blinks import lids_closed
from pipeline.denoiser import LEFT_SLOTS, Denoiser
from pipeline.drawing import DrawingModel, Painter, Painters, PreparedPortrait
from pipeline.face_preparation import FacePreparation, Progress, face_digest, laid_on
from pipeline.onnx_graph import PASS_GRAPH, STREAM_GRAPH, OnnxGraph
from pipeline.portrait import Portrait
from pipeline.sampler import denoise_after, frame_noise
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


class AvatarPipeline(DiffusionPipeline):  # type: ignore[misc]
    """The talking portrait: `prepare` a portrait once, then `init_state` and `step`, or `__call__` as a loop of `step`.

    Holds no session. drawing: what every portrait is drawn with; `DrawingModel.first_order` until it is learned.
    """

    audio_encoder: AudioEncoder
    denoiser: Denoiser
    portrait_encoder: PortraitEncoder
    motion_encoder: MotionEncoder
    frame_decoder: FrameDecoder
    scheduler: FlowMatchScheduler
    drawing: DrawingModel

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
        untrained = DrawingModel.first_order(frame_decoder.config.latent_size)
        self.drawing = DrawingModel(untrained.tensors | laid_on(frame_decoder))
        self._painters = Painters(lambda portrait: Painter(portrait, self.drawing))
        self._folder: Path | None = None

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
        pipe._folder = folder
        pipe.drawing = DrawingModel.load(folder)
        pipe.face_sha256 = checkpoint.face_sha256(folder)
        return pipe

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Write every part as JSON and safetensors, and SHA256SUMS beside them."""
        super().save_pretrained(str(save_directory), **kwargs)
        DrawingModel(self.drawing.tensors | laid_on(self.frame_decoder)).save(Path(save_directory))
        checkpoint.write_sums(Path(save_directory))

    def use_graphs(self) -> None:
        """From now on denoiser and audio encoder run in ONNX Runtime, where the model's folder has their graphs."""
        for name, module, file in (
            ("denoiser", self.denoiser, PASS_GRAPH),
            ("audio_encoder", self.audio_encoder, STREAM_GRAPH),
        ):
            if self._folder is not None and (path := self._folder / name / file).is_file():
                module.graph = OnnxGraph(path, module)

    def window_spec(self, hop_frames: int = 2, right_frames: int = 2) -> WindowSpec:
        """The windows this model reads; the left context is what audio encoder and denoiser look back to."""
        if not 0 <= right_frames <= self.denoiser.max_right_frames:
            raise ValueError(
                f"right_frames is {right_frames}, but this model reads 0 to "
                f"{self.denoiser.max_right_frames} frames ahead."
            )
        left = self.audio_encoder.left_context_frames + LEFT_SLOTS
        return WindowSpec(hop_frames=hop_frames, left_frames=left, right_frames=right_frames)

    @cached_property
    def face_sha256(self) -> str:
        """Of all that decides how a portrait is drawn: prepared portraits of another one do not fit.

        From the weights where there are no files yet.
        """
        return face_digest(self.portrait_encoder, self.motion_encoder, self.frame_decoder, self.drawing)

    def prepare(self, portrait: Portrait, progress: Progress = lambda share: None) -> PreparedPortrait:
        """The portrait, ready to be drawn; two to three seconds on two cores, once. progress: told the share done."""
        preparation = FacePreparation(
            self.portrait_encoder, self.motion_encoder, self.frame_decoder, self.drawing, self.face_sha256
        )
        return preparation.prepare(portrait, progress)

    def init_state(
        self,
        portrait: Portrait | PreparedPortrait,
        *,
        window: WindowSpec,
        seed: int = 0,
        controls: Controls | None = None,
    ) -> StreamState:
        """A session's first state. A portrait that is not prepared yet is, which takes its time."""
        if not isinstance(portrait, PreparedPortrait):
            portrait = self.prepare(portrait)
        elif portrait.model != self.face_sha256:
            raise ValueError(
                f"The portrait '{portrait.name}' was prepared for another model; prepare it anew."
            )
        state = self.start(portrait.z_ref, window=window, seed=seed, controls=controls)
        return replace(state, painter=self._painters.of(portrait))

    def start(
        self,
        z_ref_D: npt.NDArray[np.float32],
        *,
        window: WindowSpec,
        seed: int = 0,
        controls: Controls | None = None,
    ) -> StreamState:
        """The first state of a session that is drawn elsewhere; z_ref_D: the portrait's own motion latent."""
        expected = self.window_spec(window.hop_frames, window.right_frames)
        if window != expected:
            raise ValueError(
                f"This model needs windows like {expected}, not {window}; use pipe.window_spec()."
            )
        z_ref_1D = torch.from_numpy(np.array(z_ref_D, np.float32))[None].to(self.device)
        return StreamState(
            window=window,
            z_ref_1D=z_ref_1D,
            ring=self.denoiser.new_ring(),
            shown=ShownMotion.start(z_ref_1D),
            seed=seed,
            controls=controls or Controls(),
        )

    def step(
        self, state: StreamState, window: AudioWindow, *, num_inference_steps: int | None = None
    ) -> tuple[StreamState, FrameChunk]:
        """The frames of the next chunk and the state after it; the given one stays valid. `move` and `draw` in one."""
        state, motion = self.move(state, window, num_inference_steps=num_inference_steps)
        frames, drawn_ms = self.draw(state, motion.z_TD)
        chunk = FrameChunk(motion.first_frame, frames, motion.z_TD, motion.timings_ms | drawn_ms)
        return state, chunk

    @torch.inference_mode()
    def move(
        self, state: StreamState, window: AudioWindow, *, num_inference_steps: int | None = None
    ) -> tuple[StreamState, ChunkMotion]:
        """The motion of the next chunk and the state after it; the given state stays valid."""
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
        started = time.perf_counter()
        hearing = state.hearing.after(spec.fresh(window, state.unheard_frames))
        speech = self._hear(state, window, hearing.gain)
        heard = time.perf_counter()

        frames = spec.frames(window.index)
        lids_1T = torch.from_numpy(lids_closed(state.seed, frames))[None].to(speech.features_1TF)
        style = [[state.controls.expressiveness, state.controls.head_motion]]
        audio_1TC = self.denoiser.embed_audio(speech.features_1TF, spec.right_frames, lids_1T)
        session_1C = self.denoiser.embed_session(state.z_ref_1D, state.z_ref_1D.new_tensor(style))
        z_1TD, ring = denoise_after(
            self.denoiser,
            self.scheduler,
            state.ring,
            state.memory,
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
            ring=ring,
            memory=memory,
            speech=speech,
            unheard_frames=0,
            hearing=hearing,
            shown=shown,
            chunk_index=state.chunk_index + 1,
        )
        return state, ChunkMotion(frames.start, shown_1TD[0].float().cpu().numpy(), timings_ms)

    def _hear(self, state: StreamState, window: AudioWindow, gain: float) -> Speech:
        """The speech features of this window, its new samples raised by `gain`; only what is new since the last window
        that was heard is computed. Windows in between cost little more: whoever is late must not become later."""
        spec, past = state.window, state.speech
        pcm_1N = torch.from_numpy(window.pcm * np.float32(gain))[None].to(state.z_ref_1D.device)
        wanted = LEFT_SLOTS + spec.hop_frames + spec.right_frames
        new = spec.hop_frames + state.unheard_frames
        if past is None or new > spec.left_frames:
            return Speech(*self.audio_encoder.hear(pcm_1N, wanted, None))
        new_1TF, heard = self.audio_encoder.hear(pcm_1N[:, -new * spec.samples_per_frame :], new, past.heard)
        return Speech(torch.cat([past.features_1TF, new_1TF], 1)[:, -wanted:], heard)

    def draw(
        self, state: StreamState, z_TD: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.uint8], dict[str, float]]:
        """Frames uint8 [T,H,W,3] of motion latents, and the ms of the stage draw.

        Needs of the state what stays the same over a session, so frames may be drawn in any order and thread.
        """
        if state.painter is None:
            raise ValueError(
                "The session was begun without a portrait; draw its motion where the portrait is."
            )
        started = time.perf_counter()
        frames = state.painter.draw(z_TD)
        return frames, {"draw": 1000 * (time.perf_counter() - started)}

    def __call__(
        self,
        portrait: Portrait | PreparedPortrait,
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
