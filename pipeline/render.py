"""`talkalong render`: a video file of a portrait that speaks a sound file.

The sound is decoded, windowed, turned into frames and encoded piece by piece, so memory does not grow with
its length. Frame k shows what is heard from k * 40 ms on; the sound in the file is the original's, mono at 48 kHz.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from pipeline.machine import describe_machine
from pipeline.sound_file import SoundFile
from pipeline.video_file import VideoFile
from pipeline.window_cutter import WindowCutter
from pipeline.windowing import AudioWindow

if TYPE_CHECKING:
    from pipeline.avatar_pipeline import AvatarPipeline
    from pipeline.state import FrameChunk, StreamState

DEFAULT_MODEL = "portrait_256"
PORTRAIT_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


class RenderError(ValueError):
    """The video cannot be made; the message says why and what to do."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--portrait", required=True, help="a picture file, or the name of a bundled portrait")
    parser.add_argument("--audio", required=True, type=Path, help="any sound or video file")
    parser.add_argument("--out", required=True, type=Path, help="the MP4 file to write")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a bundled model's name or a model folder")
    parser.add_argument("--steps", type=int, help="denoising steps (default: the model's own)")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other blinks and head motion")
    parser.add_argument("--expressiveness", type=float, default=1.0, help="0 calm to 2 lively (default: 1)")
    parser.add_argument("--head-motion", type=float, default=1.0, help="0 calm to 2 lively (default: 1)")
    parser.add_argument("--gaze", type=float, default=1.0, help="0 wandering to 2 steady (default: 1)")
    parser.add_argument("--report", type=Path, help="write figures of the run to this JSON file")


def run(args: argparse.Namespace) -> int:
    """Renders and reports; what cannot be done is said in a sentence, with exit status 2."""
    logging.basicConfig(level=logging.WARNING)
    try:
        figures = render(args)
        if args.report:
            args.report.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        print(f"talkalong render: {error.filename or 'A file'}: {error.strerror or error}.", file=sys.stderr)
        return 2
    except ValueError as error:
        print(f"talkalong render: {error}", file=sys.stderr)
        return 2
    for notice in figures["notices"]:
        print(f"talkalong render: {notice}", file=sys.stderr)
    print(
        f"{args.out}: {figures['frames']} frames, {figures['duration_s']:.2f} s, "
        f"made in {figures['rtf']:.2f} of that time."
    )
    return 0


def find_portrait(name: str) -> Path:
    """A picture file as given, or a bundled portrait by its name."""
    path = Path(name)
    if path.is_file():
        return path
    folder = Path(str(resources.files("pipeline"))) / "weights" / DEFAULT_MODEL / "portraits"
    bundled = {file.stem: file for file in sorted(folder.glob("*")) if file.suffix in PORTRAIT_SUFFIXES}
    if name not in bundled:
        raise RenderError(
            f"There is no picture {name}, nor a bundled portrait of that name ({', '.join(bundled)})."
        )
    return bundled[name]


class Speaker:
    """A portrait's session: windows in, frames out, and how long that took.

    `step_ms`: wall time per chunk; `stage_ms`: the same by stage.
    """

    def __init__(self, pipe: AvatarPipeline, state: StreamState, steps: int | None) -> None:
        self._pipe, self._state, self._steps = pipe, state, steps
        self._step_ms: list[float] = []
        self._stage_ms: dict[str, list[float]] = {}

    def speak(self, windows: Iterator[AudioWindow]) -> Iterator[FrameChunk]:
        for window in windows:
            begun = time.perf_counter()
            self._state, chunk = self._pipe.step(self._state, window, num_inference_steps=self._steps)
            self._step_ms.append(1000.0 * (time.perf_counter() - begun))
            for stage, spent_ms in chunk.timings_ms.items():
                self._stage_ms.setdefault(stage, []).append(spent_ms)
            yield chunk

    def figures(self) -> dict[str, Any]:
        return {
            "step_ms": _percentiles(self._step_ms),
            "stage_ms": {stage: _percentiles(spans) for stage, spans in self._stage_ms.items()},
        }


def _percentiles(values: list[float]) -> dict[str, float]:
    return {f"p{p}": round(float(np.percentile(values, p)), 3) for p in (50, 95, 99)}


def render(args: argparse.Namespace) -> dict[str, Any]:
    """Makes the video; returns the report's figures."""
    from pipeline import checkpoint
    from pipeline.avatar_pipeline import AvatarPipeline
    from pipeline.portrait import prepare_portrait
    from pipeline.runtime import RuntimeConfig, prepare, warm_up
    from pipeline.state import Controls

    controls = Controls(expressiveness=args.expressiveness, head_motion=args.head_motion, gaze=args.gaze)
    if args.steps is not None and args.steps < 1:
        raise RenderError(f"--steps is {args.steps}; at least one denoising step is needed.")
    picture = find_portrait(args.portrait)
    if args.out.exists() and any(
        args.out.samefile(source) for source in (picture, args.audio) if source.exists()
    ):
        raise RenderError(f"{args.out} is one of the inputs; give the video another name.")
    with SoundFile(args.audio) as sound:
        portrait = prepare_portrait(picture, name=picture.stem)
        folder = checkpoint.resolve(args.model)
        pipe = prepare(AvatarPipeline.from_pretrained(folder), RuntimeConfig())
        spec = pipe.window_spec()
        warm_up(pipe, spec, chunks=2)

        height, width = portrait.canvas.shape[:2]
        expected = math.ceil(round(sound.expected_s * spec.fps, 3)) if sound.expected_s else None
        cutter = WindowCutter(spec)
        begun = time.perf_counter()
        speaker = Speaker(
            pipe, pipe.init_state(portrait, window=spec, seed=args.seed, controls=controls), args.steps
        )
        with (
            VideoFile(args.out, width, height, spec.fps) as video,
            # None: a bar on a terminal only, where each state overwrites the one before
            tqdm(total=expected, unit="frame", desc=args.out.name, disable=None) as progress,
        ):
            for heard, modelled in sound.pieces(spec.sample_rate):
                video.add_sound(heard)
                for chunk in speaker.speak(cutter.push(modelled)):
                    for frame in chunk.frames:
                        video.add_frame(frame)
                    progress.update(len(chunk.frames))
            for chunk in speaker.speak(cutter.flush()):
                wanted = chunk.frames[: cutter.frames - video.frames]  # no picture without sound
                for frame in wanted:
                    video.add_frame(frame)
                progress.update(len(wanted))
            if not video.frames:
                raise RenderError(f"{args.audio} is empty or too short: it decodes to no sound at all.")
    duration_s = cutter.samples / spec.sample_rate
    return {
        "frames": video.frames,
        "fps": spec.fps,
        "duration_s": duration_s,
        "rtf": (time.perf_counter() - begun) / duration_s,
        "notices": sound.notices,
        "damaged_packets": sound.damaged,
        **speaker.figures(),
        "steps": pipe.scheduler.num_inference_steps if args.steps is None else args.steps,
        "seed": args.seed,
        "controls": asdict(controls),
        "canvas": [height, width],
        "model": str(args.model),
        "model_sha256": checkpoint.model_sha256(folder),
        "machine": describe_machine(),
    }
