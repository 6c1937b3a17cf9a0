"""Motion for synthetic speech whose phonemes and durations are known: mouth by rules, head, brows and blinks
sampled.

The mouth follows the dominance model of coarticulation (Cohen and Massaro, 1993): every phoneme pulls lip
gap, jaw and lip shapes towards its viseme with a strength that rises and falls around it. The lips are
quick and the jaw is slow; the rig's lips then get exactly the gap that was planned, so lips meet over a jaw
that is still open (p, b, m). Also makes idle clips: a listener's motion with the noise of a quiet room.

    python -m pipeline.training.speech_motion --data DATA
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from tqdm import tqdm

from pipeline.training.motion_file import expression_names, write_motion
from pipeline.training.phones import Phone, end_with_sound, phones
from pipeline.training.speech import SAMPLES_PER_FRAME
from pipeline.training.upper_face import FPS, upper_face_and_head
from pipeline.training.visemes import ARTICULATORS, OPENING_CM, SILENCE, VISEMES, VOWELS

__all__ = ["Phone", "phones", "speech_motion"]

Floats = NDArray[np.float32]

RATE = 200
"""Curve samples per second."""
# How far (s) a sound reaches ahead and back: lips round early, the jaw is slow.
REACH = {
    "gap": (0.040, 0.045),
    "jawOpen": (0.070, 0.075),
    "mouthFunnel": (0.085, 0.06),
    "mouthPucker": (0.085, 0.06),
}
LIP_REACH = (0.050, 0.055)
# Blending undershoots; gap and jaw aim beyond their targets, away from the (middle, factor) of fluent speech.
OVERSHOOT = {"gap": (0.50, 1.75), "jawOpen": (0.14, 1.5)}
STRESS_GAIN = 0.16
REST_PULL = 0.02
SEAL_S = 0.030
"""Lips stay shut for twice this long at least: no frame of 40 ms misses it."""
SEAL_RAMP_S = 0.055
IDLE_CLIP_FRAMES, IDLE_NOISE = 250, (0.0, 1e-4, 5e-4, 2e-3)


def mouth_curves(spoken: list[Phone], seconds: float, loudness: float) -> Floats:
    """Articulator curves [round(seconds * RATE), 11] of a sequence of phones; `loudness` scales them."""
    count = round(seconds * RATE)
    time = (np.arange(count) + 0.5) / RATE
    total = np.full((count, len(ARTICULATORS)), REST_PULL)
    weighted = np.zeros_like(total)
    sealed = np.zeros(count)
    for phone in spoken:
        viseme = VISEMES.get(phone.symbol, SILENCE)
        length = phone.end_s - phone.start_s
        glide = (
            [(viseme.shape, 0.0, 0.6), (viseme.end, 0.55, 1.0)] if viseme.end else [(viseme.shape, 0.0, 1.0)]
        )
        stressed = 1 + (STRESS_GAIN * (phone.stress - 1) if phone.symbol in VOWELS else 0.0)
        for shape, begin, end in glide:
            first, last = phone.start_s + begin * length, phone.start_s + end * length
            distance = np.maximum(np.maximum(first - time, time - last), 0)
            for column, name in enumerate(ARTICULATORS):
                target = (shape or {}).get(name, 0.0) * loudness * stressed
                if shape and name in OVERSHOOT:
                    middle, factor = OVERSHOOT[name]
                    target = max(0.0, middle + factor * (target - middle))
                ahead, back = REACH.get(name, LIP_REACH)
                rounding = name in ("mouthFunnel", "mouthPucker")
                if rounding and target < 0.1:
                    ahead, back = LIP_REACH
                pull = viseme.strength * np.exp(-((distance / np.where(time < first, ahead, back)) ** 1.5))
                pull *= 1.5 if rounding and target >= 0.1 else 1.0
                weighted[:, column] += pull * target
                total[:, column] += pull
        if viseme.closes:
            centre, half = (phone.start_s + phone.end_s) / 2, max(SEAL_S, length / 2 - 0.012)
            sealed = np.maximum(sealed, 1 - np.clip((np.abs(time - centre) - half) / SEAL_RAMP_S, 0, 1))
    curves: Floats = gaussian_filter1d(weighted / total, 0.012 * RATE, axis=0)
    curves[:, 0] *= 1 - sealed * sealed * (3 - 2 * sealed)
    return curves.astype(np.float32)


def rig_mouth(curves: Floats) -> dict[str, Floats]:
    """Articulator curves [T,11] -> weights [T] by stem; jaw and mouthClose carry out the planned gap."""
    shape = dict(zip(ARTICULATORS, curves.T, strict=True))
    gap = shape.pop("gap")
    # Raised lips and funnels would gape: they follow as far as the gap lets them.
    room = np.clip(gap / 0.30, 0, 1)
    for name in ("mouthUpperUp", "mouthLowerDown", "mouthFunnel"):
        shape[name] = shape[name] * (room if name != "mouthFunnel" else 0.3 + 0.7 * room)
    made = sum(OPENING_CM[name] * weight for name, weight in shape.items() if name in OPENING_CM)
    missing = gap - made
    shape["mouthClose"] = np.clip(missing / OPENING_CM["mouthClose"], 0, 0.8 * shape["jawOpen"])
    left = missing - shape["mouthClose"] * OPENING_CM["mouthClose"]
    shape["jawOpen"] = np.clip(shape["jawOpen"] + left / OPENING_CM["jawOpen"], 0, 1)
    return shape


def speech_motion(
    spoken: list[Phone], frames: int, expression_names: list[str], rng: np.random.Generator
) -> Floats:
    """Motion [frames,62] for phones whose times count from frame 0."""
    names = {name: index for index, name in enumerate(expression_names)}
    motion = upper_face_and_head(spoken, frames, names, rng)
    curves = mouth_curves(spoken, frames / FPS, float(np.clip(rng.normal(1.0, 0.15), 0.7, 1.35)))
    middle = ((np.arange(frames) + 0.5) / FPS * RATE).astype(int)
    for stem, weights in rig_mouth(curves[middle]).items():
        for name in (stem, f"{stem}_L", f"{stem}_R"):
            if name in names:
                motion[:, names[name]] = weights
    motion[:, :57] = np.clip(motion[:, :57], 0, 1)
    return motion


def write_idle(runs: Path, motions: Path, clips: int, expression_names: list[str], seed: int) -> None:
    """`speech/idle_train.npz` and `idle_train.npz` among the motions: clips of listening, 10 s each."""
    rng = np.random.default_rng((seed, 1))
    pcm, motion = [], []
    for clip in range(clips):
        level = IDLE_NOISE[clip % len(IDLE_NOISE)] * 32768
        pcm.append((level * rng.standard_normal(IDLE_CLIP_FRAMES * SAMPLES_PER_FRAME)).astype(np.int16))
        motion.append(speech_motion([], IDLE_CLIP_FRAMES, expression_names, rng))
    offsets = np.arange(clips + 1) * IDLE_CLIP_FRAMES
    names = np.array([f"idle_{clip:03d}" for clip in range(clips)])
    write_motion(runs / "speech" / "idle_train.npz", audio=np.concatenate(pcm), offsets=offsets, names=names)
    valid = np.ones(int(offsets[-1]), bool)
    write_motion(
        motions / "idle_train.npz", motion=np.concatenate(motion), valid=valid, offsets=offsets, names=names
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, help="folder of the result; RUNS/motion if not given")
    parser.add_argument("--corpora", nargs="*", default=["kokoro_val", "kokoro_train"])
    parser.add_argument("--idle-clips", type=int, default=36, help="clips of 10 s of listening")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    out = arguments.out or arguments.runs / "motion"
    names_of_expressions = expression_names(arguments.data)
    rows = {}
    for part in sorted((arguments.data / "kokoro").glob("part*.jsonl")):
        for line in part.read_text().splitlines():
            row = json.loads(line)
            rows[row["file"].rsplit(".", 1)[0]] = row
    for corpus in arguments.corpora:
        with np.load(arguments.runs / "speech" / f"{corpus}.npz") as speech:
            names, offsets, audio = (
                [str(name) for name in speech["names"]],
                speech["offsets"],
                speech["audio"],
            )
        parts = []
        for index, name in enumerate(tqdm(names, desc=corpus)):
            row = rows[name]
            rng = np.random.default_rng((arguments.seed, index))
            first, last = int(offsets[index]), int(offsets[index + 1])
            pcm = audio[first * SAMPLES_PER_FRAME : last * SAMPLES_PER_FRAME]
            spoken = end_with_sound(phones(row["phonemes"], row["durations"]), pcm)
            parts.append(speech_motion(spoken, last - first, names_of_expressions, rng))
        motion = np.concatenate(parts)
        valid = np.ones(len(motion), bool)
        write_motion(
            out / f"{corpus}.npz", motion=motion, valid=valid, offsets=offsets, names=np.array(names)
        )
    if arguments.idle_clips:
        write_idle(arguments.runs, out, arguments.idle_clips, names_of_expressions, arguments.seed)


if __name__ == "__main__":
    main()
