"""Motion for synthetic speech whose phonemes and durations are known: mouth by rules, head, brows and blinks sampled.

The mouth follows the dominance model of coarticulation (Cohen and Massaro, 1993): every phoneme pulls the
articulators towards its shape with a strength that rises and falls around it; lips that must meet (p, b, m) and the
lip that must touch the teeth (f, v) are enforced. Blinks, brows and head are drawn from the statistics of talking
people and tied to stress and pauses (JALI, 2016, for the mapping of phonemes to shapes).

    python -m pipeline.training.speech_motion --data ../shared/data
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from tqdm import tqdm

FPS, RATE = 25, 200
"""Video frames and curve samples per second."""
UNIT_S = 0.025
"""Kokoro's duration unit."""

ARTICULATORS = (
    "jawOpen", "mouthFunnel", "mouthPucker", "mouthStretch", "mouthSmile", "mouthUpperUp", "mouthLowerDown",
    "mouthPress", "mouthRollLower", "mouthRollUpper", "mouthShrugUpper",
)  # fmt: skip
Shape = dict[str, float]


@dataclass(frozen=True)
class Viseme:
    """Target shape, how strongly it holds against its neighbours, and whether lips close or touch the teeth."""

    shape: Shape
    strength: float = 1.0
    closes: bool = False
    end: Shape | None = None  # diphthongs glide


def _v(strength: float = 1.0, **shape: float) -> Viseme:
    return Viseme({"jawOpen": 0.0, **shape}, strength)


_LABIAL = Viseme({"mouthPress": 0.3, "mouthRollLower": 0.2, "mouthRollUpper": 0.15}, 4.0, closes=True)
_DENTAL_LIP = Viseme({"jawOpen": 0.04, "mouthRollLower": 0.5, "mouthUpperUp": 0.22}, 3.0)
_TONGUE = _v(0.8, jawOpen=0.09, mouthLowerDown=0.12, mouthUpperUp=0.06)
_HISS = _v(1.3, jawOpen=0.06, mouthStretch=0.15, mouthSmile=0.1, mouthLowerDown=0.25, mouthUpperUp=0.16)
_HUSH = _v(1.4, jawOpen=0.07, mouthFunnel=0.45, mouthPucker=0.12, mouthUpperUp=0.1, mouthLowerDown=0.1)
_BACK = _v(0.5, jawOpen=0.14)
_I = {"jawOpen": 0.11, "mouthStretch": 0.22, "mouthSmile": 0.28, "mouthLowerDown": 0.15, "mouthUpperUp": 0.1}
_IH = {"jawOpen": 0.15, "mouthStretch": 0.12, "mouthSmile": 0.12, "mouthLowerDown": 0.12}
_EH = {"jawOpen": 0.25, "mouthStretch": 0.18, "mouthSmile": 0.1, "mouthLowerDown": 0.18, "mouthUpperUp": 0.08}
_AE = {"jawOpen": 0.34, "mouthStretch": 0.22, "mouthLowerDown": 0.2, "mouthUpperUp": 0.12}
_AH = {"jawOpen": 0.40, "mouthLowerDown": 0.1, "mouthUpperUp": 0.05}
_AW = {"jawOpen": 0.28, "mouthFunnel": 0.4, "mouthPucker": 0.18}
_U = {"jawOpen": 0.09, "mouthPucker": 0.58, "mouthFunnel": 0.35}
_UH = {"jawOpen": 0.13, "mouthPucker": 0.32, "mouthFunnel": 0.25}

VISEMES: dict[str, Viseme] = {
    **dict.fromkeys("pbm", _LABIAL), **dict.fromkeys("fv", _DENTAL_LIP),
    **dict.fromkeys("tdnlT", _TONGUE), **dict.fromkeys("sz", _HISS), **dict.fromkeys("ʃʒʤʧ", _HUSH),
    **dict.fromkeys("kɡŋ", _BACK), "h": _v(0.3, jawOpen=0.16),
    **dict.fromkeys("θð", _v(1.0, jawOpen=0.1, mouthLowerDown=0.18, mouthUpperUp=0.12)),
    "ɹ": _v(1.0, jawOpen=0.1, mouthFunnel=0.3, mouthPucker=0.14),
    "w": _v(1.8, jawOpen=0.05, mouthPucker=0.62, mouthFunnel=0.3),
    "j": _v(1.0, jawOpen=0.08, mouthSmile=0.2, mouthStretch=0.15),
    "i": Viseme(_I), "ɪ": Viseme(_IH), "ᵻ": Viseme(_IH, 0.7), "ɛ": Viseme(_EH), "æ": Viseme(_AE),
    "a": Viseme(_AH), "ɑ": Viseme(_AH), "ɒ": Viseme({**_AH, "mouthFunnel": 0.2}), "ɔ": Viseme(_AW),
    "u": Viseme(_U, 1.4), "ʊ": Viseme(_UH), "ʌ": _v(1.0, jawOpen=0.27, mouthLowerDown=0.08),
    "ɐ": _v(0.9, jawOpen=0.24), "ə": _v(0.7, jawOpen=0.14), "ᵊ": _v(0.5, jawOpen=0.11),
    "ɜ": _v(1.0, jawOpen=0.18, mouthFunnel=0.2),
    "A": Viseme(_EH, end=_I), "I": Viseme(_AH, end=_IH), "O": Viseme(_AW, end=_U), "Q": Viseme(_AW, end=_U),
    "W": Viseme(_AH, end=_UH), "Y": Viseme(_AW, end=_IH),
}  # fmt: skip
VOWELS = set("iɪᵻɛæaɑɒɔuʊʌɐəɜAIOQWY")
_MARKS = set("ˈˌː^")
SILENCE = Viseme({}, 1.2)


@dataclass(frozen=True)
class Phone:
    """One sound (or pause, symbol " ") with its time in seconds and its stress (0 to 2)."""

    symbol: str
    start_s: float
    end_s: float
    stress: int = 0


def phones(symbols: list[str], durations: list[int]) -> list[Phone]:
    """Kokoro's symbols and durations -> phones; stress marks go to the vowel that follows, blanks to neighbours."""
    found: list[Phone] = []
    time, stress, carry = 0.0, 0, 0.0
    for symbol, duration in zip(symbols, durations, strict=True):
        length = duration * UNIT_S
        if symbol in _MARKS:
            stress = {"ˈ": 2, "ˌ": 1}.get(symbol, stress)
            carry += length
        elif symbol in VISEMES:
            found.append(Phone(symbol, time - carry, time + length, stress if symbol in VOWELS else 0))
            stress, carry = (0 if symbol in VOWELS else stress), 0.0
        else:  # blanks and punctuation: a pause if long enough to be heard
            if carry + length >= 0.12 or not found:
                found.append(Phone(" ", time - carry, time + length))
            else:
                last = found[-1]
                found[-1] = Phone(last.symbol, last.start_s, time + length, last.stress)
            carry = 0.0
        time += length
    return found


def mouth_curves(spoken: list[Phone], seconds: float, loudness: float) -> NDArray[np.float32]:
    """Articulator curves [round(seconds * RATE), 11] of a sequence of phones; `loudness` scales the opening."""
    count = round(seconds * RATE)
    time = np.arange(count) / RATE
    total = np.full((count, len(ARTICULATORS)), 1e-3)
    weighted = np.zeros_like(total)
    closure = np.zeros(count)
    for phone in spoken:
        viseme = VISEMES.get(phone.symbol, SILENCE)
        length = phone.end_s - phone.start_s
        glide = [(viseme.shape, 0.0, 0.6), (viseme.end, 0.55, 1.0)] if viseme.end else [(viseme.shape, 0.0, 1.0)]
        for shape, begin, end in glide:
            if shape is None:
                continue
            first, last = phone.start_s + begin * length, phone.start_s + end * length
            distance = np.maximum(np.maximum(first - time, time - last), 0)
            target = np.array([shape.get(name, 0.0) for name in ARTICULATORS])
            gain = loudness * (1 + 0.14 * (phone.stress - 1 if phone.symbol in VOWELS else 0))
            target[: len(target) - 4] *= gain
            for column, name in enumerate(ARTICULATORS):
                rounding = name in ("mouthFunnel", "mouthPucker") and target[column] > 0.1
                # Lips round early; the jaw is quicker to follow than to lead.
                reach_before, reach_after = (0.085, 0.06) if rounding else (0.045, 0.05)
                reach = np.where(time < first, reach_before, reach_after)
                pull = viseme.strength * np.exp(-((distance / reach) ** 1.5)) * (1.5 if rounding else 1.0)
                weighted[:, column] += pull * target[column]
                total[:, column] += pull
        if viseme.closes:
            centre, half = (phone.start_s + phone.end_s) / 2, max(0.032, 0.42 * length)
            closure = np.maximum(closure, 1 - np.clip((np.abs(time - centre) - half) / 0.04, 0, 1))
    curves = gaussian_filter1d(weighted / total, 0.012 * RATE, axis=0)
    shut = closure * closure * (3 - 2 * closure)
    for name in ("jawOpen", "mouthUpperUp", "mouthLowerDown", "mouthFunnel", "mouthStretch", "mouthSmile"):
        keep = 0.25 if name in ("mouthStretch", "mouthSmile", "mouthFunnel") else 0.0
        curves[:, ARTICULATORS.index(name)] *= 1 - shut * (1 - keep)
    return curves.astype(np.float32)


def blink_track(frames: int, pauses: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float32]:
    """[frames] blink weights: 10 to 25 a minute, four frames each, three times as likely in pauses."""
    track = np.zeros(frames + 8, np.float32)
    rate = rng.uniform(10, 24) / 60 / FPS
    shape = np.array([0.45, 1.0, 0.9, 0.45, 0.12], np.float32)
    next_allowed = 0
    for frame in range(frames):
        chance = rate * (2.2 if pauses[frame] else 0.75)
        if frame >= next_allowed and rng.random() < chance:
            track[frame : frame + 5] = np.maximum(track[frame : frame + 5], shape * rng.uniform(0.92, 1.0))
            next_allowed = frame + 18
    return track[:frames]


def wandering(frames: int, rng: np.random.Generator, slow_s: float, count: int) -> NDArray[np.float32]:
    """[frames, count] smooth unit-variance noise that changes over about `slow_s` seconds."""
    pad = int(6 * slow_s * FPS) + 1
    noise = rng.normal(size=(frames + 2 * pad, count))
    smooth = gaussian_filter1d(noise, slow_s * FPS, axis=0)[pad:-pad]
    return (smooth * np.sqrt(2 * np.sqrt(np.pi) * slow_s * FPS)).astype(np.float32)


def upper_face_and_head(
    spoken: list[Phone], frames: int, names: dict[str, int], rng: np.random.Generator
) -> NDArray[np.float32]:
    """[frames,62] blinks, brows, head and breathing for a stretch of speech and silence."""
    motion = np.zeros((frames, 62), np.float32)
    time = np.arange(frames) / FPS
    pauses = np.ones(frames, bool)
    emphasis = np.zeros(frames, np.float32)
    for phone in spoken:
        if phone.symbol == " ":
            continue
        pauses[int(phone.start_s * FPS) : int(phone.end_s * FPS) + 1] = False
        if phone.stress == 2:
            emphasis += rng.uniform(0, 1) * np.exp(-(((time - phone.start_s - 0.06) / 0.16) ** 2)).astype(np.float32)
    for name in ("eyeBlink_L", "eyeBlink_R"):
        motion[:, names[name]] = blink_track(frames, pauses, rng) if name.endswith("L") else 0
    motion[:, names["eyeBlink_R"]] = motion[:, names["eyeBlink_L"]]
    liveliness = rng.uniform(0.5, 1.5)
    raised = gaussian_filter1d(np.clip(emphasis - 0.55, 0, 1) * rng.uniform(0, 0.9), 2.0)
    slow = np.clip(wandering(frames, rng, 0.9, 1)[:, 0] * 0.10, 0, 0.3)
    for name in ("browInnerUp_L", "browInnerUp_R", "browOuterUp_L", "browOuterUp_R"):
        motion[:, names[name]] = np.clip(raised + slow, 0, 0.6)
    speaking = gaussian_filter1d((~pauses).astype(np.float32), 6.0)
    drift = wandering(frames, rng, 1.1, 3) * (0.045, 0.026, 0.022)
    quick = wandering(frames, rng, 0.28, 3) * (0.010, 0.013, 0.008)
    motion[:, 57:60] = liveliness * (drift * (0.55 + 0.45 * speaking[:, None]) + quick * speaking[:, None])
    motion[:, 58] += liveliness * 0.022 * gaussian_filter1d(emphasis, 1.5)  # nods go with stress
    motion[:, 60:62] = wandering(frames, rng, 1.4, 2) * (0.10, 0.05) * liveliness
    motion[:, 61] += 0.035 * np.sin(2 * np.pi * (time / rng.uniform(3.5, 5) + rng.random()))  # breathing
    return motion


def speech_motion(
    spoken: list[Phone], frames: int, expression_names: list[str], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Motion [frames,62] for phones that begin at time 0."""
    names = {name: index for index, name in enumerate(expression_names)}
    motion = upper_face_and_head(spoken, frames, names, rng)
    curves = mouth_curves(spoken, frames / FPS, float(np.clip(rng.normal(1.0, 0.17), 0.65, 1.4)))
    middle = ((np.arange(frames) + 0.5) / FPS * RATE).astype(int)
    for column, stem in enumerate(ARTICULATORS):
        for name in (stem, f"{stem}_L", f"{stem}_R"):
            if name in names:
                motion[:, names[name]] = curves[middle, column]
    motion[:, :57] = np.clip(motion[:, :57], 0, 1)
    return motion


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    expression_names = [str(name) for name in np.load(arguments.data / "ict_facekit.npz")["names"]]
    rows = {}
    for part in sorted((arguments.data / "kokoro").glob("part*.jsonl")):
        for line in part.read_text().splitlines():
            row = json.loads(line)
            rows[row["file"].rsplit(".", 1)[0]] = row
    (arguments.runs / "motion").mkdir(parents=True, exist_ok=True)
    for corpus in ("kokoro_train", "kokoro_val"):
        with np.load(arguments.runs / "speech" / f"{corpus}.npz") as speech:
            names, offsets = [str(name) for name in speech["names"]], speech["offsets"]
        parts = []
        for index, name in enumerate(tqdm(names, desc=corpus)):
            row = rows[name]
            rng = np.random.default_rng((arguments.seed, index))
            frames = int(offsets[index + 1] - offsets[index])
            parts.append(speech_motion(phones(row["phonemes"], row["durations"]), frames, expression_names, rng))
        motion = np.concatenate(parts)
        out = arguments.runs / "motion" / f"{corpus}.npz"
        np.savez(out, motion=motion, valid=np.ones(len(motion), bool), offsets=offsets, names=np.array(names))


if __name__ == "__main__":
    main()
