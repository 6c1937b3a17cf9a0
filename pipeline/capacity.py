"""`talkalong benchmark --batch 1 2 4 ...`: how long one batched step of many sessions takes.

The server does not step so: it takes one window after another (`stream/model_process.py`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from pipeline.avatar_pipeline import AvatarPipeline
from pipeline.benchmark import percentiles
from pipeline.fleet import Fleet
from pipeline.portrait import Portrait


def measure_batches(
    pipe: AvatarPipeline,
    portrait: Portrait,
    batches: Sequence[int],
    *,
    hop_frames: int,
    right_frames: int,
    steps: int | None,
    timed: int = 50,
) -> dict[str, Any]:
    """One row a batch size, and the largest batch whose slowest hundredth still keeps 25 frames a second.

    Motion only: drawing is not counted. ValueError for a batch below 1.
    """
    window = pipe.window_spec(hop_frames, right_frames)
    period_ms = 1000.0 * window.hop_frames / window.fps
    start = pipe.init_state(portrait, window=window)
    settle = -(-pipe.denoiser.context_frames // window.hop_frames) + 2
    pcm = (0.05 * np.random.default_rng(0).standard_normal((settle + timed + 2) * window.hop_samples)).astype(
        np.float32
    )
    rows: list[dict[str, Any]] = []
    for batch in sorted(set(batches)):
        if batch < 1:
            raise ValueError(f"--batch holds {batch}; it must hold numbers of sessions from 1 on.")
        fleet = Fleet(pipe, [replace(start, seed=seed) for seed in range(batch)], num_inference_steps=steps)
        spans = []
        for index in range(settle + timed):
            windows = [window.cut(pcm, index)] * batch
            _wait(pipe)
            started = time.perf_counter()
            fleet.step(windows)
            _wait(pipe)
            if index >= settle:
                spans.append(1000.0 * (time.perf_counter() - started))
        step_ms = percentiles(spans)
        rows.append(
            {
                "batch": batch,
                "step_ms": step_ms,
                "ms_per_frame": step_ms["p50"] / (batch * window.hop_frames),
                "keeps_up": step_ms["p99"] <= period_ms,
            }
        )
    kept = [row["batch"] for row in rows if row["keeps_up"]]
    return {"rows": rows, "period_ms": period_ms, "sessions_at_25_fps": max(kept, default=0)}


def _wait(pipe: AvatarPipeline) -> None:
    if pipe.device.type == "cuda":
        torch.cuda.synchronize()
