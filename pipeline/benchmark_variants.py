"""`python -m pipeline.benchmark_variants`: the model's parts by other number types, compilers and runtimes.

Every part is given inputs that a session really had (speech on a portrait, motion ring full). The variants take turns,
call by call, so a busy machine slows all of them alike and their ratios mean something. Exactness is what becomes of
the picture when this one part runs that way and the others as ever, in levels of 0..255.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline import checkpoint
from pipeline.avatar_pipeline import AvatarPipeline
from pipeline.benchmark import percentiles
from pipeline.blinks import lids_closed
from pipeline.denoiser import LEFT_SLOTS, Denoiser, KVRing
from pipeline.machine import describe_machine
from pipeline.portrait import Portrait, prepare_portrait
from pipeline.sampler import denoise_motion, frame_noise, remember
from pipeline.variants import VARIANTS, Call, Inputs, Unavailable

logger = logging.getLogger(__name__)

Frame = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """A part of the step: `module` maps tensors to tensors; `frames` draws what comes of an output.

    calls_per_frame: how often a session calls it for each frame, at the chunk's size that was recorded.
    """

    name: str
    module: nn.Module
    inputs: Sequence[Inputs]
    frames: Callable[[tuple[Tensor, ...], int], Frame]
    calls_per_frame: float


class _Hearing(nn.Module):
    def __init__(self, encoder: nn.Module, frames: int) -> None:
        super().__init__()
        self.encoder, self.wanted = encoder, frames

    def forward(self, pcm_1N: Tensor) -> Tensor:
        features: Tensor = self.encoder(pcm_1N, self.wanted)
        return features


class _Denoising(nn.Module):
    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(
        self, x: Tensor, sigma: Tensor, audio: Tensor, session: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, ...]:
        ring = KVRing(keys=keys, values=values, capacity=self.denoiser.context_frames)
        made: tuple[Tensor, ...] = self.denoiser(x, sigma, audio, session, ring)
        return made


def record(pipe: AvatarPipeline, portrait: Portrait, pcm: NDArray[np.float32], count: int) -> list[Part]:
    """What each part is given in the last `count` chunks of a session that hears `pcm` (16 kHz)."""
    window = pipe.window_spec()
    denoiser, hop = pipe.denoiser, window.hop_frames
    heard_frames = LEFT_SLOTS + hop + window.right_frames
    chunks = window.chunk_count(len(pcm))
    settled = -(-denoiser.context_frames // hop)
    if chunks < settled + count:
        raise ValueError(
            f"{len(pcm) / window.sample_rate:.1f} s of speech are too few to fill the motion ring and record {count} "
            "chunks after it; give more."
        )
    state = pipe.init_state(portrait, window=window)
    hearing: list[Inputs] = []
    denoising: list[Inputs] = []
    scenes: list[tuple[Tensor, Tensor, KVRing, range]] = []
    with torch.inference_mode():
        for index in range(chunks):
            audio_window, ring, frames = window.cut(pcm, index), state.ring, window.frames(index)
            if (memory := state.memory) is not None:
                before = {"audio_BTC": memory.audio_BTC, "session_BC": memory.session_BC}
                ring = remember(denoiser, ring, memory.z_BTD, **before)
            if index >= chunks - count:
                pcm_1N = torch.from_numpy(audio_window.pcm * np.float32(state.hearing.gain))[None]
                features = pipe.audio_encoder(pcm_1N, heard_frames)
                lids = torch.from_numpy(lids_closed(0, frames))[None]
                audio = denoiser.embed_audio(features, window.right_frames, lids)
                style = [[state.controls.expressiveness, state.controls.head_motion]]
                session = denoiser.embed_session(state.z_ref_1D, state.z_ref_1D.new_tensor(style))
                noise = frame_noise(0, frames, denoiser.latent_size)[None]
                hearing.append((pcm_1N,))
                denoising.append((noise, torch.ones(1, 1), audio, session, ring.keys, ring.values))
                scenes.append((lids, session, ring, frames))
            state, _ = pipe.move(state, audio_window)

    def of_motion(z_1TD: Tensor) -> Frame:
        frame: Frame = pipe.draw(state, z_1TD[:, -1].numpy())[0][0]
        return frame

    def of_features(outputs: tuple[Tensor, ...], place: int) -> Frame:
        lids, session, ring, frames = scenes[place]
        with torch.inference_mode():
            z = denoise_motion(
                denoiser, pipe.scheduler, ring,
                audio_BTC=denoiser.embed_audio(outputs[0], window.right_frames, lids), session_BC=session,
                noise_BTD=frame_noise(0, frames, denoiser.latent_size)[None],
            )  # fmt: skip
        return of_motion(z)

    evaluations = pipe.scheduler.num_inference_steps  # the first of which also remembers
    return [
        Part(
            name="features", module=_Hearing(pipe.audio_encoder, heard_frames), inputs=hearing,
            frames=of_features, calls_per_frame=1 / hop,
        ),
        Part(
            name="denoise", module=_Denoising(denoiser), inputs=denoising,
            frames=lambda outputs, _: of_motion(denoiser.denormalize(outputs[0])),
            calls_per_frame=evaluations / hop,
        ),
    ]  # fmt: skip


@torch.inference_mode()
def compare(
    part: Part, variants: Sequence[str], *, rounds: int, threads: int, report: Callable[[str], None]
) -> list[dict[str, Any]]:
    """One row per variant: ms per call and per frame, speed-up over eager, difference of the picture."""
    calls: dict[str, Call] = {}
    rows: dict[str, dict[str, Any]] = {}
    for name in variants:
        report(f"{part.name}: {name}")
        rows[name] = {"part": part.name, "variant": name}
        try:
            call = VARIANTS[name](part.module.eval(), part.inputs, threads)
            for _ in range(3):  # compilers work at the first call
                call(part.inputs[0])
            calls[name] = call
        except Unavailable as reason:
            rows[name]["unavailable"] = str(reason)
        except Exception as error:  # a foreign compiler that cannot take the part: that is a finding, too
            rows[name]["unavailable"] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:160]}"
    spans: dict[str, list[float]] = {name: [] for name in calls}
    order = np.random.default_rng(0)
    for turn in range(rounds):
        inputs = part.inputs[turn % len(part.inputs)]
        # Shuffled: what ran just before decides what lies in the caches.
        for name in order.permutation(list(calls)):
            started = time.perf_counter()
            calls[name](inputs)
            spans[name].append(1000 * (time.perf_counter() - started))
    exact = [part.frames(_eager(part, inputs), place) for place, inputs in enumerate(part.inputs)]
    plain = float(np.median(spans["eager"])) if "eager" in spans else float("nan")
    for name, call in calls.items():
        made = [part.frames(call(inputs), place) for place, inputs in enumerate(part.inputs)]
        difference = np.abs(np.stack(made).astype(np.int16) - np.stack(exact))
        middle = float(np.median(spans[name]))
        rows[name] |= {
            "call_ms": percentiles(spans[name]),
            "ms_per_frame": middle * part.calls_per_frame,
            "speed_up": plain / middle,
            "frame_difference_max": int(difference.max()),
            "frame_difference_mean": float(difference.mean()),
        }
    return list(rows.values())


def _eager(part: Part, inputs: Inputs) -> tuple[Tensor, ...]:
    made = part.module(*inputs)
    return made if isinstance(made, tuple) else (made,)


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table for docs/model.md."""
    lines = [
        "| part | variant | ms per frame | times as fast as eager | picture, largest and mean difference |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for row in rows:
        if "unavailable" in row:
            lines.append(f"| {row['part']} | {row['variant']} | – | – | {row['unavailable']} |")
        else:
            lines.append(
                f"| {row['part']} | {row['variant']} | {row['ms_per_frame']:.2f} | {row['speed_up']:.2f} | "
                f"{row['frame_difference_max']}, {row['frame_difference_mean']:.4f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="portrait_256", help="a bundled model's name or a model folder")
    parser.add_argument("--portrait", type=Path, required=True, help="a photo")
    parser.add_argument("--audio", type=Path, required=True, help="some seconds of speech")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--parts", nargs="+", default=["features", "denoise"])
    parser.add_argument("--rounds", type=int, default=40, help="timed calls of each variant (default: 40)")
    parser.add_argument("--chunks", type=int, default=12, help="recorded chunks (default: 12)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file, too")
    args = parser.parse_args()
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    from pipeline.evaluation.material import read_audio

    torch.set_num_threads(args.threads)
    folder = checkpoint.resolve(args.model)
    pipe = AvatarPipeline.from_pretrained(folder)
    parts = record(pipe, prepare_portrait(args.portrait), read_audio(args.audio), args.chunks)
    rows: list[dict[str, Any]] = []
    for part in parts:
        if part.name in args.parts:
            rows += compare(part, args.variants, rounds=args.rounds, threads=args.threads, report=print)
    print(markdown(rows))
    if args.out:
        report = {
            "rows": rows, "threads": args.threads, "rounds": args.rounds, "chunks": args.chunks,
            "model_sha256": checkpoint.model_sha256(folder), "machine": describe_machine(),
        }  # fmt: skip
        args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
