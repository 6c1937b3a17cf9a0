"""`talkalong benchmark`: how fast the whole step runs here, as numbers with their provenance.

Times audio window to finished frames, without network: real-time factor, percentiles of the step and of its
stages, and the machine they were measured on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="portrait_256", help="a bundled model's name or a model folder")
    parser.add_argument("--portrait", type=Path, help="a photo; default: a blank picture of 512 x 512")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the audio (default: 20)")
    parser.add_argument("--hop", type=int, default=2, help="frames per chunk (default: 2)")
    parser.add_argument("--right", type=int, default=2, help="frames of look-ahead (default: 2)")
    parser.add_argument("--steps", type=int, help="denoising steps (default: the model's own)")
    parser.add_argument("--threads", type=int, default=0, help="threads of torch (default: torch decides)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument(
        "--batch",
        type=int,
        nargs="+",
        metavar="SESSIONS",
        help="also time one batched step of so many sessions (the server steps one window at a time)",
    )
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file, too")


def run(args: argparse.Namespace) -> int:
    """Measure and print; errors in the model or the portrait are printed as sentences, exit status 1."""
    try:
        figures = measure(args)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    text = json.dumps(figures, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")
    return 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """The benchmark's figures; loads torch."""
    import numpy as np
    import torch

    from pipeline import checkpoint
    from pipeline.avatar_pipeline import AvatarPipeline
    from pipeline.capacity import measure_batches
    from pipeline.portrait import prepare_portrait
    from pipeline.runtime import RuntimeConfig, blank_portrait, prepare, warm_up

    if args.seconds <= 0:
        raise ValueError(f"--seconds is {args.seconds}; it must be positive.")
    folder = checkpoint.resolve(args.model)
    config = RuntimeConfig(device=args.device, threads=args.threads)
    pipe = prepare(AvatarPipeline.from_pretrained(folder), config)
    window = pipe.window_spec(args.hop, args.right)
    portrait = prepare_portrait(args.portrait) if args.portrait else blank_portrait()
    warm_up(pipe, window)

    rng = np.random.default_rng(0)
    pcm = (0.05 * rng.standard_normal(round(args.seconds * window.sample_rate))).astype(np.float32)
    begun = time.perf_counter()
    state = pipe.init_state(portrait, window=window)
    first_state_ms = 1000.0 * (time.perf_counter() - begun)
    steps_ms: list[float] = []
    stages_ms: dict[str, list[float]] = {}
    begun = time.perf_counter()
    for index in range(window.chunk_count(len(pcm))):
        started = time.perf_counter()
        state, chunk = pipe.step(state, window.cut(pcm, index), num_inference_steps=args.steps)
        steps_ms.append(1000.0 * (time.perf_counter() - started))
        for stage, value in chunk.timings_ms.items():
            stages_ms.setdefault(stage, []).append(value)
    elapsed_s = time.perf_counter() - begun
    frames = len(steps_ms) * window.hop_frames
    height, width = portrait.canvas.shape[:2]
    batches = args.batch and measure_batches(
        pipe, portrait, args.batch, hop_frames=args.hop, right_frames=args.right, steps=args.steps
    )
    return {
        "rtf": elapsed_s / (frames / window.fps),
        "fps": frames / elapsed_s,
        "ms_per_frame": 1000.0 * elapsed_s / frames,
        "step_ms": percentiles(steps_ms),
        "stages_ms": {stage: percentiles(values) for stage, values in stages_ms.items()},
        "init_state_ms": first_state_ms,
        "frames": frames,
        "latency_ms": window.latency_ms,
        "batches": batches,
        "config": {
            "model": str(args.model), "model_sha256": checkpoint.model_sha256(folder),
            "hop_frames": window.hop_frames, "right_frames": window.right_frames,
            "steps": args.steps or pipe.scheduler.num_inference_steps,
            "canvas": [height, width], "threads": torch.get_num_threads(), "device": str(pipe.device),
        },
        "machine": {
            "cpu": _cpu_name(), "cpus": len(os.sched_getaffinity(0)), "load_1min": os.getloadavg()[0],
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "python": platform.python_version(), "torch": torch.__version__, "system": platform.platform(),
        },
    }  # fmt: skip


def percentiles(values_ms: list[float]) -> dict[str, Any]:
    """p50, p95, p99 and the largest; parts: the p50 of each quarter of the run, which tells how steady it was."""
    import numpy as np

    p50, p95, p99 = (float(value) for value in np.percentile(values_ms, (50, 95, 99)))
    quarters = np.array_split(values_ms, min(4, len(values_ms)))
    parts = [float(np.median(part)) for part in quarters]
    return {"p50": p50, "p95": p95, "p99": p99, "max": max(values_ms), "parts": parts}


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )
