"""`talkalong render`: a video file of a portrait that speaks a sound file.

The sound is decoded, windowed, turned into frames and encoded piece by piece, so memory does not grow with its
length. Frame k shows what is heard from k * 40 ms on; the sound in the file is the original at 48 kHz.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.windowing import AudioWindow, WindowSpec

logger = logging.getLogger(__name__)

SOUND_RATE = 48_000
PORTRAIT_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


class RenderError(ValueError):
    """The video cannot be made; the message says why and what to do."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--portrait", required=True, help="a picture file, or the name of a bundled portrait")
    parser.add_argument("--audio", required=True, type=Path, help="any sound or video file")
    parser.add_argument("--out", required=True, type=Path, help="the MP4 file to write")
    parser.add_argument("--model", default="portrait_256", help="a bundled model's name or a model folder")
    parser.add_argument("--steps", type=int, help="denoising steps (default: the model's own)")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other blinks and head motion")
    parser.add_argument("--expressiveness", type=float, default=1.0, help="0 calm to 2 lively (default: 1)")
    parser.add_argument("--head-motion", type=float, default=1.0, help="0 calm to 2 lively (default: 1)")
    parser.add_argument("--report", type=Path, help="write figures of the run to this JSON file")


def run(args: argparse.Namespace) -> int:
    """Renders and reports; what cannot be done is said in a sentence, with exit status 2."""
    logging.basicConfig(level=logging.WARNING)
    try:
        figures = render(args)
    except (ValueError, OSError) as error:
        print(f"talkalong render: {error}", file=sys.stderr)
        return 2
    print(f"{args.out}: {figures['frames']} frames, {figures['duration_s']:.2f} s, {figures['rtf']:.2f} of real time.")
    if args.report:
        args.report.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


class Sound:
    """A sound file, decoded once into what the listener hears (48 kHz) and what the model hears (16 kHz)."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise RenderError(f"There is no sound file {path}.")
        try:
            self._container = av.open(str(path))
        except av.FFmpegError as error:
            raise RenderError(f"{path} cannot be read as sound ({error}). Try WAV, FLAC or MP3.") from error
        if not self._container.streams.audio:
            self._container.close()
            raise RenderError(f"{path} holds no sound; give a file with an audio stream.")
        duration = self._container.duration
        self.expected_s = duration / av.time_base if duration else None

    def pieces(self, rate: int) -> Iterator[tuple[NDArray[np.int16], NDArray[np.float32]]]:
        """Pairs of the same stretch: int16 [n] at 48 kHz and float32 [m] at `rate`; closes the file at the end."""
        heard = av.AudioResampler(format="s16", layout="mono", rate=SOUND_RATE)
        modelled = av.AudioResampler(format="flt", layout="mono", rate=rate)

        def joined(resampler: av.AudioResampler, frame: av.AudioFrame | None, kind: type[Any]) -> NDArray[Any]:
            parts = [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
            return np.concatenate(parts) if parts else np.zeros(0, kind)

        with self._container as container:
            for frame in container.decode(audio=0):
                frame.pts = None
                yield joined(heard, frame, np.int16), joined(modelled, frame, np.float32)
            yield joined(heard, None, np.int16), joined(modelled, None, np.float32)


class WindowCutter:
    """Turns a stream of samples into the windows of a `WindowSpec`, keeping only what later windows need."""

    def __init__(self, spec: WindowSpec) -> None:
        self._spec = spec
        self._kept: NDArray[np.float32] = np.zeros(spec.left_samples, np.float32)
        self._index = 0
        self.samples = 0

    def push(self, pcm: NDArray[np.float32]) -> Iterator[AudioWindow]:
        """The windows that these samples complete."""
        self.samples += len(pcm)
        yield from self._add(pcm)

    def flush(self) -> Iterator[AudioWindow]:
        """The windows of the remaining samples, followed by silence."""
        while self._index * self._spec.hop_samples < self.samples:
            yield from self._add(np.zeros(self._spec.hop_samples, np.float32))

    def _add(self, pcm: NDArray[np.float32]) -> Iterator[AudioWindow]:
        spec = self._spec
        self._kept = np.concatenate([self._kept, pcm])
        while len(self._kept) >= spec.window_samples:
            pcm_window = self._kept[: spec.window_samples].copy()
            yield AudioWindow(self._index, spec.start_sample(self._index), pcm_window)
            self._kept = self._kept[spec.hop_samples :]
            self._index += 1


class VideoFile:
    """H.264 and AAC in an MP4 under a temporary name that becomes the real one when it is complete."""

    def __init__(self, path: Path, width: int, height: int, fps: int) -> None:
        self._path = path
        self._unfinished = path.with_name(f".{path.stem}.unfinished.mp4")
        try:
            self._container = av.open(str(self._unfinished), "w", format="mp4")
        except (av.FFmpegError, OSError) as error:
            raise RenderError(f"{path} cannot be written ({error}); is its folder there and writable?") from error
        self._video = self._container.add_stream("libx264", rate=fps, options={"crf": "17", "preset": "veryfast"})
        self._video.width, self._video.height, self._video.pix_fmt = width, height, "yuv420p"
        self._sound = self._container.add_stream("aac", rate=SOUND_RATE, layout="mono")
        self._sound.bit_rate = 128_000
        self._fps, self._samples, self.frames = fps, 0, 0

    def add_sound(self, pcm: NDArray[np.int16]) -> None:
        """int16 [n] at 48 kHz."""
        if not len(pcm):
            return
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, self._samples, Fraction(1, SOUND_RATE)
        self._samples += len(pcm)
        self._container.mux(self._sound.encode(frame))

    def add_frame(self, picture: NDArray[np.uint8]) -> None:
        """uint8 [H, W, 3] RGB."""
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = self.frames, Fraction(1, self._fps)
        self.frames += 1
        self._container.mux(self._video.encode(frame))

    def finish(self) -> None:
        self._container.mux(self._video.encode(None))
        self._container.mux(self._sound.encode(None))
        self._container.close()
        self._unfinished.replace(self._path)

    def discard(self) -> None:
        self._container.close()
        self._unfinished.unlink(missing_ok=True)


def find_portrait(name: str) -> Path:
    """A picture file as given, or a bundled portrait by its name."""
    path = Path(name)
    if path.is_file():
        return path
    from pipeline import checkpoint

    folder = checkpoint.bundled("portrait_256") / "portraits"
    bundled = {p.stem: p for p in sorted(folder.glob("*")) if p.suffix in PORTRAIT_SUFFIXES}
    if name not in bundled:
        raise RenderError(f"There is no picture {name}, nor a bundled portrait of that name ({', '.join(bundled)}).")
    return bundled[name]


@dataclass
class Timings:
    """Wall time of every step and its stages, in ms."""

    steps: list[float]
    stages: dict[str, list[float]]

    def summary(self) -> dict[str, Any]:
        def percentiles(values: list[float]) -> dict[str, float]:
            return {f"p{p}": round(float(np.percentile(values, p)), 3) for p in (50, 95, 99)} if values else {}

        return {
            "step_ms": percentiles(self.steps),
            "stage_ms": {name: percentiles(values) for name, values in self.stages.items()},
        }


def render(args: argparse.Namespace) -> dict[str, Any]:
    """Makes the video; returns the report's figures."""
    from pipeline import checkpoint
    from pipeline.avatar_pipeline import AvatarPipeline
    from pipeline.portrait import prepare_portrait
    from pipeline.state import Controls

    controls = Controls(expressiveness=args.expressiveness, head_motion=args.head_motion)
    sound = Sound(args.audio)
    picture = find_portrait(args.portrait)
    portrait = prepare_portrait(picture, name=picture.stem)
    folder = checkpoint.resolve(args.model)
    pipe = AvatarPipeline.from_pretrained(folder)
    spec = pipe.window_spec()
    steps = args.steps or int(pipe.scheduler.config.num_inference_steps)
    state = pipe.init_state(portrait, window=spec, seed=args.seed, controls=controls)
    height, width = portrait.canvas.shape[:2]
    video = VideoFile(args.out, width, height, spec.fps)
    cutter, timings = WindowCutter(spec), Timings([], {})
    total = round(sound.expected_s * spec.fps) if sound.expected_s else None
    progress = tqdm(total=total, unit="frame", desc=args.out.name)
    started = time.perf_counter()

    def speak(windows: Iterator[AudioWindow], limit: int | None = None) -> None:
        nonlocal state
        for window in windows:
            before = time.perf_counter()
            state, chunk = pipe.step(state, window, num_inference_steps=steps)
            timings.steps.append(1000 * (time.perf_counter() - before))
            for stage, spent_ms in chunk.timings_ms.items():
                timings.stages.setdefault(stage, []).append(spent_ms)
            for frame in chunk.frames:
                if limit is None or video.frames < limit:
                    video.add_frame(frame)
                    progress.update()

    try:
        for heard, modelled in sound.pieces(spec.sample_rate):
            video.add_sound(heard)
            speak(cutter.push(modelled))
        speak(cutter.flush(), limit=-(-cutter.samples // spec.samples_per_frame))
    except BaseException:
        video.discard()
        raise
    finally:
        progress.close()
    if not video.frames:
        video.discard()
        raise RenderError(f"{args.audio} is empty: it decodes to no sound at all.")
    video.finish()
    duration_s = cutter.samples / spec.sample_rate
    return {
        "frames": video.frames,
        "fps": spec.fps,
        "duration_s": duration_s,
        "rtf": (time.perf_counter() - started) / duration_s,
        **timings.summary(),
        "steps": steps,
        "seed": args.seed,
        "model": str(args.model),
        "model_sha256": checkpoint.model_sha256(folder),
        "hardware": {"machine": platform.machine(), "processor": platform.processor(), "system": platform.system()},
    }
