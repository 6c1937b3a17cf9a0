"""Blinks, brows, head and breathing for a stretch of speech and silence, drawn from the statistics of talking
people.

The GRID speaker's head moves 1.3, 2.3 and 1.0 degrees a second (yaw, pitch, roll) with 40 % of its variance
above 0.5 Hz and 6 % above 2 Hz; it pivots about the neck, so shift goes with rotation. Blinks have that
speaker's course.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from pipeline.training.phones import Phone

Floats = NDArray[np.float32]

FPS = 25
BLINK = np.array([0.1, 0.97, 1.0, 0.8, 0.47, 0.33, 0.2, 0.12, 0.05], np.float32)
"""Lids shut within two frames and open slowly."""
BLINK_GAP_FRAMES = 14
# How much the head shifts per radian: roll carries it sideways, pitch up and down.
PIVOT_CM = 9.0
NOD_CM = 4.0


def blink_track(pauses: NDArray[np.bool_], rng: np.random.Generator) -> Floats:
    """[T] blink weights, 12 to 24 blinks a minute; likelier where a pause begins, and in pauses."""
    frames = len(pauses)
    track = np.zeros(frames + len(BLINK), np.float32)
    likely = np.where(pauses, 1.5, 0.8)
    begins = np.flatnonzero(pauses[1:] & ~pauses[:-1])
    for begin in begins:
        likely[begin : begin + 8] *= 3.0
    likely *= rng.uniform(13, 27) / 60 / FPS
    last = -BLINK_GAP_FRAMES
    for frame in np.flatnonzero(rng.random(frames) < likely).tolist():
        if frame - last >= BLINK_GAP_FRAMES:
            part = slice(frame, frame + len(BLINK))
            track[part] = np.maximum(track[part], BLINK * rng.uniform(0.93, 1.0))
            last = frame
    return track[:frames]


def wandering(frames: int, rng: np.random.Generator, slow_s: float, count: int) -> Floats:
    """[frames, count] smooth unit-variance noise that changes over about `slow_s` seconds."""
    pad = int(6 * slow_s * FPS) + 1
    noise = rng.normal(size=(frames + 2 * pad, count))
    smooth = gaussian_filter1d(noise, slow_s * FPS, axis=0)[pad:-pad]
    result: Floats = (smooth * np.sqrt(2 * np.sqrt(np.pi) * slow_s * FPS)).astype(np.float32)
    return result


def upper_face_and_head(
    spoken: list[Phone], frames: int, names: dict[str, int], rng: np.random.Generator
) -> Floats:
    """[frames,62]; `names` are the columns of the expression shapes."""
    motion = np.zeros((frames, 62), np.float32)
    time = np.arange(frames) / FPS
    pauses = np.ones(frames, bool)
    emphasis = np.zeros(frames, np.float32)
    for phone in spoken:
        if phone.symbol == " ":
            continue
        pauses[max(0, int(phone.start_s * FPS)) : max(0, int(phone.end_s * FPS) + 1)] = False
        if phone.stress == 2:
            emphasis += rng.uniform(0, 1) * np.exp(-(((time - phone.start_s - 0.06) / 0.16) ** 2)).astype(
                np.float32
            )
    motion[:, names["eyeBlink_L"]] = motion[:, names["eyeBlink_R"]] = blink_track(pauses, rng)

    raised = gaussian_filter1d(np.clip(emphasis - 0.5, 0, 1) * rng.uniform(0.1, 1.1), 2.0)
    slow = np.clip(wandering(frames, rng, 0.9, 1)[:, 0] * 0.10, 0, 0.3)
    for name in ("browInnerUp_L", "browInnerUp_R", "browOuterUp_L", "browOuterUp_R"):
        motion[:, names[name]] = np.clip(raised + slow, 0, 0.6)

    liveliness = rng.uniform(0.55, 1.5)
    speaking = gaussian_filter1d((~pauses).astype(np.float32), 6.0)[:, None]
    drift = wandering(frames, rng, 1.1, 3) * (0.044, 0.024, 0.020)
    quick = wandering(frames, rng, 0.28, 3) * (0.009, 0.012, 0.007)
    beats = wandering(frames, rng, 0.13, 3) * (0.0022, 0.0036, 0.0018)
    head = drift * (0.55 + 0.45 * speaking) + (quick + beats) * speaking
    head[:, 1] += 0.022 * gaussian_filter1d(emphasis, 1.5)  # nods go with stress
    motion[:, 57:60] = liveliness * head
    motion[:, 60:62] = wandering(frames, rng, 1.4, 2) * (0.10, 0.06) * liveliness
    motion[:, 60] -= PIVOT_CM * motion[:, 59]
    motion[:, 61] += NOD_CM * motion[:, 58]
    motion[:, 61] += 0.035 * np.sin(2 * np.pi * (time / rng.uniform(3.5, 5) + rng.random()))  # breathing
    return motion
