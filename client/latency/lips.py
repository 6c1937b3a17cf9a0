"""Finds the openings of a mouth (or the flashes of a test picture) that answer a probe's sounds.

Where the mouth is and what opening looks like is learned from the first sounds: the pixels whose change goes with the
sounds, at the one delay where most change does. The rest of the run, which was not learned from, has to confirm it:
otherwise the picture does not respond, however much it moves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from client.latency.answers import Answers, DelayTrack, silent
from client.latency.probe import Probe
from client.latency.recording import Recording

LONGEST_S = 2.0
STEP_S = 0.02
DRIFT_S = 0.9  # slower changes (heads move, light does) are no answer
LEARN_SHARE, LEARN_AT_LEAST = 0.34, 6
REGION = 0.35  # of the strongest pixel's weight
STILL = 0.3  # grey levels, RMS of the most changing pixels: below it a picture stands still
LOWEST_CORRELATION = 0.35
AGREEMENT_S = 0.1
BEFORE_S, AFTER_S = 0.16, 0.2
REST_S = 0.24
HALF = 0.5

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Mouth:
    """weights [S, S]: what opening looks like, zero outside of the mouth; opening [T]: how far it is open, in units
    of the typical answer; delay_s: where the answers were found."""

    weights: Array
    opening: Array
    delay_s: float


def find_openings(probe: Probe, recording: Recording) -> tuple[Answers, Mouth | None]:
    """When each sound's first picture with a (half) open mouth was there."""
    asked_s = recording.mouth_s + probe.onsets_s
    count, frames = len(asked_s), len(recording.frame_s)
    if frames < 20:
        return silent(count, f"only {frames} pictures came back"), None
    change = _change(recording)
    if np.sort(np.sqrt(np.mean(change**2, axis=0)))[-8:].mean() < STILL:
        return silent(count, "the picture stands still"), None
    learned = max(LEARN_AT_LEAST, round(LEARN_SHARE * count))
    if count < 2 * LEARN_AT_LEAST:
        return silent(count, f"{count} sounds are too few; at least {2 * LEARN_AT_LEAST} are needed"), None
    split = int(np.searchsorted(recording.frame_s, asked_s[learned]))
    if min(split, frames - split) < 20:
        return silent(count, "the pictures do not cover the sounds"), None
    delays_s = np.arange(0.0, LONGEST_S, STEP_S)
    asked = _expected(recording.frame_s, asked_s, probe.sound_s, delays_s)
    effect = _normalised(asked[:, :split]) @ change[:split]
    strength = np.sum(effect**2, axis=1)
    delay_s = float(delays_s[np.argmax(strength)])
    weights = effect[np.argmax(strength)]
    weights = np.where(np.abs(weights) >= REGION * np.abs(weights).max(), weights, 0.0)
    opening = change @ weights
    rest = _normalised(_widened(asked)[:, split:]) @ _normalised(_widened(opening[None])[:, split:])[0]
    confidence = float(rest[np.argmin(np.abs(delays_s - delay_s))])
    agrees = abs(float(delays_s[np.argmax(rest)]) - delay_s) <= AGREEMENT_S
    side = recording.gray.shape[1]
    mouth = Mouth(weights=weights.reshape(side, side), opening=opening, delay_s=delay_s)
    if confidence < LOWEST_CORRELATION or not agrees:
        return silent(
            count, "the picture moves, but not with the sounds", confidence=max(confidence, 0.0)
        ), mouth
    return _answers(recording.frame_s, opening, asked_s, probe.sound_s, delay_s, confidence), mouth


def _answers(
    frame_s: Array, opening: Array, asked_s: Array, sound_s: float, delay_s: float, confidence: float
) -> Answers:
    spans = [_span(frame_s, opening, asked + delay_s, sound_s) for asked in asked_s]
    heights = np.array([span[2] for span in spans if span is not None])
    if len(heights) == 0:
        return silent(len(asked_s), "no mouth opened", confidence=confidence)
    typical = float(np.median(heights))
    track = DelayTrack(delay_s)
    time_s = np.full(len(asked_s), np.nan)
    explained = np.zeros(len(frame_s), bool)
    for index, asked in enumerate(asked_s):
        span = _span(frame_s, opening, asked + track.expected_s, sound_s)
        if span is None:
            continue
        first, last, height, level = span
        explained[max(0, first - 8) : last + 12] = True
        if height < HALF * typical:
            continue
        rise = first + int(np.argmax(opening[first : last + 1] >= level))
        if rise == first and opening[first - 1] >= level:
            continue  # open before it could be: an answer to something else
        time_s[index] = frame_s[rise]
        track.add(frame_s[rise] - asked)
    # What rises as far as an answer does where no sound was. Wide guards: lips also close and settle.
    above = opening >= np.median(opening) + 0.75 * typical
    false = int((above[1:] & ~above[:-1] & ~explained[1:]).sum())
    return Answers(time_s=time_s, false=false, confidence=confidence)


def _span(
    frame_s: Array, opening: Array, expected_s: float, sound_s: float
) -> tuple[int, int, float, float] | None:
    """First frame to look at, the frame of the peak, the height of the rise and the level of half of it."""
    rest, first, last = np.searchsorted(
        frame_s, [expected_s - BEFORE_S - REST_S, expected_s - BEFORE_S, expected_s + sound_s + AFTER_S]
    )
    if rest >= first or first < 1 or first >= last:
        return None
    peak = first + int(np.argmax(opening[first:last]))
    base = float(np.median(opening[rest:first]))
    height = float(opening[peak]) - base
    return int(first), peak, height, base + HALF * height


def _change(recording: Recording) -> Array:
    """[T, S * S]: each pixel less its average over the time around it."""
    pixels = recording.gray.reshape(len(recording.gray), -1).astype(np.float32)
    sums = np.concatenate([np.zeros((1, pixels.shape[1])), np.cumsum(pixels, axis=0, dtype=np.float64)])
    first = np.searchsorted(recording.frame_s, recording.frame_s - DRIFT_S)
    last = np.searchsorted(recording.frame_s, recording.frame_s + DRIFT_S)
    mean = (sums[last] - sums[first]) / (last - first)[:, None]
    return np.asarray(pixels - mean.astype(np.float32))


def _expected(frame_s: Array, asked_s: Array, sound_s: float, delays_s: Array) -> Array:
    """[D, T]: for each delay, where an answer would be open: from the sound's beginning on, a frame at least."""
    lasting_s = max(sound_s, 0.04)
    rows = []
    for delay in delays_s:
        since = (
            frame_s
            - delay
            - asked_s[np.clip(np.searchsorted(asked_s, frame_s - delay, "right") - 1, 0, None)]
        )
        rows.append(((since >= 0) & (since < lasting_s)).astype(float))
    return np.array(rows)


def _widened(rows: Array) -> Array:
    """The largest of each three neighbours: a flash of one picture may be shown a picture early or late."""
    padded = np.pad(rows, ((0, 0), (1, 1)), mode="edge")
    return np.asarray(np.maximum(np.maximum(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:]))


def _normalised(rows: Array) -> Array:
    centred = rows - rows.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.asarray(centred / np.maximum(norm, 1e-9))
