"""How a pipeline runs on this machine: device, number type, threads, compilation, warm-up.

What a machine does not have is left out: asking for a GPU's speed-ups on a CPU changes nothing.
Set OMP_WAIT_POLICY=PASSIVE before torch is imported where the model shares its cores with other work.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from pipeline import quantization
from pipeline.avatar_pipeline import AvatarPipeline
from pipeline.drawing.geometry import CROP_PIXELS
from pipeline.portrait import Portrait
from pipeline.windowing import WindowSpec

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """device: `auto`, `cpu` or `cuda`. threads: of torch, 0 leaves them. compile: torch.compile, on a GPU.
    int8: on a CPU, ONNX Runtime, and weights of one byte where reading them is what takes the time."""

    device: str = "auto"
    dtype: str = "float32"
    threads: int = 0
    compile: bool = False
    int8: bool = True

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"The device '{self.device}' is not known; choose auto, cpu or cuda.")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("The device is set to cuda, but torch finds no GPU here; choose auto or cpu.")
        if self.dtype not in DTYPES:
            raise ValueError(f"The dtype '{self.dtype}' is not known; choose one of {', '.join(DTYPES)}.")
        if self.threads < 0:
            raise ValueError(f"threads is {self.threads}; it must be 0 (leave as is) or more.")

    @property
    def torch_device(self) -> torch.device:
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)


def prepare(pipe: AvatarPipeline, config: RuntimeConfig) -> AvatarPipeline:
    """Move the pipeline to its device and make its convolutions fast; returns the same pipeline."""
    if config.threads:
        torch.set_num_threads(config.threads)
        threadpool_limits(config.threads, user_api="blas")  # what draws
    device = config.torch_device
    pipe.to(device)
    for name in ("portrait_encoder", "motion_encoder", "frame_decoder"):
        getattr(pipe, name).to(memory_format=torch.channels_last)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        if config.dtype != "float32":
            pipe.frame_decoder.to(DTYPES[config.dtype])
        if config.compile:
            pipe.frame_decoder.compile(mode="reduce-overhead")
        return pipe
    if config.int8 and device.type == "cpu":
        pipe.use_graphs()
        if quantization.supported():
            for part in (pipe.audio_encoder, pipe.denoiser):
                quantization.use_bytes(part)
    if config.dtype != "float32" or config.compile:
        logger.info("On a CPU the model runs in float32 and is not compiled.")
    return pipe


def warm_up(pipe: AvatarPipeline, window: WindowSpec, *, chunks: int = 12) -> float:
    """Step a blank portrait until the first-call costs are paid; returns the median step in ms."""
    state = pipe.init_state(blank_portrait(), window=window)
    silence = np.zeros(0, np.float32)
    spans_ms = []
    for index in range(chunks):
        started = time.perf_counter()
        state, _ = pipe.step(state, window.cut(silence, index))
        spans_ms.append(1000.0 * (time.perf_counter() - started))
    return float(np.median(spans_ms[chunks // 2 :]))


def blank_portrait(side: int = 512) -> Portrait:
    """A grey picture whose middle half is the crop: for warm-up and for timing without a photo."""
    scale = 2.0 * CROP_PIXELS / side
    quarter = side // 4
    alpha = np.zeros((side, side), np.float32)
    alpha[quarter : 3 * quarter, quarter : 3 * quarter] = 1.0
    return Portrait(
        name="blank",
        canvas=np.full((side, side, 3), 128, np.uint8),
        matrix=np.array([[scale, 0.0, -scale * quarter], [0.0, scale, -scale * quarter]]),
        crop=np.full((CROP_PIXELS, CROP_PIXELS, 3), 128, np.uint8),
        alpha=alpha,
        sha256="0" * 64,
    )
